"""Circuits dialled and accepted: against a relay that the test plays, and between real hosts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from libp2p.crypto.secp256k1 import create_new_key_pair as create_new_secp256k1
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Status, StopMessage
from trio.testing import MockClock, wait_all_tasks_blocked

from node.mesh import circuit, muxer
from node.mesh.address import Address
from node.mesh.carrier import Libp2pCarrier
from node.mesh.circuit import HOP_ID, STOP_ID, CircuitClient, CircuitStream
from node.mesh.harden import SOCKET_READ
from node.mesh.proto import HANDSHAKE_LIMIT_S, enum_name, read_message, write_message
from node.mesh.wire import Carrier
from protocol import limits
from protocol.errors import CircuitError
from protocol.ids import PeerId, peer_text
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
from tests.mesh.worlds import LIMIT_S, eventually

NOW = 1_700_000_000.0
TARGET = peer_of("target")


class Client:
    """A client in memory whose handshakes do what the test says."""

    def __init__(self) -> None:
        self.circuits = CircuitClient(self._upgrade, lambda: NOW)
        self.shaken: list[tuple[CircuitStream, PeerId, bool]] = []
        self.made: list[MemoryCarrier] = []
        self.fault: Exception | None = None
        self.takes_s = 0.0

    async def _upgrade(self, stream: CircuitStream, peer: PeerId, initiator: bool) -> Carrier:
        self.shaken.append((stream, peer, initiator))
        await trio.sleep(self.takes_s)
        if self.fault is not None:
            raise self.fault
        self.made.append(MemoryCarrier("target"))
        return self.made[-1]


def at_relay(name: str = "relay") -> tuple[MemoryCarrier, Address]:
    """A connection to a relay, and the circuit to the target there."""
    carrier = MemoryCarrier(name)
    assert carrier.address is not None
    return carrier, replace(carrier.address, peer=carrier.id).through(TARGET)


async def played(
    request: Callable[[], Awaitable[Any]],
    relay: MemoryCarrier,
    play: Callable[[MemoryWire], Awaitable[Any]],
) -> Any:
    """What comes of ``request`` while the relay does as ``play`` says."""
    result: Any = None

    async def ask() -> None:
        nonlocal result
        try:
            result = await request()
        except CircuitError as error:
            result = error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await play(await relay.there.receive())
    return result


def replies(reply: Any) -> Callable[[MemoryWire], Awaitable[None]]:
    async def play(there: MemoryWire) -> None:
        await read_message(there, HopMessage)
        await there.write(reply if isinstance(reply, bytes) else delimited(reply))

    return play


def status(code: int) -> Any:
    return HopMessage(type=HopMessage.STATUS, status=code)


def granted(expire: float) -> Any:
    reply = status(Status.OK)
    reply.reservation.expire = int(expire)
    return reply


async def reserved(client: Client, relay: MemoryCarrier, seconds: float = 3600) -> float:
    reply = replies(granted(NOW + seconds))
    good_s: float = await played(lambda: client.circuits.reserve(relay), relay, reply)
    return good_s


def offer(source: PeerId) -> Any:
    request = StopMessage(type=StopMessage.CONNECT)
    request.peer.id = ID.from_base58(peer_text(source)).to_bytes()
    return request


async def answered(client: Client, relay: MemoryCarrier, sent: bytes) -> str:
    """The status with which ``sent`` on a STOP stream is answered."""
    here, there = relay.stream()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.circuits.accept, here)
        await there.write(sent)
        reply = await read_message(there, StopMessage)
        assert reply.type == StopMessage.STATUS
        await there.reset()
        for carrier in client.made:
            await carrier.close()
    return enum_name(Status, reply.status)


# --- dialling -----------------------------------------------------------------------------------


async def test_a_circuit_is_asked_for_as_the_specification_says(autojump_clock: MockClock) -> None:
    client = Client()
    relay, address = at_relay()

    async def play(there: MemoryWire) -> None:
        request = await read_message(there, HopMessage)
        assert request.type == HopMessage.CONNECT
        assert request.peer.id == ID.from_base58(peer_text(TARGET)).to_bytes()
        await there.write(delimited(status(Status.OK)) + b"first words")

    carrier = await played(lambda: client.circuits.dial(relay, address), relay, play)
    assert client.made == [carrier]
    ((stream, peer, initiator),) = client.shaken
    assert (stream.circuit, peer, initiator) == (address, TARGET, True)
    assert await stream.read(11) == b"first words"
    assert stream.get_remote_address() is None
    assert relay.held == 1
    await stream.close()
    assert relay.held == 0


@pytest.mark.parametrize("code", [*Status.values(), 77])
async def test_the_relays_reason_is_told(code: int, autojump_clock: MockClock) -> None:
    client = Client()
    relay, address = at_relay()
    requests = {"dial": lambda: client.circuits.dial(relay, address)}
    requests["reserve"] = lambda: client.circuits.reserve(relay)
    if code == Status.OK:
        return
    for request in requests.values():
        error = await played(request, relay, replies(status(code)))
        assert isinstance(error, CircuitError)
        assert enum_name(Status, code) in str(error)
        assert error.code == "circuit"
    assert relay.held == 0
    assert client.shaken == []


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (HopMessage(type=HopMessage.CONNECT, status=Status.OK), "does not answer with a status"),
        (HopMessage(status=Status.OK), "does not answer with a status"),
        (b"\x02\xff\xff", "parsing"),
        (b"\x81\x20", "declares"),
        (b"\x09", "in time"),
        (b"", "in time"),
    ],
    ids=["connect", "typeless", "garbage", "oversize", "short", "silent"],
)
async def test_a_relay_that_does_not_answer_properly(
    reply: Any, words: str, autojump_clock: MockClock
) -> None:
    client = Client()
    relay, address = at_relay()
    for request in (
        lambda: client.circuits.dial(relay, address),
        lambda: client.circuits.reserve(relay),
    ):
        began = trio.current_time()
        error = await played(request, relay, replies(reply))
        assert isinstance(error, CircuitError)
        assert words in str(error)
        assert trio.current_time() - began <= HANDSHAKE_LIMIT_S
    assert relay.held == 0


async def test_a_relay_that_is_gone(autojump_clock: MockClock) -> None:
    client = Client()
    relay, address = at_relay()
    for request in (
        lambda: client.circuits.dial(relay, address),
        lambda: client.circuits.reserve(relay),
    ):
        error = await played(request, relay, lambda there: there.reset())
        assert isinstance(error, CircuitError)
    await relay.close()
    with pytest.raises(CircuitError, match="closed"):
        await client.circuits.dial(relay, address)


async def test_a_handshake_that_fails_or_stalls_ends_the_circuit(autojump_clock: MockClock) -> None:
    client = Client()
    relay, address = at_relay()
    for client.fault, client.takes_s, words in (
        (ValueError("another key"), 0.0, "another key"),
        (None, 100.0, "in time"),
    ):
        began = trio.current_time()
        ends: list[MemoryWire] = []

        async def play(there: MemoryWire, ends: list[MemoryWire] = ends) -> None:
            ends.append(there)
            await replies(status(Status.OK))(there)

        error = await played(lambda: client.circuits.dial(relay, address), relay, play)
        assert isinstance(error, CircuitError)
        assert words in str(error)
        assert trio.current_time() - began <= HANDSHAKE_LIMIT_S + 3
        with pytest.raises(trio.BrokenResourceError):
            await ends[0].write(b"?")
    assert relay.held == 0


async def test_a_dial_that_is_given_up_leaves_nothing(autojump_clock: MockClock) -> None:
    client = Client()
    client.takes_s = 100.0
    relay, address = at_relay()

    async def dial() -> None:
        with trio.move_on_after(1):
            await client.circuits.dial(relay, address)

    await played(dial, relay, replies(status(Status.OK)))
    assert len(client.shaken) == 1
    assert relay.held == 0


# --- reservations -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("promised", "taken"),
    [
        (600, 600),
        (limits.RESERVATION_S, limits.RESERVATION_S),
        (10 * limits.RESERVATION_S, limits.RESERVATION_S),
        (-7200, circuit.SHORTEST_S),
        (2**63 - NOW, limits.RESERVATION_S),
    ],
    ids=["some", "an hour", "too long", "its clock is slow", "for ever"],
)
async def test_the_relays_clock_need_not_be_right(
    promised: float, taken: float, autojump_clock: MockClock
) -> None:
    assert await reserved(Client(), at_relay()[0], promised) == taken


async def test_a_relay_whose_key_no_address_can_name(autojump_clock: MockClock) -> None:
    relay, _ = at_relay()
    relay.peer = str(ID.from_pubkey(create_new_secp256k1().public_key))
    with pytest.raises(CircuitError):
        await Client().circuits.reserve(relay)


# --- accepting --------------------------------------------------------------------------------


async def test_a_circuit_is_accepted_where_a_reservation_is_held(
    autojump_clock: MockClock,
) -> None:
    client = Client()
    relay, address = at_relay()
    assert await answered(client, relay, delimited(offer(TARGET))) == "PERMISSION_DENIED"
    await reserved(client, relay)
    # What the relay sends at once belongs to the circuit.
    assert await answered(client, relay, delimited(offer(TARGET)) + b"hello") == "OK"
    ((stream, peer, initiator),) = client.shaken
    assert (stream.circuit, peer, initiator) == (address, TARGET, False)
    assert relay.held == 0
    other, _ = at_relay("another relay")
    assert await answered(client, other, delimited(offer(TARGET))) == "PERMISSION_DENIED"
    assert client.circuits.refused == {"PERMISSION_DENIED": 2}


async def test_another_connection_of_the_same_relay_will_do(autojump_clock: MockClock) -> None:
    client = Client()
    relay, _ = at_relay()
    await reserved(client, relay)
    assert await answered(client, at_relay()[0], delimited(offer(TARGET))) == "OK"


@pytest.mark.parametrize("end", ["time", "connection"])
async def test_a_reservation_that_is_over_lets_nobody_in(
    end: str, autojump_clock: MockClock
) -> None:
    client = Client()
    relay, _ = at_relay()
    await reserved(client, relay, 600)
    if end == "time":
        await trio.sleep(600)
    else:
        await relay.close()
    again, _ = at_relay()
    assert await answered(client, again, delimited(offer(TARGET))) == "PERMISSION_DENIED"
    await reserved(client, again, 600)
    assert await answered(client, again, delimited(offer(TARGET))) == "OK"


async def test_reservations_that_are_over_are_forgotten(autojump_clock: MockClock) -> None:
    client = Client()
    for number in range(20):
        relay, _ = at_relay(f"relay {number}")
        await reserved(client, relay)
        await relay.close()
    assert len(client.circuits._reservations) == 1


async def test_circuits_to_this_node_are_bounded(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CIRCUITS", 2)
    client = Client()
    relay, _ = at_relay()
    await reserved(client, relay)
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            here, there = relay.stream()
            nursery.start_soon(client.circuits.accept, here)
            await there.write(delimited(offer(TARGET)))
            assert (await read_message(there, StopMessage)).status == Status.OK
        await wait_all_tasks_blocked()
        sent = delimited(offer(TARGET))
        here, there = relay.stream()
        nursery.start_soon(client.circuits.accept, here)
        await there.write(sent)
        reply = await read_message(there, StopMessage)
        assert reply.status == Status.RESOURCE_LIMIT_EXCEEDED
        for carrier in client.made:
            await carrier.close()
    assert relay.held == 0
    client.made.clear()
    assert await answered(client, relay, delimited(offer(TARGET))) == "OK"


async def test_an_accepted_circuit_that_stalls_is_given_up(autojump_clock: MockClock) -> None:
    client = Client()
    client.takes_s = 100.0
    relay, _ = at_relay()
    await reserved(client, relay)
    here, there = relay.stream()
    await there.write(delimited(offer(TARGET)))
    began = trio.current_time()
    await client.circuits.accept(here)
    assert trio.current_time() - began <= HANDSHAKE_LIMIT_S + 5
    assert client.circuits.refused == {"handshake": 1}
    assert relay.held == 0


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (delimited(StopMessage()), "MALFORMED_MESSAGE"),
        (delimited(StopMessage(type=StopMessage.CONNECT)), "MALFORMED_MESSAGE"),
        (delimited(StopMessage(type=StopMessage.STATUS, peer={})), "UNEXPECTED_MESSAGE"),
        (delimited(StopMessage(type=StopMessage.CONNECT, peer={})), "MALFORMED_MESSAGE"),
        (
            delimited(StopMessage(type=StopMessage.CONNECT, peer={"id": bytes(65)})),
            "MALFORMED_MESSAGE",
        ),
        (
            delimited(StopMessage(type=StopMessage.CONNECT, peer={"id": b"\x12\x20" + bytes(32)})),
            "MALFORMED_MESSAGE",
        ),
        (b"\x02\xff\xff", "MALFORMED_MESSAGE"),
        (b"\x81\x20", "MALFORMED_MESSAGE"),
    ],
    ids=["empty", "nobody", "status", "no id", "long id", "rsa", "garbage", "oversize"],
)
async def test_a_malformed_offer_is_refused(
    sent: bytes, answer: str, autojump_clock: MockClock
) -> None:
    client = Client()
    relay, _ = at_relay()
    await reserved(client, relay)
    assert await answered(client, relay, sent) == answer
    assert client.circuits.refused == {answer: 1}
    assert client.shaken == []


async def test_a_silent_offer_is_not_awaited(autojump_clock: MockClock) -> None:
    client = Client()
    here, there = at_relay()[0].stream()
    await there.write(b"\x10")
    began = trio.current_time()
    await client.circuits.accept(here)
    assert trio.current_time() - began <= HANDSHAKE_LIMIT_S + 3
    assert client.circuits.refused == {"silent": 1}


@st.composite
def nearly(draw: st.DrawFn, message: Any) -> bytes:
    """``message`` with some bytes changed, and cut off somewhere."""
    data = bytearray(delimited(message))
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@given(st.one_of(st.binary(max_size=100), nearly(offer(TARGET))), st.booleans())
def test_no_bytes_of_a_relay_break_the_node(data: bytes, ends: bool) -> None:
    async def test() -> None:
        client = Client()
        relay, _ = at_relay()
        await reserved(client, relay)
        here, there = relay.stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.circuits.accept, here)
            await there.write(data)
            if ends:
                await there.end_writing()
            await trio.sleep(2 * HANDSHAKE_LIMIT_S)
            for carrier in client.made:
                await carrier.close()
        assert relay.held == 0
        assert client.circuits._accepted == 0

    virtually(test)


@given(st.one_of(st.binary(max_size=100), nearly(granted(NOW + 600))), st.booleans())
@example(delimited(granted(2**64 - 1)), False)
def test_any_reply_is_a_result_or_a_typed_error(data: bytes, reserve: bool) -> None:
    async def test() -> None:
        client = Client()
        relay, address = at_relay()
        if reserve:
            made = await played(lambda: client.circuits.reserve(relay), relay, replies(data))
            assert isinstance(made, float | CircuitError)
            assert not isinstance(made, float) or 60 <= made <= limits.RESERVATION_S
        else:
            made = await played(lambda: client.circuits.dial(relay, address), relay, replies(data))
            assert isinstance(made, MemoryCarrier | CircuitError)

    virtually(test)


# --- a circuit in place of a TCP connection -------------------------------------------------


def circuit_stream() -> tuple[CircuitStream, MemoryWire]:
    relay, address = at_relay()
    here, there = relay.stream()
    return CircuitStream(here, address), there


async def test_reads_give_what_is_asked_for(autojump_clock: MockClock) -> None:
    stream, there = circuit_stream()
    async with trio.open_nursery() as nursery:

        async def trickle() -> None:
            for byte in b"abcdefgh":
                await there.write(bytes([byte]))
                await trio.sleep(1)
            await there.end_writing()

        nursery.start_soon(trickle)
        assert await stream.read(3) == b"abc"
        assert await stream.read(4) == b"defg"
        assert await stream.read(4) == b"h"
        assert await stream.read(4) == b""


async def test_a_large_read_is_cut_to_size(autojump_clock: MockClock) -> None:
    stream, there = circuit_stream()
    await there.write(bytes(3 * SOCKET_READ))
    assert len(await stream.read(1 << 40)) == SOCKET_READ
    assert len(await stream.read(None)) == SOCKET_READ
    assert len(await stream.read(None)) == SOCKET_READ


async def test_a_cut_circuit_is_a_closed_connection(autojump_clock: MockClock) -> None:
    stream, there = circuit_stream()
    await there.reset()
    with pytest.raises(ConnectionClosedError):
        await stream.read(1)
    with pytest.raises(ConnectionClosedError):
        await stream.write(b"x")


async def test_closing_wakes_the_reader_and_lets_the_peer_read_on(
    autojump_clock: MockClock,
) -> None:
    stream, there = circuit_stream()
    read: list[bytes] = []
    async with trio.open_nursery() as nursery:

        async def reader() -> None:
            read.append(await stream.read(1))

        nursery.start_soon(reader)
        await wait_all_tasks_blocked()
        await stream.write(b"goodbye")
        nursery.start_soon(stream.close)
        nursery.start_soon(stream.close)
        await wait_all_tasks_blocked()
        assert read == [b""]
        assert await there.read(100) == b"goodbye"
        assert await there.read(100) == b""
        await there.end_writing()
    assert trio.current_time() == 0
    assert there.carrier.held == 0


async def test_closing_does_not_wait_long_for_the_peer(autojump_clock: MockClock) -> None:
    stream, there = circuit_stream()
    await stream.close()
    assert trio.current_time() < 5
    with pytest.raises(trio.BrokenResourceError):
        await there.write(b"x")
    assert await stream.read(1) == b""


# --- real hosts -------------------------------------------------------------------------------


async def with_relay(relay: Host, *listeners: Host) -> list[Carrier]:
    """Have ``relay`` serve, and ``listeners`` reserve there; their connections to it."""
    relay._serve_relay(True)
    carriers = []
    for listener in listeners:
        carriers.append(await listener.to(relay))
        assert await listener._reserve(carriers[-1]) > limits.RESERVATION_S - 60
    return carriers


def relayed(host: Host) -> list[Libp2pCarrier]:
    """The circuits that end at ``host``."""
    found = [Libp2pCarrier(one) for one in host._network.get_connections()]
    return [one for one in found if one.relayed and not one.closed]


@pytest.mark.parametrize("swarm_key", [None, bytes(range(32))], ids=["open", "private"])
async def test_a_circuit_carries_bytes_both_ways(swarm_key: bytes | None) -> None:
    relay, listener, dialler = (
        Host(name, swarm_key=swarm_key) for name in ("relay", "listener", "dialler")
    )
    async with running(relay, listener, dialler):
        await with_relay(relay, listener)
        there = await dialler.through(relay, listener)
        (back,) = relayed(listener)
        assert there.relayed
        assert there.dialled
        assert not back.dialled
        assert there.source is None
        assert there.peer == peer_text(listener.peer_id)
        assert back.peer == peer_text(dialler.peer_id)
        assert there.address == relay.at.through(listener.peer_id)
        assert back.address == relay.at.through(dialler.peer_id)
        data = os.urandom(300_000)
        assert await echoed(there, data) == data
        assert await echoed(back, data) == data
        load = relay._relay.load()
        assert load.circuits == 1
        assert load.bytes_relayed > 4 * len(data)
        await there.close()
        with trio.fail_after(LIMIT_S):
            await back.wait_closed()
        await eventually(lambda: relay._relay.load().circuits == 0)
        assert relay._relay.load().reservations == 1


async def test_what_was_written_before_the_end_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the bare circuit; connections through it end with a goodbye, which shall be read."""
    relay, listener, dialler = Host("relay"), Host("listener"), Host("dialler")
    streams: list[CircuitStream] = []
    ended = MemoryCarrier("nobody")

    async def keep(stream: CircuitStream, peer: PeerId, initiator: bool) -> Carrier:
        streams.append(stream)
        return ended

    async with running(relay, listener, dialler):
        await with_relay(relay, listener)
        for host in listener, dialler:
            monkeypatch.setattr(host._circuits, "_upgrade", keep)
        await dialler.through(relay, listener)
        await eventually(lambda: len(streams) == 2)
        data = os.urandom(3_000_000)
        for source, sink in (streams, streams[::-1]):
            read = bytearray()
            async with trio.open_nursery() as nursery:

                async def send(wire: Any = source.stream._wire) -> None:
                    await wire.write(data)
                    await wire.end_writing()

                nursery.start_soon(send)
                with trio.fail_after(LIMIT_S):
                    # The library's streams say by an error that they have ended.
                    with contextlib.suppress(ConnectionClosedError):
                        while more := await sink.read(None):
                            read += more
            assert read == data
        await eventually(lambda: relay._relay.load().circuits == 0)
        await ended.close()


