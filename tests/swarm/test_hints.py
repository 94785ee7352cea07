"""What others say: sums of a day, what is refused of them, whose word counts and for how long."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol.codec import decode, encode
from protocol.errors import DecodeError, RefusedError
from protocol.ids import PeerId, peer_text
from protocol.messages import MICRO, FiveCounts, Hints, Sum
from protocol.receipt import Standing
from swarm.evidence import Book
from swarm.hints import DAY_S, Hearsay, check, daily
from swarm.record import NAMED
from swarm.reputation import answer_bound
from swarm.trial import Mark, Trial
from tests.protocol.arbitrary import arbitrary
from tests.swarm.trials import mark, tried
from tests.swarm.trials import trial as made
from tests.swarm.virtual import signer

DAY = 19_000
NOON = DAY * DAY_S + DAY_S // 2
NONE: FiveCounts = (0, 0, 0, 0, 0)


def peer(name: str) -> PeerId:
    return signer(name).peer


def trial(*marks: Mark, **fields: Any) -> Trial:
    return made(*marks, **({"at": NOON, "topic": "add"} | fields))


def word(
    subject: str,
    right: float = 9.0,
    total: float = 10.0,
    *,
    topic: str = "add",
    model: str = "model",
    rounds: int = 10,
) -> Sum:
    """So many pairs judged and answers given rightly, all of them stated with certainty."""
    share = (round(right * MICRO), round(total * MICRO))
    judged = tuple((*NONE[:4], 6 * one) for one in share)
    return Sum(peer(subject), model, topic, rounds, *judged, *share)  # type: ignore[arg-type]


def hints(*sums: Sum, day: int = DAY, expires: int | None = None) -> Hints:
    end = (day + 1 + limits.HINT_DAYS) * DAY_S if expires is None else expires
    ordered = sorted(sums, key=lambda one: (one.peer, one.model, one.topic))
    return Hints(day, end, tuple(ordered))


# --- the sums of a day ----------------------------------------------------------------------------


def test_a_day_is_summed_by_peer_model_and_topic() -> None:
    found = daily(
        [
            trial(mark("a", (3, 4), (1, 2), place=2), mark("b", (0, 1), wrong="x")),
            trial(mark("a", (2, 2), place=2)),
            trial(mark("a", (1, 1)), topic="date"),
            trial(mark("a", (1, 1), model="other")),
        ],
        DAY,
    )
    assert found.day == DAY
    assert found.expires == (DAY + 1 + limits.HINT_DAYS) * DAY_S
    by_name = {(one.peer, one.model, one.topic): one for one in found.sums}
    assert list(by_name) == sorted(by_name)
    assert len(by_name) == len(found.sums) == 4
    both = by_name[peer("a"), "model", "add"]
    assert both == Sum(
        peer("a"),
        "model",
        "add",
        2,
        (0, 0, 5 * MICRO, MICRO, 0),
        (0, 0, 6 * MICRO, 2 * MICRO, 0),
        2 * MICRO,
        2 * MICRO,
    )
    wrong = by_name[peer("b"), "model", "add"]
    assert (wrong.answer_right, wrong.answer_total, wrong.rounds) == (0, MICRO, 1)
    assert wrong.judge_total == (0, 0, 0, 0, MICRO)


@pytest.mark.parametrize(("at", "counts"), [(-1, False), (0, True), (DAY_S - 1, True),
                                            (DAY_S, False)])  # fmt: skip
def test_a_day_has_its_own_trials(at: int, counts: bool) -> None:
    found = daily([trial(mark("a"), at=DAY * DAY_S + at)], DAY)
    assert bool(found.sums) == counts


def test_a_day_without_trials_has_no_sums() -> None:
    assert daily([], DAY).sums == ()


def test_what_was_graded_stays_at_home() -> None:
    """It would tell everyone what this node is asked for real."""
    graded = trial(mark("a"), kind="graded")
    assert daily([graded], DAY).sums == ()
    assert daily([graded, trial(mark("a"), kind="hidden")], DAY).sums[0].rounds == 1


def test_an_operators_own_topics_are_not_named() -> None:
    found = daily([trial(mark("a"), topic="our customers"), trial(mark("a"), topic="")], DAY)
    (one,) = found.sums
    assert (one.topic, one.rounds) == ("", 2)


def test_a_claim_that_is_no_content_id_is_not_passed_on() -> None:
    long, longest = mark("a", model="\U0001f41d" * 65), mark("b", model="f" * 64)
    assert [one.peer for one in daily([trial(long, longest)], DAY).sums] == [peer("b")]


def test_of_too_many_sums_the_busiest_go_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HINT_SUMS", 2)
    seen = {"a": 1, "b": 3, "c": 2}
    trials = [trial(mark(name)) for name, times in seen.items() for _ in range(times)]
    found = daily(trials, DAY)
    assert {one.peer for one in found.sums} == {peer("b"), peer("c")}
    check(found)


TRIALS = st.builds(
    lambda names, topic, kind, at, wrong: trial(
        *(mark(name, (1, 2), wrong=wrong, model=model) for name, model in names.items()),
        topic=topic,
        kind=kind,
        at=at,
    ),
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["", "m", "é" * 64]), min_size=1),
    st.sampled_from(["", "add", "date", "private"]),
    st.sampled_from(["admission", "hidden", "graded"]),
    st.integers((DAY - 1) * DAY_S, (DAY + 2) * DAY_S),
    st.sampled_from(["", "x"]),
)


@settings(max_examples=60)
@given(st.lists(TRIALS, max_size=12))
def test_what_a_node_says_is_never_refused(trials: list[Trial]) -> None:
    said = daily(trials, DAY)
    check(decode(encode(said), Hints))
    assert all(one.rounds * MICRO == one.answer_total for one in said.sums)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (Hints(DAY, NOON, tuple(reversed(hints(word("a"), word("b")).sums))), "sorted"),
        (Hints(DAY, NOON, (word("a"), word("a", 1, 1))), "repeat"),
        (hints(word("a"), expires=(DAY + 1 + limits.HINT_DAYS) * DAY_S + 1), "too long"),
        (hints(word("a", right=10.5)), "more right than asked"),
        (hints(msgspec.structs.replace(word("a"), judge_right=(1, 0, 0, 0, 0))), "more right"),
    ],
    ids=["unsorted", "twice", "endless", "answers", "pairs"],
)
def test_what_no_honest_node_says_is_refused(bad: Hints, says: str) -> None:
    ears = Hearsay([peer("verifier")])
    with pytest.raises(RefusedError, match=says):
        ears.hear(peer("verifier"), bad, NOON)
    assert ears.told(peer("a"), "model", NOON) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"sums": (word("a"),) * (limits.HINT_SUMS + 1)},
        {"sums": (word("a", topic="x" * 65),)},
        {"sums": (word("a", model="x" * 65),)},
        {"day": -1},
        {"expires": 2**49},
        {"sums": (msgspec.structs.replace(word("a"), answer_total=-1),)},
        {"sums": (msgspec.structs.replace(word("a"), judge_total=(1, 2, 3, 4)),)},
        {"sums": (msgspec.structs.replace(word("a"), peer=bytes(31)),)},
    ],
    ids=["sums", "topic", "model", "day", "expires", "negative", "bins", "peer"],
)
def test_what_is_out_of_bounds_is_not_read(changes: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        decode(encode(msgspec.structs.replace(hints(), **changes)), Hints)


def consistent(one: Sum) -> Sum:
    """The nearest thing to ``one`` that nobody refuses."""
    right = tuple(map(min, one.judge_right, one.judge_total))
    return msgspec.structs.replace(
        one, judge_right=right, answer_right=min(one.answer_right, one.answer_total)
    )


@settings(max_examples=100)
@given(arbitrary(Hints), st.booleans())
def test_any_hints_are_taken_or_refused(drawn: Hints, mend: bool) -> None:
    said = hints(*map(consistent, drawn.sums)) if mend else drawn
    ears, believer = Hearsay(), Hearsay([peer("verifier")])
    try:
        for each in (ears, believer):
            each.hear(peer("verifier"), said, NOON)
    except RefusedError:
        return
    book = Book(told=lambda one, model: believer.told(one, model, NOON))
    for one in said.sums:
        (standing,) = book.standings([one.peer], one.topic)
        assert decode(encode(standing), Standing) == standing
        assert 0.0 <= ears.rumour(one.peer, NOON) <= 1.0


# --- for how long ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("ago", "counts"), [(limits.HINT_DAYS + 1, False),
                         (limits.HINT_DAYS, True), (0, True), (-1, True), (-2, False)])  # fmt: skip
def test_days_that_do_not_count_are_passed_over(ago: int, counts: bool) -> None:
    """Not refused: the clock of either side may be wrong."""
    ears = Hearsay([peer("verifier")])
    ears.hear(peer("verifier"), hints(word("a"), day=DAY - ago), NOON)
    assert (ears.told(peer("a"), "model", NOON) is not None) == counts


def test_hints_end_when_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    ears = Hearsay([peer("verifier")])
    ears.hear(peer("verifier"), hints(word("a"), expires=NOON + 10), NOON)
    ears.hear(peer("stranger"), hints(word("a"), expires=NOON + 10), NOON)
    assert ears.told(peer("a"), "model", NOON + 9) is not None
    assert ears.rumour(peer("a"), NOON + 9) > 0.0
    assert ears.told(peer("a"), "model", NOON + 10) is None
    assert ears.rumour(peer("a"), NOON + 10) == 0.0
    ears.hear(peer("verifier"), hints(word("b"), expires=NOON), NOON)
    assert ears.told(peer("b"), "model", NOON) is None
    assert ears.told(peer("a"), "model", NOON - 1) is None, "the latest word on that day"


def test_the_latest_word_on_a_day_counts() -> None:
    ears = Hearsay([peer("verifier")])
    for right in (9.0, 2.0):
        ears.hear(peer("verifier"), hints(word("a", right)), NOON)
    told = ears.told(peer("a"), "model", NOON)
    assert told is not None
    assert told.topics["add"].answer == [2.0, 10.0]


# --- whose word -----------------------------------------------------------------------------------


def test_verifiers_are_summed_over_days_topics_and_each_other() -> None:
    ears = Hearsay([peer("v"), peer("w")])
    ears.hear(peer("v"), hints(word("a", 3, 4), word("a", 1, 2, topic="date")), NOON)
    ears.hear(peer("v"), hints(word("a", 1, 1), day=DAY - 1), NOON)
    ears.hear(peer("w"), hints(word("a", 0, 5), word("b")), NOON)
    told = ears.told(peer("a"), "model", NOON)
    assert told is not None
    assert told.verifiers == tuple(sorted((peer("v"), peer("w"))))
    assert {name: counts.answer for name, counts in told.topics.items()} == {
        "add": [4.0, 10.0],
        "date": [1.0, 2.0],
    }
    assert told.topics["add"].judge[4] == [24.0, 60.0]


def test_the_word_is_of_one_model() -> None:
    ears = Hearsay([peer("v")])
    ears.hear(peer("v"), hints(word("a"), word("a", 0, 10, model="other")), NOON)
    told = ears.told(peer("a"), "other", NOON)
    assert told is not None
    assert told.topics["add"].answer == [0.0, 10.0]
    assert ears.told(peer("a"), "third", NOON) is None
    whole = ears.told(peer("a"), "", NOON)
    assert whole is not None
    assert whole.topics["add"].answer == [9.0, 20.0]


@pytest.mark.parametrize(("count", "more"), [(1, ""), (NAMED, ""), (NAMED + 1, ", 1 more"),
                                             (limits.VERIFIERS, ", 60 more")])  # fmt: skip
def test_a_receipt_says_whose_word_it_is(count: int, more: str) -> None:
    names = [peer(f"v{number}") for number in range(count)]
    ears = Hearsay(names)
    for one in names:
        ears.hear(one, hints(word("a")), NOON)
    book = Book(told=lambda one, model: ears.told(one, model, NOON))
    (standing,) = book.standings([peer("a")], "add")
    named = ", ".join(peer_text(one) for one in sorted(names)[:NAMED])
    assert standing.source == f"asker, {named}{more}"
    assert decode(encode(standing), Standing) == standing


def test_a_verifier_that_says_nothing_of_a_peer_is_no_source() -> None:
    ears = Hearsay([peer("v"), peer("w")])
    ears.hear(peer("v"), hints(word("a")), NOON)
    ears.hear(peer("w"), hints(word("b")), NOON)
    told = ears.told(peer("a"), "model", NOON)
    assert told is not None
    assert told.verifiers == (peer("v"),)


def test_strangers_are_a_rumour_their_median() -> None:
    ears = Hearsay([peer("v")])
    assert ears.rumour(peer("a"), NOON) == 0.0
    for name, right in (("x", 0), ("y", 6), ("z", 10)):
        ears.hear(peer(name), hints(word("a", right, 10)), NOON)
    assert ears.rumour(peer("a"), NOON) == answer_bound(6, 10)
    assert ears.told(peer("a"), "model", NOON) is None


def test_nobody_is_a_rumour_about_himself_nor_a_verifier() -> None:
    ears = Hearsay([peer("v")])
    ears.hear(peer("a"), hints(word("a", 10, 10)), NOON)
    ears.hear(peer("v"), hints(word("a", 10, 10)), NOON)
    assert ears.rumour(peer("a"), NOON) == 0.0
    assert ears.told(peer("a"), "model", NOON) is not None


STRANGERS = ("x", "y", "a")


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(STRANGERS),
            st.integers(DAY - 9, DAY + 2),
            st.lists(
                st.builds(
                    word,
                    st.sampled_from("abc"),
                    st.integers(0, 10),
                    topic=st.sampled_from(["", "add"]),
                    model=st.sampled_from(["model", ""]),
                ),
                max_size=4,
                unique_by=lambda one: (one.peer, one.model, one.topic),
            ),
        ),
        max_size=12,
    )
)
def test_no_stranger_changes_a_weight(said: list[tuple[str, int, list[Sum]]]) -> None:
    """Whatever they say, of whomever: what this node reckons with stays the same."""
    trials = [tried({"a": (6, 6), "b": (1, 6)}, topic="add")] * 12
    names = [peer(name) for name in "abcxy"]

    def standings(*, deaf: bool) -> list[tuple[Standing, ...]]:
        ears = Hearsay([peer("v")])
        ears.hear(peer("v"), hints(word("c", 10, 10)), NOON)
        book = Book(trials, lambda one, model: ears.told(one, model, NOON))
        for name, day, sums in [] if deaf else said:
            ears.hear(peer(name), hints(*sums, day=day), NOON)
        return [book.standings(names, topic) for topic in ("add", "date", "")]

    assert standings(deaf=False) == standings(deaf=True)


# --- how much of it -------------------------------------------------------------------------------


def kept(ears: Hearsay) -> tuple[int, int]:
    """Strangers that are remembered, and their sums."""
    days = [list(days.values()) for one, days in ears._heard.items() if one != peer("v")]
    return len(days), sum(len(sums) for of in days for day in of for sums in day.sums.values())


def test_a_flood_of_strangers_leaves_the_latest_and_every_verifier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "VERIFIERS", 4)
    ears = Hearsay([peer("v")])
    ears.hear(peer("v"), hints(word("a")), NOON)
    for number in range(20):
        ears.hear(peer(f"s{number}"), hints(word("b", number / 2, 10)), NOON)
        assert peer("s0") in ears._heard
        ears.hear(peer("s0"), hints(word("b", 0, 10)), NOON)  # it talks on
        assert kept(ears)[0] <= 4
    assert ears.told(peer("a"), "model", NOON) is not None
    assert set(ears._heard) == {peer(name) for name in ("v", "s0", "s17", "s18", "s19")}


def test_a_flood_of_sums_leaves_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RUMOURS", 30)
    ears = Hearsay([peer("v")])
    ears.hear(peer("v"), hints(*(word(f"p{number}") for number in range(40))), NOON)
    for number in range(10):
        for day in (DAY - 1, DAY):
            sums = [word(f"p{each}") for each in range(10)]
            ears.hear(peer(f"s{number}"), hints(*sums, day=day), NOON)
            assert kept(ears)[1] <= 30
    assert list(ears._heard) == [peer("v"), peer("s9")]
    assert kept(ears) == (1, 20)
    assert ears.told(peer("p39"), "model", NOON) is not None


def test_one_stranger_alone_never_has_too_many() -> None:
    days = limits.HINT_DAYS + 2
    assert days * limits.HINT_SUMS < limits.RUMOURS


def test_days_that_are_over_make_room() -> None:
    ears = Hearsay()
    for day in range(DAY, DAY + 40):
        ears.hear(peer("s"), hints(word("a"), day=day), day * DAY_S)
    assert kept(ears)[0] == 1
    assert kept(ears)[1] == limits.HINT_DAYS + 1
