"""How peers behind NATs come to each other, under a virtual clock: relayed at first, then as well
as physics allows."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.mesh.address import parse_address
from node.mesh.base import Link, PathChanged, PeerDown, PeerUp, Received
from node.mesh.wire import Carrier
from protocol.ids import PeerId
from tests.fakes.mesh import FakeMesh, FakeNetwork

KINDS = ("", "firewall", "preserving", "rewriting", "symmetric")
RELAYS = 3
PATIENCE_S = 120.0


def site(network: FakeNetwork, name: str, kind: str, number: int, hubs: list[str]) -> FakeMesh:
    """A mesh behind a NAT of that kind, or on the public internet."""
    behind = kind not in ("", "firewall")
    host = f"10.{number}.0.2" if behind else f"203.0.113.{10 + number}"
    return network.mesh(name, hubs, host=host, nat=kind, port=4001)


@contextlib.asynccontextmanager
async def hubs(network: FakeNetwork, count: int = RELAYS) -> AsyncIterator[list[FakeMesh]]:
    """Public nodes that know each other."""
    async with contextlib.AsyncExitStack() as stack:
        made: list[FakeMesh] = []
        for number in range(count):
            known = [address for hub in made for address in hub.addresses()]
            hub = network.mesh(
                f"hub{number}", known, host=f"203.0.113.{number + 1}", port=4001, public=True
            )
            await stack.enter_async_context(hub.running())
            made.append(hub)
        yield made


def link(mesh: FakeMesh, other: FakeMesh) -> Link | None:
    return next((one for one in mesh.links() if one.peer == other.peer_id), None)


async def until_path(mesh: FakeMesh, other: FakeMesh, path: str) -> Link:
    with trio.fail_after(PATIENCE_S):
        while (found := link(mesh, other)) is None or found.path != path:  # noqa: ASYNC110
            await trio.sleep(0.05)
    return found


@pytest.mark.parametrize("one", KINDS)
@pytest.mark.parametrize("other", KINDS)
async def test_every_pair_of_nats_is_linked_as_well_as_it_can_be(
    autojump_clock: MockClock, one: str, other: str
) -> None:
    network = FakeNetwork(latency_s=0.025)
    async with hubs(network) as relays:
        known = [address for hub in relays for address in hub.addresses()]
        first = site(network, "first", one, 1, known)
        second = site(network, "second", other, 2, known)
        async with first.running(), second.running():
            possible = "" in (one, other) or "symmetric" not in (one, other)
            expected = "direct" if possible else "relayed"
            found = await until_path(first, second, expected)
            await until_path(second, first, expected)
            await trio.sleep(60)
            assert link(first, second).path == expected  # type: ignore[union-attr]
            if expected == "relayed":
                assert "p2p-circuit" in found.address
                assert "no hole can be punched" in link(first, second).why  # type: ignore[union-attr]
            first.send(second.peer_id, b"there")
            second.send(first.peer_id, b"back")
            for mesh, peer, payload in ((second, first, b"there"), (first, second, b"back")):
                while True:
                    event = await mesh.next_event()
                    if isinstance(event, Received) and event.peer == peer.peer_id:
                        assert event.payload == payload
                        break
            assert first.reach().nat == {"": "public", "symmetric": "closed"}.get(one, "open")


OPEN = ("firewall", "preserving", "rewriting")


@pytest.mark.parametrize("one", OPEN)
@pytest.mark.parametrize("other", OPEN)
async def test_nothing_is_lost_on_the_way_from_the_relay_to_the_hole(
    autojump_clock: MockClock, one: str, other: str
) -> None:
    """Both speak from the first moment, and call each other as well."""
    count = 300
    network = FakeNetwork(latency_s=0.025)
    async with hubs(network) as relays:
        known = [address for hub in relays for address in hub.addresses()]
        first = site(network, "first", one, 1, known)
        second = site(network, "second", other, 2, known)
        heard: dict[FakeMesh, list[bytes]] = {first: [], second: []}
        told: dict[FakeMesh, list[str]] = {first: [], second: []}

        async def listen(mesh: FakeMesh, peer: FakeMesh) -> None:
            while True:
                event = await mesh.next_event()
                if isinstance(event, Received) and event.peer == peer.peer_id:
                    heard[mesh].append(event.payload)
                elif isinstance(event, PeerUp | PathChanged) and event.link.peer == peer.peer_id:
                    told[mesh].append(event.link.path)
                elif isinstance(event, PeerDown) and event.peer == peer.peer_id:
                    told[mesh].append("down")

        async def speak(mesh: FakeMesh, peer: FakeMesh) -> None:
            while link(mesh, peer) is None:  # noqa: ASYNC110
                await trio.sleep(0.01)
            for number in range(count):
                mesh.send(peer.peer_id, number.to_bytes(4, "big") + bytes(number % 50 * 100))
                await trio.sleep(0.01)

        async def ask(mesh: FakeMesh, peer: FakeMesh) -> None:
            while link(mesh, peer) is None:  # noqa: ASYNC110
                await trio.sleep(0.01)
            for number in range(60):
                assert await mesh.call(peer.peer_id, "echo", bytes([number]), 10) == bytes([number])

        async def echo(peer: PeerId, body: bytes) -> bytes:
            await trio.sleep(0.02)
            return body

        async with first.running(), second.running(), trio.open_nursery() as tasks:
            async with trio.open_nursery() as nursery:
                for mesh, peer in ((first, second), (second, first)):
                    mesh.answer("echo", echo)
                    tasks.start_soon(listen, mesh, peer)
                    nursery.start_soon(speak, mesh, peer)
                    nursery.start_soon(ask, mesh, peer)
            await trio.sleep(5)
            for mesh, peer in ((first, second), (second, first)):
                assert told[mesh] == ["relayed", "direct"]
                numbers = [int.from_bytes(payload[:4], "big") for payload in heard[mesh]]
                assert numbers == list(range(count))
                assert 0 < link(mesh, peer).direct_s < 3  # type: ignore[union-attr,operator]
            tasks.cancel_scope.cancel()


async def test_a_symmetric_nat_goes_to_the_relay_at_once(autojump_clock: MockClock) -> None:
    """No time is spent on holes that cannot be."""
    network = FakeNetwork(latency_s=0.025)
    async with hubs(network) as relays:
        known = [address for hub in relays for address in hub.addresses()]
        first = site(network, "first", "symmetric", 1, known)
        second = site(network, "second", "rewriting", 2, known)
        punched: list[Carrier] = []
        async with first.running():
            await trio.sleep(5)
            async with second.running():
                began = trio.current_time()
                for mesh in (first, second):
                    real = mesh._punch

                    async def punch(carrier: Carrier, real: Any = real) -> Carrier:
                        punched.append(carrier)
                        return await real(carrier)

                    mesh._paths._punch = punch
                await until_path(first, second, "relayed")
                assert trio.current_time() - began < 2
                await trio.sleep(1000)
                assert link(first, second).path == "relayed"  # type: ignore[union-attr]
                # Until its kind is known, which takes two observers, one may be tried.
                assert len(punched) <= 1


async def test_a_relay_that_dies_is_replaced_under_the_link(autojump_clock: MockClock) -> None:
    network = FakeNetwork(latency_s=0.025)
    async with hubs(network, 4) as relays:
        known = [address for hub in relays for address in hub.addresses()]
        first = site(network, "first", "symmetric", 1, known)
        second = site(network, "second", "symmetric", 2, known)
        async with first.running(), second.running():
            gone: list[PeerId] = []
            for _ in range(2):
                found = await until_path(first, second, "relayed")
                await until_path(second, first, "relayed")
                relay = parse_address(found.address).relay
                assert relay not in gone
                assert relay is not None
                gone.append(relay)
                network.partition(gone)
                # What goes through a relay ends with it.
                network.drop(first.peer_id, second.peer_id)
                began = trio.current_time()
                await trio.sleep(0.1)
                await until_path(first, second, "relayed")
                assert trio.current_time() - began < 30
