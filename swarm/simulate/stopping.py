"""How many comparisons the early stop saves, and what it costs: three schedules on equal rounds.

*everything*: every judge judges every pair in both orders. *full*: the product's schedule for a
round of this size. *adaptive*: small waves, until the winner's confidence reaches a threshold. The
waves, the stop and the decision are those of a live round; only the verdicts are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import sqrt
from statistics import fmean, stdev
from typing import Any, Final

import msgspec
import numpy as np
from numpy.random import Generator

from protocol.digest import digest
from protocol.messages import MICRO, Row
from protocol.receipt import Result, Rule, Weight
from swarm.ballots import is_confident
from swarm.confidence import Example, refit
from swarm.consensus import DEFAULT_WEIGHTED, Case, Vote, decide
from swarm.duels import following
from swarm.pairing import Pairing
from swarm.reputation import weigh
from swarm.simulate.attacks import Attack
from swarm.simulate.fresh import CALIBRATION, Curves, example, measure, record
from swarm.simulate.scene import peer_id
from swarm.simulate.world import (
    RIGHT,
    Ints,
    Pairs,
    World,
    draw_answers,
    draw_peers,
    draw_question,
    draw_verdicts,
)

TRAINING: Final = 200
_NOBODY: Final = Attack()


@dataclass(frozen=True, slots=True)
class Stopped:
    """One round under three schedules.

    Attributes:
        right: whether each schedule's winner was, by its name.
        comparisons: that it took.
        waves: of the adaptive one.
    """

    right: dict[str, bool]
    comparisons: dict[str, int]
    waves: int


@dataclass(frozen=True, slots=True)
class _Round:
    """A round in which every verdict that may be asked for is fixed.

    Attributes:
        picks: by judge, class shown first, class shown second: whether the first is picked.
    """

    classes: tuple[tuple[int, ...], ...]
    right: tuple[bool, ...]
    weights: tuple[Weight, ...]
    picks: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    seed: bytes

    def case(self, rule: Rule, asked: Sequence[tuple[int, int, int]], both: bool) -> Case:
        votes = tuple(
            Vote(judge, Row(first, second, MICRO if self.picks[judge, first, second] else 0))
            for judge, first, second in asked
        )
        return Case(rule, self.classes, self.weights, votes, both)

    def hit(self, result: Result) -> bool:
        return result.winner is not None and self.right[result.winner]


def play(world: World, peers: int, rounds: int, stop: float, seed: int) -> Iterator[Stopped]:
    """``rounds`` rounds after the confidence has been fitted to ``TRAINING`` others.

    Args:
        stop: confidence at which the adaptive schedule ends.
    """
    curves, _ = measure(world, _NOBODY)
    training = np.random.default_rng([seed, 1])
    examples = [_example(_draw(training, world, peers, curves)) for _ in range(TRAINING)]
    rule = refit(examples, DEFAULT_WEIGHTED)
    stopping = msgspec.structs.replace(rule, stop=round(MICRO * stop))
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        one = _draw(rng, world, peers, curves)
        everything = [
            (judge, first, second)
            for judge in range(peers)
            for first, second in permutations(range(len(one.classes)), 2)
        ]
        best = decide(one.case(rule, everything, both=True))
        full, asked, _ = _run(one, rule, adaptive=False)
        early, few, waves = _run(one, stopping, adaptive=True)
        yield Stopped(
            {"everything": one.hit(best), "full": one.hit(full), "adaptive": one.hit(early)},
            {"everything": len(everything), "full": asked, "adaptive": few},
            waves,
        )


def saved(rounds: Sequence[Stopped]) -> dict[str, Any]:
    """Means by schedule, and what the adaptive one saves and costs against the others."""
    schedules = {
        name: {
            "accuracy": fmean(one.right[name] for one in rounds),
            "comparisons": fmean(one.comparisons[name] for one in rounds),
        }
        for name in rounds[0].right
    }
    few = schedules["adaptive"]["comparisons"]
    against = {}
    for name in ("everything", "full"):
        gains = [one.right["adaptive"] - one.right[name] for one in rounds]
        against[name] = {
            "fewer": schedules[name]["comparisons"] / few if few else 0.0,
            "difference": fmean(gains),
            "ci95": 1.96 * stdev(gains) / sqrt(len(gains)) if len(gains) > 1 else 0.0,
        }
    waves = fmean(one.waves for one in rounds)
    return {"rounds": len(rounds), "schedules": schedules, "against": against, "waves": waves}


def _draw(rng: Generator, world: World, count: int, curves: Curves) -> _Round:
    peers = draw_peers(rng, count, world)
    question = draw_question(rng, world)
    answers = draw_answers(rng, question, peers, world)
    members: dict[int, list[int]] = {}
    for seat, label in enumerate(answers.label.tolist()):
        members.setdefault(label, []).append(seat)
    classes = tuple(tuple(seats) for seats in members.values())
    ordered = list(permutations(range(len(classes)), 2))
    picks = np.zeros((count, len(classes), len(classes)), dtype=np.bool_)
    if ordered:
        judge = np.repeat(np.arange(count), len(ordered))
        first, second = (np.tile(_shown(classes, ordered, side), count) for side in (0, 1))
        logit = draw_verdicts(rng, question, peers, answers, Pairs(first, second, judge), world)
        at = np.tile(np.array(ordered), (count, 1))
        picks[judge, at[:, 0], at[:, 1]] = logit > 0
    judged = rng.binomial(CALIBRATION, curves.judge.at(peers.skill))
    answered = rng.binomial(CALIBRATION, curves.answer.at(peers.skill))
    counts = zip(judged.tolist(), answered.tolist(), strict=True)
    standings = [record(seat, *one) for seat, one in enumerate(counts)]
    right = tuple(label == RIGHT for label in members)
    seed = digest("simulated", rng.bytes(32))
    return _Round(classes, right, weigh("weighted", standings), picks, seed)


def _shown(classes: Sequence[Sequence[int]], ordered: Sequence[tuple[int, int]], side: int) -> Ints:
    """The peer whose wording of a class is shown: its first member's."""
    return np.array([classes[pair[side]][0] for pair in ordered], dtype=np.int64)


