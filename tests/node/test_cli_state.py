"""`swarm state`, and what `swarm status` says of all logs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from node.cli import state, text
from node.cli.main import main
from node.cli.text import moment
from node.control import Control
from node.replication.database import LedgerDatabase
from node.replication.ledger_file import DATABASE
from node.rpc_server import Handler, Notify
from protocol import errors, methods
from protocol.bundle import Header, Log, Reader, write
from protocol.codec import encode
from protocol.errors import UsageError
from protocol.ids import peer_text
from protocol.ledger import EPOCH_S, Capability
from protocol.messages import Model
from protocol.methods import AskId, Progress
from swarm.ledger import audit
from swarm.ledger.admission import Certificates, Stamps
from swarm.ledger.audit import log_of
from swarm.ledger.fingerprint import Fingerprint
from swarm.ledger.replica import Change, Replica
from tests.node.daemons import serving, short_directory
from tests.node.test_cli import HOSTILE, PEERS, is_harmless, lines
from tests.node.test_cli_capability import Done
from tests.node.test_cli_capability import swarm as run
from tests.swarm.ledger.authors import EPOCH, NOW, SWARM, Author
from tests.swarm.ledger.speaking import DAY, MODEL, speaker

KEY = b"k" * 32
PRIVATE = Certificates(SWARM, KEY)
BITS = 2
PUBLIC = Stamps(SWARM, BITS)


def certified(author: Author) -> bytes:
    return PRIVATE.issue(author.peer, author.epoch)


def stamped(author: Author) -> bytes:
    found = PUBLIC.search(author.peer, author.epoch, range(1000))
    assert found is not None
    return found


AMY, BOB = speaker("amy"), Author("bob", 4)
OLD = speaker("amy", label="old", epoch=EPOCH - 1)
EVE = Author("eve", 4)
LIAR = EVE.other(2)


def everybody(ticket: Callable[[Author], bytes] = certified) -> Replica:
    """Two authors, one of them in two epochs, one that has forked, and one without a ticket."""
    held = Replica(SWARM, audit.Keyless(SWARM), Author("own").peer)
    for author in (AMY, BOB, OLD, EVE, LIAR):
        held.take(author.run(ticket=ticket(author)), NOW)
    held.take(Author("own", 2).run(ticket=False), NOW)
    return held


@pytest.fixture(autouse=True)
def _cheap_stamps_and_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "Stamps", partial(Stamps, bits=BITS))
    monkeypatch.setattr(time, "time", lambda: NOW)
    for name in ("SWARMD_DATA_DIR", "SWARMD_SWARM", "SWARMD_SWARM_KEY", "SWARMD_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def put(data_dir: Path, held: Replica, swarm: str = SWARM) -> Path:
    """Write all that is held to the database of ``data_dir``."""

    async def write_all() -> None:
        own = Author("own").peer
        async with LedgerDatabase.open(data_dir, swarm, own) as database:
            for (author, epoch), chain in held.chains().items():
                database.keep(Change(author, epoch, 0), chain)

    trio.run(write_all)
    return data_dir


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put(tmp_path_factory.mktemp("written"), everybody())


@pytest.fixture
def data_dir(written: Path, tmp_path: Path) -> Path:
    """A data directory with what :func:`everybody` holds."""
    return Path(shutil.copytree(written, tmp_path, dirs_exist_ok=True))


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    return write_key(tmp_path / "swarm.key", KEY)


def write_key(path: Path, key: bytes) -> str:
    path.write_text(key.hex())
    path.chmod(0o600)
    return str(path)


def change(data_dir: Path, *statements: str) -> None:
    """Damage the database."""
    with closing(sqlite3.connect(data_dir / DATABASE)) as database:
        for statement in statements:
            assert database.execute(statement).rowcount
        database.commit()


def place_of(author: Author, seq: int) -> str:
    """Where an entry stands, in SQL."""
    return (
        f"(SELECT (id << 16) + {seq} FROM chain WHERE author = x'{author.peer.hex()}' "
        f"AND epoch = {author.epoch})"
    )


def as_json(done: Done) -> Any:
    assert done.stderr == b"", done.stderr
    return json.loads(done.stdout)


def at(data_dir: Path) -> tuple[str, str]:
    return "--data-dir", str(data_dir)


def root_of(held: Replica) -> str:
    found = Fingerprint(EPOCH)
    for chain in held.chains().values():
        found.add(chain)
    return found.root.hex()


def saved(path: Path, held: Replica, *, at: float = NOW) -> str:
    """A file of all that is held."""
    logs = [log_of(held, *name) for name in held.chains()]
    path.write_bytes(b"".join(write(Header(SWARM, int(at)), logs)))
    return str(path)


# --- show -----------------------------------------------------------------------------------------


def test_all_logs_in_a_table(data_dir: Path) -> None:
    done = run("state", "show", *at(data_dir))
    assert (done.returncode, done.stderr) == (0, b"")
    head, *rows = lines(done.stdout)
    assert head.split() == [
        "PEER", "LABEL", "MODEL", "EPOCH", "ENTRIES", "BYTES", "SINCE", "TICKET", "FORKED",
    ]  # fmt: skip
    found = {tuple(row.split()[:1] + row.split()[3:4]): row for row in rows[:5]}
    amy, eve, own = (peer_text(Author(name).peer)[-8:] for name in ("amy", "eve", "own"))
    assert "upstairs" in found[amy, str(EPOCH)]
    assert "tiny-llama" in found[amy, str(EPOCH)]
    assert moment(EPOCH * EPOCH_S) in found[amy, str(EPOCH)]
    assert "old" in found[amy, str(EPOCH - 1)]
    assert found[eve, str(EPOCH)].endswith("certificate  at entry 2")
    assert found[own, str(EPOCH)].endswith("none         –")
    assert rows[5:] == [
        "",
        f"5 logs of 4 authors in the swarm {SWARM}: 18 entries, "
        f"{text.size(everybody().bytes)}; this is epoch {EPOCH}",
        f"root {root_of(everybody())}",
    ]


def test_the_table_is_sorted(data_dir: Path) -> None:
    logs = as_json(run("state", "show", "--json", *at(data_dir)))["logs"]
    assert [one["epoch"] for one in logs] == [EPOCH] * 4 + [EPOCH - 1]
    peers = [one["peer"] for one in logs[:4]]
    assert peers == sorted(peers)


def test_all_logs_as_json(data_dir: Path) -> None:
    found = as_json(run("state", "show", "--json", *at(data_dir)))
    held = everybody()
    assert found.pop("logs")[0].keys() == {
        "peer", "epoch", "label", "model", "entries", "bytes", "since", "until", "ticket",
        "forked_at",
    }  # fmt: skip
    assert found == {
        "swarm": SWARM,
        "epoch": EPOCH,
        "authors": 4,
        "entries": held.entries,
        "bytes": held.bytes,
        "root": root_of(held),
        "damaged": 0,
    }


def test_what_strangers_call_themselves_is_harmless(tmp_path: Path) -> None:
    author = speaker("amy", label=HOSTILE * 3, model=Model("m" * 60 + HOSTILE, HOSTILE, ""))
    held = Replica(SWARM, audit.Keyless(SWARM))
    held.take(author.run(ticket=certified(author)), NOW)
    put(tmp_path, held)
    for words in ((), (peer_text(author.peer),), ("--json",)):
        done = run("state", "show", *words, *at(tmp_path))
        assert done.returncode == 0
        assert is_harmless(done.stdout)


def test_a_database_without_logs(tmp_path: Path) -> None:
    put(tmp_path, Replica(SWARM, PRIVATE))
    done = run("state", "show", *at(tmp_path))
    assert done.returncode == 0
    assert "0 logs of 0 authors in the swarm public" in done.stdout.decode()
    assert as_json(run("state", "verify", "--json", *at(tmp_path)))["ok"]


@pytest.mark.parametrize("command", [("show",), ("verify",), ("export", "-")])
def test_a_node_that_never_ran_has_no_logs(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = run("state", *command, *at(tmp_path))
    assert done.returncode == errors.StoreError.exit_code
    assert "There is no" in done.stderr.decode()
    assert list(tmp_path.iterdir()) == []


def test_all_that_one_author_says(data_dir: Path) -> None:
    peer = peer_text(AMY.peer)
    shown = {
        run("state", "show", part, *at(data_dir)).stdout for part in (peer, peer[-6:], peer[:20])
    }
    (only,) = shown
    found = lines(only)
    assert found[:2] == [
        f"{peer}, old",
        f"epoch {EPOCH - 1}: 5 entries, {text.size(sum(map(len, OLD.bodies)))}, "
        "ticket: certificate",
    ]
    assert found[2].split() == ["ENTRY", "WRITTEN", "KIND", "SAYS"]
    second = found.index(f"{peer}, upstairs")
    assert found[second - 1] == ""
    rows = [row.split(maxsplit=4) for row in found[second + 3 :]]
    assert [row[0] for row in rows] == list("01234")
    assert [f"{row[1]} {row[2]}" for row in rows] == [
        moment(EPOCH * EPOCH_S + 1800 * seq) for seq in range(5)
    ]
    assert [row[3] for row in rows] == [
        "checkpoint", "capability", "capability", "calibration", "evidence",
    ]  # fmt: skip
    day, next_day = (time.strftime("%Y-%m-%d", time.gmtime(one * 86400)) for one in (DAY, DAY + 1))
    liar = peer_text(Author("liar").peer)[-8:]
    assert rows[0][4].startswith(
        "context_tokens 8192; energy 1200; label none; model tiny-llama, llama, "
        f"{MODEL.content_id}; parameters 4000000000; serves yes; hints of {day}: 1 peer, "
    )
    assert rows[0][4].endswith(f"{liar} convicted: equivocation")
    assert rows[1][4] == "label upstairs"
    assert rows[2][4] == "energy gone; shoe 2a"
    assert rows[3][4].startswith(f"hints of {next_day}: 2 peers, ")
    assert rows[4][4] == f"{liar} convicted: equivocation"


def test_an_author_that_has_forked_is_shown_as_such(data_dir: Path) -> None:
    done = run("state", "show", peer_text(EVE.peer), *at(data_dir))
    assert "It has signed two entries 2." in done.stdout.decode()


def test_all_that_one_author_says_as_json(data_dir: Path) -> None:
    found = as_json(run("state", "show", peer_text(AMY.peer), "--json", *at(data_dir)))
    assert (found["swarm"], found["peer"]) == (SWARM, peer_text(AMY.peer))
    assert [one["epoch"] for one in found["logs"]] == [EPOCH - 1, EPOCH]
    assert [len(one["said"]) for one in found["logs"]] == [5, 5]
    assert found["logs"][1]["said"][1]["changed"] == {"label": "upstairs"}


@pytest.mark.parametrize(
    ("part", "says"), [("12D3", "4 authors begin or end"), ("nobody", "No author begins or ends")]
)
def test_a_part_that_fits_none_or_several_names_no_author(
    data_dir: Path, part: str, says: str
) -> None:
    done = run("state", "show", part, *at(data_dir))
    assert (done.returncode, done.stdout) == (errors.EXIT_USAGE, b"")
    assert f"{says} with {part}" in done.stderr.decode()


def test_the_swarm_is_the_only_one_or_is_named(data_dir: Path) -> None:
    show = partial(run, "state", "show", "--json", *at(data_dir))
    assert as_json(show())["swarm"] == SWARM
    assert as_json(show("--swarm", "friends"))["authors"] == 0
    # Logs of this swarm among those of another, which is no more than an odd way to damage them.
    put(data_dir, everybody(), "friends")
    done = show()
    assert done.returncode == errors.EXIT_USAGE
    assert f"There are logs of friends, {SWARM}: give --swarm" in done.stderr.decode()
    assert as_json(show("--swarm", SWARM))["authors"] == 4
    done = show("--swarm", "friends")
    assert json.loads(done.stdout)["damaged"] == 5
    assert f"It is of the swarm '{SWARM}'" in done.stderr.decode()


# --- verify: the database -------------------------------------------------------------------------


def test_a_database_that_holds(data_dir: Path, key_file: str) -> None:
    held = everybody()
    report = as_json(run("state", "verify", "--json", "--swarm-key", key_file, *at(data_dir)))
    assert report == {
        "ok": True,
        "swarm": SWARM,
        "at": int(NOW),
        "logs": 5,
        "entries": held.entries,
        "bytes": held.bytes,
        "forks": 1,
        "tickets": {"certificate": 4, "none": 1},
        "unchecked": 0,
        "root": root_of(held),
        "problems": [],
    }
    done = run("state", "verify", "--swarm-key", key_file, *at(data_dir))
    assert (done.returncode, done.stderr) == (0, b"")
    assert lines(done.stdout) == [
        f"swarm      {SWARM}",
        f"at         {moment(NOW)}",
        f"logs       5 hold: {held.entries} entries, {text.size(held.bytes)}",
        "forks      1",
        "tickets    certificate 4, none 1",
        f"root       {root_of(held)}",
        "Everything holds.",
    ]


def test_certificates_that_were_not_checked_are_told(data_dir: Path) -> None:
    done = run("state", "verify", *at(data_dir))
    assert done.returncode == 0
    (only,) = lines(done.stderr)
    assert only.startswith("swarm: Not checked: 4 certificates.")
    assert "--swarm-key" in only


def test_stamps_take_no_key(tmp_path: Path) -> None:
    put(tmp_path, everybody(stamped))
    report = as_json(run("state", "verify", "--json", *at(tmp_path)))
    assert (report["ok"], report["unchecked"]) == (True, 0)
    assert report["tickets"] == {"none": 1, "stamp": 4}


def test_the_configured_key_is_that_of_the_configured_swarm(data_dir: Path, key_file: str) -> None:
    config = data_dir / "config.toml"
    for name, key, code in ((SWARM, KEY, 0), (SWARM, b"x" * 32, 9), ("other", b"x" * 32, 0)):
        write_key(Path(key_file), key)
        config.write_text(f'swarm_key = "{key_file}"\nswarm = "{name}"\n')
        file = saved(data_dir / "file", everybody())
        assert run("state", "verify", file, "--config", str(config)).returncode == code


@pytest.mark.parametrize(
    ("damage", "whose"),
    [
        (f"UPDATE entry SET body = x'00' WHERE place = {place_of(BOB, 0)}", BOB),
        (
            "UPDATE entry SET body = CAST(replace(body, 'upstairs', 'downhill') AS BLOB) "
            f"WHERE place = {place_of(AMY, 1)}",
            AMY,
        ),
        (f"DELETE FROM entry WHERE place = {place_of(BOB, 0)}", BOB),
        (f"DELETE FROM entry WHERE place = {place_of(BOB, 2)}", BOB),
        (f"DELETE FROM entry WHERE place = {place_of(BOB, 3)}", BOB),
        (f"UPDATE entry SET signature = zeroblob(64) WHERE place = {place_of(BOB, 3)}", BOB),
        (f"UPDATE entry SET signature = NULL WHERE place = {place_of(BOB, 3)}", BOB),
        (f"UPDATE chain SET ticket = zeroblob(64) WHERE id = {place_of(BOB, 0)} >> 16", BOB),
        ("UPDATE chain SET fork = NULL WHERE fork IS NOT NULL", EVE),
        ("UPDATE chain SET fork = x'00' WHERE fork IS NOT NULL", EVE),
    ],
)
def test_damage_on_the_disk_is_found(
    data_dir: Path, key_file: str, damage: str, whose: Author
) -> None:
    change(data_dir, damage)
    verify = ("state", "verify", "--swarm-key", key_file, *at(data_dir))
    done = run(*verify, "--json")
    assert done.returncode == errors.EXIT_INVALID
    report = json.loads(done.stdout)
    assert (report["ok"], report["logs"]) == (False, 4)
    (problem,) = report["problems"]
    assert (problem["peer"], problem["epoch"]) == (peer_text(whose.peer), EPOCH)
    done = run(*verify)
    assert done.returncode == errors.EXIT_INVALID
    (only,) = lines(done.stderr)
    assert only == f"swarm: {problem['peer']}, epoch {EPOCH}: {problem['text']}"
    assert "Everything holds." not in done.stdout.decode()


def kept_with(path: Path, author: Author, ticket: bytes) -> Path:
    """A database of one log, whatever it says."""
    held = Replica(SWARM, audit.Keyless(SWARM))
    held.restore(
        author.peer, author.epoch, author.bodies, {len(author.bodies) - 1: author.run().signature},
        ticket, 1, None,
    )  # fmt: skip
    return put(path, held)


def test_rules_and_tickets_are_checked_and_not_only_signatures(
    tmp_path: Path, key_file: str
) -> None:
    verify = ("state", "verify", "--json", "--swarm-key", key_file)
    broken = Author("bob", 2)
    broken.say(Capability(b"\x00\x01"))
    for number, (author, ticket, code) in enumerate(
        (
            (broken, certified(broken), "update"),
            (BOB, certified(AMY), "ticket"),
            (BOB, Certificates(SWARM, b"x" * 32).issue(BOB.peer, EPOCH), "ticket"),
            (BOB, stamped(BOB), "ticket"),
        )
    ):
        directory = tmp_path / str(number)
        directory.mkdir()
        done = run(*verify, *at(kept_with(directory, author, ticket)))
        assert done.returncode == errors.EXIT_INVALID
        (problem,) = json.loads(done.stdout)["problems"]
        assert (problem["peer"], problem["code"]) == (peer_text(author.peer), code)


def test_epochs_that_are_over_are_passed_over(
    data_dir: Path, key_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that has not run for weeks gives them up when it starts."""
    verify = ("state", "verify", "--json", "--swarm-key", key_file, *at(data_dir))
    monkeypatch.setattr(time, "time", lambda: NOW + EPOCH_S)
    report = as_json(run(*verify))
    assert (report["ok"], report["logs"]) == (True, 4)
    monkeypatch.setattr(time, "time", lambda: NOW + 2 * EPOCH_S)
    report = as_json(run(*verify))
    assert (report["ok"], report["logs"]) == (True, 0)


