"""`scripts/bench state` measures what it says, with logs too few to mean anything."""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "scripts"))

import bench_state  # noqa: E402
import state_authors as authors  # noqa: E402
import state_figures as figures  # noqa: E402
import state_gossip as gossip  # noqa: E402
import state_hostile as hostile  # noqa: E402
import state_node  # noqa: E402

from node.replication.database import read_only  # noqa: E402
from node.replication.service import Join  # noqa: E402
from protocol import limits  # noqa: E402
from protocol.ledger import Run, check_links  # noqa: E402

AUTHORS, ENTRIES = 5, 3


def runs(tickets: str) -> list[Run]:
    """What a joiner of the tests has to fetch."""
    admitting = authors.admission(tickets)
    logs = [authors.author(number, ENTRIES) for number in range(AUTHORS)]
    return [one.run(0, ENTRIES, authors.ticket(admitting, one.peer)) for one in logs]


# --- bytes and single runs ------------------------------------------------------------------------


def test_logs_are_the_same_in_every_run_and_as_long_as_they_say() -> None:
    one = authors.author(3, 100)
    assert authors.author(3, 100).bodies == one.bodies != authors.author(4, 100).bodies
    assert authors.author(3, 20).bodies == one.bodies[:20]
    entries = check_links(one.bodies, authors.SWARM)
    assert len(entries) == 100
    assert 220 < sum(map(len, one.bodies)) / 100 < 240
    assert Counter(entry.at // 86400 for entry in entries).most_common()[0][1] == 64
    for tickets in bench_state.TICKETS:
        admitting = authors.admission(tickets)
        run = one.run(0, None, authors.ticket(admitting, one.peer))
        assert authors.replica([run], admitting).entries == 100


def test_exchanges_cost_more_than_what_they_bring_and_less_among_few() -> None:
    logs = figures.build(120, 20)
    assert [len(one.bodies) for one in logs] == [40, *[21] * 119]
    same, everywhere, somewhere = figures.exchanges(logs, 20)
    assert 40 < same.value <= 64
    assert same.more == {"round_trips": 1}
    for row in (everywhere, somewhere):
        assert row.value == max(row.more["fetched"], row.more["given"])
        assert row.more["fetched_round_trips"] >= 3
    # Each of them alone takes a signature; together, one run does with one.
    assert 1.2 < everywhere.value < 1.3
    assert 0.8 < somewhere.value < 0.9


def test_whatever_is_refused_is_timed_and_refused_for_its_own_reason() -> None:
    rows = {row.name: row for row in figures.refusals(1)}
    assert len(rows) == 9
    assert all(row.value > 0 for row in rows.values())
    # A signature is dearer than junk, an scrypt hash dearer than a signature.
    order = ("refuse junk for an entry", "refuse a bad signature", "refuse a forged stamp")
    assert [rows[name].target for name in order] == [10, 200, None]
    assert sorted(order, key=lambda name: rows[name].value) == list(order)


def test_what_is_not_refused_is_no_refusal() -> None:
    with pytest.raises(AssertionError, match="not refused"):
        figures._refusing(lambda: None, figures.DecodeError)


def test_the_dearest_runs_are_as_long_as_they_may_be_and_are_taken() -> None:
    admitting = authors.admission("certificates")
    dear = hostile.dear_runs(admitting)
    for name, run in dear.items():
        size = sum(map(len, run.bodies))
        assert 0.96 * limits.EPOCH_BYTES < size <= limits.EPOCH_BYTES, name
        held = authors.replica([run], admitting)
        assert held.entries == len(run.bodies)
    kinds = set(dear)
    for row in figures.dearest(1):
        assert set(row.more) == kinds
        assert row.value == max(row.more.values()) > 0


def test_the_longest_piece_is_what_lies_between_two_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0

    def steps(*pieces: float) -> Iterator[None]:
        nonlocal now
        for at, seconds in enumerate(pieces):
            if at:
                yield
            now += seconds

    monkeypatch.setattr(figures.time, "thread_time", lambda: now)
    for pieces in ((1.0,), (3.0, 1.0), (1.0, 3.0), (1.0, 2.0, 4.0, 2.0)):
        assert figures._longest_piece(steps(*pieces)) == max(pieces)


def test_a_figure_holds_up_to_its_target() -> None:
    assert figures.Row.median("x", [1, 9, 3], "s", 3).value == 3
    assert figures.Row.median("x", [1, 9, 3], "s", 3).holds is True
    assert figures.Row.median("x", [1, 9, 3], "s", 2.9).holds is False
    assert figures.Row("x", 1, "s").holds is None


# --- gossip ---------------------------------------------------------------------------------------


def test_all_are_told_at_once_where_nothing_is_in_the_way() -> None:
    assert gossip.links(1024) == limits.PEERS - 1
    assert gossip.links(17) == 16
    assert gossip.rounds(17, 16, 0, 0.0, 0.0, random.Random(1)) == 1
    assert gossip.rounds(1, 0, 0, 0.0, 0.0, random.Random(1)) == 0


def test_spreading_takes_longer_with_less_help() -> None:
    def mean(told: int, fanout: int, loss: float, silent: float) -> float:
        found = [
            gossip.rounds(128, told, fanout, loss, silent, random.Random(seed))
            for seed in range(10)
        ]
        return sum(found) / len(found)

    assert mean(3, 3, 0.0, 0.0) < mean(3, 3, 0.2, 0.0) < mean(3, 3, 0.2, 0.3)
    assert mean(3, 3, 0.2, 0.3) < mean(1, 1, 0.2, 0.3) < mean(0, 0, 0.2, 0.3)
    assert mean(127, 3, 0.2, 0.3) < mean(3, 3, 0.2, 0.3)


def test_gossip_has_a_row_for_each_fan_out() -> None:
    one, three = bench_state.spreading(64)
    assert (one.target, three.target) == (14, 6)
    for row in (one, three):
        assert len(row.samples) == bench_state.GOSSIP_RUNS
        assert row.value <= row.more["few_told_mean"] <= row.more["few_told_max"]
    assert three.value <= one.value


# --- nodes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["tcp", "libp2p"])
@pytest.mark.parametrize("tickets", bench_state.TICKETS)
async def test_a_joiner_has_all_on_disk_when_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str, tickets: str
) -> None:
    said: list[str] = []
    monkeypatch.setattr(state_node, "say", said.append)
    wanted = runs(tickets)
    full, empty = tmp_path / "full", tmp_path / "empty"
    full.mkdir()
    empty.mkdir()
    await authors.write(full, wanted, authors.admission(tickets))
    way = state_node.mesh(transport, "server")
    async with state_node.opened(tickets, full, "server", way) as replication:
        replication.join = Join((way.peer_id,) * 2, agree=True)
        async with state_node.replicating(way, replication) as stalls:
            with trio.fail_after(30):
                await state_node.join(
                    transport, tickets, str(empty), way.addresses()[0], str(AUTHORS), str(ENTRIES)
                )
            assert stalls.report()["stall_ms"] > 0
            assert stalls.report()["stall_ms"] == 0
    (line,) = said
    found = json.loads(line)
    assert 0 < found["fetched_s"] <= found["seconds"] <= found["read_s"]
    assert found["cpu_s"] > 0
    assert found["stall_ms"] >= found["busy_ms"] > 0
    kept = {one.author: one.bodies for one in read_only(empty) if len(one.bodies) == ENTRIES}
    assert sorted(kept.values()) == sorted(list(run.bodies) for run in wanted)


