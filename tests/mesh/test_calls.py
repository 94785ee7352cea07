"""Requests and replies between linked peers: whole, in time, bounded, and in nobody's way."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from node.mesh import calls as calls_module
from node.mesh.base import PathChanged, PeerDown, Received
from node.mesh.calls import OPENED_LIMIT, PROTOCOL_ID, SERVE_LIMIT_S, Call, Failure, Reply
from node.mesh.wire import Wire
from protocol import limits
from protocol.codec import encode
from protocol.errors import (
    BackpressureError,
    BusyError,
    CallError,
    RefusedError,
    TooLargeError,
    UnreachableError,
)
from protocol.frames import MOVED, FrameDecoder, encode_frame
from protocol.ids import PeerId
from tests.fakes.mesh import FakeCarrier, FakeNetwork
from tests.mesh.nodes import Lines, Node, lay, two, until_linked
from tests.mesh.worlds import LIMIT_S, World, until

LIMIT = LIMIT_S


async def echo(peer: PeerId, body: bytes) -> bytes:
    return body


def slowly(seconds: float) -> Callable[[PeerId, bytes], Awaitable[bytes]]:
    async def answer(peer: PeerId, body: bytes) -> bytes:
        await trio.sleep(seconds)
        return body

    return answer


# --- on every mesh ------------------------------------------------------------------------------


async def test_a_call_is_answered_both_ways_at_once(world: World) -> None:
    async with world.pair() as pair:
        heard: list[PeerId] = []
        got: dict[tuple[int, int], bytes] = {}

        async def reverse(peer: PeerId, body: bytes) -> bytes:
            heard.append(peer)
            return body[::-1]

        async def ask(side: int, number: int) -> None:
            there = pair[1 - side].peer_id
            body = bytes([side, number]) * number
            got[side, number] = await pair[side].call(there, "reverse", body, LIMIT)

        for mesh in pair:
            mesh.answer("reverse", reverse)
        async with trio.open_nursery() as nursery:
            for number in range(30):
                for side in (0, 1):
                    nursery.start_soon(ask, side, number)
        assert got == {
            (side, number): bytes([number, side]) * number
            for side in (0, 1)
            for number in range(30)
        }
        # Each is told who asks, as the transport has proven it.
        assert sorted(heard) == sorted([mesh.peer_id for mesh in pair] * 30)


async def test_small_calls_do_not_wait_for_bulk(world: World) -> None:
    async with world.pair() as (one, other):
        released = trio.Event()

        async def hold(peer: PeerId, body: bytes) -> bytes:
            await released.wait()
            return b""

        one.answer("hold", hold)
        one.answer("echo", echo)
        bulk = bytes(calls_module.BULK_BYTES)
        async with trio.open_nursery() as nursery:
            # More than are answered at once: the stream they are on is not read any further.
            for _ in range(2 * limits.CALLS_SERVED):
                nursery.start_soon(other.call, one.peer_id, "hold", bulk, LIMIT)
            assert await other.call(one.peer_id, "echo", b"small", LIMIT) == b"small"
            released.set()


async def test_replies_come_in_any_order(world: World) -> None:
    async with world.pair() as (one, other):
        gates = [trio.Event() for _ in range(limits.CALLS_SERVED)]
        order: list[int] = []

        async def wait(peer: PeerId, body: bytes) -> bytes:
            await gates[body[0]].wait()
            return body

        async def ask(number: int) -> None:
            assert await other.call(one.peer_id, "wait", bytes([number]), LIMIT) == bytes([number])
            order.append(number)
            if number:
                gates[number - 1].set()

        one.answer("wait", wait)
        async with trio.open_nursery() as nursery:
            for number in range(len(gates)):
                nursery.start_soon(ask, number)
            gates[-1].set()
        assert order == list(range(len(gates)))[::-1]


@pytest.mark.parametrize("size", [0, 1, 64 << 10, limits.FRAME_BYTES - 100])
async def test_bodies_of_any_size_go_both_ways(world: World, size: int) -> None:
    body = random.Random(size).randbytes(size)
    async with world.pair() as (one, other):
        one.answer("echo", echo)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                assert await other.call(one.peer_id, "echo", body, LIMIT) == body

            for _ in range(4):
                nursery.start_soon(ask)


async def test_an_unknown_method_is_refused(world: World) -> None:
    async with world.pair() as (one, other):
        with pytest.raises(CallError, match="no method 'unheard of'"):
            await other.call(one.peer_id, "unheard of", b"", LIMIT)


async def test_a_refusal_says_why_and_a_fault_says_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.pair() as (one, other):

        async def refuse(peer: PeerId, body: bytes) -> bytes:
            raise RefusedError("Not to you." if body else "x" * 10_000)

        async def fail(peer: PeerId, body: bytes) -> bytes:
            raise KeyError("the secret of this machine")

        one.answer("refuse", refuse)
        one.answer("fail", fail)
        one.answer("echo", echo)
        with pytest.raises(CallError, match=r"Not to you\.") as refused:
            await other.call(one.peer_id, "refuse", b"me?", LIMIT)
        assert "refused" in str(refused.value)
        with pytest.raises(CallError) as long:
            await other.call(one.peer_id, "refuse", b"", LIMIT)
        assert len(str(long.value)) < 2 * limits.TEXT_CHARS
        with pytest.raises(CallError, match="internal") as failed:
            await other.call(one.peer_id, "fail", b"", LIMIT)
        assert "secret" not in str(failed.value)
        # Where it failed, it is in the log.
        assert "the secret of this machine" in caplog.text
        assert await other.call(one.peer_id, "echo", b"on", LIMIT) == b"on"


async def test_a_caller_waits_no_longer_than_it_said(world: World) -> None:
    async with world.pair() as (one, other):
        ended = trio.Event()

        async def work(peer: PeerId, body: bytes) -> bytes:
            try:
                await trio.sleep_forever()
            finally:
                ended.set()
            return b""

        one.answer("work", work)
        one.answer("echo", echo)
        began = trio.current_time()
        with pytest.raises(CallError, match="in time"):
            await other.call(one.peer_id, "work", b"", 0.3)
        assert trio.current_time() - began >= 0.25
        # Nor is it worked on for longer.
        with trio.fail_after(LIMIT):
            await ended.wait()
        assert await other.call(one.peer_id, "echo", b"on", LIMIT) == b"on"


async def test_who_gives_up_leaves_the_stream_whole(world: World) -> None:
    rng = random.Random(1)
    async with world.pair() as (one, other):
        one.answer("slow", slowly(0.01))
        one.answer("echo", echo)
        for turn in range(40):
            body = rng.randbytes(rng.choice((10, 10_000, 300_000)))
            with trio.move_on_after(rng.choice((0.0, 0.001, 0.005, 0.02))):
                assert await other.call(one.peer_id, "slow", body, LIMIT) == body
            short = bytes([turn])
            assert await other.call(one.peer_id, "echo", short, LIMIT) == short


async def test_too_many_calls_are_refused_and_the_rest_is_answered(world: World) -> None:
    async with world.pair() as (one, other):
        gate = trio.Event()
        done: list[str] = []

        async def wait(peer: PeerId, body: bytes) -> bytes:
            await gate.wait()
            return body

        async def ask() -> None:
            try:
                await other.call(one.peer_id, "wait", b"", LIMIT)
            except BackpressureError:
                done.append("refused")
            else:
                done.append("answered")

        one.answer("wait", wait)
        one.answer("echo", echo)
        await other.call(one.peer_id, "echo", b"", LIMIT)
        async with trio.open_nursery() as nursery:
            for _ in range(limits.CALLS_PER_PEER + 10):
                nursery.start_soon(ask)
            with trio.fail_after(LIMIT):
                while len(done) < 5:  # noqa: ASYNC110
                    await trio.sleep(0.001)
            assert set(done) == {"refused"}
            gate.set()
        # A call that the mesh makes for itself may be one of those that wait.
        assert limits.CALLS_PER_PEER - 2 <= done.count("answered") <= limits.CALLS_PER_PEER
        assert await other.call(one.peer_id, "echo", b"on", LIMIT) == b"on"


async def test_what_does_not_fit_is_refused_here_and_told_there(world: World) -> None:
    async with world.pair() as (one, other):

        async def much(peer: PeerId, body: bytes) -> bytes:
            return bytes(limits.FRAME_BYTES)

        one.answer("much", much)
        one.answer("echo", echo)
        with pytest.raises(TooLargeError):
            await other.call(one.peer_id, "echo", bytes(limits.FRAME_BYTES), LIMIT)
        with pytest.raises(CallError, match="does not fit"):
            await other.call(one.peer_id, "much", b"", LIMIT)
        assert await other.call(one.peer_id, "echo", b"on", LIMIT) == b"on"


async def test_messages_pass_bulk_calls(world: World) -> None:
    """A call beside the messages is not in their way."""
    async with world.pair() as (one, other):
        one.answer("echo", echo)
        body = bytes(limits.FRAME_BYTES - 100)
        async with trio.open_nursery() as nursery:

            async def load() -> None:
                for _ in range(5):
                    assert await other.call(one.peer_id, "echo", body, LIMIT) == body

            for _ in range(3):
                nursery.start_soon(load)
            for number in range(100):
                other.send(one.peer_id, bytes([number]))
                await trio.sleep(0.001)
        got = [(await until(one, Received)).payload[0] for _ in range(100)]
        assert got == list(range(100))


async def test_nobody_to_call(world: World) -> None:
    async with world.pair() as (one, other):
        with pytest.raises(UnreachableError):
            await one.call(PeerId(bytes(32)), "echo", b"", LIMIT)
        with pytest.raises(UnreachableError):
            await one.call(one.peer_id, "echo", b"", LIMIT)
        one.answer("slow", slowly(1000))
        failed = trio.Event()

        async def ask() -> None:
            with pytest.raises(UnreachableError):
                await other.call(one.peer_id, "slow", b"", LIMIT)
            failed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.1)
            one.disconnect(other.peer_id, "because")
            await until(other, PeerDown)
            with trio.fail_after(LIMIT):
                await failed.wait()


# --- two nodes, laid by hand --------------------------------------------------------------------


async def linked(one: Node, other: Node, network: FakeNetwork | None = None) -> FakeCarrier:
    carrier = lay(network or FakeNetwork(), one, other)
    one.start(one.connect, carrier)
    await until_linked(one, other, "direct")
    return carrier


class Raw:
    """A peer's end of a stream for calls, by hand."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._decoder = FrameDecoder()
        self._frames: list[bytes] = []

    async def ask(self, number: int, method: str, body: bytes = b"", limit_ms: int = 5000) -> None:
        await self.wire.write(encode_frame(encode(Call(number, method, limit_ms, body))))

    async def next(self) -> Any:
        with trio.fail_after(LIMIT):
            while not self._frames:
                data = await self.wire.read(1 << 16)
                if not data:
                    raise trio.EndOfChannel
                self._frames += self._decoder.feed(data)
        frame = self._frames.pop(0)
        return calls_module.decode(frame, Call | Reply | Failure)  # type: ignore[arg-type]

    async def is_cut(self) -> bool:
        """Whether the other side has ended the stream, or does so now."""
        with trio.move_on_after(LIMIT):
            try:
                while await self.wire.read(1 << 16):
                    pass
            except trio.BrokenResourceError:
                pass
            return True
        return False


