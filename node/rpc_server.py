"""The control socket: JSON-RPC over a Unix socket that only this user can open.

A client may send anything and read nothing: its lines, calls and unread replies are bounded, and
one that does not read is not read from, then dropped. The calls belong to the server, not to the
connection: a question whose client has gone runs on.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import trio

from node.config import check_socket_path
from node.identity import DataDirLock
from protocol import limits, rpc
from protocol.errors import BusyError, RpcError, SocketPathError, SwarmError, TooLargeError
from protocol.methods import Progress
from protocol.rpc import CallId, InvalidCallError, Notification, Request, Response

Notify = Callable[[Progress], None]
"""Sends a ``progress`` notification to the caller, if it is still there. Never waits or fails."""

Handler = Callable[[Any, Notify], Awaitable[object]]
"""Answers one method: given its params struct (``methods.METHODS``), returns what JSON can hold.

Raises SwarmError for what the caller should read; anything else is logged and hidden. It is
cancelled only when the server ends, never because its caller went away.
"""

UNREAD_LINES: Final = 32
"""With so many lines waiting for it, a client is not read from."""
WRITE_S: Final = 30.0
"""How long a client may take to read one line."""
FLUSH_S: Final = 1.0
"""When a connection ends, how long the client has to read what it is owed."""
_READ_BYTES: Final = 64 << 10
_BACKLOG: Final = 64
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)

_log = logging.getLogger(__name__)


def peer_uid(connection: trio.socket.SocketType) -> int:
    """The user at the other end, as the kernel vouches for it (SO_PEERCRED)."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(data)[1]
    return uid


