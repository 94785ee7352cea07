"""A mesh without its transport: what two transports have in common.

Here the parts meet: the table of links, the paths to peers, calls, the roster of who is there, the
probing of how this node is reached, and reservations at relays.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from node.mesh import calls, dht, interfaces
from node.mesh.address import Address, parse_address, parse_dialable
from node.mesh.base import Link, MeshEvent, Received
from node.mesh.calls import Calls
from node.mesh.discovery import Discovery
from node.mesh.greet import PROTOCOL_ID
from node.mesh.inbox import Inbox
from node.mesh.link import CLOSE_LIMIT_S, LiveLink, shielded
from node.mesh.paths import HEARSAY_TRIES, TRIES, Outlook, Paths
from node.mesh.probing import Prober
from node.mesh.reach import Reach, ReachReport, is_local
from node.mesh.report import Dialled, Held, MeshReport, RelayLoad
from node.mesh.reservations import Reservations
from node.mesh.roster import Roster
from node.mesh.standing import Standing
from node.mesh.table import LinkTable
from node.mesh.wire import Carrier, Wire
from protocol import limits, version
from protocol.envelope import KeySigner
from protocol.errors import (
    BackpressureError,
    ConfigError,
    MalformedIdError,
    MeshError,
    ProtocolError,
    TooLargeError,
    UnreachableError,
)
from protocol.frames import PREFIX_BYTES, Hello, decode_greeting, encode_greeting
from protocol.ids import PeerId, parse_peer, short_peer
from protocol.presence import Presence, Stated, read
from swarm.membership import Membership

log = logging.getLogger(__name__)

Serve = Callable[[Wire], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a mesh is set up.

    Attributes:
        listen: multiaddrs such as ``/ip4/0.0.0.0/tcp/4001``; none to dial only.
        bootstraps: multiaddrs with ``/p2p/ID`` that are dialled, and redialled, for ever.
        swarm: the name of the swarm; peers of another are refused.
        agent: software and version, for other people.
        swarm_key: the 32 bytes that everyone in a private swarm has.
        public: the operator says that others can connect to this node.
        relays: whether this node serves as a relay when it is public.
        announce: multiaddrs at which the operator says others reach this node.
        lan_only: nothing outside the site is asked or told anything.
        mdns, upnp, dht: which ways to find peers, and to be found, are used.
        cache: a file of peers once linked; None for none.
    """

    listen: tuple[str, ...] = ()
    bootstraps: tuple[str, ...] = ()
    swarm: str = "public"
    agent: str = ""
    swarm_key: bytes | None = None
    public: bool = False
    relays: bool = True
    announce: tuple[str, ...] = ()
    lan_only: bool = False
    mdns: bool = False
    upnp: bool = False
    dht: bool = False
    cache: Path | None = None


