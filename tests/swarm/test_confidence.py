"""The combination fitted to rounds whose truth is known, against an independent optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from protocol.codec import decode, encode
from protocol.messages import MICRO
from protocol.receipt import Rule
from swarm.confidence import FEWEST, LATEST, Example, refit
from swarm.consensus import DEFAULT_WEIGHTED, EQUAL, Features
from tests.swarm.builders import changed

SCALE = (2.0, 1.0, 3.0, 1.0, 1.0)
RIDGE = 4.0


def _coefficients(rule: Rule) -> list[float]:
    return [one / MICRO for one in (*rule.theta, *rule.none)]


def _objective(examples: Sequence[Example], base: Rule) -> Any:
    """The negated log posterior and its gradient, straight from the formula, for scipy."""
    prior, scale = np.array(_coefficients(base)), np.array(SCALE)
    most = max(len(one.features) for one in examples)
    inputs = np.zeros((len(examples), most + 1, 5))
    absent = np.zeros((len(examples), most + 1))
    chosen = np.zeros((len(examples), 5))
    for at, one in enumerate(examples):
        inputs[at, 0, 3:] = 1.0, len(one.features) / one.answerers
        for place, it in enumerate(one.features, 1):
            inputs[at, place, :3] = it.votes, it.strength, it.evidence
        absent[at, len(one.features) + 1 :] = -np.inf
        chosen[at] = inputs[at, 0 if one.right is None else 1 + one.right]

    def loss(at: Any) -> tuple[float, Any]:
        logits = inputs @ at + absent
        chances = softmax(logits, axis=1)
        total = 0.5 * RIDGE * (((at - prior) * scale) ** 2).sum()
        total += logsumexp(logits, axis=1).sum() - (chosen @ at).sum()
        expected = np.einsum("rk,rkf->f", chances, inputs)
        return float(total), RIDGE * (at - prior) * scale**2 + expected - chosen.sum(axis=0)

    return loss


def _reference(examples: Sequence[Example], base: Rule) -> tuple[list[float], float]:
    """The mode and its loss by scipy's bounded quasi-Newton method."""
    prior = _coefficients(base)
    bounds = [(0.0, 0.0) if one == 0.0 else (0.0, None) for one in prior[:3]] + [(None, None)] * 2
    found = minimize(
        _objective(examples, base), prior, jac=True, method="L-BFGS-B", bounds=bounds,
        options={"ftol": 1e-16, "gtol": 1e-9, "maxcor": 20, "maxls": 60},
    )  # fmt: skip
    return list(found.x), float(found.fun)


def _is_the_mode(rule: Rule, examples: Sequence[Example], base: Rule) -> None:
    """As scipy finds it, to the 1e-6 to which coefficients are written."""
    reference, least = _reference(examples, base)
    found = _coefficients(rule)
    assert found == pytest.approx(reference, abs=2e-6)
    assert _objective(examples, base)(np.array(found))[0] <= least + 1e-9


