"""Laws of the task families, over many seeded draws."""

from __future__ import annotations

import re

import pytest

from swarm.calibration.arithmetic import add_steps, subtract_steps
from swarm.calibration.families import FAMILIES, Task, check, sample, split_of, worked, wrong
from swarm.calibration.task import Split
from swarm.seeded import Stream

SPLITS: tuple[Split, ...] = ("train", "calib", "test")
DRAWS = 200

families = pytest.mark.parametrize("name", FAMILIES)


def drawn(name: str, split: Split = "test", count: int = DRAWS) -> list[Task]:
    stream = Stream(f"test/{name}".encode())
    return [sample(stream, split, name) for _ in range(count)]


def test_the_eleven_families() -> None:
    assert list(FAMILIES) == [
        "add",
        "sub",
        "series",
        "units",
        "count",
        "compare",
        "sort",
        "pick",
        "reverse",
        "alphabetise",
        "vowels",
    ]


@families
def test_the_answer_passes(name: str) -> None:
    assert all(check(task, task.answer) for task in drawn(name))


@families
def test_spacing_does_not_make_an_answer_wrong(name: str) -> None:
    assert all(check(task, f" {task.answer}\n") for task in drawn(name))


@families
def test_a_wrong_answer_never_passes(name: str) -> None:
    stream = Stream(b"wrong")
    for task in drawn(name):
        text = wrong(stream, task)
        assert text
        assert not check(task, text)


@families
def test_nonsense_never_passes(name: str) -> None:
    for task in drawn(name, count=20):
        for text in ("", " ", "I do not know", task.question, f"{task.answer} {task.answer}"):
            assert not check(task, text)


@families
def test_splits_share_no_operands(name: str) -> None:
    family = FAMILIES[name]
    seen = {split: {family.identity(task.key) for task in drawn(name, split)} for split in SPLITS}
    assert not seen["train"] & seen["calib"]
    assert not seen["train"] & seen["test"]
    assert not seen["calib"] & seen["test"]


@families
def test_wording_does_not_decide_the_split(name: str) -> None:
    family = FAMILIES[name]
    for task in drawn(name, count=20):
        again = family.make(Stream(b"another wording"), task.key)
        assert split_of(name, family.identity(again.key)) == "test"
        assert again.answer == task.answer


@families
def test_every_wording_shows_every_operand(name: str) -> None:
    family = FAMILIES[name]
    stream = Stream(b"wordings")
    assert len(family.wordings) >= 2
    for wording in family.wordings:
        for task in drawn(name, count=20):
            question = family.phrase(stream, task.key, wording)
            assert not re.search(r"[{}]", question)
            assert question[-1] in "?."
            for operand in shown(task):
                assert operand in question


def shown(task: Task) -> list[str]:
    """What must stand in a question for it to be the question of these operands."""
    if task.family == "series":
        start, step = task.key
        return [str(int(start) + place * int(step)) for place in range(4)]
    if task.family == "units":
        return [str(operand) for operand in task.key[1:] if operand]
    return [str(operand) for operand in task.key]


@families
def test_questions_vary(name: str) -> None:
    assert len({task.question for task in drawn(name, "train")}) > DRAWS * 0.8


@families
def test_equal_streams_give_equal_tasks(name: str) -> None:
    assert drawn(name, count=5) == drawn(name, count=5)


@families
def test_worked_text_ends_in_the_answer(name: str) -> None:
    for task in drawn(name, count=50):
        assert worked(task).rsplit("so ", 1)[-1] == task.answer


def test_any_family_may_be_drawn() -> None:
    stream = Stream(b"any")
    assert {sample(stream, "calib").family for _ in range(400)} == set(FAMILIES)


def test_the_first_question_of_the_tutorial_can_be_drawn() -> None:
    family = FAMILIES["add"]
    wording = "{name} has {} {things} and buys {} more. How many {things} does {name} have now?"
    assert wording in family.wordings
    key = (47, 38)
    split = split_of("add", family.identity(key))
    stream = Stream(b"draws")
    assert any(family.identity(family.draw(stream)) == (38, 47) for _ in range(20_000))
    assert split in SPLITS
    task = Task("add", key, wording.format(*key, name="Tom", things="apples"), "85")
    assert task.question == "Tom has 47 apples and buys 38 more. How many apples does Tom have now?"
    assert worked(task) == "7+8=15 4+3+1=8 so 85"
    assert check(task, "85")
    assert not check(task, "86")


@pytest.mark.parametrize(
    ("first", "second", "steps"),
    [
        (47, 38, "7+8=15 4+3+1=8"),
        (7, 5, "7+5=12"),
        (180, 25, "0+5=5 8+2=10 1+0+1=2"),
        (97, 98, "7+8=15 9+9+1=19"),
    ],
)
def test_addition_in_columns(first: int, second: int, steps: str) -> None:
    assert add_steps(first, second) == steps


@pytest.mark.parametrize(
    ("first", "second", "steps"),
    [
        (43, 28, "13-8=5 3-2=1"),
        (43, 3, "3-3=0 4-0=4"),
        (103, 4, "13-4=9 9-0=9 0-0=0"),
    ],
)
def test_subtraction_in_columns(first: int, second: int, steps: str) -> None:
    assert subtract_steps(first, second) == steps


@pytest.mark.parametrize(
    ("key", "text", "right"),
    [
        ((58, 41, 17, 30, 9), "41 and 17", True),
        ((58, 41, 17, 30, 9), "17 and 41.", True),
        ((58, 41, 17, 30, 9), "41 and 9", False),
        ((58, 41, 29, 30, 9), "29 and 29", False),
        ((58, 41, 17, 30, 9), "40 and 18", False),
    ],
)
def test_pick_takes_either_order(key: tuple[int, ...], text: str, right: bool) -> None:
    assert FAMILIES["pick"].matches(key, text) is right


@pytest.mark.parametrize(
    ("text", "right"),
    [("3, 5, 9", True), ("3 5 9", True), ("9, 5, 3", False), ("3, 5", False), ("359", False)],
)
def test_sort_takes_any_separator(text: str, right: bool) -> None:
    assert FAMILIES["sort"].matches(("ascending", 9, 3, 5), text) is right
