"""The store: what was accepted stays, however the process ends; nothing is ever half written."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from node.store import DATABASE, AskRecord, Store
from protocol import limits, methods
from protocol.errors import BusyError, NoPeersError, StoreError, UnknownRoundError
from protocol.ids import RoundId
from protocol.methods import AskId, AskParams
from protocol.rpc import error_object

FIRST, SECOND = AskId("first"), AskId("second")
ROUND, OTHER = RoundId(bytes.fromhex("ab" * 32)), RoundId(bytes.fromhex("ac" * 32))
RESULT: dict[str, Any] = {"answer": "4", "outcome": "answer", "confidence": None}


class Clock:
    """Unix time that passes one second a look."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


async def accepted(store: Store, *names: str) -> None:
    for name in names:
        await store.accept(AskId(name), AskParams(f"question {name}?"))


async def state(store: Store, ask: AskId = FIRST) -> str:
    record = await store.get(ask)
    assert record is not None
    return record.state


# --- questions ----------------------------------------------------------------------------------


async def test_a_question_outlives_the_store(tmp_path: Path) -> None:
    params = AskParams("What is 2+2?\0é", 12.5, 3)
    async with Store.open(tmp_path, Clock()) as store:
        record = await store.accept(FIRST, params)
    assert record == AskRecord(FIRST, params, 1001.0, 0, "accepted", None, None, None, None)
    async with Store.open(tmp_path, Clock()) as store:
        assert await store.get(FIRST) == record
        assert await store.unfinished() == [record]
        assert await store.get(SECOND) is None


async def test_a_question_goes_through_its_states(tmp_path: Path) -> None:
    async with Store.open(tmp_path, Clock()) as store:
        await accepted(store, FIRST)
        assert await store.mark_running(FIRST, ROUND)
        assert await store.mark_running(FIRST, OTHER)  # after a restart
        running = await store.get(FIRST)
        assert running is not None
        assert (running.state, running.attempt, running.round) == ("running", 2, OTHER)
        assert await store.unfinished() == [running]
        assert await store.finish(FIRST, RESULT)
        done = await store.get(FIRST)
        assert done is not None
        assert (done.state, done.result, done.error) == ("done", RESULT, None)
        assert done.finished_at is not None
        assert done.finished_at > done.accepted_at
        assert await store.unfinished() == []


async def test_the_end_of_a_question_is_final(tmp_path: Path) -> None:
    error = error_object(NoPeersError("1 of 2."))
    async with Store.open(tmp_path, Clock()) as store:
        for name in ("done", "failed", "cancelled"):
            ask = AskId(name)
            await accepted(store, name)
            if name == "done":
                assert await store.finish(ask, RESULT)
            elif name == "failed":
                assert await store.fail(ask, error)
            else:
                assert await store.cancel(ask)
            before = await store.get(ask)
            assert before is not None
            assert before.state == name
            assert not await store.mark_running(ask, ROUND)
            assert not await store.finish(ask, RESULT)
            assert not await store.fail(ask, error)
            assert not await store.cancel(ask)
            assert await store.get(ask) == before
        failed = await store.get(AskId("failed"))
        assert failed is not None
        assert failed.error == error
        assert not await store.cancel(AskId("unknown"))


async def test_an_id_is_given_once(tmp_path: Path) -> None:
    async with Store.open(tmp_path, Clock()) as store:
        await accepted(store, FIRST)
        with pytest.raises(StoreError):
            await store.accept(FIRST, AskParams("another?"))
        record = await store.get(FIRST)
        assert record is not None
        assert record.params.question == "question first?"
        await accepted(store, SECOND)  # the failed transaction has ended


async def test_open_questions_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ASKS_QUEUED", 2)
    async with Store.open(tmp_path, Clock()) as store:
        await accepted(store, "a", "b")
        with pytest.raises(BusyError, match="2 questions"):
            await accepted(store, "c")
        assert await store.get(AskId("c")) is None
        await store.cancel(AskId("a"))
        await accepted(store, "c")
        assert [ask.id for ask in await store.unfinished()] == ["b", "c"]


