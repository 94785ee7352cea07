"""What a hostile peer can do on a real connection, and that the mesh goes on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.secp256k1 import create_new_key_pair as create_new_secp256k1
from libp2p.peer.id import ID
from libp2p.protocol_muxer.exceptions import MultiselectClientError
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.insecure import transport as plaintext
from libp2p.tools.anyio_service import background_trio_service
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from node.mesh import harden, muxer
from node.mesh.base import PeerDown, PeerUp, Received, Refused
from node.mesh.carrier import Libp2pWire
from node.mesh.greet import PROTOCOL_ID
from node.mesh.harden import Network, build_network
from node.mesh.host import Libp2pMesh
from node.mesh.peering import Settings
from protocol import limits
from protocol.frames import FrameDecoder, Goodbye, Hello, decode_greeting, encode_frame
from protocol.frames import encode_greeting as greeting
from protocol.ids import parse_peer, peer_text
from protocol.version import OLDEST, PROTOCOL
from tests.mesh.worlds import LIMIT_S, eventually, key_seed, until

HELLO = Hello(OLDEST, PROTOCOL, "test", "evil", bytes(16))


def mesh_of(name: str, *bootstraps: str) -> Libp2pMesh:
    settings = Settings(("/ip4/127.0.0.1/tcp/0",), bootstraps, "test", f"test/{name}")
    return Libp2pMesh(key_seed(name), settings)


@pytest.fixture
async def victim() -> AsyncIterator[Libp2pMesh]:
    mesh = mesh_of("victim")
    async with mesh.running():
        yield mesh


def port_of(mesh: Libp2pMesh) -> int:
    return int(mesh.addresses()[0].split("/")[4])


@contextlib.asynccontextmanager
async def attacker(
    network: Network | None = None, name: str = "attacker"
) -> AsyncIterator[Network]:
    """A libp2p node that does what the test says."""
    network = network or build_network(key_seed(name))
    async with background_trio_service(network):
        try:
            yield network
        finally:
            for connection in network.get_connections():
                await connection.muxed_conn.secured_conn.close()


async def connect(network: Network, mesh: Libp2pMesh) -> Any:
    with trio.fail_after(LIMIT_S):
        peer_id = ID.from_base58(mesh.addresses()[0].split("/")[-1])
        address = Multiaddr(f"/ip4/127.0.0.1/tcp/{port_of(mesh)}")
        return await network.dial_addr(address, peer_id)


async def open_wire(connection: Any) -> Libp2pWire:
    with trio.fail_after(LIMIT_S):
        stream = await connection.new_stream()
        communicator = MultiselectCommunicator(stream)
        await MultiselectClient().select_one_of([PROTOCOL_ID], communicator, 5)
        return Libp2pWire(stream)


async def greeted(network: Network, mesh: Libp2pMesh) -> Libp2pWire:
    """A link, as far as the victim is concerned."""
    wire = await open_wire(await connect(network, mesh))
    await wire.write(greeting(HELLO))
    await until(mesh, PeerUp)
    return wire


async def first_frame(wire: Libp2pWire) -> Hello | Goodbye:
    decoder = FrameDecoder()
    with trio.fail_after(LIMIT_S):
        while True:  # a byte at a time, for another frame may have come with it
            frames = decoder.feed(await wire.read(1))
            if frames:
                return decode_greeting(frames[0])


async def assert_cut(wire: Libp2pWire) -> None:
    """The victim has closed the stream or the connection."""
    with trio.fail_after(LIMIT_S), contextlib.suppress(trio.BrokenResourceError):
        while await wire.read(1 << 16):
            pass


async def assert_alive(mesh: Libp2pMesh) -> None:
    """An honest peer gets in and is heard."""
    honest = mesh_of("honest", *mesh.addresses())
    async with honest.running():
        await until(honest, PeerUp)
        honest.send(mesh.peer_id, b"alive?")
        event = await until(mesh, Received, lambda event: event.peer == honest.peer_id)
        assert event.payload == b"alive?"
    await until(mesh, PeerDown, lambda event: event.peer == honest.peer_id)


# --- before the handshake ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "knock",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\xff" * 4096,
        b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(100),  # a length of 2^62
        b"\x13/multistream/1.0.0\n" + b"\xff\xff\xff\xff\x0f",
        b"\x13/multistream/1.0.0\n\x07/noise\n" + os.urandom(500),
        b"",
    ],
    ids=["http", "ones", "huge length", "huge protocol", "noise garbage", "nothing"],
)
async def test_garbage_on_the_port(victim: Libp2pMesh, knock: bytes) -> None:
    for _ in range(3):
        client = await trio.open_tcp_stream("127.0.0.1", port_of(victim))
        await client.send_all(knock)
        await client.aclose()
    held = [await trio.open_tcp_stream("127.0.0.1", port_of(victim)) for _ in range(20)]
    for client in held:
        await client.send_all(knock)
    await assert_alive(victim)
    for client in held:
        await client.aclose()


class LyingKey:
    """All that an attacker needs of a private key, where plaintext is spoken: the public one."""

    def __init__(self, public: Any) -> None:
        self.public = public

    def get_public_key(self) -> Any:
        return self.public


async def test_nobody_can_claim_a_friends_id_in_plaintext(victim: Libp2pMesh) -> None:
    friend = build_network(key_seed("friend"))
    public = friend.peerstore.pubkey(friend.get_peer_id())
    network = build_network(key_seed("attacker"))
    insecure = plaintext.InsecureTransport(KeyPair(LyingKey(public), public))
    muxers = network.upgrader.muxer_multistream
    network.upgrader = TransportUpgrader({plaintext.PLAINTEXT_PROTOCOL_ID: insecure}, {})
    network.upgrader.muxer_multistream = muxers
    async with attacker(network):
        with pytest.raises(Exception, match="failed to negotiate the secure protocol"):
            await connect(network, victim)
    await assert_alive(victim)


async def test_a_silent_listener_costs_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.mesh.host.DIAL_LIMIT_S", 0.1)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    accepted = trio.Event()

    async def hold(stream: trio.SocketStream) -> None:
        accepted.set()
        await trio.sleep_forever()

    address = f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer_text(mesh_of('silent').peer_id)}"
    mesh = mesh_of("mesh", address)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, hold, [listener])
        async with mesh.running():
            with trio.fail_after(LIMIT_S):
                await accepted.wait()
                # The dial holds one of the tokens until it gives up.
                await eventually(lambda: mesh._paths._dials.borrowed_tokens == 0)
            await assert_alive(mesh)
        nursery.cancel_scope.cancel()


async def test_inbound_slots_are_freed(victim: Libp2pMesh) -> None:
    async with attacker() as network:
        for _ in range(12):
            connection = await connect(network, victim)
            await connection.muxed_conn.secured_conn.close()
            await eventually(lambda: not victim._network._knocks)
    await assert_alive(victim)


async def test_260_connections_one_after_another(victim: Libp2pMesh) -> None:
    async with attacker() as network:
        for _ in range(260):
            connection = await connect(network, victim)
            await connection.muxed_conn.secured_conn.close()
    await assert_alive(victim)


async def test_a_connection_without_a_link_is_closed(
    victim: Libp2pMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harden, "IDLE_LIMIT_S", 0.05)
    async with attacker() as network:
        connection = await connect(network, victim)
        with trio.fail_after(LIMIT_S):
            await connection.muxed_conn.event_closed.wait()
    await assert_alive(victim)


async def test_a_key_that_is_not_ed25519_is_refused(
    victim: Libp2pMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(harden, "create_new_key_pair", lambda seed: create_new_secp256k1())
        network = build_network(bytes(32))
    async with attacker(network):
        wire = await open_wire(await connect(network, victim))
        refused = await until(victim, Refused)
        assert refused.code == "malformed-id"
        assert refused.peer is None
        assert await first_frame(wire) == Goodbye(
            "malformed-id", f"Peer {network.get_peer_id()} has no Ed25519 key."
        )
        await assert_cut(wire)
    await assert_alive(victim)


# --- on the stream ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\xff" * 64, "too-large"),
        ((limits.HELLO_BYTES + 1).to_bytes(4, "big"), "too-large"),
        (encode_frame(b""), "decode"),
        (encode_frame(os.urandom(200)), "decode"),
        (encode_frame(b"\x92\xa5hello\x01"), "decode"),
        (encode_frame(b"\xdd\xff\xff\xff\xff"), "decode"),
        (greeting(Hello(OLDEST, PROTOCOL, "other", "evil", bytes(16))), "wrong-swarm"),
        (
            greeting(Hello(PROTOCOL + 1, PROTOCOL + 2, "test", "evil", bytes(16))),
            "version-mismatch",
        ),
        (encode_frame(b"\x94\xa5hello\xcd\x01\x00\xcd\x02\x00\xc0"), "version-mismatch"),
    ],
    ids=[
        "garbage",
        "oversize",
        "empty",
        "random",
        "short",
        "huge array",
        "swarm",
        "version",
        "a future greeting",
    ],
)
async def test_a_bad_greeting_is_refused_with_a_reason(
    victim: Libp2pMesh, sent: bytes, code: str
) -> None:
    async with attacker() as network:
        wire = await open_wire(await connect(network, victim))
        await wire.write(sent)
        refused = await until(victim, Refused)
        assert refused.code == code
        assert refused.peer == parse_peer(str(network.get_peer_id()))
        answer = await first_frame(wire)
        if isinstance(answer, Hello):  # the side with the larger key speaks before it listens
            answer = await first_frame(wire)
        assert isinstance(answer, Goodbye)
        assert answer.code == code
        assert answer.reason == refused.reason
        await assert_cut(wire)
    assert len(victim.links()) == 1
    await assert_alive(victim)


async def test_a_greeting_that_never_comes_is_not_awaited(
    victim: Libp2pMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.mesh.table.GREETING_LIMIT_S", 0.05)
    async with attacker() as network:
        wire = await open_wire(await connect(network, victim))
        await wire.write(b"\x00\x00")
        assert (await until(victim, Refused)).code == "timeout"
        await assert_cut(wire)
    await assert_alive(victim)


async def test_a_flood_of_greetings(victim: Libp2pMesh) -> None:
    async with attacker(name=names(victim)["larger"]) as network:
        wire = await greeted(network, victim)
        for _ in range(1000):
            await wire.write(greeting(HELLO))
        # Behind the first they are payloads, of which the consumer makes what it wants.
        for _ in range(1000):
            assert (await until(victim, Received)).payload == greeting(HELLO)[4:]
        for _ in range(20):
            second = await open_wire(network.get_connections()[0])
            await second.write(greeting(HELLO))
            answer = await first_frame(second)
            assert isinstance(answer, Goodbye)
            assert answer.code == "duplicate"
            await second.reset()
        await wire.write(encode_frame(b"the first still stands"))
        assert (await until(victim, Received)).payload == b"the first still stands"
        await assert_alive(victim)


@pytest.mark.parametrize(
    "sent", [b"\xff" * 64, (limits.FRAME_BYTES + 1).to_bytes(4, "big")], ids=["garbage", "oversize"]
)
async def test_a_bad_frame_ends_the_link(victim: Libp2pMesh, sent: bytes) -> None:
    async with attacker() as network:
        wire = await greeted(network, victim)
        await wire.write(encode_frame(b"good") + encode_frame(b"good"))
        for _ in range(2):
            assert (await until(victim, Received)).payload == b"good"
        await wire.write(sent)
        assert "declares" in (await until(victim, PeerDown)).reason
        assert (await until(victim, Refused)).code == "too-large"
        await assert_cut(wire)
    await assert_alive(victim)


async def test_a_peer_that_ignores_its_window_is_cut_off(victim: Libp2pMesh) -> None:
    async with attacker() as network:
        wire = await greeted(network, victim)
        stream = wire._stream.muxed_stream
        with contextlib.suppress(trio.BrokenResourceError):
            for _ in range(200):
                stream.send_window = 1 << 30
                await wire.write(encode_frame(bytes(100_000)))
        down = await until(victim, PeerDown)
        assert down.peer == parse_peer(str(network.get_peer_id()))
    await assert_alive(victim)


async def test_too_many_streams_end_the_connection(
    victim: Libp2pMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harden, "IDLE_LIMIT_S", 3600)
    async with attacker() as network:
        connection = await connect(network, victim)
        with trio.fail_after(LIMIT_S), contextlib.suppress(Exception):
            for _ in range(10 * muxer.STREAMS_PER_CONNECTION):
                await connection.muxed_conn.open_stream()
        with trio.fail_after(LIMIT_S):
            await connection.muxed_conn.event_closed.wait()
    await assert_alive(victim)


async def test_the_number_of_links_is_bounded(
    victim: Libp2pMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PEERS", 2)
    async with attacker() as network, attacker(name="another") as another:
        await greeted(network, victim)
        await greeted(another, victim)
        late = mesh_of("late", *victim.addresses())
        async with late.running():
            assert (await until(late, Refused)).code == "crowded"
            assert (await until(victim, Refused)).code == "crowded"


def names(mesh: Libp2pMesh) -> dict[str, str]:
    """Of an attacker with a smaller, and of one with a larger key than ``mesh`` has."""
    found: dict[str, str] = {}
    for number in range(100):
        name = f"attacker {number}"
        found["larger" if mesh.peer_id < mesh_of(name).peer_id else "smaller"] = name
    return found


@pytest.mark.parametrize("key", ["smaller", "larger"])
async def test_a_restarted_peer_replaces_its_old_connection(victim: Libp2pMesh, key: str) -> None:
    """Its old process died without a word, as when a machine loses power."""
    async with attacker(name=names(victim)[key]) as network:
        old = await greeted(network, victim)
        again = await open_wire(await connect(network, victim))
        await again.write(greeting(Hello(OLDEST, PROTOCOL, "test", "evil", b"another session!")))
        assert "anew" in (await until(victim, PeerDown)).reason
        await until(victim, PeerUp)
        await again.write(encode_frame(b"back"))
        assert (await until(victim, Received)).payload == b"back"
        await assert_cut(old)


async def test_a_second_connection_is_refused_by_the_smaller_key(victim: Libp2pMesh) -> None:
    async with attacker(name=names(victim)["larger"]) as network:
        wire = await greeted(network, victim)
        second = await open_wire(await connect(network, victim))
        await second.write(greeting(HELLO))
        answer = await first_frame(second)
        assert isinstance(answer, Goodbye)
        assert answer.code == "duplicate"
        await assert_cut(second)
        await wire.write(encode_frame(b"the first still stands"))
        assert (await until(victim, Received)).payload == b"the first still stands"


# --- faults of our own --------------------------------------------------------------------------


async def test_a_raising_handler_hurts_nobody_else(
    victim: Libp2pMesh, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bystander = mesh_of("bystander", *victim.addresses())
    async with attacker() as network, bystander.running():
        await until(victim, PeerUp)
        with monkeypatch.context() as patch:

            async def fail(wire: Any, address: str) -> bool:
                raise ValueError("a bug")

            patch.setattr(victim._table, "serve", fail)
            with contextlib.suppress(MultiselectClientError):
                await assert_cut(await open_wire(await connect(network, victim)))
        assert "a bug" in caplog.text
        bystander.send(victim.peer_id, b"did anything happen?")
        assert isinstance(await victim.next_event(), Received)
    assert "rebuilt" not in caplog.text


async def test_a_host_that_fails_is_built_anew(
    victim: Libp2pMesh, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("node.mesh.host.REBUILD_DELAY_S", 0.01)
    address = victim.addresses()
    other = mesh_of("other", *address)
    async with other.running():
        await until(victim, PeerUp)
        await until(other, PeerUp)
        failed = victim._network
        failed.manager.cancel()
        # Until the host is taken down its listener may let somebody in once more.
        await eventually(lambda: victim._network is not failed)
        await eventually(lambda: len(victim.links()) == 1)
        await eventually(lambda: len(victim.links()) == 2)
        assert victim.addresses() == address
        victim.send(other.peer_id, b"here again")
        assert (await until(other, Received)).payload == b"here again"
    assert "rebuilt" in caplog.text


async def test_a_link_dropped_under_load_comes_back_whole(victim: Libp2pMesh) -> None:
    """Ending a link cancels its writer in the middle of a payload."""
    other = mesh_of("other", *victim.addresses())
    async with other.running():
        for _ in range(3):
            await until(victim, PeerUp)
            await until(other, PeerUp)
            for _ in range(6):
                other.send(victim.peer_id, os.urandom(limits.FRAME_BYTES))
            await until(victim, Received)
            other.disconnect(victim.peer_id, "on purpose")
            await until(other, PeerDown)
        await until(victim, PeerUp)
        await until(other, PeerUp)
        other.send(victim.peer_id, b"whole")
        await until(victim, Received, lambda event: event.payload == b"whole")
