"""The recording behind `scripts/record`: progress events of a real round, drawn by the code that
draws them on a terminal, as one SVG that plays them in a loop."""

from __future__ import annotations

import argparse
import io
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from node.backends.bundled import bundled_names
from node.cli.live import draw
from node.cli.view import RoundView
from node.local_swarm import LocalSwarm, Spec
from swarm.verify import verify

QUESTION = "Tom has 47 apples and buys 38 more. How many apples does Tom have now?"
OUT = Path(__file__).resolve().parent.parent / "docs" / "round.svg"
COLUMNS = 84
NODES = 6
SHOWN_S = {"invited": 1.2, "roster": 1.2, "classes": 1.6, "scores": 0.5}
LAST_S = 6.0


def main() -> int:
    """Ask, draw, write."""
    parser = argparse.ArgumentParser(prog="scripts/record")
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    frames: list[tuple[RenderableType, float]] = [(_prompt(options.question), 1.0)]
    view = RoundView()

    def on_progress(event: Mapping[str, Any]) -> None:
        view.fold(event)
        seconds = SHOWN_S.get(event["kind"])
        if seconds is not None:
            frames.append((_screen(options.question, draw(view)), seconds))

    names = bundled_names()[:NODES]
    specs = [Spec(f"bundled:{name}", flags=("--device=cpu", "--threads=1")) for name in names]
    with tempfile.TemporaryDirectory() as folder, LocalSwarm(specs, Path(folder)) as swarm:
        swarm.start(lambda text: print(text, file=sys.stderr))
        asker = swarm.members[0].client
        result = asker.call("ask", {"question": options.question}, on_progress, silence_s=120.0)
        report = verify(Path(result["receipt"]).read_bytes())
    last = [*_answer(result), Text("$ swarm receipt verify RECEIPT", style="bold")]
    last += [Text("✓ " + text, style="green") for text in report.checked[1:]]
    frames.append((_screen(options.question, Group(draw(view), *last)), LAST_S))
    options.out.write_text(_animate(frames))
    print(f"{options.out}: {len(frames)} frames")
    return 0


def _prompt(question: str) -> Text:
    return Text.assemble(("$ swarm ask ", "bold"), f'"{question}"')


def _screen(question: str, shown: RenderableType) -> Group:
    return Group(_prompt(question), Text(), shown)


def _answer(result: Mapping[str, Any]) -> list[Text]:
    return [Text(), Text(str(result["answer"]), style="bold green"), Text()]


def _animate(frames: Sequence[tuple[RenderableType, float]]) -> str:
    """One SVG: every frame an SVG of its own inside it, shown in turn."""
    drawn = [_lines(frame) for frame, _ in frames]
    height = max(text.count("\n") for text in drawn)
    total = sum(seconds for _, seconds in frames)
    parts, start, size = [], 0.0, ""
    for number, (frame, seconds) in enumerate(frames):
        svg = _svg(frame, height, number)
        opening = re.match(r"<svg[^>]*viewBox=\"([^\"]+)\"[^>]*>", svg)
        if opening is None:
            raise SystemExit("rich draws SVG in another way than this script knows")
        size = opening.group(1)
        times = f"0;{start / total:.4f};{(start + seconds) / total:.4f};1"
        # Viewers that do not animate show the last frame.
        still = "visible" if number == len(frames) - 1 else "hidden"
        parts.append(
            f'<g visibility="{still}"><animate attributeName="visibility" calcMode="discrete" '
            f'dur="{total:.1f}s" repeatCount="indefinite" keyTimes="{times}" '
            f'values="hidden;visible;hidden;hidden"/>{svg}</g>'
        )
        start += seconds
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}">'
    return "\n".join([head, *parts, "</svg>", ""])


def _console() -> Console:
    return Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)


def _lines(frame: RenderableType) -> str:
    console = _console()
    console.print(frame)
    return console.export_text()


def _svg(frame: RenderableType, height: int, number: int) -> str:
    console = _console()
    console.print(frame)
    for _ in range(height - console.export_text(clear=False).count("\n")):
        console.print()
    svg = console.export_svg(title="swarm", unique_id=f"f{number}")
    # No fonts from elsewhere: whoever looks has a monospace font.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace")
    return re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL).strip()


if __name__ == "__main__":
    sys.exit(main())
