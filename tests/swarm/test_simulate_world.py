"""The simulated world: the same seeds give the same world, and its parts do what they say."""

from __future__ import annotations

from dataclasses import fields
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import Generator
from scipy.special import ndtri

from swarm.simulate.world import (
    ABOUT,
    RIGHT,
    WORLDS,
    Answers,
    Pairs,
    Peers,
    Question,
    World,
    draw_answers,
    draw_class_pairs,
    draw_pairs,
    draw_peers,
    draw_question,
    draw_verdicts,
    normal_quantile,
)


def _quiet(**changes: float) -> World:
    """A world in which nothing but what is changed sways a judge."""
    calm = {one.name: 0.0 for one in fields(World) if one.name in _SWAYS}
    return World(**(calm | changes))  # type: ignore[arg-type]


_SWAYS = (
    "own_bias", "self_bias", "appeal_sd", "appeal_popular", "position_mean", "position_sd",
    "wording_sd", "wording_skill", "eye",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "pinned"),
    [
        ("A", "d10b17c00e3ecec8"),
        ("B", "fa337bbfab027f44"),
        ("C", "b5d9368a12be98d1"),
        ("D", "bfbe1945d67d5010"),
        ("E", "c3474270457b841d"),
    ],
)
def test_a_seed_names_a_world(name: str, pinned: str) -> None:
    """Figures that were published for a seed can be made again only while this holds."""
    world, rng, whole = WORLDS[name], np.random.default_rng(1234), sha256()
    for _ in range(50):
        peers = draw_peers(rng, 9, world)
        question = draw_question(rng, world)
        answers = draw_answers(rng, question, peers, world)
        pairs = draw_pairs(rng, 9, 4)
        logit = draw_verdicts(rng, question, peers, answers, pairs, world)
        for exact in (peers.family, answers.label, pairs.first, pairs.second, pairs.judge):
            whole.update(exact.astype(np.int64).tobytes())
        whole.update((logit > 0).astype(np.int64).tobytes())
        for real in (
            peers.skill, peers.position, question.popularity, question.appeal, answers.wording,
        ):  # fmt: skip
            whole.update(np.round(real, 9).tobytes())
    assert whole.hexdigest()[:16] == pinned


def test_every_world_is_described() -> None:
    assert set(ABOUT) == set(WORLDS)


def test_the_normal_quantile_is_scipys() -> None:
    chance = np.concatenate(
        [np.linspace(1e-6, 1 - 1e-6, 2001), 10.0 ** -np.arange(1, 7), 1 - 10.0 ** -np.arange(1, 7)]
    )
    np.testing.assert_allclose(normal_quantile(chance), ndtri(chance), rtol=1e-12, atol=1e-12)


def _rng(seed: int) -> Generator:
    return np.random.default_rng(seed)


