"""A damaged database is moved aside and said so; what is taken from one is never wrong."""

from __future__ import annotations

import logging
import os
import random
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trio

from node.replication import ledger_file
from node.replication.database import UNKNOWN, LedgerDatabase, Mark, read_only
from node.replication.ledger_file import DAMAGED_KEPT, DATABASE
from node.replication.mark import FILE, Marks
from protocol.errors import StoreError
from protocol.ledger import entry_digest
from tests.node.ledgers import OWN, Node, data_directory, names_in, opened
from tests.swarm.ledger.authors import EPOCH, NOW, SWARM, Author, signer

OWN_LOG = Author("own", 12)
FLIPS = 150


def others() -> list[Author]:
    return [Author(f"{index}", 6, quality=index + 1) for index in range(6)]


async def fill(node: Node) -> None:
    """Logs of all kinds."""
    authors = others()
    node.take(*(author.run() for author in authors))
    node.take(authors[0].other(3).run(3))
    node.take(authors[1].fork(authors[1].other(0), 0))
    await node.write_own(OWN_LOG.run(0, 8, ticket=False))
    await node.written()
    await node.write_own(OWN_LOG.run(8, ticket=False))


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with data_directory() as path:
        yield path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a node that was closed."""
    made = tmp_path_factory.mktemp("whole")

    async def make() -> None:
        async with opened(made) as node:
            await fill(node)

    trio.run(make)
    return made


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a node that was killed: the log of the database has most of it."""
    made, copy = tmp_path_factory.mktemp("running"), tmp_path_factory.mktemp("stopped")

    async def make() -> None:
        async with opened(made) as node:
            await fill(node)
            for path in made.iterdir():
                shutil.copy(path, copy)

    trio.run(make)
    assert (copy / f"{DATABASE}-wal").stat().st_size > 10_000
    return copy


def copied(source: Path, data_dir: Path, without: str = "") -> Path:
    """The database in ``data_dir``, a copy."""
    for path in source.iterdir():
        if path.name != without:
            shutil.copy(path, data_dir)
    return data_dir / DATABASE


def clear(data_dir: Path) -> None:
    for path in data_dir.iterdir():
        path.unlink()


@cache
def truth() -> dict[Any, Any]:
    held = Node(None)  # type: ignore[arg-type]
    for author in others():
        held.replica.take(author.run(), NOW)
    zero, one, *_ = others()
    held.replica.take(zero.other(3).run(3), NOW)
    held.replica.convict(one.fork(one.other(0), 0), NOW)
    held.replica.take(OWN_LOG.run(ticket=False), NOW)
    return held.kept()


OWN_MARK = Mark(EPOCH, 12, entry_digest(OWN_LOG.bodies[-1]))


async def assert_nothing_wrong(node: Node) -> None:
    """What was restored is what was written; of the own log, nothing is lost unnoticed."""
    for name, (bodies, _, *rest) in node.kept().items():
        true_bodies, _, *true_rest = truth()[name]
        assert bodies == true_bodies[: len(bodies)]
        assert rest == true_rest
    assert node.database.own_mark(EPOCH) == OWN_MARK
    for seq in (0, len(node.kept().get((OWN, EPOCH), ([],))[0])):
        if seq < OWN_MARK.entries:
            with pytest.raises(StoreError):
                await node.database.keep_own(OWN_LOG.other(seq).run(seq, ticket=False))


# --- files that are none of ours, or not any more -------------------------------------------------


def cut(size: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, size)


