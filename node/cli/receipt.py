"""`swarm receipt show | verify | replay`: what a receipt file says, and whether it holds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from node.cli.text import line, note, print_json
from protocol import limits
from protocol.errors import EXIT_ANSWER, EXIT_INVALID, ReceiptError, UsageError


def show(args: argparse.Namespace) -> int:
    """Print what the receipt says, believing it."""
    from swarm.verify import describe

    found = describe(_read(args.file))
    if args.json:
        print_json(found)
        return EXIT_ANSWER
    for name, value in found.items():
        if isinstance(value, (list, tuple)):
            print(f"{line(name)}:")
            _print_lines(f"  {item}" for item in value)
        else:
            print(f"{line(name)}: {line(str(value))}")
    return EXIT_ANSWER


def verify(args: argparse.Namespace) -> int:
    """Check signatures, schedule and arithmetic."""
    from swarm.verify import verify

    report = verify(_read(args.file))
    if args.json:
        print_json(report.as_json())
    else:
        _print_lines(report.lines)
        _complain(report.problems)
    return EXIT_ANSWER if report.ok else EXIT_INVALID


def replay(args: argparse.Namespace) -> int:
    """Compute the winner again from the ballots."""
    from swarm.verify import replay

    found = replay(_read(args.file))
    if args.json:
        print_json(found.as_json())
    else:
        print(f"winner: {'none' if found.winner is None else line(found.winner)}")
        _print_lines(str(score) for score in found.scores)
        _complain(found.problems)
    return EXIT_ANSWER if found.ok else EXIT_INVALID


def _read(name: str) -> bytes:
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


def _print_lines(lines: Iterable[str]) -> None:
    for text in lines:
        print(line(text))


def _complain(problems: Iterable[str]) -> None:
    for problem in problems:
        note(problem)
