"""`scripts/nat_lab`: does the mesh go through NATs, and does it heal? See docs/nat_lab.md."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from lab_swarm import LabError, LabSwarm, wait_until
from nat_cells import DIRECT, PATIENCE_S, Cell, Run, heard, matrix, run_cell, start_relays
from nat_heal import SCENARIOS, Healed, heal
from nat_partition import Parted, part
from netlab import OBSERVERS, Kind, Lab, lab
from netns import NetnsError

RTT_MS: Final = 50.0
_KINDS: Final = ", ".join(Kind)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 1 where something is not as expected."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    if options.logs is not None:
        options.logs.mkdir(parents=True, exist_ok=True)
    try:
        with lab(options.relays, options.delay) as built:
            code: int = options.run(built, options)
    except (LabError, NetnsError) as error:
        print(f"nat_lab: {error}", file=sys.stderr)
        return 1
    return code


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """End in order, and once: what is being removed is removed."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/nat_lab", description=f"Kinds: {_KINDS}.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--delay",
        type=_at_least(0.0),
        default=RTT_MS,
        metavar="MS",
        help=f"round trip between two sites, 0: none ({RTT_MS:g})",
    )
    common.add_argument(
        "--relays", type=int, choices=range(3, 10), default=OBSERVERS, help="public hosts (3)"
    )
    common.add_argument("--logs", type=Path, metavar="DIR", help="keep the daemons' logs there")
    table = argparse.ArgumentParser(add_help=False)
    table.add_argument("--repeat", type=_count, default=1, metavar="N", help="run each N times")
    table.add_argument("--json", type=Path, metavar="FILE", help="write every run there")
    cells = argparse.ArgumentParser(add_help=False)
    cells.add_argument(
        "--together", action="store_true", help="start A and B at once, not one after the other"
    )
    cells.add_argument(
        "--patience",
        type=_at_least(1.0),
        default=PATIENCE_S,
        metavar="S",
        help=f"seconds a pair has to meet, and then to become direct ({PATIENCE_S:g})",
    )

    one = commands.add_parser("matrix", parents=[common, table, cells], help="pairs of kinds")
    one.add_argument("--cells", type=_cells, metavar="KIND/KIND,…", help="these pairs only")
    one.add_argument(
        "--kinds", type=_kinds, default=list(Kind), metavar="KIND,…", help="pairs of these only"
    )
    one.add_argument("--all-orders", action="store_true", help="A with B and B with A")
    one.set_defaults(run=_matrix)

    one = commands.add_parser("pair", parents=[common, table, cells], help="one pair of kinds")
    one.add_argument("a", type=Kind, metavar="KIND")
    one.add_argument("b", type=Kind, metavar="KIND")
    one.set_defaults(run=_pair)

    one = commands.add_parser("heal", parents=[common, table], help="something breaks")
    one.add_argument("scenario", nargs="?", choices=[*SCENARIOS, "all"], default="all")
    one.add_argument("--pair", type=Cell.parse, metavar="KIND/KIND", help="instead of its own")
    one.set_defaults(run=_heal)

    one = commands.add_parser(
        "partition", parents=[common, table], help="two of five members are cut off, and all write"
    )
    one.add_argument(
        "--for",
        type=_at_least(1.0),
        metavar="S",
        dest="apart",
        help="seconds; otherwise until the last link across the partition is lost",
    )
    one.set_defaults(run=_partition)

    one = commands.add_parser("shell", parents=[common], help="leave it up until Ctrl-C")
    one.add_argument("a", type=Kind, metavar="KIND")
    one.add_argument("b", type=Kind, metavar="KIND")
    one.add_argument("--bare", action="store_true", help="start no daemons")
    one.set_defaults(run=_shell)
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError(text)
    return count


class _at_least:
    def __init__(self, low: float) -> None:
        self._low = low

    def __call__(self, text: str) -> float:
        value = float(text)
        if not self._low <= value <= 10_000:
            raise ValueError(text)
        return value


def _kinds(text: str) -> list[Kind]:
    return [Kind(one) for one in text.split(",")]


def _cells(text: str) -> list[Cell]:
    return [Cell.parse(one) for one in text.split(",")]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- cells --------------------------------------------------------------------------------------


