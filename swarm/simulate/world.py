"""A world with known truth: peers of unlike skill answer, and judge pairs of answers.

What matters for the rules is in it: the same wrong answer is popular (a *lure*), peers of one
family err together, a judge's eye for the truth grows with its skill and falls with difficulty,
judges favour what reads well, what is shown first, and what they answered themselves. So their
errors on one pair correlate, as those of real judges do; worlds with independent errors overstate
what a consensus gains. Skill and difficulty are as in item response theory
(Rasch 1960), verdicts are logistic as in Bradley & Terry 1952.

All randomness is drawn from the Generator given, in a fixed order, so a seed names a world.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

RIGHT: Final = 0
"""The label of the right answer; wrong ones are 1, 2, …"""
_NORMAL: Final = NormalDist()


@dataclass(frozen=True, slots=True)
class World:
    """The parameters of a world. Skills, difficulties and biases are in logits.

    Attributes:
        skill_mean, skill_sd: of the peers.
        difficulty_sd: of the questions, about 0.
        slope: how sharply skill less difficulty decides whether an answer is right.
        families: kinds of model; each peer is of one.
        family_correlation: of being right, within a family.
        wrong_answers: how many there are to a question.
        lure: concentration of their popularity (Dirichlet); the lower, the more they agree.
        family_share: how often a wrong peer gives its family's wrong answer.
        eye, eye_slope: a judge sees the truth by eye · exp(eye_slope · (skill − difficulty)).
        own_bias: towards answers equal to the judge's own.
        self_bias: towards the very answer that the judge wrote.
        appeal_sd, appeal_popular: how much better a wrong answer reads than the right one: spread,
            and what full popularity adds.
        position_mean, position_sd: the judges' leaning towards what is shown first.
        wording_sd, wording_skill: quality of an answer's wording: spread, and gain with skill.
    """

    skill_mean: float = 0.35
    skill_sd: float = 0.8
    difficulty_sd: float = 1.2
    slope: float = 1.3
    families: int = 6
    family_correlation: float = 0.3
    wrong_answers: int = 8
    lure: float = 0.15
    family_share: float = 0.25
    eye: float = 1.6
    eye_slope: float = 0.5
    own_bias: float = 1.0
    self_bias: float = 0.4
    appeal_sd: float = 0.5
    appeal_popular: float = 0.8
    position_mean: float = 0.3
    position_sd: float = 0.5
    wording_sd: float = 0.5
    wording_skill: float = 0.2


WORLDS: Final = {
    "A": World(),
    "B": World(
        skill_mean=-0.25, eye=2.2, own_bias=0.8, family_correlation=0.4, lure=0.3,
        wrong_answers=3, difficulty_sd=1.0,
    ),
    "C": World(
        eye=0.5, eye_slope=0.3, own_bias=1.5, self_bias=0.8, position_mean=0.6, position_sd=1.0
    ),
    "D": World(
        lure=0.05, appeal_popular=1.5, family_share=0.5, family_correlation=0.5, own_bias=1.3
    ),
    "E": World(skill_mean=-1.0, wrong_answers=30, lure=1.0, eye=2.2, own_bias=0.5),
}  # fmt: skip
ABOUT: Final = {
    "A": "models of 58 % on average",
    "B": "hard questions with few wrong answers",
    "C": "poor, biased judges",
    "D": "one lure that most wrong answers fall for",
    "E": "weak models that are wrong in many ways",
}


@dataclass(frozen=True, slots=True)
class Peers:
    """N peers: skill, family and leaning towards what is shown first, each of shape (N,)."""

    skill: Floats
    family: Ints
    position: Floats

    def __len__(self) -> int:
        return len(self.skill)


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        difficulty: in logits.
        popularity: of the wrong answers 1, 2, …, summing to 1.
        appeal: how well each label reads, the right one's first and 0.
    """

    difficulty: float
    popularity: Floats
    appeal: Floats


@dataclass(frozen=True, slots=True)
class Answers:
    """What N peers answered: labels, and the quality of the wording, each of shape (N,)."""

    label: Ints
    wording: Floats


@dataclass(frozen=True, slots=True)
class Pairs:
    """M comparisons of two peers' answers: who is shown first, second, and who judges."""

    first: Ints
    second: Ints
    judge: Ints

    def __len__(self) -> int:
        return len(self.judge)


def draw_peers(rng: Generator, count: int, world: World) -> Peers:
    """``count`` peers."""
    skill = rng.normal(world.skill_mean, world.skill_sd, count)
    family = rng.integers(0, world.families, count)
    position = rng.normal(world.position_mean, world.position_sd, count)
    # A trait that verdicts without a stated probability do not show: drawn, so that a seed names
    # the same questions with and without it.
    rng.normal(size=count)
    return Peers(skill, family, position)


