"""What two nodes ask each other so that both hold the logs that either holds.

Each message is one request and its reply. Whoever answers remembers nothing: all that a request is
about follows from its nonce. Chains and what is held of them are named by short digests, salted
with a nonce of either side, so that nobody can find two that look alike before an exchange begins.
Two that do by chance (one in 2²⁴, or fewer) differ again in the next.

========== ============= =========================================================================
request    reply         purpose
========== ============= =========================================================================
Open       Root          are there differences?
Buckets    Digests       in which parts of all chains?
Heads      HeadList      which chains, and who has more of them?
Want       Runs          entries and proofs of forks that the asker lacks
Give       Gave          those that the answerer lacks; new entries, too
Log        Runs          all of one author, with no exchange before; one's own after a start
========== ============= =========================================================================

An exchange of equal logs ends after the first of them, with 47 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from protocol import limits
from protocol.envelope import Key
from protocol.errors import DecodeError
from protocol.ledger import Fork, Place, Run

NONCE_BYTES: Final = 8
ROOT_BYTES: Final = 16
BUCKET_BYTES: Final = 8
BUCKETS: Final = 1024
"""The most parts that all chains are divided into."""
ID_BYTES: Final = 6
LOG_BYTES: Final = 5
TICKET_BYTES: Final = 3
HEADS: Final = 16_000
"""Heads in one reply. One with so many may have more after it, one with fewer is the last."""
CHAINS: Final = 2 * (limits.AUTHORS + 1)
"""Chains that take part in an exchange: those of two epochs, with one's own."""
ASKS: Final = 1024
"""Things asked for at once."""
ITEM_BYTES: Final = 2 * (limits.EPOCH_BYTES + 4 * limits.RUN_ENTRIES)
"""A run takes at most half of this, a proof of two of them all."""
FRAME_BYTES: Final = 16
"""What a message has beside its items, at most."""
LEAST_BYTES: Final = limits.SYNC_BYTES - ITEM_BYTES - FRAME_BYTES
"""A reply with fewer has all that was asked for, since another item would have fitted."""
LOG_PIECES: Final = 8

_HEAD: Final = Struct(f">{ID_BYTES}sH{LOG_BYTES}s{TICKET_BYTES}s")
_ASK: Final = Struct(f">{ID_BYTES}sH")
HEAD_BYTES: Final = _HEAD.size
ASK_BYTES: Final = _ASK.size
PROOF: Final = 0x7FFF
"""Asks for the proof of a fork where otherwise the seq of an entry stands."""

_Nonce = Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
_Buckets = Annotated[int, Meta(ge=1, le=BUCKETS)]
_Epoch = Annotated[int, Meta(ge=0, le=2**31)]
_First = Annotated[int, Meta(ge=0, le=PROOF)]


class Head(NamedTuple):
    """What one side holds of one chain.

    Attributes:
        id: names author and epoch.
        entries: how many there are.
        forked: whether there is a proof that it forked.
        log: digest of the last entry, their number and the place of the fork.
        ticket: digest of the ticket.
    """

    id: bytes
    entries: int
    forked: bool
    log: bytes
    ticket: bytes


class Ask(NamedTuple):
    """One thing that the asker lacks.

    Attributes:
        id: of a chain, as in its head.
        first: the entries from this one on (where there are none, the last one), or :data:`PROOF`.
        ticket: whether the ticket is to come with it.
    """

    id: bytes
    first: int
    ticket: bool


