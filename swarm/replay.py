"""Run a round again from its receipt: the journal folded through a fresh machine.

The asker's key is not needed. Where the machine signs, it is handed the signature that the
receipt records for exactly these bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.envelope import Envelope, check
from protocol.errors import BadSignatureError, ProtocolError, ReceiptError
from protocol.ids import PeerId
from protocol.messages import MICRO, opened
from protocol.receipt import Broke, Cancelled, Core, Entry, Expired, Heard, Opening, read
from swarm.round import Round


@dataclass(frozen=True, slots=True)
class Replayed:
    """A round run again.

    Attributes:
        winner: the winning answer's text, None where there is none.
        scores: of the classes, in 1e-6.
        problems: where the replay differs from the receipt.
    """

    winner: str | None
    outcome: str
    scores: tuple[int, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """The replay gave the receipt's core, byte for byte."""
        return not self.problems

    def as_json(self) -> dict[str, object]:
        """For programs; scores as floats."""
        return {
            "ok": self.ok,
            "winner": self.winner,
            "outcome": self.outcome,
            "scores": [score / MICRO for score in self.scores],
            "problems": list(self.problems),
        }


class _Playback:
    """Signs what the asker signed before; anything else gets an empty signature.

    Args:
        signed: envelopes of the asker.
        slate: its signature over a Slate whose bytes only the replay brings back.
    """

    def __init__(self, peer: PeerId, signed: list[Envelope], slate: bytes | None) -> None:
        self.peer = peer
        self._signed = {envelope.body: envelope for envelope in signed}
        self._slate = slate

    def seal(self, body: bytes) -> Envelope:
        """The recorded envelope of ``body``."""
        if body in self._signed:
            return self._signed[body]
        if self._slate is not None:
            envelope = Envelope(self.peer, body, self._slate)
            try:
                check(envelope)
            except BadSignatureError:
                pass
            else:
                return envelope
        return Envelope(self.peer, body, bytes(64))


def fold(core: Core, opening: Opening, asker: PeerId) -> Round:
    """The round as it stands after its journal.

    Raises:
        ReceiptError: an entry of the journal is not a valid message.
    """
    signed = [opening.invite, *core.earlier]
    if core.roster is not None:
        signed.append(core.roster)
    if core.judging is not None:
        signed += [wave.close for wave in core.judging.waves]
        signed += core.judging.acks
    slate = core.judging.slate_signature if core.judging else None
    again = Round(opening.plan, _Playback(asker, signed, slate), 0.0)
    for entry in opening.journal:
        if again.core is not None:
            break  # what comes after the end is not in the replayed opening, so it shows
        _apply(again, entry)
    return again


def _apply(again: Round, entry: Entry) -> None:
    now = entry.at / 1000
    match entry:
        case Heard():
            try:
                again.receive(opened(entry.envelope), now)
            except ProtocolError as error:
                raise ReceiptError(f"The journal holds a bad message: {error}") from error
        case Broke():
            again.broke(entry.peer, entry.kind, entry.detail, now)
        case Expired() if again.timer_at() is not None:
            again.expire(now)
        case Cancelled():
            again.cancel(now)


def replay(data: bytes) -> Replayed:
    """Run the round of a receipt file again.

    Raises:
        ReceiptError: the file is damaged, or its opening is detached.
    """
    file, core, opening = read(data)
    if opening is None:
        raise ReceiptError("Its opening is detached: there is nothing to replay.")
    again = fold(core, opening, file.core.signer)
    result = again.result
    if again.core is None or result is None:
        return Replayed(None, "unfinished", (), ("The journal ends before the round does.",))
    problems = () if again.core == core else (difference(again.core, core),)
    return Replayed(winner_text(again), result.outcome, result.scores, problems)


def winner_text(again: Round) -> str | None:
    """The winning answer's text."""
    if again.opened is None or again.result is None or again.result.winner is None:
        return None
    return again.opened.answers[again.result.winner]


def difference(derived: Core | None, stated: Core) -> str:
    """Which part of the core the replay contradicts."""
    if derived is None:
        return "The journal ends before the round does."
    parts = [
        name for name in Core.__struct_fields__ if getattr(derived, name) != getattr(stated, name)
    ]
    return f"The replay differs from the receipt in: {', '.join(parts)}."
