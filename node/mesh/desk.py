"""Where a node of the DHT answers what others ask it, within bounds."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import trio

from node.mesh.contacts import heard_contact, origin_of, reach_of, tellable
from node.mesh.link import CLOSE_LIMIT_S, shielded
from node.mesh.wire import Wire
from protocol import limits
from protocol.codec import decode, encode
from protocol.dht import REQUEST_BYTES, Declined, Find, Found, Named, Posted, Reply, Request
from protocol.errors import MalformedIdError, ProtocolError, RefusedError
from protocol.frames import PREFIX_BYTES, FrameDecoder, encode_frame
from protocol.ids import PeerId, parse_peer, short_peer
from protocol.presence import read
from swarm.kademlia import Contact, K, Table
from swarm.noticeboard import Noticeboard

SERVE_LIMIT_S: Final = 8.0
"""One question of a peer, until it has read the answer."""
SERVED_AT_ONCE: Final = 64
SERVED_PER_PEER: Final = 4
SERVED_PER_ORIGIN: Final = 16
"""Of them, for one network of the internet."""
KNOCKED: Final = 32
"""Peers that say that they serve, and wait to be tried."""

log = logging.getLogger(__name__)


class Desk:
    """The answers of this node.

    Args:
        table: whom it names.
        board: what it keeps.
        served_at: multiaddrs under which everybody can dial this node; none if it does not serve.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        table: Table,
        board: Noticeboard,
        served_at: Callable[[], tuple[str, ...]],
        clock: Callable[[], float],
    ) -> None:
        self._table = table
        self._board = board
        self._served_at = served_at
        self._clock = clock
        self._knocked: dict[PeerId, Contact] = {}
        self._knock = trio.Event()
        self._serving = 0
        self._serving_whom: Counter[bytes | str] = Counter()

    async def knocked(self, most: int) -> list[Contact]:
        """At most ``most`` of those who have asked, say that they serve, and fit into the table.

        Waits until there is somebody.
        """
        while not self._knocked:
            self._knock = trio.Event()
            await self._knock.wait()
        return [self._knocked.pop(peer) for peer in list(self._knocked)[:most]]

    async def serve(self, wire: Wire) -> None:
        """Answer the question that a peer asks on ``wire``."""
        with contextlib.suppress(MalformedIdError):
            peer = parse_peer(wire.peer)
            origin = origin_of(wire.carrier.address)
            if self._served_at() and self._has_room(peer, origin):
                self._serving += 1
                self._serving_whom.update((peer, origin))
                try:
                    with trio.move_on_after(SERVE_LIMIT_S):
                        await self._answer(peer, wire)
                finally:
                    self._serving -= 1
                    self._serving_whom -= Counter((peer, origin))
        with shielded(CLOSE_LIMIT_S):
            await wire.reset()

    def _has_room(self, peer: PeerId, origin: str) -> bool:
        """Whether to serve it now; nobody keeps all the others from being served."""
        return (
            self._serving < SERVED_AT_ONCE
            and self._serving_whom[peer] < SERVED_PER_PEER
            and (not origin or self._serving_whom[origin] < SERVED_PER_ORIGIN)
        )

    async def _answer(self, peer: PeerId, wire: Wire) -> None:
        try:
            data = await read_frame(wire, REQUEST_BYTES)
            request: Request = decode(data, Request, REQUEST_BYTES)  # type: ignore[arg-type]
            address = wire.carrier.address
            reply: Reply
            if isinstance(request, Find):
                reply = self._found(peer, request.key, reach_of(address))
            else:
                reply = self._post(peer, request.statement, origin_of(address))
            await wire.write(encode_frame(encode(reply)))
            await wire.end_writing()
            self._consider(peer, request.served_at, reach_of(address))
            # The peer ends the stream once it has read the answer.
            await wire.read(1)
        except trio.BrokenResourceError:
            pass
        except ProtocolError as error:
            log.debug("%s asks for nonsense: %s", short_peer(peer), error)

    def _found(self, peer: PeerId, key: bytes, reach: int) -> Found:
        named = [
            Named(one.peer, told)
            for one in self._table.closest(key, 2 * K)
            if one.peer != peer and (told := tellable(one.addresses, reach))
        ]
        kept = self._board.read(key, limits.NOTICES_TOLD, self._clock(), os.urandom(16))
        return Found(tuple(named[:K]), tuple(kept))

    def _post(self, peer: PeerId, statement: bytes, origin: str) -> Posted | Declined:
        try:
            stated = read(statement)
            if stated.peer != peer:
                raise RefusedError("It is about somebody else.")
            self._board.post(stated, origin, self._clock())
        except ProtocolError as error:
            return Declined(str(error)[: limits.TEXT_CHARS])
        return Posted()

    def _consider(self, peer: PeerId, served_at: Sequence[str], reach: int) -> None:
        """Remember to try ``peer``, if it says that it serves."""
        contact = heard_contact(peer, served_at, reach)
        if contact is not None and len(self._knocked) < KNOCKED and self._table.wants(contact):
            self._knocked[peer] = contact
            self._knock.set()


async def read_frame(wire: Wire, limit: int) -> bytes:
    """The first frame on ``wire``.

    Raises:
        trio.BrokenResourceError: the stream ended before.
        TooLargeError: it is longer than ``limit``.
    """
    decoder = FrameDecoder(limit)
    while data := await wire.read(limit + PREFIX_BYTES):
        frames = decoder.feed(data, most=1)
        if frames:
            return frames[0]
    raise trio.BrokenResourceError("the stream ended early")
