"""`swarm state show | export | import | label`: the logs that a node holds, its own among them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from node import atomic
from node.cli.daemon import client, configuration, params
from node.cli.logs_on_disk import LogsOnDisk
from node.cli.progress import Progress
from node.cli.text import (
    columns,
    counted,
    get_number,
    get_text,
    line,
    moment,
    note,
    print_json,
    size,
)
from protocol import limits, methods, rpc
from protocol.bundle import Header, Log, write
from protocol.errors import EXIT_ANSWER, EXIT_INVALID, UnknownPeerError, UsageError
from protocol.ledger import HINT_DAY_S, epoch_of
from swarm.ledger import describe
from swarm.ledger.audit import log_of
from swarm.ledger.chain import Chain
from swarm.ledger.fingerprint import Fingerprint

IMPORT_SILENCE_S: Final = 60.0
_SHORT: Final = 8
_LABEL_CHARS: Final = 24
_MODEL_CHARS: Final = 24


def show(args: argparse.Namespace) -> int:
    """Print what the database holds of everybody, or all that one author says."""
    place = LogsOnDisk(configuration(args))
    return _show_all(place, args.json) if args.peer is None else _show_one(place, args)


def _show_all(place: LogsOnDisk, as_json: bool) -> int:
    found = Fingerprint(epoch_of(time.time()))

    def summary(chain: Chain) -> dict[str, Any]:
        row = describe.summary(chain)
        found.add(chain)
        return row

    rows = sorted(place.described(summary), key=lambda row: (-row["epoch"], row["peer"]))
    totals = {
        "swarm": place.swarm,
        "epoch": epoch_of(time.time()),
        "authors": len({row["peer"] for row in rows}),
        "entries": sum(row["entries"] for row in rows),
        "bytes": sum(row["bytes"] for row in rows),
        "root": found.root.hex(),
        "damaged": place.damaged,
    }
    if as_json:
        print_json(totals | {"logs": rows})
        return EXIT_ANSWER
    heads = ("PEER", "LABEL", "MODEL", "EPOCH", "ENTRIES", "BYTES", "SINCE", "TICKET", "FORKED")
    print(columns(heads, map(_cells, rows)))
    print(
        f"\n{counted(len(rows), 'log')} of {counted(totals['authors'], 'author')} in the swarm "
        f"{line(place.swarm)}: {_entries(totals['entries'])}, {size(totals['bytes'])}; this is "
        f"epoch {totals['epoch']}\n"
        f"root {totals['root']}"
    )
    return EXIT_ANSWER


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["peer"][-_SHORT:],
        line(row["label"], _LABEL_CHARS) or "–",
        line(row["model"], _MODEL_CHARS) or "–",
        str(row["epoch"]),
        str(row["entries"]),
        size(row["bytes"]),
        moment(row["since"]),
        row["ticket"],
        "–" if row["forked_at"] is None else f"at entry {row['forked_at']}",
    )


def _show_one(place: LogsOnDisk, args: argparse.Namespace) -> int:
    logs = sorted(place.described(_whole, args.peer), key=lambda log: log["epoch"])
    peers = {log["peer"] for log in logs}
    if len(peers) != 1:
        found = f"{len(peers)} authors begin or end" if peers else "No author begins or ends"
        raise UnknownPeerError(
            f"{found} with {args.peer}. `swarm state show` lists the authors on disk; linked peers "
            "without a ticket are in memory alone, see `swarm peers`."
        )
    if args.json:
        print_json({"swarm": place.swarm, "peer": peers.pop(), "logs": logs})
        return EXIT_ANSWER
    for number, log in enumerate(logs):
        label = f", {line(log['label'])}" if log["label"] else ""
        print(
            f"{chr(10) if number else ''}{log['peer']}{label}\n"
            f"epoch {log['epoch']}: {_entries(log['entries'])}, {size(log['bytes'])}, "
            f"ticket: {log['ticket']}"
        )
        rows = [
            (str(one["seq"]), moment(one["at"]), one["kind"], _words(one)) for one in log["said"]
        ]
        print(columns(("ENTRY", "WRITTEN", "KIND", "SAYS"), rows))
        if log["forked_at"] is not None:
            print(f"It has signed two entries {log['forked_at']}. Nothing from there on counts.")
    return EXIT_ANSWER


def _whole(chain: Chain) -> dict[str, Any]:
    """A log in short and each entry."""
    return describe.summary(chain) | {"said": list(describe.entries(chain))}


def _words(entry: Mapping[str, Any]) -> str:
    """What an entry says, on one line."""
    said = [
        f"{name} {'gone' if value is None else _value(value)}"
        for name, value in entry["changed"].items()
    ]
    said += [
        f"hints of {_day(one['day'])}: {counted(one['subjects'], 'peer')}, {size(one['bytes'])}"
        for one in entry["hints"]
    ]
    said += [f"{one['peer'][-_SHORT:]} convicted: {one['offence']}" for one in entry["evidence"]]
    return "; ".join(said) or "nothing new"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(str(one) for one in value.values() if one) or "unknown"
    return str(value) if value != "" else "none"


def _entries(count: int) -> str:
    return counted(count, "entry", "entries")


def _day(day: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(day * HINT_DAY_S))


# --- export, import, label ----------------------------------------------------------------------


def export(args: argparse.Namespace) -> int:
    """Write what the database holds to a file."""
    place = LogsOnDisk(configuration(args))
    now = time.time()
    found = _Exported(epoch_of(now))
    pieces = write(Header(place.swarm, int(now)), found.logs(place))
    if args.file == "-":
        if sys.stdout.isatty():
            raise UsageError("A file of logs is nothing for a terminal; name a file.")
        sys.stdout.buffer.writelines(pieces)
    else:
        path = Path(args.file)
        if path.is_dir():
            raise UsageError(f"{path} is a directory.")
        try:
            atomic.replace_in_pieces(path, pieces)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}.") from error
    summary = {
        "file": args.file,
        "swarm": place.swarm,
        "logs": found.count,
        "entries": found.entries,
        "root": found.print.root.hex(),
        "damaged": place.damaged,
    }
    text = (
        f"{counted(found.count, 'log')} with {_entries(found.entries)} of the swarm {place.swarm}, "
        f"root {summary['root']}"
    )
    if args.file == "-":
        note(text)
    elif args.json:
        print_json(summary)
    else:
        print(line(text))
    return EXIT_INVALID if place.damaged else EXIT_ANSWER


class _Exported:
    """What goes into a file.

    Args:
        epoch: this one and the one before count.
    """

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self.print = Fingerprint(epoch)
        self.count = 0
        self.entries = 0

    def logs(self, place: LogsOnDisk) -> Iterator[Log]:
        """All that is sound."""
        progress = Progress(place.count, "logs")
        for replica in place.replicas():
            progress.done()
            for (author, epoch), chain in replica.chains().items():
                if epoch >= self._epoch - 1:
                    self.print.add(chain)
                    self.count += 1
                    self.entries += len(chain.bodies)
                    yield log_of(replica, author, epoch)
        progress.end()


def take_in(args: argparse.Namespace) -> int:
    """Have the daemon take in a file."""
    if args.file == "-":
        raise UsageError("The daemon reads the file itself; name one.")
    progress: list[Progress] = []

    def watch(event: Mapping[str, Any]) -> None:
        if get_text(event, "kind") == "imported":
            if not progress:
                progress.append(Progress(int(get_number(event, "of") or 0), "bytes"))
            progress[0].reach(int(get_number(event, "bytes") or 0))

    wanted = params(methods.StateImportParams, {"path": str(Path(args.file).absolute())})
    result = client(args).call("state-import", wanted, watch, silence_s=IMPORT_SILENCE_S)
    for one in progress:
        one.end()
    done = rpc.convert(result, methods.StateImported)
    code = EXIT_INVALID if done.damaged else EXIT_ANSWER
    if args.json:
        print_json(result)
        return code
    forks = f", {done.forks} newly known to have forked" if done.forks else ""
    print(
        f"{counted(done.logs, 'log')}: {done.new} with something new "
        f"({_entries(done.entries)}){forks}, "
        f"{done.known} known before"
    )
    if done.refused:
        counts = ", ".join(f"{why} {count}" for why, count in sorted(done.refused.items()))
        note(f"refused: {counts}")
    if done.damaged:
        note(f"the file is damaged, and what follows is lost: {done.damaged}")
    return code


def label(args: argparse.Namespace) -> int:
    """Say what this node is called."""
    text = " ".join(args.text).strip()
    if len(text) > limits.LABEL_CHARS:
        raise UsageError(f"A label has up to {limits.LABEL_CHARS} characters, not {len(text)}.")
    wanted = params(methods.StateLabelParams, {"label": text})
    result = client(args).call("state-label", wanted)
    if args.json:
        print_json(result)
        return EXIT_ANSWER
    done = rpc.convert(result, methods.StateLabelled)
    print(f"This node is called {line(done.label)}." if done.label else "This node has no name.")
    if done.waits:
        note(f"others hear of it later. {done.waits}")
    return EXIT_ANSWER
