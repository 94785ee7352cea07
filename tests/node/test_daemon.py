"""What the daemon does before it serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from node import daemon
from protocol.errors import EXIT_USAGE, ConfigError

GOOD = '{"question": "Which port?", "answer": ["8443", "port 8443"], "topic": "ports"}\n\n'


async def test_an_operators_own_questions_are_read(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(GOOD + '{"question": "Wie heißt der Dienst?", "answer": "Größe"}')
    first, second = await daemon._private_items(file)
    assert (first.question, first.answers, first.topic) == (
        "Which port?",
        ("8443", "port 8443"),
        "ports",
    )
    assert (second.answers, second.topic) == (("Größe",), None)


async def test_there_may_be_none(tmp_path: Path) -> None:
    assert await daemon._private_items(None) == ()
    (tmp_path / "empty").write_text("\n")
    assert await daemon._private_items(tmp_path / "empty") == ()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        (b"\xff\xfe", "utf-8"),
        (b"not json", "Line 1: "),
        (GOOD.encode() + b'{"question": "Why?"}', "Line 3: "),
        (GOOD.encode() * 2, "Line 3 asks what line 1 asks"),
        (b'{"question": "Why?", "answer": "so", "more": 1}', "Line 1: "),
    ],
    ids=["missing", "no text", "no JSON", "no answer", "twice", "unknown"],
)
async def test_a_file_of_questions_that_is_none(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    file = tmp_path / "q.jsonl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as raised:
        await daemon._private_items(file)
    assert str(file) in str(raised.value)
    assert raised.value.exit_code == EXIT_USAGE


async def test_a_directory_is_no_file_of_questions(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        await daemon._private_items(tmp_path)


def test_every_value_is_shown_with_its_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["--check", "--data-dir", str(tmp_path / "d"), "--calibration-per-hour", "6"]
    assert daemon.main(words) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["calibration_per_hour", "6.0", "flag", "--calibration-per-hour"] in rows
    assert ["calibration_rate", "0.1", "default"] in rows
