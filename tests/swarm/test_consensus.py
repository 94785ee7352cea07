"""Verdicts, votes and evidence become one result, the same for everybody."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import exp, log, sqrt
from typing import Any

import msgspec
import numpy as np
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
    EQUAL,
    NO_MARGIN,
    QUORUM,
    UNCALIBRATED,
    Case,
    Vote,
    decide,
    features,
    has_quorum,
    rule_in_force,
    uncertainty,
    without_winner,
)
from swarm.reputation import NEUTRAL, confidence_bin, weigh
from tests.swarm.builders import changed
from tests.swarm.virtual import standing

TRUSTED = msgspec.structs.replace(DEFAULT_WEIGHTED, calibration_rounds=CONFIDENCE_ROUNDS)


def _weight(judge: int, answer: int) -> Weight:
    """The same in every bin, and believed."""
    return Weight((judge,) * 5, (MICRO,) * 5, answer)


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
        weights or (NEUTRAL,) * seats,
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
    seats = (_weight(0, 1_500_000), _weight(0, 250_000), _weight(0, 1_000_000))
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
    bins = (100_000, 200_000, 300_000, 400_000, 500_000)
    seats = (Weight(bins, (0,) * 5, MICRO),) * 3
    for p, scale in ((1.0, 0.5), (0.95, 0.4), (0.8, 0.3), (0.6, 0.2), (0.51, 0.1), (0.5, 0.0)):
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
    """theta · (votes, strength, evidence), worked out from the parts: hard picks, bin by bin."""
    seats = (
        Weight((0, 0, 0, 2_000_000, 0), (0,) * 5, 1_200_000),
        Weight((0, 500_000, 0, 0, 0), (0,) * 5, 300_000),
        Weight((0, 1_000_000, 0, 0, 0), (0,) * 5, 800_000),
    )
    votes = [(0, 0, 1, 0.9), (1, 1, 0, 0.7), (2, 0, 1, 0.6)]
    result = decide(_case(((0, 1), (2,)), votes, rule=_theta(0.25, 0.6, 0.3), weights=seats))
    strengths = fit(
        2,
        Comparisons.of([(0, 1, 1.0, 1.0, 2.0), (1, 0, -1.0, 1.0, 0.5), (0, 1, -1.0, 1.0, 1.0)]),
    ).strengths
    own, neutral = _sigmoid(2.2), _sigmoid(0.9)
    # seat 0 for its own; seat 1 for class 1, against its own; seat 2 for class 0, against its own
    first = (
        2.0 * log(own / neutral)
        + 0.5 * log((1 - own) / (1 - neutral))
        + 1.0 * log(0.5 / (1 - neutral))
    )
    second = (
        2.0 * log(0.5 / neutral)
        + 0.5 * log(0.5 / (1 - neutral))
        + 1.0 * log((1 - own) / (1 - neutral))
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


@pytest.mark.parametrize("both_orders", [False, True])
def test_the_equal_rule_is_the_strength_of_what_is_believed(both_orders: bool) -> None:
    """Each probability drawn towards one half as far as its bin of that judge is not believed."""
    trust = (900_000, 700_000, 500_000, 300_000, 0)
    seats = (Weight((400_000,) * 5, trust, MICRO), NEUTRAL, Weight((MICRO,) * 5, trust, MICRO))
    votes = [(0, 0, 1, 0.8), (1, 1, 0, 0.2), (2, 0, 1, 1.0), (0, 1, 0, 0.35), (2, 1, 2, 0.55)]
    case = _case(((0,), (1,), (2,)), votes, rule=EQUAL, weights=seats, both_orders=both_orders)
    half = 0.5 if both_orders else 1.0
    rows = [
        (0, 1, 1.0, 0.5 + 0.3 * 0.5, 0.4 * half),
        (1, 0, 1.0, 0.2, half),
        (0, 1, 0.0, 0.5, half),  # certain, and not believed: as if it could not tell
        (1, 0, -1.0, 0.5 - 0.15 * 0.7, 0.4 * half),
        (1, 2, -1.0, 0.5 + 0.05 * 0.9, half),
    ]
    strengths = fit(3, Comparisons.of(rows)).strengths
    assert decide(case).scores == pytest.approx(tuple(MICRO * strengths), abs=1)


def test_verdicts_on_its_own_answer_weigh_what_the_rule_says() -> None:
    """Against, for, and beside its own answer; a third is the option for open networks."""
    third = changed(DEFAULT_WEIGHTED, own=300_000)
    for rule, scale in ((DEFAULT_WEIGHTED, 1.0), (third, 0.3)):
        for row, mine in (((0, 0, 1, 1.0), 1.0), ((0, 1, 0, 1.0), -1.0), ((0, 1, 2, 1.0), 0.0)):
            part = scale if mine else 1.0
            case = _case(((0,), (1,), (2,)), [row], rule=rule)
            _, first, second, _ = row
            strengths = fit(3, Comparisons.of([(first, second, mine, 1.0, part)])).strengths
            found = features(case)
            assert [one.strength for one in found] == pytest.approx(list(strengths), abs=1e-9)
            whole = features(replace(case, rule=DEFAULT_WEIGHTED))
            assert found[first].evidence == pytest.approx(part * whole[first].evidence)
    nothing = changed(DEFAULT_WEIGHTED, own=0)
    assert [one.evidence for one in features(_case(((0,), (1,)), [(0, 0, 1, 1.0)], rule=nothing))] \
        == [0.0, 0.0]  # fmt: skip


def test_features_of_a_class_by_hand() -> None:
    seats = (_weight(MICRO, 1_500_000), _weight(MICRO, 250_000), _weight(MICRO, MICRO))
    first, second = features(
        _case(((0, 1), (2,)), [(2, 0, 1, 1.0)], rule=DEFAULT_WEIGHTED, weights=seats)
    )
    assert (first.votes, second.votes) == (1.75, 1.0)
    strengths = fit(2, Comparisons.of([(0, 1, -1.0, 1.0, 1.0)])).strengths
    assert (first.strength, second.strength) == pytest.approx(tuple(strengths))
    assert first.evidence == pytest.approx(log(0.5 / _sigmoid(-0.9))), "against its own"
    assert second.evidence == pytest.approx(log(_sigmoid(-2.2) / _sigmoid(-0.9)))
    for rule in (UNCALIBRATED, EQUAL):
        found = features(_case(((0, 1), (2,)), [(2, 0, 1, 1.0)], rule=rule, weights=seats))
        assert [one.evidence for one in found] == [0.0, 0.0], "only the weighted rule has it"
    assert features(_case((), [])) == ()
    (alone,) = features(_case(((0, 1, 2),), [], weights=seats))
    assert (alone.votes, alone.strength, alone.evidence) == (2.75, 0.0, 0.0)


def test_verdicts_without_weight_do_not_thin_out_the_others() -> None:
    """Damping is for correlated evidence: a crowd that weighs nothing, or little, adds none."""
    told = [(0, 0, 1, 0.9), (1, 0, 1, 0.9), (2, 1, 0, 0.2)] * 12
    proven = (NEUTRAL,) * 3
    alone = features(_case(((0, 1), (2,)), told, rule=DEFAULT_WEIGHTED, weights=proven))
    crowd = [(seat, 0, 1, 0.5) for seat in range(3, 43) for _ in range(18)]
    classes = ((0, 1), (2,), tuple(range(3, 43)))
    for weight, at_most in ((0, 0.0), (2_500, 0.03)):
        beset = features(_case(
            classes, told + crowd, rule=DEFAULT_WEIGHTED,
            weights=(*proven, *[_weight(weight, weight)] * 40),
        ))  # fmt: skip
        for one, before in zip(beset, alone, strict=False):
            assert one.evidence == pytest.approx(before.evidence, rel=at_most + 1e-12)
    heavy = (_weight(3 * MICRO, MICRO),) * 3
    thrice = features(_case(((0, 1), (2,)), told, rule=DEFAULT_WEIGHTED, weights=heavy))
    assert thrice[0].evidence == pytest.approx(3 * alone[0].evidence), "36 of them, not 108"


def test_what_is_known_of_a_strength_grows_with_the_verdicts_that_count() -> None:
    """Covariance of the strengths: that of the fit to the same rows; weight 0 is no evidence."""
    votes = [(2, 0, 1, 1.0), (2, 1, 0, 0.0)] * 4
    found = uncertainty(_case(((0,), (1,), (2,)), votes, rule=DEFAULT_WEIGHTED))
    rows = [(0, 1, 0.0, 1.0, 1.0), (1, 0, 0.0, 0.0, 1.0)] * 4
    assert found == pytest.approx(fit(3, Comparisons.of(rows)).covariance())
    silent = (NEUTRAL, NEUTRAL, _weight(0, MICRO))
    blank = uncertainty(_case(((0,), (1,), (2,)), votes, rule=DEFAULT_WEIGHTED, weights=silent))
    assert blank == pytest.approx(np.eye(3)), "the prior"
    assert found[0, 0] + found[1, 1] - 2 * found[0, 1] < 2.0
    assert found[2, 2] == pytest.approx(1.0)


def test_the_weighted_rule_takes_the_pick_and_not_its_probability() -> None:
    """A claim of certainty moves a verdict to another bin, and that is all that it does."""
    for sure, surer in product((510_000, 550_000), (560_000, 599_999)):
        assert confidence_bin(sure) == confidence_bin(surer) == 0
        one, other = (
            decide(_case(((0,), (1,), (2,)), [(2, 0, 1, p / MICRO)], rule=DEFAULT_WEIGHTED))
            for p in (sure, surer)
        )
        assert one == other


# --- the result -------------------------------------------------------------------------------


def test_shares_are_the_softmax_of_the_scores() -> None:
    seats = (_weight(0, 2_000_000), _weight(0, 1_000_000), _weight(0, 0))
    result = decide(_case(((0,), (1,), (2,)), [], rule=_theta(1, 0, 0), weights=seats))
    total = exp(2) + exp(1) + 1
    assert result.shares == pytest.approx([MICRO * exp(x) / total for x in (2, 1, 0)], abs=1)
    extreme = decide(_case(((0,), (1,)), [], rule=_theta(100, 0, 0), weights=(
        _weight(0, 48_000_000), _weight(0, 0))))  # fmt: skip
    assert extreme.shares == (MICRO, 0)


@pytest.mark.parametrize(("lead", "winner"), [(0, None), (NO_MARGIN - 1, None), (NO_MARGIN, 0)])
def test_a_margin_that_platforms_could_dispute_is_no_consensus(
    lead: int, winner: int | None
) -> None:
    seats = (_weight(0, MICRO + lead), NEUTRAL)
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
    seats = (_weight(5_000_000, MICRO), _weight(0, MICRO), _weight(0, MICRO))
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
    first, second = (exp(score / MICRO) for score in result.scores)
    none = exp(-2 + 3 * 2 / 4)
    assert result.winner == 0
    assert result.confidence == pytest.approx(MICRO * first / (first + second + none), abs=1)
    assert result.outcome == "answer"


def test_that_none_is_right_is_an_outcome() -> None:
    """Four answers of four peers: likelier that none of them is right than the best one."""
    rule = msgspec.structs.replace(TRUSTED, none=(-3 * MICRO, 4 * MICRO))
    result = decide(_case(((0,), (1,), (2,), (3,)), [(0, 1, 2, 0.9)], rule=rule))
    assert result.outcome == "none-right"
    assert result.winner is not None, "the best of them is still said"
    total = exp(-3 + 4 * 4 / 4) + sum(exp(score / MICRO) for score in result.scores)
    best = exp(max(result.scores) / MICRO)
    assert result.confidence == pytest.approx(MICRO * best / total, abs=1)
    assert best < exp(1.0), "so none-right it is"


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
    weight, share = st.integers(0, 3_000_000), st.integers(0, MICRO)
    weights = tuple(
        Weight(draw(st.tuples(*[weight] * 5)), draw(st.tuples(*[share] * 5)), draw(weight))
        for _ in range(seats)
    )
    votes: list[Vote] = []
    if len(classes) > 1:
        pair = st.lists(st.integers(0, len(classes) - 1), min_size=2, max_size=2, unique=True)
        for _ in range(draw(st.integers(0, 12))):
            first, second = draw(pair)
            p = draw(st.one_of(st.none(), st.integers(0, MICRO)))
            votes.append(Vote(draw(st.integers(0, seats - 1)), Row(first, second, p)))
    rule = draw(st.sampled_from([UNCALIBRATED, EQUAL, DEFAULT_WEIGHTED, TRUSTED]))
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


@given(
    cases(),
    st.sampled_from(["uncalibrated", "equal", "weighted"]),
    st.tuples(*[st.sampled_from([-100 * MICRO, 0, 100 * MICRO])] * 5),
    st.sampled_from([0, 1, MICRO]),
    st.sampled_from([0, 24 * MICRO]),
)
def test_the_wildest_rule_allowed_is_computed(
    case: Case, name: Any, coefficients: tuple[int, ...], own: int, weight: int
) -> None:
    """As a stranger's receipt may hold it, with the largest weights that counts can give."""
    votes, strength, evidence, constant, slope = coefficients
    rule = Rule(name, (votes, strength, evidence), (constant, slope), own, CONFIDENCE_ROUNDS, 0)
    assert decode(encode(rule), Rule) == rule
    result = decide(replace(case, rule=rule, weights=(_weight(weight, weight),) * 6))
    assert decode(encode(result), Result) == result
    assert abs(sum(result.shares) - MICRO) <= len(case.classes)
    assert result.confidence is None or 0 <= result.confidence <= MICRO


