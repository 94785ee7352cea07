"""Requests and replies between linked peers, on streams of their own beside the link's.

Each side opens one persistent stream for the calls it makes; the muxer's window of that stream is
its credit, so that bulk on it neither blocks the link's messages nor grows without bound here. A
single task writes to each stream, and whoever waits for a reply waits on an event: giving up never
leaves half a frame behind. When the link moves to a better connection, new calls go there and those
under way end where they are.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Final

import msgspec
import trio

from node.mesh.link import BATCH_BYTES, CLOSE_LIMIT_S, READ_BYTES, LiveLink, shielded
from node.mesh.wire import Carrier, Wire
from protocol import limits
from protocol.codec import decode, encode
from protocol.errors import (
    BackpressureError,
    CallError,
    MeshError,
    ProtocolError,
    SwarmError,
    TooLargeError,
    UnreachableError,
)
from protocol.frames import FrameDecoder, encode_frame
from protocol.ids import PeerId, short_peer

PROTOCOL_ID: Final = "/swarmd/call"
"""The libp2p protocol of the stream."""
SERVE_LIMIT_S: Final = 30.0
"""The longest that a call is worked on, whatever the caller allows."""
BULK_BYTES: Final = 64 << 10
"""Calls of this size and more have a stream of their own, so that small ones overtake them."""
OPENED_LIMIT: Final = 4
"""Streams for calls that a peer may have open with us at once: for small ones and for bulk, and as
many while it moves."""

log = logging.getLogger(__name__)

Answer = Callable[[PeerId, bytes], Awaitable[bytes]]
"""Answers a call of a peer; a SwarmError it raises is the caller's CallError."""

_Id = Annotated[int, msgspec.Meta(ge=0, le=2**32)]


class Call(msgspec.Struct, frozen=True, array_like=True, tag="call", forbid_unknown_fields=True):
    """A request.

    Attributes:
        id: names it on its stream.
        method: what is asked.
        limit_ms: how long the caller waits.
    """

    id: _Id
    method: Annotated[str, msgspec.Meta(max_length=32)]
    limit_ms: Annotated[int, msgspec.Meta(ge=1, le=limits.PHASE_MS)]
    body: bytes


class Reply(msgspec.Struct, frozen=True, array_like=True, tag="reply", forbid_unknown_fields=True):
    """What came of a request."""

    id: _Id
    body: bytes


class Failure(
    msgspec.Struct, frozen=True, array_like=True, tag="failed", forbid_unknown_fields=True
):
    """Why nothing came of a request."""

    id: _Id
    code: Annotated[str, msgspec.Meta(max_length=32)]
    reason: Annotated[str, msgspec.Meta(max_length=limits.TEXT_CHARS)]


