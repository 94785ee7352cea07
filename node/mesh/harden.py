"""py-libp2p 0.8.1 as this node needs it: what is switched off, and what is repaired.

Each repair is an override of one method, with its reason beside it and an attack under
``tests/mesh`` that fails without it. Switched off, by never being built: TLS, plaintext and secio
(plaintext is on by default there and lets anyone claim any peer id), mplex, QUIC, WebSocket, the
resource manager, the automatic dialler and the pruner (our own limits stand in their place).

Only this module and :mod:`node.mesh.muxer` touch names that the library does not promise to keep,
hence the exact version that the package asks for.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_key
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.pnet.psk_conn import PskConn
from libp2p.stream_muxer.yamux import yamux
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader

from node.mesh.address import of_socket
from node.mesh.carrier import carrier_of
from node.mesh.link import CLOSE_LIMIT_S, shielded
from node.mesh.muxer import Muxer, MuxerChoice
from node.mesh.sockets import abort, tuned
from node.mesh.wire import Carrier
from protocol import limits

UPGRADE_LIMIT_S: Final = 8.0
"""The handshakes of an inbound connection, which holds an inbound slot meanwhile."""
IDLE_LIMIT_S: Final = 20.0
"""How long a connection may stand that nobody holds."""

SOCKET_READ: Final = 64 << 10
"""Bytes asked of a socket at once."""

log = logging.getLogger(__name__)

# Its lines name every frame, every scanner that knocks and, as errors, every dial that fails.
logging.getLogger("libp2p").setLevel(logging.CRITICAL)


class Network(Swarm):  # type: ignore[misc]
    """The library's connection table, for inbound and outbound connections.

    Attributes:
        refused: how many connections were refused, by reason.
        traffic: bytes over all connections since the start.
        punching: sockets of peers towards which a hole is being punched, with who takes a TCP
            connection that comes from there and returns once it has ended.
        awaited: peers towards which a hole is being punched, with who is told of a connection
            that such a peer has made.
    """

    refused: Counter[str]
    traffic: Traffic
    punching: dict[tuple[str, int], Callable[[trio.SocketStream], Awaitable[None]]]
    awaited: dict[str, Callable[[Carrier], None]]

    def prepare(self, swarm_key: bytes | None) -> None:
        """Finish the construction; separate, for the library's initialiser takes no more."""
        self._swarm_key = swarm_key
        self._knocks: Counter[str] = Counter()
        self.refused = Counter()
        self.traffic = Traffic()
        self.punching = {}
        self.awaited = {}

    def protect(self, raw: RawConnection) -> RawConnection:
        """``raw`` under the key of a private swarm, where there is one."""
        return raw if self._swarm_key is None else ProtectedConnection(raw, self._swarm_key)

    async def accept(self, socket: trio.SocketStream) -> None:
        """Serve one inbound TCP connection until it ends. Raises nothing but cancellation."""
        remote: tuple[str, int] | None = None
        try:
            stream = BufferedTCPStream(tuned(socket), self.traffic)
            remote = stream.get_remote_address()
            prefix = prefix_of(remote)
            punch = None if remote is None else self.punching.get(remote)
            if punch is not None:
                await punch(socket)
                return
            with self._knock(prefix):
                raw = self.protect(RawConnection(stream, False))
                muxed = await self.upgrade_inbound_raw_conn(raw, None)
                found = self.awaited.get(str(muxed.peer_id))
                if found is not None:
                    found(carrier_of(self.connection_of(muxed)))
                # What nobody asked for stays under the limit on knocks until somebody holds it.
                await muxed.until_held_or_closed(IDLE_LIMIT_S)
            await muxed.tend(IDLE_LIMIT_S)
        except TooManyKnocksError:
            self.refused["crowded"] += 1
        except Exception as error:
            self.refused["handshake"] += 1
            log.debug("inbound connection from %s failed: %r", remote, error)
        finally:
            await trio.aclose_forcefully(socket)

    def connection_of(self, muxed: Any) -> Any:
        """The library's connection over a muxer.

        Raises:
            trio.BrokenResourceError: it has ended meanwhile.
        """
        for connection in self.get_connections(muxed.peer_id):
            if connection.muxed_conn is muxed:
                return connection
        raise trio.BrokenResourceError("the connection has ended")

    @contextlib.contextmanager
    def _knock(self, prefix: str) -> Iterator[None]:
        """Count a connection that is not held by anybody.

        Raises:
            TooManyKnocksError: there are too many, of this prefix or in all.
        """
        loopback = prefix == LOOPBACK
        if self._knocks.total() >= limits.KNOCKS or (
            self._knocks[prefix] >= (limits.KNOCKS // 2 if loopback else limits.KNOCKS_PER_PREFIX)
        ):
            raise TooManyKnocksError
        self._knocks[prefix] += 1
        try:
            yield
        finally:
            self._knocks[prefix] -= 1
            if not self._knocks[prefix]:
                del self._knocks[prefix]

    async def notify_disconnected(self, conn: Any) -> None:
        """Tell the listeners, but not the automatic dialler.

        It remembers every peer id it ever lost, and strangers make those up at will.
        """
        await self._notify("disconnected", conn)


class TooManyKnocksError(Exception):
    """Too many connections wait to become something."""


LOOPBACK: Final = "loopback"


def prefix_of(remote: tuple[str, int] | None) -> str:
    """The network of the other end of a connection."""
    if remote is None:
        return "unknown"
    address = of_socket(*remote)
    ip = address.ip()
    return LOOPBACK if ip is not None and ip.is_loopback else address.network()


class ProtectedConnection(PskConn):  # type: ignore[misc]
    """A connection of a private swarm: without the key not even a handshake begins.

    The library's one leaves out what the base class promises.
    """

    def __init__(self, raw: RawConnection, swarm_key: bytes) -> None:
        super().__init__(raw, swarm_key.hex())
        self.is_initiator = raw.is_initiator
        self.stream = raw.stream


class NoAutoConnector(AutoConnector):  # type: ignore[misc]
    """Dials nobody; the original fills up to half the connections from whoever it heard of."""

    async def maybe_connect(self) -> None:
        """Do nothing."""


@dataclass(slots=True)
class Traffic:
    """Bytes over TCP, handshakes and all."""

    sent: int = 0
    received: int = 0


class BufferedTCPStream(TrioTCPStream):  # type: ignore[misc]
    """A TCP stream read in large steps, none larger than we choose.

    The original asks the socket for as many bytes as a stranger's varint says, before any
    handshake; it makes two system calls for each Noise record; and its callers give up on a record
    that came in more than a hundred pieces, as over a path with small segments.
    """

    _cached_remote_address: tuple[str, int] | None

    def __init__(self, stream: trio.SocketStream, traffic: Traffic | None = None) -> None:
        super().__init__(stream)
        self._buffer = bytearray()
        self._traffic = Traffic() if traffic is None else traffic

    async def read(self, n: int | None = None) -> bytes:
        """Exactly ``n`` bytes, or ``SOCKET_READ`` of them if ``n`` is larger; fewer at the end.

        Without ``n``: what there is.
        """
        enough = 1 if n is None else min(n, SOCKET_READ)
        while len(self._buffer) < enough:
            data = await self._receive()
            if not data:
                break
            self._traffic.received += len(data)
            self._buffer += data
        size = len(self._buffer) if n is None else enough
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def write(self, data: bytes) -> None:
        """Send all of ``data``."""
        await super().write(data)
        self._traffic.sent += len(data)

    def reset(self) -> None:
        """Have the connection end with a reset when it is closed."""
        abort(self.stream)

    async def _receive(self) -> bytes:
        """What the socket has. There is one reader; the original takes a lock all the same."""
        try:
            data: bytes = await self.stream.receive_some(SOCKET_READ)
        except trio.ClosedResourceError:
            return b""
        except trio.BrokenResourceError as error:
            raise ConnectionClosedError(str(error), transport="tcp") from error
        return data

    def write_now(self, data: bytes) -> int:
        """Write what the socket takes without waiting; how many bytes that was."""
        try:
            written = os.write(self.stream.socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ConnectionClosedError(str(error), transport="tcp") from error
        self._traffic.sent += written
        return written

    def get_remote_address(self) -> tuple[str, int] | None:
        """Host and port of the peer; the original knows only IPv4."""
        if self._cached_remote_address is None:
            with contextlib.suppress(OSError):
                self._cached_remote_address = self.stream.socket.getpeername()[:2]
        return self._cached_remote_address


StreamHandler = Callable[[Any], Awaitable[None]]


def guarded(handler: StreamHandler) -> StreamHandler:
    """``handler``, but an exception in it resets its stream and goes no further.

    Unguarded it would end the swarm, and with it whatever nursery that runs in.
    """

    async def handle(stream: Any) -> None:
        try:
            await handler(stream)
        except Exception:
            log.exception("the handler of an inbound stream failed")
            with shielded(CLOSE_LIMIT_S):
                await stream.reset()

    return handle


def build_network(key_seed: bytes, swarm_key: bytes | None = None) -> Network:
    """A network for the Ed25519 key of ``key_seed`` (32 bytes): TCP, Noise and Yamux only.

    It neither dials nor listens by itself: sockets are ours (:mod:`node.mesh.sockets`). The
    library's listener shares its port with any process that asks, so that a second node on a port
    gets no error, and runs as a trio system task, where an exception ends the process; its dialler
    waits for a quarter of a second and shuns a peer for a minute after one failure.

    Args:
        swarm_key: the 32 bytes that everyone in a private swarm has.
    """
    key_pair = create_new_key_pair(key_seed)
    own_id = ID.from_pubkey(key_pair.public_key)
    peerstore = PeerStore()
    peerstore.add_key_pair(own_id, key_pair)
    noise = NoiseTransport(key_pair, noise_privkey=create_new_noise_key().private_key)
    upgrader = TransportUpgrader({NOISE_ID: noise}, {})
    upgrader.muxer_multistream = MuxerChoice({yamux.PROTOCOL_ID: Muxer}, int(UPGRADE_LIMIT_S))
    # Twice the links: connections that shake hands, carry circuits, or lose against a twin.
    most = 2 * limits.PEERS
    config = ConnectionConfig(
        max_connections=most,
        high_watermark=most,
        low_watermark=0,
        min_connections=0,
        max_connections_per_peer=4,
        inbound_upgrade_timeout=UPGRADE_LIMIT_S,
        outbound_upgrade_timeout=UPGRADE_LIMIT_S,
    )
    network = Network(
        own_id,
        peerstore,
        upgrader,
        transports=[TCP()],
        retry_config=RetryConfig(max_retries=0),
        connection_config=config,
    )
    network.auto_connector = NoAutoConnector(network)
    network.prepare(swarm_key)
    return network
