"""Families about how many: multiples in a range, members of sets, the smallest number such that."""

from __future__ import annotations

from itertools import combinations
from math import gcd, lcm

from swarm.calibration.arithmetic import numbers
from swarm.calibration.task import Family, Key, near
from swarm.seeded import Stream


def _joined(items: list[str], last: str) -> str:
    """``a, b or c``."""
    return f"{', '.join(items[:-1])} {last} {items[-1]}" if len(items) > 1 else items[0]


class Divisible(Family):
    """How many whole numbers of a range are divisible by some numbers.

    The operands are both ends (included), a mode and the divisors: ``any`` of them, ``none`` of
    them, or ``but``: the first and none of the others.
    """

    name = "divisible"
    levels = 6
    wordings = (
        "How many whole numbers from {low} to {high}, both included, are {what}?",
        "Between {low} and {high}, both included, how many whole numbers are {what}?",
    )
    asks = (
        "How many [whole numbers|integers] from {low} to {high}[, both included,| inclusive] are "
        "{what}?",
        "[Between|From] {low} and {high}, [both included|counting both ends], how many [numbers|"
        "integers] are {what}?",
        "[Count|Find the number of] [the integers|all integers|whole numbers] from {low} to {high} "
        "inclusive that are {what}.",
        "[Tickets|Lockers|Seats|Houses|Pages] are numbered {low} to {high}. How many of [the "
        "numbers|them] are {what}?",
        "<name> writes down every whole number from {low} up to and including {high} and [circles|"
        "crosses out] those that are {what}. How many [is that|does <he> mark]?",
        "In the list {low}, ..., {high} of consecutive integers, how many are {what}?",
        "A loop runs over all integers n with {low} <= n <= {high}. For how many is n {what}?",
        "[What is the number|How many are there] of integers n from {low} to {high} inclusive such "
        "that n is {what}?",
    )
    hint = "[Just|Only] the [number|count][, please|]."
    _SHAPES = (
        (1, 100, 1, (3, 12), ("any",)),
        (100, 1_000, 2, (3, 20), ("any",)),
        (1_000, 10_000, 2, (4, 30), ("any", "none", "but")),
        (10**4, 10**6, 3, (4, 40), ("any", "none", "but")),
        (10**6, 10**9, 3, (6, 120), ("any", "none", "but")),
        (10**9, 10**12, 4, (6, 120), ("any", "none", "but")),
    )
    """Smallest and largest number, how many divisors and of what size, and the modes."""

    def draw(self, stream: Stream, level: int = 1) -> Key:
        least, top, count, (low, high), modes = self._SHAPES[level - 1]
        start = stream.between(1, least) if level > 1 else stream.between(1, top // 2)
        end = stream.between(max(start + 10, top // 3), top)
        while True:
            divisors = sorted(stream.sample(range(low, high + 1), count))
            if all(b % a for a, b in combinations(divisors, 2)):
                stream.shuffle(divisors)
                return start, end, stream.choice(modes), *divisors

    def identity(self, key: Key) -> Key:
        fixed = 4 if key[2] == "but" else 3
        return *key[:fixed], *sorted(numbers(key[fixed:]))

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        low, high, mode, *divisors = map(str, key)
        if mode == "any":
            what = f"divisible by {_joined(divisors, 'or')}"
            # "a or b" may be heard as "but not both"
            what += f" ({'or both' if len(divisors) == 2 else 'at least one of them'})" * (
                len(divisors) > 1
            )
        elif mode == "none":
            what = f"divisible by neither {_joined(divisors, 'nor')}"
        else:
            others = divisors[1:]
            neither = f"neither {_joined(others, 'nor')}" if len(others) > 1 else f"not {others[0]}"
            what = f"divisible by {divisors[0]} but {neither}"
        return wording.format(low=low, high=high, what=what)

    def solve(self, key: Key) -> str:
        low, high = numbers(key[:2])
        mode, divisors = key[2], numbers(key[3:])
        if mode == "any":
            return str(_multiples_of_any(low, high, divisors))
        if mode == "none":
            return str(high - low + 1 - _multiples_of_any(low, high, divisors))
        first, *others = divisors
        both = [lcm(first, other) for other in others]
        return str(_multiples(low, high, first) - _multiples_of_any(low, high, both))

    def slip(self, stream: Stream, key: Key) -> str:
        low, high = numbers(key[:2])
        divisors = numbers(key[3:])
        kind = stream.below(10)
        if kind < 4:  # those divisible by both counted twice
            return str(sum(_multiples(low, high, one) for one in divisors))
        right = int(self.solve(key))
        return str(right + stream.choice((-1, 1)) if kind < 8 else near(stream, right))


def _multiples(low: int, high: int, divisor: int) -> int:
    return high // divisor - (low - 1) // divisor


def _multiples_of_any(low: int, high: int, divisors: list[int] | tuple[int, ...]) -> int:
    """Inclusion and exclusion over the least common multiples."""
    total = 0
    for count in range(1, len(divisors) + 1):
        for some in combinations(divisors, count):
            total += (-1) ** (count + 1) * _multiples(low, high, lcm(*some))
    return total


_HOBBIES = (
    "chess", "tennis", "football", "swimming", "painting", "dancing", "cycling", "cooking",
    "judo", "climbing", "singing", "gardening",
)  # fmt: skip
_SURVEYED = ("pupils", "guests", "members", "people", "students", "neighbours", "players")


class Survey(Family):
    """Members of two or three overlapping sets.

    The operands are what is asked (``neither``, ``one``: exactly one, ``two``: exactly two, or
    ``all``: in all three, with those in none given), then the total, the sizes of the sets, of
    their overlaps two by two, and, unless it is asked, of the overlap of all three; where it is
    asked, the number in none. The named hobbies come last.
    """

    name = "survey"
    levels = 5
    wordings = ("{facts} How many {asked}?", "In a survey: {facts} How many {asked}?")
    asks = (
        "{facts} How many {asked}?",
        "[A survey|The <place>|My <kin>'s class] [found|says|counted] this. {facts} How many "
        "{asked}?",
        "{facts} [Tell me|Work out|Find] how many {asked}.",
        "How many {asked}, if the following holds? {facts}",
        "<name> [asked around|made a poll|counted] at the <place>. {facts} How many {asked}?",
        "[From a Venn diagram|For the club report|In last year's poll]: {facts} How many {asked}?",
        "{facts} [So how|How] many of them {asked}?",
        "{facts} [What is the number of those who|Count those who] {asked}.",
        "[Here are|These are] the figures of the <place>. {facts} [Now how|How] many {asked}?",
    )
    hint = "[Just|Only] the number[, please|]."

    def draw(self, stream: Stream, level: int = 1) -> Key:
        sets = 2 if level <= 2 else 3
        top = (12, 60, 30, 90, 400)[level - 1]
        # Regions of the diagram: bit i of the index says whether a member is in set i.
        regions = [stream.between(1, top) for _ in range(2**sets)]
        asked = {1: ("neither",), 2: ("one",), 3: ("neither",), 4: ("one", "two")}.get(
            level, ("all",)
        )
        sizes = [
            sum(count for index, count in enumerate(regions) if index & mask == mask)
            for mask in _masks(sets)
        ]
        kind = stream.choice(asked)
        if kind == "all":
            sizes[-1] = regions[0]
        return kind, sum(regions), *sizes, *stream.sample(_HOBBIES, sets)

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        asked, total, sizes, names = _survey(key)
        who = stream.choice(_SURVEYED)
        facts = [f"Of {total} {who}, {sizes[0]} like {names[0]}"]
        facts[0] += f" and {sizes[1]} like {names[1]}" if len(names) == 2 else ""
        if len(names) == 3:
            facts[0] += f", {sizes[1]} like {names[1]} and {sizes[2]} like {names[2]}"
        pairs = [" and ".join(pair) for pair in combinations(names, 2)]
        overlaps = [
            f"{size} like {pair}" for size, pair in zip(sizes[len(names) :], pairs, strict=False)
        ]
        if len(names) == 2:
            overlaps = [f"{sizes[2]} like both"]
        facts.append(_joined(overlaps, "and"))
        if len(names) == 3:
            facts[-1] += " (some of these may like all three)"
            facts.append(f"{sizes[-1]} like {'none' if asked == 'all' else 'all three'}")
        what = {
            "neither": f"like none of the {'two' if len(names) == 2 else 'three'}",
            "one": "like exactly one of them",
            "two": "like exactly two of them",
            "all": "like all three",
        }[asked]
        return wording.format(facts=". ".join(facts) + ".", asked=what)

    def solve(self, key: Key) -> str:
        asked, total, sizes, names = _survey(key)
        if len(names) == 2:
            first, second, both = sizes
            return str(
                total - first - second + both if asked == "neither" else first + second - 2 * both
            )
        singles, pairs, last = sum(sizes[:3]), sum(sizes[3:6]), sizes[6]
        if asked == "all":
            return str(total - last - singles + pairs)
        if asked == "neither":
            return str(total - singles + pairs - last)
        return str(pairs - 3 * last if asked == "two" else singles - 2 * pairs + 3 * last)

    def slip(self, stream: Stream, key: Key) -> str:
        asked, total, sizes, _ = _survey(key)
        kind = stream.below(10)
        if kind < 3:
            return str(abs(total - sum(sizes)))
        if kind < 5:
            return str(stream.choice(sizes))
        if kind < 6 and asked != "all":
            return str(abs(int(self.solve(key)) + stream.choice((-1, 1)) * sizes[-1]))
        return str(near(stream, int(self.solve(key))))


def _masks(sets: int) -> list[int]:
    """Single sets, then their overlaps two by two, then of all three."""
    return [0b01, 0b10, 0b11] if sets == 2 else [0b001, 0b010, 0b100, 0b011, 0b101, 0b110, 0b111]


def _survey(key: Key) -> tuple[str, int, tuple[int, ...], tuple[str, ...]]:
    end = 5 if len(key) == 7 else 9
    return str(key[0]), int(key[1]), numbers(key[2:end]), tuple(map(str, key[end:]))


class Smallest(Family):
    """The smallest number above a bound that meets some conditions.

    The operands are the bound and the conditions: ``"7:3"`` leaves 3 when divided by 7, ``"s:12"``
    has digits that add up to 12.
    """

    name = "smallest"
    levels = 6
    wordings = (
        "What is the smallest whole number greater than {floor} that {what}?",
        "Find the smallest whole number above {floor} that {what}.",
    )
    asks = (
        "What is the [smallest|least|lowest] [whole number|integer] [greater than|above|over] "
        "{floor} that {what}?",
        "[Find|Give|Name|Tell me] the [smallest|first] whole number above {floor} that {what}.",
        "[Which|What] is the first [whole number|integer] after {floor} that {what}?",
        "I am thinking of a whole number greater than {floor}. It is the smallest one that {what}. "
        "[What is it|Which one]?",
        "Counting up from {floor} (not included), which is the first number that {what}?",
        "<name> [needs|wants|looks for] a number above {floor}, as small as possible, that {what}. "
        "[Which|What] is it?",
        "A [box|crate|shelf] holds more than {floor} <things>, and the exact count is the smallest "
        "possible number that {what}. How many <things> are there?",
        "[Riddle|Puzzle|Brain teaser]: the smallest whole number greater than {floor} that {what}. "
        "[What is it|Which number is it]?",
    )
    hint = "[Just|Only] the number[, please|]."
    _SHAPES = (
        (400, 1, (3, 12)), (999, 1, (6, 30)), (99, 2, (3, 12)), (999, 3, (3, 13)),
        (9_999, 3, (5, 23)), (99_999, 4, (5, 23)),
    )  # fmt: skip
    """The largest bound, how many divisors and of what size, at each level; from level 5 on the
    sum of digits is a condition, too."""

    def draw(self, stream: Stream, level: int = 1) -> Key:
        top, count, (low, high) = self._SHAPES[level - 1]
        while True:
            divisors = stream.sample(range(low, high + 1), count)
            if all(gcd(a, b) == 1 for a, b in combinations(divisors, 2)):
                break
        floor = stream.between(10, top)
        # Beyond the first number that meets the remainders, so that the sum of digits matters.
        target = floor + stream.between(1, lcm(*divisors) * (20 if level >= 5 else 1))
        remainders = [0 if level == 1 else target % divisor for divisor in divisors]
        conditions = [f"{a}:{b}" for a, b in zip(divisors, remainders, strict=True)]
        if level >= 5:
            conditions.append(f"s:{_digit_sum(target)}")
        return floor, *conditions

    def identity(self, key: Key) -> Key:
        return key[0], *sorted(map(str, key[1:]))

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        said = []
        for condition in key[1:]:
            kind, value = str(condition).split(":")
            if kind == "s":
                said.append(f"has digits that add up to {value}")
            elif value == "0":
                said.append(f"is divisible by {kind}")
            else:
                said.append(f"leaves a remainder of {value} when divided by {kind}")
        return wording.format(floor=key[0], what=_joined(said, "and"))

    def solve(self, key: Key) -> str:
        """Sieve: once a condition holds, step by what keeps it true."""
        number, step, digits = int(key[0]) + 1, 1, None
        for condition in key[1:]:
            kind, value = str(condition).split(":")
            if kind == "s":
                digits = int(value)
                continue
            while number % int(kind) != int(value):
                number += step
            step = lcm(step, int(kind))
        while digits is not None and _digit_sum(number) != digits:
            number += step
        return str(number)

    def slip(self, stream: Stream, key: Key) -> str:
        right = int(self.solve(key))
        kind = stream.below(10)
        if kind < 3 and len(key) > 2:  # a condition forgotten
            dropped = stream.between(1, len(key) - 1)
            return self.solve((*key[:dropped], *key[dropped + 1 :]))
        if kind < 6:
            divisor = str(stream.choice(key[1:])).split(":")[0]
            return str(right + (stream.between(1, 9) if divisor == "s" else int(divisor)))
        return str(near(stream, right))


def _digit_sum(number: int) -> int:
    return sum(map(int, str(number)))
