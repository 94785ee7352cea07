"""Keeps this node's replica of all logs equal to everybody's.

What is new is handed on at once; what was missed is found by comparing with one random peer every
few seconds (epidemic push and anti-entropy, Demers et al. 1987). Everything that comes from outside
goes one way, :meth:`Replication.take`: its ticket is verified in a thread, it is taken by the
replica, noted for the disk, handed on, and read.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import trio

from node.mesh.base import Link, Mesh
from node.replication.database import LedgerDatabase
from node.replication.own import OwnLog
from node.replication.quota import Quota
from node.replication.stamping import Verifier
from protocol import limits, methods
from protocol import sync as wire
from protocol.codec import decode
from protocol.errors import (
    AdmissionError,
    BadSignatureError,
    BusyError,
    ClockError,
    DecodeError,
    ForkedError,
    ForkError,
    GapError,
    MeshError,
    ProofError,
    ProtocolError,
    QuotaError,
    StoreError,
    SwarmError,
    TicketError,
    TooLargeError,
    UpdateError,
)
from protocol.ids import PeerId, peer_text, short_peer
from protocol.ledger import Fork, Run, epoch_of, read_entry
from protocol.sync import NONCE_BYTES, PROOF
from swarm.ledger.fingerprint import summary
from swarm.ledger.parcel import Gift
from swarm.ledger.replica import Change, Name, Replica
from swarm.ledger.responder import Responder
from swarm.ledger.state import State, reading
from swarm.ledger.steps import Answer, Outcome, Pause, Request, Step, Take
from swarm.ledger.sync import Report, exchange, give, recall
from swarm.registry import origin

_log = logging.getLogger(__name__)
T = TypeVar("T")

METHOD: Final = "ledger"
SYNC_EVERY_S: Final = 10.0
"""Between two exchanges, half as much more or less."""
CALL_LIMIT_S: Final = 10.0
EXCHANGE_LIMIT_S: Final = 60.0
FANOUT: Final = 3
"""Peers to whom what others say is handed on; what one says oneself goes to everyone."""
FEW: Final = 16
"""Logs that are fetched together and still handed on."""
JOINED: Final = 2
"""Peers of different networks with whom a node compares all it holds when it has joined."""
JOIN_TRIES: Final = 3
"""Comparisons after which they do not hold the same."""
SLICE_S: Final = 0.002
"""Work between two looks at what else there is to do."""
READ_PAUSE_S: Final = 3 * SLICE_S
"""Between two slices of reading: where there is much, it is taken and kept first."""
ANSWERS_AT_ONCE: Final = 4
"""Requests that are worked on together, of all peers."""
EXPIRED_AT_ONCE: Final = 256
"""Logs given up between two looks at what else there is to do."""
GIVEN_AT_ONCE: Final = 64
"""Chains of which something is handed on together."""
GIVE_PAUSE_S: Final = 2 / limits.ENTRIES_PER_S
"""After each entry handed on: half as fast as a peer may be given to, however fast they come."""
GIVE_AGAIN_S: Final = 10.0
"""After something could not be handed on."""

_REQUEST: Final = cast("type[wire.AnyRequest]", wire.AnyRequest)
_FAULTS: Final = (
    BadSignatureError,
    DecodeError,
    ForkError,
    ProofError,
    TicketError,
    TooLargeError,
    UpdateError,
)
"""What no honest peer passes on, since it has checked it."""


@dataclass(frozen=True, slots=True)
class Join:
    """What a node found when it joined.

    Attributes:
        peers: with whom it has compared everything.
        agree: whether their roots were equal in the end; None until there were two.
    """

    peers: tuple[PeerId, ...] = ()
    agree: bool | None = None


class Replication:
    """Args:
        mesh: the way to other peers.
        replica: restored from ``database``.
        verifier: checks the tickets of others; the replica's admission.
        own: this node's own log.
        rng: whom to compare with, and to whom to hand on.
        clock: gives Unix time in seconds.

    Attributes:
        own: this node's own log.
        changed: called with each author of whom something else holds now, oneself included, and
            with what that is; None once nothing is held of it.
        refused: what was not taken, and requests not answered, by the code of the error.
        disconnected: peers cut off for it.
        exchanges: finished, begun by this node.
        last_exchange: Unix time in seconds of the last of them; 0 before the first.
    """

    def __init__(
        self,
        mesh: Mesh,
        replica: Replica,
        database: LedgerDatabase,
        verifier: Verifier,
        own: OwnLog,
        rng: random.Random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._mesh = mesh
        self._replica = replica
        self._database = database
        self._verifier = verifier
        self.own = own
        own.publish = self.note
        self._rng = rng
        self._clock = clock
        self._responder = Responder(replica, mesh.peer_id, rng.randbytes(32))
        self._quota = Quota()
        self._answering = trio.CapacityLimiter(ANSWERS_AT_ONCE)
        self._exchanging = trio.Lock()
        # What each peer is still to be given: of which chain, from which entry on.
        self._fresh: dict[PeerId, dict[Name, int]] = {}
        self._unread: dict[PeerId, None] = {}
        self._to_read = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._epoch = -1
        self._origins: dict[PeerId, str] = {}
        self.changed: Callable[[PeerId, State | None], None] = _nobody_reads
        self.join = Join()
        self._blamed: SwarmError | None = None
        self.refused: Counter[str] = Counter()
        self.disconnected = 0
        self.exchanges = 0
        self.last_exchange = 0.0
        for author in replica.authors():
            self._unread[author] = None
        mesh.answer(METHOD, self._answer)

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Replicate until cancelled; started once it follows who is linked."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            nursery.start_soon(self._database.run)
            nursery.start_soon(self.own.run)
            nursery.start_soon(self._read)
            nursery.start_soon(self._compare)
            try:
                await trio.sleep_forever()
            finally:
                # The mesh still answers, and what comes now goes no further.
                self._nursery = None

    # --- links ----------------------------------------------------------------------------------

    def linked(self, link: Link) -> None:
        """A peer is linked now."""
        if link.peer == self._mesh.peer_id or self._nursery is None:
            return
        self._origins[link.peer] = origin(link.address)
        self._nursery.start_soon(self._meet, link.peer)

    def unlinked(self, peer: PeerId) -> None:
        """A peer is not linked any more."""
        self._origins.pop(peer, None)
        self._fresh.pop(peer, None)
        if self._replica.dismiss(peer):
            self._read_later(peer)

    def _is_linked(self, peer: PeerId) -> bool:
        return any(link.peer == peer for link in self._mesh.links())

    def _peers(self) -> list[PeerId]:
        return sorted(self._origins)

    async def _meet(self, peer: PeerId) -> None:
        """Learn what a new peer knows of this node, tell it what this node says, and compare."""
        own = self._mesh.peer_id
        try:
            await self._drive(recall(self._replica, own, epoch_of(self._clock())), peer)
        except SwarmError as error:
            _log.info("%s does not tell this node's log: %s", short_peer(peer), error)
        self.own.answered(peer)
        self._introduce(peer)
        await self._join(peer)

    def _introduce(self, peer: PeerId) -> None:
        """Tell ``peer`` all that this node says."""
        for name in self._replica.chains():
            if name[0] == self._mesh.peer_id:
                self._hand(peer, name, 0)

    # --- what comes from outside ----------------------------------------------------------------

    async def take(
        self,
        runs: Iterable[Run],
        forks: Iterable[Fork],
        source: PeerId | None,
        fresh: bool = False,
    ) -> list[Outcome]:
        """Take what comes from outside, the proofs first.

        Args:
            source: the peer it comes from; None for a file.
            fresh: it was given unasked, as what is new is.

        Returns:
            what became of each, forks first.
        """
        outcomes: list[Outcome] = []
        pace = Pace()
        items: list[Run | Fork] = [*forks, *runs]
        # What is fetched in bulk, others have had for long: comparing finds who has not.
        spreads = fresh or len(items) <= FEW
        for one in items:
            try:
                outcomes.append(await self._take(one, source, spreads))
            except SwarmError as error:
                outcomes.append(error)
                if source is not None and self._blame(source, error):
                    # Not a second's work more for somebody who is cut off.
                    rest = len(items) - len(outcomes)
                    return outcomes + [QuotaError("The peer is cut off.")] * rest
            await pace.rest()
        return outcomes

    async def _take(self, one: Run | Fork, source: PeerId | None, spreads: bool) -> Change:
        run = one if isinstance(one, Run) else one.one
        first = read_entry(run.bodies[0])
        await self._database.room()
        ours = first.author == self._mesh.peer_id
        async with self.own.writing if ours else contextlib.nullcontext():
            chain = self._replica.chain(first.author, first.epoch)
            if run.ticket and (chain is None or chain.ticket != run.ticket):
                # The last wait: the replica takes only what has just been verified.
                await self._verifier.verify(first.author, first.epoch, run.ticket)
            if source == first.author and not self._is_linked(source):
                # It went meanwhile: without a ticket nothing would end what is held of it.
                source = None
            checked = self._replica.checked
            try:
                if isinstance(one, Run):
                    change = self._replica.take(one, self._clock(), source)
                else:
                    change = self._replica.convict(one, self._clock())
            finally:
                self._quota.checked(self._replica.checked - checked, self._now())
        self.note(change, source, spreads)
        if ours and change:
            self.own.grew()
        return change

    def note(self, change: Change, source: PeerId | None = None, spreads: bool = True) -> None:
        """Keep, hand on and read what has changed.

        Args:
            source: whom it need not be handed to; None for what this node says itself.
            spreads: whether it is handed on.
        """
        if not change:
            return
        name = (change.author, change.epoch)
        chain = self._replica.chains()[name]
        self._database.keep(change, chain)
        if change.forked and change.author == self._mesh.peer_id:
            _log.error("the own log is cut for good. %s", self.own.standing().waits)
        for author in {change.author, *(one for one, _ in change.evicted)}:
            self._read_later(author)
        if not spreads:
            return
        if change.author == self._mesh.peer_id:
            to = self._peers()
        elif chain.admitted:
            others = [one for one in self._peers() if one not in (source, change.author)]
            to = self._rng.sample(others, min(FANOUT, len(others)))
        else:
            to = []
        for peer in to:
            self._hand(peer, name, change.first)

    def _blame(self, peer: PeerId, error: SwarmError) -> bool:
        """Something of a peer was not taken, or not answered; whether it is cut off for that."""
        if isinstance(error, GapError | ForkedError | BusyError | StoreError | MeshError):
            # What happens between honest peers, or here.
            return False
        if error is self._blamed:
            # What could not be taken ends an exchange, too.
            return False
        self._blamed = error
        self.refused[error.code] += 1
        if isinstance(error, ClockError) or type(error) is AdmissionError:
            # Honest peers' clocks differ, and who has room has other authors.
            return False
        if peer not in self._origins:
            # It is cut off, or gone, and had more under way.
            return True
        now = self._now()
        if isinstance(error, _FAULTS) and self._quota.faulty(peer, now):
            why = "passes on what is not valid"
        elif self._quota.refused(peer, now):
            why = "goes on with what is refused"
        else:
            return False
        del self._origins[peer]
        self.disconnected += 1
        _log.warning("peer %s is cut off: it %s (%s)", short_peer(peer), why, error.code)
        self._mesh.disconnect(peer, f"it {why}: {error.code}")
        return True

    async def _answer(self, peer: PeerId, body: bytes) -> bytes:
        """A request of a peer."""
        now = self._now()
        try:
            request = decode(body, _REQUEST, limits.SYNC_BYTES)
            if self._responder.takes_table(peer, request):
                self._quota.opens(peer, now)
            if isinstance(request, wire.Give):
                entries = sum(len(one.bodies) for one in request.runs) + 2 * len(request.forks)
                self._quota.gives(peer, entries, now)
            self._quota.costs(peer, len(body), now)
            async with self._answering:
                steps = self._responder.answer(peer, body, epoch_of(self._clock()))
                reply = await self._drive(steps, peer, fresh=True)
            self._quota.costs(peer, len(reply), self._now())
        except SwarmError as error:
            self._blame(peer, error)
            raise
        return reply

    # --- exchanges ------------------------------------------------------------------------------

    async def _compare(self) -> None:
        """Compare with one peer at random, now and then."""
        while True:
            await trio.sleep(SYNC_EVERY_S * self._rng.uniform(0.5, 1.5))
            await self.expire()
            peers = self._peers()
            if not peers:
                continue
            peer = self._rng.choice(peers)
            chain = self._replica.latest(self._mesh.peer_id)
            if chain is not None and not chain.admitted:
                # It takes no part in exchanges, and what is handed over may be lost.
                self._introduce(peer)
            await self.exchange(peer)

    async def exchange(self, peer: PeerId) -> Report | None:
        """Compare all logs with ``peer``, and take and give what is missing.

        Returns:
            what was found; None where it did not work.
        """
        async with self._exchanging:
            steps = exchange(
                self._replica,
                self._mesh.peer_id,
                peer,
                epoch_of(self._clock()),
                self._rng.randbytes(NONCE_BYTES),
            )
            try:
                with trio.fail_after(EXCHANGE_LIMIT_S):
                    report = await self._drive(steps, peer)
            except trio.TooSlowError:
                _log.info("an exchange with %s took too long", short_peer(peer))
                return None
            except SwarmError as error:
                _log.info("no exchange with %s: %s", short_peer(peer), error)
                self._blame(peer, error)
                return None
        self.exchanges += 1
        self.last_exchange = self._clock()
        return report

    async def _join(self, peer: PeerId) -> None:
        """Compare with the first peers there are, of different networks where one can tell: one
        alone could show a newcomer whatever it likes."""
        known = {self._origins.get(one, "") for one in self.join.peers} - {""}
        seen = peer in self.join.peers or self._origins.get(peer) in known
        if len(self.join.peers) >= JOINED or seen:
            return
        self.join = Join((*self.join.peers, peer))
        await self.exchange(peer)
        if len(self.join.peers) == JOINED:
            # What the second one knew, the first one has to know, too.
            await self.exchange(self.join.peers[0])
            for _ in range(JOIN_TRIES):
                reports = [await self.exchange(one) for one in self.join.peers]
                agree = all(one.alike for one in reports if one is not None)
                if agree:
                    break
                # Somebody may just have said something.
                await trio.sleep(SYNC_EVERY_S / 2)
            if None in reports and agree:
                return
            self.join = Join(self.join.peers, agree)
            if not agree:
                _log.warning("the first peers do not hold the same logs: one may withhold some")

    async def _drive(
        self, steps: Generator[Step, Answer, T], peer: PeerId, fresh: bool = False
    ) -> T:
        """Do what a machine of an exchange asks for; what it returns."""
        pace = Pace()
        answer: Answer = None
        try:
            while True:
                step = steps.send(answer)
                match step:
                    case Request(body):
                        answer = await self._mesh.call(peer, METHOD, body, CALL_LIMIT_S)
                        if len(answer) > limits.SYNC_BYTES:
                            raise TooLargeError(f"A reply of {len(answer)} bytes.")
                        pace = Pace()
                    case Take(runs, forks):
                        answer = await self.take(runs, forks, peer, fresh)
                        pace = Pace()
                    case _:
                        answer = None
                        await pace.rest()
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    async def report(self) -> methods.Ledger:
        """How the replica is."""
        epoch = epoch_of(self._clock())
        chains = self._replica.chains().values()
        root = ""
        if self._replica.admitted(epoch) or self._replica.admitted(epoch - 1):
            root = (await _paced(summary(self._replica, epoch), Pace())).hex()
        standing = self.own.standing()
        last = self._clock() - self.last_exchange if self.exchanges else None
        return methods.Ledger(
            epoch=epoch,
            authors=self._replica.admitted(epoch),
            guests=self._replica.guests,
            entries=self._replica.entries,
            bytes=self._replica.bytes,
            forked=sum(chain.fork is not None for chain in chains),
            own_entries=standing.entries,
            own_waits=standing.waits,
            ticket=standing.ticket,
            root=root,
            exchanges=self.exchanges,
            last_exchange_s=None if last is None else round(last, 3),
            joined=tuple(map(peer_text, self.join.peers)),
            agree=self.join.agree,
            refused=dict(sorted(self.refused.items())),
            disconnected=self.disconnected,
            moved_aside=str(self._database.moved_aside or ""),
        )

    # --- handing on -----------------------------------------------------------------------------

    def _hand(self, peer: PeerId, name: Name, first: int) -> None:
        """Give ``peer`` a chain from entry ``first`` on, soon."""
        if peer not in self._origins or self._nursery is None:
            return
        waiting = self._fresh.get(peer)
        if waiting is None:
            waiting = self._fresh[peer] = {}
            self._nursery.start_soon(self._give, peer, waiting)
        waiting[name] = min(first, waiting.get(name, first))

    async def _give(self, peer: PeerId, waiting: dict[Name, int]) -> None:
        """Give ``peer`` what waits for it, until nothing does."""
        try:
            # The peer may have gone meanwhile, and come again.
            while waiting and self._fresh.get(peer) is waiting:
                try:
                    report = await self._drive(
                        give(self._replica, list(self._gifts(waiting))), peer
                    )
                    pause = report.given * GIVE_PAUSE_S
                except SwarmError as error:
                    # The next comparison finds what was missed.
                    _log.info("nothing handed on to %s: %s", short_peer(peer), error)
                    pause = GIVE_AGAIN_S
                await trio.sleep(pause)
        finally:
            if self._fresh.get(peer) is waiting:
                del self._fresh[peer]

    def _gifts(self, waiting: dict[Name, int]) -> Iterator[Gift]:
        """Some of what waits, which it does no longer."""
        for name in list(waiting)[:GIVEN_AT_ONCE]:
            first = waiting.pop(name)
            chain = self._replica.chains().get(name)
            if chain is None:
                continue
            if chain.fork is not None:
                yield Gift(*name, PROOF, ticket=True)
            if chain.fork is None or first < len(chain.bodies):
                yield Gift(*name, first, ticket=True)

    # --- reading --------------------------------------------------------------------------------

    def _read_later(self, author: PeerId) -> None:
        self._unread[author] = None
        self._to_read.set()

    async def _read(self) -> None:
        """Tell what holds of authors, once something has changed."""
        while True:
            pace = Pace(READ_PAUSE_S)
            while self._unread:
                author = next(iter(self._unread))
                del self._unread[author]
                chain = self._replica.latest(author)
                try:
                    # It may change meanwhile, and is read again then.
                    found = None if chain is None else await _paced(reading(chain), pace)
                except ProtocolError as error:
                    # Taken by an earlier version, by rules that are not those of this one.
                    _log.warning("the log of %s is unreadable: %s", short_peer(author), error)
                    found = None
                self.changed(author, found)
                await pace.rest()
            self._to_read = trio.Event()
            await self._to_read.wait()

    async def expire(self) -> None:
        """Give up epochs that are over."""
        epoch = epoch_of(self._clock())
        if epoch == self._epoch:
            return
        self._epoch = epoch
        self._database.expire(epoch - 1)
        pace = Pace()
        while gone := self._replica.expire(self._clock(), EXPIRED_AT_ONCE):
            for author, _ in gone:
                self._read_later(author)
            await pace.rest()

    @staticmethod
    def _now() -> float:
        return trio.current_time()


class Pace:
    """Lets others have their turn once a slice of time is used up.

    Args:
        pause_s: seconds before the next slice.
    """

    def __init__(self, pause_s: float = 0.0) -> None:
        self._pause_s = pause_s
        self._began = time.perf_counter()

    async def rest(self) -> None:
        """Go on at once, or after others have had their turn."""
        if time.perf_counter() - self._began >= SLICE_S:
            await trio.sleep(self._pause_s)
            self._began = time.perf_counter()


async def _paced(steps: Generator[Pause, object, T], pace: Pace) -> T:
    """What ``steps`` return, in slices."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        await pace.rest()


def _nobody_reads(author: PeerId, state: State | None) -> None:
    """Until somebody does."""
