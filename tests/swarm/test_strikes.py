"""Who is excluded, how long, and that the memory of it is bounded and cannot be played with."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol.envelope import Envelope
from protocol.ids import Digest, PeerId
from protocol.messages import Proof
from protocol.proofs import Conviction
from swarm.strikes import Strike, Strikes

NOW = 1_700_000_000
DAY = 24 * 3600
# Strikes never look into proofs; protocol.proofs does.
PROOF = Proof(
    Envelope(PeerId(bytes(32)), b"", bytes(64)), Envelope(PeerId(bytes(32)), b"", bytes(64))
)


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def offence(of: int, number: int = 0) -> Conviction:
    return Conviction(peer(of), "equivocation", Digest(sha256(b"%d %d" % (of, number)).digest()))


def add(strikes: Strikes, of: int, number: int = 0, at: int = NOW, known: bool = True) -> bool:
    """Whether that struck."""
    return strikes.add(PROOF, offence(of, number), at, known)[0] is not None


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STRIKES", 4)
    monkeypatch.setattr(limits, "STRIKES_PER_PEER", 2)


def test_a_strike_lasts_thirty_days() -> None:
    assert limits.STRIKE_S == 30 * DAY
    strikes = Strikes((), NOW)
    assert strikes.struck(peer(1), NOW) is None
    assert add(strikes, 1)
    assert strikes.excluded(NOW + 30 * DAY - 1) == {peer(1)}
    assert strikes.struck(peer(1), NOW + 30 * DAY - 1) is not None
    assert strikes.struck(peer(2), NOW) is None
    assert strikes.excluded(NOW + 30 * DAY) == frozenset()
    assert strikes.struck(peer(1), NOW + 30 * DAY) is None


def test_the_same_proof_never_strikes_twice_and_another_does() -> None:
    strikes = Strikes((), NOW)
    assert add(strikes, 1)
    for later in (0, DAY, 30 * DAY, 300 * DAY):
        assert not add(strikes, 1, at=NOW + later)
    assert strikes.in_force(NOW + 30 * DAY) == []
    assert add(strikes, 1, number=1, at=NOW + 40 * DAY)
    assert strikes.excluded(NOW + 69 * DAY) == {peer(1)}


def test_a_second_proof_in_force_prolongs() -> None:
    strikes = Strikes((), NOW)
    add(strikes, 1)
    add(strikes, 1, number=1, at=NOW + 20 * DAY)
    assert strikes.excluded(NOW + 49 * DAY) == {peer(1)}
    latest = strikes.struck(peer(1), NOW + 21 * DAY)
    assert latest is not None
    assert latest.seen_at == NOW + 20 * DAY


def test_what_is_in_force_comes_newest_first() -> None:
    strikes = Strikes((), NOW)
    for number in range(5):
        add(strikes, number, at=NOW + number * 10 * DAY)
    assert [one.peer for one in strikes.in_force(NOW + 41 * DAY)] == [peer(4), peer(3), peer(2)]


@pytest.mark.usefixtures("small")
def test_proofs_of_one_key_are_taken_up_to_a_bound() -> None:
    """Whoever makes more of its own key neither fills the memory nor has them passed on."""
    strikes = Strikes((), NOW)
    assert [add(strikes, 1, number) for number in range(4)] == [True, True, False, False]
    # A month later the oldest makes room, once.
    later = NOW + 31 * DAY
    assert [add(strikes, 1, number, later) for number in range(2, 6)] == [True, True, False, False]
    assert not add(strikes, 1, 0, later), "and the first is not taken again in turn"


@pytest.mark.usefixtures("small")
def test_strangers_make_room_and_the_known_stay() -> None:
    strikes = Strikes((), NOW)
    for of in (1, 2):
        add(strikes, of, at=NOW + of)
    for of in range(10, 20):
        assert add(strikes, of, at=NOW + of, known=False)
    assert strikes.excluded(NOW + 20) == {peer(1), peer(2), peer(18), peer(19)}
    for of in (3, 4):
        assert add(strikes, of, at=NOW + 20 + of)
    assert strikes.excluded(NOW + 30) == {peer(of) for of in (1, 2, 3, 4)}
    assert not add(strikes, 50, at=NOW + 30, known=False), "a stranger displaces no known peer"
    strike, gone = strikes.add(PROOF, offence(5), NOW + 30, True)
    assert strike is not None
    assert gone == (offence(1).digest,)
    assert strikes.get(offence(1).digest) is None


def test_strikes_are_taken_up_again_in_order() -> None:
    kept = [
        Strike(peer(n), "equivocation", offence(n).digest, PROOF, NOW + n, True) for n in (3, 1, 2)
    ]
    strikes = Strikes(kept, NOW + 10)
    assert [one.peer for one in strikes.in_force(NOW + 10)] == [peer(3), peer(2), peer(1)]
    assert not add(strikes, 1)


def test_a_clock_that_was_wrong_excludes_nobody_for_years() -> None:
    late = Strike(peer(1), "equivocation", offence(1).digest, PROOF, NOW + 3000 * DAY, True, True)
    strikes = Strikes([late], NOW)
    assert strikes.excluded(NOW) == {peer(1)}
    assert strikes.excluded(NOW + 30 * DAY) == frozenset()
    assert strikes.get(late.offence) == replace(late, seen_at=NOW)


@pytest.mark.parametrize("found", [False, True])
def test_a_strike_says_who_found_it(found: bool) -> None:
    strike, _ = Strikes((), NOW).add(PROOF, offence(1), NOW, True, found)
    assert strike == Strike(peer(1), "equivocation", offence(1).digest, PROOF, NOW, True, found)


@settings(max_examples=80)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 90), st.booleans()),
        max_size=40,
    )
)
def test_whatever_is_added_the_memory_is_bounded_and_told_of(
    steps: list[tuple[int, int, int, bool]],
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(limits, "STRIKES", 6)
        patched.setattr(limits, "STRIKES_PER_PEER", 3)
        strikes = Strikes((), NOW)
        mirror: dict[Digest, PeerId] = {}
        now = NOW
        for of, number, days, known in steps:
            now += days * DAY // 10
            conviction = offence(of, number)
            strike, gone = strikes.add(PROOF, conviction, now, known)
            assert (strike is None) <= (gone == ())
            for digest in gone:
                del mirror[digest]
            if strike is not None:
                assert conviction.digest not in mirror
                mirror[strike.offence] = strike.peer
                assert conviction.peer in strikes.excluded(now)
            assert len(mirror) <= 6
            assert all(count <= 3 for count in Counter(mirror.values()).values())
            assert all(strikes.get(digest) is not None for digest in mirror)
        assert strikes.excluded(now) <= set(mirror.values())
