"""What the machines of an exchange ask of whoever drives them.

They are generators: each yields a step, and is sent its answer once there is one.

=========== ================================================================================
step        answer
=========== ================================================================================
Request     the bytes of the reply, which nobody has looked at
Take        an :data:`Outcome` for each proof, then for each run, in order
PAUSE       None, at once or after others have had their turn
=========== ================================================================================
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeVar

from protocol.errors import SwarmError
from protocol.ledger import Fork, Run

if TYPE_CHECKING:
    # Which has its own use for pauses.
    from swarm.ledger.replica import Change

T = TypeVar("T")

Outcome: TypeAlias = "Change | SwarmError"
"""What taking a run or a proof has changed, or why it was not taken."""


class Pause(Enum):
    """A point between two pieces of work, each of which takes less than a millisecond."""

    PAUSE = 0


PAUSE: Final = Pause.PAUSE


@dataclass(frozen=True, slots=True)
class Request:
    """Send ``body`` to the peer."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Take:
    """Take what the peer has sent, the proofs first: the replica changes by nobody else's hand."""

    runs: tuple[Run, ...]
    forks: tuple[Fork, ...]


Step = Request | Take | Literal[Pause.PAUSE]
Answer: TypeAlias = "bytes | Sequence[Outcome] | None"
Machine = Generator[Step, Answer, T]
"""Works towards a result of type ``T``."""


def finish(steps: Generator[Pause, object, T]) -> T:
    """What ``steps`` return, with no pause taken."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        result: T = end.value
        return result
