"""What is surely the same is merged; what might differ stays apart."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.answers import classes, key, representative

SAME = [
    ["85", "85.", "85.0", " 85 ", "85.00.", "$85$", "**85**", '"85"', "'85'", "`85`", "“85”",
     "The answer is 85.", "Answer: 85", "the final answer is **85**.", r"\boxed{85}",
     r"$\boxed{85}$", "+85", "８５", "170/2", "85\n", r"The answer is $\boxed{ 85 }$."],
    ["1,000", "1000", "1000.0", "+1,000", "1,000.", "2000 / 2"],
    ["1,234,567.50", "1234567.5"],
    ["-5", "−5", "–5", "-5.0", "-10/2", "$-5$"],
    ["1/2", "0.5", "2/4", "0.50", "1 / 2"],
    ["0", "-0", "0.0", "0/7"],
    ["B", "b", "(B)", "B)", "B.", "(b)", "(B).", "B).", "option B", "Choice (B)", "**B**",
     "Answer: B", "The answer is (B).", r"\boxed{B}"],
    ["Paris", "paris", "PARIS.", "  Paris ", '"Paris"', "The answer is Paris.",
     "**Paris**", "‘Paris’"],
    ["New York", "new   york", "New\nYork."],
    ["Straße", "STRAßE"],
    ["x² + 1", "x^2 + 1"],
    ["10⁻³", "10^-3"],
    ["007", '"007"', "007."],
]  # fmt: skip

APART = [
    ("Paris", "Paris!"),
    ("(n-1)!", "(n-1)"),
    ("10!!", "10!"),
    ("10₂", "102"),
    ("log₂8", "log28"),
    ("٠٧", "7"),
    ("Answer island", "land"),
    ("Maße", "Masse"),
    ("85", "85 apples"),
    ("85", "$85 or 86$"),
    ("85", "58"),
    ("85", "-85"),
    ("85", "85%"),
    ("7", "007"),
    ("7", "07"),
    ("1000", "1,00"),
    ("1000", "01,000"),
    ("1000", "10,00"),
    ("0.5", "1/02"),
    ("0.5", "01/2"),
    ("0", "1/0"),
    ("0", "0/0"),
    ("0", ""),
    ("120", "5!"),
    ("5", "5!"),
    ("102", "10²"),
    ("52", "5²"),
    ("25", "5²"),
    ("10.5", "2½"),
    ("10-3", "10⁻³"),
    ("A", "B"),
    ("A", "AB"),
    ("B", "B C"),
    ("(B", "B"),
    ("B", "8"),
    ("Paris", "Paris, France"),
    ("Paris", "London"),
    ("Paris", "not Paris"),
    ("yes", "no"),
    ("1.5", "15"),
    ("1.5", "1,5"),
    ("85", "85.0.0"),
    ('"a" and "b"', 'a" and "b'),
]


@pytest.mark.parametrize("spellings", SAME, ids=lambda spellings: spellings[0])
def test_spellings_of_one_answer_are_merged(spellings: list[str]) -> None:
    assert len({key(text) for text in spellings}) == 1, {text: key(text) for text in spellings}
    assert classes(spellings) == (tuple(range(len(spellings))),)


@pytest.mark.parametrize(("left", "right"), APART)
def test_what_may_differ_stays_apart(left: str, right: str) -> None:
    assert key(left) != key(right)


def test_the_rows_of_the_table_are_apart() -> None:
    for left, right in combinations(SAME, 2):
        assert key(left[0]) != key(right[0])


def test_kinds() -> None:
    assert key("85.0") == ("number", "85")
    assert key("2/6") == ("number", "1/3")
    assert key("(c)") == ("choice", "c")
    assert key("Paris.") == ("text", "paris")
    assert key("1" * 41) == ("text", "1" * 41)
    assert key("1" * 40) == ("number", "1" * 40)


def test_missing_answers_are_in_no_class() -> None:
    assert classes(["a b", None, "A B", "c d", None]) == ((0, 2), (3,))
    assert classes([None, None]) == ()
    assert classes([]) == ()


def test_classes_are_in_the_order_of_their_first_members() -> None:
    assert classes(["z", "a", "Z", "m", "A"]) == ((0, 2), (1, 4), (3,))


texts = st.lists(
    st.one_of(
        st.none(), st.sampled_from([text for row in SAME for text in row]), st.text(max_size=12)
    ),
    max_size=12,
)


@given(texts)
def test_classes_partition_the_answers(answers: list[str | None]) -> None:
    found = classes(answers)
    members = [member for one in found for member in one]
    assert sorted(members) == [at for at, text in enumerate(answers) if text is not None]
    assert all(one and list(one) == sorted(one) for one in found)
    firsts = [one[0] for one in found]
    assert firsts == sorted(firsts)


@given(texts, st.randoms(use_true_random=False))
def test_the_partition_does_not_depend_on_the_order(answers: list[str | None], chance) -> None:
    order = list(range(len(answers)))
    chance.shuffle(order)
    again = classes([answers[at] for at in order])
    there = {frozenset(order[at] for at in one) for one in again}
    assert there == {frozenset(one) for one in classes(answers)}


@given(st.text(max_size=40))
def test_a_key_is_stable_under_spacing_and_quotes(text: str) -> None:
    kind, value = key(text)
    assert kind in ("number", "choice", "text")
    assert key(f"  {text}\n") == (kind, value)
    assert isinstance(value, str)


@given(st.fractions(max_denominator=10**6))
def test_equal_numbers_are_equal_however_written(number) -> None:
    assert key(f"{number.numerator}/{number.denominator}") == key(
        f"{3 * number.numerator}/{3 * number.denominator}"
    )
    assert key(str(number)) == ("number", str(number))


@pytest.mark.parametrize(
    "text",
    [
        "9" * 16_384,
        "1/" + "9" * 16_382,
        "1," * 8_192,
        "answer:" * 2_340,
        "$" * 16_384,
        "**" * 8_192,
        "`'" * 8_192,
        r"\boxed{" * 2_340 + "}" * 2_340,
        "(" * 16_384,
        ". " * 8_192,
        "²" * 16_384,
    ],
    ids=lambda text: text[:7],
)
def test_hostile_text_of_full_length_is_text(text: str) -> None:
    """None of these may reach exact arithmetic, or make a pattern backtrack without end."""
    assert key(text)[0] == "text"


def test_the_commonest_spelling_stands_for_a_class() -> None:
    texts = ["85.0", "85", None, "85", "86", "85.0", "85"]
    assert representative(texts, (0, 1, 3, 5, 6)) == "85"
    assert representative(texts, (0, 1)) == "85", "of equals the shortest"
    assert representative(["ab", "AB"], (0, 1)) == "ab", "then the first"
    assert representative(texts, (4,)) == "86"


def test_a_class_of_nobody_has_no_representative() -> None:
    with pytest.raises(ValueError, match="empty"):
        representative([None], (0,))