async def test_calls_are_answered_by_their_ids(autojump_clock: MockClock) -> None:
    async with two() as (one, other):
        carrier = await linked(one, other)
        other.calls.answers["echo"] = echo
        other.calls.answers["slow"] = slowly(1)
        raw = Raw(await carrier.open(PROTOCOL_ID))
        await raw.ask(2**32, "slow", b"late")
        await raw.ask(0, "echo", b"soon")
        await raw.ask(7, "nothing")
        assert await raw.next() == Reply(0, b"soon")
        failure = await raw.next()
        assert (failure.id, failure.code) == (7, "mesh")
        assert await raw.next() == Reply(2**32, b"late")
        # One id twice is the asker's own confusion.
        await raw.ask(1, "echo", b"one")
        await raw.ask(1, "echo", b"other")
        assert {(await raw.next()).body for _ in range(2)} == {b"one", b"other"}


async def test_who_is_not_linked_is_not_served(autojump_clock: MockClock) -> None:
    async with two() as (one, other):
        asked: list[bytes] = []

        async def answer(peer: PeerId, body: bytes) -> bytes:
            asked.append(body)
            return body

        other.calls.answers["echo"] = answer
        carrier = lay(FakeNetwork(), one, other)
        raw = Raw(await carrier.open(PROTOCOL_ID))
        with contextlib.suppress(trio.BrokenResourceError):
            await raw.ask(1, "echo", b"let me in")
        assert await raw.is_cut()
        assert asked == []
        assert other.calls._serving == {}
        # However the stream has come.
        one.accept = lambda protocol, wire: None  # type: ignore[method-assign]
        wire = await carrier.other.open(PROTOCOL_ID)
        with trio.fail_after(1):
            await other.calls.serve(wire, one.peer_id)
            assert await Raw(wire).is_cut()
        del one.accept  # type: ignore[method-assign]
        # Nor on a connection beside the link.
        await linked(one, other)
        raw = Raw(await carrier.open(PROTOCOL_ID))
        with contextlib.suppress(trio.BrokenResourceError):
            await raw.ask(1, "echo", b"let me in")
        assert await raw.is_cut()
        assert asked == []


