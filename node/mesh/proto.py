"""Protobuf messages of libp2p's own protocols, each behind its length, on a stream.

The length is an unsigned varint. Nothing is read beyond a message: what follows may be another
protocol's. Deadlines are the caller's.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import trio
from google.protobuf.message import DecodeError as ProtobufError
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from node.mesh.address import Address, parse_address
from node.mesh.link import CLOSE_LIMIT_S, shielded
from node.mesh.wire import Wire
from protocol.errors import ConfigError, DecodeError, MalformedIdError, TooLargeError

MESSAGE_BYTES: Final = 4 << 10
"""The longest message, as the specifications of relay v2 and DCUtR have it."""
HANDSHAKE_LIMIT_S: Final = 8.0
"""How long the other side may take for a message that it owes."""
PEER_ID_BYTES: Final = 64
_LENGTH_BYTES: Final = 3
"""A varint of 21 bits: more than any length taken here."""


class Message(Protocol):
    """What the generated classes have."""

    def ParseFromString(self, serialized: bytes) -> int: ...

    def SerializeToString(self) -> bytes: ...


M = TypeVar("M", bound=Message)

log = logging.getLogger(__name__)


async def read_exactly(wire: Wire, size: int) -> bytes:
    """The next ``size`` bytes.

    Raises:
        trio.BrokenResourceError: the stream ends before, or was cut.
    """
    data = bytearray()
    while len(data) < size:
        more = await wire.read(size - len(data))
        if not more:
            raise trio.BrokenResourceError("the stream ended")
        data += more
    return bytes(data)


async def read_message(wire: Wire, kind: Callable[[], M], most: int = MESSAGE_BYTES) -> M:
    """The next message.

    Raises:
        TooLargeError: longer than ``most`` bytes.
        DecodeError: not a message of this kind.
        trio.BrokenResourceError: the stream ends before, or was cut.
    """
    size = 0
    for index in range(_LENGTH_BYTES):
        (byte,) = await read_exactly(wire, 1)
        size |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            break
    else:
        raise TooLargeError(f"A message declares more than {most} bytes.")
    if size > most:
        raise TooLargeError(f"A message declares {size} bytes, {most} are taken.")
    message = kind()
    try:
        message.ParseFromString(await read_exactly(wire, size))
    except ProtobufError as error:
        raise DecodeError(f"{error}.") from error
    return message


async def write_message(wire: Wire, message: Message) -> None:
    """Send ``message``.

    Raises:
        trio.BrokenResourceError: the stream was cut.
    """
    body = message.SerializeToString()
    prefix = bytearray()
    size = len(body)
    while size >= 0x80:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    prefix.append(size)
    await wire.write(bytes(prefix) + body)


async def finish(wire: Wire) -> None:
    """End a stream so that the peer reads what was written, if it does soon."""
    with shielded(CLOSE_LIMIT_S), contextlib.suppress(trio.BrokenResourceError):
        await wire.end_writing()
        # A reset would overtake what the peer has not read yet.
        while await wire.read(MESSAGE_BYTES):
            pass
    with shielded(CLOSE_LIMIT_S):
        await wire.reset()


async def answer(wire: Wire, message: Message) -> None:
    """Send the last message of a stream."""
    try:
        with trio.fail_after(HANDSHAKE_LIMIT_S):
            await write_message(wire, message)
    except (trio.BrokenResourceError, trio.TooSlowError) as error:
        log.debug("%s does not take an answer: %r", wire.peer, error)
    await finish(wire)


def to_multiaddr(address: Address) -> bytes:
    """The binary multiaddr of ``address``."""
    data: bytes = Multiaddr(str(address)).to_bytes()
    return data


def from_multiaddr(data: bytes) -> Address | None:
    """The address in a binary multiaddr; None where it is not one that this node can dial."""
    try:
        return parse_address(str(Multiaddr(data)))
    except ConfigError:
        return None
    except Exception:  # whatever the library makes of bytes from a stranger
        return None


def enum_name(enum: Any, value: int) -> str:
    """What ``value`` of a protobuf enum is called."""
    try:
        name: str = enum.Name(value)
    except ValueError:
        return f"status {value}"
    return name


def peer_name(identifier: bytes) -> str:
    """The text form of a binary peer id, of whatever key type.

    Raises:
        MalformedIdError: too long for one.
    """
    if not 0 < len(identifier) <= PEER_ID_BYTES:
        raise MalformedIdError(f"{len(identifier)} bytes are no peer id")
    name: str = ID(identifier).to_base58()
    return name
