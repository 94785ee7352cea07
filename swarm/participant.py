"""A peer's side of somebody else's round, as a state machine.

It answers, commits, reveals, judges. It takes nothing on trust: a second Roster, a Slate that
does not open what was committed, a seed that does not follow, and it stops taking part. Every
wait ends by this peer's own clock. Where the Invite allows for more stages, the next Roster may
come instead of the Slate or the Close, and then it reveals and judges anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from math import isfinite
from typing import Final

from protocol.codec import encode
from protocol.digest import digest
from protocol.envelope import Signer
from protocol.errors import RefusedError
from protocol.ids import ZERO_DIGEST, Digest, PeerId, RoundId, short
from protocol.messages import (
    MICRO,
    Ack,
    Ballot,
    Close,
    Commit,
    Decline,
    FromAsker,
    Incoming,
    Invite,
    Message,
    Model,
    Reveal,
    Roster,
    RosterEntry,
    Row,
    Slate,
    WaveClose,
    commitment,
    seal,
)
from swarm.duels import check_duels
from swarm.effects import Effect, Finished, Generate, Judge, Send, StopWork
from swarm.pairing import Pair, Pairing
from swarm.seeded import Stream
from swarm.slate import Opened, check_roster, check_succession, open_slate

GRACE_MS = 5_000
"""Added to each wait for the asker, whose phases began a little before or after ours."""


class State(Enum):
    """What this peer is doing or waiting for."""

    ANSWERING = "answering"
    COMMITTED = "waiting for the roster"
    REVEALED = "waiting for the slate"
    JUDGING = "judging"
    VOTED = "waiting for the wave to close"
    JUDGED = "waiting for the close"
    DONE = "done"


# In which states a message of the asker moves this peer on. Acks and Closes are always heard, and
# a Roster in _MORE as well while there may be another stage; anything else out of turn ends the
# participation.
_TURNS: Final[dict[type, frozenset[State]]] = {
    Roster: frozenset({State.COMMITTED}),
    Slate: frozenset({State.REVEALED}),
    WaveClose: frozenset({State.JUDGING, State.VOTED}),
    Ack: frozenset(State),
    Close: frozenset(State),
}
_MORE: Final = frozenset({State.REVEALED, State.JUDGED})


class Participant:
    """One peer in one round.

    Args:
        invite: the asker's verified Invite.
        signer: signs as this peer.
        model: what this peer runs.
        salt: 32 secret random bytes, used once.
        now: seconds on the caller's monotonic clock.
    """

    def __init__(
        self, invite: Incoming, signer: Signer, model: Model, salt: bytes, now: float
    ) -> None:
        assert isinstance(invite.message, Invite)
        self.asker = invite.peer
        self.round_id = RoundId(invite.envelope.digest)
        self.state = State.ANSWERING
        self.acks: list[Incoming] = []
        self._invite = invite.message
        self._signer = signer
        self._model = model
        self._salt = salt
        self._answer = ""
        self._own_commit = ZERO_DIGEST
        self._rosters: list[Roster] = []
        self._roster_digest = ZERO_DIGEST
        self._slate_digest = ZERO_DIGEST
        self._opened: Opened | None = None
        self._pairing: Pairing | None = None
        self._follows: Digest = ZERO_DIGEST
        self._unacknowledged: set[Digest] = set()
        self._seen: dict[tuple[str | bytes | int, ...], Digest] = {}
        self._now = now
        self._deadline = now + self._invite.phases.commit / 1000
        self._effects: list[Effect] = [
            Generate(
                question=self._invite.question,
                max_tokens=self._invite.answer_tokens,
                max_bytes=self._invite.answer_bytes,
                seed=int.from_bytes(digest("sampling", self.round_id, self.peer)[:6], "big"),
            )
        ]

    @property
    def peer(self) -> PeerId:
        """Oneself."""
        return self._signer.peer

    # --- inputs ----------------------------------------------------------------------------------

    def generated(self, answer: str, now: float) -> None:
        """The model's answer is ready."""
        self._now = now
        if self.state is not State.ANSWERING:
            return
        try:
            size = len(answer.encode())
        except UnicodeEncodeError:
            self.failed("the answer is not text: it holds half a surrogate pair", now)
            return
        if size > self._invite.answer_bytes:
            self.failed("the answer is over the limit", now)
            return
        self._answer = answer
        fixed = commitment(self.round_id, self.peer, self._salt, answer)
        self._own_commit = self._send(Commit(self.round_id, fixed, self._model))
        # With too few answers the asker first asks more peers.
        phases = self._invite.phases
        self._wait(State.COMMITTED, phases.commit * self._invite.stages + phases.reveal)

    def failed(self, detail: str, now: float) -> None:
        """The model could not answer, or could not judge."""
        self._now = now
        if self.state is State.ANSWERING:
            self._send(Decline(self.round_id, "failed", detail[:256]))
            self._finish(f"the model could not answer: {detail}")
        elif self.state is State.JUDGING:
            self._abstain()

    def judged(self, verdicts: Sequence[float | None], now: float) -> None:
        """Verdicts on the pairs of the last ``Judge`` effect, in their order."""
        self._now = now
        if self.state is not State.JUDGING:
            return
        pairs = self._pairs()
        if len(verdicts) != len(pairs):
            self._abstain()
            return
        self._vote(
            tuple(
                Row(first, second, _micro(verdict))
                for (first, second), verdict in zip(pairs, verdicts, strict=True)
            )
        )

    def receive(self, incoming: Incoming, now: float) -> None:
        """A verified message. Only the asker's, about this round, are heard."""
        self._now = now
        message = incoming.message
        if self.state is State.DONE or incoming.peer != self.asker:
            return
        if not isinstance(message, Roster | Slate | WaveClose | Ack | Close):
            return
        if message.round != self.round_id:
            return
        kind, slot = type(message).__name__, _slot(message)
        name = incoming.envelope.digest
        first = self._seen.get(slot)
        try:
            if first == name:
                return  # a repeat of what has already moved this peer on
            if first is not None:
                raise RefusedError(f"Two different {kind}s, {short(first)} and {short(name)}.")
            if self.state not in _TURNS[type(message)] and not self._is_next_roster(message):
                raise RefusedError(f"A {kind} while {self.state.value}.")
            if not isinstance(message, Ack):
                self._seen[slot] = name
            self._take(incoming, message)
        except RefusedError as error:
            self._finish(f"refused: {error}")

    def on_timer(self, now: float) -> None:
        """The deadline of :meth:`timer_at` has come; earlier calls change nothing."""
        self._now = now
        if self.state is State.DONE or now < self._deadline:
            return
        if self.state is State.JUDGING:
            # Too late for this wave; the next one may still come.
            self._effects.append(StopWork())
            self._wait(State.VOTED, self._invite.phases.judge)
        else:
            self._finish(f"gave up {self.state.value}")

    def timer_at(self) -> float | None:
        """When :meth:`on_timer` is due, on the clock of ``now``; None once done."""
        return None if self.state is State.DONE else self._deadline

    def effects(self) -> list[Effect]:
        """Effects queued since the last call, in order."""
        queued, self._effects = self._effects, []
        return queued

    # --- messages of the asker -------------------------------------------------------------------

    def _is_next_roster(self, message: Message) -> bool:
        return isinstance(message, Roster) and self.state in _MORE and self._stages_left() > 0

    def _stages_left(self) -> int:
        """How many Rosters may still come."""
        return self._invite.stages - 1 - self._rosters[-1].stage

    def _take(self, incoming: Incoming, message: Roster | Slate | WaveClose | Ack | Close) -> None:
        match message:
            case Roster():
                self._take_roster(message, incoming.envelope.digest)
            case Slate():
                self._take_slate(message, incoming.envelope.digest)
            case WaveClose():
                self._take_wave_close(message, incoming.envelope.digest)
            case Ack():
                if message.ballot in self._unacknowledged:
                    self._unacknowledged.remove(message.ballot)
                    self.acks.append(incoming)
            case Close():
                self._finish(f"closed: {message.outcome}")

    def _take_roster(self, roster: Roster, name: Digest) -> None:
        check_roster(roster, self._invite.stages)
        if self._rosters:
            check_succession(self._rosters, self._roster_digest, roster)
        if RosterEntry(self.peer, self._own_commit) not in roster.entries:
            raise RefusedError("The Roster does not hold this peer's Commit.")
        self._rosters.append(roster)
        self._roster_digest = name
        self._opened = self._pairing = None
        self._follows = ZERO_DIGEST
        self._send(Reveal(self.round_id, name, self._salt, self._answer))
        phases = self._invite.phases
        self._wait(State.REVEALED, phases.reveal + phases.commit * self._stages_left())

    def _take_slate(self, slate: Slate, name: Digest) -> None:
        opened = open_slate(self._invite, self._rosters[-1], self._roster_digest, slate)
        if self.peer not in opened.judges:
            raise RefusedError("The Slate leaves out this peer's Reveal.")
        self._opened, self._slate_digest = opened, name
        self._pairing = Pairing(
            self._invite.adaptive, opened.seed, len(opened.classes), opened.judges
        )
        self._judge()

    def _take_wave_close(self, close: WaveClose, name: Digest) -> None:
        assert self._pairing is not None
        if close.slate != self._slate_digest or close.wave != self._pairing.wave:
            raise RefusedError("A WaveClose for another Slate or wave.")
        if close.more:
            check_duels(close.duels, self._pairing)
        elif close.duels:
            raise RefusedError("A WaveClose ends judging, and chooses pairs.")
        if self.state is State.JUDGING:
            self._effects.append(StopWork())
        if not close.more:
            self._wait(State.JUDGED, self._invite.phases.commit * self._stages_left())
            return
        self._pairing = self._pairing.then(close.duels)
        self._follows = name
        self._judge()

    # --- judging ---------------------------------------------------------------------------------

    def _pairs(self) -> tuple[Pair, ...]:
        assert self._pairing is not None
        return self._pairing.pairs(self.peer)

    def _judge(self) -> None:
        opened, pairs = self._opened, self._pairs()
        assert opened is not None
        if not pairs:  # others are asked in this wave
            self._wait(State.VOTED, self._invite.phases.judge)
            return
        # Candidates are numbered differently for each judge, so that a place in the prompt
        # favours nobody.
        order = list(range(len(opened.answers)))
        Stream(digest("labels", opened.seed, self.peer)).shuffle(order)
        place = {index: at for at, index in enumerate(order)}
        self._effects.append(
            Judge(
                question=self._invite.question,
                answers=tuple(opened.answers[index] for index in order),
                pairs=tuple((place[first], place[second]) for first, second in pairs),
                nonce=digest("fence", opened.seed, self.peer, self._salt).hex()[:16],
            )
        )
        self._wait(State.JUDGING, self._invite.phases.judge, grace=0)

    def _abstain(self) -> None:
        self._vote(tuple(Row(*pair, None) for pair in self._pairs()))

    def _vote(self, rows: tuple[Row, ...]) -> None:
        assert self._pairing is not None
        wave = self._pairing.wave
        ballot = Ballot(self.round_id, self._slate_digest, wave, self._follows, rows)
        self._unacknowledged.add(self._send(ballot))
        self._wait(State.VOTED, self._invite.phases.judge)

    # --- the rest --------------------------------------------------------------------------------

    def _send(self, message: Message) -> Digest:
        envelope = seal(self._signer, message)
        self._effects.append(Send(self.asker, encode(envelope)))
        return envelope.digest

    def _wait(self, state: State, duration_ms: int, grace: int = GRACE_MS) -> None:
        self.state = state
        self._deadline = self._now + (duration_ms + grace) / 1000

    def _finish(self, reason: str) -> None:
        if self.state in (State.ANSWERING, State.JUDGING):
            self._effects.append(StopWork())
        self.state = State.DONE
        self._effects.append(Finished(reason))


def _slot(message: FromAsker) -> tuple[str | bytes | int, ...]:
    """The place that the asker fills once: another message in it is equivocation."""
    match message:
        case Roster():
            return "Roster", message.stage
        case Slate():
            return "Slate", message.roster
        case WaveClose():
            return "WaveClose", message.slate, message.wave
    return (type(message).__name__,)


def _micro(verdict: float | None) -> int | None:
    """A probability as an integer of 1e-6; what is not a number abstains."""
    if verdict is None or not isfinite(verdict):
        return None
    return round(min(1.0, max(0.0, verdict)) * MICRO)
