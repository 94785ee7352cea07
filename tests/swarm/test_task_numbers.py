"""Questions about numbers, read back from their text and answered anew by brute force."""

from __future__ import annotations

import re
from datetime import date, timedelta
from math import gcd

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.calibration.conversions import amount, plural, rates_of
from swarm.calibration.counting import Divisible, Survey
from swarm.calibration.dates import DAYS, MONTHS, date_of, day_number, iso, weekday
from swarm.calibration.expressions import digits_of
from swarm.calibration.families import CATALOGUE, Style, Task
from swarm.calibration.formula import evaluate
from swarm.seeded import Stream

NUMBER = re.compile(r"\d+")


def levels(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("level", range(1, CATALOGUE[name].levels + 1))


def tasks(name: str, level: int, count: int = 40, style: Style = "plain") -> list[Task]:
    stream = Stream(f"read/{name}/{level}/{style}".encode())
    family = CATALOGUE[name]
    return [family.make(stream, family.draw(stream, level), level, style) for _ in range(count)]


# --- expressions ------------------------------------------------------------------------------


@levels("expression")
@pytest.mark.parametrize("style", ["plain", "free"])
def test_an_expression_is_worth_what_python_says(level: int, style: Style) -> None:
    for task in tasks("expression", level, style=style):
        found = max(re.findall(r"[\d(](?:[\d\s+\-*×/()]|mod)*", task.question), key=len)
        assert len(NUMBER.findall(found)) == len(NUMBER.findall(str(task.key[0])))
        text = found.replace("×", "*").replace("mod", "%").strip()
        assert eval(text) == int(task.answer)  # of digits and operators alone


@levels("expression")
def test_division_comes_out_even_and_mod_never_meets_a_negative(level: int) -> None:
    for task in tasks("expression", level):
        inner = re.findall(r"\((\d+) (/|mod) (\d+)\)", str(task.key[0]))
        assert len(inner) == len(re.findall(r"/|mod", str(task.key[0])))
        for left, sign, right in inner:
            assert sign == "mod" or int(left) % int(right) == 0


@given(st.recursive(
    st.integers(0, 999).map(str),
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(
        lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
    ),
    max_leaves=20,
))  # fmt: skip
def test_a_formula_is_worth_what_python_says(text: str) -> None:
    assert evaluate(text) == eval(text)


@given(
    st.lists(st.integers(1, 99), min_size=2, max_size=8),
    st.lists(st.sampled_from(["+", "-", "*", "//", "%"]), min_size=7, max_size=7),
)
def test_precedence_is_pythons(values: list[int], signs: list[str]) -> None:
    text = str(values[0])
    for sign, value in zip(signs, values[1:], strict=False):
        text += f" {sign} {value}"
    assert evaluate(text) == eval(text)
    assert evaluate(text.replace("%", "mod")) == eval(text)


@pytest.mark.parametrize(
    "text",
    ["", "1 +", "(1", "1)", "1 1", "* 2", "1 / 0", "7 / 2", "5 % 0", "1 $ 2", "mod", "- 3", "()"],
)
def test_what_is_no_formula_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"formula|bracket|whole value|number"):
        evaluate(text)


def test_variables_need_values() -> None:
    assert evaluate("x * (y + 1)", {"x": 3, "y": 4}) == 15
    with pytest.raises(KeyError):
        evaluate("x + 1")


