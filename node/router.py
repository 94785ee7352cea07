"""Hands what the mesh brings to whom it concerns."""

from __future__ import annotations

import logging
from collections import Counter

from node.conduct import Conduct
from node.coordinator import Coordinator
from node.herald import Herald
from node.mesh.base import Mesh, MeshEvent, PathChanged, PeerDown, PeerUp, Received, Refused
from node.worker import Worker
from protocol import limits
from protocol.codec import encode
from protocol.envelope import Envelope
from protocol.errors import MeshError, ProtocolError, TooLargeError
from protocol.ids import PeerId, short_peer
from protocol.messages import FromAsker, FromPeer, Hints, Incoming, Profile, ProofNotice, parse
from swarm.registry import Registry

_log = logging.getLogger(__name__)


class Router:
    """Reads the mesh's events, one at a time, and never waits for what they cause.

    Args:
        profile: this node's own signed Profile, sent to everyone who connects.
    """

    def __init__(
        self,
        mesh: Mesh,
        registry: Registry,
        worker: Worker,
        coordinator: Coordinator,
        conduct: Conduct,
        herald: Herald,
        profile: Envelope,
    ) -> None:
        self._mesh = mesh
        self._registry = registry
        self._worker = worker
        self._coordinator = coordinator
        self._conduct = conduct
        self._herald = herald
        self._profile = encode(profile)
        self._malformed: Counter[PeerId] = Counter()

    async def run(self) -> None:
        """Route until cancelled."""
        self._introduce(self._mesh.peer_id)
        while True:
            self._route(await self._mesh.next_event())

    def _route(self, event: MeshEvent) -> None:
        match event:
            case PeerUp(link):
                _log.info("peer %s is up at %s", short_peer(link.peer), link.address)
                self._registry.connected(link.peer, link.address)
                self._introduce(link.peer)
                self._conduct.welcome(link.peer)
                self._herald.welcome(link.peer)
            case PathChanged(link):
                _log.info("peer %s is %s now: %s", short_peer(link.peer), link.path, link.address)
                self._registry.connected(link.peer, link.address)
            case PeerDown(peer, reason):
                _log.info("peer %s is down: %s", short_peer(peer), reason)
                self._registry.forget(peer)
                self._malformed.pop(peer, None)
                self._conduct.lost(peer)
                self._coordinator.broke(peer, "lost", reason)
                self._worker.lost(peer)
            case Received(peer, payload):
                self._take(peer, payload)
            case Refused(_, address, code, reason):
                _log.warning("refused %s: %s (%s)", address, reason, code)

    def _introduce(self, peer: PeerId) -> None:
        try:
            self._mesh.send(peer, self._profile)
        except (MeshError, TooLargeError) as error:
            _log.info("could not introduce ourselves to %s: %s", short_peer(peer), error)

    def _take(self, peer: PeerId, payload: bytes) -> None:
        try:
            incoming = parse(payload)
            if incoming.peer != peer:
                raise ProtocolError("It passes on a message of another peer.")
            self._hand_on(peer, incoming)
        except ProtocolError as error:
            self._complain(peer, error)

    def _hand_on(self, peer: PeerId, incoming: Incoming) -> None:
        message = incoming.message
        if isinstance(message, FromAsker):
            self._worker.receive(incoming)
        elif isinstance(message, FromPeer):
            self._coordinator.receive(incoming)
        elif isinstance(message, Profile):
            self._registry.introduce(peer, message)
            self._herald.introduced(peer)
            self._coordinator.peers_changed()
        elif isinstance(message, ProofNotice):
            self._conduct.noticed(peer, message.proof)
        elif isinstance(message, Hints):
            self._herald.heard(peer, message)

    def _complain(self, peer: PeerId, error: ProtocolError) -> None:
        self._malformed[peer] += 1
        _log.warning("peer %s sent no message: %s", short_peer(peer), error.user_text())
        self._coordinator.broke(peer, "malformed", error.code)
        if self._malformed[peer] >= limits.MALFORMED_PER_PEER:
            self._mesh.disconnect(peer, "too many malformed messages")
