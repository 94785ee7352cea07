"""Who judges what is fixed by the seed, fair to every pair and order, and never repeated."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from protocol import limits
from protocol.ids import PeerId
from swarm.pairing import (
    EVERY_PAIR_JUDGES,
    PAIRS_PER_WAVE,
    WAVES,
    assigned,
    both_orders,
    waves,
)

JUDGE = PeerId(b"j" * 32)
seeds = st.binary(min_size=32, max_size=32)


def test_a_small_schedule_is_this() -> None:
    """Another implementation must come to the same."""
    assert assigned(bytes(32), 3, 3, JUDGE, 0) == ((0, 2), (1, 2), (1, 0), (2, 1), (2, 0), (0, 1))
    assert assigned(bytes(32), 5, 10, JUDGE, 0) == ((4, 1), (3, 1), (4, 2), (2, 3), (1, 2), (1, 0))
    assert assigned(bytes(32), 5, 10, JUDGE, 1) == ((4, 3), (3, 0), (2, 0), (4, 0))


@given(seeds, st.integers(2, 9), st.integers(1, EVERY_PAIR_JUDGES))
def test_few_judges_see_every_pair_in_both_orders_once(
    seed: bytes, classes: int, judges: int
) -> None:
    assert both_orders(judges)
    assert waves(classes, judges) == 1
    pairs = assigned(seed, classes, judges, JUDGE, 0)
    assert Counter(pairs) == Counter(permutations(range(classes), 2))
    assert assigned(seed, classes, judges, JUDGE, 1) == ()


@given(seeds, st.integers(2, 20), st.integers(EVERY_PAIR_JUDGES + 1, limits.COMMITTEE))
def test_many_judges_get_new_pairs_in_each_wave(seed: bytes, classes: int, judges: int) -> None:
    assert not both_orders(judges)
    count = waves(classes, judges)
    rows = [assigned(seed, classes, judges, JUDGE, wave) for wave in range(count)]
    pairs = [frozenset(pair) for wave in rows for pair in wave]
    assert len(set(pairs)) == len(pairs), "no pair twice, in whatever order"
    assert all(len(pair) == 2 and max(pair) < classes for pair in pairs)
    assert len(pairs) == min(WAVES * PAIRS_PER_WAVE, classes * (classes - 1) // 2)
    assert all(rows), "no wave without pairs"
    assert all(len(wave) == PAIRS_PER_WAVE for wave in rows[:-1])


@pytest.mark.parametrize(
    ("classes", "judges", "count"),
    [
        (0, 5, 0), (1, 5, 0), (1, 20, 0), (3, 0, 0), (2, 1, 1), (9, 9, 1), (2, 10, 1),
        (4, 10, 1), (5, 10, 2), (6, 10, 3), (7, 10, 3), (48, 48, 3),
    ],
)  # fmt: skip
def test_how_many_waves(classes: int, judges: int, count: int) -> None:
    assert waves(classes, judges) == count


def test_every_schedule_fits_in_ballots_and_waves() -> None:
    most = EVERY_PAIR_JUDGES * (EVERY_PAIR_JUDGES - 1)
    assert max(most, PAIRS_PER_WAVE) <= limits.ROWS_PER_BALLOT
    assert WAVES <= limits.WAVES


def test_pairs_and_orders_are_drawn_evenly() -> None:
    drawn = Counter(
        pair
        for number in range(3000)
        for pair in assigned(number.to_bytes(32, "big"), 5, 12, JUDGE, 0)
    )
    ordered = list(permutations(range(5), 2))
    assert set(drawn) == set(ordered)
    assert chisquare([drawn[pair] for pair in ordered]).pvalue > 1e-3


def test_the_first_row_is_drawn_evenly() -> None:
    """The order of questions is random too, where every pair is asked."""
    first = Counter(
        assigned(number.to_bytes(32, "big"), 3, 5, JUDGE, 0)[0] for number in range(3000)
    )
    assert chisquare([first[pair] for pair in permutations(range(3), 2)]).pvalue > 1e-3


def test_judge_and_seed_both_matter() -> None:
    schedules = {
        assigned(bytes([seed]) * 32, 6, 12, PeerId(bytes([judge]) * 32), 0)
        for seed in range(5)
        for judge in range(5)
    }
    assert len(schedules) == 25
