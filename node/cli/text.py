"""Text for terminals: made harmless, and lined up.

Answers, model names and reasons come from strangers. Control characters in them could move the
cursor, recolour or retitle the terminal; bidirectional controls could reorder what is read.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any
from unicodedata import east_asian_width

_CONTROLS = [
    *range(0x20),
    *range(0x7F, 0xA0),
    0x061C,
    *range(0x200B, 0x2010),
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
    0xFEFF,
]
_HARMLESS = dict.fromkeys(_CONTROLS, "�")
_ONE_LINE = _HARMLESS | {ord("\n"): " ", ord("\r"): " ", ord("\t"): " "}
_SEVERAL_LINES = _HARMLESS | {ord("\n"): "\n", ord("\t"): "    "}


def clean(text: str) -> str:
    """``text`` with its lines, and nothing else that a terminal would obey."""
    return text.replace("\r\n", "\n").translate(_SEVERAL_LINES)


def line(text: str, most: int = 0) -> str:
    """``text`` on one line, cut to ``most`` characters where that is given."""
    flat = text.replace("\r\n", "\n").translate(_ONE_LINE)
    return flat if not most or len(flat) <= most else flat[: most - 1] + "…"


def columns(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A plain table: two spaces between columns, each as wide as its widest cell."""
    table = [tuple(heads), *(tuple(line(cell) for cell in row) for row in rows)]
    widths = [max(map(_cells, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell + " " * (width - _cells(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in table
    )


def size(count: int) -> str:
    """``123456`` bytes as ``121 KiB``."""
    for unit in ("B", "KiB", "MiB"):
        if count < 10_000:
            return f"{count} {unit}"
        count = round(count / 1024)
    return f"{count} GiB"


def counted(count: int, one: str, more: str = "") -> str:
    """``1 peer``, ``2 peers``; ``more`` is the plural where it takes more than an s."""
    return f"{count} {one if count == 1 else more or one + 's'}"


def moment(at: float | None) -> str:
    """A Unix time in seconds, to the minute and as local time; None as a dash."""
    return "–" if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def print_json(value: object) -> None:
    """``value`` as indented JSON, in ASCII: safe in every encoding and terminal."""
    print(json.dumps(value, indent=2))


def note(text: str) -> None:
    """A line for the person, on stderr."""
    print(f"swarm: {line(text)}", file=sys.stderr)


def _cells(text: str) -> int:
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


# --- JSON that may lack anything ----------------------------------------------------------------


def get_text(value: Any, name: str) -> str:
    """The text ``name`` of a JSON object, or ""."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def get_number(value: Any, name: str) -> float | None:
    """The number ``name`` of a JSON object, or None."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, (int, float)) and not isinstance(found, bool) else None


def get_list(value: Any, name: str) -> list[Any]:
    """The array ``name`` of a JSON object, or an empty one."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def percent(share: float | None) -> str:
    """``0.873`` as ``87 %``; None as a dash."""
    return "–" if share is None else f"{100 * share:.0f} %"
