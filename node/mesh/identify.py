"""Identify and ping of libp2p: who a foreign peer is, where it sees us, and how far away it is.

Nothing of ours depends on them; they are how other software gets to know this node
(https://github.com/libp2p/specs, identify and ping).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import trio
from libp2p.identity.identify.pb.identify_pb2 import Identify

from node.mesh.address import Address, parse_address
from node.mesh.link import CLOSE_LIMIT_S, shielded
from node.mesh.proto import (
    HANDSHAKE_LIMIT_S,
    finish,
    from_multiaddr,
    read_exactly,
    read_message,
    to_multiaddr,
    write_message,
)
from node.mesh.wire import Carrier, Wire
from protocol import limits
from protocol.errors import DecodeError, UnreachableError

PROTOCOL_ID: Final = "/ipfs/id/1.0.0"
PING_ID: Final = "/ipfs/ping/1.0.0"

FAMILY: Final = "ipfs/0.1.0"
"""The protocol version that all of libp2p says."""
IDENTITY_BYTES: Final = 64 << 10
PROTOCOLS: Final = 256
"""Protocols taken note of."""
PING_BYTES: Final = 32
PING_EVERY_S: Final = 0.05
"""Pings of one stream are answered no faster."""
PING_IDLE_S: Final = 60.0
"""A stream without a ping for so long is ended."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a peer says of itself. Nothing of it is proven.

    Attributes:
        agent: its software.
        protocols: what it speaks.
        addresses: where it listens, of those that can be dialled from here, without its peer id.
        observed: from where it sees us; empty where it does not say, or nothing we understand.
    """

    agent: str
    protocols: tuple[str, ...]
    addresses: tuple[str, ...]
    observed: str


async def serve(
    wire: Wire, agent: str, network: Any, addresses: tuple[str, ...], protocols: list[str]
) -> None:
    """Say who this node is.

    Args:
        network: has this node's key.
        addresses: under which it can be dialled.
    """
    own = network.get_peer_id()
    seen = wire.carrier.address
    message = Identify(
        protocol_version=FAMILY,
        agent_version=agent,
        public_key=network.peerstore.pubkey(own).serialize(),
        listen_addrs=[to_multiaddr(_without_peer(text)) for text in addresses],
        # Of a circuit only the relay is seen, which is no address of the peer.
        observed_addr=None if seen is None or seen.relay else to_multiaddr(seen.bare()),
        protocols=protocols,
    )
    try:
        with trio.fail_after(HANDSHAKE_LIMIT_S):
            await write_message(wire, message)
    except (trio.BrokenResourceError, trio.TooSlowError):
        pass
    await finish(wire)


async def ask(carrier: Carrier) -> Identity:
    """Who the other end of ``carrier`` is.

    Raises:
        UnreachableError: it does not say.
        TooLargeError: it says too much.
        DecodeError: it says something else.
    """
    try:
        with trio.fail_after(HANDSHAKE_LIMIT_S):
            wire = await carrier.open(PROTOCOL_ID)
            try:
                # A signed record may follow in a second message, and is of no use here.
                message = await read_message(wire, Identify, IDENTITY_BYTES)
            finally:
                with shielded(CLOSE_LIMIT_S):
                    await wire.reset()
    except trio.BrokenResourceError as error:
        raise UnreachableError(f"{carrier.peer} does not identify: {error}.") from error
    except trio.TooSlowError as error:
        raise UnreachableError(f"{carrier.peer} does not identify in time.") from error
    observed = from_multiaddr(message.observed_addr)
    return Identity(
        agent=_printable(message.agent_version),
        protocols=tuple(map(_printable, message.protocols[:PROTOCOLS])),
        addresses=_addresses(message.listen_addrs),
        observed="" if observed is None else str(observed),
    )


async def serve_ping(wire: Wire) -> None:
    """Send back what comes, one ping at a time, until the peer stops."""
    try:
        while True:
            with trio.fail_after(PING_IDLE_S):
                await wire.write(await read_exactly(wire, PING_BYTES))
            await trio.sleep(PING_EVERY_S)
    except (trio.BrokenResourceError, trio.TooSlowError):
        await finish(wire)


async def ping(carrier: Carrier) -> float:
    """The seconds that 32 bytes take to the other end of ``carrier`` and back.

    Raises:
        UnreachableError: they do not come back.
        DecodeError: others do.
    """
    try:
        with trio.fail_after(HANDSHAKE_LIMIT_S):
            wire = await carrier.open(PING_ID)
            try:
                sent = os.urandom(PING_BYTES)
                began = trio.current_time()
                await wire.write(sent)
                answer = await read_exactly(wire, PING_BYTES)
                took = trio.current_time() - began
            finally:
                with shielded(CLOSE_LIMIT_S):
                    await wire.reset()
    except trio.BrokenResourceError as error:
        raise UnreachableError(f"{carrier.peer} does not answer a ping: {error}.") from error
    except trio.TooSlowError as error:
        raise UnreachableError(f"{carrier.peer} does not answer a ping in time.") from error
    if answer != sent:
        raise DecodeError(f"{carrier.peer} answers a ping with something else.")
    return took


def _without_peer(text: str) -> Address:
    return replace(parse_address(text), peer=None)


def _addresses(listened: Iterable[bytes]) -> tuple[str, ...]:
    """The first of a peer's addresses that can be dialled from here."""
    found: list[str] = []
    for data in itertools.islice(listened, 4 * limits.ADDRESSES):
        address = from_multiaddr(data)
        if address is not None and len(found) < limits.ADDRESSES:
            found.append(str(replace(address, peer=None)))
    return tuple(dict.fromkeys(found))


def _printable(text: str | bytes) -> str:
    """``text`` for people; what is not UTF-8 arrives as bytes."""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    text = text[: limits.TEXT_CHARS]
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
