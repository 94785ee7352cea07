"""The blocking client: results, progress, and every way a daemon can fail it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from node import client as client_module
from node.client import Client
from node.rpc_server import Notify
from protocol import limits, methods, rpc
from protocol.errors import (
    BusyError,
    DaemonGoneError,
    DaemonSilentError,
    DecodeError,
    NoDaemonError,
    NoPeersError,
    RpcError,
    SocketPathError,
    TooLargeError,
)
from protocol.methods import AskId, AskParams, Progress
from tests.node.daemons import saying, serving, short_directory


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        yield path


async def ask(params: AskParams, notify: Notify) -> dict[str, object]:
    """Answers with the question; the question "fail" has no peers."""
    notify(Progress(AskId("q1"), {"kind": "accepted", "ask": "q1"}))
    await trio.lowlevel.checkpoint()
    if params.question == "fail":
        raise NoPeersError("0 of 2.")
    notify(Progress(AskId("q1"), {"kind": "closed", "outcome": "answer"}))
    return {"answer": params.question}


def test_a_call_returns_its_result_after_its_progress(directory: Path) -> None:
    events: list[str] = []
    with serving(directory, {"ask": ask}) as path:
        result = Client(path).call("ask", AskParams("é\n4"), lambda e: events.append(e["kind"]))
        assert Client(path).call("ask", {"question": "x"}) == {"answer": "x"}
    assert result == {"answer": "é\n4"}
    assert events == ["accepted", "closed"]


def test_errors_of_the_daemon_are_raised_as_themselves(directory: Path) -> None:
    with serving(directory, {"ask": ask}) as path:
        with pytest.raises(NoPeersError) as caught:
            Client(path).call("ask", AskParams("fail"))
        assert caught.value.user_text() == NoPeersError("0 of 2.").user_text()
        for method in ("ask", "status", "nonsense"):
            with pytest.raises(RpcError):
                Client(path).call(method, {})


def test_a_large_result_arrives(directory: Path) -> None:
    async def large(params: methods.Nothing, notify: Notify) -> str:
        return "x" * (3 << 20)

    with serving(directory, {"peers": large}) as path:
        assert Client(path).call("peers") == "x" * (3 << 20)


def test_without_a_socket_there_is_no_daemon(directory: Path) -> None:
    with pytest.raises(NoDaemonError, match="missing"):
        Client(directory / "missing").call("status")
    (directory / "file").write_text("")
    with pytest.raises(NoDaemonError):
        Client(directory / "file" / "s").call("status")


def test_behind_a_stale_socket_there_is_no_daemon(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(directory / "s"))
    with pytest.raises(NoDaemonError, match="refused"):
        Client(directory / "s").call("status")


def test_a_path_that_is_too_long_is_told_before_it_is_tried(directory: Path) -> None:
    with pytest.raises(SocketPathError, match="at most 107"):
        Client(directory / ("x" * 200)).call("status")


def test_a_socket_of_another_kind_is_told(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(directory / "s"))
        with pytest.raises(SocketPathError):
            Client(directory / "s").call("status")


ACCEPTED = rpc.encode(rpc.Notification(Progress(AskId("q1"), {"kind": "accepted", "ask": "q1"})))
RESULT = rpc.encode(rpc.Response(1, {"answer": "4"}))


@pytest.mark.parametrize("replies", [(), (ACCEPTED,), (RESULT[:-1],)])
def test_a_daemon_that_dies_is_gone(directory: Path, replies: tuple[bytes, ...]) -> None:
    with saying(directory / "s", *replies), pytest.raises(DaemonGoneError) as caught:
        Client(directory / "s").call("ask", AskParams("?"))
    assert "swarm history" in caught.value.user_text()


def test_a_result_of_another_call_is_passed_over(directory: Path) -> None:
    with saying(directory / "s", rpc.encode(rpc.Response(2, "other")), RESULT):
        assert Client(directory / "s").call("status") == {"answer": "4"}


def test_a_refusal_before_the_call_is_read_is_raised(directory: Path) -> None:
    refusal = rpc.encode(rpc.Response(None, error=rpc.error_object(BusyError("32 clients."))))
    with saying(directory / "s", refusal), pytest.raises(BusyError, match="32 clients"):
        Client(directory / "s").call("status")


@pytest.mark.parametrize("reply", [b"HTTP/1.1 400 Bad Request\r\n", b"{}\n", b"\xff\n"])
def test_what_is_no_daemon_is_told(directory: Path, reply: bytes) -> None:
    with saying(directory / "s", reply), pytest.raises(DecodeError):
        Client(directory / "s").call("status")


def test_an_endless_line_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RPC_REPLY_BYTES", 1000)
    with saying(directory / "s", b"x" * 1000), pytest.raises(TooLargeError):
        Client(directory / "s").call("status")


def silent(directory: Path) -> socket.socket:
    """Takes connections into its backlog and does nothing else."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(directory / "s"))
    listener.listen(1)
    return listener


def test_a_silent_daemon_is_not_waited_for(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "SHORT_S", 0.01)
    with silent(directory), pytest.raises(DaemonSilentError, match=r"0\.01 s"):
        # However long the round may take, the daemon has to acknowledge the question at once.
        Client(directory / "s").call("ask", AskParams("?"), silence_s=1000.0)


def test_a_daemon_that_falls_silent_is_not_waited_for(directory: Path) -> None:
    async def ask(params: AskParams, notify: Notify) -> None:
        notify(Progress(AskId("q1"), {"kind": "accepted", "ask": "q1"}))
        await trio.sleep_forever()

    events: list[Any] = []
    with serving(directory, {"ask": ask}) as path, pytest.raises(DaemonSilentError):
        Client(path).call("ask", AskParams("?"), events.append, silence_s=0.01)
    assert len(events) == 1


def test_text_that_is_no_unicode_is_refused(directory: Path) -> None:
    with pytest.raises(RpcError, match="Unicode"):
        Client(directory / "s").call("ask", {"question": "\udcff"})


def test_a_call_that_fits_no_line_is_refused(directory: Path) -> None:
    with pytest.raises(TooLargeError):
        Client(directory / "s").call("ask", {"question": "x" * limits.RPC_LINE_BYTES})


def test_the_client_imports_no_event_loop() -> None:
    script = (
        "import sys, node.client\n"
        "print({'trio', 'asyncio', 'libp2p', 'torch', 'numpy', 'nacl'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"set()\n"
