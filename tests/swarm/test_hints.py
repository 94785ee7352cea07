"""What others say: sums of a day, what is refused of them, whose word counts and for how long."""

from __future__ import annotations

from collections import Counter, defaultdict
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol.codec import decode, encode
from protocol.errors import DecodeError, RefusedError
from protocol.ids import PeerId, peer_text
from protocol.ledger import HINT_DAY_S, FiveCounts, Hints, Subject, Sum
from protocol.messages import MICRO
from protocol.receipt import Standing
from swarm.calibration.families import CATALOGUE
from swarm.evidence import Book
from swarm.hints import Hearsay, check, counts_now, daily
from swarm.record import NAMED
from swarm.reputation import answer_bound
from swarm.trial import Mark, Trial
from tests.protocol.arbitrary import arbitrary
from tests.swarm.trials import mark, tried
from tests.swarm.trials import trial as made
from tests.swarm.virtual import signer

DAY = 19_000
NOON = DAY * HINT_DAY_S + HINT_DAY_S // 2
NONE: FiveCounts = (0, 0, 0, 0, 0)
TOPICS = sorted(CATALOGUE)


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
) -> Subject:
    """So many pairs judged and answers given rightly, all of them stated with certainty."""
    share = (round(right * MICRO), round(total * MICRO))
    judged = tuple((*NONE[:4], 6 * one) for one in share)
    one = Sum(topic, rounds, *judged, *share)  # type: ignore[arg-type]
    return Subject(peer(subject), model, (one,))


def hints(*words: Subject, day: int = DAY, expires: int | None = None) -> Hints:
    """All that is said of a day, in order."""
    end = (day + 1 + limits.HINT_DAYS) * HINT_DAY_S if expires is None else expires
    sums: defaultdict[tuple[PeerId, str], list[Sum]] = defaultdict(list)
    for one in words:
        sums[one.peer, one.model] += one.sums
    subjects = [
        Subject(*name, tuple(sorted(of, key=lambda one: one.topic)))
        for name, of in sorted(sums.items())
    ]
    return Hints(day, end, tuple(subjects))


def days(*said: Hints) -> dict[int, Hints]:
    """As a log has them."""
    return {one.day: one for one in said}


def by_name(said: Hints) -> dict[tuple[PeerId, str, str], Sum]:
    return {(of.peer, of.model, one.topic): one for of in said.subjects for one in of.sums}


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
    assert found.expires == (DAY + 1 + limits.HINT_DAYS) * HINT_DAY_S
    sums = by_name(found)
    assert list(sums) == sorted(sums)
    assert len(sums) == 4
    assert sums[peer("a"), "model", "add"] == Sum(
        "add",
        2,
        (0, 0, 5 * MICRO, MICRO, 0),
        (0, 0, 6 * MICRO, 2 * MICRO, 0),
        2 * MICRO,
        2 * MICRO,
    )
    wrong = sums[peer("b"), "model", "add"]
    assert (wrong.answer_right, wrong.answer_total, wrong.rounds) == (0, MICRO, 1)
    assert wrong.judge_total == (0, 0, 0, 0, MICRO)


@pytest.mark.parametrize(("at", "counts"), [(-1, False), (0, True), (HINT_DAY_S - 1, True),
                                            (HINT_DAY_S, False)])  # fmt: skip
def test_a_day_has_its_own_trials(at: int, counts: bool) -> None:
    found = daily([trial(mark("a"), at=DAY * HINT_DAY_S + at)], DAY)
    assert bool(found.subjects) == counts


def test_a_day_without_trials_has_no_sums() -> None:
    assert daily([], DAY).subjects == ()


def test_what_was_graded_stays_at_home() -> None:
    """It would tell everyone what this node is asked for real."""
    graded = trial(mark("a"), kind="graded")
    assert daily([graded], DAY).subjects == ()
    ((only,),) = (of.sums for of in daily([graded, trial(mark("a"))], DAY).subjects)
    assert only.rounds == 1


