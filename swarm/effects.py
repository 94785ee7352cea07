"""What a state machine asks its driver to do: frozen values that ``node`` carries out.

A machine takes inputs (``receive``, ``on_timer``, …) and queues effects; it never waits.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.ids import PeerId, RoundId
from swarm.progress import Event


@dataclass(frozen=True, slots=True)
class Send:
    """Send ``payload`` to ``to``."""

    to: PeerId
    payload: bytes


@dataclass(frozen=True, slots=True)
class Generate:
    """Answer the question; hand the answer to ``Participant.generated``."""

    question: str
    max_tokens: int
    max_bytes: int
    seed: int


@dataclass(frozen=True, slots=True)
class Judge:
    """Compare ``answers`` pair by pair; hand the verdicts to ``Participant.judged``.

    Attributes:
        pairs: indices into ``answers``: (shown first, shown second).
        nonce: fences quoted text in a prompt.
    """

    question: str
    answers: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    nonce: str


@dataclass(frozen=True, slots=True)
class StopWork:
    """Stop generating or judging: nobody waits for it any more."""


@dataclass(frozen=True, slots=True)
class Store:
    """Keep this receipt."""

    round_id: RoundId
    receipt: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """Tell whoever watches."""

    event: Event


@dataclass(frozen=True, slots=True)
class Finished:
    """The machine is done. ``reason`` is for people."""

    reason: str


Effect = Send | Generate | Judge | StopWork | Store | Report | Finished
