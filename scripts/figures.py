"""The figures behind `scripts/figures`.

Jobs are cells: one seed of a simulated world, or one choice of liars in recorded data. Each is
played once and kept, under a fingerprint of the code that played it; rows of the table are made
of one cell or of several. Nothing is tuned here: the cells call what `swarm eval` calls.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from pictures import Panel, draw

from swarm.heldout import contests, select
from swarm.recorded import Recorded, read_scores, read_votes
from swarm.rules import compare
from swarm.scoreboard import Scoreboard, calibration_error, sure_answers
from swarm.simulate.attacks import parse
from swarm.simulate.fresh import Fresh
from swarm.simulate.online import Online
from swarm.simulate.world import WORLDS

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / ".evaluation" / "figures.jsonl"
OTHER_SEEDS = range(1, 21)
SWARM_SEEDS = range(900, 904)
LIAR_DRAWS = 8
PICTURED = {
    "collude": "a ring, in calibration too",
    "invert": "every verdict turned round",
    "leak": "a ring that knows calibration",
}
PARTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
WEIGHTS = {
    "uniform-bt": "equal weights",
    "agreement-bt": "agreement weights",
    "consensus": "calibrated: the consensus",
}
BINS = 10
GSM8K, VICUNA = "peerreview_gsm8k", "prd_vicuna80"


@dataclass(frozen=True, slots=True)
class Cell:
    """What is played at once.

    Attributes:
        kind: ``fresh``, ``online`` or ``recorded``.
        world: of the simulation, or a directory of recorded data.
        peers: how many, or judges.
        each: pairs a judge.
        rounds: how many, or questions.
        seed: of the simulation, or of the choice of liars (0: the first judges).
        attack: as on the command line, or how many judges lie.
    """

    kind: str
    world: str
    peers: int = 0
    each: int = 0
    rounds: int = 0
    seed: int = 0
    attack: str = "none"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        title: what is measured.
        cells: of which it is made.
        measure: mean and standard error, in percent.
        target: in percent, None where there is none.
        at_most: the target is an upper bound.
    """

    title: str
    cells: tuple[Cell, ...]
    measure: Callable[[Sequence[dict[str, Any]]], tuple[float, float]]
    target: float | None
    at_most: bool = False


# --- measures -------------------------------------------------------------------------------------


def accuracy(rule: str = "consensus") -> Callable[[Sequence[dict[str, Any]]], tuple[float, float]]:
    """Mean over the cells."""
    return lambda cells: _pooled(
        [(one["rules"][rule]["accuracy"], one["rules"][rule]["se"]) for one in cells]
    )


def gain(other: str) -> Callable[[Sequence[dict[str, Any]]], tuple[float, float]]:
    """Mean paired difference of the consensus to another rule."""
    return lambda cells: _pooled(
        [(one["paired"][other]["difference"], one["paired"][other]["se"]) for one in cells]
    )


