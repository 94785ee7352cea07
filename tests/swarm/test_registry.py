"""Who is there, from where, what they say and since when: from links and logs, in any order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.ids import PeerId
from protocol.ledger import Profile
from protocol.messages import Model
from swarm.ledger.state import State
from swarm.registry import Known, Registry, origin
from swarm.selection import Measured
from tests.fakes.own_log import NOTHING


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


OWN = peer(99)
FAR = "/ip4/8.8.4.4/tcp/4001"


def profile(family: str, serves: bool = True) -> Profile:
    return Profile(Model(f"model of {family}", family, ""), 1, 4096, serves)


def state(family: str, serves: bool = True, forked: bool = False, since: int = 7) -> State:
    return replace(NOTHING, profile=profile(family, serves), since=since, forked=forked)


def registry() -> Registry:
    return Registry(OWN, profile("own", serves=False))


def families(one: Registry) -> dict[PeerId, str]:
    return {who: said.model.family for who, said in one.profiles.items()}


# --- links and logs -------------------------------------------------------------------------------


@pytest.mark.parametrize("log_first", [True, False])
def test_who_is_linked_and_has_a_log_can_be_asked(log_first: bool) -> None:
    one = registry()
    for step in (log_first, not log_first):
        assert one.able() == []
        if step:
            one.learn(peer(0), state("a"))
        else:
            one.connected(peer(0), FAR)
    assert one.able() == [peer(0)]


def test_who_has_gone_is_known_and_may_come_back() -> None:
    one = registry()
    one.connected(peer(0), FAR)
    one.learn(peer(0), state("a"))
    for _ in range(2):
        one.disconnected(peer(0))
    assert one.able() == []
    assert peer(0) not in one.profiles
    assert one.get(peer(0)) == Known(profile("a"), 7, False)
    one.learn(peer(0), state("b", since=9))
    assert one.get(peer(0)) == Known(profile("b"), 9, False)
    one.connected(peer(0), FAR)
    assert families(one) == {OWN: "own", peer(0): "b"}


def test_what_is_known_goes_with_the_log() -> None:
    one = registry()
    one.connected(peer(0), FAR)
    one.learn(peer(0), state("a"))
    for _ in range(2):
        one.learn(peer(0), None)
    assert one.get(peer(0)) is None
    assert one.able() == []
    one.learn(peer(0), state("a"))
    assert one.able() == [peer(0)], "the link was there all the time"


def test_a_log_that_says_nothing_of_its_author() -> None:
    one = registry()
    one.connected(peer(0), FAR)
    one.learn(peer(0), replace(NOTHING, since=5))
    assert one.get(peer(0)) == Known(None, 5, False)
    assert one.able() == []
    assert peer(0) not in one.profiles


def test_this_node_needs_no_log_to_know_itself() -> None:
    one = Registry(OWN, profile("own"))
    assert one.able() == [OWN]
    assert one.get(OWN) == Known(profile("own"), 0, False)
    late = replace(NOTHING, profile=profile("before the update"), since=5)
    one.learn(OWN, late)
    assert one.get(OWN) == Known(profile("own"), 5, False)
    one.learn(OWN, None)
    assert one.get(OWN) == Known(profile("own"), 0, False)


@pytest.mark.parametrize("label", ["the one upstairs", ""])
def test_a_node_is_called_what_its_log_says(label: str) -> None:
    """It may have been renamed while it runs."""

    def named(by: str, text: str) -> Profile:
        return Profile(Model("m", by, ""), 1, 4096, True, label=text)

    one = Registry(OWN, named("own", "at the start"))
    assert one.profiles[OWN].label == "at the start"
    one.learn(OWN, replace(NOTHING, profile=named("log", label)))
    assert one.profiles[OWN] == named("own", label)


def test_who_has_forked_is_not_asked() -> None:
    one = registry()
    for number in (0, 1):
        one.connected(peer(number), FAR)
        one.learn(peer(number), state("a", forked=number == 0))
    assert one.forked == {peer(0)}
    assert one.able() == [peer(1)]
    assert {seat.peer: seat.struck for seat in one.candidates({}, {}, ())} == {
        peer(0): True,
        peer(1): False,
    }
    one.learn(peer(0), state("a"))  # that epoch is over
    assert one.forked == set()
    one.learn(peer(0), state("a", forked=True))
    one.learn(peer(0), None)
    assert one.forked == set()


def test_a_node_asks_itself_whoever_else_writes_with_its_key() -> None:
    one = Registry(OWN, profile("own"))
    one.learn(OWN, state("own", forked=True))
    assert one.able() == [OWN]
    assert one.forked == set()
    (seat,) = one.candidates({}, {}, ())
    assert not seat.struck
    known = one.get(OWN)
    assert known is not None
    assert known.forked, "the operator has to see it"


STATES = st.one_of(
    st.none(), st.builds(state, st.sampled_from("abc"), st.booleans(), st.booleans())
)
STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.one_of(st.booleans(), st.tuples(STATES))), max_size=20
)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(STEPS)
def test_the_latest_word_counts_whatever_came_before(
    steps: list[tuple[int, bool | tuple[State | None]]],
) -> None:
    one, again = registry(), registry()
    links: dict[int, bool] = {}
    states: dict[int, State | None] = {}
    for number, step in steps:
        if isinstance(step, tuple):
            (states[number],) = step
            one.learn(peer(number), states[number])
        elif step:
            links[number] = True
            one.connected(peer(number), FAR)
        else:
            links[number] = False
            one.disconnected(peer(number))
    for number, held in states.items():
        again.learn(peer(number), held)
    for number, linked in links.items():
        if linked:
            again.connected(peer(number), FAR)
    assert one.able() == again.able()
    assert one.profiles == again.profiles
    assert (
        one.forked
        == again.forked
        == {peer(number) for number, held in states.items() if held is not None and held.forked}
    )
    order = [{seat.peer: seat for seat in each.candidates({}, {}, ())} for each in (one, again)]
    assert order[0] == order[1]
    assert [one.get(peer(number)) for number in range(3)] == [
        again.get(peer(number)) for number in range(3)
    ]


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
    one = registry()
    one.connected(peer(1), FAR)
    said = Profile(Model("m", "f", ""), 5, 2048, True, energy=7)
    one.learn(peer(1), replace(NOTHING, profile=said))
    measured = Measured(0.7, 0.1, proven=True)
    (candidate,) = one.candidates(
        {peer(1): measured, peer(2): Measured()}, {peer(1): 0.6, peer(2): 0.9}, {peer(1)}
    )
    assert (candidate.peer, candidate.family, candidate.context_tokens) == (peer(1), "f", 2048)
    assert (candidate.energy, candidate.origin, candidate.hint) == (7, "8.8.0.0/16", 0.6)
    assert candidate.measured == measured
    assert candidate.struck
    (plain,) = one.candidates({}, {}, ())
    assert not plain.struck
    assert (plain.measured, plain.hint) == (Measured(), 0.0)


def test_the_origin_is_that_of_the_path_in_use() -> None:
    one = registry()
    one.learn(peer(0), state("a"))
    for address, shared in ((f"{FAR}/p2p/{RELAY}/p2p-circuit", RELAY), (FAR, "8.8.0.0/16")):
        one.connected(peer(0), address)
        (candidate,) = one.candidates({}, {}, ())
        assert candidate.origin == shared


def test_who_does_not_serve_is_no_candidate() -> None:
    one = registry()
    for number in (0, 1):
        one.connected(peer(number), FAR)
        one.learn(peer(number), state("a", serves=number == 0))
    assert one.able() == [peer(0)]
    assert [candidate.peer for candidate in one.candidates({}, {}, ())] == [peer(0)]
