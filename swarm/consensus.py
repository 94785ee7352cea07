"""From verdicts to a decision.

Three rules share one path. ``weighted`` combines votes, Bradley–Terry strength and the
single-truth evidence of every pick, weighted by calibrated reputation. ``equal``, where the
evidence does not reach the topic, is the Bradley–Terry strength alone over what the admitted
say, each believed as far as its record allows. ``uncalibrated``, while nobody is proven, is the
same with every word taken as it is: uniform weights in the full rule are measurably worse.
Inputs are integers of 1e-6 in sorted order and the fit converges far below that before its
scores are rounded, so equal messages give equal results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, log, sqrt

import msgspec

from protocol.messages import MICRO, Row
from protocol.receipt import Outcome, Result, Rule, Standing, Weight
from swarm.bradley_terry import Comparisons, Fit, Floats, fit
from swarm.reputation import NEUTRAL, confidence_bin, is_known, is_proven

UNCALIBRATED = Rule("uncalibrated", (0, MICRO, 0), (-MICRO, 0), MICRO, 0, None)
EQUAL = Rule("equal", (0, MICRO, 0), (-MICRO, 0), MICRO, 0, None)
DEFAULT_WEIGHTED = Rule("weighted", (250_000, 600_000, 300_000), (-MICRO, 0), MICRO, 0, None)
CONFIDENCE_ROUNDS = 30
"""Calibration rounds below which no confidence is printed."""
QUORUM = 4
"""Admitted seats (all that were not found out, where there are fewer) for reputation to decide."""
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
        weights: of each seat, see :func:`swarm.reputation.weigh`.
        votes: verdicts, in any order.
        both_orders: each pair was judged in both orders, so a record counts half.
    """

    rule: Rule
    classes: tuple[tuple[int, ...], ...]
    weights: tuple[Weight, ...]
    votes: tuple[Vote, ...]
    both_orders: bool


@dataclass(frozen=True, slots=True)
class Features:
    """What is known of one class.

    Attributes:
        votes: summed weight of those who gave the answer.
        strength: Bradley–Terry, in logits.
        evidence: of the verdicts if exactly one class is right, in damped logits.
    """

    votes: float
    strength: float
    evidence: float


def has_quorum(seats: Sequence[Standing]) -> bool:
    """Whether enough of the seats are admitted to decide by what is known of them.

    Two or three of many would decide nearly alone, which is measurably worse than asking all
    alike. Who has been found out is not counted among the many: else a few liars in a small swarm
    would keep themselves unweighed.
    """
    admitted = sum(one.admitted for one in seats)
    honest = admitted + sum(not is_known(one) for one in seats)
    return 0 < admitted >= max(min(2, len(seats)), min(QUORUM, honest))


def rule_in_force(planned: Rule, seats: Sequence[Standing]) -> Rule:
    """The rule for those who took their seats: the planned one if their evidence allows it.

    The proven may all have declined, and the weighted rule with equal weights is measurably
    worse than the others.
    """
    if not has_quorum(seats):
        kept = UNCALIBRATED
    elif planned.name == "equal" or (planned.name == "weighted" and any(map(is_proven, seats))):
        return planned
    else:
        kept = EQUAL
    # What the plan calls confident was meant of another rule's probability.
    stop = planned.stop if planned.name == kept.name else None
    return msgspec.structs.replace(kept, stop=stop)


def decide(case: Case) -> Result:
    """The result of a round in which judging took place (or there was nothing to compare)."""
    scores = _scores(case)
    shares = _softmax(scores)
    winner, margin = _leader(scores)
    sizes = [len(members) * MICRO for members in case.classes]
    equal = replace(case, weights=(NEUTRAL,) * len(case.weights))
    same = all(weight == case.weights[0] for weight in case.weights)
    unweighted = winner if same else _leader(_scores(equal))[0]
    outcome: Outcome = "answer" if winner is not None else "no-consensus"
    confidence = None
    if winner is not None and case.rule.calibration_rounds >= CONFIDENCE_ROUNDS:
        none, *chances = _softmax([_none_right(case), *scores])
        confidence = chances[winner]
        if none > confidence:
            outcome = "none-right"
    return Result(
        outcome,
        winner,
        tuple(scores),
        tuple(shares),
        confidence,
        _leader(sizes)[0],
        unweighted,
        margin,
    )


