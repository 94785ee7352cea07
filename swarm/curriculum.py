"""What to calibrate with next: tasks that tell peers apart, on the topics that matter.

A cell is a task family in one style. In each the level climbs a staircase (up when everybody is
right, down when nobody is), since a task that all can do, or none, says nothing about judges. Cells
are drawn by how often they have been informative, how often their topic is asked for real, and
how little of it has been seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, get_args

from swarm.calibration.source import ExhaustedError
from swarm.calibration.task import Style
from swarm.seeded import Stream

STYLES: Final[tuple[Style, ...]] = get_args(Style)
CLIMB: Final = 2
"""Tasks in a row that all can do, or none, before the level changes."""
TRAFFIC: Final = 10.0
"""How much more often a topic is drawn that is all that is asked for real."""
FADING: Final = 0.98
_PRIOR: Final = 2.0
_LEAST: Final = 0.002


class Lesson(NamedTuple):
    """A task to draw: its family, level and style."""

    family: str
    level: int
    style: Style


@dataclass(slots=True)
class _Cell:
    level: int = 1
    streak: int = 0
    informative: float = 0.0
    seen: float = 0.0
    spent: bool = False


class Curriculum:
    """The staircases of all cells.

    Args:
        levels: of each family.
        styles: in which every family can be put.
    """

    def __init__(self, levels: Mapping[str, int], styles: Sequence[Style]) -> None:
        self._levels = dict(levels)
        self._styles = tuple(styles)
        self._cells = {(family, style): _Cell() for family in levels for style in styles}
        self._traffic: dict[str, float] = {}

    def asked(self, topic: str) -> None:
        """A real question was asked; its topic may be unknown (empty)."""
        self._traffic = {one: count * FADING for one, count in self._traffic.items()}
        if topic in self._levels:
            self._traffic[topic] = self._traffic.get(topic, 0.0) + 1.0

    def next(self, stream: Stream) -> Lesson:
        """The next task to draw.

        Args:
            stream: secret, or peers could foresee it.

        Raises:
            ExhaustedError: every cell is spent.
        """
        cells = sorted(cell for cell, state in self._cells.items() if not state.spent)
        if not cells:
            raise ExhaustedError
        total = sum(self._traffic.values())
        weights = []
        for family, style in cells:
            wanted = self._traffic.get(family, 0.0) / total if total else 0.0
            seen = sum(self._cells[family, other].seen for other in self._styles)
            worth = max(_LEAST, self._worth(family, style) ** 2)
            weights.append(worth * (1.0 + TRAFFIC * wanted) / (1.0 + seen / TRAFFIC))
        family, style = cells[_drawn(stream, weights)]
        return Lesson(family, self._cells[family, style].level, style)

    def learn(self, lesson: Lesson, right: Sequence[bool]) -> None:
        """How a task went: whether each answer that came was right."""
        cell = self._cells.get((lesson.family, lesson.style))
        if cell is None or not right:
            return
        informative = any(right) and not all(right)
        cell.seen = cell.seen * FADING + 1.0
        cell.informative = cell.informative * FADING + informative
        if informative:
            cell.streak = 0
            return
        beyond = cell.level - lesson.level if all(right) else lesson.level - cell.level
        if beyond > 0:
            return  # easier than what all can do, or harder than what nobody can: no news
        cell.streak = max(0, cell.streak) + 1 if all(right) else min(0, cell.streak) - 1
        if abs(cell.streak) >= CLIMB:
            step = 1 if cell.streak > 0 else -1
            cell.level = min(self._levels[lesson.family], max(1, lesson.level + step))
            cell.streak = 0

    def exhausted(self, lesson: Lesson) -> None:
        """There are no tasks left there: go up a level, or draw the family no more."""
        cell = self._cells[lesson.family, lesson.style]
        if lesson.level < self._levels[lesson.family]:
            cell.level = lesson.level + 1
        else:
            cell.spent = True

    def _worth(self, family: str, style: Style) -> float:
        """Chance that a task of the cell is informative, shrunk to that of its style."""
        cell = self._cells[family, style]
        peers = [self._cells[other, style] for other in self._levels]
        seen = sum(one.seen for one in peers)
        usual = (sum(one.informative for one in peers) + 1.0) / (seen + 2.0)
        return (cell.informative + _PRIOR * usual) / (cell.seen + _PRIOR)


def _drawn(stream: Stream, weights: Sequence[float]) -> int:
    """An index, each as likely as its weight says."""
    at = stream.unit() * sum(weights)
    for index, weight in enumerate(weights):
        at -= weight
        if at < 0.0:
            return index
    return len(weights) - 1
