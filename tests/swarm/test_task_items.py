"""Questions with known answers, from families and from operators, and how rounds are graded."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.errors import EXIT_USAGE
from swarm.calibration import items
from swarm.calibration.families import CATALOGUE, sample, wrong
from swarm.calibration.grading import exactly_one_right, grade, informative
from swarm.calibration.items import Item, QuestionSetError, of_task, parse
from swarm.calibration.task import Task
from swarm.seeded import Stream

SUM = Item("What is 47 + 38?", ("85",), "add", "private")


def row(**fields: object) -> str:
    return json.dumps(fields)


# --- an operator's own set --------------------------------------------------------------------


def test_a_set_is_read() -> None:
    text = "\n".join(
        [
            row(question="Which port?", answer="8443"),
            "",
            row(question=" Who is on call? ", answer=["Anna", "Anna Berg"], topic="operations"),
            "  ",
        ]
    )
    assert parse(text) == (
        Item("Which port?", ("8443",), None, "private"),
        Item("Who is on call?", ("Anna", "Anna Berg"), "operations", "private"),
    )
    assert parse("") == ()


def test_lines_may_end_as_on_windows() -> None:
    assert (
        len(parse('{"question": "a b", "answer": "c"}\r\n{"question": "d", "answer": "e"}\r\n'))
        == 2
    )


def test_any_accepted_answer_is_right_in_any_form() -> None:
    item = parse(row(question="How many?", answer=["1,200", "a dozen hundred"]))[0]
    for text in ("1200", "1,200", "1200.0", "**1200**", "The answer is 1200.", "A dozen  hundred"):
        assert item.is_right(text), text
    for text in ("120", "1200 apples", "", "dozen", "12,00"):
        assert not item.is_right(text), text


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "Line 2"),
        ("[]", "Line 2: Expected `object`"),
        (row(question="Q?"), "missing required field `answer`"),
        (row(answer="A"), "missing required field `question`"),
        (row(question="Q?", answer=5), r"Expected `str \| array`, got `int`"),
        (row(question="Q?", answer=[]), "length >= 1"),
        (row(question="Q?", answer=["a", None]), "got `null`"),
        (row(question="Q?", answer=""), "length >= 1"),
        (row(question="Q?", answer=" "), "blank"),
        (row(question="Q?", answer=["a", "."]), "blank"),
        (row(question=" ", answer="A"), "blank"),
        (row(question="Q?", answer="A", level=2), "unknown field `level`"),
        (row(question="Q?", answer="A", topic=""), "length >= 1"),
        (row(question="Q?", answer="A", topic="t" * (limits.TEXT_CHARS + 1)), "length <="),
        (row(question="Q?", answer=["a"] * (items.ACCEPTED + 1)), "length <="),
        (row(question="q" * (limits.QUESTION_BYTES + 1), answer="A"), "length <="),
        (row(question="é" * limits.QUESTION_BYTES, answer="A"), "too many bytes"),
        (row(question="Q?", answer="a" * (limits.ANSWER_BYTES + 1)), "length <="),
        (row(question="Which port?", answer="1"), "asks what line 1 asks"),
        ("[" * 100_000, "Line 2"),
        ('{"question": "\\ud800", "answer": "A"}', "Line 2"),
    ],
)
def test_a_bad_line_is_named(line: str, reason: str) -> None:
    good = row(question="Which port?", answer="8443")
    with pytest.raises(QuestionSetError, match=reason) as caught:
        parse(f"{good}\n{line}\n{good}")
    assert "Line 2" in str(caught.value)
    assert caught.value.exit_code == EXIT_USAGE
    assert caught.value.user_text().startswith("This set of questions cannot be used. Line 2")


def test_a_set_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "SET_ITEMS", 3)
    monkeypatch.setattr(items, "TOPICS", 2)
    rows = [row(question=f"Q{number}?", answer="A") for number in range(4)]
    assert len(parse("\n".join(rows[:3]))) == 3
    with pytest.raises(QuestionSetError, match="Line 4: more than 3 questions"):
        parse("\n".join(rows))
    told = [row(question=f"Q{number}?", answer="A", topic=f"t{number}") for number in range(3)]
    assert len(parse("\n".join(told[:2]))) == 2
    with pytest.raises(QuestionSetError, match="Line 3: more than 2 topics"):
        parse("\n".join(told))
    monkeypatch.setattr(items, "SET_BYTES", 100)
    with pytest.raises(QuestionSetError, match="MiB"):
        parse("\n" * 101)


@given(st.text(max_size=300))
def test_other_text_is_refused_by_line(text: str) -> None:
    if any(line.strip() for line in text.split("\n")):
        with pytest.raises(QuestionSetError, match=r"^Line \d+"):
            parse(text)
    else:
        assert parse(text) == ()


ANSWERS = st.lists(st.text("ab1", min_size=1), min_size=1, max_size=4)
ROWS = st.lists(
    st.tuples(st.text(min_size=1, max_size=30), ANSWERS),
    max_size=6,
    unique_by=lambda pair: pair[0].strip(),
)


@given(ROWS)
def test_what_was_written_is_read(pairs: list[tuple[str, list[str]]]) -> None:
    pairs = [(question, accepted) for question, accepted in pairs if question.strip()]
    text = "\n".join(row(question=question, answer=accepted) for question, accepted in pairs)
    read = parse(text)
    assert [(item.question, list(item.answers)) for item in read] == [
        (question.strip(), accepted) for question, accepted in pairs
    ]
    assert all(item.is_right(answer) for item in read for answer in item.answers)


# --- generated items --------------------------------------------------------------------------


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_item_of_a_task_is_graded_by_its_family(name: str) -> None:
    stream = Stream(b"items")
    for _ in range(10):
        task = sample(stream, "train", name, 2, "free")
        item = of_task(task)
        assert (item.question, item.topic, item.origin) == (task.question, name, "generated")
        assert item.is_right(task.answer)
        assert not item.is_right(wrong(stream, task))


def test_a_family_may_accept_more_than_one_form() -> None:
    task = Task(
        "pick", (58, 41, 17, 30, 9), "Which two of 41, 17, 30 and 9 add up to 58?", "41 and 17"
    )
    assert of_task(task).is_right("17 and 41")


# --- grading ----------------------------------------------------------------------------------


def test_each_class_is_graded() -> None:
    assert grade(SUM, ["85", "75", "85.0", "85 apples", ""]) == (True, False, True, False, False)
    assert grade(SUM, []) == ()


def test_pairs_have_exactly_one_right_answer() -> None:
    texts = ["75", "85", "86", "75.0", "**85**", "I do not know"]
    assert exactly_one_right(SUM, texts) == (("85", "75"), ("85", "86"), ("85", "I do not know"))


def test_the_right_text_is_a_peers_where_one_gave_it() -> None:
    assert exactly_one_right(SUM, ["75", "85.0"]) == (("85.0", "75"),)
    assert exactly_one_right(SUM, ["75"]) == (("85", "75"),)


@pytest.mark.parametrize(
    "text", ["85 apples", "It is 85.", "85, I think", "47 + 38 = 85", "The answer: **85** apples"]
)
def test_a_text_that_holds_the_right_answer_is_in_no_pair(text: str) -> None:
    assert not SUM.is_right(text)
    assert exactly_one_right(SUM, [text, "75"]) == (("85", "75"),)
    assert informative(SUM, ["85", text, "75"]) == ((0, 2),)


@pytest.mark.parametrize("text", ["850", "185", "8.85", "85.5", "1,85", "eighty", "x85"])
def test_a_text_that_merely_looks_like_it_is_wrong(text: str) -> None:
    assert exactly_one_right(SUM, [text]) == (("85", text),)


def test_thousands_may_have_commas() -> None:
    item = Item("?", ("1200",), None, "private")
    assert exactly_one_right(item, ["1,200 apples", "1,300 apples"]) == (("1200", "1,300 apples"),)


def test_blank_answers_are_in_no_pair() -> None:
    assert exactly_one_right(SUM, ["", "  "]) == ()


def test_indices_of_the_pairs_of_a_round() -> None:
    assert informative(SUM, ["75", "85", "86", "85.0"]) == ((1, 0), (1, 2), (3, 0), (3, 2))
    assert informative(SUM, ["75", "86"]) == ()
    assert informative(SUM, ["85"]) == ()


@given(st.lists(st.text(max_size=12), max_size=8))
def test_laws_of_pairs(texts: list[str]) -> None:
    for right, other in exactly_one_right(SUM, texts):
        assert SUM.is_right(right)
        assert other in texts
        assert not SUM.is_right(other)
    marks = grade(SUM, texts)
    for good, bad in informative(SUM, texts):
        assert (marks[good], marks[bad]) == (True, False)