async def test_the_streams_of_a_peer_are_counted(autojump_clock: MockClock) -> None:
    async with two() as (one, other):
        carrier = await linked(one, other)
        other.calls.answers["echo"] = echo
        raws = [Raw(await carrier.open(PROTOCOL_ID)) for _ in range(OPENED_LIMIT + 5)]
        for raw in raws[OPENED_LIMIT:]:
            assert await raw.is_cut()
        for raw in raws[:OPENED_LIMIT]:
            await raw.ask(1, "echo", b"mine")
            assert await raw.next() == Reply(1, b"mine")
        # One that ends makes room for another.
        await raws[0].wire.reset()
        await trio.sleep(1)
        again = Raw(await carrier.open(PROTOCOL_ID))
        await again.ask(1, "echo", b"again")
        assert await again.next() == Reply(1, b"again")
        for raw in (*raws, again):
            await raw.wire.reset()
        await trio.sleep(1)
        assert other.calls._serving == {}
        assert carrier.other.held == 1


async def test_only_so_many_are_answered_at_once_and_the_rest_waits(
    autojump_clock: MockClock,
) -> None:
    async with two() as (one, other):
        carrier = await linked(one, other)
        working = most = 0

        async def work(peer: PeerId, body: bytes) -> bytes:
            nonlocal working, most
            working += 1
            most = max(most, working)
            await trio.sleep(1)
            working -= 1
            return body

        other.calls.answers["work"] = work
        raw = Raw(await carrier.open(PROTOCOL_ID))
        for number in range(5 * limits.CALLS_SERVED):
            await raw.ask(number, "work", bytes([number]))
        got = [(await raw.next()).id for _ in range(5 * limits.CALLS_SERVED)]
        assert sorted(got) == list(range(5 * limits.CALLS_SERVED))
        assert most == limits.CALLS_SERVED


