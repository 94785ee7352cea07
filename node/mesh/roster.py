"""What this node states of itself, and the exchange of statements with its peers.

A new statement of one's own goes to every linked peer at once. What others state travels by
exchange: with each peer when a link comes up, and now and then with one at random; two peers that
know the same say so in 32 bytes.
"""

from __future__ import annotations

import functools
import logging
import random
import time
from collections.abc import Callable, Iterable
from typing import Annotated, Final

import msgspec
import trio

from node.mesh.address import Address
from node.mesh.calls import Calls
from node.mesh.ration import Ration
from protocol import limits
from protocol.codec import decode, encode
from protocol.envelope import Signer
from protocol.errors import MeshError, ProtocolError, RefusedError
from protocol.ids import PeerId, short_peer
from protocol.presence import PRESENCE_S, Leave, Presence, Stated, Statement, read, state
from swarm.membership import Membership

EXCHANGE: Final = "exchange"
STATE: Final = "state"
EXCHANGE_EVERY_S: Final = 60.0
SOON_S: Final = 2.0
"""Until an exchange where a member is heard of that is not linked: how it is reached may have
changed, and it tells those alone that are. If it stays apart, the pauses grow."""
SETTLE_S: Final = 0.2
REFRESH_S: Final = PRESENCE_S / 3
"""After so long a statement that nothing has changed is made anew."""
CALL_LIMIT_S: Final = 10.0
LEAVE_LIMIT_S: Final = 1.0
STATEMENTS_AT_ONCE: Final = 512
"""Statements of one peer that are verified at once."""
STATEMENTS_PER_S: Final = 16.0
EXCHANGES_AT_ONCE: Final = 16
EXCHANGES_PER_S: Final = 0.5
"""Exchanges of one peer that are answered: each looks at everybody who is known."""
SPLIT: Final = 2
"""Strangers that a new peer has to know, at least, to come from another part of the swarm."""

log = logging.getLogger(__name__)

_read: Final = functools.lru_cache(limits.MEMBERS)(read)
"""Every peer tells of everybody: the same bytes, whose signature need not be checked each time."""

_Statement = Annotated[bytes, msgspec.Meta(max_length=limits.PRESENCE_BYTES)]
_Statements = Annotated[tuple[_Statement, ...], msgspec.Meta(max_length=limits.PRESENCES)]


