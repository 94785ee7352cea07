"""Strikes and service: what is passed on, at whose cost, and what is kept."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given, settings
from trio.testing import MockClock

from node import conduct as conducting
from node.conduct import STRANGERS_TOLD, WRITE_S, Conduct
from protocol import limits
from protocol.envelope import KeySigner
from protocol.errors import BadSignatureError, ProofError, ProtocolError, StoreError
from protocol.ids import PeerId, RoundId
from protocol.ledger import EPOCH_S
from protocol.messages import Ack, Commit, Model, Proof, seal
from protocol.proofs import equivocation
from tests.fakes.peer_records import FakePeerRecords
from tests.protocol.arbitrary import arbitrary

EPOCH = 1_700_000_000
MODEL = Model("a model", "a family", "")
DAY = 24 * 3600


def key(name: str) -> KeySigner:
    return KeySigner(hashlib.sha256(name.encode()).digest())


OWN = key("node")


def offence(who: KeySigner, number: int = 0) -> Proof:
    """Two Commits of ``who`` in some round."""
    round_id = RoundId(number.to_bytes(32, "big"))
    one, other = (seal(who, Commit(round_id, byte * 32, MODEL)) for byte in (b"a", b"b"))
    return equivocation(one, other)


def virtual_time() -> float:
    return EPOCH + trio.current_time()


class Node:
    """What a node keeps of its peers' conduct.

    Attributes:
        said: what its log is to pass on.
    """

    def __init__(self, records: FakePeerRecords) -> None:
        self.records = records
        self.said: list[Proof] = []
        self.conduct: Conduct

    async def load(self, clock: Callable[[], float]) -> None:
        self.conduct = await Conduct.load(OWN.peer, self.records, self.said.append, clock)

    def strikes(self, who: KeySigner) -> bool:
        return self.conduct.struck(who.peer) is not None

    def accused(self) -> list[PeerId]:
        return [proof.first.signer for proof in self.said]


async def loaded(clock: Callable[[], float] = lambda: EPOCH) -> Node:
    """A node that writes nothing."""
    node = Node(FakePeerRecords())
    await node.load(clock)
    return node


@asynccontextmanager
async def running(records: FakePeerRecords | None = None) -> AsyncIterator[Node]:
    """A node, or with the records of an earlier one that node, restarted."""
    node = Node(records or FakePeerRecords())
    async with trio.open_nursery() as nursery:
        await node.load(virtual_time)
        nursery.start_soon(node.conduct.run)
        yield node
        nursery.cancel_scope.cancel()


# --- found, and heard of --------------------------------------------------------------------------


async def test_what_a_node_finds_itself_it_passes_on_once() -> None:
    node = await loaded()
    for _ in range(3):
        node.conduct.convict([offence(key("liar")), offence(key("liar"), 1)])
    assert node.strikes(key("liar"))
    assert node.said == [offence(key("liar")), offence(key("liar"), 1)]


async def test_what_others_have_found_strikes_and_is_not_passed_on() -> None:
    node = await loaded()
    for _ in range(3):
        node.conduct.heard([offence(key("liar"))])
    assert node.strikes(key("liar"))
    assert node.said == []


async def test_what_somebody_has_told_is_told_by_him_alone() -> None:
    """Two messages of one offence make many proofs; the first that is heard is enough."""
    node = await loaded()
    node.conduct.heard([offence(key("liar"))])
    node.conduct.convict([offence(key("liar"))])
    assert node.said == []
    node.conduct.convict([offence(key("liar"), 1)])
    assert node.said == [offence(key("liar"), 1)]


async def test_a_proof_in_a_log_is_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two signatures each, whenever anything changes in it."""
    node = await loaded()
    monkeypatch.setattr(conducting, "check", None)
    node.conduct.heard([offence(key("liar"))])
    assert node.strikes(key("liar"))


async def test_a_strike_begins_when_the_proof_is_first_seen(autojump_clock: MockClock) -> None:
    node = await loaded(virtual_time)
    node.conduct.heard([offence(key("liar"))])
    await trio.sleep(29 * DAY)
    node.conduct.heard([offence(key("liar"))])
    await trio.sleep(DAY - 1)
    assert node.strikes(key("liar"))
    await trio.sleep(1)
    assert not node.strikes(key("liar")), "seeing it again prolongs nothing"
    node.conduct.heard([offence(key("liar"))])
    node.conduct.convict([offence(key("liar"))])
    assert not node.strikes(key("liar"))


