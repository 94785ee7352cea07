"""Multiaddrs as the mesh uses them: a host, a TCP port, a peer id, perhaps a relay on the way."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass, replace
from typing import Final

from protocol.errors import ConfigError, MalformedIdError
from protocol.ids import PeerId, parse_peer, peer_text

CIRCUIT: Final = "p2p-circuit"
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,253}")
_KINDS = ("ip4", "ip6", "dns", "dns4", "dns6")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a peer is reached.

    ``/<kind>/<host>/tcp/<port>`` and its id if it is known; through a relay that is there instead,
    ``/<kind>/<host>/tcp/<port>/p2p/<relay>/p2p-circuit`` and its id.

    Attributes:
        kind: ``ip4``, ``ip6``, ``dns``, ``dns4`` or ``dns6``.
        relay: who listens at the host and port, where that is not the peer itself.
    """

    kind: str
    host: str
    port: int
    peer: PeerId | None = None
    relay: PeerId | None = None

    def __str__(self) -> str:
        text = f"/{self.kind}/{self.host}/tcp/{self.port}"
        if self.relay is not None:
            text += f"/p2p/{peer_text(self.relay)}/{CIRCUIT}"
        return text if self.peer is None else f"{text}/p2p/{peer_text(self.peer)}"

    @property
    def socket(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port

    def bare(self) -> Address:
        """Without any peer: who is there is not said."""
        return Address(self.kind, self.host, self.port)

    def to_relay(self) -> Address:
        """Of a circuit: the relay itself."""
        return Address(self.kind, self.host, self.port, self.relay)

    def through(self, peer: PeerId) -> Address:
        """The circuit to ``peer`` by whoever listens here."""
        return replace(self, peer=peer, relay=self.peer)

    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The IP address, None where only a name is known."""
        return None if self.kind.startswith("dns") else ipaddress.ip_address(self.host)

    def network(self) -> str:
        """What one operator is likely to have many addresses of: /24 of IPv4, /48 of IPv6.

        Of a name, the name.
        """
        ip = self.ip()
        if ip is None:
            return self.host
        return str(ipaddress.ip_network((ip, 24 if ip.version == 4 else 48), strict=False))


def of_socket(host: str, port: int) -> Address:
    """The address of a socket's end; an IPv4 address mapped into IPv6 is shown as the former."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return Address(f"ip{ip.version}", str(ip), port)


def parse_address(text: str) -> Address:
    """The address that ``text`` names.

    Raises:
        ConfigError: it is not ``/ip4|ip6|dns…/HOST/tcp/PORT``, with or without ``/p2p/ID`` or
            ``/p2p/RELAY/p2p-circuit/p2p/ID``.
    """
    parts = text.split("/")
    if (
        len(parts) not in (5, 7, 8, 10)
        or parts[0]
        or parts[1] not in _KINDS
        or parts[3] != "tcp"
        or (len(parts) > 7 and parts[7] != CIRCUIT)
        or any(parts[at] != "p2p" for at in (5, 8) if at < len(parts))
    ):
        raise ConfigError(f"{text!r} is not a TCP multiaddr like /ip4/192.0.2.1/tcp/4001/p2p/ID.")
    kind, host = parts[1], parts[2]
    try:
        port = int(parts[4])
        if kind == "ip4":
            host = str(ipaddress.IPv4Address(host))
        elif kind == "ip6" and "%" not in host:  # the name of an interface means nothing elsewhere
            host = str(ipaddress.IPv6Address(host))
        elif not _NAME.fullmatch(host):
            raise ValueError("no host name")
        first = parse_peer(parts[6]) if len(parts) > 6 else None
        last = parse_peer(parts[9]) if len(parts) > 9 else None
    except (ValueError, MalformedIdError) as error:
        raise ConfigError(f"{text!r} is not a usable multiaddr: {error}.") from error
    if not 0 <= port < 2**16:
        raise ConfigError(f"{text!r} has no valid port.")
    if len(parts) > 7:
        return Address(kind, host, port, last, first)
    return Address(kind, host, port, first)


def parse_listen(text: str) -> Address:
    """An address to listen on: an IP address; port 0 takes any free port.

    Raises:
        ConfigError: it is not such an address.
    """
    address = parse_address(text)
    if address.kind not in ("ip4", "ip6"):
        raise ConfigError(f"Cannot listen on the name in {text!r}; give an IP address.")
    if address.relay is not None:
        raise ConfigError(f"Cannot listen on the circuit {text!r}; relays are found by themselves.")
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


def interface_address(kind: str) -> str:
    """The address of the interface by which packets leave for the internet, or of loopback."""
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
