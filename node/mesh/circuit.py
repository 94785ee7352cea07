"""Connections through a relay, made and accepted: the client's side of circuit relay v2.

The wire protocol is that of https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md. A
circuit is one stream to the relay on each side; once all have agreed it carries what a TCP
connection would, and the two peers shake hands through it. The relay sees nothing but ciphertext.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import trio
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Status, StopMessage

from node.mesh.address import Address
from node.mesh.carrier import reason_of
from node.mesh.harden import BufferedTCPStream
from node.mesh.link import CLOSE_LIMIT_S, shielded
from node.mesh.proto import (
    HANDSHAKE_LIMIT_S,
    Message,
    answer,
    enum_name,
    finish,
    peer_name,
    read_message,
    write_message,
)
from node.mesh.wire import Carrier, Wire
from protocol import limits
from protocol.errors import CircuitError, MalformedIdError, ProtocolError
from protocol.ids import PeerId, parse_peer, peer_text

HOP_ID: Final = "/libp2p/circuit/relay/0.2.0/hop"
STOP_ID: Final = "/libp2p/circuit/relay/0.2.0/stop"

SHORTEST_S: Final = 60.0
"""A reservation is taken to last at least this long, and ``limits.RESERVATION_S`` at most, whatever
the relay's clock says: its Unix time and ours need not agree."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Reservation:
    carrier: Carrier
    until: float

    @property
    def holds(self) -> bool:
        return not self.carrier.closed and trio.current_time() < self.until


