"""How a question's time is divided among the phases of its round."""

from __future__ import annotations

from protocol import limits
from protocol.messages import Phases

_COMMIT, _REVEAL = 0.50, 0.10
_RESERVE = 0.05
"""Kept back for closing and for the way."""

SHORTEST_MS = 500
"""A stage in less than this is mostly refusals."""


def divide(timeout_ms: int, waves: int = 1, stages: int = 1) -> Phases:
    """Phase durations that together stay within ``timeout_ms``, though all stages take place.

    Of each stage's share half goes to answering, a tenth to revealing, the rest to ``waves``
    waves of judging, less a small reserve. A phase ends early once everyone has been heard.

    Args:
        waves: at most, in one stage.
        stages: at most, see :func:`swarm.staging.stage_sizes`.

    Raises:
        ValueError: less than ``SHORTEST_MS`` for each stage.
    """
    share_ms = timeout_ms / stages
    if share_ms < SHORTEST_MS:
        raise ValueError(f"a stage needs at least {SHORTEST_MS} ms")
    judge = share_ms * (1.0 - _COMMIT - _REVEAL - _RESERVE) / max(1, waves)
    return Phases(
        commit=_bounded(share_ms * _COMMIT),
        reveal=_bounded(share_ms * _REVEAL),
        judge=_bounded(judge),
    )


def _bounded(milliseconds: float) -> int:
    return min(limits.PHASE_MS, max(1, int(milliseconds)))
