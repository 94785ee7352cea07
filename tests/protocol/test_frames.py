"""Frames out of a byte stream, and the greeting that opens it."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits, version
from protocol.errors import DecodeError, ProtocolError, TooLargeError, VersionMismatchError
from protocol.frames import (
    FrameDecoder,
    Goodbye,
    Hello,
    decode_greeting,
    encode_frame,
    encode_greeting,
)

HELLO = Hello(version.OLDEST, version.PROTOCOL, "home", "swarmd/0.1", bytes(16))


def body(greeting: Hello | Goodbye) -> bytes:
    return encode_greeting(greeting)[4:]


# --- frames -------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=50)), st.lists(st.integers(0, 60), min_size=1))
def test_frames_survive_any_cutting(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(encode_frame, payloads))
    decoder = FrameDecoder(50)
    got: list[bytes] = []
    start = turn = 0
    while start < len(stream):
        size = cuts[turn % len(cuts)] + 1
        got += decoder.feed(stream[start : start + size])
        start, turn = start + size, turn + 1
        assert decoder.pending < 4 + 50
    assert got == payloads
    assert decoder.pending == 0


@given(st.binary(max_size=300))
def test_any_bytes_are_cut_or_refused(data: bytes) -> None:
    decoder = FrameDecoder(100)
    try:
        frames = decoder.feed(data)
    except TooLargeError:
        return
    assert sum(4 + len(frame) for frame in frames) + decoder.pending == len(data)


def test_a_declared_length_over_the_limit_is_refused_before_its_body() -> None:
    decoder = FrameDecoder(10)
    assert decoder.feed(b"\x00\x00\x00") == []
    with pytest.raises(TooLargeError, match="11 bytes, 10 are taken"):
        decoder.feed(b"\x0b")
    with pytest.raises(TooLargeError):
        decoder.feed(b"more")


def test_the_limit_itself_is_taken() -> None:
    assert FrameDecoder(10).feed(encode_frame(bytes(10))) == [bytes(10)]
    assert FrameDecoder().feed(encode_frame(bytes(limits.FRAME_BYTES)))
    with pytest.raises(TooLargeError):
        encode_frame(bytes(limits.FRAME_BYTES + 1))


def test_the_limit_can_be_raised_behind_a_frame() -> None:
    decoder = FrameDecoder(2)
    stream = encode_frame(b"ab") + encode_frame(b"long") + encode_frame(b"")
    assert decoder.feed(stream, most=1) == [b"ab"]
    decoder.limit = 4
    assert decoder.feed(b"") == [b"long", b""]


# --- greetings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("greeting", [HELLO, Goodbye("wrong-swarm", "Grüße, elsewhere")])
def test_a_greeting_survives(greeting: Hello | Goodbye) -> None:
    (payload,) = FrameDecoder(limits.HELLO_BYTES).feed(encode_greeting(greeting))
    assert decode_greeting(payload) == greeting


def test_a_hello_of_the_future_is_refused_by_its_version() -> None:
    payload = msgspec.msgpack.encode(["hello", 7, 9, {"everything": "else"}, None, "changed"])
    with pytest.raises(VersionMismatchError, match="this node must upgrade"):
        decode_greeting(payload)


def test_a_compatible_hello_may_have_more_fields() -> None:
    payload = msgspec.msgpack.encode(["hello", 1, 9, "home", "swarmd/9", bytes(16), "new", [1]])
    assert decode_greeting(payload) == Hello(1, 9, "home", "swarmd/9", bytes(16))


def test_a_goodbye_may_have_more_fields() -> None:
    payload = msgspec.msgpack.encode(["goodbye", "version-mismatch", "Upgrade.", "https://…"])
    assert decode_greeting(payload) == Goodbye("version-mismatch", "Upgrade.")


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        ["hello"],
        ["hello", 1],
        ["hello", -1, 1, "home", "agent", bytes(16)],
        ["hello", 1, 2**40, "home", "agent", bytes(16)],
        ["hello", 1, 1, "home", "agent"],
        ["hello", 1, 1, "home", "agent", b"short"],
        ["hello", 1, 1, "x" * (limits.TEXT_CHARS + 1), "agent", bytes(16)],
        ["hello", 1, 1, 5, "agent", bytes(16)],
        ["goodbye", "code"],
        ["goodbye", "x" * 33, "reason"],
        ["welcome", 1, 1, "home", "agent", bytes(16)],
        {"oldest": 1},
    ],
)
def test_what_is_no_greeting_is_refused(value: object) -> None:
    with pytest.raises(DecodeError):
        decode_greeting(msgspec.msgpack.encode(value))


@given(st.binary(max_size=100))
def test_any_bytes_are_a_greeting_or_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert isinstance(decode_greeting(data), Hello | Goodbye)


def test_a_greeting_is_bounded() -> None:
    with pytest.raises(TooLargeError):
        decode_greeting(bytes(limits.HELLO_BYTES + 1))
    with pytest.raises(TooLargeError):
        encode_greeting(msgspec.structs.replace(HELLO, swarm="ü" * 256, agent="漢" * 256))
    long = decode_greeting(body(Goodbye("code", "漢" * 1000)))
    assert isinstance(long, Goodbye)
    assert set(long.reason) == {"漢"}
    assert len(encode_greeting(long)) <= 4 + limits.HELLO_BYTES


def test_a_strangers_text_cannot_write_to_the_terminal() -> None:
    hello = decode_greeting(body(msgspec.structs.replace(HELLO, agent="\x1b[2J\nevil")))
    assert isinstance(hello, Hello)
    assert hello.agent == "�[2J�evil"
    goodbye = decode_greeting(body(Goodbye("\x07", "\x1b]0;title\x07")))
    assert goodbye == Goodbye("�", "�]0;title�")
