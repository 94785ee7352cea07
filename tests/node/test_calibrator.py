"""Calibration: when it runs, what it changes, and that it never harms the node."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from node.calibrator import ENOUGH, KNOWN_TRICKLE, Calibrator
from node.knowledge import Knowledge
from node.planner import Terms
from protocol import limits
from protocol.errors import (
    NoPeersError,
    ReceiptError,
    StoreError,
    SwarmError,
    UngradableError,
    UnknownRoundError,
)
from protocol.ids import PeerId, RoundId
from protocol.ledger import Profile
from protocol.messages import MICRO, Model
from protocol.methods import (
    AskId,
    AskParams,
    CalibrateParams,
    Graded,
    GradeParams,
    Progress,
)
from protocol.receipt import read, write
from swarm.calibration.families import CATALOGUE
from swarm.calibration.items import Item
from swarm.calibration.source import ExhaustedError
from swarm.consensus import CONFIDENCE_ROUNDS
from swarm.examiner import Posed
from swarm.registry import Registry
from swarm.reputation import NEWCOMERS_SHARE
from swarm.seeded import Stream
from swarm.topics import Topics
from swarm.trial import Trial
from tests.fakes.mesh import FakeNetwork
from tests.fakes.own_log import NOTHING
from tests.fakes.trial_records import FakeTrialRecords
from tests.node.pupils import Pupil, Truths, overhear
from tests.node.virtual_node import (
    Setup,
    VirtualNode,
    acquainted,
    inline,
    nodes,
    scripted,
    topics,
    unix_time,
)
from tests.swarm.trials import mark, trial
from tests.swarm.virtual import signer

SUM, SUM_TRUTH = "What is 5 plus 8?", "13"


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual clock would run on beside a thread."""
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork(seed=1)


@pytest.fixture
def sums_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one family of tasks."""
    monkeypatch.setattr("swarm.examiner.CATALOGUE", {"add": CATALOGUE["add"]})


def ignore(progress: Progress) -> None:
    """Nobody watches."""


# --- when: the calibrator alone -------------------------------------------------------------------


class Desk:
    """Stands for a coordinator: notes what is put, and when; a round takes a while."""

    def __init__(self) -> None:
        self.put: list[tuple[float, Terms]] = []
        self.running = 0
        self.waiting = 0
        self.fails: Callable[[], BaseException] = lambda: NoPeersError("nobody")
        self.takes_s = 2.0

    async def try_out(self, question: str, terms: Terms) -> bytes:
        self.put.append((trio.current_time(), terms))
        await trio.sleep(self.takes_s)
        raise self.fails()

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.put]


class Bench:
    """A calibrator with a desk for a coordinator."""

    def __init__(
        self,
        rate: float,
        per_hour: float,
        peers: int,
        records: FakeTrialRecords,
        trials: Sequence[Trial],
        seed: bytes,
    ) -> None:
        self.desk = Desk()
        self.records = records
        self.registry = Registry(signer("own").peer, Profile(MODEL, 0, 0, serves=False))
        for number in range(peers):
            self.join(f"p{number}")
        self.knowledge = Knowledge(records, Topics(()), b"seed", trials=trials, clock=unix_time)
        self.drawn = 0
        self.knowledge._examiner.draw = self._draw  # type: ignore[method-assign]
        desk: Any = self.desk
        self.calibrator = Calibrator(
            desk, self.knowledge, self.registry, TERMS, rate, per_hour, seed
        )
        self.asked: list[float] = []

    def join(self, name: str) -> None:
        who = signer(name).peer
        self.registry.connected(who, "")
        self.registry.learn(who, replace(NOTHING, profile=Profile(MODEL, 0, 0, serves=True)))

    async def ask(self, *pauses: float, takes_s: float = 2.0, terms: Terms | None = None) -> None:
        """Real questions, a pause after each answer."""
        for pause in pauses:
            self.asked.append(trio.current_time())
            self.calibrator.asked("Why?", terms or TERMS)
            await trio.sleep(takes_s)
            self.calibrator.answered()
            await trio.sleep(pause)

    def _draw(self, hidden: bool) -> Posed:
        """Nobody looks at the question, and a disguise takes long to learn."""
        self.drawn += 1
        name = b"%032d" % self.drawn
        return Posed(Item(f"Question {self.drawn}?", ("yes",), None, "private"), "", name)

    def last(self, at: float) -> float:
        """When the last question before then was put."""
        return max(asked for asked in self.asked if asked <= at)


TERMS = Terms(60.0, 2)
MODEL = Model("m", "f", "")
PAUSES = (7.0, 12.0, 15.0, 30.0, 31.0, 50.0, 90.0, 200.0)


@asynccontextmanager
async def bench(
    rate: float = 0.0,
    per_hour: float = 0.0,
    peers: int = 3,
    records: FakeTrialRecords | None = None,
    trials: Sequence[Trial] = (),
    seed: bytes = b"when",
) -> AsyncIterator[Bench]:
    async with trio.open_nursery() as nursery:
        one = Bench(rate, per_hour, peers, records or FakeTrialRecords(), trials, seed)
        nursery.start_soon(one.calibrator.run)
        nursery.start_soon(one.calibrator.hide)
        yield one
        nursery.cancel_scope.cancel()


def varied(count: int, seed: bytes = b"pauses") -> list[float]:
    """Pauses of a person."""
    stream = Stream(seed)
    return [stream.choice(PAUSES) * (0.8 + 0.4 * stream.unit()) for _ in range(count)]


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.15])
async def test_so_many_of_all_rounds_are_hidden_tests(
    autojump_clock: MockClock, rate: float
) -> None:
    async with bench(rate) as one:
        await one.ask(*varied(2_000))
        hidden = len(one.desk.put)
        assert hidden / (hidden + 2_000) == pytest.approx(rate, rel=0.25)


async def test_at_rate_nought_nothing_is_hidden(autojump_clock: MockClock) -> None:
    async with bench(0.0) as one:
        await one.ask(*varied(200))
        assert one.desk.put == []


async def test_without_questions_nothing_is_hidden(autojump_clock: MockClock) -> None:
    async with bench(0.5) as one:
        await trio.sleep(24 * 3600)
        assert one.desk.put == []


async def test_a_hidden_task_has_the_terms_of_the_question_before_it(
    autojump_clock: MockClock,
) -> None:
    async with bench(0.5) as one:
        for number in range(60):
            terms = Terms(10.0 + number, 2, 3, 64, None)
            before = len(one.desk.put)
            await one.ask(500.0, terms=terms)
            assert {put for _, put in one.desk.put[before:]} <= {terms}
        assert len(one.desk.put) > 20


async def test_a_hidden_task_begins_in_a_pause(autojump_clock: MockClock) -> None:
    """Never while a question is being answered: two at once are not one person's."""
    async with bench(0.5) as one:
        await one.ask(*varied(400))
        assert len(one.desk.put) > 50
        assert all(at >= one.last(at) + 2.0 for at in one.desk.times)