class CircuitClient:
    """Dials and accepts circuits.

    Args:
        upgrade: shakes hands over a circuit with the peer that has to prove itself, as initiator
            or not; returns the connection or raises anything.
        clock: Unix time in seconds.

    Attributes:
        refused: how many circuits to this node were refused or failed, by reason.
    """

    def __init__(
        self,
        upgrade: Callable[[CircuitStream, PeerId, bool], Awaitable[Carrier]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.refused: Counter[str] = Counter()
        self._upgrade = upgrade
        self._clock = clock
        self._reservations: dict[str, _Reservation] = {}
        self._accepted = 0

    async def dial(self, relay: Carrier, address: Address) -> Carrier:
        """A connection to ``address.peer`` through the relay at the other end of ``relay``.

        Raises:
            CircuitError: the relay refuses, or the peer does not prove itself.
        """
        assert address.peer is not None
        request = HopMessage(type=HopMessage.CONNECT)
        request.peer.id = ID.from_base58(peer_text(address.peer)).to_bytes()
        wire, _ = await _ask(relay, request)
        stream = CircuitStream(wire, address)
        try:
            with trio.fail_after(HANDSHAKE_LIMIT_S):
                return await self._upgrade(stream, address.peer, True)
        except BaseException as error:
            await stream.close()
            if not isinstance(error, Exception):
                raise
            late = isinstance(error, trio.TooSlowError)
            reason = "the peer does not shake hands in time" if late else reason_of(error)
            raise CircuitError(f"{address}: {reason}.") from error

    async def reserve(self, relay: Carrier) -> float:
        """Have circuits to this node made by the relay at the other end of ``relay``.

        Whoever wants the reservation to last holds the connection and asks again in time.

        Returns:
            for how many seconds it is good.

        Raises:
            CircuitError: the relay refuses, or has a key that no address of ours can name.
        """
        try:
            parse_peer(relay.peer)
        except MalformedIdError as error:
            raise CircuitError(str(error)) from error
        wire, reply = await _ask(relay, HopMessage(type=HopMessage.RESERVE))
        await finish(wire)
        promised: float = reply.reservation.expire - self._clock()
        good_s = min(max(promised, SHORTEST_S), float(limits.RESERVATION_S))
        for peer in [peer for peer, one in self._reservations.items() if not one.holds]:
            del self._reservations[peer]
        self._reservations[relay.peer] = _Reservation(relay, trio.current_time() + good_s)
        return good_s

    async def accept(self, wire: Wire) -> None:
        """Serve a stream on which a relay offers a circuit to this node, until that ends."""
        try:
            with trio.fail_after(HANDSHAKE_LIMIT_S):
                offer = self._judge(wire, await read_message(wire, StopMessage))
        except ProtocolError:
            offer = Status.MALFORMED_MESSAGE
        except (trio.BrokenResourceError, trio.TooSlowError):
            self.refused["silent"] += 1
            await finish(wire)
            return
        if not isinstance(offer, Address):
            self.refused[enum_name(Status, offer)] += 1
            await answer(wire, StopMessage(type=StopMessage.STATUS, status=offer))
            return
        assert offer.peer is not None
        stream = CircuitStream(wire, offer)
        self._accepted += 1
        try:
            with trio.fail_after(HANDSHAKE_LIMIT_S):
                agreed = StopMessage(type=StopMessage.STATUS, status=Status.OK)
                await write_message(wire, agreed)
                carrier = await self._upgrade(stream, offer.peer, False)
            await carrier.wait_closed()
        except Exception as error:
            self.refused["handshake"] += 1
            log.info("no connection at %s: %r", offer, error)
        finally:
            self._accepted -= 1
            await stream.close()

    def _judge(self, wire: Wire, request: Any) -> Any:
        """The circuit that a relay offers, or the status with which it is refused."""
        if not request.HasField("type") or not request.HasField("peer"):
            return Status.MALFORMED_MESSAGE
        if request.type != StopMessage.CONNECT:
            return Status.UNEXPECTED_MESSAGE
        reservation = self._reservations.get(wire.peer)
        at = wire.carrier.address
        if reservation is None or not reservation.holds or at is None:
            return Status.PERMISSION_DENIED
        if self._accepted >= limits.CIRCUITS:
            return Status.RESOURCE_LIMIT_EXCEEDED
        try:
            peer = parse_peer(peer_name(request.peer.id))
        except MalformedIdError:
            return Status.MALFORMED_MESSAGE
        return replace(at, peer=parse_peer(wire.peer)).through(peer)


class CircuitStream(BufferedTCPStream):
    """A stream to a relay in place of a TCP connection, for the library to shake hands on.

    It holds the connection to the relay until it is closed.

    Attributes:
        circuit: the way to the other end.
    """

    def __init__(self, wire: Wire, circuit: Address) -> None:
        # All that the base class does with a socket is in there.
        super().__init__(cast(trio.SocketStream, _Ends(wire)))
        self.circuit = circuit

    def reset(self) -> None:
        """Nothing: closing the stream is enough, for it has no socket of its own."""

    def write_now(self, data: bytes) -> int:
        """Nothing: there is no socket of its own."""
        return 0

    def get_remote_address(self) -> None:
        """None: the socket is the relay's."""


class _Ends:
    """What a TCP connection does, done by a stream to a relay."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._closed = False
        self._reading = trio.CancelScope()
        self._reader = trio.Lock()
        wire.carrier.hold()

    async def receive_some(self, most: int) -> bytes:
        """What has arrived."""
        async with self._reader:
            with trio.CancelScope() as self._reading:
                if not self._closed:
                    return await self._wire.read(most)
        raise trio.ClosedResourceError

    async def send_all(self, data: bytes) -> None:
        """Send ``data``."""
        if self._closed:
            raise trio.ClosedResourceError
        await self._wire.write(data)

    async def aclose(self) -> None:
        """Let the peer read to the end, and wait a little for it to do so."""
        if self._closed:
            return
        self._closed = True
        # Closing a stream wakes no one who is reading it.
        self._reading.cancel()
        with shielded(CLOSE_LIMIT_S):
            async with self._reader:
                pass
        try:
            await finish(self._wire)
        finally:
            self._wire.carrier.release()


async def _ask(relay: Carrier, request: Message) -> tuple[Wire, Any]:
    """Make a request; the stream goes on behind the reply.

    Raises:
        CircuitError: the relay refuses, or does not answer as it should.
    """
    wire: Wire | None = None
    try:
        with trio.fail_after(HANDSHAKE_LIMIT_S):
            wire = await relay.open(HOP_ID)
            await write_message(wire, request)
            reply = await read_message(wire, HopMessage)
        if reply.type != HopMessage.STATUS:
            raise CircuitError(f"The relay {relay.peer} does not answer with a status.")
        if reply.status != Status.OK:
            status = enum_name(Status, reply.status)
            raise CircuitError(f"The relay {relay.peer} answers {status}.")
    except BaseException as error:
        if wire is not None:
            with shielded(CLOSE_LIMIT_S):
                await wire.reset()
        if isinstance(error, trio.TooSlowError):
            raise CircuitError(f"The relay {relay.peer} does not answer in time.") from error
        if isinstance(error, trio.BrokenResourceError | ProtocolError):
            raise CircuitError(f"The relay {relay.peer}: {error}.") from error
        raise
    return wire, reply
