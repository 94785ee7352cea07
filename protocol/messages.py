"""Everything that peers say to each other in a round.

What they say of themselves, and of others, is in their logs: :mod:`protocol.ledger`.

All are frozen, typed and bounded by their types; unknown fields are refused. Probabilities are
integers of 1e-6. Every message travels in a signed :class:`protocol.envelope.Envelope`; a
message of the asker counts only if its signer signed the Invite.

======== ================ ==================================================================
message  way              purpose
======== ================ ==================================================================
Invite   asker → peers    opens a round; its digest is the round's id
Commit   peer → asker     fixes an answer that nobody can read yet
Decline  peer → asker     says at once that there will be none
Roster   asker → peers    fixes who committed to what
Reveal   peer → asker     opens the Commit
Slate    asker → judges   all Commits and Reveals, and the asker's secret: seeds the pairs
Ballot   judge → asker    verdicts on the pairs of one wave
Ack      asker → judge    the asker has that Ballot, and cannot deny it
WaveClose asker → judges  fixes the set of Ballots so far; opens the next wave or ends judging
Close    asker → peers    the outcome and the receipt's digest
======== ================ ==================================================================
"""

from __future__ import annotations

from typing import Annotated, Literal, cast

import msgspec
from msgspec import Meta

from protocol import limits
from protocol.codec import decode, encode
from protocol.digest import digest
from protocol.envelope import Envelope, Key, Signer, open_as
from protocol.ids import Digest, PeerId, RoundId

MICRO = 1_000_000
"""One, in the unit of probabilities and scores."""

Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Hash = Annotated[Digest, Meta(min_length=32, max_length=32)]
Round32 = Annotated[RoundId, Meta(min_length=32, max_length=32)]
ShortText = Annotated[str, Meta(max_length=limits.TEXT_CHARS)]
# A character takes at least one byte, so these bound the bytes too; the exact byte limits are
# checked where the text is used.
QuestionText = Annotated[str, Meta(min_length=1, max_length=limits.QUESTION_BYTES)]
AnswerText = Annotated[str, Meta(max_length=limits.ANSWER_BYTES)]
Milliseconds = Annotated[int, Meta(ge=1, le=limits.PHASE_MS)]
Count = Annotated[int, Meta(ge=0, le=2**48)]
ClassIndex = Annotated[int, Meta(ge=0, lt=limits.COMMITTEE)]
WaveIndex = Annotated[int, Meta(ge=0, lt=limits.WAVES)]
Probability = Annotated[int, Meta(ge=0, le=MICRO)]
Stages = Annotated[int, Meta(ge=1, le=limits.STAGES)]


DeclineReason = Literal["busy", "refused", "failed", "unsupported"]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    """What all messages share: immutability, a type tag, no room for unknown fields."""


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A part of a message, encoded as an array."""


class Phases(Part, frozen=True):
    """How long each phase may take, measured by each receiver's own monotonic clock, in ms."""

    commit: Milliseconds
    reveal: Milliseconds
    judge: Milliseconds


class Model(Part, frozen=True):
    """What a peer says it runs. A claim; calibration is what tests it.

    Attributes:
        content_id: hex SHA-256 of weights and tokenizer, or empty where unknowable.
    """

    name: ShortText
    family: ShortText
    content_id: ShortText


class Invite(Message, frozen=True, tag="invite", omit_defaults=True):
    """Opens a round. Defaults are left out of its bytes: a plain round reads as it always did.

    Attributes:
        swarm: a round belongs to one swarm.
        nonce: makes the round's id unique and hides the question behind it.
        answer_bytes: answers longer than this, in UTF-8, count as missing.
        answer_tokens: what a model should need at most.
        secret_hash: fixes the asker's secrets, which later go into the pair seeds, so that the
            asker cannot choose a seed once it has seen the answers; see :func:`stage_secret`.
        adaptive: judging goes on in many small waves, see :mod:`swarm.pairing`.
        stages: how many Rosters there may be.
    """

    version: Count
    swarm: ShortText
    nonce: Bytes32
    question: QuestionText
    answer_bytes: Annotated[int, Meta(ge=1, le=limits.ANSWER_BYTES)]
    answer_tokens: Annotated[int, Meta(ge=1, le=limits.ANSWER_TOKENS)]
    phases: Phases
    secret_hash: Hash
    adaptive: bool = False
    stages: Stages = 1


class Commit(Message, frozen=True, tag="commit"):
    """Fixes an answer: ``commitment = commitment(round, peer, salt, answer)``."""

    round: Round32
    commitment: Hash
    model: Model


class Decline(Message, frozen=True, tag="decline"):
    """No answer will come."""

    round: Round32
    reason: DeclineReason
    detail: ShortText


class RosterEntry(Part, frozen=True):
    """One answerer: ``commit`` is the digest of its Commit."""

    peer: Key
    commit: Hash


class Roster(Message, frozen=True, tag="roster"):
    """Who answers. ``entries`` are sorted by peer; a second one for a stage is refused.

    Attributes:
        stage: how many Rosters of this round came before.
        previous: digest of the last of them, zeros in the first.
    """

    round: Round32
    stage: Annotated[int, Meta(ge=0, lt=limits.STAGES)]
    previous: Hash
    entries: Annotated[tuple[RosterEntry, ...], Meta(min_length=1, max_length=limits.COMMITTEE)]


