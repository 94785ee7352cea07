"""A mesh without its transport: queues, links, dialling, and the events they make."""

from __future__ import annotations

import contextlib
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

import trio

from node.mesh import dial
from node.mesh.address import Address, parse_dialable
from node.mesh.base import Link, MeshEvent, Received
from node.mesh.inbox import Inbox
from node.mesh.table import LinkTable
from node.mesh.wire import Wire
from protocol import limits
from protocol.errors import (
    BackpressureError,
    ConfigError,
    ProtocolError,
    TooLargeError,
    UnreachableError,
)
from protocol.frames import PREFIX_BYTES, Hello, decode_greeting, encode_greeting
from protocol.ids import PeerId

DIAL_LIMIT_S: Final = 8.0
"""A dial with its handshakes: a listener that accepts and stays silent costs this long."""

log = logging.getLogger(__name__)


class Peering(ABC):
    """What two transports have in common; see :class:`node.mesh.base.Mesh` for the methods.

    Args:
        own: this node.
        hello: what it says first.
        bootstraps: multiaddrs with ``/p2p/ID`` that are dialled, and redialled, for ever.
        rng: for the jitter of redialling.

    Raises:
        ConfigError: an address is malformed, or a name does not fit into a greeting.
    """

    def __init__(
        self, own: PeerId, hello: Hello, bootstraps: Sequence[str], rng: random.Random
    ) -> None:
        try:
            decode_greeting(encode_greeting(hello)[PREFIX_BYTES:])
        except ProtocolError as error:
            raise ConfigError(f"The name of the swarm or of the agent: {error}") from error
        self._own = own
        self._hello = hello
        self._inbox = Inbox()
        self._table = LinkTable(own, hello, self._inbox)
        self._dialler = dial.Dialler(self._dial, self._table.until_down, rng)
        self._dials = trio.CapacityLimiter(dial.DIALS_AT_ONCE)
        for text in bootstraps:
            address = parse_dialable(text)
            if address.peer != own:
                self._dialler.want(address)

    @abstractmethod
    async def _connect(self, address: Address) -> Wire:
        """A fresh stream to the peer that ``address`` names, or any exception."""

    @property
    def peer_id(self) -> PeerId:
        """Oneself."""
        return self._own

    def links(self) -> tuple[Link, ...]:
        """The peers connected now, and oneself, sorted by peer id."""
        own = Link(self._own, "loopback", "self", self._hello.agent)
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

    async def next_event(self) -> MeshEvent:
        """The next thing that happened, taking the peers in turn. One consumer."""
        return await self._inbox.get()

    def dial(self, address: str) -> None:
        """Connect to the peer at ``address``, and again when the connection is lost."""
        target = parse_dialable(address)
        if target.peer != self._own:
            self._dialler.want(target, dial.TRIES)

    def disconnect(self, peer: PeerId, reason: str) -> None:
        """End the link to ``peer``, if there is one; ``PeerDown`` follows."""
        with contextlib.suppress(UnreachableError):
            self._table.get(peer).close(reason)

    async def _dial(self, address: Address) -> bool:
        """Connect to ``address`` and serve the link until its end.

        Returns:
            whether there was a link.
        """
        try:
            async with self._dials:
                with trio.fail_after(DIAL_LIMIT_S):
                    wire = await self._connect(address)
        except Exception as error:
            log.info("cannot dial %s: %s", address, str(error) or type(error).__name__)
            return False
        try:
            return await self._table.serve(wire, str(address))
        except Exception:
            log.exception("the link to %s failed", address)
            return False