@settings(max_examples=30, derandomize=True, deadline=None)
@given(proof=arbitrary(Proof))
def test_any_proof_is_refused_or_strikes(proof: Proof) -> None:
    async def main() -> None:
        node = await loaded()
        with pytest.raises(ProtocolError):
            node.conduct.convict([proof])
        assert node.conduct.excluded() == frozenset()
        assert node.said == []

    trio.run(main)


async def test_a_proof_that_somebody_else_signed_is_none() -> None:
    true, victim = offence(key("liar")), key("victim").peer
    bent = [type(one)(victim, one.body, one.signature) for one in (true.first, true.second)]
    node = await loaded()
    with pytest.raises(BadSignatureError):
        node.conduct.convict([Proof(*sorted(bent, key=lambda one: one.digest))])
    assert node.conduct.excluded() == frozenset()
    assert node.said == []


async def test_ones_own_mistake_is_an_error() -> None:
    node = await loaded()
    one = seal(key("liar"), Ack(RoundId(bytes(32)), bytes(32)))
    with pytest.raises(ProofError):
        node.conduct.convict([Proof(one, seal(key("other"), Ack(RoundId(bytes(32)), bytes(32))))])


# --- many of them ---------------------------------------------------------------------------------


async def test_who_makes_keys_to_misbehave_leaves_room_for_what_matters() -> None:
    """The log takes so many proofs in an epoch, and keys are free."""
    node = await loaded()
    strangers = [key(f"sybil {number}") for number in range(2 * limits.EVIDENCE_PER_EPOCH)]
    node.conduct.convict(map(offence, strangers))
    assert all(map(node.strikes, strangers))
    assert node.accused() == [one.peer for one in strangers[:STRANGERS_TOLD]]
    friends = [key(f"friend {n}") for n in range(limits.EVIDENCE_PER_EPOCH - STRANGERS_TOLD)]
    for friend in friends:
        node.conduct.served_us(friend.peer)
        node.conduct.convict([offence(friend)])
    assert node.accused()[STRANGERS_TOLD:] == [one.peer for one in friends]
    assert len(node.said) <= limits.EVIDENCE_PER_EPOCH


async def test_in_time_there_is_room_for_strangers_again(autojump_clock: MockClock) -> None:
    node = await loaded(virtual_time)
    for number in range(STRANGERS_TOLD):
        node.conduct.convict([offence(key(f"early {number}"))])
        await trio.sleep(10)
    node.conduct.convict([offence(key("too many"))])
    assert len(node.said) == STRANGERS_TOLD
    await trio.sleep(EPOCH_S - 10 * STRANGERS_TOLD)
    for name in ("late", "later"):
        node.conduct.convict([offence(key(name))])
    assert node.accused()[STRANGERS_TOLD:] == [key("late").peer], "one epoch after the first"


async def test_a_clock_that_was_ahead_silences_nobody() -> None:
    now = float(EPOCH + 900 * DAY)
    node = await loaded(lambda: now)
    node.conduct.convict(offence(key(f"early {number}")) for number in range(STRANGERS_TOLD))
    now = EPOCH
    node.conduct.convict([offence(key("late"))])
    assert node.accused()[-1] == key("late").peer


async def test_who_serves_this_node_is_remembered_before_strangers(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STRIKES", 5)
    async with running() as node:
        friend, asker = key("friend"), key("asker")
        node.conduct.served_us(friend.peer)
        node.conduct.served(asker.peer)
        sybils = [key(f"sybil {number}") for number in range(20)]
        node.conduct.heard(map(offence, (asker, friend, *sybils)))
        assert node.strikes(friend)
        assert not node.strikes(asker), "who only asks is as much a stranger as a fresh key"
        await trio.sleep(WRITE_S)
        assert len(node.records.kept) == 5


async def test_what_others_find_does_not_displace_what_this_node_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "STRIKES", 5)
    node = await loaded()
    node.conduct.convict([offence(key("liar"))])
    node.conduct.heard(offence(key(f"sybil {number}")) for number in range(20))
    assert node.strikes(key("liar"))


