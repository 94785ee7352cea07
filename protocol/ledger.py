"""What nodes state for good: signed logs, one for each author, and what may stand in them.

An author's log is cut into epochs of a week. In each it is a *chain*: entries counted from 0, each
naming the digest of the one before. The first is a :class:`Checkpoint` with all that its author has
to say, so that older epochs can be dropped whole and nothing has to be remembered as deleted.

A :class:`Run` is a piece of a chain with the signature of its last entry alone: since each entry
names the one before, it answers for all of them. (Single-writer hash-linked logs are those of
Secure Scuttlebutt, Tarr et al. 2019; what is different here is the end of them.)

An author that signs two entries for one place has forked. The two are a :class:`Fork`: a proof that
holds for everyone.

======== ==================================================================================
ticket   what admits an author's chain of one epoch to be passed on, see swarm.ledger.admission
profile  what a node runs, as it says: the values of its document, one for each field
hints    what a node's calibration of a day has shown
======== ==================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from protocol import envelope as envelopes
from protocol import limits
from protocol.codec import decode
from protocol.digest import digest
from protocol.envelope import Envelope, Key, Signature, Signer
from protocol.errors import ForkError, RefusedError
from protocol.ids import ZERO_DIGEST, Digest, PeerId
from protocol.messages import Count, Hash, Model, Part, Proof

VERSION: Final = 1
EPOCH_S: Final = 7 * 24 * 3600
"""An epoch, in seconds."""
HINT_DAY_S: Final = 24 * 3600

_Swarm = Annotated[str, Meta(min_length=1, max_length=64)]
_Index = Annotated[int, Meta(ge=0, le=2**31)]
_Update = Annotated[bytes, Meta(max_length=limits.UPDATE_BYTES)]
_Body = Annotated[bytes, Meta(max_length=limits.ENTRY_BYTES)]
_Bodies = Annotated[tuple[_Body, ...], Meta(min_length=1, max_length=limits.RUN_ENTRIES)]
_Ticket = Annotated[bytes, Meta(max_length=limits.TICKET_BYTES)]
_HashText = Annotated[str, Meta(max_length=64)]
_TopicText = Annotated[str, Meta(max_length=64)]
FiveCounts = tuple[Count, Count, Count, Count, Count]


class Profile(Part, frozen=True):
    """What a node runs. Claims, all of it.

    Attributes:
        parameters, context_tokens: 0 where unknown.
        serves: whether it takes part in rounds.
        energy: microjoules for each generated token, 0 where unknown.
        label: what its operator calls it, for people.
    """

    model: Model
    parameters: Count
    context_tokens: Count
    serves: bool
    energy: Count = 0
    label: Annotated[str, Meta(max_length=limits.LABEL_CHARS)] = ""


class Sum(Part, frozen=True):
    """What one model of one peer did in the calibration of a day, in 1e-6.

    Attributes:
        topic: a task family, empty where it is none.
        rounds: questions behind the counts, whole.
        judge_right, judge_total: pairs with one right answer, by stated sureness.
    """

    topic: _TopicText
    rounds: Count
    judge_right: FiveCounts
    judge_total: FiveCounts
    answer_right: Count
    answer_total: Count


class Subject(Part, frozen=True):
    """Whom sums are about.

    Attributes:
        model: content id that the peer claimed.
        sums: sorted by topic.
    """

    peer: Key
    model: _HashText
    sums: Annotated[tuple[Sum, ...], Meta(min_length=1, max_length=limits.HINT_SUMS)]


class Hints(Part, frozen=True):
    """What the signer's own calibration of a day has shown. Weighs only with those who trust it.

    Attributes:
        day: days since 1970-01-01 UTC.
        expires: Unix time in seconds.
        subjects: sorted by peer and model.
    """

    day: Count
    expires: Count
    subjects: Annotated[tuple[Subject, ...], Meta(max_length=limits.HINT_SUMS)]


class _Content(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What an entry says."""


