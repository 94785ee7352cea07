"""Where a node says that it is, and whose word is enough to dial."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import pytest

from node.mesh import standing
from node.mesh.address import Address, parse_address
from node.mesh.reach import Attempt, Observation, Reach
from node.mesh.standing import Standing
from protocol.ids import PeerId

OWN, OTHER = PeerId(bytes(31) + b"\x01"), PeerId(bytes(31) + b"\x02")
WILD = Address("ip4", "0.0.0.0", 4747)


def stand(
    bound: Address = WILD,
    here: Iterable[str] = ("192.168.77.1/24",),
    way_out: str = "127.0.0.1",
    named: Iterable[str] = (),
    lan_only: bool = False,
    reach: Reach | None = None,
    monkeypatch: pytest.MonkeyPatch | None = None,
) -> Standing:
    made = Standing(
        OWN,
        lambda: (bound,),
        reach or Reach(),
        (),
        True,
        tuple,
        map(parse_address, named),
        lan_only,
        lambda: False,
    )
    made.interfaces = frozenset(map(ipaddress.ip_interface, here))
    if monkeypatch is not None:
        monkeypatch.setattr(standing, "interface_address", lambda kind: way_out)
    return made


def hosts(made: Standing) -> list[str]:
    return [one.host for one in made.sockets()]


@pytest.mark.parametrize(
    ("here", "way_out", "told"),
    [
        # No default route at all: the LAN is where one is.
        (["192.168.77.1/24"], "127.0.0.1", ["192.168.77.1"]),
        # The default route leads elsewhere, as with a VPN.
        (["192.168.77.1/24", "10.1.0.5/24"], "10.1.0.5", ["10.1.0.5", "192.168.77.1"]),
        (["203.0.113.7/24"], "203.0.113.7", ["203.0.113.7"]),
        (["2001:db8::7/64"], "127.0.0.1", ["127.0.0.1"]),
        ([], "127.0.0.1", ["127.0.0.1"]),
    ],
)
def test_a_wildcard_is_told_as_the_addresses_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, here: list[str], way_out: str, told: list[str]
) -> None:
    made = stand(here=here, way_out=way_out, monkeypatch=monkeypatch)
    assert hosts(made) == told
    assert {(one.port, one.peer) for one in made.sockets()} == {(4747, OWN)}


def test_many_interfaces_are_not_all_told(monkeypatch: pytest.MonkeyPatch) -> None:
    here = [f"10.{number}.0.1/16" for number in range(20)]
    made = stand(here=here, way_out="10.7.0.1", monkeypatch=monkeypatch)
    assert hosts(made)[0] == "10.7.0.1"
    assert len(hosts(made)) == standing.INTERFACES


def test_an_address_that_is_given_is_told_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = stand(Address("ip4", "192.168.77.1", 1), monkeypatch=monkeypatch)
    assert hosts(made) == ["192.168.77.1"]
    assert not stand(Address("ip4", "0.0.0.0", 0)).sockets()


def test_its_own_sockets_are_not_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    made = stand(monkeypatch=monkeypatch)
    assert made.is_own(Address("ip4", "192.168.77.1", 4747, OTHER))
    assert made.is_own(Address("ip4", "127.0.0.1", 4747, OTHER))
    assert not made.is_own(Address("ip4", "127.0.0.1", 4748, OTHER))
    assert not made.is_own(Address("ip4", "192.168.77.2", 4747, OTHER))


@pytest.mark.parametrize(
    ("address", "named", "lan_only", "near"),
    [
        ("/ip4/203.0.113.9/tcp/1", [], False, True),
        ("/dns4/example.org/tcp/1", [], False, True),
        ("/ip4/192.168.77.9/tcp/1", [], False, False),
        ("/ip4/192.168.77.9/tcp/1", ["/ip4/192.168.77.3/tcp/1"], False, True),
        ("/ip4/192.168.78.9/tcp/1", ["/ip4/192.168.78.3/tcp/1"], False, False),
        ("/ip4/192.168.77.9/tcp/1", [], True, True),
        ("/ip4/10.9.9.9/tcp/1", [], True, False),
        ("/ip4/127.0.0.1/tcp/1", [], False, False),
    ],
)
def test_whose_word_is_enough(address: str, named: list[str], lan_only: bool, near: bool) -> None:
    assert stand(named=named, lan_only=lan_only).is_near(parse_address(address)) == near


def test_loopback_means_something_to_who_is_there_alone() -> None:
    here = parse_address("/ip4/127.0.0.1/tcp/1")
    assert stand(Address("ip4", "127.0.0.1", 4747)).is_near(here)


@pytest.mark.parametrize(
    ("address", "of_site"),
    [
        ("/ip4/192.168.77.200/tcp/1", True),
        ("/ip4/127.0.0.1/tcp/1", True),
        ("/ip4/192.168.78.1/tcp/1", False),
        ("/ip4/10.200.1.1/tcp/1", False),
        ("/ip4/100.64.3.3/tcp/1", False),
        ("/ip4/8.8.8.8/tcp/1", False),
        ("/dns4/router.local/tcp/1", False),
    ],
)
def test_what_is_on_a_network_of_this_machine(address: str, of_site: bool) -> None:
    assert stand().is_of_site(parse_address(address)) == of_site


def test_what_outlives_a_change_of_the_network() -> None:
    reach = Reach()
    seen = Address("ip4", "198.51.100.1", 4747)
    for number in (1, 2, 3):
        at = Address("ip4", f"203.0.113.{number}", 1)
        reach.observe(Observation(PeerId(bytes([number]) * 32), at, seen))
    made = stand(reach=reach)
    reach.attempted(Attempt(seen, OTHER, OTHER, False, True, 0.0))
    more = frozenset(map(ipaddress.ip_interface, ("192.168.77.1/24", "172.17.0.1/16")))
    made.network_changed(more, [PeerId(bytes([number]) * 32) for number in (1, 2, 3)])
    assert reach.report((), 0.0).observers == 3
    assert reach.report((), 0.0).tried == 1
    made.network_changed(frozenset(), [])
    assert reach.report((), 0.0).observers == 0
    assert made.is_gone(Address("ip4", "192.168.77.1", 4747))
