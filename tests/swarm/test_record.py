"""What is known of one peer: counts that fade and borrow, and tests that begin anew."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.codec import decode, encode
from protocol.ids import peer_text
from protocol.ledger import Sum
from protocol.messages import MICRO
from protocol.receipt import Standing, Tally
from swarm.record import (
    BORROWED,
    DECIDED_BIN,
    FADING,
    HIDDEN_PAIRS,
    RECOGNISABLE,
    RETRY_S,
    Counts,
    Duels,
    Record,
    Told,
)
from swarm.sequential import Cusum, Sprt
from swarm.trial import Kind, Mark, Trial
from tests.swarm.trials import mark, trial
from tests.swarm.virtual import signer

ME = signer("me").peer


def _add(
    record: Record, *bins: tuple[float, float], times: int = 1, topic: str = "sums",
    kind: Kind = "hidden", at: int = 1_000, place: int = 4, **fields: Any,
) -> Record:  # fmt: skip
    """The same trial several times."""
    for _ in range(times):
        one = mark("me", *bins, place=place, **fields)
        record.add(trial(one, topic=topic, kind=kind, at=at), one)
    return record


def _on(record: Record, topic: str) -> list[tuple[float, float]]:
    """(right, pairs) by bin for a question of ``topic``."""
    standing = record.standing(ME, topic)
    return [(one.right / MICRO, one.total / MICRO) for one in standing.judge]


def _answers(record: Record, topic: str) -> tuple[float, float]:
    answer = record.standing(ME, topic).answer
    return answer.right / MICRO, answer.total / MICRO


def _borrowed(right: float, total: float) -> tuple[float, float]:
    share = min(1.0, BORROWED / total) if total else 0.0
    return right * share, total * share


# --- counts -------------------------------------------------------------------------------------


def test_counts_fade_by_hand() -> None:
    counts = Counts()
    counts.add(mark("me", (1, 2), (3, 4), place=0))
    counts.add(mark("me", (0.5, 1), place=1, right=False))
    assert counts.judge[0] == pytest.approx([FADING, 2 * FADING])
    assert counts.judge[1] == pytest.approx([3 * FADING + 0.5, 4 * FADING + 1])
    assert counts.judge[2:] == [[0.0, 0.0]] * 3
    assert counts.answer == pytest.approx([FADING, FADING + 1])
    assert counts.rounds == pytest.approx(FADING + 1)


def test_what_claims_to_know_is_counted_and_not_forgotten() -> None:
    counts = Counts()
    counts.add(mark("me", (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), place=0))
    assert counts.decided == [9.0, 15.0]
    for _ in range(99):
        counts.add(mark("me", (1, 1), place=1))
    assert counts.decided == [9.0, 15.0]
    assert DECIDED_BIN == 2


def test_only_trials_of_a_topic_fade_it() -> None:
    record = _add(Record("m"), (4, 4))
    before = record.standing(ME, "sums")
    _add(record, (0, 0), topic="dates", times=50)
    assert record.standing(ME, "sums").judge == before.judge


@given(st.lists(st.integers(0, 8), min_size=1, max_size=120))
def test_a_total_never_passes_the_sum_of_what_fades(pairs: list[int]) -> None:
    record = Record("m")
    for one in pairs:
        _add(record, (one, one))
    right, total = _on(record, "")[4]
    assert total == pytest.approx(right)
    assert total <= max(pairs) / (1 - FADING)
    _, answers = _answers(record, "")
    assert answers <= 1 / (1 - FADING)
    assert record.topics["sums"].rounds <= 1 / (1 - FADING)


# --- what a standing says -----------------------------------------------------------------------


def test_of_a_new_record_nothing_is_known() -> None:
    found = Record("m").standing(ME, "sums")
    none = Tally(0, 0)
    assert found == Standing(
        ME, (none,) * 5, none, False, round(RECOGNISABLE * MICRO), "asker"
    )  # fmt: skip
    assert Record("m").standing(ME, "") == found


def test_bins_keep_their_places() -> None:
    record = _add(Record("m"), (1, 10), (2, 20), (3, 30), (4, 40), (5, 50), place=0)
    assert _on(record, "") == [(1, 10), (2, 20), (3, 30), (4, 40), (5, 50)]


def test_unknown_topics_pool_what_there_is() -> None:
    record = _add(_add(Record("m"), (30, 40)), (10, 20), (5, 30), topic="dates", place=3)
    assert _on(record, "") == [(0, 0), (0, 0), (0, 0), (10, 20), (35, 70)]
    assert _answers(record, "") == (2, 2)


def test_borrowing_by_hand() -> None:
    """From other sureness on the topic, and from the same sureness on other topics."""
    record = _add(Record("m"), (6, 12), (30, 40), place=3)
    _add(record, (8, 16), (1, 2), topic="dates", place=2, right=False)
    sums = _on(record, "sums")
    assert sums[4] == pytest.approx((30 + 5, 40 + 10)), "ten of twelve in the other bin"
    assert sums[3] == pytest.approx((6 + 7.5 + 1, 12 + 10 + 2)), "ten of forty, and both on dates"
    assert sums[2] == pytest.approx((10 * 36 / 52 + 5, 20)), "both cut to ten"
    assert sums[1] == sums[0] == pytest.approx((10 * 36 / 52, 10))
    assert _answers(record, "sums") == (1, 2), "with the wrong one on dates"
    dates = _on(record, "dates")
    assert dates[2] == pytest.approx((8 + 1, 16 + 2)), "nobody else has that bin"
    assert dates[3] == pytest.approx((1 + 5 + 5, 2 + 10 + 10))
    assert dates[4] == pytest.approx((5 + 7.5, 20))


def test_a_topic_never_tried_borrows_what_the_peer_is_elsewhere() -> None:
    record = _add(Record("m"), (30, 40))
    assert _on(record, "new") == [(0, 0)] * 4 + [(7.5, 10)]
    assert _answers(_add(record, (0, 0), times=200, right=False), "new")[1] == pytest.approx(10)


TOPICS = st.sampled_from(["sums", "dates", "words", ""])


@st.composite
def marks(draw: st.DrawFn) -> Mark:
    """Any mark, of as many pairs as a round can hold."""
    pair = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda two: tuple(sorted(two)))
    bins = draw(st.tuples(*[pair] * 5))
    return mark("me", *bins, place=0, right=draw(st.booleans()))


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Trial, Mark]]:
    """Trials of one peer, of any topic and kind and a while apart."""
    at, found = 1_000, []
    for _ in range(draw(st.integers(0, 8))):
        at += draw(st.sampled_from([0, 60, 3_600, RETRY_S, RETRY_S + 1]))
        one = draw(marks())
        kind = draw(st.sampled_from(["admission", "hidden", "graded"]))
        chosen = draw(st.sampled_from([True, False, None]))
        topic = draw(TOPICS)
        found.append((trial(one, topic=topic, kind=kind, at=at, chosen=chosen), one))
    return found


def _record(history: list[tuple[Trial, Mark]]) -> Record:
    record = Record("m")
    for one, found in history:
        record.add(one, found)
    return record


@settings(max_examples=40, deadline=None)
@given(histories(), TOPICS)
def test_any_history_gives_a_standing_that_can_be_written(
    history: list[tuple[Trial, Mark]], topic: str
) -> None:
    record = _record(history)
    found = record.standing(ME, topic)
    assert decode(encode(found), Standing) == found
    assert found.admitted == record.admitted
    assert _record(history).standing(ME, topic) == found, "the same again"


@settings(max_examples=40, deadline=None)
@given(histories(), histories())
def test_one_topic_lends_another_ten_pairs_at_most(
    here: list[tuple[Trial, Mark]], there: list[tuple[Trial, Mark]]
) -> None:
    """However much there is on other topics."""
    record, alone = Record("m"), Record("m")
    for _, found in here:
        record.topics.setdefault("sums", Counts()).add(found)
        alone.topics.setdefault("sums", Counts()).add(found)
    for at, (_, found) in enumerate(there):
        record.topics.setdefault(f"other {at % 3}", Counts()).add(found)
    for with_it, without in zip(_on(record, "sums"), _on(alone, "sums"), strict=True):
        assert -1e-6 <= with_it[0] - without[0] <= BORROWED + 1e-6
        assert -1e-6 <= with_it[1] - without[1] <= BORROWED + 1e-6
    lent = _answers(record, "sums")[1] - _answers(alone, "sums")[1]
    assert -1e-6 <= lent <= BORROWED + 1e-6


# --- admission ----------------------------------------------------------------------------------


def test_a_good_judge_is_admitted() -> None:
    record = _add(Record("m"), (1, 1), times=13)
    assert not record.admitted
    assert _add(record, (1, 1)).admitted
    assert record.standing(ME, "sums").admitted
    assert record.refused_at is None


def test_doubts_are_no_claims() -> None:
    """Verdicts below three quarters neither admit nor refuse, whatever their number."""
    for place in (0, 1):
        record = _add(Record("m"), (6, 6), times=50, place=place)
        assert not record.admitted
        assert record.test == Sprt()
        assert _on(record, "sums")[place][0] > 100, "they count as evidence all the same"
    assert _add(Record("m"), (6, 6), times=20, place=DECIDED_BIN).admitted


def test_whoever_was_turned_away_is_tested_anew_after_a_week() -> None:
    record = _add(Record("m"), (0, 1), times=8)
    assert record.refused_at is None
    _add(record, (0, 1), at=5_000)
    assert (record.refused_at, record.admitted) == (5_000, False)
    _add(record, (6, 6), times=20, at=6_000)
    _add(record, (6, 6), at=5_000 + RETRY_S)
    assert record.refused_at == 5_000, "not a second sooner, and the date stays"
    assert record.test.decision == "refused"
    _add(record, (6, 6), at=5_001 + RETRY_S)
    assert record.refused_at is None
    assert record.test.questions == 1
    assert _add(record, (6, 6), times=10, at=5_001 + RETRY_S).admitted


# --- a fall -------------------------------------------------------------------------------------


def _admitted(**fields: Any) -> Record:
    return _add(Record("m"), (9, 10), times=40, **fields)


def test_a_fall_begins_the_record_anew() -> None:
    record = _admitted()
    assert record.admitted
    at = 2_000
    while record.admitted:
        at += 1
        assert at < 2_020, "found within twenty questions"
        _add(record, (4, 10), at=at)
    assert record.fell_at == at
    assert record.drift == Cusum()
    assert record.model == "m"
    assert record.hidden == 10, "only the trial that gave it away"
    assert _on(record, "sums")[4] == (4, 10), "which is the first of what is now known"
    assert record.test.questions == 1
    assert record.duels["sums"].rounds == 1
    assert record.trials == 40 + at - 2_000
    assert record.standing(ME, "sums").divisor > 1.6 * MICRO


def test_one_that_has_fallen_can_be_admitted_again() -> None:
    record = _admitted()
    while record.admitted:
        _add(record, (2, 10), at=2_000)
    assert _add(record, (10, 10), times=20, at=3_000).admitted
    assert record.fell_at == 2_000, "and it is remembered"


def test_a_fall_on_one_topic_forgets_them_all() -> None:
    """Whatever it was, it is that no more."""
    record = _add(_admitted(), (9, 10), times=20, topic="dates")
    while record.admitted:
        _add(record, (3, 10))
    assert set(record.topics) == set(record.duels) == {"sums"}


def test_a_slow_fall_is_measured_from_where_it_began() -> None:
    """From nine of ten to seven of ten: not hidden by a mean that follows it."""
    record, fell = _admitted(), 0
    for step in range(120):
        _add(record, (7, 10), at=2_000 + step)
        if record.fell_at is not None:
            fell = step
            break
    assert 0 < fell < 60


def test_a_specialist_is_not_taken_for_one_that_fell() -> None:
    """Sure and at chance off its topic, from the first: no fall, only another topic."""
    record = _admitted()
    for at in range(40):
        for topic in ("dates", "words", "grids"):
            _add(record, (5, 10), topic=topic, at=at)
        _add(record, (9, 10), at=at)
    assert record.fell_at is None
    assert record.admitted


def test_before_admission_nothing_can_fall() -> None:
    record = _add(Record("m"), (0, 10), times=30)
    assert record.fell_at is None
    assert record.drift == Cusum()


# --- what may have been recognised --------------------------------------------------------------


def test_a_burst_counts_for_half_until_enough_was_hidden() -> None:
    record = _add(Record("m"), (6, 6), times=20, kind="admission")
    assert record.recognisable == RECOGNISABLE == 2.0
    assert record.standing(ME, "sums").divisor == 2 * MICRO
    _add(record, (6, 6), kind="hidden")
    _add(record, (3, 6), (0, 3), kind="graded", place=0)
    assert record.hidden == 6, "abstaining costs nothing, and shows nothing"
    assert record.recognisable == pytest.approx(1.8)
    assert record.standing(ME, "").divisor == round(1.8 * MICRO)
    _add(record, (6, 6), times=10)
    assert HIDDEN_PAIRS == 30
    assert record.recognisable == 1.0
    assert record.standing(ME, "sums").divisor == MICRO


# --- what verifiers say -------------------------------------------------------------------------


def _told(right: int, total: int, rounds: int, place: int = 4, topic: str = "sums") -> Told:
    """One verifier's word on one topic."""
    counts, zeros = Counts(), [0] * 5
    judge_right, judge_total = list(zeros), list(zeros)
    judge_right[place], judge_total[place] = right * MICRO, total * MICRO
    counts.join(
        Sum(topic, rounds, five_counts(judge_right), five_counts(judge_total),
            3 * MICRO, 4 * MICRO)
    )  # fmt: skip
    return Told({topic: counts}, (signer("verifier").peer,))


