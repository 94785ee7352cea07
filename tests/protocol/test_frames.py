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
    MOVED,
    FrameDecoder,
    Goodbye,
    Hello,
    decode_greeting,
    encode_frame,
    encode_greeting,
)

NOW = version.PROTOCOL
HELLO = Hello(version.OLDEST, NOW, "home", "swarmd/0.1", bytes(16))
SEEN = msgspec.structs.replace(HELLO, observed="/ip4/192.0.2.1/tcp/4001")


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
    held = sum(4 + len(frame) for frame in frames) + decoder.pending
    if decoder.moved:
        assert data[held:].startswith(MOVED)
        assert decoder.pending == 0
    else:
        assert held == len(data)


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


# --- the mark that the sender goes on elsewhere -------------------------------------------------


def cut(stream: bytes, sizes: list[int]) -> list[bytes]:
    """``stream`` in pieces of these sizes, over and over."""
    pieces, start, turn = [], 0, 0
    while start < len(stream):
        size = sizes[turn % len(sizes)]
        pieces.append(stream[start : start + size])
        start, turn = start + size, turn + 1
    return pieces


@given(
    st.lists(st.binary(max_size=50)),
    st.binary(max_size=100),
    st.lists(st.integers(1, 60), min_size=1),
)
def test_the_mark_ends_a_stream_however_it_is_cut(
    payloads: list[bytes], behind: bytes, sizes: list[int]
) -> None:
    decoder = FrameDecoder(50)
    head = b"".join(map(encode_frame, payloads)) + MOVED
    got: list[bytes] = []
    seen = 0
    for piece in cut(head + behind, sizes):
        got += decoder.feed(piece)
        seen += len(piece)
        # Known as soon as its last byte is there, and not before.
        assert decoder.moved == (seen >= len(head))
    assert got == payloads
    assert decoder.moved
    assert decoder.pending == 0


@given(st.lists(st.binary(max_size=20), max_size=5), st.lists(st.binary(max_size=20), max_size=5))
def test_nothing_behind_the_mark_is_a_frame(before: list[bytes], behind: list[bytes]) -> None:
    decoder = FrameDecoder()
    head = b"".join(map(encode_frame, before)) + MOVED
    rest = b"".join(map(encode_frame, behind)) + MOVED
    assert decoder.feed(head + rest) == before
    assert decoder.feed(rest) == []
    # Not even a length that is too large says anything any more, and nothing is kept.
    assert decoder.feed(b"\xff" * 400) == []
    assert decoder.moved
    assert decoder.pending == 0


def test_the_mark_is_no_frame_that_could_be_sent() -> None:
    assert int.from_bytes(MOVED, "big") > limits.FRAME_BYTES
    assert not encode_frame(bytes(limits.FRAME_BYTES)).startswith(MOVED)
    decoder = FrameDecoder()
    assert decoder.feed(encode_frame(MOVED)) == [MOVED]
    assert not decoder.moved


def test_the_mark_waits_behind_frames_that_are_not_wanted_yet() -> None:
    decoder = FrameDecoder()
    stream = encode_frame(b"first") + encode_frame(b"second") + MOVED
    assert decoder.feed(stream, most=1) == [b"first"]
    assert not decoder.moved
    assert decoder.feed(b"", most=1) == [b"second"]
    assert not decoder.moved
    assert decoder.feed(b"") == []
    assert decoder.moved


@pytest.mark.parametrize("size", [int.from_bytes(MOVED, "big") - 1, 2**31 + 1, 2**32 - 1])
def test_a_length_beside_the_mark_is_too_large(size: int) -> None:
    decoder = FrameDecoder()
    with pytest.raises(TooLargeError):
        decoder.feed(size.to_bytes(4, "big"))
    assert not decoder.moved


def test_the_mark_is_taken_whatever_the_limit() -> None:
    decoder = FrameDecoder(0)
    assert decoder.feed(MOVED) == []
    assert decoder.moved


# --- greetings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("greeting", [HELLO, SEEN, Goodbye("wrong-swarm", "Grüße, elsewhere")])
def test_a_greeting_survives(greeting: Hello | Goodbye) -> None:
    (payload,) = FrameDecoder(limits.HELLO_BYTES).feed(encode_greeting(greeting))
    assert decode_greeting(payload) == greeting


def test_a_hello_of_the_future_is_refused_by_its_version() -> None:
    payload = msgspec.msgpack.encode(["hello", 7, 9, {"everything": "else"}, None, "changed"])
    with pytest.raises(VersionMismatchError, match="this node must upgrade"):
        decode_greeting(payload)


def test_a_compatible_hello_may_have_more_fields() -> None:
    fields = ["hello", NOW, NOW + 8, "home", "swarmd/9", bytes(16), SEEN.observed, "new", [1]]
    hello = Hello(NOW, NOW + 8, "home", "swarmd/9", bytes(16), SEEN.observed)
    assert decode_greeting(msgspec.msgpack.encode(fields)) == hello


def test_a_hello_without_what_was_observed_is_taken() -> None:
    payload = msgspec.msgpack.encode(["hello", NOW, NOW, "home", "swarmd/0.1", bytes(16)])
    assert decode_greeting(payload) == Hello(NOW, NOW, "home", "swarmd/0.1", bytes(16), "")


def test_a_goodbye_may_have_more_fields() -> None:
    payload = msgspec.msgpack.encode(["goodbye", "version-mismatch", "Upgrade.", "https://…"])
    assert decode_greeting(payload) == Goodbye("version-mismatch", "Upgrade.")


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        ["hello"],
        ["hello", NOW],
        ["hello", -1, NOW, "home", "agent", bytes(16)],
        ["hello", NOW, 2**40, "home", "agent", bytes(16)],
        ["hello", NOW, NOW, "home", "agent"],
        ["hello", NOW, NOW, "home", "agent", b"short"],
        ["hello", NOW, NOW, "x" * (limits.TEXT_CHARS + 1), "agent", bytes(16)],
        ["hello", NOW, NOW, 5, "agent", bytes(16)],
        ["hello", NOW, NOW, "home", "agent", bytes(16), 5],
        ["hello", NOW, NOW, "home", "agent", bytes(16), None],
        ["hello", NOW, NOW, "home", "agent", bytes(16), "x" * (limits.TEXT_CHARS + 1)],
        ["goodbye", "code"],
        ["goodbye", "x" * 33, "reason"],
        ["welcome", NOW, NOW, "home", "agent", bytes(16)],
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
