"""What is kept of the logs is what is loaded; the own log is there before anyone sees it."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from node.replication import database as database_module
from node.replication import ledger_file, ledger_rows
from node.replication.database import (
    BATCH_ENTRIES,
    LOAD_ENTRIES,
    RETRY_S,
    SETTLE_S,
    UNKNOWN,
    LedgerDatabase,
    Mark,
    read_only,
)
from node.replication.ledger_file import DATABASE
from node.replication.mark import FILE, Marks
from protocol import limits
from protocol.errors import BusyError, ProtocolError, StoreError
from protocol.ledger import EPOCH_S, Run, entry_digest, epoch_of
from swarm.ledger.chain import Chain
from swarm.ledger.replica import Change, Replica
from tests.node.ledgers import OWN, Node, data_directory, names_in, opened, resumed
from tests.swarm.ledger.authors import (
    EPOCH,
    NOW,
    SWARM,
    Author,
    FreeAdmission,
    free_ticket,
    signer,
)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with data_directory() as path:
        yield path


@pytest.fixture
def in_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """No threads: virtual time would pass while they work."""

    async def run_sync(work: Callable[[], Any], limiter: trio.CapacityLimiter | None = None) -> Any:
        await trio.lowlevel.checkpoint()
        return work()

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


def own_log(entries: int = 0, epoch: int = EPOCH) -> Author:
    return Author("own", entries, epoch=epoch)


def bare(author: Author, first: int = 0, end: int | None = None) -> Run:
    return author.run(first, end, ticket=False)


@contextmanager
def failing(message: str = "disk I/O error") -> Iterator[None]:
    """No transaction succeeds: each one fails as late as it can."""

    @contextmanager
    def transaction(database: sqlite3.Connection) -> Iterator[None]:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")
        raise sqlite3.OperationalError(message)

    with patch.object(ledger_rows, "transaction", transaction):
        yield


def on_disk(data_dir: Path) -> dict[tuple[str, bytes, int], int]:
    """How many entries there are of each chain."""
    return {(one.swarm, one.author, one.epoch): len(one.bodies) for one in read_only(data_dir)}


# --- what is kept is what is loaded ---------------------------------------------------------------


async def test_chains_outlive_the_node(data_dir: Path) -> None:
    plain, growing = Author("plain", 5), Author("growing", 9, quality=700)
    before = Author("plain", 3, epoch=EPOCH - 1)
    async with opened(data_dir) as node:
        assert node.database.moved_aside is None
        node.take(plain.run(), before.run())
        for first, end in ((0, 2), (2, 3), (3, 9)):
            node.take(growing.run(first, end))
        kept = node.kept()
    assert len(kept) == 3
    async with opened(data_dir) as node:
        assert node.kept() == kept
        assert node.refused == []
    # The signatures of runs that ended in between are there, too.
    (found,) = [one for one in read_only(data_dir) if one.author == growing.peer]
    assert found.signatures == {
        end - 1: growing.run(first, end).signature for first, end in ((0, 2), (2, 3), (3, 9))
    }


async def test_a_forked_chain_stays_cut_and_keeps_its_proof(data_dir: Path) -> None:
    cut, seen, bad = Author("cut", 6), Author("seen", 6), Author("bad", 1)
    async with opened(data_dir) as node:
        node.take(cut.run(), seen.run())
        await node.written()
        node.take(cut.other(4).run(4))
        node.take(seen.fork(seen.other(2), 2))
        node.take(bad.fork(bad.other(0), 0))  # of whom nothing else is held
        kept = node.kept()
    async with opened(data_dir) as node:
        assert node.kept() == kept
        chains = node.replica.chains()
        assert [len(chains[one.peer, EPOCH].bodies) for one in (cut, seen, bad)] == [4, 2, 0]
        assert all(chain.fork is not None for chain in chains.values())
    assert on_disk(data_dir) == {
        (SWARM, one.peer, EPOCH): count for one, count in ((cut, 4), (seen, 2), (bad, 0))
    }


async def test_a_better_ticket_replaces_the_one_on_disk(data_dir: Path) -> None:
    author = Author("one", 2)
    async with opened(data_dir) as node:
        node.take(author.run())
        await node.written()
        author.quality = 9
        node.take(author.run())
    async with opened(data_dir) as node:
        chain = node.replica.chains()[author.peer, EPOCH]
        assert (chain.ticket, chain.quality) == (free_ticket(author.peer, EPOCH, 9), 9)


async def test_a_guest_is_not_kept_until_it_is_admitted(data_dir: Path) -> None:
    guest = Author("guest", 4)
    async with opened(data_dir) as node:
        node.take(bare(guest, 0, 3), source=guest.peer)
        await node.written()
        assert on_disk(data_dir) == {}
        node.take(guest.run(3))
    async with opened(data_dir) as node:
        # All of it, also what it had said before.
        assert node.replica.chains()[guest.peer, EPOCH].bodies == guest.bodies


async def test_the_own_log_is_kept_without_a_ticket(data_dir: Path) -> None:
    own = own_log(3)
    async with opened(data_dir) as node:
        node.take(bare(own), source=OWN)  # as a peer gives it back
    async with opened(data_dir) as node:
        assert node.replica.chains()[OWN, EPOCH].bodies == own.bodies
        assert node.database.own_mark(EPOCH) == Mark(EPOCH, 3, entry_digest(own.bodies[-1]))


async def test_who_has_to_go_goes_from_the_disk(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "AUTHORS", 2)
    poor, fair, rich = (Author(str(quality), 3, quality=quality) for quality in (1, 2, 3))
    async with opened(data_dir) as node:
        node.take(poor.run(), fair.run())
        await node.written()
        node.take(rich.run())
        await node.written()
        assert {author for _, author, _ in on_disk(data_dir)} == {fair.peer, rich.peer}
        poor.quality = 4
        node.take(poor.run(0, 2))
        kept = node.kept()
    async with opened(data_dir) as node:
        assert node.kept() == kept
        assert {author for author, _ in kept} == {poor.peer, rich.peer}


async def test_a_forgotten_chain_is_gone_and_may_come_again(data_dir: Path) -> None:
    author, other = Author("one", 5), Author("other", 2)
    async with opened(data_dir) as node:
        node.take(author.run(), other.run())
    async with LedgerDatabase.open(data_dir, SWARM, OWN) as database:
        node = await Node(database).load()
        database.forget([(author.peer, EPOCH), (signer("nobody").peer, EPOCH)])
        await node.written()
        assert on_disk(data_dir) == {(SWARM, other.peer, EPOCH): 2}
        fresh = Node(database)
        fresh.take(author.run(0, 3))
    assert on_disk(data_dir)[SWARM, author.peer, EPOCH] == 3


async def test_a_chain_that_cannot_be_restored_is_replaced_whole(data_dir: Path) -> None:
    author = Author("one", 5)
    async with opened(data_dir) as node:
        node.take(author.run())
    with closing(sqlite3.connect(data_dir / DATABASE)) as database, database:
        database.execute("DELETE FROM entry WHERE place & 65535 = 2")
    async with opened(data_dir) as node:
        assert node.refused == [(author.peer, EPOCH)]
        node.take(author.run(0, 4))
    async with opened(data_dir) as node:
        assert node.refused == []
        assert node.replica.chains()[author.peer, EPOCH].bodies == author.bodies[:4]


async def test_what_is_kept_is_as_it_was_at_the_call(data_dir: Path) -> None:
    author = Author("one", 4)
    async with LedgerDatabase.open(data_dir, SWARM, OWN) as database:
        node = Node(database)
        node.take(author.run(0, 2))
        node.replica.take(author.run(2), NOW)
        node.replica.convict(author.fork(author.other(1), 1), NOW)
    async with opened(data_dir) as node:
        chain = node.replica.chains()[author.peer, EPOCH]
        assert (chain.bodies, chain.fork) == (author.bodies[:2], None)


async def test_each_swarm_has_its_own_chains(data_dir: Path) -> None:
    author = Author("one", 2)
    async with opened(data_dir) as node:
        node.take(author.run())
        await node.write_own(bare(own_log(1)))
    async with opened(data_dir, "another") as node:
        assert node.replica.chains() == {}
        assert node.refused == []
        assert node.database.own_mark(EPOCH) is None
    async with opened(data_dir) as node:
        assert set(node.replica.chains()) == {(author.peer, EPOCH), (OWN, EPOCH)}
        assert node.database.own_mark(EPOCH) is not None


async def test_the_log_of_a_former_key_is_not_loaded_and_not_lost(data_dir: Path) -> None:
    own, stranger = own_log(3), signer("stranger").peer
    async with opened(data_dir) as node:
        await node.write_own(bare(own))
    async with opened(data_dir, own=stranger) as node:
        assert node.replica.chains() == {}
        assert node.database.own_mark(EPOCH) is None
    async with opened(data_dir, own=stranger) as node:
        # Now it comes from a peer, in other words.
        node.take(own.other(1).run())
    async with opened(data_dir, own=stranger) as node:
        assert node.refused == []
        assert node.replica.chains()[OWN, EPOCH].bodies == own.other(1).bodies
    async with opened(data_dir) as node:
        mark = node.database.own_mark(EPOCH)
        assert isinstance(mark, Mark)
        assert (mark.entries, mark.head) == (3, entry_digest(own.bodies[-1]))


async def test_the_logs_are_loaded_in_pieces(data_dir: Path) -> None:
    authors = [Author(f"{index}", 20) for index in range(30)]
    long = Author("long", LOAD_ENTRIES + 10)
    async with opened(data_dir) as node:
        node.take(*(author.run() for author in authors), long.run())
    async with LedgerDatabase.open(data_dir, SWARM, OWN) as database:
        sizes = [[len(one.bodies) for one in batch] async for batch in database.load()]
    assert [size for batch in sizes for size in batch] == [20] * 30 + [LOAD_ENTRIES + 10]
    assert len(sizes) > 3
    assert all(sum(batch[:-1]) < LOAD_ENTRIES for batch in sizes)


# --- all of it, in any order ----------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["grow"] * 4
            + ["guest", "fork", "convict", "ticket", "own", "own", "regain"]
            + ["dismiss", "expire", "write", "fail", "reopen"]
        ),
        st.integers(0, 5),
        st.integers(0, 4),
    ),
    min_size=4,
    max_size=25,
)


class World:
    """Six authors in two epochs, of whom four have room, and a node that is closed and opened."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.now = NOW
        self.authors = [
            Author(f"{index}", 1, epoch=EPOCH - index % 2, quality=index + 1) for index in range(6)
        ]
        self.own: list[bytes] = []
        self.elsewhere = 0

    async def live(self, steps: list[tuple[str, int, int]]) -> None:
        rest = list(steps)
        while True:
            async with LedgerDatabase.open(self.data_dir, SWARM, OWN) as database:
                database.expire(epoch_of(self.now) - 1)
                node = await Node(database).load()
                assert node.refused == []
                self.check(node)
                while rest and rest[0][0] != "reopen":
                    await self.step(node, *rest.pop(0))
                self.kept = node.kept()
            if not rest:
                break
            del rest[0]
        async with opened(self.data_dir, oldest=epoch_of(self.now) - 1) as node:
            self.check(node)

    kept: dict[Any, Any] | None = None

    def check(self, node: Node) -> None:
        if self.kept is not None:
            assert node.kept() == self.kept
        chain = node.replica.chain(OWN, EPOCH)
        assert (chain.bodies if chain is not None else []) == self.own
        mark = node.database.own_mark(EPOCH)
        if not self.own:
            assert mark is None
        else:
            assert mark == Mark(EPOCH, len(self.own), entry_digest(self.own[-1]))

    async def step(self, node: Node, step: str, index: int, count: int) -> None:
        author = self.authors[index]
        end = len(author.bodies)
        try:
            match step:
                case "grow" | "guest":
                    for _ in range(count + 1):
                        author.write()
                    run = author.run(max(0, end - count), ticket=step == "grow")
                    node.take(run, source=author.peer, now=self.now)
                case "fork" | "convict":
                    other = author.other(min(count, end - 1), 2, accent=f"{count}")
                    seq = len(other.bodies) - 2
                    if step == "fork":
                        node.take(other.run(seq), now=self.now)
                    else:
                        node.take(author.fork(other, seq), now=self.now)
                case "ticket":
                    author.quality += count
                    node.take(author.run(end - 1), now=self.now)
                case "own" | "regain":
                    own = resumed(self.own, EPOCH)
                    for _ in range(count + 1):
                        own.write()
                    run = bare(own, len(self.own))
                    if step == "own":
                        await node.write_own(run)
                    else:
                        node.take(run, source=OWN)
                    self.own = own.bodies
                case "dismiss":
                    node.replica.dismiss(author.peer)
                case "expire":
                    if count == 4 and not self.own:
                        self.now = NOW + EPOCH_S
                        node.replica.expire(self.now)
                        node.database.expire(EPOCH)
                case "write":
                    await node.written()
                case "fail":
                    if node.database._unwritten:
                        with failing(), pytest.raises(StoreError):
                            await node.written()
        except ProtocolError:
            pass  # the author forked before, has to go, or leaves a gap


