"""The links there are: at most one to each peer, and how a stream becomes one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Container

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
from node.mesh.link import CLOSE_LIMIT_S, Leg, LiveLink, leave, shielded
from node.mesh.reach import is_local
from node.mesh.wire import Carrier, Wire
from protocol import limits
from protocol.errors import (
    MalformedIdError,
    SwarmError,
    UnreachableError,
    VersionMismatchError,
    WrongSwarmError,
)
from protocol.frames import FrameDecoder, Hello
from protocol.ids import PeerId, parse_peer, peer_text

log = logging.getLogger(__name__)


class LinkTable:
    """Greets on streams, carries links, and reports both to the inbox.

    Args:
        own: this node.
        hello: what this node says first on a connection.
        inbox: receives every event.
        noted: is told what each peer has said first.
        linked: is told of each link that comes up.

    Attributes:
        refusals: greetings that came to nothing, by reason.
        named: peers that the operator has named, of which no network has too many.
    """

    def __init__(
        self,
        own: PeerId,
        hello: Callable[[Carrier], Hello],
        inbox: Inbox,
        noted: Callable[[PeerId, Carrier, Hello], None],
        linked: Callable[[LiveLink], None],
    ) -> None:
        self._own = own
        self._hello = hello
        self._inbox = inbox
        self._noted = noted
        self._linked = linked
        self.refusals: Counter[str] = Counter()
        self.named: Container[PeerId] = ()
        self._reasons: dict[PeerId, str] = {}
        self._links: dict[PeerId, LiveLink] = {}
        self._admitted: dict[PeerId, Wire] = {}

    def links(self) -> list[Link]:
        """The peers connected now."""
        return [live.link for live in self._links.values()]

    def live(self) -> list[LiveLink]:
        """The links that stand."""
        return list(self._links.values())

    def get(self, peer: PeerId) -> LiveLink:
        """The link to ``peer``.

        Raises:
            UnreachableError: there is none.
        """
        live = self._links.get(peer)
        if live is None:
            raise UnreachableError(f"There is no connection to {peer_text(peer)}.")
        return live

    def why_not(self, peer: PeerId) -> str:
        """Why the last greeting with ``peer`` came to nothing; empty where that is not known."""
        return self._reasons.get(peer, "")

    def is_linked(self, peer: PeerId) -> bool:
        """Whether there is a link to ``peer``."""
        return peer in self._links

    def peer_on(self, carrier: Carrier) -> PeerId | None:
        """Whose link is on ``carrier``, if any is."""
        for live in self._links.values():
            if live.is_on(carrier):
                return live.peer
        return None

    async def until_down(self, peer: PeerId) -> bool:
        """Return once there is no link to ``peer``; whether there was one."""
        there_was = False
        while (live := self._links.get(peer)) is not None:
            there_was = True
            await live.gone.wait()
        return there_was

    async def serve(self, wire: Wire, address: str) -> bool:
        """Greet on ``wire`` and carry its link until it ends, or let a link move to it.

        Returns:
            whether there was a link.
        """
        peer: PeerId | None = None
        carrier = wire.carrier
        carrier.hold()
        settled = False
        try:
            peer = _remote_peer(wire)
            decoder = FrameDecoder()
            with trio.fail_after(GREETING_LIMIT_S):
                hello = await self._greet(wire, decoder, peer)
            self._noted(peer, carrier, hello)
            leg = Leg(wire, decoder, address, "relayed" if carrier.relayed else "direct")
            live = self._links.get(peer)
            if live is not None and _improves(live, hello, carrier):
                settled = True
                self._release(peer, wire)
                live.move(leg)
                await live.gone.wait()
            else:
                live = await self._settle(peer, leg, hello)
                settled = True
                await self._carry(live)
        except DuplicateLinkError as error:
            await say_goodbye(wire, error)
            return False
        except TurnedAwayError as error:
            if error.goodbye.code != DuplicateLinkError.code:
                self.refuse(peer, address, _known(error.goodbye.code), str(error))
            return False
        except SwarmError as error:
            self.refuse(peer, address, error.code, str(error))
            await say_goodbye(wire, error)
            return False
        except trio.TooSlowError:
            self.refuse(peer, address, "timeout", "The peer did not greet in time.")
            return False
        except trio.BrokenResourceError as error:
            log.debug("%s went away while greeting: %s", address, error)
            return False
        finally:
            self._release(peer, wire)
            # What became part of a link lets go of its streams together with it.
            if not settled:
                carrier.release()
                with shielded(CLOSE_LIMIT_S):
                    await leave(wire)
        return True

    async def _greet(self, wire: Wire, decoder: FrameDecoder, peer: PeerId) -> Hello:
        if peer == self._own:
            raise DuplicateLinkError("This is the node itself.")

        def admit(hello: Hello) -> None:
            live = self._links.get(peer)
            # A peer that restarted has lost the old link, though its end was not seen here yet.
            if (
                live is not None
                and live.session == hello.session
                and not _improves(live, hello, wire.carrier)
            ):
                raise DuplicateLinkError("There is a connection to this peer.")
            self._check_room(peer, wire.carrier)
            self._admitted[peer] = wire

        hello = self._hello(wire.carrier)
        if self._own < peer:
            return await greet(wire, decoder, hello, admit)
        # Even with a link standing: if it is dead, the other side knows, and answers.
        self._check_room(peer, wire.carrier)
        return await greet(wire, decoder, hello, None)

    def _check_room(self, peer: PeerId, carrier: Carrier) -> None:
        if peer in self._admitted:
            raise DuplicateLinkError("Another connection to this peer is just being made.")
        if peer not in self._links and len(self._links) + len(self._admitted) >= limits.PEERS:
            raise CrowdedError(f"This node has {limits.PEERS} connections and takes no more.")
        network = _network(carrier)
        if peer not in self._links and network and peer not in self.named:
            alike = sum(_network(live.wire.carrier) == network for live in self._links.values())
            if alike >= limits.LINKS_PER_NETWORK:
                raise CrowdedError(f"This node has {alike} connections from {network}.")
        live = self._links.get(peer)
        moves = live is not None and live.relayed and not carrier.relayed
        # A link that moves waits for room as before; a new one would add to what waits.
        if not moves and not self._inbox.has_room(peer):
            raise CrowdedError("Earlier messages of this peer are not read yet.")

    async def _settle(self, peer: PeerId, leg: Leg, hello: Hello) -> LiveLink:
        """A link on ``leg``, once an older one to the same peer has ended."""
        while (old := self._links.get(peer)) is not None:
            old.close("the peer connected anew")
            await old.gone.wait()
        live = self._links[peer] = LiveLink(peer, hello.agent, leg, self._inbox, hello.session)
        self._release(peer, leg.wire)
        return live

    async def _carry(self, live: LiveLink) -> None:
        self._inbox.put(live.peer, PeerUp(live.link))
        self._linked(live)
        reason, fault = "this node's mesh stopped", None
        try:
            reason, fault = await live.run()
        finally:
            del self._links[live.peer]
            self._inbox.put(live.peer, PeerDown(live.peer, reason))
            if fault is not None:
                self.refuse(live.peer, live.link.address, fault.code, str(fault))
            live.gone.set()
            with shielded(CLOSE_LIMIT_S):
                await live.leave()

    def _release(self, peer: PeerId | None, wire: Wire) -> None:
        """Forget that ``wire`` was about to become a link."""
        if peer is not None and self._admitted.get(peer) is wire:
            del self._admitted[peer]

    def refuse(self, peer: PeerId | None, address: str, code: str, reason: str) -> None:
        """Count a connection that became no link, and tell of it."""
        self.refusals[code] += 1
        if peer is not None:
            self._reasons.pop(peer, None)
            self._reasons[peer] = reason
            while len(self._reasons) > limits.PEERS:
                del self._reasons[next(iter(self._reasons))]
        self._inbox.refuse(Refused(peer, address, code, reason))


def _network(carrier: Carrier) -> str:
    """The network of the peer; empty for a local one, where all are, and for a circuit."""
    address = carrier.address
    if address is None or carrier.relayed or is_local(address):
        return ""
    return address.network()


def _known(code: str) -> str:
    """The code of a goodbye, if it is one of ours: a peer can make up others without end."""
    ours = (WrongSwarmError.code, VersionMismatchError.code, CrowdedError.code)
    return code if code in ours else TurnedAwayError.code


def _improves(live: LiveLink, hello: Hello, carrier: Carrier) -> bool:
    """Whether a link that stands is better off on ``carrier``; both sides see the same."""
    return live.session == hello.session and live.relayed and not carrier.relayed


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
