"""Bytes to typed values and back: msgpack with one encoding per value.

Decoding is typed from the first byte (msgspec): what a type does not allow is refused before
anything is built, a declared length beyond the bytes at hand is refused at once, unknown fields
are refused, and the depth is that of the type. After decoding, the value is encoded again and
must give the same bytes, so nobody can vary a signed message without changing its meaning, and
every byte of a file counts.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from protocol import limits
from protocol.errors import DecodeError, TooLargeError

T = TypeVar("T")

_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def encode(value: object) -> bytes:
    """The one encoding of ``value`` (msgpack, fields in the order of the type)."""
    return msgspec.msgpack.encode(value)


def decode(data: bytes, kind: type[T], limit: int = limits.FRAME_BYTES) -> T:
    """The value of type ``kind`` that ``data`` encodes.

    Args:
        data: untrusted bytes.
        kind: a msgspec Struct, or a union of tagged ones.
        limit: refuse more bytes than this before looking at them.

    Raises:
        TooLargeError: ``data`` is longer than ``limit``.
        DecodeError: anything else that is not exactly one such value in its one encoding.
    """
    if len(data) > limit:
        raise TooLargeError(f"{len(data)} bytes where at most {limit} are taken.")
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        value = decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # It quotes the stranger's bytes.
        text = "".join(c if c.isprintable() else "\ufffd" for c in str(error)[:200])
        raise DecodeError(f"{text}.") from error
    if encode(value) != data:
        raise DecodeError("the value is right, but this is not its one encoding.")
    result: T = value
    return result
