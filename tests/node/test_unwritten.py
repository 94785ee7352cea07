"""What waits to be written: once for each chain, in turn, and nothing of it is lost on the way."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.replication.unwritten import Batch, Snapshot, Standing, Unwritten
from protocol.ids import PeerId
from swarm.ledger.replica import Name
from tests.swarm.ledger.authors import NOW, Author, replica

ONE, OTHER, THIRD = ((PeerId(bytes([index]) * 32), 7) for index in range(3))
STANDING = Standing(b"ticket", 3, None)


def snapshot(first: int, *bodies: bytes, standing: Standing | None = STANDING) -> Snapshot:
    return Snapshot(first, tuple((body, body * 2) for body in bodies), standing)


def test_a_snapshot_is_of_its_moment() -> None:
    author = Author("one", 5)
    held = replica(author.run(0, 2), author.run(2, 4))
    chain = held.chains()[author.peer, author.epoch]
    before = Snapshot.of(chain, 1)
    held.take(author.run(4), NOW)
    held.convict(author.fork(author.other(3), 3), NOW)
    assert before == Snapshot(
        1,
        (
            (author.bodies[1], author.run(0, 2).signature),
            (author.bodies[2], None),
            (author.bodies[3], author.run(0, 4).signature),
        ),
        Standing(author.ticket, author.quality, None),
    )
    assert before.end == 4
    after = Snapshot.of(chain, 3)
    assert (after.entries, after.end) == ((), 3)
    assert after.standing is not None
    assert after.standing.fork is not None


def test_a_chain_that_grows_twice_waits_once() -> None:
    waiting = Unwritten()
    waiting.put(ONE, snapshot(2, b"c"))
    waiting.put(ONE, snapshot(3, b"d", standing=Standing(b"better", 4, None)))
    assert waiting.take(100, 10_000) == {
        ONE: snapshot(2, b"c", b"d", standing=Standing(b"better", 4, None))
    }
    assert not waiting


def test_a_chain_that_is_cut_waits_shorter() -> None:
    waiting = Unwritten()
    waiting.put(ONE, snapshot(2, b"c", b"d", b"e"))
    waiting.put(ONE, snapshot(3))
    assert waiting.pop(ONE) == {ONE: snapshot(2, b"c")}
    waiting.put(ONE, snapshot(2, b"c"))
    waiting.put(ONE, snapshot(1))  # below all that waits
    assert waiting.pop(ONE) == {ONE: snapshot(1)}


def test_own_entries_leave_the_ticket_as_it_is() -> None:
    waiting = Unwritten()
    waiting.put(ONE, snapshot(0, b"a"))
    waiting.put(ONE, snapshot(1, b"b", standing=None))
    assert waiting.pop(ONE) == {ONE: snapshot(0, b"a", b"b")}
    waiting.put(ONE, None)
    waiting.put(ONE, snapshot(0, b"x", standing=None))
    # What is written over a chain that is to be deleted has nothing of it.
    assert waiting.pop(ONE) == {ONE: snapshot(0, b"x", standing=Standing(b"", -1, None))}


def test_a_deleted_chain_is_deleted_whatever_waited() -> None:
    waiting = Unwritten()
    waiting.put(ONE, snapshot(4, b"e"))
    waiting.put(ONE, None)
    assert waiting.pop(ONE) == {ONE: None}
    assert waiting.pop(ONE) == {}
    waiting.put(ONE, None)
    waiting.put(ONE, snapshot(0, b"new"))
    assert waiting.pop(ONE) == {ONE: snapshot(0, b"new")}


def test_the_first_come_is_written_first_however_often_it_changes() -> None:
    waiting = Unwritten()
    for name in (ONE, OTHER, THIRD):
        waiting.put(name, snapshot(0, b"a"))
    waiting.put(ONE, snapshot(1, b"b"))
    assert list(waiting.take(5, 100_000)) == [ONE, OTHER]
    assert list(waiting.take(5, 100_000)) == [THIRD]
    assert waiting.take(5, 100_000) == {}


@pytest.mark.parametrize(("entries", "size"), [(3, 1 << 30), (1 << 30, 2400)])
def test_a_batch_has_its_limits_and_always_something(entries: int, size: int) -> None:
    waiting = Unwritten()
    waiting.put(ONE, snapshot(0, b"a" * 1000, b"b" * 2000))
    waiting.put(OTHER, snapshot(0, b"a" * 500))
    waiting.put(THIRD, None)
    assert list(waiting.take(entries, size)) == [ONE]  # beyond one of the limits by itself
    assert list(waiting.take(entries, size)) == [OTHER, THIRD]
    assert waiting.size == 0


def test_what_was_not_written_waits_again_below_what_came_since() -> None:
    waiting = Unwritten()
    waiting.put(ONE, snapshot(0, b"a", b"b", b"c"))
    waiting.put(OTHER, None)
    waiting.put(THIRD, snapshot(0, b"a"))
    batch = waiting.take(100, 100_000)
    waiting.put(ONE, snapshot(2, b"C", b"d"))
    waiting.put(OTHER, snapshot(0, b"new"))
    waiting.put(THIRD, None)
    waiting.put_back(batch)
    assert waiting.pop(ONE) == {ONE: snapshot(0, b"a", b"b", b"C", b"d")}
    assert waiting.pop(OTHER) == {OTHER: snapshot(0, b"new")}
    assert waiting.pop(THIRD) == {THIRD: None}
    assert waiting.size == 0


# --- whatever happens, the disk ends up as if everything had been written at once -----------------


@dataclass
class Disk:
    """What a batch makes of a disk."""

    chains: dict[Name, tuple[list[bytes], Standing]] = field(default_factory=dict)

    def write(self, batch: Batch) -> None:
        for name, one in batch.items():
            if one is None:
                self.chains.pop(name, None)
                continue
            bodies, standing = self.chains.get(name, ([], Standing(b"", -1, None)))
            assert one.first <= len(bodies)
            bodies = bodies[: one.first] + [body for body, _ in one.entries]
            self.chains[name] = bodies, one.standing or standing


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["change", "change", "own", "delete", "write", "fail"]),
        st.sampled_from([ONE, OTHER]),
        st.integers(0, 5),
        st.lists(st.binary(min_size=1, max_size=3), max_size=3),
    ),
    max_size=20,
)


@given(STEPS)
def test_the_disk_ends_as_if_all_had_been_written_at_once(
    steps: list[tuple[str, Name, int, list[bytes]]],
) -> None:
    waiting, disk, at_once = Unwritten(), Disk(), Disk()
    for step, name, place, bodies in steps:
        if step in ("change", "own"):
            end = len(at_once.chains.get(name, ([], STANDING))[0])
            standing = Standing(bytes([place]), place, None) if step == "change" else None
            one = snapshot(min(place, end), *bodies, standing=standing)
            waiting.put(name, one)
            at_once.write({name: one})
        elif step == "delete":
            waiting.put(name, None)
            at_once.write({name: None})
        else:
            batch = waiting.take(1 + place, 1 << 20)
            if step == "write":
                disk.write(batch)
            else:
                # A change comes while the disk fails.
                late = snapshot(0, *bodies)
                waiting.put(name, late)
                at_once.write({name: late})
                waiting.put_back(batch)
    while waiting:
        disk.write(waiting.take(1, 1))
    assert disk == at_once
    assert waiting.size == 0
