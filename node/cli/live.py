"""The live display of a round: who answers, who judges, and bars of the scores (rich)."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from node.cli.text import line, percent
from node.cli.view import RoundView

_BAR_CELLS: Final = 24
_TEXT_CHARS: Final = 48
_PEER_CHARS: Final = 8
_STYLES: Final[Mapping[str, str]] = {
    "committed": "cyan",
    "revealed": "green",
    "judged": "bold green",
    "declined": "dim",
    "missing": "red",
}


def draw(view: RoundView) -> RenderableType:
    """What the terminal shows of ``view``. Strangers' text is never markup or control."""
    parts: list[RenderableType] = [Text(view.stage, style="bold")]
    if view.peers:
        peers = Table(box=None, pad_edge=False, header_style="dim")
        for head in ("peer", "model", "state", ""):
            peers.add_column(head, no_wrap=True)
        for peer, row in view.peers.items():
            peers.add_row(
                Text(line(peer[-_PEER_CHARS:])),
                Text(line(row.model, _TEXT_CHARS)),
                Text(row.state, style=_STYLES.get(row.state, "")),
                Text(line(row.note, _TEXT_CHARS), style="dim"),
            )
        parts.append(peers)
    if view.scores:
        scores = Table(box=None, pad_edge=False, show_header=False)
        for _ in range(3):
            scores.add_column(no_wrap=True)
        for score in view.scores:
            share = min(max(score.share, 0.0), 1.0)
            full = round(share * _BAR_CELLS)
            scores.add_row(
                Text("█" * full, style="green").append("░" * (_BAR_CELLS - full), style="dim"),
                Text(f"{percent(share):>5}"),
                Text(line(score.answer, _TEXT_CHARS)),
            )
        parts.append(scores)
    return Group(*parts)


class LiveRound:
    """Redraws the round on each event, and clears the display at the end."""

    def __init__(self, console: Console | None = None) -> None:
        self._view = RoundView()
        # Drawn when something happens, so there is no thread to stop when Ctrl-C comes.
        self._live = Live(draw(self._view), console=console, auto_refresh=False, transient=True)

    def show(self, event: Mapping[str, Any]) -> None:
        """Take an event into account and redraw."""
        self._view.fold(event)
        self._live.update(draw(self._view), refresh=True)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()
