"""Which answers say the same: equivalence classes of texts.

A wrong merge costs more than a split, so only what is surely equal is merged: the same text up
to case, spacing, quotes and a full stop; the same number however it is written; the
same lettered choice. "85" and "85 apples" stay apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

_DIGITS = 40
"""Longer digit strings are text: exact arithmetic on them is a way to burn time."""
_DASHES = str.maketrans({"−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-"})
# NFKC alone would read 10² and 10₂ as 102.
_SUPERSCRIPT = re.compile("[\u00b2\u00b3\u00b9\u2070-\u207f]+")
_SUBSCRIPT = re.compile("[\u2080-\u208e]+")
_WRAPPERS = (("**", "**"), ("`", "`"), ('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("$", "$"))
_LEAD = re.compile(r"^(?:(?:the )?(?:final )?answer(?: is\b|:)\s*)+", re.IGNORECASE)
_BOXED = re.compile(r"^\\boxed\{([^{}]*)\}$")
_NUMBER = re.compile(r"^([+-]?)(\d+|\d{1,3}(?:,\d{3})+)(?:\.(\d+))?$", re.ASCII)
_FRACTION = re.compile(r"^([+-]?\d+)\s*/\s*(\d+)$", re.ASCII)
_CHOICE = re.compile(r"^(?:(?:option|choice)\s+)?(?:\(([a-z])\)|([a-z])\)?)\.?$", re.IGNORECASE)


def key(text: str) -> tuple[str, str]:
    """The canonical form of an answer: equal keys, equal answers.

    Returns:
        A kind (``number``, ``choice``, ``text``) and the canonical value.
    """
    marked = _SUBSCRIPT.sub(r"_\g<0>", _SUPERSCRIPT.sub(r"^\g<0>", text))
    plain = unicodedata.normalize("NFKC", marked).translate(_DASHES)
    plain = _unwrap(" ".join(plain.split()))
    choice = _CHOICE.match(plain)
    if choice:
        return "choice", (choice.group(1) or choice.group(2)).lower()
    # A full stop says nothing; "5!" is 120.
    plain = _unwrap(plain.rstrip(".").rstrip())
    number = _number(plain)
    if number is not None:
        return "number", str(number)
    # Not casefold(): "Maße" are measures and "Masse" is mass.
    return "text", plain.lower()


def _unwrap(text: str) -> str:
    """Without leading phrases and wrapping marks, however nested."""
    while True:
        before = text
        text = _LEAD.sub("", text).strip()
        boxed = _BOXED.match(text)
        if boxed:
            text = boxed.group(1).strip()
        for left, right in _WRAPPERS:
            if not (text.startswith(left) and text.endswith(right)):
                continue
            inner = text[len(left) : len(text) - len(right)]
            if inner and left not in inner:
                text = inner.strip()
        if text == before:
            return text


def _number(text: str) -> Fraction | None:
    if len(text) > _DIGITS:
        return None
    fraction = _FRACTION.match(text)
    if fraction:
        numerator, denominator = fraction.groups()
        if int(denominator) == 0 or _padded(numerator.lstrip("+-")) or _padded(denominator):
            return None
        return Fraction(int(numerator), int(denominator))
    match = _NUMBER.match(text)
    if not match:
        return None
    sign, whole, decimals = match.groups()
    whole = whole.replace(",", "")
    # "007" may be a code or a reversed word, where the zeros count.
    if _padded(whole):
        return None
    return Fraction(f"{sign}{whole}.{decimals or 0}")


def _padded(digits: str) -> bool:
    return len(digits) > 1 and digits.startswith("0")


def classes(texts: Sequence[str | None]) -> tuple[tuple[int, ...], ...]:
    """Partition the indices of the texts that are there into equivalence classes.

    Args:
        texts: answers in roster order; None where missing.

    Returns:
        Classes in the order of their first members; members ascending.
    """
    found: dict[tuple[str, str], list[int]] = {}
    for index, text in enumerate(texts):
        if text is not None:
            found.setdefault(key(text), []).append(index)
    return tuple(tuple(members) for members in found.values())


def representative(texts: Sequence[str | None], members: Sequence[int]) -> str:
    """The text that stands for a class: its commonest, of equals the shortest, then the first.

    The shortest, so that nobody decorates another's answer by saying the same at more length.
    """
    spellings = Counter(text for member in members if (text := texts[member]) is not None)
    return min(spellings, key=lambda text: (-spellings[text], len(text)))
