"""Whom to stay connected to, by which way, and when to try again.

A peer is dialled at all its addresses, direct ones first and circuits soon after; the first that
answers carries the link. While the link is relayed a better way is looked for: the peer's own
addresses, then a hole through the NATs. When one opens, the link moves there.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import trio

from node.mesh.address import Address
from node.mesh.link import CLOSE_LIMIT_S, LiveLink, shielded
from node.mesh.ration import Ration
from node.mesh.reach import is_local
from node.mesh.wire import Carrier
from protocol import limits
from protocol.errors import MeshError, UnreachableError
from protocol.ids import PeerId, short_peer

FIRST_DELAY_S: Final = 0.5
LAST_DELAY_S: Final = 30.0
DIALS_AT_ONCE: Final = 16
ADDRESSES_PER_PEER: Final = limits.ADDRESSES
HEARSAY_TRIES: Final = 3
"""Of a peer that has not said itself that it is there."""
HEARSAY_AT_ONCE: Final = 128
HEARSAY_PER_S: Final = 2.0
"""Connections that are tried because somebody has named an address: many peers may be made up to
have one victim flooded by a whole swarm."""
PER_HOST_AT_ONCE: Final = 16
PER_HOST_PER_S: Final = 0.1
"""Of these, to one address of the public internet, whomever they are for."""
TRIES: Final = 8
"""Dials in a row that may fail before a peer that is no bootstrap is given up."""
STAGGER_S: Final = 0.25
"""Between the addresses of one peer (RFC 8305 calls it the connection attempt delay)."""
CIRCUIT_DELAY_S: Final = 1.0
"""How long direct addresses are tried before circuits as well."""
DIAL_LIMIT_S: Final = 10.0
"""One dial of all addresses of a peer."""
IMPROVE_AFTER_S: Final = (0.0, 2.0, 10.0, 60.0)
"""When to look for a better way than a relay, in seconds after the last try; the last repeats with
:data:`IMPROVE_LAST_S` as its limit."""
IMPROVE_LAST_S: Final = 600.0
WARN_RELAYED_S: Final = 600.0
"""A link relayed for so long is worth a line in the log."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known of a peer's side of a path.

    Attributes:
        addresses: under which it says that it can be dialled.
        nat: as in its Presence.
    """

    addresses: tuple[Address, ...] = ()
    nat: str = "unknown"


@dataclass(slots=True)
class Target:
    """A peer to stay connected to.

    Attributes:
        addresses: given by the operator or found, beside those it states itself.
        tries: how many dials in a row may fail before it is given up.
        failures: dials in a row that failed.
        error: why the last one did.
        tried: addresses dialled in all.
        observed: dialled from the listening port, to learn how that is seen.
    """

    peer: PeerId
    addresses: list[Address]
    tries: float
    observed: bool
    failures: int = 0
    error: str = ""
    tried: int = 0
    again: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class Paths:
    """Keeps a link to every wanted peer, with exponential backoff and jitter.

    Args:
        own: this node. Of two public peers the one with the smaller key dials from its listening
            port, so that two dials do not merge into one connection with two first speakers.
        dial: connects to an address, from the listening port or any.
        serve: makes a link of a connection; returns after its end whether there was one.
        until_down: returns once there is no link to the peer; whether there was one.
        outlook: what a peer states of itself.
        own_nat: how this node is reached, as in its Presence.
        punch: makes a direct connection beside a relayed one that the peer has made.
        is_near: whether an address that is local to some site is local to ours.
        why_not: why the last connection to a peer became no link; empty where that is not known.
        is_linked: whether there is a link to a peer.
        rng: for the jitter.
    """

    def __init__(
        self,
        own: PeerId,
        dial: Callable[[Address, bool], Awaitable[Carrier]],
        serve: Callable[[Carrier, str], Awaitable[bool]],
        until_down: Callable[[PeerId], Awaitable[bool]],
        outlook: Callable[[PeerId], Outlook],
        own_nat: Callable[[], str],
        punch: Callable[[Carrier], Awaitable[Carrier]],
        is_near: Callable[[Address], bool],
        why_not: Callable[[PeerId], str],
        is_linked: Callable[[PeerId], bool],
        rng: random.Random,
    ) -> None:
        self._own = own
        self._dial = dial
        self._serve = serve
        self._until_down = until_down
        self._outlook = outlook
        self._own_nat = own_nat
        self._punch = punch
        self._is_near = is_near
        self._why_not = why_not
        self._is_linked = is_linked
        self._hearsay = Ration(HEARSAY_AT_ONCE, HEARSAY_PER_S)
        self._per_host = Ration(PER_HOST_AT_ONCE, PER_HOST_PER_S)
        self._seed = rng.randbytes(16)
        self._dials = trio.CapacityLimiter(DIALS_AT_ONCE)
        self._targets: dict[PeerId, Target] = {}
        self._nursery: trio.Nursery | None = None
        self._changed = trio.Event()

    def targets(self) -> list[Target]:
        """The peers wanted now."""
        return list(self._targets.values())

    def want(
        self,
        peer: PeerId,
        addresses: Iterable[Address],
        tries: float = math.inf,
        observed: bool = False,
    ) -> None:
        """Dial ``peer`` until connected, and again whenever the connection is lost.

        Args:
            addresses: where, beside what it states itself. Further ones are tried as well.
            tries: give up after so many failures in a row.
            observed: dial from the listening port.
        """
        if peer == self._own:
            return
        target = self._targets.get(peer)
        if target is None:
            addresses = list(addresses)
            if tries < math.inf and not self._make_room(len(addresses) > 0):
                log.info("not dialling %s: %d peers are wanted", short_peer(peer), limits.PEERS)
                return
            target = Target(peer, [], tries, observed)
            self._targets[peer] = target
            if self._nursery is not None:
                self._nursery.start_soon(self._keep, target)
        target.tries = max(target.tries, tries)
        target.observed |= observed
        fresh = [one for one in addresses if one not in target.addresses]
        if fresh:
            # The newest is the likeliest; a bounded number of old ones stays.
            target.addresses[:0] = fresh
            del target.addresses[ADDRESSES_PER_PEER:]
            target.again.set()

    def _make_room(self, given: bool) -> bool:
        """Whether one more peer can be wanted; one that does not answer may make room for it.

        Args:
            given: its address is from the operator, this network or the disk, not stated by it.
        """
        if len(self._targets) < limits.PEERS:
            return True
        absent = [
            one
            for one in self._targets.values()
            if one.tries < math.inf and not self._is_linked(one.peer) and (given or one.failures)
        ]
        # Who was only heard of first, then who has failed most.
        victim = min(absent, key=lambda one: (one.tries, -one.failures), default=None)
        if victim is None:
            return False
        del self._targets[victim.peer]
        victim.scope.cancel()
        return True

    def retry(self, peer: PeerId) -> None:
        """Something new is known of ``peer``: dial it now, if it is not there."""
        target = self._targets.get(peer)
        if target is not None:
            target.again.set()

    def hurry(self) -> None:
        """Something has changed: dial who is not there, and look for better ways, now."""
        for target in self._targets.values():
            target.again.set()
        self._changed.set()
        self._changed = trio.Event()

    async def run(self) -> None:
        """Dial, for ever."""
        try:
            async with trio.open_nursery() as self._nursery:
                for target in self._targets.values():
                    self._nursery.start_soon(self._keep, target)
                await trio.sleep_forever()
        finally:
            self._nursery = None

    # --- dialling -------------------------------------------------------------------------------

    async def _keep(self, target: Target) -> None:
        with target.scope:
            await self._stay(target)
        if self._targets.get(target.peer) is target:
            del self._targets[target.peer]

    async def _stay(self, target: Target) -> None:
        """Dial ``target`` until it is given up."""
        # Its own: peers that are lost at one moment must not draw from one in any order.
        rng = random.Random(self._seed + target.peer)
        delay = FIRST_DELAY_S
        while True:
            # A link that the peer has made ends a row of failures as well.
            if await self._until_down(target.peer):
                target.failures, delay = 0, FIRST_DELAY_S
            if target.failures >= target.tries:
                break
            target.again = trio.Event()
            linked = await self._try(target)
            delay = FIRST_DELAY_S if linked else min(2 * delay, LAST_DELAY_S)
            target.failures = 0 if linked else target.failures + 1
            # Jitter, so that a restarted bootstrap is not dialled by everybody at once.
            with trio.move_on_after(delay * rng.uniform(0.5, 1.5)):
                await target.again.wait()
                delay = FIRST_DELAY_S
                # A try before its time is one more, else a busy minute would use them up.
                target.failures = max(target.failures - 1, 0)

    async def _try(self, target: Target) -> bool:
        """Connect to ``target`` and serve the link until its end; whether there was one."""
        try:
            found = await self._race(target)
        except Exception:
            log.exception("dialling %s failed", short_peer(target.peer))
            return False
        if found is None:
            return False
        address, carrier = found
        try:
            linked = await self._serve(carrier, str(address))
        except Exception as error:
            target.error = str(error) or type(error).__name__
            log.exception("the link to %s failed", address)
            return False
        if not linked:
            target.error = self._why_not(target.peer) or "it made no link"
        return linked

    async def _race(
        self, target: Target, direct_only: bool = False
    ) -> tuple[Address, Carrier] | None:
        """The first connection that any address of ``target`` gives.

        Args:
            direct_only: through no relay.
        """
        direct, circuits = self._ways(target)
        if not direct and (direct_only or not circuits):
            target.error = "no address of it is known that could be dialled from here"
            return None
        # Every other dial goes from a port of its own, should the listening port be what fails.
        public = self._own < target.peer and self._outlook(target.peer).nat == "public"
        observed = (target.observed or public) and target.failures % 2 == 0
        winner: list[tuple[Address, Carrier]] = []
        errors: dict[str, str] = {}

        begun: set[Address] = set()
        failed: set[Address] = set()

        async def attempt(address: Address, after_s: float) -> None:
            await trio.sleep(after_s)
            target.tried += 1
            try:
                self._check_ration(target, address)
                carrier = await self._dial(address, observed and address.relay is None)
            except Exception as error:
                errors[str(address.bare())] = str(error) or _in_words(error)
                log.debug("cannot dial %s: %s", address, errors[str(address.bare())])
                failed.add(address)
                if failed == begun:
                    nursery.cancel_scope.cancel()
                return
            if winner:
                await carrier.close()
                return
            winner.append((address, carrier))
            nursery.cancel_scope.cancel()

        def begin(first_circuit_s: float) -> None:
            """Start with the addresses that are known now and not yet tried."""
            direct, circuits = self._ways(target)
            circuits = [] if direct_only else circuits
            for ways, after_s in ((direct, 0.0), (circuits, first_circuit_s if direct else 0.0)):
                # What a peer states may be the address of somebody else; it must not flood that.
                room = 2 * limits.ADDRESSES - len(begun)
                fresh = [one for one in ways if one not in begun][:room]
                for index, address in enumerate(fresh):
                    begun.add(address)
                    nursery.start_soon(attempt, address, after_s + index * STAGGER_S)

        async def follow() -> None:
            # A peer that has just started states its circuits a moment after its own sockets.
            while True:
                target.again = trio.Event()
                await target.again.wait()
                begin(0.0)

        # Peers that were only heard of can be made up: they take turns, and keep nobody waiting
        # whom the operator has named.
        async with self._dials if target.tries < math.inf else contextlib.nullcontext():
            with trio.move_on_after(DIAL_LIMIT_S):
                async with trio.open_nursery() as nursery:
                    begin(CIRCUIT_DELAY_S)
                    nursery.start_soon(follow)
        if winner:
            return winner[0]
        target.error = "; ".join(f"{where}: {what}" for where, what in errors.items())
        target.error = target.error or "no address answered in time"
        log.info("cannot reach %s: %s", short_peer(target.peer), target.error)
        return None

    def _check_ration(self, target: Target, address: Address) -> None:
        """See that nobody is flooded in the name of peers that may be made up.

        Raises:
            UnreachableError: enough was tried of late.
        """
        if target.tries == math.inf or address in target.addresses or is_local(address):
            return
        if address.relay is not None and self._is_linked(address.relay):
            return  # over a connection that stands
        now = trio.current_time()
        if not self._per_host.take(address.host, now) or not self._hearsay.take("all", now):
            raise UnreachableError("Enough addresses that others named were tried of late.")

    def _ways(self, target: Target) -> tuple[list[Address], list[Address]]:
        """The direct addresses and the circuits that are worth a try."""
        outlook = self._outlook(target.peer)
        known = list(dict.fromkeys((*target.addresses, *outlook.addresses)))
        direct = [
            one
            for one in known
            if one.relay is None and (one in target.addresses or self._is_worth_a_try(one, outlook))
        ]
        circuits = [one for one in known if one.relay not in (None, self._own)]
        return direct[: limits.ADDRESSES], circuits[: limits.ADDRESSES]

    def _is_worth_a_try(self, address: Address, outlook: Outlook) -> bool:
        """Whether ``address``, which nobody but the peer has named, may answer here."""
        # Behind a NAT or a firewall nobody answers unless a hole is punched at that moment.
        return self._is_near(address) and (
            outlook.nat in ("public", "unknown") or is_local(address)
        )

    # --- improving ------------------------------------------------------------------------------

    def watch(self, live: LiveLink) -> None:
        """Look for a better way than a relay, for as long as the link lasts."""
        if self._nursery is not None:
            self._nursery.start_soon(self._improve, live)

    async def _improve(self, live: LiveLink) -> None:
        tries, warned = 0, False
        while not live.gone.is_set():
            changed = self._changed
            if not live.relayed:
                await live.path_changed()
                tries = 0
                continue
            pause = IMPROVE_AFTER_S[tries] if tries < len(IMPROVE_AFTER_S) else IMPROVE_LAST_S
            with trio.move_on_after(pause):
                await _first_of(changed.wait, live.path_changed)
                tries = 0
            if live.gone.is_set() or not live.relayed:
                continue
            await self._better_way(live)
            tries += 1
            if not warned and trio.current_time() - live.since > WARN_RELAYED_S:
                warned = True
                log.warning("%s is relayed for long: %s", short_peer(live.peer), live.why)

    async def _better_way(self, live: LiveLink) -> None:
        """Try once to get ``live`` off the relay."""
        outlook, nat = self._outlook(live.peer), self._own_nat()
        waits = ""
        if nat == "public":
            waits = "waiting for it to connect to this node, which is public"
        elif outlook.nat == "public":
            waits = "dialling its own addresses"
        elif "closed" in (nat, outlook.nat):
            whose = "this node's" if nat == "closed" else "its"
            waits = f"{whose} NAT gives each connection another port: no hole can be punched"
        elif live.wire.carrier.dialled:
            waits = "waiting for it to punch a hole"
        live.why = waits or "punching a hole"
        # At once: an address behind a firewall takes long not to answer.
        async with trio.open_nursery() as nursery:

            async def until_direct() -> None:
                await live.path_changed()
                nursery.cancel_scope.cancel()

            async def both() -> None:
                async with trio.open_nursery() as tries:
                    tries.start_soon(self._reach_directly, live)
                    if not waits:
                        tries.start_soon(self._reach_by_hole, live)
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_direct)
            nursery.start_soon(both)

    async def _reach_directly(self, live: LiveLink) -> None:
        found = await self._race(Target(live.peer, [], 1, False), direct_only=True)
        if found is None:
            if self._outlook(live.peer).nat == "public":
                live.why = "its public address does not answer"
            return
        address, carrier = found
        # The link moves to it, and serving returns at the link's end: what follows must not wait.
        assert self._nursery is not None
        self._nursery.start_soon(self._serve, carrier, str(address))
        with trio.move_on_after(DIAL_LIMIT_S):
            await live.path_changed()

    async def _reach_by_hole(self, live: LiveLink) -> None:
        try:
            carrier = await self._punch(live.wire.carrier)
        except (MeshError, trio.BrokenResourceError, trio.TooSlowError, OSError) as error:
            live.why = f"no hole could be punched: {str(error) or type(error).__name__}"
            log.info("%s stays relayed: %s", short_peer(live.peer), live.why)
            return
        # The peer, who dialled the circuit, opens the stream to which the link moves.
        with trio.move_on_after(DIAL_LIMIT_S):
            await live.path_changed()
        if live.relayed:
            live.why = "a hole was punched, but the link did not move there"
            with shielded(CLOSE_LIMIT_S):
                await carrier.close()


def _in_words(error: Exception) -> str:
    """An error that says nothing itself."""
    if isinstance(error, trio.TooSlowError):
        return "nothing answers there in time, or not as it should (a private swarm is like that)"
    return type(error).__name__


async def _first_of(*waits: Callable[[], Awaitable[None]]) -> None:
    """Return once the first of ``waits`` does."""
    async with trio.open_nursery() as nursery:

        async def wait(one: Callable[[], Awaitable[None]]) -> None:
            await one()
            nursery.cancel_scope.cancel()

        for one in waits:
            nursery.start_soon(wait, one)
