"""The faults that the fake mesh can make, and that it makes the same ones every time."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from node.mesh.base import MeshEvent, PeerDown, PeerUp, Received
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
            assert len(one.links()) == 2


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

            async def speak(mesh: FakeMesh) -> None:
                async with mesh.running():
                    await until(mesh, PeerUp)
                    await trio.sleep_until(start + 10)
                    for number in range(5):
                        mesh.send(hub.peer_id, f"{mesh.links()[0].agent} {number}".encode())
                    await trio.sleep_until(start + 20)

            start = trio.current_time()
            for number in range(8):
                nursery.start_soon(speak, network.mesh(f"node {number}", hub.addresses()))
            while len(heard) < 40:
                event: MeshEvent = await hub.next_event()
                if isinstance(event, Received):
                    heard.append((round(trio.current_time() - start, 9), event.payload))
        return heard

    first = await story(1)
    assert first == await story(1)
    assert [payload for _, payload in first] != [payload for _, payload in await story(2)]
