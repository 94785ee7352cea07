"""The seam between the mesh's own code and what carries its bytes.

Two kinds carry the mesh: :mod:`node.mesh.carrier` over py-libp2p and, in tests, pipes in memory.
"""

from __future__ import annotations

from typing import Protocol

from node.mesh.address import Address


class Carrier(Protocol):
    """An authenticated connection to a peer, on which either side opens streams.

    Who needs it holds it; one that nobody holds is closed after a while.
    """

    @property
    def peer(self) -> str:
        """The peer id as text, of whatever key type, that the handshake has proven."""
        ...

    @property
    def address(self) -> Address | None:
        """The other end: its socket, or the circuit it is reached by; None where unknown."""
        ...

    @property
    def source(self) -> Address | None:
        """This end's socket; None where unknown, or of a circuit."""
        ...

    @property
    def relayed(self) -> bool:
        """Whether a relay is in between."""
        ...

    @property
    def dialled(self) -> bool:
        """Whether this side made the connection."""
        ...

    @property
    def rtt_s(self) -> float | None:
        """The round trip last measured, in seconds."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        ...

    async def open(self, protocol: str) -> Wire:
        """A fresh stream that speaks ``protocol``.

        Raises:
            trio.BrokenResourceError: the connection is cut, or the peer does not speak that.
        """
        ...

    def hold(self) -> None:
        """Keep the connection open, once more."""
        ...

    def release(self) -> None:
        """Take one :meth:`hold` back."""
        ...

    @property
    def held(self) -> int:
        """How many hold it."""
        ...

    async def wait_closed(self) -> None:
        """Return once it has ended."""
        ...

    async def close(self) -> None:
        """Close it. Raises nothing but cancellation."""
        ...


class Wire(Protocol):
    """A byte stream to a peer whose key the transport has proven."""

    @property
    def peer(self) -> str:
        """The peer id as text, of whatever key type."""
        ...

    @property
    def carrier(self) -> Carrier:
        """The connection this stream is on."""
        ...

    async def read(self, most: int) -> bytes:
        """What has arrived, at most ``most`` bytes; ``b""`` at the end of the stream.

        Raises:
            trio.BrokenResourceError: the stream or the connection was cut.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Send all of ``data``, waiting while the peer has no room for it.

        Raises:
            trio.BrokenResourceError: as for reading, or the peer took nothing for too long.
        """
        ...

    async def end_writing(self) -> None:
        """Let the peer read to the end of what was written.

        Raises:
            trio.BrokenResourceError: as for reading.
        """
        ...

    async def reset(self) -> None:
        """Cut the stream and leave its connection alone. Raises nothing but cancellation."""
        ...
