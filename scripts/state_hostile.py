"""The dearest runs that a node has to take, for ``scripts/bench state``.

An author that is admitted may say 96 KiB in an epoch, all of it in one run, which is taken whole or
not at all. It costs most where there is most to look at one by one: values and deletions in updates
of its document, entries, sums in hints, signatures in proofs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import state_authors as authors

from protocol import limits
from protocol.codec import encode
from protocol.digest import digest
from protocol.ids import RoundId
from protocol.ledger import Calibration, Capability, Checkpoint, Content, Hints, Run, Subject, Sum
from protocol.messages import Commit, Model, Proof, seal
from protocol.proofs import equivocation
from swarm.ledger import guard
from swarm.ledger.admission import Admission
from swarm.ledger.document import client_of

_DAY_S: Final = 24 * 3600
_DAY: Final = authors.EPOCH * 7
_LAST_DAY: Final = 6
_BASE: Final = 90
"""Characters that keys and topics are made of."""


def dear_runs(admitting: Admission) -> dict[str, Run]:
    """The dearest that were found, by what they consist of, with the tickets for them."""
    proofs = tuple(map(_proof, range(limits.EVIDENCE_PER_EPOCH)))
    few = limits.UPDATE_STRUCTS
    kinds: dict[str, Callable[[int], Iterator[Content]]] = {
        "entries": _entries,
        "sums": _sums,
        "keys": lambda client: _values(client, itertools.count()),
        "values": lambda client: _values(client, itertools.cycle(range(few))),
        "deletions": lambda client: _deletions(client, ()),
        "proofs and deletions": lambda client: _deletions(client, proofs),
    }
    return {name: _run(name, said, admitting) for name, said in kinds.items()}


def _run(name: str, said: Callable[[int], Iterator[Content]], admitting: Admission) -> Run:
    who = authors.signer(name)
    contents = said(client_of(who.peer, authors.EPOCH))

    def timed() -> Iterator[tuple[int, Content]]:
        """As many changes of a document in a day as there may be."""
        for at, content in enumerate(contents):
            yield min(at // limits.CAPABILITIES_PER_DAY, _LAST_DAY) * _DAY_S, content

    bodies = authors.entries_of(who, timed())
    ticket = authors.ticket(admitting, who.peer)
    return authors.Author(who, bodies).run(0, None, ticket)


def _entries(client: int) -> Iterator[Content]:
    yield Checkpoint(guard.EMPTY, (), ())
    while True:
        yield Calibration(Hints(_DAY, 0, ()))


def _sums(client: int) -> Iterator[Content]:
    """As many as fit into the hints of a day."""
    yield Checkpoint(guard.EMPTY, (), ())
    none = (0,) * 5
    names = sorted(map(_name, range(limits.HINT_SUMS)))
    sums = [Sum(name, 0, none, none, 0, 0) for name in names]
    while len(encode(hints := _hints(sums))) > limits.HINTS_BYTES:
        sums.pop()
    while True:
        yield Calibration(hints)


def _hints(sums: Iterable[Sum]) -> Hints:
    subject = Subject(authors.signer("subject").peer, "", tuple(sums))
    return Hints(_DAY, 0, (subject,))


def _values(client: int, keys: Iterator[int], proofs: tuple[Proof, ...] = ()) -> Iterator[Content]:
    """Empty values, written one after the other under ``keys``, as if for the first time."""
    for clock in itertools.count(0, limits.UPDATE_STRUCTS):
        names = [_name(key) for key in itertools.islice(keys, limits.UPDATE_STRUCTS)]
        structs = (b"\x28\x01\x01m" + _sized(name.encode()) + b"\x01t\x00" for name in names)
        head = _numbers(1, len(names), client, clock)
        update = head + b"".join(structs) + b"\x00"
        yield Capability(update) if clock else Checkpoint(update, (), proofs)


def _deletions(client: int, proofs: tuple[Proof, ...]) -> Iterator[Content]:
    """Every other value is deleted, over and over."""
    count = limits.UPDATE_STRUCTS
    yield from itertools.islice(_values(client, itertools.cycle(range(count)), proofs), 2)
    ranges = itertools.chain.from_iterable((2 * at, 1) for at in range(count))
    update = b"\x00" + _numbers(1, client, count, *ranges)
    while True:
        yield Capability(update)


def _proof(number: int) -> Proof:
    """Short messages, so that there is nothing to it but the signatures."""
    liar = authors.signer("liar")
    place = RoundId(digest("round", number))
    one, other = (
        seal(liar, Commit(place, digest("answer", at), Model("", "", ""))) for at in range(2)
    )
    return equivocation(one, other)


def _name(number: int) -> str:
    """One character for the first numbers, two for more, and so on."""
    text = chr(33 + number % _BASE)
    return text if number < _BASE else _name(number // _BASE - 1) + text


def _sized(data: bytes) -> bytes:
    return _numbers(len(data)) + data


def _numbers(*values: int) -> bytes:
    """Each as LEB128."""
    found = bytearray()
    for value in values:
        while value > 0x7F:
            found.append(value & 0x7F | 0x80)
            value >>= 7
        found.append(value)
    return bytes(found)
