"""Five members of a private swarm, two of which are cut off while all write."""

from __future__ import annotations

from dataclasses import replace

import nat_lab
import pytest
from lab_swarm import LabSwarm
from nat_lab import parted_told, partition_table
from nat_partition import LEFT, RIGHT, WRITES, Parted, part
from netlab import lab

HEALED = Parted(
    settled_s=0.5,
    lost_s=16.0,
    apart_s=16.4,
    written=15,
    linked_s=1.25,
    healed_s=1.5,
    exchanges=2,
    rounds=1,
    authors=5,
    entries=25,
    root="0123456789abcdef" * 4,
)


@pytest.mark.nat
@pytest.mark.e2e
def test_what_both_sides_wrote_is_everywhere_after_the_healing() -> None:
    with lab(rtt_ms=50.0) as built, LabSwarm(built) as swarm:
        found = part(swarm)
    assert not found.trouble, found.trouble
    assert found.lost_s is not None
    assert found.lost_s <= found.apart_s
    assert found.healed_s is not None
    assert found.authors == len(LEFT) + len(RIGHT)
    assert found.written == WRITES * found.authors
    assert found.rounds <= found.exchanges <= found.rounds * found.authors


def test_a_run_is_told_in_a_line_or_with_its_trouble() -> None:
    assert parted_told(HEALED) == (
        "all hold the same 1.5 s after the healing, 2 exchanges, 1 at most of one"
    )
    trouble = replace(HEALED, healed_s=None, trouble="They do not agree.")
    assert "NOT as expected\n  They do not agree." in parted_told(trouble)


def test_the_table_has_a_line_for_each_run() -> None:
    _, line, failed = partition_table([HEALED, Parted(trouble="It ended.")]).splitlines()
    assert line.split() == [
        "0.5",
        "16.4",
        "16.0",
        "15",
        "1.2",
        "1.5",
        "2",
        "1",
        "25",
        HEALED.root[:12],
    ]
    assert failed.split() == ["-", "0.0", "-", "0", "-", "-", "0", "0", "0", "-"]


def test_the_arguments_are_read() -> None:
    parse = nat_lab._parser().parse_args
    assert parse(["partition"]).apart is None
    options = parse(["partition", "--for", "60", "--repeat", "3", "--delay", "0"])
    assert (options.apart, options.repeat, options.delay) == (60.0, 3, 0.0)


@pytest.mark.parametrize(
    "arguments", [["--for", "0"], ["--for", "nan"], ["--pair", "public/public"]]
)
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        nat_lab._parser().parse_args(["partition", *arguments])
