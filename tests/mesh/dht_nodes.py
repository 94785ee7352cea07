"""Nodes of the DHT without the rest of a mesh: on pipes in memory, and on real connections."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.tools.anyio_service import background_trio_service
from trio.testing import memory_stream_pair

from node.mesh import sockets
from node.mesh.address import Address, parse_address, parse_dialable, parse_listen
from node.mesh.carrier import Libp2pCarrier, Libp2pWire, carrier_of
from node.mesh.dht import PROTOCOL_ID, Rendezvous
from node.mesh.harden import BufferedTCPStream, build_network, guarded
from protocol.envelope import KeySigner
from protocol.ids import PeerId, peer_text
from protocol.presence import Leave, Presence, Stated, state
from tests.mesh.worlds import key_seed

NOW = 1_800_000_000.0
"""Unix time in seconds, for all of them."""

Handler = Callable[[Any], Awaitable[None]]


def peer_of(name: str) -> PeerId:
    return KeySigner(key_seed(name)).peer


def presence(
    name: str, swarm: str = "test", serial: int = 0, incarnation: int = 1, age: float = 0.0
) -> Stated:
    """What the node of that name has stated of itself, ``age`` seconds ago."""
    address = f"/ip4/127.0.0.1/tcp/4000/p2p/{peer_text(peer_of(name))}"
    said = Presence(swarm, incarnation, serial, int(NOW - age), (address,), False, "unknown")
    return state(KeySigner(key_seed(name)), said)


def leave(name: str, swarm: str = "test", incarnation: int = 1) -> Stated:
    return state(KeySigner(key_seed(name)), Leave(swarm, incarnation, int(NOW)))


class Node:
    """A node that dials others by a way of its own.

    Attributes:
        handle: serves inbound streams; a liar has another one than its ``rendezvous``.
        asked: how many nodes it has asked, in all its searches together.
        now: its clock.
    """

    def __init__(self, name: str, serves: bool = True) -> None:
        self.name = name
        self.peer = peer_of(name)
        self.serves = serves
        self.addresses: tuple[str, ...] = ()
        self.now = NOW
        self.rendezvous = Rendezvous(self.peer, self._dial, self.served_at, lambda: self.now)
        self.handle: Handler = self.rendezvous.serve
        self.asked = 0

    def served_at(self) -> tuple[str, ...]:
        return self.addresses if self.serves else ()

    async def _dial(self, peer: PeerId, addresses: Sequence[str]) -> Any:
        self.asked += 1
        return await self.dial(peer, addresses)

    async def dial(self, peer: PeerId, addresses: Sequence[str]) -> Any:
        raise NotImplementedError


class MemoryWire:
    """One end of a stream in memory."""

    def __init__(self, stream: Any, carrier: MemoryCarrier) -> None:
        self.peer = peer_text(carrier.remote)
        self.carrier = carrier
        self._stream = stream
        self.was_reset = False

    async def read(self, most: int) -> bytes:
        try:
            data: bytes = await self._stream.receive_some(most)
        except trio.ClosedResourceError as error:
            raise trio.BrokenResourceError from error
        return data

    async def write(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except trio.ClosedResourceError as error:
            raise trio.BrokenResourceError from error

    async def end_writing(self) -> None:
        await self._stream.send_eof()

    async def reset(self) -> None:
        self.was_reset = True
        await self._stream.aclose()


class MemoryCarrier:
    """A connection in memory, to ``remote`` at ``address``."""

    def __init__(self, remote: PeerId, address: Address, open_at: Callable[[Any], None]) -> None:
        self.remote = remote
        self.address = address
        self.held = 0
        self.dialled = True
        self.closed = False
        self._open_at = open_at

    def hold(self) -> None:
        self.held += 1

    def release(self) -> None:
        self.held -= 1

    async def close(self) -> None:
        self.closed = True

    async def open(self, protocol: str) -> MemoryWire:
        assert protocol == PROTOCOL_ID
        if self.closed:
            raise trio.BrokenResourceError("closed")
        ours, theirs = memory_stream_pair()
        self._open_at(theirs)
        return MemoryWire(ours, self)


def wire_from(name: str, address: str = "/ip4/127.0.0.1/tcp/1") -> tuple[MemoryWire, MemoryWire]:
    """The two ends of a stream that the node of that name has opened: its own, and the other."""

    here, there = memory_stream_pair()
    carrier = MemoryCarrier(peer_of(name), parse_address(address), lambda stream: None)
    return MemoryWire(here, carrier), MemoryWire(there, carrier)


class MemoryNetwork:
    """Nodes that reach each other at once, by addresses of one LAN.

    Attributes:
        carriers: all that were made.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.nodes: dict[str, MemoryNode] = {}
        self.carriers: list[MemoryCarrier] = []

    def node(self, name: str, serves: bool = True) -> MemoryNode:
        node = MemoryNode(self, name, serves)
        node.addresses = (f"/ip4/10.0.0.1/tcp/{1000 + len(self.nodes)}/p2p/{peer_text(node.peer)}",)
        self.nodes[node.addresses[0]] = node
        return node

    def connect(self, dialler: MemoryNode, text: str) -> MemoryCarrier:
        target = self.nodes.get(text)
        if target is None or target.dead:
            raise OSError("nobody there")
        theirs = MemoryCarrier(dialler.peer, parse_dialable(dialler.addresses[0]), lambda _: None)

        def open_at(stream: Any) -> None:
            self._nursery.start_soon(target.handle, MemoryWire(stream, theirs))

        self.carriers.append(MemoryCarrier(target.peer, parse_dialable(text), open_at))
        return self.carriers[-1]


