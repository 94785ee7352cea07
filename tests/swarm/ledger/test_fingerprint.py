"""One digest of all logs: the same for the same, another for anything else."""

from __future__ import annotations

from collections.abc import Generator
from itertools import combinations, permutations

from protocol.ids import Digest
from swarm.ledger.fingerprint import Fingerprint, summary
from swarm.ledger.replica import Replica
from swarm.ledger.steps import PAUSE, Pause
from tests.swarm.ledger.authors import EPOCH, NOW, Author, replica

AMY, BOB, EVE = (Author(name, 3) for name in ("amy", "bob", "eve"))
OLD = Author("amy", 2, epoch=EPOCH - 1)


def root(held: Replica, epoch: int = EPOCH) -> Digest:
    found = Fingerprint(epoch)
    for chain in held.chains().values():
        found.add(chain)
    return found.root


def paced(steps: Generator[Pause, object, Digest]) -> tuple[int, Digest]:
    """How many pauses there are, and what comes out."""
    pauses = 0
    while True:
        try:
            assert next(steps) is PAUSE
        except StopIteration as end:
            return pauses, end.value
        pauses += 1


def test_the_order_does_not_count() -> None:
    runs = (AMY.run(), BOB.run(), EVE.run(), OLD.run())
    assert len({root(replica(*some)) for some in permutations(runs)}) == 1


def test_anything_that_differs_counts() -> None:
    better = Author("bob", 3, quality=2)
    other = AMY.other(2)
    forked = replica(AMY.run())
    forked.take(other.run(), NOW)
    earlier = replica(AMY.run())
    earlier.take(AMY.other(1).run(), NOW)
    first = replica(AMY.run())
    first.take(AMY.other(0).run(), NOW)
    roots = [
        root(replica()),
        root(replica(AMY.run())),
        root(replica(AMY.run(0, 2))),
        root(replica(other.run())),
        root(replica(OLD.run())),
        root(replica(AMY.run(), OLD.run())),
        root(replica(AMY.run(), BOB.run())),
        root(replica(AMY.run(), better.run())),
        root(forked),
        root(earlier),
        root(first),
    ]
    for one, another in combinations(roots, 2):
        assert one != another


def test_a_shorter_log_is_not_one_that_is_forked_there() -> None:
    forked = replica(AMY.run())
    forked.take(AMY.other(2).run(), NOW)
    assert root(forked) != root(replica(AMY.run(0, 2)))


def test_whoever_was_shown_which_fork_first() -> None:
    one, other = replica(AMY.run()), replica(AMY.other(1, 3).run())
    one.take(AMY.other(1, 3).run(), NOW)
    other.take(AMY.run(), NOW)
    assert root(one) == root(other)


def test_guests_do_not_count() -> None:
    held = replica(AMY.run())
    held.take(BOB.run(ticket=False), NOW, BOB.peer)
    assert len(held.chains()) == 2
    assert root(held) == root(replica(AMY.run()))


def test_other_epochs_do_not_count() -> None:
    held = replica(AMY.run(), OLD.run())
    assert root(held, EPOCH + 1) == root(replica(AMY.run()), EPOCH + 1)
    assert root(held, EPOCH - 1) == root(replica(OLD.run()))
    assert root(held, EPOCH + 2) == root(held, EPOCH - 2) == root(replica())


def test_a_node_works_it_out_in_slices() -> None:
    held = replica(AMY.run(), BOB.run(), OLD.run())
    assert paced(summary(held, EPOCH)) == (3, root(held))
    assert paced(summary(replica(), EPOCH)) == (0, root(replica()))
