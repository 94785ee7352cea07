"""Yamux as this node needs it: a repaired stream and connection; see :mod:`node.mesh.harden`."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from typing import Any, Final

import trio
from libp2p.io.exceptions import IncompleteReadError
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux import yamux

from node.mesh.link import CLOSE_LIMIT_S, shielded
from node.mesh.records import Records

WRITE_LIMIT_S: Final = 20.0
"""One muxer frame (64 KiB at most) on the socket; a slower peer is cut off."""
STALL_LIMIT_S: Final = 60.0
"""How long a peer may take nothing from a stream that has something for it."""
KEEPALIVE_EVERY_S: Final = 10.0
PONG_LIMIT_S: Final = 15.0
RECEIVE_WINDOW: Final = 256 << 10
"""Bytes a peer may send on a stream before we read them: what a small message on another stream may
find ahead of it. It bounds bulk to a window in a round trip, 5 MB/s at 50 ms."""
SPARE_WINDOWS: Final = 2
"""Windows of unread bytes a connection may hold beyond those of the streams we serve on it;
beyond that the peer is cheating."""
STREAMS_PER_CONNECTION: Final = 160
"""A connection to a relay carries a stream for each circuit."""
BULK: Final = 16 << 10
"""Whoever writes a frame from this size on gives way to other writers after it."""
CHUNK: Final = MAX_PLAINTEXT_LENGTH - yamux.HEADER_SIZE
"""Payload of one muxer frame: with its header it fills one Noise record. The original spills 17
bytes into a second one."""

_header = struct.Struct(yamux.YAMUX_HEADER_FORMAT)

log = logging.getLogger(__name__)


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

    async def read(self, n: int | None = -1) -> bytes:
        """What has arrived, at most ``n`` bytes; waits for something.

        The original takes a lock to look at the buffer, with a turn of the event loop each time.
        """
        buffers, events = self.conn.stream_buffers, self.conn.stream_events
        while not (self.recv_closed or self.closed or self.conn.event_shutting_down.is_set()):
            buffer: bytearray | None = buffers.get(self.stream_id)
            if buffer:
                size = len(buffer) if n is None or n < 0 else min(n, len(buffer))
                with memoryview(buffer) as view:
                    data = bytes(view[:size])
                del buffer[:size]
                await self._auto_tune_and_send_window_update(bytes_read=size)
                return data
            if buffer is None:
                break
            if events[self.stream_id].is_set():
                events[self.stream_id] = trio.Event()
            await events[self.stream_id].wait()
        # The ways in which a stream ends are the original's.
        rest: bytes = await super().read(n)
        return rest

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
        held: how many need the connection.
        served: streams in use by us, whoever opened them.
        reset_socket: has the socket end with a reset when it is closed.
        rtt_s: the round trip last measured, in seconds.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._records = Records(self.secured_conn)
        # The one thing that the muxer's loop reads from there are headers.
        self.secured_conn.read = self._next_header
        self.held = 0
        self.served = 0
        self.reset_socket: Callable[[], None] = lambda: None
        self._ping_id = 0
        self.rtt_s: float | None = None
        self._idle_since = trio.current_time()
        self._holding = trio.Event()

    def hold(self) -> None:
        """Keep the connection, once more."""
        self.held += 1
        self._holding.set()

    def release(self) -> None:
        """Take one :meth:`hold` back."""
        self.held -= 1
        self._idle_since = trio.current_time()

    async def until_held_or_closed(self, limit_s: float) -> None:
        """Wait until somebody holds the connection, it ends, or the time is over."""

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        with trio.move_on_after(limit_s):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, self._holding)
                nursery.start_soon(wait, self.event_closed)

    async def tend(self, idle_limit_s: float) -> None:
        """Wait for the end of the connection, and end it once nobody held it for so long."""
        while not self.event_closed.is_set():
            idle = 0.0 if self.held else trio.current_time() - self._idle_since
            if idle >= idle_limit_s:
                await self.close()
                return
            with trio.move_on_after(idle_limit_s - idle):
                await self.event_closed.wait()

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
        try:
            self._write_lock.acquire_nowait()  # acquire() would give way first, even if it is free
        except trio.WouldBlock:
            await self._write_lock.acquire()
        try:
            if self.event_closed.is_set():
                raise MuxedStreamError("the connection is closed")
            record = self._records.seal(data)
            written = self._records.write_now(record)
            if written < len(record):
                with shielded(WRITE_LIMIT_S) as limit:
                    await self._records.write(record[written:])
                if limit.cancelled_caught:
                    await self._abort()
                    raise MuxedStreamError(f"no frame could be sent for {WRITE_LIMIT_S:.0f} s")
        finally:
            self._write_lock.release()
        if len(data) < BULK:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()  # others may have small ones

    async def close(self, error_code: int = yamux.GO_AWAY_NORMAL) -> None:
        """Say goodbye and close; without the goodbye if a frame is stuck on the socket."""
        if self._write_lock.locked():
            await self._abort()
        await super().close(error_code)

    async def _abort(self) -> None:
        """Close the socket under the muxer, whose reader then cleans up."""
        self.event_shutting_down.set()
        self.reset_socket()
        with shielded(CLOSE_LIMIT_S):
            try:
                await self.secured_conn.close()
            except Exception as error:
                log.debug("closing the socket of %s: %r", self.peer_id, error)

    async def _measure_rtt_loop(self) -> None:
        """Ping at once and every 10 s, and close the connection when no pong comes.

        The original measures and ignores the result: a frozen peer is never noticed.
        """
        while True:
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
            self.rtt_s = trio.current_time() - self._ping_sent_time
            with trio.move_on_after(KEEPALIVE_EVERY_S):
                await self.event_shutting_down.wait()
                return

    async def _next_header(self, size: int) -> bytes:
        """The header of the next frame that is not plain data for an open stream.

        Plain data, which is nearly everything, goes to its stream here. The original describes
        each frame for a log that nobody keeps, and copies it six times.
        """
        plain = self._records.plain
        while True:
            await self._arrived(size)
            _, kind, flags, stream_id, length = _header.unpack_from(plain)
            stream = self.streams.get(stream_id)
            if kind != yamux.TYPE_DATA or flags or stream is None or stream.recv_closed:
                header = bytes(plain[:size])
                del plain[:size]
                return header
            self._check_room(length)
            await self._arrived(size + length)
            # Another task may have closed the stream meanwhile.
            if stream_id in self.streams:
                with memoryview(plain) as view:
                    self.stream_buffers[stream_id] += view[size : size + length]
                stream.recv_window -= length
                self.stream_events[stream_id].set()
            del plain[: size + length]

    async def _arrived(self, size: int) -> None:
        """Wait until so many bytes are there.

        Raises:
            IncompleteReadError: the connection ended before.
        """
        plain = self._records.plain
        while len(plain) < size:
            if not await self._records.more():
                raise IncompleteReadError(
                    "the connection ended", expected_bytes=size, received_bytes=len(plain)
                )

    def _check_room(self, length: int) -> None:
        """The original logs a warning when a peer exceeds its window, and buffers on without end.

        Raises:
            ReceiveOverrunError: there is no room for a frame of ``length`` bytes.
        """
        unread = sum(map(len, self.stream_buffers.values()))
        if unread + length > (SPARE_WINDOWS + self.served) * RECEIVE_WINDOW:
            raise ReceiveOverrunError(f"{self.peer_id} sent beyond its window")

    async def _read_data_body(self, length: int) -> bytes:
        """The body of a data frame whose header :meth:`_next_header` gave."""
        self._check_room(length)
        with trio.fail_after(WRITE_LIMIT_S):
            await self._arrived(length)
        plain = self._records.plain
        body = bytes(plain[:length])
        del plain[:length]
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
        # Under Noise lies what we gave it: a TCP stream of ours, or a circuit.
        stream = conn.conn.read_writer.read_write_closer.stream
        muxer.reset_socket = getattr(stream, "reset", muxer.reset_socket)
        return self._annotate_connection(muxer, conn, protocol)
