"""How often something may be done, for each of those who cause it."""

from __future__ import annotations

from collections.abc import Hashable


class Ration:
    """Token buckets, one for each key; the keys are bounded, and the longest unused goes first.

    Args:
        burst: how often at once.
        per_s: how often in a second, in the long run.
        keys: how many keys are kept.
    """

    def __init__(self, burst: float, per_s: float, keys: int = 512) -> None:
        self._burst = burst
        self._per_s = per_s
        self._keys = keys
        self._left: dict[Hashable, tuple[float, float]] = {}

    def take(self, key: Hashable, now: float, amount: float = 1.0) -> bool:
        """Whether it may be done for ``key`` at ``now`` (seconds); if so, it counts.

        Args:
            amount: what it takes. More than there is may be taken once there is 1 left, and has
                to be made up for.
        """
        left, since = self._left.pop(key, (self._burst, now))
        left = min(self._burst, left + self._per_s * (now - since))
        allowed = left >= 1.0
        self._left[key] = (left - allowed * amount, now)
        while len(self._left) > self._keys:
            del self._left[next(iter(self._left))]
        return allowed