@pytest.mark.parametrize(("limit_ms", "expected"), [(200, 0.2), (limits.PHASE_MS, SERVE_LIMIT_S)])
async def test_nobody_is_worked_for_longer_than_the_limit(
    autojump_clock: MockClock, limit_ms: int, expected: float
) -> None:
    async with two() as (one, other):
        carrier = await linked(one, other)
        other.calls.answers["slow"] = slowly(1000)
        raw = Raw(await carrier.open(PROTOCOL_ID))
        began = trio.current_time()
        await raw.ask(1, "slow", limit_ms=limit_ms)
        with trio.fail_after(2 * SERVE_LIMIT_S):
            reply = calls_module.decode(
                FrameDecoder().feed(await raw.wire.read(1000))[0],
                Failure,
            )
        assert reply.code == "timeout"
        assert trio.current_time() - began == pytest.approx(expected, abs=0.1)


async def test_who_reads_no_replies_is_bounded_and_then_gets_them_all(
    autojump_clock: MockClock,
) -> None:
    count, size = 60, 700_000
    async with two() as (one, other):
        carrier = await linked(one, other)
        made = 0

        async def bulk(peer: PeerId, body: bytes) -> bytes:
            nonlocal made
            made += 1
            return body + bytes(size)

        other.calls.answers["bulk"] = bulk
        raw = Raw(await carrier.open(PROTOCOL_ID))
        for number in range(count):
            await raw.ask(number, "bulk", bytes([number]))
        await trio.sleep(30)
        # The window, the outbox, and what the tasks hold that wait for room in it.
        assert (
            made * size <= (1 << 20) + size + limits.SEND_QUEUE_BYTES + size * limits.CALLS_SERVED
        )
        before = made
        await trio.sleep(10)
        assert made == before
        got = [(await raw.next()).body[0] for _ in range(count)]
        assert sorted(got) == list(range(count))


