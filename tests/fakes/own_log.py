"""Logs in memory, for whole nodes under a virtual clock: what one says, all that it reaches hear.

Stands for ``node.replication`` in both its parts: what a node has to say, and what it is told of
others. There are no entries, no signatures and no tickets: everybody is admitted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from weakref import WeakKeyDictionary

import trio

from node.mesh.base import Link
from protocol.ids import PeerId
from protocol.ledger import Hints, Profile
from protocol.messages import Proof
from swarm.ledger.state import State
from tests.fakes.mesh import FakeMesh, FakeNetwork

SETTLE_S = 0.05
"""What is said together is passed on together."""
NOTHING = State({}, None, {}, (), 0, False)

_serials = count(1)
_worlds: WeakKeyDictionary[FakeNetwork, dict[PeerId, FakeOwnLog]] = WeakKeyDictionary()


class FakeOwnLog:
    """A node's own log, and the logs that it holds of others.

    Args:
        mesh: all logs on its network know each other.
        clock: gives Unix time in seconds.

    Attributes:
        changed: called with an author and what its log says now.
        own: what this node says.
        held: by author, with a number that is higher the later it was said; None where it is gone.
    """

    def __init__(self, mesh: FakeMesh, clock: Callable[[], float]) -> None:
        self._mesh = mesh
        self._clock = clock
        self._logs = _worlds.setdefault(mesh._network, {})
        self._logs[mesh.peer_id] = self
        self._wake = trio.Event()
        self.changed: Callable[[PeerId, State | None], None] = lambda author, state: None
        self.held: dict[PeerId, tuple[int, State | None]] = {}
        self.own = NOTHING
        self._serial = 0

    # --- what a node says -----------------------------------------------------------------------

    def describe(self, profile: Profile) -> None:
        self._say(replace(self.own, profile=profile))

    def tell(self, hints: Hints) -> None:
        self._say(replace(self.own, hints={**self.own.hints, hints.day: hints}))

    def testify(self, proof: Proof) -> None:
        if proof not in self.own.evidence:
            self._say(replace(self.own, evidence=(*self.own.evidence, proof)))

    def fork(self) -> None:
        """Somebody has written with this node's key."""
        self._say(replace(self.own, forked=True))

    def _say(self, state: State) -> None:
        if state != self.own:
            self.own = replace(state, since=state.since or int(self._clock()))
            self._serial = next(_serials)
            self._wake.set()

    # --- what goes round ------------------------------------------------------------------------

    def linked(self, link: Link) -> None:
        self._wake.set()

    def unlinked(self, peer: PeerId) -> None:
        """All logs are kept."""

    def take(self, author: PeerId, serial: int, state: State) -> None:
        """What ``author`` said, heard of somebody."""
        if author in self.held and self.held[author][0] >= serial:
            return
        self.held[author] = (serial, state)
        self.changed(author, state)
        self._wake.set()

    def drop(self, author: PeerId) -> None:
        """Its epoch is over, or others have better tickets."""
        self.held[author] = (self.held[author][0], None)
        self.changed(author, None)

    async def run(self) -> None:
        """Tell whoever is linked all that is held, whenever there is something new."""
        while True:
            await self._wake.wait()
            await trio.sleep(SETTLE_S)
            self._wake = trio.Event()
            if self._serial:
                self.take(self._mesh.peer_id, self._serial, self.own)
            near = {link.peer for link in self._mesh.links()} & self._logs.keys()
            for other in sorted(near - {self._mesh.peer_id}):
                for author, (serial, state) in self.held.items():
                    if state is not None:
                        self._logs[other].take(author, serial, state)