def test_an_operators_own_topics_are_not_named() -> None:
    found = daily([trial(mark("a"), topic="our customers"), trial(mark("a"), topic="")], DAY)
    ((one,),) = (of.sums for of in found.subjects)
    assert (one.topic, one.rounds) == ("", 2)


def test_a_claim_that_is_no_content_id_is_not_passed_on() -> None:
    long, longest = mark("a", model="\U0001f41d" * 65), mark("b", model="f" * 64)
    assert [one.peer for one in daily([trial(long, longest)], DAY).subjects] == [peer("b")]


# --- more than fits -------------------------------------------------------------------------------


def content_id(name: str) -> str:
    return sha256(name.encode()).hexdigest()


def busy(peers: int, rounds: int, topics: int) -> list[Trial]:
    """Rounds in which everybody took part, on one topic after the other."""
    names = [f"p{number}" for number in range(peers)]
    return [
        trial(
            *(mark(one, (4, 5), (2, 3), place=3, model=content_id(one)) for one in names),
            topic=TOPICS[number % topics],
        )
        for number in range(rounds)
    ]


def totals(sums: dict[tuple[PeerId, str, str], Sum]) -> dict[PeerId, Counter[str]]:
    """What is said of each peer, whatever the topic."""
    found: defaultdict[PeerId, Counter[str]] = defaultdict(Counter)
    for (of, _, _), one in sums.items():
        found[of].update(rounds=one.rounds, right=one.answer_right, total=one.answer_total)
        found[of].update(judged=sum(one.judge_right), pairs=sum(one.judge_total))
    return found


def test_a_topic_loses_its_name_before_anything_is_lost() -> None:
    """What was seen on it is in the peer's sum of no topic, once."""
    trials = busy(peers=9, rounds=2 * len(TOPICS), topics=len(TOPICS))
    said = daily(trials, DAY)
    sums = by_name(said)
    named = [topic for _, _, topic in sums if topic]
    assert 9 < len(named) < 9 * len(TOPICS)
    whole = {"rounds": 2 * len(TOPICS), "right": 2 * len(TOPICS) * MICRO}
    assert len(totals(sums)) == 9
    for found in totals(sums).values():
        assert found == whole | {
            "total": whole["right"],
            "judged": 6 * whole["right"],
            "pairs": 8 * whole["right"],
        }


def test_a_topic_without_a_name_admits_and_weighs_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where all topics count together, and in the test of admission."""
    trials = busy(9, 30, 15)

    def believed() -> list[object]:
        ears = Hearsay([peer("v")])
        ears.hear(peer("v"), days(daily(trials, DAY)), NOON)
        book = Book(told=lambda one, model: ears.told(one, model, NOON))
        names = [peer(f"p{number}") for number in range(9)]
        return [book.standings(names, ""), *(ears.rumour(one, NOON) for one in names)]

    few = believed()
    monkeypatch.setattr(limits, "HINTS_BYTES", 1 << 20)
    assert len(by_name(daily(trials, DAY))) == 9 * 15
    assert believed() == few
    (standing, *_), *_ = few
    assert standing.admitted


def test_the_busiest_topics_keep_their_names_for_everyone_alike() -> None:
    trials = busy(8, 26, len(TOPICS)) + busy(8, 20, 2)
    named = Counter(topic for _, _, topic in by_name(daily(trials, DAY)) if topic)
    assert named[TOPICS[0]] == named[TOPICS[1]] == 8
    assert 2 < len(named) < len(TOPICS)
    assert sorted(named.values())[1:] == [8] * (len(named) - 1), "but for the last"


def test_of_too_many_peers_the_busiest_are_told_of() -> None:
    trials = [*busy(30, 2, 2), trial(mark("p29", model=content_id("p29")))]
    said = daily(trials, DAY)
    told = {one.peer for one in said.subjects}
    assert 15 < len(told) < 30
    assert peer("p29") in told
    by_id = sorted(peer(f"p{number}") for number in range(29))
    assert told - {peer("p29")} == set(by_id[: len(told) - 1])


def test_nobody_is_told_of_in_place_of_somebody_busier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Because less can be said of him."""
    large, small = mark("a", model=content_id("a")), mark("b", model="")
    trials = [trial(large), trial(large, small), trial(small, topic="date"), trial(large)]
    whole = daily(trials, DAY)
    assert len(by_name(whole)) == 3
    monkeypatch.setattr(limits, "HINTS_BYTES", len(encode(daily(trials[:1], DAY))) - 10)
    assert daily(trials[2:3], DAY).subjects != ()
    assert daily(trials, DAY).subjects == ()


