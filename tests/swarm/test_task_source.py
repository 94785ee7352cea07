"""Endless and never repeated; free in form; and the operands untouched by it."""

from __future__ import annotations

import re
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.calibration import phrasing, source
from swarm.calibration.families import CATALOGUE, Style, Task
from swarm.calibration.source import ExhaustedError, Source, name_of
from swarm.seeded import Stream

QUICK = [name for name in CATALOGUE if name not in ("grid", "seating")]


def test_the_same_seed_and_calls_give_the_same_tasks() -> None:
    first, second, other = Source(b"secret"), Source(b"secret"), Source(b"another")
    drawn = [first.next(name, 2, "free") for name in QUICK]
    assert drawn == [second.next(name, 2, "free") for name in QUICK]
    assert drawn != [other.next(name, 2, "free") for name in QUICK]


def test_calls_to_one_family_do_not_foretell_another() -> None:
    first, second = Source(b"secret"), Source(b"secret")
    first.next("add", 3)
    assert first.next("sub", 3) != second.next("sub", 3)


def test_nothing_is_ever_given_twice() -> None:
    given_ = Source(b"secret")
    stream = Stream(b"mix")
    names, questions = set(), set()
    for _ in range(3_000):
        name = stream.choice(QUICK)
        level = stream.between(1, CATALOGUE[name].levels)
        style: Style = "free" if stream.below(2) else "plain"
        try:
            task = given_.next(name, level, style)
        except ExhaustedError:
            continue
        assert (task.family, task.level) == (name, level)
        assert name_of(task) not in names
        assert task.question not in questions
        names.add(name_of(task))
        questions.add(task.question)
    assert len(names) > 2_950


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_test_split_is_never_touched(name: str) -> None:
    given_ = Source(b"splits")
    splits = {CATALOGUE[name].split(given_.next(name, 1 + at % 3, "free").key) for at in range(120)}
    assert splits == {"train", "calib"}


def test_what_earlier_runs_used_is_not_given_again() -> None:
    used = [Source(b"one").next("weekday") for _ in range(1)]
    first = Source(b"first")
    used += [first.next("weekday") for _ in range(300)]
    names = {name_of(task) for task in used}
    second = Source(b"second", used=names)
    assert not names & {name_of(second.next("weekday")) for _ in range(300)}


def test_a_small_family_runs_out_and_says_so() -> None:
    family = CATALOGUE["weekday"]
    all_ = {(day, sign * away) for day in range(7) for sign in (-1, 1) for away in range(2, 61)}
    left = {key for key in all_ if family.split(key) != "test"}
    given_ = Source(b"small")
    while (task := next_of(given_, "weekday")) is not None:
        left.remove(cast(tuple[int, int], task.key))
    assert len(left) <= 3
    assert given_.next("weekday", 2).level == 2
    with pytest.raises(ExhaustedError, match="weekday at level 1"):
        given_.next("weekday")


def next_of(given_: Source, family: str, level: int = 1) -> Task | None:
    try:
        return given_.next(family, level)
    except ExhaustedError:
        return None


def test_a_full_memory_gives_nothing_rather_than_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "FILTER_BYTES", 16)
    monkeypatch.setattr(source, "DRAWS", 50)
    given_ = Source(b"full")
    names: set[bytes] = set()
    while (task := next_of(given_, "tale", 6)) is not None:
        assert name_of(task) not in names
        names.add(name_of(task))
    assert 10 < len(names) <= 128


def test_memory_does_not_grow() -> None:
    given_ = Source(b"bounded")
    before = len(given_._filter)
    for _ in range(200):
        given_.next("add", 4)
    assert len(given_._filter) == before == source.FILTER_BYTES


def test_a_name_does_not_depend_on_wording_or_order() -> None:
    family = CATALOGUE["add"]
    one = family.make(Stream(b"1"), (47, 38), style="plain")
    two = family.make(Stream(b"2"), (38, 47), style="free")
    assert name_of(one) == name_of(two)
    assert name_of(one) != name_of(CATALOGUE["sub"].make(Stream(b"1"), (47, 38)))


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(KeyError):
        Source(b"").next("poetry")
    with pytest.raises(ValueError, match="add has levels 1 to"):
        Source(b"").next("add", 99)


# --- free form --------------------------------------------------------------------------------


def test_options_are_expanded_from_within() -> None:
    found = {phrasing.expand(Stream(bytes([at])), "[a|b[1|2]|]c") for at in range(60)}
    assert found == {"ac", "b1c", "b2c", "c"}


def test_a_question_has_one_cast() -> None:
    template = "<name> <he> <his> <things> <name> <he> <other_name> <things>"
    for at in range(60):
        words = phrasing.expand(Stream(bytes([at])), template).split()
        assert words[0] == words[4] != words[6]
        assert words[3] == words[7]
        assert (words[0] in phrasing.SHE) == (words[1] == "she") == (words[2] == "her")
        assert words[1] == words[5]


@given(st.binary(max_size=8))
def test_operands_are_untouched(seed: bytes) -> None:
    operand = "AbC [x|y] <name> {0} What is it?"
    question = phrasing.ask(
        Stream(seed),
        ("[Write|Copy] {0} [now|here].", "What is {0}?"),
        "",
        lambda t: t.format(operand),
    )
    assert operand in question


def test_every_habit_turns_up() -> None:
    stream = Stream(b"habits")
    asked = [
        phrasing.ask(stream, ("What is {0}?",), "[Just] the number.", lambda t: t.format("{X}"))
        for _ in range(2_000)
    ]
    for sign in ("What is {X}?", "What's {X}?", "what is {X}?", "{X}??", "{X}"):
        assert any(text.endswith(sign) for text in asked), sign
    assert sum(text == "What is {X}?" for text in asked) > 200
    assert sum("the number" in text for text in asked) > 200
    assert len(set(asked)) > 500


def test_asides_leave_no_marks_of_the_grammar() -> None:
    stream = Stream(b"asides")
    hints = tuple(family.hint for family in CATALOGUE.values() if family.hint)
    for _ in range(1_500):
        text = phrasing.aside(stream, hints)
        assert text.strip() == text
        assert "  " not in text
        assert not re.search(r"[\[\]{}<>|]", text)
