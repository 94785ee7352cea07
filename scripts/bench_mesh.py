"""How fast the mesh is, beside raw TCP and two libraries made for the same: ``scripts/bench mesh``.

Round trips of an echo between two processes on loopback, each waiting for the last; and small ones
while bulk goes over the same connection. The contenders take turns in short slices, so that what
else the machine does hits all alike.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rivals.orders import BULK_BYTES

from protocol.errors import SwarmError

HERE: Final = Path(__file__).parent
SIZES: Final = (128, 64 << 10, BULK_BYTES)
SMALL: Final = SIZES[0]
SLICES: Final = 8
"""So many times each contender has its turn with each size."""
START_S: Final = 60.0
ORDER_S: Final = 60.0
"""Beyond the slice itself: one exchange under way, and the uploads beside it."""
STOP_S: Final = 10.0
RIVALS: Final = {
    # torch by itself and first: hivemind would take one that brings gigabytes along.
    "hivemind": ("torch==2.13.0", "hivemind==1.1.12"),
    "lattica": ("lattica==1.0.21",),
}


class ContenderError(SwarmError):
    """A contender of the benchmark failed."""

    code = "contender"


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured in one slice."""

    size: int
    beside_bulk: bool = False


@dataclass(slots=True)
class Samples:
    """What a contender has shown in one case."""

    rates: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    bulk_mb_s: list[float] = field(default_factory=list)

    def add(self, slice_: dict[str, Any]) -> None:
        """One slice more."""
        self.rates.append(len(slice_["latencies_ms"]) / slice_["seconds"])
        self.latencies_ms += slice_["latencies_ms"]
        self.bulk_mb_s.append(slice_["bulk_mb_s"])

    def row(self, contender: str, case: Case) -> dict[str, Any]:
        """The median rate of all slices; percentiles of all round trips."""
        ordered = sorted(self.latencies_ms)
        row = {
            "contender": contender,
            "size": case.size,
            "beside_bulk": case.beside_bulk,
            "round_trips": len(ordered),
            "per_s": statistics.median(self.rates),
            "p50_ms": statistics.median(ordered),
            "p99_ms": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        }
        return row | ({"bulk_mb_s": statistics.median(self.bulk_mb_s)} if case.beside_bulk else {})


