"""What every mesh does, tested on the fake and on libp2p alike."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
import trio

from node.mesh.base import PeerDown, PeerUp, Received, Refused
from protocol import limits
from protocol.errors import (
    BackpressureError,
    ConfigError,
    ListenError,
    TooLargeError,
    UnreachableError,
)
from protocol.ids import PeerId
from tests.mesh.worlds import LIMIT_S, World, until


async def test_both_ends_see_each_other(world: World) -> None:
    one, other = world.mesh("one"), None
    async with one.running():
        other = world.mesh("other", one.addresses())
        async with other.running():
            seen_by_one = (await until(one, PeerUp)).link
            seen_by_other = (await until(other, PeerUp)).link
            assert seen_by_one.peer == other.peer_id
            assert seen_by_other.peer == one.peer_id
            assert seen_by_other.address == one.addresses()[0]
            assert seen_by_one.path == seen_by_other.path == "direct"
            assert seen_by_one.agent.endswith("/other")
            assert [link.peer for link in one.links()] == sorted((one.peer_id, other.peer_id))
            assert {link.path for link in one.links()} == {"self", "direct"}


async def test_who_is_there_is_known_until_it_leaves(world: World) -> None:
    one = world.mesh("one")
    async with one.running():
        assert one.present() == {}, "oneself apart"
        other = world.mesh("other", one.addresses())
        async with other.running():
            await until(one, PeerUp)
            with trio.fail_after(LIMIT_S):
                while not (one.present() and other.present()):  # noqa: ASYNC110
                    await trio.sleep(0.01)
            assert one.present().keys() == {other.peer_id}
            assert one.present()[other.peer_id].addresses == other.addresses()
            assert other.present().keys() == {one.peer_id}
        await until(one, PeerDown)
        assert one.present() == {}


async def test_payloads_arrive_whole_and_in_order(world: World) -> None:
    async with world.pair() as (one, other):
        payloads = [b"", b"x", *(bytes([n]) * n for n in range(100))]
        for payload in payloads:
            one.send(other.peer_id, payload)
        got = [await until(other, Received) for _ in payloads]
        assert [event.payload for event in got] == payloads
        assert {event.peer for event in got} == {one.peer_id}


@pytest.mark.parametrize("size", [64 << 10, 900 << 10, limits.FRAME_BYTES])
async def test_large_payloads_go_both_ways_at_once(world: World, size: int) -> None:
    rng = random.Random(size)
    async with world.pair() as (one, other):
        there, back = rng.randbytes(size), rng.randbytes(size)
        one.send(other.peer_id, there)
        other.send(one.peer_id, back)
        assert (await until(other, Received)).payload == there
        assert (await until(one, Received)).payload == back


async def test_what_one_sends_to_oneself_comes_back(world: World) -> None:
    mesh = world.mesh("one")
    async with mesh.running():
        mesh.send(mesh.peer_id, b"hello")
        assert await mesh.next_event() == Received(mesh.peer_id, b"hello")
        with pytest.raises(TooLargeError):
            mesh.send(mesh.peer_id, bytes(limits.FRAME_BYTES + 1))
        for _ in range(limits.INBOX_MESSAGES):
            mesh.send(mesh.peer_id, b"again")
        with pytest.raises(BackpressureError):
            mesh.send(mesh.peer_id, b"once too often")


async def test_an_oversize_payload_is_refused_before_it_is_sent(world: World) -> None:
    async with world.pair() as (one, other):
        with pytest.raises(TooLargeError):
            one.send(other.peer_id, bytes(limits.FRAME_BYTES + 1))
        one.send(other.peer_id, b"still there")
        assert (await until(other, Received)).payload == b"still there"


async def test_an_unknown_peer_is_unreachable(world: World) -> None:
    mesh = world.mesh("one")
    async with mesh.running():
        with pytest.raises(UnreachableError):
            mesh.send(PeerId(bytes(32)), b"anyone?")


async def test_a_slow_consumer_stops_the_sender_and_loses_nothing(world: World) -> None:
    size = 64 << 10
    async with world.pair() as (one, other):
        sent = 0
        with trio.fail_after(LIMIT_S):
            while True:
                try:
                    one.send(other.peer_id, sent.to_bytes(4, "big") + bytes(size - 4))
                except BackpressureError:
                    break
                sent += 1
                await trio.sleep(0.001)
        # The queue, the receiver's lane, a window, and what the kernel takes.
        assert sent * size < limits.SEND_QUEUE_BYTES + (16 << 20)
        for number in range(sent):
            event = await until(other, Received)
            assert int.from_bytes(event.payload[:4], "big") == number
        one.send(other.peer_id, b"on we go")
        assert (await until(other, Received)).payload == b"on we go"


async def test_a_flooding_peer_does_not_starve_another(world: World) -> None:
    async with world.pair("hub", "flooder") as (hub, flooder):
        quiet = world.mesh("quiet", hub.addresses())
        async with quiet.running():
            await until(quiet, PeerUp)
            await until(hub, PeerUp)

            async def flood() -> None:
                while True:
                    try:
                        flooder.send(hub.peer_id, bytes(1000))
                    except BackpressureError:
                        await trio.sleep(0.001)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood)
                for _ in range(200):
                    assert (await until(hub, Received)).peer == flooder.peer_id
                quiet.send(hub.peer_id, b"may I?")
                await until(hub, Received, lambda event: event.peer == quiet.peer_id)
                nursery.cancel_scope.cancel()


async def test_another_swarm_is_refused_with_its_code(world: World) -> None:
    one = world.mesh("one", swarm="red")
    async with one.running():
        other = world.mesh("other", one.addresses(), swarm="blue")
        async with other.running():
            refused, turned_away = await until(one, Refused), await until(other, Refused)
            assert refused.code == turned_away.code == "wrong-swarm"
            assert refused.peer == other.peer_id
            assert turned_away.peer == one.peer_id
            assert "red" in turned_away.reason
            assert "blue" in turned_away.reason
            assert len(one.links()) == len(other.links()) == 1


async def test_another_version_is_refused_with_its_code(
    world: World, ordered: tuple[str, str]
) -> None:
    smaller, larger = ordered
    one = world.mesh(smaller)
    async with one.running():
        future = world.mesh(larger, one.addresses())
        speak = future._hello
        future._table._hello = lambda carrier: msgspec.structs.replace(
            speak(carrier), oldest=7, newest=9
        )
        async with future.running():
            refused, turned_away = await until(one, Refused), await until(future, Refused)
            assert refused.code == turned_away.code == "version-mismatch"
            assert "versions 7 to 9" in turned_away.reason
            assert "this node must upgrade" in refused.reason


async def test_a_peer_that_stops_is_seen_to_go_down(world: World) -> None:
    one = world.mesh("one")
    async with one.running():
        other = world.mesh("other", one.addresses())
        async with other.running():
            await until(one, PeerUp)
        assert (await until(one, PeerDown)).peer == other.peer_id
        assert [link.path for link in one.links()] == ["self"]
        with pytest.raises(UnreachableError):
            one.send(other.peer_id, b"gone")


async def test_disconnect_ends_the_link_with_its_reason(world: World) -> None:
    async with world.pair() as (one, other):
        one.disconnect(other.peer_id, "because")
        assert await until(one, PeerDown) == PeerDown(other.peer_id, "because")
        assert (await until(other, PeerDown)).peer == one.peer_id
        one.disconnect(other.peer_id, "twice does no harm")


async def test_a_restarted_bootstrap_is_found_again(world: World) -> None:
    first = world.mesh("bootstrap")
    async with first.running():
        address = first.addresses()[0]
    port = int(address.split("/")[4])
    other = world.mesh("other", [address])
    async with other.running():
        for _ in range(2):
            bootstrap = world.mesh("bootstrap", port=port)
            async with bootstrap.running():
                await until(other, PeerUp)
                other.send(bootstrap.peer_id, b"welcome back")
                assert (await until(bootstrap, Received)).payload == b"welcome back"
            await until(other, PeerDown)


async def test_simultaneous_dials_leave_one_link(world: World) -> None:
    one, other = world.mesh("one"), world.mesh("other")
    async with one.running(), other.running():
        one.dial(other.addresses()[0])
        other.dial(one.addresses()[0])
        await until(one, PeerUp)
        await until(other, PeerUp)
        assert len(one.links()) == len(other.links()) == 2
        for number in range(50):
            one.send(other.peer_id, bytes([number]))
            other.send(one.peer_id, bytes([number]))
        events: dict[str, list[Any]] = {"one": [], "other": []}
        with trio.fail_after(LIMIT_S):
            for name, mesh in (("one", one), ("other", other)):
                while len(events[name]) < 50:
                    events[name].append(await mesh.next_event())
        # Nothing but the payloads: neither a second PeerUp, nor a PeerDown, nor a refusal.
        for got in events.values():
            assert [event.payload[0] for event in got] == list(range(50))


async def test_a_crowd_meets(world: World) -> None:
    hub = world.mesh("hub")
    async with hub.running(), trio.open_nursery() as nursery:

        async def join(name: str) -> None:
            mesh = world.mesh(name, hub.addresses())
            async with mesh.running():
                await until(mesh, PeerUp)
                mesh.send(hub.peer_id, name.encode())
                await until(mesh, Received)

        names = [f"node {number}" for number in range(10)]
        for name in names:
            nursery.start_soon(join, name)
        got = set()
        for _ in names:
            event = await until(hub, Received)
            got.add(event.payload.decode())
            hub.send(event.peer, b"ok")
        assert got == set(names)


async def test_its_own_bootstrap_address_is_ignored(world: World) -> None:
    mesh = world.mesh("one")
    async with mesh.running():
        port = int(mesh.addresses()[0].split("/")[4])
        address = mesh.addresses()[0]
    again = world.mesh("one", [address], port=port)
    async with again.running():
        again.dial(address)
        again.send(again.peer_id, b"alone")
        assert await again.next_event() == Received(again.peer_id, b"alone")
        assert len(again.links()) == 1


async def test_a_taken_port_is_a_listen_error(world: World) -> None:
    one = world.mesh("one")
    async with one.running():
        port = int(one.addresses()[0].split("/")[4])
        other = world.mesh("other", port=port)
        with pytest.raises(ListenError, match=str(port)):
            async with other.running():
                pass


@pytest.mark.parametrize(
    "address",
    [
        "",
        "127.0.0.1:4001",
        "/ip4/127.0.0.1/tcp/4001",
        "/ip4/127.0.0.1/udp/4001/p2p/12D3KooWMbbPVGsZYh3ChQjue712NHHGNybRRXwnuSpezYjGbCDS",
        "/ip4/127.0.0.1/tcp/0/p2p/12D3KooWMbbPVGsZYh3ChQjue712NHHGNybRRXwnuSpezYjGbCDS",
        "/ip4/127.0.0.1/tcp/70000/p2p/12D3KooWMbbPVGsZYh3ChQjue712NHHGNybRRXwnuSpezYjGbCDS",
        "/ip4/localhost/tcp/4001/p2p/12D3KooWMbbPVGsZYh3ChQjue712NHHGNybRRXwnuSpezYjGbCDS",
        "/ip4/127.0.0.1/tcp/4001/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        "/ip4/127.0.0.1/tcp/4001/p2p/nonsense",
    ],
)
async def test_a_bootstrap_that_cannot_be_dialled_is_named(world: World, address: str) -> None:
    with pytest.raises(ConfigError):
        world.mesh("one", [address])


async def test_a_name_too_long_to_be_told_is_refused(world: World) -> None:
    with pytest.raises(ConfigError, match="swarm"):
        world.mesh("one", swarm="x" * (limits.TEXT_CHARS + 1))
