"""Multiaddrs as the mesh uses them: a host, a TCP port and, to dial it, a peer id."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from protocol.errors import ConfigError, MalformedIdError
from protocol.ids import PeerId, parse_peer, peer_text

_KINDS = ("ip4", "ip6", "dns", "dns4", "dns6")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a peer listens: ``/<kind>/<host>/tcp/<port>`` and its id, if it is known."""

    kind: str
    host: str
    port: int
    peer: PeerId | None = None

    def __str__(self) -> str:
        text = f"/{self.kind}/{self.host}/tcp/{self.port}"
        return text if self.peer is None else f"{text}/p2p/{peer_text(self.peer)}"


def parse_address(text: str) -> Address:
    """The address that ``text`` names.

    Raises:
        ConfigError: it is not ``/ip4|ip6|dns…/HOST/tcp/PORT``, with or without ``/p2p/ID``.
    """
    parts = text.split("/")
    if len(parts) not in (5, 7) or parts[0] or parts[1] not in _KINDS or parts[3] != "tcp":
        raise ConfigError(f"{text!r} is not a TCP multiaddr like /ip4/192.0.2.1/tcp/4001/p2p/ID.")
    kind, host = parts[1], parts[2]
    try:
        port = int(parts[4])
        if kind == "ip4":
            host = str(ipaddress.IPv4Address(host))
        elif kind == "ip6":
            host = str(ipaddress.IPv6Address(host))
        elif not host:
            raise ValueError("no host name")
        peer = None
        if len(parts) == 7:
            if parts[5] != "p2p":
                raise ValueError(f"{parts[5]!r} where 'p2p' was expected")
            peer = parse_peer(parts[6])
    except (ValueError, MalformedIdError) as error:
        raise ConfigError(f"{text!r} is not a usable multiaddr: {error}.") from error
    if not 0 <= port < 2**16:
        raise ConfigError(f"{text!r} has no valid port.")
    return Address(kind, host, port, peer)


def parse_listen(text: str) -> Address:
    """An address to listen on: an IP address; port 0 takes any free port.

    Raises:
        ConfigError: it is not such an address.
    """
    address = parse_address(text)
    if address.kind not in ("ip4", "ip6"):
        raise ConfigError(f"Cannot listen on the name in {text!r}; give an IP address.")
    return address


def parse_dialable(text: str) -> Address:
    """An address to dial: with a port and with the peer id that must answer there.

    Raises:
        ConfigError: it is not such an address.
    """
    address = parse_address(text)
    if address.peer is None:
        raise ConfigError(
            f"{text!r} lacks the peer id: append /p2p/ID, as `swarm status` shows it."
        )
    if address.port == 0:
        raise ConfigError(f"{text!r} has no valid port.")
    return address


def advertised(bound: Address, peer: PeerId) -> Address:
    """``bound`` as others can dial it: a wildcard becomes the address of the outgoing interface."""
    if not ipaddress.ip_address(bound.host).is_unspecified:
        return Address(bound.kind, bound.host, bound.port, peer)
    return Address(bound.kind, _interface_address(bound.kind), bound.port, peer)


def _interface_address(kind: str) -> str:
    family, probe, fallback = (
        (socket.AF_INET, "192.0.2.1", "127.0.0.1")
        if kind == "ip4"
        else (socket.AF_INET6, "2001:db8::1", "::1")
    )
    # Connecting a datagram socket sends nothing; it only asks the routing table.
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((probe, 9))
            host: str = sock.getsockname()[0]
        except OSError:
            return fallback
    return host
