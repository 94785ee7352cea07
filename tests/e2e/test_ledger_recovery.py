"""A daemon whose database was damaged, lost, or put back from a backup goes on where it was, and
where nobody knows where that was, it says nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import trio

from node.local_swarm import LocalSwarm, Member
from node.replication.ledger_file import DATABASE
from tests.e2e.conftest import honest
from tests.e2e.members import (
    Author,
    Node,
    bodies,
    call,
    daemons,
    joined,
    ledger,
    on_disk,
    peer_of,
    until,
    until_alike,
    until_serving,
)

pytestmark = pytest.mark.e2e
Script = Callable[..., str]


def overwrite(database: Path) -> None:
    data = bytearray(database.read_bytes())
    data[4096:16384] = Random("damage").randbytes(12288)
    database.write_bytes(data)


def cut(database: Path) -> None:
    data = database.read_bytes()
    database.write_bytes(data[: len(data) // 2 - 1000])


def lose(database: Path) -> None:
    database.unlink()


async def start(swarm: LocalSwarm) -> Member:
    """The only daemon, once it serves."""
    (daemon,) = swarm.members
    swarm.launch(daemon)
    await until_serving(daemon)
    return daemon


def stop(swarm: LocalSwarm) -> None:
    """Stop it in order, so that all of its logs are in one file."""
    swarm.stop()
    (daemon,) = swarm.members
    assert not daemon.data_dir.joinpath(f"{DATABASE}-wal").exists()


async def says(daemon: Member, node: Node, text: str) -> list[bytes]:
    """Have a daemon say ``text``; its log, once ``node`` has read that."""
    await call(daemon, "state-label", label=text)
    await until(lambda: node.label(peer_of(daemon)) == text)
    chain = node.chain(peer_of(daemon))
    assert chain is not None
    assert chain.fork is None
    return list(chain.bodies)


async def test_a_damaged_database_is_moved_aside_and_comes_again_from_peers(
    tmp_path: Path, script: Script
) -> None:
    async with joined(tmp_path, "one") as one:
        await one.hold([Author(f"author {at}", 10) for at in range(50)])
        with daemons(tmp_path, [honest(script("42"))], one) as swarm:
            daemon = await start(swarm)
            said = await says(daemon, one, "before")
            for number, damage in enumerate((overwrite, cut, lose)):
                await until_alike(swarm.members, one)
                stop(swarm)
                database = daemon.data_dir / DATABASE
                assert len(
                    bodies(on_disk(daemon.data_dir, peer_of(daemon)).latest(peer_of(daemon)))
                )
                daemon.log.unlink()
                damage(database)
                await start(swarm)
                found = await until_alike(swarm.members, one)
                assert found["authors"] == 52
                assert found["own_waits"] == ""
                log = daemon.log.read_text()
                if damage is lose:
                    assert found["moved_aside"] == ""
                    assert f"{database} is gone" in log
                else:
                    aside = database.with_name(f"{DATABASE}.damaged-{number + 1}")
                    assert found["moved_aside"] == str(aside)
                    assert aside.exists()
                    assert f"{database} is damaged" in log
                    assert f"It is kept as {aside.name}" in log
                before, said = said, await says(daemon, one, f"after {damage.__name__}")
                assert said[:-1] == before
            assert (await until_alike(swarm.members, one))["forked"] == 0


async def test_a_backup_goes_on_where_peers_know_the_log_and_is_silent_where_nobody_does(
    tmp_path: Path, script: Script
) -> None:
    specs, backup = [honest(script("42"))], tmp_path / "backup"
    async with joined(tmp_path, "one") as one:
        with daemons(tmp_path, specs, one) as swarm:
            daemon = await start(swarm)
            old = await says(daemon, one, "before the backup")
            stop(swarm)
            shutil.copytree(daemon.data_dir, backup)
            await start(swarm)
            new = await says(daemon, one, "after it")
            assert new[:-1] == old
            stop(swarm)

            # All of it is put back, and knows of nothing that came later. A peer does.
            shutil.rmtree(daemon.data_dir)
            shutil.copytree(backup, daemon.data_dir)
            one.mesh.answers = trio.Event()
            await start(swarm)
            await until_waiting(daemon, "being asked")
            await call(daemon, "state-label", label="restored")
            one.mesh.answers.set()
            before, new = new, await says(daemon, one, "restored")
            assert new[:-1] == before
            assert (await until_alike(swarm.members, one))["forked"] == 0
            stop(swarm)

    # The logs alone are put back, and there is nobody who has more of its own.
    shutil.copy(backup / DATABASE, daemon.data_dir / DATABASE)
    async with joined(tmp_path, "other") as other:
        with daemons(tmp_path, specs, other) as swarm:
            daemon = await start(swarm)
            own = peer_of(daemon)
            await until(lambda: bodies(other.chain(own)) == old)
            await until_waiting(daemon, "was lost")
            labelled = await call(daemon, "state-label", label="not yet")
            assert "was lost" in labelled["waits"]
            assert await other.replication.exchange(own)
            assert bodies(other.chain(own)) == old
            assert bodies(on_disk(daemon.data_dir, own).latest(own)) == old

            # Somebody comes who has.
            async with joined(tmp_path, "one", daemon.address) as one:
                await until(lambda: one.label(own) == "not yet")
                assert bodies(one.chain(own))[:-1] == new
                assert (await until_alike(swarm.members, one, other))["forked"] == 0
                assert (await ledger(daemon))["own_waits"] == ""


async def until_waiting(daemon: Member, why: str) -> None:
    """Wait until it says that it is silent, and why."""

    async def waiting() -> bool:
        return why in (await ledger(daemon)).get("own_waits", "")

    await until(waiting)
