"""Who is there: what follows from statements does not depend on who passed them on, or when."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from protocol import limits
from protocol.errors import RefusedError
from protocol.ids import PeerId
from protocol.presence import PRESENCE_S, SKEW_S, Leave, Presence, Stated
from swarm.membership import Membership

SWARM = "friends"
NOW = 1_700_000_000


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


OWN = peer(0)


def here(
    number: int, incarnation: int = 1, serial: int = 0, at: int = NOW, swarm: str = SWARM
) -> Stated:
    address = f"/ip4/192.0.2.{number % 250}/tcp/{4001 + serial}"
    presence = Presence(swarm, incarnation, serial, at, (address,), False, "unknown")
    return Stated(peer(number), presence, b"%d %d %d" % (number, incarnation, serial))


def gone(number: int, incarnation: int = 1, at: int = NOW, swarm: str = SWARM) -> Stated:
    return Stated(peer(number), Leave(swarm, incarnation, at), b"%d %d x" % (number, incarnation))


OWN_WORD = here(0)


def membership(*stated: Stated, now: float = NOW, first_hand: bool = False) -> Membership:
    made = Membership(OWN, SWARM)
    for one in stated:
        made.hear(one, now, first_hand)
    return made


def held(known: Membership, now: float = NOW) -> dict[PeerId, Presence]:
    """Everyone present, each way of asking giving the same."""
    present = known.present(now)
    for number in range(8):
        assert known.get(peer(number), now) == present.get(peer(number))
    return present


# --- lives of honest nodes ----------------------------------------------------------------------


@st.composite
def lives(draw: st.DrawFn, peers: int = 4) -> list[Stated]:
    """What some nodes state in the course of time, each as an honest one does."""
    told: list[Stated] = []
    for number in range(1, draw(st.integers(1, peers)) + 1):
        at = NOW - draw(st.integers(0, PRESENCE_S - 1))
        for incarnation in range(1, draw(st.integers(1, 3)) + 1):
            for serial in range(draw(st.integers(0, 3))):
                told.append(here(number, incarnation, serial, min(at, NOW)))
                at += draw(st.integers(0, 200))
            if draw(st.booleans()):
                told.append(gone(number, incarnation, min(at, NOW)))
                at += draw(st.integers(0, 200))
    return told


def life(stated: Stated) -> tuple[int, bool, int]:
    """When in the life of a node something was stated."""
    one = stated.statement
    if isinstance(one, Leave):
        return one.incarnation, True, 0
    return one.incarnation, False, one.serial


def latest(told: list[Stated]) -> dict[PeerId, Stated]:
    """By the rule in words: the last that each has said."""
    last: dict[PeerId, Stated] = {}
    for one in told:
        if one.peer not in last or life(one) > life(last[one.peer]):
            last[one.peer] = one
    return last


@given(lives(), st.randoms(use_true_random=False), st.data())
def test_the_order_of_arrival_does_not_matter(
    told: list[Stated], rng: object, data: st.DataObject
) -> None:
    one = membership(*told)
    shuffled = data.draw(st.permutations(told))
    repeated = shuffled + data.draw(st.lists(st.sampled_from(told or [OWN_WORD]), max_size=5))
    other = membership(*repeated)
    assert held(one) == held(other)
    assert one.digest(OWN_WORD, NOW) == other.digest(OWN_WORD, NOW)
    there = {
        who: last.statement
        for who, last in latest(told).items()
        if isinstance(last.statement, Presence)
    }
    assert held(one) == there


@given(lives(), lives())
def test_the_digest_is_the_same_where_the_same_is_known(
    one: list[Stated], two: list[Stated]
) -> None:
    digests = [membership(*told).digest(OWN_WORD, NOW) for told in (one, two)]
    states = [{who: life(last) for who, last in latest(told).items()} for told in (one, two)]
    assert (digests[0] == digests[1]) == (states[0] == states[1])


def test_the_digest_tells_every_difference() -> None:
    """Each of these has said something else."""
    states: list[list[Stated]] = [
        [],
        [here(1)],
        [here(1, serial=1)],
        [here(1, incarnation=2)],
        [here(2)],
        [here(1), here(2)],
        [gone(1)],
        [gone(1, incarnation=2)],
        [here(0, serial=1)],
    ]
    digests = {membership(*told).digest(OWN_WORD, NOW) for told in states[:-1]}
    assert len(digests) == len(states) - 1
    # What others say of oneself is not needed, and is not taken.
    assert membership(*states[-1]).digest(OWN_WORD, NOW) == membership().digest(OWN_WORD, NOW)
    assert membership().digest(here(0, serial=1), NOW) not in digests


@given(lives(), lives())
def test_who_tells_each_other_everything_knows_the_same(
    one: list[Stated], two: list[Stated]
) -> None:
    first, second = Membership(peer(101), SWARM), Membership(peer(102), SWARM)
    words = here(101), here(102)
    for known, told in ((first, one), (second, two)):
        for stated in told:
            known.hear(stated, NOW)
    for from_, word, to in ((first, words[0], second), (second, words[1], first)):
        for stated in [word, *from_.sample(100, NOW, b"draw")]:
            to.hear(stated, NOW)
    assert first.digest(words[0], NOW) == second.digest(words[1], NOW)


@given(lives())
def test_only_news_is_news(told: list[Stated]) -> None:
    known = Membership(OWN, SWARM)
    heard: list[Stated] = []
    for stated in told:
        before = latest(heard)
        heard.append(stated)
        assert known.hear(stated, NOW) == (before != latest(heard))
        assert not known.hear(stated, NOW)


@given(lives(), st.integers(1, 4), st.integers(1, 4), st.integers(0, 5))
def test_a_leave_is_never_undone_by_an_older_word(
    told: list[Stated], number: int, incarnation: int, serial: int
) -> None:
    known = membership(*told, gone(number, incarnation))
    if known.get(peer(number), NOW) is not None:
        # It had come back already.
        assert max(life(one) for one in told if one.peer == peer(number))[0] > incarnation
        return
    for older in range(incarnation + 1):
        assert not known.hear(here(number, older, serial), NOW, first_hand=True)
        assert not known.hear(gone(number, older), NOW)
    assert known.get(peer(number), NOW) is None
    # A later run may have been heard of, and have left as well.
    later = max([incarnation, *(life(one)[0] for one in told if one.peer == peer(number))]) + 1
    assert known.hear(here(number, later), NOW)
    assert known.get(peer(number), NOW) is not None


@given(lives(), lives())
def test_nobody_can_change_what_is_known_of_another(
    told: list[Stated], others: list[Stated]
) -> None:
    known = membership(*told)
    before = held(known)
    for stated in others:
        known.hear(Stated(peer(200 + stated.peer[-1]), stated.statement, b""), NOW)
    now_there = known.present(NOW)
    assert {who: presence for who, presence in now_there.items() if who in before} == before
    assert all(who[-1] > 200 for who in now_there.keys() - before.keys())


# --- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stated",
    [
        here(1, swarm="foes"),
        gone(1, swarm="foes"),
        here(1, at=NOW - PRESENCE_S - 1),
        here(1, at=NOW + SKEW_S + 1),
        gone(1, at=NOW - PRESENCE_S - 1),
        gone(1, at=NOW + SKEW_S + 1),
    ],
)
@pytest.mark.parametrize("first_hand", [False, True])
def test_what_is_refused_changes_nothing(stated: Stated, first_hand: bool) -> None:
    known = membership(here(1, serial=1))
    before = known.digest(OWN_WORD, NOW)
    later = Stated(stated.peer, stated.statement, b"")
    with pytest.raises(RefusedError):
        known.hear(later, NOW, first_hand)
    assert known.digest(OWN_WORD, NOW) == before


def test_nobody_needs_to_be_told_of_oneself() -> None:
    known = membership(here(0, incarnation=9))
    assert not known.hear(gone(0, incarnation=10), NOW, first_hand=True)
    assert known.present(NOW) == {}
    assert known.sample(10, NOW, b"") == []


# --- time ---------------------------------------------------------------------------------------


def test_who_says_nothing_more_is_forgotten() -> None:
    known = membership(here(1, at=NOW - 100), here(2))
    known.hear(gone(3), NOW)
    assert set(known.present(NOW + PRESENCE_S - 101)) == {peer(1), peer(2)}
    assert set(known.present(NOW + PRESENCE_S - 100)) == {peer(2)}
    assert known.present(NOW + PRESENCE_S) == {}
    assert known.get(peer(2), NOW + PRESENCE_S) is None
    assert known.sample(10, NOW + PRESENCE_S, b"") == []
    assert known.digest(OWN_WORD, NOW + PRESENCE_S) == membership().digest(OWN_WORD, NOW)


def test_who_comes_back_with_its_clock_set_back_is_heard_once_its_former_word_expired() -> None:
    known = membership(here(1, incarnation=5), gone(2, incarnation=5))
    soon, later = NOW + PRESENCE_S - 1, NOW + PRESENCE_S
    for number in (1, 2):
        assert not known.hear(here(number, incarnation=4, at=soon), soon)
        assert known.hear(here(number, incarnation=4, at=later), later)
    assert set(known.present(later)) == {peer(1), peer(2)}


def test_a_clock_that_runs_ahead_lengthens_nothing_beyond_the_skew() -> None:
    known = membership(here(1, at=NOW + SKEW_S))
    assert known.present(NOW + SKEW_S + PRESENCE_S - 1)
    assert not known.present(NOW + SKEW_S + PRESENCE_S)


class Times(RuleBasedStateMachine):
    """A membership in the course of time, beside the list of all that was ever said to it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = float(NOW)
        self.known = Membership(OWN, SWARM)
        self.heard: list[Stated] = []
        self.nodes = [_Node(number) for number in range(1, 4)]
        self.said: list[Stated] = []

    @rule(number=st.integers(0, 2), deed=st.sampled_from(("state", "leave", "restart")))
    def speak(self, number: int, deed: str) -> None:
        self.said += self.nodes[number].speak(deed, int(self.now))

    @rule(which=st.integers(0, 1000), first_hand=st.booleans())
    def hear(self, which: int, first_hand: bool) -> None:
        """Anything ever said, by whatever way, however late."""
        if self.said:
            stated = self.said[which % len(self.said)]
            try:
                self.known.hear(stated, self.now, first_hand)
            except RefusedError:
                assert stated.statement.issued_at <= self.now - PRESENCE_S
            else:
                self.heard.append(stated)

    @rule(seconds=st.integers(1, PRESENCE_S))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def those_are_there_whose_last_word_says_so(self) -> None:
        expected = {
            who: last.statement
            for who, last in latest(self.heard).items()
            if isinstance(last.statement, Presence)
            and last.statement.issued_at + PRESENCE_S > self.now
        }
        assert held(self.known, self.now) == expected

    @invariant()
    def no_ghost_is_there(self) -> None:
        """Who has left, and was heard to leave, is not there in that incarnation."""
        for who, presence in self.known.present(self.now).items():
            ends = [
                one.statement.incarnation
                for one in self.heard
                if one.peer == who and isinstance(one.statement, Leave)
            ]
            assert presence.incarnation > max(ends, default=-1)


