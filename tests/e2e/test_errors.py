"""What a user gets wrong: a clear error, the next step, the documented code, no traceback."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import BIN, swarm_command

pytestmark = pytest.mark.e2e


def swarmd(*flags: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "swarmd", *flags], capture_output=True, text=True, timeout=120, stdin=None
    )


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_no_daemon(tmp_path: Path) -> None:
    for command in (["ask", "hello"], ["status"], ["peers"], ["history"], ["why", "abcd"]):
        refused(swarm_command(*command, f"--socket={tmp_path}/none.sock"), 3, "swarmd")


def test_bad_flags() -> None:
    refused(swarm_command("ask", "--timeout", "soon", "hello"), 2, "--help")
    refused(swarm_command("sing"), 2, "--help")
    refused(swarmd("--min-answers=0"), 2, "min_answers")
    refused(swarmd("--no-such-flag"), 2, "--no-such-flag")


def test_a_data_directory_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    refused(swarmd(f"--data-dir={file}"), 2, str(file), "--data-dir")
    refused(swarmd("--data-dir=/proc/nowhere"), 2, "/proc/nowhere", "--data-dir")


def test_a_socket_path_that_is_too_long(tmp_path: Path) -> None:
    done = swarmd(f"--data-dir={tmp_path}/d", f"--socket={tmp_path}/{'x' * 120}.sock")
    refused(done, 2, "107", "--socket")


def test_a_model_that_is_none(tmp_path: Path) -> None:
    done = swarmd(
        f"--data-dir={tmp_path}/d", f"--model={tmp_path}", "--listen=/ip4/127.0.0.1/tcp/0"
    )
    refused(done, 2, str(tmp_path), "config.json")
    script = swarmd(f"--data-dir={tmp_path}/d", "--backend=scripted", f"--model={tmp_path}/none")
    refused(script, 2, "none")


def test_a_second_daemon_on_one_directory(tmp_path: Path) -> None:
    script = tmp_path / "model.json"
    script.write_text('{"name": "one", "default": "42"}')
    flags = [
        f"--data-dir={tmp_path}/d",
        "--backend=scripted",
        f"--model={script}",
        "--listen=/ip4/127.0.0.1/tcp/0",
    ]
    with subprocess.Popen(
        [BIN / "swarmd", *flags], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline().startswith("{")
        refused(swarmd(*flags), 2, str(first.pid), "--data-dir")
        first.terminate()
        assert first.wait(30) == 0


def test_a_receipt_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "receipt"
    file.write_bytes(b"not a receipt")
    for command in ("verify", "show", "replay"):
        refused(swarm_command("receipt", command, file), 9, "receipt")
    refused(swarm_command("receipt", "verify", tmp_path / "none"), 2, "none")