class Calls:
    """The calls of this node and the answers it gives.

    Args:
        carrier_of: the connection that the link to a peer uses now; raises UnreachableError.
        is_linked: whether there is a link to a peer.

    Attributes:
        answers: by method. Every linked peer may call them.
        served: calls answered since the start, by method.
    """

    def __init__(
        self,
        carrier_of: Callable[[PeerId], Carrier],
        is_linked: Callable[[PeerId], bool],
    ) -> None:
        self.answers: dict[str, Answer] = {}
        self._carrier_of = carrier_of
        self._is_linked = is_linked
        self._callers: dict[PeerId, list[_Caller]] = {}
        self._serving: dict[PeerId, list[trio.CancelScope]] = {}
        self._nursery: trio.Nursery | None = None
        self.served: Counter[str] = Counter()

    async def run(self) -> None:
        """Carry calls, for ever."""
        try:
            async with trio.open_nursery() as self._nursery:
                await trio.sleep_forever()
        finally:
            self._nursery = None

    async def call(self, peer: PeerId, method: str, body: bytes, limit_s: float) -> bytes:
        """What ``peer`` answers.

        Args:
            limit_s: seconds to wait, opening the stream included.

        Raises:
            UnreachableError: there is no link, or it was cut before the reply.
            BackpressureError: too many calls to that peer wait already.
            TooLargeError: the call does not fit into a frame.
            CallError: the peer refused, failed, or took too long.
        """
        try:
            with trio.fail_after(limit_s), self._caller(peer, len(body) >= BULK_BYTES) as caller:
                await caller.ready.wait()
                if caller.ended:
                    raise UnreachableError(caller.reason)
                return await caller.call(method, body, limit_s)
        except trio.TooSlowError as error:
            raise CallError(f"{short_peer(peer)} did not answer {method!r} in time.") from error

    async def follow(self, live: LiveLink) -> None:
        """Let go of what a link does not use any more: streams on connections that it has left,
        once the calls on them have ended, and all streams at its end."""
        while True:
            await live.path_changed()
            self._tidy(live.peer)
            if live.gone.is_set():
                return

    def _tidy(self, peer: PeerId) -> None:
        carrier = self._carrier_of(peer) if self._is_linked(peer) else None
        for caller in self._callers.get(peer, ()):
            if carrier is None:
                caller.end()
            elif caller.carrier is not carrier:
                caller.retire()
        if carrier is None:
            for scope in self._serving.get(peer, ()):
                scope.cancel()

    def _caller(self, peer: PeerId, bulk: bool) -> _Caller:
        carrier = self._carrier_of(peer)
        for caller in self._callers.get(peer, ()):
            if caller.carrier is carrier and caller.bulk is bulk and not caller.ended:
                return caller
        if self._nursery is None:
            raise UnreachableError("The mesh is stopping.")
        caller = _Caller(peer, carrier, bulk)
        self._callers.setdefault(peer, []).append(caller)
        self._nursery.start_soon(self._run_caller, caller)
        return caller

    async def _run_caller(self, caller: _Caller) -> None:
        caller.carrier.hold()
        try:
            await caller.run()
        finally:
            caller.carrier.release()
            self._callers[caller.peer].remove(caller)
            if not self._callers[caller.peer]:
                del self._callers[caller.peer]

    async def serve(self, wire: Wire, peer: PeerId) -> None:
        """Answer the calls that come on ``wire``, until it ends."""
        serving = self._serving.get(peer, [])
        if not self._is_linked(peer) or len(serving) >= OPENED_LIMIT:
            await wire.reset()
            return
        self._serving[peer] = serving
        # The link may go on elsewhere before the last call is answered.
        wire.carrier.hold()
        try:
            with trio.CancelScope() as scope:
                serving.append(scope)
                await _Server(peer, wire, self.answers, self.served).run()
        finally:
            wire.carrier.release()
            serving.remove(scope)
            if not serving:
                del self._serving[peer]
            with shielded(CLOSE_LIMIT_S):
                await wire.reset()