@pytest.mark.parametrize("theta", [-100, 0, 100])
def test_a_whole_committee_that_disagrees_is_computed(theta: int) -> None:
    """Forty-eight classes of one, every seat as heavy as can be and judging every wave."""
    rows = [
        (seat, first, second, 1.0 if (seat + first) % 3 else 0.0)
        for seat in range(48)
        for first, second in ((seat, (seat + step) % 48) for step in range(1, 19))
    ]
    seats = tuple((_weight(24 * MICRO, 24 * MICRO), _weight(0, 0))[seat % 2] for seat in range(48))
    rule = Rule("weighted", (theta * MICRO,) * 3, (theta * MICRO,) * 2, MICRO, 30, None)
    result = decide(_case(tuple((seat,) for seat in range(48)), rows, rule=rule, weights=seats))
    assert decode(encode(result), Result) == result


# --- which rule is in force ---------------------------------------------------------------------

GOOD, CHANCE, NEW = (90, 100, 60, 80), (50, 100, 60, 80), (0, 0, 0, 0)


def _seats(*counts: tuple[int, ...]) -> list[Standing]:
    """Peers with counts; of chance, they were admitted once."""
    found = [standing(f"s{at}", *one) for at, one in enumerate(counts)]
    return [
        changed(one, admitted=True) if count == CHANCE else one
        for one, count in zip(found, counts, strict=True)
    ]


