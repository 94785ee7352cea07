"""Whom to dial, by which addresses, when again, and how a link gets off a relay."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.mesh import paths
from node.mesh.address import Address
from node.mesh.inbox import Inbox
from node.mesh.link import Leg, LiveLink
from node.mesh.paths import (
    CIRCUIT_DELAY_S,
    DIAL_LIMIT_S,
    DIALS_AT_ONCE,
    FIRST_DELAY_S,
    HEARSAY_TRIES,
    IMPROVE_AFTER_S,
    IMPROVE_LAST_S,
    LAST_DELAY_S,
    STAGGER_S,
    TRIES,
    Outlook,
    Paths,
)
from protocol import limits
from protocol.errors import CallError, MeshError
from protocol.frames import FrameDecoder
from protocol.ids import PeerId

OWN = PeerId(bytes(32))
PEER = PeerId(bytes(31) + b"\x01")
RELAY = PeerId(bytes(31) + b"\x02")
NEVER = math.inf


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def address(port: int = 4001, who: PeerId = PEER, host: str = "192.0.2.1") -> Address:
    return Address("ip4", host, port, who)


def circuit(port: int = 4001, who: PeerId = PEER, relay: PeerId = RELAY) -> Address:
    return Address("ip4", "203.0.113.1", port, relay).through(who)


@dataclass
class Way:
    """A connection, as far as paths need one."""

    relayed: bool = False
    dialled: bool = True
    closed: bool = False
    rtt_s: float | None = None

    async def close(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


@dataclass
class OnWay:
    carrier: Way


@dataclass
class World:
    """What paths ask for, and when they did.

    Attributes:
        delays: seconds until each port answers; all others never do.
        link_s: how long a link that is made lasts; None where none is made.
        dials: when each address was dialled.
        served: connections of which a link was to be made.
        gate: no dial answers before it is set.
    """

    delays: dict[int, float] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    link_s: float | None = NEVER
    near: Callable[[Address], bool] = lambda address: True
    outlooks: dict[PeerId, Outlook] = field(default_factory=dict)
    nat: str = "unknown"
    punch: Callable[[Way], Awaitable[Way]] | None = None
    dials: list[tuple[float, Address, bool]] = field(default_factory=list)
    carriers: list[Way] = field(default_factory=list)
    served: list[tuple[Way, str]] = field(default_factory=list)
    punches: list[float] = field(default_factory=list)
    down: Callable[[PeerId], Awaitable[bool]] | None = None
    gate: trio.Event | None = None
    most_at_once: int = 0
    _now: int = 0

    def __post_init__(self) -> None:
        self.paths = Paths(
            OWN,
            self._dial,  # type: ignore[arg-type]
            self._serve,  # type: ignore[arg-type]
            self._until_down,
            lambda who: self.outlooks.get(who, Outlook()),
            lambda: self.nat,
            self._punch,  # type: ignore[arg-type]
            lambda one: self.near(one),
            lambda who: "",
            lambda who: False,
            random.Random(1),
        )

    async def run(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self.paths.run()

    @property
    def times(self) -> list[float]:
        return [at for at, _, _ in self.dials]

    @property
    def ports(self) -> list[int]:
        return [one.port for _, one, _ in self.dials]

    def pauses(self) -> list[float]:
        return [later - earlier for earlier, later in pairwise(self.times)]

    async def _dial(self, where: Address, observed: bool) -> Way:
        self.dials.append((trio.current_time(), where, observed))
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if where.port in self.refused:
                raise OSError(self.refused[where.port])
            if delay := self.delays.get(where.port, 10_000.0):
                await trio.sleep(delay)
        finally:
            self._now -= 1
        way = Way(relayed=where.relay is not None)
        self.carriers.append(way)
        return way

    async def _serve(self, way: Way, where: str) -> bool:
        self.served.append((way, where))
        if self.link_s is None:
            return False
        await trio.sleep(min(self.link_s, 10_000.0))
        return True

    async def _until_down(self, who: PeerId) -> bool:
        await trio.lowlevel.checkpoint()
        return self.down is not None and await self.down(who)

    async def _punch(self, way: Way) -> Way:
        self.punches.append(trio.current_time())
        assert self.punch is not None
        return await self.punch(way)


def refusing() -> World:
    return World(refused={4001: "nobody there"})


# --- when again ---------------------------------------------------------------------------------


async def test_a_bootstrap_is_dialled_for_ever_and_ever_less_often(
    autojump_clock: MockClock,
) -> None:
    world = refusing()
    world.paths.want(PEER, [address()])
    await world.run(3600)
    pauses = world.pauses()
    assert pauses[0] <= 3 * FIRST_DELAY_S
    assert max(pauses) <= 1.5 * LAST_DELAY_S
    assert min(pauses[8:]) >= 0.5 * LAST_DELAY_S
    assert len(pauses) > 3600 / (1.5 * LAST_DELAY_S)
    # Not at fixed times, else all who lost a bootstrap would come at once.
    assert len({round(pause, 3) for pause in pauses[8:]}) > len(pauses[8:]) // 2
    (target,) = world.paths.targets()
    assert target.failures == len(world.dials)
    assert target.error == "/ip4/192.0.2.1/tcp/4001: nobody there"


async def test_a_bootstrap_that_was_there_is_dialled_soon(autojump_clock: MockClock) -> None:
    world = World(delays={4001: 0.0}, link_s=0.0)
    world.paths.want(PEER, [address()])
    await world.run(60)
    assert max(world.pauses()) <= 1.5 * FIRST_DELAY_S
    assert world.paths.targets()[0].failures == 0


async def test_another_peer_is_given_up(autojump_clock: MockClock) -> None:
    world = refusing()
    world.paths.want(PEER, [address()], TRIES)
    await world.run(3600)
    assert len(world.dials) == TRIES
    assert world.paths.targets() == []


async def test_who_was_given_up_may_be_wanted_again(autojump_clock: MockClock) -> None:
    world = refusing()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 2000)
        world.paths.want(PEER, [address()], 2)
        await trio.sleep(100)
        assert len(world.dials) == 2
        world.paths.want(PEER, [address()], 3)
        await trio.sleep(100)
        assert len(world.dials) == 5
        # A bootstrap is never given up, though it was first heard of otherwise.
        world.paths.want(PEER, [address()], 2)
        world.paths.want(PEER, [address()])
        await trio.sleep(1000)
        assert len(world.dials) > 20


async def test_a_link_that_the_peer_made_ends_a_row_of_failures(
    autojump_clock: MockClock,
) -> None:
    """Two that dial each other: the loser of each race has not failed."""
    down = 0

    async def link_of_the_peer(who: PeerId) -> bool:
        nonlocal down
        down += 1
        await trio.sleep(5)
        return down > 1

    world = World(delays={4001: 0.0}, link_s=None, down=link_of_the_peer)
    world.paths.want(PEER, [address()], 3)
    await world.run(120)
    assert len(world.dials) > 10
    assert world.paths.targets()[0].failures <= 1


async def test_what_has_changed_is_tried_at_once(autojump_clock: MockClock) -> None:
    world = refusing()
    world.paths.want(PEER, [address()])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 400)
        await trio.sleep(300)
        before = len(world.dials)
        world.paths.hurry()
        await trio.sleep(0.01)
        assert len(world.dials) == before + 1
        # And then it is dialled more often for a while again.
        await trio.sleep(4 * FIRST_DELAY_S)
        assert len(world.dials) >= before + 2


async def test_a_busy_minute_does_not_use_up_the_tries(autojump_clock: MockClock) -> None:
    """A peer that restarts while this node learns this and that."""
    world = refusing()
    world.paths.want(PEER, [address()], TRIES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 3600)
        for _ in range(3 * TRIES):
            await trio.sleep(0.1)
            world.paths.hurry()
        await trio.sleep(1)
        (target,) = world.paths.targets()
        assert target.failures <= 2
        # It is given up all the same once nothing happens any more.
        await trio.sleep(1800)
        assert world.paths.targets() == []


async def test_a_new_address_is_tried_at_once(autojump_clock: MockClock) -> None:
    world = World(refused={4001: "no"}, delays={4002: 0.0})
    world.paths.want(PEER, [address()])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 400)
        await trio.sleep(300)
        world.paths.want(PEER, [address()])
        await trio.sleep(0.01)
        before = len(world.dials)
        world.paths.want(PEER, [address(4002)])
        await trio.sleep(0.01)
        assert world.ports[before:] == [4002]
        assert [way for way, _ in world.served] == world.carriers


async def test_what_a_peer_states_anew_is_tried_at_once(autojump_clock: MockClock) -> None:
    world = World(delays={5: 0.0})
    world.paths.want(PEER, ())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 400)
        await trio.sleep(300)
        assert world.dials == []
        world.outlooks[PEER] = Outlook((circuit(5),), "closed")
        world.paths.retry(PEER)
        world.paths.retry(RELAY)
        await trio.sleep(0.01)
        assert world.ports == [5]
        # While it is linked there is nothing to be dialled.
        world.paths.retry(PEER)
        await trio.sleep(50)
        assert world.ports == [5]


async def test_a_peer_that_states_ever_new_addresses_is_dialled_no_more_often(
    autojump_clock: MockClock,
) -> None:
    """Each of its statements is right, and the addresses may be those of somebody else."""
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 61)
        world.paths.want(PEER, (), TRIES)
        for number in range(600):
            ports = range(1 + 12 * number, 13 + 12 * number)
            world.outlooks[PEER] = Outlook(tuple(map(address, ports)), "public")
            world.refused = dict.fromkeys(ports, "no")
            world.paths.retry(PEER)
            await trio.sleep(0.1)
    most = paths.PER_HOST_AT_ONCE + 61 * paths.PER_HOST_PER_S
    assert paths.PER_HOST_AT_ONCE <= len(world.dials) <= most


async def test_oneself_is_not_dialled(autojump_clock: MockClock) -> None:
    world = refusing()
    world.paths.want(OWN, [address(who=OWN)])
    await world.run(100)
    assert world.dials == []


async def test_the_number_of_peers_wanted_is_bounded(autojump_clock: MockClock) -> None:
    world = refusing()
    for number in range(1, limits.PEERS + 11):
        world.paths.want(peer(number), [address(who=peer(number))], 1)
    assert len(world.paths.targets()) == limits.PEERS
    await world.run(100)
    assert len(world.dials) == limits.PEERS


async def test_so_many_are_dialled_at_once(autojump_clock: MockClock) -> None:
    world = World()
    for number in range(1, 3 * DIALS_AT_ONCE + 1):
        world.paths.want(peer(number), [address(who=peer(number))], 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 60)
        await trio.sleep(1)
        assert len(world.dials) == DIALS_AT_ONCE
    assert world.most_at_once == DIALS_AT_ONCE
    assert len(world.dials) == 3 * DIALS_AT_ONCE


@pytest.mark.parametrize("fault", [ValueError("a bug"), OSError(), CallError("no")])
async def test_no_error_ends_the_dialling(autojump_clock: MockClock, fault: Exception) -> None:
    world = World(delays={4001: 0.0})

    async def serve(way: Way, where: str) -> bool:
        world.served.append((way, where))
        raise fault

    world.paths._serve = serve  # type: ignore[assignment]
    world.paths.want(PEER, [address()])
    await world.run(60)
    assert len(world.served) > 5
    assert world.paths.targets()[0].error == (str(fault) or type(fault).__name__)


# --- which way ----------------------------------------------------------------------------------


async def test_the_addresses_of_a_peer_are_tried_one_soon_after_the_other(
    autojump_clock: MockClock,
) -> None:
    world = World()
    for port in range(1, 21):
        world.paths.want(PEER, [address(port)], 1)
    began = trio.current_time()
    await world.run(100)
    # The newest is the likeliest, and not all old ones are kept.
    assert world.ports == list(range(20, 20 - limits.ADDRESSES, -1))
    assert [at - began for at in world.times] == pytest.approx(
        [STAGGER_S * index for index in range(limits.ADDRESSES)]
    )


async def test_the_first_that_answers_carries_the_link(autojump_clock: MockClock) -> None:
    world = World(delays={1: 0.6, 2: 0.5, 3: 0.2})
    world.paths.want(PEER, [address(port) for port in (1, 2, 3, 4)])
    await world.run(60)
    # The first had a start of half a second on the third, which is faster by less.
    assert [where for _, where in world.served] == [str(address(1))]
    assert world.ports == [1, 2, 3]
    assert [way.closed for way in world.carriers] == [False]


async def test_one_too_many_is_closed(autojump_clock: MockClock) -> None:
    """Two that answer at the same moment."""
    world = World(delays={1: 0.0, 2: 0.0})
    gate = world.gate = trio.Event()
    world.paths.want(PEER, [address(1), address(2)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 60)
        await trio.sleep(1)
        gate.set()
    assert len(world.served) == 1
    assert len(world.carriers) == 2
    used = world.served[0][0]
    assert [way.closed for way in world.carriers] == [way is not used for way in world.carriers]


async def test_circuits_are_tried_once_direct_addresses_had_their_chance(
    autojump_clock: MockClock,
) -> None:
    world = World(delays={5: 0.0})
    world.outlooks[PEER] = Outlook((circuit(5), circuit(6), address(1), address(2)), "public")
    world.paths.want(PEER, ())
    began = trio.current_time()
    await world.run(60)
    assert world.ports == [1, 2, 5]
    assert world.times[-1] - began == pytest.approx(CIRCUIT_DELAY_S)
    assert [where for _, where in world.served] == [str(circuit(5))]


async def test_circuits_are_tried_at_once_where_there_is_nothing_else(
    autojump_clock: MockClock,
) -> None:
    world = World()
    world.outlooks[PEER] = Outlook((circuit(5), circuit(6)), "closed")
    world.paths.want(PEER, (), 1)
    began = trio.current_time()
    await world.run(60)
    assert world.ports == [5, 6]
    assert [at - began for at in world.times] == pytest.approx([0, STAGGER_S])


async def test_nobody_goes_through_a_relay_that_is_oneself(autojump_clock: MockClock) -> None:
    world = World()
    world.outlooks[PEER] = Outlook((circuit(5, relay=OWN),), "closed")
    world.paths.want(PEER, (), 1)
    await world.run(60)
    assert world.dials == []


@pytest.mark.parametrize(("nat", "dialled"), [
    ("public", [7, 8]), ("unknown", [7, 8]), ("open", [8]), ("closed", [8]),
])  # fmt: skip
async def test_behind_a_nat_nobody_is_dialled_from_outside(
    autojump_clock: MockClock, nat: str, dialled: list[int]
) -> None:
    world = World()
    world.outlooks[PEER] = Outlook((address(7), address(8, host="10.0.0.1")), nat)
    world.paths.want(PEER, (), 1)
    await world.run(60)
    assert world.ports == dialled


async def test_what_a_peer_states_is_dialled_only_where_it_can_be_meant(
    autojump_clock: MockClock,
) -> None:
    world = World(near=lambda one: one.host != "10.0.0.1")
    world.outlooks[PEER] = Outlook((address(7), address(8, host="10.0.0.1")), "public")
    world.paths.want(PEER, (), 1)
    await world.run(60)
    assert world.ports == [7]


async def test_what_the_operator_has_given_is_dialled_wherever_it_is(
    autojump_clock: MockClock,
) -> None:
    """A LAN of several networks, a loopback address of a node that listens nowhere."""
    world = World(near=lambda one: False)
    world.outlooks[PEER] = Outlook((address(7),), "closed")
    world.paths.want(PEER, [address(8, host="10.0.0.1")], 1)
    await world.run(60)
    assert world.ports == [8]


async def test_one_dial_ends_in_time_and_says_what_happened(autojump_clock: MockClock) -> None:
    world = World(refused={1: "no route", 2: ""})
    world.paths.want(PEER, [address(1), address(2), address(3)])
    world.paths.want(RELAY, [address(3, who=RELAY)])
    world.paths.want(peer(9), ())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, DIAL_LIMIT_S + 1)
        await trio.sleep(DIAL_LIMIT_S - 0.1)
        assert [target.failures for target in world.paths.targets()][:2] == [0, 0]
        await trio.sleep(0.2)
        failed, silent, unknown = world.paths.targets()
    assert failed.error == "/ip4/192.0.2.1/tcp/1: no route; /ip4/192.0.2.1/tcp/2: OSError"
    assert failed.tried == 3
    assert silent.error == "no address answered in time"
    assert unknown.error == "no address of it is known that could be dialled from here"
    assert unknown.failures > 0
    assert unknown.tried == 0


async def test_every_other_dial_goes_from_the_listening_port(autojump_clock: MockClock) -> None:
    """To learn how that is seen; and from another, should that be what fails."""
    world = World(refused={4001: "no", 5: "no"})
    world.paths.want(PEER, [address(), circuit(5)], observed=True)
    world.paths.want(RELAY, [address(who=RELAY)])
    await world.run(60)
    direct = [observed for _, one, observed in world.dials if one == address()]
    assert direct[:6] == [True, False, True, False, True, False]
    assert not any(observed for _, one, observed in world.dials if one != address())


# --- off the relay ------------------------------------------------------------------------------


def relayed_link(dialled: bool = True) -> LiveLink:
    wire = OnWay(Way(relayed=True, dialled=dialled))
    return LiveLink(
        PEER,
        "agent",
        Leg(wire, FrameDecoder(), "circuit", "relayed"),  # type: ignore[arg-type]
        Inbox(),
        bytes(16),
    )


def go_direct(live: LiveLink) -> None:
    live.move(Leg(OnWay(Way()), FrameDecoder(), "direct", "direct"))  # type: ignore[arg-type]


async def test_a_better_way_is_looked_for_ever_less_often(autojump_clock: MockClock) -> None:
    world = World(refused={7: "no"})
    world.outlooks[PEER] = Outlook((address(7),), "public")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 3600)
        await wait_all_tasks_blocked()
        live = relayed_link()
        began = trio.current_time()
        world.paths.watch(live)
        await trio.sleep(3599)
        assert [at - began for at in world.times][: len(IMPROVE_AFTER_S)] == pytest.approx(
            [sum(IMPROVE_AFTER_S[: tries + 1]) for tries in range(len(IMPROVE_AFTER_S))]
        )
        assert world.pauses()[len(IMPROVE_AFTER_S) :] == pytest.approx(
            [IMPROVE_LAST_S] * (len(world.dials) - len(IMPROVE_AFTER_S) - 1)
        )
        # Something has changed: it begins anew.
        before = len(world.dials)
        world.paths.hurry()
        await trio.sleep(0.01)
        assert len(world.dials) == before + 1
        live.gone.set()
        await trio.sleep(1000)
        assert len(world.dials) == before + 1


async def test_the_link_moves_to_an_address_that_answers(autojump_clock: MockClock) -> None:
    world = World(delays={7: 0.1})
    world.outlooks[PEER] = Outlook((address(6), circuit(5), address(7)), "public")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 600)
        await wait_all_tasks_blocked()
        live = relayed_link()
        world.paths.watch(live)
        await trio.sleep(1)
        assert live.why == "dialling its own addresses"
        assert [where for _, where in world.served] == [str(address(7))]
        go_direct(live)
        await trio.sleep(500)
        # No circuit was dialled for it, and nothing is looked for any more.
        assert world.ports == [6, 7]
        assert world.punches == []
        live.gone.set()


@pytest.mark.parametrize(
    ("own", "theirs", "dialled", "why"),
    [
        ("public", "open", True, "waiting for it to connect to this node, which is public"),
        ("public", "closed", False, "waiting for it to connect to this node, which is public"),
        ("open", "public", True, "its public address does not answer"),
        ("closed", "open", False, "this node's NAT gives each connection another port: no hole"),
        ("open", "closed", False, "its NAT gives each connection another port: no hole"),
        ("closed", "closed", True, "this node's NAT gives each connection another port"),
        ("open", "open", True, "waiting for it to punch a hole"),
        ("unknown", "unknown", True, "waiting for it to punch a hole"),
    ],
)
async def test_why_a_link_is_relayed_is_said_and_no_hole_tried_in_vain(
    autojump_clock: MockClock, own: str, theirs: str, dialled: bool, why: str
) -> None:
    world = World(nat=own)
    world.outlooks[PEER] = Outlook((), theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 100)
        await wait_all_tasks_blocked()
        live = relayed_link(dialled)
        world.paths.watch(live)
        await trio.sleep(90)
        assert live.why.startswith(why)
        assert live.link.why == live.why
        assert world.punches == []
        live.gone.set()


@pytest.mark.parametrize("fault", [
    CallError("no hole"), MeshError("no hole"), trio.BrokenResourceError("no hole"),
    OSError("no hole"), trio.TooSlowError(),
])  # fmt: skip
async def test_a_hole_that_cannot_be_punched_is_tried_again_later(
    autojump_clock: MockClock, fault: Exception
) -> None:
    world = World(nat="open")
    world.outlooks[PEER] = Outlook((), "open")

    async def fail(way: Way) -> Way:
        await trio.sleep(1)
        raise fault

    world.punch = fail
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 1000)
        await wait_all_tasks_blocked()
        live = relayed_link(dialled=False)
        world.paths.watch(live)
        await trio.sleep(0.5)
        assert live.why == "punching a hole"
        await trio.sleep(1)
        reason = "no hole" if str(fault) else "TooSlowError"
        assert live.why == f"no hole could be punched: {reason}"
        await trio.sleep(900)
        assert len(world.punches) == len(IMPROVE_AFTER_S) + 1
        live.gone.set()


async def test_a_hole_that_the_link_does_not_use_is_closed(autojump_clock: MockClock) -> None:
    world = World(nat="open")
    world.outlooks[PEER] = Outlook((), "open")
    holes: list[Way] = []

    async def punch(way: Way) -> Way:
        assert way.relayed
        holes.append(Way())
        return holes[-1]

    world.punch = punch
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 60)
        await wait_all_tasks_blocked()
        live = relayed_link(dialled=False)
        world.paths.watch(live)
        await trio.sleep(DIAL_LIMIT_S + 1)
        assert live.why == "a hole was punched, but the link did not move there"
        assert holes[0].closed
        await trio.sleep(2)
        # The second one is used.
        go_direct(live)
        await trio.sleep(20)
        assert [hole.closed for hole in holes] == [True, False]
        live.gone.set()


async def test_a_link_that_is_relayed_for_long_is_worth_a_line(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(nat="closed")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 5000)
        await wait_all_tasks_blocked()
        live = relayed_link()
        world.paths.watch(live)
        with caplog.at_level(logging.WARNING, paths.__name__):
            await trio.sleep(paths.WARN_RELAYED_S - 1)
            assert caplog.messages == []
            await trio.sleep(4000)
            (line,) = caplog.messages
            assert "relayed for long" in line
            assert "no hole can be punched" in line
        live.gone.set()


async def test_made_up_peers_do_not_keep_a_bootstrap_waiting(autojump_clock: MockClock) -> None:
    """All slots for dials are taken by peers that nobody answers for, and all places as well."""
    world = World(delays=dict.fromkeys(range(1, 2000), 1000.0))
    for number in range(limits.PEERS):
        made_up = PeerId(number.to_bytes(4, "big") * 8)
        world.paths.want(made_up, [Address("ip4", "192.0.2.9", number + 1, made_up)], 8)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 100)
        await trio.sleep(1)
        world.paths.want(PEER, [address(5000)])
        await trio.sleep(1)
        assert 5000 in world.ports


async def test_many_made_up_peers_do_not_flood_one_victim(autojump_clock: MockClock) -> None:
    """Each of them states twelve addresses of somebody who has nothing to do with it."""
    world = refusing()
    for number in range(1, limits.PEERS):
        victim = [Address("ip4", "198.51.100.9", 1000 + port, peer(number)) for port in range(12)]
        world.outlooks[peer(number)] = Outlook(tuple(victim), "public")
        world.paths.want(peer(number), (), HEARSAY_TRIES)
    await world.run(600)
    most = paths.PER_HOST_AT_ONCE + 600 * paths.PER_HOST_PER_S
    assert paths.PER_HOST_AT_ONCE <= len(world.dials) <= most


async def test_addresses_that_others_named_are_rationed_in_all(autojump_clock: MockClock) -> None:
    world = refusing()
    for number in range(1, limits.PEERS):
        spread = [
            Address("ip4", f"198.51.{number}.{host}", 4001, peer(number)) for host in range(1, 13)
        ]
        world.outlooks[peer(number)] = Outlook(tuple(spread), "public")
        world.paths.want(peer(number), (), HEARSAY_TRIES)
    # Who was named by the operator is dialled all the same.
    world.paths.want(PEER, [address(4001)])
    await world.run(60)
    named = [one for _, one, _ in world.dials if one.peer == PEER]
    others = len(world.dials) - len(named)
    assert len(named) >= 3
    assert 0 < others <= paths.HEARSAY_AT_ONCE + 61 * paths.HEARSAY_PER_S


async def test_who_was_given_displaces_who_was_only_heard_of(autojump_clock: MockClock) -> None:
    world = refusing()
    for number in range(1, limits.PEERS + 1):
        world.paths.want(peer(number), (), HEARSAY_TRIES)
    assert len(world.paths.targets()) == limits.PEERS
    given = peer(limits.PEERS + 5)
    world.paths.want(given, [address(who=given)], TRIES)
    assert given in {one.peer for one in world.paths.targets()}
    assert len(world.paths.targets()) == limits.PEERS
    heard = peer(limits.PEERS + 6)
    world.paths.want(heard, (), HEARSAY_TRIES)
    assert heard not in {one.peer for one in world.paths.targets()}
