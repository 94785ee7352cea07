"""The early stop, on rounds whose every verdict is fixed: fewer comparisons, hardly worse."""

from __future__ import annotations

import pytest

from swarm.pairing import ADAPTIVE_WAVES
from swarm.simulate.stopping import Stopped, play, saved
from swarm.simulate.world import WORLDS


def test_fewer_comparisons_for_hardly_less() -> None:
    found = saved(list(play(WORLDS["A"], 12, 250, 0.8, 3)))
    assert found["against"]["everything"]["fewer"] > 3.0
    assert found["against"]["full"]["fewer"] > 1.3
    gain = found["against"]["everything"]
    assert gain["difference"] > -0.03 - gain["ci95"]
    assert 1.0 <= found["waves"] <= len(ADAPTIVE_WAVES)


def test_the_same_seed_plays_the_same() -> None:
    def run(seed: int) -> list[Stopped]:
        return list(play(WORLDS["B"], 6, 15, 0.9, seed))

    assert run(1) == run(1) != run(2)


def test_a_higher_threshold_asks_more_on_the_same_rounds() -> None:
    low, high = (list(play(WORLDS["A"], 10, 40, at, 4)) for at in (0.7, 0.999999))
    for few, many in zip(low, high, strict=True):
        assert few.comparisons["everything"] == many.comparisons["everything"]
        assert few.comparisons["adaptive"] <= many.comparisons["adaptive"]
        assert few.waves <= many.waves
    assert max(one.waves for one in high) == len(ADAPTIVE_WAVES)
    assert sum(one.waves for one in low) < sum(one.waves for one in high)


def test_savings_by_hand() -> None:
    one = Stopped(
        {"everything": True, "full": True, "adaptive": False},
        {"everything": 60, "full": 30, "adaptive": 10}, 2,
    )  # fmt: skip
    two = Stopped(
        {"everything": True, "full": False, "adaptive": True},
        {"everything": 40, "full": 30, "adaptive": 10}, 4,
    )  # fmt: skip
    found = saved([one, two])
    assert found["waves"] == 3
    assert found["schedules"]["adaptive"] == {"accuracy": 0.5, "comparisons": 10}
    assert found["against"]["everything"]["fewer"] == pytest.approx(5.0)
    assert found["against"]["everything"]["difference"] == pytest.approx(-0.5)
    assert found["against"]["full"]["difference"] == pytest.approx(0.0)
