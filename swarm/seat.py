"""The states of a round, and what the asker holds of each invited peer."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from protocol.ids import Digest, PeerId
from protocol.messages import Ballot, Commit, Decline, FromPeer, Incoming, Reveal
from protocol.receipt import FaultKind, Phase, Standing


class State(Enum):
    """Where a round stands; the value of a running one is the phase in messages and receipts."""

    COMMIT = "commit"
    REVEAL = "reveal"
    JUDGE = "judge"
    DONE = "done"


# The phase in which a peer's message counts, and the fault of one that comes after it.
TURN: Final[dict[type[FromPeer], tuple[State, FaultKind]]] = {
    Commit: (State.COMMIT, "late-commit"),
    Decline: (State.COMMIT, "late-commit"),
    Reveal: (State.REVEAL, "late-reveal"),
    Ballot: (State.JUDGE, "late-ballot"),
}
PHASES: Final[dict[State, Phase]] = {
    State.COMMIT: "commit",
    State.REVEAL: "reveal",
    State.JUDGE: "judge",
}
ORDER: Final = (State.COMMIT, State.REVEAL, State.JUDGE, State.DONE)
MISSING: Final[dict[State, FaultKind]] = {
    State.COMMIT: "no-commit",
    State.REVEAL: "no-reveal",
    State.JUDGE: "no-ballot",
}


@dataclass(slots=True, eq=False)
class Seat:
    """What one invited peer has sent.

    Attributes:
        stage: in which it was invited.
        reveals: by the digest of the Roster.
        ballots: by the digest of the Slate, and wave.
        out: nothing more is heard from this peer, nor waited for.
        seen: digests of messages taken, to tell a repeat from an equivocation.
    """

    standing: Standing
    model: str
    stage: int
    commit: Incoming | None = None
    reveals: dict[Digest, Incoming] = field(default_factory=dict)
    ballots: dict[tuple[Digest, int], Incoming] = field(default_factory=dict)
    out: bool = False
    seen: set[Digest] = field(default_factory=set)

    @property
    def peer(self) -> PeerId:
        return self.standing.peer