def _rounds(
    seed: int,
    count: int,
    truth: Sequence[float] = (0.25, 0.6, 0.3, -1.0, 0.0),
    *,
    spread: Sequence[float] = (2.0, 1.0, 3.0),
    classes: tuple[int, int] = (1, 6),
) -> list[Example]:
    """Rounds whose right class (or none) is drawn from the model with these coefficients."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        k, answerers = int(rng.integers(*classes)), int(rng.integers(6, 12))
        table = rng.normal((1.5, 0.0, 0.0), spread, (k, 3))
        logits = np.append(truth[3] + truth[4] * k / answerers, table @ truth[:3])
        chances = np.exp(logits - logits.max())
        right = int(rng.choice(k + 1, p=chances / chances.sum()))
        found.append(
            Example(tuple(Features(*row) for row in table), right - 1 if right else None, answerers)
        )
    return found


# --- against scipy on the same objective --------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("base", [DEFAULT_WEIGHTED, EQUAL], ids=lambda rule: rule.name)
def test_the_fit_is_the_mode(seed: int, base: Rule) -> None:
    examples = _rounds(seed, 20 + 15 * seed)
    _is_the_mode(refit(examples, base), examples, base)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("against", [0, 1, 2], ids=["votes", "strength", "evidence"])
def test_a_feature_that_misleads_rests_on_its_bound(seed: int, against: int) -> None:
    """A coefficient below zero would fit better; the mode on the bound is found all the same."""
    truth = [0.3, 0.6, 0.3, -1.0, 0.0]
    truth[against] = -1.5
    examples = _rounds(50 + seed, 100, truth)
    rule = refit(examples, DEFAULT_WEIGHTED)
    assert rule.theta[against] == 0
    _is_the_mode(rule, examples, DEFAULT_WEIGHTED)


@pytest.mark.parametrize("seed", range(3))
def test_all_three_on_their_bounds_at_once(seed: int) -> None:
    examples = _rounds(80 + seed, 100, (-1.0, -1.5, -1.0, -1.0, 0.5))
    rule = refit(examples, DEFAULT_WEIGHTED)
    assert rule.theta == (0, 0, 0)
    _is_the_mode(rule, examples, DEFAULT_WEIGHTED)


# --- what it learns -----------------------------------------------------------------------------


def test_planted_coefficients_come_back() -> None:
    """Averaged over seeds, less what the ridge draws towards the default."""
    truth = (0.5, 1.2, 0.6, -0.5, 1.0)
    mean = np.mean(
        [_coefficients(refit(_rounds(seed, 100, truth), DEFAULT_WEIGHTED)) for seed in range(25)],
        axis=0,
    )
    prior = _coefficients(DEFAULT_WEIGHTED)
    for found, planted, before in zip(mean[:3], truth[:3], prior[:3], strict=True):
        assert abs(found - planted) < 0.45 * abs(planted - before)
    for share in (0.1, 0.5):
        found, planted, before = (one[3] + one[4] * share for one in (mean, truth, prior))
        assert abs(found - planted) < 0.6 * abs(planted - before)


def test_the_default_that_is_true_stays() -> None:
    mean = np.mean(
        [_coefficients(refit(_rounds(seed, 100), DEFAULT_WEIGHTED)) for seed in range(25)], axis=0
    )
    assert mean == pytest.approx(_coefficients(DEFAULT_WEIGHTED), abs=0.06)


def test_always_right_is_believed_more_and_never_without_end() -> None:
    """Separable data has no finite maximum of the likelihood; the ridge gives one."""
    rounds = [
        Example((Features(2.0, 1.0, 3.0), Features(0.5, -1.0, -3.0)), 0, 8) for _ in range(100)
    ]
    rule = refit(rounds, DEFAULT_WEIGHTED)
    for found, before in zip(rule.theta, DEFAULT_WEIGHTED.theta, strict=True):
        assert before < found < 5 * MICRO
    assert rule.none[0] < DEFAULT_WEIGHTED.none[0]
    _is_the_mode(rule, rounds, DEFAULT_WEIGHTED)


def test_rounds_where_none_was_right_raise_that_chance() -> None:
    none = [Example((Features(1.0, 0.5, 0.5), Features(1.0, -0.5, -0.5)), None, 8)] * 60
    rule = refit(none, DEFAULT_WEIGHTED)
    assert rule.none[0] > DEFAULT_WEIGHTED.none[0] + MICRO // 2
    _is_the_mode(rule, none, DEFAULT_WEIGHTED)


def test_many_classes_among_few_answerers_may_say_that_none_is_right() -> None:
    """The slope: unanimous rounds right, scattered ones not."""
    united = [Example((Features(3.0, 0.0, 0.0),), 0, 6)] * 40
    scattered = [Example((Features(0.5, 0.0, 0.0),) * 6, None, 6)] * 40
    rule = refit([*united, *scattered], DEFAULT_WEIGHTED)
    assert rule.none[1] > MICRO // 2


# --- what is asked of the caller ----------------------------------------------------------------


def test_too_few_rounds_and_the_default_stands() -> None:
    examples = _rounds(1, FEWEST)
    for count in range(FEWEST):
        counted = changed(DEFAULT_WEIGHTED, calibration_rounds=count)
        assert refit(examples[:count], DEFAULT_WEIGHTED) == counted
    fitted = refit(examples, DEFAULT_WEIGHTED)
    assert fitted.calibration_rounds == FEWEST == 10
    assert fitted.theta != DEFAULT_WEIGHTED.theta


def test_rounds_that_the_rule_never_saw_do_not_count() -> None:
    examples = _rounds(2, FEWEST)
    blind = [Example((), None, 5)] * 50
    assert refit([*blind, *examples], EQUAL) == refit(examples, EQUAL)
    assert refit([*blind, *examples[1:]], EQUAL) == changed(EQUAL, calibration_rounds=FEWEST - 1)


def test_only_the_latest_are_fitted_and_all_are_counted() -> None:
    old, new = _rounds(3, 50, (-2.0, -2.0, -2.0, 3.0, 0.0)), _rounds(4, LATEST)
    found = refit([*old, *new], DEFAULT_WEIGHTED)
    assert found == changed(refit(new, DEFAULT_WEIGHTED), calibration_rounds=LATEST + 50)


def test_a_coefficient_that_is_zero_stays_zero() -> None:
    """That rule does not know the feature, however telling it would be."""
    examples = _rounds(5, 100, (2.0, 0.1, 2.0, -1.0, 0.0))
    rule = refit(examples, EQUAL)
    assert (rule.theta[0], rule.theta[2]) == (0, 0)
    assert rule.theta[1] > 0
    for name in ("name", "own", "stop"):
        assert getattr(rule, name) == getattr(EQUAL, name)


def test_what_is_no_coefficient_is_kept() -> None:
    base = changed(DEFAULT_WEIGHTED, own=300_000, stop=950_000)
    rule = refit(_rounds(6, 40), base)
    assert (rule.name, rule.own, rule.stop) == ("weighted", 300_000, 950_000)


def test_a_fit_that_does_not_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.confidence._STEPS", 1)
    with pytest.raises(ArithmeticError, match="did not converge in 1 steps"):
        refit(_rounds(7, 40), DEFAULT_WEIGHTED)


# --- laws -----------------------------------------------------------------------------------------

WILD = st.one_of(
    st.floats(-20, 20),
    st.floats(-(2**33), 2**33, allow_nan=False),
    st.sampled_from([0.0, -(2.0**33), 2.0**33, 1e-300]),
)


@st.composite
def examples(draw: st.DrawFn, number: Any = WILD) -> list[Example]:
    """Any rounds, as wild as a Trial can hold them."""
    found = []
    for _ in range(draw(st.integers(8, 16))):
        rows = draw(st.lists(st.tuples(number, number, number), max_size=4))
        right = draw(st.sampled_from([None, *range(len(rows))]))
        found.append(Example(tuple(Features(*row) for row in rows), right, draw(st.integers(1, 9))))
    return found


@settings(max_examples=80, deadline=None)
@given(examples(), st.sampled_from([DEFAULT_WEIGHTED, EQUAL]))
def test_any_rounds_give_a_rule_that_can_be_written(rounds: list[Example], base: Rule) -> None:
    rule = refit(rounds, base)
    assert decode(encode(rule), Rule) == rule
    assert all(isfinite(one) for one in _coefficients(rule))
    assert min(rule.theta) >= 0
    assert refit(list(rounds), base) == rule, "the same again"


@settings(max_examples=30, deadline=None)
@given(examples(st.floats(-5, 5)), st.randoms(use_true_random=False))
def test_the_order_of_the_rounds_is_nothing(rounds: list[Example], chance: Any) -> None:
    shuffled = list(rounds)
    chance.shuffle(shuffled)
    one, other = refit(rounds, DEFAULT_WEIGHTED), refit(shuffled, DEFAULT_WEIGHTED)
    assert _coefficients(one) == pytest.approx(_coefficients(other), abs=3e-6)
