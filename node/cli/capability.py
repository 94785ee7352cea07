"""`swarm capability`, `calibrate` and `grade`: what peers can do, and how that is known."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any, Final

from node.cli.daemon import client, params
from node.cli.text import columns, get_list, get_number, get_text, line, note, print_json
from node.client import ASK_S
from protocol import methods, rpc

_SHORT: Final = 8
_MODEL_CHARS: Final = 16


def show(args: argparse.Namespace) -> int:
    """Print the evidence on all peers, or all of it on one."""
    values = {"peer": args.peer, "topic": args.topic}
    result = client(args).call("capability", params(methods.CapabilityParams, values))
    if args.json:
        print_json(result)
        return 0
    peers = get_list(result, "peers")
    topic = get_text(result, "topic")
    rounds = _number(result, "confidence_rounds")
    print(
        f"{_number(result, 'trials'):.0f} graded rounds; on "
        f"{line(topic) or 'an unknown topic'} the rule is {get_text(result, 'rule')}, "
        + (f"its confidence from {rounds:.0f} rounds." if rounds else "without a confidence.")
    )
    if args.peer is not None and peers:
        _detail(peers[0])
        return 0
    rows = [
        (
            get_text(peer, "peer")[-_SHORT:],
            _state(peer),
            f"{_number(peer, 'trials'):.0f}",
            _share(_part(peer, "answers")),
            _share(_whole(peer)),
            f"{_number(peer, 'weight'):.2f}",
            f"{_number(peer, 'answer_weight'):.2f}",
            line(" ".join(map(str, get_list(peer, "why"))), 60),
        )
        for peer in peers
    ]
    heads = ("PEER", "STATE", "TRIALS", "ANSWERS", "PAIRS", "JUDGES", "ANSWERS AS", "WHY")
    print(columns(heads, rows))
    return 0


def calibrate(args: argparse.Namespace) -> int:
    """Run calibration rounds and print how they went."""

    def watch(event: Mapping[str, Any]) -> None:
        kind, number = get_text(event, "kind"), f"{_number(event, 'number'):.0f}/{args.rounds}"
        if kind == "failed":
            note(f"{number} failed")
        elif kind == "calibrated":
            note(
                f"{number} {line(get_text(event, 'topic')) or 'unknown topic'}: "
                f"{_number(event, 'right'):.0f} of {_number(event, 'answers'):.0f} right"
            )

    result = client(args).call(
        "calibrate",
        params(methods.CalibrateParams, {"rounds": args.rounds}),
        watch,
        silence_s=ASK_S,
    )
    if args.json:
        print_json(result)
        return 0
    done = rpc.convert(result, methods.Calibrated)
    failed = f", {done.failed} failed" if done.failed else ""
    print(
        f"{done.rounds} rounds{failed}: {done.informative} told peers apart, the swarm was right "
        f"in {done.chosen}. {done.admitted} peers are admitted, {done.trials} rounds are known.\n"
        f"It takes {done.quorum} admitted, or all that were not found out, for weights to differ, "
        f"and {done.confidence_rounds} rounds with weights for a confidence."
    )
    return 0


def grade(args: argparse.Namespace) -> int:
    """Make a real question evidence."""
    values = {"round": args.round, "right": args.grade == "right", "answer": args.answer}
    result = client(args).call("grade", params(methods.GradeParams, values))
    if args.json:
        print_json(result)
        return 0
    done = rpc.convert(result, methods.Graded)
    topic = line(done.topic) or "an unknown topic"
    print(
        f"Round {done.round[:_SHORT]} counts as {args.grade} on {topic}: "
        f"evidence on {done.peers} answers and {done.pairs:g} verdicts."
    )
    return 0


def _detail(peer: Any) -> None:
    last = get_number(peer, "last_at")
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(last)) if last else "never"
    test = _part(peer, "test")
    # What a peer claims to run is its own text.
    model = line(get_text(peer, "model"), _MODEL_CHARS) or "–"
    print(f"\n{line(get_text(peer, 'peer'))}  {_state(peer)}, model {model}")
    for reason in get_list(peer, "why"):
        print(f"  {line(str(reason))}")
    print(
        f"weight {_number(peer, 'weight'):.2f} as a judge, "
        f"{_number(peer, 'answer_weight'):.2f} as an answerer; {_share(_part(peer, 'answers'))} "
        f"answers right; last tried {when}\n"
        f"admission: {get_text(test, 'decision')} after {_number(test, 'questions'):.0f} "
        f"questions, ratio {_number(test, 'ratio'):+.2f} of ±{_number(test, 'bound'):.2f}\n"
    )
    curve = [
        (
            f"{_number(row, 'from'):.0%}",
            _share(row),
            f"{_number(row, 'weight'):.2f}",
            f"{_number(row, 'trust'):.0%}",
        )
        for row in get_list(peer, "curve")
    ]
    print(columns(("SAYS FROM", "RIGHT", "WEIGHT", "BELIEVED"), curve))
    topics = _part(peer, "topics")
    if isinstance(topics, Mapping) and topics:
        rows = [
            (
                line(str(name)) or "(unknown)",
                f"{_number(counts, 'rounds'):.1f}",
                _pair(_part(counts, "answers")),
                _pair(_part(counts, "pairs")),
            )
            for name, counts in topics.items()
        ]
        print("\n" + columns(("TOPIC", "ROUNDS", "ANSWERS", "PAIRS"), rows))


def _state(peer: Any) -> str:
    if _part(peer, "struck"):
        return "excluded"
    if _part(peer, "admitted"):
        return "proven" if _part(peer, "proven") else "admitted"
    return "newcomer"


def _whole(peer: Any) -> dict[str, float]:
    rows = get_list(peer, "curve")
    right = sum(_number(row, "right") for row in rows)
    total = sum(_number(row, "total") for row in rows)
    return {"right": right, "total": total}


def _share(found: Any) -> str:
    if not isinstance(found, Mapping):
        return "–"
    return _pair([_number(found, "right"), _number(found, "total")])


def _pair(found: Any) -> str:
    numbers = isinstance(found, list) and all(isinstance(one, (int, float)) for one in found)
    if not numbers or len(found) != 2 or not found[1]:
        return "–"
    return f"{found[0] / found[1]:.0%} of {found[1]:.0f}"


def _part(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _number(value: Any, name: str) -> float:
    return get_number(value, name) or 0.0
