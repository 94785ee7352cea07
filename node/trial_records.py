"""Graded rounds on disk: the evidence that a node has of its peers, newest kept.

A table in the store's database; see :mod:`node.store`.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final

from protocol import limits
from protocol.codec import decode, encode
from protocol.errors import ProtocolError
from swarm.trial import Trial

if TYPE_CHECKING:
    from node.store import Store

SCHEMA: Final = """
CREATE TABLE trials (
    number INTEGER PRIMARY KEY,
    round BLOB NOT NULL UNIQUE,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE posed (
    number INTEGER PRIMARY KEY,
    task BLOB NOT NULL
) STRICT;
CREATE TABLE rehearsal (
    number INTEGER PRIMARY KEY CHECK (number = 1),
    path TEXT NOT NULL,
    created_at REAL NOT NULL
) STRICT;
"""


class TrialRecords:
    """Reads and writes these tables. Every method raises StoreError where the disk fails."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def keep(self, trial: Trial) -> bool:
        """Put a trial on disk. True where it takes the place of one of the same round."""

        def work(database: sqlite3.Connection) -> bool:
            gone = database.execute("DELETE FROM trials WHERE round = ?", (bytes(trial.round),))
            database.execute(
                "INSERT INTO trials (round, body) VALUES (?, ?)",
                (bytes(trial.round), encode(trial)),
            )
            database.execute(
                "DELETE FROM trials WHERE number <= (SELECT max(number) FROM trials) - ?",
                (limits.TRIALS,),
            )
            return gone.rowcount > 0

        return await self._store.transact(work)

    async def all(self) -> list[Trial]:
        """Every trial, in the order in which they were graded.

        What a later version wrote is left out: old evidence is no reason not to start.
        """

        def work(database: sqlite3.Connection) -> list[Trial]:
            found = []
            for (body,) in database.execute("SELECT body FROM trials ORDER BY number"):
                try:
                    found.append(decode(body, Trial))
                except ProtocolError:
                    continue
            return found

        return await self._store.transact(work)

    async def pose(self, task: bytes) -> None:
        """Put on disk that a task is about to be put to peers, which is done once.

        The newest ``limits.TASKS_POSED`` are kept.
        """

        def work(database: sqlite3.Connection) -> None:
            database.execute("INSERT INTO posed (task) VALUES (?)", (task,))
            database.execute(
                "DELETE FROM posed WHERE number <= (SELECT max(number) FROM posed) - ?",
                (limits.TASKS_POSED,),
            )

        await self._store.transact(work)

    async def posed(self) -> list[bytes]:
        """The names of the tasks of earlier runs."""
        rows = await self._store.transact(
            lambda database: database.execute("SELECT task FROM posed").fetchall()
        )
        return [task for (task,) in rows]
