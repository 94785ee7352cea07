"""The terms of the stake formula."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.record import FADING, HIDDEN_PAIRS
from swarm.reputation import judge_weight
from swarm.sequential import Cusum, Sprt
from swarm.stake import (
    FLIPPED,
    GAINS,
    LOST,
    PAIRS,
    identity_cost,
    questions_until_found,
    stake,
)

accuracies = st.floats(0.63, 0.95)


@given(accuracies)
def test_the_breakdown_is_that_of_a_weighted_majority(accuracy: float) -> None:
    pairs = (identity_cost(accuracy) / (1 + 0.3 * PAIRS) - 5) * PAIRS + HIDDEN_PAIRS
    settled = PAIRS / (1 - FADING)
    ring = judge_weight(accuracy * pairs, pairs) / judge_weight(accuracy * settled, settled)
    margin = 2 * accuracy - 1
    assert stake(accuracy, 15).fraction == pytest.approx(margin / (margin + ring))


@given(accuracies, st.integers(1, 100))
def test_the_ring_and_the_honest_balance(accuracy: float, honest: int) -> None:
    """At m* the ring outweighs the margin by which the honest are right; with one less it fails."""
    found = stake(accuracy, honest)
    settled = judge_weight(accuracy * PAIRS / (1 - FADING), PAIRS / (1 - FADING))
    weight = settled * (2 * accuracy - 1) * (1 - found.fraction) / found.fraction
    margin = (2 * accuracy - 1) * honest * settled
    assert found.identities * weight >= margin * (1 - 1e-9)
    assert (found.identities - 1) * weight < margin


@given(accuracies)
def test_the_harmless_gain_needs_no_stake_and_more_does(accuracy: float) -> None:
    found = stake(accuracy, 15)
    for gain, needed in zip(GAINS, found.needed, strict=True):
        assert (needed > 0) == (gain > found.harmless)
        paid = FLIPPED * gain * found.rounds / found.identities - found.cost
        assert needed == pytest.approx(max(0.0, paid / LOST))


def test_more_honest_peers_and_more_calibration_make_it_dearer() -> None:
    usual = stake(0.77, 15)
    assert stake(0.77, 60).identities > usual.identities
    assert stake(0.77, 60).harmless > usual.harmless
    assert stake(0.77, 15, rate=0.2).rounds == usual.rounds / 2


def test_newcomers_by_number_alone_do_nothing() -> None:
    assert not stake(0.65, 15).newcomers


@given(accuracies)
def test_an_able_judge_is_admitted_in_about_the_questions_that_are_paid_for(a: float) -> None:
    test, questions = Sprt(), 0
    while test.decision == "open":
        test, questions = test.after(a * PAIRS, PAIRS), questions + 1
    paid = identity_cost(a) / (1 + 0.3 * PAIRS) - 5
    assert test.decision == "admitted"
    assert abs(questions - paid) <= 2 + 0.05 * questions


@given(accuracies)
def test_a_ring_is_found_in_the_questions_that_the_alarm_takes(accuracy: float) -> None:
    watch, questions = Cusum(), 0
    while not watch.alarmed:
        watch, questions = watch.after(0.0, PAIRS, accuracy), questions + 1
    assert questions == questions_until_found(accuracy)
