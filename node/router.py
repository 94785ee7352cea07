"""Hands what the mesh brings to whom it concerns."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Protocol

from node.coordinator import Coordinator
from node.mesh.base import Link, Mesh, MeshEvent, PathChanged, PeerDown, PeerUp, Received, Refused
from node.worker import Worker
from protocol import limits
from protocol.errors import ProtocolError
from protocol.ids import PeerId, short_peer
from protocol.messages import FromAsker, parse
from swarm.registry import Registry

_log = logging.getLogger(__name__)


class LinkObserver(Protocol):
    """Follows who is linked, and does not wait."""

    def linked(self, link: Link) -> None:
        """A peer is linked now."""
        ...

    def unlinked(self, peer: PeerId) -> None:
        """A peer is not linked any more."""
        ...


class Router:
    """Reads the mesh's events, one at a time, and never waits for what they cause.

    Args:
        replication: exchanges logs with whoever is linked.
    """

    def __init__(
        self,
        mesh: Mesh,
        registry: Registry,
        worker: Worker,
        coordinator: Coordinator,
        replication: LinkObserver,
    ) -> None:
        self._mesh = mesh
        self._registry = registry
        self._worker = worker
        self._coordinator = coordinator
        self._replication = replication
        self._malformed: Counter[PeerId] = Counter()

    async def run(self) -> None:
        """Route until cancelled."""
        while True:
            self._route(await self._mesh.next_event())

    def _route(self, event: MeshEvent) -> None:
        match event:
            case PeerUp(link):
                _log.info("peer %s is up at %s", short_peer(link.peer), link.address)
                self._registry.connected(link.peer, link.address)
                self._replication.linked(link)
                self._coordinator.peers_changed()
            case PathChanged(link):
                _log.info("peer %s is %s now: %s", short_peer(link.peer), link.path, link.address)
                self._registry.connected(link.peer, link.address)
            case PeerDown(peer, reason):
                _log.info("peer %s is down: %s", short_peer(peer), reason)
                self._registry.disconnected(peer)
                self._replication.unlinked(peer)
                self._malformed.pop(peer, None)
                self._coordinator.broke(peer, "lost", reason)
                self._worker.lost(peer)
            case Received(peer, payload):
                self._take(peer, payload)
            case Refused(_, address, code, reason):
                _log.warning("refused %s: %s (%s)", address, reason, code)

    def _take(self, peer: PeerId, payload: bytes) -> None:
        try:
            incoming = parse(payload)
            if incoming.peer != peer:
                raise ProtocolError("It passes on a message of another peer.")
            if isinstance(incoming.message, FromAsker):
                self._worker.receive(incoming)
            else:
                self._coordinator.receive(incoming)
        except ProtocolError as error:
            self._complain(peer, error)

    def _complain(self, peer: PeerId, error: ProtocolError) -> None:
        self._malformed[peer] += 1
        _log.warning("peer %s sent no message: %s", short_peer(peer), error.user_text())
        self._coordinator.broke(peer, "malformed", error.code)
        if self._malformed[peer] >= limits.MALFORMED_PER_PEER:
            self._mesh.disconnect(peer, "too many malformed messages")
