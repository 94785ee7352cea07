"""A question's time covers all its phases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.codec import decode, encode
from protocol.messages import Phases
from swarm.budget import SHORTEST_MS, divide


@given(
    st.integers(limits.STAGES * SHORTEST_MS, 10**9),
    st.integers(0, limits.WAVES),
    st.integers(1, limits.STAGES),
)
def test_phases_stay_within_the_time(timeout_ms: int, waves: int, stages: int) -> None:
    phases = divide(timeout_ms, waves, stages)
    stage = phases.commit + phases.reveal + max(1, waves) * phases.judge
    assert stages * stage <= timeout_ms
    assert decode(encode(phases), Phases) == phases, "every peer would accept these"


def test_half_for_answers_and_the_rest_for_judging() -> None:
    assert divide(60_000) == Phases(commit=30_000, reveal=6_000, judge=21_000)
    assert divide(60_000, waves=3) == Phases(commit=30_000, reveal=6_000, judge=7_000)
    assert divide(SHORTEST_MS) == Phases(commit=250, reveal=50, judge=175)


def test_every_stage_has_an_equal_share() -> None:
    assert divide(60_000, waves=3, stages=4) == divide(15_000, waves=3)
    with pytest.raises(ValueError, match="a stage needs at least 500 ms"):
        divide(4 * SHORTEST_MS - 1, stages=4)


def test_no_phase_is_longer_than_a_participant_agrees_to() -> None:
    assert divide(10**9) == Phases(limits.PHASE_MS, limits.PHASE_MS, limits.PHASE_MS)


def test_too_little_time_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 500 ms"):
        divide(SHORTEST_MS - 1)
