"""Families of logic puzzles: who has what, who sits where. Each has exactly one solution.

A solution is drawn first, then true clues are added until no other solution is left, then every
clue that is not needed goes again.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, islice, pairwise
from typing import NamedTuple

from swarm.calibration.phrasing import HE, SHE
from swarm.calibration.task import Family, Key
from swarm.seeded import Stream

PEOPLE = (*SHE, *HE)


class Category(NamedTuple):
    """Something that everyone has one of: said of one who has it, of one who does not."""

    has: str
    lacks: str
    title: str
    values: tuple[str, ...]


CATEGORIES: tuple[Category, ...] = (
    Category("has the {}", "does not have the {}", "a pet",
        ("cat", "dog", "parrot", "hamster", "rabbit", "turtle")),
    Category("drinks {}", "does not drink {}", "a favourite drink",
        ("tea", "coffee", "milk", "juice", "water", "cocoa")),
    Category("works as a {}", "does not work as a {}", "a job",
        ("baker", "nurse", "pilot", "lawyer", "farmer", "plumber")),
    Category("lives in the {} house", "does not live in the {} house", "a house",
        ("red", "blue", "green", "white", "yellow", "brown")),
    Category("plays {}", "does not play {}", "a sport",
        ("tennis", "golf", "hockey", "chess", "rugby", "squash")),
)  # fmt: skip
Solutions = Callable[[Key], Iterator[tuple[str, ...]]]
Pairs = Sequence[tuple[int, int]]


def _listed(items: Sequence[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}"


def _needed(start: Key, clues: Sequence[str], solutions: Solutions) -> list[str]:
    """The first of ``clues`` that leave one solution, less those that can go."""

    def unique(some: Sequence[str]) -> bool:
        return len(list(islice(solutions((*start, *some)), 2))) == 1

    count = bisect_left(range(len(clues)), True, key=lambda last: unique(clues[: last + 1])) + 1
    kept = list(clues[:count])
    for clue in clues[: count - 1]:
        fewer = [other for other in kept if other != clue]
        if unique(fewer):
            kept = fewer
    return kept


class Grid(Family):
    """Who has what, everyone something different.

    The operands are the item asked for, the names, the values of each category (each group joined
    by commas), and the clues: ``"x = y"`` for one person, ``"x ! y"`` for two.
    """

    name = "grid"
    levels = 6
    wordings = (
        "{people} each have {categories}. {clues} Who {asked}?",
        "{people} each have {categories}. Clues: {clues} Who {asked}?",
    )
    asks = (
        "{people} each have {categories}. {clues} [Who|So who|Which of them] {asked}?",
        "[Here is a riddle|Logic puzzle|A puzzle]. {people} each have {categories}. {clues} Who "
        "{asked}?",
        "[At the <place>|In our street|In my <kin>'s club] {people} each have {categories}. [We "
        "know this: |]{clues} [Who|Then who] {asked}?",
        "Who {asked}? {people} each have {categories}. {clues}",
        "[Facts|Clues|What I know]: {people} each have {categories}. {clues} So who {asked}?",
        "{clues} {people} each have {categories}. [Who|Which of them] {asked}?",
        "[Help me find out|I want to know|Can you deduce] who {asked}. {people} each have "
        "{categories}. {clues}",
        "[The neighbours|The cousins|My friends|The players] {people} each have {categories}. "
        "{clues} [Can you tell|Do you see] who {asked}?",
    )
    hint = "[Just|Only] the name[, please|]."
    _SHAPES = ((3, 1), (3, 2), (4, 2), (4, 3), (5, 3), (5, 4))
    """How many people and categories, at each level."""

    def draw(self, stream: Stream, level: int = 1) -> Key:
        size, count = self._SHAPES[level - 1]
        names = stream.sample(PEOPLE, size)
        groups = [
            stream.sample(values, size)
            for values in (one.values for one in stream.sample(CATEGORIES, count))
        ]
        asked = stream.choice(stream.choice(groups))
        # Row i of the solution is what person i has.
        rows = list(zip(names, *groups, strict=True))
        clues = [
            clue for clue in self._true_clues(stream, rows, level) if not _tells(clue, names, asked)
        ]
        # Shown in another order than the solution's.
        columns = [stream.sample(column, size) for column in (names, *groups)]
        start = (asked, *(",".join(column) for column in columns))
        kept = _needed(start, clues, self.solutions)
        stream.shuffle(kept)
        return *start, *kept

    def _true_clues(self, stream: Stream, rows: Sequence[tuple[str, ...]], level: int) -> list[str]:
        same = [f"{x} = {y}" for row in rows for x, y in combinations(row, 2)]
        other = [
            f"{x} ! {y}"
            for one, two in combinations(rows, 2)
            for at, x in enumerate(one)
            for place, y in enumerate(two)
            if at != place
        ]
        stream.shuffle(same)
        stream.shuffle(other)
        # Few plain statements: the more is said by exclusion, the more there is to work out.
        most = (1, 1, 3, 4, 7, 9)[level - 1]
        clues = same[:most] + other[: 3 * len(rows) * level]
        stream.shuffle(clues)
        return clues + other[3 * len(rows) * level :] + same[most:]

    def solutions(self, key: Key) -> Iterator[tuple[str, ...]]:
        """All assignments that meet the clues: who has each value, category by category."""
        names, *groups = _columns(key)
        size = len(names)
        values = [*names, *(value for group in groups for value in group)]
        at = {value: place for place, value in enumerate(values)}
        clues = _clues(key)
        same = [(at[x], at[y]) for x, sign, y in clues if sign == "="]
        apart = [(at[x], at[y]) for x, sign, y in clues if sign == "!"]
        where = [1 << person for person in range(size)] + [(1 << size) - 1] * size * len(groups)
        columns = [range(start, start + size) for start in range(size, len(values), size)]
        for found in _assignments(where, columns, same, apart):
            yield tuple(names[people.bit_length() - 1] for people in found[size:])

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        names, *groups = _columns(key)
        of = {value: category for category in CATEGORIES for value in category.values}
        kinds = [
            f"{of[group[0]].title} ({', '.join(group)}, everyone a different one)"
            for group in groups
        ]
        said = [self._said(stream, names, of, *clue) for clue in _clues(key)]
        return wording.format(
            people=_listed(names),
            categories=_listed(kinds) if len(kinds) > 1 else kinds[0],
            clues=" ".join(said),
            asked=of[str(key[0])].has.format(key[0]),
        )

    def _said(
        self,
        stream: Stream,
        names: Sequence[str],
        of: dict[str, Category],
        x: str,
        sign: str,
        y: str,
    ) -> str:
        if y in names or (x not in names and stream.below(2)):
            x, y = y, x
        who = stream.choice(("Whoever", "The one who"))
        subject = x if x in names else f"{who} {of[x].has.format(x)}"
        category = of[y]
        return f"{subject} {(category.has if sign == '=' else category.lacks).format(y)}."

    def solve(self, key: Key) -> str:
        _, *groups = _columns(key)
        values = [value for group in groups for value in group]
        return str(next(self.solutions(key))[values.index(str(key[0]))])

    def slip(self, stream: Stream, key: Key) -> str:
        return stream.choice(str(key[1]).split(","))


def _columns(key: Key) -> list[list[str]]:
    """The names, then the values of each category."""
    return [str(part).split(",") for part in key[1:] if "," in str(part)]


def _clues(key: Key) -> list[tuple[str, str, str]]:
    clues = []
    for part in key[1:]:
        if "," not in str(part):
            x, sign, y = str(part).split(" ")
            clues.append((x, sign, y))
    return clues


def _assignments(
    where: list[int], groups: Sequence[range], same: Pairs, apart: Pairs
) -> Iterator[list[int]]:
    """Every way to give each value one person.

    Args:
        where: the people that may have a value, as bits.
        groups: the values of each category, as places in ``where``.
        same, apart: values of one person, of two.
    """
    where = where.copy()
    if not _narrowed(where, groups, same, apart):
        return
    open_ = [value for value, people in enumerate(where) if people & (people - 1)]
    if not open_:
        yield where
        return
    value = min(open_, key=lambda one: where[one].bit_count())
    for at in range(where[value].bit_length()):
        if where[value] >> at & 1:
            yield from _assignments(
                [*where[:value], 1 << at, *where[value + 1 :]], groups, same, apart
            )


def _narrowed(where: list[int], groups: Sequence[range], same: Pairs, apart: Pairs) -> bool:
    """Take away, in place, who cannot be; False if a value is left with nobody."""
    before: list[int] = []
    while before != where:
        before = where.copy()
        for x, y in same:
            where[x] = where[y] = where[x] & where[y]
        for x, y in apart:
            if not where[x] & (where[x] - 1):
                where[y] &= ~where[x]
            elif not where[y] & (where[y] - 1):
                where[x] &= ~where[y]
        for group in groups:
            for value in group:
                known = where[value]
                if not known & (known - 1):
                    for other in group:
                        if other != value:
                            where[other] &= ~known
        if not all(where):
            return False
    return True


def _tells(clue: str, names: Sequence[str], asked: str) -> bool:
    """Whether a clue is the answer itself."""
    x, sign, y = clue.split(" ")
    return sign == "=" and x in names and y == asked


class Seating(Family):
    """The order of people in a row.

    The operands are the names, joined by commas, and the clues: ``"A < B"`` somewhere left of,
    ``"A | B"`` immediately left of, ``"A ~ B"`` next to, ``"A / B"`` not next to each other,
    ``"A @ 3"`` in place 3 from the left, ``"A # 3"`` not in place 3.
    """

    name = "seating"
    levels = 6
    wordings = (
        "{people} sit in a row. {clues} List them from left to right.",
        "{people} sit side by side. {clues} What is their order from left to right?",
    )
    asks = (
        "{people} [sit|stand] in a row. {clues} [List|Name|Give] them [all |]from left to right.",
        "{people} sit side by side [at the <place>|on a bench|]. {clues} What is their "
        "order from left to right?",
        "[Photo of the <place>|In a photo|On the bench]: {people}, all in one row. {clues} "
        "[Who is where, from left to right?|Name them from left to right.]",
        "[Riddle|Puzzle|Logic puzzle]. {people} are in a row. {clues} What is the order from left "
        "to right?",
        "[Can you|Could you|Please] [work out|find] the order from left to right? {people} sit in "
        "one row. {clues}",
        "I have to [seat|line up] {people} in one row. {clues} What is the [seating|order], from "
        "left to right?",
        "[From left to right|Left to right], how do {people} sit in their row? {clues}",
        "{people} [queue|line up] side by side. {clues} List them from left to right.",
    )
    hint = "[Just|Only] the names[, separated by commas|, with commas between them]."
    _SIZES = (3, 4, 5, 6, 7, 8)

    def draw(self, stream: Stream, level: int = 1) -> Key:
        order = stream.sample(PEOPLE, self._SIZES[level - 1])
        clues = self._true_clues(stream, order)
        start = (",".join(stream.sample(order, len(order))),)
        kept = _needed(start, clues, self.solutions)
        stream.shuffle(kept)
        return *start, *kept

    def _true_clues(self, stream: Stream, order: Sequence[str]) -> list[str]:
        places = list(enumerate(order))
        close = [f"{a} | {b}" for a, b in pairwise(order)]
        close += [f"{order[at]} @ {at + 1}" for at, _ in places]
        near = []
        for (i, a), (j, b) in combinations(places, 2):
            x, y = stream.sample((a, b), 2)
            near += [f"{a} < {b}", f"{x} ~ {y}" if j == i + 1 else f"{x} / {y}"]
        near += [f"{a} # {j + 1}" for i, a in places for j, _ in places if i != j]
        stream.shuffle(close)
        stream.shuffle(near)
        # One clue that says much, many that say little; the rest only if those do not suffice.
        return close[:1] + near + close[1:]

    def solutions(self, key: Key) -> Iterator[tuple[str, ...]]:
        """All orders that meet the clues."""
        names = str(key[0]).split(",")
        clues = [str(clue).split(" ") for clue in key[1:]]
        return _orders([], names, clues)

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        said = {
            "<": ("{0} is somewhere to the left of {1}.", "{1} is somewhere to the right of {0}."),
            "|": ("{0} is immediately to the left of {1}.", "{1} is directly to the right of {0}."),
            "~": ("{0} is next to {1}.", "{0} and {1} are neighbours."),
            "/": ("{0} is not next to {1}.", "{0} and {1} are not neighbours."),
            "@": ("{0} is in place {1} from the left.", "Place {1} from the left is {0}'s."),
            "#": (
                "{0} is not in place {1} from the left.",
                "Place {1} from the left is not {0}'s.",
            ),
        }
        clues = [str(clue).split(" ") for clue in key[1:]]
        return wording.format(
            people=_listed(str(key[0]).split(",")),
            clues=" ".join(stream.choice(said[sign]).format(a, b) for a, sign, b in clues),
        )

    def solve(self, key: Key) -> str:
        return ", ".join(next(self.solutions(key)))

    def matches(self, key: Key, text: str) -> bool:
        return _names_in(text) == _names_in(self.solve(key))

    def slip(self, stream: Stream, key: Key) -> str:
        order = self.solve(key).split(", ")
        if stream.below(10) == 0:
            return ", ".join(reversed(order))
        i, j = stream.sample(range(len(order)), 2)
        order[i], order[j] = order[j], order[i]
        return ", ".join(order)


def _names_in(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z]+", text.lower()) if word != "and"]


def _orders(
    row: list[str], left: Sequence[str], clues: Sequence[Sequence[str]]
) -> Iterator[tuple[str, ...]]:
    """Every completion of ``row`` with the names that are left."""
    if not left:
        yield tuple(row)
        return
    for name in left:
        row.append(name)
        if all(_may_hold(row, *clue) for clue in clues):
            yield from _orders(row, [other for other in left if other != name], clues)
        row.pop()


def _may_hold(row: Sequence[str], a: str, sign: str, b: str) -> bool:
    """Whether a clue holds for a row filled from the left, as far as it says."""
    if sign in "@#":
        place = int(b) - 1
        if sign == "@":
            return (row[place] == a) if place < len(row) else a not in row
        return place >= len(row) or row[place] != a
    i = row.index(a) if a in row else None
    j = row.index(b) if b in row else None
    if i is None and j is None:
        return True
    if sign == "<":
        return i is not None and (j is None or i < j)
    if i is not None and j is not None:
        return {"|": j == i + 1, "~": abs(i - j) == 1, "/": abs(i - j) > 1}[sign]
    at = i if i is not None else j
    if sign == "/":
        return True
    # The other must still be able to come right after.
    return at == len(row) - 1 and (sign == "~" or i is not None)
