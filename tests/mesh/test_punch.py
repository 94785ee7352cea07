"""Holes: who dials when, which connection stays, and what a hostile peer can make of it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch
from multiaddr import Multiaddr
from trio.testing import MockClock, wait_all_tasks_blocked

from node.mesh import punch, sockets
from node.mesh.address import Address, parse_address
from node.mesh.carrier import Libp2pCarrier
from node.mesh.harden import build_network
from node.mesh.proto import (
    HANDSHAKE_LIMIT_S,
    from_multiaddr,
    read_message,
    to_multiaddr,
    write_message,
)
from node.mesh.punch import PAUSE_S, TRIES, TRY_LIMIT_S, Puncher
from node.mesh.wire import Carrier
from protocol import limits
from protocol.errors import PunchError
from protocol.ids import PeerId
from tests.mesh.hosts import (
    Host,
    MemoryCarrier,
    MemoryWire,
    delimited,
    echoed,
    peer_of,
    running,
    virtually,
)
from tests.mesh.worlds import LIMIT_S, eventually, key_seed

OWN = Address("ip4", "198.51.100.1", 4001)
THEIRS = Address("ip4", "203.0.113.1", 4001)


class Socket:
    """A TCP connection, as far as anybody looks at it."""

    def __init__(self, target: Address | None = None) -> None:
        self.target = target
        self.closed = False

    async def aclose(self) -> None:
        self.closed = True


class World:
    """A puncher, and what its dials and handshakes come to."""

    def __init__(self) -> None:
        self.network = build_network(key_seed("own"))
        self.own = [OWN]
        self.puncher = Puncher(
            self.network,
            self._connect,
            self._upgrade,
            lambda: self.own,
            self._punched,
            random.Random(1),
        )
        self.dialled: list[tuple[Address, float]] = []
        self.sockets: list[Socket] = []
        self.answers: Callable[[Address], float | None] = lambda target: None
        self.shakes_s = 0.1
        self.fails: set[Any] = set()
        self.shaken: list[tuple[Any, PeerId, bool]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.made: list[MemoryCarrier] = []
        self.punched: list[Carrier] = []

    async def _connect(self, target: Address) -> Any:
        """Answers after so many seconds, or refuses."""
        self.dialled.append((target, trio.current_time()))
        after_s = self.answers(target)
        if after_s is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        await trio.sleep(after_s)
        self.sockets.append(Socket(target))
        return self.sockets[-1]

    async def _upgrade(self, stream: Any, peer: PeerId, initiator: bool) -> Carrier:
        self.shaken.append((stream, peer, initiator))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await trio.sleep(self.shakes_s)
        finally:
            self.at_once -= 1
        if stream in self.fails or stream.target in self.fails:
            raise trio.BrokenResourceError("somebody else answers")
        self.made.append(MemoryCarrier("other"))
        return self.made[-1]

    async def _punched(self, carrier: Carrier) -> None:
        self.punched.append(carrier)


def message(*addresses: Address, kind: int = HolePunch.CONNECT) -> Any:
    return HolePunch(type=kind, ObsAddrs=[to_multiaddr(one) for one in addresses])


SYNC = HolePunch(type=HolePunch.SYNC)


async def begun(
    world: World, carrier: MemoryCarrier, play: Callable[[MemoryWire], Awaitable[Any]]
) -> Carrier | PunchError:
    """What comes of punching towards ``carrier`` while the peer does as ``play`` says."""
    result: Any = None
    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            async for there in carrier.there:
                nursery.start_soon(play, there)

        nursery.start_soon(answer)
        try:
            result = await world.puncher.punch(carrier)
        except PunchError as error:
            result = error
        nursery.cancel_scope.cancel()
    return result


async def takes_part(there: MemoryWire, *addresses: Address) -> None:
    await read_message(there, HolePunch)
    await write_message(there, message(*(addresses or (THEIRS,))))
    await read_message(there, HolePunch)


async def led(
    world: World, *sent: Any, carrier: MemoryCarrier | None = None, end: bool = False
) -> tuple[MemoryWire, float]:
    """Serve a peer that sends all that at once; its end, and the seconds it took."""
    here, there = (carrier or MemoryCarrier("other", relayed=True, dialled=True)).stream()
    began = trio.current_time()
    for one in sent:
        await there.write(one if isinstance(one, bytes) else delimited(one))
    if end:
        await there.end_writing()
    await world.puncher.serve(here)
    return there, trio.current_time() - began


def relayed(name: str = "other") -> MemoryCarrier:
    """A circuit that the peer has made."""
    return MemoryCarrier(name, relayed=True)


# --- the side that begins -----------------------------------------------------------------------


async def test_the_exchange_is_as_the_specification_says(autojump_clock: MockClock) -> None:
    world = World()
    world.answers = lambda target: 0.5
    at: dict[str, float] = {}

    async def play(there: MemoryWire) -> None:
        connect = await read_message(there, HolePunch)
        assert connect.type == HolePunch.CONNECT
        assert [from_multiaddr(data) for data in connect.ObsAddrs] == [OWN]
        await trio.sleep(0.3)
        at["connect"] = trio.current_time()
        await write_message(there, message(THEIRS))
        sync = await read_message(there, HolePunch)
        assert (sync.type, list(sync.ObsAddrs)) == (HolePunch.SYNC, [])

    carrier = await begun(world, relayed(), play)
    assert carrier is world.made[0]
    ((target, when),) = world.dialled
    assert (target.socket, target.peer) == (THEIRS.socket, peer_of("other"))
    # Half a round trip after its SYNC, when the peer dials as well.
    assert when == pytest.approx(at["connect"] + 0.15)
    ((_, peer, initiator),) = world.shaken
    assert (peer, initiator) == (peer_of("other"), False)
    assert world.network.awaited == world.network.punching == {}


async def test_every_try_is_a_round_of_its_own(autojump_clock: MockClock) -> None:
    world = World()
    rounds = 0

    async def play(there: MemoryWire) -> None:
        nonlocal rounds
        rounds += 1
        await takes_part(there)

    error = await begun(world, relayed(), play)
    assert isinstance(error, PunchError)
    assert rounds == TRIES
    assert trio.current_time() == pytest.approx(TRIES * (TRY_LIMIT_S + PAUSE_S))
    # Refused at once each time, it dials again soon, and then less and less often.
    assert 6 <= len(world.dialled) / TRIES <= 10
    assert world.network.awaited == {}


async def test_the_last_try_may_come_through(autojump_clock: MockClock) -> None:
    world = World()
    world.answers = lambda target: 0.0 if trio.current_time() > 2 * TRY_LIMIT_S else 100.0
    assert await begun(world, relayed(), takes_part) is world.made[0]
    assert trio.current_time() < 2 * (TRY_LIMIT_S + PAUSE_S) + 1


async def test_a_connection_that_the_peer_makes_is_welcome(autojump_clock: MockClock) -> None:
    """From whichever port: other software does not dial from where it listens."""
    world = World()
    arrived = MemoryCarrier("other")

    async def play(there: MemoryWire) -> None:
        await takes_part(there)
        await trio.sleep(1)
        (peer,) = world.network.awaited
        assert peer == arrived.peer
        world.network.awaited[peer](arrived)
        world.network.awaited[peer](MemoryCarrier("other"))

    assert await begun(world, relayed(), play) is arrived
    assert trio.current_time() < TRY_LIMIT_S


async def test_only_one_connection_stays(autojump_clock: MockClock) -> None:
    world = World()
    addresses = [Address("ip4", "203.0.113.1", port) for port in range(1, 5)]
    world.answers = lambda target: 0.1
    carrier = await begun(world, relayed(), lambda there: takes_part(there, *addresses))
    assert len(world.shaken) == 4
    assert [one for one in world.made if not one.closed] == [carrier]
    assert sum(one.closed for one in world.sockets) + len(world.made) >= 4


@pytest.mark.parametrize(
    ("play", "words"),
    [
        (lambda there: there.reset(), "take part"),
        (lambda there: there.write(b"\x02\xff\xff"), "take part"),
        (lambda there: there.write(b"\x81\x20"), "declares"),
        (lambda there: write_message(there, SYNC), "type 300 where 100"),
        (lambda there: write_message(there, message()), "names no address"),
        (lambda there: write_message(there, message(OWN)), "names no address"),
        (lambda there: there.write(b"\x10"), "in time"),
    ],
    ids=["cut", "garbage", "oversize", "sync", "nowhere", "ourselves", "silent"],
)
async def test_a_peer_that_does_not_take_part(
    play: Any, words: str, autojump_clock: MockClock
) -> None:
    world = World()
    error = await begun(world, relayed(), play)
    assert isinstance(error, PunchError)
    assert words in str(error)
    assert error.code == "punch"
    # Trying again is for tries that missed.
    assert trio.current_time() <= HANDSHAKE_LIMIT_S
    assert world.dialled == []
    assert world.network.awaited == {}


async def test_only_a_circuit_that_the_peer_made_is_punched_through(
    autojump_clock: MockClock,
) -> None:
    for carrier in (MemoryCarrier("other"), MemoryCarrier("other", relayed=True, dialled=True)):
        assert isinstance(await begun(World(), carrier, takes_part), PunchError)
    gone = relayed()
    await gone.close()
    assert isinstance(await begun(World(), gone, takes_part), PunchError)


# --- the side that follows ----------------------------------------------------------------------


async def test_it_dials_when_it_is_told(autojump_clock: MockClock) -> None:
    world = World()
    world.answers = lambda target: 0.0
    here, there = MemoryCarrier("other", relayed=True, dialled=True).stream()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.puncher.serve, here)
        await write_message(there, message(THEIRS))
        reply = await read_message(there, HolePunch)
        assert reply.type == HolePunch.CONNECT
        assert [from_multiaddr(data) for data in reply.ObsAddrs] == [OWN]
        await trio.sleep(3)
        assert world.dialled == []
        await write_message(there, SYNC)
    assert [(one.socket, at) for one, at in world.dialled] == [(THEIRS.socket, 3.0)]
    ((_, peer, initiator),) = world.shaken
    assert (peer, initiator) == (peer_of("other"), True)
    assert world.punched == world.made
    assert len(world.made) == 1
    assert world.network.punching == {}


async def test_the_initiator_shakes_hands_on_one_at_a_time(autojump_clock: MockClock) -> None:
    """So that of several only one is ever completed, and both sides know which."""
    world = World()
    addresses = [Address("ip4", "203.0.113.1", port) for port in range(1, 5)]
    world.answers = lambda target: 0.01 * target.port
    world.fails = {Address(one.kind, one.host, one.port, peer_of("other")) for one in addresses[:2]}
    await led(world, message(*addresses), SYNC)
    assert world.most_at_once == 1
    assert [stream.target.port for stream, _, _ in world.shaken] == [1, 2, 3]
    assert len(world.punched) == 1
    assert [one.closed for one in world.sockets] == [True, True, False, True]


async def test_a_handshake_that_stalls_lets_the_next_have_its_turn(
    autojump_clock: MockClock,
) -> None:
    world = World()
    addresses = [Address("ip4", "203.0.113.1", port) for port in (1, 2)]
    world.answers = lambda target: 0.01 * target.port
    upgrade = world.puncher._upgrade

    async def stall(stream: Any, peer: PeerId, initiator: bool) -> Carrier:
        if stream.target.port == 1:
            await trio.sleep_forever()
        return await upgrade(stream, peer, initiator)

    world.puncher._upgrade = stall
    _, took = await led(world, message(*addresses), SYNC)
    assert len(world.punched) == 1
    assert took < TRY_LIMIT_S


@pytest.mark.parametrize("early", [False, True])
async def test_what_reaches_the_listener_takes_part(early: bool, autojump_clock: MockClock) -> None:
    """The peer's dial may be faster than our own, or than its own word that it dials."""
    world = World()
    here, there = MemoryCarrier("other", relayed=True, dialled=True).stream()
    guest: Any = Socket()
    ended = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.puncher.serve, here)
        await write_message(there, message(THEIRS))
        await read_message(there, HolePunch)
        if not early:
            await write_message(there, SYNC)
            await wait_all_tasks_blocked()

        async def accept() -> None:
            await world.network.punching[THEIRS.socket](guest)
            ended.set()

        nursery.start_soon(accept)
        await wait_all_tasks_blocked()
        if early:
            assert world.shaken == []
            await write_message(there, SYNC)
        await eventually(lambda: world.punched == world.made != [])
        assert world.shaken == [(guest, peer_of("other"), True)]
        # The listener closes what it has accepted as soon as nobody is busy with it.
        await wait_all_tasks_blocked()
        assert not ended.is_set()
        await world.made[0].close()
        await ended.wait()
    assert world.network.punching == {}


