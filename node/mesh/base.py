"""What the node asks of the mesh: send bytes to a peer, hear what peers send, know who is there.

Two implementations pass one test suite (``tests/mesh``): :class:`node.mesh.host.Libp2pMesh` over
py-libp2p, and ``tests.fakes.mesh.FakeMesh`` in memory under virtual time.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from protocol.ids import PeerId


@dataclass(frozen=True, slots=True)
class Link:
    """A peer one is connected to.

    Attributes:
        peer: who; proven by the transport's handshake.
        address: the multiaddr in use (or ``loopback`` for oneself).
        path: ``self``, ``direct`` (relayed paths come with NAT traversal).
        agent: the peer's software and version, as it says.
    """

    peer: PeerId
    address: str
    path: str
    agent: str


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A peer is connected and speaks our protocol version in our swarm."""

    link: Link


@dataclass(frozen=True, slots=True)
class PeerDown:
    """The connection to a peer ended."""

    peer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class Received:
    """One whole payload from a peer, in the order that peer sent them."""

    peer: PeerId
    payload: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """A peer was turned away, or turned us away: another version, another swarm, garbage."""

    peer: PeerId | None
    address: str
    code: str
    reason: str


MeshEvent = PeerUp | PeerDown | Received | Refused


class Mesh(Protocol):
    """A set of authenticated, ordered, bounded byte channels to other peers."""

    @property
    def peer_id(self) -> PeerId:
        """Oneself."""
        ...

    def addresses(self) -> tuple[str, ...]:
        """Multiaddrs (with ``/p2p/<peer id>``) under which others can dial this node."""
        ...

    def links(self) -> tuple[Link, ...]:
        """The peers connected now, sorted by peer id; oneself is always among them."""
        ...

    def send(self, peer: PeerId, payload: bytes) -> None:
        """Queue ``payload`` for ``peer``; a payload to oneself comes back as ``Received``.

        Never waits: the queue of each peer is bounded in messages and bytes.

        Raises:
            UnreachableError: no link to that peer.
            BackpressureError: that peer's queue is full.
            TooLargeError: the payload exceeds ``limits.FRAME_BYTES``.
        """
        ...

    def dial(self, address: str) -> None:
        """Connect to the peer at ``address`` in the background, and reconnect when it is lost.

        Unlike a bootstrap, a peer that stays unreachable is given up in the end.

        Raises:
            ConfigError: not a multiaddr with ``/p2p/<peer id>``.
        """
        ...

    def disconnect(self, peer: PeerId, reason: str) -> None:
        """End the link to ``peer``, if there is one; ``PeerDown`` with ``reason`` follows.

        What waits in its queue is dropped. A peer that is dialled comes back.
        """
        ...

    async def next_event(self) -> MeshEvent:
        """The next thing that happened. One consumer.

        A consumer that lags makes the mesh stop reading from the busiest peers, it does not make
        memory grow.
        """
        ...

    def running(self) -> AbstractAsyncContextManager[None]:
        """Listen, dial the bootstraps and keep redialling them, until the block ends.

        Raises:
            ListenError: the address is taken or not ours.
        """
        ...
