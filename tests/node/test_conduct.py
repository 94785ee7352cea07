"""Strikes and service over fake wires: who learns of a proof, at what cost, and what is kept."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from trio.testing import MockClock

from node import conduct as conducting
from node.conduct import WRITE_S, Allowance, Conduct
from node.router import Router
from protocol import limits
from protocol.codec import encode
from protocol.envelope import KeySigner
from protocol.errors import ProofError, ProtocolError, StoreError
from protocol.ids import PeerId, RoundId
from protocol.messages import Ack, Commit, Model, Profile, Proof, ProofNotice, parse, seal
from protocol.proofs import Conviction, check, equivocation
from swarm.registry import Registry
from tests.fakes.mesh import FakeMesh, FakeNetwork
from tests.fakes.peer_records import FakePeerRecords
from tests.protocol.arbitrary import arbitrary

EPOCH = 1_700_000_000
MODEL = Model("a model", "a family", "")
DAY = 24 * 3600


def key(name: str) -> KeySigner:
    return KeySigner(hashlib.sha256(name.encode()).digest())


def offence(who: KeySigner, number: int = 0) -> Proof:
    """Two Commits of ``who`` in some round."""
    round_id = RoundId(number.to_bytes(32, "big"))
    one, other = (seal(who, Commit(round_id, byte * 32, MODEL)) for byte in (b"a", b"b"))
    return equivocation(one, other)


class Deaf:
    """Stands for worker, coordinator and herald, which these tests do without."""

    def __init__(self) -> None:
        self.broken: Counter[str] = Counter()

    def receive(self, incoming: object) -> None:
        """Nothing to do."""

    def lost(self, peer: PeerId) -> None:
        """Nothing to do."""

    def peers_changed(self) -> None:
        """Nothing to do."""

    def welcome(self, peer: PeerId) -> None:
        """Nothing to do."""

    def introduced(self, peer: PeerId) -> None:
        """Nothing to do."""

    def broke(self, peer: PeerId, kind: str, detail: str) -> None:
        self.broken[detail] += 1


class Node:
    """A mesh, a router and what it keeps of its peers' conduct."""

    def __init__(
        self, mesh: FakeMesh, signer: KeySigner, conduct: Conduct, records: FakePeerRecords
    ) -> None:
        self.mesh = mesh
        self.signer = signer
        self.conduct = conduct
        self.records = records
        self.registry = Registry()
        self.deaf = Deaf()
        profile = seal(signer, Profile(MODEL, 0, 4096, serves=True))
        deaf: Any = self.deaf
        self.router = Router(
            mesh=mesh,
            registry=self.registry,
            worker=deaf,
            coordinator=deaf,
            conduct=conduct,
            herald=deaf,
            profile=profile,
        )

    @property
    def peer(self) -> PeerId:
        return self.mesh.peer_id

    def strikes(self, who: KeySigner) -> bool:
        return self.conduct.struck(who.peer) is not None

    def tell(self, other: Node, proof: Proof) -> None:
        """Pass a proof on, whatever it is."""
        self.mesh.send(other.peer, encode(seal(self.signer, ProofNotice(proof))))


class World:
    """Nodes on one network.

    Attributes:
        notices: proofs sent so far, by sender and receiver.
    """

    def __init__(self, nursery: trio.Nursery, stack: AsyncExitStack) -> None:
        self._nursery = nursery
        self._stack = stack
        self._network = FakeNetwork()
        self.notices: Counter[tuple[PeerId, PeerId]] = Counter()

    async def node(
        self, name: str, known: list[Node], records: FakePeerRecords | None = None
    ) -> Node:
        """A running node that dials ``known``."""
        addresses = [address for one in known for address in one.mesh.addresses()]
        mesh = self._network.mesh(name, addresses)
        await self._stack.enter_async_context(mesh.running())
        records = records or FakePeerRecords()
        signer = key(name)
        clock = lambda: EPOCH + trio.current_time()  # noqa: E731
        conduct = await Conduct.load(mesh, records, signer, clock)
        node = Node(mesh, signer, conduct, records)
        self._count(mesh)
        self._nursery.start_soon(conduct.run)
        self._nursery.start_soon(node.router.run)
        return node

    def _count(self, mesh: FakeMesh) -> None:
        send = mesh.send

        def counted(peer: PeerId, payload: bytes) -> None:
            self.notices[mesh.peer_id, peer] += isinstance(parse(payload).message, ProofNotice)
            send(peer, payload)

        mesh.send = counted  # type: ignore[method-assign]


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        yield World(nursery, stack)
        nursery.cancel_scope.cancel()


