"""Draws the questions of calibration: known answers, never twice, like what is asked for real.

Two ways of drawing. Tests that may be recognised go by the curriculum alone: what tells peers
apart. Hidden ones must not stand out among this node's own questions: of many candidates, from
every family in every style, those are taken that a classifier trained on these very questions
finds ordinary. Where the families do not reach what is asked (free talk, say), nothing made here
can hide; private questions and graded rounds can.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from protocol.digest import digest
from swarm.calibration.blending import most_ordinary
from swarm.calibration.families import CATALOGUE
from swarm.calibration.items import Item, of_task
from swarm.calibration.source import ExhaustedError, Source, name_of
from swarm.calibration.task import Task
from swarm.curriculum import STYLES, Curriculum, Lesson
from swarm.seeded import Stream

PRIVATE_PART: Final = 3
"""While there are unused private questions, one of so many tasks is one of them."""
TRAFFIC: Final = 256
"""Own questions that a disguise is learnt from."""
TRAFFIC_FEWEST: Final = 20
CANDIDATES: Final = 400
BATCH: Final = 16
"""Hidden tasks chosen at a time."""
CANDIDATE_LEVELS: Final = 3
_DRAWS: Final = 20


class Posed(NamedTuple):
    """A question to put.

    Attributes:
        task: what was drawn (family, level and style, between slashes); empty for a private one.
        name: 32 bytes that name the problem in every wording.
    """

    item: Item
    task: str
    name: bytes


class Examiner:
    """Args:
    seed: secret: whoever knows it can foresee the tasks.
    posed: names of what earlier runs have put.
    private: the operator's own questions with known answers.
    """

    def __init__(
        self, seed: bytes, posed: Sequence[bytes] = (), private: Sequence[Item] = ()
    ) -> None:
        self.curriculum = Curriculum(
            {name: family.levels for name, family in CATALOGUE.items()}, STYLES
        )
        self._stream = Stream(b"examiner/" + seed)
        self._source = Source(seed, posed)
        put = set(posed)
        self._private = [item for item in private if _private_name(item) not in put]
        self._stream.shuffle(self._private)
        self._traffic: deque[str] = deque(maxlen=TRAFFIC)
        self._ordinary: deque[tuple[Task, Lesson]] = deque()

    def asked(self, question: str, topic: str) -> None:
        """A real question was put; its topic may be unknown (empty)."""
        self._traffic.append(question)
        self.curriculum.asked(topic)

    def draw(self, hidden: bool) -> Posed:
        """A question that was never put before. May take a second: a disguise is learnt.

        Args:
            hidden: it goes with real questions, and must not stand out.

        Raises:
            ExhaustedError: there is none left.
        """
        if self._private and self._stream.below(PRIVATE_PART) == 0:
            item = self._private.pop()
            return Posed(item, "", _private_name(item))
        if hidden and len(self._traffic) >= TRAFFIC_FEWEST:
            while self._ordinary or self._choose():
                task, lesson = self._ordinary.popleft()
                if self._source.give(task):
                    return _posed(task, lesson)
        for _ in range(_DRAWS):
            lesson = self.curriculum.next(self._stream)
            try:
                return _posed(self._source.next(*lesson), lesson)
            except ExhaustedError:
                self.curriculum.exhausted(lesson)
        raise ExhaustedError

    def _choose(self) -> bool:
        """Take the most ordinary of many candidates. False where there are none."""
        found: list[tuple[Task, Lesson]] = []
        names = set()
        for number in range(CANDIDATES):
            lesson = self._candidate(number)
            try:
                task = self._source.candidate(*lesson)
            except ExhaustedError:
                continue
            if name_of(task) not in names:
                names.add(name_of(task))
                found.append((task, lesson))
        if len(found) < BATCH:
            return False
        texts = [task.question for task, _ in found]
        seed = b"%d" % self._stream.below(1 << 60)
        chosen = most_ordinary(list(self._traffic), texts, BATCH, seed)
        order = list(chosen)
        self._stream.shuffle(order)
        self._ordinary.extend(found[index] for index in order)
        return True

    def _candidate(self, number: int) -> Lesson:
        """Half of them by what is asked and tells peers apart, half from everything."""
        if number % 2:
            lesson = self.curriculum.next(self._stream)
            level = min(lesson.level, 1 + self._stream.below(CANDIDATE_LEVELS))
            return Lesson(lesson.family, level, lesson.style)
        family = self._stream.choice(tuple(CATALOGUE))
        level = 1 + self._stream.below(min(CANDIDATE_LEVELS, CATALOGUE[family].levels))
        return Lesson(family, level, self._stream.choice(STYLES))


def _posed(task: Task, lesson: Lesson) -> Posed:
    return Posed(of_task(task), f"{lesson.family}/{lesson.level}/{lesson.style}", name_of(task))


def _private_name(item: Item) -> bytes:
    return digest("private", item.question)
