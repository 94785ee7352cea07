"""Meshes of two kinds behind one way to make them, and how to wait for what they tell."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

import trio

from node.mesh.base import Mesh, MeshEvent, PeerUp
from node.mesh.host import Libp2pMesh
from node.mesh.peering import Peering, Settings
from tests.fakes.mesh import FakeNetwork

LIMIT_S = 20.0

Event = TypeVar("Event", bound=MeshEvent)


def key_seed(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


async def until(
    mesh: Mesh, kind: type[Event], suits: Callable[[Event], bool] = lambda event: True
) -> Event:
    """The next event of ``mesh`` of that kind, leaving out others."""
    with trio.fail_after(LIMIT_S):
        while True:
            event = await mesh.next_event()
            if isinstance(event, kind) and suits(event):
                return event


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait for what the library announces by no event."""
    with trio.fail_after(LIMIT_S):
        while not holds():  # noqa: ASYNC110
            await trio.sleep(0.001)


class World:
    """Makes meshes, all of one kind."""

    def __init__(self, network: FakeNetwork | None) -> None:
        self._network = network

    def mesh(
        self, name: str, bootstraps: Sequence[str] = (), swarm: str = "test", port: int = 0
    ) -> Peering:
        if self._network is not None:
            return self._network.mesh(name, bootstraps, swarm, port)
        listen = (f"/ip4/127.0.0.1/tcp/{port}",)
        settings = Settings(listen, tuple(bootstraps), swarm, f"test/{name}")
        return Libp2pMesh(key_seed(name), settings)

    @contextlib.asynccontextmanager
    async def pair(self, one: str = "one", other: str = "other") -> AsyncIterator[tuple[Any, Any]]:
        """Two meshes that have told of each other."""
        first = self.mesh(one)
        async with first.running():
            second = self.mesh(other, first.addresses())
            async with second.running():
                await until(first, PeerUp)
                await until(second, PeerUp)
                yield first, second
