"""What `swarm doctor` makes of the facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from node import doctor
from node.mesh.address import parse_address
from node.mesh.base import Link
from node.mesh.paths import WARN_RELAYED_S
from node.mesh.reach import ReachReport
from node.mesh.report import Dialled, Held, MeshReport, RelayLoad
from protocol.ids import PeerId, peer_text, short_peer
from protocol.methods import Doctor, Finding
from protocol.presence import SKEW_S

AGENT = doctor.agent("1.0")
ONE, TWO, THREE = (PeerId(bytes([n]) * 32) for n in (1, 2, 3))
OUTSIDE = parse_address("/ip4/203.0.113.7/tcp/4747")

REACH = ReachReport(
    nat="public",
    mapping="none",
    observers=3,
    observed=(OUTSIDE,),
    confirmed=(OUTSIDE,),
    confirmed_by=(ONE,),
    by_stranger=True,
    tried=1,
)
WELL = MeshReport(
    listening=("/ip4/0.0.0.0/tcp/4747", "/ip6/::/tcp/4747"),
    addresses=(f"{OUTSIDE}/p2p/{peer_text(THREE)}",),
    reach=REACH,
    links=(Link(ONE, "/ip4/203.0.113.1/tcp/4747", "direct", AGENT, rtt_s=0.02, age_s=60.0),),
    dialled=(Dialled(ONE, True, ("/ip4/203.0.113.1/tcp/4747",), True, 0, ""),),
    members=1,
    relays=(),
    relay_errors={},
    serving=RelayLoad(True, 2, 1, 1000, {}),
    skews={ONE: 0.02},
    refused={},
    merges=0,
    private=False,
    services={"dht": "serves"},
    bytes_sent=10,
    bytes_received=20,
    calls={"exchange": 1},
)


def examine(report: MeshReport, lan_only: bool = False) -> Doctor:
    return doctor.examine(report, lan_only, AGENT)


def finding(found: Doctor, about: str) -> Finding:
    """The one finding of that name."""
    (one,) = [each for each in found.findings if each.about == about]
    return one


def reach(**changes: Any) -> MeshReport:
    return replace(WELL, reach=replace(REACH, **changes))


def test_a_node_that_is_well() -> None:
    found = examine(WELL)
    assert found.health == "ok"
    assert {each.level for each in found.findings} == {"ok"}
    assert short_peer(ONE) in finding(found, "reach").text
    assert (found.links, found.relayed, found.members) == (1, 0, 1)
    assert found.reach.confirmed_by == (peer_text(ONE),)
    assert found.relaying.reservations == 2
    assert found.skew_s == pytest.approx(0.02)
    assert found.agents == {AGENT: 1}
    assert (found.bytes_sent, found.bytes_received, found.calls) == (10, 20, {"exchange": 1})


def test_the_health_is_the_worst_of_the_findings() -> None:
    assert examine(replace(WELL, merges=1)).health == "note"
    assert examine(replace(WELL, skews={ONE: 30.0})).health == "warn"
    assert examine(replace(WELL, skews={ONE: 1e6})).health == "trouble"


def test_whatever_is_not_well_has_a_cause() -> None:
    reports = (
        replace(WELL, listening=()),
        replace(reach(nat="open"), links=(), dialled=()),
        replace(WELL, links=()),
        reach(nat="closed", mapping="symmetric"),
        reach(nat="open", mapping="port-preserving", confirmed_by=(), by_stranger=False),
        replace(WELL, skews={ONE: -500.0}),
        replace(WELL, refused={"version-mismatch": 2, "wrong-swarm": 1}),
    )
    for report in reports:
        bad = [one for one in examine(report).findings if one.level in ("warn", "trouble")]
        assert bad
        assert all(one.cause for one in bad)


def test_the_first_public_node_waits_for_others() -> None:
    found = examine(replace(WELL, links=(), dialled=()))
    assert finding(found, "peers").level == "note"
    assert "--bootstrap" in finding(found, "peers").next


def test_alone_with_nobody_to_dial() -> None:
    lonely = replace(reach(nat="unknown"), links=(), dialled=(), services={"lan": "on"})
    one = finding(examine(lonely), "peers")
    assert one.level == "trouble"
    assert "lan: on" in one.cause
    assert "--bootstrap" in one.next
    assert "--lan" in finding(examine(lonely, lan_only=True), "peers").next


def test_a_bootstrap_that_does_not_answer() -> None:
    dead = Dialled(TWO, True, ("/ip4/203.0.113.2/tcp/4747",), False, 5, "refused")
    found = examine(replace(WELL, dialled=(*WELL.dialled, dead)))
    warning = next(one for one in found.findings if one.level == "warn")
    assert warning.about == "bootstrap"
    assert "203.0.113.2" in warning.text
    assert "5 dials in a row failed: refused" in warning.cause
    assert [row.linked for row in found.bootstraps] == [True, False]
    alone = examine(replace(WELL, links=(), dialled=(dead,)))
    assert alone.health == "trouble"
    fresh = replace(dead, failures=1)
    assert examine(replace(WELL, dialled=(*WELL.dialled, fresh))).health == "ok"
    found_peer = replace(dead, bootstrap=False)
    assert examine(replace(WELL, dialled=(*WELL.dialled, found_peer))).health == "ok"


@pytest.mark.parametrize(
    ("changes", "level", "says"),
    [
        ({"nat": "public", "confirmed_by": ()}, "ok", "as the operator says"),
        ({"nat": "open", "mapping": "port-rewriting"}, "note", "holes can be punched"),
        ({"nat": "closed", "mapping": "symmetric"}, "warn", "no hole can be punched"),
        ({"nat": "unknown", "mapping": "unknown", "observers": 1}, "note", "1 observers"),
    ],
)
def test_how_it_is_seen_from_outside(changes: dict[str, Any], level: str, says: str) -> None:
    one = finding(examine(reach(**changes)), "reach")
    assert (one.level, says in one.text) == (level, True)


def test_a_private_node_needs_relays() -> None:
    private = reach(nat="open", mapping="port-preserving", confirmed_by=(), by_stranger=False)
    none = examine(replace(private, relay_errors={TWO: "RESERVATION_REFUSED"}))
    assert finding(none, "relay").level == "trouble"
    assert "RESERVATION_REFUSED" in finding(none, "relay").cause
    assert "--relay" in finding(none, "relay").next
    held = Held(ONE, str(OUTSIDE), 12.3456)
    single = examine(replace(private, relays=(held,)))
    assert finding(single, "relay").level == "warn"
    double = examine(replace(private, relays=(held, replace(held, relay=TWO))))
    assert finding(double, "relay").level == "ok"
    assert [row.relay for row in double.relays] == [peer_text(ONE), peer_text(TWO)]


def test_on_one_network_only_nobody_outside_is_missed() -> None:
    lan = replace(reach(nat="unknown", observers=0, confirmed_by=()), relays=())
    found = examine(lan, lan_only=True)
    assert finding(found, "reach").level == "ok"
    assert not [one for one in found.findings if one.about == "relay"]


def test_relayed_links_and_why() -> None:
    link = replace(WELL.links[0], path="relayed", why="waiting for it to punch a hole")
    found = examine(replace(WELL, links=(link,)))
    assert found.relayed == 1
    assert finding(found, "path").level == "note"
    assert finding(found, "path").cause == "waiting for it to punch a hole"
    long = replace(link, age_s=WARN_RELAYED_S + 1)
    assert finding(examine(replace(WELL, links=(long,))), "path").level == "warn"
    hopeless = replace(
        long, why="its NAT gives each connection another port: no hole can be punched"
    )
    assert finding(examine(replace(WELL, links=(hopeless,))), "path").level == "note"


@pytest.mark.parametrize(
    ("skew", "level", "says"),
    [
        (3.0, "ok", "Within 3.0 s"),
        (60.0, "warn", "60 s behind"),
        (-60.0, "warn", "60 s ahead of"),
        (SKEW_S + 1.0, "trouble", "behind"),
    ],
)
def test_the_clock_is_compared_with_most_peers(skew: float, level: str, says: str) -> None:
    # One peer whose clock is wrong does not make ours wrong.
    one = finding(examine(replace(WELL, skews={ONE: skew, TWO: skew, THREE: 1e9})), "clock")
    assert (one.level, says in one.text) == (level, True)
    assert not [each for each in examine(replace(WELL, skews={})).findings if each.about == "clock"]


def test_versions() -> None:
    found = examine(replace(WELL, links=(replace(WELL.links[0], agent="swarmd/2.0"),)))
    assert finding(found, "version").text == f"Peers run swarmd/2.0; this is {AGENT}."
    refused = examine(replace(WELL, refused={"version-mismatch": 2}))
    assert finding(refused, "version").level == "warn"


def test_a_private_swarm() -> None:
    found = examine(replace(WELL, private=True, refused={"handshake": 7}))
    texts = [one.text for one in found.findings if one.about == "private"]
    assert len(texts) == 2
    assert "7 connections" in texts[1]
    assert found.private
