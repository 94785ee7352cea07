"""Whom to stay connected to, and when to dial again."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import trio

from node.mesh.address import Address
from protocol import limits
from protocol.ids import PeerId

FIRST_DELAY_S: Final = 0.5
LAST_DELAY_S: Final = 30.0
DIALS_AT_ONCE: Final = 16
ADDRESSES_PER_PEER: Final = 4
TRIES: Final = 8
"""Dials in a row that may fail before a peer that is no bootstrap is given up."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Target:
    peer: PeerId
    addresses: list[Address]
    tries: float


class Dialler:
    """Keeps a connection to every wanted peer, with exponential backoff and jitter.

    Args:
        dial: connects to an address, and returns after the link's end whether there was a link.
        until_down: returns once there is no link to the peer.
        rng: for the jitter.
    """

    def __init__(
        self,
        dial: Callable[[Address], Awaitable[bool]],
        until_down: Callable[[PeerId], Awaitable[None]],
        rng: random.Random,
    ) -> None:
        self._rng = rng
        self._dial = dial
        self._until_down = until_down
        self._targets: dict[PeerId, _Target] = {}
        self._nursery: trio.Nursery | None = None

    def want(self, address: Address, tries: float = math.inf) -> None:
        """Dial ``address`` until connected, and again whenever the connection is lost.

        Args:
            address: with its peer id. A further address of a wanted peer is tried as well.
            tries: give up after so many failures in a row.
        """
        if address.peer is None:
            raise ValueError(f"{address} does not say who listens there")
        target = self._targets.get(address.peer)
        if target is not None:
            target.tries = max(target.tries, tries)
            if address not in target.addresses:
                # The newest is the likeliest; a bounded number of old ones stays.
                target.addresses.insert(0, address)
                del target.addresses[ADDRESSES_PER_PEER:]
            return
        if len(self._targets) >= limits.PEERS:
            log.info("not dialling %s: %d peers are wanted already", address, limits.PEERS)
            return
        target = _Target(address.peer, [address], tries)
        self._targets[address.peer] = target
        if self._nursery is not None:
            self._nursery.start_soon(self._keep, target)

    async def run(self) -> None:
        """Dial, for ever."""
        try:
            async with trio.open_nursery() as self._nursery:
                for target in self._targets.values():
                    self._nursery.start_soon(self._keep, target)
                await trio.sleep_forever()
        finally:
            self._nursery = None

    async def _keep(self, target: _Target) -> None:
        delay, failures = FIRST_DELAY_S, 0
        while failures < target.tries:
            await self._until_down(target.peer)
            linked = False
            for address in tuple(target.addresses):
                linked = await self._dial(address)
                if linked:
                    break
            delay = FIRST_DELAY_S if linked else min(2 * delay, LAST_DELAY_S)
            failures = 0 if linked else failures + 1
            # Jitter, so that a restarted bootstrap is not dialled by everybody at once.
            await trio.sleep(delay * self._rng.uniform(0.5, 1.5))
        del self._targets[target.peer]
