"""The relay: who gets a reservation and a circuit, what passes through, and what ends it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Status, StopMessage
from trio.testing import MockClock, wait_all_tasks_blocked

from node.mesh import relay as module
from node.mesh.address import Address
from node.mesh.proto import (
    HANDSHAKE_LIMIT_S,
    enum_name,
    from_multiaddr,
    read_message,
    write_message,
)
from node.mesh.relay import Rate, RelayServer
from node.mesh.report import RelayLoad
from protocol import limits
from tests.mesh.hosts import MemoryCarrier, MemoryWire, delimited, peer_of, virtually

NOW = 1_700_000_000.5
AT = Address("ip4", "192.0.2.1", 4001, peer_of("relay"))


class Relay:
    """A relay in memory, and peers that talk to it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.server = RelayServer(lambda: [AT], lambda: NOW)
        self.server.open = True
        self._nursery = nursery

    @property
    def load(self) -> RelayLoad:
        return self.server.load()

    def stream(self, carrier: MemoryCarrier) -> MemoryWire:
        """A stream that the other side of ``carrier`` opened: its end."""
        here, there = carrier.stream()
        self._nursery.start_soon(self.server.serve, here)
        return there

    async def ask(self, carrier: MemoryCarrier, request: Any) -> tuple[Any, MemoryWire]:
        """The reply to ``request``, and the stream behind it."""
        there = self.stream(carrier)
        await there.write(delimited(request))
        return await read_message(there, HopMessage), there

    async def reserve(self, carrier: MemoryCarrier) -> Any:
        (reply, there) = await self.ask(carrier, HopMessage(type=HopMessage.RESERVE))
        assert await there.read(1) == b""
        await there.reset()
        return reply

    async def connect(
        self, source: MemoryCarrier, target: MemoryCarrier
    ) -> tuple[MemoryWire, MemoryWire]:
        """Both ends of a circuit."""
        one = self.stream(source)
        await write_message(one, to(target))
        other = await target.there.receive()
        stop = await read_message(other, StopMessage)
        assert stop.type == StopMessage.CONNECT
        assert not stop.HasField("limit")
        assert stop.peer.id == ID.from_base58(source.peer).to_bytes()
        await write_message(other, StopMessage(type=StopMessage.STATUS, status=Status.OK))
        reply = await read_message(one, HopMessage)
        assert (reply.type, reply.status) == (HopMessage.STATUS, Status.OK)
        assert not reply.HasField("limit")
        return one, other


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    async with trio.open_nursery() as nursery:
        yield Relay(nursery)
        nursery.cancel_scope.cancel()


def to(target: MemoryCarrier) -> Any:
    request = HopMessage(type=HopMessage.CONNECT)
    request.peer.id = ID.from_base58(target.peer).to_bytes()
    return request


def peers(count: int, prefix: str = "198.51.{}.7") -> list[MemoryCarrier]:
    """Connections of different peers, each from a network of its own or all from one."""
    made = []
    for number in range(count):
        carrier = MemoryCarrier(f"{prefix} {number}")
        carrier.address = Address("ip4", prefix.format(number), 4000 + number)
        made.append(carrier)
    return made


async def reserved(relay: Relay, count: int) -> list[MemoryCarrier]:
    found = peers(count)
    for peer in found:
        assert (await relay.reserve(peer)).status == Status.OK
    return found


async def copied(source: MemoryWire, sink: MemoryWire, data: bytes) -> bytes:
    """What comes out of ``sink`` when ``data`` and the end of it goes into ``source``."""
    back = bytearray()

    async def send() -> None:
        await source.write(data)
        await source.end_writing()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while more := await sink.read(1 << 16):
            back += more
    return bytes(back)


# --- reservations -----------------------------------------------------------------------------


async def test_a_reservation_says_where_and_until_when(
    relay: Relay, autojump_clock: MockClock
) -> None:
    carrier = MemoryCarrier("one")
    reply = await relay.reserve(carrier)
    assert (reply.type, reply.status) == (HopMessage.STATUS, Status.OK)
    assert reply.reservation.expire == int(NOW) + limits.RESERVATION_S
    assert [from_multiaddr(data) for data in reply.reservation.addrs] == [AT]
    # With a limit, others take the circuit for a makeshift on which nothing of theirs runs.
    assert not reply.HasField("limit")
    assert carrier.held == 1
    assert relay.load == RelayLoad(open=True, reservations=1)