class Exchange(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A request and a reply: what the sender says of itself, and the digest of what it knows.

    Attributes:
        own: the sender's Presence.
        known: digest over all statements that the sender holds, its own among them.
        statements: some of them, in a reply to another digest.
        now_ms: the sender's clock, Unix time in milliseconds.
    """

    own: _Statement
    known: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    statements: _Statements
    now_ms: Annotated[int, msgspec.Meta(ge=0, le=2**52)]


class States(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Statements that the receiver may not know."""

    statements: _Statements


class Roster:
    """Args:
    signer: signs what this node states.
    swarm: its name.
    membership: keeps what others state.
    calls: the way to linked peers.
    linked: the peers linked now.
    facts: the addresses, whether this node relays, and its NAT, as in a Presence.
    heard: called with each peer of whom something new was stated, and whether it said so itself.
    rng: whom to exchange with.
    clock: Unix time in seconds.

    Attributes:
        skews: seconds by which each linked peer's clock is ahead of ours.
        merges: how often a new peer brought a part of the swarm that was not known here.
    """

    def __init__(
        self,
        signer: Signer,
        swarm: str,
        membership: Membership,
        calls: Calls,
        linked: Callable[[], list[PeerId]],
        facts: Callable[[], tuple[tuple[Address, ...], bool, str]],
        heard: Callable[[PeerId, bool], None],
        rng: random.Random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._signer = signer
        self._swarm = swarm
        self._membership = membership
        self._calls = calls
        self._linked = linked
        self._facts = facts
        self._heard = heard
        self._rng = rng
        self._clock = clock
        self._incarnation = 0
        self._serial = 0
        self._own: Stated | None = None
        self._facts_changed = trio.Event()
        self._apart = trio.Event()
        # A signature takes us longer to check than it to invent.
        self._statements = Ration(STATEMENTS_AT_ONCE, STATEMENTS_PER_S)
        self._exchanges = Ration(EXCHANGES_AT_ONCE, EXCHANGES_PER_S)
        self.skews: dict[PeerId, float] = {}
        self.merges = 0
        calls.answers[EXCHANGE] = self._answer_exchange
        calls.answers[STATE] = self._answer_state

    def own(self) -> Stated:
        """What this node states now; signed anew where that has changed, or grows old."""
        self._incarnation = self._incarnation or round(1000 * self._clock())
        addresses, relay, nat = self._facts()
        texts = tuple(map(str, addresses[: limits.ADDRESSES]))
        now = int(self._clock())
        if self._own is not None:
            last = self._own.statement
            assert isinstance(last, Presence)
            if (last.addresses, last.relay, last.nat) == (
                texts,
                relay,
                nat,
            ) and 0 <= now - last.issued_at < REFRESH_S:
                return self._own
            self._serial += 1
        presence = Presence(self._swarm, self._incarnation, self._serial, now, texts, relay, nat)
        self._own = state(self._signer, presence)
        return self._own

    async def run(self) -> None:
        """Tell what changes, and exchange what is known, until cancelled."""
        told = self.own()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._mingle)
            while True:
                with trio.move_on_after(REFRESH_S):
                    await self._facts_changed.wait()
                # What changes together is told together.
                await trio.sleep(SETTLE_S)
                self._facts_changed = trio.Event()
                own = self.own()
                if own is not told:
                    told = own
                    for peer in self._linked():
                        nursery.start_soon(self._tell, peer, (own.envelope,))

    def changed(self) -> None:
        """The facts may not be what they were."""
        self._facts_changed.set()

    async def welcome(self, peer: PeerId) -> None:
        """Exchange all there is to say with a peer that has just been linked."""
        before = self._membership.present(self._clock()).keys() - {peer}
        told = await self._exchange(peer) - {peer, self._signer.peer}
        strangers = told - before
        if before and len(strangers) >= SPLIT and not told & before:
            self.merges += 1
            log.warning(
                "%s knows %d peers that nobody here knew: two parts of the swarm have met",
                short_peer(peer), len(strangers),
            )  # fmt: skip

    def leave(self) -> Stated:
        """What this node states when it goes."""
        leave = Leave(self._swarm, self._incarnation, int(self._clock()))
        return state(self._signer, leave)

    async def say_leave(self) -> None:
        """Tell every linked peer that this node goes."""
        envelope = self.leave().envelope
        with trio.move_on_after(LEAVE_LIMIT_S):
            async with trio.open_nursery() as nursery:
                for peer in self._linked():
                    nursery.start_soon(self._tell, peer, (envelope,))

    def hear(self, envelopes: Iterable[bytes], source: PeerId | None) -> set[PeerId]:
        """Take statements that a peer, or some store, passes on; what does not hold is left out.

        Args:
            source: the linked peer they come from; None for one's own disk, the DHT or the like.

        Returns:
            of whom they tell.
        """
        told: set[PeerId] = set()
        now = self._clock()
        for envelope in envelopes:
            if source is not None and not self._statements.take(source, trio.current_time()):
                log.info("%s passes on too many statements", short_peer(source))
                break
            try:
                stated = _read(envelope)
                new = self._membership.hear(stated, now, stated.peer == source)
            except ProtocolError as error:
                log.debug("a statement is left out: %s", error)
                continue
            told.add(stated.peer)
            if stated.peer == self._signer.peer:
                self._outlive(stated.statement)
            if new:
                self._heard(stated.peer, stated.peer == source)
                if stated.peer not in self._linked():
                    self._apart.set()
        return told

    def _outlive(self, past: Statement) -> None:
        """Begin a later run than one of which others hold a word, as after a clock was set."""
        own = self._incarnation
        if past.incarnation > own or (past.incarnation == own and isinstance(past, Leave)):
            self._incarnation = past.incarnation + 1
            self._own = None
            self.changed()

    # --- calls ----------------------------------------------------------------------------------

    async def _mingle(self) -> None:
        pause = EXCHANGE_EVERY_S
        while True:
            with trio.move_on_after(pause * self._rng.uniform(0.5, 1.5)) as waited:
                await self._apart.wait()
                pause = SOON_S
                await trio.sleep(SOON_S)
            self._apart = trio.Event()
            peers = self._linked()
            apart = self._membership.present(self._clock()).keys() - set(peers)
            for gone in self.skews.keys() - set(peers):
                del self.skews[gone]
            if peers and (apart or waited.cancelled_caught):
                await self._exchange(self._rng.choice(peers))
            pause = min(2 * pause, EXCHANGE_EVERY_S) if apart else EXCHANGE_EVERY_S

    async def _exchange(self, peer: PeerId) -> set[PeerId]:
        """Learn what ``peer`` knows and tell it what it does not; of whom it told."""
        began = self._clock()
        ask = Exchange(self.own().envelope, self._known(), (), round(1000 * began))
        try:
            body = await self._calls.call(peer, EXCHANGE, encode(ask), CALL_LIMIT_S)
            reply = decode(body, Exchange)
        except (MeshError, ProtocolError) as error:
            log.info("no exchange with %s: %s", short_peer(peer), error)
            return set()
        self.skews[peer] = reply.now_ms / 1000 - (began + self._clock()) / 2
        told = self.hear((reply.own, *reply.statements), peer)
        if reply.known != self._known():
            await self._tell(peer, self._sample())
        return told

    async def _answer_exchange(self, peer: PeerId, body: bytes) -> bytes:
        if not self._exchanges.take(peer, trio.current_time()):
            raise RefusedError("That is too often.")
        ask = decode(body, Exchange)
        self.hear((ask.own, *ask.statements), peer)
        self.skews[peer] = ask.now_ms / 1000 - self._clock()
        known = self._known()
        statements = () if known == ask.known else self._sample()
        now_ms = round(1000 * self._clock())
        return encode(Exchange(self.own().envelope, known, statements, now_ms))

    async def _answer_state(self, peer: PeerId, body: bytes) -> bytes:
        self.hear(decode(body, States).statements, peer)
        return b""

    async def _tell(self, peer: PeerId, statements: tuple[bytes, ...]) -> None:
        try:
            await self._calls.call(peer, STATE, encode(States(statements)), CALL_LIMIT_S)
        except (MeshError, ProtocolError) as error:
            log.info("no way to tell %s who is there: %s", short_peer(peer), error)

    def _sample(self) -> tuple[bytes, ...]:
        draw = self._rng.randbytes(16)
        sample = self._membership.sample(limits.PRESENCES, self._clock(), draw)
        return tuple(one.envelope for one in sample)

    def _known(self) -> bytes:
        """A digest over what is known: the same wherever the same is known."""
        return self._membership.digest(self.own(), self._clock())
