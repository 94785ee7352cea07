"""What happens after each token that a model writes: stream it, stop in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import StoppingCriteria

Alive = Callable[[], None]
"""Called between forward passes; raises to stop the work."""


class Watch(StoppingCriteria):  # type: ignore[misc]
    """Called after each token: passes new text on, and stops the work where it must.

    Args:
        tokenizer: decodes the tokens.
        start: length of the prompt, in tokens.
        max_bytes: stop once the new text is larger, in UTF-8.
        alive: called first, each time.
        emit: receives each new piece of text.
    """

    def __init__(
        self, tokenizer: Any, start: int, max_bytes: int, alive: Alive, emit: Callable[[str], None]
    ) -> None:
        self._tokenizer = tokenizer
        self._done, self._shown = start, start
        self._max_bytes = max_bytes
        self._alive = alive
        self._emit = emit
        self._bytes = 0

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self._alive()
        self.show(input_ids[0])
        stop = self._bytes > self._max_bytes
        return torch.full((input_ids.shape[0],), stop, device=input_ids.device)

    def show(self, ids: torch.Tensor, last: bool = False) -> None:
        """Emit what the tokens after those already shown add to the text."""
        # A token's text may depend on the one before it, and may be part of a character.
        before = self._decode(ids[self._done : self._shown])
        text = self._decode(ids[self._done :])
        if len(text) <= len(before) or (text.endswith("\ufffd") and not last):
            return
        self._done, self._shown = self._shown, len(ids)
        piece = text[len(before) :]
        self._bytes += len(piece.encode())
        self._emit(piece)

    def _decode(self, ids: torch.Tensor) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))
