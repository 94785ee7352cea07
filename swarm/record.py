"""What a node knows of one peer: counts by topic that fade, and two sequential tests.

A topic's counts borrow from the peer's others: up to ``BORROWED`` pairs from other sureness on
the same topic, and as many from the same sureness on other topics. So a new topic begins with
what the peer is worth elsewhere, and a specialist is soon known by topic; global weights are the
worst choice for specialists (measured: 50 against 87 %).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from protocol.ids import PeerId, peer_text
from protocol.ledger import Sum
from protocol.messages import MICRO
from protocol.receipt import Standing, Tally
from swarm.sequential import Cusum, Sprt
from swarm.trial import FiveTallies, Mark, Trial, five

FADING: Final = 0.97
"""What is left of a topic's counts after another trial of it in which the peer took part."""
BORROWED: Final = 10.0
DECIDED_BIN: Final = 2
"""Verdicts from this bin of sureness on (0.75) are tested: "cannot tell" is no claim."""
HIDDEN_PAIRS: Final = 30.0
"""Informative pairs outside the admission burst that bring a peer to its full weight."""
RECOGNISABLE: Final = 2.0
"""The weight of what a peer did only in a burst, which it may have recognised, is divided by."""
RETRY_S: Final = 7 * 24 * 3600
"""After so long a peer that was turned away is tested anew."""
OWN: Final = "asker"
"""The source of evidence that is this node's own."""
NAMED: Final = 4
"""Verifiers that a source names; the text of a receipt holds no more."""
_MOST: Final = 1e8
"""Pairs in a tally. Verifiers could claim more than a receipt can hold."""
_BLEND: Final = 0.1
_EXPECTING: Final = 5.0


class Counts:
    """Right and total, of verdicts by bin of sureness and of answers; they fade.

    Attributes:
        rounds: trials behind them, faded alike.
        decided: of the verdicts that claim to know, never faded: what a fall is measured from.
            A mean that forgets follows the fall and hides it.
    """

    __slots__ = ("answer", "decided", "judge", "rounds")

    def __init__(self) -> None:
        self.judge = [[0.0, 0.0] for _ in range(5)]
        self.answer = [0.0, 0.0]
        self.decided = [0.0, 0.0]
        self.rounds = 0.0

    def add(self, mark: Mark) -> None:
        """One more trial."""
        for pair in (*self.judge, self.answer):
            pair[0] *= FADING
            pair[1] *= FADING
        for pair, tally in zip(self.judge, mark.judge, strict=True):
            pair[0] += tally.right / MICRO
            pair[1] += tally.total / MICRO
        self.answer[0] += mark.right
        self.answer[1] += 1.0
        self.decided = _sum((self.decided, _decided(mark.judge)))
        self.rounds = self.rounds * FADING + 1.0

    def join(self, one: Sum) -> None:
        """What a verifier saw in one day."""
        for pair, right, total in zip(self.judge, one.judge_right, one.judge_total, strict=True):
            pair[0] += right / MICRO
            pair[1] += total / MICRO
        self.answer[0] += one.answer_right / MICRO
        self.answer[1] += one.answer_total / MICRO
        self.decided[0] += sum(one.judge_right[DECIDED_BIN:]) / MICRO
        self.decided[1] += sum(one.judge_total[DECIDED_BIN:]) / MICRO
        self.rounds += one.rounds

    @staticmethod
    def summed(*parts: Counts | None) -> Counts:
        """All of them together."""
        whole = Counts()
        for part in parts:
            if part is None:
                continue
            for pair, more in zip(
                (*whole.judge, whole.answer, whole.decided),
                (*part.judge, part.answer, part.decided),
                strict=True,
            ):
                pair[0] += more[0]
                pair[1] += more[1]
            whole.rounds += part.rounds
        return whole