@settings(max_examples=120)
@given(STEPS)
def test_what_is_loaded_is_what_was_kept(steps: list[tuple[str, int, int]]) -> None:
    with data_directory() as path, patch.object(limits, "AUTHORS", 2):
        trio.run(World(path).live, steps)


# --- writing behind -------------------------------------------------------------------------------


async def settled(database: LedgerDatabase) -> None:
    """The task that writes has nothing more to do."""
    while database._unwritten or database._expiring:  # noqa: ASYNC110, it tells nobody
        await trio.sleep(SETTLE_S)
    async with database._writing:
        pass


async def test_changes_are_written_soon_and_together(
    data_dir: Path, autojump_clock: MockClock, in_line: None, nursery: trio.Nursery
) -> None:
    commits = 0

    def count(statement: str) -> None:
        nonlocal commits
        commits += statement == "COMMIT"

    author = Author("one", 40)
    async with opened(data_dir) as node:
        nursery.start_soon(node.database.run)
        await trio.testing.wait_all_tasks_blocked()
        node.database._database.set_trace_callback(count)
        for seq in range(40):
            node.take(author.run(seq, seq + 1))
        assert on_disk(data_dir) == {}
        await settled(node.database)
        assert on_disk(data_dir) == {(SWARM, author.peer, EPOCH): 40}
        assert commits == 1
        nursery.cancel_scope.cancel()


