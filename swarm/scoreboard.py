"""What a comparison of rules amounts to: accuracies, paired differences, honesty of the confidence.

Accuracies have Wilson's interval (1927) where answers are right or wrong, and a normal one where
they are worth something in between. Differences are paired by round. Intervals are of 95 %.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

import numpy as np

from swarm.rules import Contest, Outcome

ROWS: Final = (
    "best-single", "plurality", "weighted-plurality", "uniform-bt", "agreement-bt",
    "calibrated-bt", "consensus", "consensus-own.3", "oracle",
)  # fmt: skip
"""The rules, in the order of the table."""
BINS: Final = 10
SURE: Final = 0.9
_Z: Final = 1.959964
_SHARES: Final = frozenset({0.0, 1.0})


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean paired difference and its 95 % interval."""

    mean: float
    se: float

    @property
    def low(self) -> float:
        """The lower end of its interval."""
        return self.mean - _Z * self.se

    @property
    def high(self) -> float:
        """The upper end of its interval."""
        return self.mean + _Z * self.se


class Scoreboard:
    """Takes the outcomes of contests one by one.

    Attributes:
        rounds: contests so far.
        confident: (confidence, worth of the answer) where there was a confidence.
    """

    def __init__(self) -> None:
        self.rounds = 0
        self.confident: list[tuple[float, float]] = []
        self._values: defaultdict[str, list[float]] = defaultdict(list)
        self._singles: list[tuple[float, ...]] = []
        self._ends: defaultdict[str, int] = defaultdict(int)
        self._bouts = 0
        self._graded = False
        self._errors: list[tuple[int, float, float]] = []

    def add(self, contest: Contest, outcome: Outcome) -> None:
        """One more contest."""
        self.rounds += 1
        for name, value in outcome.values.items():
            self._values[name].append(value)
        self._singles.append(outcome.singles)
        if outcome.confident is not None:
            self.confident.append(outcome.confident)
        self._ends[outcome.result.outcome] += 1
        self._bouts += outcome.bouts
        self._graded = self._graded or not _SHARES.issuperset(contest.worth)
        self._errors += _errors(contest)

    def values(self, rule: str) -> list[float]:
        """Worth of what a rule picked, by contest."""
        if rule == "best-single":
            columns = np.array(self._singles)
            best: list[float] = columns[:, columns.mean(axis=0).argmax()].tolist()
            return best
        return self._values[rule]

    def difference(self, rule: str, other: str) -> Difference:
        """How much more than the other a rule is right."""
        gain = np.array(self.values(rule)) - np.array(self.values(other))
        return Difference(float(gain.mean()), _standard_error(gain.tolist()))

    def summary(self) -> dict[str, Any]:
        """All of it, as JSON has it. There is one contest at least."""
        return {
            "rules": {rule: self._row(rule) for rule in ROWS},
            "paired": {
                other: _interval(self.difference("consensus", other))
                for other in ROWS
                if other not in ("consensus", "oracle")
            },
            "ece": calibration_error(self.confident),
            "p_at_least_90": sure_answers(self.confident),
            "rounds": self.rounds,
            "comparisons": self._bouts / self.rounds,
            "error_correlation": _correlation(self._errors),
            "outcomes": {end: count / self.rounds for end, count in sorted(self._ends.items())},
        }

    def _row(self, rule: str) -> dict[str, float]:
        values = self.values(rule)
        mean = float(np.mean(values))
        error = _standard_error(values)
        low, high = (
            (mean - _Z * error, mean + _Z * error) if self._graded else wilson(mean, len(values))
        )
        return {"accuracy": mean, "se": error, "low": low, "high": high}


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion."""
    spread = _Z * sqrt(share * (1.0 - share) / count + _Z**2 / (4.0 * count**2))
    scale = 1.0 + _Z**2 / count
    middle = share + _Z**2 / (2.0 * count)
    low, high = (middle - spread) / scale, (middle + spread) / scale
    return max(0.0, min(low, share)), min(1.0, max(high, share))


def calibration_error(confident: Sequence[tuple[float, float]]) -> float | None:
    """Expected calibration error over ten bins of equal mass; None without any confidence."""
    if not confident:
        return None
    ordered = np.array(sorted(confident, key=lambda one: one[0]))
    bins = np.array_split(ordered, min(BINS, len(ordered)))
    return float(
        sum(len(one) * abs(one[:, 0].mean() - one[:, 1].mean()) for one in bins) / len(ordered)
    )


def sure_answers(confident: Sequence[tuple[float, float]]) -> dict[str, float | None]:
    """Of the answers with a confidence of ``SURE`` or more: their share, and how many are right."""
    sure = [worth for chance, worth in confident if chance >= SURE]
    return {
        "share": len(sure) / len(confident) if confident else None,
        "accuracy": float(np.mean(sure)) if sure else None,
    }


def _interval(gain: Difference) -> dict[str, float]:
    return {"difference": gain.mean, "se": gain.se, "low": gain.low, "high": gain.high}


def _standard_error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) / sqrt(len(values)) if len(values) > 1 else 0.0


def _errors(contest: Contest) -> list[tuple[int, float, float]]:
    """For each pair of classes of which one is better: its judges, and their errors' sums.

    Returns:
        Rows of (judges, sum of errors, sum of squared errors); a judge's error is the share of
        its verdicts on the pair that picked the worse.
    """
    of = {seat: index for index, members in enumerate(contest.case.classes) for seat in members}
    found: defaultdict[tuple[int, int], dict[int, list[float]]] = defaultdict(dict)
    bouts = contest.bouts
    for first, second, judge, outcome in zip(
        bouts.first.tolist(), bouts.second.tolist(), bouts.judge.tolist(),
        bouts.outcome.tolist(), strict=True,
    ):  # fmt: skip
        left, right = of[first], of[second]
        gap = contest.worth[left] - contest.worth[right]
        if gap:
            error = 1.0 - outcome if gap > 0 else outcome
            pair = (min(left, right), max(left, right))
            found[pair].setdefault(judge, []).append(error)
    rows = []
    for judges in found.values():
        errors = [sum(each) / len(each) for each in judges.values()]
        rows.append((len(errors), sum(errors), sum(error * error for error in errors)))
    return rows


def _correlation(errors: Sequence[tuple[int, float, float]]) -> float | None:
    """Correlation of two judges' errors on the same pair; None where no two judged one."""
    if not errors:
        return None
    judges, total, squares = np.array(errors).T
    mean = total.sum() / judges.sum()
    own = squares - 2.0 * mean * total + judges * mean**2
    cross = ((total - judges * mean) ** 2 - own).sum()
    couples = (judges * (judges - 1.0)).sum()
    variance = own.sum() / judges.sum()
    return float(cross / couples / variance) if couples and variance else None