async def test_who_never_reads_replies_is_let_go_in_the_end(autojump_clock: MockClock) -> None:
    async with two() as (one, other):
        carrier = await linked(one, other)

        async def bulk(peer: PeerId, body: bytes) -> bytes:
            return bytes(900_000)

        other.calls.answers["bulk"] = bulk
        raw = Raw(await carrier.open(PROTOCOL_ID))
        for number in range(60):
            await raw.ask(number, "bulk")
        await trio.sleep(200)
        assert other.calls._serving == {}
        # The link has nothing to do with it.
        one.send(other, b"here")
        await trio.sleep(1)
        assert other.payloads() == [b"here"]


async def test_many_waiting_replies_are_all_sent_once_there_is_room(
    autojump_clock: MockClock,
) -> None:
    """A slow line: every caller is answered, though several replies wait for room at a time."""
    async with two() as (one, other):
        await linked(one, other, FakeNetwork(latency_s=1.0))

        async def bulk(peer: PeerId, body: bytes) -> bytes:
            return body + bytes(limits.FRAME_BYTES - 200)

        other.calls.answers["bulk"] = bulk
        got: list[int] = []

        async def ask(number: int) -> None:
            reply = await one.calls.call(other.peer_id, "bulk", bytes([number]), 600)
            got.append(reply[0])

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(ask, number)
        assert sorted(got) == list(range(50))


# --- a peer that does as it likes ---------------------------------------------------------------


GARBAGE = [
    b"\x00",
    b"\x00\x00\x00\x00",
    b"\xff" * 100,
    MOVED,
    encode_frame(b""),
    encode_frame(b"\xc1"),
    encode_frame(encode([])),
    encode_frame(encode(["call", 1, "echo", 1000])),
    encode_frame(encode(["call", -1, "echo", 1000, b""])),
    encode_frame(encode(["call", 2**33, "echo", 1000, b""])),
    encode_frame(encode(["call", 1, "echo", 0, b""])),
    encode_frame(encode(["call", 1, "x" * 33, 1000, b""])),
    encode_frame(encode(["call", 1, "echo", 2**40, b""])),
    encode_frame(encode(["call", 1, "echo", 1000, b"", "more"])),
    encode_frame(encode(["reply", 1, b""])),
    (limits.FRAME_BYTES + 1).to_bytes(4, "big"),
]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_instead_of_a_call_costs_the_stream_alone(
    autojump_clock: MockClock, garbage: bytes
) -> None:
    async with two() as (one, other):
        carrier = await linked(one, other)
        other.calls.answers["echo"] = echo
        raw = Raw(await carrier.open(PROTOCOL_ID))
        await raw.ask(1, "echo", b"first")
        assert await raw.next() == Reply(1, b"first")
        await raw.wire.write(garbage)
        await raw.wire.end_writing()
        assert await raw.is_cut()
        await trio.sleep(1)
        assert other.calls._serving == {}
        assert await one.calls.call(other.peer_id, "echo", b"on", LIMIT) == b"on"
        assert one.of(PeerDown) == other.of(PeerDown) == []


@settings(max_examples=60)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(GARBAGE),
            st.binary(max_size=40),
            st.binary(max_size=40).map(encode_frame),
            st.builds(
                lambda *fields: encode_frame(encode(Call(*fields))),
                st.integers(0, 3),
                st.sampled_from(("echo", "slow", "nothing", "fail")),
                st.integers(1, 3000),
                st.binary(max_size=40),
            ),
        ),
        max_size=12,
    ),
    st.integers(1, 30),
)
def test_whatever_a_peer_sends_is_answered_or_costs_the_stream(
    pieces: list[bytes], size: int
) -> None:
    async def play() -> None:
        async with two() as (one, other):
            carrier = await linked(one, other)

            async def fail(peer: PeerId, body: bytes) -> bytes:
                raise BusyError("Later.")

            other.calls.answers.update(echo=echo, slow=slowly(1), fail=fail)
            wire = await carrier.open(PROTOCOL_ID)
            stream = b"".join(pieces)
            with contextlib.suppress(trio.BrokenResourceError):
                for start in range(0, len(stream), size):
                    await wire.write(stream[start : start + size])
                    await trio.sleep(0.01)
                await wire.end_writing()
            assert await Raw(wire).is_cut()
            await trio.sleep(5)
            assert other.calls._serving == {}
            assert await one.calls.call(other.peer_id, "echo", b"on", 5) == b"on"
            assert one.of(PeerDown) == other.of(PeerDown) == []

    trio.run(play, clock=MockClock(autojump_threshold=0))