# --- kept ---------------------------------------------------------------------------------------


async def test_what_was_found_and_is_in_force_is_passed_on_after_a_restart(
    autojump_clock: MockClock,
) -> None:
    """Whether it was written to the log or not."""
    records = FakePeerRecords()
    async with running(records) as node:
        node.conduct.convict([offence(key("old liar"))])
        await trio.sleep(20 * DAY)
        node.conduct.convict([offence(key("liar"))])
        node.conduct.heard([offence(key("another"))])
    async with running(records) as node:
        assert node.accused() == [key("liar").peer, key("old liar").peer]
        node.conduct.convict([offence(key("liar"))])
        assert len(node.said) == 2
        await trio.sleep(11 * DAY)
    async with running(records) as node:
        assert node.accused() == [key("liar").peer]
        assert node.conduct.excluded() == {key("liar").peer, key("another").peer}


async def test_a_restart_makes_no_room_for_strangers(autojump_clock: MockClock) -> None:
    records = FakePeerRecords()
    async with running(records) as node:
        for number in range(3 * STRANGERS_TOLD):
            await trio.sleep(1)
            node.conduct.convict([offence(key(f"sybil {number}"))])
        await trio.sleep(1)
        node.conduct.served_us(key("friend").peer)
        node.conduct.convict([offence(key("friend"))])
    async with running(records) as node:
        latest = [key(f"sybil {n}").peer for n in range(3 * STRANGERS_TOLD)][-STRANGERS_TOLD:]
        assert node.accused() == [key("friend").peer, *reversed(latest)]
        node.conduct.convict([offence(key("one more"))])
        assert len(node.said) == 1 + STRANGERS_TOLD


async def test_strikes_and_service_survive_a_restart(autojump_clock: MockClock) -> None:
    records = FakePeerRecords()
    async with running(records) as node:
        node.conduct.convict([offence(key("liar"))])
        node.conduct.served_us(key("friend").peer)
        # Ends at once: what is not written yet is written now.
    async with running(records) as node:
        assert node.conduct.excluded() == {key("liar").peer}
        full = {key(f"stranger {n}").peer: 1 for n in range(limits.STRANGERS_AT_ONCE)}
        assert node.conduct.admit(key("friend").peer, full) is None
        assert node.conduct.admit(key("nobody").peer, full) is not None


async def test_one_keeps_no_account_with_oneself(autojump_clock: MockClock) -> None:
    async with running() as node:
        node.conduct.served_us(OWN.peer)
        await trio.sleep(2 * WRITE_S)
        assert node.records.booked == {}


async def test_changes_are_written_together(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as node:
        writes = 0
        keep = node.records.keep

        async def counted(*arguments: object) -> None:
            nonlocal writes
            writes += 1
            await keep(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(node.records, "keep", counted)
        for number in range(200):
            node.conduct.served(key(f"asker {number % 7}").peer)
            await trio.sleep(WRITE_S / 50)
        await trio.sleep(2 * WRITE_S)
        assert writes == pytest.approx(200 / 50, abs=2)
        assert len(node.records.booked) == 7
        await trio.sleep(100)
        assert writes <= 6, "nothing to write, nothing written"


async def test_what_could_not_be_written_is_written_later(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as node:

        async def full(*arguments: object) -> None:
            raise StoreError("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(node.records, "keep", full)
            node.conduct.convict([offence(key("liar"))])
            node.conduct.served_us(key("friend").peer)
            await trio.sleep(10 * WRITE_S)
            assert node.records.kept == {}
        await trio.sleep(2 * WRITE_S)
        assert [one.peer for one in node.records.kept.values()] == [key("liar").peer]
        assert list(node.records.booked) == [key("friend").peer]


async def test_closed_accounts_and_forgotten_strikes_leave_the_disk(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ACCOUNTS", 2)
    monkeypatch.setattr(limits, "STRIKES", 2)
    async with running() as node:
        for number in range(5):
            node.conduct.served_us(key(f"friend {number}").peer)
            node.conduct.convict([offence(key(f"liar {number}"))])
            await trio.sleep(DAY)
        assert set(node.records.booked) == {key(f"friend {number}").peer for number in (3, 4)}
        kept = [one.peer for one in node.records.kept.values()]
        assert kept == [key("liar 3").peer, key("liar 4").peer]
