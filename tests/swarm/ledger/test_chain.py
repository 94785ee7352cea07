"""One chain: what may come next, where it ends, and what shows that its author made it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.codec import encode
from protocol.errors import (
    BadSignatureError,
    DecodeError,
    ForkError,
    ProofError,
    ProtocolError,
    RefusedError,
    TooLargeError,
    UpdateError,
)
from protocol.ids import ZERO_DIGEST, PeerId, RoundId
from protocol.ledger import (
    EPOCH_S,
    HINT_DAY_S,
    Calibration,
    Capability,
    Checkpoint,
    Content,
    Entry,
    Evidence,
    Fork,
    Hints,
    Place,
    Subject,
    Sum,
    check_fork,
    check_links,
    check_signature,
    entry_digest,
    fork,
    read_entry,
)
from protocol.messages import Decline, Proof, WaveClose, seal
from protocol.proofs import equivocation
from swarm.ledger import guard
from swarm.ledger.chain import Chain, Rules, restored
from swarm.ledger.document import Document, client_of
from tests.swarm.ledger.authors import EPOCH, SWARM, Author, signer
from tests.swarm.ledger.updates import structs, written

ANN = Author("ann")
DAY = EPOCH * 7
CLIENT = client_of(ANN.peer, EPOCH)
RULES = Rules(CLIENT)
THIEF = signer("thief")


def entry(content: Content, at: int = EPOCH * EPOCH_S, seq: int = 1) -> Entry:
    """One whose links nobody looks at."""
    return Entry(1, SWARM, ANN.peer, EPOCH, seq, ZERO_DIGEST, 0, at, content)


def hints(day: int = DAY, **changes: Any) -> Hints:
    total = Sum("sums", 1, (0, 0, 0, 0, 1), (0, 0, 0, 0, 2), 1, 2)
    subject = Subject(PeerId(bytes(32)), "m", (total,))
    found = Hints(day, (day + 1 + limits.HINT_DAYS) * HINT_DAY_S, (subject,))
    return msgspec.structs.replace(found, **changes)


def conviction(number: int = 0) -> Proof:
    """Of somebody who has closed a wave in two ways."""
    one = WaveClose(RoundId(number.to_bytes(32, "big")), ZERO_DIGEST, 0, ZERO_DIGEST, False)
    return equivocation(*(seal(THIEF, msgspec.structs.replace(one, more=m)) for m in (False, True)))


def update(clock: int, client: int = CLIENT) -> bytes:
    """One more value."""
    return structs(clock, written(f"k{clock}"), client=client) + b"\x00"


# --- what may come next: documents ----------------------------------------------------------------


def test_a_checkpoint_makes_the_whole_document() -> None:
    _, document = Document.rebased({"a": b"1", "b": b"2"}, CLIENT)
    after = RULES.after(entry(Checkpoint(document, (), ()), seq=0))
    assert after == Rules(CLIENT, clock=2)


def test_a_change_goes_on_where_the_document_was() -> None:
    after = RULES.after(entry(Checkpoint(guard.EMPTY, (), ())))
    for clock in range(3):
        after = after.after(entry(Capability(update(clock))))
    assert (after.clock, after.changes) == (3, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        update(0),
        update(2),
        update(1, CLIENT ^ 1),
        update(1, client_of(ANN.peer, EPOCH - 1)),
        update(1, client_of(THIEF.peer, EPOCH)),
        b"",
        b"\x00\x01",
    ],
    ids=["again", "a gap", "another client", "another epoch", "another author", "nothing", "junk"],
)
def test_an_update_that_is_not_the_next_is_refused(wrong: bytes) -> None:
    rules = Rules(CLIENT, clock=1)
    assert rules.after(entry(Capability(update(1)))).clock == 2
    with pytest.raises(UpdateError):
        rules.after(entry(Capability(wrong)))


@pytest.mark.parametrize("wrong", [update(1), update(0, CLIENT ^ 1), b"", b"\x01"])
def test_a_checkpoint_that_is_no_document_is_refused(wrong: bytes) -> None:
    with pytest.raises(UpdateError):
        RULES.after(entry(Checkpoint(wrong, (), ())))


def changed(times: int, at: int) -> Rules:
    rules = RULES
    for _ in range(times):
        rules = rules.after(entry(Capability(guard.EMPTY), at))
    return rules


def test_a_document_changes_only_so_often_in_a_day() -> None:
    at = EPOCH * EPOCH_S + 5
    most = changed(limits.CAPABILITIES_PER_DAY, at)
    assert most.changes == limits.CAPABILITIES_PER_DAY
    for late in (at, (DAY + 1) * HINT_DAY_S - 1):
        with pytest.raises(RefusedError, match="in a day"):
            most.after(entry(Capability(guard.EMPTY), late))


def test_another_day_has_changes_of_its_own() -> None:
    most = changed(limits.CAPABILITIES_PER_DAY, EPOCH * EPOCH_S)
    after = most.after(entry(Capability(guard.EMPTY), (DAY + 1) * HINT_DAY_S))
    assert (after.day, after.changes) == (DAY + 1, 1)


def test_only_changes_of_the_document_are_counted_as_that() -> None:
    most = changed(limits.CAPABILITIES_PER_DAY, EPOCH * EPOCH_S)
    for content in (Calibration(hints()), Evidence(conviction())):
        assert most.after(entry(content)).changes == limits.CAPABILITIES_PER_DAY


# --- what may come next: hints --------------------------------------------------------------------


@pytest.mark.parametrize("day", [DAY - limits.HINT_DAYS, DAY, DAY + 1])
def test_hints_of_days_that_count_are_taken(day: int) -> None:
    assert RULES.after(entry(Calibration(hints(day)))) == RULES
    assert RULES.after(entry(Checkpoint(guard.EMPTY, (hints(day),), ()))) == RULES


WRONG_HINTS: dict[str, tuple[Hints, type[ProtocolError]]] = {
    "too old": (hints(DAY - limits.HINT_DAYS - 1), RefusedError),
    "to come": (hints(DAY + 2), RefusedError),
    "believed too long": (hints(expires=(DAY + 2 + limits.HINT_DAYS) * HINT_DAY_S), RefusedError),
    "a peer twice": (hints(subjects=hints().subjects * 2), RefusedError),
    "too many bytes": (
        hints(
            subjects=tuple(
                Subject(PeerId(n.to_bytes(32, "big")), "m" * 64, hints().subjects[0].sums)
                for n in range(limits.HINTS_BYTES // 96)
            )
        ),
        TooLargeError,
    ),
}


@pytest.mark.parametrize("what", WRONG_HINTS)
def test_hints_that_are_none_are_refused(what: str) -> None:
    wrong, error = WRONG_HINTS[what]
    for content in (Calibration(wrong), Checkpoint(guard.EMPTY, (wrong,), ())):
        with pytest.raises(error):
            RULES.after(entry(content))


def test_whether_hints_count_follows_from_the_time_of_their_entry() -> None:
    """Not from a clock: all replicas have to agree."""
    late = hints(DAY - 3)
    RULES.after(entry(Calibration(late), (DAY + 4) * HINT_DAY_S))
    with pytest.raises(RefusedError, match="long past"):
        RULES.after(entry(Calibration(late), (DAY + 5) * HINT_DAY_S))


@pytest.mark.parametrize("days", [(DAY, DAY), (DAY, DAY - 1)])
def test_a_checkpoint_has_each_day_once_and_in_order(days: tuple[int, int]) -> None:
    right = tuple(hints(day) for day in sorted(set(days)))
    RULES.after(entry(Checkpoint(guard.EMPTY, right, ())))
    with pytest.raises(RefusedError, match="repeat a day"):
        RULES.after(entry(Checkpoint(guard.EMPTY, tuple(hints(day) for day in days), ())))


# --- what may come next: evidence -----------------------------------------------------------------


def test_a_proof_that_convicts_is_taken_whoever_says_so() -> None:
    assert RULES.after(entry(Evidence(conviction()))) == Rules(CLIENT, proofs=1)


def test_a_proof_that_convicts_nobody_is_refused() -> None:
    right = conviction()
    one = WaveClose(RoundId(bytes(32)), ZERO_DIGEST, 0, ZERO_DIGEST, False)
    unsigned = msgspec.structs.replace(right.second, signature=bytes(64))
    wrong: dict[type[ProtocolError], Proof] = {
        ProofError: Proof(right.second, right.first),
        BadSignatureError: Proof(right.first, unsigned),
        DecodeError: Proof(*(seal(THIEF, Decline(one.round, "busy", t)) for t in ("", "x"))),
        TooLargeError: Proof(right.first, THIEF.seal(bytes(limits.PROOF_BYTES))),
    }
    for error, proof in wrong.items():
        for content in (Evidence(proof), Checkpoint(guard.EMPTY, (), (conviction(9), proof))):
            with pytest.raises(error):
                RULES.after(entry(content))


def test_an_epoch_has_only_so_many_proofs() -> None:
    most = limits.EVIDENCE_PER_EPOCH
    full = Rules(CLIENT, proofs=most - 1).after(entry(Evidence(conviction())))
    assert full.proofs == most
    two = Checkpoint(guard.EMPTY, (), (conviction(1), conviction(2)))
    assert Rules(CLIENT, proofs=most - 2).after(entry(two)).proofs == most
    for rules, content in ((full, Evidence(conviction())), (Rules(CLIENT, proofs=most - 1), two)):
        with pytest.raises(RefusedError, match=f"{most + 1} proofs"):
            rules.after(entry(content))


def test_too_many_proofs_are_refused_before_they_are_checked() -> None:
    """Each takes two signatures."""
    junk = Proof(THIEF.seal(b""), THIEF.seal(b""))
    with pytest.raises(RefusedError, match="proofs"):
        Rules(CLIENT, proofs=limits.EVIDENCE_PER_EPOCH).after(entry(Evidence(junk)))


# --- a chain --------------------------------------------------------------------------------------


def grown(author: Author, runs: Sequence[int]) -> Chain:
    """What is held of ``author`` after runs up to each of ``runs`` entries."""
    chain = Chain(author.peer, author.epoch)
    for end in runs:
        chain.extend(author.bodies[len(chain.bodies) : end], None)
        chain.signatures[end - 1] = author.run(0, end).signature
    return chain


def test_an_empty_chain() -> None:
    chain = Chain(ANN.peer, EPOCH)
    assert (chain.head, chain.size, chain.admitted) == (ZERO_DIGEST, 0, False)
    assert chain.rules() == RULES
    assert chain.branch() is None


def test_a_chain_knows_its_head_its_size_and_its_rules() -> None:
    author = Author("ann", 4)
    chain = grown(author, [2, 4])
    assert chain.bodies == author.bodies
    assert chain.head == entry_digest(author.bodies[-1])
    assert chain.size == sum(map(len, author.bodies))
    assert chain.rules() == Rules(CLIENT, clock=4, day=DAY, changes=3)


def test_a_ticket_admits() -> None:
    assert Chain(ANN.peer, EPOCH, ticket=b"x").admitted


def test_what_is_passed_on_has_the_last_signature() -> None:
    author = Author("ann", 5)
    chain = grown(author, [2, 5])
    chain.ticket = author.ticket
    for first in range(5):
        assert chain.run(first) == author.run(first)


@pytest.mark.parametrize(("seq", "end"), [(0, 2), (1, 2), (2, 5), (4, 5)])
def test_a_proof_is_the_shortest_run_that_is_signed(seq: int, end: int) -> None:
    author = Author("ann", 5)
    assert grown(author, [2, 5]).proof(seq) == author.run(seq, end, ticket=False)


# --- where it ends --------------------------------------------------------------------------------


def frozen(author: Author, runs: Sequence[int], seq: int, other: Author) -> Chain:
    """What is held of ``author`` once it has shown another side at ``seq``."""
    chain = grown(author, runs)
    chain.freeze(seq, fork(chain.proof(seq), other.run(seq)))
    return chain


def assert_sound(chain: Chain, whole: Sequence[bytes]) -> None:
    """It is the beginning of ``whole``, ends where its proof says, and whoever is given it can see
    that its author made it."""
    assert chain.fork is not None
    assert chain.forked_at is not None
    assert check_fork(chain.fork, SWARM) == Place(ANN.peer, EPOCH, chain.forked_at)
    assert chain.bodies == list(whole[: len(chain.bodies)])
    proven = [*chain.fork.one.bodies, *chain.fork.other.bodies]
    assert chain.size == sum(map(len, [*chain.bodies, *proven]))
    assert chain.head == (entry_digest(chain.bodies[-1]) if chain.bodies else ZERO_DIGEST)
    for first in range(len(chain.bodies)):
        for run in (chain.run(first), chain.proof(first)):
            check_links(run.bodies, SWARM)
            assert read_entry(run.bodies[0]).seq == first
            assert sum(map(len, run.bodies)) <= limits.EPOCH_BYTES
            check_signature(chain.author, run.bodies[-1], run.signature)


@pytest.mark.parametrize("runs", [[6], [2, 6], [3, 6], [1, 2, 3, 4, 5, 6]])
@pytest.mark.parametrize("seq", range(6))
def test_a_chain_ends_where_its_author_forked(seq: int, runs: list[int]) -> None:
    author = Author("ann", 6)
    chain = frozen(author, runs, seq, author.other(seq, 2))
    assert (chain.forked_at, len(chain.bodies)) == (seq, seq)
    assert_sound(chain, author.bodies)
    assert chain.signatures.keys() == {end - 1 for end in runs if end <= seq}
    assert chain.rules().clock == seq


@given(
    st.permutations([1, 2, 3, 4, 5, 6, 7]),
    st.lists(st.integers(1, 8), max_size=3),
    st.booleans(),
    st.integers(0, 3),
    st.data(),
)
def test_a_chain_stays_sound_however_its_end_is_lowered(
    places: list[int], ends: list[int], third: bool, above: int, data: st.DataObject
) -> None:
    """By a branch of what is held, or by two others; they have left it there, or before."""
    author = Author("ann", 8)
    chain = grown(author, [*sorted(set(ends) - {8}), 8])
    for seq in places:
        if chain.forked_at is not None and seq >= chain.forked_at:
            continue
        left = max(0, seq - above)
        more = seq - left + 1
        one = author.other(left, data.draw(st.integers(more, more + 2)), "one")
        other = author.other(left, more, "other") if third else author
        chain.freeze(seq, fork(one.run(seq), other.run(seq)))
        assert (chain.forked_at, len(chain.bodies)) == (seq, seq)
        assert_sound(chain, author.bodies)


def test_a_proof_that_is_lowered_keeps_within_the_bytes_of_an_epoch() -> None:
    """Each branch is as long as an epoch allows."""
    author = full(Author("ann", value_bytes=3000))
    chain = grown(author, [len(author.bodies)])
    for seq in range(len(author.bodies) - 1, -1, -3):
        twin = full(author.other(seq, 1, str(seq)))
        chain.freeze(seq, fork(chain.proof(seq), twin.run(seq)))
        assert_sound(chain, author.bodies)
        assert chain.fork is not None
        assert len(encode(chain.fork)) <= limits.SYNC_BYTES


def full(author: Author) -> Author:
    """Let it write as much as an epoch takes."""
    while True:
        author.write()
        if sum(map(len, author.bodies)) > limits.EPOCH_BYTES:
            author.bodies.pop()
            return author


@pytest.mark.parametrize("first", [True, False])
def test_a_branch_that_lies_about_its_place_answers_for_nothing(first: bool) -> None:
    """It names the entry before, but not its size: no run can go on with it, be it the first or the
    second of the proof."""
    for size in itertools.count(8):
        author = Author("ann", 5, value_bytes=size)
        twin = author.other(3, 1)
        twin.bodies[3] = encode(msgspec.structs.replace(read_entry(twin.bodies[3]), offset=0))
        proof = fork(author.run(3), twin.run(3))
        if (proof.one.bodies[0] == twin.bodies[3]) is first:
            break
    chain = grown(author, [5])
    chain.freeze(3, proof)
    assert_sound(chain, author.bodies)


def test_a_chain_that_is_shorter_than_where_it_forked_stays() -> None:
    author = Author("ann", 2)
    other = Author("ann", 5)
    chain = grown(author, [2])
    chain.freeze(4, other.fork(other.other(4), 4))
    assert (chain.forked_at, len(chain.bodies)) == (4, 2)
    assert_sound(chain, author.bodies)


@pytest.mark.parametrize("known", [True, False])
def test_a_branch_that_goes_on_answers_for_what_came_with_it(known: bool) -> None:
    author = Author("ann", 6)
    third = author.other(4, 2, "third")
    # One of the two that are known follows what is held, or neither does.
    one, other = author.other(4 if known else 3, 2, "one"), author.other(3, 2, "other")
    chain = grown(author, [2])
    chain.freeze(4, one.fork(other, 4))
    chain.extend(author.bodies[2:4], None)
    chain.keep_branch((one if known else third).run(4, ticket=False))
    assert_sound(chain, author.bodies)


def test_the_proof_has_no_tickets() -> None:
    """Whoever passes it on puts in the best one."""
    author = Author("ann", 3)
    chain = grown(author, [3])
    chain.freeze(1, author.fork(author.other(1), 1))
    assert chain.fork is not None
    assert chain.fork.one.ticket + chain.fork.other.ticket == b""


# --- taken back from a disk -----------------------------------------------------------------------


def back(chain: Chain, **changes: Any) -> Chain:
    """``chain`` after a restart, or something else than what was kept."""
    kept = {
        "swarm": SWARM,
        "author": chain.author,
        "epoch": chain.epoch,
        "bodies": chain.bodies,
        "signatures": chain.signatures,
        "proof": chain.fork,
    }
    return restored(**(kept | changes))


@pytest.mark.parametrize("runs", [[6], [1, 3, 6]])
def test_what_was_kept_is_taken_back(runs: list[int]) -> None:
    author = Author("ann", 6)
    chains = [grown(author, runs)]
    chains += [frozen(author, runs, seq, author.other(seq)) for seq in range(6)]
    for chain in chains:
        again = back(chain)
        last = len(chain.bodies) - 1
        chain.signatures = {at: one for at, one in chain.signatures.items() if at == last}
        chain.rules(), again.rules()
        assert again == chain


def test_nothing_is_not_taken_back() -> None:
    with pytest.raises(RefusedError, match="without its entries"):
        back(Chain(ANN.peer, EPOCH))


def test_the_log_of_another_is_not_taken_back() -> None:
    chain = grown(Author("ann", 2), [2])
    for changes in ({"author": THIEF.peer}, {"epoch": EPOCH + 1}, {"bodies": chain.bodies[1:]}):
        with pytest.raises(RefusedError, match="the log of another"):
            back(chain, **changes)
    author = Author("ann", 2)
    chain = frozen(author, [2], 0, author.other(0))
    for changes in ({"author": THIEF.peer}, {"epoch": EPOCH + 1}):
        with pytest.raises(RefusedError, match="the log of another"):
            back(chain, **changes)


def test_another_swarm_s_is_not_taken_back() -> None:
    with pytest.raises(RefusedError, match="of the swarm"):
        back(grown(Author("ann", 2), [2]), swarm="elsewhere")


def test_a_signature_that_does_not_hold_is_not_taken_back() -> None:
    chain = grown(Author("ann", 3), [2, 3])
    with pytest.raises(BadSignatureError):
        back(chain, signatures={2: chain.signatures[1]})
    with pytest.raises(RefusedError, match="signature of a log is missing"):
        back(chain, signatures={1: chain.signatures[1]})


def test_signatures_that_nobody_has_checked_are_not_kept() -> None:
    """One that does not hold would make a proof that convicts nobody."""
    chain = grown(Author("ann", 3), [2, 3])
    again = back(chain, signatures={1: bytes(64), 2: chain.signatures[2]})
    assert again.signatures == {2: chain.signatures[2]}


def test_entries_from_a_fork_on_are_not_taken_back() -> None:
    author = Author("ann", 4)
    chain = frozen(author, [4], 2, author.other(2))
    with pytest.raises(RefusedError, match="follow a fork"):
        back(chain, bodies=author.bodies[:3], signatures={2: author.run(0, 3).signature})


def test_a_proof_that_proves_nothing_is_not_taken_back() -> None:
    author = Author("ann", 4)
    chain = frozen(author, [4], 2, author.other(2))
    assert chain.fork is not None
    unsigned = msgspec.structs.replace(chain.fork.other, signature=bytes(64))
    wrong: dict[type[ProtocolError], Fork] = {
        ForkError: Fork(chain.fork.other, chain.fork.one),
        BadSignatureError: Fork(chain.fork.one, unsigned),
    }
    for error, proof in wrong.items():
        with pytest.raises(error):
            back(chain, proof=proof)


def test_entries_that_no_branch_follows_are_not_taken_back() -> None:
    author = Author("ann", 5)
    chain = frozen(author, [5], 3, author.other(3))
    assert not chain.signatures
    for short in (chain.bodies[:2], [*chain.bodies[:2], author.other(2, 1, "x").bodies[2]]):
        with pytest.raises(RefusedError, match="signature of a log is missing"):
            back(chain, bodies=short)
