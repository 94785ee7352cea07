"""A real daemon with one vice: `python -m tests.e2e.hostile VICE [swarmd flags]`.

It is the product in every other respect. What it sends passes through a vice, which may drop,
change, delay or repeat it, or end the process.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from node import daemon
from node.config import Config
from node.identity import Identity
from node.mesh.base import Mesh, MeshEvent, Received
from node.mesh.proxy import MeshProxy
from protocol.codec import encode
from protocol.envelope import KeySigner
from protocol.errors import ProtocolError
from protocol.ids import PeerId
from protocol.messages import Ballot, Commit, Invite, Message, Reveal, Row, parse, seal

Vice = Callable[["HostileMesh", PeerId, bytes, Message], Sequence[bytes]]


def die(mesh: HostileMesh, peer: PeerId, payload: bytes, message: Message) -> Sequence[bytes]:
    """As a power cut."""
    os.kill(os.getpid(), signal.SIGKILL)
    return ()


def die_before_reveal(
    mesh: HostileMesh, peer: PeerId, payload: bytes, message: Message
) -> Sequence[bytes]:
    """Commits, then dies."""
    return die(mesh, peer, payload, message) if isinstance(message, Reveal) else [payload]


def die_judging(
    mesh: HostileMesh, peer: PeerId, payload: bytes, message: Message
) -> Sequence[bytes]:
    """Reveals, then dies over its ballot."""
    return die(mesh, peer, payload, message) if isinstance(message, Ballot) else [payload]


def garbage(mesh: HostileMesh, peer: PeerId, payload: bytes, message: Message) -> Sequence[bytes]:
    """Sends noise where a Commit belongs."""
    return [b"\xc1" * 100] if isinstance(message, Commit) else [payload]


def mismatch(mesh: HostileMesh, peer: PeerId, payload: bytes, message: Message) -> Sequence[bytes]:
    """Reveals another answer than it committed to."""
    if not isinstance(message, Reveal):
        return [payload]
    other = Reveal(message.round, message.roster, message.salt, message.answer + "0")
    return [mesh.sealed(other)]


def equivocate(
    mesh: HostileMesh, peer: PeerId, payload: bytes, message: Message
) -> Sequence[bytes]:
    """Sends two ballots that differ."""
    if not isinstance(message, Ballot):
        return [payload]
    rows = tuple(Row(row.first, row.second, None) for row in message.rows)
    other = Ballot(message.round, message.slate, message.wave, message.follows, rows)
    return [payload, mesh.sealed(other)]


def late(mesh: HostileMesh, peer: PeerId, payload: bytes, message: Message) -> Sequence[bytes]:
    """Commits after the deadline."""
    if not isinstance(message, Commit):
        return [payload]
    mesh.later(peer, payload)
    return ()


def stall(mesh: HostileMesh, peer: PeerId, payload: bytes, message: Message) -> Sequence[bytes]:
    """Never commits."""
    return () if isinstance(message, Commit) else [payload]


VICES: dict[str, Vice] = {
    one.__name__: one
    for one in (die_before_reveal, die_judging, garbage, mismatch, equivocate, late, stall)
}
LATE_BY_S = 0.3


class HostileMesh(MeshProxy):
    """A mesh whose sending passes through a vice."""

    def __init__(self, honest: Mesh, identity: Identity, vice: Vice) -> None:
        super().__init__(honest)
        self._vice = vice
        self._signer = KeySigner(identity.seed)
        self._nursery: trio.Nursery | None = None
        self._commit_s = 0.0

    def sealed(self, message: Message) -> bytes:
        """``message`` under this node's own signature."""
        return encode(seal(self._signer, message))

    def send(self, peer: PeerId, payload: bytes) -> None:
        message = parse(payload).message
        for changed in self._vice(self, peer, payload, message):
            super().send(peer, changed)

    def later(self, peer: PeerId, payload: bytes) -> None:
        """Send a little after the commit phase."""

        async def wait() -> None:
            await trio.sleep(self._commit_s + LATE_BY_S)
            self._honest.send(peer, payload)

        assert self._nursery is not None
        self._nursery.start_soon(wait)

    async def next_event(self) -> MeshEvent:
        event = await super().next_event()
        if isinstance(event, Received):
            try:
                message = parse(event.payload).message
            except ProtocolError:
                return event
            if isinstance(message, Invite):
                self._commit_s = message.phases.commit / 1000
        return event

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with super().running(), trio.open_nursery() as nursery:
            self._nursery = nursery
            yield
            nursery.cancel_scope.cancel()


def main() -> int:
    """Run the daemon with the vice named first."""
    vice = VICES[sys.argv[1]]

    def make_mesh(settings: Config, identity: Identity) -> Mesh:
        return HostileMesh(daemon.libp2p_mesh(settings, identity), identity, vice)

    return daemon.main(sys.argv[2:], make_mesh)


if __name__ == "__main__":
    sys.exit(main())
