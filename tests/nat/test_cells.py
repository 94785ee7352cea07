"""Daemons behind NATs of every kind, with 50 ms between them: six cells of the matrix, once each.

`scripts/nat_lab matrix` runs them all.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_swarm import Daemon, LabSwarm
from nat_cells import Cell, run_cell, start_relays
from netlab import lab

pytestmark = [pytest.mark.nat, pytest.mark.e2e]

CELLS = [
    "public/public",
    "public/symmetric",
    "port-preserving/port-preserving",
    "port-rewriting/port-preserving",
    "symmetric/symmetric",
    "firewall/port-rewriting",
]


@pytest.fixture(scope="module")
def relayed() -> Iterator[tuple[LabSwarm, list[Daemon]]]:
    """A lab with its relays up; they stay up from cell to cell."""
    with lab(rtt_ms=50.0) as built, LabSwarm(built) as swarm:
        yield swarm, start_relays(swarm)


@pytest.mark.parametrize("cell", [Cell.parse(one) for one in CELLS], ids=str)
def test_two_daemons_meet_and_answer_together(
    relayed: tuple[LabSwarm, list[Daemon]], cell: Cell
) -> None:
    swarm, relays = relayed
    run = run_cell(swarm, relays, cell)
    assert not run.trouble, run.trouble
    assert run.path == cell.expected
    assert run.answered


def test_two_that_start_at_once_meet(relayed: tuple[LabSwarm, list[Daemon]]) -> None:
    """They hear of each other before either knows at which addresses it can be reached."""
    swarm, relays = relayed
    run = run_cell(swarm, relays, Cell.parse("port-preserving/symmetric"), together=True)
    assert not run.trouble, run.trouble
    assert run.path == "relayed"
