"""Sequential tests: has enough been seen to decide?

:class:`Sprt` admits a judge or turns it away (Wald 1945); :class:`Cusum` notices that an admitted
one has become worse (Page 1954). Both take questions of several pairs. The verdicts on one
question correlate, so each question's log-likelihood ratio is divided by 1 + 0.25 (pairs − 1),
the design effect of an intra-question correlation of a quarter; without it a lazy judge is
admitted several times too often.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Final, Literal

CHANCE: Final = 0.5
ABLE: Final = 0.7
ERROR: Final = 0.01
"""Of either kind: a chance judge admitted, an able one turned away."""
INTRA_QUESTION: Final = 0.25

DROP: Final = 0.15
"""The fall in accuracy that :class:`Cusum` is tuned for."""
ALARM: Final = 8.0
"""Log-likelihood ratio at which it alarms: about once in 4,000 questions of six pairs without a
fall, where the verdicts on one question correlate by .35."""

Decision = Literal["open", "admitted", "refused"]


def discounted(pairs: float) -> float:
    """What a question's log-likelihood ratio is divided by."""
    return 1.0 + INTRA_QUESTION * max(0.0, pairs - 1.0)


@dataclass(frozen=True, slots=True)
class Sprt:
    """Wald's test of a judge of accuracy ``ABLE`` against one of ``CHANCE``.

    Immutable: :meth:`after` gives the next state, and a decided test stays decided.

    Attributes:
        ratio: log-likelihood ratio, able against chance.
        pairs: informative pairs seen.
        questions: questions that held any.
    """

    ratio: float = 0.0
    pairs: float = 0.0
    questions: int = 0

    @property
    def decision(self) -> Decision:
        """Whether the test has ended, and how."""
        bound = log((1.0 - ERROR) / ERROR)
        if self.ratio >= bound:
            return "admitted"
        return "refused" if self.ratio <= -bound else "open"

    @classmethod
    def of(cls, right: float, pairs: float, questions: float) -> Sprt:
        """The test after counts whose spread over the questions is not known: taken as even."""
        if pairs <= 0.0 or questions <= 0.0:
            return cls()
        each = _gain(right, pairs) / discounted(pairs / questions)
        return cls(each, pairs, round(questions))

    def after(self, right: float, pairs: float) -> Sprt:
        """One more question with ``right`` of ``pairs`` informative pairs picked rightly."""
        if pairs <= 0.0 or self.decision != "open":
            return self
        gain = _gain(right, pairs)
        return Sprt(self.ratio + gain / discounted(pairs), self.pairs + pairs, self.questions + 1)


def _gain(right: float, pairs: float) -> float:
    """Log-likelihood ratio of independent pairs."""
    return right * log(ABLE / CHANCE) + (pairs - right) * log((1.0 - ABLE) / (1.0 - CHANCE))


@dataclass(frozen=True, slots=True)
class Cusum:
    """Page's test that a success rate has dropped, for instance because the model was swapped.

    Each observation comes with the rate expected of it; the alternative is ``DROP`` less. The sum
    of log-likelihood ratios is kept at 0 or above and alarms at ``ALARM``.

    Attributes:
        total: the sum.
    """

    total: float = 0.0

    @property
    def alarmed(self) -> bool:
        """The rate has dropped."""
        return self.total >= ALARM

    def after(self, right: float, pairs: float, expected: float) -> Cusum:
        """One more question: ``right`` of ``pairs``, where ``expected`` (0–1) were to be right."""
        if pairs <= 0.0:
            return self
        before = min(0.98, max(0.05, expected))
        after = max(0.02, before - DROP)
        gain = right * log(after / before) + (pairs - right) * log((1 - after) / (1 - before))
        return Cusum(max(0.0, self.total + gain / discounted(pairs)))
