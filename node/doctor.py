"""What is well with the node's connections and what is not: facts in, findings out. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from statistics import median
from typing import Final

from node.mesh.base import Link
from node.mesh.paths import WARN_RELAYED_S
from node.mesh.report import MeshReport
from node.mesh.reservations import HELD
from protocol.ids import peer_text, short_peer
from protocol.methods import (
    BootstrapRow,
    Doctor,
    Finding,
    Reachability,
    Relaying,
    RelayRow,
)
from protocol.presence import SKEW_S

LEVELS: Final = ("ok", "note", "warn", "trouble")
SKEW_NOTED_S: Final = 10.0
FAILURES: Final = 3
"""Dials of a bootstrap in a row that fail before it is called unreachable."""


def agent(version: str) -> str:
    """How a node of that version calls itself."""
    return f"swarmd/{version}"


def examine(report: MeshReport, lan_only: bool, own_agent: str) -> Doctor:
    """What there is to say about the mesh as ``report`` shows it.

    Args:
        lan_only: the operator wants nothing outside this network.
        own_agent: this node's software, as in its greetings.
    """
    skew = median(report.skews.values()) if report.skews else None
    findings = tuple(
        finding
        for part in (
            _listening(report),
            _peers(report, lan_only),
            _bootstraps(report),
            _reach(report, lan_only),
            () if lan_only else _relays(report),
            _paths(report),
            _clock(skew),
            _versions(report, own_agent),
            _privacy(report),
        )
        for finding in part
    )
    reach = report.reach
    return Doctor(
        health=max((one.level for one in findings), key=LEVELS.index),
        findings=findings,
        listening=report.listening,
        addresses=report.addresses,
        reach=Reachability(
            nat=reach.nat,
            mapping=reach.mapping,
            observers=reach.observers,
            observed=tuple(map(str, reach.observed)),
            confirmed_by=tuple(map(peer_text, reach.confirmed_by)),
            by_stranger=reach.by_stranger,
            tried=reach.tried,
        ),
        bootstraps=tuple(
            BootstrapRow(peer_text(one.peer), one.addresses, one.linked, one.failures, one.error)
            for one in report.dialled
            if one.bootstrap
        ),
        relays=tuple(
            RelayRow(peer_text(one.relay), one.address, round(one.since_s, 3))
            for one in report.relays
        ),
        relaying=Relaying(
            report.serving.open,
            report.serving.reservations,
            report.serving.circuits,
            report.serving.bytes_relayed,
            dict(report.serving.refused),
        ),
        links=len(report.links),
        relayed=sum(one.path == "relayed" for one in report.links),
        members=report.members,
        skew_s=None if skew is None else round(skew, 3),
        agents=dict(Counter(one.agent for one in report.links)),
        refused=dict(report.refused),
        services=dict(report.services),
        private=report.private,
        merges=report.merges,
        bytes_sent=report.bytes_sent,
        bytes_received=report.bytes_received,
        calls=dict(report.calls),
    )


def _listening(report: MeshReport) -> Iterator[Finding]:
    if not report.listening:
        yield Finding(
            "warn", "listen", "The node listens on no address.",
            "Nobody can connect to it, and no hole can be punched.",
            "swarmd --listen /ip4/0.0.0.0/tcp/4747",
        )  # fmt: skip
        return
    yield Finding("ok", "listen", f"TCP on {', '.join(report.listening)}.")
    if not any(one.startswith("/ip6/") for one in report.listening):
        yield Finding(
            "note", "ipv6", "Not listening on IPv6.",
            "Where both ends have it, IPv6 mostly needs no hole.",
            "swarmd --listen /ip4/0.0.0.0/tcp/4747 --listen /ip6/::/tcp/4747",
        )  # fmt: skip


def _peers(report: MeshReport, lan_only: bool) -> Iterator[Finding]:
    count = len(report.links)
    if count:
        relayed = sum(one.path == "relayed" for one in report.links)
        yield Finding(
            "ok", "peers",
            f"{count} connected, {count - relayed} directly and {relayed} through a relay; "
            f"{report.members} known to be in the swarm.",
        )  # fmt: skip
    elif not report.dialled and report.reach.nat == "public":
        yield Finding(
            "note", "peers", "No peer is connected yet.",
            "None is known; a public node waits for others to come.",
            "give them its address, as `swarm status` prints it: swarmd --bootstrap MULTIADDR",
        )  # fmt: skip
    elif not report.dialled:
        services = ", ".join(f"{name}: {how}" for name, how in sorted(report.services.items()))
        yield Finding(
            "trouble", "peers", "No peer is connected, and none is known.",
            f"No bootstrap is configured and nobody was found ({services or 'nothing searched'}).",
            "start `swarmd --lan` on another machine here" if lan_only
            else "swarmd --bootstrap MULTIADDR, as `swarm status` of another node prints it",
        )  # fmt: skip
    else:
        yield Finding(
            "trouble", "peers", "No peer is connected.",
            f"Tried: {len(report.dialled)}; the first: {report.dialled[0].error or 'dialling'}.",
            "see that this machine is online, that the other node runs, and that both have the "
            "same --swarm and --swarm-key",
        )  # fmt: skip
    if report.merges:
        yield Finding(
            "note", "split", f"Two parts of the swarm have met, {report.merges} times.",
            "Parts form when they share no bootstrap.", "give every node the same two bootstraps",
        )  # fmt: skip


def _bootstraps(report: MeshReport) -> Iterator[Finding]:
    named = [one for one in report.dialled if one.bootstrap]
    failing = [one for one in named if not one.linked and one.failures >= FAILURES]
    for one in failing:
        yield Finding(
            "trouble" if len(failing) == len(named) and not report.links else "warn",
            "bootstrap",
            f"{short_peer(one.peer)} at {', '.join(one.addresses)} does not answer.",
            f"{one.failures} dials in a row failed: {one.error}.",
            "check its address with `swarm status` there, that its port is open, and that both "
            "have the same --swarm, and the same --swarm-key or none",
        )
    reached = sum(one.linked for one in named)
    if reached:
        yield Finding("ok", "bootstrap", f"{reached} of {len(named)} connected.")


def _reach(report: MeshReport, lan_only: bool) -> Iterator[Finding]:
    if lan_only:
        yield Finding("ok", "reach", "This network only; nothing outside is asked.")
        return
    reach = report.reach
    seen = f"{reach.mapping} mapping, as {reach.observers} observers see it"
    who = ", ".join(map(short_peer, reach.confirmed_by))
    if reach.nat == "public":
        how = f"confirmed by {who}" if who else "as the operator says; nobody has confirmed it yet"
        yield Finding("ok", "reach", f"Others can connect to this node: {how}.")
    elif reach.nat == "open":
        yield Finding(
            "note", "reach", f"Behind a NAT or firewall that holes can be punched in ({seen}).",
            f"{reach.tried} attempts of others to connect do not say that strangers get through.",
            "forward the TCP port of the router to this machine, to become public",
        )  # fmt: skip
    elif reach.nat == "closed":
        yield Finding(
            "warn", "reach", f"Behind a NAT that no hole can be punched in ({seen}).",
            "It gives each connection another outside port; peers that are not public are relayed.",
            "forward the TCP port of the router to this machine, or use IPv6",
        )  # fmt: skip
    else:
        yield Finding(
            "note", "reach", f"Not known yet how this node is seen from outside ({seen}).",
            "It takes three peers on the public internet to tell." if reach.observers
            else "No peer on the public internet is connected.",
            "",
        )  # fmt: skip


def _relays(report: MeshReport) -> Iterator[Finding]:
    if report.reach.nat == "public":
        load = report.serving
        if load.open:
            yield Finding(
                "ok", "relay",
                f"Relays for others: {load.reservations} reservations, {load.circuits} circuits.",
            )  # fmt: skip
        return
    if not report.reach.observers:
        return
    held = len(report.relays)
    names = ", ".join(short_peer(one.relay) for one in report.relays)
    if held >= HELD:
        yield Finding("ok", "relay", f"Reached through the relays {names}.")
        return
    errors = "; ".join(f"{short_peer(peer)}: {why}" for peer, why in report.relay_errors.items())
    yield Finding(
        "warn" if held else "trouble", "relay",
        f"Reached through one relay only ({names})." if held
        else "No relay holds a place for this node: peers behind NATs cannot connect to it.",
        errors or "No other public peer that relays is connected.",
        "start `swarmd --relay` on a public machine and give it to --bootstrap",
    )  # fmt: skip


def _paths(report: MeshReport) -> Iterator[Finding]:
    for one in report.links:
        if one.path == "relayed":
            yield _relayed(one)


def _relayed(link: Link) -> Finding:
    long = link.age_s > WARN_RELAYED_S and "no hole can be punched" not in link.why
    return Finding(
        "warn" if long else "note", "path",
        f"{short_peer(link.peer)} is relayed, for {link.age_s:.0f} s now.", link.why or "", "",
    )  # fmt: skip


def _clock(skew: float | None) -> Iterator[Finding]:
    if skew is None:
        return
    how = "behind" if skew > 0 else "ahead of"
    if abs(skew) < SKEW_NOTED_S:
        yield Finding("ok", "clock", f"Within {max(abs(skew), 0.1):.1f} s of the peers.")
        return
    yield Finding(
        "trouble" if abs(skew) > SKEW_S else "warn", "clock",
        f"This clock is {abs(skew):.0f} s {how} that of most peers.",
        "Statements of a clock that is wrong are refused, here or there.",
        "timedatectl set-ntp true",
    )  # fmt: skip


def _versions(report: MeshReport, own_agent: str) -> Iterator[Finding]:
    refused = report.refused.get("version-mismatch", 0)
    if refused:
        yield Finding(
            "warn", "version", f"{refused} greetings were refused for their protocol version.",
            "One of the two sides is too old.", "upgrade the older of the two",
        )  # fmt: skip
    others = sorted({one.agent for one in report.links} - {own_agent})
    if others:
        yield Finding("note", "version", f"Peers run {', '.join(others)}; this is {own_agent}.")
    strangers = report.refused.get("wrong-swarm", 0)
    if strangers:
        yield Finding(
            "note", "swarm", f"{strangers} greetings of other swarms were refused.",
            "Their or this node's --swarm differs.", "",
        )  # fmt: skip


def _privacy(report: MeshReport) -> Iterator[Finding]:
    if report.private:
        yield Finding("ok", "private", "Only who has the swarm's key can connect.")
        if report.refused.get("handshake"):
            yield Finding(
                "note", "private", f"{report.refused['handshake']} connections had no such key.",
            )  # fmt: skip
