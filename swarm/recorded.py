"""Recorded answers and judgements: rows of JSON lines to questions.

Two formats. *Scores*: ``answers.jsonl`` has questions with their answers, each with the ``final``
that answers are compared by and whether it is ``correct``; ``judgments.jsonl`` has a judge's
``scores`` of all answers to a question, of which the higher is preferred. *Votes*:
``answers.jsonl`` has a text by model, ``votes.jsonl`` a judge's verdict on two of them as shown,
and ``human.jsonl`` people's verdicts, which stand for the truth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Annotated, Final, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

SEATS_MOST: Final = 48
COMPARING: Final = "triple"
"""The mode in which judges saw several answers at a time."""

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Score = Annotated[float, Meta(ge=-1e9, le=1e9)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Verdict = Literal["first", "second", "tie"]
Row = TypeVar("Row", bound=msgspec.Struct)
_WON: Final[Mapping[Verdict, float]] = {"first": 1.0, "second": 0.0, "tie": 0.5}


class RecordedError(ValueError):
    """A recorded file does not hold what it should; the text names file and line."""


class Bout(NamedTuple):
    """A judge's verdict on two answers.

    Attributes:
        judge, first, second: seats; in the votes format ``first`` was shown first.
        outcome: 1 where the first is preferred, 0 where the second is, 0.5 for a tie.
    """

    judge: int
    first: int
    second: int
    outcome: float


@dataclass(frozen=True, slots=True)
class Question:
    """One recorded question.

    Attributes:
        texts: what answers are compared by, for each seat; None where it gave none.
        worth: of each answer, by seat: 1 right, 0 wrong, or the share of people won over.
        bouts: all verdicts.
        preferred: P(first is better) by the truth, for seats with first < second; absent where
            nobody knows.
    """

    texts: tuple[str | None, ...]
    worth: Mapping[int, float]
    bouts: tuple[Bout, ...]
    preferred: Mapping[tuple[int, int], float]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A data set.

    Attributes:
        seats: names of those that answer or judge.
        judges: seats that judge, in the order in which the files name them.
        ordered: verdicts say which answer was shown first.
        questions: in the order of the file.
    """

    seats: tuple[str, ...]
    judges: tuple[int, ...]
    ordered: bool
    questions: tuple[Question, ...]


# --- the scores format ------------------------------------------------------------------------


class _Answer(msgspec.Struct):
    model: Name
    final: str | None
    correct: Share | bool


class _Answered(msgspec.Struct):
    idx: int | Name
    answers: Annotated[tuple[_Answer, ...], Meta(min_length=1, max_length=SEATS_MOST)]
    dataset: str = ""


class _Judgment(msgspec.Struct):
    idx: int | Name
    judge: Name
    scores: Annotated[tuple[Score | None, ...], Meta(max_length=SEATS_MOST)]
    mode: str = ""
    dataset: str = ""


_Key = tuple[str, int | str]


def read_scores(
    answers: Iterable[bytes], judgments: Iterable[bytes], mode: str | None = None
) -> Recorded:
    """A data set in the scores format.

    Args:
        answers, judgments: the lines of ``answers.jsonl`` and ``judgments.jsonl``.
        mode: which judgements to take; the others are passed over. None takes ``COMPARING`` if
            there are such, or else the only mode there is.

    Raises:
        RecordedError: a line is broken, contradicts another or is of an unknown question; or
            there is nothing to judge by.
    """
    asked: dict[_Key, _Answered] = {}
    for place, row in _rows("answers.jsonl", answers, _Answered):
        key = (row.dataset, row.idx)
        if key in asked:
            raise RecordedError(f"{place}: question {row.idx!r} is there twice")
        if len({one.model for one in row.answers}) < len(row.answers):
            raise RecordedError(f"{place}: a model answers twice")
        asked[key] = row
    seats = _Seats(one.model for row in asked.values() for one in row.answers)
    scores: dict[_Key, dict[str, tuple[float | None, ...]]] = defaultdict(dict)
    judges: dict[str, None] = {}
    found = list(_rows("judgments.jsonl", judgments, _Judgment))
    mode = _mode({judgment.mode for _, judgment in found}, mode)
    for place, judgment in found:
        if judgment.mode != mode:
            continue
        key = (judgment.dataset, judgment.idx)
        if key not in asked:
            raise RecordedError(f"{place}: question {judgment.idx!r} has no answers")
        if len(judgment.scores) != len(asked[key].answers):
            raise RecordedError(
                f"{place}: {len(judgment.scores)} scores for {len(asked[key].answers)} answers"
            )
        if judgment.judge in scores[key]:
            raise RecordedError(f"{place}: {judgment.judge} judges the question twice")
        scores[key][judgment.judge] = judgment.scores
        judges[judgment.judge] = None
    seats.add(judges)
    return Recorded(
        tuple(seats.names),
        tuple(seats.names[name] for name in judges),
        False,
        tuple(_scored(row, scores[key], seats.names) for key, row in asked.items()),
    )


def _mode(there: set[str], wanted: str | None) -> str:
    if wanted is None:
        wanted = COMPARING if COMPARING in there or len(there) > 1 else min(there)
    if wanted not in there:
        modes = ", ".join(sorted(there))
        raise RecordedError(f"judgments.jsonl: there are none of mode {wanted!r}, but of {modes}")
    return wanted


