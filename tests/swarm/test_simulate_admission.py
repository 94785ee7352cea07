"""The sequential tests in the simulated world."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from swarm.simulate.admission import AFTER_SWAP, PAIRS, accuracy, admit, judged, skill_of, swap
from swarm.simulate.world import WORLDS

A = WORLDS["A"]


def test_a_judge_sees_up_to_so_many_telling_pairs() -> None:
    found = list(islice(judged(np.random.default_rng(1), A, 0.3, lazy=False), 200))
    assert max(pairs for _, pairs in found) == PAIRS
    assert min(pairs for _, pairs in found) == 0
    assert all(0 <= right <= pairs for right, pairs in found)


def test_the_skilful_judge_better_and_the_lazy_by_a_coin() -> None:
    assert accuracy(A, 1.0, 1, 300) > accuracy(A, -1.0, 1, 300) + 0.1
    coin = list(islice(judged(np.random.default_rng(1), A, 1.0, lazy=True), 300))
    assert sum(right for right, _ in coin) / sum(pairs for _, pairs in coin) == pytest.approx(
        0.5, abs=0.05
    )


def test_a_skill_is_found_for_an_accuracy() -> None:
    skill = skill_of(A, 0.7, 1, questions=200, steps=7)
    assert accuracy(A, skill, 1, 200) == pytest.approx(0.7, abs=0.02)


def test_a_coin_is_refused_and_an_able_judge_admitted() -> None:
    coin = admit(A, "coin", None, 60, 3)
    able = admit(A, "able", 0.5, 60, 3)
    assert (coin.admitted, coin.accuracy) == (0.0, 0.5)
    assert coin.refused > 0.9
    assert able.admitted > 0.9
    assert able.questions < coin.questions
    assert coin.admitted + coin.refused + coin.undecided == pytest.approx(1.0)
    assert able.pairs <= PAIRS * able.questions


def test_a_much_weaker_model_is_found_and_an_equal_one_is_not() -> None:
    weaker, equal = swap(A, 2.0, 6, 3), swap(A, 0.0, 6, 3)
    assert weaker.found == 1.0
    assert weaker.questions is not None
    assert weaker.questions < AFTER_SWAP / 2
    assert weaker.after < weaker.before
    assert equal.found < 0.5
    assert equal.questions is None
    assert equal.before == equal.after
