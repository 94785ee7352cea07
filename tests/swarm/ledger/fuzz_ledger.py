"""Runs and proofs without end that no honest node sends: each is taken or refused with a reason.

Most are validly signed, by authors who follow the links of a chain and say nonsense in it: updates
that are none, hints of impossible days, proofs of nothing, places and times at the limits of what
can be encoded.

``python -m tests.swarm.ledger.fuzz_ledger COUNT SEED`` prints what happened as JSON.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import suppress
from random import Random
from typing import Any, cast

import msgspec

from protocol import limits
from protocol.codec import decode, encode
from protocol.errors import ProtocolError, UpdateError
from protocol.ids import ZERO_DIGEST, PeerId, RoundId
from protocol.ledger import (
    EPOCH_S,
    Calibration,
    Capability,
    Checkpoint,
    Content,
    Entry,
    Evidence,
    Fork,
    Hints,
    Run,
    Subject,
    Sum,
    first_entry,
    fork,
    next_entry,
    read_entry,
    sign,
)
from protocol.messages import Decline, Message, Proof, WaveClose, seal
from protocol.proofs import equivocation
from swarm.ledger import guard
from swarm.ledger.document import client_of
from swarm.ledger.replica import Replica
from swarm.ledger.state import updates
from tests.swarm.ledger import fuzz_updates
from tests.swarm.ledger.authors import EPOCH, NOW, SWARM, Author, FreeAdmission, free_ticket, signer
from tests.swarm.ledger.updates import CLIENT, number
from tests.swarm.ledger.worlds import check, check_passed_on, states

LIARS = 6
BOUNDS = {"AUTHORS": 5, "GUESTS": 2, "LEDGER_BYTES": 40_000, "EPOCH_BYTES": 12_000}
"""Limits for a world of six authors, see :func:`run`."""
ENTRY_FIELDS: dict[str, tuple[Any, ...]] = {
    "swarm": ("elsewhere", "t", "x" * 64),
    "epoch": (0, EPOCH - 2, EPOCH + 1, 2**31),
    "seq": (0, 1, 2, 900, 2**31),
    "prev": (ZERO_DIGEST, bytes([255]) * 32),
    "offset": (0, 1, 11_999, 12_000),
    "at": (0, EPOCH * EPOCH_S - 1, int(NOW) + 121, (EPOCH + 1) * EPOCH_S, 2**40),
}


class Liar:
    """Somebody with a key who writes a log with whatever comes to its mind."""

    def __init__(self, rng: Random, name: str) -> None:
        self.rng = rng
        self.signer = signer(name)
        self.peer = self.signer.peer
        self.bodies: list[bytes] = []

    # --- contents -------------------------------------------------------------------------------

    def update(self) -> bytes:
        """Of its document: an honest one, one that nobody would write, or none."""
        rng = self.rng
        own, any_ = number(client_of(self.peer, EPOCH)), number(CLIENT)
        log: list[bytes] = []
        clock = 0
        for update in updates(self.bodies):
            with suppress(UpdateError):
                clock = guard.check(update, client_of(self.peer, EPOCH), clock)
                log.append(update.replace(own, any_))
        match rng.randrange(12):
            case 0:
                return rng.randbytes(rng.choice([0, 1, 2, 30, 300]))
            case 1:
                found = fuzz_updates.sly(rng, clock)
            case 2:
                found = fuzz_updates.mutated(rng, fuzz_updates.honest(rng, log, clock), b"\x00\x00")
            case _:
                found = fuzz_updates.honest(rng, log, clock)
        return found.replace(any_, own)

    def hints(self) -> Hints:
        rng = self.rng
        day = rng.choice([EPOCH * 7, EPOCH * 7 + rng.randint(-9, 9), rng.choice([0, 2**48])])
        expires = rng.choice([0, (day + 8) * 86_400, (day + 8) * 86_400 + 1, 2**48])
        subjects = [
            Subject(
                PeerId(rng.randbytes(1) * 32),
                rng.choice(["", "m", "\U0001f41d" * 20]),
                tuple(self._sum() for _ in range(rng.choice([1, 1, 2, 40]))),
            )
            for _ in range(rng.choice([0, 1, 2, 30]))
        ]
        if rng.random() < 0.7:
            subjects.sort(key=lambda one: (one.peer, one.model))
        return Hints(day, min(expires, 2**48), tuple(subjects))

    def _sum(self) -> Sum:
        rng = self.rng
        right, total = sorted(rng.choice([0, 1, 10**6, 2**48]) for _ in range(2))
        if rng.random() < 0.1:
            right, total = total, right
        topic = rng.choice(["", "sums", "x" * 64])
        return Sum(topic, rng.randrange(9), (right,) * 5, (total,) * 5, right, total)

    def proof(self) -> Proof:
        rng, who = self.rng, signer(f"liar {self.rng.randrange(LIARS)}")
        around = RoundId(rng.randbytes(1) * 32)
        closes: list[Message] = [
            WaveClose(around, around, rng.randrange(2), ZERO_DIGEST, more) for more in (False, True)
        ]
        match rng.randrange(6):
            case 0:
                return Proof(who.seal(rng.randbytes(9)), who.seal(rng.randbytes(9)))
            case 1:
                closes[0] = Decline(around, "busy", "")
            case 2:
                closes[1] = closes[0]
            case 3:
                return Proof(seal(who, closes[0]), seal(self.signer, closes[1]))
            case 4:
                found = equivocation(seal(who, closes[0]), seal(who, closes[1]))
                return Proof(found.second, found.first)
        return equivocation(seal(who, closes[0]), seal(who, closes[1]))

    def content(self) -> Content:
        rng = self.rng
        if not self.bodies if rng.random() < 0.95 else rng.random() < 0.5:
            return Checkpoint(
                self.update(),
                tuple(self.hints() for _ in range(rng.choice([*[0] * 9, 1, 2, 9]))),
                tuple(self.proof() for _ in range(rng.choice([*[0] * 9, 1, 3, 32]))),
            )
        kind = rng.randrange(8)
        if kind < 5:
            return Capability(self.update())
        return Calibration(self.hints()) if kind < 7 else Evidence(self.proof())

    # --- entries and runs -----------------------------------------------------------------------

    def entry(self) -> Entry:
        rng, content = self.rng, self.content()
        at = EPOCH * EPOCH_S + rng.randrange(86_400 * 6)
        if self.bodies:
            last = read_entry(self.bodies[-1]).at
            at = rng.choice([at, *[last + rng.choice([0, 1, 9000])] * 3])
            entry = next_entry(self.bodies[-1], at, content)
        elif isinstance(content, Checkpoint):
            entry = first_entry(SWARM, self.peer, at, content)
        else:
            entry = Entry(1, SWARM, self.peer, EPOCH, 0, ZERO_DIGEST, 0, at, content)
        if rng.random() < 0.05:
            name = rng.choice([*ENTRY_FIELDS])
            value = rng.choice(ENTRY_FIELDS[name])
            entry = msgspec.structs.replace(entry, **{name: value})
        return entry

    def write(self) -> None:
        """Append an entry. Where nothing can follow the last one, begin again."""
        try:
            entry = self.entry()
        except ProtocolError:
            self.bodies.clear()
            entry = self.entry()
        self.bodies.append(encode(entry))

    def ticket(self) -> bytes:
        rng = self.rng
        quality = rng.choice([1, 1, 1, 2, 3])
        return rng.choice(
            [
                *[free_ticket(self.peer, EPOCH, quality)] * 8,
                b"",
                rng.randbytes(10),
                free_ticket(self.peer, EPOCH + 1, quality),
            ]
        )

    def run(self) -> Run:
        """The next entries, or others for places that are taken, or some again."""
        rng = self.rng
        first = max(0, len(self.bodies) - rng.choice([*[0] * 40, 1, 2, 3, 99]))
        if rng.random() < 0.02:
            del self.bodies[first:]
        for _ in range(rng.choice([0, 1, 1, 1, 2, 5]) or not self.bodies):
            self.write()
        first = min(first, len(self.bodies) - 1)
        return sign(self.signer, self.bodies[first:], self.ticket())

    def fork(self) -> Fork:
        """Of two things that it could say now."""
        seq = self.rng.randrange(len(self.bodies) + 1)
        before, runs = self.bodies, []
        for _ in range(2):
            self.bodies = before[:seq]
            for _ in range(self.rng.choice([1, 1, 2])):
                self.write()
            runs.append(sign(self.signer, self.bodies[seq:] or self.bodies, self.ticket()))
        self.bodies = before
        return fork(*runs)


def mangled(rng: Random, what: Run | Fork, others: list[Run]) -> Run | Fork:
    """With something in it exchanged, under signatures that were made for something else."""
    if isinstance(what, Fork):
        one = cast("Run", mangled(rng, what.one, others))
        return rng.choice([Fork(one, what.other), fork(one, what.other), Fork(what.other, one)])
    other, bodies = rng.choice(others), list(what.bodies)
    match rng.randrange(6):
        case 0:
            return msgspec.structs.replace(what, signature=other.signature)
        case 1:
            bodies[rng.randrange(len(bodies))] = rng.choice(other.bodies)
        case 2:
            rng.shuffle(bodies)
        case 3:
            bodies += other.bodies
        case 4:
            bodies = bodies[1:] or [rng.randbytes(60)]
        case 5:
            at = rng.randrange(len(bodies))
            bodies[at] = fuzz_updates.mutated(rng, bodies[at], other.bodies[0])
    return msgspec.structs.replace(what, bodies=tuple(bodies))


def _trace(one: Replica) -> object:
    """Enough of what is held to see a change."""
    return (
        one.bytes,
        one.entries,
        one.guests,
        [
            (name, chain.head, len(chain.bodies), chain.ticket, chain.forked_at)
            for name, chain in one.chains().items()
        ],
    )


def run(count: int, seed: int) -> Counter[str]:
    """Let a replica hear ``count`` inputs under the limits of :data:`BOUNDS`, which are to be set.

    Raises:
        AssertionError: a refusal has changed something, a law does not hold, or memory is not
            bounded.
    """
    rng = Random(seed)
    seen: Counter[str] = Counter()
    ann = Author("ann", 5, quality=9)
    others = [ann.run(), Author("bob", 3).run()]
    for done in range(count):
        if done % 200 == 0:
            liars = [Liar(rng, f"liar {at}") for at in range(LIARS)]
            one = Replica(SWARM, FreeAdmission())
            one.take(ann.run(), NOW)
        liar = rng.choice(liars)
        before = list(liar.bodies)
        what = liar.fork() if rng.random() < 0.01 else liar.run()
        kind = rng.choices(["signed", "mangled", "mutated", "random"], [14, 2, 3, 1])[0]
        if kind == "mangled":
            what = mangled(rng, what, others)
        data = encode(what)
        if kind == "mutated":
            data = fuzz_updates.mutated(rng, data, encode(rng.choice(others)))
        elif kind == "random":
            data = rng.randbytes(rng.choice([0, 1, 9, 200]))
        source = liar.peer if rng.random() < 0.3 else None
        trace = _trace(one)
        try:
            if isinstance(what, Fork):
                change = one.convict(decode(data, Fork, limits.SYNC_BYTES), NOW)
            else:
                change = one.take(decode(data, Run, limits.SYNC_BYTES), NOW, source)
        except ProtocolError as error:
            seen[f"{kind} {type(error).__name__}"] += 1
            assert _trace(one) == trace
            if rng.random() < 0.95:
                liar.bodies = before
        else:
            seen[f"{kind} taken"] += 1
            seen["entries"] += len(change.entries)
            seen["forks"] += change.forked
            seen["evicted"] += len(change.evicted)
        if done % 40 == 39:
            _look(one, ann)
    return seen


def _look(one: Replica, ann: Author) -> None:
    check(one)
    check_passed_on(one)
    states(one)
    chain = one.chain(ann.peer, EPOCH)
    assert chain is not None
    assert chain.bodies == ann.bodies
    assert one.guests <= limits.GUESTS
    assert one.admitted(EPOCH) <= limits.AUTHORS
    free = 3 * limits.EPOCH_BYTES * (limits.GUESTS + 1)
    assert one.bytes <= limits.LEDGER_BYTES + free


def bounded(count: int, seed: int) -> Counter[str]:
    """:func:`run` with its limits."""
    before = {name: getattr(limits, name) for name in BOUNDS}
    for name, value in BOUNDS.items():
        setattr(limits, name, value)
    try:
        return run(count, seed)
    finally:
        for name, value in before.items():
            setattr(limits, name, value)


if __name__ == "__main__":
    print(json.dumps(bounded(int(sys.argv[1]), int(sys.argv[2])), indent=1, sort_keys=True))
