"""The one seam between the mesh's own code and what carries its bytes."""

from __future__ import annotations

from typing import Protocol


class Wire(Protocol):
    """A byte stream to a peer whose key the transport has proven.

    Two carry the mesh: :class:`node.mesh.host.Libp2pWire` and, in tests, a pipe in memory.
    """

    @property
    def peer(self) -> str:
        """The peer id as text, of whatever key type."""
        ...

    @property
    def connection(self) -> object:
        """The connection this stream is on; streams of one connection give the same object."""
        ...

    def keep(self) -> None:
        """Say that the connection has become a link and must not be closed as idle."""
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

    async def close(self) -> None:
        """Close the connection. Raises nothing but cancellation."""
        ...
