"""Who judges what is fixed by the seed, fair to every pair and order, and never repeated."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from protocol import limits
from protocol.ids import Digest, PeerId
from protocol.messages import Duel
from swarm.pairing import (
    ADAPTIVE_WAVES,
    EVERY_PAIR_JUDGES,
    PAIRS_PER_WAVE,
    WAVES,
    Pairing,
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


# --- adaptive ---------------------------------------------------------------------------------


def _peers(count: int) -> tuple[PeerId, ...]:
    return tuple(PeerId(bytes([number]) * 32) for number in range(1, count + 1))


@st.composite
def _adaptive(draw: st.DrawFn) -> list[Pairing]:
    """A pairing for each wave, with whatever duels the waves before ended."""
    classes = draw(st.integers(2, 9))
    pairing = Pairing(True, Digest(draw(seeds)), classes, _peers(draw(st.integers(1, 20))))
    every = sorted(combinations(range(classes), 2))
    found = [pairing]
    while pairing.wave + 1 < pairing.waves:
        pairs = draw(st.lists(st.sampled_from(every), min_size=1, max_size=6, unique=True))
        pairing = pairing.then(
            tuple(Duel(*pair, draw(st.integers(1, limits.DUELS))) for pair in sorted(pairs))
        )
        found.append(pairing)
    return found


@settings(max_examples=40)
@given(_adaptive())
def test_no_judge_gets_a_pair_twice_in_one_order(waves: list[Pairing]) -> None:
    for judge in waves[0].judges:
        had = [pair for pairing in waves for pair in pairing.pairs(judge)]
        assert len(set(had)) == len(had)
        for pairing in waves:
            pairs = [frozenset(pair) for pair in pairing.pairs(judge)]
            assert len(set(pairs)) == len(pairs), "nor in one wave in both"


@settings(max_examples=40)
@given(_adaptive())
def test_pairs_come_from_the_duels(waves: list[Pairing]) -> None:
    for pairing in waves:
        every = set(combinations(range(pairing.classes), 2))
        duels = {(duel.first, duel.second) for duel in pairing.duels[-1]} if pairing.wave else every
        for judge in pairing.judges:
            assert {(min(pair), max(pair)) for pair in pairing.pairs(judge)} <= duels
        asked = {judge for judge in pairing.judges if pairing.pairs(judge)}
        assert pairing.asked() == asked


@settings(max_examples=25)
@given(seeds, st.integers(1, limits.COMMITTEE))
def test_judges_take_turns(seed: bytes, judges: int) -> None:
    """With pairs enough for everybody, a wave asks for so many verdicts, and loads stay even."""
    pairing = Pairing(True, Digest(seed), 9, _peers(judges))
    every = tuple(Duel(*pair, 1) for pair in combinations(range(9), 2))
    loads: Counter[PeerId] = Counter()
    for size in ADAPTIVE_WAVES:
        given_now = {judge: len(pairing.pairs(judge)) for judge in pairing.judges}
        assert sum(given_now.values()) == -(-judges // 3) * size
        loads.update(given_now)
        shares = [loads[judge] for judge in pairing.judges]
        assert max(shares) - min(shares) <= 1
        pairing = pairing.then(every)


@settings(max_examples=40)
@given(_adaptive(), st.data())
def test_later_duels_change_no_earlier_wave(waves: list[Pairing], data: st.DataObject) -> None:
    """A judge works out each wave when it opens, a verifier all of them at the end."""
    judge = data.draw(st.sampled_from(waves[0].judges))
    last = waves[-1]
    for number, pairing in enumerate(waves):
        again = Pairing(True, last.seed, last.classes, last.judges, last.duels[:number])
        assert again.pairs(judge) == pairing.pairs(judge)


def test_an_adaptive_schedule_is_this() -> None:
    """Another implementation must come to the same."""
    one = Pairing(True, Digest(bytes(32)), 4, _peers(4))
    two = one.then((Duel(0, 1, 60), Duel(1, 3, 4)))
    assert [one.pairs(judge) for judge in one.judges] == [(), (), ((1, 2),), ((2, 0),)]
    assert [two.pairs(judge) for judge in two.judges] == [((0, 1),), ((1, 3),), (), ()]


def test_an_adaptive_schedule_fits_the_limits() -> None:
    assert len(ADAPTIVE_WAVES) <= limits.WAVES
    assert max(ADAPTIVE_WAVES) <= limits.ROWS_PER_BALLOT
    envelopes = 1 + limits.STAGES * (1 + len(ADAPTIVE_WAVES))
    assert envelopes <= limits.ENVELOPES_PER_PEER, "an honest peer is never cut off"
    assert 1 + limits.STAGES * (1 + WAVES) <= limits.ENVELOPES_PER_PEER


@pytest.mark.parametrize(
    ("classes", "judges", "count"), [(0, 5, 0), (1, 5, 0), (3, 0, 0), (2, 1, 6)]
)
def test_how_many_adaptive_waves(classes: int, judges: int, count: int) -> None:
    assert waves(classes, judges, adaptive=True) == count
    assert Pairing(True, Digest(bytes(32)), classes, _peers(judges)).waves == count
    assert not both_orders(judges, adaptive=True)


def test_pairs_are_drawn_by_weight_and_turned_evenly() -> None:
    duels = (Duel(0, 1, 40), Duel(0, 2, 16), Duel(1, 2, 8))
    drawn: Counter[tuple[int, int]] = Counter()
    for number in range(1500):
        pairing = Pairing(True, Digest(number.to_bytes(32, "big")), 3, _peers(3)).then(duels)
        for judge in pairing.asked():
            # One whose first pair this is: a pair had before comes in the other order.
            if not Pairing(True, pairing.seed, 3, pairing.judges).pairs(judge):
                drawn.update(pairing.pairs(judge))
    expected = [share * sum(drawn.values()) / 128 for share in (40, 40, 16, 16, 8, 8)]
    found = [drawn[pair] for pair in ((0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1))]
    assert chisquare(found, expected).pvalue > 1e-3


def test_what_a_judge_has_had_comes_in_the_other_order_and_then_no_more() -> None:
    pairing = Pairing(True, Digest(bytes(32)), 2, _peers(1))
    had = []
    while pairing.wave + 1 < pairing.waves:
        had.append(pairing.pairs(pairing.judges[0]))
        pairing = pairing.then((Duel(0, 1, limits.DUELS),))
    assert sorted(had[:2]) == [((0, 1),), ((1, 0),)]
    assert not any(had[2:])
    assert pairing.asked() == frozenset()
