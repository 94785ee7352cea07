"""Updates made by hand, read by hand, and what they mean, with nothing of the guard's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pycrdt import Doc, Map

from protocol.ids import PeerId
from swarm.ledger.document import client_of

CLIENT = client_of(PeerId(b"\x07" * 32), 2960)


def number(value: int, padding: int = 0) -> bytes:
    """LEB128, with ``padding`` bytes more than it needs."""
    digits = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    digits += [0] * padding
    return bytes([*(digit | 0x80 for digit in digits[:-1]), digits[-1]])


def sized(data: bytes) -> bytes:
    return number(len(data)) + data


def text(value: bytes) -> bytes:
    """Content: one value of bytes."""
    return b"\x01\x74" + sized(value)


def written(key: str | bytes, content: bytes = text(b"v")) -> bytes:
    """A struct: the first value of a key."""
    name = key.encode() if isinstance(key, str) else key
    return b"\x28\x01\x01m" + sized(name) + content


def rewritten(clock: int, content: bytes = text(b"v"), client: int = CLIENT) -> bytes:
    """A struct: the next value of the key that ``clock`` has written."""
    return b"\xa8" + number(client) + number(clock) + content


def structs(clock: int, *some: bytes, client: int = CLIENT) -> bytes:
    """The part of an update that writes."""
    return b"\x01" + number(len(some)) + number(client) + number(clock) + b"".join(some)


def deletions(*ranges: tuple[int, int], client: int = CLIENT) -> bytes:
    """The part of an update that deletes."""
    pairs = b"".join(number(start) + number(length) for start, length in ranges)
    return b"\x01" + number(client) + number(len(ranges)) + pairs


@dataclass(frozen=True)
class Parts:
    """An update as it was meant.

    Attributes:
        clock: of its first struct.
        writes: by key for a first value, by the clock that wrote before for a next one.
    """

    clock: int = 0
    writes: tuple[tuple[str | int, bytes], ...] = ()
    deletes: tuple[tuple[int, int], ...] = ()

    def encoded(self) -> bytes:
        some = [
            written(place, text(value)) if isinstance(place, str) else rewritten(place, text(value))
            for place, value in self.writes
        ]
        head = structs(self.clock, *some) if some else b"\x00"
        return head + (deletions(*self.deletes) if self.deletes else b"\x00")


def read(update: bytes) -> Parts:
    """The parts of an update that the guard has taken. Trusts it, and takes padded numbers, too."""
    at = 0

    def some() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = update[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def data() -> bytes:
        nonlocal at
        size = some()
        at += size
        return update[at - size : at]

    clock = 0
    writes: list[tuple[str | int, bytes]] = []
    deletes: list[tuple[int, int]] = []
    for _ in range(some()):
        count, _, clock = some(), some(), some()
        for _ in range(count):
            at += 1
            place: str | int
            if update[at - 1] & 0x80:
                _, place = some(), some()
            else:
                some()
                _, place = data(), data().decode()
            some()
            at += 1
            writes.append((place, data()))
    for _ in range(some()):
        some()
        deletes += [(some(), some()) for _ in range(some())]
    return Parts(clock, tuple(writes), tuple(deletes))


def meaning(updates: Iterable[bytes]) -> dict[str, bytes]:
    """What updates of one writer say, by the rules of Yjs, where all values of a key stand in a row
    and the last one counts unless it is deleted."""
    rows: dict[str, list[int]] = {}
    keys: list[str] = []
    values: list[bytes] = []
    deleted: set[int] = set()
    for update in updates:
        parts = read(update)
        for place, value in parts.writes:
            clock = len(keys)
            key = place if isinstance(place, str) else keys[place]
            row = rows.setdefault(key, [])
            where = 0 if isinstance(place, str) else row.index(place) + 1
            row.insert(where, clock)
            keys.append(key)
            values.append(value)
            deleted.update(row[:-1])
        for start, length in parts.deletes:
            deleted.update(range(start, start + length))
    return {key: values[row[-1]] for key, row in sorted(rows.items()) if row[-1] not in deleted}


def replica(updates: Sequence[bytes], client: int = 1) -> Doc[Map[object]]:
    """Without a guard: whatever pycrdt makes of ``updates``."""
    doc = Doc[Map[object]](client_id=client)
    for update in updates:
        doc.apply_update(update)
    return doc


def held(doc: Doc[Map[object]]) -> dict[str, object]:
    """The values of a replica, bytes as bytes."""
    items = doc.get("m", type=Map).items()
    return {k: bytes(v) if isinstance(v, bytearray) else v for k, v in sorted(items)}
