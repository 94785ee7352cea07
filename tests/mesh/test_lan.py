"""Nodes of a swarm find each other on a LAN; whoever else is there cannot do much."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock
from zeroconf import IPVersion, ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from node.mesh import lan as lan_module
from node.mesh.lan import Lan
from node.mesh.mdns import ADDRESSES, SERVICE, TEXT_CHARS, Responder, texts_in
from protocol.digest import digest
from protocol.ids import PeerId, peer_text
from tests.mesh.dht_nodes import peer_of
from tests.mesh.worlds import LIMIT_S, eventually

LOOPBACK = "127.0.0.1"


def multicast_works() -> bool:
    """Whether a datagram to the group of mDNS comes back on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", 0))
            group = socket.inet_aton("224.0.0.251") + socket.inet_aton(LOOPBACK)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK))
            sock.settimeout(2)
            sock.sendto(b"?", ("224.0.0.251", sock.getsockname()[1]))
            return sock.recv(1) == b"?"
        except OSError:
            return False


needs_multicast = pytest.mark.skipif(
    not multicast_works(), reason="no multicast on the loopback interface"
)


def address(peer: PeerId, port: int = 4001, host: str = LOOPBACK) -> str:
    return f"/ip{6 if ':' in host else 4}/{host}/tcp/{port}/p2p/{peer_text(peer)}"


class Box:
    """A node, as far as this is concerned.

    Attributes:
        addresses: its own.
        found: what it has been told.
    """

    def __init__(self, name: str, swarm: str) -> None:
        self.peer = peer_of(name)
        self.addresses: tuple[str, ...] = (address(self.peer),)
        self.found: list[str] = []
        self.lan = Lan(swarm, self.peer, lambda: self.addresses, self.found.append, [LOOPBACK])


@pytest.fixture
def swarm() -> str:
    """Nobody else on this machine's loopback has it."""
    return str(uuid.uuid4())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lan_module, "POLL_S", 0.02)
    monkeypatch.setattr(lan_module, "REPORT_EVERY_S", 0.0)


# --- on the wire --------------------------------------------------------------------------------


@needs_multicast
async def test_two_nodes_find_each_other(swarm: str, quick: None) -> None:
    one, other, stranger = Box("one", swarm), Box("other", swarm), Box("stranger", swarm + "?")
    async with trio.open_nursery() as nursery:
        for box in (one, other, stranger):
            assert box.lan.status == "off: not started"
            nursery.start_soon(box.lan.run)
        await eventually(lambda: bool(one.found and other.found))
        assert one.found == [address(other.peer)]
        assert other.found == [address(one.peer)]
        assert one.lan.status == other.lan.status == "on"
        # New addresses are told, old ones are not told again.
        other.addresses = (address(other.peer, 5000), address(other.peer))
        await eventually(lambda: len(one.found) > 1)
        assert one.found == [address(other.peer), address(other.peer, 5000)]
        assert stranger.found == []
        nursery.cancel_scope.cancel()


@needs_multicast
async def test_who_goes_is_forgotten(swarm: str, quick: None) -> None:
    one, other = Box("one", swarm), Box("other", swarm)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.lan.run)
        async with trio.open_nursery() as life:
            life.start_soon(other.lan.run)
            await eventually(lambda: bool(one.found))
            assert one.lan._known
            life.cancel_scope.cancel()
        await eventually(lambda: not one.lan._known)
        nursery.cancel_scope.cancel()


@needs_multicast
async def test_without_an_address_it_only_looks(swarm: str, quick: None) -> None:
    one, other = Box("one", swarm), Box("other", swarm)
    other.addresses = ()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.lan.run)
        nursery.start_soon(other.lan.run)
        # Its own address is one of this machine alone, and it does not know that it is, too.
        await eventually(lambda: one.lan.status == other.lan.status == "on")
        other.addresses = (address(other.peer),)
        await eventually(lambda: bool(one.found))
        other.addresses = ()
        await eventually(lambda: not one.lan._known)
        nursery.cancel_scope.cancel()


