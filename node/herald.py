"""Tells other peers what this node's calibration has shown, and hears what theirs has.

Sums of a day go out when it is over, to all, and later to everyone who connects: those of a day
that still runs would tell a peer that connects twice which of the rounds between was a test. What
comes from a verifier that the operator trusts by name counts; what comes from a stranger orders
newcomers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import trio

from node.conduct import Allowance
from node.knowledge import Knowledge
from node.mesh.base import Mesh
from protocol import limits
from protocol.codec import encode
from protocol.envelope import Signer
from protocol.errors import MeshError
from protocol.ids import PeerId, short_peer
from protocol.messages import Hints, seal
from swarm.hints import DAY_S
from swarm.registry import Registry

_log = logging.getLogger(__name__)


class Herald:
    """Args:
    mesh: the way to other peers.
    knowledge: what this node has seen, and where hearsay goes.
    registry: whose newcomers a stranger's word orders.
    signer: signs as this node.
    clock: gives Unix time in seconds.
    """

    def __init__(
        self,
        mesh: Mesh,
        knowledge: Knowledge,
        registry: Registry,
        signer: Signer,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._mesh = mesh
        self._knowledge = knowledge
        self._registry = registry
        self._signer = signer
        self._clock = clock
        self._allowances: dict[PeerId, Allowance] = {}
        # Signed once, however often somebody connects.
        self._sealed: dict[int, tuple[Hints, bytes]] = {}

    async def run(self) -> None:
        """Tell everyone of each day that ends, until cancelled."""
        while True:
            now = self._clock()
            await trio.sleep(DAY_S - now % DAY_S)
            yesterday = int(self._clock()) // DAY_S - 1
            for link in self._mesh.links():
                if link.peer != self._mesh.peer_id:
                    self._tell(link.peer, yesterday)

    def welcome(self, peer: PeerId) -> None:
        """Tell a newly connected peer of the days that still count."""
        today = int(self._clock()) // DAY_S
        for day in range(today - limits.HINT_DAYS, today):
            self._tell(peer, day)

    def heard(self, peer: PeerId, hints: Hints) -> None:
        """Take the hints of a connected peer.

        Raises:
            RefusedError: they are not what hints must be.
        """
        allowance = self._allowances.setdefault(
            peer, Allowance(limits.HINTS_AT_ONCE, limits.HINTS_PER_HOUR, self._clock())
        )
        # Kept when a peer leaves, or it could come again to say it again.
        while len(self._allowances) > limits.ACCOUNTS:
            del self._allowances[next(iter(self._allowances))]
        if not allowance.take(self._clock()):
            _log.info("peer %s tells too much", short_peer(peer))
            return
        self._knowledge.hearsay.hear(peer, hints, int(self._clock()))
        for subject in {one.peer for one in hints.sums} & self._registry.profiles.keys():
            self.introduced(subject)

    def introduced(self, peer: PeerId) -> None:
        """A peer said what it runs: have ready what strangers say of it."""
        rumour = self._knowledge.hearsay.rumour(peer, int(self._clock()))
        self._registry.hint(peer, rumour)

    def _tell(self, peer: PeerId, day: int) -> None:
        payload = self._payload(day)
        if payload is None:
            return
        try:
            self._mesh.send(peer, payload)
        except MeshError as error:
            _log.info("no way to tell %s what peers can do: %s", short_peer(peer), error)

    def _payload(self, day: int) -> bytes | None:
        """The signed sums of a day, None where there are none."""
        hints = self._knowledge.hints(day)
        if not hints.sums:
            return None
        known = self._sealed.get(day)
        if known is None or known[0] is not hints:
            known = self._sealed[day] = (hints, encode(seal(self._signer, hints)))
            for past in [one for one in self._sealed if one < day - limits.HINT_DAYS]:
                del self._sealed[past]
        return known[1]
