"""What a node makes of all that it has graded: a fold, the rules that follow, and who gains."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol.codec import decode, encode
from protocol.ids import PeerId
from protocol.messages import MICRO, Row
from protocol.receipt import Rule, Standing, Tally
from swarm.confidence import FEWEST, LATEST
from swarm.consensus import (
    DEFAULT_WEIGHTED,
    EQUAL,
    UNCALIBRATED,
    Case,
    Features,
    Vote,
    decide,
    features,
    rule_in_force,
)
from swarm.evidence import SOLO_FEWEST, TOPIC_ROUNDS, Book, Solo
from swarm.record import BORROWED, FADING, Counts, Told
from swarm.reputation import NEUTRAL, answer_bound, unknown, weigh
from swarm.trial import Judged, Trial, judged
from tests.swarm.builders import changed
from tests.swarm.trials import Row as FeatureRow
from tests.swarm.trials import mark, peer, trial, tried
from tests.swarm.virtual import Peer, Verdicts, VirtualSwarm, knows

NAMES = tuple(f"p{at}" for at in range(5))
PROVEN = tuple(f"proven {at}" for at in range(9))


def _ids(names: Sequence[str]) -> list[PeerId]:
    return [peer(name) for name in names]


def _known(*names: str, trials: int = 12, topic: str = "sums", book: Book | None = None) -> Book:
    """A book in which these peers are good judges and answerers on a topic."""
    found = book or Book()
    for at in range(trials):
        found.add(tried(dict.fromkeys(names, (6, 6)), topic=topic, at=1_000 + at))
    return found


def _in_force(book: Book, topic: str, names: Sequence[str]) -> Rule:
    rule, seats = book.rule(topic, _ids(names))
    assert [one.peer for one in seats] == _ids(names)
    return rule_in_force(rule, seats)


def _weights(book: Book, topic: str, names: Sequence[str]) -> dict[str, float]:
    """The largest judge weight of each peer under the rule in force."""
    rule, seats = book.rule(topic, _ids(names))
    found = weigh(rule_in_force(rule, seats).name, seats)
    return {name: max(one.judge) / MICRO for name, one in zip(names, found, strict=True)}


# --- which rule -----------------------------------------------------------------------------------


def test_of_an_empty_book_all_are_strangers() -> None:
    book = Book()
    assert book.rule("sums", _ids(NAMES)) == (EQUAL, tuple(map(unknown, _ids(NAMES))))
    assert _in_force(book, "sums", NAMES) == UNCALIBRATED
    assert _in_force(book, "", NAMES) == UNCALIBRATED
    assert book.views(_case(), _ids(NAMES), "sums") == ((), ())
    assert book.skill(_ids(NAMES)[0], "sums")[0] == answer_bound(0, 0)
    assert (book.trials, book.learnt, dict(book.topics), dict(book.records)) == (0, 0, {}, {})


def test_from_uncalibrated_over_equal_to_weighted() -> None:
    """Four admitted of five decide: alike where the topic is unknown, else by their weights."""
    three = _known(*NAMES[:3])
    assert _in_force(three, "sums", NAMES) == UNCALIBRATED
    assert _in_force(three, "", NAMES) == UNCALIBRATED
    four = _known(*NAMES[:4])
    assert _in_force(four, "sums", NAMES).name == "weighted"
    assert _in_force(four, "dates", NAMES) == EQUAL, "a topic never tried"
    assert _in_force(four, "", NAMES) == EQUAL
    assert _in_force(four, "sums", NAMES[:1]).name == "weighted", "one of one"
    assert _in_force(three, "sums", NAMES[:3]).name == "weighted", "all of three"
    assert _in_force(three, "sums", [*NAMES[:2], "stranger"]) == UNCALIBRATED


def test_a_topic_takes_a_few_trials_before_its_counts_decide() -> None:
    assert TOPIC_ROUNDS == 3.0
    book = _known(*NAMES)
    for rounds in range(4):
        assert _in_force(book, "dates", NAMES) == EQUAL, f"{rounds} trials"
        book.add(tried(dict.fromkeys(NAMES, (6, 6)), topic="dates"))
    assert book.topics["dates"] == pytest.approx(1 + FADING + FADING**2 + FADING**3)
    assert _in_force(book, "dates", NAMES).name == "weighted"


def test_where_none_of_the_proven_takes_part_nobodys_counts_decide() -> None:
    book = _known(*NAMES)
    assert book.rule("sums", _ids(["a", "b"]))[0] == EQUAL, "as planned"
    assert _in_force(book, "sums", ["a", "b"]) == UNCALIBRATED, "as it comes to"


# --- confidence -------------------------------------------------------------------------------


def _examples(count: int, book: Book, topic: str, *, right: int | None = 0) -> None:
    rows: list[FeatureRow] = [(2_000_000, 1_500_000, 2_000_000), (500_000, -1_500_000, -2_000_000)]
    for at in range(count):
        one = trial(*(mark(name, (6, 6)) for name in NAMES), topic=topic, right=right,
                    weighted=rows, equal=rows, at=at)  # fmt: skip
        book.add(one)


def test_the_weighted_rule_learns_where_the_topic_is_known() -> None:
    book = Book()
    _examples(FEWEST - 1, book, "sums")
    assert book.learnt == FEWEST - 1
    assert book.rule("sums", _ids(NAMES))[0] == changed(
        DEFAULT_WEIGHTED, calibration_rounds=FEWEST - 1
    )
    _examples(30, book, "sums")
    fitted = book.rule("sums", _ids(NAMES))[0]
    assert fitted.calibration_rounds == FEWEST - 1 + 30
    assert fitted.theta[1] > DEFAULT_WEIGHTED.theta[1]
    assert book.rule("dates", _ids(NAMES))[0] == EQUAL, "and the equal rule has learnt nothing"
    assert book.rule("", _ids(NAMES))[0] == EQUAL
    _examples(LATEST, book, "sums")
    assert book.rule("sums", _ids(NAMES))[0].calibration_rounds == LATEST


def test_the_equal_rule_learns_where_no_topic_is_known() -> None:
    """Its confidence holds there, and not on a topic that has only been tried too little."""
    book = Book()
    _examples(40, book, "")
    fitted = book.rule("", _ids(NAMES))[0]
    assert (fitted.name, fitted.calibration_rounds) == ("equal", 40)
    assert fitted.theta[1] > EQUAL.theta[1]
    assert (fitted.theta[0], fitted.theta[2]) == (0, 0)
    assert book.rule("sums", _ids(NAMES))[0] == EQUAL
    assert book.learnt == 0


def test_what_is_learnt_follows_what_happens() -> None:
    """The fit is made anew after each trial, not once for all."""
    book = Book()
    _examples(20, book, "sums")
    before = book.rule("sums", _ids(NAMES))[0]
    assert book.rule("sums", _ids(NAMES))[0] == before
    _examples(20, book, "sums", right=None)
    after = book.rule("sums", _ids(NAMES))[0]
    assert after.none[0] > before.none[0]


def test_rounds_without_features_teach_nothing() -> None:
    book = _known(*NAMES, trials=40)
    assert book.learnt == 0
    assert book.rule("sums", _ids(NAMES))[0] == DEFAULT_WEIGHTED


# --- real rounds ----------------------------------------------------------------------------------


def _play(
    book: Book, judges: dict[str, tuple[str, Verdicts]], *, topic: str = "sums", at: int = 0
) -> Judged:
    """One round of peers (answer, judge) under the rule that the book plans."""
    peers = [Peer(name, answer, judge) for name, (answer, judge) in judges.items()]
    ids = sorted(one.id for one in peers)
    rule, seats = book.rule(topic, ids)
    named = {one.id: one.name for one in peers}
    swarm = VirtualSwarm(
        peers,
        rule=rule,
        standings={named[one.peer]: one for one in seats},
        seed=b"round %d" % at,
    ).run()
    return judged(swarm.receipt)


def _graded(
    book: Book, judges: dict[str, tuple[str, Verdicts]], *, topic: str = "sums", at: int = 0
) -> Trial:
    """The same, graded by the truth that 42 is right, and added."""
    round_ = _play(book, judges, topic=topic, at=at)
    right = [text == "42" for text in round_.opened.answers]
    one = book.examine(round_, right, topic, "hidden", at)
    book.add(one)
    return one


GOOD = ("42", knows("42", 0.95))
CLUELESS = ("41", knows("41", 0.95))


def _swarm(**others: tuple[str, Verdicts]) -> dict[str, tuple[str, Verdicts]]:
    return {f"good {at}": GOOD for at in range(5)} | {"lost": CLUELESS} | others


def test_a_trial_from_a_real_round_can_be_written() -> None:
    book = Book()
    for at in range(20):
        one = _graded(book, _swarm(), at=at)
        assert decode(encode(one), Trial) == one
        assert (one.topic, one.kind, one.at, one.answerers) == ("sums", "hidden", at, 6)
        assert one.chosen is True
        assert one.equal == () or at > 0
    assert len(one.weighted) == len(one.equal) == 2, "by now under both rules"
    assert book.trials == 20
    assert _in_force(book, "sums", [f"good {at}" for at in range(5)]).name == "weighted"


def test_examining_adds_nothing() -> None:
    book = Book()
    round_ = _play(book, _swarm())
    right = [text == "42" for text in round_.opened.answers]
    one, other = (book.examine(round_, right, "sums", "graded", 7, "task") for _ in range(2))
    assert one == other
    assert one.task == "task"
    assert (book.trials, dict(book.records)) == (0, {})


def test_of_several_right_classes_it_is_the_chosen_one() -> None:
    """Two spellings that are both right: what the confidence says is that the winner is."""
    book = Book()
    round_ = _play(book, _swarm())
    assert round_.chosen is not None
    both = book.examine(round_, [True, True], "sums", "hidden", 0)
    assert (both.right, both.chosen) == (round_.chosen, True)
    other = [index != round_.chosen for index in range(2)]
    wrong = book.examine(round_, other, "sums", "hidden", 0)
    assert (wrong.right, wrong.chosen) == (1 - round_.chosen, False)
    none = book.examine(round_, [False, False], "sums", "hidden", 0)
    assert (none.right, none.chosen) == (None, False)


def test_where_a_truth_is_open_the_round_is_no_example() -> None:
    """Graded wrong it could not be one; graded right it would teach that all is. Of a calibration
    task the right class is known, and whoever only holds its answer among others is wrong."""
    book = Book()
    for at in range(16):
        _graded(book, _swarm(), at=at)
    round_ = _play(book, _swarm())
    whole = book.examine(round_, [True, False], "sums", "graded", 0)
    assert len(whole.weighted) == len(whole.equal) == 2
    open_ = [True if index == round_.chosen else None for index in range(2)]
    one = book.examine(round_, open_, "sums", "graded", 0)
    assert (one.weighted, one.equal) == ((), ())
    assert (one.chosen, one.right) == (True, round_.chosen)
    assert len(one.marks) == 6
    assert sum(mark.right for mark in one.marks) == 5
    assert len(book.examine(round_, open_, "sums", "hidden", 0).weighted) == 2
    assert book.examine(round_, [False, None], "sums", "graded", 0).weighted == ()
    unknown_ = book.examine(round_, [None, None], "sums", "graded", 0)
    assert (unknown_.chosen, unknown_.right, unknown_.marks) == (None, None, ())


def test_views_are_the_features_of_the_rules() -> None:
    book = Book()
    for at in range(20):
        _graded(book, _swarm(), at=at)
    round_ = _play(book, _swarm())
    peers = round_.opened.peers
    weighted, equal = book.views(round_.case, peers, "sums")
    for found, rule, topic in ((weighted, DEFAULT_WEIGHTED, "sums"), (equal, EQUAL, "")):
        weights = weigh(rule.name, book.standings(peers, topic))
        case = Case(rule, round_.case.classes, weights, round_.case.votes, round_.case.both_orders)
        assert found == features(case)
        assert all(isinstance(one, Features) for one in found)
    one = book.examine(round_, [True, False], "sums", "hidden", 0)
    for found, packed in ((weighted, one.weighted), (equal, one.equal)):
        for it, row in zip(found, packed, strict=True):
            in_micro = (it.votes * MICRO, it.strength * MICRO, it.evidence * MICRO)
            assert row == pytest.approx(in_micro, abs=0.51)
    assert book.views(round_.case, peers, "")[0] == features(
        Case(DEFAULT_WEIGHTED, round_.case.classes, weigh("weighted", book.standings(peers, "")),
             round_.case.votes, round_.case.both_orders)
    )  # fmt: skip


def _case() -> Case:
    return Case(UNCALIBRATED, ((0, 1, 2), (3, 4)), (NEUTRAL,) * 5, (), True)


# --- who gains ------------------------------------------------------------------------------------


def test_a_liar_that_claims_certainty_loses_its_weight() -> None:
    """Certain of whatever is wrong; its doubts are kept apart and stay what they are worth."""
    liar = {"liar": ("41", knows("41", 0.999))}
    book = Book()
    for at in range(18):
        _graded(book, _swarm(**liar), at=at)
    weights = _weights(book, "sums", [f"good {at}" for at in range(5)] + ["liar", "lost"])
    assert weights["liar"] == weights["lost"] == 0.0
    assert min(weights[f"good {at}"] for at in range(5)) > 0.9
    (standing,) = book.standings(_ids(["liar"]), "sums")
    assert weigh("equal", [changed(standing, admitted=True)])[0].trust[4] < 50_000
    assert not standing.admitted


def test_one_that_turns_liar_after_its_admission_falls() -> None:
    book = Book()
    for at in range(16):
        _graded(book, _swarm(traitor=GOOD), at=at)
    names = [f"good {at}" for at in range(5)] + ["traitor"]
    assert _weights(book, "sums", names)["traitor"] > 0.9
    turned = 0
    for at in range(20, 40):
        _graded(book, _swarm(traitor=("41", knows("41", 0.999))), at=at)
        turned += _weights(book, "sums", names)["traitor"] > 0.3
    record = book.records[peer("traitor")]
    assert record.fell_at is not None
    assert turned <= 8, "questions of one or two pairs until it is out"
    assert _weights(book, "sums", names)["traitor"] == 0.0


def test_a_specialist_gains_on_its_topic_and_there_alone() -> None:
    book = Book()
    names = [*NAMES, "specialist"]
    for at in range(40):
        mixed = dict.fromkeys(NAMES, (4, 6)) | {"specialist": (6, 6)}
        book.add(tried(mixed, topic="dates", at=at))
        fair = [mark(name, (5, 6)) for name in NAMES]
        unsure = mark("specialist", (3, 6), place=0, right=False)
        book.add(trial(*fair, unsure, topic="sums", at=at))
    dates, sums = (_weights(book, topic, names) for topic in ("dates", "sums"))
    assert dates["specialist"] > 2 * max(dates[name] for name in NAMES)
    assert sums["specialist"] < 0.8 * min(sums[name] for name in NAMES)
    assert book.records[peer("specialist")].admitted, "whose doubts elsewhere do not count"


def test_colluders_that_are_wrong_in_calibration_get_nothing() -> None:
    """Half the swarm agrees with itself; only what is true counts."""
    book = Book()
    ring = {f"ring {at}": ("41", knows("41", 0.99)) for at in range(4)}
    for at in range(16):
        _graded(book, {f"good {at}": GOOD for at in range(4)} | ring, at=at)
    names = [f"good {at}" for at in range(4)] + list(ring)
    weights = _weights(book, "sums", names)
    assert all(weights[name] == 0.0 for name in ring)
    assert all(weights[f"good {at}"] > 0.9 for at in range(4))


def test_seventy_two_newcomers_against_nine_proven_change_nothing() -> None:
    """Whatever the proven say, all the strangers against it leave the winner as it is."""
    book = _known(*PROVEN, trials=30)
    strangers = [f"sybil {at}" for at in range(72)]
    names = [*PROVEN, *strangers]
    for topic, name in (("sums", "weighted"), ("", "equal")):
        rule, seats = book.rule(topic, _ids(names))
        assert rule_in_force(rule, seats).name == name
        for split in (5, 6, 7, 8, 9):
            classes = (tuple(range(split)), tuple(range(split, 9)), tuple(range(9, 81)))
            votes = [
                Vote(seat, Row(0, 1, 950_000 if seat < split else 200_000)) for seat in range(9)
            ]
            votes += [Vote(seat, Row(2, 0, 50_000)) for seat in range(9)]
            alone = decide(Case(rule, classes[:2], weigh(name, seats[:9]), tuple(votes[:9]), True))
            votes += [Vote(seat, Row(2, other, MICRO)) for seat in range(9, 81) for other in (0, 1)]
            beset = decide(Case(rule, classes, weigh(name, seats), tuple(votes), True))
            assert alone.winner == beset.winner == 0
            assert beset.plurality == 2


def test_newcomers_with_the_model_of_the_proven_do_not_weigh_against_it() -> None:
    """Strangers may run the same weights as a proven peer, and be wrong where it is."""
    book, copies = Book(), [f"copy {at}" for at in range(4)]
    for at in range(60):
        wrong = [mark(name, (6, 6), wrong=f"{name} {at}") for name in NAMES]
        same = [mark(name, (3, 6), wrong=f"p0 {at}") for name in copies]
        book.add(trial(*wrong, *same, topic="sums", at=at))
    kind, _ = book.kind(peer("p0"))
    assert set(kind) == set(_ids(["p0", *copies])), "they are alike"
    seats = book.standings(_ids([*NAMES, *copies]), "sums")
    assert [one.admitted for one in seats] == [True] * 5 + [False] * 4
    assert seats[0].divisor == MICRO, "and yet none of its weight is shared"
    assert all(one.divisor > 3 * MICRO for one in seats[5:])


def test_the_proven_that_are_alike_share_weight() -> None:
    book, twins = Book(), ["twin 0", "twin 1", "twin 2"]
    for at in range(60):
        wrong = [mark(name, (6, 6), wrong=f"{name} {at}") for name in NAMES]
        same = [mark(name, (6, 6), wrong=f"twins {at}") for name in twins]
        book.add(trial(*wrong, *same, topic="sums", at=at))
    names = [*NAMES, *twins]
    _, excess = book.kind(peer("twin 0"))
    for topic in ("sums", ""):
        seats = book.standings(_ids(names), topic)
        assert [one.divisor for one in seats[:5]] == [MICRO] * 5
        assert {one.divisor for one in seats[5:]} == {round(MICRO * (1 + 2 * excess))}
    (alone,) = book.standings(_ids(["twin 0"]), "sums")
    assert alone.divisor == MICRO


def test_one_topic_lends_another_ten_pairs_at_most() -> None:
    book = _known(*NAMES, trials=200)
    (standing,) = book.standings(_ids(["p0"]), "grids")
    assert standing.judge[4] == Tally(round(BORROWED * MICRO), round(BORROWED * MICRO))
    assert standing.answer.total == round(BORROWED * MICRO)
    assert all(one.total == 0 for one in standing.judge[:4])


def test_a_change_of_model_begins_anew() -> None:
    book = _known(*NAMES)
    assert book.records[_ids(["p0"])[0]].admitted
    book.add(trial(mark("p0", (6, 6), model="other"), mark("p1", (6, 6))))
    record = book.records[_ids(["p0"])[0]]
    assert (record.model, record.trials, record.admitted) == ("other", 1, False)
    assert book.records[_ids(["p1"])[0]].admitted


# --- one against all ------------------------------------------------------------------------------


def _duel(book: Book, right: bool, chosen: bool | None, times: int = 1) -> None:
    for _ in range(times):
        rest = [mark(name, (6, 6)) for name in NAMES]
        book.add(trial(mark("best", (6, 6), right=right), *rest, chosen=chosen))


def test_a_member_that_beats_the_swarm_beyond_doubt_is_named() -> None:
    book = Book()
    _duel(book, right=True, chosen=True, times=40)
    assert book.solo("sums", _ids(["best"])) is None, "as good is not better"
    _duel(book, right=True, chosen=False, times=6)
    assert book.solo("sums", _ids(["best"])) is None, "six ahead may be chance"
    _duel(book, right=True, chosen=None, times=3)
    found = book.solo("sums", _ids(["best", "stranger"]))
    assert isinstance(found, Solo)
    assert (found.peer, found.topic) == (peer("best"), "sums")
    assert found.duels.ahead > 6.25
    assert book.solo("sums", _ids(["stranger"])) is None
    assert book.solo("dates", _ids(["best"])) is None, "on this topic only"
    assert book.solo("", _ids(["best"])) is None, "and on none that is unknown"
    _duel(book, right=False, chosen=True, times=3)
    assert book.solo("sums", _ids(["best"])) is None, "no longer beyond doubt"


def test_of_two_that_beat_the_swarm_the_further_ahead_is_named() -> None:
    book = Book()
    for at in range(60):
        rest = [mark(name, (6, 6), right=False) for name in NAMES]
        good = mark("good", (6, 6), right=at % 2 == 0)
        book.add(trial(mark("best", (6, 6), right=at % 8 != 0), good, *rest, chosen=None))
    for order in (["best", "good"], ["good", "best"]):
        found = book.solo("sums", _ids(order))
        assert found is not None
        assert found.peer == peer("best")
    alone = book.solo("sums", _ids(["good", *NAMES]))
    assert alone is not None
    assert alone.peer == peer("good")


def test_of_a_better_record_and_a_longer_one_neither_hides_a_duel_lost() -> None:
    """Ahead and behind count against each other, however many there are of both."""
    book = Book()
    for at in range(60):
        rest = [mark(name, (6, 6)) for name in NAMES]
        book.add(trial(mark("even", (6, 6), right=at % 2 == 0), *rest, chosen=at % 2 == 1))
    assert book.solo("sums", _ids(["even"])) is None


def test_skill_by_hand() -> None:
    book = _known("p0", trials=1)
    low, error = book.skill(peer("p0"), "sums")
    mean = 4.0 / 8.0
    assert error == pytest.approx((mean * (1 - mean) / 9.0) ** 0.5)
    assert low == pytest.approx(mean - error)


def test_what_beats_the_swarm_must_have_been_seen_often() -> None:
    book = Book()
    _duel(book, right=True, chosen=False, times=24)
    assert book.records[peer("best")].duels["sums"].rounds < SOLO_FEWEST
    assert book.solo("sums", _ids(["best"])) is None
    _duel(book, right=True, chosen=False, times=8)
    assert book.solo("sums", _ids(["best"])) is not None


def test_only_the_admitted_can_stand_alone() -> None:
    book = Book()
    for at in range(40):
        rest = [mark(name, (6, 6)) for name in NAMES]
        book.add(trial(mark("new", (1, 1), place=0), *rest, chosen=False, at=at))
    assert not book.records[peer("new")].admitted
    assert book.solo("sums", _ids(["new"])) is None
    best = book.solo("sums", _ids([*NAMES, "new"]))
    assert best is not None
    assert best.peer == max(_ids(NAMES)), "of equals the larger key"


# --- bounds ---------------------------------------------------------------------------------------


def test_a_flood_of_keys_does_not_drive_out_the_admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PEERS_TRIED", 12)
    book = _known(*NAMES)
    for at in range(60):
        flood = {f"new {at} {number}": (1, 2) for number in range(3)}
        book.add(tried(flood, place=0, at=2_000 + at))
        assert len(book.records) <= 12
    assert set(_ids(NAMES)) <= set(book.records)
    assert all(book.records[one].admitted for one in _ids(NAMES))
    left = set(book.records) - set(_ids(NAMES))
    latest = {peer(f"new {at} {number}") for at in (57, 58, 59) for number in range(3)}
    assert left <= latest, "of the newcomers the latest stay"


def test_where_all_are_admitted_the_longest_unseen_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PEERS_TRIED", 4)
    book = _known("old")
    for at, name in enumerate(("a", "b", "c"), 2):
        for _ in range(12):
            book.add(tried({name: (6, 6)}, at=at * 1_000))
    assert peer("old") in book.records
    book.add(tried({"d": (6, 6)}, at=9_000))
    assert peer("d") not in book.records, "newcomers go first, be they new"
    for name in ("a", "b", "c"):
        assert peer(name) in book.records


def test_whoever_is_forgotten_is_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PEERS_TRIED", 2)
    book = Book()
    for at in range(20):
        book.add(trial(mark("a", (1, 2), wrong=f"{at}"), mark("b", (1, 2), wrong=f"{at}"), at=at))
    assert len(book.kind(peer("a"))[0]) == 2
    book.add(trial(mark("c", (1, 2)), at=99))
    gone = ({"a", "b"} - {name for name in "ab" if peer(name) in book.records}).pop()
    assert book.standings(_ids([gone]), "sums") == (unknown(peer(gone)),)
    assert book.kind(peer(gone)) == ((peer(gone),), 0.0)


def test_records_cannot_be_changed_from_outside() -> None:
    book = _known(*NAMES)
    with pytest.raises(TypeError):
        book.records[bytes(32)] = None  # type: ignore[index]
    with pytest.raises(TypeError):
        book.topics["sums"] = 0.0  # type: ignore[index]


# --- what verifiers say ---------------------------------------------------------------------------


def test_a_peer_that_verifiers_know_is_no_stranger() -> None:
    counts = Counts()
    for _ in range(15):
        counts.add(mark("known", (6, 6)))
    word = Told({"sums": counts}, (peer("verifier"),))
    asked: list[tuple[PeerId, str]] = []

    def told(one: PeerId, model: str) -> Told | None:
        asked.append((one, model))
        return word if one == peer("known") else None

    book = Book([tried({"p0": (6, 6)})], told)
    known, mine, new = book.standings(_ids(["known", "p0", "new"]), "sums")
    assert known.admitted
    assert known.judge[4].total == pytest.approx(6 * sum(FADING**at for at in range(15)) * MICRO)
    assert known.divisor == MICRO
    assert "12D3" in known.source
    assert new == unknown(peer("new"))
    assert mine.source == "asker"
    assert book.admitted(peer("known"))
    assert not book.admitted(peer("p0"))
    assert not book.admitted(peer("new"))
    assert set(asked) == set(zip(_ids(["known", "p0", "new"]), ("", "model", ""), strict=True))


# --- laws -----------------------------------------------------------------------------------------

TRIALS = st.builds(
    lambda peers, topic, kind, chosen, place, at: trial(
        *(
            mark(name, (min(pair), max(pair)), place=place, wrong=wrong, model=model)
            for name, (pair, wrong, model) in peers.items()
        ),
        topic=topic,
        kind=kind,
        chosen=chosen,
        at=at,
    ),
    st.dictionaries(
        st.sampled_from(NAMES),
        st.tuples(
            st.tuples(st.integers(0, 9), st.integers(0, 9)),
            st.sampled_from(["", "", "x", "y"]),
            st.sampled_from(["model", "model", "model", "other"]),
        ),
        min_size=1,
    ),
    st.sampled_from(["sums", "dates", ""]),
    st.sampled_from(["admission", "hidden", "graded"]),
    st.sampled_from([True, False, None]),
    st.integers(0, 4),
    st.integers(0, 10**7),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(TRIALS, max_size=10), st.sampled_from([1, 5]))
def test_the_same_trials_give_the_same_book(trials: list[Trial], times: int) -> None:
    """However they are fed, and whether written down in between."""
    history = trials * times
    one, other = Book(history), Book()
    for each in history:
        other.add(decode(encode(each), Trial))
    for topic in ("sums", "dates", "grids", ""):
        rule, seats = one.rule(topic, _ids(NAMES))
        assert (rule, seats) == other.rule(topic, _ids(NAMES))
        for seat in seats:
            assert decode(encode(seat), Standing) == seat
        assert one.solo(topic, _ids(NAMES)) == other.solo(topic, _ids(NAMES))
        for name in NAMES:
            low, error = one.skill(peer(name), topic)
            assert 0.02 <= low <= 0.98
            assert 0.0 < error < 0.2
    assert one.topics == other.topics
    assert one.records.keys() == other.records.keys()
    for each_peer, record in one.records.items():
        twin = other.records[each_peer]
        for name in ("model", "test", "drift", "hidden", "last_at", "refused_at", "fell_at",
                     "latency_ms", "duels"):  # fmt: skip
            assert getattr(record, name) == getattr(twin, name)


@settings(max_examples=30, deadline=None)
@given(st.lists(TRIALS, max_size=8), st.permutations(NAMES))
def test_the_order_of_peers_is_nothing(trials: list[Trial], order: list[str]) -> None:
    book = Book(trials * 4)
    by_peer = {one.peer: one for one in book.standings(_ids(NAMES), "sums")}
    for one in book.standings(_ids(order), "sums"):
        assert one == by_peer[one.peer]
