"""What the node asks of the mesh: send bytes to a peer, hear what peers send, know who is there.

Two implementations pass one test suite (``tests/mesh``): :class:`node.mesh.host.Libp2pMesh` over
py-libp2p, and ``tests.fakes.mesh.FakeMesh`` in memory under virtual time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from protocol.ids import PeerId
from protocol.presence import Presence

if TYPE_CHECKING:
    from node.mesh.report import MeshReport


@dataclass(frozen=True, slots=True)
class Link:
    """A peer one is connected to.

    Attributes:
        peer: who; proven by the transport's handshake.
        address: the multiaddr in use (or ``loopback`` for oneself).
        path: ``self``, ``direct`` or ``relayed``.
        agent: the peer's software and version, as it says.
        rtt_s: the round trip last measured, in seconds; None until then.
        age_s: seconds since the link came up.
        direct_s: seconds it took to become direct; 0 if it always was, None while relayed.
        why: why it is relayed, for people.
    """

    peer: PeerId
    address: str
    path: str
    agent: str
    rtt_s: float | None = None
    age_s: float = 0.0
    direct_s: float | None = 0.0
    why: str = ""


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A peer is connected and speaks our protocol version in our swarm."""

    link: Link


@dataclass(frozen=True, slots=True)
class PathChanged:
    """The link to a peer goes another way; nothing was lost over it."""

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


MeshEvent = PeerUp | PathChanged | PeerDown | Received | Refused


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

    async def call(self, peer: PeerId, method: str, body: bytes, limit_s: float) -> bytes:
        """What ``peer`` answers to a request, beside the messages and not in their way.

        Args:
            limit_s: seconds to wait.

        Raises:
            UnreachableError: no link to that peer, or it was cut before the reply.
            BackpressureError: too many calls to it wait already.
            TooLargeError: the request exceeds ``limits.FRAME_BYTES``.
            CallError: the peer refused, failed, or took too long.
        """
        ...

    def answer(self, method: str, answer: Callable[[PeerId, bytes], Awaitable[bytes]]) -> None:
        """Answer the requests of linked peers for ``method``."""
        ...

    def present(self) -> Mapping[PeerId, Presence]:
        """What each peer of the swarm, oneself apart, has stated lately of where it is."""
        ...

    async def find(self, peer: PeerId, look_up: bool) -> tuple[str, Presence | None]:
        """What a peer states of itself, and how that was learnt.

        Args:
            look_up: ask the DHT, even if the peer is linked.

        Returns:
            ``self``, ``swarm`` (it has reached this node), ``dht`` (looked up) or ``nowhere``, and
            the statement.
        """
        ...

    def report(self) -> MeshReport:
        """A snapshot of how the mesh is."""
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
