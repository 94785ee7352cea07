"""An author that tells half of a swarm one thing and half of it another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from node.local_swarm import Member
from node.mesh.base import PeerUp, Received
from node.mesh.host import Libp2pMesh
from protocol import sync as wire
from protocol.codec import decode, encode
from protocol.ids import PeerId, peer_text
from protocol.ledger import Run, stated_fork
from protocol.messages import Invite, parse
from tests.e2e.conftest import QUESTION, honest
from tests.e2e.members import (
    SWARM,
    Author,
    call,
    daemons,
    kept,
    ledger,
    mesh_of,
    peer_of,
    until,
    until_alike,
    until_serving,
)

pytestmark = pytest.mark.e2e

DAEMONS = 4
COMMON = 3
"""Entries in which its two stories agree."""


class TwoFaced:
    """A member with a ticket and two stories.

    Attributes:
        common: the author up to where they part.
        invites: rounds that it was asked to take part in.
    """

    def __init__(self, mesh: Libp2pMesh) -> None:
        self._mesh = mesh
        self.linked: set[PeerId] = set()
        self.invites = 0
        self.common = Author("two-faced", COMMON)

    @property
    def peer(self) -> PeerId:
        return self.common.peer

    async def listen(self) -> None:
        while True:
            match await self._mesh.next_event():
                case PeerUp(link):
                    self.linked.add(link.peer)
                case Received(peer, payload) if isinstance(parse(payload).message, Invite):
                    self.invites += 1
                    # So that nobody waits for its answer.
                    self._mesh.send(peer, b"\xc1")

    async def give(self, to: PeerId, run: Run) -> wire.Gave:
        """Hand over ``run``; what it is told."""
        body = encode(wire.Give((run,), ()))
        return decode(await self._mesh.call(to, "ledger", body, 20.0), wire.Gave)


@asynccontextmanager
async def two_faced(*addresses: str) -> AsyncIterator[TwoFaced]:
    """A two-faced member that is linked with all of ``addresses``."""
    mesh = mesh_of("two-faced", *addresses)
    async with mesh.running(), trio.open_nursery() as nursery:
        made = TwoFaced(mesh)
        nursery.start_soon(made.listen)
        await until(lambda: len(made.linked) == len(addresses))
        yield made
        nursery.cancel_scope.cancel()


async def row_of(daemon: Member, peer: PeerId) -> dict[str, Any]:
    """What ``swarm peers`` says of one."""
    rows = [row for row in (await call(daemon, "peers"))["peers"] if row["peer"] == peer_text(peer)]
    return rows[0] if rows else {}


async def all_say(swarm: Sequence[Member], peer: PeerId, **wanted: Any) -> bool:
    rows = [await row_of(one, peer) for one in swarm]
    return all(row.get(key) == value for row in rows for key, value in wanted.items())


async def ask(daemon: Member) -> dict[str, Any]:
    params = {"question": QUESTION, "min_answers": DAEMONS}
    result: dict[str, Any] = await trio.to_thread.run_sync(
        lambda: daemon.client.call("ask", params, silence_s=60.0)
    )
    return result


def all_hold_the_proof(swarm: Sequence[Member], liar: TwoFaced) -> bool:
    """Whether each has on its disk the common part of the stories, and that they part there; and
    of nobody else that they said two things."""
    for one in swarm:
        chains = {chain.author: chain for chain in kept(one.data_dir)}
        if chains.keys() != {liar.peer, *map(peer_of, swarm)} or not chains[liar.peer].fork:
            return False
        found = chains.pop(liar.peer)
        assert found.bodies == liar.common.bodies
        place = stated_fork(found.fork, SWARM)
        assert (place.author, place.epoch, place.seq) == (liar.peer, liar.common.epoch, COMMON)
        assert all(chain.fork is None and chain.bodies for chain in chains.values())
    return True


async def test_all_freeze_it_at_one_entry_and_ask_it_no_more(
    tmp_path: Path, script: Callable[..., str]
) -> None:
    specs = [honest(script("42")) for _ in range(DAEMONS)]
    with daemons(tmp_path, specs) as swarm:
        members = swarm.members
        for one in members:
            swarm.launch(one)
        await until_serving(*members)
        async with two_faced(*(one.address for one in members)) as liar:
            for one in members:
                assert await liar.give(peer_of(one), liar.common.run()) == wire.Gave((), 0)
            label = f"two-faced {COMMON - 1}"
            await until(lambda: all_say(members, liar.peer, label=label, forked=False))
            result = await ask(members[0])
            assert liar.invites == 1, "while it is honest, it is asked"
            assert len(result["answers"]) == DAEMONS
            assert [row["peer"] for row in result["missing"]] == [peer_text(liar.peer)]

            stories = [liar.common.branch(f"story {at}") for at in range(2)]
            async with trio.open_nursery() as nursery:
                for at, one in enumerate(members):
                    run = stories[at % 2].run(COMMON - 1)
                    nursery.start_soon(liar.give, peer_of(one), run)
            await until(lambda: all_say(members, liar.peer, forked=True))
            found = await until_alike(members)
            assert found["authors"] == DAEMONS + 1
            for one in members:
                assert (await ledger(one))["forked"] == 1
                result = await ask(one)
                assert len(result["answers"]) == DAEMONS
                assert result["missing"] == []
            assert liar.invites == 1
            # It cannot go on, nor begin again, anywhere.
            for at, one in enumerate(members):
                for story in (stories[at % 2], liar.common.branch("story 2")):
                    gave = await liar.give(peer_of(one), story.run(COMMON))
                    assert gave == wire.Gave((), 1)
            assert {(await ledger(one))["root"] for one in members} == {found["root"]}

        await until(lambda: all_hold_the_proof(members, liar))
        swarm.kill(members[0])
        swarm.launch(members[0])
        await until_serving(members[0])
        assert (await until_alike(members))["forked"] == 1
        await until(lambda: all_hold_the_proof(members, liar))
