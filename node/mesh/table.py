"""The links there are: at most one to each peer, and how a stream becomes one."""

from __future__ import annotations

import logging

import trio

from node.mesh.base import Link, PeerDown, PeerUp, Refused
from node.mesh.greet import (
    GREETING_LIMIT_S,
    CrowdedError,
    DuplicateLinkError,
    TurnedAwayError,
    greet,
    say_goodbye,
)
from node.mesh.inbox import Inbox
from node.mesh.link import CLOSE_LIMIT_S, LiveLink, shielded
from node.mesh.wire import Wire
from protocol import limits
from protocol.errors import MalformedIdError, SwarmError, UnreachableError
from protocol.frames import FrameDecoder, Hello
from protocol.ids import PeerId, parse_peer, peer_text

log = logging.getLogger(__name__)


class LinkTable:
    """Greets on streams, carries links, and reports both to the inbox.

    Args:
        own: this node.
        hello: what this node says first.
        inbox: receives every event.
    """

    def __init__(self, own: PeerId, hello: Hello, inbox: Inbox) -> None:
        self._own = own
        self._hello = hello
        self._inbox = inbox
        self._links: dict[PeerId, LiveLink] = {}
        self._admitted: dict[PeerId, Wire] = {}

    def links(self) -> list[Link]:
        """The peers connected now."""
        return [live.link for live in self._links.values()]

    def get(self, peer: PeerId) -> LiveLink:
        """The link to ``peer``.

        Raises:
            UnreachableError: there is none.
        """
        live = self._links.get(peer)
        if live is None:
            raise UnreachableError(f"There is no connection to {peer_text(peer)}.")
        return live

    async def until_down(self, peer: PeerId) -> None:
        """Return once there is no link to ``peer``."""
        while (live := self._links.get(peer)) is not None:
            await live.gone.wait()

    async def serve(self, wire: Wire, address: str) -> bool:
        """Greet on ``wire`` and carry its link until it ends; then close the connection.

        Returns:
            whether there was a link.
        """
        peer: PeerId | None = None
        try:
            peer = _remote_peer(wire)
            decoder = FrameDecoder()
            with trio.fail_after(GREETING_LIMIT_S):
                hello = await self._greet(wire, decoder, peer)
            await self._carry(wire, decoder, Link(peer, address, "direct", hello.agent), hello)
        except DuplicateLinkError as error:
            await say_goodbye(wire, error)
            return False
        except TurnedAwayError as error:
            if error.goodbye.code != DuplicateLinkError.code:
                self._refuse(peer, address, error.goodbye.code, str(error))
            return False
        except SwarmError as error:
            self._refuse(peer, address, error.code, str(error))
            await say_goodbye(wire, error)
            return False
        except trio.TooSlowError:
            self._refuse(peer, address, "timeout", "The peer did not greet in time.")
            return False
        except trio.BrokenResourceError as error:
            log.debug("%s went away while greeting: %s", address, error)
            return False
        finally:
            self._release(peer, wire)
            with shielded(CLOSE_LIMIT_S):
                await self._close(wire)
        return True

    async def _greet(self, wire: Wire, decoder: FrameDecoder, peer: PeerId) -> Hello:
        if peer == self._own:
            raise DuplicateLinkError("This is the node itself.")

        def admit(hello: Hello) -> None:
            live = self._links.get(peer)
            # A peer that restarted has lost the old link, though its end was not seen here yet.
            if live is not None and live.session == hello.session:
                raise DuplicateLinkError("There is a connection to this peer.")
            self._check_room(peer)
            self._admitted[peer] = wire

        if self._own < peer:
            return await greet(wire, decoder, self._hello, admit)
        # Even with a link standing: if it is dead, the other side knows, and answers.
        self._check_room(peer)
        return await greet(wire, decoder, self._hello, None)

    def _check_room(self, peer: PeerId) -> None:
        if peer in self._admitted:
            raise DuplicateLinkError("Another connection to this peer is just being made.")
        if peer not in self._links and len(self._links) + len(self._admitted) >= limits.PEERS:
            raise CrowdedError(f"This node has {limits.PEERS} connections and takes no more.")
        if not self._inbox.has_room(peer):
            raise CrowdedError("Earlier messages of this peer are not read yet.")

    async def _carry(self, wire: Wire, decoder: FrameDecoder, link: Link, hello: Hello) -> None:
        peer = link.peer
        while (old := self._links.get(peer)) is not None:
            old.close("the peer connected anew")
            await old.gone.wait()
        live = self._links[peer] = LiveLink(link, wire, decoder, self._inbox, hello.session)
        self._release(peer, wire)
        wire.keep()
        self._inbox.put(peer, PeerUp(link))
        reason, fault = "this node's mesh stopped", None
        try:
            reason, fault = await live.run()
        finally:
            del self._links[peer]
            self._inbox.put(peer, PeerDown(peer, reason))
            if fault is not None:
                self._refuse(peer, link.address, fault.code, str(fault))
            live.gone.set()

    def _release(self, peer: PeerId | None, wire: Wire) -> None:
        """Forget that ``wire`` was about to become a link."""
        if peer is not None and self._admitted.get(peer) is wire:
            del self._admitted[peer]

    def _refuse(self, peer: PeerId | None, address: str, code: str, reason: str) -> None:
        self._inbox.refuse(Refused(peer, address, code, reason))

    async def _close(self, wire: Wire) -> None:
        """End the stream's connection, unless the link to that peer is on another stream of it."""
        if any(live.wire.connection is wire.connection for live in self._links.values()):
            await wire.reset()
        else:
            await wire.close()


def _remote_peer(wire: Wire) -> PeerId:
    """The peer that the transport has proven.

    Raises:
        MalformedIdError: its key is not an Ed25519 key.
    """
    text = wire.peer
    try:
        return parse_peer(text)
    except MalformedIdError as error:
        raise MalformedIdError(f"Peer {text} has no Ed25519 key.") from error
