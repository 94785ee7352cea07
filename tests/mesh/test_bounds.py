"""What waits in a link and in the inbox is bounded, and served fairly."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from node.mesh import inbox as inbox_module
from node.mesh.base import Received, Refused
from node.mesh.inbox import Inbox
from node.mesh.link import Leg, LiveLink
from protocol import limits
from protocol.errors import BackpressureError
from protocol.frames import FrameDecoder, encode_frame
from protocol.ids import PeerId

A, B = PeerId(b"a" * 32), PeerId(b"b" * 32)


class DeadWire:
    """Takes nothing and gives nothing."""

    peer = "nobody"

    async def read(self, most: int) -> bytes:
        await trio.sleep_forever()
        return b""

    async def write(self, data: bytes) -> None:
        await trio.sleep_forever()


class FullWire(DeadWire):
    """Gives one-byte payloads for ever, and counts the reads."""

    reads = 0

    async def read(self, most: int) -> bytes:
        await trio.lowlevel.checkpoint()
        self.reads += 1
        return encode_frame(b"x") * 100


def link_on(wire: DeadWire, inbox: Inbox) -> LiveLink:
    leg = Leg(wire, FrameDecoder(), "address", "direct")  # type: ignore[arg-type]
    return LiveLink(A, "agent", leg, inbox, bytes(16))


# --- sending ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "taken"),
    [
        (1, limits.SEND_QUEUE_MESSAGES),
        (limits.FRAME_BYTES - 4, limits.SEND_QUEUE_BYTES // limits.FRAME_BYTES),
    ],
)
async def test_the_send_queue_is_bounded_in_messages_and_in_bytes(size: int, taken: int) -> None:
    link = link_on(DeadWire(), Inbox())
    for _ in range(taken):
        link.send(bytes(size))
    with pytest.raises(BackpressureError, match=f"{taken} messages"):
        link.send(bytes(size))


async def test_what_is_being_written_still_counts() -> None:
    link = link_on(DeadWire(), Inbox())
    payload = bytes(limits.FRAME_BYTES - 4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        link.send(payload)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(limits.SEND_QUEUE_BYTES // limits.FRAME_BYTES - 1):
            link.send(payload)
        with pytest.raises(BackpressureError):
            link.send(b"")
        nursery.cancel_scope.cancel()


async def test_what_a_peer_sent_is_read_though_it_takes_nothing_more(
    autojump_clock: MockClock,
) -> None:
    class HalfDead(DeadWire):
        async def read(self, most: int) -> bytes:
            await trio.sleep(1)
            return encode_frame(b"last words")

        async def write(self, data: bytes) -> None:
            raise trio.BrokenResourceError("nobody there")

    inbox = Inbox()
    link = link_on(HalfDead(), inbox)
    link.send(b"hello?")
    with trio.fail_after(10):
        reason, fault = await link.run()
        assert await inbox.get() == Received(A, b"last words")
    assert reason == "sending failed: nobody there"
    assert fault is None


# --- receiving ----------------------------------------------------------------------------------


async def test_a_link_reads_no_further_than_its_lane_has_room() -> None:
    inbox, wire = Inbox(), FullWire()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link_on(wire, inbox).run)
        await trio.testing.wait_all_tasks_blocked()
        assert wire.reads == limits.INBOX_MESSAGES // 100 + 1
        for _ in range(300):
            await inbox.get()
        await trio.testing.wait_all_tasks_blocked()
        assert wire.reads == (limits.INBOX_MESSAGES + 300) // 100 + 1
        nursery.cancel_scope.cancel()


async def test_peers_are_served_in_turn() -> None:
    inbox = Inbox()
    for number in range(10):
        inbox.put(A, Received(A, bytes([number])))
    for number in range(3):
        inbox.put(B, Received(B, bytes([number])))
    got = [await inbox.get() for _ in range(13)]
    assert [event.peer for event in got[:7]] == [A, B, A, B, A, B, A]
    for peer, count in ((A, 10), (B, 3)):
        mine = [e.payload[0] for e in got if isinstance(e, Received) and e.peer == peer]
        assert mine == list(range(count))


def test_a_lane_is_bounded_in_messages_and_in_bytes() -> None:
    inbox = Inbox()
    for _ in range(limits.INBOX_MESSAGES):
        assert inbox.has_room(A)
        inbox.put(A, Received(A, b""))
    assert not inbox.has_room(A)
    assert inbox.has_room(B)
    inbox.put(B, Received(B, bytes(inbox_module.LANE_BYTES)))
    assert not inbox.has_room(B)


def test_all_lanes_together_are_bounded() -> None:
    inbox = Inbox()
    payload = bytes(limits.FRAME_BYTES)
    taken = 0
    for number in range(limits.PEERS):
        peer = PeerId(number.to_bytes(32, "big"))
        while inbox.has_room(peer):
            inbox.put(peer, Received(peer, payload))
            taken += len(payload)
    # Beyond the common bound each peer has one payload, so that nobody is starved.
    assert taken <= inbox_module.TOTAL_BYTES + limits.PEERS * limits.FRAME_BYTES


async def test_refusals_are_bounded_and_do_not_hide_the_rest() -> None:
    inbox = Inbox()
    for number in range(10 * inbox_module.REFUSALS):
        inbox.refuse(Refused(None, "address", "decode", str(number)))
    inbox.put(A, Received(A, b"still heard"))
    first, second = await inbox.get(), await inbox.get()
    assert isinstance(first, Refused)
    assert second == Received(A, b"still heard")
    for _ in range(inbox_module.REFUSALS - 1):
        assert isinstance(await inbox.get(), Refused)
    with trio.move_on_after(0) as scope:
        await inbox.get()
    assert scope.cancelled_caught
