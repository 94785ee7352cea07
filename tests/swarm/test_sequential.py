"""Sequential tests decide when enough was seen: their errors, by simulation and by hand."""

from __future__ import annotations

from functools import reduce
from math import log
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.sequential import (
    ABLE,
    ALARM,
    CHANCE,
    DROP,
    ERROR,
    Cusum,
    Sprt,
    discounted,
)

BOUND = log((1 - ERROR) / ERROR)
WIN, LOSS = log(ABLE / CHANCE), log((1 - ABLE) / (1 - CHANCE))


def _questions(seed: int, accuracy: float, within: float, shape: tuple[int, int, int]) -> Any:
    """Right picks of ``shape`` (judges, questions, pairs): beta-binomial, correlated by ``within``.

    The share of right picks on a question varies between questions, so that two verdicts on one
    question correlate by ``within``.
    """
    judges, questions, pairs = shape
    rng = np.random.default_rng(seed)
    size = (judges, questions)
    if within == 0.0:
        return rng.binomial(pairs, accuracy, size)
    spread = 1.0 / within - 1.0
    share = rng.beta(accuracy * spread, (1.0 - accuracy) * spread, size)
    return rng.binomial(pairs, share)


def _sprt(seed: int, accuracy: float, within: float, pairs: int) -> tuple[float, float, float]:
    """Shares of 600 judges admitted and refused, and the mean number of questions."""
    ends = []
    for row in _questions(seed, accuracy, within, (600, 300, pairs)):
        test = Sprt()
        for right in row:
            test = test.after(float(right), float(pairs))
            if test.decision != "open":
                break
        ends.append(test)
    admitted = sum(one.decision == "admitted" for one in ends) / len(ends)
    refused = sum(one.decision == "refused" for one in ends) / len(ends)
    return admitted, refused, sum(one.questions for one in ends) / len(ends)


# --- admission: error rates ---------------------------------------------------------------------

# Six hundred judges of an error of 1 % are 6 ± 2.4, of 2 % 12 ± 3.4.
PAIRS_AND_CORRELATION = [(1, 0.0, 0.017), (2, 0.35, 0.027), (4, 0.25, 0.017), (6, 0.35, 0.032)]


@pytest.mark.parametrize(("pairs", "within", "at_most"), PAIRS_AND_CORRELATION)
def test_a_judge_by_chance_is_hardly_ever_admitted(
    pairs: int, within: float, at_most: float
) -> None:
    admitted, refused, _ = _sprt(1, CHANCE, within, pairs)
    assert admitted <= at_most
    assert refused >= 1 - at_most - 0.005


@pytest.mark.parametrize(("pairs", "within", "at_most"), PAIRS_AND_CORRELATION)
def test_an_able_judge_is_hardly_ever_turned_away(
    pairs: int, within: float, at_most: float
) -> None:
    admitted, refused, _ = _sprt(2, ABLE, within, pairs)
    assert refused <= at_most
    assert admitted >= 1 - at_most - 0.005


def test_without_the_discount_correlated_verdicts_would_admit_the_lazy() -> None:
    """What it is there for: the same test of single pairs, fed each verdict as if independent."""
    data = _questions(3, CHANCE, 0.35, (400, 60, 6))
    walks = np.cumsum(data * WIN + (6 - data) * LOSS, axis=1)
    first = (np.abs(walks) >= BOUND).argmax(axis=1)
    naive = float((walks[np.arange(len(walks)), first] > 0).mean())
    discount = _sprt(3, CHANCE, 0.35, 6)[0]
    assert naive > 0.08
    assert discount < 0.03


def test_a_decision_takes_some_fifty_pairs_or_some_twenty_questions_of_six() -> None:
    """Wald's expected sample size, at 1 % and for accuracies of .5 and .7."""
    for accuracy in (CHANCE, ABLE):
        assert 50 <= _sprt(4, accuracy, 0.0, 1)[2] <= 62
        assert 17 <= _sprt(4, accuracy, 0.25, 6)[2] <= 25
    assert _sprt(4, 0.9, 0.25, 6)[2] < 10, "a good judge is admitted soon"


def test_a_judge_between_the_two_is_decided_either_way() -> None:
    admitted, refused, _ = _sprt(5, 0.6, 0.25, 4)
    assert 0.3 < admitted < 0.7
    assert admitted + refused > 0.97


