"""Admission: what a ticket is worth, to whom, and who is kept where there is no room."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha512

import pytest
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings as sodium
from nacl.signing import SigningKey, VerifyKey

from protocol.digest import digest
from protocol.errors import AdmissionError
from protocol.ids import PeerId
from swarm.ledger.admission import (
    CERTIFICATE_BYTES,
    CERTIFIED,
    STAMP_BITS,
    STAMP_BYTES,
    Admission,
    Certificates,
    Stamps,
    rank,
)

SWARM = "friends"
KEY = bytes(range(32))
EPOCH = 2_900
BEST = (1 << 63) - 1


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


AUTHOR = peer(7)


def nonce(number: int) -> bytes:
    return number.to_bytes(STAMP_BYTES, "big")


# --- stamps ---------------------------------------------------------------------------------------


def test_the_hash_is_the_one_that_all_nodes_compute() -> None:
    """Another value would be another protocol."""
    assert STAMP_BITS == 16
    assert Stamps(SWARM).attempt(AUTHOR, EPOCH, nonce(1)) == 7108687849897238641


@pytest.mark.parametrize("number", [0, 1, 2**64 - 1])
def test_the_hash_is_scrypt_of_rfc_7914(number: int) -> None:
    salt = digest("stamp", SWARM, AUTHOR, EPOCH)
    witness = Scrypt(salt=salt, length=8, n=1024, r=8, p=1).derive(nonce(number))
    found = Stamps(SWARM).attempt(AUTHOR, EPOCH, nonce(number))
    assert found == int.from_bytes(witness, "big") // 2


def test_a_nonce_is_admitted_if_its_hash_begins_with_enough_zeros() -> None:
    stamps = Stamps(SWARM, bits=3)
    admitted = 0
    for number in range(200):
        value = stamps.attempt(AUTHOR, EPOCH, nonce(number))
        if value >> 60 == 0:
            admitted += 1
            assert stamps.quality(AUTHOR, EPOCH, nonce(number)) == BEST - value
        else:
            with pytest.raises(AdmissionError, match="too little work"):
                stamps.quality(AUTHOR, EPOCH, nonce(number))
    assert stamps.expected == 8
    assert 12 <= admitted <= 40  # 25 in expectation, with a standard deviation of 4.7


@pytest.mark.parametrize(("value", "bits"), [(1 << 47, 16), (1 << 62, 1)])
def test_the_bound_is_exact(monkeypatch: pytest.MonkeyPatch, value: int, bits: int) -> None:
    stamps = Stamps(SWARM, bits)
    monkeypatch.setattr(Stamps, "attempt", lambda *_: value - 1)
    assert stamps.quality(AUTHOR, EPOCH, nonce(0)) == BEST - value + 1
    monkeypatch.setattr(Stamps, "attempt", lambda *_: value)
    with pytest.raises(AdmissionError):
        stamps.quality(AUTHOR, EPOCH, nonce(0))
    assert stamps.search(AUTHOR, EPOCH, range(2)) is None


def test_every_smaller_hash_is_a_better_stamp() -> None:
    stamps = Stamps(SWARM, bits=0)
    nonces = [nonce(number) for number in range(40)]
    by_hash = sorted(nonces, key=lambda one: stamps.attempt(AUTHOR, EPOCH, one))
    qualities = [stamps.quality(AUTHOR, EPOCH, one) for one in by_hash]
    assert qualities == sorted(qualities, reverse=True)
    assert len(set(qualities)) == len(nonces)
    assert all(0 <= one <= BEST for one in qualities)


def test_a_stamp_is_of_use_to_one_author_in_one_epoch_of_one_swarm() -> None:
    stamps = Stamps(SWARM, bits=8)
    ticket = stamps.search(AUTHOR, EPOCH, range(4096))
    assert ticket is not None
    assert stamps.quality(AUTHOR, EPOCH, ticket) > BEST - (1 << 55)
    others = [
        (Stamps("Friends", bits=8), AUTHOR, EPOCH),
        *((stamps, peer(number), EPOCH) for number in (0, 6, 8)),
        *((stamps, AUTHOR, epoch) for epoch in (0, EPOCH - 1, EPOCH + 1)),
    ]
    for other, author, epoch in others:
        with pytest.raises(AdmissionError):
            other.quality(author, epoch, ticket)


def test_the_search_finds_the_first() -> None:
    stamps = Stamps(SWARM, bits=4)
    good = [
        number for number in range(64) if stamps.attempt(AUTHOR, EPOCH, nonce(number)) < 1 << 59
    ]
    first, second = good[:2]
    assert stamps.search(AUTHOR, EPOCH, range(64)) == nonce(first)
    assert stamps.search(AUTHOR, EPOCH, range(first)) is None
    assert stamps.search(AUTHOR, EPOCH, range(first + 1, 64)) == nonce(second)
    assert stamps.search(AUTHOR, EPOCH, ()) is None


# --- certificates ---------------------------------------------------------------------------------


def test_whoever_has_the_key_issues_and_checks() -> None:
    ticket = Certificates(SWARM, KEY).issue(AUTHOR, EPOCH)
    assert len(ticket) == CERTIFICATE_BYTES
    assert Certificates(SWARM, KEY).quality(AUTHOR, EPOCH, ticket) == CERTIFIED
    assert Certificates(SWARM, KEY).issue(AUTHOR, EPOCH) == ticket
    public = VerifyKey(bytes(SigningKey(digest("admission-key", KEY)).verify_key))
    public.verify(digest("admit", SWARM, AUTHOR, EPOCH), ticket)
    assert ticket.hex() == (
        "ecf7482ca7f5509b42beda31c15bedf22c23540be304b2cb660db161d2973323"
        "8457efcc263f36bc7939148fd81b86c5bbcc197107397bed7e29e966f26d6705"
    )


def test_a_certificate_is_of_use_to_one_author_in_one_epoch_of_one_swarm() -> None:
    ticket = Certificates(SWARM, KEY).issue(AUTHOR, EPOCH)
    others = [
        (Certificates("Friends", KEY), AUTHOR, EPOCH),
        (Certificates(SWARM, KEY[::-1]), AUTHOR, EPOCH),
        (Certificates(SWARM, KEY), peer(8), EPOCH),
        (Certificates(SWARM, KEY), AUTHOR, EPOCH + 1),
    ]
    for other, author, epoch in others:
        with pytest.raises(AdmissionError, match="not made with the key"):
            other.quality(author, epoch, ticket)


def test_no_bit_of_a_certificate_can_change() -> None:
    certificates = Certificates(SWARM, KEY)
    whole = int.from_bytes(certificates.issue(AUTHOR, EPOCH), "big")
    for bit in range(8 * CERTIFICATE_BYTES):
        ticket = (whole ^ 1 << bit).to_bytes(CERTIFICATE_BYTES, "big")
        with pytest.raises(AdmissionError):
            certificates.quality(AUTHOR, EPOCH, ticket)


def other_signature(seed: bytes, message: bytes) -> bytes:
    """A valid Ed25519 signature with another nonce than the one of RFC 8032."""
    hashed = bytearray(sha512(seed).digest()[:32])
    hashed[0] &= 248
    hashed[31] = hashed[31] & 127 | 64
    secret = sodium.crypto_core_ed25519_scalar_reduce(bytes(hashed) + bytes(32))
    once = sodium.crypto_core_ed25519_scalar_reduce(bytes(63) + b"\1")
    head = sodium.crypto_scalarmult_ed25519_base_noclamp(once)
    challenge = sodium.crypto_core_ed25519_scalar_reduce(
        sha512(head + bytes(SigningKey(seed).verify_key) + message).digest()
    )
    answer = sodium.crypto_core_ed25519_scalar_mul(challenge, secret)
    return head + sodium.crypto_core_ed25519_scalar_add(once, answer)


def test_there_is_one_certificate_although_there_are_many_valid_signatures() -> None:
    seed, message = digest("admission-key", KEY), digest("admit", SWARM, AUTHOR, EPOCH)
    ticket = other_signature(seed, message)
    SigningKey(seed).verify_key.verify(message, ticket)
    with pytest.raises(AdmissionError):
        Certificates(SWARM, KEY).quality(AUTHOR, EPOCH, ticket)


def test_in_a_private_swarm_stamps_do_not_count() -> None:
    """Nor do certificates in a public one."""
    stamps, certificates = Stamps(SWARM, bits=0), Certificates(SWARM, KEY)
    with pytest.raises(AdmissionError, match="64 bytes, not 8"):
        certificates.quality(AUTHOR, EPOCH, nonce(0))
    with pytest.raises(AdmissionError, match="8 bytes, not 64"):
        stamps.quality(AUTHOR, EPOCH, certificates.issue(AUTHOR, EPOCH))


# --- any bytes ------------------------------------------------------------------------------------

EITHER = pytest.mark.parametrize(
    "admission", [Stamps(SWARM, bits=1), Certificates(SWARM, KEY)], ids=["stamps", "certificates"]
)


@EITHER
@settings(max_examples=150)
@given(
    author=st.just(AUTHOR) | st.binary(max_size=40),
    epoch=st.just(EPOCH) | st.integers(-(2**70), 2**70),
    ticket=st.binary(max_size=80) | st.binary(min_size=8, max_size=8) | st.binary(min_size=64),
)
def test_anything_is_a_ticket_or_refused(
    admission: Admission, author: bytes, epoch: int, ticket: bytes
) -> None:
    try:
        quality = admission.quality(PeerId(author), epoch, ticket)
    except AdmissionError:
        return
    assert 0 <= quality <= BEST
    assert len(author) == 32
    assert 0 <= epoch < 2**64
    assert len(ticket) == STAMP_BYTES


@EITHER
@pytest.mark.parametrize("size", [0, 1, 7, 9, 63, 65, 1 << 16])
def test_what_has_the_wrong_form_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, admission: Admission, size: int
) -> None:
    def worked(*_: object) -> int:
        raise AssertionError("it has been computed")

    monkeypatch.setattr(Stamps, "attempt", worked)
    monkeypatch.setattr(Certificates, "issue", worked)
    right = STAMP_BYTES if isinstance(admission, Stamps) else CERTIFICATE_BYTES
    wrong = [
        (AUTHOR, EPOCH, bytes(size)),
        (PeerId(bytes(31)), EPOCH, bytes(right)),
        (AUTHOR, -1, bytes(right)),
        (AUTHOR, 1 << 64, bytes(right)),
    ]
    for author, epoch, ticket in wrong:
        with pytest.raises(AdmissionError):
            admission.quality(author, epoch, ticket)


# --- who is kept ----------------------------------------------------------------------------------

Held = dict[PeerId, int]
"""The best ticket of each author."""


def best(held: Held, room: int) -> Held:
    """Those kept, where everything is known at once."""
    kept = sorted(held, key=lambda author: rank(held[author], author, EPOCH), reverse=True)[:room]
    return {author: held[author] for author in kept}


def union(*sets: Held) -> Held:
    found: Held = {}
    for one in sets:
        for author, quality in one.items():
            found[author] = max(quality, found.get(author, -1))
    return found


def one_by_one(tickets: Iterable[tuple[PeerId, int]], room: int) -> Held:
    """Those kept by a node that hears of tickets one after the other."""
    held: Held = {}
    for author, quality in tickets:
        held = best(union(held, {author: quality}), room)
    return held


QUALITIES = st.integers(0, 3)
SETS = st.dictionaries(st.integers(0, 12).map(peer), QUALITIES, max_size=12)


@settings(max_examples=300)
@given(sets=st.lists(SETS, min_size=1, max_size=4), room=st.integers(0, 6))
def test_what_is_kept_of_a_union_is_the_same_however_it_is_formed(
    sets: list[Held], room: int
) -> None:
    at_once = best(union(*sets), room)
    gathered: Held = {}
    for one in sets:
        gathered = best(union(gathered, best(one, room)), room)
    back: Held = {}
    for one in reversed(sets):
        back = best(union(best(one, room), back, gathered), room)
    assert gathered == back == at_once
    assert best(at_once, room) == at_once
    assert len(at_once) == min(room, len(union(*sets)))


@settings(max_examples=300)
@given(
    tickets=st.lists(st.tuples(st.integers(0, 12).map(peer), QUALITIES), max_size=20),
    room=st.integers(1, 6),
    data=st.data(),
)
def test_the_order_in_which_tickets_arrive_decides_nothing(
    tickets: list[tuple[PeerId, int]], room: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(tickets))
    assert one_by_one(tickets, room) == one_by_one(shuffled, room)
    assert one_by_one(shuffled, room) == best(union(*({a: q} for a, q in tickets)), room)


@given(low=st.integers(0, BEST), high=st.integers(0, BEST), one=st.binary(), other=st.binary())
def test_a_better_ticket_ranks_higher_whosever_it_is(
    low: int, high: int, one: bytes, other: bytes
) -> None:
    low, high = sorted((low, high))
    if low < high:
        assert rank(low, PeerId(one), EPOCH) < rank(high, PeerId(other), EPOCH)


def test_no_two_authors_rank_the_same() -> None:
    assert len({rank(CERTIFIED, peer(number), EPOCH) for number in range(1000)}) == 1000


def test_nobody_gains_week_after_week_by_its_key() -> None:
    lowest, highest = PeerId(bytes(32)), PeerId(b"\xff" * 32)
    won = sum(
        rank(CERTIFIED, lowest, epoch) < rank(CERTIFIED, highest, epoch) for epoch in range(400)
    )
    assert 160 <= won <= 240  # four standard deviations
