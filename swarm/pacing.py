"""When to put a hidden task among real questions, so that its time does not give it away.

A peer sees when rounds begin. Whoever asks takes a while after each answer; a hidden task may only
begin in such a pause, and the next real question ends its chance. If its own pause were drawn
like the asker's, the shorter of the two would be seen, and hidden tasks would come sooner than
real questions do. So past pauses are drawn with the weight 1/P(a pause is longer), the inverse
of the chance to get through (Horvitz & Thompson 1952): what gets through is distributed as real
pauses are.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from swarm.seeded import Stream

PAUSES: Final = 64
"""Real pauses that are remembered."""
USUAL_S: Final = 30.0
"""Mean pause, before any has been seen."""
LONGEST_S: Final = 3600.0
SPREAD: Final = 0.25
"""A pause is up to so much longer or shorter than one that was seen: to the millisecond the same
pause twice would tell."""


class Pacing:
    """Told when rounds begin and end; says when a hidden task is due.

    Args:
        rate: share of rounds that are to be hidden tasks. Above about a fifth it is not reached:
            most pauses would have to end in one.
        stream: secret.

    Attributes:
        due: when the next hidden task is to begin, on the clock of ``now``; None: not by itself.
    """

    def __init__(self, rate: float, stream: Stream) -> None:
        self.due: float | None = None
        self._rate = rate
        self._stream = stream
        self._pauses: deque[float] = deque(maxlen=PAUSES)
        self._running = 0
        self._answered_at: float | None = None

    def asked(self, now: float) -> None:
        """A real question was put."""
        if self._answered_at is not None:
            self._pauses.append(min(LONGEST_S, now - self._answered_at))
            self._answered_at = None
        self._running += 1
        self.due = None

    def answered(self, now: float) -> None:
        """The round of a real question has ended."""
        self._running -= 1
        if self._running == 0:
            self._answered_at = now
            self._draw(now)

    def put(self) -> None:
        """The hidden task that was due has begun, or could not."""
        self.due = None

    def tested(self, now: float) -> None:
        """The round of a hidden task has ended."""
        if self._running == 0 and self._answered_at is not None and self.due is None:
            self._draw(now)

    def _draw(self, now: float) -> None:
        """With the chance that makes ``rate`` of all rounds hidden tasks, set a time for one."""
        # The k-th shortest of n pauses is outlasted by n − k others, and by what was not seen.
        pauses = sorted(self._pauses) or [USUAL_S * part / 4 for part in range(1, 17)]
        outlasted = [len(pauses) - place for place in range(len(pauses))]
        weights = [len(pauses) / count for count in outlasted]
        # Sum of weight · chance to get through, over the sum of weights.
        through = len(pauses) / sum(weights)
        if self._rate <= 0.0 or self._stream.unit() * through >= self._rate:
            return
        at = self._stream.unit() * sum(weights)
        place = 0
        while place + 1 < len(pauses) and at >= weights[place]:
            at -= weights[place]
            place += 1
        self.due = now + pauses[place] * (1.0 + SPREAD * (2.0 * self._stream.unit() - 1.0))
