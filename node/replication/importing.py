"""Takes in a file of logs, slice by slice, as if a peer had sent it."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Final

import trio

from node.rpc_server import Notify
from protocol import methods
from protocol.bundle import Log, Reader
from protocol.errors import (
    BundleError,
    BusyError,
    DecodeError,
    SwarmError,
    TooLargeError,
    UsageError,
)
from protocol.ids import PeerId
from protocol.ledger import Fork, Run
from protocol.methods import AskId, Progress
from swarm.ledger.steps import Outcome

LOGS_AT_ONCE: Final = 16
PIECE_BYTES: Final = 64 << 10

TakeIn = Callable[[Iterable[Run], Iterable[Fork], PeerId | None], Awaitable[list[Outcome]]]
"""Takes runs and proofs of no peer; what became of each, proofs first."""


class Importer:
    """Answers ``state-import``, one file at a time.

    Args:
        take: where logs go.
        swarm: whose logs.
    """

    def __init__(self, take: TakeIn, swarm: str) -> None:
        self._take = take
        self._swarm = swarm
        self._running = False

    async def take_file(
        self, params: methods.StateImportParams, notify: Notify
    ) -> methods.StateImported:
        """Take in the file that ``params`` name.

        Raises:
            UsageError: it cannot be read, or is of another swarm.
            BundleError: it is no file of logs.
            BusyError: another one is being taken in.
        """
        if self._running:
            raise BusyError("Another file is being taken in.")
        self._running = True
        try:
            return await self._take_in(Path(params.path), notify)
        finally:
            self._running = False

    async def _take_in(self, path: Path, notify: Notify) -> methods.StateImported:
        with await trio.to_thread.run_sync(_open, path) as file:
            source = await trio.to_thread.run_sync(_Source, file)
            if source.swarm != self._swarm:
                raise UsageError(
                    f"{path} holds the logs of the swarm {source.swarm}; this node is in "
                    f"{self._swarm}."
                )
            done = _Tally()
            while logs := await trio.to_thread.run_sync(source.next):
                forks = [log.fork for log in logs if log.fork is not None]
                runs = [log.run for log in logs if log.run is not None]
                outcomes = await self._take(runs, forks, None)
                done.count(logs, outcomes[: len(forks)], outcomes[len(forks) :])
                event = {"kind": "imported", "bytes": source.position, "of": source.size}
                notify(Progress(AskId(""), event))
            return done.result(source.damage)


class _Source:
    """The logs of a file, a few at a time. Works in a thread.

    Attributes:
        swarm: whose logs.
        size: of the file in bytes.
        position: how much of it has been read.
        damage: why there is not more to come; empty where that was all.
    """

    def __init__(self, file: BufferedReader) -> None:
        self.size = os.fstat(file.fileno()).st_size
        try:
            self._reader = Reader(iter(lambda: file.read(PIECE_BYTES), b""))
        except (DecodeError, TooLargeError) as error:
            raise BundleError(str(error)) from error
        except OSError as error:
            raise UsageError(f"{file.name} cannot be read: {error.strerror}.") from error
        self.swarm = self._reader.header.swarm
        self._logs = iter(self._reader)
        self.damage = ""

    @property
    def position(self) -> int:
        return self._reader.position

    def next(self) -> list[Log]:
        """The next logs; none once there are no more."""
        logs: list[Log] = []
        try:
            # What comes before an error is kept.
            logs.extend(islice(self._logs, LOGS_AT_ONCE))
        except (DecodeError, TooLargeError) as error:
            self.damage = str(error)
        except OSError as error:
            self.damage = f"{error.strerror}."
        return logs


class _Tally:
    """Counts what became of logs."""

    def __init__(self) -> None:
        self._logs = self._new = self._known = self._entries = self._forks = 0
        self._refused: Counter[str] = Counter()

    def count(self, logs: Iterable[Log], forks: list[Outcome], runs: list[Outcome]) -> None:
        """Count in ``logs``, whose proofs and runs have these outcomes, in order."""
        proofs, entries = iter(forks), iter(runs)
        for log in logs:
            outcomes = [next(proofs)] if log.fork is not None else []
            if log.run is not None:
                outcomes.append(next(entries))
            self._logs += 1
            changes = [one for one in outcomes if not isinstance(one, SwarmError)]
            refused = {one.code for one in outcomes if isinstance(one, SwarmError)}
            self._refused.update(refused)
            if any(changes):
                self._new += 1
            elif not refused:
                self._known += 1
            self._entries += sum(len(one.entries) for one in changes)
            self._forks += any(one.forked for one in changes)

    def result(self, damage: str) -> methods.StateImported:
        """All of it."""
        return methods.StateImported(
            logs=self._logs,
            new=self._new,
            known=self._known,
            entries=self._entries,
            forks=self._forks,
            refused=dict(sorted(self._refused.items())),
            damaged=damage,
        )


def _open(path: Path) -> BufferedReader:
    """A file, and not something that one could wait for without end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path} cannot be read: {why}.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"{path} is no file.")
    return os.fdopen(descriptor, "rb")
