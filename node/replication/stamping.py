"""Stamps are made and checked in threads: the event loop never hashes them.

Both kinds of work run at normal priority, on purpose. A thread of low priority that is handed the
interpreter's lock while others have the processors keeps the lock until it gets its turn, and all
of the node waits: for up to half a second, where two busy cores were shared. Stamps are made
politely by resting instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import thread_time
from typing import Final, TypeVar

import trio

from protocol import limits
from protocol.errors import AdmissionError, BusyError, TicketError
from protocol.ids import PeerId
from swarm.ledger.admission import Certificates, Stamps

SHARE: Final = 0.25
"""Of one core, what making a stamp takes at most."""
BATCH: Final = 16
"""Tries between two looks whether to go on: some 30 to 50 ms."""

_T = TypeVar("_T")
_Key = tuple[PeerId, int, bytes]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stamp is.

    Attributes:
        author, epoch: whose it is to be.
        tried: nonces so far.
        expected: how many it takes in expectation.
    """

    author: PeerId
    epoch: int
    tried: int
    expected: int

    @property
    def fraction(self) -> float:
        """The share of all stamps that would have been found by now. There is no telling how long
        this one still takes: always ``expected`` tries, in expectation."""
        return 1.0 - (1.0 - 1.0 / self.expected) ** self.tried


class Stamper:
    """Makes this node's stamps, one at a time, in one thread with at most ``SHARE`` of a core.

    One of ``STAMP_BITS`` takes some 8 minutes in expectation, and three times as long in one case
    out of twenty.

    Attributes:
        progress: of the stamp being made, None where there is none.
    """

    def __init__(self, stamps: Stamps) -> None:
        self._stamps = stamps
        self._one = trio.Lock()
        self._thread = trio.CapacityLimiter(1)
        self.progress: Progress | None = None

    async def stamp(self, author: PeerId, epoch: int) -> bytes:
        """A stamp for ``author`` in ``epoch``: the first one counting from nonce 0, so it is the
        same after a restart. Can be cancelled between two batches."""
        async with self._one:
            try:
                first = 0
                while True:
                    self.progress = Progress(author, epoch, first, self._stamps.expected)
                    found, took = await trio.to_thread.run_sync(
                        self._batch, author, epoch, first, limiter=self._thread
                    )
                    if found is not None:
                        return found
                    await trio.sleep(took * (1 / SHARE - 1))
                    first += BATCH
            finally:
                self.progress = None

    def _batch(self, author: PeerId, epoch: int, first: int) -> tuple[bytes | None, float]:
        # Not the time that passed: a thread that has to wait for its turn needs no rest for that.
        began = thread_time()
        found = self._stamps.search(author, epoch, range(first, first + BATCH))
        return found, thread_time() - began


class Verifier:
    """Checks the tickets of others, stamps in one thread, and knows those that it has checked.

    It is the :class:`swarm.ledger.admission.Admission` of a replica: whoever hands something to the
    replica awaits :meth:`verify` before. A ticket is never computed twice while it is remembered,
    also where several ask at once; and what is remembered of bad ones, which cost nothing to make,
    takes no room from good ones.

    Tickets are computed in the order in which they were asked for. So a peer whose tickets are
    verified one after the other waits for one ticket of each other peer, whatever these send.

    Args:
        admission: what computes the quality of a ticket.
    """

    def __init__(self, admission: Stamps | Certificates) -> None:
        self._admission = admission
        self._thread = trio.CapacityLimiter(1)
        self._running: dict[_Key, trio.Event] = {}
        self._waiting = 0
        # The one asked for last stands last.
        self._good: dict[_Key, int] = {}
        self._bad: dict[_Key, str] = {}

    def quality(self, author: PeerId, epoch: int, ticket: bytes) -> int:
        """The quality of a ticket that has been verified; nothing is computed.

        Raises:
            AdmissionError: it was refused, or is not known (any more).
        """
        found = self._known((author, epoch, ticket))
        if found is None:
            raise AdmissionError("Its ticket is not verified.")
        return found

    def recheck(self, author: PeerId, epoch: int, ticket: bytes) -> None:
        """Raise TicketError where a ticket that was verified in an earlier run admits nobody now,
        as after a change of the swarm's key."""
        self._admission.recheck(author, epoch, ticket)

    async def verify(self, author: PeerId, epoch: int, ticket: bytes) -> int:
        """The quality of a ticket; at once where it is known.

        Raises:
            AdmissionError: it admits nobody, or somebody else, or at another time.
            BusyError: too many are waiting; the ticket may be good.
        """
        self._admission.check_form(author, epoch, ticket)
        key = (author, epoch, ticket)
        while (found := self._known(key)) is None:
            if self._waiting >= limits.TICKETS_WAITING:
                raise BusyError(f"{self._waiting} tickets wait to be verified.")
            self._waiting += 1
            try:
                if key in self._running:
                    await self._running[key].wait()
                else:
                    await self._compute(key)
            finally:
                self._waiting -= 1
        return found

    async def _compute(self, key: _Key) -> None:
        self._running[key] = trio.Event()
        try:
            if isinstance(self._admission, Certificates):
                # Done before a thread could have its turn: milliseconds where the loop is busy.
                outcome = _outcome(self._admission.quality, key)
            else:
                outcome = await trio.to_thread.run_sync(
                    _outcome, self._admission.quality, key, limiter=self._thread
                )
            if isinstance(outcome, int):
                _remember(self._good, key, outcome, limits.TICKETS_KNOWN)
            else:
                _remember(self._bad, key, outcome, limits.TICKETS_REFUSED)
        finally:
            # Where this one was cancelled, the next of those that wait computes it.
            self._running.pop(key).set()

    def _known(self, key: _Key) -> int | None:
        if key in self._bad:
            reason = self._bad[key] = self._bad.pop(key)
            raise TicketError(reason)
        if key in self._good:
            self._good[key] = self._good.pop(key)
        return self._good.get(key)


def _outcome(quality: Callable[[PeerId, int, bytes], int], key: _Key) -> int | str:
    """The quality of a ticket, or why it has none."""
    try:
        return quality(*key)
    except AdmissionError as error:
        return str(error)


def _remember(held: dict[_Key, _T], key: _Key, value: _T, room: int) -> None:
    held[key] = value
    if len(held) > room:
        del held[next(iter(held))]