def test_the_rules_to_begin_with_are_these() -> None:
    """They stand in every receipt of a young swarm."""
    assert CONFIDENCE_ROUNDS == 30
    for rule, name in ((UNCALIBRATED, "uncalibrated"), (EQUAL, "equal")):
        assert rule == Rule(name, (0, 1_000_000, 0), (-1_000_000, 0), 1_000_000, 0, None)  # type: ignore[arg-type]
    theta = (250_000, 600_000, 300_000)
    assert Rule("weighted", theta, (-1_000_000, 0), 1_000_000, 0, None) == DEFAULT_WEIGHTED


@pytest.mark.parametrize(
    ("admitted", "new", "holds"),
    [(0, 0, False), (0, 1, False), (1, 0, True), (1, 1, False), (2, 0, True), (2, 1, False),
     (3, 0, True), (3, 1, False), (3, 40, False), (4, 0, True), (4, 44, True)],
)  # fmt: skip
def test_four_admitted_are_a_quorum_or_all_where_there_are_fewer(
    admitted: int, new: int, holds: bool
) -> None:
    assert QUORUM == 4
    seats = _seats(*[GOOD] * admitted, *[NEW] * new)
    assert has_quorum(seats) is holds
    rule = rule_in_force(TRUSTED, seats)
    assert rule == (TRUSTED if holds else UNCALIBRATED)


