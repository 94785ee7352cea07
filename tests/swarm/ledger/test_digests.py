"""Digests by which replicas find where they differ: of all that matters, and of nothing else."""

from __future__ import annotations

from collections.abc import Callable, Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import GapError
from protocol.ids import ZERO_DIGEST, PeerId
from protocol.ledger import Run
from protocol.sync import (
    BUCKET_BYTES,
    BUCKETS,
    HEAD_BYTES,
    ROOT_BYTES,
    Head,
    pack_head,
    unpack_heads,
)
from swarm.ledger.chain import Chain
from swarm.ledger.digests import SLICE, Salt, Table, answer_nonce, bucket_of, tabulate
from swarm.ledger.replica import Replica
from swarm.ledger.steps import PAUSE, Pause
from tests.swarm.ledger.authors import EPOCH, NOW, Author, fill, free_ticket, replica, signer

ONE, OTHER = signer("one").peer, signer("other").peer
NONCE, ANSWER = b"nonce 01", b"answer 1"
SALT = Salt(ONE, OTHER, NONCE, ANSWER)
ANNA, BEN, CARL = Author("anna", 4), Author("ben", 3), Author("carl", 2, epoch=EPOCH - 1)
COUNTS = [1 << bits for bits in range(11)]


def ended(machine: Generator[Pause, object, Table]) -> Table:
    """What comes of ``machine``."""
    try:
        while True:
            assert next(machine) is PAUSE
    except StopIteration as end:
        made: Table = end.value
        return made


def table(held: Replica, salt: Salt = SALT, epoch: int = EPOCH) -> Table:
    """All at once."""
    return ended(tabulate(held, epoch, salt))


def held() -> Replica:
    return replica(ANNA.run(), BEN.run(), CARL.run())


def crowd(count: int) -> Table:
    """A table of ``count`` chains that nobody has written, which digests need not know."""
    parts: list[list[bytes]] = [[] for _ in range(BUCKETS)]
    for at in range(count):
        head = SALT.head(Chain(signer(f"chain {at}").peer, EPOCH, ticket=b"ticket"))
        parts[bucket_of(head.id, BUCKETS)].append(pack_head(head))
    return Table(SALT, [b"".join(sorted(part)) for part in parts], {})


def split(heads: bytes) -> list[bytes]:
    return [heads[at : at + HEAD_BYTES] for at in range(0, len(heads), HEAD_BYTES)]


CROWD = crowd(600)


# --- the root -----------------------------------------------------------------------------------


@given(st.permutations([ANNA.run(0, 2), ANNA.run(2), BEN.run(), CARL.run()]))
def test_equal_logs_have_equal_roots_however_they_came(runs: list[Run]) -> None:
    some = replica()
    waiting = list(runs)
    while waiting:
        one = waiting.pop(0)
        try:
            some.take(one, NOW)
        except GapError:
            waiting.append(one)
    assert table(some).root == table(held()).root
    assert table(some).chains == 3
    assert len(table(some).root) == ROOT_BYTES