@given(st.integers(2, 12), st.integers(1, 80), st.integers(0, 2**32))
def test_a_judge_gets_distinct_pairs_of_two_peers(count: int, each: int, seed: int) -> None:
    pairs = draw_pairs(_rng(seed), count, each)
    every = count * (count - 1) // 2
    assert len(pairs) == count * min(each, every)
    for judge in range(count):
        mine = pairs.judge == judge
        shown = {
            frozenset(pair)
            for pair in zip(pairs.first[mine].tolist(), pairs.second[mine].tolist(), strict=True)
        }
        assert len(shown) == min(each, every)
        assert all(len(pair) == 2 for pair in shown)
        assert max(max(pair) for pair in shown) < count


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(1, 20), st.integers(0, 2**32)
)
def test_pairs_of_classes_are_of_unlike_answers(labels: list[int], each: int, seed: int) -> None:
    label = np.array(labels)
    pairs = draw_class_pairs(_rng(seed), label, each)
    kinds = len(set(labels))
    most = min(each, kinds * (kinds - 1) // 2)
    assert len(pairs) == len(labels) * most
    assert (label[pairs.first] != label[pairs.second]).all()
    for judge in range(len(labels)):
        mine = pairs.judge == judge
        shown = {
            frozenset(pair)
            for pair in zip(
                label[pairs.first[mine]].tolist(), label[pairs.second[mine]].tolist(), strict=True
            )
        }
        assert len(shown) == most


def test_pairs_of_classes_show_every_member_and_both_orders() -> None:
    label = np.array([0, 0, 0, 1])
    pairs = draw_class_pairs(_rng(3), np.tile(label, 50), 1)
    assert {seat % 4 for seat in (*pairs.first.tolist(), *pairs.second.tolist())} == {0, 1, 2, 3}
    share = (np.tile(label, 50)[pairs.first] == 0).mean()
    assert 0.35 < share < 0.65


# --- answers ------------------------------------------------------------------------------------


def _rights(world: World, skill: float, difficulty: float, rounds: int = 400) -> float:
    rng, right = _rng(5), 0
    peers = Peers(np.full(10, skill), np.arange(10) % 6, np.zeros(10))
    question = Question(difficulty, np.full(8, 1 / 8), np.zeros(9))
    for _ in range(rounds):
        right += int((draw_answers(rng, question, peers, world).label == RIGHT).sum())
    return right / (10 * rounds)


def test_the_able_are_right_more_often_and_the_hard_is_missed_more_often() -> None:
    world = World()
    assert _rights(world, 0.0, 0.0) == pytest.approx(0.5, abs=0.03)
    assert _rights(world, 1.0, 0.0) == pytest.approx(1 / (1 + np.exp(-1.3)), abs=0.03)
    assert _rights(world, 0.0, 1.0) == pytest.approx(1 / (1 + np.exp(1.3)), abs=0.03)


def test_a_family_errs_together() -> None:
    def coincidence(world: World) -> float:
        rng, same = _rng(6), []
        for _ in range(1500):
            question = Question(0.0, np.full(8, 1 / 8), np.zeros(9))
            peers = Peers(np.zeros(2), np.array([1, 1]), np.zeros(2))
            label = draw_answers(rng, question, peers, world).label
            if (label != RIGHT).all():
                same.append(label[0] == label[1])
        return float(np.mean(same))

    assert coincidence(World(family_share=1.0)) == 1.0
    assert coincidence(World(family_share=0.0)) < 0.25


# --- verdicts -------------------------------------------------------------------------------------


def _share_first(world: World, **changes: object) -> float:
    """How often the answer shown first is picked; by default right, against a wrong one."""
    many = 4000
    peers = Peers(np.zeros(3), np.zeros(3, dtype=np.int64), np.full(3, changes.get("leaning", 0.0)))
    label = np.array(changes.get("label", [RIGHT, 1, 2]))
    pairs = Pairs(
        np.full(many, changes.get("first", 0)),
        np.full(many, changes.get("second", 1)),
        np.full(many, changes.get("judge", 2)),
    )
    question = Question(0.0, np.full(8, 1 / 8), np.array(changes.get("appeal", [0.0] * 9)))
    answers = Answers(label, np.array(changes.get("wording", [0.0] * 3)))
    logit = draw_verdicts(_rng(7), question, peers, answers, pairs, world)
    return float((logit > 0).mean())


def _expect(logit: float) -> object:
    return pytest.approx(1 / (1 + np.exp(-logit)), abs=0.03)


def test_what_sways_a_judge() -> None:
    assert _share_first(_quiet()) == _expect(0)
    assert _share_first(_quiet(eye=1.6)) == _expect(1.6)
    assert _share_first(_quiet(eye=1.6), first=1, second=0) == _expect(-1.6)
    assert _share_first(_quiet(), leaning=0.7) == _expect(0.7)
    assert _share_first(_quiet(), appeal=[0.0, 0.9, *[0.0] * 7]) == _expect(-0.9)
    assert _share_first(_quiet(), wording=[0.0, 0.8, 0.0]) == _expect(-0.8)


def test_judges_favour_their_own() -> None:
    world = _quiet(own_bias=1.0, self_bias=0.4)
    assert _share_first(world) == _expect(0)
    assert _share_first(world, judge=0) == _expect(1.4)
    assert _share_first(world, judge=1) == _expect(-1.4)
    assert _share_first(world, judge=2, label=[RIGHT, 1, 1]) == _expect(-1.0)
