"""A link that moves from a relay to a direct connection loses, repeats and reorders nothing, or
both ends are told that it is down."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from node.mesh.base import PathChanged, PeerDown, PeerUp, Received, Refused
from node.mesh.greet import PROTOCOL_ID
from node.mesh.inbox import Inbox
from node.mesh.link import MOVE_LIMIT_S, Leg, LiveLink
from protocol import limits
from protocol.errors import BackpressureError, UnreachableError
from protocol.frames import MOVED, FrameDecoder, encode_frame, encode_greeting
from tests.fakes.mesh import FakeCarrier, FakeNetwork
from tests.mesh.nodes import Lines, Node, check_events, lay, two, unlinked, until_linked

FAST_S, SLOW_S = 0.002, 0.2
LATENCIES = [(FAST_S, SLOW_S), (SLOW_S, FAST_S), (FAST_S, FAST_S)]
BIG = limits.FRAME_BYTES - 4


def numbered(number: int, size: int = 0) -> bytes:
    return number.to_bytes(4, "big") + bytes(size)


def numbers(node: Node) -> list[int]:
    return [int.from_bytes(payload[:4], "big") for payload in node.payloads()]


def sizes(number: int) -> int:
    """Mostly small, some large, one in a while of a frame's size."""
    if number % 97 == 50:
        return BIG
    return (number * 7919) % 300 if number % 11 else (number * 7919) % 60_000


async def relayed(network: FakeNetwork, one: Node, other: Node) -> FakeCarrier:
    """A link through a relay; the end of ``one``, which has dialled."""
    carrier = lay(network, one, other, relayed=True)
    one.start(one.connect, carrier)
    await until_linked(one, other, "relayed")
    return carrier


async def moved(network: FakeNetwork, one: Node, other: Node) -> FakeCarrier:
    """The end of ``one`` of a direct connection, to which the link has moved."""
    carrier = lay(network, one, other)
    one.start(one.connect, carrier)
    await until_linked(one, other, "direct")
    return carrier


async def speak(one: Node, other: Node, numbers: range, pause_s: float = 0.0) -> None:
    """Send, in spite of a full queue."""
    for number in numbers:
        while True:
            try:
                one.send(other, numbered(number, sizes(number)))
                break
            except BackpressureError:
                await trio.sleep(0.01)
        if pause_s:
            await trio.sleep(pause_s)


async def fill(one: Node, other: Node, number: int) -> int:
    """Send until the queue is full and stays so; the number of the next message."""
    for _ in range(10):
        try:
            while True:
                one.send(other, numbered(number, 60_000))
                number += 1
        except BackpressureError:
            await trio.sleep(0.2)
    return number


async def until_got(node: Node, count: int) -> None:
    with trio.fail_after(120):
        while len(node.payloads()) < count:  # noqa: ASYNC110
            await trio.sleep(0.01)


def held(*carriers: FakeCarrier) -> list[int]:
    return [end.held for carrier in carriers for end in (carrier, carrier.other)]


# --- what a move is -----------------------------------------------------------------------------


@pytest.mark.parametrize("dialler", [0, 1])
@pytest.mark.parametrize("mover", [0, 1])
async def test_a_link_moves_and_tells(autojump_clock: MockClock, dialler: int, mover: int) -> None:
    async with two() as pair:
        old = await relayed(FakeNetwork(latency_s=SLOW_S), pair[dialler], pair[1 - dialler])
        assert held(old) == [1, 1]
        await trio.sleep(3)
        for one, other in (pair, pair[::-1]):
            assert one.link(other).direct_s is None
            assert one.live(other).relayed
        new = await moved(FakeNetwork(latency_s=FAST_S), pair[mover], pair[1 - mover])
        await trio.sleep(1)
        assert held(old, new) == [0, 0, 1, 1]
        for one, other in (pair, pair[::-1]):
            assert [type(event) for event in one.events] == [PeerUp, PathChanged]
            up, changed = one.events
            assert up.link.path == "relayed"
            assert "p2p-circuit" in up.link.address
            assert changed.link.path == "direct"
            assert changed.link.peer == other.peer_id
            assert "p2p-circuit" not in changed.link.address
            assert 3 < changed.link.direct_s < 4
            now = one.link(other)
            assert now.direct_s == pytest.approx(changed.link.direct_s)
            assert now.age_s > now.direct_s
            assert now.why == ""
            assert one.live(other).is_on(new if one is pair[mover] else new.other)
            assert not one.live(other).is_on(old if one is pair[dialler] else old.other)
            one.send(other, numbered(1))
        for node in pair:
            await until_got(node, 1)
        # The old connection was only let go of: the other side may still be reading it.
        assert not old.closed


