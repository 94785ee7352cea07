"""Updates that no document may take, by what is wrong with them."""

from __future__ import annotations

from tests.swarm.ledger.updates import (
    CLIENT,
    Parts,
    deletions,
    number,
    rewritten,
    sized,
    structs,
    text,
    written,
)

STRANGER = 3_000_000_000
"""A client id that takes five bytes."""
CLOCK = 4
BASE = Parts(0, (("a", b"0"), ("b", b"1"), ("c", b"2"), ("d", b"3"))).encoded()
"""The update before: four values."""
NONE = b"\x00"


def content(*any_bytes: int | bytes) -> bytes:
    """An update with one value of another kind."""
    data = b"".join(one if isinstance(one, bytes) else bytes([one]) for one in any_bytes)
    return structs(CLOCK, written("e", b"\x01" + data)) + NONE


def struct(*parts: bytes) -> bytes:
    """An update with one struct of another kind."""
    return structs(CLOCK, b"".join(parts)) + NONE


def nested(depth: int) -> bytes:
    return content(b"\x75\x01" * depth, b"\x7e")


OVERWRITE = structs(0, written("gpu", text(b"")), client=STRANGER) + NONE
DELETE_ALL = NONE + deletions((0, 100), client=STRANGER)

# Each with why it is refused, once BASE is there.
HOSTILE: dict[str, tuple[bytes, str]] = {
    # of somebody else
    "somebody else's key": (OVERWRITE, "another writer"),
    "somebody else's value": (
        structs(0, rewritten(0, client=STRANGER), client=STRANGER) + NONE,
        "another writer",
    ),
    "somebody else's next value": (
        struct(rewritten(0, client=STRANGER)),
        "no value under a key",
    ),
    "all that somebody else has written": (DELETE_ALL, "not its writer's"),
    "one's own value, and somebody else's deleted": (
        structs(CLOCK, written("e")) + deletions((0, 1), client=STRANGER),
        "not its writer's",
    ),
    "two writers": (
        b"\x02" + structs(CLOCK, written("e"))[1:] + structs(0, written("e"), client=1)[1:] + NONE,
        "more than one writer",
    ),
    "two who delete": (
        NONE + b"\x02" + deletions((0, 1))[1:] + deletions((0, 1), client=1)[1:],
        "more than one writer",
    ),
    # out of order
    "one missing before it": (structs(CLOCK + 1, written("e")) + NONE, "does not follow"),
    "the last one once more": (BASE, "does not follow"),
    "a past rewritten": (structs(0, written("a", text(b"other"))) + NONE, "does not follow"),
    "half of it known": (structs(CLOCK - 1, written("d"), written("e")) + NONE, "does not follow"),
    "a clock beyond 32 bits": (structs(CLOCK + (1 << 32), written("e")) + NONE, "does not follow"),
    # claims
    "half a gigabyte in 17 bytes": (
        structs(0, written("k", b"\x01\x75" + number(5 << 22)), client=5) + NONE,
        "another writer",
    ),
    "the same by the writer": (content(0x75, number(5 << 22)), "not one of bytes"),
    "a million clients": (number(1 << 24) + NONE, "more than one writer"),
    "a million structs": (
        b"\x01" + number(1 << 24) + number(CLIENT) + number(CLOCK) + NONE,
        "16777216 structs",
    ),
    "2**70 structs": (b"\x01" + number(1 << 70) + number(CLIENT), "number has no end"),
    "a million values": (struct(written("e", number(1 << 25))), "not one of bytes"),
    "a million deletions": (
        NONE + b"\x01" + number(CLIENT) + number(1 << 25),
        "33554432 deletions",
    ),
    "a value of half a gigabyte": (content(0x74, number(1 << 29)), "value of 536870912 bytes"),
    "a key of half a gigabyte": (struct(b"\x28\x01\x01m", number(1 << 29)), "key of 536870912"),
    "a hole of half a gigabyte": (struct(b"\x0a", number(1 << 29)), "no value under a key"),
    "garbage of half a gigabyte": (struct(b"\x00", number(1 << 29)), "no value under a key"),
    "a tombstone of half a gigabyte": (
        struct(b"\x21\x01\x01m", sized(b"e"), number(1 << 29)),
        "no value under a key",
    ),
    "no structs": (b"\x01\x00" + number(CLIENT) + number(CLOCK) + NONE, "0 structs"),
    "no deletions": (NONE + b"\x01" + number(CLIENT) + NONE, "0 deletions"),
    # values that are not bytes
    "a nested array that ends the process": (nested(15_000), f"{len(nested(15_000))} bytes"),
    "a nested array": (nested(100), "not one of bytes"),
    "nested objects": (content(b"\x76\x01\x01a" * 100, 0x7E), "not one of bytes"),
    "an array": (content(0x75, 1, text(b"v")[1:]), "not one of bytes"),
    "an object": (content(0x76, 1, sized(b"a"), 0x7E), "not one of bytes"),
    "an integer": (content(0x7D, number(7)), "not one of bytes"),
    "2**70": (content(0x7D, number(1 << 70)), "not one of bytes"),
    "a large integer": (content(0x7A, bytes(8)), "not one of bytes"),
    "a float of 32 bits": (content(0x7C, b"\x3f\x80\x00\x00"), "not one of bytes"),
    "a float of 64 bits": (content(0x7B, bytes(8)), "not one of bytes"),
    "not a number": (content(0x7B, b"\x7f\xf8" + bytes(6)), "not one of bytes"),
    "a string": (content(0x77, sized(b"v")), "not one of bytes"),
    "true": (content(0x78), "not one of bytes"),
    "false": (content(0x79), "not one of bytes"),
    "null": (content(0x7E), "not one of bytes"),
    "undefined": (content(0x7F), "not one of bytes"),
    "no value": (struct(written("e", b"\x00")), "not one of bytes"),
    "two values": (struct(written("e", b"\x02" + text(b"v")[1:] * 2)), "not one of bytes"),
    # places that are not a key of the map
    "another map": (struct(b"\x28\x01\x01n", sized(b"e"), text(b"v")), "no value under a key"),
    "a map of no name": (struct(b"\x28\x01\x00", sized(b"e"), text(b"v")), "no value under a key"),
    "a map within a value": (
        struct(b"\x28\x00", number(CLIENT), NONE, sized(b"e"), text(b"v")),
        "no value under a key",
    ),
    "no key": (struct(b"\x08\x01\x01m", text(b"v")), "no value under a key"),
    "no key, said to be": (struct(b"\x88", number(CLIENT), NONE, text(b"v")), "no value under"),
    "a right neighbour": (
        struct(b"\x68", number(CLIENT), b"\x01", text(b"v")),
        "no value under a key",
    ),
    "two neighbours": (
        struct(b"\xe8", number(CLIENT), NONE, number(CLIENT), b"\x01", text(b"v")),
        "no value under a key",
    ),
    "a place both by name and by neighbour": (
        struct(b"\xa8", number(CLIENT), NONE, b"\x01\x01m", sized(b"e"), text(b"v")),
        "not one of bytes",
    ),
    "an empty key": (struct(written("")), "key is empty"),
    "a key too long": (struct(written("k" * 33)), "key of 33 bytes"),
    "a key that is a lone surrogate": (struct(written(b"\xed\xa0\x80")), "not UTF-8"),
    "a key with a longer zero": (struct(written(b"\xc0\x80")), "not UTF-8"),
    "a key cut in a character": (struct(written("é".encode()[:1])), "not UTF-8"),
    "a value too long": (struct(written("e", text(bytes(4097)))), "value of 4097 bytes"),
    # its own present and future
    "next to itself": (struct(rewritten(CLOCK)), "not written before"),
    "next to what comes": (struct(rewritten(CLOCK + 5)), "not written before"),
    "next to what it writes": (
        structs(CLOCK, written("e"), rewritten(CLOCK)) + NONE,
        "not written before",
    ),
    "next to what no clock reaches": (struct(rewritten(1 << 50)), "not written before"),
    "one key twice": (structs(CLOCK, written("e"), written("e")) + NONE, "twice in one place"),
    "one next value twice": (
        structs(CLOCK, rewritten(0), rewritten(0)) + NONE,
        "twice in one place",
    ),
    "deletes what it writes": (
        structs(CLOCK, written("e")) + deletions((CLOCK, 1)),
        "not written before",
    ),
    "deletes what comes": (NONE + deletions((CLOCK + 3, 2)), "not written before"),
    "deletes on into what comes": (NONE + deletions((0, CLOCK + 1)), "not written before"),
    "deletes more than there are clocks": (
        NONE + deletions((1, (1 << 32) - 1)),
        "not written before",
    ),
    "an empty deletion": (NONE + deletions((0, 0)), "not sorted ranges"),
    "deletions out of order": (NONE + deletions((2, 1), (0, 1)), "not sorted ranges"),
    "deletions over each other": (NONE + deletions((0, 2), (1, 2)), "not sorted ranges"),
    "one deletion twice": (NONE + deletions((0, 1), (0, 1)), "not sorted ranges"),
    "deletions side by side": (NONE + deletions((0, 1), (1, 1)), "not sorted ranges"),
    # ends
    "nothing": (b"", "more than one writer, or ends"),
    "half a key": (struct(b"\x28\x01\x01m", number(9), b"e"), "ends within a key"),
    "half a value": (content(0x74, number(9)), "ends within a value"),
    "half": (NONE, "more than one writer, or ends"),
    "something behind": (structs(CLOCK, written("e")) + NONE + NONE, "follow its end"),
    "another update behind": (NONE + deletions((0, 1)) + NONE + NONE, "follow its end"),
    "emptiness in the second encoding": (bytes(6) + b"\x01" + bytes(6), "follow its end"),
}