class Liar:
    """Serves calls by hand in place of ``node``."""

    def __init__(self, node: Node) -> None:
        self.opened: list[Raw] = []
        self._new = trio.Event()
        node._called = self._called  # type: ignore[method-assign]

    async def _called(self, wire: Wire) -> None:
        self.opened.append(Raw(wire))
        self._new.set()
        self._new = trio.Event()

    async def stream(self, number: int = 0) -> Raw:
        with trio.fail_after(LIMIT):
            while len(self.opened) <= number:
                await self._new.wait()
        return self.opened[number]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 100,
        encode_frame(b""),
        encode_frame(b"\xc1"),
        encode_frame(encode(["reply", 1])),
        encode_frame(encode(["reply", 1, b"", b""])),
        encode_frame(encode(["failed", 1, "x" * 33, ""])),
        encode_frame(encode(["failed", 1, "", "x" * (limits.TEXT_CHARS + 1)])),
        encode_frame(encode(["call", 1, "echo", 1000, b""])),
        (limits.FRAME_BYTES + 1).to_bytes(4, "big"),
    ],
)
async def test_garbage_instead_of_a_reply_ends_the_calls_and_not_the_link(
    autojump_clock: MockClock, garbage: bytes
) -> None:
    async with two() as (one, other):
        carrier = await linked(one, other)
        liar = Liar(other)
        failed: list[int] = []

        async def ask(number: int) -> None:
            with pytest.raises(UnreachableError, match="sent no reply"):
                await one.calls.call(other.peer_id, "echo", b"", LIMIT)
            failed.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(ask, number)
            raw = await liar.stream()
            await raw.next()
            await raw.wire.write(garbage)
        assert sorted(failed) == [0, 1, 2]
        assert one.of(PeerDown) == []
        await trio.sleep(1)
        assert carrier.held == 1
        # The next call has a stream of its own.
        async with trio.open_nursery() as nursery:

            async def again() -> None:
                assert await one.calls.call(other.peer_id, "echo", b"", LIMIT) == b"at last"

            nursery.start_soon(again)
            raw = await liar.stream(1)
            asked = await raw.next()
            await raw.wire.write(encode_frame(encode(Reply(asked.id, b"at last"))))


async def test_replies_that_nobody_waits_for_change_nothing(autojump_clock: MockClock) -> None:
    async with two() as (one, other):
        await linked(one, other)
        liar = Liar(other)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                assert await one.calls.call(other.peer_id, "echo", b"", LIMIT) == b"right"

            async def give_up() -> None:
                with pytest.raises(CallError, match="in time"):
                    await one.calls.call(other.peer_id, "echo", b"", 0.5)

            nursery.start_soon(give_up)
            raw = await liar.stream()
            late = await raw.next()
            await trio.sleep(1)
            nursery.start_soon(ask)
            asked = await raw.next()
            assert asked.id != late.id
            replies = (
                Reply(late.id, b"too late"),
                Reply(12345, b"never asked"),
                Failure(0, "mesh", "never asked"),
                Reply(asked.id, b"right"),
                Reply(asked.id, b"twice"),
                Failure(asked.id, "mesh", "thrice"),
            )
            # At once, so that nobody takes the first before the second is there.
            await raw.wire.write(b"".join(encode_frame(encode(reply)) for reply in replies))
        (caller,) = one.calls._callers[other.peer_id]
        assert caller._waiting == {}
        assert caller._replies == {}


