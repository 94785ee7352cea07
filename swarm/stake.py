"""What an identity has to have at stake before a Sybil attack costs more than it gains.

An attacker pays for each identity what makes it count: calibration, answered well enough to be
admitted. Then its ring corrupts rounds until hidden calibration finds it, and all is lost. Per
identity, in units of what one answer costs, the attack does not pay if

    S ≥ (q·G·R/m* − C + E) / p

    G   gained by a round whose answer the ring chose          q   share of rounds that it can
    R   rounds until the ring is found out                     m*  identities that it takes
    C   cost of an identity                                    E   earned by it while it behaves
    p   chance that what is at stake is lost in the end

m* = f*/(1 − f*)·H for H honest peers in a committee, where f* = d/(d + w_ring/w_honest) is the
share of the committee that turns a weighted pairwise majority, and d = 2a − 1 the margin by which
honest judges of accuracy a are right (Condorcet; the breakdown of a weighted majority).

Nothing is deposited: what a peer stakes is what C bought. So S above 0 means that an attack of
that gain pays; ``harmless`` is the gain at which S is 0. And against a ring that can tell
calibration from questions R has no bound, and no stake is enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log
from typing import Final

from swarm.record import FADING, HIDDEN_PAIRS
from swarm.reputation import NEWCOMERS_SHARE, judge_weight
from swarm.sequential import ABLE, ALARM, CHANCE, DROP, ERROR, discounted

JUDGEMENT: Final = 0.3
"""What a verdict costs, in answers."""
PAIRS: Final = 6.0
"""Verdicts on each calibration question, all on pairs with one right answer."""
RATE: Final = 0.1
"""Share of rounds that are hidden calibration."""
FLIPPED: Final = 0.5
"""q: the ring is not always seated in strength."""
LOST: Final = 0.95
"""p: an alarm, or a proof, reaches those who matter."""
GAINS: Final = (1.0, 10.0, 100.0)


@dataclass(frozen=True, slots=True)
class Stake:
    """The terms for honest judges of one accuracy.

    Attributes:
        accuracy: a, of honest judges and of ring members until they strike.
        honest: H.
        fraction: f*, of the committee.
        identities: m*.
        cost: C.
        rounds: R.
        harmless: the gain G at which the attack breaks even with nothing deposited.
        needed: S for each of ``GAINS``.
        newcomers: whether identities without evidence can turn a round by their number; they
            together weigh at most ``NEWCOMERS_SHARE`` of the proven.
    """

    accuracy: float
    honest: int
    fraction: float
    identities: float
    cost: float
    rounds: float
    harmless: float
    needed: tuple[float, ...]
    newcomers: bool


def stake(accuracy: float, honest: int, rate: float = RATE) -> Stake:
    """The terms against a ring that was admitted, earned its full weight, and then strikes.

    Args:
        accuracy: in (0.61, 0.97): below, the admission test turns judges away.
        honest: peers, one at least.
        rate: of hidden calibration, in (0, 1].
    """
    settled = PAIRS / (1.0 - FADING)
    admission = _questions_until_admitted(accuracy) * PAIRS
    ring = judge_weight(accuracy * (admission + HIDDEN_PAIRS), admission + HIDDEN_PAIRS)
    weight = ring / judge_weight(accuracy * settled, settled)
    margin = 2.0 * accuracy - 1.0
    fraction = margin / (margin + weight)
    identities = ceil(fraction / (1.0 - fraction) * honest)
    cost = identity_cost(accuracy)
    rounds = questions_until_found(accuracy) / rate
    harmless = cost * identities / (FLIPPED * rounds)
    return Stake(
        accuracy, honest, fraction, identities, cost, rounds, harmless,
        tuple(max(0.0, (FLIPPED * gain * rounds / identities - cost) / LOST) for gain in GAINS),
        margin <= NEWCOMERS_SHARE,
    )  # fmt: skip


def identity_cost(accuracy: float) -> float:
    """C: calibration until admitted, and hidden calibration until full weight, in answers."""
    questions = _questions_until_admitted(accuracy) + ceil(HIDDEN_PAIRS / PAIRS)
    return questions * (1.0 + JUDGEMENT * PAIRS)


def questions_until_found(accuracy: float) -> int:
    """Calibration questions until a ring that judges all pairs falsely raises the alarm."""
    falsely = PAIRS * log((1.0 - (accuracy - DROP)) / (1.0 - accuracy)) / discounted(PAIRS)
    return ceil(ALARM / falsely)


def _questions_until_admitted(accuracy: float) -> int:
    """Mean of the sequential test, by Wald's identity."""
    gain = accuracy * log(ABLE / CHANCE) + (1.0 - accuracy) * log((1.0 - ABLE) / (1.0 - CHANCE))
    bound = log((1.0 - ERROR) / ERROR)
    return ceil(bound * (1.0 - 2.0 * ERROR) / (PAIRS * gain / discounted(PAIRS)))
