"""This node's own log: what it wants to say, written as the difference to what it has said.

An entry is on disk before anyone can see it, and a node that cannot know what it has said before,
writes nothing in that epoch: to sign two entries for one place would convict it for good. So before
its first entry it asks peers for its own log, which may know more than its disk after a backup was
restored.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import trio

from node.mesh.base import Mesh
from node.replication.database import UNKNOWN, LedgerDatabase
from node.replication.stamping import Verifier
from protocol import limits
from protocol.codec import encode
from protocol.envelope import Signer
from protocol.errors import ProtocolError, StoreError
from protocol.ids import Digest, PeerId
from protocol.ledger import (
    EPOCH_S,
    HINT_DAY_S,
    Calibration,
    Capability,
    Checkpoint,
    Content,
    Evidence,
    Hints,
    Profile,
    entry_digest,
    epoch_of,
    first_entry,
    next_entry,
    read_entry,
    sign,
)
from protocol.messages import Proof
from protocol.proofs import stated
from swarm.hints import counts_now
from swarm.ledger.chain import Chain
from swarm.ledger.document import Document, client_of
from swarm.ledger.replica import Change, Replica
from swarm.ledger.state import State, state, updates, values_of

_log = logging.getLogger(__name__)

ANSWERS: Final = 3
"""Peers that are asked for this node's own log before its first entry, where so many are linked."""
SETTLE_S: Final = 0.05
"""What is wanted together is written together."""
RETRY_S: Final = 60.0

_CHECKPOINT_ROOM: Final = limits.ENTRY_BYTES - 1024
"""For documents, hints and proofs; the rest is what stands around them."""


