"""A file of logs: what one node holds, to be kept, looked at, or taken to another.

A line that says what it is, then records, each behind its length in four bytes::

    swarmd ledger 1⏎   Header   Log …   End

There is a :class:`Log` for each author and epoch, with all that shows that the author made it: a
file says nothing that has to be believed. The :class:`End` shows that it is whole. Neither side
holds more than one record at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import chain
from typing import Annotated, Final, TypeVar, cast

import msgspec
from msgspec import Meta

from protocol import limits
from protocol.codec import decode, encode
from protocol.errors import DecodeError, TooLargeError
from protocol.ids import Digest
from protocol.ledger import Fork, Run
from protocol.messages import Hash
from protocol.sync import ITEM_BYTES

MAGIC: Final = b"swarmd ledger 1\n"
_NAME: Final = MAGIC[:-2]
RECORD_BYTES: Final = 2 * ITEM_BYTES
"""A run with all that one author may say in an epoch, and a proof with twice as much."""
_LENGTH_BYTES: Final = 4

_Kind = TypeVar("_Kind")

_Swarm = Annotated[str, Meta(min_length=1, max_length=64)]


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the file is about.

    Attributes:
        written: Unix time in seconds at which it was made. Epochs are counted from it.
    """

    swarm: _Swarm
    written: Annotated[int, Meta(ge=0, le=2**40)]


class Log(msgspec.Struct, frozen=True, array_like=True, tag="log", forbid_unknown_fields=True):
    """What is held of one author in one epoch.

    Attributes:
        run: all entries from the first on, with the ticket; None where the author forked at the
            first, or where only the proof is known.
        fork: the proof where it has forked, with the ticket, too.
    """

    run: Run | None
    fork: Fork | None

    def __post_init__(self) -> None:
        if self.run is None and self.fork is None:
            raise ValueError("a log with nothing in it")


class End(msgspec.Struct, frozen=True, array_like=True, tag="end", forbid_unknown_fields=True):
    """The last record.

    Attributes:
        logs: how many there are.
        digest: SHA-256 of the file up to here.
    """

    logs: Annotated[int, Meta(ge=0, le=limits.BUNDLE_LOGS)]
    digest: Hash


_RECORD: Final = cast("type[Log | End]", Log | End)


def write(header: Header, logs: Iterable[Log]) -> Iterator[bytes]:
    """The file, piece by piece; its last record comes once ``logs`` is at its end."""
    seen = sha256(MAGIC)
    yield MAGIC
    count = -1
    records: Iterable[Header | Log] = chain((header,), logs)
    for record in records:
        piece = _framed(record)
        seen.update(piece)
        yield piece
        count += 1
    yield _framed(End(count, Digest(seen.digest())))


class Reader:
    """Reads a file of logs. Iterate over it once.

    Args:
        pieces: its bytes, in pieces of any size.

    Attributes:
        header: what it is about.
        position: bytes of it that have been read.
        logs: records before the last that have been read.

    Raises:
        DecodeError, TooLargeError: it does not begin as such a file does. Iterating raises the same
            with the number of the record that is wrong or missing, counted from 1; what came before
            is good. A file is whole only if the iteration ends without an error.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._buffer = bytearray()
        self._seen = sha256()
        self.position = 0
        self.logs = 0
        begin = self._read(len(MAGIC), "It")
        if begin != MAGIC:
            newer = begin.startswith(_NAME)
            raise DecodeError(
                "It is a file of logs, of another version." if newer else "It is no file of logs."
            )
        self._seen.update(begin)
        self.header = self._record("Its header", Header)

    def __iter__(self) -> Iterator[Log]:
        while True:
            seen = self._seen.digest()
            name = f"Record {self.logs + 1}"
            record = self._record(name, _RECORD)
            if isinstance(record, End):
                break
            if self.logs == limits.BUNDLE_LOGS:
                raise TooLargeError(f"{name} is one more than a file has.")
            self.logs += 1
            yield record
        if (record.logs, record.digest) != (self.logs, seen):
            raise DecodeError(
                f"{name} ends another file: a part of this one is missing or changed."
            )
        if self._buffer or any(self._pieces):
            raise DecodeError(f"Something follows {name}, the last one.")

    def _record(self, name: str, kind: type[_Kind]) -> _Kind:
        length = self._read(_LENGTH_BYTES, name)
        size = int.from_bytes(length, "big")
        if size > RECORD_BYTES:
            raise TooLargeError(f"{name} has {size} bytes, {RECORD_BYTES} are taken.")
        data = self._read(size, name)
        self._seen.update(length + data)
        try:
            return decode(data, kind, RECORD_BYTES)
        except DecodeError as error:
            raise DecodeError(f"{name}: {error}") from error

    def _read(self, size: int, name: str) -> bytes:
        while len(self._buffer) < size:
            piece = next(self._pieces, None)
            if piece is None:
                raise DecodeError(f"{name} is cut off at byte {self.position + len(self._buffer)}.")
            self._buffer += piece
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self.position += size
        return data


def _framed(record: Header | Log | End) -> bytes:
    data = encode(record)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data
