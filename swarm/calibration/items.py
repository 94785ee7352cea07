"""Questions whose right answers are known, wherever they come from.

An operator's own set is a text of one JSON object a line:

    {"question": "Which port does our gateway listen on?", "answer": "8443"}
    {"question": "Who is on call?", "answer": ["Anna", "Anna Berg"], "topic": "operations"}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from protocol import limits
from protocol.errors import EXIT_USAGE, SwarmError
from swarm import answers
from swarm.calibration.families import CATALOGUE
from swarm.calibration.task import Task

Origin = Literal["generated", "private", "graded"]

SET_BYTES: Final = 16 << 20
SET_ITEMS: Final = 10_000
ACCEPTED: Final = 16
"""Right answers of one question."""
TOPICS: Final = 64


class QuestionSetError(SwarmError):
    """This set of questions cannot be used."""

    code = "question-set"
    exit_code = EXIT_USAGE


@dataclass(frozen=True, slots=True)
class Item:
    """A question and its right answers.

    Attributes:
        answers: each of them right, at least one.
        topic: what it is about, None where nobody said.
        origin: made by a task family, the operator's own, or a real question that was graded.
        task: behind a generated item, which may accept more than ``answers``.
    """

    question: str
    answers: tuple[str, ...]
    topic: str | None
    origin: Origin
    task: Task | None = None

    def is_right(self, text: str) -> bool:
        """Whether ``text`` says the same as a right answer, as :func:`swarm.answers.key` has it."""
        if self.task is not None:
            return CATALOGUE[self.task.family].check(self.task, text)
        found = answers.key(text)
        return any(found == answers.key(right) for right in self.answers)


def of_task(task: Task) -> Item:
    """The item of a generated task; its family is its topic."""
    return Item(task.question, (task.answer,), task.family, "generated", task)


_Answer = Annotated[str, Meta(min_length=1, max_length=limits.ANSWER_BYTES)]


class _Row(Struct, forbid_unknown_fields=True):
    question: Annotated[str, Meta(min_length=1, max_length=limits.QUESTION_BYTES)]
    answer: _Answer | Annotated[list[_Answer], Meta(min_length=1, max_length=ACCEPTED)]
    topic: Annotated[str, Meta(min_length=1, max_length=limits.TEXT_CHARS)] | None = None


def parse(text: str) -> tuple[Item, ...]:
    """An operator's own questions, one JSON object a line; empty lines are skipped.

    Raises:
        QuestionSetError: names the line that is not such an object, asks what an earlier one
            asked, or goes beyond a limit.
    """
    if len(text) > SET_BYTES:
        raise QuestionSetError(f"It has more than {SET_BYTES >> 20} MiB.")
    decoder = msgspec.json.Decoder(_Row)
    found: dict[str, int] = {}
    topics: set[str] = set()
    items = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            raise QuestionSetError(f"Line {number}: {error}") from error
        item = _item(row, number)
        earlier = found.setdefault(item.question, number)
        if earlier != number:
            raise QuestionSetError(f"Line {number} asks what line {earlier} asks.")
        items.append(item)
        topics.update(() if item.topic is None else (item.topic,))
        if len(items) > SET_ITEMS:
            raise QuestionSetError(f"Line {number}: more than {SET_ITEMS:,} questions.")
        if len(topics) > TOPICS:
            raise QuestionSetError(f"Line {number}: more than {TOPICS} topics.")
    return tuple(items)


def _item(row: _Row, number: int) -> Item:
    question = row.question.strip()
    accepted = (row.answer,) if isinstance(row.answer, str) else tuple(row.answer)
    if not question or any(answers.key(one) == answers.key("") for one in accepted):
        raise QuestionSetError(f"Line {number}: a question or an answer is blank.")
    if len(question.encode(errors="replace")) > limits.QUESTION_BYTES:
        raise QuestionSetError(f"Line {number}: the question has too many bytes.")
    return Item(question, accepted, row.topic, "private")
