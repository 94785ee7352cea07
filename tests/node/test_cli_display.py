"""What the command draws: from any event and any result, and harmless whatever strangers wrote."""

from __future__ import annotations

import io
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from node.cli import text
from node.cli.live import LiveRound, draw
from node.cli.view import PeerView, RoundView, ScoreView
from node.cli.why import explanation

KINDS = [
    *("accepted", "invited", "committed", "declined", "roster", "revealed"),
    *("classes", "ballot", "scores", "fault", "closed"),
]
FIELDS = [
    *("ask", "round", "peers", "peer", "model", "reason", "answer", "classes", "scores", "share"),
    *("label", "members", "wave", "phase", "fault", "detail", "outcome", "matrix", "margin"),
    *("judges", "own", "for_winner", "abstained", "flip", "ballots", "to", "plurality"),
]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=6)
events = st.builds(lambda kind, rest: {**rest, "kind": kind}, st.sampled_from(KINDS), objects)


def drawn(view: RoundView) -> str:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(draw(view))
    return capture.get()


@given(st.lists(events | json_values.filter(lambda v: isinstance(v, dict)), max_size=8))
def test_any_events_can_be_drawn(stream: list[dict[str, Any]]) -> None:
    view = RoundView()
    for event in stream:
        view.fold(event)
    drawn(view)


@given(json_values | objects)
def test_any_result_can_be_explained(result: Any) -> None:
    for line in explanation(result):
        assert isinstance(line, str)


def test_events_tell_who_does_what() -> None:
    view = RoundView()
    assert view.stage == "asking the daemon"
    view.fold({"kind": "accepted", "ask": "q1"})
    peers = [{"peer": name, "model": "m"} for name in "abcd"]
    view.fold({"kind": "invited", "round": "00", "peers": peers})
    view.fold({"kind": "committed", "peer": "a", "model": "m2"})
    view.fold({"kind": "revealed", "peer": "a", "answer": "4"})
    view.fold({"kind": "ballot", "peer": "a", "wave": 0})
    view.fold({"kind": "declined", "peer": "b", "reason": "busy"})
    view.fold({"kind": "fault", "peer": "c", "phase": "commit", "fault": "late", "detail": "!"})
    view.fold({"kind": "classes", "classes": [{"answer": "4"}, {"answer": "5"}]})
    assert view.stage == "the peers judge the answers"
    rows = [{"answer": "4", "share": 0.2}, {"answer": "5", "share": 0.8}]
    view.fold({"kind": "scores", "scores": rows})
    assert (view.ask, view.round) == ("q1", "00")
    assert view.peers == {
        "a": PeerView("m2", "judged", "4"),
        "b": PeerView("m", "declined", "busy"),
        "c": PeerView("m", "missing", "commit late !"),
        "d": PeerView("m", "invited", ""),
    }
    assert view.scores == [ScoreView("5", 0.8), ScoreView("4", 0.2)]
    view.fold({"kind": "stage", "stage": 1, "peers": [{"peer": "e", "model": "m"}]})
    assert view.stage == "too much doubt: more peers answer"
    assert view.peers["e"] == PeerView("m")
    assert list(view.peers) == ["a", "b", "c", "d", "e"]
    view.fold({"kind": "invited", "round": "01", "peers": peers[:1]})
    assert (view.round, list(view.peers), view.scores) == ("01", ["a"], [])


@pytest.mark.parametrize("share", [-1.0, 0.0, 0.5, 1.0, 99.0, 1e300])
def test_bars_stay_in_their_column(share: float) -> None:
    view = RoundView(scores=[ScoreView("answer", share)])
    bar = drawn(view).splitlines()[1]
    assert bar.count("█") + bar.count("░") == 24


def test_the_live_display_cleans_up_after_itself() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True)
    with LiveRound(console) as live:
        live.show({"kind": "invited", "round": "00", "peers": [{"peer": "p", "model": "m"}]})
    assert out.getvalue().endswith("\x1b[2K")
    assert "\x1b[?25h" in out.getvalue()  # the cursor shows again


# --- text -----------------------------------------------------------------------------------------


@given(st.text())
def test_nothing_a_terminal_obeys_survives(value: str) -> None:
    for cleaned in (text.clean(value).replace("\n", ""), text.line(value)):
        kinds = {unicodedata.category(char) for char in cleaned}
        bidirectional = {unicodedata.bidirectional(char) for char in cleaned}
        assert not kinds & {"Cc", "Zl", "Zp"}
        assert not bidirectional & {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def test_lines_survive_where_they_are_wanted() -> None:
    assert text.clean("a\r\nb\tc\rd") == "a\nb    c\N{REPLACEMENT CHARACTER}d"
    assert text.line("a\r\nb\tc") == "a b c"
    assert text.line("abcdef", 4) == "abc…"
    assert text.line("abcd", 4) == "abcd"


def test_columns_line_up_wide_characters() -> None:
    table = text.columns(("A", "B"), [("日本", "x"), ("abc", "y\nz")])
    assert table.splitlines() == ["A     B", "日本  x", "abc   y z"]


def test_why_names_the_rule_the_confidence_and_what_judges_weigh() -> None:
    judge = {"peer": "p" * 12, "model": "m", "own": "A", "for_winner": 0.9, "abstained": 0}
    result = {"rule": "weighted", "confidence": 0.87, "judges": [{**judge, "weight": 1.25}]}
    shown = "\n".join(explanation(result))
    assert "rule      weighted" in shown
    assert "confidence 87 %" in shown
    heads, row = (line.split() for line in shown.splitlines() if "JUDGE" in line or "1.25" in line)
    assert heads.index("WEIGHT") == row.index("1.25")
    assert "confidence" not in "\n".join(explanation({"rule": "equal"}))


def test_missing_fields_read_as_nothing() -> None:
    values: tuple[object, ...] = (None, [], "x", {}, {"a": None}, {"a": True})
    for value in values:
        assert text.get_text(value, "a") == ""
        assert text.get_number(value, "a") is None
        assert text.get_list(value, "a") == []
    assert text.percent(None) == "–"
    assert text.percent(0.876) == "88 %"
