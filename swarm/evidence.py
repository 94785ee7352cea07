"""What a node knows of its swarm: a fold of the trials that it has graded itself.

Nothing here is replicated, and no agreement with a consensus enters. The same trials in the same
order give the same book.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from types import MappingProxyType
from typing import Final

import msgspec

from protocol import limits
from protocol.ids import PeerId
from protocol.messages import MICRO
from protocol.receipt import Rule, Standing
from swarm.confidence import LATEST, Example, refit
from swarm.consensus import DEFAULT_WEIGHTED, EQUAL, Case, Features, features, has_quorum
from swarm.likeness import Likeness
from swarm.record import FADING, Duels, Record, Told
from swarm.reputation import answer_bound, is_proven, unknown, weigh
from swarm.trial import Judged, Kind, Trial, Truth, marks

TOPIC_ROUNDS: Final = 3.0
"""Trials of a topic, faded, before its counts decide the weights."""
SOLO_FEWEST: Final = 20.0
SOLO_Z: Final = 2.5
"""Standard errors by which one peer must beat the swarm; high, for it is the best of several."""


@dataclass(frozen=True, slots=True)
class Solo:
    """The evidence says that the swarm does not reach its best member on a topic.

    Attributes:
        duels: faded counts of both.
    """

    peer: PeerId
    topic: str
    duels: Duels


class Book:
    """The fold. Feed it trials in the order in which they were graded.

    Args:
        trials: what is known already.
        told: what trusted verifiers say of a peer and a model (any, where it is empty) now.
    """

    def __init__(
        self,
        trials: Iterable[Trial] = (),
        told: Callable[[PeerId, str], Told | None] = lambda peer, model: None,
    ) -> None:
        self._told = told
        self.trials = 0
        self._records: dict[PeerId, Record] = {}
        self._likeness = Likeness()
        self._rounds: dict[str, float] = {}
        self._weighted: deque[Example] = deque(maxlen=LATEST)
        self._equal: deque[Example] = deque(maxlen=LATEST)
        self._rules: dict[str, Rule] = {}
        for one in trials:
            self.add(one)

    @property
    def records(self) -> Mapping[PeerId, Record]:
        """Of every peer that has been tried."""
        return MappingProxyType(self._records)

    @property
    def topics(self) -> Mapping[str, float]:
        """Trials of each topic, faded; the empty name holds those of unknown topic."""
        return MappingProxyType(self._rounds)

    @property
    def learnt(self) -> int:
        """Examples behind the confidence of the weighted rule."""
        return len(self._weighted)

    def add(self, trial: Trial) -> None:
        """One more trial."""
        self.trials += 1
        self._rounds[trial.topic] = self._rounds.get(trial.topic, 0.0) * FADING + 1.0
        for mark in trial.marks:
            record = self._records.get(mark.peer)
            if record is None or record.model != mark.model:
                record = self._records[mark.peer] = Record.succeeding(record, mark.model)
            record.add(trial, mark)
        self._likeness.add(trial.marks)
        # Where the topic is known its counts decide: the equal rule is learnt where it is used.
        if trial.topic:
            self._weighted.extend(_example(trial, trial.weighted))
        else:
            self._equal.extend(_example(trial, trial.equal))
        self._rules.clear()
        self._bound()

    def examine(
        self,
        round_: Judged,
        right: Truth,
        topic: str,
        kind: Kind,
        at: int,
        task: str = "",
    ) -> Trial:
        """The trial that a graded round is, as seen with the evidence so far. Adds nothing.

        Args:
            topic: of the question, empty where unknown.
            at: Unix time in seconds.
            task: what was drawn, empty for a real question.
        """
        weighted, equal = self.views(round_.case, round_.opened.peers, topic)
        if None in right and (kind == "graded" or True not in right):
            # Of a wrong answer it is open which was right. To learn from the grades "right" alone
            # would be to learn that the swarm is always right.
            weighted = equal = ()
        # Of several right classes the one that won: the confidence is that the winner is right.
        chosen = None if round_.chosen is None else right[round_.chosen]
        first = right.index(True) if True in right else None
        return Trial(
            round=round_.core.round,
            at=at,
            topic=topic,
            task=task,
            kind=kind,
            chosen=chosen,
            right=round_.chosen if chosen else first,
            answerers=sum(len(members) for members in round_.case.classes),
            weighted=_packed(weighted),
            equal=_packed(equal),
            marks=marks(round_, right),
        )

    def views(
        self, case: Case, peers: Sequence[PeerId], topic: str
    ) -> tuple[tuple[Features, ...], tuple[Features, ...]]:
        """Features of a round under the weighted and the equal rule; empty without evidence.

        Args:
            peers: of each seat.
        """
        by_topic = self.standings(peers, topic)
        pooled = self.standings(peers, "")
        proven = has_quorum(by_topic) and any(map(is_proven, by_topic))
        weighted = _seen(DEFAULT_WEIGHTED, case, by_topic) if proven else ()
        equal = _seen(EQUAL, case, pooled) if has_quorum(pooled) else ()
        return weighted, equal

    def standings(self, peers: Sequence[PeerId], topic: str) -> tuple[Standing, ...]:
        """The evidence on these peers for a question of ``topic``, empty where unknown.

        The admitted share weight with the admitted that are like them, and with nobody else: or
        strangers with the model of a proven peer would weigh against it.
        """
        alone = [self._alone(peer, topic) for peer in peers]
        admitted = [one.peer for one in alone if one.admitted]
        found = []
        for one in alone:
            shared = self._likeness.divisor(one.peer, admitted if one.admitted else peers)
            divisor = min(1000 * MICRO, round(one.divisor * shared))
            found.append(msgspec.structs.replace(one, divisor=divisor))
        return tuple(found)

    def _alone(self, peer: PeerId, topic: str) -> Standing:
        """The evidence on a peer, whoever else takes part."""
        record = self._records.get(peer)
        told = self._told(peer, record.model if record else "")
        if record is None and told is None:
            return unknown(peer)
        return (record or Record("")).standing(peer, topic, told)

    def rule(self, topic: str, peers: Sequence[PeerId]) -> tuple[Rule, tuple[Standing, ...]]:
        """How to decide a question of ``topic`` among these peers, and the evidence for it.

        What is planned; :func:`swarm.consensus.rule_in_force` says what it comes to.
        """
        if topic and self._rounds.get(topic, 0.0) >= TOPIC_ROUNDS:
            seats = self.standings(peers, topic)
            if any(map(is_proven, seats)):
                return self._fitted(DEFAULT_WEIGHTED, self._weighted), seats
        # A confidence learnt elsewhere would be a guess on a topic that has been tried before.
        rule = EQUAL if topic else self._fitted(EQUAL, self._equal)
        return rule, self.standings(peers, "")

    def _fitted(self, base: Rule, examples: deque[Example]) -> Rule:
        found = self._rules.get(base.name)
        if found is None:
            found = self._rules[base.name] = refit(examples, base)
        return found

    def solo(self, topic: str, peers: Iterable[PeerId]) -> Solo | None:
        """The admitted peer that beats the swarm on this topic beyond doubt, if there is one."""
        found = []
        for peer in peers:
            record = self._records.get(peer)
            duels = record.duels.get(topic) if record and record.admitted and topic else None
            if duels is None or duels.rounds < SOLO_FEWEST:
                continue
            if duels.ahead - duels.behind > SOLO_Z * sqrt(duels.ahead + duels.behind):
                found.append(Solo(peer, topic, duels))
        return max(
            found, key=lambda one: (one.duels.ahead - one.duels.behind, one.peer), default=None
        )

    def skill(self, peer: PeerId, topic: str) -> tuple[float, float]:
        """Lower bound of the share of right answers on a topic, and its standard error."""
        answer = self._alone(peer, topic).answer
        right, total = answer.right / MICRO, answer.total / MICRO
        mean = (right + 3.0) / (total + 7.0)
        return answer_bound(right, total), sqrt(mean * (1.0 - mean) / (total + 8.0))

    def admitted(self, peer: PeerId) -> bool:
        """Whether it has passed the admission test here, or where it is believed."""
        return self._alone(peer, "").admitted

    def kind(self, peer: PeerId) -> tuple[tuple[PeerId, ...], float]:
        """The peers whose errors coincide with its own, itself included, and how much."""
        return self._likeness.kind(peer)

    def _bound(self) -> None:
        """Of too many peers forget the newcomers that were tried longest ago, then the others."""
        extra = len(self._records) - limits.PEERS_TRIED
        if extra <= 0:
            return
        order = sorted(
            self._records,
            key=lambda peer: (self._records[peer].admitted, self._records[peer].last_at, peer),
        )
        for peer in order[:extra]:
            del self._records[peer]
        self._likeness.forget(order[:extra])


def _seen(base: Rule, case: Case, seats: Sequence[Standing]) -> tuple[Features, ...]:
    weights = weigh(base.name, seats)
    return features(Case(base, case.classes, weights, case.votes, case.both_orders))


def _example(trial: Trial, packed: Sequence[tuple[int, int, int]]) -> list[Example]:
    """The round as an example for the fit, if it was seen under that rule at all."""
    found = tuple(Features(*(one / MICRO for one in row)) for row in packed)
    return [Example(found, trial.right, trial.answerers)] if found else []


def _packed(found: Sequence[Features]) -> tuple[tuple[int, int, int], ...]:
    return tuple(
        (round(one.votes * MICRO), round(one.strength * MICRO), round(one.evidence * MICRO))
        for one in found
    )
