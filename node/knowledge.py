"""What this node knows of its peers, kept on disk and folded in memory.

Trials go to disk before they count. Questions for calibration are drawn from a secret seed and
never put twice; what a question is about is inferred here, from its text alone.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence

import trio

from node.trial_records import TrialRecords
from protocol import limits
from protocol.ids import PeerId
from protocol.ledger import HINT_DAY_S, Hints
from swarm.calibration.items import Item
from swarm.curriculum import STYLES, Lesson
from swarm.evidence import Book
from swarm.examiner import Examiner
from swarm.hints import Hearsay, daily
from swarm.record import Told
from swarm.topics import Topics
from swarm.trial import Judged, Kind, Trial, Truth

_log = logging.getLogger(__name__)


class Knowledge:
    """Made by :meth:`load`.

    Args:
        records: where trials are kept.
        topics: tells what a question is about.
        seed: secret, of the calibration tasks.
        private: the operator's own questions with known answers.
        trials, posed: what is kept in ``records``.
        trusted: verifiers whose word counts as one's own.
        questions: real ones that were put before, oldest first.
        clock: gives Unix time in seconds.
    """

    def __init__(
        self,
        records: TrialRecords,
        topics: Topics,
        seed: bytes,
        private: Sequence[Item] = (),
        trials: Sequence[Trial] = (),
        posed: Sequence[bytes] = (),
        trusted: Iterable[PeerId] = (),
        questions: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._records = records
        self._topics = topics
        self._clock = clock
        self._examiner = Examiner(seed, posed, private)
        self.hearsay = Hearsay(trusted)
        self.book = Book(told=self._told)
        self._days: dict[int, list[Trial]] = {}
        # What is being drawn, or written anew, must not change meanwhile.
        self._drawing, self._adding = trio.Lock(), trio.Lock()
        for question in questions:
            self.asked(question)
        for trial in trials:
            self._fold(trial)

    @classmethod
    async def load(
        cls,
        records: TrialRecords,
        private: Sequence[Item] = (),
        trusted: Iterable[PeerId] = (),
        questions: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> Knowledge:
        """What earlier runs have learnt.

        Raises:
            StoreError: it cannot be read.
        """
        trials, posed = await records.all(), await records.posed()

        def fold() -> Knowledge:
            topics = Topics.learnt(private)
            return cls(
                records, topics, os.urandom(32), private, trials, posed, trusted, questions, clock
            )

        return await trio.to_thread.run_sync(fold)

    def topic(self, question: str) -> str:
        """What a question is about, empty where that is unknown."""
        return self._topics.topic(question) or ""

    def asked(self, question: str) -> None:
        """A real question was put: calibration goes where it goes, and looks like it."""
        self._examiner.asked(question, self.topic(question))

    async def draw(self, hidden: bool = False) -> tuple[Item, str]:
        """A question with a known answer that was never put before, and the name of its task.

        Args:
            hidden: it goes with real questions, and must not stand out.

        Raises:
            ExhaustedError: there is none left.
            StoreError: it could not be put on disk that it is put.
        """
        async with self._drawing:
            # A disguise takes a second to learn, a puzzle of the highest level a third of one.
            posed = await trio.to_thread.run_sync(self._examiner.draw, hidden)
            await self._records.pose(posed.name)
            return posed.item, posed.task

    async def learn(self, round_: Judged, right: Truth, kind: Kind, task: str = "") -> Trial:
        """Take a graded round as evidence.

        Args:
            task: what was drawn, empty for a real question.

        Raises:
            StoreError: it could not be kept, and does not count.
        """
        topic = self.topic(round_.question)
        trial = self.book.examine(round_, right, topic, kind, int(self._clock()), task)
        await self.add(trial)
        return trial

    async def add(self, trial: Trial) -> None:
        """Keep a trial. One of the same round is replaced, and the book written anew.

        Raises:
            StoreError: it could not be kept, and does not count.
        """
        async with self._adding:
            if not await self._records.keep(trial):
                self._fold(trial)
                return
            trials = await self._records.all()
            self.book = await trio.to_thread.run_sync(Book, trials, self._told)
            self._days = {}
            for one in trials:
                self._date(one)

    async def hints(self, day: int) -> Hints:
        """The sums of a day, counted from 1970-01-01 UTC."""
        # Of a busy day it takes tens of milliseconds.
        return await trio.to_thread.run_sync(daily, tuple(self._days.get(day, ())), day)

    def rumour(self, peer: PeerId) -> float:
        """How often strangers have seen a peer be right; see :meth:`Hearsay.rumour`."""
        return self.hearsay.rumour(peer, int(self._clock()))

    def _told(self, peer: PeerId, model: str) -> Told | None:
        return self.hearsay.told(peer, model, int(self._clock()))

    def _date(self, trial: Trial) -> None:
        day = trial.at // HINT_DAY_S
        self._days.setdefault(day, []).append(trial)
        for past in [one for one in self._days if one < day - limits.HINT_DAYS]:
            del self._days[past]

    def _fold(self, trial: Trial) -> None:
        self.book.add(trial)
        self._date(trial)
        family, _, rest = trial.task.partition("/")
        level, _, style = rest.partition("/")
        if level.isdecimal() and style in STYLES:
            lesson = Lesson(family, int(level), style)
            self._examiner.curriculum.learn(lesson, [mark.right for mark in trial.marks])
