"""Why a round ended as it did, from its receipt."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.errors import ReceiptError
from protocol.ids import peer_text
from protocol.messages import MICRO
from protocol.receipt import read, write
from swarm.consensus import DEFAULT_WEIGHTED, UNCALIBRATED
from swarm.explain import describe, explain
from tests.swarm.builders import changed, signed
from tests.swarm.virtual import Peer, VirtualSwarm, knows, signer, standing

ANSWERS = ("42", "41", "41", "42.0", "7")


def round_of(*peers: Peer, **options: Any) -> bytes:
    return VirtualSwarm(list(peers), **options).run().receipts[0]


def five() -> bytes:
    return round_of(*(Peer(f"p{i}", one, knows("42")) for i, one in enumerate(ANSWERS)))


def test_the_matrix_is_what_the_judges_said() -> None:
    why: Any = explain(five())
    labels = {one["answer"]: index for index, one in enumerate(why["classes"])}
    best, others = labels.pop("42"), list(labels.values())
    for other in others:
        assert why["matrix"][best][other] == pytest.approx(0.95, abs=0.051)
        assert why["matrix"][other][best] == pytest.approx(1 - why["matrix"][best][other])
    for index in range(3):
        assert why["matrix"][index][index] is None
    assert why["answer"] == "42"
    assert why["outcome"] == "answer"
    assert why["margin"] > 0
    assert len(why["classes"][best]["members"]) == 2


def test_judges_and_their_own_answers() -> None:
    why: Any = explain(five())
    winner = next(one["label"] for one in why["classes"] if one["answer"] == "42")
    assert [one["own"] for one in why["judges"]].count(winner) == 2
    assert all(one["for_winner"] == pytest.approx(0.9) for one in why["judges"])
    assert all(one["abstained"] == 0 and one["weight"] == 1.0 for one in why["judges"])


def test_a_lone_dissenter_is_seen_and_one_judge_flips_a_close_round() -> None:
    peers = [
        Peer("a", "42", knows("42", 0.9)),
        Peer("b", "41", knows("41", 0.8)),
        Peer("c", "7", knows("42", 0.6)),
    ]
    why: Any = explain(round_of(*peers))
    assert why["answer"] == "42"
    assert sorted(one["for_winner"] < 0.5 for one in why["judges"]) == [False, False, True]
    assert why["flip"]["ballots"] == 1
    assert why["flip"]["to"] == "41"


def test_agreement_of_all_takes_several_judges_to_flip() -> None:
    why: Any = explain(five())
    assert why["flip"]["ballots"] >= 2


def test_abstentions_leave_no_entry_in_the_matrix() -> None:
    def mute(first: str, second: str) -> None:
        return None

    why: Any = explain(round_of(Peer("a", "1", mute), Peer("b", "2", mute)))
    assert why["matrix"] == [[None, None], [None, None]]
    assert why["outcome"] == "no-consensus"
    assert why["flip"] == {"ballots": None, "to": None}
    assert [one["abstained"] for one in why["judges"]] == [2, 2]
    assert [one["for_winner"] for one in why["judges"]] == [None, None]


def test_a_round_without_judging() -> None:
    why: Any = explain(round_of(Peer("a", None), Peer("b", None), min_answers=2))
    assert why["outcome"] == "partial"
    assert why["answer"] is None
    assert why["classes"] == why["matrix"] == why["judges"] == []
    assert {one["kind"] for one in why["faults"]} == {"declined"}


def test_unanimity_needs_no_judges() -> None:
    why: Any = explain(round_of(Peer("a", "42"), Peer("b", "42.0")))
    assert why["answer"] in ("42", "42.0")
    assert why["judges"] == []


@pytest.mark.parametrize("function", [describe, explain])
def test_how_far_the_round_went(function: Any) -> None:
    def course(**options: Any) -> tuple[Any, ...]:
        peers = [Peer(f"p{i}", one, knows("42")) for i, one in enumerate(ANSWERS)]
        found = function(round_of(*peers, **options))
        return tuple(found[name] for name in ("asked", "could_ask", "waves", "stopped"))

    early = changed(UNCALIBRATED, stop=400_000)
    assert course() == (5, 5, 1, "schedule")
    assert course(adaptive=True) == (5, 5, 6, "schedule")
    asked, could, waves, stopped = course(adaptive=True, rule=early)
    assert (asked, could, stopped) == (5, 5, "confident")
    assert 0 < waves < 6
    assert course(stages=(3,), rule=early) == (3, 5, 1, "schedule")
    nobody = function(round_of(Peer("a", None), stages=(1,)))
    assert (nobody["asked"], nobody["waves"], nobody["stopped"]) == (1, 0, None)


def test_describe_with_and_without_the_opening() -> None:
    data = five()
    shown: Any = describe(data)
    assert (shown["answer"], shown["ballots"], shown["texts"]) == ("42", 5, True)
    assert shown["question"] == "What is 6 * 7?"
    file, _, _ = read(data)
    bare: Any = describe(write(file.core, None))
    assert (bare["answer"], bare["question"], bare["texts"]) == (None, None, False)
    assert bare["round"] == shown["round"]
    with pytest.raises(ReceiptError):
        explain(write(file.core, None))


@pytest.mark.parametrize("function", [describe, explain])
def test_damage_is_a_receipt_error(function: Any) -> None:
    with pytest.raises(ReceiptError):
        function(five()[:-1])


@pytest.mark.parametrize(
    "bend",
    [{"winner": 1}, {"winner": 40}, {"scores": ()}, {"shares": (1, 1, 1)}],
    ids=lambda bend: f"{next(iter(bend))}",
)
@pytest.mark.parametrize("function", [describe, explain])
def test_a_core_that_its_journal_contradicts_is_not_explained(
    function: Any, bend: dict[str, Any]
) -> None:
    """Signed again by its asker, so that only the contradiction gives it away."""
    swarm = VirtualSwarm([Peer(f"p{i}", one, knows("42")) for i, one in enumerate(ANSWERS)]).run()
    _, core, opening = read(swarm.receipts[0])
    lie = changed(core, result=changed(core.result, **bend))
    with pytest.raises(ReceiptError, match="differs"):
        function(signed(swarm, lie, opening))


def test_a_weighted_round_shows_what_each_judge_weighs() -> None:
    """The matrix is the mean by the weight of each verdict's bin; the judge's is its largest."""
    sure = {"a": ("42", 0.99), "b": ("41", 0.95), "c": ("7", 0.8), "d": ("42", 0.65)}
    peers = [Peer(name, answer, knows("42", p)) for name, (answer, p) in sure.items()]
    swarm = VirtualSwarm(
        peers,
        rule=DEFAULT_WEIGHTED,
        standings={
            name: standing(name, 70 + 8 * at, 100, 50, 80) for at, name in enumerate("abcd")
        },
    ).run()
    why: Any = explain(swarm.receipts[0])
    assert why["rule"] == "weighted"
    assert swarm.round.core is not None
    weight = {
        swarm.peers[peer].name: one.judge[4] / MICRO
        for peer, one in zip(sorted(swarm.peers), swarm.round.core.weights, strict=True)
    }
    shown = {one["peer"]: one["weight"] for one in why["judges"]}
    assert shown == {peer_text(signer(name).peer): weight[name] for name in sure}
    total = sum(weight.values())
    mean = sum(weight[name] * p for name, (_, p) in sure.items()) / total
    labels = {one["answer"]: index for index, one in enumerate(why["classes"])}
    for rival in ("41", "7"):
        assert why["matrix"][labels["42"]][labels[rival]] == pytest.approx(mean, abs=1e-6)
        assert why["matrix"][labels[rival]][labels["42"]] == pytest.approx(1 - mean, abs=1e-6)
