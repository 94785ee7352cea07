"""What observations and attempts say of how a node is reached."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.mesh.address import Address
from node.mesh.reach import (
    CONFIRMATION_S,
    NO_NAT,
    OBSERVATIONS,
    OBSERVERS,
    PRESERVING,
    REWRITING,
    SYMMETRIC,
    UNKNOWN,
    Attempt,
    Observation,
    Reach,
    is_local,
)
from protocol.frames import Hello
from protocol.ids import PeerId, peer_text
from protocol.version import OLDEST, PROTOCOL
from tests.fakes.mesh import FakeNetwork

NOW = 1000.0
OWN = Address("ip4", "10.1.0.2", 4001)
OWN6 = Address("ip6", "2001:db8:1::2", 4001)
OUTSIDE = "198.51.100.1"


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def at(number: int) -> Address:
    """A public node."""
    return Address("ip4", f"203.0.113.{number}", 4001)


def at6(number: int) -> Address:
    return Address("ip6", f"2001:db8:9::{number:x}", 4001)


def seen(number: int, port: int = 4001, host: str = OUTSIDE) -> Observation:
    return Observation(peer(number), at(number), Address("ip4", host, port))


def seen6(number: int, port: int = 4001, host: str = OWN6.host) -> Observation:
    return Observation(peer(number), at6(number), Address("ip6", host, port))


def reach(*observations: Observation, asserted: bool = False) -> Reach:
    made = Reach(asserted)
    for one in observations:
        made.observe(one)
    return made


def tried(
    number: int, reached: bool, stranger: bool = True, when: float = NOW, port: int = 4001
) -> Attempt:
    one = peer(number)
    return Attempt(Address("ip4", OUTSIDE, port, peer(0)), one, one, reached, stranger, when)


# --- the kind of mapping ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observations", "mapping"),
    [
        ([], UNKNOWN),
        # A public node, or a firewall: seen as it is. One observer is enough to know.
        ([seen(1, host=OWN.host)], NO_NAT),
        ([seen(number, host=OWN.host) for number in (1, 2, 3)], NO_NAT),
        # Until three agree, the next may still differ.
        ([seen(1)], UNKNOWN),
        ([seen(1), seen(2)], UNKNOWN),
        ([seen(1), seen(2), seen(3)], PRESERVING),
        ([seen(1, 5001), seen(2, 5001)], UNKNOWN),
        ([seen(1, 5001), seen(2, 5001), seen(3, 5001)], REWRITING),
        # Two that differ are enough.
        ([seen(1, 5001), seen(2, 5002)], SYMMETRIC),
        ([seen(1, 5001), seen(2, 5001), seen(3, 5002), seen(4, 5003)], SYMMETRIC),
        # Who is alone in what it sees may be lying.
        ([seen(1, 5001), seen(2, 5001), seen(3, 5002)], UNKNOWN),
        ([seen(1, 5001), seen(2, 5001), seen(3, 5001), seen(4, 5002)], REWRITING),
        ([seen(1), seen(2), seen(3), seen(4, host="198.51.100.9")], PRESERVING),
        # Nor does a NAT that has several outside addresses let a hole be punched.
        ([seen(1), seen(2, host="198.51.100.2")], SYMMETRIC),
        ([seen(1, host=OWN.host), seen(2)], SYMMETRIC),
        # One host says the same thing about itself three times.
        ([Observation(peer(1), Address("ip4", at(1).host, port), seen(1).seen)
          for port in (1, 2, 3)], UNKNOWN),
        # What peers in the same site see is no matter of the NAT.
        ([Observation(peer(number), Address("ip4", f"10.1.0.{number}", 1), OWN)
          for number in (3, 4, 5)], UNKNOWN),
        ([Observation(peer(9), Address("ip4", "10.1.0.9", 1), OWN), seen(1), seen(2), seen(3)],
         PRESERVING),
        # IPv4 and IPv6 have mappings of their own, and differ as a matter of course.
        ([seen6(1), seen6(2), seen6(3)], NO_NAT),
        ([seen(1), seen(2), seen6(3)], UNKNOWN),
        ([seen6(1), seen6(2), seen6(3), seen(4, 5001)], UNKNOWN),
        ([seen(1), seen(2), seen(3), seen6(4)], PRESERVING),
        ([seen(1, 5001), seen(2, 5001), seen(3, 5001), seen6(4)], REWRITING),
        ([seen6(1, 5001), seen6(2, 5001), seen6(3, 5001), seen(4, host=OWN.host)], REWRITING),
        ([seen(1), seen6(2), seen6(3, 5002)], SYMMETRIC),
        ([seen(1, 5001), seen6(2), seen(3, 5002)], SYMMETRIC),
    ],
)  # fmt: skip
@pytest.mark.parametrize("reverse", [False, True])
def test_the_kinds_of_nat(observations: list[Observation], mapping: str, reverse: bool) -> None:
    made = reach(*(reversed(observations) if reverse else observations))
    assert made.mapping((OWN, OWN6)) == mapping
    assert made.report((OWN, OWN6), NOW).mapping == mapping


def test_what_is_seen_most_comes_first() -> None:
    made = reach(seen(1, 1), seen(2, 2), seen(3, 2), seen(4, 3), seen(5, 3), seen(6, 3))
    assert [one.port for one in made.candidates()] == [3, 2, 1]
    assert made.report((OWN,), NOW).observed == made.candidates()


def test_the_latest_from_each_address_counts() -> None:
    made = reach(seen(1, 5001), seen(2, 5002), seen(3, 5002))
    assert made.mapping((OWN,)) == UNKNOWN
    assert made.observe(seen(1, 5002))
    assert made.mapping((OWN,)) == REWRITING
    assert made.report((OWN,), NOW).observers == 3
    assert not made.observe(seen(1, 5002))


def test_only_a_change_is_one() -> None:
    made = Reach()
    assert made.observe(seen(1))
    assert not made.observe(seen(2))
    # The third makes the mapping known.
    assert made.observe(seen(3))
    assert not made.observe(seen(4))
    assert made.observe(seen(5, 5001))


def test_observations_are_bounded_and_the_newest_stay() -> None:
    made = Reach()
    for number in range(1, 3 * OBSERVATIONS):
        made.observe(seen(number % 250 + 1, number))
    assert sum(1 for _ in made.candidates()) == OBSERVATIONS
    assert {one.port for one in made.candidates()} == set(range(2 * OBSERVATIONS, 3 * OBSERVATIONS))


def test_who_is_seen_again_is_not_the_oldest() -> None:
    made = reach(*(seen(number) for number in range(1, OBSERVATIONS + 1)))
    made.observe(seen(1, 7))
    made.observe(seen(200))
    ports = {one.port for one in made.candidates()}
    assert 7 in ports


def test_another_network_is_another_matter() -> None:
    made = reach(seen(1), seen(2), seen(3))
    made.attempted(tried(9, True))
    made.forget()
    report = made.report((OWN,), NOW)
    assert (report.nat, report.mapping, report.observers) == ("unknown", UNKNOWN, 0)
    assert report.observed == report.confirmed == report.confirmed_by == ()
    assert report.tried == 0


def test_what_outlives_a_change_is_kept() -> None:
    """As when an interface appears beside the one in use."""
    made = reach(*BEHIND)
    made.attempted(tried(9, False))
    made.forget({peer(1), peer(2), peer(3)})
    assert made.report((OWN,), NOW).mapping == PRESERVING
    assert made.report((OWN,), NOW).tried == 1
    made.forget({peer(1)})
    assert made.report((OWN,), NOW).observers == 1
    assert made.report((OWN,), NOW).tried == 0


# --- who gets through ---------------------------------------------------------------------------

PUBLIC = [seen(number, host=OWN.host) for number in (1, 2, 3)]
BEHIND = [seen(1), seen(2), seen(3)]
CLOSED = [seen(1, 5001), seen(2, 5002)]


@pytest.mark.parametrize(
    ("observations", "attempts", "asserted", "nat"),
    [
        ([], [], False, "unknown"),
        ([], [], True, "public"),
        (CLOSED, [], True, "public"),
        # A stranger got through: then anybody does.
        ([], [tried(9, True)], False, "public"),
        (BEHIND, [tried(9, True)], False, "public"),
        (CLOSED, [tried(9, True)], False, "public"),
        # Who has a connection with us gets through a NAT for that alone; but without one …
        (BEHIND, [tried(9, True, stranger=False)], False, "open"),
        (PUBLIC, [tried(9, True, stranger=False)], False, "public"),
        # Nobody does, or nobody has tried.
        (PUBLIC, [], False, "unknown"),
        (PUBLIC, [tried(9, False)], False, "open"),
        (PUBLIC, [tried(9, False, stranger=False)], False, "open"),
        (BEHIND, [], False, "open"),
        (BEHIND, [tried(9, False)], False, "open"),
        (CLOSED, [], False, "closed"),
        (CLOSED, [tried(9, False)], False, "closed"),
        ([seen(1)], [], False, "unknown"),
        ([seen(1)], [tried(9, False)], False, "open"),
        # The first node of a swarm: whoever comes is linked, and sees that one gets through.
        ([], [tried(9, True, stranger=False)], False, "unknown"),
        ([seen(1)], [tried(9, True, stranger=False)], False, "unknown"),
        ([], [tried(9, True, stranger=False), tried(8, False)], False, "open"),
        # Attempts that were long ago.
        (BEHIND, [tried(9, True, when=NOW - CONFIRMATION_S)], False, "open"),
        (PUBLIC, [tried(9, False, when=NOW - CONFIRMATION_S)], False, "unknown"),
        ([], [tried(9, True, when=NOW - CONFIRMATION_S + 1)], False, "public"),
        # The latest of each at each address counts.
        (BEHIND, [tried(9, True, when=NOW - 10), tried(9, False)], False, "open"),
        (BEHIND, [tried(9, False, when=NOW - 10), tried(9, True)], False, "public"),
        (BEHIND, [tried(9, True), tried(9, False, port=5)], False, "public"),
        # One that says otherwise is not enough, nor is one of two.
        (BEHIND, [tried(9, True), tried(8, False), tried(7, False)], False, "open"),
        (BEHIND, [tried(9, True), tried(8, False)], False, "open"),
        (BEHIND, [tried(9, True), tried(8, True), tried(7, False)], False, "public"),
        # In a full mesh nobody honest is a stranger, and still they are asked.
        (BEHIND, [tried(9, True), tried(8, False, stranger=False)], False, "open"),
        (BEHIND, [tried(9, True), tried(8, True, stranger=False)], False, "public"),
    ],
)
def test_how_the_node_is_reached(
    observations: list[Observation], attempts: list[Attempt], asserted: bool, nat: str
) -> None:
    made = reach(*observations, asserted=asserted)
    for attempt in attempts:
        made.attempted(attempt)
    assert made.report((OWN,), NOW).nat == nat


def test_the_report_says_who_has_confirmed_what() -> None:
    made = reach(*BEHIND)
    made.attempted(tried(7, True, stranger=False, port=1))
    made.attempted(tried(8, False, port=2))
    made.attempted(tried(9, True, port=3))
    made.attempted(tried(9, True, port=1))
    made.attempted(tried(6, True, when=NOW - CONFIRMATION_S, port=4))
    report = made.report((OWN,), NOW)
    assert report.nat == "public"
    assert report.mapping == PRESERVING
    assert report.observers == OBSERVERS
    # Strangers first.
    assert report.confirmed_by == (peer(9), peer(7))
    assert [one.port for one in report.confirmed] == [3, 1]
    assert report.by_stranger
    assert report.tried == 4


def test_attempts_are_bounded_and_the_newest_stay() -> None:
    made = Reach()
    for number in range(1, OBSERVATIONS + 1):
        made.attempted(tried(number, False))
    made.attempted(tried(1, True))
    for number in range(100, 100 + OBSERVATIONS - 1):
        made.attempted(tried(number, False))
    report = made.report((OWN,), NOW)
    assert report.tried == OBSERVATIONS
    assert report.confirmed_by == (peer(1),)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("10.0.0.1", True),
        ("172.16.0.1", True),
        ("172.32.0.1", False),
        ("192.168.255.255", True),
        ("100.64.0.1", True),
        ("100.128.0.1", False),
        ("127.0.0.1", True),
        ("169.254.1.1", True),
        ("0.0.0.0", True),
        ("192.0.2.1", False),
        ("8.8.8.8", False),
        ("::1", True),
        ("::", True),
        ("fe80::1", True),
        ("fd00::1", True),
        ("2001:db8::1", False),
        ("2606:4700::1", False),
    ],
)
def test_what_is_local(host: str, local: bool) -> None:
    assert is_local(Address("ip6" if ":" in host else "ip4", host, 1)) == local


def test_a_name_is_not_local() -> None:
    assert not is_local(Address("dns4", "localhost", 1))


# --- what peers say that they see ---------------------------------------------------------------


HUB = at(1)


@dataclass
class Way:
    """A connection, as far as it matters from where it was made."""

    dialled: bool = True
    relayed: bool = False
    source: Address | None = OWN
    address: Address | None = HUB


def noted(observed: str, way: Way) -> Reach:
    """What is known once a peer has greeted on ``way``."""
    mesh = FakeNetwork().mesh("one", host=OWN.host, port=OWN.port)
    made = mesh._reach
    hello = Hello(OLDEST, PROTOCOL, "test", "agent", bytes(16), observed)
    assert mesh._standing.noted(peer(1), way, hello) == bool(made.candidates())  # type: ignore[arg-type]
    return made


SEEN = f"/ip4/{OUTSIDE}/tcp/5001"


def test_what_a_peer_sees_of_the_listening_port_is_taken() -> None:
    made = noted(SEEN, Way())
    assert [str(one) for one in made.candidates()] == [SEEN]
    assert made.report((OWN,), NOW).observers == 1


@pytest.mark.parametrize(
    "way",
    [
        # It made the connection itself, or there is a relay in between.
        Way(dialled=False),
        Way(relayed=True),
        # From another port, which says nothing of the listening one.
        Way(source=Address("ip4", OWN.host, 50_000)),
        Way(source=None),
        Way(address=None),
    ],
)
def test_what_a_peer_sees_of_another_port_says_nothing(way: Way) -> None:
    assert noted(SEEN, way).candidates() == ()


@pytest.mark.parametrize(
    "observed",
    [
        "",
        "nonsense",
        "/ip4/198.51.100.1",
        "/ip4/198.51.100.1/tcp/0",
        "/ip4/198.51.100.1/udp/5001",
        "/dns4/node.example/tcp/5001",
        f"{SEEN}/p2p/{peer_text(peer(0))}",
        f"{SEEN}/p2p/{peer_text(peer(1))}/p2p-circuit",
        f"{SEEN}/p2p/{peer_text(peer(1))}/p2p-circuit/p2p/{peer_text(peer(0))}",
        "/ip4/\x1b[2J/tcp/1",
        "/" * 200,
    ],
)
def test_what_is_no_socket_was_not_seen(observed: str) -> None:
    assert noted(observed, Way()).candidates() == ()


@given(st.text(max_size=60))
def test_any_text_is_an_observation_or_none(observed: str) -> None:
    noted(observed, Way())


# --- laws ---------------------------------------------------------------------------------------

ports = st.sampled_from((4001, 5001, 5002))
hosts = st.sampled_from((OWN.host, OUTSIDE, "198.51.100.2"))
observations = st.lists(
    st.one_of(
        st.builds(seen, st.integers(1, 9), ports, hosts),
        st.builds(seen6, st.integers(1, 9), ports),
        st.builds(
            lambda number, port: Observation(
                peer(number), Address("ip4", f"10.1.0.{number}", 1), Address("ip4", OWN.host, port)
            ),
            st.integers(1, 9),
            ports,
        ),
    ),
    max_size=9,
    unique_by=lambda one: one.at,
)
attempts = st.lists(
    st.builds(
        tried,
        st.integers(1, 9),
        st.booleans(),
        st.booleans(),
        st.sampled_from((NOW, NOW - 100, NOW - CONFIRMATION_S, NOW - 2 * CONFIRMATION_S)),
        ports,
    ),
    max_size=6,
    unique_by=lambda one: (one.by, one.address),
)


@settings(max_examples=200)
@given(observations, attempts, st.booleans(), st.data())
def test_the_order_does_not_matter(
    told: list[Observation], trials: list[Attempt], asserted: bool, data: st.DataObject
) -> None:
    one, other = reach(*told, asserted=asserted), Reach(asserted)
    for attempt in trials:
        one.attempted(attempt)
    steps = data.draw(st.permutations([*told, *trials]))
    for step in steps:
        if isinstance(step, Attempt):
            other.attempted(step)
        else:
            other.observe(step)
    first, second = (made.report((OWN, OWN6), NOW) for made in (one, other))
    assert first.nat == second.nat
    assert first.mapping == second.mapping
    assert first.observers == second.observers
    assert first.by_stranger == second.by_stranger
    assert first.tried == second.tried
    for name in ("observed", "confirmed", "confirmed_by"):
        assert sorted(map(str, getattr(first, name))) == sorted(map(str, getattr(second, name)))


@settings(max_examples=300)
@given(observations, attempts, st.booleans())
def test_nobody_is_public_without_a_reason(
    told: list[Observation], trials: list[Attempt], asserted: bool
) -> None:
    made = reach(*told, asserted=asserted)
    for attempt in trials:
        made.attempted(attempt)
    report = made.report((OWN, OWN6), NOW)
    reached = [one for one in trials if one.reached and NOW - one.at < CONFIRMATION_S]
    if report.nat == "public":
        assert asserted or any(one.stranger or report.mapping == NO_NAT for one in reached)
    assert not report.by_stranger or any(one.stranger for one in reached)
    if asserted or report.by_stranger:
        assert report.nat == "public"
    assert set(report.confirmed) == {one.address for one in reached}
    assert set(report.confirmed_by) == {one.by for one in reached}
    # A hole is promised only where the mapping does not forbid it.
    if report.nat == "open":
        assert report.mapping != SYMMETRIC


@given(observations)
def test_symmetric_is_only_who_most_see_at_different_places(told: list[Observation]) -> None:
    made = reach(*told)
    latest = {one.at: one for one in told if not is_local(one.at)}
    moved = False
    for kind in ("ip4", "ip6"):
        places = [one.seen for one in latest.values() if one.seen.kind == kind]
        most = max(map(places.count, places), default=0)
        moved |= len(set(places)) > 1 and 2 * most <= len(places)
    assert (made.mapping((OWN, OWN6)) == SYMMETRIC) == moved
