"""Puzzles, programs and word games, read back from their text and solved anew by brute force."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.calibration.families import CATALOGUE, Style, Task
from swarm.calibration.programs import run
from swarm.calibration.puzzles import CATEGORIES, PEOPLE, Grid, Seating
from swarm.calibration.stepwise import changed
from swarm.seeded import Stream


def tasks(name: str, level: int, count: int, style: Style = "plain") -> list[Task]:
    stream = Stream(f"solve/{name}/{level}/{style}".encode())
    family = CATALOGUE[name]
    return [family.make(stream, family.draw(stream, level), level, style) for _ in range(count)]


# --- who has what -----------------------------------------------------------------------------


def grid_solutions(question: str) -> Iterator[dict[str, str]]:
    """Who has each value, for every assignment that fits the sentences of the question."""
    head = re.search(r"([A-Z][\w, ]* and [A-Z]\w*) each have (.*?)\)\. ", question)
    assert head is not None
    names = [word for word in re.findall(r"\w+", head[1]) if word in PEOPLE]
    groups = [
        found.removesuffix(", everyone a different one").split(", ")
        for found in re.findall(r"\(([^()]*)", head[2])
    ]
    known = [*names, *(value for group in groups for value in group)]
    clues = []
    for sentence in re.findall(r"[^.?]+\.", question.replace(head[0], "")):
        found = [word for word in re.findall(r"\w+", sentence) if word in known]
        if len(found) == 2:
            clues.append((*found, " not " in sentence))
    for rows in product(*(permutations(names) for _ in groups)):
        has = {name: name for name in names}
        for group, row in zip(groups, rows, strict=True):
            has |= dict(zip(group, row, strict=True))
        if all((has[x] == has[y]) != apart for x, y, apart in clues):
            yield has


@pytest.mark.parametrize(
    ("level", "count", "style"),
    [(1, 30, "plain"), (2, 20, "free"), (3, 12, "plain"), (4, 2, "free")],
)
def test_a_grid_has_one_solution_and_that_is_the_answer(
    level: int, count: int, style: Style
) -> None:
    for task in tasks("grid", level, count, style):
        found = list(grid_solutions(task.question))
        assert len(found) == 1
        assert found[0][str(task.key[0])] == task.answer


@pytest.mark.parametrize("level", range(1, 7))
def test_every_clue_of_a_grid_is_needed(level: int) -> None:
    grid = Grid()
    for task in tasks("grid", level, 2):
        clues = [part for part in task.key[1:] if "," not in str(part)]
        assert len(list(grid.solutions(task.key))) == 1
        for clue in clues:
            fewer = tuple(part for part in task.key if part != clue)
            assert len(list(grid.solutions(fewer))) > 1


def test_the_clues_of_a_grid_do_not_hold_the_answer() -> None:
    for level in range(1, 5):
        for task in tasks("grid", level, 8):
            assert f"{task.answer} = {task.key[0]}" not in task.key


def test_the_words_of_a_grid_mean_one_thing_each() -> None:
    words = [*PEOPLE, *(value for category in CATEGORIES for value in category.values)]
    assert len(words) == len(set(words))


def test_clues_that_contradict_have_no_solution() -> None:
    key = ("cat", "Ann,Bo,Cy", "cat,dog,parrot", "Ann = cat", "Bo = cat")
    assert list(Grid().solutions(key)) == []
    with pytest.raises(StopIteration):
        Grid().solve(key)


# --- who sits where ---------------------------------------------------------------------------

SAID = (
    (r"(\w+) is somewhere to the left of (\w+)", lambda i, j: i < j),
    (r"(\w+) is somewhere to the right of (\w+)", lambda i, j: i > j),
    (r"(\w+) is immediately to the left of (\w+)", lambda i, j: j == i + 1),
    (r"(\w+) is directly to the right of (\w+)", lambda i, j: i == j + 1),
    (r"(\w+) is next to (\w+)", lambda i, j: abs(i - j) == 1),
    (r"(\w+) and (\w+) are neighbours", lambda i, j: abs(i - j) == 1),
    (r"(\w+) is not next to (\w+)", lambda i, j: abs(i - j) != 1),
    (r"(\w+) and (\w+) are not neighbours", lambda i, j: abs(i - j) != 1),
    (r"(\w+) is in place (\d) from the left", lambda i, j: i == j),
    (r"Place (\d) from the left is (\w+)'s", lambda i, j: i == j),
    (r"(\w+) is not in place (\d) from the left", lambda i, j: i != j),
    (r"Place (\d) from the left is not (\w+)'s", lambda i, j: i != j),
)


def seating_solutions(question: str, names: list[str]) -> list[tuple[str, ...]]:
    rules = [(*found, test) for said, test in SAID for found in re.findall(said + r"\.", question)]
    fitting = []
    for order in permutations(names):
        at = {name: place for place, name in enumerate(order)}
        at |= {str(place + 1): place for place in range(len(order))}
        if all(test(at[x], at[y]) for x, y, test in rules):
            fitting.append(order)
    return fitting


@pytest.mark.parametrize(
    ("level", "count", "style"),
    [(1, 30, "plain"), (2, 30, "free"), (3, 20, "plain"), (4, 8, "free"), (5, 2, "plain")],
)
def test_a_row_has_one_order_and_that_is_the_answer(level: int, count: int, style: Style) -> None:
    for task in tasks("seating", level, count, style):
        names = str(task.key[0]).split(",")
        rules = sum(len(re.findall(said + r"\.", task.question)) for said, _ in SAID)
        assert rules == len(task.key) - 1
        found = seating_solutions(task.question, names)
        assert [", ".join(order) for order in found] == [task.answer]


@pytest.mark.parametrize("level", range(1, 7))
def test_every_clue_of_a_row_is_needed(level: int) -> None:
    seating = Seating()
    for task in tasks("seating", level, 2):
        assert len(list(seating.solutions(task.key))) == 1
        for clue in task.key[1:]:
            fewer = tuple(part for part in task.key if part != clue)
            assert len(list(seating.solutions(fewer))) > 1


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Ann, Bo, Cy", True),
        ("ann bo cy", True),
        ("Ann, Bo and Cy.", True),
        ("Ann - Bo - Cy", True),
        ("Cy, Bo, Ann", False),
        ("Ann, Bo", False),
        ("The order is Ann, Bo, Cy", False),
        ("", False),
    ],
)
def test_an_order_may_be_listed_in_any_punctuation(text: str, right: bool) -> None:
    assert Seating().matches(("Cy,Bo,Ann", "Ann | Bo", "Bo | Cy"), text) is right


# --- programs ---------------------------------------------------------------------------------


def python_prints(program: str) -> list[int]:
    printed: list[int] = []
    exec(program, {"__builtins__": {"range": range, "print": printed.append}})
    return printed


@pytest.mark.parametrize("level", range(1, 7))
@pytest.mark.parametrize("style", ["plain", "free"])
def test_a_program_prints_what_python_prints(level: int, style: Style) -> None:
    for task in tasks("program", level, 25, style):
        # From the first line of the program to its last, as the question shows them.
        start, end = task.question.index(" = ") - 1, task.question.index("print(")
        shown = task.question[start : task.question.index("\n", end) if "\n" in
                              task.question[end:] else None]  # fmt: skip
        assert shown == task.key[0]
        assert python_prints(shown) == [int(task.answer)]


@pytest.mark.parametrize("level", range(1, 7))
def test_a_program_never_meets_a_negative_number(level: int) -> None:
    """So that ``//`` and ``%`` mean the same whatever language one thinks in."""
    for task in tasks("program", level, 10):
        assert "-" not in str(task.key[0]).replace("- 1", "")
        assert int(task.answer) >= 0