class Checkpoint(_Content, frozen=True, tag="checkpoint"):
    """All that the author has to say at the beginning of an epoch.

    Attributes:
        document: an update that makes the whole document, see :mod:`swarm.ledger.document`.
        hints: of the days that still count, sorted by day.
        evidence: proofs that it still passes on.
    """

    document: _Update
    hints: Annotated[tuple[Hints, ...], Meta(max_length=limits.HINT_DAYS + 2)]
    evidence: Annotated[tuple[Proof, ...], Meta(max_length=limits.EVIDENCE_PER_EPOCH)]


class Capability(_Content, frozen=True, tag="capability"):
    """A change of the author's document: what it can do, as it says."""

    update: _Update


class Calibration(_Content, frozen=True, tag="calibration"):
    """What its calibration of others has shown on one day."""

    hints: Hints


class Evidence(_Content, frozen=True, tag="evidence"):
    """Somebody is convicted, whoever says so."""

    proof: Proof


Content = Checkpoint | Capability | Calibration | Evidence


class Entry(msgspec.Struct, frozen=True, array_like=True, tag="entry", forbid_unknown_fields=True):
    """One element of a log.

    Attributes:
        swarm: its name; what is said in one swarm is not said in another.
        epoch, seq: its place in the author's log.
        prev: digest of the entry before; zeros where it is the first of its epoch.
        offset: bytes of all entries before it in its epoch. So every piece of a chain shows that
            the whole keeps to its limit.
        at: Unix time in seconds by the author's clock, never before that of the entry before. Its
            epoch follows from it. Nothing is decided by comparing it with anybody else's.
    """

    version: Literal[1]
    swarm: _Swarm
    author: Key
    epoch: _Index
    seq: _Index
    prev: Hash
    offset: Annotated[int, Meta(ge=0, le=limits.EPOCH_BYTES)]
    at: Annotated[int, Meta(ge=0, le=2**40)]
    content: Content


