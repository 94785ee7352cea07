"""Hands what the logs say to whom it concerns."""

from __future__ import annotations

import time
from collections.abc import Callable

from node.conduct import Conduct
from node.coordinator import Coordinator
from protocol.ids import PeerId
from swarm.hints import Hearsay
from swarm.ledger.state import State
from swarm.registry import Registry


class Reader:
    """Args:
    own: this node, whose own word on others it need not read.
    registry: who is there, and what they run.
    hearsay: what they say of others.
    conduct: whom they convict.
    coordinator: may wait for somebody to come.
    clock: gives Unix time in seconds.
    """

    def __init__(
        self,
        own: PeerId,
        registry: Registry,
        hearsay: Hearsay,
        conduct: Conduct,
        coordinator: Coordinator,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._own = own
        self._registry = registry
        self._hearsay = hearsay
        self._conduct = conduct
        self._coordinator = coordinator
        self._clock = clock

    def changed(self, author: PeerId, state: State | None) -> None:
        """Take what the log of ``author`` says now.

        Args:
            state: checked by the rules of its chain; None once nothing is held of it.
        """
        self._registry.learn(author, state)
        if state is None:
            self._hearsay.forget(author)
        else:
            if author != self._own:
                self._hearsay.hear(author, state.hints, int(self._clock()))
            self._conduct.heard(state.evidence)
        self._coordinator.peers_changed()