def test_a_judge_that_favours_the_first_answer_is_turned_away() -> None:
    """Shown both orders it is right once on each pair: half a pair right, without fail."""
    test = Sprt()
    for _ in range(200):
        test = test.after(3.0, 6.0)
    assert test.decision == "refused"


# --- admission: the test by hand ----------------------------------------------------------------


def test_the_ratio_by_hand() -> None:
    assert Sprt().decision == "open"
    one = Sprt().after(1.0, 1.0)
    assert one.ratio == pytest.approx(log(1.4))
    assert (one.pairs, one.questions) == (1.0, 1)
    four = Sprt().after(3.0, 4.0)
    assert four.ratio == pytest.approx((3 * log(1.4) + log(0.6)) / 1.75)
    assert (four.pairs, four.questions) == (4.0, 1)
    both = one.after(0.5, 1.0)
    assert both.ratio == pytest.approx(log(1.4) + (log(1.4) + log(0.6)) / 2)
    assert both.questions == 2


@pytest.mark.parametrize(
    ("pairs", "divisor"), [(0.5, 1.0), (1.0, 1.0), (2.0, 1.25), (5.0, 2.0), (9.0, 3.0)]
)
def test_the_discount_by_hand(pairs: float, divisor: float) -> None:
    assert discounted(pairs) == divisor


def test_the_bounds_are_walds() -> None:
    good, bad = Sprt(), Sprt()
    for _ in range(13):
        good = good.after(1.0, 1.0)
    assert 13 * WIN < BOUND <= 14 * WIN
    assert good.decision == "open"
    assert good.after(1.0, 1.0).decision == "admitted"
    for _ in range(8):
        bad = bad.after(0.0, 1.0)
    assert 8 * LOSS > -BOUND >= 9 * LOSS
    assert bad.decision == "open"
    assert bad.after(0.0, 1.0).decision == "refused"


def test_a_question_without_informative_pairs_changes_nothing() -> None:
    test = Sprt().after(2.0, 3.0)
    assert test.after(0.0, 0.0) is test
    watch = Cusum().after(0.0, 3.0, 0.9)
    assert watch.after(0.0, 0.0, 0.9) is watch


def test_counts_without_their_questions_are_taken_as_evenly_spread() -> None:
    """As if each of eight questions had held three of four."""
    test = Sprt()
    for _ in range(8):
        test = test.after(3.0, 4.0)
    spread = Sprt.of(24.0, 32.0, 8.0)
    assert spread.ratio == pytest.approx(test.ratio)
    assert (spread.pairs, spread.questions) == (32.0, 8)
    assert Sprt.of(24.0, 32.0, 32.0).ratio == pytest.approx(24 * WIN + 8 * LOSS)
    assert Sprt.of(24.0, 32.0, 1.0).ratio == Sprt().after(24.0, 32.0).ratio
    for pairs, questions in ((0.0, 3.0), (3.0, 0.0), (0.0, 0.0)):
        assert Sprt.of(0.0, pairs, questions) == Sprt()


SEEN = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 8)).map(
        lambda pair: (float(min(pair)), float(max(pair)))
    ),
    max_size=60,
)


@given(SEEN)
def test_what_is_decided_stays_decided(seen: list[tuple[float, float]]) -> None:
    test = Sprt()
    for right, pairs in seen:
        after = test.after(right, pairs)
        if test.decision != "open":
            assert after is test
        assert after.questions - test.questions in (0, 1)
        assert after.pairs >= test.pairs
        test = after


@given(st.integers(0, 8), st.integers(0, 8), st.floats(-4, 4))
def test_one_more_right_pick_is_never_worse(right: int, wrong: int, ratio: float) -> None:
    pairs = float(right + wrong + 1)
    less, more = (Sprt(ratio).after(got, pairs).ratio for got in (float(right), right + 1.0))
    assert more > less


# --- a fall after admission ---------------------------------------------------------------------