def overwritten(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE notes (text TEXT)")
        database.execute("INSERT INTO notes VALUES ('mine')")


def look_alike(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("ALTER TABLE entry ADD COLUMN more TEXT")


def sneaky(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TRIGGER sneaky AFTER INSERT ON entry BEGIN DELETE FROM chain; END")


def ill(path: Path) -> None:
    """A row that the tables do not allow."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA ignore_check_constraints = ON")
        database.execute("UPDATE chain SET author = x'00' WHERE id = 2")


def no_words(path: Path) -> None:
    """What SQLite says of it is no text."""
    data = path.read_bytes()
    assert data.count(b"NOT NULL,\n    author") == 1
    path.write_bytes(data.replace(b"NOT NULL,\n    author", b"NOT \xc5\xc5LL,\n    author"))


def index_of_others(path: Path) -> None:
    """The index has an author that the table has not: each chain could be there twice."""
    data = path.read_bytes()
    author = others()[5].peer
    places = [at for at in range(len(data)) if data.startswith(author, at)]
    # In the table its entries follow, in the index the epoch.
    at = next(at for at in places if b"\x0b" in data[at + 32 : at + 36])
    for at in places:
        changed = bytearray(data)
        changed[at] ^= 1
        path.write_bytes(changed)
        with closing(sqlite3.connect(path)) as database:
            if database.execute("PRAGMA integrity_check(chain)").fetchone() != ("ok",):
                return
    raise AssertionError(at)


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "kept").write_bytes(b"mine")


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (cut(0), "it is empty"),
    "one byte": (cut(1), "it is cut short"),
    "the header": (cut(100), ""),
    "one page": (cut(4096), ""),
    "half": (cut(20_000), ""),
    "all but a page": (lambda path: os.truncate(path, path.stat().st_size - 4096), ""),
    "text": (overwritten(b"not a database" * 1000), "not a database"),
    "zeros": (overwritten(bytes(40_000)), "not a database"),
    "foreign": (foreign, "another program's"),
    "look-alike": (look_alike, "its tables are others"),
    "sneaky": (sneaky, "its tables are others"),
    "no words": (no_words, "its tables are others"),
    "ill": (ill, "CHECK constraint failed"),
    "index": (index_of_others, "index"),
    "directory": (a_directory, "it is no file"),
    "pipe": (a_pipe, "it is no file"),
}


@pytest.mark.parametrize("kind", DAMAGE)
async def test_what_is_damaged_is_moved_aside_and_begun_anew(
    kind: str, whole: Path, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage, reason = DAMAGE[kind]
    path = copied(whole, data_dir)
    damage(path)
    data = path.read_bytes() if path.is_file() else b""
    async with opened(data_dir) as node:
        moved = data_dir / f"{DATABASE}.damaged-1"
        assert node.database.moved_aside == moved
        if moved.is_file():
            assert moved.read_bytes() == data
        elif moved.is_dir():
            assert (moved / "kept").read_bytes() == b"mine"
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        text = record.getMessage()
        assert f"{path} is damaged: " in text
        assert reason in text
        assert moved.name in text
        assert "Nothing has to be done" in text
        # Peers give it all back.
        assert node.replica.chains() == {}
        await assert_nothing_wrong(node)
        node.take(*(author.run() for author in others()), OWN_LOG.run(ticket=False), source=OWN)
        author = Author("own", 13)
        await node.write_own(author.run(12, ticket=False))
        kept = node.kept()
    async with opened(data_dir) as node:
        assert node.database.moved_aside is None
        assert node.kept() == kept
        assert len(kept) == 7


async def test_an_empty_database_with_a_log_is_damaged(stopped: Path, data_dir: Path) -> None:
    """SQLite would delete the log. It may be all there is."""
    path = copied(stopped, data_dir, without=FILE)
    log_data = path.with_name(f"{DATABASE}-wal").read_bytes()
    os.truncate(path, 0)
    async with opened(data_dir) as node:
        moved = node.database.moved_aside
        assert moved is not None
        assert moved.with_name(f"{moved.name}-wal").read_bytes() == log_data


async def test_a_stop_between_two_moves_mixes_nothing(stopped: Path, data_dir: Path) -> None:
    """The database has been moved, its log has not: it belongs to no other."""
    path = copied(stopped, data_dir)
    path.rename(data_dir / f"{DATABASE}.damaged-1")
    async with opened(data_dir) as node:
        assert node.replica.chains() == {}
        await assert_nothing_wrong(node)
        node.take(Author("new", 2).run())
    async with opened(data_dir) as node:
        assert set(node.replica.chains()) == {(signer("new").peer, EPOCH)}


def test_damage_never_takes_the_place_of_older_damage(data_dir: Path) -> None:
    path = data_dir / DATABASE
    for number in range(1, DAMAGED_KEPT + 4):
        path.write_bytes(b"damage %d" % number)
        for suffix in ("-wal", "-shm"):
            path.with_name(f"{DATABASE}{suffix}").write_bytes(b"%d" % number)
        assert ledger_file.move_aside(path) == data_dir / f"{DATABASE}.damaged-{number}"
        if number == 2:
            # A directory of somebody, and what is no number.
            (data_dir / f"{DATABASE}.damaged-0").mkdir()
            (data_dir / f"{DATABASE}.damaged-old").touch()
            (data_dir / f"{DATABASE}.damaged-9999-wal").touch()
    last = DAMAGED_KEPT + 3
    kept = {
        f"{DATABASE}.damaged-{number}{suffix}"
        for number in range(last - DAMAGED_KEPT + 1, last + 1)
        for suffix in ("", "-wal", "-shm")
    }
    assert names_in(data_dir) == kept | {
        f"{DATABASE}.damaged-0",
        f"{DATABASE}.damaged-old",
        f"{DATABASE}.damaged-9999-wal",
    }
    assert (data_dir / f"{DATABASE}.damaged-{last}").read_bytes() == b"damage %d" % last


async def test_a_newer_file_is_not_damaged(whole: Path, data_dir: Path) -> None:
    path = copied(whole, data_dir)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    data = path.read_bytes()
    with pytest.raises(StoreError, match=r"newer swarmd \(schema 99.*Upgrade"):
        async with LedgerDatabase.open(data_dir, SWARM, OWN):
            pass
    with pytest.raises(StoreError, match=r"newer swarmd \(schema 99.*Upgrade"):
        next(read_only(data_dir))
    assert path.read_bytes() == data
    assert not any("damaged" in name for name in names_in(data_dir))


async def test_a_first_start_that_was_stopped_is_no_damage(data_dir: Path) -> None:
    path = data_dir / DATABASE
    path.touch()
    async with opened(data_dir) as node:
        assert node.database.moved_aside is None
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")  # before the tables are made
    assert path.stat().st_size > 0
    async with opened(data_dir) as node:
        assert node.database.moved_aside is None
        node.take(Author("one", 1).run())
    async with opened(data_dir) as node:
        assert len(node.replica.chains()) == 1


async def test_a_database_that_was_emptied_is_damaged(whole: Path, data_dir: Path) -> None:
    path = copied(whole, data_dir)
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
    async with opened(data_dir) as node:
        assert node.database.moved_aside is not None
        await assert_nothing_wrong(node)


async def test_where_both_are_lost_nothing_is_known(whole: Path, data_dir: Path) -> None:
    path = copied(whole, data_dir, without=FILE)
    os.truncate(path, 20_000)
    for moved in (data_dir / f"{DATABASE}.damaged-1", None):
        # Also at the next start, when nothing is damaged any more.
        async with opened(data_dir) as node:
            assert node.database.moved_aside == moved
            assert node.database.own_mark(EPOCH) is UNKNOWN


async def test_it_is_known_that_nothing_is_known_before_the_damage_is_out_of_sight(
    whole: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(path: Path) -> Path:
        raise OSError(5, "stopped here")

    path = copied(whole, data_dir, without=FILE)
    os.truncate(path, 20_000)
    monkeypatch.setattr(ledger_file, "move_aside", stopped)
    with pytest.raises(StoreError, match="stopped here"):
        async with LedgerDatabase.open(data_dir, SWARM, OWN):
            pass
    assert Marks(data_dir).get(SWARM, OWN, EPOCH) is UNKNOWN


async def test_what_stands_in_the_way_is_a_store_error(whole: Path, data_dir: Path) -> None:
    data = copied(whole, data_dir).read_bytes()
    (data_dir / f"{DATABASE}-wal").mkdir()
    with pytest.raises(StoreError, match="permissions"):
        async with LedgerDatabase.open(data_dir, SWARM, OWN):
            pass
    assert (data_dir / DATABASE).read_bytes() == data


# --- bytes that are others ------------------------------------------------------------------------


async def outcome(data_dir: Path) -> str:
    """What becomes of a damaged copy, having seen that nothing wrong was taken from it."""
    try:
        async with opened(data_dir) as node:
            await assert_nothing_wrong(node)
            lost = set(truth()) - set(node.kept())
            if node.database.moved_aside is not None:
                assert not node.kept()
                return "moved aside"
            kept = node.kept()
    except StoreError as error:
        return "newer" if "newer swarmd" in str(error) else str(error)
    async with opened(data_dir) as node:
        # What was damaged is not found again.
        assert node.refused == []
        assert node.kept() == kept
    return "lost some" if lost else "shorter" if kept != truth() else "same"


async def test_flipped_bits_are_found(whole: Path, data_dir: Path) -> None:
    rng = random.Random(5)
    data = (whole / DATABASE).read_bytes()
    found: dict[str, int] = {}
    for index in range(FLIPS):
        changed = bytearray(data)
        for _ in range(rng.choice([1, 1, 3, 10])):
            place = rng.randrange(100) if index % 10 == 0 else rng.randrange(len(data))
            changed[place] ^= 1 << rng.randrange(8)
        copied(whole, data_dir).write_bytes(changed)
        result = await outcome(data_dir)
        found[result] = found.get(result, 0) + 1
        clear(data_dir)
    # Most of the file is entries; unused bytes may be anything.
    assert found["lost some"] > FLIPS / 5
    assert found["moved aside"] > FLIPS / 10
    assert found["same"] > FLIPS / 20
    assert set(found) <= {"lost some", "moved aside", "same", "newer"}


@pytest.mark.parametrize("table", ["chain", "entry"])
async def test_each_value_is_checked(table: str, whole: Path, data_dir: Path) -> None:
    """Also those that SQLite has no reason to doubt."""
    with closing(sqlite3.connect(whole / DATABASE)) as database:
        names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    for name in names:
        if name in ("id", "swarm", "author"):
            continue
        path = copied(whole, data_dir)
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("PRAGMA ignore_check_constraints = ON")
            rows = database.execute(
                f"SELECT rowid, {name} FROM {table} WHERE {name} IS NOT NULL ORDER BY rowid"
            ).fetchall()
            for rowid, value in rows[:: max(1, len(rows) // 3)]:
                if isinstance(value, bytes):
                    value = bytes([value[0] ^ 1, *value[1:]]) if value else b"x"
                else:
                    value += 60_000 if name == "place" else 1
                database.execute(f"UPDATE {table} SET {name} = ? WHERE rowid = ?", (value, rowid))
        assert await outcome(data_dir) == "lost some", name


@pytest.mark.parametrize("damage", ["cut", "flipped"])
async def test_a_damaged_log_of_the_database_leaves_a_prefix(
    damage: str, stopped: Path, data_dir: Path
) -> None:
    rng = random.Random(6)
    data = (stopped / f"{DATABASE}-wal").read_bytes()
    found: set[str] = set()
    for _ in range(15):
        copied(stopped, data_dir)
        changed = bytearray(data)
        if damage == "cut":
            changed = changed[: rng.randrange(len(data))]
        else:
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (data_dir / f"{DATABASE}-wal").write_bytes(changed)
        found.add(await outcome(data_dir))
        clear(data_dir)
    assert "lost some" in found
    assert found <= {"lost some", "shorter", "same", "moved aside"}


async def test_pieces_of_a_database_are_found(whole: Path, stopped: Path, data_dir: Path) -> None:
    rng = random.Random(7)
    found: set[str] = set()
    for source in (whole, stopped):
        for index in range(12):
            path = copied(source, data_dir)
            place = rng.randrange(path.stat().st_size)
            if index % 2:
                os.truncate(path, place)
            else:
                with path.open("r+b") as file:
                    file.seek(place)
                    file.write(rng.randbytes(5000))
            found.add(await outcome(data_dir))
            clear(data_dir)
    assert {"moved aside", "same"} <= found


async def test_a_chain_that_the_database_found_damaged_is_told(
    whole: Path, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = copied(whole, data_dir)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE chain SET quality = 1000 WHERE author = ?", (others()[4].peer,))
    async with opened(data_dir) as node:
        assert node.refused == []
        assert (others()[4].peer, EPOCH) not in node.replica.chains()
    async with opened(data_dir) as node:
        assert len(node.replica.chains()) == len(truth()) - 1
    # Said once, since it is not there any more.
    (record,) = caplog.records
    assert "was damaged on disk; peers have it" in record.getMessage()


async def test_a_damaged_own_log_does_not_raise_the_mark(whole: Path, data_dir: Path) -> None:
    """A place that nobody has written would make the node silent until it is reached."""
    path = copied(whole, data_dir)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "UPDATE entry SET place = place + 50000 WHERE body = ?", (OWN_LOG.bodies[-1],)
        )
        (data_dir / FILE).unlink()
    Marks(data_dir).raise_to(SWARM, OWN, Mark(EPOCH, 5, entry_digest(OWN_LOG.bodies[4])))
    async with opened(data_dir) as node:
        assert (OWN, EPOCH) not in node.replica.chains()
        assert node.database.own_mark(EPOCH) == Mark(EPOCH, 5, entry_digest(OWN_LOG.bodies[4]))


# --- disks that are full --------------------------------------------------------------------------


async def test_a_full_disk_is_a_store_error_and_leaves_nothing_half(data_dir: Path) -> None:
    author, own = Author("one", 20, value_bytes=2000), Author("own", 20, value_bytes=2000)
    async with opened(data_dir) as node:
        await node.write_own(own.run(0, 5, ticket=False))
        await node.written()
        database = node.database._database
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match=r"full\. Check the free space"):
            await node.database.keep_own(own.run(5, ticket=False))
        node.take(author.run())
        with pytest.raises(StoreError, match=r"full\. Check the free space"):
            await node.written()
        assert node.database.own_mark(EPOCH) == Mark(EPOCH, 5, entry_digest(own.bodies[4]))
        assert [len(one.bodies) for one in read_only(data_dir)] == [5]
        database.execute("PRAGMA max_page_count = 100000")
        await node.write_own(own.run(5, ticket=False))
        kept = node.kept()
    async with opened(data_dir) as node:
        assert node.kept() == kept
        assert sorted(len(chain.bodies) for chain in node.replica.chains().values()) == [20, 20]


@contextmanager
def no_file_grows() -> Iterator[None]:
    """The kernel refuses every write beyond the first KiB of a file (setrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_disk_without_any_room_is_a_store_error(whole: Path, data_dir: Path) -> None:
    with no_file_grows(), pytest.raises(StoreError, match="free space"):
        async with LedgerDatabase.open(data_dir, SWARM, OWN):
            pass
    async with opened(data_dir) as node:
        assert node.database.moved_aside is None  # that it was full is no damage
        with no_file_grows(), pytest.raises(StoreError, match="free space"):
            await node.database.keep_own(OWN_LOG.run(ticket=False))
        assert node.database.own_mark(EPOCH) is None
        await node.write_own(OWN_LOG.run(ticket=False))


async def test_another_program_that_holds_the_database_is_no_damage(
    whole: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_file, "_BUSY_S", 0.0)
    path = copied(whole, data_dir)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="locked"):
            async with LedgerDatabase.open(data_dir, SWARM, OWN):
                pass
    async with opened(data_dir) as node:
        assert node.kept() == truth()
