"""Nodes that hold nothing but logs, joined by a mesh in memory, under a virtual clock."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from node.mesh.base import PathChanged, PeerDown, PeerUp
from node.replication.assembly import assemble
from node.replication.service import Replication
from protocol.envelope import KeySigner
from protocol.errors import AdmissionError, TicketError
from protocol.ids import PeerId
from protocol.ledger import EPOCH_S, Profile
from protocol.messages import Model
from swarm.ledger.fingerprint import Fingerprint
from swarm.ledger.state import State
from tests.fakes.ledger_database import FakeLedgerDatabase
from tests.fakes.mesh import FakeMesh, FakeNetwork
from tests.swarm.ledger.authors import EPOCH, SWARM, FreeAdmission, free_ticket

START_S = EPOCH * EPOCH_S + 2 * 24 * 3600.0


def unix_time() -> float:
    """On the third day of the epoch when the virtual clock stands at zero."""
    return START_S + trio.current_time()


class Instantly:
    """Verifies tickets that cost nothing, without a thread."""

    def __init__(self) -> None:
        self._admission = FreeAdmission()
        self.verified: set[tuple[PeerId, int, bytes]] = set()

    async def verify(self, author: PeerId, epoch: int, ticket: bytes) -> int:
        await trio.lowlevel.checkpoint()
        try:
            quality = self._admission.quality(author, epoch, ticket)
        except AdmissionError as error:
            raise TicketError(str(error)) from error
        self.verified.add((author, epoch, ticket))
        return quality

    def recheck(self, author: PeerId, epoch: int, ticket: bytes) -> None:
        try:
            self._admission.quality(author, epoch, ticket)
        except AdmissionError as error:
            raise TicketError(str(error)) from error

    def quality(self, author: PeerId, epoch: int, ticket: bytes) -> int:
        assert (author, epoch, ticket) in self.verified
        return self._admission.quality(author, epoch, ticket)


class FreeTickets:
    """Tickets that are there after a while."""

    kind = "free"

    def __init__(self, own: PeerId, after_s: float) -> None:
        self._own = own
        self.after_s = after_s

    async def ticket(self, epoch: int) -> bytes:
        return free_ticket(self._own, epoch)

    def progress(self) -> float | None:
        return None


def profile(name: str = "m", label: str = "", context: int = 4096) -> Profile:
    """What a node runs."""
    return Profile(Model(name, "f", ""), 7, context, serves=True, energy=3, label=label)


class ReplicaNode:
    """Attributes:
    disk: outlives the node; hand it to the next one to restart it.
    states: what holds of each author, as it was told last.
    """

    def __init__(self, mesh: FakeMesh, disk: FakeLedgerDatabase, replication: Replication) -> None:
        self.mesh = mesh
        self.disk = disk
        self.replication = replication
        self.replica = replication._replica
        self.own = replication.own
        self.states: dict[PeerId, State] = {}
        replication.changed = self._changed

    @property
    def peer(self) -> PeerId:
        return self.mesh.peer_id

    def _changed(self, author: PeerId, state: State | None) -> None:
        if state is None:
            # It may have come and gone before it was read.
            self.states.pop(author, None)
        else:
            self.states[author] = state

    def root(self) -> bytes:
        """Of all that it holds."""
        found = Fingerprint(EPOCH)
        for chain in self.replica.chains().values():
            found.add(chain)
        return found.root

    async def follow_links(self) -> None:
        while True:
            match await self.mesh.next_event():
                case PeerUp(link):
                    self.replication.linked(link)
                case PeerDown(peer, _):
                    self.replication.unlinked(peer)
                case PathChanged():
                    pass


@asynccontextmanager
async def running(
    network: FakeNetwork,
    name: str,
    bootstraps: list[str] | None = None,
    disk: FakeLedgerDatabase | None = None,
    ticket_after_s: float | None = 0.0,
    seed: int = 0,
) -> AsyncIterator[ReplicaNode]:
    """One node.

    Args:
        disk: of an earlier one, to be it again.
        ticket_after_s: None: it never has a ticket.
    """
    signer = KeySigner(hashlib.sha256(name.encode()).digest())
    mesh = network.mesh(name, bootstraps or [], SWARM)
    disk = disk or FakeLedgerDatabase(signer.peer)
    tickets = None if ticket_after_s is None else FreeTickets(signer.peer, ticket_after_s)
    rng = random.Random(f"{seed}{name}")
    replication = await assemble(
        disk,
        mesh,
        signer,
        SWARM,
        Instantly(),
        tickets,
        rng,
        unix_time,  # type: ignore[arg-type]
    )
    node = ReplicaNode(mesh, disk, replication)
    async with mesh.running(), trio.open_nursery() as nursery:
        await nursery.start(replication.run)
        nursery.start_soon(node.follow_links)
        yield node
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def swarm_of(
    network: FakeNetwork, count: int, ticket_after_s: float | None = 0.0
) -> AsyncIterator[list[ReplicaNode]]:
    """Nodes that are all linked, and say what they run."""
    async with AsyncExitStack() as stack:
        nodes: list[ReplicaNode] = []
        for at in range(count):
            addresses = [address for one in nodes for address in one.mesh.addresses()]
            node = await stack.enter_async_context(
                running(network, f"node {at}", addresses, ticket_after_s=ticket_after_s)
            )
            node.own.describe(profile(f"model {at}"))
            nodes.append(node)
        yield nodes
