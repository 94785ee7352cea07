"""A replica by example: what it takes, what it refuses and why, and who has to go."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from protocol import limits
from protocol.codec import encode
from protocol.errors import (
    AdmissionError,
    BadSignatureError,
    DecodeError,
    ForkedError,
    ForkError,
    GapError,
    ProofError,
    ProtocolError,
    RefusedError,
    TooLargeError,
    UpdateError,
)
from protocol.ids import PeerId
from protocol.ledger import EPOCH_S, Capability, Evidence, Fork, Run, fork, read_entry, sign
from protocol.messages import Proof
from protocol.presence import SKEW_S
from swarm.ledger.replica import Change, Replica
from tests.swarm.ledger.authors import (
    EPOCH,
    NOW,
    SWARM,
    Author,
    FreeAdmission,
    free_ticket,
    held,
    replica,
    signer,
)
from tests.swarm.ledger.worlds import check, check_passed_on, feed, saved, snapshot, splice

THIEF = signer("thief")
changed = msgspec.structs.replace


def chained(one: Replica, author: Author) -> list[bytes]:
    """What is held of ``author``."""
    chain = one.chain(author.peer, author.epoch)
    return chain.bodies if chain is not None else []


def refused(one: Replica, what: Run | Fork, error: type[ProtocolError], why: str = "") -> None:
    """It is refused, and leaves nothing behind."""
    before = snapshot(one)
    found = feed(one, what)
    assert isinstance(found, error)
    assert why in str(found)
    assert snapshot(one) == before


# --- growth ---------------------------------------------------------------------------------------


def test_an_empty_replica_knows_nobody() -> None:
    one, ann = replica(), Author("ann", 1)
    assert one.swarm == SWARM
    assert (one.bytes, one.entries, one.guests, one.checked, one.admitted(EPOCH)) == (0,) * 5
    assert not one.chains()
    assert not list(one.authors())
    assert one.chain(ann.peer, EPOCH) is None
    assert one.latest(ann.peer) is None
    assert one.run(ann.peer, EPOCH, 0) is None
    assert one.proof(ann.peer, EPOCH) is None


def test_a_run_is_taken_whole() -> None:
    one, ann = replica(), Author("ann", 3)
    entries = tuple(read_entry(body) for body in ann.bodies)
    assert one.take(ann.run(), NOW) == Change(ann.peer, EPOCH, 0, entries, admitted=True)
    assert chained(one, ann) == ann.bodies
    assert (one.entries, one.bytes, one.checked) == (3, sum(map(len, ann.bodies)), 1)
    assert one.admitted(EPOCH) == 1
    check(one)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_of_a_longer_run_only_the_rest_is_new(first: int) -> None:
    ann = Author("ann", 4)
    one = replica(ann.run(0, 2))
    change = one.take(ann.run(first), NOW)
    assert change == Change(ann.peer, EPOCH, 2, tuple(map(read_entry, ann.bodies[2:])))
    assert chained(one, ann) == ann.bodies


@pytest.mark.parametrize(("first", "end"), [(0, 1), (0, 3), (1, 2), (2, 3)])
def test_what_is_held_is_not_new_and_costs_no_signature(first: int, end: int) -> None:
    ann = Author("ann", 3)
    one = replica(ann.run())
    assert not one.take(ann.run(first, end), NOW)
    assert one.checked == 1
    assert chained(one, ann) == ann.bodies


@pytest.mark.parametrize(("have", "first"), [(0, 1), (0, 3), (1, 2), (2, 3)])
def test_a_gap_is_refused_with_the_place_from_which_it_follows(have: int, first: int) -> None:
    ann = Author("ann", 4)
    one = replica(*([ann.run(0, have)] if have else []))
    with pytest.raises(GapError) as caught:
        one.take(ann.run(first), NOW)
    assert caught.value.have == have
    one.take(ann.run(caught.value.have), NOW)
    assert chained(one, ann) == ann.bodies


def test_what_follows_another_entry_is_asked_for_from_the_beginning() -> None:
    """Its author has forked further down; only its whole log shows where."""
    ann = Author("ann", 2)
    twin = ann.other(1, 2)
    one = replica(ann.run())
    with pytest.raises(GapError) as caught:
        one.take(twin.run(2), NOW)
    assert caught.value.have == 0
    assert one.take(twin.run(), NOW).forked
    assert chained(one, ann) == ann.bodies[:1]


@pytest.mark.parametrize(("lie", "why"), [("offset", "follow"), ("at", "older")])
def test_a_lie_about_the_entry_before_is_refused_however_it_is_cut(lie: str, why: str) -> None:
    """Otherwise those who have the entry before would hold what others cannot take from them."""
    ann = Author("ann", 3)
    lying = splice(ann, 3, lie).what
    assert isinstance(lying, Run)
    whole = sign(ann.signer, [*ann.bodies, *lying.bodies], ann.ticket)
    for held_already in (0, 2, 3):
        one = replica(*([ann.run(0, held_already)] if held_already else []))
        refused(one, whole, RefusedError, why)
    refused(replica(ann.run()), lying, RefusedError, why)


# --- refusals -------------------------------------------------------------------------------------


def test_bytes_that_are_no_entry_are_refused() -> None:
    ann = Author("ann", 2)
    one = replica(ann.run(0, 1))
    for body, error in ((b"\xc1", DecodeError), (bytes(limits.ENTRY_BYTES + 1), TooLargeError)):
        refused(one, sign(ann.signer, [body], ann.ticket), error)


def test_another_swarm_s_entries_are_refused() -> None:
    ann = Author("ann", 2)
    refused(Replica("elsewhere", FreeAdmission()), ann.run(), RefusedError, "of the swarm 'test'")


@pytest.mark.parametrize("first", [0, 2])
def test_nobody_is_frozen_by_what_somebody_else_has_signed(first: int) -> None:
    ann = Author("ann", 4)
    run = ann.other(2, 2).run(first)
    for signature in (bytes(64), THIEF.seal(run.bodies[-1]).signature, ann.run().signature):
        refused(replica(ann.run()), changed(run, signature=signature), BadSignatureError)


@pytest.mark.parametrize("end", [1, 3])
def test_a_signature_that_does_not_hold_is_refused(end: int) -> None:
    ann = Author("ann", 3)
    run = ann.run(0, end)
    forgeries = [
        changed(run, signature=bytes(64)),
        changed(run, signature=THIEF.seal(run.bodies[-1]).signature),
        changed(run, signature=ann.signer.seal(b"").signature),
    ]
    for one in (replica(), *([replica(ann.run(0, 1))] if end > 1 else [])):
        for forged in forgeries:
            before = one.checked
            refused(one, forged, BadSignatureError)
            assert one.checked == before + 1


def test_what_an_entry_may_not_say_is_refused_with_all_that_came_with_it() -> None:
    ann = Author("ann", 2)
    junk = Proof(THIEF.seal(b""), THIEF.seal(b""))
    for content, error in ((Capability(b"junk"), UpdateError), (Evidence(junk), ProtocolError)):
        twin = ann.other(2, 1)
        twin.say(content)
        one = replica(ann.run())
        refused(one, twin.run(), error)
        refused(one, twin.run(2), error)
        one.take(twin.run(0, 3), NOW)
        refused(one, twin.run(3), error)


def test_a_proof_that_convicts_nobody_is_refused_by_its_type() -> None:
    ann = Author("ann", 1)
    ann.say(Evidence(Proof(THIEF.seal(b"a"), signer("ann").seal(b"b"))))
    refused(replica(), ann.run(), ProofError)


def test_an_epoch_that_is_over_is_refused() -> None:
    for age, taken in ((0, True), (1, True), (2, False), (400, False)):
        ann = Author("ann", 2, epoch=EPOCH - age)
        one, proof = replica(), ann.fork(ann.other(1), 1)
        if taken:
            assert one.take(ann.run(), NOW)
            assert replica().convict(proof, NOW)
        else:
            refused(one, ann.run(), RefusedError, "that is over")
            refused(one, proof, RefusedError, "that is over")


def test_the_future_is_refused_but_for_what_clocks_may_differ() -> None:
    ann = Author("ann", 1)
    at = int(NOW) + SKEW_S
    ann.write()
    ann.bodies[1] = encode(changed(read_entry(ann.bodies[1]), at=at))
    twin = ann.other(1)
    twin.bodies[1] = encode(changed(read_entry(twin.bodies[1]), at=at))
    proof = fork(ann.run(1), twin.run(1))
    for now in (NOW, NOW + EPOCH_S):
        assert replica().take(ann.run(), now)
        assert replica().convict(proof, now)
    for late in (ann.run(), ann.run(1)):
        with pytest.raises(RefusedError, match="1 s from now"):
            replica().take(late, NOW - 1)
    with pytest.raises(RefusedError, match="from now"):
        replica().convict(proof, NOW - 1)


def test_the_next_epoch_begins_within_what_clocks_may_differ() -> None:
    ann = Author("ann", 1, epoch=EPOCH + 1)
    begins = (EPOCH + 1) * EPOCH_S
    one = replica()
    with pytest.raises(RefusedError, match="from now"):
        one.take(ann.run(), begins - SKEW_S - 1)
    assert one.take(ann.run(), begins - SKEW_S)


# --- admission ------------------------------------------------------------------------------------


def test_a_stranger_needs_a_ticket() -> None:
    ann, one = Author("ann", 2), replica()
    refused(one, ann.run(ticket=False), AdmissionError, "no ticket")
    with pytest.raises(AdmissionError, match="no ticket"):
        one.take(ann.run(ticket=False), NOW, THIEF.peer)
    unticketed = ann.fork(ann.other(1), 1, ticket=False)
    refused(one, unticketed, AdmissionError, "no ticket")
    assert one.convict(_with(unticketed, ann.ticket), NOW)


def _with(proof: Fork, ticket: bytes) -> Fork:
    return Fork(changed(proof.one, ticket=ticket), proof.other)


@pytest.mark.parametrize("known", [False, True])
def test_a_ticket_of_somebody_else_or_another_time_admits_nobody(known: bool) -> None:
    ann = Author("ann", 2)
    one = replica(*([ann.run(0, 1)] if known else []))
    for ticket in (
        b"x" * 10,
        free_ticket(THIEF.peer, EPOCH, 9),
        free_ticket(ann.peer, EPOCH - 1, 9),
    ):
        refused(one, ann.run(ticket=ticket), AdmissionError, "not a ticket")
        refused(one, _with(ann.fork(ann.other(1), 1), ticket), AdmissionError, "not a ticket")


def test_a_ticket_is_looked_at_once() -> None:
    admission = FreeAdmission()
    one, ann = Replica(SWARM, admission), Author("ann", 5)
    for end in range(1, 6):
        one.take(ann.run(0, end), NOW)
    assert admission.asked == 1


@pytest.mark.parametrize("by_proof", [False, True])
def test_the_better_ticket_is_kept(by_proof: bool) -> None:
    ann = Author("ann", 2)
    qualities = [2, 1, 3, 2, 3]
    one = replica()
    for n, quality in enumerate(qualities):
        ann.quality = quality
        best = quality > max(qualities[:n], default=0)
        what = _with(ann.fork(ann.other(0), 0), ann.ticket) if by_proof else ann.run()
        change = feed(one, what)
        assert isinstance(change, Change)
        assert change.admitted is best
        chain = one.chain(ann.peer, EPOCH)
        assert chain is not None
        assert chain.quality == max(qualities[: n + 1])
        assert chain.ticket == free_ticket(ann.peer, EPOCH, chain.quality)
        check(one)
    assert one.admitted(EPOCH) == 1


def test_a_better_ticket_counts_where_its_entries_do_not() -> None:
    """So that all who have heard of it agree, whatever else they have heard before."""
    ann = Author("ann", 3, quality=1)
    one = replica(ann.fork(ann.other(1), 1))
    refused(one, ann.run(1), ForkedError)
    refused(one, ann.run(1, ticket=False), ForkedError)
    ann.quality = 2
    change = one.take(ann.run(1), NOW)
    assert change == Change(ann.peer, EPOCH, 0, admitted=True)
    refused(one, ann.run(1), ForkedError)


def test_all_replicas_choose_the_same_of_two_tickets_of_one_quality() -> None:
    ann = Author("ann", 1)

    class Equal:
        def quality(self, author: PeerId, epoch: int, ticket: bytes) -> int:
            return 1

    runs = [ann.run(ticket=ticket) for ticket in (b"a", b"b")]
    replicas = [Replica(SWARM, Equal()) for _ in range(2)]
    for one, order in zip(replicas, (runs, runs[::-1]), strict=True):
        for run in order:
            one.take(run, NOW)
    assert held(replicas[0]) == held(replicas[1])


# --- guests ---------------------------------------------------------------------------------------


def test_a_linked_peer_s_own_log_is_taken_without_a_ticket() -> None:
    ann, one = Author("ann", 3), replica()
    change = one.take(ann.run(0, 1, ticket=False), NOW, ann.peer)
    assert change
    assert not change.admitted
    assert (one.guests, one.admitted(EPOCH), len(held(one))) == (1, 0, 0)
    assert one.take(ann.run(1, 2, ticket=False), NOW), "what follows may come from anybody"
    check(one)
    assert one.take(ann.run(), NOW).admitted
    assert (one.guests, one.admitted(EPOCH)) == (0, 1)
    check(one)


def test_a_guest_that_forks_is_frozen() -> None:
    ann = Author("ann", 3)
    one = replica()
    one.take(ann.run(ticket=False), NOW, ann.peer)
    proof = ann.fork(ann.other(1), 1, ticket=False)
    assert one.convict(proof, NOW).forked
    assert chained(one, ann) == ann.bodies[:1]
    assert one.guests == 1
    check(one)


def test_there_are_only_so_many_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GUESTS", 2)
    one, guests = replica(), [Author(name, 1) for name in "abc"]
    for guest in guests[:2]:
        assert one.take(guest.run(ticket=False), NOW, guest.peer)
    with pytest.raises(AdmissionError, match="2 peers without a ticket"):
        one.take(guests[2].run(ticket=False), NOW, guests[2].peer)
    assert one.take(guests[2].run(), NOW), "a ticket needs no place among them"
    guests[0].write()
    assert one.take(guests[0].run(ticket=False), NOW, guests[0].peer), "it has one"
    assert one.dismiss(guests[0].peer) == [(guests[0].peer, EPOCH)]
    assert one.guests == 1
    check(one)


def test_a_guest_that_leaves_is_forgotten_in_all_epochs() -> None:
    one = replica()
    logs = [Author("ann", 2, epoch=epoch) for epoch in (EPOCH - 1, EPOCH)]
    for log in logs:
        one.take(log.run(ticket=False), NOW, log.peer)
    assert one.guests == 2
    assert one.dismiss(logs[0].peer) == [(log.peer, log.epoch) for log in logs]
    assert snapshot(one) == snapshot(replica())
    assert one.dismiss(logs[0].peer) == []


def test_who_has_a_ticket_stays_when_it_leaves() -> None:
    logs = [Author("ann", 2, epoch=epoch) for epoch in (EPOCH - 1, EPOCH)]
    one = replica(logs[1].run())
    one.take(logs[0].run(ticket=False), NOW, logs[0].peer)
    assert one.dismiss(logs[0].peer) == [(logs[0].peer, EPOCH - 1)]
    assert chained(one, logs[1]) == logs[1].bodies
    check(one)


def test_the_own_log_needs_no_ticket_and_is_no_guest() -> None:
    me = Author("me", 2)
    one = replica(own=me.peer)
    assert one.take(me.run(ticket=False), NOW)
    assert (one.guests, one.admitted(EPOCH)) == (0, 0)
    assert one.dismiss(me.peer) == []
    assert chained(one, me) == me.bodies
    check(one, me.peer)
    assert one.take(me.run(), NOW).admitted
    assert one.admitted(EPOCH) == 1
    check(one, me.peer)


# --- who has to go --------------------------------------------------------------------------------


def test_the_best_tickets_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AUTHORS", 2)
    logs = {quality: Author(f"q{quality}", 1, quality=quality) for quality in (1, 2, 3, 4)}
    one = replica(logs[2].run(), logs[3].run())
    refused(one, logs[1].run(), AdmissionError, "2 authors have better tickets")
    change = one.take(logs[4].run(), NOW)
    assert change.evicted == ((logs[2].peer, EPOCH),)
    assert set(one.authors()) == {logs[3].peer, logs[4].peer}
    refused(one, logs[2].run(), AdmissionError, "better tickets")
    logs[2].quality = 5
    assert one.take(logs[2].run(), NOW).evicted == ((logs[3].peer, EPOCH),)
    check(one)


def test_a_ticket_that_got_better_is_not_the_worst_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "AUTHORS", 2)
    a, b, c = (Author(name, 1, quality=quality) for name, quality in (("a", 1), ("b", 2), ("c", 3)))
    one = replica(a.run(), b.run())
    a.quality = 4
    one.take(a.run(), NOW)
    assert one.take(c.run(), NOW).evicted == ((b.peer, EPOCH),)


def test_each_epoch_has_places_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AUTHORS", 1)
    one = replica(*(Author("ann", 1, epoch=epoch).run() for epoch in (EPOCH - 1, EPOCH)))
    assert (one.admitted(EPOCH - 1), one.admitted(EPOCH)) == (1, 1)
    change = one.take(Author("bob", 1, quality=9).run(), NOW)
    assert change.evicted == ((signer("ann").peer, EPOCH),)
    assert (one.admitted(EPOCH - 1), one.admitted(EPOCH)) == (1, 1)


def test_a_proof_needs_a_place_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AUTHORS", 1)
    logs = [Author(f"q{quality}", 2, quality=quality) for quality in (1, 2, 3)]
    proofs = [log.fork(log.other(1), 1) for log in logs]
    one = replica(logs[1].run())
    refused(one, proofs[0], AdmissionError, "better tickets")
    assert one.convict(proofs[2], NOW).evicted == ((logs[1].peer, EPOCH),)
    check(one)


def test_a_node_keeps_its_own_log_whatever_its_ticket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AUTHORS", 1)
    me, bob, eve = (Author(name, 1, quality=len(name)) for name in ("i", "bob", "evelyn"))
    one = replica(bob.run(), own=me.peer)
    assert one.take(me.run(), NOW).evicted == ((bob.peer, EPOCH),)
    refused(one, eve.run(), AdmissionError, "better tickets")
    assert chained(one, me) == me.bodies
    check(one, me.peer)


def log(name: str, quality: int, epoch: int = EPOCH) -> Author:
    """All are of one size, below."""
    return Author(name, 4, quality=quality, epoch=epoch)


SIZE = sum(map(len, log("ann", 1).bodies))


@pytest.fixture
def room_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEDGER_BYTES", 2 * SIZE + 9)


@pytest.mark.usefixtures("room_for_two")
def test_where_there_are_too_many_bytes_the_worst_tickets_go() -> None:
    one = replica(log("a", 1).run(), log("b", 2).run())
    assert one.take(log("c", 3).run(), NOW).evicted == ((signer("a").peer, EPOCH),)
    assert one.bytes <= limits.LEDGER_BYTES
    refused(one, log("a", 1).run(), AdmissionError, "full")
    check(one)


@pytest.mark.usefixtures("room_for_two")
def test_no_order_of_arrival_fills_the_memory() -> None:
    """Neither worse and worse tickets, nor guests that get one."""
    one = replica()
    for quality in range(20, 0, -1):
        author = log(f"q{quality}", quality)
        feed(one, author.run())
        feed(one, author.run(ticket=False), source=author.peer)
        feed(one, author.run())
        check(one)
        ticketed = sum(chain.size for chain in one.chains().values() if chain.admitted)
        assert ticketed <= limits.LEDGER_BYTES
    assert one.admitted(EPOCH) == 2


@pytest.mark.usefixtures("room_for_two")
def test_the_oldest_epoch_goes_first() -> None:
    old, new = log("a", 9, EPOCH - 1), log("b", 2)
    one = replica(old.run(), new.run())
    assert one.take(log("c", 1).run(), NOW).evicted == ((old.peer, EPOCH - 1),)
    refused(one, old.run(), AdmissionError, "full")


@pytest.mark.usefixtures("room_for_two")
def test_proofs_take_room_as_well() -> None:
    worst, liar = log("a", 1), log("b", 2)
    one = replica(worst.run(), liar.run())
    change = one.convict(liar.fork(liar.other(3), 3), NOW)
    assert change.forked
    assert change.evicted == ((worst.peer, EPOCH),)
    check(one)


@pytest.mark.usefixtures("room_for_two")
def test_a_run_that_shows_a_fork_takes_room_as_well() -> None:
    worst, liar = log("a", 1), log("b", 2)
    one = replica(worst.run(), liar.run())
    assert one.take(liar.other(3).run(), NOW).evicted == ((worst.peer, EPOCH),)
    check(one)


@pytest.mark.usefixtures("room_for_two")
def test_the_own_log_has_room_and_guests_take_it_from_nobody() -> None:
    me, guest = log("me", 1), log("guest", 1)
    one = replica(log("b", 2).run(), log("c", 3).run(), own=me.peer)
    assert one.take(guest.run(ticket=False), NOW, guest.peer).evicted == ()
    change = one.take(me.run(ticket=False), NOW)
    assert set(change.evicted) == {(signer(name).peer, EPOCH) for name in "bc"}
    assert chained(one, me) == me.bodies
    check(one, me.peer)


# --- forks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seq", [0, 1, 3])
@pytest.mark.parametrize("whole", [True, False])
def test_two_branches_freeze_their_author_where_they_part(seq: int, whole: bool) -> None:
    ann = Author("ann", 4)
    twin = ann.other(seq, 2)
    one = replica(ann.run())
    change = one.take(twin.run(0 if whole else seq), NOW)
    assert change == Change(ann.peer, EPOCH, seq, forked=True)
    assert chained(one, ann) == ann.bodies[:seq]
    found = one.latest(ann.peer)
    assert found is not None
    assert found.forked_at == seq
    check(one)
    check_passed_on(one)


def test_the_proof_convinces_who_has_seen_neither() -> None:
    ann = Author("ann", 4)
    one = replica(ann.run())
    one.take(ann.other(2, 3).run(), NOW)
    proof = one.proof(ann.peer, EPOCH)
    assert proof is not None
    assert proof.one.ticket == ann.ticket
    assert proof.other.ticket == b""
    other = replica(proof)
    assert other.checked == 2
    chain = other.chain(ann.peer, EPOCH)
    assert chain is not None
    assert (chain.forked_at, chain.bodies) == (2, [])
    passed_on = one.run(ann.peer, EPOCH, 0)
    assert passed_on is not None
    other.take(passed_on, NOW)
    assert held(other) == held(one)


@pytest.mark.parametrize("seqs", [(3, 1), (1, 3), (3, 0), (2, 2)])
def test_the_lowest_fork_counts(seqs: tuple[int, int]) -> None:
    ann = Author("ann", 5)
    for by_proof in (True, False):
        one = replica(ann.run())
        for seq in seqs:
            twin = ann.other(seq, 1, f"at {seq}")
            feed(one, ann.fork(twin, seq) if by_proof else twin.run())
            check(one)
            check_passed_on(one)
        chain = one.chain(ann.peer, EPOCH)
        assert chain is not None
        assert chain.forked_at == len(chain.bodies) == min(seqs)


def test_what_is_known_costs_no_signature() -> None:
    ann = Author("ann", 4)
    one = replica(ann.run(), ann.fork(ann.other(1), 1))
    before = one.checked
    for again in (ann.fork(ann.other(1), 1), ann.fork(ann.other(3), 3)):
        assert not one.convict(again, NOW)
    for run in (ann.run(1), ann.run(3)):
        refused(one, run, ForkedError)
    assert not one.take(ann.run(), NOW)
    assert one.checked == before


def test_nothing_is_taken_from_where_an_author_forked() -> None:
    ann = Author("ann", 6)
    one = replica(ann.fork(ann.other(3), 3))
    change = one.take(ann.run(), NOW)
    assert change == Change(ann.peer, EPOCH, 0, tuple(map(read_entry, ann.bodies[:3])))
    check(one)
    check_passed_on(one)


def test_what_comes_before_a_fork_is_passed_on_whatever_the_proof_follows() -> None:
    """It may be of two branches that nobody has seen the beginning of."""
    ann = Author("ann", 6)
    proof = ann.other(1, 5, "one").fork(ann.other(1, 5, "other"), 3)
    for before in ([], [ann.run(0, 2)], [ann.run()]):
        for after in ([ann.run()], [ann.run(0, 2), ann.run()]):
            one = replica(*before, proof, *after)
            assert chained(one, ann) == ann.bodies[:3]
            check(one)
            check_passed_on(one)


@pytest.mark.parametrize("end", [1, 2, 3])
def test_what_comes_before_a_fork_comes_in_pieces_too(end: int) -> None:
    ann = Author("ann", 6)
    one = replica(ann.fork(ann.other(3), 3))
    assert len(one.take(ann.run(0, end), NOW).entries) == end
    check(one)
    check_passed_on(one)
    for rest in (ann.run(), ann.run(0, 3)):
        feed(one, rest)
        assert chained(one, ann) == ann.bodies[:3]
        check(one)
        check_passed_on(one)


def test_the_rules_of_what_nobody_keeps_do_not_matter() -> None:
    """Otherwise a branch that breaks them would hide the entries that it follows."""
    ann = Author("ann", 3)
    twin = ann.other(2, 0)
    twin.say(Capability(b"junk"))
    refused(replica(), twin.run(), UpdateError)
    one = replica(ann.fork(twin, 2), twin.run())
    assert chained(one, ann) == ann.bodies[:2]
    check_passed_on(one)


def test_what_breaks_the_rules_convicts_all_the_same() -> None:
    """It was signed."""
    ann = Author("ann", 3)
    twin = ann.other(2, 0)
    twin.say(Capability(b"junk"))
    assert replica(ann.run()).take(twin.run(), NOW).forked


def test_the_same_entry_with_other_signatures_is_no_fork() -> None:
    ann = Author("ann", 3)
    one = replica(ann.run(0, 2))
    for run in (ann.run(), ann.run(1), ann.run(0, 1), ann.run(0, 2)):
        one.take(run, NOW)
    assert not one.take(changed(ann.run(), signature=bytes(64)), NOW)
    assert chained(one, ann) == ann.bodies
    assert one.proof(ann.peer, EPOCH) is None


Forge = Callable[[Author, Author], Fork]
FORGED: dict[str, tuple[Forge, type[ProtocolError]]] = {
    "one entry": (lambda a, b: Fork(a.run(1, 2), a.run(1, 2)), ForkError),
    "two places": (lambda a, b: fork(a.run(1, 2), b.run(2, 3)), ForkError),
    "the wrong order": (lambda a, b: _reversed(a.fork(b, 1)), ForkError),
    "one signature": (
        lambda a, b: fork(a.run(1, 2), changed(b.run(1, 2), signature=bytes(64))),
        BadSignatureError,
    ),
    "a thief's signature": (
        lambda a, b: fork(a.run(1, 2), changed(sign(THIEF, b.bodies[1:2]), ticket=a.ticket)),
        BadSignatureError,
    ),
    "junk": (lambda a, b: Fork(a.run(1, 2), sign(a.signer, [b"junk"])), DecodeError),
    "a broken branch": (
        lambda a, b: fork(a.run(1, 2), sign(a.signer, b.bodies[1:2] * 2)),
        RefusedError,
    ),
}


def _reversed(proof: Fork) -> Fork:
    return Fork(changed(proof.other, ticket=proof.one.ticket or proof.other.ticket), proof.one)


@pytest.mark.parametrize("what", FORGED)
def test_what_proves_nothing_is_refused(what: str) -> None:
    forge, error = FORGED[what]
    ann = Author("ann", 3)
    proof = forge(ann, ann.other(1, 2))
    for one in (replica(), replica(ann.run())):
        refused(one, _with(proof, ann.ticket), error)


def test_a_fork_counts_for_its_epoch_and_all_later_ones() -> None:
    old, new = (Author("ann", 3, epoch=epoch) for epoch in (EPOCH - 1, EPOCH))
    one = replica(old.run(), new.run())
    assert one.latest(new.peer) is one.chain(new.peer, EPOCH)
    one.convict(old.fork(old.other(1), 1), NOW)
    assert one.latest(new.peer) is one.chain(old.peer, EPOCH - 1)
    assert chained(one, new) == new.bodies
    one.expire(NOW + EPOCH_S)
    assert one.latest(new.peer) is one.chain(new.peer, EPOCH), "the proof has gone with its epoch"


def test_the_latest_log_counts() -> None:
    logs = [Author("ann", 2, epoch=epoch) for epoch in (EPOCH - 1, EPOCH)]
    for order in (logs, logs[::-1]):
        one = replica(*(log.run() for log in order))
        assert one.latest(logs[0].peer) is one.chain(logs[0].peer, EPOCH)


# --- what is passed on ----------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_run_is_passed_on_with_its_ticket(first: int) -> None:
    ann = Author("ann", 3)
    assert replica(ann.run()).run(ann.peer, EPOCH, first) == ann.run(first)


@pytest.mark.parametrize("first", [3, 4, 1000])
def test_where_there_is_nothing_more_the_last_entry_takes_the_ticket_along(first: int) -> None:
    ann = Author("ann", 3)
    assert replica(ann.run()).run(ann.peer, EPOCH, first) == ann.run(2)


def test_of_a_log_that_forked_at_its_beginning_there_is_only_the_proof() -> None:
    ann = Author("ann", 1)
    one = replica(ann.run(), ann.other(0).run())
    assert one.run(ann.peer, EPOCH, 0) is None
    assert one.proof(ann.peer, EPOCH) is not None


# --- time -----------------------------------------------------------------------------------------


def test_epochs_that_are_over_go() -> None:
    logs = {epoch: Author("ann", 2, epoch=epoch) for epoch in (EPOCH - 1, EPOCH)}
    guest = Author("guest", 1, epoch=EPOCH - 1)
    liar = Author("liar", 2, epoch=EPOCH - 1)
    one = replica(*(log.run() for log in logs.values()), liar.fork(liar.other(1), 1))
    one.take(guest.run(ticket=False), NOW, guest.peer)
    before = snapshot(one)
    assert one.expire(NOW) == []
    assert snapshot(one) == before
    gone = one.expire((EPOCH + 1) * EPOCH_S)
    assert set(gone) == {(log.peer, EPOCH - 1) for log in (logs[EPOCH - 1], guest, liar)}
    assert snapshot(one) == snapshot(replica(logs[EPOCH].run()))
    for what in (logs[EPOCH - 1].run(), liar.fork(liar.other(1), 1)):
        found = feed(one, what, (EPOCH + 1) * EPOCH_S)
        assert isinstance(found, RefusedError)
    assert one.expire(NOW + 5 * EPOCH_S) == [(logs[EPOCH].peer, EPOCH)]
    assert snapshot(one) == snapshot(replica())


# --- restarts -------------------------------------------------------------------------------------


def test_what_was_held_is_held_again() -> None:
    ann, bob, liar, me = (Author(name, 4) for name in ("ann", "bob", "liar", "me"))
    one = replica(ann.run(), liar.run(), liar.other(2).run(), own=me.peer)
    one.take(bob.run(ticket=False), NOW, bob.peer)
    one.take(me.run(ticket=False), NOW)
    again = saved(one, me.peer)
    assert snapshot(again) == snapshot(one)
    assert again.checked == 0
    check(again, me.peer)


def test_a_log_is_not_restored_twice() -> None:
    ann = Author("ann", 2)
    one = replica(ann.run())
    before = snapshot(one)
    with pytest.raises(RefusedError, match="twice"):
        one.restore(
            ann.peer, EPOCH, ann.bodies, {1: ann.run().signature}, ann.ticket, ann.quality, None
        )
    assert snapshot(one) == before


def test_who_has_the_worst_ticket_is_known_after_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "AUTHORS", 2)
    logs = [Author(f"q{quality}", 1, quality=quality) for quality in (1, 2, 3)]
    one = saved(replica(logs[1].run(), logs[0].run()))
    assert one.take(logs[2].run(), NOW).evicted == ((logs[0].peer, EPOCH),)
