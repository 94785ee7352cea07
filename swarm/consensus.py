"""From verdicts to a decision.

Two rules share one path. ``weighted`` combines votes, Bradley–Terry strength and the
single-truth evidence of every verdict, weighted by calibrated reputation. ``uncalibrated``,
while nobody is proven, is the Bradley–Terry strength alone (theta = 0, 1, 0) with equal weights:
uniform weights in the full rule are measurably worse. Inputs are integers of 1e-6 in sorted
order and the fit converges far below that before its scores are rounded, so equal messages give
equal results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
from msgspec import structs

from protocol.messages import MICRO, Row
from protocol.receipt import Outcome, Result, Rule, Standing, Weight
from swarm.bradley_terry import Comparisons, fit
from swarm.reputation import Counts, weights

UNCALIBRATED = Rule("uncalibrated", (0, MICRO, 0), (-MICRO, 0), 0, None)
DEFAULT_WEIGHTED = Rule("weighted", (250_000, 600_000, 300_000), (-MICRO, 0), 0, None)
CONFIDENCE_ROUNDS = 30
"""Calibration rounds below which no confidence is printed."""
NO_MARGIN = 10
"""A margin under 1e-5 could differ between platforms: no consensus."""

_OWN, _NEUTRAL = 2.2, 0.9
_EVIDENCE_ROWS = 30.0


@dataclass(frozen=True, slots=True)
class Vote:
    """A verdict and the seat of the judge who gave it."""

    seat: int
    row: Row


@dataclass(frozen=True, slots=True)
class Case:
    """All that a decision depends on.

    Attributes:
        rule: how to combine.
        classes: members (seats) of each class.
        weights: of each seat.
        votes: verdicts, in any order.
        both_orders: each pair was judged in both orders, so a record counts half.
    """

    rule: Rule
    classes: tuple[tuple[int, ...], ...]
    weights: tuple[Weight, ...]
    votes: tuple[Vote, ...]
    both_orders: bool


def rule_for(standings: Sequence[Standing], weighted: Rule = DEFAULT_WEIGHTED) -> Rule:
    """The rule that the evidence allows: ``weighted`` once somebody is proven."""
    return weighted if weights([counts(one) for one in standings]).proven else UNCALIBRATED


def rule_in_force(planned: Rule, seats: Sequence[Standing]) -> Rule:
    """The rule for those who took their seats: the planned one only if one of them is proven.

    The proven may all have declined, and the weighted rule with equal weights is measurably
    worse than the uncalibrated one.
    """
    return structs.replace(rule_for(seats, planned), stop=planned.stop)


def counts(standing: Standing) -> Counts:
    """Calibration counts from their integer form."""
    return Counts(
        standing.judge_right / MICRO,
        standing.judge_pairs / MICRO,
        standing.answer_right / MICRO,
        standing.answer_total / MICRO,
    )


def seat_weights(standings: Sequence[Standing]) -> tuple[Weight, ...]:
    """The weights that follow from the counts of the seats of a roster."""
    found = weights([counts(one) for one in standings])
    return tuple(
        Weight(round(judge * MICRO), round(answer * MICRO))
        for judge, answer in zip(found.judge, found.answer, strict=True)
    )


def decide(case: Case) -> Result:
    """The result of a round in which judging took place (or there was nothing to compare)."""
    scores = _scores(case)
    equal = Case(
        case.rule,
        case.classes,
        tuple(Weight(MICRO, MICRO) for _ in case.weights),
        case.votes,
        case.both_orders,
    )
    shares = _softmax(scores)
    winner, margin = _leader(scores)
    sizes = Counter({index: len(members) for index, members in enumerate(case.classes)})
    plurality, _ = _leader([sizes[index] * MICRO for index in range(len(case.classes))])
    unweighted = winner if _all_equal(case.weights) else _leader(_scores(equal))[0]
    outcome: Outcome = "answer" if winner is not None else "no-consensus"
    confidence = None
    if winner is not None and case.rule.calibration_rounds >= CONFIDENCE_ROUNDS:
        none = _none_right(case)
        confidence = round(shares[winner] * (1.0 - none))
        if none * MICRO > confidence:
            outcome = "none-right"
    return Result(
        outcome, winner, tuple(scores), tuple(shares), confidence, plurality, unweighted, margin
    )


def without_winner(outcome: Outcome) -> Result:
    """The result of a round that ended before it was judged, or was cut short."""
    return Result(outcome, None, (), (), None, None, None, 0)


def _all_equal(seats: Sequence[Weight]) -> bool:
    return len({(one.judge, one.answer) for one in seats}) <= 1


def _leader(scores: Sequence[int]) -> tuple[int | None, int]:
    """The class that leads, None where the margin is too small, and the margin."""
    if not scores:
        return None, 0
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    if len(order) == 1:
        return order[0], 0
    margin = scores[order[0]] - scores[order[1]]
    return (order[0] if margin >= NO_MARGIN else None), margin


def _softmax(scores: Sequence[int]) -> list[int]:
    top = max(scores, default=0)
    mass = [exp((score - top) / MICRO) for score in scores]
    return [round(MICRO * one / sum(mass)) for one in mass]


def _none_right(case: Case) -> float:
    """P(no class is right): logistic in the number of classes per answerer."""
    constant, slope = case.rule.none
    answerers = sum(len(members) for members in case.classes)
    logit = (constant + slope * len(case.classes) / answerers) / MICRO
    return 1.0 / (1.0 + exp(-logit))


def _scores(case: Case) -> list[int]:
    """theta · (votes, strength, evidence) of each class, in 1e-6."""
    count = len(case.classes)
    own = {seat: index for index, members in enumerate(case.classes) for seat in members}
    half = 0.5 if case.both_orders else 1.0
    rows: list[tuple[int, int, float, float, float]] = []
    evidence = [0.0] * count
    votes = sorted(case.votes, key=_order)
    for vote in votes:
        row = vote.row
        if row.p is None:
            continue
        weight = half * case.weights[vote.seat].judge / MICRO
        mine = own.get(vote.seat)
        bias = float(mine == row.first) - float(mine == row.second)
        rows.append((row.first, row.second, bias, row.p / MICRO, weight))
        if case.rule.theta[2]:
            _add_evidence(evidence, row, mine, weight)
    strengths = fit(count, Comparisons.of(rows)).strengths if rows else np.zeros(count)
    damping = sqrt(max(1.0, len(rows) * half / _EVIDENCE_ROWS))
    theta = case.rule.theta
    scores = []
    for index, members in enumerate(case.classes):
        support = sum(case.weights[seat].answer for seat in members) / MICRO
        value = theta[0] * support + theta[1] * float(strengths[index])
        scores.append(round(value + theta[2] * evidence[index] / damping))
    return scores


def _order(vote: Vote) -> tuple[int, int, int, int]:
    row = vote.row
    return vote.seat, row.first, row.second, -1 if row.p is None else row.p


def _add_evidence(evidence: list[float], row: Row, mine: int | None, weight: float) -> None:
    """Single-truth Bayes: how likely this verdict is if the winner, or the loser, is right.

    A verdict against the judge's own answer is strong evidence, one for it weak.
    """
    assert row.p is not None
    decided = abs(2.0 * row.p / MICRO - 1.0)
    winner, loser = (row.first, row.second) if 2 * row.p > MICRO else (row.second, row.first)
    if mine == winner:
        if_winner, if_loser, baseline = _sigmoid(_OWN), 0.5, _sigmoid(_NEUTRAL)
    elif mine == loser:
        if_winner, if_loser, baseline = 0.5, _sigmoid(_OWN), 1.0 - _sigmoid(_NEUTRAL)
    else:
        if_winner = if_loser = _sigmoid(_NEUTRAL)
        baseline = 0.5
    evidence[winner] += weight * decided * log(if_winner / baseline)
    evidence[loser] += weight * decided * log((1.0 - if_loser) / baseline)


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + exp(-x))
