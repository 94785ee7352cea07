"""Whether strangers get through is found out by strangers, and nobody is flooded by it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from node.mesh.address import Address, parse_address
from node.mesh.probing import (
    AGAIN_S,
    ASKED_AT_ONCE,
    DIAL_BACK,
    DIAL_S,
    DIALS_PER_MINUTE,
    FIRST_S,
    SETTLED_S,
    STRANGERS,
    VERIFY,
    VERIFY_S,
    Prober,
    Verified,
    Verify,
)
from node.mesh.reach import CONFIRMATION_S, Reach
from protocol.codec import decode, encode
from protocol.errors import (
    CallError,
    DecodeError,
    ProtocolError,
    RefusedError,
    SwarmError,
    TooLargeError,
    UnreachableError,
)
from protocol.ids import PeerId
from tests.fakes.mesh import FakeNetwork

Answer = Callable[[PeerId, bytes], Awaitable[bytes]]


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


@dataclass
class Way:
    """A connection, as far as probing needs one."""

    address: Address | None
    closed: bool = False

    async def close(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


@dataclass
class Internet:
    """Where nodes listen, and who has dialled where."""

    nodes: dict[PeerId, Node] = field(default_factory=dict)
    dials: list[tuple[float, PeerId, Address]] = field(default_factory=list)
    ways: list[Way] = field(default_factory=list)

    def node(self, number: int, open_to: str = "all") -> Node:
        node = self.nodes[peer(number)] = Node(self, number, open_to)
        return node

    async def dial(self, dialler: Node, address: Address) -> Way:
        self.dials.append((trio.current_time(), dialler.peer, address))
        target = next((n for n in self.nodes.values() if n.address.socket == address.socket), None)
        if target is None:
            raise OSError("nobody there")
        known = dialler.peer in target.links
        if target.open_to == "nobody" or (target.open_to == "known" and not known):
            await trio.sleep_forever()
        if target.peer != address.peer:
            raise OSError("another peer answers there")
        self.ways.append(Way(address))
        return self.ways[-1]


class Node:
    """A prober with links and calls of its own."""

    def __init__(self, internet: Internet, number: int, open_to: str) -> None:
        self.peer = peer(number)
        self.address = Address("ip4", f"203.0.113.{number}", 4001, self.peer)
        self.open_to = open_to
        self.links: dict[PeerId, Way] = {}
        self.answers: dict[str, Answer] = {}
        self.addresses = [self.address]
        self.asked: list[tuple[float, PeerId, str]] = []
        self.changes = 0
        self.reach = Reach()
        self._internet = internet
        self.prober = Prober(
            self.peer,
            self.reach,
            self,  # type: ignore[arg-type]
            lambda: sorted(self.links),
            self._carrier_of,  # type: ignore[arg-type]
            lambda address: internet.dial(self, address),  # type: ignore[arg-type,return-value]
            lambda: self.addresses,
            self._changed,
            random.Random(number),
        )

    def link(self, *others: Node) -> None:
        for other in others:
            self.links[other.peer] = Way(other.address.bare())
            other.links[self.peer] = Way(self.address.bare())

    async def call(self, who: PeerId, method: str, body: bytes, limit_s: float) -> bytes:
        """As :class:`node.mesh.calls.Calls`."""
        self.asked.append((trio.current_time(), who, method))
        if who not in self.links:
            raise UnreachableError("no link")
        try:
            with trio.fail_after(limit_s):
                return await self._internet.nodes[who].answers[method](self.peer, body)
        except trio.TooSlowError as error:
            raise CallError("in time") from error
        except SwarmError as error:
            raise CallError(f"{error} ({error.code})") from error

    async def ask(self, other: Node, address: str, method: str = VERIFY) -> Verified:
        return decode(await other.answers[method](self.peer, encode(Verify(address))), Verified)

    def nat(self) -> str:
        sockets = (self.address.bare(),)
        return self.reach.report(sockets, trio.current_time()).nat

    def _changed(self) -> None:
        self.changes += 1

    def _carrier_of(self, who: PeerId) -> Way:
        if who not in self.links:
            raise UnreachableError("no link")
        return self.links[who]


async def run(node: Node, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await node.prober.run()


# --- who tries ----------------------------------------------------------------------------------


async def test_a_stranger_dials_back(autojump_clock: MockClock) -> None:
    internet = Internet()
    asker, verifier, stranger = (internet.node(number) for number in (1, 2, 3))
    verifier.link(asker, stranger)
    assert asker.nat() == "unknown"
    await run(asker, 10)
    assert asker.nat() == "public"
    assert asker.changes == 1
    report = asker.reach.report((), trio.current_time())
    assert report.confirmed_by == (stranger.peer,)
    assert report.confirmed == (asker.address,)
    assert report.by_stranger
    assert [(who, where) for _, who, where in internet.dials] == [(stranger.peer, asker.address)]
    # Nothing stays of it.
    assert [way.closed for way in internet.ways] == [True]


@pytest.mark.parametrize(("open_to", "nat"), [("known", "open"), ("nobody", "open")])
async def test_a_nat_that_lets_nobody_in_is_found_out(
    autojump_clock: MockClock, open_to: str, nat: str
) -> None:
    internet = Internet()
    asker, verifier, stranger = internet.node(1, open_to), internet.node(2), internet.node(3)
    verifier.link(asker, stranger)
    await run(asker, 30)
    report = asker.reach.report((), trio.current_time())
    assert (asker.nat(), report.tried, report.confirmed) == (nat, 1, ())
    assert not report.by_stranger


async def test_a_connected_peer_is_no_stranger(autojump_clock: MockClock) -> None:
    """Everybody is linked to the asker: what they see says less."""
    internet = Internet()
    asker, *others = (internet.node(number, "known") for number in (1, 2, 3, 4))
    for number, node in enumerate((asker, *others)):
        node.link(*(asker, *others)[number + 1 :])
    await run(asker, 10)
    report = asker.reach.report((), trio.current_time())
    assert set(report.confirmed_by) <= {other.peer for other in others}
    assert report.confirmed_by
    assert not report.by_stranger
    # Nobody was made to dial back who is linked: they refused, and the verifier tried itself.
    assert {who for _, who, _ in internet.dials} == set(report.confirmed_by)
    for other in others:
        with pytest.raises(RefusedError, match="a connection with that peer"):
            await others[0].ask(other, str(asker.address), DIAL_BACK)
    with pytest.raises(RefusedError, match="a connection with that peer"):
        await others[0].ask(others[1], str(others[1].address), DIAL_BACK)


async def test_another_peer_at_the_address_is_not_the_asker(autojump_clock: MockClock) -> None:
    internet = Internet()
    asker, verifier, stranger = (internet.node(number) for number in (1, 2, 3))
    squatter = internet.node(4)
    squatter.address = Address("ip4", "203.0.113.1", 4002, squatter.peer)
    verifier.link(asker, stranger)
    verdict = await asker.ask(verifier, str(Address("ip4", "203.0.113.1", 4002, asker.peer)))
    assert verdict == Verified(stranger.peer, False, True)


# --- whom to dial -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "/ip4/203.0.113.9/tcp/4001/p2p/{asker}",
        "/ip4/10.0.0.1/tcp/4001/p2p/{asker}",
        "/ip4/127.0.0.1/tcp/4001/p2p/{asker}",
        "/ip6/::1/tcp/4001/p2p/{asker}",
        "/dns4/node.example/tcp/4001/p2p/{asker}",
        "/ip4/203.0.113.1/tcp/4001/p2p/{verifier}",
        "/ip4/203.0.113.1/tcp/4001/p2p/{stranger}",
        "/ip4/203.0.113.1/tcp/4001",
        "/ip4/203.0.113.1/tcp/0/p2p/{asker}",
        "/ip4/203.0.113.1/tcp/4001/p2p/{stranger}/p2p-circuit/p2p/{asker}",
        "nonsense",
        "",
    ],
)
async def test_nobody_can_have_somebody_else_dialled(
    autojump_clock: MockClock, address: str
) -> None:
    internet = Internet()
    asker, verifier, stranger = (internet.node(number) for number in (1, 2, 3))
    verifier.link(asker, stranger)
    ids = {
        name: str(node.address).rpartition("/")[2]
        for name, node in (("asker", asker), ("verifier", verifier), ("stranger", stranger))
    }
    with pytest.raises(RefusedError):
        await asker.ask(verifier, address.format(**ids))
    assert internet.dials == []
    assert stranger.asked == verifier.asked == []


@pytest.mark.parametrize(
    "address",
    [
        "/ip4/10.0.0.1/tcp/4001/p2p/{asker}",
        "/ip4/127.0.0.1/tcp/4001/p2p/{asker}",
        "/ip4/169.254.169.254/tcp/80/p2p/{asker}",
        "/dns/metadata.example/tcp/80/p2p/{asker}",
        "/ip4/203.0.113.1/tcp/4001/p2p/{stranger}/p2p-circuit/p2p/{asker}",
        "/ip4/203.0.113.1/tcp/4001",
    ],
)
async def test_nobody_can_have_a_site_dialled_from_inside(
    autojump_clock: MockClock, address: str
) -> None:
    internet = Internet()
    asker, verifier, stranger = (internet.node(number) for number in (1, 2, 3))
    verifier.link(stranger)
    ids = {
        name: str(node.address).rpartition("/")[2]
        for name, node in (("asker", asker), ("stranger", stranger))
    }
    with pytest.raises(RefusedError):
        await verifier.ask(stranger, address.format(**ids), DIAL_BACK)
    assert internet.dials == []


@pytest.mark.parametrize(
    "seen",
    [None, "/ip4/203.0.113.77/tcp/4001", "/ip4/203.0.113.1/tcp/1/p2p/{relay}/p2p-circuit/p2p/{me}"],
)
async def test_only_the_host_from_which_the_asker_is_seen_is_dialled(
    autojump_clock: MockClock, seen: str | None
) -> None:
    internet = Internet()
    asker, verifier, stranger = (internet.node(number) for number in (1, 2, 3))
    verifier.link(asker, stranger)
    relay = str(stranger.address).rpartition("/")[2]
    me = str(asker.address).rpartition("/")[2]
    at = None if seen is None else parse_address(seen.format(relay=relay, me=me))
    verifier.links[asker.peer] = Way(at)
    with pytest.raises(RefusedError, match="from which you are seen"):
        await asker.ask(verifier, str(asker.address))
    assert internet.dials == []


async def test_a_ration_is_one_for_all_askers_and_comes_again(autojump_clock: MockClock) -> None:
    internet = Internet()
    stranger, *verifiers = (internet.node(number) for number in (200, 201, 202, 203))
    stranger.link(*verifiers)
    targets = [internet.node(number) for number in range(1, 60)]
    taken = 0
    for number, target in enumerate(targets[: 3 * DIALS_PER_MINUTE]):
        verifier = verifiers[number % 3]
        try:
            await verifier.ask(stranger, str(target.address), DIAL_BACK)
            taken += 1
        except RefusedError:
            pass
    assert taken == len(internet.dials) == DIALS_PER_MINUTE
    await trio.sleep(59)
    with pytest.raises(RefusedError, match="dialled enough"):
        await verifiers[0].ask(stranger, str(targets[-1].address), DIAL_BACK)
    await trio.sleep(2)
    assert (await verifiers[0].ask(stranger, str(targets[-1].address), DIAL_BACK)).reached


async def test_a_dial_for_another_ends_in_time(autojump_clock: MockClock) -> None:
    internet = Internet()
    asker, verifier = internet.node(1, "nobody"), internet.node(2)
    verifier.link(asker)
    began = trio.current_time()
    assert await asker.ask(verifier, str(asker.address)) == Verified(verifier.peer, False, False)
    assert trio.current_time() - began == pytest.approx(DIAL_S)


@given(st.binary(max_size=80), st.sampled_from((VERIFY, DIAL_BACK)))
def test_any_request_is_refused_or_harmless(body: bytes, method: str) -> None:
    internet = Internet()
    asker, verifier, stranger = (internet.node(number) for number in (1, 2, 3))
    verifier.link(asker, stranger)

    async def ask() -> None:
        with pytest.raises((DecodeError, RefusedError)):
            await verifier.answers[method](asker.peer, body)

    trio.run(ask)
    assert internet.dials == []


def test_a_request_is_bounded() -> None:
    with pytest.raises(ProtocolError):
        decode(encode(["x" * 257]), Verify)
    for verdict in ([bytes(31), True, True], [bytes(32), 1, True], [bytes(32), True]):
        with pytest.raises(DecodeError):
            decode(msgspec.msgpack.encode(verdict), Verified)


# --- when ---------------------------------------------------------------------------------------


async def test_it_is_looked_until_a_stranger_has_tried_and_then_seldom(
    autojump_clock: MockClock,
) -> None:
    internet = Internet()
    asker, verifier = internet.node(1), internet.node(2)
    verifier.link(asker)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, asker, 10_000)
        await trio.sleep(5000)
        # Where nothing changes, ever less often: where all are linked there are no strangers.
        pauses = [later - earlier for (earlier, *_), (later, *_) in pairwise(asker.asked)]
        assert pauses[:6] == pytest.approx(
            [AGAIN_S * 2**n for n in range(5)] + [SETTLED_S], abs=0.1
        )
        assert max(pauses) == pytest.approx(SETTLED_S, abs=0.1)
        # Another link: soon, but not at once, for several come together.
        before = len(asker.asked)
        stranger = internet.node(3)
        verifier.link(stranger)
        asker.prober.again()
        asker.prober.again()
        await trio.sleep(FIRST_S - 0.1)
        assert len(asker.asked) == before
        await trio.sleep(0.2)
        assert len(asker.asked) == before + 1
        assert asker.nat() == "public"
        await trio.sleep(SETTLED_S - 1)
        assert len(asker.asked) == before + 1
        await trio.sleep(2)
        assert len(asker.asked) == before + 2
        nursery.cancel_scope.cancel()


async def test_it_is_looked_again_though_nobody_was_linked_for_a_moment(
    autojump_clock: MockClock,
) -> None:
    """What was confirmed expires; that it is confirmed anew must not hang on an event."""
    internet = Internet()
    asker, verifier, stranger = (internet.node(number) for number in (1, 2, 3))
    verifier.link(asker, stranger)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, asker, 4 * CONFIRMATION_S)
        await trio.sleep(SETTLED_S - 1)
        del asker.links[verifier.peer]
        await trio.sleep(2)
        asker.link(verifier)
        for _ in range(10):
            await trio.sleep(CONFIRMATION_S / 4)
            assert asker.nat() == "public"
        nursery.cancel_scope.cancel()


async def test_nobody_is_asked_about_addresses_of_the_site(autojump_clock: MockClock) -> None:
    internet = Internet()
    asker, verifier = internet.node(1), internet.node(2)
    verifier.link(asker)
    asker.addresses = [Address("ip4", "10.0.0.1", 4001, asker.peer)]
    await run(asker, 3600)
    assert asker.asked == []


async def test_few_are_asked_at_once(autojump_clock: MockClock) -> None:
    internet = Internet()
    asker = internet.node(1)
    verifiers = [internet.node(number) for number in range(2, 30)]
    asker.link(*verifiers)
    asker.addresses = [Address("ip4", "203.0.113.1", port, asker.peer) for port in range(1, 9)]
    await run(asker, AGAIN_S - 1)
    assert len(asker.asked) == 2 * ASKED_AT_ONCE
    assert len({who for _, who, _ in asker.asked}) == ASKED_AT_ONCE


async def test_a_request_is_passed_to_few_strangers(autojump_clock: MockClock) -> None:
    internet = Internet()
    asker, verifier = internet.node(1), internet.node(2)
    others = [internet.node(number) for number in range(3, 30)]
    verifier.link(asker, *others)
    asker.link(*others)
    await asker.ask(verifier, str(asker.address))
    assert len(verifier.asked) == STRANGERS


async def test_who_does_not_answer_delays_a_look_for_so_long(autojump_clock: MockClock) -> None:
    internet = Internet()
    asker, verifier, stranger, *silent = (internet.node(number) for number in range(1, 6))
    verifier.link(asker, stranger)
    asker.link(*silent)

    async def never(who: PeerId, body: bytes) -> bytes:
        await trio.sleep_forever()
        return b""

    for node in silent:
        node.answers[VERIFY] = never
    await run(asker, ASKED_AT_ONCE * VERIFY_S + 10)
    assert asker.nat() == "public"


# --- liars --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"garbage",
        encode([bytes(31), True, True]),
        encode([bytes(32), True]),
        bytes(2 << 20),
    ],
)
async def test_a_verdict_that_is_none_counts_for_nothing(
    autojump_clock: MockClock, reply: bytes
) -> None:
    internet = Internet()
    asker, verifier = internet.node(1), internet.node(2)
    verifier.link(asker)

    async def lie(who: PeerId, body: bytes) -> bytes:
        return reply

    verifier.answers[VERIFY] = lie
    with pytest.raises((DecodeError, TooLargeError)):
        decode(reply, Verified)
    await run(asker, 5)
    assert asker.nat() == "unknown"
    assert asker.changes == 0


@pytest.mark.parametrize(
    "reply",
    [
        b"garbage",
        # In another's name, and one that says itself that it is no stranger.
        encode(Verified(peer(77), True, True)),
        encode(Verified(peer(3), True, False)),
    ],
)
async def test_a_verifier_believes_no_stranger_that_contradicts_itself(
    autojump_clock: MockClock, reply: bytes
) -> None:
    internet = Internet()
    asker, verifier, stranger = internet.node(1, "nobody"), internet.node(2), internet.node(3)
    verifier.link(asker, stranger)

    async def lie(who: PeerId, body: bytes) -> bytes:
        return reply

    stranger.answers[DIAL_BACK] = lie
    verdict = await asker.ask(verifier, str(asker.address))
    assert verdict == Verified(verifier.peer, False, False)


async def test_what_a_lying_verifier_can_do(autojump_clock: MockClock) -> None:
    """Alone with a node it can make it believe that it is public, for as long as it is asked and
    half an hour more; beside honest peers it is outvoted, whatever names it makes up."""
    internet = Internet()
    asker, liar = internet.node(1, "nobody"), internet.node(2)
    liar.link(asker)

    async def flatter(who: PeerId, body: bytes) -> bytes:
        return encode(Verified(peer(77), True, True))

    async def slander(who: PeerId, body: bytes) -> bytes:
        return encode(Verified(peer(3), False, True))

    liar.answers[VERIFY] = flatter
    await run(asker, 10)
    assert asker.nat() == "public"
    del asker.links[liar.peer]
    await run(asker, CONFIRMATION_S)
    assert asker.nat() != "public"

    asker.open_to = "all"
    for number in (4, 6):
        internet.node(number).link(asker, internet.node(number + 1))
    await run(asker, 10)
    assert asker.nat() == "public"
    liar.link(asker)
    liar.answers[VERIFY] = slander
    await run(asker, 2 * SETTLED_S)
    assert asker.nat() == "public"


# --- on the network -----------------------------------------------------------------------------


async def test_a_swarm_finds_out_who_is_public(autojump_clock: MockClock) -> None:
    """Whoever comes late is a stranger to nobody for long; the first look has to do it."""
    network = FakeNetwork(latency_s=0.02)
    hub = network.mesh("hub", host="203.0.113.1", port=4001, public=True)
    async with hub.running():
        known = hub.addresses()
        one = network.mesh("one", known, host="203.0.113.2", port=4001)
        other = network.mesh("other", known, host="203.0.113.3", port=4001, nat="firewall")
        async with one.running(), other.running():
            await trio.sleep(120)
            assert one.reach().nat == "public"
            assert one.reach().confirmed
            assert other.reach().nat == "open"
            assert other.reach().confirmed == ()
            assert one.report().serving.open
            assert not other.report().serving.open
