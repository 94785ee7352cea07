"""Verdicts, votes and evidence become one result, the same for everybody."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log, sqrt
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import decode, encode
from protocol.messages import MICRO, Row
from protocol.receipt import Result, Rule, Standing, Weight
from swarm.bradley_terry import Comparisons, fit
from swarm.consensus import (
    CONFIDENCE_ROUNDS,
    DEFAULT_WEIGHTED,
    NO_MARGIN,
    UNCALIBRATED,
    Case,
    Vote,
    decide,
    rule_for,
    seat_weights,
    without_winner,
)
from tests.swarm.virtual import standing

ONE = Weight(MICRO, MICRO)
TRUSTED = msgspec.structs.replace(DEFAULT_WEIGHTED, calibration_rounds=CONFIDENCE_ROUNDS)


def _case(
    classes: tuple[tuple[int, ...], ...],
    votes: list[tuple[int, int, int, float | None]],
    *,
    rule: Rule = UNCALIBRATED,
    weights: tuple[Weight, ...] | None = None,
    both_orders: bool = False,
) -> Case:
    seats = sum(len(members) for members in classes)
    return Case(
        rule,
        classes,
        weights or (ONE,) * seats,
        tuple(
            Vote(seat, Row(first, second, None if p is None else round(p * MICRO)))
            for seat, first, second, p in votes
        ),
        both_orders,
    )


def _theta(votes: float, strength: float, evidence: float) -> Rule:
    theta = (round(votes * MICRO), round(strength * MICRO), round(evidence * MICRO))
    return msgspec.structs.replace(DEFAULT_WEIGHTED, theta=theta)


# --- the formula, by hand ---------------------------------------------------------------------


def test_votes_alone_are_weighted_sums() -> None:
    seats = (Weight(0, 1_500_000), Weight(0, 250_000), Weight(0, 1_000_000))
    result = decide(_case(((0, 1), (2,)), [], rule=_theta(2, 0, 0), weights=seats))
    assert result.scores == (3_500_000, 2_000_000)
    assert (result.winner, result.margin) == (0, 1_500_000)


def _sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


@pytest.mark.parametrize(
    ("seat", "for_winner", "for_loser"),
    [
        # class 0 beats class 1, as judged by a member of class 0, of class 1, of class 2
        (0, log(_sigmoid(2.2) / _sigmoid(0.9)), log(0.5 / _sigmoid(0.9))),
        (1, log(0.5 / _sigmoid(-0.9)), log(_sigmoid(-2.2) / _sigmoid(-0.9))),
        (2, log(_sigmoid(0.9) / 0.5), log(_sigmoid(-0.9) / 0.5)),
    ],
    ids=["for its own", "against its own", "between others"],
)
def test_evidence_alone_is_single_truth_bayes(
    seat: int, for_winner: float, for_loser: float
) -> None:
    seats = (ONE,) * 3
    for p, scale in ((1.0, 1.0), (0.75, 0.5), (0.5, 0.0)):
        for row in ((seat, 0, 1, p), (seat, 1, 0, 1 - p)):
            case = _case(((0,), (1,), (2,)), [row], rule=_theta(0, 0, 1), weights=seats)
            scores = decide(case).scores
            assert scores[0] == pytest.approx(scale * for_winner * MICRO, abs=1)
            assert scores[1] == pytest.approx(scale * for_loser * MICRO, abs=1)
            assert scores[2] == 0


def test_against_its_own_answer_is_the_strongest_evidence() -> None:
    def lead(seat: int) -> int:
        case = _case(((0,), (1,), (2,)), [(seat, 0, 1, 1.0)], rule=_theta(0, 0, 1))
        scores = decide(case).scores
        return scores[0] - scores[1]

    assert lead(1) > lead(2) > lead(0) > 0


def test_the_weighted_rule_by_hand() -> None:
    """theta · (votes, strength, evidence), worked out from the parts."""
    seats = (Weight(2_000_000, 1_200_000), Weight(500_000, 300_000), Weight(1_000_000, 800_000))
    votes = [(0, 0, 1, 0.9), (1, 1, 0, 0.7), (2, 0, 1, 0.6)]
    result = decide(_case(((0, 1), (2,)), votes, rule=_theta(0.25, 0.6, 0.3), weights=seats))
    strengths = fit(
        2,
        Comparisons.of([(0, 1, 1.0, 0.9, 2.0), (1, 0, -1.0, 0.7, 0.5), (0, 1, -1.0, 0.6, 1.0)]),
    ).strengths
    own, neutral = _sigmoid(2.2), _sigmoid(0.9)
    # seat 0 for its own; seat 1 for class 1, against its own; seat 2 for class 0, against its own
    first = (
        2.0 * 0.8 * log(own / neutral)
        + 0.5 * 0.4 * log((1 - own) / (1 - neutral))
        + 1.0 * 0.2 * log(0.5 / (1 - neutral))
    )
    second = (
        2.0 * 0.8 * log(0.5 / neutral)
        + 0.5 * 0.4 * log(0.5 / (1 - neutral))
        + 1.0 * 0.2 * log((1 - own) / (1 - neutral))
    )
    assert result.scores == pytest.approx(
        (
            MICRO * (0.25 * 1.5 + 0.6 * strengths[0] + 0.3 * first),
            MICRO * (0.25 * 0.8 + 0.6 * strengths[1] + 0.3 * second),
        ),
        abs=1,
    )


def test_much_evidence_is_damped_and_both_orders_count_half() -> None:
    rows = [(0, 1, 2, 1.0)] * 120
    whole = decide(_case(((0,), (1,), (2,)), rows, rule=_theta(0, 0, 1))).scores
    single = log(_sigmoid(0.9) / 0.5)
    assert whole[1] == pytest.approx(MICRO * 120 * single / sqrt(120 / 30), abs=2)
    half = decide(_case(((0,), (1,), (2,)), rows, rule=_theta(0, 0, 1), both_orders=True)).scores
    assert half[1] == pytest.approx(MICRO * 60 * single / sqrt(60 / 30), abs=2)
    few = decide(_case(((0,), (1,), (2,)), rows[:30], rule=_theta(0, 0, 1))).scores
    assert few[1] == pytest.approx(MICRO * 30 * single, abs=2), "no damping up to 30"


def test_the_uncalibrated_rule_is_the_strength_alone() -> None:
    votes = [(0, 0, 1, 0.9), (1, 1, 0, 0.2), (2, 0, 1, None)]
    strengths = fit(2, Comparisons.of([(0, 1, 1.0, 0.9, 0.5), (1, 0, 1.0, 0.2, 0.5)])).strengths
    result = decide(_case(((0,), (1, 2)), votes, both_orders=True))
    assert result.scores == pytest.approx(tuple(MICRO * strengths), abs=1)


# --- the result -------------------------------------------------------------------------------


def test_shares_are_the_softmax_of_the_scores() -> None:
    seats = (Weight(0, 2_000_000), Weight(0, 1_000_000), Weight(0, 0))
    result = decide(_case(((0,), (1,), (2,)), [], rule=_theta(1, 0, 0), weights=seats))
    total = exp(2) + exp(1) + 1
    assert result.shares == pytest.approx([MICRO * exp(x) / total for x in (2, 1, 0)], abs=1)
    extreme = decide(_case(((0,), (1,)), [], rule=_theta(100, 0, 0), weights=(
        Weight(0, 48_000_000), Weight(0, 0))))  # fmt: skip
    assert extreme.shares == (MICRO, 0)


@pytest.mark.parametrize(("lead", "winner"), [(0, None), (NO_MARGIN - 1, None), (NO_MARGIN, 0)])
def test_a_margin_that_platforms_could_dispute_is_no_consensus(
    lead: int, winner: int | None
) -> None:
    seats = (Weight(0, MICRO + lead), ONE)
    result = decide(_case(((0,), (1,)), [], rule=_theta(1, 0, 0), weights=seats))
    assert (result.winner, result.margin) == (winner, lead)
    assert result.outcome == ("answer" if winner == 0 else "no-consensus")


def test_one_class_wins_without_a_margin() -> None:
    result = decide(_case(((0, 1, 2),), []))
    assert result == Result("answer", 0, (0,), (MICRO,), None, 0, 0, 0)


def test_nobody_answered() -> None:
    result = decide(_case((), []))
    assert result == Result("no-consensus", None, (), (), None, None, None, 0)


@pytest.mark.parametrize(
    ("classes", "plurality"),
    [
        (((0, 1), (2,)), 0),
        (((0,), (1, 2)), 1),
        (((0,), (1,)), None),
        (((0, 1), (2, 3), (4,)), None),
        (((0,), (1,), (2, 3)), 2),
    ],
)
def test_plurality_is_stated_and_none_on_a_tie(
    classes: tuple[tuple[int, ...], ...], plurality: int | None
) -> None:
    assert decide(_case(classes, [])).plurality == plurality


def test_the_unweighted_winner_is_stated_beside_the_winner() -> None:
    seats = (Weight(5_000_000, MICRO), Weight(0, MICRO), Weight(0, MICRO))
    votes = [(0, 0, 1, 1.0), (1, 1, 0, 1.0), (2, 1, 0, 1.0)]
    result = decide(_case(((0,), (1,), (2,)), votes, rule=_theta(0, 1, 0), weights=seats))
    assert (result.winner, result.unweighted) == (0, 1)
    equal = decide(_case(((0,), (1,), (2,)), votes, rule=_theta(0, 1, 0)))
    assert equal.winner == equal.unweighted == 1


def test_no_confidence_before_thirty_calibration_rounds() -> None:
    votes = [(0, 0, 1, 1.0)]
    for rounds in (0, CONFIDENCE_ROUNDS - 1):
        rule = msgspec.structs.replace(DEFAULT_WEIGHTED, calibration_rounds=rounds)
        result = decide(_case(((0, 2), (1,)), votes, rule=rule))
        assert result.confidence is None
        assert result.outcome == "answer"
    result = decide(_case(((0, 2), (1,)), votes, rule=TRUSTED))
    assert result.confidence is not None


def test_the_confidence_leaves_room_for_none_being_right() -> None:
    rule = msgspec.structs.replace(TRUSTED, none=(-2 * MICRO, 3 * MICRO))
    result = decide(_case(((0, 1, 2), (3,)), [(3, 0, 1, 1.0)], rule=rule))
    none = _sigmoid(-2 + 3 * 2 / 4)
    assert result.winner == 0
    assert result.confidence == pytest.approx(result.shares[0] * (1 - none), abs=1)
    assert result.outcome == "answer"


def test_that_none_is_right_is_an_outcome() -> None:
    """Four answers of four peers: likelier that none of them is right than the best one."""
    rule = msgspec.structs.replace(TRUSTED, none=(-3 * MICRO, 4 * MICRO))
    result = decide(_case(((0,), (1,), (2,), (3,)), [(0, 1, 2, 0.9)], rule=rule))
    assert result.outcome == "none-right"
    assert result.winner is not None, "the best of them is still said"
    assert result.confidence is not None
    assert result.confidence < _sigmoid(1.0) * MICRO


def test_no_consensus_has_no_confidence() -> None:
    result = decide(_case(((0,), (1,)), [], rule=TRUSTED))
    assert (result.outcome, result.confidence) == ("no-consensus", None)


def test_a_round_cut_short_has_an_empty_result() -> None:
    assert without_winner("partial") == Result("partial", None, (), (), None, None, None, 0)


# --- laws -------------------------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any round of up to six answerers."""
    seats = draw(st.integers(2, 6))
    own = draw(st.lists(st.integers(0, 3), min_size=seats, max_size=seats))
    groups: dict[int, list[int]] = {}
    for seat, label in enumerate(own):
        groups.setdefault(label, []).append(seat)
    classes = tuple(tuple(members) for members in groups.values())
    weight = st.integers(0, 3_000_000)
    weights = tuple(Weight(draw(weight), draw(weight)) for _ in range(seats))
    votes: list[Vote] = []
    if len(classes) > 1:
        pair = st.lists(st.integers(0, len(classes) - 1), min_size=2, max_size=2, unique=True)
        for _ in range(draw(st.integers(0, 12))):
            first, second = draw(pair)
            p = draw(st.one_of(st.none(), st.integers(0, MICRO)))
            votes.append(Vote(draw(st.integers(0, seats - 1)), Row(first, second, p)))
    rule = draw(st.sampled_from([UNCALIBRATED, DEFAULT_WEIGHTED, TRUSTED]))
    return Case(rule, classes, weights, tuple(votes), draw(st.booleans()))


