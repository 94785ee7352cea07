"""What of the lab needs no root: expectations, tables, the order of frames on a delayed line."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import nat_lab
import pytest
from delay_switch import FRAMES, DelayLine
from hypothesis import given
from hypothesis import strategies as st
from lab_swarm import Asked
from nat_cells import Cell, Run, direct_s_of, matrix, path_of
from nat_heal import SCENARIOS, Healed
from nat_lab import cell_table, heal_table, quantile, told, upgrades
from netlab import Kind, Lab

from protocol.methods import PeerRow

# --- cells --------------------------------------------------------------------------------------


def test_direct_is_expected_with_a_public_side_or_without_a_symmetric_one() -> None:
    relayed = {cell for cell in matrix([*Kind], all_orders=True) if cell.expected == "relayed"}
    others = set(Kind) - {Kind.PUBLIC, Kind.SYMMETRIC}
    assert relayed == {Cell(Kind.SYMMETRIC, Kind.SYMMETRIC)} | {
        cell
        for other in others
        for cell in (Cell(other, Kind.SYMMETRIC), Cell(Kind.SYMMETRIC, other))
    }


def test_the_matrix_has_each_pair_once_or_in_both_orders() -> None:
    assert len(matrix([*Kind])) == len({frozenset((c.a, c.b)) for c in matrix([*Kind])}) == 15
    assert len(set(matrix([*Kind], all_orders=True))) == 25
    assert matrix([Kind.PUBLIC]) == [Cell(Kind.PUBLIC, Kind.PUBLIC)]


@pytest.mark.parametrize("cell", matrix([*Kind], all_orders=True), ids=str)
def test_a_cell_is_read_as_it_is_written(cell: Cell) -> None:
    assert Cell.parse(str(cell)) == cell


@pytest.mark.parametrize("text", ["public", "public/home", "public/public/public", ""])
def test_what_is_no_cell_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Cell.parse(text)


def test_a_path_is_direct_only_if_both_say_so() -> None:
    direct = PeerRow(path="direct", direct_s=1.5)
    relayed = PeerRow(path="relayed", direct_s=None)
    assert path_of((direct, direct)) == "direct"
    assert path_of((direct, relayed)) == path_of((relayed, direct)) == "relayed"
    assert path_of(None) == ""
    assert direct_s_of((direct, replace_row(direct, 0.5))) == 1.5
    assert direct_s_of((direct, relayed)) is None


def replace_row(row: PeerRow, direct_s: float) -> PeerRow:
    return PeerRow(path=row.path, direct_s=direct_s)


# --- tables -------------------------------------------------------------------------------------

FULL = Asked("answer", 2, 0.25)
GOOD = Run(
    "port-preserving",
    "port-rewriting",
    "direct",
    serves_s=1.0,
    link_s=2.0,
    first="relayed",
    message_s=2.1,
    path="direct",
    direct_s=3.0,
    asked_a=FULL,
    asked_b=FULL,
)


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_one_that_its_share_does_not_exceed(values: list[float], q: float) -> None:
    found = quantile(values, q)
    assert found in values
    assert sum(value <= found for value in values) >= q * len(values)
    assert sum(value < found for value in values) < q * len(values)


def test_upgrades_are_those_that_were_relayed_first() -> None:
    at_once = replace(GOOD, first="direct", direct_s=0.0)
    never = replace(GOOD, path="relayed", direct_s=None)
    assert upgrades([GOOD, at_once, never, replace(GOOD, direct_s=5.0)]) == [3.0, 5.0]


def test_the_table_has_the_rates_and_quantiles_of_each_cell() -> None:
    runs = [replace(GOOD, direct_s=float(index)) for index in range(1, 10)]
    runs.append(replace(GOOD, path="relayed", direct_s=None, trouble="It stayed relayed."))
    runs.append(Run("public", "public", "direct", link_s=1.0, first="direct", path="direct"))
    _, first, second, _, last = cell_table(runs).splitlines()
    assert first.split() == [
        *("port-preserving", "port-rewriting", "direct"),
        *("9/10", "10/10", "2.0", "2.1", "5.0", "9.0", "0.2"),
    ]
    assert "0/1" in second, "no question was answered"
    assert "at once" in second
    assert last == (
        "Relayed first, direct later: 9 runs, after p50 5.0 s, p90 9.0 s, at most 9.0 s."
    )


def test_a_question_is_full_with_two_answers_and_a_winner() -> None:
    assert GOOD.answered
    for asked in (None, Asked("partial", 2, 0.1), Asked("answer", 1, 0.1)):
        assert not replace(GOOD, asked_b=asked).answered


def test_a_run_is_told_in_a_line_or_with_its_trouble() -> None:
    assert told(GOOD) == "linked after 2.0 s, relayed, direct 3.0 s later, answered"
    assert "NOT as expected" in told(replace(GOOD, trouble="It stayed relayed."))


def test_healing_is_told_in_a_line() -> None:
    healed = Healed("nat-reboot", "public", "symmetric", "direct", 15.0, 20.0, "direct", asked=FULL)
    _, line = heal_table([healed]).splitlines()
    assert line.split() == [
        *("nat-reboot", "public/symmetric", "direct"),
        *("15.0", "20.0", "direct", "-", "-", "answer,", "0.2", "s"),
    ]


def test_every_run_is_in_the_json(tmp_path: Path) -> None:
    file = tmp_path / "runs.json"
    nat_lab._write(Namespace(json=file, delay=50.0, relays=3), [GOOD, GOOD])
    written = json.loads(file.read_text())
    assert written["rtt_ms"] == 50.0
    assert [run["asked_a"]["outcome"] for run in written["runs"]] == ["answer", "answer"]


# --- commands -----------------------------------------------------------------------------------


def test_the_arguments_are_read() -> None:
    parse = nat_lab._parser().parse_args
    assert parse(["matrix"]).kinds == [*Kind]
    assert parse(["matrix", "--cells", "public/symmetric,firewall/public"]).cells == [
        Cell(Kind.PUBLIC, Kind.SYMMETRIC),
        Cell(Kind.FIREWALL, Kind.PUBLIC),
    ]
    assert parse(["pair", "public", "firewall"]).delay == 50.0
    assert parse(["heal", *SCENARIOS][:2]).scenario in SCENARIOS
    assert parse(["heal"]).scenario == "all"


@pytest.mark.parametrize(
    "arguments",
    [
        ["matrix", "--cells", "public/home"],
        ["matrix", "--kinds", "home"],
        ["matrix", "--repeat", "0"],
        ["matrix", "--delay", "-1"],
        ["matrix", "--delay", "nan"],
        ["pair", "public"],
        ["heal", "flood"],
        ["matrix", "--relays", "2"],
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        nat_lab._parser().parse_args(arguments)
    assert "error: argument" in capsys.readouterr().err.replace("the following", "argument")


# --- the delayed line ---------------------------------------------------------------------------

EVERYBODY = b"\xff" * 6
A, B, C = (bytes([2, 0, 0, 0, 0, number]) for number in range(3))


def frame(target: bytes, source: bytes, payload: bytes = b"") -> bytes:
    return target + source + b"\x08\x00" + payload


def test_a_frame_to_somebody_unknown_goes_everywhere_else() -> None:
    line = DelayLine((1, 2, 3), 0.0)
    sent = frame(B, A)
    line.enter(1, sent, 0.0)
    assert [*line.leaving(0.0)] == [(2, sent), (3, sent)]


def test_whoever_has_sent_is_known() -> None:
    line = DelayLine((1, 2, 3), 0.0)
    line.enter(2, frame(EVERYBODY, B), 0.0)
    line.enter(1, frame(B, A), 0.0)
    line.enter(1, frame(EVERYBODY, A), 0.0)
    line.enter(2, frame(B, A), 0.0)
    ways = [port for port, _ in line.leaving(0.0)]
    assert ways == [1, 3, 2, 2, 3], "the last one was for the port it came from"


def test_a_host_that_moves_is_found_at_its_new_port() -> None:
    line = DelayLine((1, 2, 3), 0.0)
    line.enter(2, frame(EVERYBODY, B), 0.0)
    line.enter(3, frame(EVERYBODY, B), 0.0)
    [*line.leaving(0.0)]
    line.enter(1, frame(B, A), 0.0)
    assert [port for port, _ in line.leaving(0.0)] == [3]


@given(st.lists(st.floats(0, 10), max_size=20).map(sorted), st.floats(0, 5), st.floats(0, 20))
def test_frames_leave_in_order_and_none_before_its_time(
    arrivals: list[float], delay_s: float, now: float
) -> None:
    line = DelayLine((1, 2), delay_s)
    for index, at in enumerate(arrivals):
        line.enter(1, frame(B, A, bytes([index])), at)
    left = [sent[-1] for _, sent in line.leaving(now)]
    assert left == [index for index, at in enumerate(arrivals) if at + delay_s <= now]
    waits = [at + delay_s - now for at in arrivals if at + delay_s > now]
    assert line.due_in(now) == (pytest.approx(waits[0]) if waits else None)


def test_a_line_that_is_full_drops() -> None:
    line = DelayLine((1, 2), 1.0)
    for _ in range(FRAMES + 5):
        line.enter(1, frame(B, A), 0.0)
    assert len([*line.leaving(1.0)]) == FRAMES


# --- events -------------------------------------------------------------------------------------


def test_a_lab_knows_where_its_hosts_are() -> None:
    lab = Lab(namespaces=None, observers=("o1", "o2", "o3"))  # type: ignore[arg-type]
    lab.kinds |= {"a": Kind.PUBLIC, "b": Kind.SYMMETRIC, "c": Kind.PRESERVING}
    lab.places |= {"a": "c", "b": "b"}
    assert lab.address("o2") == lab.own_address("o2") == "11.2.0.1"
    assert (lab.own_address("a"), lab.address("a")) == ("10.0.7.10", "11.13.0.1")
    assert (lab.own_address("b"), lab.address("b")) == ("192.168.1.11", "11.12.0.1")
