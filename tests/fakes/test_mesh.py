"""The faults that the fake mesh can make, and that it makes the same ones every time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from node.mesh.address import Address
from node.mesh.base import MeshEvent, PeerDown, PeerUp, Received
from protocol.ids import PeerId
from tests.fakes.mesh import FakeMesh, FakeNetwork
from tests.mesh.worlds import until


async def test_a_dropped_link_comes_back(autojump_clock: MockClock) -> None:
    network = FakeNetwork()
    one = network.mesh("one")
    async with one.running():
        other = network.mesh("other", one.addresses())
        async with other.running():
            await until(one, PeerUp)
            network.drop(one.peer_id, other.peer_id)
            await until(one, PeerDown)
            await until(one, PeerUp)


async def test_a_partition_lasts_until_it_heals(autojump_clock: MockClock) -> None:
    network = FakeNetwork()
    hub = network.mesh("hub")
    async with hub.running():
        one, other = (network.mesh(name, hub.addresses()) for name in ("one", "other"))
        async with one.running(), other.running():
            for mesh in (one, other):
                await until(mesh, PeerUp)
            network.partition([one.peer_id])
            await until(one, PeerDown)
            await trio.sleep(300)
            assert [link.peer for link in one.links()] == [one.peer_id]
            assert len(other.links()) == 2
            network.heal()
            # The backoff has grown to half a minute by now.
            await trio.sleep(60)
            # All three have heard of each other.
            assert len(one.links()) == len(other.links()) == len(hub.links()) == 3


async def test_a_delay_delays(autojump_clock: MockClock) -> None:
    network = FakeNetwork()
    one = network.mesh("one")
    async with one.running():
        other = network.mesh("other", one.addresses())
        async with other.running():
            await until(other, PeerUp)
            network.delay(one.peer_id, other.peer_id, 5.0)
            sent_at = trio.current_time()
            other.send(one.peer_id, b"late")
            await until(one, Received)
            assert 5.0 < trio.current_time() - sent_at < 5.1


async def test_a_corrupted_payload_is_another_payload(autojump_clock: MockClock) -> None:
    network = FakeNetwork()
    one = network.mesh("one")
    async with one.running():
        other = network.mesh("other", one.addresses())
        async with other.running():
            await until(other, PeerUp)
            network.corrupt(other.peer_id, one.peer_id, lambda payload: payload[::-1])
            other.send(one.peer_id, b"abc")
            network.corrupt(other.peer_id, one.peer_id, None)
            other.send(one.peer_id, b"abc")
            assert (await until(one, Received)).payload == b"cba"
            assert (await until(one, Received)).payload == b"abc"


async def test_the_same_seed_gives_the_same_order(autojump_clock: MockClock) -> None:
    async def story(seed: int) -> list[tuple[float, bytes]]:
        network = FakeNetwork(seed, latency_s=0.05)
        hub = network.mesh("hub")
        heard: list[tuple[float, bytes]] = []
        async with hub.running(), trio.open_nursery() as nursery:

            async def speak(name: str) -> None:
                mesh = network.mesh(name, hub.addresses())
                async with mesh.running():
                    await until(mesh, PeerUp)
                    await trio.sleep_until(start + 10)
                    for number in range(5):
                        mesh.send(hub.peer_id, f"{name} {number}".encode())
                    await trio.sleep_until(start + 20)

            start = trio.current_time()
            for number in range(8):
                nursery.start_soon(speak, f"node {number}")
            while len(heard) < 40:
                event: MeshEvent = await hub.next_event()
                if isinstance(event, Received):
                    heard.append((round(trio.current_time() - start, 9), event.payload))
        return heard

    first = await story(1)
    assert first == await story(1)
    assert [payload for _, payload in first] != [payload for _, payload in await story(2)]


def test_a_story_with_faults_is_the_same_every_time() -> None:
    """Whatever order the event loop runs tasks in that are ready at the same moment."""

    def story(seed: int, loop_seed: int) -> list[tuple[float, str, str, str]]:
        log: list[tuple[float, str, str, str]] = []
        names: dict[PeerId, str] = {}
        network = FakeNetwork(seed, latency_s=0.05)

        async def live(mesh: FakeMesh, name: str) -> None:
            names[mesh.peer_id] = name
            async with mesh.running():
                while True:
                    event = await mesh.next_event()
                    peer = event.link.peer if isinstance(event, PeerUp) else event.peer
                    entry = (type(event).__name__, names[peer])
                    log.append((round(trio.current_time(), 9), name, *entry))

        async def main() -> None:
            hub = network.mesh("hub")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(live, hub, "hub")
                await trio.sleep(0.001)
                for number in range(5):
                    name = f"node {number}"
                    nursery.start_soon(live, network.mesh(name, hub.addresses()), name)
                    await trio.sleep(0.001)
                await trio.sleep(100)
                network.partition([hub.peer_id])
                await trio.sleep(100)
                network.heal()
                await trio.sleep(100)
                nursery.cancel_scope.cancel()

        trio._core._run._r.seed(loop_seed)  # type: ignore[attr-defined]
        trio.run(main, clock=MockClock(autojump_threshold=0))
        # What happens at one moment happens in any order.
        return sorted(log)

    first = story(1, 1)
    assert sum(kind == "PeerDown" for _, _, kind, _ in first) == 10
    assert first == story(1, 2) == story(1, 3)
    assert first != story(2, 1)


@pytest.mark.parametrize(
    ("nat", "listening", "other_port"),
    [
        ("", "/ip4/203.0.113.7/tcp/4001", "/ip4/203.0.113.7/tcp/54001"),
        ("firewall", "/ip4/203.0.113.7/tcp/4001", "/ip4/203.0.113.7/tcp/54001"),
        ("preserving", "/ip4/198.51.100.7/tcp/4001", "/ip4/198.51.100.7/tcp/54001"),
        ("rewriting", "/ip4/198.51.100.7/tcp/4002", "/ip4/198.51.100.7/tcp/54001"),
    ],
)
def test_how_a_nat_shows_a_mesh(nat: str, listening: str, other_port: str) -> None:
    host = "203.0.113.7" if nat in ("", "firewall") else "10.7.0.2"
    mesh = FakeNetwork().mesh("one", host=host, port=4001, nat=nat)
    for target in (Address("ip4", "203.0.113.1", 1), Address("ip4", "203.0.113.2", 1)):
        assert str(mesh.outside(target, observed=True)) == listening
        assert str(mesh.outside(target, observed=False)) == other_port


def test_a_symmetric_nat_shows_each_target_another_port() -> None:
    mesh = FakeNetwork().mesh("one", host="10.7.0.2", port=4001, nat="symmetric")
    targets = [Address("ip4", "203.0.113.1", port) for port in range(1, 20)]
    seen = {mesh.outside(target, observed=True) for target in targets}
    assert len(seen) > 15
    assert {one.host for one in seen} == {"198.51.100.7"}
    assert mesh.outside(targets[0], True) == mesh.outside(targets[0], True)


async def test_behind_a_nat_nobody_is_reached(autojump_clock: MockClock) -> None:
    network = FakeNetwork()
    hidden = network.mesh("hidden", host="203.0.113.1", port=4001, nat="firewall")
    async with hidden.running():
        other = network.mesh("other", hidden.addresses(), host="203.0.113.2", port=4001)
        async with other.running():
            await trio.sleep(60)
            assert len(other.links()) == 1
            # The other way round it goes.
            hidden.dial(other.addresses()[0])
            assert (await until(other, PeerUp)).link.peer == hidden.peer_id


async def test_a_network_card_of_this_machine_has_no_part_in_it() -> None:
    mesh = FakeNetwork().mesh("one", host="10.7.0.2", port=4001)
    assert {str(one) for one in mesh._standing.interfaces} == {"10.7.0.2/16"}
