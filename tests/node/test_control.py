"""What `swarm peers` is told: links, what logs say of their ends, and who else is there."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
import trio
from trio.testing import MockClock

from node.control import Control
from protocol import methods
from protocol.ids import peer_text
from tests.fakes.mesh import FakeNetwork
from tests.fakes.own_log import NOTHING
from tests.node.virtual_node import EPOCH, VirtualNode, nodes, scripted
from tests.swarm.virtual import signer


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork(seed=1)


async def rows(node: VirtualNode, *, everybody: bool = False) -> dict[str, methods.PeerRow]:
    """By peer."""
    control = object.__new__(Control)
    control._mesh, control._registry = node.mesh, node.registry
    found = await control._peers(methods.PeersParams(everybody), lambda progress: None)
    assert len({row.peer for row in found.peers}) == len(found.peers)
    return {row.peer: row for row in found.peers}


async def test_a_row_is_of_a_link_and_what_the_log_at_its_end_says(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with nodes(network, [scripted("42"), scripted("41")]) as (one, other):
        known = one.registry.get(other.peer)
        assert known is not None
        assert known.profile is not None
        labelled = msgspec.structs.replace(known.profile, label="upstairs")
        other.log.describe(labelled)
        await trio.sleep(1.0)
        found = await rows(one)
        assert found.keys() == {peer_text(one.peer), peer_text(other.peer)}
        row, own = found[peer_text(other.peer)], found[peer_text(one.peer)]
        assert (row.path, row.model, row.label, row.forked) == (
            "direct", "says 41", "upstairs", False,
        )  # fmt: skip
        assert EPOCH <= row.since <= EPOCH + 10
        assert row.address.startswith("/ip4/127.0.0.1/tcp/")
        assert (own.path, own.address, own.model) == ("self", "loopback", "says 42")
        other.log.fork()
        await trio.sleep(1.0)
        assert (await rows(one))[peer_text(other.peer)].forked


async def test_who_is_linked_and_has_no_log_has_a_row(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with nodes(network, [scripted("42"), scripted("41")]) as (one, other):
        one.log.drop(other.peer)
        row = (await rows(one))[peer_text(other.peer)]
        assert (row.path, row.model, row.label, row.since) == ("direct", "", "", 0)


async def test_who_is_in_the_swarm_without_a_link_is_shown_when_asked_for(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    """If it is there, and its log is known: neither alone makes a peer."""
    async with nodes(network, [scripted("42"), scripted("41"), scripted("40")]) as swarm:
        one, far, other = swarm
        absent, unknown = signer("absent").peer, other.peer
        state = replace(NOTHING, profile=one.registry.profiles[far.peer], since=EPOCH)
        one.reader.changed(absent, state)
        await trio.sleep(30.0)
        here = await rows(one, everybody=True)
        assert [row.path for row in here.values()].count("direct") == len(here) - 1 == 2
        network.partition([one.peer])
        await trio.sleep(30.0)
        one.reader.changed(unknown, None)
        assert {far.peer, unknown} <= one.mesh.present().keys()
        assert (await rows(one)).keys() == {peer_text(one.peer)}
        found = await rows(one, everybody=True)
        assert found.keys() == {peer_text(one.peer), peer_text(far.peer)}
        row = found[peer_text(far.peer)]
        assert (row.path, row.model, row.since > 0) == ("known", "says 41", True)
        assert row.address == far.mesh.addresses()[0]
        assert (row.rtt_ms, row.age_s, row.direct_s) == (None, 0.0, None)
        await trio.sleep(600.0)
        assert (await rows(one, everybody=True)).keys() == {peer_text(one.peer)}, "it has expired"
