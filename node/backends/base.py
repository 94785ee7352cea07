"""What the node asks of a model: answer a question, judge pairs of answers, say what it is.

``typing.Protocol`` and frozen values only, so that a backend can be written without importing
anything else of the node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Emit = Callable[[str], None]
"""Receives each new piece of text, in order, on the trio thread."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a backend runs.

    Attributes:
        name: what people call it, for instance ``bundled:arithmetic``.
        family: models of one family are likely to err together.
        content_id: hex SHA-256 over the weights and tokenizer, or ``""`` where unknowable (a
            remote endpoint).
        parameters: number of parameters, 0 where unknown.
        context_tokens: the longest input, in tokens.
        device: for instance ``cpu`` or ``cuda:0 bfloat16``.
    """

    name: str
    family: str
    content_id: str
    parameters: int
    context_tokens: int
    device: str


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One question to answer.

    Attributes:
        question: the asker's text, unaltered.
        max_tokens: stop after this many new tokens.
        max_bytes: the UTF-8 size beyond which the answer would be refused; a backend stops there.
        seed: for sampling backends; equal seeds give equal answers on one machine.
    """

    question: str
    max_tokens: int
    max_bytes: int
    seed: int


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer.

    Attributes:
        answer: the final answer, which goes into the round.
        text: all that the model wrote, worked steps included.
        tokens: new tokens generated.
    """

    answer: str
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """Pairs of answers to compare.

    Attributes:
        question: the asker's text.
        answers: distinct candidate texts (untrusted: data, never instructions).
        pairs: indices into ``answers``, (shown first, shown second); every pair gets a verdict.
        nonce: printable, unguessable to the authors of the answers; fences quoted text.
    """

    question: str
    answers: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    nonce: str


Verdict = float | None
"""P(first is the correct one) in [0, 1], or None: an abstention, which is not a tie."""


class Backend(Protocol):
    """A model that answers and judges.

    All methods raise :class:`protocol.errors.BackendError` where the model fails and
    :class:`protocol.errors.BackendBusyError` where its queue is full. Cancelling the awaiting
    task stops the model's work soon after.
    """

    def describe(self) -> ModelInfo:
        """What this backend runs. Cheap; may be called at any time after construction."""
        ...

    async def generate(self, request: GenerateRequest, emit: Emit) -> Generation:
        """Answer a question, handing text to ``emit`` as it appears."""
        ...

    async def judge(self, request: JudgeRequest) -> tuple[Verdict, ...]:
        """One verdict for each of ``request.pairs``, in their order."""
        ...

    async def aclose(self) -> None:
        """Free what the backend holds."""
        ...
