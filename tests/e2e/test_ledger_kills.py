"""A daemon that is killed, over and over, while it fetches the logs of others and writes its own.

Six kills, or as many as ``SWARMD_KILLS`` says.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

from node.local_swarm import LocalSwarm, Member
from node.replication.mark import Mark, Marks
from protocol.ids import PeerId
from protocol.sync import AnyRequest, Want
from swarm.seeded import Stream
from tests.e2e.conftest import honest
from tests.e2e.members import (
    POLL_S,
    SWARM,
    Author,
    Node,
    bodies,
    call,
    daemons,
    joined,
    on_disk,
    peer_of,
    until,
    until_alike,
)

pytestmark = pytest.mark.e2e

_log = logging.getLogger(__name__)

KILLS = int(os.environ.get("SWARMD_KILLS", "6"))
SERIES = 10
"""Kills of one daemon: there is a bound on how often a log may change in a day."""
FIRST_AUTHORS = 200
MORE_AUTHORS = 100
ENTRIES = 20
LATER_S = {"wanting": 0.08, "serving": 1.2}
"""What a daemon is told is on its disk within the first, what it fetches within the second."""


@dataclass(frozen=True)
class Kill:
    """Attributes:
    point: one of :mod:`tests.e2e.mortal`; or ``serving``, some time after it has asked a peer for
        entries; or ``wanting``, some time after a peer has seen COUNT entries of its own.
    later: how far into ``LATER_S``.
    """

    point: str
    count: int
    later: float

    @property
    def program(self) -> tuple[str, ...]:
        """What to start instead of swarmd."""
        if self.point in ("serving", "wanting"):
            return (sys.executable, "-m", "node.daemon")
        return (sys.executable, "-m", "tests.e2e.mortal", self.point, str(self.count))


COUNTS = {
    # While it fetches: at least so many times each point is passed where there is enough to fetch.
    "serving": 1,
    "reply": 6,
    "row": 400,
    "commit": 4,
    "ask": 6,
    "taken": 90,
    # While it writes.
    "wanting": 3,
    "unmarked": 3,
    "marked": 3,
    "renaming": 3,
}
ORDER = (
    *("reply", "unmarked", "row", "marked", "serving", "wanting"),
    *("taken", "renaming", "ask", "commit"),
)
WRITING = ("unmarked", "renaming", "marked", "wanting")


def kills(series: int) -> list[Kill]:
    """What befalls a daemon: the points in turn, each at another time."""
    draws = Stream(f"kills {series}".encode())
    numbers = range(series * SERIES, min((series + 1) * SERIES, KILLS))
    points = [ORDER[number % len(ORDER)] for number in numbers]
    return [Kill(one, draws.between(1, COUNTS[one]), draws.below(1000) / 1000) for one in points]


class Scene:
    """A daemon, and two peers that have more to tell each time that it starts.

    Attributes:
        authors: all that are told of.
        found: how often it was killed in which state.
    """

    def __init__(self, swarm: LocalSwarm, peers: Sequence[Node]) -> None:
        self.swarm = swarm
        self.daemon: Member = swarm.members[0]
        self.peers = peers
        self.authors: dict[PeerId, Author] = {}
        self._labels = 0
        self.found: Counter[str] = Counter()
        self.asked = False
        for peer in peers:
            peer.mesh.asked = self._heard

    @property
    def own(self) -> PeerId:
        return peer_of(self.daemon)

    async def tell(self, count: int) -> None:
        """Let there be ``count`` authors more, of whom each peer knows half."""
        fresh = [Author(f"author {len(self.authors) + at}", ENTRIES) for at in range(count)]
        for at, peer in enumerate(self.peers):
            await peer.hold(fresh[at::2])
        self.authors |= {one.peer: one for one in fresh}

    def seen(self) -> int:
        """How many entries of the daemon somebody has."""
        return max(len(bodies(peer.chain(self.own))) for peer in self.peers)

    def start(self, program: tuple[str, ...]) -> None:
        self.daemon.spec = replace(self.daemon.spec, program=program)
        self.swarm.launch(self.daemon)

    async def label(self) -> None:
        """Have it say one thing after the other."""
        while True:
            self._labels += 1
            if await call(self.daemon, "state-label", label=f"label {self._labels}"):
                # What is wanted together is one entry.
                seen = self.seen()
                with trio.move_on_after(1.0):
                    await until(lambda seen=seen: self.seen() > seen)
            await trio.sleep(POLL_S)

    async def until_killed(self, kill: Kill) -> None:
        """Wait until the daemon has been killed as ``kill`` says."""
        process = self.daemon.process
        assert process is not None
        async with trio.open_nursery() as nursery:
            if kill.point in WRITING:
                nursery.start_soon(self.label)
            if kill.point in LATER_S:
                nursery.start_soon(self._kill_later, kill)
            await until(lambda: process.poll() is not None)
            nursery.cancel_scope.cancel()
        assert process.returncode == -signal.SIGKILL, self.daemon.log.read_text()[-4000:]
        self.swarm.kill(self.daemon)

    async def _kill_later(self, kill: Kill) -> None:
        self.asked = False
        seen = self.seen()
        await until(
            lambda: self.asked if kill.point == "serving" else self.seen() - seen >= kill.count
        )
        await trio.sleep(kill.later * LATER_S[kill.point])
        assert self.daemon.process is not None
        self.daemon.process.kill()

    def _heard(self, asker: PeerId, request: AnyRequest) -> None:
        self.asked |= asker == self.own and isinstance(request, Want)

    def check(self) -> None:
        """What is on the disk of the daemon, which does not run, is what a node may have held, and
        no peer holds anything of it that is not there."""
        disk = on_disk(self.daemon.data_dir, self.own)
        held = 0
        for (author, epoch), chain in disk.chains().items():
            assert chain.fork is None
            if author in self.authors:
                said = self.authors[author].bodies
                assert chain.bodies == said[: len(chain.bodies)]
                held += len(chain.bodies)
            elif author != self.own:
                (peer,) = (one for one in self.peers if one.peer == author)
                said = bodies(peer.replica.chain(author, epoch))
                assert chain.bodies == said[: len(chain.bodies)]
        own = disk.latest(self.own)
        ahead = 0
        for peer in self.peers:
            seen = peer.chain(self.own)
            assert seen is None or seen.fork is None
            assert bodies(own)[: len(bodies(seen))] == bodies(seen)
            ahead = max(ahead, len(bodies(own)) - len(bodies(seen)))
        if own is not None:
            mark = Marks(self.daemon.data_dir).get(SWARM, self.own, own.epoch)
            assert mark is None or isinstance(mark, Mark)
            counted = mark.entries if isinstance(mark, Mark) else 0
            assert self.seen() <= counted <= len(own.bodies)
            self.found["with entries on disk that are not counted"] += len(own.bodies) > counted
        self.found["with entries of its own that nobody had seen"] += ahead > 0
        self.found["with some of what there was to fetch"] += 0 < held < len(self.authors) * ENTRIES


@pytest.mark.parametrize("series", range(-(-KILLS // SERIES)))
async def test_a_daemon_that_is_killed_at_any_time_goes_on_where_it_was(
    series: int, tmp_path: Path, script: Callable[..., str]
) -> None:
    async with joined(tmp_path, "one") as one, joined(tmp_path, "other", one.address) as other:
        with daemons(tmp_path, [honest(script("42"))], one, other) as swarm:
            scene = Scene(swarm, (one, other))
            await scene.tell(FIRST_AUTHORS - MORE_AUTHORS)
            for kill in kills(series):
                if kill.point not in WRITING:
                    await scene.tell(MORE_AUTHORS)
                _log.info("%s", kill)
                scene.start(kill.program)
                await scene.until_killed(kill)
                scene.check()
            scene.start((sys.executable, "-m", "node.daemon"))
            found = await until_alike(swarm.members, one, other)
            assert found["authors"] == len(scene.authors) + 3
            assert found["forked"] == 0
            assert found["moved_aside"] == ""
            await call(scene.daemon, "state-label", label="the end")
            await until(lambda: all(peer.label(scene.own) == "the end" for peer in scene.peers))
            await until_alike(swarm.members, one, other)
            swarm.kill(scene.daemon)
            scene.check()
            _log.info("killed %s", dict(scene.found))
