"""What the replication of logs costs, beside what it may: ``scripts/bench state``.

Joins are made between processes on loopback, each a node that holds logs and does nothing else.
Times are medians, and depend on what else the machine does: the share of a core that it leaves is
measured along the way.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import state_authors as authors
import state_gossip as gossip
import trio
from bench_mesh import Process
from state_figures import STALL_MS, Row, build, dearest, exchanges, refusals

NODE: Final = (sys.executable, str(Path(__file__).parent / "state_node.py"))
PROCESS_LIMIT_S: Final = 300.0
TRANSPORTS: Final = {"tcp": ("raw TCP", 1.5), "libp2p": ("libp2p", 5.0)}
TICKETS: Final = ("certificates", "stamps")
GOSSIP_RUNS: Final = 20
LOSS: Final = 0.2
SILENT: Final = 0.3
PARTS: Final = ("sync", "join", "load", "gossip", "refuse", "dear")
_PER: Final = 50_000
"""Entries to which figures of memory are scaled."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the options of ``scripts/bench state``."""
    parser.add_argument("--authors", type=_within(1, 10_000), default=1000, metavar="N")
    parser.add_argument(
        "--entries", type=_within(1, 100), default=50, metavar="N", help="of each author (50)"
    )
    parser.add_argument(
        "--runs", type=_within(1, 1000), default=5, metavar="N", help="measurements of a time (5)"
    )
    parser.add_argument(
        "--nodes", type=_within(16, 1 << 16), default=1024, metavar="N", help="that gossip (1024)"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def _within(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not from {low} to {high}")
        return value

    return number


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, and print unless JSON is wanted.

    Raises:
        ContenderError: a process failed.
    """
    machine = Machine()
    rows: list[Row] = []
    for part in _parts(options):
        machine.look()
        for row in part:
            rows.append(row)
            if not options.json:
                print(_line(row), flush=True)
    machine.look()
    if not options.json:
        print(machine)
    return {
        "authors": options.authors,
        "entries": options.entries,
        "rows": [dataclasses.asdict(row) | {"holds": row.holds} for row in rows],
        "machine": dataclasses.asdict(machine),
    }


def _parts(options: argparse.Namespace) -> Iterator[Iterator[Row]]:
    wanted = set(options.only)
    if wanted & {"sync", "join", "load"}:
        _say(f"writing the logs of {options.authors} authors")
        logs = build(options.authors, options.entries)
    if "sync" in wanted:
        yield iter(exchanges(logs, options.entries))
    if wanted & {"join", "load"}:
        with tempfile.TemporaryDirectory() as name:
            stage = Stage(Path(name), logs, options)
            if "join" in wanted:
                yield stage.joins()
            if "load" in wanted:
                yield stage.loads()
    if "gossip" in wanted:
        yield spreading(options.nodes)
    if "refuse" in wanted:
        yield iter(refusals(options.runs))
    if "dear" in wanted:
        yield iter(dearest(options.runs))


# --- nodes, each a process ------------------------------------------------------------------------


class Stage:
    """Databases that hold ``logs``, and nodes that use them.

    Args:
        root: an empty folder.
    """

    def __init__(
        self, root: Path, logs: Sequence[authors.Author], options: argparse.Namespace
    ) -> None:
        self._root = root
        self._logs = logs
        self._options = options
        self._outputs = root / "outputs"
        self._outputs.mkdir()

    def joins(self) -> Iterator[Row]:
        """How long a node takes that has nothing, and how long it and the one that has it all keep
        everything else waiting."""
        for tickets in TICKETS:
            for transport, (name, target) in TRANSPORTS.items():
                joined, stalls = self._joined(transport, tickets)
                stamped = tickets == "stamps"
                name += ", stamps" if stamped else ""
                yield _median(
                    f"cold join over {name}", joined, "s", None if stamped else target,
                    "seconds", "fetched_s", "read_s", "cpu_s",
                )  # fmt: skip
                for who, seen in (("joiner", joined), ("server", stalls)):
                    yield _median(
                        f"longest stall of the {who}, {name}", seen, "ms",
                        None if stamped else STALL_MS, "stall_ms", "busy_ms",
                    )  # fmt: skip

    def _joined(
        self, transport: str, tickets: str
    ) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
        """What joiners and the server have seen, join by join."""
        served = self._folder(f"{transport} {tickets}")
        shutil.copytree(self._database(tickets), served, dirs_exist_ok=True)
        server = self._start("serve", transport, tickets, str(served))
        try:
            address = server.line(PROCESS_LIMIT_S)
            joined, stalls = [], []
            for turn in range(self._options.runs):
                _say(f"join {turn + 1} of {self._options.runs}, {transport}, {tickets}")
                server.ask("", PROCESS_LIMIT_S)
                joined.append(self._join(transport, tickets, address))
                stalls.append(server.ask("", PROCESS_LIMIT_S))
            return joined, stalls
        finally:
            server.stop()

    def _join(self, transport: str, tickets: str, address: str) -> dict[str, float]:
        folder = self._folder("joiner")
        size = (str(self._options.authors), str(self._options.entries))
        found = self._result("join", transport, tickets, str(folder), address, *size)
        shutil.rmtree(folder)
        return found

    def loads(self) -> Iterator[Row]:
        """What it takes to start again."""
        database = self._database("certificates")
        _say("loading")
        found = [
            self._result("restore", "certificates", str(database))
            for _ in range(self._options.runs)
        ]
        held = self._options.authors * self._options.entries
        assert all(one["entries"] == held for one in found)
        seconds = [one["seconds"] for one in found]
        size = [one["bytes"] / held * _PER / 1e6 for one in found]
        yield Row.median(f"restart with {held:,} entries", seconds, "s", 1.0)
        yield Row.median(f"memory of {_PER:,} entries", size, "MB", 50.0)

    def _database(self, tickets: str) -> Path:
        """A folder with a database of all logs, admitted with ``tickets``."""
        folder = self._root / tickets
        if not folder.exists():
            folder.mkdir()
            _say(f"writing a database with {tickets}")
            admitting = authors.admission(tickets)
            trio.run(
                authors.write,
                folder,
                [
                    one.run(0, self._options.entries, authors.ticket(admitting, one.peer))
                    for one in self._logs
                ],
                admitting,
            )
        return folder

    def _folder(self, name: str) -> Path:
        folder = self._root / name
        folder.mkdir()
        return folder

    def _start(self, *arguments: str) -> Process:
        return Process([*NODE, *arguments], self._outputs)

    def _result(self, *arguments: str) -> dict[str, float]:
        """What a node prints, in JSON, before it ends."""
        process = self._start(*arguments)
        try:
            found: dict[str, float] = json.loads(process.line(PROCESS_LIMIT_S))
        finally:
            process.stop()
        return found


def _median(
    name: str,
    seen: Sequence[Mapping[str, float]],
    unit: str,
    target: float | None,
    what: str,
    *others: str,
) -> Row:
    """The figure ``what`` of all that was seen, and medians of others beside it."""
    row = Row.median(name, [one[what] for one in seen], unit, target)
    more = {other: statistics.median(one[other] for one in seen) for other in others}
    return dataclasses.replace(row, more=more)


# --- gossip ---------------------------------------------------------------------------------------


def spreading(nodes: int) -> Iterator[Row]:
    """How many rounds it takes until everybody knows."""
    bits = (nodes - 1).bit_length()
    for fanout, target in ((1, bits + 8), (3, bits)):
        counts = {
            told: [
                float(gossip.rounds(nodes, told, fanout, LOSS, SILENT, random.Random(seed)))
                for seed in range(GOSSIP_RUNS)
            ]
            for told in (gossip.links(nodes), fanout)
        }
        all_told, few_told = counts.values()
        yield Row(
            f"gossip among {nodes:,}, fan-out {fanout}",
            statistics.mean(all_told),
            "rounds",
            target,
            all_told,
            {"few_told_mean": statistics.mean(few_told), "few_told_max": max(few_told)},
        )


# --- the machine ----------------------------------------------------------------------------------


@dataclasses.dataclass
class Machine:
    """What the machine was like, each time that it was looked at.

    Attributes:
        hashed_mb_s: SHA-256 on one core, in MB per second of its time.
        share: of that time in all time: what others leave of a core.
    """

    hashed_mb_s: list[float] = dataclasses.field(default_factory=list)
    share: list[float] = dataclasses.field(default_factory=list)
    cores: int = os.cpu_count() or 1

    def look(self) -> None:
        """Look once more."""
        piece = bytes(1 << 20)
        began, used = time.perf_counter(), time.process_time()
        for _ in range(200):
            sha256(piece)
        used, took = time.process_time() - used, time.perf_counter() - began
        self.hashed_mb_s.append(200 * len(piece) / used / 1e6)
        self.share.append(used / took)

    def __str__(self) -> str:
        return (
            f"\n{self.cores} cores; SHA-256 {_spread(self.hashed_mb_s)} MB/s; others left "
            f"{_spread([100 * one for one in self.share])} % of a core"
        )


# --- the table ------------------------------------------------------------------------------------


def _line(row: Row) -> str:
    target = "" if row.target is None else f"at most {row.target:g}"
    holds = {None: "", True: "holds", False: "MISSED"}[row.holds]
    seen = f"({_spread(row.samples)})" if len(row.samples) > 1 else ""
    more = ", ".join(f"{name} {value:.4g}" for name, value in row.more.items())
    figure = f"{row.value:.4g} {row.unit}"
    return f"{row.name:42} {figure:>12} {seen:18} {target:13} {holds:7} {more}".rstrip()


def _spread(samples: Sequence[float]) -> str:
    return f"{min(samples):.3g} to {max(samples):.3g}"


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