def test_what_is_damaged_is_passed_over_where_logs_are_shown(data_dir: Path) -> None:
    change(data_dir, f"UPDATE entry SET body = x'00' WHERE place = {place_of(BOB, 1)}")
    done = run("state", "show", *at(data_dir))
    assert done.returncode == 0
    assert "4 logs of 3 authors" in done.stdout.decode()
    (only,) = lines(done.stderr)
    assert only.startswith(f"swarm: the log of {peer_text(BOB.peer)} in epoch {EPOCH} is damaged.")
    assert run("state", "show", peer_text(AMY.peer), *at(data_dir)).stderr == b""


def test_what_cannot_be_read_is_passed_over_as_well(tmp_path: Path) -> None:
    """Signed by its author and kept by a node that checked nothing."""
    broken = Author("bob", 2)
    broken.say(Capability(b"\x00\x01"))
    kept_with(tmp_path, broken, certified(broken))
    for words in ((), (peer_text(BOB.peer),)):
        done = run("state", "show", *words, *at(tmp_path))
        (first, *_) = lines(done.stderr)
        assert first.startswith(f"swarm: the log of {peer_text(BOB.peer)} in epoch {EPOCH}")
    assert json.loads(run("state", "show", "--json", *at(tmp_path)).stdout)["damaged"] == 1