def without_winner(outcome: Outcome) -> Result:
    """The result of a round that ended before it was judged, or was cut short."""
    return Result(outcome, None, (), (), None, None, None, 0)


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


def _none_right(case: Case) -> int:
    """Score of "no class is right": linear in the number of classes per answerer."""
    constant, slope = case.rule.none
    answerers = sum(len(members) for members in case.classes)
    return round(constant + slope * len(case.classes) / answerers)


def features(case: Case) -> tuple[Features, ...]:
    """What the verdicts, as this rule reads them, say of each class."""
    rows, evidence = _read(case)
    strengths = _fit(case, rows).strengths
    half = 0.5 if case.both_orders else 1.0
    # By weight: or strangers who cannot tell would thin out what the proven have said.
    verdicts = sum(min(half, weight) for *_, weight in rows)
    damping = sqrt(max(1.0, verdicts / _EVIDENCE_ROWS))
    return tuple(
        Features(
            sum(case.weights[seat].answer for seat in members) / MICRO,
            float(strengths[index]),
            evidence[index] / damping,
        )
        for index, members in enumerate(case.classes)
    )


def uncertainty(case: Case) -> Floats:
    """Covariance of the strengths after these verdicts, in squared logits (Laplace's method)."""
    return _fit(case, _read(case)[0]).covariance()


_Rows = list[tuple[int, int, float, float, float]]


def _fit(case: Case, rows: _Rows) -> Fit:
    return fit(len(case.classes), Comparisons.of(rows))


def _read(case: Case) -> tuple[_Rows, list[float]]:
    """The verdicts as rows of :class:`Comparisons`, and the evidence of each class."""
    own = {seat: index for index, members in enumerate(case.classes) for seat in members}
    half = 0.5 if case.both_orders else 1.0
    rows: _Rows = []
    evidence = [0.0] * len(case.classes)
    for vote in sorted(case.votes, key=_order):
        row = vote.row
        if row.p is None:
            continue
        outcome, weight = _reading(case.rule, row.p, case.weights[vote.seat])
        weight *= half
        mine = own.get(vote.seat)
        bias = float(mine == row.first) - float(mine == row.second)
        if bias:
            weight *= case.rule.own / MICRO
        rows.append((row.first, row.second, bias, outcome, weight))
        if case.rule.name == "weighted" and outcome != 0.5:
            pair = (row.first, row.second) if outcome else (row.second, row.first)
            _add_evidence(evidence, *pair, mine, weight)
    return rows, evidence


def _reading(rule: Rule, p: int, weight: Weight) -> tuple[float, float]:
    """What a verdict counts as: P(first is right), and its weight.

    The weighted rule takes the pick alone, since what the stated probability was worth is in
    the weight already. The others take the probability, as far as the judge is believed.
    """
    place = confidence_bin(p)
    if rule.name == "weighted":
        pick = 0.5 if 2 * p == MICRO else float(2 * p > MICRO)
        return pick, weight.judge[place] / MICRO
    trust = weight.trust[place] / MICRO
    return 0.5 + (p / MICRO - 0.5) * trust, weight.judge[place] / MICRO


def _scores(case: Case) -> list[int]:
    """theta · features of each class, in 1e-6."""
    votes, strength, evidence = case.rule.theta
    return [
        round(votes * one.votes + strength * one.strength + evidence * one.evidence)
        for one in features(case)
    ]


def _order(vote: Vote) -> tuple[int, int, int, int]:
    row = vote.row
    return vote.seat, row.first, row.second, -1 if row.p is None else row.p


def _add_evidence(
    evidence: list[float], winner: int, loser: int, mine: int | None, weight: float
) -> None:
    """Single-truth Bayes: how likely this pick is if the winner, or the loser, is right.

    A verdict against the judge's own answer is strong evidence, one for it weak.
    """
    if mine == winner:
        if_winner, if_loser, baseline = _sigmoid(_OWN), 0.5, _sigmoid(_NEUTRAL)
    elif mine == loser:
        if_winner, if_loser, baseline = 0.5, _sigmoid(_OWN), 1.0 - _sigmoid(_NEUTRAL)
    else:
        if_winner = if_loser = _sigmoid(_NEUTRAL)
        baseline = 0.5
    evidence[winner] += weight * log(if_winner / baseline)
    evidence[loser] += weight * log((1.0 - if_loser) / baseline)


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + exp(-x))
