"""The task families by name: the one place that lists them all.

``FAMILIES`` are the eleven that the bundled models are trained on; ``CATALOGUE`` holds these and
the harder ones, for models of every size.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from swarm.calibration.arithmetic import Add, Series, Sub, Units
from swarm.calibration.conversions import Chain
from swarm.calibration.counting import Divisible, Smallest, Survey
from swarm.calibration.dates import Date, Weekday
from swarm.calibration.expressions import Base, Expression, Power
from swarm.calibration.ordering import Compare, Pick, Sort
from swarm.calibration.programs import Program
from swarm.calibration.puzzles import Grid, Seating
from swarm.calibration.stepwise import Recurrence, Rewrite
from swarm.calibration.stories import Tale
from swarm.calibration.strings import Alphabetise, Count, Reverse, Vowels
from swarm.calibration.task import Family, Key, Split, Style, Task, split_of
from swarm.seeded import Stream

__all__ = [
    "CATALOGUE",
    "FAMILIES",
    "Family",
    "Key",
    "Split",
    "Style",
    "Task",
    "check",
    "sample",
    "split_of",
    "worked",
    "wrong",
]

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            Add(),
            Sub(),
            Series(),
            Units(),
            Count(),
            Compare(),
            Sort(),
            Pick(),
            Reverse(),
            Alphabetise(),
            Vowels(),
        )
    }
)


CATALOGUE: Mapping[str, Family] = MappingProxyType(
    {
        **FAMILIES,
        **{
            family.name: family
            for family in (
                Expression(),
                Power(),
                Base(),
                Recurrence(),
                Divisible(),
                Smallest(),
                Survey(),
                Chain(),
                Tale(),
                Weekday(),
                Date(),
                Program(),
                Rewrite(),
                Grid(),
                Seating(),
            )
        },
    }
)


def sample(
    stream: Stream,
    split: Split,
    family: str | None = None,
    level: int = 1,
    style: Style = "plain",
) -> Task:
    """A task of ``split``, of the named family or of one of the bundled, drawn from ``stream``.

    Raises:
        KeyError: if there is no such family.
        ValueError: if it has no such level.
    """
    chosen = stream.choice(tuple(FAMILIES)) if family is None else family
    return CATALOGUE[chosen].sample(stream, split, level, style)


def check(task: Task, text: str) -> bool:
    """Whether ``text`` is a right answer to ``task``."""
    return CATALOGUE[task.family].check(task, text)


def wrong(stream: Stream, task: Task) -> str:
    """A plausible answer to ``task`` that is not right."""
    return CATALOGUE[task.family].wrong(stream, task)


def worked(task: Task) -> str:
    """The answer to ``task`` after its work, ending in ``so ANSWER``."""
    return CATALOGUE[task.family].worked(task)
