"""Proofs convict whoever signed both messages, and nobody else, whatever bytes are tried."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol.codec import decode, encode
from protocol.envelope import Envelope, KeySigner
from protocol.errors import (
    BadSignatureError,
    DecodeError,
    ProofError,
    ProtocolError,
    TooLargeError,
)
from protocol.ids import Digest, PeerId, RoundId
from protocol.ledger import Entry, Evidence, read_entry
from protocol.messages import (
    MICRO,
    Ack,
    AnyMessage,
    Ballot,
    Close,
    Commit,
    Decline,
    Duel,
    Message,
    Model,
    Proof,
    Reveal,
    Roster,
    RosterEntry,
    Row,
    Slate,
    SlateEntry,
    WaveClose,
    commitment,
    parse,
    seal,
)
from protocol.proofs import check, equivocation, stated
from tests.protocol.arbitrary import altered, arbitrary

LIAR, OTHER = (KeySigner(sha256(name).digest()) for name in (b"liar", b"other"))
ROUND, ELSEWHERE = RoundId(b"r" * 32), RoundId(b"R" * 32)
SLATE, SALT = Digest(b"s" * 32), b"salt" * 8
MODEL = Model("model", "family", "")
COMMIT = Commit(ROUND, commitment(ROUND, LIAR.peer, SALT, "42"), MODEL)
REVEAL = Reveal(ROUND, SLATE, SALT, "42")
BALLOT = Ballot(ROUND, SLATE, 0, bytes(32), (Row(0, 1, MICRO), Row(1, 0, None)))
ROSTER = Roster(ROUND, 0, bytes(32), (RosterEntry(LIAR.peer, SLATE),))
CLOSE = WaveClose(ROUND, SLATE, 0, SLATE, False)
ANY: Any = AnyMessage

changed = msgspec.structs.replace


def pair(one: Message, other: Message, who: KeySigner = LIAR) -> Proof:
    """Two messages of one signer, in the order of an equivocation."""
    return equivocation(seal(who, one), seal(who, other))


def mismatch(reveal: Reveal, commit: Commit = COMMIT) -> Proof:
    """A Commit and a Reveal."""
    return Proof(seal(LIAR, commit), seal(LIAR, reveal))


def swapped(proof: Proof) -> Proof:
    return Proof(proof.second, proof.first)


EQUIVOCATIONS = [
    (COMMIT, changed(COMMIT, commitment=SLATE)),
    (COMMIT, changed(COMMIT, commitment=SLATE, model=Model("", "", ""))),
    (BALLOT, changed(BALLOT, rows=BALLOT.rows[::-1])),
    (BALLOT, changed(BALLOT, follows=SLATE)),
    (ROSTER, changed(ROSTER, entries=(RosterEntry(OTHER.peer, SLATE),))),
    (ROSTER, changed(ROSTER, previous=SLATE)),
    (CLOSE, changed(CLOSE, ballots=ROUND)),
    (CLOSE, changed(CLOSE, more=True)),
    (CLOSE, changed(CLOSE, duels=(Duel(0, 1, 1),))),
]


# --- what convicts ------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), EQUIVOCATIONS)
def test_two_messages_in_one_place_convict(one: Message, other: Message) -> None:
    proof = pair(one, other)
    conviction = check(proof)
    assert (conviction.peer, conviction.kind) == (LIAR.peer, "equivocation")
    assert conviction == stated(proof)
    assert decode(encode(proof), Proof) == proof


@pytest.mark.parametrize(
    "reveal",
    [
        changed(REVEAL, answer="43"),
        changed(REVEAL, salt=bytes(32)),
        changed(REVEAL, answer="42 ", roster=ROUND),
    ],
)
def test_a_reveal_that_does_not_open_the_commit_convicts(reveal: Reveal) -> None:
    conviction = check(mismatch(reveal))
    assert (conviction.peer, conviction.kind) == (LIAR.peer, "commit-mismatch")


def test_a_copied_commit_convicts_who_copied_it() -> None:
    """It is bound to its author: with the author's own salt and answer it opens for nobody else."""
    copy = Proof(seal(OTHER, COMMIT), seal(OTHER, REVEAL))
    assert check(copy).peer == OTHER.peer


