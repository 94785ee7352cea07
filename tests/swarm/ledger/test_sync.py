"""Exchanges of logs: both sides hold the same after them, cheaply, whoever is at the other end."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol import sync as wire
from protocol.codec import decode, encode
from protocol.errors import (
    AdmissionError,
    BadSignatureError,
    DecodeError,
    ForkedError,
    GapError,
    ProtocolError,
    RefusedError,
    StoreError,
    SwarmError,
    TooLargeError,
)
from protocol.ledger import EPOCH_S, Fork, Place, Run
from protocol.sync import PROOF, Ask, Head, Piece
from swarm.ledger import responder, sync
from swarm.ledger.digests import SLICE, Salt, answer_nonce
from swarm.ledger.parcel import Gift, missing
from swarm.ledger.replica import Change
from swarm.ledger.responder import Responder
from swarm.ledger.steps import PAUSE, Outcome, Request, Take
from swarm.ledger.sync import Report, exchange, give, recall
from tests.swarm.ledger import fuzz_sync
from tests.swarm.ledger.authors import (
    EPOCH,
    NOW,
    Author,
    free_ticket,
    held,
    replica,
    signer,
)
from tests.swarm.ledger.nodes import Node, Traffic, drive

M = TypeVar("M", bound=wire.Reply)
FUZZ = int(os.environ.get("SWARMD_FUZZ", "600"))
"""Messages in the fuzz."""
NONCE = b"a nonce."


@cache
def author(name: str, entries: int = 4, epoch: int = EPOCH) -> Author:
    """One that nobody changes."""
    return Author(name, entries, epoch=epoch)


def pair(ours: Sequence[Run | Fork] = (), theirs: Sequence[Run | Fork] = ()) -> tuple[Node, Node]:
    return Node("ours", *ours), Node("theirs", *theirs)


def agree(one: Node, other: Node, most: int) -> int:
    """After how many exchanges, each begun by another of the two, they hold the same."""
    for times in range(most + 1):
        if held(one.replica) == held(other.replica):
            return times
        one.meets(other, nonce=times)
        one, other = other, one
    raise AssertionError(f"they differ after {most} exchanges")


def full(node: Node) -> None:
    """Let no more authors in."""

    def quality(*_: object) -> int:
        raise AdmissionError("There is no room.")

    node.replica._admission.quality = quality  # type: ignore[method-assign]


# --- what one lacks of what the other has --------------------------------------------------------


def head(entries: int, log: str = "", forked: bool = False, ticket: str = "t") -> Head:
    return Head(b"chain.", entries, forked, (log or str(entries)).encode(), ticket.encode())


MISSING: dict[str, tuple[Head | None, Head, list[tuple[int, bool]]]] = {
    "all": (None, head(3), [(0, True)]),
    "all of a fork": (None, head(3, forked=True), [(PROOF, True), (0, False)]),
    "all of a fork at the start": (None, head(0, forked=True), [(PROOF, True)]),
    "nothing": (head(3), head(3), []),
    "nothing of a fork": (head(3, forked=True), head(3, forked=True), []),
    "nothing of less": (head(3), head(2), []),
    "the end": (head(3), head(5), [(3, False)]),
    "the end and a ticket": (head(3), head(5, ticket="u"), [(3, True)]),
    "a ticket": (head(3), head(3, ticket="u"), [(2, True)]),
    "a ticket of less": (head(5), head(3, ticket="u"), [(2, True)]),
    "a ticket for what forked at the start": (
        head(0, forked=True),
        head(0, forked=True, ticket="u"),
        [(PROOF, True)],
    ),
    "a ticket from who knows no fork": (head(0, forked=True), head(3, ticket="u"), [(0, True)]),
    "another of the same length": (head(3), head(3, "other"), [(0, False)]),
    "another and a ticket": (head(3), head(3, "other", ticket="u"), [(0, True)]),
    "a fork": (head(5), head(3, forked=True), [(PROOF, False)]),
    "a fork and a ticket": (head(5), head(3, forked=True, ticket="u"), [(PROOF, True)]),
    "a fork where it ends": (head(3), head(3, forked=True), [(PROOF, False)]),
    "a fork further on": (head(2), head(5, forked=True), [(PROOF, False), (2, False)]),
    "nothing but the fork": (head(3, forked=True), head(9), []),
    "nothing of the length of a fork": (head(3, forked=True), head(3), []),
    "a fork elsewhere": (
        head(3, forked=True),
        head(2, forked=True),
        [(PROOF, False)],
    ),
    "a fork elsewhere, and more": (
        head(2, forked=True),
        head(3, forked=True),
        [(PROOF, False), (2, False)],
    ),
    "another before a fork": (
        head(3, forked=True),
        head(3, "other", forked=True),
        [(PROOF, False), (0, False)],
    ),
    "nothing of nothing": (None, head(0), []),
}


@pytest.mark.parametrize("name", MISSING)
def test_what_is_missing(name: str) -> None:
    ours, theirs, expected = MISSING[name]
    assert missing(ours, theirs) == [Ask(b"chain.", *one) for one in expected]


# --- equal ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("authors", [0, 1, 200])
def test_equal_logs_take_one_small_request(authors: int) -> None:
    runs = [author(f"author {at}", 1).run() for at in range(authors)]
    traffic = Traffic()
    one, other = pair(runs, runs)
    report = one.meets(other, traffic)
    assert report.alike
    assert report.requests == len(traffic.requests) == 1
    assert traffic.bytes == report.sent + report.received <= 64
    assert not one.outcomes + other.outcomes


def test_an_exchange_is_about_one_moment_of_two_nodes() -> None:
    """What goes over the wire is never the same again, whoever asks whom about the same."""
    runs = [author("anna").run()]
    replies = set()
    for asker, asked, nonce in (
        ("ours", "theirs", 0),
        ("theirs", "ours", 0),
        ("third", "theirs", 0),
        ("ours", "theirs", 1),
    ):
        traffic = Traffic()
        Node(asker, *runs).meets(Node(asked, *runs), traffic, nonce)
        replies.add(decode(traffic.replies[0], wire.Root).root)
    assert len(replies) == 4


# --- plain differences --------------------------------------------------------------------------


NAMES = ["anna", "ben", "carl", "dora", "emil"]
LENGTH = 6
WANTS = st.tuples(
    st.sampled_from(NAMES),
    st.sampled_from([EPOCH, EPOCH - 1]),
    st.integers(1, LENGTH),
    st.integers(1, 2),
)


def plain(who: str, epoch: int, end: int, quality: int) -> Run:
    one = author(who, LENGTH, epoch)
    return one.run(0, end, ticket=free_ticket(one.peer, epoch, quality))


@settings(max_examples=60)
@given(st.lists(WANTS, max_size=8), st.lists(WANTS, max_size=8))
def test_one_exchange_brings_both_to_the_union(
    ours: list[tuple[str, int, int, int]], theirs: list[tuple[str, int, int, int]]
) -> None:
    one, other = pair([plain(*some) for some in ours], [plain(*some) for some in theirs])
    union = held(replica(*(plain(*some) for some in (*ours, *theirs))))
    before = held(one.replica) == held(other.replica)
    report = one.meets(other)
    assert held(one.replica) == held(other.replica) == union
    assert report.alike == before
    assert (report.refused, report.declined, report.partial) == (0, 0, False)
    assert other.meets(one, nonce=1).alike


def test_only_what_is_missing_goes_over_the_wire() -> None:
    anna, ben = author("anna", 9), author("ben", 9)
    one, other = pair([anna.run(0, 7), ben.run()], [anna.run(), ben.run(0, 8)])
    traffic = Traffic()
    report = one.meets(other, traffic)
    assert held(one.replica) == held(other.replica)
    (runs,) = [decode(reply, wire.Runs) for reply in traffic.replies[2:3]]
    assert [run.bodies for run in runs.runs] == [tuple(anna.bodies[7:])]
    (given_,) = [decode(request, wire.Give) for request in traffic.requests[3:]]
    assert [run.bodies for run in given_.runs] == [tuple(ben.bodies[8:])]
    assert (report.taken, report.given, report.requests) == (1, 1, 4)


def test_a_ticket_travels_once() -> None:
    """Not to whom that holds the chain."""
    known, fresh = author("known", 5), author("fresh", 2)
    one, other = pair([known.run(0, 3)], [known.run(), fresh.run()])
    traffic = Traffic()
    one.meets(other, traffic)
    assert sum(reply.count(fresh.ticket) for reply in traffic.replies) == 1
    assert sum(reply.count(known.ticket) for reply in traffic.replies) == 0

    traffic = Traffic()
    third = Node("third", known.run(0, 3))
    one.meets(third, traffic)
    assert sum(request.count(fresh.ticket) for request in traffic.requests) == 1
    assert sum(request.count(known.ticket) for request in traffic.requests) == 0


@pytest.mark.parametrize("better", ["ours", "theirs"])
def test_a_better_ticket_travels_with_one_entry(better: str) -> None:
    anna = author("anna", 9)
    good = free_ticket(anna.peer, EPOCH, 2)
    runs = {"ours": anna.run(), "theirs": anna.run()} | {better: anna.run(ticket=good)}
    one, other = pair([runs["ours"]], [runs["theirs"]])
    traffic = Traffic()
    one.meets(other, traffic)
    for node in (one, other):
        chain = node.replica.chain(anna.peer, EPOCH)
        assert chain is not None
        assert chain.ticket == good
    bodies = b"".join(traffic.requests + traffic.replies)
    assert not any(body in bodies for body in anna.bodies[:-1])


@pytest.mark.parametrize("count", [sync.FEW // 2, sync.FEW, sync.FEW + 1, 3 * sync.FEW])
def test_differences_are_found_among_many(count: int) -> None:
    everyone = [author(f"author {at}", 2) for at in range(count + 2)]
    runs = [one.run() for one in everyone]
    one, other = pair(
        [*runs[3:-1], everyone[-1].run(0, 1)], [*runs[:-4], everyone[-4].run(0, 1), runs[-1]]
    )
    traffic = Traffic()
    report = one.meets(other, traffic)
    assert held(one.replica) == held(other.replica) == held(replica(*runs))
    assert report.taken == 3 + 1
    assert report.given == 2 * 2 + 1
    requests = [decode(body, fuzz_sync.REQUEST) for body in traffic.requests]
    kinds = [wire.Open, wire.Heads, wire.Want, wire.Give]
    if count > sync.FEW:
        kinds.insert(1, wire.Buckets)
        (heads,) = [r for r in requests if isinstance(r, wire.Heads)]
        assert heads.count == (16 if count == sync.FEW + 1 else 64)
        assert int.from_bytes(heads.which, "little").bit_count() <= 8
    assert [type(request) for request in requests] == kinds


def test_a_newcomer_fetches_all_and_gives_nothing() -> None:
    runs = [author(f"author {at}", 3).run() for at in range(100)]
    one, other = pair([], runs)
    traffic = Traffic()
    report = one.meets(other, traffic)
    assert held(one.replica) == held(other.replica)
    assert (report.taken, report.given, report.requests) == (100, 0, 3)
    assert not other.outcomes


def test_a_newcomer_is_given_all_that_is_asked_of_it() -> None:
    runs = [author(f"author {at}", 3).run() for at in range(100)]
    one, other = pair(runs, [])
    report = one.meets(other)
    assert held(one.replica) == held(other.replica)
    assert (report.taken, report.given, report.requests) == (0, 300, 2)


def test_long_chains_take_several_messages_none_too_long() -> None:
    everyone = []
    for at in range(9):
        long = Author(f"author {at}", value_bytes=3000)
        for _ in range(20):
            long.write()
        everyone.append(long)
    one, other = pair([], [long.run() for long in everyone])
    traffic = Traffic()
    report = one.meets(other, traffic)
    assert held(one.replica) == held(other.replica)
    assert report.requests == 5
    assert all(len(reply) <= limits.SYNC_BYTES for reply in traffic.replies)
    assert all(len(reply) > limits.SYNC_BYTES / 2 for reply in traffic.replies[2:-1])

    third = Node("third")
    traffic = Traffic()
    report = one.meets(third, traffic)
    assert held(one.replica) == held(third.replica)
    assert all(len(request) <= limits.SYNC_BYTES for request in traffic.requests)
    assert report.requests == 1 + 3
    assert not report.partial


def test_heads_that_do_not_fit_come_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEADS", 7)
    for count in (20, 21, 100):
        runs = [author(f"author {at}", 1).run() for at in range(count)]
        one, other = pair(runs[:1], runs)
        traffic = Traffic()
        one.meets(other, traffic)
        assert held(one.replica) == held(other.replica)
        requests = [decode(body, fuzz_sync.REQUEST) for body in traffic.requests]
        assert sum(isinstance(one, wire.Heads) for one in requests) >= count // 7


def test_asks_that_do_not_fit_come_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "ASKS", 7)
    runs = [author(f"author {at}", 1).run() for at in range(30)]
    one, other = pair(runs[:15], runs[15:])
    traffic = Traffic()
    report = one.meets(other, traffic)
    assert held(one.replica) == held(other.replica) == held(replica(*runs))
    assert report.requests == 2 + 3 + 3


# --- what it costs ------------------------------------------------------------------------------


def _lacking(runs: Sequence[Run]) -> int:
    """Bytes of entries, each with a signature and its length."""
    return sum(len(body) + 67 for run in runs for body in run.bodies)


@pytest.fixture(scope="module")
def crowd() -> list[Author]:
    return [Author(f"author {at}", 2, value_bytes=96) for at in range(1000)]


def test_a_little_of_everybody_costs_a_fifth_more_than_it_is(crowd: list[Author]) -> None:
    """Half of a thousand authors have written one more of fifty entries: a hundredth is new.

    What it costs does not depend on how many entries are old."""
    old = [one.run(0, 1) for one in crowd]
    new = [one.run(1, ticket=False) for one in crowd[::2]]
    one, other = pair(old, old)
    for run in new:
        other.replica.take(run, NOW)
    fetched, given_ = Traffic(), Traffic()
    report = one.meets(other, fetched)
    assert report.requests == 4
    assert held(one.replica) == held(other.replica)
    assert fetched.bytes <= 1.2 * _lacking(new)

    third = Node("third", *old)
    report = other.meets(third, given_)
    assert report.given == 500
    assert held(third.replica) == held(other.replica)
    assert given_.bytes <= 1.2 * _lacking(new)


def test_much_of_few_costs_a_twentieth_more_than_it_is(crowd: list[Author]) -> None:
    """Ten authors of a thousand have written fifty entries, each signed and sent alone."""
    old = [one.run() for one in crowd]
    new = [Author(f"author {at}", 52, value_bytes=96).run(2, ticket=False) for at in range(10)]
    one, other = pair(old, old)
    for run in new:
        other.replica.take(run, NOW)
    traffic = Traffic()
    one.meets(other, traffic)
    assert held(one.replica) == held(other.replica)
    assert traffic.bytes <= 1.05 * _lacking(new)


# --- forks --------------------------------------------------------------------------------------


Piece_ = tuple[str, int, int, int, int]
FORKS = st.tuples(
    st.sampled_from(NAMES[:3]),
    st.integers(0, 4),
    st.integers(0, 1),
    st.integers(1, LENGTH),
    st.integers(1, 2),
)


@cache
def branches(who: str) -> list[Author]:
    """An author's selves: two more from each of its first places on."""
    one = author(who, LENGTH)
    return [
        one,
        *(
            one.other(at, LENGTH - at, accent)
            for at in range(1, LENGTH - 1)
            for accent in ("b", "c")
        ),
    ]


