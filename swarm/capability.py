"""What is known of a peer, as a report: the evidence, the curve, the weight and why."""

from __future__ import annotations

from collections.abc import Container, Sequence
from math import log
from typing import Any, Final

from protocol.ids import PeerId, peer_text, short_peer
from protocol.messages import MICRO
from protocol.receipt import Standing, Tally, Weight
from swarm.consensus import QUORUM, rule_in_force
from swarm.evidence import Book
from swarm.record import HIDDEN_PAIRS, OWN, Record
from swarm.reputation import BIN_FLOORS, is_proven, weigh
from swarm.sequential import ERROR

Json = dict[str, Any]
_FLOORS: Final = (MICRO // 2, *BIN_FLOORS)


def report(
    book: Book, peers: Sequence[PeerId], topic: str = "", struck: Container[PeerId] = ()
) -> Json:
    """The reputation of ``peers`` for questions of ``topic``, among each other.

    Returns:
        ``rule`` that would decide among them, ``confidence_rounds`` behind its confidence, how
        often each topic has been tried (``topics``), and for each of ``peers`` its evidence and
        weight. A weight of 1 is the mean of the top half.
    """
    planned, standings = book.rule(topic, peers)
    rule = rule_in_force(planned, standings)
    weights = weigh(rule.name, standings)
    return {
        "topic": topic,
        "rule": rule.name,
        "confidence_rounds": rule.calibration_rounds,
        "trials": book.trials,
        "topics": {name: round(count, 2) for name, count in sorted(book.topics.items())},
        "peers": [
            _peer(book, standing, weight, rule.name, topic, standing.peer in struck)
            for standing, weight in zip(standings, weights, strict=True)
        ],
    }


def _peer(
    book: Book, standing: Standing, weight: Weight, rule: str, topic: str, struck: bool
) -> Json:
    record = book.records.get(standing.peer) or Record("")
    kind, excess = book.kind(standing.peer)
    return {
        "peer": peer_text(standing.peer),
        "model": record.model,
        "admitted": standing.admitted,
        "struck": struck,
        "proven": is_proven(standing),
        "weight": 0.0 if struck else max(weight.judge) / MICRO,
        "answer_weight": 0.0 if struck else weight.answer / MICRO,
        "why": _why(record, standing, kind, excess, rule, topic, struck),
        "source": standing.source,
        "trials": record.trials,
        "last_at": record.last_at or None,
        "fell_at": record.fell_at,
        "latency_ms": round(record.latency_ms, 1) if record.trials else None,
        "test": {
            "decision": record.test.decision,
            "ratio": round(record.test.ratio, 3),
            "bound": round(log((1.0 - ERROR) / ERROR), 3),
            "pairs": round(record.test.pairs, 1),
            "questions": record.test.questions,
        },
        "hidden_pairs": round(record.hidden, 1),
        "answers": _share(standing.answer),
        "curve": [
            {"from": floor / MICRO, **_share(tally), "weight": part / MICRO, "trust": trust / MICRO}
            for floor, tally, part, trust in zip(
                _FLOORS, standing.judge, weight.judge, weight.trust, strict=True
            )
        ],
        "topics": {
            name: {
                "rounds": round(counts.rounds, 2),
                "answers": _rounded(counts.answer),
                "pairs": _rounded([sum(column) for column in zip(*counts.judge, strict=True)]),
            }
            for name, counts in sorted(record.topics.items())
        },
        "like": [peer_text(other) for other in kind if other != standing.peer],
    }


def _why(
    record: Record,
    standing: Standing,
    kind: Sequence[PeerId],
    excess: float,
    rule: str,
    topic: str,
    struck: bool,
) -> list[str]:
    """What its weight comes from, a sentence each."""
    if struck:
        return ["A proof of misbehaviour excludes it."]
    own = standing.source == OWN
    if own and not record.trials:
        return ["It has not been tried: a newcomer, capped together with all others."]
    reasons = [] if own else ["What verifiers say that are trusted here is part of it."]
    if not standing.admitted:
        state = "turned it away" if record.test.decision == "refused" else "is open"
        reasons.append(f"The admission test {state}: a newcomer, capped with all others.")
    if rule == "uncalibrated":
        reasons.append(f"Too few are admitted (it takes {QUORUM}): all weigh the same.")
    elif rule == "equal":
        reasons.append("No evidence on this kind of question: the admitted weigh the same.")
    elif standing.admitted and not is_proven(standing):
        reasons.append(f"As a judge of {topic} it is not above chance beyond doubt.")
    if own and record.hidden < HIDDEN_PAIRS:
        reasons.append(
            f"Only {record.hidden:.0f} of {HIDDEN_PAIRS:.0f} pairs came when it could not have "
            f"recognised a test: its weight is divided by {record.recognisable:.2f}."
        )
    if len(kind) > 1:
        others = ", ".join(short_peer(one) for one in kind if one != standing.peer)
        reasons.append(f"It errs like {others} (excess {excess:.2f}): they share weight.")
    if record.fell_at is not None:
        reasons.append("It fell from what it was, so that its record began anew.")
    return reasons or ["By its counts."]


def _share(tally: Tally) -> Json:
    right, total = tally.right / MICRO, tally.total / MICRO
    return {
        "right": round(right, 2),
        "total": round(total, 2),
        "share": round(right / total, 4) if total else None,
    }


def _rounded(pair: Sequence[float]) -> list[float]:
    return [round(one, 2) for one in pair]
