"""Online mode: one swarm over many rounds, with hidden calibration among them.

The asker keeps a :class:`swarm.evidence.Book`, as a node does: calibration rounds are graded into
it, and it gives the standings, the rule and the confidence of the next round. Only the peers and
their messages are simulated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator

from protocol.ids import PeerId, RoundId
from protocol.messages import MICRO
from swarm.agreement import FADING, agreement_weights, agreements
from swarm.confidence import LATEST, Example, refit
from swarm.consensus import Case, Features, decide, rule_in_force
from swarm.evidence import Book
from swarm.reputation import weigh
from swarm.rules import WARY, Contest, plain_strengths
from swarm.simulate.attacks import NOBODY, Attack
from swarm.simulate.fresh import example
from swarm.simulate.scene import Scene, draw_lots, peer_id, pose, settle
from swarm.simulate.world import RIGHT, Flags, Floats, Peers, World, draw_peers
from swarm.trial import NO_TALLIES, FiveTallies, Mark, Trial, name_of, tallies

CALIBRATION_RATE: Final = 0.1
ROUND_S: Final = 60
"""Seconds from one round to the next."""
_TOPIC: Final = "world"
_MODEL: Final = "simulated"


@dataclass(frozen=True, slots=True)
class Online:
    """One swarm.

    Attributes:
        world: where.
        peers: how many, newcomers of a sybil attack on top.
        each: pairs for each judge.
        rounds: in all; the second half is reported.
        seed: of everything.
        attack: by whom, if anyone.
        rate: share of the rounds that are hidden calibration.
    """

    world: World
    peers: int
    each: int
    rounds: int
    seed: int
    attack: Attack = NOBODY
    rate: float = CALIBRATION_RATE

    def contests(self) -> Iterator[Contest]:
        """The contests of the second half, one by one."""
        rng = np.random.default_rng(self.seed)
        peers = draw_peers(rng, self.peers, self.world)
        bad = np.zeros(self.peers, dtype=np.bool_)
        bad[rng.permutation(self.peers)[: self.attack.hostile(self.peers)]] = True
        peers = self.attack.disguised(peers, bad)
        asker = _Asker(self.peers)
        for index in range(self.rounds):
            late = 2 * index >= self.rounds
            if late and self.attack.newcomers and len(peers) == self.peers:
                peers, bad = self._joined(rng, peers)
            scene, calibration = self._round(rng, peers, bad, late)
            contest = asker.contest(scene)
            if late:
                yield contest
            if calibration:
                asker.grade(scene, contest.case, index * ROUND_S)
            asker.remember(contest)

    def _round(self, rng: Generator, peers: Peers, bad: Flags, late: bool) -> tuple[Scene, bool]:
        """A round, and whether it is calibration."""
        question, answers = pose(rng, self.world, peers)
        calibration = bool(rng.random() < self.rate)
        strikes = bool(bad.any()) and self.attack.strikes(rng, calibration=calibration, late=late)
        scene = settle(
            rng, self.world, peers, question, answers, self.each, self.attack, bad & strikes
        )
        draw_lots(rng, len(peers))
        return scene, calibration

    def _joined(self, rng: Generator, peers: Peers) -> tuple[Peers, Flags]:
        """The swarm with the newcomers."""
        new = draw_peers(rng, self.attack.newcomers, self.world)
        together = Peers(
            np.concatenate([peers.skill, new.skill]),
            np.concatenate([peers.family, new.family]),
            np.concatenate([peers.position, new.position]),
        )
        return together, np.arange(len(together)) >= self.peers


class _Asker:
    """What the asker knows: evidence, and for the baseline, who agreed with the consensus.

    Args:
        proven: peers that are not newcomers; they come first.
    """

    def __init__(self, proven: int) -> None:
        self._proven = proven
        self._book = Book()
        self._wary: deque[Example] = deque(maxlen=LATEST)
        self._agreed = np.zeros(0)
        self._pairs = np.zeros(0)
        self._graded = 0

    def contest(self, scene: Scene) -> Contest:
        """The round as all rules see it, with the evidence so far."""
        count = len(scene.label)
        self._agreed = _grown(self._agreed, count)
        self._pairs = _grown(self._pairs, count)
        ids = [peer_id(seat) for seat in range(count)]
        planned, standings = self._book.rule(_TOPIC, ids)
        rule = rule_in_force(planned, standings)
        wary_rule = refit(self._wary, WARY) if rule.name == "weighted" else rule
        weights = weigh(rule.name, standings)
        return Contest(
            scene.case(rule, weights),
            scene.case(wary_rule, weights),
            agreement_weights(self._agreed, self._pairs),
            scene.bouts,
            scene.worth,
            scene.answers,
            tuple(range(self._proven)),
        )

    def grade(self, scene: Scene, case: Case, at: int) -> None:
        """Take the round as evidence."""
        ids = [peer_id(seat) for seat in range(len(scene.label))]
        right = scene.right
        winner = decide(case).winner
        weighted, equal = self._book.views(case, ids, _TOPIC)
        judged = tallies(case, right)
        trial = Trial(
            round=RoundId(self._graded.to_bytes(32, "big")),
            at=at,
            topic=_TOPIC,
            task="",
            kind="hidden",
            chosen=None if winner is None else right[winner],
            right=right.index(True) if any(right) else None,
            answerers=len(ids),
            weighted=_packed(weighted),
            equal=_packed(equal),
            marks=tuple(
                _mark(peer, label, judged.get(seat, NO_TALLIES))
                for seat, (peer, label) in enumerate(zip(ids, scene.label.tolist(), strict=True))
            ),
        )
        if trial.weighted:
            weights = weigh("weighted", self._book.standings(ids, _TOPIC))
            self._wary.append(example(scene.case(WARY, weights), scene.right))
        self._book.add(trial)
        self._graded += 1

    def remember(self, contest: Contest) -> None:
        """Who agreed with the consensus that these very weights make."""
        bouts, count = contest.bouts, len(contest.agreement)
        scores = plain_strengths(range(count), bouts, contest.agreement[bouts.judge])
        winner = int(scores.argmax())
        members = next(one for one in contest.case.classes if winner in one)
        agreed, pairs = agreements(bouts, frozenset(members), count)
        self._agreed = self._agreed * FADING + agreed
        self._pairs = self._pairs * FADING + pairs


def _grown(values: Floats, count: int) -> Floats:
    return np.concatenate([values, np.zeros(count - len(values))])


def _mark(peer: PeerId, label: int, judge: FiveTallies) -> Mark:
    """What a simulated peer did in a graded round."""
    good = label == RIGHT
    return Mark(
        peer=peer,
        model=_MODEL,
        judge=judge,
        right=good,
        wrong=b"" if good else name_of(f"wrong {label}"),
        latency_ms=0,
        answer_bytes=0,
    )


def _packed(seen: Sequence[Features]) -> tuple[tuple[int, int, int], ...]:
    return tuple(
        (round(one.votes * MICRO), round(one.strength * MICRO), round(one.evidence * MICRO))
        for one in seen
    )
