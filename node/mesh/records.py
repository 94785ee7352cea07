"""Noise records between the socket and the muxer, in few steps.

The library takes each frame through seven layers on either side; most copy it, and most take a lock
that gives way to all other tasks. A small message cost ten turns of the event loop that way.
Here a record is sealed and written in one step where the socket has room, and all that has arrived
is opened into one buffer, from which the muxer cuts its frames.
"""

from __future__ import annotations

from typing import Any, Final

from libp2p.network.connection.raw_connection import RawConnection

LENGTH_BYTES: Final = 2


class Records:
    """The records of a Noise session whose handshake is over.

    Args:
        session: the library's ``SecureSession``; nobody else may read or write it from here on.

    Attributes:
        plain: what the peer has sent, decrypted; whoever takes bytes deletes them here.
    """

    def __init__(self, session: Any) -> None:
        state = session.conn.noise_state
        self._encrypt, self._decrypt = state.encrypt, state.decrypt
        self._raw = session.conn.read_writer.read_write_closer
        # A private swarm's connection has a cipher of its own below, which must see every byte.
        bare = type(self._raw) is RawConnection
        self._write_now = getattr(self._raw.stream, "write_now", None) if bare else None
        self._sealed = bytearray()
        # What came in one record with the end of the negotiation.
        self.plain = bytearray(session._drain(None))

    def seal(self, data: bytes) -> bytes:
        """``data`` as a record. Records are written whole and in this order."""
        record: bytes = self._encrypt(data)
        return len(record).to_bytes(LENGTH_BYTES, "big") + record

    def write_now(self, record: bytes) -> int:
        """Write as much of ``record`` as is taken without waiting; how many bytes that was."""
        written: int = 0 if self._write_now is None else self._write_now(record)
        return written

    async def write(self, rest: bytes) -> None:
        """Write what :meth:`write_now` has left of a record."""
        await self._raw.write(rest)

    async def more(self) -> bool:
        """Wait until something arrives, and open the records that are whole.

        Returns:
            False at the end of the connection.
        """
        data = await self._raw.read()
        sealed = self._sealed
        sealed += data
        at, have = 0, len(sealed)
        with memoryview(sealed) as view:
            while have - at >= LENGTH_BYTES:
                begin = at + LENGTH_BYTES
                end = begin + int.from_bytes(view[at:begin], "big")
                if end > have:
                    break
                self.plain += self._decrypt(bytes(view[begin:end]))
                at = end
        del sealed[:at]
        return bool(data)
