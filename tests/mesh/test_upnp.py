"""A port of the router: asked for, kept, given back; and what routers get wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import trio

from node.mesh import upnp
from node.mesh.address import Address
from node.mesh.upnp import LEASE_S, PORTS, Igd, Mapping, PortMapError, PortMapper
from tests.mesh import igd
from tests.mesh.test_lan import needs_multicast
from tests.mesh.worlds import LIMIT_S, eventually

PORT = 4001


def mapping(port: int = PORT, host: str = "8.8.4.4") -> Mapping:
    return Mapping(Address("ip4", host, port))


# --- with miniupnpc, on loopback ----------------------------------------------------------------


@needs_multicast
async def test_a_router_maps_the_port_and_takes_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upnp, "DISCOVER_MS", 100)
    monkeypatch.setattr(upnp, "CHECK_S", 0.01)
    router, told = igd.Router(), list[Mapping | None]()
    router.others = {PORT}
    mapper = PortMapper(PORT, lambda: Igd(igd.LOOPBACK))
    assert mapper.status == "off: not started"
    with igd.serving(router):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mapper.run, told.append)
            await eventually(lambda: bool(told))
            assert told == [mapping(PORT + 1)]
            assert router.mappings == {PORT + 1: (igd.LOOPBACK, PORT, LEASE_S)}
            assert mapper.status == "on: /ip4/8.8.4.4/tcp/4002"
            # A router that restarts has forgotten all, and knows no leases any more.
            router.leases = False
            router.mappings.clear()
            await eventually(lambda: bool(router.mappings))
            assert router.mappings == {PORT + 1: (igd.LOOPBACK, PORT, 0)}
            router.address = "9.9.9.9"
            await eventually(lambda: len(told) > 1)
            nursery.cancel_scope.cancel()
    assert told == [mapping(PORT + 1), mapping(PORT + 1, "9.9.9.9")]
    assert router.mappings == {}


class Failing:
    """What miniupnpc does where there is no router, or one that refuses."""

    lanaddr = "192.168.0.2"

    def __getattr__(self, name: str) -> Callable[..., None]:
        def fail(*args: object) -> None:
            raise Exception("OnlyPermanentLeasesSupported")

        return fail


def test_every_failure_of_the_library_is_a_typed_error() -> None:
    router = Igd(igd.LOOPBACK)
    router._upnp = Failing()
    with pytest.raises(PortMapError, match="No router"):
        router.find()
    for ask in (router.address, lambda: router.map(1, 2, 3), lambda: router.unmap(1)):
        with pytest.raises(PortMapError, match="The router says: OnlyPermanentLeases"):
            ask()


# --- with a router that does as the test says ---------------------------------------------------


class Scripted:
    """A router.

    Attributes:
        log: what it was asked.
        refuses: lease and external port that it does not map.
    """

    def __init__(self) -> None:
        self.made = 0
        self.log: list[tuple[object, ...]] = []
        self.ip = "8.8.4.4"
        self.found = True
        self.refuses: Callable[[int, int], bool] = lambda lease_s, external: False

    def __call__(self) -> Scripted:
        self.made += 1
        return self

    def find(self) -> None:
        if not self.found:
            raise PortMapError("No router.")

    def address(self) -> str:
        if not self.found:
            raise PortMapError("Gone.")
        return self.ip

    def map(self, external: int, port: int, lease_s: int) -> None:
        self.log.append(("map", external, port, lease_s))
        if self.refuses(lease_s, external):
            raise PortMapError(f"Refused {lease_s} {external}.")

    def unmap(self, external: int) -> None:
        self.log.append(("unmap", external))
        raise PortMapError("Refused to take it back.")


async def run(router: Scripted, port: int = PORT) -> tuple[PortMapper, list[Mapping | None]]:
    """One try, then the end."""
    mapper, told = PortMapper(port, router), list[Mapping | None]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mapper.run, told.append)
        await eventually(lambda: mapper.status != "off: not started")
        nursery.cancel_scope.cancel()
    return mapper, told


async def test_a_lease_is_asked_for_first() -> None:
    router = Scripted()
    mapper, told = await run(router)
    assert told == [mapping()]
    assert router.log == [("map", PORT, PORT, LEASE_S), ("unmap", PORT)]
    assert mapper.status == "on: /ip4/8.8.4.4/tcp/4001"


async def test_a_router_without_leases_maps_for_ever() -> None:
    router = Scripted()
    router.refuses = lambda lease_s, external: lease_s > 0
    assert (await run(router))[1] == [mapping()]
    assert router.log[1:] == [("map", PORT, PORT, 0), ("unmap", PORT)]


async def test_a_port_that_is_taken_is_left_alone() -> None:
    router = Scripted()
    router.refuses = lambda lease_s, external: external < PORT + 2
    assert (await run(router))[1] == [mapping(PORT + 2)]
    assert router.log[-2:] == [("map", PORT + 2, PORT, LEASE_S), ("unmap", PORT + 2)]


async def test_so_many_ports_are_tried_and_nothing_of_others_is_deleted() -> None:
    router = Scripted()
    router.refuses = lambda lease_s, external: True
    mapper, told = await run(router, 65534)
    assert told == []
    assert {entry[1] for entry in router.log} == {65534, 65535}
    router.log.clear()
    mapper, told = await run(router)
    assert len(router.log) == 2 * PORTS
    assert mapper.status == "off: Refused 3600 4001."


@pytest.mark.parametrize("ip", ["10.0.0.1", "192.168.1.1", "100.64.7.7", "169.254.1.1", "0.0.0.0"])
async def test_behind_another_nat_nothing_is_mapped(ip: str) -> None:
    router = Scripted()
    router.ip = ip
    mapper, told = await run(router)
    assert told == []
    assert router.log == []
    assert f"{ip}, which is not of the internet" in mapper.status


@pytest.mark.parametrize("ip", ["", "x" * 10_000, "8.8.8.8.8", "::1", "None", "8.8.8.8\n"])
async def test_a_router_that_talks_nonsense(ip: str) -> None:
    router = Scripted()
    router.ip = ip
    mapper, told = await run(router)
    assert told == []
    assert mapper.status == "off: The router does not know its own address."


async def test_a_mapping_that_is_lost_is_told_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upnp, "CHECK_S", 0.001)
    monkeypatch.setattr(upnp, "RETRY_S", 0.001)
    router, told = Scripted(), list[Mapping | None]()
    router.found = False
    mapper = PortMapper(PORT, router)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mapper.run, told.append)
        await eventually(lambda: router.made >= 2)
        assert mapper.status == "off: No router."
        router.found = True
        await eventually(lambda: mapper.status.startswith("on"))
        made = router.made
        await eventually(lambda: len(router.log) > 3)
        assert router.made == made  # it is not looked for as long as it answers
        assert told == [mapping()]
        router.found = False
        await eventually(lambda: len(told) == 2)
        router.found = True
        await eventually(lambda: len(told) == 3)
        assert router.made > made
        nursery.cancel_scope.cancel()
    assert told == [mapping(), None, mapping()]
    assert router.log[-1] == ("unmap", PORT)


class Counting(PortMapper):
    """Counts its failures."""

    failures = 0

    def _lost(self, reason: str, changed: Callable[[Mapping | None], None]) -> None:
        super()._lost(reason, changed)
        self.failures += 1


async def test_a_router_that_hangs_costs_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upnp, "TRY_LIMIT_S", 0.01)
    monkeypatch.setattr(upnp, "RETRY_S", 0.001)
    monkeypatch.setattr(upnp, "DELETE_LIMIT_S", 0.05)
    hangs, router = threading.Event(), Scripted()
    router.find = hangs.wait  # type: ignore[assignment]
    mapper, told = Counting(PORT, router), list[Mapping | None]()
    try:
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(mapper.run, told.append)
                await eventually(lambda: mapper.failures == 4)
                assert mapper.status == "off: The router does not answer in time."
                assert router.made == 1  # one thread hangs, and no more are sent after it
                nursery.cancel_scope.cancel()
    finally:
        hangs.set()
    assert told == []
