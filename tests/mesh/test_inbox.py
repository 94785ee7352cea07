"""The inbox gives way: what one event causes runs before the next is taken."""

from __future__ import annotations

import trio

from node.mesh.base import Received
from node.mesh.inbox import Inbox
from protocol.ids import PeerId


async def test_others_run_between_two_events() -> None:
    inbox = Inbox()
    peer = PeerId(bytes(32))
    for number in range(5):
        inbox.put(peer, Received(peer, bytes([number])))
    log: list[str] = []

    async def other() -> None:
        while True:
            log.append("other")
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(5):
            await inbox.get()
            log.append("event")
        nursery.cancel_scope.cancel()
    # Tasks run once a turn in any order, so two events may touch across turns, but never three.
    assert "event event event" not in " ".join(log)
