"""Families about calculating with whole numbers: expressions, powers modulo, number bases."""

from __future__ import annotations

import re

from swarm.calibration.arithmetic import numbers
from swarm.calibration.formula import evaluate
from swarm.calibration.task import Family, Key, near
from swarm.seeded import Stream

_ALPHABET = "0123456789abcdef"
_BASES = {2: "binary", 8: "octal", 10: "decimal", 16: "hexadecimal"}


class Expression(Family):
    """An expression with precedence and brackets; the operand is its text.

    ``mod`` and ``/`` always stand in brackets of their own, work on numbers that are not
    negative, and ``/`` comes out even, so that no convention is left to taste.
    """

    name = "expression"
    levels = 6
    wordings = ("What is {0}?", "Calculate {0}.", "Evaluate {0}.")
    asks = (
        "What [is|do you get for|does it come to]: {0}?",
        "[Calculate|Compute|Evaluate|Work out] {0}.",
        "{0} = ?",
        "What is the value of {0}?",
        "[Mind|Remember|Watch] the order of operations: {0}. What is it?",
        "My calculator [broke|is gone|shows nonsense]. What is {0}?",
        "<name> typed {0} [into a spreadsheet|into a calculator]. What should [come out|it show]?",
        "How much is {0}?",
        "[Solve|Find|Tell me] {0}[, brackets first|].",
        "The [lock|safe|bonus round] opens with the result of {0}. [Which number|What] is it?",
    )
    hint = "[Just|Only] the [number|result][, please|]."
    _SHAPES = ((3, 20), (4, 50), (6, 99), (9, 99), (13, 199), (20, 999))
    """How many numbers, and the largest, at each level."""
    _LARGEST = 10**15

    def draw(self, stream: Stream, level: int = 1) -> Key:
        count, top = self._SHAPES[level - 1]
        while True:
            text, _ = self._grow(stream, count, top)
            if abs(evaluate(text)) <= self._LARGEST:
                return (text,)

    def _grow(self, stream: Stream, count: int, top: int) -> tuple[str, bool]:
        """An expression of ``count`` numbers, and whether it is a sum."""
        if count == 1:
            return str(stream.between(2, top)), False
        if count == 2 and stream.below(3) == 0:
            divisor = stream.between(2, 12)
            if stream.below(2):
                return f"({stream.between(divisor + 1, top + divisor)} mod {divisor})", False
            return f"({divisor * stream.between(2, max(3, top // divisor))} / {divisor})", False
        if stream.below(5) < 2:
            # One factor stays small, lest a long product swamps all else.
            body, is_sum = self._grow(stream, count - 1, top)
            factor = str(stream.between(2, 12))
            body = f"({body})" if is_sum else body
            return (f"{body} * {factor}" if stream.below(2) else f"{factor} * {body}"), False
        split = stream.between(1, count - 1)
        left, _ = self._grow(stream, split, top)
        right, is_sum = self._grow(stream, count - split, top)
        if stream.below(2):
            return f"{left} + {right}", True
        return f"{left} - {f'({right})' if is_sum else right}", True

    def solve(self, key: Key) -> str:
        return str(evaluate(str(key[0])))

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        sign = stream.choice(("*", "×"))
        return wording.format(str(key[0]).replace("*", sign))

    def slip(self, stream: Stream, key: Key) -> str:
        text = str(key[0])
        value = evaluate(text)
        kind = stream.below(10)
        if kind < 3:
            return str(self._left_to_right(text))
        if kind < 5:
            return str(-value)
        if kind < 7:
            return str(
                value + stream.choice((-1, 1)) * int(stream.choice(re.findall(r"\d+", text)))
            )
        wrong = near(stream, abs(value))
        return str(wrong if value >= 0 else -wrong)

    def _left_to_right(self, text: str) -> int:
        """Without precedence or brackets, as one types into a cheap calculator."""
        value, *rest = re.findall(r"\d+|[-+*/]|mod", text)
        total = int(value)
        for operator, operand in zip(rest[::2], rest[1::2], strict=True):
            number = int(operand)
            if operator == "+":
                total += number
            elif operator == "-":
                total -= number
            elif operator == "*":
                total *= number
            else:
                total = total % number if operator == "mod" else total // number
        return total


