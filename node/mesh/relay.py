"""A relay for others: the server's side of circuit relay v2, within limits.

The wire protocol is that of https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md. No
limit on duration or data is announced, so that others take a circuit for a connection like any
other; what protects the relay are numbers and rates (:mod:`protocol.limits`). Vouchers, which no
implementation asks for, are not made.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Status, StopMessage

from node.mesh.address import Address
from node.mesh.circuit import STOP_ID
from node.mesh.harden import LOOPBACK, prefix_of
from node.mesh.link import CLOSE_LIMIT_S, shielded
from node.mesh.proto import (
    HANDSHAKE_LIMIT_S,
    answer,
    enum_name,
    finish,
    peer_name,
    read_message,
    to_multiaddr,
    write_message,
)
from node.mesh.report import RelayLoad
from node.mesh.wire import Carrier, Wire
from protocol import limits
from protocol.errors import MalformedIdError, ProtocolError

STOP_LIMIT_S: Final = 6.0
"""How long the other end may take to accept a circuit; less than its dialler waits."""
READ_BYTES: Final = 64 << 10

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Reservation:
    carrier: Carrier
    prefix: str
    renewed: trio.Event = field(default_factory=trio.Event)


class RelayServer:
    """Takes reservations, and joins circuits to those who hold one.

    Args:
        addresses: where this node is reached, with its peer id.
        clock: Unix time in seconds.

    Attributes:
        open: whether it serves. Circuits that stand are not cut when it ends.
        refused: how many requests were refused, by reason.
    """

    def __init__(
        self,
        addresses: Callable[[], Sequence[Address]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.open = False
        self._addresses = addresses
        self._clock = clock
        self._reservations: dict[str, _Reservation] = {}
        self._circuits = 0
        self._circuits_of: Counter[str] = Counter()
        self._pairs: Counter[tuple[str, str]] = Counter()
        self.refused: Counter[str] = Counter()
        self._bytes = 0
        self._rate = Rate(limits.RELAY_BYTES_PER_S)

    def load(self) -> RelayLoad:
        """What it does now, and has done."""
        return RelayLoad(
            self.open, len(self._reservations), self._circuits, self._bytes, dict(self.refused)
        )

    async def serve(self, wire: Wire) -> None:
        """Serve a stream on which a peer makes a request.

        Returns at the end of what was asked for, a reservation or a circuit.
        """
        try:
            with trio.fail_after(HANDSHAKE_LIMIT_S):
                request = await read_message(wire, HopMessage)
        except ProtocolError:
            await self._refuse(wire, Status.MALFORMED_MESSAGE)
        except (trio.BrokenResourceError, trio.TooSlowError):
            self.refused["silent"] += 1
            await finish(wire)
        else:
            await self._do(wire, request)

    async def _do(self, wire: Wire, request: Any) -> None:
        if not request.HasField("type"):
            await self._refuse(wire, Status.MALFORMED_MESSAGE)
        elif request.type not in (HopMessage.RESERVE, HopMessage.CONNECT):
            await self._refuse(wire, Status.UNEXPECTED_MESSAGE)
        elif not self.open or wire.carrier.relayed:
            await self._refuse(wire, Status.PERMISSION_DENIED)
        elif request.type == HopMessage.RESERVE:
            await self._reserve(wire)
        else:
            await self._connect(wire, request)

    async def _refuse(self, wire: Wire, status: Any) -> None:
        self.refused[enum_name(Status, status)] += 1
        await answer(wire, HopMessage(type=HopMessage.STATUS, status=status))

    # --- reservations ---------------------------------------------------------------------------

    async def _reserve(self, wire: Wire) -> None:
        """Hold a reservation until it runs out, is renewed, or its connection ends."""
        carrier = wire.carrier
        prefix = prefix_of(None if carrier.address is None else carrier.address.socket)
        before = self._reservations.get(wire.peer)
        if before is None and not self._has_room(prefix):
            await self._refuse(wire, Status.RESERVATION_REFUSED)
            return
        if before is not None:
            before.renewed.set()
        reservation = self._reservations[wire.peer] = _Reservation(carrier, prefix)
        carrier.hold()
        try:
            with trio.move_on_after(limits.RESERVATION_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(answer, wire, self._granted())
                    nursery.start_soon(_then_cancel, carrier.wait_closed, nursery)
                    nursery.start_soon(_then_cancel, reservation.renewed.wait, nursery)
        finally:
            carrier.release()
            if self._reservations.get(wire.peer) is reservation:
                del self._reservations[wire.peer]
            await _cut(wire)

    def _has_room(self, prefix: str) -> bool:
        alike = sum(one.prefix == prefix for one in self._reservations.values())
        most = limits.RESERVATIONS // 2 if prefix == LOOPBACK else limits.RESERVATIONS_PER_PREFIX
        return len(self._reservations) < limits.RESERVATIONS and alike < most

    def _granted(self) -> Any:
        reply = HopMessage(type=HopMessage.STATUS, status=Status.OK)
        reply.reservation.expire = int(self._clock()) + limits.RESERVATION_S
        own = list(self._addresses())[: limits.ADDRESSES]
        reply.reservation.addrs.extend(map(to_multiaddr, own))
        return reply

    # --- circuits -------------------------------------------------------------------------------

    async def _connect(self, wire: Wire, request: Any) -> None:
        """Join a circuit, and carry it until it ends."""
        try:
            target = peer_name(request.peer.id)
        except MalformedIdError:
            await self._refuse(wire, Status.MALFORMED_MESSAGE)
            return
        reservation = self._reservations.get(target)
        if reservation is None:
            await self._refuse(wire, Status.NO_RESERVATION)
            return
        ends = (wire.peer, target)
        if (
            self._pairs[ends] >= limits.CIRCUITS_PER_PAIR
            or self._circuits >= limits.CIRCUITS
            or any(self._circuits_of[end] >= limits.CIRCUITS_PER_PEER for end in ends)
        ):
            await self._refuse(wire, Status.RESOURCE_LIMIT_EXCEEDED)
            return
        self._circuits += 1
        self._circuits_of.update(ends)
        self._pairs[ends] += 1
        try:
            other = await self._stop(reservation.carrier, wire.peer)
            if other is not None:
                await self._carry(wire, other)
        finally:
            self._circuits -= 1
            self._circuits_of.subtract(ends)
            # Forgets who has no circuit.
            self._circuits_of = +self._circuits_of
            self._pairs[ends] -= 1
            self._pairs = +self._pairs
        if other is None:
            await self._refuse(wire, Status.CONNECTION_FAILED)

    async def _stop(self, carrier: Carrier, source: str) -> Wire | None:
        """A stream to the other end, which has accepted the circuit; None if it does not."""
        request = StopMessage(type=StopMessage.CONNECT)
        request.peer.id = ID.from_base58(source).to_bytes()
        wire: Wire | None = None
        agreed = False
        try:
            with trio.fail_after(STOP_LIMIT_S):
                wire = await carrier.open(STOP_ID)
                await write_message(wire, request)
                reply = await read_message(wire, StopMessage)
                agreed = reply.type == StopMessage.STATUS and reply.status == Status.OK
        except (ProtocolError, trio.BrokenResourceError, trio.TooSlowError) as error:
            log.debug("%s does not accept a circuit: %r", carrier.peer, error)
        finally:
            if wire is not None and not agreed:
                await _cut(wire)
        return wire if agreed else None

    async def _carry(self, one: Wire, other: Wire) -> None:
        """Pass on what two streams say, until both have ended or either is cut."""
        rate = Rate(limits.CIRCUIT_BYTES_PER_S)
        for wire in (one, other):
            wire.carrier.hold()
        try:
            with trio.fail_after(HANDSHAKE_LIMIT_S):
                await write_message(one, HopMessage(type=HopMessage.STATUS, status=Status.OK))
            with trio.move_on_after(limits.CIRCUIT_IDLE_S) as idle:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._copy, one, other, rate, idle)
                    nursery.start_soon(self._copy, other, one, rate, idle)
        except* (trio.BrokenResourceError, trio.TooSlowError) as errors:
            log.debug("a circuit of %s and %s: %r", one.peer, other.peer, errors.exceptions)
        finally:
            for wire in (one, other):
                wire.carrier.release()
                await _cut(wire)

    async def _copy(self, source: Wire, sink: Wire, rate: Rate, idle: trio.CancelScope) -> None:
        while data := await source.read(READ_BYTES):
            idle.deadline = trio.current_time() + limits.CIRCUIT_IDLE_S
            self._bytes += len(data)
            await rate.take(len(data))
            await self._rate.take(len(data))
            await sink.write(data)
        await sink.end_writing()


class Rate:
    """A bound on bytes in time; a second's worth may come at once. First come, first served.

    It is the generic cell rate algorithm (ITU-T I.371), with waiting in place of refusing.

    Args:
        bytes_per_s: on average.
    """

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._paid_until = -math.inf

    async def take(self, size: int) -> None:
        """Wait until ``size`` bytes may pass."""
        now = trio.current_time()
        self._paid_until = max(self._paid_until, now - 1.0) + size / self._bytes_per_s
        if self._paid_until > now:
            await trio.sleep_until(self._paid_until)


async def _then_cancel(wait: Callable[[], Any], nursery: trio.Nursery) -> None:
    await wait()
    nursery.cancel_scope.cancel()


async def _cut(wire: Wire) -> None:
    with shielded(CLOSE_LIMIT_S):
        await wire.reset()
