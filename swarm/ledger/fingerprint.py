"""One digest of all logs that a node holds, for two people to read to each other.

It is not what nodes compare, see :mod:`swarm.ledger.digests`. It has no salt, so that an author
could look for two logs with one digest beforehand, were it short anywhere on the way.
"""

from __future__ import annotations

from collections.abc import Generator

from protocol.digest import digest
from protocol.ids import Digest
from swarm.ledger.chain import Chain
from swarm.ledger.replica import Replica
from swarm.ledger.steps import PAUSE, Pause


class Fingerprint:
    """Two nodes with the same one hold the same logs, whatever the order in which they are added.

    Args:
        epoch: chains of this one and the one before count; guests do not.
    """

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._logs: list[Digest] = []

    def add(self, chain: Chain) -> None:
        """Count a chain in, once."""
        if chain.admitted and self._epoch - 1 <= chain.epoch <= self._epoch:
            place = 0 if chain.forked_at is None else chain.forked_at + 1
            entries = len(chain.bodies)
            self._logs.append(
                digest("log", chain.author, chain.epoch, entries, chain.head, place, chain.ticket)
            )

    @property
    def root(self) -> Digest:
        """Of those added so far."""
        return digest("logs", b"".join(sorted(self._logs)))


def summary(replica: Replica, epoch: int) -> Generator[Pause, object, Digest]:
    """The fingerprint of all that is held, with a pause after each chain."""
    found = Fingerprint(epoch)
    for chain in list(replica.chains().values()):
        found.add(chain)
        yield PAUSE
    return found.root
