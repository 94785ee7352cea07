"""js-libp2p is a foreign peer of unmodified daemons: it dials, is dialled, and asks the swarm."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import replace

import pytest
import trio

from node.local_swarm import LocalSwarm, Member
from node.mesh import identify
from node.mesh.base import PeerUp
from node.mesh.host import Libp2pMesh
from node.mesh.peering import Settings
from protocol.envelope import Envelope
from protocol.ids import PeerId, parse_peer, peer_text
from protocol.messages import (
    Ballot,
    Close,
    Commit,
    Incoming,
    Invite,
    Reveal,
    Roster,
    Slate,
    WaveClose,
    ballot_set,
    opened,
)
from swarm.ballots import check_ballot
from swarm.pairing import Pairing
from swarm.slate import check_reveal, check_roster, open_slate
from tests.interop.conftest import (
    AGREED,
    FAILED,
    LIMIT_S,
    QUESTION,
    Js,
    MakeSwarm,
    seed_between,
)

pytestmark = pytest.mark.interop


def addresses(swarm: LocalSwarm) -> list[str]:
    return [member.address for member in swarm.members]


def names(swarm: LocalSwarm) -> list[PeerId]:
    return sorted(parse_peer(member.peer) for member in swarm.members)


def peer_row(member: Member, peer: str) -> dict[str, object]:
    """The row of ``swarm peers`` about ``peer``, once it is connected."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        for row in member.client.call("peers")["peers"]:
            if row["peer"] == peer:
                found: dict[str, object] = row
                return found
        time.sleep(0.05)
    raise AssertionError(f"{peer} did not appear: {member.log.read_text()[-2000:]}")


# --- a round ----------------------------------------------------------------------------------


def test_a_js_client_asks_the_swarm(js: Js, swarm: LocalSwarm) -> None:
    low, middle, _ = names(swarm)
    # Of two peers the one with the larger key greets first: here both happen.
    result = js.ask(
        "--swarm=local", f"--seed={seed_between(low, middle)}", QUESTION, *addresses(swarm)
    )
    assert result["outcome"] == "answer"
    assert result["winner"] == "42"
    assert result["missing"] == {}
    assert result["ballots"] == 3
    assert [sorted(one["models"]) for one in result["answers"]] == [
        ["scripted:0", "scripted:2"],
        ["scripted:1"],
    ]
    assert [one["preferred"] for one in result["answers"]] == pytest.approx([0.9, 0.1])


def test_what_it_signed_and_was_told_is_a_round(js: Js, swarm: LocalSwarm) -> None:
    # Every signature, encoding, commitment, seed and pair, by the daemons' own code.
    result = js.ask("--swarm=local", QUESTION, *addresses(swarm))
    by_kind: dict[type, list[Incoming]] = defaultdict(list)
    for parts in result["signed"]:
        incoming = opened(Envelope(*map(bytes.fromhex, parts)))  # type: ignore[arg-type]
        by_kind[type(incoming.message)].append(incoming)
    (asked,), (fixed,), (shown,) = by_kind[Invite], by_kind[Roster], by_kind[Slate]
    (closed,), (ended,) = by_kind[WaveClose], by_kind[Close]
    invite, roster, slate = asked.message, fixed.message, shown.message
    assert isinstance(invite, Invite)
    assert isinstance(roster, Roster)
    assert isinstance(slate, Slate)
    check_roster(roster)
    assert [entry.peer for entry in roster.entries] == names(swarm)
    judged = open_slate(invite, roster, fixed.envelope.digest, slate)
    for commit, reveal in zip(by_kind[Commit], by_kind[Reveal], strict=True):
        assert isinstance(commit.message, Commit)
        assert isinstance(reveal.message, Reveal)
        name = fixed.envelope.digest
        check_reveal(commit.message, commit.peer, reveal.message, name, invite.answer_bytes)
    pairing = Pairing(False, judged.seed, len(judged.classes), judged.judges)
    assert sorted(one.peer for one in by_kind[Ballot]) == names(swarm)
    for ballot in by_kind[Ballot]:
        assert isinstance(ballot.message, Ballot)
        check_ballot(ballot.message, ballot.peer, pairing, shown.envelope.digest, bytes(32))  # type: ignore[arg-type]
    ballots = tuple(ballot.envelope.digest for ballot in by_kind[Ballot])
    assert isinstance(closed.message, WaveClose)
    assert closed.message.ballots == ballot_set(ballots)
    assert isinstance(ended.message, Close)
    assert ended.message.outcome == "answer"


