"""A lab of network namespaces: a public network, public hosts on it, and sites behind NATs.

::

    o1  o2  o3 …   public hosts, 11.1.0.1, 11.2.0.1, …
     \\   |   /
      public       a bridge, or a switch that holds every frame (``delay_switch.py``)
     /   |   \\
    ra   rb   rc   a router for each site, 11.11.0.1, 11.12.0.1, 11.13.0.1
    |    |    |
    a    b    c    a host at each site; hosts can move

Nothing leads out of the lab. Its public addresses are of 11.0.0.0/8, which is globally routable by
every rule of address arithmetic and announced nowhere; documentation ranges count as private.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

import netns
from netns import Namespaces, NetnsError

T = TypeVar("T")

LISTEN_PORT: Final = 4747
"""Where daemons in the lab listen."""
REWRITTEN_PORT: Final = 35747
"""What a port-rewriting NAT makes of it."""
OBSERVERS: Final = 3
"""So many public hosts it takes to tell how a NAT maps."""
_SWITCH: Final = Path(__file__).with_name("delay_switch.py")
_PUBLIC: Final = "public"


class Kind(StrEnum):
    """How a site is connected.

    The kinds differ in mapping (what a connection looks like from outside) and filtering (what
    is let in), the terms of RFC 4787 and RFC 5382. All but ``PUBLIC`` let in only what belongs to
    a connection from inside: address- and port-dependent filtering.
    """

    PUBLIC = "public"
    """A public address, nothing filtered."""
    PRESERVING = "port-preserving"
    """A NAT that keeps the port: endpoint-independent mapping."""
    REWRITING = "port-rewriting"
    """A NAT that gives the listening port one other port: endpoint-independent mapping."""
    SYMMETRIC = "symmetric"
    """A NAT with a random port for every connection: address- and port-dependent mapping."""
    FIREWALL = "firewall"
    """A public address, nothing let in from outside."""

    @property
    def translates(self) -> bool:
        """Whether its hosts have private addresses."""
        return self not in (Kind.PUBLIC, Kind.FIREWALL)


@dataclass(frozen=True, slots=True)
class Site:
    """A place at the edge of the public network.

    Attributes:
        name: of the site, and of the host that is there at first.
        wan: the router's public address.
        lan: its private address; a host there gets the same with ``host`` at the end.
        host: the last number of the host's address.
    """

    name: str
    wan: str
    lan: str
    host: int

    @property
    def router(self) -> str:
        """The router's namespace."""
        return f"r{self.name}"

    def gateway(self, kind: Kind) -> str:
        """The router's address on the inside."""
        return self.lan if kind.translates else self.wan

    def inside(self, kind: Kind) -> str:
        """The address of a host at the site, as the host knows it."""
        return f"{self.gateway(kind).rpartition('.')[0]}.{self.host}"

    def outside(self, kind: Kind) -> str:
        """The address of a host at the site, as others see it."""
        return self.wan if kind.translates else self.inside(kind)


# Two homes mostly have the same private network; whoever moves comes into another one.
SITES: Final = {
    "a": Site("a", "11.11.0.1", "192.168.1.1", 10),
    "b": Site("b", "11.12.0.1", "192.168.1.1", 11),
    "c": Site("c", "11.13.0.1", "10.0.7.1", 10),
}


def rules(kind: Kind, site: Site) -> str:
    """The nftables ruleset of the router of ``site``."""
    if kind is Kind.PUBLIC:
        return "flush ruleset\n"
    mapping = {
        Kind.PRESERVING: 'oifname "wan" masquerade',
        Kind.REWRITING: f"""
            oifname "wan" tcp sport {LISTEN_PORT} snat to {site.wan}:{REWRITTEN_PORT}
            oifname "wan" udp sport {LISTEN_PORT} snat to {site.wan}:{REWRITTEN_PORT}
            oifname "wan" masquerade""",
        Kind.SYMMETRIC: 'oifname "wan" masquerade fully-random',
    }
    translation = f"""
    table ip nat {{
        chain post {{
            type nat hook postrouting priority srcnat; policy accept;
            {mapping.get(kind)}
        }}
    }}
    """
    # What tracking does not know would leave with its private address.
    filtering = """
    table ip filter {
        chain input {
            type filter hook input priority filter; policy accept;
            ct state established,related accept
            iifname "wan" drop
        }
        chain forward {
            type filter hook forward priority filter; policy accept;
            ct state invalid drop
            ct state established,related accept
            iifname "wan" drop
        }
    }
    """
    return f"flush ruleset\n{translation if kind.translates else ''}{filtering}"


