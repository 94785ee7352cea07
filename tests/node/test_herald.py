"""What a node's log tells of its calibration, and when."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
from trio.testing import MockClock

from node.herald import Herald
from node.knowledge import Knowledge
from protocol import limits
from protocol.ids import PeerId, RoundId
from protocol.ledger import HINT_DAY_S, Hints
from swarm.hints import counts_now, daily
from swarm.topics import Topics
from swarm.trial import Trial
from tests.fakes.trial_records import FakeTrialRecords
from tests.node.virtual_node import EPOCH, inline, unix_time
from tests.swarm.trials import mark, trial
from tests.swarm.virtual import signer

TODAY = EPOCH // HINT_DAY_S
UNTIL_MIDNIGHT = HINT_DAY_S - EPOCH % HINT_DAY_S


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual clock would run on beside a thread."""
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


def peer(name: str) -> PeerId:
    return signer(name).peer


def seen(*subjects: PeerId, day: int, rounds: int = 1) -> list[Trial]:
    """Trials of a day in which these were good."""
    made = []
    for number in range(rounds):
        round_id = RoundId(day.to_bytes(16, "big") + number.to_bytes(16, "big"))
        marks = [msgspec.structs.replace(mark("x", (6, 6)), peer=one) for one in subjects]
        whole = trial(*marks, topic="add", kind="hidden", at=day * HINT_DAY_S + number)
        made.append(msgspec.structs.replace(whole, round=round_id))
    return made


def remembering(*trials: Trial) -> FakeTrialRecords:
    records = FakeTrialRecords()
    records.trials = {one.round: one for one in trials}
    return records


class Teller:
    """A herald at work.

    Attributes:
        told: what its log was to say, in order.
    """

    def __init__(self, trials: Sequence[Trial], clock: Callable[[], float]) -> None:
        self.knowledge = Knowledge(
            remembering(*trials), Topics(()), b"seed", trials=trials, clock=clock
        )
        self.told: list[Hints] = []
        self.herald = Herald(self.knowledge, self.told.append, clock)

    def days(self) -> list[int]:
        """Each day once, as a log would have them."""
        return sorted({said.day for said in self.told})


@asynccontextmanager
async def telling(*trials: Trial, clock: Callable[[], float] = unix_time) -> AsyncIterator[Teller]:
    one = Teller(trials, clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.herald.run)
        await trio.sleep(1.0)
        yield one
        nursery.cancel_scope.cancel()


async def test_days_that_are_over_and_count_are_told_of_at_once(
    autojump_clock: MockClock,
) -> None:
    days = [TODAY - limits.HINT_DAYS - 1, TODAY - limits.HINT_DAYS, TODAY - 3, TODAY - 1]
    trials = [one for day in days for one in seen(peer("x"), day=day, rounds=day % 3 + 1)]
    async with telling(*trials) as one:
        assert [said.day for said in one.told] == days[1:]
        for said in one.told:
            assert said == daily(trials, said.day)
            assert counts_now(said, int(unix_time()))


async def test_what_a_day_still_brings_is_told_to_nobody(autojump_clock: MockClock) -> None:
    """Whoever looks before and after a round would learn whether it was a test."""
    trials = seen(peer("x"), day=TODAY, rounds=3)
    async with telling(*trials[:2]) as one:
        await one.knowledge.add(trials[2])
        await trio.sleep(UNTIL_MIDNIGHT - 60)
        assert one.told == []


async def test_a_day_is_told_of_when_it_is_over(autojump_clock: MockClock) -> None:
    async with telling(*seen(peer("x"), day=TODAY, rounds=2)) as one:
        await trio.sleep(UNTIL_MIDNIGHT + 60)
        assert one.days() == [TODAY]
        assert one.told[0].subjects[0].sums[0].rounds == 2
        await one.knowledge.add(seen(peer("y"), day=TODAY + 1)[0])
        await trio.sleep(HINT_DAY_S)
        assert one.days() == [TODAY, TODAY + 1]
        await trio.sleep(limits.HINT_DAYS * HINT_DAY_S)
        before = len(one.told)
        await trio.sleep(2 * HINT_DAY_S)
        assert len(one.told) == before, "nothing is said of days that count no more"


async def test_what_is_graded_anew_is_told_anew(autojump_clock: MockClock) -> None:
    """A day that is over still changes where its rounds are looked at again."""
    first, second = seen(peer("x"), day=TODAY - 1, rounds=2)
    async with telling(first) as one:
        await one.knowledge.add(second)
        await trio.sleep(UNTIL_MIDNIGHT + 60)
        assert [said.subjects[0].sums[0].rounds for said in one.told] == [1, 2]


async def test_a_clock_that_rings_early_tells_of_the_day_all_the_same(
    autojump_clock: MockClock,
) -> None:
    """The monotonic clock may run ahead of the other."""
    began = trio.current_time()

    def slow() -> float:
        return EPOCH + began + 0.99999 * (trio.current_time() - began)

    async with telling(*seen(peer("x"), day=TODAY), clock=slow) as one:
        await trio.sleep(UNTIL_MIDNIGHT + 600)
        assert one.days() == [TODAY]


async def test_a_day_without_trials_is_not_spoken_of(autojump_clock: MockClock) -> None:
    async with telling() as one:
        await trio.sleep(2 * HINT_DAY_S)
        assert one.told == []