@dataclass
class _Node:
    """An honest node, which may be restarted."""

    number: int
    incarnation: int = 1
    serial: int = 0
    left: bool = field(default=False)

    def speak(self, deed: str, now: int) -> list[Stated]:
        if deed == "restart":
            self.incarnation, self.serial, self.left = self.incarnation + 1, 0, False
            return []
        if self.left:
            return []
        if deed == "leave":
            self.left = True
            return [gone(self.number, self.incarnation, now)]
        self.serial += 1
        return [here(self.number, self.incarnation, self.serial, now)]


TestTimes = Times.TestCase
TestTimes.settings = settings(max_examples=60, stateful_step_count=30)


# --- bounds -------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(limits, "MEMBERS", 8)
    return 8


def size(known: Membership, now: float = NOW) -> int:
    return len(known.sample(10_000, now, b""))


def test_there_is_room_for_so_many(small: int) -> None:
    known = membership(*(here(number) for number in range(1, 100)))
    assert set(known.present(NOW)) == {peer(number) for number in range(1, small + 1)}
    assert not known.hear(here(50), NOW)
    # Who is known stays known, and may say more.
    assert known.hear(here(3, serial=1), NOW)
    assert known.hear(gone(4), NOW)
    assert known.get(peer(4), NOW) is None


