"""Addresses: what can be listened on and dialled, and what is told to others."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from node.mesh.address import Address, advertised, parse_dialable, parse_listen
from node.mesh.base import PeerUp
from node.mesh.host import Libp2pMesh
from protocol.errors import ConfigError, ListenError
from protocol.ids import PeerId, peer_text
from tests.mesh.worlds import key_seed, until

PEER = PeerId(bytes(32))


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("/ip4/192.0.2.1/tcp/4001", Address("ip4", "192.0.2.1", 4001, PEER)),
        ("/ip6/2001:db8::1/tcp/4001", Address("ip6", "2001:db8::1", 4001, PEER)),
        ("/dns4/node.example/tcp/1", Address("dns4", "node.example", 1, PEER)),
    ],
)
def test_an_address_survives_its_text(text: str, address: Address) -> None:
    assert parse_dialable(f"{text}/p2p/{peer_text(PEER)}") == address
    assert str(address) == f"{text}/p2p/{peer_text(PEER)}"


@pytest.mark.parametrize("text", ["/dns/node.example/tcp/4001", "/ip4/1.2.3/tcp/1", "/ip4//tcp/1"])
def test_what_cannot_be_listened_on_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_listen(text)


@pytest.mark.parametrize(("kind", "wildcard"), [("ip4", "0.0.0.0"), ("ip6", "::")])
def test_a_wildcard_is_never_told(kind: str, wildcard: str) -> None:
    told = advertised(Address(kind, wildcard, 4001), PEER)
    assert not ipaddress.ip_address(told.host).is_unspecified
    assert (told.kind, told.port, told.peer) == (kind, 4001, PEER)


async def test_a_foreign_address_cannot_be_listened_on() -> None:
    mesh = Libp2pMesh(key_seed("one"), ("/ip4/192.0.2.1/tcp/0",), (), "test", "test")
    with pytest.raises(ListenError, match=r"192\.0\.2\.1"):
        async with mesh.running():
            pass


async def test_a_mesh_on_all_interfaces_is_reached_at_the_address_it_tells() -> None:
    one = Libp2pMesh(key_seed("one"), ("/ip4/0.0.0.0/tcp/0",), (), "test", "test")
    async with one.running():
        other = Libp2pMesh(key_seed("other"), (), one.addresses(), "test", "test")
        async with other.running():
            assert (await until(other, PeerUp)).link.peer == one.peer_id


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_ipv6() -> None:
    one = Libp2pMesh(key_seed("one"), ("/ip6/::1/tcp/0",), (), "test", "test")
    async with one.running():
        other = Libp2pMesh(key_seed("other"), (), one.addresses(), "test", "test")
        async with other.running():
            assert (await until(other, PeerUp)).link.address == one.addresses()[0]
            assert (await until(one, PeerUp)).link.address.startswith("/ip6/::1/tcp/")