async def test_restoring_counts_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(state_node, "say", said.append)
    await authors.write(tmp_path, runs("certificates"), authors.admission("certificates"))
    await state_node.restore("certificates", str(tmp_path))
    found = json.loads(said[0])
    assert found["entries"] == AUTHORS * ENTRIES
    assert found["seconds"] > 0


async def test_a_task_that_computes_is_a_stall() -> None:
    stalls = state_node.Stalls()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stalls.watch)
        await trio.sleep(0.01)
        sum(range(3_000_000))
        await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    found = stalls.report()
    assert found["stall_ms"] >= found["busy_ms"] > 5


@pytest.mark.e2e
def test_joins_and_loads_are_made_by_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_state, "TRANSPORTS", {"tcp": ("raw TCP", 1.5)})
    monkeypatch.setattr(bench_state, "TICKETS", ("certificates",))
    parser = argparse.ArgumentParser()
    bench_state.add_options(parser)
    flags = f"--authors {AUTHORS} --entries {ENTRIES} --runs 2 --only join load"
    table = bench_state.run(parser.parse_args(flags.split()))
    rows = {row["name"]: row for row in table["rows"]}
    assert list(rows) == [
        "cold join over raw TCP",
        "longest stall of the joiner, raw TCP",
        "longest stall of the server, raw TCP",
        "restart with 15 entries",
        "memory of 50,000 entries",
    ]
    for row in rows.values():
        assert len(row["samples"]) == 2
        assert row["holds"] is (row["value"] <= row["target"])
    assert len(table["machine"]["share"]) == 3
    assert json.loads(json.dumps(table)) == table | {"rows": json.loads(json.dumps(table["rows"]))}
    printed = capsys.readouterr().out
    assert all(name in printed for name in rows)
    assert "SHA-256" in printed


@pytest.mark.parametrize("flags", ["--authors 0", "--entries 101", "--nodes 3", "--only nothing"])
def test_sizes_that_make_no_sense_are_refused(
    flags: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    bench_state.add_options(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(flags.split())
    assert flags.split()[1] in capsys.readouterr().err
