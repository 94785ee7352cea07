"""Whose wrong answers coincide: one model under several names, or one source of errors.

For each pair of peers: trials in which both were wrong, and those in which they gave the same
wrong answer. Wrong answers coincide by nature, since there may be few of them, so a pair's rate
is set against the median of all pairs. Peers that are alike share weight: each is divided by one
and its excess over all others at the table, which for k of them with excess ρ is 1 + (k − 1) ρ,
the design effect of a cluster (Kish 1965). Only pairs count, never chains of them: whoever is
made to resemble one of a kind is not thereby like the others, nor are these any less alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from statistics import fmean, median
from typing import Final

from protocol.ids import PeerId
from swarm.trial import Mark

FADING: Final = 0.97
ALIKE: Final = 0.5
"""Excess coincidence from which two peers are of one kind."""
FEWEST: Final = 5.0
"""Trials with both wrong, faded, below which nothing is said of a pair."""
_PRIOR: Final = 4.0
_USUAL: Final = 0.2
"""Coincidence that is expected before much is known."""


class Likeness:
    """Counts for pairs of peers, and what follows from them."""

    def __init__(self) -> None:
        # Under the smaller peer of each pair, then the larger.
        self._pairs: dict[PeerId, dict[PeerId, tuple[float, float]]] = {}
        self._usual: float | None = _USUAL

    def add(self, marks: Sequence[Mark]) -> None:
        """One more trial."""
        wrong = sorted((mark.peer, mark.wrong) for mark in marks if not mark.right)
        for (one, first), (other, second) in combinations(wrong, 2):
            row = self._pairs.setdefault(one, {})
            both, same = row.get(other, (0.0, 0.0))
            row[other] = (both * FADING + 1.0, same * FADING + (first == second))
            self._usual = None

    def forget(self, peers: Iterable[PeerId]) -> None:
        """Drop what is known of these."""
        for peer in peers:
            self._pairs.pop(peer, None)
            for row in self._pairs.values():
                row.pop(peer, None)
            self._usual = None

    def kind(self, peer: PeerId) -> tuple[tuple[PeerId, ...], float]:
        """The peers that are like it, itself included, and their mean excess over it, ρ."""
        others = set(self._pairs.get(peer, ()))
        others |= {one for one, row in self._pairs.items() if peer in row}
        over = {one: self.excess(peer, one) for one in sorted(others)}
        found = {one: excess for one, excess in over.items() if excess >= ALIKE}
        return tuple(sorted((peer, *found))), fmean(found.values()) if found else 0.0

    def divisor(self, peer: PeerId, seated: Iterable[PeerId]) -> float:
        """What its weight is divided by in a round with these peers."""
        over = (self.excess(peer, one) for one in sorted(set(seated) - {peer}))
        return 1.0 + sum(one for one in over if one >= ALIKE)

    def excess(self, one: PeerId, other: PeerId) -> float:
        """How far the wrong answers of two coincide beyond what is usual, as a part of the rest."""
        both, same = self._pairs.get(min(one, other), {}).get(max(one, other), (0.0, 0.0))
        if both < FEWEST:
            return 0.0
        if self._usual is None:
            self._usual = self._median()
        return (_rate(both, same) - self._usual) / (1.0 - self._usual)

    def _median(self) -> float:
        """Coincidence of the usual pair."""
        rates = [
            _rate(both, same)
            for row in self._pairs.values()
            for both, same in row.values()
            if both >= FEWEST
        ]
        return max(_USUAL, median(rates)) if len(rates) > 2 else _USUAL


def _rate(both: float, same: float) -> float:
    return (same + _PRIOR * _USUAL) / (both + _PRIOR)
