"""A round whose truth is known, reduced to what it says about each peer.

Made from the receipt of a round and a judgement of its answers: a calibration task, an operator's
own question, or a real question that somebody graded. What is kept has no texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta

from protocol import limits
from protocol.digest import digest
from protocol.envelope import Key, open_as
from protocol.errors import ReceiptError, UngradableError
from protocol.messages import (
    MICRO,
    ClassIndex,
    Commit,
    Count,
    Part,
    Round32,
    ShortText,
)
from protocol.receipt import Core, Heard, Micro, Tally, read
from swarm.answers import key
from swarm.consensus import Case
from swarm.replay import fold
from swarm.reputation import confidence_bin
from swarm.slate import Opened

Kind = Literal["admission", "hidden", "graded"]
FiveTallies = tuple[Tally, Tally, Tally, Tally, Tally]
WRONG_BYTES = 8
"""Of the digest that names a wrong answer: enough to see that two peers gave the same one."""


class Mark(Part, frozen=True):
    """What one peer did in a trial.

    Attributes:
        model: content id that its Commit claims.
        judge: right picks among pairs with exactly one right answer, by stated sureness; a pair
            shown in both orders counts once, a tie or an abstention half right.
        right: whether its answer was.
        wrong: names its answer where that was wrong, else empty.
        latency_ms: from the start of the round to its Commit, by the asker's clock.
        answer_bytes: of UTF-8.
    """

    peer: Key
    model: ShortText
    judge: FiveTallies
    right: bool
    wrong: Annotated[bytes, Meta(max_length=WRONG_BYTES)]
    latency_ms: Count
    answer_bytes: Count


class Trial(Part, frozen=True):
    """A round whose truth is known.

    Attributes:
        at: Unix time in seconds.
        topic: of the question, empty where unknown.
        task: what was drawn (family, level and style, between slashes), empty for a real question.
        kind: ``admission`` can be recognised as a test, the others cannot.
        chosen: whether the consensus's answer was right; None where it gave none.
        right: the right class, None where none is.
        answerers: who revealed an answer.
        weighted, equal: features of each class (votes, strength, evidence, in 1e-6) as the rules
            of those names saw them with the evidence of that time; empty where it had none.
    """

    round: Round32
    at: Count
    topic: ShortText
    task: ShortText
    kind: Kind
    chosen: bool | None
    right: ClassIndex | None
    answerers: Count
    weighted: Annotated[tuple[tuple[Micro, Micro, Micro], ...], Meta(max_length=limits.COMMITTEE)]
    equal: Annotated[tuple[tuple[Micro, Micro, Micro], ...], Meta(max_length=limits.COMMITTEE)]
    marks: Annotated[tuple[Mark, ...], Meta(max_length=limits.COMMITTEE)]


Truth = Sequence[bool | None]
"""Whether each class is right; None where that is unknown."""


def tallies(case: Case, right: Truth) -> dict[int, FiveTallies]:
    """What each seat's verdicts were worth, where the truth tells a pair apart.

    Pairs that hold the judge's own answer count as well: for a specialist its own answer is the
    evidence, and how far it may be believed there is what has to be known. Leaving them out was
    measured: 15 points worse on the bundled models.

    """
    half = 1 + case.both_orders
    counts = {vote.seat: [[0, 0] for _ in range(5)] for vote in case.votes}
    for vote in case.votes:
        row = vote.row
        if {right[row.first], right[row.second]} != {True, False}:
            continue
        place, gained = 0, MICRO // 2
        if row.p is not None:
            place = confidence_bin(row.p)
            if 2 * row.p != MICRO:
                gained = MICRO * ((2 * row.p > MICRO) == right[row.first])
        counts[vote.seat][place][0] += gained // half
        counts[vote.seat][place][1] += MICRO // half
    return {seat: five([Tally(*pair) for pair in pairs]) for seat, pairs in counts.items()}


def five(found: Sequence[Tally]) -> FiveTallies:
    """A tally for each bin of sureness."""
    first, second, third, fourth, fifth = found
    return first, second, third, fourth, fifth


NO_TALLIES: FiveTallies = five([Tally(0, 0)] * 5)


def name_of(text: str) -> bytes:
    """Names a wrong answer, the same for answers that say the same."""
    return digest("wrong", *key(text))[:WRONG_BYTES]


class Judged(NamedTuple):
    """A round taken from its receipt.

    Attributes:
        models: content ids that the Commits claim, by seat.
        latencies_ms: from the start of the round to each Commit, by seat.
    """

    question: str
    core: Core
    opened: Opened
    case: Case
    chosen: int | None
    models: tuple[str, ...]
    latencies_ms: tuple[int, ...]


def judged(receipt: bytes) -> Judged:
    """The answers and verdicts of a receipt.

    Raises:
        ReceiptError: it is damaged, has no opening, or ended before answers were shown.
    """
    file, core, opening = read(receipt)
    if opening is None:
        raise ReceiptError("Its opening is detached: there are no answers to grade.")
    again = fold(core, opening, file.core.signer)
    if again.core != core or again.opened is None or core.judging is None:
        raise ReceiptError("The round ended before its answers were shown.")
    commits = {one.signer: open_as(one, Commit) for one in core.commits}
    arrived = {
        entry.envelope.digest: entry.at for entry in opening.journal if isinstance(entry, Heard)
    }
    return Judged(
        opening.plan.question,
        core,
        again.opened,
        again.case(),
        core.result.winner if core.result.outcome == "answer" else None,
        tuple(commits[peer].model.content_id for peer in again.opened.peers),
        tuple(arrived.get(one.digest, 0) for one in core.commits),
    )


def truth(round_: Judged, right: bool, answer: str | None) -> Truth:
    """What a grade says of each class.

    Args:
        right: whether the swarm's answer was.
        answer: the right one, where it is known.

    Raises:
        UngradableError: the grade contradicts itself, or there is nothing that it says.
    """
    classes = range(len(round_.case.classes))
    if answer is not None:
        found = [key(text) == key(answer) for text in round_.opened.answers]
        if right != (round_.chosen is not None and found[round_.chosen]):
            raise UngradableError(f"The swarm's answer and {answer!r} do not go with that.")
        return found
    if round_.chosen is None:
        raise UngradableError("The swarm gave no answer; say which is right with --answer.")
    return [right if index == round_.chosen else (False if right else None) for index in classes]


def marks(round_: Judged, right: Truth) -> tuple[Mark, ...]:
    """One mark for each seat that revealed an answer of known truth."""
    own = {seat: index for index, members in enumerate(round_.case.classes) for seat in members}
    verdicts = tallies(round_.case, right)
    found = []
    for seat in sorted(own):
        text, good = round_.opened.texts[seat] or "", right[own[seat]]
        if good is None and True not in right:
            continue
        # Where the right answer is known, one that only holds it among others is not right: else
        # who hedges could not be tested.
        good = good is True
        found.append(
            Mark(
                round_.opened.peers[seat],
                round_.models[seat],
                verdicts.get(seat, NO_TALLIES),
                good,
                b"" if good else name_of(text),
                round_.latencies_ms[seat],
                len(text.encode()),
            )
        )
    return tuple(found)