async def mesh_of(made: World, count: int) -> list[Node]:
    """Nodes that all know each other."""
    nodes: list[Node] = []
    for number in range(count):
        nodes.append(await made.node(f"node{number}", nodes))
    await trio.sleep(5)
    assert all(len(node.mesh.links()) == count for node in nodes)
    return nodes


# --- spreading ----------------------------------------------------------------------------------


async def test_everybody_learns_of_a_proof_and_passes_it_on_once(
    autojump_clock: MockClock,
) -> None:
    async with world() as made:
        nodes = await mesh_of(made, 6)
        liar = key("liar")
        nodes[0].conduct.convict([offence(liar)])
        await trio.sleep(5)
        assert all(node.strikes(liar) for node in nodes)
        assert max(made.notices.values()) == 1, "once to each peer"
        # The finder tells five; each of these tells all but the finder it heard it from.
        assert sum(made.notices.values()) <= 5 + 5 * 4
        for node in nodes:
            node.conduct.convict([offence(liar)])
            for other in nodes:
                node.tell(other, offence(liar))
        before = sum(made.notices.values())
        await trio.sleep(5)
        assert sum(made.notices.values()) == before, "what is known is not passed on"


async def test_a_proof_crosses_peers_that_are_not_connected(autojump_clock: MockClock) -> None:
    async with world() as made:
        line = [await made.node("end", [])]
        for number in range(3):
            line.append(await made.node(f"middle{number}", [line[-1]]))
        await trio.sleep(5)
        line[0].conduct.convict([offence(key("liar"))])
        await trio.sleep(5)
        assert line[-1].strikes(key("liar"))


async def test_the_convicted_is_not_told_and_cannot_stop_it(autojump_clock: MockClock) -> None:
    async with world() as made:
        nodes = await mesh_of(made, 4)
        liar = nodes[3]
        nodes[0].conduct.convict([offence(liar.signer)])
        await trio.sleep(5)
        assert all(node.strikes(liar.signer) for node in nodes[:3])
        assert not any(to == liar.peer for (_, to), count in made.notices.items() if count)


async def test_a_new_peer_is_told_what_is_in_force(autojump_clock: MockClock) -> None:
    async with world() as made:
        (first,) = await mesh_of(made, 1)
        first.conduct.convict([offence(key("old liar"))])
        await trio.sleep(20 * DAY)
        count = limits.PROOFS_TOLD + 8
        liars = [key(f"liar {number}") for number in range(count)]
        first.conduct.convict(offence(liar) for liar in liars)
        late = await made.node("late", [first])
        await trio.sleep(5)
        assert made.notices[first.peer, late.peer] == limits.PROOFS_TOLD
        assert [late.strikes(liar) for liar in liars] == [False] * 8 + [True] * limits.PROOFS_TOLD
        await trio.sleep(31 * DAY)
        later = await made.node("later", [first])
        await trio.sleep(5)
        assert made.notices[first.peer, later.peer] == 0


async def test_a_strike_begins_when_the_proof_is_first_seen(autojump_clock: MockClock) -> None:
    async with world() as made:
        first, second = await mesh_of(made, 2)
        proof = offence(key("liar"))
        first.conduct.convict([proof])
        await trio.sleep(29 * DAY)
        assert second.strikes(key("liar"))
        first.tell(second, proof)
        await trio.sleep(2 * DAY)
        assert not second.strikes(key("liar")), "telling it again prolongs nothing"
        first.tell(second, proof)
        await trio.sleep(5)
        assert not second.strikes(key("liar"))


# --- hostile notices ----------------------------------------------------------------------------


def _forged() -> Proof:
    """A proof against somebody who never signed it."""
    true = offence(key("liar"))
    victim = key("victim").peer
    bent = [type(one)(victim, one.body, one.signature) for one in (true.first, true.second)]
    return Proof(*sorted(bent, key=lambda one: one.digest))


