"""The measurements behind `scripts/bench`. Each prints what it measures."""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import bench_crowd
import bench_mesh
import bench_state
import numpy as np
import trio

from node.local_swarm import LocalSwarm, Spec
from protocol.errors import SwarmError
from swarm.bradley_terry import Comparisons, fit

QUESTION = "What is 6 * 7?"
WARM_UP = 5


def main() -> int:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(prog="scripts/bench")
    commands = parser.add_subparsers(required=True, metavar="BENCHMARK")
    rounds = commands.add_parser("round", help="what a round costs beyond inference")
    rounds.add_argument("--nodes", type=int, nargs="+", default=[3, 5, 9], metavar="N")
    rounds.add_argument("--rounds", type=int, default=60, metavar="R")
    rounds.add_argument("--json", action="store_true")
    rounds.set_defaults(run=_rounds)
    fits = commands.add_parser("fit", help="one Bradley-Terry fit, beside choix")
    fits.add_argument("--json", action="store_true")
    fits.set_defaults(run=_fits)
    model = commands.add_parser("model", help="tokens and verdicts a second of one model")
    model.add_argument("model", nargs="?", default="bundled:general", metavar="MODEL")
    model.add_argument("--device", default="auto")
    model.add_argument("--tokens", type=int, default=128, metavar="N")
    model.add_argument("--answers", type=int, default=6, metavar="K", help="to judge (6)")
    model.add_argument("--words", type=int, default=1, metavar="W", help="in each answer (1)")
    model.add_argument("--json", action="store_true")
    model.set_defaults(run=_model)
    crowd = commands.add_parser("crowd", help="many nodes, one bootstrap: joining, idling, dying")
    bench_crowd.add_flags(crowd)
    crowd.set_defaults(run=bench_crowd.run)
    bench_mesh.add_options(
        commands.add_parser("mesh", help="round trips a second, beside raw TCP and two rivals")
    )
    bench_state.add_options(
        commands.add_parser("state", help="what the replication of logs costs, and may cost")
    )
    options = parser.parse_args()
    try:
        table = options.run(options)
    except SwarmError as error:
        print(f"bench: {error.user_text()}", file=sys.stderr)
        return error.exit_code
    if options.json:
        print(json.dumps(table))
    return 0


# --- rounds -----------------------------------------------------------------------------------


def _rounds(options: argparse.Namespace) -> list[dict[str, Any]]:
    table = []
    for count in options.nodes:
        row = _measure_rounds(count, options.rounds)
        table.append(row)
        if not options.json:
            _print_row(row, header=len(table) == 1)
    return table


