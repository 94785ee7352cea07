"""Bytes are decoded to exactly one value in its one encoding, or refused."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol.codec import decode, encode
from protocol.envelope import Envelope
from protocol.errors import DecodeError, TooLargeError
from protocol.messages import (
    Ack,
    AnyMessage,
    Ballot,
    Close,
    Commit,
    Decline,
    Duel,
    Invite,
    Message,
    Phases,
    Proof,
    Reveal,
    Roster,
    RosterEntry,
    Row,
    Slate,
    WaveClose,
)
from protocol.receipt import Core, Opening, ReceiptFile, Rule, Standing, Tally, Weight
from tests.protocol.arbitrary import arbitrary

MESSAGES = (
    Invite, Commit, Decline, Roster, Reveal, Slate, Ballot, Ack, WaveClose, Close,
)  # fmt: skip
KINDS = (*MESSAGES, Proof, Envelope, Core, Opening, ReceiptFile)
ANY: Any = AnyMessage

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)

BALLOT = Ballot(bytes(32), bytes(32), 0, bytes(32), (Row(0, 1, 500_000), Row(1, 0, None)))
ACK = Ack(b"\x01" * 32, b"\x02" * 32)


def test_a_message_reads_as_this() -> None:
    """One vector by hand, so that the encoding cannot change unnoticed."""
    assert encode(ACK) == (
        b"\x83\xa4type\xa3ack\xa5round\xc4\x20"
        + b"\x01" * 32
        + b"\xa6ballot\xc4\x20"
        + b"\x02" * 32
    )
    assert encode(Row(3, 0, None)) == b"\x93\x03\x00\xc0"


@kinds
@settings(max_examples=25)
@given(data=st.data())
def test_what_is_encoded_is_decoded(kind: Any, data: st.DataObject) -> None:
    value = data.draw(arbitrary(kind))
    assert decode(encode(value), kind) == value


@settings(max_examples=100)
@given(st.one_of([arbitrary(kind) for kind in MESSAGES]))
def test_the_type_tag_tells_messages_apart(message: Any) -> None:
    found = decode(encode(message), ANY)
    assert type(found) is type(message)
    assert found == message


@kinds
@settings(max_examples=60)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_decoded_or_refused(kind: Any, data: bytes) -> None:
    _decoded_or_refused(data, kind)


@kinds
@settings(max_examples=60)
@given(data=st.data())
def test_any_change_of_a_valid_encoding_is_decoded_or_refused(
    kind: Any, data: st.DataObject
) -> None:
    valid = encode(data.draw(arbitrary(kind)))
    at = data.draw(st.integers(0, len(valid)))
    cut = data.draw(st.integers(at, min(len(valid), at + 4)))
    changed = valid[:at] + data.draw(st.binary(max_size=4)) + valid[cut:]
    _decoded_or_refused(changed, kind)
    if kind in MESSAGES:
        _decoded_or_refused(changed, ANY)


def _decoded_or_refused(data: bytes, kind: Any) -> None:
    try:
        value = decode(data, kind)
    except (DecodeError, TooLargeError):
        return
    assert encode(value) == data


@kinds
@settings(max_examples=15)
@given(data=st.data())
def test_another_decoder_reads_the_same(kind: Any, data: st.DataObject) -> None:
    value = data.draw(arbitrary(kind))
    read = msgpack.unpackb(encode(value), raw=False, strict_map_key=True)
    plain = _plain(value)
    assert read == plain
    if isinstance(read, dict):
        assert list(read) == list(plain), "fields in the type's order"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if not isinstance(value, msgspec.Struct):
        return value
    config = value.__struct_config__
    fields = {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if config.array_like:
        return list(fields.values())
    if config.omit_defaults:
        defaults = {one.name: one.default for one in msgspec.structs.fields(value)}
        fields = {name: one for name, one in fields.items() if one != _plain(defaults[name])}
    return {"type": config.tag} | fields


# --- one encoding -----------------------------------------------------------------------------


def _swapped(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) >= 1
    return data.replace(old, new, 1)


@pytest.mark.parametrize(
    ("message", "old", "new"),
    [
        (BALLOT, b"wave\x00", b"wave\xcc\x00"),
        (BALLOT, b"wave\x00", b"wave\xcd\x00\x00"),
        (BALLOT, b"wave\x00", b"wave\xce\x00\x00\x00\x00"),
        (BALLOT, b"wave\x00", b"wave\xd0\x00"),
        (BALLOT, b"wave\x00", b"wave\xcf" + bytes(8)),
        (BALLOT, b"wave\x00", b"wave\xca" + bytes(4)),
        (BALLOT, b"wave\x00", b"wave\xcb" + bytes(8)),
        (BALLOT, b"\xa4wave", b"\xd9\x04wave"),
        (BALLOT, b"\xa4rows\x92", b"\xa4rows\xdc\x00\x02"),
        (BALLOT, b"\xa4rows\x92", b"\xa4rows\xdd\x00\x00\x00\x02"),
        (BALLOT, b"\x93\x00\x01\xce", b"\xdc\x00\x03\x00\x01\xce"),
        (ACK, b"\x83\xa4type", b"\xde\x00\x03\xa4type"),
        (ACK, b"\x83\xa4type", b"\xdf\x00\x00\x00\x03\xa4type"),
        (ACK, b"ballot\xc4\x20", b"ballot\xc5\x00\x20"),
        (ACK, b"ballot\xc4\x20", b"ballot\xc6\x00\x00\x00\x20"),
        (ACK, b"ballot\xc4\x20", b"ballot\xd9\x20"),
        (ACK, b"\xa3ack", b"\xc4\x03ack"),
    ],
)
def test_the_same_value_written_differently_is_refused(
    message: Any, old: bytes, new: bytes
) -> None:
    written = _swapped(encode(message), old, new)
    with pytest.raises(DecodeError):
        decode(written, ANY)


def test_fields_in_another_order_are_refused() -> None:
    fields = msgpack.unpackb(encode(ACK))
    for order in (["round", "type", "ballot"], ["type", "ballot", "round"]):
        with pytest.raises(DecodeError):
            decode(msgpack.packb({name: fields[name] for name in order}), Ack)


def test_a_field_twice_is_refused() -> None:
    twice = b"\xa6ballot\xc4\x20" + b"\x02" * 32
    with pytest.raises(DecodeError):
        decode(b"\x84" + encode(ACK)[1:] + twice, Ack)


@pytest.mark.parametrize("message", [ACK, BALLOT])
def test_an_unknown_field_is_refused(message: Any) -> None:
    fields = msgpack.unpackb(encode(message)) | {"extra": 1}
    with pytest.raises(DecodeError, match="extra"):
        decode(msgpack.packb(fields), type(message))


def test_a_longer_array_is_refused() -> None:
    with pytest.raises(DecodeError):
        decode(b"\x94\x03\x00\xc0\xc0", Row)


def test_a_missing_field_is_refused() -> None:
    with pytest.raises(DecodeError, match="ballot"):
        decode(b"\x82" + encode(ACK)[1 : -len(b"\xa6ballot\xc4\x20") - 32], Ack)


PLAIN = Invite(1, "s", b"\x01" * 32, "q", 1, 1, Phases(1, 1, 1), b"\x02" * 32)
LAST = WaveClose(b"\x01" * 32, b"\x02" * 32, 0, b"\x03" * 32, False)


@pytest.mark.parametrize(
    ("message", "field", "default"),
    [(PLAIN, "adaptive", False), (PLAIN, "stages", 1), (LAST, "duels", ())],
)
def test_a_default_that_is_left_out_may_not_be_written(
    message: Message, field: str, default: object
) -> None:
    """Else there were two encodings of one message; and a plain one reads as it always did."""
    read = msgpack.unpackb(encode(message))
    assert field not in read
    assert getattr(message, field) == default
    with pytest.raises(DecodeError, match="not its one encoding"):
        decode(msgpack.packb(read | {field: default}), type(message))


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(DecodeError):
        decode(encode(ACK) + b"\xc0", Ack)


def test_a_message_of_another_type_is_refused() -> None:
    with pytest.raises(DecodeError):
        decode(encode(ACK), Ballot)


def test_text_that_is_not_utf8_is_refused() -> None:
    message = Close(bytes(32), "xx", bytes(32))
    with pytest.raises(DecodeError):
        decode(_swapped(encode(message), b"\xa2xx", b"\xa2\xff\xfe"), Close)


# --- bounds -----------------------------------------------------------------------------------

KEY = b"\x01" * 32
NONE = Tally(0, 0)


@pytest.mark.parametrize(
    "value",
    [
        Ack(bytes(31), bytes(32)),
        Ack(bytes(33), bytes(32)),
        Invite(1, "s", KEY, "", 1, 1, Phases(1, 1, 1), KEY),
        Invite(1, "s", KEY, "q" * (limits.QUESTION_BYTES + 1), 1, 1, Phases(1, 1, 1), KEY),
        Invite(1, "s" * (limits.TEXT_CHARS + 1), KEY, "q", 1, 1, Phases(1, 1, 1), KEY),
        Invite(1, "s", KEY, "q", limits.ANSWER_BYTES + 1, 1, Phases(1, 1, 1), KEY),
        Invite(1, "s", KEY, "q", 0, 1, Phases(1, 1, 1), KEY),
        Invite(1, "s", KEY, "q", 1, limits.ANSWER_TOKENS + 1, Phases(1, 1, 1), KEY),
        Invite(1, "s", KEY, "q", 1, 1, Phases(0, 1, 1), KEY),
        Invite(1, "s", KEY, "q", 1, 1, Phases(1, 1, limits.PHASE_MS + 1), KEY),
        Invite(-1, "s", KEY, "q", 1, 1, Phases(1, 1, 1), KEY),
        Decline(KEY, "bored", ""),
        Roster(KEY, 0, KEY, ()),
        Roster(KEY, limits.STAGES, KEY, (RosterEntry(KEY, KEY),)),
        msgspec.structs.replace(PLAIN, stages=0),
        msgspec.structs.replace(PLAIN, stages=limits.STAGES + 1),
        msgspec.structs.replace(LAST, duels=(Duel(0, 1, 1),) * (limits.DUELS + 1)),
        Duel(0, 1, 0),
        Duel(0, 1, limits.DUELS + 1),
        Duel(0, limits.COMMITTEE, 1),
        Duel(-1, 1, 1),
        Roster(KEY, 0, KEY, (RosterEntry(KEY, KEY),) * (limits.COMMITTEE + 1)),
        Reveal(KEY, KEY, KEY, "a" * (limits.ANSWER_BYTES + 1)),
        Ballot(KEY, KEY, 0, KEY, (Row(0, limits.COMMITTEE, None),)),
        Ballot(KEY, KEY, 0, KEY, (Row(0, 1, 1_000_001),)),
        Ballot(KEY, KEY, 0, KEY, (Row(0, 1, -1),)),
        Ballot(KEY, KEY, 0, KEY, (Row(0, 1, 0.5),)),  # type: ignore[arg-type]
        Ballot(KEY, KEY, 0, KEY, (Row(0, 1, True),)),
        Ballot(KEY, KEY, 0, KEY, (Row(0, 1, None),) * (limits.ROWS_PER_BALLOT + 1)),
        Envelope(KEY, b"", bytes(63)),
        Envelope(bytes(31), b"", bytes(64)),
        Rule("weighted", (100_000_001, 0, 0), (0, 0), 0, 0, None),
        Rule("weighted", (0, 0, 0), (0, -100_000_001), 0, 0, None),
        Rule("weighted", (0, 0, 0), (0, 0), 1_000_001, 0, None),
        Rule("fair", (0, 0, 0), (0, 0), 0, 0, None),  # type: ignore[arg-type]
        Standing(KEY, (NONE,) * 5, NONE, True, 999_999, "asker"),
        Standing(KEY, (NONE,) * 5, NONE, True, 1_000_000_001, "asker"),
        Standing(KEY, (NONE,) * 4, NONE, True, 1_000_000, "asker"),  # type: ignore[arg-type]
        Weight((0, 0, 0, 0, 2**53 + 1), (0,) * 5, 0),
        Weight((0,) * 5, (0,) * 6, 0),  # type: ignore[arg-type]
        Tally(-1, 0),
        Tally(0, 2**48 + 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_out_of_bounds_is_refused(value: Any) -> None:
    with pytest.raises(DecodeError):
        decode(encode(value), type(value))


def test_more_right_than_asked_is_refused() -> None:
    good = encode(Standing(KEY, (Tally(3, 5),) * 5, Tally(7, 7), False, 1_000_000, "asker"))
    assert decode(good, Standing).answer == Tally(7, 7)
    for old, new in ((b"\x92\x03\x05", b"\x92\x06\x05"), (b"\x92\x07\x07", b"\x92\x08\x07")):
        with pytest.raises(DecodeError, match="more calibration questions right than asked"):
            decode(_swapped(good, old, new), Standing)


def test_too_many_bytes_are_refused_unread() -> None:
    """Even bytes that no decoder would take are refused for their number."""
    with pytest.raises(TooLargeError, match="11 bytes where at most 10"):
        decode(b"\xc1" * 11, Ack, limit=10)
    with pytest.raises(DecodeError):
        decode(b"\xc1" * 10, Ack, limit=10)
    with pytest.raises(TooLargeError):
        decode(bytes(limits.FRAME_BYTES + 1), Ack)
    with pytest.raises(DecodeError):
        decode(bytes(limits.FRAME_BYTES), Ack)


def test_the_limit_itself_is_allowed() -> None:
    assert decode(encode(ACK), Ack, limit=len(encode(ACK))) == ACK


HUGE = b"\xff\xff\xff\xff"


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (ANY, b"\xdf" + HUGE),
        (ANY, b"\xdd" + HUGE),
        (ANY, b"\x82\xa4type\xa6roster\xa7entries\xdd" + HUGE),
        (ANY, b"\x82\xa4type\xa6ballot\xa4rows\xdd" + HUGE),
        (ANY, b"\x82\xa4type\xa6reveal\xa6answer\xdb" + HUGE),
        (ANY, b"\x82\xa4type\xa6invite\xa5nonce\xc6" + HUGE),
        (Envelope, b"\x93\xc4\x20" + KEY + b"\xc6" + HUGE),
        (ReceiptFile, b"\x92\x93\xc4\x20" + KEY + b"\xc4\x00\xc4\x40" + bytes(64) + b"\xc6" + HUGE),
        (tuple[Row, ...], b"\xdd" + HUGE),
        (Envelope, b"\x91" * 100_000),
        (ANY, b"\x81\xa1x" + b"\x91" * 100_000),
    ],
)
def test_a_declared_length_costs_no_memory(kind: Any, data: bytes) -> None:
    """Four gigabytes may be declared in a few bytes; nothing is set aside for them."""
    with pytest.raises(DecodeError):
        decode(data, kind)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            decode(data, kind)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_an_error_quotes_strangers_harmlessly_and_briefly() -> None:
    """The text goes to a log and a terminal, and the bytes are a stranger's."""
    hostile = "\x1b[2J\nfake log line " + "x" * 10_000
    with pytest.raises(DecodeError) as caught:
        decode(msgspec.msgpack.encode({"type": hostile}), AnyMessage)  # type: ignore[arg-type]
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