@pytest.mark.parametrize(
    "proof",
    [
        _forged(),
        Proof(*([seal(key("victim"), Commit(RoundId(bytes(32)), bytes(32), MODEL))] * 2)),
        Proof(key("liar").seal(b"?"), key("liar").seal(b"!")),
        Proof(*(key("liar").seal(byte * 20_000) for byte in (b"a", b"b"))),
    ],
    ids=["forged", "one message", "garbage", "too large"],
)
async def test_what_is_no_proof_is_malformed(autojump_clock: MockClock, proof: Proof) -> None:
    async with world() as made:
        node, hostile = await mesh_of(made, 2)
        for number in range(limits.MALFORMED_PER_PEER):
            assert len(node.mesh.links()) == 2, number
            hostile.tell(node, proof)
            await trio.sleep(0.1)
        assert sum(node.deaf.broken.values()) == limits.MALFORMED_PER_PEER + 1, "and the loss"
        assert not any(node.strikes(who) for who in (key("victim"), key("liar")))
        assert node.records.kept == {}


async def test_a_notice_counts_only_from_who_signed_it(autojump_clock: MockClock) -> None:
    async with world() as made:
        node, hostile = await mesh_of(made, 2)
        notice = seal(key("somebody"), ProofNotice(offence(key("liar"))))
        hostile.mesh.send(node.peer, encode(notice))
        await trio.sleep(1)
        assert not node.strikes(key("liar"))
        assert node.deaf.broken["protocol"] == 1


