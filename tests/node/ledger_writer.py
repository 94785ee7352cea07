"""A process that writes its log until it is killed, and tells what may leave it.

One that has imported everything makes the others, each with a life of its own: this takes a
hundredth of the time. They speak in lines:

========================= =====================================================================
``life DIR NUMBER EPOCH`` asked for: one that goes on where the last one was killed
``stop DIR POINT``        asked for: one that kills itself at a point of a write
``pid N``                 which process it is
``loaded N``              what it found of its own log
``own SEQ DIGEST``        this entry is said to be kept: now it may leave
``kept``                  something of others was handed over
``written N``             so many entries of others are in the database
``dead``                  it has ended
========================= =====================================================================
"""

from __future__ import annotations

import os
import random
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from node import atomic
from node.replication import database as database_module
from node.replication import ledger_rows
from node.replication.mark import Marks
from protocol.ledger import entry_digest
from tests.node.ledgers import OWN, Node, opened, resumed
from tests.swarm.ledger.authors import EPOCH, NOW, Author

OTHERS = 4
OWN_WRITES = 5
"""In one life: an epoch has room for some 300 entries."""
POINTS = ("before the commit", "after the commit", "before the mark", "after the mark")


def others() -> list[Author]:
    return [Author(f"peer {index}", 200, quality=index + 1) for index in range(OTHERS)]


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def held_of_others(node: Node) -> int:
    chains = node.replica.chains().items()
    return sum(len(chain.bodies) for (author, _), chain in chains if author != OWN)


async def write_own(node: Node, epoch: int, entries: int, accent: str) -> None:
    chain = node.replica.chain(OWN, epoch)
    author = resumed(chain.bodies if chain is not None else (), epoch, accent)
    first = len(author.bodies)
    for _ in range(entries):
        author.write()
    await node.write_own(author.run(first, ticket=False))
    for seq, body in enumerate(author.bodies[first:], first):
        say(f"own {seq} {entry_digest(body).hex()}")


async def live(data_dir: Path, number: int, epoch: int, known: list[Author]) -> None:
    """Write without end: the own log, and what others say."""
    rng = random.Random(number)
    async with opened(data_dir) as node:
        assert node.refused == []
        assert node.database.moved_aside is None
        own = node.replica.chain(OWN, epoch)
        say(f"loaded {len(own.bodies) if own is not None else 0}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.database.run)
            left = OWN_WRITES
            while True:
                draw = rng.random()
                if draw < 0.4 and left:
                    left -= 1
                    # What it says next is not what it said in its last life.
                    await write_own(node, epoch, rng.randint(1, 2), f"life {number}")
                elif draw < 0.5:
                    await node.written()
                    say(f"written {held_of_others(node)}")
                else:
                    author = rng.choice(known)
                    chain = node.replica.chain(author.peer, EPOCH)
                    held = len(chain.bodies) if chain is not None else 0
                    if held < len(author.bodies):
                        node.take(author.run(held, held + rng.randint(1, 5)), now=NOW)
                    say("kept")
                    await trio.sleep(0.0002 * rng.randint(0, 5))


async def stop_at(data_dir: Path, point: str) -> None:
    """Write twice, and be killed at a point of the second time."""

    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async with opened(data_dir) as node:
        await write_own(node, EPOCH, 2, "")
        if point == "before the commit":
            transaction = ledger_rows.transaction

            @contextmanager
            def cut_short(database: Any) -> Any:
                with transaction(database):
                    yield
                    die()

            ledger_rows.transaction = cut_short  # type: ignore[assignment]
        elif point == "after the commit":
            Marks.raise_to = die  # type: ignore[method-assign, assignment]
        elif point == "before the mark":
            os.replace = die  # type: ignore[assignment]
        else:
            atomic.sync_directory = die
        await write_own(node, EPOCH, 3, "")


def serve() -> None:
    """Make a process for each line that is asked, and wait for its end."""
    known = others()
    database_module.SETTLE_S = 0.001  # type: ignore[misc]
    for line in sys.stdin:
        kind, data_dir, *rest = line.rstrip("\n").split("\t")
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            say("dead")
            continue
        say(f"pid {os.getpid()}")
        try:
            if kind == "life":
                number, epoch = map(int, rest)
                trio.run(live, Path(data_dir), number, epoch, known)
            else:
                trio.run(stop_at, Path(data_dir), *rest)
        except BaseException as error:
            say(f"failed {error!r}")
        os._exit(1)


if __name__ == "__main__":
    serve()
