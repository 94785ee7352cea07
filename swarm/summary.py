"""A finished round as the object that its asker gets: answer, who said what, what was missing."""

from __future__ import annotations

from typing import Final

from protocol.errors import (
    EXIT_ANSWER,
    EXIT_CANCELLED,
    EXIT_NO_CONSENSUS,
    EXIT_NO_PEERS,
    EXIT_NONE_RIGHT,
    EXIT_PARTIAL,
)
from protocol.ids import peer_text
from protocol.messages import MICRO
from protocol.receipt import Outcome, Result
from swarm.consensus import CONFIDENCE_ROUNDS
from swarm.explain import faults
from swarm.progress import label
from swarm.round import Round

_EXITS: Final[dict[Outcome, int]] = {
    "answer": EXIT_ANSWER,
    "no-consensus": EXIT_NO_CONSENSUS,
    "none-right": EXIT_NONE_RIGHT,
    "partial": EXIT_PARTIAL,
    "cancelled": EXIT_CANCELLED,
}


def exit_code(result: Result, answers: int) -> int:
    """The shell's exit code for a result with so many answers."""
    if result.outcome == "partial" and answers == 0:
        return EXIT_NO_PEERS
    return _EXITS[result.outcome]


def summarise(done: Round) -> dict[str, object]:
    """What the asker of a finished round is told, as plain JSON values.

    ``share`` is the softmax of the consensus scores; it is not a probability of being right.
    ``confidence`` is, and is None until enough calibration rounds stand behind it.

    Raises:
        ValueError: the round is not over.
    """
    core, result = done.core, done.result
    if core is None or result is None:
        raise ValueError("the round is not over")
    answers = _answers(done, result)
    shown = done.opened

    def text(index: int | None) -> str | None:
        return shown.answers[index] if shown is not None and index is not None else None

    share = None if result.winner is None else result.shares[result.winner] / MICRO
    return {
        "answer": text(result.winner) if result.outcome == "answer" else None,
        "confidence": None if result.confidence is None else result.confidence / MICRO,
        "calibrated": core.rule.calibration_rounds >= CONFIDENCE_ROUNDS,
        "outcome": result.outcome,
        "rule": core.rule.name,
        "topic": done.plan.topic,
        "solo": done.plan.solo,
        "share": share,
        "margin": result.margin / MICRO,
        "answers": answers,
        "plurality": text(result.plurality),
        "unweighted": text(result.unweighted),
        "missing": faults(core),
        "invited": len(core.standings),
        "round": core.round.hex(),
        "question": done.plan.question,
        "exit_code": exit_code(result, len(answers)),
    }


def _answers(done: Round, result: Result) -> list[dict[str, object]]:
    """Each answer that was revealed, the best class first."""
    if done.opened is None:
        return []
    models = done.models()
    rows: list[tuple[int, dict[str, object]]] = []
    for index, members in enumerate(done.opened.classes):
        share = result.shares[index] if result.shares else None
        for seat in members:
            peer = done.opened.peers[seat]
            row: dict[str, object] = {
                "peer": peer_text(peer),
                "model": models[peer],
                "answer": done.opened.texts[seat],
                "class": label(index),
                "share": None if share is None else share / MICRO,
            }
            rows.append((-(share or 0), row))
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]
