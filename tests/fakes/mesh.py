"""A mesh in memory, for tests under a virtual clock: real links over pipes that can be broken.

Everything above the byte stream (greeting, queues, back-pressure, redialling, who is there, relays
and holes as far as they are decided above the transport) is the node's own code; only sockets,
NATs and cryptography are replaced. Each direction of each pair has its own latency, drawn from the
seed, so that messages sent at one moment arrive in the same order in every run.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

import trio

from node.mesh.address import Address, parse_listen
from node.mesh.peering import Peering, Settings
from node.mesh.report import RelayLoad
from node.mesh.wire import Carrier
from protocol.errors import CallError, ListenError
from protocol.ids import PeerId, peer_text

WINDOW = 1 << 20
STALL_LIMIT_S = 60.0
DIAL_LIMIT_S = 8.0
FIRST_PORT = 20_000
START_S = 1_700_000_000.0
"""Unix time when the virtual clock stands at zero."""

Change = Callable[[bytes], bytes]


class FakeNetwork:
    """The wires between fake meshes, and their faults.

    Args:
        seed: for the latencies and the jitter of redialling.
        latency_s: the mean one-way latency in seconds; a pair has half to one and a half of it.
    """

    def __init__(self, seed: int = 0, latency_s: float = 0.01) -> None:
        self._seed = seed
        self._latency_s = latency_s
        self._spreads: dict[tuple[PeerId, PeerId], float] = {}
        self._delays: dict[frozenset[PeerId], float] = {}
        self._changes: dict[tuple[PeerId, PeerId], Change] = {}
        self._groups: list[frozenset[PeerId]] = []
        self._connections: list[_Connection] = []
        self._listening: dict[tuple[str, int], FakeMesh] = {}
        self._next_port = FIRST_PORT

    def mesh(
        self,
        name: str,
        bootstraps: Sequence[str] = (),
        swarm: str = "test",
        port: int = 0,
        host: str = "127.0.0.1",
        nat: str = "",
        public: bool = False,
    ) -> FakeMesh:
        """A mesh whose key comes from ``name``.

        Args:
            host: its own address; behind a NAT one that is local to its site.
            nat: what is in front of it: nothing, ``firewall``, ``preserving``, ``rewriting`` or
                ``symmetric``; all but nothing let nobody in who was not sent out to.
            public: as in :class:`Settings`.
        """
        seed = hashlib.sha256(name.encode()).digest()
        listen = (f"/ip4/{host}/tcp/{port}",)
        settings = Settings(listen, tuple(bootstraps), swarm, f"fake/{name}", public=public)
        return FakeMesh(self, seed, settings, nat)

    # --- faults ---------------------------------------------------------------------------------

    def drop(self, one: PeerId, other: PeerId) -> None:
        """Cut the connections of a pair; whoever dials the other dials again."""
        for connection in list(self._connections):
            if connection.peers == {one, other}:
                connection.cut()

    def delay(self, one: PeerId, other: PeerId, seconds: float) -> None:
        """Let everything sent between the two from now on take ``seconds`` more."""
        self._delays[frozenset((one, other))] = seconds

    def partition(self, *groups: Sequence[PeerId]) -> None:
        """Cut what joins different groups, and let nothing join them; see :meth:`heal`.

        Peers in no group form one of their own.
        """
        self._groups = [frozenset(group) for group in groups]
        for connection in list(self._connections):
            one, other = connection.peers
            if not self.joined(one, other):
                connection.cut()

    def heal(self) -> None:
        """Undo :meth:`partition`; dials succeed again."""
        self._groups = []

    def corrupt(self, sender: PeerId, receiver: PeerId, change: Change | None) -> None:
        """Pass what ``sender`` sends to ``receiver`` through ``change``; None ends that."""
        if change is None:
            self._changes.pop((sender, receiver), None)
        else:
            self._changes[sender, receiver] = change

    # --- what the meshes use ----------------------------------------------------------------------

    def joined(self, one: PeerId, other: PeerId) -> bool:
        """Whether no partition separates the two."""
        return all((one in group) == (other in group) for group in self._groups)

    def latency(self, sender: PeerId, receiver: PeerId) -> float:
        """Seconds that a byte takes now."""
        spread = self._spreads.get((sender, receiver))
        if spread is None:
            spread = self.rng(sender + receiver).uniform(0.5, 1.5)
            self._spreads[sender, receiver] = spread
        return self._latency_s * spread + self._delays.get(frozenset((sender, receiver)), 0.0)

    def rng(self, purpose: bytes) -> random.Random:
        """A generator of its own for ``purpose``."""
        return random.Random(f"{self._seed}:{purpose.hex()}")

    def changed(self, sender: PeerId, receiver: PeerId, payload: bytes) -> bytes:
        """The payload as :meth:`corrupt` makes it."""
        change = self._changes.get((sender, receiver))
        return payload if change is None else change(payload)

    def listen(self, mesh: FakeMesh, address: Address) -> Address:
        """Give ``mesh`` its port.

        Raises:
            ListenError: it is taken.
        """
        port = address.port
        if port == 0:
            port = self._next_port
            self._next_port += 1
        if (address.host, port) in self._listening:
            raise ListenError(f"{address}: Address already in use.")
        self._listening[address.host, port] = mesh
        return Address(address.kind, address.host, port)

    def unlisten(self, address: Address) -> None:
        """Free the port."""
        self._listening.pop((address.host, address.port), None)

    async def connect(self, dialler: FakeMesh, address: Address, observed: bool) -> FakeCarrier:
        """Connect to who listens at ``address``.

        Args:
            observed: from the listening port.

        Raises:
            OSError: nobody does, or somebody else than the address names.
        """
        target = self._listening.get((address.host, address.port))
        if target is None:
            raise ConnectionRefusedError(f"nobody listens at {address}")
        if address.relay is not None:
            return await self._through(dialler, target, address)
        if target.nat or not self.joined(dialler.peer_id, target.peer_id):
            await trio.sleep_forever()
        there = self.latency(dialler.peer_id, target.peer_id)
        await trio.sleep(there + self.latency(target.peer_id, dialler.peer_id))
        if target.peer_id != address.peer:
            raise ConnectionAbortedError("another peer answers there")
        seen = dialler.outside(address, observed)
        return self.join(dialler, target, seen, address.bare(), observed)

    async def _through(self, dialler: FakeMesh, relay: FakeMesh, address: Address) -> FakeCarrier:
        target = next((one for one in relay.reserved if one.peer_id == address.peer), None)
        if target is None:
            raise ConnectionRefusedError(f"no reservation for {address}")
        if not (
            self.joined(dialler.peer_id, relay.peer_id)
            and self.joined(relay.peer_id, target.peer_id)
        ):
            await trio.sleep_forever()
        await trio.sleep(2 * self.latency(dialler.peer_id, target.peer_id))
        circuit = address.to_relay().through(dialler.peer_id)
        return self.join(dialler, target, circuit, address, False)

    def join(
        self, dialler: FakeMesh, target: FakeMesh, seen: Address, at: Address, observed: bool
    ) -> FakeCarrier:
        """A connection that stands.

        Args:
            seen: where the target sees the dialler.
            at: where the dialler sees the target.
        """
        connection = _Connection(self, dialler, target, seen, at, observed)
        self._connections.append(connection)
        return connection.ends[0]

    def forget(self, connection: _Connection) -> None:
        """A connection has ended."""
        if connection in self._connections:
            self._connections.remove(connection)

    def end_of(self, mesh: FakeMesh) -> None:
        """A mesh stops: its connections end, its reservations are void."""
        for connection in list(self._connections):
            if mesh.peer_id in connection.peers:
                connection.end()
        for other in set(self._listening.values()):
            other.reserved.discard(mesh)


class FakeMesh(Peering):
    """A mesh on a :class:`FakeNetwork`; see :class:`node.mesh.base.Mesh`."""

    def __init__(self, network: FakeNetwork, key_seed: bytes, settings: Settings, nat: str) -> None:
        self._network = network
        self.nat = nat
        self.reserved: set[FakeMesh] = set()
        self._relaying = False
        self._bound = tuple(parse_listen(text) for text in settings.listen)
        self._tasks: trio.Nursery | None = None
        rng = network.rng(hashlib.sha256(key_seed).digest())
        super().__init__(key_seed, settings, rng, lambda: START_S + trio.current_time())
        # Not those of the machine that runs the test.
        here = (f"{one.host}/16" for one in self._bound)
        self._standing.interfaces = frozenset(map(ipaddress.ip_interface, here))

    def bound(self) -> tuple[Address, ...]:
        """The fake sockets."""
        return self._bound

    def outside(self, target: Address, observed: bool) -> Address:
        """Where ``target`` sees a connection of this mesh."""
        own = self._bound[0]
        if not observed:
            return Address(own.kind, _outside(own.host), 50_000 + own.port % 10_000)
        if self.nat in ("", "firewall"):
            return own.bare()
        port = own.port
        if self.nat == "rewriting":
            port += 1
        elif self.nat == "symmetric":
            port = 40_000 + self._network.rng(str(target).encode()).randrange(9_000)
        return Address(own.kind, _outside(own.host), port)

    def send(self, peer: PeerId, payload: bytes) -> None:
        """Queue ``payload``, corrupted if the test wants it."""
        super().send(peer, self._network.changed(self._own, peer, payload))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Be on the network until the block ends."""
        self._bound = tuple(self._network.listen(self, address) for address in self._bound)
        try:
            async with trio.open_nursery() as self._tasks:
                self._tasks.start_soon(self._run)
                try:
                    yield
                finally:
                    with trio.CancelScope(shield=True):
                        await self._say_leave()
                    self._tasks.cancel_scope.cancel()
        finally:
            self._tasks = None
            self._network.end_of(self)
            for address in self._bound:
                self._network.unlisten(address)

    def accept(self, protocol: str, wire: _End) -> None:
        """Serve a stream that another mesh opened."""
        handler = self.serving().get(protocol)
        if handler is None or self._tasks is None:
            wire.cut()
        else:
            self._tasks.start_soon(handler, wire)

    async def _dial(self, address: Address, observed: bool) -> Carrier:
        with trio.fail_after(DIAL_LIMIT_S):
            return await self._network.connect(self, address, observed)

    async def _reserve(self, relay: Carrier) -> float:
        assert isinstance(relay, FakeCarrier)
        await trio.sleep(2 * self._network.latency(self._own, relay.there.peer_id))
        if not relay.there._relaying or relay.closed:
            raise CallError("PERMISSION_DENIED")
        relay.there.reserved.add(self)
        return 3600.0

    async def _punch(self, relayed: Carrier) -> Carrier:
        assert isinstance(relayed, FakeCarrier)
        other = relayed.there
        await trio.sleep(4 * self._network.latency(self._own, other.peer_id))
        if "symmetric" in (self.nat, other.nat) or relayed.closed:
            raise CallError("no hole")
        seen = other.outside(self._bound[0], True)
        at = self.outside(other._bound[0], True)
        carrier = self._network.join(other, self, seen, at, True)
        assert other._tasks is not None
        other._tasks.start_soon(other._punched, carrier)
        return carrier.other

    async def _agent_of(self, carrier: Carrier) -> str:
        assert isinstance(carrier, FakeCarrier)
        return carrier.there._settings.agent

    def _serve_relay(self, serve: bool) -> None:
        self._relaying = serve

    def _relay_load(self) -> RelayLoad:
        return RelayLoad(self._relaying, len(self.reserved))


