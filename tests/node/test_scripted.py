"""The scripted backend does as its file says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from node.backends.base import GenerateRequest, JudgeRequest
from node.backends.scripted import ScriptedBackend
from protocol.errors import BackendError, ModelNotFoundError


def backend(tmp_path: Path, **script: Any) -> ScriptedBackend:
    path = tmp_path / "script.json"
    path.write_text(json.dumps({"name": "one"} | script))
    return ScriptedBackend.load(path)


def asked(question: str) -> GenerateRequest:
    return GenerateRequest(question, 10, 100, 0)


async def test_answers(tmp_path: Path, autojump_clock: MockClock) -> None:
    one = backend(tmp_path, answers={"a?": "A"}, default="other", delay_s=1000.0)
    emitted: list[str] = []
    assert (await one.generate(asked("a?"), emitted.append)).answer == "A"
    assert (await one.generate(asked("b?"), emitted.append)).answer == "other"
    assert emitted == ["A", "other"]
    assert one.describe().name == "one"
    await one.aclose()


async def test_no_answer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError):
        await backend(tmp_path).generate(asked("a?"), print)


async def test_verdicts(tmp_path: Path) -> None:
    one = backend(tmp_path, truths={"a?": "42"}, confidence=0.8)
    request = JudgeRequest("a?", ("41", "42.0", "7"), ((0, 1), (1, 0), (0, 2)), "nonce")
    assert await one.judge(request) == (pytest.approx(0.2), 0.8, 0.5)
    unknown = JudgeRequest("b?", ("41", "42"), ((0, 1),), "nonce")
    assert await one.judge(unknown) == (None,)
    own = backend(tmp_path, default="41")
    assert await own.judge(unknown) == (0.9,)


@pytest.mark.parametrize("text", ["", "[]", '{"name": "x", "unknown": 1}', '{"name": 3}'])
def test_what_is_no_script(tmp_path: Path, text: str) -> None:
    path = tmp_path / "script.json"
    path.write_text(text)
    with pytest.raises(ModelNotFoundError, match="script"):
        ScriptedBackend.load(path)
    with pytest.raises(ModelNotFoundError):
        ScriptedBackend.load(tmp_path / "none")
