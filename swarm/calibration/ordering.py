"""Families about order: compare, sort, pick the two that sum."""

from __future__ import annotations

import re
from itertools import combinations

from swarm.calibration.arithmetic import numbers
from swarm.calibration.task import Family, Key, swap
from swarm.seeded import Stream

_PAIR = re.compile(r"(\d{1,4}) (?:and|\+) (\d{1,4})\.?")


def _decimal(stream: Stream, whole: int, places: int) -> str:
    digits = "".join(str(stream.below(10)) for _ in range(places))
    return f"{whole}.{digits}" if digits else str(whole)


class Compare(Family):
    """The largest or smallest of two decimals or three whole numbers."""

    name = "compare"
    wordings = ("Which is {what}, {options}?", "Which number is {what}: {options}?")

    def draw(self, stream: Stream) -> Key:
        if stream.below(10) < 3:
            chosen = stream.sample(range(1, 201), 3)
            return (stream.choice(("largest", "smallest")), *map(str, chosen))
        while True:
            whole = stream.below(10)
            # Mostly the same whole part: that is where 4.35 passes for more than 4.5.
            other = whole if stream.below(10) < 6 else stream.below(10)
            first = _decimal(stream, whole, stream.below(4))
            second = _decimal(stream, other, stream.below(4))
            if float(first) != float(second):
                return stream.choice(("larger", "smaller")), first, second

    def identity(self, key: Key) -> Key:
        return tuple(sorted(map(str, key[1:])))

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        *head, last = map(str, key[1:])
        return wording.format(what=key[0], options=f"{', '.join(head)} or {last}")

    def solve(self, key: Key) -> str:
        best = max if str(key[0]).startswith("larg") else min
        return str(best(key[1:], key=float))

    def slip(self, stream: Stream, key: Key) -> str:
        return str(stream.choice(key[1:]))


class Sort(Family):
    """Three or four numbers under 100 in ascending or descending order."""

    name = "sort"
    wordings = (
        "Sort these numbers in {order} order: {numbers}.",
        "Put {numbers} in {order} order.",
    )

    def draw(self, stream: Stream) -> Key:
        chosen = stream.sample(range(1, 100), stream.between(3, 4))
        return (stream.choice(("ascending", "descending")), *chosen)

    def identity(self, key: Key) -> Key:
        return tuple(sorted(numbers(key[1:])))

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        return wording.format(order=key[0], numbers=", ".join(map(str, key[1:])))

    def solve(self, key: Key) -> str:
        ordered = sorted(numbers(key[1:]), reverse=key[0] == "descending")
        return ", ".join(map(str, ordered))

    def matches(self, key: Key, text: str) -> bool:
        return re.findall(r"\d+", text) == re.findall(r"\d+", self.solve(key)) and not re.search(
            r"[A-Za-z]", text
        )

    def slip(self, stream: Stream, key: Key) -> str:
        items = self.solve(key).split(", ")
        at = stream.below(len(items))
        kind = stream.below(20)
        if kind < 9:
            swap(stream, items)
        elif kind < 12:
            items.reverse()
        elif kind < 16:
            items[at] = str(stream.choice((int(items[at]) + 1, stream.between(1, 99))))
        elif kind < 18:
            del items[at]
        else:
            items = [str(operand) for operand in key[1:]]
        return ", ".join(items)


class Pick(Family):
    """Which two of four numbers have a given sum; the operands are the sum and the four."""

    name = "pick"
    wordings = (
        "Which two of {1}, {2}, {3} and {4} add up to {0}?",
        "Which two of these numbers sum to {0}: {1}, {2}, {3}, {4}?",
    )

    def draw(self, stream: Stream) -> Key:
        while True:
            four = stream.sample(range(2, 70), 4)
            sums = [first + second for first, second in combinations(four, 2)]
            total = stream.choice(sums)
            if sums.count(total) == 1:
                return total, *four

    def identity(self, key: Key) -> Key:
        return key[0], *sorted(numbers(key[1:]))

    def solve(self, key: Key) -> str:
        total, *four = numbers(key)
        for first, second in combinations(four, 2):
            if first + second == total:
                return f"{first} and {second}"
        raise ValueError("no two of the operands have this sum")

    def matches(self, key: Key, text: str) -> bool:
        match = _PAIR.fullmatch(text.strip())
        if not match:
            return False
        first, second = int(match[1]), int(match[2])
        total, *four = numbers(key)
        return first != second and {first, second} <= set(four) and first + second == total

    def slip(self, stream: Stream, key: Key) -> str:
        total, *four = numbers(key)
        if stream.below(7) == 0:
            kept = stream.choice(four)
            return f"{kept} and {abs(total - kept)}"
        places = sorted(stream.sample(range(4), 2))
        return f"{four[places[0]]} and {four[places[1]]}"
