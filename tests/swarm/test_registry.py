"""Who is there, from where, and what they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.ids import PeerId
from protocol.messages import Model, Profile
from swarm.registry import Registry, origin
from swarm.selection import Measured


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def profile(family: str, serves: bool = True) -> Profile:
    return Profile(Model(f"model of {family}", family, ""), 1, 4096, serves)


def test_who_has_gone_is_forgotten_and_may_come_back() -> None:
    one = Registry()
    one.introduce(peer(0), profile("a"))
    one.forget(peer(0))
    one.forget(peer(0))
    assert one.able() == []
    one.introduce(peer(0), profile("c"))
    assert one.profiles[peer(0)].model.family == "c"


# --- candidates ---------------------------------------------------------------------------------

RELAY = "12D3KooWRelay"


@pytest.mark.parametrize(
    ("address", "shared"),
    [
        ("/ip4/8.8.4.4/tcp/4001", "8.8.0.0/16"),
        ("/ip4/8.8.255.1/tcp/4002", "8.8.0.0/16"),
        ("/ip4/8.9.4.4/tcp/4001", "8.9.0.0/16"),
        ("/ip6/2607:f8b0:4005::1/tcp/1", "2607:f8b0::/32"),
        ("/ip6/2607:f8b0:ffff:1::2/tcp/1", "2607:f8b0::/32"),
        ("/ip6/::ffff:8.8.1.2/tcp/1", "8.8.0.0/16"),
        ("/ip4/127.0.0.1/tcp/1", ""),
        ("/ip4/10.1.2.3/tcp/1", ""),
        ("/ip4/192.168.1.1/tcp/1", ""),
        ("/ip4/169.254.1.1/tcp/1", ""),
        ("/ip4/100.64.0.1/tcp/1", ""),
        ("/ip6/::1/tcp/1", ""),
        ("/ip6/fe80::1/tcp/1", ""),
        ("/ip6/fd00::1/tcp/1", ""),
        ("/ip6/::ffff:10.0.0.1/tcp/1", ""),
        (f"/ip4/8.8.4.4/tcp/4001/p2p/{RELAY}/p2p-circuit", RELAY),
        (f"/ip4/8.9.4.4/udp/4001/quic-v1/p2p/{RELAY}/p2p-circuit/p2p/12D3KooWPeer", RELAY),
        ("loopback", ""),
        ("unknown", ""),
        ("", ""),
        ("/ip4", ""),
        ("/ip4/999.1.1.1/tcp/1", ""),
        ("/dns4/example.org/tcp/1", ""),
    ],
)
def test_what_an_address_says_of_who_runs_the_peer(address: str, shared: str) -> None:
    assert origin(address) == shared


@given(st.text(alphabet="/ip46.:0123456789abcdef%", max_size=40))
def test_any_address_has_an_origin_or_none(address: str) -> None:
    assert isinstance(origin(address), str)


def test_a_candidate_joins_what_is_claimed_and_what_is_measured() -> None:
    one = Registry()
    one.connected(peer(1), "/ip4/8.8.4.4/tcp/4001")
    one.introduce(peer(1), Profile(Model("m", "f", ""), 5, 2048, True, energy=7))
    one.hint(peer(1), 0.6)
    measured = Measured(0.7, 0.1, proven=True)
    (candidate,) = one.candidates({peer(1): measured, peer(2): Measured()}, {peer(1)})
    assert (candidate.peer, candidate.family, candidate.context_tokens) == (peer(1), "f", 2048)
    assert (candidate.energy, candidate.origin, candidate.hint) == (7, "8.8.0.0/16", 0.6)
    assert candidate.measured == measured
    assert candidate.struck
    (plain,) = one.candidates({}, ())
    assert not plain.struck
    assert plain.measured == Measured()


def test_what_is_known_of_a_peer_goes_with_it() -> None:
    one = Registry()
    one.hint(peer(0), 0.9)
    one.connected(peer(0), "/ip4/8.8.4.4/tcp/4001")
    one.introduce(peer(0), profile("a"))
    (before,) = one.candidates({}, ())
    assert before.hint == 0.0, "no hints are kept of who is not there"
    one.hint(peer(0), 0.9)
    one.forget(peer(0))
    one.introduce(peer(0), profile("a"))
    (after,) = one.candidates({}, ())
    assert (after.origin, after.hint) == ("", 0.0)


def test_who_does_not_serve_is_no_candidate() -> None:
    one = Registry()
    one.introduce(peer(0), profile("a"))
    one.introduce(peer(1), profile("b", serves=False))
    assert one.able() == [peer(0)]
    assert [candidate.peer for candidate in one.candidates({}, ())] == [peer(0)]
