"""Fresh mode: in each round new peers, each with the record of thirty calibration questions.

What a peer of given skill scores in calibration is measured in a simulation of the same world,
hostile peers included, and its record is drawn from that. Records of the past agreement with a
uniform Bradley–Terry consensus are made in the same way, from ordinary questions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from numpy.random import Generator

from protocol.messages import MICRO
from protocol.receipt import Rule, Standing, Tally, Weight
from swarm.agreement import agreement_weights, agreements
from swarm.confidence import Example, refit
from swarm.consensus import DEFAULT_WEIGHTED, Case, features
from swarm.reputation import unknown, weigh
from swarm.rules import WARY, Contest, plain_strengths
from swarm.simulate.attacks import NOBODY, Attack
from swarm.simulate.scene import Scene, draw_lots, peer_id, pose, settle
from swarm.simulate.world import RIGHT, Flags, Floats, Peers, World, draw_peers

TRAINING_ROUNDS: Final = 200
TRAINING_SEED: Final = 5000
"""Training rounds come from the seed that is this much higher."""
CALIBRATION: Final = 30
"""Calibration tasks behind each record: as many pairs, and as many answers."""

_MEASURE_SEED: Final = 77
_MEASURE_ROUNDS: Final = 1500
_MEASURE_PEERS: Final = 9
_MEASURE_PAIRS: Final = 12
_SKILLS: Final = (-2.0, 2.5)
_MOST: Final = 0.97
_LEAST: Final = 0.05


@dataclass(frozen=True, slots=True)
class Curve:
    """A rate as a quadratic function of skill.

    Attributes:
        coefficients: highest power first.
        least: the rate is never lower.
    """

    coefficients: tuple[float, ...]
    least: float

    def at(self, skill: Floats) -> Floats:
        """The rate at each skill."""
        raw = np.polyval(np.array(self.coefficients), np.clip(skill, *_SKILLS))
        return np.clip(raw, self.least, _MOST)


@dataclass(frozen=True, slots=True)
class Curves:
    """What peers score: picks on informative pairs, answers, agreement with the consensus."""

    judge: Curve
    answer: Curve
    agreement: Curve


@dataclass(frozen=True, slots=True)
class Fresh:
    """One cell of the experiment.

    Attributes:
        world: where.
        peers: proven peers in a round.
        each: pairs for each judge.
        seed: of the reported rounds.
        attack: by whom, if anyone.
    """

    world: World
    peers: int
    each: int
    seed: int
    attack: Attack = NOBODY

    def contests(self, rounds: int) -> Iterator[Contest]:
        """``rounds`` contests, after the confidence has been fitted to training rounds."""
        honest, hostile = measure(self.world, self.attack if self.attack.fraction else NOBODY)
        rule, wary_rule = self._trained(honest, hostile)
        rng = np.random.default_rng(self.seed)
        lots = np.random.default_rng([self.seed, 1])
        for _ in range(rounds):
            peers, bad, scene = self._scene(rng, calibration=False)
            weights = self._weights(rng, peers, bad, honest, hostile)
            draw_lots(rng, len(peers))
            proven = np.where(np.arange(len(peers)) < self.peers, CALIBRATION, 0)
            agreed = lots.binomial(proven, _rate(peers, bad, honest.agreement, hostile.agreement))
            yield Contest(
                scene.case(rule, weights),
                scene.case(wary_rule, weights),
                agreement_weights(agreed, proven),
                scene.bouts,
                scene.worth,
                scene.answers,
                (int(np.where(bad, -np.inf, peers.skill).argmax()),),
            )

    def _trained(self, honest: Curves, hostile: Curves) -> tuple[Rule, Rule]:
        """The weighted rule, and its wary variant, fitted to training rounds."""
        rng = np.random.default_rng(self.seed + TRAINING_SEED)
        examples: list[Example] = []
        wary_examples: list[Example] = []
        for _ in range(TRAINING_ROUNDS):
            peers, bad, scene = self._scene(rng, calibration=True)
            weights = self._weights(rng, peers, bad, honest, hostile)
            examples.append(example(scene.case(DEFAULT_WEIGHTED, weights), scene.right))
            wary_examples.append(example(scene.case(WARY, weights), scene.right))
        return refit(examples, DEFAULT_WEIGHTED), refit(wary_examples, WARY)

    def _scene(self, rng: Generator, *, calibration: bool) -> tuple[Peers, Flags, Scene]:
        """New peers, which of them are hostile, and a round among them.

        Newcomers have no part in the rounds that count as calibration.
        """
        extra = 0 if calibration else self.attack.newcomers
        bad = _last(self.peers + extra, extra or self.attack.hostile(self.peers))
        peers = self.attack.disguised(draw_peers(rng, len(bad), self.world), bad)
        return peers, bad, _round(
            rng, self.world, peers, self.each, self.attack, bad, calibration=calibration,
            late=not calibration,
        )  # fmt: skip

    def _weights(
        self, rng: Generator, peers: Peers, bad: Flags, honest: Curves, hostile: Curves
    ) -> tuple[Weight, ...]:
        """Weights from calibration records drawn for these peers; newcomers have none."""
        picks = rng.binomial(CALIBRATION, _rate(peers, bad, honest.judge, hostile.judge))
        right = rng.binomial(CALIBRATION, _rate(peers, bad, honest.answer, hostile.answer))
        standings = [
            record(seat, *counts) if seat < self.peers else unknown(peer_id(seat))
            for seat, counts in enumerate(zip(picks.tolist(), right.tolist(), strict=True))
        ]
        return weigh("weighted", standings)


def record(seat: int, picks: int, right: int) -> Standing:
    """The evidence on an admitted peer after ``CALIBRATION`` pairs and answers.

    Its verdicts are bare picks, which count as certain.
    """
    none = Tally(0, 0)
    asked = CALIBRATION * MICRO
    sure = Tally(picks * MICRO, asked)
    return Standing(
        peer_id(seat), (none, none, none, none, sure), Tally(right * MICRO, asked), True, MICRO,
        "asker",
    )  # fmt: skip


def example(case: Case, right: tuple[bool, ...]) -> Example:
    """A calibration round, as the fit of the confidence takes it."""
    answerers = sum(len(members) for members in case.classes)
    return Example(features(case), right.index(True) if any(right) else None, answerers)


@cache
def measure(world: World, attack: Attack) -> tuple[Curves, Curves]:
    """What honest and what hostile peers score in calibration, and how often they agree.

    Agreement is that of ordinary questions, before an attack that waits for its hour.
    """
    calibration = _observe(world, attack, calibration=True)
    ordinary = calibration
    if attack.kind == "leak":
        ordinary = _observe(world, attack, calibration=False)
    honest, hostile = (
        Curves(known.picks.curve(least), known.answers.curve(least), seen.agreement.curve(least))
        for known, seen, least in zip(calibration, ordinary, (_LEAST, 0.0), strict=True)
    )
    return honest, hostile


class _Observed:
    """Successes by skill."""

    def __init__(self) -> None:
        self._skill: list[Floats] = []
        self._value: list[Floats] = []

    def add(self, skill: Floats, value: Flags | Floats) -> None:
        self._skill.append(skill)
        self._value.append(value.astype(np.float64))

    def curve(self, least: float) -> Curve:
        """The least-squares quadratic."""
        skill = np.clip(np.concatenate(self._skill), *_SKILLS)
        value = np.concatenate(self._value)
        if not len(skill):
            return Curve((least,), least)
        if np.ptp(skill) == 0.0:  # disguised alike
            return Curve((float(value.mean()),), least)
        return Curve(tuple(np.polyfit(skill, value, 2).tolist()), least)


class _Observations(NamedTuple):
    picks: _Observed
    answers: _Observed
    agreement: _Observed


def _observe(
    world: World, attack: Attack, *, calibration: bool
) -> tuple[_Observations, _Observations]:
    rng = np.random.default_rng(_MEASURE_SEED)
    count = attack.hostile(_MEASURE_PEERS)
    bad = _last(_MEASURE_PEERS, max(1, count) if attack.fraction else 0)
    found = tuple(
        _Observations(_Observed(), _Observed(), _Observed()) for _ in ("honest", "hostile")
    )
    for _ in range(_MEASURE_ROUNDS):
        peers = attack.disguised(draw_peers(rng, _MEASURE_PEERS, world), bad)
        scene = _round(
            rng, world, peers, _MEASURE_PAIRS, attack, bad, calibration=calibration, late=False
        )
        agreed, pairs = _agreed(scene)
        for group, mine in zip(found, (~bad, bad), strict=True):
            told = scene.informative & mine[scene.pairs.judge]
            group.picks.add(peers.skill[scene.pairs.judge][told], scene.picked_rightly[told])
            group.answers.add(peers.skill[mine], scene.label[mine] == RIGHT)
            asked = mine & (pairs > 0)
            group.agreement.add(peers.skill[asked], agreed[asked] / pairs[asked])
    return found[0], found[1]


def _agreed(scene: Scene) -> tuple[Floats, Floats]:
    """Each judge's agreement with the uniform Bradley–Terry consensus over the answers."""
    count = len(scene.label)
    bouts = scene.bouts
    winner = int(plain_strengths(range(count), bouts, np.ones(len(bouts))).argmax())
    winners = np.flatnonzero(scene.label == scene.label[winner])
    return agreements(bouts, frozenset(winners.tolist()), count)


def _round(
    rng: Generator,
    world: World,
    peers: Peers,
    each: int,
    attack: Attack,
    bad: Flags,
    *,
    calibration: bool,
    late: bool,
) -> Scene:
    question, answers = pose(rng, world, peers)
    strikes = bool(bad.any()) and attack.strikes(rng, calibration=calibration, late=late)
    return settle(rng, world, peers, question, answers, each, attack, bad & strikes)


def _rate(peers: Peers, bad: Flags, honest: Curve, hostile: Curve) -> Floats:
    return np.where(bad, hostile.at(peers.skill), honest.at(peers.skill))


def _last(count: int, hostile: int) -> Flags:
    """Which of ``count`` peers are hostile: peers are alike, so the last ones."""
    return np.arange(count) >= count - hostile
