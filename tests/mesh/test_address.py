"""Addresses: what can be listened on and dialled, and what is told to others."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.mesh.address import (
    Address,
    of_socket,
    parse_address,
    parse_dialable,
    parse_listen,
)
from node.mesh.base import PeerUp
from node.mesh.host import Libp2pMesh
from node.mesh.peering import Settings
from protocol.errors import ConfigError, ListenError
from protocol.ids import PeerId, peer_text
from tests.mesh.worlds import key_seed, until

PEER = PeerId(bytes(32))
RELAY = PeerId(bytes(31) + b"\x01")


def mesh_of(name: str, listen: str) -> Libp2pMesh:
    return Libp2pMesh(key_seed(name), Settings((listen,), (), "test", "test"))


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


CIRCUIT = f"/ip4/192.0.2.1/tcp/4001/p2p/{peer_text(RELAY)}/p2p-circuit/p2p/{peer_text(PEER)}"


def test_a_circuit_names_the_relay_and_the_peer_behind_it() -> None:
    circuit = parse_dialable(CIRCUIT)
    assert circuit == Address("ip4", "192.0.2.1", 4001, PEER, RELAY)
    assert str(circuit) == CIRCUIT
    assert circuit.to_relay() == Address("ip4", "192.0.2.1", 4001, RELAY)
    assert circuit.to_relay().through(PEER) == circuit
    assert circuit.bare() == Address("ip4", "192.0.2.1", 4001)
    assert circuit.socket == ("192.0.2.1", 4001)


hosts = st.one_of(
    st.ip_addresses(v=4).map(lambda ip: ("ip4", str(ip))),
    st.ip_addresses(v=6).map(lambda ip: ("ip6", str(ip))),
    st.tuples(
        st.sampled_from(("dns", "dns4", "dns6")), st.from_regex(r"[a-z0-9.-]+", fullmatch=True)
    ),
)
peers = st.binary(min_size=32, max_size=32).map(PeerId)


@given(hosts, st.integers(1, 65535), peers, st.none() | peers)
def test_any_address_survives_its_text(
    host: tuple[str, str], port: int, peer: PeerId, relay: PeerId | None
) -> None:
    address = Address(*host, port, peer, relay)
    assert parse_dialable(str(address)) == address


@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                ["ip4", "dns", "tcp", "p2p", "p2p-circuit", "", "1.2.3.4", "4001", "x"]
            ),
            st.just(peer_text(PEER)),
            st.text(max_size=8),
        ),
        max_size=12,
    )
)
def test_any_text_is_an_address_in_its_one_form_or_refused(parts: list[str]) -> None:
    try:
        address = parse_address("/" + "/".join(parts))
    except ConfigError:
        return
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "/dns/node.example/tcp/4001",
        "/ip4/1.2.3/tcp/1",
        "/ip4//tcp/1",
        CIRCUIT,
        CIRCUIT.removesuffix(f"/p2p/{peer_text(PEER)}"),
        "/ip4/1.2.3.4/udp/1",
        "/ip4/1.2.3.4/tcp/1/ws",
    ],
)
def test_what_cannot_be_listened_on_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_listen(text)


@pytest.mark.parametrize(
    "text",
    [
        CIRCUIT.removesuffix(f"/p2p/{peer_text(PEER)}"),
        CIRCUIT.replace("/p2p-circuit", ""),
        CIRCUIT.replace("p2p-circuit", "p2p"),
        CIRCUIT.replace("/tcp/4001", "/tcp/0"),
        CIRCUIT.replace(peer_text(RELAY), "nobody"),
        CIRCUIT + "/p2p-circuit",
        CIRCUIT + CIRCUIT,
        "/ip4/192.0.2.1/tcp/4001",
        f"/ip4/192.0.2.1/tcp/-1/p2p/{peer_text(PEER)}",
        f"/dns4//tcp/4001/p2p/{peer_text(PEER)}",
    ],
)
def test_what_cannot_be_dialled_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_dialable(text)


@pytest.mark.parametrize("host", ["dns4/\x1b[2Jevil", "dns/a b", "ip6/fe80::1%\x1b[2J", "dns/a\nb"])
def test_an_address_from_a_stranger_cannot_write_to_the_terminal(host: str) -> None:
    """Addresses come from peers and are shown by `swarm peers`, `swarm doctor` and in the log."""
    with pytest.raises(ConfigError):
        parse_address(f"/{host}/tcp/4001")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.1", Address("ip4", "192.0.2.1", 7)),
        ("::ffff:192.0.2.1", Address("ip4", "192.0.2.1", 7)),
        ("fe80::1%eth0", Address("ip6", "fe80::1", 7)),
        ("2001:db8::1", Address("ip6", "2001:db8::1", 7)),
    ],
)
def test_the_end_of_a_socket_has_one_address(host: str, expected: Address) -> None:
    assert of_socket(host, 7) == expected


async def test_a_foreign_address_cannot_be_listened_on() -> None:
    mesh = mesh_of("one", "/ip4/192.0.2.1/tcp/0")
    with pytest.raises(ListenError, match=r"192\.0\.2\.1"):
        async with mesh.running():
            pass


async def test_a_mesh_on_all_interfaces_is_reached_at_the_address_it_tells() -> None:
    one = mesh_of("one", "/ip4/0.0.0.0/tcp/0")
    async with one.running():
        other = Libp2pMesh(key_seed("other"), Settings((), one.addresses(), "test", "test"))
        async with other.running():
            assert (await until(other, PeerUp)).link.peer == one.peer_id


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_ipv6() -> None:
    one = mesh_of("one", "/ip6/::1/tcp/0")
    async with one.running():
        other = Libp2pMesh(key_seed("other"), Settings((), one.addresses(), "test", "test"))
        async with other.running():
            assert (await until(other, PeerUp)).link.address == one.addresses()[0]
            assert (await until(one, PeerUp)).link.address.startswith("/ip6/::1/tcp/")
