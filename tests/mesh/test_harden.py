"""The repairs of the library, one by one, without a network."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import trio
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux import yamux
from trio.testing import MockClock

from node.mesh import harden, require
from node.mesh import muxer as muxer_module
from node.mesh.muxer import Muxer, Stream


class Socket:
    """A connection to a peer that says nothing, and reads only when it is let.

    It is its own records, which are as long as what they hold.
    """

    is_initiator = True

    def __init__(self) -> None:
        self.plain = bytearray()
        self.written = b""
        self.closed = trio.Event()
        self.reading = trio.Event()
        self.reading.set()

    async def write(self, data: bytes) -> None:
        self.written += data[:1]
        await self.reading.wait()
        self.written += data[1:]

    def seal(self, data: bytes) -> bytes:
        return data

    def write_now(self, record: bytes) -> int:
        return 0

    async def more(self) -> bool:
        await self.closed.wait()
        return False

    async def close(self) -> None:
        self.closed.set()

    def headers(self, kind: int) -> list[tuple[int, ...]]:
        """The muxer frames of that kind, without bodies, that were written."""
        found, rest = [], self.written
        while rest:
            header = struct.unpack(yamux.YAMUX_HEADER_FORMAT, rest[: yamux.HEADER_SIZE])
            rest = rest[yamux.HEADER_SIZE :]
            if header[1] == yamux.TYPE_DATA:
                rest = rest[header[4] :]
            if header[1] == kind:
                found.append(header)
        return found


@pytest.fixture
def socket() -> Socket:
    return Socket()


@pytest.fixture
async def muxer(socket: Socket, monkeypatch: pytest.MonkeyPatch) -> Muxer:
    monkeypatch.setattr(muxer_module, "Records", lambda session: session)
    return Muxer(socket, "peer", is_initiator=True)


def test_another_version_of_the_library_is_refused() -> None:
    with pytest.raises(ImportError, match=r"pip install libp2p==0\.8\.1"):
        require("0.9.0")


def test_the_muxer_builds_our_streams() -> None:
    assert yamux.YamuxStream is Stream


async def test_a_cancelled_write_leaves_a_whole_frame(socket: Socket, muxer: Muxer) -> None:
    socket.reading = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxer._write_frame, b"a whole frame")
        await trio.testing.wait_all_tasks_blocked()
        assert socket.written == b"a"
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
        socket.reading.set()
    assert socket.written == b"a whole frame"


async def test_a_peer_that_stops_reading_is_cut_off(
    socket: Socket, muxer: Muxer, autojump_clock: MockClock
) -> None:
    socket.reading = trio.Event()
    started = trio.current_time()
    with pytest.raises(MuxedStreamError, match="20 s"):
        await muxer._write_frame(b"frame")
    assert trio.current_time() - started == pytest.approx(muxer_module.WRITE_LIMIT_S)
    assert socket.closed.is_set()


async def test_a_stuck_frame_does_not_hold_up_closing(
    socket: Socket, muxer: Muxer, autojump_clock: MockClock
) -> None:
    socket.reading = trio.Event()
    async with trio.open_nursery() as nursery:

        async def write() -> None:
            with pytest.raises(MuxedStreamError):
                await muxer._write_frame(b"frame")

        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()
        await muxer.close()
        assert trio.current_time() - started < 1
        assert socket.closed.is_set()


async def test_a_peer_that_answers_no_ping_is_cut_off(
    socket: Socket, muxer: Muxer, autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    with trio.fail_after(100):
        await muxer.start()
    assert trio.current_time() - started == pytest.approx(muxer_module.PONG_LIMIT_S)
    assert muxer.is_closed
    assert len(socket.headers(yamux.TYPE_PING)) == 1


async def test_an_exception_in_the_muxer_stays_there(
    socket: Socket, muxer: Muxer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: Any) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(yamux.Yamux, "handle_incoming", fail)
    await muxer.start()
    assert muxer.is_closed
    assert socket.closed.is_set()


async def test_a_writer_waits_for_a_slow_reader(
    socket: Socket, muxer: Muxer, autojump_clock: MockClock
) -> None:
    stream = await muxer.open_stream()
    data = bytes(yamux.DEFAULT_WINDOW_SIZE + 1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.write, data)
        await trio.sleep(30)
        stream.send_window += 5000
    sent = socket.headers(yamux.TYPE_DATA)
    assert sum(header[4] for header in sent) == len(data)
    assert max(header[4] for header in sent) == muxer_module.CHUNK


async def test_a_writer_does_not_wait_for_ever(muxer: Muxer, autojump_clock: MockClock) -> None:
    stream = await muxer.open_stream()
    started = trio.current_time()
    with pytest.raises(MuxedStreamError, match="took nothing"):
        await stream.write(bytes(yamux.DEFAULT_WINDOW_SIZE + 1))
    assert (
        muxer_module.STALL_LIMIT_S
        <= trio.current_time() - started
        <= muxer_module.STALL_LIMIT_S + 1
    )


async def test_credit_is_given_in_few_steps(socket: Socket, muxer: Muxer) -> None:
    stream = await muxer.open_stream()
    for _ in range(1024):
        muxer.stream_buffers[stream.stream_id] += bytes(1024)
        stream.recv_window -= 1024
        await stream.read(1024)
    updates = [header[4] for header in socket.headers(yamux.TYPE_WINDOW_UPDATE)][1:]
    assert len(updates) <= 2 * 1024 * 1024 // muxer_module.RECEIVE_WINDOW
    outstanding = yamux.DEFAULT_WINDOW_SIZE + sum(updates) - 1024 * 1024
    assert muxer_module.RECEIVE_WINDOW // 2 <= outstanding <= muxer_module.RECEIVE_WINDOW


async def test_a_peer_beyond_its_window_is_not_buffered(muxer: Muxer) -> None:
    stream = await muxer.open_stream()
    room = muxer_module.SPARE_WINDOWS * muxer_module.RECEIVE_WINDOW
    muxer.stream_buffers[stream.stream_id] += bytes(room - 10)
    with pytest.raises(muxer_module.ReceiveOverrunError):
        await muxer._read_data_body(11)


async def test_a_failure_is_detected_within_half_a_minute() -> None:
    assert muxer_module.KEEPALIVE_EVERY_S + muxer_module.PONG_LIMIT_S <= 30


async def test_a_connection_that_nobody_holds_is_closed(
    socket: Socket, muxer: Muxer, autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    muxer.hold()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxer.tend, 20.0)
        await trio.sleep(100)
        assert not muxer.event_shutting_down.is_set()
        muxer.release()
        await trio.sleep(19)
        assert not muxer.event_shutting_down.is_set()
        nursery.cancel_scope.deadline = trio.current_time() + 10
    assert muxer.event_shutting_down.is_set()
    assert trio.current_time() - started == pytest.approx(121, abs=3)


class Trickle:
    """A socket that gives one byte at a time, and notes how many it was asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.most: set[int | None] = set()

    async def receive_some(self, most: int | None) -> bytes:
        self.most.add(most)
        first, self.data = self.data[:1], self.data[1:]
        return first


async def test_a_stranger_cannot_make_us_allocate() -> None:
    for asked in (1 << 40, None, 2):
        socket = Trickle(b"abc")
        await harden.BufferedTCPStream(socket).read(asked)
        assert socket.most == {harden.SOCKET_READ}


async def test_a_record_may_come_in_any_number_of_pieces() -> None:
    stream = harden.BufferedTCPStream(Trickle(bytes(range(250)) + b"end"))
    assert await stream.read(250) == bytes(range(250))
    assert await stream.read() == b"e"
    assert await stream.read(10) == b"nd"
    assert await stream.read(10) == b""