class MemoryNode(Node):
    """On a :class:`MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork, name: str, serves: bool = True) -> None:
        super().__init__(name, serves)
        self.network = network
        self.dead = False

    async def dial(self, peer: PeerId, addresses: Sequence[str]) -> MemoryCarrier:
        await trio.lowlevel.checkpoint()
        return self.network.connect(self, addresses[0])

    def kill(self) -> None:
        self.dead = True


class RealNode(Node):
    """On a libp2p network of its own that listens on loopback."""

    def __init__(self, name: str, serves: bool = True) -> None:
        super().__init__(name, serves)
        self._network = build_network(key_seed(name))
        self._scope = trio.CancelScope()

    async def dial(self, peer: PeerId, addresses: Sequence[str]) -> Libp2pCarrier:
        """A connection that stands, or a new one."""
        wanted = ID.from_base58(peer_text(peer))
        for one in self._network.get_connections(wanted):
            if not one.muxed_conn.event_closed.is_set():
                return carrier_of(one)
        stream = await sockets.dial(parse_dialable(addresses[0]))
        try:
            raw = RawConnection(BufferedTCPStream(stream), True)
            carrier = carrier_of(await self._network.upgrade_outbound_raw_conn(raw, wanted))
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        carrier.hold()  # as a link would
        return carrier

    async def _accept(self, stream: Any) -> None:
        wire = Libp2pWire(stream)
        try:
            await Multiselect({PROTOCOL_ID: None}).negotiate(MultiselectCommunicator(stream), 8)
        except Exception:
            # The other one is being killed.
            await wire.reset()
        else:
            await self.handle(wire)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until :meth:`kill`."""
        with self._scope:
            listener = await sockets.listen(parse_listen("/ip4/127.0.0.1/tcp/0"))
            port = listener.socket.getsockname()[1]
            self.addresses = (f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer_text(self.peer)}",)
            self._network.set_stream_handler(guarded(self._accept))
            async with background_trio_service(self._network):
                await self._network.event_background_nursery_created.wait()
                try:
                    task_status.started()
                    await trio.serve_listeners(self._network.accept, [listener])
                finally:
                    with trio.CancelScope(shield=True):
                        for connection in self._network.get_connections():
                            await connection.muxed_conn.secured_conn.close()

    def kill(self) -> None:
        """At once, without a word."""
        self._scope.cancel()
