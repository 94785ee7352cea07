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
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_key
from libp2p.io.trio import TrioTCPStream
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux import yamux
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader

from node.mesh.link import CLOSE_LIMIT_S, shielded
from node.mesh.muxer import Muxer, MuxerChoice
from protocol import limits

UPGRADE_LIMIT_S: Final = 8.0
"""The handshakes of an inbound connection, which holds an inbound slot meanwhile."""
IDLE_LIMIT_S: Final = 20.0
"""How long an inbound connection may stand without becoming a link."""

SOCKET_READ: Final = 64 << 10
"""Bytes asked of a socket at once."""

log = logging.getLogger(__name__)

# Its debug and info lines name every frame and every scanner that knocks.
logging.getLogger("libp2p").setLevel(logging.WARNING)


class Network(Swarm):  # type: ignore[misc]
    """The library's connection table, for inbound and outbound connections."""

    async def accept(self, socket: trio.SocketStream) -> None:
        """Serve one inbound TCP connection until it ends. Raises nothing but cancellation."""
        try:
            await self._handle_inbound_connection(BufferedTCPStream(socket), None)
        except Exception as error:
            log.debug("inbound connection failed: %r", error)
        finally:
            await trio.aclose_forcefully(socket)

    async def _do_handle_inbound_connection(self, conn: Any, maddr: Any, event: Any) -> None:
        """Upgrade a connection and wait until *it* ends.

        The original waits until the swarm ends, so that every connection keeps its inbound slot
        for ever and after some 250 of them nobody gets in. One without a link is closed again.
        """
        muxed = await self.upgrade_inbound_raw_conn(RawConnection(conn, False), maddr)
        with trio.move_on_after(IDLE_LIMIT_S):
            await muxed.event_closed.wait()
        if muxed.in_use:
            await muxed.event_closed.wait()

    async def notify_disconnected(self, conn: Any) -> None:
        """Tell the listeners, but not the automatic dialler.

        It remembers every peer id it ever lost, and strangers make those up at will.
        """
        await self._notify("disconnected", conn)


class NoAutoConnector(AutoConnector):  # type: ignore[misc]
    """Dials nobody; the original fills up to half the connections from whoever it heard of."""

    async def maybe_connect(self) -> None:
        """Do nothing."""


class BufferedTCPStream(TrioTCPStream):  # type: ignore[misc]
    """A TCP stream read in large steps, none larger than we choose.

    The original asks the socket for as many bytes as a stranger's varint says, before any
    handshake; it makes two system calls for each Noise record; and its callers give up on a record
    that came in more than a hundred pieces, as over a path with small segments.
    """

    _cached_remote_address: tuple[str, int] | None

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._buffer = bytearray()

    async def read(self, n: int | None = None) -> bytes:
        """Exactly ``n`` bytes, or ``SOCKET_READ`` of them if ``n`` is larger; fewer at the end.

        Without ``n``: what there is.
        """
        enough = 1 if n is None else min(n, SOCKET_READ)
        while len(self._buffer) < enough:
            data = await super().read(SOCKET_READ)
            if not data:
                break
            self._buffer += data
        size = len(self._buffer) if n is None else enough
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def get_remote_address(self) -> tuple[str, int] | None:
        """Host and port of the peer; the original knows only IPv4."""
        if self._cached_remote_address is None:
            with contextlib.suppress(OSError):
                self._cached_remote_address = self.stream.socket.getpeername()[:2]
        return self._cached_remote_address


class OutboundTCP(TCP):  # type: ignore[misc]
    """The TCP transport, for dialling; we listen by ourselves.

    The library's listener shares its port with any process that asks (SO_REUSEPORT), so that a
    second node on a port gets no error, and runs as a trio system task, where an exception ends
    the process.
    """

    async def dial(self, maddr: Any) -> Any:
        """Connect to ``maddr``."""
        raw = await super().dial(maddr)
        raw.stream = BufferedTCPStream(raw.stream.stream)
        return raw


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


def build_network(key_seed: bytes) -> Network:
    """A network for the Ed25519 key of ``key_seed`` (32 bytes): TCP, Noise and Yamux only."""
    key_pair = create_new_key_pair(key_seed)
    own_id = ID.from_pubkey(key_pair.public_key)
    peerstore = PeerStore()
    peerstore.add_key_pair(own_id, key_pair)
    noise = NoiseTransport(key_pair, noise_privkey=create_new_noise_key().private_key)
    upgrader = TransportUpgrader({NOISE_ID: noise}, {})
    upgrader.muxer_multistream = MuxerChoice({yamux.PROTOCOL_ID: Muxer}, int(UPGRADE_LIMIT_S))
    # Twice the links: connections that shake hands, or lose against a twin, count here as well.
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
        transports=[OutboundTCP()],
        retry_config=RetryConfig(max_retries=0),
        connection_config=config,
    )
    network.auto_connector = NoAutoConnector(network)
    return network
