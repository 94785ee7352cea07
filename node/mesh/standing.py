"""Where this node stands on the network: its addresses, how it is seen, what it states of that."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Final

import trio

from node.mesh import interfaces
from node.mesh.address import Address, interface_address, parse_address
from node.mesh.reach import Observation, Reach, ReachReport, is_local
from node.mesh.wire import Carrier
from protocol.errors import ConfigError
from protocol.frames import Hello
from protocol.ids import PeerId

PUBLIC: Final = "public"
INTERFACES: Final = 4
"""Addresses of this machine that are stated for one wildcard socket."""


class Standing:
    """Args:
    own: this node.
    bound: the sockets it listens on; ports are known once it runs.
    reach: what is known of how it is seen from outside.
    announce: multiaddrs at which the operator says that others reach it.
    relays: whether it relays for others when it is public.
    circuits: addresses through the relays at which it has a reservation.
    named: addresses of peers that the operator has given.
    lan_only: the swarm is on this network.
    is_outside: whether this node has gone out to a peer on the public internet.

    Attributes:
        interfaces: the addresses of this machine.
        mapped: the outside address that the router leads to this node, if any.
    """

    def __init__(
        self,
        own: PeerId,
        bound: Callable[[], tuple[Address, ...]],
        reach: Reach,
        announce: Iterable[str],
        relays: bool,
        circuits: Callable[[], Iterable[Address]],
        named: Iterable[Address],
        lan_only: bool,
        is_outside: Callable[[], bool],
    ) -> None:
        self._own = own
        self._bound = bound
        self._reach = reach
        self._announced = [replace(parse_address(one), peer=own) for one in announce]
        self._relays = relays
        self._circuits = circuits
        self._named = [ip for one in named if (ip := one.ip()) is not None]
        self._lan_only = lan_only
        self._is_outside = is_outside
        self.interfaces = interfaces.interfaces()
        self.mapped: Address | None = None

    def report(self) -> ReachReport:
        """How this node is seen from outside."""
        sockets = tuple(one.bare() for one in self.sockets())
        return self._reach.report(sockets, trio.current_time())

    def addresses(self) -> tuple[Address, ...]:
        """Where others can dial it: its own sockets, what peers got through to, circuits."""
        confirmed = [replace(one, peer=self._own) for one in self.report().confirmed]
        places = (*self.sockets(), *self._announced, *self._mapping(), *confirmed)
        return tuple(dict.fromkeys((*places, *self._circuits())))

    def served_at(self) -> tuple[str, ...]:
        """Where everybody can dial it; nowhere unless it is public."""
        if self.report().nat != PUBLIC:
            return ()
        return tuple(str(one) for one in self.addresses() if one.relay is None)

    def candidates(self) -> list[Address]:
        """Where a stranger may get through, the likeliest first."""
        seen = [replace(one, peer=self._own) for one in self._reach.candidates()]
        places = (*self._announced, *self._mapping(), *seen, *self.sockets())
        return list(dict.fromkeys(places))

    def punchable(self) -> tuple[Address, ...]:
        """Where a hole to this node may be punched."""
        seen = [one for one in self._reach.candidates() if not is_local(one)]
        return tuple(dict.fromkeys((*seen, *(one.bare() for one in self.sockets()))))

    def facts(self) -> tuple[tuple[Address, ...], bool, str]:
        """What it states: its addresses, whether it relays, and its NAT."""
        nat = self.report().nat
        return self.addresses(), nat == PUBLIC and self._relays, nat

    def needs_relays(self) -> bool:
        """Whether others can only come to it through a relay, or may."""
        # Even while nothing is known: a look takes seconds, and a reservation costs little.
        report = self.report()
        return report.nat != PUBLIC and (report.observers > 0 or self._is_outside())

    def is_examined(self) -> bool:
        """Whether anybody has tried to get through."""
        report = self.report()
        return report.by_stranger or report.tried > 0

    def is_near(self, address: Address) -> bool:
        """Whether a stranger's word is enough to dial ``address``.

        Everything public is. What is local is only if the operator has brought the swarm to this
        network, by naming a peer on it or with ``--lan``: nobody shall have this node knock at the
        doors of its neighbours. (Who is found by mDNS is dialled all the same.)
        """
        ip = address.ip()
        if ip is None or not is_local(address):
            return True
        if ip.is_loopback:
            return all(host.is_loopback for one in self._bound() if (host := one.ip()) is not None)
        networks = [one.network for one in self.interfaces if one.version == ip.version]
        return any(
            ip in network and (self._lan_only or any(one in network for one in self._named))
            for network in networks
        )

    def is_of_site(self, address: Address) -> bool:
        """Whether ``address``, a number and not a name, is on a network that this machine is on."""
        ip = address.ip()
        if ip is None:
            return False
        near = (one.network for one in self.interfaces if one.version == ip.version)
        return ip.is_loopback or any(ip in network for network in near)

    def is_own(self, address: Address) -> bool:
        """Whether ``address`` is a socket of this node itself, whoever is said to be there."""
        own = {one.socket for one in self.sockets()}
        ip = address.ip()
        ports = {one.port for one in self._bound()}
        return address.socket in own or (
            ip is not None and ip.is_loopback and address.port in ports and address.relay is None
        )

    def is_gone(self, source: Address) -> bool:
        """Whether this machine had the address ``source`` and has it no more."""
        ip = source.ip()
        return ip is not None and not ip.is_loopback and ip not in {i.ip for i in self.interfaces}

    def noted(self, peer: PeerId, carrier: Carrier, hello: Hello) -> bool:
        """A peer has greeted, and said from where it sees us; whether that is news."""
        if not carrier.dialled or carrier.relayed or not hello.observed:
            return False
        source, at = carrier.source, carrier.address
        # Another port than the one we listen on says nothing of how that one is seen.
        if source is None or at is None or source.port not in {one.port for one in self._bound()}:
            return False
        try:
            seen = parse_address(hello.observed)
        except ConfigError:
            return False
        if seen.ip() is None or seen != seen.bare() or not seen.port:
            return False
        return self._reach.observe(Observation(peer, at.bare(), seen))

    def network_changed(
        self, now: frozenset[interfaces.Interface], standing: Collection[PeerId]
    ) -> None:
        """Nothing holds that was known of a network that is gone.

        Args:
            standing: peers whose connection has outlived the change; what they see, they still do.
        """
        self.interfaces = now
        self._reach.forget(standing)

    def sockets(self) -> list[Address]:
        """Its own sockets as others on the same networks can dial them."""
        found: list[Address] = []
        for bound in self._bound():
            ip = bound.ip()
            if not bound.port or ip is None:
                continue
            if not ip.is_unspecified:
                found.append(replace(bound, peer=self._own))
                continue
            # The interface by which packets leave for the internet first; there may be none, and a
            # LAN may be on another. Loopback only if there is nothing else.
            here = [str(one.ip) for one in self.interfaces if one.version == ip.version]
            first = interface_address(bound.kind)
            hosts = [first, *sorted(here)] if first in here or not here else sorted(here)
            hosts = list(dict.fromkeys(hosts))[:INTERFACES]
            found += [Address(bound.kind, host, bound.port, self._own) for host in hosts]
        return found

    def _mapping(self) -> list[Address]:
        return [] if self.mapped is None else [replace(self.mapped, peer=self._own)]