async def test_guests_are_few(autojump_clock: MockClock) -> None:
    world = World()
    world.shakes_s = 100.0
    here, there = MemoryCarrier("other", relayed=True, dialled=True).stream()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.puncher.serve, here)
        await write_message(there, message(THEIRS))
        await write_message(there, SYNC)
        await wait_all_tasks_blocked()
        accept = world.network.punching[THEIRS.socket]
        guests: list[Any] = [Socket() for _ in range(limits.CANDIDATES)]
        for guest in guests:
            nursery.start_soon(accept, guest)
        await wait_all_tasks_blocked()
        with trio.fail_after(0.1):
            await accept(Socket())  # type: ignore[arg-type]
    # All are let go when the try is over, and none of them is left open.
    assert trio.current_time() == pytest.approx(TRY_LIMIT_S)
    assert all(guest.closed for guest in guests)
    assert world.punched == []


async def test_a_hole_that_does_not_open_ends_quietly(autojump_clock: MockClock) -> None:
    world = World()
    there, took = await led(world, message(THEIRS), SYNC)
    assert took == pytest.approx(TRY_LIMIT_S)
    assert world.punched == []
    assert world.puncher._busy == set()
    with pytest.raises(trio.BrokenResourceError):
        await there.write(b"?")


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ((SYNC,), "punch"),
        ((message(THEIRS), message(THEIRS)), "punch"),
        ((message(), SYNC), "punch"),
        ((message(OWN), SYNC), "punch"),
        ((b"\x00", SYNC), "punch"),
        ((b"\x02\xff\xff",), "malformed"),
        ((b"\x81\x20",), "malformed"),
        ((message(THEIRS), b"\x02\xff\xff"), "malformed"),
        ((b"\x10",), "silent"),
        ((message(THEIRS),), "silent"),
        ((), "silent"),
    ],
    ids=[
        "sync",
        "twice",
        "nowhere",
        "ourselves",
        "typeless",
        "garbage",
        "oversize",
        "garbage for sync",
        "short",
        "no sync",
        "nothing",
    ],
)
async def test_a_peer_that_leads_badly(
    sent: tuple[Any, ...], reason: str, autojump_clock: MockClock
) -> None:
    world = World()
    _, took = await led(world, *sent)
    assert world.puncher.refused == {reason: 1}
    assert took <= 2 * HANDSHAKE_LIMIT_S
    assert world.dialled == []
    assert world.network.punching == {}