def _measure_rounds(count: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        specs = [Spec(str(_script(root, index)), "scripted") for index in range(count)]
        samples: dict[str, list[float]] = {}
        with LocalSwarm(specs, root) as swarm:
            swarm.start(lambda text: print(f"{count} nodes: {text}", file=sys.stderr))
            asker = swarm.members[0].client
            for number in range(WARM_UP + rounds):
                began = time.perf_counter()
                result = asker.call(
                    "ask", {"question": QUESTION, "min_answers": 1}, silence_s=120.0
                )
                whole = 1000.0 * (time.perf_counter() - began)
                if len(result["answers"]) != count or result["missing"]:
                    raise SystemExit(f"a round failed: {result['missing']}")
                if number >= WARM_UP:
                    samples.setdefault("ask_ms", []).append(whole)
                    # Before the round: the question on disk. After it: the result. The receipt
                    # is written inside, and all is fsynced.
                    outside = whole - result["timing"]["total_ms"]
                    samples.setdefault("outside_ms", []).append(outside)
                    for phase, spent in result["timing"].items():
                        samples.setdefault(phase, []).append(spent)
    return {
        "nodes": count,
        "rounds": rounds,
        **{
            phase: {"median": statistics.median(values), "p95": _quantile(values, 0.95)}
            for phase, values in samples.items()
        },
    }


def _script(root: Path, index: int) -> Path:
    """An instant model with an answer of its own: every round has all pairs to judge."""
    path = root / f"model{index}.json"
    script = {
        "name": f"scripted:{index}",
        "default": str(42 + index),
        "truths": {QUESTION: "42"},
    }
    path.write_text(json.dumps(script))
    return path


def _quantile(values: Sequence[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def _print_row(row: dict[str, Any], header: bool) -> None:
    phases = ("ask_ms", "outside_ms", "commit_ms", "reveal_ms", "judge_ms")
    if header:
        names = ("ask", "disk, socket", "commit", "reveal", "judge")
        print("nodes  " + "  ".join(f"{name + ' ms':>15}" for name in names))
        print("       " + "  ".join(f"{'median / p95':>15}" for _ in names))
    cells = [f"{row[one]['median']:7.1f} /{row[one]['p95']:6.1f}" for one in phases]
    print(f"{row['nodes']:5}  " + "  ".join(f"{cell:>15}" for cell in cells), flush=True)


# --- models -----------------------------------------------------------------------------------


def _model(options: argparse.Namespace) -> dict[str, Any]:
    row: dict[str, Any] = trio.run(_measure_model, options)
    if not options.json:
        for name, value in row.items():
            print(f"{name:24} {value:.4g}" if isinstance(value, float) else f"{name:24} {value}")
    return row


async def _measure_model(options: argparse.Namespace) -> dict[str, Any]:
    from node.backends.base import GenerateRequest, JudgeRequest
    from node.backends.local import LocalBackend
    from protocol.errors import BackendError

    began = time.perf_counter()
    backend = await LocalBackend.load(options.model, device=options.device)
    loaded = time.perf_counter() - began
    request = GenerateRequest(QUESTION, options.tokens, 1 << 14, 0)
    for _ in range(2):  # the first warms up
        began = time.perf_counter()
        try:
            tokens = (await backend.generate(request, lambda text: None)).tokens
        except BackendError:
            tokens = options.tokens  # it was cut there: no answer to a round, but as many tokens
        generating = time.perf_counter() - began

    answers = tuple(" ".join([str(42 + index)] * options.words) for index in range(options.answers))
    pairs = tuple(itertools.permutations(range(options.answers), 2))
    whole = JudgeRequest(QUESTION, answers, pairs, "0123456789abcdef")
    await backend.judge(whole)
    began = time.perf_counter()
    together = await backend.judge(whole)
    batched = time.perf_counter() - began
    began = time.perf_counter()
    apart = [(await backend.judge(replace(whole, pairs=(pair,))))[0] for pair in pairs]
    singly = time.perf_counter() - began
    gaps = [
        abs(a - b) for a, b in zip(together, apart, strict=True) if a is not None and b is not None
    ]
    info = backend.describe()
    await backend.aclose()
    return {
        "model": info.name,
        "device": info.device,
        "parameters": info.parameters,
        "load_s": loaded,
        "tokens": tokens,
        "tokens_per_s": tokens / generating,
        "verdicts": len(pairs),
        "abstentions": sum(verdict is None for verdict in together),
        "verdicts_per_s": len(pairs) / batched,
        "verdicts_per_s_one_by_one": len(pairs) / singly,
        "batching_ratio": singly / batched,
        "largest_difference": max(gaps, default=float("nan")),
        "peak_memory_mib": _peak_memory(),
    }


def _peak_memory() -> float:
    """Of the accelerator where there is one, else of this process; in MiB."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


# --- fits -------------------------------------------------------------------------------------


def _fits(options: argparse.Namespace) -> list[dict[str, Any]]:
    import choix  # the tests' dependency, which the other benchmarks do without

    table = []
    for classes, judges in ((3, 3), (5, 5), (9, 9), (35, 35)):
        data, plain = _comparisons(classes, judges)
        ours = _best(partial(fit, classes, data))
        theirs = _best(partial(choix.ilsr_pairwise, classes, plain, alpha=0.01))
        row = {
            "classes": classes,
            "comparisons": len(data),
            "fit_ms": ours,
            "choix_ilsr_ms": theirs,
            "ratio": theirs / ours,
        }
        table.append(row)
        if not options.json:
            print(
                f"{classes:3} classes {len(data):5} comparisons: {ours:7.3f} ms, "
                f"choix ilsr {theirs:8.3f} ms, {theirs / ours:5.1f} x",
                flush=True,
            )
    return table


def _comparisons(classes: int, judges: int) -> tuple[Comparisons, list[tuple[int, int]]]:
    rng = np.random.default_rng(classes)
    strength = rng.normal(size=classes)
    rows = []
    for judge in range(judges):
        for first in range(classes):
            for second in range(classes):
                if first == second or (classes > 9 and rng.random() > 0.2):
                    continue
                chance = 1.0 / (1.0 + np.exp(strength[second] - strength[first]))
                own = float(first == judge) - float(second == judge)
                rows.append((first, second, own, float(rng.random() < chance), 0.5))
    plain = [(a, b) if y else (b, a) for a, b, _, y, _ in rows]
    return Comparisons.of(rows), plain


def _best(work: Callable[[], object], seconds: float = 0.5) -> float:
    """The fastest of many runs, in ms: what the code costs when nothing interrupts it."""
    work()
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return 1000.0 * best


if __name__ == "__main__":
    sys.exit(main())