def draw_question(rng: Generator, world: World) -> Question:
    """A question and its wrong answers."""
    difficulty = rng.normal(0, world.difficulty_sd)
    popularity = rng.dirichlet(np.full(world.wrong_answers, world.lure))
    reads = rng.normal(0, world.appeal_sd, world.wrong_answers) + world.appeal_popular * popularity
    return Question(float(difficulty), popularity, np.concatenate([[0.0], reads]))


def draw_answers(rng: Generator, question: Question, peers: Peers, world: World) -> Answers:
    """What the peers answer: right by skill and family, else one of the wrong answers."""
    count = len(peers)
    chance = 1.0 / (1.0 + np.exp(-world.slope * (peers.skill - question.difficulty)))
    shared = rng.normal(size=world.families)[peers.family]
    rho = world.family_correlation
    luck = np.sqrt(rho) * shared + np.sqrt(1.0 - rho) * rng.normal(size=count)
    right = luck < normal_quantile(np.clip(chance, 1e-6, 1.0 - 1e-6))
    popularity = question.popularity
    of_family = rng.choice(world.wrong_answers, world.families, p=popularity)[peers.family]
    of_its_own = rng.choice(world.wrong_answers, count, p=popularity)
    wrong = np.where(rng.random(count) < world.family_share, of_family, of_its_own) + 1
    wording = rng.normal(0, world.wording_sd, count) + world.wording_skill * peers.skill
    return Answers(np.where(right, RIGHT, wrong), wording)


def draw_pairs(rng: Generator, count: int, each: int) -> Pairs:
    """Each of ``count`` judges gets ``each`` distinct random pairs (or all), in random order."""
    low, high = _all_pairs(count)
    every = len(low)
    lots = rng.random((count, every))
    each = min(each, every)
    if each < every:
        chosen = np.argpartition(lots, each - 1, axis=1)[:, :each]
    else:
        chosen = np.tile(np.arange(every), (count, 1))
    flat = chosen.ravel()
    turned = rng.random(len(flat)) < 0.5
    first = np.where(turned, high[flat], low[flat])
    second = np.where(turned, low[flat], high[flat])
    return Pairs(first, second, np.repeat(np.arange(count), each))


def draw_class_pairs(rng: Generator, label: Ints, each: int) -> Pairs:
    """Each judge gets ``each`` distinct random pairs of unlike answers (or all), in random order.

    An answer is shown as some peer that gave it wrote it.
    """
    count = len(label)
    found = np.unique(label)
    low, high = _all_pairs(len(found))
    each = min(each, len(low))
    if each == 0:
        return Pairs(*(np.zeros(0, dtype=np.int64) for _ in range(3)))
    chosen = np.argsort(rng.random((count, len(low))), axis=1)[:, :each].ravel()
    turned = rng.random(len(chosen)) < 0.5
    shown = [_some_member(rng, label, found[side[chosen]]) for side in (low, high)]
    first = np.where(turned, shown[1], shown[0])
    second = np.where(turned, shown[0], shown[1])
    return Pairs(first, second, np.repeat(np.arange(count), each))


def draw_verdicts(
    rng: Generator, question: Question, peers: Peers, answers: Answers, pairs: Pairs, world: World
) -> Floats:
    """One logit for each pair, noise included: above 0 the judge picks the answer shown first."""
    label, judge = answers.label, pairs.judge
    first, second = label[pairs.first], label[pairs.second]
    own = label[judge]
    sees = world.eye * np.exp(world.eye_slope * (peers.skill[judge] - question.difficulty))
    logit = (
        sees * ((first == RIGHT) * 1.0 - (second == RIGHT) * 1.0)
        + question.appeal[first]
        - question.appeal[second]
        + answers.wording[pairs.first]
        - answers.wording[pairs.second]
        + peers.position[judge]
    )
    logit += world.own_bias * ((first == own) * 1.0 - (second == own) * 1.0) + world.self_bias * (
        (pairs.first == judge) * 1.0 - (pairs.second == judge) * 1.0
    )
    noisy: Floats = logit + rng.logistic(size=len(pairs))
    return noisy


def normal_quantile(chance: Floats) -> Floats:
    """The inverse of the normal distribution function (Wichura 1988), elementwise."""
    return np.array([_NORMAL.inv_cdf(one) for one in chance.tolist()])


def _some_member(rng: Generator, label: Ints, wanted: Ints) -> Ints:
    """For each wanted label a random peer that gave it."""
    order = np.argsort(label, kind="stable")
    start = np.searchsorted(label[order], wanted, side="left")
    stop = np.searchsorted(label[order], wanted, side="right")
    return order[start + (rng.random(len(wanted)) * (stop - start)).astype(np.int64)]


@cache
def _all_pairs(count: int) -> tuple[Ints, Ints]:
    return np.triu_indices(count, 1)
