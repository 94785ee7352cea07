"""A private node is reachable through two relays, whatever becomes of them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from node.mesh.address import Address, parse_address
from node.mesh.reservations import (
    AVOID_S,
    HELD,
    RENEW_S,
    RESERVE_LIMIT_S,
    Reservations,
)
from protocol.errors import CallError
from protocol.ids import PeerId
from tests.fakes.mesh import FakeMesh, FakeNetwork


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


class Way:
    """A connection to a relay."""

    def __init__(self) -> None:
        self.held = 0
        self._closed = trio.Event()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def cut(self) -> None:
        self._closed.set()

    def hold(self) -> None:
        self.held += 1

    def release(self) -> None:
        self.held -= 1

    async def wait_closed(self) -> None:
        await self._closed.wait()


@dataclass
class Site:
    """A node that looks for relays.

    Attributes:
        ways: the connections to relays, the nearest relay first.
        answers: what a relay says; those not named grant an hour.
        asked: who was asked for a reservation, and when.
    """

    wanted: bool = True
    ways: dict[int, Way] = field(default_factory=dict)
    answers: dict[int, float | Exception] = field(default_factory=dict)
    asked: list[tuple[float, int]] = field(default_factory=list)
    changes: int = 0
    looks: int = 0

    def __post_init__(self) -> None:
        self.reservations = Reservations(
            lambda: self.wanted,
            self._relays,  # type: ignore[arg-type]
            self._reserve,  # type: ignore[arg-type]
            self._changed,
            random.Random(1),
        )

    def meet(self, *numbers: int) -> None:
        """Links to relays come up."""
        for number in numbers:
            self.ways[number] = Way()
        self.reservations.look()

    def lose(self, number: int) -> None:
        """A relay goes away, and the link to it."""
        self.ways.pop(number).cut()

    @property
    def held(self) -> list[int]:
        return sorted(one[-1] for one in self.reservations.held)

    def _relays(self) -> list[tuple[PeerId, Way, Address]]:
        self.looks += 1
        assert self.looks < 10_000, "looks without end"
        return [
            (peer(number), way, Address("ip4", f"203.0.113.{number}", 4001, peer(number)))
            for number, way in self.ways.items()
        ]

    async def _reserve(self, way: Way) -> float:
        number = next(number for number, one in self.ways.items() if one is way)
        self.asked.append((trio.current_time(), number))
        await trio.sleep(0.1)
        answer = self.answers.get(number, 3600.0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _changed(self) -> None:
        self.changes += 1


@contextlib.asynccontextmanager
async def site(*numbers: int, wanted: bool = True) -> AsyncIterator[Site]:
    made = Site(wanted)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.reservations.run)
        made.meet(*numbers)
        await trio.sleep(1)
        yield made
        nursery.cancel_scope.cancel()
    assert {way.held for way in made.ways.values()} <= {0}
    assert made.held == []


async def test_two_are_held_at_the_nearest(autojump_clock: MockClock) -> None:
    async with site(1, 2, 3, 4) as here:
        assert here.held == [1, 2]
        assert len(here.held) == HELD
        assert sorted(number for _, number in here.asked) == [1, 2]
        assert [way.held for way in here.ways.values()] == [1, 1, 0, 0]
        assert here.changes == 2
        held = here.reservations.held[peer(1)]
        assert held.relay == peer(1)
        assert held.address.host == "203.0.113.1"
        assert trio.current_time() - held.since == pytest.approx(0.9, abs=0.01)


async def test_one_relay_is_better_than_none(autojump_clock: MockClock) -> None:
    async with site() as here:
        assert here.held == []
        here.meet(5)
        await trio.sleep(1)
        assert here.held == [5]
        here.meet(6)
        await trio.sleep(1)
        assert here.held == [5, 6]


async def test_they_are_renewed_in_time(autojump_clock: MockClock) -> None:
    async with site(1, 2) as here:
        here.answers[2] = 100.0
        await trio.sleep(3 * RENEW_S)
        at = {number: [when for when, who in here.asked if who == number] for number in (1, 2)}
        for number, most in ((1, RENEW_S), (2, 50.0)):
            pauses = [b - a for a, b in pairwise(at[number][1:])]
            assert pauses
            assert all(0.8 * most <= pause <= most + 0.2 for pause in pauses)
        # That is nothing new to anybody.
        assert here.changes == 2
        since = {one.since for one in here.reservations.held.values()}
        assert max(since) - min(since) < 0.01


async def test_a_relay_that_goes_is_replaced(autojump_clock: MockClock) -> None:
    async with site(1, 2, 3) as here:
        here.lose(1)
        await trio.sleep(1)
        assert here.held == [2, 3]
        assert here.changes == 4
        here.lose(2)
        here.lose(3)
        await trio.sleep(1)
        assert here.held == []
        # The same one comes back, and with it the reservation, which it has forgotten.
        here.meet(2)
        await trio.sleep(1)
        assert here.held == [2]
        assert here.asked[-1][1] == 2


async def test_a_closed_connection_is_not_asked_while_its_link_lingers(
    autojump_clock: MockClock,
) -> None:
    async with site(1, 2) as here:
        here.ways[1].cut()
        await trio.sleep(5)
        assert here.held == [2]
        assert len(here.asked) == 2
        here.meet(1)
        await trio.sleep(1)
        assert here.held == [1, 2]


async def test_a_relay_that_refuses_is_avoided_for_a_while(autojump_clock: MockClock) -> None:
    async with site() as here:
        here.answers[1] = CallError("RESERVATION_REFUSED")
        here.answers[2] = trio.BrokenResourceError("cut")
        here.meet(1, 2, 3)
        await trio.sleep(1)
        assert here.held == [3]
        assert here.reservations.errors == {peer(1): "RESERVATION_REFUSED", peer(2): "cut"}
        began = len(here.asked)
        # Whatever else happens, it is left alone.
        for _ in range(8):
            here.reservations.look()
            await trio.sleep(1)
        assert len(here.asked) == began
        del here.answers[1]
        await trio.sleep(AVOID_S)
        assert 1 in here.held
        assert len(here.held) == 2
        assert peer(1) not in here.reservations.errors


async def test_refusals_cost_little(autojump_clock: MockClock) -> None:
    async with site() as here:
        here.answers = {number: CallError("no") for number in (1, 2, 3)}
        here.meet(1, 2, 3)
        await trio.sleep(600)
        for number in (1, 2, 3):
            times = [when for when, who in here.asked if who == number]
            assert all(b - a >= AVOID_S for a, b in pairwise(times))
            # Nor is it given up.
            assert len(times) > 600 / (2 * AVOID_S)
        assert here.changes == 0


async def test_a_relay_that_does_not_answer_is_waited_for_no_longer(
    autojump_clock: MockClock,
) -> None:
    async with site() as here:

        async def never(way: Way) -> float:
            await trio.sleep_forever()
            return 0.0

        here.reservations._reserve = never  # type: ignore[assignment]
        here.meet(1)
        await trio.sleep(RESERVE_LIMIT_S + 1)
        assert here.held == []
        assert here.reservations.errors == {peer(1): "it did not answer in time"}
        assert here.ways[1].held == 0


async def test_a_relay_that_fails_to_renew_is_let_go(autojump_clock: MockClock) -> None:
    async with site(1, 2, 3) as here:
        here.answers[1] = CallError("no more")
        await trio.sleep(RENEW_S)
        assert here.held == [2, 3]
        assert here.reservations.errors[peer(1)] == "no more"


async def test_none_is_held_where_none_is_needed(autojump_clock: MockClock) -> None:
    async with site(1, 2, wanted=False) as here:
        assert here.asked == []
        here.wanted = True
        here.reservations.look()
        await trio.sleep(1)
        assert here.held == [1, 2]
        # Found out to be public: nothing is renewed.
        here.wanted = False
        here.reservations.look()
        asked = len(here.asked)
        await trio.sleep(RENEW_S + 1)
        assert here.held == []
        assert len(here.asked) == asked
        assert {way.held for way in here.ways.values()} == {0}


# --- on the network -----------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def swarm(count: int) -> AsyncIterator[tuple[FakeNetwork, list[FakeMesh], FakeMesh]]:
    """Public nodes that relay, and a private one."""
    network = FakeNetwork(latency_s=0.02)
    async with contextlib.AsyncExitStack() as stack:
        relays: list[FakeMesh] = []
        for number in range(count):
            relay = network.mesh(
                f"relay{number}",
                [address for one in relays for address in one.addresses()],
                host=f"203.0.113.{number + 1}",
                port=4001,
                public=True,
            )
            await stack.enter_async_context(relay.running())
            relays.append(relay)
        known = [address for relay in relays for address in relay.addresses()]
        private = network.mesh("private", known, host="10.1.0.2", port=4001, nat="rewriting")
        await stack.enter_async_context(private.running())
        await trio.sleep(5)
        yield network, relays, private


def circuits(mesh: FakeMesh) -> set[PeerId | None]:
    """The relays through which a mesh says that it is reached."""
    return {parse_address(text).relay for text in mesh.addresses()} - {None}


async def test_a_private_node_says_through_whom_it_is_reached(autojump_clock: MockClock) -> None:
    async with swarm(3) as (network, relays, private):
        assert len(circuits(private)) == HELD
        serving = [relay for relay in relays if relay.peer_id in circuits(private)]
        assert [relay.report().serving.reservations for relay in serving] == [1, 1]
        assert {held.relay for held in private.report().relays} == circuits(private)
        # Everybody has heard it, and a public node holds none.
        for relay in relays:
            presence = relay._membership.get(private.peer_id, relay._clock())
            assert presence is not None
            assert {parse_address(one).relay for one in presence.addresses} - {None} == circuits(
                private
            )
            assert relay.report().relays == ()
        # One is cut off: another takes its place, and that is told.
        network.partition([serving[0].peer_id])
        await trio.sleep(2)
        others = {relay.peer_id for relay in relays if relay is not serving[0]}
        assert circuits(private) == others
        presence = serving[1]._membership.get(private.peer_id, serving[1]._clock())
        assert presence is not None
        assert {parse_address(one).relay for one in presence.addresses} - {None} == others


async def test_reservations_outlive_a_restart_of_the_only_relay(autojump_clock: MockClock) -> None:
    network = FakeNetwork(latency_s=0.02)

    def relay() -> FakeMesh:
        return network.mesh("relay", host="203.0.113.1", port=4001, public=True)

    private = network.mesh(
        "private", relay().addresses(), host="10.1.0.2", port=4001, nat="symmetric"
    )
    async with private.running():
        for turn in range(3):
            serving = relay()
            async with serving.running():
                with trio.fail_after(60):
                    while not serving.reserved:  # noqa: ASYNC110
                        await trio.sleep(0.05)
                await trio.sleep(1)
                assert circuits(private) == {serving.peer_id}, turn
            await trio.sleep(1)
            assert circuits(private) == set()
