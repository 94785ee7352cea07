"""The control socket: who may connect, what a client may do, and what the server survives."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from node import rpc_server
from node.identity import DataDirLock
from node.rpc_server import Handler, Notify, RpcServer, bind
from protocol import limits, methods, rpc
from protocol.errors import BusyError, NoPeersError, SocketPathError
from protocol.methods import AskId, AskParams, Progress
from tests.node.daemons import short_directory


async def status(params: methods.Nothing, notify: Notify) -> methods.Status:
    return methods.Status(version="1.2.3")


HANDLERS: dict[str, Handler] = {"status": status}


class Talker:
    """One client, line by line."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._splitter = rpc.LineSplitter(limits.RPC_REPLY_BYTES)
        self._lines: list[bytes] = []

    async def send(self, method: str, params: object = None, call_id: object = 1) -> None:
        message = {"jsonrpc": "2.0", "id": call_id, "method": method, "params": params or {}}
        await self.stream.send_all(json.dumps(message).encode() + b"\n")

    async def hear(self) -> Any:
        """The next message, or None at the end."""
        while not self._lines:
            data = await self.stream.receive_some(1 << 16)
            if not data:
                return None
            self._lines += self._splitter.feed(data)
        return json.loads(self._lines.pop(0))

    async def call(self, method: str, params: object = None) -> Any:
        await self.send(method, params)
        return await self.hear()


@asynccontextmanager
async def served(handlers: Mapping[str, Handler] = HANDLERS, **options: Any) -> AsyncIterator[Path]:
    with short_directory() as directory, DataDirLock.acquire(directory) as lock:
        path = directory / "s"
        async with trio.open_nursery() as nursery:
            await nursery.start(RpcServer(path, handlers, lock, **options).serve)
            yield path
            nursery.cancel_scope.cancel()
        assert not path.exists()


@asynccontextmanager
async def client(path: Path) -> AsyncIterator[Talker]:
    async with await trio.open_unix_socket(str(path)) as stream:
        yield Talker(stream)


# --- calls --------------------------------------------------------------------------------------


async def test_a_call_is_answered() -> None:
    async with served() as path, client(path) as one:
        reply = await one.call("status")
        assert reply["id"] == 1
        assert reply["result"]["version"] == "1.2.3"
        assert (await one.call("status"))["result"] == reply["result"]


async def test_progress_comes_before_the_result_and_to_its_caller_alone() -> None:
    async def ask(params: AskParams, notify: Notify) -> dict[str, object]:
        for kind in ("accepted", "closed"):
            notify(Progress(AskId(params.question), {"kind": kind}))
        return {"answer": params.question}

    async with served({"ask": ask, **HANDLERS}) as path, client(path) as one, client(path) as two:
        await one.send("ask", {"question": "q1"}, "a")
        heard = [await one.hear() for _ in range(3)]
        assert [message.get("method") for message in heard] == ["progress", "progress", None]
        assert heard[0]["params"] == {"ask": "q1", "event": {"kind": "accepted"}}
        assert (heard[2]["id"], heard[2]["result"]) == ("a", {"answer": "q1"})
        assert (await two.call("status"))["result"]["version"] == "1.2.3"


async def test_calls_of_one_client_run_side_by_side() -> None:
    release = trio.Event()

    async def ask(params: AskParams, notify: Notify) -> str:
        await release.wait()
        return "late"

    async with served({"ask": ask, **HANDLERS}) as path, client(path) as one:
        await one.send("ask", {"question": "?"}, 1)
        await one.send("status", None, 2)
        assert (await one.hear())["id"] == 2
        release.set()
        assert await one.hear() == {"jsonrpc": "2.0", "id": 1, "result": "late"}


async def test_our_errors_are_typed() -> None:
    async def ask(params: AskParams, notify: Notify) -> None:
        raise NoPeersError("1 of 3.")

    async with served({"ask": ask}) as path, client(path) as one:
        error = (await one.call("ask", {"question": "?"}))["error"]
    assert error["code"] == rpc.APPLICATION_ERROR
    assert error["data"] == {"code": "no-peers", "exit_code": NoPeersError.exit_code}
    assert error["message"] == NoPeersError("1 of 3.").user_text()


