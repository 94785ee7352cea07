"""Logs for ``scripts/bench state``: those of honest authors, the same in every run.

They are of a swarm and a time of their own, which all processes of the benchmark share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from node.replication.database import LedgerDatabase
from protocol import limits
from protocol.codec import encode
from protocol.digest import digest
from protocol.envelope import KeySigner
from protocol.ids import PeerId
from protocol.ledger import (
    EPOCH_S,
    Capability,
    Checkpoint,
    Content,
    Run,
    first_entry,
    next_entry,
    sign,
)
from swarm.ledger.admission import Admission, Certificates, Stamps
from swarm.ledger.document import Document, client_of
from swarm.ledger.replica import Replica

SWARM: Final = "bench"
SWARM_KEY: Final = bytes(32)
EPOCH: Final = 2960
NOW: Final = (EPOCH + 1) * EPOCH_S - 12 * 3600.0
"""Unix time in seconds, on the last day of :data:`EPOCH`."""
MOST_ENTRIES: Final = 400
"""Of one author: more do not fit into an epoch."""
_DAY_S: Final = 24 * 3600
_KEYS: Final = 8
_VALUE_BYTES: Final = 88
"""An entry has some 230 bytes with it."""


def seed(name: str) -> bytes:
    """Of the key of whom the benchmark calls ``name``."""
    return sha256(b"bench " + name.encode()).digest()


def signer(name: str) -> KeySigner:
    """The key of whom the benchmark calls ``name``."""
    return KeySigner(seed(name))


@dataclass(frozen=True, slots=True)
class Author:
    """Attributes:
    bodies: its entries of :data:`EPOCH`, from the checkpoint on.
    """

    signer: KeySigner
    bodies: Sequence[bytes]

    @property
    def peer(self) -> PeerId:
        return self.signer.peer

    def run(self, first: int, end: int | None, ticket: bytes = b"") -> Run:
        """Its entries from ``first`` to before ``end``, signed."""
        return sign(self.signer, self.bodies[first:end], ticket)


def author(number: int, entries: int) -> Author:
    """One that has set ``entries`` values, one after the other, as often in a day as it may."""
    who = signer(f"author {number}")
    document = Document(client_of(who.peer, EPOCH))

    def said() -> Iterator[tuple[int, Content]]:
        for seq in range(entries):
            drawn = b"".join(digest("value", number, seq, part) for part in range(3))
            update = document.set({f"key {seq % _KEYS}": drawn[:_VALUE_BYTES]})
            assert update is not None
            at = seq * _DAY_S // limits.CAPABILITIES_PER_DAY
            yield at, Capability(update) if seq else Checkpoint(update, (), ())

    found = Author(who, entries_of(who, said()))
    assert len(found.bodies) == entries
    return found


def entries_of(who: KeySigner, said: Iterable[tuple[int, Content]]) -> list[bytes]:
    """What ``who`` says, as entries: as much of it as one may say in an epoch.

    Args:
        said: each with the seconds since the epoch began.
    """
    bodies: list[bytes] = []
    size = 0
    for since, content in said:
        at = EPOCH * EPOCH_S + since
        if bodies:
            entry = next_entry(bodies[-1], at, content)
        else:
            assert isinstance(content, Checkpoint)
            entry = first_entry(SWARM, who.peer, at, content)
        body = encode(entry)
        size += len(body)
        if size > limits.EPOCH_BYTES or len(bodies) == limits.RUN_ENTRIES:
            break
        bodies.append(body)
    return bodies


def admission(tickets: str) -> Certificates | Stamps:
    """Of ``certificates``, or of ``stamps``: those take as much work to check as any, but none to
    make."""
    return Certificates(SWARM, SWARM_KEY) if tickets == "certificates" else Stamps(SWARM, bits=0)


def ticket(admitting: Admission, peer: PeerId) -> bytes:
    """What admits ``peer``."""
    if isinstance(admitting, Certificates):
        return admitting.issue(peer, EPOCH)
    return bytes(peer[:8])


def replica(runs: Iterable[Run], admitting: Admission, own: PeerId | None = None) -> Replica:
    """One that holds ``runs``."""
    held = Replica(SWARM, admitting, own)
    for run in runs:
        held.take(run, NOW)
    return held


async def write(data_dir: Path, runs: Iterable[Run], admitting: Admission) -> None:
    """Write a database that holds ``runs``, of the node "server"."""
    own = signer("server").peer
    held = Replica(SWARM, admitting, own)
    async with LedgerDatabase.open(data_dir, SWARM, own) as database:
        for run in runs:
            change = held.take(run, NOW)
            database.keep(change, held.chains()[change.author, change.epoch])
