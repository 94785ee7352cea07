"""A receipt file: a signed core, and an opening that can be detached."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings

from protocol.codec import decode, encode
from protocol.digest import digest
from protocol.envelope import Envelope, KeySigner
from protocol.errors import DecodeError, ReceiptError
from protocol.messages import MICRO, Ack
from protocol.receipt import (
    AnswerClass,
    Broke,
    Core,
    Opening,
    ReceiptFile,
    Standing,
    Tally,
    opening_digest,
    read,
    write,
)
from tests.protocol.arbitrary import arbitrary

ASKER = KeySigner(b"a" * 32)


def _file(core: Core, opening: Opening) -> tuple[Envelope, bytes]:
    texts = encode(opening)
    bound = msgspec.structs.replace(core, opening=opening_digest(texts))
    return ASKER.seal(encode(bound)), texts


@settings(max_examples=40)
@given(arbitrary(Core), arbitrary(Opening))
def test_what_is_written_is_read(core: Core, opening: Opening) -> None:
    envelope, texts = _file(core, opening)
    file, found, texts_found = read(write(envelope, texts))
    assert file == ReceiptFile(envelope, texts)
    assert msgspec.structs.replace(found, opening=core.opening) == core
    assert texts_found == opening


@settings(max_examples=20)
@given(arbitrary(Core), arbitrary(Opening))
def test_without_its_opening_the_core_stands(core: Core, opening: Opening) -> None:
    envelope, texts = _file(core, opening)
    file, found, none = read(write(envelope, None))
    assert file.core.signer == ASKER.peer
    assert none is None
    assert found.opening == opening_digest(texts) == digest("opening", texts)


@settings(max_examples=20)
@given(arbitrary(Core), arbitrary(Opening))
def test_core_and_opening_belong_together(core: Core, opening: Opening) -> None:
    envelope, texts = _file(core, opening)
    with pytest.raises(ReceiptError, match=r"opening \(texts and messages\) was changed"):
        read(write(envelope, texts + b"\x00"))
    loose = ASKER.seal(encode(msgspec.structs.replace(core, opening=opening_digest(b"\x00"))))
    with pytest.raises(ReceiptError, match="opening is not readable"):
        read(write(loose, b"\x00"))


def test_what_is_no_receipt_is_said() -> None:
    with pytest.raises(ReceiptError, match="not a receipt, or was damaged"):
        read(b"")
    with pytest.raises(ReceiptError, match="not a receipt, or was damaged"):
        read(encode(Ack(bytes(32), bytes(32))))
    with pytest.raises(ReceiptError, match="core was changed: These bytes are not a message"):
        read(write(ASKER.seal(encode(Ack(bytes(32), bytes(32)))), None))
    forged = Envelope(ASKER.peer, b"", bytes(64))
    with pytest.raises(ReceiptError, match="core was changed: The signature does not match"):
        read(write(forged, None))


def test_what_a_tally_cannot_be() -> None:
    with pytest.raises(ValueError, match="more calibration questions right than asked"):
        Tally(2, 1)
    assert Tally(1, 1).right == 1
    for bad in (Tally(-1, 0), Tally(-2, -1), Tally(0, 2**48 + 1)):
        with pytest.raises(DecodeError):
            decode(encode(bad), Tally)


@pytest.mark.parametrize(("divisor", "holds"), [
    (MICRO - 1, False), (MICRO, True), (1000 * MICRO, True), (1000 * MICRO + 1, False),
    (0, False), (-MICRO, False),
])  # fmt: skip
def test_a_divisor_makes_no_weight_larger_and_none_vanish(divisor: int, holds: bool) -> None:
    none = Tally(0, 0)
    stated = encode(Standing(bytes(32), (none,) * 5, none, True, divisor, "asker"))
    if holds:
        assert decode(stated, Standing).divisor == divisor
    else:
        with pytest.raises(DecodeError):
            decode(stated, Standing)


def test_a_class_has_members() -> None:
    with pytest.raises(DecodeError):
        decode(encode(AnswerClass(())), AnswerClass)


def test_a_break_has_a_kind_of_its_own() -> None:
    for kind in ("malformed", "lost", "unsent"):
        good = Broke(0, bytes(32), kind, "")  # type: ignore[arg-type]
        assert decode(encode(good), Broke) == good
    with pytest.raises(DecodeError):
        decode(encode(Broke(0, bytes(32), "declined", "")), Broke)  # type: ignore[arg-type]
