"""On disk: what a claim promises, and databases of earlier versions."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from node import store as storing
from node.peer_records import PeerRecords
from node.store import DATABASE, Store
from protocol.errors import StoreError
from protocol.ids import RoundId
from protocol.methods import AskId, AskParams
from tests.fakes.test_peer_records import strike

_CLAIM_AND_HANG = """
import pathlib, sys, trio
from node.peer_records import PeerRecords
from node.store import Store
from protocol.ids import RoundId

async def main():
    async with Store.open(pathlib.Path(sys.argv[1])) as store:
        print(await PeerRecords(store).claim(RoundId(bytes(32))), flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def test_a_claim_survives_kill_9(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _CLAIM_AND_HANG, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL

    async def look() -> None:
        async with Store.open(tmp_path) as store:
            assert not await PeerRecords(store).claim(RoundId(bytes(32)))

    trio.run(look)


@pytest.mark.parametrize("version", range(1, len(storing._MIGRATIONS)))
async def test_an_older_database_gets_what_it_lacks(tmp_path: Path, version: int) -> None:
    async with Store.open(tmp_path) as store:
        await store.accept(AskId("kept"), AskParams("Is this kept?"))
    database = sqlite3.connect(tmp_path / DATABASE)
    for table in "".join(storing._MIGRATIONS[version:]).split("CREATE TABLE ")[1:]:
        database.execute(f"DROP TABLE {table.split()[0]}")
    database.execute(f"PRAGMA user_version = {version}")
    database.commit()
    database.close()
    async with Store.open(tmp_path) as store:
        assert await PeerRecords(store).claim(RoundId(bytes(32)))
        assert [record.id for record in await store.unfinished()] == ["kept"]


async def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = storing._MIGRATIONS
    async with Store.open(tmp_path):
        pass
    broken = (*whole, "CREATE TABLE more (x); CREATE TABLE more (x);")
    monkeypatch.setattr(storing, "_MIGRATIONS", broken)
    with pytest.raises(StoreError, match="already exists"):
        async with Store.open(tmp_path):
            pass
    monkeypatch.setattr(storing, "_MIGRATIONS", (*whole, "CREATE TABLE more (x);"))
    async with Store.open(tmp_path) as store:
        assert store._database.execute("PRAGMA user_version").fetchone() == (len(whole) + 1,)
        assert store._database.execute("SELECT count(*) FROM more").fetchone() == (0,)


@pytest.mark.parametrize("damage", [b"", b"\x92\xc0\xc0", bytes(30_000)])
async def test_a_damaged_proof_is_a_store_error(tmp_path: Path, damage: bytes) -> None:
    async with Store.open(tmp_path) as store:
        records = PeerRecords(store)
        await records.keep([strike(1, 10)], [], {}, [])
        store._database.execute("UPDATE strikes SET proof = ?", (damage,))
        with pytest.raises(StoreError, match=r"proof is damaged.*backup"):
            await records.strikes()
