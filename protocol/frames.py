"""Frames on a mesh stream, and the two that open it.

A frame is a four-byte big-endian length and that many bytes. The first frame each side sends is a
:class:`Hello`, or a :class:`Goodbye` instead of one; every later frame is one payload. Of the two
sides the peer with the smaller key answers second, so that it alone decides which of two
connections made at the same time stays.

A length of exactly 2³¹ is the mark :data:`MOVED`: the sender goes on with this conversation on
another stream, and nothing follows here. So a link passes from a relay to a direct connection
without a frame lost, repeated or overtaken.

Hello and Goodbye belong to no protocol version and keep their encoding for ever: later versions
may append fields, and a reader ignores what it does not know. This is the one place where unknown
fields are let through, so that a node from the future is refused by its version, not as garbage.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from protocol import codec, limits, version
from protocol.errors import DecodeError, TooLargeError

PREFIX_BYTES: Final = 4
MOVED: Final = b"\x80\x00\x00\x00"
"""Stands where a length would: the sender continues on another stream."""

_Text = Annotated[str, msgspec.Meta(max_length=limits.TEXT_CHARS)]
_Version = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """Who speaks, before anything else is said.

    Attributes:
        oldest: the oldest protocol version the sender speaks.
        newest: the newest one.
        swarm: the name of the sender's swarm.
        agent: software and version, for people.
        session: random bytes chosen when the node started: a new session tells a restarted peer
            from a second connection.
        observed: the multiaddr from which the sender sees the receiver, empty where it sees none
            (a relay is in between): what a NAT makes of the receiver's address.
    """

    oldest: _Version
    newest: _Version
    swarm: _Text
    agent: _Text
    session: Annotated[bytes, msgspec.Meta(min_length=8, max_length=32)]
    observed: _Text = ""


class Goodbye(msgspec.Struct, frozen=True, array_like=True, tag="goodbye"):
    """Why the sender will not speak; it closes the stream after this frame.

    Attributes:
        code: for programs, such as ``version-mismatch`` or ``wrong-swarm``.
        reason: for people.
    """

    code: Annotated[str, msgspec.Meta(max_length=32)]
    reason: _Text


class _Range(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """The part of a Hello that has to be readable whatever follows it."""

    oldest: _Version
    newest: _Version


_first_look = msgspec.msgpack.Decoder(_Range | Goodbye)
_whole_hello = msgspec.msgpack.Decoder(Hello)


def encode_frame(payload: bytes) -> bytes:
    """``payload`` behind its length.

    Raises:
        TooLargeError: longer than ``limits.FRAME_BYTES``.
    """
    if len(payload) > limits.FRAME_BYTES:
        raise TooLargeError(f"{len(payload)} bytes where a frame holds {limits.FRAME_BYTES}.")
    return len(payload).to_bytes(PREFIX_BYTES, "big") + payload


def encode_greeting(greeting: Hello | Goodbye) -> bytes:
    """The frame that carries ``greeting``; a Goodbye's reason is cut to what a peer takes.

    Raises:
        TooLargeError: a Hello whose texts are too long.
    """
    if isinstance(greeting, Goodbye):
        reason = greeting.reason[: limits.TEXT_CHARS].encode()[: limits.HELLO_BYTES // 2]
        greeting = Goodbye(code=greeting.code, reason=reason.decode(errors="ignore"))
    payload = codec.encode(greeting)
    if len(payload) > limits.HELLO_BYTES:
        raise TooLargeError(f"A greeting of {len(payload)} bytes, {limits.HELLO_BYTES} are taken.")
    return encode_frame(payload)


def decode_greeting(payload: bytes) -> Hello | Goodbye:
    """The first frame of a peer.

    The texts in it come from a stranger and are shown to people: what is not printable is replaced.

    Raises:
        TooLargeError: longer than ``limits.HELLO_BYTES``.
        DecodeError: neither a Hello nor a Goodbye.
        VersionMismatchError: a Hello of a peer with no version in common, whatever else it holds.
    """
    if len(payload) > limits.HELLO_BYTES:
        raise TooLargeError(f"A greeting of {len(payload)} bytes, {limits.HELLO_BYTES} are taken.")
    try:
        first = _first_look.decode(payload)
        if isinstance(first, Goodbye):
            return Goodbye(code=_printable(first.code), reason=_printable(first.reason))
        version.negotiate(first.oldest, first.newest)
        hello = _whole_hello.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"Not a greeting of this protocol: {error}.") from error
    return msgspec.structs.replace(hello, agent=_printable(hello.agent))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


class FrameDecoder:
    """Cuts a byte stream into frames. No I/O.

    Holds at most one incomplete frame: ``limit`` bytes, its prefix, and the last chunk fed.

    Args:
        limit: the longest frame taken, in bytes; may be changed between calls of :meth:`feed`.

    Attributes:
        moved: the mark :data:`MOVED` was read; what follows it is not a frame and is dropped.
    """

    def __init__(self, limit: int = limits.FRAME_BYTES) -> None:
        self.limit = limit
        self.moved = False
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes held that are not yet a whole frame."""
        return len(self._buffer)

    def feed(self, data: bytes, most: int | None = None) -> list[bytes]:
        """The frames that ``data`` completes, in order.

        Args:
            data: what the stream gave next, of any length.
            most: return no more frames than this and keep the rest, so that the limit can be
                changed after the greeting.

        Raises:
            TooLargeError: a frame declares more than ``limit`` bytes. Raised as soon as the
                prefix is there, and again on every later call: the stream cannot be resumed.
        """
        buffer = self._buffer
        if self.moved:
            return []
        buffer += data
        frames: list[bytes] = []
        start = 0
        while most is None or len(frames) < most:
            body = start + PREFIX_BYTES
            if len(buffer) < body:
                break
            if buffer[start:body] == MOVED:
                self.moved = True
                buffer.clear()
                return frames
            size = int.from_bytes(buffer[start:body], "big")
            if size > self.limit:
                del buffer[:start]
                raise TooLargeError(f"A frame declares {size} bytes, {self.limit} are taken.")
            if len(buffer) < body + size:
                break
            with memoryview(buffer) as view:
                frames.append(bytes(view[body : body + size]))
            start = body + size
        del buffer[:start]
        return frames
