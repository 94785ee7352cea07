"""Progress events made from the state of a round."""

from __future__ import annotations

from protocol.ids import peer_text
from protocol.messages import MICRO
from protocol.receipt import Result
from swarm.progress import ClassesFound, ClassView, Scores, ScoreView, label
from swarm.slate import Opened


def classes_found(opened: Opened) -> ClassesFound:
    """The classes that are to be judged."""
    return ClassesFound(
        tuple(
            ClassView(
                label(index), answer, tuple(peer_text(opened.peers[seat]) for seat in members)
            )
            for index, (answer, members) in enumerate(
                zip(opened.answers, opened.classes, strict=True)
            )
        )
    )


def scores(opened: Opened, result: Result) -> Scores:
    """Where the classes stand."""
    return Scores(
        tuple(
            ScoreView(label(index), answer, share / MICRO)
            for index, (answer, share) in enumerate(zip(opened.answers, result.shares, strict=True))
        )
    )
