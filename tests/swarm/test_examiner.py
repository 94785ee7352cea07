"""Calibration questions: never twice, known answers, and hidden ones look like real ones."""

from __future__ import annotations

import pytest

from swarm.calibration.detect import Row, detect
from swarm.calibration.families import FAMILIES, sample
from swarm.calibration.items import parse
from swarm.calibration.source import ExhaustedError
from swarm.examiner import BATCH, TRAFFIC, TRAFFIC_FEWEST, Examiner, Posed
from swarm.seeded import Stream


def real(count: int, seed: bytes = b"real") -> list[str]:
    """Plain questions of the bundled families, from operands kept for evaluation."""
    stream = Stream(seed)
    return [sample(stream, "test").question for _ in range(count)]


def busy(seed: bytes = b"secret", count: int = 200) -> Examiner:
    """An examiner that has seen real questions."""
    found = Examiner(seed)
    for question in real(count):
        found.asked(question, "")
    return found


def test_no_problem_is_posed_twice() -> None:
    examiner = busy()
    posed = [examiner.draw(hidden=bool(number % 3)) for number in range(3 * BATCH)]
    assert len({one.name for one in posed}) == len(posed)
    assert len({one.item.question for one in posed}) == len(posed)
    assert all(one.item.is_right(one.item.answers[0]) for one in posed)


def test_what_earlier_runs_posed_is_not_posed_again() -> None:
    first = [Examiner(b"same").draw(hidden=False) for _ in range(1)]
    again = Examiner(b"same", posed=[one.name for one in first])
    assert again.draw(hidden=False).name not in {one.name for one in first}


def test_the_same_secret_poses_the_same() -> None:
    def run() -> list[Posed]:
        examiner = busy()
        return [examiner.draw(hidden=True) for _ in range(BATCH + 2)]

    assert run() == run()


def test_hidden_tasks_are_not_told_from_the_questions_they_go_with() -> None:
    examiner = busy(count=TRAFFIC)
    hidden = [examiner.draw(hidden=True).item.question for _ in range(6 * BATCH)]
    rows = [Row(text, (), True) for text in hidden]
    rows += [Row(text, (), False) for text in real(2 * TRAFFIC, b"others")]
    disguised = detect(rows).text
    plain = Examiner(b"undisguised")
    bare = [Row(plain.draw(hidden=False).item.question, (), True) for _ in range(6 * BATCH)]
    undisguised = detect([*bare, *rows[6 * BATCH :]]).text
    assert undisguised.value > 0.8, "the catalogue is wider than what is asked"
    assert disguised.low < 0.6


def test_without_enough_questions_there_is_nothing_to_imitate() -> None:
    few = busy(count=TRAFFIC_FEWEST - 1)
    assert few.draw(hidden=True) == busy(count=TRAFFIC_FEWEST - 1).draw(hidden=False)


def test_private_questions_join_and_are_used_up() -> None:
    text = "\n".join(
        f'{{"question": "Q{n}?", "answer": "A{n}", "topic": "ours"}}' for n in range(5)
    )
    examiner = Examiner(b"private", private=parse(text))
    posed = [examiner.draw(hidden=False) for _ in range(60)]
    own = [one for one in posed if one.item.origin == "private"]
    assert sorted(one.item.question for one in own) == [f"Q{n}?" for n in range(5)]
    assert {one.task for one in own} == {""}
    kept = Examiner(b"private", posed=[one.name for one in own], private=parse(text))
    assert all(kept.draw(hidden=False).item.origin == "generated" for _ in range(20))


def test_the_task_names_family_level_and_style() -> None:
    family, level, style = busy().draw(hidden=True).task.split("/")
    assert int(level) >= 1
    assert style in ("plain", "free")
    assert family


def test_a_spent_curriculum_says_so() -> None:
    examiner = Examiner(b"spent")
    for cell in examiner.curriculum._cells.values():
        cell.spent = True
    with pytest.raises(ExhaustedError):
        examiner.draw(hidden=False)


def test_topics_that_are_asked_for_come_more_often() -> None:
    examiner = Examiner(b"wanted")
    for question in real(40):
        examiner.asked(question, "sort")
    drawn = [examiner.draw(hidden=False).task.split("/")[0] for _ in range(60)]
    assert drawn.count("sort") > 3 * 60 / len(FAMILIES) / 2
