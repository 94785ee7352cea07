"""The evaluation behind `scripts/evaluate`.

Every question goes through the same path as a user's: `ask` on the control socket of a real
daemon, a round among real processes, a receipt. The rules are then compared on the ballots in
the receipts, so that they differ in nothing but the rule.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hostile
from leave_out import left_out

from node.backends.bundled import bundled_names
from node.local_swarm import LocalSwarm, Spec
from protocol.errors import SwarmError
from protocol.messages import MICRO
from protocol.receipt import read
from swarm.bradley_terry import Comparisons, fit
from swarm.calibration.families import FAMILIES, Split, Task, check, sample, wrong
from swarm.consensus import UNCALIBRATED, Case, decide
from swarm.replay import fold
from swarm.reputation import NEUTRAL, weigh
from swarm.scoreboard import calibration_error
from swarm.seeded import Stream

ROOT = Path(__file__).resolve().parent.parent / ".evaluation"
TIMEOUT_S = 60.0
DRAWS = 50
"""Draws for each question, before its family counts as exhausted."""
HOSTILE = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """One question, answered.

    Attributes:
        answers: by model.
        right: chance that each rule is right: 0 or 1, or a share where a rule ties.
        confidence: of the consensus, None where it gave none.
    """

    family: str
    answers: Mapping[str, str]
    right: Mapping[str, float]
    rule: str
    confidence: float | None


def main() -> int:
    """Ask, measure, print."""
    options = _options()
    tasks = _tasks(options.questions, options.seed, options.split)
    out: Path = options.out or ROOT / f"{_name(options)}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    done = _resume(out, tasks)
    if len(done) < len(tasks):
        try:
            _ask(options, tasks, len(done), out)
        except SwarmError as error:
            print(f"evaluate: {error.user_text()}", file=sys.stderr)
            return error.exit_code
        done = _resume(out, tasks)
    table = _table(done)
    if options.leave_out:
        table["left_out"] = left_out(out, out.with_suffix("") / "node0")
    print(json.dumps(table) if options.json else _text(table, done))
    return 0


def _name(options: argparse.Namespace) -> str:
    name = f"n{options.nodes}-{options.split}-c{options.calibrate}-seed{options.seed}"
    if options.hostile:
        name += f"-{options.hostile}" + ("-seen" if options.seen else "")
    return name


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/evaluate")
    parser.add_argument("--questions", type=int, default=330, metavar="N", help="how many (330)")
    parser.add_argument("--nodes", type=int, default=6, metavar="N", help="honest daemons (6)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the questions (1)")
    parser.add_argument(
        "--calibrate", type=int, default=0, metavar="N", help="calibration rounds before them (0)"
    )
    parser.add_argument(
        "--hostile",
        choices=hostile.VICES,
        metavar="VICE",
        help=f"{HOSTILE} more daemons with one of: {', '.join(hostile.VICES)}",
    )
    parser.add_argument(
        "--seen",
        action="store_true",
        help="they take part in the calibration; otherwise they join after it",
    )
    parser.add_argument(
        "--split",
        choices=("test", "calib"),
        default="test",
        help="operands that were never trained on, nor calibrated with: test also chose the "
        "training's step counts; calib chose nothing, but calibration may draw from it (test)",
    )
    parser.add_argument(
        "--learnt",
        type=Path,
        metavar="DIR",
        help="begin with what the daemons of an earlier evaluation learnt: its FILE without suffix",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="answers so far, one a line")
    parser.add_argument(
        "--leave-out",
        action="store_true",
        help="also decide each family's questions as if calibration had never met the family",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if options.questions < 2 or options.nodes < 2:
        parser.error("--questions and --nodes take 2 or more")
    return options


def _tasks(count: int, seed: int, split: Split) -> list[Task]:
    """Distinct held-out tasks, the families in turn."""
    stream = Stream(f"evaluate {seed}".encode())
    tasks: list[Task] = []
    seen: set[tuple[object, ...]] = set()
    names = tuple(FAMILIES)
    for _ in range(DRAWS * count):
        if len(tasks) == count:
            return tasks
        task = sample(stream, split, names[len(tasks) % len(names)])
        if (task.family, *task.key) not in seen:
            seen.add((task.family, *task.key))
            tasks.append(task)
    raise SystemExit(f"there are too few held-out operands for {count} questions; ask fewer")


def _resume(out: Path, tasks: Sequence[Task]) -> list[Measured]:
    if not out.exists():
        return []
    done = []
    for task, line in zip(tasks, out.read_text().splitlines(), strict=False):
        row = json.loads(line)
        if row["question"] != task.question:
            raise SystemExit(f"{out} is of another evaluation; move it away or name another --out.")
        done.append(
            Measured(row["family"], row["answers"], row["right"], row["rule"], row["confidence"])
        )
    return done


def _ask(options: argparse.Namespace, tasks: Sequence[Task], first: int, out: Path) -> None:
    names = bundled_names()
    flags = ("--device=cpu", "--threads=1")
    models = [f"bundled:{names[index % len(names)]}" for index in range(options.nodes)]
    specs = [Spec(model, flags=flags) for model in models]
    root = out.with_suffix("")
    if first == 0 and root.exists():
        shutil.rmtree(root)  # what earlier daemons learnt would count
    if options.learnt and not root.exists():
        shutil.copytree(options.learnt, root)
    root.mkdir(parents=True, exist_ok=True)
    if options.hostile:
        lies = root / "lies.jsonl"
        lies.write_text("".join(json.dumps(_lie(task)) + "\n" for task in tasks))
        program = (sys.executable, hostile.__file__, options.hostile, str(lies))
        specs += [Spec("bundled:mini", program=program, flags=flags)] * HOSTILE
    with LocalSwarm(specs, root) as swarm, out.open("a") as lines:
        honest, others = swarm.members[: options.nodes], swarm.members[options.nodes :]
        asker = honest[0].client
        joined = swarm.members if options.seen else honest
        for member in joined:
            swarm.launch(member)
        swarm.wait(progress=lambda text: print(f"starting: {text}", file=sys.stderr))
        _calibrate(asker, options.calibrate)
        if not options.seen and others:
            for member in others:
                swarm.launch(member)
            swarm.wait(progress=lambda text: print(f"joining: {text}", file=sys.stderr))
        began = time.monotonic()
        for index in range(first, len(tasks)):
            task = tasks[index]
            call = {"question": task.question, "timeout_s": TIMEOUT_S, "min_answers": 2}
            result = asker.call("ask", call, silence_s=2 * TIMEOUT_S)
            # A model may decline (a small one that finds no end to its answer): that is wrong.
            # Anything else that an honest one lacks would measure this machine, not the rules.
            known = {member.peer for member in honest}
            for row in result["missing"]:
                if row["peer"] in known and row["kind"] != "declined":
                    raise SystemExit(f"question {index}: {result['missing']}")
            row = _measure(task, result, models)
            lines.write(json.dumps(row) + "\n")
            lines.flush()
            _progress("", index + 1, first, len(tasks), time.monotonic() - began)


def _lie(task: Task) -> dict[str, str]:
    """A plausible wrong answer on which liars agree."""
    lie = wrong(Stream(task.question.encode()), task)
    return {"question": task.question, "truth": task.answer, "lie": lie}


def _calibrate(asker: Any, rounds: int) -> None:
    """Until so many rounds are known, those of an earlier start included."""
    known = asker.call("capability")["trials"]
    if known >= rounds:
        return
    began = time.monotonic()

    def watch(event: Mapping[str, Any]) -> None:
        if event["kind"] == "calibrated":
            count = known + event["number"]
            _progress("calibration: ", count, known, rounds, time.monotonic() - began)

    asker.call("calibrate", {"rounds": rounds - known}, watch, silence_s=2 * TIMEOUT_S)


def _progress(what: str, count: int, first: int, total: int, seconds: float) -> None:
    left = seconds / (count - first) * (total - count)
    end = "" if sys.stderr.isatty() and count < total else "\n"
    if end == "" or count % 20 == 0 or count == total:
        start = "\r\x1b[2K" if sys.stderr.isatty() else ""
        text = f"{start}{what}{count}/{total}, {left:.0f} s left"
        print(text, end=end, file=sys.stderr, flush=True)


# --- one question -----------------------------------------------------------------------------


def _measure(task: Task, result: Mapping[str, Any], models: Sequence[str]) -> dict[str, Any]:
    answers = {row["model"]: row["answer"] for row in result["answers"]}
    right: dict[str, float] = {
        f"single {model}": float(model in answers and check(task, answers[model]))
        for model in models
    }
    file, core, opening = read(Path(result["receipt"]).read_bytes())
    if opening is None or core.judging is None:
        raise SystemExit(f"the round of {task.question!r} was not judged: {result['outcome']}")
    again = fold(core, opening, file.core.signer)
    if again.opened is None:
        raise SystemExit("a receipt without answers")
    classes = [float(check(task, text)) for text in again.opened.answers]
    case = again.case()
    weights = weigh("weighted", [again.standing(peer) for peer in again.opened.peers])
    votes = [sum(weights[seat].answer for seat in members) for members in case.classes]
    right["weighted vote"] = _chance(votes, classes)
    for name, rule in RULES.items():
        right[name] = _chance(rule(case), classes)
    right["any model right"] = max(classes)
    shown = result["answer"]
    if right["consensus"] != float(shown is not None and check(task, shown)):
        raise SystemExit("the daemon's answer is not what its receipt gives")
    return {
        "question": task.question,
        "truth": task.answer,
        "family": task.family,
        "answers": answers,
        "right": right,
        "rule": result["rule"],
        "confidence": result["confidence"],
        "receipt": result["receipt"],
        "classes": classes,
        "seconds": result["timing"]["total_ms"] / 1000,
    }


def _chance(scores: Sequence[float], right: Sequence[float]) -> float:
    """Chance that the best-scored class is right, equals drawn by lot."""
    best = max(scores)
    if math.isnan(best):
        return 0.0
    winners = [right[index] for index, score in enumerate(scores) if score >= best - 1e-9]
    return sum(winners) / len(winners)


def _plurality(case: Case) -> list[float]:
    return [float(len(members)) for members in case.classes]


def _uniform(case: Case, hard: bool) -> list[float]:
    """Plain Bradley–Terry: every judge the same weight, no own-answer term."""
    rows = []
    for vote in case.votes:
        if vote.row.p is not None:
            p = vote.row.p / MICRO
            won = (1.0 if p > 0.5 else 0.0 if p < 0.5 else 0.5) if hard else p
            rows.append((vote.row.first, vote.row.second, 0.0, won, 0.5))
    return [float(one) for one in fit(len(case.classes), Comparisons.of(rows)).strengths]


def _uncalibrated(case: Case) -> list[float]:
    """The rule in force while nobody is proven."""
    return _consensus(replace(case, rule=UNCALIBRATED, weights=(NEUTRAL,) * len(case.weights)))


def _consensus(case: Case) -> list[float]:
    """The shipped rule; where it finds no consensus it is wrong, not drawn by lot."""
    result = decide(case)
    if result.outcome != "answer":
        return [math.nan] * len(case.classes)
    return [float(index == result.winner) for index in range(len(case.classes))]


RULES: Mapping[str, Callable[[Case], Sequence[float]]] = {
    "plurality": _plurality,
    "uniform Bradley-Terry, hard": lambda case: _uniform(case, hard=True),
    "uniform Bradley-Terry, soft": lambda case: _uniform(case, hard=False),
    "consensus, uncalibrated": _uncalibrated,
    "consensus": _consensus,
}


# --- the table --------------------------------------------------------------------------------


def _table(done: Sequence[Measured]) -> dict[str, Any]:
    singles = [name for name in done[0].right if name.startswith("single ")]
    best = max(singles, key=lambda name: statistics.fmean(one.right[name] for one in done))
    rows: dict[str, dict[str, Any]] = {
        name: _accuracy([one.right[name] for one in done]) for name in done[0].right
    }
    rows = {"best single model": {**rows[best], "model": best.removeprefix("single ")}, **rows}
    gains = {
        name: _accuracy([one.right["consensus"] - one.right[name] for one in done])
        for name in ("plurality", "weighted vote", "uniform Bradley-Terry, soft")
    }
    sure = [(one.confidence, one.right["consensus"]) for one in done if one.confidence is not None]
    return {
        "questions": len(done),
        "families": dict(Counter(one.family for one in done)),
        "decided_by": dict(Counter(one.rule for one in done)),
        "rules": rows,
        "consensus_minus": gains,
        "confidence": _honesty(sure) if sure else None,
    }


def _honesty(sure: Sequence[tuple[float, float]]) -> dict[str, float]:
    """How well the printed confidence is kept."""
    high = [right for confidence, right in sure if confidence >= 0.9]
    return {
        "given": len(sure),
        "ece": calibration_error(sure) or 0.0,
        "share_at_least_90": len(high) / len(sure),
        "right_at_least_90": statistics.fmean(high) if high else math.nan,
    }


def _accuracy(values: Sequence[float]) -> dict[str, Any]:
    """Mean and the half-width of its 95 % interval."""
    spread = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return {"accuracy": statistics.fmean(values), "ci95": 1.96 * spread}


def _text(table: Mapping[str, Any], done: Sequence[Measured]) -> str:
    families = sorted(table["families"])
    head = f"{table['questions']} held-out questions through real daemons, % right (± 95 %)"
    lines = [head, " " * 51 + " ".join(f"{name[:6]:>6}" for name in families)]
    for name, row in table["rules"].items():
        shown = f"{name} ({row['model']})" if "model" in row else name
        key = f"single {row['model']}" if "model" in row else name
        cells = []
        for family in families:
            values = [one.right[key] for one in done if one.family == family]
            cells.append(f"{100 * statistics.fmean(values):6.0f}")
        cell = f"{100 * row['accuracy']:5.1f} ±{100 * row['ci95']:4.1f}"
        lines.append(f"{shown[:38]:38} {cell:>11} " + " ".join(cells))
    for name, gain in table["consensus_minus"].items():
        lines.append(
            f"consensus minus {name}, paired: {100 * gain['accuracy']:+.1f} ± "
            f"{100 * gain['ci95']:.1f}"
        )
    for family, row in table.get("left_out", {}).items():
        lines.append(
            f"without {family:12} {100 * row['accuracy']:5.1f} "
            f"(uniform {100 * row['uniform']:5.1f}, difference {100 * row['difference']:+.1f} "
            f"± {100 * row['ci95']:.1f}); "
            f"{100 * row['unknown']:.0f} % of its questions are of unknown topic"
        )
    sure = table["confidence"]
    if sure:
        lines.append(
            f"confidence given {sure['given']} times, calibration error {100 * sure['ece']:.1f} %; "
            f"at 90 % and more ({100 * sure['share_at_least_90']:.0f} % of them) "
            f"{100 * sure['right_at_least_90']:.1f} % were right"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
