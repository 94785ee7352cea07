"""A real daemon that is killed at one point of its work: `python -m tests.e2e.mortal POINT COUNT
[swarmd flags]`, where it comes by for the COUNT-th time.

======== ===========================================================================================
row      some hundred steps of SQLite into writing logs
commit   a transaction of logs has been written, and is not committed
unmarked entries of its own are committed, and the mark does not count them
renaming the mark that does is on the disk, under another name
marked   the mark is in its place, and nobody has seen the entries
ask      a request for logs is to be sent
reply    one has been answered, and nothing of it is taken
taken    a run has been taken, and is to be written some time
======== ===========================================================================================
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from node import atomic, daemon
from node.config import Config
from node.identity import Identity
from node.mesh.base import Mesh
from node.mesh.proxy import MeshProxy
from node.replication import ledger_rows, mark
from node.replication.database import LedgerDatabase
from protocol.ids import PeerId
from swarm.ledger.chain import Chain
from swarm.ledger.replica import Change

POINTS: Final = ("row", "commit", "unmarked", "renaming", "marked", "ask", "reply", "taken")

STEPS: Final = 100


class Death:
    """Comes at one point, for the ``count``-th time that it is passed."""

    def __init__(self, point: str, count: int) -> None:
        self._point = point
        self._left = count

    def passes(self, point: str) -> None:
        """This point is passed now."""
        if point == self._point:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


class MortalMesh(MeshProxy):
    """A mesh whose calls are points."""

    def __init__(self, honest: Mesh, death: Death) -> None:
        super().__init__(honest)
        self._death = death

    async def call(self, peer: PeerId, method: str, body: bytes, limit_s: float) -> bytes:
        self._death.passes("ask" if method == "ledger" else "")
        reply = await super().call(peer, method, body, limit_s)
        self._death.passes("reply" if method == "ledger" else "")
        return reply


def beset_disk(death: Death) -> None:
    """Make points of what is done to the disk."""
    transaction, replace, rename = ledger_rows.transaction, atomic.replace, os.replace
    keep: Callable[[LedgerDatabase, Change, Chain], None] = LedgerDatabase.keep

    @contextmanager
    def mortal_transaction(database: sqlite3.Connection) -> Iterator[None]:
        def step() -> int:
            death.passes("row")
            return 0

        with transaction(database):
            database.set_progress_handler(step, STEPS)
            yield
            database.set_progress_handler(None, 0)
            death.passes("commit")

    def mortal_replace(path: Path, data: bytes) -> None:
        if path.name != mark.FILE:
            replace(path, data)
            return
        death.passes("unmarked")
        replace(path, data)
        death.passes("marked")

    def mortal_rename(source: Path, target: Path) -> None:
        if Path(target).name == mark.FILE:
            death.passes("renaming")
        rename(source, target)

    def mortal_keep(database: LedgerDatabase, change: Change, chain: Chain) -> None:
        keep(database, change, chain)
        death.passes("taken")

    ledger_rows.transaction = mortal_transaction
    atomic.replace = mortal_replace
    os.replace = mortal_rename  # type: ignore[assignment]
    LedgerDatabase.keep = mortal_keep  # type: ignore[method-assign]


def main() -> int:
    """Run the daemon until its death."""
    point, count = sys.argv[1:3]
    assert point in POINTS
    death = Death(point, int(count))
    beset_disk(death)

    def make_mesh(settings: Config, identity: Identity) -> Mesh:
        return MortalMesh(daemon.libp2p_mesh(settings, identity), death)

    return daemon.main(sys.argv[3:], make_mesh)


if __name__ == "__main__":
    sys.exit(main())