PROGRAM = """\
a = 3
b = 0
while a > 0:
    for i in range(0, a):
        if i % 2 != 1:
            b = b + 10
        else:
            b = b + 1
    a = a - 1
print(b)"""


def test_blocks_nest() -> None:
    assert run(PROGRAM) == python_prints(PROGRAM)[0] == 42


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("", "not a statement"),
        ("a = 1", "prints once"),
        ("print(1)\nprint(2)", "prints once"),
        ("a = 1\nwhile a > 0:\n    a = 1\nprint(a)", "does not end"),
        ("a = 0\nfor i in range(0, 100000):\n    a = i\nprint(a)", "does not end"),
        ("import os\nprint(1)", "not a statement"),
        ("print(1", "not a statement"),
        ("a = 1 +\nprint(a)", "ends too soon"),
    ],
)
def test_what_is_no_program_is_refused(program: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        run(program)


def test_a_variable_without_a_value_is_refused() -> None:
    with pytest.raises(KeyError):
        run("print(a)")


# --- word games -------------------------------------------------------------------------------


def rewritten(question: str) -> str:
    """The steps of a question, carried out on a list of letters."""
    word = re.search(r'"(\w+)"', question)
    assert word is not None
    letters = list(word[1])
    quoted = r'"(\w)"'
    steps = {
        r"reverse it": lambda: letters[::-1],
        r"put its letters in alphabetical order": lambda: sorted(letters),
        r"swap the first and the last letter": lambda: [letters[-1], *letters[1:-1], letters[0]],
        r"double every vowel": lambda: [x for one in letters for x in one * (1 + (one in "aeiou"))],
    }
    for step in re.split(r"(?:\. |: |^)(?:\d+\. |Then |Next, |After that, )?", question)[1:]:
        step = step.strip(" .")
        low = step[:1].lower() + step[1:]
        plain = next((key for key in steps if low.startswith(key)), None)
        if plain:
            letters = steps[plain]()
        elif found := re.fullmatch(
            r"move the (first|last) (?:letter|(\d) letters) to the (\w+)", low
        ):
            count = int(found[2] or 1)
            assert found[3] == ("end" if found[1] == "first" else "front")
            for _ in range(count):
                if found[1] == "first":
                    letters = [*letters[1:], letters[0]]
                else:
                    letters = [letters[-1], *letters[:-1]]
        elif found := re.fullmatch(rf"remove every {quoted}", low):
            letters = [one for one in letters if one != found[1]]
        elif found := re.fullmatch(rf"replace every {quoted} with {quoted}", low):
            letters = [found[2] if one == found[1] else one for one in letters]
        elif found := re.fullmatch(rf"insert {quoted} after every {quoted}", low):
            letters = [
                x for one in letters for x in ([one, found[1]] if one == found[2] else [one])
            ]
        else:
            assert re.match(r"start with|take|what |and make|$", low), low
    return "".join(letters)


@pytest.mark.parametrize("level", range(1, 7))
def test_steps_are_carried_out_as_they_are_worded(level: int) -> None:
    for task in tasks("rewrite", level, 60):
        assert rewritten(task.question) == task.answer


def test_all_kinds_of_changes_come_up() -> None:
    kinds = {
        str(change).split(":")[0] for task in tasks("rewrite", 6, 60) for change in task.key[1:]
    }
    assert kinds == {"reverse", "ends", "front", "back", "drop", "put", "after", "double", "sort"}


@given(st.text("abcde", min_size=2, max_size=12), st.integers(1, 4))
def test_moving_there_and_back_changes_nothing(word: str, count: int) -> None:
    count = min(count, len(word) - 1)
    assert changed(changed(word, f"front:{count}"), f"back:{count}") == word
    assert changed(changed(word, "reverse"), "reverse") == word
    assert changed(changed(word, "ends"), "ends") == word


def test_an_unknown_change_is_refused() -> None:
    with pytest.raises(ValueError, match="not a change"):
        changed("word", "shout")
