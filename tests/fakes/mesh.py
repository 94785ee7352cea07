"""A mesh in memory, for tests under a virtual clock: real links over pipes that can be broken.

Everything above the byte stream (greeting, queues, back-pressure, redialling) is the node's own
code; only sockets and cryptography are replaced. Each direction of each pair has its own latency,
drawn from the seed, so that messages sent at one moment arrive in the same order in every run.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

import trio
from nacl.signing import SigningKey

from node.mesh.address import Address, parse_listen
from node.mesh.peering import Peering
from protocol import version
from protocol.errors import ListenError
from protocol.frames import Hello
from protocol.ids import PeerId, peer_text

WINDOW = 1 << 20
STALL_LIMIT_S = 60.0
FIRST_PORT = 20_000

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
        self._delays: dict[frozenset[PeerId], float] = {}
        self._changes: dict[tuple[PeerId, PeerId], Change] = {}
        self._groups: list[frozenset[PeerId]] = []
        self._connections: list[_Connection] = []
        self._listening: dict[tuple[str, int], FakeMesh] = {}
        self._next_port = FIRST_PORT

    def mesh(
        self, name: str, bootstraps: Sequence[str] = (), swarm: str = "test", port: int = 0
    ) -> FakeMesh:
        """A mesh whose key comes from ``name``."""
        seed = hashlib.sha256(name.encode()).digest()
        listen = (f"/ip4/127.0.0.1/tcp/{port}",)
        return FakeMesh(self, seed, listen, bootstraps, swarm, f"fake/{name}")

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
        spread = self.rng(sender + receiver).uniform(0.5, 1.5)
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

    async def connect(self, dialler: FakeMesh, address: Address) -> _End:
        """Connect to who listens at ``address``.

        Raises:
            OSError: nobody does, or somebody else than the address names.
        """
        target = self._listening.get((address.host, address.port))
        if target is None:
            raise ConnectionRefusedError(f"nobody listens at {address}")
        if not self.joined(dialler.peer_id, target.peer_id):
            await trio.sleep_forever()
        there = self.latency(dialler.peer_id, target.peer_id)
        await trio.sleep(there + self.latency(target.peer_id, dialler.peer_id))
        if target.peer_id != address.peer:
            raise ConnectionAbortedError("another peer answers there")
        connection = _Connection(self, dialler.peer_id, target.peer_id, self._connections)
        self._connections.append(connection)
        target.accept(connection.ends[1])
        return connection.ends[0]


class FakeMesh(Peering):
    """A mesh on a :class:`FakeNetwork`; see :class:`node.mesh.base.Mesh`."""

    def __init__(
        self,
        network: FakeNetwork,
        key_seed: bytes,
        listen: Sequence[str],
        bootstraps: Sequence[str],
        swarm: str,
        agent: str,
    ) -> None:
        own = PeerId(bytes(SigningKey(key_seed).verify_key))
        rng = network.rng(own)
        self._network = network
        self._rng = rng
        self._listen = tuple(parse_listen(text) for text in listen)
        self._nursery: trio.Nursery | None = None
        hello = Hello(version.OLDEST, version.PROTOCOL, swarm, agent, rng.randbytes(16))
        super().__init__(own, hello, bootstraps, rng)

    def addresses(self) -> tuple[str, ...]:
        """The fake addresses, once running."""
        return tuple(f"{address}/p2p/{peer_text(self._own)}" for address in self._listen)

    def send(self, peer: PeerId, payload: bytes) -> None:
        """Queue ``payload``, corrupted if the test wants it."""
        super().send(peer, self._network.changed(self._own, peer, payload))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Be on the network until the block ends."""
        self._listen = tuple(self._network.listen(self, address) for address in self._listen)
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._dialler.run)
                try:
                    yield
                finally:
                    self._nursery.cancel_scope.cancel()
        finally:
            self._nursery = None
            for address in self._listen:
                self._network.unlisten(address)

    def accept(self, end: _End) -> None:
        """Serve a connection that another mesh made."""
        assert self._nursery is not None
        self._nursery.start_soon(self._table.serve, end, f"fake:{end.peer}")

    async def _connect(self, address: Address) -> _End:
        return await self._network.connect(self, address)


class _Connection:
    """Two pipes between two peers."""

    def __init__(
        self, network: FakeNetwork, one: PeerId, other: PeerId, table: list[_Connection]
    ) -> None:
        self.peers = {one, other}
        self._table = table
        there = _Pipe(lambda: network.latency(one, other))
        back = _Pipe(lambda: network.latency(other, one))
        self._pipes = (there, back)
        self.ends = (_End(self, other, back, there), _End(self, one, there, back))

    def end(self) -> None:
        """Let both sides read what is under way, and then the end."""
        for pipe in self._pipes:
            pipe.end()
        self._forget()

    def cut(self) -> None:
        """Lose what is under way."""
        for pipe in self._pipes:
            pipe.cut()
        self._forget()

    def _forget(self) -> None:
        if self in self._table:
            self._table.remove(self)


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
    """One peer's end of a connection: a :class:`node.mesh.wire.Wire`."""

    def __init__(self, connection: _Connection, peer: PeerId, read: _Pipe, write: _Pipe) -> None:
        self.connection = connection
        self.peer = peer_text(peer)
        self._read = read
        self._write = write

    def keep(self) -> None:
        pass

    async def read(self, most: int) -> bytes:
        return await self._read.receive(most)

    async def write(self, data: bytes) -> None:
        await self._write.send(data)

    async def end_writing(self) -> None:
        self._write.end()
        await trio.lowlevel.checkpoint()

    async def reset(self) -> None:
        self.connection.cut()
        await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        self.connection.end()
        await trio.lowlevel.checkpoint()
