"""An endless source of hidden calibration tasks: secret, and never the same one twice.

What was given is remembered in a Bloom filter (Bloom 1970) of fixed size, which forgets nothing:
a task is never repeated. Now and then it takes a new task for an old one and skips it, one in a
hundred after 800,000 tasks.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from protocol.errors import SwarmError
from swarm.calibration.families import CATALOGUE
from swarm.calibration.task import Key, Style, Task
from swarm.seeded import Stream

FILTER_BYTES: Final = 1 << 20
DRAWS: Final = 2_000
"""Draws in a row that find nothing new before a family counts as exhausted at a level."""


class ExhaustedError(SwarmError):
    """Every task of this family and level has been given. Draw another level or family."""

    code = "exhausted"


class Source:
    """Tasks of any split but ``test``, which is kept for evaluation.

    Args:
        seed: secret: whoever knows it can foresee the tasks.
        used: names (:func:`name_of`) of tasks of earlier runs, which are not given again.
    """

    def __init__(self, seed: bytes, used: Iterable[bytes] = ()) -> None:
        self._seed = seed
        self._drawn = 0
        self._filter = bytearray(FILTER_BYTES)
        for name in used:
            self._add(name)

    def next(self, family: str, level: int = 1, style: Style = "plain") -> Task:
        """A task that was never given before: other operands, whatever the order or wording.

        The same seed, uses and calls give the same tasks.

        Raises:
            KeyError: if there is no such family.
            ValueError: if it has no such level.
            ExhaustedError: if all its tasks of this level were given.
        """
        task = self.candidate(family, level, style)
        self.give(task)
        return task

    def candidate(self, family: str, level: int = 1, style: Style = "plain") -> Task:
        """As :meth:`next`, but the task is not given yet, and may be a candidate again."""
        kind = CATALOGUE[family]
        kind.require(level)
        stream = Stream(b"source/%d/" % self._drawn + self._seed)
        self._drawn += 1
        for _ in range(DRAWS):
            key = kind.draw(stream, level)
            if kind.split(key) != "test" and not self._has(_name(family, kind.identity(key))):
                return kind.make(stream, key, level, style)
        raise ExhaustedError(f"It is {family} at level {level}.")

    def give(self, task: Task) -> bool:
        """Give a candidate. False where it was given meanwhile."""
        name = name_of(task)
        if self._has(name):
            return False
        self._add(name)
        return True

    def _has(self, name: bytes) -> bool:
        return all(self._filter[at >> 3] >> (at & 7) & 1 for at in _places(name))

    def _add(self, name: bytes) -> None:
        for at in _places(name):
            self._filter[at >> 3] |= 1 << (at & 7)


def name_of(task: Task) -> bytes:
    """32 bytes that name the problem of a task, the same in every wording."""
    return _name(task.family, CATALOGUE[task.family].identity(task.key))


def _name(family: str, identity: Key) -> bytes:
    return sha256("\x1f".join(("source", family, *map(str, identity))).encode()).digest()


def _places(name: bytes) -> list[int]:
    """Eight bits of the filter."""
    bits = 8 * FILTER_BYTES
    return [int.from_bytes(name[at : at + 4], "big") % bits for at in range(0, 32, 4)]