async def test_a_peer_that_never_replies_is_waited_for_no_longer_than_said(
    autojump_clock: MockClock,
) -> None:
    async with two() as (one, other):
        await linked(one, other)
        Liar(other)
        ended: list[float] = []

        async def ask(limit_s: float) -> None:
            with pytest.raises(CallError, match="in time"):
                await one.calls.call(other.peer_id, "echo", bytes(200_000), limit_s)
            ended.append(round(trio.current_time() - began, 3))

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(ask, float(1 + number % 5))
        assert sorted(set(ended)) == [1, 2, 3, 4, 5]
        (caller,) = one.calls._callers[other.peer_id]
        assert caller._waiting == {}


async def test_what_waits_to_be_sent_to_a_peer_that_reads_nothing_is_bounded(
    autojump_clock: MockClock,
) -> None:
    async with two() as (one, other):
        await linked(one, other)
        Liar(other)
        outcomes: list[type[Exception]] = []

        async def ask() -> None:
            try:
                await one.calls.call(other.peer_id, "echo", bytes(1_000_000), 20)
            except (BackpressureError, CallError) as error:
                outcomes.append(type(error))

        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(ask)
            await trio.sleep(10)
            refused = outcomes.count(BackpressureError)
            assert (40 - refused) * 1_000_000 <= limits.SEND_QUEUE_BYTES + (2 << 20)
        assert outcomes.count(CallError) == 40 - refused


async def test_a_strangers_reason_cannot_write_to_the_terminal(autojump_clock: MockClock) -> None:
    async with two() as (one, other):
        await linked(one, other)

        async def refuse(peer: PeerId, body: bytes) -> bytes:
            raise RefusedError("\x1b[2J\nevil\x07")

        other.calls.answers["refuse"] = refuse
        with pytest.raises(CallError) as failed:
            await one.calls.call(other.peer_id, "refuse", b"", LIMIT)
        assert str(failed.value).isprintable()
        assert "evil" in str(failed.value)


async def test_a_peer_that_does_not_take_the_stream_is_unreachable(
    autojump_clock: MockClock,
) -> None:
    async with two() as (one, other):
        carrier = await linked(one, other)
        other.calls._serving[one.peer_id] = [trio.CancelScope() for _ in range(OPENED_LIMIT)]
        with pytest.raises(UnreachableError):
            await one.calls.call(other.peer_id, "echo", b"", LIMIT)
        del other.calls._serving[one.peer_id]
        other.calls.answers["echo"] = echo
        assert await one.calls.call(other.peer_id, "echo", b"on", LIMIT) == b"on"
        await trio.sleep(1)
        # One for the link, one for the stream that stands.
        assert carrier.held == 2


# --- while the link moves -----------------------------------------------------------------------


async def relayed(one: Node, other: Node, latency_s: float = 0.05) -> FakeCarrier:
    carrier = lay(FakeNetwork(latency_s=latency_s), one, other, relayed=True)
    one.start(one.connect, carrier)
    await until_linked(one, other, "relayed")
    return carrier


async def moved(one: Node, other: Node, network: FakeNetwork | None = None) -> FakeCarrier:
    carrier = lay(network or FakeNetwork(latency_s=0.001), one, other)
    one.start(one.connect, carrier)
    await until_linked(one, other, "direct")
    return carrier


@pytest.mark.parametrize("seed", range(5))
async def test_calls_under_way_survive_a_move(autojump_clock: MockClock, seed: int) -> None:
    rng = random.Random(seed)
    async with two() as pair:
        old = await relayed(*pair)
        answered: list[tuple[int, int]] = []

        async def wait(peer: PeerId, body: bytes) -> bytes:
            await trio.sleep(body[0] / 1000)
            return body

        async def ask(side: int, number: int) -> None:
            await trio.sleep(number * 0.02)
            body = rng.randbytes(rng.choice((1, 1000, 100_000)))
            there = pair[1 - side].peer_id
            assert await pair[side].calls.call(there, "wait", body, LIMIT) == body
            answered.append((side, number))

        for node in pair:
            node.calls.answers["wait"] = wait
        async with trio.open_nursery() as nursery:
            for side in (0, 1):
                for number in range(100):
                    nursery.start_soon(ask, side, number)
            await trio.sleep(0.4)
            nursery.start_soon(moved, pair[seed % 2], pair[1 - seed % 2], Lines(seed, 0.05))
        assert len(set(answered)) == 200
        for node in pair:
            assert len(node.of(PathChanged)) == 1
        await trio.sleep(60)
        # Those under way have ended: nothing keeps the relay busy any more.
        assert [old.held, old.other.held] == [0, 0]