class Run(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Consecutive entries of one chain, as they travel.

    Attributes:
        bodies: the encoded entries.
        signature: the author's, of the last one.
        ticket: admits the chain; empty where the sender leaves it out, or has none.
    """

    bodies: _Bodies
    signature: Signature
    ticket: _Ticket = b""


class Fork(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Two runs of one author that begin at one place with different entries: it signed both.

    Attributes:
        one, other: in the order of the digests of their first entries.
    """

    one: Run
    other: Run


class Place(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A chain, and an entry in it (or how many entries it has)."""

    author: Key
    epoch: _Index
    seq: _Index


def epoch_of(at: float) -> int:
    """The epoch of a Unix time in seconds."""
    return int(at) // EPOCH_S


def entry_digest(body: bytes) -> Digest:
    """Names an entry by its bytes; what the next one has as ``prev``."""
    return digest("entry", body)


def read_entry(body: bytes) -> Entry:
    """The entry that ``body`` encodes. What it says is not checked here.

    Raises:
        DecodeError, TooLargeError: it encodes none.
    """
    return decode(body, Entry, limits.ENTRY_BYTES)


def first_entry(swarm: str, author: PeerId, at: int, content: Checkpoint) -> Entry:
    """The entry that begins an epoch."""
    return Entry(VERSION, swarm, author, epoch_of(at), 0, ZERO_DIGEST, 0, at, content)


def next_entry(last: bytes, at: int, content: Content) -> Entry:
    """The entry after ``last``.

    Args:
        at: Unix time in seconds; of the same epoch.
    """
    entry = read_entry(last)
    return Entry(
        VERSION,
        entry.swarm,
        entry.author,
        entry.epoch,
        entry.seq + 1,
        entry_digest(last),
        entry.offset + len(last),
        max(at, entry.at),
        content,
    )


def sign(signer: Signer, bodies: Sequence[bytes], ticket: bytes = b"") -> Run:
    """A run of ``signer``'s entries, the last of which it signs."""
    return Run(tuple(bodies), signer.seal(bodies[-1]).signature, ticket)


def check_signature(author: PeerId, body: bytes, signature: bytes) -> None:
    """Raise BadSignatureError unless ``author`` signed the entry."""
    envelopes.check(Envelope(author, body, signature))


def check_links(bodies: Sequence[bytes], swarm: str) -> tuple[Entry, ...]:
    """The entries of a run, which follow from one another; the signature is not checked.

    Raises:
        DecodeError, TooLargeError: a body is no entry.
        RefusedError: they are of different chains, of another swarm, not consecutive, one does not
            name the one before, stands in the wrong epoch or beyond the bytes of one, or a
            checkpoint is not where it belongs.
    """
    entries: list[Entry] = []
    for body in bodies:
        entry = read_entry(body)
        if entry.swarm != swarm:
            raise RefusedError(f"It is of the swarm {entry.swarm!r}.")
        if epoch_of(entry.at) != entry.epoch:
            raise RefusedError("An entry stands in another epoch than its time.")
        if entry.offset + len(body) > limits.EPOCH_BYTES:
            raise RefusedError("An entry is beyond what one author may say in an epoch.")
        if (entry.seq == 0) is not isinstance(entry.content, Checkpoint):
            raise RefusedError("A checkpoint is the first entry of an epoch, and only that.")
        if entry.seq == 0 and (entry.prev != ZERO_DIGEST or entry.offset):
            raise RefusedError("The first entry of an epoch follows another.")
        if entries:
            _check_link(entries[-1], bodies[len(entries) - 1], entry)
        entries.append(entry)
    return tuple(entries)


def check_next(last: bytes, entry: Entry) -> None:
    """Raise RefusedError unless ``entry`` follows the one that ``last`` encodes."""
    _check_link(read_entry(last), last, entry)


def _check_link(before: Entry, body: bytes, entry: Entry) -> None:
    """Raise RefusedError unless ``entry`` follows ``before``, which ``body`` encodes."""
    if (entry.author, entry.epoch, entry.seq) != (before.author, before.epoch, before.seq + 1):
        raise RefusedError("The entries of a run are not consecutive.")
    if entry.prev != entry_digest(body) or entry.offset != before.offset + len(body):
        raise RefusedError("An entry does not follow from the one before.")
    if entry.at < before.at:
        raise RefusedError("An entry is older than the one before.")


def fork(one: Run, other: Run) -> Fork:
    """The proof that two runs make, in its one order."""
    if entry_digest(one.bodies[0]) < entry_digest(other.bodies[0]):
        return Fork(one, other)
    return Fork(other, one)


def stated_fork(proof: Fork, swarm: str) -> Place:
    """Where the author has forked, if the signatures of ``proof`` hold, which they need not.

    Raises:
        DecodeError, TooLargeError, RefusedError: as :func:`check_links`.
        ForkError: its runs do not contradict each other, or are in the wrong order.
    """
    one, other = check_links(proof.one.bodies, swarm), check_links(proof.other.bodies, swarm)
    place = Place(one[0].author, one[0].epoch, one[0].seq)
    if place != Place(other[0].author, other[0].epoch, other[0].seq):
        raise ForkError("Its entries stand in different places.")
    if entry_digest(proof.one.bodies[0]) >= entry_digest(proof.other.bodies[0]):
        raise ForkError("Its entries are the same, or in the wrong order.")
    return place


def check_fork(proof: Fork, swarm: str) -> Place:
    """Where the author has forked.

    Raises:
        DecodeError, TooLargeError, RefusedError, ForkError: as :func:`stated_fork`.
        BadSignatureError: it did not sign one of them.
    """
    place = stated_fork(proof, swarm)
    for run in (proof.one, proof.other):
        check_signature(place.author, run.bodies[-1], run.signature)
    return place
