"""A daemon that writes down what a peer sees of an asker: `python -m node.spy FILE [swarmd flags]`.

For `swarm eval detect`: it takes part honestly, and notes when which message of a round came.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import msgspec
import trio

from node import daemon
from node.config import Config
from node.identity import Identity
from node.mesh.base import Link, Mesh, MeshEvent, Received
from node.mesh.report import MeshReport
from protocol.errors import ProtocolError
from protocol.ids import PeerId, RoundId
from protocol.messages import FromAsker, Invite, Roster, parse
from protocol.presence import Presence


class Sighting(msgspec.Struct, frozen=True):
    """One message of an asker.

    Attributes:
        at: seconds on the spy's clock.
        kind: the type of the message.
        size: of the payload, in bytes.
        peers: on a Roster, how many.
    """

    at: float
    round: str
    kind: str
    size: int
    question: str = ""
    commit_ms: int = 0
    reveal_ms: int = 0
    judge_ms: int = 0
    answer_bytes: int = 0
    answer_tokens: int = 0
    peers: int = 0


class SpyMesh:
    """A mesh that notes what others' rounds bring."""

    def __init__(self, honest: Mesh, notes: IO[bytes]) -> None:
        self._honest = honest
        self._notes = notes

    @property
    def peer_id(self) -> PeerId:
        """Oneself."""
        return self._honest.peer_id

    def addresses(self) -> tuple[str, ...]:
        """Where others can dial."""
        return self._honest.addresses()

    def links(self) -> tuple[Link, ...]:
        """Who is connected."""
        return self._honest.links()

    def send(self, peer: PeerId, payload: bytes) -> None:
        """Queue ``payload``."""
        self._honest.send(peer, payload)

    def dial(self, address: str) -> None:
        """Connect to ``address``."""
        self._honest.dial(address)

    def disconnect(self, peer: PeerId, reason: str) -> None:
        """Hang up."""
        self._honest.disconnect(peer, reason)

    async def next_event(self) -> MeshEvent:
        """What comes in, noted."""
        event = await self._honest.next_event()
        if isinstance(event, Received) and event.peer != self.peer_id:
            self._note(event.payload)
        return event

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """As the honest mesh."""
        async with self._honest.running():
            yield

    async def call(self, peer: PeerId, method: str, body: bytes, limit_s: float) -> bytes:
        """As the honest mesh."""
        return await self._honest.call(peer, method, body, limit_s)

    def answer(self, method: str, answer: Callable[[PeerId, bytes], Awaitable[bytes]]) -> None:
        """As the honest mesh."""
        self._honest.answer(method, answer)

    async def find(self, peer: PeerId, look_up: bool) -> tuple[str, Presence | None]:
        """As the honest mesh."""
        return await self._honest.find(peer, look_up)

    def report(self) -> MeshReport:
        """As the honest mesh."""
        return self._honest.report()

    def _note(self, payload: bytes) -> None:
        try:
            incoming = parse(payload)
        except ProtocolError:
            return
        message = incoming.message
        if not isinstance(message, FromAsker):
            return
        at, size, kind = trio.current_time(), len(payload), type(message).__name__
        if isinstance(message, Invite):
            seen = Sighting(
                at,
                RoundId(incoming.envelope.digest).hex(),
                kind,
                size,
                message.question,
                message.phases.commit,
                message.phases.reveal,
                message.phases.judge,
                message.answer_bytes,
                message.answer_tokens,
            )
        else:
            peers = len(message.entries) if isinstance(message, Roster) else 0
            seen = Sighting(at, message.round.hex(), kind, size, peers=peers)
        self._notes.write(msgspec.json.encode(seen) + b"\n")
        self._notes.flush()


def main() -> int:
    """Run the daemon, its notes in the file named first."""
    with Path(sys.argv[1]).open("ab") as notes:

        def make_mesh(settings: Config, identity: Identity) -> Mesh:
            return SpyMesh(daemon.libp2p_mesh(settings, identity), notes)

        return daemon.main(sys.argv[2:], make_mesh)


if __name__ == "__main__":
    sys.exit(main())
