"""A daemon that writes down what a peer sees of an asker: `python -m node.spy FILE [swarmd flags]`.

For `swarm eval detect`: it takes part honestly, and notes when which message of a round came.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO

import msgspec
import trio

from node import daemon
from node.config import Config
from node.identity import Identity
from node.mesh.base import Mesh, MeshEvent, Received
from node.mesh.proxy import MeshProxy
from protocol.errors import ProtocolError
from protocol.ids import RoundId
from protocol.messages import FromAsker, Invite, Roster, parse


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


class SpyMesh(MeshProxy):
    """A mesh that notes what others' rounds bring."""

    def __init__(self, honest: Mesh, notes: IO[bytes]) -> None:
        super().__init__(honest)
        self._notes = notes

    async def next_event(self) -> MeshEvent:
        """What comes in, noted."""
        event = await super().next_event()
        if isinstance(event, Received) and event.peer != self.peer_id:
            self._note(event.payload)
        return event

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