@needs_multicast
async def test_hostile_records_are_survived(swarm: str, quick: None) -> None:
    tag = digest("lan", swarm).hex()[:16].encode()
    evil: list[dict[bytes, bytes | None]] = [
        {b"swarm": tag},
        {b"swarm": tag, b"a0": None, b"a1": b""},
        {b"swarm": tag, b"a0": os.urandom(200)},
        {b"swarm": tag, b"a0": b"\xff\xfe", b"a1": b"/ip4/127.0.0.1/tcp/1"},
        {os.urandom(9): os.urandom(99) for _ in range(20)},
        {b"swarm": tag, b"a0": b"/dns4/evil.example/tcp/1/p2p/" + peer_text(peer_of("x")).encode()},
    ]
    box = Box("box", swarm)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.lan.run)
        await eventually(lambda: box.lan.status == "on")

        async def attack() -> None:
            zeroconf = AsyncZeroconf([LOOPBACK], ip_version=IPVersion.V4Only)
            for number, properties in enumerate(evil):
                record = ServiceInfo(
                    SERVICE,
                    f"evil{number}.{SERVICE}",
                    port=1,
                    properties=properties,
                    server="evil.local.",
                    parsed_addresses=[LOOPBACK],
                )
                await zeroconf.async_register_service(record, cooperating_responders=True)
            await zeroconf.async_close()

        await trio.to_thread.run_sync(asyncio.run, attack())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK))
            for size in (0, 1, 12, 40, 500, 8000):
                for _ in range(20):
                    sock.sendto(os.urandom(size), ("224.0.0.251", 5353))
        honest = Box("honest", swarm)
        nursery.start_soon(honest.lan.run)
        await eventually(lambda: bool(box.found))
        assert box.found == [address(honest.peer)]
        nursery.cancel_scope.cancel()


def test_a_responder_that_is_stopped_before_it_runs_ends_at_once() -> None:
    responder = Responder("name", b"tag", lambda: None, lambda *_: None, [LOOPBACK])
    responder.stop()
    responder.run()
    # Nor does it mind what comes after its end.
    responder.stop()
    responder.announce(())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_without_an_interface_it_says_so() -> None:
    responder = Responder("name", b"tag", lambda: None, lambda *_: None, ["192.0.2.77"])
    with pytest.raises((OSError, RuntimeError)):
        responder.run()
    gc.collect()  # the library leaves its socket to this


# --- what is read in a record -------------------------------------------------------------------


def test_only_records_of_the_swarm_are_read() -> None:
    properties: dict[bytes, bytes | None] = {b"swarm": b"tag", b"a0": b"one", b"a7": b"two"}
    assert texts_in(properties, b"tag") == ("one", "two")
    assert texts_in(properties, b"other") == ()
    assert texts_in({}, b"tag") == ()
    assert texts_in({b"swarm": None}, b"tag") == ()
    many: dict[bytes, bytes | None] = {b"a%d" % n: b"x" for n in range(99)}
    assert len(texts_in({b"swarm": b"tag", **many}, b"tag")) == ADDRESSES


@given(st.dictionaries(st.binary(max_size=3), st.none() | st.binary(max_size=300)))
def test_any_record_is_survived(properties: dict[bytes, bytes | None]) -> None:
    properties[b"swarm"] = b"tag"
    box = Box("box", "test")
    for text in box.lan._new("name", texts_in(properties, b"tag")):
        raise AssertionError(text)


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.lists(st.integers(0, 20), max_size=12)),
        max_size=30,
    )
)
def test_each_address_is_told_when_it_is_new(steps: list[tuple[str, list[int]]]) -> None:
    box = Box("box", "test")
    before: dict[str, set[str]] = {}
    for name, ports in steps:
        texts = [address(peer_of(name), 1 + port) for port in ports]
        new = box.lan._new(name, texts)
        now = set(texts[:ADDRESSES])
        assert set(new) == now - before.get(name, set())
        assert len(set(new)) == len(new)
        before[name] = now


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage",
        f"/ip4/{LOOPBACK}/tcp/4001",
        address(peer_of("box")),
        address(peer_of("x"), 0),
        address(peer_of("x"), host="0.0.0.0"),
        address(peer_of("x"), host="224.0.0.1"),
        address(peer_of("x"), host="169.254.1.1"),
        address(peer_of("x"), host="fe80::1"),
        f"/dns4/localhost/tcp/1/p2p/{peer_text(peer_of('x'))}",
        f"{address(peer_of('y'))}/p2p-circuit/p2p/{peer_text(peer_of('x'))}",
    ],
)
def test_what_is_not_worth_a_dial(text: str) -> None:
    box = Box("box", "test")
    good = address(peer_of("x"), 77)
    assert box.lan._new("name", [text, good]) == [good]


