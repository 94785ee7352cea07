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
    """The largest or smallest of two decimals or three whole numbers, then of more decimals."""

    name = "compare"
    levels = 5
    wordings = ("Which is {what}, {options}?", "Which number is {what}: {options}?")
    asks = (
        "[Which|Which one|What] is {what}, {options}?",
        "Which [number|of these|of these numbers] is {what}: {options}?",
        "{options}: which [one |]is {what}?",
        "[Tell me|Pick|Name|Find] the {what} of these: {options}.",
        "[Out of|Of] {options}, which is [the |]{what}?",
        "<name> has to [choose|pick|mark] the {what}: {options}. Which one is it?",
        "I [measured|read|got|noted] {options}. Which [value |reading |]is {what}?",
        "Is it {options} that is {what}?",
    )
    hint = "[Just|Only] the number[, please|]."
    _MANY = ((0, 0), (3, 3), (5, 4), (8, 5), (14, 6))
    """How many decimals to choose from, and their places, at levels 2 to 5."""

    def draw(self, stream: Stream, level: int = 1) -> Key:
        if level > 1:
            return self._crowd(stream, *self._MANY[level - 1])
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

    def _crowd(self, stream: Stream, count: int, places: int) -> Key:
        """Different decimals that mostly share their first digits."""
        start = _decimal(stream, stream.below(100), places)
        found = {float(start): start}
        while len(found) < count:
            kept = stream.between(len(start) - places, len(start) - 1)
            tail = "".join(str(stream.below(10)) for _ in range(stream.between(1, places)))
            option = (start[:kept] + tail)[: len(start)]
            found.setdefault(float(option), option)
        options = list(found.values())
        stream.shuffle(options)
        return (stream.choice(("largest", "smallest")), *options)

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
    """Numbers in ascending or descending order: three or four under 100, then ever more."""

    name = "sort"
    wordings = (
        "Sort these numbers in {order} order: {numbers}.",
        "Put {numbers} in {order} order.",
    )
    levels = 5
    asks = (
        "[Sort|Order|Arrange] [these|these numbers|the following] in {order} order: {numbers}.",
        "[Put|Write|List] {numbers} in {order} order[.|, please.]",
        "{numbers}: what is the {order} order?",
        "What [are|would be] these numbers in {order} order: {numbers}?",
        "<name> [drew|rolled|scored|wrote down] {numbers}. [List|Give|Write] them in {order} "
        "order.",
        "[Can you|Could you|Please] [sort|order] {numbers} [so that they are in|in] {order} order?",
        "[House numbers|Ticket numbers|Page numbers|Readings]: {numbers}. In {order} order, "
        "[how do they go|what is the list]?",
        "I need {numbers} in {order} order.",
    )
    hint = "[Just|Only] the [numbers|list], [with commas|separated by commas]."
    _SIZES = ((3, 4, 99), (5, 6, 999), (8, 10, 999), (13, 16, 9_999), (24, 30, 99_999))
    """Fewest and most numbers, and the largest, at each level."""

    def draw(self, stream: Stream, level: int = 1) -> Key:
        fewest, most, top = self._SIZES[level - 1]
        if level > 1:
            count = stream.between(fewest, most)
            found: dict[int, None] = {}
            while len(found) < count:
                found[stream.between(1, top)] = None
            return (stream.choice(("ascending", "descending")), *found)
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
    """Which two of some numbers have a given sum; the operands are the sum and the numbers."""

    name = "pick"
    levels = 5
    wordings = (
        "Which two of {these} add up to {total}?",
        "Which two of these numbers sum to {total}: {list}?",
    )
    asks = (
        "Which two of {these} [add up to|make|give|sum to] {total}?",
        "Which two [of these numbers|numbers] [sum to|add up to|give] {total}: {list}?",
        "[Find|Name|Pick] [the two|two numbers] in {list} [that|which] [sum to|add up to] {total}.",
        "[From|Out of] {these}, which [pair|two] [makes|comes to] {total}?",
        "I need [exactly |]{total} from two of these: {list}. Which two?",
        "<name> pays {total} with two of <his> [vouchers|cards|tokens], which are worth {list}. "
        "Which two does <he> use?",
        "Two of the weights {list} [balance|together weigh] {total}. Which two?",
        "{total} is the sum of two of {these}. [Which ones|Which two]?",
    )
    hint = '[Answer like|Write it as] "3 and 4"[, please|].'
    _SIZES = ((4, 69), (6, 99), (9, 499), (14, 2_999), (22, 4_999))
    """How many numbers, and the largest, at each level."""

    def draw(self, stream: Stream, level: int = 1) -> Key:
        count, top = self._SIZES[level - 1]
        while True:
            some = stream.sample(range(2, top + 1), count)
            sums = [first + second for first, second in combinations(some, 2)]
            total = stream.choice(sums)
            if sums.count(total) == 1:
                return total, *some

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        total, *some = map(str, key)
        these = f"{', '.join(some[:-1])} and {some[-1]}"
        return wording.format(total=total, these=these, list=", ".join(some))

    def identity(self, key: Key) -> Key:
        return key[0], *sorted(numbers(key[1:]))

    def solve(self, key: Key) -> str:
        total, *some = numbers(key)
        for first, second in combinations(some, 2):
            if first + second == total:
                return f"{first} and {second}"
        raise ValueError("no two of the operands have this sum")

    def matches(self, key: Key, text: str) -> bool:
        match = _PAIR.fullmatch(text.strip())
        if not match:
            return False
        first, second = int(match[1]), int(match[2])
        total, *some = numbers(key)
        return first != second and {first, second} <= set(some) and first + second == total

    def slip(self, stream: Stream, key: Key) -> str:
        total, *some = numbers(key)
        if stream.below(7) == 0:
            kept = stream.choice(some)
            return f"{kept} and {abs(total - kept)}"
        places = sorted(stream.sample(range(len(some)), 2))
        return f"{some[places[0]]} and {some[places[1]]}"
