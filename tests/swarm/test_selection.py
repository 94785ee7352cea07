"""Whom to ask: feasible, the best first, spread out, and no army of newcomers above its share."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.ids import PeerId
from swarm.selection import NEWCOMERS_PART, Budget, Candidate, Measured, Selection, select

BUDGET = Budget(peers=9, question_bytes=300, answer_tokens=100, commit_ms=10_000)
SEEDS = [bytes([seed]) for seed in range(60)]


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def proven(number: int, low: float = 0.7, error: float = 0.05, **fields: object) -> Candidate:
    measured = Measured(low, error, proven=True)
    return Candidate(peer(number), f"family {number}", measured=measured, **fields)  # type: ignore[arg-type]


def newcomer(number: int, **fields: object) -> Candidate:
    return replace(Candidate(peer(number), f"family {number}"), **fields)  # type: ignore[arg-type]


def seats(selection: Selection) -> set[int]:
    return {int.from_bytes(one, "big") for one in selection.peers}


def reason(selection: Selection, number: int) -> str:
    (found,) = [one for one in selection.choices if one.peer == peer(number)]
    return found.reason


def cap(size: int) -> int:
    return max(1, size // NEWCOMERS_PART)


# --- who can ------------------------------------------------------------------------------------


def test_a_struck_peer_is_never_asked() -> None:
    people = [proven(1, low=0.99, struck=True), newcomer(2, struck=True), proven(3, low=0.1)]
    for seed in SEEDS[:5]:
        chosen = select(people, BUDGET, seed)
        assert seats(chosen) == {3}
        assert reason(chosen, 1) == reason(chosen, 2) == "a proof excludes it"


def test_a_context_too_small_for_question_and_answer() -> None:
    people = [newcomer(1, context_tokens=163), newcomer(2, context_tokens=164), newcomer(3)]
    chosen = select(people, BUDGET, b"")
    assert seats(chosen) == {2, 3}, "room for 64 tokens beside 300 bytes; 0: unknown"
    assert reason(chosen, 1) == "its context of 163 tokens is too small for about 164"
    short = replace(BUDGET, answer_tokens=10)
    assert seats(select(people, short, b"")) == {1, 2, 3}, "no more room than an answer takes"


def test_a_peer_that_is_too_slow() -> None:
    def measured(number: int, speed: float | None, latency: float | None) -> Candidate:
        return newcomer(number, measured=Measured(latency_ms=latency, tokens_per_s=speed))

    people = [
        measured(1, 10.0, None),
        measured(2, 10.0, 1.0),
        measured(3, 11.0, 900.0),
        measured(4, 0.0, None),
        measured(5, None, 10_000.0),
        measured(6, None, 10_001.0),
        measured(7, None, None),
    ]
    chosen = select(people, BUDGET, b"")
    assert seats(chosen) == {1, 3, 5, 7}, "what was not measured is not held against anyone"
    assert reason(chosen, 2) == "it would take 10.0 s of 10.0"


def test_the_energy_of_all_answers_stays_in_the_budget() -> None:
    people = [proven(n, low=0.9 - 0.1 * n, energy=n) for n in range(6)]
    chosen = select(people, replace(BUDGET, energy=400), b"")
    # 100 tokens each: 0 + 100 + 200, then 300 is over what is left, as is all after it.
    assert seats(chosen) == {0, 1, 2}
    assert reason(chosen, 3) == "over what is left of the energy budget"
    assert seats(select(people, BUDGET, b"")) == set(range(6))


def test_a_cheaper_one_takes_the_seat_that_another_cannot_pay() -> None:
    people = [proven(1, low=0.9, energy=5), proven(2, low=0.8, energy=5), proven(3, low=0.1)]
    assert seats(select(people, replace(BUDGET, energy=500), b"")) == {1, 3}


def test_oneself_has_a_seat_whatever_is_measured() -> None:
    own = newcomer(5, context_tokens=1, struck=True)
    people = [*(proven(n) for n in range(10, 30)), own]
    chosen = select(people, BUDGET, b"", own=peer(5))
    assert 5 in seats(chosen)
    assert reason(chosen, 5) == "this node"
    assert seats(select(people, replace(BUDGET, peers=1), b"", own=peer(5))) == {5}
    assert select(people, replace(BUDGET, peers=0), b"", own=peer(5)).peers == ()
    assert 99 not in seats(select(people, BUDGET, b"", own=peer(99)))


# --- the best, spread out -----------------------------------------------------------------------


def test_the_best_by_lower_bound_and_what_is_not_known_yet() -> None:
    people = [proven(n, low=n / 100) for n in range(30, 60)]
    best = seats(select(people, BUDGET, b""))
    assert best == set(range(51, 60))
    unsure = replace(people[0], measured=Measured(0.30, 0.2, proven=True))
    assert 30 in seats(select([unsure, *people[1:]], BUDGET, b""))
    beaten = [replace(one, measured=replace(one.measured, error=0.0)) for one in people]
    assert seats(select(beaten, BUDGET, b"")) == best


def test_families_and_origins_are_spread() -> None:
    """Six of one kind, a little better than six of kinds of their own."""
    for alike in ({"family": "same"}, {"origin": "8.8.0.0/16"}):
        people = [replace(proven(n, low=0.75), **alike) for n in range(6)]  # type: ignore[arg-type]
        people += [proven(n, low=0.70) for n in range(6, 12)]
        chosen = seats(select(people, replace(BUDGET, peers=6), b""))
        assert len(chosen & set(range(6))) == 1


def test_a_lan_is_not_penalised_for_being_one_place() -> None:
    people = [proven(n, low=0.75, origin="") for n in range(6)]
    people += [proven(n, low=0.70, origin=f"8.{n}.0.0/16") for n in range(6, 12)]
    assert seats(select(people, replace(BUDGET, peers=6), b"")) == set(range(6))


def test_a_much_better_peer_is_asked_though_it_is_like_others() -> None:
    people = [replace(proven(n, low=0.9, error=0.0), family="same") for n in range(3)]
    people += [proven(n, low=0.3, error=0.0) for n in range(3, 9)]
    assert seats(select(people, replace(BUDGET, peers=3), b"")) == {0, 1, 2}


def test_the_seed_decides_among_equals() -> None:
    people = [proven(n) for n in range(20)]
    taken = Counter(n for seed in SEEDS for n in seats(select(people, BUDGET, seed)))
    assert set(taken) == set(range(20))


# --- newcomers ----------------------------------------------------------------------------------


def army(size: int, start: int = 1000) -> list[Candidate]:
    """Newcomers with invented families, all from different places, with the best of hints."""
    return [newcomer(start + n, origin=f"9.{n}.0.0/16", hint=1.0) for n in range(size)]


def test_an_army_of_newcomers_gets_its_share_and_no_more() -> None:
    people = [proven(n, low=0.0, error=0.0) for n in range(40)]
    for size in (1, 10, 500):
        for peers in (2, 3, 5, 9, 15, 35):
            chosen = seats(select([*people, *army(size)], replace(BUDGET, peers=peers), b""))
            assert len(chosen) == peers
            assert len(chosen & set(range(1000, 2000))) == min(size, cap(peers))


def test_the_last_seat_is_no_newcomers() -> None:
    people = [proven(1, low=0.0, error=0.0), *army(50)]
    for seed in SEEDS[:10]:
        assert seats(select(people, replace(BUDGET, peers=1), seed)) == {1}
        chosen = seats(select([*people, newcomer(7)], replace(BUDGET, peers=2), seed, peer(7)))
        assert chosen == {7, 1}


def test_seats_that_the_proven_are_too_few_for_go_to_newcomers() -> None:
    for known in range(1, 12):
        people = [*(proven(n) for n in range(known)), *army(50), newcomer(999)]
        chosen = seats(select(people, BUDGET, b"", own=peer(999)))
        assert len(chosen) == 9
        assert len(chosen & set(range(known))) == min(known, 7)
        assert len(chosen & set(range(1000, 2000))) == max(1, 8 - known)


def test_without_newcomers_the_proven_take_all() -> None:
    assert len(seats(select([proven(n) for n in range(20)], BUDGET, b""))) == 9


def test_newcomers_that_cannot_pay_leave_their_seat_to_the_proven() -> None:
    people = [*(proven(n) for n in range(20)), *(replace(one, energy=1) for one in army(5))]
    chosen = seats(select(people, replace(BUDGET, energy=50), b""))
    assert len(chosen) == 9
    assert chosen <= set(range(20))


def test_each_newcomer_is_tried_at_some_time() -> None:
    people = [*(proven(n) for n in range(20)), *(newcomer(n) for n in range(100, 105))]
    tried = Counter(
        number for seed in SEEDS for number in seats(select(people, BUDGET, seed)) if number >= 100
    )
    assert set(tried) == set(range(100, 105))
    assert sum(tried.values()) == len(SEEDS)


def test_newcomers_of_one_place_count_as_one() -> None:
    """Where nobody is proven: 40 of one address prefix against eight from elsewhere."""
    crowd = [replace(one, origin="9.9.0.0/16", family="invented") for one in army(40)]
    people = [*crowd, *(newcomer(n, family="true", origin=f"8.{n}.0.0/16") for n in range(8))]
    taken = [len(seats(select(people, BUDGET, seed)) & set(range(1000, 2000))) for seed in SEEDS]
    # Of the five seats by family they get every second; of the four by origin one at most.
    assert max(taken) <= 4


def test_peers_of_a_lan_are_not_one_place_among_newcomers() -> None:
    people = [newcomer(n, family="same") for n in range(10)]
    people.append(newcomer(99, family="same", origin="8.8.0.0/16"))
    taken = sum(99 in seats(select(people, replace(BUDGET, peers=3), seed)) for seed in SEEDS)
    # 3 of 11 on average, and half of all if the ten were one place.
    assert taken < 0.45 * len(SEEDS)


def test_hints_order_newcomers_of_a_family_and_never_more() -> None:
    people = [*(proven(n, low=0.5) for n in range(7)), newcomer(999)]
    hinted = [newcomer(n, family="same", hint=n / 100) for n in range(10, 20)]
    for seed in SEEDS[:10]:
        chosen = seats(select([*people, *hinted], BUDGET, seed, own=peer(999)))
        assert chosen == {*range(7), 999, 19}
    swayed = [replace(one, hint=1.0) for one in people[:3]]
    assert seats(select([*swayed, *people[3:], *hinted], BUDGET, b"x", own=peer(999))) == chosen


# --- nobody proven ------------------------------------------------------------------------------


def test_where_nobody_is_proven_families_take_turns_in_half_the_seats() -> None:
    people = [newcomer(n, family="abc"[n % 3] if n < 33 else f"rare {n}") for n in range(36)]
    for seed in SEEDS:
        chosen = seats(select(people, BUDGET, seed))
        assert len(chosen) == 9
        families = {people[n].family for n in chosen}
        assert len(families) >= 5
        assert select(people, BUDGET, seed).peers == tuple(sorted(peer(n) for n in chosen))


def test_invented_families_do_not_buy_the_committee() -> None:
    people = [newcomer(n, family="honest") for n in range(40)]
    people += [newcomer(n, family=f"invented {n}") for n in range(40, 48)]
    taken = [len(seats(select(people, BUDGET, seed)) & set(range(40, 48))) for seed in SEEDS]
    assert sum(taken) / len(taken) < 5.5


# --- laws ---------------------------------------------------------------------------------------

unit = st.floats(0.0, 1.0)


@st.composite
def crowds(draw: st.DrawFn) -> list[Candidate]:
    """Peers of all kinds."""
    people = []
    for number in range(draw(st.integers(0, 24))):
        measured = Measured(
            draw(unit),
            draw(st.floats(0.0, 0.5)),
            draw(st.booleans()),
            draw(st.none() | st.floats(0.0, 5_000.0)),
            draw(st.none() | st.floats(0.0, 50.0)),
        )
        people.append(
            Candidate(
                peer=peer(number),
                family=draw(st.sampled_from(["a", "b", "c", ""])),
                context_tokens=draw(st.sampled_from([0, 0, 100, 4096])),
                energy=draw(st.sampled_from([0, 0, 1, 3])),
                origin=draw(st.sampled_from(["", "8.8.0.0/16", "9.9.0.0/16"])),
                measured=measured,
                hint=draw(unit),
                struck=draw(st.integers(0, 5)) == 0,
            )
        )
    return people


budgets = st.builds(
    replace,
    st.just(BUDGET),
    peers=st.integers(0, 12),
    energy=st.none() | st.sampled_from([0, 100, 500]),
)
seeds = st.binary(max_size=4)


@settings(max_examples=80)
@given(people=crowds(), budget=budgets, seed=seeds, own=st.none() | st.integers(0, 24).map(peer))
def test_laws_of_a_committee(
    people: list[Candidate], budget: Budget, seed: bytes, own: PeerId | None
) -> None:
    chosen = select(people, budget, seed, own)
    by_peer = {one.peer: one for one in people}
    assert chosen == select(people[::-1], budget, seed, own), "the order of candidates is nothing"
    assert len(chosen.peers) <= budget.peers
    assert list(chosen.peers) == sorted(set(chosen.peers))
    assert [one.peer for one in chosen.choices] == sorted(by_peer), "a reason for everyone"
    assert tuple(one.peer for one in chosen.choices if one.seated) == chosen.peers
    assert all(one.reason for one in chosen.choices)
    if own in by_peer and budget.peers:
        assert own in chosen.peers
    others = [by_peer[one] for one in chosen.peers if one != own]
    assert not any(one.struck for one in others)
    new = sum(not one.measured.proven for one in others)
    able = sum(one.measured.proven for one in others) + sum(
        by_peer[one.peer].measured.proven and one.reason == "others rank higher"
        for one in chosen.choices
    )
    free = budget.peers - (own in by_peer)
    assert new <= max(cap(budget.peers) if free > 1 or not able else 0, free - able)
    if budget.energy is not None:
        own_energy = by_peer[own].energy if own in by_peer and budget.peers else 0
        assert sum(one.energy for one in others) * 100 <= max(0, budget.energy - 100 * own_energy)


@settings(max_examples=80)
@given(people=crowds(), budget=budgets, seed=seeds, data=st.data())
def test_a_higher_lower_bound_never_costs_the_seat(
    people: list[Candidate], budget: Budget, seed: bytes, data: st.DataObject
) -> None:
    before = select(people, budget, seed)
    for lucky in before.peers:
        raised = [
            replace(
                one, measured=replace(one.measured, low=data.draw(st.floats(one.measured.low, 1.0)))
            )
            if one.peer == lucky
            else one
            for one in people
        ]
        assert lucky in select(raised, budget, seed).peers


@settings(max_examples=100)
@given(people=crowds(), seed=seeds, size=st.integers(1, 12), count=st.integers(0, 60))
def test_an_army_displaces_no_more_than_the_share_of_newcomers(
    people: list[Candidate], seed: bytes, size: int, count: int
) -> None:
    budget = replace(BUDGET, peers=size)
    alone = select(people, budget, seed)
    joined = select([*people, *army(count)], budget, seed)
    soldiers = len(seats(joined) & set(range(1000, 2000)))
    known = {one.peer for one in people if one.measured.proven}
    trusted = len(known & set(alone.peers))
    # Of the proven, none but those who sat on the share of newcomers have to go.
    assert len(known & set(joined.peers)) >= min(trusted, size - cap(size))
    if trusted:
        assert soldiers <= max(cap(size), size - trusted)


@settings(max_examples=60)
@given(people=crowds(), budget=budgets, seed=seeds, data=st.data())
def test_no_hint_moves_a_proven_peer(
    people: list[Candidate], budget: Budget, seed: bytes, data: st.DataObject
) -> None:
    budget = replace(budget, energy=None)
    known = {one.peer for one in people if one.measured.proven}
    swayed = [replace(one, hint=data.draw(unit)) for one in people]
    one, other = (set(select(crowd, budget, seed).peers) for crowd in (people, swayed))
    assert one & known == other & known