def piece(who: str, place: int, accent: int, end: int, quality: int) -> Run:
    one = branches(who)[2 * place - accent if place else 0]
    return one.run(0, end, ticket=free_ticket(one.peer, EPOCH, quality))


def forking(name: str, pieces: Sequence[Piece_]) -> Node:
    """One that was offered all of ``pieces``."""
    node = Node(name)
    for one in pieces:
        try:
            node.replica.take(piece(*one), NOW)
        except (ForkedError, GapError):
            continue
    return node


@settings(max_examples=80)
@given(st.lists(FORKS, max_size=7), st.lists(FORKS, max_size=7))
def test_three_exchanges_are_enough_whatever_forked(
    ours: list[Piece_], theirs: list[Piece_]
) -> None:
    one, other = forking("ours", ours), forking("theirs", theirs)
    agree(one, other, 3)
    for node in (one, other):
        for chain in node.replica.chains().values():
            if chain.forked_at is not None:
                proof = node.replica.proof(chain.author, chain.epoch)
                assert proof is not None
                assert replica().convict(proof, NOW).forked
    # Whoever saw everything knows no lower fork than they do.
    wise = forking("wise", [*ours, *theirs])
    agree(wise, one, 3)
    assert held(wise.replica) == held(other.replica) or agree(wise, other, 3) <= 3
    assert held(one.replica) == held(wise.replica)


