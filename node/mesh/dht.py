"""Where the members of a swarm find each other with nobody's help: a DHT of all nodes there are.

Every node that others can dial serves, whatever its swarm, and keeps signed statements of others
for a few minutes (:mod:`swarm.noticeboard`); the others only ask. A node states itself to those
nearest to its swarm's point and to its own (:mod:`swarm.kademlia`). One stream carries one question
and its answer. What is heard of contacts and statements is a stranger's word: contacts count once
they have answered, statements once their signature is verified and as long as they are fresh.

It is not py-libp2p's Kademlia, in which one answer of a liar fills the routing table and stops the
event loop for seconds, twelve silent streams end the service for good, nodes that only ask are
taken for servers, and a local copy is believed before anybody is asked.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from node.mesh.contacts import heard_contact, own_contact, reach_of
from node.mesh.desk import Desk, read_frame
from node.mesh.link import CLOSE_LIMIT_S, shielded
from node.mesh.wire import Carrier, Wire
from protocol import limits
from protocol.codec import decode, encode
from protocol.dht import REPLY_BYTES, Declined, Find, Found, Named, Post, Posted, Reply, Request
from protocol.errors import ProtocolError, RefusedError
from protocol.frames import encode_frame
from protocol.ids import PeerId, short_peer
from protocol.presence import Presence, Stated, check_time, read
from swarm.kademlia import Contact, K, Lookup, Table, node_point, swarm_point
from swarm.noticeboard import Noticeboard, order

PROTOCOL_ID: Final = "/swarmd/dht"
"""The libp2p protocol of the stream."""
ASK_LIMIT_S: Final = 8.0
"""One question: a dial if need be, a stream, the answer."""
SEARCH_LIMIT_S: Final = 30.0
ASKED_AT_ONCE: Final = 6
REFRESH_S: Final = 300.0
"""How often the table is looked after."""
JOIN_DELAY_S: Final = 2.0
"""How soon it is tried again to get to know anybody; doubles each time, up to the above."""
MEET_DELAY_S: Final = 1.0
MET_AT_ONCE: Final = 8
"""Peers tried in that time because they say that they serve."""
SEEDS: Final = 64
"""Nodes named by this one's operator or swarm."""
RESTART_S: Final = 10.0

log = logging.getLogger(__name__)

Dial = Callable[[PeerId, Sequence[str]], Awaitable[Carrier]]
"""Connects to a peer at one of these addresses, or takes a connection that stands."""