async def test_an_unexpected_failure_is_logged_and_hidden(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(params: methods.Nothing, notify: Notify) -> None:
        raise RuntimeError("secret detail")

    async def no_json(params: methods.Nothing, notify: Notify) -> object:
        return object()

    handlers: dict[str, Handler] = {"peers": broken, "config": no_json, **HANDLERS}
    with caplog.at_level(logging.ERROR):
        async with served(handlers) as path, client(path) as one:
            for method in ("peers", "config"):
                reply = await one.call(method)
                assert reply["error"]["code"] == rpc.INTERNAL_ERROR
                assert "secret" not in json.dumps(reply)
                assert "data" not in reply["error"]
            assert "result" in await one.call("status")
    assert "secret detail" in caplog.text


async def test_a_result_beyond_the_line_limit_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def large(params: methods.Nothing, notify: Notify) -> str:
        return "x" * 1000

    monkeypatch.setattr(limits, "RPC_REPLY_BYTES", 1000)
    async with served({"peers": large}) as path, client(path) as one:
        assert (await one.call("peers"))["error"]["data"]["code"] == "too-large"


async def test_a_question_runs_on_when_its_client_has_gone() -> None:
    begun, release, finished = trio.Event(), trio.Event(), trio.Event()

    async def ask(params: AskParams, notify: Notify) -> str:
        begun.set()
        await release.wait()
        notify(Progress(AskId("q"), {"kind": "closed"}))
        finished.set()
        return "unheard"

    async with served({"ask": ask, **HANDLERS}) as path:
        async with client(path) as one:
            await one.send("ask", {"question": "?"})
            await begun.wait()
        release.set()
        await finished.wait()
        async with client(path) as two:
            assert "result" in await two.call("status")


async def test_the_last_reply_is_still_delivered_when_the_server_ends() -> None:
    stop = trio.Event()

    async def shutdown(params: methods.Nothing, notify: Notify) -> dict[str, object]:
        stop.set()
        return {}

    with short_directory() as directory, DataDirLock.acquire(directory) as lock:
        server = RpcServer(directory / "s", {"shutdown": shutdown}, lock)
        async with trio.open_nursery() as nursery:

            async def until_stopped() -> None:
                await stop.wait()
                nursery.cancel_scope.cancel()

            await nursery.start(server.serve)
            nursery.start_soon(until_stopped)
            stream = await trio.open_unix_socket(str(directory / "s"))
            await Talker(stream).send("shutdown")
            await trio.sleep_forever()
        # What was sent before the end waits in the socket.
        with trio.fail_after(5):
            one = Talker(stream)
            assert await one.hear() == {"jsonrpc": "2.0", "id": 1, "result": {}}
            assert await one.hear() is None
        await stream.aclose()


# --- what a client may not do ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code", "call_id"),
    [
        (b"nonsense", rpc.PARSE_ERROR, None),
        (b"[]", rpc.INVALID_REQUEST, None),
        (b'{"jsonrpc":"2.0","id":4,"method":"nothing"}', rpc.METHOD_NOT_FOUND, 4),
        (b'{"jsonrpc":"2.0","id":4,"method":"peers"}', rpc.METHOD_NOT_FOUND, 4),
        (b'{"jsonrpc":"2.0","id":4,"method":"status","params":[]}', rpc.INVALID_PARAMS, 4),
    ],
)
async def test_a_broken_call_is_refused_and_the_connection_goes_on(
    line: bytes, code: int, call_id: object
) -> None:
    async with served() as path, client(path) as one:
        await one.stream.send_all(line + b"\n\n\n")
        reply = await one.hear()
        assert (reply["error"]["code"], reply["id"]) == (code, call_id)
        assert "result" in await one.call("status")


async def test_a_line_that_is_too_long_is_refused_and_the_connection_closed() -> None:
    async with served() as path:
        async with client(path) as one:
            await one.stream.send_all(b"x" * limits.RPC_LINE_BYTES)
            reply = await one.hear()
            assert (reply["error"]["code"], reply["id"]) == (rpc.INVALID_REQUEST, None)
            assert await one.hear() is None
        async with client(path) as two:
            assert "result" in await two.call("status")


async def test_another_user_is_turned_away() -> None:
    async with served(uid_of=lambda connection: os.geteuid() + 1) as path, client(path) as one:
        reply = await one.hear()
        assert "only the user" in reply["error"]["message"]
        assert await one.hear() is None


