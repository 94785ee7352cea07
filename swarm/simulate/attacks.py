"""What hostile peers do in the simulated world.

A *ring* answers alike, with an answer of its own making, and judges for it without shame. The
others need no agreement. What a peer cannot know is whether a question is hidden calibration; only
``leak`` supposes that it does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.random import Generator

from swarm.simulate.world import Answers, Flags, Floats, Pairs, Peers, Question

ABOUT: Final = {
    "none": "nobody is hostile",
    "collude": "a ring from the beginning on, in calibration too",
    "invert": "answers as well as it can, and turns every verdict round",
    "lazy": "answers a popular wrong answer and judges by a coin",
    "clones": "weak peers of one family that repeat one of them (95 %)",
    "camouflage": "a ring in 30 % of the questions, honest in the others",
    "betray": "strong and honest until it is trusted, a ring from the middle on",
    "leak": "a ring that knows which questions are calibration and is honest there",
    "sybil": "COUNT newcomers that form a ring from the middle on",
}
RING: Final = frozenset({"collude", "betray", "leak", "camouflage", "sybil"})
FRACTION_MOST: Final = 0.9
NEWCOMERS_MOST: Final = 200

_RING_APPEAL = 0.3
_SHAMELESS = 9.0
_CAMOUFLAGE = 0.3
_CLONE_FAITH = 0.95
_BETRAYER_SKILL = 1.2
_CLONE_SKILL = -0.5


@dataclass(frozen=True, slots=True)
class Attack:
    """Who is hostile, and how.

    Attributes:
        kind: one of ``ABOUT``.
        fraction: of the peers that are hostile.
        newcomers: hostile peers that come on top (``sybil`` alone).
    """

    kind: str = "none"
    fraction: float = 0.0
    newcomers: int = 0

    def __str__(self) -> str:
        if self.kind == "none":
            return "none"
        return f"{self.kind}:{self.newcomers or f'{self.fraction:g}'}"

    def hostile(self, count: int) -> int:
        """How many of ``count`` peers are hostile."""
        return round(self.fraction * count)

    @property
    def honest_in_calibration(self) -> bool:
        """Its calibration looks like that of honest peers."""
        return self.kind in ("none", "betray", "leak")

    def disguised(self, peers: Peers, hostile: Flags) -> Peers:
        """The peers as this attack needs them."""
        if self.kind == "betray":
            return replace(peers, skill=np.where(hostile, _BETRAYER_SKILL, peers.skill))
        if self.kind == "clones":
            return replace(
                peers,
                skill=np.where(hostile, _CLONE_SKILL, peers.skill),
                family=np.where(hostile, 0, peers.family),
            )
        return peers

    def strikes(self, rng: Generator, *, calibration: bool, late: bool) -> bool:
        """Whether the hostile are hostile on this question.

        Args:
            calibration: it is hidden calibration.
            late: it is in the second half of the experiment.
        """
        if self.kind in ("betray", "sybil"):
            return late
        if self.kind == "leak":
            return not calibration
        if self.kind == "camouflage":
            return bool(rng.random() < _CAMOUFLAGE)
        return self.kind != "none"

    def answers(
        self, rng: Generator, question: Question, answers: Answers, hostile: Flags
    ) -> Answers:
        """The answers with those of the hostile, one at least, replaced while they strike."""
        label = answers.label.copy()
        wrong = len(question.popularity)
        if self.kind in RING:
            label[hostile] = wrong + 1
        elif self.kind == "lazy":
            drawn = rng.choice(wrong, int(hostile.sum()), p=question.popularity)
            label[hostile] = drawn + 1
        elif self.kind == "clones":
            faithful = rng.random(int(hostile.sum())) < _CLONE_FAITH
            label[hostile] = np.where(faithful, label[hostile][0], label[hostile])
        return replace(answers, label=label)

    def verdicts(
        self, rng: Generator, logit: Floats, answers: Answers, pairs: Pairs, hostile: Flags
    ) -> Floats:
        """The verdicts with those of the hostile, one at least, replaced while they strike."""
        theirs = hostile[pairs.judge]
        if self.kind == "lazy":
            return np.where(theirs, rng.logistic(size=len(logit)), logit)
        if self.kind == "invert":
            return np.where(theirs, -logit, logit)
        if self.kind in RING:
            ring = answers.label[hostile][0]
            first = answers.label[pairs.first] == ring
            second = answers.label[pairs.second] == ring
            logit = np.where(theirs & first & ~second, _SHAMELESS, logit)
            return np.where(theirs & second & ~first, -_SHAMELESS, logit)
        return logit


NOBODY: Final = Attack()
"""Nobody is hostile."""


def parse(text: str) -> Attack:
    """``none``, ``KIND:FRACTION`` or ``sybil:COUNT``.

    Raises:
        ValueError: it is none of these; the message says what would be.
    """
    kind, colon, amount = text.partition(":")
    if kind not in ABOUT:
        raise ValueError(f"{kind!r} is no attack; there are {', '.join(ABOUT)}")
    if kind == "none":
        if colon:
            raise ValueError("none takes no fraction")
        return NOBODY
    if kind == "sybil":
        if not amount.isdecimal() or not 0 < int(amount) <= NEWCOMERS_MOST:
            raise ValueError(f"sybil takes a count of 1 to {NEWCOMERS_MOST}, as sybil:72")
        return Attack(kind, newcomers=int(amount))
    try:
        fraction = float(amount)
    except ValueError:
        fraction = -1.0
    if not 0.0 <= fraction <= FRACTION_MOST:
        raise ValueError(f"{kind} takes a fraction of 0 to {FRACTION_MOST}, as {kind}:.5")
    return Attack(kind, fraction)


def with_ring(question: Question) -> Question:
    """The question with one more wrong answer, for a ring to make up."""
    return replace(question, appeal=np.append(question.appeal, _RING_APPEAL))
