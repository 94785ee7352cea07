"""A mesh that passes everything on to another, for whoever wants to change one thing about it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from node.mesh.base import Link, Mesh, MeshEvent
from node.mesh.report import MeshReport
from protocol.ids import PeerId
from protocol.presence import Presence


class MeshProxy:
    """A :class:`node.mesh.base.Mesh` as ``honest`` is."""

    def __init__(self, honest: Mesh) -> None:
        self._honest = honest

    @property
    def peer_id(self) -> PeerId:
        """As the honest mesh."""
        return self._honest.peer_id

    def addresses(self) -> tuple[str, ...]:
        """As the honest mesh."""
        return self._honest.addresses()

    def links(self) -> tuple[Link, ...]:
        """As the honest mesh."""
        return self._honest.links()

    def send(self, peer: PeerId, payload: bytes) -> None:
        """As the honest mesh."""
        self._honest.send(peer, payload)

    async def next_event(self) -> MeshEvent:
        """As the honest mesh."""
        return await self._honest.next_event()

    def dial(self, address: str) -> None:
        """As the honest mesh."""
        self._honest.dial(address)

    def disconnect(self, peer: PeerId, reason: str) -> None:
        """As the honest mesh."""
        self._honest.disconnect(peer, reason)

    async def call(self, peer: PeerId, method: str, body: bytes, limit_s: float) -> bytes:
        """As the honest mesh."""
        return await self._honest.call(peer, method, body, limit_s)

    def answer(self, method: str, answer: Callable[[PeerId, bytes], Awaitable[bytes]]) -> None:
        """As the honest mesh."""
        self._honest.answer(method, answer)

    def present(self) -> Mapping[PeerId, Presence]:
        """As the honest mesh."""
        return self._honest.present()

    async def find(self, peer: PeerId, look_up: bool) -> tuple[str, Presence | None]:
        """As the honest mesh."""
        return await self._honest.find(peer, look_up)

    def report(self) -> MeshReport:
        """As the honest mesh."""
        return self._honest.report()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """As the honest mesh."""
        async with self._honest.running():
            yield
