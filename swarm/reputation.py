"""From counts of known-truth calibration to the weight of a judge and of an answerer.

Counts come only from questions whose truth is known; agreement with the consensus never enters
(measured: with half the swarm colluding, agreement weights keep 0 % accuracy, these 82 %).

A judge's counts are kept apart by how sure it says it is. That is its calibration curve: a
verdict weighs what this judge's verdicts of that sureness have been worth, so that claiming
certainty gains nothing, and a specialist that says "I cannot tell" off its topic loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt
from typing import Final

from protocol.ids import PeerId
from protocol.messages import MICRO
from protocol.receipt import PerBin, RuleName, Standing, Tally, Weight

NEWCOMERS_SHARE: Final = 0.1
"""All unproven peers together weigh at most this part of the proven sum."""
KNOWN_PAIRS: Final = 30
"""Informative pairs after which a judge at chance is known as such, and no newcomer."""
KNOWN_ANSWERS: Final = 20
"""Graded answers after which an answerer's weight is its own, whatever it is as a judge."""
BIN_FLOORS: Final = (600_000, 750_000, 900_000, 970_000)
"""Where the bins of stated sureness begin, in 1e-6 of the likelier side; the first at one half."""
_NOMINAL: Final = (0.55, 0.68, 0.83, 0.94, 0.99)
"""What a judge claims in each bin, roughly: prior mean of its accuracy there."""
_NOMINAL_PAIRS: Final = 10.0

_ONES: Final[PerBin] = (MICRO, MICRO, MICRO, MICRO, MICRO)
NEUTRAL: Final = Weight(_ONES, _ONES, MICRO)
"""What every seat weighs where nothing is known of anybody."""


def unknown(peer: PeerId) -> Standing:
    """Of a peer of which there is no evidence."""
    none = Tally(0, 0)
    return Standing(peer, (none, none, none, none, none), none, False, MICRO, "asker")


def confidence_bin(p: int) -> int:
    """The bin of a verdict's stated sureness; ``p`` is P(first is right) in 1e-6."""
    sure = max(p, MICRO - p)
    return sum(sure >= floor for floor in BIN_FLOORS)


def judge_weight(right: float, pairs: float) -> float:
    """Squared log-odds of the lower confidence bound of pair accuracy; 0 at chance.

    Squared, since the errors of judges correlate (0.4–0.5) and plain log-odds are too flat.
    """
    accuracy = (right + 5.5) / (pairs + 10.0)
    low = _clip(accuracy - sqrt(accuracy * (1.0 - accuracy) / (pairs + 11.0)))
    return max(0.0, _logit(low)) ** 2


def answer_weight(right: float, total: float) -> float:
    """Log-odds of the lower bound of answer accuracy against one right among four wrong."""
    return max(0.02, _logit(answer_bound(right, total)) + log(4.0))


def answer_bound(right: float, total: float) -> float:
    """Lower confidence bound (one standard error) of the share of right answers."""
    accuracy = (right + 3.0) / (total + 7.0)
    return _clip(accuracy - sqrt(accuracy * (1.0 - accuracy) / (total + 8.0)))


def believed(right: float, pairs: float, place: int) -> float:
    """How far a stated probability in bin ``place`` is believed: 0 not at all, 1 as it stands.

    The measured excess over chance as a part of the claimed one; with no evidence it is 1.
    """
    nominal = _NOMINAL[place]
    accuracy = (right + _NOMINAL_PAIRS * nominal) / (pairs + _NOMINAL_PAIRS)
    return min(1.0, max(0.0, (2.0 * accuracy - 1.0) / (2.0 * nominal - 1.0)))


def is_proven(standing: Standing) -> bool:
    """Admitted, and above chance as a judge of questions like this one."""
    return standing.admitted and max(_judge(standing)) > 0.0


_Columns = list[tuple[float, ...]]


