"""What a small program prints: a family, and an interpreter of the few statements it uses.

The language is a subset of Python: assignment, ``for`` over ``range``, ``while``, ``if`` and
``else``, one ``print``. Its numbers never get negative, so that ``//`` and ``%`` mean the same in
every language.
"""

from __future__ import annotations

import re

from swarm.calibration.formula import evaluate
from swarm.calibration.task import Family, Key, near
from swarm.seeded import Stream

_STEPS = 100_000
_INDENT = "    "
_ASSIGN = re.compile(r"(\w+) = (.+)")
_FOR = re.compile(r"for (\w+) in range\((.+), (.+)\):")
_BRANCH = re.compile(r"(while|if) (.+) (==|<|>|!=) (.+):")
_PRINT = re.compile(r"print\((.+)\)")


def run(program: str) -> int:
    """What ``program`` prints.

    Raises:
        ValueError: if it is not a program of this language, does not end within 100,000 steps,
            or prints nothing or twice.
        KeyError: if it reads a variable that has no value.
    """
    machine = _Machine()
    machine.block(program.split("\n"), 0)
    if len(machine.printed) != 1:
        raise ValueError("a program prints once")
    return machine.printed[0]


class _Machine:
    def __init__(self) -> None:
        self.printed: list[int] = []
        self._names: dict[str, int] = {}
        self._left = _STEPS

    def block(self, lines: list[str], depth: int) -> None:
        """Run ``lines``, all of which stand at ``depth`` or deeper."""
        at = 0
        while at < len(lines):
            line = lines[at][len(_INDENT) * depth :]
            end = _end(lines, at + 1, depth)
            inner = lines[at + 1 : end]
            otherwise: list[str] = []
            if end < len(lines) and lines[end] == _INDENT * depth + "else:":
                after = _end(lines, end + 1, depth)
                otherwise, end = lines[end + 1 : after], after
            self._statement(line, inner, otherwise, depth)
            at = end

    def _statement(self, line: str, inner: list[str], otherwise: list[str], depth: int) -> None:
        self._step()
        if match := _ASSIGN.fullmatch(line):
            self._names[match[1]] = self._value(match[2])
        elif match := _FOR.fullmatch(line):
            for value in range(self._value(match[2]), self._value(match[3])):
                self._step()
                self._names[match[1]] = value
                self.block(inner, depth + 1)
        elif match := _BRANCH.fullmatch(line):
            kind, left, operator, right = match.groups()
            if kind == "if":
                self.block(inner if self._holds(left, operator, right) else otherwise, depth + 1)
            else:
                while self._holds(left, operator, right):
                    self._step()
                    self.block(inner, depth + 1)
        elif match := _PRINT.fullmatch(line):
            self.printed.append(self._value(match[1]))
        else:
            raise ValueError(f"not a statement: {line!r}")

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError("the program does not end")

    def _value(self, text: str) -> int:
        return evaluate(text, self._names)

    def _holds(self, left: str, operator: str, right: str) -> bool:
        first, second = self._value(left), self._value(right)
        if operator == "==":
            return first == second
        if operator == "!=":
            return first != second
        return first < second if operator == "<" else first > second


def _end(lines: list[str], at: int, depth: int) -> int:
    """The first line from ``at`` that stands no deeper than ``depth``."""
    while at < len(lines) and lines[at].startswith(_INDENT * (depth + 1)):
        at += 1
    return at


class Program(Family):
    """What a program prints; the operand is its text."""

    name = "program"
    levels = 6
    wordings = (
        "What does this program print?\n\n{0}",
        "What is the output of this Python program?\n\n{0}",
    )
    asks = (
        "What does this [program|code|script|Python code] print?\n\n{0}",
        "What is the output of [this|the following] [program|code|snippet]?\n\n{0}",
        "[I found|Here is|I wrote] this [snippet|code|script]:\n\n{0}\n\nWhat [does it print|is "
        "its output|will it print]?",
        "[Trace|Step through|Go through] this [program|code] and tell me what it prints.\n\n{0}",
        "Without running it: what [does|will] this print?\n\n{0}",
        "<name> ran this:\n\n{0}\n\nWhich number did <he> see?",
        "{0}\n\nWhat [gets printed|does that print|is printed at the end]?",
        "[In Python, what|What] number does this [end up printing|print]?\n\n{0}",
        "[Exam question|Interview question|Code review]: what does this print?\n\n{0}",
    )
    hint = "[Just|Only] the [number|output][, please|]."

    def draw(self, stream: Stream, level: int = 1) -> Key:
        lines = (_straight, _loop, _branching, _nested, _mixing, _hopping)[level - 1](stream)
        return ("\n".join(lines),)

    def solve(self, key: Key) -> str:
        return str(run(str(key[0])))

    def slip(self, stream: Stream, key: Key) -> str:
        program = str(key[0])
        kind = stream.below(10)
        if kind < 4 and "range(" in program:  # a loop that runs once too few, or too often
            change = stream.choice((-1, 1))
            bent = re.sub(
                r", (\d+)\):", lambda end: f", {int(end[1]) + change}):", program, count=1
            )
            return str(run(bent))
        if kind < 6:
            names = sorted(set(re.findall(r"^(\w) = ", program, re.MULTILINE)))
            return str(run(_PRINT.sub(f"print({stream.choice(names)})", program)))
        return str(near(stream, run(program)))