@pytest.mark.parametrize("peers", [1, 5, 13, 30, limits.COMMITTEE])
def test_a_day_never_has_more_bytes_than_are_taken(peers: int) -> None:
    for topics in (1, 3, len(TOPICS)):
        said = daily(busy(peers, 2 * len(TOPICS), topics), DAY)
        assert len(encode(said)) <= limits.HINTS_BYTES
        check(decode(encode(said), Hints))


def test_what_fits_is_told_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = busy(3, 30, 10)
    said = daily(trials, DAY)
    assert len(by_name(said)) == 30
    size = len(encode(said))
    monkeypatch.setattr(limits, "HINTS_BYTES", size + 2)
    assert daily(trials, DAY) == said
    monkeypatch.setattr(limits, "HINTS_BYTES", size - 1)
    less = by_name(daily(trials, DAY))
    assert len(less) == 30
    assert sorted(topic for _, _, topic in less).count("") == 1, "one of thirty has lost its name"


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
    st.integers((DAY - 1) * HINT_DAY_S, (DAY + 2) * HINT_DAY_S),
    st.sampled_from(["", "x"]),
)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.lists(TRIALS, max_size=12), st.sampled_from([200, 400, limits.HINTS_BYTES]))
def test_what_a_node_says_is_never_refused(trials: list[Trial], room: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(limits, "HINTS_BYTES", room)
        said = daily(trials, DAY)
        assert said == daily(trials[::-1], DAY)
    assert len(encode(said)) <= room
    check(decode(encode(said), Hints))
    assert counts_now(said, NOON)
    assert all(one.rounds * MICRO == one.answer_total for one in by_name(said).values())
    counted = [one for one in trials if one.kind != "graded" and one.at // HINT_DAY_S == DAY]
    for of, found in totals(by_name(said)).items():
        for model in {subject.model for subject in said.subjects if subject.peer == of}:
            rounds = sum((of, model) in {(m.peer, m.model) for m in one.marks} for one in counted)
            sums = [
                one for (who, what, _), one in by_name(said).items() if (who, what) == (of, model)
            ]
            assert sum(one.rounds for one in sums) == rounds
        assert found["right"] <= found["total"]


# --- what is refused ------------------------------------------------------------------------------

AB = hints(word("a"), word("b"))
TWO = hints(word("a"), word("a", topic="date")).subjects[0]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (Hints(DAY, NOON, AB.subjects[::-1]), "sorted"),
        (Hints(DAY, NOON, (word("a"), word("a", 1, 1))), "repeat a peer"),
        (Hints(DAY, NOON, (Subject(TWO.peer, TWO.model, TWO.sums[::-1]),)), "sorted"),
        (Hints(DAY, NOON, (Subject(TWO.peer, TWO.model, TWO.sums[:1] * 2),)), "repeat a topic"),
        (hints(word("a"), expires=(DAY + 1 + limits.HINT_DAYS) * HINT_DAY_S + 1), "too long"),
        (hints(word("a", right=10.5)), "more right than asked"),
        (
            hints(
                Subject(
                    TWO.peer,
                    TWO.model,
                    (msgspec.structs.replace(TWO.sums[0], judge_right=(1, 0, 0, 0, 0)),),
                )
            ),
            "more right",
        ),
    ],
    ids=["unsorted", "twice", "topics unsorted", "topic twice", "endless", "answers", "pairs"],
)
def test_what_no_honest_node_says_is_refused(bad: Hints, says: str) -> None:
    with pytest.raises(RefusedError, match=says):
        check(bad)


