"""`swarm status`, `peers`, `history` and `config show`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from node.cli.daemon import client, configuration, params
from node.cli.text import columns, counted, line, note, print_json, size
from protocol import methods, rpc

_QUESTION_CHARS = 48
_ANSWER_CHARS = 24
_SHORT = 8


def status(args: argparse.Namespace) -> int:
    """Print how the node is."""
    result = client(args).call("status")
    if args.json:
        print_json(result)
        return 0
    node = rpc.convert(result, methods.Status)
    rows = [
        ("version", node.version),
        ("peer", node.peer),
        ("swarm", node.swarm),
        ("up", _duration(node.uptime_s)),
        ("model", f"{node.model} on {node.device}" if node.device else node.model),
        ("peers", str(node.peers)),
        ("questions", f"{node.asks_running} running, {node.asks_waiting} waiting"),
        ("serving", f"{node.rounds_serving} rounds of others"),
        *(("address", address) for address in node.addresses),
        *_ledger(node.ledger),
    ]
    for name, value in rows:
        print(f"{name:<11}{line(value)}")
    return 0


def _ledger(held: methods.Ledger) -> Iterator[tuple[str, str]]:
    """What `swarm status` says of all logs, each line with its name."""
    guests = f" and {counted(held.guests, 'guest')}" if held.guests else ""
    forked = f", {held.forked} forked" if held.forked else ""
    yield (
        "ledger",
        f"{counted(held.authors, 'author')}{guests}{forked}, "
        f"{counted(held.entries, 'entry', 'entries')}, {size(held.bytes)}, epoch {held.epoch}",
    )
    yield "root", held.root or "–"
    entries = counted(held.own_entries, "entry", "entries")
    yield "own log", f"{entries}, ticket: {held.ticket or 'none'}"
    if held.own_waits:
        yield "waits", held.own_waits
    last = held.last_exchange_s
    ago = "" if last is None else f", the last {_duration(last)} ago"
    yield "exchanges", f"{held.exchanges}{ago}"
    if held.joined:
        agree = {None: "one more is awaited", True: "they agree", False: "they do not agree"}
        yield "joined", f"{' '.join(one[-_SHORT:] for one in held.joined)}: {agree[held.agree]}"
    if held.refused or held.disconnected:
        counts = [f"{reason} {count}" for reason, count in sorted(held.refused.items())]
        cut_off = [f"{counted(held.disconnected, 'peer')} cut off"] if held.disconnected else []
        yield "refused", ", ".join(counts + cut_off)
    if held.moved_aside:
        yield "damaged", f"what the database was is in {held.moved_aside}"


def peers(args: argparse.Namespace) -> int:
    """Print the peers connected now, or all that are known."""
    result = client(args).call("peers", params(methods.PeersParams, {"all": args.all}))
    if args.json:
        print_json(result)
        return 0
    found = rpc.convert(result, methods.Peers).peers
    rows = [
        (
            peer.peer[-_SHORT:],
            peer.label or "–",
            peer.path,
            "–" if peer.rtt_ms is None else f"{peer.rtt_ms:.0f} ms",
            _duration(peer.age_s) if peer.path in ("direct", "relayed") else "–",
            peer.model or "–",
            time.strftime("%Y-%m-%d", time.localtime(peer.since)) if peer.since else "–",
            peer.agent or "–",
            peer.address or "–",
        )
        for peer in found
    ]
    heads = ("PEER", "LABEL", "PATH", "RTT", "UP", "MODEL", "SINCE", "AGENT", "ADDRESS")
    print(columns(heads, rows))
    for peer in found:
        if peer.forked:
            note(f"{peer.peer[-_SHORT:]} contradicts itself in its log, and is not asked")
        if peer.path == "relayed":
            note(f"{peer.peer[-_SHORT:]} is relayed: {peer.why or 'looking for a better way'}")
    return 0


def history(args: argparse.Namespace) -> int:
    """Print the latest questions, newest first."""
    result = client(args).call("history", params(methods.HistoryParams, {"limit": args.limit}))
    if args.json:
        print_json(result)
        return 0
    rows = [
        (
            time.strftime("%Y-%m-%d %H:%M", time.localtime(ask.accepted_at)),
            ask.outcome or ask.state,
            (ask.round or "–")[:_SHORT],
            line(ask.question, _QUESTION_CHARS),
            "–" if ask.answer is None else line(ask.answer, _ANSWER_CHARS),
        )
        for ask in rpc.convert(result, methods.History).asks
    ]
    print(columns(("ASKED", "OUTCOME", "ROUND", "QUESTION", "ANSWER"), rows))
    return 0


def config(args: argparse.Namespace) -> int:
    """Print every configured value and its source."""
    result: Any
    if args.running:
        result = client(args).call("config")
    else:
        rows = tuple(methods.SettingRow(*row) for row in configuration(args).rows())
        result = msgspec.to_builtins(methods.Settings(rows))
    if args.json:
        print_json(result)
        return 0
    settings = rpc.convert(result, methods.Settings).settings
    table = [
        (
            row.key,
            _shown(row.value),
            row.source,
        )
        for row in settings
    ]
    print(columns(("KEY", "VALUE", "SOURCE"), table))
    return 0


def _shown(value: str | int | float | bool | tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    shown = [f"{count} {unit}" for count, unit in parts if count]
    return " ".join(shown[:2]) or "0 s"
