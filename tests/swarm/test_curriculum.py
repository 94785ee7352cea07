"""What calibration draws next: staircases, topics that are asked for, cells that tell apart."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.calibration.families import CATALOGUE
from swarm.calibration.source import ExhaustedError
from swarm.curriculum import CLIMB, STYLES, Curriculum, Lesson
from swarm.seeded import Stream

LEVELS = {"sums": 3, "dates": 2, "grids": 5}
ALL, NONE, SOME = [True] * 3, [False] * 3, [True, False, True]


def curriculum(**levels: int) -> Curriculum:
    return Curriculum(levels or LEVELS, ("plain",))


def drawn(one: Curriculum, times: int = 2_000, seed: bytes = b"seed") -> Counter[str]:
    stream = Stream(seed)
    return Counter(one.next(stream).family for _ in range(times))


def level(one: Curriculum, family: str) -> int:
    """The level at which tasks of the family are drawn now."""
    stream = Stream(b"level")
    while (lesson := one.next(stream)).family != family:
        pass
    return lesson.level


def go(one: Curriculum, family: str, *went: list[bool]) -> None:
    """Tasks of the family, each at its level of then."""
    for right in went:
        one.learn(Lesson(family, level(one, family), "plain"), right)


# --- the staircase --------------------------------------------------------------------------------


def test_every_cell_starts_at_the_first_level_and_is_drawn() -> None:
    one = Curriculum(LEVELS, STYLES)
    stream = Stream(b"seed")
    found = {one.next(stream) for _ in range(500)}
    assert found == {Lesson(family, 1, style) for family in LEVELS for style in STYLES}


def test_up_when_all_can_do_it_down_when_nobody_can() -> None:
    one = curriculum()
    go(one, "grids", *[ALL] * CLIMB)
    assert level(one, "grids") == 2
    go(one, "grids", *[ALL] * CLIMB)
    assert level(one, "grids") == 3
    go(one, "grids", *[NONE] * CLIMB)
    assert level(one, "grids") == 2
    assert (level(one, "sums"), level(one, "dates")) == (1, 1), "each cell has its own"


def test_it_takes_a_row_of_them() -> None:
    one = curriculum()
    go(one, "grids", ALL, SOME, ALL)
    assert level(one, "grids") == 1, "one that tells apart in between keeps the level"
    go(one, "grids", NONE, ALL)
    assert level(one, "grids") == 1, "so does one of the other kind"
    go(one, "grids", ALL)
    assert level(one, "grids") == 2


def test_it_ends_at_the_first_and_the_last_level() -> None:
    one = curriculum()
    go(one, "dates", *[NONE] * 3 * CLIMB)
    assert level(one, "dates") == 1
    go(one, "dates", *[ALL] * 5 * CLIMB)
    assert level(one, "dates") == LEVELS["dates"]


def test_what_lies_beyond_the_level_is_no_news() -> None:
    """Hidden tasks are drawn at levels of their own."""
    one = curriculum()
    go(one, "grids", *[ALL] * 3 * CLIMB)
    assert level(one, "grids") == 4
    for lesson, went in ((Lesson("grids", 1, "plain"), ALL), (Lesson("grids", 5, "plain"), NONE)):
        for _ in range(3 * CLIMB):
            one.learn(lesson, went)
        assert level(one, "grids") == 4


def test_a_surprise_beyond_the_level_moves_it() -> None:
    one = curriculum()
    for _ in range(CLIMB):
        one.learn(Lesson("grids", 4, "plain"), ALL)
    assert level(one, "grids") == 5
    for _ in range(CLIMB):
        one.learn(Lesson("grids", 2, "plain"), NONE)
    assert level(one, "grids") == 1


def test_a_round_without_answers_teaches_nothing() -> None:
    one, other = curriculum(), curriculum()
    for _ in range(10):
        one.learn(Lesson("sums", 1, "plain"), [])
    assert drawn(one) == drawn(other)


def test_what_is_not_in_the_catalogue_any_more_is_passed_over() -> None:
    one, other = curriculum(), curriculum()
    one.learn(Lesson("alchemy", 1, "plain"), ALL)
    one.learn(Lesson("sums", 1, "free"), ALL)
    assert drawn(one) == drawn(other)


# --- what is drawn --------------------------------------------------------------------------------


def test_topics_that_are_asked_for_come_more_often() -> None:
    one = curriculum()
    before = drawn(one)["dates"] / 2_000
    for _ in range(50):
        one.asked("dates")
    after = drawn(one)["dates"] / 2_000
    assert before == pytest.approx(1 / 3, abs=0.05)
    # Ten times as often as before: 11 of 13.
    assert after == pytest.approx(11 / 13, abs=0.05)


def test_what_is_asked_for_changes() -> None:
    one = curriculum()
    for _ in range(300):
        one.asked("dates")
    for _ in range(300):
        one.asked("sums")
    found = drawn(one)
    assert found["sums"] > 10 * found["dates"]


def test_questions_of_unknown_topic_count_for_no_family() -> None:
    one, other = curriculum(), curriculum()
    for _ in range(50):
        one.asked("dates")
        one.asked("")
        one.asked("operations")
        other.asked("dates")
    assert drawn(one) == drawn(other)


def test_cells_that_tell_peers_apart_come_more_often() -> None:
    one = curriculum()
    for _ in range(20):
        one.learn(Lesson("sums", 1, "plain"), SOME)
        one.learn(Lesson("dates", 1, "plain"), ALL)
        one.learn(Lesson("grids", 1, "plain"), NONE)
    found = drawn(one)
    assert found["sums"] > 5 * found["dates"]
    assert found["sums"] > 5 * found["grids"]
    assert found["dates"] > 0, "none is given up: peers change"


def test_what_has_been_seen_often_makes_room() -> None:
    one = curriculum()
    for _ in range(40):
        one.learn(Lesson("sums", 1, "plain"), SOME)
        one.learn(Lesson("dates", 1, "plain"), SOME)
    found = drawn(one)
    assert found["grids"] > found["sums"]
    assert found["grids"] > found["dates"]


def test_the_draws_are_a_function_of_the_stream() -> None:
    one, other = curriculum(), curriculum()
    go(one, "grids", *[ALL] * CLIMB)
    go(other, "grids", *[ALL] * CLIMB)
    left, right = Stream(b"a"), Stream(b"a")
    assert [one.next(left) for _ in range(50)] == [other.next(right) for _ in range(50)]
    assert drawn(one, 100, b"a") != drawn(one, 100, b"b")


# --- where tasks run out --------------------------------------------------------------------------


def test_a_level_without_tasks_is_passed_and_the_last_one_ends_the_cell() -> None:
    one = curriculum(sums=2, dates=1)
    one.exhausted(Lesson("sums", 1, "plain"))
    assert level(one, "sums") == 2
    one.exhausted(Lesson("sums", 2, "plain"))
    assert set(drawn(one)) == {"dates"}
    one.exhausted(Lesson("dates", 1, "plain"))
    with pytest.raises(ExhaustedError):
        one.next(Stream(b"seed"))


# --- laws -----------------------------------------------------------------------------------------

LESSONS = st.builds(
    Lesson, st.sampled_from([*LEVELS, "gone"]), st.integers(0, 9), st.sampled_from(STYLES)
)


@given(
    st.lists(
        st.one_of(
            st.tuples(LESSONS, st.lists(st.booleans(), max_size=4)),
            st.sampled_from([*LEVELS, "", "gone"]),
        ),
        max_size=60,
    )
)
def test_whatever_happens_a_draw_is_of_a_family_at_a_level_that_it_has(
    happened: list[str | tuple[Lesson, list[bool]]],
) -> None:
    one = Curriculum(LEVELS, STYLES)
    for each in happened:
        if isinstance(each, str):
            one.asked(each)
        else:
            one.learn(*each)
    stream = Stream(b"seed")
    for _ in range(5):
        lesson = one.next(stream)
        assert 1 <= lesson.level <= LEVELS[lesson.family]
        assert lesson.style in STYLES


def test_the_catalogue_can_be_drawn_from() -> None:
    one = Curriculum({name: family.levels for name, family in CATALOGUE.items()}, STYLES)
    assert set(drawn(one, 1_500)) == set(CATALOGUE)
