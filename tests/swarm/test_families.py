"""Laws of the task families, over many seeded draws."""

from __future__ import annotations

import re
from functools import cache
from itertools import product
from string import Formatter

import pytest

from swarm.answers import key
from swarm.calibration.arithmetic import Story, add_steps, subtract_steps
from swarm.calibration.dates import Weekday
from swarm.calibration.families import (
    CATALOGUE,
    FAMILIES,
    Family,
    Key,
    Style,
    Task,
    check,
    sample,
    split_of,
    worked,
    wrong,
)
from swarm.calibration.phrasing import expand
from swarm.calibration.task import Split
from swarm.seeded import Stream

SPLITS: tuple[Split, ...] = ("train", "calib", "test")
STYLES: tuple[Style, ...] = ("plain", "free")
DRAWS = 80

families = pytest.mark.parametrize("name", CATALOGUE)
bundled = pytest.mark.parametrize("name", FAMILIES)


@cache
def drawn(name: str, split: Split = "test", count: int = DRAWS) -> tuple[Task, ...]:
    stream = Stream(f"test/{name}".encode())
    return tuple(sample(stream, split, name) for _ in range(count))


def at_level(name: str, level: int, count: int, style: Style = "plain") -> list[Task]:
    """Tasks of any split, which the slower families give much sooner."""
    stream = Stream(f"level/{name}/{level}/{style}".encode())
    family = CATALOGUE[name]
    return [
        family.make(stream, family.draw(stream, level), level, style)
        for _ in range(min(count, 3) if slow(name, level) else count)
    ]


def slow(name: str, level: int) -> bool:
    return name in ("grid", "seating") and level > 3


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


def test_the_catalogue_starts_with_the_bundled_and_goes_on() -> None:
    assert list(CATALOGUE)[:11] == list(FAMILIES)
    assert len(CATALOGUE) >= 18
    assert all(CATALOGUE[name] is FAMILIES[name] for name in FAMILIES)
    assert all(family.name == name for name, family in CATALOGUE.items())
    assert all(family.levels >= 5 for family in CATALOGUE.values())


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
def test_every_level_asks_and_answers(name: str) -> None:
    stream = Stream(b"wrong at every level")
    for level, style in product(levels_of(name), STYLES):
        for task in at_level(name, level, 8, style):
            assert (task.family, task.level) == (name, level)
            assert check(task, task.answer)
            assert key(task.answer) == key(f"**{task.answer}.**")
            assert not check(task, wrong(stream, task))
            assert not re.search(r"[{}<>\[\]|]", without_code(task))
            assert len(task.question) < 4_000
            assert len(task.answer) < 400


def levels_of(name: str) -> range:
    return range(1, CATALOGUE[name].levels + 1)


def without_code(task: Task) -> str:
    """The question less the program, which has marks of its own, and ``a <= n <= b``."""
    text = task.question.replace("<=", "")
    return text.replace(str(task.key[0]), "") if task.family == "program" else text


@families
def test_levels_differ(name: str) -> None:
    below: set[Key] = set()
    for level in levels_of(name):
        mine = {CATALOGUE[name].identity(task.key) for task in at_level(name, level, 30)}
        assert len(mine) > 1
        assert len(mine & below) <= 0.2 * len(mine)
        below = mine


@families
def test_there_is_no_other_level(name: str) -> None:
    family = CATALOGUE[name]
    for level in (0, -1, family.levels + 1):
        with pytest.raises(ValueError, match=f"{name} has levels 1 to {family.levels}"):
            sample(Stream(b""), "test", name, level)


@families
def test_the_style_changes_neither_operands_nor_answer(name: str) -> None:
    family = CATALOGUE[name]
    for task in drawn(name, count=20):
        free = family.make(Stream(task.question.encode()), task.key, style="free")
        assert (free.key, free.answer) == (task.key, task.answer)


@families
def test_free_questions_come_in_thousands_of_forms(name: str) -> None:
    family = CATALOGUE[name]
    stream = Stream(b"forms")
    operands = family.draw(stream)
    forms = {family.make(stream, operands, style="free").question for _ in range(150)}
    # Not all are equally likely: half of the questions have nothing around them.
    assert len(forms) > 75


@families
def test_there_are_many_free_wordings(name: str) -> None:
    family = CATALOGUE[name]
    assert len(set(templates(family)) - set(family.wordings)) >= 8


@families
def test_every_wording_names_the_same_operands(name: str) -> None:
    family = CATALOGUE[name]
    fields = {
        frozenset(operands_of(template)) for template in (*family.wordings, *templates(family))
    }
    assert len(fields) == 1


def templates(family: Family) -> tuple[str, ...]:
    """All free templates."""
    extra = family.stories if isinstance(family, Story) else ()
    return family.asks + extra + (family.dated if isinstance(family, Weekday) else ())


def operands_of(template: str) -> set[str]:
    found = [field for _, field, _, _ in Formatter().parse(expand(Stream(b""), template))]
    bare = iter(range(found.count("")))
    fields = {str(next(bare)) if field == "" else field for field in found if field is not None}
    # Of someone in a plain story; the same list in another punctuation.
    return {"these" if field == "list" else field for field in fields - {"name", "things"}}


def test_only_small_numbers_are_told_as_stories() -> None:
    family = CATALOGUE["add"]
    assert set(family.asks_for((47, 38))) > set(family.asks_for((47, 38_000)))


@families
def test_splits_share_no_operands(name: str) -> None:
    family = CATALOGUE[name]
    count = 60
    seen = {
        split: {family.identity(task.key) for task in drawn(name, split, count)} for split in SPLITS
    }
    assert not seen["train"] & seen["calib"]
    assert not seen["train"] & seen["test"]
    assert not seen["calib"] & seen["test"]


@families
def test_wording_does_not_decide_the_split(name: str) -> None:
    family = CATALOGUE[name]
    for task in drawn(name, count=20):
        again = family.make(Stream(b"another wording"), task.key)
        assert family.split(again.key) == "test"
        assert again.answer == task.answer


@bundled
def test_every_wording_shows_every_operand(name: str) -> None:
    family = FAMILIES[name]
    stream = Stream(b"wordings")
    assert len(family.wordings) >= 2
    for wording in (*family.wordings, *templates(family)):
        for task in drawn(name, count=20):
            question = family.phrase(stream, task.key, expand(stream, wording))
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
    questions = {task.question for task in drawn(name, "train")}
    few = name in ("expression", "power", "base", "weekday")
    assert len(questions) > DRAWS * (0.6 if few else 0.8)


@families
def test_equal_streams_give_equal_tasks(name: str) -> None:
    again = Stream(f"test/{name}".encode())
    assert drawn(name, count=5) == tuple(sample(again, "test", name) for _ in range(5))


@families
def test_worked_text_ends_in_the_answer(name: str) -> None:
    for task in drawn(name, count=50):
        assert worked(task).rsplit("so ", 1)[-1] == task.answer


def test_any_bundled_family_may_be_drawn() -> None:
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
