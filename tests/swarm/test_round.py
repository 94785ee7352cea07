"""A round from Invite to receipt, over a virtual swarm."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol.codec import encode
from protocol.messages import (
    MICRO,
    Ack,
    Ballot,
    Close,
    Commit,
    Invite,
    Message,
    Model,
    Reveal,
    Roster,
    Slate,
    WaveClose,
    parse,
    seal,
)
from protocol.receipt import read
from swarm import progress
from swarm.consensus import DEFAULT_WEIGHTED, UNCALIBRATED
from swarm.effects import Finished, Report, Send, Store
from swarm.replay import replay
from swarm.round import Round
from swarm.seat import State
from swarm.verify import verify
from tests.swarm.builders import changed
from tests.swarm.virtual import PHASES, Peer, VirtualSwarm, knows, signer, standing, undecided

ANSWERS = ("42", "41", "40", "43", "44")


def honest(count: int, **fields: object) -> list[Peer]:
    """Peers whose answers differ and who all recognise "42"."""
    return [
        Peer(f"p{number}", ANSWERS[number % 5], knows("42"), **fields)  # type: ignore[arg-type]
        for number in range(count)
    ]


def holds(swarm: VirtualSwarm) -> VirtualSwarm:
    """What is true of every round that ended, however it went."""
    assert swarm.round.state is State.DONE
    assert swarm.round.timer_at() is None
    assert len(swarm.finished) == 1
    report = verify(swarm.receipt)
    assert report.ok, report.problems
    again = replay(swarm.receipt)
    assert again.ok, again.problems
    assert (again.winner, again.outcome) == (swarm.winner, swarm.result.outcome)
    assert again.scores == swarm.result.scores
    phases = swarm.plan.phases
    core = swarm.round.core
    assert core is not None
    waves = len(core.judging.waves) if core.judging else 0
    assert swarm.ended <= (phases.commit + phases.reveal + waves * phases.judge) / 1000 + 1e-9
    return swarm


# --- the happy path ---------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "waves"), [(3, 1), (5, 1), (9, 1), (12, 2)])
def test_the_best_answer_wins(count: int, waves: int) -> None:
    swarm = holds(VirtualSwarm(honest(count)).run())
    assert swarm.winner == "42"
    assert swarm.result.outcome == "answer"
    assert swarm.faults == {}
    core = swarm.round.core
    assert core is not None
    assert core.judging is not None
    assert len(core.judging.waves) == waves
    assert all(len(wave.ballots) == count for wave in core.judging.waves)
    assert len(core.judging.acks) == waves * count
    assert core.judging.missing_reveals == 0
    assert core.judging.stopped == "schedule"
    assert [one.peer for one in core.standings] == sorted(swarm.peers)
    assert swarm.finished == ["answer"]
    assert all(peer.finished == ["closed: answer"] for peer in swarm.peers.values())
    assert all(len(peer.machine.acks) == waves for peer in swarm.peers.values() if peer.machine)


def test_nobody_waits_for_a_phase_to_run_out() -> None:
    """Two ways of latency a phase, and the time to think: no timer is needed."""
    swarm = VirtualSwarm(honest(3)).run()
    assert swarm.ended == pytest.approx(6 * 0.01 + 2 * 0.5)
    assert swarm.round.timing_ms() == pytest.approx(
        {"commit_ms": 520, "reveal_ms": 20, "judge_ms": 520, "total_ms": 1060}
    )


def test_a_minority_with_the_right_answer_wins() -> None:
    """Four say 41, one says 42, and all of them can tell which is right."""
    peers = [Peer(f"p{n}", "42" if n == 0 else "41", knows("42")) for n in range(5)]
    swarm = holds(VirtualSwarm(peers).run())
    assert swarm.winner == "42"
    assert swarm.round.opened is not None
    assert swarm.result.plurality is not None
    assert swarm.round.opened.answers[swarm.result.plurality] == "41"


def test_proven_judges_outweigh_strangers() -> None:
    """Five strangers push "41"; the four proven peers are believed."""
    proven = [f"proven {n}" for n in range(4)]
    peers = [Peer(f"new {n}", "41", knows("41", 1.0)) for n in range(5)]
    peers += [Peer(name, "42", knows("42", 1.0)) for name in proven]
    swarm = VirtualSwarm(
        peers,
        rule=changed(DEFAULT_WEIGHTED, calibration_rounds=30),
        standings={name: standing(name, 90, 100, 60, 80) for name in proven},
    ).run()
    holds(swarm)
    assert swarm.winner == "42"
    assert swarm.result.confidence is not None
    assert swarm.result.unweighted != swarm.result.winner


@pytest.mark.parametrize("count", [1, 3, 12])
def test_unanimous_answers_need_no_judging(count: int) -> None:
    texts = ["42", "42.0", " 42."]
    swarm = VirtualSwarm([Peer(f"p{n}", texts[n % 3]) for n in range(count)]).run()
    holds(swarm)
    assert swarm.result.outcome == "answer"
    assert swarm.result.margin == 0
    assert swarm.round.core is not None
    assert swarm.round.core.judging is not None
    assert swarm.round.core.judging.waves == ()
    assert swarm.ended < 1.0


def test_nobody_sees_a_difference() -> None:
    peers = [Peer("a", "42", lambda a, b: None), Peer("b", "41", lambda a, b: None)]
    swarm = holds(VirtualSwarm(peers).run())
    assert (swarm.result.outcome, swarm.winner) == ("no-consensus", None)
    assert swarm.result.plurality is None


def test_ties_favour_no_place() -> None:
    """Undecided verdicts in both orders, from members of both classes, leave a dead heat."""
    swarm = holds(VirtualSwarm([Peer("a", "42", undecided), Peer("b", "41", undecided)]).run())
    assert swarm.result.outcome == "no-consensus"
    assert swarm.result.margin < 10


# --- the committee is too small ---------------------------------------------------------------


def test_nobody_was_invited() -> None:
    swarm = holds(VirtualSwarm([]).run())
    assert swarm.result.outcome == "partial"
    assert swarm.ended == 0.0


@pytest.mark.parametrize(("failing", "outcome"), [(1, "answer"), (2, "partial")])
def test_too_few_commits_end_the_round(failing: int, outcome: str) -> None:
    peers = honest(4)
    for peer in peers[2 : 2 + failing]:
        peer.answer = None
    swarm = holds(VirtualSwarm(peers, min_answers=3).run())
    assert swarm.result.outcome == outcome
    assert len(swarm.faults) == failing
    assert swarm.round.core is not None
    assert (swarm.round.core.roster is None) == (outcome == "partial")


@pytest.mark.parametrize(("failing", "outcome"), [(1, "answer"), (2, "partial")])
def test_too_few_reveals_end_the_round(failing: int, outcome: str) -> None:
    peers = honest(4)
    for peer in peers[2 : 2 + failing]:
        peer.dies_when = "COMMITTED"
    swarm = holds(VirtualSwarm(peers, min_answers=3).run())
    assert swarm.result.outcome == outcome
    core = swarm.round.core
    assert core is not None
    assert core.judging is not None, "what was revealed is on record all the same"
    assert core.judging.missing_reveals == failing
    assert (core.judging.waves == ()) == (outcome == "partial")


def test_silence_all_round_is_a_partial_round() -> None:
    swarm = holds(VirtualSwarm(honest(3, dies_when="INVITED")).run())
    assert swarm.result.outcome == "partial"
    assert swarm.ended == 10.0
    assert set(swarm.faults.values()) == {"commit/no-commit"}


# --- stopping early ---------------------------------------------------------------------------


def test_judging_stops_once_the_share_is_reached() -> None:
    rule = changed(UNCALIBRATED, stop=500_000)
    swarm = holds(VirtualSwarm(honest(12), rule=rule).run())
    core = swarm.round.core
    assert core is not None
    assert core.judging is not None
    assert core.judging.stopped == "confident"
    assert len(core.judging.waves) == 1
    assert swarm.winner == "42"
    assert swarm.result.shares[swarm.result.winner or 0] >= 500_000
    assert all(peer.finished == ["closed: answer"] for peer in swarm.peers.values())


def test_judging_goes_on_below_the_share() -> None:
    rule = changed(UNCALIBRATED, stop=MICRO)
    swarm = holds(VirtualSwarm(honest(12), rule=rule).run())
    core = swarm.round.core
    assert core is not None
    assert core.judging is not None
    assert core.judging.stopped == "schedule"
    assert len(core.judging.waves) == 2


def test_the_last_wave_is_no_early_stop() -> None:
    swarm = holds(VirtualSwarm(honest(3), rule=changed(UNCALIBRATED, stop=0)).run())
    core = swarm.round.core
    assert core is not None
    assert core.judging is not None
    assert core.judging.stopped == "schedule"


# --- cancelling -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "count"),
    [
        (progress.Invited, 3),
        (progress.Committed, 3),
        (progress.RosterFixed, 3),
        (progress.Revealed, 3),
        (progress.ClassesFound, 3),
        (progress.BallotCast, 3),
        (progress.BallotCast, 12),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_round_can_be_cancelled_at_any_time(when: type[progress.Event], count: int) -> None:
    peers = honest(count)
    for number, peer in enumerate(peers):
        peer.latency = 0.01 + number / 1000
    swarm = VirtualSwarm(peers)
    swarm.on[when] = swarm.cancel
    holds(swarm.run())
    assert swarm.result.outcome == "cancelled"
    assert (swarm.winner, swarm.result.confidence) == (None, None)
    assert swarm.finished == ["cancelled"]
    for peer in peers:
        assert peer.finished == ["closed: cancelled"], "everyone is told"


def test_a_cancelled_round_keeps_the_ballots_it_had() -> None:
    peers = honest(3)
    for number, peer in enumerate(peers):
        peer.latency = 0.01 + number / 1000
    swarm = VirtualSwarm(peers)
    swarm.on[progress.BallotCast] = swarm.cancel
    holds(swarm.run())
    core = swarm.round.core
    assert core is not None
    assert core.judging is not None
    (wave,) = core.judging.waves
    assert len(wave.ballots) == 1


def test_cancelling_twice_or_too_late_changes_nothing() -> None:
    swarm = VirtualSwarm(honest(3)).run()
    swarm.cancel()
    assert len(swarm.receipts) == 1
    assert swarm.result.outcome == "answer"


# --- order and time ---------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.lists(st.integers(1, 400), min_size=5, max_size=5), st.permutations(range(5)))
def test_the_order_of_arrival_changes_nothing(latencies: list[int], order: list[int]) -> None:
    """Within a phase, whoever comes first: the core is the same, but for what hides the journal."""
    peers = honest(5)
    for peer, latency in zip(peers, latencies, strict=True):
        peer.latency = latency / 1000
    swarm = VirtualSwarm([peers[at] for at in order]).run()
    assert swarm.round.core is not None
    core = changed(swarm.round.core, opening=bytes(32))
    assert encode(core) == _steady_core()


def _steady_core() -> bytes:
    if not _STEADY:
        core = VirtualSwarm(honest(5)).run().round.core
        assert core is not None
        _STEADY.append(encode(changed(core, opening=bytes(32))))
    return _STEADY[0]


_STEADY: list[bytes] = []


def test_the_same_round_gives_the_same_receipt() -> None:
    one, other = (VirtualSwarm(honest(12)).run().receipt for _ in range(2))
    assert one == other
    assert VirtualSwarm(honest(12), seed=b"another").run().receipt != one


def test_the_receipt_is_this() -> None:
    """Pinned: a change of these bytes is a change of the protocol or of the estimator."""
    swarm = VirtualSwarm(honest(3)).run()
    _, core, _ = read(swarm.receipt)
    assert core.round.hex() == "3d770faf8ac8d4c0ccef01c4e12356d0d2d345f2a279c8cf5994a545175d1e42"
    assert core.judging is not None
    assert (
        core.judging.seed.hex()
        == "3feffeebb1265c3cd762cb05e22361c7c36bf0b0eee490e0e9372fa83693eb00"
    )
    assert core.result.scores == pytest.approx((842262, -421131, -421131), abs=2), (
        "the same on any platform"
    )


def test_the_start_of_the_clock_changes_nothing() -> None:
    swarm = VirtualSwarm(honest(3))
    later = Round(swarm.plan, swarm.asker, 1e6)
    assert later.timer_at() == 1e6 + 10
    later.on_timer(1e6 + 9.999)
    assert later.state is State.COMMIT
    later.on_timer(1e6 + 10)
    assert later.state is State.DONE


# --- what the asker says, and to whom ---------------------------------------------------------


def _told(swarm: VirtualSwarm) -> dict[str, list[type[Message]]]:
    """Run; the types of the asker's messages to each peer."""
    told: dict[str, list[type[Message]]] = {peer.name: [] for peer in swarm.peers.values()}
    deliver = swarm._to_peer

    def to_peer(peer: Peer, payload: bytes) -> None:
        told[peer.name].append(type(parse(payload).message))
        deliver(peer, payload)

    swarm._to_peer = to_peer  # type: ignore[method-assign]
    swarm.run()
    return told