async def test_a_flood_of_true_proofs_costs_so_much_and_no_more(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys are free, and everybody can convict his own."""
    async with world() as made:
        node, bystander, hostile = await mesh_of(made, 3)
        checked: Counter[PeerId] = Counter()

        def counted(proof: Proof) -> Conviction:
            conviction = check(proof)
            checked[conviction.peer] += 1
            return conviction

        monkeypatch.setattr(conducting, "check", counted)
        for number in range(3 * limits.PROOFS_PER_PEER):
            hostile.tell(node, offence(key(f"sybil {number}")))
            await trio.sleep(0.01)
        await trio.sleep(1)
        assert len(checked) == limits.PROOFS_PER_PEER
        assert max(checked.values()) == 3, "once at each node, the hostile one too"
        assert made.notices[node.peer, bystander.peer] == limits.PROOFS_RELAYED
        # What the node finds itself is passed on and taken; others are heard.
        node.conduct.convict([offence(key("liar"))])
        bystander.tell(node, offence(key("another")))
        hostile.tell(node, offence(key("a third")))
        await trio.sleep(1)
        assert bystander.strikes(key("liar"))
        assert node.strikes(key("another"))
        assert not node.strikes(key("a third"))
        await trio.sleep(3600 / limits.PROOFS_PER_HOUR)
        hostile.tell(node, offence(key("a third")))
        await trio.sleep(1)
        assert node.strikes(key("a third")), "with time the same peer is heard again"


def test_an_allowance_fills_with_time_and_not_beyond() -> None:
    allowance = Allowance(3, 60.0, EPOCH)
    assert [allowance.take(EPOCH) for _ in range(4)] == [True, True, True, False]
    assert not allowance.take(EPOCH + 59)
    assert allowance.take(EPOCH + 60)
    assert not allowance.take(EPOCH - DAY), "a clock that runs backwards gives nothing"
    assert [allowance.take(EPOCH + DAY) for _ in range(4)] == [True, True, True, False]


async def test_nothing_is_kept_of_who_has_gone(autojump_clock: MockClock) -> None:
    async with world() as made:
        node, other = await mesh_of(made, 2)
        other.tell(node, offence(key("liar")))
        await trio.sleep(1)
        assert set(node.conduct._verified) == {other.peer}
        made._network.partition([node.peer], [other.peer])
        await trio.sleep(1)
        assert node.conduct._verified == {}


async def test_a_flood_leaves_a_new_peer_room_for_what_matters(
    autojump_clock: MockClock,
) -> None:
    async with world() as made:
        node, hostile = await mesh_of(made, 2)
        node.conduct.convict([offence(key("liar"))])
        for number in range(2 * limits.PROOFS_TOLD):
            hostile.tell(node, offence(key(f"sybil {number}")))
        await trio.sleep(1)
        late = await made.node("late", [node])
        await trio.sleep(1)
        assert late.strikes(key("liar"))


async def test_repeats_cost_no_verification(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world() as made:
        node, other = await mesh_of(made, 2)
        node.conduct.convict([offence(key("liar"))])
        await trio.sleep(1)
        monkeypatch.setattr(conducting, "check", None)
        for _ in range(3 * limits.PROOFS_PER_PEER):
            other.tell(node, offence(key("liar")))
            await trio.sleep(0.01)
        monkeypatch.undo()
        other.tell(node, offence(key("another")))
        await trio.sleep(1)
        assert node.strikes(key("another")), "repeats take nothing of what a peer may cost"
        assert node.deaf.broken == {}


async def test_who_serves_this_node_is_remembered_before_strangers(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STRIKES", 5)
    async with world() as made:
        node, other = await mesh_of(made, 2)
        friend, asker = key("friend"), key("asker")
        node.conduct.served_us(friend.peer)
        node.conduct.served(asker.peer)
        for who in (asker, friend, *(key(f"sybil {number}") for number in range(20))):
            other.tell(node, offence(who))
            await trio.sleep(0.1)
        assert node.strikes(friend)
        assert not node.strikes(asker), "who only asks is as much a stranger as a fresh key"
        await trio.sleep(WRITE_S)
        assert len(node.records.kept) == 5


@settings(max_examples=30, deadline=None)
@given(proof=arbitrary(Proof))
def test_any_proof_is_refused_or_strikes(proof: Proof) -> None:
    async def main() -> None:
        network = FakeNetwork()
        conduct = await Conduct.load(
            network.mesh("node"), FakePeerRecords(), key("node"), lambda: EPOCH
        )
        with pytest.raises(ProtocolError):
            conduct.noticed(key("other").peer, proof)
        assert conduct.excluded() == frozenset()

    trio.run(main)


async def test_ones_own_mistake_is_an_error() -> None:
    network = FakeNetwork()
    conduct = await Conduct.load(
        network.mesh("node"), FakePeerRecords(), key("node"), lambda: EPOCH
    )
    one = seal(key("liar"), Ack(RoundId(bytes(32)), bytes(32)))
    with pytest.raises(ProofError):
        conduct.convict([Proof(one, seal(key("other"), Ack(RoundId(bytes(32)), bytes(32))))])


# --- kept ---------------------------------------------------------------------------------------


async def test_strikes_and_service_survive_a_restart(autojump_clock: MockClock) -> None:
    records = FakePeerRecords()
    async with world() as made:
        node = await made.node("node", [], records)
        node.conduct.convict([offence(key("liar"))])
        node.conduct.served_us(key("friend").peer)
        # Ends at once: what is not written yet is written now.
    async with world() as made:
        node = await made.node("node", [], records)
        assert node.conduct.excluded() == {key("liar").peer}
        full = {key(f"stranger {n}").peer: 1 for n in range(limits.STRANGERS_AT_ONCE)}
        assert node.conduct.admit(key("friend").peer, full) is None
        assert node.conduct.admit(key("nobody").peer, full) is not None


async def test_one_keeps_no_account_with_oneself(autojump_clock: MockClock) -> None:
    async with world() as made:
        node = await made.node("node", [])
        node.conduct.served_us(node.peer)
        await trio.sleep(2 * WRITE_S)
        assert node.records.booked == {}


async def test_changes_are_written_together(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world() as made:
        node = await made.node("node", [])
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
    async with world() as made:
        node = await made.node("node", [])

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
    async with world() as made:
        node = await made.node("node", [])
        for number in range(5):
            node.conduct.served_us(key(f"friend {number}").peer)
            node.conduct.convict([offence(key(f"liar {number}"))])
            await trio.sleep(DAY)
        assert set(node.records.booked) == {key(f"friend {number}").peer for number in (3, 4)}
        kept = [one.peer for one in node.records.kept.values()]
        assert kept == [key("liar 3").peer, key("liar 4").peer]


async def test_addresses_reach_the_registry(autojump_clock: MockClock) -> None:
    async with world() as made:
        node, other = await mesh_of(made, 2)
        seen: list[str] = []
        node.registry.connected = lambda peer, address: seen.append(address)  # type: ignore[method-assign]
        made._network.drop(node.peer, other.peer)
        await trio.sleep(30)
        links = [link for link in node.mesh.links() if link.peer == other.peer]
        assert seen == [link.address for link in links]
