"""Ways to find peers beside those that the operator names and those that peers tell of.

The peers of earlier runs, on disk; others on this LAN; the DHT, where a swarm has a place of its
own. And a way to be found: the router, asked to let others in. Each may fail without the others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

import trio

from node.mesh.address import Address
from node.mesh.dht import Rendezvous
from node.mesh.lan import Lan
from node.mesh.link import CLOSE_LIMIT_S, shielded
from node.mesh.peer_cache import Cached, PeerCache
from node.mesh.upnp import Mapping, PortMapper
from node.mesh.wire import Carrier
from protocol.errors import ProtocolError, StoreError
from protocol.ids import PeerId
from protocol.presence import Stated

LEAVE_LIMIT_S: Final = 1.0
STORE_FIRST_S: Final = 2.0
STORE_EVERY_S: Final = 60.0
KEPT_S: Final = 30 * 24 * 3600.0
"""A peer that was not linked for so long is not tried any more after a start."""
FIND_SOON_S: Final = 5.0
"""Until the next search while nobody is linked, doubling up to :data:`FIND_EVERY_S`."""
FIND_EVERY_S: Final = 300.0
"""How often the DHT is asked who else is in the swarm: how soon two parts of it find each other.
One search costs some 70 KB."""

log = logging.getLogger(__name__)


class Finder(Protocol):
    """What discovery asks of the mesh, and tells it."""

    @property
    def peer_id(self) -> PeerId:
        """Oneself."""
        ...

    def addresses(self) -> tuple[str, ...]:
        """Multiaddrs under which others can dial this node."""
        ...

    def served_at(self) -> tuple[str, ...]:
        """Of them, those at which everybody can; none unless it is public."""
        ...

    def own_statement(self) -> Stated:
        """What this node states of itself now."""
        ...

    def linked_at(self) -> dict[PeerId, tuple[str, ...]]:
        """The peers linked now, and where each can be dialled."""
        ...

    def try_peer(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """Somebody may be there; try a few times."""
        ...

    def try_address(self, address: str) -> None:
        """As :meth:`try_peer`, of a multiaddr that ends in the peer's id."""
        ...

    def hear(self, statements: Iterable[bytes], source: PeerId | None) -> set[PeerId]:
        """Take signed statements, wherever they come from."""
        ...

    def mapped(self, address: Address | None) -> None:
        """The router leads this outside address to us, or none any more."""
        ...

    async def dial_node(self, peer: PeerId, addresses: Sequence[str]) -> Carrier:
        """A connection to any node, of whatever swarm; may raise anything."""
        ...


class Discovery:
    """Args:
    mesh: the mesh to find peers for.
    swarm: its name.
    lan_name: what it is found by on the LAN, as a hash.
    seeds: the nodes to begin with in the DHT, with their multiaddrs.
    cache: the file of peers once linked; None for none.
    lan, dht: whether these are used.
    upnp_port: the port to have mapped; None for none.
    clock: Unix time in seconds.
    """

    def __init__(
        self,
        mesh: Finder,
        swarm: str,
        lan_name: str,
        seeds: Sequence[tuple[PeerId, str]],
        cache: Path | None,
        lan: bool,
        dht: bool,
        upnp_port: int | None,
        clock: Callable[[], float],
    ) -> None:
        self._mesh = mesh
        self._swarm = swarm
        self._clock = clock
        self._cache = PeerCache(cache) if cache is not None else None
        self._cache_status = ""
        self._known: dict[PeerId, Cached] = {}
        self._lan = Lan(lan_name, mesh.peer_id, mesh.addresses, mesh.try_address) if lan else None
        self._ports = PortMapper(upnp_port) if upnp_port is not None else None
        self.dht: Rendezvous | None = None
        if dht:
            self.dht = Rendezvous(mesh.peer_id, mesh.dial_node, mesh.served_at, clock)
            for peer, address in seeds:
                self.dht.add(peer, (address,), named=True)

    def status(self) -> dict[str, str]:
        """The state of each, in words."""
        found = {}
        if self._cache is not None:
            found["cache"] = self._cache_status or f"{len(self._known)} peers of this or past runs"
        if self._lan is not None:
            found["lan"] = self._lan.status
        if self.dht is not None:
            found["dht"] = self.dht.status
        if self._ports is not None:
            found["upnp"] = self._ports.status
        return found

    async def run(self) -> None:
        """Look, until cancelled."""
        async with trio.open_nursery() as nursery:
            if self._cache is not None:
                nursery.start_soon(self._remember, self._cache)
            if self._lan is not None:
                nursery.start_soon(self._lan.run)
            if self.dht is not None:
                nursery.start_soon(self.dht.run)
                nursery.start_soon(self._rendezvous, self.dht)
            if self._ports is not None:
                nursery.start_soon(self._ports.run, self._map)
            await trio.sleep_forever()

    def serves(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """A peer says that everybody can dial it: a node for the DHT."""
        if self.dht is not None and addresses:
            self.dht.add(peer, addresses)

    async def say_leave(self, stated: Stated) -> None:
        """Have the DHT forget this node, as far as there is time."""
        if self.dht is not None and self.dht.size:
            with trio.move_on_after(LEAVE_LIMIT_S):
                await self.dht.announce(stated)

    def _map(self, mapping: Mapping | None) -> None:
        self._mesh.mapped(None if mapping is None else mapping.external)

    # --- the peers of earlier runs --------------------------------------------------------------

    async def _remember(self, cache: PeerCache) -> None:
        try:
            oldest = self._clock() - KEPT_S
            cached = await cache.load()
            self._known = {one.peer: one for one in cached if one.last_linked > oldest}
            for one in self._known.values():
                self._mesh.try_peer(one.peer, one.addresses)
            pause = STORE_FIRST_S
            while True:
                await trio.sleep(pause)
                await self._store(cache)
                pause = min(2 * pause, STORE_EVERY_S)
        except StoreError as error:
            # The disk may be full or not ours; the swarm is found in other ways.
            self._cache_status = f"off: {error}"
            log.warning("peers are not remembered: %s", error.user_text())
        finally:
            if not self._cache_status:
                with shielded(CLOSE_LIMIT_S):
                    await self._store_last(cache)

    async def _store(self, cache: PeerCache) -> None:
        now = self._clock()
        for peer, addresses in self._mesh.linked_at().items():
            if addresses:
                self._known[peer] = Cached(peer, addresses, now)
        await cache.store(self._known.values())

    async def _store_last(self, cache: PeerCache) -> None:
        try:
            await self._store(cache)
        except StoreError as error:
            log.warning("peers are not remembered: %s", error.user_text())

    # --- the DHT --------------------------------------------------------------------------------

    async def _rendezvous(self, dht: Rendezvous) -> None:
        """State oneself where the swarm has its place, and see who else does."""
        stated: Stated | None = None
        delay = FIND_SOON_S / 2
        while True:
            own = self._mesh.own_statement()
            try:
                if own is not stated and await dht.announce(own):
                    stated = own
                self._mesh.hear(await dht.find(self._swarm), None)
            except ProtocolError as error:
                # A clock that jumps makes one's own statement too old, or too new.
                log.warning("the DHT is of no use now: %s", error.user_text())
            delay = FIND_EVERY_S if self._mesh.linked_at() else min(2 * delay, FIND_EVERY_S)
            await trio.sleep(delay)
