"""Has this node's log tell what its calibration has shown.

Sums of a day are told when it is over: those of a day that still runs would tell a peer that looks
twice which of the rounds between were tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from node.knowledge import Knowledge
from protocol import limits
from protocol.ledger import HINT_DAY_S, Hints


class Herald:
    """Args:
    knowledge: what this node has seen.
    tell: has the log say it; said twice, it is said once.
    clock: gives Unix time in seconds.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        tell: Callable[[Hints], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._knowledge = knowledge
        self._tell = tell
        self._clock = clock

    async def run(self) -> None:
        """Tell of the days that still count, and of each day that ends, until cancelled."""
        while True:
            today = int(self._clock()) // HINT_DAY_S
            for day in range(today - limits.HINT_DAYS, today):
                hints = await self._knowledge.hints(day)
                if hints.subjects:
                    self._tell(hints)
            await trio.sleep(HINT_DAY_S - self._clock() % HINT_DAY_S)
