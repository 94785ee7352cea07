"""Whole nodes in one process under a virtual clock: real parts, fake wires and store."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

import trio

from node.backends.base import Backend
from node.backends.scripted import Script, ScriptedBackend
from node.calibrator import Calibrator
from node.conduct import Conduct
from node.coordinator import Coordinator
from node.herald import Herald
from node.knowledge import Knowledge
from node.planner import Planner, Terms
from node.reader import Reader
from node.router import Router
from node.worker import Worker
from protocol.envelope import KeySigner
from protocol.ids import PeerId
from protocol.ledger import Profile
from protocol.messages import Model
from swarm.calibration.items import Item
from swarm.registry import Registry
from swarm.topics import Topics
from tests.fakes.mesh import FakeMesh, FakeNetwork
from tests.fakes.own_log import FakeOwnLog
from tests.fakes.peer_records import FakePeerRecords
from tests.fakes.store import FakeStore
from tests.fakes.trial_records import FakeTrialRecords

T = TypeVar("T")

QUESTION = "What is 6 * 7?"
EPOCH = 1_700_000_000
"""Unix time at the start of the virtual clock."""


def unix_time() -> float:
    """Unix time under the virtual clock."""
    return EPOCH + trio.current_time()


async def inline(function: Callable[..., T], *arguments: object, **options: object) -> T:
    """Stands for ``trio.to_thread.run_sync``: a virtual clock would run on beside a thread."""
    await trio.lowlevel.checkpoint()
    return function(*arguments)


@cache
def topics() -> Topics:
    """The topics of the bundled task families, learnt once."""
    return Topics.learnt()


@dataclass
class Setup:
    """What a node is given.

    Attributes:
        records, trials: of an earlier node make it that node, restarted.
        topics: None: every topic is unknown.
        rate, per_hour: of hidden and of background calibration; neither runs where it is 0.
    """

    min_answers: int = 2
    records: FakePeerRecords = field(default_factory=FakePeerRecords)
    trials: FakeTrialRecords = field(default_factory=FakeTrialRecords)
    topics: Topics | None = None
    private: Sequence[Item] = ()
    trusted: Sequence[PeerId] = ()
    solo_guard: bool = True
    rate: float = 0.0
    per_hour: float = 0.0
    context_tokens: int = 4096
    energy: int = 0


def scripted(answer: str | None, truth: str = "42", delay_s: float = 0.5) -> ScriptedBackend:
    """A backend with one answer to everything and one truth."""
    return ScriptedBackend(
        Script(f"says {answer}", default=answer, truths={QUESTION: truth}, delay_s=delay_s)
    )


class VirtualNode:
    """One node, put together as the daemon does it. Made by :meth:`start`."""

    def __init__(
        self,
        nursery: trio.Nursery,
        mesh: FakeMesh,
        signer: KeySigner,
        backend: Backend,
        setup: Setup,
        log: FakeOwnLog,
        conduct: Conduct,
        knowledge: Knowledge,
    ) -> None:
        self.mesh = mesh
        self.log = log
        self.signer = signer
        self.store = FakeStore()
        self.records = setup.records
        self.trials = setup.trials
        self.conduct = conduct
        self.knowledge = knowledge
        info = backend.describe()
        model = Model(info.name, info.family, info.content_id)
        profile = Profile(model, 0, setup.context_tokens, serves=True, energy=setup.energy)
        self.registry = Registry(signer.peer, profile)
        self.worker = Worker(
            nursery, mesh.send, backend, model, signer, "test", setup.records, self.conduct
        )
        self.planner = Planner(
            self.registry, conduct, knowledge, "test", signer.peer, setup.solo_guard
        )
        terms = Terms(60.0, setup.min_answers)
        self.coordinator = Coordinator(
            post=mesh.send,
            store=self.store,
            signer=signer,
            registry=self.registry,
            planner=self.planner,
            knowledge=knowledge,
            conduct=conduct,
            terms=terms,
        )
        self.calibrator = Calibrator(
            self.coordinator,
            knowledge,
            self.registry,
            terms,
            setup.rate,
            setup.per_hour,
            b"when",
        )
        self.coordinator.on_question = self.calibrator.asked
        self.coordinator.on_answer = self.calibrator.answered
        self.reader = Reader(
            signer.peer, self.registry, knowledge.hearsay, conduct, self.coordinator, unix_time
        )
        log.changed = self.reader.changed
        log.describe(profile)
        self.herald = Herald(knowledge, log.tell, unix_time)
        self.router = Router(mesh, self.registry, self.worker, self.coordinator, log)

    @classmethod
    async def start(
        cls,
        nursery: trio.Nursery,
        mesh: FakeMesh,
        name: str,
        backend: Backend,
        setup: Setup | None = None,
    ) -> VirtualNode:
        """A running node."""
        setup = setup or Setup()
        signer = KeySigner(hashlib.sha256(name.encode()).digest())
        log = FakeOwnLog(mesh, unix_time)
        conduct = await Conduct.load(signer.peer, setup.records, log.testify, unix_time)
        knowledge = Knowledge(
            setup.trials,
            setup.topics or Topics(()),
            name.encode(),
            setup.private,
            await setup.trials.all(),
            await setup.trials.posed(),
            setup.trusted,
            clock=unix_time,
        )
        made = cls(nursery, mesh, signer, backend, setup, log, conduct, knowledge)
        nursery.start_soon(conduct.run)
        nursery.start_soon(log.run)
        nursery.start_soon(made.router.run)
        if setup.per_hour:
            nursery.start_soon(made.calibrator.run)
        if setup.rate:
            nursery.start_soon(made.calibrator.hide)
        return made

    @property
    def peer(self) -> PeerId:
        return self.mesh.peer_id


@asynccontextmanager
async def nodes(
    network: FakeNetwork,
    backends: Sequence[Backend],
    min_answers: int = 2,
    setups: Mapping[int, Setup] | None = None,
) -> AsyncIterator[list[VirtualNode]]:
    """Nodes that all know each other and each other's models.

    Args:
        setups: of nodes by number, where they differ.
    """
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        made: list[VirtualNode] = []
        for index, backend in enumerate(backends):
            setup = (setups or {}).get(index) or Setup(min_answers)
            known = [address for one in made for address in one.mesh.addresses()]
            mesh = network.mesh(f"node{index}", known)
            await stack.enter_async_context(mesh.running())
            made.append(await VirtualNode.start(nursery, mesh, f"node{index}", backend, setup))
        await acquainted(made)
        yield made
        nursery.cancel_scope.cancel()


async def acquainted(nodes: Sequence[VirtualNode]) -> None:
    """Wait until they all know each other."""
    with trio.fail_after(60):
        while any(len(one.registry.able()) < len(nodes) for one in nodes):  # noqa: ASYNC110
            await trio.sleep(0.01)
