"""Why a round ended as it did, from its receipt."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.errors import ReceiptError
from protocol.receipt import read, write
from swarm.explain import describe, explain
from tests.swarm.builders import changed, signed
from tests.swarm.virtual import Peer, VirtualSwarm, knows

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
