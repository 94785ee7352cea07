"""What happens in a round, for whoever watches it. The wire form is JSON, tagged ``kind``."""

from __future__ import annotations

import msgspec


class Progress(msgspec.Struct, frozen=True, tag_field="kind"):
    """What all events share."""


class Invitee(msgspec.Struct, frozen=True):
    """A peer (libp2p peer id) and the model it says it runs."""

    peer: str
    model: str


class Invited(Progress, frozen=True, tag="invited"):
    """The round began. ``round`` is its id in hex."""

    round: str
    peers: tuple[Invitee, ...]


class StageOpened(Progress, frozen=True, tag="stage"):
    """There was too much doubt, so more peers are asked. ``stage`` counts from 0."""

    stage: int
    peers: tuple[Invitee, ...]


class Committed(Progress, frozen=True, tag="committed"):
    """A peer fixed its answer."""

    peer: str
    model: str


class RosterFixed(Progress, frozen=True, tag="roster"):
    """All answers are fixed."""

    stage: int
    peers: tuple[str, ...]


class Revealed(Progress, frozen=True, tag="revealed"):
    """A peer opened its answer."""

    peer: str
    answer: str


class ClassView(msgspec.Struct, frozen=True):
    """Equal answers and who gave them. ``label`` is a letter, ``answer`` their commonest text."""

    label: str
    answer: str
    members: tuple[str, ...]


class ClassesFound(Progress, frozen=True, tag="classes"):
    """Equal answers were merged; these are to be judged."""

    classes: tuple[ClassView, ...]


class BallotCast(Progress, frozen=True, tag="ballot"):
    """A judge sent its verdicts on a wave of pairs."""

    peer: str
    wave: int


class ScoreView(msgspec.Struct, frozen=True):
    """Where a class stands; ``share`` is the softmax of the scores, in [0, 1]."""

    label: str
    answer: str
    share: float


class Scores(Progress, frozen=True, tag="scores"):
    """The standing so far."""

    scores: tuple[ScoreView, ...]


class Faulted(Progress, frozen=True, tag="fault"):
    """A peer failed."""

    peer: str
    phase: str
    fault: str
    detail: str


class Closed(Progress, frozen=True, tag="closed"):
    """The round ended."""

    outcome: str


Event = (
    Invited
    | StageOpened
    | Committed
    | RosterFixed
    | Revealed
    | ClassesFound
    | BallotCast
    | Scores
    | Faulted
    | Closed
)


def label(index: int) -> str:
    """A, B, …, Z, AA, AB, … for class ``index``."""
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
