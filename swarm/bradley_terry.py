"""Maximum a posteriori Bradley–Terry with position and own-answer terms.

The model (Bradley & Terry 1952, with the order effect of Davidson & Beaver 1977): a judge
prefers the class shown first with

    logit P = s_first − s_second + h + d·x,     x = [first is its own] − [second is its own]

with s ~ N(0, 1), h ~ N(0.3, 0.25), d ~ N(1, 0.25) (variances). The log posterior is strictly
concave; damped Newton over the edge list converges in a handful of steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

POSITION_MEAN, OWN_MEAN, TERM_PRECISION = 0.3, 1.0, 4.0
STRENGTH_PRECISION = 1.0
_STEP_CAP = 2.0
_TOLERANCE = 1e-10
_STEPS = 200


@dataclass(frozen=True, slots=True)
class Comparisons:
    """M verdicts as parallel arrays of length M.

    Attributes:
        first, second: class indices, as shown.
        own: x of the model: 1, 0 or −1.
        outcome: P(first is right) as the judge sees it, in [0, 1].
        weight: at least 0; records of weight 0 change nothing.
    """

    first: Ints
    second: Ints
    own: Floats
    outcome: Floats
    weight: Floats

    def __len__(self) -> int:
        return len(self.first)

    @staticmethod
    def of(rows: list[tuple[int, int, float, float, float]]) -> Comparisons:
        """From rows of (first, second, own, outcome, weight)."""
        columns: Any = list(zip(*rows, strict=True)) if rows else [()] * 5
        return Comparisons(
            np.array(columns[0], dtype=np.int64),
            np.array(columns[1], dtype=np.int64),
            np.array(columns[2], dtype=np.float64),
            np.array(columns[3], dtype=np.float64),
            np.array(columns[4], dtype=np.float64),
        )


@dataclass(frozen=True, slots=True)
class Fit:
    """The posterior mode.

    Attributes:
        strengths: s, shape (classes,).
        position, own: h and d.
        precision: of (s, h, d) in Laplace's approximation of the posterior, the negated Hessian
            at the mode; shape (classes + 2, classes + 2).
        steps: Newton steps taken.
    """

    strengths: Floats
    position: float
    own: float
    precision: Floats
    steps: int

    def covariance(self) -> Floats:
        """Of the strengths, in the same approximation; shape (classes, classes)."""
        classes = len(self.strengths)
        return np.asarray(np.linalg.inv(self.precision)[:classes, :classes], dtype=np.float64)


def fit(classes: int, data: Comparisons) -> Fit:
    """The posterior mode of strengths, position and own-answer term.

    Args:
        classes: number of classes; every index in ``data`` is below it.
        data: the verdicts.

    Raises:
        ArithmeticError: no convergence, which a strictly concave problem does not have.
    """
    edges = _edges(classes, data)
    size = classes + 2
    precision = np.full(size, STRENGTH_PRECISION)
    precision[classes:] = TERM_PRECISION
    mean = np.zeros(size)
    mean[classes], mean[classes + 1] = POSITION_MEAN, OWN_MEAN

    theta = mean.copy()
    for step in range(1, _STEPS + 1):
        gradient, hessian = _derivatives(classes, edges, theta)
        gradient -= precision * (theta - mean)
        hessian.flat[:: size + 1] += precision
        move = np.linalg.solve(hessian, gradient)
        largest = float(np.abs(move).max())
        theta += move if largest <= _STEP_CAP else move * (_STEP_CAP / largest)
        if largest < _TOLERANCE:
            position, own = theta[classes:].tolist()
            return Fit(theta[:classes], position, own, hessian, step)
    raise ArithmeticError(f"Bradley–Terry did not converge in {_STEPS} steps")


@dataclass(frozen=True, slots=True)
class _Edges:
    """Verdicts summed over equal (first, second, own), in sorted order.

    Attributes:
        cell: index of (first, second) in a flattened (classes, classes) matrix.
        won, total: weight of wins of ``first``, and of all verdicts.
    """

    first: Ints
    second: Ints
    cell: Ints
    own: Floats
    won: Floats
    total: Floats


def _derivatives(classes: int, edges: _Edges, theta: Floats) -> tuple[Floats, Floats]:
    """Gradient and negated Hessian of the log likelihood, in time linear in the edges."""
    first, second, own = edges.first, edges.second, edges.own
    logit = theta[first] - theta[second] + theta[classes] + theta[classes + 1] * own
    chance = 1.0 / (1.0 + np.exp(-logit))
    pull = edges.won - edges.total * chance
    bend = edges.total * chance * (1.0 - chance)

    gradient = np.empty(classes + 2)
    gradient[:classes] = np.bincount(first, pull, classes) - np.bincount(second, pull, classes)
    gradient[classes] = pull.sum()
    gradient[classes + 1] = pull @ own

    hessian = np.zeros((classes + 2, classes + 2))
    between = np.bincount(edges.cell, bend, classes * classes).reshape(classes, classes)
    lead, trail = between.sum(axis=1), between.sum(axis=0)
    strengths = hessian[:classes, :classes]
    strengths -= between
    strengths -= between.T
    strengths.flat[:: classes + 1] += lead + trail
    owned = bend * own
    hessian[:classes, classes] = hessian[classes, :classes] = lead - trail
    tilt = np.bincount(first, owned, classes) - np.bincount(second, owned, classes)
    hessian[:classes, classes + 1] = hessian[classes + 1, :classes] = tilt
    hessian[classes, classes] = bend.sum()
    hessian[classes, classes + 1] = hessian[classes + 1, classes] = owned.sum()
    hessian[classes + 1, classes + 1] = owned @ own
    return gradient, hessian


def _edges(classes: int, data: Comparisons) -> _Edges:
    """Many rows become few edges."""
    code = (data.first * classes + data.second) * 3 + (data.own.astype(np.int64) + 1)
    unique, inverse = np.unique(code, return_inverse=True)
    total: Floats = np.bincount(inverse, data.weight, len(unique)).astype(np.float64)
    won: Floats = np.bincount(inverse, data.weight * data.outcome, len(unique)).astype(np.float64)
    cell, own = unique // 3, unique % 3
    return _Edges(cell // classes, cell % classes, cell, own - 1.0, won, total)
