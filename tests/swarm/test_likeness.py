"""Clones are found by their wrong answers, and whoever is alike by nature is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.ids import PeerId
from swarm.likeness import ALIKE, FADING, FEWEST, Likeness
from swarm.trial import Mark
from tests.swarm.trials import mark, peer


def _marks(wrong: dict[str, str]) -> list[Mark]:
    """One trial: what each named peer answered, empty where that was right."""
    return [mark(name, wrong=answer) for name, answer in wrong.items()]


def _together(*trials: dict[str, str]) -> Likeness:
    found = Likeness()
    for one in trials:
        found.add(_marks(one))
    return found


def _swarm(
    seed: int, honest: int, clones: int, choices: int, trials: int = 60, errs: float = 0.5
) -> Likeness:
    """Independent peers h0.. and clones c0.. of one model.

    Args:
        choices: number of different wrong answers to each question, each as likely.
        errs: share of wrong answers, of every model.
    """
    rng = np.random.default_rng(seed)
    found = Likeness()
    for _ in range(trials):
        sources = rng.integers(0, choices, honest + 1)
        wrong = rng.random(honest + 1) < errs
        said = [f"{answer}" if it else "" for answer, it in zip(sources, wrong, strict=True)]
        answers = {f"h{at}": said[at] for at in range(honest)}
        answers |= {f"c{at}": said[honest] for at in range(clones)}
        found.add(_marks(answers))
    return found


# --- by hand ------------------------------------------------------------------------------------


def test_the_excess_by_hand() -> None:
    """Ten trials with both wrong, eight times alike, against the usual fifth."""
    found = _together(*[{"a": "x", "b": "x"}] * 8, *[{"a": "x", "b": "y"}] * 2)
    both = sum(FADING**step for step in range(10))
    same = sum(FADING**step for step in range(2, 10))
    rate = (same + 0.8) / (both + 4)
    excess = (rate - 0.2) / 0.8
    assert found.excess(peer("a"), peer("b")) == pytest.approx(excess)
    assert found.excess(peer("b"), peer("a")) == pytest.approx(excess)
    assert excess < ALIKE
    assert found.kind(peer("a")) == ((peer("a"),), 0.0)
    found = _together(*[{"a": "x", "b": "x"}] * 20)
    both = sum(FADING**step for step in range(20))
    excess = ((both + 0.8) / (both + 4) - 0.2) / 0.8
    assert found.divisor(peer("a"), [peer("a"), peer("b")]) == pytest.approx(1 + excess)
    pair = tuple(sorted((peer("a"), peer("b"))))
    assert found.kind(peer("b")) == (pair, pytest.approx(excess))


def test_right_answers_coincide_for_a_better_reason() -> None:
    found = _together(*[{"a": "", "b": ""}, {"a": "x", "b": ""}] * 50)
    assert found.excess(peer("a"), peer("b")) == 0.0
    assert found.kind(peer("a")) == ((peer("a"),), 0.0)


def test_of_few_trials_nothing_is_said() -> None:
    assert FEWEST == 5
    few = _together(*[{"a": "x", "b": "x"}] * 5)
    assert few.excess(peer("a"), peer("b")) == 0.0, "4.7 of them, faded"
    assert _together(*[{"a": "x", "b": "x"}] * 6).excess(peer("a"), peer("b")) > 0.0


def test_nobody_and_strangers() -> None:
    empty = Likeness()
    empty.add([])
    assert empty.kind(peer("a")) == ((peer("a"),), 0.0)
    assert empty.divisor(peer("a"), []) == 1.0
    assert _together({"a": "x"}).divisor(peer("z"), [peer("a"), peer("z")]) == 1.0


def test_three_pairs_and_more_are_set_against_their_median() -> None:
    """Two alike in a swarm where every third wrong answer coincides are less so."""
    rows = [
        {name: f"{(step * place) % 3}" for place, name in enumerate("abcd", 1)}
        for step in range(60)
    ]
    found = _together(*rows)
    rates = []
    for one, other in ("ab", "ac", "ad", "bc", "bd", "cd"):
        both = same = 0.0
        for row in rows:
            both, same = both * FADING + 1, same * FADING + (row[one] == row[other])
        rates.append((same + 0.8) / (both + 4))
    usual = sorted(rates)[2] / 2 + sorted(rates)[3] / 2
    assert usual > 0.2
    for (one, other), rate in zip(("ab", "ac", "ad", "bc", "bd", "cd"), rates, strict=True):
        excess = found.excess(peer(one), peer(other))
        assert excess == pytest.approx((rate - usual) / (1 - usual))


@pytest.mark.parametrize(("names", "usual"), [("ab", False), ("abc", True)])
def test_one_or_two_pairs_have_no_median(names: str, usual: bool) -> None:
    found = _together(*[dict.fromkeys(names, "x")] * 12)
    both = sum(FADING**step for step in range(12))
    rate = (both + 0.8) / (both + 4)
    excess = found.excess(peer("a"), peer("b"))
    assert excess == pytest.approx(0.0 if usual else (rate - 0.2) / 0.8)
    chained = _together(*[{"a": "x", "b": "x"}, {"b": "x", "c": "x"}] * 20)
    assert chained.excess(peer("b"), peer("c")) > 0.5, "two pairs of three peers"


# --- who is found -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("choices", [2, 4, 50])
def test_clones_are_found_and_the_independent_are_not(seed: int, choices: int) -> None:
    """Also where there are two wrong answers to choose from, so that all coincide often."""
    found = _swarm(seed, honest=8, clones=4, choices=choices)
    clones = tuple(sorted(peer(f"c{at}") for at in range(4)))
    for one in clones:
        kind, excess = found.kind(one)
        assert kind == clones
        assert excess > 0.7
    for at in range(8):
        assert found.kind(peer(f"h{at}")) == ((peer(f"h{at}"),), 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_one_wrong_answer_for_all_makes_nobody_alike(seed: int) -> None:
    """Yes-or-no questions: all that are wrong agree, clones or not."""
    found = _swarm(seed, honest=6, clones=2, choices=1)
    for name in ("h0", "h5", "c0"):
        assert found.divisor(peer(name), [peer(f"h{at}") for at in range(6)]) == 1.0
        assert found.kind(peer(name))[1] == 0.0


def test_two_pairs_of_clones_are_two_kinds() -> None:
    rng = np.random.default_rng(7)
    rows = []
    for _ in range(40):
        first, second, *rest = (str(one) for one in rng.integers(0, 9, 7))
        rows.append({"a": first, "b": first, "c": second, "d": second}
                    | {f"h{at}": one for at, one in enumerate(rest)})  # fmt: skip
    found = _together(*rows)
    assert found.kind(peer("a"))[0] == tuple(sorted((peer("a"), peer("b"))))
    assert found.kind(peer("d"))[0] == tuple(sorted((peer("c"), peer("d"))))


# --- what it does to weights --------------------------------------------------------------------


def test_the_seated_share_weight_as_a_cluster() -> None:
    """k of them with excess ρ: 1 + (k − 1) ρ."""
    found = _swarm(1, honest=8, clones=5, choices=8, trials=200)
    clones = [peer(f"c{at}") for at in range(5)]
    _, excess = found.kind(clones[0])
    others = [peer(f"h{at}") for at in range(8)]
    for seated in range(1, 6):
        divisor = found.divisor(clones[0], [*clones[:seated], *others])
        assert divisor == pytest.approx(1 + (seated - 1) * excess)
    assert found.divisor(clones[0], others) == 1.0, "whether it is there itself or not"
    assert found.divisor(clones[0], [*clones, *clones]) == pytest.approx(1 + 4 * excess)
    assert found.divisor(others[0], [*clones, *others]) == 1.0


def test_accomplices_at_the_edge_do_not_hide_a_kind() -> None:
    """Peers each alike to one clone only must not thin out what the clones share."""
    clones, bait = [f"c{at}" for at in range(4)], [f"b{at}" for at in range(12)]
    rows = [
        dict.fromkeys(clones, f"{step}") | {f"h{at}": f"h{at}" for at in range(9)}
        for step in range(60)
    ]
    alone = _together(*rows)
    for at, name in enumerate(bait):
        rows += [{clones[at % 4]: f"{step}", name: f"{step}"} for step in range(40)]
    baited = _together(*rows)
    seated = [peer(name) for name in clones]
    for one in seated:
        assert baited.divisor(one, seated) >= alone.divisor(one, seated) - 0.1
        assert alone.divisor(one, seated) > 3.4


def test_a_chain_is_no_kind() -> None:
    """Alike to one of two does not make these two alike."""
    rows: list[dict[str, str]] = [{f"h{at}": f"h{at}" for at in range(6)}] * 40
    rows += [{"a": "1", "b": "1", "c": "2"}, {"a": "3", "b": "4", "c": "4"}] * 40
    rows += [{"a": "1", "b": "1"}, {"b": "4", "c": "4"}] * 60
    found = _together(*rows)
    a, b, c = (peer(name) for name in "abc")
    assert found.kind(b)[0] == tuple(sorted((a, b, c)))
    assert found.kind(a)[0] == tuple(sorted((a, b)))
    assert found.divisor(a, [a, c]) == 1.0


def test_it_is_the_present_that_counts() -> None:
    """Two that were clones and are no more; and the other way round."""
    alike, apart = {"a": "x", "b": "x"}, {"a": "x", "b": "y"}
    assert _together(*[alike] * 100, *[apart] * 40).divisor(peer("a"), [peer("b")]) == 1.0
    assert _together(*[apart] * 100, *[alike] * 60).divisor(peer("a"), [peer("b")]) > 1.5


# --- forgetting and laws ------------------------------------------------------------------------


def test_the_forgotten_are_strangers_again() -> None:
    found = _swarm(2, honest=6, clones=3, choices=9)
    gone, left = peer("c0"), peer("c1")
    before = found.kind(left)[1]
    found.forget([gone, peer("nobody")])
    assert found.kind(gone) == ((gone,), 0.0)
    assert found.divisor(gone, [left]) == 1.0
    assert found.kind(left)[0] == tuple(sorted((left, peer("c2"))))
    assert found.kind(left)[1] == pytest.approx(before, abs=0.1)
    found.forget([peer(f"h{at}") for at in range(6)] + [peer("c1"), peer("c2")])
    assert found.kind(left) == ((left,), 0.0)


@st.composite
def trials(draw: st.DrawFn) -> list[dict[str, str]]:
    answer = st.sampled_from(["", "x", "y", "z"])
    row = st.dictionaries(st.sampled_from("abcdef"), answer, min_size=2)
    return draw(st.lists(row, max_size=12)) * draw(st.sampled_from([1, 4]))


@settings(max_examples=40, deadline=None)
@given(trials(), st.randoms(use_true_random=False))
def test_the_order_of_marks_and_seats_is_nothing(rows: list[dict[str, str]], chance: Any) -> None:
    one, other = Likeness(), Likeness()
    for row in rows:
        marks = _marks(row)
        one.add(marks)
        chance.shuffle(marks)
        other.add(marks)
    seats = [peer(name) for name in "abcdef"]
    mixed = list(seats)
    chance.shuffle(mixed)
    for seat in mixed:
        assert one.kind(seat) == other.kind(seat)
        assert one.divisor(seat, seats) == other.divisor(seat, mixed)


@settings(max_examples=40, deadline=None)
@given(trials())
def test_likeness_is_mutual_and_bounded(rows: list[dict[str, str]]) -> None:
    found = _together(*rows)
    seats = [peer(name) for name in "abcdef"]
    for seat in seats:
        kind, excess = found.kind(seat)
        assert seat in kind
        assert all(seat in found.kind(other)[0] for other in kind)
        assert excess == 0.0 if len(kind) == 1 else ALIKE <= excess <= 1.0
        assert 1.0 <= found.divisor(seat, seats) <= 1.0 + (len(kind) - 1)


def test_a_ring_is_known_once_others_err_as_well() -> None:
    """Among pairs of the ring alone nobody can tell it from a question with one wrong answer."""
    ring, honest = [f"r{at}" for at in range(6)], [f"h{at}" for at in range(6)]
    rows = [dict.fromkeys(ring, "x") | dict.fromkeys(honest, "")] * 20
    assert _together(*rows).kind(peer("r0")) == ((peer("r0"),), 0.0)
    rows += [dict.fromkeys(ring, "x") | {name: name for name in honest}] * 8
    kind, excess = _together(*rows).kind(peer("r0"))
    assert kind == tuple(sorted(map(peer, ring)))
    assert excess > 0.8


def test_what_is_asked_of_a_thousand_clones_is_asked_pair_by_pair() -> None:
    """The work for a table grows with its pairs, not with all the peers that were ever alike."""
    found = Likeness()
    names = [f"s{at}" for at in range(96)]
    for _ in range(8):
        found.add(_marks(dict.fromkeys(names, "x")))
    asked = 0

    class Counted(Likeness):
        def excess(self, one: PeerId, other: PeerId) -> float:
            nonlocal asked
            asked += 1
            return super().excess(one, other)

    found.__class__ = Counted
    table = [peer(name) for name in names[:12]]
    for one in table:
        found.divisor(one, table)
    assert asked == 12 * 11
