"""Logs in memory say what real ones say: the same things, to the same nodes, in the same states."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import trio

from node.mesh.base import PeerUp
from protocol.ids import PeerId
from swarm.ledger.state import State
from tests.fakes.mesh import FakeMesh, FakeNetwork
from tests.fakes.own_log import FakeOwnLog
from tests.node.replicas import profile, running, unix_time
from tests.node.test_replication import hints_of
from tests.protocol.test_proofs import BALLOT, CLOSE, changed, pair

DAY_S = 24 * 3600
FIRST = pair(BALLOT, changed(BALLOT, wave=0, rows=BALLOT.rows[:1]))
SECOND = pair(CLOSE, changed(CLOSE, more=not CLOSE.more))


@dataclass
class Member:
    """A node that does nothing but speak and hear."""

    peer: PeerId
    own: Any
    states: dict[PeerId, State] = field(default_factory=dict)


Together = Callable[[], Any]


@asynccontextmanager
async def faked() -> AsyncIterator[list[Member]]:
    network = FakeNetwork()
    members: list[Member] = []
    meshes: list[FakeMesh] = []
    async with AsyncExitStack() as stack:
        addresses: list[str] = []
        for name in ("a", "b", "c"):
            mesh = network.mesh(name, list(addresses))
            meshes.append(mesh)
            await stack.enter_async_context(mesh.running())
            addresses += mesh.addresses()
        async with trio.open_nursery() as nursery:
            for mesh in meshes:
                log = FakeOwnLog(mesh, unix_time)
                member = Member(mesh.peer_id, log)
                log.changed = member.states.__setitem__
                members.append(member)
                nursery.start_soon(log.run)
                nursery.start_soon(_follow, mesh, log)
            yield members
            nursery.cancel_scope.cancel()


async def _follow(mesh: FakeMesh, log: FakeOwnLog) -> None:
    while True:
        event = await mesh.next_event()
        if isinstance(event, PeerUp):
            log.linked(event.link)


@asynccontextmanager
async def replicated() -> AsyncIterator[list[Member]]:
    network = FakeNetwork()
    async with AsyncExitStack() as stack:
        members: list[Member] = []
        addresses: list[str] = []
        for name in ("a", "b", "c"):
            node = await stack.enter_async_context(running(network, name, list(addresses)))
            addresses += node.mesh.addresses()
            members.append(Member(node.peer, node.own, node.states))
        yield members


@pytest.fixture(params=[faked, replicated])
def together(request: pytest.FixtureRequest) -> Together:
    return request.param  # type: ignore[no-any-return]


async def settled(members: list[Member]) -> list[dict[PeerId, State]]:
    """What each holds in the end; when something was said first may differ by seconds."""
    await trio.sleep(60)
    return [
        {peer: replace(state, since=0, values={}) for peer, state in one.states.items()}
        for one in members
    ]


async def test_everybody_hears_what_one_says(autojump_clock: object, together: Together) -> None:
    today = int(unix_time()) // DAY_S
    async with together() as members:
        for at, member in enumerate(members):
            member.own.describe(profile(f"model {at}"))
        members[0].own.tell(hints_of(today))
        members[0].own.tell(hints_of(today - 1))
        members[1].own.testify(FIRST)
        members[1].own.testify(SECOND)
        members[1].own.testify(FIRST)
        held = await settled(members)
        days = {day: hints_of(day) for day in (today - 1, today)}
        a, b, c = (member.peer for member in members)
        expected = {
            a: State({}, profile("model 0"), days, (), 0, False),
            b: State({}, profile("model 1"), {}, (FIRST, SECOND), 0, False),
            c: State({}, profile("model 2"), {}, (), 0, False),
        }
        assert held == [expected] * 3


async def test_the_latest_word_counts(autojump_clock: object, together: Together) -> None:
    async with together() as members:
        for member in members:
            member.own.describe(profile("before"))
        await trio.sleep(30)
        members[0].own.describe(profile("after"))
        held = await settled(members)
        for states in held:
            assert states[members[0].peer].profile == profile("after")
            assert states[members[1].peer].profile == profile("before")


async def test_when_it_was_said_first_is_known(autojump_clock: object, together: Together) -> None:
    async with together() as members:
        for member in members:
            member.own.describe(profile("before"))
        await trio.sleep(100)
        said = {member.states[members[0].peer].since for member in members}
        assert len(said) == 1
        members[0].own.describe(profile("after"))
        await trio.sleep(100)
        assert {member.states[members[0].peer].since for member in members} == said
