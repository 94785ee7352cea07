"""The receipt of a round: its structure and signatures. Recomputing it is :mod:`swarm.verify`.

A file holds a signed *core* and an *opening*. The core has no text and no clock: who committed,
who judged what how, the counts behind each weight, what was missing, the result. The opening
has the texts and everything the asker received, so that the round can be replayed; it can be
detached, and then the core still verifies, less what only the texts can show. The core holds
the opening's digest, which hides the texts (the opening contains secret salts).

It proves who said what and that the winner follows from it; not that the weights are true, or
that this was the only try.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from protocol import limits
from protocol.codec import decode, encode
from protocol.digest import digest
from protocol.envelope import Envelope, Key, Signature, open_as
from protocol.errors import ProtocolError, ReceiptError
from protocol.ids import Digest
from protocol.messages import (
    MICRO,
    Bytes32,
    ClassIndex,
    Count,
    Hash,
    Message,
    Part,
    Phases,
    Probability,
    QuestionText,
    Round32,
    ShortText,
)

Micro = Annotated[int, Meta(ge=-(2**53), le=2**53)]
# A hundred: far above any fit, and far below where exp overflows.
Coefficient = Annotated[int, Meta(ge=-100_000_000, le=100_000_000)]
StageSizes = Annotated[
    tuple[Annotated[int, Meta(ge=0, le=limits.COMMITTEE)], ...],
    Meta(min_length=1, max_length=limits.STAGES),
]
SeatIndex = Annotated[int, Meta(ge=0, lt=limits.COMMITTEE)]
Phase = Literal["commit", "reveal", "judge"]
FaultKind = Literal[
    "declined", "lost", "malformed", "equivocation", "unsent",
    "no-commit", "late-commit",
    "no-reveal", "late-reveal", "commit-mismatch", "oversize",
    "no-ballot", "late-ballot", "bad-ballot",
]  # fmt: skip
BreakKind = Literal["malformed", "lost", "unsent"]
"""Faults that do not come from a valid message."""
RuleName = Literal["uncalibrated", "equal", "weighted"]
Outcome = Literal["answer", "no-consensus", "none-right", "partial", "cancelled"]


class Tally(Part, frozen=True):
    """How many of how many, in 1e-6: forgetting makes counts fractional.

    Raises:
        ValueError: more right than there were.
    """

    right: Count
    total: Count

    def __post_init__(self) -> None:
        if self.right > self.total:
            raise ValueError("more calibration questions right than asked")


class Standing(Part, frozen=True):
    """The evidence behind one peer's weight, for questions like this one.

    Attributes:
        judge: right picks among pairs with exactly one right answer, by how sure the judge said
            it was: the bins of :data:`swarm.reputation.BIN_FLOORS`.
        answer: right answers among answers given.
        admitted: it has passed the admission test; otherwise it is a newcomer.
        divisor: its weight is divided by this (1e-6): errors shared with others, and evidence
            that a peer could have recognised as a test.
        source: who attests the counts: ``asker``, or a verifier's peer id.
    """

    peer: Key
    judge: tuple[Tally, Tally, Tally, Tally, Tally]
    answer: Tally
    admitted: bool
    divisor: Annotated[int, Meta(ge=MICRO, le=1000 * MICRO)]
    source: ShortText


class Rule(Part, frozen=True):
    """How verdicts become a winner; see :mod:`swarm.consensus`.

    Attributes:
        name: ``uncalibrated`` (nobody proven), ``equal`` (on this topic nobody is known better
            than another) or ``weighted``.
        theta: weights of votes, Bradley–Terry strength and single-truth evidence, in 1e-6.
        none: t0 and t1 of P(none right), in 1e-6.
        own: what a verdict on a pair with the judge's own answer weighs, beside others, in 1e-6.
        calibration_rounds: behind theta and the confidence; below 30 there is no confidence.
        stop: judging ends once the winner's probability reaches this (1e-6); None: never early.
    """

    name: RuleName
    theta: tuple[Coefficient, Coefficient, Coefficient]
    none: tuple[Coefficient, Coefficient]
    own: Probability
    calibration_rounds: Count
    stop: Probability | None


PerBin = tuple[Micro, Micro, Micro, Micro, Micro]


class Weight(Part, frozen=True):
    """What one seat weighs, in 1e-6.

    Attributes:
        judge: its verdicts, by how sure it says it is.
        trust: how far its stated probability is believed, by the same bins: at 0 it is read as
            "cannot tell".
        answer: its answer.
    """

    judge: PerBin
    trust: PerBin
    answer: Micro


class AnswerClass(Part, frozen=True):
    """Answers that say the same: seats that gave them."""

    members: Annotated[tuple[SeatIndex, ...], Meta(min_length=1, max_length=limits.COMMITTEE)]


class Wave(Part, frozen=True):
    """One wave of judging: the signed WaveClose, and the Ballots it fixes, sorted by judge."""

    close: Envelope
    ballots: Annotated[tuple[Envelope, ...], Meta(max_length=limits.COMMITTEE)]


class Fault(Part, frozen=True):
    """Who failed, when and how."""

    peer: Key
    phase: Phase
    kind: FaultKind
    detail: ShortText


class Result(Part, frozen=True):
    """What follows from the ballots.

    Attributes:
        winner: a class, or None.
        scores: of each class, 1e-6.
        shares: softmax of the scores, 1e-6. Not a probability of being right.
        confidence: P(winner is right) in 1e-6, or None while uncalibrated.
        plurality: the class with the most answerers, None on a tie.
        unweighted: the winner if all weighed the same, None on a tie.
        margin: first minus second score, 1e-6; 0 with fewer than two classes.
    """

    outcome: Outcome
    winner: ClassIndex | None
    scores: Annotated[tuple[Micro, ...], Meta(max_length=limits.COMMITTEE)]
    shares: Annotated[tuple[Probability, ...], Meta(max_length=limits.COMMITTEE)]
    confidence: Probability | None
    plurality: ClassIndex | None
    unweighted: ClassIndex | None
    margin: Micro


class Judging(Part, frozen=True):
    """What the judges were given and said; absent where too few answered.

    Attributes:
        slate: digest of the Slate.
        slate_signature: the asker's, over a Slate that the opening rebuilds.
        seed: of the pairs.
        missing_reveals: seats that committed and did not reveal; with m of them the asker could
            have chosen among at most 2^m seeds.
        acks: the asker's Acks, in the order of the ballots of all waves.
        stopped: why judging ended: all waves done, or the stop threshold reached.
    """

    slate: Hash
    slate_signature: Signature
    seed: Hash
    missing_reveals: Count
    classes: Annotated[tuple[AnswerClass, ...], Meta(max_length=limits.COMMITTEE)]
    waves: Annotated[tuple[Wave, ...], Meta(max_length=limits.WAVES)]
    acks: Annotated[tuple[Envelope, ...], Meta(max_length=limits.COMMITTEE * limits.WAVES)]
    stopped: Literal["schedule", "confident"]


class Core(Message, frozen=True, tag="receipt"):
    """The signed part of a receipt.

    Attributes:
        round: digest of the Invite, which hides the question behind a nonce.
        adaptive: judging went on in many small waves.
        stages: peers invited up to each stage, had all taken place.
        standings: for each invited peer, sorted by peer.
        earlier: the Rosters of earlier stages, in order.
        roster: the asker's signed Roster, the last; None where nobody committed.
        commits: the signed Commits in roster order.
        weights: of the seats of the roster.
        opening: digest of the opening.
    """

    version: Count
    swarm: ShortText
    round: Round32
    rule: Rule
    adaptive: bool
    stages: StageSizes
    standings: Annotated[tuple[Standing, ...], Meta(max_length=limits.COMMITTEE)]
    earlier: Annotated[tuple[Envelope, ...], Meta(max_length=limits.STAGES - 1)]
    roster: Envelope | None
    commits: Annotated[tuple[Envelope, ...], Meta(max_length=limits.COMMITTEE)]
    weights: Annotated[tuple[Weight, ...], Meta(max_length=limits.COMMITTEE)]
    judging: Judging | None
    faults: Annotated[tuple[Fault, ...], Meta(max_length=4 * limits.COMMITTEE)]
    result: Result
    opening: Hash


class Plan(Part, frozen=True):
    """All that the asker decided before the round began, its entropy included.

    Attributes:
        invited: one Standing each, in the order in which stages take them.
        min_answers: with fewer answers there is no judging.
        nonce, secret: 32 random bytes each.
        topic: of the question, as the asker understands it; empty where it does not.
        solo: one peer alone is asked, since the asker's evidence says that the swarm does not
            reach it on this topic.
        adaptive: judging goes on in many small waves, see :mod:`swarm.pairing`.
        stages: how many of ``invited`` are asked up to each stage; the last stage asks all.
    """

    swarm: ShortText
    question: QuestionText
    answer_bytes: Count
    answer_tokens: Count
    phases: Phases
    min_answers: Annotated[int, Meta(ge=1, le=limits.COMMITTEE)]
    invited: Annotated[tuple[Standing, ...], Meta(max_length=limits.COMMITTEE)]
    rule: Rule
    nonce: Bytes32
    secret: Bytes32
    topic: ShortText
    solo: bool
    adaptive: bool = False
    stages: Annotated[tuple[Count, ...], Meta(max_length=limits.STAGES - 1)] = ()


class Heard(Message, frozen=True, tag="heard"):
    """The asker received this message."""

    at: Count
    envelope: Envelope


class Broke(Message, frozen=True, tag="broke"):
    """A peer sent what is not a message, or the way to it failed; ``kind`` is the fault."""

    at: Count
    peer: Key
    kind: BreakKind
    detail: ShortText


class Expired(Message, frozen=True, tag="expired"):
    """The phase ran out of time."""

    at: Count


class Cancelled(Message, frozen=True, tag="cancelled"):
    """The asker gave up."""

    at: Count


Entry = Heard | Broke | Expired | Cancelled
"""One input of the round; ``at`` is milliseconds after its start, and nothing depends on it."""


class Opening(Part, frozen=True):
    """The detachable texts: what was planned, what came in, in order."""

    plan: Plan
    invite: Envelope
    journal: tuple[Entry, ...]


class ReceiptFile(Part, frozen=True):
    """A receipt as it is stored."""

    core: Envelope
    opening: Annotated[bytes, Meta(max_length=limits.RECEIPT_BYTES)] | None


def opening_digest(opening: bytes) -> Digest:
    """What the core holds of the opening."""
    return digest("opening", opening)


def read(data: bytes) -> tuple[ReceiptFile, Core, Opening | None]:
    """Decode a receipt file and check the core's signature and the opening's digest.

    Raises:
        ReceiptError: it is no receipt, or a byte of it was changed; says which part.
    """
    try:
        file = decode(data, ReceiptFile, limits.RECEIPT_BYTES)
    except ProtocolError as error:
        raise ReceiptError(f"The file is not a receipt, or was damaged: {error}") from error
    try:
        core = open_as(file.core, Core)
    except ProtocolError as error:
        raise ReceiptError(f"The signed core was changed: {error.user_text()}") from error
    if file.opening is None:
        return file, core, None
    if opening_digest(file.opening) != core.opening:
        raise ReceiptError("The opening (texts and messages) was changed after signing.")
    try:
        opening = decode(file.opening, Opening, limits.RECEIPT_BYTES)
    except ProtocolError as error:
        raise ReceiptError(f"The opening is not readable: {error}") from error
    return file, core, opening


def write(core: Envelope, opening: bytes | None) -> bytes:
    """The bytes of a receipt file."""
    return encode(ReceiptFile(core, opening))