@levels("power")
def test_a_power_is_reduced_step_by_step(level: int) -> None:
    for task in tasks("power", level):
        base, exponent, modulus = map(int, task.key)
        assert f"{base}^{exponent}" in task.question
        assert NUMBER.findall(task.question) == [str(base), str(exponent), str(modulus)]
        if exponent < 10_000:
            found = 1
            for _ in range(exponent):
                found = found * base % modulus
            assert int(task.answer) == found
        else:  # Euler's theorem, where it holds, says the same of a smaller exponent
            assert 0 <= int(task.answer) < modulus
            assert (
                int(task.answer)
                == pow(base, exponent // 2, modulus)
                * pow(base, exponent - exponent // 2, modulus)
                % modulus
            )


@levels("base")
def test_a_number_in_another_base_is_the_same_number(level: int) -> None:
    names = {"binary": 2, "octal": 8, "decimal": 10, "hexadecimal": 16}
    base = r"(binary|octal|decimal|hexadecimal|base \d+)"
    for task in tasks("base", level):
        match = re.match(rf"Convert (\w+) from {base} to {base}\.", task.question)
        if match is None:
            match = re.match(rf"What is the {base} number (\w+) in {base}\?", task.question)
            assert match is not None
            source, digits, target = match.groups()
        else:
            digits, source, target = match.groups()
        bases = [names.get(one) or int(one.split()[1]) for one in (source, target)]
        assert bases[0] != bases[1]
        assert int(digits, bases[0]) == int(task.answer, bases[1])


@given(st.integers(0, 10**20), st.integers(2, 16))
def test_digits_can_be_read_back(value: int, base: int) -> None:
    assert int(digits_of(value, base), base) == value


# --- counting ---------------------------------------------------------------------------------


def counted(low: int, high: int, what: str, divisors: list[int]) -> int:
    span = np.arange(low, high + 1, dtype=np.int64)
    first, *others = [span % divisor == 0 for divisor in divisors]
    some = np.logical_or.reduce([first, *others])
    chosen = {"any": some, "none": ~some}.get(what)
    if chosen is None:
        chosen = first & ~np.logical_or.reduce(others)
    return int(chosen.sum())


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_multiples_are_counted_one_by_one(level: int) -> None:
    for task in tasks("divisible", level, 25):
        low, high, *divisors = map(int, NUMBER.findall(task.question))
        mode = (
            "none"
            if "by neither" in task.question
            else "but" if " but " in task.question else "any"
        )  # fmt: skip
        assert counted(low, high, mode, divisors) == int(task.answer)


@pytest.mark.parametrize("mode", ["any", "none", "but"])
@pytest.mark.parametrize("level", [5, 6])
def test_ranges_add_up_where_they_are_too_long_to_count(level: int, mode: str) -> None:
    family = Divisible()
    for task in tasks("divisible", level, 15):
        low, high, _, *divisors = task.key

        def solved(start: int, end: int, how: str = mode, of: list[int | str] = divisors) -> int:
            return int(family.solve((start, end, how, *of)))

        low, high = int(low), int(high)
        middle = low + 5_000
        assert solved(low, high) == solved(low, middle) + solved(middle + 1, high)
        assert solved(low, middle) == counted(low, middle, mode, [int(one) for one in divisors])
        assert solved(low, high, "any") + solved(low, high, "none") == high - low + 1


@levels("survey")
def test_a_survey_has_people_in_every_region(level: int) -> None:
    """The sizes given determine the regions of the diagram, and these the answer."""
    for task in tasks("survey", level):
        asked, total, *rest = task.key
        count = 2 if len(task.key) == 7 else 3
        sizes = [int(size) for size in rest[:-count]]
        masks = [1, 2, 3] if count == 2 else [1, 2, 4, 3, 5, 6, 7]
        rows = [[float(region & mask == mask) for region in range(2**count)] for mask in masks]
        known = sizes.copy()
        if asked == "all":  # the last size given is of those in no set
            rows[-1] = [float(region == 0) for region in range(2**count)]
        regions = np.linalg.solve(np.array([*rows, [1.0] * 2**count]), np.array([*known, total]))
        assert np.allclose(regions, regions.round())
        assert (regions > 0.5).all()
        inside = [bin(region).count("1") for region in range(2**count)]
        wanted = {"neither": 0, "one": 1, "two": 2, "all": 3}[str(asked)]
        expected = sum(r for r, many in zip(regions, inside, strict=True) if many == wanted)
        assert round(expected) == int(task.answer)
        assert sorted(map(int, NUMBER.findall(task.question))) == sorted([int(total), *sizes])


def test_a_survey_of_named_people() -> None:
    chess, judo = {"Ann", "Bo", "Cy"}, {"Cy", "Di"}
    people = chess | judo | {"Ed", "Flo"}
    key = (len(people), len(chess), len(judo), len(chess & judo), "chess", "judo")
    assert Survey().solve(("neither", *key)) == str(len(people - chess - judo))
    assert Survey().solve(("one", *key)) == str(len(chess ^ judo))


@levels("smallest")
def test_no_smaller_number_will_do(level: int) -> None:
    for task in tasks("smallest", level, 20):
        answer = int(task.answer)
        floor = int(NUMBER.findall(task.question)[0])
        span = np.arange(floor + 1, answer + 1, dtype=np.int64)
        fits = np.ones(len(span), dtype=bool)
        conditions = 0
        for remainder, divisor in re.findall(r"of (\d+) when divided by (\d+)", task.question):
            fits &= span % int(divisor) == int(remainder)
            conditions += 1
        for divisor in re.findall(r"divisible by (\d+)", task.question):
            fits &= span % int(divisor) == 0
            conditions += 1
        for total in re.findall(r"digits that add up to (\d+)", task.question):
            fits &= sum(span // 10**place % 10 for place in range(9)) == int(total)
            conditions += 1
        assert conditions == len(task.key) - 1
        assert span[fits].tolist() == [answer]


def test_the_sum_of_digits_matters() -> None:
    family = CATALOGUE["smallest"]
    changed = sum(
        family.solve(task.key) != family.solve(task.key[:-1]) for task in tasks("smallest", 5)
    )
    assert changed > 30


# --- trades -----------------------------------------------------------------------------------


@levels("chain")
def test_prices_that_fit_all_trades_give_the_answer(level: int) -> None:
    single = {plural(good): good for fact in tasks("chain", level) for good in goods(fact)}
    pattern = re.compile(r"(\d+) (\w+) (?:trades? for|(?:is|are) worth|buys?|can be swapped for) "
                         r"(\d+) (\w+)\.")  # fmt: skip
    for task in tasks("chain", level):
        rates = [
            (int(left), single.get(first, first), int(right), single.get(second, second))
            for left, first, right, second in pattern.findall(task.question)
        ]
        assert sorted(rates) == sorted(rates_of(task.key))
        count, source, target = int(task.key[0]), str(task.key[1]), str(task.key[2])
        assert amount(count, source) in task.question
        assert plural(target) in task.question
        names = sorted(goods(task))
        rows = np.zeros((len(rates), len(names)))
        sums = np.zeros(len(rates))
        for row, (left, first, right, second) in enumerate(rates):
            # log price: left of the first are worth right of the second
            rows[row, names.index(first)], rows[row, names.index(second)] = 1.0, -1.0
            sums[row] = np.log(right / left)
        prices, *_ = np.linalg.lstsq(rows, sums)
        assert np.allclose(rows @ prices, sums)
        worth = count * np.exp(prices[names.index(source)] - prices[names.index(target)])
        assert worth == pytest.approx(int(task.answer), rel=1e-6)


def goods(task: Task) -> set[str]:
    return {good for _, first, _, second in rates_of(task.key) for good in (first, second)}


# --- dates ------------------------------------------------------------------------------------

FIRST = day_number(1, 1, 1)


@given(st.dates())
def test_days_are_numbered_as_datetime_does(day: date) -> None:
    number = day_number(day.year, day.month, day.day)
    assert number - FIRST == (day - date(1, 1, 1)).days
    assert date_of(number) == (day.year, day.month, day.day)
    assert iso(number) == day.isoformat()
    assert weekday(number) == day.weekday()


def test_every_day_of_four_centuries_follows_the_one_before() -> None:
    start = day_number(1999, 12, 31)
    for number in range(start, start + 146_097):
        year, month, day = date_of(number)
        assert day_number(year, month, day) == number


def read_date(text: str) -> date:
    if found := re.search(r"\d{4}-\d\d-\d\d", text):
        return date.fromisoformat(found[0])
    months = "|".join(MONTHS)
    if found := re.search(rf"(\d+) ({months}) (\d{{4}})", text):
        day, month, year = found.groups()
    else:
        found = re.search(rf"({months}) (\d+), (\d{{4}})", text)
        assert found is not None
        month, day, year = found.groups()
    return date(int(year), MONTHS.index(month) + 1, int(day))


@levels("weekday")
@pytest.mark.parametrize("style", ["plain", "free"])
def test_weekdays_are_those_of_datetime(level: int, style: Style) -> None:
    for task in tasks("weekday", level, style=style):
        away = re.search(r"(\d+) days? (after|before) ", task.question)
        days = int(away[1]) * (1 if away[2] == "after" else -1) if away else 0
        if level <= 2:
            start = re.search(rf"(?:after|before) a ({'|'.join(DAYS)})", task.question)
            assert start is not None
            expected = (DAYS.index(start[1]) + days) % 7
        else:
            expected = (read_date(task.question) + timedelta(days)).weekday()
        assert task.answer == DAYS[expected]


@levels("date")
@pytest.mark.parametrize("style", ["plain", "free"])
def test_dates_are_those_of_datetime(level: int, style: Style) -> None:
    for task in tasks("date", level, style=style):
        away = re.search(r"(\d+) days? (after|before) ", task.question)
        assert away is not None
        days = int(away[1]) * (1 if away[2] == "after" else -1)
        assert task.answer == (read_date(task.question) + timedelta(days)).isoformat()
        assert "YYYY-MM-DD" in task.question.upper()


@pytest.mark.parametrize("name", ["weekday", "date"])
def test_old_dates_name_the_calendar(name: str) -> None:
    for task in tasks(name, 6):
        old = read_date(task.question).year < 1920
        assert ("Gregorian" in task.question) is old


# --- recurrences and stories ------------------------------------------------------------------


@levels("recurrence")
def test_a_recurrence_is_followed_from_its_words(level: int) -> None:
    befores = ("the one before that one", "the one before that", "the term before it")
    for task in tasks("recurrence", level):
        text = task.question
        found = re.search(
            r"first terms? (?:is|are) ([\d, and]+)\. Every later term is (.*?)"
            r"(?:, but of that only the remainder when divided by (\d+))?\. ",
            text,
        )
        place = re.search(r"term number (\d+)", text)
        assert found is not None
        assert place is not None
        terms = [int(term) for term in NUMBER.findall(found[1])]
        rule, modulus = found[2], found[3]
        assert rule.startswith("the sum of ") or " and " not in rule
        while len(terms) < int(place[1]):
            total, rest = 0, rule
            for distance, before in ((3, befores[0]), (2, befores[1]), (1, befores[2])):
                times = re.search(rf"(?:(\d+) times )?{before}(?! one)", rest)
                if times:
                    total += int(times[1] or 1) * terms[-distance]
                    rest = rest.replace(times[0], "")
            total += sum(map(int, NUMBER.findall(rest)))
            terms.append(total % int(modulus) if modulus else total)
        assert terms[int(place[1]) - 1] == int(task.answer)


@levels("tale")
def test_a_tale_tells_its_numbers_and_adds_up(level: int) -> None:
    scenes = set()
    for task in tasks("tale", level, 60):
        scene, first, *rest = task.key
        scenes.add(scene)
        told = [int(number) for number in NUMBER.findall(task.question)]
        pairs = [tuple(str(step).split(":")) for step in rest if ":" in str(step)]
        if scene == "keep":
            assert told == [int(first), *(int(count) for _, count in pairs)]
            value = int(first)
            for sign, count in pairs:
                if sign == "/":
                    assert value % int(count) == 0
                value = {"+": value.__add__, "-": value.__sub__, "*": value.__mul__,
                         "/": value.__floordiv__}[sign](int(count))  # fmt: skip
                assert value > 0
        elif scene == "wage":
            spent, *hours = map(int, rest)
            assert sorted(told) == sorted([int(first), spent, *hours])
            value = int(first) * sum(hours) - spent
        else:
            assert sorted(told) == sorted([int(first), *(int(n) for pair in pairs for n in pair)])
            value = int(first) - sum(int(count) * int(each) for count, each in pairs)
        assert value == int(task.answer)
        assert value > 0
    assert scenes == {"keep", "shop", "wage", "trip"}


def test_the_conditions_of_a_smallest_number_can_be_met_together() -> None:
    for level in (3, 4, 5, 6):
        for task in tasks("smallest", level, 20):
            divisors = [
                int(part.split(":")[0]) for part in map(str, task.key[1:]) if part[0] != "s"
            ]
            assert all(gcd(a, b) == 1 for a in divisors for b in divisors if a != b)