async def test_a_link_that_begins_directly_was_never_relayed(autojump_clock: MockClock) -> None:
    async with two() as (one, other):
        one.start(one.connect, lay(FakeNetwork(), one, other))
        await until_linked(one, other, "direct")
        await trio.sleep(2)
        assert one.link(other).direct_s == 0
        assert one.link(other).age_s == pytest.approx(2, abs=0.1)


async def test_whoever_waits_for_a_path_is_told_of_a_move_and_of_the_end(
    autojump_clock: MockClock,
) -> None:
    async with two() as (one, other):
        await relayed(FakeNetwork(), one, other)
        live = one.live(other)
        told: list[str] = []

        async def wait(what: str) -> None:
            await live.path_changed()
            told.append(what)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "move")
            await trio.sleep(1)
            assert told == []
            await moved(FakeNetwork(), one, other)
            await trio.sleep(0.1)
            assert told == ["move"]
            nursery.start_soon(wait, "end")
            await trio.sleep(1)
            assert told == ["move"]
            live.close("enough")
        assert told == ["move", "end"]
        await live.path_changed()


async def test_both_sides_at_once_leave_one_stream(autojump_clock: MockClock) -> None:
    for seed in range(20):
        async with two() as (one, other):
            old = await relayed(FakeNetwork(seed), one, other)
            news = [
                lay(Lines(seed, 0.05), one, other),
                lay(Lines(seed + 100, 0.05), other, one),
            ]
            one.start(one.connect, news[0])
            other.start(other.connect, news[1])
            for node, there in ((one, other), (other, one)):
                one.start(speak, node, there, range(100), 0.001)
            await until_linked(one, other, "direct")
            for node in (one, other):
                await until_got(node, 100)
                assert numbers(node) == list(range(100))
            await trio.sleep(5)
            assert held(old) == [0, 0]
            assert sorted(held(*news)) == [0, 0, 1, 1]
            # The one that was one too many is closed, and neither side takes note of it.
            assert sorted(new.closed for new in news) == [False, True]
            for node in (one, other):
                assert {type(e) for e in node.events} == {PeerUp, PathChanged, Received}
                assert len(node.of(PathChanged)) == 1


# --- under load ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("old_s", "new_s"), LATENCIES)
@pytest.mark.parametrize("mover", [0, 1])
async def test_nothing_is_lost_repeated_or_overtaken_under_load(
    autojump_clock: MockClock, old_s: float, new_s: float, mover: int
) -> None:
    count = 400
    async with two() as pair:
        old = await relayed(FakeNetwork(latency_s=old_s), *pair)
        for one, other in (pair, pair[::-1]):
            one.start(speak, one, other, range(count), 0.002)
        await trio.sleep(0.3)
        new = await moved(FakeNetwork(latency_s=new_s), pair[mover], pair[1 - mover])
        for node in pair:
            await until_got(node, count)
            assert numbers(node) == list(range(count))
            assert [len(payload) - 4 for payload in node.payloads()] == list(
                map(sizes, range(count))
            )
        await trio.sleep(5)
        assert held(old, new) == [0, 0, 1, 1]
        for node in pair:
            moves = [isinstance(event, PathChanged) for event in node.events]
            assert sum(moves) == 1
            # It moved in the middle.
            assert (
                0 < sum(isinstance(e, Received) for e in node.events[: moves.index(True)]) < count
            )


@pytest.mark.parametrize(("old_s", "new_s"), LATENCIES)
async def test_a_full_queue_moves_with_the_link(
    autojump_clock: MockClock, old_s: float, new_s: float
) -> None:
    async with two() as (one, other):
        other.reading = trio.Event()
        old = await relayed(FakeNetwork(latency_s=old_s), one, other)
        sent = await fill(one, other, 0)
        new = await moved(FakeNetwork(latency_s=new_s), other, one)
        await trio.sleep(1)
        # Nobody reads: the old stream is not at its end yet.
        assert other.payloads() == []
        assert held(old)[0] == 1
        assert await fill(one, other, sent) == sent
        other.reading.set()
        await until_got(other, sent)
        assert numbers(other) == list(range(sent))
        await trio.sleep(1)
        assert held(old, new) == [0, 0, 1, 1]


