"""The fake trial records do what the real ones do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from node.store import Store
from node.trial_records import TrialRecords
from protocol import limits
from protocol.ids import RoundId
from swarm.trial import Trial
from tests.fakes.trial_records import FakeTrialRecords

Open = Callable[[], AbstractAsyncContextManager[Any]]


def trial(number: int, topic: str = "") -> Trial:
    round_id = RoundId(number.to_bytes(32, "big"))
    return Trial(
        round=round_id,
        at=number,
        topic=topic,
        task="",
        kind="graded",
        chosen=None,
        right=None,
        answerers=0,
        weighted=(),
        equal=(),
        marks=(),
    )


@pytest.fixture(params=["fake", "real"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens records of either kind, the same ones each time."""
    kept = FakeTrialRecords()

    @asynccontextmanager
    async def fake() -> AsyncIterator[FakeTrialRecords]:
        yield kept

    @asynccontextmanager
    async def real() -> AsyncIterator[TrialRecords]:
        async with Store.open(tmp_path) as store:
            yield TrialRecords(store)

    return fake if request.param == "fake" else real


async def test_trials_are_kept_in_order_one_for_each_round(opened: Open) -> None:
    async with opened() as records:
        assert await records.all() == []
        assert not await records.keep(trial(2))
        assert not await records.keep(trial(1))
        assert await records.keep(trial(2, "sums"))
    async with opened() as records:
        assert await records.all() == [trial(1), trial(2, "sums")]


async def test_the_newest_trials_are_kept(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TRIALS", 3)
    async with opened() as records:
        for number in range(5):
            await records.keep(trial(number))
        assert await records.all() == [trial(2), trial(3), trial(4)]


async def test_tasks_are_kept_newest_first_to_stay(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TASKS_POSED", 3)
    async with opened() as records:
        assert await records.posed() == []
        for task in (b"a", b"b", b"c", b"d"):
            await records.pose(task)
    async with opened() as records:
        assert await records.posed() == [b"b", b"c", b"d"]
