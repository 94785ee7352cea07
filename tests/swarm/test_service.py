"""Who serves is served first; free keys buy nobody more than the strangers' pool."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol.ids import PeerId
from swarm.service import HALF_LIFE_S, IN_TURN, STANDING, Account, Balance

NOW = 1_700_000_000


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


FRIEND = peer(1_000)


def in_service(strangers: int = 0, friends: int = 0) -> Counter[PeerId]:
    """So many rounds being served, each of another asker."""
    return Counter([peer(n) for n in range(strangers)] + [peer(2_000 + n) for n in range(friends)])


def befriended(*peers: PeerId, rounds: float = 5.0) -> Balance:
    balance = Balance()
    for one in (FRIEND, *peers):
        balance.gave(one, NOW, rounds)
    return balance


# --- whom to serve ------------------------------------------------------------------------------


def test_a_hundred_fresh_keys_leave_an_established_peer_its_seats() -> None:
    balance = befriended()
    serving: Counter[PeerId] = Counter()
    for number in range(100):
        for _ in range(limits.ROUNDS_PER_ASKER):
            if balance.admit(peer(number), serving, NOW) is None:
                balance.took(peer(number), NOW)
                serving[peer(number)] += 1
    assert sum(serving.values()) == limits.STRANGERS_AT_ONCE
    for _ in range(limits.ROUNDS_PER_ASKER):
        assert balance.admit(FRIEND, serving, NOW) is None
        serving[FRIEND] += 1
    busy = balance.admit(FRIEND, serving, NOW)
    assert busy is not None
    assert "your rounds" in busy


def test_strangers_are_served_while_the_pool_has_room() -> None:
    balance = Balance()
    assert balance.admit(peer(99), in_service(limits.STRANGERS_AT_ONCE - 1), NOW) is None
    busy = balance.admit(peer(99), in_service(limits.STRANGERS_AT_ONCE), NOW)
    assert busy is not None
    assert "have not served this node" in busy


def test_the_rounds_of_friends_are_not_of_the_pool() -> None:
    friends = limits.ROUNDS_AT_ONCE - limits.STRANGERS_AT_ONCE
    balance = befriended(*in_service(friends=friends))
    serving = in_service(limits.STRANGERS_AT_ONCE - 1, friends)
    assert balance.admit(peer(99), serving, NOW) is None
    serving[peer(99)] += 1
    for one in (FRIEND, peer(500)):
        assert (
            balance.admit(one, serving, NOW) == f"{limits.ROUNDS_AT_ONCE} rounds are being served"
        )


def test_who_took_more_than_it_gave_shares_the_pool() -> None:
    balance = befriended(rounds=2.0)
    full = in_service(limits.STRANGERS_AT_ONCE)
    for _ in range(3):
        assert balance.admit(FRIEND, full, NOW) is None
        balance.took(FRIEND, NOW)
    assert balance.admit(FRIEND, full, NOW) is None, "one round ahead, as of two in turn"
    balance.took(FRIEND, NOW)
    assert balance.admit(FRIEND, full, NOW) is not None
    assert balance.admit(FRIEND, in_service(), NOW) is None
    balance.gave(FRIEND, NOW)
    assert balance.admit(FRIEND, full, NOW) is None


def test_two_that_serve_each_other_in_turn_are_never_strangers() -> None:
    balance = Balance()
    balance.gave(FRIEND, NOW)
    for number in range(50):
        now = NOW + number * 3600
        assert balance.in_credit(FRIEND, now)
        balance.took(FRIEND, now)
        assert balance.in_credit(FRIEND, now)
        balance.gave(FRIEND, now + 1800)


def test_no_merit_no_credit() -> None:
    """An account that only says what somebody took, or a trace of old merit, is a stranger's."""
    balance = Balance([(peer(1), Account(0.0, 0.0, NOW)), (peer(2), Account(0.0, 0.5, NOW))])
    assert not any(balance.in_credit(one, NOW) for one in (peer(1), peer(2), peer(3)))
    balance.gave(peer(1), NOW, STANDING / 2)
    assert not balance.in_credit(peer(1), NOW)


# --- fading -------------------------------------------------------------------------------------