async def test_nobody_leads_without_a_relay(autojump_clock: MockClock) -> None:
    world = World()
    await led(world, message(THEIRS), SYNC, carrier=MemoryCarrier("other"))
    assert world.puncher.refused == {"punch": 1}
    assert world.dialled == []


# --- what a hostile peer can make of it ---------------------------------------------------------


async def lead(world: World, name: str) -> None:
    """A try with a peer of that name."""
    carrier = MemoryCarrier(name, relayed=True, dialled=True)
    await led(world, message(THEIRS), SYNC, carrier=carrier)


async def test_one_hole_at_a_time_for_each_peer_and_few_in_all(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PUNCHES", 3)
    world = World()
    async with trio.open_nursery() as nursery:
        for name in ("a", "a", "b", "c", "d", "a"):
            nursery.start_soon(lead, world, name)
            await wait_all_tasks_blocked()
        assert len(world.puncher._busy) == 3
        with pytest.raises(PunchError, match="already"):
            await world.puncher.punch(relayed("a"))
        with pytest.raises(PunchError, match="already"):
            await world.puncher.punch(relayed("e"))
    assert world.puncher.refused == {"punch": 3}
    assert trio.current_time() == pytest.approx(TRY_LIMIT_S)
    assert world.puncher._busy == set()


async def test_two_peers_that_claim_one_socket(autojump_clock: MockClock) -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        for name in ("a", "b"):
            nursery.start_soon(lead, world, name)
            await wait_all_tasks_blocked()
        first = world.network.punching[THEIRS.socket]
        assert world.puncher._busy == {MemoryCarrier("a").peer, MemoryCarrier("b").peer}
        assert first.__self__._peer == peer_of("a")  # type: ignore[attr-defined]
    assert world.network.punching == {}


def candidates(own: list[str], told: list[str]) -> list[str]:
    """Which of what a peer has told are dialled by a node that is seen at ``own``."""
    world = World()
    world.own = [parse_address(text) for text in own]
    obs = [Multiaddr(text).to_bytes() for text in told]
    try:
        return [str(one) for one in world.puncher._candidates(HolePunch(ObsAddrs=obs))]
    except PunchError:
        return []


PUBLIC = "/ip4/198.51.100.1/tcp/4001"


@pytest.mark.parametrize(
    "told",
    [
        "/ip4/127.0.0.1/tcp/22",
        "/ip4/192.168.1.1/tcp/80",
        "/ip4/10.0.0.1/tcp/80",
        "/ip4/169.254.169.254/tcp/80",
        "/ip4/0.0.0.0/tcp/80",
        "/ip4/224.0.0.1/tcp/80",
        "/ip4/255.255.255.255/tcp/80",
        "/ip4/203.0.113.1/tcp/0",
        "/ip6/::1/tcp/80",
        "/ip6/fe80::1/tcp/80",
        "/ip6/ff02::1/tcp/80",
        "/ip6/fd00::1/tcp/80",
        "/dns4/example.com/tcp/80",
        "/ip4/203.0.113.1/udp/80/quic-v1",
        "/ip4/203.0.113.1/tcp/80/ws",
        PUBLIC,
    ],
)
def test_a_stranger_does_not_make_the_node_dial(told: str) -> None:
    assert candidates([PUBLIC], [told]) == []
    assert candidates([PUBLIC, "/ip4/192.168.1.7/tcp/4001"], [told]) == []


def test_circuits_are_no_candidates() -> None:
    relay = Address("ip4", "203.0.113.9", 4001, peer_of("relay"))
    assert candidates([PUBLIC], [str(relay.through(peer_of("other")))]) == []
    assert candidates([PUBLIC], [str(relay)]) == ["/ip4/203.0.113.9/tcp/4001"]


def test_where_nothing_is_outside_the_inside_will_do() -> None:
    inside = ["/ip4/192.168.1.7/tcp/4001"]
    near, loop = "/ip4/192.168.1.8/tcp/4001", "/ip4/127.0.0.1/tcp/4002"
    assert candidates(inside, [near, loop]) == [near]
    assert candidates(["/ip4/127.0.0.1/tcp/4001"], [loop]) == [loop]
    assert candidates([], [near, PUBLIC]) == [near, PUBLIC]


def test_candidates_are_few_and_different() -> None:
    many = [f"/ip4/203.0.113.{number}/tcp/1" for number in range(1, 100)]
    assert candidates([PUBLIC], many) == many[: limits.CANDIDATES]
    assert candidates([PUBLIC], many[:1] * 100) == many[:1]
    # Not even looked at all through.
    assert candidates([PUBLIC], ["/dns4/a/tcp/1"] * 40 + many) == []


def test_what_is_told_is_where_it_is_seen_outside() -> None:
    world = World()
    world.own = [Address("ip4", "192.168.1.7", 4001), OWN, Address("dns4", "a.example", 1)]
    told = [from_multiaddr(data) for data in world.puncher._connect_message().ObsAddrs]
    assert told == [OWN]
    world.own = [Address("ip4", "203.0.113.2", port, peer_of("own")) for port in range(1, 40)]
    told = [from_multiaddr(data) for data in world.puncher._connect_message().ObsAddrs]
    assert told == [one.bare() for one in world.own[: limits.CANDIDATES]]


@st.composite
def nearly(draw: st.DrawFn) -> bytes:
    """An exchange with some bytes changed, and cut off somewhere."""
    data = bytearray(delimited(message(THEIRS, OWN)) + delimited(SYNC))
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@given(st.one_of(st.binary(max_size=100), nearly()), st.booleans())
@example(delimited(message(THEIRS)) + delimited(SYNC), False)
def test_no_bytes_break_the_side_that_follows(data: bytes, end: bool) -> None:
    async def test() -> None:
        world = World()
        _, took = await led(world, data, end=end)
        assert took <= 2 * HANDSHAKE_LIMIT_S + TRY_LIMIT_S
        assert world.network.punching == {}
        assert world.puncher._busy == set()

    virtually(test)


@given(st.one_of(st.binary(max_size=100), nearly()), st.booleans())
def test_no_bytes_break_the_side_that_begins(data: bytes, end: bool) -> None:
    async def test() -> None:
        world = World()
        world.answers = lambda target: 0.1

        async def play(there: MemoryWire) -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                await there.write(data)
                if end:
                    await there.end_writing()

        result = await begun(world, relayed(), play)
        assert isinstance(result, MemoryCarrier | PunchError)
        assert world.network.awaited == {}
        assert world.puncher._busy == set()

    virtually(test)


# --- real hosts ---------------------------------------------------------------------------------


async def joined(relay: Host, one: Host, other: Host) -> tuple[Libp2pCarrier, Carrier]:
    """A circuit that ``other`` made to ``one``: both ends."""
    relay._serve_relay(True)
    await one._reserve(await one.to(relay))
    there = await other.through(relay, one)
    circuits = [Libp2pCarrier(found) for found in one._network.get_connections()]
    (back,) = (found for found in circuits if found.relayed and found.peer == there_id(other))
    return back, there


def there_id(host: Host) -> str:
    return str(host._network.get_peer_id())


def late(host: Host, delay_s: float) -> None:
    """Have ``host`` dial so much later than it should."""
    connect = host._puncher._connect

    async def delayed(target: Address) -> trio.SocketStream:
        await trio.sleep(delay_s)
        return await connect(target)

    host._puncher._connect = delayed


async def assert_one(one: Host, other: Host, carrier: Carrier) -> None:
    """Both keep the same connection and no other."""
    with trio.fail_after(LIMIT_S):
        await other.arrival.wait()
    (arrived,) = other.arrived
    assert arrived.dialled
    assert not carrier.dialled
    assert await echoed(carrier, b"there") == b"there"
    assert await echoed(arrived, b"back") == b"back"
    await eventually(lambda: len(one.direct(other)) == len(other.direct(one)) == 1)
    assert carrier.address == arrived.source
    assert carrier.source == arrived.address


@pytest.mark.parametrize("slow", ["neither", "beginner", "follower"])
async def test_dials_that_cross_are_one_connection(slow: str) -> None:
    """Whose dial is first decides whose listener it reaches."""
    relay = Host("relay")
    async with running(relay):
        for number in range(5):
            one, other = Host(f"one {number}", "127.0.0.2"), Host(f"other {number}")
            if slow != "neither":
                late(one if slow == "beginner" else other, 0.002 * (number % 5))
            async with running(one, other):
                circuit, _ = await joined(relay, one, other)
                began = trio.current_time()
                carrier = await one._punch(circuit)
                # None of them needs a second try.
                assert trio.current_time() - began < TRY_LIMIT_S
                await assert_one(one, other, carrier)
                assert not circuit.closed


async def test_many_addresses_and_one_connection() -> None:
    relay, one, other = Host("relay"), Host("one", "0.0.0.0"), Host("other", "0.0.0.0")
    async with running(relay, one, other):
        for host in one, other:
            host.outside = [
                Address("ip4", f"127.0.0.{number}", host.bound()[0].port) for number in range(1, 8)
            ]
        relay.outside = [Address("ip4", "127.0.0.1", relay.bound()[0].port)]
        circuit, _ = await joined(relay, one, other)
        await assert_one(one, other, await one._punch(circuit))


async def test_the_peer_may_dial_from_any_port() -> None:
    """Other software dials the side that begins from a port of its own."""
    relay, one, other = Host("relay"), Host("one"), Host("other")
    other._puncher._connect = sockets.dial  # type: ignore[assignment]
    one._puncher._connect = _refused
    async with running(relay, one, other):
        circuit, _ = await joined(relay, one, other)
        with trio.fail_after(TRY_LIMIT_S):
            carrier = await one._punch(circuit)
        await assert_one(one, other, carrier)


async def _refused(target: Address) -> trio.SocketStream:
    raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")


async def test_who_answers_at_the_address_must_be_the_peer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(punch, "TRY_LIMIT_S", 0.3)
    relay, one, other, third = (Host(name) for name in ("relay", "one", "other", "third"))
    knocks = itertools.count()
    async with running(relay, one, other, third):
        # Each has the other believe that it is where a third is.
        one.outside = other.outside = [third.at.bare()]
        accept = third._network.upgrade_inbound_raw_conn

        async def counted(*arguments: Any) -> Any:
            next(knocks)
            return await accept(*arguments)

        monkeypatch.setattr(third._network, "upgrade_inbound_raw_conn", counted)
        monkeypatch.setattr(one._puncher, "_own", list)
        monkeypatch.setattr(other._puncher, "_own", list)
        send = [to_multiaddr(third.at.bare())]
        connect = HolePunch(type=HolePunch.CONNECT, ObsAddrs=send)
        for host in one, other:
            monkeypatch.setattr(host._puncher, "_connect_message", lambda: connect)
        circuit, _ = await joined(relay, one, other)
        with pytest.raises(PunchError):
            await one._punch(circuit)
        assert other.arrived == []
        assert one.direct(third) == other.direct(third) == []
        # Each dials it once in a try, whatever comes of that.
        assert next(knocks) <= 2 * TRIES


async def test_others_come_in_while_a_hole_is_punched() -> None:
    relay, one, other, third = (Host(name) for name in ("relay", "one", "other", "third"))
    late(one, 0.3)
    late(other, 0.3)
    async with running(relay, one, other, third):
        circuit, _ = await joined(relay, one, other)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one._punch, circuit)
            await eventually(lambda: other._network.punching != {})
            for host in one, other:
                carrier = await third.to(host)
                assert await echoed(carrier, b"let me in") == b"let me in"