async def test_who_lacks_the_swarms_key_gets_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.mesh.host.DIAL_LIMIT_S", 0.3)
    key = bytes(range(32))
    relay, listener = Host("relay", swarm_key=key), Host("listener", swarm_key=key)
    outsider = Host("outsider")
    async with running(relay, listener, outsider):
        await with_relay(relay, listener)
        with pytest.raises(Exception):  # noqa: B017, PT011  # whatever the handshake makes of noise
            await outsider.through(relay, listener)
        assert relay._relay.load().circuits == 0


async def test_closing_one_circuit_leaves_the_others() -> None:
    relay = Host("relay")
    listeners = [Host(f"listener {number}") for number in range(4)]
    dialler = Host("dialler")
    async with running(relay, *listeners, dialler):
        await with_relay(relay, *listeners)
        circuits = [await dialler.through(relay, listener) for listener in listeners]
        # A circuit the other way, too.
        await with_relay(relay, dialler)
        circuits.append(await listeners[0].through(relay, dialler))
        while circuits:
            await circuits.pop(0).close()
            await eventually(lambda: relay._relay.load().circuits == len(circuits))
            for one in circuits:
                assert await echoed(one, b"still here") == b"still here"


async def test_both_sides_notice_that_the_relay_is_gone() -> None:
    listener, dialler = Host("listener"), Host("dialler")
    async with running(listener, dialler):
        async with running(relay := Host("relay")):
            await with_relay(relay, listener)
            there = await dialler.through(relay, listener)
            (back,) = relayed(listener)
        with trio.fail_after(LIMIT_S):
            await there.wait_closed()
            await back.wait_closed()
        with pytest.raises(OSError):  # noqa: PT011  # nobody listens there any more
            await dialler.through(relay, listener)


