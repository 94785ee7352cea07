"""Can a peer tell calibration from real questions? As well as the best classifier at hand can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Final

import numpy as np

from swarm.calibration.classifier import (
    Bools,
    Floats,
    Ints,
    auc,
    field_kernel,
    learn,
    text_kernel,
)
from swarm.seeded import Stream

FOLDS: Final = 5
ROWS: Final = 6_000
"""Most rows at once: memory and time grow with their square."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a peer sees of one question.

    Attributes:
        text: the question.
        fields: numbers that come with it, the same ones in every row: lengths, budgets, times.
        hidden: whether it was a calibration task, which the peer would like to know.
    """

    text: str
    fields: tuple[float, ...]
    hidden: bool


@dataclass(frozen=True, slots=True)
class Auc:
    """Area under the ROC curve: .5 where nothing can be told.

    Attributes:
        low, high: 95 % interval (Hanley & McNeil 1982).
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Detection:
    """How well each view tells hidden tasks; ``fields`` is None where the rows have none."""

    text: Auc
    fields: Auc | None
    both: Auc


def detect(rows: Sequence[Row], seed: bytes = b"detect") -> Detection:
    """How well calibration can be told from the rest, by five-fold cross-validation.

    Raises:
        ValueError: if there are too many rows, too few of a kind, or their fields differ in
            number or are not finite.
    """
    hidden = np.array([row.hidden for row in rows], dtype=np.bool_)
    if len(rows) > ROWS:
        raise ValueError(f"more than {ROWS:,} rows")
    if min(hidden.sum(), (~hidden).sum()) < FOLDS:
        raise ValueError(f"fewer than {FOLDS} rows of a kind")
    if len({len(row.fields) for row in rows}) > 1:
        raise ValueError("rows differ in their number of fields")
    if not all(isfinite(value) for row in rows for value in row.fields):
        raise ValueError("fields must be finite")
    fold = folds(hidden, seed)
    text = text_kernel([row.text for row in rows])
    seen = _validated(text, hidden, fold)
    if not rows[0].fields:
        return Detection(seen, None, seen)
    fields = field_kernel(np.array([row.fields for row in rows], dtype=np.float64))
    return Detection(
        seen, _validated(fields, hidden, fold), _validated(text + fields, hidden, fold)
    )


def interval(value: float, positives: int, negatives: int) -> Auc:
    """An AUC with its 95 % interval (Hanley & McNeil 1982, equations 1 and 2)."""
    q1, q2 = value / (2.0 - value), 2.0 * value * value / (1.0 + value)
    variance = value * (1.0 - value)
    variance += (positives - 1) * (q1 - value * value) + (negatives - 1) * (q2 - value * value)
    error = 1.96 * sqrt(max(0.0, variance) / (positives * negatives))
    return Auc(value, max(0.0, value - error), min(1.0, value + error))


def folds(hidden: Bools, seed: bytes) -> Ints:
    """A fold for each row, from 0, both kinds spread evenly."""
    stream = Stream(b"folds/" + seed)
    fold = np.empty(len(hidden), dtype=np.int64)
    for kind in (True, False):
        members = [int(at) for at in np.flatnonzero(hidden == kind)]
        stream.shuffle(members)
        fold[members] = np.arange(len(members)) % FOLDS
    return fold


def scores(kernel: Floats, hidden: Bools, fold: Ints) -> Floats:
    """Log-odds of being hidden, each row's from what was learnt from the other folds."""
    found = np.empty(len(hidden))
    for number in range(FOLDS):
        out = fold == number
        learnt = learn(kernel[np.ix_(~out, ~out)], hidden[~out])
        found[out] = learnt.score(kernel[np.ix_(out, ~out)])
    return found


def _validated(kernel: Floats, hidden: Bools, fold: Ints) -> Auc:
    """The mean AUC of the folds."""
    found = scores(kernel, hidden, fold)
    values = [auc(found[fold == number], hidden[fold == number]) for number in range(FOLDS)]
    return interval(float(np.mean(values)), int(hidden.sum()), int((~hidden).sum()))