class Peering(ABC):
    """See :class:`node.mesh.base.Mesh` for the methods.

    Args:
        key_seed: the 32-byte Ed25519 seed of this node.
        settings: addresses, the swarm and the rest.
        rng: for jitter and choices that need not be secret.
        clock: Unix time in seconds.

    Raises:
        ConfigError: an address is malformed, or a name does not fit into a greeting.
    """

    def __init__(
        self,
        key_seed: bytes,
        settings: Settings,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        rng = rng or random.Random()
        signer = KeySigner(key_seed)
        self._own = signer.peer
        self._settings = settings
        self._clock = clock
        self._session = rng.randbytes(16)
        try:
            decode_greeting(encode_greeting(self._hello(None))[PREFIX_BYTES:])
        except ProtocolError as error:
            raise ConfigError(f"The name of the swarm or of the agent: {error}") from error
        self._inbox = Inbox()
        self._table = LinkTable(self._own, self._hello, self._inbox, self._noted, self._linked)
        self._calls = Calls(self._carrier, self._table.is_linked)
        self._reach = Reach(settings.public)
        self._standing = Standing(
            self._own,
            self.bound,
            self._reach,
            settings.announce,
            settings.relays,
            self._reserved,
            map(parse_address, settings.bootstraps),
            settings.lan_only,
            self._is_outside,
        )
        self._membership = Membership(self._own, settings.swarm)
        self._roster = Roster(
            signer,
            settings.swarm,
            self._membership,
            self._calls,
            self._others,
            self._facts,
            self._heard,
            _fork(rng),
            clock,
        )
        self._paths = Paths(
            self._own,
            self._connect,
            self._serve,
            self._table.until_down,
            self._outlook,
            lambda: self._standing.report().nat,
            self._punch,
            self._standing.is_near,
            self._table.why_not,
            self._table.is_linked,
            _fork(rng),
        )
        self._prober = Prober(
            self._own,
            self._reach,
            self._calls,
            self._others,
            self._carrier,
            lambda address: self._connect(address, False),
            self._standing.candidates,
            self._changed,
            _fork(rng),
        )
        self._reservations = Reservations(
            self._standing.needs_relays, self._relays, self._reserve, self._changed, _fork(rng)
        )
        self._bootstraps: set[PeerId] = set()
        self._table.named = self._bootstraps
        self._discovery: Discovery | None = None
        self._nursery: trio.Nursery | None = None
        for text in settings.bootstraps:
            address = parse_dialable(text)
            assert address.peer is not None
            if address.peer != self._own:
                self._bootstraps.add(address.peer)
                self._paths.want(address.peer, [address], observed=True)

    # --- what a transport does --------------------------------------------------------------------

    @abstractmethod
    def bound(self) -> tuple[Address, ...]:
        """The sockets it listens on; ports are known once it runs."""

    @abstractmethod
    async def _dial(self, address: Address, observed: bool) -> Carrier:
        """A connection to the peer that ``address`` names, or any exception.

        Args:
            observed: from the listening port, if that can be.
        """

    @abstractmethod
    async def _reserve(self, relay: Carrier) -> float:
        """Have circuits to this node made at ``relay``; for how many seconds, or any MeshError."""

    @abstractmethod
    async def _punch(self, relayed: Carrier) -> Carrier:
        """A direct connection to the peer that dialled ``relayed``, or any MeshError."""

    @abstractmethod
    async def _agent_of(self, carrier: Carrier) -> str:
        """The software of a peer, as it says; or any MeshError or ProtocolError."""

    @abstractmethod
    def _serve_relay(self, serve: bool) -> None:
        """Begin or end to take reservations of others."""

    def _relay_load(self) -> RelayLoad:
        """This node as a relay."""
        return RelayLoad()

    def _refusals(self) -> dict[str, int]:
        """Connections and streams refused below the links, by reason."""
        return {}

    def _traffic(self) -> tuple[int, int]:
        """Bytes sent and received since the start, handshakes and all."""
        return 0, 0

    # --- the mesh ---------------------------------------------------------------------------------

    @property
    def peer_id(self) -> PeerId:
        """Oneself."""
        return self._own

    def addresses(self) -> tuple[str, ...]:
        """Multiaddrs under which others can dial this node, once it is running."""
        return tuple(map(str, self._standing.addresses()))

    def links(self) -> tuple[Link, ...]:
        """The peers connected now, and oneself, sorted by peer id."""
        own = Link(self._own, "loopback", "self", self._settings.agent)
        return tuple(sorted([own, *self._table.links()], key=lambda link: link.peer))

    def send(self, peer: PeerId, payload: bytes) -> None:
        """Queue ``payload`` for ``peer``."""
        if peer != self._own:
            self._table.get(peer).send(payload)
        elif len(payload) > limits.FRAME_BYTES:
            raise TooLargeError(f"{len(payload)} bytes where a frame holds {limits.FRAME_BYTES}.")
        elif not self._inbox.has_room(peer):
            raise BackpressureError("This node does not keep up with its messages to itself.")
        else:
            self._inbox.put(peer, Received(peer, payload))

    async def call(self, peer: PeerId, method: str, body: bytes, limit_s: float) -> bytes:
        """What ``peer`` answers to a request; see :meth:`node.mesh.calls.Calls.call`."""
        return await self._calls.call(peer, method, body, limit_s)

    def answer(self, method: str, answer: calls.Answer) -> None:
        """Answer the requests of linked peers for ``method``."""
        self._calls.answers[method] = answer

    async def next_event(self) -> MeshEvent:
        """The next thing that happened, taking the peers in turn. One consumer."""
        return await self._inbox.get()

    def dial(self, address: str) -> None:
        """Connect to the peer at ``address``, and again when the connection is lost."""
        target = parse_dialable(address)
        assert target.peer is not None
        self._paths.want(target.peer, [target], TRIES)

    def disconnect(self, peer: PeerId, reason: str) -> None:
        """End the link to ``peer``, if there is one; ``PeerDown`` follows."""
        with contextlib.suppress(UnreachableError):
            self._table.get(peer).close(reason)

    def present(self) -> Mapping[PeerId, Presence]:
        """What each peer of the swarm, oneself apart, has stated lately of where it is."""
        return self._membership.present(self._clock())

    async def find(self, peer: PeerId, look_up: bool) -> tuple[str, Presence | None]:
        """What a peer states of itself, and how that was learnt."""
        if peer == self._own:
            own = self._roster.own().statement
            return "self", own if isinstance(own, Presence) else None
        known = self._membership.get(peer, self._clock())
        if known is not None and self._table.is_linked(peer) and not look_up:
            return "swarm", known
        found = None
        if self._discovery is not None and self._discovery.dht is not None:
            found = await self._discovery.dht.lookup(peer)
        if found is not None:
            statement = read(found).statement
            if isinstance(statement, Presence):
                return "dht", statement
        return ("nowhere", None) if known is None else ("swarm", known)

    def reach(self) -> ReachReport:
        """How this node is seen from outside."""
        return self._standing.report()

    def report(self) -> MeshReport:
        """A snapshot of all there is to know."""
        now = trio.current_time()
        return MeshReport(
            listening=tuple(map(str, self.bound())),
            addresses=self.addresses(),
            reach=self.reach(),
            links=tuple(self._table.links()),
            dialled=tuple(
                Dialled(
                    target.peer,
                    target.peer in self._bootstraps,
                    tuple(map(str, target.addresses)),
                    self._table.is_linked(target.peer),
                    target.failures,
                    target.error,
                )
                for target in self._paths.targets()
            ),
            members=len(self.present()),
            relays=tuple(
                Held(one.relay, str(one.address), now - one.since)
                for one in self._reservations.held.values()
            ),
            relay_errors=dict(self._reservations.errors),
            serving=self._relay_load(),
            skews=dict(self._roster.skews),
            refused=dict(self._table.refusals + Counter(self._refusals())),
            merges=self._roster.merges,
            private=self._settings.swarm_key is not None,
            services=self._services(),
            bytes_sent=self._traffic()[0],
            bytes_received=self._traffic()[1],
            calls=dict(self._calls.served),
        )

    def _services(self) -> dict[str, str]:
        return {} if self._discovery is None else self._discovery.status()

    # --- for a transport --------------------------------------------------------------------------

    def serving(self) -> dict[str, Serve]:
        """What is done with a stream that a peer opens, by its protocol."""
        served: dict[str, Serve] = {PROTOCOL_ID: self._greeted, calls.PROTOCOL_ID: self._called}
        if self._discovery is not None and self._discovery.dht is not None:
            served[dht.PROTOCOL_ID] = self._discovery.dht.serve
        return served

    async def _run(self) -> None:
        """Be a part of the swarm, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._calls.run)
            self._nursery.start_soon(self._paths.run)
            self._nursery.start_soon(self._roster.run)
            if not self._settings.lan_only:
                self._nursery.start_soon(self._prober.run)
                self._nursery.start_soon(self._reservations.run)
            # Once the ports are known.
            self._discovery = self._discover()
            await self._discovery.run()

    def _discover(self) -> Discovery:
        """The ways to find peers that the settings allow."""
        settings = self._settings
        hosts = [one.ip() for one in self.bound()]
        outside = any(host is not None and not host.is_loopback for host in hosts)
        inside = [one for one in self._standing.sockets() if is_local(one)]
        return Discovery(
            self,
            settings.swarm,
            # Those who have no key of a private swarm are not told its name, not even as a hash.
            settings.swarm + ("" if settings.swarm_key is None else settings.swarm_key.hex()),
            [
                (target.peer, str(one))
                for target in self._paths.targets()
                for one in target.addresses
                if target.peer in self._bootstraps
            ],
            settings.cache,
            # On loopback there is nobody to be heard of.
            settings.mdns and outside,
            settings.dht,
            inside[0].port if settings.upnp and outside and inside else None,
            self._clock,
        )

    # --- for discovery --------------------------------------------------------------------------

    def served_at(self) -> tuple[str, ...]:
        """Where everybody can dial this node; nowhere unless it is public."""
        return self._standing.served_at()

    def own_statement(self) -> Stated:
        """What this node states of itself now."""
        return self._roster.own()

    def linked_at(self) -> dict[PeerId, tuple[str, ...]]:
        """The peers linked now, and where each can be dialled."""
        found = {}
        for live in self._table.live():
            stated = [
                str(one)
                for one in self._outlook(live.peer).addresses
                if self._standing.is_near(one)
            ]
            found[live.peer] = tuple(stated)
        return found

    def try_peer(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """Somebody may be there; try a few times."""
        self._paths.want(peer, _of_peer(addresses, peer), TRIES)

    def try_address(self, address: str) -> None:
        """As :meth:`try_peer`, of a multiaddr that ends in the peer's id."""
        with contextlib.suppress(ConfigError):
            self.dial(address)

    def hear(self, statements: Iterable[bytes], source: PeerId | None) -> set[PeerId]:
        """Take signed statements, wherever they come from."""
        return self._roster.hear(statements, source)

    def mapped(self, address: Address | None) -> None:
        """The router leads this outside address to us, or none any more."""
        self._standing.mapped = None if address is None else address.bare()
        self._changed()
        self._prober.again()

    async def dial_node(self, peer: PeerId, addresses: Sequence[str]) -> Carrier:
        """A connection to any node, of whatever swarm.

        Raises:
            UnreachableError: none of the addresses answers.
        """
        if self._table.is_linked(peer):
            return self._carrier(peer)
        for address in _of_peer(addresses, peer):
            if address.relay is None and self._standing.is_near(address):
                with contextlib.suppress(Exception):
                    return await self._connect(address, False)
        raise UnreachableError(f"No address of {short_peer(peer)} answers.")

    async def _say_leave(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._roster.say_leave)
            if self._discovery is not None:
                nursery.start_soon(self._discovery.say_leave, self._roster.leave())

    async def _punched(self, carrier: Carrier) -> None:
        """A hole was punched from the other side; the link there moves to it."""
        await self._serve(carrier, str(carrier.address))

    def observed_addresses(self) -> tuple[Address, ...]:
        """Where a hole to this node may be punched."""
        return self._standing.punchable()

    def network_changed(self, now: frozenset[interfaces.Interface]) -> None:
        """The addresses of this machine are not what they were."""
        log.warning("the network has changed; everything is looked at again")
        standing = []
        self._standing.interfaces = now
        for live in self._table.live():
            source = live.wire.carrier.source
            if source is not None and self._standing.is_gone(source):
                live.close("the address that it used is gone")
            else:
                standing.append(live.peer)
        self._standing.network_changed(now, standing)
        self._prober.again()
        self._changed()

    # --- streams ----------------------------------------------------------------------------------

    async def _greeted(self, wire: Wire) -> None:
        address = wire.carrier.address
        await self._table.serve(wire, "unknown" if address is None else str(address))

    async def _called(self, wire: Wire) -> None:
        peer = self._table.peer_on(wire.carrier)
        if peer is None:
            await wire.reset()
        else:
            await self._calls.serve(wire, peer)

    async def _serve(self, carrier: Carrier, address: str) -> bool:
        """Make a link of a connection; returns after its end whether there was one."""
        carrier.hold()
        try:
            wire = await carrier.open(PROTOCOL_ID)
        except trio.BrokenResourceError as error:
            log.debug("%s makes no link: %s", address, error)
            await self._turn_from(carrier, address)
            return False
        finally:
            carrier.release()
        return await self._table.serve(wire, address)

    async def _turn_from(self, carrier: Carrier, address: str) -> None:
        """Say who answers where no member of a swarm does, and hang up."""
        try:
            agent = await self._agent_of(carrier)
            reason = f"It runs {agent or 'some software'}, which speaks nothing of a swarm."
        except (MeshError, ProtocolError) as error:
            reason = f"It speaks nothing of a swarm, and does not say who it is ({error})"
        with contextlib.suppress(MalformedIdError):
            self._table.refuse(parse_peer(carrier.peer), address, "foreign", reason)
        with shielded(CLOSE_LIMIT_S):
            await carrier.close()

    async def _connect(self, address: Address, observed: bool) -> Carrier:
        """A connection to the peer that ``address`` names, as far as the operator allows it."""
        if self._settings.lan_only and not self._standing.is_of_site(address):
            raise UnreachableError(f"{address} is not on this network, and --lan is set.")
        if address.relay is None and self._standing.is_own(address):
            raise UnreachableError(f"{address} is this node itself.")
        return await self._dial(address, observed)

    def _carrier(self, peer: PeerId) -> Carrier:
        return self._table.get(peer).wire.carrier

    # --- what the parts ask of each other ---------------------------------------------------------

    def _hello(self, carrier: Carrier | None) -> Hello:
        seen = None if carrier is None or carrier.relayed else carrier.address
        settings = self._settings
        return Hello(
            version.OLDEST,
            version.PROTOCOL,
            settings.swarm,
            settings.agent,
            self._session,
            "" if seen is None else str(seen.bare()),
        )

    def _noted(self, peer: PeerId, carrier: Carrier, hello: Hello) -> None:
        """A peer has greeted, and said from where it sees us."""
        if self._standing.noted(peer, carrier, hello):
            self._changed()
            self._prober.again()

    def _linked(self, live: LiveLink) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._roster.welcome, live.peer)
            self._nursery.start_soon(self._calls.follow, live)
        self._paths.watch(live)
        self._reservations.look()
        if not self._standing.is_examined():
            self._prober.again()

    def _heard(self, peer: PeerId, first_hand: bool) -> None:
        self._reservations.look()
        outlook = self._outlook(peer)
        if self._discovery is not None and outlook.nat == "public" and first_hand:
            # Names are left out: whoever states one chooses which server is asked for it.
            known = [one for one in outlook.addresses if one.relay is None and one.ip() is not None]
            self._discovery.serves(peer, [str(one) for one in known if self._standing.is_near(one)])
        if self._membership.get(peer, self._clock()) is not None:
            self._paths.want(peer, (), TRIES if first_hand else HEARSAY_TRIES)
            self._paths.retry(peer)

    def _others(self) -> list[PeerId]:
        return [live.peer for live in self._table.live()]

    def _outlook(self, peer: PeerId) -> Outlook:
        presence = self._membership.get(peer, self._clock())
        if presence is None:
            return Outlook()
        return Outlook(tuple(_of_peer(presence.addresses, peer)), presence.nat)

    def _facts(self) -> tuple[tuple[Address, ...], bool, str]:
        facts = self._standing.facts()
        self._serve_relay(facts[1])
        return facts

    def _changed(self) -> None:
        """Something that this node states of itself may have changed."""
        self._roster.changed()
        self._reservations.look()
        self._paths.hurry()

    def _relays(self) -> list[tuple[PeerId, Carrier, Address]]:
        """Linked relays, those that the operator has named first, then the nearest."""
        found = []
        for live in self._table.live():
            presence = self._membership.get(live.peer, self._clock())
            if presence is None or not presence.relay or live.relayed:
                continue
            carrier = live.wire.carrier
            stated = [one for one in _of_peer(presence.addresses, live.peer) if one.relay is None]
            public = [one for one in stated if not is_local(one)] or stated
            if public:
                found.append((live.peer, carrier, public[0]))
        # Who was named is the least likely to be somebody else's.
        return sorted(found, key=lambda one: (one[0] not in self._bootstraps, one[1].rtt_s or 1.0))

    def _is_outside(self) -> bool:
        """Whether this node has gone out to a peer on the public internet."""
        carriers = [live.wire.carrier for live in self._table.live() if not live.relayed]
        places = [one.address for one in carriers if one.dialled]
        return any(at is not None and not is_local(at) for at in places)

    def _reserved(self) -> list[Address]:
        """The circuits to this node."""
        return [one.address.through(self._own) for one in self._reservations.held.values()]


def _of_peer(texts: Iterable[str], peer: PeerId) -> list[Address]:
    """The addresses among ``texts`` that can be dialled and lead to ``peer``."""
    found = []
    for text in texts:
        with contextlib.suppress(ConfigError):
            address = parse_dialable(text)
            if address.peer == peer:
                found.append(address)
    return found


def _fork(rng: random.Random) -> random.Random:
    """A generator of its own: what one part draws does not depend on when another does."""
    return random.Random(rng.getrandbits(64))