async def test_a_reservation_ends_with_its_connection(
    relay: Relay, autojump_clock: MockClock
) -> None:
    one, other = await reserved(relay, 2)
    await one.close()
    await wait_all_tasks_blocked()
    assert relay.load.reservations == 1
    assert (one.held, other.held) == (0, 1)
    (reply, _) = await relay.ask(other, to(one))
    assert reply.status == Status.NO_RESERVATION


async def test_a_reservation_runs_out_unless_it_is_renewed(
    relay: Relay, autojump_clock: MockClock
) -> None:
    one, other = await reserved(relay, 2)
    await trio.sleep(limits.RESERVATION_S - 10)
    assert (await relay.reserve(one)).status == Status.OK
    assert (one.held, relay.load.reservations) == (1, 2)
    await trio.sleep(20)
    assert (one.held, other.held, relay.load.reservations) == (1, 0, 1)
    await trio.sleep(limits.RESERVATION_S)
    assert (one.held, relay.load.reservations) == (0, 0)


async def test_a_reservation_moves_to_the_newest_connection(
    relay: Relay, autojump_clock: MockClock
) -> None:
    old, new = MemoryCarrier("one"), MemoryCarrier("one")
    for carrier in old, new:
        await relay.reserve(carrier)
    await wait_all_tasks_blocked()
    assert (old.held, new.held, relay.load.reservations) == (0, 1, 1)
    await old.close()
    await wait_all_tasks_blocked()
    await relay.connect(MemoryCarrier("two"), new)


async def test_a_renewal_that_ends_at_once_leaves_nothing(
    relay: Relay, autojump_clock: MockClock
) -> None:
    old, new = MemoryCarrier("one"), MemoryCarrier("one")
    await relay.reserve(old)
    await new.close()
    with pytest.raises(trio.BrokenResourceError):
        await relay.reserve(new)
    assert (old.held, new.held, relay.load.reservations) == (0, 0, 0)