async def test_a_lagging_consumer_does_not_keep_a_link_on_the_relay(
    autojump_clock: MockClock,
) -> None:
    """What waits unread says nothing against a better way for it."""
    async with two() as (one, other):
        await relayed(FakeNetwork(), one, other)
        other.reading = trio.Event()
        one.reading = trio.Event()
        for node, there in ((one, other), (other, one)):
            node.start(speak, node, there, range(limits.INBOX_MESSAGES + 100), 0.0)
        await trio.sleep(5)
        assert not one.inbox.has_room(other.peer_id)
        assert not other.inbox.has_room(one.peer_id)
        await moved(FakeNetwork(), one, other)
        for node in (one, other):
            node.reading.set()
            await until_got(node, limits.INBOX_MESSAGES + 100)
            assert numbers(node) == list(range(limits.INBOX_MESSAGES + 100))
            assert node.of(Refused) == []


async def test_what_waits_for_a_consumer_stays_bounded_over_a_move(
    autojump_clock: MockClock,
) -> None:
    async with two() as (one, other):
        await relayed(FakeNetwork(), one, other)
        other.reading = trio.Event()
        one.start(speak, one, other, range(limits.INBOX_MESSAGES // 2), 0.0)
        await trio.sleep(1)
        await moved(FakeNetwork(), one, other)
        one.start(speak, one, other, range(10_000), 0.0)
        await trio.sleep(20)
        assert not other.inbox.has_room(one.peer_id)
        lane = other.inbox._lanes[one.peer_id]
        assert len(lane.events) <= limits.INBOX_MESSAGES + 1
        assert len(one.live(other)._queue) == limits.SEND_QUEUE_MESSAGES


# --- carriers that fail -------------------------------------------------------------------------


class Talk:
    """What two nodes say to each other, and what became of it.

    Attributes:
        said: by each side, the numbers of the messages that the mesh took, and how many events
            the sender had read by then.
    """

    def __init__(self, pair: tuple[Node, Node]) -> None:
        self.pair = pair
        self.said: tuple[dict[int, int], dict[int, int]] = ({}, {})

    async def say(self, side: int, count: int, pause_s: float) -> None:
        """Send what can be sent; who has no link has nobody to tell."""
        node, there = self.pair[side], self.pair[1 - side]
        for number in range(count):
            try:
                node.send(there, numbered(number, sizes(number)))
            except (UnreachableError, BackpressureError):
                pass
            else:
                self.said[side][number] = len(node.events)
            await trio.sleep(pause_s)

    def start(self, count: int, pause_s: float = 0.002) -> None:
        for side in (0, 1):
            self.pair[side].start(self.say, side, count, pause_s)

    def check(self) -> None:
        """Everything has arrived, or both know that the link went down; never a gap within."""
        one, other = self.pair
        assert one.table.is_linked(other.peer_id) == other.table.is_linked(one.peer_id)
        assert bool(unlinked(one)) == bool(unlinked(other))
        for said, node, there in zip(self.said, self.pair, self.pair[::-1], strict=True):
            check_events(there, node)
            got = numbers(there)
            # Nothing invented, repeated or overtaken.
            assert all(earlier < later for earlier, later in pairwise(got))
            assert set(got) <= said.keys()
            # Nothing skipped while a link stands.
            positions = {number: at for at, number in enumerate(said)}
            last: int | None = None
            for event in there.events:
                if isinstance(event, PeerUp):
                    last = None
                elif isinstance(event, Received):
                    at = positions[int.from_bytes(event.payload[:4], "big")]
                    assert last in (None, at - 1)
                    last = at
            # Whose word was lost is told that the link went down, after it spoke.
            for number in said.keys() - set(got):
                later = node.events[said[number] :]
                assert any(isinstance(event, PeerDown) for event in later), number

    def check_carriers(self, *carriers: FakeCarrier) -> None:
        """Only the one in use is held."""
        one, other = self.pair
        for carrier in carriers:
            used = one.table.is_linked(other.peer_id) and one.live(other).wire.carrier
            for end in (carrier, carrier.other):
                assert end.held == (used in (carrier, carrier.other))


@pytest.mark.parametrize(("old_s", "new_s"), LATENCIES)
@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.01, 0.1, 0.3, 0.5, 1.0])
async def test_an_old_stream_that_is_cut_ends_the_link_or_was_not_needed_any_more(
    autojump_clock: MockClock, old_s: float, new_s: float, after_s: float
) -> None:
    async with two() as pair:
        old = await relayed(FakeNetwork(latency_s=old_s), *pair)
        talk = Talk(pair)
        talk.start(200)
        await trio.sleep(0.05)
        new = lay(FakeNetwork(latency_s=new_s), *pair)
        pair[0].start(pair[0].connect, new)
        await trio.sleep(after_s)
        old._connection.cut()
        await trio.sleep(60)
        talk.check()
        talk.check_carriers(old, new)
        if after_s == 1.0:
            assert not unlinked(*pair)
            assert all(len(node.payloads()) == 200 for node in pair)
        if after_s == 0.0:
            assert unlinked(*pair)


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.05, 0.06, 0.1, 0.11, 0.15, 0.2, 0.5])
@pytest.mark.parametrize("mover", [0, 1])
async def test_a_new_stream_that_dies_at_once_ends_the_link_or_leaves_it_as_it_was(
    autojump_clock: MockClock, after_s: float, mover: int
) -> None:
    async with two() as pair:
        old = await relayed(FakeNetwork(latency_s=0.05), *pair)
        talk = Talk(pair)
        talk.start(100)
        new = lay(FakeNetwork(latency_s=0.05), pair[mover], pair[1 - mover])
        pair[mover].start(_connect_if_it_can, pair[mover], new)
        await trio.sleep(after_s)
        new._connection.cut()
        await trio.sleep(60)
        talk.check()
        talk.check_carriers(old, new)
        if not unlinked(*pair):
            assert pair[0].link(pair[1]).path == pair[1].link(pair[0]).path == "relayed"
            assert all(len(node.payloads()) == 100 for node in pair)
        # Nobody had answered the greeting yet, or both had moved.
        if after_s <= 0.05:
            assert not unlinked(*pair)
        if after_s >= 0.2:
            assert unlinked(*pair)