@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_votes_is_nothing(case: Case, chance: Any) -> None:
    votes = list(case.votes)
    chance.shuffle(votes)
    assert decide(replace(case, votes=tuple(votes))) == decide(case)


@given(cases(), st.randoms(use_true_random=False))
def test_relabelling_classes_relabels_the_result(case: Case, chance: Any) -> None:
    names = list(range(len(case.classes)))
    chance.shuffle(names)
    renamed = Case(
        case.rule,
        tuple(case.classes[names.index(at)] for at in range(len(names))),
        case.weights,
        tuple(
            Vote(vote.seat, Row(names[vote.row.first], names[vote.row.second], vote.row.p))
            for vote in case.votes
        ),
        case.both_orders,
    )
    one, other = decide(case), decide(renamed)
    for at, name in enumerate(names):
        assert other.scores[name] == pytest.approx(one.scores[at], abs=2)
        assert other.shares[name] == pytest.approx(one.shares[at], abs=2)
    if one.margin > NO_MARGIN + 4 and one.winner is not None:
        assert other.winner == names[one.winner]
    assert (one.plurality is None) == (other.plurality is None)
    if one.plurality is not None:
        assert other.plurality == names[one.plurality]


@given(cases(), st.data())
def test_an_abstention_is_as_good_as_no_vote(case: Case, data: st.DataObject) -> None:
    if len(case.classes) < 2:
        return
    seat = data.draw(st.integers(0, len(case.weights) - 1))
    more = replace(case, votes=(*case.votes, Vote(seat, Row(0, 1, None))))
    assert decide(more) == decide(case)


