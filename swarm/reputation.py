"""From counts of known-truth calibration to the weight of a judge and of an answerer.

Counts come only from questions whose truth is known; agreement with the consensus never enters
(measured: with half the swarm colluding, agreement weights keep 0 % accuracy, these 82 %).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt

NEWCOMERS_SHARE = 0.1
"""All unproven peers together weigh at most this part of the proven sum."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Evidence about one peer; forgetting makes counts fractional.

    Attributes:
        judge_right, judge_pairs: right picks among pairs with exactly one right answer.
        answer_right, answer_total: right answers among answers given.
    """

    judge_right: float = 0.0
    judge_pairs: float = 0.0
    answer_right: float = 0.0
    answer_total: float = 0.0


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights in the order of the counts they came from.

    Attributes:
        judge, answer: scaled so that the mean of the top half is 1.
        proven: at least one peer has evidence above chance as a judge; otherwise all weigh 1.
    """

    judge: tuple[float, ...]
    answer: tuple[float, ...]
    proven: bool


def _logit(p: float) -> float:
    return log(p / (1.0 - p))


def _clip(p: float) -> float:
    return min(max(p, 0.02), 0.98)


def judge_weight(right: float, pairs: float) -> float:
    """Squared log-odds of the lower confidence bound of pair accuracy; 0 at chance.

    Squared, since the errors of judges correlate (0.4–0.5) and plain log-odds are too flat.
    """
    accuracy = (right + 5.5) / (pairs + 10.0)
    low = _clip(accuracy - sqrt(accuracy * (1.0 - accuracy) / (pairs + 11.0)))
    return max(0.0, _logit(low)) ** 2


def answer_weight(right: float, total: float) -> float:
    """Log-odds of the lower bound of answer accuracy against one right among four wrong."""
    accuracy = (right + 3.0) / (total + 7.0)
    low = _clip(accuracy - sqrt(accuracy * (1.0 - accuracy) / (total + 8.0)))
    return max(0.02, _logit(low) + log(4.0))


def weights(counts: Sequence[Counts]) -> Weights:
    """Weights of peers from their counts; all 1 where nobody is proven."""
    judge = [judge_weight(one.judge_right, one.judge_pairs) for one in counts]
    answer = [answer_weight(one.answer_right, one.answer_total) for one in counts]
    proven = [weight > 0.0 for weight in judge]
    if not any(proven):
        ones = (1.0,) * len(counts)
        return Weights(ones, ones, False)
    return Weights(_scaled(judge, proven), _scaled(answer, proven), True)


def _scaled(raw: Sequence[float], proven: Sequence[bool]) -> tuple[float, ...]:
    """Newcomers capped jointly, then divided by the mean of the top half."""
    trusted = sum(weight for weight, known in zip(raw, proven, strict=True) if known)
    new = sum(weight for weight, known in zip(raw, proven, strict=True) if not known)
    cap = min(1.0, NEWCOMERS_SHARE * trusted / new) if new else 1.0
    capped = [w if known else w * cap for w, known in zip(raw, proven, strict=True)]
    top = sorted(capped, reverse=True)[: max(1, (len(capped) + 1) // 2)]
    mean = sum(top) / len(top)
    return tuple(weight / mean for weight in capped)
