"""What is kept for others is bounded, short-lived, and shared fairly."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.errors import RefusedError
from protocol.ids import PeerId
from protocol.presence import PRESENCE_S, SKEW_S, Leave, Presence, Stated
from swarm.kademlia import node_point, swarm_point
from swarm.noticeboard import Noticeboard

NOW = 1_800_000_000.0
HERE = swarm_point("here")
ALL = 10_000


def peer(number: int) -> PeerId:
    return PeerId(hashlib.sha256(b"%d" % number).digest())


def presence(
    number: int, swarm: str = "here", incarnation: int = 1, serial: int = 0, at: float = NOW
) -> Stated:
    """A statement whose bytes say what it is; nobody verifies it here."""
    said = Presence(swarm, incarnation, serial, int(at), (), False, "unknown")
    return Stated(peer(number), said, f"{number}/{incarnation}/{serial}".encode())


def leave(number: int, incarnation: int = 1) -> Stated:
    return Stated(peer(number), Leave("here", incarnation, int(NOW)), b"leave")


def test_a_statement_is_read_by_its_author_and_by_its_swarm() -> None:
    board = Noticeboard()
    board.post(presence(1), "", NOW)
    board.post(presence(2), "", NOW)
    board.post(presence(3, swarm="there"), "", NOW)
    assert sorted(board.read(HERE, ALL, NOW, b"")) == [b"1/1/0", b"2/1/0"]
    assert board.read(swarm_point("there"), ALL, NOW, b"") == [b"3/1/0"]
    assert board.read(node_point(peer(2)), ALL, NOW, b"") == [b"2/1/0"]
    assert board.read(swarm_point("nowhere"), ALL, NOW, b"") == []


def test_the_latest_of_each_stays() -> None:
    board = Noticeboard()
    board.post(presence(1, serial=5), "", NOW)
    board.post(presence(1, serial=5), "", NOW)
    with pytest.raises(RefusedError, match="later"):
        board.post(presence(1, serial=4), "", NOW)
    board.post(presence(1, incarnation=2, serial=0), "", NOW)
    assert board.read(HERE, ALL, NOW, b"") == [b"1/2/0"]
    board.post(presence(1, incarnation=2, serial=1, swarm="there"), "", NOW)
    assert board.read(HERE, ALL, NOW, b"") == []
    assert len(board) == 1


def test_it_counts_for_a_while_only() -> None:
    board = Noticeboard()
    board.post(presence(1), "", NOW)
    board.post(presence(2, at=NOW - 100), "", NOW)
    assert len(board.read(HERE, ALL, NOW + PRESENCE_S - 100.5, b"")) == 2
    assert board.read(HERE, ALL, NOW + PRESENCE_S - 99.5, b"") == [b"1/1/0"]
    board.expire(NOW + PRESENCE_S - 99.5)
    assert len(board) == 1
    board.expire(NOW + PRESENCE_S)
    assert len(board) == 0


@pytest.mark.parametrize("at", [NOW - PRESENCE_S - 1, NOW + SKEW_S + 1])
def test_what_is_not_of_now_is_refused(at: float) -> None:
    board = Noticeboard()
    with pytest.raises(RefusedError):
        board.post(presence(1, at=at), "", NOW)
    assert len(board) == 0


def test_leaving_takes_down_that_life_and_those_before() -> None:
    board = Noticeboard()
    board.post(presence(1, incarnation=5), "", NOW)
    board.post(leave(1, incarnation=4), "", NOW)
    assert len(board) == 1
    board.post(leave(1, incarnation=5), "", NOW)
    assert len(board) == 0
    board.post(leave(2), "", NOW)  # never was there
    assert len(board) == 0


def test_a_sample_is_drawn_anew_each_time() -> None:
    board = Noticeboard()
    for number in range(50):
        board.post(presence(number), "", NOW)
    samples = [board.read(HERE, 5, NOW, bytes([draw])) for draw in range(60)]
    assert all(len(set(sample)) == 5 for sample in samples)
    assert len(set().union(*samples)) == 50
    assert samples[0] == board.read(HERE, 5, NOW, bytes([0]))


def test_a_swarm_has_so_much_room_and_the_oldest_goes() -> None:
    board = Noticeboard()
    board.post(presence(10_000, swarm="other"), "", NOW)
    for number in range(limits.NOTICES_PER_SWARM + 3):
        board.post(presence(number), "", NOW)
    kept = board.read(HERE, ALL, NOW, b"")
    assert len(kept) == limits.NOTICES_PER_SWARM
    assert {b"0/1/0", b"1/1/0", b"2/1/0"}.isdisjoint(kept)
    assert board.read(swarm_point("other"), ALL, NOW, b"")


def test_stating_oneself_again_is_not_being_old() -> None:
    board = Noticeboard()
    for number in range(limits.NOTICES_PER_SWARM):
        board.post(presence(number), "", NOW)
    board.post(presence(0, serial=1), "", NOW)
    board.post(presence(1000), "", NOW)
    kept = board.read(HERE, ALL, NOW, b"")
    assert b"0/1/1" in kept
    assert b"1/1/0" not in kept


def test_expired_statements_make_room_first() -> None:
    board = Noticeboard()
    board.post(presence(0), "", NOW)
    for number in range(1, limits.NOTICES_PER_SWARM):
        board.post(presence(number, at=NOW - 300), "", NOW)
    later = NOW + 400
    board.post(presence(1000, at=later), "", later)
    assert sorted(board.read(HERE, ALL, later, b"")) == [b"0/1/0", b"1000/1/0"]


def test_a_network_that_floods_displaces_itself() -> None:
    board = Noticeboard()
    for number in range(5):
        board.post(presence(number), f"198.51.{number}.0/24", NOW)
    for number in range(100, 1100):
        board.post(presence(number), "203.0.113.0/24", NOW)
    kept = board.read(HERE, ALL, NOW, b"")
    assert {b"%d/1/0" % number for number in range(5)} <= set(kept)
    # A newcomer from elsewhere finds room.
    board.post(presence(7), "192.0.2.0/24", NOW)
    assert b"7/1/0" in board.read(HERE, ALL, NOW, b"")


def test_swarms_made_up_by_the_thousand_displace_themselves() -> None:
    board = Noticeboard()
    board.post(presence(1), "198.51.100.0/24", NOW)
    for number in range(100, 100 + limits.NOTICES + 500):
        board.post(presence(number, swarm=f"s{number}"), "203.0.113.0/24", NOW)
    assert len(board) == limits.NOTICES
    assert board.read(HERE, ALL, NOW, b"") == [b"1/1/0"]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 90),
            st.sampled_from(["here", "there"]),
            st.integers(0, 3),
            st.booleans(),
            st.sampled_from(["", "a", "b"]),
        ),
        max_size=150,
    )
)
def test_the_bounds_hold_whatever_comes(
    posts: list[tuple[int, str, int, bool, str]],
) -> None:
    board = Noticeboard()
    latest: dict[int, int] = {}
    for number, swarm, incarnation, leaves, origin in posts:
        stated = leave(number, incarnation) if leaves else presence(number, swarm, incarnation)
        try:
            board.post(stated, origin, NOW)
        except RefusedError:
            assert incarnation < latest[number]
        else:
            if not leaves:
                latest[number] = incarnation
    for swarm in ("here", "there"):
        assert len(board.read(swarm_point(swarm), ALL, NOW, b"")) <= limits.NOTICES_PER_SWARM
    for number in range(91):
        assert len(board.read(node_point(peer(number)), ALL, NOW, b"")) <= 1
