"""The sequential tests in the simulated world: errors, questions needed, swapped models found.

A judge of given skill meets calibration questions answered by ``PEERS`` peers, itself among them,
and judges up to ``PAIRS`` pairs with exactly one right answer. Its verdicts on one question
correlate, which is what the tests' correction is for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Final

import numpy as np
from numpy.random import Generator

from protocol.ids import RoundId
from protocol.messages import MICRO
from protocol.receipt import Tally
from swarm.record import Record
from swarm.sequential import Sprt
from swarm.simulate.scene import peer_id
from swarm.simulate.world import (
    RIGHT,
    Pairs,
    World,
    draw_answers,
    draw_peers,
    draw_question,
    draw_verdicts,
)
from swarm.trial import Mark, Trial, five

PEERS: Final = 15
PAIRS: Final = 6
QUESTIONS_MOST: Final = 160
"""Calibration questions after which a test that has not ended is called undecided."""
BEFORE_SWAP: Final = 60
"""Calibration questions that a peer answers before its model is swapped."""
AFTER_SWAP: Final = 400
"""Calibration questions for which a swap is looked for."""
GAPS: Final = (0.0, 0.5, 1.0, 1.5, 2.0)
"""By how much the swapped model's skill is lower, in logits."""
_SKILL_STEPS: Final = (-1.5, 1.5)
_SWAPPED_FROM: Final = 0.5


@dataclass(frozen=True, slots=True)
class Tested:
    """What the admission test did with judges of one kind.

    Attributes:
        name: the kind.
        accuracy: share of informative pairs that they pick rightly.
        admitted, refused, undecided: shares of the judges.
        questions, pairs: means until the end.
        longest: questions that nine in ten need at most.
    """

    name: str
    accuracy: float
    admitted: float
    refused: float
    undecided: float
    questions: float
    pairs: float
    longest: float


@dataclass(frozen=True, slots=True)
class Swapped:
    """How soon a swapped model is found.

    Attributes:
        gap: how much lower its skill is, in logits; at 0 an alarm is false.
        before, after: share of informative pairs picked rightly.
        found: share of the peers with an alarm within ``AFTER_SWAP`` calibration questions.
        questions: median calibration questions until the alarm, None where half never alarm.
    """

    gap: float
    before: float
    after: float
    found: float
    questions: float | None


def judged(rng: Generator, world: World, skill: float, *, lazy: bool) -> Iterator[tuple[int, int]]:
    """Right picks and informative pairs of one judge, question by question, without end.

    Args:
        lazy: it judges by a coin.
    """
    while True:
        peers = draw_peers(rng, PEERS, world)
        peers = replace(peers, skill=np.concatenate([[skill], peers.skill[1:]]))
        question = draw_question(rng, world)
        answers = draw_answers(rng, question, peers, world)
        right = answers.label == RIGHT
        low, high = np.triu_indices(PEERS, 1)
        telling = np.flatnonzero(right[low] != right[high])
        chosen = rng.choice(telling, min(PAIRS, len(telling)), replace=False)
        turned = rng.random(len(chosen)) < 0.5
        pairs = Pairs(
            np.where(turned, high[chosen], low[chosen]),
            np.where(turned, low[chosen], high[chosen]),
            np.zeros(len(chosen), dtype=np.int64),
        )
        logit = draw_verdicts(rng, question, peers, answers, pairs, world)
        if lazy:
            logit = rng.logistic(size=len(chosen))
        yield int(((logit > 0) == right[pairs.first]).sum()), len(chosen)


def accuracy(world: World, skill: float, seed: int, questions: int = 1000) -> float:
    """Share of informative pairs that a judge of this skill picks rightly."""
    stream = judged(np.random.default_rng(seed), world, skill, lazy=False)
    found = [next(stream) for _ in range(questions)]
    return sum(right for right, _ in found) / sum(pairs for _, pairs in found)


def skill_of(
    world: World, wanted: float, seed: int, questions: int = 1000, steps: int = 10
) -> float:
    """The skill at which a judge picks rightly this often, by bisection on a fixed sample."""
    low, high = _SKILL_STEPS
    for _ in range(steps):
        middle = (low + high) / 2.0
        if accuracy(world, middle, seed, questions) < wanted:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def admit(world: World, name: str, skill: float | None, judges: int, seed: int) -> Tested:
    """Put ``judges`` judges of one skill (None: judging by a coin) to the admission test."""
    rng = np.random.default_rng(seed)
    ends: list[Sprt] = []
    for _ in range(judges):
        state = Sprt()
        stream = judged(rng, world, skill or 0.0, lazy=skill is None)
        for _ in range(QUESTIONS_MOST):
            state = state.after(*next(stream))
            if state.decision != "open":
                break
        ends.append(state)
    asked = [state.questions for state in ends]
    return Tested(
        name=name,
        accuracy=0.5 if skill is None else accuracy(world, skill, seed),
        admitted=_share(ends, "admitted"),
        refused=_share(ends, "refused"),
        undecided=_share(ends, "open"),
        questions=fmean(asked),
        pairs=fmean(state.pairs for state in ends),
        longest=float(np.percentile(asked, 90)),
    )


def _share(ends: Sequence[Sprt], decision: str) -> float:
    return sum(state.decision == decision for state in ends) / len(ends)


def swap(world: World, gap: float, peers: int, seed: int) -> Swapped:
    """Swap the model of admitted peers for one whose skill is ``gap`` lower."""
    rng = np.random.default_rng(seed)
    after: list[int] = []
    for _ in range(peers):
        record = Record("simulated")
        number = 0
        honest = judged(rng, world, _SWAPPED_FROM, lazy=False)
        while number < BEFORE_SWAP or not record.admitted:
            number += 1
            _ask(record, number, *next(honest))
        record.fell_at = None
        swapped = judged(rng, world, _SWAPPED_FROM - gap, lazy=False)
        for count in range(1, AFTER_SWAP + 1):
            number += 1
            _ask(record, number, *next(swapped))
            if record.fell_at is not None:
                after.append(count)
                break
    found = len(after) / peers
    never = [AFTER_SWAP + 1] * (peers - len(after))
    middle = median([*after, *never])
    return Swapped(
        gap=gap,
        before=accuracy(world, _SWAPPED_FROM, seed),
        after=accuracy(world, _SWAPPED_FROM - gap, seed),
        found=found,
        questions=middle if middle <= AFTER_SWAP else None,
    )


def _ask(record: Record, number: int, right: int, pairs: int) -> None:
    """One more hidden calibration question, as a node's book records it."""
    none = Tally(0, 0)
    mark = Mark(
        peer=peer_id(0),
        model=record.model,
        judge=five([none, none, none, none, Tally(right * MICRO, pairs * MICRO)]),
        right=True,
        wrong=b"",
        latency_ms=0,
        answer_bytes=0,
    )
    trial = Trial(
        round=RoundId(number.to_bytes(32, "big")),
        at=number,
        topic="world",
        task="",
        kind="hidden",
        chosen=True,
        right=0,
        answerers=PEERS,
        weighted=(),
        equal=(),
        marks=(mark,),
    )
    record.add(trial, mark)