async def _connect_if_it_can(node: Node, carrier: FakeCarrier) -> None:
    try:
        await node.connect(carrier)
    except trio.BrokenResourceError:
        assert carrier.closed


async def test_a_mark_without_another_stream_ends_the_link_in_time(
    autojump_clock: MockClock,
) -> None:
    """A peer that says it goes on elsewhere, and does not."""
    async with two() as (smaller, larger):
        carrier = lay(FakeNetwork(), larger, smaller, relayed=True)
        wire = await carrier.open(PROTOCOL_ID)
        await wire.write(encode_greeting(larger._hello(carrier)))
        await wire.read(2000)
        await wire.write(encode_frame(b"last") + MOVED + encode_frame(b"behind the mark"))
        began = trio.current_time()
        with trio.fail_after(2 * MOVE_LIMIT_S):
            while not smaller.of(PeerDown):  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert trio.current_time() - began == pytest.approx(MOVE_LIMIT_S, abs=0.1)
        assert smaller.payloads() == [b"last"]
        assert unlinked(smaller) == ["the peer did not go on where it said it would"]
        await trio.sleep(5)
        assert carrier.other.held == 0


async def test_a_mark_instead_of_a_greeting_is_refused(autojump_clock: MockClock) -> None:
    async with two() as (smaller, larger):
        carrier = lay(FakeNetwork(), larger, smaller)
        wire = await carrier.open(PROTOCOL_ID)
        await wire.write(MOVED + encode_greeting(larger._hello(carrier)))
        await trio.sleep(20)
        assert [type(event) for event in smaller.events] == [Refused]
        assert smaller.events[0].code == "decode"
        assert carrier.other.held == 0


# --- no moves -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "further"), [("direct", "direct"), ("direct", "relayed"), ("relayed", "relayed")]
)
@pytest.mark.parametrize("mover", [0, 1])
async def test_a_duplicate_that_is_no_improvement_changes_nothing(
    autojump_clock: MockClock, path: str, further: str, mover: int
) -> None:
    async with two() as pair:
        first = lay(FakeNetwork(), *pair, path == "relayed")
        pair[0].start(pair[0].connect, first)
        await until_linked(*pair, path)
        for node, there in (pair, pair[::-1]):
            node.start(speak, node, there, range(200), 0.001)
        await trio.sleep(0.05)
        second = lay(FakeNetwork(1), pair[mover], pair[1 - mover], further == "relayed")
        assert not await pair[mover].connect(second)
        for node in pair:
            await until_got(node, 200)
            assert numbers(node) == list(range(200))
            assert {type(event) for event in node.events} == {PeerUp, Received}
        await trio.sleep(3)
        assert held(first, second) == [1, 1, 0, 0]
        assert second.closed


