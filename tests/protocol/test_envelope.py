"""A signature binds a signer to exact bytes, and everyone agrees whether it holds."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from protocol.codec import encode
from protocol.digest import digest
from protocol.envelope import Envelope, KeySigner, check, open_as
from protocol.errors import BadSignatureError, DecodeError
from protocol.messages import Ack, opened, parse, seal

ALICE, BOB = KeySigner(b"a" * 32), KeySigner(b"b" * 32)
ACK = Ack(bytes(32), bytes(32))
ORDER = 2**252 + 27742317777372353535851937790883648493


def test_the_peer_is_the_public_key() -> None:
    assert ALICE.peer == bytes(SigningKey(b"a" * 32).verify_key)


@given(st.binary(max_size=200))
def test_a_sealed_body_checks(body: bytes) -> None:
    envelope = ALICE.seal(body)
    assert (envelope.signer, envelope.body) == (ALICE.peer, body)
    check(envelope)


def test_what_is_signed_is_the_digest_of_signer_and_body() -> None:
    envelope = ALICE.seal(b"body")
    expected = SigningKey(b"a" * 32).sign(digest("signed", ALICE.peer, b"body")).signature
    assert envelope.signature == expected


def test_signing_is_deterministic() -> None:
    assert ALICE.seal(b"x") == ALICE.seal(b"x")
    assert ALICE.seal(b"x").signature != ALICE.seal(b"y").signature


def test_every_flipped_bit_is_refused() -> None:
    envelope = seal(ALICE, ACK)
    for name in ("signer", "body", "signature"):
        value: bytes = getattr(envelope, name)
        for bit in range(8 * len(value)):
            changed = bytearray(value)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(BadSignatureError):
                check(msgspec.structs.replace(envelope, **{name: bytes(changed)}))


def test_another_signer_is_refused() -> None:
    envelope = ALICE.seal(b"body")
    with pytest.raises(BadSignatureError):
        check(msgspec.structs.replace(envelope, signer=BOB.peer))


def test_a_signature_for_another_purpose_is_refused() -> None:
    """The bare body signed, as another protocol might have it signed."""
    key = SigningKey(b"a" * 32)
    for message in (b"body", digest("other", ALICE.peer, b"body"), digest("signed", b"body")):
        with pytest.raises(BadSignatureError):
            check(Envelope(ALICE.peer, b"body", key.sign(message).signature))


@pytest.mark.parametrize(
    "key",
    [
        bytes(32),
        b"\x01" + bytes(31),
        b"\xec" + b"\xff" * 30 + b"\x7f",
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    ],
    ids=["zero", "one", "minus one", "order 8", "order 8, the other"],
)
def test_keys_of_small_order_are_refused(key: bytes) -> None:
    """For such a key, R = identity and s = 0 would sign many messages."""
    for r in (b"\x01" + bytes(31), key):
        with pytest.raises(BadSignatureError):
            check(Envelope(key, b"body", r + bytes(32)))


def test_a_second_form_of_a_signature_is_refused() -> None:
    """s + L solves the same equation; taking both would give one message two envelopes."""
    envelope = ALICE.seal(b"body")
    s = int.from_bytes(envelope.signature[32:], "little") + ORDER
    with pytest.raises(BadSignatureError):
        check(
            msgspec.structs.replace(
                envelope, signature=envelope.signature[:32] + s.to_bytes(32, "little")
            )
        )


def test_the_digest_names_author_and_bytes() -> None:
    envelope = ALICE.seal(b"body")
    assert envelope.digest == digest("message", ALICE.peer, b"body")
    assert envelope.digest == msgspec.structs.replace(envelope, signature=bytes(64)).digest
    assert envelope.digest != BOB.seal(b"body").digest
    assert envelope.digest != ALICE.seal(b"bodz").digest


def test_opening_checks_first() -> None:
    envelope = seal(ALICE, ACK)
    assert open_as(envelope, Ack) == ACK
    with pytest.raises(BadSignatureError):
        open_as(msgspec.structs.replace(envelope, body=b"junk"), Ack)
    with pytest.raises(DecodeError):
        open_as(ALICE.seal(b"junk"), Ack)


def test_a_payload_is_parsed_with_its_author() -> None:
    incoming = parse(encode(seal(ALICE, ACK)))
    assert incoming.peer == ALICE.peer
    assert incoming.message == ACK
    assert incoming == opened(seal(ALICE, ACK))
    with pytest.raises(BadSignatureError, match=r"^Signer .{8}\.$"):
        parse(encode(msgspec.structs.replace(seal(ALICE, ACK), signer=BOB.peer)))


@given(st.binary(max_size=200))
def test_any_payload_is_refused_in_kind(payload: bytes) -> None:
    with pytest.raises((DecodeError, BadSignatureError)):
        parse(payload)
