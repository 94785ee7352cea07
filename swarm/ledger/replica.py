"""All logs that a node holds, and the only ways in which they change.

Chains grow at their end; a proof of a fork cuts one for good; time ends a whole epoch. Each of the
three is the same in whatever order things arrive (growth is the longer of two prefixes, cutting the
lowest of the forked places, tickets the better of two), so replicas that have seen the same hold
the same. Nothing waits for something else to come: what does not follow from what is held is
refused, with the place from which it would.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

import msgspec

from protocol import limits
from protocol.errors import AdmissionError, ClockError, ForkedError, GapError, RefusedError
from protocol.ids import PeerId
from protocol.ledger import (
    Entry,
    Fork,
    Run,
    check_fork,
    check_links,
    check_next,
    check_signature,
    epoch_of,
    fork,
)
from protocol.presence import SKEW_S
from swarm.ledger.admission import Admission, rank
from swarm.ledger.chain import Chain, restored
from swarm.ledger.ranking import FIRST, Rank, Ranking

Name = tuple[PeerId, int]
"""Of a chain: its author and epoch."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a run or a proof has changed.

    Attributes:
        first: the seq of the first new entry.
        entries: the new ones, in order.
        admitted: it brought a ticket, or a better one.
        forked: it showed that the author forked, or forked earlier than was known.
        evicted: chains that had to go for it.
    """

    author: PeerId
    epoch: int
    first: int
    entries: tuple[Entry, ...] = ()
    admitted: bool = False
    forked: bool = False
    evicted: tuple[Name, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is new."""
        return bool(self.entries) or self.admitted or self.forked


