"""A backend that says what a file tells it to: for tests, demonstrations and benchmarks.

The file is JSON::

    {"name": "scripted:a", "family": "scripted",
     "answers": {"What is 6 * 7?": "42"}, "default": "I do not know",
     "truths": {"What is 6 * 7?": "42"}, "delay_s": 0.0}

``truths`` is what it believes when it judges: the pair member that equals the truth is right
with ``confidence`` (default 0.9), two equal ones are 0.5; a question without a truth is judged
by its own answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import trio

from node.backends.base import Emit, GenerateRequest, Generation, JudgeRequest, ModelInfo, Verdict
from protocol.errors import BackendError, ModelNotFoundError
from swarm.answers import key

Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a scripted model says.

    Attributes:
        default: answers questions without an entry; None fails them.
        confidence: P(the truth is right) in its verdicts.
        delay_s: seconds before each answer and each set of verdicts.
    """

    name: str
    family: str = "scripted"
    answers: dict[str, str] = {}
    default: str | None = None
    truths: dict[str, str] = {}
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.9
    delay_s: Seconds = 0.0


class ScriptedBackend:
    """Answers and judges by its script."""

    def __init__(self, script: Script) -> None:
        self._script = script

    @classmethod
    def load(cls, path: Path) -> ScriptedBackend:
        """The backend of a script file.

        Raises:
            ModelNotFoundError: there is no such file, or it is no script.
        """
        try:
            return cls(msgspec.json.decode(path.read_bytes(), type=Script))
        except OSError as error:
            raise ModelNotFoundError(f"{path}: {error.strerror}.") from error
        except msgspec.MsgspecError as error:
            raise ModelNotFoundError(f"{path} is not a script: {error}.") from error

    def describe(self) -> ModelInfo:
        """The name and family in the script."""
        return ModelInfo(self._script.name, self._script.family, "", 0, 4096, "none")

    async def generate(self, request: GenerateRequest, emit: Emit) -> Generation:
        """The scripted answer."""
        await trio.sleep(self._script.delay_s)
        answer = self._script.answers.get(request.question, self._script.default)
        if answer is None:
            raise BackendError("The script has no answer to this question.")
        emit(answer)
        return Generation(answer, answer, len(answer.split()))

    async def judge(self, request: JudgeRequest) -> tuple[Verdict, ...]:
        """Verdicts by the scripted truth."""
        await trio.sleep(self._script.delay_s)
        script = self._script
        own = script.answers.get(request.question, script.default)
        truth = script.truths.get(request.question, own)
        if truth is None:
            return (None,) * len(request.pairs)
        right = [key(answer) == key(truth) for answer in request.answers]
        return tuple(self._verdict(right[first], right[second]) for first, second in request.pairs)

    def _verdict(self, first: bool, second: bool) -> Verdict:
        if first == second:
            return 0.5
        return self._script.confidence if first else 1.0 - self._script.confidence

    async def aclose(self) -> None:
        """Nothing to free."""
