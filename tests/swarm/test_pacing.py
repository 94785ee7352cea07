"""Hidden tasks come when real questions come: nobody tells them by their time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.pacing import LONGEST_S, PAUSES, SPREAD, USUAL_S, Pacing
from swarm.seeded import Stream

ROUND_S = 0.5


def day(
    rate: float, pause: Callable[[Stream], float], questions: int, seed: bytes = b"day"
) -> tuple[list[float], list[float]]:
    """Somebody asks one question after another.

    Returns:
        Seconds from the end of the round before to the start, of real questions and of tasks.
    """
    people, pacing = Stream(b"people/" + seed), Pacing(rate, Stream(seed))
    now = ended = 0.0
    real: list[float] = []
    hidden: list[float] = []
    for _ in range(questions):
        next_at = now + pause(people)
        while pacing.due is not None and pacing.due < next_at:
            hidden.append(pacing.due - ended)
            ended = pacing.due + ROUND_S
            pacing.put()
            pacing.tested(ended)
        now = max(next_at, ended)
        real.append(now - ended)
        pacing.asked(now)
        now += ROUND_S
        ended = now
        pacing.answered(now)
    return real, hidden


def exponential(stream: Stream) -> float:
    return -20.0 * math.log(1.0 - stream.unit())


def steady(stream: Stream) -> float:
    return 15.0 + 10.0 * stream.unit()


def bursts(stream: Stream) -> float:
    return 5.0 * stream.unit() if stream.below(4) else 200.0 + 100.0 * stream.unit()


def auc(one: list[float], other: list[float]) -> float:
    """Chance that a draw of ``one`` is below a draw of ``other``."""
    both = np.sort(np.array(other))
    return float(np.mean(1.0 - np.searchsorted(both, np.array(one)) / len(both)))


@pytest.mark.parametrize("pause", [exponential, steady, bursts])
def test_pauses_do_not_tell(pause: Callable[[Stream], float]) -> None:
    real, hidden = day(0.1, pause, 6_000)
    assert abs(auc(hidden, real) - 0.5) < 0.1


def test_pauses_drawn_like_real_ones_would_tell() -> None:
    """What the weights are for: the shorter of two exponential pauses is half as long."""
    stream = Stream(b"naive")
    pairs = [(exponential(stream), exponential(stream)) for _ in range(4_000)]
    won = [task for task, person in pairs if task < person]
    assert auc(won, [person for _, person in pairs]) > 0.62


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2])
def test_the_rate_is_kept(rate: float) -> None:
    real, hidden = day(rate, exponential, 6_000)
    assert len(hidden) / (len(real) + len(hidden)) == pytest.approx(rate, rel=0.2)


def test_no_rate_no_task() -> None:
    assert day(0.0, exponential, 500)[1] == []


def test_a_real_question_ends_the_chance_of_a_task() -> None:
    pacing = Pacing(0.5, Stream(b"x"))
    for now in range(100):
        pacing.asked(100.0 * now)
        assert pacing.due is None
        pacing.answered(100.0 * now + 1.0)
    assert pacing.due is not None
    pacing.asked(1e6)
    assert pacing.due is None


def test_no_task_is_due_while_any_real_round_runs() -> None:
    pacing = Pacing(0.5, Stream(b"y"))
    for number in range(50):
        pacing.asked(10.0 * number)
        pacing.asked(10.0 * number + 1.0)
        pacing.answered(10.0 * number + 2.0)
        assert pacing.due is None, "the other still runs"
        pacing.tested(10.0 * number + 2.5)
        assert pacing.due is None
        pacing.answered(10.0 * number + 3.0)


def test_before_anything_was_asked_nothing_is_due() -> None:
    pacing = Pacing(0.5, Stream(b"z"))
    pacing.tested(5.0)
    assert pacing.due is None


@given(st.lists(st.floats(0.0, 1e5), max_size=100), st.floats(0.0, 0.5), st.binary(max_size=8))
def test_pauses_are_bounded_and_recomputable(pauses: list[float], rate: float, seed: bytes) -> None:
    def run() -> list[float | None]:
        pacing, now, found = Pacing(rate, Stream(seed)), 0.0, []
        for pause in pauses:
            now += pause
            pacing.asked(now)
            now += 1.0
            pacing.answered(now)
            if pacing.due is not None:
                longest = max(LONGEST_S, 4.0 * USUAL_S) * (1.0 + SPREAD)
                assert now <= pacing.due <= now + longest
            found.append(pacing.due)
        return found

    assert run() == run()
    assert PAUSES < 100
