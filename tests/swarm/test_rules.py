"""The rules of the table, on contests small enough to do by hand."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from protocol.messages import MICRO, Row
from protocol.receipt import Rule, Weight
from swarm.agreement import agreement_weights, agreements
from swarm.consensus import DEFAULT_WEIGHTED, UNCALIBRATED, Case, Vote, decide
from swarm.reputation import NEUTRAL
from swarm.rules import RULES, WARY, Bouts, Contest, by_lot, compare, plain_strengths
from swarm.scoreboard import ROWS

SILENT = Weight((0,) * 5, (0,) * 5, 0)
_Row = tuple[int, int, int, float]


def _bouts(rows: list[_Row]) -> Bouts:
    judge, first, second, outcome = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Bouts(
        np.array(first, dtype=np.int64),
        np.array(second, dtype=np.int64),
        np.array(judge, dtype=np.int64),
        np.array(outcome, dtype=np.float64),
    )


def _contest(
    classes: tuple[tuple[int, ...], ...],
    worth: tuple[float, ...],
    rows: list[_Row],
    weights: tuple[Weight, ...] | None = None,
    rule: Rule = UNCALIBRATED,
) -> Contest:
    seats = sum(map(len, classes))
    of = {seat: index for index, members in enumerate(classes) for seat in members}
    votes = tuple(
        Vote(judge, Row(of[first], of[second], round(MICRO * outcome)))
        for judge, first, second, outcome in rows
        if of[first] != of[second]
    )
    case = Case(rule, classes, weights or (NEUTRAL,) * seats, votes, both_orders=False)
    return Contest(
        case,
        replace(case, rule=msgspec.structs.replace(rule, own=WARY.own)),
        np.ones(seats),
        _bouts(rows),
        worth,
        {seat: worth[index] for seat, index in of.items()},
        tuple(range(seats)),
    )


def test_level_scores_are_worth_their_mean() -> None:
    assert by_lot([1.0, 3.0, 3.0], [0.0, 1.0, 0.0]) == 0.5
    assert by_lot([1.0, 3.0, 3.0 - 1e-12], [0.0, 1.0, 0.0]) == 0.5
    assert by_lot([1.0, 3.0, 2.9], [0.0, 1.0, 0.0]) == 1.0


def test_plurality_counts_heads_and_weighted_plurality_weighs_them() -> None:
    heavy = Weight((MICRO,) * 5, (MICRO,) * 5, 3 * MICRO)
    contest = _contest(((0, 1), (2,)), (0.0, 1.0), [], (NEUTRAL, NEUTRAL, heavy))
    assert RULES["plurality"](contest) == 0.0
    assert RULES["weighted-plurality"](contest) == 1.0
    tie = _contest(((0,), (1,)), (0.0, 1.0), [])
    assert RULES["plurality"](tie) == RULES["weighted-plurality"](tie) == 0.5


def test_uniform_bradley_terry_hears_all_and_the_others_by_weight() -> None:
    rows = [(0, 0, 1, 1.0), (1, 0, 1, 1.0), (2, 0, 1, 0.0)]
    contest = _contest(((0,), (1,), (2,)), (0.0, 1.0, 0.0), rows, (SILENT, SILENT, NEUTRAL))
    assert RULES["uniform-bt"](contest) == 0.0
    assert RULES["calibrated-bt"](contest) == 1.0
    assert RULES["agreement-bt"](contest) == 0.0
    assert RULES["agreement-bt"](replace(contest, agreement=np.array([0.1, 0.1, 1.0]))) == 1.0


def test_a_tie_weighs_as_this_judges_ties_do() -> None:
    rows = [(0, 0, 1, 0.5), (1, 1, 0, 1.0)]
    sure_only = Weight((0, 0, 0, 0, MICRO), (MICRO,) * 5, MICRO)
    contest = _contest(((0,), (1,)), (0.0, 1.0), rows, (sure_only, sure_only))
    assert RULES["calibrated-bt"](contest) == 1.0


def test_the_consensus_is_what_a_live_round_decides() -> None:
    rows = [(0, 0, 1, 1.0), (1, 1, 0, 0.0), (2, 2, 0, 0.0), (0, 1, 2, 0.0)]
    contest = _contest(((0,), (1, 2)), (1.0, 0.0), rows, rule=DEFAULT_WEIGHTED)
    outcome = compare(contest)
    assert outcome.result == decide(contest.case)
    assert outcome.result.winner is not None
    assert outcome.values["consensus"] == contest.worth[outcome.result.winner]
    assert outcome.confident is None
    assert outcome.singles == (1.0, 0.0, 0.0)
    assert outcome.bouts == 4


def test_a_consensus_without_a_margin_is_drawn_by_lot() -> None:
    outcome = compare(_contest(((0,), (1,)), (1.0, 0.0), []))
    assert outcome.result.outcome == "no-consensus"
    assert outcome.values["consensus"] == 0.5


@pytest.mark.parametrize(
    ("worth", "good"), [((1.0, 0.0), 1.0), ((0.0, 1.0), 0.0), ((0.0, 0.0), 0.0), ((0.6, 0.4), 1.0)]
)
def test_the_confidence_is_of_being_right(worth: tuple[float, float], good: float) -> None:
    rule = msgspec.structs.replace(DEFAULT_WEIGHTED, calibration_rounds=100)
    rows = [(0, 0, 1, 1.0), (1, 0, 1, 1.0)]
    confident = compare(_contest(((0,), (1,)), worth, rows, rule=rule)).confident
    assert confident is not None
    assert confident[1] == good


def test_the_table_has_every_rule() -> None:
    found = compare(_contest(((0,), (1,)), (1.0, 0.0), [(0, 0, 1, 1.0)])).values
    assert {*found, "best-single"} == set(ROWS)


def test_own_verdicts_count_less_in_the_wary_variant() -> None:
    rows = [(0, 0, 1, 1.0)]
    plain = _contest(((0,), (1,), (2,)), (1.0, 0.0, 0.0), rows, rule=DEFAULT_WEIGHTED)
    scores, wary = decide(plain.case).scores, decide(plain.wary).scores
    assert 0 < wary[0] - wary[1] < scores[0] - scores[1]


_rows = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0])
    ).filter(lambda row: row[1] != row[2]),
    max_size=20,
)


@given(_rows)
def test_plain_strengths_are_the_posterior_mode(rows: list[_Row]) -> None:
    bouts = _bouts(rows)
    weight = np.linspace(0.3, 1.7, len(rows))

    def loss(at: np.ndarray) -> float:
        logit = at[bouts.first] - at[bouts.second]
        each = bouts.outcome * np.logaddexp(0, -logit) + (1 - bouts.outcome) * np.logaddexp(
            0, logit
        )
        return float(weight @ each + 0.5 * at @ at)

    mode = minimize(loss, np.zeros(4), tol=1e-12).x
    np.testing.assert_allclose(plain_strengths(range(4), bouts, weight), mode, atol=1e-4)


def test_strengths_are_of_the_seats_that_answered() -> None:
    found = plain_strengths([1, 4], _bouts([(0, 4, 1, 1.0)]), np.ones(1))
    assert found[1] > 0 > found[0]


# --- agreement ----------------------------------------------------------------------------------


def test_agreement_is_counted_on_pairs_with_the_winner() -> None:
    rows = [(0, 0, 1, 1.0), (0, 1, 2, 1.0), (1, 1, 0, 0.5), (2, 2, 0, 1.0), (0, 0, 3, 0.0)]
    agreed, pairs = agreements(_bouts(rows), frozenset({0, 3}), 4)
    assert agreed.tolist() == [1.0, 0.5, 0.0, 0.0]
    assert pairs.tolist() == [1.0, 1.0, 1.0, 0.0]


def test_agreement_weights_begin_at_half() -> None:
    assert agreement_weights(np.array([0.0, 90.0]), np.array([0.0, 90.0])).tolist() == [0.5, 0.95]