class RpcServer:
    """Serves ``handlers`` on a Unix socket.

    Args:
        path: of the socket; its directory is made (mode 0700) where missing.
        handlers: by method name; methods of ``methods.METHODS`` without one do not exist here.
        lock: proof that no other daemon uses the data directory; held while this serves.
        uid_of: who is at the other end of a connection.
    """

    def __init__(
        self,
        path: Path,
        handlers: Mapping[str, Handler],
        lock: DataDirLock,
        uid_of: Callable[[trio.socket.SocketType], int] = peer_uid,
    ) -> None:
        self._path = path
        self._handlers = handlers
        self._lock = lock
        self._uid_of = uid_of
        self._clients = 0
        self._calls = 0

    async def serve(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled; started once clients can connect. Unlinks the socket.

        Raises:
            SocketPathError: the path is too long, taken, in use, or in a directory where anyone
                could replace it.
        """
        listening = bind(self._path, self._lock)
        made = os.lstat(self._path)
        try:
            async with trio.open_nursery() as calls:

                async def attend(stream: trio.SocketStream) -> None:
                    await self._attend(stream, calls)

                listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
                task_status.started()
                await trio.serve_listeners(attend, [listener])
        finally:
            listening.close()
            _unlink_own(self._path, made)

    async def _attend(self, stream: trio.SocketStream, calls: trio.Nursery) -> None:
        if self._uid_of(stream.socket) not in (0, os.geteuid()):
            await _turn_away(stream, RpcError("Its socket serves only the user who runs it."))
        elif self._clients >= limits.RPC_CLIENTS:
            await _turn_away(stream, BusyError(f"{self._clients} clients are connected."))
        else:
            self._clients += 1
            try:
                await _Client(stream, lambda client, call: self._begin(client, call, calls)).run()
            finally:
                self._clients -= 1

    def _begin(self, client: _Client, call: Request, calls: trio.Nursery) -> None:
        """Start the handler of ``call``, or raise why not."""
        params = rpc.decode_params(call)
        handler = self._handlers.get(call.method)
        if handler is None:
            raise InvalidCallError(
                f"This daemon does not serve {call.method!r}.", rpc.METHOD_NOT_FOUND, call.id
            )
        if client.calls >= limits.RPC_REQUESTS_PER_CLIENT:
            raise BusyError(f"{client.calls} calls of this connection are in progress.")
        # Calls outlive their clients, so reconnecting must not be a way to have more of them.
        if self._calls >= limits.RPC_CALLS:
            raise BusyError(f"{self._calls} calls are in progress.")
        self._calls += 1
        client.calls += 1
        calls.start_soon(self._answer, client, call, handler, params)

    async def _answer(
        self, client: _Client, call: Request, handler: Handler, params: object
    ) -> None:
        def notify(progress: Progress) -> None:
            client.send(rpc.encode(Notification(progress)))

        try:
            line = rpc.encode(Response(call.id, await handler(params, notify)))
            if len(line) > limits.RPC_REPLY_BYTES:
                raise TooLargeError(
                    f"The result has {len(line)} bytes, at most {limits.RPC_REPLY_BYTES} are sent."
                )
        except SwarmError as error:
            line = rpc.encode(Response(call.id, error=rpc.error_object(error)))
        except Exception:
            _log.exception("%s failed", call.method)
            hidden = rpc.ErrorObject(
                rpc.INTERNAL_ERROR, "Something unexpected failed; the daemon's log says what."
            )
            line = rpc.encode(Response(call.id, error=hidden))
        finally:
            self._calls -= 1
            client.calls -= 1
        client.send(line)


class _Client:
    """One connection: reads calls, and writes what is queued for it."""

    def __init__(
        self, stream: trio.SocketStream, begin: Callable[[_Client, Request], None]
    ) -> None:
        self.calls = 0
        self._stream = stream
        self._begin = begin
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._queued = trio.Event()
        self._written = trio.Event()
        self._ended = False
        self._reading = trio.CancelScope()
        # Shielded, for the last reply must not be cut in the middle; given a deadline at the end.
        self._writing = trio.CancelScope(shield=True)

    def send(self, line: bytes) -> None:
        """Queue ``line``. A client that leaves too many unread is dropped."""
        if self._ended:
            return
        self._outbox.append(line)
        self._outbox_bytes += len(line)
        self._queued.set()
        if (
            len(self._outbox) > limits.RPC_OUTBOX_LINES
            or self._outbox_bytes > limits.RPC_OUTBOX_BYTES
        ):
            self._drop("does not read")

    async def run(self) -> None:
        """Until the client hangs up, breaks a bound, or the server ends."""
        async with self._stream, trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            try:
                with self._reading:
                    await self._read()
            finally:
                self._ended = True
                self._writing.deadline = trio.current_time() + FLUSH_S
                self._queued.set()

    def _drop(self, reason: str) -> None:
        _log.info("a client of the control socket %s; dropped", reason)
        self._ended = True
        self._outbox.clear()
        self._reading.cancel()
        self._writing.cancel()

    async def _read(self) -> None:
        splitter = rpc.LineSplitter(limits.RPC_LINE_BYTES)
        with suppress(trio.BrokenResourceError):
            while data := await self._stream.receive_some(_READ_BYTES):
                try:
                    lines = splitter.feed(data)
                except TooLargeError as error:
                    self._refuse(None, InvalidCallError(str(error), rpc.INVALID_REQUEST))
                    return
                for line in lines:
                    self._take(line)
                    while len(self._outbox) > UNREAD_LINES:
                        self._written = trio.Event()
                        await self._written.wait()

    def _take(self, line: bytes) -> None:
        call_id = None
        try:
            call = rpc.decode_request(line)
            call_id = call.id
            self._begin(self, call)
        except SwarmError as error:
            if isinstance(error, InvalidCallError):
                call_id = error.call_id
            self._refuse(call_id, error)

    def _refuse(self, call_id: CallId | None, error: SwarmError) -> None:
        self.send(rpc.encode(Response(call_id, error=rpc.error_object(error))))

    async def _write(self) -> None:
        with self._writing:
            try:
                while self._outbox or not self._ended:
                    while self._outbox:
                        line = self._outbox.popleft()
                        with trio.fail_after(WRITE_S):
                            await self._stream.send_all(line)
                        self._outbox_bytes -= len(line)
                        self._written.set()
                    if not self._ended:
                        self._queued = trio.Event()
                        await self._queued.wait()
            except trio.TooSlowError:
                self._drop("takes too long to read")
            except trio.BrokenResourceError:
                self._drop("has gone")


def bind(path: Path, lock: DataDirLock) -> socket.socket:
    """A listening Unix socket at ``path`` with mode 0600.

    What a crashed daemon left there is removed, but only while ``lock`` is held and only where
    nobody listens.

    Raises:
        SocketPathError: with the reason and the next step.
    """
    if not lock.held:
        raise ValueError("the data directory's lock is not held")
    check_socket_path(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _prepare_directory(path.parent)
        _remove_stale(path)
        # The mode must hold from the moment the socket exists, and bind() takes it from the umask.
        before = os.umask(0o177)
        try:
            listening.bind(os.fspath(path))
        finally:
            os.umask(before)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise SocketPathError(
            f"{path}: {error.strerror}. Choose another place with --socket."
        ) from error
    except BaseException:
        listening.close()
        raise
    listening.setblocking(False)
    return listening


def _prepare_directory(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = directory.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise SocketPathError(
            f"Anyone may replace files in {directory}. Run: chmod o-w {directory} — or choose "
            "another place with --socket."
        )


def _remove_stale(path: Path) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketPathError(f"{path} is there, and is no socket. Move it, or use --socket.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # Not blocking: a daemon whose backlog is full answers EAGAIN, and is alive.
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise SocketPathError(
        f"Another process listens on {path}. Stop it, or choose another place with --socket."
    )


def _unlink_own(path: Path, made: os.stat_result) -> None:
    """Remove our socket, unless something else has taken its place."""
    with suppress(FileNotFoundError):
        found = os.lstat(path)
        if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
            os.unlink(path)


async def _turn_away(stream: trio.SocketStream, reason: SwarmError) -> None:
    async with stream:
        with trio.move_on_after(FLUSH_S), suppress(trio.BrokenResourceError):
            await stream.send_all(rpc.encode(Response(None, error=rpc.error_object(reason))))
