"""What a watcher is told, and how it looks on the wire."""

from __future__ import annotations

import msgspec
import pytest

from swarm import progress
from tests.swarm.virtual import Peer, VirtualSwarm, knows


@pytest.mark.parametrize(
    ("index", "text"),
    [(0, "A"), (1, "B"), (25, "Z"), (26, "AA"), (27, "AB"), (51, "AZ"), (52, "BA"), (701, "ZZ"),
     (702, "AAA")],
)  # fmt: skip
def test_labels(index: int, text: str) -> None:
    assert progress.label(index) == text


def test_labels_are_distinct() -> None:
    assert len({progress.label(index) for index in range(2000)}) == 2000


def test_every_event_is_json_with_its_kind() -> None:
    swarm = VirtualSwarm(
        [
            Peer("a", answer="42", judge=knows("42")),
            Peer("b", answer="41", judge=knows("42")),
            Peer("c", answer=None),
        ]
    ).run()
    kinds = set()
    for event in swarm.events:
        data = msgspec.json.encode(event)
        assert msgspec.json.decode(data, type=progress.Event) == event
        kinds.add(msgspec.json.decode(data)["kind"])
    assert kinds == {
        "invited", "committed", "roster", "revealed", "classes", "ballot", "scores", "fault",
        "closed",
    }  # fmt: skip
