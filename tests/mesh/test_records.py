"""Records are what the library's Noise would read and write, however they are cut on the way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from libp2p.io.exceptions import IncompleteReadError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.stream_muxer.exceptions import MuxedStreamEOF
from libp2p.stream_muxer.yamux import yamux

from node.mesh import muxer as muxer_module
from node.mesh.muxer import Muxer, ReceiveOverrunError
from node.mesh.records import Records


class Cipher:
    """Stands for Noise: a counter in front, so that order matters, and a seal behind."""

    def __init__(self) -> None:
        self.sent = self.received = 0

    def encrypt(self, data: bytes) -> bytes:
        self.sent += 1
        return self.sent.to_bytes(4, "big") + data[::-1] + b"seal"

    def decrypt(self, data: bytes) -> bytes:
        self.received += 1
        if data[:4] != self.received.to_bytes(4, "big") or data[-4:] != b"seal":
            raise ValueError("a record was changed, lost or repeated")
        return data[-5:3:-1]


class Socket:
    """A stream that gives ``pieces`` and then ends, or stays, and takes ``room`` bytes at once."""

    def __init__(self, pieces: list[bytes], room: int = 1 << 20, stays: bool = False) -> None:
        self.pieces = pieces
        self.room = room
        self.stays = stays
        self.written = b""

    async def read(self, n: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self.pieces and self.stays:
            await trio.sleep_forever()
        return self.pieces.pop(0) if self.pieces else b""

    def write_now(self, data: bytes) -> int:
        taken = data[: self.room]
        self.written += taken
        self.room -= len(taken)
        return len(taken)

    async def write(self, data: bytes) -> None:
        self.written += data


class Session:
    """As much of a ``SecureSession`` as is used."""

    is_initiator = False

    def __init__(self, raw: RawConnection, early: bytes = b"") -> None:
        self.cipher = Cipher()
        self.conn = SimpleNamespace(
            noise_state=self.cipher, read_writer=SimpleNamespace(read_write_closer=raw)
        )
        self._early = early

    def _drain(self, n: int | None) -> bytes:
        return self._early

    async def close(self) -> None:
        pass


def raw(*given: Any, **named: Any) -> RawConnection:
    return RawConnection(Socket(*given, **named), initiator=False)


def sealed(messages: list[bytes]) -> bytes:
    records = Records(Session(raw([])))
    return b"".join(map(records.seal, messages))


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in [*pieces, data] if piece]


@given(
    st.lists(st.binary(max_size=300), max_size=8),
    st.lists(st.integers(1, 400), max_size=12),
    st.binary(max_size=20),
)
def test_all_that_was_sealed_is_opened(
    messages: list[bytes], sizes: list[int], early: bytes
) -> None:
    async def read() -> bytes:
        records = Records(Session(raw(cut(sealed(messages), sizes)), early))
        while await records.more():
            pass
        return bytes(records.plain)

    assert trio.run(read) == early + b"".join(messages)


async def test_a_changed_record_is_refused() -> None:
    data = bytearray(sealed([b"one", b"two"]))
    data[-1] ^= 1
    records = Records(Session(raw([bytes(data)])))
    with pytest.raises(ValueError, match="changed"):
        await records.more()


async def test_a_record_is_written_whole_in_whatever_steps() -> None:
    for room in range(12):
        connection = raw([], room)
        records = Records(Session(connection))
        record = records.seal(b"hello")
        written = records.write_now(record)
        assert written == min(room, len(record))
        await records.write(record[written:])
        assert connection.stream.written == sealed([b"hello"])


async def test_a_layer_below_sees_every_byte() -> None:
    class Layer(RawConnection):  # type: ignore[misc]
        async def write(self, data: bytes) -> None:
            await super().write(data.upper())

    connection = Layer(Socket([]), initiator=False)
    records = Records(Session(connection))
    record = records.seal(b"hello")
    assert records.write_now(record) == 0
    await records.write(record)
    assert connection.stream.written == record.upper()


# --- the muxer's frames in them ---------------------------------------------------------------


def frame(kind: int, flags: int, stream: int, length: int, body: bytes = b"") -> bytes:
    return muxer_module._header.pack(0, kind, flags, stream, length) + body


def data(stream: int, body: bytes, flags: int = 0) -> bytes:
    return frame(yamux.TYPE_DATA, flags, stream, len(body), body)


OPEN = frame(yamux.TYPE_WINDOW_UPDATE, yamux.FLAG_SYN, 1, 0)


def muxer_reading(said: bytes, sizes: list[int] | None = None, stays: bool = False) -> Muxer:
    connection = raw(cut(sealed([said]), sizes or []), stays=stays)
    return Muxer(Session(connection), "peer", is_initiator=False)


@given(
    st.lists(st.binary(min_size=1, max_size=200), max_size=6),
    st.lists(st.integers(1, 300), max_size=10),
    st.integers(1, 500),
    st.booleans(),
)
def test_a_stream_gets_its_data_however_it_is_cut(
    bodies: list[bytes], sizes: list[int], step: int, ends: bool
) -> None:
    async def read() -> bytes:
        said = OPEN + b"".join(data(1, body) for body in bodies)
        if ends:
            said += data(1, b"the end", yamux.FLAG_FIN)
        got = b""
        async with trio.open_nursery() as nursery:
            muxer = muxer_reading(said, sizes, stays=True)
            nursery.start_soon(muxer.start)
            stream = await muxer.accept_stream()
            while len(got) < len(whole):
                got += await stream.read(step)
            if ends:
                with pytest.raises(MuxedStreamEOF):
                    await stream.read(step)
            nursery.cancel_scope.cancel()
        return got

    whole = b"".join(bodies) + (b"the end" if ends else b"")
    assert trio.run(read) == whole


async def test_data_for_a_stream_that_is_not_there_is_dropped() -> None:
    muxer = muxer_reading(OPEN + data(7, b"for nobody") + data(1, b"for one"))
    assert muxer.secured_conn.read == muxer._next_header
    header = await muxer._next_header(yamux.HEADER_SIZE)
    assert header == OPEN
    header = await muxer._next_header(yamux.HEADER_SIZE)
    assert header == data(7, b"for nobody")[: yamux.HEADER_SIZE]
    assert await muxer._read_data_body(10) == b"for nobody"


async def test_more_than_there_is_room_for_ends_the_connection() -> None:
    muxer = muxer_reading(frame(yamux.TYPE_DATA, 0, 1, 1 << 30))
    muxer.streams[1] = muxer_module.Stream(1, muxer, False)
    with pytest.raises(ReceiveOverrunError):
        await muxer._next_header(yamux.HEADER_SIZE)


@pytest.mark.parametrize("size", [5, 20])
async def test_a_frame_that_breaks_off_is_an_incomplete_read(size: int) -> None:
    muxer = muxer_reading(data(1, b"twelve bytes")[:size])
    muxer.streams[1] = muxer_module.Stream(1, muxer, False)
    with pytest.raises(IncompleteReadError) as caught:
        await muxer._next_header(yamux.HEADER_SIZE)
    assert caught.value.received_bytes == size
