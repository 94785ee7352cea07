"""`swarm ask`: one question, shown live on a terminal; piped, the answer alone."""

from __future__ import annotations

import argparse
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from node.cli.daemon import client, params
from node.cli.text import clean, get_list, get_number, get_text, line, note, percent, print_json
from node.client import ASK_S, Client
from protocol import errors, limits
from protocol.errors import SwarmError, UsageError
from protocol.methods import AskId, AskParams, CancelParams

Show = Callable[[Mapping[str, Any]], None]
"""Shows one progress event."""

_OUTCOMES: Final[Mapping[str, tuple[int, str]]] = {
    "answer": (errors.EXIT_ANSWER, ""),
    "no-consensus": (
        errors.EXIT_NO_CONSENSUS,
        "No consensus: the judges do not tell the best answers apart.",
    ),
    "partial": (
        errors.EXIT_PARTIAL,
        "Fewer peers answered than were asked for.",
    ),
    "no-peers": (errors.EXIT_NO_PEERS, "Not enough peers answered."),
    "none-right": (
        errors.EXIT_NONE_RIGHT,
        "The judges hold that none of the answers is right.",
    ),
    "cancelled": (errors.EXIT_CANCELLED, "The question was cancelled."),
}
_SHORT: Final = 8


class _Interrupts:
    """Ctrl-C while a question is under way.

    The daemon can cancel a question only by its name, so the first Ctrl-C waits for the name,
    which follows at once; a second one does not.
    """

    def __init__(self) -> None:
        self.ask = ""
        self._pending = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """SIGINT arrived."""
        if self.ask or self._pending:
            raise KeyboardInterrupt
        self._pending = True

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Learn the question's name from the daemon's first event."""
        if get_text(event, "kind") == "accepted":
            self.ask = get_text(event, "ask")
            if self._pending:
                raise KeyboardInterrupt

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle SIGINT here for the time of the block."""
        before = signal.signal(signal.SIGINT, self.on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def run(args: argparse.Namespace) -> int:
    """Ask, show, and return the exit code of the outcome."""
    values = {
        "question": _question(args.question),
        "timeout_s": args.timeout,
        "min_answers": args.min_answers,
        "peers": args.peers,
        "answer_tokens": args.max_tokens,
        "energy_j": args.energy,
        "stop_at": args.stop,
    }
    asked = params(AskParams, values)
    daemon = client(args)
    interrupts = _Interrupts()
    live = sys.stdout.isatty() and not args.json
    try:
        with interrupts.caught(), _display(live) as show:

            def on_progress(event: Mapping[str, Any]) -> None:
                interrupts.on_event(event)
                show(event)

            result = daemon.call("ask", asked, on_progress, silence_s=ASK_S)
    except KeyboardInterrupt:
        _cancel(daemon, interrupts.ask)
        return errors.EXIT_CANCELLED
    if args.stop is not None and get_number(result, "confidence") is None:
        note("--stop had no effect: there is no confidence here yet, see `swarm calibrate`.")
    return _print(result, args.json, live)


def _question(words: list[str]) -> str:
    if words != ["-"]:
        question = " ".join(words)
        if not question.strip():
            raise UsageError("The question is empty.")
        return question
    data = sys.stdin.buffer.read(limits.QUESTION_BYTES + 2)
    try:
        return data.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UsageError("The question on stdin is not UTF-8 text.") from error


@contextmanager
def _display(live: bool) -> Iterator[Show]:
    if live:
        from node.cli.live import LiveRound

        with LiveRound() as shown:
            yield shown.show
    else:
        yield lambda event: None


def _cancel(daemon: Client, ask: str) -> None:
    if not ask:
        note("Interrupted before the daemon named the question; `swarm history` may list it.")
        return
    try:
        result = daemon.call("cancel", CancelParams(AskId(ask)))
    except SwarmError as error:
        note(f"It may run on, for cancelling failed. {error.user_text()}")
        return
    ended = isinstance(result, dict) and result.get("cancelled") is False
    note("The question had already ended: see `swarm history`." if ended else "Cancelled.")


def _print(result: Any, as_json: bool, live: bool) -> int:
    outcome = get_text(result, "outcome")
    code, remark = _OUTCOMES.get(outcome, (errors.EXIT_DAEMON, f"The outcome is {outcome!r}."))
    given = get_number(result, "exit_code")
    if isinstance(given, int) and 0 <= given <= 255:
        code = given
    answer = result.get("answer") if isinstance(result, dict) else None
    if code == errors.EXIT_NO_PEERS:
        remark = _OUTCOMES["no-peers"][1]
    if outcome == "partial":
        remark += "".join(f" {reason}." for reason in _reasons(result))
    if as_json:
        print_json(result)
    elif live:
        _print_for_person(result, answer, remark)
    else:
        if isinstance(answer, str):
            # As the peer wrote it, for a program reads this.
            print(answer)
        if remark:
            note(remark)
            if get_text(result, "plurality"):
                note(f"Most peers gave: {get_text(result, 'plurality')}")
            if get_text(result, "receipt"):
                note(f"Why: swarm why {line(get_text(result, 'receipt'))}")
    return code


def _reasons(result: Any) -> list[str]:
    """Why answers are missing, equal reasons counted."""
    found = Counter(
        line(f"{get_text(row, 'kind')} ({get_text(row, 'detail')})", 120)
        for row in get_list(result, "missing")
    )
    return [f"{count} {reason}" for reason, count in found.items()]


def _print_for_person(result: Any, answer: object, remark: str) -> None:
    if isinstance(answer, str):
        print(f"\n{clean(answer)}\n")
    if remark:
        note(remark)
    facts = []
    confidence = get_number(result, "confidence")
    if confidence is not None:
        facts.append(f"confidence {percent(confidence)}")
    elif isinstance(answer, str):
        facts.append("confidence not calibrated yet")
    share = get_number(result, "share")
    if share is not None:
        facts.append(f"share {percent(share)}")
    answers, missing = get_list(result, "answers"), get_list(result, "missing")
    facts.append(f"{len(answers)} answered")
    if missing:
        facts.append(f"{len(missing)} missing")
    total = get_number(result.get("timing"), "total_ms") if isinstance(result, dict) else None
    if total is not None:
        facts.append(f"{total / 1000:.1f} s")
    print(" · ".join(facts))
    for name in ("plurality", "unweighted"):
        other = get_text(result, name)
        if other and other != answer:
            print(f"{name}: {line(other, 80)}")
    for row in missing:
        words = (get_text(row, name) for name in ("phase", "kind", "detail"))
        print(f"missing {line(get_text(row, 'peer')[-_SHORT:])}: {line(' '.join(words))}")
    if get_text(result, "receipt"):
        print(f"receipt {line(get_text(result, 'receipt'))}")
        print(f"why: swarm why {line(get_text(result, 'receipt'))}")
