"""What a graded round says of each peer: by hand, and from real receipts."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.codec import decode, encode
from protocol.errors import DecodeError, ReceiptError, UngradableError
from protocol.messages import MICRO, Row
from protocol.receipt import Tally, read, write
from swarm.consensus import UNCALIBRATED, Case, Vote
from swarm.reputation import NEUTRAL, confidence_bin
from swarm.trial import (
    NO_TALLIES,
    WRONG_BYTES,
    Mark,
    Trial,
    Truth,
    five,
    judged,
    marks,
    name_of,
    tallies,
    truth,
)
from tests.protocol.arbitrary import arbitrary
from tests.swarm.builders import changed, signed
from tests.swarm.virtual import Peer, VirtualSwarm, knows, signer


def _case(
    classes: tuple[tuple[int, ...], ...],
    votes: list[tuple[int, int, int, float | None]],
    both_orders: bool = False,
) -> Case:
    seats = sum(len(members) for members in classes)
    rows = tuple(
        Vote(seat, Row(first, second, None if p is None else round(p * MICRO)))
        for seat, first, second, p in votes
    )
    return Case(UNCALIBRATED, classes, (NEUTRAL,) * seats, rows, both_orders)


def _bins(*pairs: tuple[float, float]) -> tuple[Tally, ...]:
    found = [Tally(round(right * MICRO), round(total * MICRO)) for right, total in pairs]
    return five([*found, *[Tally(0, 0)] * (5 - len(found))])


THREE = ((0,), (1,), (2,))


# --- verdicts, by hand --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "place", "right"),
    [(1.0, 4, 1), (0.0, 4, 0), (0.9, 3, 1), (0.2, 2, 0), (0.35, 1, 0), (0.55, 0, 1)],
)
@pytest.mark.parametrize("flipped", [False, True])
def test_a_pick_counts_in_its_bin(p: float, place: int, right: int, flipped: bool) -> None:
    """Class 0 is right; shown first or second."""
    row = (2, 1, 0, 1 - p) if flipped else (2, 0, 1, p)
    found = tallies(_case(THREE, [row]), (True, False, False))
    expected = [(0.0, 0.0)] * place + [(float(right), 1.0)]
    assert found == {2: _bins(*expected)}


def test_ties_and_abstentions_are_half_right_and_unsure() -> None:
    found = tallies(_case(THREE, [(0, 0, 1, 0.5), (0, 2, 0, None)]), (True, False, False))
    assert found == {0: _bins((1.0, 2.0))}


def test_pairs_that_the_truth_does_not_tell_apart_count_for_nothing() -> None:
    """Both wrong, both right, or one of them unknown."""
    votes = [(0, 1, 2, 1.0), (0, 2, 1, None)]
    assert tallies(_case(THREE, votes), (True, False, False)) == {0: NO_TALLIES}
    assert tallies(_case(THREE, votes), (False, True, True)) == {0: NO_TALLIES}
    assert tallies(_case(THREE, votes), (True, None, False)) == {0: NO_TALLIES}
    assert tallies(_case(THREE, votes), (True, None, None)) == {0: NO_TALLIES}
    assert tallies(_case(THREE, []), (True, False, False)) == {}


def test_a_pair_in_both_orders_counts_once() -> None:
    """One that always takes the first is half right; one of two minds is half in each bin."""
    lazy = [(0, 0, 1, 1.0), (0, 1, 0, 1.0)]
    assert tallies(_case(THREE, lazy, True), (True, False, False)) == {
        0: _bins((0, 0), (0, 0), (0, 0), (0, 0), (0.5, 1.0))
    }
    mixed = [(0, 0, 1, 0.95), (0, 1, 0, 0.45)]
    assert tallies(_case(THREE, mixed, True), (True, False, False)) == {
        0: _bins((0.5, 0.5), (0, 0), (0, 0), (0.5, 0.5))
    }
    doubts = [(0, 0, 1, None), (0, 1, 0, 0.5)]
    assert tallies(_case(THREE, doubts, True), (True, False, False)) == {0: _bins((0.5, 1.0))}


def test_pairs_with_the_judges_own_answer_count_like_others() -> None:
    votes = [(0, 0, 1, 1.0), (1, 0, 1, 0.0), (2, 0, 1, 1.0)]
    found = tallies(_case(THREE, votes), (True, False, False))
    sure = [(0.0, 0.0)] * 4
    assert found == {
        0: _bins(*sure, (1, 1)), 1: _bins(*sure, (0, 1)), 2: _bins(*sure, (1, 1)),
    }  # fmt: skip


@st.composite
def rounds(draw: st.DrawFn) -> tuple[Case, Truth]:
    """Any votes on up to five classes, and any truth."""
    count = draw(st.integers(2, 5))
    pair = st.lists(st.integers(0, count - 1), min_size=2, max_size=2, unique=True)
    p = st.one_of(st.none(), st.integers(0, MICRO))
    votes = [
        Vote(draw(st.integers(0, count - 1)), Row(*draw(pair), draw(p)))
        for _ in range(draw(st.integers(0, 14)))
    ]
    classes = tuple((at,) for at in range(count))
    case = Case(UNCALIBRATED, classes, (NEUTRAL,) * count, tuple(votes), draw(st.booleans()))
    right = draw(st.lists(st.sampled_from([True, False, None]), min_size=count, max_size=count))
    return case, right


@given(rounds())
def test_all_informative_verdicts_and_no_others_are_counted(one: tuple[Case, Truth]) -> None:
    case, right = one
    found = tallies(case, right)
    telling = [
        vote for vote in case.votes
        if {right[vote.row.first], right[vote.row.second]} == {True, False}
    ]  # fmt: skip
    each = MICRO // 2 if case.both_orders else MICRO
    assert sum(tally.total for bins in found.values() for tally in bins) == each * len(telling)
    for seat, bins in found.items():
        for place, tally in enumerate(bins):
            mine = [
                vote for vote in telling if vote.seat == seat
                and place == (0 if vote.row.p is None else confidence_bin(vote.row.p))
            ]  # fmt: skip
            assert tally.total == each * len(mine)
            assert tally.right <= tally.total


@given(rounds())
def test_the_mirror_of_a_verdict_counts_the_same(one: tuple[Case, Truth]) -> None:
    case, right = one
    mirrored = changed_votes(case, lambda row: Row(
        row.second, row.first, None if row.p is None else MICRO - row.p))  # fmt: skip
    assert tallies(mirrored, right) == tallies(case, right)
    inverted = changed_votes(case, lambda row: Row(
        row.first, row.second, None if row.p is None else MICRO - row.p))  # fmt: skip
    for seat, bins in tallies(inverted, right).items():
        for tally, before in zip(bins, tallies(case, right)[seat], strict=True):
            assert tally == Tally(before.total - before.right, before.total)


def changed_votes(case: Case, change: object) -> Case:
    """The same round with every row changed."""
    assert callable(change)
    votes = tuple(Vote(vote.seat, change(vote.row)) for vote in case.votes)
    return Case(case.rule, case.classes, case.weights, votes, case.both_orders)


# --- names of wrong answers ---------------------------------------------------------------------


def test_the_same_wrong_answer_has_one_name() -> None:
    assert name_of("41") == name_of(" 41.0 ") == name_of("**41**")
    assert len({name_of(one) for one in ("41", "42", "41 apples", "a", "", "text 41")}) == 6
    assert len(name_of("x" * 10_000)) == WRONG_BYTES


# --- from a receipt -----------------------------------------------------------------------------


def _peers() -> list[Peer]:
    """Two right, two wrong alike, one wrong alone; each of its own speed and model."""
    answers = ("42", "41", "42.0", "41", "7")
    return [
        Peer(f"p{at}", answer, knows("42", 0.8 + 0.04 * at), thinks=0.1 * (at + 1))
        for at, answer in enumerate(answers)
    ]


@cache
def _swarm() -> VirtualSwarm:
    return VirtualSwarm(_peers()).run()


def _right(swarm: VirtualSwarm, text: str = "42") -> list[bool]:
    assert swarm.round.opened is not None
    return [answer in (text, f"{text}.0") for answer in swarm.round.opened.answers]


def test_a_receipt_is_taken_apart() -> None:
    swarm = _swarm()
    found = judged(swarm.receipt)
    assert found.question == "What is 6 * 7?"
    assert found.core == swarm.round.core
    assert found.opened == swarm.round.opened
    assert found.case == swarm.round.case()
    assert found.chosen == swarm.result.winner
    for seat, peer in enumerate(found.opened.peers):
        one = swarm.peers[peer]
        assert found.latencies_ms[seat] == pytest.approx(1000 * (one.thinks + 2 * one.latency))
    assert set(found.models) == {""}, "the content id, where there is none"


def test_marks_from_a_receipt() -> None:
    """Every judge sees its informative pairs in both orders and knows what is right."""
    swarm = _swarm()
    found = judged(swarm.receipt)
    made = {one.peer: one for one in marks(found, _right(swarm))}
    assert [one.peer for one in marks(found, _right(swarm))] == list(found.opened.peers)
    for at, peer in enumerate(_peers()):
        one = made[peer.id]
        place = confidence_bin(round((0.8 + 0.04 * at) * MICRO))
        expected = [Tally(0, 0)] * 5
        expected[place] = Tally(2 * MICRO, 2 * MICRO)  # 42 against 41, and against 7
        assert one.judge == tuple(expected)
        assert one.right == (at in (0, 2))
        assert one.wrong == (b"" if one.right else name_of(peer.answer or ""))
        assert one.latency_ms == round(1000 * (peer.thinks + 0.02))
        assert one.answer_bytes == len(peer.answer or "")
        assert decode(encode(one), Mark) == one
    assert made[signer("p1").peer].wrong == made[signer("p3").peer].wrong


def test_whoever_did_not_answer_has_no_mark() -> None:
    peers = _peers()
    peers[3].dies_when = "COMMITTED"
    peers[4].dies_when = "JUDGING"
    swarm = VirtualSwarm(peers).run()
    made = {one.peer: one for one in marks(judged(swarm.receipt), _right(swarm))}
    assert peers[3].id not in made
    assert made[peers[4].id].judge == NO_TALLIES, "it answered and did not judge"
    assert made[peers[4].id].answer_bytes == 1
    assert len(made) == 4


def test_who_hedges_is_marked_wrong_and_still_judged_by() -> None:
    """The right answer among others is no right answer: else who hedges could not be tested."""
    swarm = _swarm()
    found = judged(swarm.receipt)
    right: Truth = [True if one else None for one in _right(swarm)]
    made = marks(found, right)
    assert len(made) == len(marks(found, _right(swarm)))
    good = {one.peer for one in made if one.right}
    assert good == {signer("p0").peer, signer("p2").peer}
    assert all(one.judge == NO_TALLIES for one in made), "no pair of known truth is left"


def test_where_nothing_is_known_to_be_right_only_the_wrong_are_marked() -> None:
    swarm = _swarm()
    found = judged(swarm.receipt)
    right: Truth = [None if one else False for one in _right(swarm)]
    made = marks(found, right)
    assert {one.peer for one in made}.isdisjoint({signer("p0").peer, signer("p2").peer})
    assert not any(one.right for one in made)


def test_unanimity_has_answers_and_no_verdicts() -> None:
    swarm = VirtualSwarm([Peer("a", "42"), Peer("b", "42.0")]).run()
    found = judged(swarm.receipt)
    assert found.chosen == 0
    for right in (True, False):
        for one in marks(found, [right]):
            assert one.judge == NO_TALLIES
            assert one.right is right
            assert bool(one.wrong) is not right


def test_no_consensus_chose_nothing() -> None:
    mute = [Peer("a", "42", lambda a, b: None), Peer("b", "41", lambda a, b: None)]
    found = judged(VirtualSwarm(mute).run().receipt)
    assert found.chosen is None
    both = marks(found, [text == "42" for text in found.opened.answers])
    assert {one.judge for one in both} == {_bins((0.5, 1.0))}


def test_the_model_is_the_one_of_the_commit() -> None:
    """What a Commit claims counts, not what a profile has said before."""
    found = judged(_swarm().receipt)
    swapped = found._replace(models=tuple(f"m{seat}" for seat in range(5)))
    made = marks(swapped, _right(_swarm()))
    assert [one.model for one in made] == [f"m{seat}" for seat in range(5)]


# --- receipts that cannot be graded -------------------------------------------------------------


def test_damaged_receipts_are_refused() -> None:
    receipt = _swarm().receipt
    for size in range(0, len(receipt), 997):
        with pytest.raises(ReceiptError):
            judged(receipt[:size])
    file, core, opening = read(receipt)
    with pytest.raises(ReceiptError, match="detached"):
        judged(write(file.core, None))
    for bent in (
        changed(core, result=changed(core.result, winner=1, outcome="answer")),
        changed(core, judging=None),
        changed(core, standings=core.standings[1:]),
    ):
        with pytest.raises(ReceiptError):
            judged(signed(_swarm(), bent, opening))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_splice_is_refused(data: st.DataObject) -> None:
    receipt = _swarm().receipt
    start = data.draw(st.integers(0, len(receipt)))
    end = data.draw(st.integers(start, min(len(receipt), start + 100)))
    spliced = receipt[:start] + data.draw(st.binary(max_size=8)) + receipt[end:]
    if spliced != receipt:
        with pytest.raises(ReceiptError):
            judged(spliced)


def test_rounds_without_answers_are_refused() -> None:
    nobody = VirtualSwarm([Peer("a", None), Peer("b", None)]).run()
    alone = VirtualSwarm([Peer("a", "42"), Peer("b", None)], min_answers=2).run()
    for swarm in (nobody, alone):
        with pytest.raises(ReceiptError, match="ended before its answers were shown"):
            judged(swarm.receipt)


# --- what a grade says --------------------------------------------------------------------------


def test_a_grade_of_the_swarms_answer() -> None:
    found = judged(_swarm().receipt)
    assert found.chosen is not None
    right = truth(found, True, None)
    assert right == [index == found.chosen for index in range(3)]
    wrong = truth(found, False, None)
    assert wrong == [False if index == found.chosen else None for index in range(3)]


@pytest.mark.parametrize(("answer", "right"), [("42", True), (" 42.00", True), ("41", False),
                                               ("no such", False)])  # fmt: skip
def test_a_grade_with_the_right_answer(answer: str, right: bool) -> None:
    found = judged(_swarm().receipt)
    expected = [text.split(".")[0] == answer.strip().split(".")[0] for text in found.opened.answers]
    assert truth(found, right, answer) == expected
    with pytest.raises(UngradableError, match="do not go with that"):
        truth(found, not right, answer)


def test_without_an_answer_of_the_swarm_a_grade_needs_the_right_one() -> None:
    mute = [Peer("a", "42", lambda a, b: None), Peer("b", "41", lambda a, b: None)]
    found = judged(VirtualSwarm(mute).run().receipt)
    with pytest.raises(UngradableError, match="say which is right with --answer"):
        truth(found, False, None)
    assert sorted(map(bool, truth(found, False, "42"))) == [False, True]


# --- as it is stored ----------------------------------------------------------------------------


@settings(max_examples=60)
@given(arbitrary(Trial))
def test_a_trial_is_written_and_read(one: Trial) -> None:
    assert decode(encode(one), Trial) == one


@pytest.mark.parametrize(
    "fields",
    [{"kind": "rumour"}, {"right": 48}, {"at": -1}, {"weighted": ((2**53 + 1, 0, 0),)},
     {"equal": ((0, 0),)}, {"topic": "x" * 257}, {"round": bytes(31)}],
    ids=lambda fields: next(iter(fields)),
)  # fmt: skip
def test_a_trial_out_of_bounds_is_refused(fields: dict[str, object]) -> None:
    none = Trial(bytes(32), 0, "", "", "hidden", None, None, 0, (), (), ())  # type: ignore[arg-type]
    assert decode(encode(none), Trial) == none
    with pytest.raises(DecodeError):
        decode(encode(changed(none, **fields)), Trial)
