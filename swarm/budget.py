"""How a question's time is divided among the phases of its round."""

from __future__ import annotations

from protocol import limits
from protocol.messages import Phases

_COMMIT, _REVEAL = 0.50, 0.10
_RESERVE = 0.05
"""Kept back for closing and for the way."""

SHORTEST_MS = 500
"""A round in less than this is mostly refusals."""


def divide(timeout_ms: int, waves: int = 1) -> Phases:
    """Phase durations that together stay within ``timeout_ms``.

    Half goes to answering, a tenth to revealing, the rest to ``waves`` waves of judging, less a
    small reserve. A phase ends early once everyone has been heard.

    Raises:
        ValueError: less than ``SHORTEST_MS``.
    """
    if timeout_ms < SHORTEST_MS:
        raise ValueError(f"a round needs at least {SHORTEST_MS} ms")
    judge = timeout_ms * (1.0 - _COMMIT - _REVEAL - _RESERVE) / max(1, waves)
    return Phases(
        commit=_bounded(timeout_ms * _COMMIT),
        reveal=_bounded(timeout_ms * _REVEAL),
        judge=_bounded(judge),
    )


def _bounded(milliseconds: float) -> int:
    return min(limits.PHASE_MS, max(1, int(milliseconds)))
