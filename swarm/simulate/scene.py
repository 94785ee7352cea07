"""One simulated round, from the question to the case that the consensus decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator

from protocol.ids import PeerId
from protocol.messages import MICRO, Row
from protocol.receipt import Rule, Weight
from swarm.consensus import Case, Vote
from swarm.rules import Bouts
from swarm.simulate.attacks import Attack, with_ring
from swarm.simulate.world import (
    RIGHT,
    Answers,
    Flags,
    Ints,
    Pairs,
    Peers,
    Question,
    World,
    draw_answers,
    draw_class_pairs,
    draw_pairs,
    draw_question,
    draw_verdicts,
)

_LOTS: Final = 64


@dataclass(frozen=True, slots=True)
class Scene:
    """What the peers of one round answered and picked.

    Attributes:
        label: of each peer's answer, shape (N,).
        pairs: who compared whose answers.
        picked_first: whether the judge picked the answer shown first, shape (M,).
    """

    label: Ints
    pairs: Pairs
    picked_first: Flags

    @property
    def informative(self) -> Flags:
        """Pairs with exactly one right answer, shape (M,)."""
        right = self.label == RIGHT
        told: Flags = right[self.pairs.first] != right[self.pairs.second]
        return told

    @property
    def picked_rightly(self) -> Flags:
        """On informative pairs: whether the right answer was picked, shape (M,)."""
        agreed: Flags = self.picked_first == (self.label[self.pairs.first] == RIGHT)
        return agreed

    @property
    def classes(self) -> tuple[tuple[int, ...], ...]:
        """Seats by label, in the order of their first members."""
        found: dict[int, list[int]] = {}
        for seat, label in enumerate(self.label.tolist()):
            found.setdefault(label, []).append(seat)
        return tuple(tuple(members) for members in found.values())

    @property
    def right(self) -> tuple[bool, ...]:
        """Of each class."""
        return tuple(bool(self.label[members[0]] == RIGHT) for members in self.classes)

    @property
    def worth(self) -> tuple[float, ...]:
        """Of each class: 1 where it is right, else 0."""
        return tuple(float(one) for one in self.right)

    @property
    def answers(self) -> dict[int, float]:
        """Worth of each peer's answer."""
        return {seat: float(label == RIGHT) for seat, label in enumerate(self.label.tolist())}

    @property
    def bouts(self) -> Bouts:
        """The verdicts between answers."""
        pairs = self.pairs
        return Bouts(pairs.first, pairs.second, pairs.judge, self.picked_first.astype(np.float64))

    def case(self, rule: Rule, weights: tuple[Weight, ...]) -> Case:
        """What a live round would hand to the consensus.

        Verdicts between two answers that say the same are none between classes.

        Args:
            weights: those that ``rule`` has for the seats.
        """
        classes = self.classes
        of = {seat: index for index, members in enumerate(classes) for seat in members}
        rows = zip(
            self.pairs.judge.tolist(),
            self.pairs.first.tolist(),
            self.pairs.second.tolist(),
            self.picked_first.tolist(),
            strict=True,
        )
        votes = tuple(
            Vote(judge, Row(of[first], of[second], MICRO if picked else 0))
            for judge, first, second, picked in rows
            if of[first] != of[second]
        )
        return Case(rule, classes, weights, votes, both_orders=False)


def pose(rng: Generator, world: World, peers: Peers) -> tuple[Question, Answers]:
    """A question, and what honest peers answer."""
    question = draw_question(rng, world)
    return with_ring(question), draw_answers(rng, question, peers, world)


def settle(
    rng: Generator,
    world: World,
    peers: Peers,
    question: Question,
    answers: Answers,
    each: int,
    attack: Attack,
    hostile: Flags,
) -> Scene:
    """The rest of the round.

    Args:
        each: pairs for each judge.
        hostile: who strikes in this round, shape (N,).
    """
    struck = bool(hostile.any())
    if struck:
        answers = attack.answers(rng, question, answers, hostile)
    if attack.newcomers and struck:
        # Among the answers of so many most pairs would be equal, and no live round judges those.
        pairs = draw_class_pairs(rng, answers.label, each)
    else:
        pairs = draw_pairs(rng, len(peers), each)
    logit = draw_verdicts(rng, question, peers, answers, pairs, world)
    if struck:
        logit = attack.verdicts(rng, logit, answers, pairs, hostile)
    return Scene(answers.label, pairs, logit > 0)


def draw_lots(rng: Generator, peers: int) -> None:
    """Pass over the lots that decide ties: here a tie counts as its expected value."""
    rng.random(max(peers, _LOTS))


def peer_id(seat: int) -> PeerId:
    """The name of a simulated peer."""
    return PeerId(seat.to_bytes(32, "big"))