@pytest.mark.parametrize("restarted", [0, 1])
async def test_a_restarted_peer_does_not_take_over_the_link_of_its_former_run(
    autojump_clock: MockClock, restarted: int
) -> None:
    """It has lost what was under way, and that must be told."""
    async with two() as pair:
        old = await relayed(FakeNetwork(), *pair)
        again, other = pair[restarted], pair[1 - restarted]
        again.session = b"another run of it"[:16]
        # What the former run had is gone, though the end of it was not seen here yet.
        again.live(other).close("this run is over")
        new = lay(FakeNetwork(), again, other)
        again.start(again.connect, new)
        await until_linked(*pair, "direct")
        assert [type(event) for event in other.events] == [PeerUp, PeerDown, PeerUp]
        check_events(other, again)
        assert held(old, new) == [0, 0, 1, 1]


@pytest.mark.parametrize("restarted", [0, 1])
async def test_a_restart_is_no_move_though_the_old_link_still_stands(
    autojump_clock: MockClock, restarted: int
) -> None:
    """Pulled out and plugged in again: nobody has told the other side yet."""
    async with two() as pair, trio.open_nursery() as tasks:
        old = await relayed(FakeNetwork(), *pair)
        other = pair[1 - restarted]
        other.start(speak, other, pair[restarted], range(10))
        await trio.sleep(1)
        again = Node(pair[restarted].name, tasks)
        again.session = b"another run of it"[:16]
        new = lay(FakeNetwork(), again, other)
        again.start(again.connect, new)
        await until_linked(again, other, "direct")
        other.start(speak, other, again, range(10, 20))
        await until_got(again, 10)
        assert numbers(again) == list(range(10, 20))
        assert [type(event) for event in other.events] == [PeerUp, PeerDown, PeerUp]
        assert unlinked(other) == ["the peer connected anew"]
        await trio.sleep(5)
        assert held(old, new) == [0, 0, 1, 1]
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("path", ["", "relayed"])
async def test_two_streams_at_the_very_same_moment_leave_one(
    autojump_clock: MockClock, path: str
) -> None:
    async with two() as (smaller, larger):
        if path:
            await relayed(FakeNetwork(), smaller, larger)
        news = [lay(FakeNetwork(), larger, smaller) for _ in range(3)]
        for new in news:
            larger.start(larger.connect, new)
        for node, there in ((smaller, larger), (larger, smaller)):
            await until_linked(smaller, larger, "direct")
            node.start(speak, node, there, range(50))
        for node in (smaller, larger):
            await until_got(node, 50)
            assert not unlinked(node)
            assert numbers(node) == list(range(50))
        await trio.sleep(5)
        assert sorted(held(*news)) == [0] * 4 + [1] * 2


# --- several moves, below the table -------------------------------------------------------------


@dataclass
class Loose:
    """Both ends of a link without a table: the test says when each moves."""

    one: LiveLink
    other: LiveLink
    inboxes: tuple[Inbox, Inbox]


async def leg(carrier: FakeCarrier, inbound: list[Leg], path: str) -> Leg:
    """This end's stream on ``carrier``; the other end's is appended to ``inbound``."""

    class Catch:
        peer_id = carrier.there.peer_id

        def accept(self, protocol: str, wire: object) -> None:
            inbound.append(Leg(wire, FrameDecoder(), "there", path))  # type: ignore[arg-type]

    real, carrier.there = carrier.there, Catch()  # type: ignore[assignment]
    wire = await carrier.open(PROTOCOL_ID)
    carrier.there = real
    carrier.hold()
    carrier.other.hold()
    return Leg(wire, FrameDecoder(), "here", path)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("gap_s", [0.0, 0.01, 0.5])
