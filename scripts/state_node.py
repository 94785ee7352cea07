"""A node that holds logs and does nothing else, in a process of its own: ``scripts/bench state``.

``serve TRANSPORT TICKETS DIR`` prints where it can be reached, and then, for each line of input,
what has happened since the last. ``join TRANSPORT TICKETS DIR ADDRESS AUTHORS ENTRIES`` prints what
it took until all of them were on disk. ``restore TICKETS DIR`` prints what it takes to load them.

The transport is ``libp2p``, the mesh; or ``tcp``, which carries calls over a connection, no more.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, cast

import msgspec
import state_authors as authors
import trio

from node.mesh.base import Link, Mesh, MeshEvent, PeerDown, PeerUp
from node.replication.assembly import CertificateTickets, assemble
from node.replication.database import LedgerDatabase
from node.replication.service import Join, Replication
from node.replication.stamping import Verifier
from protocol.codec import decode, encode
from protocol.errors import CallError, SwarmError, UnreachableError
from protocol.frames import FrameDecoder, encode_frame
from protocol.ids import KEY_BYTES, PeerId
from swarm.ledger.admission import Certificates

HOST: Final = "127.0.0.1"
READ_BYTES: Final = 1 << 18
TICK_S: Final = 0.001
LOOK_S: Final = 0.005
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Stalls:
    """How late a task is that wants to run every millisecond, at worst."""

    def __init__(self) -> None:
        self._worst = self._busy = 0.0

    async def watch(self) -> None:
        """Watch until cancelled."""
        while True:
            began, used = time.perf_counter(), time.process_time()
            await trio.sleep(TICK_S)
            late = time.perf_counter() - began - TICK_S
            self._worst = max(self._worst, late)
            self._busy = max(self._busy, min(late, time.process_time() - used))

    def report(self) -> dict[str, float]:
        """The worst since the last report, in ms: as seen, and of what this process itself did:
        the rest is others' who had the processor."""
        found = {"stall_ms": 1e3 * self._worst, "busy_ms": 1e3 * self._busy}
        self._worst = self._busy = 0.0
        return found


# --- calls over a TCP connection ------------------------------------------------------------------


class _Frame(msgspec.Struct, array_like=True):
    """A call, which names a method, or the reply to one."""

    number: int
    method: str
    failed: bool
    body: bytes


class TcpMesh:
    """As much of :class:`node.mesh.base.Mesh` as replication needs. Nobody proves who they are.

    Args:
        address: of whom to link with; empty to listen.
    """

    def __init__(self, own: PeerId, address: str) -> None:
        self.peer_id = own
        self._address = address
        self._streams: dict[PeerId, trio.SocketStream] = {}
        self._sending: dict[PeerId, trio.Lock] = {}
        self._replies: dict[int, trio.MemorySendChannel[_Frame]] = {}
        self._calls = 0
        self._answers: dict[str, Callable[[PeerId, bytes], Awaitable[bytes]]] = {}
        self._tell, self._events = trio.open_memory_channel[MeshEvent](16)

    def addresses(self) -> tuple[str, ...]:
        return (self._address,)

    def links(self) -> tuple[Link, ...]:
        return tuple(Link(peer, HOST, "direct", "") for peer in sorted(self._streams))

    async def next_event(self) -> MeshEvent:
        return await self._events.receive()

    def answer(self, method: str, answer: Callable[[PeerId, bytes], Awaitable[bytes]]) -> None:
        self._answers[method] = answer

    def disconnect(self, peer: PeerId, reason: str) -> None:
        raise SystemExit(f"A peer is cut off: {reason}")

    async def call(self, peer: PeerId, method: str, body: bytes, limit_s: float) -> bytes:
        self._calls += 1
        number = self._calls
        self._replies[number], reply = trio.open_memory_channel[_Frame](1)
        try:
            with trio.fail_after(limit_s):
                await self._send(peer, _Frame(number, method, False, body))
                frame = await reply.receive()
        finally:
            del self._replies[number]
        if frame.failed:
            raise CallError(frame.body.decode())
        return frame.body

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            if self._address:
                host, _, port = self._address.rpartition(":")
                nursery.start_soon(self._speak, await trio.open_tcp_stream(host, int(port)))
            else:
                listeners = await trio.open_tcp_listeners(0, host=HOST)
                self._address = f"{HOST}:{listeners[0].socket.getsockname()[1]}"
                nursery.start_soon(trio.serve_listeners, self._speak, listeners)
            yield
            nursery.cancel_scope.cancel()

    async def _speak(self, stream: trio.SocketStream) -> None:
        """Be linked with whoever is at the other end, until it goes."""
        await stream.send_all(self.peer_id)
        other = b""
        while len(other) < KEY_BYTES:
            other += await stream.receive_some(KEY_BYTES - len(other))
        peer = PeerId(other)
        self._streams[peer], self._sending[peer] = stream, trio.Lock()
        self._tell.send_nowait(PeerUp(Link(peer, HOST, "direct", "")))
        decoder = FrameDecoder()
        async with stream, trio.open_nursery() as nursery:
            with contextlib.suppress(trio.BrokenResourceError):
                while data := await stream.receive_some(READ_BYTES):
                    for payload in decoder.feed(data):
                        frame = decode(payload, _Frame)
                        if frame.method:
                            nursery.start_soon(self._serve, peer, frame)
                        elif frame.number in self._replies:
                            self._replies[frame.number].send_nowait(frame)
            nursery.cancel_scope.cancel()
        del self._streams[peer], self._sending[peer]
        self._tell.send_nowait(PeerDown(peer, "it is gone"))

    async def _serve(self, peer: PeerId, call: _Frame) -> None:
        try:
            body = await self._answers[call.method](peer, call.body)
            reply = _Frame(call.number, "", False, body)
        except SwarmError as error:
            reply = _Frame(call.number, "", True, error.user_text().encode())
        await self._send(peer, reply)

    async def _send(self, peer: PeerId, frame: _Frame) -> None:
        if peer not in self._streams:
            raise UnreachableError("It is gone.")
        async with self._sending[peer]:
            await self._streams[peer].send_all(encode_frame(encode(frame)))


