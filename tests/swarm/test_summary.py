"""What the asker of a round is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from protocol.receipt import Result
from swarm.summary import exit_code, summarise
from tests.swarm.virtual import Peer, VirtualSwarm, knows


def summary(*peers: Peer, **options: Any) -> dict[str, Any]:
    return dict(summarise(VirtualSwarm(list(peers), **options).run().round))


def test_an_answer_with_everything_beside_it() -> None:
    told = summary(
        Peer("a", "42", knows("42")),
        Peer("b", "41", knows("42")),
        Peer("c", "41", knows("42")),
        Peer("d", None),
    )
    assert told["answer"] == "42"
    assert told["outcome"] == "answer"
    assert told["exit_code"] == 0
    assert told["confidence"] is None
    assert told["calibrated"] is False
    assert told["plurality"] == "41"
    assert told["unweighted"] == "42"
    assert told["invited"] == 4
    assert [row["answer"] for row in told["answers"]] == ["42", "41", "41"]
    assert told["answers"][0]["model"] == "a"
    assert told["answers"][0]["share"] == told["share"] > told["answers"][1]["share"]
    assert [row["kind"] for row in told["missing"]] == ["declined"]
    json.dumps(told)


def test_no_consensus_names_no_answer_but_the_plurality() -> None:
    def mute(first: str, second: str) -> None:
        return None

    told = summary(Peer("a", "1", mute), Peer("b", "2", mute), Peer("c", "2", mute))
    assert told["outcome"] == "no-consensus"
    assert told["answer"] is None
    assert told["share"] is None
    assert told["plurality"] == "2"
    assert told["exit_code"] == 4


def test_partial_shows_what_was_answered() -> None:
    late = Peer("b", "42", thinks=1000.0)
    told = summary(Peer("a", "42"), late, min_answers=2)
    assert (told["outcome"], told["exit_code"], told["answer"]) == ("partial", 6, None)
    told = summary(Peer("a", "42"), Peer("b", "41", dies_when="COMMITTED"), min_answers=2)
    assert (told["outcome"], told["exit_code"]) == ("partial", 5)
    assert [row["answer"] for row in told["answers"]] == ["42"]
    assert told["answers"][0]["share"] is None


@pytest.mark.parametrize(
    ("outcome", "answers", "code"),
    [
        ("answer", 3, 0),
        ("no-consensus", 3, 4),
        ("partial", 1, 5),
        ("partial", 0, 6),
        ("none-right", 3, 7),
        ("cancelled", 0, 130),
    ],
)
def test_exit_codes(outcome: Any, answers: int, code: int) -> None:
    result = Result(outcome, None, (), (), None, None, None, 0)
    assert exit_code(result, answers) == code


def test_a_round_in_progress_has_no_summary() -> None:
    swarm = VirtualSwarm([Peer("a"), Peer("b")])
    with pytest.raises(ValueError, match="not over"):
        summarise(swarm.round)
