"""One stage of a round, as its asker holds it: a Roster, and what follows from it.

Answers are fixed together, shown together and judged together. A round has one stage, or several
in which ever more peers are asked (``Plan.stages``); each begins anew with all answers, those of
earlier stages included.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.codec import decode
from protocol.envelope import Envelope, Signer
from protocol.errors import RefusedError
from protocol.ids import ZERO_DIGEST, Digest, PeerId, RoundId
from protocol.messages import (
    Ballot,
    Commit,
    Duel,
    Incoming,
    Invite,
    Reveal,
    Roster,
    RosterEntry,
    Slate,
    SlateEntry,
    WaveClose,
    ballot_set,
    seal,
)
from protocol.receipt import AnswerClass, FaultKind, Judging, Rule, Wave, Weight
from swarm.ballots import ballot_rows, check_ballot
from swarm.consensus import Case, Vote, rule_in_force
from swarm.pairing import Pairing
from swarm.reputation import weigh
from swarm.seat import Seat
from swarm.slate import Opened, check_reveal, open_slate

Objection = tuple[FaultKind, str]
"""Why a message is not taken: the fault, and particulars."""


class Stage:
    """A Roster, its Slate, its waves.

    Args:
        signer: the asker's.
        seats: those who committed, sorted by peer.
        earlier: the Rosters before, in order.
        planned: the rule, if the evidence about these seats allows it.

    Attributes:
        slate, opened, pairing: None until the answers are shown.
        roster_digest, slate_digest: kept, since they name what everybody sends.
        waves: those that are closed.
        confident: judging ended before its last wave.
    """

    def __init__(
        self,
        signer: Signer,
        round_id: RoundId,
        seats: list[Seat],
        earlier: Sequence[Envelope],
        planned: Rule,
    ) -> None:
        self.seats = seats
        self.rule = rule_in_force(planned, [seat.standing for seat in seats])
        self.slate: Envelope | None = None
        self.opened: Opened | None = None
        self.pairing: Pairing | None = None
        self.waves: list[Wave] = []
        self.acks: dict[Digest, Envelope] = {}
        self.confident = False
        self._asked: frozenset[PeerId] = frozenset()
        self._signer = signer
        self._round = round_id
        previous = earlier[-1].digest if earlier else ZERO_DIGEST
        entries = tuple(RosterEntry(seat.peer, one.digest) for seat, one in self._committed())
        self.roster = seal(signer, Roster(round_id, len(earlier), previous, entries))
        self.roster_digest = self.roster.digest
        self.slate_digest = ZERO_DIGEST

    def _committed(self) -> list[tuple[Seat, Envelope]]:
        return [(seat, seat.commit.envelope) for seat in self.seats if seat.commit is not None]

    # --- answers ----------------------------------------------------------------------------------

    def reveal(self, seat: Seat) -> Incoming | None:
        """What ``seat`` has shown under this Roster."""
        return seat.reveals.get(self.roster_digest)

    def unrevealed(self) -> list[Seat]:
        """Those who may still show their answer."""
        return [seat for seat in self.seats if not seat.out and self.reveal(seat) is None]

    def take_reveal(self, seat: Seat, incoming: Incoming, answer_bytes: int) -> Objection | None:
        """Keep the Reveal of ``seat`` if it opens its Commit under this Roster."""
        message = incoming.message
        assert isinstance(message, Reveal)
        if seat not in self.seats or seat.commit is None:
            return "malformed", "a Reveal without a Commit"
        if self.reveal(seat) is not None:
            return "equivocation", "two different Reveals"
        assert isinstance(seat.commit.message, Commit)
        try:
            check_reveal(seat.commit.message, seat.peer, message, self.roster_digest, answer_bytes)
        except RefusedError as error:
            oversize = len(message.answer.encode()) > answer_bytes
            return "oversize" if oversize else "commit-mismatch", str(error)
        seat.reveals[self.roster_digest] = incoming
        return None

    def show(self, invite: Invite, secret: bytes) -> Opened:
        """Fix the Slate over all Reveals that have come."""
        entries = tuple(
            SlateEntry(commit, shown.envelope if (shown := self.reveal(seat)) else None)
            for seat, commit in self._committed()
        )
        slate = Slate(self._round, self.roster_digest, entries, secret)
        self.slate = seal(self._signer, slate)
        self.slate_digest = self.slate.digest
        roster = decode(self.roster.body, Roster)
        self.opened = open_slate(invite, roster, self.roster_digest, slate)
        seed, judges = self.opened.seed, self.opened.judges
        self.open_wave(Pairing(invite.adaptive, seed, len(self.opened.classes), judges))
        return self.opened

    # --- judging ----------------------------------------------------------------------------------

    @property
    def wave(self) -> int:
        """The wave that is open."""
        return len(self.waves)

    @property
    def follows(self) -> Digest:
        """Digest of the last WaveClose, zeros in the first wave."""
        return self.waves[-1].close.digest if self.waves else ZERO_DIGEST

    def judges(self) -> list[Seat]:
        """Those who showed their answer and still take part."""
        return [seat for seat in self.seats if not seat.out and self.reveal(seat) is not None]

    def ballot(self, seat: Seat, wave: int) -> Incoming | None:
        """What ``seat`` has voted on this Slate."""
        return seat.ballots.get((self.slate_digest, wave))

    def unvoted(self) -> list[Seat]:
        """The judges that owe a Ballot in the open wave."""
        return [
            seat
            for seat in self.judges()
            if seat.peer in self._asked and self.ballot(seat, self.wave) is None
        ]

    def open_wave(self, pairing: Pairing) -> None:
        """These pairs are to be judged now."""
        self.pairing = pairing
        self._asked = pairing.asked()

    def take_ballot(self, seat: Seat, incoming: Incoming) -> Objection | None:
        """Keep the Ballot of ``seat`` if it is on the pairs of the open wave."""
        message = incoming.message
        assert isinstance(message, Ballot)
        assert self.pairing is not None
        if self.ballot(seat, message.wave) is not None:
            return "equivocation", f"two different Ballots in wave {message.wave}"
        try:
            check_ballot(message, seat.peer, self.pairing, self.slate_digest, self.follows)
        except RefusedError as error:
            return "bad-ballot", str(error)
        seat.ballots[self.slate_digest, self.wave] = incoming
        return None

    def close_wave(self, more: bool, duels: tuple[Duel, ...] = ()) -> Envelope:
        """Fix the ballots that came in the open wave."""
        ballots = tuple(
            one.envelope for seat in self.seats if (one := self.ballot(seat, self.wave))
        )
        fixed = ballot_set(tuple(ballot.digest for ballot in ballots))
        message = WaveClose(self._round, self.slate_digest, self.wave, fixed, more, duels)
        close = seal(self._signer, message)
        self.waves.append(Wave(close, ballots))
        return close

    # --- what follows -----------------------------------------------------------------------------

    def weights(self) -> tuple[Weight, ...]:
        """Of the seats."""
        return weigh(self.rule.name, [seat.standing for seat in self.seats])

    def case(self) -> Case | None:
        """What the ballots so far say, as the consensus takes it; None before answers are shown."""
        if self.opened is None or self.pairing is None:
            return None
        return Case(
            rule=self.rule,
            classes=self.opened.classes,
            weights=self.weights(),
            votes=tuple(
                Vote(index, row)
                for index, seat in enumerate(self.seats)
                for (slate, _), ballot in seat.ballots.items()
                if slate == self.slate_digest
                for row in ballot_rows(ballot)
            ),
            both_orders=self.pairing.both_orders,
        )

    def names(self) -> set[Digest]:
        """Of its Roster and its Slate: messages that name one of them belong here."""
        return {self.roster_digest} | ({self.slate_digest} if self.slate else set())

    def commits(self) -> tuple[Envelope, ...]:
        """The signed Commits, in roster order."""
        return tuple(commit for _, commit in self._committed())

    def judging(self) -> Judging | None:
        """What the core of the receipt says of all this."""
        if self.opened is None or self.slate is None:
            return None
        return Judging(
            slate=self.slate_digest,
            slate_signature=self.slate.signature,
            seed=self.opened.seed,
            missing_reveals=self.opened.texts.count(None),
            classes=tuple(AnswerClass(members) for members in self.opened.classes),
            waves=tuple(self.waves),
            acks=tuple(self.acks[one.digest] for wave in self.waves for one in wave.ballots),
            stopped="confident" if self.confident else "schedule",
        )