async def test_root_is_let_in() -> None:
    async with served(uid_of=lambda connection: 0) as path, client(path) as one:
        assert "result" in await one.call("status")


async def test_the_kernel_says_who_connects() -> None:
    seen = []

    def uid_of(connection: trio.socket.SocketType) -> int:
        seen.append(rpc_server.peer_uid(connection))
        return seen[-1]

    async with served(uid_of=uid_of) as path, client(path) as one:
        await one.call("status")
    assert seen == [os.geteuid()]


async def test_clients_are_bounded_and_their_places_are_freed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "RPC_CLIENTS", 2)
    async with served() as path:
        async with client(path) as one, client(path) as two:
            await one.call("status")
            await two.call("status")
            async with client(path) as three:
                assert (await three.hear())["error"]["data"]["code"] == BusyError.code
                assert await three.hear() is None
        await trio.testing.wait_all_tasks_blocked()
        async with client(path) as four:
            assert "result" in await four.call("status")


async def test_calls_of_one_client_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RPC_REQUESTS_PER_CLIENT", 2)
    release = trio.Event()

    async def ask(params: AskParams, notify: Notify) -> str:
        await release.wait()
        return "done"

    async with served({"ask": ask}) as path, client(path) as one:
        for call_id in (1, 2, 3):
            await one.send("ask", {"question": "?"}, call_id)
        refused = await one.hear()
        assert (refused["id"], refused["error"]["data"]["code"]) == (3, BusyError.code)
        release.set()
        assert {(await one.hear())["id"] for _ in range(2)} == {1, 2}
        assert (await one.call("ask", {"question": "?"}))["result"] == "done"


async def test_reconnecting_does_not_make_more_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RPC_CALLS", 3)
    begun = trio.open_memory_channel[None](10)

    async def ask(params: AskParams, notify: Notify) -> None:
        begun[0].send_nowait(None)
        await trio.sleep_forever()

    async with served({"ask": ask}) as path:
        for _ in range(3):
            async with client(path) as one:
                await one.send("ask", {"question": "?"})
                await begun[1].receive()
        async with client(path) as last:
            reply = await last.call("ask", {"question": "?"})
            assert reply["error"]["data"]["code"] == BusyError.code


async def test_a_client_that_leaves_too_much_unread_is_dropped() -> None:
    finished = trio.Event()

    async def ask(params: AskParams, notify: Notify) -> None:
        for _ in range(limits.RPC_OUTBOX_LINES + 2):
            notify(Progress(AskId("q"), {"kind": "x"}))
        finished.set()

    async with served({"ask": ask, **HANDLERS}) as path, client(path) as one:
        await one.send("ask", {"question": "?"})
        await finished.wait()
        assert await one.hear() is None
        async with client(path) as two:
            assert "result" in await two.call("status")


async def test_a_client_that_stops_reading_is_dropped_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def large(params: methods.Nothing, notify: Notify) -> str:
        return "x" * (4 << 20)

    async with served({"peers": large}) as path, client(path) as one:
        began = trio.current_time()
        await one.send("peers")
        # Nobody reads, so nothing happens until the server's patience ends.
        await trio.sleep(rpc_server.WRITE_S + rpc_server.FLUSH_S + 1)
        received = 0
        while data := await one.stream.receive_some(1 << 20):
            received += len(data)
        assert 0 < received < 4 << 20
        assert trio.current_time() - began < 2 * rpc_server.WRITE_S


async def test_a_flood_of_broken_lines_is_answered_to_whoever_reads() -> None:
    count = 20_000
    async with served() as path, client(path) as one, trio.open_nursery() as nursery:
        nursery.start_soon(one.stream.send_all, b"{}\n" * count)
        for _ in range(count):
            assert (await one.hear())["error"]["code"] == rpc.INVALID_REQUEST


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=80), max_size=8))
def test_any_bytes_get_typed_refusals_and_the_server_survives(chunks: list[bytes]) -> None:
    async def main() -> None:
        async with served() as path, client(path) as one:
            for chunk in chunks:
                await one.stream.send_all(chunk)
            await one.stream.send_all(b"\n")
            await one.send("status", None, "last")
            with trio.fail_after(10):
                while (reply := await one.hear())["id"] != "last":
                    assert reply["error"]["code"] in (
                        rpc.PARSE_ERROR,
                        rpc.INVALID_REQUEST,
                        rpc.METHOD_NOT_FOUND,
                        rpc.INVALID_PARAMS,
                    )
            assert reply["result"]["version"] == "1.2.3"

    trio.run(main)


