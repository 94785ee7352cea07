"""Reputation by agreement with the consensus: a baseline, and a warning.

Some systems have no known truth and weigh a judge by how often it has sided with past winners. A
ring that wins a few rounds then owns the consensus (see ``swarm eval world --online --attack
collude:.5``). Nothing outside the comparison of rules uses this.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from swarm.rules import Bouts, Floats, Ints

FADING: Final = 0.95
"""Per round: twenty rounds are remembered."""
_PRIOR: Final = 5.0


def agreement_weights(agreed: Floats | Ints, pairs: Floats | Ints) -> Floats:
    """Weights of judges that sided with the winner on ``agreed`` of ``pairs``."""
    return (agreed + _PRIOR) / (pairs + 2.0 * _PRIOR)


def agreements(bouts: Bouts, winners: frozenset[int], seats: int) -> tuple[Floats, Floats]:
    """How often each judge sided with the winner, and on how many pairs.

    Args:
        bouts: the verdicts.
        winners: seats that gave the winning answer.
        seats: how many there are; the results have this length.
    """
    won = np.zeros(seats, dtype=np.bool_)
    won[list(winners)] = True
    told = won[bouts.first] != won[bouts.second]
    sided = np.where(won[bouts.first], bouts.outcome, 1.0 - bouts.outcome)
    agreed = np.bincount(bouts.judge[told], sided[told], seats)
    pairs = np.bincount(bouts.judge[told], minlength=seats)
    return agreed.astype(np.float64), pairs.astype(np.float64)