class Rendezvous:
    """This node in the DHT.

    Args:
        own: this node.
        dial: may raise anything.
        served_at: multiaddrs under which everybody can dial this node; none if it only asks.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        own: PeerId,
        dial: Dial,
        served_at: Callable[[], tuple[str, ...]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._own = own
        self._dial = dial
        self._served_at = served_at
        self._clock = clock
        self._table = Table(own)
        self._board = Noticeboard()
        self._desk = Desk(self._table, self._board, served_at, clock)
        self._seeds: dict[PeerId, Contact] = {}
        self._named: set[PeerId] = set()
        self._added = trio.Event()
        self._asks = trio.CapacityLimiter(ASKED_AT_ONCE)

    @property
    def size(self) -> int:
        """Nodes known to answer."""
        return len(self._table)

    @property
    def status(self) -> str:
        """For people."""
        role = "serves" if self._served_at() else "only asks"
        return f"{role}; {self.size} nodes known, {len(self._board)} statements kept"

    def add(self, peer: PeerId, addresses: Sequence[str], named: bool = False) -> None:
        """Name a node to begin with; without addresses if it is connected.

        Args:
            named: by the operator; such a node stays, whoever else comes.
        """
        contact = own_contact(peer, addresses)
        if named:
            self._named.add(peer)
        known = self._seeds.pop(peer, None)
        self._seeds[peer] = contact
        if len(self._seeds) > SEEDS:
            others = [one for one in self._seeds if one not in self._named]
            for one in others[:1]:
                del self._seeds[one]
        if contact != known and self.size < K:
            self._added.set()

    # --- asking -----------------------------------------------------------------------------------

    async def announce(self, stated: Stated) -> int:
        """State oneself, or that one leaves.

        Returns:
            how many other nodes have taken it; 0 is a failure, to be tried again.

        Raises:
            RefusedError: ``stated`` is not fresh.
        """
        check_time(stated.statement, self._clock())
        nearest: dict[PeerId, Contact] = {}
        taken = 0

        async def search(lines: _Lines, point: bytes) -> None:
            contacts, _ = await self._search(lines, point)
            nearest.update((contact.peer, contact) for contact in contacts)

        async def post(lines: _Lines, contact: Contact) -> None:
            nonlocal taken
            answer = await self._ask(lines, contact, Post(stated.envelope, self._serves()))
            if answer is not None and isinstance(answer.reply, Posted):
                taken += 1
            elif answer is not None and isinstance(answer.reply, Declined):
                log.info("%s declines: %r", short_peer(contact.peer), answer.reply.reason)

        async with _lines(self._dial) as lines:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(search, lines, swarm_point(stated.statement.swarm))
                nursery.start_soon(search, lines, node_point(self._own))
            async with trio.open_nursery() as nursery:
                for contact in nearest.values():
                    nursery.start_soon(post, lines, contact)
        if self._served_at():
            self._board.post(stated, "", self._clock())
        return taken

    async def find(self, swarm: str) -> list[bytes]:
        """Statements of members of ``swarm``, the latest of each, ``limits.PRESENCES`` at most."""
        latest = await self._stated_at(swarm_point(swarm))
        return [one.envelope for one in latest if one.peer != self._own][: limits.PRESENCES]

    async def lookup(self, peer: PeerId) -> bytes | None:
        """What ``peer`` has stated last; None if nobody knows."""
        latest = await self._stated_at(node_point(peer))
        return latest[0].envelope if latest else None

    async def _stated_at(self, point: bytes) -> list[Stated]:
        """The latest statement of everybody who has one at ``point``.

        The nodes asked take turns, so that none of them fills the list.
        """
        async with _lines(self._dial) as lines:
            _, told = await self._search(lines, point)
        now = self._clock()
        kept = self._board.read(point, limits.NOTICES_TOLD, now, os.urandom(16))
        told.append(_verified(kept, point, now, {}))
        latest: dict[PeerId, Stated] = {}
        for one in itertools.chain.from_iterable(itertools.zip_longest(*told)):
            if one is not None and _is_later(one, latest.get(one.peer)):
                latest[one.peer] = one
        return list(latest.values())

    async def _search(
        self, lines: _Lines, point: bytes
    ) -> tuple[list[Contact], list[list[Stated]]]:
        """The nodes nearest to ``point``, and what each node on the way has there."""
        lookup = Lookup(self._own, point, self._begin_with(point))
        told: list[list[Stated]] = []
        seen: dict[bytes, Stated] = {}
        progress = trio.Event()

        async def ask(contact: Contact) -> None:
            answer = await self._ask(lines, contact, Find(point, self._serves()))
            try:
                if answer is None or not isinstance(answer.reply, Found):
                    raise ProtocolError("It does not answer what was asked.")
                told.append(_verified(answer.reply.statements, point, self._clock(), seen))
            except ProtocolError as error:
                log.debug("%s: %s", short_peer(contact.peer), error)
                self._table.failed(contact.peer, trio.current_time())
                lookup.failed(contact.peer)
            else:
                lookup.answered(contact.peer, _heard(answer.reply.nodes, answer.reach))
            progress.set()

        with trio.move_on_after(SEARCH_LIMIT_S):
            async with trio.open_nursery() as nursery:
                while not lookup.done:
                    for contact in lookup.ask():
                        nursery.start_soon(ask, contact)
                    progress = trio.Event()
                    await progress.wait()
        return lookup.closest(), told

    def _begin_with(self, point: bytes) -> list[Contact]:
        known = self._table.closest(point)
        if len(known) < K:
            known += [one for peer, one in self._seeds.items() if peer not in self._table]
            known += self._table.silent(point)
        return known

    def _serves(self) -> tuple[str, ...]:
        return self._served_at()[: limits.CONTACT_ADDRESSES]

    async def _ask(self, lines: _Lines, contact: Contact, request: Request) -> _Answer | None:
        """The answer of a node; None if there is none."""
        async with self._asks:
            try:
                with trio.fail_after(ASK_LIMIT_S):
                    answer = await self._exchange(lines, contact, request)
            except Exception as error:
                log.debug("%s does not answer: %r", short_peer(contact.peer), error)
                self._table.failed(contact.peer, trio.current_time())
                return None
        self._table.answered(contact, trio.current_time())
        return answer

    async def _exchange(self, lines: _Lines, contact: Contact, request: Request) -> _Answer:
        carrier = await lines.to(contact)
        try:
            return await _exchange(carrier, request)
        except trio.BrokenResourceError:
            if not carrier.closed:
                raise
        # It was the other end's, which had no more use for it.
        return await _exchange(await lines.to(contact), request)

    # --- looking after the table ------------------------------------------------------------------

    async def run(self) -> None:
        """Get to know nodes, and see who of them is still there, for ever."""
        while True:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._refresh)
                    nursery.start_soon(self._meet)
            except* Exception:
                log.exception("the DHT failed; it goes on in %.0f s", RESTART_S)
            await trio.sleep(RESTART_S)

    async def _refresh(self) -> None:
        """Search around oneself until there are contacts, then anywhere; ask the silent ones."""
        delay = JOIN_DELAY_S
        while True:
            self._added = trio.Event()
            self._board.expire(self._clock())
            joining = self.size < K
            async with _lines(self._dial) as lines:
                await self._search(lines, node_point(self._own) if joining else os.urandom(32))
                stale = self._table.stalest(trio.current_time() - REFRESH_S)
                if stale is not None:
                    await self._ask(lines, stale, self._find_self())
            with trio.move_on_after(delay if joining else REFRESH_S) as waited:
                await self._added.wait()
            delay = min(2 * delay, REFRESH_S) if waited.cancelled_caught else JOIN_DELAY_S

    async def _meet(self) -> None:
        """Ask those who have said that they serve; whoever answers is a contact."""
        while True:
            knocked = await self._desk.knocked(MET_AT_ONCE)
            async with _lines(self._dial) as lines, trio.open_nursery() as nursery:
                for contact in knocked:
                    nursery.start_soon(self._ask, lines, contact, self._find_self())
            await trio.sleep(MEET_DELAY_S)

    def _find_self(self) -> Find:
        return Find(node_point(self._own), self._serves())

    async def serve(self, wire: Wire) -> None:
        """Answer the question that a peer asks on ``wire``."""
        await self._desk.serve(wire)


class _Lines:
    """The connections that one piece of work uses, each of them to its end."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._held: list[Carrier] = []
        self._latest: dict[PeerId, Carrier] = {}

    async def to(self, contact: Contact) -> Carrier:
        """The connection to ``contact``. Raises whatever dialling raises."""
        carrier = self._latest.get(contact.peer)
        if carrier is None or carrier.closed:
            carrier = await self._dial(contact.peer, contact.addresses)
            carrier.hold()
            self._held.append(carrier)
            self._latest[contact.peer] = carrier
        return carrier

    def hang_up(self) -> list[Carrier]:
        """Let go of all; those that were made for this, and that nobody else needs."""
        for carrier in self._held:
            carrier.release()
        unused = {id(one): one for one in self._held if one.dialled and not one.held}
        return list(unused.values())


