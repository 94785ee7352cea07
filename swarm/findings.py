"""What checking a receipt finds, and how it stops at the first thing that does not hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from protocol.envelope import Envelope, open_as
from protocol.errors import ProtocolError, ReceiptError
from protocol.ids import PeerId, short_peer

T = TypeVar("T")


@dataclass(slots=True)
class Report:
    """What verification found.

    Attributes:
        checked: what holds, a sentence each.
        notes: what a reader should know though nothing is wrong (missing ballots, no opening).
        problems: what does not hold; the first one ends the check.
        missing: ballots owed and absent.
    """

    checked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    missing: list[dict[str, object]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.problems

    @property
    def lines(self) -> tuple[str, ...]:
        """For people: what holds, then what to know."""
        return (*self.checked, *self.notes)

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "ok": self.ok,
            "checked": self.checked,
            "notes": self.notes,
            "problems": self.problems,
            "missing_ballots": self.missing,
        }


def expect(holds: bool, otherwise: str) -> None:
    """Raise ReceiptError unless it holds."""
    if not holds:
        raise ReceiptError(otherwise)


def open_signed(envelope: Envelope, signer: PeerId, kind: type[T], what: str) -> T:
    """The message of ``signer`` in an envelope.

    Raises:
        ReceiptError: it is somebody else's, or none; names it as ``what``.
    """
    expect(envelope.signer == signer, f"{what} is not signed by {short_peer(signer)}.")
    try:
        return open_as(envelope, kind)
    except ProtocolError as error:
        raise ReceiptError(f"{what} is not valid: {error.user_text()}") from error
