"""Accuracies, intervals, paired differences, calibration error."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.consensus import UNCALIBRATED, Case, without_winner
from swarm.reputation import NEUTRAL
from swarm.rules import Bouts, Contest, Outcome
from swarm.scoreboard import ROWS, Scoreboard, calibration_error, sure_answers, wilson

Rows = list[tuple[int, int, int, float]]


def _contest(worth: tuple[float, ...] = (1.0, 0.0), rows: Rows | None = None) -> Contest:
    columns = np.array(rows or [], dtype=np.float64).reshape(-1, 4).T
    judge, first, second = columns[:3].astype(np.int64)
    classes = tuple((seat,) for seat in range(len(worth)))
    case = Case(UNCALIBRATED, classes, (NEUTRAL,) * 3, (), both_orders=False)
    bouts = Bouts(first, second, judge, columns[3])
    return Contest(case, case, np.ones(3), bouts, worth, dict(enumerate(worth)), (0, 1))


def _outcome(
    consensus: float,
    plurality: float = 0.0,
    singles: tuple[float, ...] = (0.0, 0.0),
    confident: tuple[float, float] | None = None,
) -> Outcome:
    values = dict.fromkeys(ROWS[1:], 0.0) | {"consensus": consensus, "plurality": plurality}
    return Outcome(values, singles, without_winner("no-consensus"), confident, 5)


def _board(*outcomes: Outcome) -> Scoreboard:
    board = Scoreboard()
    for one in outcomes:
        board.add(_contest(), one)
    return board


def test_the_summary_is_json_with_every_rule() -> None:
    found = json.loads(json.dumps(_board(_outcome(1.0), _outcome(0.0)).summary()))
    assert list(found["rules"]) == list(ROWS)
    for row in found["rules"].values():
        assert 0.0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1.0
    assert found["rules"]["consensus"]["accuracy"] == 0.5
    assert found["rules"]["consensus"]["se"] == pytest.approx(0.5)
    assert found["rounds"] == 2
    assert found["ece"] is None
    assert found["p_at_least_90"] == {"share": None, "accuracy": None}
    assert found["outcomes"] == {"no-consensus": 1.0}
    assert found["comparisons"] == 5.0
    assert found["error_correlation"] is None


def test_differences_are_paired() -> None:
    board = _board(_outcome(1.0, 1.0), _outcome(0.0, 0.0), _outcome(1.0, 0.0), _outcome(1.0, 1.0))
    gain = board.difference("consensus", "plurality")
    assert gain.mean == 0.25
    assert gain.se == pytest.approx(0.25)
    assert (gain.low + gain.high) / 2 == pytest.approx(gain.mean)
    assert board.difference("plurality", "plurality").se == 0.0


def test_the_best_single_is_best_in_hindsight() -> None:
    board = _board(
        _outcome(0.0, singles=(1.0, 0.0)),
        _outcome(0.0, singles=(0.0, 1.0)),
        _outcome(0.0, singles=(0.0, 1.0)),
    )
    assert board.values("best-single") == [0.0, 1.0, 1.0]


def test_graded_worth_has_a_normal_interval() -> None:
    board = Scoreboard()
    for value in (0.2, 0.4, 0.9, 0.5):
        board.add(_contest((0.7, 0.3)), _outcome(value))
    row = board.summary()["rules"]["consensus"]
    assert row["high"] - row["accuracy"] == pytest.approx(1.959964 * row["se"])


def test_wilson() -> None:
    # Newcombe (1998), table I: 81 of 263.
    low, high = wilson(81 / 263, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson(0.0, 10)[0] == 0.0
    assert wilson(1.0, 10)[1] == pytest.approx(1.0)


@given(st.floats(0, 1), st.integers(1, 10_000))
def test_wilson_holds_the_share(share: float, count: int) -> None:
    low, high = wilson(share, count)
    assert 0.0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1.0


def test_calibration_error_has_bins_of_equal_mass() -> None:
    assert calibration_error([]) is None
    assert calibration_error([(0.8, 1.0)]) == pytest.approx(0.2)
    honest = [(0.25, float(index % 4 == 0)) for index in range(400)]
    assert calibration_error(honest) == pytest.approx(0.0)
    # Twice too high and twice too low do not make up for each other.
    both = [(0.2, 1.0)] * 50 + [(0.8, 0.0)] * 50
    assert calibration_error(both) == pytest.approx(0.8)


def test_sure_answers() -> None:
    found = sure_answers([(0.95, 1.0), (0.9, 0.0), (0.89, 0.0), (0.1, 1.0)])
    assert found == {"share": 0.5, "accuracy": 0.5}
    assert sure_answers([(0.5, 1.0)]) == {"share": 0.0, "accuracy": None}


# --- error correlation --------------------------------------------------------------------------


def _correlation(rounds: list[tuple[tuple[float, ...], Rows]]) -> float:
    board = Scoreboard()
    for worth, rows in rounds:
        board.add(_contest(worth, rows), _outcome(0.0))
    found = board.summary()["error_correlation"]
    assert found is not None
    return float(found)


def test_judges_that_always_err_together_correlate_fully() -> None:
    right: Rows = [(0, 0, 1, 1.0), (1, 0, 1, 1.0), (2, 1, 0, 0.0)]
    wrong: Rows = [(judge, first, second, 1.0 - won) for judge, first, second, won in right]
    assert _correlation([((1.0, 0.0), right), ((1.0, 0.0), wrong)]) == pytest.approx(1.0)


def test_judges_that_err_alone_do_not() -> None:
    rng = np.random.default_rng(4)
    rounds = [
        ((1.0, 0.0), [(judge, 0, 1, float(rng.random() < 0.7)) for judge in range(3)])
        for _ in range(4000)
    ]
    assert _correlation(rounds) == pytest.approx(0.0, abs=0.03)


def test_a_judge_does_not_correlate_with_itself() -> None:
    rng = np.random.default_rng(4)
    rounds = []
    for _ in range(3000):
        rows: Rows = []
        for judge in range(2):
            rows += [(judge, 0, 1, float(rng.random() < 0.7))] * 5
        rounds.append(((1.0, 0.0), rows))
    assert _correlation(rounds) == pytest.approx(0.0, abs=0.04)