def _pair(built: Lab, options: argparse.Namespace) -> int:
    return _run_cells(built, options, [Cell(options.a, options.b)])


def _matrix(built: Lab, options: argparse.Namespace) -> int:
    cells = options.cells or matrix(options.kinds, options.all_orders)
    return _run_cells(built, options, cells)


def _run_cells(built: Lab, options: argparse.Namespace, cells: Sequence[Cell]) -> int:
    runs: list[Run] = []
    try:
        with LabSwarm(built, options.logs) as swarm:
            relays = start_relays(swarm)
            _say(f"{len(relays)} relays are up, {options.delay:g} ms round trip")
            for number, cell in product(range(options.repeat), cells):
                began = time.monotonic()
                run = run_cell(swarm, relays, cell, options.patience, options.together)
                runs.append(run)
                took = time.monotonic() - began
                _say(f"{cell} {number + 1}/{options.repeat}: {told(run)} ({took:.1f} s in all)")
    finally:  # what was measured is shown even if the rest is not waited for
        print(cell_table(runs))
        _write(options, runs)
    return int(any(run.trouble for run in runs))


def told(run: Run) -> str:
    """A run in a few words."""
    if run.trouble:
        return f"NOT as expected\n  {run.trouble}"
    how = run.path
    if run.first != run.path:
        how = f"{run.first}, {run.path} {_seconds(run.direct_s)} later"
    return f"linked after {_seconds(run.link_s)}, {how}, answered"