def with_sum(**changes: Any) -> tuple[Subject, ...]:
    (one,) = word("a").sums
    return (Subject(peer("a"), "model", (msgspec.structs.replace(one, **changes),)),)


@pytest.mark.parametrize(
    "changes",
    [
        {"subjects": (word("a"),) * (limits.HINT_SUMS + 1)},
        {"subjects": (Subject(peer("a"), "m", word("a").sums * (limits.HINT_SUMS + 1)),)},
        {"subjects": (Subject(peer("a"), "m", ()),)},
        {"subjects": (word("a", topic="x" * 65),)},
        {"subjects": (word("a", model="x" * 65),)},
        {"day": -1},
        {"expires": 2**49},
        {"subjects": with_sum(answer_total=-1)},
        {"subjects": with_sum(judge_total=(1, 2, 3, 4))},
        {"subjects": (Subject(PeerId(bytes(31)), "m", word("a").sums),)},
    ],
    ids=[
        "subjects",
        "sums",
        "none",
        "topic",
        "model",
        "day",
        "expires",
        "negative",
        "bins",
        "peer",
    ],
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


def mended(drawn: Hints) -> Hints:
    """The nearest thing to ``drawn`` that nobody refuses."""
    words = {
        (of.peer, of.model, one.topic): Subject(of.peer, of.model, (consistent(one),))
        for of in drawn.subjects
        for one in of.sums
    }
    return hints(*words.values())


@settings(max_examples=100, derandomize=True, deadline=None)
@given(arbitrary(Hints), st.booleans())
def test_any_hints_are_refused_or_reckoned_with(drawn: Hints, mend: bool) -> None:
    said = mended(drawn) if mend else drawn
    ears, believer = Hearsay(), Hearsay([peer("verifier")])
    try:
        check(said)
    except RefusedError:
        assert not mend
        return
    for each in (ears, believer):
        each.hear(peer("verifier"), days(said), NOON)
    book = Book(told=lambda one, model: believer.told(one, model, NOON))
    for of, _, topic in by_name(said):
        (standing,) = book.standings([of], topic)
        assert decode(encode(standing), Standing) == standing
        assert 0.0 <= ears.rumour(of, NOON) <= 1.0


# --- for how long ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("ago", "counts"), [(limits.HINT_DAYS + 1, False),
                         (limits.HINT_DAYS, True), (0, True), (-1, True), (-2, False)])  # fmt: skip
def test_which_days_count(ago: int, counts: bool) -> None:
    said = hints(word("a"), day=DAY - ago)
    assert counts_now(said, NOON) == counts
    ears = Hearsay([peer("verifier")])
    ears.hear(peer("verifier"), days(said), NOON)
    if ago > 0:
        assert (ears.told(peer("a"), "model", NOON) is not None) == counts, "they expire"


def test_hints_end_when_they_say() -> None:
    ears = Hearsay([peer("verifier")])
    said = days(hints(word("a"), expires=NOON + 10))
    for name in ("verifier", "stranger"):
        ears.hear(peer(name), said, NOON)
    assert ears.told(peer("a"), "model", NOON + 9) is not None
    assert ears.rumour(peer("a"), NOON + 9) > 0.0
    assert ears.told(peer("a"), "model", NOON + 10) is None
    assert ears.rumour(peer("a"), NOON + 10) == 0.0
    ears.hear(peer("verifier"), days(hints(word("b"), expires=NOON)), NOON)
    assert ears.told(peer("b"), "model", NOON - 1) is None, "it had expired when it was heard"
    assert ears.told(peer("a"), "model", NOON - 1) is None, "and its log says nothing else"