CHANGES: dict[str, Callable[[Replica], object]] = {
    "an entry more": lambda held: held.take(Author("anna", 5).run(4), NOW),
    "an author more": lambda held: held.take(Author("dora", 1).run(), NOW),
    "an epoch more": lambda held: held.take(Author("ben", 1, epoch=EPOCH - 1).run(), NOW),
    "a better ticket": lambda held: held.take(BEN.run(ticket=free_ticket(BEN.peer, EPOCH, 2)), NOW),
    "a fork that cuts": lambda held: held.convict(ANNA.fork(ANNA.other(2), 2), NOW),
    "a fork at the end": lambda held: held.convict(Author("ben", 4).fork(BEN.other(3), 3), NOW),
    "a fork further on": lambda held: held.convict(
        Author("ben", 9).fork(Author("ben", 8).other(8), 8), NOW
    ),
    "another author": lambda held: fill(held, [Author("emil", 1).run()]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_shows_in_the_root_and_in_one_bucket(name: str) -> None:
    before, changed = table(held()), held()
    CHANGES[name](changed)
    after = table(changed)
    assert after.root != before.root
    for count in COUNTS:
        ones, others = before.digests(count), after.digests(count)
        assert len(ones) == len(others) == count * BUCKET_BYTES
        differing = [
            at
            for at in range(0, len(ones), BUCKET_BYTES)
            if ones[at : at + BUCKET_BYTES] != others[at : at + BUCKET_BYTES]
        ]
        assert len(differing) == 1


def test_forks_of_one_place_are_alike_whatever_proves_them() -> None:
    one, other = held(), held()
    one.convict(ANNA.fork(ANNA.other(2), 2), NOW)
    other.convict(ANNA.fork(ANNA.other(2, accent="third"), 2), NOW)
    assert table(one).root == table(other).root


def test_guests_do_not_show_but_are_known() -> None:
    some = held()
    guest = Author("guest", 2)
    some.take(guest.run(ticket=False), NOW, guest.peer)
    made = table(some)
    assert made.root == table(held()).root
    assert made.chains == 3
    name = SALT.id((guest.peer, EPOCH))
    assert list(made.guests) == [name]
    assert made.names[name] == (guest.peer, EPOCH)
    assert len(made.names) == 4


def test_two_epochs_count() -> None:
    older = Author("old", 1, epoch=EPOCH - 1)
    some = replica(ANNA.run(), older.run())
    assert table(some).chains == 2
    assert table(some, epoch=EPOCH + 1).chains == 1
    assert table(some, epoch=EPOCH - 1).chains == 1
    assert table(some, epoch=EPOCH + 2).chains == 0
    assert table(some, epoch=EPOCH + 2).root == table(replica()).root


# --- the salt -----------------------------------------------------------------------------------


SALTS = {
    "asker": Salt(signer("third").peer, OTHER, NONCE, ANSWER),
    "asked": Salt(ONE, signer("third").peer, NONCE, ANSWER),
    "the two": Salt(OTHER, ONE, NONCE, ANSWER),
    "nonce": Salt(ONE, OTHER, b"nonce 02", ANSWER),
    "answer": Salt(ONE, OTHER, NONCE, b"answer 2"),
    "nonces": Salt(ONE, OTHER, ANSWER, NONCE),
}


@pytest.mark.parametrize("name", SALTS)
def test_everything_differs_from_exchange_to_exchange(name: str) -> None:
    salt = SALTS[name]
    chain = held().chain(ANNA.peer, EPOCH)
    assert chain is not None
    ours, theirs = SALT.head(chain), salt.head(chain)
    assert ours.id != theirs.id
    assert ours.log != theirs.log
    assert ours.ticket != theirs.ticket
    assert SALT.bucket(b"x") != salt.bucket(b"x")
    assert SALT.root(b"x") != salt.root(b"x")


def test_the_answering_nonce_follows_from_the_secret_the_peer_and_the_nonce() -> None:
    nonce = answer_nonce(b"secret", ONE, NONCE)
    assert len(nonce) == 8
    assert nonce == answer_nonce(b"secret", ONE, NONCE)
    others = {
        answer_nonce(b"Secret", ONE, NONCE),
        answer_nonce(b"secret", OTHER, NONCE),
        answer_nonce(b"secret", ONE, ANSWER),
    }
    assert len(others | {nonce}) == 4


# --- heads --------------------------------------------------------------------------------------


def test_a_head_says_what_is_held() -> None:
    some = held()
    some.convict(BEN.fork(BEN.other(1), 1), NOW)
    some.convict(Author("far", 6).fork(Author("far", 5).other(5), 5), NOW)
    heads = {
        name: SALT.head(some.chains()[name.peer, name.epoch])
        for name in (ANNA, BEN, CARL, Author("far"))
    }
    assert [(head.entries, head.forked) for head in heads.values()] == [
        (4, False),
        (1, True),
        (2, False),
        (0, True),
    ]
    for author, head in heads.items():
        assert head.id == SALT.id((author.peer, author.epoch))
        assert (len(head.id), len(head.log), len(head.ticket)) == (6, 5, 3)
    assert len(set(heads.values())) == 4


def test_an_author_has_another_name_in_each_epoch() -> None:
    assert SALT.id((ONE, EPOCH)) != SALT.id((ONE, EPOCH - 1)) != SALT.id((OTHER, EPOCH - 1))


@pytest.mark.parametrize(
    "field",
    ["entries", "head", "fork", "where", "ticket"],
)
def test_each_part_of_a_head_counts(field: str) -> None:
    def made(**changes: object) -> Head:
        values: dict[str, object] = {
            "bodies": [b"a", b"b"],
            "head": ZERO_DIGEST,
            "ticket": b"t",
            "forked_at": 5,
        }
        return SALT.head(Chain(ONE, EPOCH, **{**values, **changes}))  # type: ignore[arg-type]

    plain = made()
    match field:
        case "entries":
            other = made(bodies=[b"a"])
            assert other.entries != plain.entries
        case "head":
            other = made(head=b"\x01" * 32)
        case "fork":
            other = made(forked_at=None)
            assert not other.forked
        case "where":
            other = made(forked_at=6)
        case _:
            other = made(ticket=b"u")
            assert other.ticket != plain.ticket
            assert other.log == plain.log
            return
    assert other.log != plain.log
    assert other.ticket == plain.ticket


@pytest.mark.parametrize("count", COUNTS)
def test_each_head_is_in_one_bucket(count: int) -> None:
    everything = CROWD.heads(1, b"\x01")
    assert len(everything) == 600 * HEAD_BYTES
    found = b""
    for at in range(count):
        which = (1 << at).to_bytes((count + 7) // 8, "little")
        heads = CROWD.heads(count, which)
        assert all(bucket_of(head.id, count) == at for head in unpack_heads(heads))
        found += heads
    assert found == everything
    names = [head.id for head in unpack_heads(found)]
    assert names == sorted(set(names))


def test_some_buckets_at_once() -> None:
    both = CROWD.heads(16, b"\x09\x80")
    wanted = (b"\x01\x00", b"\x08\x00", b"\x00\x80")
    assert both == b"".join(CROWD.heads(16, which) for which in wanted)
    assert CROWD.heads(16, b"\x00\x00") == b""


@pytest.mark.parametrize("count", [1, 16, 1024])
@pytest.mark.parametrize("page", [1, 7, 599, 600])
def test_heads_come_in_pages(count: int, page: int) -> None:
    which = b"\xff" * ((count + 7) // 8)
    found: list[bytes] = []
    after = b""
    for _ in range(700):
        heads = split(CROWD.heads(count, which, after))[:page]
        if not heads:
            break
        found += heads
        after = heads[-1][:6]
    assert b"".join(found) == CROWD.heads(1, b"\x01")


def test_pages_go_on_after_ids_that_there_are_not() -> None:
    names = [head[:6] for head in split(CROWD.heads(1, b"\x01"))]
    for after in (bytes(6), b"\x80", b"\x80" + bytes(5), b"\xff" * 6, names[300]):
        later = [name for name in names if name > after]
        assert [head[:6] for head in split(CROWD.heads(64, b"\xff" * 8, after))] == later


def test_ids_are_spread_over_buckets() -> None:
    sizes = [
        len(CROWD.heads(16, (1 << at).to_bytes(2, "little"))) // HEAD_BYTES for at in range(16)
    ]
    assert sum(sizes) == 600
    assert max(sizes) < 2 * 600 / 16


# --- in slices ----------------------------------------------------------------------------------


def test_a_table_is_made_in_slices() -> None:
    count = 2 * SLICE + 1
    some = replica(*(Author(f"author {at}", 1).run() for at in range(count)))
    assert len(list(tabulate(some, EPOCH, SALT))) == 3 + BUCKETS // SLICE + 1
    assert table(some).chains == count


def test_the_replica_may_change_meanwhile() -> None:
    some = replica(*(Author(f"author {at}", 1).run() for at in range(2 * SLICE)))
    machine = tabulate(some, EPOCH, SALT)
    next(machine)
    next(machine)
    late = Author("late", 3)
    some.take(late.run(), NOW)
    for at in range(2 * SLICE):
        some.take(Author(f"author {at}", 2).run(1), NOW)
    some.expire(NOW + 15 * 24 * 3600)
    assert not some.chains()
    made = ended(machine)
    entries = [head.entries for head in unpack_heads(made.heads(1, b"\x01"))]
    assert sorted(entries) == [1] * SLICE + [2] * SLICE
    assert SALT.id((late.peer, EPOCH)) not in made.names


def test_nobody_is_a_chain_of_nothing() -> None:
    empty = table(replica(own=PeerId(bytes(32))))
    assert (empty.chains, empty.heads(1, b"\x01"), dict(empty.names)) == (0, b"", {})
    assert empty.root == Table(SALT, [b""] * BUCKETS, {}).root != CROWD.root
