"""A port of the home router that leads here, asked for by UPnP (miniupnpc).

miniupnpc blocks, so it runs in a thread that is left behind if it takes too long. What a router
says is a stranger's word: an address from it is advertised only if it is one of the internet, and
counts only once somebody has reached this node there.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import miniupnpc
import trio

from node.mesh.address import Address
from node.mesh.link import shielded
from protocol.errors import MeshError

T = TypeVar("T")

DISCOVER_MS: Final = 2000
LEASE_S: Final = 3600
CHECK_S: Final = 300.0
"""How often the mapping is asked for anew: a router that restarts forgets it, and its address may
change."""
RETRY_S: Final = 60.0
"""How soon it is tried again after a failure; doubles each time, up to the next."""
RETRY_LIMIT_S: Final = 900.0
TRY_LIMIT_S: Final = 15.0
"""Finding the router and asking for the mapping, or asking anew."""
DELETE_LIMIT_S: Final = 3.0
PORTS: Final = 4
"""Ports of the router that are tried, one after the other."""
TEXT: Final = "swarmd"

log = logging.getLogger(__name__)


class PortMapError(MeshError):
    """The router maps no port."""

    code = "port-map"


@dataclass(frozen=True, slots=True)
class Mapping:
    """A port of the router that leads to this node.

    Attributes:
        external: the router's public address and that port.
    """

    external: Address


class Router(Protocol):
    """The calls on a router, each of which blocks and raises PortMapError."""

    def find(self) -> None:
        """Find it; comes first."""
        ...

    def address(self) -> str:
        """Its external IP address, as it says."""
        ...

    def map(self, external: int, port: int, lease_s: int) -> None:
        """Have its TCP port ``external`` lead to ``port`` here; for ever if ``lease_s`` is 0."""
        ...

    def unmap(self, external: int) -> None:
        """Take that back."""
        ...


class Igd:
    """The router that answers by UPnP on the LAN.

    Args:
        interface: the address of the interface to ask on; that of the default route if None.
    """

    def __init__(self, interface: str | None = None) -> None:
        # The second one, empty: ask the LAN, not a daemon here that has asked before.
        self._upnp = miniupnpc.UPnP(interface, "", DISCOVER_MS)

    def find(self) -> None:
        """Raises PortMapError: there is none."""
        try:
            self._upnp.discover()
            self._upnp.selectigd()
        except Exception as error:  # the module raises nothing more particular
            raise PortMapError("No router on this LAN answers by UPnP.") from error

    def address(self) -> str:
        """Raises PortMapError: it does not say."""
        return str(_asked(self._upnp.externalipaddress))

    def map(self, external: int, port: int, lease_s: int) -> None:
        """Raises PortMapError: the router refuses."""
        lan = self._upnp.lanaddr
        _asked(self._upnp.addportmapping, external, "TCP", lan, port, TEXT, "", lease_s)

    def unmap(self, external: int) -> None:
        """Raises PortMapError: the router refuses."""
        _asked(self._upnp.deleteportmapping, external, "TCP")


def _asked(call: Callable[..., Any], *args: object) -> object:
    try:
        return call(*args)
    except Exception as error:
        raise PortMapError(f"The router says: {error}.") from error


class PortMapper:
    """Keeps a mapping to a port of this node.

    Args:
        port: the TCP port listened on.
        router: makes the router, anew for each try.

    Attributes:
        status: for people: ``on: `` and the outside address, or ``off: `` and why.
    """

    def __init__(self, port: int, router: Callable[[], Router] = Igd) -> None:
        self.status = "off: not started"
        self._port = port
        self._new_router = router
        self._router: Router | None = None
        self._sound = False
        self._mapped: int | None = None
        self._mapping: Mapping | None = None
        self._one = trio.CapacityLimiter(1)

    async def run(self, changed: Callable[[Mapping | None], None]) -> None:
        """Map the port and keep it mapped until cancelled; then take the mapping back.

        Args:
            changed: called with the mapping whenever there is another one, None when it is gone.
        """
        delay = RETRY_S
        try:
            while True:
                try:
                    with trio.fail_after(TRY_LIMIT_S):
                        mapping = await self._thread(self._map)
                except (PortMapError, trio.TooSlowError) as error:
                    self._lost(str(error) or "The router does not answer in time.", changed)
                    await trio.sleep(delay)
                    delay = min(2 * delay, RETRY_LIMIT_S)
                else:
                    self._got(mapping, changed)
                    await trio.sleep(CHECK_S)
                    delay = RETRY_S
        finally:
            with shielded(DELETE_LIMIT_S):
                await self._thread(self._unmap)

    def _got(self, mapping: Mapping, changed: Callable[[Mapping | None], None]) -> None:
        if mapping != self._mapping:
            log.info("the router maps %s to port %d", mapping.external, self._port)
            self._mapping = mapping
            changed(mapping)
        self.status = f"on: {mapping.external}"

    def _lost(self, reason: str, changed: Callable[[Mapping | None], None]) -> None:
        if self.status != f"off: {reason}":
            log.info("no port of a router is mapped: %s", reason)
        self.status = f"off: {reason}"
        if self._mapping is not None:
            self._mapping = None
            changed(None)

    async def _thread(self, work: Callable[[], T]) -> T:
        """``work`` in a thread, one at a time; one that hangs is left behind."""
        return await trio.to_thread.run_sync(
            work,
            abandon_on_cancel=True,  # type: ignore[call-arg]  # newer than its stubs
            limiter=self._one,
        )

    # --- in the thread ----------------------------------------------------------------------------

    def _map(self) -> Mapping:
        # After a failure it is looked for anew: it may have restarted, or be another one.
        router = self._router
        if router is None or not self._sound:
            router = self._new_router()
            router.find()
        self._sound = False
        ip = _public(router.address())
        external = self._map_a_port(router)
        self._router, self._sound = router, True
        return Mapping(Address("ip4", str(ip), external))

    def _map_a_port(self, router: Router) -> int:
        first = self._port if self._mapped is None else self._mapped
        others = range(self._port, min(self._port + PORTS, 65536))
        refusal: PortMapError | None = None
        for external in [first, *(one for one in others if one != first)]:
            # Some routers know no leases; and the port may be somebody else's on this LAN.
            for lease_s in (LEASE_S, 0):
                try:
                    router.map(external, self._port, lease_s)
                except PortMapError as error:
                    refusal = refusal or error
                else:
                    self._mapped = external
                    return external
        assert refusal is not None
        raise refusal

    def _unmap(self) -> None:
        if self._router is not None and self._mapped is not None:
            try:
                self._router.unmap(self._mapped)
            except PortMapError as error:
                log.debug("%s", error)


def _public(text: str) -> ipaddress.IPv4Address:
    """Raises PortMapError: nobody on the internet reaches that address."""
    try:
        ip = ipaddress.IPv4Address(text)
    except ValueError as error:
        raise PortMapError("The router does not know its own address.") from error
    if not ip.is_global:
        raise PortMapError(
            f"The router has the address {ip}, which is not of the internet: there is another NAT "
            "behind it."
        )
    return ip
