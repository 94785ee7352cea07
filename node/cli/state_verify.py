"""`swarm state verify`: whether logs hold, worked out again from their bytes."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from node.cli.daemon import configuration
from node.cli.logs_on_disk import LogsOnDisk, restored
from node.cli.progress import Progress
from node.cli.text import counted, line, moment, note, print_json, size
from node.config import Config, read_swarm_key
from protocol.bundle import Log, Reader
from protocol.errors import (
    EXIT_ANSWER,
    EXIT_INVALID,
    BundleError,
    DecodeError,
    ProtocolError,
    SwarmError,
    TooLargeError,
    UsageError,
)
from protocol.ids import peer_text
from protocol.ledger import epoch_of
from swarm.ledger.admission import Admission, Certificates
from swarm.ledger.audit import CERTIFICATE, Audit, Keyless, log_of, name_of

_PIECE_BYTES: Final = 1 << 16


def verify(args: argparse.Namespace) -> int:
    """Work out again whether logs hold: of a file, or of the database."""
    settings = configuration(args)
    if args.file is None:
        found = _verify_database(settings)
    elif args.file == "-":
        found = _verify_file(settings, sys.stdin.buffer, args.file)
    else:
        try:
            with Path(args.file).open("rb") as file:
                found = _verify_file(settings, file, args.file)
        except OSError as error:
            raise UsageError(f"{args.file} cannot be read: {error.strerror}.") from error
    report = found.as_json()
    if args.json:
        print_json(report)
    else:
        _print_report(report)
    return EXIT_ANSWER if report["ok"] else EXIT_INVALID


class _Verification:
    """What has been found so far.

    Args:
        swarm: whose logs.
        now: Unix time in seconds at which they are to hold.
    """

    def __init__(self, settings: Config, swarm: str, now: float) -> None:
        key = _key(settings, swarm)
        admission: Admission = Keyless(swarm) if key is None else Certificates(swarm, key)
        self.audit = Audit(swarm, now, admission)
        self._keyless = key is None
        self._swarm = swarm
        self._now = int(now)
        self._problems: list[dict[str, Any]] = []

    def check(self, log: Log) -> None:
        """Check one log."""
        author, epoch = "", 0
        try:
            peer, epoch = name_of(log)
            author = peer_text(peer)
            self.audit.check(log)
        except ProtocolError as error:
            self.complain(author, epoch, error)

    def complain(self, author: str, epoch: int, error: SwarmError) -> None:
        """Something does not hold."""
        text = error.user_text()
        self._problems.append({"peer": author, "epoch": epoch, "code": error.code, "text": text})

    def as_json(self) -> dict[str, Any]:
        """All of it; ``unchecked``: certificates that nobody without the key can check."""
        audit = self.audit
        return {
            "ok": not self._problems,
            "swarm": self._swarm,
            "at": self._now,
            "logs": audit.logs,
            "entries": audit.entries,
            "bytes": audit.bytes,
            "forks": audit.forks,
            "tickets": dict(sorted(audit.tickets.items())),
            "unchecked": audit.tickets[CERTIFICATE] if self._keyless else 0,
            "root": audit.root.hex(),
            "problems": self._problems,
        }


def _verify_file(settings: Config, file: BinaryIO, name: str) -> _Verification:
    try:
        reader = Reader(iter(lambda: file.read(_PIECE_BYTES), b""))
    except (DecodeError, TooLargeError) as error:
        raise BundleError(f"{name}: {error}") from error
    found = _Verification(settings, reader.header.swarm, reader.header.written)
    progress = Progress(os.fstat(file.fileno()).st_size, "bytes")
    try:
        for log in reader:
            found.check(log)
            progress.reach(reader.position)
    except (DecodeError, TooLargeError) as error:
        found.complain("", 0, error)
    progress.end()
    return found


def _verify_database(settings: Config) -> _Verification:
    place = LogsOnDisk(settings)
    now = time.time()
    found = _Verification(settings, place.swarm, now)
    progress = Progress(place.count, "logs")
    for kept in place.kept():
        progress.done()
        # Those of epochs that are over go with the next start of the node.
        if kept.epoch >= epoch_of(now) - 1:
            try:
                replica = restored(kept)
            except ProtocolError as error:
                found.complain(peer_text(kept.author), kept.epoch, error)
            else:
                found.check(log_of(replica, kept.author, kept.epoch))
    progress.end()
    return found


def _print_report(report: Mapping[str, Any]) -> None:
    rows = (
        ("swarm", report["swarm"]),
        ("at", moment(report["at"])),
        (
            "logs",
            f"{report['logs']} hold: {counted(report['entries'], 'entry', 'entries')}, "
            f"{size(report['bytes'])}",
        ),
        ("forks", str(report["forks"])),
        ("tickets", ", ".join(f"{kind} {count}" for kind, count in report["tickets"].items())),
        ("root", report["root"]),
    )
    for name, value in rows:
        print(f"{name:<11}{line(value) or '–'}")
    if report["unchecked"]:
        note(
            f"Not checked: {counted(report['unchecked'], 'certificate')}. That takes the key of "
            "the swarm; name its file with --swarm-key."
        )
    for problem in report["problems"]:
        of = f"{problem['peer']}, epoch {problem['epoch']}: " if problem["peer"] else ""
        note(of + problem["text"])
    if report["ok"]:
        print("What was checked holds." if report["unchecked"] else "Everything holds.")


def _key(settings: Config, swarm: str) -> bytes | None:
    """The key of ``swarm``, if it is known."""
    given = settings.sources["swarm_key"].startswith("flag")
    return read_swarm_key(settings.swarm_key) if given or settings.swarm == swarm else None
