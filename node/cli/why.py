"""`swarm why`: the judged pairs of a round, how close it was, who dissented, what would flip it."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from node.cli.daemon import client, params
from node.cli.receipt import read_receipt
from node.cli.text import columns, get_list, get_number, get_text, line, percent, print_json
from protocol.errors import UsageError
from protocol.methods import WhyParams

_ANSWER_CHARS = 60
_PEER_CHARS = 8
_CANNOT_TELL = 0.45
"""A judge that gives the winner less than this dissents; from here to even it cannot tell."""
_ROUND = re.compile(r"[0-9a-f]{4,64}")


def run(args: argparse.Namespace) -> int:
    """Print why a round chose its answer: from a receipt file, or from the daemon that asked."""
    if Path(args.round).is_file():
        from swarm.explain import explain

        result: Any = explain(read_receipt(args.round))
    elif _ROUND.fullmatch(args.round.lower()):
        result = client(args).call("why", params(WhyParams, {"round": args.round.lower()}))
    else:
        raise UsageError(
            f"{args.round!r} is neither a receipt file nor a round id (4 to 64 hex digits; "
            "`swarm history` lists them)."
        )
    if args.json:
        print_json(result)
    else:
        print("\n".join(explanation(result)))
    return 0


def explanation(result: Any) -> list[str]:
    """The lines for a person; parts that ``result`` lacks are left out."""
    out = [
        f"{name:<9} {line(get_text(result, name))}"
        for name in ("round", "question", "rule", "outcome")
        if get_text(result, name)
    ]
    confidence = get_number(result, "confidence")
    if confidence is not None:
        out.append(f"confidence {percent(confidence)}")
    classes = get_list(result, "classes")
    labels = [get_text(row, "label") or str(index + 1) for index, row in enumerate(classes)]
    if classes:
        rows = [
            (
                label,
                _decimal(get_number(row, "score")),
                percent(get_number(row, "share")),
                str(len(get_list(row, "members"))),
                line(get_text(row, "answer"), _ANSWER_CHARS),
            )
            for label, row in zip(labels, classes, strict=True)
        ]
        out += ["", columns(("CLASS", "SCORE", "SHARE", "PEERS", "ANSWER"), rows)]
    out += _matrix(labels, get_list(result, "matrix"))
    out += _verdict(result)
    out += _judges(get_list(result, "judges"))
    out += failures(get_list(result, "faults"))
    return out


def failures(faults: list[Any]) -> list[str]:
    """A table of who failed and how."""
    rows = [
        (
            line(get_text(row, "peer")[-_PEER_CHARS:]),
            line(get_text(row, "phase")),
            line(get_text(row, "kind")),
            line(get_text(row, "detail"), _ANSWER_CHARS),
        )
        for row in faults
    ]
    return ["", columns(("FAILED", "PHASE", "HOW", "DETAIL"), rows)] if rows else []


def _matrix(labels: list[str], matrix: list[Any]) -> list[str]:
    rows = [
        (label, *(_decimal(cell) for cell in cells))
        for label, cells in zip(labels, matrix, strict=False)
        if isinstance(cells, list) and len(cells) == len(labels)
    ]
    if not rows:
        return []
    table = columns(("", *labels), rows)
    return ["", "Judged probability that the row's answer is right, the column's is not:", table]


def _verdict(result: Any) -> list[str]:
    out = []
    margin = get_number(result, "margin")
    if margin is not None:
        out.append(f"Margin of the first over the second: {margin:.3f}.")
    for name, what in (("plurality", "Most peers gave"), ("unweighted", "Without weights")):
        if get_text(result, name):
            out.append(f"{what}: {line(get_text(result, name), _ANSWER_CHARS)}")
    flip = result.get("flip") if isinstance(result, dict) else None
    if isinstance(flip, dict):
        ballots = get_number(flip, "ballots")
        if ballots is None:
            out.append("Turning ballots round does not change it.")
        else:
            to = line(get_text(flip, "to"), _ANSWER_CHARS)
            out.append(f"Ballots turned round that change it: {ballots:.0f}, to: {to}")
    return ["", *out] if out else []


def _judges(judges: list[Any]) -> list[str]:
    if not judges:
        return []
    rows = []
    dissent = 0
    for judge in judges:
        share = get_number(judge, "for_winner")
        dissents = share is not None and share < _CANNOT_TELL
        dissent += dissents
        rows.append(
            (
                line(get_text(judge, "peer")[-_PEER_CHARS:]),
                get_text(judge, "model") or "–",
                get_text(judge, "own") or "–",
                _decimal(get_number(judge, "weight")),
                _decimal(share),
                f"{get_number(judge, 'abstained') or 0:.0f}",
                "dissents" if dissents else "",
            )
        )
    table = columns(("JUDGE", "MODEL", "OWN", "WEIGHT", "FOR WINNER", "ABSTAINED", ""), rows)
    return ["", table, f"{dissent} of {len(judges)} judges dissent."]


def _decimal(value: object) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f"{value:.2f}" if number else "–"
