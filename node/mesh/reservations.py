"""Keeps a private node reachable: two circuits' worth of reservations, alive whatever happens."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import trio

from node.mesh.address import Address
from node.mesh.wire import Carrier
from protocol.errors import MeshError
from protocol.ids import PeerId, short_peer

HELD: Final = 2
"""Relays at which a private node has a reservation."""
RENEW_S: Final = 120.0
"""A reservation is renewed after so long at the latest: a relay that restarted has forgotten it."""
AVOID_S: Final = 10.0
"""How long a relay that failed or refused is not asked again."""
RESERVE_LIMIT_S: Final = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reservation:
    """One that is held.

    Attributes:
        relay: whose.
        address: where the relay listens.
        since: when it was first made, by trio's clock.
    """

    relay: PeerId
    address: Address
    since: float


class Reservations:
    """Args:
    wanted: whether this node needs any now.
    relays: the linked peers that relay and are reached directly, the nearest first, each with
        the connection to it and its address.
    reserve: asks for a reservation; returns the seconds that it is good for.
    changed: called when what is held changes.
    rng: for the jitter.

    Attributes:
        held: what is held now.
        errors: why the last request at a relay failed.
    """

    def __init__(
        self,
        wanted: Callable[[], bool],
        relays: Callable[[], list[tuple[PeerId, Carrier, Address]]],
        reserve: Callable[[Carrier], Awaitable[float]],
        changed: Callable[[], None],
        rng: random.Random,
    ) -> None:
        self._wanted = wanted
        self._relays = relays
        self._reserve = reserve
        self._changed = changed
        self._rng = rng
        self._avoided: dict[PeerId, float] = {}
        self._busy: set[PeerId] = set()
        self._look_again = trio.Event()
        self.held: dict[PeerId, Reservation] = {}
        self.errors: dict[PeerId, str] = {}

    async def run(self) -> None:
        """Keep reservations, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._look_again = trio.Event()
                now = trio.current_time()
                self._avoided = {peer: at for peer, at in self._avoided.items() if at > now}
                linked = {peer for peer, _, _ in self._relays()}
                self.errors = {peer: why for peer, why in self.errors.items() if peer in linked}
                if self._wanted() and len(self._busy) < HELD:
                    for relay in self._choose()[: HELD - len(self._busy)]:
                        self._busy.add(relay[0])
                        nursery.start_soon(self._keep, *relay)
                with trio.move_on_at(min(self._avoided.values(), default=math.inf)):
                    await self._look_again.wait()

    def look(self) -> None:
        """There may be other relays, or none may be needed any more."""
        self._look_again.set()

    def _choose(self) -> list[tuple[PeerId, Carrier, Address]]:
        """Relays to ask: none that has just failed."""
        free = [relay for relay in self._relays() if relay[0] not in self._busy]
        # A connection may have ended a moment before its link does.
        ready = [one for one in free if one[0] not in self._avoided and not one[1].closed]
        held = {one.address.network() for one in self.held.values()}
        first: list[tuple[PeerId, Carrier, Address]] = []
        rest: list[tuple[PeerId, Carrier, Address]] = []
        for one in ready:
            network = one[2].network()
            (rest if network in held else first).append(one)
            held.add(network)
        # Two relays of one operator are like one; but better that than one alone.
        return first + rest

    async def _keep(self, peer: PeerId, carrier: Carrier, address: Address) -> None:
        """Hold a reservation for as long as the connection lasts and the relay agrees."""
        carrier.hold()
        try:
            while self._wanted() and not carrier.closed:
                with trio.fail_after(RESERVE_LIMIT_S):
                    good_s = await self._reserve(carrier)
                if peer not in self.held:
                    self.held[peer] = Reservation(peer, address, trio.current_time())
                    self.errors.pop(peer, None)
                    self._changed()
                with trio.move_on_after(min(RENEW_S, good_s / 2) * self._rng.uniform(0.8, 1.0)):
                    await carrier.wait_closed()
        except (MeshError, trio.BrokenResourceError, trio.TooSlowError) as error:
            self.errors[peer] = str(error) or "it did not answer in time"
            self._avoided[peer] = trio.current_time() + AVOID_S
            log.info("no reservation at %s: %s", short_peer(peer), self.errors[peer])
        finally:
            carrier.release()
            self._busy.discard(peer)
            self.look()
            if self.held.pop(peer, None) is not None:
                self._changed()