def test_the_asker_s_messages_in_order() -> None:
    every = [Invite, Roster, Slate, Ack, WaveClose, Close]
    assert _told(VirtualSwarm(honest(3))) == {"p0": every, "p1": every, "p2": every}


def test_who_judges_no_more_is_not_told_what_is_judged() -> None:
    """Answers are shown to those who showed theirs, and still take part."""
    peers = honest(6)
    peers[2].dies_when = "COMMITTED"
    peers[3].rewrite[Reveal] = lambda peer, message: [changed(message, answer="42")]
    peers[4].latency = 0.001
    peers[5].latency = 0.001
    swarm = VirtualSwarm(peers)
    swarm.on[progress.ClassesFound] = lambda: swarm.broke(peers[4])
    swarm.on[progress.Revealed] = lambda: swarm.broke(peers[5])
    told = _told(swarm)
    assert told["p0"] == told["p1"] == [Invite, Roster, Slate, Ack, WaveClose, Close]
    assert told["p2"] == told["p3"] == [Invite, Roster, Close]
    assert told["p4"] == [Invite, Roster, Slate], "lost while it judged"
    assert told["p5"] == [Invite, Roster], "lost after it revealed"


def test_effects_are_handed_out_once() -> None:
    machine = Round(VirtualSwarm(honest(3)).plan, signer("asker"), 0.0)
    first = machine.effects()
    assert [type(effect) for effect in first] == [Report, Send, Send, Send]
    assert machine.effects() == []
    machine.cancel(1.0)
    assert [type(effect) for effect in machine.effects()] == [
        Store, Send, Send, Send, Report, Finished,
    ]  # fmt: skip