def _outside(host: str) -> str:
    """The address of the NAT in front of ``host``: sites are 10.N.0.0/16, NATs 198.51.100.N."""
    parts = host.split(".")
    return f"198.51.100.{parts[1]}" if parts[0] == "10" else host


class _Connection:
    """What joins two peers: streams, each of two pipes."""

    def __init__(
        self,
        network: FakeNetwork,
        dialler: FakeMesh,
        target: FakeMesh,
        seen: Address,
        at: Address,
        observed: bool,
    ) -> None:
        self.network = network
        self.peers = {dialler.peer_id, target.peer_id}
        self.closed = trio.Event()
        self.streams: list[_Pipe] = []
        here, there = dialler.bound()[0].bare(), target.bound()[0].bare()
        if not observed:
            here = Address(here.kind, here.host, 50_000 + here.port % 10_000)
        relayed = at.relay is not None
        self.ends = (
            FakeCarrier(self, dialler, target, at, None if relayed else here, True),
            FakeCarrier(self, target, dialler, seen, None if relayed else there, False),
        )

    def end(self) -> None:
        """Let both sides read what is under way, and then the end."""
        for pipe in self.streams:
            pipe.end()
        self._close()

    def cut(self) -> None:
        """Lose what is under way."""
        for pipe in self.streams:
            pipe.cut()
        self._close()

    def _close(self) -> None:
        self.closed.set()
        self.network.forget(self)


