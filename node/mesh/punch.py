"""Holes through two NATs: both sides dial each other at the same moment (DCUtR over TCP).

The wire protocol is that of https://github.com/libp2p/specs/blob/master/relay/DCUtR.md. Whoever
accepted the relayed connection begins: it learns the other's addresses, says when to dial, and is
the responder in the handshake of what comes about; who made the relayed connection is initiator.

Two dials that cross are one TCP connection. But either may also reach the other's listener, and
with several addresses there may be several connections, of which both sides must keep the same one.
So the initiator speaks on one after the other, and has the next only if the last came to nothing;
the responder waits on all. Only one can be completed, and both know which.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import trio
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch

from node.mesh.address import Address
from node.mesh.harden import Network
from node.mesh.link import CLOSE_LIMIT_S, shielded
from node.mesh.proto import (
    HANDSHAKE_LIMIT_S,
    from_multiaddr,
    read_message,
    to_multiaddr,
    write_message,
)
from node.mesh.reach import is_local
from node.mesh.wire import Carrier, Wire
from protocol import limits
from protocol.errors import ProtocolError, PunchError
from protocol.ids import PeerId, parse_peer

PROTOCOL_ID: Final = "/libp2p/dcutr"

TRIES: Final = 3
TRY_LIMIT_S: Final = 4.0
"""One try. The kernel sends a SYN at once, after 1 s and after 3 s."""
PAUSE_S: Final = 0.25
"""Between tries, so that the other side has ended the last one as well."""
SHAKE_LIMIT_S: Final = 2.0
"""One handshake, where another TCP connection may wait for its turn."""
REDIAL_S: Final = 0.02
"""Until the first redial of an address that refuses, about twice as long each time: a router that
had no hole yet may have answered for the peer. Were it the same on both sides, dials that miss each
other by a little would go on doing so."""

log = logging.getLogger(__name__)

Connect = Callable[[Address], Awaitable[trio.SocketStream]]
Upgrade = Callable[[trio.SocketStream, PeerId, bool], Awaitable[Carrier]]


class Puncher:
    """Makes direct connections beside relayed ones.

    Args:
        network: hands over TCP connections, and tells of connections, that others make.
        connect: dials an address from the listening port and no other; raises OSError.
        upgrade: shakes hands on a TCP connection with the peer that has to prove itself, as
            initiator or not; raises anything, the TCP connection then being closed.
        addresses: where this node's listening port is seen, the likeliest first.
        punched: takes the connections of which the other side was the first to know.
        rng: when to dial again.

    Attributes:
        refused: how many requests of others came to nothing, by reason.
    """

    def __init__(
        self,
        network: Network,
        connect: Connect,
        upgrade: Upgrade,
        addresses: Callable[[], Sequence[Address]],
        punched: Callable[[Carrier], Awaitable[None]],
        rng: random.Random,
    ) -> None:
        self.refused: Counter[str] = Counter()
        self._network = network
        self._connect = connect
        self._upgrade = upgrade
        self._addresses = addresses
        self._punched = punched
        self._rng = rng
        self._busy: set[str] = set()

    async def punch(self, relayed: Carrier) -> Carrier:
        """A direct connection to the peer that made ``relayed``.

        Raises:
            PunchError: none came about.
        """
        if not relayed.relayed or relayed.dialled:
            raise PunchError("Only who accepted a relayed connection begins.")
        try:
            with self._slot(relayed.peer), self._awaiting(relayed.peer) as meeting:
                for _ in range(TRIES):
                    await self._begin(relayed, meeting)
                    await trio.sleep(PAUSE_S)
        except (ProtocolError, trio.BrokenResourceError) as error:
            raise PunchError(f"The peer did not take part: {error}.") from error
        except trio.TooSlowError as error:
            raise PunchError("The peer did not take part in time.") from error
        if meeting.carrier is None:
            raise PunchError(f"{TRIES} tries, and nothing came through.")
        return meeting.carrier

    async def serve(self, wire: Wire) -> None:
        """Serve a stream on which the peer that accepted a relayed connection begins."""
        carrier: Carrier | None = None
        try:
            with self._slot(wire.peer):
                carrier = await self._follow(wire)
        except PunchError as error:
            self.refused["punch"] += 1
            log.debug("no hole towards %s: %s", wire.peer, error)
        except ProtocolError as error:
            self.refused["malformed"] += 1
            log.debug("%s punches no hole: %s", wire.peer, error)
        except (trio.BrokenResourceError, trio.TooSlowError):
            self.refused["silent"] += 1
        finally:
            with shielded(CLOSE_LIMIT_S):
                await wire.reset()
        if carrier is not None:
            await self._punched(carrier)

    @contextlib.contextmanager
    def _slot(self, peer: str) -> Iterator[None]:
        """One of the holes punched at once, and one for each peer.

        Raises:
            PunchError: there is none.
        """
        if peer in self._busy:
            raise PunchError("A hole towards this peer is being punched already.")
        if len(self._busy) >= limits.PUNCHES:
            raise PunchError(f"{len(self._busy)} holes are being punched already.")
        self._busy.add(peer)
        try:
            yield
        finally:
            self._busy.remove(peer)

    @contextlib.contextmanager
    def _awaiting(self, peer: str) -> Iterator[_Meeting]:
        """A meeting as the responder, at which any connection that the peer makes is welcome."""
        meeting = self._meeting(parse_peer(peer), initiator=False)
        self._network.awaited[peer] = meeting.found
        try:
            with meeting.scope:
                yield meeting
        finally:
            del self._network.awaited[peer]

    def _meeting(self, peer: PeerId, initiator: bool) -> _Meeting:
        return _Meeting(self._connect, self._upgrade, self._rng, peer, initiator)

    async def _begin(self, relayed: Carrier, meeting: _Meeting) -> None:
        """One try, from the side that says when."""
        wire = await relayed.open(PROTOCOL_ID)
        try:
            with trio.fail_after(HANDSHAKE_LIMIT_S):
                began = trio.current_time()
                await write_message(wire, self._connect_message())
                candidates = self._candidates(await _expect(wire, HolePunch.CONNECT))
                rtt_s = trio.current_time() - began
                await write_message(wire, HolePunch(type=HolePunch.SYNC))
            # By then the peer has read it, and dials as well.
            await trio.sleep(rtt_s / 2)
            await meeting.dial(candidates)
        finally:
            with shielded(CLOSE_LIMIT_S):
                await wire.reset()

    async def _follow(self, wire: Wire) -> Carrier | None:
        """One try, from the side that is told when."""
        if not wire.carrier.relayed:
            raise PunchError("No relay is in between.")
        meeting = self._meeting(parse_peer(wire.peer), initiator=True)
        with trio.fail_after(HANDSHAKE_LIMIT_S):
            candidates = self._candidates(await _expect(wire, HolePunch.CONNECT))
        with self._expecting(candidates, meeting):
            with trio.fail_after(HANDSHAKE_LIMIT_S):
                await write_message(wire, self._connect_message())
                await _expect(wire, HolePunch.SYNC)
            with meeting.scope:
                await meeting.dial(candidates)
        return meeting.carrier

    @contextlib.contextmanager
    def _expecting(self, candidates: Iterable[Address], meeting: _Meeting) -> Iterator[None]:
        """Have the TCP connections that ``candidates`` make brought to ``meeting``.

        Nothing has been said on them, and a listener would wait for the other side to begin. The
        peer may dial before its word that it is time is read here.
        """
        taken = {one.socket for one in candidates} - self._network.punching.keys()
        self._network.punching.update(dict.fromkeys(taken, meeting.accept))
        try:
            yield
        finally:
            for socket in taken:
                del self._network.punching[socket]
            meeting.over.set()

    # --- addresses ------------------------------------------------------------------------------

    def _own(self) -> list[Address]:
        """Where a hole to this node can be: outside, unless there is no outside."""
        own = [one for one in self._addresses() if one.relay is None and one.ip() is not None]
        return [one for one in own if not is_local(one)] or own

    def _connect_message(self) -> Any:
        own = self._own()[: limits.CANDIDATES]
        return HolePunch(type=HolePunch.CONNECT, ObsAddrs=[to_multiaddr(one.bare()) for one in own])

    def _candidates(self, message: Any) -> list[Address]:
        """The addresses of a peer that are dialled.

        Raises:
            PunchError: there are none.
        """
        own = self._own()
        sockets = {one.socket for one in own}
        found: dict[Address, None] = {}
        for data in itertools.islice(message.ObsAddrs, 4 * limits.CANDIDATES):
            address = from_multiaddr(data)
            if address is None or address.relay is not None or not address.port:
                continue
            if _may_dial(address, own) and address.socket not in sockets:
                found[address.bare()] = None
        if not found:
            raise PunchError("The peer names no address that can be dialled from here.")
        return list(found)[: limits.CANDIDATES]


def _may_dial(address: Address, own: Sequence[Address]) -> bool:
    """Whether a stranger may have this node, which is seen at ``own``, dial ``address``.

    A node with an address outside dials nothing inside: nobody shall have it knock at the doors of
    its own network.
    """
    ip = address.ip()
    if ip is None or ip.is_multicast or ip.is_unspecified or ip.is_reserved or ip.is_link_local:
        return False
    if ip.is_loopback:
        return any(mine is not None and mine.is_loopback for mine in (one.ip() for one in own))
    return not is_local(address) or all(map(is_local, own))


class _Meeting:
    """Where TCP connections with one peer, made and accepted, become one connection with it.

    Attributes:
        carrier: the connection, once there is one.
        scope: cancelled as soon as there is one.
        over: set by the owner when no more comes of it.
    """

    def __init__(
        self,
        connect: Connect,
        upgrade: Upgrade,
        rng: random.Random,
        peer: PeerId,
        initiator: bool,
    ) -> None:
        self.carrier: Carrier | None = None
        self.scope = trio.CancelScope()
        self.over = trio.Event()
        self._connect = connect
        self._upgrade = upgrade
        self._rng = rng
        self._peer = peer
        self._initiator = initiator
        self._turn = trio.Semaphore(1 if initiator else 2 * limits.CANDIDATES)
        self._stream: trio.SocketStream | None = None
        self._guests: list[trio.SocketStream] = []
        self._nursery: trio.Nursery | None = None

    def found(self, carrier: Carrier) -> None:
        """There is a connection."""
        if self.carrier is None:
            self.carrier = carrier
            self.scope.cancel()

    async def dial(self, candidates: Iterable[Address]) -> None:
        """Try for ``TRY_LIMIT_S`` to reach any of ``candidates``, and to be reached."""
        with trio.move_on_after(TRY_LIMIT_S):
            try:
                async with trio.open_nursery() as self._nursery:
                    for candidate in candidates:
                        self._nursery.start_soon(self._dial, replace(candidate, peer=self._peer))
                    for stream in self._guests:
                        self._nursery.start_soon(self._shake, stream)
            finally:
                self._nursery = None

    async def accept(self, stream: trio.SocketStream) -> None:
        """Take part with a TCP connection that the peer has made; returns once it is done with."""
        if len(self._guests) >= limits.CANDIDATES:
            return
        self._guests.append(stream)
        if self._nursery is not None:
            self._nursery.start_soon(self._shake, stream)
        await self.over.wait()
        if self._stream is stream and self.carrier is not None:
            await self.carrier.wait_closed()

    async def _dial(self, candidate: Address) -> None:
        pause = REDIAL_S
        while True:
            try:
                stream = await self._connect(candidate)
            except OSError as error:
                log.debug("%s: %r", candidate, error)
                await trio.sleep(pause)
                pause *= self._rng.uniform(1.5, 2.5)
                continue
            await self._shake(stream)
            return

    async def _shake(self, stream: trio.SocketStream) -> None:
        """Make a connection of ``stream`` when it is its turn, unless there is one by then."""
        try:
            async with self._turn:
                if await self._connected(stream):
                    return
        except BaseException as error:
            await trio.aclose_forcefully(stream)
            if not isinstance(error, Exception):
                raise
            log.debug("no handshake through the hole: %r", error)
        else:
            await trio.aclose_forcefully(stream)

    async def _connected(self, stream: trio.SocketStream) -> bool:
        """Shake hands; whether that gave the connection that is kept."""
        with trio.fail_after(SHAKE_LIMIT_S if self._initiator else TRY_LIMIT_S):
            carrier = await self._upgrade(stream, self._peer, self._initiator)
        if self.carrier is not None:
            await carrier.close()
            return False
        self._stream = stream
        self.found(carrier)
        return True


async def _expect(wire: Wire, kind: int) -> Any:
    """The next message.

    Raises:
        PunchError: it is of another kind.
    """
    message = await read_message(wire, HolePunch)
    if message.type != kind:
        raise PunchError(f"The peer sent a message of type {message.type} where {kind} was due.")
    return message