ANNA = author("anna", 8)
SLY = ANNA.other(3, 5)
SLIER = ANNA.other(2, 6, "slier")
CONTRADICTIONS: dict[str, tuple[Sequence[Run | Fork], Sequence[Run | Fork], int, int]] = {
    # what either holds, where it forked, after how many exchanges both know
    "equal length": ([ANNA.run()], [SLY.run()], 3, 1),
    "theirs is longer": ([ANNA.run(0, 5)], [SLY.run()], 3, 1),
    "ours is longer": ([ANNA.run()], [SLY.run(0, 5)], 3, 2),
    "they know": ([ANNA.run()], [ANNA.run(), SLY.run()], 3, 1),
    "we know": ([ANNA.run(), SLY.run()], [ANNA.run()], 3, 1),
    "they know, we have little": ([ANNA.run(0, 1)], [ANNA.run(), SLY.run()], 3, 1),
    "we know, they have little": ([ANNA.run(), SLY.run()], [ANNA.run(0, 1)], 3, 1),
    "they know and we have nothing": ([], [ANNA.run(), SLY.run()], 3, 1),
    "we know and they have nothing": ([ANNA.run(), SLY.run()], [], 3, 1),
    "they know of a lower one": ([ANNA.run(), SLY.run()], [ANNA.run(), SLIER.run()], 2, 1),
    "we know of a lower one": ([ANNA.run(), SLIER.run()], [ANNA.run(), SLY.run()], 2, 1),
    "they have the proof alone": ([ANNA.run()], [ANNA.fork(SLY, 3)], 3, 1),
    "we have the proof alone": ([ANNA.fork(SLY, 3)], [ANNA.run()], 3, 2),
    "theirs differs before ours forked": (
        [ANNA.run(), SLY.run()],
        [SLIER.run()],
        2,
        2,
    ),
    "ours differs before theirs forked": (
        [SLIER.run()],
        [ANNA.run(), SLY.run()],
        2,
        2,
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_is_seen_by_both(name: str) -> None:
    ours, theirs, place, exchanges = CONTRADICTIONS[name]
    one, other = pair(ours, theirs)
    for times in range(exchanges):
        assert held(one.replica) != held(other.replica)
        one.meets(other, nonce=times)
    assert held(one.replica) == held(other.replica)
    for node in (one, other):
        chain = node.replica.chain(ANNA.peer, EPOCH)
        assert chain is not None
        assert chain.forked_at == place
        assert chain.bodies == ANNA.bodies[:place]
        proof = node.replica.proof(ANNA.peer, EPOCH)
        assert proof is not None
        fresh = replica()
        assert fresh.convict(proof, NOW).forked
    assert one.meets(other, nonce=9).alike
    assert one.meets(Node("third"), nonce=10).declined == 0


def test_contradictions_are_seen_among_proofs_and_in_many_replies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Runs that leave gaps come beside proofs, and in more replies than there may be idle ones."""
    everyone = [author(f"author {at}", 6) for at in range(2 * sync.IDLE)]
    twins = [one.other(2, 4, "twin") for one in everyone]
    for most in (wire.ASKS, 1):
        monkeypatch.setattr(wire, "ASKS", most)
        one, other = pair(
            [some.run(0, 4) for some in everyone],
            [*(twin.run() for twin in twins), everyone[0].run()],
        )
        report = one.meets(other)
        assert not report.partial
        assert held(one.replica) == held(other.replica)
        assert all(chain.forked_at == 2 for chain in one.replica.chains().values())


def test_a_proof_brings_no_ticket_to_whom_that_holds_the_chain() -> None:
    one, other = pair([ANNA.run()], [ANNA.run(), SLY.run()])
    traffic = Traffic()
    one.meets(other, traffic)
    assert not any(ANNA.ticket in reply for reply in traffic.replies)
    traffic = Traffic()
    one.meets(Node("third"), traffic)
    assert sum(request.count(ANNA.ticket) for request in traffic.requests) == 1


def test_a_fork_at_the_first_entry_takes_a_better_ticket_along() -> None:
    good = free_ticket(ANNA.peer, EPOCH, 2)
    double = ANNA.other(0, 2)
    forked = [ANNA.fork(double, 0)]
    better = Fork(msgspec.structs.replace(forked[0].one, ticket=good), forked[0].other)
    for ours, theirs in (([better], forked), (forked, [better])):
        one, other = pair(ours, theirs)
        one.meets(other)
        assert held(one.replica) == held(other.replica)
        assert [ticket for _, ticket, _ in held(one.replica).values()] == [good]


def test_the_longest_proof_and_the_longest_run_come_one_after_the_other() -> None:
    """Together they do not fit."""
    long = Author("long", 1, value_bytes=3500)
    for _ in range(25):
        long.write()
    twin = long.other(1, 25)
    # Each is signed at its end alone, so that both are in the proof, and one of them in the run.
    one, other = pair([], [long.run(), twin.run()])
    traffic = Traffic()
    one.meets(other, traffic)
    assert held(one.replica) == held(other.replica)
    chain = one.replica.chain(long.peer, EPOCH)
    assert chain is not None
    assert (chain.forked_at, len(chain.bodies)) == (1, 1)
    assert sum(map(len, traffic.replies)) > limits.SYNC_BYTES
    assert len(traffic.requests) == 4
    third = Node("third")
    traffic = Traffic()
    one.meets(third, traffic)
    assert held(third.replica) == held(one.replica)
    assert all(len(request) <= limits.SYNC_BYTES for request in traffic.requests)
    assert len(traffic.requests) == 3


# --- guests and one's own -----------------------------------------------------------------------


def test_guests_are_not_passed_on() -> None:
    guest = author("guest")
    one, other = pair([ANNA.run()], [ANNA.run()])
    for node in (one, other):
        node.replica.take(guest.run(ticket=False), NOW, guest.peer)
    assert one.meets(other).alike
    third = Node("third")
    third.meets(one)
    one.meets(third, nonce=1)
    assert third.replica.chain(guest.peer, EPOCH) is None

    # Not even to whom asks for it by name.
    salt_nonce = answer_nonce(b"theirs", one.peer, NONCE)
    name = Salt(one.peer, other.peer, NONCE, salt_nonce).id((guest.peer, EPOCH))
    want = wire.Want(EPOCH, NONCE, wire.pack_asks([Ask(name, 0, True)]))
    assert decode(other.answer(one.peer, encode(want)), wire.Runs) == wire.Runs((), (), 1)
    log = encode(wire.Log(guest.peer, (Piece(EPOCH, 0),)))
    assert decode(other.answer(one.peer, log), wire.Runs) == wire.Runs((), (), 1)
    answer = decode(other.answer(guest.peer, log), wire.Runs)
    assert [run.bodies for run in answer.runs] == [tuple(guest.bodies)]


@pytest.mark.parametrize(("ours", "theirs"), [(2, 4), (4, 4), (4, 2)])
def test_a_guest_that_is_admitted_elsewhere_is_admitted_here(ours: int, theirs: int) -> None:
    guest = author("guest")
    one, other = pair([], [guest.run(0, theirs)])
    one.replica.take(guest.run(0, ours, ticket=False), NOW, guest.peer)
    traffic = Traffic()
    one.meets(other, traffic)
    assert held(one.replica) == held(other.replica) == held(replica(guest.run()))
    wired = b"".join(traffic.requests + traffic.replies)
    assert guest.bodies[0] not in wired, "what is held already does not come again"


def test_a_guest_whose_ticket_is_refused_stays_one() -> None:
    guest = author("guest")
    one, other = pair([], [guest.run(0, 2)])
    one.replica.take(guest.run(ticket=False), NOW, guest.peer)
    full(one)
    report = one.meets(other)
    assert (report.taken, report.refused, report.given) == (0, 1, 0)


def test_one_gets_ones_own_log_back() -> None:
    own = [author("ours", 5, EPOCH - 1), author("ours", 3), author("ours", 1, EPOCH + 1)]
    other = Node("theirs", own[0].run())
    # The next epoch has begun by the clock of one of them.
    other.now = (EPOCH + 1) * EPOCH_S - 60
    other.replica.take(own[1].run(ticket=False), NOW, own[1].peer)
    other.replica.take(own[2].run(), other.now)
    one = Node("ours")
    one.now = other.now
    report = one.runs(recall(one.replica, one.peer, EPOCH), other)
    for chain, mine in zip(
        sorted(one.replica.chains().values(), key=lambda chain: chain.epoch), own, strict=True
    ):
        assert chain.bodies == mine.bodies
    assert report.taken == 3
    assert report.requests == 1
    again = one.runs(recall(one.replica, one.peer, EPOCH), other)
    assert (again.taken, again.refused) == (0, 0)


def test_one_learns_that_one_has_forked() -> None:
    mine = author("ours", 5)
    twin = mine.other(2, 2)
    for theirs, place in (([mine.run(), twin.run()], 2), ([twin.run()], 3)):
        one = Node("ours", own=[mine.run()])
        report = one.runs(recall(one.replica, one.peer, EPOCH), Node("theirs", *theirs))
        chain = one.replica.chain(one.peer, EPOCH)
        assert chain is not None
        assert chain.forked_at == place
        assert report.taken == 1


def test_the_logs_of_others_do_not_matter_to_ones_own() -> None:
    one, other = Node("ours"), Node("theirs")
    one.replica.take(ANNA.run(0, 2), NOW)
    reply = encode(wire.Runs((ANNA.run(4),), (), 6))
    other.answer = lambda *_: reply  # type: ignore[method-assign]
    report = one.runs(recall(one.replica, one.peer, EPOCH), other)
    assert report.requests == 1


def test_a_log_that_does_not_follow_is_asked_for_once_more() -> None:
    """What is held ends, and theirs goes on from another: it has to be seen from the beginning."""
    mine = author("ours", 3)
    one = Node("ours", own=[mine.run()])
    other = Node("theirs", mine.other(1, 6).run())
    report = one.runs(recall(one.replica, one.peer, EPOCH), other)
    assert report.requests == 2
    chain = one.replica.chain(one.peer, EPOCH)
    assert chain is not None
    assert chain.forked_at == 1


# --- gifts --------------------------------------------------------------------------------------


def test_a_new_entry_is_given() -> None:
    one, other = pair([ANNA.run()], [ANNA.run(0, 7)])
    report = one.runs(give(one.replica, [Gift(ANNA.peer, EPOCH, 7, False)]), other)
    assert (report.requests, report.given, report.declined) == (1, 1, 0)
    assert held(one.replica) == held(other.replica)
    assert one.replica.checked + other.replica.checked == 3


@pytest.mark.parametrize("known", [1, 4, 6])
def test_a_gift_that_leaves_a_gap_is_given_again(known: int) -> None:
    one, other = pair([ANNA.run()], [ANNA.run(0, known)])
    report = one.runs(give(one.replica, [Gift(ANNA.peer, EPOCH, 7, False)]), other)
    assert report.requests == 2
    assert report.given == 1 + 8 - known
    assert held(one.replica) == held(other.replica)


def test_a_gift_with_its_ticket_is_given_again_from_the_start() -> None:
    one, other = pair([ANNA.run()])
    report = one.runs(give(one.replica, [Gift(ANNA.peer, EPOCH, 7, True)]), other)
    assert report.requests == 2
    assert held(one.replica) == held(other.replica)


def test_a_gift_that_contradicts_convicts() -> None:
    one, other = pair([ANNA.run()], [SLY.run(0, 6)])
    report = one.runs(give(one.replica, [Gift(ANNA.peer, EPOCH, 6, False)]), other)
    assert report.requests == 2
    chain = other.replica.chain(ANNA.peer, EPOCH)
    assert chain is not None
    assert chain.forked_at == 3


def test_gifts_of_what_there_is_not_are_none() -> None:
    one, other = pair([ANNA.run()])
    gifts = [Gift(ANNA.peer, EPOCH - 1, 0, True), Gift(ANNA.peer, EPOCH, PROOF, True)]
    assert one.runs(give(one.replica, gifts), other) == Report()


def test_nobody_is_given_more_than_it_takes_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "GIVEN", 10)
    runs = [author(f"author {at}", 4).run() for at in range(20)]
    one, other = pair(runs)
    report = one.meets(other)
    assert report.partial
    assert report.given == 12
    assert len(other.replica.chains()) == 3
    # The other may ask for as much as it wants.
    assert not other.meets(one).partial
    assert held(one.replica) == held(other.replica)


def test_the_most_that_is_given_is_less_than_a_peer_takes_at_once() -> None:
    assert sync.GIVEN + limits.RUN_ENTRIES <= limits.ENTRIES_AT_ONCE + 24


def test_who_refuses_everything_is_given_no_more() -> None:
    runs = [Author(f"author {at}", 10, value_bytes=4000).run() for at in range(12)]
    one, other = pair(runs)
    other.now = NOW - 14 * 24 * 3600
    report = one.meets(other)
    assert report.requests == 2
    assert report.declined == len(other.outcomes) == 6
    assert all(isinstance(outcome, RefusedError) for outcome in other.outcomes)


# --- what is refused, and what ends it ----------------------------------------------------------


def test_a_run_for_which_there_is_no_room_is_counted() -> None:
    one, other = pair([], [ANNA.run(), author("ben").run()])
    full(one)
    report = one.meets(other)
    assert (report.taken, report.refused) == (0, 2)


FAULTS: list[SwarmError] = [
    BadSignatureError("It is forged."),
    DecodeError("It is nonsense."),
    RefusedError("It is too old."),
    StoreError("The disk is full."),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: type(one).__name__)
def test_what_is_not_taken_is_counted(fault: SwarmError) -> None:
    """What to make of that is for others to say."""
    ben = author("ben")
    one, other = pair([], [ANNA.run(), ben.run()])
    take = one.take(other.peer)

    def first_fails(step: Take) -> list[Outcome]:
        return [fault, *list(take(step))[1:]]

    machine = exchange(one.replica, one.peer, other.peer, EPOCH, NONCE)
    report = drive(machine, lambda body: other.answer(one.peer, body), first_fails)
    assert (report.taken, report.refused) == (1, 1)


def test_a_run_that_leaves_a_gap_is_asked_for_from_there_once() -> None:
    one, other = pair([ANNA.run(0, 6)], [ANNA.run()])
    wants: list[Ask] = []

    def call(body: bytes) -> bytes:
        request = decode(body, fuzz_sync.REQUEST)
        if isinstance(request, wire.Want):
            wants.extend(wire.unpack_asks(request.asks))
        return other.answer(one.peer, body)

    def take(_: Take) -> list[Outcome]:
        return [GapError(2)]

    report = drive(exchange(one.replica, one.peer, other.peer, EPOCH, NONCE), call, take)
    assert [ask.first for ask in wants] == [6, 2]
    assert (report.taken, report.refused) == (0, 0)


def test_replies_without_news_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as of a peer that sends what it was told a moment ago."""
    monkeypatch.setattr(wire, "ASKS", 1)
    runs = [author(f"author {at}", 1).run() for at in range(20)]
    one, other = pair([], runs)
    takes = 0

    def take(_: Take) -> list[Outcome]:
        nonlocal takes
        takes += 1
        news = takes > 6 or takes % 3 == 0
        return [Change(ANNA.peer, EPOCH, 0, admitted=news and takes < 10)]

    machine = exchange(one.replica, one.peer, other.peer, EPOCH, NONCE)
    report = drive(machine, lambda body: other.answer(one.peer, body), take)
    assert report.partial
    assert report.taken == 5
    assert takes == 9 + sync.IDLE


def test_an_exchange_takes_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SYNC_BYTES_AT_ONCE", 3000)
    monkeypatch.setattr(wire, "ASKS", 1)
    one, other = pair([], [author(f"author {at}", 4).run() for at in range(20)])
    report = one.meets(other)
    assert report.partial
    assert 3000 < report.received < 3000 + 1500
    assert 0 < report.taken < 20


def test_another_time_is_refused() -> None:
    one, other = pair([ANNA.run()], [ANNA.run()])
    for ahead in (-1, 1):
        other.epoch = EPOCH + ahead
        assert one.meets(other).alike
    for ahead in (-2, 2):
        other.epoch = EPOCH + ahead
        with pytest.raises(RefusedError, match="see to the clocks"):
            one.meets(other)


# --- the side that answers ----------------------------------------------------------------------


def test_who_answers_needs_no_memory() -> None:
    runs = [author(f"author {at}", 2).run() for at in range(100)]
    one, other = pair(runs[:90], runs[10:])
    other_answer = other.answer

    def forgetful(peer: Any, body: bytes) -> bytes:
        other.responder = Responder(other.replica, other.peer, b"theirs")
        return other_answer(peer, body)

    other.answer = forgetful  # type: ignore[method-assign]
    report = one.meets(other)
    assert held(one.replica) == held(other.replica) == held(replica(*runs))
    assert report.taken == 10


def test_a_table_is_made_once_for_an_exchange_and_kept_for_few() -> None:
    runs = [author(f"author {at}", 1).run() for at in range(70)]
    other = Node("theirs", *runs)
    for at in range(responder.TABLES + 2):
        Node(f"node {at}", *runs[1:]).meets(other)
        assert other.responder.tabulated == at + 1
    assert len(other.responder._tables) == responder.TABLES


def test_the_tables_that_are_used_are_kept() -> None:
    other = Node("theirs", ANNA.run())
    peers = [signer(f"peer {at}").peer for at in range(responder.TABLES + 1)]
    ask = encode(wire.Buckets(EPOCH, NONCE, 16))
    for peer in (*peers[:-1], peers[0], peers[-1], peers[0]):
        other.answer(peer, ask)
    assert other.responder.tabulated == len(peers), "the first one's was still there"
    other.answer(peers[1], ask)
    assert other.responder.tabulated == len(peers) + 1, "the second one's was not"


def test_an_exchange_that_begins_again_is_about_what_is_held_then() -> None:
    other = Node("theirs", ANNA.run(0, 3))
    roots = set()
    for end in (3, 4):
        other.replica.take(ANNA.run(0, end), NOW)
        roots.add(other.answer(signer("ours").peer, encode(wire.Open(EPOCH, NONCE))))
    assert len(roots) == 2


def test_the_table_of_another_peer_or_exchange_is_not_used() -> None:
    other = Node("theirs", *(author(f"author {at}", 1).run() for at in range(70)))
    answers = {
        other.answer(signer(who).peer, encode(wire.Buckets(epoch, nonce, 16)))
        for who in ("one", "two")
        for nonce in (NONCE, NONCE[::-1])
        for epoch in (EPOCH, EPOCH - 1)
    }
    assert len(answers) == 8


MALFORMED: dict[str, tuple[bytes, type[ProtocolError]]] = {
    "nothing": (b"", DecodeError),
    "too much": (bytes(limits.SYNC_BYTES + 1), TooLargeError),
    "no power of two": (encode(wire.Buckets(EPOCH, NONCE, 3)), RefusedError),
    "heads of no power of two": (encode(wire.Heads(EPOCH, NONCE, 6, b"\x01")), RefusedError),
    "too few marks": (encode(wire.Heads(EPOCH, NONCE, 16, b"\x01")), RefusedError),
    "too many marks": (encode(wire.Heads(EPOCH, NONCE, 8, b"\x01\x00")), RefusedError),
    "half an ask": (encode(wire.Want(EPOCH, NONCE, bytes(12))), DecodeError),
    "another time": (encode(wire.Want(EPOCH + 2, NONCE, bytes(8))), RefusedError),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_request_that_is_none_is_refused_before_anything_is_done(name: str) -> None:
    body, error = MALFORMED[name]
    node = Node("theirs", ANNA.run())
    with pytest.raises(error):
        node.answer(signer("ours").peer, body)
    assert node.responder.tabulated == 0


def test_marks_beyond_the_buckets_are_passed_over() -> None:
    node = Node("theirs", ANNA.run())
    body = encode(wire.Heads(EPOCH, NONCE, 1, b"\xff"))
    heads = decode(node.answer(signer("ours").peer, body), wire.HeadList)
    assert len(heads.heads) == wire.HEAD_BYTES


def test_the_same_asked_a_thousand_times_fills_one_message() -> None:
    long = Author("long", 12, value_bytes=4000)
    node = Node("theirs", long.run())
    nonce = answer_nonce(b"theirs", signer("ours").peer, NONCE)
    name = Salt(signer("ours").peer, node.peer, NONCE, nonce).id((long.peer, EPOCH))
    want = wire.Want(EPOCH, NONCE, wire.pack_asks([Ask(name, 0, True)] * wire.ASKS))
    reply = node.answer(signer("ours").peer, encode(want))
    assert len(reply) <= limits.SYNC_BYTES
    runs = decode(reply, wire.Runs)
    assert runs.served == len(runs.runs) == 5


def test_what_has_gone_since_is_left_out() -> None:
    one, other = pair([], [ANNA.run(), author("old", 2, EPOCH - 1).run()])
    requests: list[wire.AnyRequest] = []
    other_answer = other.answer

    def forgets(peer: Any, body: bytes) -> bytes:
        requests.append(decode(body, fuzz_sync.REQUEST))
        if isinstance(requests[-1], wire.Want):
            other.replica.expire(NOW + 2 * 24 * 3600)
        return other_answer(peer, body)

    other.answer = forgets  # type: ignore[method-assign]
    report = one.meets(other)
    assert [type(request) for request in requests] == [wire.Open, wire.Heads, wire.Want]
    assert report.taken == 1
    assert list(one.replica.chains()) == [(ANNA.peer, EPOCH)]


def test_what_one_loses_meanwhile_is_not_given() -> None:
    one, other = pair([author("old", 2, EPOCH - 1).run(), ANNA.run()], [author("ben").run()])
    take = one.take(other.peer)

    def loses(step: Take) -> Sequence[Outcome]:
        one.replica.expire(NOW + 2 * 24 * 3600)
        return take(step)

    machine = exchange(one.replica, one.peer, other.peer, EPOCH, NONCE)
    drive(machine, lambda body: other.answer(one.peer, body), loses)
    assert set(other.replica.chains()) == {(ANNA.peer, EPOCH), (author("ben").peer, EPOCH)}


def test_what_is_given_is_answered_for_one_by_one() -> None:
    node = Node("theirs", author("ben").run(0, 2))
    ben = author("ben")
    bent = msgspec.structs.replace(ANNA.run(), signature=bytes(64))
    give_ = wire.Give((ben.run(3), bent, author("dora").run()), (ANNA.fork(SLY, 3),))
    reply = decode(node.answer(signer("ours").peer, encode(give_)), wire.Gave)
    assert reply == wire.Gave((Place(ben.peer, EPOCH, 2),), 1)
    assert [type(outcome) for outcome in node.outcomes] == [
        Change,
        GapError,
        BadSignatureError,
        Change,
    ]


# --- in slices ----------------------------------------------------------------------------------


def test_either_side_pauses_while_it_works() -> None:
    runs = [author(f"author {at}", 1).run() for at in range(300)]
    one, other = pair([], runs)
    pauses: list[int] = []

    def call(body: bytes) -> bytes:
        machine = other.responder.answer(one.peer, body, EPOCH)
        pauses.append(0)
        try:
            while True:
                assert machine.send(None) is PAUSE
                pauses[-1] += 1
        except StopIteration as end:
            reply: bytes = end.value
            return reply

    ours = 0
    machine = exchange(one.replica, one.peer, other.peer, EPOCH, NONCE)
    answer: Any = None
    try:
        while True:
            step = machine.send(answer)
            answer = None
            if isinstance(step, Request):
                answer = call(step.body)
            elif isinstance(step, Take):
                answer = one.take(other.peer)(step)
            else:
                ours += 1
    except StopIteration:
        pass
    parts = wire.BUCKETS // SLICE + 1
    slices = 300 // SLICE + 1
    assert pauses == [slices + parts, 0, slices]
    # A table of nothing, the heads as they come, and what is missing of each.
    assert ours == parts + slices + slices


def test_everything_may_change_in_a_pause() -> None:
    """Entries come, authors go and fork between any two steps; both agree once it is over."""
    everyone = [author(f"author {at}", 5) for at in range(150)]
    one, other = pair(
        [some.run(0, 2) for some in everyone[:120]], [some.run(0, 3) for some in everyone[30:]]
    )
    turn = 0

    def disturb() -> None:
        nonlocal turn
        turn += 1
        some = everyone[turn * 7 % 150]
        node = (one, other)[turn % 2]
        match turn % 4:
            case 0 | 1:
                node.replica.take(some.run(), NOW)
            case 2:
                node.replica.convict(some.fork(some.other(1), 1), NOW)
            case _:
                node.replica.take(some.other(1, 2).run(), NOW)

    for times in range(4):
        machine = exchange(one.replica, one.peer, other.peer, EPOCH, bytes(7) + bytes([times]))
        answer: Any = None
        try:
            while True:
                step = machine.send(answer)
                answer = None
                if times < 2:
                    try:
                        disturb()
                    except ForkedError:
                        turn += 1
                if isinstance(step, Request):
                    answer = other.answer(one.peer, step.body)
                elif isinstance(step, Take):
                    answer = one.take(other.peer)(step)
        except StopIteration:
            continue
    assert turn > 20
    assert held(one.replica) == held(other.replica)


# --- hostile answers ----------------------------------------------------------------------------


def bent(kind: type[M], change: Callable[[Any, M], wire.Reply | bytes]) -> Callable[[], Report]:
    """An exchange in which replies of one kind are not what they should be.

    Args:
        change: of the request and its honest reply.
    """
    ours = [author_of(at).run(0, 3 if at < 20 else 4) for at in range(80)]
    theirs = [author_of(at).run() for at in range(14, 84)]

    def run() -> Report:
        one, other = pair(ours, theirs)
        honest = other.answer

        def answer(peer: Any, body: bytes) -> bytes:
            reply = honest(peer, body)
            request = decode(body, fuzz_sync.REQUEST)
            if fuzz_sync.REPLIES[type(request)] is not kind:
                return reply
            changed = change(request, decode(reply, kind))
            return changed if isinstance(changed, bytes) else encode(changed)

        other.answer = answer  # type: ignore[method-assign]
        report = one.meets(other)
        for name, chain in one.replica.chains().items():
            known = next(some for some in map(author_of, range(100)) if some.peer == name[0])
            assert chain.bodies == known.bodies[: len(chain.bodies)]
        return report

    return run


@cache
def author_of(at: int) -> Author:
    return author(f"author {at}", 4)


def changed(struct: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(struct, **fields)


def _swapped(heads: bytes) -> bytes:
    return heads[16:32] + heads[:16] + heads[32:]


def _elsewhere(request: wire.Heads, reply: wire.HeadList) -> wire.HeadList:
    """One head more, in the first part that was not asked for."""
    wanted = int.from_bytes(request.which, "little")
    free = next(at for at in range(request.count) if not wanted >> at & 1)
    name = (free << 48 >> request.count.bit_length() - 1).to_bytes(6, "big")
    heads = [reply.heads[at : at + 16] for at in range(0, len(reply.heads), 16)]
    return wire.HeadList(b"".join(sorted([*heads, name + bytes(10)])))


HOSTILE: dict[str, tuple[Callable[[], Report], type[ProtocolError], str]] = {
    "a long reply": (
        bent(wire.Root, lambda _, reply: bytes(limits.SYNC_BYTES + 1)),
        TooLargeError,
        "at most",
    ),
    "another reply": (
        bent(wire.Root, lambda _, reply: wire.Digests(bytes(8))),
        DecodeError,
        r"\.",
    ),
    "one digest less": (
        bent(wire.Digests, lambda _, reply: wire.Digests(reply.digests[:-8])),
        RefusedError,
        "another number of digests",
    ),
    "one digest more": (
        bent(wire.Digests, lambda _, reply: wire.Digests(reply.digests + bytes(8))),
        RefusedError,
        "another number of digests",
    ),
    "half a head": (
        bent(wire.HeadList, lambda _, reply: wire.HeadList(reply.heads[:-8])),
        DecodeError,
        "no multiple",
    ),
    "heads in another order": (
        bent(wire.HeadList, lambda _, reply: wire.HeadList(_swapped(reply.heads))),
        RefusedError,
        "not sorted",
    ),
    "a head twice": (
        bent(wire.HeadList, lambda _, reply: wire.HeadList(reply.heads[:16] + reply.heads)),
        RefusedError,
        "not sorted",
    ),
    "heads nobody asked for": (
        bent(wire.HeadList, _elsewhere),
        RefusedError,
        "not those asked for",
    ),
    "more runs than asks": (
        bent(wire.Runs, lambda _, reply: changed(reply, served=len(reply.runs) - 1)),
        RefusedError,
        "more than was asked",
    ),
    "more served than asked": (
        bent(wire.Runs, lambda _, reply: changed(reply, served=wire.ASKS)),
        RefusedError,
        "more than was asked",
    ),
    "runs one by one": (
        bent(wire.Runs, lambda _, reply: wire.Runs(reply.runs[:1], (), 1)),
        RefusedError,
        "less than would fit",
    ),
    "nothing, slowly": (
        bent(wire.Runs, lambda _, reply: wire.Runs((), (), 1)),
        RefusedError,
        "less than would fit",
    ),
    "more refused than given": (
        bent(wire.Gave, lambda request, _: wire.Gave((), len(request.runs) + 1)),
        RefusedError,
        "more than it was given",
    ),
    "a gap in what was not given": (
        bent(wire.Gave, lambda *_: wire.Gave((Place(ANNA.peer, EPOCH, 0),), 0)),
        RefusedError,
        "was not given",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_answer_that_cannot_be_ends_it(name: str) -> None:
    run, error, text = HOSTILE[name]
    with pytest.raises(error, match=text):
        run()


def _all_gone(request: wire.Want, _: wire.Runs) -> wire.Runs:
    return wire.Runs((), (), len(request.asks) // 8)


def _gaps_everywhere(request: wire.Give, _: wire.Gave) -> wire.Gave:
    places = [Place(*_place(run), 0) for run in request.runs]
    return wire.Gave(tuple(places), 0)


def _place(run: Run) -> tuple[Any, int]:
    one = next(some for some in map(author_of, range(100)) if run.bodies[-1] in some.bodies)
    return one.peer, EPOCH


LIES: dict[str, Callable[[], Report]] = {
    "another nonce": bent(wire.Root, lambda _, reply: changed(reply, nonce=bytes(8))),
    "another root": bent(wire.Root, lambda _, reply: changed(reply, root=bytes(16))),
    "no chains": bent(wire.Root, lambda _, reply: changed(reply, chains=0)),
    "all chains": bent(wire.Root, lambda _, reply: changed(reply, chains=wire.CHAINS)),
    "all differs": bent(wire.Digests, lambda _, reply: wire.Digests(bytes(len(reply.digests)))),
    "no heads": bent(wire.HeadList, lambda *_: wire.HeadList(b"")),
    "heads of nobody": bent(
        wire.HeadList,
        lambda _, reply: wire.HeadList(
            b"".join(
                reply.heads[at : at + 4] + b"\xff" * 12 for at in range(0, len(reply.heads), 16)
            )
        ),
    ),
    "nothing there": bent(wire.Runs, _all_gone),
    "a forged run": bent(
        wire.Runs,
        lambda _, reply: changed(
            reply, runs=(changed(reply.runs[0], signature=bytes(64)), *reply.runs[1:])
        ),
    ),
    "a proof of nothing": bent(
        wire.Runs,
        lambda _, reply: changed(
            reply, runs=reply.runs[1:], forks=(Fork(reply.runs[0], reply.runs[0]),)
        ),
    ),
    "gaps everywhere": bent(wire.Gave, _gaps_everywhere),
    "the same gap twice": bent(
        wire.Gave,
        lambda request, _: wire.Gave(
            (Place(*_place(request.runs[0]), 0),) * min(2, len(request.runs)), 0
        ),
    ),
    "a gap far on": bent(
        wire.Gave, lambda request, _: wire.Gave((Place(*_place(request.runs[0]), 2**31),), 0)
    ),
    "all refused": bent(wire.Gave, lambda request, _: wire.Gave((), len(request.runs))),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_costs_a_few_requests(name: str) -> None:
    report = LIES[name]()
    assert report.requests <= 7
    assert report.sent < 100_000


def test_a_root_that_differs_for_nothing_costs_two_requests() -> None:
    runs = [author_of(at).run() for at in range(80)]
    one, other = pair(runs, runs)
    honest = other.answer

    def answer(peer: Any, body: bytes) -> bytes:
        reply = honest(peer, body)
        if isinstance(decode(body, fuzz_sync.REQUEST), wire.Open):
            return encode(changed(decode(reply, wire.Root), root=bytes(16)))
        return reply

    other.answer = answer  # type: ignore[method-assign]
    report = one.meets(other)
    assert (report.requests, report.given, report.alike) == (2, 0, False)


def test_more_chains_than_there_may_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEADS", 10)
    monkeypatch.setattr(wire, "CHAINS", 25)
    one = Node("ours")
    pages = 0

    def answer(_: Any, body: bytes) -> bytes:
        nonlocal pages
        request = decode(body, fuzz_sync.REQUEST)
        if isinstance(request, wire.Open):
            return encode(wire.Root(bytes(8), bytes(16), 25))
        assert isinstance(request, wire.Heads)
        pages += 1
        heads = [(10 * pages + at).to_bytes(6, "big") + bytes(10) for at in range(10)]
        return encode(wire.HeadList(b"".join(heads)))

    other = Node("theirs")
    other.answer = answer  # type: ignore[method-assign]
    with pytest.raises(RefusedError, match="more chains"):
        one.meets(other)
    assert pages == 3


# --- anything at all ----------------------------------------------------------------------------


def test_whatever_comes_is_taken_or_refused() -> None:
    """As many messages as ``SWARMD_FUZZ`` says, or a few."""
    seen = fuzz_sync.run(FUZZ, 1)
    assert seen["requests answered"] > seen["requests refused"] / 20 > 0
    assert seen["exchanges ended"] > seen["exchanges refused"] / 20 > 0
    assert seen["runs taken"] > 0
