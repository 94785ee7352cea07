"""Which pairs come next follows from ballots and seed, and seeks out what is in doubt."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from protocol import limits
from protocol.errors import RefusedError
from protocol.ids import Digest, PeerId
from protocol.messages import MICRO, Duel, Row
from swarm.consensus import DEFAULT_WEIGHTED, UNCALIBRATED, Case, Vote, decide, uncertainty
from swarm.duels import check_duels, draw, following
from swarm.pairing import Pairing
from swarm.reputation import NEUTRAL
from tests.swarm.builders import changed

SEED = Digest(bytes(32))
JUDGES = tuple(PeerId(bytes([number]) * 32) for number in range(12))


def _case(*rows: tuple[int, int, int], classes: int = 3) -> Case:
    """Twelve seats in so many classes; rows of (first, second, P(first) in 1e-6)."""
    members = tuple(tuple(range(index, 12, classes)) for index in range(classes))
    votes = tuple(Vote(at % 12, Row(*row)) for at, row in enumerate(rows))
    return Case(UNCALIBRATED, members, (NEUTRAL,) * 12, votes, False)


def _pairing(classes: int = 3) -> Pairing:
    return Pairing(True, SEED, classes, JUDGES)


def _share(duels: tuple[Duel, ...], index: int) -> float:
    """How much of the draws a class is part of."""
    found = sum(duel.draws for duel in duels if index in (duel.first, duel.second))
    return found / limits.DUELS


# --- drawing ------------------------------------------------------------------------------------


def test_these_are_the_duels() -> None:
    """Another implementation must come to the same."""
    assert draw(SEED, 1, (800_000, 300_000, -1_100_000), np.eye(3)) == (
        Duel(0, 1, 53),
        Duel(0, 2, 9),
        Duel(1, 2, 2),
    )


@settings(max_examples=60)
@given(
    st.binary(min_size=32, max_size=32),
    st.integers(1, limits.WAVES - 1),
    st.lists(st.integers(-5 * MICRO, 5 * MICRO), min_size=2, max_size=7),
)
def test_draws_are_counted_sorted_and_repeatable(seed: bytes, wave: int, scores: list[int]) -> None:
    factor = np.eye(len(scores))
    duels = draw(seed, wave, scores, factor)
    assert sum(duel.draws for duel in duels) == limits.DUELS
    pairs = [(duel.first, duel.second) for duel in duels]
    assert pairs == sorted(set(pairs))
    assert all(0 <= first < second < len(scores) for first, second in pairs)
    assert duels == draw(seed, wave, tuple(scores), factor)
    pairing = replace(_pairing(len(scores)), seed=Digest(seed))
    check_duels(duels, pairing)


def test_seed_and_wave_both_matter() -> None:
    drawn = {
        draw(bytes([seed]) * 32, wave, (0,) * 6, np.eye(6)) for seed in range(4) for wave in (1, 2)
    }
    assert len(drawn) == 8


def test_without_doubt_the_two_best_meet() -> None:
    assert draw(SEED, 1, (0, 3, 2, 1), np.zeros((4, 4))) == (Duel(1, 2, limits.DUELS),)
    far = (0, 30 * MICRO, 20 * MICRO, -10 * MICRO)
    assert draw(SEED, 1, far, np.eye(4)) == (Duel(1, 2, limits.DUELS),)


def test_draws_follow_the_posterior() -> None:
    """Against numpy's own normal deviates."""
    scores, factor = (500_000, 0, -400_000), np.array([[1.0, 0, 0], [0.4, 0.8, 0], [0.2, 0.1, 0.9]])
    found: Counter[tuple[int, int]] = Counter()
    for number in range(150):
        for duel in draw(number.to_bytes(32, "big"), 1, scores, factor):
            found[duel.first, duel.second] += duel.draws
    stream = np.random.default_rng(7)
    draws = stream.normal(size=(2, 200_000, 3)) @ factor.T + np.array(scores) / MICRO
    best = draws[0].argmax(axis=1)
    draws[1, np.arange(len(best)), best] = -np.inf
    rival = draws[1].argmax(axis=1)
    lower, upper = np.minimum(best, rival), np.maximum(best, rival)
    expected = [np.mean((lower == a) & (upper == b)) for a, b in combinations(range(3), 2)]
    total = sum(found.values())
    counts = [found[pair] for pair in combinations(range(3), 2)]
    assert chisquare(counts, np.array(expected) / sum(expected) * total).pvalue > 1e-3


# --- what comes next ----------------------------------------------------------------------------


def test_the_leader_meets_its_rivals() -> None:
    """Class 2 has lost against everybody, so it is asked about the least."""
    rows = [(0, 2, MICRO), (1, 2, MICRO), (2, 0, 0), (2, 1, 0)] * 6
    case = _case(*rows)
    after = following(_pairing(), case, decide(case))
    assert after is not None
    (duels,) = after.duels
    assert _share(duels, 2) < 0.2 < 0.9 < _share(duels, 0)


