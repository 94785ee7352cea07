"""What is said on the control socket: JSON-RPC 2.0, one message a line, typed and bounded.

Follows the JSON-RPC 2.0 specification (jsonrpc.org) with four restrictions: a line holds one
message (no batches), every call carries an id (a client sends no notifications), params are an
object, and an id is text or an integer. Lines end with ``\\n``; JSON never contains one.

An ``ask`` is answered in two parts: ``progress`` notifications while the round goes on, the first
being ``{"kind": "accepted", "ask": ID}`` and sent only once the question is on disk, then the
response. Closing the connection does not cancel the question; only ``cancel`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from protocol.errors import DecodeError, RpcError, SwarmError, TooLargeError
from protocol.methods import METHODS, Progress

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
APPLICATION_ERROR: Final = -32000

CallId = Annotated[str, Meta(max_length=64)] | int
"""What a client numbers its calls with; echoed in the response."""

T = TypeVar("T")


class ErrorData(Struct, frozen=True):
    """What a :class:`SwarmError` is to a program and to a shell."""

    code: str
    exit_code: Annotated[int, Meta(ge=1, le=255)]


class ErrorObject(Struct, frozen=True, omit_defaults=True):
    """A JSON-RPC error: a number, what happened in words, and, for our own errors, which one."""

    code: int
    message: str
    data: ErrorData | None = None


class Request(Struct, frozen=True):
    """A call. ``params`` are still JSON: :func:`decode_params` types them."""

    id: CallId
    method: str
    params: Raw = Raw(b"{}")
    jsonrpc: Literal["2.0"] = "2.0"


class Response(Struct, frozen=True):
    """The end of a call: exactly one of ``result`` and ``error``.

    ``id`` is None where the request was too broken to have one.
    """

    id: CallId | None
    result: Any = UNSET
    error: ErrorObject | UnsetType = UNSET
    jsonrpc: Literal["2.0"] = "2.0"


class Notification(Struct, frozen=True):
    """What the daemon says in the course of a call."""

    params: Progress
    method: Literal["progress"] = "progress"
    jsonrpc: Literal["2.0"] = "2.0"


class InvalidCallError(RpcError):
    """The daemon does not understand this call.

    Attributes:
        call_id: of the call, where it could be read.
        rpc_code: the JSON-RPC error code.
    """

    code = "invalid-call"

    def __init__(self, message: str, rpc_code: int, call_id: CallId | None = None) -> None:
        super().__init__(message)
        self.rpc_code = rpc_code
        self.call_id = call_id


class _AnyRequest(Struct, frozen=True, forbid_unknown_fields=True):
    jsonrpc: Literal["2.0"]
    id: CallId
    method: Annotated[str, Meta(max_length=64)]
    params: Raw = Raw(b"{}")


class _AnyReply(Struct, frozen=True):
    jsonrpc: Literal["2.0"]
    id: CallId | UnsetType | None = UNSET
    result: Any = UNSET
    error: ErrorObject | UnsetType = UNSET
    method: str | UnsetType = UNSET
    params: Progress | UnsetType = UNSET


class _OnlyId(Struct, frozen=True):
    id: CallId


_Broken = (msgspec.MsgspecError, UnicodeError, RecursionError)
_requests = msgspec.json.Decoder(_AnyRequest)
_replies = msgspec.json.Decoder(_AnyReply)


def encode(message: Request | Response | Notification) -> bytes:
    """``message`` as one line, its newline included.

    Raises:
        TypeError, ValueError, UnicodeError: a result that JSON cannot hold.
    """
    return msgspec.json.encode(message) + b"\n"


def request(call_id: CallId, method: str, params: Struct | Mapping[str, object]) -> bytes:
    """The line of a call."""
    return encode(Request(call_id, method, Raw(msgspec.json.encode(params))))


def decode_request(line: bytes) -> Request:
    """The call that a client's line holds.

    Raises:
        InvalidCallError: with ``PARSE_ERROR`` where it is not JSON, ``INVALID_REQUEST`` where it
            is not a call of this protocol.
    """
    try:
        found = _requests.decode(line)
    except _Broken as error:
        # A typed decoder stops at the first thing it does not expect: whether the whole is JSON,
        # and which call it was, takes a second look.
        try:
            msgspec.json.decode(line)
        except _Broken:
            raise InvalidCallError(f"This is not JSON: {error}.", PARSE_ERROR) from error
        raise InvalidCallError(
            f"This is not a JSON-RPC 2.0 call: {error}.", INVALID_REQUEST, _id_in(line)
        ) from error
    return Request(found.id, found.method, found.params)


def decode_params(call: Request) -> Struct:
    """The typed params of ``call``.

    Raises:
        InvalidCallError: with ``METHOD_NOT_FOUND`` or ``INVALID_PARAMS``.
    """
    kind = METHODS.get(call.method)
    if kind is None:
        known = ", ".join(METHODS)
        raise InvalidCallError(
            f"There is no method {call.method!r}; there are {known}.", METHOD_NOT_FOUND, call.id
        )
    try:
        return msgspec.json.decode(call.params, type=kind)
    except _Broken as error:
        raise InvalidCallError(f"{call.method}: {error}.", INVALID_PARAMS, call.id) from error


def decode_reply(line: bytes) -> Response | Notification:
    """What a line from the daemon holds.

    Raises:
        DecodeError: anything else than one response or notification.
    """
    try:
        found = _replies.decode(line)
    except _Broken as error:
        raise DecodeError(f"The daemon's line cannot be read: {error}.") from error
    if found.method == "progress" and isinstance(found.params, Progress):
        return Notification(found.params)
    if isinstance(found.id, UnsetType) or (found.result is UNSET) == (found.error is UNSET):
        raise DecodeError("The daemon's line is neither a response nor a notification.")
    return Response(found.id, found.result, found.error)


def convert(result: object, kind: type[T]) -> T:
    """A decoded JSON ``result`` as the struct ``kind``.

    Raises:
        DecodeError: it is not one.
    """
    try:
        typed: T = msgspec.convert(result, kind)
    except _Broken as error:
        raise DecodeError(f"The daemon's result is not a {kind.__name__}: {error}.") from error
    return typed


def error_object(error: SwarmError) -> ErrorObject:
    """``error`` as it goes over the socket: its whole text, its code and its exit code."""
    number = error.rpc_code if isinstance(error, InvalidCallError) else APPLICATION_ERROR
    return ErrorObject(number, error.user_text(), ErrorData(error.code, error.exit_code))


def swarm_error(error: ErrorObject) -> SwarmError:
    """The error that :func:`error_object` described, of its own class where we have that."""
    if error.data is None:
        return RpcError(error.message)
    for kind in _tree(SwarmError):
        if kind.code == error.data.code and kind is not InvalidCallError:
            sentence = kind().user_text()
            return kind(error.message.removeprefix(sentence).strip())
    unknown = RpcError(error.message.removeprefix(RpcError().user_text()).strip())
    # An error class of another version: its exit code still means what it meant there.
    unknown.__dict__["exit_code"] = error.data.exit_code
    return unknown


class LineSplitter:
    """Cuts a stream of bytes into lines, holding less than ``limit`` bytes between calls."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes, without their newlines; blank ones are skipped.

        Raises:
            TooLargeError: a line of ``limit`` bytes or more. The stream cannot be used further.
        """
        *ends, rest = data.split(b"\n")
        lines = []
        for end in ends:
            self._hold(end)
            if self._held.strip():
                lines.append(bytes(self._held))
            self._held.clear()
        self._hold(rest)
        return lines

    def _hold(self, piece: bytes) -> None:
        if len(self._held) + len(piece) >= self._limit:
            raise TooLargeError(f"A line of the control socket has at most {self._limit} bytes.")
        self._held += piece


def _id_in(line: bytes) -> CallId | None:
    try:
        return msgspec.json.decode(line, type=_OnlyId).id
    except _Broken:
        return None


def _tree(root: type[SwarmError]) -> list[type[SwarmError]]:
    found = [root]
    for kind in found:
        found.extend(kind.__subclasses__())
    return found
