"""What nodes ask each other in the DHT: one question and one answer, each in one frame."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from protocol import limits

NODES: Final = 8
"""Nodes named in one answer."""

_Point = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Addresses = Annotated[
    tuple[Annotated[str, msgspec.Meta(max_length=limits.ADDRESS_CHARS)], ...],
    msgspec.Meta(max_length=limits.CONTACT_ADDRESSES),
]
_Statement = Annotated[bytes, msgspec.Meta(max_length=limits.PRESENCE_BYTES)]
_CONTACT_BYTES = limits.CONTACT_ADDRESSES * (limits.ADDRESS_CHARS + 3) + 64
REQUEST_BYTES: Final = limits.PRESENCE_BYTES + _CONTACT_BYTES
REPLY_BYTES: Final = limits.NOTICES_TOLD * (limits.PRESENCE_BYTES + 3) + NODES * _CONTACT_BYTES + 64


class Find(msgspec.Struct, frozen=True, array_like=True, tag="find", forbid_unknown_fields=True):
    """Which nodes are nearest to ``key``, and what is stated there?

    Attributes:
        served_at: multiaddrs of the asker, if it serves as well.
    """

    key: _Point
    served_at: _Addresses


class Post(msgspec.Struct, frozen=True, array_like=True, tag="post", forbid_unknown_fields=True):
    """Keep this statement of mine."""

    statement: _Statement
    served_at: _Addresses


class Named(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A node, as another one knows it."""

    peer: _Point
    addresses: _Addresses


class Found(msgspec.Struct, frozen=True, array_like=True, tag="found", forbid_unknown_fields=True):
    """The answer to a Find."""

    nodes: Annotated[tuple[Named, ...], msgspec.Meta(max_length=NODES)]
    statements: Annotated[tuple[_Statement, ...], msgspec.Meta(max_length=limits.NOTICES_TOLD)]


class Posted(msgspec.Struct, frozen=True, array_like=True, tag="posted"):
    """The statement is kept."""


class Declined(msgspec.Struct, frozen=True, array_like=True, tag="declined"):
    """The statement is not kept."""

    reason: Annotated[str, msgspec.Meta(max_length=limits.TEXT_CHARS)]


Request = Find | Post
Reply = Found | Posted | Declined