def test_both_sides_fade() -> None:
    balance = Balance()
    balance.gave(FRIEND, NOW, 8.0)
    balance.took(FRIEND, NOW, 4.0)
    assert balance.account(FRIEND, NOW + HALF_LIFE_S) == Account(4.0, 2.0, NOW + HALF_LIFE_S)
    assert balance.in_credit(FRIEND, NOW + 4 * HALF_LIFE_S)
    assert not balance.in_credit(FRIEND, NOW + 5 * HALF_LIFE_S), "less than half a round is left"


def test_debt_is_forgiven_in_time() -> None:
    balance = Balance()
    balance.took(FRIEND, NOW, 64.0)
    balance.gave(FRIEND, NOW + 6 * HALF_LIFE_S)
    assert balance.account(FRIEND, NOW + 6 * HALF_LIFE_S).taken == 1.0
    assert balance.in_credit(FRIEND, NOW + 6 * HALF_LIFE_S)


def test_a_clock_that_runs_backwards_fades_nothing() -> None:
    balance = befriended()
    assert balance.account(FRIEND, NOW - 99 * HALF_LIFE_S).given == 5.0
    balance.gave(FRIEND, NOW - HALF_LIFE_S)
    assert balance.account(FRIEND, NOW - HALF_LIFE_S).given == 6.0


# --- bounded ------------------------------------------------------------------------------------


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ACCOUNTS", 3)


@pytest.mark.usefixtures("three")
def test_takers_never_displace_givers() -> None:
    balance = befriended(peer(1), rounds=1.0)
    for number in range(10, 20):
        balance.took(peer(number), NOW)
    assert balance.knows(FRIEND)
    assert balance.knows(peer(1))
    assert balance.gave(peer(2), NOW) is not None
    for number in range(20, 30):
        assert balance.took(peer(number), NOW) is None
        assert not balance.knows(peer(number))
    assert all(balance.knows(one) for one in (FRIEND, peer(1), peer(2)))


@pytest.mark.usefixtures("three")
def test_who_gave_least_makes_room() -> None:
    balance = Balance()
    for number in (3, 1, 2):
        balance.gave(peer(number), NOW, float(number))
    assert balance.gave(peer(9), NOW, 5.0) == peer(1)
    assert not balance.knows(peer(1))


@settings(max_examples=80)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 7), st.integers(0, HALF_LIFE_S), st.floats(0, 9)),
        max_size=40,
    )
)
def test_laws_of_accounts(steps: list[tuple[bool, int, int, float]]) -> None:
    """Bounded; never negative; giving never ends a credit and taking never makes one."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(limits, "ACCOUNTS", 5)
        balance, now, known = Balance(), NOW, set()
        for gives, number, seconds, rounds in steps:
            now += seconds
            before = balance.in_credit(peer(number), now)
            closed = (balance.gave if gives else balance.took)(peer(number), now, rounds)
            known = {one for one in known | {peer(number)} if balance.knows(one)}
            assert closed is None or not balance.knows(closed)
            assert len(known) <= 5
            after = balance.in_credit(peer(number), now)
            assert (before <= after) if gives else (after <= before)
            account = balance.account(peer(number), now)
            assert account.given >= 0.0
            assert account.taken >= 0.0
            assert after == (account.given >= max(STANDING, account.taken - IN_TURN))


@settings(max_examples=80)
@given(credit=st.sets(st.integers(0, 30)), askers=st.lists(st.integers(0, 30), max_size=80))
def test_laws_of_admission(credit: set[int], askers: list[int]) -> None:
    """All, each asker and the pool stay within bounds, and who is refused finds one of them met."""
    balance = Balance()
    for number in credit:
        balance.gave(peer(number), NOW, 100.0)
    serving: Counter[PeerId] = Counter()
    for number in askers:
        pool = sum(serving[peer(n)] for n in range(31) if n not in credit)
        met = (
            serving[peer(number)] >= limits.ROUNDS_PER_ASKER
            or sum(serving.values()) >= limits.ROUNDS_AT_ONCE
            or (number not in credit and pool >= limits.STRANGERS_AT_ONCE)
        )
        assert (balance.admit(peer(number), serving, NOW) is not None) == met
        serving[peer(number)] += not met
    assert sum(serving.values()) <= limits.ROUNDS_AT_ONCE