async def test_one_network_gets_a_few_reservations(
    relay: Relay, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RESERVATIONS_PER_PREFIX", 3)
    same = peers(5, "198.51.100.7")
    statuses = [(await relay.reserve(peer)).status for peer in same]
    assert statuses == [Status.OK] * 3 + [Status.RESERVATION_REFUSED] * 2
    same[4].address = Address("ip4", "198.51.101.7", 1)
    assert (await relay.reserve(same[4])).status == Status.OK
    # Who has one may renew it all the same.
    assert (await relay.reserve(same[0])).status == Status.OK
    await same[1].close()
    await wait_all_tasks_blocked()
    assert (await relay.reserve(same[3])).status == Status.OK
    assert relay.load.refused == {"RESERVATION_REFUSED": 2}


async def test_reservations_are_bounded(
    relay: Relay, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RESERVATIONS", 8)
    monkeypatch.setattr(limits, "RESERVATIONS_PER_PREFIX", 3)
    local = peers(5, "127.0.0.1")
    assert [(await relay.reserve(peer)).status for peer in local] == [Status.OK] * 4 + [
        Status.RESERVATION_REFUSED
    ]
    found = peers(5)
    statuses = [(await relay.reserve(peer)).status for peer in found]
    assert statuses == [Status.OK] * 4 + [Status.RESERVATION_REFUSED]
    assert relay.load.reservations == 8


async def test_who_does_not_serve_says_so(relay: Relay, autojump_clock: MockClock) -> None:
    one, other = await reserved(relay, 2)
    relay.server.open = False
    for request in (HopMessage(type=HopMessage.RESERVE), to(one)):
        (reply, _) = await relay.ask(other, request)
        assert reply.status == Status.PERMISSION_DENIED
    assert relay.load == RelayLoad(False, 2, 0, 0, {"PERMISSION_DENIED": 2})


async def test_nothing_is_relayed_over_a_relay(relay: Relay, autojump_clock: MockClock) -> None:
    (target,) = await reserved(relay, 1)
    for request in (HopMessage(type=HopMessage.RESERVE), to(target)):
        (reply, _) = await relay.ask(MemoryCarrier("far", relayed=True), request)
        assert reply.status == Status.PERMISSION_DENIED


# --- making circuits --------------------------------------------------------------------------


async def test_bytes_pass_both_ways_and_so_do_their_ends(
    relay: Relay, autojump_clock: MockClock
) -> None:
    (target,) = await reserved(relay, 1)
    source = MemoryCarrier("source")
    one, other = await relay.connect(source, target)
    assert (source.held, target.held, relay.load.circuits) == (1, 2, 1)
    there, back = os.urandom(300_000), os.urandom(200_000)
    assert await copied(one, other, there) == there
    # One direction has ended and the other goes on.
    assert await copied(other, one, back) == back
    await wait_all_tasks_blocked()
    assert (source.held, target.held) == (0, 1)
    assert relay.load == RelayLoad(True, 1, 0, 500_000)


async def test_bytes_that_come_with_the_request_are_not_lost(
    relay: Relay, autojump_clock: MockClock
) -> None:
    (target,) = await reserved(relay, 1)
    one = relay.stream(MemoryCarrier("source"))
    await one.write(delimited(to(target)) + b"early")
    other = await target.there.receive()
    await read_message(other, StopMessage)
    agreed = StopMessage(type=StopMessage.STATUS, status=Status.OK)
    await other.write(delimited(agreed) + b"late")
    await read_message(one, HopMessage)
    assert await one.read(100) == b"late"
    assert await other.read(100) == b"early"


async def test_a_cut_circuit_leaves_the_others_alone(
    relay: Relay, autojump_clock: MockClock
) -> None:
    targets = await reserved(relay, 2)
    source = MemoryCarrier("source")
    circuits = [await relay.connect(source, target) for target in (*targets, *targets)]
    for number, (one, other) in enumerate(circuits):
        await (one, other)[number % 2].reset()
        await wait_all_tasks_blocked()
        assert relay.load.circuits == len(circuits) - number - 1
        for left, right in circuits[number + 1 :]:
            await left.write(b"still")
            assert await right.read(100) == b"still"
            await right.write(b"here")
            assert await left.read(100) == b"here"
        with pytest.raises(trio.BrokenResourceError):
            await (one, other)[1 - number % 2].write(b"?")
    assert source.held == 0
    assert [target.held for target in targets] == [1, 1]
    # Strangers make up any number of names.
    assert len(relay.server._circuits_of) == 0


async def test_who_has_no_reservation_is_not_reached(
    relay: Relay, autojump_clock: MockClock
) -> None:
    (reply, there) = await relay.ask(MemoryCarrier("source"), to(MemoryCarrier("nobody")))
    assert reply.status == Status.NO_RESERVATION
    assert await there.read(1) == b""
    assert relay.load.refused == {"NO_RESERVATION": 1}


@pytest.mark.parametrize("identifier", [None, b"", bytes(65), bytes(4000)])
async def test_a_target_that_is_no_peer(
    relay: Relay, autojump_clock: MockClock, identifier: bytes | None
) -> None:
    request = HopMessage(type=HopMessage.CONNECT)
    if identifier is not None:
        request.peer.id = identifier
    (reply, _) = await relay.ask(MemoryCarrier("source"), request)
    assert reply.status == Status.MALFORMED_MESSAGE


@pytest.mark.parametrize(
    "answer",
    [
        delimited(StopMessage(type=StopMessage.STATUS, status=Status.PERMISSION_DENIED)),
        delimited(StopMessage(type=StopMessage.CONNECT, status=Status.OK)),
        delimited(StopMessage(status=Status.OK)),
        b"\xff\xff\xff\xff",
        b"\x02\xff\xff",
        b"\x09",
        b"",
    ],
    ids=["denied", "connect", "typeless", "long", "garbage", "short", "silent"],
)
async def test_a_target_that_does_not_accept(
    relay: Relay, autojump_clock: MockClock, answer: bytes
) -> None:
    (target,) = await reserved(relay, 1)
    source = MemoryCarrier("source")
    one = relay.stream(source)
    began = trio.current_time()
    await write_message(one, to(target))
    other = await target.there.receive()
    if answer:
        await other.write(answer)
    assert (await read_message(one, HopMessage)).status == Status.CONNECTION_FAILED
    assert trio.current_time() - began <= module.STOP_LIMIT_S < HANDSHAKE_LIMIT_S
    with pytest.raises(trio.BrokenResourceError):
        await other.write(b"?")
    await one.reset()
    await wait_all_tasks_blocked()
    assert (source.held, target.held, relay.load.circuits) == (0, 1, 0)


async def test_circuits_are_bounded(
    relay: Relay, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CIRCUITS", 5)
    monkeypatch.setattr(limits, "CIRCUITS_PER_PEER", 3)
    targets = await reserved(relay, 2)
    busy, *sources = peers(4, "203.0.113.{}")

    async def status(source: MemoryCarrier, target: MemoryCarrier) -> str:
        (reply, _) = await relay.ask(source, to(target))
        return enum_name(Status, reply.status)

    circuits = [await relay.connect(busy, targets[index % 2]) for index in range(3)]
    # As a dialler it has had its share, with whomever.
    assert await status(busy, targets[0]) == "RESOURCE_LIMIT_EXCEEDED"
    circuits.append(await relay.connect(sources[0], targets[0]))
    # As a target, too.
    assert await status(sources[1], targets[0]) == "RESOURCE_LIMIT_EXCEEDED"
    circuits.append(await relay.connect(sources[0], targets[1]))
    assert await status(sources[1], targets[1]) == "RESOURCE_LIMIT_EXCEEDED"
    await circuits[0][0].reset()
    await wait_all_tasks_blocked()
    await relay.connect(sources[1], targets[0])
    assert relay.load.circuits == 5
    assert relay.load.refused == {"RESOURCE_LIMIT_EXCEEDED": 3}


async def test_circuits_in_the_making_count(
    relay: Relay, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CIRCUITS_PER_PEER", 2)
    (target,) = await reserved(relay, 1)
    for number in range(2):
        await relay.stream(MemoryCarrier(f"{number}")).write(delimited(to(target)))
    (reply, _) = await relay.ask(MemoryCarrier("source"), to(target))
    assert reply.status == Status.RESOURCE_LIMIT_EXCEEDED
    for _ in range(2):
        await (await target.there.receive()).reset()
    await wait_all_tasks_blocked()
    await relay.connect(MemoryCarrier("source"), target)


# --- limits on a circuit ----------------------------------------------------------------------


async def test_an_idle_circuit_ends(relay: Relay, autojump_clock: MockClock) -> None:
    (target,) = await reserved(relay, 1)
    one, other = await relay.connect(MemoryCarrier("source"), target)
    for sender, receiver in ((one, other), (other, one)):
        # A byte either way keeps both.
        await trio.sleep(limits.CIRCUIT_IDLE_S - 1)
        await sender.write(b"x")
        assert await receiver.read(1) == b"x"
    began = trio.current_time()
    with pytest.raises(trio.BrokenResourceError):
        await one.read(1)
    assert trio.current_time() - began == pytest.approx(limits.CIRCUIT_IDLE_S)
    await wait_all_tasks_blocked()
    assert relay.load.circuits == 0


async def test_the_dialler_that_does_not_listen_loses_its_circuit(
    relay: Relay, autojump_clock: MockClock
) -> None:
    (target,) = await reserved(relay, 1)
    one = relay.stream(MemoryCarrier("source"))
    await write_message(one, to(target))
    other = await target.there.receive()
    await one.reset()
    await write_message(other, StopMessage(type=StopMessage.STATUS, status=Status.OK))
    await read_message(other, StopMessage)
    with pytest.raises(trio.BrokenResourceError):
        await other.read(1)
    await wait_all_tasks_blocked()
    assert relay.load.circuits == 0


async def test_a_circuit_has_a_rate(relay: Relay, autojump_clock: MockClock) -> None:
    (target,) = await reserved(relay, 1)
    one, other = await relay.connect(MemoryCarrier("source"), target)
    second = limits.CIRCUIT_BYTES_PER_S
    began = trio.current_time()
    assert len(await copied(one, other, bytes(second))) == second
    assert trio.current_time() - began == 0
    # The allowance of both directions is one.
    assert len(await copied(other, one, bytes(2 * second))) == 2 * second
    assert trio.current_time() - began == pytest.approx(2, rel=0.01)


async def test_all_circuits_together_have_a_rate(
    relay: Relay, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay.server._rate = Rate(4 << 20)
    targets = await reserved(relay, 4)
    ends = [await relay.connect(MemoryCarrier("source"), target) for target in targets]
    began = trio.current_time()
    took: list[float] = []

    async def use(one: MemoryWire, other: MemoryWire) -> None:
        await copied(one, other, bytes(3 << 20))
        took.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(use, *end)
    # Twelve MiB at four a second, the first four at once; and each has had its share.
    assert max(took) == pytest.approx(2, rel=0.05)
    assert min(took) > 1.8


async def test_what_is_saved_up_is_a_second(autojump_clock: MockClock) -> None:
    rate = Rate(1000)
    for _ in range(3):
        await trio.sleep(100)
        began = trio.current_time()
        await rate.take(1000)
        assert trio.current_time() == began
        await rate.take(500)
        await rate.take(500)
        assert trio.current_time() - began == pytest.approx(1)


# --- what a stranger sends ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (delimited(HopMessage()), "MALFORMED_MESSAGE"),
        (delimited(HopMessage(type=HopMessage.STATUS)), "UNEXPECTED_MESSAGE"),
        (b"\x02\x08\x4d", "UNEXPECTED_MESSAGE"),
        (b"\x02\xff\xff", "MALFORMED_MESSAGE"),
        (b"\x81\x20", "MALFORMED_MESSAGE"),
        (b"\xff\xff\xff\xff\xff", "MALFORMED_MESSAGE"),
    ],
    ids=["empty", "status", "future", "garbage", "oversize", "2^35"],
)
async def test_a_malformed_request_is_refused(
    relay: Relay, autojump_clock: MockClock, sent: bytes, status: str
) -> None:
    there = relay.stream(MemoryCarrier("stranger"))
    await there.write(sent)
    reply = await read_message(there, HopMessage)
    assert reply.type == HopMessage.STATUS
    assert enum_name(Status, reply.status) == status
    assert await there.read(1) == b""
    assert relay.load.refused == {status: 1}


@pytest.mark.parametrize("sent", [b"", b"\x02", b"\x02\x08"], ids=["nothing", "length", "half"])
async def test_a_slow_request_is_not_awaited(
    relay: Relay, autojump_clock: MockClock, sent: bytes
) -> None:
    there = relay.stream(MemoryCarrier("stranger"))
    if sent:
        await there.write(sent)
    began = trio.current_time()
    assert await there.read(1) == b""
    assert trio.current_time() - began == pytest.approx(HANDSHAKE_LIMIT_S)
    assert relay.load.refused == {"silent": 1}


async def test_a_request_byte_by_byte_is_not_awaited(
    relay: Relay, autojump_clock: MockClock
) -> None:
    there = relay.stream(MemoryCarrier("stranger"))
    began = trio.current_time()
    with contextlib.suppress(trio.BrokenResourceError):
        for byte in b"\x80\x10" + bytes(1000):
            await there.write(bytes([byte]))
            await trio.sleep(1)
    assert trio.current_time() - began <= HANDSHAKE_LIMIT_S + 3


valid = st.sampled_from(
    [
        HopMessage(type=HopMessage.RESERVE),
        to(MemoryCarrier("target")),
        to(MemoryCarrier("nobody")),
        HopMessage(type=HopMessage.STATUS, status=Status.OK),
    ]
)


@st.composite
def nearly_valid(draw: st.DrawFn) -> bytes:
    """A message with some bytes changed, and cut off somewhere."""
    data = bytearray(delimited(draw(valid)))
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@given(st.one_of(st.binary(max_size=100), nearly_valid()), st.booleans())
@example(b"", False)
def test_no_bytes_break_the_relay(data: bytes, ends: bool) -> None:
    async def test() -> None:
        async with trio.open_nursery() as nursery:
            relay = Relay(nursery)
            target = MemoryCarrier("target")
            await relay.reserve(target)
            stranger = MemoryCarrier("stranger")
            there = relay.stream(stranger)
            await there.write(data)
            if ends:
                await there.end_writing()
            await trio.sleep(HANDSHAKE_LIMIT_S + module.STOP_LIMIT_S + 10)
            await there.reset()
            await stranger.close()
            await trio.sleep(10)
            assert (stranger.held, target.held) == (0, 1)
            load = relay.load
            assert (load.reservations, load.circuits) == (1, 0)
            await relay.connect(MemoryCarrier("source"), target)
            nursery.cancel_scope.cancel()

    virtually(test)