@dataclass(frozen=True, slots=True)
class Duels:
    """How a peer's answers compare with the swarm's, in faded trials.

    Attributes:
        ahead: the peer was right and the swarm was not.
        behind: the reverse.
        rounds: all.
    """

    ahead: float = 0.0
    behind: float = 0.0
    rounds: float = 0.0

    def alone(self, right: bool) -> Duels:
        """Asked alone: a wrong answer counts half, for the swarm might have been wrong, too."""
        return self if right else Duels(self.ahead, self.behind + 0.5, self.rounds)

    def after(self, right: bool, chosen: bool) -> Duels:
        """One more: was the peer's answer right, and the swarm's."""
        return Duels(
            self.ahead * FADING + (right and not chosen),
            self.behind * FADING + (chosen and not right),
            self.rounds * FADING + 1.0,
        )


@dataclass(slots=True)
class Record:
    """What is known of one peer.

    Attributes:
        model: content id that it claims; a record is of one model.
        test: of admission.
        drift: watches for a fall after admission.
        hidden: informative pairs that it decided when it could not have recognised a test.
        trials: since the record began.
        last_at: Unix time of the latest.
        refused_at: when ``test`` turned it away, None where it did not.
        fell_at: when ``drift`` last alarmed, None where it did not.
        latency_ms, answer_bytes: blended means of commits and answers.
    """

    model: str
    test: Sprt = field(default_factory=Sprt)
    drift: Cusum = field(default_factory=Cusum)
    hidden: float = 0.0
    trials: int = 0
    last_at: int = 0
    refused_at: int | None = None
    fell_at: int | None = None
    latency_ms: float = 0.0
    answer_bytes: float = 0.0
    topics: dict[str, Counts] = field(default_factory=dict)
    duels: dict[str, Duels] = field(default_factory=dict)

    @property
    def admitted(self) -> bool:
        """It has passed the admission test."""
        return self.test.decision == "admitted"

    @property
    def recognisable(self) -> float:
        """What its weight is divided by, for evidence that may have been recognised."""
        return RECOGNISABLE - (RECOGNISABLE - 1.0) * min(1.0, self.hidden / HIDDEN_PAIRS)

    def add(self, trial: Trial, mark: Mark) -> None:
        """One more trial of this peer. A fall begins the record anew, its model kept."""
        counts = self.topics.setdefault(trial.topic, Counts())
        decided = _decided(mark.judge)
        if self.admitted:
            self.drift = self.drift.after(*decided, _expected(counts))
            if self.drift.alarmed:
                self._begin_anew(trial.at)
                counts = self.topics.setdefault(trial.topic, Counts())
        if self.refused_at is not None and trial.at - self.refused_at > RETRY_S:
            self.test, self.refused_at = Sprt(), None
        self.test = self.test.after(*decided)
        if self.test.decision == "refused" and self.refused_at is None:
            self.refused_at = trial.at
        counts.add(mark)
        duels = self.duels.get(trial.topic, Duels())
        if trial.answerers == 1:
            # Asked alone it is compared with nothing, but what it gets wrong tells against it.
            self.duels[trial.topic] = duels.alone(mark.right)
        else:
            self.duels[trial.topic] = duels.after(mark.right, trial.chosen is True)
        if trial.kind != "admission":
            self.hidden += decided[1]
        blend = _BLEND if self.trials else 1.0
        self.latency_ms += blend * (mark.latency_ms - self.latency_ms)
        self.answer_bytes += blend * (mark.answer_bytes - self.answer_bytes)
        self.trials += 1
        self.last_at = trial.at

    @classmethod
    def succeeding(cls, before: Record | None, model: str) -> Record:
        """Of a peer that now claims ``model``. A refusal stays: names are cheap."""
        found = cls(model)
        if before is not None and before.refused_at is not None:
            found.test, found.refused_at = before.test, before.refused_at
        return found

    def _begin_anew(self, at: int) -> None:
        """Whatever it was, it is that no more: what it was worth says nothing now."""
        self.test, self.drift, self.fell_at = Sprt(), Cusum(), at
        self.hidden = 0.0
        self.topics, self.duels = {}, {}

    def standing(self, peer: PeerId, topic: str, told: Told | None = None) -> Standing:
        """The evidence for a question of ``topic``; all topics together where it is empty.

        Args:
            told: what trusted verifiers say of it.
        """
        topics = self.topics if told is None else told.joined(self.topics)
        judge, answer = _on(topics, topic) if topic else _pooled(topics)
        recognisable = self.recognisable if told is None else 1.0
        return Standing(
            peer,
            five([_tally(*pair) for pair in judge]),
            _tally(*answer),
            self.admitted or (told is not None and told.admitted),
            round(MICRO * recognisable),
            told.source if told is not None else OWN,
        )


