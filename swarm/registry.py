"""Who is there and what they say that they run, since when: a fold of logs and links.

Claims and addresses only: what weighs them is measured elsewhere and joined by
:meth:`Registry.candidates`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Set
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address, ip_network

import msgspec

from protocol.ids import PeerId
from protocol.ledger import Profile
from swarm.ledger.state import State
from swarm.selection import NOTHING, Candidate, Measured

_CIRCUIT = "/p2p-circuit"


@dataclass(frozen=True, slots=True)
class Known:
    """What a peer's log says of it.

    Attributes:
        profile: what it says that it runs; None where it says too little.
        since: Unix time in seconds, by its clock, from which on its log is held.
        forked: it contradicts itself in its log.
    """

    profile: Profile | None = None
    since: int = 0
    forked: bool = False


class Registry:
    """The peers whose logs are held, and which of them are linked.

    Args:
        own: this node, which is always there.
        profile: what it runs; it need not read that in its own log, but for its label, which may
            have been changed since.
    """

    def __init__(self, own: PeerId, profile: Profile) -> None:
        self._own = own
        self._profile = profile
        self._known: dict[PeerId, Known] = {}
        self._forked: set[PeerId] = set()
        self._origins: dict[PeerId, str] = {own: ""}
        self.learn(own, None)

    # --- what changes it ------------------------------------------------------------------------

    def learn(self, peer: PeerId, state: State | None) -> None:
        """Take what the log of a peer says now; None once it is held no more."""
        self._known.pop(peer, None)
        self._forked.discard(peer)
        if state is not None:
            self._known[peer] = Known(state.profile, state.since, state.forked)
        if peer == self._own:
            self._known[peer] = self._oneself(self._known.get(peer, Known()))
        elif state is not None and state.forked:
            self._forked.add(peer)

    def connected(self, peer: PeerId, address: str) -> None:
        """A link to a peer came up, or goes another way; ``address`` is the multiaddr in use."""
        self._origins[peer] = origin(address)

    def disconnected(self, peer: PeerId) -> None:
        """A peer is linked no more."""
        self._origins.pop(peer, None)

    # --- what is known --------------------------------------------------------------------------

    def get(self, peer: PeerId) -> Known | None:
        """What is known of a peer, linked or not; None where no log of it is held."""
        return self._known.get(peer)

    @property
    def profiles(self) -> Mapping[PeerId, Profile]:
        """What each linked peer says that it runs."""
        return {
            peer: known.profile
            for peer in self._origins
            if (known := self._known.get(peer)) is not None and known.profile is not None
        }

    @property
    def forked(self) -> Set[PeerId]:
        """Who is convicted by its own log; never this node, whoever else writes with its key."""
        return self._forked

    def able(self) -> list[PeerId]:
        """The linked peers that serve rounds, sorted; without those that have forked."""
        return sorted(self._serving().keys() - self._forked)

    def candidates(
        self,
        measured: Mapping[PeerId, Measured],
        hints: Mapping[PeerId, float],
        excluded: Container[PeerId],
    ) -> list[Candidate]:
        """The linked peers that serve, as :func:`swarm.selection.select` takes them.

        Args:
            measured: by this node, where it has.
            hints: in [0, 1], how often strangers have seen a peer be right.
            excluded: peers with a strike in force. Who has forked is out as well.
        """
        return [
            Candidate(
                peer=peer,
                family=profile.model.family,
                context_tokens=profile.context_tokens,
                energy=profile.energy,
                origin=self._origins[peer],
                measured=measured.get(peer, NOTHING),
                hint=hints.get(peer, 0.0),
                struck=peer in excluded or peer in self._forked,
            )
            for peer, profile in self._serving().items()
        ]

    def _serving(self) -> dict[PeerId, Profile]:
        return {peer: one for peer, one in self.profiles.items() if one.serves}

    def _oneself(self, known: Known) -> Known:
        """What is known of this node. Its log may lag, but has the last word on its label."""
        said = known.profile or self._profile
        return replace(known, profile=msgspec.structs.replace(self._profile, label=said.label))


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
