"""When judging goes on, and which pairs come next: a function of seed, ballots and weights.

In the adaptive schedule the next wave's pairs are drawn by double Thompson sampling (Wu & Liu
2016; the rival as in the top-two rule of Russo 2016): of two draws of all scores from the
posterior, the best of the first meets the best other class of the second. The posterior is normal
around the scores that decide, with the covariance of the Bradley–Terry strengths (Laplace's
method). Scores and covariance are rounded to 1e-6 before the draws, and only the counts of the
draws leave this module, so that platforms agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import cos, log, pi, sqrt

import numpy as np

from protocol import limits
from protocol.digest import digest
from protocol.errors import RefusedError
from protocol.messages import MICRO, Duel
from protocol.receipt import Result
from swarm.bradley_terry import Floats
from swarm.consensus import Case, uncertainty
from swarm.pairing import Pairing
from swarm.seeded import Stream


def following(pairing: Pairing, case: Case, result: Result) -> Pairing | None:
    """The pairing with the next wave open; None where the schedule has no more.

    Whether judging goes on is for :func:`swarm.ballots.is_confident` to say as well.

    Args:
        pairing: with the wave open that has just ended.
        case: all ballots so far.
        result: ``decide(case)``.
    """
    if pairing.wave + 1 >= pairing.waves:
        return None
    if not pairing.adaptive:
        return pairing.then(())
    # Cholesky's factor is unique, so that other platforms draw the same.
    factor = np.linalg.cholesky(np.round(uncertainty(case), 6)) * case.rule.theta[1] / MICRO
    after = pairing.then(draw(pairing.seed, pairing.wave + 1, result.scores, factor))
    return after if after.asked() else None


def draw(seed: bytes, wave: int, scores: Sequence[int], factor: Floats) -> tuple[Duel, ...]:
    """The duels from which the pairs of ``wave`` are drawn: ``limits.DUELS`` draws, counted.

    Args:
        seed: of the round.
        scores: of at least two classes, 1e-6.
        factor: L, where L Lᵀ is their covariance; shape (classes, classes).
    """
    mean = np.array(scores) / MICRO
    stream = Stream(digest("thompson", seed, wave))

    def sample() -> Floats:
        deviates: Floats = np.array([_normal(stream) for _ in scores])
        return np.asarray(mean + factor @ deviates, dtype=np.float64)

    found: Counter[tuple[int, int]] = Counter()
    for _ in range(limits.DUELS):
        best = int(np.argmax(sample()))
        others = sample()
        others[best] = -np.inf
        rival = int(np.argmax(others))
        found[min(best, rival), max(best, rival)] += 1
    return tuple(Duel(*pair, count) for pair, count in sorted(found.items()))


def check_duels(duels: tuple[Duel, ...], pairing: Pairing) -> None:
    """Raise RefusedError unless these duels may open the next wave of ``pairing``."""
    if pairing.wave + 1 >= pairing.waves:
        raise RefusedError("A WaveClose promises a wave that there cannot be.")
    if not pairing.adaptive:
        if duels:
            raise RefusedError("A WaveClose chooses pairs that the seed alone chooses.")
        return
    pairs = [(duel.first, duel.second) for duel in duels]
    if pairs != sorted(set(pairs)) or sum(duel.draws for duel in duels) != limits.DUELS:
        raise RefusedError("The duels of a WaveClose are not sorted, or not the right number.")
    if not all(first < second < pairing.classes for first, second in pairs):
        raise RefusedError("A duel of a WaveClose is not between two classes.")


def _normal(stream: Stream) -> float:
    """A standard normal deviate (Box & Muller 1958)."""
    radius = sqrt(-2.0 * log(1.0 - stream.unit()))
    return radius * cos(2.0 * pi * stream.unit())