class Request(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What all requests share."""


class Reply(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What all replies share: none says what it is, since the request does."""


class Open(Request, frozen=True, tag=0):
    """Begins an exchange about the chains of ``epoch`` and of the one before."""

    epoch: _Epoch
    nonce: _Nonce


class Root(Reply, frozen=True):
    """One digest of all.

    Attributes:
        nonce: the answerer's; follows from that of the request.
        chains: how many there are.
    """

    nonce: _Nonce
    root: Annotated[bytes, Meta(min_length=ROOT_BYTES, max_length=ROOT_BYTES)]
    chains: Annotated[int, Meta(ge=0, le=CHAINS)]


class Buckets(Request, frozen=True, tag=1):
    """Asks for the digests of ``count`` parts, a power of two: chains are in one part whose ids
    begin with the same bits."""

    epoch: _Epoch
    nonce: _Nonce
    count: _Buckets


class Digests(Reply, frozen=True):
    """Those digests one after the other, :data:`BUCKET_BYTES` each."""

    digests: Annotated[bytes, Meta(max_length=BUCKETS * BUCKET_BYTES)]


class Heads(Request, frozen=True, tag=2):
    """Asks for the heads of all chains in some of ``count`` parts.

    Attributes:
        which: a bit for each part, the first one lowest.
        after: those whose ids sort later, all where it is empty.
    """

    epoch: _Epoch
    nonce: _Nonce
    count: _Buckets
    which: Annotated[bytes, Meta(max_length=BUCKETS // 8)]
    after: Annotated[bytes, Meta(max_length=ID_BYTES)] = b""


class HeadList(Reply, frozen=True):
    """Heads one after the other, :data:`HEAD_BYTES` each, sorted."""

    heads: Annotated[bytes, Meta(max_length=HEADS * HEAD_BYTES)]


class Want(Request, frozen=True, tag=3):
    """Asks for what ``asks`` say, :data:`ASK_BYTES` each, in this order."""

    epoch: _Epoch
    nonce: _Nonce
    asks: Annotated[bytes, Meta(min_length=ASK_BYTES, max_length=ASKS * ASK_BYTES)]


class Runs(Reply, frozen=True):
    """What was asked for, each at most once, and nothing for what there is not (any more).

    Attributes:
        served: how many of the asks this answers; the next one would not have fitted.
    """

    runs: Annotated[tuple[Run, ...], Meta(max_length=ASKS)]
    forks: Annotated[tuple[Fork, ...], Meta(max_length=ASKS)]
    served: Annotated[int, Meta(ge=1, le=ASKS)]


class Give(Request, frozen=True, tag=4):
    """What the answerer lacks; it takes the proofs first."""

    runs: Annotated[tuple[Run, ...], Meta(max_length=ASKS)]
    forks: Annotated[tuple[Fork, ...], Meta(max_length=ASKS)]


class Gave(Reply, frozen=True):
    """What became of it.

    Attributes:
        places: from where runs would follow that did not.
        refused: how much more was refused.
    """

    places: Annotated[tuple[Place, ...], Meta(max_length=ASKS)]
    refused: Annotated[int, Meta(ge=0, le=2 * ASKS)]


class Piece(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Entries of one ``epoch`` of a log from ``first`` on, or its proof, as in :class:`Ask`."""

    epoch: _Epoch
    first: _First


class Log(Request, frozen=True, tag=5):
    """Asks for pieces of an author's log, with their tickets. An author gets its own log even if
    there is none."""

    author: Key
    pieces: Annotated[tuple[Piece, ...], Meta(min_length=1, max_length=LOG_PIECES)]


AnyRequest = Open | Buckets | Heads | Want | Give | Log


def pack_head(head: Head) -> bytes:
    """The bytes of a head."""
    name, entries, forked, log, ticket = head
    return _HEAD.pack(name, entries << 1 | forked, log, ticket)


def unpack_heads(data: bytes) -> Iterator[Head]:
    """The heads in ``data``, whole ones."""
    for name, state, log, ticket in _HEAD.iter_unpack(data):
        yield Head(name, state >> 1, bool(state & 1), log, ticket)


def pack_asks(asks: Iterable[Ask]) -> bytes:
    """The bytes of asks."""
    return b"".join(_ASK.pack(name, first << 1 | ticket) for name, first, ticket in asks)


def unpack_asks(data: bytes) -> Iterator[Ask]:
    """The asks in ``data``, whole ones."""
    for name, state in _ASK.iter_unpack(data):
        yield Ask(name, state >> 1, bool(state & 1))


def check_whole(data: bytes, size: int) -> None:
    """Raise DecodeError unless ``data`` is some parts of ``size`` bytes."""
    if len(data) % size:
        raise DecodeError(f"{len(data)} bytes are no multiple of {size}.")
