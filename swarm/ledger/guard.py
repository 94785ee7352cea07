"""What may reach a document: updates of one writer, of a map of bytes, and nothing else.

An update is bytes of a stranger, and the library that applies it (Yrs, by way of pycrdt 0.14.13)
believes them. Without a guard, 20 bytes overwrite a value of somebody else and 10 bytes delete all
that somebody has written; 17 bytes reserve half a gigabyte; an array nested 15,000 deep, 30 kB, is
applied and ends the process when it is read; an update that does not follow from the last one is
taken, and values are lost without a word. So everything but this is refused (version 1 of Yjs's
encoding, as Yrs writes it; numbers are LEB128, in as few bytes as they need)::

    update     = structs deletions
    structs    = 0 | 1 count client clock struct*      clock: that of the document
    struct     = (written | rewritten) 01 't' size bytes
    written    = 28 01 01 'm' size key                 the first value of a key
    rewritten  = a8 client clock                       the next value of the key of an earlier one
    deletions  = 0 | 1 client count (clock length)*    ranges, sorted, apart from each other

That is all that :class:`swarm.ledger.document.Document` writes: it changes a key once in an update,
so an update neither deletes nor rewrites what it writes itself. Every clock is therefore a value
under a key of the map, wherever an update points. An author can still write a value that counts for
nothing, by rewriting one that it has rewritten before; all replicas agree that it does not count.
An update that only deletes has no clock. That none is missing or comes twice, the chain sees to.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from protocol import limits
from protocol.errors import UpdateError

ROOT: Final = "m"
"""Name of the map."""
EMPTY: Final = b"\x00\x00"
"""The update that changes nothing; it makes an empty document."""

_CLOCKS: Final = 1 << 31
"""Yrs keeps a clock in 32 bits and compares it in 31."""
_WRITTEN: Final = b"\x28\x01\x01" + ROOT.encode()
_REWRITTEN: Final = b"\xa8"
_BYTES: Final = b"\x01\x74"
_NUMBER_BITS: Final = 56


def check(update: bytes, client: int, clock: int) -> int:
    """The clock of a document after ``update``, which only its writer may have made.

    Args:
        update: untrusted bytes.
        client: the document's only writer, see :func:`swarm.ledger.document.client_of`.
        clock: how many values it has written before.

    Raises:
        UpdateError: anything but one such update, in its one encoding and within its limits.
    """
    if len(update) > limits.UPDATE_BYTES:
        raise UpdateError(f"{len(update)} bytes, {limits.UPDATE_BYTES} are taken.")
    own = _encoded(client)
    at, after = _structs(update, own, clock)
    at = _deletions(update, at, own, clock)
    if at != len(update):
        raise UpdateError("Bytes follow its end.")
    return after


def _structs(update: bytes, own: bytes, clock: int) -> tuple[int, int]:
    """Where the deletions begin, and the clock after all structs."""
    if not _some(update, 0):
        return 1, clock
    count, at = _number(update, 1)
    if not 0 < count <= limits.UPDATE_STRUCTS:
        raise UpdateError(f"{count} structs, 1 to {limits.UPDATE_STRUCTS} are taken.")
    after = clock + count
    if after > _CLOCKS:
        raise UpdateError("Its clock is beyond what a document counts.")
    at = _after(update, at, own, "It is of another writer.")
    at = _after(update, at, _encoded(clock), "It does not follow from the last one.")
    rewritten = _REWRITTEN + own
    places: set[bytes | int] = set()
    for _ in range(count):
        place: bytes | int
        if update.startswith(rewritten, at):
            place, at = _number(update, at + len(rewritten))
            if place >= clock:
                raise UpdateError("It rewrites what was not written before it.")
        elif update.startswith(_WRITTEN, at):
            place, at = _sized(update, at + len(_WRITTEN), limits.UPDATE_KEY_BYTES, "key")
            _check_key(place)
        else:
            raise UpdateError("A struct is no value under a key of the map.")
        if place in places:
            raise UpdateError("It writes twice in one place.")
        places.add(place)
        at = _after(update, at, _BYTES, "A value is not one of bytes.")
        _, at = _sized(update, at, limits.UPDATE_VALUE_BYTES, "value")
    return at, after


def _deletions(update: bytes, at: int, own: bytes, clock: int) -> int:
    """Where the update ends."""
    if not _some(update, at):
        return at + 1
    at = _after(update, at + 1, own, "It deletes what is not its writer's.")
    count, at = _number(update, at)
    if not 0 < count <= limits.UPDATE_STRUCTS:
        raise UpdateError(f"{count} deletions, 1 to {limits.UPDATE_STRUCTS} are taken.")
    end, deleted = -1, 0
    for _ in range(count):
        start, at = _number(update, at)
        length, at = _number(update, at)
        if start <= end or not length:
            raise UpdateError("Its deletions are not sorted ranges apart from each other.")
        end = start + length
        if end > clock:
            raise UpdateError("It deletes what was not written before it.")
        deleted += length
    if deleted > limits.UPDATE_STRUCTS:
        raise UpdateError(f"{deleted} values deleted, {limits.UPDATE_STRUCTS} may be.")
    return at


def _some(update: bytes, at: int) -> bool:
    """Whether one writer's part of the update follows, or nobody's."""
    if update.startswith(b"\x01", at):
        return True
    if update.startswith(b"\x00", at):
        return False
    raise UpdateError("It is of more than one writer, or ends early.")


def _after(update: bytes, at: int, expected: bytes, otherwise: str) -> int:
    """Where ``expected`` ends, which has to stand at ``at``."""
    if not update.startswith(expected, at):
        raise UpdateError(otherwise)
    return at + len(expected)


def _sized(update: bytes, at: int, most: int, what: str) -> tuple[bytes, int]:
    """Bytes that follow their size, and where they end."""
    size, at = _number(update, at)
    if size > most:
        raise UpdateError(f"A {what} of {size} bytes, {most} are taken.")
    end = at + size
    if end > len(update):
        raise UpdateError(f"It ends within a {what}.")
    return update[at:end], end


def _check_key(key: bytes) -> None:
    """Yrs takes the empty key, which names nothing."""
    if not key:
        raise UpdateError("A key is empty.")
    try:
        key.decode()
    except UnicodeDecodeError:
        raise UpdateError("A key is not UTF-8.") from None


def _number(update: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    if at < len(update) and update[at] < 0x80:
        # Nearly all are.
        return update[at], at + 1
    value = shift = 0
    while at < len(update) and shift < _NUMBER_BITS:
        byte = update[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if not byte and shift:
                raise UpdateError("A number is longer than it need be.")
            return value, at
        shift += 7
    raise UpdateError("A number has no end.")


@lru_cache(maxsize=1 << 10)
def _encoded(number: int) -> bytes:
    """The one encoding of ``number``, which is not negative."""
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)
