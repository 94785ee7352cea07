"""Rounds that ask more peers while there is doubt, over a virtual swarm."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.codec import encode
from protocol.ids import ZERO_DIGEST
from protocol.messages import (
    MICRO,
    Ballot,
    Close,
    Commit,
    Decline,
    Invite,
    Message,
    Model,
    Reveal,
    Roster,
    Slate,
    parse,
    seal,
    secret_hash,
    stage_secret,
)
from protocol.receipt import Core, Expired, Heard, read
from swarm import progress
from swarm.consensus import DEFAULT_WEIGHTED, UNCALIBRATED
from swarm.pairing import ADAPTIVE_WAVES
from swarm.replay import fold, replay
from swarm.seat import State
from swarm.staging import stage_sizes
from swarm.verify import verify
from tests.swarm.builders import changed, rerun
from tests.swarm.test_round import honest
from tests.swarm.virtual import Peer, VirtualSwarm, knows, signer, standing

NEVER, SOON = (changed(UNCALIBRATED, stop=stop) for stop in (None, 500_000))
STAGES = (3, 5)
"""Of eight peers: three, two more, the last three."""


def staged(peers: list[Peer], rule: object = NEVER, **fields: object) -> VirtualSwarm:
    fields = {"stages": STAGES} | fields
    return VirtualSwarm(peers, rule=rule, **fields)  # type: ignore[arg-type]


def holds(swarm: VirtualSwarm) -> VirtualSwarm:
    """What is true of every staged round that ended, however it went."""
    assert swarm.round.state is State.DONE
    assert len(swarm.finished) == 1
    report = verify(swarm.receipt)
    assert report.ok, report.problems
    again = replay(swarm.receipt)
    assert again.ok, again.problems
    assert (again.winner, again.outcome) == (swarm.winner, swarm.result.outcome)
    phases, stages = swarm.plan.phases, len(core(swarm).stages)
    longest = phases.commit + phases.reveal + len(ADAPTIVE_WAVES) * phases.judge
    assert swarm.ended <= stages * longest / 1000
    for peer in swarm.peers.values():
        assert peer.machine is None or peer.dead or peer.machine.timer_at() is None
    return swarm


def core(swarm: VirtualSwarm) -> Core:
    assert swarm.round.core is not None
    return swarm.round.core


def asked(swarm: VirtualSwarm) -> set[str]:
    return {swarm.peers[one.peer].name for one in core(swarm).standings}


def seats(swarm: VirtualSwarm) -> set[str]:
    assert swarm.round.opened is not None
    return {swarm.peers[peer].name for peer in swarm.round.opened.peers}


def names(*numbers: int) -> set[str]:
    return {f"p{number}" for number in numbers}


# --- how it goes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stages", "invited", "sizes"),
    [
        ((), 5, (5,)),
        ((3,), 5, (3, 5)),
        ((3, 5, 9, 15, 35), 9, (3, 5, 9)),
        ((3, 5, 9, 15, 35), 12, (3, 5, 9, 12)),
        ((0, 3, 3, 2, 4, 99), 5, (3, 4, 5)),
        ((1,), 1, (1,)),
        ((1, 2), 0, (0,)),
    ],
)
def test_the_last_stage_asks_everybody(
    stages: tuple[int, ...], invited: int, sizes: tuple[int, ...]
) -> None:
    assert stage_sizes(stages, invited) == sizes


@given(st.lists(st.integers(0, 60), max_size=limits.STAGES - 1), st.integers(0, limits.COMMITTEE))
def test_stages_grow_and_stay_within_the_limit(stages: list[int], invited: int) -> None:
    sizes = stage_sizes(stages, invited)
    assert list(sizes) == sorted(set(sizes))
    assert sizes[-1] == invited
    assert len(sizes) <= limits.STAGES
    assert stage_sizes(sizes[:-1], sizes[-1]) == sizes, "said twice is said once"


def test_it_stops_where_the_first_stage_is_sure() -> None:
    swarm = holds(staged(honest(8), SOON).run())
    assert swarm.winner == "42"
    assert asked(swarm) == seats(swarm) == names(0, 1, 2)
    assert core(swarm).stages == (3, 5, 8)
    assert core(swarm).earlier == ()
    assert all((peer.machine is None) == (peer.name not in names(0, 1, 2))
               for peer in swarm.peers.values())  # fmt: skip


def test_it_asks_more_while_there_is_doubt() -> None:
    """The first three cannot tell; the next two can."""
    peers = [Peer(f"p{n}", ("42", "41")[n % 2]) for n in range(8)]
    for peer in peers[3:]:
        peer.judge = knows("42", 1.0)
    swarm = holds(staged(peers, changed(UNCALIBRATED, stop=600_000)).run())
    assert swarm.winner == "42"
    assert asked(swarm) == seats(swarm) == names(0, 1, 2, 3, 4)
    assert core(swarm).stages == (3, 5, 8)
    (earlier,) = core(swarm).earlier
    assert core(swarm).roster != earlier
    assert swarm.result.shares[swarm.result.winner or 0] >= 600_000


def test_without_a_threshold_all_stages_take_place() -> None:
    swarm = holds(staged(honest(8)).run())
    assert swarm.winner == "42"
    assert seats(swarm) == names(*range(8))
    assert len(core(swarm).earlier) == 2
    assert swarm.faults == {}
    assert all(peer.finished == ["closed: answer"] for peer in swarm.peers.values())
    rosters = [event.peers for event in swarm.events if isinstance(event, progress.RosterFixed)]
    assert [len(peers) for peers in rosters] == [3, 5, 8]
    opened = [(one.stage, len(one.peers)) for one in swarm.events
              if isinstance(one, progress.StageOpened)]  # fmt: skip
    assert opened == [(1, 2), (2, 3)]


def test_the_decision_is_that_of_the_last_stage() -> None:
    """Its own Ballots, on all answers, as if all had been asked at once."""
    staged_result = staged(honest(8)).run().result
    at_once = VirtualSwarm(honest(8), rule=NEVER).run().result
    assert staged_result.scores == pytest.approx(at_once.scores, abs=2)


def test_unanimity_of_unknown_peers_is_not_enough() -> None:
    peers = [Peer(f"p{n}", "42" if n < 3 else "41") for n in range(8)]
    swarm = holds(staged(peers, SOON).run())
    assert len(core(swarm).standings) > 3


def test_unanimity_of_proven_peers_may_be() -> None:
    peers = [Peer(f"p{n}", "42") for n in range(8)]
    proven = {peer.name: standing(peer.name, 95, 100, 95, 100) for peer in peers}
    rule = changed(DEFAULT_WEIGHTED, calibration_rounds=40, stop=600_000, theta=(MICRO, 0, 0))
    swarm = holds(staged(peers, rule, standings=proven).run())
    assert asked(swarm) == names(0, 1, 2)
    assert swarm.result.confidence is not None
    assert swarm.result.confidence >= 600_000


def test_phases_add_up() -> None:
    swarm = staged(honest(8)).run()
    assert swarm.ended == pytest.approx(3 * (6 * 0.01 + 2 * 0.5))
    assert swarm.round.timing_ms() == pytest.approx(
        {"commit_ms": 1560, "reveal_ms": 60, "judge_ms": 1560, "total_ms": 3180}
    )


def test_both_at_once() -> None:
    swarm = holds(staged(honest(8), SOON, adaptive=True).run())
    assert swarm.winner == "42"
    assert core(swarm).adaptive


def test_the_journal_gives_the_same_file() -> None:
    swarm = staged(honest(8)).run()
    file, whole, opening = read(swarm.receipt)
    assert opening is not None
    assert rerun(swarm, opening.journal) == swarm.receipt
    assert staged(honest(8)).run().receipt == swarm.receipt
    timeless = changed(opening, journal=tuple(changed(entry, at=0) for entry in opening.journal))
    again = fold(whole, timeless, file.core.signer)
    assert again.core is not None
    assert changed(again.core, opening=whole.opening) == whole


# --- what is said to whom -------------------------------------------------------------------------


def _told(swarm: VirtualSwarm) -> dict[str, list[Message]]:
    """Run; the asker's messages to each peer, and the peer's own, in order."""
    told: dict[str, list[Message]] = {peer.name: [] for peer in swarm.peers.values()}
    to_peer, to_asker = swarm._to_peer, swarm._to_asker

    def down(peer: Peer, payload: bytes) -> None:
        told[peer.name].append(parse(payload).message)
        to_peer(peer, payload)

    def up(peer: Peer, payload: bytes) -> None:
        told[peer.name].append(parse(payload).message)
        to_asker(peer, payload)

    swarm._to_peer, swarm._to_asker = down, up  # type: ignore[method-assign]
    swarm.run()
    return told


def test_nobody_sees_an_answer_before_his_own_is_fixed() -> None:
    told = _told(staged(honest(8)))
    for name, messages in told.items():
        kinds = [type(message) for message in messages]
        assert kinds[:2] == [Invite, Commit], name
        assert kinds.index(Slate) > kinds.index(Commit)
        assert kinds.count(Invite) == kinds.count(Commit) == 1, "an answer is given once"
        assert kinds[-1] is Close
    assert len({encode(messages[0]) for messages in told.values()}) == 1, "all get one Invite"
    rosters = [m for m in told["p0"] if isinstance(m, Roster)]
    assert [roster.stage for roster in rosters] == [0, 1, 2]
    late = [m for m in told["p7"] if isinstance(m, Roster)]
    assert late == rosters[2:]


def test_each_stage_has_a_seed_of_its_own_that_nobody_knows_before() -> None:
    swarm = staged(honest(8))
    told = _told(swarm)
    invite = told["p0"][0]
    assert isinstance(invite, Invite)
    secrets = [m.secret for m in told["p0"] if isinstance(m, Slate)]
    assert len(set(secrets)) == 3
    assert [secret_hash(secret) for secret in secrets] == [invite.secret_hash, *secrets[:2]]
    assert secrets[-1] == swarm.plan.secret
    assert stage_secret(secrets[2], 2) == secrets[0]
    salts = {m.salt for m in told["p0"] if isinstance(m, Reveal)}
    assert len(salts) == 1, "an answer has one salt"
    rosters = [m.roster for m in told["p0"] if isinstance(m, Reveal)]
    assert len(set(rosters)) == 3, "and is shown anew under each Roster"


# --- faults ---------------------------------------------------------------------------------------


def _bad(number: int, **fields: object) -> list[Peer]:
    """Eight peers of whom one misbehaves; it is the fastest."""
    peers = honest(8)
    peers[number] = Peer(f"p{number}", "41", knows("42"), **{"latency": 0.001, **fields})  # type: ignore[arg-type]
    return peers


# The first of its stage, and how often it reveals: in each stage from its own on.
EACH = pytest.mark.parametrize("number", [0, 3, 5])


@EACH
@pytest.mark.parametrize(
    ("state", "here", "later"),
    [
        ("INVITED", "commit/no-commit", ""),
        ("ANSWERING", "commit/no-commit", ""),
        ("COMMITTED", "reveal/no-reveal", ""),
        ("REVEALED", "judge/no-ballot", "reveal/no-reveal"),
        ("JUDGING", "judge/no-ballot", "reveal/no-reveal"),
        ("VOTED", "", "reveal/no-reveal"),
    ],
)
def test_a_peer_that_dies_in_any_stage(number: int, state: str, here: str, later: str) -> None:
    """What it owes in its stage, and in those after it."""
    swarm = holds(staged(_bad(number, dies_when=state)).run())
    assert swarm.winner == "42"
    owed = here if number == 5 else f"{here} {later}".strip()
    assert swarm.faults == ({f"p{number}": owed} if owed else {})


@pytest.mark.parametrize("number", [0, 3])
def test_who_is_silent_is_waited_for_once(number: int) -> None:
    swarm = holds(staged(_bad(number, dies_when="ANSWERING")).run())
    assert 10.0 < swarm.ended < 14.0


@EACH
def test_a_peer_that_declines(number: int) -> None:
    peers = _bad(number)
    peers[number].answer = None
    swarm = holds(staged(peers).run())
    assert swarm.faults == {f"p{number}": "commit/declined"}
    assert seats(swarm) == names(*range(8)) - {f"p{number}"}


@EACH
@pytest.mark.parametrize(
    ("kind", "late", "fault"),
    [(Commit, 9.7, "commit/late-commit"), (Reveal, 2.2, "reveal/late-reveal")],
)
def test_what_comes_late(number: int, kind: type[Message], late: float, fault: str) -> None:
    """Late is out, in whatever stage; the next Roster is without it."""
    swarm = holds(staged(_bad(number, late={kind: late})).run())
    assert swarm.faults == {f"p{number}": fault}
    assert (f"p{number}" in seats(swarm)) == (kind is Reveal and number == 5)


def test_a_commit_that_comes_a_stage_late() -> None:
    """It is late though the others of the next stage still answer."""
    peers = _bad(0, late={Commit: 10.1})
    for peer in peers[1:3]:
        peer.thinks = 0.01
    peers[0].thinks = 0.0
    swarm = holds(staged(peers).run())
    assert swarm.faults == {"p0": "commit/late-commit"}


def test_a_reveal_that_comes_a_stage_late() -> None:
    """For the Roster of the stage before: it is late, not before its time."""
    peers = _bad(0, late={Reveal: 2.6})
    swarm = holds(staged(peers).run())
    assert swarm.faults == {"p0": "reveal/late-reveal"}
    (fault,) = core(swarm).faults
    assert fault.detail == "its Reveal came after the deadline"


def test_a_ballot_that_comes_a_stage_late() -> None:
    """It is noted, and its judge takes part in the next stage."""
    peers = _bad(0)
    late = [True]

    def rewrite(peer: Peer, message: Message) -> list[Message | bytes]:
        if late:
            late.clear()
            swarm.at(10.2, lambda: swarm._to_asker(peer, encode(seal(peer.signer, message))))
            return []
        return [message]

    peers[0].rewrite[Ballot] = rewrite
    swarm = staged(peers)
    holds(swarm.run())
    assert swarm.faults == {"p0": "judge/late-ballot judge/no-ballot"}
    assert "p0" in seats(swarm)


Twist = Callable[[Peer, Message], "list[Message | bytes]"]
LIES: dict[str, tuple[type[Message], Twist, str]] = {
    "two commits": (
        Commit, lambda p, m: [m, changed(m, commitment=bytes(32))], "commit/equivocation"),
    "another answer": (Reveal, lambda p, m: [changed(m, answer="42")], "reveal/commit-mismatch"),
    "another roster": (Reveal, lambda p, m: [changed(m, roster=bytes(32))],
        "reveal/commit-mismatch"),
    "two reveals": (Reveal, lambda p, m: [m, changed(m, answer="42")], "reveal/equivocation"),
    "two ballots": (Ballot, lambda p, m: [m, changed(m, rows=m.rows[::-1])],  # type: ignore[attr-defined]
        "judge/equivocation"),
    "another slate": (Ballot, lambda p, m: [changed(m, slate=bytes(32))], "judge/bad-ballot"),
    "a ballot for a reveal": (
        Reveal, lambda p, m: [Ballot(m.round, bytes(32), 0, bytes(32), ())],  # type: ignore[attr-defined]
        "reveal/malformed"),
    "garbage": (Commit, lambda p, m: [b"\xc1"], "commit/malformed"),
}  # fmt: skip


@EACH
@pytest.mark.parametrize("lie", LIES)
def test_who_lies_is_not_in_the_next_roster(lie: str, number: int) -> None:
    kind, rewrite, fault = LIES[lie]
    swarm = holds(staged(_bad(number, rewrite={kind: rewrite})).run())
    assert swarm.winner == "42"
    assert swarm.faults == {f"p{number}": fault}
    listed = kind is not Commit and number == 5
    assert (f"p{number}" in seats(swarm)) == listed


@pytest.mark.parametrize("kind", [Commit, Reveal, Ballot])
def test_a_second_message_a_stage_later_is_equivocation(kind: type[Message]) -> None:
    peers = _bad(0)
    kept: list[Message] = []
    peers[0].rewrite[kind] = lambda peer, message: (kept.append(message), [message])[1]
    swarm = staged(peers)

    def again() -> None:
        fields = {
            Commit: {"commitment": bytes(32)}, Reveal: {"answer": "42"}, Ballot: {"rows": ()},
        }[kind]  # fmt: skip
        second = changed(kept[0], **fields)
        swarm._to_asker(peers[0], encode(seal(peers[0].signer, second)))

    swarm.on[progress.StageOpened] = again
    holds(swarm.run())
    assert swarm.faults == {"p0": "commit/equivocation"}
    assert "p0" not in seats(swarm)


@pytest.mark.parametrize("kind", [Reveal, Ballot])
def test_a_message_for_no_stage_at_all_is_before_its_time(kind: type[Message]) -> None:
    peers = _bad(0)
    swarm = staged(peers)
    message = {
        Reveal: Reveal(swarm.round.round_id, b"\x05" * 32, bytes(32), "42"),
        Ballot: Ballot(swarm.round.round_id, b"\x05" * 32, 0, bytes(32), ()),
    }[kind]
    swarm.on[progress.StageOpened] = lambda: swarm._to_asker(
        peers[0], encode(seal(peers[0].signer, message))
    )
    holds(swarm.run())
    assert swarm.faults == {"p0": "commit/malformed"}


def test_who_is_not_asked_yet_is_not_heard() -> None:
    swarm = staged(honest(8))
    stranger = swarm.peers[signer("p7").peer]
    assert not swarm.round.hears(stranger.id)
    early = Commit(swarm.round.round_id, bytes(32), Model("", "", ""))
    swarm.round.receive(parse(encode(seal(stranger.signer, early))), 0.1)
    swarm.round.broke(stranger.id, "lost", "gone", 0.1)
    holds(swarm.run())
    assert swarm.faults == {}
    assert "p7" in seats(swarm)


@EACH
@pytest.mark.parametrize("when", [progress.StageOpened, progress.RosterFixed, progress.Revealed])
def test_a_link_that_breaks_in_any_stage(number: int, when: type[progress.Event]) -> None:
    peers = _bad(number)
    swarm = staged(peers)
    swarm.on[when] = lambda: swarm.broke(peers[number])
    holds(swarm.run())
    assert swarm.winner == "42"
    assert set(swarm.faults) <= {f"p{number}"}
    if swarm.faults:
        assert swarm.faults[f"p{number}"].endswith("/lost")


def test_nobody_new_joins() -> None:
    """Nothing to judge anew: the stage before stands, whatever its doubt."""
    peers = honest(8)
    for peer in peers[3:]:
        peer.answer = None
    swarm = holds(staged(peers).run())
    assert seats(swarm) == names(0, 1, 2)
    assert asked(swarm) == names(*range(8))
    assert core(swarm).earlier == ()
    assert swarm.winner == "42"
    assert swarm.ended < 3.0, "and nobody waits for it"
    assert all(peer.finished == ["closed: answer"] for peer in peers[:3])


def test_a_stage_in_the_middle_joins_nobody() -> None:
    peers = honest(8)
    for peer in peers[3:5]:
        peer.answer = None
    swarm = holds(staged(peers).run())
    assert seats(swarm) == names(0, 1, 2, 5, 6, 7)
    assert len(core(swarm).earlier) == 1
    rosters = [event.stage for event in swarm.events if isinstance(event, progress.RosterFixed)]
    assert rosters == [0, 1]


def test_too_few_answers_ask_more_before_any_is_shown() -> None:
    swarm = staged(honest(8), SOON, min_answers=4)
    told = _told(swarm)
    holds(swarm)
    assert seats(swarm) >= names(0, 1, 2, 3, 4)
    first = next(m for m in told["p0"] if isinstance(m, Roster))
    assert first.stage == 0
    assert first.previous == ZERO_DIGEST
    assert len(first.entries) == 5


def test_too_few_in_all_stages_is_a_partial_round() -> None:
    peers = honest(8, dies_when="ANSWERING")
    swarm = holds(staged(peers).run())
    assert swarm.result.outcome == "partial"
    assert swarm.ended == pytest.approx(30.0), "three times the time to answer"
    assert set(swarm.faults.values()) == {"commit/no-commit"}
    assert asked(swarm) == names(*range(8))


def test_too_few_reveals_ask_more() -> None:
    peers = honest(8)
    for peer in peers[:3]:
        peer.dies_when = "COMMITTED"
    swarm = holds(staged(peers, SOON, min_answers=2).run())
    assert swarm.winner == "42"
    assert swarm.faults == {f"p{n}": "reveal/no-reveal" for n in range(3)}
    assert core(swarm).judging is not None
    assert core(swarm).judging.missing_reveals == 3


def test_everybody_dies_after_the_first_stage() -> None:
    """What was found is lost with its judges; the receipt says so."""
    peers = honest(8)
    swarm = staged(peers, min_answers=2)
    swarm.on[progress.StageOpened] = lambda: [
        setattr(peer, "dies_when", peer.machine.state.name) for peer in peers[:3] if peer.machine
    ]
    for peer in peers[3:]:
        peer.dies_when = "COMMITTED"
    holds(swarm.run())
    assert swarm.result.outcome == "partial"
    assert set(swarm.faults.values()) == {"reveal/no-reveal"}


def test_a_flood_over_all_stages_is_cut_off() -> None:
    peers = _bad(0)

    def flood() -> None:
        slate = seal(signer("asker"), Close(swarm.round.round_id, "", bytes(32))).digest
        for number in range(2 * limits.ENVELOPES_PER_PEER):
            ballot = Ballot(swarm.round.round_id, slate, 0, number.to_bytes(32, "big"), ())
            swarm._to_asker(peers[0], encode(seal(peers[0].signer, ballot)))

    swarm = staged(peers)
    swarm.on[progress.StageOpened] = flood
    holds(swarm.run())
    _, _, opening = read(swarm.receipt)
    assert opening is not None
    heard = [one for one in opening.journal if isinstance(one, Heard)]
    assert sum(one.envelope.signer == peers[0].id for one in heard) <= limits.ENVELOPES_PER_PEER + 1


def test_an_honest_peer_stays_under_the_limit_of_messages() -> None:
    peers = [Peer(f"p{n}", str(n % 4), knows("2")) for n in range(limits.STAGES + 4)]
    swarm = staged(peers, adaptive=True, stages=tuple(range(5, limits.STAGES + 4)))
    assert len(swarm.round._staging) == limits.STAGES
    holds(swarm.run())
    assert swarm.faults == {}


# --- cancelling, and an asker that dies ---------------------------------------------------------

MOMENTS = [
    (progress.Invited, 0), (progress.Committed, 0), (progress.RosterFixed, 0),
    (progress.Revealed, 1), (progress.ClassesFound, 0), (progress.BallotCast, 1),
    (progress.StageOpened, 0), (progress.Committed, 4), (progress.RosterFixed, 1),
    (progress.Revealed, 5), (progress.ClassesFound, 1), (progress.BallotCast, 5),
    (progress.StageOpened, 1), (progress.Committed, 6), (progress.RosterFixed, 2),
    (progress.Revealed, 12), (progress.ClassesFound, 2), (progress.BallotCast, 12),
]  # fmt: skip
"""Events by type, and which of them: each phase of each stage."""
moments = pytest.mark.parametrize(
    ("when", "nth"), MOMENTS, ids=[f"{kind.__name__} {nth}" for kind, nth in MOMENTS]
)


def _spread() -> list[Peer]:
    peers = honest(8)
    for number, peer in enumerate(peers):
        peer.latency = 0.01 + number / 1000
    return peers


def _at(
    swarm: VirtualSwarm, when: type[progress.Event], nth: int, action: Callable[[], None]
) -> None:
    def count(left: int) -> None:
        if left == 0:
            action()
        else:
            swarm.on[when] = lambda: count(left - 1)

    swarm.on[when] = lambda: count(nth)


@moments
def test_it_can_be_cancelled_at_any_time(when: type[progress.Event], nth: int) -> None:
    swarm = staged(_spread())
    _at(swarm, when, nth, swarm.cancel)
    holds(swarm.run())
    assert swarm.result.outcome == "cancelled"
    for peer in swarm.peers.values():
        assert (peer.finished == ["closed: cancelled"]) == (peer.name in asked(swarm))


@moments
def test_nobody_waits_for_ever_for_an_asker_that_died(when: type[progress.Event], nth: int) -> None:
    swarm = staged(_spread())

    def die() -> None:
        swarm._heap.clear()
        swarm._pump_round = lambda: None  # type: ignore[method-assign]
        swarm._to_asker = lambda peer, payload: None  # type: ignore[method-assign]
        swarm.round.timer_at = lambda: None  # type: ignore[method-assign]

    _at(swarm, when, nth, die)
    swarm.run()
    phases = swarm.plan.phases
    longest = (3 * phases.commit + phases.reveal + phases.judge) / 1000 + 5.0
    for peer in swarm.peers.values():
        if peer.machine is not None:
            assert len(peer.finished) == 1
            assert peer.machine.timer_at() is None
    assert swarm.now <= 4.0 + longest


def test_a_stage_that_runs_out_of_time_is_in_the_journal() -> None:
    swarm = staged(honest(8, dies_when="INVITED")).run()
    holds(swarm)
    _, _, opening = read(swarm.receipt)
    assert opening is not None
    assert [type(entry) for entry in opening.journal] == [Expired] * 3


def test_a_decline_after_a_commit_is_equivocation_in_the_next_stage() -> None:
    peers = _bad(0)
    swarm = staged(peers)
    swarm.on[progress.StageOpened] = lambda: swarm._to_asker(
        peers[0], encode(seal(peers[0].signer, Decline(swarm.round.round_id, "busy", "")))
    )
    holds(swarm.run())
    assert swarm.faults == {"p0": "commit/equivocation"}
