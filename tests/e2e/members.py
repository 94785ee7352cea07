"""Members of a private swarm inside a test: what the product replicates with, over real links to
real daemons, where a test can look into it."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from copy import copy
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import trio

from node.local_swarm import LocalSwarm, Member, Spec
from node.mesh.base import PeerDown, PeerUp
from node.mesh.host import Libp2pMesh
from node.mesh.peering import Settings
from node.mesh.proxy import MeshProxy
from node.replication.assembly import open_replication
from node.replication.database import Kept, read_only
from node.replication.service import Replication
from protocol.codec import decode, encode
from protocol.envelope import KeySigner
from protocol.errors import DaemonGoneError, DaemonSilentError, NoDaemonError
from protocol.ids import PeerId, parse_peer
from protocol.ledger import (
    Capability,
    Checkpoint,
    Content,
    Profile,
    Run,
    epoch_of,
    first_entry,
    next_entry,
    sign,
)
from protocol.messages import Model
from protocol.sync import AnyRequest
from swarm.ledger.admission import Certificates
from swarm.ledger.chain import Chain
from swarm.ledger.document import Document, client_of
from swarm.ledger.replica import Replica
from swarm.ledger.state import state, updates, values_of

SWARM: Final = "local"
"""That of a :class:`node.local_swarm.LocalSwarm`."""
KEY: Final = sha256(b"the key of the swarm in these tests").digest()
LIMIT_S: Final = 120.0
"""Longer than anything takes on a machine that has other things to do."""
POLL_S: Final = 0.02

Serve = Callable[[PeerId, bytes], Awaitable[bytes]]
OnRequest = Callable[[PeerId, AnyRequest], None]


def seed_of(name: str) -> bytes:
    """Of the key of whom tests call ``name``."""
    return sha256(b"member " + name.encode()).digest()


def signer_of(name: str) -> KeySigner:
    """Signs for whom tests call ``name``."""
    return KeySigner(seed_of(name))


def profile_of(name: str, label: str = "", serves: bool = False) -> Profile:
    """What a member says that it runs."""
    return Profile(Model(name, "test", ""), 0, 0, serves, label=label)


# --- logs -----------------------------------------------------------------------------------------


class Author:
    """A member's log of this epoch, which need not be a member that is there.

    Attributes:
        bodies: its entries.
    """

    def __init__(self, name: str, entries: int = 1, label: str = "") -> None:
        self.signer = signer_of(name)
        self.peer = self.signer.peer
        self.epoch = epoch_of(time.time())
        self.bodies: list[bytes] = []
        self._document = Document(client_of(self.peer, self.epoch))
        self.label(label or name)
        for at in range(1, entries):
            self.label(f"{name} {at}")

    def branch(self, label: str) -> Author:
        """The same author, who says something else from here on."""
        twin = copy(self)
        twin.bodies = list(self.bodies)
        client = client_of(self.peer, self.epoch)
        twin._document = Document.resumed(updates(self.bodies), client)
        twin.label(label)
        return twin

    def label(self, text: str) -> None:
        """Append an entry that says so."""
        self._write(values_of(profile_of("author", text, serves=True)))

    def note(self, text: bytes) -> None:
        """Append an entry that says so, in a field that nobody knows."""
        self._write({"note": text})

    def _write(self, values: dict[str, bytes]) -> None:
        update = self._document.set(values)
        assert update is not None
        self.say(Capability(update) if self.bodies else Checkpoint(update, (), ()))

    def say(self, content: Content) -> None:
        """Append an entry."""
        at = int(time.time())
        if self.bodies:
            entry = next_entry(self.bodies[-1], at, content)
        else:
            assert isinstance(content, Checkpoint)
            entry = first_entry(SWARM, self.peer, at, content)
        self.bodies.append(encode(entry))

    @property
    def ticket(self) -> bytes:
        """What admits it."""
        return Certificates(SWARM, KEY).issue(self.peer, self.epoch)

    def run(self, first: int = 0) -> Run:
        """Its entries from ``first`` on, with its ticket."""
        return sign(self.signer, self.bodies[first:], self.ticket)


def on_disk(data_dir: Path, own: PeerId) -> Replica:
    """What is in the database of a node that may have been stopped at any time.

    Raises:
        ProtocolError: it is not what a node may have held.
    """
    found = Replica(SWARM, Certificates(SWARM, KEY), own)
    for one in kept(data_dir):
        assert one.intact
        assert one.swarm == SWARM
        found.restore(
            one.author, one.epoch, one.bodies, one.signatures, one.ticket, one.quality, one.fork
        )
    return found


def kept(data_dir: Path) -> Iterator[Kept]:
    """The chains in the database of a node."""
    return read_only(data_dir)


def bodies(chain: Chain | None) -> list[bytes]:
    """The entries of a chain; none where nothing is held."""
    return chain.bodies if chain is not None else []


# --- members in the test --------------------------------------------------------------------------


class WatchedMesh(MeshProxy):
    """Tells what peers ask.

    Attributes:
        asked: called with each request.
        answers: requests are answered while it is set.
    """

    def __init__(self, honest: Libp2pMesh) -> None:
        super().__init__(honest)
        self.asked: OnRequest = _nothing
        self.answers = trio.Event()
        self.answers.set()

    def answer(self, method: str, answer: Serve) -> None:
        async def watched(peer: PeerId, body: bytes) -> bytes:
            self.asked(peer, decode(body, AnyRequest))
            await self.answers.wait()
            return await answer(peer, body)

        super().answer(method, watched)


def _nothing(peer: PeerId, request: AnyRequest) -> None:
    pass


class Node:
    """A member that replicates, and does nothing else."""

    def __init__(self, mesh: WatchedMesh, replication: Replication) -> None:
        self.mesh = mesh
        self.replication = replication
        self.replica = replication._replica
        self.own = replication.own

    @property
    def peer(self) -> PeerId:
        return self.mesh.peer_id

    @property
    def address(self) -> str:
        """Where it can be reached."""
        return self.mesh.addresses()[0]

    def chain(self, author: PeerId) -> Chain | None:
        """What it holds of an author now."""
        return self.replica.latest(author)

    def label(self, author: PeerId) -> str:
        """What it has read that an author is called."""
        chain = self.chain(author)
        profile = state(chain).profile if chain is not None else None
        return profile.label if profile is not None else ""

    async def hold(self, authors: Sequence[Author], fresh: bool = False) -> None:
        """Take logs from nowhere.

        Args:
            fresh: they are handed on at once, too.
        """
        runs = [one.run() for one in authors]
        for one in await self.replication.take(runs, [], None, fresh):
            assert one, one

    async def root(self) -> str:
        """Of all that it holds."""
        return (await self.replication.report()).root

    async def follow_links(self) -> None:
        while True:
            match await self.mesh.next_event():
                case PeerUp(link):
                    self.replication.linked(link)
                case PeerDown(peer, _):
                    self.replication.unlinked(peer)


def settings_of(name: str, *bootstraps: str, listen: bool = True) -> Settings:
    """Of a mesh of the private swarm, on loopback."""
    sockets = ("/ip4/127.0.0.1/tcp/0",) if listen else ()
    return Settings(sockets, bootstraps, SWARM, f"test/{name}", swarm_key=KEY, relays=False)


def mesh_of(name: str, *bootstraps: str) -> Libp2pMesh:
    """A mesh of the private swarm."""
    return Libp2pMesh(seed_of(name), settings_of(name, *bootstraps))


@asynccontextmanager
async def joined(root: Path, name: str, *bootstraps: str) -> AsyncIterator[Node]:
    """A member that keeps its database below ``root``."""
    data_dir = root / name
    data_dir.mkdir(parents=True, exist_ok=True)
    mesh = WatchedMesh(mesh_of(name, *bootstraps))
    rng = random.Random(name)
    async with (
        open_replication(data_dir, mesh, signer_of(name), SWARM, KEY, False, rng) as replication,
        mesh.running(),
        trio.open_nursery() as nursery,
    ):
        node = Node(mesh, replication)
        node.own.describe(profile_of(name))
        await nursery.start(replication.run)
        nursery.start_soon(node.follow_links)
        yield node
        nursery.cancel_scope.cancel()


# --- daemons --------------------------------------------------------------------------------------


@contextmanager
def daemons(root: Path, specs: Sequence[Spec], *nodes: Node) -> Iterator[LocalSwarm]:
    """Daemons of the private swarm, none of which runs yet. They will be linked with ``nodes``."""
    key = root / "swarm.key"
    key.touch(0o600)
    key.write_text(KEY.hex())
    flags = (f"--swarm-key={key}", *(f"--bootstrap={node.address}" for node in nodes))
    told = [Spec(one.model, one.backend, one.program, (*one.flags, *flags)) for one in specs]
    with LocalSwarm(told, root / "daemons", SWARM) as swarm:
        yield swarm


def peer_of(daemon: Member) -> PeerId:
    """Who a daemon is."""
    return parse_peer(daemon.peer)


async def call(daemon: Member, method: str, **params: Any) -> Any:
    """What a daemon answers on its control socket; None while it does not serve."""
    try:
        return await trio.to_thread.run_sync(lambda: daemon.client.call(method, params))
    except (NoDaemonError, DaemonGoneError, DaemonSilentError):
        return None


async def ledger(daemon: Member) -> dict[str, Any]:
    """What ``swarm status`` says of logs; empty while it does not serve."""
    status = await call(daemon, "status")
    return status["ledger"] if status is not None else {}


async def until(condition: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    """What ``condition`` returns, or what it waits for, once that is true."""
    with trio.fail_after(limit_s):
        while True:
            found = condition()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return found
            await trio.sleep(POLL_S)


async def until_serving(*running: Member) -> None:
    """Wait until daemons answer."""
    for one in running:

        async def serves(one: Member = one) -> bool:
            assert one.process is not None
            assert one.process.poll() is None, one.log.read_text()[-4000:]
            return bool(await ledger(one))

        await until(serves)


async def until_alike(running: Sequence[Member], *nodes: Node) -> dict[str, Any]:
    """Wait until all hold the same; what the first daemon says of it."""

    async def alike() -> dict[str, Any] | None:
        found = [await ledger(one) for one in running]
        roots = {one.get("root") for one in found} | {await node.root() for node in nodes}
        return found[0] if len(roots) == 1 and found[0] else None

    result: dict[str, Any] = await until(alike)
    return result
