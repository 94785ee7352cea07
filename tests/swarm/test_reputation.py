"""From counts to weights: careful with little evidence, and newcomers capped together."""

from __future__ import annotations

from math import isfinite, log, sqrt
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import decode, encode
from protocol.messages import MICRO
from protocol.receipt import RuleName, Standing, Tally, Weight
from swarm.reputation import (
    BIN_FLOORS,
    NEUTRAL,
    NEWCOMERS_SHARE,
    answer_bound,
    answer_weight,
    believed,
    confidence_bin,
    is_known,
    is_proven,
    judge_weight,
    unknown,
    weigh,
)
from tests.protocol.arbitrary import arbitrary
from tests.swarm.builders import changed
from tests.swarm.virtual import signer, standing

GOOD, FAIR, POOR = (90, 100, 60, 80), (80, 100, 40, 80), (62, 100, 30, 80)
NEW = (0, 0, 0, 0)
NOMINAL = (0.55, 0.68, 0.83, 0.94, 0.99)
RULES: tuple[RuleName, ...] = ("uncalibrated", "equal", "weighted")


def _peers(*counts: tuple[int, ...]) -> list[Standing]:
    return [standing(f"p{at}", *one) for at, one in enumerate(counts)]


def _binned(*pairs: tuple[int, int], **fields: object) -> Standing:
    """A peer with these (right, pairs) in its bins, admitted."""
    tallies = tuple(Tally(right * MICRO, total * MICRO) for right, total in pairs)
    found: Standing = changed(standing("binned"), judge=tallies, admitted=True, **fields)
    return found


# --- what a count is worth --------------------------------------------------------------------


def test_the_weight_of_a_judge_by_hand() -> None:
    a = 95.5 / 110.0
    low = a - sqrt(a * (1 - a) / 111.0)
    assert judge_weight(90, 100) == pytest.approx(log(low / (1 - low)) ** 2, rel=1e-12)
    assert judge_weight(90, 100) == pytest.approx(2.6546, abs=1e-4)


def test_the_weight_of_an_answerer_by_hand() -> None:
    b = 63.0 / 87.0
    low = b - sqrt(b * (1 - b) / 88.0)
    assert answer_bound(60, 80) == pytest.approx(low, rel=1e-12)
    assert answer_weight(60, 80) == pytest.approx(log(low / (1 - low)) + log(4), rel=1e-12)
    assert answer_weight(60, 80) == pytest.approx(2.1240, abs=1e-4)


def test_without_evidence_a_judge_weighs_nothing() -> None:
    assert judge_weight(0, 0) == 0.0
    assert judge_weight(50, 100) == 0.0, "chance"
    assert judge_weight(10, 100) == 0.0, "worse than chance is not evidence either"
    assert answer_weight(0, 100) == 0.02, "the floor"
    assert answer_weight(0, 0) > 0.02


def test_weights_are_bounded() -> None:
    assert judge_weight(10**8, 10**8) == pytest.approx(log(0.98 / 0.02) ** 2)
    assert answer_weight(10**8, 10**8) == pytest.approx(log(0.98 / 0.02) + log(4))
    assert answer_bound(0, 10**8) == 0.02


@given(st.integers(0, 500), st.integers(0, 500))
def test_one_more_right_never_weighs_less(right: int, wrong: int) -> None:
    pairs = right + wrong
    assert judge_weight(right + 1, pairs + 1) >= judge_weight(right, pairs)
    assert answer_weight(right + 1, pairs + 1) >= answer_weight(right, pairs)
    assert judge_weight(right + 1, pairs + 1) >= judge_weight(right, pairs + 1)


def test_more_evidence_of_the_same_weighs_more() -> None:
    assert judge_weight(9, 10) < judge_weight(90, 100) < judge_weight(900, 1000)


# --- stated sureness --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "place"),
    [(500_000, 0), (599_999, 0), (600_000, 1), (749_999, 1), (750_000, 2), (899_999, 2),
     (900_000, 3), (969_999, 3), (970_000, 4), (MICRO, 4)],
)  # fmt: skip
def test_the_bins_of_sureness(p: int, place: int) -> None:
    assert confidence_bin(p) == place
    assert confidence_bin(MICRO - p) == place, "for either side"


