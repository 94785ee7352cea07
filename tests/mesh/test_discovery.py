"""The ways to find peers, beside each other: on disk, on the LAN, in the DHT, and the router."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.mesh import discovery
from node.mesh.address import Address, parse_address
from node.mesh.base import PeerUp
from node.mesh.dht import SEEDS
from node.mesh.discovery import Discovery
from node.mesh.host import Libp2pMesh
from node.mesh.peer_cache import Cached, PeerCache
from node.mesh.peering import Settings
from node.mesh.upnp import Mapping
from node.mesh.wire import Carrier
from protocol.envelope import KeySigner
from protocol.errors import RefusedError, StoreError, UnreachableError
from protocol.ids import PeerId, peer_text
from protocol.presence import Leave, Presence, Stated, state
from tests.mesh.worlds import eventually, key_seed, until

NOW = 1_700_000_000.0
OWN = KeySigner(key_seed("own"))
FRIEND = KeySigner(key_seed("friend")).peer
AT = f"/ip4/203.0.113.5/tcp/4747/p2p/{peer_text(FRIEND)}"


class Mesh:
    """Notes what discovery tells it."""

    peer_id = OWN.peer

    def __init__(self) -> None:
        self.tried: list[tuple[PeerId, tuple[str, ...]]] = []
        self.heard: list[bytes] = []
        self.links: dict[PeerId, tuple[str, ...]] = {}
        self.mapping: Address | None = None
        self.stated = self.statement(0)

    def statement(self, serial: int) -> Stated:
        presence = Presence("test", 1, serial, int(NOW), (), False, "open")
        return state(OWN, presence)

    def addresses(self) -> tuple[str, ...]:
        return ()

    def served_at(self) -> tuple[str, ...]:
        return ()

    def own_statement(self) -> Stated:
        return self.stated

    def linked_at(self) -> dict[PeerId, tuple[str, ...]]:
        return self.links

    def try_peer(self, peer: PeerId, addresses: Sequence[str]) -> None:
        self.tried.append((peer, tuple(addresses)))

    def try_address(self, address: str) -> None:
        self.tried.append((FRIEND, (address,)))

    def hear(self, statements: Iterable[bytes], source: PeerId | None) -> set[PeerId]:
        self.heard += statements
        return set()

    def mapped(self, address: Address | None) -> None:
        self.mapping = address

    async def dial_node(self, peer: PeerId, addresses: Sequence[str]) -> Carrier:
        raise UnreachableError("nobody is there")


class Dht:
    """A DHT that takes what it is told and has what the test puts there."""

    def __init__(self) -> None:
        self.announced: list[Stated] = []
        self.takes = 1
        self.has: list[bytes] = []
        self.size = 1
        self.status = "fake"

    async def run(self) -> None:
        await trio.sleep_forever()

    async def announce(self, stated: Stated) -> int:
        self.announced.append(stated)
        return self.takes

    async def find(self, swarm: str) -> list[bytes]:
        assert swarm == "test"
        return self.has


def discover(mesh: Mesh, cache: Path | None = None, dht: Dht | None = None) -> Discovery:
    made = Discovery(mesh, "test", "test", (), cache, False, False, None, lambda: NOW)
    made.dht = dht  # type: ignore[assignment]
    return made


@contextlib.asynccontextmanager
async def running(found: Discovery) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()


# --- the peers of earlier runs ------------------------------------------------------------------


async def test_who_was_linked_is_tried_after_a_restart(tmp_path: Path) -> None:
    mesh, path = Mesh(), tmp_path / "peers.cache"
    async with running(discover(mesh, path)):
        mesh.links = {FRIEND: (AT,)}
    assert not mesh.tried
    again = Mesh()
    async with running(discover(again, path)):
        await eventually(lambda: bool(again.tried))
    assert again.tried == [(FRIEND, (AT,))]
    # It is kept though it was not linked this time.
    assert [one.peer for one in await PeerCache(path).load()] == [FRIEND]


async def test_who_has_long_been_away_is_not_tried(tmp_path: Path) -> None:
    path = tmp_path / "peers.cache"
    await PeerCache(path).store([Cached(FRIEND, (AT,), NOW - discovery.KEPT_S - 1)])
    mesh = Mesh()
    found = discover(mesh, path)
    async with running(found):
        await eventually(lambda: found.status()["cache"].startswith("0 peers"))
        await trio.testing.wait_all_tasks_blocked()
    assert not mesh.tried


async def test_a_disk_that_fails_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def fail(*_: Any) -> Any:
        raise StoreError("no space left")

    monkeypatch.setattr(PeerCache, "load", fail)
    mesh, dht = Mesh(), Dht()
    found = discover(mesh, tmp_path / "peers.cache", dht)
    async with running(found):
        await eventually(lambda: "no space" in found.status()["cache"])
        await eventually(lambda: bool(dht.announced))


# --- the DHT ------------------------------------------------------------------------------------


async def test_the_swarm_is_looked_for_often_while_alone(autojump_clock: MockClock) -> None:
    mesh, dht = Mesh(), Dht()
    dht.has = [b"a statement"]
    async with running(discover(mesh, dht=dht)):
        await trio.sleep(3600)
    assert set(mesh.heard) == {b"a statement"}
    alone = len(mesh.heard)
    assert alone > 3600 / discovery.FIND_EVERY_S
    linked = Mesh()
    linked.links = {FRIEND: (AT,)}
    async with running(discover(linked, dht=dht)):
        await trio.sleep(3600)
    assert len(linked.heard) < alone
    assert len(linked.heard) >= 3600 / discovery.FIND_EVERY_S


async def test_a_statement_is_announced_once_it_is_taken(autojump_clock: MockClock) -> None:
    mesh, dht = Mesh(), Dht()
    dht.takes = 0
    async with running(discover(mesh, dht=dht)):
        await trio.sleep(60)
        assert len(dht.announced) > 2, "what nobody took is announced again"
        dht.takes, before = 3, len(dht.announced)
        await trio.sleep(600)
        assert len(dht.announced) == before + 1
        mesh.stated = mesh.statement(1)
        await trio.sleep(600)
        assert dht.announced[-1] is mesh.stated
        assert len(dht.announced) == before + 2


async def test_a_node_that_goes_says_so_there(autojump_clock: MockClock) -> None:
    dht = Dht()
    leave = state(OWN, Leave("test", 1, int(NOW)))
    await discover(Mesh(), dht=dht).say_leave(leave)
    assert dht.announced == [leave]
    dht.size = 0
    await discover(Mesh(), dht=dht).say_leave(leave)
    assert dht.announced == [leave], "there is nobody to tell"


async def test_a_clock_that_jumps_ends_nothing(autojump_clock: MockClock) -> None:
    class Strict(Dht):
        async def announce(self, stated: Stated) -> int:
            self.announced.append(stated)
            raise RefusedError("It was signed 4000 s ago.")

    mesh, dht = Mesh(), Strict()
    async with running(discover(mesh, dht=dht)):
        await trio.sleep(1000)
    assert len(dht.announced) > 3


async def test_nobody_displaces_a_bootstrap_in_the_dht() -> None:
    made = Discovery(Mesh(), "test", "test", [(FRIEND, AT)], None, False, True, None, lambda: NOW)
    assert made.dht is not None
    for number in range(200):
        made.serves(PeerId(number.to_bytes(4, "big") * 8), ["/ip4/203.0.113.9/tcp/1"])
    assert FRIEND in made.dht._seeds
    assert len(made.dht._seeds) <= SEEDS


async def test_leaving_waits_for_nobody(autojump_clock: MockClock) -> None:
    class Silent(Dht):
        async def announce(self, stated: Stated) -> int:
            await trio.sleep_forever()
            return 0

    began = trio.current_time()
    await discover(Mesh(), dht=Silent()).say_leave(state(OWN, Leave("test", 1, int(NOW))))
    assert trio.current_time() - began == pytest.approx(discovery.LEAVE_LIMIT_S)


# --- the router ---------------------------------------------------------------------------------


async def test_a_mapping_of_the_router_is_passed_on() -> None:
    mesh = Mesh()
    found = discover(mesh)
    found._map(Mapping(parse_address("/ip4/203.0.113.7/tcp/4747")))
    assert str(mesh.mapping) == "/ip4/203.0.113.7/tcp/4747"
    found._map(None)
    assert mesh.mapping is None


# --- the real thing -----------------------------------------------------------------------------


def mesh_of(name: str, *bootstraps: str, swarm: str = "test", **more: Any) -> Libp2pMesh:
    settings = Settings(
        ("/ip4/127.0.0.1/tcp/0",), bootstraps, swarm, f"test/{name}", dht=True, **more
    )
    return Libp2pMesh(key_seed(name), settings)


async def test_two_nodes_of_a_swarm_meet_through_a_node_of_another() -> None:
    """They share no bootstrap of their swarm; the DHT knows no swarms."""
    hub = mesh_of("hub", swarm="somebody else's", public=True)
    async with hub.running():
        one = mesh_of("one", *hub.addresses(), public=True)
        other = mesh_of("other", *hub.addresses(), public=True)
        async with one.running(), other.running():
            up = await until(one, PeerUp)
            assert up.link.peer == other.peer_id
            via, presence = await one.find(other.peer_id, True)
            assert via == "dht"
            assert presence is not None
            assert presence.addresses == other.addresses()
            assert await one.find(PeerId(bytes(32)), True) == ("nowhere", None)
            assert (await one.find(one.peer_id, False))[0] == "self"
            assert "serves" in one.report().services["dht"]


async def test_a_restarted_node_finds_its_peers_without_a_bootstrap(tmp_path: Path) -> None:
    cache = tmp_path / "peers.cache"
    hub = mesh_of("hub", public=True)
    async with hub.running():
        first = mesh_of("node", *hub.addresses(), cache=cache)
        async with first.running():
            await until(first, PeerUp)
            await eventually(lambda: bool(first.linked_at()[hub.peer_id]))
        again = mesh_of("node", cache=cache)
        async with again.running():
            assert (await until(again, PeerUp)).link.peer == hub.peer_id
