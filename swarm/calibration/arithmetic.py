"""Families about numbers: sums, differences, series, units."""

from __future__ import annotations

from typing import ClassVar, cast

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


_DIGITS = (2, 3, 5, 8, 14, 24)
"""Digits of the operands of sums and differences at levels 1 to 6."""
_TOLD = 10_000
"""Nobody owns more things than this in a story."""


def _operand(stream: Stream, level: int) -> int:
    digits = _DIGITS[level - 1]
    return stream.between(10 ** (digits - 1), 10**digits - 1)


class Story(Family):
    """A family whose wordings may tell of someone who owns things.

    Attributes:
        stories: free templates of that sort, for numbers small enough.
    """

    levels = len(_DIGITS)
    stories: ClassVar[tuple[str, ...]]
    hint = "[Just|Only] the [number|result][, please|]."

    def asks_for(self, key: Key) -> tuple[str, ...]:
        return self.asks + self.stories if max(numbers(key)) < _TOLD else self.asks

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        return wording.format(*key, name=stream.choice(NAMES), things=stream.choice(THINGS))


class Add(Story):
    """The sum of two numbers: up to 99, then of ever more digits."""

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
    asks = (
        "What is {0} [+|plus|added to] {1}?",
        "[How much|What] [do you get if you add|does it make to add|is the sum of] {0} and {1}?",
        "[Add|Sum] {0} and {1}[.| for me.| and tell me what you get.]",
        "{0} [+|plus|and] {1}, [what does that make|how much is that|what's the total]?",
        "I have to add {1} to {0}. What [is the total|do I get|comes out]?",
        "[Work out|Calculate|Compute|Find] {0} [+|plus] {1}.",
        "[If I put|Put] {0} and {1} together[, how much is that| and what is the total]?",
    )
    stories = (
        "<name> [has|owns|counted|collected] {0} <things> and [gets|buys|is given|finds] {1} more"
        "[ at the <place>| on <day>| from <his> <kin>|]. How many <things> does <he> have "
        "[now|in all|altogether]?",
        "[There are|We have] {0} <things> [in one box|on the first shelf|in the hall] and {1} "
        "[in another|on the second|in the yard]. How many <things> [is that|are there] "
        "[in total|altogether|in all]?",
        "<name> sold {0} <things> on <day> and {1} <things> the day after. How many <things> did "
        "<he> sell [in total|over the two days|altogether]?",
        "[After <name> gave <his> <kin>|When <name> had used] {1} <things>, {0} were left. How "
        "many <things> [did <he> start with|were there at first]?",
        "<name> picked {0} <things> and <other_name> picked {1}. How many did they pick "
        "[together|between them|in all]?",
        "The <place> had {0} <things> until a delivery of {1} [came|arrived][ on <day>|]. How "
        "many <things> does it have now?",
    )

    def draw(self, stream: Stream, level: int = 1) -> Key:
        if level == 1:
            return stream.between(1, 99), stream.between(1, 99)
        return _operand(stream, level), _operand(stream, level)

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
    """The difference of two different numbers, the larger first: up to 99, then of ever more
    digits."""

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

    asks = (
        "What is {0} [-|minus|less] {1}?",
        "[How much|What] is the difference between {0} and {1}?",
        "[Subtract|Take|Deduct] {1} from {0}[.| for me.| and tell me what is left.]",
        "[By how much is {0} more than|How much bigger is {0} than|How far is {0} above] {1}?",
        "[Work out|Calculate|Compute|Find] {0} [-|minus] {1}.",
        "{0} [-|minus|take away] {1}, [how much is that|what's left|what remains]?",
        "What [must|do] I add to {1} to [get|reach|end up with] {0}?",
    )
    stories = (
        "<name> [has|had|owns] {0} <things> and [gives away|loses|sells|uses up] {1}"
        "[ at the <place>| on <day>|]. How many <things> [are left|does <he> have left|remain]?",
        "[There were|We had] {0} <things> at the <place>. {1} [have gone|were sold|got broken]. "
        "How many are [left|still there]?",
        "<name> has {0} <things>, <other_name> has {1}. How many more <things> does <name> have?",
        "<name> needs {0} <things> [for the <place>|for <his> <kin>] and has {1} so far. How many "
        "[more does <he> need|are missing]?",
        "[Of the|Out of] {0} <things> in the <place>, {1} are [old|blue|damaged|mine]. How many "
        "are not?",
        "A box held {0} <things> before <name> took {1} out[ for <his> <kin>|]. How many stayed in "
        "the box?",
    )

    def draw(self, stream: Stream, level: int = 1) -> Key:
        if level == 1:
            low, high = sorted(stream.sample(range(1, 100), 2))
            return high, low
        low, high = sorted((_operand(stream, level), _operand(stream, level)))
        return (high, low) if low < high else (high + 1, low)

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
    levels = 5
    asks = (
        "What [comes next|is the next number|number follows][:| in| after] {0}?",
        "[Continue|Carry on|Go on with] the [series|sequence|list]: {0}. [What is next?|Which "
        "number comes then?|Next number?]",
        "[Which|What] number [comes after|should follow|continues] {0}?",
        "{0}, ... [what's next|what is the next one|and then]?",
        "The steps in {0} are all the same. [What is the next number|What follows]?",
        "<name> [writes down|counts|wrote] {0}. [What does <he> write|Which number is] next?",
        "A counter [shows|goes] {0}, always by the same step. What does it show next?",
        "[Each|Every] <day> the <place> counted <things>: {0}. If it goes on like that, how many "
        "will it be next time?",
    )
    hint = "[Just|Only] the next number[, please|]."
    _TOP = (99, 999, 9_999, 999_999, 10**9)

    def draw(self, stream: Stream, level: int = 1) -> Key:
        top = self._TOP[level - 1]
        step = stream.between(2, 9) if level == 1 else stream.between(top // 90, top // 9)
        if stream.below(2):
            return stream.between(1, top), step
        return stream.between(4 * step, top), -step

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
    levels = 5
    asks = (
        "How many {1} [are|are there] in {0}?",
        "[Convert|Change|Turn] {0} [to|into] {1}[.|, please.| for me.]",
        "[What is|How much is] {0} in {1}?",
        "{0} is how many {1}?",
        "I [have|need|measured|was told] {0}. [What is that in|How many] {1}[| is that]?",
        "[Express|Give|Write] {0} in {1}.",
        "<name> says it [is|comes to|makes] {0}. How many {1} is that?",
        "The [form|recipe|plan|label|sign] says {0} but I need {1}. How many?",
    )
    hint = "[Just|Only] the number[, please|]."
    _TOP = (9, 99, 9_999, 10**6, 10**10)

    def draw(self, stream: Stream, level: int = 1) -> Key:
        row = stream.below(len(UNITS))
        factor = UNITS[row][2]
        extra = stream.between(1, factor - 1) if stream.below(10) < 7 else 0
        low = 2 if level == 1 else self._TOP[level - 2] + 1
        return row, stream.between(low, self._TOP[level - 1]), extra

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
