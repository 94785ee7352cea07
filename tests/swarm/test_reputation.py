"""From counts to weights: careful with little evidence, and newcomers capped together."""

from __future__ import annotations

from math import log, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.reputation import NEWCOMERS_SHARE, Counts, answer_weight, judge_weight, weights

GOOD, POOR, NEW = Counts(90, 100, 60, 80), Counts(60, 100, 30, 80), Counts()


def test_the_weight_of_a_judge_by_hand() -> None:
    a = 95.5 / 110.0
    low = a - sqrt(a * (1 - a) / 111.0)
    assert judge_weight(90, 100) == pytest.approx(log(low / (1 - low)) ** 2, rel=1e-12)
    assert judge_weight(90, 100) == pytest.approx(2.6546, abs=1e-4)


def test_the_weight_of_an_answerer_by_hand() -> None:
    b = 63.0 / 87.0
    low = b - sqrt(b * (1 - b) / 88.0)
    assert answer_weight(60, 80) == pytest.approx(log(low / (1 - low)) + log(4), rel=1e-12)
    assert answer_weight(60, 80) == pytest.approx(2.1240, abs=1e-4)


def test_without_evidence_a_judge_weighs_nothing() -> None:
    assert judge_weight(0, 0) == 0.0
    assert judge_weight(50, 100) == 0.0, "chance"
    assert judge_weight(10, 100) == 0.0, "worse than chance is not evidence either"
    assert answer_weight(0, 100) == 0.02, "the floor"
    assert answer_weight(0, 0) > 0.02


def test_weights_are_bounded() -> None:
    assert judge_weight(10**8, 10**8) == pytest.approx(log(0.98 / 0.02) ** 2)
    assert answer_weight(10**8, 10**8) == pytest.approx(log(0.98 / 0.02) + log(4))


@given(st.integers(0, 500), st.integers(0, 500))
def test_one_more_right_never_weighs_less(right: int, wrong: int) -> None:
    pairs = right + wrong
    assert judge_weight(right + 1, pairs + 1) >= judge_weight(right, pairs)
    assert answer_weight(right + 1, pairs + 1) >= answer_weight(right, pairs)
    assert judge_weight(right + 1, pairs + 1) >= judge_weight(right, pairs + 1)


def test_more_evidence_of_the_same_weighs_more() -> None:
    assert judge_weight(9, 10) < judge_weight(90, 100) < judge_weight(900, 1000)


def test_nobody_proven_all_weigh_one() -> None:
    found = weights([NEW, Counts(3, 10, 70, 70), NEW])
    assert found.judge == found.answer == (1.0, 1.0, 1.0)
    assert not found.proven
    assert weights([]).judge == ()


def test_the_top_half_weighs_one_on_average() -> None:
    found = weights([GOOD, POOR, Counts(80, 100, 40, 80), Counts(85, 100, 40, 80), POOR])
    assert found.proven
    for column in (found.judge, found.answer):
        assert sum(sorted(column, reverse=True)[:3]) / 3 == pytest.approx(1.0)
    assert weights([GOOD]).judge == pytest.approx((1.0,))


def test_weights_by_hand() -> None:
    found = weights([GOOD, NEW])
    assert found.judge == pytest.approx((1.0, 0.0))
    assert found.answer == pytest.approx((1.0, NEWCOMERS_SHARE)), "capped at a tenth"
    unscaled = weights([GOOD, Counts(70, 100, 0, 100)])
    assert unscaled.answer[1] == pytest.approx(0.02 / answer_weight(60, 80)), "under the cap"


@given(
    st.lists(st.sampled_from([GOOD, POOR, Counts(40, 50, 10, 50)]), min_size=1, max_size=8),
    st.lists(st.sampled_from([NEW, Counts(5, 10, 40, 40), Counts(0, 90, 90, 90)]), max_size=40),
)
def test_newcomers_together_are_capped(proven: list[Counts], new: list[Counts]) -> None:
    found = weights([*proven, *new])
    for column in (found.judge, found.answer):
        known, strangers = sum(column[: len(proven)]), sum(column[len(proven) :])
        assert strangers <= NEWCOMERS_SHARE * known * (1 + 1e-9)


@given(st.lists(st.sampled_from([GOOD, POOR, NEW]), min_size=2, max_size=8))
def test_equal_evidence_equal_weight(counts: list[Counts]) -> None:
    found = weights(counts)
    for one, left, right in zip(counts, found.judge, found.answer, strict=True):
        at = counts.index(one)
        assert (left, right) == (found.judge[at], found.answer[at])


def test_more_newcomers_do_not_weigh_more() -> None:
    """Seventy-two identities of one newcomer have the say of a few."""
    few, many = weights([GOOD, GOOD] + [NEW] * 2), weights([GOOD, GOOD] + [NEW] * 72)
    part = [sum(found.answer[2:]) / sum(found.answer[:2]) for found in (few, many)]
    assert part == pytest.approx([NEWCOMERS_SHARE, NEWCOMERS_SHARE])
