"""Trials by hand: what a graded round would say of named peers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256

from protocol.ids import PeerId, RoundId
from protocol.messages import MICRO
from protocol.receipt import Tally
from swarm.trial import Kind, Mark, Trial, five
from tests.swarm.virtual import signer

Row = tuple[int, int, int]


@cache
def peer(name: str) -> PeerId:
    """The id of a named peer."""
    return signer(name).peer


def tally(right: float, total: float) -> Tally:
    """``right`` of ``total``."""
    return Tally(round(right * MICRO), round(total * MICRO))


def mark(
    name: str,
    *bins: tuple[float, float],
    place: int = 4,
    right: bool = True,
    wrong: str = "",
    model: str = "model",
    latency_ms: int = 100,
    answer_bytes: int = 2,
) -> Mark:
    """What a named peer did.

    Args:
        bins: (right, pairs) of its verdicts from bin ``place`` of sureness on.
        wrong: its answer, where that was wrong.
    """
    pairs = [(0.0, 0.0)] * place + list(bins)
    pairs += [(0.0, 0.0)] * (5 - len(pairs))
    return Mark(
        peer(name),
        model,
        five([tally(*pair) for pair in pairs]),
        right and not wrong,
        b"" if right and not wrong else sha256(wrong.encode()).digest()[:8],
        latency_ms,
        answer_bytes,
    )


def trial(
    *marks: Mark,
    topic: str = "sums",
    kind: Kind = "hidden",
    at: int = 1_000,
    chosen: bool | None = True,
    right: int | None = 0,
    weighted: Sequence[Row] = (),
    equal: Sequence[Row] = (),
) -> Trial:
    """A graded round with these peers."""
    return Trial(
        RoundId(bytes(32)),
        at,
        topic,
        "",
        kind,
        chosen,
        right,
        max(2, len(marks)),
        tuple(weighted),
        tuple(equal),
        tuple(sorted(marks, key=lambda one: one.peer)),
    )


def tried(
    accuracy: Mapping[str, tuple[float, float]],
    *,
    topic: str = "sums",
    place: int = 4,
    kind: Kind = "hidden",
    at: int = 1_000,
) -> Trial:
    """A round with peers of the given (right, pairs), whose answers were right."""
    return trial(
        *(mark(name, pair, place=place) for name, pair in accuracy.items()),
        topic=topic,
        kind=kind,
        at=at,
    )