# --- the socket file ------------------------------------------------------------------------------


async def test_the_socket_is_private_from_the_start() -> None:
    before = os.umask(0)
    try:
        with short_directory() as directory, DataDirLock.acquire(directory) as lock:
            path = directory / "run" / "s"
            bind(path, lock).close()
            assert path.stat().st_mode & 0o777 == 0o600
            assert path.parent.stat().st_mode & 0o777 == 0o700
        assert os.umask(0) == 0
    finally:
        os.umask(before)


def leave_stale(path: Path) -> None:
    """A socket file that nobody listens on, as a killed daemon leaves it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))


async def test_a_stale_socket_is_replaced() -> None:
    with short_directory() as directory, DataDirLock.acquire(directory) as lock:
        path = directory / "s"
        leave_stale(path)
        async with trio.open_nursery() as nursery:
            await nursery.start(RpcServer(path, HANDLERS, lock).serve)
            async with client(path) as one:
                assert "result" in await one.call("status")
            nursery.cancel_scope.cancel()
        assert not path.exists()


async def test_a_live_socket_is_left_alone() -> None:
    async with served() as path:
        with (
            short_directory() as other,
            DataDirLock.acquire(other) as lock,
            pytest.raises(SocketPathError, match="Another process listens"),
        ):
            bind(path, lock)
        async with client(path) as one:
            assert "result" in await one.call("status")


def test_a_live_socket_with_a_full_backlog_is_left_alone() -> None:
    with (
        short_directory() as directory,
        DataDirLock.acquire(directory) as lock,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as busy,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting,
    ):
        busy.bind(str(directory / "s"))
        busy.listen(0)
        waiting.connect(str(directory / "s"))
        with pytest.raises(SocketPathError, match="Another process listens"):
            bind(directory / "s", lock)
        assert (directory / "s").exists()


def test_nothing_is_removed_without_the_lock() -> None:
    with short_directory() as directory:
        path = directory / "s"
        leave_stale(path)
        with DataDirLock.acquire(directory) as lock:
            pass
        with pytest.raises(ValueError, match="not held"):
            bind(path, lock)
        assert path.exists()


def test_what_is_no_socket_is_kept() -> None:
    with short_directory() as directory, DataDirLock.acquire(directory) as lock:
        for name in ("file", "link"):
            path = directory / name
            if name == "file":
                path.write_text("precious")
            else:
                path.symlink_to(directory / "nowhere")
            with pytest.raises(SocketPathError, match="no socket"):
                bind(path, lock)
            assert os.path.lexists(path)


def test_a_path_that_is_too_long_is_told() -> None:
    with short_directory() as directory, DataDirLock.acquire(directory) as lock:
        with pytest.raises(SocketPathError, match="at most 107"):
            bind(directory / ("x" * 107), lock)
        assert [entry.name for entry in directory.iterdir()] == ["lock"]


def test_a_directory_open_to_everyone_is_refused() -> None:
    with short_directory() as directory, DataDirLock.acquire(directory) as lock:
        shared = directory / "shared"
        shared.mkdir()
        shared.chmod(0o777)
        with pytest.raises(SocketPathError, match="chmod o-w"):
            bind(shared / "s", lock)
        shared.chmod(0o1777)  # sticky, as /tmp is: only the owner can replace the socket
        bind(shared / "s", lock).close()


def test_a_directory_that_cannot_be_made_is_told() -> None:
    with short_directory() as directory, DataDirLock.acquire(directory) as lock:
        (directory / "file").write_text("")
        with pytest.raises(SocketPathError, match="--socket"):
            bind(directory / "file" / "s", lock)


async def test_only_its_own_socket_is_unlinked() -> None:
    with short_directory() as directory, DataDirLock.acquire(directory) as lock:
        path = directory / "s"
        async with trio.open_nursery() as nursery:
            await nursery.start(RpcServer(path, HANDLERS, lock).serve)
            path.unlink()
            path.write_text("somebody else's")
            nursery.cancel_scope.cancel()
        assert path.read_text() == "somebody else's"