async def test_no_pause_comes_twice(autojump_clock: MockClock) -> None:
    """That would tell: a person's never do."""
    async with bench(0.5) as one:
        await one.ask(*[30.0] * 400)
        pauses = [round(at - one.last(at) - 2.0, 6) for at in one.desk.times]
        assert len(pauses) > 40
        assert len(set(pauses)) == len(pauses)
        assert 30.0 not in pauses


async def test_the_pause_before_a_hidden_task_is_like_any_other(
    autojump_clock: MockClock,
) -> None:
    """What a peer sees: how long after one round the next one begins (Kolmogorov–Smirnov)."""
    async with bench(0.15) as one:
        await one.ask(*varied(2_500))
        begun = sorted([(at, False) for at in one.asked] + [(at, True) for at in one.desk.times])
        seen: dict[bool, list[float]] = {True: [], False: []}
        for (before, _), (at, hidden) in pairwise(begun):
            seen[hidden].append(at - before - 2.0)

        def share(hidden: bool, most: float) -> float:
            return sum(pause <= most for pause in seen[hidden]) / len(seen[hidden])

        assert len(seen[True]) > 250
        apart = max(abs(share(True, most) - share(False, most)) for most in range(0, 300, 3))
        assert apart < 0.13


async def test_with_several_questions_at_once_a_pause_is_when_all_are_answered(
    autojump_clock: MockClock,
) -> None:
    async with bench(0.5) as one:
        one.calibrator.asked("Why?", TERMS)
        for _ in range(200):
            one.calibrator.asked("Why?", TERMS)
            await trio.sleep(20.0)
            one.calibrator.answered()
        assert one.desk.put == []


