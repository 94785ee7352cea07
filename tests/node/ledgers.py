"""A replica and the database that it is kept in, side by side."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from node.replication.database import LedgerDatabase
from protocol.errors import ProtocolError
from protocol.ids import PeerId
from protocol.ledger import Fork, Run
from swarm.ledger.replica import Name, Replica
from tests.swarm.ledger.authors import NOW, SWARM, Author, FreeAdmission, signer

OWN = signer("own").peer


@contextmanager
def data_directory() -> Iterator[Path]:
    """An empty one, in memory where the system has such: nothing here takes away its power."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


def names_in(data_dir: Path) -> set[str]:
    return {path.name for path in data_dir.iterdir()}


class Node:
    """Keeps whatever its replica takes.

    Attributes:
        refused: chains that were on disk and could not be restored.
    """

    def __init__(self, database: LedgerDatabase, swarm: str = SWARM, own: PeerId = OWN) -> None:
        self.database = database
        self.replica = Replica(swarm, FreeAdmission(), own)
        self.refused: list[Name] = []

    async def load(self) -> Node:
        async for batch in self.database.load():
            for one in batch:
                try:
                    self.replica.restore(
                        one.author,
                        one.epoch,
                        one.bodies,
                        one.signatures,
                        one.ticket,
                        one.quality,
                        one.fork,
                    )
                except ProtocolError:
                    self.refused.append((one.author, one.epoch))
        self.database.forget(self.refused)
        return self

    def take(self, *items: Run | Fork, source: PeerId | None = None, now: float = NOW) -> None:
        for one in items:
            if isinstance(one, Fork):
                change = self.replica.convict(one, now)
            else:
                change = self.replica.take(one, now, source)
            if change:
                self.database.keep(change, self.replica.chains()[change.author, change.epoch])

    async def write_own(self, run: Run, now: float = NOW) -> None:
        await self.database.keep_own(run)
        self.take(run, source=OWN, now=now)

    async def written(self) -> None:
        """All that was kept is on the disk now."""
        await self.database._write_all()
        async with self.database._writing:
            pass  # what another task took out to write

    def kept(self) -> dict[Name, Any]:
        """All that has to be on the disk."""
        return {
            name: (
                tuple(chain.bodies),
                chain.signatures.get(len(chain.bodies) - 1),
                chain.ticket,
                chain.quality,
                chain.fork,
                chain.forked_at,
            )
            for name, chain in self.replica.chains().items()
            if chain.admitted or chain.author == OWN
        }


@asynccontextmanager
async def opened(
    data_dir: Path, swarm: str = SWARM, own: PeerId = OWN, oldest: int = 0
) -> AsyncIterator[Node]:
    """A node that has restored what is in ``data_dir``."""
    async with LedgerDatabase.open(data_dir, swarm, own) as database:
        if oldest:
            database.expire(oldest)
        yield await Node(database, swarm, own).load()


def resumed(bodies: Iterable[bytes], epoch: int, accent: str = "") -> Author:
    """This node's own log, to be written on."""
    author = Author("own", epoch=epoch)
    author.bodies = list(bodies)
    author.accent = accent
    author._clock = len(author.bodies)
    return author
