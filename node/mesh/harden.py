"""py-libp2p 0.8.1 as this node needs it: what is switched off, and what is repaired.

Each repair is an override of one method, with its reason beside it and an attack under
``tests/mesh`` that fails without it. Switched off, by never being built: TLS, plaintext and secio
(plaintext is on by default there and lets anyone claim any peer id), mplex, QUIC, WebSocket, the
resource manager, the automatic dialler and the pruner (our own limits stand in their place).

Only this module touches names that the library does not promise to keep, hence the exact version.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import struct
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
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux import yamux
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader

from node.mesh.link import CLOSE_LIMIT_S, shielded
from protocol import limits

LIBP2P_VERSION: Final = "0.8.1"

UPGRADE_LIMIT_S: Final = 8.0
"""The handshakes of an inbound connection, which holds an inbound slot meanwhile."""
IDLE_LIMIT_S: Final = 20.0
"""How long an inbound connection may stand without becoming a link."""
WRITE_LIMIT_S: Final = 20.0
"""One muxer frame (64 KiB at most) on the socket; a slower peer is cut off."""
STALL_LIMIT_S: Final = 60.0
"""How long a peer may take nothing from a stream that has something for it."""
KEEPALIVE_EVERY_S: Final = 10.0
PONG_LIMIT_S: Final = 15.0

RECEIVE_WINDOW: Final = 1 << 20
"""Bytes a peer may send on a stream before we read them."""
CONNECTION_BUFFER: Final = 2 << 20
"""Bytes received and unread over all streams of a connection; beyond it the peer is cheating."""
STREAMS_PER_CONNECTION: Final = 16
SOCKET_READ: Final = 64 << 10
"""Bytes asked of a socket at once."""
CHUNK: Final = MAX_PLAINTEXT_LENGTH - yamux.HEADER_SIZE
"""Payload of one muxer frame: with its header it fills one Noise record. The original spills 17
bytes into a second one."""

log = logging.getLogger(__name__)


def require(installed: str) -> None:
    """Refuse any version of the library but the one that these repairs were written for.

    Raises:
        ImportError: another one is installed.
    """
    if installed != LIBP2P_VERSION:
        raise ImportError(
            f"swarmd repairs libp2p {LIBP2P_VERSION} and no other version, but {installed} is "
            f"installed: pip install libp2p=={LIBP2P_VERSION}"
        )


require(importlib.metadata.version("libp2p"))

# Its debug and info lines name every frame and every scanner that knocks.
logging.getLogger("libp2p").setLevel(logging.WARNING)


class Stream(yamux.YamuxStream):  # type: ignore[misc]  # the library is untyped here
    """A muxed stream that waits for its reader, and gives credit in few, large steps."""

    target_recv_window: int
    _pending_recv_release: int

    def __init__(self, stream_id: int, conn: Any, is_initiator: bool) -> None:
        self._credit = trio.Event()
        self._send_window = 0
        super().__init__(stream_id, conn, is_initiator)

    @property
    def send_window(self) -> int:
        """Bytes that the peer still takes; the muxer's reader raises it."""
        return self._send_window

    @send_window.setter
    def send_window(self, value: int) -> None:
        self._send_window = value
        if value > 0:
            self._credit.set()

    async def write(self, data: bytes) -> None:
        """Write all of ``data``.

        The original gives up after 5 s without credit, which a busy but honest reader exceeds,
        and looks for credit every 10 ms; this one is woken, and gives up after a minute.

        Raises:
            MuxedStreamError: the stream is closed, or the peer takes nothing.
        """
        sent = 0
        while sent < len(data):
            await self._wait_for_credit()
            size = min(self.send_window, CHUNK, len(data) - sent)
            self.send_window -= size
            header = struct.pack(
                yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_DATA, 0, self.stream_id, size
            )
            await self.conn._write_frame(header + data[sent : sent + size])
            sent += size

    async def _wait_for_credit(self) -> None:
        deadline = trio.current_time() + STALL_LIMIT_S
        while True:
            if self.closed or self.send_closed:
                raise MuxedStreamError("the stream is closed")
            if self.send_window > 0:
                return
            if trio.current_time() >= deadline:
                raise MuxedStreamError(f"the peer took nothing for {STALL_LIMIT_S:.0f} s")
            self._credit = trio.Event()
            # Closing sets flags but wakes nobody, so look again now and then.
            with trio.move_on_after(1):
                await self._credit.wait()

    async def _auto_tune_and_send_window_update(self, *, bytes_read: int = 0) -> None:
        """Give credit back once half a window was read.

        The original sends an update with every read and grows the window to 16 MiB; during a bulk
        transfer its updates delay small messages tenfold.
        """
        self._pending_recv_release += bytes_read
        grown = RECEIVE_WINDOW - self.target_recv_window
        if grown > 0:
            self.target_recv_window = RECEIVE_WINDOW
            self._pending_recv_release += grown
        if self._pending_recv_release >= RECEIVE_WINDOW // 2:
            credit, self._pending_recv_release = self._pending_recv_release, 0
            self.recv_window += credit
            await self.send_window_update(credit)


