"""A round by hand: real participants, and an asker whose every message can be bent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any, TypeVar

import msgspec

from protocol.codec import encode
from protocol.envelope import Envelope, KeySigner
from protocol.ids import ZERO_DIGEST, Digest, RoundId
from protocol.messages import (
    Ack,
    Ballot,
    Close,
    Commit,
    Incoming,
    Invite,
    Message,
    Model,
    Phases,
    Reveal,
    Roster,
    RosterEntry,
    Slate,
    SlateEntry,
    WaveClose,
    ballot_set,
    opened,
    parse,
    seal,
    secret_hash,
    stage_secret,
)
from protocol.receipt import (
    Core,
    Entry,
    Expired,
    Heard,
    Opening,
    opening_digest,
    read,
    write,
)
from swarm.effects import Effect, Finished, Send, Store
from swarm.participant import Participant, State
from swarm.round import Round
from tests.swarm.virtual import VirtualSwarm, signer

M = TypeVar("M", bound=Message)
SECRET = sha256(b"secret").digest()
SALTS = [sha256(b"salt %d" % number).digest() for number in range(48)]


def sealed(who: KeySigner, message: Message) -> Incoming:
    """A message as it comes in, signed by ``who``."""
    return opened(seal(who, message))


def changed(struct: Any, **fields: Any) -> Any:
    """A copy of ``struct`` with other ``fields``."""
    return msgspec.structs.replace(struct, **fields)


class Desk:
    """An asker's desk: ``answers`` of that many participants, up to any point of the round.

    Args:
        adaptive, stages: of the Invite.

    Attributes:
        signers, machines, answers: of the participants, sorted by peer.
        effects: all that the machines asked for, by machine.
    """

    def __init__(
        self, *answers: str, answer_bytes: int = 64, adaptive: bool = False, stages: int = 1
    ) -> None:
        self.asker = signer("asker")
        named = [signer(f"peer {number}") for number in range(len(answers))]
        self.signers = sorted(named, key=lambda one: one.peer)
        self.answers = answers
        self.invite = Invite(
            version=1,
            swarm="test",
            nonce=bytes(32),
            question="What is 6 * 7?",
            answer_bytes=answer_bytes,
            answer_tokens=64,
            phases=Phases(commit=10_000, reveal=2_000, judge=20_000),
            secret_hash=secret_hash(stage_secret(SECRET, stages - 1)),
            adaptive=adaptive,
            stages=stages,
        )
        incoming = self.seal(self.invite)
        self.round = RoundId(incoming.envelope.digest)
        self.machines = [
            Participant(incoming, one, Model("m", "f", ""), SALTS[at], 0.0)
            for at, one in enumerate(self.signers)
        ]
        self.effects: list[list[Effect]] = [[] for _ in answers]
        self.follows: Digest = ZERO_DIGEST
        self._pump()

    @property
    def me(self) -> Participant:
        """The participant under test: the first."""
        return self.machines[0]

    def seal(self, message: Message) -> Incoming:
        """A message of the asker."""
        return sealed(self.asker, message)

    def _pump(self) -> None:
        for machine, effects in zip(self.machines, self.effects, strict=True):
            effects.extend(machine.effects())

    def mine(self) -> list[Effect]:
        """What the participant under test asks for since it was last looked at."""
        effects = self.me.effects()
        self.effects[0].extend(effects)
        return effects

    def tell(self, incoming: Incoming, now: float = 1.0) -> None:
        """Everybody hears it."""
        for machine in self.machines:
            machine.receive(incoming, now)
        self._pump()

    def sent(self, at: int, kind: type[M]) -> list[M]:
        """Messages of a type that a machine sent so far."""
        return [one.message for one in self._incoming(at) if isinstance(one.message, kind)]

    def envelope(self, at: int, kind: type[Message]) -> Envelope:
        """The last envelope of a type that a machine sent."""
        return [one.envelope for one in self._incoming(at) if isinstance(one.message, kind)][-1]

    def _incoming(self, at: int) -> list[Incoming]:
        return [parse(effect.payload) for effect in self.effects[at] if isinstance(effect, Send)]

    @property
    def reason(self) -> str:
        """Why the participant under test ended; empty while it has not."""
        reasons = [one.reason for one in self.effects[0] if isinstance(one, Finished)]
        assert len(reasons) <= 1
        assert (self.me.state is State.DONE) == bool(reasons)
        return reasons[0] if reasons else ""

    def refuses(self, message: Message) -> str:
        """Why the participant under test ends on this message of the asker, without a word."""
        self.me.receive(self.seal(message), 1.0)
        assert not any(isinstance(effect, Send) for effect in self.mine())
        assert self.reason.startswith("refused: ")
        return self.reason

    # --- the asker's messages -------------------------------------------------------------------

    def roster(self, **fields: Any) -> Roster:
        """The right Roster, but for ``fields``."""
        entries = tuple(
            RosterEntry(one.peer, self.envelope(at, Commit).digest)
            for at, one in enumerate(self.signers)
        )
        return changed(Roster(self.round, 0, ZERO_DIGEST, entries), **fields)

    def entries(self) -> list[SlateEntry]:
        """The right entries of the Slate."""
        return [
            SlateEntry(self.envelope(at, Commit), self.envelope(at, Reveal))
            for at in range(len(self.machines))
        ]

    def slate(self, **fields: Any) -> Slate:
        """The right Slate, but for ``fields``."""
        secret = stage_secret(SECRET, self.invite.stages - 1)
        right = Slate(self.round, self.roster_digest, tuple(self.entries()), secret)
        return changed(right, **fields)

    def wave_close(self, wave: int = 0, **fields: Any) -> WaveClose:
        """The right WaveClose, but for ``fields``."""
        ballots = tuple(self.envelope(at, Ballot).digest for at in range(len(self.machines)))
        right = WaveClose(self.round, self.slate_digest, wave, ballot_set(ballots), False)
        return changed(right, **fields)

    def ack(self, at: int = 0) -> Ack:
        """The asker's Ack of a machine's last Ballot."""
        return Ack(self.round, self.envelope(at, Ballot).digest)

    def close(self) -> Close:
        """The end."""
        return Close(self.round, "answer", bytes(32))

    # --- up to a state --------------------------------------------------------------------------

    def up_to(self, state: State) -> Desk:
        """Everyone is in ``state``, by the right messages."""
        steps: Sequence[tuple[State, Any]] = [
            (State.COMMITTED, self._commit),
            (State.REVEALED, self._reveal),
            (State.JUDGING, self._show),
            (State.VOTED, self._vote),
            (State.JUDGED, lambda: self.tell(self.seal(self.wave_close()))),
            (State.DONE, lambda: self.tell(self.seal(self.close()))),
        ]
        for reached, step in steps:
            if self.me.state is state:
                break
            step()
            assert self.me.state is reached
        return self

    def _commit(self) -> None:
        for machine, answer in zip(self.machines, self.answers, strict=True):
            machine.generated(answer, 0.5)
        self._pump()

    def _reveal(self) -> None:
        incoming = self.seal(self.roster())
        self.roster_digest = incoming.envelope.digest
        self.tell(incoming)

    def _show(self) -> None:
        incoming = self.seal(self.slate())
        self.slate_digest = incoming.envelope.digest
        self.tell(incoming)

    def _vote(self) -> None:
        for machine in self.machines:
            machine.failed("abstains", 2.0)
        self._pump()


def three(state: State = State.ANSWERING) -> Desk:
    """Three participants, two classes."""
    return Desk("42", "41", "42.0").up_to(state)


def six_classes() -> Desk:
    """Twelve participants and six classes: fifteen pairs, so three waves."""
    return Desk(*[str(40 + number % 6) for number in range(12)])


# --- receipts, as an asker who lies would write them ----------------------------------------------


def signed(swarm: VirtualSwarm, core: Core, opening: Opening | None) -> bytes:
    """A receipt of this core and opening, signed by the asker."""
    texts = None if opening is None else encode(opening)
    if texts is not None:
        core = changed(core, opening=opening_digest(texts))
    return write(swarm.asker.seal(encode(core)), texts)


def rerun(swarm: VirtualSwarm, journal: Iterable[Entry]) -> bytes:
    """The receipt that the asker's key gives to another journal of the same plan."""
    machine = Round(swarm.plan, swarm.asker, 0.0)
    for entry in journal:
        now = entry.at / 1000
        match entry:
            case Heard(envelope=envelope):
                machine.receive(opened(envelope), now)
            case Expired():
                machine.expire(now)
            case _:
                raise AssertionError(f"no such entry in a round without faults: {entry}")
    (receipt,) = [effect.receipt for effect in machine.effects() if isinstance(effect, Store)]
    return receipt


def receipt_without(swarm: VirtualSwarm, judge: str) -> bytes:
    """The receipt had ``judge`` sent no Ballot in the last wave."""
    _, _, opening = read(swarm.receipt)
    assert opening is not None
    unwanted = max(
        at
        for at, entry in enumerate(opening.journal)
        if isinstance(entry, Heard)
        and entry.envelope.signer == signer(judge).peer
        and isinstance(opened(entry.envelope).message, Ballot)
    )
    kept = [entry for at, entry in enumerate(opening.journal) if at != unwanted]
    return rerun(swarm, [*kept, Expired(kept[-1].at)])
