"""Known topics are recognised, unknown ones are not mistaken for them, no text does harm."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from swarm.calibration.families import CATALOGUE, FAMILIES, Style, sample
from swarm.calibration.items import Item
from swarm.seeded import Stream
from swarm.topics import ENOUGH, Topics, _asides, _questions

SLOW = ("grid", "seating")


@cache
def learnt() -> Topics:
    return Topics.learnt()


@cache
def lessons() -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """All samples with their topics, and the asides."""
    stream = Stream(b"lessons")
    samples = [(n, text) for n, family in CATALOGUE.items() for text in _questions(family, stream)]
    return tuple(samples), tuple(_asides(stream))


def asked(name: str, style: Style, count: int, level: int = 1) -> list[str]:
    """Questions with operands of the test split (for the slow families, of any)."""
    stream = Stream(f"asked/{name}/{style}/{level}".encode())
    family = CATALOGUE[name]
    if name in SLOW:
        return [
            family.make(stream, family.draw(stream, level), level, style).question
            for _ in range(count)
        ]
    return [sample(stream, "test", name, level, style).question for _ in range(count)]


@pytest.mark.parametrize("name", FAMILIES)
def test_bundled_families_are_recognised_in_their_plain_wordings(name: str) -> None:
    found = [learnt().topic(question) for question in asked(name, "plain", 60)]
    assert found.count(name) >= 0.97 * len(found)


@pytest.mark.parametrize("style", ["plain", "free"])
def test_all_families_are_recognised(style: Style) -> None:
    rows = [
        (name, learnt().topic(question))
        for name, family in CATALOGUE.items()
        for level in range(1, min(family.levels, 4 if name in SLOW else 6) + 1)
        for question in asked(name, style, 6, level)
    ]
    assert np.mean([name == found for name, found in rows]) >= 0.97
    assert np.mean([found not in (name, None) for name, found in rows]) <= 0.01


def without(name: str) -> Topics:
    samples, asides = lessons()
    return Topics([(topic, text) for topic, text in samples if topic != name], asides)


# Not add and sub, which share their stories, nor vowels, weekday and power, whose neighbours are
# worded alike: these are confused with their twins now and then, which is fair.
@pytest.mark.parametrize("name", ["series", "program", "tale"])
def test_a_family_that_was_never_seen_is_unknown(name: str) -> None:
    topics = without(name)
    questions = asked(name, "plain", 60) + asked(name, "free", 60, 2)
    found = [topics.topic(question) for question in questions]
    assert found.count(None) >= 0.95 * len(found)


def test_twins_are_at_worst_taken_for_each_other() -> None:
    topics = without("sub")
    questions = asked("sub", "plain", 40) + asked("sub", "free", 40)
    found = {topics.topic(question) for question in questions}
    assert found <= {None, "add", "expression"}


ELSEWHERE = (
    "Who wrote Hamlet?",
    "Explain how a transformer works",
    "What is the capital of France?",
    "Write a poem about the sea.",
    "How can I improve my time management skills?",
    "Implement a function that validates an email address.",
    "What are the causes of inflation, and who gains from it?",
    "Translate 'good morning' into Spanish.",
    "hi",
    "Summarise the plot of Moby Dick in three sentences.",
    "What is the best way to learn to play the piano at 40?",
    "Is it safe to eat eggs after 3 weeks in the fridge?",
    "¿Cuántos días tiene un año bisiesto?",
    "一年有多少天?",
    "A train is late. Whom should I call, and what should I say?",
    "What does Anna Karenina do at the station?",
    "Why does my Python program print nothing?",
    "Which of Jupiter's moons has an atmosphere?",
)


@pytest.mark.parametrize("question", ELSEWHERE)
def test_questions_from_elsewhere_are_unknown(question: str) -> None:
    assert learnt().topic(question) is None


@pytest.mark.parametrize(
    ("question", "topic"),
    [
        ("What is 47 + 38?", "add"),
        ("Tom has 47 apples and buys 38 more. How many apples does Tom have now?", "add"),
        ('Reverse the word "planet".', "reverse"),
        ("Put 41, 17, 88, 23 in ascending order.", "sort"),
        ("How many minutes are in 3 hours?", "units"),
        ("Hi there, what's 1204 plus 77? Thanks!", "add"),
        ("My nephew asked me this yesterday. What day of the week is 14 March 2031?", "weekday"),
    ],
)
def test_everyday_questions_of_known_kinds_are_known(question: str, topic: str) -> None:
    assert learnt().topic(question) == topic


def test_operands_do_not_matter() -> None:
    assert learnt().nearest("What is 1 + 2?") == learnt().nearest("What is 123456 + 7,000?")
    assert learnt().nearest('Reverse the word "x".') == learnt().nearest(
        'Reverse the word "abc d".'
    )


# --- an operator's own topics -----------------------------------------------------------------


def private(*questions: str, topic: str | None) -> list[Item]:
    return [Item(question, ("yes",), topic, "private") for question in questions]


GATEWAY = (
    "Which port does our gateway listen on?",
    "Which port does our database listen on?",
    "On which port does our gateway in the Lisbon office listen?",
    "Which host does our gateway forward to?",
    "Which certificate does our gateway use?",
    "Which user does our gateway run as?",
)


def test_a_private_topic_is_learnt_and_the_rest_stays() -> None:
    topics = Topics.learnt(private(*GATEWAY, topic="operations"))
    assert topics.names == (*CATALOGUE, "operations")
    assert topics.topic("Which port does our gateway use?") == "operations"
    assert learnt().topic("Which port does our gateway use?") is None
    assert topics.topic("Who wrote Hamlet?") is None
    for name in FAMILIES:
        for question in asked(name, "plain", 8):
            assert topics.topic(question) == learnt().topic(question)


def test_a_topic_of_one_question_takes_nothing_from_the_families() -> None:
    topics = Topics.learnt(private("What is the answer to everything?", topic="trivia"))
    questions = [question for name in CATALOGUE for question in asked(name, "free", 6)]
    found = [topics.topic(question) for question in questions]
    assert found.count("trivia") == 0
    assert sum(a == learnt().topic(q) for a, q in zip(found, questions, strict=True)) >= 0.98 * len(
        found
    )


def test_private_questions_without_a_topic_teach_nothing() -> None:
    topics = Topics.learnt(private(*GATEWAY, topic=None))
    assert topics.names == tuple(CATALOGUE)
    assert topics.topic(GATEWAY[0]) is None


# --- any text ---------------------------------------------------------------------------------

HOSTILE = (
    "",
    " ",
    "\x00",
    "\ud800",
    "?" * limits.QUESTION_BYTES,
    "a" * limits.QUESTION_BYTES,
    "9" * limits.QUESTION_BYTES,
    "9," * (limits.QUESTION_BYTES // 2),
    '"' * limits.QUESTION_BYTES,
    '"a' * (limits.QUESTION_BYTES // 2),
    "a " * (limits.QUESTION_BYTES // 2),
    "é" * (limits.QUESTION_BYTES // 2),
    "𝔘" * (limits.QUESTION_BYTES // 4),
    "İ" * (limits.QUESTION_BYTES // 2),
    "\n" * limits.QUESTION_BYTES,
    "<name> {0} [a|b] %s \\",
)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_has_no_topic(text: str) -> None:
    assert learnt().topic(text) is None


@given(st.text(max_size=400))
def test_any_text_has_a_share_between_none_and_all(text: str) -> None:
    name, share = learnt().nearest(text)
    assert name in ("", *CATALOGUE)
    assert 0.0 <= share <= 1.0 + 1e-9


@settings(max_examples=20)
@given(st.text(min_size=1, max_size=50))
def test_only_the_start_of_a_long_text_is_read(tail: str) -> None:
    question = "What is 4 + 5? " * 300
    assert learnt().nearest(question) == learnt().nearest(question + tail)


def test_building_twice_gives_the_same() -> None:
    again = Topics.learnt()
    for name in CATALOGUE:
        for question in asked(name, "free", 3):
            assert again.nearest(question) == learnt().nearest(question)


def test_without_samples_everything_is_unknown() -> None:
    assert Topics([]).topic("What is 1 + 1?") is None
    assert Topics([("only", "What is 1 + 1?")]).names == ("only",)


def test_the_share_is_a_share() -> None:
    assert 0.0 < ENOUGH < 1.0
    topics = Topics([("a", "red green"), ("b", "blue white")])
    assert topics.nearest("red green")[0] == "a"
    assert topics.nearest("blue white")[0] == "b"
    assert topics.nearest("red green")[1] > topics.nearest("red green yellow black")[1] > 0.0
    assert topics.nearest("yellow black") == ("", 0.0)