def cell_table(runs: Sequence[Run]) -> str:
    """The runs of each cell in a line, and the time to a direct path over all."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.a, run.b), []).append(run)
    lines = [_CELL_HEADER, *(_cell_line(group) for group in groups.values())]
    later = upgrades(runs)
    if later:
        lines.append(
            f"\nRelayed first, direct later: {len(later)} runs, after p50 "
            f"{quantile(later, 0.5):.1f} s, p90 {quantile(later, 0.9):.1f} s, "
            f"at most {max(later):.1f} s."
        )
    return "\n".join(lines)


_CELL_HEADER: Final = (
    f"{'A':16}{'B':16}{'expected':10}{'direct':>8}{'answered':>10}{'link s':>8}"
    f"{'message s':>11}{'direct p50':>12}{'p90 s':>7}{'ask s':>7}"
)


def _cell_line(runs: Sequence[Run]) -> str:
    first = runs[0]
    direct = sum(run.path == DIRECT for run in runs)
    answered = sum(run.answered for run in runs)
    later = upgrades(runs)
    asks = [one.seconds for run in runs for one in (run.asked_a, run.asked_b) if one and one.full]
    waits = "at once" if direct and not later else _quantile(later, 0.5)
    return (
        f"{first.a:16}{first.b:16}{first.expected:10}{f'{direct}/{len(runs)}':>8}"
        f"{f'{answered}/{len(runs)}':>10}{_quantile(_known(run.link_s for run in runs), 0.5):>8}"
        f"{_quantile(_known(run.message_s for run in runs), 0.5):>11}{waits:>12}"
        f"{_quantile(later, 0.9):>7}{_quantile(asks, 0.5):>7}"
    )


def upgrades(runs: Iterable[Run]) -> list[float]:
    """Seconds from link to direct path of the runs that were relayed first."""
    return _known(run.direct_s for run in runs if run.first != DIRECT and run.path == DIRECT)


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest of ``values`` that at least a share ``q`` of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-q * len(ordered) // 1) - 1)]


def _quantile(values: Sequence[float], q: float) -> str:
    return f"{quantile(values, q):.1f}" if values else "-"


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"


# --- healing ------------------------------------------------------------------------------------


def _heal(built: Lab, options: argparse.Namespace) -> int:
    names = list(SCENARIOS) if options.scenario == "all" else [options.scenario]
    runs: list[Healed] = []
    try:
        for _, name in product(range(options.repeat), names):
            _say(f"{name}: {SCENARIOS[name].help}")
            with LabSwarm(built, options.logs) as swarm:
                healed = heal(swarm, name, options.pair)
            runs.append(healed)
            _say(f"  {'NOT healed: ' + healed.trouble if healed.trouble else 'healed'}")
    finally:
        print(heal_table(runs))
        _write(options, runs)
    return int(any(healed.trouble for healed in runs))


def heal_table(runs: Sequence[Healed]) -> str:
    """A line for each run."""
    lines = [
        f"{'scenario':16}{'A/B':34}{'before':9}{'lost s':>7}{'back s':>7}  {'after':9}"
        f"{'direct s':>9}{'newcomer s':>11}  question"
    ]
    for one in runs:
        times = (one.lost_s, one.back_s, one.direct_s, one.newcomer_s)
        lost, back, direct, newcomer = (_quantile(_known([value]), 0.5) for value in times)
        asked = f"{one.asked.outcome}, {one.asked.seconds:.1f} s" if one.asked else "not asked"
        lines.append(
            f"{one.scenario:16}{f'{one.a}/{one.b}':34}{one.before:9}{lost:>7}{back:>7}  "
            f"{one.after:9}{direct:>9}{newcomer:>11}  {asked}"
        )
    return "\n".join(lines)


# --- partition ----------------------------------------------------------------------------------


def _partition(built: Lab, options: argparse.Namespace) -> int:
    runs: list[Parted] = []
    try:
        for number in range(options.repeat):
            with LabSwarm(built, options.logs) as swarm:
                parted = part(swarm, options.apart, _say)
            runs.append(parted)
            _say(f"{number + 1}/{options.repeat}: {parted_told(parted)}")
    finally:
        print(partition_table(runs))
        _write(options, runs)
    return int(any(parted.trouble for parted in runs))


def parted_told(parted: Parted) -> str:
    """A run in a few words."""
    if parted.trouble:
        return f"NOT as expected\n  {parted.trouble}"
    return (
        f"all hold the same {_seconds(parted.healed_s)} after the healing, "
        f"{parted.exchanges} exchanges, {parted.rounds} at most of one"
    )


def partition_table(runs: Sequence[Parted]) -> str:
    """A line for each run."""
    lines = [
        f"{'settled s':>9}{'apart s':>9}{'lost s':>8}{'written':>9}{'linked s':>10}{'healed s':>10}"
        f"{'exchanges':>11}{'rounds':>8}{'entries':>9}  root"
    ]
    for one in runs:
        times = (one.settled_s, one.apart_s, one.lost_s, one.linked_s, one.healed_s)
        settled, apart, lost, linked, healed = (_quantile(_known([value]), 0.5) for value in times)
        lines.append(
            f"{settled:>9}{apart:>9}{lost:>8}{one.written:>9}{linked:>10}{healed:>10}"
            f"{one.exchanges:>11}{one.rounds:>8}{one.entries:>9}  {one.root[:12] or '-'}"
        )
    return "\n".join(lines)


def _write(
    options: argparse.Namespace, runs: Sequence[Run] | Sequence[Healed] | Sequence[Parted]
) -> None:
    if options.json is not None:
        result: dict[str, Any] = {
            "rtt_ms": options.delay,
            "relays": options.relays,
            "runs": [asdict(run) for run in runs],
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n")


# --- shell --------------------------------------------------------------------------------------


def _shell(built: Lab, options: argparse.Namespace) -> int:
    built.set_kind("a", options.a)
    built.set_kind("b", options.b)
    with LabSwarm(built, options.logs) as swarm:
        print(f"{'namespace':16}{'address':16}{'seen as':16}enter with")
        for host in (*built.observers, "a", "b", "c"):
            own, seen = built.own_address(host), built.address(host)
            name = built.namespaces.full(host)
            print(f"{name:16}{own:16}{seen:16}ip netns exec {name} bash")
        if not options.bare:
            relays = start_relays(swarm)
            pair = [swarm.node(host, relays) for host in ("a", "b")]
            for daemon in pair:
                swarm.start(daemon)
            swarm.serving(*pair)
            for daemon in (*relays, *pair):
                print(f"{daemon.host:4}swarm peers --socket {daemon.socket}")
            met = wait_until(lambda: heard(*pair), PATIENCE_S)
            print(f"A and B have met: {met[0].path}" if met else "A and B have not met yet")
        print("Ctrl-C removes it all.", flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