async def test_nobody_is_reached_without_a_reservation() -> None:
    relay, listener, dialler = Host("relay"), Host("listener"), Host("dialler")
    async with running(relay, listener, dialler):
        carrier = await listener.to(relay)
        with pytest.raises(CircuitError, match="PERMISSION_DENIED"):
            await listener._reserve(carrier)
        relay._serve_relay(True)
        with pytest.raises(CircuitError, match="NO_RESERVATION"):
            await dialler.through(relay, listener)
        await listener._reserve(carrier)
        await dialler.through(relay, listener)
        await carrier.close()
        await eventually(lambda: relay._relay.load().reservations == 0)
        with pytest.raises(CircuitError, match="NO_RESERVATION"):
            await dialler.through(relay, listener)


async def test_more_circuits_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CIRCUITS_PER_PEER", 2)
    relay, listener = Host("relay"), Host("listener")
    diallers = [Host(f"dialler {number}") for number in range(3)]
    async with running(relay, listener, *diallers):
        await with_relay(relay, listener)
        first = [await dialler.through(relay, listener) for dialler in diallers[:2]]
        with pytest.raises(CircuitError, match="RESOURCE_LIMIT_EXCEEDED"):
            await diallers[2].through(relay, listener)
        for one in first:
            assert await echoed(one, b"still here") == b"still here"
        await first[0].close()
        await eventually(lambda: relay._relay.load().circuits == 1)
        await diallers[2].through(relay, listener)