# --- verify: a file -------------------------------------------------------------------------------


def test_a_file_that_holds(tmp_path: Path, key_file: str) -> None:
    """At the time when it was written, however long ago that is."""
    held = everybody()
    file = saved(tmp_path / "logs", held, at=NOW - 1)
    report = as_json(run("state", "verify", file, "--json", "--swarm-key", key_file))
    assert report["ok"]
    assert (report["at"], report["logs"], report["root"]) == (int(NOW) - 1, 5, root_of(held))


def test_a_file_is_read_from_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(tmp_path / "logs", everybody(stamped))
    with open(file, "rb") as opened:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(opened))
        assert as_json(run("state", "verify", "-", "--json"))["logs"] == 5


def test_all_that_does_not_hold_is_named(tmp_path: Path, key_file: str) -> None:
    held = everybody()
    logs = {name: log_of(held, *name) for name in held.chains()}
    replace = msgspec.structs.replace
    for name, changes in (
        ((AMY.peer, EPOCH), {"signature": bytes(64)}),
        ((BOB.peer, EPOCH), {"ticket": certified(AMY)}),
        ((AMY.peer, EPOCH - 1), {"bodies": tuple(OLD.bodies[1:])}),
    ):
        logs[name] = Log(replace(logs[name].run, **changes), None)
    path = tmp_path / "logs"
    path.write_bytes(b"".join(write(Header(SWARM, int(NOW)), logs.values())))
    done = run("state", "verify", str(path), "--json", "--swarm-key", key_file)
    assert done.returncode == errors.EXIT_INVALID
    report = json.loads(done.stdout)
    found = {(one["peer"], one["epoch"]): one["code"] for one in report["problems"]}
    assert found == {
        (peer_text(AMY.peer), EPOCH): "bad-signature",
        (peer_text(BOB.peer), EPOCH): "ticket",
        (peer_text(AMY.peer), EPOCH - 1): "gap",
    }
    assert report["logs"] == 2
    told = run("state", "verify", str(path), "--swarm-key", key_file).stderr.decode()
    assert f"swarm: {peer_text(BOB.peer)}, epoch {EPOCH}: This ticket does not admit" in told


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_off_does_not_hold(tmp_path: Path, share: float) -> None:
    path = Path(saved(tmp_path / "logs", everybody(stamped)))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    done = run("state", "verify", str(path))
    assert done.returncode == errors.EXIT_INVALID
    assert "is cut off at byte" in done.stderr.decode()
    assert "Everything holds." not in done.stdout.decode()


