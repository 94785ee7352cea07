"""Echo over raw TCP and over the mesh, for ``scripts/bench mesh``.

``raw|mesh|call server PORT`` and ``… client ADDRESS``, or ``mesh relay PORT``, ``mesh server`` with
the relay's address and ``mesh client ADDRESS``; see :mod:`rivals.orders`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable

import trio
from rivals.orders import BULK_AT_ONCE, BULK_BYTES, Slice, ready, until_told_to_end

from node.mesh.base import PeerUp, Received
from node.mesh.host import Libp2pMesh
from node.mesh.peering import Settings
from protocol import limits
from protocol.frames import FrameDecoder, encode_frame
from protocol.ids import PeerId, parse_peer, peer_text

READ_BYTES = 1 << 20
LIMIT_S = 30.0

Exchange = Callable[[bytes], Awaitable[bytes]]


async def carry_out(echo: Exchange, upload: Exchange | None) -> None:
    """Carry out orders until there are no more."""
    while line := await trio.to_thread.run_sync(sys.stdin.readline):
        one = Slice(line)
        await echo(one.payload)
        one.begin()
        async with trio.open_nursery() as nursery:
            if one.beside_bulk:
                assert upload is not None
                for _ in range(BULK_AT_ONCE):
                    nursery.start_soon(upload_on, upload, one)
            while one.going:
                one.sent()
                one.returned(await echo(one.payload))
            one.report()


async def upload_on(upload: Exchange, one: Slice) -> None:
    """Upload for as long as ``one`` goes on."""
    bulk = os.urandom(BULK_BYTES)
    while one.going:
        await upload(bulk)
        one.uploaded()


# --- raw TCP ------------------------------------------------------------------------------------


async def raw_server(port: str) -> None:
    listeners = await trio.open_tcp_listeners(int(port), host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, raw_echo, listeners)
        ready(f"127.0.0.1:{port}")
        await trio.to_thread.run_sync(until_told_to_end)
        nursery.cancel_scope.cancel()


async def raw_echo(stream: trio.SocketStream) -> None:
    decoder = FrameDecoder()
    async for data in stream:
        for payload in decoder.feed(data):
            await stream.send_all(encode_frame(payload))


async def raw_client(address: str) -> None:
    host, _, port = address.rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    decoder = FrameDecoder()

    async def echo(payload: bytes) -> bytes:
        await stream.send_all(encode_frame(payload))
        while True:
            for reply in decoder.feed(await stream.receive_some(READ_BYTES)):
                return reply

    ready(address)
    await carry_out(echo, None)


# --- the mesh -----------------------------------------------------------------------------------


def mesh(listen: str | None, bootstraps: tuple[str, ...] = ()) -> Libp2pMesh:
    sockets = () if listen is None else (f"/ip4/127.0.0.1/tcp/{listen}",)
    settings = Settings(sockets, bootstraps, "bench", "bench", public=listen is not None)
    return Libp2pMesh(os.urandom(32), settings)


async def until_linked(node: Libp2pMesh, address: str) -> PeerId:
    """Wait for the link to the peer at ``address``."""
    peer = parse_peer(address.rpartition("/")[2])
    while not isinstance(event := await node.next_event(), PeerUp) or event.link.peer != peer:
        pass
    return peer


async def mesh_relay(port: str) -> None:
    """A relay that lets anybody have all there is: else the limit is what would be measured."""
    for name in ("CIRCUIT_BYTES_PER_S", "RELAY_BYTES_PER_S"):
        setattr(limits, name, 1 << 40)
    node = mesh(port)
    async with node.running():
        ready(node.addresses()[0])
        await trio.to_thread.run_sync(until_told_to_end)


async def mesh_server(where: str) -> None:
    """Listen on a port, or be reached through the relay at an address and in no other way."""
    node = mesh(where) if where.isdecimal() else mesh(None, (where,))
    node.answer("echo", echo_call)
    node.answer("sink", sink_call)

    async def echo() -> None:
        while True:
            event = await node.next_event()
            if isinstance(event, Received):
                node.send(event.peer, event.payload)

    async with node.running(), trio.open_nursery() as nursery:
        address = node.addresses()[0] if where.isdecimal() else await reserve(node, where)
        nursery.start_soon(echo)
        ready(address)
        await trio.to_thread.run_sync(until_told_to_end)
        nursery.cancel_scope.cancel()


async def reserve(node: Libp2pMesh, relay: str) -> str:
    """Be reached through ``relay``; where. By itself a node on loopback looks for no relay."""
    peer = await until_linked(node, relay)
    await node._reserve(node._carrier(peer))
    return f"{relay}/p2p-circuit/p2p/{peer_text(node.peer_id)}"


async def echo_call(peer: PeerId, body: bytes) -> bytes:
    return body


async def sink_call(peer: PeerId, body: bytes) -> bytes:
    return b""


async def mesh_client(address: str) -> None:
    await run_mesh_client(address, calls=False)


async def call_client(address: str) -> None:
    await run_mesh_client(address, calls=True)


async def run_mesh_client(address: str, calls: bool) -> None:
    """Exchange messages on the link, or calls beside it; bulk is calls."""
    node = mesh(None, (address,))

    async def send(payload: bytes) -> bytes:
        node.send(peer, payload)
        while True:
            event = await node.next_event()
            if isinstance(event, Received):
                return event.payload

    async def call(payload: bytes) -> bytes:
        return await node.call(peer, "echo", payload, LIMIT_S)

    async def upload(payload: bytes) -> bytes:
        return await node.call(peer, "sink", payload, LIMIT_S)

    async with node.running():
        peer = await until_linked(node, address)
        ready(address)
        await carry_out(call if calls else send, upload)


DRIVERS = {
    ("raw", "server"): raw_server,
    ("raw", "client"): raw_client,
    ("mesh", "relay"): mesh_relay,
    ("mesh", "server"): mesh_server,
    ("mesh", "client"): mesh_client,
    ("call", "server"): mesh_server,
    ("call", "client"): call_client,
}

if __name__ == "__main__":
    what, role, where = sys.argv[1:]
    trio.run(DRIVERS[what, role], where)