async def test_history_is_newest_first_and_cut(tmp_path: Path) -> None:
    long = "x" * (methods.EXCERPT_CHARS + 1)
    async with Store.open(tmp_path, Clock()) as store:
        assert await store.history(10) == []
        await store.accept(AskId("a"), AskParams(long))
        await store.mark_running(AskId("a"), ROUND)
        await store.finish(AskId("a"), {"answer": long, "outcome": "answer"})
        await accepted(store, "b", "c", "d")
        await store.fail(AskId("b"), error_object(NoPeersError()))
        await store.finish(AskId("c"), {"answer": None, "outcome": "no-consensus"})
        rows = await store.history(10)
        assert [row.ask for row in rows] == ["d", "c", "b", "a"]
        assert [row.outcome for row in rows] == ["", "no-consensus", "no-peers", "answer"]
        assert [row.answer for row in rows[:3]] == [None, None, None]
        last = rows[-1]
        cut = "x" * (methods.EXCERPT_CHARS - 1) + "…"
        assert (last.question, last.answer, last.round) == (cut, cut, ROUND.hex())
        assert (last.state, last.attempt) == ("done", 1)
        assert [row.ask for row in await store.history(2)] == ["d", "c"]


# --- rounds and receipts ------------------------------------------------------------------------


async def test_a_receipt_is_kept_as_a_private_file(tmp_path: Path) -> None:
    async with Store.open(tmp_path, Clock()) as store:
        await accepted(store, FIRST)
        path = await store.put_receipt(ROUND, FIRST, b"receipt")
        assert path == tmp_path / "receipts" / f"{ROUND.hex()}.receipt"
        assert path.read_bytes() == b"receipt"
        assert path.stat().st_mode & 0o777 == 0o600
        assert await store.put_receipt(ROUND, FIRST, b"again") == path
        assert path.read_bytes() == b"again"
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]


async def test_a_receipt_needs_its_question(tmp_path: Path) -> None:
    async with Store.open(tmp_path, Clock()) as store:
        with pytest.raises(StoreError):
            await store.put_receipt(ROUND, FIRST, b"receipt")


async def test_a_round_is_found_by_how_it_begins(tmp_path: Path) -> None:
    async with Store.open(tmp_path, Clock()) as store:
        await accepted(store, FIRST, SECOND)
        await store.mark_running(FIRST, ROUND)
        await store.put_receipt(ROUND, FIRST, b"receipt")
        await store.mark_running(SECOND, OTHER)
        for prefix in ("ab", "aba", ROUND.hex()):
            found = await store.find_round(prefix)
            assert (found.round, found.ask) == (ROUND, FIRST)
            assert found.receipt is not None
            assert found.receipt.read_bytes() == b"receipt"
        without = await store.find_round("ac")
        assert (without.ask, without.receipt) == (SECOND, None)
        with pytest.raises(UnknownRoundError, match="More than one"):
            await store.find_round("a")
        with pytest.raises(UnknownRoundError, match="None begins"):
            await store.find_round("ad")


@pytest.mark.parametrize("prefix", ["", "x", "AB", "%", "a" * 65, "ab'; DROP TABLE asks", "٣"])
async def test_what_is_no_round_id_finds_nothing(tmp_path: Path, prefix: str) -> None:
    async with Store.open(tmp_path, Clock()) as store:
        with pytest.raises(UnknownRoundError, match="hex digits"):
            await store.find_round(prefix)


async def test_what_a_crash_left_of_a_receipt_is_swept(tmp_path: Path) -> None:
    async with Store.open(tmp_path):
        pass
    leftover = tmp_path / "receipts" / ".ab.receipt.0123.tmp"
    leftover.write_bytes(b"half")
    async with Store.open(tmp_path):
        assert not leftover.exists()


# --- crashes, cancellation, failing disks -------------------------------------------------------

