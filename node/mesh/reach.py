"""How this node is seen from outside: the kind of NAT, and who has confirmed that it is reachable.

Pure: told what peers observe and what their attempts to connect gave, it says what follows. The
kinds are those of RFC 4787: with an endpoint-independent mapping every peer sees the listening
port at one outside address, so that a hole can be punched there; where each peer sees another one
(symmetric), none can.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from node.mesh.address import Address
from protocol.ids import PeerId

OBSERVERS: Final = 3
"""Peers at different addresses that have to agree before the kind of mapping is taken as known."""
OBSERVATIONS: Final = 32
"""Observations kept; the oldest goes first."""
CONFIRMATION_S: Final = 1800.0
"""How long a successful or failed attempt to connect to us counts."""

NO_NAT: Final = "none"
PRESERVING: Final = "port-preserving"
REWRITING: Final = "port-rewriting"
SYMMETRIC: Final = "symmetric"
UNKNOWN: Final = "unknown"

_LOCAL: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.168.0.0/16", "::/127", "fc00::/7", "fe80::/10",
    )
)  # fmt: skip


def is_local(address: Address) -> bool:
    """Whether ``address`` means something within a site only; a name is taken to be public.

    What documentation and test networks use counts as public: no site uses it inside.
    """
    ip = address.ip()
    return ip is not None and any(ip in net for net in _LOCAL if net.version == ip.version)


@dataclass(frozen=True, slots=True)
class Observation:
    """A peer told us from where it sees a connection that we made from the listening port.

    Attributes:
        observer: the peer.
        at: the peer's own address: a NAT may treat one destination unlike another.
        seen: our address as it sees it.
    """

    observer: PeerId
    at: Address
    seen: Address


@dataclass(frozen=True, slots=True)
class Attempt:
    """Somebody tried to connect to us.

    Attributes:
        address: where.
        by: who tried.
        told_by: the linked peer that has passed it on. What it says of others is its word alone.
        reached: whether it got through and met this node's key.
        stranger: whether it had no connection with us before. If it had, the NAT may have let it
            in for that alone.
        at: seconds, by the clock that the caller uses throughout.
    """

    address: Address
    by: PeerId
    told_by: PeerId
    reached: bool
    stranger: bool
    at: float


@dataclass(frozen=True, slots=True)
class ReachReport:
    """What is known of how this node is reached.

    Attributes:
        nat: ``public``, ``open``, ``closed`` or ``unknown``, as in a Presence.
        mapping: ``none``, ``port-preserving``, ``port-rewriting``, ``symmetric`` or ``unknown``.
        observers: how many peers at different addresses that rests on.
        observed: the outside addresses seen, most often seen first.
        confirmed: addresses at which a peer got through.
        confirmed_by: who did, strangers first.
        by_stranger: whether one of them had no connection with us.
        tried: how many attempts count.
    """

    nat: str
    mapping: str
    observers: int
    observed: tuple[Address, ...]
    confirmed: tuple[Address, ...]
    confirmed_by: tuple[PeerId, ...]
    by_stranger: bool
    tried: int


class Reach:
    """Folds observations and attempts.

    Args:
        asserted: the operator says that the node is public.
    """

    def __init__(self, asserted: bool = False) -> None:
        self._asserted = asserted
        self._observations: dict[Address, Observation] = {}
        self._attempts: dict[tuple[PeerId, Address], Attempt] = {}

    def observe(self, observation: Observation) -> bool:
        """Take an observation; the latest from each address counts.

        Returns:
            whether it changes what is known.
        """
        before = self.mapping(()), self.candidates()
        self._observations.pop(observation.at, None)
        self._observations[observation.at] = observation
        while len(self._observations) > OBSERVATIONS:
            del self._observations[next(iter(self._observations))]
        return before != (self.mapping(()), self.candidates())

    def attempted(self, attempt: Attempt) -> None:
        """Take an attempt; the latest that each linked peer tells of at each address counts."""
        self._attempts.pop((attempt.told_by, attempt.address), None)
        self._attempts[attempt.told_by, attempt.address] = attempt
        while len(self._attempts) > OBSERVATIONS:
            del self._attempts[next(iter(self._attempts))]

    def forget(self, standing: Collection[PeerId] = ()) -> None:
        """The network has changed: nothing known of the old one holds.

        Args:
            standing: peers whose connection has outlived that; what they observe holds.
        """
        left = {at: one for at, one in self._observations.items() if one.observer in standing}
        if len(left) < len(self._observations) or not left:
            self._attempts.clear()
        self._observations = left

    def candidates(self) -> tuple[Address, ...]:
        """Where others see the listening port, most often seen first."""
        counts: dict[Address, int] = {}
        for one in self._observations.values():
            counts[one.seen] = counts.get(one.seen, 0) + 1
        return tuple(sorted(counts, key=lambda seen: -counts[seen]))

    def mapping(self, own: Iterable[Address]) -> str:
        """The kind of mapping.

        Args:
            own: the sockets of this node as it knows them, port included.
        """
        kinds = {self._mapping(kind, set(own)) for kind in ("ip4", "ip6")} - {""}
        # One way out that is known to be open tells more than another that is not known.
        order = (SYMMETRIC, REWRITING, PRESERVING, UNKNOWN, NO_NAT)
        return next((kind for kind in order if kind in kinds), UNKNOWN)

    def _mapping(self, kind: str, sockets: set[Address]) -> str:
        """Of one IP version; empty where nobody outside has seen it."""
        outside = [
            one
            for one in self._observations.values()
            if one.seen.kind == kind and not is_local(one.at)
        ]
        if not outside:
            return ""
        counts = Counter(one.seen for one in outside)
        seen, count = counts.most_common(1)[0]
        if len(counts) > 1 and 2 * count <= len(outside):
            # Whoever is alone in what it sees may be lying; where most are, it is the NAT.
            return SYMMETRIC
        if seen in sockets:
            return NO_NAT
        if len({one.at.host for one in outside if one.seen == seen}) < OBSERVERS:
            return UNKNOWN
        return PRESERVING if seen.port in {one.port for one in sockets} else REWRITING

    def report(self, own: Iterable[Address], now: float) -> ReachReport:
        """What follows from all that counts at ``now``."""
        own = tuple(own)
        mapping = self.mapping(own)
        counting = [one for one in self._attempts.values() if now - one.at < CONFIRMATION_S]
        through = sorted((one for one in counting if one.reached), key=lambda one: not one.stranger)
        strangers = [one for one in through if one.stranger]
        # Nobody alone makes this node give up its relays, nor look for some in vain.
        # A peer that is linked and cannot get in says more than a stranger that can.
        asked = Counter(one.address for one in counting)
        reached = Counter(one.address for one in through)
        most = any(2 * reached[one.address] > asked[one.address] for one in strangers)
        outside = {one.at.host for one in self._observations.values() if not is_local(one.at)}
        if self._asserted or most or (through and not strangers and mapping == NO_NAT):
            nat = "public"
        elif mapping == SYMMETRIC:
            nat = "closed"
        elif mapping in (UNKNOWN, NO_NAT) and all(one.reached for one in counting):
            # Nothing says that anybody would be kept out.
            nat = "unknown"
        else:
            nat = "open"
        return ReachReport(
            nat=nat,
            mapping=mapping,
            observers=len(outside),
            observed=self.candidates(),
            confirmed=tuple(dict.fromkeys(one.address for one in through)),
            confirmed_by=tuple(dict.fromkeys(one.by for one in through)),
            by_stranger=most,
            tried=len(counting),
        )