async def test_a_question_that_comes_while_a_task_is_drawn_goes_first(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(0.5) as one:
        draw = one.knowledge.draw

        async def slow(hidden: bool = False) -> tuple[Item, str]:
            await trio.sleep(40.0)  # longer than any pause
            return await draw(hidden)

        monkeypatch.setattr(one.knowledge, "draw", slow)
        await one.ask(*[9.0] * 100, takes_s=60.0)
        assert len(one.desk.put) > 10
        assert all(at >= one.last(at) + 60.0 for at in one.desk.times)


async def test_what_was_drawn_and_not_put_is_put_later(autojump_clock: MockClock) -> None:
    async with bench(0.2) as one:
        await one.ask(*varied(500))
        assert len(one.desk.put) > 20
        assert len(one.records.tasks) - len(one.desk.put) <= 1


async def test_a_task_that_could_not_be_put_is_not_lost(autojump_clock: MockClock) -> None:
    async with bench(0.5) as one:
        while one.calibrator._drawn is None:
            await one.ask(3.0)
        one.registry.disconnected(signer("p0").peer)
        drawn, put = one.drawn, len(one.desk.put)
        await one.ask(*varied(50))
        assert (one.drawn, len(one.desk.put)) == (drawn, put)
        one.join("p0")
        await one.ask(*varied(50))
        assert len(one.desk.put) > put
        assert one.drawn - len(one.desk.put) <= 1


async def test_the_seed_decides_when(autojump_clock: MockClock) -> None:
    times = []
    for seed in (b"a", b"b", b"a"):
        async with bench(0.3, seed=seed) as one:
            began = trio.current_time()
            await one.ask(*varied(100))
            times.append([round(at - began, 6) for at in one.desk.times])
    assert times[0] == times[2]
    assert not set(times[0]) & set(times[1])


# --- when: the background -------------------------------------------------------------------------


def per_hour(one: Bench, since: float) -> float:
    return 3600 * sum(at >= since for at in one.desk.times) / (trio.current_time() - since)


@pytest.mark.parametrize("budget", [0.5, 12.0, 120.0])
async def test_the_budget_is_spent_while_somebody_is_unknown(
    autojump_clock: MockClock, budget: float
) -> None:
    async with bench(per_hour=budget) as one:
        await trio.sleep(100 / budget * 3600)
        assert per_hour(one, 0.0) == pytest.approx(budget, rel=0.35)


async def test_without_a_budget_nothing_is_spent(autojump_clock: MockClock) -> None:
    async with bench() as one:
        await one.calibrator.run()
        assert one.desk.put == []


async def test_a_busy_node_tests_nobody(autojump_clock: MockClock) -> None:
    async with bench(per_hour=120.0) as one:
        one.desk.running = 1
        await trio.sleep(3600)
        one.desk.running, one.desk.waiting = 0, 1
        await trio.sleep(3600)
        assert one.desk.put == []
        one.desk.waiting = 0
        await trio.sleep(3600)
        assert one.desk.put


@pytest.mark.parametrize("peers", [0, 1, 2])
async def test_two_are_too_few_to_compare(
    autojump_clock: MockClock, peers: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with bench(0.5, 120.0, peers) as one:
        await one.ask(*varied(20))
        with pytest.raises(NoPeersError, match=f"{peers} are connected; to calibrate takes 3"):
            await one.calibrator.calibrate(CalibrateParams(5), ignore)
        assert one.desk.put == []
        assert one.records.tasks == [], "no task is wasted"
        assert "failed" not in caplog.text, "it is no news every half minute"
        for name in ("p3", "p4", "p5"):
            one.join(name)
        await trio.sleep(3600)
        assert one.desk.put


def decided(*names: str, examples: int = CONFIDENCE_ROUNDS, right: int = 6) -> list[Trial]:
    """So many rounds, after which these are known and the confidence is learnt."""
    marks = [mark(name, (right, 6)) for name in names]
    found = ((MICRO, MICRO, MICRO), (0, 0, 0))
    return [trial(*marks, weighted=found) for _ in range(examples)]


async def test_once_everybody_is_known_a_trickle_is_left(autojump_clock: MockClock) -> None:
    names = [f"p{number}" for number in range(3)]
    async with bench(per_hour=120.0, trials=decided(*names)) as one:
        assert not one.calibrator.curious()
        await trio.sleep(40 * 3600)
        assert per_hour(one, 0.0) == pytest.approx(120.0 / KNOWN_TRICKLE, rel=0.2)
        one.join("new")
        assert one.calibrator.curious()
        since = trio.current_time()
        await trio.sleep(3600)
        assert per_hour(one, since) > 60.0, "at once, not when a long pause is over"


async def test_what_makes_a_node_curious() -> None:
    names = [f"p{number}" for number in range(3)]
    for trials, curious in (
        ([], True),
        (decided(*names), False),
        (decided(*names, examples=CONFIDENCE_ROUNDS - 1), True),
        (decided(*names[:2]), True),
        ([*decided(*names[:2]), *decided("p2", right=0)], False),
        ([*decided(*names[:2]), *decided("p2", examples=2, right=4)], True),
    ):
        async with bench(trials=trials) as one:
            assert one.calibrator.curious() == curious


async def test_whoever_stays_unknown_does_not_keep_a_node_busy_for_good(
    autojump_clock: MockClock,
) -> None:
    """Such as one that never answers, or whose verdicts never say anything."""
    async with bench(per_hour=120.0, trials=decided("p0", "p1")) as one:
        await trio.sleep(ENOUGH / 120 * 3600 * 2)
        assert not one.calibrator.curious()
        since = trio.current_time()
        await trio.sleep(20 * 3600)
        assert per_hour(one, since) < 2 * 120.0 / KNOWN_TRICKLE
        one.registry.disconnected(signer("p0").peer)
        one.join("new")
        assert one.calibrator.curious()
        await trio.sleep(ENOUGH / 120 * 3600 * 2)
        assert set(one.calibrator._met) == set(one.registry.able())


# --- what fails -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        NoPeersError("gone"),
        ReceiptError("bad"),
        StoreError("full"),
        SwarmError(),
        ValueError("bug"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_calibration_that_fails_does_not_end_the_node(
    autojump_clock: MockClock, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(0.5, 20.0) as one:
        one.desk.fails = lambda: error
        await one.ask(*varied(40))
        assert len(one.desk.put) > 12
        assert one.knowledge.book.trials == 0
    assert ("Traceback" in caplog.text) == isinstance(error, ValueError)


async def test_with_a_failing_disk_nothing_is_put(autojump_clock: MockClock) -> None:
    class Full(FakeTrialRecords):
        async def pose(self, task: bytes) -> None:
            raise StoreError("full")

    async with bench(0.5, 120.0, records=Full()) as one:
        await one.ask(*varied(50))
        with pytest.raises(StoreError):
            await one.calibrator.calibrate(CalibrateParams(5), ignore)
        assert one.desk.put == []


async def test_with_nothing_left_to_ask_nothing_is_put(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(0.5, 120.0) as one:

        def exhausted(hidden: bool) -> None:
            raise ExhaustedError

        monkeypatch.setattr(one.knowledge._examiner, "draw", exhausted)
        await one.ask(*varied(50))
        assert one.desk.put == []


async def test_once_the_peers_are_gone_the_rest_is_not_tried(
    autojump_clock: MockClock, network: FakeNetwork, sums_only: None
) -> None:
    truths: Truths = {}
    async with nodes(network, good(truths, 3)) as swarm:
        asker, lost, _ = swarm
        overhear(asker, truths)
        events: list[str] = []

        def watch(progress: Progress) -> None:
            events.append(progress.event["kind"])
            if events.count("calibrated") == 2:
                network.partition([lost.peer])
                asker.registry.disconnected(lost.peer)

        done = await asker.calibrator.calibrate(CalibrateParams(20), watch)
        assert (done.rounds, done.failed) == (2, 1)
        assert events == ["calibrating", "calibrated", "calibrated", "failed"]


async def test_rounds_that_fail_are_counted_and_told_of(autojump_clock: MockClock) -> None:
    async with bench() as one:
        one.desk.fails = lambda: ReceiptError("it ended before answers were shown")
        events: list[dict[str, Any]] = []
        done = await one.calibrator.calibrate(
            CalibrateParams(4), lambda progress: events.append(progress.event)
        )
        assert (done.rounds, done.failed, done.trials) == (0, 4, 0)
        assert events[0] == {"kind": "calibrating", "rounds": 4}
        assert events[1:] == [{"kind": "failed", "number": number} for number in range(1, 5)]


# --- what: whole nodes ----------------------------------------------------------------------------


def good(truths: Truths, count: int = 4) -> list[Pupil]:
    return [Pupil(f"good {number}", truths, 0.6, 0.95) for number in range(count)]


def liar(truths: Truths, name: str = "liar") -> Pupil:
    return Pupil(name, truths, 0.0, 0.0, sure=0.99)


async def real(asker: VirtualNode, question: str = SUM, **terms: Any) -> dict[str, Any]:
    return await asker.coordinator.ask(AskParams(question, **terms), ignore)


async def calibrated(asker: VirtualNode, rounds: int) -> Any:
    return await asker.calibrator.calibrate(CalibrateParams(rounds), ignore)


async def test_after_calibration_the_good_decide_and_the_liar_does_not(
    autojump_clock: MockClock, network: FakeNetwork, sums_only: None
) -> None:
    truths: Truths = {SUM: SUM_TRUTH}
    async with nodes(
        network, [*good(truths), liar(truths)], setups={0: Setup(topics=topics())}
    ) as swarm:
        asker, bad = swarm[0], swarm[-1]
        overhear(asker, truths)
        first = await real(asker)
        assert (first["rule"], first["calibrated"], first["confidence"]) == (
            "uncalibrated",
            False,
            None,
        )
        # Rounds count for the confidence from when the good are admitted.
        done = await calibrated(asker, 20)
        assert (done.rounds, done.failed, done.trials) == (20, 0, 20)
        assert done.admitted == 4
        kept = list(asker.trials.trials.values())
        told_apart = [one for one in kept if len({mark.right for mark in one.marks}) == 2]
        assert done.informative == len(told_apart) > 10
        assert done.chosen == sum(one.chosen is True for one in kept)
        assert 10 < done.chosen < 20
        second = await real(asker)
        assert (second["rule"], second["topic"], second["calibrated"]) == ("weighted", "add", False)
        assert second["confidence"] is None
        while asker.knowledge.book.learnt < CONFIDENCE_ROUNDS:
            await calibrated(asker, 5)
        third = await real(asker)
        assert (third["rule"], third["calibrated"]) == ("weighted", True)
        assert third["answer"] == SUM_TRUTH
        assert third["confidence"] > 0.6

        _, core, _ = read(list(asker.store.receipts.values())[-1])
        standing = {one.peer: one for one in core.standings}[bad.peer]
        assert not standing.admitted
        weights = dict(zip([one.peer for one in core.standings], core.weights, strict=True))
        assert max(weights[bad.peer].judge) == 0
        assert min(max(weights[one.peer].judge) for one in swarm[:-1]) > MICRO // 2
        assert asker.knowledge.book.records[bad.peer].test.decision == "refused"


async def test_newcomers_weigh_a_tenth_of_the_proven_together(
    autojump_clock: MockClock, network: FakeNetwork, sums_only: None
) -> None:
    truths: Truths = {SUM: SUM_TRUTH}
    setups = {0: Setup(topics=topics())}
    async with nodes(network, good(truths, 5), setups=setups) as swarm:
        asker = swarm[0]
        overhear(asker, truths)
        await calibrated(asker, 25)
        async with trio.open_nursery() as nursery:
            mesh = network.mesh("new", swarm[0].mesh.addresses())
            async with mesh.running():
                new = await VirtualNode.start(nursery, mesh, "new", Pupil("new", truths, 1.0, 1.0))
                with trio.fail_after(60):
                    while new.peer not in asker.registry.able():  # noqa: ASYNC110
                        await trio.sleep(0.1)
                await real(asker)
                nursery.cancel_scope.cancel()
        _, core, _ = read(list(asker.store.receipts.values())[-1])
        weights = dict(zip([one.peer for one in core.standings], core.weights, strict=True))
        proven = sum(weights[one.peer].answer for one in swarm)
        assert 0 < weights[new.peer].answer <= NEWCOMERS_SHARE * proven + 1
        assert max(weights[new.peer].judge) == 0


async def test_a_restarted_node_knows_what_it_knew(
    autojump_clock: MockClock, network: FakeNetwork, sums_only: None
) -> None:
    truths: Truths = {SUM: SUM_TRUTH}
    setup = Setup(topics=topics())
    peers: list[PeerId] = []

    async def state() -> Any:
        async with nodes(network, good(truths), setups={0: setup}) as swarm:
            asker = swarm[0]
            overhear(asker, truths)
            if not peers:
                peers.extend(one.peer for one in swarm)
                await calibrated(asker, 25)
            return asker.knowledge.book.rule("add", peers), (await real(asker))["rule"]

    assert await state() == await state()
    assert (await state())[1] == "weighted"


async def test_both_sides_of_service_are_booked(
    autojump_clock: MockClock, network: FakeNetwork, sums_only: None
) -> None:
    """A peer that serves tests is served for it, and an asker of tests owes for them."""
    truths: Truths = {}
    async with nodes(network, good(truths)) as swarm:
        asker, *others = swarm
        overhear(asker, truths)
        await calibrated(asker, 3)
        now = int(unix_time())
        for one in others:
            assert asker.conduct._balance.account(one.peer, now).given == pytest.approx(3, abs=0.1)
            assert one.conduct._balance.account(asker.peer, now).taken == pytest.approx(3, abs=0.1)
        assert not asker.conduct._balance.knows(asker.peer)


async def test_who_contradicts_himself_in_a_test_is_struck(
    autojump_clock: MockClock, network: FakeNetwork, sums_only: None
) -> None:
    from protocol.codec import encode
    from protocol.messages import Commit, parse, seal

    truths: Truths = {}
    async with nodes(network, good(truths)) as swarm:
        asker, *_, bad = swarm
        overhear(asker, truths)
        send = bad.mesh.send

        def twice(to: PeerId, payload: bytes) -> None:
            send(to, payload)
            message = parse(payload).message
            if isinstance(message, Commit):
                other = Commit(message.round, bytes(32), message.model)
                send(to, encode(seal(bad.signer, other)))

        bad.worker._post = twice
        await calibrated(asker, 1)
        await trio.sleep(1.0)
        for one in swarm[:-1]:
            assert one.conduct.struck(bad.peer) is not None
        done = await calibrated(asker, 1)
        assert done.rounds == 1
        assert bad.peer not in {mark.peer for mark in list(asker.trials.trials.values())[-1].marks}


async def test_calibration_goes_by_and_leaves_no_trace_in_the_history(
    autojump_clock: MockClock, network: FakeNetwork, sums_only: None
) -> None:
    truths: Truths = {}
    async with nodes(network, good(truths)) as swarm:
        asker = swarm[0]
        overhear(asker, truths)
        events: list[dict[str, Any]] = []
        await asker.calibrator.calibrate(
            CalibrateParams(2), lambda progress: events.append(progress.event)
        )
        assert asker.store.asks == {}
        assert asker.store.receipts == {}
        assert [event["kind"] for event in events] == ["calibrating", "calibrated", "calibrated"]
        assert [event.get("number") for event in events] == [None, 1, 2]
        last = events[-1]
        assert (last["rounds"], last["answers"], last["topic"]) == (2, 4, "")
        assert last["task"].startswith("add/1/")
        assert 0 <= last["right"] <= 4
        (one, other) = asker.trials.trials.values()
        assert {one.kind, other.kind} == {"admission"}


async def test_an_operators_own_questions_are_put(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    private = [Item(f"Port {number}?", (str(number),), "ports", "private") for number in range(4)]
    truths: Truths = {}
    async with nodes(network, good(truths, 3), setups={0: Setup(private=private)}) as swarm:
        asker = swarm[0]
        overhear(asker, truths)
        while sum(not one.task for one in asker.trials.trials.values()) < 4:
            await calibrated(asker, 3)
        await calibrated(asker, 6)
        own = [one for one in asker.trials.trials.values() if not one.task]
        assert len(own) == 4
        assert any(mark.right for one in own for mark in one.marks)


# --- rounds of tests and real ones together -------------------------------------------------------


async def test_own_rounds_are_counted_apart_from_questions_that_wait(
    autojump_clock: MockClock, network: FakeNetwork, sums_only: None
) -> None:
    truths: Truths = {SUM: SUM_TRUTH}
    async with nodes(network, good(truths)) as swarm:
        asker = swarm[0]
        overhear(asker, truths)
        seen: list[tuple[int, int]] = []

        async def watch() -> None:
            while True:
                seen.append((asker.coordinator.running, asker.coordinator.waiting))
                await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            async with trio.open_nursery() as work:
                work.start_soon(calibrated, asker, 9)
                for _ in range(4):
                    work.start_soon(real, asker)
            nursery.cancel_scope.cancel()
        assert max(running for running, _ in seen) > 1
        assert all(running <= limits.ASKS_AT_ONCE for running, _ in seen)
        assert all(waiting >= 0 for _, waiting in seen)
        assert (asker.coordinator.running, asker.coordinator.waiting) == (0, 0)
        assert {record.state for record in asker.store.asks.values()} == {"done"}


async def test_cancelling_a_question_leaves_a_test_alone(
    autojump_clock: MockClock, network: FakeNetwork, sums_only: None
) -> None:
    truths: Truths = {SUM: SUM_TRUTH}
    async with nodes(network, good(truths)) as swarm:
        asker = swarm[0]
        overhear(asker, truths)
        results: list[Any] = []

        async def test() -> None:
            results.append(await calibrated(asker, 1))

        async def ask() -> None:
            with pytest.raises(SwarmError, match="Question"):
                await real(asker)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(test)
            nursery.start_soon(ask)
            await trio.sleep(0.1)
            assert asker.coordinator.running == 2
            (name,) = asker.store.asks
            assert await asker.coordinator.cancel(name)
            assert not await asker.coordinator.cancel(AskId(""))
        assert results[0].rounds == 1
        assert asker.knowledge.book.trials == 1


async def test_a_test_that_is_cut_short_leaves_nothing_behind(
    autojump_clock: MockClock, network: FakeNetwork, sums_only: None
) -> None:
    truths: Truths = {}
    async with nodes(network, good(truths)) as swarm:
        asker = swarm[0]
        overhear(asker, truths)
        for seconds in (0.05, 0.25, 0.35, 0.5):
            with trio.move_on_after(seconds) as scope:
                await calibrated(asker, 50)
            assert scope.cancelled_caught
            assert (asker.coordinator.running, asker.coordinator.waiting) == (0, 0)
            assert asker.coordinator._turns.borrowed_tokens == 0
            assert not asker.knowledge._drawing.locked()
            assert not asker.knowledge._adding.locked()
        assert len(asker.trials.trials) == asker.knowledge.book.trials
        await trio.sleep(120.0)  # until the peers have given up waiting
        done = await calibrated(asker, 2)
        assert (done.rounds, done.failed) == (2, 0)


async def test_a_peer_that_is_lost_in_a_test_is_no_reason_to_stop(
    autojump_clock: MockClock, network: FakeNetwork, sums_only: None
) -> None:
    truths: Truths = {}
    async with nodes(network, good(truths, 5)) as swarm, trio.open_nursery() as nursery:
        asker, lost = swarm[0], swarm[-1]
        overhear(asker, truths)

        async def cut() -> None:
            await trio.sleep(0.3)
            network.partition([lost.peer])

        nursery.start_soon(cut)
        done = await calibrated(asker, 3)
        assert (done.rounds, done.failed) == (3, 0)
        last = list(asker.trials.trials.values())[-1]
        assert lost.peer not in {mark.peer for mark in last.marks}


async def test_peers_that_never_answer_cost_a_test_its_time_alone(
    autojump_clock: MockClock, network: FakeNetwork, sums_only: None
) -> None:
    backends = [scripted(None), scripted(None), scripted(None), scripted(None)]
    async with nodes(network, backends) as swarm:
        done = await calibrated(swarm[0], 2)
        assert (done.rounds, done.failed) == (0, 2)
        assert swarm[0].knowledge.book.trials == 0


# --- a grade --------------------------------------------------------------------------------------


class Graders:
    """A swarm that has answered one question, its receipt on disk."""

    def __init__(self, asker: VirtualNode, directory: Path) -> None:
        self.asker = asker
        self._directory = directory

    async def ask(self, question: str = SUM) -> tuple[str, dict[str, Any]]:
        result = await real(self.asker, question)
        path = self._directory / f"{result['round']}.receipt"
        path.write_bytes(self.asker.store.receipts[RoundId(bytes.fromhex(result["round"]))])
        return result["round"], result

    async def grade(self, round_id: str, right: bool, answer: str | None = None) -> Graded:
        return await self.asker.coordinator.grade(GradeParams(round_id, right, answer))

    def path(self, round_id: str) -> Path:
        return self._directory / f"{round_id}.receipt"


@pytest.fixture
def graders(
    network: FakeNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Opens a swarm whose pupils answer with these texts."""

    @asynccontextmanager
    async def opened(*answers: str, judges: float = 1.0) -> AsyncIterator[Graders]:
        truths: Truths = {SUM: SUM_TRUTH}
        backends = [
            Pupil(f"n{number}", truths, float(text == SUM_TRUTH), judges, says=text)
            for number, text in enumerate(answers)
        ]
        setups = {0: Setup(topics=topics())}
        async with nodes(network, backends, setups=setups) as swarm:
            asker = swarm[0]
            found = asker.store.find_round

            async def find_round(prefix: str) -> Any:
                record = await found(prefix)
                path = tmp_path / f"{record.round.hex()}.receipt"
                from dataclasses import replace

                return replace(record, receipt=path if path.exists() else None)

            monkeypatch.setattr(asker.store, "find_round", find_round)
            yield Graders(asker, tmp_path)

    return opened


def evidence(asker: VirtualNode) -> dict[bool, int]:
    """How many answers were right, and wrong."""
    marks = [mark for one in asker.trials.trials.values() for mark in one.marks]
    return {right: sum(mark.right == right for mark in marks) for right in (True, False)}


async def test_a_right_answer_is_evidence_on_all(
    autojump_clock: MockClock, graders: Callable[..., Any]
) -> None:
    async with graders(SUM_TRUTH, SUM_TRUTH, "12", "11") as one:
        round_id, result = await one.ask()
        assert result["answer"] == SUM_TRUTH
        graded = await one.grade(round_id[:8], True)
        assert (graded.round, graded.topic, graded.right) == (round_id, "add", True)
        # Two pairs tell, and each of four judged both.
        assert (graded.peers, graded.pairs) == (4, 8.0)
        assert evidence(one.asker) == {True: 2, False: 2}
        (trial,) = one.asker.trials.trials.values()
        assert (trial.kind, trial.topic, trial.chosen) == ("graded", "add", True)


async def test_a_wrong_answer_is_evidence_on_those_who_gave_it(
    autojump_clock: MockClock, graders: Callable[..., Any]
) -> None:
    async with graders(SUM_TRUTH, SUM_TRUTH, "12", "11") as one:
        round_id, _ = await one.ask()
        graded = await one.grade(round_id, False)
        assert (graded.right, graded.peers, graded.pairs) == (False, 2, 0.0)
        assert evidence(one.asker) == {True: 0, False: 2}


async def test_with_the_right_answer_a_wrong_one_is_evidence_on_all(
    autojump_clock: MockClock, graders: Callable[..., Any]
) -> None:
    async with graders(SUM_TRUTH, SUM_TRUTH, "12", "11") as one:
        round_id, _ = await one.ask()
        graded = await one.grade(round_id, False, " 12.0")
        assert (graded.right, graded.peers, graded.pairs) == (False, 4, 8.0)
        assert evidence(one.asker) == {True: 1, False: 3}
        nobody = await one.grade(round_id, False, "none of these")
        assert (nobody.peers, nobody.pairs) == (4, 0.0)
        assert evidence(one.asker) == {True: 0, False: 4}


async def test_the_last_grade_counts(
    autojump_clock: MockClock, graders: Callable[..., Any]
) -> None:
    async with graders(SUM_TRUTH, SUM_TRUTH, "12", "11") as one:
        round_id, _ = await one.ask()
        await one.grade(round_id, False)
        for _ in range(3):
            await one.grade(round_id, True)
        assert one.asker.knowledge.book.trials == len(one.asker.trials.trials) == 1
        assert evidence(one.asker) == {True: 2, False: 2}
        answers = one.asker.knowledge.book.records[one.asker.peer].topics["add"].answer
        assert answers[1] == 1.0


@pytest.mark.parametrize(
    ("right", "answer"), [(True, "12"), (False, SUM_TRUTH), (True, "none of these")]
)
async def test_a_grade_that_contradicts_itself_is_refused(
    autojump_clock: MockClock, graders: Callable[..., Any], right: bool, answer: str
) -> None:
    async with graders(SUM_TRUTH, SUM_TRUTH, "12", "11") as one:
        round_id, _ = await one.ask()
        with pytest.raises(UngradableError):
            await one.grade(round_id, right, answer)
        assert one.asker.trials.trials == {}


async def test_where_there_was_no_consensus_the_right_answer_must_be_said(
    autojump_clock: MockClock, graders: Callable[..., Any]
) -> None:
    async with graders("1", "2", "3", judges=0.5) as one:
        for pupil in (one.asker,):
            pupil.worker._backend.truths.clear()
        round_id, result = await one.ask()
        assert result["outcome"] == "no-consensus"
        for right in (True, False):
            with pytest.raises(UngradableError):
                await one.grade(round_id, right)
        assert one.asker.trials.trials == {}
        graded = await one.grade(round_id, False, "2")
        assert (graded.right, graded.peers) == (False, 3)


async def test_rounds_that_are_not_known_or_did_not_end(
    autojump_clock: MockClock, graders: Callable[..., Any]
) -> None:
    async with graders(SUM_TRUTH, "12") as one:
        round_id, _ = await one.ask()
        with pytest.raises(UnknownRoundError):
            await one.grade("ffff", True)
        one.path(round_id).unlink()
        with pytest.raises(UnknownRoundError, match="has no receipt"):
            await one.grade(round_id, True)


async def test_a_receipt_that_does_not_hold_is_no_evidence(
    autojump_clock: MockClock, graders: Callable[..., Any]
) -> None:
    async with graders(SUM_TRUTH, "12") as one:
        round_id, _ = await one.ask()
        path = one.path(round_id)
        whole = path.read_bytes()
        file, _, _ = read(whole)
        for damaged, says in (
            (write(file.core, None), "detached"),
            (whole[:-1], "not a receipt"),
            (whole.replace(b"13", b"14"), "changed"),
            (b"", "not a receipt"),
        ):
            path.write_bytes(damaged)
            with pytest.raises(ReceiptError, match=says):
                await one.grade(round_id, True)
        path.unlink()
        path.mkdir()
        with pytest.raises(ReceiptError, match="cannot be read"):
            await one.grade(round_id, True)
        assert one.asker.trials.trials == {}
        path.rmdir()


async def test_a_grade_that_is_not_on_disk_does_not_count(
    autojump_clock: MockClock, graders: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with graders(SUM_TRUTH, "12", "11") as one:
        round_id, _ = await one.ask()

        async def full(trial: Trial) -> bool:
            raise StoreError("full")

        with monkeypatch.context() as patched:
            patched.setattr(one.asker.trials, "keep", full)
            with pytest.raises(StoreError):
                await one.grade(round_id, True)
        assert one.asker.knowledge.book.trials == 0
        await one.grade(round_id, True)
        assert one.asker.knowledge.book.trials == 1


# --- the last of a swarm --------------------------------------------------------------------------


async def test_a_node_alone_with_one_other_waits_for_more(
    autojump_clock: MockClock, network: FakeNetwork, sums_only: None
) -> None:
    truths: Truths = {}
    setups = {0: Setup(rate=0.5, per_hour=3600.0)}
    async with nodes(network, good(truths, 2), setups=setups) as swarm:
        await acquainted(swarm)
        await trio.sleep(600)
        assert swarm[0].knowledge.book.trials == 0
        assert swarm[0].trials.tasks == []