class _Outbox:
    """Frames on their way to a stream that one task writes."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._wake = trio.Event()
        self._written = trio.Event()

    def has_room(self, size: int) -> bool:
        return not self._bytes or self._bytes + size <= limits.SEND_QUEUE_BYTES

    async def room(self, size: int) -> None:
        while not self.has_room(size):
            if self._written.is_set():
                self._written = trio.Event()
            await self._written.wait()

    def put(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._bytes += len(frame)
        self._wake.set()

    async def run(self) -> None:
        while True:
            while not self._frames:
                self._wake = trio.Event()
                await self._wake.wait()
            batch = [self._frames.popleft()]
            size = len(batch[0])
            while self._frames and size + len(self._frames[0]) <= BATCH_BYTES:
                batch.append(self._frames.popleft())
                size += len(batch[-1])
            await self._wire.write(batch[0] if len(batch) == 1 else b"".join(batch))
            self._bytes -= size
            self._written.set()


class _Caller:
    """The calls to one peer on one connection; a context for each call."""

    def __init__(self, peer: PeerId, carrier: Carrier, bulk: bool) -> None:
        self.peer = peer
        self.bulk = bulk
        self.carrier = carrier
        self.ready = trio.Event()
        self.ended = False
        self.reason = "The connection was cut."
        self._ids = itertools.count(1)
        self._waiting: dict[int, trio.Event] = {}
        self._replies: dict[int, Reply | Failure] = {}
        self._outbox: _Outbox | None = None
        self._scope = trio.CancelScope()
        self._users = 0
        self._retired = False

    def __enter__(self) -> _Caller:
        self._users += 1
        return self

    def __exit__(self, *error: object) -> None:
        self._users -= 1
        if self._retired and not self._users:
            self._scope.cancel()

    def retire(self) -> None:
        """End once no call waits any more."""
        self._retired = True
        if not self._users:
            self._scope.cancel()

    def end(self) -> None:
        """End now: the link is gone."""
        self._scope.cancel()

    async def call(self, method: str, body: bytes, limit_s: float) -> bytes:
        assert self._outbox is not None
        if len(self._waiting) >= limits.CALLS_PER_PEER:
            raise BackpressureError(f"{len(self._waiting)} calls to {short_peer(self.peer)} wait.")
        number = next(self._ids) & 0xFFFFFFFF
        limit_ms = max(1, min(round(1000 * limit_s), limits.PHASE_MS))
        frame = encode_frame(encode(Call(number, method, limit_ms, body)))
        if not self._outbox.has_room(len(frame)):
            raise BackpressureError(f"Calls to {short_peer(self.peer)} wait to be sent.")
        event = self._waiting[number] = trio.Event()
        try:
            self._outbox.put(frame)
            await event.wait()
        finally:
            del self._waiting[number]
            reply = self._replies.pop(number, None)
        if isinstance(reply, Reply):
            return reply.body
        if reply is None:
            raise UnreachableError(self.reason)
        said = f"{short_peer(self.peer)} says: {reply.reason} ({reply.code})"
        # A stranger's words, which people will read.
        raise CallError(
            "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in said)
        )

    async def run(self) -> None:
        wire: Wire | None = None
        try:
            with self._scope:
                wire = await self.carrier.open(PROTOCOL_ID)
                self._outbox = _Outbox(wire)
                self.ready.set()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._outbox.run)
                    await self._read(wire)
                    nursery.cancel_scope.cancel()
        except* trio.BrokenResourceError as errors:
            self.reason = str(_first(errors.exceptions))
        except* ProtocolError as errors:
            self.reason = f"It sent no reply: {_first(errors.exceptions)}"
        finally:
            self.ended = True
            self.ready.set()
            for event in self._waiting.values():
                event.set()
            if wire is not None:
                with shielded(CLOSE_LIMIT_S):
                    await wire.reset()

    async def _read(self, wire: Wire) -> None:
        decoder = FrameDecoder()
        while data := await wire.read(READ_BYTES):
            for payload in decoder.feed(data):
                reply: Reply | Failure = decode(payload, Reply | Failure)  # type: ignore[arg-type]
                event = self._waiting.get(reply.id)
                # A reply that nobody waits for any more came too late.
                if event is not None and not event.is_set():
                    self._replies[reply.id] = reply
                    event.set()


class _Server:
    """The calls of one peer on one of its streams."""

    def __init__(
        self, peer: PeerId, wire: Wire, answers: dict[str, Answer], served: Counter[str]
    ) -> None:
        self._served = served
        self._peer = peer
        self._wire = wire
        self._answers = answers
        self._outbox = _Outbox(wire)
        self._slots = trio.Semaphore(limits.CALLS_SERVED)

    async def run(self) -> None:
        decoder = FrameDecoder()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._outbox.run)
                while data := await self._wire.read(READ_BYTES):
                    for payload in decoder.feed(data):
                        call = decode(payload, Call)
                        await self._slots.acquire()
                        nursery.start_soon(self._answer, call)
                nursery.cancel_scope.cancel()
        except* trio.BrokenResourceError:
            pass
        except* ProtocolError as errors:
            reason = _first(errors.exceptions)
            log.warning("peer %s sent no call: %s", short_peer(self._peer), reason)

    async def _answer(self, call: Call) -> None:
        try:
            reply: Reply | Failure
            try:
                reply = Reply(call.id, await self._work(call))
            except SwarmError as error:
                reply = Failure(call.id, error.code, str(error)[: limits.TEXT_CHARS])
            except trio.TooSlowError:
                reply = Failure(call.id, "timeout", "It took too long.")
            except Exception:
                log.exception("the call %r of %s failed", call.method, short_peer(self._peer))
                reply = Failure(call.id, "internal", "It failed here.")
            try:
                frame = encode_frame(encode(reply))
            except TooLargeError as error:
                failure = Failure(call.id, error.code, "The reply does not fit into a frame.")
                frame = encode_frame(encode(failure))
            # Still holding the slot: who does not read replies is not answered further calls.
            await self._outbox.room(len(frame))
            self._outbox.put(frame)
        finally:
            self._slots.release()

    async def _work(self, call: Call) -> bytes:
        answer = self._answers.get(call.method)
        if answer is None:
            raise MeshError(f"There is no method {call.method[:16]!r}.")
        self._served[call.method] += 1
        with trio.fail_after(min(call.limit_ms / 1000, SERVE_LIMIT_S)):
            return await answer(self._peer, call.body)


def _first(errors: Iterable[BaseException]) -> BaseException:
    """The first of what went wrong together."""
    error = next(iter(errors))
    return _first(error.exceptions) if isinstance(error, BaseExceptionGroup) else error
