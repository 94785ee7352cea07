"""Grading a round whose right answer is known, and what it says about its judges.

A judge is told by pairs with exactly one right answer, the wrong ones being what real peers said.
A text that is not right to the letter but holds the right answer ("85 apples", where 85 is right)
is left out of such pairs: whoever prefers it is not wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from swarm import answers
from swarm.calibration.items import Item

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")


def grade(item: Item, texts: Sequence[str]) -> tuple[bool, ...]:
    """Whether each of ``texts``, the classes of a round's answers, is right."""
    return tuple(item.is_right(text) for text in texts)


def truth(item: Item, texts: Sequence[str]) -> tuple[bool | None, ...]:
    """As :func:`grade`, but None where a text is not right to the letter and holds what is."""
    return tuple(
        True if good else None if _holds(item, text) else False
        for text, good in zip(texts, grade(item, texts), strict=True)
    )


def informative(item: Item, texts: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pairs of texts of which exactly one is right, the right one first, by index."""
    right = grade(item, texts)
    wrong = [at for at, text in enumerate(texts) if not right[at] and not _holds(item, text)]
    return tuple((at, other) for at, good in enumerate(right) if good for other in wrong)


def exactly_one_right(item: Item, texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pairs (right, wrong) from the texts that peers gave, one for each thing that was wrong.

    The right text is a peer's where one gave it, since a judge could tell the asker's own by its
    form, and the item's otherwise.
    """
    distinct = [texts[members[0]] for members in answers.classes(texts)]
    right = grade(item, distinct)
    best = next((text for text, good in zip(distinct, right, strict=True) if good), None)
    shown = item.answers[0] if best is None else best
    return tuple(
        (shown, text)
        for text, good in zip(distinct, right, strict=True)
        if not good and text.strip() and not _holds(item, text)
    )


def _holds(item: Item, text: str) -> bool:
    """Whether a right answer stands in ``text`` as whole words or numbers."""
    plain = _plain(text)
    for right in item.answers:
        words = re.escape(_plain(right))
        if re.search(rf"(?<![\w.,]){words}(?![\w]|[.,]\w)", plain):
            return True
    return False


def _plain(text: str) -> str:
    """Lower case, single spaces, no commas between thousands."""
    return _THOUSANDS.sub("", " ".join(text.lower().split()))
