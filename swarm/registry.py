"""Who is connected, where from, and what they say they run.

Claims and addresses only: what weighs them is measured elsewhere and joined by
:meth:`Registry.candidates`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from ipaddress import IPv6Address, ip_address, ip_network

from protocol.ids import PeerId
from protocol.messages import Profile
from swarm.selection import NOTHING, Candidate, Measured

_CIRCUIT = "/p2p-circuit"


class Registry:
    """The peers connected now that have introduced themselves."""

    def __init__(self) -> None:
        self._origins: dict[PeerId, str] = {}
        self._profiles: dict[PeerId, Profile] = {}
        self._hints: dict[PeerId, float] = {}

    @property
    def profiles(self) -> Mapping[PeerId, Profile]:
        """The latest profile of each connected peer."""
        return self._profiles

    def connected(self, peer: PeerId, address: str) -> None:
        """A link to a peer came up; ``address`` is the multiaddr in use."""
        self._origins[peer] = origin(address)

    def introduce(self, peer: PeerId, profile: Profile) -> None:
        """A connected peer said what it runs; the latest word counts."""
        self._profiles[peer] = profile

    def hint(self, peer: PeerId, capability: float) -> None:
        """Strangers say that a connected peer is right this often, in [0, 1]."""
        if peer in self._profiles:
            self._hints[peer] = capability

    def forget(self, peer: PeerId) -> None:
        """A peer is not connected any more."""
        for table in (self._origins, self._profiles, self._hints):
            table.pop(peer, None)

    def able(self) -> list[PeerId]:
        """The peers that serve rounds, sorted."""
        return sorted(peer for peer, profile in self._profiles.items() if profile.serves)

    def candidates(
        self, measured: Mapping[PeerId, Measured], excluded: Container[PeerId]
    ) -> list[Candidate]:
        """The peers that serve, as :func:`swarm.selection.select` takes them.

        Args:
            measured: by this node, where it has.
            excluded: peers with a strike in force.
        """
        return [
            Candidate(
                peer=peer,
                family=profile.model.family,
                context_tokens=profile.context_tokens,
                energy=profile.energy,
                origin=self._origins.get(peer, ""),
                measured=measured.get(peer, NOTHING),
                hint=self._hints.get(peer, 0.0),
                struck=peer in excluded,
            )
            for peer, profile in self._profiles.items()
            if profile.serves
        ]


def origin(address: str) -> str:
    """What peers that one operator runs are likely to share: their relay, or their prefix.

    The prefix is /16 of IPv4 and /32 of IPv6, about what one customer gets at most. Addresses
    that are not of the public internet have none: a LAN, or one machine, is not penalised.

    Args:
        address: a multiaddr of a link, or whatever stands for one.
    """
    if _CIRCUIT in address:
        return address.partition(_CIRCUIT)[0].rpartition("/")[2]
    parts = address.split("/")
    if len(parts) < 3 or parts[1] not in ("ip4", "ip6"):
        return ""
    try:
        ip = ip_address(parts[2])
    except ValueError:
        return ""
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if not ip.is_global:
        return ""
    return str(ip_network((ip, 32 if isinstance(ip, IPv6Address) else 16), strict=False))
