"""Word problems of several steps, in four scenes."""

from __future__ import annotations

from swarm.calibration.phrasing import DAYS, THINGS, expand
from swarm.calibration.task import Family, Key, near
from swarm.seeded import Stream

_START = "<name> [had|owned|had collected|started with] {0} <things>[ in a box| at home|]."
_EVENTS = {
    "+": (
        "[On <day>|Then|Later|The next day] <he> [bought|got|found] {0} more[ at the <place>|].",
        "[On <day>|Then|Later|The next day] <he> was given {0} more[ by <his> <kin>|].",
        "<His> <kin> [gave|brought|sent] <him> another {0}[ on <day>| after the party|].",
        "[A friend|<other_name>] added {0} [to them|to the collection|more].",
    ),
    "-": (
        "[Then|Later|Sadly,|After that] <he> [gave {0} to <other_name>|lost {0}|sold {0} at the "
        "<place>|threw {0} away].",
        "<other_name> [took|borrowed|needed] {0} of them[ for <his> <kin>| on <day>|], which <he> "
        "never got back.",
        "{0} of them [broke|were used up|went missing|had to be left at the <place>].",
    ),
    "*": (
        "By [<day>|the end of the month|the summer] <he> had {0} times as many as before.",
        "Within [a week|a year|a month] the number [grew to|became] {0} times what it was.",
    ),
    "/": (
        "<He> [split|divided] them [equally|evenly] [into {0} bags|into {0} piles|among {0} boxes] "
        "and [kept|took home] only one of these.",
        "<He> shared them equally among {0} people, [counting <him>self|<he> was one of them], and "
        "the others took theirs away.",
    ),
}
_KEPT = (
    "How many <things> did <name> have [in the end|after that|left]?",
    "[In the end, how|How] many <things> [were there|did <he> have]?",
)
_SHOP = (
    "<name> [went to the <place>|went shopping][ on <day>| with <his> <kin>|] and bought {0}. "
    "<He> paid with ${1}.",
    "[At the <place>|For the party|For <his> <kin>], <name> [ordered|bought|chose] {0}, and "
    "[handed over|paid] ${1}.",
    "A [bill|receipt] of <name> lists {0}. <He> [gave the clerk|paid with] ${1}.",
)
_CHANGE = (
    "How many dollars [of change did <name> get|did <he> get back|were returned to <him>]?",
    "How [much change, in dollars, did <he> get|many dollars did <name> have left of that]?",
)
_WAGE = (
    "<name> [earns|makes|is paid] ${1} an hour at the <place>. [Last week|This week] <he> worked "
    "{0}. <He> then [spent ${2} on|paid ${2} for] [rent|food|a bicycle|a present].",
    "[At the <place>|In <his> new job] <name> gets ${1} for every hour. <He> worked {0}, and ${2} "
    "of it went [to <his> <kin>|into savings|on bus fares].",
)
_EARNED = (
    "How many dollars [were left|did <he> have left|remained]?",
    "How much of the pay was left, in dollars?",
)
_TRIP = (
    "<name> [drove|travelled|rode] {0}. The whole way to [the <place>|<his> <kin>] is {1} km.",
    "On a trip of {1} km, <name> [has driven|travelled] {0} so far.",
)
_LEFT = (
    "How many kilometres [were left|are left|does <he> still have to go]?",
    "How far is it still, in km?",
)