@dataclass(frozen=True, slots=True)
class Told:
    """What verifiers that the operator trusts say of one peer.

    Attributes:
        topics: their counts, summed.
        verifiers: who they are.
    """

    topics: Mapping[str, Counts]
    verifiers: tuple[PeerId, ...]

    @property
    def admitted(self) -> bool:
        """The counts pass the admission test, the pairs taken as spread over the questions."""
        right, total, rounds = 0.0, 0.0, 0.0
        for counts in self.topics.values():
            right, total = right + counts.decided[0], total + counts.decided[1]
            rounds += counts.rounds
        return Sprt.of(right, total, rounds).decision == "admitted"

    @property
    def source(self) -> str:
        """Who attests, as a receipt says it."""
        named = [peer_text(one) for one in self.verifiers[:NAMED]]
        rest = len(self.verifiers) - NAMED
        return ", ".join((OWN, *named, *([f"{rest} more"] if rest > 0 else [])))

    def joined(self, own: Mapping[str, Counts]) -> dict[str, Counts]:
        """Together with one's own counts."""
        return {
            topic: Counts.summed(own.get(topic), self.topics.get(topic))
            for topic in sorted(own.keys() | self.topics.keys())
        }


def _pooled(topics: Mapping[str, Counts]) -> tuple[list[list[float]], list[float]]:
    judge = [_sum(counts.judge[place] for counts in topics.values()) for place in range(5)]
    return judge, _sum(counts.answer for counts in topics.values())


def _on(topics: Mapping[str, Counts], topic: str) -> tuple[list[list[float]], list[float]]:
    pooled, answers = _pooled(topics)
    here = topics.get(topic, Counts())
    on_topic = _sum(here.judge)
    judge = [
        _sum((cell, _borrowed(on_topic, cell), _borrowed(everywhere, cell)))
        for cell, everywhere in zip(here.judge, pooled, strict=True)
    ]
    return judge, _sum((here.answer, _borrowed(answers, here.answer)))


def _decided(judge: FiveTallies) -> tuple[float, float]:
    """Right and total of the verdicts that claim to know."""
    sure = judge[DECIDED_BIN:]
    return (sum(one.right for one in sure) / MICRO, sum(one.total for one in sure) / MICRO)


def _expected(counts: Counts) -> float:
    """Accuracy of its decided verdicts on this topic so far; mild where little is known."""
    right, total = counts.decided
    return (right + _EXPECTING * 0.7) / (total + _EXPECTING)


def _sum(pairs: Iterable[Sequence[float]]) -> list[float]:
    total = [0.0, 0.0]
    for right, count in pairs:
        total[0] += right
        total[1] += count
    return total


def _borrowed(pair: list[float], part: list[float]) -> list[float]:
    """``pair`` less ``part``, cut to at most ``BORROWED`` observations with that share right."""
    right, total = max(0.0, pair[0] - part[0]), max(0.0, pair[1] - part[1])
    share = min(1.0, BORROWED / total) if total > 0.0 else 0.0
    return [right * share, total * share]


def _tally(right: float, total: float) -> Tally:
    cut = min(1.0, _MOST / total) if total else 1.0
    whole = round(total * cut * MICRO)
    return Tally(min(whole, round(right * cut * MICRO)), whole)
