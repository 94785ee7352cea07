"""A round as its progress events tell it: what the live display draws.

Events are JSON objects of the daemon; whatever is missing or unknown in one is passed over, so
that a display never breaks a question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from node.cli.text import get_list, get_number, get_text

_STAGES: Final[Mapping[str, str]] = {
    "accepted": "waiting for its turn",
    "invited": "the peers answer",
    "stage": "too much doubt: more peers answer",
    "roster": "the answers are fixed; they are shown now",
    "classes": "the peers judge the answers",
    "closed": "closed",
}


@dataclass(slots=True)
class PeerView:
    """One peer of the round.

    Attributes:
        model: what it runs, as it says.
        state: invited, committed, revealed, judged, declined or missing.
        note: its answer, or why it declined or is missing.
    """

    model: str = ""
    state: str = "invited"
    note: str = ""


@dataclass(frozen=True, slots=True)
class ScoreView:
    """One class of answers: its text and its share of the probability, from 0 to 1."""

    answer: str
    share: float


@dataclass(slots=True)
class RoundView:
    """What is known of a round so far.

    Attributes:
        ask: the daemon's name for the question; "" until it is on disk.
        round: hex id; "" before the invitations.
        stage: what goes on now, in words.
        peers: by peer id, in the order they were invited.
        scores: the classes, best first, once judging has begun.
    """

    ask: str = ""
    round: str = ""
    stage: str = "asking the daemon"
    peers: dict[str, PeerView] = field(default_factory=dict)
    scores: list[ScoreView] = field(default_factory=list)

    def fold(self, event: Mapping[str, Any]) -> None:
        """Take one progress event into account."""
        kind = get_text(event, "kind")
        self.stage = _STAGES.get(kind, self.stage)
        peer = get_text(event, "peer")
        match kind:
            case "accepted":
                self.ask = get_text(event, "ask")
            case "stage":
                for row in get_list(event, "peers"):
                    self.peers[get_text(row, "peer")] = PeerView(get_text(row, "model"))
            case "invited":
                self.round = get_text(event, "round")
                # Another attempt after a restart begins with an empty table.
                self.peers = {
                    get_text(row, "peer"): PeerView(get_text(row, "model"))
                    for row in get_list(event, "peers")
                }
                self.scores = []
            case "committed":
                self._peer(peer, "committed", "")
                self.peers[peer].model = get_text(event, "model") or self.peers[peer].model
            case "declined":
                self._peer(peer, "declined", get_text(event, "reason"))
            case "revealed":
                self._peer(peer, "revealed", get_text(event, "answer"))
            case "ballot":
                self._peer(peer, "judged", None)
            case "fault":
                words = (get_text(event, name) for name in ("phase", "fault", "detail"))
                self._peer(peer, "missing", " ".join(filter(None, words)))
            case "classes":
                self.scores = [
                    ScoreView(get_text(row, "answer"), 0.0) for row in get_list(event, "classes")
                ]
            case "scores":
                scores = [
                    ScoreView(get_text(row, "answer"), get_number(row, "share") or 0.0)
                    for row in get_list(event, "scores")
                ]
                self.scores = sorted(scores, key=lambda score: -score.share)

    def _peer(self, peer: str, state: str, note: str | None) -> None:
        view = self.peers.setdefault(peer, PeerView())
        view.state = state
        if note is not None:
            view.note = note
