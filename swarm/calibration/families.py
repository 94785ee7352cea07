"""The task families by name: the one place that lists them all."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from swarm.calibration.arithmetic import Add, Series, Sub, Units
from swarm.calibration.ordering import Compare, Pick, Sort
from swarm.calibration.strings import Alphabetise, Count, Reverse, Vowels
from swarm.calibration.task import Family, Key, Split, Task, split_of
from swarm.seeded import Stream

__all__ = [
    "FAMILIES",
    "Family",
    "Key",
    "Split",
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


def sample(stream: Stream, split: Split, family: str | None = None) -> Task:
    """A task of ``split``, of the named family or of one drawn from ``stream``.

    Raises:
        KeyError: if there is no such family.
    """
    chosen = stream.choice(tuple(FAMILIES)) if family is None else family
    return FAMILIES[chosen].sample(stream, split)


def check(task: Task, text: str) -> bool:
    """Whether ``text`` is a right answer to ``task``."""
    return FAMILIES[task.family].check(task, text)


def wrong(stream: Stream, task: Task) -> str:
    """A plausible answer to ``task`` that is not right."""
    return FAMILIES[task.family].wrong(stream, task)


def worked(task: Task) -> str:
    """The answer to ``task`` after its work, ending in ``so ANSWER``."""
    return FAMILIES[task.family].worked(task)
