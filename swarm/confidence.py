"""How much a round's winner is to be trusted: the combination refitted to known truth.

P(class) ∝ exp(θ · features) and P(none right) ∝ exp(t0 + t1 · classes/answerers) is a conditional
logit (McFadden 1974) over the classes of a round and "none of them". Its coefficients are the
mode of the posterior given calibration rounds: ridge towards the default, θ at least 0, so that
votes or verdicts never count against the answer that they are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.messages import MICRO
from protocol.receipt import Rule
from swarm.consensus import Features

Floats = NDArray[np.float64]

FEWEST: Final = 10
"""Calibration rounds below which the default stands."""
LATEST: Final = 200
"""Calibration rounds that are used: the swarm changes."""
# The typical spread of each feature, which makes one ridge fit them all.
_SCALE: Final = np.array([2.0, 1.0, 3.0, 1.0, 1.0])
_RIDGE: Final = 4.0
_STEPS: Final = 100
_TOLERANCE: Final = 1e-9
_LARGEST: Final = 99.0


@dataclass(frozen=True, slots=True)
class Example:
    """A judged round whose truth is known.

    Attributes:
        features: of each class, under the weights of that time.
        right: index of the right class, None where none is.
        answerers: who gave the answers.
    """

    features: tuple[Features, ...]
    right: int | None
    answerers: int


def refit(examples: Sequence[Example], base: Rule) -> Rule:
    """``base`` with its coefficients fitted to the latest examples.

    Coefficients that are zero in ``base`` stay zero: that rule does not know the feature.

    Args:
        examples: oldest first; each was decided under a rule of the name of ``base``.
        base: the prior mean.

    Returns:
        A rule whose ``calibration_rounds`` is the number of examples there are; ``base`` with
        that number where there are fewer than ``FEWEST``.
    """
    known = [one for one in examples if one.features]
    counted = msgspec.structs.replace(base, calibration_rounds=len(known))
    if len(known) < FEWEST:
        return counted
    prior = np.array([*base.theta, *base.none], dtype=np.float64) / MICRO * _SCALE
    free = np.append(np.array(base.theta) != 0, (True, True))
    table, offered, right = _table(known[-LATEST:])
    found = _fit(table, offered, right, prior, free) / _SCALE
    votes, strength, evidence, constant, slope = (
        round(MICRO * float(np.clip(one, -_LARGEST, _LARGEST))) for one in found
    )
    return msgspec.structs.replace(
        counted, theta=(votes, strength, evidence), none=(constant, slope)
    )


def _table(examples: Sequence[Example]) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64]]:
    """Scaled inputs (rounds, 1 + classes, 5), which entries exist, and which one is right.

    Entry 0 of each round is "none right".
    """
    widest = 1 + max(len(one.features) for one in examples)
    table = np.zeros((len(examples), widest, 5))
    offered = np.zeros((len(examples), widest), dtype=np.bool_)
    right = np.zeros(len(examples), dtype=np.int64)
    for row, one in enumerate(examples):
        count = len(one.features)
        table[row, 0, 3:] = (1.0, count / one.answerers)
        for index, feature in enumerate(one.features):
            table[row, 1 + index, :3] = (feature.votes, feature.strength, feature.evidence)
        offered[row, : count + 1] = True
        right[row] = 0 if one.right is None else 1 + one.right
    return table / _SCALE, offered, right


def _fit(
    table: Floats,
    offered: NDArray[np.bool_],
    right: NDArray[np.int64],
    prior: Floats,
    free: NDArray[np.bool_],
) -> Floats:
    """The mode, by projected Newton steps (Bertsekas 1982): concave, five coefficients."""
    at = prior.copy()
    bounded = np.array([True, True, True, False, False])
    for _ in range(_STEPS):
        gradient, hessian = _derivatives(table, offered, right, at, prior)
        # A coefficient that rests on its bound and is pushed against it stays there.
        moving = free & ~(bounded & (at <= 0.0) & (gradient <= 0.0))
        step = np.zeros_like(at)
        step[moving] = np.linalg.solve(hessian[np.ix_(moving, moving)], gradient[moving])
        length = 1.0
        here = _value(table, offered, right, at, prior)
        while length > 1e-6:
            there = at + length * step
            there[bounded] = np.maximum(there[bounded], 0.0)
            if _value(table, offered, right, there, prior) >= here:
                break
            length /= 2.0
        else:
            return at
        moved = float(np.abs(there - at).max())
        at = there
        if moved < _TOLERANCE:
            return at
    raise ArithmeticError(f"the confidence fit did not converge in {_STEPS} steps")


def _chances(table: Floats, offered: NDArray[np.bool_], at: Floats) -> tuple[Floats, Floats]:
    """P(entry) and its logarithm, per round."""
    logits = np.where(offered, table @ at, -np.inf)
    top = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(axis=1, keepdims=True)) + top
    return np.exp(logits - total), logits - total


def _value(
    table: Floats, offered: NDArray[np.bool_], right: NDArray[np.int64], at: Floats, prior: Floats
) -> float:
    _, logs = _chances(table, offered, at)
    fit = logs[np.arange(len(right)), right].sum()
    return float(fit - 0.5 * _RIDGE * np.square(at - prior).sum())


def _derivatives(
    table: Floats, offered: NDArray[np.bool_], right: NDArray[np.int64], at: Floats, prior: Floats
) -> tuple[Floats, Floats]:
    """Gradient and negated Hessian of the log posterior."""
    chance, _ = _chances(table, offered, at)
    mean = np.einsum("rk,rkf->rf", chance, table)
    gradient = table[np.arange(len(right)), right].sum(axis=0) - mean.sum(axis=0)
    gradient -= _RIDGE * (at - prior)
    hessian = np.einsum("rk,rkf,rkg->fg", chance, table, table) - mean.T @ mean
    hessian.flat[:: len(at) + 1] += _RIDGE
    return gradient, hessian
