"""Puts this node's part in the replication of logs together, from what is on its disk."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from node.mesh.base import Mesh
from node.replication.database import UNKNOWN, LedgerDatabase
from node.replication.own import OwnLog, Tickets
from node.replication.service import Replication
from node.replication.stamping import Stamper, Verifier
from protocol.envelope import Signer
from protocol.errors import ProtocolError, TicketError
from protocol.ids import PeerId, short_peer
from protocol.ledger import epoch_of
from protocol.presence import SKEW_S
from swarm.ledger.admission import Certificates, Stamps
from swarm.ledger.replica import Replica

_log = logging.getLogger(__name__)

STAMP_AFTER_S: Final = 60.0
"""A node that does not stay costs nobody a stamp, itself included."""


class StampTickets:
    """This node's tickets in a public swarm: they take minutes."""

    kind = "stamp"
    after_s = STAMP_AFTER_S

    def __init__(self, stamps: Stamps, own: PeerId) -> None:
        self.stamper = Stamper(stamps)
        self._own = own

    async def ticket(self, epoch: int) -> bytes:
        return await self.stamper.stamp(self._own, epoch)

    def progress(self) -> float | None:
        """The share of stamps that would have been found by now; None while none is made."""
        return None if self.stamper.progress is None else self.stamper.progress.fraction


class CertificateTickets:
    """This node's tickets in a private swarm: whoever has the key can make them."""

    kind = "certificate"
    after_s = 0.0

    def __init__(self, certificates: Certificates, own: PeerId) -> None:
        self._certificates = certificates
        self._own = own

    async def ticket(self, epoch: int) -> bytes:
        return self._certificates.issue(self._own, epoch)

    def progress(self) -> float | None:
        """None: it takes no time."""
        return None


@asynccontextmanager
async def open_replication(
    data_dir: Path,
    mesh: Mesh,
    signer: Signer,
    swarm: str,
    swarm_key: bytes | None,
    stamp: bool,
    rng: random.Random,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Replication]:
    """What this node holds of all logs, as its disk has it; nothing is sent until it runs.

    Args:
        swarm_key: the 32 bytes that admit to a private swarm; None in a public one.
        stamp: whether to work for a stamp there; without one this node stays a guest.

    Raises:
        StoreError: the database cannot be read, and not for being damaged.
    """
    own = signer.peer
    admission: Certificates | Stamps
    tickets: Tickets | None = None
    if swarm_key is not None:
        admission = Certificates(swarm, swarm_key)
        tickets = CertificateTickets(admission, own)
    else:
        admission = Stamps(swarm)
        if stamp:
            tickets = StampTickets(admission, own)
    async with LedgerDatabase.open(data_dir, swarm, own) as database:
        yield await assemble(
            database, mesh, signer, swarm, Verifier(admission), tickets, rng, clock
        )


async def assemble(
    database: LedgerDatabase,
    mesh: Mesh,
    signer: Signer,
    swarm: str,
    verifier: Verifier,
    tickets: Tickets | None,
    rng: random.Random,
    clock: Callable[[], float] = time.time,
) -> Replication:
    """The parts, joined; what ``database`` has kept is taken back."""
    replica = Replica(swarm, verifier, signer.peer)
    database.expire(epoch_of(clock()) - 1)
    await _restore(database, replica, verifier)
    if database.own_mark(epoch_of(clock())) is UNKNOWN:
        # Somebody whose clock was ahead may have begun the next epoch already.
        await database.write_off(epoch_of(clock() + SKEW_S))
    own = OwnLog(signer, replica, database, tickets, verifier, mesh, clock)
    return Replication(mesh, replica, database, verifier, own, rng, clock)


async def _restore(database: LedgerDatabase, replica: Replica, verifier: Verifier) -> None:
    """Take back what was held. What has been damaged since is given up: peers have it."""
    async for batch in database.load():
        for one in batch:
            ticket, quality = one.ticket, one.quality
            try:
                if ticket:
                    verifier.recheck(one.author, one.epoch, ticket)
            except TicketError:
                if one.author != replica.own:
                    database.forget([(one.author, one.epoch)])
                    continue
                # One's own log counts without one, and is never given up.
                ticket, quality = b"", -1
            try:
                replica.restore(
                    one.author, one.epoch, one.bodies, one.signatures, ticket, quality, one.fork
                )
            except ProtocolError as error:
                database.forget([(one.author, one.epoch)])
                _log.warning(
                    "the log of %s is damaged on disk, and is fetched from peers: %s",
                    short_peer(one.author), error,
                )  # fmt: skip