class Replica:
    """Args:
        swarm: its name; entries of others are refused.
        admission: who may have a log that is passed on.
        own: this node, whose own log needs no ticket and never has to go.

    Attributes:
        checked: signatures of entries checked so far.
        bytes: of all entries held, and of those in proofs.
        entries: how many are held.
        guests: chains without a ticket, one's own apart.
    """

    def __init__(self, swarm: str, admission: Admission, own: PeerId | None = None) -> None:
        self._swarm = swarm
        self._admission = admission
        self._own = own
        self._chains: dict[Name, Chain] = {}
        self._epochs: dict[PeerId, list[int]] = {}
        self._ranking = Ranking()
        self.checked = 0
        self.bytes = 0
        self.entries = 0
        self.guests = 0

    @property
    def swarm(self) -> str:
        """Its name."""
        return self._swarm

    @property
    def own(self) -> PeerId | None:
        """This node."""
        return self._own

    # --- what is held ---------------------------------------------------------------------------

    def chain(self, author: PeerId, epoch: int) -> Chain | None:
        """What is held of one author in one epoch, not to be changed."""
        return self._chains.get((author, epoch))

    def chains(self) -> Mapping[Name, Chain]:
        """All that is held, guests among them; not to be changed."""
        return self._chains

    def admitted(self, epoch: int) -> int:
        """How many authors have a ticket for ``epoch``."""
        return self._ranking.count(epoch)

    def latest(self, author: PeerId) -> Chain | None:
        """The chain that says what holds of ``author`` now: its latest, or the one it forked in."""
        found: Chain | None = None
        for epoch in self._epochs.get(author, ()):
            chain = self._chains[author, epoch]
            if chain.fork is not None:
                return chain
            if chain.bodies:
                found = chain
        return found

    def authors(self) -> Iterable[PeerId]:
        """Whose logs are held."""
        return self._epochs.keys()

    def proof(self, author: PeerId, epoch: int) -> Fork | None:
        """The proof that ``author`` forked, to pass on."""
        chain = self._chains.get((author, epoch))
        if chain is None or chain.fork is None:
            return None
        one = msgspec.structs.replace(chain.fork.one, ticket=chain.ticket)
        return Fork(one, chain.fork.other)

    def run(self, author: PeerId, epoch: int, first: int) -> Run | None:
        """The entries of a chain from ``first`` on, to pass on; of those that have been passed on
        already the last, so that its ticket goes along. None where there is none."""
        chain = self._chains.get((author, epoch))
        if chain is None or not chain.bodies:
            return None
        return chain.run(min(first, len(chain.bodies) - 1))

    # --- what changes it ------------------------------------------------------------------------

    def take(self, run: Run, now: float, source: PeerId | None = None) -> Change:
        """Take a run, whole or not at all.

        Args:
            now: Unix time in seconds.
            source: the peer that sends it; its own log it may send without a ticket.

        Returns:
            what is new; nothing where all of it was held before.

        Raises:
            DecodeError, TooLargeError, RefusedError: it is no run, or not of this swarm or time.
            AdmissionError: its author is not admitted, or there is no room for it.
            GapError: entries before it are missing, or others are held in their place.
            ForkedError: it begins where its author forked, or later.
            BadSignatureError: its author did not sign it.
            UpdateError, ProofError: it says what it may not.
        """
        entries = check_links(run.bodies, self._swarm)
        author, epoch, first = entries[0].author, entries[0].epoch, entries[0].seq
        self._check_time(epoch, entries[-1].at, now)
        chain = self._chains.get((author, epoch))
        quality = self._quality(author, epoch, run.ticket, chain, source)
        held = len(chain.bodies) if chain is not None else 0
        if chain is not None and chain.forked_at is not None and first >= chain.forked_at:
            if quality is None:
                raise ForkedError()
            return self._dress(chain, run.ticket, quality)
        if first > held:
            raise GapError(held)
        if chain is None:
            chain = Chain(author, epoch)
        fresh = 0
        for fresh, body in enumerate(run.bodies):
            if first + fresh == held:
                break
            if body != chain.bodies[first + fresh]:
                return self._diverged(chain, run, fresh, entries, quality)
        else:
            fresh = len(run.bodies)
        room = len(entries)
        if chain.forked_at is not None:
            room = min(room, chain.forked_at - first)
        if fresh >= room:
            return self._dress(chain, run.ticket, quality)
        if entries[fresh].prev != chain.head:
            # Nothing of it was held, and its parent is another: the author forked further down.
            raise GapError(0)
        if held:
            check_next(chain.bodies[-1], entries[fresh])
        self._check(author, run)
        rules = chain.rules()
        for entry in entries[fresh:room]:
            rules = rules.after(entry)
        more = sum(map(len, run.bodies[fresh:]))
        evicted = self._admit(chain, run.ticket, quality, more)
        # From here on nothing is refused.
        before = chain.size
        chain.extend(run.bodies[fresh:room], rules)
        if room == len(entries):
            chain.signatures[len(chain.bodies) - 1] = run.signature
        else:
            chain.keep_branch(Run(run.bodies[room:], run.signature))
        self.bytes += chain.size - before
        self.entries += room - fresh
        return self._change(chain, held, evicted, entries[fresh:room])

    def convict(self, proof: Fork, now: float) -> Change:
        """Take the proof of a fork.

        Raises:
            DecodeError, TooLargeError, RefusedError, BadSignatureError: it is none of this swarm
                or time.
            ForkError: it proves nothing.
            AdmissionError: its author is not admitted, or there is no room for it.
        """
        one = check_links(proof.one.bodies[:1], self._swarm)[0]
        self._check_time(one.epoch, one.at, now)
        chain = self._chains.get((one.author, one.epoch))
        quality = self._quality(one.author, one.epoch, proof.one.ticket, chain, None)
        if chain is not None and chain.forked_at is not None and chain.forked_at <= one.seq:
            return self._dress(chain, proof.one.ticket, quality)
        self.checked += 2
        place = check_fork(proof, self._swarm)
        more = 0
        if chain is None:
            chain = Chain(one.author, one.epoch)
            more = sum(map(len, proof.one.bodies + proof.other.bodies))
        evicted = self._admit(chain, proof.one.ticket, quality, more)
        self._freeze(chain, place.seq, proof)
        return self._change(chain, len(chain.bodies), evicted, forked=True)

    def restore(
        self,
        author: PeerId,
        epoch: int,
        bodies: list[bytes],
        signatures: Mapping[int, bytes],
        ticket: bytes,
        quality: int,
        proof: Fork | None,
    ) -> None:
        """Take back what this node had taken before, see :func:`swarm.ledger.chain.restored`.

        Raises:
            DecodeError, TooLargeError, RefusedError, BadSignatureError, ForkError: it has been
                damaged since.
        """
        if (author, epoch) in self._chains:
            raise RefusedError("A log is kept twice.")
        chain = restored(self._swarm, author, epoch, bodies, signatures, proof)
        chain.ticket, chain.quality = ticket, quality
        self._insert(chain)
        self.bytes += chain.size
        self.entries += len(bodies)
        if chain.admitted:
            self._ranking.put(author, epoch, self._rank(chain, quality))

    def expire(self, now: float, most: int | None = None) -> list[Name]:
        """Give up the epochs that are over: all but this one and the one before.

        Args:
            most: chains at once; None: all of them.
        """
        oldest = epoch_of(now) - 1
        gone = list(islice((name for name in self._chains if name[1] < oldest), most))
        for name in gone:
            self._remove(name)
        return gone

    def dismiss(self, guest: PeerId) -> list[Name]:
        """A peer is not linked any more: give up what is held of it for that reason alone."""
        gone = [
            (guest, epoch)
            for epoch in self._epochs.get(guest, ())
            if not self._chains[guest, epoch].admitted and guest != self._own
        ]
        for name in gone:
            self._remove(name)
        return gone

    # --- admission ------------------------------------------------------------------------------

    def _check_time(self, epoch: int, at: int, now: float) -> None:
        if epoch < epoch_of(now) - 1:
            raise ClockError("It is of an epoch that is over.")
        if at > now + SKEW_S:
            raise ClockError(f"It was signed {at - now:.0f} s from now; see to the clocks.")

    def _quality(
        self,
        author: PeerId,
        epoch: int,
        ticket: bytes,
        chain: Chain | None,
        source: PeerId | None,
    ) -> int | None:
        """The quality of a ticket that admits the chain, or does it better; None where the chain
        stays what it is.

        Raises:
            AdmissionError: the ticket is none, or there has to be one.
        """
        if ticket and (chain is None or ticket != chain.ticket):
            quality = self._admission.quality(author, epoch, ticket)
            if chain is None or (quality, ticket) > (chain.quality, chain.ticket):
                return quality
            return None
        if chain is not None or author == self._own:
            return None
        if author != source:
            raise AdmissionError("There is no ticket for this author and epoch.")
        if self.guests >= limits.GUESTS:
            raise AdmissionError(f"{self.guests} peers without a ticket are known already.")
        return None

    def _admit(
        self, chain: Chain, ticket: bytes, quality: int | None, more: int = 0
    ) -> tuple[Name, ...] | None:
        """Hold ``chain``, with its ticket where it is a better one.

        Args:
            more: bytes that it is to have in addition.

        Returns:
            what had to go for it; None where the ticket did not count.

        Raises:
            AdmissionError: there are as many authors or bytes already, all with better tickets.
        """
        if more or not chain.admitted:
            self._check_room(chain, quality, more)
        if quality is None:
            self._insert(chain)
            return None
        found = self._rank(chain, quality)
        gone: tuple[Name, ...] = ()
        if not chain.admitted and self.admitted(chain.epoch) >= limits.AUTHORS:
            worst = self._ranking.worst(chain.epoch)
            if worst is None or found < worst[0]:
                raise AdmissionError(f"{limits.AUTHORS} authors have better tickets.")
            gone = ((worst[1], chain.epoch),)
            self._remove(gone[0])
        self._insert(chain)
        if not chain.admitted and chain.author != self._own:
            self.guests -= 1
        chain.ticket, chain.quality = ticket, quality
        self._ranking.put(chain.author, chain.epoch, found)
        return gone

    def _rank(self, chain: Chain, quality: int) -> Rank:
        if chain.author == self._own:
            return FIRST
        return rank(quality, chain.author, chain.epoch)

    def _check_room(self, chain: Chain, quality: int | None, more: int) -> None:
        """Raise AdmissionError where there are too many bytes for ``more`` of ``chain``, all with
        better tickets. Of guests there are few enough."""
        if self.bytes + more <= limits.LEDGER_BYTES or chain.author == self._own:
            return
        best = chain.quality if quality is None else quality
        if best >= 0 and self._worse_than(chain, best) is None:
            raise AdmissionError("The ledger is full, and others have better tickets.")

    def _shrink(self, chain: Chain) -> list[Name]:
        """Give up what counts less than ``chain`` while there are too many bytes."""
        found: list[Name] = []
        while self.bytes > limits.LEDGER_BYTES:
            worse = self._worse_than(chain, chain.quality)
            if worse is None:
                break
            found.append(worse)
            self._remove(worse)
        return found

    def _worse_than(self, chain: Chain, quality: int) -> Name | None:
        """What goes first for ``chain``: the oldest epoch's worst ticket. For a guest, nothing."""
        if quality < 0 and chain.author != self._own:
            return None
        for epoch in self._ranking.epochs():
            worst = self._ranking.worst(epoch)
            assert worst is not None
            if (epoch, worst[0]) >= (chain.epoch, self._rank(chain, quality)):
                return None
            if worst[1] != self._own:
                return worst[1], epoch
        return None

    # --- chains ---------------------------------------------------------------------------------

    def _check(self, author: PeerId, run: Run) -> None:
        self.checked += 1
        check_signature(author, run.bodies[-1], run.signature)

    def _change(
        self,
        chain: Chain,
        held: int,
        evicted: tuple[Name, ...] | None,
        entries: tuple[Entry, ...] = (),
        forked: bool = False,
    ) -> Change:
        """``chain`` has changed, and something may have to go for it.

        Args:
            held: entries that it has kept.
            evicted: as :meth:`_admit` returns it.
        """
        return Change(
            chain.author,
            chain.epoch,
            held,
            entries,
            evicted is not None,
            forked,
            (*(evicted or ()), *self._shrink(chain)),
        )

    def _dress(self, chain: Chain, ticket: bytes, quality: int | None) -> Change:
        """Nothing is new but, perhaps, the ticket."""
        evicted = self._admit(chain, ticket, quality)
        return self._change(chain, len(chain.bodies), evicted)

    def _diverged(
        self, chain: Chain, run: Run, at: int, entries: tuple[Entry, ...], quality: int | None
    ) -> Change:
        """Entry ``at`` of ``run`` is not the one that is held in its place."""
        self._check(chain.author, run)
        seq = entries[at].seq
        other = Run(run.bodies[at:], run.signature)
        evicted = self._admit(chain, run.ticket, quality)
        self._freeze(chain, seq, fork(chain.proof(seq), other))
        return self._change(chain, len(chain.bodies), evicted, forked=True)

    def _freeze(self, chain: Chain, seq: int, proof: Fork) -> None:
        size, entries = chain.size, len(chain.bodies)
        chain.freeze(seq, proof)
        self.bytes += chain.size - size
        self.entries += len(chain.bodies) - entries

    def _insert(self, chain: Chain) -> None:
        name = (chain.author, chain.epoch)
        if name in self._chains:
            return
        self._chains[name] = chain
        epochs = self._epochs.setdefault(chain.author, [])
        epochs.append(chain.epoch)
        epochs.sort()
        if not chain.admitted and chain.author != self._own:
            self.guests += 1

    def _remove(self, name: Name) -> None:
        chain = self._chains.pop(name)
        author, epoch = name
        self._epochs[author].remove(epoch)
        if not self._epochs[author]:
            del self._epochs[author]
        self.bytes -= chain.size
        self.entries -= len(chain.bodies)
        if chain.admitted:
            self._ranking.drop(author, epoch)
        elif author != self._own:
            self.guests -= 1
