"""Who is in a swarm and where: what peers tell each other about themselves and pass on of others.

A :class:`Presence` is signed by whom it is about, names one run of that node by its incarnation,
and is good for a short while. So it can come by way of anybody, be kept on disk or in a DHT, and
still cannot be forged, nor bring back somebody who has left.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from protocol import limits
from protocol.codec import decode, encode
from protocol.envelope import Envelope, Signer, open_as
from protocol.errors import RefusedError
from protocol.ids import PeerId

PRESENCE_S: Final = 600
"""How long a Presence is good for, in seconds after it was signed."""
SKEW_S: Final = 120
"""How far a peer's clock may run ahead of ours, in seconds."""

_Address = Annotated[str, msgspec.Meta(max_length=limits.ADDRESS_CHARS)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=2**52)]
_Swarm = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Presence(
    msgspec.Struct, frozen=True, array_like=True, tag="presence", forbid_unknown_fields=True
):
    """A node says that it is there.

    Attributes:
        swarm: the name of its swarm.
        incarnation: when this run of the node began, in Unix milliseconds; a later run has more.
        serial: counts the statements of one incarnation; the highest is the latest.
        issued_at: Unix time in seconds by the signer's clock.
        addresses: multiaddrs under which it can be dialled, the best first; circuits among them.
        relay: whether it serves as a relay.
        nat: what is known of its way to the internet: ``public``, ``open`` (a NAT or firewall that
            lets in whom it was sent out to), ``closed`` (no hole can be punched) or ``unknown``.
    """

    swarm: _Swarm
    incarnation: _Time
    serial: Annotated[int, msgspec.Meta(ge=0, le=2**31)]
    issued_at: _Time
    addresses: Annotated[tuple[_Address, ...], msgspec.Meta(max_length=limits.ADDRESSES)]
    relay: bool
    nat: Annotated[str, msgspec.Meta(pattern=r"\A(public|open|closed|unknown)\Z")]


class Leave(msgspec.Struct, frozen=True, array_like=True, tag="leave", forbid_unknown_fields=True):
    """A node says that this run of it is over.

    Attributes:
        swarm: the name of its swarm.
        incarnation: the run that ends, as in its Presence.
        issued_at: Unix time in seconds by the signer's clock.
    """

    swarm: _Swarm
    incarnation: _Time
    issued_at: _Time


Statement = Presence | Leave


class Stated(msgspec.Struct, frozen=True):
    """A verified statement, with its envelope to pass on.

    Attributes:
        peer: who made it, which is whom it is about.
        envelope: as it came.
    """

    peer: PeerId
    statement: Statement
    envelope: bytes


def state(signer: Signer, statement: Statement) -> Stated:
    """Sign ``statement``."""
    return Stated(signer.peer, statement, encode(signer.seal(encode(statement))))


def read(data: bytes) -> Stated:
    """The statement that ``data``, an encoded envelope, holds.

    Raises:
        DecodeError, TooLargeError: it holds none.
        BadSignatureError: it is not signed by whom it names.
    """
    envelope = decode(data, Envelope, limits.PRESENCE_BYTES)
    statement: Statement = open_as(envelope, Statement)  # type: ignore[arg-type]
    return Stated(envelope.signer, statement, data)


def check_time(statement: Statement, now: float) -> None:
    """See that ``statement`` was made lately.

    Args:
        now: Unix time in seconds.

    Raises:
        RefusedError: it is too old, or from the future.
    """
    if statement.issued_at > now + SKEW_S:
        raise RefusedError(
            f"It was signed {statement.issued_at - now:.0f} s from now; see to the clocks."
        )
    if statement.incarnation > 1000 * (statement.issued_at + SKEW_S):
        raise RefusedError("It is about a run that has not begun.")
    if statement.issued_at < now - PRESENCE_S:
        raise RefusedError(f"It was signed {now - statement.issued_at:.0f} s ago.")
