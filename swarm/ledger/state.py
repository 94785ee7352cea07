"""What an author's log says: the fold of its entries.

The document's values are encoded one by one, so that a change of one costs no more than itself, and
so that a field that this version does not know is passed over.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from protocol.codec import decode, encode
from protocol.errors import ProtocolError
from protocol.ids import PeerId
from protocol.ledger import (
    Calibration,
    Capability,
    Checkpoint,
    Evidence,
    Hints,
    Profile,
    read_entry,
)
from protocol.messages import Proof
from swarm.ledger.chain import Chain
from swarm.ledger.document import client_of, folding
from swarm.ledger.steps import PAUSE, Pause, finish

_FIELDS: Final = {one.name: one for one in msgspec.structs.fields(Profile)}


@dataclass(frozen=True, slots=True)
class State:
    """What holds of an author.

    Attributes:
        values: of its document.
        profile: what they say that it runs; None where they say too little, or nonsense.
        hints: the latest for each day, by day.
        evidence: proofs that it passes on, in the order of the log.
        since: Unix time in seconds, by its clock, of its first entry of the epoch; 0 without any.
        forked: it has forked, and nothing later counts.
    """

    values: Mapping[str, bytes]
    profile: Profile | None
    hints: Mapping[int, Hints]
    evidence: tuple[Proof, ...]
    since: int
    forked: bool


def state(chain: Chain) -> State:
    """The fold of a chain. What it says was checked when it was taken."""
    return finish(reading(chain))


def reading(chain: Chain) -> Generator[Pause, object, State]:
    """The fold of a chain as it is now, with pauses in which it may change."""
    bodies = tuple(chain.bodies)
    return _read(chain.author, chain.epoch, bodies, chain.fork is not None)


def read(author: PeerId, epoch: int, bodies: Sequence[bytes], forked: bool = False) -> State:
    """The fold of the entries of one author in one epoch."""
    return finish(_read(author, epoch, bodies, forked))


def _read(
    author: PeerId, epoch: int, bodies: Sequence[bytes], forked: bool
) -> Generator[Pause, object, State]:
    hints: dict[int, Hints] = {}
    evidence: list[Proof] = []
    changes: list[bytes] = []
    since = 0
    for body in bodies:
        yield PAUSE
        entry = read_entry(body)
        since = since or entry.at
        match entry.content:
            case Checkpoint(document, days, proofs):
                changes.append(document)
                hints.update({one.day: one for one in days})
                evidence.extend(proofs)
            case Capability(update):
                changes.append(update)
            case Calibration(one):
                hints[one.day] = one
            case Evidence(proof):
                evidence.append(proof)
    values = yield from folding(changes, client_of(author, epoch))
    return State(values, profile_of(values), hints, tuple(evidence), since, forked)


def updates(bodies: Iterable[bytes]) -> Iterator[bytes]:
    """The updates of the author's document that entries hold, in order."""
    for body in bodies:
        match read_entry(body).content:
            case Checkpoint(document):
                yield document
            case Capability(update):
                yield update


def profile_of(values: Mapping[str, bytes]) -> Profile | None:
    """The profile that a document holds; None where it holds too little, or nonsense."""
    found: dict[str, object] = {}
    for name, one in _FIELDS.items():
        if name not in values:
            continue
        try:
            found[name] = decode(values[name], one.type)
        except ProtocolError:
            return None
    if any(one.required and name not in found for name, one in _FIELDS.items()):
        return None
    return Profile(**found)  # type: ignore[arg-type]


def values_of(profile: Profile) -> dict[str, bytes]:
    """What a document holds of ``profile``."""
    return {name: encode(getattr(profile, name)) for name in _FIELDS}
