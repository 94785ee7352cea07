"""What the rules do on a kind of question that calibration has never met.

For each task family the book is written anew from the same trials without the family's, topics are
learnt without it, and its held-out questions are decided again from their receipts: the same
answers and ballots, other evidence.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

from node.store import DATABASE
from protocol.codec import decode
from protocol.messages import MICRO
from protocol.receipt import read
from swarm.bradley_terry import Comparisons, fit
from swarm.consensus import Case, decide, rule_in_force
from swarm.evidence import Book
from swarm.replay import fold
from swarm.reputation import weigh
from swarm.topics import Topics
from swarm.trial import Trial


def left_out(answers: Path, asker: Path) -> dict[str, dict[str, float]]:
    """Accuracy without the family, of the consensus and of uniform Bradley-Terry.

    Args:
        answers: what `scripts/evaluate` wrote.
        asker: data directory of the daemon that asked.

    Returns:
        By family, and for "all" together.
    """
    trials = _trials(asker)
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    found: dict[str, dict[str, float]] = {}
    everything: list[tuple[float, float, bool]] = []
    for family in sorted({row["family"] for row in rows}):
        rest = [one for one in trials if one.task.partition("/")[0] != family]
        book, topics = Book(rest), Topics.learnt(without={family})
        results = [
            _decided(Path(row["receipt"]), row, book, topics)
            for row in rows
            if row["family"] == family
        ]
        found[family] = _summary(results)
        everything += results
    found["all"] = _summary(everything)
    return found


def _trials(asker: Path) -> list[Trial]:
    database = sqlite3.connect(f"file:{asker / DATABASE}?mode=ro", uri=True)
    try:
        bodies = database.execute("SELECT body FROM trials ORDER BY number").fetchall()
    finally:
        database.close()
    return [decode(body, Trial) for (body,) in bodies]


def _decided(
    receipt: Path, row: dict[str, Any], book: Book, topics: Topics
) -> tuple[float, float, bool]:
    """Whether the consensus, and uniform Bradley-Terry, are right; whether the topic is unknown."""
    file, core, opening = read(receipt.read_bytes())
    if opening is None:
        raise SystemExit(f"{receipt} has no texts")
    again = fold(core, opening, file.core.signer)
    if again.opened is None:
        raise SystemExit(f"{receipt} has no answers")
    right = [good > 0.0 for good in row["classes"]]
    topic = topics.topic(row["question"]) or ""
    planned, seats = book.rule(topic, again.opened.peers)
    rule = rule_in_force(planned, seats)
    case = replace(again.case(), rule=rule, weights=weigh(rule.name, seats))
    winner = decide(case).winner
    return float(winner is not None and right[winner]), _uniform(case, right), not topic


def _uniform(case: Case, right: list[bool]) -> float:
    rows = [
        (vote.row.first, vote.row.second, 0.0, vote.row.p / MICRO, 0.5)
        for vote in case.votes
        if vote.row.p is not None
    ]
    scores = fit(len(case.classes), Comparisons.of(rows)).strengths
    best = scores.max()
    level = [good for good, score in zip(right, scores, strict=True) if score >= best - 1e-9]
    return sum(level) / len(level)


def _summary(results: list[tuple[float, float, bool]]) -> dict[str, float]:
    gains = [one - other for one, other, _ in results]
    spread = statistics.stdev(gains) / sqrt(len(gains)) if len(gains) > 1 else 0.0
    return {
        "accuracy": statistics.fmean(one for one, _, _ in results),
        "uniform": statistics.fmean(other for _, other, _ in results),
        "difference": statistics.fmean(gains),
        "ci95": 1.96 * spread,
        "unknown": statistics.fmean(unknown for _, _, unknown in results),
    }