def test_liars_that_were_found_out_do_not_undo_the_quorum() -> None:
    """Else half of a small swarm could keep everybody unweighed, and decide by number."""
    liars = [changed(one, admitted=False) for one in _seats((10, 100), (5, 90))]
    assert has_quorum([*_seats(GOOD, GOOD, GOOD), *liars])
    assert not has_quorum([*_seats(GOOD, GOOD, GOOD), *_seats(NEW, NEW)])
    assert not has_quorum(liars), "somebody must be proven"


@pytest.mark.parametrize("stop", [None, 900_000])
@pytest.mark.parametrize(
    ("planned", "counts", "due"),
    [
        (TRUSTED, [GOOD] * 4, TRUSTED),
        (TRUSTED, [GOOD, CHANCE, CHANCE, CHANCE], TRUSTED),
        (TRUSTED, [CHANCE] * 4, EQUAL),
        (TRUSTED, [GOOD] * 3 + [NEW] * 2, UNCALIBRATED),
        (EQUAL, [GOOD] * 4, EQUAL),
        (EQUAL, [CHANCE] * 4, EQUAL),
        (EQUAL, [NEW] * 4, UNCALIBRATED),
        (UNCALIBRATED, [GOOD] * 4, EQUAL),
        (UNCALIBRATED, [NEW] * 4, UNCALIBRATED),
        (TRUSTED, [], UNCALIBRATED),
    ],
)
def test_the_rule_that_the_seats_allow(
    planned: Rule, counts: list[tuple[int, ...]], due: Rule, stop: int | None
) -> None:
    """Only what was planned keeps its coefficients; the threshold to stop at is always kept."""
    found = rule_in_force(changed(planned, stop=stop), _seats(*counts))
    assert found == changed(due, stop=stop if due.name == planned.name else None)


def test_an_equal_rule_that_was_fitted_keeps_its_confidence() -> None:
    fitted = changed(EQUAL, theta=(0, 2 * MICRO, 0), calibration_rounds=40)
    assert rule_in_force(fitted, _seats(*[GOOD] * 4)) == fitted


@given(st.integers(1, 40), st.sampled_from(["equal", "weighted"]))
def test_newcomers_together_cannot_outvote_one_proven_peer(strangers: int, name: Any) -> None:
    """Joint cap, from counts to result: one proven answer against any number of new ones."""
    seats = _seats(GOOD, *[NEW] * strangers)
    classes = ((0,), tuple(range(1, strangers + 1)))
    votes = [Vote(seat, Row(1, 0, MICRO)) for seat in range(1, strangers + 1)]
    votes.append(Vote(0, Row(0, 1, MICRO)))
    rule = TRUSTED if name == "weighted" else EQUAL
    result = decide(Case(rule, classes, weigh(name, seats), tuple(votes), True))
    assert result.winner == 0
    assert result.plurality == (1 if strangers > 1 else None)