class Reveal(Message, frozen=True, tag="reveal"):
    """Opens a Commit; sent once the Roster has fixed everybody's."""

    round: Round32
    roster: Hash
    salt: Bytes32
    answer: AnswerText


class SlateEntry(Part, frozen=True):
    """One answerer's signed Commit, and its signed Reveal or None where it is missing."""

    commit: Envelope
    reveal: Envelope | None


class Slate(Message, frozen=True, tag="slate"):
    """All that is to be judged, in the order of the Roster, and the asker's secret for it."""

    round: Round32
    roster: Hash
    entries: Annotated[tuple[SlateEntry, ...], Meta(min_length=1, max_length=limits.COMMITTEE)]
    secret: Bytes32


class Row(Part, frozen=True):
    """One verdict: ``first`` was shown first; ``p`` is P(first is the right one), None abstains."""

    first: ClassIndex
    second: ClassIndex
    p: Probability | None


class Ballot(Message, frozen=True, tag="ballot"):
    """A judge's verdicts on exactly the pairs that the seed gives it in this wave.

    Attributes:
        follows: digest of the WaveClose before this wave, zeros in the first.
    """

    round: Round32
    slate: Hash
    wave: WaveIndex
    follows: Hash
    rows: Annotated[tuple[Row, ...], Meta(max_length=limits.ROWS_PER_BALLOT)]


class Ack(Message, frozen=True, tag="ack"):
    """The asker holds this Ballot: with it, a receipt that leaves the Ballot out is a lie."""

    round: Round32
    ballot: Hash


class Duel(Part, frozen=True):
    """A contested pair of classes, ``first < second``, and how many of the draws fell on it."""

    first: ClassIndex
    second: ClassIndex
    draws: Annotated[int, Meta(ge=1, le=limits.DUELS)]


class WaveClose(Message, frozen=True, tag="wave-close", omit_defaults=True):
    """Fixes the ballots of this wave: ``ballots = ballot_set(digests)``.

    Attributes:
        more: another wave follows; otherwise judging has ended.
        duels: in the adaptive schedule, what the next wave's pairs are drawn from; sorted.
    """

    round: Round32
    slate: Hash
    wave: WaveIndex
    ballots: Hash
    more: bool
    duels: Annotated[tuple[Duel, ...], Meta(max_length=limits.DUELS)] = ()


class Close(Message, frozen=True, tag="close"):
    """The round is over. ``receipt`` is the receipt's digest, zeros where there is none."""

    round: Round32
    outcome: ShortText
    receipt: Hash


class Proof(Part, frozen=True):
    """Two messages of one signer that no honest peer signs both; see :mod:`protocol.proofs`."""

    first: Envelope
    second: Envelope


FromAsker = Invite | Roster | Slate | Ack | WaveClose | Close
FromPeer = Commit | Decline | Reveal | Ballot
AnyMessage = FromAsker | FromPeer
_ANY = cast("type[AnyMessage]", AnyMessage)


def seal(signer: Signer, message: Message) -> Envelope:
    """``message`` signed by ``signer``."""
    return signer.seal(encode(message))


def secret_hash(secret: bytes) -> Digest:
    """What the Invite shows of the asker's secret."""
    return digest("secret", secret)


def stage_secret(secret: bytes, later: int) -> bytes:
    """The asker's secret for a stage that ``later`` stages may follow.

    A hash chain (Lamport 1981): each stage's is the digest of the next one's, and the Invite
    shows the digest of the first, so that it fixes all and one tells nothing of those to come.

    Args:
        secret: the last one, 32 random bytes.
    """
    for _ in range(later):
        secret = secret_hash(secret)
    return secret


def commitment(round_id: RoundId, peer: PeerId, salt: bytes, answer: str) -> Digest:
    """What a Commit shows of an answer. Bound to peer and round: a copied one opens for nobody."""
    return digest("commit", round_id, peer, salt, digest("answer", answer))


def pair_seed(secret: bytes, roster: Digest, salts: tuple[bytes | None, ...]) -> Digest:
    """The seed of all choices in judging.

    Args:
        secret: the asker's for this stage, fixed by the Invite.
        roster: digest of the Roster.
        salts: in roster order; None (zeros) where a Reveal is missing.
    """
    return digest("pair-seed", secret, roster, *(salt or bytes(32) for salt in salts))


def ballot_set(ballots: tuple[Digest, ...]) -> Digest:
    """Names a set of ballots, whatever order they came in."""
    return digest("ballots", *sorted(ballots))


class Incoming(msgspec.Struct, frozen=True):
    """A message whose signature has been verified, and the envelope it came in."""

    envelope: Envelope
    message: AnyMessage

    @property
    def peer(self) -> PeerId:
        """Who signed it."""
        return self.envelope.signer


def parse(payload: bytes) -> Incoming:
    """The verified message in a payload.

    Raises:
        DecodeError, TooLargeError, BadSignatureError: it is not one.
    """
    return opened(decode(payload, Envelope))


def opened(envelope: Envelope) -> Incoming:
    """The verified message in an envelope.

    Raises:
        DecodeError, TooLargeError, BadSignatureError: it holds none.
    """
    return Incoming(envelope, open_as(envelope, _ANY))
