"""A receipt is checked with nothing but itself, and says what is missing."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from protocol.ids import peer_text
from protocol.messages import MICRO, Row
from protocol.receipt import read, write
from swarm.consensus import DEFAULT_WEIGHTED, UNCALIBRATED, Vote, decide
from swarm.verify import Report, verify
from tests.swarm.builders import changed, receipt_without, signed
from tests.swarm.test_faults import LIES
from tests.swarm.test_round import honest
from tests.swarm.virtual import Peer, VirtualSwarm, knows, signer, standing


def _problem(receipt: bytes) -> str:
    """The one problem of a receipt that does not hold."""
    report = verify(receipt)
    assert not report.ok
    (problem,) = report.problems
    return problem


# --- receipts that hold -------------------------------------------------------------------------


def test_a_receipt_that_holds_says_what_holds() -> None:
    swarm = VirtualSwarm(honest(3)).run()
    report = verify(swarm.receipt)
    assert report.ok
    asker = peer_text(swarm.asker.peer)
    winner = swarm.result.scores[swarm.result.winner or 0] / MICRO
    label = "ABC"[swarm.result.winner or 0]
    assert report.checked == [
        f"The core is signed by the asker, {asker}.",
        "3 peers committed, each under its own signature.",
        "The weights follow from the stated counts.",
        "3 ballots are signed, acknowledged and on the pairs that the seed gives.",
        f"The result follows from the ballots: {label} with {winner:+.6f}.",
        "Every Reveal opens its Commit; classes and seed follow from them.",
        "The round replays from its messages to the same bytes.",
    ]
    assert report.notes == ["Too few are proven: all weigh the same, and there is no confidence."]
    assert report.lines == (*report.checked, *report.notes)
    assert report.missing == []
    assert report.as_json() == {
        "ok": True,
        "checked": report.checked,
        "notes": report.notes,
        "problems": [],
        "missing_ballots": [],
    }


def test_a_weighted_receipt_holds() -> None:
    swarm = VirtualSwarm(
        honest(5),
        rule=changed(DEFAULT_WEIGHTED, calibration_rounds=40),
        standings={f"p{n}": standing(f"p{n}", 60 + n, 80, 30 + n, 60) for n in range(4)},
    ).run()
    report = verify(swarm.receipt)
    assert report.ok, report.problems
    assert report.notes == ["Counts and coefficients of the rule are the asker's word."]
    assert swarm.result.confidence is not None


def test_a_receipt_without_consensus_holds() -> None:
    peers = [Peer("a", "42", lambda a, b: None), Peer("b", "41", lambda a, b: None)]
    report = verify(VirtualSwarm(peers).run().receipt)
    assert report.ok
    assert "The result follows from the ballots: no-consensus." in report.checked


def test_a_partial_receipt_holds() -> None:
    report = verify(VirtualSwarm(honest(2, dies_when="INVITED")).run().receipt)
    assert report.ok
    assert "The round ended before judging: partial." in report.notes
    report = verify(VirtualSwarm(honest(2, dies_when="COMMITTED")).run().receipt)
    assert report.ok
    assert "The round ended early: partial." in report.notes


def test_missing_reveals_are_bits_of_choice() -> None:
    peers = honest(5)
    for peer in peers[:2]:
        peer.dies_when = "COMMITTED"
    report = verify(VirtualSwarm(peers).run().receipt)
    assert report.ok
    (note,) = [note for note in report.notes if "did not reveal" in note]
    assert note == (
        "2 committed and did not reveal: the asker could have chosen among at most 4 seeds."
    )


def test_a_round_with_every_fault_and_two_waves_holds() -> None:
    peers = honest(12) + [
        Peer(name, "41", knows("42"), latency=0.001, rewrite={kind: rewrite})
        for name, (kind, rewrite, _) in LIES.items()
    ]
    swarm = VirtualSwarm(peers).run()
    report = verify(swarm.receipt)
    assert report.ok, report.problems
    assert len(swarm.faults) == len(LIES)


def test_a_detached_receipt_holds_with_a_note() -> None:
    swarm = VirtualSwarm(honest(3)).run()
    file, core, _ = read(swarm.receipt)
    detached = write(file.core, None)
    report = verify(detached)
    assert report.ok
    assert "The opening is detached: classes and seed are the asker's word." in report.notes
    assert not any("replays" in line for line in report.checked)
    for peer in swarm.peers.values():
        assert (peer.answer or "").encode() not in detached, "no text is left"
    assert swarm.plan.question.encode() not in detached
    assert core.opening not in (bytes(32), None), "yet its digest is there"


# --- ballots that are left out --------------------------------------------------------------------


def _flips(swarm: VirtualSwarm, judge: str) -> bool:
    """Whether any hard verdicts of ``judge`` would change the winner, by trying all of them."""
    case = swarm.round.case()
    seat = [peer.name for peer in swarm.peers.values()].index(judge)
    rows = [vote.row for vote in case.votes if vote.seat == seat]
    others = tuple(vote for vote in case.votes if vote.seat != seat)
    winner = decide(replace(case, votes=others)).winner
    return any(
        decide(
            replace(
                case,
                votes=others
                + tuple(
                    Vote(seat, Row(row.first, row.second, p))
                    for row, p in zip(rows, verdicts, strict=True)
                ),
            )
        ).winner
        != winner
        for verdicts in product((0, MICRO), repeat=len(rows))
    )


def _strong(count: int) -> list[Peer]:
    return [Peer(f"p{n}", ("42", "41")[n % 2], knows("42", 0.99)) for n in range(count)]


@pytest.mark.parametrize(
    ("peers", "could"),
    [
        ([Peer("p0", "42", knows("42", 0.6)), Peer("p1", "41", knows("41", 0.6)),
          Peer("p2", "40", knows("42", 0.6))], True),
        (_strong(3), False),
        (_strong(9), False),
    ],
    ids=["tight", "three judges", "clear"],
)  # fmt: skip
@pytest.mark.parametrize("left_out", ["p0", "p1"])
def test_a_ballot_that_the_asker_leaves_out_is_listed(
    peers: list[Peer], could: bool, left_out: str
) -> None:
    """The asker drops ballot and Ack, closes the wave over the rest, and signs all of it anew."""
    swarm = VirtualSwarm([replace(peer) for peer in peers]).run()
    report = verify(receipt_without(swarm, left_out))
    assert report.ok, report.problems
    judge = peer_text(signer(left_out).peer)
    assert report.missing == [{"judge": judge, "wave": 0, "could_flip": could}]
    assert f"The ballot of {judge} in wave 0 is missing." in report.notes
    could_text = "could" if could else "could not"
    assert (
        f"The missing ballots, whatever they say, {could_text} change the winner." in report.notes
    )
    assert _flips(swarm, left_out) == could, "as trying every verdict shows"


def test_a_judge_that_stayed_silent_is_listed_in_every_wave() -> None:
    peers = honest(12)
    peers[3].dies_when = "JUDGING"
    report = verify(VirtualSwarm(peers).run().receipt)
    assert report.ok
    judge = peer_text(peers[3].id)
    assert [(one["judge"], one["wave"]) for one in report.missing] == [(judge, 0), (judge, 1)]
    assert report.as_json()["missing_ballots"] == report.missing


def test_all_ballots_missing_could_say_anything() -> None:
    swarm = VirtualSwarm(honest(3, dies_when="JUDGING")).run()
    report = verify(swarm.receipt)
    assert report.ok
    assert swarm.result.outcome == "no-consensus"
    assert len(report.missing) == 3
    assert all(one["could_flip"] for one in report.missing)


def test_an_ack_without_its_ballot_is_a_proof_against_the_asker() -> None:
    """The core's own consistency: Acks are for exactly these Ballots."""
    swarm = VirtualSwarm(honest(3)).run()
    whole = read(swarm.receipt)[1].judging
    assert whole is not None
    forged = receipt_without(swarm, "p0")
    _, core, opening = read(forged)
    assert core.judging is not None
    kept = changed(core, judging=changed(core.judging, acks=whole.acks))
    assert _problem(signed(swarm, kept, opening)) == ("The Acks are not for exactly these Ballots.")


# --- the report ---------------------------------------------------------------------------------


def test_an_empty_report_is_ok() -> None:
    assert Report().ok
    assert not Report(problems=["x"]).ok


def test_rules_that_stop_early_are_checked() -> None:
    swarm = VirtualSwarm(honest(12), rule=changed(UNCALIBRATED, stop=500_000)).run()
    assert verify(swarm.receipt).ok
    _, core, _ = read(swarm.receipt)
    assert core.judging is not None
    for stopped, rule in (
        ("schedule", core.rule),
        ("confident", changed(core.rule, stop=MICRO)),
        ("confident", changed(core.rule, stop=None)),
    ):
        forged = changed(core, rule=rule, judging=changed(core.judging, stopped=stopped))
        detached = signed(swarm, forged, None)
        assert _problem(detached) == "Judging stopped before it was done."
