"""What the node must not forget: accepted questions and receipts, on disk in the data directory.

SQLite with a write-ahead log and ``synchronous=FULL`` (a commit has reached the disk when it
returns), used from one worker thread at a time. Writes are shielded from cancellation, so a
cancelled task never leaves half of one; their wait is bounded by SQLite's busy timeout.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

import msgspec
import trio

from node import atomic, peer_records, trial_records
from protocol import limits, methods
from protocol.errors import BusyError, StoreError, UnknownRoundError
from protocol.ids import RoundId
from protocol.methods import AskId, AskParams, HistoryRow
from protocol.rpc import ErrorObject

T = TypeVar("T")
State = Literal["accepted", "running", "done", "failed", "cancelled"]

DATABASE: Final = "swarmd.db"
RECEIPTS: Final = "receipts"
REHEARSAL: Final = "rehearsal"
_BUSY_S: Final = 5.0
_SCHEMA: Final = """
CREATE TABLE asks (
    id TEXT PRIMARY KEY,
    question TEXT NOT NULL,
    params TEXT NOT NULL,
    accepted_at REAL NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'accepted'
        CHECK (state IN ('accepted', 'running', 'done', 'failed', 'cancelled')),
    round BLOB,
    result TEXT,
    error TEXT,
    finished_at REAL
) STRICT;
CREATE INDEX asks_open ON asks (state) WHERE state IN ('accepted', 'running');
CREATE TABLE receipts (
    round BLOB PRIMARY KEY,
    ask TEXT NOT NULL REFERENCES asks (id),
    path TEXT NOT NULL,
    created_at REAL NOT NULL
) STRICT;
"""
_MIGRATIONS: Final = (_SCHEMA, peer_records.SCHEMA, trial_records.SCHEMA, peer_records.FOUND)
"""What each version of the schema adds to the one before it."""
_BEFORE: Final[dict[State, tuple[State, ...]]] = {
    "running": ("accepted", "running"),  # again after a restart: another attempt
    "done": ("accepted", "running"),
    "failed": ("accepted", "running"),
    "cancelled": ("accepted", "running"),
}
"""From which states a question may come to each state. The last three are final."""


@dataclass(frozen=True, slots=True)
class AskRecord:
    """One accepted question.

    Attributes:
        id: its name at this node.
        params: the question and what was asked with it.
        accepted_at: Unix time in seconds.
        attempt: rounds begun for it; more than one after a restart.
        state: accepted and running are open, the others final.
        round: of the latest attempt, None before the first.
        result: the coordinator's result object, once done.
        error: why it ended, once failed.
        finished_at: Unix time in seconds, None while open.
    """

    id: AskId
    params: AskParams
    accepted_at: float
    attempt: int
    state: State
    round: RoundId | None
    result: dict[str, Any] | None
    error: ErrorObject | None
    finished_at: float | None


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """A round this node asked for.

    Attributes:
        round: its id.
        ask: the question it was for.
        receipt: the receipt file; None where the round has none (yet).
    """

    round: RoundId
    ask: AskId
    receipt: Path | None


class Store:
    """The node's database and receipt files. Every method raises StoreError where the disk fails.

    Made by :meth:`open`. The data directory's lock must be held.
    """

    def __init__(
        self, data_dir: Path, database: sqlite3.Connection, clock: Callable[[], float]
    ) -> None:
        self._dir = data_dir
        self._database = database
        self._clock = clock
        self._one = trio.CapacityLimiter(1)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, data_dir: Path, clock: Callable[[], float] = time.time
    ) -> AsyncIterator[Store]:
        """The store in ``data_dir``, made where missing, closed at the end of the block.

        Args:
            data_dir: an existing directory.
            clock: gives Unix time in seconds.

        Raises:
            StoreError: it is damaged, not ours, or of a newer swarmd.
        """
        database = await trio.to_thread.run_sync(_open, data_dir)
        store = cls(data_dir, database, clock)
        try:
            yield store
        finally:
            await store._write(database.close)

    # --- questions ----------------------------------------------------------------------------

    async def accept(self, ask: AskId, params: AskParams) -> AskRecord:
        """Put a question on disk. Once this returns, it survives whatever happens to the node.

        Raises:
            BusyError: ``limits.ASKS_QUEUED`` questions are open.
        """

        def work() -> AskRecord:
            (count,) = self._database.execute(
                "SELECT count(*) FROM asks WHERE state IN ('accepted', 'running')"
            ).fetchone()
            if count >= limits.ASKS_QUEUED:
                raise BusyError(f"{count} questions wait, which is the limit.")
            self._database.execute(
                "INSERT INTO asks (id, question, params, accepted_at) VALUES (?, ?, ?, ?)",
                (ask, params.question, _json(params), self._clock()),
            )
            return self._get(ask)

        return await self._commit(work)

    async def mark_running(self, ask: AskId, round_id: RoundId) -> bool:
        """An attempt begins. False where the question has already ended."""
        return await self._move(ask, "running", "attempt = attempt + 1, round = ?", bytes(round_id))

    async def finish(self, ask: AskId, result: dict[str, Any]) -> bool:
        """Keep the result object of a round. False where the question has already ended."""
        return await self._end(ask, "done", "result", _json(result))

    async def fail(self, ask: AskId, error: ErrorObject) -> bool:
        """Keep the error that ended it. False where the question has already ended."""
        return await self._end(ask, "failed", "error", _json(error))

    async def cancel(self, ask: AskId) -> bool:
        """The asker wants no answer any more. False where the question has already ended."""
        return await self._end(ask, "cancelled", "error", None)

    async def unfinished(self) -> list[AskRecord]:
        """The open questions, oldest first: what to take up again after a restart."""
        return await self._asks("WHERE state IN ('accepted', 'running') ORDER BY rowid")

    async def history(self, limit: int) -> list[HistoryRow]:
        """The latest ``limit`` questions, newest first, long texts cut to excerpts."""

        def work() -> list[HistoryRow]:
            found = self._database.execute(_HISTORY, (methods.EXCERPT_CHARS + 1, limit))
            return [_history_row(*row) for row in found]

        return await self._read(work)

    async def questions(self, limit: int) -> list[str]:
        """The latest ``limit`` questions in full, oldest first."""

        def work() -> list[str]:
            found = self._database.execute(
                "SELECT question FROM asks ORDER BY rowid DESC LIMIT ?", (limit,)
            )
            return [question for (question,) in found][::-1]

        return await self._read(work)

    async def get(self, ask: AskId) -> AskRecord | None:
        """One question, or None."""
        found = await self._asks("WHERE id = ?", ask)
        return found[0] if found else None

    # --- rounds and receipts --------------------------------------------------------------------

    async def find_round(self, prefix: str) -> RoundRecord:
        """The round whose hex id begins with ``prefix``.

        Raises:
            UnknownRoundError: there is none, or more than one.
        """
        if not 0 < len(prefix) <= 64 or not set(prefix) <= set("0123456789abcdef"):
            raise UnknownRoundError(f"A round id is up to 64 hex digits, and {prefix!r} is not.")
        low, high = (bytes.fromhex(prefix.ljust(64, fill)) for fill in "0f")

        def work() -> list[tuple[bytes, str, str | None]]:
            return self._database.execute(
                "SELECT round, ask, path FROM receipts WHERE round BETWEEN ?1 AND ?2 UNION ALL "
                "SELECT round, id, NULL FROM asks WHERE round BETWEEN ?1 AND ?2 AND round NOT IN "
                "(SELECT round FROM receipts) ORDER BY round LIMIT 2",
                (low, high),
            ).fetchall()

        found = await self._read(work)
        if not found:
            raise UnknownRoundError(f"None begins with {prefix}.")
        if len(found) > 1:
            raise UnknownRoundError(f"More than one begins with {prefix}; give more digits.")
        round_id, ask, path = found[0]
        return RoundRecord(RoundId(round_id), AskId(ask), self._dir / path if path else None)

    async def put_receipt(self, round_id: RoundId, ask: AskId, data: bytes) -> Path:
        """Write the receipt file of a round, whole or not at all, and return its path."""
        name = f"{RECEIPTS}/{round_id.hex()}.receipt"

        def work() -> Path:
            atomic.replace(self._dir / name, data)
            self._database.execute(
                "INSERT OR REPLACE INTO receipts VALUES (?, ?, ?, ?)",
                (bytes(round_id), ask, name, self._clock()),
            )
            return self._dir / name

        return await self._commit(work)

    async def rehearse_receipt(self, data: bytes) -> None:
        """Take the time of :meth:`put_receipt`, and keep nothing: the next one overwrites it."""

        def work() -> None:
            atomic.replace(self._dir / RECEIPTS / REHEARSAL, data)
            self._database.execute(
                "INSERT OR REPLACE INTO rehearsal VALUES (1, ?, ?)", (REHEARSAL, self._clock())
            )

        await self._commit(work)

    # --- one thread, whole transactions -----------------------------------------------------------

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do ``work``, of which all or nothing is on disk when this returns."""
        return await self._commit(lambda: work(self._database))

    async def _end(self, ask: AskId, state: State, column: str, value: str | None) -> bool:
        return await self._move(ask, state, f"{column} = ?, finished_at = ?", value, self._clock())

    async def _move(self, ask: AskId, state: State, assign: str, *values: object) -> bool:
        before = _BEFORE[state]
        marks = ", ".join("?" * len(before))

        def work() -> bool:
            found = self._database.execute(
                f"UPDATE asks SET state = ?, {assign} WHERE id = ? AND state IN ({marks})",
                (state, *values, ask, *before),
            )
            return found.rowcount == 1

        return await self._commit(work)

    async def _asks(self, tail: str, *values: object) -> list[AskRecord]:
        def work() -> list[AskRecord]:
            return [_record(row) for row in self._database.execute(_SELECT + tail, values)]

        return await self._read(work)

    def _get(self, ask: AskId) -> AskRecord:
        return _record(self._database.execute(_SELECT + "WHERE id = ?", (ask,)).fetchone())

    async def _commit(self, work: Callable[[], T]) -> T:
        def transaction() -> T:
            # BEGIN IMMEDIATE: what the work reads cannot change before it writes.
            self._database.execute("BEGIN IMMEDIATE")
            try:
                value = work()
                self._database.execute("COMMIT")
            except BaseException:
                # A failed COMMIT may or may not have ended the transaction.
                if self._database.in_transaction:
                    with suppress(sqlite3.Error):
                        self._database.execute("ROLLBACK")
                raise
            return value

        return await self._write(transaction)

    async def _write(self, work: Callable[[], T]) -> T:
        with trio.CancelScope(shield=True):
            return await self._read(work)

    async def _read(self, work: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(work, limiter=self._one)
        except (sqlite3.Error, OSError, msgspec.MsgspecError) as error:
            raise _store_error(self._dir, error) from error


_SELECT: Final = (
    "SELECT id, params, accepted_at, attempt, state, round, result, error, finished_at FROM asks "
)
# Cut inside SQLite: whole results of many rounds would fill the memory.
_HISTORY: Final = """
SELECT id, substr(question, 1, ?1),
    coalesce(json_extract(error, '$.data.code'), json_extract(result, '$.outcome')),
    substr(json_extract(result, '$.answer'), 1, ?1),
    state, accepted_at, finished_at, attempt, round
FROM asks ORDER BY rowid DESC LIMIT ?2
"""


def _open(data_dir: Path) -> sqlite3.Connection:
    path = data_dir / DATABASE
    database = None
    try:
        (data_dir / RECEIPTS).mkdir(mode=0o700, exist_ok=True)
        for leftover in (data_dir / RECEIPTS).glob(atomic.LEFTOVERS):
            leftover.unlink()
        # SQLite gives its log files the mode of the database, which it would make readable.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        # Any one thread at a time, not the same one: the limiter of the store sees to it.
        database = sqlite3.connect(
            path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA foreign_keys = ON")
        _migrate(database, path)
        atomic.sync_directory(data_dir)
    except BaseException as error:
        if database is not None:
            database.close()
        if isinstance(error, (sqlite3.Error, OSError)):
            raise _store_error(data_dir, error) from error
        raise
    return database


def _migrate(database: sqlite3.Connection, path: Path) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > len(_MIGRATIONS):
        raise StoreError(
            f"{path} was written by a newer swarmd (schema {version}, this one knows "
            f"{len(_MIGRATIONS)}). Upgrade swarmd, or choose another directory with --data-dir."
        )
    for number, added in enumerate(_MIGRATIONS[version:], version + 1):
        # One transaction: a crash leaves either nothing of a version or all of it.
        database.executescript(f"BEGIN IMMEDIATE; {added} PRAGMA user_version = {number}; COMMIT;")


def _record(row: tuple[Any, ...]) -> AskRecord:
    ask, params, accepted_at, attempt, state, round_id, result, error, finished_at = row
    if state not in get_args(State):
        raise sqlite3.DatabaseError(f"state {state!r} of question {ask} is unknown")
    return AskRecord(
        id=AskId(ask),
        params=msgspec.json.decode(params, type=AskParams),
        accepted_at=accepted_at,
        attempt=attempt,
        state=state,
        round=None if round_id is None else RoundId(round_id),
        result=None if result is None else msgspec.json.decode(result, type=dict[str, Any]),
        error=None if error is None else msgspec.json.decode(error, type=ErrorObject),
        finished_at=finished_at,
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _history_row(
    ask: str, question: str, outcome: str | None, answer: str | None, *plain: Any
) -> HistoryRow:
    state, accepted_at, finished_at, attempt, round_id = plain
    return HistoryRow(
        ask=AskId(ask),
        question=_excerpt(question),
        state=state,
        accepted_at=accepted_at,
        finished_at=finished_at,
        attempt=attempt,
        round=round_id.hex() if round_id else None,
        outcome=outcome or "",
        answer=None if answer is None else _excerpt(answer),
    )


def _excerpt(text: str) -> str:
    return text if len(text) <= methods.EXCERPT_CHARS else text[: methods.EXCERPT_CHARS - 1] + "…"


def _store_error(data_dir: Path, error: Exception) -> StoreError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    name = getattr(error, "sqlite_errorname", "")
    if name in ("SQLITE_NOTADB", "SQLITE_CORRUPT") or isinstance(error, msgspec.MsgspecError):
        step = f"Move {data_dir / DATABASE}* away, or restore them from a backup."
    else:
        step = f"Check the free space and the permissions of {data_dir}."
    return StoreError(f"{reason}. {step}")