async def test_a_relay_cannot_pass_itself_off_as_another_peer() -> None:
    relay, listener = Host("relay"), Host("listener")
    async with running(relay, listener):
        await with_relay(relay, listener)
        (to_listener,) = relay.direct(listener)
        wire = await to_listener.open(STOP_ID)
        await write_message(wire, offer(peer_of("a friend")))
        assert (await read_message(wire, StopMessage)).status == Status.OK
        # It can only prove its own key.
        stream = CircuitStream(wire, relay.at.through(listener.peer_id))
        with trio.fail_after(LIMIT_S):
            made = await relay._upgrade_circuit(stream, listener.peer_id, True)
            await made.wait_closed()
        await eventually(lambda: listener._circuits.refused == {"handshake": 1})
        assert relayed(listener) == []


async def test_a_relay_cannot_send_the_dialler_to_another_peer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    relay, listener, trap, dialler = (Host(name) for name in ("relay", "listener", "trap", "d"))
    async with running(relay, listener, trap, dialler):
        await with_relay(relay, listener, trap)
        table = relay._relay._reservations
        table[peer_text(listener.peer_id)] = table[peer_text(trap.peer_id)]
        with pytest.raises(CircuitError, match="does not correspond"):
            await dialler.through(relay, listener)
        await eventually(lambda: relayed(dialler) == relayed(trap) == [])
        await eventually(lambda: relay._relay.load().circuits == 0)