def _scored(
    row: _Answered,
    scores: Mapping[str, tuple[float | None, ...]],
    seats: Mapping[str, int],
) -> Question:
    texts: list[str | None] = [None] * len(seats)
    worth = {}
    for one in row.answers:
        # Where there was nothing to extract, two answers do not say the same.
        said = one.final is not None and one.final.strip()
        texts[seats[one.model]] = one.final if said else f"(no final answer of {one.model})"
        worth[seats[one.model]] = float(one.correct)
    place = [seats[one.model] for one in row.answers]
    bouts = []
    for judge, given in scores.items():
        for left, right in combinations(range(len(place)), 2):
            mine, other = given[left], given[right]
            if mine is not None and other is not None:
                bouts.append(Bout(seats[judge], place[left], place[right], _won(mine, other)))
    preferred = {
        (first, second): _won(worth[first], worth[second])
        for first, second in combinations(sorted(worth), 2)
        if worth[first] != worth[second]
    }
    return Question(tuple(texts), worth, tuple(bouts), preferred)


def _won(one: float, other: float) -> float:
    return 0.5 if one == other else float(one > other)


# --- the votes format -------------------------------------------------------------------------


class _Texts(msgspec.Struct):
    question_id: int | Name
    answers: Annotated[dict[Name, str], Meta(min_length=1, max_length=SEATS_MOST)]


class _Label(msgspec.Struct):
    question_id: int | Name
    first: Name
    second: Name
    verdict: Verdict


class _Vote(_Label):
    judge: Name


def read_votes(
    answers: Iterable[bytes], votes: Iterable[bytes], labels: Iterable[bytes]
) -> Recorded:
    """A data set in the votes format.

    An answer is worth the mean over the others of how often people prefer it to each.

    Args:
        answers, votes, labels: the lines of ``answers.jsonl``, ``votes.jsonl``, ``human.jsonl``.

    Raises:
        RecordedError: a line is broken or of an unknown question or answer; or there is nothing
            to judge by, or no human label on a question.
    """
    texts: dict[int | str, Mapping[str, str]] = {}
    for place, row in _rows("answers.jsonl", answers, _Texts):
        if row.question_id in texts:
            raise RecordedError(f"{place}: question {row.question_id!r} is there twice")
        texts[row.question_id] = row.answers
    seats = _Seats(name for row in texts.values() for name in row)
    human: dict[int | str, dict[tuple[int, int], list[float]]] = defaultdict(dict)
    for place, label in _rows("human.jsonl", labels, _Label):
        _check_pair(place, label, texts)
        first, second, won = _ascending(
            seats.names[label.first], seats.names[label.second], _WON[label.verdict]
        )
        human[label.question_id].setdefault((first, second), []).append(won)
    bouts: dict[int | str, list[Bout]] = defaultdict(list)
    judges: dict[str, None] = {}
    for place, vote in _rows("votes.jsonl", votes, _Vote):
        _check_pair(place, vote, texts)
        seats.add((vote.judge,))
        judges[vote.judge] = None
        bouts[vote.question_id].append(
            Bout(
                seats.names[vote.judge],
                seats.names[vote.first],
                seats.names[vote.second],
                _WON[vote.verdict],
            )
        )
    if not judges:
        raise RecordedError("votes.jsonl: there are no votes")
    questions = []
    for name, answered in texts.items():
        if not human[name]:
            raise RecordedError(f"human.jsonl: question {name!r} has no label")
        shares = {pair: fmean(won) for pair, won in human[name].items()}
        texts_of: list[str | None] = [None] * len(seats.names)
        for model, text in answered.items():
            texts_of[seats.names[model]] = text
        worth = {seats.names[model]: _won_over(seats.names[model], shares) for model in answered}
        questions.append(Question(tuple(texts_of), worth, tuple(bouts[name]), shares))
    return Recorded(
        tuple(seats.names), tuple(seats.names[name] for name in judges), True, tuple(questions)
    )


def _won_over(seat: int, shares: Mapping[tuple[int, int], float]) -> float:
    """Mean share of people that prefer this seat's answer; half where nobody was asked."""
    won = [
        share if first == seat else 1.0 - share
        for (first, second), share in shares.items()
        if seat in (first, second)
    ]
    return fmean(won) if won else 0.5


def _check_pair(place: str, row: _Label, texts: Mapping[int | str, Mapping[str, str]]) -> None:
    known = texts.get(row.question_id)
    if known is None:
        raise RecordedError(f"{place}: question {row.question_id!r} has no answers")
    for name in (row.first, row.second):
        if name not in known:
            raise RecordedError(f"{place}: {name} has no answer to question {row.question_id!r}")
    if row.first == row.second:
        raise RecordedError(f"{place}: {row.first} is compared with itself")


def _ascending(first: int, second: int, won: float) -> tuple[int, int, float]:
    return (first, second, won) if first < second else (second, first, 1.0 - won)


# --- lines --------------------------------------------------------------------------------------


class _Seats:
    """Names in the order in which they appear."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names: dict[str, int] = {}
        self.add(names)

    def add(self, names: Iterable[str]) -> None:
        for name in names:
            self.names.setdefault(name, len(self.names))
        if len(self.names) > SEATS_MOST:
            raise RecordedError(f"there are more than {SEATS_MOST} models and judges")


def _rows(file: str, lines: Iterable[bytes], kind: type[Row]) -> Iterable[tuple[str, Row]]:
    """Each row and where it stands; blank lines are passed over."""
    decoder = msgspec.json.Decoder(kind)
    found = False
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        found = True
        try:
            row = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RecordedError(f"{place}: {error}") from error
        yield place, row
    if not found:
        raise RecordedError(f"{file}: it is empty")
