"""Whole nodes in one process under a virtual clock: real parts, fake wires and store."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from node.backends.base import Backend
from node.backends.scripted import Script, ScriptedBackend
from node.coordinator import Coordinator
from node.router import Router
from node.worker import Worker
from protocol.envelope import KeySigner
from protocol.ids import PeerId
from protocol.messages import Model, Profile, seal
from swarm.registry import Registry
from tests.fakes.mesh import FakeMesh, FakeNetwork
from tests.fakes.store import FakeStore

QUESTION = "What is 6 * 7?"


def scripted(answer: str | None, truth: str = "42", delay_s: float = 0.5) -> ScriptedBackend:
    """A backend with one answer to everything and one truth."""
    return ScriptedBackend(
        Script(f"says {answer}", default=answer, truths={QUESTION: truth}, delay_s=delay_s)
    )


class VirtualNode:
    """One node, put together as the daemon does it."""

    def __init__(
        self, nursery: trio.Nursery, mesh: FakeMesh, name: str, backend: Backend, min_answers: int
    ) -> None:
        self.mesh = mesh
        self.signer = KeySigner(hashlib.sha256(name.encode()).digest())
        self.store = FakeStore()
        self.registry = Registry()
        info = backend.describe()
        model = Model(info.name, info.family, info.content_id)
        self.worker = Worker(nursery, mesh.send, backend, model, self.signer, "test")
        self.coordinator = Coordinator(
            mesh.send, self.store, self.signer, self.registry, "test", 60.0, min_answers
        )
        profile = seal(self.signer, Profile(model, 0, 4096, serves=True))
        self.router = Router(mesh, self.registry, self.worker, self.coordinator, profile)

    @property
    def peer(self) -> PeerId:
        return self.mesh.peer_id


@asynccontextmanager
async def nodes(
    network: FakeNetwork, backends: Sequence[Backend], min_answers: int = 2
) -> AsyncIterator[list[VirtualNode]]:
    """Nodes that all know each other and each other's models."""
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        made: list[VirtualNode] = []
        for index, backend in enumerate(backends):
            known = [address for one in made for address in one.mesh.addresses()]
            mesh = network.mesh(f"node{index}", known)
            await stack.enter_async_context(mesh.running())
            made.append(VirtualNode(nursery, mesh, f"node{index}", backend, min_answers))
            nursery.start_soon(made[-1].router.run)
        with trio.fail_after(60):
            while any(len(one.registry.able()) < len(made) for one in made):  # noqa: ASYNC110
                await trio.sleep(0.01)
        yield made
        nursery.cancel_scope.cancel()
