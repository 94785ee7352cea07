"""A control socket with scripted handlers, served from a thread, for clients that block."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import trio

from node.identity import DataDirLock
from node.rpc_server import Handler, RpcServer

WAIT_S = 30.0
"""No test waits longer for the other side."""


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose sockets have short paths."""
    with tempfile.TemporaryDirectory(prefix="sw") as name:
        yield Path(name)


@contextmanager
def serving(data_dir: Path, handlers: Mapping[str, Handler]) -> Iterator[Path]:
    """An RpcServer in a thread; gives its socket."""
    path = data_dir / "swarmd.sock"
    started = threading.Event()
    stops: list[tuple[trio.lowlevel.TrioToken, trio.CancelScope]] = []

    async def main() -> None:
        with DataDirLock.acquire(data_dir) as lock, trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(RpcServer(path, handlers, lock).serve)
                stops.append((trio.lowlevel.current_trio_token(), scope))
                started.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert started.wait(WAIT_S)
    try:
        yield path
    finally:
        token, scope = stops[0]
        token.run_sync_soon(scope.cancel)
        thread.join(WAIT_S)
        assert not thread.is_alive()


@contextmanager
def saying(path: Path, *replies: bytes) -> Iterator[None]:
    """A listener that sends ``replies`` to its first client and closes, whatever it was asked."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)
    listener.settimeout(WAIT_S)

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(WAIT_S)
            while not connection.recv(1 << 16).endswith(b"\n"):
                pass
            for reply in replies:
                connection.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        thread.join(WAIT_S)
        listener.close()
        assert not thread.is_alive()
