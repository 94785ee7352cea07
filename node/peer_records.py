"""What the node must not forget of its peers: rounds it answered, strikes, accounts of service.

Tables in the store's database; see :mod:`node.store`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from protocol import limits
from protocol.codec import decode, encode
from protocol.errors import ProtocolError
from protocol.ids import Digest, PeerId, RoundId
from protocol.messages import Proof
from protocol.proofs import Kind
from swarm.service import Account
from swarm.strikes import Strike

if TYPE_CHECKING:
    from node.store import Store

SCHEMA: Final = """
CREATE TABLE answered (
    number INTEGER PRIMARY KEY,
    round BLOB NOT NULL UNIQUE
) STRICT;
CREATE TABLE strikes (
    offence BLOB PRIMARY KEY,
    peer BLOB NOT NULL,
    kind TEXT NOT NULL,
    proof BLOB NOT NULL,
    seen_at INTEGER NOT NULL,
    known INTEGER NOT NULL
) STRICT;
CREATE TABLE accounts (
    peer BLOB PRIMARY KEY,
    given REAL NOT NULL,
    taken REAL NOT NULL,
    at INTEGER NOT NULL
) STRICT;
"""

FOUND: Final = "ALTER TABLE strikes ADD COLUMN found INTEGER NOT NULL DEFAULT 0;"
"""What a later version of the schema adds."""


class PeerRecords:
    """Reads and writes these tables. Every method raises StoreError where the disk fails."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # --- rounds answered ------------------------------------------------------------------------

    async def claim(self, round_id: RoundId) -> bool:
        """Put on disk that this node answers a round. False if it has done so before.

        The newest ``limits.ROUNDS_REMEMBERED`` are kept.
        """

        def work(database: sqlite3.Connection) -> bool:
            made = database.execute(
                "INSERT INTO answered (round) VALUES (?) ON CONFLICT DO NOTHING", (bytes(round_id),)
            )
            if made.rowcount == 0:
                return False
            database.execute(
                "DELETE FROM answered WHERE number <= (SELECT max(number) FROM answered) - ?",
                (limits.ROUNDS_REMEMBERED,),
            )
            return True

        return await self._store.transact(work)

    async def release(self, round_id: RoundId) -> None:
        """A claimed round ended before this node had answered."""
        await self._store.transact(
            lambda database: database.execute(
                "DELETE FROM answered WHERE round = ?", (bytes(round_id),)
            )
        )

    # --- strikes and accounts -------------------------------------------------------------------

    async def strikes(self) -> list[Strike]:
        """All strikes, oldest first."""

        def work(database: sqlite3.Connection) -> list[Strike]:
            found = database.execute(
                "SELECT peer, kind, offence, proof, seen_at, known, found FROM strikes "
                "ORDER BY seen_at"
            )
            return [_strike(*row) for row in found]

        return await self._store.transact(work)

    async def accounts(self) -> list[tuple[PeerId, Account]]:
        """All accounts of service."""
        rows = await self._store.transact(
            lambda database: database.execute(
                "SELECT peer, given, taken, at FROM accounts"
            ).fetchall()
        )
        return [(PeerId(peer), Account(given, taken, at)) for peer, given, taken, at in rows]

    async def keep(
        self,
        strikes: Iterable[Strike],
        forgotten: Iterable[Digest],
        accounts: Mapping[PeerId, Account],
        closed: Iterable[PeerId],
    ) -> None:
        """Write what is new and delete what is gone, all at once.

        Args:
            strikes: new ones.
            forgotten: offences.
            accounts: as they are now.
            closed: peers without an account now.
        """

        def work(database: sqlite3.Connection) -> None:
            database.executemany(
                "INSERT OR REPLACE INTO strikes "
                "(peer, kind, offence, proof, seen_at, known, found) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        one.peer,
                        one.kind,
                        one.offence,
                        encode(one.proof),
                        one.seen_at,
                        one.known,
                        one.found,
                    )
                    for one in strikes
                ],
            )
            database.executemany("DELETE FROM strikes WHERE offence = ?", [(x,) for x in forgotten])
            database.executemany(
                "INSERT OR REPLACE INTO accounts (peer, given, taken, at) VALUES (?, ?, ?, ?)",
                [(peer, one.given, one.taken, one.at) for peer, one in accounts.items()],
            )
            database.executemany("DELETE FROM accounts WHERE peer = ?", [(x,) for x in closed])

        await self._store.transact(work)


def _strike(*row: Any) -> Strike:
    peer, kind, offence, proof, seen_at, known, found = row
    try:
        whole = decode(proof, Proof, limits.PROOF_BYTES)
    except ProtocolError as error:
        raise msgspec.DecodeError(f"a proof is damaged: {error}") from error
    return Strike(
        PeerId(peer),
        cast(Kind, kind),
        Digest(offence),
        whole,
        seen_at,
        bool(known),
        bool(found),
    )