# --- what does not ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (COMMIT, changed(COMMIT, round=ELSEWHERE, commitment=SLATE)),
        (COMMIT, changed(COMMIT, model=Model("renamed since", "family", ""))),
        (REVEAL, changed(REVEAL, roster=ROUND)),
        (BALLOT, changed(BALLOT, round=ELSEWHERE)),
        (BALLOT, changed(BALLOT, slate=ROUND)),
        (BALLOT, changed(BALLOT, wave=1, rows=())),
        (ROSTER, changed(ROSTER, stage=1, previous=SLATE)),
        (ROSTER, changed(ROSTER, round=ELSEWHERE, previous=SLATE)),
        (CLOSE, changed(CLOSE, wave=1, more=True)),
        (CLOSE, changed(CLOSE, slate=ROUND, more=True)),
        (CLOSE, changed(CLOSE, round=ELSEWHERE, more=True)),
        (BALLOT, CLOSE),
    ],
)
def test_what_an_honest_peer_may_send_does_not_convict(one: Message, other: Message) -> None:
    for proof in (pair(one, other), swapped(pair(one, other))):
        with pytest.raises(ProofError):
            check(proof)


@pytest.mark.parametrize(
    "message",
    [
        Decline(ROUND, "busy", ""),
        Ack(ROUND, SLATE),
        Slate(ROUND, SLATE, (SlateEntry(seal(LIAR, COMMIT), None),), bytes(32)),
        Close(ROUND, "answer", bytes(32)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_other_messages_convict_nobody(message: Message) -> None:
    for proof in (pair(COMMIT, message), swapped(pair(COMMIT, message))):
        with pytest.raises(DecodeError):
            check(proof)


def test_a_message_twice_does_not_convict() -> None:
    """Not even under two signatures, of which a signer can make any number."""
    envelope = seal(LIAR, COMMIT)
    for second in (envelope, changed(envelope, signature=bytes(64))):
        with pytest.raises(ProofError, match="contradict"):
            check(Proof(envelope, second))


def test_a_reveal_that_opens_or_is_of_another_round_does_not_convict() -> None:
    for reveal in (REVEAL, changed(REVEAL, round=ELSEWHERE, answer="43")):
        with pytest.raises(ProofError):
            check(mismatch(reveal))
    with pytest.raises(ProofError):
        check(swapped(mismatch(changed(REVEAL, answer="43"))))


def test_messages_of_two_signers_convict_neither() -> None:
    one, other = EQUIVOCATIONS[0]
    with pytest.raises(ProofError, match="two signers"):
        check(equivocation(seal(LIAR, one), seal(OTHER, other)))


@pytest.mark.parametrize("forged", ["first", "second"])
def test_both_signatures_have_to_hold(forged: str) -> None:
    proof = pair(*EQUIVOCATIONS[0])
    envelope: Envelope = getattr(proof, forged)
    by_another = OTHER.seal(envelope.body).signature
    for signature in (bytes(64), by_another):
        bent = changed(proof, **{forged: changed(envelope, signature=signature)})
        assert stated(bent) == stated(proof)
        with pytest.raises(BadSignatureError):
            check(bent)


# --- one encoding, one name ---------------------------------------------------------------------


def test_a_proof_has_one_order() -> None:
    for one, other in EQUIVOCATIONS:
        assert pair(one, other) == pair(other, one)
        with pytest.raises(ProofError, match="order"):
            check(swapped(pair(one, other)))


def test_all_proofs_of_one_offence_share_its_name() -> None:
    commits = [changed(COMMIT, commitment=sha256(b"%d" % n).digest()) for n in range(4)]
    named = {check(pair(one, other)).digest for one, other in permutations(commits, 2)}
    assert len(named) == 1
    reveals = [mismatch(changed(REVEAL, answer=str(n))) for n in range(4)]
    assert len({check(proof).digest for proof in reveals}) == 1


def test_offences_are_told_apart() -> None:
    elsewhere = changed(COMMIT, round=ELSEWHERE), changed(COMMIT, round=ELSEWHERE, commitment=SLATE)
    later = changed(BALLOT, wave=1), changed(BALLOT, wave=1, rows=())
    shown = [
        check(pair(*EQUIVOCATIONS[0])),
        check(pair(*EQUIVOCATIONS[0], who=OTHER)),
        check(mismatch(changed(REVEAL, answer="43"))),
        check(pair(*elsewhere)),
        check(pair(*EQUIVOCATIONS[2])),
        check(pair(*later)),
        check(pair(*EQUIVOCATIONS[4])),
        check(pair(*EQUIVOCATIONS[6])),
    ]
    assert len({one.digest for one in shown}) == len(shown)


# --- size ---------------------------------------------------------------------------------------

LONG = "\U0001f41d" * limits.TEXT_CHARS
LARGEST = [
    mismatch(
        Reveal(ROUND, SLATE, bytes(32), "x" * limits.ANSWER_BYTES),
        changed(COMMIT, model=Model(LONG, LONG, LONG)),
    ),
    pair(
        *(changed(COMMIT, commitment=x * 32, model=Model(LONG, LONG, LONG)) for x in (b"a", b"b"))
    ),
    pair(
        *(
            changed(BALLOT, rows=(Row(47, 46, p),) * limits.ROWS_PER_BALLOT)
            for p in (MICRO, MICRO - 1)
        )
    ),
    pair(
        *(
            changed(ROSTER, entries=(RosterEntry(PeerId(x * 32), SLATE),) * limits.COMMITTEE)
            for x in (b"a", b"b")
        )
    ),
    pair(
        *(
            changed(CLOSE, more=more, duels=(Duel(46, 47, limits.DUELS),) * limits.DUELS)
            for more in (True, False)
        )
    ),
]


@pytest.mark.parametrize("proof", LARGEST)
def test_the_largest_proofs_are_taken_and_fit_in_an_entry(proof: Proof) -> None:
    assert check(proof).peer == LIAR.peer
    entry = Entry(1, "s" * 64, OTHER.peer, 2**31, 2**31, ROUND, 1, 2**40, Evidence(proof))
    assert read_entry(encode(entry)) == entry


def test_a_larger_proof_is_refused_before_it_is_read() -> None:
    large = mismatch(Reveal(ROUND, SLATE, bytes(32), "\U0001f41d" * 8000))
    assert len(encode(large)) > limits.PROOF_BYTES
    with pytest.raises(TooLargeError):
        stated(large)


# --- anything at all ----------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused(data: bytes) -> None:
    try:
        proof = decode(data, Proof)
    except ProtocolError:
        return
    with pytest.raises(ProtocolError):
        check(proof)


@settings(max_examples=60)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_signed_garbage_is_refused(one: bytes, other: bytes) -> None:
    with pytest.raises(ProtocolError):
        check(Proof(LIAR.seal(one), LIAR.seal(other)))


@settings(max_examples=100)
@given(one=arbitrary(ANY), other=arbitrary(ANY), ordered=st.booleans())
def test_any_two_signed_messages_convict_only_by_the_rules(
    one: Message, other: Message, ordered: bool
) -> None:
    proof = pair(one, other) if ordered else Proof(seal(LIAR, one), seal(LIAR, other))
    _by_the_rules(proof)


@settings(max_examples=200)
@given(data=st.data())
def test_a_changed_proof_convicts_only_by_the_rules(data: st.DataObject) -> None:
    """One thing in it changed at any depth and signed again, as an attacker with the key can."""
    one, other = data.draw(st.sampled_from(EQUIVOCATIONS))
    whole = data.draw(st.sampled_from([pair(one, other), mismatch(changed(REVEAL, answer="x"))]))
    bent = data.draw(altered(whole, Proof, {LIAR.peer: LIAR, OTHER.peer: OTHER}))
    _by_the_rules(bent)


@settings(max_examples=100)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_each_flipped_bit_is_refused(at: int, bit: int) -> None:
    data = bytearray(encode(pair(*EQUIVOCATIONS[2])))
    data[at % len(data)] ^= 1 << bit
    with pytest.raises(ProtocolError):
        check(decode(bytes(data), Proof))


def _by_the_rules(proof: Proof) -> None:
    """Refused, or what the rules, written a second time here, give as well."""
    try:
        conviction = check(proof)
    except ProtocolError:
        return
    assert proof.first.signer == proof.second.signer == conviction.peer
    first, second = (parse(encode(one)).message for one in (proof.first, proof.second))
    rules: dict[str, Callable[[Any, Any], bool]] = {
        "Commit": lambda a, b: a.commitment != b.commitment,
        "Ballot": lambda a, b: (a.slate, a.wave) == (b.slate, b.wave) and a != b,
        "Roster": lambda a, b: a.stage == b.stage and a != b,
        "WaveClose": lambda a, b: (a.slate, a.wave) == (b.slate, b.wave) and a != b,
    }
    assert first.round == second.round  # type: ignore[union-attr]
    if conviction.kind == "commit-mismatch":
        assert isinstance(first, Commit)
        assert isinstance(second, Reveal)
        opened = commitment(first.round, conviction.peer, second.salt, second.answer)
        assert opened != first.commitment
    else:
        assert type(first) is type(second)
        assert rules[type(first).__name__](first, second)
        assert proof.first.digest < proof.second.digest
