"""The mesh over py-libp2p: listening, dialling, and the one task that keeps the library alive."""

from __future__ import annotations

import contextlib
import logging
import os
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import trio
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from node.mesh.address import Address, advertised, parse_listen
from node.mesh.greet import GREETING_LIMIT_S, PROTOCOL_ID
from node.mesh.harden import Network, build_network, guarded
from node.mesh.link import CLOSE_LIMIT_S, shielded
from node.mesh.peering import DIAL_LIMIT_S, Peering
from protocol import version
from protocol.errors import ListenError
from protocol.frames import Hello
from protocol.ids import parse_peer, peer_text

REBUILD_DELAY_S: Final = 0.5
REBUILD_DELAY_LIMIT_S: Final = 30.0

log = logging.getLogger(__name__)


class Libp2pMesh(Peering):
    """The :class:`node.mesh.base.Mesh` over TCP, Noise and Yamux.

    Args:
        key_seed: the 32-byte Ed25519 seed; the peer id is that of its public key.
        listen: multiaddrs such as ``/ip4/0.0.0.0/tcp/4001``; none to dial only.
        bootstraps: multiaddrs with ``/p2p/ID`` that are dialled, and redialled, for ever.
        swarm: the name of the swarm; peers of another are refused.
        agent: software and version, for other people.

    Raises:
        ConfigError: an address is malformed, or a name does not fit into a greeting.
    """

    def __init__(
        self,
        key_seed: bytes,
        listen: Sequence[str],
        bootstraps: Sequence[str],
        swarm: str,
        agent: str,
    ) -> None:
        self._key_seed = key_seed
        self._listen = tuple(parse_listen(text) for text in listen)
        self._network = build_network(key_seed)
        own = parse_peer(str(self._network.get_peer_id()))
        hello = Hello(version.OLDEST, version.PROTOCOL, swarm, agent, os.urandom(16))
        super().__init__(own, hello, bootstraps, random.Random())

    def addresses(self) -> tuple[str, ...]:
        """Multiaddrs under which others can dial this node, once it is running."""
        return tuple(str(advertised(bound, self._own)) for bound in self._listen if bound.port)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen, dial the bootstraps and keep redialling them, until the block ends.

        Raises:
            ListenError: an address is taken or not ours.
        """
        listeners = await self._bind()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._supervise, listeners)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()

    # --- the library's service and its supervisor ---------------------------------------------

    async def _bind(self) -> list[trio.SocketListener]:
        listeners: list[trio.SocketListener] = []
        bound: list[Address] = []
        for address in self._listen:
            try:
                opened = await trio.open_tcp_listeners(address.port, host=address.host)
            except OSError as error:
                await _close_listeners(listeners)
                raise ListenError(f"{address}: {error.strerror or error}.") from error
            listeners += opened
            port = opened[0].socket.getsockname()[1]
            bound.append(Address(address.kind, address.host, port))
        # A rebuilt host takes the same ports again, so that addresses given out stay true.
        self._listen = tuple(bound)
        return listeners

    async def _supervise(self, listeners: list[trio.SocketListener]) -> None:
        """Run the host, and build it anew whenever it fails."""
        delay = REBUILD_DELAY_S
        while True:
            started = trio.current_time()
            try:
                await self._host(listeners)
            except Exception:
                log.exception("the libp2p host failed; it is rebuilt in %.1f s", delay)
            finally:
                await _close_listeners(listeners)
            if trio.current_time() - started > 2 * REBUILD_DELAY_LIMIT_S:
                delay = REBUILD_DELAY_S
            await trio.sleep(delay)
            delay = min(2 * delay, REBUILD_DELAY_LIMIT_S)
            self._network = build_network(self._key_seed)
            while True:
                try:
                    listeners = await self._bind()
                    break
                except ListenError as error:
                    log.error("%s", error.user_text())
                    await trio.sleep(delay)

    async def _host(self, listeners: list[trio.SocketListener]) -> None:
        """Serve until the library's service ends, or something raises."""
        network = self._network
        network.set_stream_handler(guarded(self._accept))
        async with background_trio_service(network) as manager:
            await network.event_background_nursery_created.wait()
            async with trio.open_nursery() as nursery:
                if listeners:
                    nursery.start_soon(trio.serve_listeners, network.accept, listeners)
                nursery.start_soon(self._dialler.run)
                try:
                    await manager.wait_finished()
                finally:
                    nursery.cancel_scope.cancel()
                    await _close_connections(network)
        raise RuntimeError("the libp2p service ended by itself")

    # --- streams --------------------------------------------------------------------------------

    async def _accept(self, stream: Any) -> None:
        """Serve a stream that a peer opened."""
        wire = Libp2pWire(stream)
        try:
            with trio.fail_after(GREETING_LIMIT_S):
                await Multiselect({PROTOCOL_ID: None}).negotiate(
                    MultiselectCommunicator(stream), int(GREETING_LIMIT_S)
                )
        except Exception as error:
            log.debug("%s opened a stream and did not speak our protocol: %r", wire.peer, error)
            await wire.reset()
            return
        await self._table.serve(wire, wire.remote_address())

    async def _connect(self, address: Address) -> Libp2pWire:
        assert address.peer is not None
        target = Multiaddr(str(Address(address.kind, address.host, address.port)))
        peer_id = ID.from_base58(peer_text(address.peer))
        connection = await self._network.dial_addr(target, peer_id)
        try:
            stream = await connection.new_stream()
            await MultiselectClient().select_one_of(
                [PROTOCOL_ID], MultiselectCommunicator(stream), int(DIAL_LIMIT_S)
            )
        except BaseException:
            with shielded(CLOSE_LIMIT_S):
                await connection.close()
            raise
        return Libp2pWire(stream)