class FakeCarrier:
    """One peer's end of a connection: a :class:`node.mesh.wire.Carrier`."""

    def __init__(
        self,
        connection: _Connection,
        here: FakeMesh,
        there: FakeMesh,
        address: Address,
        source: Address | None,
        dialled: bool,
    ) -> None:
        self._connection = connection
        self.here = here
        self.there = there
        self.peer = peer_text(there.peer_id)
        self.address: Address | None = address
        self.source = source
        self.dialled = dialled
        self.relayed = address.relay is not None
        self.held = 0

    @property
    def other(self) -> FakeCarrier:
        """The other end."""
        one, two = self._connection.ends
        return two if self is one else one

    @property
    def rtt_s(self) -> float | None:
        one, two = self.here.peer_id, self.there.peer_id
        network = self._connection.network
        return network.latency(one, two) + network.latency(two, one)

    @property
    def closed(self) -> bool:
        return self._connection.closed.is_set()

    async def open(self, protocol: str) -> _End:
        network = self._connection.network
        one, two = self.here.peer_id, self.there.peer_id
        await trio.sleep(network.latency(one, two))
        if self.closed or not network.joined(one, two):
            raise trio.BrokenResourceError("the connection is closed")
        there = _Pipe(lambda: network.latency(one, two))
        back = _Pipe(lambda: network.latency(two, one))
        self._connection.streams += [there, back]
        self.there.accept(protocol, _End(self.other, there, back))
        return _End(self, back, there)

    def hold(self) -> None:
        self.held += 1

    def release(self) -> None:
        self.held -= 1

    async def wait_closed(self) -> None:
        await self._connection.closed.wait()

    async def close(self) -> None:
        self._connection.end()
        await trio.lowlevel.checkpoint()


