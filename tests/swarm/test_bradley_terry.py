"""The fit is the posterior mode of its model, found whatever the data."""

from __future__ import annotations

from typing import Any

import choix
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from swarm.bradley_terry import (
    OWN_MEAN,
    POSITION_MEAN,
    STRENGTH_PRECISION,
    TERM_PRECISION,
    Comparisons,
    fit,
)

Row = tuple[int, int, float, float, float]


def _objective(classes: int, rows: list[Row]) -> Any:
    """Minus the log posterior and its gradient, written down once more from the model."""

    def value(theta: Any) -> tuple[float, Any]:
        s, h, d = theta[:classes], theta[classes], theta[classes + 1]
        cost = 0.5 * STRENGTH_PRECISION * float(s @ s)
        cost += 0.5 * TERM_PRECISION * ((h - POSITION_MEAN) ** 2 + (d - OWN_MEAN) ** 2)
        slope = np.concatenate(
            [STRENGTH_PRECISION * s, TERM_PRECISION * np.array([h - POSITION_MEAN, d - OWN_MEAN])]
        )
        for first, second, own, outcome, weight in rows:
            logit = s[first] - s[second] + h + d * own
            # −[y ln σ(x) + (1 − y) ln(1 − σ(x))] = ln(1 + e^x) − y x
            cost += weight * (np.logaddexp(0.0, logit) - outcome * logit)
            pull = weight * (1.0 / (1.0 + np.exp(-logit)) - outcome)
            slope[first] += pull
            slope[second] -= pull
            slope[classes] += pull
            slope[classes + 1] += pull * own
        return cost, slope

    return value


def _oracle(classes: int, rows: list[Row]) -> Any:
    start = np.zeros(classes + 2)
    found = minimize(
        _objective(classes, rows),
        start,
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 1e-16, "gtol": 1e-9, "maxiter": 10_000, "maxcor": 30},
    )
    return found.x


def _random(seed: int, classes: int, count: int) -> list[Row]:
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for _ in range(count):
        first, second = (int(index) for index in rng.choice(classes, 2, replace=False))
        own = float(rng.integers(-1, 2))
        outcome = float(rng.choice([0.0, 1.0, rng.random()]))
        rows.append((first, second, own, outcome, float(rng.choice([0.0, 0.5, 1.0, 7.0]))))
    return rows


@pytest.mark.parametrize("seed", range(40))
def test_it_is_the_posterior_mode(seed: int) -> None:
    classes = 2 + seed % 9
    rows = _random(seed, classes, 3 + 4 * seed)
    found = fit(classes, Comparisons.of(rows))
    exact = _oracle(classes, rows)
    assert np.abs(found.strengths - exact[:classes]).max() < 1e-6
    assert abs(found.position - exact[classes]) < 1e-6
    assert abs(found.own - exact[classes + 1]) < 1e-6


@pytest.mark.parametrize("seed", range(8))
def test_the_covariance_is_the_inverse_curvature_at_the_mode(seed: int) -> None:
    """Laplace's approximation, against differences of the gradient written down above."""
    classes = 2 + seed
    rows = _random(seed, classes, 2 + 6 * seed)
    found = fit(classes, Comparisons.of(rows))
    mode = np.array([*found.strengths, found.position, found.own])
    slope = _objective(classes, rows)
    steps = 1e-5 * np.eye(classes + 2)
    curvature = [(slope(mode + step)[1] - slope(mode - step)[1]) / 2e-5 for step in steps]
    exact = np.linalg.inv(np.array(curvature))[:classes, :classes]
    assert found.covariance() == pytest.approx(exact, abs=1e-6)
    np.linalg.cholesky(found.covariance())


def test_choix_agrees_where_the_models_meet() -> None:
    """choix has no priors here, no position or own-answer terms, and takes hard outcomes only.

    So it is an oracle where none of these matter: many outcomes, in random order, of judges
    without answers of their own. Then the data outvote our priors and the two fits meet.
    """
    rng = np.random.default_rng(4)
    truth = np.array([1.5, 0.7, 0.0, -0.6, -1.6])
    wins: list[tuple[int, int]] = []
    rows: list[Row] = []
    for _ in range(3000):
        first, second = (int(index) for index in rng.choice(5, 2, replace=False))
        better = rng.random() < 1.0 / (1.0 + np.exp(truth[second] - truth[first]))
        wins.append((first, second) if better else (second, first))
        rows.append((first, second, 0.0, float(better), 1.0))
    theirs = choix.ilsr_pairwise(5, wins, alpha=0.0)
    ours = fit(5, Comparisons.of(rows))
    assert abs(ours.position) < 0.1, "the data outvote the prior of the position term"
    assert np.abs((ours.strengths - ours.strengths.mean()) - (theirs - theirs.mean())).max() < 0.02


