"""The SQLite file that holds the logs: its tables, whether it can be trusted, where it goes if not.

SQLite finds a page that is broken, not a value that is another; see
:mod:`node.replication.ledger_rows` for those.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from node import atomic
from protocol.errors import StoreError

DATABASE: Final = "ledger.db"
DAMAGED_KEPT: Final = 3
"""Damaged files that are kept, the latest."""
_APPLICATION: Final = 0x73776C67
_VERSION: Final = 1
_PAGE_BYTES: Final = 512
"""The smallest page; what is smaller is no database."""
_BUSY_S: Final = 5.0
_WAL_BYTES: Final = 16 << 20
_TABLES: Final = (
    """CREATE TABLE chain (
    id INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 1 << 46),
    swarm TEXT NOT NULL,
    author BLOB NOT NULL CHECK (length(author) = 32),
    epoch INTEGER NOT NULL CHECK (epoch >= 0),
    ticket BLOB NOT NULL,
    quality INTEGER NOT NULL,
    fork BLOB,
    checksum INTEGER NOT NULL,
    UNIQUE (swarm, author, epoch)
) STRICT""",
    """CREATE TABLE entry (
    place INTEGER PRIMARY KEY,
    body BLOB NOT NULL,
    signature BLOB CHECK (length(signature) = 64),
    checksum INTEGER NOT NULL
) STRICT""",
)
"""The place of an entry is the id of its chain and its seq, see node.replication.ledger_rows."""

_SURROUNDINGS: Final = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOLFS,
        sqlite3.SQLITE_AUTH,
    }
)
"""Errors that say nothing of what is in the file."""


class DamagedError(Exception):
    """The file is not one that this node has written, or not any more. The message says why."""


def connect(path: Path, blank: bool) -> sqlite3.Connection:
    """The database at ``path``, checked, and made where it is missing.

    Args:
        blank: whether it may be empty.

    Raises:
        DamagedError: it is damaged, or not ours.
        StoreError: it is of a newer swarmd.
        sqlite3.Error, OSError: the disk fails.
    """
    with suppress(FileNotFoundError):
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise DamagedError("it is no file")
        log = path.with_name(path.name + "-wal")
        if not found.st_size and (not blank or (log.exists() and log.stat().st_size)):
            raise DamagedError("it is empty")
        if 0 < found.st_size < _PAGE_BYTES:
            # SQLite may take it for one that is empty.
            raise DamagedError("it is cut short")
    # SQLite gives its log files the mode of the database, which it would make readable.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    # Any one thread at a time, not the same one: the limiter of the database sees to it.
    database = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        with _damage_found():
            if _is_blank(database):
                if not blank:
                    raise DamagedError("it is empty")
                database.execute("PRAGMA auto_vacuum = FULL")
                database.execute("PRAGMA journal_mode = WAL")
                _make_tables(database)
            else:
                _check(database, path)
                database.execute("PRAGMA journal_mode = WAL")
            database.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        atomic.sync_directory(path.parent)
    except BaseException:
        database.close()
        raise
    return database


def connect_to_read(path: Path) -> sqlite3.Connection:
    """The database at ``path``, which others may be writing. Nothing is changed.

    Raises:
        StoreError: there is none, it is damaged, not ours, or of a newer swarmd.
        sqlite3.Error: the disk fails.
    """
    if not path.is_file():
        raise StoreError(
            f"There is no {path}. A node makes it when it is started; name its directory with "
            "--data-dir."
        )
    address = f"{path.absolute().as_uri()}?mode=ro"
    database = sqlite3.connect(address, uri=True, timeout=_BUSY_S, isolation_level=None)
    try:
        with _damage_found():
            _check(database, path)
    except BaseException as error:
        database.close()
        if isinstance(error, DamagedError):
            raise StoreError(
                f"{path} is damaged: {error}. Start swarmd: it moves the file aside and gets the "
                "logs again from peers."
            ) from error
        raise
    return database


def move_aside(path: Path) -> Path:
    """Give a damaged file, and what SQLite has beside it, a new name, and return it.

    Raises:
        OSError: the disk fails.
    """
    stem = f"{path.name}.damaged-"
    numbers = [
        int(one.name.removeprefix(stem))
        for one in path.parent.glob(f"{stem}*")
        if one.name.removeprefix(stem).isdecimal()
    ]
    number = max(numbers, default=0) + 1
    moved = path.with_name(f"{stem}{number}")
    # The database first: SQLite applies no log to a file that is empty, as the next one is then.
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", f"{moved}{suffix}")
    for old in sorted(numbers)[: -(DAMAGED_KEPT - 1)]:
        for suffix in ("", "-wal", "-shm"):
            # What somebody has put there and is no file stays.
            with suppress(OSError):
                os.unlink(path.with_name(f"{stem}{old}{suffix}"))
    atomic.sync_directory(path.parent)
    return moved


@contextmanager
def _damage_found() -> Iterator[None]:
    """Raises DamagedError for an error of SQLite that says that the file is damaged."""
    try:
        yield
    except UnicodeDecodeError as error:
        # SQLite quotes what it found.
        raise DamagedError("its tables are others") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        # Of a file that can be written SQLite says that it cannot where its version says so; where
        # something else is in the way, it says what.
        if code & 0xFF in _SURROUNDINGS or (
            code & 0xFF == sqlite3.SQLITE_READONLY and code != sqlite3.SQLITE_READONLY
        ):
            raise
        raise DamagedError(str(error)) from error


def _pragma(database: sqlite3.Connection, name: str) -> Any:
    (value,) = database.execute(f"PRAGMA {name}").fetchone()
    return value


def _is_blank(database: sqlite3.Connection) -> bool:
    """Whether nothing was ever written to it."""
    (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return not (tables or _pragma(database, "user_version") or _pragma(database, "application_id"))


def _make_tables(database: sqlite3.Connection) -> None:
    tables = "".join(f"{table};" for table in _TABLES)
    # One transaction: a crash leaves all of it or a blank file.
    database.executescript(
        f"BEGIN IMMEDIATE; {tables} PRAGMA application_id = {_APPLICATION}; "
        f"PRAGMA user_version = {_VERSION}; COMMIT;"
    )


def _check(database: sqlite3.Connection, path: Path) -> None:
    if _pragma(database, "application_id") != _APPLICATION:
        raise DamagedError("it is another program's")
    version = _pragma(database, "user_version")
    if version > _VERSION:
        raise StoreError(
            f"{path} was written by a newer swarmd (schema {version}, this one knows {_VERSION}). "
            "Upgrade swarmd, or choose another directory with --data-dir."
        )
    found = database.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")
    if version != _VERSION or tuple(sql for (sql,) in found) != _TABLES:
        raise DamagedError("its tables are others")
    # The quick check passes over indices.
    for check in ("quick_check(1)", "integrity_check(chain)"):
        if (result := _pragma(database, check)) != "ok":
            raise DamagedError(result)
