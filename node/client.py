"""A thin, blocking client of the control socket: no event loop, so that commands are quick."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from node.config import check_socket_path
from protocol import limits, methods, rpc
from protocol.errors import (
    DaemonGoneError,
    DaemonSilentError,
    NoDaemonError,
    RpcError,
    SocketPathError,
    TooLargeError,
)

OnProgress = Callable[[Mapping[str, Any]], None]
"""Receives each progress event (a JSON object with a ``kind``), in order."""

SHORT_S: Final = 10.0
"""How long a daemon may be silent in a call that needs no round."""
ASK_S: Final = methods.TIMEOUT_S + 30.0
"""How long it may be silent in an ``ask``: the longest round, and time to store its result."""
_READ_BYTES: Final = 64 << 10
_CALL_ID: Final = 1


class Client:
    """Calls the daemon that listens at ``path``; each call is a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def call(
        self,
        method: str,
        params: Struct | Mapping[str, object] | None = None,
        on_progress: OnProgress | None = None,
        silence_s: float = SHORT_S,
    ) -> Any:
        """The JSON result of ``method``.

        Args:
            method: one of ``methods.METHODS``.
            params: its params; None: an empty object.
            on_progress: told of every progress event before this returns.
            silence_s: seconds the daemon may send nothing, once it has sent something; the
                first sign of life is due within ``SHORT_S``.

        Raises:
            SocketPathError: the path is no address of a socket.
            NoDaemonError: nobody listens there.
            DaemonGoneError: the connection ended before the response.
            DaemonSilentError: nothing came for ``silence_s`` seconds.
            SwarmError: the error that the daemon answered, of its own class.
        """
        check_socket_path(self._path)
        try:
            line = rpc.request(_CALL_ID, method, {} if params is None else params)
        except UnicodeError as error:
            raise RpcError("The text is not valid Unicode.") from error
        if len(line) > limits.RPC_LINE_BYTES:
            raise TooLargeError(f"The call has {len(line)} bytes.")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            self._connect(connection)
            try:
                # A daemon that turns this client away closes without reading: its reason is
                # still there to be received.
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.sendall(line)
                return self._receive(connection, on_progress, silence_s)
            except TimeoutError as error:
                raise DaemonSilentError(
                    f"Nothing came for {connection.gettimeout():g} s."
                ) from error
            except ConnectionError as error:
                raise DaemonGoneError(f"{self._path}: {error.strerror}.") from error

    def _connect(self, connection: socket.socket) -> None:
        connection.settimeout(SHORT_S)
        try:
            connection.connect(str(self._path))
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
            raise NoDaemonError(f"({self._path}: {error.strerror})") from error
        except TimeoutError as error:
            raise DaemonSilentError(f"{self._path} takes no connection.") from error
        except OSError as error:
            raise SocketPathError(f"{self._path}: {error.strerror}.") from error

    def _receive(
        self, connection: socket.socket, on_progress: OnProgress | None, silence_s: float
    ) -> Any:
        splitter = rpc.LineSplitter(limits.RPC_REPLY_BYTES)
        while data := connection.recv(_READ_BYTES):
            connection.settimeout(silence_s)
            for line in splitter.feed(data):
                reply = rpc.decode_reply(line)
                if isinstance(reply, rpc.Notification):
                    if on_progress is not None:
                        on_progress(reply.params.event)
                elif isinstance(reply.error, rpc.ErrorObject):
                    raise rpc.swarm_error(reply.error)
                elif reply.id == _CALL_ID:
                    return reply.result
        raise DaemonGoneError(f"({self._path})")
