"""`swarm eval detect`: what a spy notes becomes what a classifier is given."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from node.cli import detect
from node.spy import Sighting
from protocol.errors import UsageError


def notes(*sightings: Sighting) -> bytes:
    return b"".join(msgspec.json.encode(one) + b"\n" for one in sightings)


def invite(at: float, name: str) -> Sighting:
    return Sighting(at, name, "Invite", 300, f"question {name}", 100, 10, 50, 4096, 512)


def test_rows_begin_after_the_warm_up_and_know_what_was_hidden() -> None:
    seen = notes(
        Sighting(0.0, "other", "Close", 90),
        invite(1.0, "warm"),
        invite(2.0, "real"),
        Sighting(2.1, "real", "Roster", 200, peers=3),
        Sighting(2.5, "real", "Close", 90),
        invite(5.0, "task"),
        invite(6.0, "stranger's"),
    )
    rows = detect._rows(seen, frozenset({"real", "task"}), frozenset({"task"}), "warm")
    assert [(row.text, row.hidden) for row in rows] == [
        ("question real", False),
        ("question task", True),
    ]
    assert len({len(row.fields) for row in rows}) == 1
    assert rows[0].fields[:5] == (100.0, 10.0, 50.0, 4096.0, 512.0)
    assert rows[0].fields[6] == 3.0


def test_a_round_that_begins_in_another_is_seen_to() -> None:
    seen = [[invite(0.0, "a"), Sighting(9.0, "a", "Close", 9)], [invite(5.0, "b")]]
    running = [detect._fields(seen, index)[9] for index in (0, 1)]
    assert running == [0.0, 1.0]


def test_a_file_of_questions_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    with pytest.raises(UsageError, match="cannot be read"):
        detect._questions(str(path), 10, 1)
    path.write_text("\n".join(f"What is {n}?" for n in range(10)))
    with pytest.raises(UsageError, match="holds 10 questions"):
        detect._questions(str(path), 10, 1)
    path.write_text("\n\n".join(f"What is {n}?" for n in range(40)))
    drawn = detect._questions(str(path), 30, 1)
    assert len(drawn) == 30
    assert drawn == detect._questions(str(path), 30, 1) != detect._questions(str(path), 30, 2)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read"):
        detect._questions(str(path), 10, 1)


@pytest.mark.e2e
def test_a_swarm_is_watched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(detect, "PAUSE_S", 0.05)
    monkeypatch.setattr(detect, "WARM_UP", 2)
    monkeypatch.setattr(detect, "SETTLE_S", 1.0)
    args = argparse.Namespace(traffic=None, questions=40, rate=0.4, seed=1, json=True)
    assert detect.run(args) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["real"] == 40
    assert found["hidden"] >= 5
    assert set(found["auc"]) == {"text", "fields", "all"}
    assert 0.0 <= found["auc"]["all"]["value"] <= 1.0
