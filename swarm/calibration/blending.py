"""Choosing the calibration tasks that look most like an asker's own questions.

The asker plays the peer: it trains the classifier of :mod:`swarm.calibration.detect` to tell its
candidates from its own traffic, and draws candidates in proportion to the odds of being ordinary.
That is importance sampling with the classifier as density ratio (Sugiyama et al. 2012): what is
drawn is distributed as the traffic, as far as the candidates reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Final

import numpy as np

from swarm.calibration.classifier import text_kernel
from swarm.calibration.detect import FOLDS, ROWS, folds, scores
from swarm.seeded import Stream

_SHARPEST: Final = 30.0


def most_ordinary(
    traffic: Sequence[str], candidates: Sequence[str], count: int, seed: bytes
) -> tuple[int, ...]:
    """``count`` distinct candidates, drawn as if they were traffic; indices, ascending.

    Raises:
        ValueError: if ``count`` exceeds the candidates, or there are too few texts of a kind to
            learn from, or too many.
    """
    if count > len(candidates):
        raise ValueError("more wanted than there are candidates")
    if min(len(traffic), len(candidates)) < FOLDS or len(traffic) + len(candidates) > ROWS:
        raise ValueError(f"from {FOLDS} texts of a kind to {ROWS:,} in all")
    made = np.arange(len(traffic) + len(candidates)) >= len(traffic)
    odds = scores(text_kernel([*traffic, *candidates]), made, folds(made, seed))[made]
    stream = Stream(b"ordinary/" + seed)
    # The largest of log weight + Gumbel noise are a sample without replacement (Vieira 2014).
    keys = [
        -min(max(one, -_SHARPEST), _SHARPEST) - log(-log(max(stream.unit(), 1e-12))) for one in odds
    ]
    order = sorted(range(len(keys)), key=lambda at: -keys[at])
    return tuple(sorted(order[:count]))
