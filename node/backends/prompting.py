"""Text on its way into a chat model and out of it.

What others wrote must not speak with the template's voice: a control token of the model inside a
question or an answer is broken up before the text is templated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_LOOKS_LIKE_CONTROL = re.compile(r"<.+>|\[.+\]", re.DOTALL)
_ANSWER_LINE = re.compile(r"^[ \t]*\**answer:\**[ \t]*", re.IGNORECASE | re.MULTILINE)
_PASSES = 8


class ControlTokens:
    """The control tokens of one model, and how to take their power from a text.

    Args:
        special: tokens that the tokenizer treats as special, all of which count.
        added: other tokens added to the vocabulary, of which those count that look like markup,
            for instance ``<think>``; runs of spaces do not.
    """

    def __init__(self, special: Iterable[str], added: Iterable[str] = ()) -> None:
        tokens = {token for token in special if token}
        tokens |= {token for token in added if _LOOKS_LIKE_CONTROL.fullmatch(token)}
        longest_first = sorted(tokens, key=lambda token: (-len(token), token))
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def neutralise(self, text: str) -> str:
        """``text`` with every control token broken by a space after its first character.

        Breaking rather than removing keeps the text readable, and joins nothing: removal would
        turn ``<|e<|end|>nd|>`` into a token. A one-character token becomes a space.
        """
        for _ in range(_PASSES):
            broken = self._pattern.sub(_broken, text)
            if broken == text:
                return text
            text = broken
        # Tokens that overlap one another time and again: give up the text, not the template.
        return self._pattern.sub(" ", text)


def _broken(match: re.Match[str]) -> str:
    token = match[0]
    return f"{token[0]} {token[1:]}" if len(token) > 1 else " "


def asking(question: str) -> str:
    """What a chat model of any kind is asked, so that its final answer can be told apart."""
    return (
        f"{question}\n\nGive the final answer, as short as possible, on a last line that starts "
        'with "Answer:".'
    )


def final_answer(text: str) -> str:
    """What follows the last line that starts with ``Answer:``; without one, the whole text."""
    found = list(_ANSWER_LINE.finditer(text))
    answer = text[found[-1].end() :].strip().removesuffix("**") if found else ""
    return answer.strip() or text.strip()


def after_mark(text: str, mark: str) -> str:
    """What follows the last ``mark``; without one, or with ``mark`` empty, the whole text."""
    return (text.rsplit(mark, 1)[-1] if mark else text).strip()
