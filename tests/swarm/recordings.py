"""Small recorded data sets, made up: able, poor and lying judges of known answers."""

from __future__ import annotations

import json
from random import Random
from typing import Any

ANSWERING = ("ada", "bob", "cyd", "dan")
WATCHING = ("eve", "fay", "gil", "hal")
Rows = list[dict[str, Any]]


def scores(
    questions: int = 60, seed: int = 1, poor: tuple[str, ...] = (), mode: str = "triple"
) -> tuple[Rows, Rows]:
    """``answers.jsonl`` and ``judgments.jsonl``: answers right on 60 %, judges on 95 (poor: 50)."""
    draw = Random(seed)
    answers: Rows = []
    judgments: Rows = []
    for number in range(questions):
        given = []
        for model in ANSWERING:
            right = draw.random() < 0.6
            final = "42" if right else str(draw.choice((7, 8, 9)))
            given.append({"model": model, "final": final, "correct": int(right)})
        answers.append({"idx": number, "question": "?", "reference": "42", "answers": given})
        for judge in (*ANSWERING, *WATCHING):
            sure = 0.5 if judge in poor else 0.95
            marks = [
                float(one["correct"] == (draw.random() < sure)) + (draw.random() < 0.1)
                for one in given
            ]
            judgments.append({"idx": number, "mode": mode, "judge": judge, "scores": marks})
    return answers, judgments


def votes(questions: int = 20, seed: int = 1, *, orders: int = 2) -> tuple[Rows, Rows, Rows]:
    """``answers.jsonl``, ``votes.jsonl`` and ``human.jsonl``: the earlier the name, the better."""
    draw = Random(seed)
    answers: Rows = []
    cast: Rows = []
    labels: Rows = []
    for number in range(questions):
        answers.append(
            {"question_id": number, "answers": {name: f"{name} on {number}" for name in ANSWERING}}
        )
        for one in ANSWERING:
            for other in ANSWERING:
                if one == other or (orders == 1 and one > other):
                    continue
                better = "first" if one < other else "second"
                worse = "second" if one < other else "first"
                pair = {"question_id": number, "first": one, "second": other}
                for judge in ANSWERING:
                    said = better if draw.random() < 0.8 else draw.choice((worse, "tie"))
                    cast.append(pair | {"judge": judge, "verdict": said})
                labels.append(pair | {"verdict": better if draw.random() < 0.9 else worse})
    return answers, cast, labels


def lines(rows: Rows) -> list[bytes]:
    """As a file has them."""
    return [json.dumps(row).encode() + b"\n" for row in rows]
