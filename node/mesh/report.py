"""What the mesh can say about itself: the facts behind `swarm doctor` and `swarm status`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from node.mesh.base import Link
from node.mesh.reach import ReachReport
from protocol.ids import PeerId


@dataclass(frozen=True, slots=True)
class Dialled:
    """A peer that this node wants to be connected to.

    Attributes:
        bootstrap: whether the operator has named it.
        addresses: given for it.
        linked: whether there is a link.
        failures: dials in a row that failed.
        error: why the last one did.
    """

    peer: PeerId
    bootstrap: bool
    addresses: tuple[str, ...]
    linked: bool
    failures: int
    error: str


@dataclass(frozen=True, slots=True)
class Held:
    """A reservation at a relay.

    Attributes:
        address: where the relay listens.
        since_s: seconds since it was first made.
    """

    relay: PeerId
    address: str
    since_s: float


@dataclass(frozen=True, slots=True)
class RelayLoad:
    """What this node does as a relay for others.

    Attributes:
        open: whether it takes reservations.
        reservations: held here.
        circuits: between others, now.
        bytes_relayed: since the start.
        refused: requests, by reason.
    """

    open: bool = False
    reservations: int = 0
    circuits: int = 0
    bytes_relayed: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MeshReport:
    """A snapshot.

    Attributes:
        listening: the sockets listened on.
        addresses: under which this node says that it can be dialled.
        reach: how it is seen from outside.
        links: to peers, without oneself.
        dialled: whom it wants to be connected to.
        members: peers that have stated lately that they are in the swarm, oneself not counted.
        relays: reservations held.
        relay_errors: why relays refused one.
        serving: this node as a relay.
        skews: seconds by which the clocks of linked peers are ahead of ours.
        refused: connections and streams refused, by reason.
        merges: how often two parts of the swarm were found and joined.
        private: whether it takes a key to connect.
        services: state in words of each way of finding peers or ports (``lan``, ``dht``, ``upnp``,
            ``cache``), as far as they run.
        bytes_sent, bytes_received: over TCP since the start, handshakes and all.
        calls: of peers that this node has answered, by method.
    """

    listening: tuple[str, ...]
    addresses: tuple[str, ...]
    reach: ReachReport
    links: tuple[Link, ...]
    dialled: tuple[Dialled, ...]
    members: int
    relays: tuple[Held, ...]
    relay_errors: Mapping[PeerId, str]
    serving: RelayLoad
    skews: Mapping[PeerId, float]
    refused: Mapping[str, int]
    merges: int
    private: bool
    services: Mapping[str, str]
    bytes_sent: int
    bytes_received: int
    calls: Mapping[str, int]
