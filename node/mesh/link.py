"""One link: a stream to one peer, its send queue and its reader.

A single task writes, taking whole frames from a bounded queue; a single task reads, and stops
reading while the consumer lags, so that the peer's own queue fills up instead of our memory.

A link can move to another stream, from a relayed connection to a direct one for instance. Each
side ends what it says on the old stream with a mark and goes on on the new one; each side reads the
old stream up to the mark before it reads the new one. So nothing is lost, repeated or overtaken.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import Final

import trio

from node.mesh.base import Link, PathChanged, Received
from node.mesh.inbox import Inbox
from node.mesh.wire import Carrier, Wire
from protocol import limits
from protocol.errors import BackpressureError, ProtocolError, TooLargeError
from protocol.frames import MOVED, FrameDecoder, encode_frame
from protocol.ids import PeerId, short_peer

READ_BYTES: Final = 256 << 10
"""Bytes asked of the stream at once."""
BATCH_BYTES: Final = 64 << 10
"""Small frames are written together up to this size: one encryption and one system call."""

MOVE_LIMIT_S: Final = 8.0
"""How long the other stream may take to appear after the mark that promises it."""
CLOSE_LIMIT_S: Final = 2.0
"""An orderly close; after that the connection is dropped."""

log = logging.getLogger(__name__)


def shielded(limit_s: float) -> trio.CancelScope:
    """A scope that no cancellation from outside enters, for ``limit_s`` seconds at most."""
    return trio.CancelScope(deadline=trio.current_time() + limit_s, shield=True)


@dataclass(frozen=True, slots=True)
class Leg:
    """A stream that carries a link for a while.

    Attributes:
        wire: already greeted on.
        decoder: its decoder, with whatever came behind the greeting.
        address: the multiaddr in use.
        path: ``direct`` or ``relayed``.
    """

    wire: Wire
    decoder: FrameDecoder
    address: str
    path: str


class LiveLink:
    """A link between the greeting and its end.

    Args:
        peer: who.
        agent: the peer's software, as it says.
        leg: the stream it begins on.
        inbox: where payloads go.
        session: the peer's session, from its Hello.

    Attributes:
        gone: set by the owner once the end of the link has been reported.
        why: why the link is relayed, as whoever looks after paths sees it.
        since: when the link came up, by trio's clock.
        direct_since: since when it is direct; None while it is relayed.
    """

    def __init__(self, peer: PeerId, agent: str, leg: Leg, inbox: Inbox, session: bytes) -> None:
        self.peer = peer
        self.session = session
        self.gone = trio.Event()
        self.why = ""
        self.since = trio.current_time()
        self.direct_since = self.since if leg.path == "direct" else None
        self._agent = agent
        self._inbox = inbox
        self._leg = leg
        self._to_read: deque[Leg] = deque([leg])
        self._to_write: deque[Leg] = deque([leg])
        self._moved = trio.Event()
        self._path_changed = trio.Event()
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._wake = trio.Event()
        self._scope = trio.CancelScope()
        self._reason = "the peer closed the connection"
        self._fault: ProtocolError | None = None

    @property
    def link(self) -> Link:
        """Who and where, as of now."""
        now = trio.current_time()
        relayed = self._leg.path == "relayed"
        return Link(
            self.peer,
            self._leg.address,
            self._leg.path,
            self._agent,
            rtt_s=self.wire.carrier.rtt_s,
            age_s=now - self.since,
            direct_s=None if self.direct_since is None else self.direct_since - self.since,
            why=self.why if relayed else "",
        )

    @property
    def wire(self) -> Wire:
        """The stream in use, or about to be."""
        return self._leg.wire

    @property
    def relayed(self) -> bool:
        """Whether a relay is in between."""
        return self._leg.path == "relayed"

    def is_on(self, carrier: Carrier) -> bool:
        """Whether a stream of the link is on ``carrier``."""
        return any(
            leg.wire.carrier is carrier for leg in (self._leg, *self._to_read, *self._to_write)
        )

    def move(self, leg: Leg) -> None:
        """Go on on another stream, of which the peer knows as well."""
        self._leg = leg
        self._to_read.append(leg)
        self._to_write.append(leg)
        if leg.path == "direct" and self.direct_since is None:
            self.direct_since = trio.current_time()
        elif leg.path == "relayed":
            self.direct_since = None
        self._moved.set()
        self._path_changed.set()
        self._path_changed = trio.Event()
        self._wake.set()
        self._inbox.put(self.peer, PathChanged(self.link))

    async def path_changed(self) -> None:
        """Return once the link has moved or ended."""
        event = self._path_changed
        async with trio.open_nursery() as nursery:

            async def until_gone() -> None:
                await self.gone.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_gone)
            await event.wait()
            nursery.cancel_scope.cancel()

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
                f"{short_peer(self.peer)}; send less, or wait."
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
        try:
            while await self._read_leg(self._to_read[0]):
                if len(self._to_read) == 1:
                    await self._next_leg()
                self._drop_if_done(self._to_read.popleft())
        except TooLargeError as error:
            self._reason, self._fault = str(error), error
        except trio.TooSlowError:
            self._reason = "the peer did not go on where it said it would"
        except trio.BrokenResourceError as error:
            log.debug("reading from %s: %s", short_peer(self.peer), error)

    async def _read_leg(self, leg: Leg) -> bool:
        """Read to the end of ``leg``; whether the peer said that it goes on elsewhere."""
        data = b""
        while True:
            for payload in leg.decoder.feed(data):
                await self._inbox.room(self.peer)
                self._inbox.put(self.peer, Received(self.peer, payload))
            if leg.decoder.moved:
                return True
            await self._inbox.room(self.peer)
            data = await leg.wire.read(READ_BYTES)
            if not data:
                return False

    async def _next_leg(self) -> None:
        """Wait for the stream to which the peer has gone.

        Raises:
            trio.TooSlowError: it does not appear.
        """
        with trio.fail_after(MOVE_LIMIT_S):
            while len(self._to_read) == 1:
                self._moved = trio.Event()
                await self._moved.wait()

    async def _write(self) -> None:
        try:
            while True:
                leg = self._to_write[0]
                if len(self._to_write) > 1:
                    await leg.wire.write(MOVED)
                    await leg.wire.end_writing()
                    self._drop_if_done(self._to_write.popleft())
                    continue
                if not self._queue:
                    self._wake = trio.Event()
                    await self._wake.wait()
                    continue
                batch = self._take_batch()
                await leg.wire.write(batch)
                self._queued_bytes -= len(batch)
        except trio.BrokenResourceError as error:
            self._reason = f"sending failed: {error}"
            # What the peer sent before it went away may still be read.
            self._scope.deadline = trio.current_time() + CLOSE_LIMIT_S

    def _drop_if_done(self, leg: Leg) -> None:
        """Let go of a stream that is neither read nor written any more.

        It is not cut: the peer may still be reading. Its connection ends once nobody holds it.
        """
        if leg not in self._to_read and leg not in self._to_write:
            leg.wire.carrier.release()

    async def leave(self) -> None:
        """Let go of every stream, at the end."""
        legs = {id(leg): leg for leg in (*self._to_read, *self._to_write)}
        for leg in legs.values():
            leg.wire.carrier.release()
            await leave(leg.wire)

    def _take_batch(self) -> bytes:
        frames = [self._queue.popleft()]
        size = len(frames[0])
        while self._queue and size + len(self._queue[0]) <= BATCH_BYTES:
            frames.append(self._queue.popleft())
            size += len(frames[-1])
        return frames[0] if len(frames) == 1 else b"".join(frames)


async def leave(wire: Wire) -> None:
    """End a stream, and its connection if nobody else holds that."""
    if wire.carrier.held > 0:
        await wire.reset()
    else:
        await wire.carrier.close()
