"""Events of all peers, merged fairly and held within bounds.

Every peer has a lane of its own, served in turn, so that a peer that floods fills its lane and
waits, while the others' events pass. The lane belongs to the peer, not to its connection: what a
peer sent before it reconnected is delivered before what it sends after.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

from node.mesh.base import MeshEvent, Received, Refused
from protocol import limits
from protocol.ids import PeerId

LANE_BYTES: Final = 2 * limits.FRAME_BYTES
"""Payload bytes of one peer that wait for the consumer."""
TOTAL_BYTES: Final = 64 * limits.FRAME_BYTES
"""Payload bytes of all peers; beyond it each peer may have one payload waiting."""
REFUSALS: Final = 256
"""Refused events that wait; further ones are dropped, since strangers cause them at will."""


class _Lane:
    __slots__ = ("bytes", "events")

    def __init__(self) -> None:
        self.events: deque[MeshEvent] = deque()
        self.bytes = 0


class Inbox:
    """What the mesh has to tell its one consumer."""

    def __init__(self) -> None:
        self._lanes: dict[PeerId | None, _Lane] = {}
        self._turns: deque[PeerId | None] = deque()
        self._bytes = 0
        self._filled = trio.Event()
        self._drained = trio.Event()

    def put(self, peer: PeerId | None, event: MeshEvent) -> None:
        """Append ``event`` to the lane of ``peer``, whether it is full or not."""
        lane = self._lanes.get(peer)
        if lane is None:
            lane = self._lanes[peer] = _Lane()
            self._turns.append(peer)
        lane.events.append(event)
        size = _size(event)
        lane.bytes += size
        self._bytes += size
        self._filled.set()

    def refuse(self, event: Refused) -> None:
        """Note that somebody was turned away, unless too many of those wait already."""
        lane = self._lanes.get(None)
        if lane is None or len(lane.events) < REFUSALS:
            self.put(None, event)

    def has_room(self, peer: PeerId) -> bool:
        """Whether ``peer`` may add a payload now."""
        lane = self._lanes.get(peer)
        if lane is None:
            return True
        return (
            len(lane.events) < limits.INBOX_MESSAGES
            and lane.bytes < LANE_BYTES
            and self._bytes < TOTAL_BYTES
        )

    async def room(self, peer: PeerId) -> None:
        """Wait until ``peer`` may add a payload."""
        while not self.has_room(peer):
            if self._drained.is_set():
                self._drained = trio.Event()
            await self._drained.wait()

    async def get(self) -> MeshEvent:
        """The next event, taking the peers in turn."""
        # One event a turn of the loop: what it causes must run before the next is taken.
        await trio.lowlevel.checkpoint()
        while not self._turns:
            self._filled = trio.Event()
            await self._filled.wait()
        peer = self._turns.popleft()
        lane = self._lanes[peer]
        event = lane.events.popleft()
        size = _size(event)
        lane.bytes -= size
        self._bytes -= size
        if lane.events:
            self._turns.append(peer)
        else:
            del self._lanes[peer]
        self._drained.set()
        return event


def _size(event: MeshEvent) -> int:
    return len(event.payload) if isinstance(event, Received) else 0