def test_nobody_judges_where_all_agree(js: Js, swarm: LocalSwarm) -> None:
    result = js.ask("--swarm=local", AGREED, *addresses(swarm))
    assert result["ballots"] == 0
    assert [len(one["models"]) for one in result["answers"]] == [3]
    assert result["winner"] == "Yes" or result["winner"] == "yes"


def test_who_has_no_answer_is_named(js: Js, swarm: LocalSwarm) -> None:
    result = js.ask("--swarm=local", FAILED, *addresses(swarm))
    assert result["winner"] == "Ra"
    assert result["missing"].keys() == {member.peer for member in swarm.members[1:]}
    assert all(why.startswith("declined: failed") for why in result["missing"].values())


def test_an_asker_of_another_swarm_is_turned_away(js: Js, swarm: LocalSwarm) -> None:
    result = js.ask("--swarm=elsewhere", QUESTION, *addresses(swarm))
    assert (result["outcome"], result["winner"]) == ("partial", None)
    assert result["missing"].keys() == {member.peer for member in swarm.members}
    for why in result["missing"].values():
        assert "elsewhere" in why


# --- one peer and one daemon ------------------------------------------------------------------


def test_js_dials_identifies_and_pings(js: Js, swarm: LocalSwarm) -> None:
    done = js.run("peer.mjs", "--swarm=local", swarm.members[0].address)
    assert done.returncode == 0, done.stderr
    said = {one["event"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert said["greeted"]["agent"].startswith("swarmd/")
    assert said["identified"]["agent"].startswith("swarmd/")
    assert {"/swarmd", "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"} <= {*said["identified"]["protocols"]}
    assert said["identified"]["observed"].startswith("/ip4/127.0.0.1/tcp/")
    assert 0 <= said["pinged"]["rtt_ms"] < 1000 * LIMIT_S


def test_swarmd_dials_js(js: Js, make_swarm: MakeSwarm) -> None:
    daemons = make_swarm((), ())
    with daemons:
        low, high = names(daemons)
        with (
            js.peer("--swarm=local", f"--seed={seed_between(None, low)}") as smaller,
            js.peer("--swarm=local", f"--seed={seed_between(high, None)}") as larger,
        ):
            flags = (f"--bootstrap={smaller.address}", f"--bootstrap={larger.address}")
            for member in daemons.members:
                member.spec = replace(member.spec, flags=flags)
            daemons.start()
            for member in daemons.members:
                for peer, speaks_first in (smaller, False), (larger, True):
                    row = peer_row(member, peer.peer)
                    assert (row["path"], row["address"]) == ("direct", peer.address)
                    assert (row["model"], row["since"]) == ("", 0), "it keeps no log"
                    assert row["agent"] == "js-libp2p/swarmd-interop"
                    greeted = peer.wait_for("greeted", peer=member.peer)
                    assert greeted["first"] is speaks_first


async def test_we_identify_and_ping_js(js: Js) -> None:
    with js.peer("--swarm=local") as peer:
        there = parse_peer(peer.peer)
        settings = Settings(("/ip4/127.0.0.1/tcp/0",), (peer.address,), "local", "test")
        mesh = Libp2pMesh(bytes(32), settings)
        async with mesh.running():
            with trio.fail_after(LIMIT_S):
                while not isinstance(await mesh.next_event(), PeerUp):
                    pass
                carrier = mesh._carrier(there)
                identity = await identify.ask(carrier)
                rtt = await identify.ping(carrier)
            assert identity.agent.startswith("js-libp2p/")
            assert {"/swarmd", identify.PROTOCOL_ID, identify.PING_ID} <= {*identity.protocols}
            assert [f"{one}/p2p/{peer.peer}" for one in identity.addresses] == [peer.address]
            assert identity.observed == mesh.addresses()[0]  # we dialled from where we listen
            assert 0 < rtt < LIMIT_S
            # It was not identified alone: js did so as well, as it does with everybody.
            said = peer.wait_for("identified", peer=peer_text(mesh.peer_id))
            assert said["agent"] == "test"