class Process:
    """A server or a client, and the lines it prints."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._log = folder / f"{len(list(folder.iterdir()))}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._name = " ".join(Path(word).name for word in command[1:3])
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def line(self, limit_s: float) -> str:
        """The next line it prints.

        Raises:
            ContenderError: it ended instead, or printed nothing in time.
        """
        try:
            line = self._lines.get(timeout=limit_s)
        except queue.Empty:
            line = ""
        if not line:
            tail = self._log.read_text(errors="replace")[-2000:]
            raise ContenderError(f"{self._name} says nothing more; its log ends:\n{tail}")
        return line.strip()

    def order(self, case: Case, seconds: float) -> dict[str, Any]:
        """Have a client carry out a slice."""
        order = {"size": case.size, "beside_bulk": case.beside_bulk, "seconds": seconds}
        return self.ask(json.dumps(order), seconds + ORDER_S)

    def ask(self, line: str, limit_s: float) -> dict[str, Any]:
        """What it answers to a line, in JSON.

        Raises:
            ContenderError: as :meth:`line`.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        result: dict[str, Any] = json.loads(self.line(limit_s))
        return result

    def stop(self) -> None:
        """End it, by closing its input if that helps."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join(STOP_S)
        process.stdout.close()


@dataclass(frozen=True, slots=True)
class Contender:
    """How to start one.

    Attributes:
        program: what to put before ``server PORT`` and ``client ADDRESS``.
        bulk: it can upload beside small messages.
        relayed: ``relay PORT`` comes first, and the server is given its address.
    """

    name: str
    program: tuple[str, ...]
    bulk: bool = True
    relayed: bool = False

    @contextlib.contextmanager
    def running(self, folder: Path) -> Iterator[Process]:
        """Its client, connected to its server."""
        folder.mkdir()
        roles = (["relay"] if self.relayed else []) + ["server", "client"]
        where = str(_free_port())
        with contextlib.ExitStack() as stack:
            for role in roles:
                process = Process([*self.program, role, where], folder)
                stack.callback(process.stop)
                where = process.line(START_S)
            yield process


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the options of ``scripts/bench mesh``."""
    parser.add_argument(
        "--seconds", type=float, default=8.0, metavar="S", help="of each contender and size (8)"
    )
    parser.add_argument(
        "--rivals", action="store_true", help="beside lattica and hivemind, installed on first use"
    )
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, and print unless JSON is wanted.

    Raises:
        ContenderError: one could not be installed, or failed.
    """
    own = (sys.executable, str(HERE / "mesh_echo.py"))
    contenders = [
        Contender("raw TCP", (*own, "raw"), bulk=False),
        Contender("swarmd", (*own, "mesh")),
        Contender("swarmd call", (*own, "call")),
        Contender("swarmd relayed", (*own, "mesh"), relayed=True),
    ]
    if options.rivals:
        contenders += [_rival(name) for name in RIVALS]
    measured = _measure(contenders, options.seconds)
    rows = [found.row(name, case) for (name, case), found in measured.items()]
    table = {"echo": rows, "ratios": _ratios(rows)}
    if not options.json:
        _print(table)
    return table


def _measure(contenders: Sequence[Contender], seconds: float) -> dict[tuple[str, Case], Samples]:
    cases = [*map(Case, SIZES), Case(SMALL, beside_bulk=True)]
    found: dict[tuple[str, Case], Samples] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:

        def start(contender: Contender) -> Process:
            return stack.enter_context(contender.running(Path(name, contender.name)))

        _say(f"starting {', '.join(contender.name for contender in contenders)}")
        with ThreadPoolExecutor() as pool:
            clients = dict(zip(contenders, pool.map(start, contenders), strict=True))
        for turn in range(SLICES):
            _say(f"slice {turn + 1} of {SLICES}")
            for case in cases:
                for contender, client in clients.items():
                    if contender.bulk or not case.beside_bulk:
                        samples = found.setdefault((contender.name, case), Samples())
                        samples.add(client.order(case, seconds / SLICES))
    return found


def _rival(name: str) -> Contender:
    """A library in an environment of its own, made on first use and kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "swarmd-bench"
    place = cache / "-".join([*RIVALS[name], f"python{sys.version_info[0]}.{sys.version_info[1]}"])
    python = place / "bin" / "python"
    done = place / "installed"
    if not done.exists():
        _say(f"installing {' and '.join(RIVALS[name])} into {place}")
        steps = [[sys.executable, "-m", "venv", "--clear", str(place)]]
        install = [str(python), "-m", "pip", "install", "--quiet"]
        steps += [[*install, package] for package in RIVALS[name]]
        for step in steps:
            ended = subprocess.run(step, capture_output=True, text=True)
            if ended.returncode:
                raise ContenderError(f"{' '.join(step)} failed:\n{ended.stderr[-2000:]}")
        done.touch()
    return Contender(name, (str(python), str(HERE / "rivals" / f"{name}_echo.py")))


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


# --- the table ----------------------------------------------------------------------------------


def _ratios(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Round trips a second of the mesh's link, over those of each other contender."""
    alone = {
        (row["contender"], row["size"]): row["per_s"] for row in rows if not row["beside_bulk"]
    }
    return [
        {"contender": name, "size": size, "swarmd_is": alone["swarmd", size] / rate}
        for (name, size), rate in alone.items()
        if name != "swarmd"
    ]


def _print(table: dict[str, Any]) -> None:
    names = list(dict.fromkeys(row["contender"] for row in table["echo"]))
    found = {(row["contender"], row["size"], row["beside_bulk"]): row for row in table["echo"]}
    head = "".join(f"{_size(size):>24}" for size in SIZES)
    print(f"{'echo':14}{head}   round trips a second (p50 / p99 ms)")
    for name in names:
        cells = "".join(f"{_cell(found[name, size, False]):>24}" for size in SIZES)
        print(f"{name:14}{cells}")
    print(f"\n{'swarmd is':14}{head}")
    ratios = {(row["contender"], row["size"]): row["swarmd_is"] for row in table["ratios"]}
    for name in [name for name in names if name != "swarmd"]:
        cells = "".join(f"{ratios[name, size]:>24.2f}" for size in SIZES)
        print(f"x {name:12}{cells}")
    print(f"\n{_size(SMALL)} beside uploads of {_size(BULK_BYTES)}   p50 / p99 ms")
    for name in names:
        row = found.get((name, SMALL, True))
        if row is not None:
            times = f"{row['p50_ms']:.2f} / {row['p99_ms']:.2f}"
            print(f"{name:14}{times:>24}   beside {row['bulk_mb_s']:.0f} MB/s")


def _cell(row: dict[str, Any]) -> str:
    return f"{row['per_s']:.0f} ({row['p50_ms']:.2f} / {row['p99_ms']:.2f})"


def _size(count: int) -> str:
    if count < 1 << 10:
        return f"{count} B"
    return f"{count / 1024:.0f} KiB" if count < BULK_BYTES else "1 MiB"
