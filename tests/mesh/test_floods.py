"""An outsider without the key, and floods: refused and counted, and nobody else notices."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from node.mesh import calls, circuit, identify, punch
from node.mesh.address import Address
from node.mesh.base import PeerDown, PeerUp, Received
from node.mesh.carrier import Libp2pWire, carrier_of
from node.mesh.greet import PROTOCOL_ID
from node.mesh.host import Libp2pMesh
from node.mesh.peering import Settings
from protocol import limits
from protocol.ids import peer_text
from tests.mesh.test_attacks import assert_alive, attacker, connect, mesh_of, port_of
from tests.mesh.worlds import LIMIT_S, eventually, key_seed, until

SWARM_KEY = bytes(range(32))
SPOKEN = (
    PROTOCOL_ID,
    calls.PROTOCOL_ID,
    identify.PROTOCOL_ID,
    identify.PING_ID,
    circuit.HOP_ID,
    circuit.STOP_ID,
    punch.PROTOCOL_ID,
)


@pytest.fixture
async def victim() -> AsyncIterator[Libp2pMesh]:
    mesh = mesh_of("victim")
    async with mesh.running():
        yield mesh


def private(name: str, key: bytes | None, *bootstraps: str) -> Libp2pMesh:
    settings = Settings(
        ("/ip4/127.0.0.1/tcp/0",), bootstraps, "test", f"test/{name}", swarm_key=key
    )
    return Libp2pMesh(key_seed(name), settings)


# --- private swarms -----------------------------------------------------------------------------


async def test_who_has_the_key_gets_in() -> None:
    hub = private("hub", SWARM_KEY)
    async with hub.running():
        member = private("member", SWARM_KEY, *hub.addresses())
        async with member.running():
            await until(hub, PeerUp)
            member.send(hub.peer_id, bytes(300_000))
            assert (await until(hub, Received)).payload == bytes(300_000)
            assert hub.report().private


@pytest.mark.parametrize("key", [None, bytes(32)], ids=["no key", "another key"])
async def test_who_has_it_not_cannot_even_connect(
    key: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.mesh.host.DIAL_LIMIT_S", 0.5)
    hub = private("hub", SWARM_KEY)
    async with hub.running():
        outsider = private("outsider", key, *hub.addresses())
        async with outsider.running():
            await eventually(lambda: hub.report().refused.get("handshake", 0) >= 1)
            await eventually(lambda: outsider.report().dialled[0].failures >= 1)
        member = private("member", SWARM_KEY, *hub.addresses())
        async with member.running():
            await until(hub, PeerUp)
            assert [link.agent for link in hub.links() if link.path != "self"] == ["test/member"]


async def test_nothing_of_the_swarm_leaks_to_an_outsider() -> None:
    """What comes back before the connection is closed names neither the swarm nor the node."""
    hub = private("hub", SWARM_KEY)
    async with hub.running():
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(hub))
        await stream.send_all(b"\x13/multistream/1.0.0\n\x07/noise\n" + bytes(200))
        heard = b""
        with trio.fail_after(LIMIT_S), contextlib.suppress(trio.BrokenResourceError):
            while data := await stream.receive_some():
                heard += data
        await stream.aclose()
        for secret in (b"multistream", b"noise", b"test", hub.peer_id, SWARM_KEY):
            assert secret not in heard


# --- floods -------------------------------------------------------------------------------------


async def test_a_thousand_connections(victim: Libp2pMesh) -> None:
    """Most are turned away at once; who is linked, and who comes from elsewhere, is not."""
    friend = mesh_of("friend", *victim.addresses())
    async with friend.running():
        await until(victim, PeerUp)
        held = [await trio.open_tcp_stream("127.0.0.1", port_of(victim)) for _ in range(1000)]
        await eventually(lambda: victim.report().refused.get("crowded", 0) >= 800)
        knocking = victim._network._knocks.total()
        assert knocking <= limits.KNOCKS // 2
        friend.send(victim.peer_id, b"still here?")
        assert (await until(victim, Received)).payload == b"still here?"
        for stream in held:
            await stream.aclose()
        await eventually(lambda: not victim._network._knocks)
    await until(victim, PeerDown)
    await assert_alive(victim)


async def test_one_prefix_cannot_take_every_place(
    victim: Libp2pMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.mesh.harden.LOOPBACK", "not this one")
    monkeypatch.setattr("node.mesh.harden.prefix_of", lambda remote: "one operator's")
    held = [await trio.open_tcp_stream("127.0.0.1", port_of(victim)) for _ in range(100)]
    await eventually(
        lambda: victim.report().refused.get("crowded", 0) == 100 - limits.KNOCKS_PER_PREFIX
    )
    monkeypatch.setattr("node.mesh.harden.prefix_of", lambda remote: "somebody else's")
    await assert_alive(victim)
    for stream in held:
        await stream.aclose()


async def test_ten_thousand_streams(victim: Libp2pMesh) -> None:
    """Each connection may have some; a peer that opens more loses its connection."""
    friend = mesh_of("friend", *victim.addresses())
    async with friend.running():
        await until(victim, PeerUp)
        opened = 0
        async with attacker() as network:
            while opened < 10_000:
                connection = await connect(network, victim)
                with contextlib.suppress(Exception):
                    while not connection.muxed_conn.event_closed.is_set():
                        await connection.muxed_conn.open_stream()
                        opened += 1
                with trio.fail_after(LIMIT_S):
                    await connection.muxed_conn.event_closed.wait()
        friend.send(victim.peer_id, b"still here?")
        assert (await until(victim, Received)).payload == b"still here?"


@pytest.mark.parametrize("protocol", SPOKEN)
async def test_garbage_on_every_protocol(
    victim: Libp2pMesh, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    monkeypatch.setattr("node.mesh.identify.PING_EVERY_S", 0.0)
    rng = random.Random(protocol)
    friend = mesh_of("friend", *victim.addresses())
    async with friend.running():
        await until(victim, PeerUp)
        async with attacker() as network:
            for size in (0, 1, 4, 31, 32, 33, 300, 5000, 70_000):
                wire = await _open(await connect(network, victim), protocol)
                if wire is None:
                    continue
                with contextlib.suppress(trio.BrokenResourceError):
                    await wire.write(rng.randbytes(size))
                    await wire.end_writing()
                    with trio.move_on_after(0.3):
                        while await wire.read(1 << 16):
                            pass
                await wire.carrier.close()
        friend.send(victim.peer_id, b"still here?")
        event = await until(victim, Received)
        assert (event.peer, event.payload) == (friend.peer_id, b"still here?")


@pytest.mark.parametrize("protocol", [PROTOCOL_ID, circuit.HOP_ID])
async def test_a_byte_now_and_then_is_not_waited_for(
    victim: Libp2pMesh, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """Slow loris: it neither ends nor says enough."""
    for limit in ("table.GREETING_LIMIT_S", "relay.HANDSHAKE_LIMIT_S"):
        monkeypatch.setattr(f"node.mesh.{limit}", 0.3)
    async with attacker() as network:
        wire = await _open(await connect(network, victim), protocol)
        assert wire is not None
        with trio.fail_after(LIMIT_S), contextlib.suppress(trio.BrokenResourceError):
            while True:
                await wire.write(b"\x00")
                await trio.sleep(0.05)
    await assert_alive(victim)


async def test_a_stream_for_calls_without_a_link_is_cut(victim: Libp2pMesh) -> None:
    async with attacker() as network:
        wire = await _open(await connect(network, victim), calls.PROTOCOL_ID)
        # It may be cut before it is even agreed what is spoken there.
        with trio.fail_after(LIMIT_S), contextlib.suppress(trio.BrokenResourceError):
            assert wire is None or await wire.read(100) == b""
    assert not victim.report().calls


async def test_a_protocol_that_is_not_spoken_is_counted(victim: Libp2pMesh) -> None:
    async with attacker() as network:
        for protocol in ("/meshsub/1.1.0", "/ipfs/kad/1.0.0", "/x"):
            assert await _open(await connect(network, victim), protocol) is None
        await eventually(lambda: victim.report().refused.get("protocol", 0) == 3)
    await assert_alive(victim)


async def _open(connection: Any, protocol: str) -> Libp2pWire | None:
    with trio.fail_after(LIMIT_S):
        try:
            return await carrier_of(connection).open(protocol)
        except trio.BrokenResourceError:
            return None


# --- one network only ---------------------------------------------------------------------------


async def test_nothing_outside_is_dialled_or_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(("/ip4/127.0.0.1/tcp/0",), swarm="test", agent="test/lan", lan_only=True)
    mesh = Libp2pMesh(key_seed("lan"), settings)
    dialled: list[str] = []

    async def note(*args: Any) -> Any:
        dialled.append(str(args[0]))
        raise OSError("not here")

    monkeypatch.setattr("node.mesh.sockets.dial", note)
    async with mesh.running():
        friend = peer_text(mesh_of("friend").peer_id)
        mesh.dial(f"/ip4/203.0.113.9/tcp/4747/p2p/{friend}")
        mesh.dial(f"/dns4/example.org/tcp/4747/p2p/{friend}")
        mesh.dial(f"/ip4/127.0.0.1/tcp/4747/p2p/{friend}")
        await eventually(lambda: mesh.report().dialled[0].failures >= 1)
        assert dialled == [f"/ip4/127.0.0.1/tcp/4747/p2p/{friend}"]
        assert "--lan" in mesh.report().dialled[0].error

        monkeypatch.undo()
        await assert_alive(mesh)
        monkeypatch.setattr("node.mesh.standing.Standing.is_of_site", lambda self, address: False)
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(mesh))
        with trio.fail_after(LIMIT_S), contextlib.suppress(trio.BrokenResourceError):
            assert await stream.receive_some() == b""
        await stream.aclose()
        assert mesh.report().refused["outside"] == 1


async def test_a_connection_that_is_reset_at_once_hurts_nobody(victim: Libp2pMesh) -> None:
    """It takes no key, not even that of a private swarm."""
    friend = mesh_of("friend", *victim.addresses())
    async with friend.running():
        await until(victim, PeerUp)
        network = victim._network
        for _ in range(50):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.connect(("127.0.0.1", port_of(victim)))
            sock.close()
        await eventually(lambda: victim.report().refused.get("handshake", 0) >= 50)
        assert victim._network is network
        friend.send(victim.peer_id, b"still here?")
        assert (await until(victim, Received)).payload == b"still here?"


async def test_a_hole_is_not_dialled_outside_with_lan_only() -> None:
    settings = Settings(("/ip4/127.0.0.1/tcp/0",), swarm="test", agent="test/lan", lan_only=True)
    mesh = Libp2pMesh(key_seed("lan"), settings)
    async with mesh.running():
        for host in ("8.8.8.8", "10.200.1.1", "100.64.3.3"):
            with pytest.raises(OSError, match="--lan"):
                await mesh._punch_connect(Address("ip4", host, 443))