@given(st.integers(0, MICRO))
def test_every_probability_has_one_bin_and_its_mirror_the_same(p: int) -> None:
    place = confidence_bin(p)
    assert place == confidence_bin(MICRO - p)
    floors = (MICRO // 2, *BIN_FLOORS, MICRO + 1)
    assert floors[place] <= max(p, MICRO - p) < floors[place + 1]


@pytest.mark.parametrize("place", range(5))
def test_without_evidence_a_probability_is_believed(place: int) -> None:
    assert believed(0, 0, place) == pytest.approx(1.0)


@pytest.mark.parametrize("place", range(5))
def test_a_probability_is_believed_as_far_as_it_was_right_by_hand(place: int) -> None:
    nominal = NOMINAL[place]
    accuracy = (27 + 10 * nominal) / 60
    excess = (2 * accuracy - 1) / (2 * nominal - 1)
    assert believed(27, 50, place) == pytest.approx(min(1.0, excess), rel=1e-12)
    assert believed(25_000, 50_000, place) == pytest.approx(0.0, abs=1e-3), "chance is not believed"
    assert believed(0, 1_000, place) == 0.0, "nor what is worse, and never the reverse of it"
    assert believed(1_000, 1_000, place) == 1.0, "at most as it stands"


@given(st.integers(0, 4), st.integers(0, 500), st.integers(0, 500))
def test_belief_is_a_share_and_grows_with_what_was_right(
    place: int, right: int, wrong: int
) -> None:
    here = believed(right, right + wrong, place)
    assert 0.0 <= here <= 1.0
    assert believed(right + 1, right + wrong + 1, place) >= here
    assert believed(right, right + wrong + 1, place) <= here


def test_claimed_certainty_that_is_worth_nothing_is_nothing() -> None:
    """The certain verdicts of a liar lose their weight, its honest doubts keep theirs."""
    liar = _binned((30, 40), (0, 0), (0, 0), (0, 0), (50, 100))
    judge = weigh("weighted", [liar])[0].judge
    assert judge[4] == 0
    assert judge[0] > 0
    assert weigh("equal", [liar])[0].trust[4] < 0.1 * MICRO


# --- who is proven ----------------------------------------------------------------------------


def test_of_a_stranger_nothing_is_known() -> None:
    peer = signer("x").peer
    found = unknown(peer)
    assert found == standing("x")
    assert not is_proven(found)
    assert decode(encode(found), Standing) == found


def test_proven_is_admitted_and_above_chance_in_some_bin() -> None:
    assert is_proven(standing("a", *GOOD))
    assert not is_proven(changed(standing("a", *GOOD), admitted=False)), "not admitted"
    assert not is_proven(_binned(*[(50, 100)] * 5)), "admitted and no better than chance"
    assert is_proven(_binned((50, 100), (50, 100), (18, 20), (50, 100), (50, 100)))


# --- the weights of a roster ------------------------------------------------------------------


def test_uncalibrated_all_weigh_one() -> None:
    assert weigh("uncalibrated", _peers(GOOD, POOR, NEW)) == (NEUTRAL,) * 3
    one = (MICRO,) * 5
    assert Weight(one, one, MICRO) == NEUTRAL


@pytest.mark.parametrize("rule", RULES)
def test_nobody_there_nothing_to_weigh(rule: RuleName) -> None:
    assert weigh(rule, []) == ()


def test_equal_admitted_weigh_one_and_newcomers_a_tenth_together() -> None:
    seats = _peers(GOOD, FAIR, NEW, NEW, NEW, NEW)
    found = weigh("equal", seats)
    for weight in found[:2]:
        assert weight.judge == (MICRO,) * 5
        assert weight.answer == MICRO
    for weight in found[2:]:
        assert weight.judge == (50_000,) * 5, "a tenth of two, for four"
        assert weight.answer == 50_000
        assert weight.trust == (MICRO,) * 5, "nothing is known against it"
    alone = weigh("equal", _peers(*[GOOD] * 20, NEW))[-1]
    assert alone.answer == MICRO, "one among twenty is under the cap"


def test_equal_believes_each_as_far_as_its_record_goes() -> None:
    record = _binned((11, 20), (10, 20), (16, 20), (20, 20), (10, 40))
    (found,) = weigh("equal", [record])
    expected = [
        believed(right, total, place)
        for place, (right, total) in enumerate([(11, 20), (10, 20), (16, 20), (20, 20), (10, 40)])
    ]
    assert [one / MICRO for one in found.trust] == pytest.approx(expected, abs=1e-6)
    assert found.judge == (MICRO,) * 5


def test_weighted_by_hand() -> None:
    """Counts to weights: bin by bin, over the divisor, scaled by the top half of two of three."""
    first = _binned((50, 100), (60, 100), (70, 100), (80, 100), (90, 100),
                    answer=Tally(60 * MICRO, 80 * MICRO))  # fmt: skip
    second = _binned(*[(85, 100)] * 5, answer=Tally(40 * MICRO, 80 * MICRO), divisor=2 * MICRO)
    third = _binned(*[(62, 100)] * 5, answer=Tally(20 * MICRO, 80 * MICRO))
    found = weigh("weighted", [first, second, third])
    scale = (judge_weight(90, 100) + judge_weight(85, 100) / 2) / 2
    by_hand = [
        [judge_weight(right, 100) for right in (50, 60, 70, 80, 90)],
        [judge_weight(85, 100) / 2] * 5,
        [judge_weight(62, 100)] * 5,
    ]
    for weight, raw in zip(found, by_hand, strict=True):
        expected = [one / scale * MICRO for one in raw]
        assert list(weight.judge) == pytest.approx(expected, abs=0.51)
    answers = [answer_weight(60, 80), answer_weight(40, 80) / 2, answer_weight(20, 80)]
    top = sum(sorted(answers)[1:]) / 2
    stated = [weight.answer for weight in found]
    assert stated == pytest.approx([one / top * MICRO for one in answers], abs=0.51)


def test_the_top_half_weighs_one_on_average() -> None:
    found = weigh("weighted", _peers(GOOD, POOR, FAIR, (85, 100, 40, 80), POOR, NEW))
    for column in ([max(one.judge) for one in found], [one.answer for one in found]):
        assert sum(sorted(column, reverse=True)[:3]) / 3 == pytest.approx(MICRO, abs=1)
    (alone,) = weigh("weighted", _peers(GOOD))
    assert (max(alone.judge), alone.answer) == (MICRO, MICRO)


def test_a_newcomer_beside_one_proven_peer_by_hand() -> None:
    proven, new = weigh("weighted", _peers(GOOD, NEW))
    assert (proven.judge[0], new.judge) == (MICRO, (0,) * 5), "a judge without evidence: nothing"
    assert proven.answer == MICRO
    assert new.answer == pytest.approx(NEWCOMERS_SHARE * MICRO, abs=1), "capped at a tenth"
    poor = changed(standing("poor", 0, 0, 0, 100), admitted=False)
    _, under = weigh("weighted", [standing("p", *GOOD), poor])
    assert under.answer == pytest.approx(0.02 / answer_weight(60, 80) * MICRO, abs=1), "under it"


def test_a_newcomer_with_a_good_record_is_capped_as_well() -> None:
    """Counts without admission: however good, together a tenth."""
    eager = [changed(standing(f"n{at}", 99, 100, 99, 100), admitted=False) for at in range(5)]
    found = weigh("weighted", [standing("p", *GOOD), *eager])
    assert sum(max(one.judge) for one in found[1:]) == pytest.approx(
        NEWCOMERS_SHARE * max(found[0].judge), abs=5
    )


@pytest.mark.parametrize("rule", ["equal", "weighted"])
def test_where_nobody_is_admitted_nobody_weighs(rule: RuleName) -> None:
    """Such a round is decided by the uncalibrated rule; nothing divides by nothing here."""
    for one in weigh(rule, _peers(NEW, NEW)):
        assert one.judge == (0,) * 5
        assert one.answer == 0


def test_the_divisor_divides() -> None:
    twin = changed(standing("b", *GOOD), divisor=4 * MICRO)
    for rule in ("equal", "weighted"):
        whole, part = weigh(rule, [standing("a", *GOOD), twin])
        assert part.judge[0] == pytest.approx(whole.judge[0] / 4, abs=1)
        assert part.answer == pytest.approx(whole.answer / 4, abs=1)
        assert part.trust == whole.trust, "what is believed is not a weight"


@given(
    st.lists(st.sampled_from([GOOD, POOR, FAIR]), min_size=1, max_size=8),
    st.lists(st.sampled_from([NEW, (5, 10, 19, 19), (0, 90, 15, 19)]), max_size=40),
    st.sampled_from(["equal", "weighted"]),
)
def test_newcomers_together_are_capped(
    proven: list[tuple[int, ...]], new: list[tuple[int, ...]], rule: RuleName
) -> None:
    seats = [changed(one, admitted=True) for one in _peers(*proven)]
    seats += [changed(one, admitted=False) for one in _peers(*new)]
    found = weigh(rule, seats)
    for column in ([max(one.judge) for one in found], [one.answer for one in found]):
        known, strangers = sum(column[: len(proven)]), sum(column[len(proven) :])
        assert strangers <= NEWCOMERS_SHARE * known + len(seats)


def test_a_poor_judge_that_answers_well_is_no_newcomer_as_an_answerer() -> None:
    """It has been turned away as a judge; twenty graded answers speak for themselves."""
    poor = [changed(one, admitted=False) for one in _peers((5, 100, 18, 19), (5, 100, 19, 20))]
    known = _peers(GOOD, GOOD, GOOD, GOOD)
    capped, shown = weigh("weighted", [*known, *poor])[4:]
    assert shown.answer > 2 * capped.answer
    assert max(shown.judge) == max(capped.judge) == 0


@pytest.mark.parametrize(
    ("counts", "admitted", "known"),
    [((20, 30), True, True), ((1, 1), True, True), ((10, 60), False, True),
     ((1, 5), False, False), ((50, 60), False, False), ((0, 0), False, False)],
)  # fmt: skip
def test_who_has_been_found_out_is_known(
    counts: tuple[int, ...], admitted: bool, known: bool
) -> None:
    (one,) = _peers(counts)
    assert is_known(changed(one, admitted=admitted)) == known


@pytest.mark.parametrize("rule", ["equal", "weighted"])
def test_more_newcomers_do_not_weigh_more(rule: RuleName) -> None:
    """Forty identities of one newcomer have the say of a few."""
    few, many = (weigh(rule, _peers(GOOD, GOOD, *[NEW] * count)) for count in (4, 40))
    part = [sum(one.answer for one in found[2:]) / sum(one.answer for one in found[:2])
            for found in (few, many)]  # fmt: skip
    assert part == pytest.approx([NEWCOMERS_SHARE] * 2, abs=1e-4)


@pytest.mark.parametrize("new", [NEW, (3, 6, 2, 4)])
@pytest.mark.parametrize("count", [1, 8, 39])
def test_a_crowd_of_newcomers_makes_nobody_weigh_more(new: tuple[int, ...], count: int) -> None:
    """Weights are a scale of evidence: with the crowd in the mean, all would seem surer."""
    proven = _peers(GOOD, FAIR, POOR, (75, 100, 40, 80))
    crowd = [changed(standing(f"n{at}", *new), admitted=False) for at in range(count)]
    assert weigh("weighted", [*proven, *crowd])[:4] == weigh("weighted", proven)


@given(st.lists(st.sampled_from([GOOD, POOR, NEW]), min_size=2, max_size=8))
def test_equal_evidence_equal_weight(counts: list[tuple[int, ...]]) -> None:
    found = weigh("weighted", _peers(*counts))
    for one, weight in zip(counts, found, strict=True):
        assert weight == found[counts.index(one)]


@st.composite
def rosters(draw: st.DrawFn) -> list[Standing]:
    """Any standings that a receipt can hold, up to a whole committee of one of them."""
    few = draw(st.lists(arbitrary(Standing), min_size=1, max_size=4))
    return few * draw(st.sampled_from([1, 48 // len(few)]))


@given(rosters(), st.sampled_from(RULES))
def test_any_counts_at_all_give_weights_that_can_be_written(
    seats: list[Standing], rule: RuleName
) -> None:
    found = weigh(rule, seats)
    assert len(found) == len(seats)
    for weight in found:
        assert decode(encode(weight), Weight) == weight
        assert min(*weight.judge, *weight.trust, weight.answer) >= 0
        assert max(weight.trust) <= MICRO
        assert max(*weight.judge, weight.answer) <= 24 * MICRO, "the mean of a half is one"


@given(rosters(), st.sampled_from(RULES), st.randoms(use_true_random=False))
def test_seats_in_another_order_weigh_the_same(
    seats: list[Standing], rule: RuleName, chance: Any
) -> None:
    order = list(range(len(seats)))
    chance.shuffle(order)
    here, there = weigh(rule, seats), weigh(rule, [seats[at] for at in order])
    for place, at in enumerate(order):
        one, other = here[at], there[place]
        assert (*other.judge, other.answer) == pytest.approx((*one.judge, one.answer), abs=2)
        assert other.trust == one.trust


@given(arbitrary(Tally), st.integers(0, 4))
def test_any_tally_has_a_finite_weight(tally: Tally, place: int) -> None:
    right, total = tally.right / MICRO, tally.total / MICRO
    assert isfinite(judge_weight(right, total))
    assert 0.02 <= answer_weight(right, total) <= log(49 * 4) + 1e-12
    assert 0.0 <= believed(right, total, place) <= 1.0


def test_weights_do_not_look_at_who_it_is() -> None:
    """Nor at who attests the counts: these are in the receipt for people."""
    one = standing("a", *GOOD)
    other = msgspec.structs.replace(one, peer=signer("b").peer, source="verifier")
    assert weigh("weighted", [one]) == weigh("weighted", [other])
