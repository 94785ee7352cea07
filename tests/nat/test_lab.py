"""The lab is what it says it is, told by plain sockets; no daemon is needed."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import netns
import pytest
from nat_cells import DIRECT, Cell, matrix
from netlab import LISTEN_PORT, REWRITTEN_PORT, SITES, Kind, Lab, lab

from tests.nat.conftest import SCRIPTS, left_by
from tests.nat.probe import (
    DROPPED_S,
    PORT,
    dial,
    dial_both,
    dropped,
    flow,
    listener,
    passes,
    seen_as,
)

pytestmark = pytest.mark.nat

FILTERED = [kind for kind in Kind if kind is not Kind.PUBLIC]
WAN = SITES["a"].wan


# --- mapping ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        (Kind.PUBLIC, ("11.11.0.10", LISTEN_PORT)),
        (Kind.FIREWALL, ("11.11.0.10", LISTEN_PORT)),
        (Kind.PRESERVING, (WAN, LISTEN_PORT)),
        (Kind.REWRITING, (WAN, REWRITTEN_PORT)),
    ],
)
def test_endpoint_independent_mappings_are_the_same_for_all_observers(
    near: Lab, kind: Kind, address: tuple[str, int]
) -> None:
    near.set_kind("a", kind)
    assert seen_as(near, "a") == [address] * 3
    assert near.address("a") == address[0]


def test_a_symmetric_nat_maps_differently_for_each_observer(near: Lab) -> None:
    near.set_kind("a", Kind.SYMMETRIC)
    seen = seen_as(near, "a")
    assert {address for address, _ in seen} == {WAN}
    assert len({port for _, port in seen} | {LISTEN_PORT}) == 4


def test_only_the_listening_port_is_rewritten_to_a_known_one(near: Lab) -> None:
    near.set_kind("a", Kind.REWRITING)
    with (
        listener(near, "o1") as door,
        dial(near, "a", (near.address("o1"), PORT), port=5555),
        door.accept()[0] as far,
    ):
        assert far.getpeername() == (WAN, 5555)


def test_both_homes_have_the_same_private_network(near: Lab) -> None:
    near.set_kind("a", Kind.PRESERVING)
    near.set_kind("b", Kind.SYMMETRIC)
    assert near.own_address("a") == "192.168.1.10"
    assert near.own_address("b") == "192.168.1.11"
    with listener(near, "b"), pytest.raises(OSError, match=r"timed out|No route"):
        dial(near, "a", ("192.168.1.11", PORT), limit_s=DROPPED_S)


# --- filtering ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FILTERED)
def test_nothing_comes_in_unasked(near: Lab, kind: Kind) -> None:
    near.set_kind("a", kind)
    with listener(near, "a", LISTEN_PORT), pytest.raises(TimeoutError):
        dial(near, "o1", (near.address("a"), LISTEN_PORT), limit_s=DROPPED_S)


def test_a_mapping_lets_nobody_in_but_whom_it_is_for(near: Lab) -> None:
    near.set_kind("a", Kind.PRESERVING)
    with listener(near, "a", LISTEN_PORT), flow(near, "a", "o1"), pytest.raises(TimeoutError):
        dial(near, "o2", (near.address("a"), LISTEN_PORT), port=PORT, limit_s=DROPPED_S)


def test_a_public_site_is_reached_and_refuses_in_words(near: Lab) -> None:
    near.set_kind("a", Kind.PUBLIC)
    with (
        listener(near, "a") as door,
        dial(near, "o1", (near.address("a"), PORT)),
        door.accept()[0] as far,
    ):
        assert far.getpeername() == (near.address("o1"), LISTEN_PORT)
    with pytest.raises(ConnectionRefusedError):
        dial(near, "o1", (near.address("a"), PORT))


@pytest.mark.parametrize("kind", Kind)
def test_what_belongs_to_a_connection_passes_both_ways(near: Lab, kind: Kind) -> None:
    near.set_kind("a", kind)
    with flow(near, "a", "o2") as (here, there):
        assert passes(here, there)
        assert passes(there, here)


# --- what physics allows ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell", [cell for cell in matrix([*Kind]) if Kind.PUBLIC not in (cell.a, cell.b)], ids=str
)
def test_two_that_dial_each_other_at_once_meet_where_direct_is_expected(
    near: Lab, cell: Cell
) -> None:
    near.set_kind("a", cell.a)
    near.set_kind("b", cell.b)
    targets = {"a": seen_as(near, "b")[0], "b": seen_as(near, "a")[0]}
    limit_s = 5.0 if cell.expected == DIRECT else DROPPED_S
    assert dial_both(near, targets, limit_s) == (cell.expected == DIRECT)


# --- what can happen ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FILTERED)
def test_a_restarted_nat_knows_no_connection_any_more(near: Lab, kind: Kind) -> None:
    near.set_kind("a", kind)
    with flow(near, "a", "o1") as (here, there):
        assert passes(here, there)
        near.drop_mappings("a")
        assert dropped(here, there)
        assert dropped(there, here)
    with flow(near, "a", "o2") as (here, there):
        assert passes(here, there)


def test_a_host_moves_to_another_lan(near: Lab) -> None:
    near.set_kind("a", Kind.PRESERVING)
    near.set_kind("c", Kind.REWRITING)
    with flow(near, "a", "o1") as (here, there):
        near.move("a", "c")
        assert dropped(here, there)
    assert near.own_address("a") == "10.0.7.10"
    assert seen_as(near, "a") == [(SITES["c"].wan, REWRITTEN_PORT)] * 3
    assert near.places == {"a": "c", "b": "b"}, "whoever was there is unplugged"
    near.move("a", "a")
    with (
        listener(near, "o1") as door,
        dial(near, "a", (near.address("o1"), PORT), port=5555),
        door.accept()[0] as far,
    ):
        assert far.getpeername() == (WAN, 5555)


@pytest.mark.parametrize("order", ["ac", "ca"])
def test_a_new_kind_brings_the_host_home(near: Lab, order: str) -> None:
    near.move("a", "c")
    for site in order:
        near.set_kind(site, Kind.PRESERVING)
    assert near.places == {"a": "a", "b": "b", "c": "c"}
    assert seen_as(near, "a") == [(WAN, LISTEN_PORT)] * 3
    assert seen_as(near, "c") == [(SITES["c"].wan, LISTEN_PORT)] * 3


def test_a_partition_cuts_between_the_sides_alone_until_it_is_mended(near: Lab) -> None:
    near.set_kind("a", Kind.PRESERVING)
    with flow(near, "a", "o1") as over, flow(near, "o2", "o3") as beside:
        near.partition(["a", "o2"], ["o1"])
        assert dropped(*over)
        assert dropped(*over[::-1])
        assert passes(*beside)
        near.mend()
        assert over[1].recv(64) == b"hello"  # the kernel sends again what was not acknowledged
        assert passes(*beside)


def test_a_new_kind_is_a_new_machine(near: Lab) -> None:
    """Else ports that wait for late packets would refuse the next daemon's connections."""
    near.set_kind("a", Kind.PUBLIC)
    for _ in range(3):
        near.set_kind("a", Kind.PUBLIC)
        with listener(near, "o1") as door:
            here = dial(near, "a", (near.address("o1"), PORT))
            with door.accept()[0]:
                here.close()  # first: this side has to wait


