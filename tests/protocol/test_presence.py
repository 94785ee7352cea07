"""What nodes state of themselves: it cannot be forged, varied, kept too long or come too early."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol.codec import encode
from protocol.envelope import Envelope, KeySigner
from protocol.errors import BadSignatureError, DecodeError, RefusedError, TooLargeError
from protocol.messages import Ack
from protocol.presence import PRESENCE_S, SKEW_S, Leave, Presence, check_time, read, state

SIGNER = KeySigner(hashlib.sha256(b"one").digest())
OTHER = KeySigner(hashlib.sha256(b"other").digest())
NOW = 1_700_000_000
HERE = Presence(
    swarm="friends",
    incarnation=1_699_999_000_000,
    serial=3,
    issued_at=NOW,
    addresses=("/ip4/192.0.2.1/tcp/4001", "/dns4/node.example/tcp/4001"),
    relay=True,
    nat="public",
)
GONE = Leave("friends", 1_699_999_000_000, NOW)

times = st.integers(0, 2**52)
presences = st.builds(
    Presence,
    swarm=st.text(min_size=1, max_size=64),
    incarnation=times,
    serial=st.integers(0, 2**31),
    issued_at=times,
    addresses=st.lists(st.text(max_size=20), max_size=limits.ADDRESSES).map(tuple),
    relay=st.booleans(),
    nat=st.sampled_from(("public", "open", "closed", "unknown")),
)
leaves = st.builds(
    Leave, swarm=st.text(min_size=1, max_size=64), incarnation=times, issued_at=times
)


def sealed(body: bytes, signer: KeySigner = SIGNER) -> bytes:
    return encode(signer.seal(body))


# --- what holds ---------------------------------------------------------------------------------


@given(presences | leaves)
def test_a_statement_survives(statement: Presence | Leave) -> None:
    stated = state(SIGNER, statement)
    assert stated.peer == SIGNER.peer
    assert stated.statement == statement
    assert read(stated.envelope) == stated


def test_a_statement_reads_as_this() -> None:
    """By hand, so that the encoding cannot change unnoticed."""
    body = b"\x94\xa5leave\xa7friends\xcf\x00\x00\x01\x8b\xcf\xd6\x25\xc0\xce\x65\x53\xf1\x00"
    assert encode(GONE) == body
    assert encode(HERE)[:18] == b"\x98\xa8presence\xa7friends"


def test_the_longest_statement_of_a_node_fits() -> None:
    """As far as a real node goes: its addresses are circuits with two peer ids in them."""
    circuit = (
        "/ip6/" + "ffff:" * 7 + "ffff/tcp/65535/p2p/" + "x" * 52 + "/p2p-circuit/p2p/" + "x" * 52
    )
    longest = msgspec.structs.replace(
        HERE, swarm="s" * 64, addresses=(circuit,) * limits.ADDRESSES, nat="unknown"
    )
    assert read(state(SIGNER, longest).envelope).statement == longest


# --- forged, varied, garbage --------------------------------------------------------------------


def test_nobody_can_state_anything_of_somebody_else() -> None:
    body = encode(HERE)
    forged = Envelope(OTHER.peer, body, SIGNER.seal(body).signature)
    with pytest.raises(BadSignatureError):
        read(encode(forged))


@pytest.mark.parametrize("statement", [HERE, GONE])
def test_every_byte_counts(statement: Presence | Leave) -> None:
    whole = state(SIGNER, statement).envelope
    for at in range(len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            varied = bytearray(whole)
            varied[at] ^= flip
            with pytest.raises((DecodeError, BadSignatureError)):
                read(bytes(varied))


@pytest.mark.parametrize("statement", [HERE, GONE])
def test_no_byte_can_be_left_out_or_added(statement: Presence | Leave) -> None:
    whole = state(SIGNER, statement).envelope
    for at in range(len(whole)):
        with pytest.raises((DecodeError, BadSignatureError)):
            read(whole[:at])
        with pytest.raises((DecodeError, BadSignatureError)):
            read(whole[:at] + whole[at + 1 :])
    with pytest.raises(DecodeError):
        read(whole + b"\x00")


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        read(data)


@given(st.binary(max_size=200))
def test_any_signed_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        read(sealed(data))


def test_an_oversize_statement_is_refused_unread() -> None:
    with pytest.raises(TooLargeError):
        read(b"\xff" * (limits.PRESENCE_BYTES + 1))
    many = msgspec.structs.replace(HERE, addresses=("x" * limits.ADDRESS_CHARS,) * limits.ADDRESSES)
    grown = sealed(encode(many) + bytes(limits.PRESENCE_BYTES))
    with pytest.raises(TooLargeError):
        read(grown)


def test_another_signed_message_is_no_statement() -> None:
    with pytest.raises(DecodeError):
        read(sealed(encode(Ack(bytes(32), bytes(32)))))


def fields(**changed: Any) -> list[Any]:
    plain = {name: getattr(HERE, name) for name in HERE.__struct_fields__}
    return ["presence", *(changed.get(name, value) for name, value in plain.items())]


@pytest.mark.parametrize(
    "value",
    [
        fields(swarm=""),
        fields(swarm="s" * 65),
        fields(swarm=None),
        fields(incarnation=-1),
        fields(incarnation=2**52 + 1),
        fields(incarnation=1.0),
        fields(serial=-1),
        fields(serial=2**31 + 1),
        fields(issued_at=-1),
        fields(issued_at=2**52 + 1),
        fields(addresses=("x",) * (limits.ADDRESSES + 1)),
        fields(addresses=("x" * (limits.ADDRESS_CHARS + 1),)),
        fields(addresses=(b"x",)),
        fields(addresses=None),
        fields(relay=1),
        fields(relay=None),
        fields(nat=""),
        fields(nat="public\n"),
        fields(nat="Public"),
        [*fields(), "more"],
        fields()[:-1],
        ["leave", "friends", 1],
        ["leave", "friends", 1, 2, 3],
        ["leave", "", 1, 2],
        ["leave", "friends", -1, 2],
        ["stay", "friends", 1, 2],
        ["leave"],
        [],
        {"type": "leave", "swarm": "friends", "incarnation": 1, "issued_at": 2},
    ],
)
def test_what_is_no_statement_is_refused_though_signed(value: object) -> None:
    with pytest.raises(DecodeError):
        read(sealed(msgspec.msgpack.encode(value)))


def test_another_encoding_of_the_same_statement_is_refused() -> None:
    """Else whoever passes it on could vary it, and two nodes would hold different bytes."""
    body = encode(HERE)
    long_list = b"\xdc\x00\x08" + body[1:]
    assert msgspec.msgpack.decode(long_list, type=Presence) == HERE
    with pytest.raises(DecodeError, match="one encoding"):
        read(sealed(long_list))
    envelope = sealed(body)
    long_envelope = b"\xdc\x00\x03" + envelope[1:]
    assert msgspec.msgpack.decode(long_envelope, type=Envelope).body == body
    with pytest.raises(DecodeError, match="one encoding"):
        read(long_envelope)


# --- time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("statement", [HERE, GONE])
def test_a_statement_counts_for_a_while_only(statement: Presence | Leave) -> None:
    check_time(statement, NOW)
    check_time(statement, NOW + PRESENCE_S - 1)
    check_time(statement, NOW - SKEW_S)
    with pytest.raises(RefusedError, match="601 s ago"):
        check_time(statement, NOW + PRESENCE_S + 1)
    with pytest.raises(RefusedError, match="121 s from now; see to the clocks"):
        check_time(statement, NOW - SKEW_S - 1)


@settings(max_examples=200)
@given(times, st.integers(-10_000, 10_000))
def test_the_limits_are_those_that_are_said(issued_at: int, ahead: int) -> None:
    statement = Leave("friends", 1, issued_at)
    now = issued_at - ahead
    try:
        check_time(statement, now)
    except RefusedError:
        assert ahead > SKEW_S or -ahead >= PRESENCE_S
    else:
        assert -PRESENCE_S <= ahead <= SKEW_S
