"""Nodes of links and calls alone, on carriers that the test lays, moves and cuts itself."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import trio

from node.mesh import calls, greet
from node.mesh.address import Address
from node.mesh.base import Link, MeshEvent, PathChanged, PeerDown, PeerUp, Received, Refused
from node.mesh.calls import Calls
from node.mesh.inbox import Inbox
from node.mesh.link import LiveLink
from node.mesh.table import LinkTable
from node.mesh.wire import Carrier, Wire
from protocol.envelope import KeySigner
from protocol.frames import Hello
from protocol.ids import PeerId
from protocol.version import OLDEST, PROTOCOL
from tests.fakes.mesh import FakeCarrier, FakeNetwork
from tests.mesh.worlds import key_seed

RELAY = KeySigner(key_seed("relay")).peer
HOST = Address("ip4", "192.0.2.1", 4001)


class Lines(FakeNetwork):
    """A line for one connection: every chunk has a latency of its own, up to ``latency_s``, and
    none overtakes another, on whatever stream."""

    def __init__(self, seed: int, latency_s: float) -> None:
        super().__init__(seed, latency_s)
        self._draws = random.Random(seed)
        self._due: dict[PeerId, float] = {}

    def latency(self, sender: PeerId, receiver: PeerId) -> float:
        now = trio.current_time()
        drawn = now + self._draws.uniform(0.0, self._latency_s)
        self._due[sender] = max(drawn, self._due.get(sender, 0.0) + 1e-6)
        return self._due[sender] - now


class Node:
    """A table of links and the calls over them; its events are kept in order."""

    def __init__(self, name: str, tasks: trio.Nursery) -> None:
        self.name = name
        self.peer_id = KeySigner(key_seed(name)).peer
        self.session = key_seed(f"session of {name}")[:16]
        self.inbox = Inbox()
        self.greeted: list[tuple[PeerId, Carrier, Hello]] = []
        self.linked: list[LiveLink] = []
        self.table = LinkTable(
            self.peer_id,
            self._hello,
            self.inbox,
            lambda *greeting: self.greeted.append(greeting),
            self._linked,
        )
        self.calls = Calls(self._carrier, self.table.is_linked)
        self.events: list[MeshEvent] = []
        self.reading = trio.Event()
        self.reading.set()
        self._tasks = tasks
        tasks.start_soon(self.calls.run)
        tasks.start_soon(self._listen)

    def bound(self) -> tuple[Address, ...]:
        return (HOST,)

    def accept(self, protocol: str, wire: Wire) -> None:
        """As a mesh does it; see :class:`tests.fakes.mesh.FakeCarrier`."""
        if protocol == greet.PROTOCOL_ID:
            self._tasks.start_soon(self.table.serve, wire, str(wire.carrier.address))
            return
        assert protocol == calls.PROTOCOL_ID
        self._tasks.start_soon(self._called, wire)

    async def _called(self, wire: Wire) -> None:
        peer = self.table.peer_on(wire.carrier)
        if peer is None:
            await wire.reset()
        else:
            await self.calls.serve(wire, peer)

    async def connect(self, carrier: Carrier) -> bool:
        """Make a link, or have one move; returns after its end whether there was one."""
        return await self.table.serve(await carrier.open(greet.PROTOCOL_ID), str(carrier.address))

    def start(self, work: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        self._tasks.start_soon(work, *arguments)

    def send(self, other: Node, payload: bytes) -> None:
        self.table.get(other.peer_id).send(payload)

    def link(self, other: Node) -> Link | None:
        return next((one for one in self.table.links() if one.peer == other.peer_id), None)

    def live(self, other: Node) -> LiveLink:
        return self.table.get(other.peer_id)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def payloads(self) -> list[bytes]:
        return [event.payload for event in self.of(Received)]

    def _hello(self, carrier: Carrier) -> Hello:
        return Hello(OLDEST, PROTOCOL, "test", f"test/{self.name}", self.session, "")

    def _linked(self, live: LiveLink) -> None:
        self.linked.append(live)
        self._tasks.start_soon(self.calls.follow, live)

    def _carrier(self, peer: PeerId) -> Carrier:
        return self.table.get(peer).wire.carrier

    async def _listen(self) -> None:
        while True:
            await self.reading.wait()
            self.events.append(await self.inbox.get())


def lay(network: FakeNetwork, one: Node, other: Node, relayed: bool = False) -> FakeCarrier:
    """The end of ``one``, who has dialled, of a fresh connection to ``other``."""
    at = Address(HOST.kind, HOST.host, HOST.port, None, RELAY if relayed else None)
    return network.join(one, other, at, at, False)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def two() -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes that do not know of each other, the one with the smaller id first."""
    async with trio.open_nursery() as tasks:
        first, second = sorted(
            (Node(name, tasks) for name in ("one", "other")), key=lambda node: node.peer_id
        )
        try:
            yield first, second
        finally:
            tasks.cancel_scope.cancel()


async def until_linked(one: Node, other: Node, path: str) -> None:
    with trio.fail_after(60):
        while any(  # noqa: ASYNC110
            (link := here.link(there)) is None or link.path != path
            for here, there in ((one, other), (other, one))
        ):
            await trio.sleep(0.005)


def check_events(node: Node, other: Node) -> None:
    """What every consumer relies on: a link comes up, lives, and goes down, over and over."""
    up = False
    for event in node.events:
        assert not isinstance(event, Refused) or event.peer is not None
        if isinstance(event, PeerUp):
            assert not up
            assert event.link.peer == other.peer_id
            up = True
        elif isinstance(event, PeerDown):
            assert up
            up = False
        elif isinstance(event, PathChanged | Received):
            assert up, event
    assert up == node.table.is_linked(other.peer_id)


def unlinked(*nodes: Node) -> list[str]:
    """Why each link ended."""
    return [event.reason for node in nodes for event in node.of(PeerDown)]
