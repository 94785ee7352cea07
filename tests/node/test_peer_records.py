"""On disk: what a claim promises, and databases of earlier versions."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from node import store as storing
from node.peer_records import PeerRecords
from node.store import Store
from protocol.codec import encode
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
async def test_an_older_database_gets_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(storing, "_MIGRATIONS", storing._MIGRATIONS[:version])
        async with Store.open(tmp_path) as store:
            await store.accept(AskId("kept"), AskParams("Is this kept?"))
    async with Store.open(tmp_path) as store:
        records = PeerRecords(store)
        assert await records.claim(RoundId(bytes(32)))
        await records.keep([strike(1, 10, found=True)], [], {}, [])
        assert await records.strikes() == [strike(1, 10, found=True)]
        assert [record.id for record in await store.unfinished()] == ["kept"]


async def test_nobody_claims_to_have_found_what_was_kept_without_a_word_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = strike(1, 10)
    with monkeypatch.context() as patched:
        patched.setattr(storing, "_MIGRATIONS", storing._MIGRATIONS[:3])
        async with Store.open(tmp_path) as store:
            store._database.execute(
                "INSERT INTO strikes VALUES (?, ?, ?, ?, ?, ?)",
                (old.offence, old.peer, old.kind, encode(old.proof), old.seen_at, old.known),
            )
    async with Store.open(tmp_path) as store:
        assert await PeerRecords(store).strikes() == [old]


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
