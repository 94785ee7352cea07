"""Two pictures as SVG: accuracy against the hostile fraction, and how honest the confidence is.

Called by ``scripts/figures --pictures DIR``. No library: a few lines, dots and words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]

COLOURS = ("#0072b2", "#d55e00", "#009e73")
_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 230, 190, 52, 34, 46
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.title{font-weight:600}"
    ".axis{stroke:#999;stroke-width:1}.grid{stroke:#e4e4e4;stroke-width:1}"
    "@media(prefers-color-scheme:dark){text{fill:#ccc}.grid{stroke:#444}}"
)


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram.

    Attributes:
        title: above it.
        lines: points by name, x and y in 0–1; at most one for each colour.
        across: what x is.
        widest: the greatest x.
        diagonal: whether to draw y = x.
        dots: radius of each point of the first line, 0 for none.
    """

    title: str
    lines: Mapping[str, Sequence[Point]]
    across: str
    widest: float
    diagonal: bool = False
    dots: float = 0.0


def draw(panels: Sequence[Panel], up: str) -> str:
    """The panels side by side, with one legend; ``up`` says what y is."""
    width = _LEFT + len(panels) * (_WIDTH + _GAP)
    height = _TOP + _HEIGHT + 66
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<style>{_STYLE}</style>",
        f'<text transform="translate(14 {_TOP + _HEIGHT / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(up)}</text>',
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, _LEFT + number * (_WIDTH + _GAP), labelled=number == 0)
    names = list(panels[0].lines)
    if len(names) > 1:
        for number, name in enumerate(names):
            x, y = _LEFT + number * 170, _TOP + _HEIGHT + 56
            parts.append(
                f'<line x1="{x}" y1="{y - 4}" x2="{x + 22}" y2="{y - 4}" '
                f'stroke="{COLOURS[number]}" stroke-width="2.5"/>'
                f'<text x="{x + 28}" y="{y}">{escape(name)}</text>'
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, left: float, *, labelled: bool) -> list[str]:
    def place(point: Point) -> Point:
        return left + point[0] / panel.widest * _WIDTH, _TOP + (1.0 - point[1]) * _HEIGHT

    parts = [
        f'<text class="title" x="{left + _WIDTH / 2}" y="{_TOP - 12}" '
        f'text-anchor="middle">{escape(panel.title)}</text>'
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        _, y = place((0.0, share))
        kind = "grid" if share else "axis"
        parts.append(_line(kind, left, y, left + _WIDTH, y))
        if labelled:
            parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{share:.0%}</text>')
    for step in range(5):
        share = panel.widest * step / 4
        x, y = place((share, 0.0))
        parts.append(f'<text x="{x}" y="{y + 16}" text-anchor="middle">{share:.0%}</text>')
    parts.append(
        f'<text x="{left + _WIDTH / 2}" y="{_TOP + _HEIGHT + 34}" '
        f'text-anchor="middle">{escape(panel.across)}</text>'
    )
    if panel.diagonal:
        parts.append(_line("axis", *place((0.0, 0.0)), *place((panel.widest, panel.widest))))
    for colour, points in zip(COLOURS, panel.lines.values(), strict=False):
        places = [place(point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>'
        )
        if panel.dots:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{panel.dots}" fill="{colour}"/>'
                for x, y in places
            ]
    return parts


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