def test_models_are_those_of_the_commits() -> None:
    peers = honest(3)
    peers[1].rewrite[Commit] = lambda peer, message: [changed(message, model=Model("", "", ""))]
    swarm = VirtualSwarm(peers).run()
    assert swarm.round.models() == {peer.id: peer.name for peer in peers}, "or as advertised"


def test_who_is_heard() -> None:
    swarm = VirtualSwarm([*honest(2), Peer("declines", None)])
    ids = [peer.id for peer in swarm.peers.values()]
    assert all(swarm.round.hears(peer) for peer in ids)
    assert not swarm.round.hears(signer("stranger").peer)
    heard = {}
    swarm.on[progress.RosterFixed] = lambda: heard.update(
        {peer.name: swarm.round.hears(peer.id) for peer in swarm.peers.values()}
    )
    swarm.run()
    assert heard == {"p0": True, "p1": True, "declines": False}
    assert not any(swarm.round.hears(peer) for peer in ids), "not once it is over"


def test_strangers_and_other_messages_are_ignored() -> None:
    swarm = VirtualSwarm(honest(2))
    machine, asked = swarm.round, swarm.round.round_id
    stray = Commit(asked, bytes(32), Model("", "", ""))
    machine.receive(parse(encode(seal(signer("stranger"), stray))), 1.0)
    machine.broke(signer("stranger").peer, "lost", "gone", 1.0)
    for message in (Ack(asked, bytes(32)), Close(asked, "x", bytes(32))):
        machine.receive(parse(encode(seal(signer("p0"), message))), 1.0)
    machine.cancel(2.0)
    swarm.run()
    _, core, opening = read(swarm.receipt)
    assert core.faults == ()
    assert opening is not None
    assert len(opening.journal) == 1, "what changes nothing is not in the journal"