def five_counts(values: list[int]) -> tuple[int, int, int, int, int]:
    first, second, third, fourth, fifth = values
    return first, second, third, fourth, fifth


def test_what_verifiers_say_is_added_to_what_is_known() -> None:
    record = _add(Record("m"), (5, 6), place=3)
    found = record.standing(ME, "", _told(30, 40, 10))
    assert [(one.right / MICRO, one.total / MICRO) for one in found.judge[3:]] == [(5, 6), (30, 40)]
    assert (found.answer.right, found.answer.total) == (4 * MICRO, 5 * MICRO)
    assert found.divisor == MICRO, "no burst of this node's made these"
    assert found.source == f"asker, {peer_text(signer('verifier').peer)}"
    assert _on(record, "")[4] == (0, 0), "and the record is as it was"
    other = record.standing(ME, "dates", _told(30, 40, 10))
    assert other.judge[4] == Tally(round(7.5 * MICRO), 10 * MICRO), "borrowed like one's own"


def test_verifiers_admit_by_the_same_test() -> None:
    stranger = Record("m")
    assert stranger.standing(ME, "sums", _told(60, 70, 12)).admitted
    assert not stranger.standing(ME, "sums", _told(4, 4, 1)).admitted, "too little"
    assert not stranger.standing(ME, "sums", _told(35, 70, 12)).admitted, "chance"
    assert not stranger.standing(ME, "sums", _told(60, 70, 12, place=1)).admitted, "only doubts"
    assert not stranger.standing(ME, "sums", _told(0, 0, 0)).admitted
    assert _admitted().standing(ME, "sums", _told(0, 70, 12)).admitted, "none overrules one's own"


