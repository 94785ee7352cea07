"""The rules that are compared, over rounds whose truth is known.

Each takes the same answers and verdicts, so they differ in nothing but the rule. ``consensus`` is
:func:`swarm.consensus.decide` on the Case that a live round would build; the others are what it
has to beat. Rules that rank answers see each peer's answer as an item of its own, as such systems
do; the consensus merges equal answers first. What a rule leaves open is decided by lot, which
counts as its expected value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.messages import MICRO
from protocol.receipt import Result
from swarm.bradley_terry import STRENGTH_PRECISION
from swarm.consensus import DEFAULT_WEIGHTED, Case, decide
from swarm.reputation import confidence_bin

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WARY: Final = msgspec.structs.replace(DEFAULT_WEIGHTED, own=300_000)
"""``consensus-own.3``: a verdict on a pair with the judge's own answer counts 0.3."""
_TIED: Final = 1e-9
_STEPS: Final = 100
_STEP_CAP: Final = 3.0
_TOLERANCE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Bouts:
    """M verdicts between two seats' answers, as parallel arrays of length M.

    Attributes:
        first, second, judge: seats.
        outcome: 1 where the first is preferred, 0 where the second is, 0.5 for a tie.
    """

    first: Ints
    second: Ints
    judge: Ints
    outcome: Floats

    def __len__(self) -> int:
        return len(self.judge)


@dataclass(frozen=True, slots=True)
class Contest:
    """A judged round whose truth is known.

    Attributes:
        case: what a live round hands to the consensus.
        wary: the same for the wary variant, whose confidence is fitted apart.
        agreement: weight of each seat by its past agreement with a consensus.
        bouts: the verdicts, answer by answer.
        worth: of each class: 1 right, 0 wrong; between them where people disagree.
        answers: the same of each seat's own answer, for the seats that gave one.
        singles: seats that "best single" chooses from, the same peer at the same place in all.
    """

    case: Case
    wary: Case
    agreement: Floats
    bouts: Bouts
    worth: tuple[float, ...]
    answers: Mapping[int, float]
    singles: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a contest.

    Attributes:
        values: expected worth of what each rule picks.
        singles: worth of the answers of ``Contest.singles``.
        result: of the consensus.
        confident: confidence of the consensus, and 1 where its answer is right (or none better,
            where people disagree), else 0; None while uncalibrated.
        bouts: number of verdicts.
    """

    values: Mapping[str, float]
    singles: tuple[float, ...]
    result: Result
    confident: tuple[float, float] | None
    bouts: int


def compare(contest: Contest) -> Outcome:
    """Apply every rule."""
    result = decide(contest.case)
    values = {name: rule(contest) for name, rule in RULES.items()}
    values["consensus"] = _picked(contest, result)
    confident = None
    if result.winner is not None and result.confidence is not None:
        good = 0.0 < contest.worth[result.winner] == max(contest.worth)
        confident = (result.confidence / MICRO, float(good))
    singles = tuple(contest.answers.get(seat, 0.0) for seat in contest.singles)
    return Outcome(values, singles, result, confident, len(contest.bouts))


# --- the rules --------------------------------------------------------------------------------


def by_lot(scores: Sequence[float], worth: Sequence[float]) -> float:
    """Expected worth of the best scored, equals drawn by lot."""
    best = max(scores)
    level = [value for score, value in zip(scores, worth, strict=True) if score >= best - _TIED]
    return sum(level) / len(level)


def _plurality(contest: Contest) -> float:
    return by_lot([len(members) for members in contest.case.classes], contest.worth)


def _weighted_plurality(contest: Contest) -> float:
    mass = [
        sum(contest.case.weights[seat].answer for seat in members) / MICRO
        for members in contest.case.classes
    ]
    return by_lot(mass, contest.worth)


def _ranked(contest: Contest, weight: Floats) -> float:
    """Bradley–Terry over the seats' answers, each verdict with its weight."""
    order = sorted(contest.answers)
    scores = plain_strengths(order, contest.bouts, weight)
    return by_lot(scores.tolist(), [contest.answers[seat] for seat in order])


def _uniform(contest: Contest) -> float:
    return _ranked(contest, np.ones(len(contest.bouts)))


def _agreement(contest: Contest) -> float:
    return _ranked(contest, contest.agreement[contest.bouts.judge])


def _calibrated(contest: Contest) -> float:
    stated = [confidence_bin(round(MICRO * one)) for one in contest.bouts.outcome.tolist()]
    judges = contest.bouts.judge.tolist()
    each = [
        contest.case.weights[judge].judge[place] / MICRO
        for judge, place in zip(judges, stated, strict=True)
    ]
    return _ranked(contest, np.array(each))


def _wary(contest: Contest) -> float:
    return _picked(contest, decide(contest.wary))


def _picked(contest: Contest, result: Result) -> float:
    """Worth of the winner; by lot among those that are level."""
    if result.winner is not None:
        return contest.worth[result.winner]
    return by_lot([score / MICRO for score in result.scores], contest.worth)


def _oracle(contest: Contest) -> float:
    return max(contest.answers.values())


RULES: Final[Mapping[str, Callable[[Contest], float]]] = {
    "plurality": _plurality,
    "weighted-plurality": _weighted_plurality,
    "uniform-bt": _uniform,
    "agreement-bt": _agreement,
    "calibrated-bt": _calibrated,
    "consensus-own.3": _wary,
    "oracle": _oracle,
}


def plain_strengths(items: Sequence[int], bouts: Bouts, weight: Floats) -> Floats:
    """Bradley–Terry strengths of ``items`` with a standard normal prior and no other terms.

    Args:
        items: seats, ascending; every bout is between two of them.
        weight: of each bout.
    """
    count = len(items)
    place = np.searchsorted(np.array(items), np.stack([bouts.first, bouts.second]))
    cell = place[0] * count + place[1]
    won = np.bincount(cell, weight * bouts.outcome, count * count).reshape(count, count)
    lost = np.bincount(cell, weight * (1.0 - bouts.outcome), count * count).reshape(count, count)
    wins = won + lost.T
    met = wins + wins.T
    at = np.zeros(count)
    for _ in range(_STEPS):
        chance = 1.0 / (1.0 + np.exp(at[None, :] - at[:, None]))
        gradient = (wins - met * chance).sum(axis=1) - STRENGTH_PRECISION * at
        bend = met * chance * (1.0 - chance)
        hessian = np.diag(bend.sum(axis=1) + STRENGTH_PRECISION) - bend
        step = np.linalg.solve(hessian, gradient)
        largest = float(np.abs(step).max())
        at += step if largest <= _STEP_CAP else step * (_STEP_CAP / largest)
        if largest < _TOLERANCE:
            return at
    raise ArithmeticError(f"Bradley–Terry did not converge in {_STEPS} steps")