@contextlib.asynccontextmanager
async def _lines(dial: Dial) -> AsyncIterator[_Lines]:
    lines = _Lines(dial)
    try:
        yield lines
    finally:
        unused = lines.hang_up()
    # A node has room for few connections that nobody there has asked for.
    async with trio.open_nursery() as nursery:
        for carrier in unused:
            nursery.start_soon(carrier.close)


@dataclass(frozen=True, slots=True)
class _Answer:
    reply: Reply
    reach: int


async def _exchange(carrier: Carrier, request: Request) -> _Answer:
    """Ask on a fresh stream.

    Raises:
        trio.BrokenResourceError: the stream was cut.
        ProtocolError: this is no answer.
    """
    wire = await carrier.open(PROTOCOL_ID)
    try:
        await wire.write(encode_frame(encode(request)))
        data = await read_frame(wire, REPLY_BYTES)
    finally:
        with shielded(CLOSE_LIMIT_S):
            await wire.reset()
    reply: Reply = decode(data, Reply, REPLY_BYTES)  # type: ignore[arg-type]
    return _Answer(reply, reach_of(carrier.address))


def _heard(nodes: Iterable[Named], reach: int) -> list[Contact]:
    contacts = (heard_contact(PeerId(one.peer), one.addresses, reach) for one in nodes)
    return [one for one in contacts if one is not None]


def _verified(
    statements: Iterable[bytes], point: bytes, now: float, seen: dict[bytes, Stated]
) -> list[Stated]:
    """What ``statements`` say that is fresh; the clocks of two nodes may differ on that.

    Args:
        seen: what was verified before, by its bytes; grows.

    Raises:
        ProtocolError: one is forged, or does not belong to ``point``.
    """
    fresh = []
    for data in statements:
        stated = seen.get(data)
        if stated is None:
            stated = seen[data] = read(data)
        statement = stated.statement
        if not isinstance(statement, Presence):
            raise RefusedError("It passes on that somebody left.")
        if point not in (node_point(stated.peer), swarm_point(statement.swarm)):
            raise RefusedError("It passes on what was not asked for.")
        with contextlib.suppress(RefusedError):
            check_time(statement, now)
            fresh.append(stated)
    return fresh


def _is_later(one: Stated, known: Stated | None) -> bool:
    if known is None:
        return True
    assert isinstance(one.statement, Presence)
    assert isinstance(known.statement, Presence)
    return order(one.statement) > order(known.statement)
