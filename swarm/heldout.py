"""Recorded data to contests: what each rule makes of a question with weights from the others.

The evidence on a peer is what it did on all other questions, each counting alike: recorded
models do not change. Admission is the sequential test over those. The confidence is fitted to
the questions of the other folds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protocol.messages import MICRO, Row
from protocol.receipt import Rule, Standing, Tally, Weight
from swarm.agreement import agreement_weights, agreements
from swarm.answers import classes, representative
from swarm.confidence import Example, refit
from swarm.consensus import DEFAULT_WEIGHTED, UNCALIBRATED, Case, Vote, features, rule_in_force
from swarm.record import DECIDED_BIN
from swarm.recorded import Bout, Question, Recorded
from swarm.reputation import NEUTRAL, weigh
from swarm.rules import WARY, Bouts, Contest, Floats, plain_strengths
from swarm.sequential import Sprt
from swarm.simulate.scene import peer_id
from swarm.trial import five, tallies

FOLDS: Final = 10

_Counts = NDArray[np.int64]
"""(seats, 6, 2): right and total in 1e-6, of verdicts by bin of sureness, and of answers."""
_ANSWER: Final = 5


@dataclass(frozen=True, slots=True)
class _Round:
    """A question as a round: classes, their worth, verdicts between them, and what they show."""

    case: Case
    worth: tuple[float, ...]
    answers: dict[int, float]
    bouts: Bouts
    counts: _Counts

    @property
    def right(self) -> int | None:
        """The best class, None where none is worth anything."""
        best = max(range(len(self.worth)), key=lambda index: self.worth[index])
        return best if self.worth[best] > 0.0 else None


def select(
    data: Recorded, questions: int | None, judges: Sequence[int], liars: Iterable[int]
) -> Recorded:
    """Some of the questions and judges, with every verdict of the liars turned round.

    Seats that then neither answer nor judge are left out.
    """
    kept, lying = frozenset(judges), frozenset(liars)
    chosen = data.questions[:questions]
    answering = {seat for one in chosen for seat in one.worth}
    seats = [seat for seat in range(len(data.seats)) if seat in kept or seat in answering]
    new = {seat: index for index, seat in enumerate(seats)}
    return Recorded(
        tuple(data.seats[seat] for seat in seats),
        tuple(new[seat] for seat in judges),
        data.ordered,
        tuple(_told(one, seats, new, kept, lying) for one in chosen),
    )


def _told(
    one: Question,
    seats: Sequence[int],
    new: Mapping[int, int],
    kept: frozenset[int],
    lying: frozenset[int],
) -> Question:
    """The question among the seats that are left, as the liars would have it."""
    return Question(
        tuple(one.texts[seat] for seat in seats),
        {new[seat]: worth for seat, worth in one.worth.items()},
        tuple(
            Bout(
                new[bout.judge],
                new[bout.first],
                new[bout.second],
                1.0 - bout.outcome if bout.judge in lying else bout.outcome,
            )
            for bout in one.bouts
            if bout.judge in kept
        ),
        {(new[low], new[high]): share for (low, high), share in one.preferred.items()},
    )


def contests(data: Recorded) -> Iterator[Contest]:
    """One contest for each question, with weights from the others."""
    rounds = [_round(data, question) for question in data.questions]
    standings = _standings([one.counts for one in rounds])
    examples, wary_examples = [], []
    for one, seats in zip(rounds, standings, strict=True):
        case = replace(one.case, rule=DEFAULT_WEIGHTED, weights=weigh("weighted", seats))
        examples.append(_example(case, one))
        wary_examples.append(_example(replace(case, rule=WARY), one))
    rules, wary_rules = _fitted(examples, DEFAULT_WEIGHTED), _fitted(wary_examples, WARY)
    agreed, pairs = _agreements(rounds, len(data.seats))
    answering = tuple(
        seat for seat in range(len(data.seats)) if any(seat in one.answers for one in rounds)
    )
    for index, (one, seats) in enumerate(zip(rounds, standings, strict=True)):
        yield Contest(
            _decided(one.case, rules[index], seats),
            _decided(one.case, wary_rules[index], seats),
            agreement_weights(agreed.sum(0) - agreed[index], pairs.sum(0) - pairs[index]),
            one.bouts,
            one.worth,
            one.answers,
            answering,
        )


def _decided(case: Case, planned: Rule, seats: Sequence[Standing]) -> Case:
    """The case under the rule that these standings allow, as a round would have it."""
    rule = rule_in_force(planned, seats)
    return replace(case, rule=rule, weights=weigh(rule.name, seats))


# --- one question -----------------------------------------------------------------------------


def _round(data: Recorded, question: Question) -> _Round:
    found = classes(question.texts)
    of = {seat: index for index, members in enumerate(found) for seat in members}
    seats = len(data.seats)
    neutral: tuple[Weight, ...] = (NEUTRAL,) * seats
    votes = _votes(question.bouts, of, ordered=data.ordered)
    case = Case(UNCALIBRATED, found, neutral, votes, both_orders=_mirrored(votes))
    shown = []
    for members in found:
        text = representative(question.texts, members)
        shown.append(next(seat for seat in members if question.texts[seat] == text))
    columns = np.array(question.bouts, dtype=np.float64).reshape(-1, 4).T
    judge, first, second = columns[:3].astype(np.int64)
    return _Round(
        case,
        tuple(question.worth[seat] for seat in shown),
        dict(question.worth),
        Bouts(first, second, judge, columns[3]),
        _count(case, question, seats),
    )


def _votes(bouts: Iterable[Bout], of: dict[int, int], *, ordered: bool) -> tuple[Vote, ...]:
    """A judge's verdict on two classes: how often it prefers an answer of the one to the other's.

    Without an order of showing it stands for both orders alike.
    """
    found: defaultdict[tuple[int, int, int], list[float]] = defaultdict(list)
    for bout in bouts:
        first, second = of[bout.first], of[bout.second]
        if first != second:
            found[bout.judge, first, second].append(bout.outcome)
            if not ordered:
                found[bout.judge, second, first].append(1.0 - bout.outcome)
    return tuple(
        Vote(judge, Row(first, second, round(MICRO * fmean(outcomes))))
        for (judge, first, second), outcomes in found.items()
    )


def _mirrored(votes: Sequence[Vote]) -> bool:
    """Whether every pair is there in both orders."""
    there = {(vote.seat, vote.row.first, vote.row.second) for vote in votes}
    return all((seat, second, first) in there for seat, first, second in there)


def _count(case: Case, question: Question, seats: int) -> _Counts:
    """What the question says about each seat."""
    counts = np.zeros((seats, 6, 2), dtype=np.int64)
    for seat, worth in question.worth.items():
        counts[seat, _ANSWER] = (round(worth * MICRO), MICRO)
    for pair in combinations(range(len(case.classes)), 2):
        share = _preferred(case, question, *pair)
        if share is None or share == 0.5:
            continue
        better = pair[0] if share > 0.5 else pair[1]
        votes = tuple(vote for vote in case.votes if {vote.row.first, vote.row.second} == {*pair})
        right = [index == better for index in range(len(case.classes))]
        for seat, found in tallies(replace(case, votes=votes), right).items():
            for place, tally in enumerate(found):
                counts[seat, place] += (tally.right, tally.total)
    return counts


def _preferred(case: Case, question: Question, one: int, other: int) -> float | None:
    """P(a class is better than another) by the truth, None where nobody knows."""
    shares = []
    for left in case.classes[one]:
        for right in case.classes[other]:
            known = question.preferred.get((min(left, right), max(left, right)))
            if known is not None:
                shares.append(known if left < right else 1.0 - known)
    return fmean(shares) if shares else None


def _example(case: Case, one: _Round) -> Example:
    return Example(features(case), one.right, sum(len(members) for members in case.classes))


# --- the other questions ----------------------------------------------------------------------


def _standings(counts: Sequence[_Counts]) -> list[tuple[Standing, ...]]:
    """For each question the evidence of all others."""
    table = np.stack(counts)
    others = table.sum(axis=0)[None] - table
    sure = table[:, :, DECIDED_BIN:_ANSWER].sum(axis=2) / MICRO
    return [
        tuple(
            Standing(
                peer_id(seat),
                five([Tally(int(right), int(total)) for right, total in found[:_ANSWER]]),
                Tally(int(found[_ANSWER, 0]), int(found[_ANSWER, 1])),
                _admitted(sure[:, seat], index),
                MICRO,
                "asker",
            )
            for seat, found in enumerate(others[index])
        )
        for index in range(len(table))
    ]


def _admitted(sure: Floats, index: int) -> bool:
    """Whether a judge passes the admission test on the questions after this one, in a circle."""
    test = Sprt()
    for right, pairs in (*sure[index + 1 :].tolist(), *sure[:index].tolist()):
        test = test.after(right, pairs)
        if test.decision != "open":
            break
    return test.decision == "admitted"


def _fitted(examples: Sequence[Example], base: Rule) -> list[Rule]:
    """For each question the rule that the questions of the other folds give."""
    rules = []
    for fold in range(FOLDS):
        others = [one for index, one in enumerate(examples) if index % FOLDS != fold]
        rules.append(refit(others, base))
    return [rules[index % FOLDS] for index in range(len(examples))]


def _agreements(rounds: Sequence[_Round], seats: int) -> tuple[Floats, Floats]:
    """Each judge's agreement with the uniform consensus, by question."""
    agreed, pairs = [], []
    for one in rounds:
        order = sorted(one.answers)
        scores = plain_strengths(order, one.bouts, np.ones(len(one.bouts)))
        winner = order[int(scores.argmax())]
        members = next(each for each in one.case.classes if winner in each)
        found = agreements(one.bouts, frozenset(members), seats)
        agreed.append(found[0])
        pairs.append(found[1])
    return np.stack(agreed), np.stack(pairs)