def is_known(standing: Standing) -> bool:
    """Admitted, or tried at length and found to be no better than chance."""
    if standing.admitted:
        return True
    pairs = sum(tally.total for tally in standing.judge)
    return pairs >= KNOWN_PAIRS * MICRO and max(_judge(standing)) == 0.0


def weigh(rule: RuleName, standings: Sequence[Standing]) -> tuple[Weight, ...]:
    """The weights that follow from the counts of the seats of a roster.

    ``uncalibrated``: all 1. ``equal``: the admitted 1, each stated probability believed as far as
    that judge's record allows. ``weighted``: by the counts, scaled so that the mean of the top
    half of the admitted is 1. Newcomers are capped jointly in both.
    """
    if rule == "uncalibrated":
        return (NEUTRAL,) * len(standings)
    admitted = [one.admitted for one in standings]
    if rule == "equal":
        flat: _Columns = [(MICRO / one.divisor,) * 5 for one in standings]
        judge = answer = _capped(flat, admitted)
    else:
        judge = _scaled(_capped([_judge(one) for one in standings], admitted), admitted)
        # A poor judge may answer well, and has shown it; all such together as much as the admitted.
        shown = [one.admitted or one.answer.total >= KNOWN_ANSWERS * MICRO for one in standings]
        given = _capped([(_answer(one),) for one in standings], shown)
        seasoned = [old or not well for old, well in zip(admitted, shown, strict=True)]
        answer = _scaled(_capped(given, admitted, seasoned, 1.0), admitted)
    return tuple(
        Weight(_micro(verdicts), _micro(_trust(one)), round(support[0] * MICRO))
        for one, verdicts, support in zip(standings, judge, answer, strict=True)
    )


def _judge(standing: Standing) -> tuple[float, ...]:
    return tuple(
        judge_weight(*_counts(tally)) * MICRO / standing.divisor for tally in standing.judge
    )


def _answer(standing: Standing) -> float:
    return answer_weight(*_counts(standing.answer)) * MICRO / standing.divisor


def _trust(standing: Standing) -> tuple[float, ...]:
    return tuple(believed(*_counts(tally), place) for place, tally in enumerate(standing.judge))


def _capped(
    raw: _Columns,
    known: Sequence[bool],
    exempt: Sequence[bool] | None = None,
    share: float = NEWCOMERS_SHARE,
) -> _Columns:
    """The others scaled down together to ``share`` of the known: the number of keys is nothing.

    Args:
        exempt: not scaled, nor counted among the others; the known where it is None.
    """
    kept = known if exempt is None else exempt
    sum_known = sum(max(one) for one, old in zip(raw, known, strict=True) if old)
    others = sum(max(one) for one, old in zip(raw, kept, strict=True) if not old)
    cap = min(1.0, share * sum_known / others) if others else 1.0
    return [
        one if old else tuple(weight * cap for weight in one)
        for one, old in zip(raw, kept, strict=True)
    ]


def _scaled(raw: _Columns, admitted: Sequence[bool]) -> _Columns:
    """Divided by the mean of the top half, so that evidence has one scale in all rounds.

    Of the admitted: with the newcomers in it, a crowd of these would make everybody surer.
    """
    known = [max(one) for one, old in zip(raw, admitted, strict=True) if old]
    top = sorted(known, reverse=True)[: (len(known) + 1) // 2]
    mean = sum(top) / len(top) if top else 0.0
    return [tuple(weight / mean for weight in one) for one in raw] if mean else raw


def _counts(tally: Tally) -> tuple[float, float]:
    return tally.right / MICRO, tally.total / MICRO


def _micro(values: tuple[float, ...]) -> PerBin:
    first, second, third, fourth, fifth = (round(value * MICRO) for value in values)
    return first, second, third, fourth, fifth


def _logit(p: float) -> float:
    return log(p / (1.0 - p))


def _clip(p: float) -> float:
    return min(max(p, 0.02), 0.98)