def error(cells: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Calibration error of all cells together."""
    confident = [tuple(pair) for one in cells for pair in one["confident"]]
    found = calibration_error(confident)
    return (math.nan if found is None else 100 * found), 0.0


def sure(cells: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """How many of the answers with a confidence of 0.9 or more are right."""
    confident = [tuple(pair) for one in cells for pair in one["confident"]]
    right = sure_answers(confident)["accuracy"]
    if right is None:
        return math.nan, 0.0
    count = sum(chance >= 0.9 for chance, _ in confident)
    return 100 * right, 100 * math.sqrt(right * (1 - right) / count)


def lowest(cells: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """The worst cell."""
    return min((100 * one["rules"]["consensus"]["accuracy"], 0.0) for one in cells)


def _pooled(found: Sequence[tuple[float, float]]) -> tuple[float, float]:
    means, errors = zip(*found, strict=True)
    return 100 * sum(means) / len(means), 100 * math.hypot(*errors) / len(errors)


# --- the table ------------------------------------------------------------------------------------


def rows(quick: bool, data: Path | None) -> list[Row]:
    """All lines."""
    return [*_fresh(quick), *_online(quick), *(_recorded(data, quick) if data else ())]


def _fresh(quick: bool) -> Iterable[Row]:
    rounds = 250 if quick else 1500
    seeds = OTHER_SEEDS[:2] if quick else OTHER_SEEDS
    for world, target in (("A", 87.5), ("B", 86.0), ("C", 78.0), ("D", 80.5), ("E", None)):
        cell = (Cell("fresh", world, 15, 3, rounds, 46003),)
        yield Row(f"{world}, seed 46003", cell, accuracy(), target)
        floor = None if target is None else 4.0
        yield Row(f"{world}, seed 46003, gain on plurality", cell, gain("plurality"), floor)
        floor = None if target is None else -1.5
        yield Row(
            f"{world}, seed 46003, gain on weighted plurality",
            cell,
            gain("weighted-plurality"),
            floor,
        )
    for world in "ABCD":
        cells = tuple(Cell("fresh", world, 15, 3, rounds, seed) for seed in seeds)
        name = f"{world}, seeds {seeds[0]}–{seeds[-1]}"
        yield Row(name, cells, accuracy(), None)
        for other, floor in (
            ("plurality", 4.0),
            ("weighted-plurality", -1.5),
            ("uniform-bt", None),
        ):
            yield Row(f"{name}, gain on {other}", cells, gain(other), floor)
        yield Row(f"{name}, calibration error", cells, error, 4.0 if world == "A" else None, True)
        yield Row(f"{name}, right at 0.9 or more", cells, sure, 95.0 if world == "A" else None)


def _online(quick: bool) -> Iterable[Row]:
    seeds = SWARM_SEEDS[:2] if quick else SWARM_SEEDS
    plan = (
        ("none", "consensus", 88.0), ("collude:.5", "consensus", 80.0),
        ("invert:.5", "consensus", 85.0), ("betray:.3", "consensus", 83.0),
        ("leak:.3", "consensus-own.3", 84.0), ("lazy:.5", "consensus", None),
        ("clones:.4", "consensus", None), ("camouflage:.5", "consensus", None),
    )  # fmt: skip
    for attack, rule, target in plan:
        cells = tuple(Cell("online", "A", 20, 6, 480, seed, attack) for seed in seeds)
        name = f"one swarm of 20, {attack}"
        yield Row(f"{name}, {rule}", cells, accuracy(rule), target)
        for other in ("plurality", "agreement-bt"):
            yield Row(f"{name}, {other}", cells, accuracy(other), None)
    cells = tuple(Cell("online", "A", 9, 6, 480, seed, "sybil:72") for seed in seeds)
    yield Row("72 newcomers among 9, consensus", cells, accuracy(), 80.0)
    yield Row("72 newcomers among 9, plurality", cells, accuracy("plurality"), None)
    # From 100 calibration rounds on: a tenth of 2,400 is calibration, the later half is reported.
    rounds = 800 if quick else 2400
    cells = tuple(Cell("online", "A", 20, 6, rounds, seed) for seed in seeds)
    yield Row(f"one swarm of 20, {rounds} rounds, calibration error", cells, error, 4.0, True)
    yield Row(f"one swarm of 20, {rounds} rounds, right at 0.9 or more", cells, sure, 95.0)


def _recorded(data: Path, quick: bool) -> Iterable[Row]:
    maths, open_text = str(data / GSM8K), str(data / VICUNA)
    four = (Cell("recorded", maths, 4, 0, 400),)
    yield Row("GSM8K, 400 questions, 4 peers judge", four, accuracy(), 91.5)
    yield Row("GSM8K, 400 questions, 4 peers judge, uniform-bt", four, accuracy("uniform-bt"), None)
    yield Row(
        "GSM8K, 400 questions, 4 peers judge, gain on plurality", four, gain("plurality"), 0.0
    )
    for liars, target in ((6, 91.0), (8, 90.0)):
        first = (Cell("recorded", maths, 13, 0, 200, 0, str(liars)),)
        name = f"GSM8K, 200 questions, 13 judges, the first {liars} lie"
        yield Row(name, first, accuracy(), target)
        for other in ("uniform-bt", "agreement-bt"):
            yield Row(f"{name}, {other}", first, accuracy(other), None)
        draws = range(1, 3 if quick else LIAR_DRAWS + 1)
        cells = tuple(Cell("recorded", maths, 13, 0, 200, seed, str(liars)) for seed in draws)
        name = f"GSM8K, {liars} random liars, {len(cells)} draws"
        yield Row(name, cells, accuracy(), None)
        yield Row(f"{name}, the worst", cells, lowest, None)
    vicuna = (Cell("recorded", open_text),)
    yield Row("Vicuna, win rate with people", vicuna, accuracy(), None)
    yield Row("Vicuna, gain on uniform-bt", vicuna, gain("uniform-bt"), -0.5)


# --- playing --------------------------------------------------------------------------------------


def play(cell: Cell) -> tuple[Cell, dict[str, Any]]:
    """The summary of a cell, with every confidence."""
    world, attack = WORLDS.get(cell.world), cell.attack
    if cell.kind == "recorded":
        drawn = contests(_chosen(cell))
    elif cell.kind == "fresh" and world:
        fresh = Fresh(world, cell.peers, cell.each, cell.seed, parse(attack))
        drawn = fresh.contests(cell.rounds)
    elif world:
        swarm = Online(world, cell.peers, cell.each, cell.rounds, cell.seed, parse(attack))
        drawn = swarm.contests()
    else:
        raise SystemExit(f"there is no world {cell.world}")
    board = Scoreboard()
    for contest in drawn:
        board.add(contest, compare(contest))
    confident = [(round(chance, 6), worth) for chance, worth in board.confident]
    return cell, board.summary() | {"confident": confident}


def _chosen(cell: Cell) -> Recorded:
    def lines(name: str) -> list[bytes]:
        return (Path(cell.world) / f"{name}.jsonl").read_bytes().splitlines()

    if (Path(cell.world) / "votes.jsonl").exists():
        return read_votes(lines("answers"), lines("votes"), lines("human"))
    data = read_scores(lines("answers"), lines("judgments"))
    judges = data.judges[: cell.peers]
    count = 0 if cell.attack == "none" else int(cell.attack)
    liars = Random(cell.seed).sample(judges, count) if cell.seed else judges[:count]
    return select(data, cell.rounds, judges, liars)


def played(cells: Sequence[Cell], processes: int) -> dict[Cell, dict[str, Any]]:
    """Every cell, from those kept where there are such."""
    code = _fingerprint()
    found = _kept(code)
    left = [cell for cell in dict.fromkeys(cells) if cell not in found]
    if not left:
        return found
    # The long ones first, so that no process is left with one at the end.
    left.sort(key=lambda cell: -cell.rounds * (cell.peers + int(cell.attack.startswith("sybil"))))
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    # spawn: a forked process could inherit a lock of the numeric library's threads.
    with get_context("spawn").Pool(processes) as pool, KEPT.open("a") as file:
        for number, (cell, summary) in enumerate(pool.imap_unordered(play, left), 1):
            found[cell] = summary
            line = {"code": code, "cell": asdict(cell), "summary": summary}
            file.write(json.dumps(line) + "\n")
            file.flush()
            _report(number, len(left), began)
    return found


def _kept(code: str) -> dict[Cell, dict[str, Any]]:
    if not KEPT.exists():
        return {}
    found = {}
    for line in KEPT.read_text().splitlines():
        try:
            kept = json.loads(line)
        except ValueError:
            continue  # stopped while it was written
        if kept["code"] == code:
            found[Cell(**kept["cell"])] = kept["summary"]
    return found


def _fingerprint() -> str:
    whole = sha256()
    for file in sorted((ROOT / "swarm").rglob("*.py")):
        whole.update(file.read_bytes())
    return whole.hexdigest()[:16]


def _report(done: int, total: int, began: float) -> None:
    left = (time.monotonic() - began) / done * (total - done)
    start, end = ("\r", "") if sys.stderr.isatty() and done < total else ("", "\n")
    if end == "" or done % 10 == 0 or done == total:
        print(
            f"{start}{done} of {total}, {left:.0f} s left  ", end=end, file=sys.stderr, flush=True
        )


def main() -> int:
    """Play, print, judge."""
    parser = argparse.ArgumentParser(prog="scripts/figures")
    parser.add_argument(
        "--quick", action="store_true", help="few rounds; missed is what misses by two errors"
    )
    data = os.environ.get("SWARM_EVALDATA")
    parser.add_argument(
        "--data", type=Path, default=data, metavar="DIR", help="recorded data (SWARM_EVALDATA)"
    )
    parser.add_argument(
        "--pictures", type=Path, metavar="DIR", help="draw hostile.svg and reliability.svg there"
    )
    parser.add_argument("--processes", type=int, choices=(1, 2), default=2, help="(2)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if options.pictures:
        draw_pictures(options.pictures, options.processes)
        return 0
    table = rows(options.quick, options.data)
    found = played([cell for row in table for cell in row.cells], options.processes)
    lines, missed = [], 0
    for row in table:
        summaries = [found[cell] for cell in row.cells]
        value, spread = row.measure(summaries)
        slack = 2 * spread + (3.0 if row.measure is error else 0.0) if options.quick else 0.0
        holds = row.target is None or (
            value <= row.target + slack if row.at_most else value >= row.target - slack - 1e-9
        )
        missed += not holds
        lines.append(
            {
                "figure": row.title,
                "value": value,
                "ci95": 1.96 * spread,
                "target": row.target,
                "at_most": row.at_most,
                "holds": holds,
                "error_correlation": _mean(one["error_correlation"] for one in summaries),
            }
        )
    print(json.dumps(lines) if options.json else _markdown(lines))
    if not options.data:
        print("figures: no recorded data; name its directory with --data", file=sys.stderr)
    return 1 if missed else 0


def draw_pictures(directory: Path, processes: int) -> None:
    """Accuracy against the hostile fraction for three ways to weigh judges, and reliability."""
    swarms = {
        (attack, part): [
            Cell("online", "A", 20, 6, 480, seed, f"{attack}:{part}" if part else "none")
            for seed in SWARM_SEEDS
        ]
        for attack in PICTURED
        for part in PARTS
    }
    long = [Cell("online", "A", 20, 6, 2400, seed) for seed in SWARM_SEEDS]
    found = played([*(cell for cells in swarms.values() for cell in cells), *long], processes)
    panels = [
        Panel(
            title,
            {
                name: [
                    (part, accuracy(rule)([found[cell] for cell in swarms[attack, part]])[0] / 100)
                    for part in PARTS
                ]
                for rule, name in WEIGHTS.items()
            },
            "hostile part of the swarm",
            PARTS[-1],
        )
        for attack, title in PICTURED.items()
    ]
    (directory / "hostile.svg").write_text(draw(panels, "right answers"))
    pairs = sorted(pair for cell in long for pair in map(tuple, found[cell]["confident"]))
    size = len(pairs) / BINS
    bins = [pairs[round(size * place) : round(size * (place + 1))] for place in range(BINS)]
    points = [tuple(sum(column) / len(one) for column in zip(*one, strict=True)) for one in bins]
    panel = Panel(
        f"{len(pairs)} answers in ten bins",
        {"consensus": points},
        "stated confidence",
        1.0,
        True,
        4,
    )
    (directory / "reliability.svg").write_text(draw([panel], "right answers"))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _markdown(lines: Sequence[dict[str, Any]]) -> str:
    text = [
        "| figure | target | measured, ± 95 % | errors correlate by | |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in lines:
        bound = "≤" if one["at_most"] else "≥"
        target = "" if one["target"] is None else f"{bound} {one['target']:g}"
        spread = f" ± {one['ci95']:.1f}" if one["ci95"] else ""
        correlation = one["error_correlation"]
        text.append(
            f"| {one['figure']} | {target} | {one['value']:.1f}{spread} | "
            f"{'' if correlation is None else f'{correlation:.2f}'} | "
            f"{'' if one['target'] is None else 'holds' if one['holds'] else '**missed**'} |"
        )
    return "\n".join(text)


if __name__ == "__main__":
    sys.exit(main())