def test_no_byte_of_a_file_can_be_changed(tmp_path: Path) -> None:
    held = Replica(SWARM, PUBLIC)
    small = Author("bob", 1)
    held.take(small.run(ticket=stamped(small)), NOW)
    path = Path(saved(tmp_path / "logs", held))
    data = path.read_bytes()
    for where in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[where] ^= 1
        path.write_bytes(damaged)
        assert run("state", "verify", str(path)).returncode == errors.EXIT_INVALID


def test_other_files_are_no_files_of_logs(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("nothing of the kind")
    done = run("state", "verify", str(path))
    assert (done.returncode, done.stdout) == (errors.EXIT_INVALID, b"")
    assert "It is no file of logs." in done.stderr.decode()
    done = run("state", "verify", str(tmp_path / "missing"))
    assert done.returncode == errors.EXIT_USAGE
    assert "No such file" in done.stderr.decode()
    done = run("state", "verify", str(tmp_path))
    assert done.returncode == errors.EXIT_USAGE


# --- export ---------------------------------------------------------------------------------------


def test_what_is_exported_is_what_is_held(data_dir: Path) -> None:
    held = everybody()
    path = data_dir / "logs"
    done = run("state", "export", str(path), *at(data_dir))
    assert (done.returncode, done.stderr) == (0, b"")
    assert lines(done.stdout) == [
        f"5 logs with {held.entries} entries of the swarm {SWARM}, root {root_of(held)}"
    ]
    assert path.stat().st_mode & 0o777 == 0o600
    reader = Reader([path.read_bytes()])
    assert reader.header == Header(SWARM, int(NOW))
    found = sorted(map(encode, reader))
    assert found == sorted(encode(log_of(held, *name)) for name in held.chains())
    assert run("state", "verify", str(path)).returncode == 0


def test_an_export_as_json(data_dir: Path) -> None:
    path = str(data_dir / "logs")
    found = as_json(run("state", "export", path, "--json", *at(data_dir)))
    assert found == {
        "file": path,
        "swarm": SWARM,
        "logs": 5,
        "entries": everybody().entries,
        "root": root_of(everybody()),
        "damaged": 0,
    }


def test_an_export_to_stdout(data_dir: Path) -> None:
    done = run("state", "export", "-", *at(data_dir))
    assert done.returncode == 0
    assert len(list(Reader([done.stdout]))) == 5
    assert "5 logs" in done.stderr.decode()


def test_a_file_of_logs_is_not_written_to_a_terminal(data_dir: Path) -> None:
    master, slave = pty.openpty()
    with open(slave, "w") as terminal, contextlib.redirect_stdout(terminal):
        assert main(["state", "export", "-", *at(data_dir)]) == errors.EXIT_USAGE
    os.close(master)


def test_epochs_that_are_over_are_not_exported(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW + EPOCH_S)
    path = data_dir / "logs"
    assert run("state", "export", str(path), *at(data_dir)).returncode == 0
    assert len(list(Reader([path.read_bytes()]))) == 4
    assert run("state", "verify", str(path)).returncode == 0


def test_what_is_damaged_is_left_out(data_dir: Path) -> None:
    change(data_dir, f"UPDATE entry SET body = x'00' WHERE place = {place_of(BOB, 1)}")
    path = data_dir / "logs"
    done = run("state", "export", str(path), *at(data_dir))
    assert done.returncode == errors.EXIT_INVALID
    assert peer_text(BOB.peer) in done.stderr.decode()
    assert len(list(Reader([path.read_bytes()]))) == 4
    assert run("state", "verify", str(path)).returncode == 0


def test_an_export_that_fails_leaves_what_was_there(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data_dir / "logs"
    path.write_bytes(b"before")

    def one_and_no_more(*args: Any) -> Iterator[bytes]:
        yield b"x"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state, "write", one_and_no_more)
    done = run("state", "export", str(path), *at(data_dir))
    assert done.returncode == errors.EXIT_USAGE
    assert f"{path} cannot be written: No space left" in done.stderr.decode()
    assert path.read_bytes() == b"before"
    assert list(data_dir.glob(".logs*")) == []


@pytest.mark.parametrize("where", ["", "missing/logs"])
def test_where_nothing_can_be_written_is_told(data_dir: Path, where: str) -> None:
    done = run("state", "export", str(data_dir / where), *at(data_dir))
    assert (done.returncode, done.stdout) == (errors.EXIT_USAGE, b"")


# --- import and label -----------------------------------------------------------------------------


class Daemon:
    """Handlers with scripted answers, and what they were asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.imported: object = methods.StateImported(9, 3, 6, 40)
        self.waits = ""
        self.ledger = methods.Ledger()

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "state-import": self._import,
            "state-label": self._label,
            "status": self._status,
        }

    async def _import(self, params: methods.StateImportParams, notify: Notify) -> object:
        self.asked.append(params.path)
        for event in (
            {"kind": "imported", "bytes": 10, "of": 20},
            {"kind": "something new"},
            {"kind": "imported", "bytes": "no number"},
        ):
            notify(Progress(AskId(""), event))
        if isinstance(self.imported, Exception):
            raise self.imported
        return self.imported

    async def _label(self, params: methods.StateLabelParams, notify: Notify) -> object:
        self.asked.append(params.label)
        return methods.StateLabelled(params.label, self.waits)

    async def _status(self, params: methods.Nothing, notify: Notify) -> methods.Status:
        return methods.Status("1.0", PEERS[0], "public", ledger=self.ledger)


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
def socket(daemon: Daemon) -> Iterator[str]:
    with short_directory() as directory, serving(directory, daemon.handlers()) as path:
        yield str(path)


def test_the_daemon_is_told_which_file_to_take_in(
    daemon: Daemon, socket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("state", "import", "logs", "--socket", socket)
    assert (done.returncode, done.stderr) == (0, b"")
    assert daemon.asked == [str(tmp_path / "logs")]
    assert lines(done.stdout) == ["9 logs: 3 with something new (40 entries), 6 known before"]


def test_how_far_it_is_goes_to_stderr_if_it_takes_long(
    socket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(0, 10_000, 30))
    monkeypatch.setattr("node.cli.progress.time.monotonic", lambda: float(next(seconds)))
    done = run("state", "import", "/logs", "--socket", socket)
    assert lines(done.stderr) == ["10 of 20 bytes", "0 of 20 bytes"]


def test_what_was_refused_and_found_is_told(daemon: Daemon, socket: str) -> None:
    daemon.imported = methods.StateImported(9, 3, 4, 40, 1, {"admission": 2, "forked" + HOSTILE: 1})
    done = run("state", "import", "/logs", "--socket", socket)
    assert done.returncode == 0
    assert lines(done.stdout) == [
        "9 logs: 3 with something new (40 entries), 1 newly known to have forked, 4 known before"
    ]
    assert lines(done.stderr)[0].startswith("swarm: refused: admission 2, forked")
    assert is_harmless(done.stderr)
    assert as_json(run("state", "import", "/logs", "--json", "--socket", socket)) == (
        msgspec.to_builtins(daemon.imported)
    )


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_damaged_file_is_told_and_ends_with_its_code(
    daemon: Daemon, socket: str, words: tuple[str, ...]
) -> None:
    daemon.imported = methods.StateImported(9, 9, damaged="Record 10 is cut off at byte 7.")
    done = run("state", "import", "/logs", *words, "--socket", socket)
    assert done.returncode == errors.EXIT_INVALID
    assert "Record 10 is cut off" in (done.stdout + done.stderr).decode()


def test_why_the_daemon_did_not_take_it_in_is_told(daemon: Daemon, socket: str) -> None:
    daemon.imported = UsageError("/logs is no file.")
    done = run("state", "import", "/logs", "--socket", socket)
    assert (done.returncode, done.stdout) == (errors.EXIT_USAGE, b"")
    assert "/logs is no file." in done.stderr.decode()
    done = run("state", "import", "-", "--socket", socket)
    assert done.returncode == errors.EXIT_USAGE


def test_a_label_is_told_to_the_daemon(daemon: Daemon, socket: str) -> None:
    done = run("state", "label", "the", "box upstairs", "--socket", socket)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"This node is called the box upstairs.\n"
    assert run("state", "label", "", "--socket", socket).stdout == b"This node has no name.\n"
    assert daemon.asked == ["the box upstairs", ""]
    daemon.waits = "No peer is linked."
    done = run("state", "label", "box", "--socket", socket)
    assert lines(done.stderr) == ["swarm: others hear of it later. No peer is linked."]
    found = as_json(run("state", "label", "box", "--json", "--socket", socket))
    assert found == {"label": "box", "waits": "No peer is linked."}


@pytest.mark.parametrize("label", ["x" * 65, "two\nlines", HOSTILE, "\u202e"])
def test_a_label_that_cannot_be_shown_is_wrong_usage(
    daemon: Daemon, socket: str, label: str
) -> None:
    done = run("state", "label", label, "--socket", socket)
    assert (done.returncode, done.stdout) == (errors.EXIT_USAGE, b"")
    assert daemon.asked == []


class Labels:
    """The own log as the handler of `state-label` uses it."""

    def __init__(self) -> None:
        self.own = self
        self.waits = "No peer is linked."
        self.labels: list[str] = []

    def label(self, label: str) -> None:
        self.labels.append(label)

    def standing(self) -> Labels:
        return self


async def test_the_daemon_puts_a_label_into_its_log() -> None:
    control = object.__new__(Control)
    anything: Any = (known := Labels())
    control._replication = anything
    done = await control._label(methods.StateLabelParams("box"), lambda progress: None)
    assert done == methods.StateLabelled("box", "No peer is linked.")
    assert known.labels == ["box"]


# --- status ---------------------------------------------------------------------------------------


def status(socket: str) -> dict[str, str]:
    found = lines(run("status", "--socket", socket).stdout)
    return {row[:11].strip(): row[11:] for row in found}


def test_the_status_of_a_node_that_is_well(daemon: Daemon, socket: str) -> None:
    daemon.ledger = methods.Ledger(
        epoch=2960,
        authors=12,
        entries=340,
        bytes=123_456,
        own_entries=14,
        ticket="stamp",
        root="ab" * 32,
        exchanges=7,
        last_exchange_s=4.2,
        joined=tuple(PEERS),
        agree=True,
    )
    found = status(socket)
    assert found["ledger"] == "12 authors, 340 entries, 121 KiB, epoch 2960"
    assert found["root"] == "ab" * 32
    assert found["own log"] == "14 entries, ticket: stamp"
    assert found["exchanges"] == "7, the last 4 s ago"
    assert found["joined"] == f"{PEERS[0][-8:]} {PEERS[1][-8:]}: they agree"
    assert not {"waits", "refused", "damaged"} & found.keys()


def test_the_status_of_a_node_that_is_not(daemon: Daemon, socket: str) -> None:
    daemon.ledger = methods.Ledger(
        guests=3,
        forked=2,
        own_waits="No peer is linked.",
        ticket="being made (37 %)",
        joined=(PEERS[0],),
        refused={"quota": 5, "bad-signature": 1},
        disconnected=1,
        moved_aside="/data/ledger.db.damaged-1",
    )
    found = status(socket)
    assert found["ledger"] == "0 authors and 3 guests, 2 forked, 0 entries, 0 B, epoch 0"
    assert found["root"] == "–"
    assert found["own log"] == "0 entries, ticket: being made (37 %)"
    assert found["waits"] == "No peer is linked."
    assert found["exchanges"] == "0"
    assert found["joined"] == f"{PEERS[0][-8:]}: one more is awaited"
    assert found["refused"] == "bad-signature 1, quota 5, 1 peer cut off"
    assert found["damaged"] == "what the database was is in /data/ledger.db.damaged-1"


def test_newcomers_that_disagree_are_told(daemon: Daemon, socket: str) -> None:
    daemon.ledger = methods.Ledger(joined=tuple(PEERS), agree=False, disconnected=2)
    found = status(socket)
    assert found["joined"].endswith("they do not agree")
    assert found["refused"] == "2 peers cut off"


def test_an_older_daemon_says_nothing_of_logs(daemon: Daemon, socket: str) -> None:
    assert status(socket)["ledger"] == "0 authors, 0 entries, 0 B, epoch 0"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (9999, "9999 B"),
        (10_000, "10 KiB"),
        (123_456, "121 KiB"),
        (10 << 20, "10 MiB"),
        (50 << 30, "50 GiB"),
    ],
)
def test_sizes_are_shown_in_few_digits(count: int, shown: str) -> None:
    assert text.size(count) == shown


def test_one_is_not_shown_as_several() -> None:
    assert [text.counted(count, "peer") for count in (0, 1, 2)] == ["0 peers", "1 peer", "2 peers"]
    assert text.counted(3, "entry", "entries") == "3 entries"


def test_a_time_is_shown_to_the_minute() -> None:
    assert moment(None) == "–"
    assert moment(NOW) == time.strftime("%Y-%m-%d %H:%M", time.localtime(NOW))