def _run(one: _Round, rule: Rule, adaptive: bool) -> tuple[Result, int, int]:
    """The round as a live one goes: result, comparisons and waves."""
    judges = tuple(peer_id(seat) for seat in range(len(one.weights)))
    pairing: Pairing | None = Pairing(adaptive, digest("seed", one.seed), len(one.classes), judges)
    assert pairing is not None
    if pairing.waves == 0:
        return decide(one.case(rule, (), pairing.both_orders)), 0, 0
    asked: list[tuple[int, int, int]] = []
    waves = 0
    while True:
        for seat, judge in enumerate(judges):
            asked += [(seat, first, second) for first, second in pairing.pairs(judge)]
        waves += 1
        case = one.case(rule, asked, pairing.both_orders)
        result = decide(case)
        after = None if is_confident(rule, result) else following(pairing, case, result)
        if after is None:
            return result, len(asked), waves
        pairing = after


def _example(one: _Round) -> Example:
    """A calibration round on the full schedule."""
    judges = tuple(peer_id(seat) for seat in range(len(one.weights)))
    pairing: Pairing | None = Pairing(False, digest("seed", one.seed), len(one.classes), judges)
    asked: list[tuple[int, int, int]] = []
    both = False
    while pairing is not None and pairing.wave < pairing.waves:
        both = pairing.both_orders
        for seat, judge in enumerate(judges):
            asked += [(seat, first, second) for first, second in pairing.pairs(judge)]
        pairing = pairing.then(()) if pairing.wave + 1 < pairing.waves else None
    return example(one.case(DEFAULT_WEIGHTED, asked, both), one.right)
