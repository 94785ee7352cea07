"""Identify and ping, and the framing of libp2p's own messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from libp2p.crypto.serialization import deserialize_public_key
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage
from multiaddr import Multiaddr

from node.mesh import identify
from node.mesh.address import Address
from node.mesh.host import Libp2pMesh
from node.mesh.peering import Settings
from node.mesh.proto import (
    HANDSHAKE_LIMIT_S,
    MESSAGE_BYTES,
    enum_name,
    from_multiaddr,
    peer_name,
    read_message,
    to_multiaddr,
    write_message,
)
from node.mesh.wire import Carrier
from protocol import limits
from protocol.errors import DecodeError, MalformedIdError, TooLargeError, UnreachableError
from protocol.ids import peer_text
from tests.mesh.hosts import Host, MemoryCarrier, MemoryWire, delimited, peer_of, running, virtually
from tests.mesh.worlds import eventually, key_seed

Answer = Callable[[MemoryWire], Awaitable[Any]]


def addresses(*texts: str) -> list[bytes]:
    return [Multiaddr(text).to_bytes() for text in texts]


async def answered(
    question: Callable[[Carrier], Awaitable[Any]], answer: Answer
) -> tuple[Any, float]:
    """What ``question`` makes of ``answer``, and the seconds it took."""
    carrier = MemoryCarrier("other")
    began = trio.current_time()
    result: Any = None

    async def ask() -> None:
        nonlocal result
        try:
            result = await question(carrier)
        except Exception as error:
            result = error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        there = await carrier.there.receive()
        await answer(there)
    return result, trio.current_time() - began


def says(data: bytes, end: bool = True) -> Answer:
    async def answer(there: MemoryWire) -> None:
        await there.write(data)
        if end:
            await there.end_writing()

    return answer


async def silence(there: MemoryWire) -> None:
    pass


# --- framing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, MESSAGE_BYTES - 3])
async def test_a_message_is_read_to_its_last_byte_and_no_further(
    size: int, autojump_clock: Any
) -> None:
    message = HopMessage(type=HopMessage.RESERVE)
    message.reservation.voucher = bytes(max(0, size - 10))
    here, there = MemoryCarrier("other").stream()
    await write_message(there, message)
    await there.write(b"what follows")
    assert await read_message(here, HopMessage) == message
    assert await here.read(100) == b"what follows"


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"\x81\x20" + bytes(MESSAGE_BYTES + 1), TooLargeError),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", TooLargeError),
        (b"\x80\x80\x80\x00", TooLargeError),
        (b"\x02\xff\xff", DecodeError),
        (b"\x05\x08\x00", trio.BrokenResourceError),
        (b"\x80", trio.BrokenResourceError),
        (b"", trio.BrokenResourceError),
    ],
    ids=["oversize", "2^64", "padded", "garbage", "short", "half a length", "nothing"],
)
async def test_what_is_no_message_is_refused(
    sent: bytes, error: type[Exception], autojump_clock: Any
) -> None:
    here, there = MemoryCarrier("other").stream()
    await there.write(sent)
    await there.end_writing()
    with pytest.raises(error):
        await read_message(here, HopMessage)


@given(st.binary(max_size=80))
def test_any_bytes_are_an_address_or_none(data: bytes) -> None:
    address = from_multiaddr(data)
    assert address is None or from_multiaddr(to_multiaddr(address)) == address


def test_addresses_survive_their_binary_form() -> None:
    relay, peer = peer_of("relay"), peer_of("other")
    at = Address("ip6", "2001:db8::1", 4001, relay)
    for address in (at, at.bare(), at.through(peer), Address("dns4", "a.example", 1, peer)):
        assert from_multiaddr(to_multiaddr(address)) == address
    for foreign in ("/ip4/1.2.3.4/udp/1/quic-v1", "/ip4/1.2.3.4/tcp/1/ws", "/p2p-circuit"):
        assert from_multiaddr(Multiaddr(foreign).to_bytes()) is None


def test_binary_peer_ids() -> None:
    text = peer_text(peer_of("other"))
    assert peer_name(ID.from_base58(text).to_bytes()) == text
    for size in (0, 65, 4096):
        with pytest.raises(MalformedIdError, match=str(size)):
            peer_name(bytes(size))


def test_a_status_of_the_future_has_a_name() -> None:
    assert enum_name(HopMessage.Type, 1) == "CONNECT"
    assert enum_name(HopMessage.Type, 77) == "status 77"


# --- identify ---------------------------------------------------------------------------------


async def test_two_hosts_identify_and_ping() -> None:
    one, other = Host("one"), Host("other")
    async with running(one, other):
        carrier = await one.to(other)
        seen = await identify.ask(carrier)
        assert seen.agent == "test/other"
        assert {identify.PROTOCOL_ID, identify.PING_ID, "/libp2p/dcutr"} <= {*seen.protocols}
        assert seen.addresses == (str(other.at.bare()),)
        assert seen.observed == str(carrier.source)
        (back,) = other.direct(one)
        assert (await identify.ask(back)).observed == str(other.at.bare())
        assert 0 < await identify.ping(carrier) < HANDSHAKE_LIMIT_S


@pytest.mark.parametrize("relayed", [False, True])
async def test_what_is_said_is_what_libp2p_expects(relayed: bool, autojump_clock: Any) -> None:
    host, relay = Host("one"), peer_of("relay")
    at = Address("ip4", "192.0.2.1", 4001, relay)
    own = (str(at), str(at.through(host.peer_id)))
    carrier = MemoryCarrier("other", relayed=relayed)
    here, there = carrier.stream()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(identify.serve, here, "test/one", host._network, own, ["/a", "/b"])
        message = await read_message(there, Identify)
        assert await there.read(1) == b""
        await there.reset()
    assert message.protocol_version == "ipfs/0.1.0"
    assert message.agent_version == "test/one"
    key = deserialize_public_key(message.public_key)
    assert str(ID.from_pubkey(key)) == peer_text(host.peer_id)
    assert list(message.listen_addrs) == addresses(
        "/ip4/192.0.2.1/tcp/4001", f"/ip4/192.0.2.1/tcp/4001/p2p/{peer_text(relay)}/p2p-circuit"
    )
    assert list(message.protocols) == ["/a", "/b"]
    if relayed:
        # Where the relay is would be taken for where the peer is.
        assert not message.HasField("observed_addr")
    else:
        assert message.observed_addr == Multiaddr("/ip4/198.51.100.7/tcp/4001").to_bytes()


async def test_who_does_not_read_an_identity_is_not_waited_for(autojump_clock: Any) -> None:
    host = Host("one")
    here, there = MemoryCarrier("other").stream()
    began = trio.current_time()
    await identify.serve(here, "test/one", host._network, (), ["/a"] * 1000)
    assert trio.current_time() - began <= HANDSHAKE_LIMIT_S
    with pytest.raises(trio.BrokenResourceError):
        await there.write(b"?")


async def test_what_a_stranger_says_is_cut_to_size(autojump_clock: Any) -> None:
    foreign = ["/ip4/1.2.3.4/udp/1/quic-v1", "/dns4/a.example/tcp/1"]
    message = Identify(
        agent_version="evil\x1b[2J" + "x" * 1000,
        listen_addrs=addresses(*foreign, *(f"/ip4/1.2.3.4/tcp/{port}" for port in range(1, 40))),
        observed_addr=b"\xff",
        protocols=[f"/{number}\n" for number in range(1000)],
    )
    (said, _) = await answered(identify.ask, says(delimited(message)))
    assert len(said.agent) == limits.TEXT_CHARS
    assert said.agent.startswith("evil\N{REPLACEMENT CHARACTER}[2J")
    assert len(said.protocols) == identify.PROTOCOLS
    assert said.protocols[1] == "/1\N{REPLACEMENT CHARACTER}"
    assert said.addresses[:2] == ("/dns4/a.example/tcp/1", "/ip4/1.2.3.4/tcp/1")
    assert len(said.addresses) == limits.ADDRESSES
    assert said.observed == ""


async def test_a_text_that_is_not_utf8(autojump_clock: Any) -> None:
    (said, _) = await answered(identify.ask, says(b"\x04\x32\x02\xff\xfe"))
    assert said == identify.Identity("\N{REPLACEMENT CHARACTER}" * 2, (), (), "")


async def test_only_the_first_message_is_read(autojump_clock: Any) -> None:
    first, second = Identify(agent_version="first"), Identify(agent_version="second")
    (said, took) = await answered(identify.ask, says(delimited(first) + delimited(second), False))
    assert said.agent == "first"
    assert took == 0


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (says(b"\x81\x80\x04"), TooLargeError),
        (says(b"\x04\xff\xff\xff\xff"), DecodeError),
        (says(b"\x04\xff"), UnreachableError),
        (says(b""), UnreachableError),
        (lambda there: there.reset(), UnreachableError),
    ],
    ids=["oversize", "garbage", "short", "nothing", "cut"],
)
async def test_who_does_not_identify(
    answer: Answer, error: type[Exception], autojump_clock: Any
) -> None:
    (said, _) = await answered(identify.ask, answer)
    assert type(said) is error


@pytest.mark.parametrize("question", [identify.ask, identify.ping])
async def test_a_silent_peer_is_given_up(question: Any, autojump_clock: Any) -> None:
    for answer in (silence, says(b"\x10", end=False)):
        (said, took) = await answered(question, answer)
        assert type(said) is UnreachableError
        assert "in time" in str(said)
        assert took == pytest.approx(HANDSHAKE_LIMIT_S)
    closed = MemoryCarrier("other")
    await closed.close()
    with pytest.raises(UnreachableError, match="closed"):
        await question(closed)


@given(st.binary(max_size=200), st.booleans())
@example(b"\x00", True)
def test_any_answer_is_an_identity_or_a_typed_error(data: bytes, framed: bool) -> None:
    async def test() -> None:
        (said, _) = await answered(identify.ask, says(delimited(data) if framed else data))
        assert isinstance(said, identify.Identity | DecodeError | TooLargeError | UnreachableError)

    virtually(test)


# --- ping -------------------------------------------------------------------------------------


async def test_another_answer_to_a_ping(autojump_clock: Any) -> None:
    (said, _) = await answered(identify.ping, says(bytes(32)))
    assert type(said) is DecodeError


async def test_the_time_of_a_ping(autojump_clock: Any) -> None:
    async def slow(there: MemoryWire) -> None:
        ping = await there.read(100)
        assert len(ping) == 32
        await trio.sleep(0.25)
        await there.write(ping)

    (took, _) = await answered(identify.ping, slow)
    assert took == pytest.approx(0.25)


async def test_pings_come_back_one_by_one_and_not_too_often(autojump_clock: Any) -> None:
    here, there = MemoryCarrier("other").stream()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(identify.serve_ping, here)
        sent = bytes(range(256)) * 5
        await there.write(sent + b"half a ping")
        await there.end_writing()
        back = bytearray()
        while more := await there.read(1000):
            back += more
        assert back == sent
        assert trio.current_time() - began >= (len(sent) / 32 - 1) * identify.PING_EVERY_S


async def test_who_stops_pinging_is_hung_up_on(autojump_clock: Any) -> None:
    here, there = MemoryCarrier("other").stream()
    await there.write(b"x")
    began = trio.current_time()
    await identify.serve_ping(here)
    assert trio.current_time() - began <= identify.PING_IDLE_S + 5
    with pytest.raises(trio.BrokenResourceError):
        await there.write(b"x")


async def test_who_answers_where_no_swarm_is_spoken_is_named() -> None:
    foreign = Host("foreign")
    async with running(foreign):
        settings = Settings(("/ip4/127.0.0.1/tcp/0",), (str(foreign.at),), "test", "test/node")
        node = Libp2pMesh(key_seed("node"), settings)
        async with node.running():
            await eventually(lambda: node.report().refused.get("foreign", 0) > 0)
            await eventually(lambda: node.report().dialled[0].failures > 0)
            assert "test/foreign, which speaks nothing" in node.report().dialled[0].error
