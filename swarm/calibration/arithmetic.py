"""Families about numbers: sums, differences, series, units."""

from __future__ import annotations

from typing import cast

from swarm.calibration.task import NAMES, THINGS, Family, Key, near
from swarm.seeded import Stream

UNITS: tuple[tuple[str, str, int], ...] = (
    ("minutes", "hours", 60),
    ("seconds", "minutes", 60),
    ("days", "weeks", 7),
    ("hours", "days", 24),
    ("cm", "m", 100),
    ("months", "years", 12),
)
"""Small unit, large unit, how many of the small make one of the large."""


def numbers(key: Key) -> tuple[int, ...]:
    """The operands, all of which are integers."""
    return cast(tuple[int, ...], key)


def add_steps(first: int, second: int) -> str:
    """Column addition from the units up: ``7+8=15 4+3+1=8`` for 47 + 38."""
    steps = []
    carry = 0
    for _ in range(len(str(max(first, second)))):
        total = first % 10 + second % 10 + carry
        steps.append(f"{first % 10}+{second % 10}{'+1' if carry else ''}={total}")
        first, second, carry = first // 10, second // 10, total // 10
    return " ".join(steps)


def subtract_steps(first: int, second: int) -> str:
    """Column subtraction from the units up: ``13-8=5 3-2=1`` for 43 - 28; ``first >= second``."""
    steps = []
    borrow = 0
    for _ in range(len(str(first))):
        upper, lower = first % 10 - borrow, second % 10
        borrow = int(upper < lower)
        upper += 10 * borrow
        steps.append(f"{upper}-{lower}={upper - lower}")
        first, second = first // 10, second // 10
    return " ".join(steps)


class Story(Family):
    """A family whose wordings may tell of someone who owns things."""

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        return wording.format(*key, name=stream.choice(NAMES), things=stream.choice(THINGS))


class Add(Story):
    """The sum of two numbers up to 99."""

    name = "add"
    wordings = (
        "What is {} + {}?",
        "What is {}+{}?",
        "What is {} plus {}?",
        "Add {} and {}.",
        "{name} has {} {things} and buys {} more. How many {things} does {name} have now?",
        "{name} has {} {things} and finds {} more. How many {things} does {name} have now?",
        "There are {} {things} in one box and {} {things} in another box. "
        "How many {things} are there in total?",
    )

    def draw(self, stream: Stream) -> Key:
        return stream.between(1, 99), stream.between(1, 99)

    def identity(self, key: Key) -> Key:
        return tuple(sorted(numbers(key)))

    def solve(self, key: Key) -> str:
        return str(sum(numbers(key)))

    def steps(self, key: Key) -> str:
        return add_steps(*numbers(key))

    def slip(self, stream: Stream, key: Key) -> str:
        first, second = numbers(key)
        if stream.below(10) == 0:
            return str(abs(first - second))
        return str(near(stream, first + second))


class Sub(Story):
    """The difference of two different numbers up to 99, the larger first."""

    name = "sub"
    wordings = (
        "What is {} - {}?",
        "What is {}-{}?",
        "What is {} minus {}?",
        "Subtract {1} from {0}.",
        "What is the difference between {} and {}?",
        "{name} has {} {things} and gives away {}. How many {things} are left?",
        "{name} has {} {things} and loses {}. How many {things} does {name} have now?",
    )

    def draw(self, stream: Stream) -> Key:
        low, high = sorted(stream.sample(range(1, 100), 2))
        return high, low

    def solve(self, key: Key) -> str:
        first, second = numbers(key)
        return str(first - second)

    def steps(self, key: Key) -> str:
        return subtract_steps(*numbers(key))

    def slip(self, stream: Stream, key: Key) -> str:
        first, second = numbers(key)
        if stream.below(10) == 0:
            return str(first + second)
        return str(near(stream, first - second))


class Series(Family):
    """The fifth term of an arithmetic series; the operands are its first term and its step."""

    name = "series"
    wordings = (
        "What comes next: {}?",
        "Continue the series: {}.",
        "Which number comes after {}?",
    )

    def draw(self, stream: Stream) -> Key:
        step = stream.between(2, 9)
        if stream.below(2):
            return stream.between(1, 99), step
        return stream.between(4 * step, 99), -step

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        start, step = numbers(key)
        return wording.format(", ".join(str(start + place * step) for place in range(4)))

    def solve(self, key: Key) -> str:
        start, step = numbers(key)
        return str(start + 4 * step)

    def steps(self, key: Key) -> str:
        start, step = numbers(key)
        last = start + 3 * step
        if step > 0:
            return f"+{step} {add_steps(last, step)}"
        return f"{step} {subtract_steps(last, -step)}"

    def slip(self, stream: Stream, key: Key) -> str:
        start, step = numbers(key)
        if stream.below(5) == 0:
            return str(abs(start + stream.choice((3, 5)) * step))
        return str(near(stream, start + 4 * step))


class Units(Family):
    """A time or length in a smaller unit; the operands are a row of :data:`UNITS`, how many of
    the large unit, and how many of the small on top."""

    name = "units"
    wordings = ("How many {1} are in {0}?", "Convert {} to {}.", "What is {} in {}?")

    def draw(self, stream: Stream) -> Key:
        row = stream.below(len(UNITS))
        factor = UNITS[row][2]
        extra = stream.between(1, factor - 1) if stream.below(10) < 7 else 0
        return row, stream.between(2, 9), extra

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        row, count, extra = numbers(key)
        small, large, _ = UNITS[row]
        amount = f"{count} {large}" + (f" and {extra} {small}" if extra else "")
        return wording.format(amount, small)

    def solve(self, key: Key) -> str:
        row, count, extra = numbers(key)
        return str(count * UNITS[row][2] + extra)

    def steps(self, key: Key) -> str:
        row, count, extra = numbers(key)
        factor = UNITS[row][2]
        product = f"{count}*{factor}={count * factor}"
        return f"{product} {add_steps(count * factor, extra)}" if extra else product

    def slip(self, stream: Stream, key: Key) -> str:
        row, count, extra = numbers(key)
        factor = UNITS[row][2]
        if stream.below(5) < 2:
            return str((count + stream.choice((-1, 1))) * factor + extra)
        return str(near(stream, count * factor + extra))