def test_what_has_expired_makes_room(small: int) -> None:
    known = membership(*(here(number, at=NOW - 100) for number in range(1, small + 1)))
    assert not known.hear(here(50), NOW)
    assert known.hear(here(50, at=NOW + 500), NOW + 500)
    assert set(known.present(NOW + 500)) == {peer(50)}


def test_who_is_linked_displaces_who_was_heard_of(small: int) -> None:
    known = membership(*(here(number) for number in range(1, small + 1)))
    for number in range(50, 50 + small):
        assert known.hear(here(number), NOW, first_hand=True)
        assert size(known) <= small
    assert set(known.present(NOW)) == {peer(number) for number in range(50, 50 + small)}
    # Hearsay displaces nobody, and who is linked whoever has been silent for longest.
    assert not known.hear(here(91), NOW)
    assert known.hear(here(50, serial=1), NOW, first_hand=True)
    assert known.hear(here(90), NOW, first_hand=True)
    left = {50, *range(52, 50 + small), 90}
    assert set(known.present(NOW)) == {peer(number) for number in left}


def test_who_was_heard_of_and_then_linked_is_not_displaced(small: int) -> None:
    """The same statement comes by hearsay first and then from the peer itself."""
    known = membership(here(1))
    assert not known.hear(here(1), NOW, first_hand=True)
    for number in range(2, 100):
        known.hear(here(number), NOW)
    for number in range(100, 100 + small - 1):
        assert known.hear(here(number), NOW, first_hand=True)
    assert known.get(peer(1), NOW) is not None