def test_all_of_a_log_counts_and_nothing_but_that() -> None:
    """Whatever it said before, and however often it is read."""
    ears = Hearsay([peer("verifier")])
    before = days(hints(word("a", 2.0)), hints(word("b"), day=DAY - 1))
    after = days(hints(word("a", 9.0)), hints(word("c"), day=DAY - 2))
    for said in (before, after, after, dict(reversed(after.items()))):
        ears.hear(peer("verifier"), said, NOON)
    told = ears.told(peer("a"), "model", NOON)
    assert told is not None
    assert told.topics["add"].answer == [9.0, 10.0]
    assert ears.told(peer("b"), "model", NOON) is None
    assert ears.told(peer("c"), "model", NOON) is not None


def test_who_has_no_log_any_more_has_no_word() -> None:
    ears = Hearsay([peer("verifier")])
    for name in ("verifier", "stranger"):
        ears.hear(peer(name), days(hints(word("a"))), NOON)
    for _ in range(2):
        ears.forget(peer("verifier"))
    assert ears.told(peer("a"), "model", NOON) is None
    assert ears.rumour(peer("a"), NOON) > 0.0
    ears.forget(peer("stranger"))
    assert ears.rumour(peer("a"), NOON) == 0.0
    ears.hear(peer("verifier"), days(hints(word("a"))), NOON)
    assert ears.told(peer("a"), "model", NOON) is not None
    ears.hear(peer("verifier"), {}, NOON)
    assert ears.told(peer("a"), "model", NOON) is None


# --- whose word -----------------------------------------------------------------------------------


def test_verifiers_are_summed_over_days_topics_and_each_other() -> None:
    ears = Hearsay([peer("v"), peer("w")])
    today = hints(word("a", 3, 4), word("a", 1, 2, topic="date"))
    ears.hear(peer("v"), days(today, hints(word("a", 1, 1), day=DAY - 1)), NOON)
    ears.hear(peer("w"), days(hints(word("a", 0, 5), word("b"))), NOON)
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
    ears.hear(peer("v"), days(hints(word("a"), word("a", 0, 10, model="other"))), NOON)
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
        ears.hear(one, days(hints(word("a"))), NOON)
    book = Book(told=lambda one, model: ears.told(one, model, NOON))
    (standing,) = book.standings([peer("a")], "add")
    named = ", ".join(peer_text(one) for one in sorted(names)[:NAMED])
    assert standing.source == f"asker, {named}{more}"
    assert decode(encode(standing), Standing) == standing


def test_a_verifier_that_says_nothing_of_a_peer_is_no_source() -> None:
    ears = Hearsay([peer("v"), peer("w")])
    ears.hear(peer("v"), days(hints(word("a"))), NOON)
    ears.hear(peer("w"), days(hints(word("b"))), NOON)
    told = ears.told(peer("a"), "model", NOON)
    assert told is not None
    assert told.verifiers == (peer("v"),)


def test_strangers_are_a_rumour_their_median() -> None:
    ears = Hearsay([peer("v")])
    assert ears.rumour(peer("a"), NOON) == 0.0
    for name, right in (("x", 0), ("y", 6), ("z", 10)):
        ears.hear(peer(name), days(hints(word("a", right, 10))), NOON)
    assert ears.rumour(peer("a"), NOON) == answer_bound(6, 10)
    assert ears.told(peer("a"), "model", NOON) is None


def test_nobody_is_a_rumour_about_himself_nor_a_verifier() -> None:
    ears = Hearsay([peer("v")])
    ears.hear(peer("a"), days(hints(word("a", 10, 10))), NOON)
    ears.hear(peer("v"), days(hints(word("a", 10, 10))), NOON)
    assert ears.rumour(peer("a"), NOON) == 0.0
    assert ears.told(peer("a"), "model", NOON) is not None


STRANGERS = ("x", "y", "a")