records = st.integers(2, 6).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(
            st.tuples(
                st.lists(st.integers(0, classes - 1), min_size=2, max_size=2, unique=True),
                st.sampled_from([-1.0, 0.0, 1.0]),
                st.integers(0, 1_000_000).map(lambda micro: micro / 1_000_000),
                st.sampled_from([0.0, 0.5, 1.0, 2.75]),
            ).map(lambda row: (row[0][0], row[0][1], row[1], row[2], row[3])),
            max_size=25,
        ),
    )
)


@given(records, st.randoms(use_true_random=False))
def test_the_order_of_records_is_nothing(case: tuple[int, list[Row]], chance: Any) -> None:
    classes, rows = case
    shuffled = list(rows)
    chance.shuffle(shuffled)
    one, other = fit(classes, Comparisons.of(rows)), fit(classes, Comparisons.of(shuffled))
    assert np.abs(one.strengths - other.strengths).max(initial=0.0) < 1e-9
    assert abs(one.position - other.position) < 1e-9


@given(records, st.randoms(use_true_random=False))
def test_names_of_classes_are_nothing(case: tuple[int, list[Row]], chance: Any) -> None:
    classes, rows = case
    names = list(range(classes))
    chance.shuffle(names)
    renamed = [(names[first], names[second], *rest) for first, second, *rest in rows]
    one, other = fit(classes, Comparisons.of(rows)), fit(classes, Comparisons.of(renamed))
    assert np.abs(one.strengths - other.strengths[names]).max() < 1e-9


@given(records)
def test_a_record_without_weight_is_nothing(case: tuple[int, list[Row]]) -> None:
    classes, rows = case
    kept = [row for row in rows if row[4] > 0.0]
    one, other = fit(classes, Comparisons.of(rows)), fit(classes, Comparisons.of(kept))
    assert np.abs(one.strengths - other.strengths).max() < 1e-9
    assert abs(one.own - other.own) < 1e-9


@given(records)
def test_two_halves_are_a_whole(case: tuple[int, list[Row]]) -> None:
    classes, rows = case
    halved = [(*row[:4], row[4] / 2) for row in rows for _ in range(2)]
    one, other = fit(classes, Comparisons.of(rows)), fit(classes, Comparisons.of(halved))
    assert np.abs(one.strengths - other.strengths).max() < 1e-9


def test_without_data_there_is_the_prior() -> None:
    found = fit(3, Comparisons.of([]))
    assert len(Comparisons.of([])) == 0
    assert found.strengths.tolist() == [0.0, 0.0, 0.0]
    assert (found.position, found.own) == (POSITION_MEAN, OWN_MEAN)


def test_a_win_against_position_and_own_answer_counts_more() -> None:
    """Shown second, and against the judge's own answer: a surprise, so strong evidence."""

    def lead(rows: list[Row]) -> float:
        strengths = fit(2, Comparisons.of(rows)).strengths
        return float(strengths[0] - strengths[1])

    shown_first, shown_second = lead([(0, 1, 0.0, 1.0, 1.0)]), lead([(1, 0, 0.0, 0.0, 1.0)])
    assert shown_second > shown_first > 0.0
    for_own, against_own = lead([(0, 1, 1.0, 1.0, 1.0)]), lead([(0, 1, -1.0, 1.0, 1.0)])
    assert against_own > shown_first > for_own > 0.0


def test_terms_are_learned_from_the_data() -> None:
    names_the_first = [(a, b, 0.0, 1.0, 1.0) for a in range(3) for b in range(3) if a != b] * 20
    assert fit(3, Comparisons.of(names_the_first)).position > 2.0
    loyal = [(a, b, 1.0, 1.0, 1.0) for a in range(3) for b in range(3) if a != b] * 20
    assert fit(3, Comparisons.of(loyal)).own > 2.0


@pytest.mark.parametrize("weight", [1e-6, 1.0, 1e3, 1e5])
def test_one_sided_data_converge(weight: float) -> None:
    """Where maximum likelihood would run to infinity, the prior holds."""
    rows = [(0, other, 0.0, 1.0, weight) for other in range(1, 12)]
    found = fit(12, Comparisons.of(rows))
    assert np.isfinite(found.strengths).all()
    assert found.strengths.argmax() == 0
    assert found.steps < 100


def test_a_failure_to_converge_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.bradley_terry._STEPS", 1)
    with pytest.raises(ArithmeticError, match="did not converge in 1 steps"):
        fit(2, Comparisons.of([(0, 1, 0.0, 1.0, 1.0)]))
