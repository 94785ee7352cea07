"""kill -9, at any instant: what was said to be kept is there, and no place is written twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from node.replication.database import LedgerDatabase, Mark
from node.replication.mark import Marks
from protocol.ledger import entry_digest
from tests.node.ledger_writer import POINTS, held_of_others, others
from tests.node.ledgers import OWN, Node, data_directory
from tests.swarm.ledger.authors import EPOCH, SWARM

LIVES = 50
ROOT = Path(__file__).parents[2]


class Writer:
    """The process that makes those that are killed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, *words: object) -> int:
        """Have one made. Its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write("\t".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        (pid,) = self.hear("pid")
        return int(pid)

    def hear(self, *kinds: str) -> list[str]:
        """The rest of the next line, which is of one of ``kinds``."""
        assert self._process.stdout is not None
        kind, *rest = self._process.stdout.readline().split()
        assert kind in kinds, (kind, rest)
        return rest if len(kinds) == 1 else [kind, *rest]


@pytest.fixture(scope="module")
def writer() -> Iterator[Writer]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.node.ledger_writer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        # Whoever waits for a line then hears that there is none.
        watchdog = threading.Timer(120.0, process.kill)
        watchdog.start()
        yield Writer(process)
        watchdog.cancel()
        process.kill()


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with data_directory() as path:
        yield path


async def restarted(data_dir: Path, epoch: int) -> tuple[list[bytes], int]:
    """The own log as the disk has it now, and how much of others.

    Everything is whole, the mark is not beyond the database, and at it once it was opened.
    """
    before = Marks(data_dir).get(SWARM, OWN, epoch)
    async with LedgerDatabase.open(data_dir, SWARM, OWN) as database:
        assert database.moved_aside is None
        node = await Node(database).load()
        assert node.refused == []
        for author in others():
            chain = node.replica.chain(author.peer, EPOCH)
            if chain is not None:
                assert chain.bodies == author.bodies[: len(chain.bodies)]
                assert chain.ticket == author.ticket
        own = node.replica.chain(OWN, epoch)
        bodies = list(own.bodies) if own is not None else []
        if isinstance(before, Mark):
            assert before.entries <= len(bodies)
            assert before.head == entry_digest(bodies[before.entries - 1])
        else:
            assert before is None
        mark = Mark(epoch, len(bodies), entry_digest(bodies[-1])) if bodies else None
        assert database.own_mark(epoch) == mark
        return bodies, held_of_others(node)


def test_whenever_it_is_killed_it_goes_on_where_it_was(writer: Writer, data_dir: Path) -> None:
    rng = random.Random(8)
    told: dict[tuple[int, int], str] = {}
    written = 0
    for number in range(LIVES):
        # An epoch has room for so many lives.
        epoch = EPOCH - 1 + number // (LIVES // 2)
        pid = writer.ask("life", data_dir, number, epoch)
        writer.hear("loaded")
        lines = rng.randrange(12)
        while True:
            if not lines:
                os.kill(pid, signal.SIGKILL)
            lines -= 1
            # What it had said by then counts, also where it was heard later.
            kind, *rest = writer.hear("own", "kept", "written", "dead")
            if kind == "dead":
                break
            if kind == "own":
                # A place that was told twice would convict it.
                assert told.setdefault((epoch, int(rest[0])), rest[1]) == rest[1]
            if kind == "written":
                written = int(rest[0])
        marked = Marks(data_dir).get(SWARM, OWN, epoch)
        bodies, entries = trio.run(restarted, data_dir, epoch)
        assert entries >= written
        for (at, seq), digest in told.items():
            if at == epoch:
                assert entry_digest(bodies[seq]).hex() == digest
                assert isinstance(marked, Mark)
                assert marked.entries > seq  # it was marked before it could leave
    assert len(told) > LIVES
    assert {at for at, _ in told} == {EPOCH - 1, EPOCH}
    assert written > LIVES


@pytest.mark.parametrize("point", POINTS)
def test_at_each_point_of_a_write(point: str, writer: Writer, data_dir: Path) -> None:
    writer.ask("stop", data_dir, point)
    told = [writer.hear("own") for _ in range(2)]
    writer.hear("dead")
    marked = Marks(data_dir).get(SWARM, OWN, EPOCH)
    assert isinstance(marked, Mark)
    assert marked.entries == (5 if point == "after the mark" else 2)
    bodies, _ = trio.run(restarted, data_dir, EPOCH)
    assert len(bodies) == (2 if point == "before the commit" else 5)
    assert [[str(seq), entry_digest(bodies[seq]).hex()] for seq in range(2)] == told
    # The next one writes behind it.
    pid = writer.ask("life", data_dir, 1, EPOCH)
    assert writer.hear("loaded") == [str(len(bodies))]
    while (heard := writer.hear("own", "kept", "written"))[0] != "own":
        pass
    assert heard[1] == str(len(bodies))
    os.kill(pid, signal.SIGKILL)
    while writer.hear("own", "kept", "written", "dead") != ["dead"]:
        pass