class Tickets(Protocol):
    """Where this node's tickets come from.

    Attributes:
        kind: what they are called.
        after_s: how long a node is to be there before one is made.
    """

    kind: str
    after_s: float

    async def ticket(self, epoch: int) -> bytes:
        """The one for ``epoch``, however long it takes."""
        ...

    def progress(self) -> float | None:
        """The share of tickets that would have been made by now; None while none is made."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """How this node's own log is.

    Attributes:
        entries: of this epoch.
        ticket: that of this epoch, as in :class:`protocol.methods.Ledger`.
        waits: why nothing is written, for people; empty where nothing stands in the way.
    """

    entries: int
    ticket: str
    waits: str


class OwnLog:
    """Args:
    replica: where the log stands among the others.
    tickets: where those of this node come from; None where it goes without.
    verifier: the replica's admission.
    mesh: who is linked.
    clock: gives Unix time in seconds.

    Attributes:
        publish: tells peers of a change of the log.
        writing: held while the log is written: nothing else may touch it then.
    """

    def __init__(
        self,
        signer: Signer,
        replica: Replica,
        database: LedgerDatabase,
        tickets: Tickets | None,
        verifier: Verifier,
        mesh: Mesh,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._signer = signer
        self._replica = replica
        self._database = database
        self._tickets = tickets
        self._verifier = verifier
        self._mesh = mesh
        self._clock = clock
        self._values: dict[str, bytes] = {}
        self._hints: dict[int, Hints] = {}
        self._evidence: dict[Digest, Proof] = {}
        self._answered: set[PeerId] = set()
        self._wanted = trio.Event()
        self._begun = trio.Event()
        # Peers have been asked, or need not be any more.
        self._cleared = False
        self.writing = trio.Lock()
        self.publish: Callable[[Change], None] = _unheard

    # --- what is wanted -------------------------------------------------------------------------

    def describe(self, profile: Profile) -> None:
        """Say what this node runs. An empty label leaves the one that is there."""
        values = values_of(profile)
        if not profile.label:
            del values["label"]
        self._want(values)

    def label(self, text: str) -> None:
        """Say what this node is called."""
        self._want({"label": encode(text)})

    def tell(self, hints: Hints) -> None:
        """Say what the calibration of a day has shown."""
        if hints.subjects and self._hints.get(hints.day) != hints:
            self._hints[hints.day] = hints
            self._wanted.set()

    def testify(self, proof: Proof) -> None:
        """Pass on a proof of misbehaviour."""
        offence = stated(proof).digest
        if offence not in self._evidence:
            self._evidence[offence] = proof
            while len(self._evidence) > limits.STRIKES:
                del self._evidence[next(iter(self._evidence))]
            self._wanted.set()

    def answered(self, peer: PeerId) -> None:
        """A peer has said what it holds of this node's log, and it has been taken."""
        if len(self._answered) < ANSWERS:
            self._answered.add(peer)
        self._wanted.set()

    def grew(self) -> None:
        """Peers or a file have brought entries of this log that were not known here."""
        if self._cleared:
            _log.warning(
                "the own log has entries that this node did not write: is there another node "
                "with its key? Stop one of them before they contradict each other"
            )
        self._wanted.set()

    def _want(self, values: Mapping[str, bytes]) -> None:
        if any(self._values.get(key) != value for key, value in values.items()):
            self._values |= values
            self._wanted.set()

    # --- what is known of it --------------------------------------------------------------------

    def standing(self) -> Standing:
        """How the log is."""
        chain = self._replica.chain(self._signer.peer, epoch_of(self._clock()))
        entries = len(chain.bodies) if chain is not None else 0
        ticket = "none"
        if self._tickets is not None:
            done = self._tickets.progress()
            if chain is not None and chain.admitted:
                ticket = self._tickets.kind
            elif done is not None:
                ticket = f"being made ({done:.0%})"
        waits = self._waits()
        if not waits and self._used_up():
            waits = "The changes of today are used up; the next one follows at 0:00 UTC."
        return Standing(entries, ticket, waits)

    def _waits(self) -> str:
        epoch = epoch_of(self._clock())
        chain = self._replica.latest(self._signer.peer)
        if chain is not None and chain.fork is not None:
            return (
                "Two nodes have written with this key, and nobody counts what either says. "
                "Give one of them a new key."
            )
        if self._lacks_mark(epoch):
            return (
                "The own log was lost, and to begin it again would convict this node. It goes on "
                "once a peer that has it is linked, a file that has it is imported (swarm state "
                f"import), or a new epoch begins, in {_days_left(self._clock()):.1f} days."
            )
        if self._ahead() > 0:
            return "The clock was ahead when the log was written last; that time is yet to come."
        if self._cleared:
            return ""
        linked = {link.peer for link in self._mesh.links()} - {self._signer.peer}
        if not linked:
            return "No peer is linked."
        # Those that have left have answered, too: else who comes and goes could keep it waiting.
        if len(self._answered) < ANSWERS and not linked <= self._answered:
            return "Peers are being asked for the own log."
        return ""

    def _lacks_mark(self, epoch: int) -> bool:
        """Whether more may have been written in ``epoch`` than is held."""
        mark = self._database.own_mark(epoch)
        if mark is None:
            return False
        chain = self._replica.chain(self._signer.peer, epoch)
        if mark is UNKNOWN or chain is None or len(chain.bodies) < mark.entries:
            return True
        return entry_digest(chain.bodies[mark.entries - 1]) != mark.head

    def _used_up(self) -> bool:
        """Whether there is a change of the document that the day has no room for."""
        now = self._clock()
        chain = self._replica.chain(self._signer.peer, epoch_of(now))
        if chain is None or not chain.bodies:
            return False
        rules = chain.rules()
        full = rules.changes >= limits.CAPABILITIES_PER_DAY
        if not full or rules.day != int(now) // HINT_DAY_S:
            return False
        said = state(chain).values
        return any(said.get(key) != value for key, value in self._values.items())

    def _ahead(self) -> float:
        """For how many seconds the last entry is still of the future: one that follows may not be
        older, and nobody takes it before."""
        now = self._clock()
        chain = self._replica.chain(self._signer.peer, epoch_of(now))
        if chain is None or not chain.bodies:
            return 0.0
        return read_entry(chain.bodies[-1]).at - now

    # --- writing --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write what is wanted, until cancelled."""
        async with trio.open_nursery() as nursery:
            if self._tickets is not None:
                nursery.start_soon(self._seek_tickets, self._tickets)
            while True:
                pause = HINT_DAY_S - self._clock() % HINT_DAY_S
                try:
                    await self._write()
                except (StoreError, ProtocolError) as error:
                    _log.error("the own log cannot be written: %s", error.user_text())
                    pause = RETRY_S
                if (ahead := self._ahead()) > 0:
                    pause = min(ahead, RETRY_S)
                # Hints grow old, days have their number of changes, and epochs begin with a day.
                with trio.move_on_after(pause):
                    await self._wanted.wait()
                    await trio.sleep(SETTLE_S)
                self._wanted = trio.Event()

    async def _write(self) -> None:
        async with self.writing:
            if self._waits():
                return
            self._cleared = True
            now = int(self._clock())
            own = self._signer.peer
            chain = self._replica.chain(own, epoch_of(now)) or Chain(own, epoch_of(now))
            bodies = list(self._bodies(chain, now))
            if not bodies:
                # An earlier run may have begun it, and not have got its ticket.
                self._begun.set()
                return
            rules = chain.rules()
            for body in bodies:
                # What others would refuse must not get onto the disk: nothing could follow it.
                rules = rules.after(read_entry(body))
            run = sign(self._signer, bodies, chain.ticket)
            await self._database.keep_own(run)
            change = self._replica.take(run, now, own)
        self.publish(change)
        self._begun.set()

    def _bodies(self, chain: Chain, now: int) -> Iterator[bytes]:
        """The entries that are to follow, encoded."""
        last: bytes | None = chain.bodies[-1] if chain.bodies else None
        if last is None:
            content = self._checkpoint(chain.epoch, now)
            last = encode(first_entry(self._replica.swarm, self._signer.peer, now, content))
            yield last
            return
        for one in self._changes(chain, now):
            entry = next_entry(last, now, one)
            body = encode(entry)
            if entry.offset + len(body) > limits.EPOCH_BYTES:
                _log.warning("the own log is full; what does not fit waits for the next epoch")
                return
            yield body
            last = body

    def _checkpoint(self, epoch: int, now: int) -> Checkpoint:
        """All that there is to say, the newest first where it does not fit."""
        said = self._said()
        values = (dict(said.values) if said is not None else {}) | self._values
        _, document = Document.rebased(values, client_of(self._signer.peer, epoch))
        room = _CHECKPOINT_ROOM - len(document)
        days = (dict(said.hints) if said is not None else {}) | self._hints
        hints: list[Hints] = []
        for day in sorted(days, reverse=True):
            room -= len(encode(days[day]))
            if room >= 0 and counts_now(days[day], now):
                hints.append(days[day])
        evidence: list[Proof] = []
        for proof in reversed(self._evidence.values()):
            size = len(encode(proof))
            # Half of what an epoch may have is left for what it brings.
            if size <= room and 2 * len(evidence) < limits.EVIDENCE_PER_EPOCH:
                room -= size
                evidence.append(proof)
        return Checkpoint(document, tuple(reversed(hints)), tuple(reversed(evidence)))

    def _changes(self, chain: Chain, now: int) -> Iterator[Content]:
        """What the log does not say yet."""
        said = state(chain)
        rules = chain.rules()
        changed = {key: one for key, one in self._values.items() if said.values.get(key) != one}
        today = rules.changes if rules.day == now // HINT_DAY_S else 0
        if changed and today < limits.CAPABILITIES_PER_DAY:
            document = Document.resumed(updates(chain.bodies), rules.client)
            update = document.set(changed)
            assert update is not None
            yield Capability(update)
        for day in [one for one, told in self._hints.items() if not counts_now(told, now)]:
            del self._hints[day]
        for day, told in sorted(self._hints.items()):
            if said.hints.get(day) != told:
                yield Calibration(told)
        known = {stated(proof).digest for proof in said.evidence}
        proofs = rules.proofs
        for offence, proof in self._evidence.items():
            if offence not in known and proofs < limits.EVIDENCE_PER_EPOCH:
                proofs += 1
                yield Evidence(proof)

    def _said(self) -> State | None:
        """What the log says so far."""
        chain = self._replica.latest(self._signer.peer)
        return state(chain) if chain is not None else None

    # --- admission ------------------------------------------------------------------------------

    async def _seek_tickets(self, tickets: Tickets) -> None:
        """See that others pass the log on, epoch after epoch."""
        own = self._signer.peer
        while True:
            await self._begun.wait()
            self._begun = trio.Event()
            epoch = epoch_of(self._clock())
            chain = self._replica.chain(own, epoch)
            if chain is None or chain.admitted or not chain.bodies:
                continue
            await trio.sleep(tickets.after_s)
            ticket = await tickets.ticket(epoch)
            await self._verifier.verify(own, epoch, ticket)
            async with self.writing:
                run = self._replica.run(own, epoch, len(chain.bodies))
                if run is None:
                    continue
                admitted = msgspec.structs.replace(run, ticket=ticket)
                try:
                    change = self._replica.take(admitted, self._clock(), own)
                except ProtocolError as error:
                    _log.warning("the own ticket is refused here: %s", error.user_text())
                    continue
            self.publish(change)


def _days_left(now: float) -> float:
    return (EPOCH_S - now % EPOCH_S) / HINT_DAY_S


def _unheard(change: Change) -> None:
    """Until somebody passes it on."""
