"""A calibration task: a question whose answer is known, made from a few operands.

A family draws operands of a level, words them as a question in one of two styles, and can say
whether an answer is right. The operands alone decide the split, so that a model trained on one
split has never met the operands of another, whatever the wording.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar, Literal

from swarm import answers
from swarm.calibration import phrasing
from swarm.seeded import Stream

Split = Literal["train", "calib", "test"]
Style = Literal["plain", "free"]
"""Plain: one of a few set wordings. Free: as people ask, in thousands of forms."""
Key = tuple[int | str, ...]

NAMES = ("Tom", "Anna", "Ben", "Mia", "Leo", "Sara", "Omar", "Lena")
THINGS = ("apples", "books", "coins", "cards", "shells", "pens", "eggs", "stamps")

_TRIES = 10_000
"""Draws before giving up: every split of every family is hit within a few dozen."""


@dataclass(frozen=True, slots=True)
class Task:
    """One question with its known answer.

    Attributes:
        family: the name of its family, a key of :data:`swarm.calibration.families.CATALOGUE`.
        key: the operands, in the order in which the question shows them.
        question: what a model is asked.
        answer: a right answer; :meth:`Family.check` may accept others.
        level: how hard it is, from 1.
    """

    family: str
    key: Key
    question: str
    answer: str
    level: int = 1


def split_of(family: str, identity: Key) -> Split:
    """Where operands belong: a tenth to ``test``, a tenth to ``calib``, the rest to ``train``."""
    text = "\x1f".join((family, *map(str, identity)))
    bucket = int.from_bytes(sha256(text.encode()).digest()[:8], "big") % 10
    if bucket == 0:
        return "test"
    return "calib" if bucket == 1 else "train"


class Family(ABC):
    """A kind of task. Stateless; subclasses say how to draw, word, solve and get it wrong.

    Attributes:
        name: unique among families.
        levels: operands are drawn at level 1, the easiest, up to this one.
        wordings: templates of the plain question, each naming every operand.
        asks: templates of the free question, in the grammar of :mod:`swarm.calibration.phrasing`.
        hint: template of a sentence on the form of the answer that a free question may end in;
            what must be said of it stands in the templates.
    """

    name: ClassVar[str]
    levels: ClassVar[int]
    wordings: ClassVar[tuple[str, ...]]
    asks: ClassVar[tuple[str, ...]]
    hint: ClassVar[str] = ""

    @abstractmethod
    def draw(self, stream: Stream, level: int = 1) -> Key:
        """Operands of one task of ``level``, of any split."""

    @abstractmethod
    def solve(self, key: Key) -> str:
        """The right answer, or one of them."""

    @abstractmethod
    def slip(self, stream: Stream, key: Key) -> str:
        """An answer a careless solver might give; may by chance be right."""

    def require(self, level: int) -> None:
        """Refuse a level that the family does not have.

        Raises:
            ValueError: naming the levels that it has.
        """
        if not 1 <= level <= self.levels:
            raise ValueError(f"{self.name} has levels 1 to {self.levels}, not {level}")

    def identity(self, key: Key) -> Key:
        """What decides the split: the operands less what does not make a different problem."""
        return key

    def split(self, key: Key) -> Split:
        """Where these operands belong."""
        return split_of(self.name, self.identity(key))

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        """The question: ``wording`` with the operands filled in."""
        return wording.format(*key)

    def asks_for(self, key: Key) -> tuple[str, ...]:
        """The free templates that suit these operands."""
        return self.asks

    def steps(self, key: Key) -> str:
        """The work that leads to the answer, or ``""`` where there is none to show."""
        return ""

    def matches(self, key: Key, text: str) -> bool:
        """Whether ``text`` answers the question of ``key``."""
        return answers.key(text) == answers.key(self.solve(key))

    def make(self, stream: Stream, key: Key, level: int = 1, style: Style = "plain") -> Task:
        """The task of these operands, in a wording drawn from ``stream``."""
        if style == "free":
            question = phrasing.ask(
                stream,
                self.asks_for(key),
                self.hint,
                lambda wording: self.phrase(stream, key, wording),
            )
        else:
            question = self.phrase(stream, key, stream.choice(self.wordings))
        return Task(self.name, key, question, self.solve(key), level)

    def sample(self, stream: Stream, split: Split, level: int = 1, style: Style = "plain") -> Task:
        """A task of ``level`` whose operands belong to ``split``.

        Raises:
            ValueError: if the family has no such level.
        """
        self.require(level)
        for _ in range(_TRIES):
            key = self.draw(stream, level)
            if self.split(key) == split:
                return self.make(stream, key, level, style)
        raise RuntimeError(f"{self.name}: no operands in split {split}")

    def check(self, task: Task, text: str) -> bool:
        """Whether ``text`` is a right answer to ``task``."""
        return self.matches(task.key, text)

    def wrong(self, stream: Stream, task: Task) -> str:
        """A plausible wrong answer: never passes :meth:`check`."""
        for _ in range(_TRIES):
            text = self.slip(stream, task.key)
            if text and not self.matches(task.key, text):
                return text
        raise RuntimeError(f"{self.name}: no wrong answer to {task.question!r}")

    def worked(self, task: Task) -> str:
        """The answer after its work, for instance ``7+8=15 4+3+1=8 so 85``, or ``so madam``."""
        work = self.steps(task.key)
        return f"{work} so {task.answer}" if work else f"so {task.answer}"


def near(stream: Stream, value: int) -> int:
    """A non-negative number that a slip in arithmetic could turn ``value`` into."""
    kind = stream.below(20)
    if kind < 7:
        changed = value + stream.choice((-2, -1, 1, 2))
    elif kind < 13:
        changed = value + stream.choice((-20, -10, 10, 20))
    elif kind < 16:
        digits = list(str(value))
        digits[stream.below(len(digits))] = str(stream.below(10))
        changed = int("".join(digits))
    elif kind < 18:
        changed = value + stream.between(-30, 30)
    else:
        changed = int(str(value)[::-1])
    return abs(changed)


def swap(stream: Stream, items: list[str]) -> None:
    """Exchange two neighbours of ``items`` in place; a no-op on fewer than two."""
    if len(items) > 1:
        at = stream.below(len(items) - 1)
        items[at], items[at + 1] = items[at + 1], items[at]
