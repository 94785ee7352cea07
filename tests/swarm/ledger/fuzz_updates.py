"""Hostile updates without end: the guard takes or refuses each, and pycrdt survives what it takes.

``python -m tests.swarm.ledger.fuzz_updates COUNT SEED`` prints what happened as JSON. It is a
process of its own, since a mistake of the guard may end it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from random import Random

from pycrdt import Doc, Map

from protocol import limits
from protocol.errors import UpdateError
from swarm.ledger import guard
from swarm.ledger.document import Document, fold
from tests.swarm.ledger.updates import (
    CLIENT,
    Parts,
    held,
    meaning,
    number,
    read,
    replica,
    rewritten,
    written,
)

KEYS = ["a", "b", "ctx", "model", "é" * 16]
LOG = 24
STRANGE = [
    b"",
    b"\x00",
    b"\x7e",
    b"\x28\x01\x01m",
    b"\x21\x01\x01m\x01k\x01",
    b"\x0a\x01",
    b"\x01\x75\x01\x75\x01\x7e",
    b"\x01\x7c\x3f\x80\x00\x00",
    number(1 << 70),
    number(1 << 32),
    number(CLIENT),
    number(CLIENT + 1),
    rewritten(0),
    written("a"),
]


def honest(rng: Random, log: list[bytes], clock: int) -> bytes:
    """What a document could write next."""
    latest: dict[str, int] = {}
    keys: list[str] = []
    for update in log:
        for place, _ in read(update).writes:
            keys.append(place if isinstance(place, str) else keys[place])
            latest[keys[-1]] = len(keys) - 1
    writes: list[tuple[str | int, bytes]] = []
    deletes: set[int] = set()
    for key in rng.sample(KEYS, rng.randint(1, 3)):
        if key in latest:
            deletes.add(latest[key])
        if key not in latest or rng.random() < 0.8:
            writes.append((latest.get(key, key), rng.randbytes(rng.choice([0, 1, 8, 200]))))
    return Parts(clock, tuple(writes), _ranges(deletes)).encoded()


def sly(rng: Random, clock: int) -> bytes:
    """What the guard takes, mostly, and no document writes."""
    writes: list[tuple[str | int, bytes]] = []
    for _ in range(rng.randint(0, 4)):
        place = rng.choice(KEYS) if rng.random() < 0.4 or not clock else rng.randrange(clock)
        if place not in [other for other, _ in writes]:
            writes.append((place, rng.randbytes(rng.randint(0, 3))))
    share = rng.choice([0, 0.1, 0.9, 1])
    deletes = {one for one in range(clock) if rng.random() < share}
    return Parts(clock, tuple(writes), _ranges(deletes)).encoded()


def _ranges(clocks: set[int]) -> tuple[tuple[int, int], ...]:
    ranges: list[tuple[int, int]] = []
    for clock in sorted(clocks):
        if ranges and sum(ranges[-1]) == clock:
            ranges[-1] = ranges[-1][0], ranges[-1][1] + 1
        else:
            ranges.append((clock, 1))
    return tuple(ranges)


def mutated(rng: Random, update: bytes, other: bytes) -> bytes:
    """``update`` with something wrong."""
    if not update:
        return rng.randbytes(2)
    at = rng.randrange(len(update))
    to = min(len(update), at + rng.choice([0, 1, 1, 2, 8]))
    match rng.randrange(8):
        case 0:
            bent = bytearray(update)
            bent[at] ^= 1 << rng.randrange(8)
            return bytes(bent)
        case 1:
            return update[:at] + bytes([rng.choice([0, 1, 2, 0x7F, 0x80, 0xFF])]) + update[to:]
        case 2:
            return update[:at]
        case 3:
            return update[:at] + other[rng.randrange(len(other) + 1) :]
        case 4:
            return update[:to] + update[at:]
        case 5:
            return update[:at] + rng.choice(STRANGE) + update[to:]
        case 6:
            return update[:at] + _bent_number(rng, update[at]) + update[at + 1 :]
        case _:
            return update + rng.randbytes(rng.randint(1, 4))


def _bent_number(rng: Random, byte: int) -> bytes:
    """Another number where ``byte`` was, or the same one, longer."""
    value = byte & 0x7F
    if rng.random() < 0.4:
        return number(value, rng.randint(1, 9))
    return number(max(0, value + rng.choice([-1, 1, 2, 127, 128, 1 << 31, 1 << 32, 1 << 63])))


def run(count: int, seed: int) -> Counter[str]:
    """Offer ``count`` updates to the guard, and all that it takes to pycrdt.

    Raises:
        AssertionError: replicas differ among each other, or from what the updates mean, or hold
            what the guard does not allow.
    """
    rng = Random(seed)
    seen: Counter[str] = Counter()
    log: list[bytes] = []
    clock = 0
    live = replica([])
    for _ in range(count):
        kind = rng.choices(["honest", "sly", "mutant", "random"], [3, 3, 13, 1])[0]
        if kind == "honest":
            update = honest(rng, log, clock)
        elif kind == "sly":
            update = sly(rng, clock)
        elif kind == "mutant":
            update = honest(rng, log, clock) if rng.random() < 0.5 else sly(rng, clock)
            for _ in range(rng.choice([1, 1, 1, 2, 3])):
                update = mutated(rng, update, rng.choice(log) if log else guard.EMPTY)
        else:
            update = rng.randbytes(rng.choice([1, 4, 20, 100]))
        seen[kind] += 1
        try:
            clock = guard.check(update, CLIENT, clock)
        except UpdateError:
            seen[f"{kind} refused"] += 1
            continue
        seen[f"{kind} taken"] += 1
        assert read(update).encoded() == update, "it has another encoding"
        log.append(update)
        live.apply_update(update)
        assert live.get_state() == _state(clock), "something is missing, or of somebody else"
        if len(log) == LOG:
            settle(log, live)
            seen["logs"] += 1
            log, clock, live = [], 0, replica([])
    return seen


def _state(clock: int) -> bytes:
    """The state vector of one writer."""
    return b"\x01" + number(CLIENT) + number(clock) if clock else b"\x00"


def settle(log: list[bytes], live: Doc[Map[object]]) -> None:
    """All ways to come by what ``log`` says agree, and its writer can go on."""
    values = fold(log, CLIENT)
    assert values == meaning(log) == fold(log, CLIENT)
    assert values == held(live) == held(replica(log, 2)) == held(replica([live.get_update()]))
    at_once = replica([])
    with at_once.transaction():
        for update in log:
            at_once.apply_update(update)
    assert values == held(at_once)
    for key, value in values.items():
        assert len(key.encode()) <= limits.UPDATE_KEY_BYTES
        assert len(value) <= limits.UPDATE_VALUE_BYTES
    writer = Document.resumed(log, CLIENT)
    update = writer.set({"a": b"goes on", "b": None})
    assert update is not None
    expected = {key: value for key, value in values.items() if key != "b"} | {"a": b"goes on"}
    assert writer.values == fold([*log, update], CLIENT) == expected


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))))
