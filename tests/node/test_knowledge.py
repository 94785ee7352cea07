"""What a node knows: on disk before it counts, the same after a restart, drawn once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing

from node import knowledge as knowing
from node.knowledge import Knowledge
from node.store import Store
from node.trial_records import TrialRecords
from protocol import limits
from protocol.errors import StoreError
from protocol.ids import PeerId, RoundId
from protocol.ledger import HINT_DAY_S
from protocol.messages import MICRO
from swarm.calibration.items import Item
from swarm.calibration.source import ExhaustedError
from swarm.hints import daily
from swarm.topics import Topics
from swarm.trial import Trial, judged
from tests.fakes.trial_records import FakeTrialRecords
from tests.node.virtual_node import inline, topics
from tests.swarm.test_hints import days, hints, word
from tests.swarm.trials import tried
from tests.swarm.virtual import Peer, VirtualSwarm, knows, signer

NAMES = ("a", "b", "c", "d")
NOW = 1_700_000_000
DAY = NOW // HINT_DAY_S
PRIVATE = tuple(
    Item(f"Which port has gateway {number}?", (str(8_000 + number),), "ports", "private")
    for number in range(6)
)


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything happens in one thread, and so in one order."""
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


class Clock:
    """Unix time that stands until it is set."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def peer(name: str) -> PeerId:
    return signer(name).peer


async def knowing_of(
    records: FakeTrialRecords, *, clock: Clock | None = None, **fields: Any
) -> Knowledge:
    """What a node knows that starts with these records."""
    values: dict[str, Any] = {"topics": Topics(()), "seed": b"seed"} | fields
    return Knowledge(
        records,
        trials=await records.all(),
        posed=await records.posed(),
        clock=clock or Clock(),
        **values,
    )


def trials(count: int, topic: str = "sums", at: int = NOW) -> list[Trial]:
    """Rounds in which all were good."""
    made = [tried(dict.fromkeys(NAMES, (6, 6)), topic=topic, at=at + number)
            for number in range(count)]  # fmt: skip
    return [
        Trial(RoundId(topic.encode().ljust(16) + number.to_bytes(16, "big")),
              *(getattr(one, name) for name in Trial.__struct_fields__[1:]))
        for number, one in enumerate(made)
    ]  # fmt: skip


def state(one: Knowledge) -> Any:
    """What it reckons with."""
    names = [peer(name) for name in NAMES]
    return [one.book.rule(topic, names) for topic in ("sums", "date", "")], one.book.trials


def round_of(*answers: str, truth: str = "42") -> bytes:
    """The receipt of a round with these answers."""
    peers = [Peer(name, text, knows(truth)) for name, text in zip(NAMES, answers, strict=False)]
    return VirtualSwarm(peers).run().receipt


# --- drawing --------------------------------------------------------------------------------------


async def test_no_task_is_drawn_twice_not_even_after_a_restart() -> None:
    records = FakeTrialRecords()
    questions = []
    for _ in range(3):
        one = await knowing_of(records)
        for _ in range(40):
            item, task = await one.draw()
            family, level, style = task.split("/")
            assert item.task is not None
            assert (item.task.family, item.task.level) == (family, int(level))
            assert style in ("plain", "free")
            assert item.is_right(item.answers[0])
            questions.append(item.question)
    assert len(set(questions)) == len(records.tasks) == len(set(records.tasks)) == 120


async def test_a_private_question_is_put_once() -> None:
    records = FakeTrialRecords()
    seen: list[str] = []
    for _ in range(4):
        one = await knowing_of(records, private=PRIVATE)
        drawn = [await one.draw() for _ in range(9)]
        seen += [item.question for item, task in drawn if not task]
    assert sorted(seen) == sorted(item.question for item in PRIVATE)
    assert len(records.tasks) == 36


async def test_private_questions_are_one_of_three() -> None:
    many = [Item(f"Question {number}?", ("yes",), None, "private") for number in range(400)]
    one = await knowing_of(FakeTrialRecords(), private=many)
    private = sum(not task for _, task in [await one.draw() for _ in range(300)])
    assert private == pytest.approx(100, abs=25)


async def test_different_seeds_draw_differently() -> None:
    drawn = []
    for seed in (b"a", b"b", b"a"):
        one = await knowing_of(FakeTrialRecords(), seed=seed)
        drawn.append([(await one.draw())[0].question for _ in range(5)])
    assert drawn[0] == drawn[2]
    assert not set(drawn[0]) & set(drawn[1])


async def test_what_is_asked_for_is_drawn_more_often() -> None:
    one = await knowing_of(FakeTrialRecords(), topics=topics())
    other = await knowing_of(FakeTrialRecords(), topics=topics())
    for _ in range(30):
        one.asked("What is 5 plus 8?")
    assert one.topic("What is 5 plus 8?") == "add"

    async def share(of: Knowledge) -> int:
        return sum(task.startswith("add/") for _, task in [await of.draw() for _ in range(100)])

    assert await share(one) > 3 * await share(other)


async def test_a_disk_that_fails_lets_nothing_be_put(monkeypatch: pytest.MonkeyPatch) -> None:
    records = FakeTrialRecords()
    one = await knowing_of(records, private=PRIVATE)

    async def full(task: bytes) -> None:
        raise StoreError("full")

    with monkeypatch.context() as patched:
        patched.setattr(records, "pose", full)
        for _ in range(10):
            with pytest.raises(StoreError):
                await one.draw()
    assert records.tasks == []
    await one.draw()
    assert len(records.tasks) == 1


async def test_when_there_is_nothing_left_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    one = await knowing_of(FakeTrialRecords(), private=PRIVATE)

    def exhausted(*lesson: object) -> None:
        raise ExhaustedError

    monkeypatch.setattr(one._examiner._source, "next", exhausted)
    private = 0
    for _ in range(60):
        with suppress(ExhaustedError):
            private += not (await one.draw())[1]
    assert private == len(PRIVATE)
    with pytest.raises(ExhaustedError):
        await one.draw()


async def test_two_draws_at_once_are_two_tasks() -> None:
    records = FakeTrialRecords()
    one = await knowing_of(records)
    drawn: list[str] = []
    inside = 0

    async def pose(task: bytes) -> None:
        nonlocal inside
        inside += 1
        assert inside == 1, "one at a time"
        await trio.testing.wait_all_tasks_blocked()
        inside -= 1

    async def draw() -> None:
        drawn.append((await one.draw())[0].question)

    records.pose = pose  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(draw)
    assert len(set(drawn)) == 8


# --- learning -------------------------------------------------------------------------------------


async def test_a_graded_round_becomes_evidence() -> None:
    records, clock = FakeTrialRecords(), Clock()
    one = await knowing_of(records, clock=clock, topics=Topics([("maths", "What is 6 * 7?")] * 9))
    found = judged(round_of("42", "41", "7"))
    clock.now += 10.5
    made = await one.learn(found, [text == "42" for text in found.opened.answers], "graded")
    assert await records.all() == [made]
    assert (made.at, made.topic, made.kind, made.task) == (NOW + 10, "maths", "graded", "")
    assert (made.chosen, made.right is None) == (True, False)
    assert {mark.peer for mark in made.marks} == {peer(name) for name in "abc"}
    assert one.book.trials == 1
    assert one.book.topics == {"maths": 1.0}
    (standing,) = one.book.standings([peer("a")], "maths")
    assert standing.answer.right == standing.answer.total == MICRO


async def test_what_is_not_on_disk_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    records = FakeTrialRecords()
    one = await knowing_of(records)
    for each in trials(5):
        await one.add(each)
    before, day = state(one), await one.hints(DAY)
    found = judged(round_of("42", "41"))

    async def full(trial: Trial) -> bool:
        raise StoreError("full")

    with monkeypatch.context() as patched:
        patched.setattr(records, "keep", full)
        with pytest.raises(StoreError):
            await one.learn(found, [True, False], "hidden", "add/1/plain")
        with pytest.raises(StoreError):
            await one.add(trials(1, "date")[0])
    assert state(one) == before
    assert await one.hints(DAY) == day
    assert len(await records.all()) == 5
    await one.learn(found, [True, False], "hidden", "add/1/plain")
    assert one.book.trials == 6


async def test_a_rewriting_that_fails_leaves_what_was_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = FakeTrialRecords()
    one = await knowing_of(records)
    for each in trials(5):
        await one.add(each)
    before = state(one)

    async def broken() -> list[Trial]:
        raise StoreError("no")

    with monkeypatch.context() as patched:
        patched.setattr(records, "all", broken)
        with pytest.raises(StoreError):
            await one.add(trials(1)[0])
    assert state(one) == before


async def test_grading_a_round_again_replaces_the_grade() -> None:
    records = FakeTrialRecords()
    one = await knowing_of(records)
    for each in trials(4):
        await one.add(each)
    found = judged(round_of("42", "41"))
    truth = [text == "42" for text in found.opened.answers]
    wrong = await one.learn(found, [not right for right in truth], "graded")
    await one.add(trials(1, "date")[0])
    right = await one.learn(found, truth, "graded")
    assert wrong.round == right.round
    assert await records.all() == [*trials(4), trials(1, "date")[0], right]
    assert state(one) == state(await knowing_of(records))
    assert one.book.trials == 6


async def test_what_is_learnt_while_the_book_is_rewritten_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = FakeTrialRecords()
    one = await knowing_of(records)
    for each in trials(3):
        await one.add(each)
    reading = records.all
    began = trio.Event()

    async def slow() -> list[Trial]:
        found = await reading()
        began.set()
        await trio.testing.wait_all_tasks_blocked()
        return found

    monkeypatch.setattr(records, "all", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.add, trials(1)[0])
        await began.wait()
        nursery.start_soon(one.add, trials(1, "date")[0])
    monkeypatch.undo()
    assert one.book.trials == 4
    assert one.book.topics.keys() == {"sums", "date"}
    assert state(one) == state(await knowing_of(records))


async def test_a_restart_knows_the_same() -> None:
    records = FakeTrialRecords()
    one = await knowing_of(records)
    assert state(one)[0][0][0].name == "equal"
    for each in (*trials(12), *trials(12, "date"), *trials(5, "")):
        await one.add(each)
    again = await knowing_of(records)
    assert state(again) == state(one)
    assert await again.hints(DAY) == await one.hints(DAY)
    assert state(one)[0][0][0].name == "weighted"


def _level(one: Knowledge, family: str) -> int:
    return one._examiner.curriculum._cells[family, "plain"].level


async def test_a_restart_draws_at_the_same_levels() -> None:
    records = FakeTrialRecords()
    one = await knowing_of(records)
    found = judged(round_of("42", "42.0"))
    for number in range(4):
        receipt = VirtualSwarm([Peer("a", "1"), Peer("b", "1")], seed=bytes([number])).run().receipt
        await one.learn(judged(receipt), [True], "hidden", f"add/{1 + number // 2}/plain")
    assert _level(one, "add") == 3
    assert _level(await knowing_of(records), "add") == 3
    for task in ("", "add", "add//plain", "add/²/plain", "add/1/verse", "gone/1/plain", "a/b/c/d"):
        await one.learn(found, [True], "hidden", task)
    assert _level(one, "add") == 3


# --- for others -----------------------------------------------------------------------------------


async def test_the_sums_of_each_day() -> None:
    one = await knowing_of(FakeTrialRecords())
    first = trials(3, at=NOW)
    second = trials(2, "date", at=NOW + HINT_DAY_S)
    for each in (*first, *second):
        await one.add(each)
    assert await one.hints(DAY) == daily(first, DAY)
    assert await one.hints(DAY + 1) == daily(second, DAY + 1)
    await one.add(trials(1, "more", at=NOW)[0])
    sums = [one for of in (await one.hints(DAY)).subjects for one in of.sums]
    assert {(row.topic, row.rounds) for row in sums} == {("", 4)}, "its own topics are not named"
    assert (await one.hints(DAY - 1)).subjects == ()


async def test_a_round_that_is_graded_again_is_in_the_sums_once() -> None:
    one = await knowing_of(FakeTrialRecords())
    for each in trials(3) * 2:
        await one.add(each)
    assert await one.hints(DAY) == daily(trials(3), DAY)
    assert (await one.hints(DAY)).subjects[0].sums[0].rounds == 3


async def test_days_that_are_long_over_are_forgotten() -> None:
    one = await knowing_of(FakeTrialRecords())
    for day in range(40):
        (each,) = trials(1, str(day), at=NOW + day * HINT_DAY_S)
        await one.add(each)
    assert len(one._days) == limits.HINT_DAYS + 1
    assert min(one._days) == DAY + 39 - limits.HINT_DAYS


# --- from others ----------------------------------------------------------------------------------


async def test_a_verifiers_word_counts_until_it_expires() -> None:
    clock = Clock()
    one = await knowing_of(FakeTrialRecords(), clock=clock, trusted=[peer("verifier")])
    said = [word(name, 20, 20, rounds=20) for name in NAMES]
    one.hearsay.hear(peer("verifier"), days(hints(*said, day=DAY)), NOW)
    assert all(seat.admitted for seat in one.book.standings([peer(n) for n in NAMES], "add"))
    clock.now = (DAY + 1 + limits.HINT_DAYS) * HINT_DAY_S - 1
    assert one.book.admitted(peer("a"))
    clock.now += 1
    assert not one.book.admitted(peer("a"))


async def test_a_verifiers_word_stays_when_the_book_is_rewritten() -> None:
    one = await knowing_of(FakeTrialRecords(), trusted=[peer("verifier")])
    said = hints(word("new", 20, 20, rounds=20), day=DAY)
    one.hearsay.hear(peer("verifier"), days(said), NOW)
    for each in trials(2) * 2:
        await one.add(each)
    assert one.book.trials == 2
    assert one.book.admitted(peer("new"))


# --- on a real disk -------------------------------------------------------------------------------


async def test_what_earlier_runs_have_learnt(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knowing, "Topics", Few)
    async with Store.open(tmp_path) as store:
        records = TrialRecords(store)
        one = await Knowledge.load(records, PRIVATE, clock=Clock())
        for each in trials(5):
            await one.add(each)
        posed = {(await one.draw())[0].question for _ in range(10)}
        known = state(one)
    async with Store.open(tmp_path) as store:
        again = await Knowledge.load(TrialRecords(store), PRIVATE, clock=Clock())
        assert state(again) == known
        assert not posed & {(await again.draw())[0].question for _ in range(10)}
        assert len(await TrialRecords(store).posed()) == 20


class Few(Topics):
    """Topics that are learnt at once."""

    @classmethod
    def learnt(cls, private: Sequence[Item] = ()) -> Topics:
        return cls([(item.topic, item.question) for item in private if item.topic])
