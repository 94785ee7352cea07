"""`swarm receipt show | verify | replay`: what a receipt file says, and whether it holds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from node.cli.text import (
    columns,
    get_list,
    get_number,
    get_text,
    line,
    note,
    percent,
    print_json,
)
from protocol import limits
from protocol.errors import EXIT_ANSWER, EXIT_INVALID, ReceiptError, UsageError

_PEER_CHARS = 8


def show(args: argparse.Namespace) -> int:
    """Print what the receipt says, believing it."""
    from swarm.explain import describe

    found = describe(read_receipt(args.file))
    if args.json:
        print_json(found)
        return EXIT_ANSWER
    for name, value in found.items():
        if not isinstance(value, list):
            print(f"{name:<11}{'–' if value is None else line(str(value))}")
    classes = [
        (get_text(row, "label"), percent(get_number(row, "share")), peers, get_text(row, "answer"))
        for row in get_list(found, "classes")
        for peers in [" ".join(_tail(member) for member in get_list(row, "members"))]
    ]
    if classes:
        print(f"\n{columns(('CLASS', 'SHARE', 'PEERS', 'ANSWER'), classes)}")
    faults = [
        (_tail(row), get_text(row, "phase"), get_text(row, "kind"), get_text(row, "detail"))
        for row in get_list(found, "faults")
    ]
    if faults:
        print(f"\n{columns(('FAILED', 'PHASE', 'KIND', 'DETAIL'), faults)}")
    return EXIT_ANSWER


def verify(args: argparse.Namespace) -> int:
    """Check signatures, schedule and arithmetic."""
    from swarm.verify import verify

    report = verify(read_receipt(args.file))
    if args.json:
        print_json(report.as_json())
    else:
        _print_lines(report.lines)
        _complain(report.problems)
        if report.ok:
            print("The receipt holds.")
    return EXIT_ANSWER if report.ok else EXIT_INVALID


def replay(args: argparse.Namespace) -> int:
    """Compute the winner again from the ballots."""
    from swarm.replay import replay

    found = replay(read_receipt(args.file))
    if args.json:
        print_json(found.as_json())
    else:
        print(f"winner: {'none' if found.winner is None else line(found.winner)}")
        print(f"outcome: {found.outcome}")
        for score in get_list(found.as_json(), "scores"):
            print(f"score: {score:.6f}")
        _complain(found.problems)
    return EXIT_ANSWER if found.ok else EXIT_INVALID


def read_receipt(name: str) -> bytes:
    """The bytes of a receipt file, or of stdin for ``-``.

    Raises:
        UsageError: it cannot be read.
        ReceiptError: it is larger than a receipt can be.
    """
    try:
        if name == "-":
            data = sys.stdin.buffer.read(limits.RECEIPT_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(limits.RECEIPT_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{name} cannot be read: {reason}.") from error
    if len(data) > limits.RECEIPT_BYTES:
        raise ReceiptError(f"{name} has more than {limits.RECEIPT_BYTES} bytes.")
    return data


def _tail(row: object) -> str:
    return get_text(row, "peer")[-_PEER_CHARS:]


def _print_lines(lines: Iterable[str]) -> None:
    for text in lines:
        print(line(text))


def _complain(problems: Iterable[str]) -> None:
    for problem in problems:
        note(problem)
