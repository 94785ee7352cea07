"""The greeting on a fresh stream: who speaks, in which swarm, in which version, or why not.

Of two peers the one with the larger key speaks first; the one with the smaller key answers, and by
answering alone decides that this connection is the link. So two peers that dial each other at the
same moment keep one connection, and neither ever sends payloads on the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

import trio

from node.mesh.wire import Wire
from protocol import limits
from protocol.errors import DecodeError, MeshError, SwarmError, WrongSwarmError
from protocol.frames import (
    PREFIX_BYTES,
    FrameDecoder,
    Goodbye,
    Hello,
    decode_greeting,
    encode_greeting,
)

PROTOCOL_ID: Final = "/swarmd"
"""The libp2p protocol of the wire. Without a version: that is the greeting's business."""
GREETING_LIMIT_S: Final = 8.0
LINGER_S: Final = 1.0
"""How long a Goodbye may take to arrive before the connection is closed under it."""


class DuplicateLinkError(MeshError):
    """The two peers are connected already."""

    code = "duplicate"


class CrowdedError(MeshError):
    """The peer has as many connections as it takes."""

    code = "crowded"


class TurnedAwayError(MeshError):
    """The peer refused the connection."""

    code = "turned-away"

    def __init__(self, goodbye: Goodbye) -> None:
        super().__init__(f"It says: {goodbye.reason}")
        self.goodbye = goodbye


async def greet(
    wire: Wire,
    decoder: FrameDecoder,
    ours: Hello,
    admit: Callable[[Hello], None] | None,
) -> Hello:
    """Exchange Hellos on ``wire``.

    Args:
        wire: a fresh stream.
        decoder: receives the stream; afterwards it holds what came behind the greeting.
        ours: what to say.
        admit: given by the side that answers: called with their Hello, raises to refuse it.

    Returns:
        their Hello.

    Raises:
        TurnedAwayError: they said goodbye.
        SwarmError: we refuse them; the caller says goodbye.
    """
    decoder.limit = limits.HELLO_BYTES
    if admit is None:
        await wire.write(encode_greeting(ours))
    theirs = decode_greeting(await _first_frame(wire, decoder))
    if isinstance(theirs, Goodbye):
        raise TurnedAwayError(theirs)
    if theirs.swarm != ours.swarm:
        raise WrongSwarmError(f"The peer is in {theirs.swarm!r}, this node in {ours.swarm!r}.")
    if admit is not None:
        admit(theirs)
        await wire.write(encode_greeting(ours))
    decoder.limit = limits.FRAME_BYTES
    return theirs


async def _first_frame(wire: Wire, decoder: FrameDecoder) -> bytes:
    data = b""
    while True:
        frames = decoder.feed(data, most=1)
        if frames:
            return frames[0]
        if decoder.moved:
            raise DecodeError("It says that it goes on elsewhere before it has said who it is.")
        data = await wire.read(limits.HELLO_BYTES + PREFIX_BYTES)
        if not data:
            raise trio.BrokenResourceError("the stream ended before the greeting")


async def say_goodbye(wire: Wire, error: SwarmError) -> None:
    """Tell the peer why, and give it a moment to read that. Raises nothing but cancellation."""
    with trio.move_on_after(LINGER_S):
        with contextlib.suppress(trio.BrokenResourceError):
            await wire.write(encode_greeting(Goodbye(error.code, str(error))))
            await wire.end_writing()
            while await wire.read(limits.HELLO_BYTES):
                pass