def test_what_was_compared_less_is_asked_about_more() -> None:
    """Classes 2 and 3 stand alike, but of 3 little is known."""
    often = [(0, 1, MICRO // 2), (0, 2, 700_000), (1, 2, 700_000)] * 8
    case = _case(*often, (0, 3, 700_000), classes=4)
    after = following(_pairing(4), case, decide(case))
    assert after is not None
    (duels,) = after.duels
    assert _share(duels, 3) > _share(duels, 2)


def test_it_is_the_deciding_score_that_counts() -> None:
    """With weights for votes alone, ballots leave no doubt and change nothing."""
    rule = changed(DEFAULT_WEIGHTED, theta=(MICRO, 0, 0))
    case = replace(_case((1, 2, MICRO)), rule=rule, classes=((0, 1, 2), (3,), (4, 5)))
    after = following(_pairing(), case, decide(case))
    assert after is not None
    assert after.duels == ((Duel(0, 2, limits.DUELS),),)


def test_the_order_of_ballots_changes_nothing() -> None:
    rows = [(0, 1, 900_000), (1, 2, 300_000), (2, 0, 450_000), (0, 2, 800_000)]
    case = _case(*rows)
    turned = replace(case, votes=case.votes[::-1])
    assert following(_pairing(), case, decide(case)) == following(
        _pairing(), turned, decide(turned)
    )


def test_the_schedule_ends() -> None:
    case = _case((0, 1, MICRO))
    pairing: Pairing | None = _pairing()
    waves = 0
    while pairing is not None:
        waves += 1
        pairing = following(pairing, case, decide(case))
    assert waves == _pairing().waves


def test_it_ends_early_where_nobody_has_a_pair_left() -> None:
    """One judge, one pair: two verdicts are all that can be asked."""
    case = _case((0, 1, MICRO), classes=2)
    pairing: Pairing | None = Pairing(True, SEED, 2, JUDGES[:1])
    waves = 0
    while pairing is not None:
        waves += 1
        assert pairing.asked()
        pairing = following(pairing, case, decide(case))
    assert waves == 2


@pytest.mark.parametrize(("classes", "judges", "waves"), [(3, 9, 1), (6, 12, 3), (1, 5, 1)])
def test_the_full_schedule_needs_no_ballots(classes: int, judges: int, waves: int) -> None:
    case = _case(classes=classes)
    pairing: Pairing | None = Pairing(False, SEED, classes, JUDGES[:judges])
    found = []
    while pairing is not None:
        found.append(pairing.duels)
        pairing = following(pairing, case, decide(case))
    assert found == [((),) * number for number in range(waves)]


def test_uncertainty_shrinks_where_there_are_verdicts() -> None:
    assert uncertainty(_case()) == pytest.approx(np.eye(3))
    often = uncertainty(_case(*[(0, 1, 600_000), (1, 0, 400_000)] * 6))
    assert often[0, 0] < 0.7
    assert often[2, 2] == pytest.approx(1.0)
    assert often[0, 1] > 0.2, "what is known is their difference"


# --- what a judge refuses -----------------------------------------------------------------------


def _many(*pairs: tuple[int, int]) -> tuple[Duel, ...]:
    """All draws on these pairs."""
    rest = limits.DUELS - len(pairs) + 1
    return (Duel(*pairs[0], rest), *(Duel(*pair, 1) for pair in pairs[1:]))


@pytest.mark.parametrize(
    ("duels", "why"),
    [
        ((), "not the right number"),
        ((Duel(0, 1, limits.DUELS - 1),), "not the right number"),
        ((Duel(0, 1, limits.DUELS), Duel(0, 2, 1)), "not the right number"),
        (_many((0, 2), (0, 1)), "not sorted"),
        (_many((0, 1), (0, 1)), "not sorted"),
        (_many((1, 0)), "not between two classes"),
        (_many((1, 1)), "not between two classes"),
        (_many((0, 1), (0, 3)), "not between two classes"),
    ],
)
def test_bent_duels_are_refused(duels: tuple[Duel, ...], why: str) -> None:
    check_duels(_many((0, 1), (0, 2), (1, 2)), _pairing())
    with pytest.raises(RefusedError, match=why):
        check_duels(duels, _pairing())


def test_no_duels_open_a_wave_that_there_cannot_be() -> None:
    pairing = _pairing()
    while pairing.wave + 1 < pairing.waves:
        check_duels(_many((0, 1)), pairing)
        pairing = pairing.then(_many((0, 1)))
    with pytest.raises(RefusedError, match="there cannot be"):
        check_duels(_many((0, 1)), pairing)


def test_in_the_full_schedule_the_seed_alone_chooses() -> None:
    pairing = Pairing(False, SEED, 6, JUDGES)
    check_duels((), pairing)
    with pytest.raises(RefusedError, match="the seed alone chooses"):
        check_duels(_many((0, 1)), pairing)