def mesh(transport: str, name: str, address: str = "") -> Mesh:
    """The mesh of the node ``name``, which listens unless it is given an address."""
    if transport == "tcp":
        made = cast("Mesh", TcpMesh(authors.signer(name).peer, address))
    else:
        made = _libp2p(name, address)
    # As the daemon does.
    gc.collect()
    gc.freeze()
    return made


def _libp2p(name: str, address: str) -> Mesh:
    # The library takes a second and memory of its own, which the other does without.
    from node.mesh.host import Libp2pMesh
    from node.mesh.peering import Settings

    sockets = () if address else (f"/ip4/{HOST}/tcp/0",)
    bootstraps = (address,) if address else ()
    settings = Settings(sockets, bootstraps, authors.SWARM, "bench", public=not address)
    return Libp2pMesh(authors.seed(name), settings)


# --- the node -------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def opened(tickets: str, data_dir: Path, name: str, way: Mesh) -> AsyncIterator[Replication]:
    """What :func:`node.replication.assembly.open_replication` opens, at the time of the logs."""
    own = authors.signer(name)
    admission = authors.admission(tickets)
    certificates = admission if isinstance(admission, Certificates) else None
    began = time.monotonic()
    async with LedgerDatabase.open(data_dir, authors.SWARM, own.peer) as database:
        yield await assemble(
            database,
            way,
            own,
            authors.SWARM,
            Verifier(admission),
            CertificateTickets(certificates, own.peer) if certificates else None,
            random.Random(name),
            lambda: authors.NOW + time.monotonic() - began,
        )


@contextlib.asynccontextmanager
async def replicating(way: Mesh, replication: Replication) -> AsyncIterator[Stalls]:
    """Replicate with whoever is linked, and see how late everything else gets its turn."""
    stalls = Stalls()
    async with way.running(), trio.open_nursery() as nursery:
        await nursery.start(replication.run)
        nursery.start_soon(_follow, way, replication)
        nursery.start_soon(stalls.watch)
        yield stalls
        nursery.cancel_scope.cancel()


async def _follow(way: Mesh, replication: Replication) -> None:
    while True:
        match await way.next_event():
            case PeerUp(link):
                replication.linked(link)
            case PeerDown(peer):
                replication.unlinked(peer)


async def serve(transport: str, tickets: str, folder: str) -> None:
    """Answer whoever comes."""
    way = mesh(transport, "server")
    async with opened(tickets, Path(folder), "server", way) as replication:
        # It has been there for long: whoever comes is not what it compares with to join.
        replication.join = Join((way.peer_id,) * 2, agree=True)
        async with replicating(way, replication) as stalls:
            say(way.addresses()[0])
            while await trio.to_thread.run_sync(sys.stdin.readline):
                say(json.dumps(stalls.report()))


async def join(
    transport: str, tickets: str, folder: str, address: str, others: str, entries: str
) -> None:
    """Fetch ``entries`` of each of ``others`` authors and write them, holding nothing before."""
    name = f"joiner {os.getpid()}"
    way = mesh(transport, name, address)
    wanted = [authors.signer(f"author {number}").peer for number in range(int(others))]
    async with opened(tickets, Path(folder), name, way) as replication:
        replica, database = replication._replica, replication._database

        def fetched() -> bool:
            if replica.entries < int(entries) * len(wanted):
                return False
            chains = [replica.chain(author, authors.EPOCH) for author in wanted]
            return all(chain and len(chain.bodies) >= int(entries) for chain in chains)

        def written() -> bool:
            return not database._unwritten and not database._writing.locked()

        began, used = time.perf_counter(), time.process_time()
        async with replicating(way, replication) as stalls:
            times: dict[str, float] = {}
            for what, done in (
                ("fetched_s", fetched),
                ("seconds", written),
                ("read_s", lambda: not replication._unread),
            ):
                await until(done)
                times[what] = time.perf_counter() - began
            times["cpu_s"] = time.process_time() - used
            say(json.dumps(times | stalls.report()))


async def until(done: Callable[[], bool]) -> None:
    """Wait for something that does not tell."""
    while not done():  # noqa: ASYNC110
        await trio.sleep(LOOK_S)


async def restore(tickets: str, folder: str) -> None:
    """Load what is on disk."""
    way = mesh("tcp", "server")
    before, began = _resident(), time.perf_counter()
    async with opened(tickets, Path(folder), "server", way) as replication:
        took = time.perf_counter() - began
        gc.collect()
        found = {"entries": replication._replica.entries, "seconds": took}
        say(json.dumps(found | {"bytes": _resident() - before}))


def _resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def say(text: str) -> None:
    """Print a line for whoever has started this."""
    print(text, flush=True)


if __name__ == "__main__":
    what, *how = sys.argv[1:]
    roles: dict[str, Callable[..., Awaitable[None]]]
    roles = {"serve": serve, "join": join, "restore": restore}
    trio.run(roles[what], *how)