def test_nobody_leads_a_node_to_its_own_machine() -> None:
    box = Box("box", "test")
    local, near = address(peer_of("x")), address(peer_of("x"), host="192.168.0.7")
    assert box.lan._new("name", [local, near]) == [local, near]
    box.addresses = (address(box.peer, host="192.168.0.1"), address(box.peer))
    assert box.lan._new("another", [local, near]) == [near]
    box.addresses = ()
    assert box.lan._new("a third", [local, near]) == [near]


def test_so_many_records_are_remembered() -> None:
    box = Box("box", "test")
    for number in range(lan_module.PEERS + 50):
        box.lan._new(f"name {number}", [address(peer_of("x"), 1 + number)])
    assert len(box.lan._known) == lan_module.PEERS
    assert "name 49" not in box.lan._known
    assert "name 50" in box.lan._known


# --- the thread and the bounds ------------------------------------------------------------------


class FakeResponder:
    """Reports what the test says, in a thread."""

    script: Callable[[FakeResponder], None]

    def __init__(
        self,
        name: str,
        tag: bytes,
        ready: Callable[[], None],
        report: Callable[[str, tuple[str, ...]], None],
        interfaces: Any,
    ) -> None:
        self.ready, self.report = ready, report
        self.announced: tuple[str, ...] = ()
        self.stopped = trio.Event()

    def announce(self, texts: tuple[str, ...]) -> None:
        self.announced = texts

    def stop(self) -> None:
        self.stopped.set()

    def run(self) -> None:
        type(self).script(self)


def scripted(
    monkeypatch: pytest.MonkeyPatch, script: Callable[[FakeResponder], None]
) -> list[FakeResponder]:
    """Put a fake in place; the list of those that were made."""
    made: list[FakeResponder] = []

    class Scripted(FakeResponder):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

        def run(self) -> None:
            script(self)

    monkeypatch.setattr(lan_module, "Responder", Scripted)
    return made


async def test_a_failure_is_told_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(responder: FakeResponder) -> None:
        if len(made) < 3:
            raise OSError(19, "No such device")
        if len(made) == 3:
            responder.ready()
            seen.append(box.lan.status)
            raise RuntimeError
        trio.from_thread.run(responder.stopped.wait)

    seen: list[str] = []
    made = scripted(monkeypatch, fail)
    monkeypatch.setattr(lan_module, "RETRY_S", 0.001)
    box = Box("box", "test")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.lan.run)
        await eventually(lambda: len(made) == 4)
        nursery.cancel_scope.cancel()
    told = [record.getMessage().partition("looked for: ")[2] for record in caplog.records]
    assert told == ["[Errno 19] No such device", "RuntimeError"]
    assert seen == ["on"]
    assert box.lan.status == "off: RuntimeError"


async def test_a_flood_is_passed_on_at_a_bounded_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    def flood(responder: FakeResponder) -> None:
        for number in range(10 * lan_module.REPORTS):
            responder.report(f"name {number}", (address(peer_of("x"), 1 + number),))
        trio.from_thread.run_sync(over.set)
        trio.from_thread.run(responder.stopped.wait)

    over = trio.Event()
    scripted(monkeypatch, flood)
    monkeypatch.setattr(lan_module, "REPORT_EVERY_S", 3600.0)
    box = Box("box", "test")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.lan.run)
        with trio.fail_after(LIMIT_S):
            await over.wait()
        assert len(box.found) == 1
        nursery.cancel_scope.cancel()


async def test_what_is_announced(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    made = scripted(monkeypatch, lambda responder: trio.from_thread.run(responder.stopped.wait))
    box = Box("box", "test")
    relayed = f"{address(peer_of('y'))}/p2p-circuit/p2p/{peer_text(box.peer)}"
    long = f"/dns4/{'x' * TEXT_CHARS}/tcp/1/p2p/{peer_text(box.peer)}"
    many = tuple(address(box.peer, port) for port in range(1, 20))
    box.addresses = (relayed, long, *many)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.lan.run)
        await trio.sleep(1)
        assert made[0].announced == many[:ADDRESSES]
        box.addresses = many[:1]
        await trio.sleep(lan_module.POLL_S)
        assert made[0].announced == many[:1]
        nursery.cancel_scope.cancel()
    assert len(made) == 1