class _Pipe:
    """One direction: bytes that arrive after a while, and a window that bounds them."""

    def __init__(self, latency: Callable[[], float]) -> None:
        self._latency = latency
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._held = 0
        self._last = 0.0
        self._ended = False
        self._broken = False
        self._changed = trio.Event()

    def end(self) -> None:
        self._ended = True
        self._notify()

    def cut(self) -> None:
        self._broken = True
        self._notify()

    async def send(self, data: bytes) -> None:
        for start in range(0, len(data), WINDOW):
            chunk = data[start : start + WINDOW]
            with trio.move_on_after(STALL_LIMIT_S):
                while self._held >= WINDOW and not (self._broken or self._ended):
                    await self._changed.wait()
            if self._broken or self._ended or self._held >= WINDOW:
                raise trio.BrokenResourceError("the connection is closed")
            # Never overtakes what was sent before, even if the latency was lowered since.
            self._last = max(self._last, trio.current_time() + self._latency())
            self._chunks.append((self._last, chunk))
            self._held += len(chunk)
            self._notify()
        await trio.lowlevel.checkpoint()

    async def receive(self, most: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self._broken:
                raise trio.BrokenResourceError("the connection was cut")
            if self._chunks:
                due, chunk = self._chunks[0]
                if due <= trio.current_time():
                    break
                with trio.move_on_at(due):
                    await self._changed.wait()
            elif self._ended:
                return b""
            else:
                await self._changed.wait()
        self._chunks.popleft()
        if len(chunk) > most:
            self._chunks.appendleft((due, chunk[most:]))
        self._held -= min(most, len(chunk))
        self._notify()
        return chunk[:most]

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class _End:
    """One peer's end of a stream: a :class:`node.mesh.wire.Wire`."""

    def __init__(self, carrier: FakeCarrier, read: _Pipe, write: _Pipe) -> None:
        self.carrier: FakeCarrier = carrier
        self.peer = carrier.peer
        self._read = read
        self._write = write

    async def read(self, most: int) -> bytes:
        return await self._read.receive(most)

    async def write(self, data: bytes) -> None:
        await self._write.send(data)

    async def end_writing(self) -> None:
        self._write.end()
        await trio.lowlevel.checkpoint()

    async def reset(self) -> None:
        self.cut()
        await trio.lowlevel.checkpoint()

    def cut(self) -> None:
        self._read.cut()
        self._write.cut()
