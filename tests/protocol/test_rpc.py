"""JSON-RPC lines: what is accepted, what is refused and with which code, for any bytes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits, methods, rpc
from protocol.errors import (
    BusyError,
    DecodeError,
    NoPeersError,
    RpcError,
    SwarmError,
    TooLargeError,
    UnknownRoundError,
)
from protocol.methods import (
    AskId,
    AskParams,
    CalibrateParams,
    CapabilityParams,
    GradeParams,
    HistoryParams,
    Nothing,
    Progress,
    WhyParams,
)


def call(method: str, params: object = None, call_id: object = 1) -> bytes:
    message = {"jsonrpc": "2.0", "id": call_id, "method": method}
    return json.dumps(message if params is None else message | {"params": params}).encode()


def refusal(line: bytes) -> rpc.InvalidCallError:
    with pytest.raises(rpc.InvalidCallError) as caught:
        rpc.decode_params(rpc.decode_request(line))
    return caught.value


# --- requests ---------------------------------------------------------------------------------


def test_a_request_survives_the_wire() -> None:
    line = rpc.request(7, "ask", AskParams("What is 2+2?", 30.0, 3))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    found = rpc.decode_request(line)
    assert (found.id, found.method) == (7, "ask")
    assert rpc.decode_params(found) == AskParams("What is 2+2?", 30.0, 3)


def test_a_newline_in_a_question_stays_inside_its_line() -> None:
    line = rpc.request(1, "ask", AskParams("one\ntwo"))
    assert line.count(b"\n") == 1
    assert rpc.decode_params(rpc.decode_request(line)) == AskParams("one\ntwo")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (call("status"), Nothing()),
        (call("status", {}), Nothing()),
        (call("history"), HistoryParams(20)),
        (call("history", {"limit": 3}, "text id"), HistoryParams(3)),
        (call("why", {"round": "00ff"}), WhyParams("00ff")),
        (call("ask", {"question": "?", "timeout_s": 5}), AskParams("?", 5.0)),
        (
            call("ask", {"question": "?", "peers": 3, "answer_tokens": 64, "energy_j": 2}),
            AskParams("?", None, None, 3, 64, 2.0),
        ),
        (call("grade", {"round": "00ff", "right": False}), GradeParams("00ff", False)),
        (
            call("grade", {"round": "00ff", "right": True, "answer": " "}),
            GradeParams("00ff", True, " "),
        ),
        (call("calibrate"), CalibrateParams(120)),
        (call("calibrate", {"rounds": 1000}), CalibrateParams(limits.CALIBRATE_ROUNDS)),
        (call("capability"), CapabilityParams()),
        (call("capability", {"peer": "abcd", "topic": ""}), CapabilityParams("abcd", "")),
    ],
)
def test_params_are_typed(line: bytes, kind: msgspec.Struct) -> None:
    assert rpc.decode_params(rpc.decode_request(line)) == kind


@pytest.mark.parametrize(
    ("line", "code", "call_id"),
    [
        (b"", rpc.PARSE_ERROR, None),
        (b"{", rpc.PARSE_ERROR, None),
        (b"\xff\xfe", rpc.PARSE_ERROR, None),
        (b"\xef\xbb\xbf{}", rpc.PARSE_ERROR, None),
        (b'{"jsonrpc": 3, "id": 1, nonsense', rpc.PARSE_ERROR, None),
        (b"[" * 100_000, rpc.PARSE_ERROR, None),
        (b"[]", rpc.INVALID_REQUEST, None),
        (b"[" + call("status") + b"]", rpc.INVALID_REQUEST, None),
        (b"null", rpc.INVALID_REQUEST, None),
        (b"{}", rpc.INVALID_REQUEST, None),
        (b'{"jsonrpc":"2.0","method":"status"}', rpc.INVALID_REQUEST, None),
        (call("status", call_id=1.5), rpc.INVALID_REQUEST, None),
        (call("status", call_id="x" * 65), rpc.INVALID_REQUEST, None),
        (call("x" * 65), rpc.INVALID_REQUEST, 1),
        (b'{"jsonrpc":"1.0","id":5,"method":"status"}', rpc.INVALID_REQUEST, 5),
        (b'{"jsonrpc":"2.0","id":5,"method":"status","more":1}', rpc.INVALID_REQUEST, 5),
        (call("nonsense", call_id=9), rpc.METHOD_NOT_FOUND, 9),
        (call("status", []), rpc.INVALID_PARAMS, 1),
        (call("status", {"unknown": 1}), rpc.INVALID_PARAMS, 1),
        (call("ask"), rpc.INVALID_PARAMS, 1),
        (call("ask", {"question": ""}), rpc.INVALID_PARAMS, 1),
        (call("ask", {"question": " \n"}), rpc.INVALID_PARAMS, 1),
        (call("ask", {"question": 4}), rpc.INVALID_PARAMS, 1),
        (call("ask", {"question": "é" * limits.QUESTION_BYTES}), rpc.INVALID_PARAMS, 1),
        (call("ask", {"question": "?", "timeout_s": 0}), rpc.INVALID_PARAMS, 1),
        (call("ask", {"question": "?", "timeout_s": 1e9}), rpc.INVALID_PARAMS, 1),
        (call("ask", {"question": "?", "min_answers": 0}), rpc.INVALID_PARAMS, 1),
        (call("ask", {"question": "?", "min_answers": True}), rpc.INVALID_PARAMS, 1),
        (
            call("ask", {"question": "?", "min_answers": limits.COMMITTEE + 1}),
            rpc.INVALID_PARAMS,
            1,
        ),
        (call("ask", {"question": "?", "peers": 0}), rpc.INVALID_PARAMS, 1),
        (call("ask", {"question": "?", "peers": limits.COMMITTEE + 1}), rpc.INVALID_PARAMS, 1),
        (call("ask", {"question": "?", "peers": 2, "min_answers": 3}), rpc.INVALID_PARAMS, 1),
        (call("ask", {"question": "?", "answer_tokens": 0}), rpc.INVALID_PARAMS, 1),
        (
            call("ask", {"question": "?", "answer_tokens": limits.ANSWER_TOKENS + 1}),
            rpc.INVALID_PARAMS,
            1,
        ),
        (call("ask", {"question": "?", "energy_j": 0}), rpc.INVALID_PARAMS, 1),
        (call("ask", {"question": "?", "energy_j": 1e10}), rpc.INVALID_PARAMS, 1),
        (call("ask", {"question": "?", "energy_j": "much"}), rpc.INVALID_PARAMS, 1),
        (call("grade", {"round": "00ff"}), rpc.INVALID_PARAMS, 1),
        (call("grade", {"round": "00ff", "right": 1}), rpc.INVALID_PARAMS, 1),
        (call("grade", {"round": "00f", "right": True}), rpc.INVALID_PARAMS, 1),
        (call("grade", {"round": "00ff", "right": True, "answer": ""}), rpc.INVALID_PARAMS, 1),
        (
            call("grade", {"round": "0f" * 4, "right": True, "answer": "x" * 20_000}),
            rpc.INVALID_PARAMS,
            1,
        ),
        (call("calibrate", {"rounds": 0}), rpc.INVALID_PARAMS, 1),
        (call("calibrate", {"rounds": limits.CALIBRATE_ROUNDS + 1}), rpc.INVALID_PARAMS, 1),
        (call("capability", {"peer": "abc"}), rpc.INVALID_PARAMS, 1),
        (call("capability", {"peer": "x" * 65}), rpc.INVALID_PARAMS, 1),
        (call("capability", {"topic": "x" * 257}), rpc.INVALID_PARAMS, 1),
        (call("history", {"limit": limits.RPC_HISTORY_ROWS + 1}), rpc.INVALID_PARAMS, 1),
        (call("why", {"round": "abc"}), rpc.INVALID_PARAMS, 1),
        (call("why", {"round": "ABCD"}), rpc.INVALID_PARAMS, 1),
        (call("why", {"round": "abcd\n"}), rpc.INVALID_PARAMS, 1),
        (call("cancel", {"ask": ""}), rpc.INVALID_PARAMS, 1),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"ask","params":{"question":"\xff"}}',
            rpc.INVALID_PARAMS,
            1,
        ),
    ],
)
def test_what_is_no_call_is_refused_with_its_code(line: bytes, code: int, call_id: object) -> None:
    error = refusal(line)
    assert (error.rpc_code, error.call_id) == (code, call_id)


def test_the_largest_question_is_taken() -> None:
    params = AskParams("x" * limits.QUESTION_BYTES)
    line = rpc.request(1, "ask", params)
    assert len(line) < limits.RPC_LINE_BYTES
    assert rpc.decode_params(rpc.decode_request(line)) == params


def test_the_worst_question_fits_a_line() -> None:
    line = rpc.request(1, "ask", AskParams("\0" * limits.QUESTION_BYTES))
    assert len(line) < limits.RPC_LINE_BYTES


@given(st.binary(max_size=38))
def test_any_bytes_are_a_typed_refusal(line: bytes) -> None:
    # No bytes this short are a call: the shortest has some forty.
    assert refusal(line).rpc_code in (rpc.PARSE_ERROR, rpc.INVALID_REQUEST)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=10,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "jsonrpc": st.just("2.0") | json_values,
            "id": st.integers(0, 9) | json_values,
            "method": st.sampled_from(sorted(methods.METHODS)) | json_values,
            "params": st.dictionaries(
                st.sampled_from(["question", "timeout_s", "ask", "limit", "round"]), json_values
            )
            | json_values,
        },
    )
)
def test_any_json_is_a_call_or_a_typed_refusal(message: dict[str, Any]) -> None:
    line = json.dumps(message).encode()
    try:
        params = rpc.decode_params(rpc.decode_request(line))
    except rpc.InvalidCallError:
        return
    assert type(params) is methods.METHODS[message["method"]]


# --- replies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        rpc.Response(1, None),
        rpc.Response("a", {"x": [1, 2.5, None]}),
        rpc.Response(None, error=rpc.ErrorObject(-32700, "no")),
        rpc.Response(2, error=rpc.ErrorObject(-32000, "no", rpc.ErrorData("busy", 8))),
        rpc.Notification(Progress(AskId("q1"), {"kind": "accepted", "ask": "q1"})),
    ],
)
def test_a_reply_survives_the_wire(reply: rpc.Response | rpc.Notification) -> None:
    assert rpc.decode_reply(rpc.encode(reply)) == reply


def test_a_reply_may_carry_what_a_newer_daemon_adds() -> None:
    line = b'{"jsonrpc":"2.0","id":1,"result":{"version":"9","new":1},"extra":2}'
    reply = rpc.decode_reply(line)
    assert isinstance(reply, rpc.Response)
    assert rpc.convert(reply.result, methods.Status).version == "9"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"nonsense",
        b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","result":1}',
        b'{"jsonrpc":"2.0","id":1,"result":1,"error":{"code":1,"message":""}}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"","data":{"code":"x","exit_code":0}}}',
        b'{"jsonrpc":"2.0","method":"progress"}',
        b'{"jsonrpc":"2.0","method":"other","params":{"ask":"1","event":{}}}',
    ],
)
def test_what_is_no_reply_is_refused(line: bytes) -> None:
    with pytest.raises(DecodeError):
        rpc.decode_reply(line)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_reply_or_a_typed_refusal(line: bytes) -> None:
    with pytest.raises(DecodeError):
        rpc.decode_reply(line)


def test_a_result_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(DecodeError, match="Status"):
        rpc.convert({"version": 3}, methods.Status)


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [NoPeersError, BusyError, UnknownRoundError, SwarmError])
@pytest.mark.parametrize("detail", ["", "Only 1 of 3."])
def test_our_errors_come_back_as_themselves(kind: type[SwarmError], detail: str) -> None:
    sent = kind(detail)
    found = rpc.swarm_error(rpc.error_object(sent))
    assert type(found) is kind
    assert found.user_text() == sent.user_text()
    assert found.exit_code == sent.exit_code


def test_an_error_of_another_version_keeps_its_text_and_exit_code() -> None:
    error = rpc.ErrorObject(-32000, "Out of tea.", rpc.ErrorData("no-tea", 77))
    found = rpc.swarm_error(error)
    assert type(found) is RpcError
    assert found.exit_code == 77
    assert "Out of tea." in found.user_text()
    assert RpcError.exit_code != 77


def test_a_plain_json_rpc_error_is_an_rpc_error() -> None:
    found = rpc.swarm_error(rpc.ErrorObject(rpc.INTERNAL_ERROR, "It broke."))
    assert type(found) is RpcError
    assert "It broke." in found.user_text()


def test_an_invalid_call_comes_back_as_an_rpc_error() -> None:
    sent = rpc.error_object(rpc.InvalidCallError("No.", rpc.INVALID_PARAMS, 3))
    assert sent.code == rpc.INVALID_PARAMS
    assert type(rpc.swarm_error(sent)) is RpcError


def test_error_codes_are_distinct() -> None:
    kinds = [SwarmError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    own = [kind.code for kind in kinds if "code" in vars(kind)]
    assert len(own) == len(set(own))


# --- lines ------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line)), st.data())
def test_lines_are_the_same_however_they_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    splitter = rpc.LineSplitter(64)
    found = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += splitter.feed(stream[:size])
        stream = stream[size:]
    assert found == [line for line in lines if line.strip()]


def test_a_line_may_be_one_byte_short_of_the_limit() -> None:
    assert rpc.LineSplitter(4).feed(b"123\n") == [b"123"]


@pytest.mark.parametrize("feeds", [[b"1234\n"], [b"1234"], [b"12", b"34"], [b"1\n", b"2345"]])
def test_a_line_that_is_too_long_is_refused_before_it_ends(feeds: list[bytes]) -> None:
    splitter = rpc.LineSplitter(4)
    *before, last = feeds
    for data in before:
        splitter.feed(data)
    with pytest.raises(TooLargeError):
        splitter.feed(last)