@dataclass(slots=True)
class Lab:
    """A lab that is up; see :func:`lab`.

    Attributes:
        observers: the public hosts.
        kinds: how each site is connected.
        places: the site at which each host is that is plugged in.
    """

    namespaces: Namespaces
    observers: tuple[str, ...]
    kinds: dict[str, Kind] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """For files of the run; removed with the lab."""
        return self.namespaces.folder

    def site(self, host: str) -> Site:
        """Where ``host`` is."""
        return SITES[self.places[host]]

    def address(self, host: str) -> str:
        """The address of ``host`` as the public network sees it."""
        if host in self.observers:
            return _observer_address(self.observers.index(host))
        site = self.site(host)
        return site.outside(self.kinds[site.name])

    def own_address(self, host: str) -> str:
        """The address of ``host`` as it knows it itself."""
        if host in self.observers:
            return self.address(host)
        site = self.site(host)
        return site.inside(self.kinds[site.name])

    def set_kind(self, site: str, kind: Kind) -> None:
        """Connect ``site`` in another way, its own host there, which becomes a new machine.

        Nothing remembers it but the far ends of its connections. What runs on that host has to be
        stopped before; whoever else was at the site is unplugged.
        """
        place = SITES[site]
        self.namespaces.nft(place.router, rules(kind, place))
        if kind is not Kind.PUBLIC:
            # Else a connection whose mapping was dropped gets a new one from its next packet.
            self.namespaces.sysctl(place.router, "netfilter/nf_conntrack_tcp_loose", 0)
        self.drop_mappings(site)
        self.kinds[site] = kind
        self._vacate(self.places.get(site, site))
        self._vacate(site)
        self.namespaces.remove(site)  # and with it ports that wait for late packets
        self.namespaces.add(site)
        self._plug(site, place)

    def move(self, host: str, site: str) -> None:
        """Unplug ``host`` and plug it in at ``site``; whoever was there is unplugged."""
        self._vacate(self.places[host])
        self._vacate(site)
        self._plug(host, SITES[site])

    def drop_mappings(self, site: str) -> None:
        """What a NAT's restart does: it no longer knows any connection, and says so to nobody."""
        self.namespaces.inside(SITES[site].router, netns.forget_flows)

    def partition(self, left: Iterable[str], right: Iterable[str]) -> None:
        """Let nothing pass between two sets of hosts until :meth:`mend`."""
        sides = ([*left], [*right])
        for here, there in (sides, sides[::-1]):
            far = ", ".join(self.address(host) for host in there)
            for host in here:
                self.namespaces.nft(
                    self._edge(host),
                    f"""
                    table ip cut {{
                        chain in {{
                            type filter hook prerouting priority raw; policy accept;
                            iifname "wan" ip saddr {{ {far} }} drop
                        }}
                    }}
                    """,
                )

    def mend(self) -> None:
        """End the partition."""
        for edge in {self._edge(host) for host in (*self.observers, *self.places)}:
            # Declared before it is deleted: then it is no error where there is none.
            self.namespaces.nft(edge, "table ip cut\ndelete table ip cut\n")

    def inside(self, host: str, act: Callable[[], T]) -> T:
        """Call ``act`` in the namespace of ``host``; sockets that it makes stay there."""
        return self.namespaces.inside(host, act)

    def _edge(self, host: str) -> str:
        return host if host in self.observers else self.site(host).router

    def _plug(self, host: str, site: Site) -> None:
        kind = self.kinds[site.name]
        gateway = site.gateway(kind)
        enter = self.namespaces.full(host)
        self.namespaces.ip(
            site.router,
            f"link add lan type veth peer name eth0 netns {enter}",
            f"addr add {gateway}/24 dev lan",
            "link set lan up",
        )
        self.namespaces.ip(
            host,
            f"addr add {site.inside(kind)}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {gateway}",
        )
        self.places[host] = site.name

    def _vacate(self, site: str) -> None:
        for host in [host for host, where in self.places.items() if where == site]:
            del self.places[host]
            self.namespaces.ip(SITES[site].router, "link del lan")


@contextmanager
def lab(observers: int = OBSERVERS, rtt_ms: float = 0.0) -> Iterator[Lab]:
    """Build a lab, and remove it at the end.

    All sites are public at first, and each has its host.

    Args:
        observers: how many public hosts.
        rtt_ms: milliseconds that a packet between two sites, or a site and a public host, takes
            there and back beyond what this machine takes; 0: a plain bridge.

    Raises:
        NetnsError: it cannot be built here.
    """
    hosts = tuple(f"o{index + 1}" for index in range(observers))
    with netns.namespaces() as spaces:
        spaces.add(_PUBLIC, *hosts, *(one.router for one in SITES.values()), *SITES)
        wans = dict(zip(hosts, map(_observer_address, range(observers)), strict=True))
        wans |= {site.router: site.wan for site in SITES.values()}
        for name, address in wans.items():
            spaces.ip(
                name,
                f"link add wan type veth peer name {name} netns {spaces.full(_PUBLIC)}",
                f"addr add {address}/8 dev wan",
                "link set wan up",
                # The rest of the world: silent.
                "route add default dev wan",
            )
            spaces.ip(_PUBLIC, f"link set {name} up")
        for site in SITES.values():
            for key in ("ip_forward", "conf/wan/proxy_arp"):
                spaces.sysctl(site.router, f"ipv4/{key}", 1)
            spaces.sysctl(site.router, "ipv4/neigh/wan/proxy_delay", 0)
            for key in ("all", "default", "wan"):
                spaces.sysctl(site.router, f"ipv4/conf/{key}/rp_filter", 0)
        built = Lab(spaces, hosts)
        for name in SITES:
            built.set_kind(name, Kind.PUBLIC)
        with _switch(spaces, tuple(wans), rtt_ms):
            yield built


@contextmanager
def _switch(spaces: Namespaces, ports: tuple[str, ...], rtt_ms: float) -> Iterator[None]:
    if not rtt_ms:
        spaces.ip(
            _PUBLIC,
            "link add switch type bridge",
            "link set switch up",
            *(f"link set {port} master switch" for port in ports),
        )
        yield
        return
    for port in ports:
        spaces.inside(port, lambda: netns.turn_offloads_off("wan"))
    command = [sys.executable, "-I", str(_SWITCH), f"--ms={rtt_ms / 2}", *ports]
    with spaces.spawn(_PUBLIC, command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise NetnsError(f"The delaying switch ended with code {process.wait()}.")
            yield
        finally:
            process.kill()


def _observer_address(index: int) -> str:
    return f"11.{index + 1}.0.1"