def test_more_than_a_receipt_can_hold_keeps_its_share() -> None:
    """A verifier that is trusted and absurd does not spoil the receipt."""
    counts, most = Counts(), 2**48
    for _ in range(3):
        counts.join(
            Sum("sums", 1, five_counts([most // 4] * 5), five_counts([most] * 5),
                most // 2, most)
        )  # fmt: skip
    for topic in ("sums", "", "dates"):
        found = Record("m").standing(ME, topic, Told({"sums": counts}, ()))
        assert decode(encode(found), Standing) == found
        assert found.answer.right / found.answer.total == pytest.approx(0.5)
        assert all(one.right / one.total == pytest.approx(0.25) for one in found.judge)


def test_counts_are_summed_part_by_part() -> None:
    one, other = Counts(), Counts()
    one.add(mark("me", (1, 2), (3, 4), place=3))
    other.add(mark("me", (5, 6), place=0, right=False))
    whole = Counts.summed(one, None, other)
    assert whole.judge == [[5, 6], [0, 0], [0, 0], [1, 2], [3, 4]]
    assert whole.answer == [1, 2]
    assert whole.decided == [4, 6]
    assert whole.rounds == 2
    assert Counts.summed(None).rounds == 0
    assert one.judge[0] == [0, 0], "and the parts are as they were"


# --- speed and duels ----------------------------------------------------------------------------


def test_speed_is_a_blended_mean() -> None:
    record = _add(Record("m"), (0, 0), latency_ms=1_000, answer_bytes=40)
    assert (record.latency_ms, record.answer_bytes) == (1_000, 40)
    _add(record, (0, 0), latency_ms=2_000, answer_bytes=140, at=7_000)
    assert (record.latency_ms, record.answer_bytes) == pytest.approx((1_100, 50))
    assert (record.trials, record.last_at) == (2, 7_000)


def test_duels_by_hand() -> None:
    duels = Duels().after(True, False).after(False, True).after(True, True).after(False, False)
    assert duels.ahead == pytest.approx(FADING**3)
    assert duels.behind == pytest.approx(FADING**2)
    assert duels.rounds == pytest.approx(1 + FADING + FADING**2 + FADING**3)


def test_a_swarm_without_an_answer_was_not_right() -> None:
    record = Record("m")
    for chosen, right in ((None, True), (True, True), (False, False), (True, False)):
        one = mark("me", right=right)
        record.add(trial(one, topic="sums", chosen=chosen), one)
    duels = record.duels["sums"]
    assert duels.ahead == pytest.approx(FADING**3)
    assert duels.behind == pytest.approx(1.0)
    assert set(record.duels) == {"sums"}
