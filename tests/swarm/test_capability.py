"""The report on what peers can do: that it says what decides, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings

from protocol.ids import PeerId, peer_text, short_peer
from protocol.messages import MICRO
from swarm.capability import report
from swarm.consensus import rule_in_force
from swarm.evidence import Book
from swarm.record import HIDDEN_PAIRS, Counts, Told
from swarm.reputation import weigh
from swarm.trial import Kind
from tests.swarm.trials import mark, trial, tried
from tests.swarm.virtual import signer

GOOD = ("g0", "g1", "g2", "g3")


def peer(name: str) -> PeerId:
    return signer(name).peer


def ids(*names: str) -> list[PeerId]:
    return [peer(name) for name in names]


def known(
    *names: str, times: int = 12, topic: str = "sums", kind: Kind = "hidden", **also: Any
) -> Book:
    """Good judges and answerers on a topic."""
    book = Book(**also)
    for at in range(times):
        book.add(tried(dict.fromkeys(names, (6, 6)), topic=topic, kind=kind, at=1_000 + at))
    return book


def row(found: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = (one for one in found["peers"] if one["peer"] == peer_text(peer(name)))
    return one


def why(book: Book, names: Sequence[str], name: str, topic: str = "sums", **also: Any) -> str:
    reasons = row(report(book, ids(*names), topic, **also), name)["why"]
    assert reasons
    assert all(reason.endswith(".") for reason in reasons)
    return " ".join(reasons)


# --- what it says ---------------------------------------------------------------------------------


def test_of_nobody_there_is_nothing_to_say() -> None:
    assert report(Book(), []) == {
        "topic": "",
        "rule": "uncalibrated",
        "confidence_rounds": 0,
        "trials": 0,
        "topics": {},
        "peers": [],
    }


def test_the_evidence_on_a_peer() -> None:
    book = known(*GOOD)
    for at in range(2):
        book.add(
            trial(
                mark("g0", (1, 4), place=2, wrong="7", latency_ms=300),
                topic="date",
                at=5_000 + at,
            )
        )
    found = report(book, ids(*GOOD), "sums")
    assert (found["rule"], found["topic"], found["trials"]) == ("weighted", "sums", 14)
    assert set(found["topics"]) == {"date", "sums"}
    one = row(found, "g0")
    assert (one["model"], one["trials"], one["last_at"]) == ("model", 14, 5_001)
    assert one["latency_ms"] == pytest.approx(100 + 200 * (1 - 0.9**2), abs=0.1)
    assert one["test"]["decision"] == "admitted"
    assert one["test"]["questions"] <= 12
    assert one["topics"]["date"]["answers"] == [0.0, pytest.approx(1.97)]
    assert one["topics"]["date"]["pairs"] == [pytest.approx(1.97), pytest.approx(7.88)]
    certain = one["curve"][4]
    assert (certain["from"], certain["share"]) == (0.97, 1.0)
    assert certain["right"] == certain["total"] > 60
    assert [bin_["from"] for bin_ in one["curve"]] == [0.5, 0.6, 0.75, 0.9, 0.97]
    assert one["source"] == "asker"
    assert one["like"] == []


@pytest.mark.parametrize("topic", ["sums", "date", "", "never heard of"])
@pytest.mark.parametrize("names", [GOOD, GOOD[:2], (*GOOD, "new", "bad")])
def test_the_weights_are_those_that_decide(topic: str, names: Sequence[str]) -> None:
    book = known(*GOOD)
    for _ in range(20):
        book.add(tried({"bad": (1, 6)}, topic="date"))
    planned, seats = book.rule(topic, ids(*names))
    rule = rule_in_force(planned, seats)
    found = report(book, ids(*names), topic)
    assert found["rule"] == rule.name
    for name, weight in zip(names, weigh(rule.name, seats), strict=True):
        one = row(found, name)
        assert one["weight"] == max(weight.judge) / MICRO
        assert one["answer_weight"] == weight.answer / MICRO
        assert [bin_["weight"] for bin_ in one["curve"]] == [each / MICRO for each in weight.judge]
        assert [bin_["trust"] for bin_ in one["curve"]] == [each / MICRO for each in weight.trust]


def test_whom_a_proof_excludes_weighs_nothing() -> None:
    book, struck = known(*GOOD), {peer("g1")}
    found = report(book, ids(*GOOD), "sums", struck)
    one = row(found, "g1")
    assert (one["struck"], one["weight"], one["answer_weight"]) == (True, 0.0, 0.0)
    assert one["why"] == ["A proof of misbehaviour excludes it."]
    assert row(found, "g0")["weight"] > 0.0
    assert not row(found, "g0")["struck"]


# --- why ------------------------------------------------------------------------------------------


def test_why_of_a_newcomer() -> None:
    assert "has not been tried" in why(known(*GOOD), (*GOOD, "new"), "new")


def test_why_of_one_whose_test_is_open_or_lost() -> None:
    book = known(*GOOD)
    book.add(tried({"open": (2, 3)}))
    for _ in range(30):
        book.add(tried({"bad": (1, 6)}))
    names = (*GOOD, "open", "bad")
    assert "admission test is open" in why(book, names, "open")
    assert "admission test turned it away" in why(book, names, "bad")
    assert "admission test" not in why(book, names, "g0")


def test_why_all_weigh_the_same() -> None:
    assert "Too few are admitted" in why(known(*GOOD[:2]), GOOD, "g0")
    assert "No evidence on this kind of question" in why(known(*GOOD), GOOD, "g0", "")
    assert "same" not in why(known(*GOOD), GOOD, "g0")


def test_why_an_admitted_peer_may_weigh_nothing() -> None:
    book = known(*GOOD)
    for _ in range(8):
        book.add(tried({"g0": (0, 6)}, topic="date", place=0))
    for _ in range(3):
        book.add(tried(dict.fromkeys(GOOD[1:], (6, 6)), topic="date"))
    one = row(report(book, ids(*GOOD), "date"), "g0")
    assert (one["admitted"], one["proven"], one["weight"]) == (True, False, 0.0)
    assert "As a judge of date it is not above chance" in why(book, GOOD, "g0", "date")
    assert "As a judge" not in why(book, GOOD, "g1", "date")


def test_why_a_burst_counts_half() -> None:
    burst = known(*GOOD, kind="admission")
    assert f"Only 0 of {HIDDEN_PAIRS:.0f} pairs" in why(burst, GOOD, "g0")
    assert "divided by 2.00" in why(burst, GOOD, "g0")
    assert "pairs came when" not in why(known(*GOOD), GOOD, "g0")


def test_why_those_that_err_alike_share() -> None:
    book = known(*GOOD)
    for at in range(30):
        wrong = {"g0": f"x{at}", "g1": f"x{at}", "g2": f"y{at}", "g3": f"z{at}"}
        book.add(trial(*(mark(name, wrong=text) for name, text in wrong.items())))
    assert f"errs like {short_peer(peer('g1'))} " in why(book, GOOD, "g0")
    assert row(report(book, ids(*GOOD), "sums"), "g0")["like"] == [peer_text(peer("g1"))]
    assert "errs like" not in why(book, GOOD, "g2")


def test_why_one_that_fell_begins_anew() -> None:
    book = known(*GOOD, times=40)
    for at in range(40):
        book.add(tried({"g0": (1, 6)}, at=9_000 + at))
    found = row(report(book, ids(*GOOD), "sums"), "g0")
    assert 9_000 <= found["fell_at"] < 9_040
    assert "It fell from what it was" in why(book, GOOD, "g0")
    assert not found["admitted"]


def test_by_its_counts_alone() -> None:
    assert why(known(*GOOD), GOOD, "g0") == "By its counts."


# --- what verifiers say ---------------------------------------------------------------------------


def attested(*names: str) -> Any:
    counts = Counts()
    for _ in range(30):
        counts.add(mark("x", (6, 6)))
    word = Told({"sums": counts}, (peer("verifier"),))
    return lambda one, model: word if one in ids(*names) else None


def test_the_word_of_a_verifier_is_named() -> None:
    book = known(*GOOD, told=attested("new", "g0"))
    found = report(book, ids(*GOOD, "new"), "sums")
    for name in ("new", "g0"):
        one = row(found, name)
        assert one["admitted"]
        assert one["proven"]
        assert one["weight"] > 0.5
        assert peer_text(peer("verifier")) in one["source"]
        assert one["why"] == ["What verifiers say that are trusted here is part of it."]
    assert row(found, "g1")["why"] == ["By its counts."]


def test_a_verifier_that_knows_little_admits_nobody() -> None:
    word = Told({"sums": Counts()}, (peer("verifier"),))
    book = known(*GOOD, told=lambda one, model: word if one == peer("new") else None)
    one = row(report(book, ids(*GOOD, "new"), "sums"), "new")
    assert not one["admitted"]
    assert "The admission test is open" in " ".join(one["why"])


# --- as JSON --------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(...)
def test_any_topic_is_json_and_changes_nothing(topic: str) -> None:
    book = known(*GOOD)
    before = book.standings(ids(*GOOD), "sums")
    found = report(book, ids(*GOOD, "new"), topic)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert book.standings(ids(*GOOD), "sums") == before
    assert peer("new") not in book.records
