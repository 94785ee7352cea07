"""Graded rounds on disk: what survives, what is passed over, what fails aloud."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from node.store import DATABASE, RECEIPTS, REHEARSAL, Store
from node.trial_records import TrialRecords
from protocol import limits
from protocol.errors import StoreError
from protocol.methods import AskId, AskParams
from tests.fakes.test_trial_records import trial

_KEEP_AND_HANG = """
import pathlib, sys, trio
from node.store import Store
from node.trial_records import TrialRecords
from tests.fakes.test_trial_records import trial

async def main():
    async with Store.open(pathlib.Path(sys.argv[1])) as store:
        records = TrialRecords(store)
        await records.pose(b"task")
        await records.keep(trial(7, "add"))
        print("kept", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def test_what_counts_survives_kill_9(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _KEEP_AND_HANG, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"kept\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL

    async def look() -> None:
        async with Store.open(tmp_path) as store:
            records = TrialRecords(store)
            assert await records.all() == [trial(7, "add")]
            assert await records.posed() == [b"task"]

    trio.run(look)


@pytest.mark.parametrize("damage", [b"", b"\x92\xc0\xc0", bytes(30_000), b"\xff" * (2 << 20)])
async def test_what_cannot_be_read_is_left_out(tmp_path: Path, damage: bytes) -> None:
    """Old evidence, or that of a later version, is no reason not to start."""
    async with Store.open(tmp_path) as store:
        records = TrialRecords(store)
        for number in range(3):
            await records.keep(trial(number))
        store._database.execute("UPDATE trials SET body = ? WHERE number = 2", (damage,))
        assert await records.all() == [trial(0), trial(2)]
        assert await records.keep(trial(1)), "it can still be replaced"
        assert await records.all() == [trial(0), trial(2), trial(1)]


async def test_replacing_keeps_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TRIALS", 4)
    async with Store.open(tmp_path) as store:
        records = TrialRecords(store)
        for number in range(3):
            await records.keep(trial(number))
        for _ in range(5):
            assert await records.keep(trial(2, "again"))
        assert await records.all() == [trial(0), trial(1), trial(2, "again")]


async def test_a_disk_that_fails_is_a_store_error(tmp_path: Path) -> None:
    async with Store.open(tmp_path) as store:
        records = TrialRecords(store)
        await records.keep(trial(1))
        store._database.execute("PRAGMA query_only = ON")
        with pytest.raises(StoreError):
            await records.keep(trial(2))
        with pytest.raises(StoreError):
            await records.keep(trial(1, "again"))
        with pytest.raises(StoreError):
            await records.pose(b"task")
        store._database.execute("PRAGMA query_only = OFF")
        assert await records.all() == [trial(1)], "all or nothing"
        assert await records.posed() == []
        store._database.execute("DROP TABLE trials")
        with pytest.raises(StoreError):
            await records.all()


async def test_a_rehearsal_writes_and_keeps_nothing(tmp_path: Path) -> None:
    async with Store.open(tmp_path) as store:
        await store.accept(AskId("one"), AskParams("Is it kept?"))
        for data in (b"first", b"second"):
            await store.rehearse_receipt(data)
            assert (tmp_path / RECEIPTS / REHEARSAL).read_bytes() == data
        assert [one.name for one in (tmp_path / RECEIPTS).iterdir()] == [REHEARSAL]
        assert [row.round for row in await store.history(10)] == [None]
    with sqlite3.connect(tmp_path / DATABASE) as database:
        assert database.execute("SELECT count(*) FROM receipts").fetchone() == (0,)
        assert database.execute("SELECT count(*) FROM rehearsal").fetchone() == (1,)
    database.close()


async def test_a_rehearsal_fails_where_a_receipt_would(tmp_path: Path) -> None:
    async with Store.open(tmp_path) as store:
        (tmp_path / RECEIPTS).rmdir()
        with pytest.raises(StoreError):
            await store.rehearse_receipt(b"receipt")
