"""Entries, runs and forks: what they encode to, what follows from what, and what proves a fork."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol.codec import decode, encode
from protocol.envelope import KeySigner
from protocol.errors import (
    BadSignatureError,
    DecodeError,
    ForkError,
    ProtocolError,
    RefusedError,
    TooLargeError,
)
from protocol.ids import ZERO_DIGEST, Digest
from protocol.ledger import (
    EPOCH_S,
    VERSION,
    Calibration,
    Capability,
    Checkpoint,
    Content,
    Entry,
    Evidence,
    Fork,
    Hints,
    Place,
    Run,
    check_fork,
    check_links,
    check_next,
    check_signature,
    entry_digest,
    epoch_of,
    first_entry,
    fork,
    next_entry,
    read_entry,
    sign,
    stated_fork,
)
from protocol.messages import AnyMessage, Proof
from protocol.presence import Statement
from tests.protocol.arbitrary import arbitrary

SWARM = "test"
AT = 2960 * EPOCH_S + 1000
ME, OTHER = (KeySigner(sha256(name).digest()) for name in (b"me", b"other"))
NOTHING = Checkpoint(b"\x00\x00", (), ())
ANY: Any = AnyMessage
SAID: Any = Statement

changed = msgspec.structs.replace


def update(number: int) -> Capability:
    """Bytes that nobody looks at here."""
    return Capability(number.to_bytes(2, "big"))


def chain(entries: int, accent: int = 0, who: KeySigner = ME, at: int = AT) -> list[bytes]:
    """The encoded entries of ``who``, from entry 1 on different for each accent."""
    bodies = [encode(first_entry(SWARM, who.peer, at, NOTHING))]
    while len(bodies) < entries:
        seq = len(bodies)
        bodies.append(encode(next_entry(bodies[-1], at + seq, update(100 * accent + seq))))
    return bodies


def bent(body: bytes, **changes: Any) -> bytes:
    """An entry with some fields changed."""
    return encode(changed(read_entry(body), **changes))


# --- one encoding ---------------------------------------------------------------------------------


def test_an_entry_is_an_array_that_any_msgpack_reads() -> None:
    body = chain(2)[1]
    assert msgpack.unpackb(body) == [
        "entry",
        VERSION,
        SWARM,
        ME.peer,
        2960,
        1,
        entry_digest(chain(1)[0]),
        len(chain(1)[0]),
        AT + 1,
        ["capability", b"\x00\x01"],
    ]


def test_the_digest_of_an_entry_is_the_one_that_all_nodes_compute() -> None:
    """Another value would be another protocol."""
    domain = b"swarmd/1/" + b"\x00\x05entry"
    assert entry_digest(b"body") == sha256(domain + b"b" + bytes(7) + b"\x04body").digest()


@settings(max_examples=100)
@given(arbitrary(Entry))
def test_whatever_an_entry_says_is_read_as_it_was_written(entry: Entry) -> None:
    assert read_entry(encode(entry)) == entry


@settings(max_examples=50)
@given(st.one_of(arbitrary(Run), arbitrary(Fork), arbitrary(Place)))
def test_whatever_travels_is_read_as_it_was_written(value: Run | Fork | Place) -> None:
    assert decode(encode(value), type(value)) == value


@settings(max_examples=150)
@given(st.one_of(st.binary(max_size=200), arbitrary(Entry).map(encode)), st.data())
def test_any_bytes_are_an_entry_or_refused(data: bytes, more: st.DataObject) -> None:
    if data:
        at = more.draw(st.integers(0, len(data) - 1))
        data = data[:at] + more.draw(st.binary(max_size=3)) + data[at + 1 :]
    try:
        entry = read_entry(data)
    except ProtocolError:
        return
    assert encode(entry) == data


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"version": 0},
        {"swarm": ""},
        {"swarm": "x" * 65},
        {"author": bytes(31)},
        {"author": bytes(33)},
        {"epoch": -1},
        {"epoch": 2**31 + 1},
        {"seq": -1},
        {"seq": 2**31 + 1},
        {"prev": bytes(31)},
        {"offset": -1},
        {"offset": limits.EPOCH_BYTES + 1},
        {"at": -1},
        {"at": 2**40 + 1},
        {"content": Capability(bytes(limits.UPDATE_BYTES + 1))},
        {"content": Checkpoint(bytes(limits.UPDATE_BYTES + 1), (), ())},
        {"content": Checkpoint(b"", (Hints(0, 0, ()),) * (limits.HINT_DAYS + 3), ())},
        {"content": ["nonsense", b""]},
        {"content": None},
        {"content": ["capability"]},
        {"content": ["capability", b"", b""]},
    ],
    ids=str,
)
def test_what_an_entry_cannot_hold_is_not_decoded(changes: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        read_entry(bent(chain(2)[1], **changes))


def test_more_proofs_than_an_epoch_may_have_are_not_decoded() -> None:
    proof = Proof(ME.seal(b"a"), ME.seal(b"b"))
    most = Checkpoint(b"", (), (proof,) * limits.EVIDENCE_PER_EPOCH)
    body = chain(1)[0]
    assert read_entry(bent(body, content=most)).content == most
    with pytest.raises(DecodeError):
        read_entry(bent(body, content=changed(most, evidence=(*most.evidence, proof))))


def test_a_larger_entry_is_refused_before_it_is_read() -> None:
    with pytest.raises(TooLargeError):
        read_entry(bytes(limits.ENTRY_BYTES + 1))


@pytest.mark.parametrize(
    "changes",
    [
        {"bodies": ()},
        {"bodies": (b"",) * (limits.RUN_ENTRIES + 1)},
        {"bodies": (bytes(limits.ENTRY_BYTES + 1),)},
        {"signature": bytes(63)},
        {"signature": bytes(65)},
        {"ticket": bytes(limits.TICKET_BYTES + 1)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_a_run_cannot_hold_is_not_decoded(changes: dict[str, Any]) -> None:
    run = sign(ME, chain(2), b"ticket")
    assert decode(encode(run), Run) == run
    with pytest.raises(DecodeError):
        decode(encode(changed(run, **changes)), Run, limits.SYNC_BYTES)


def test_nothing_that_is_signed_elsewhere_is_an_entry() -> None:
    """The signature of one thing is never one of another."""
    for body in chain(2):
        for kind in (ANY, SAID):
            with pytest.raises(DecodeError):
                decode(body, kind)


# --- sizes ----------------------------------------------------------------------------------------


def test_the_largest_proof_fits_into_a_message() -> None:
    """Two branches of all that an author may say in an epoch."""
    least = encode(Entry(1, "s", ME.peer, 2960, 900, ZERO_DIGEST, 1, AT, Capability(b"")))
    bodies = [least] * (limits.EPOCH_BYTES // len(least))
    run = Run(tuple(bodies), bytes(64), bytes(limits.TICKET_BYTES))
    assert limits.EPOCH_BYTES - len(least) < sum(map(len, bodies)) <= limits.EPOCH_BYTES
    assert len(encode(Fork(run, run))) < limits.SYNC_BYTES


def test_a_whole_epoch_is_one_run() -> None:
    least = min(
        len(encode(Entry(1, "s", ME.peer, 2960, 5, ZERO_DIGEST, 0, AT, content)))
        for content in (
            Capability(b""),
            Calibration(Hints(0, 0, ())),
            Evidence(Proof(ME.seal(b""), ME.seal(b""))),
        )
    )
    assert limits.EPOCH_BYTES // least <= limits.RUN_ENTRIES


def test_a_document_and_the_hints_of_a_week_fit_into_a_checkpoint() -> None:
    days = (Hints(2**48, 2**48, ()),) * limits.HINT_DAYS
    body = bent(
        chain(1)[0], swarm="s" * 64, content=Checkpoint(bytes(limits.UPDATE_BYTES), days, ())
    )
    assert len(body) + limits.HINT_DAYS * limits.HINTS_BYTES < limits.ENTRY_BYTES


# --- what follows from what -----------------------------------------------------------------------


def test_the_epoch_follows_from_the_time() -> None:
    assert [epoch_of(at) for at in (0, EPOCH_S - 0.1, EPOCH_S, AT)] == [0, 0, 1, 2960]


def test_a_chain_is_counted_linked_and_measured() -> None:
    bodies = chain(4)
    entries = check_links(bodies, SWARM)
    assert [one.seq for one in entries] == [0, 1, 2, 3]
    assert entries[0].prev == ZERO_DIGEST
    assert [one.prev for one in entries[1:]] == [entry_digest(body) for body in bodies[:-1]]
    assert [one.offset for one in entries] == [sum(map(len, bodies[:n])) for n in range(4)]
    assert {(one.swarm, one.author, one.epoch) for one in entries} == {(SWARM, ME.peer, 2960)}
    assert [read_entry(body) for body in bodies] == list(entries)
    for last, entry in zip(bodies, entries[1:], strict=False):
        check_next(last, entry)


def test_a_clock_that_was_put_back_does_not_show() -> None:
    bodies = chain(2)
    entry = next_entry(bodies[1], AT - 500, update(9))
    assert entry.at == read_entry(bodies[1]).at
    check_links([*bodies, encode(entry)], SWARM)


def test_every_piece_of_a_chain_shows_what_it_is() -> None:
    bodies = chain(5)
    for first in range(5):
        for end in range(first + 1, 6):
            found = check_links(bodies[first:end], SWARM)
            assert [one.seq for one in found] == list(range(first, min(end, 5)))


TAIL = {
    "another swarm": ({"swarm": "elsewhere"}, "swarm"),
    "another author": ({"author": OTHER.peer}, "consecutive"),
    "another epoch": ({"epoch": 2961, "at": AT + EPOCH_S}, "consecutive"),
    "an epoch that is not that of the time": ({"epoch": 2961}, "time"),
    "a time that is not of the epoch": ({"at": AT + EPOCH_S}, "time"),
    "a gap": ({"seq": 4}, "consecutive"),
    "the same place": ({"seq": 2}, "consecutive"),
    "another parent": ({"prev": ZERO_DIGEST}, "follow"),
    "an offset too low": ({"offset": 0}, "follow"),
    "an offset too high": ({"offset": 1000}, "follow"),
    "an earlier time": ({"at": AT + 1}, "older"),
    "a checkpoint in the middle": ({"content": NOTHING}, "checkpoint"),
}


@pytest.mark.parametrize("what", TAIL)
def test_what_does_not_follow_is_refused(what: str) -> None:
    changes, reason = TAIL[what]
    bodies = chain(4)
    bodies[3] = bent(bodies[3], **changes)
    for some in (bodies, bodies[2:]):
        with pytest.raises(RefusedError, match=reason):
            check_links(some, SWARM)


@pytest.mark.parametrize("what", [what for what, (_, why) in TAIL.items() if "follow" in why])
def test_what_does_not_follow_the_last_one_held_is_refused(what: str) -> None:
    changes, reason = TAIL[what]
    bodies = chain(4)
    check_next(bodies[2], read_entry(bodies[3]))
    entry = read_entry(bent(bodies[3], **changes))
    with pytest.raises(RefusedError, match=reason):
        check_next(bodies[2], entry)


HEAD = {
    "no checkpoint": ({"content": update(1)}, "checkpoint"),
    "a parent": ({"prev": Digest(bytes([1]) * 32)}, "follows another"),
    "an offset": ({"offset": 1}, "follows another"),
    "another swarm": ({"swarm": "elsewhere"}, "swarm"),
    "another epoch": ({"epoch": 2959}, "time"),
}


@pytest.mark.parametrize("what", HEAD)
def test_a_first_entry_that_is_none_is_refused(what: str) -> None:
    changes, reason = HEAD[what]
    with pytest.raises(RefusedError, match=reason):
        check_links([bent(chain(1)[0], **changes)], SWARM)


def test_an_epoch_has_no_more_bytes_than_it_may() -> None:
    body = chain(2)[1]
    whole = limits.EPOCH_BYTES
    at_end = bent(body, offset=whole - len(bent(body, offset=whole)))
    check_links([at_end], SWARM)
    with pytest.raises(RefusedError, match="beyond"):
        check_links([bent(at_end, offset=read_entry(at_end).offset + 1)], SWARM)


@pytest.mark.parametrize("at", [0, 1])
def test_what_is_no_entry_is_refused_in_a_run_too(at: int) -> None:
    bodies = chain(2)
    for wrong, error in ((b"", DecodeError), (bytes(limits.ENTRY_BYTES + 1), TooLargeError)):
        bodies[at] = wrong
        with pytest.raises(error):
            check_links(bodies, SWARM)


# --- signatures -----------------------------------------------------------------------------------


def test_the_last_signature_is_that_of_a_run() -> None:
    bodies = chain(3)
    run = sign(ME, bodies, b"ticket")
    assert (run.bodies, run.ticket) == (tuple(bodies), b"ticket")
    check_signature(ME.peer, bodies[-1], run.signature)
    for author, body in ((OTHER.peer, bodies[-1]), (ME.peer, bodies[0])):
        with pytest.raises(BadSignatureError):
            check_signature(author, body, run.signature)


# --- forks ----------------------------------------------------------------------------------------


def branches(seq: int = 1, lengths: tuple[int, int] = (2, 1)) -> tuple[Run, Run]:
    """Two runs of one author that begin at ``seq`` and differ."""
    one, other = (chain(seq + length, n)[seq:] for n, length in enumerate(lengths))
    return sign(ME, one), sign(ME, other)


@pytest.mark.parametrize("lengths", [(1, 1), (1, 3), (3, 1), (2, 2)])
def test_two_entries_for_one_place_prove_a_fork(lengths: tuple[int, int]) -> None:
    proof = fork(*branches(2, lengths))
    assert check_fork(proof, SWARM) == stated_fork(proof, SWARM) == Place(ME.peer, 2960, 2)


def test_two_checkpoints_prove_a_fork() -> None:
    runs = [sign(ME, chain(1, at=at)) for at in (AT, AT + 1)]
    assert check_fork(fork(*runs), SWARM) == Place(ME.peer, 2960, 0)


def test_branches_need_not_have_one_parent() -> None:
    one, other = chain(4, 1)[3:], chain(4, 2)[3:]
    assert read_entry(one[0]).prev != read_entry(other[0]).prev
    assert check_fork(fork(sign(ME, one), sign(ME, other)), SWARM).seq == 3


def test_a_fork_has_one_order() -> None:
    one, other = branches()
    assert fork(one, other) == fork(other, one)
    wrong = Fork(fork(one, other).other, fork(one, other).one)
    for check in (stated_fork, check_fork):
        with pytest.raises(ForkError, match="order"):
            check(wrong, SWARM)


def test_one_entry_twice_is_no_fork() -> None:
    one, _ = branches()
    for other in (one, sign(ME, one.bodies[:1]), changed(one, signature=bytes(64))):
        with pytest.raises(ForkError, match="the same"):
            check_fork(fork(one, other), SWARM)


def test_entries_of_different_places_are_no_fork() -> None:
    one, other = branches()
    elsewhere = [
        sign(ME, chain(3, 1)[2:]),
        sign(OTHER, chain(2, 1, OTHER)[1:]),
        sign(ME, chain(2, 1, at=AT + EPOCH_S)[1:]),
    ]
    assert check_fork(fork(one, other), SWARM)
    for run in elsewhere:
        for proof in (Fork(one, run), Fork(run, one)):
            with pytest.raises(ForkError, match="different places"):
                check_fork(proof, SWARM)


@pytest.mark.parametrize("side", ["one", "other"])
def test_both_signatures_of_a_fork_have_to_hold(side: str) -> None:
    proof = fork(*branches())
    run: Run = getattr(proof, side)
    forgeries = [
        changed(run, signature=bytes(64)),
        changed(run, signature=OTHER.seal(run.bodies[-1]).signature),
        changed(run, signature=ME.seal(run.bodies[-1] + b"x").signature),
    ]
    for forged in forgeries:
        bad = changed(proof, **{side: forged})
        assert stated_fork(bad, SWARM) == stated_fork(proof, SWARM)
        with pytest.raises(BadSignatureError):
            check_fork(bad, SWARM)


Break = Callable[[list[bytes]], list[bytes]]
BREAKS: dict[str, tuple[Break, type[ProtocolError]]] = {
    "a link": (lambda bodies: [bodies[0], bent(bodies[1], prev=ZERO_DIGEST)], RefusedError),
    "the swarm": (lambda bodies: [bent(one, swarm="elsewhere") for one in bodies], RefusedError),
    "the bytes": (lambda bodies: [bodies[0], b"\xc1"], DecodeError),
    "the size": (lambda bodies: [bodies[0], bytes(limits.ENTRY_BYTES + 1)], TooLargeError),
}


@pytest.mark.parametrize("what", BREAKS)
@pytest.mark.parametrize("first", [True, False])
def test_a_branch_that_is_no_run_proves_nothing(what: str, first: bool) -> None:
    breaks, error = BREAKS[what]
    one, other = branches(lengths=(2, 2))
    broken = sign(ME, breaks(list(one.bodies)))
    proof = Fork(broken, other) if first else Fork(other, broken)
    with pytest.raises(error):
        check_fork(proof, SWARM)


def test_what_a_signer_is_tricked_into_is_another_swarm_s() -> None:
    """One key in two swarms is not a fork."""
    one = chain(2)
    elsewhere = [encode(first_entry("elsewhere", ME.peer, AT, NOTHING))]
    proof = fork(sign(ME, one[:1]), sign(ME, elsewhere))
    for swarm in (SWARM, "elsewhere"):
        with pytest.raises(RefusedError, match="of the swarm"):
            check_fork(proof, swarm)


CONTENTS: list[Content] = [
    NOTHING,
    update(1),
    Calibration(Hints(0, 0, ())),
    Evidence(Proof(ME.seal(b"a"), ME.seal(b"b"))),
]


@pytest.mark.parametrize("content", CONTENTS, ids=lambda one: type(one).__name__)
def test_what_an_entry_says_is_not_looked_at_here(content: Content) -> None:
    """Neither updates nor proofs are what they must be, and their author has signed them."""
    if isinstance(content, Checkpoint):
        check_links([encode(first_entry(SWARM, ME.peer, AT, content))], SWARM)
    else:
        check_links([*chain(1), encode(next_entry(chain(1)[0], AT, content))], SWARM)