async def test_a_relay_restarted_takes_reservations_anew() -> None:
    listener, dialler = Host("listener"), Host("dialler")
    async with running(listener, dialler):
        for _ in range(2):
            async with running(relay := Host("relay")):
                await with_relay(relay, listener)
                there = await dialler.through(relay, listener)
                assert await echoed(there, b"through") == b"through"
            await eventually(lambda: relayed(dialler) == relayed(listener) == [])


async def test_garbage_on_the_protocols_of_relays_hurts_nobody() -> None:
    relay, listener, dialler, evil = (Host(name) for name in ("relay", "listener", "d", "evil"))
    async with running(relay, listener, dialler, evil):
        await with_relay(relay, listener)
        there = await dialler.through(relay, listener)
        for victim in (relay, listener):
            carrier = await evil.to(victim)
            for protocol in (HOP_ID, STOP_ID):
                for garbage in (b"\xff" * 100, b"\x00", b"\x02\xff\xff", os.urandom(5000)):
                    wire = await carrier.open(protocol)
                    await wire.write(garbage)
                    await wire.reset()
        assert await echoed(there, b"still here") == b"still here"

        def refused() -> list[int]:
            counts = (one for host in (relay, listener) for one in (host._circuits, host._relay))
            return [sum(one.refused.values()) for one in counts]

        await eventually(lambda: refused() == [4, 4, 4, 4])


async def test_an_honest_circuit_stays_open_while_streams_are_hoarded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection with a stream for each circuit has room for all that one peer may have."""
    monkeypatch.setattr(limits, "CIRCUITS_PER_PAIR", 4)
    assert limits.CIRCUITS_PER_PEER < muxer.STREAMS_PER_CONNECTION // 2
    assert limits.CIRCUITS < muxer.STREAMS_PER_CONNECTION
    relay, listener, dialler = Host("relay"), Host("listener"), Host("dialler")
    async with running(relay, listener, dialler):
        await with_relay(relay, listener)
        there = [await dialler.through(relay, listener) for _ in range(4)]
        assert len(relayed(listener)) == 4
        for one in there:
            assert await echoed(one, b"one of four") == b"one of four"