def test_an_abstention_is_not_a_tie() -> None:
    shown_first = _case(((0,), (1,)), [(0, 0, 1, 0.5)])
    abstained = _case(((0,), (1,)), [(0, 0, 1, None)])
    assert decide(shown_first).scores != decide(abstained).scores, "a tie speaks on position"


@given(cases())
def test_every_result_can_be_written_and_adds_up(case: Case) -> None:
    result = decide(case)
    assert decode(encode(result), Result) == result
    assert len(result.scores) == len(result.shares) == len(case.classes)
    assert abs(sum(result.shares) - MICRO) <= len(case.classes)
    if result.winner is not None:
        assert result.scores[result.winner] == max(result.scores)
    if result.confidence is not None:
        assert result.winner is not None
        assert result.confidence <= result.shares[result.winner]


@given(cases(), st.sampled_from([-100, 100]), st.sampled_from([-100, 100]))
def test_the_wildest_rule_allowed_is_computed(case: Case, theta: int, none: int) -> None:
    rule = Rule(
        "weighted", (theta * MICRO,) * 3, (none * MICRO, none * MICRO), CONFIDENCE_ROUNDS, None
    )
    assert decode(encode(rule), Rule) == rule
    heavy = (Weight(48 * MICRO, 48 * MICRO),) * len(case.weights)
    result = decide(replace(case, rule=rule, weights=heavy))
    assert decode(encode(result), Result) == result