class Libp2pWire:
    """A :class:`node.mesh.wire.Wire` over one libp2p stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    @property
    def peer(self) -> str:
        """The peer id that the Noise handshake proved."""
        return str(self._stream.muxed_conn.peer_id)

    @property
    def connection(self) -> object:
        """The muxer under the stream."""
        muxer: object = self._stream.muxed_conn
        return muxer

    def remote_address(self) -> str:
        """The peer's end of the TCP connection, as a multiaddr."""
        remote = self._stream.get_remote_address()
        if remote is None:
            return "unknown"
        host, port = remote
        return f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}"

    def keep(self) -> None:
        """Say that the connection has become a link."""
        self._stream.muxed_conn.in_use = True

    async def read(self, most: int) -> bytes:
        """What has arrived, at most ``most`` bytes; ``b""`` at the end."""
        try:
            data: bytes = await self._stream.read(most)
        except Exception as error:
            # The library has a dozen ways to say that a stream ended, and not all of them differ
            # between an orderly end and a cut.
            raise trio.BrokenResourceError(_reason(error)) from error
        return data

    async def write(self, data: bytes) -> None:
        """Send all of ``data``."""
        try:
            await self._stream.write(data)
        except Exception as error:
            raise trio.BrokenResourceError(_reason(error)) from error

    async def end_writing(self) -> None:
        """Half-close."""
        try:
            await self._stream.close_write()
        except Exception as error:
            raise trio.BrokenResourceError(_reason(error)) from error

    async def reset(self) -> None:
        """Cut the stream."""
        with contextlib.suppress(Exception):
            await self._stream.reset()

    async def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(Exception):
            await self._stream.swarm_conn.close()


def _reason(error: Exception) -> str:
    """What happened, from the innermost error that says anything."""
    causes: list[BaseException] = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    return next((str(cause) for cause in reversed(causes) if str(cause)), type(error).__name__)


async def _close_listeners(listeners: list[trio.SocketListener]) -> None:
    for listener in listeners:
        with shielded(CLOSE_LIMIT_S):
            await listener.aclose()


async def _close_connections(network: Network) -> None:
    """Close them at once; the library's own way takes a fifth of a second for each."""
    with shielded(CLOSE_LIMIT_S):
        async with trio.open_nursery() as nursery:
            for connection in network.get_connections():
                nursery.start_soon(connection.close)