def test_a_round_has_no_case_before_answers_are_shown() -> None:
    swarm = VirtualSwarm(honest(2))
    with pytest.raises(ValueError, match="not been shown"):
        swarm.round.case()
    swarm.run()
    assert swarm.round.case().classes == ((0,), (1,))


def test_a_full_committee_with_the_longest_answers() -> None:
    """The Slate is the largest message; it must still travel."""
    size = limits.ANSWER_BYTES
    peers = [
        Peer(f"p{n}", sha256(bytes([n])).hexdigest() * (size // 64), undecided)
        for n in range(limits.COMMITTEE)
    ]
    swarm = VirtualSwarm(peers).run()
    assert swarm.faults == {}
    assert swarm.round.slate is not None
    assert len(encode(swarm.round.slate)) < limits.FRAME_BYTES
    core = swarm.round.core
    assert core is not None
    assert core.judging is not None
    assert len(core.judging.waves) == 3
    assert len(swarm.receipt) < limits.RECEIPT_BYTES


def test_types_of_messages_that_peers_send() -> None:
    swarm = VirtualSwarm(honest(2)).run()
    _, _, opening = read(swarm.receipt)
    assert opening is not None
    kinds = [type(parse(encode(entry.envelope)).message) for entry in opening.journal]  # type: ignore[union-attr]
    assert kinds == [Commit, Commit, Reveal, Reveal, Ballot, Ballot]
    assert opening.plan.phases == PHASES