async def test_new_calls_take_the_new_way_and_the_old_one_is_let_go(
    autojump_clock: MockClock,
) -> None:
    async with two() as (one, other):
        old = await relayed(one, other, latency_s=1.0)
        for node, there in ((one, other), (other, one)):
            there.calls.answers["echo"] = echo
            assert await node.calls.call(there.peer_id, "echo", b"", 30) == b""
        new = await moved(one, other)
        for node, there in ((one, other), (other, one)):
            began = trio.current_time()
            assert await node.calls.call(there.peer_id, "echo", b"fast", 30) == b"fast"
            assert trio.current_time() - began < 0.1
        await trio.sleep(60)
        assert [old.held, old.other.held] == [0, 0]
        # The link, the calls of this side, and those of the other.
        assert [new.held, new.other.held] == [3, 3]
        for node, there in ((one, other), (other, one)):
            assert len(node.calls._callers[there.peer_id]) == 1
            assert len(node.calls._serving[there.peer_id]) == 1


async def test_a_link_that_comes_and_goes_over_relays_can_always_be_called_over(
    autojump_clock: MockClock,
) -> None:
    async with two() as (one, other):
        for node in (one, other):
            node.calls.answers["echo"] = echo
        circuits = []
        for _ in range(6):
            circuits.append(await relayed(one, other))
            for node, there in ((one, other), (other, one)):
                assert await node.calls.call(there.peer_id, "echo", b"relayed", 30) == b"relayed"
            new = await moved(other, one)
            for node, there in ((one, other), (other, one)):
                assert await node.calls.call(there.peer_id, "echo", b"direct", 30) == b"direct"
            new._connection.cut()
            with trio.fail_after(LIMIT):
                while one.table.is_linked(other.peer_id) or other.table.is_linked(one.peer_id):  # noqa: ASYNC110
                    await trio.sleep(0.01)
        await trio.sleep(60)
        assert {end.held for circuit in circuits for end in (circuit, circuit.other)} == {0}


async def test_who_is_not_linked_any_more_is_not_served_any_more(
    autojump_clock: MockClock,
) -> None:
    """A peer that was sent away keeps its stream open, and its connection."""
    async with two() as (one, other):
        carrier = await linked(one, other)
        cancelled = trio.Event()

        async def work(peer: PeerId, body: bytes) -> bytes:
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()
            return b""

        other.calls.answers["work"] = work
        raw = Raw(await carrier.open(PROTOCOL_ID))
        await raw.ask(1, "work", limit_ms=20_000)
        carrier.hold()
        await trio.sleep(1)
        other.live(one).close("enough of you")
        assert await raw.is_cut()
        assert cancelled.is_set()
        await trio.sleep(1)
        assert other.calls._serving == {}
        assert carrier.other.held == 0
        assert not carrier.closed


async def test_nobody_waits_for_a_peer_that_was_sent_away(autojump_clock: MockClock) -> None:
    """It leaves the stream open, and says nothing."""
    async with two() as (one, other):
        carrier = await linked(one, other)
        Liar(other)
        carrier.other.hold()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(UnreachableError):
                    await one.calls.call(other.peer_id, "echo", b"", 600)

            for _ in range(3):
                nursery.start_soon(ask)
            await trio.sleep(1)
            one.live(other).close("enough of you")
        assert trio.current_time() - began < 2
        assert one.calls._callers == {}
        await trio.sleep(1)
        assert carrier.held == 0


async def test_calls_end_with_the_link(autojump_clock: MockClock) -> None:
    """On both sides, and nothing is kept of them."""
    async with two() as (one, other):
        cancelled = trio.Event()

        async def work(peer: PeerId, body: bytes) -> bytes:
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()
            return b""

        other.calls.answers["work"] = work
        carrier = await linked(one, other)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(UnreachableError):
                    await one.calls.call(other.peer_id, "work", b"", 600)

            for _ in range(5):
                nursery.start_soon(ask)
            await trio.sleep(1)
            other.live(one).close("enough")
        assert not carrier.closed
        await trio.sleep(1)
        assert cancelled.is_set()
        assert one.calls._callers == {}
        assert other.calls._serving == {}
        assert [carrier.held, carrier.other.held] == [0, 0]
