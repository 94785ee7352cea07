"""Rounds in the adaptive schedule, over a virtual swarm."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.codec import encode
from protocol.ids import PeerId
from protocol.messages import MICRO, Ballot, Message, Row, WaveClose, opened, seal
from protocol.receipt import Expired, Heard, Judging, Rule, read
from swarm import progress
from swarm.ballots import is_confident
from swarm.consensus import UNCALIBRATED, Case, Vote, decide
from swarm.duels import following
from swarm.pairing import ADAPTIVE_WAVES, Pairing
from swarm.replay import fold
from swarm.verify import verify
from tests.swarm.builders import changed, receipt_without, rerun
from tests.swarm.test_round import holds, honest
from tests.swarm.virtual import Peer, VirtualSwarm, knows

NEVER, HALF = (changed(UNCALIBRATED, stop=stop) for stop in (None, 450_000))


def adaptive(peers: list[Peer], rule: Rule = NEVER, **fields: object) -> VirtualSwarm:
    return VirtualSwarm(peers, rule=rule, adaptive=True, **fields)  # type: ignore[arg-type]


def judging(swarm: VirtualSwarm) -> Judging:
    assert swarm.round.core is not None
    assert swarm.round.core.judging is not None
    return swarm.round.core.judging


def ballots(swarm: VirtualSwarm) -> list[int]:
    return [len(wave.ballots) for wave in judging(swarm).waves]


def closes(swarm: VirtualSwarm) -> list[WaveClose]:
    return [opened(wave.close).message for wave in judging(swarm).waves]  # type: ignore[misc]


# --- how it goes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "expected"),
    [(3, [1, 1, 1, 2, 3, 3]), (6, [2, 2, 2, 4, 6, 6]), (12, [4, 4, 4, 8, 12, 12])],
)
def test_without_a_threshold_all_waves_take_place(count: int, expected: list[int]) -> None:
    swarm = holds(adaptive(honest(count)).run())
    assert swarm.winner == "42"
    assert swarm.faults == {}
    assert judging(swarm).stopped == "schedule"
    assert ballots(swarm) == expected
    assert [close.more for close in closes(swarm)] == [True] * 5 + [False]
    assert all(peer.finished == ["closed: answer"] for peer in swarm.peers.values())


def test_it_stops_once_the_share_is_reached() -> None:
    whole, early = adaptive(honest(6)).run(), holds(adaptive(honest(6), HALF).run())
    assert early.winner == "42"
    assert judging(early).stopped == "confident"
    assert 0 < sum(ballots(early)) < sum(ballots(whole))
    assert early.result.shares[early.result.winner or 0] >= 450_000
    assert closes(early)[-1].duels == ()
    assert not closes(early)[-1].more


def test_two_judges_have_soon_had_their_pair() -> None:
    """Both orders of the one pair there is: four verdicts, and no wave without a question."""
    swarm = holds(adaptive(honest(2)).run())
    assert sum(ballots(swarm)) == 4
    assert all(ballots(swarm))


@pytest.mark.parametrize("count", [1, 4])
def test_unanimous_answers_need_no_judging(count: int) -> None:
    swarm = holds(adaptive([Peer(f"p{n}", "42") for n in range(count)], HALF).run())
    assert ballots(swarm) == []
    assert swarm.winner == "42"


def test_who_is_not_asked_is_not_waited_for() -> None:
    """Each wave takes as long as its slowest judge, and not all of them judge."""
    swarm = adaptive(honest(9)).run()
    waves = len(ADAPTIVE_WAVES)
    assert swarm.ended == pytest.approx((4 + 2 * waves) * 0.01 + (1 + waves) * 0.5)
    asked = Counter(one.signer for wave in judging(swarm).waves for one in wave.ballots)
    assert set(asked) == set(swarm.peers), "yet in the end all were"


def test_the_same_round_gives_the_same_receipt() -> None:
    one, other = (adaptive(honest(6), HALF).run().receipt for _ in range(2))
    assert one == other
    assert adaptive(honest(6), HALF, seed=b"another").run().receipt != one


@settings(max_examples=6)
@given(st.lists(st.integers(1, 400), min_size=6, max_size=6))
def test_the_order_of_arrival_changes_nothing(latencies: list[int]) -> None:
    peers = honest(6)
    for peer, latency in zip(peers, latencies, strict=True):
        peer.latency = latency / 1000
    core = adaptive(peers).run().round.core
    steady = adaptive(honest(6)).run().round.core
    assert changed(core, opening=bytes(32)) == changed(steady, opening=bytes(32))


def test_the_journal_gives_the_same_file() -> None:
    swarm = adaptive(honest(6), HALF).run()
    file, core, opening = read(swarm.receipt)
    assert opening is not None
    assert rerun(swarm, opening.journal) == swarm.receipt
    timeless = changed(opening, journal=tuple(changed(entry, at=0) for entry in opening.journal))
    again = fold(core, timeless, file.core.signer)
    assert again.core is not None
    assert changed(again.core, opening=core.opening) == core


@pytest.mark.parametrize("rule", [NEVER, HALF], ids=["full length", "early stop"])
def test_a_simulation_without_messages_runs_the_same_schedule(rule: Rule) -> None:
    swarm = adaptive(honest(7), rule).run()
    shown = swarm.round.opened
    assert shown is not None
    verdict = knows("42")
    case = swarm.round.case()
    votes: list[Vote] = []
    pairing: Pairing | None = Pairing(True, shown.seed, len(shown.classes), shown.judges)
    rounds = 0
    while pairing is not None:
        rounds += 1
        for judge in shown.judges:
            for first, second in pairing.pairs(judge):
                p = verdict(shown.answers[first], shown.answers[second])
                row = Row(first, second, round(MICRO * (p or 0.0)))
                votes.append(Vote(shown.peers.index(judge), row))
        now = Case(case.rule, case.classes, case.weights, tuple(votes), pairing.both_orders)
        result = decide(now)
        if is_confident(rule, result):
            break
        pairing = following(pairing, now, result)
    assert rounds == len(judging(swarm).waves)
    assert result == swarm.result
    assert sorted(votes, key=repr) == sorted(case.votes, key=repr)


# --- faults ---------------------------------------------------------------------------------------


@cache
def _asked_in(wave: int, count: int = 6) -> PeerId:
    """One that has a Ballot to give in this wave, had all gone well."""
    return judging(adaptive(honest(count)).run()).waves[wave].ballots[0].signer


def _at_wave(wave: int, peer: Peer, action: object) -> None:
    """Do something in place of the Ballot of that wave."""

    def rewrite(_: Peer, message: Message) -> list[Message | bytes]:
        assert isinstance(message, Ballot)
        return action(message) if message.wave == wave else [message]  # type: ignore[operator]

    peer.rewrite[Ballot] = rewrite


FAULTS = {
    "silent": (lambda m: [], "judge/no-ballot"),
    "two ballots": (
        lambda m: [m, changed(m, rows=tuple(changed(r, p=MICRO) for r in m.rows))],
        "judge/equivocation",
    ),
    "other pairs": (
        lambda m: [changed(m, rows=tuple(Row(r.second, r.first, r.p) for r in m.rows))],
        "judge/bad-ballot",
    ),
    "one pair too many": (lambda m: [changed(m, rows=(*m.rows, *m.rows))], "judge/bad-ballot"),
    "none": (lambda m: [changed(m, rows=())], "judge/bad-ballot"),
    "a later wave": (lambda m: [changed(m, wave=m.wave + 1)], "judge/bad-ballot"),
    "after another close": (lambda m: [changed(m, follows=b"\x01" * 32)], "judge/bad-ballot"),
    "garbage": (lambda m: [b"\xc1"], "judge/malformed"),
}


@pytest.mark.parametrize("wave", [0, 3, len(ADAPTIVE_WAVES) - 1])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_judge_in_any_wave(fault: str, wave: int) -> None:
    swarm = adaptive(honest(6))
    bad = swarm.peers[_asked_in(wave)]
    bad.latency = 0.001
    action, name = FAULTS[fault]
    _at_wave(wave, bad, action)
    holds(swarm.run())
    assert swarm.winner == "42"
    assert swarm.faults == {bad.name: name}
    kept = [one.signer for one in judging(swarm).waves[wave].ballots]
    assert (bad.id in kept) == (fault == "two ballots")


@pytest.mark.parametrize("wave", range(len(ADAPTIVE_WAVES)))
def test_a_link_that_breaks_in_any_wave(wave: int) -> None:
    swarm = adaptive(honest(6))
    bad = swarm.peers[_asked_in(wave)]
    _at_wave(wave, bad, lambda m: (swarm.at(0.0, lambda: swarm.broke(bad)), [])[1])
    holds(swarm.run())
    assert swarm.faults == {bad.name: "judge/lost"}
    assert swarm.ended < 5.0, "nobody waits for it"


def test_a_ballot_of_who_was_not_asked_is_refused() -> None:
    swarm = adaptive(honest(6))
    first = {one.signer for one in judging(adaptive(honest(6)).run()).waves[0].ballots}
    bad = next(peer for peer in swarm.peers.values() if peer.id not in first)

    def vote() -> None:
        assert swarm.round.slate is not None
        ballot = Ballot(swarm.round.round_id, swarm.round.slate.digest, 0, bytes(32), ())
        swarm._to_asker(bad, encode(seal(bad.signer, ballot)))

    swarm.on[progress.ClassesFound] = vote
    holds(swarm.run())
    assert swarm.faults == {bad.name: "judge/bad-ballot"}
    (fault,) = swarm.round.core.faults  # type: ignore[union-attr]
    assert "was not asked in this wave" in fault.detail


def test_all_judges_fall_silent_in_the_middle() -> None:
    swarm = adaptive(honest(4))
    swarm.on[progress.BallotCast] = lambda: [
        setattr(peer, "dies_when", "JUDGING") or setattr(peer, "thinks", 99.0)
        for peer in swarm.peers.values()
    ]
    holds(swarm.run())
    assert set(swarm.faults.values()) == {"judge/no-ballot"}
    assert sum(ballots(swarm)) < 8


def test_a_late_ballot_is_late_for_its_wave_only() -> None:
    swarm = adaptive(honest(6))
    bad = swarm.peers[_asked_in(0)]
    bad.late[Ballot] = 10.1
    holds(swarm.run())
    assert swarm.faults == {bad.name: "judge/late-ballot judge/no-ballot"}


def test_a_missing_ballot_is_listed_where_its_judge_was_asked() -> None:
    swarm = adaptive(honest(6))
    bad = swarm.peers[_asked_in(1)]
    bad.dies_when = "JUDGING"
    report = verify(swarm.run().receipt)
    assert report.ok, report.problems
    owed = [one["wave"] for one in report.missing]
    assert owed
    assert owed[0] in (0, 1), "from its first turn on"
    assert "They could have changed which pairs came next, too." in report.notes


def test_a_ballot_that_the_asker_leaves_out_is_listed() -> None:
    """It closes the last wave without it and signs all of it anew."""
    swarm = adaptive(honest(6)).run()
    left_out = judging(swarm).waves[-1].ballots[0].signer
    forged = receipt_without(swarm, swarm.peers[left_out].name)
    report = verify(forged)
    assert report.ok, report.problems
    assert [one["wave"] for one in report.missing] == [len(ADAPTIVE_WAVES) - 1]
    assert "They could have changed which pairs came next, too." not in report.notes


# --- cancelling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("after", range(1, 20, 3))
def test_it_can_be_cancelled_after_any_ballot(after: int) -> None:
    peers = honest(6)
    for number, peer in enumerate(peers):
        peer.latency = 0.01 + number / 1000
    swarm = adaptive(peers)

    def count(left: int) -> None:
        if left == 0:
            swarm.cancel()
        else:
            swarm.on[progress.BallotCast] = lambda: count(left - 1)

    count(after)
    holds(swarm.run())
    assert swarm.result.outcome == "cancelled"
    assert sum(ballots(swarm)) >= after
    assert not closes(swarm)[-1].more
    assert all(peer.finished == ["closed: cancelled"] for peer in peers)


def test_waves_that_run_out_of_time_are_in_the_journal() -> None:
    swarm = adaptive(honest(4, dies_when="JUDGING")).run()
    holds(swarm)
    _, _, opening = read(swarm.receipt)
    assert opening is not None
    kinds = Counter(type(entry) for entry in opening.journal)
    assert kinds == {Heard: 8, Expired: len(ADAPTIVE_WAVES)}
    assert swarm.result.outcome == "no-consensus"
