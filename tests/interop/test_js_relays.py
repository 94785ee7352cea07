"""js-libp2p asks a daemon behind a NAT that lets nobody in, through a js relay and through ours."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.interop.conftest import LIMIT_S, QUESTION, Js, JsPeer, seed_between

# Scripts find each other as modules beside them.
sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import netns
from lab_swarm import Daemon, LabSwarm, wait_until
from netlab import LISTEN_PORT, Kind, Lab, lab

_MISSING = netns.missing()
pytestmark = [
    pytest.mark.interop,
    pytest.mark.nat,
    pytest.mark.skipif(_MISSING is not None, reason=f"no lab here: {_MISSING}"),
]

OURS, THEIRS = "o1", "o2"


@pytest.fixture(scope="module")
def place() -> Iterator[Lab]:
    """Two public hosts for the relays, the daemon's site and the asker's."""
    with lab(observers=2) as built:
        built.set_kind("a", Kind.SYMMETRIC)
        built.set_kind("b", Kind.PRESERVING)
        yield built


@pytest.fixture(scope="module")
def daemons(place: Lab) -> Iterator[LabSwarm]:
    with LabSwarm(place) as running:
        yield running


@pytest.fixture(scope="module")
def their_relay(js: Js, place: Lab) -> Iterator[JsPeer]:
    listen = f"--listen=/ip4/{place.address(THEIRS)}/tcp/{LISTEN_PORT}"
    away = replace(js, within=partial(place.inside, THEIRS))
    with away.peer("--swarm=lab", "--relay", f"--seed={seed_between(None, None)}", listen) as peer:
        yield peer


@pytest.fixture(scope="module")
def private(daemons: LabSwarm, their_relay: JsPeer) -> Daemon:
    """A daemon that holds a reservation at a js relay and at one of ours."""
    ours = daemons.relay(OURS)
    daemons.start(ours)
    daemons.serving(ours)
    private = daemons.node("a", [ours])
    daemons.start(private, f"--bootstrap={their_relay.address}")
    daemons.serving(private)
    relays = [daemons.address(ours), their_relay.address]

    def reserved() -> bool | None:
        known = private.client.call("status")["addresses"]
        held = [f"{relay}/p2p-circuit/p2p/{private.peer}" for relay in relays]
        return all(one in known for one in held) or None

    found = wait_until(reserved, LIMIT_S)
    assert found, private.client.call("status")["addresses"]
    return private


@pytest.fixture(params=[THEIRS, OURS], ids=["a js relay", "our relay"])
def circuit(request: pytest.FixtureRequest, place: Lab, private: Daemon) -> str:
    """The daemon's address through one of the relays."""
    relay = f"/ip4/{place.address(request.param)}/"
    known = private.client.call("status")["addresses"]
    (found,) = [one for one in known if one.startswith(relay) and "/p2p-circuit/" in one]
    return str(found)


def test_a_js_client_asks_through_a_relay(js: Js, place: Lab, circuit: str) -> None:
    asker = replace(js, within=partial(place.inside, "b"))
    result = asker.ask("--swarm=lab", QUESTION, circuit)
    assert (result["outcome"], result["winner"], result["missing"]) == ("answer", "42", {})


def test_js_identifies_and_pings_through_a_relay(js: Js, place: Lab, circuit: str) -> None:
    done = replace(js, within=partial(place.inside, "b")).run("peer.mjs", "--swarm=lab", circuit)
    assert done.returncode == 0, done.stderr
    said = {one["event"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert said["greeted"]["agent"].startswith("swarmd/")
    assert said["identified"]["agent"] == said["greeted"]["agent"]
    assert "/swarmd" in said["identified"]["protocols"]
    assert 0 <= said["pinged"]["rtt_ms"] < 1000 * LIMIT_S
