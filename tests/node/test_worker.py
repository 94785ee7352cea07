"""The worker: no round is answered twice, whatever happens, and whom it serves first."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.backends.base import Backend, Emit, GenerateRequest, Generation
from node.backends.scripted import Script, ScriptedBackend
from node.conduct import Conduct
from node.worker import Worker
from protocol import limits
from protocol.envelope import KeySigner
from protocol.errors import BackendError, StoreError
from protocol.ids import PeerId, RoundId
from protocol.messages import (
    Close,
    Commit,
    Decline,
    Incoming,
    Invite,
    Message,
    Model,
    Phases,
    Roster,
    RosterEntry,
    opened,
    parse,
    seal,
    secret_hash,
)
from protocol.proofs import check, equivocation
from protocol.version import ROUND
from swarm.proofs import Witness
from tests.fakes.peer_records import FakePeerRecords

ASKER = KeySigner(b"a" * 32)
EPOCH = 1_700_000_000


def key(name: object) -> KeySigner:
    return KeySigner(hashlib.sha256(str(name).encode()).digest())


def invite(number: int = 0, **changes: Any) -> Invite:
    values: dict[str, Any] = {
        "version": ROUND,
        "swarm": "test",
        "nonce": number.to_bytes(32, "big"),
        "question": "What is 6 * 7?",
        "answer_bytes": 100,
        "answer_tokens": 10,
        "phases": Phases(20_000, 1000, 5000),
        "secret_hash": secret_hash(b"s" * 32),
    }
    return Invite(**values | changes)


def scripted(answer: str | None = "42", delay_s: float = 0.5) -> ScriptedBackend:
    return ScriptedBackend(Script("a model", default=answer, delay_s=delay_s))


class Moody(ScriptedBackend):
    """Never answers the same twice."""

    answers = 0

    async def generate(self, request: GenerateRequest, emit: Emit) -> Generation:
        await trio.sleep(0.5)
        Moody.answers += 1
        text = str(Moody.answers)
        return Generation(text, text, 1)


def moody() -> Backend:
    return Moody(Script("a model"))


class Desk:
    """A worker, and an asker's end of the wire: tells it things, keeps what it says."""

    def __init__(
        self,
        nursery: trio.Nursery,
        backend: Backend,
        signer: KeySigner,
        records: FakePeerRecords,
        conduct: Conduct,
    ) -> None:
        self.signer = signer
        self.records = records
        self.conduct = conduct
        self.said: list[Incoming] = []
        self.times: list[float] = []
        model = Model("a model", "a family", "")
        self.worker = Worker(nursery, self._hear, backend, model, signer, "test", records, conduct)

    def _hear(self, peer: PeerId, payload: bytes) -> None:
        self.said.append(parse(payload))
        self.times.append(trio.current_time())

    def tell(self, message: Message, by: KeySigner = ASKER) -> RoundId:
        """Gives the digest of the message, which for an Invite is the round's id."""
        envelope = seal(by, message)
        self.worker.receive(opened(envelope))
        return RoundId(envelope.digest)

    def invite(self, number: int = 0, by: KeySigner = ASKER, **changes: Any) -> RoundId:
        return self.tell(invite(number, **changes), by)

    def of(self, kind: type) -> list[Any]:
        return [one.message for one in self.said if isinstance(one.message, kind)]


@asynccontextmanager
async def alone(backend: Backend, records: FakePeerRecords | None = None) -> AsyncIterator[Desk]:
    """A worker that runs until the block ends; with ``records`` of an earlier one, restarted."""
    records = records or FakePeerRecords()
    async with trio.open_nursery() as nursery:
        conduct = await Conduct.load(
            key("node").peer, records, lambda proof: None, lambda: EPOCH + trio.current_time()
        )
        nursery.start_soon(conduct.run)
        yield Desk(nursery, backend, key("node"), records, conduct)
        nursery.cancel_scope.cancel()


# --- once, and never again ----------------------------------------------------------------------


async def test_a_replayed_invite_makes_no_second_commit(autojump_clock: MockClock) -> None:
    """While the round runs, after it, and after a restart, though the model's answer differs."""
    records, said = FakePeerRecords(), []
    for _ in range(3):
        async with alone(moody(), records) as desk:
            for _ in range(3):
                desk.invite()
                await trio.sleep(0.6)
                desk.invite()
                await trio.sleep(60)
            said += desk.said
    commits = [one for one in said if isinstance(one.message, Commit)]
    assert len(commits) == 1
    witness = Witness()
    assert not any(witness.hear(one) for one in said)
    declines = {one.message.detail for one in said if isinstance(one.message, Decline)}
    assert declines == {"this round was answered before"}