# --- weights and rules from counts --------------------------------------------------------------


def test_the_rule_follows_from_the_evidence() -> None:
    strangers = [standing("a"), standing("b", 5, 10, 90, 90)]
    assert rule_for(strangers) == UNCALIBRATED
    assert rule_for([]) == UNCALIBRATED
    assert rule_for([*strangers, standing("c", 90, 100)]) == DEFAULT_WEIGHTED
    assert rule_for([standing("c", 90, 100)], TRUSTED) == TRUSTED


def test_seats_weigh_what_their_counts_say() -> None:
    found = seat_weights([standing("a", 90, 100, 60, 80), standing("b")])
    assert found == (Weight(MICRO, MICRO), Weight(0, 100_000))
    assert seat_weights([standing("a"), standing("b")]) == (ONE, ONE)


@given(st.integers(1, 40))
def test_newcomers_together_cannot_outvote_one_proven_peer(strangers: int) -> None:
    """Joint cap, from counts to result: one proven answer against any number of new ones."""
    seats: list[Standing] = [standing("proven", 90, 100, 60, 80)]
    seats += [standing(f"new {number}") for number in range(strangers)]
    classes = ((0,), tuple(range(1, strangers + 1)))
    votes = tuple(Vote(seat, Row(1, 0, MICRO)) for seat in range(1, strangers + 1))
    result = decide(Case(TRUSTED, classes, seat_weights(seats), votes, True))
    assert result.winner == 0
    assert result.plurality == (1 if strangers > 1 else None)