class Tale(Family):
    """A word problem. The operands are its scene and numbers:

    ``keep``: a number of things, then what happens to them, for instance ``"+:5"``;
    ``shop``: the sum paid, then ``"quantity:price"`` of each purchase;
    ``wage``: pay per hour, money spent, then the hours of each day;
    ``trip``: the whole way, then ``"hours:speed"`` of each leg.
    """

    name = "tale"
    levels = 6
    wordings = ("{tale} {question}", "{tale} Question: {question}")
    asks = (
        "{tale} {question}",
        "{tale}\n\n{question}",
        "{tale} So: {question}",
        "[About|A question about] [money and things|everyday numbers]. {tale} {question}",
        "[True story|This happened]: {tale} {question}",
        "{tale} [Tell me this|My question|The question is]: {question}",
        "[Here is what happened|The story|Word problem|Problem]: {tale} {question}",
        "{question} {tale}",
        "[Listen|Consider this|Read this carefully]. {tale} {question}",
        "{tale} [Can you work it out|Now]: {question}",
    )
    hint = "[Just|Only] the number[, please|]."
    _STEPS = ((2, 2, 20), (3, 3, 40), (4, 5, 99), (6, 7, 199), (8, 10, 499), (12, 14, 999))
    """Fewest and most steps, and the size of the numbers, at each level."""
    _SCENES = ("keep", "keep", "shop", "wage", "trip")

    def draw(self, stream: Stream, level: int = 1) -> Key:
        fewest, most, size = self._STEPS[level - 1]
        steps = stream.between(fewest, most)
        scene = stream.choice(self._SCENES)
        if scene == "keep":
            return _kept(stream, steps, size)
        if scene == "wage":
            steps = min(steps, 7)
            rate, hours = stream.between(7, 7 + size), [stream.between(2, 11) for _ in range(steps)]
            return scene, rate, stream.between(1, rate * sum(hours) - 1), *hours
        if scene == "shop":
            rows = [
                (stream.between(2, 9 + level), stream.between(2, 5 + size // 4))
                for _ in range(steps)
            ]
        else:
            rows = [(stream.between(1, 9), stream.between(20, 120)) for _ in range(steps)]
        total = sum(a * b for a, b in rows) + stream.between(1, size)
        if scene == "shop":
            total += -total % 10
        return scene, total, *(f"{a}:{b}" for a, b in rows)

    def solve(self, key: Key) -> str:
        scene, first, *rest = key
        value = int(first)
        if scene == "wage":
            spent, *hours = map(int, rest)
            return str(value * sum(hours) - spent)
        for step in rest:
            left, right = str(step).split(":")
            if left == "+":
                value += int(right)
            elif left == "*":
                value *= int(right)
            elif left == "/":
                value //= int(right)
            else:
                value -= int(right) * (1 if left == "-" else int(left))
        return str(value)

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        told = self._told(stream, key)
        tale, question = expand(stream, "\n".join(told)).split("\n")
        return wording.format(tale=tale, question=question)

    def _told(self, stream: Stream, key: Key) -> tuple[str, str]:
        """Templates of the tale and of the question, with the numbers in."""
        scene, first, *rest = key
        if scene == "keep":
            events = [str(step).split(":") for step in rest]
            said = [stream.choice(_EVENTS[kind]).format(count) for kind, count in events]
            return " ".join((_START.format(first), *said)), stream.choice(_KEPT)
        if scene == "wage":
            spent, *hours = rest
            day = stream.below(7)
            worked = [f"{count} hours on {DAYS[(day + at) % 7]}" for at, count in enumerate(hours)]
            tale = stream.choice(_WAGE).format(_and(worked), first, spent)
            return tale, stream.choice(_EARNED)
        pairs = [str(row).split(":") for row in rest]
        if scene == "shop":
            goods = stream.sample(THINGS, len(pairs))
            bought = [
                f"{count} {what} at ${price} each"
                for (count, price), what in zip(pairs, goods, strict=True)
            ]
            return stream.choice(_SHOP).format(_and(bought), first), stream.choice(_CHANGE)
        legs = [
            f"{hours} {'hour' if hours == '1' else 'hours'} at {speed} km per hour"
            for hours, speed in pairs
        ]
        return stream.choice(_TRIP).format(_and(legs), first), stream.choice(_LEFT)

    def slip(self, stream: Stream, key: Key) -> str:
        right = int(self.solve(key))
        fewest = 4 if key[0] == "wage" else 3
        kind = stream.below(10)
        if kind < 4 and len(key) > fewest:  # one step forgotten
            dropped = stream.between(fewest - 1, len(key) - 1)
            return str(abs(int(self.solve((*key[:dropped], *key[dropped + 1 :])))))
        if kind < 6 and key[0] != "keep":
            return str(abs(int(key[1]) - right))
        return str(near(stream, right))


def _kept(stream: Stream, steps: int, size: int) -> Key:
    value = start = stream.between(4, size)
    events: list[str] = []
    while len(events) < steps:
        kind = stream.choice("++--*/")
        if kind == "+":
            count = stream.between(2, size)
            value += count
        elif kind == "-" and value > 6:
            count = stream.between(2, min(size, value - 3))
            value -= count
        elif kind == "*" and value < 100 * size:
            count = stream.between(2, 4)
            value *= count
        elif kind == "/" and value > 20 and any(value % n == 0 for n in range(2, 7)):
            count = stream.choice([n for n in range(2, 7) if value % n == 0])
            value //= count
        else:
            continue
        events.append(f"{kind}:{count}")
    return "keep", start, *events


def _and(items: list[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}"
