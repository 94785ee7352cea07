"""One link: a stream to one peer, its send queue and its reader.

A single task writes, taking whole frames from a bounded queue; a single task reads, and stops
reading while the consumer lags, so that the peer's own queue fills up instead of our memory.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Final

import trio

from node.mesh.base import Link, Received
from node.mesh.inbox import Inbox
from node.mesh.wire import Wire
from protocol import limits
from protocol.errors import BackpressureError, ProtocolError, TooLargeError
from protocol.frames import FrameDecoder, encode_frame
from protocol.ids import short_peer

READ_BYTES: Final = 256 << 10
"""Bytes asked of the stream at once."""
BATCH_BYTES: Final = 64 << 10
"""Small frames are written together up to this size: one encryption and one system call."""

CLOSE_LIMIT_S: Final = 2.0
"""An orderly close; after that the connection is dropped."""

log = logging.getLogger(__name__)


def shielded(limit_s: float) -> trio.CancelScope:
    """A scope that no cancellation from outside enters, for ``limit_s`` seconds at most."""
    return trio.CancelScope(deadline=trio.current_time() + limit_s, shield=True)


class LiveLink:
    """A link between the greeting and its end.

    Args:
        link: who and where.
        wire: the stream, already greeted on.
        decoder: its decoder, with whatever came behind the greeting.
        inbox: where payloads go.
        session: the peer's session, from its Hello.

    Attributes:
        gone: set by the owner once the end of the link has been reported.
    """

    def __init__(
        self, link: Link, wire: Wire, decoder: FrameDecoder, inbox: Inbox, session: bytes
    ) -> None:
        self.link = link
        self.session = session
        self.wire = wire
        self.gone = trio.Event()
        self._decoder = decoder
        self._inbox = inbox
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._wake = trio.Event()
        self._scope = trio.CancelScope()
        self._reason = "the peer closed the connection"
        self._fault: ProtocolError | None = None

    def send(self, payload: bytes) -> None:
        """Queue ``payload``.

        Raises:
            BackpressureError: the queue is full, in messages or in bytes.
            TooLargeError: the payload exceeds ``limits.FRAME_BYTES``.
        """
        frame = encode_frame(payload)
        if (
            len(self._queue) >= limits.SEND_QUEUE_MESSAGES
            or self._queued_bytes + len(frame) > limits.SEND_QUEUE_BYTES
        ):
            raise BackpressureError(
                f"{len(self._queue)} messages ({self._queued_bytes} bytes) wait for peer "
                f"{short_peer(self.link.peer)}; send less, or wait."
            )
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        self._wake.set()

    def close(self, reason: str) -> None:
        """End the link soon, for ``reason``."""
        self._reason = reason
        self._scope.cancel()

    async def run(self) -> tuple[str, ProtocolError | None]:
        """Carry payloads until the link ends.

        Returns:
            why it ended, and the error if the peer broke the protocol.
        """
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                await self._read()
                nursery.cancel_scope.cancel()
        return self._reason, self._fault

    async def _read(self) -> None:
        peer = self.link.peer
        data = b""
        try:
            while True:
                for payload in self._decoder.feed(data):
                    await self._inbox.room(peer)
                    self._inbox.put(peer, Received(peer, payload))
                await self._inbox.room(peer)
                data = await self.wire.read(READ_BYTES)
                if not data:
                    return
        except TooLargeError as error:
            self._reason, self._fault = str(error), error
        except trio.BrokenResourceError as error:
            log.debug("reading from %s: %s", short_peer(peer), error)

    async def _write(self) -> None:
        try:
            while True:
                if not self._queue:
                    self._wake = trio.Event()
                    await self._wake.wait()
                batch = self._take_batch()
                await self.wire.write(batch)
                self._queued_bytes -= len(batch)
        except trio.BrokenResourceError as error:
            self._reason = f"sending failed: {error}"
            # What the peer sent before it went away may still be read.
            self._scope.deadline = trio.current_time() + CLOSE_LIMIT_S

    def _take_batch(self) -> bytes:
        frames = [self._queue.popleft()]
        size = len(frames[0])
        while self._queue and size + len(self._queue[0]) <= BATCH_BYTES:
            frames.append(self._queue.popleft())
            size += len(frames[-1])
        return frames[0] if len(frames) == 1 else b"".join(frames)
