"""The chains in the SQLite file, written and read.

Each row has a checksum: SQLite finds a page that is broken, not a value that is another. What an
author signed would show that by itself; not all that is kept does.

An entry is found by one integer, the id of its chain and its seq together: so a chain lies in one
piece on the disk, and the table is its own index.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from node.replication.unwritten import Snapshot
from protocol.codec import decode, encode
from protocol.errors import ProtocolError
from protocol.ids import PeerId
from protocol.ledger import Fork
from swarm.ledger.replica import Name

_SEQ_BITS: Final = 16
_COLUMNS: Final = "SELECT id, swarm, author, epoch, ticket, quality, fork, checksum FROM chain "


@dataclass(frozen=True, slots=True)
class Kept:
    """A chain as it is on disk. Where rows of it are missing, only restoring it shows that.

    Attributes:
        bodies, signatures, ticket, quality: as of :class:`swarm.ledger.chain.Chain`.
        fork: the proof against its author.
        intact: whether each row is what was written.
    """

    swarm: str
    author: PeerId
    epoch: int
    bodies: list[bytes]
    signatures: dict[int, bytes]
    ticket: bytes
    quality: int
    fork: Fork | None
    intact: bool


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All of it, or nothing."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        # A failed COMMIT may or may not have ended the transaction.
        if database.in_transaction:
            with suppress(sqlite3.Error):
                database.execute("ROLLBACK")
        raise


def write(database: sqlite3.Connection, swarm: str, name: Name, snapshot: Snapshot) -> None:
    """Make a chain what ``snapshot`` says."""
    chain = _identify(database, swarm, name)
    standing = snapshot.standing
    if standing is not None:
        checksum = _checksum(swarm, *name, standing.ticket, standing.quality, standing.fork)
        database.execute(
            "UPDATE chain SET ticket = ?, quality = ?, fork = ?, checksum = ? WHERE id = ?",
            (standing.ticket, standing.quality, standing.fork, checksum, chain),
        )
    first, last = _places(chain)
    database.execute(
        "DELETE FROM entry WHERE place BETWEEN ? AND ?", (first + snapshot.first, last)
    )
    database.executemany(
        "INSERT INTO entry VALUES (?, ?, ?, ?)",
        (
            (place, body, signature, _checksum(place, body, signature))
            for place, (body, signature) in enumerate(snapshot.entries, first + snapshot.first)
        ),
    )


def delete(database: sqlite3.Connection, swarm: str, name: Name) -> None:
    """Delete a chain, if it is there."""
    found = database.execute(
        "SELECT id FROM chain WHERE swarm = ? AND author = ? AND epoch = ?", (swarm, *name)
    ).fetchall()
    _delete(database, [chain for (chain,) in found])


def delete_before(database: sqlite3.Connection, epoch: int, most: int) -> int:
    """Delete chains of earlier epochs, of every swarm, ``most`` at most; how many it were."""
    found = database.execute("SELECT id FROM chain WHERE epoch < ? LIMIT ?", (epoch, most))
    chains = [chain for (chain,) in found]
    _delete(database, chains)
    return len(chains)


def read(
    database: sqlite3.Connection, swarm: str | None = None, oldest: int = 0, after: int = 0
) -> Generator[tuple[int, Kept], None, None]:
    """Chains with their ids, by id.

    Args:
        swarm: whose chains; those of every swarm where it is None.
        oldest: the first epoch of which chains are given.
        after: an id; those up to it are passed over.
    """
    rows = database.execute(
        _COLUMNS + "WHERE id > ? AND epoch >= ? AND (? IS NULL OR swarm = ?) ORDER BY id",
        (after, oldest, swarm, swarm),
    )
    with closing(rows):
        for row in rows:
            yield row[0], _kept(database, *row)


def read_author(database: sqlite3.Connection, swarm: str, author: PeerId) -> list[Kept]:
    """The chains of one author."""
    rows = database.execute(_COLUMNS + "WHERE swarm = ? AND author = ?", (swarm, author))
    return [_kept(database, *row) for row in rows.fetchall()]


def _kept(
    database: sqlite3.Connection,
    chain: int,
    swarm: str,
    author: bytes,
    epoch: int,
    ticket: bytes,
    quality: int,
    fork: bytes | None,
    checksum: int,
) -> Kept:
    rows = database.execute(
        "SELECT place, body, signature, checksum FROM entry WHERE place BETWEEN ? AND ? "
        "ORDER BY place",
        _places(chain),
    ).fetchall()
    intact = checksum == _checksum(swarm, author, epoch, ticket, quality, fork) and all(
        summed == _checksum(*row) for *row, summed in rows
    )
    proof = None
    if intact and fork is not None:
        try:
            proof = decode(fork, Fork)
        except ProtocolError:
            intact = False
    return Kept(
        swarm,
        PeerId(author),
        epoch,
        [body for _, body, _, _ in rows],
        {seq: signed for seq, (_, _, signed, _) in enumerate(rows) if signed is not None},
        ticket,
        quality,
        proof,
        intact,
    )


def _identify(database: sqlite3.Connection, swarm: str, name: Name) -> int:
    """The id of a chain, which is made where it is missing."""
    key = (swarm, *name)
    database.execute(
        "INSERT INTO chain (swarm, author, epoch, ticket, quality, checksum) "
        "VALUES (?, ?, ?, x'', -1, ?) ON CONFLICT DO NOTHING",
        (*key, _checksum(*key, b"", -1, None)),
    )
    (chain,) = database.execute(
        "SELECT id FROM chain WHERE swarm = ? AND author = ? AND epoch = ?", key
    ).fetchone()
    return int(chain)


def _delete(database: sqlite3.Connection, chains: list[int]) -> None:
    for chain in chains:
        database.execute("DELETE FROM entry WHERE place BETWEEN ? AND ?", _places(chain))
        database.execute("DELETE FROM chain WHERE id = ?", (chain,))


def _places(chain: int) -> tuple[int, int]:
    """The first and the last place that a chain may have."""
    return chain << _SEQ_BITS, ((chain + 1) << _SEQ_BITS) - 1


def _checksum(*row: object) -> int:
    return crc32(encode(row))