_ACCEPT_AND_HANG = """
import pathlib, sys, trio
from node.store import Store
from protocol.ids import RoundId
from protocol.methods import AskId, AskParams

async def main():
    async with Store.open(pathlib.Path(sys.argv[1])) as store:
        await store.accept(AskId("first"), AskParams("Is this kept?"))
        await store.put_receipt(RoundId(bytes(32)), AskId("first"), b"kept")
        print("accepted", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def test_an_accepted_question_survives_kill_9(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _ACCEPT_AND_HANG, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"accepted\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL

    async def look() -> None:
        async with Store.open(tmp_path) as store:
            (kept,) = await store.unfinished()
            assert (kept.id, kept.params.question) == (FIRST, "Is this kept?")
            receipt = (await store.find_round("0000")).receipt
            assert receipt is not None
            assert receipt.read_bytes() == b"kept"

    trio.run(look)


async def test_commits_are_synchronous(tmp_path: Path) -> None:
    async with Store.open(tmp_path) as store:
        pragmas = [
            store._database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert pragmas == ["wal", 2, 1]  # 2: FULL


async def test_a_cancelled_task_writes_all_or_nothing(tmp_path: Path) -> None:
    async with Store.open(tmp_path, Clock()) as store:
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.accept(FIRST, AskParams("?"))
            await store.put_receipt(ROUND, FIRST, b"receipt")
        # Shielded: both writes were done, and the scope takes effect at the next checkpoint.
        assert await state(store) == "accepted"
        assert (await store.find_round("ab")).receipt is not None


async def test_many_tasks_may_write_at_once(tmp_path: Path) -> None:
    names = [f"q{index}" for index in range(40)]
    async with Store.open(tmp_path, Clock()) as store:
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(accepted, store, name)
        assert sorted(ask.id for ask in await store.unfinished()) == sorted(names)


@contextmanager
def no_file_grows() -> Iterator[None]:
    """The kernel refuses every write beyond the first 1 KiB of a file (setrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_is_a_store_error_and_leaves_nothing_half(tmp_path: Path) -> None:
    async with Store.open(tmp_path, Clock()) as store:
        await accepted(store, FIRST)
        with no_file_grows():
            with pytest.raises(StoreError, match="free space"):
                await store.accept(SECOND, AskParams("x" * 20_000))
            with pytest.raises(StoreError, match="free space"):
                await store.put_receipt(ROUND, FIRST, bytes(2048))
        assert list((tmp_path / "receipts").iterdir()) == []
        assert await store.get(SECOND) is None
        await accepted(store, SECOND)
        assert [ask.id for ask in await store.unfinished()] == [FIRST, SECOND]


async def test_a_receipt_that_cannot_be_synced_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    async with Store.open(tmp_path) as store:
        await accepted(store, FIRST)
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            await store.put_receipt(ROUND, FIRST, b"receipt")
        monkeypatch.undo()
        with pytest.raises(UnknownRoundError):
            await store.find_round("ab")


# --- the database file --------------------------------------------------------------------------


async def test_the_database_is_private(tmp_path: Path) -> None:
    async with Store.open(tmp_path) as store:
        await accepted(store, FIRST)
        files = [tmp_path / name for name in os.listdir(tmp_path) if name.startswith(DATABASE)]
        assert len(files) == 3
        assert all(file.stat().st_mode & 0o077 == 0 for file in files)


async def test_a_newer_schema_is_refused_untouched(tmp_path: Path) -> None:
    async with Store.open(tmp_path) as store:
        await accepted(store, FIRST)
    database = sqlite3.connect(tmp_path / DATABASE)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StoreError, match=r"newer swarmd \(schema 99.*Upgrade"):
        async with Store.open(tmp_path):
            pass
    database = sqlite3.connect(tmp_path / DATABASE)
    assert database.execute("SELECT count(*) FROM asks").fetchone() == (1,)
    database.close()


async def test_what_is_no_database_is_kept_and_refused(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="restore them from a backup"):
        async with Store.open(tmp_path):
            pass
    assert (tmp_path / DATABASE).read_bytes().startswith(b"not a database")


async def test_a_damaged_row_is_a_store_error(tmp_path: Path) -> None:
    async with Store.open(tmp_path) as store:
        await accepted(store, FIRST)
        store._database.execute("UPDATE asks SET params = '{'")
        with pytest.raises(StoreError, match="backup"):
            await store.get(FIRST)


async def test_a_missing_directory_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        async with Store.open(tmp_path / "missing"):
            pass