# --- distance -----------------------------------------------------------------------------------


def test_the_delay_is_what_was_asked_for() -> None:
    with lab(rtt_ms=50.0) as far:
        far.set_kind("a", Kind.SYMMETRIC)
        with flow(far, "a", "o1") as (here, there):
            trips = [_round_trip(here, there) for _ in range(5)]
    assert min(trips) >= 0.050
    assert min(trips) < 0.075


def test_bulk_passes_the_delaying_switch_unharmed() -> None:
    """Large writes make frames larger than the MTU, without checksums, unless that is off."""
    data = os.urandom(1 << 20)
    with lab(rtt_ms=2.0) as far:
        far.set_kind("a", Kind.PRESERVING)
        with flow(far, "a", "o1") as (here, there):
            here.setblocking(False)
            sent, got = 0, bytearray()
            there.settimeout(5)
            while len(got) < len(data):
                with suppress(BlockingIOError):
                    sent += here.send(data[sent:])
                got += there.recv(1 << 16)
    assert got == data


def _round_trip(here: socket.socket, there: socket.socket) -> float:
    began = time.monotonic()
    here.sendall(b"x")
    there.sendall(there.recv(1))
    here.recv(1)
    return time.monotonic() - began


# --- nothing stays behind -----------------------------------------------------------------------


def test_a_lab_leaves_nothing() -> None:
    before = left_by(os.getpid())
    with lab(rtt_ms=1.0) as built:
        made = left_by(os.getpid()) - before
        assert len(made) == len(built.observers) + 2 * len(SITES) + 3  # public, lock, folder
    assert left_by(os.getpid()) == before


def test_a_lab_that_fails_leaves_nothing() -> None:
    before = left_by(os.getpid())
    with pytest.raises(netns.NetnsError, match="none none drop"), lab() as built:
        built.namespaces.nft("o1", "add rule ip none none drop")
    assert left_by(os.getpid()) == before


def test_two_labs_do_not_meet(near: Lab) -> None:
    near.set_kind("a", Kind.PUBLIC)
    with lab() as other:
        assert seen_as(other, "a") == seen_as(near, "a")
        with listener(near, "o1"), pytest.raises(ConnectionRefusedError):
            dial(other, "a", (near.address("o1"), PORT))


PROGRAM = """
import subprocess, sys
sys.path.append(sys.argv[1])
from netlab import lab
with lab(rtt_ms=1.0) as built:
    inside = built.namespaces.spawn("a", ["sleep", "600"])
    print(inside.pid, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_run_leaves_is_removed_by_the_next() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, SCRIPTS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        inside = int(run.stdout.readline())
        mine = left_by(os.getpid())
        netns.sweep()
        assert left_by(run.pid), "a run that lives is left alone"
        with os.fdopen(os.pidfd_open(inside)) as ended:
            run.kill()
            assert select.select([ended], [], [], 10)[0], "what it started ends with it"
    assert left_by(run.pid)
    assert f"sw{run.pid}x0" in netns.sweep()
    assert not left_by(run.pid)
    assert left_by(os.getpid()) == mine


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_lab_that_is_told_to_end_leaves_nothing(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, SCRIPTS / "nat_lab.py", "shell", "public", "symmetric", "--bare"],
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        lines = [run.stdout.readline()]
        while lines[-1] and "Ctrl-C" not in lines[-1]:
            lines.append(run.stdout.readline())
        assert f"ip netns exec sw{run.pid}x0-a bash\n" in "".join(lines)
        assert left_by(run.pid)
        run.send_signal(number)
        assert run.wait(20) == 128 + number
    assert not left_by(run.pid)
