"""What a stranger says of others' addresses leads nowhere near this node's own network."""

from __future__ import annotations

import pytest

from node.mesh.address import of_socket, parse_address
from node.mesh.contacts import (
    GLOBAL,
    LAN,
    LOOPBACK,
    heard_contact,
    origin_of,
    own_contact,
    reach_of,
    tellable,
)
from protocol import limits
from protocol.ids import PeerId, peer_text

PEER = PeerId(bytes(32))
ID = peer_text(PEER)
OTHER = peer_text(PeerId(bytes(31) + b"\x01"))


def at(*hosts: str) -> list[str]:
    return [f"/ip{6 if ':' in host else 4}/{host}/tcp/4001/p2p/{ID}" for host in hosts]


@pytest.mark.parametrize(
    ("host", "reach"),
    [
        ("127.0.0.1", LOOPBACK),
        ("::1", LOOPBACK),
        ("10.1.2.3", LAN),
        ("192.168.0.1", LAN),
        ("169.254.0.1", LAN),
        ("100.64.0.1", LAN),
        ("fd00::1", LAN),
        ("fe80::1", LAN),
        ("8.8.8.8", GLOBAL),
        ("2600::1", GLOBAL),
        ("::ffff:10.0.0.1", LAN),
    ],
)
def test_how_far_an_address_leads(host: str, reach: int) -> None:
    assert reach_of(of_socket(host, 4001)) == reach


def test_what_is_unknown_is_far() -> None:
    assert reach_of(None) == GLOBAL
    assert reach_of(parse_address("/dns4/localhost/tcp/1")) == GLOBAL


def test_the_network_of_an_address() -> None:
    assert origin_of(of_socket("8.8.8.8", 1)) == "8.8.8.0/24"
    assert origin_of(of_socket("2600:1:2:3::4", 1)) == "2600:1:2::/48"
    assert origin_of(of_socket("10.0.0.1", 1)) == ""
    assert origin_of(of_socket("127.0.0.1", 1)) == ""
    assert origin_of(None) == ""


def test_an_address_passes_between_nodes_that_are_no_nearer() -> None:
    everywhere = at("8.8.8.8", "192.168.0.1", "127.0.0.1")
    assert heard_contact(PEER, everywhere, GLOBAL).addresses == tuple(everywhere[:1])  # type: ignore[union-attr]
    assert heard_contact(PEER, everywhere, LAN).addresses == tuple(everywhere[:2])  # type: ignore[union-attr]
    assert heard_contact(PEER, everywhere, LOOPBACK).addresses == tuple(everywhere)  # type: ignore[union-attr]
    assert tellable(everywhere, GLOBAL) == tuple(everywhere[:1])
    assert tellable(everywhere, LAN) == tuple(everywhere[:2])
    assert tellable(everywhere, LOOPBACK) == tuple(everywhere)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage",
        "/ip4/8.8.8.8/tcp/4001",
        f"/ip4/8.8.8.8/tcp/0/p2p/{ID}",
        f"/ip4/8.8.8.8/tcp/4001/p2p/{OTHER}",
        f"/ip4/0.0.0.0/tcp/4001/p2p/{ID}",
        f"/ip6/::/tcp/4001/p2p/{ID}",
        f"/ip4/224.0.0.1/tcp/4001/p2p/{ID}",
        f"/ip6/ff0e::1/tcp/4001/p2p/{ID}",
        f"/dns4/example.org/tcp/4001/p2p/{ID}",
        f"/ip4/8.8.8.8/tcp/4001/p2p/{OTHER}/p2p-circuit/p2p/{ID}",
        "\x00" * 300,
    ],
)
def test_what_a_stranger_names_and_is_not_dialled(text: str) -> None:
    assert heard_contact(PEER, [text], LOOPBACK) is None
    good = at("8.8.8.8")
    contact = heard_contact(PEER, [text, *good], LOOPBACK)
    assert contact is not None
    assert contact.addresses == tuple(good)


def test_a_bootstrap_may_have_a_name() -> None:
    name = f"/dns4/example.org/tcp/4001/p2p/{ID}"
    assert own_contact(PEER, [name, *at("192.168.0.1")]).addresses == (
        name,
        *at("192.168.0.1"),
    )
    assert own_contact(PEER, []).addresses == ()
    assert own_contact(PEER, ["garbage"]).addresses == ()


def test_addresses_are_few_and_say_where_they_are() -> None:
    hosts = at(*(f"8.8.{number}.8" for number in range(20)))
    contact = heard_contact(PEER, [*hosts[:1], *hosts], GLOBAL)
    assert contact is not None
    assert contact.addresses == tuple(hosts[: limits.CONTACT_ADDRESSES])
    assert "8.8.0.0/24" in contact.origins
    assert len(tellable(hosts, GLOBAL)) == limits.CONTACT_ADDRESSES
    lan = heard_contact(PEER, at("192.168.0.1"), LAN)
    assert lan is not None
    assert lan.origins == frozenset()