class Power(Family):
    """The remainder of a power; the operands are base, exponent and modulus."""

    name = "power"
    levels = 6
    wordings = (
        "What is the remainder when {0}^{1} is divided by {2}?",
        "What is {0}^{1} mod {2}?",
    )
    asks = (
        "What [is the remainder|remainder do you get|is left over] when {0}^{1} is divided by {2}?",
        "What is {0}^{1} [mod|modulo] {2}?",
        "[Find|Compute|Calculate|Work out] {0}^{1} [mod|modulo] {2}.",
        "If I [divide|split] {0}^{1} [by|into groups of] {2}, what [remains|is the remainder]?",
        "[Take|Raise] {0} to the power of {1} and divide by {2}. What is the remainder?",
        "{0} to the power {1}, reduced modulo {2}[: what is it|, gives what]?",
        "<name> divides {0}^{1} by {2}. [Which|What] remainder does <he> [get|find]?",
        "What does {0}**{1} % {2} [give|evaluate to] in Python?",
        "A wheel with {2} [marks|positions], numbered from 0, turns on by {0}^{1} marks from 0. "
        "Where does it stop?",
    )
    hint = "[Just|Only] the [number|remainder][, please|]."
    _SHAPES = (
        ((2, 12), (2, 5), (3, 20)),
        ((2, 12), (6, 20), (5, 40)),
        ((2, 20), (20, 200), (11, 99)),
        ((11, 999), (200, 9_999), (101, 999)),
        ((101, 99_999), (10**4, 10**6), (1_001, 99_999)),
        ((10**5, 10**9), (10**7, 10**12), (10**6, 10**9)),
    )
    """Ranges of base, exponent and modulus at each level."""

    def draw(self, stream: Stream, level: int = 1) -> Key:
        while True:
            base, exponent, modulus = (stream.between(*ends) for ends in self._SHAPES[level - 1])
            if base % modulus > 1:  # every power would be 0 or 1
                return base, exponent, modulus

    def solve(self, key: Key) -> str:
        return str(pow(*numbers(key)))

    def slip(self, stream: Stream, key: Key) -> str:
        base, exponent, modulus = numbers(key)
        kind = stream.below(10)
        if kind < 4:
            return str(pow(base, exponent + stream.choice((-1, 1)), modulus))
        if kind < 6:
            return str(base * exponent % modulus)
        if kind < 8:
            return str(stream.below(modulus))
        return str(near(stream, pow(base, exponent, modulus)) % modulus)


def digits_of(value: int, base: int) -> str:
    """``value >= 0`` in ``base`` (2 to 16), in lower case."""
    digits = ""
    while value or not digits:
        digits = _ALPHABET[value % base] + digits
        value //= base
    return digits


class Base(Family):
    """A number in another base; the operands are its value and the two bases."""

    name = "base"
    levels = 6
    wordings = (
        "Convert {digits} from {source} to {target}. Give the digits only.",
        "What is the {source} number {digits} in {target}? Give the digits only.",
    )
    asks = (
        "[Convert|Change] {digits} from {source} to {target}, [digits only|no prefix].",
        "What is the {source} number {digits} in {target}? [Digits only|No prefix], please.",
        "[Write|Express] {digits} ({source}) in {target}, [just the digits|without a prefix].",
        "{digits} in {source} is [which|what] number in {target}? [Only the digits|No prefix].",
        "<name> [reads|found|wrote] {digits} in {source}. How does one write it in {target}? "
        "[Give just the digits|Digits only].",
        "The [register|counter|label|display] [shows|says] {digits} in {source}; I need the digits "
        "in {target}.",
        "[Translate|Turn] {digits} [out of|from] {source} into {target}. Digits only[, please|].",
        "How [do you write|would one write] the number that is {digits} in {source} in {target}? "
        "Just the digits.",
    )
    _SHAPES = (
        (4, 49, ((10, 2), (2, 10), (10, 3), (3, 10), (10, 4), (4, 10), (10, 5), (5, 10))),
        (50, 255, ((10, 2), (2, 10), (10, 16), (16, 10), (10, 8))),
        (256, 4_095, ((2, 16), (16, 2), (8, 10), (10, 3), (10, 5), (7, 10))),
        (4_096, 999_999, ((10, 7), (3, 10), (5, 2), (8, 16), (16, 8), (6, 9), (10, 12))),
        (10**6, 10**9, ((7, 10), (10, 13), (3, 16), (16, 5), (11, 6), (12, 7))),
        (10**11, 10**14, ((10, 7), (7, 16), (13, 10), (16, 11), (14, 9), (10, 15))),
    )
    """Smallest and largest value, and from which base to which, at each level."""

    def draw(self, stream: Stream, level: int = 1) -> Key:
        low, high, ways = self._SHAPES[level - 1]
        return stream.between(low, high), *stream.choice(ways)

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        value, source, target = numbers(key)
        return wording.format(
            digits=digits_of(value, source),
            source=_base(stream, source),
            target=_base(stream, target),
        )

    def solve(self, key: Key) -> str:
        value, _, target = numbers(key)
        return digits_of(value, target)

    def slip(self, stream: Stream, key: Key) -> str:
        value, source, target = numbers(key)
        kind = stream.below(10)
        if kind < 5:
            return digits_of(near(stream, value), target)
        if kind < 6:
            return self.solve(key)[::-1].lstrip("0")
        if kind < 8:
            digits = list(self.solve(key))
            at = stream.below(len(digits))
            digits[at] = stream.choice(_ALPHABET[int(at == 0) : target])
            return "".join(digits)
        return digits_of(value, max(2, stream.choice((source, target - 1, target + 1)) % 17))


def _base(stream: Stream, base: int) -> str:
    if base in _BASES and stream.below(2):
        return _BASES[base]
    return f"base {base}"