@settings(max_examples=60, derandomize=True, deadline=None)
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
                unique_by=lambda one: (one.peer, one.model, one.sums[0].topic),
            ),
        ),
        max_size=12,
    )
)
def test_no_stranger_changes_a_weight(said: list[tuple[str, int, list[Subject]]]) -> None:
    """Whatever they say, of whomever: what this node reckons with stays the same."""
    trials = [tried({"a": (6, 6), "b": (1, 6)}, topic="add")] * 12
    names = [peer(name) for name in "abcxy"]

    def standings(*, deaf: bool) -> list[tuple[Standing, ...]]:
        ears = Hearsay([peer("v")])
        ears.hear(peer("v"), days(hints(word("c", 10, 10))), NOON)
        book = Book(trials, lambda one, model: ears.told(one, model, NOON))
        for name, day, words in [] if deaf else said:
            ears.hear(peer(name), days(hints(*words, day=day)), NOON)
        return [book.standings(names, topic) for topic in ("add", "date", "")]

    assert standings(deaf=False) == standings(deaf=True)


# --- how much of it -------------------------------------------------------------------------------


def kept(ears: Hearsay) -> tuple[int, int]:
    """Strangers that are remembered, and their sums."""
    sizes = [word.size for one, word in ears._heard.items() if one != peer("v")]
    return len(sizes), sum(sizes)


def test_a_flood_of_strangers_leaves_the_latest_and_every_verifier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "VERIFIERS", 4)
    ears = Hearsay([peer("v")])
    ears.hear(peer("v"), days(hints(word("a"))), NOON)
    for number in range(20):
        ears.hear(peer(f"s{number}"), days(hints(word("b", number / 2, 10))), NOON)
        assert peer("s0") in ears._heard
        ears.hear(peer("s0"), days(hints(word("b", number / 4, 10))), NOON)  # it talks on
        ears.hear(peer("v"), days(hints(word("a"))), NOON)
        assert kept(ears)[0] <= 4
    assert ears.told(peer("a"), "model", NOON) is not None
    assert set(ears._heard) == {peer(name) for name in ("v", "s0", "s17", "s18", "s19")}


def test_who_says_the_same_again_displaces_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "VERIFIERS", 2)
    ears = Hearsay()
    for name in ("x", "y", "x", "x", "z"):
        ears.hear(peer(name), days(hints(word("a"))), NOON)
    assert set(ears._heard) == {peer("y"), peer("z")}


def test_a_flood_of_sums_leaves_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RUMOURS", 30)
    ears = Hearsay([peer("v")])
    ears.hear(peer("v"), days(hints(*(word(f"p{number}") for number in range(40)))), NOON)
    words = [word(f"p{each}") for each in range(10)]
    for number in range(10):
        said = days(*(hints(*words, day=day) for day in (DAY - 1, DAY)))
        ears.hear(peer(f"s{number}"), said, NOON)
        assert kept(ears)[1] <= 30
    assert list(ears._heard) == [peer("v"), peer("s9")]
    assert kept(ears) == (1, 20)
    assert ears.told(peer("p39"), "model", NOON) is not None


def test_one_stranger_alone_never_has_too_many() -> None:
    """As many sums as there can be in the bytes of a day, on every day that counts."""
    (one,) = word("a", 0, 0, topic="", rounds=0).sums
    most = limits.HINTS_BYTES // len(encode(one))
    assert most <= limits.HINT_SUMS
    assert (limits.HINT_DAYS + 2) * most < limits.RUMOURS


def test_what_is_over_is_not_kept() -> None:
    """A log of an epoch may hold days that count no more."""
    ears = Hearsay()
    said = days(*(hints(word("a"), day=day) for day in range(DAY - 20, DAY + 1)))
    ears.hear(peer("s"), said, NOON)
    assert kept(ears) == (1, limits.HINT_DAYS + 1)
    ears.hear(peer("s"), days(hints(word("a"), day=DAY - 20)), NOON)
    assert kept(ears) == (0, 0)
