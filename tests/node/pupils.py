"""Models with a known skill: they know some of the truths that the asker's calibration draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from node.backends.base import Emit, GenerateRequest, Generation, JudgeRequest, ModelInfo, Verdict
from swarm.answers import key
from swarm.calibration.items import Item
from swarm.seeded import Stream
from tests.node.virtual_node import VirtualNode

Truths = dict[str, str]
"""Right answers by question; what pupils may know and askers tell nobody."""


@dataclass
class Pupil:
    """A backend. The same one says the same of the same question.

    Attributes:
        answers: share of questions that it answers rightly.
        judges: share of pairs that it judges rightly; 0 for a liar.
        sure: what it says of a verdict.
        says: its wrong answer; None: one that no other pupil gives.
    """

    name: str
    truths: Truths
    answers: float = 0.7
    judges: float = 0.9
    sure: float = 0.95
    says: str | None = None
    content_id: str = ""
    delay_s: float = 0.2

    def describe(self) -> ModelInfo:
        return ModelInfo(self.name, self.name, self.content_id, 0, 4096, "none")

    async def generate(self, request: GenerateRequest, emit: Emit) -> Generation:
        await trio.sleep(self.delay_s)
        truth = self.truths.get(request.question)
        knows = truth is not None and self._draw(request.question) < self.answers
        wrong = self.says or f"as {self.name} has it"
        answer = truth if knows and truth is not None else wrong
        return Generation(answer, answer, 1)

    async def judge(self, request: JudgeRequest) -> Sequence[Verdict]:
        await trio.sleep(self.delay_s)
        return tuple(
            self._verdict(request, request.answers[first], request.answers[second])
            for first, second in request.pairs
        )

    async def aclose(self) -> None:
        """Nothing to close."""

    def _verdict(self, request: JudgeRequest, first: str, second: str) -> Verdict:
        truth = self.truths.get(request.question)
        if truth is None or (key(first) == key(truth)) == (key(second) == key(truth)):
            return 0.5
        mind = "".join(sorted((first, second)))
        right = self._draw(request.question + mind) < self.judges
        return self.sure if right == (key(first) == key(truth)) else 1.0 - self.sure

    def _draw(self, about: str) -> float:
        return Stream(f"{self.name}/{about}".encode()).unit()


def overhear(asker: VirtualNode, truths: Truths) -> None:
    """Write into ``truths`` what the asker's calibration draws, before it is put."""
    draw = asker.knowledge.draw

    async def drawn() -> tuple[Item, str]:
        item, task = await draw()
        truths[item.question] = item.answers[0]
        return item, task

    asker.knowledge.draw = drawn  # type: ignore[method-assign]
