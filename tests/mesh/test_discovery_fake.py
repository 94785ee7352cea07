"""How a swarm forms, holds together and heals, in memory and virtual time."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable, Iterable

import pytest
import trio
from trio.testing import MockClock

from node.mesh.address import Address, parse_address
from node.mesh.base import MeshEvent, PeerDown, PeerUp
from node.mesh.paths import LAST_DELAY_S, TRIES
from node.mesh.reservations import RENEW_S
from protocol.envelope import KeySigner
from protocol.ids import PeerId
from protocol.presence import PRESENCE_S, Presence, state
from tests.fakes.mesh import FakeMesh, FakeNetwork
from tests.mesh.worlds import key_seed

PORT = 4001


class Swarm:
    """Meshes that come and go, each in a task of its own."""

    def __init__(self, network: FakeNetwork, tasks: trio.Nursery) -> None:
        self.network = network
        self.running: list[FakeMesh] = []
        self.events: dict[FakeMesh, list[tuple[float, MeshEvent]]] = {}
        self._tasks = tasks
        self._stops: dict[FakeMesh, trio.Event] = {}

    async def start(self, mesh: FakeMesh) -> FakeMesh:
        await self._tasks.start(self._run, mesh)
        return mesh

    async def add(
        self, name: str, number: int, bootstraps: Iterable[FakeMesh] = (), nat: str = ""
    ) -> FakeMesh:
        """A mesh at an address of its own."""
        known = [mesh.addresses()[0] for mesh in bootstraps]
        behind = nat not in ("", "firewall")
        host = f"10.{number}.0.2" if behind else f"203.0.113.{number}"
        return await self.start(self.network.mesh(name, known, port=PORT, host=host, nat=nat))

    async def stop(self, mesh: FakeMesh) -> None:
        """It leaves."""
        self._stops[mesh].set()
        with trio.fail_after(60):
            while mesh in self.running:  # noqa: ASYNC110
                await trio.sleep(0.01)

    def vanish(self, mesh: FakeMesh) -> None:
        """As if its plug was pulled: nobody hears from it any more."""
        self.network.partition([mesh.peer_id])
        self.running.remove(mesh)

    async def until(self, holds: Callable[[], bool], limit_s: float) -> float:
        """Seconds until something holds."""
        began = trio.current_time()
        with trio.fail_after(limit_s):
            while not holds():  # noqa: ASYNC110
                await trio.sleep(0.05)
        return trio.current_time() - began

    async def until_meshed(self, limit_s: float) -> float:
        """Seconds until each is linked to every other and to nobody else."""
        everyone = sorted(mesh.peer_id for mesh in self.running)
        return await self.until(
            lambda: all(linked(mesh) == everyone for mesh in self.running), limit_s
        )

    async def _run(self, mesh: FakeMesh, task_status: trio.TaskStatus[None]) -> None:
        stop = self._stops[mesh] = trio.Event()
        log = self.events[mesh] = []

        async def listen() -> None:
            while True:
                event = await mesh.next_event()
                log.append((trio.current_time(), event))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            async with mesh.running():
                self.running.append(mesh)
                task_status.started()
                await stop.wait()
            nursery.cancel_scope.cancel()
        self.running.remove(mesh)


def linked(mesh: FakeMesh) -> list[PeerId]:
    return sorted([mesh.peer_id, *(live.peer for live in mesh._table.live())])


def known(mesh: FakeMesh) -> set[PeerId]:
    return set(mesh._membership.present(mesh._clock()))


@contextlib.asynccontextmanager
async def swarm(latency_s: float = 0.02) -> AsyncIterator[Swarm]:
    async with trio.open_nursery() as tasks:
        yield Swarm(FakeNetwork(latency_s=latency_s), tasks)
        tasks.cancel_scope.cancel()


async def test_thirty_nodes_meet_through_one_bootstrap_and_outlive_it(
    autojump_clock: MockClock,
) -> None:
    async with swarm() as here:
        hub = await here.add("hub", 1)
        nodes = [await here.add(f"node {number}", number, [hub]) for number in range(2, 31)]
        assert await here.until_meshed(20) < 3
        assert all(len(known(mesh)) == 29 for mesh in here.running)
        # Nobody took the arrival of many for a merger.
        assert {mesh.report().merges for mesh in here.running} == {0}

        # The bootstrap dies without a word; nobody minds.
        here.vanish(hub)
        await trio.sleep(60)
        assert await here.until_meshed(1) < 0.1

        # Newcomers come in through any other.
        late = [
            await here.add(f"late {number}", 100 + number, [nodes[number]]) for number in (3, 4)
        ]
        assert await here.until_meshed(20) < 3

        # One is restarted: the same key, another run.
        before = nodes[7]._membership.get(late[0].peer_id, nodes[7]._clock())
        await here.stop(nodes[6])
        await here.until(lambda: all(nodes[6].peer_id not in known(m) for m in here.running), 2)
        again = await here.add("node 8", 8, [nodes[20]])
        assert again.peer_id == nodes[6].peer_id
        assert await here.until_meshed(20) < 3
        await trio.sleep(1)
        for mesh in here.running:
            if mesh is not again:
                about = [
                    event
                    for at, event in here.events[mesh]
                    if isinstance(event, PeerUp) and event.link.peer == again.peer_id
                ]
                assert len(about) == 2
                presence = mesh._membership.get(again.peer_id, mesh._clock())
                assert presence is not None
                assert before is not None
                assert presence.incarnation > before.incarnation


async def test_the_first_bootstrap_that_lives_is_enough(autojump_clock: MockClock) -> None:
    async with swarm() as here:
        hubs = [await here.add(f"hub {number}", number) for number in (1, 2, 3)]
        here.network.partition([hubs[0].peer_id], [hubs[1].peer_id])
        node = await here.add("node", 4, hubs)
        took = await here.until(lambda: hubs[2].peer_id in linked(node), 20)
        assert took < 0.5
        dialled = {one.peer: one for one in node.report().dialled}
        assert all(one.bootstrap for one in dialled.values())
        assert dialled[hubs[2].peer_id].linked
        await trio.sleep(30)
        dialled = {one.peer: one for one in node.report().dialled}
        for hub in hubs[:2]:
            assert dialled[hub.peer_id].failures > 0
            where = parse_address(hub.addresses()[0]).bare()
            assert dialled[hub.peer_id].error.startswith(f"{where}: nothing answers there in time")


async def test_two_swarms_that_one_node_joins_are_one(autojump_clock: MockClock) -> None:
    async with swarm() as here:
        left_hub, right_hub = await here.add("left", 1), await here.add("right", 2)
        for number in range(3, 7):
            await here.add(f"left {number}", number, [left_hub])
            await here.add(f"right {number}", 10 + number, [right_hub])
        await trio.sleep(100)
        assert {len(linked(mesh)) for mesh in here.running} == {5}
        left_hub.dial(right_hub.addresses()[0])
        assert await here.until_meshed(20) < 3
        assert left_hub.report().merges >= 1
        assert right_hub.report().merges >= 1


async def test_a_partition_of_an_hour_heals(autojump_clock: MockClock) -> None:
    """Longer than statements last, and than those beyond it are dialled."""
    async with swarm() as here:
        hub = await here.add("hub", 1)
        nodes = [await here.add(f"node {number}", number, [hub]) for number in range(2, 8)]
        await here.until_meshed(20)
        away = nodes[3:]
        here.network.partition([mesh.peer_id for mesh in away])
        await trio.sleep(3600)
        for mesh in away:
            assert linked(mesh) == sorted(one.peer_id for one in away)
            assert known(mesh) == {one.peer_id for one in away} - {mesh.peer_id}
        here.network.heal()
        # The bootstrap is dialled for ever, if seldom, and brings all the others along.
        assert await here.until_meshed(120) < 1.5 * LAST_DELAY_S + 15
        assert sum(mesh.report().merges for mesh in here.running) > 0


async def test_who_has_left_is_no_ghost(autojump_clock: MockClock) -> None:
    async with swarm() as here:
        hub = await here.add("hub", 1)
        nodes = [await here.add(f"node {number}", number, [hub]) for number in range(2, 7)]
        await here.until_meshed(20)
        gone = nodes.pop()
        await here.stop(gone)
        await trio.sleep(1)
        assert all(gone.peer_id not in known(mesh) for mesh in here.running)
        assert {mesh.report().members for mesh in here.running} == {5 - 1}
        # Nor is it dialled for long.
        await trio.sleep(TRIES * 1.5 * LAST_DELAY_S)
        for mesh in here.running:
            assert gone.peer_id not in {one.peer for one in mesh.report().dialled}
        # A newcomer does not hear of it.
        late = await here.add("late", 100, [nodes[0]])
        await here.until_meshed(20)
        assert gone.peer_id not in known(late)
        for mesh in here.running:
            down = [
                event
                for _, event in here.events[mesh]
                if isinstance(event, PeerDown) and event.peer == gone.peer_id
            ]
            assert len(down) == (0 if mesh is late else 1)


async def test_who_vanished_is_forgotten_in_time(autojump_clock: MockClock) -> None:
    async with swarm() as here:
        hub = await here.add("hub", 1)
        nodes = [await here.add(f"node {number}", number, [hub]) for number in range(2, 6)]
        await here.until_meshed(20)
        await trio.sleep(1000)
        here.vanish(nodes[0])
        # A newcomer hears of it by hearsay, which keeps nobody alive.
        await trio.sleep(10)
        late = await here.add("late", 100, [nodes[1]])
        await trio.sleep(5)
        assert nodes[0].peer_id in known(late)
        await trio.sleep(PRESENCE_S)
        for mesh in here.running:
            assert nodes[0].peer_id not in known(mesh)
        await trio.sleep(1000)
        for mesh in here.running:
            assert nodes[0].peer_id not in known(mesh)
            assert nodes[0].peer_id not in {one.peer for one in mesh.report().dialled}
        await here.until_meshed(1)


async def test_a_new_way_to_a_peer_is_tried_as_soon_as_it_is_known(
    autojump_clock: MockClock,
) -> None:
    async with swarm() as here:
        node, other = await here.add("node", 1), await here.add("other", 2)
        silent = state(
            KeySigner(key_seed("other")),
            Presence("test", 1, 0, int(node._clock()), (), False, "closed"),
        )
        assert silent.peer == other.peer_id
        node.hear([silent.envelope], None)
        await trio.sleep(60)
        assert len(node.links()) == 1
        node.hear([other.own_statement().envelope], None)
        assert await here.until_meshed(20) < 1


async def test_nodes_behind_nats_are_a_part_of_the_swarm(autojump_clock: MockClock) -> None:
    network = FakeNetwork(latency_s=0.02)
    async with trio.open_nursery() as tasks:
        here = Swarm(network, tasks)
        hubs: list[FakeMesh] = []
        for number in (1, 2, 3):
            bootstraps = [one.addresses()[0] for one in hubs]
            host = f"203.0.113.{number}"
            mesh = network.mesh(f"hub {number}", bootstraps, port=PORT, host=host, public=True)
            hubs.append(await here.start(mesh))
        kinds = ("preserving", "rewriting", "symmetric", "firewall", "symmetric", "rewriting")
        nodes = [
            await here.add(kind + str(number), number, hubs, nat=kind)
            for number, kind in enumerate(kinds, 10)
        ]
        assert await here.until_meshed(60) < 15
        await trio.sleep(120)
        paths = {
            (one.nat, other.nat): link.path
            for one in nodes
            for other in nodes
            for link in one.links()
            if link.peer == other.peer_id and one is not other
        }
        for (one_nat, other_nat), path in paths.items():
            closed = "symmetric" in (one_nat, other_nat)
            assert path == ("relayed" if closed else "direct"), (one_nat, other_nat)
        # Whoever is relayed says why.
        for mesh in nodes:
            for link in mesh.links():
                assert bool(link.why) == (link.path == "relayed")
                assert (link.direct_s is None) == (link.path == "relayed")
                assert link.rtt_s is not None or link.path == "self"
        tasks.cancel_scope.cancel()


# --- laptops ------------------------------------------------------------------------------------


def carry(network: FakeNetwork, mesh: FakeMesh, host: str, keep: tuple[str, ...] = ()) -> None:
    """The machine of ``mesh`` gets another address, and notices."""
    network.unlisten(mesh.bound()[0])
    mesh._bound = (network.listen(mesh, Address("ip4", host, PORT)),)
    now = (ipaddress.ip_interface(f"{one}/16") for one in (host, *keep))
    mesh.network_changed(frozenset(now))


async def test_a_laptop_that_moves_is_linked_again_from_its_new_address(
    autojump_clock: MockClock,
) -> None:
    async with swarm() as here:
        hub = await here.add("hub", 1)
        nodes = [await here.add(f"node {number}", number, [hub]) for number in (2, 3)]
        laptop = await here.add("laptop", 50, [hub])
        await here.until_meshed(20)
        await trio.sleep(60)
        assert {str(one) for one in laptop.reach().observed} == {"/ip4/203.0.113.50/tcp/4001"}
        began = trio.current_time()
        carry(here.network, laptop, "203.0.113.60")
        assert laptop.reach().observers == 0
        await trio.sleep(0.01)
        assert linked(laptop) == [laptop.peer_id]
        assert await here.until_meshed(20) < 3
        fresh = [event for at, event in here.events[laptop] if at >= began]
        downs = [event for event in fresh if isinstance(event, PeerDown)]
        assert {event.reason for event in downs} == {"the address that it used is gone"}
        assert len(downs) == len(here.running) - 1
        # The others learn where it is now, and it how it is seen there.
        await trio.sleep(2)
        for mesh in (hub, *nodes):
            presence = mesh._membership.get(laptop.peer_id, mesh._clock())
            assert presence is not None
            stated = [parse_address(one) for one in presence.addresses]
            assert [one.host for one in stated if one.relay is None] == ["203.0.113.60"]
        await trio.sleep(40)
        assert {one.host for one in laptop.reach().observed} == {"203.0.113.60"}
        assert laptop.reach().nat == "public"


async def test_a_further_address_ends_no_link_and_is_told(autojump_clock: MockClock) -> None:
    async with swarm() as here:
        hub = await here.add("hub", 1)
        node = await here.add("node", 2, [hub])
        laptop = await here.add("laptop", 50, [hub])
        await here.until_meshed(20)
        await trio.sleep(60)
        began = trio.current_time()
        carry(here.network, laptop, "203.0.113.60", keep=("203.0.113.50",))
        await trio.sleep(5)
        for mesh in here.running:
            assert not [e for at, e in here.events[mesh] if at >= began and isinstance(e, PeerDown)]
        # Long before the statement would have been made anew.
        for mesh in (hub, node):
            presence = mesh._membership.get(laptop.peer_id, mesh._clock())
            assert presence is not None
            assert "203.0.113.60" in {parse_address(one).host for one in presence.addresses}


async def test_a_laptop_that_comes_behind_a_nat_is_reached_there(
    autojump_clock: MockClock,
) -> None:
    """From the office, where it is public, to a home with a NAT, and back."""
    network = FakeNetwork(latency_s=0.02)
    async with trio.open_nursery() as tasks:
        here = Swarm(network, tasks)
        hubs: list[FakeMesh] = []
        for number in (1, 2, 3):
            bootstraps = [one.addresses()[0] for one in hubs]
            host = f"203.0.113.{number}"
            mesh = network.mesh(f"hub {number}", bootstraps, port=PORT, host=host, public=True)
            hubs.append(await here.start(mesh))
        other = await here.add("other", 10, hubs, nat="rewriting")
        laptop = await here.add("laptop", 50, hubs)
        await here.until_meshed(20)
        await trio.sleep(60)
        assert laptop.reach().nat == "public"
        for nat, host, expected in (
            ("rewriting", "10.7.0.2", "open"),
            ("symmetric", "10.8.0.2", "closed"),
            ("", "203.0.113.50", "public"),
        ):
            laptop.nat = nat
            carry(network, laptop, host)
            await here.until(lambda nat=expected: laptop.reach().nat == nat, 120)
            path = "relayed" if expected == "closed" else "direct"
            await here.until(
                lambda path=path: any(
                    one.peer == other.peer_id and one.path == path for one in laptop.links()
                ),
                120,
            )
            await here.until_meshed(60)
            if expected != "public":
                assert laptop.report().relays
            await trio.sleep(1)
            assert laptop.report().serving.open == (expected == "public")
        # What is not needed any more is not renewed.
        await trio.sleep(RENEW_S)
        assert laptop.report().relays == ()
        tasks.cancel_scope.cancel()


# --- the report ---------------------------------------------------------------------------------


async def test_the_report_says_how_things_are(autojump_clock: MockClock) -> None:
    async with swarm() as here:
        hub = await here.add("hub", 1)
        node = await here.add("node", 2, [hub])
        await here.until_meshed(20)
        await trio.sleep(40)
        report = node.report()
        assert report.listening == ("/ip4/203.0.113.2/tcp/4001",)
        assert report.addresses == node.addresses()
        assert [link.peer for link in report.links] == [hub.peer_id]
        (dialled,) = report.dialled
        assert (dialled.peer, dialled.bootstrap, dialled.linked) == (hub.peer_id, True, True)
        assert dialled.addresses == hub.addresses()
        assert dialled.failures == 0
        assert report.members == 1
        assert report.relays == ()
        assert report.skews.keys() == {hub.peer_id}
        assert report.skews[hub.peer_id] == pytest.approx(0, abs=0.05)
        assert not report.private
        assert report.merges == 0
        assert report.reach.mapping == "none"
        (back,) = hub.report().dialled
        assert (back.peer, back.bootstrap, back.linked) == (node.peer_id, False, True)
