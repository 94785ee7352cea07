"""What one peer may cost this node: refused beyond it, and cut off if it goes on."""

from __future__ import annotations

from typing import Final

from node.mesh.ration import Ration
from protocol import limits
from protocol.errors import BusyError, QuotaError
from protocol.ids import PeerId

OPENED_AT_ONCE: Final = 8
OPENED_PER_S: Final = 0.5
"""Exchanges of one peer: each hashes the head of every log that is held."""
REFUSALS: Final = 64
REFUSALS_PER_S: Final = 1.0
"""Refusals of one peer before it is cut off: an honest one that is ahead of its time slows down."""
FAULTS_PER_S: Final = 1 / 600
_EVERYBODY: Final = "everybody"


class Quota:
    """Token buckets for each peer. All times are seconds of one clock."""

    def __init__(self) -> None:
        self._opened = Ration(OPENED_AT_ONCE, OPENED_PER_S)
        self._entries = Ration(limits.ENTRIES_AT_ONCE, limits.ENTRIES_PER_S)
        self._bytes = Ration(limits.SYNC_BYTES_AT_ONCE, limits.SYNC_BYTES_PER_S)
        self._checks = Ration(limits.CHECKS_PER_S, limits.CHECKS_PER_S)
        self._refusals = Ration(REFUSALS, REFUSALS_PER_S)
        self._faults = Ration(limits.FAULTS - 1, FAULTS_PER_S)

    def opens(self, peer: PeerId, now: float) -> None:
        """An exchange begins.

        Raises:
            QuotaError: too soon after others.
        """
        if not self._opened.take(peer, now):
            raise QuotaError("It begins exchanges too often.")

    def costs(self, peer: PeerId, size: int, now: float) -> None:
        """A peer is sent, or has sent, ``size`` bytes.

        Raises:
            QuotaError: it has had more than it may already.
        """
        if not self._bytes.take(peer, now, size):
            raise QuotaError("Its bytes are used up for now.")

    def gives(self, peer: PeerId, entries: int, now: float) -> None:
        """A peer hands over entries that it was not asked for.

        Raises:
            QuotaError: it has given more than it may already.
            BusyError: signatures are checked as fast as this node does that for all peers
                together, which need not be the fault of this one.
        """
        if not self._entries.take(peer, now, entries):
            raise QuotaError("It gives entries faster than they are taken.")
        if not self._checks.take(_EVERYBODY, now, 0):
            raise BusyError("Signatures are checked as fast as may be.")

    def checked(self, signatures: int, now: float) -> None:
        """So many signatures were checked, whoever caused it."""
        self._checks.take(_EVERYBODY, now, signatures)

    def refused(self, peer: PeerId, now: float) -> bool:
        """Something of a peer was refused; whether it goes on with what it was refused."""
        return not self._refusals.take(peer, now)

    def faulty(self, peer: PeerId, now: float) -> bool:
        """A peer has sent what no honest one passes on; whether that was once too often."""
        return not self._faults.take(peer, now)