def _alarms(
    seed: int, before: float, after: float, at: int, questions: int, pairs: int = 6
) -> list[int]:
    """Question of the first alarm of each of 150 judges, ``questions`` where there is none.

    Verdicts on a question correlate by .35, and what is expected is the mean so far.
    """
    shape = (150, questions, pairs)
    data = _questions(seed, before, 0.35, shape)
    data[:, at:] = _questions(seed + 1, after, 0.35, shape)[:, at:]
    found = []
    for row in data:
        watch, got = Cusum(), 0.0
        for place, right in enumerate(row):
            watch = watch.after(float(right), float(pairs), (got + 3.5) / (place * pairs + 5.0))
            got += right
            if watch.alarmed:
                break
        found.append(place if watch.alarmed else questions)
    return found


@pytest.mark.parametrize("accuracy", [0.7, 0.8, 0.9])
def test_a_judge_that_stays_as_it_is_hardly_ever_alarms(accuracy: float) -> None:
    """Fewer than one judge in eight within 500 questions, as good as 5,000 ordinary rounds."""
    alarms = _alarms(10, accuracy, accuracy, 0, 500)
    assert sum(one < 500 for one in alarms) / len(alarms) < 0.13


@pytest.mark.parametrize(
    ("before", "after", "median", "most"),
    [(0.85, 0.50, (5, 16), 0.0), (0.85, 0.60, (10, 24), 0.02), (0.85, 0.70, (22, 55), 0.10),
     (0.75, 0.50, (10, 28), 0.02)],
)  # fmt: skip
def test_a_fall_is_noticed_the_sooner_the_deeper_it_is(
    before: float, after: float, median: tuple[int, int], most: float
) -> None:
    """Questions of six pairs from the fall to the alarm; ``most``: share not found in 200."""
    alarms = [one - 100 for one in _alarms(20, before, after, 100, 300) if one >= 100]
    assert len(alarms) > 140, "hardly any alarm before the fall"
    low, high = median
    assert low <= float(np.median(alarms)) <= high
    assert sum(one >= 200 for one in alarms) / len(alarms) <= most


def test_an_equal_model_cannot_be_told() -> None:
    """A swap without a fall looks like none."""
    assert sum(one < 300 for one in _alarms(30, 0.8, 0.8, 100, 300)) < 15


def test_the_sum_by_hand() -> None:
    watch = Cusum().after(1.0, 2.0, 0.8)
    gain = (log(0.65 / 0.8) + log(0.35 / 0.2)) / 1.25
    assert watch.total == pytest.approx(gain)
    assert not watch.alarmed
    worse = watch.after(0.0, 1.0, 0.8)
    assert worse.total == pytest.approx(gain + log(0.35 / 0.2))
    assert Cusum().after(1.0, 1.0, 0.8).total == 0.0, "never below nothing"
    assert Cusum(ALARM).alarmed
    assert not Cusum(ALARM - 1e-9).alarmed
    assert DROP == 0.15


@pytest.mark.parametrize(
    ("expected", "as_if"), [(0.0, 0.05), (0.03, 0.05), (0.99, 0.98), (1.0, 0.98)]
)
def test_what_nobody_can_expect_is_kept_in_bounds(expected: float, as_if: float) -> None:
    for right in (0.0, 1.0):
        assert Cusum(3.0).after(right, 1.0, expected) == Cusum(3.0).after(right, 1.0, as_if)


@given(SEEN, st.floats(0, 1))
def test_the_sum_is_finite_and_never_negative(
    seen: list[tuple[float, float]], expected: float
) -> None:
    watch = Cusum()
    for right, pairs in seen:
        watch = watch.after(right, pairs, expected)
        assert 0.0 <= watch.total < 1e4


@given(st.integers(0, 8), st.integers(0, 8), st.floats(0, 1), st.floats(0, 20))
def test_one_more_wrong_pick_never_lowers_the_sum(
    right: int, wrong: int, expected: float, total: float
) -> None:
    pairs = float(right + wrong + 1)
    better, worse = (
        Cusum(total).after(got, pairs, expected).total for got in (right + 1.0, float(right))
    )
    assert worse >= better


def test_states_are_values() -> None:
    def test(seen: list[tuple[float, float]]) -> Sprt:
        return reduce(lambda state, one: state.after(*one), seen, Sprt())

    assert test([(1.0, 2.0), (3.0, 3.0)]) == test([(1.0, 2.0), (3.0, 3.0)])
    assert test([(1.0, 2.0)]) != test([(2.0, 2.0)])