def _names(stream: Stream, count: int) -> list[str]:
    return stream.sample("abcnpstuxyz", count)


def _straight(stream: Stream) -> list[str]:
    a, b = _names(stream, 2)
    lines = [f"{a} = {stream.between(2, 30)}", f"{b} = {a} * {stream.between(2, 9)}"]
    lines += [f"{a} = {b} + {stream.between(2, 30)}"] if stream.below(2) else []
    lines += [f"{b} = {b} + {a}"] if stream.below(2) else []
    return [*lines, f"print({a} + {b})" if stream.below(2) else f"print({b})"]


def _loop(stream: Stream) -> list[str]:
    total, index = *_names(stream, 1), stream.choice("ijk")
    change = stream.choice(
        (f"{total} + {index}", f"{total} + {stream.between(2, 9)} * {index}",
         f"{total} * 2 + {index}", f"{total} + {index} * {index}")
    )  # fmt: skip
    start = stream.between(1, 6)
    return [
        f"{total} = {stream.between(0, 20)}",
        f"for {index} in range({start}, {start + stream.between(3, 6)}):",
        f"    {total} = {change}",
        f"print({total})",
    ]


def _branching(stream: Stream) -> list[str]:
    (total, other), index = _names(stream, 2), stream.choice("ijk")
    modulus = stream.between(2, 4)
    start = stream.between(1, 9)
    return [
        f"{total} = {stream.between(0, 20)}",
        f"{other} = {stream.between(1, 9)}",
        f"for {index} in range({start}, {start + stream.between(5, 9)}):",
        f"    if {stream.choice((index, f'({total} + {index})'))} % {modulus} == "
        f"{stream.below(modulus)}:",
        f"        {total} = {total} + {other}",
        "    else:",
        f"        {other} = {other} + {stream.between(1, 7)}",
        f"print({stream.choice((total, f'{total} + {other}', f'{total} * {other}'))})",
    ]


def _nested(stream: Stream) -> list[str]:
    (total, other), (i, j) = _names(stream, 2), stream.sample("ijk", 2)
    modulus = stream.between(3, 5)
    return [
        f"{total} = {stream.between(0, 9)}",
        f"{other} = {stream.between(1, 9)}",
        f"for {i} in range({stream.between(1, 3)}, {stream.between(6, 9)}):",
        f"    for {j} in range({stream.choice(('0', i))}, {i} + {stream.between(2, 4)}):",
        f"        if ({i} * {j} + {total}) % {modulus} == {stream.below(modulus)}:",
        f"            {total} = {total} + {i} * {j}",
        "        else:",
        f"            {other} = {other} + {j}",
        f"    {total} = {total} + {stream.between(1, 5)}",
        f"print({total} + {other})",
    ]


def _mixing(stream: Stream) -> list[str]:
    (a, b, c), index = _names(stream, 3), stream.choice("ijk")
    modulus = stream.between(50, 999)
    return [
        f"{a} = {stream.between(2, 99)}",
        f"{b} = {stream.between(2, 99)}",
        f"{c} = 0",
        f"for {index} in range(1, {stream.between(14, 30)}):",
        f"    {a} = ({a} * {stream.between(3, 19)} + {index}) % {modulus}",
        f"    if {a} > {b}:",
        f"        {b} = ({b} + {a}) % {modulus + stream.between(1, 50)}",
        f"        {c} = {c} + 1",
        "    else:",
        f"        {a} = {a} + {b} // {stream.between(2, 5)}",
        f"print({a} + {b} * {c})",
    ]


def _hopping(stream: Stream) -> list[str]:
    a, b, c, d = _names(stream, 4)
    modulus = stream.between(300, 4_999)
    return [
        f"{a} = {stream.between(20, modulus)}",
        f"{b} = {stream.between(2, 99)}",
        f"{c} = 0",
        f"{d} = {stream.between(40, 90)}",
        f"while {d} > 0:",
        f"    if {a} % {stream.between(2, 3)} == 0:",
        f"        {a} = {a} // 2 + {b}",
        "    else:",
        f"        {a} = ({a} * {stream.between(3, 9)} + {c}) % {modulus}",
        f"    for {stream.choice('ijk')} in range(0, {a} % {stream.between(3, 6)}):",
        f"        {c} = ({c} * 2 + {b}) % {modulus}",
        f"    {b} = ({b} + {d}) % {stream.between(50, 300)}",
        f"    {d} = {d} - 1",
        f"print({a} + {b} + {c})",
    ]
