"""The logs on disk, written behind; and this node's own, written before anyone sees it.

A node that is stopped at any instant finds a prefix of what it held: what is missing of others
comes again from peers, and of its own log nothing is missing that has left the node, see
:mod:`node.replication.mark`. What is damaged is moved aside and comes again, too.

SQLite with a write-ahead log, used from one worker thread at a time. Writes are shielded from
cancellation, so a cancelled task never leaves half of one; their wait is bounded by SQLite's busy
timeout. What others say is committed without waiting for the disk (``synchronous=NORMAL``: a power
failure may take the latest transactions, and never leaves half of one), what this node says is
waited for.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import trio

from node.replication import ledger_file, ledger_rows
from node.replication.ledger_file import DATABASE, DamagedError
from node.replication.ledger_rows import Kept
from node.replication.mark import UNKNOWN, Mark, Marks, Unknown
from node.replication.unwritten import Batch, Snapshot, Unwritten
from protocol import limits
from protocol.errors import BusyError, StoreError
from protocol.ids import PeerId, short_peer
from protocol.ledger import Run, entry_digest, read_entry
from swarm.ledger.chain import Chain
from swarm.ledger.replica import Change, Name

__all__ = ["UNKNOWN", "Kept", "LedgerDatabase", "Mark", "Unknown", "read_only"]

_log = logging.getLogger(__name__)
T = TypeVar("T")

SETTLE_S: Final = 0.5
"""What changes within this time is written together."""
RETRY_S: Final = 10.0
"""Between two tries while the disk fails."""
BATCH_ENTRIES: Final = 500
BATCH_BYTES: Final = 1 << 20
"""Of one transaction, unless one chain alone has more."""
LOAD_ENTRIES: Final = 128
"""Given at once when the logs are loaded, unless one chain alone has more."""
_EXPIRED_AT_ONCE: Final = 64
"""Chains deleted in one transaction."""


class LedgerDatabase:
    """Made by :meth:`open`. Every method that waits raises StoreError where the disk fails.

    Attributes:
        moved_aside: where the damaged database is now that was found; None where there was none.
    """

    def __init__(
        self,
        data_dir: Path,
        swarm: str,
        own: PeerId,
        database: sqlite3.Connection,
        marks: Marks,
        moved_aside: Path | None,
    ) -> None:
        self._dir = data_dir
        self._swarm = swarm
        self._own = own
        self._database = database
        self._marks = marks
        self.moved_aside = moved_aside
        self._one = trio.CapacityLimiter(1)
        # Held from taking out what is unwritten until it is written, or back: nothing overtakes it.
        self._writing = trio.Lock()
        self._unwritten = Unwritten()
        # How many entries of each chain the disk has, or will have: a prefix of those held.
        self._ends: dict[Name, int] = {}
        self._oldest = 0
        self._expiring = False
        self._changed = trio.Event()
        self._written = trio.Event()
        self._failure: StoreError | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, data_dir: Path, swarm: str, own: PeerId) -> AsyncIterator[LedgerDatabase]:
        """The logs of one swarm in ``data_dir``. What is unwritten at the end of the block, is
        written then.

        A database that is damaged, or is not one of this program, is moved aside, and a new one is
        begun.

        Args:
            data_dir: an existing directory, whose lock is held.
            own: this node.

        Raises:
            StoreError: it is of a newer swarmd, or the disk fails.
        """
        database, marks, moved = await _in_thread(data_dir, lambda: _open(data_dir, swarm, own))
        self = cls(data_dir, swarm, own, database, marks, moved)
        try:
            yield self
        finally:
            await self._close()

    # --- what is there --------------------------------------------------------------------------

    async def load(self) -> AsyncIterator[list[Kept]]:
        """The chains that were kept, some at a time. Each is to be restored, or else forgotten:
        those that have been damaged are not all found here."""
        after = 0
        while True:
            found = await self._work(partial(self._load, after))
            if not found:
                return
            after = found[-1][0]
            given = [one for _, one in found if self._is_whole(one) and self._is_kept(one)]
            for one in given:
                self._ends[one.author, one.epoch] = len(one.bodies)
            yield given

    def own_mark(self, epoch: int) -> Mark | Unknown | None:
        """How far this node may have written its own chain of ``epoch``; None where it has not
        begun it. Where it is UNKNOWN, it is for every epoch, and nothing may be written before
        :meth:`write_off`."""
        return self._marks.get(self._swarm, self._own, epoch)

    # --- writing behind -------------------------------------------------------------------------

    def keep(self, change: Change, chain: Chain) -> None:
        """Have a change written soon.

        Of peers that are not admitted nothing is kept, except for this node.

        Args:
            chain: the changed one, as it is now.
        """
        self.forget(change.evicted)
        if not self._is_kept(chain):
            return
        name = (chain.author, chain.epoch)
        # Entries that stand differ by nothing; they are added at the end, and cut from it.
        first = min(self._ends.get(name, 0), len(chain.bodies))
        self._unwritten.put(name, Snapshot.of(chain, first))
        self._ends[name] = len(chain.bodies)
        self._changed.set()

    def forget(self, names: Iterable[Name]) -> None:
        """Have chains deleted soon."""
        for name in names:
            if self._ends.pop(name, None) is not None:
                self._unwritten.put(name, None)
                self._changed.set()

    def expire(self, oldest: int) -> None:
        """Chains of epochs before ``oldest`` are not loaded, and deleted soon, of every swarm."""
        self._oldest = oldest
        self._expiring = True
        self._changed.set()
        for name in [name for name in self._ends if name[1] < oldest]:
            del self._ends[name]
            self._unwritten.pop(name)

    async def room(self) -> None:
        """Wait until more can be kept.

        Raises:
            BusyError: there is none, and none can be made, since the disk fails.
        """
        while self._unwritten.size > limits.UNWRITTEN_BYTES:
            if self._failure is not None:
                raise BusyError(f"The logs cannot be written: {self._failure}")
            await self._written.wait()

    async def run(self) -> None:
        """Write what is to be kept, until cancelled."""
        while True:
            await self._changed.wait()
            await trio.sleep(SETTLE_S)
            self._changed = trio.Event()
            try:
                await self._write_all()
                while self._expiring:
                    await self._expire_some()
            except StoreError as error:
                if self._failure is None:
                    _log.error("the logs cannot be written: %s", error.user_text())
                self._note_outcome(error)
                self._changed.set()
                await trio.sleep(RETRY_S)

    # --- the own log ----------------------------------------------------------------------------

    async def keep_own(self, run: Run) -> None:
        """Write entries of this node's own log. Once this returns they survive whatever happens,
        and may leave. Where it raises they must not, and others may be written in their place.

        Args:
            run: follows what is kept of the chain.

        Raises:
            StoreError: it does not, or may not be the first to stand there; or the disk fails.
        """
        entry = read_entry(run.bodies[0])
        name = (self._own, entry.epoch)
        bodies = (*((body, None) for body in run.bodies[:-1]), (run.bodies[-1], run.signature))
        snapshot = Snapshot(entry.seq, bodies, None)
        async with self._writing:
            self._check_follows(name, entry.seq)
            waiting = self._unwritten.pop(name)
            for older in waiting.values():
                snapshot = snapshot.upon(older)
            try:
                await self._write({name: snapshot})
            except StoreError:
                self._unwritten.put_back(waiting)
                raise
            self._ends[name] = snapshot.end

    async def write_off(self, epoch: int) -> None:
        """Give up what this node may have written up to ``epoch``, in every swarm: nothing is
        written there any more, and the marks say more than any chain has."""
        await self._shielded(lambda: self._marks.write_off(epoch))

    def _check_follows(self, name: Name, seq: int) -> None:
        mark = self.own_mark(name[1])
        if mark is UNKNOWN:
            raise StoreError("It is not known what this node has written in its own log.")
        if isinstance(mark, Mark) and mark.entries > seq:
            raise StoreError(f"This node may have written entry {seq} of its own log before.")
        if (end := self._ends.get(name, 0)) != seq:
            raise StoreError(f"Entry {seq} of the own log does not follow {end} entries on disk.")

    # --- one thread, whole transactions ---------------------------------------------------------

    def _is_whole(self, one: Kept) -> bool:
        if not one.intact:
            _log.warning("the log of %s was damaged on disk; peers have it", short_peer(one.author))
            self._unwritten.put((one.author, one.epoch), None)
            self._changed.set()
        return one.intact

    def _is_kept(self, chain: Chain | Kept) -> bool:
        return chain.epoch >= self._oldest and (bool(chain.ticket) or chain.author == self._own)

    def _load(self, after: int) -> list[tuple[int, Kept]]:
        found: list[tuple[int, Kept]] = []
        room = LOAD_ENTRIES
        with closing(ledger_rows.read(self._database, self._swarm, self._oldest, after)) as chains:
            for chain, one in chains:
                found.append((chain, one))
                room -= 1 + len(one.bodies)
                if room <= 0:
                    break
        return found

    async def _write_all(self) -> None:
        """Write what waits now, and what comes meanwhile."""
        while self._unwritten:
            async with self._writing:
                batch = self._unwritten.take(BATCH_ENTRIES, BATCH_BYTES)
                try:
                    await self._write(batch)
                except StoreError:
                    self._unwritten.put_back(batch)
                    raise
            self._note_outcome(None)

    def _note_outcome(self, failure: StoreError | None) -> None:
        self._failure = failure
        self._written.set()
        self._written = trio.Event()

    async def _write(self, batch: Batch) -> None:
        own = [
            Mark(name[1], one.end, entry_digest(one.entries[-1][0]))
            for name, one in batch.items()
            if name[0] == self._own and one is not None and one.entries
        ]

        def work() -> None:
            self._database.execute(f"PRAGMA synchronous = {'FULL' if own else 'NORMAL'}")
            with ledger_rows.transaction(self._database):
                for name, one in batch.items():
                    if one is None:
                        ledger_rows.delete(self._database, self._swarm, name)
                    else:
                        ledger_rows.write(self._database, self._swarm, name, one)
            for mark in own:
                self._marks.raise_to(self._swarm, self._own, mark)

        await self._shielded(work)

    async def _expire_some(self) -> None:
        def work() -> int:
            with ledger_rows.transaction(self._database):
                return ledger_rows.delete_before(self._database, self._oldest, _EXPIRED_AT_ONCE)

        self._expiring = await self._shielded(work) == _EXPIRED_AT_ONCE
        self._note_outcome(None)

    async def _close(self) -> None:
        with trio.CancelScope(shield=True):
            try:
                await self._write_all()
            except StoreError as error:
                _log.error("the latest of the logs was not written: %s", error.user_text())
            await self._work(self._database.close)

    async def _shielded(self, work: Callable[[], T]) -> T:
        with trio.CancelScope(shield=True):
            return await self._work(work)

    async def _work(self, work: Callable[[], T]) -> T:
        return await _in_thread(self._dir, work, self._one)


def read_only(data_dir: Path) -> Iterator[Kept]:
    """The chains of every swarm that are kept in ``data_dir``, all of one moment, whether or not a
    node is running there. Nothing is changed.

    Raises:
        StoreError: while it is iterated; there is no database, it is damaged, of another program or
            of a newer swarmd, or the disk fails.
    """
    try:
        with closing(ledger_file.connect_to_read(data_dir / DATABASE)) as database:
            for _, one in ledger_rows.read(database):
                yield one
    except (sqlite3.Error, OSError) as error:
        raise _store_error(data_dir, error) from error


async def _in_thread(
    data_dir: Path, work: Callable[[], T], limiter: trio.CapacityLimiter | None = None
) -> T:
    try:
        return await trio.to_thread.run_sync(work, limiter=limiter)
    except (sqlite3.Error, OSError, DamagedError) as error:
        raise _store_error(data_dir, error) from error


def _open(data_dir: Path, swarm: str, own: PeerId) -> tuple[sqlite3.Connection, Marks, Path | None]:
    path = data_dir / DATABASE
    marks = Marks(data_dir)
    blank = not marks
    if marks and not path.exists():
        _log.warning("%s is gone; a new one is begun, and peers are asked for the logs", path)
        blank = True
    moved = None
    try:
        database = ledger_file.connect(path, blank)
    except DamagedError as damage:
        if marks.missing:
            # Whatever damaged the database may have taken it. Now, since the damage is gone soon.
            marks.doubt()
        moved = ledger_file.move_aside(path)
        _log.warning(
            "%s is damaged: %s. It is kept as %s, and a new one is begun: the logs come again from "
            "peers, this node's own among them. Nothing has to be done; if it happens again, have "
            "the disk checked.",
            path,
            damage,
            moved.name,
        )
        database = ledger_file.connect(path, blank=True)
    try:
        for one in ledger_rows.read_author(database, swarm, own):
            if one.intact and one.bodies:
                mark = Mark(one.epoch, len(one.bodies), entry_digest(one.bodies[-1]))
                marks.raise_to(swarm, own, mark)
    except BaseException:
        database.close()
        raise
    return database, marks, moved


def _store_error(data_dir: Path, error: Exception) -> StoreError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    ):
        step = f"Start swarmd again: it moves a damaged {data_dir / DATABASE} aside."
    else:
        step = f"Check the free space and the permissions of {data_dir}."
    return StoreError(f"{reason}. {step}")
