"""Hosts of libp2p that do nothing by themselves, and streams in memory to attack handlers with."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import trio
import trio.testing

from node.mesh.address import Address
from node.mesh.carrier import Libp2pCarrier
from node.mesh.host import Libp2pMesh
from node.mesh.peering import Settings
from node.mesh.wire import Carrier, Wire
from protocol.envelope import KeySigner
from protocol.ids import PeerId, peer_text
from tests.mesh.worlds import LIMIT_S, key_seed

ECHO = "/test/echo"


class Host(Libp2pMesh):
    """A host with everything below the links, that serves echoes and keeps what is punched."""

    def __init__(self, name: str, ip: str = "127.0.0.1", swarm_key: bytes | None = None) -> None:
        self.up = trio.Event()
        self.arrived: list[Carrier] = []
        self.arrival = trio.Event()
        self.outside: list[Address] = []
        settings = Settings(listen=(f"/ip4/{ip}/tcp/0",), agent=f"test/{name}", swarm_key=swarm_key)
        super().__init__(key_seed(name), settings)

    async def _run(self) -> None:
        self.up.set()
        await trio.sleep_forever()

    async def _say_leave(self) -> None:
        pass

    def serving(self) -> dict[str, Any]:
        return {ECHO: echo}

    def observed_addresses(self) -> tuple[Address, ...]:
        return tuple(self.outside) or super().observed_addresses()

    async def _punched(self, carrier: Carrier) -> None:
        self.arrived.append(carrier)
        self.arrival.set()
        await carrier.wait_closed()

    @property
    def at(self) -> Address:
        """Where it listens."""
        return replace(self.bound()[0], peer=self.peer_id)

    def direct(self, other: Host) -> list[Libp2pCarrier]:
        """The connections to ``other`` without a relay that stand."""
        found = [Libp2pCarrier(one) for one in self._network.get_connections()]
        wanted = peer_text(other.peer_id)
        return [one for one in found if one.peer == wanted and not one.relayed and not one.closed]

    async def to(self, other: Host) -> Carrier:
        """A held connection to ``other``."""
        carrier = await self._dial(other.at, False)
        carrier.hold()
        return carrier

    async def through(self, relay: Host, other: Host) -> Carrier:
        """A held connection to ``other`` by ``relay``."""
        carrier = await self._dial(relay.at.through(other.peer_id), False)
        carrier.hold()
        return carrier


@contextlib.asynccontextmanager
async def running(*hosts: Host) -> AsyncIterator[None]:
    """Run ``hosts`` until the block ends."""
    async with contextlib.AsyncExitStack() as stack:
        for host in hosts:
            await stack.enter_async_context(host.running())
            with trio.fail_after(LIMIT_S):
                await host.up.wait()
        yield


async def echo(wire: Wire) -> None:
    """Send back all that comes."""
    with contextlib.suppress(trio.BrokenResourceError):
        while data := await wire.read(1 << 16):
            await wire.write(data)
    await wire.reset()


async def echoed(carrier: Carrier, data: bytes) -> bytes:
    """What comes back of ``data``."""
    with trio.fail_after(LIMIT_S):
        wire = await carrier.open(ECHO)
        back = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.write, data)
            while len(back) < len(data):
                back += await wire.read(1 << 16)
        await wire.reset()
        return bytes(back)


class MemoryWire:
    """One end of a stream in memory; the test plays the other."""

    def __init__(self, carrier: MemoryCarrier, stream: trio.StapledStream[Any, Any]) -> None:
        self.carrier = carrier
        self.peer = carrier.peer
        self.twin: MemoryWire
        self._stream = stream
        self._cut = False

    async def read(self, most: int) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(most))
        except trio.ClosedResourceError as error:
            raise trio.BrokenResourceError("reset") from error
        if not data and self._cut:
            raise trio.BrokenResourceError("reset by the other side")
        return data

    async def write(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except trio.ClosedResourceError as error:
            raise trio.BrokenResourceError("reset") from error

    async def end_writing(self) -> None:
        try:
            await self._stream.send_eof()
        except trio.ClosedResourceError as error:
            raise trio.BrokenResourceError("reset") from error

    async def reset(self) -> None:
        self.twin._cut = True
        await self._stream.aclose()


class MemoryCarrier:
    """A connection of which the test plays the other end.

    Attributes:
        id: the other end.
        there: its ends of the streams that were opened here, in order.
    """

    def __init__(self, name: str, relayed: bool = False, dialled: bool = False) -> None:
        self.id = peer_of(name)
        self.peer = peer_text(self.id)
        self.relayed = relayed
        self.dialled = dialled
        self.source: Address | None = None
        self.rtt_s: float | None = None
        self.held = 0
        at = Address("ip4", "198.51.100.7", 4001)
        self.address: Address | None = at
        if relayed:
            self.address = Address("ip4", "198.51.100.9", 4001, peer_of("relay")).through(self.id)
        self._opened, self.there = trio.open_memory_channel[MemoryWire](1000)
        self._ended = trio.Event()

    @property
    def closed(self) -> bool:
        return self._ended.is_set()

    def hold(self) -> None:
        self.held += 1

    def release(self) -> None:
        self.held -= 1

    async def wait_closed(self) -> None:
        await self._ended.wait()

    async def close(self) -> None:
        self._ended.set()

    async def open(self, protocol: str) -> MemoryWire:
        if self.closed:
            raise trio.BrokenResourceError("closed")
        here, there = self.stream()
        self._opened.send_nowait(there)
        return here

    def stream(self) -> tuple[MemoryWire, MemoryWire]:
        """A stream: the end here, and the one of the other side."""
        here, there = (MemoryWire(self, end) for end in trio.testing.memory_stream_pair())
        here.twin, there.twin = there, here
        return here, there


def peer_of(name: str) -> PeerId:
    """The peer that a host of that name is."""
    return KeySigner(key_seed(name)).peer


def delimited(message: Any) -> bytes:
    """A protobuf message, short or not, behind its length."""
    body: bytes = message if isinstance(message, bytes) else message.SerializeToString()
    prefix = bytearray()
    size = len(body)
    while size >= 0x80:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(prefix) + bytes([size]) + body


def virtually(test: Callable[[], Awaitable[None]]) -> None:
    """Run ``test`` under virtual time."""
    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))
