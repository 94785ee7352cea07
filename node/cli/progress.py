"""How far a long computation is, for whoever waits for it."""

from __future__ import annotations

import sys
import time

PATIENCE_S = 2.0
EVERY_S = 1.0


class Progress:
    """A line on stderr; nothing for what is soon done.

    Args:
        total: steps in all.
        unit: what they are.
    """

    def __init__(self, total: int, unit: str = "") -> None:
        self._of = f" of {total} {unit}".rstrip()
        self._count = 0
        self._terminal = sys.stderr.isatty()
        self._next = time.monotonic() + PATIENCE_S
        self._shown = False

    def done(self) -> None:
        """One more step."""
        self.reach(self._count + 1)

    def reach(self, count: int) -> None:
        """So many steps are done."""
        self._count = count
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (EVERY_S if self._terminal else 10 * EVERY_S)
        self._shown = True
        start, end = ("\r", "") if self._terminal else ("", "\n")
        print(f"{start}{count}{self._of}", end=end, file=sys.stderr, flush=True)

    def end(self) -> None:
        """That was all."""
        if self._shown and self._terminal:
            print(file=sys.stderr)
