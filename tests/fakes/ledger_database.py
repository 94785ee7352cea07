"""The logs on disk, in memory; ``tests/fakes/test_ledger_database.py`` holds it and the real one to
the same behaviour.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import trio

from node.replication.database import UNKNOWN, Kept, Mark, Unknown
from protocol.errors import StoreError
from protocol.ids import ZERO_DIGEST, PeerId
from protocol.ledger import Run, entry_digest, read_entry
from swarm.ledger.chain import Chain
from swarm.ledger.replica import Change, Name
from tests.swarm.ledger.authors import SWARM

LOST = 1 << 31


class FakeLedgerDatabase:
    """Outlives a node that is made again.

    Args:
        own: the node whose log is kept whether or not it has a ticket.

    Attributes:
        kept: as the disk has them.
        marks: how far this node may have written each of its chains; None: unknown.
        failing: own entries cannot be written now.
    """

    def __init__(self, own: PeerId) -> None:
        self._own = own
        self._oldest = 0
        self.kept: dict[Name, Kept] = {}
        self.marks: dict[int, Mark] | None = {}
        self.lost_until = -1
        self.failing = False
        self.moved_aside: Path | None = None

    async def load(self) -> AsyncIterator[list[Kept]]:
        for one in list(self.kept.values()):
            yield [one]

    def own_mark(self, epoch: int) -> Mark | Unknown | None:
        if self.marks is None:
            return UNKNOWN
        if epoch <= self.lost_until:
            return Mark(epoch, LOST, ZERO_DIGEST)
        return self.marks.get(epoch)

    def keep(self, change: Change, chain: Chain) -> None:
        self.forget(change.evicted)
        if chain.epoch >= self._oldest and (chain.ticket or chain.author == self._own):
            self._put(chain, list(chain.bodies), dict(chain.signatures))

    def forget(self, names: Iterable[Name]) -> None:
        for name in names:
            self.kept.pop(name, None)

    def expire(self, oldest: int) -> None:
        self._oldest = oldest
        self.forget([name for name in self.kept if name[1] < oldest])

    async def room(self) -> None:
        pass

    async def run(self) -> None:
        await trio.sleep_forever()

    async def keep_own(self, run: Run) -> None:
        entry = read_entry(run.bodies[0])
        mark = self.own_mark(entry.epoch)
        if self.failing or mark is UNKNOWN:
            raise StoreError("The disk is full.")
        if isinstance(mark, Mark) and mark.entries > entry.seq:
            raise StoreError("It may have been written before.")
        held = self.kept.get((self._own, entry.epoch)) or Chain(self._own, entry.epoch)
        if len(held.bodies) != entry.seq:
            raise StoreError("It does not follow.")
        bodies = [*held.bodies, *run.bodies]
        self._put(held, bodies, {**held.signatures, len(bodies) - 1: run.signature})

    async def write_off(self, epoch: int) -> None:
        self.marks = self.marks or {}
        self.lost_until = epoch

    def _put(self, of: Chain | Kept, bodies: list[bytes], signatures: dict[int, bytes]) -> None:
        self.kept[of.author, of.epoch] = Kept(
            SWARM, of.author, of.epoch, bodies, signatures, of.ticket, of.quality, of.fork, True
        )
        if of.author != self._own or not bodies or self.marks is None:
            return
        known = self.marks.get(of.epoch)
        if known is None or known.entries < len(bodies):
            self.marks[of.epoch] = Mark(of.epoch, len(bodies), entry_digest(bodies[-1]))
