"""Attacks, and the fresh and the online experiment."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.messages import MICRO
from swarm.consensus import CONFIDENCE_ROUNDS, DEFAULT_WEIGHTED
from swarm.reputation import NEUTRAL
from swarm.rules import Contest, compare
from swarm.simulate.attacks import ABOUT, NOBODY, RING, Attack, parse, with_ring
from swarm.simulate.fresh import CALIBRATION, Fresh, measure, record
from swarm.simulate.online import Online
from swarm.simulate.scene import Scene, pose, settle
from swarm.simulate.world import RIGHT, WORLDS, Answers, Pairs, Peers, Question, draw_peers

A = WORLDS["A"]


# --- attacks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", NOBODY),
        ("collude:.5", Attack("collude", 0.5)),
        ("leak:0", Attack("leak", 0.0)),
        ("sybil:72", Attack("sybil", newcomers=72)),
    ],
)
def test_attacks_are_parsed(text: str, expected: Attack) -> None:
    assert parse(text) == expected
    assert parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "nobody", "none:.5", "collude", "collude:", "collude:x", "collude:-.1", "collude:.95",
     "collude:nan", "sybil:.5", "sybil:0", "sybil:201", "sybil:", "sybil:-3"],
)  # fmt: skip
def test_what_is_no_attack_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"take|there are"):
        parse(text)


@given(st.text(max_size=20))
def test_parsing_never_breaks(text: str) -> None:
    try:
        attack = parse(text)
    except ValueError:
        return
    assert attack.kind in ABOUT


def _rounds(attack: Attack, *, calibration: bool, late: bool) -> float:
    rng = np.random.default_rng(1)
    struck = [attack.strikes(rng, calibration=calibration, late=late) for _ in range(400)]
    return float(np.mean(struck))


def test_who_strikes_when() -> None:
    for kind in ("collude", "invert", "lazy", "clones"):
        assert _rounds(Attack(kind, 0.5), calibration=True, late=False) == 1.0
    for kind in ("betray", "sybil"):
        assert _rounds(Attack(kind, 0.5), calibration=True, late=True) == 1.0
        assert _rounds(Attack(kind, 0.5), calibration=False, late=False) == 0.0
    assert _rounds(Attack("leak", 0.5), calibration=True, late=True) == 0.0
    assert _rounds(Attack("leak", 0.5), calibration=False, late=False) == 1.0
    assert 0.2 < _rounds(Attack("camouflage", 0.5), calibration=True, late=True) < 0.4
    assert _rounds(NOBODY, calibration=False, late=True) == 0.0


def _scene(kind: str, hostile: int = 4, seed: int = 2) -> Scene:
    rng = np.random.default_rng(seed)
    bad = np.arange(8) < hostile
    attack = Attack(kind, 0.5)
    peers = attack.disguised(draw_peers(rng, 8, A), bad)
    question, answers = pose(rng, A, peers)
    return settle(rng, A, peers, question, answers, 28, attack, bad)


def test_a_ring_answers_alike_and_judges_for_itself() -> None:
    for kind in RING:
        scene = _scene(kind)
        ring = A.wrong_answers + 1
        assert (scene.label[:4] == ring).all()
        assert (scene.label[4:] != ring).all()
        theirs = scene.pairs.judge < 4
        first = scene.label[scene.pairs.first] == ring
        second = scene.label[scene.pairs.second] == ring
        assert scene.picked_first[theirs & first & ~second].all()
        assert not scene.picked_first[theirs & second & ~first].any()


def test_inverting_turns_only_the_verdicts_of_the_hostile() -> None:
    honest, turned = _scene("invert", hostile=0), _scene("invert")
    assert (honest.label == turned.label).all()
    theirs = turned.pairs.judge < 4
    assert (honest.picked_first[theirs] != turned.picked_first[theirs]).all()
    assert (honest.picked_first[~theirs] == turned.picked_first[~theirs]).all()


def test_the_lazy_are_wrong_and_clones_alike() -> None:
    assert (_scene("lazy").label[:4] != RIGHT).all()
    alike = [len(set(_scene("clones", seed=seed).label[:4].tolist())) == 1 for seed in range(40)]
    assert np.mean(alike) > 0.7


def test_disguises() -> None:
    peers = Peers(np.zeros(3), np.array([3, 4, 5]), np.zeros(3))
    bad = np.array([True, False, True])
    assert Attack("betray", 0.5).disguised(peers, bad).skill.tolist() == [1.2, 0.0, 1.2]
    clones = Attack("clones", 0.5).disguised(peers, bad)
    assert clones.skill.tolist() == [-0.5, 0.0, -0.5]
    assert clones.family.tolist() == [0, 4, 0]
    assert Attack("collude", 0.5).disguised(peers, bad) is peers


def test_a_ring_has_an_answer_to_give() -> None:
    question = with_ring(Question(0.0, np.full(8, 1 / 8), np.zeros(9)))
    assert question.appeal.shape == (10,)
    assert question.appeal[-1] > 0


# --- one round ----------------------------------------------------------------------------------


def _made(label: list[int], rows: list[tuple[int, int, int, bool]]) -> Scene:
    judge, first, second, picked = (list(one) for one in zip(*rows, strict=True))
    pairs = Pairs(np.array(first), np.array(second), np.array(judge))
    return Scene(np.array(label), pairs, np.array(picked))


def test_a_scene_becomes_the_case_of_a_round() -> None:
    scene = _made([3, RIGHT, 3, RIGHT], [(0, 1, 0, True), (2, 2, 3, True), (3, 1, 3, False)])
    case = scene.case(DEFAULT_WEIGHTED, (NEUTRAL,) * 4)
    assert case.classes == ((0, 2), (1, 3))
    assert scene.right == (False, True)
    # Two answers that say the same are no pair of classes.
    assert [(vote.seat, vote.row.first, vote.row.second, vote.row.p) for vote in case.votes] == [
        (0, 1, 0, MICRO),
        (2, 0, 1, MICRO),
    ]
    assert not case.both_orders


def test_what_is_informative_and_what_is_right() -> None:
    scene = _made([RIGHT, 1, 2, RIGHT], [(0, 0, 1, True), (0, 1, 2, True), (1, 2, 3, False)])
    assert scene.informative.tolist() == [True, False, True]
    assert scene.picked_rightly[scene.informative].tolist() == [True, True]


# --- fresh peers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "judge", "answer"),
    [
        ("A", [0.560524, 0.719763, 0.791875, 0.921082], [0.287535, 0.511386, 0.615209, 0.806649]),
        ("C", [0.421862, 0.556079, 0.620087, 0.741904], [0.287535, 0.511386, 0.615209, 0.806649]),
    ],
)
def test_what_peers_score_is_measured(name: str, judge: list[float], answer: list[float]) -> None:
    skill = np.array([-1.0, 0.0, 0.5, 1.5])
    honest, _ = measure(WORLDS[name], NOBODY)
    np.testing.assert_allclose(honest.judge.at(skill), judge, atol=1e-6)
    np.testing.assert_allclose(honest.answer.at(skill), answer, atol=1e-6)
    assert (honest.agreement.at(skill) > 0.5).all()


def test_hostile_records_are_what_the_attack_does_in_calibration() -> None:
    skill = np.array([0.0])
    usual, _ = measure(A, NOBODY)
    _, ring = measure(A, Attack("collude", 0.4))
    assert ring.answer.at(skill) == pytest.approx(0.0, abs=1e-9)
    assert ring.judge.at(skill) < usual.judge.at(skill) - 0.1
    _, turned = measure(A, Attack("invert", 0.4))
    assert turned.judge.at(skill) == pytest.approx(1.0 - usual.judge.at(skill), abs=0.03)
    assert turned.answer.at(skill) == pytest.approx(usual.answer.at(skill), abs=0.04)
    for kind in ("betray", "leak"):
        known = 1.2 * np.ones(1) if kind == "betray" else skill
        _, hidden = measure(A, Attack(kind, 0.4))
        assert hidden.judge.at(known) == pytest.approx(usual.judge.at(known), abs=0.03)
        assert hidden.answer.at(known) == pytest.approx(usual.answer.at(known), abs=0.04)


def test_a_ring_that_knows_calibration_agrees_with_itself_elsewhere() -> None:
    skill = np.array([0.0])
    _, leaking = measure(A, Attack("leak", 0.5))
    _, colluding = measure(A, Attack("collude", 0.5))
    usual, _ = measure(A, NOBODY)
    assert leaking.agreement.at(skill) == pytest.approx(colluding.agreement.at(skill))
    assert abs(leaking.agreement.at(skill) - usual.agreement.at(skill)) > 0.05


def _digest(contests: list[Contest]) -> str:
    whole = sha256()
    for contest in contests:
        classes = np.zeros(sum(map(len, contest.case.classes)), dtype=np.int64)
        for index, members in enumerate(contest.case.classes):
            classes[list(members)] = index
        bouts = contest.bouts
        for one in (classes, bouts.first, bouts.second, bouts.judge, bouts.outcome > 0):
            whole.update(one.astype(np.int64).tobytes())
    return whole.hexdigest()[:16]


def test_nobody_hostile_is_no_attack() -> None:
    usual = Fresh(A, 7, 3, 11)
    expected = list(usual.contests(5))
    for kind in ("camouflage", "lazy", "leak"):
        attacked = replace(usual, attack=Attack(kind, 0.0))
        for one, other in zip(expected, attacked.contests(5), strict=True):
            assert one.case == other.case
            assert one.singles == other.singles


def test_a_cell_is_the_same_each_time_and_another_with_another_seed() -> None:
    once, again = (list(Fresh(A, 7, 3, 11).contests(6)) for _ in range(2))
    assert [one.case for one in once] == [one.case for one in again]
    assert _digest(once) != _digest(list(Fresh(A, 7, 3, 12).contests(6)))


def test_fresh_contests() -> None:
    fresh = Fresh(A, 7, 3, 11, Attack("collude", 0.4))
    for contest in fresh.contests(8):
        assert contest.case.rule.name == "weighted"
        assert contest.case.rule.calibration_rounds >= CONFIDENCE_ROUNDS
        assert contest.wary.rule.own == 300_000
        assert contest.wary.votes == contest.case.votes
        assert len(contest.answers) == len(contest.agreement) == 7
        assert contest.singles[0] < 4  # the last three are hostile
        assert compare(contest).confident is not None


def test_newcomers_come_on_top_and_weigh_a_tenth() -> None:
    for contest in Fresh(A, 6, 3, 11, Attack("sybil", newcomers=9)).contests(4):
        weights = contest.case.weights
        assert len(weights) == 15
        proven = sum(one.answer for one in weights[:6])
        assert sum(one.answer for one in weights[6:]) <= 0.1 * proven + 15


def test_a_record_is_of_bare_picks() -> None:
    standing = record(3, 21, 17)
    assert standing.judge[4].right == 21 * MICRO
    assert standing.judge[4].total == standing.answer.total == CALIBRATION * MICRO
    assert all(one.total == 0 for one in standing.judge[:4])
    assert standing.admitted


# --- one swarm ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attack", "pinned"),
    [
        ("none", "f3261d5ad15c698f"),
        ("collude:.4", "06525d162130d3ce"),
        ("invert:.4", "ec6c578bebedd4ec"),
        ("lazy:.4", "247d947f6e7a6663"),
        ("clones:.4", "789ca3f17b82246c"),
        ("camouflage:.4", "05060d5d1823f561"),
        ("betray:.4", "7dc535bec10ff96f"),
        ("leak:.4", "05088816948e2dda"),
    ],
)
def test_a_seed_names_a_swarm_and_its_rounds(attack: str, pinned: str) -> None:
    contests = list(Online(A, 10, 4, 40, 900, parse(attack), rate=0.2).contests())
    assert len(contests) == 20
    assert _digest(contests) == pinned


def test_the_book_learns_whom_to_believe() -> None:
    contests = list(Online(A, 10, 6, 300, 900, Attack("invert", 0.4), rate=0.3).contests())
    last = contests[-1].case
    assert last.rule.name == "weighted"
    assert last.rule.calibration_rounds >= CONFIDENCE_ROUNDS
    # Who turns every verdict round is found out, whoever it is.
    silent = [seat for seat, weight in enumerate(last.weights) if weight.judge[4] < 50_000]
    assert len(silent) >= 4
    values = [compare(one).values for one in contests]
    consensus, uniform = (
        np.mean([one[name] for one in values]) for name in ("consensus", "uniform-bt")
    )
    assert consensus > uniform + 0.1


def test_only_calibration_is_graded() -> None:
    contests = list(Online(A, 6, 3, 60, 900, rate=0.0).contests())
    assert {one.case.rule.name for one in contests} == {"uncalibrated"}
    contests = list(Online(A, 6, 6, 80, 900, rate=1.0).contests())
    # Graded rounds count as examples from the time on that somebody is proven.
    assert contests[-1].case.rule.calibration_rounds > 40


def test_agreement_follows_a_ring() -> None:
    contests = list(Online(A, 10, 6, 120, 900, Attack("collude", 0.5), rate=0.1).contests())
    agreement = contests[-1].agreement
    ring = next(members for members in contests[-1].case.classes if len(members) == 5)
    others = [seat for seat in range(10) if seat not in ring]
    assert agreement[list(ring)].min() > agreement[others].max()


def test_sybils_join_in_the_middle() -> None:
    contests = list(Online(A, 6, 4, 30, 900, Attack("sybil", newcomers=12)).contests())
    assert {len(one.answers) for one in contests} == {18}
    assert {one.singles for one in contests} == {tuple(range(6))}
    for one in contests:
        # Among so many alike, pairs are drawn among classes.
        bouts, label = one.bouts, np.zeros(18, dtype=np.int64)
        for index, members in enumerate(one.case.classes):
            label[list(members)] = index
        assert (label[bouts.first] != label[bouts.second]).all()
    ring = {members for one in contests for members in one.case.classes if len(members) == 12}
    assert ring == {tuple(range(6, 18))}


def test_answers_keep_their_wording() -> None:
    answers = Answers(np.array([RIGHT, 1]), np.array([0.5, -0.5]))
    question = Question(0.0, np.full(8, 1 / 8), np.zeros(10))
    struck = Attack("collude", 0.5).answers(
        np.random.default_rng(0), question, answers, np.array([False, True])
    )
    assert struck.label.tolist() == [RIGHT, 9]
    assert answers.label.tolist() == [RIGHT, 1]
    assert struck.wording is answers.wording
