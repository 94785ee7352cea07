"""`scripts/bench crowd`: many real nodes on this machine that are told of one bootstrap alone.

Prints how long until everybody is linked with everybody, what a newcomer needs, what that costs in
calls and bytes, what idling costs, and whether the DHT still finds who is left after a third of the
nodes were killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from node.local_swarm import LocalSwarm, Member, Spec
from protocol.errors import SwarmError

LIMIT_S = 300.0
SETTLE_S = 3.0
_TICKS = os.sysconf("SC_CLK_TCK")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this benchmark."""
    parser.add_argument("--nodes", type=int, default=30, metavar="N")
    parser.add_argument("--idle", type=float, default=60.0, metavar="S", help="seconds (60)")
    parser.add_argument("--lookups", type=int, default=40, metavar="L", help="in the DHT (40)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run it, and print what was seen unless JSON is wanted."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        script = root / "model.json"
        script.write_text(json.dumps({"name": "scripted:42", "default": "42"}))
        flags = ("--public", "--log-level=warning")
        specs = [Spec(str(script), "scripted", flags=flags) for _ in range(options.nodes)]
        with LocalSwarm(specs, root, told=1) as swarm:
            table = _measure(swarm, options)
    if not options.json:
        _print(table)
    return table


def _measure(swarm: LocalSwarm, options: argparse.Namespace) -> dict[str, Any]:
    members, newcomer = swarm.members[:-1], swarm.members[-1]
    table: dict[str, Any] = {"nodes": options.nodes}
    for member in members:
        swarm.launch(member)
    _until_up(members)
    began = time.monotonic()
    _until_linked(members, len(members) - 1)
    table["all_linked_s"] = time.monotonic() - began
    time.sleep(SETTLE_S)
    before = _traffic(members)
    table["join_kib_per_node"] = statistics.median(one["bytes"] for one in before) / 1024
    table["join_calls_per_node"] = statistics.median(one["calls"] for one in before)

    swarm.launch(newcomer)
    _until_up([newcomer])
    began = time.monotonic()
    _until_linked([newcomer], options.nodes - 1)
    table["newcomer_linked_s"] = time.monotonic() - began
    _until_linked(members, options.nodes - 1)
    table["newcomer_known_s"] = time.monotonic() - began
    time.sleep(SETTLE_S)
    table["newcomer_kib"] = _traffic([newcomer])[0]["bytes"] / 1024

    members = swarm.members
    _say(f"idle for {options.idle:.0f} s")
    before, cpu = _traffic(members), _cpu(members)
    began = time.monotonic()
    time.sleep(options.idle)
    after, spent_s = _traffic(members), time.monotonic() - began
    spent = [(b["bytes"] - a["bytes"]) / spent_s for a, b in zip(before, after, strict=True)]
    calls = [(b["calls"] - a["calls"]) / spent_s for a, b in zip(before, after, strict=True)]
    table["idle_bytes_per_s"] = statistics.median(spent)
    table["idle_calls_per_s"] = statistics.median(calls)
    used = [(b - a) / spent_s for a, b in zip(cpu, _cpu(members), strict=True)]
    table["idle_cpu_percent"] = 100 * statistics.median(used)
    table["memory_mib"] = statistics.median(map(_memory_mib, members))

    rng = random.Random(options.seed)
    table["lookups_before"] = _look_up(members, members, options.lookups, rng)
    dead = rng.sample(members[1:], options.nodes // 3)
    for member in dead:
        swarm.kill(member)
    left = [member for member in members if member.process is not None]
    table["killed"] = len(dead)
    table["lookups_after"] = _look_up(left, left, options.lookups, rng)
    began = time.monotonic()
    _until_linked(left, len(left) - 1, exactly=True)
    table["dead_noticed_s"] = time.monotonic() - began
    return table


def _until_up(members: list[Member]) -> None:
    waiting = set(range(len(members)))
    began = time.monotonic()
    while waiting:
        for index in sorted(waiting):
            try:
                members[index].client.call("status")
                waiting.discard(index)
            except SwarmError:
                continue
        _check(began, f"{len(members) - len(waiting)}/{len(members)} up")


def _until_linked(members: list[Member], count: int, exactly: bool = False) -> None:
    began = time.monotonic()
    while True:
        links = [_doctor(member)["links"] for member in members]
        full = sum(one == count if exactly else one >= count for one in links)
        if full == len(members):
            return
        _check(began, f"{full}/{len(members)} linked with all {count} others")


def _check(began: float, state: str) -> None:
    if time.monotonic() - began > LIMIT_S:
        raise SystemExit(f"after {LIMIT_S:.0f} s: {state}")
    _say(state)
    time.sleep(0.1)


def _doctor(member: Member) -> dict[str, Any]:
    found: dict[str, Any] = member.client.call("doctor")
    return found


def _traffic(members: list[Member]) -> list[dict[str, float]]:
    reports = [_doctor(member) for member in members]
    return [
        {
            "bytes": one["bytes_sent"] + one["bytes_received"],
            "calls": sum(one["calls"].values()),
        }
        for one in reports
    ]


def _cpu(members: list[Member]) -> list[float]:
    """CPU seconds of each daemon so far (proc(5), fields 14 and 15)."""
    spent = []
    for member in members:
        assert member.process is not None
        fields = Path(f"/proc/{member.process.pid}/stat").read_text().rpartition(")")[2].split()
        spent.append((int(fields[11]) + int(fields[12])) / _TICKS)
    return spent


def _memory_mib(member: Member) -> float:
    assert member.process is not None
    for line in Path(f"/proc/{member.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _look_up(
    askers: list[Member], targets: list[Member], count: int, rng: random.Random
) -> dict[str, Any]:
    """Have nodes look each other up in the DHT alone, not in what they know."""
    right, spent = 0, []
    for _ in range(count):
        asker, target = rng.sample(askers, 1)[0], rng.sample(targets, 1)[0]
        if asker is target:
            continue
        began = time.monotonic()
        found = asker.client.call("find", {"peer": target.peer, "dht": True}, silence_s=60.0)
        spent.append(time.monotonic() - began)
        right += found["via"] == "dht" and target.address in found["addresses"]
    return {"right": right, "of": len(spent), "median_s": statistics.median(spent)}


_said = ""


def _say(text: str) -> None:
    """Progress, once for each thing there is to say."""
    global _said
    if text != _said:
        _said = text
        print(text, file=sys.stderr)


def _print(table: dict[str, Any]) -> None:
    rows = [
        ("nodes, one bootstrap", f"{table['nodes']}"),
        ("everybody linked with everybody", f"{table['all_linked_s']:.1f} s after the last start"),
        ("  bytes a node, both ways", f"{table['join_kib_per_node']:.0f} KiB"),
        ("  calls a node answered", f"{table['join_calls_per_node']:.0f}"),
        ("a newcomer linked with all", f"{table['newcomer_linked_s']:.1f} s"),
        ("  and all with it", f"{table['newcomer_known_s']:.1f} s"),
        ("  bytes, both ways", f"{table['newcomer_kib']:.0f} KiB"),
        ("idle, a node", f"{table['idle_bytes_per_s']:.0f} B/s both ways"),
        ("", f"{table['idle_calls_per_s']:.2f} calls/s answered"),
        ("", f"{table['idle_cpu_percent']:.1f} % of a core, {table['memory_mib']:.0f} MiB"),
        ("DHT look-ups right", "{right}/{of}, {median_s:.2f} s".format(**table["lookups_before"])),
        (
            f"  right after {table['killed']} are killed",
            "{right}/{of}, {median_s:.2f} s".format(**table["lookups_after"]),
        ),
        ("the dead are gone everywhere", f"{table['dead_noticed_s']:.1f} s later"),
    ]
    for name, value in rows:
        print(f"{name:36}{value}")