def test_a_linked_peer_stays_first_hand_though_its_next_word_is_hearsay(small: int) -> None:
    known = membership(here(1), first_hand=True)
    assert known.hear(here(1, serial=1), NOW)
    for number in range(100, 100 + small - 1):
        assert known.hear(here(number), NOW, first_hand=True)
    assert known.get(peer(1), NOW) is not None


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 40), st.booleans(), st.booleans()), max_size=80))
def test_the_bound_holds_whatever_comes(words: list[tuple[int, bool, bool]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "MEMBERS", 5)
        known = Membership(OWN, SWARM)
        first_hand: set[PeerId] = set()
        for turn, (number, leaves, first) in enumerate(words):
            stated = gone(number, turn) if leaves else here(number, turn)
            first_hand &= known.present(NOW).keys()
            news = known.hear(stated, NOW, first)
            assert size(known) <= 5
            if not first:
                # Hearsay displaces nobody who has spoken for himself.
                assert first_hand - {stated.peer} <= known.present(NOW).keys()
            elif news and not leaves:
                first_hand.add(stated.peer)


# --- samples ------------------------------------------------------------------------------------


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 40), st.binary(max_size=4))
def test_a_sample_is_drawn_fairly_and_says_who_left(
    there: int, left: int, most: int, draw: bytes
) -> None:
    known = membership(
        *(here(number) for number in range(1, there + 1)),
        *(gone(number) for number in range(101, 101 + left)),
    )
    sample = known.sample(most, NOW, draw)
    assert sample == known.sample(most, NOW, draw)
    assert len({one.peer for one in sample}) == len(sample) <= most
    leaves = [one for one in sample if isinstance(one.statement, Leave)]
    assert sample[: len(leaves)] == leaves
    assert len(leaves) == min(most // 4, left)
    assert len(sample) - len(leaves) == min(most - len(leaves), there)


def test_every_member_is_drawn_now_and_then() -> None:
    known = membership(*(here(number) for number in range(1, 41)))
    drawn: dict[PeerId, int] = {}
    for draw in range(400):
        for one in known.sample(10, NOW, draw.to_bytes(2, "big")):
            drawn[one.peer] = drawn.get(one.peer, 0) + 1
    assert len(drawn) == 40
    # A hundred each are expected, with a standard deviation below 9.
    assert min(drawn.values()) > 60
    assert max(drawn.values()) < 140


def test_what_a_liar_says_twice_in_one_breath_hurts_nobody_else() -> None:
    """One signer, two statements with one serial: who hears which first keeps that."""
    one, two = here(1), Stated(peer(1), Presence(SWARM, 1, 0, NOW, (), True, "public"), b"else")
    first, second = membership(one, two, here(2)), membership(two, one, here(2))
    assert first.get(peer(1), NOW) == one.statement
    assert second.get(peer(1), NOW) == two.statement
    assert first.get(peer(2), NOW) == second.get(peer(2), NOW) == here(2).statement
    # The digest goes by the serial alone, so that the liar causes no endless exchange.
    assert first.digest(OWN_WORD, NOW) == second.digest(OWN_WORD, NOW)
