"""Choices that everyone can recompute: a SHA-256 counter generator.

The same seed gives the same stream on every platform and Python version, which
``random.Random`` does not promise across versions for anything but ``random()``.
Integers are drawn by rejection, so they are exactly uniform.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from hashlib import sha256
from typing import TypeVar

T = TypeVar("T")


class Stream:
    """An endless stream of uniform draws derived from ``seed``.

    Args:
        seed: any bytes; streams of different seeds are independent for all purposes here.
    """

    __slots__ = ("_block", "_counter", "_seed", "_used")

    def __init__(self, seed: bytes) -> None:
        self._seed = sha256(b"swarm/stream\x00" + seed).digest()
        self._counter = 0
        self._block = b""
        self._used = 0

    def _bytes(self, count: int) -> bytes:
        while len(self._block) - self._used < count:
            counter = self._counter.to_bytes(8, "big")
            self._block = self._block[self._used :] + sha256(self._seed + counter).digest()
            self._used = 0
            self._counter += 1
        taken = self._block[self._used : self._used + count]
        self._used += count
        return taken

    def below(self, bound: int) -> int:
        """A uniform integer in ``[0, bound)``.

        Raises:
            ValueError: if ``bound`` is not positive.
        """
        if bound <= 0:
            raise ValueError("bound must be positive")
        width = max(1, ((bound - 1).bit_length() + 7) // 8)
        span = 1 << (8 * width)
        limit = span - span % bound
        while True:
            drawn = int.from_bytes(self._bytes(width), "big")
            if drawn < limit:
                return drawn % bound

    def between(self, low: int, high: int) -> int:
        """A uniform integer in ``[low, high]``, both ends included."""
        return low + self.below(high - low + 1)

    def unit(self) -> float:
        """A uniform float in ``[0, 1)`` with 53 random bits."""
        return (int.from_bytes(self._bytes(8), "big") >> 11) * 2.0**-53

    def choice(self, options: Sequence[T]) -> T:
        """One of ``options``, each equally likely."""
        return options[self.below(len(options))]

    def shuffle(self, items: MutableSequence[T]) -> None:
        """Permute ``items`` in place (Fisher–Yates)."""
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """``count`` distinct elements of ``options`` in random order.

        Raises:
            ValueError: if ``count`` exceeds ``len(options)``.
        """
        if count > len(options):
            raise ValueError("sample larger than population")
        pool = list(options)
        for index in range(count):
            other = index + self.below(len(pool) - index)
            pool[index], pool[other] = pool[other], pool[index]
        return pool[:count]