async def test_transactions_have_a_few_hundred_entries(data_dir: Path) -> None:
    statements: list[str] = []
    async with opened(data_dir) as node:
        node.take(*(Author(f"{index}", 30).run() for index in range(40)))
        node.database._database.set_trace_callback(statements.append)
        await node.written()
        node.database._database.set_trace_callback(None)
    text = "\n".join(statement.split("(")[0].split()[0] for statement in statements)
    inserted = [part.count("INSERT") for part in text.split("COMMIT")][:-1]
    assert len(inserted) == 3
    assert all(count <= BATCH_ENTRIES for count in inserted)


async def test_what_is_left_is_written_at_the_end(data_dir: Path) -> None:
    author = Author("one", 5)
    with trio.CancelScope() as scope:
        async with opened(data_dir) as node, trio.open_nursery() as nursery:
            nursery.start_soon(node.database.run)
            node.take(author.run(0, 3))
            scope.cancel()
            node.take(author.run(3))  # by a task that has not heard of it yet
    assert scope.cancelled_caught
    assert on_disk(data_dir) == {(SWARM, author.peer, EPOCH): 5}


async def test_what_fails_in_the_middle_leaves_nothing_half(data_dir: Path) -> None:
    author = Author("one", 3)
    write = ledger_rows.write

    def fail(*args: Any) -> None:
        write(*args)
        raise sqlite3.OperationalError("interrupted")

    async with opened(data_dir) as node:
        node.take(author.run())
        with patch.object(ledger_rows, "write", fail), pytest.raises(StoreError):
            await node.written()
        assert on_disk(data_dir) == {}
        await node.written()
        assert on_disk(data_dir) == {(SWARM, author.peer, EPOCH): 3}


