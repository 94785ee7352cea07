"""Recorded answers and judgements: reading them, and what the rules make of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.messages import MICRO
from protocol.receipt import Rule
from swarm.heldout import contests, select
from swarm.recorded import (
    SEATS_MOST,
    Bout,
    Question,
    Recorded,
    RecordedError,
    read_scores,
    read_votes,
)
from swarm.rules import compare
from swarm.scoreboard import Scoreboard
from tests.swarm.recordings import ANSWERING, WATCHING, Rows, lines, scores, votes


def _read(rows: tuple[Rows, Rows], mode: str | None = None) -> Recorded:
    return read_scores(lines(rows[0]), lines(rows[1]), mode)


# --- the scores format ----------------------------------------------------------------------------


def test_seats_answer_or_judge() -> None:
    data = _read(scores(5))
    assert data.seats == (*ANSWERING, *WATCHING)
    assert data.judges == tuple(range(8))
    assert not data.ordered
    assert len(data.questions) == 5
    for question in data.questions:
        assert question.texts[4:] == (None,) * 4
        assert set(question.worth) == {0, 1, 2, 3}
        assert len(question.bouts) == 8 * 6


def test_a_higher_score_is_preferred_and_equal_ones_tie() -> None:
    answers, judgments = scores(1)
    judgments = judgments[:1]
    judgments[0]["scores"] = [2.0, 1.0, 1.0, None]
    (question,) = _read((answers, judgments)).questions
    assert question.bouts == (Bout(0, 0, 1, 1.0), Bout(0, 0, 2, 1.0), Bout(0, 1, 2, 0.5))


def test_the_truth_tells_right_from_wrong_alone() -> None:
    answers, judgments = scores(1)
    for one, right in zip(answers[0]["answers"], (True, 0, 1, False), strict=True):
        one["correct"] = right
    (question,) = _read((answers, judgments)).questions
    assert question.worth == {0: 1.0, 1: 0.0, 2: 1.0, 3: 0.0}
    assert question.preferred == {(0, 1): 1.0, (0, 3): 1.0, (1, 2): 0.0, (2, 3): 1.0}


def test_what_has_no_final_answer_says_the_same_as_nobody() -> None:
    answers, judgments = scores(1)
    for one, final in zip(answers[0]["answers"], (None, "", "7", "7."), strict=True):
        one["final"] = final
    (contest,) = contests(_read((answers, judgments)))
    assert contest.case.classes == ((0,), (1,), (2, 3))


def test_modes_are_kept_apart() -> None:
    answers, judgments = scores(4)
    single = scores(4, seed=2, mode="single")[1]
    both = (answers, single + judgments)
    assert _read(both) == _read((answers, judgments))
    assert _read(both, "single").questions == _read((answers, single), "single").questions
    assert _read((answers, single)) == _read((answers, single), "single")
    with pytest.raises(RecordedError, match="none of mode 'double', but of single, triple"):
        _read(both, "double")


def test_the_same_number_in_another_data_set_is_another_question() -> None:
    answers, judgments = scores(2)
    again = [row | {"dataset": "other"} for row in answers]
    assert len(_read((answers + again, judgments)).questions) == 4


def _broken(change: Callable[[Rows, Rows], None]) -> str:
    answers, judgments = scores(3)
    change(answers, judgments)
    with pytest.raises(RecordedError) as found:
        _read((answers, judgments))
    return str(found.value)


def _set(row: dict[str, Any], **changes: Any) -> None:
    row.update(changes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a, _: _set(a[1], idx=0), "answers.jsonl:2: question 0 is there twice"),
        (lambda a, _: a[1].pop("answers"), "answers.jsonl:2: Object missing required field"),
        (lambda a, _: _set(a[2], answers=[]), "answers.jsonl:3:"),
        (lambda a, _: a[2]["answers"][1].update(model="ada"), "answers.jsonl:3: a model answers"),
        (lambda a, _: a[2]["answers"][1].update(correct=2), "answers.jsonl:3: Expected `float`"),
        (lambda _, j: _set(j[7], idx=99), "judgments.jsonl:8: question 99 has no answers"),
        (lambda _, j: _set(j[7], scores=[1.0]), "judgments.jsonl:8: 1 scores for 4 answers"),
        (lambda _, j: _set(j[7], scores=["x"] * 4), "judgments.jsonl:8: Expected"),
        (lambda _, j: _set(j[7], judge="ada"), "judgments.jsonl:8: ada judges the question twice"),
        (lambda _, j: _set(j[7], judge=""), "judgments.jsonl:8: Expected `str`"),
        (lambda a, _: a.clear(), "answers.jsonl: it is empty"),
        (lambda _, j: j.clear(), "judgments.jsonl: it is empty"),
    ],
)
def test_what_is_broken_is_named_by_file_and_line(
    change: Callable[[Rows, Rows], None], said: str
) -> None:
    assert _broken(change).startswith(said)


def test_too_many_seats_are_refused() -> None:
    answers, judgments = scores(1)
    judgments += [judgments[0] | {"judge": f"judge {number}"} for number in range(SEATS_MOST)]
    with pytest.raises(RecordedError, match="more than 48"):
        _read((answers, judgments))


@given(st.lists(st.binary(max_size=60), max_size=4), st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes_are_read_or_refused(answers: list[bytes], judgments: list[bytes]) -> None:
    for read in (
        lambda: read_scores(answers, judgments),
        lambda: read_votes(answers, judgments, answers),
    ):
        with pytest.raises(RecordedError):
            read()


def test_bottomless_nesting_is_refused() -> None:
    with pytest.raises(RecordedError, match=r"answers\.jsonl:1: maximum recursion"):
        read_scores([b'{"idx": 0, "more": ' + b"[" * 200_000], [])


def test_blank_lines_are_passed_over_but_counted() -> None:
    answers, judgments = (lines(rows) for rows in scores(2))
    assert read_scores([b"\n", *answers], judgments) == read_scores(answers, judgments)
    with pytest.raises(RecordedError, match=r"answers\.jsonl:4: Input data was truncated"):
        read_scores([b"\n", *answers, b"{"], judgments)


# --- the votes format -----------------------------------------------------------------------------


def _voted(rows: tuple[Rows, Rows, Rows]) -> Recorded:
    answers, cast, labels = rows
    return read_votes(lines(answers), lines(cast), lines(labels))


def test_an_answer_is_worth_the_people_it_wins_over() -> None:
    answers, cast, labels = votes(1)
    labels = [
        {"question_id": 0, "first": "ada", "second": "bob", "verdict": "first"},
        {"question_id": 0, "first": "bob", "second": "ada", "verdict": "tie"},
        {"question_id": 0, "first": "cyd", "second": "ada", "verdict": "first"},
    ]
    (question,) = _voted((answers, cast, labels)).questions
    assert question.preferred == {(0, 1): 0.75, (0, 2): 0.0}
    assert question.worth == {0: 0.375, 1: 0.25, 2: 1.0, 3: 0.5}


def test_the_order_of_showing_is_kept() -> None:
    data = _voted(votes(2))
    assert data.ordered
    (contest, _) = contests(data)
    assert contest.case.both_orders
    assert len(contest.case.votes) == 4 * 12
    (contest, _) = contests(_voted(votes(2, orders=1)))
    assert not contest.case.both_orders
    assert all(vote.row.first < vote.row.second for vote in contest.case.votes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a, v, h: _set(a[1], question_id=0), "answers.jsonl:2: question 0 is there twice"),
        (lambda a, v, h: _set(v[3], question_id=9), "votes.jsonl:4: question 9 has no answers"),
        (lambda a, v, h: _set(v[3], first="zoe"), "votes.jsonl:4: zoe has no answer to question"),
        (lambda a, v, h: _set(v[3], verdict="maybe"), "votes.jsonl:4: Invalid enum value"),
        (lambda a, v, h: _set(h[3], second=h[3]["first"]), "human.jsonl:4: bob is compared with"),
        (lambda a, v, h: h.__delitem__(slice(12, None)), "human.jsonl: question 1 has no label"),
        (lambda a, v, h: v.clear(), "votes.jsonl: it is empty"),
    ],
)
def test_broken_votes_are_named_by_file_and_line(
    change: Callable[[Rows, Rows, Rows], None], said: str
) -> None:
    answers, cast, labels = votes(2)
    change(answers, cast, labels)
    with pytest.raises(RecordedError) as found:
        _voted((answers, cast, labels))
    assert str(found.value).startswith(said)


# --- weights from the other questions -------------------------------------------------------------


def _weights(data: Recorded) -> list[list[float]]:
    return [[one.judge[4] / MICRO for one in contest.case.weights] for contest in contests(data)]


def test_a_question_does_not_weigh_its_own_judges() -> None:
    """Turning a judge round on one question changes its weight on all questions but that one."""
    data = _read(scores(60))
    question = data.questions[7]
    turned = tuple(
        bout._replace(outcome=1.0 - bout.outcome) if bout.judge == 2 else bout
        for bout in question.bouts
    )
    other = Question(question.texts, question.worth, turned, question.preferred)
    questions = (*data.questions[:7], other, *data.questions[8:])
    before = _weights(data)
    after = _weights(Recorded(data.seats, data.judges, data.ordered, questions))
    assert before[7] == after[7]
    assert sum(one != two for one, two in zip(before, after, strict=True)) > 50


def test_a_question_does_not_fit_its_own_confidence() -> None:
    """Ten folds: turning all verdicts on one question round leaves the rule of its fold alone."""
    data = _read(scores(60))
    question = data.questions[7]
    turned = tuple(bout._replace(outcome=1.0 - bout.outcome) for bout in question.bouts)
    other = Question(question.texts, question.worth, turned, question.preferred)
    questions = (*data.questions[:7], other, *data.questions[8:])
    changed = Recorded(data.seats, data.judges, data.ordered, questions)
    # The judges' counts change a little with it, so only how far each rule moves can be compared.
    moved = [
        sum(abs(new - old) for new, old in zip(after.theta, before.theta, strict=True))
        for before, after in zip(_rules(data), _rules(changed), strict=True)
    ]
    mates, others = moved[7::10], [one for place, one in enumerate(moved) if place % 10 != 7]
    assert max(mates) < min(others)


def _rules(data: Recorded) -> list[Rule]:
    return [contest.case.rule for contest in contests(data)]


def test_poor_judges_weigh_little_and_liars_nothing() -> None:
    data = _read(scores(80, poor=("bob", "eve")))
    mean = np.mean(_weights(data), axis=0)
    assert mean[[1, 4]].max() < 0.3 * mean[[0, 2, 3, 5, 6, 7]].min()
    liars = select(data, None, data.judges, (0, 5))
    assert np.mean(_weights(liars), axis=0)[[0, 5]].max() < 0.01


def test_selecting_drops_questions_judges_and_idle_seats() -> None:
    data = _read(scores(6))
    chosen = select(data, 4, data.judges[:5], ())
    assert chosen.seats == (*ANSWERING, "eve")
    assert chosen.judges == tuple(range(5))
    assert len(chosen.questions) == 4
    assert {bout.judge for one in chosen.questions for bout in one.bouts} == set(range(5))
    assert select(data, None, data.judges, ()) == data


def test_seats_are_renumbered_together() -> None:
    data = _read(scores(3))
    chosen = select(data, None, (7,), (7,))
    assert chosen.seats == (*ANSWERING, "hal")
    assert chosen.judges == (4,)
    for one, before in zip(chosen.questions, data.questions, strict=True):
        assert len(one.texts) == 5
        assert [bout.outcome for bout in one.bouts] == [
            1.0 - bout.outcome for bout in before.bouts if bout.judge == 7
        ]


def test_liars_twice_turned_are_honest() -> None:
    data = _read(scores(3))
    liars = select(data, None, data.judges, data.judges[:3])
    assert liars != data
    assert select(liars, None, liars.judges, liars.judges[:3]) == data


def test_the_case_is_that_of_a_round() -> None:
    """Classes of equal answers, and one verdict of each judge on two classes in both orders."""
    answers, judgments = scores(1)
    for one, final in zip(answers[0]["answers"], ("6", "6.0", "7", "x"), strict=True):
        one["final"] = final
    judgments = judgments[:1]
    judgments[0]["scores"] = [3.0, 1.0, 2.0, 1.0]
    (contest,) = contests(_read((answers, judgments)))
    assert contest.case.classes == ((0, 1), (2,), (3,))
    rows = {(vote.row.first, vote.row.second): vote.row.p for vote in contest.case.votes}
    assert rows == {
        (0, 1): 500_000, (1, 0): 500_000,
        (0, 2): 750_000, (2, 0): 250_000,
        (1, 2): 1_000_000, (2, 1): 0,
    }  # fmt: skip
    assert contest.case.both_orders


def test_weights_beat_liars_where_uniform_ones_do_not() -> None:
    data = _read(scores(120))
    liars = select(data, None, data.judges, data.judges[:4])
    board = Scoreboard()
    for contest in contests(liars):
        board.add(contest, compare(contest))
    rules = board.summary()["rules"]
    assert rules["consensus"]["accuracy"] > rules["uniform-bt"]["accuracy"] + 0.1
    assert rules["oracle"]["accuracy"] >= rules["consensus"]["accuracy"]


def test_it_is_the_same_each_time() -> None:
    data = _read(scores(30))
    once, again = ([compare(one) for one in contests(data)] for _ in range(2))
    assert once == again


def test_votes_pick_what_people_prefer() -> None:
    board = Scoreboard()
    for contest in contests(_voted(votes(30))):
        board.add(contest, compare(contest))
    rules = board.summary()["rules"]
    assert rules["consensus"]["accuracy"] > rules["plurality"]["accuracy"] + 0.2
    assert rules["plurality"]["accuracy"] == pytest.approx(0.5, abs=1e-9)


# --- real data ------------------------------------------------------------------------------------


def _evaldata() -> Path:
    where = os.environ.get("SWARM_EVALDATA")
    if not where:
        pytest.skip("SWARM_EVALDATA names no directory of recorded data")
    return Path(where)


def _file(name: str) -> list[bytes]:
    return (_evaldata() / name).read_bytes().splitlines()


def _board(data: Recorded) -> Scoreboard:
    board = Scoreboard()
    for contest in contests(data):
        board.add(contest, compare(contest))
    return board


@pytest.fixture(scope="module")
def gsm8k() -> Recorded:
    return read_scores(
        _file("peerreview_gsm8k/answers.jsonl"), _file("peerreview_gsm8k/judgments.jsonl")
    )


def test_four_peers_on_school_maths(gsm8k: Recorded) -> None:
    board = _board(select(gsm8k, None, gsm8k.judges[:4], ()))
    rules = board.summary()["rules"]
    assert round(rules["plurality"]["accuracy"], 3) == 0.906
    assert round(rules["uniform-bt"]["accuracy"], 3) == 0.912
    assert rules["consensus"]["accuracy"] >= 0.915
    assert board.difference("consensus", "plurality").high >= 0.0


@pytest.mark.parametrize(("liars", "least"), [(6, 0.91), (8, 0.90)])
def test_many_liars_on_school_maths(gsm8k: Recorded, liars: int, least: float) -> None:
    board = _board(select(gsm8k, 200, gsm8k.judges, gsm8k.judges[:liars]))
    rules = board.summary()["rules"]
    assert rules["consensus"]["accuracy"] >= least
    assert rules["uniform-bt"]["accuracy"] < 0.8


def test_people_prefer_what_the_consensus_picks() -> None:
    rules = _board(
        read_votes(*(_file(f"prd_vicuna80/{name}.jsonl") for name in ("answers", "votes", "human")))
    ).summary()["rules"]
    assert rules["consensus"]["accuracy"] >= rules["uniform-bt"]["accuracy"] - 0.005
