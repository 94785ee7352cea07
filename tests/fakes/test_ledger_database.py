"""The same of the database of logs in memory and of the one on disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from node.replication.database import UNKNOWN, LedgerDatabase
from node.replication.mark import FILE
from protocol.errors import StoreError
from protocol.ledger import Run, entry_digest
from swarm.ledger.replica import Name, Replica
from tests.fakes.ledger_database import FakeLedgerDatabase
from tests.swarm.ledger.authors import EPOCH, NOW, SWARM, Author, FreeAdmission

OWN = Author("own")

Held = dict[Name, tuple[list[bytes], bytes, bool]]


class Disk:
    """Opens one database again and again: what it has kept is still there."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._fake = FakeLedgerDatabase(OWN.peer)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Any]:
        if self._folder is None:
            yield self._fake
        else:
            async with LedgerDatabase.open(self._folder, SWARM, OWN.peer) as database:
                yield database

    def lose_marks(self) -> None:
        """As if the file of the marks had been damaged."""
        if self._folder is None:
            self._fake.marks = None
        else:
            (self._folder / FILE).write_bytes(b"damaged")


@pytest.fixture(params=["fake", "disk"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return Disk(tmp_path if request.param == "disk" else None)


async def held(database: Any) -> Held:
    found: Held = {}
    async for batch in database.load():
        for one in batch:
            found[one.author, one.epoch] = (one.bodies, one.ticket, one.fork is not None)
    return found


def take(replica: Replica, database: Any, run: Run) -> None:
    change = replica.take(run, NOW, OWN.peer)
    chain = replica.chain(change.author, change.epoch)
    assert chain is not None
    database.keep(change, chain)


async def test_what_is_kept_is_there_again(disk: Disk) -> None:
    one, other = Author("one", 3), Author("other", 2)
    replica = Replica(SWARM, FreeAdmission(), OWN.peer)
    async with disk.open() as database:
        take(replica, database, one.run(0, 2))
        take(replica, database, other.run())
        take(replica, database, one.run(2))
    async with disk.open() as database:
        assert await held(database) == {
            (one.peer, EPOCH): (one.bodies, one.ticket, False),
            (other.peer, EPOCH): (other.bodies, other.ticket, False),
        }
        database.forget([(other.peer, EPOCH)])
    async with disk.open() as database:
        assert (await held(database)).keys() == {(one.peer, EPOCH)}


async def test_a_guest_is_not_kept(disk: Disk) -> None:
    guest = Author("guest", 2)
    replica = Replica(SWARM, FreeAdmission(), OWN.peer)
    async with disk.open() as database:
        change = replica.take(guest.run(ticket=False), NOW, guest.peer)
        chain = replica.chain(guest.peer, EPOCH)
        assert chain is not None
        database.keep(change, chain)
    async with disk.open() as database:
        assert await held(database) == {}


async def test_a_fork_cuts_what_was_kept(disk: Disk) -> None:
    author = Author("author", 4)
    replica = Replica(SWARM, FreeAdmission(), OWN.peer)
    async with disk.open() as database:
        take(replica, database, author.run())
        take(replica, database, author.other(2).run())
    async with disk.open() as database:
        assert await held(database) == {
            (author.peer, EPOCH): (author.bodies[:2], author.ticket, True)
        }


async def test_epochs_that_are_over_are_gone(disk: Disk) -> None:
    old, new = Author("author", 1, epoch=EPOCH - 1), Author("author", 1)
    replica = Replica(SWARM, FreeAdmission(), OWN.peer)
    async with disk.open() as database:
        take(replica, database, old.run())
        take(replica, database, new.run())
        database.expire(EPOCH)
        take(replica, database, Author("late", 1, epoch=EPOCH - 1).run())
    async with disk.open() as database:
        database.expire(EPOCH)
        assert (await held(database)).keys() == {(new.peer, EPOCH)}


async def test_own_entries_are_kept_without_a_ticket_and_marked(disk: Disk) -> None:
    own = Author("own", 3)
    async with disk.open() as database:
        assert database.own_mark(EPOCH) is None
        await database.keep_own(own.run(0, 1, ticket=False))
        await database.keep_own(own.run(1, 3, ticket=False))
    async with disk.open() as database:
        assert await held(database) == {(own.peer, EPOCH): (own.bodies, b"", False)}
        mark = database.own_mark(EPOCH)
        assert (mark.epoch, mark.entries) == (EPOCH, 3)
        assert mark.head == entry_digest(own.bodies[-1])
        assert database.own_mark(EPOCH + 1) is None


def _twice(own: Author) -> Run:
    return own.other(1).run(1)


def _gap(own: Author) -> Run:
    own.write()
    own.write()
    return own.run(3)


@pytest.mark.parametrize("run", [_twice, _gap])
async def test_an_own_entry_that_does_not_follow_is_refused(
    disk: Disk, run: Callable[[Author], Run]
) -> None:
    own = Author("own", 2)
    async with disk.open() as database:
        await database.keep_own(own.run(0, 2))
        with pytest.raises(StoreError):
            await database.keep_own(run(own))
        assert database.own_mark(EPOCH).entries == 2


async def test_what_the_mark_counts_is_not_written_again(disk: Disk) -> None:
    """The log is gone, and the mark is not."""
    own = Author("own", 2)
    async with disk.open() as database:
        await database.keep_own(own.run())
        database.forget([(own.peer, EPOCH)])
    async with disk.open() as database:
        assert await held(database) == {}
        with pytest.raises(StoreError):
            await database.keep_own(own.other(0).run())
        await database.keep_own(Author("own", 1, epoch=EPOCH + 1).run())


@pytest.mark.parametrize(
    "write",
    [
        lambda database: database.keep_own(Author("own", 1).run()),
        lambda database: database.keep_own(Author("own", 1, epoch=EPOCH + 1).run()),
    ],
)
async def test_where_the_mark_is_lost_nothing_is_written_until_it_is_written_off(
    disk: Disk, write: Callable[[Any], Awaitable[None]]
) -> None:
    async with disk.open() as database:
        await database.keep_own(Author("own", 2).run())
    disk.lose_marks()
    async with disk.open() as database:
        assert database.own_mark(EPOCH) is UNKNOWN
        with pytest.raises(StoreError):
            await write(database)
        await database.write_off(EPOCH + 1)
        with pytest.raises(StoreError):
            await write(database)
        assert database.own_mark(EPOCH).entries > 1000
        assert database.own_mark(EPOCH + 2) is None
        await database.keep_own(Author("own", 1, epoch=EPOCH + 2).run())