async def test_a_cancelled_task_loses_nothing_of_what_waited(data_dir: Path) -> None:
    author = Author("one", 3)
    released = threading.Event()
    async with opened(data_dir) as node:
        node.take(author.run())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.database._work, lambda: released.wait(60))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(node.written)  # waits for the thread
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            released.set()
    assert on_disk(data_dir) == {(SWARM, author.peer, EPOCH): 3}


async def test_a_failing_disk_is_tried_again_and_nothing_is_lost(
    data_dir: Path,
    autojump_clock: MockClock,
    in_line: None,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
) -> None:
    author, other = Author("one", 6), Author("other", 2)
    async with opened(data_dir) as node:
        nursery.start_soon(node.database.run)
        with failing("database or disk is full"):
            node.take(author.run(0, 2), other.run())
            await trio.sleep(SETTLE_S + 2.5 * RETRY_S)
            assert on_disk(data_dir) == {}
            node.take(author.run(2, 5))
            node.take(author.fork(author.other(4), 4))
            await trio.sleep(RETRY_S)
        await trio.sleep(2 * RETRY_S)
        await settled(node.database)
        assert on_disk(data_dir) == {
            (SWARM, author.peer, EPOCH): 4,
            (SWARM, other.peer, EPOCH): 2,
        }
        kept = node.kept()
        # Said once, however often it is tried.
        (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
        assert "disk is full" in record.getMessage()
        assert "Check the free space" in record.getMessage()
        nursery.cancel_scope.cancel()
    async with opened(data_dir) as node:
        assert node.kept() == kept


async def test_a_disk_that_fails_to_the_end_is_told(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with failing():
        async with opened(data_dir) as node:
            node.take(Author("one", 2).run())
    assert "the latest of the logs was not written" in caplog.text
    assert on_disk(data_dir) == {}


async def test_no_more_is_taken_than_can_be_written(
    data_dir: Path,
    autojump_clock: MockClock,
    in_line: None,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "UNWRITTEN_BYTES", 2000)
    authors = [Author(f"{index}", 4) for index in range(3)]
    done: list[int] = []

    async def replicate() -> None:
        for index, author in enumerate(authors):
            await node.database.room()
            node.take(author.run())
            done.append(index)

    async with opened(data_dir) as node:
        nursery.start_soon(replicate)
        await trio.testing.wait_all_tasks_blocked()
        assert done == [0, 1]  # the second began below the limit
        nursery.start_soon(node.database.run)
        await settled(node.database)
        assert done == [0, 1, 2]
        with failing():
            await node.database.room()  # there is room
            node.take(*(author.other(3).run(3) for author in authors))
            node.take(Author("more", 8).run())
            with pytest.raises(BusyError, match="disk I/O error"):
                # Whoever waits already hears of it, and who comes later at once.
                await node.database.room()
            with pytest.raises(BusyError, match="disk I/O error"):
                await node.database.room()
        await trio.sleep(2 * RETRY_S)
        await settled(node.database)
        await node.database.room()
        nursery.cancel_scope.cancel()


async def test_old_epochs_go(
    data_dir: Path, autojump_clock: MockClock, in_line: None, nursery: trio.Nursery
) -> None:
    old = [Author(f"{index}", 2, epoch=EPOCH - 1) for index in range(150)]
    new = Author("new", 2)
    async with opened(data_dir) as node:
        node.take(*(author.run() for author in old), new.run())
        await node.write_own(bare(own_log(2, EPOCH - 1)))
    async with opened(data_dir, "another", oldest=EPOCH) as node:
        assert node.replica.chains() == {}
        nursery.start_soon(node.database.run)
        await settled(node.database)
        # Whatever the swarm; nobody else would.
        assert on_disk(data_dir) == {(SWARM, new.peer, EPOCH): 2}
        nursery.cancel_scope.cancel()


async def test_old_epochs_are_not_loaded_nor_written(data_dir: Path) -> None:
    old, new = Author("old", 3, epoch=EPOCH - 1), Author("new", 2)
    async with opened(data_dir) as node:
        node.take(old.run(0, 2), new.run())
        await node.written()
        node.take(old.run(2))
        node.database.expire(EPOCH)
        node.take(Author("late", 2, epoch=EPOCH - 1).run())
    assert on_disk(data_dir) == {(SWARM, old.peer, EPOCH - 1): 2, (SWARM, new.peer, EPOCH): 2}
    async with opened(data_dir, oldest=EPOCH) as node:
        assert set(node.replica.chains()) == {(new.peer, EPOCH)}


async def test_the_file_does_not_grow(data_dir: Path) -> None:
    sizes = []
    for epoch in range(EPOCH, EPOCH + 20):
        async with opened(data_dir, oldest=epoch - 1) as node:
            now = (epoch + 1) * EPOCH_S - 1.0
            # Each epoch has more than the one before, then much less.
            for index in range(5 + 3 * (epoch - EPOCH) if epoch < EPOCH + 10 else 2):
                author = Author(f"{epoch} {index}", 4, epoch=epoch, value_bytes=2000)
                node.take(author.run(), now=now)
            await node.written()
            while node.database._expiring:
                await node.database._expire_some()
        assert names_in(data_dir) == {DATABASE}
        sizes.append((data_dir / DATABASE).stat().st_size)
    held = 4 * 2000 * (5 + 3 * 9 + 5 + 3 * 8)
    assert held < max(sizes) < 3 * held
    assert max(sizes[-3:]) < max(sizes) / 8  # what was needed once is given back
    assert {name[2] for name in on_disk(data_dir)} == {EPOCH + 18, EPOCH + 19}


async def test_the_log_of_the_database_does_not_grow(data_dir: Path) -> None:
    largest = 0
    async with opened(data_dir) as node:
        for index in range(60):
            node.take(Author(f"{index}", 12, value_bytes=4000).run())
            await node.written()
            largest = max(largest, (data_dir / f"{DATABASE}-wal").stat().st_size)
        assert node.replica.bytes > 2_500_000
    assert largest < 6_000_000


async def test_what_one_large_transaction_took_is_given_back(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_file, "_WAL_BYTES", 100_000)
    monkeypatch.setattr(database_module, "BATCH_BYTES", 1 << 30)
    monkeypatch.setattr(database_module, "BATCH_ENTRIES", 1 << 30)
    log = data_dir / f"{DATABASE}-wal"
    async with opened(data_dir) as node:
        node.take(*(Author(f"{index}", 22, value_bytes=3800).run() for index in range(60)))
        await node.written()
        assert log.stat().st_size > 5_000_000
        node.take(Author("small", 1).run())
        await node.written()
        assert log.stat().st_size <= 100_000


# --- the own log ----------------------------------------------------------------------------------


async def test_own_entries_are_on_the_disk_once_it_returns(data_dir: Path) -> None:
    own = own_log(5)
    statements: list[str] = []
    async with opened(data_dir) as node:
        node.database._database.set_trace_callback(statements.append)
        await node.write_own(bare(own, 0, 2))
        assert on_disk(data_dir) == {(SWARM, OWN, EPOCH): 2}
        assert node.database.own_mark(EPOCH) == Mark(EPOCH, 2, entry_digest(own.bodies[1]))
        await node.write_own(bare(own, 2))
        assert node.database.own_mark(EPOCH) == Mark(EPOCH, 5, entry_digest(own.bodies[4]))
        begun = [one for one in statements if one.startswith(("PRAGMA", "BEGIN", "COMMIT"))]
        assert begun == ["PRAGMA synchronous = FULL", "BEGIN IMMEDIATE", "COMMIT"] * 2
        statements.clear()
        node.take(Author("one", 2).run())
        await node.written()
        assert "PRAGMA synchronous = NORMAL" in statements
        node.database._database.set_trace_callback(None)
    async with opened(data_dir) as node:
        assert node.replica.chains()[OWN, EPOCH].bodies == own.bodies
        node.take(own.run(4))  # its ticket


async def test_the_database_has_them_before_the_mark_says_so(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = own_log(4)
    seen: list[tuple[int, Any]] = []
    raise_to = Marks.raise_to

    def look(marks: Marks, swarm: str, author: Any, mark: Mark) -> None:
        held = on_disk(data_dir).get((SWARM, OWN, EPOCH), 0)
        before = Marks(data_dir).get(SWARM, OWN, EPOCH)
        seen.append((held, before.entries if isinstance(before, Mark) else before))
        raise_to(marks, swarm, author, mark)

    async with opened(data_dir) as node:
        monkeypatch.setattr(Marks, "raise_to", look)
        await node.write_own(bare(own, 0, 3))
        await node.write_own(bare(own, 3))
    assert seen == [(3, None), (4, 3)]


async def test_own_entries_never_overtake_what_was_kept_of_them_before(data_dir: Path) -> None:
    own = own_log(6)
    async with opened(data_dir) as node:
        node.take(own.run(0, 2), source=OWN)  # waits to be written
        await node.write_own(bare(own, 2, 4))
        assert on_disk(data_dir) == {(SWARM, OWN, EPOCH): 4}
        node.take(bare(own, 4, 5), source=OWN)
        kept = node.kept()
        with failing(), pytest.raises(StoreError):
            await node.database.keep_own(bare(own, 5))
        assert node.database.own_mark(EPOCH) == Mark(EPOCH, 4, entry_digest(own.bodies[3]))
    # What could not be written is not there; what had waited before, is.
    async with opened(data_dir) as node:
        assert node.kept() == kept
        chain = node.replica.chains()[OWN, EPOCH]
        assert (chain.bodies, chain.ticket) == (own.bodies[:5], own.ticket)
        assert node.database.own_mark(EPOCH) == Mark(EPOCH, 5, entry_digest(own.bodies[4]))


async def test_own_entries_wait_for_a_write_that_has_begun(data_dir: Path) -> None:
    """It fails, and what it was to write is not left out for that."""
    own = own_log(4)
    async with opened(data_dir) as node:
        node.take(bare(own, 0, 2), source=OWN)
        commit = LedgerDatabase._shielded
        begun, may_fail = trio.Event(), trio.Event()

        async def slow(database: LedgerDatabase, work: Callable[[], Any]) -> Any:
            if not begun.is_set():
                begun.set()
                await may_fail.wait()
                raise StoreError("The disk fails.")
            return await commit(database, work)

        async def write() -> None:
            with pytest.raises(StoreError):
                await node.written()

        with patch.object(LedgerDatabase, "_shielded", slow):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                await begun.wait()
                nursery.start_soon(node.database.keep_own, bare(own, 2))
                await trio.testing.wait_all_tasks_blocked()
                assert on_disk(data_dir) == {}
                may_fail.set()
        assert on_disk(data_dir) == {(SWARM, OWN, EPOCH): 4}
    async with opened(data_dir) as node:
        assert node.replica.chains()[OWN, EPOCH].bodies == own.bodies


async def test_a_place_is_written_once(data_dir: Path) -> None:
    own = own_log(4)
    async with opened(data_dir) as node:
        await node.write_own(bare(own, 0, 3))
        for again in (bare(own, 0, 3), bare(own.other(0)), bare(own.other(2), 2)):
            with pytest.raises(StoreError, match="before"):
                await node.database.keep_own(again)
        author = resumed(own.bodies, EPOCH)
        author.write()
        with pytest.raises(StoreError, match=r"Entry 4 .* does not follow 3 entries"):
            await node.database.keep_own(bare(author, 4))
        await node.write_own(bare(own, 3))
    async with opened(data_dir) as node:
        assert node.replica.chains()[OWN, EPOCH].bodies == own.bodies


async def test_a_cancelled_task_writes_own_entries_whole_or_not_at_all(data_dir: Path) -> None:
    own = own_log(3)
    async with opened(data_dir) as node:
        with trio.CancelScope() as scope:
            scope.cancel()
            await node.database.keep_own(bare(own))
        assert scope.cancelled_caught
        assert on_disk(data_dir) == {}  # before it began

        cancelled = threading.Event()
        transaction = ledger_rows.transaction

        @contextmanager
        def slow(database: sqlite3.Connection) -> Iterator[None]:
            with transaction(database):
                yield
                assert cancelled.wait(60)

        with patch.object(ledger_rows, "transaction", slow):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.database.keep_own, bare(own))
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
                cancelled.set()
        assert on_disk(data_dir) == {(SWARM, OWN, EPOCH): 3}
        assert node.database.own_mark(EPOCH) == Mark(EPOCH, 3, entry_digest(own.bodies[2]))


async def test_where_the_mark_cannot_be_written_the_entries_must_not_leave(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = own_log(3)
    instead = own.other(2, 2)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    async with opened(data_dir) as node:
        await node.write_own(bare(own, 0, 2))
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match=r"No space left on device\. Check the free space"):
            await node.database.keep_own(bare(own, 2))
        monkeypatch.undo()
        assert node.database.own_mark(EPOCH) == Mark(EPOCH, 2, entry_digest(own.bodies[1]))
        # They never left, so that others may stand there.
        await node.write_own(bare(instead, 2))
    async with opened(data_dir) as node:
        assert node.replica.chains()[OWN, EPOCH].bodies == instead.bodies
        assert node.database.own_mark(EPOCH) == Mark(EPOCH, 4, entry_digest(instead.bodies[3]))


async def test_entries_that_a_stop_kept_from_the_mark_are_marked_at_the_start(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = own_log(3)

    def stopped(*_: object) -> None:
        raise OSError("stopped here")

    async with opened(data_dir) as node:
        await node.write_own(bare(own, 0, 1))
        await node.written()
        monkeypatch.setattr(Marks, "raise_to", stopped)
        with pytest.raises(StoreError):
            await node.database.keep_own(bare(own, 1))
    monkeypatch.undo()
    async with LedgerDatabase.open(data_dir, SWARM, OWN) as database:
        # Before anything is loaded, and so before anything can leave.
        mark = Mark(EPOCH, 3, entry_digest(own.bodies[2]))
        assert database.own_mark(EPOCH) == Marks(data_dir).get(SWARM, OWN, EPOCH) == mark
        node = await Node(database).load()
        assert node.replica.chains()[OWN, EPOCH].bodies == own.bodies


async def test_an_epoch_that_was_begun_too_early_does_not_stand_in_the_way(data_dir: Path) -> None:
    """The clock was ahead, and is right again."""
    early, now = own_log(2, EPOCH + 1), own_log(2)
    async with opened(data_dir) as node:
        await node.write_own(bare(early), now=NOW + EPOCH_S)
        await node.write_own(bare(now))
        assert node.database.own_mark(EPOCH + 1) == Mark(
            EPOCH + 1, 2, entry_digest(early.bodies[1])
        )
        assert node.database.own_mark(EPOCH) == Mark(EPOCH, 2, entry_digest(now.bodies[1]))


async def test_a_lost_database_does_not_begin_the_own_log_again(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = own_log(5)
    async with opened(data_dir) as node:
        await node.write_own(bare(own, 0, 3))
    (data_dir / DATABASE).unlink()
    async with opened(data_dir) as node:
        assert f"{data_dir / DATABASE} is gone" in caplog.text
        assert node.replica.chains() == {}
        assert node.database.own_mark(EPOCH) == Mark(EPOCH, 3, entry_digest(own.bodies[2]))
        with pytest.raises(StoreError, match="before"):
            await node.database.keep_own(bare(own.other(0)))
        node.take(bare(own, 0, 2), source=OWN)  # a peer has some of it
        with pytest.raises(StoreError, match="before"):
            await node.database.keep_own(bare(own.other(2), 2))
        node.take(bare(own, 2, 3), source=OWN)  # another has it all
        await node.write_own(bare(own, 3))
    async with opened(data_dir) as node:
        assert node.replica.chains()[OWN, EPOCH].bodies == own.bodies


async def test_an_older_copy_of_the_database_does_not_write_again(data_dir: Path) -> None:
    own = own_log(4)
    async with opened(data_dir) as node:
        await node.write_own(bare(own, 0, 2))
    backup = (data_dir / DATABASE).read_bytes()
    async with opened(data_dir) as node:
        await node.write_own(bare(own, 2))
    (data_dir / DATABASE).write_bytes(backup)
    async with opened(data_dir) as node:
        assert len(node.replica.chains()[OWN, EPOCH].bodies) == 2
        assert node.database.own_mark(EPOCH) == Mark(EPOCH, 4, entry_digest(own.bodies[3]))
        with pytest.raises(StoreError, match="before"):
            await node.database.keep_own(bare(own.other(2), 2))


async def test_nothing_is_written_where_it_is_not_known_what_was(data_dir: Path) -> None:
    own = own_log(3)
    async with opened(data_dir) as node:
        await node.write_own(bare(own, 0, 1))
    (data_dir / FILE).write_bytes(b"damaged")
    for held in (1, 2):  # neither a start changes it, nor what comes from peers
        async with opened(data_dir) as node:
            assert node.database.own_mark(EPOCH) is UNKNOWN
            assert node.replica.chains()[OWN, EPOCH].bodies == own.bodies[:held]
            with pytest.raises(StoreError, match="not known"):
                await node.database.keep_own(bare(own, held))
            node.take(bare(own, held, held + 1), source=OWN)
    async with opened(data_dir) as node:
        await node.database.write_off(EPOCH)
        with pytest.raises(StoreError, match="before"):
            await node.database.keep_own(bare(own_log(4), 3))
    async with opened(data_dir) as node:
        with pytest.raises(StoreError, match="before"):
            await node.database.keep_own(bare(own_log(4), 3))
        await node.write_own(bare(own_log(1, EPOCH + 1)), now=NOW + EPOCH_S)


async def test_a_mark_that_is_gone_follows_from_the_database(data_dir: Path) -> None:
    own = own_log(3)
    async with opened(data_dir) as node:
        await node.write_own(bare(own))
        await node.write_own(bare(own_log(1, EPOCH + 1)), now=NOW + EPOCH_S)
    (data_dir / FILE).unlink()
    async with opened(data_dir) as node:
        assert node.database.own_mark(EPOCH) == Mark(EPOCH, 3, entry_digest(own.bodies[2]))
        later = node.database.own_mark(EPOCH + 1)
        assert isinstance(later, Mark)
        assert later.entries == 1


async def test_an_own_log_that_forked_keeps_its_mark(data_dir: Path) -> None:
    own = own_log(4)
    async with opened(data_dir) as node:
        await node.write_own(bare(own))
        node.take(own.fork(own.other(1), 1, ticket=False))
    async with opened(data_dir) as node:
        chain = node.replica.chains()[OWN, EPOCH]
        assert (len(chain.bodies), chain.forked_at) == (1, 1)
        assert node.database.own_mark(EPOCH) == Mark(EPOCH, 4, entry_digest(own.bodies[3]))


# --- reading for people ---------------------------------------------------------------------------


async def test_anyone_may_read_while_the_node_runs(data_dir: Path) -> None:
    author, own = Author("one", 5), own_log(2)
    async with opened(data_dir) as node:
        node.take(author.run(0, 3), author.other(2).run(2))
        await node.write_own(bare(own))
        await node.written()
        reading = read_only(data_dir)
        first = next(reading)
        node.take(Author("late", 3).run())
        await node.written()  # which waits for no reader
        found = [first, *reading]
        assert {(one.swarm, one.author, one.epoch) for one in found} == {
            (SWARM, author.peer, EPOCH),
            (SWARM, OWN, EPOCH),
        }
        assert all(one.intact for one in found)
        restored = Replica(SWARM, FreeAdmission(), OWN)
        for one in found:
            restored.restore(
                one.author, one.epoch, one.bodies, one.signatures, one.ticket, one.quality, one.fork
            )
        assert restored.chains()[author.peer, EPOCH].forked_at == 2
        assert len(on_disk(data_dir)) == 3


async def test_reading_changes_nothing(data_dir: Path) -> None:
    async with opened(data_dir) as node:
        node.take(Author("one", 5).run())
    before = (data_dir / DATABASE).read_bytes()
    assert len(list(read_only(data_dir))) == 1
    assert (data_dir / DATABASE).read_bytes() == before
    reading = read_only(data_dir)
    next(reading)
    reading.close()  # whoever stops in the middle


def test_where_there_is_no_database_it_says_so(data_dir: Path) -> None:
    with pytest.raises(StoreError, match=r"There is no .*ledger\.db.*--data-dir"):
        next(read_only(data_dir))
    assert list(data_dir.iterdir()) == []
    (data_dir / DATABASE).write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match=r"ledger\.db is damaged.*Start swarmd"):
        next(read_only(data_dir))
    assert [path.name for path in data_dir.iterdir()] == [DATABASE]


async def test_a_chain_that_is_damaged_is_shown_as_such(data_dir: Path) -> None:
    async with opened(data_dir) as node:
        node.take(Author("one", 5).run(), Author("other", 5).run())
    with closing(sqlite3.connect(data_dir / DATABASE)) as database, database:
        database.execute("UPDATE chain SET quality = 9 WHERE id = 1")
    assert [one.intact for one in read_only(data_dir)] == [False, True]


# --- the file -------------------------------------------------------------------------------------


async def test_the_files_are_private(data_dir: Path) -> None:
    async with opened(data_dir) as node:
        await node.write_own(bare(own_log(1)))
        names = names_in(data_dir)
        assert names == {DATABASE, f"{DATABASE}-shm", f"{DATABASE}-wal", FILE}
        assert all((data_dir / name).stat().st_mode & 0o077 == 0 for name in names)


async def test_how_the_database_is_set_up(data_dir: Path) -> None:
    for _ in range(2):
        async with opened(data_dir) as node:
            pragmas = {
                name: node.database._database.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "auto_vacuum", "user_version")
            }
            assert pragmas == {"journal_mode": "wal", "auto_vacuum": 1, "user_version": 1}


async def test_a_missing_directory_is_a_store_error(data_dir: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        async with LedgerDatabase.open(data_dir / "missing", SWARM, OWN):
            pass


async def test_a_mark_that_cannot_be_read_is_a_store_error(data_dir: Path) -> None:
    (data_dir / FILE).mkdir()
    with pytest.raises(StoreError, match="directory"):
        async with LedgerDatabase.open(data_dir, SWARM, OWN):
            pass


async def test_a_change_of_a_guest_evicts_nobody_twice(data_dir: Path) -> None:
    """Names that were never kept are no work for the disk."""
    async with LedgerDatabase.open(data_dir, SWARM, OWN) as database:
        guest = Author("guest", 1)
        change = Change(guest.peer, EPOCH, 0, evicted=((signer("nobody").peer, EPOCH),))
        database.keep(change, Chain(guest.peer, EPOCH, bodies=guest.bodies))
        assert not database._unwritten


def test_waiting_is_bounded() -> None:
    assert database_module.BATCH_ENTRIES <= 500
    assert limits.UNWRITTEN_BYTES <= 32 << 20
