"""Files of logs are taken in like what a peer sends: in slices, and whatever holds of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from node.replication import importing
from node.replication.importing import LOGS_AT_ONCE, Importer
from protocol.bundle import Header, Log, write
from protocol.errors import (
    AdmissionError,
    BundleError,
    BusyError,
    ForkedError,
    ProtocolError,
    StoreError,
    UsageError,
)
from protocol.ids import PeerId
from protocol.ledger import Fork, Run
from protocol.methods import Progress, StateImported, StateImportParams
from swarm.ledger.audit import log_of
from swarm.ledger.steps import Outcome
from tests.swarm.ledger.authors import EPOCH, NOW, SWARM, Author, held, replica

AMY, BOB = Author("amy", 4), Author("bob", 3)


class Node:
    """A replica behind :class:`Importer`, and what it was told meanwhile."""

    def __init__(self) -> None:
        self.replica = replica()
        self.calls: list[tuple[int, int]] = []
        self.events: list[dict[str, Any]] = []
        self.begun = trio.Event()
        self.held_up: trio.Event | None = None
        self.importer = Importer(self.take, SWARM)

    async def take(
        self, runs: Iterable[Run], forks: Iterable[Fork], source: PeerId | None
    ) -> list[Outcome]:
        assert source is None
        runs, forks = list(runs), list(forks)
        self.calls.append((len(runs), len(forks)))
        self.begun.set()
        if self.held_up is not None:
            await self.held_up.wait()
        await trio.lowlevel.checkpoint()
        outcomes: list[Outcome] = []
        for one in (*forks, *runs):
            try:
                if isinstance(one, Fork):
                    outcomes.append(self.replica.convict(one, NOW))
                else:
                    outcomes.append(self.replica.take(one, NOW))
            except ProtocolError as error:
                outcomes.append(error)
        return outcomes

    async def import_(self, path: Path) -> StateImported:
        return await self.importer.take_file(StateImportParams(str(path)), self.notify)

    def notify(self, progress: Progress) -> None:
        self.events.append(progress.event)


@pytest.fixture
def node() -> Node:
    return Node()


def save(path: Path, *logs: Log, swarm: str = SWARM) -> Path:
    path.write_bytes(b"".join(write(Header(swarm, int(NOW)), logs)))
    return path


def log(author: Author, *others: Author) -> Log:
    """What a node holds that has heard ``author`` and then ``others``."""
    found = replica(author.run())
    for other in others:
        found.take(other.run(), NOW)
    return log_of(found, author.peer, author.epoch)


async def test_what_is_new_is_taken(node: Node, tmp_path: Path) -> None:
    path = save(tmp_path / "logs", log(AMY), log(BOB))
    assert await node.import_(path) == StateImported(logs=2, new=2, entries=7)
    assert held(node.replica) == held(replica(AMY.run(), BOB.run()))
    again = await node.import_(path)
    assert again == StateImported(logs=2, known=2)


async def test_of_a_log_that_goes_on_the_rest_is_new(node: Node, tmp_path: Path) -> None:
    node.replica.take(AMY.run(0, 3), NOW)
    node.replica.take(BOB.run(), NOW)
    path = save(tmp_path / "logs", log(AMY), log(BOB))
    assert await node.import_(path) == StateImported(logs=2, new=1, known=1, entries=1)


async def test_forks_are_taken_with_their_proofs(node: Node, tmp_path: Path) -> None:
    logs = (log(AMY, AMY.other(2)), log(BOB), log(Author("eve", 2), Author("eve", 2).other(0)))
    assert logs[2].run is None
    path = save(tmp_path / "logs", *logs)
    done = await node.import_(path)
    assert done == StateImported(logs=3, new=3, entries=2 + 3, forks=2)
    chain = node.replica.chain(AMY.peer, EPOCH)
    assert chain is not None
    assert (chain.forked_at, len(chain.bodies)) == (2, 2)
    assert await node.import_(path) == StateImported(logs=3, known=3)


async def test_a_fork_that_shows_only_here_counts(node: Node, tmp_path: Path) -> None:
    """Neither the node nor the file knew."""
    node.replica.take(AMY.run(), NOW)
    done = await node.import_(save(tmp_path / "logs", log(AMY.other(1))))
    assert done == StateImported(logs=1, new=1, forks=1)


async def test_what_is_refused_is_counted_by_its_reason(node: Node, tmp_path: Path) -> None:
    node.replica.take(AMY.run(), NOW)
    node.replica.take(AMY.other(0).run(), NOW)
    guest = Log(Author("guest", 1).run(ticket=False), None)
    unsigned = Log(Run(tuple(BOB.bodies), bytes(64), BOB.ticket), None)
    old = log(Author("old", 1, epoch=EPOCH - 1))
    path = save(tmp_path / "logs", log(AMY), guest, unsigned, log(Author("eve", 1)), old, guest)
    assert await node.import_(path) == StateImported(
        logs=6,
        new=2,
        entries=2,
        refused={AdmissionError.code: 2, ForkedError.code: 1, "bad-signature": 1},
    )


async def test_what_the_disk_refuses_is_counted_too(node: Node, tmp_path: Path) -> None:
    async def full(
        runs: Iterable[Run], forks: Iterable[Fork], source: PeerId | None
    ) -> list[Outcome]:
        return [StoreError("full") for _ in (*forks, *runs)]

    importer = Importer(full, SWARM)
    path = save(tmp_path / "logs", log(AMY, AMY.other(2)), log(BOB))
    done = await importer.take_file(StateImportParams(str(path)), node.notify)
    assert done == StateImported(logs=2, refused={"store": 2})


async def test_of_a_log_the_proof_may_be_new_and_the_rest_refused(
    node: Node, tmp_path: Path
) -> None:
    found = log(AMY, AMY.other(3))
    assert found.run is not None
    unsigned = msgspec.structs.replace(found.run, signature=bytes(64))
    done = await node.import_(save(tmp_path / "logs", Log(unsigned, found.fork)))
    assert done == StateImported(logs=1, new=1, forks=1, refused={"bad-signature": 1})


# --- slices ---------------------------------------------------------------------------------------


async def test_a_long_file_is_taken_in_slices_and_tells_how_far_it_is(
    node: Node, tmp_path: Path
) -> None:
    count = 2 * LOGS_AT_ONCE + 3
    authors = [Author(f"author {number}", 1) for number in range(count)]
    path = save(tmp_path / "logs", *map(log, authors))
    assert await node.import_(path) == StateImported(logs=count, new=count, entries=count)
    assert node.calls == [(LOGS_AT_ONCE, 0), (LOGS_AT_ONCE, 0), (3, 0)]
    size = path.stat().st_size
    assert [event["kind"] for event in node.events] == ["imported"] * 3
    assert [event["of"] for event in node.events] == [size] * 3
    done = [event["bytes"] for event in node.events]
    assert done == sorted(set(done))
    assert 0 < done[0] < size / 2 < done[2] <= size


async def test_one_file_at_a_time(node: Node, tmp_path: Path) -> None:
    path = save(tmp_path / "logs", log(AMY))
    node.held_up = trio.Event()
    results: list[StateImported] = []
    async with trio.open_nursery() as nursery:

        async def one() -> None:
            results.append(await node.import_(path))

        nursery.start_soon(one)
        await node.begun.wait()
        with pytest.raises(BusyError):
            await node.import_(path)
        node.held_up.set()
    assert results == [StateImported(logs=1, new=1, entries=4)]
    assert (await node.import_(path)).known == 1


async def test_the_next_one_may_follow_whatever_happened(node: Node, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        await node.import_(tmp_path / "nothing")
    assert (await node.import_(save(tmp_path / "logs", log(AMY)))).new == 1


# --- files that are none --------------------------------------------------------------------------


async def test_what_comes_before_the_damage_is_taken(node: Node, tmp_path: Path) -> None:
    path = save(tmp_path / "logs", log(AMY), log(BOB), log(Author("eve", 1)))
    data = path.read_bytes()
    cut = data.index(BOB.bodies[1])
    path.write_bytes(data[:cut])
    done = await node.import_(path)
    assert (done.logs, done.new, done.entries) == (1, 1, 4)
    assert done.damaged.startswith(f"Record 2 is cut off at byte {cut}")
    path.write_bytes(data[:-1])
    done = await node.import_(path)
    assert (done.logs, done.new, done.known) == (3, 2, 1)
    assert done.damaged.startswith("Record 4 is cut off")


@pytest.mark.parametrize("kept", [0, 1])
async def test_slices_before_the_damage_are_taken(node: Node, tmp_path: Path, kept: int) -> None:
    authors = [Author(f"author {number}", 1) for number in range(LOGS_AT_ONCE + kept)]
    path = save(tmp_path / "logs", *map(log, authors))
    data = path.read_bytes()
    path.write_bytes(data + b"x")
    done = await node.import_(path)
    assert (done.new, done.damaged[:9]) == (len(authors), "Something")


async def test_a_file_of_another_swarm_is_refused_whole(node: Node, tmp_path: Path) -> None:
    path = save(tmp_path / "logs", log(AMY), swarm="friends")
    with pytest.raises(UsageError, match=f"the swarm friends; this node is in {SWARM}"):
        await node.import_(path)
    assert node.calls == []


@pytest.mark.parametrize("data", [b"", b"no file of logs at all", b"swarmd ledger 1\n\xff\xff"])
async def test_other_files_are_refused(node: Node, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "logs"
    path.write_bytes(data)
    with pytest.raises(BundleError):
        await node.import_(path)


async def test_nothing_is_waited_for_that_may_never_come(node: Node, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, Path("/dev/zero")):
        with trio.fail_after(10), pytest.raises(UsageError, match="is no file"):
            await node.import_(path)


async def test_why_a_file_cannot_be_read_is_said(node: Node, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        await node.import_(tmp_path / "nothing")
    with pytest.raises(UsageError, match="null byte"):
        await node.importer.take_file(StateImportParams("/a\0b"), node.notify)


async def test_a_disk_that_fails_midway_is_damage(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "PIECE_BYTES", 256)
    path = save(tmp_path / "logs", log(AMY), log(BOB))

    class Failing:
        name = str(path)

        def __init__(self, reads: int) -> None:
            self.file = path.open("rb")
            self.reads = reads

        def __enter__(self) -> Failing:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def fileno(self) -> int:
            return self.file.fileno()

        def read(self, size: int) -> bytes:
            self.reads -= 1
            if self.reads < 0:
                raise OSError(5, "Input/output error")
            return self.file.read(size)

    whole = -(-len(path.read_bytes()) // 256)
    monkeypatch.setattr(importing, "_open", lambda _: Failing(whole - 2))
    done = await node.import_(path)
    assert (done.new, done.damaged) == (1, "Input/output error.")
    monkeypatch.setattr(importing, "_open", lambda _: Failing(0))
    with pytest.raises(UsageError, match="Input/output error"):
        await node.import_(path)
