"""Whole-number arithmetic written as text: a recursive-descent reader that evaluates as it reads.

    sum     = product (("+" | "-") product)*
    product = atom (("*" | "/" | "//" | "%" | "mod") atom)*
    atom    = NUMBER | NAME | "(" sum ")"

The precedence is that of arithmetic and of Python; ``mod`` and ``%`` are one operator, and ``/``
must come out even.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

_TOKEN = re.compile(r"\s*(\d+|[A-Za-z_]\w*|//|[-+*/%()])")


def evaluate(text: str, names: Mapping[str, int] | None = None) -> int:
    """The value of ``text``, with the values of its variables in ``names``.

    Raises:
        ValueError: if ``text`` is not a formula, divides by zero, or ``/`` leaves a remainder.
        KeyError: if a variable has no value.
    """
    reader = _Reader(_tokens(text), names or {})
    value = reader.sum()
    if reader.left():
        raise ValueError(f"not a formula: {text!r}")
    return value


@lru_cache(maxsize=256)
def _tokens(text: str) -> tuple[str, ...]:
    tokens, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"not a formula: {text!r}")
        tokens.append(match[1])
        at = match.end()
    return tuple(tokens)


class _Reader:
    def __init__(self, tokens: Sequence[str], names: Mapping[str, int]) -> None:
        self._tokens = [*reversed(tokens)]
        self._names = names

    def left(self) -> bool:
        return bool(self._tokens)

    def _next_of(self, *wanted: str) -> str | None:
        if self._tokens and self._tokens[-1] in wanted:
            return self._tokens.pop()
        return None

    def sum(self) -> int:
        value = self.product()
        while operator := self._next_of("+", "-"):
            other = self.product()
            value = value + other if operator == "+" else value - other
        return value

    def product(self) -> int:
        value = self.atom()
        while operator := self._next_of("*", "/", "//", "%", "mod"):
            other = self.atom()
            if operator == "*":
                value *= other
                continue
            if other == 0 or (operator == "/" and value % other):
                raise ValueError(f"{value} {operator} {other} has no whole value")
            value = value % other if operator in ("%", "mod") else value // other
        return value

    def atom(self) -> int:
        if not self._tokens:
            raise ValueError("the formula ends too soon")
        token = self._tokens.pop()
        if token == "(":
            value = self.sum()
            if self._next_of(")") is None:
                raise ValueError("a bracket is not closed")
            return value
        if token.isdecimal():
            return int(token)
        if token.isidentifier() and token != "mod":
            return self._names[token]
        raise ValueError(f"not a number: {token!r}")