async def test_two_moves_in_a_row(
    autojump_clock: MockClock, order: tuple[int, int], gap_s: float
) -> None:
    """One side may have moved twice before the other has moved once."""
    count = 200
    async with two() as (one, other):
        carriers = [
            lay(FakeNetwork(number, latency), one, other, not number)
            for number, latency in enumerate((0.1, 0.3, 0.001))
        ]
        theirs: list[Leg] = []
        ours = [
            await leg(carrier, theirs, "direct" if number else "relayed")
            for number, carrier in enumerate(carriers)
        ]
        links = (
            LiveLink(other.peer_id, "agent", ours[0], one.inbox, bytes(16)),
            LiveLink(one.peer_id, "agent", theirs[0], other.inbox, bytes(16)),
        )
        legs = (ours, theirs)
        async with trio.open_nursery() as nursery:
            for link in links:
                nursery.start_soon(link.run)

            async def say(link: LiveLink) -> None:
                for number in range(count):
                    link.send(numbered(number, number))
                    await trio.sleep(0.005)

            for link in links:
                nursery.start_soon(say, link)
            await trio.sleep(0.2)
            for side in order:
                for number in (1, 2):
                    links[side].move(legs[side][number])
                    await trio.sleep(gap_s)
            for node in (one, other):
                await until_got(node, count)
                assert numbers(node) == list(range(count))
                assert len(node.of(PathChanged)) == 2
            await trio.sleep(1)
            assert held(*carriers) == [0, 0, 0, 0, 1, 1]
            for link in links:
                link.close("done")
        for link in links:
            await link.leave()
        assert held(*carriers) == [0] * 6


# --- any story ----------------------------------------------------------------------------------

seconds = st.floats(0, 1.5)


@dataclass(frozen=True)
class Story:
    """What happens to two linked nodes.

    Attributes:
        latency_s: the most of the relayed line and of the direct ones.
        messages: how many each sends, evenly over two seconds.
        moves: who lays a direct connection, and when.
        ends: which carrier ends, when, and whether what is under way is lost.
        lag: whose consumer pauses, from when, and for how long.
    """

    latency_s: tuple[float, float]
    messages: tuple[int, int]
    moves: list[tuple[int, float]]
    ends: list[tuple[int, float, bool]]
    lag: tuple[int, float, float] | None


latencies = st.sampled_from((0.0005, 0.02, 0.3))
stories = st.builds(
    Story,
    st.tuples(latencies, latencies),
    st.tuples(st.integers(0, 120), st.integers(0, 120)),
    st.lists(st.tuples(st.integers(0, 1), seconds), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 3), seconds, st.booleans()), max_size=2),
    st.none() | st.tuples(st.integers(0, 1), seconds, st.floats(0, 3)),
)


@settings(max_examples=80)
@given(stories, st.integers(0, 2**16))
def test_no_story_ends_in_silence(story: Story, seed: int) -> None:
    trio.run(_play, story, seed, clock=MockClock(autojump_threshold=0))


async def _play(story: Story, seed: int) -> None:
    async with two() as pair:
        carriers = [await relayed(Lines(seed, story.latency_s[0]), *pair)]
        talk = Talk(pair)

        async def go_direct(index: int, side: int, after_s: float) -> None:
            await trio.sleep(after_s)
            carrier = lay(Lines(seed + index, story.latency_s[1]), pair[side], pair[1 - side])
            carriers.append(carrier)
            await _connect_if_it_can(pair[side], carrier)

        async def end(which: int, after_s: float, lose: bool) -> None:
            await trio.sleep(after_s)
            if which < len(carriers):
                connection = carriers[which]._connection
                connection.cut() if lose else connection.end()

        async def lag(side: int, after_s: float, for_s: float) -> None:
            await trio.sleep(after_s)
            pair[side].reading = trio.Event()
            await trio.sleep(for_s)
            pair[side].reading.set()

        with trio.fail_after(300):
            async with trio.open_nursery() as nursery:
                for side, count in enumerate(story.messages):
                    nursery.start_soon(talk.say, side, count, 2 / max(count, 1))
                for index, (side, after_s) in enumerate(story.moves):
                    pair[side].start(go_direct, index, side, after_s)
                for ending in story.ends:
                    nursery.start_soon(end, *ending)
                if story.lag is not None:
                    nursery.start_soon(lag, *story.lag)
            await trio.sleep(60)
        talk.check()
        talk.check_carriers(*carriers)
        for node, there in (pair, pair[::-1]):
            if node.table.is_linked(there.peer_id):
                node.live(there).close("the story ends")
                break
        await trio.sleep(30)
        assert unlinked(*pair)
        assert set(held(*carriers)) == {0}