async def test_a_replay_stops_the_model_at_once(autojump_clock: MockClock) -> None:
    async with alone(moody()) as desk:
        desk.invite()
        await trio.sleep(60)
        answers = Moody.answers
        desk.invite()
        await trio.sleep(60)
        assert Moody.answers == answers
        assert len(desk.of(Decline)) == 1


async def test_without_its_memory_such_a_node_would_convict_itself(
    autojump_clock: MockClock,
) -> None:
    """What the memory is for: the same, but the disk is lost between the two."""
    said: list[Incoming] = []
    for _ in range(2):
        async with alone(moody()) as desk:
            desk.invite()
            await trio.sleep(1)
            said += desk.said
    witness = Witness()
    (proof,) = [proof for one in said if (proof := witness.hear(one))]
    assert check(proof).kind == "equivocation"


async def test_even_then_the_same_answer_gives_the_same_commit(autojump_clock: MockClock) -> None:
    said: list[Incoming] = []
    for _ in range(2):
        async with alone(scripted("42")) as desk:
            desk.invite()
            await trio.sleep(1)
            said += desk.said
    assert len(said) == 2
    assert said[0].message == said[1].message


async def test_the_commit_waits_for_the_disk_and_the_disk_for_nobody(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for disk_s, model_s in ((3.0, 0.5), (0.5, 3.0), (1.0, 1.0)):
        async with alone(scripted("42", delay_s=model_s)) as desk:
            claim = desk.records.claim

            async def slowly(
                round_id: RoundId,
                claim: Callable[[RoundId], Any] = claim,
                disk_s: float = disk_s,
            ) -> bool:
                await trio.sleep(disk_s)
                return bool(await claim(round_id))

            monkeypatch.setattr(desk.records, "claim", slowly)
            began = trio.current_time()
            desk.invite()
            await trio.sleep(10)
            assert [type(one.message) for one in desk.said] == [Commit]
            assert desk.times[0] - began == pytest.approx(max(disk_s, model_s))


async def test_a_disk_that_fails_costs_the_round_not_the_node(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with alone(scripted("42")) as desk:

        async def full(round_id: RoundId) -> bool:
            raise StoreError("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(desk.records, "claim", full)
            desk.invite()
            await trio.sleep(1)
        assert [(one.reason, one.detail) for one in desk.of(Decline)] == [
            ("failed", "internal error")
        ]
        assert desk.of(Commit) == []
        desk.invite(1)
        await trio.sleep(1)
        assert len(desk.of(Commit)) == 1


async def test_a_round_that_ended_unanswered_is_forgotten(autojump_clock: MockClock) -> None:
    """Nothing was signed that a second Commit could contradict, and no answer was paid for."""
    async with alone(scripted("42", delay_s=2.0)) as desk:
        for _ in range(2):
            round_id = desk.invite()
            await trio.sleep(1)
            assert list(desk.records.rounds) == [round_id]
            desk.tell(Close(round_id, "cancelled", bytes(32)))
            await trio.sleep(1)
            assert list(desk.records.rounds) == []
        desk.invite()
        await trio.sleep(60)
        assert len(desk.of(Commit)) == 1
        assert list(desk.records.rounds) == [round_id]


async def test_a_release_that_fails_keeps_the_claim(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with alone(scripted("42", delay_s=2.0)) as desk:

        async def full(round_id: RoundId) -> None:
            raise StoreError("the disk is full")

        monkeypatch.setattr(desk.records, "release", full)
        round_id = desk.invite()
        await trio.sleep(1)
        desk.tell(Close(round_id, "cancelled", bytes(32)))
        await trio.sleep(1)
        assert desk.worker.serving == 0
        desk.invite()
        await trio.sleep(5)
        assert desk.of(Commit) == []


async def test_a_model_that_fails_is_asked_again(autojump_clock: MockClock) -> None:
    class Failing(ScriptedBackend):
        async def generate(self, request: GenerateRequest, emit: Emit) -> Generation:
            await trio.sleep(0.5)
            raise BackendError("no")

    async with alone(Failing(Script("a model"))) as desk:
        for _ in range(2):
            desk.invite()
            await trio.sleep(60)
        assert [one.detail for one in desk.of(Decline)] == ["no", "no"]
        assert list(desk.records.rounds) == []
        assert desk.conduct._balance.account(ASKER.peer, 0).taken == 0.0


async def test_ones_own_rounds_cost_no_disk(autojump_clock: MockClock) -> None:
    async with alone(scripted("42")) as desk:
        desk.invite(by=desk.signer)
        await trio.sleep(60)
        assert len(desk.of(Commit)) == 1
        assert list(desk.records.rounds) == []
        assert not desk.conduct._balance.knows(desk.signer.peer)


# --- whom to serve ------------------------------------------------------------------------------


async def test_a_hundred_fresh_keys_do_not_displace_an_established_peer(
    autojump_clock: MockClock,
) -> None:
    async with alone(scripted("42", delay_s=5.0)) as desk:
        friend = key("friend")
        for _ in range(5):
            desk.conduct.served_us(friend.peer)
        for number in range(100):
            desk.invite(number, by=key(number))
        await trio.sleep(1)
        assert desk.worker.serving == limits.STRANGERS_AT_ONCE
        refused = desk.of(Decline)
        assert len(refused) == 100 - limits.STRANGERS_AT_ONCE
        assert {one.reason for one in refused} == {"busy"}
        assert "have not served this node as much" in refused[0].detail
        for number in range(limits.ROUNDS_PER_ASKER):
            desk.invite(number, by=friend)
        await trio.sleep(10)
        assert len(desk.of(Commit)) == limits.STRANGERS_AT_ONCE + limits.ROUNDS_PER_ASKER
        assert len(desk.of(Decline)) == len(refused)


async def test_ones_own_rounds_take_no_seat_of_others(autojump_clock: MockClock) -> None:
    async with alone(scripted("42", delay_s=5.0)) as desk:
        for number in range(8):
            desk.invite(number, by=desk.signer)
        for number in range(limits.STRANGERS_AT_ONCE):
            desk.invite(number, by=key(number))
        await trio.sleep(1)
        assert desk.of(Decline) == []
        assert desk.worker.serving == 8 + limits.STRANGERS_AT_ONCE


async def test_what_was_served_is_counted(autojump_clock: MockClock) -> None:
    async with alone(scripted("42")) as desk:
        for number in range(3):
            desk.invite(number)
        desk.invite(3, swarm="another")
        desk.invite(0)
        await trio.sleep(60)
        desk.invite(0)
        await trio.sleep(1)
        (account,) = [account for _, account in await desk.records.accounts()]
        assert account.taken == pytest.approx(3.0, abs=0.01)
        assert account.given == 0.0


async def test_a_struck_asker_is_declined(autojump_clock: MockClock) -> None:
    async with alone(scripted()) as desk:
        desk.invite(1)
        commit = Commit(RoundId(bytes(32)), bytes(32), Model("", "", ""))
        other = Commit(RoundId(bytes(32)), b"x" * 32, Model("", "", ""))
        desk.conduct.convict([equivocation(seal(ASKER, commit), seal(ASKER, other))])
        desk.invite(2)
        await trio.sleep(1)
        assert [(one.reason, one.detail) for one in desk.of(Decline)] == [
            ("refused", "a proof excludes you")
        ]
        assert len(desk.of(Commit)) == 1, "a round that runs goes on"
        await trio.sleep(limits.STRIKE_S)
        desk.invite(3)
        await trio.sleep(1)
        assert len(desk.of(Commit)) == 2


async def test_an_asker_that_shows_two_rosters_is_struck(autojump_clock: MockClock) -> None:
    async with alone(scripted("42")) as desk:
        round_id = desk.invite()
        await trio.sleep(1)
        (commit,) = [one.envelope for one in desk.said]
        entry = RosterEntry(desk.signer.peer, commit.digest)
        roster = Roster(round_id, 0, bytes(32), (entry,))
        other = Roster(round_id, 0, bytes(32), (RosterEntry(desk.signer.peer, bytes(32)),))
        desk.tell(roster)
        assert desk.conduct.struck(ASKER.peer) is None
        desk.tell(other, by=key("somebody"))
        assert desk.conduct.struck(ASKER.peer) is None
        desk.tell(other)
        strike = desk.conduct.struck(ASKER.peer)
        assert strike is not None
        assert check(strike.proof).peer == ASKER.peer
