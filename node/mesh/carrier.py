"""A py-libp2p connection and its streams, as :mod:`node.mesh.wire` wants them."""

from __future__ import annotations

import contextlib
from typing import Any, Final

import trio
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.rcmgr import Direction

from node.mesh.address import Address, of_socket
from node.mesh.link import CLOSE_LIMIT_S, shielded

OPEN_LIMIT_S: Final = 8.0
"""Opening a stream and agreeing on its protocol."""


def carrier_of(connection: Any) -> Libp2pCarrier:
    """The carrier over a ``SwarmConn``: one for each, however often it is asked for."""
    muxer = connection.muxed_conn
    carrier = getattr(muxer, "carrier", None)
    if carrier is None:
        carrier = muxer.carrier = Libp2pCarrier(connection)
    return carrier


class Libp2pCarrier:
    """A :class:`node.mesh.wire.Carrier` over one libp2p connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._muxer = connection.muxed_conn
        # Noise and the muxer wrap it, and pass on no more than its socket address.
        self._raw = self._muxer.secured_conn.conn.read_writer.read_write_closer

    @property
    def peer(self) -> str:
        """The peer id that the Noise handshake proved."""
        return str(self._muxer.peer_id)

    @property
    def address(self) -> Address | None:
        """The peer's end of the TCP connection, or the circuit."""
        circuit: Address | None = getattr(self._raw.stream, "circuit", None)
        if circuit is not None:
            return circuit
        remote = self._raw.get_remote_address()
        return None if remote is None else of_socket(*remote)

    @property
    def source(self) -> Address | None:
        """This end of the TCP connection."""
        stream = self._raw.stream
        if self.relayed or stream is None:
            return None
        try:
            return of_socket(*stream.stream.socket.getsockname()[:2])
        except OSError:
            return None

    @property
    def relayed(self) -> bool:
        """Whether a relay is in between."""
        return getattr(self._raw.stream, "circuit", None) is not None

    @property
    def dialled(self) -> bool:
        """Whether this side made the connection."""
        return bool(self._connection.direction == Direction.OUTBOUND)

    @property
    def rtt_s(self) -> float | None:
        """The round trip of the last ping."""
        rtt: float | None = self._muxer.rtt_s
        return rtt

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return bool(self._muxer.event_closed.is_set())

    @property
    def held(self) -> int:
        """How many hold it."""
        held: int = self._muxer.held
        return held

    def hold(self) -> None:
        """Keep the connection open, once more."""
        self._muxer.hold()

    def release(self) -> None:
        """Take one hold back."""
        self._muxer.release()

    async def wait_closed(self) -> None:
        """Return once it has ended."""
        await self._muxer.event_closed.wait()

    async def open(self, protocol: str) -> Libp2pWire:
        """A fresh stream that speaks ``protocol``."""
        try:
            with trio.fail_after(OPEN_LIMIT_S):
                stream = await self._connection.new_stream()
                try:
                    await MultiselectClient().select_one_of(
                        [protocol], MultiselectCommunicator(stream), int(OPEN_LIMIT_S)
                    )
                except BaseException:
                    with shielded(CLOSE_LIMIT_S), contextlib.suppress(Exception):
                        await stream.reset()
                    raise
        except Exception as error:
            raise trio.BrokenResourceError(
                f"no stream for {protocol}: {reason_of(error)}"
            ) from error
        return Libp2pWire(stream)

    async def close(self) -> None:
        """Close the connection."""
        with shielded(CLOSE_LIMIT_S), contextlib.suppress(Exception):
            await self._connection.close()


class Libp2pWire:
    """A :class:`node.mesh.wire.Wire` over one libp2p stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._muxer = stream.muxed_conn
        # Under the library's own stream, which takes a lock for each read and each write.
        self._muxed = stream.muxed_stream
        self._muxer.served += 1
        self._counted = True

    @property
    def peer(self) -> str:
        """The peer id that the Noise handshake proved."""
        return str(self._muxer.peer_id)

    @property
    def carrier(self) -> Libp2pCarrier:
        """The connection under the stream."""
        return carrier_of(self._stream.swarm_conn)

    async def read(self, most: int) -> bytes:
        """What has arrived, at most ``most`` bytes; ``b""`` at the end."""
        try:
            data: bytes = await self._muxed.read(most)
        except Exception as error:
            # The library reports the end of a stream as an error, and that of its connection too.
            if isinstance(error, EOFError) and not self._muxer.event_shutting_down.is_set():
                return b""
            raise trio.BrokenResourceError(reason_of(error)) from error
        return data

    async def write(self, data: bytes) -> None:
        """Send all of ``data``."""
        try:
            await self._muxed.write(data)
        except Exception as error:
            raise trio.BrokenResourceError(reason_of(error)) from error

    async def end_writing(self) -> None:
        """Half-close."""
        try:
            await self._stream.close_write()
        except Exception as error:
            raise trio.BrokenResourceError(reason_of(error)) from error

    async def reset(self) -> None:
        """Cut the stream."""
        if self._counted:
            self._counted = False
            self._muxer.served -= 1
        with contextlib.suppress(Exception):
            await self._stream.reset()


def reason_of(error: BaseException) -> str:
    """What happened, from the innermost error that says anything."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    return next((str(cause) for cause in reversed(causes) if str(cause)), type(error).__name__)
