"""Nodes over fake wires under a virtual clock: the asker's and the workers' side together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from node import coordinator as coordinating
from node import worker as working
from node.backends.base import Emit, GenerateRequest, Generation, JudgeRequest, ModelInfo, Verdict
from protocol import limits
from protocol.codec import encode
from protocol.envelope import KeySigner
from protocol.errors import (
    BackendError,
    BackpressureError,
    BusyError,
    CancelledError,
    NoPeersError,
    StoreError,
    UnknownRoundError,
)
from protocol.ids import PeerId, RoundId, peer_text
from protocol.messages import (
    Close,
    Commit,
    Decline,
    Invite,
    Phases,
    parse,
    seal,
    secret_hash,
)
from protocol.methods import AskId, AskParams, Progress
from protocol.version import ROUND
from swarm.verify import verify
from tests.fakes.mesh import FakeNetwork
from tests.fakes.trial_records import FakeTrialRecords
from tests.node.test_planner import duels
from tests.node.virtual_node import (
    QUESTION,
    Setup,
    VirtualNode,
    inline,
    nodes,
    scripted,
    topics,
)

ASK = AskParams(QUESTION)


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork(seed=1)


def ignore(progress: Progress) -> None:
    """Nobody watches."""


def faults(result: dict[str, Any]) -> dict[str, str]:
    return {row["peer"]: row["kind"] for row in result["missing"]}


class Broken:
    """A backend that fails in one way or another."""

    def __init__(self, generating: Exception | None, judging: Exception | None) -> None:
        self._generating = generating
        self._judging = judging

    def describe(self) -> ModelInfo:
        return ModelInfo("broken", "broken", "", 0, 4096, "none")

    async def generate(self, request: GenerateRequest, emit: Emit) -> Generation:
        if self._generating:
            raise self._generating
        return Generation("13", "13", 1)

    async def judge(self, request: JudgeRequest) -> tuple[Verdict, ...]:
        if self._judging:
            raise self._judging
        return (0.5,) * len(request.pairs)

    async def aclose(self) -> None:
        pass


# --- a question -------------------------------------------------------------------------------


async def test_a_question_is_answered_and_its_receipt_holds(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    events: list[dict[str, Any]] = []
    async with nodes(network, [scripted(one) for one in ("42", "41", "41", "7")]) as swarm:
        asker = swarm[0]
        result = await asker.coordinator.ask(ASK, lambda one: events.append(one.event))
        assert result["answer"] == "42"
        assert result["plurality"] == "41"
        assert faults(result) == {}
        assert len(result["answers"]) == 4
        (receipt,) = asker.store.receipts.values()
        assert verify(receipt).ok
        (record,) = asker.store.asks.values()
        assert (record.state, record.attempt, record.result) == ("done", 1, result)
        await trio.sleep(1)
        assert [node.worker.serving for node in swarm] == [0, 0, 0, 0]
    kinds = [event["kind"] for event in events]
    assert kinds[:2] == ["accepted", "invited"]
    assert kinds[-1] == "closed"
    assert kinds.count("committed") == kinds.count("revealed") == kinds.count("ballot") == 4


async def test_two_questions_at_once_do_not_mix(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with nodes(network, [scripted("42"), scripted("41")]) as swarm:
        results: dict[str, dict[str, Any]] = {}

        async def ask(node: VirtualNode, question: str) -> None:
            results[question] = await node.coordinator.ask(AskParams(question), ignore)

        async with trio.open_nursery() as nursery:
            for node, question in ((swarm[0], "one?"), (swarm[1], "two?"), (swarm[0], "three?")):
                nursery.start_soon(ask, node, question)
        assert {result["question"] for result in results.values()} == set(results)
        assert len({result["round"] for result in results.values()}) == 3


async def test_more_questions_than_turns_wait(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with nodes(network, [scripted("42"), scripted("41")]) as swarm:
        asker = swarm[0].coordinator
        most = 0

        async def ask() -> None:
            await asker.ask(ASK, ignore)

        async with trio.open_nursery() as nursery:
            for _ in range(3 * limits.ASKS_AT_ONCE):
                nursery.start_soon(ask)
            while len(swarm[0].store.asks) < 3 * limits.ASKS_AT_ONCE or asker.waiting:
                most = max(most, asker.running)
                await trio.sleep(0.01)
        assert most == limits.ASKS_AT_ONCE
        assert all(record.state == "done" for record in swarm[0].store.asks.values())


async def test_where_one_beats_the_swarm_the_question_goes_to_it_alone(
    autojump_clock: MockClock, network: FakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)
    records = FakeTrialRecords()
    for number, one in enumerate(duels("node0", "node2", "node3", star="node1")):
        round_id = RoundId(number.to_bytes(32, "big"))
        await records.keep(msgspec.structs.replace(one, round=round_id))
    backends = [scripted(one) for one in ("12", "13", "12", "12")]
    setups = {0: Setup(topics=topics(), trials=records)}
    async with nodes(network, backends, setups=setups) as swarm:
        asker, star = swarm[0], swarm[1]
        results = [
            await asker.coordinator.ask(AskParams("What is 5 plus 8?"), ignore) for _ in range(12)
        ]
        alone = [one for one in results if one["solo"]]
        assert len(alone) >= 6, "four of five, by lot"
        for result in alone:
            assert (result["answer"], result["outcome"], result["invited"]) == ("13", "answer", 1)
            assert [row["peer"] for row in result["answers"]] == [peer_text(star.peer)]
        for result in results:
            assert result["topic"] == "add"
            if not result["solo"]:
                assert result["invited"] == 4
        assert all(verify(receipt).ok for receipt in asker.store.receipts.values())
        elsewhere = await asker.coordinator.ask(ASK, ignore)
        assert not elsewhere["solo"]


# --- what fails -------------------------------------------------------------------------------


async def test_a_lost_peer_is_named(autojump_clock: MockClock, network: FakeNetwork) -> None:
    backends = [scripted("42"), scripted("41"), scripted("40", delay_s=5.0)]
    async with nodes(network, backends) as swarm:
        asker, _, slow = swarm

        def on_event(progress: Progress) -> None:
            if progress.event["kind"] == "committed":
                network.drop(asker.peer, slow.peer)

        result = await asker.coordinator.ask(ASK, on_event)
        assert result["answer"] == "42"
        assert faults(result) == {peer_text(slow.peer): "lost"}
        assert verify(next(iter(asker.store.receipts.values()))).ok


async def test_corrupted_messages_cost_their_sender_the_round(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with nodes(network, [scripted("42"), scripted("41"), scripted("40")]) as swarm:
        asker, _, bad = swarm
        network.corrupt(bad.peer, asker.peer, lambda payload: payload[:-1] + b"\xc1")
        result = await asker.coordinator.ask(ASK, ignore)
        assert faults(result) == {peer_text(bad.peer): "malformed"}
        # It is told off for one message, and shown the door after several.
        assert asker.router._malformed[bad.peer] > 0
        for _ in range(limits.MALFORMED_PER_PEER):
            bad.mesh.send(asker.peer, b"noise")
        await trio.sleep(0.2)
        assert asker.router._malformed[bad.peer] == 0, "that link is over"


async def test_a_message_of_somebody_else_is_malformed(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with nodes(network, [scripted("42"), scripted("41")]) as swarm:
        asker, other = swarm
        stolen = seal(asker.signer, invite())
        other.mesh.send(asker.peer, encode(stolen))
        await trio.sleep(1)
        assert asker.router._malformed[other.peer] == 1
        assert asker.worker.serving == 0


@pytest.mark.parametrize("error", [BackendError("no"), RuntimeError("a bug")], ids=["known", "bug"])
async def test_a_backend_that_cannot_answer_declines(
    autojump_clock: MockClock, network: FakeNetwork, error: Exception
) -> None:
    backends = [scripted("42"), scripted("41"), Broken(error, None)]
    async with nodes(network, backends) as swarm:
        for _ in range(2):  # the node lives on
            result = await swarm[0].coordinator.ask(ASK, ignore)
            assert faults(result) == {peer_text(swarm[2].peer): "declined"}


@pytest.mark.parametrize("error", [BackendError("no"), RuntimeError("a bug")], ids=["known", "bug"])
async def test_a_backend_that_cannot_judge_abstains(
    autojump_clock: MockClock, network: FakeNetwork, error: Exception
) -> None:
    async with nodes(network, [scripted("42"), scripted("41"), Broken(None, error)]) as swarm:
        result = await swarm[0].coordinator.ask(ASK, ignore)
        assert result["answer"] == "42"
        assert faults(result) == {}


async def test_too_few_able_peers(autojump_clock: MockClock, network: FakeNetwork) -> None:
    async with nodes(network, [scripted("42"), scripted("41")]) as swarm:
        began = trio.current_time()
        with pytest.raises(NoPeersError):
            await swarm[0].coordinator.ask(AskParams(QUESTION, min_answers=3), ignore)
        assert trio.current_time() - began == pytest.approx(coordinating.PEERS_WAIT_S)
        (record,) = swarm[0].store.asks.values()
        assert record.state == "failed"
        assert record.error is not None
        assert record.error.data is not None
        assert record.error.data.code == "no-peers"


async def test_a_failing_disk_ends_the_question_not_the_node(
    autojump_clock: MockClock, network: FakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(network, [scripted("42"), scripted("41")]) as swarm:
        asker = swarm[0]

        async def full(round_id: RoundId, ask: AskId, data: bytes) -> None:
            raise StoreError("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(asker.store, "put_receipt", full)
            with pytest.raises(StoreError):
                await asker.coordinator.ask(ASK, ignore)
        (record,) = asker.store.asks.values()
        assert record.state == "failed"
        assert (await asker.coordinator.ask(ASK, ignore))["answer"] == "42"


async def test_a_disk_that_fails_twice_does_not_hide_what_ended_the_question(
    autojump_clock: MockClock, network: FakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(network, [scripted("42"), scripted("41")]) as swarm:

        async def full(*arguments: object) -> None:
            raise StoreError("the disk is full")

        monkeypatch.setattr(swarm[0].store, "fail", full)
        with pytest.raises(NoPeersError):
            await swarm[0].coordinator.ask(AskParams(QUESTION, min_answers=3), ignore)


async def test_too_many_questions_are_refused_before_they_are_accepted(
    autojump_clock: MockClock, network: FakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ASKS_QUEUED", 0)
    async with nodes(network, [scripted("42"), scripted("41")]) as swarm:
        with pytest.raises(BusyError):
            await swarm[0].coordinator.ask(ASK, ignore)
        assert swarm[0].store.asks == {}


# --- cancelling and resuming ------------------------------------------------------------------


async def test_cancelling_a_running_question(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    backends = [scripted("42"), scripted("41", delay_s=20.0)]
    async with nodes(network, backends) as swarm:
        asker = swarm[0].coordinator
        names: list[AskId] = []
        committed = trio.Event()

        def on_event(progress: Progress) -> None:
            names.append(progress.ask)
            if progress.event["kind"] == "committed":
                committed.set()

        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(CancelledError):
                    await asker.ask(ASK, on_event)

            nursery.start_soon(ask)
            await committed.wait()
            assert await asker.cancel(names[0])
            assert not await asker.cancel(names[0])
        (record,) = swarm[0].store.asks.values()
        assert record.state == "cancelled"
        # A cancelled round leaves a receipt of what there was, and frees the peers at once.
        (receipt,) = swarm[0].store.receipts.values()
        assert verify(receipt).ok
        await trio.sleep(0.5)
        assert swarm[1].worker.serving == 0


async def test_cancelling_a_waiting_question(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with nodes(network, [scripted("42"), scripted("41")]) as swarm:
        asker = swarm[0].coordinator
        names: list[AskId] = []
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(CancelledError):
                    await asker.ask(
                        AskParams(QUESTION, min_answers=3), lambda one: names.append(one.ask)
                    )

            nursery.start_soon(ask)
            await trio.sleep(0.1)
            assert await asker.cancel(names[0])
        assert not await asker.cancel(AskId("unheard of"))
        assert asker.waiting == asker.running == 0


async def test_open_questions_are_taken_up_again(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with nodes(network, [scripted("42"), scripted("41")]) as swarm:
        node = swarm[0]
        again, worn = AskId("again"), AskId("worn")
        for ask in (again, worn):
            await node.store.accept(ask, ASK)
        await node.store.mark_running(again, RoundId(b"r" * 32))
        for _ in range(coordinating.ATTEMPTS):
            await node.store.mark_running(worn, RoundId(b"r" * 32))
        await node.coordinator.resume()
        assert node.store.asks[again].state == "done"
        assert node.store.asks[again].attempt == 2
        failed = node.store.asks[worn]
        assert failed.state == "failed"
        assert failed.error is not None
        assert failed.error.data is not None
        assert failed.error.data.code == "interrupted"


async def test_a_resumed_question_that_fails_does_not_end_the_node(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with nodes(network, [scripted("42"), scripted("41")]) as swarm:
        node = swarm[0]
        await node.store.accept(AskId("lonely"), AskParams(QUESTION, min_answers=9))
        await node.coordinator.resume()
        assert node.store.asks[AskId("lonely")].state == "failed"


async def test_why_needs_a_round_that_ended(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with nodes(network, [scripted("42"), scripted("41")]) as swarm:
        await swarm[0].coordinator.ask(ASK, ignore)
        (round_id,) = swarm[0].store.receipts
        with pytest.raises(UnknownRoundError):  # the fake keeps no files
            await swarm[0].coordinator.why(round_id.hex()[:8])
        with pytest.raises(UnknownRoundError):
            await swarm[0].coordinator.why("ffff")


# --- the worker alone -------------------------------------------------------------------------


def invite(nonce: bytes = b"n" * 32, **changes: Any) -> Invite:
    values: dict[str, Any] = {
        "version": ROUND,
        "swarm": "test",
        "nonce": nonce,
        "question": QUESTION,
        "answer_bytes": 100,
        "answer_tokens": 10,
        "phases": Phases(5000, 1000, 5000),
        "secret_hash": secret_hash(b"s" * 32),
    }
    return Invite(**values | changes)


STRANGER = KeySigner(b"s" * 32)


class Post:
    """Collects what a worker sends."""

    def __init__(self) -> None:
        self.sent: list[tuple[PeerId, Any]] = []

    def __call__(self, peer: PeerId, payload: bytes) -> None:
        self.sent.append((peer, parse(payload).message))

    def declines(self) -> list[str]:
        return [message.reason for _, message in self.sent if isinstance(message, Decline)]


async def serving(
    invites: Sequence[Invite], check: Callable[[Post, Any], Any], network: FakeNetwork
) -> None:
    """Give a lone worker these Invites of one asker."""
    async with nodes(network, [scripted("42", delay_s=3.0)], min_answers=1) as (node,):
        post = Post()
        worker = node.worker
        worker._post = post
        for one in invites:
            worker.receive(parse(encode(seal(STRANGER, one))))
        await trio.sleep(1)
        check(post, worker)


async def test_an_asker_has_only_so_many_rounds_at_once(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    invites = [invite(bytes([index]) * 32) for index in range(limits.ROUNDS_PER_ASKER + 2)]

    def check(post: Post, worker: Any) -> None:
        assert post.declines() == ["busy", "busy"]
        assert worker.serving == limits.ROUNDS_PER_ASKER

    await serving(invites, check, network)


async def test_an_invite_is_served_once(autojump_clock: MockClock, network: FakeNetwork) -> None:
    def check(post: Post, worker: Any) -> None:
        assert worker.serving == 1
        assert post.declines() == []

    await serving([invite(), invite()], check, network)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"swarm": "other"}, "refused"),
        ({"version": ROUND + 1}, "unsupported"),
        ({"question": "é" * limits.QUESTION_BYTES}, "refused"),
    ],
    ids=["swarm", "version", "size"],
)
async def test_what_does_not_fit_is_declined(
    autojump_clock: MockClock, network: FakeNetwork, changes: dict[str, Any], reason: str
) -> None:
    def check(post: Post, worker: Any) -> None:
        assert post.declines() == [reason]
        assert worker.serving == 0

    await serving([invite(**changes)], check, network)


async def test_a_round_ends_here_when_its_asker_falls_silent(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with nodes(network, [scripted("42", delay_s=1.0)], min_answers=1) as (node,):
        node.worker._post = Post()
        node.worker.receive(parse(encode(seal(node.signer, invite()))))
        await trio.sleep(60)
        assert node.worker.serving == 0


async def test_a_close_frees_the_worker(autojump_clock: MockClock, network: FakeNetwork) -> None:
    async with nodes(network, [scripted("42", delay_s=4.0)], min_answers=1) as (node,):
        node.worker._post = Post()
        opening = seal(node.signer, invite())
        node.worker.receive(parse(encode(opening)))
        await trio.sleep(0.5)
        close = Close(RoundId(opening.digest), "cancelled", bytes(32))
        node.worker.receive(parse(encode(seal(node.signer, close))))
        await trio.sleep(0.1)
        assert node.worker.serving == 0


async def test_own_questions_are_served_beside_those_of_strangers(
    autojump_clock: MockClock, network: FakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ROUNDS_AT_ONCE", 1)
    async with nodes(network, [scripted("42", delay_s=3.0)], min_answers=1) as (node,):
        worker = node.worker
        worker._post = post = Post()
        worker.receive(parse(encode(seal(STRANGER, invite()))))
        worker.receive(parse(encode(seal(node.signer, invite()))))
        worker.receive(parse(encode(seal(STRANGER, invite(b"m" * 32)))))
        await trio.sleep(1)
        assert worker.serving == 2
        assert post.declines() == ["busy"]


async def test_rounds_of_an_asker_that_has_gone_end_here(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with nodes(network, [scripted("42"), scripted("41", delay_s=50.0)]) as swarm:
        asker, peer = swarm
        phases = Phases(limits.PHASE_MS, limits.PHASE_MS, limits.PHASE_MS)
        asker.mesh.send(peer.peer, encode(seal(asker.signer, invite(phases=phases))))
        await trio.sleep(1)
        assert peer.worker.serving == 1
        network.partition([asker.peer], [peer.peer])
        await trio.sleep(5)
        assert peer.worker.serving == 0


async def test_a_flood_of_repeats_costs_nobody_else_a_message(
    autojump_clock: MockClock, network: FakeNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    backends = [scripted("42"), scripted("41"), scripted("40"), scripted("39")]
    async with nodes(network, backends) as swarm, trio.open_nursery() as nursery:
        asker, hostile = swarm[0], swarm[-1]
        send = hostile.mesh.send

        async def flood(peer: PeerId, payload: bytes) -> None:
            while True:
                for _ in range(40):
                    with suppress(BackpressureError):
                        send(peer, payload)
                await trio.sleep(0.01)

        def repeat(peer: PeerId, payload: bytes) -> None:
            send(peer, payload)
            if isinstance(parse(payload).message, Commit):
                nursery.start_soon(flood, peer, payload)

        hostile.worker._post = repeat
        result = await asker.coordinator.ask(ASK, ignore)
        nursery.cancel_scope.cancel()
    assert result["answer"] == "42"
    assert faults(result) == {}
    assert "flooded" not in caplog.text


async def test_what_work_brought_is_dropped_once_it_was_stopped() -> None:
    applied: list[float] = []
    scope = trio.CancelScope()
    apply = working._unless_stopped(scope, applied.append)
    apply(1.0)
    scope.cancel()
    apply(2.0)
    assert applied == [1.0]


async def test_finishing_what_was_cancelled_meanwhile(
    autojump_clock: MockClock, network: FakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(network, [scripted("42"), scripted("41")]) as swarm:
        asker = swarm[0]
        finish = asker.store.finish

        async def cancelled_first(ask: AskId, result: dict[str, Any]) -> bool:
            assert await asker.coordinator.cancel(ask)
            return await finish(ask, result)

        monkeypatch.setattr(asker.store, "finish", cancelled_first)
        with pytest.raises(CancelledError):
            await asker.coordinator.ask(ASK, ignore)
        (record,) = asker.store.asks.values()
        assert record.state == "cancelled"


async def test_a_disk_that_fails_at_the_start_does_not_end_the_node(
    autojump_clock: MockClock, network: FakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(network, [scripted("42"), scripted("41")]) as swarm:
        node = swarm[0]
        await node.store.accept(AskId("worn"), ASK)
        for _ in range(coordinating.ATTEMPTS):
            await node.store.mark_running(AskId("worn"), RoundId(b"r" * 32))

        async def broken(*arguments: object) -> None:
            raise StoreError("no")

        with monkeypatch.context() as patched:
            patched.setattr(node.store, "fail", broken)
            await node.coordinator.resume()
        with monkeypatch.context() as patched:
            patched.setattr(node.store, "unfinished", broken)
            await node.coordinator.resume()
        assert (await node.coordinator.ask(ASK, ignore))["answer"] == "42"
