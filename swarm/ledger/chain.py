"""One author's entries of one epoch, and what may come next.

What follows from a chain follows from its bytes alone, so every replica that holds the same entries
takes, refuses and cuts alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import msgspec

from protocol import limits
from protocol import proofs as offences
from protocol.codec import encode
from protocol.errors import RefusedError, TooLargeError
from protocol.ids import ZERO_DIGEST, Digest, PeerId
from protocol.ledger import (
    HINT_DAY_S,
    Calibration,
    Capability,
    Checkpoint,
    Entry,
    Evidence,
    Fork,
    Hints,
    Run,
    check_fork,
    check_links,
    check_next,
    check_signature,
    entry_digest,
    fork,
    read_entry,
)
from protocol.messages import Proof
from swarm import hints as calibration
from swarm.ledger import guard
from swarm.ledger.document import client_of


@dataclass(frozen=True, slots=True)
class Rules:
    """What the next entry of a chain is judged by.

    Attributes:
        client: the only writer of the author's document in this epoch.
        clock: how far it has written.
        day, changes: changes of the document on the day of the last one, which is counted from
            1970-01-01 UTC.
        proofs: in all entries.
    """

    client: int
    clock: int = 0
    day: int = 0
    changes: int = 0
    proofs: int = 0

    def after(self, entry: Entry) -> Rules:
        """The rules once ``entry`` is taken. Its links have been checked.

        Raises:
            RefusedError: it is one too many of its kind, or its hints are not what they must be.
            UpdateError: its update is not one that this author may make now.
            ProofError and others of :func:`protocol.proofs.check`: its proof convicts nobody.
            TooLargeError: its hints have too many bytes.
        """
        match entry.content:
            case Checkpoint(document, hints, evidence):
                clock = guard.check(document, self.client, 0)
                days = [one.day for one in hints]
                if days != sorted(set(days)):
                    raise RefusedError("The hints of a checkpoint repeat a day.")
                for one in hints:
                    _check_hints(one, entry.at)
                return replace(self, clock=clock)._convicting(evidence)
            case Capability(update):
                day = entry.at // HINT_DAY_S
                changes = self.changes + 1 if day == self.day else 1
                if changes > limits.CAPABILITIES_PER_DAY:
                    raise RefusedError(f"{changes} changes of a document in a day.")
                clock = guard.check(update, self.client, self.clock)
                return Rules(self.client, clock, day, changes, self.proofs)
            case Calibration(hints_of_day):
                _check_hints(hints_of_day, entry.at)
                return self
            case Evidence(proof):
                return self._convicting((proof,))

    def _convicting(self, evidence: Sequence[Proof]) -> Rules:
        proofs = self.proofs + len(evidence)
        if proofs > limits.EVIDENCE_PER_EPOCH:
            raise RefusedError(f"{proofs} proofs of one author in an epoch.")
        for proof in evidence:
            offences.check(proof)
        return replace(self, proofs=proofs)


@dataclass(slots=True)
class Chain:
    """A chain as one replica holds it.

    Attributes:
        bodies: the entries, from seq 0 on, cut where the author forked.
        signatures: those that are known, by seq.
        ticket: what admits it, empty for a guest.
        quality: of the ticket, see :mod:`swarm.ledger.admission`.
        fork: the proof against the author, its tickets left out.
        forked_at: the seq of that fork.
        head: the digest of the last entry; zeros without any.
    """

    author: PeerId
    epoch: int
    bodies: list[bytes] = field(default_factory=list)
    signatures: dict[int, bytes] = field(default_factory=dict)
    ticket: bytes = b""
    quality: int = -1
    fork: Fork | None = None
    forked_at: int | None = None
    head: Digest = ZERO_DIGEST
    _bytes: int = 0
    _rules: Rules | None = None

    @property
    def admitted(self) -> bool:
        """Whether it is passed on."""
        return bool(self.ticket)

    @property
    def size(self) -> int:
        """Bytes of all entries, and of those in the proof."""
        if self.fork is None:
            return self._bytes
        return self._bytes + sum(map(len, self.fork.one.bodies + self.fork.other.bodies))

    def rules(self) -> Rules:
        """For the next entry."""
        if self._rules is None:
            rules = Rules(client_of(self.author, self.epoch))
            for body in self.bodies:
                rules = rules.after(read_entry(body))
            self._rules = rules
        return self._rules

    def extend(self, bodies: Iterable[bytes], rules: Rules | None) -> None:
        """Append entries that have been checked; ``rules`` are those after the last of them."""
        for body in bodies:
            self.bodies.append(body)
            self._bytes += len(body)
        if self.bodies:
            self.head = entry_digest(self.bodies[-1])
        self._rules = rules

    def freeze(self, seq: int, proof: Fork) -> None:
        """End the chain at ``seq`` for good, lower than where it ended before, if it did.

        Args:
            proof: that the author forked there.
        """
        held = self.bodies[seq] if seq < len(self.bodies) else None
        if held is not None and held not in (proof.one.bodies[0], proof.other.bodies[0]):
            # A third entry for that place. The proof has to answer for the entries before, too.
            proof = fork(self.proof(seq), proof.one)
        self.fork = Fork(_bare(proof.one), _bare(proof.other))
        self.forked_at = seq
        if held is not None:
            kept = self.bodies[:seq]
            self.bodies, self.head, self._bytes = [], ZERO_DIGEST, 0
            self.extend(kept, None)
            self.signatures = {at: one for at, one in self.signatures.items() if at < seq}

    def keep_branch(self, branch: Run) -> None:
        """See that the proof answers for the last entry, which came with what follows it.

        Args:
            branch: of those that the author forked into one that follows it.
        """
        assert self.fork is not None
        if branch.bodies[0] not in (self.fork.one.bodies[0], self.fork.other.bodies[0]):
            self.fork = fork(branch, self.fork.one)

    def run(self, first: int) -> Run:
        """The entries from ``first`` on, with whatever shows that the author made them.

        Where the author forked, its signature of the last entry before may not be known: then a
        branch of the proof follows, whose signature answers for them.

        Args:
            first: less than the number of entries.
        """
        bodies = tuple(self.bodies[first:])
        signature = self.signatures.get(len(self.bodies) - 1)
        if signature is not None:
            return Run(bodies, signature, self.ticket)
        branch = self.branch()
        assert branch is not None
        return Run(bodies + branch.bodies, branch.signature, self.ticket)

    def proof(self, seq: int) -> Run:
        """The shortest run from ``seq`` on that shows that the author made the entry there."""
        for at in range(seq, len(self.bodies)):
            signature = self.signatures.get(at)
            if signature is not None:
                return Run(tuple(self.bodies[seq : at + 1]), signature)
        return msgspec.structs.replace(self.run(seq), ticket=b"")

    def branch(self) -> Run | None:
        """A branch of the fork that follows the last entry; None where there is none."""
        if self.fork is None:
            return None
        for run in (self.fork.one, self.fork.other):
            with suppress(RefusedError):
                check_next(self.bodies[-1], read_entry(run.bodies[0]))
                return run
        return None


def restored(
    swarm: str,
    author: PeerId,
    epoch: int,
    bodies: Sequence[bytes],
    signatures: Mapping[int, bytes],
    proof: Fork | None,
) -> Chain:
    """A chain that has been kept; what its entries say was checked before.

    Args:
        signatures: only the one of the last entry is checked, and kept.

    Raises:
        DecodeError, TooLargeError, RefusedError, BadSignatureError, ForkError: it has been
            damaged since.
    """
    if not bodies and proof is None:
        raise RefusedError("A log is kept without its entries.")
    chain = Chain(author, epoch)
    if proof is not None:
        place = check_fork(proof, swarm)
        if (place.author, place.epoch) != (author, epoch):
            raise RefusedError("A proof is kept with the log of another.")
        if len(bodies) > place.seq:
            raise RefusedError("Entries are kept that follow a fork.")
        chain.freeze(place.seq, proof)
    if not bodies:
        return chain
    first = check_links(bodies, swarm)[0]
    if (first.author, first.epoch, first.seq) != (author, epoch, 0):
        raise RefusedError("Entries are kept with the log of another.")
    chain.extend(bodies, None)
    last = len(bodies) - 1
    if last in signatures:
        check_signature(author, bodies[-1], signatures[last])
        chain.signatures[last] = signatures[last]
    elif chain.branch() is None:
        raise RefusedError("The last signature of a log is missing.")
    return chain


def _bare(run: Run) -> Run:
    return msgspec.structs.replace(run, ticket=b"")


def _check_hints(hints: Hints, at: int) -> None:
    calibration.check(hints)
    size = len(encode(hints))
    if size > limits.HINTS_BYTES:
        raise TooLargeError(f"Hints of {size} bytes, {limits.HINTS_BYTES} are taken.")
    if not calibration.counts_now(hints, at):
        raise RefusedError("An entry holds hints of a day long past, or to come.")