# The muxer builds its streams by this module-level name and offers no other seam.
yamux.YamuxStream = Stream


class ReceiveOverrunError(trio.TooSlowError):
    """A peer sent more than it had credit for.

    A TooSlowError, because that is what the muxer's reader lets end the connection.
    """


class Muxer(yamux.Yamux):  # type: ignore[misc]
    """Yamux that notices a dead or cheating peer, and never leaves half a frame on the wire.

    Attributes:
        in_use: whether the connection carries, or has carried, a link; set by the link's owner.
    """

    in_use = False

    async def start(self) -> None:
        """Run until the connection ends.

        The swarm runs this as a task of its own, where any exception would end the whole swarm.
        """
        try:
            await super().start()
        except Exception as error:
            log.debug("muxer of %s failed: %r", self.peer_id, error)
        finally:
            if not self.event_closed.is_set():
                with shielded(CLOSE_LIMIT_S):
                    await self._cleanup_on_error()

    async def _write_frame(self, data: bytes) -> None:
        """Write a whole frame, or close the connection.

        The original can be cancelled between two halves of a Noise record, after which the peer
        decrypts garbage, and waits for ever on a peer that stopped reading.
        """
        async with self._write_lock:
            if self.event_closed.is_set():
                raise MuxedStreamError("the connection is closed")
            with shielded(WRITE_LIMIT_S) as limit:
                await self.secured_conn.write(data)
            if limit.cancelled_caught:
                await self._abort()
                raise MuxedStreamError(f"no frame could be sent for {WRITE_LIMIT_S:.0f} s")
        await trio.lowlevel.checkpoint_if_cancelled()

    async def close(self, error_code: int = yamux.GO_AWAY_NORMAL) -> None:
        """Say goodbye and close; without the goodbye if a frame is stuck on the socket."""
        if self._write_lock.locked():
            await self._abort()
        await super().close(error_code)

    async def _abort(self) -> None:
        """Close the socket under the muxer, whose reader then cleans up."""
        self.event_shutting_down.set()
        with shielded(CLOSE_LIMIT_S):
            try:
                await self.secured_conn.close()
            except Exception as error:
                log.debug("closing the socket of %s: %r", self.peer_id, error)

    async def _measure_rtt_loop(self) -> None:
        """Ping every 10 s, and close the connection when no pong comes.

        The original measures and ignores the result: a frozen peer is never noticed.
        """
        while True:
            with trio.move_on_after(KEEPALIVE_EVERY_S):
                await self.event_shutting_down.wait()
                return
            self._ping_id = (self._ping_id + 1) % 2**32
            self._ping_event = trio.Event()
            ping = struct.pack(
                yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_PING, yamux.FLAG_SYN, 0, self._ping_id
            )
            self._ping_sent_time = trio.current_time()
            try:
                await self._write_frame(ping)
            except Exception:
                return
            with trio.move_on_after(PONG_LIMIT_S):
                await self._ping_event.wait()
            if not self._ping_event.is_set():
                log.info("%s does not answer pings", self.peer_id)
                await self._abort()
                return

    async def _read_data_body(self, length: int) -> bytes:
        """Read the body of a data frame, if there is room for it.

        The original logs a warning when a peer exceeds its window, and buffers on without end.
        """
        held = sum(map(len, self.stream_buffers.values()))
        if held + length > CONNECTION_BUFFER:
            raise ReceiveOverrunError(f"{self.peer_id} sent beyond its window")
        body: bytes = await super()._read_data_body(length)
        return body

    async def accept_stream(self) -> Any:
        """The next stream the peer opens; one too many ends the connection.

        The original takes any number and keeps a task for each.
        """
        stream = await super().accept_stream()
        if len(self.streams) > STREAMS_PER_CONNECTION:
            raise MuxedConnUnavailable("too many streams")
        return stream


class MuxerChoice(MuxerMultistream):  # type: ignore[misc]
    """Muxer negotiation that builds the class it was given; the original builds its own Yamux."""

    async def new_conn(self, conn: Any, peer_id: Any) -> Any:
        """Agree on a muxer with the peer and start it on ``conn``."""
        protocol, build = await self._selector.select(
            conn, conn.is_initiator, self.negotiate_timeout
        )
        muxer = build(conn, peer_id, is_initiator=conn.is_initiator)
        return self._annotate_connection(muxer, conn, protocol)


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
