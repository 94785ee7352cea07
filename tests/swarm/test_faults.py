"""Whatever one peer does, the round goes on without it, names it, and ends in time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocol import limits
from protocol.codec import encode
from protocol.messages import (
    MICRO,
    Ballot,
    Commit,
    Decline,
    Message,
    Model,
    Reveal,
    Row,
    parse,
    seal,
)
from protocol.receipt import Heard, read
from swarm import progress
from swarm.round import Round
from swarm.seat import State
from tests.swarm.builders import changed
from tests.swarm.test_round import ANSWERS, holds, honest
from tests.swarm.virtual import Peer, Rewrite, VirtualSwarm, knows, signer

SIZES = (3, 5, 9, 12)
everywhere = pytest.mark.parametrize("count", SIZES)


def bad_peer(**fields: object) -> Peer:
    """The one that misbehaves. It is the fastest, so that it is never the one waited for."""
    fields = {"latency": 0.001, **fields}
    return Peer("bad", "41", knows("42"), **fields)  # type: ignore[arg-type]


def among(count: int, bad: Peer, **fields: object) -> VirtualSwarm:
    """``count`` peers, one of them ``bad``."""
    return VirtualSwarm([*honest(count - 1), bad], **fields)  # type: ignore[arg-type]


def _still_answers(swarm: VirtualSwarm) -> VirtualSwarm:
    holds(swarm)
    assert swarm.result.outcome == "answer"
    assert swarm.winner == "42"
    assert set(swarm.faults) <= {"bad"}, "only the bad peer is named"
    return swarm


# --- silence ----------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ("INVITED", "commit/no-commit"),
        ("ANSWERING", "commit/no-commit"),
        ("COMMITTED", "reveal/no-reveal"),
        ("REVEALED", "judge/no-ballot"),
        ("JUDGING", "judge/no-ballot"),
        ("VOTED", ""),
        ("JUDGED", ""),
    ],
)
def test_a_peer_that_dies(count: int, state: str, fault: str) -> None:
    swarm = _still_answers(among(count, bad_peer(dies_when=state)).run())
    if state == "VOTED" and count == 12:
        fault = "judge/no-ballot"  # it died after the first of two waves
    assert swarm.faults == ({"bad": fault} if fault else {})
    opened = swarm.round.opened
    assert opened is not None
    assert len(opened.peers) == count - (fault == "commit/no-commit")
    assert len(opened.judges) == count - (fault != "" and not fault.startswith("judge"))


@everywhere
def test_a_peer_that_declines(count: int) -> None:
    bad = bad_peer()
    bad.answer = None
    swarm = _still_answers(among(count, bad).run())
    assert swarm.faults == {"bad": "commit/declined"}
    (fault,) = swarm.round.core.faults  # type: ignore[union-attr]
    assert fault.detail == "failed: no idea"
    assert swarm.ended < 2.0, "nobody waits for it"
    assert bad.finished == ["the model could not answer: no idea"]


# --- too late ---------------------------------------------------------------------------------


@everywhere
def test_a_commit_that_comes_late(count: int) -> None:
    """The commit phase ends at 10 s; this one arrives at 10.2, while others judge."""
    swarm = _still_answers(among(count, bad_peer(late={Commit: 9.7})).run())
    assert swarm.faults == {"bad": "commit/late-commit"}


@everywhere
def test_a_decline_that_comes_late(count: int) -> None:
    bad = bad_peer(late={Decline: 9.7})
    bad.answer = None
    swarm = _still_answers(among(count, bad).run())
    assert swarm.faults == {"bad": "commit/late-commit"}


@everywhere
def test_a_reveal_that_comes_late(count: int) -> None:
    """Its answer is missing, and m missing Reveals are m bits of choice for the asker."""
    swarm = _still_answers(among(count, bad_peer(late={Reveal: 2.2})).run())
    assert swarm.faults == {"bad": "reveal/late-reveal"}
    assert swarm.round.core.judging.missing_reveals == 1  # type: ignore[union-attr]


def test_ballots_that_come_late() -> None:
    """After the first of two waves: late for it, and again for the second."""
    swarm = _still_answers(among(12, bad_peer(late={Ballot: 10.1})).run())
    assert swarm.faults == {"bad": "judge/late-ballot judge/no-ballot"}
    waves = swarm.round.core.judging.waves  # type: ignore[union-attr]
    assert [len(wave.ballots) for wave in waves] == [11, 11]


@pytest.mark.parametrize("count", [3, 5, 9])
def test_a_ballot_after_the_end_is_missing(count: int) -> None:
    swarm = _still_answers(among(count, bad_peer(late={Ballot: 10.1})).run())
    assert swarm.faults == {"bad": "judge/no-ballot"}


def test_a_slow_model_abstains_from_the_wave_by_silence() -> None:
    """Its own clock stops it; it keeps quiet and hears the end."""
    bad = bad_peer()
    swarm = among(3, bad)
    swarm.on[progress.ClassesFound] = lambda: setattr(bad, "thinks", 11.0)
    _still_answers(swarm.run())
    assert swarm.faults == {"bad": "judge/no-ballot"}
    assert bad.finished == ["closed: answer"]


# --- lies -------------------------------------------------------------------------------------


def _twice(**fields: object) -> Rewrite:
    """The message, and another of the same type."""
    return lambda peer, message: [message, changed(message, **fields)]


def _instead(**fields: object) -> Rewrite:
    return lambda peer, message: [changed(message, **fields)]


def _other_rows(change: Callable[[Row], Row]) -> Rewrite:
    def rewrite(peer: Peer, message: Message) -> list[Message | bytes]:
        assert isinstance(message, Ballot)
        return [changed(message, rows=tuple(change(row) for row in message.rows))]

    return rewrite


def _two_ballots(peer: Peer, message: Message) -> list[Message | bytes]:
    assert isinstance(message, Ballot)
    return [message, changed(message, rows=tuple(changed(r, p=MICRO) for r in message.rows))]


LIES: dict[str, tuple[type[Message], Rewrite, str]] = {
    "two commits": (Commit, _twice(commitment=bytes(32)), "commit/equivocation"),
    "two commits that differ in the model": (
        Commit, _twice(model=Model("x", "", "")), "commit/equivocation"),
    "a commit and a decline": (
        Commit, lambda p, m: [m, Decline(m.round, "busy", "")], "commit/declined"),  # type: ignore[attr-defined]
    "another answer than committed": (Reveal, _instead(answer="42"), "reveal/commit-mismatch"),
    "another salt than committed": (Reveal, _instead(salt=bytes(32)), "reveal/commit-mismatch"),
    "a reveal for another roster": (Reveal, _instead(roster=bytes(32)), "reveal/commit-mismatch"),
    "two reveals": (Reveal, _twice(answer="42"), "reveal/equivocation"),
    "two ballots": (Ballot, _two_ballots, "judge/equivocation"),
    "a ballot on other pairs": (
        Ballot, _other_rows(lambda r: Row(r.second, r.first, r.p)), "judge/bad-ballot"),
    "a ballot on pairs that there are not": (
        Ballot, _other_rows(lambda r: Row(40, 41, r.p)), "judge/bad-ballot"),
    "a ballot without rows": (Ballot, _instead(rows=()), "judge/bad-ballot"),
    "a ballot for another slate": (Ballot, _instead(slate=bytes(32)), "judge/bad-ballot"),
    "a ballot after no such wave": (Ballot, _instead(follows=b"\x01" * 32), "judge/bad-ballot"),
    "a ballot for a later wave": (Ballot, _instead(wave=7), "judge/bad-ballot"),
    "another round's id in the commit": (Commit, _instead(round=bytes(32)), "commit/no-commit"),
    "another round's id in the reveal": (Reveal, _instead(round=bytes(32)), "reveal/no-reveal"),
    "another round's id in the ballot": (Ballot, _instead(round=bytes(32)), "judge/no-ballot"),
    "a reveal before its time": (
        Commit, lambda p, m: [Reveal(m.round, bytes(32), bytes(32), "42")], "commit/malformed"),  # type: ignore[attr-defined]
    "a ballot before its time": (
        Reveal, lambda p, m: [Ballot(m.round, bytes(32), 0, bytes(32), ())], "reveal/malformed"),  # type: ignore[attr-defined]
    "garbage for a commit": (Commit, lambda p, m: [b"\xc1 garbage"], "commit/malformed"),
    "garbage for a reveal": (Reveal, lambda p, m: [b""], "reveal/malformed"),
    "garbage for a ballot": (Ballot, lambda p, m: [bytes(2000)], "judge/malformed"),
    "a forged signature": (
        Commit,
        lambda p, m: [encode(changed(seal(p.signer, m), signature=bytes(64)))],
        "commit/malformed",
    ),
    "the message of a stranger": (
        Commit, lambda p, m: [encode(seal(signer("stranger"), m))], "commit/no-commit"),
}  # fmt: skip


@everywhere
@pytest.mark.parametrize("lie", LIES)
def test_a_peer_that_lies(count: int, lie: str) -> None:
    kind, rewrite, fault = LIES[lie]
    swarm = _still_answers(among(count, bad_peer(rewrite={kind: rewrite})).run())
    assert swarm.faults == {"bad": fault}
    if fault.startswith("commit"):
        assert swarm.round.opened is not None
        assert signer("bad").peer not in swarm.round.opened.peers


@everywhere
@pytest.mark.parametrize("kind", [Commit, Reveal, Ballot])
def test_repeats_are_harmless(count: int, kind: type[Message]) -> None:
    rewrite: Rewrite = lambda peer, message: [message] * 3  # noqa: E731
    swarm = _still_answers(among(count, bad_peer(rewrite={kind: rewrite})).run())
    assert swarm.faults == {}
    _, _, opening = read(swarm.receipt)
    assert opening is not None
    assert len(opening.journal) == 3 * count + (count if count == 12 else 0)


@everywhere
def test_an_answer_over_the_limit_is_missing_never_truncated(count: int) -> None:
    """A peer that thinks it may say more than the Invite allows, and does."""
    bad = bad_peer()
    bad.answer = "9" * 9
    swarm = among(count, bad, answer_bytes=8)

    def deceive() -> None:
        assert bad.machine is not None
        bad.machine._invite = changed(bad.machine._invite, answer_bytes=100)

    swarm.at(0.1, deceive)
    _still_answers(swarm.run())
    assert swarm.faults == {"bad": "reveal/oversize"}
    assert swarm.round.opened is not None
    assert None in swarm.round.opened.texts


def _late_second(kind: type[Message], **fields: object) -> VirtualSwarm:
    """A second, different message of a type, sent when the next phase has begun."""
    bad = bad_peer()
    swarm = among(5, bad)
    kept: list[Message] = []
    bad.rewrite[kind] = lambda peer, message: (kept.append(message), [message])[1]
    after = {Commit: progress.RosterFixed, Reveal: progress.ClassesFound}[kind]
    swarm.on[after] = lambda: swarm._to_asker(
        bad, encode(seal(bad.signer, changed(kept[0], **fields)))
    )
    return _still_answers(swarm.run())


def test_a_second_commit_in_the_next_phase_is_equivocation() -> None:
    swarm = _late_second(Commit, commitment=bytes(32))
    assert swarm.faults == {"bad": "reveal/equivocation"}


def test_a_second_reveal_in_the_next_phase_is_equivocation() -> None:
    swarm = _late_second(Reveal, answer="42")
    assert swarm.faults == {"bad": "judge/equivocation"}


def test_a_second_ballot_of_a_closed_wave_is_equivocation() -> None:
    bad = bad_peer()
    bad.rewrite[Ballot] = lambda peer, message: (
        [message]
        if message.wave == 0  # type: ignore[attr-defined]
        else [changed(message, wave=0, follows=bytes(32))]
    )
    swarm = _still_answers(among(12, bad).run())
    assert swarm.faults == {"bad": "judge/equivocation"}


def test_a_reveal_without_a_commit_is_malformed() -> None:
    """Whoever missed the commit phase cannot come in later."""
    bad = bad_peer(dies_when="ANSWERING")
    swarm = among(3, bad)
    swarm.on[progress.RosterFixed] = lambda: swarm._to_asker(
        bad, encode(seal(bad.signer, Reveal(swarm.round.round_id, bytes(32), bytes(32), "42")))
    )
    _still_answers(swarm.run())
    assert swarm.faults == {"bad": "commit/no-commit reveal/malformed"}


def test_a_ballot_of_who_did_not_reveal_is_refused() -> None:
    bad = bad_peer(dies_when="COMMITTED")
    swarm = among(3, bad)
    swarm.on[progress.ClassesFound] = lambda: swarm._to_asker(
        bad,
        encode(seal(bad.signer, Ballot(swarm.round.round_id, bytes(32), 0, bytes(32), ()))),
    )
    _still_answers(swarm.run())
    assert swarm.faults == {"bad": "judge/bad-ballot reveal/no-reveal"}


def test_a_flood_is_cut_off() -> None:
    """Whoever is late once is not heard again: one message of the flood is kept."""
    bad = bad_peer(dies_when="ANSWERING")
    swarm = among(3, bad)

    def flood() -> None:
        for number in range(2 * limits.ENVELOPES_PER_PEER):
            commit = Commit(swarm.round.round_id, bytes([number]) * 32, Model("", "", ""))
            swarm._to_asker(bad, encode(seal(bad.signer, commit)))

    swarm.on[progress.RosterFixed] = flood
    _still_answers(swarm.run())
    assert swarm.faults == {"bad": "commit/late-commit"}
    _, _, opening = read(swarm.receipt)
    assert opening is not None
    heard = [entry for entry in opening.journal if isinstance(entry, Heard)]
    assert sum(entry.envelope.signer == bad.id for entry in heard) == 1


def test_a_flood_of_ballots_for_a_closed_wave_is_cut_off() -> None:
    """Being late in one wave does not end it, so there the number of messages does."""
    bad = bad_peer()

    def flood(peer: Peer, message: Message) -> list[Message | bytes]:
        assert isinstance(message, Ballot)
        if message.wave == 0:
            return []
        many = range(2 * limits.ENVELOPES_PER_PEER)
        return [changed(message, wave=0, follows=bytes([number]) * 32) for number in many]

    bad.rewrite[Ballot] = flood
    swarm = _still_answers(among(12, bad).run())
    assert swarm.faults == {"bad": "judge/late-ballot judge/malformed judge/no-ballot"}
    _, _, opening = read(swarm.receipt)
    assert opening is not None
    heard = [entry for entry in opening.journal if isinstance(entry, Heard)]
    assert sum(entry.envelope.signer == bad.id for entry in heard) == limits.ENVELOPES_PER_PEER + 1


# --- links ------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("kind", ["lost", "unsent", "malformed"])
@pytest.mark.parametrize(
    ("when", "phase"),
    [
        (progress.Invited, "commit"),
        (progress.Committed, "commit"),
        (progress.RosterFixed, "reveal"),
        (progress.Revealed, "reveal"),
        (progress.ClassesFound, "judge"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_link_that_breaks(count: int, kind: str, when: type, phase: str) -> None:
    bad = bad_peer(latency=0.05)
    swarm = among(count, bad)
    swarm.on[when] = lambda: swarm.broke(bad, kind, "x" * 500)
    _still_answers(swarm.run())
    assert swarm.faults == {"bad": f"{phase}/{kind}"}
    (fault,) = swarm.round.core.faults  # type: ignore[union-attr]
    assert fault.detail == "x" * limits.TEXT_CHARS
    assert swarm.ended < 3.0, "nobody waits for it"


def test_a_link_that_breaks_between_commit_and_roster_costs_the_seat() -> None:
    bad = bad_peer()
    swarm = among(3, bad)
    swarm.on[progress.Committed] = lambda: swarm.broke(bad)
    _still_answers(swarm.run())
    assert swarm.faults == {"bad": "commit/lost"}
    assert swarm.round.opened is not None
    assert len(swarm.round.opened.peers) == 2


def test_a_link_that_breaks_after_the_reveal_costs_the_ballot_only() -> None:
    bad = bad_peer()
    swarm = among(3, bad)
    swarm.on[progress.Revealed] = lambda: swarm.broke(bad)
    _still_answers(swarm.run())
    assert swarm.faults == {"bad": "reveal/lost"}
    assert swarm.round.opened is not None
    assert len(swarm.round.opened.judges) == 3


def test_a_link_that_breaks_after_the_last_ballot_is_no_fault() -> None:
    bad = bad_peer()
    swarm = among(3, bad)
    swarm.on[progress.BallotCast] = lambda: swarm.broke(bad)
    _still_answers(swarm.run())
    assert swarm.faults == {}
    assert all(len(w.ballots) == 3 for w in swarm.round.core.judging.waves)  # type: ignore[union-attr]


def test_an_expelled_peer_is_not_heard_again() -> None:
    bad = bad_peer()
    bad.answer = None
    swarm = among(3, bad)
    swarm.on[progress.RosterFixed] = lambda: swarm.broke(bad)
    _still_answers(swarm.run())
    assert swarm.faults == {"bad": "commit/declined"}


# --- many at once -----------------------------------------------------------------------------


def test_every_peer_may_fail_in_its_own_way() -> None:
    peers = honest(3)
    expected = {}
    for number, (name, (kind, rewrite, fault)) in enumerate(sorted(LIES.items())):
        peers.append(
            Peer(name, ANSWERS[number % 5], knows("42"), latency=0.001, rewrite={kind: rewrite})
        )
        expected[name] = fault
    swarm = holds(VirtualSwarm(peers).run())
    assert swarm.winner == "42"
    assert swarm.faults == expected


def test_a_round_of_liars_ends_too() -> None:
    rewrite = LIES["another answer than committed"][1]
    swarm = holds(VirtualSwarm([bad_peer(rewrite={Reveal: rewrite})]).run())
    assert swarm.result.outcome == "partial"
    assert swarm.faults == {"bad": "reveal/commit-mismatch"}


def test_faults_are_in_order_and_told_once() -> None:
    swarm = VirtualSwarm(honest(4, dies_when="COMMITTED")).run()
    core = swarm.round.core
    assert core is not None
    keys = [(fault.peer, fault.kind) for fault in core.faults]
    assert keys == sorted(keys)
    told = [event for event in swarm.events if isinstance(event, progress.Faulted)]
    assert len(told) == len(core.faults) == 4


def test_the_end_is_said_only_to_who_can_hear_it() -> None:
    peers = [*honest(2), Peer("declines", None), Peer("lost"), Peer("lies")]
    peers[4].rewrite[Commit] = LIES["two commits"][1]
    swarm = VirtualSwarm(peers)
    swarm.on[progress.Invited] = lambda: swarm.broke(peers[3])
    swarm.run()
    assert [peer.finished for peer in peers[:2]] == [["closed: answer"]] * 2
    assert peers[2].finished == ["the model could not answer: no idea"]
    assert peers[3].finished[0].startswith("gave up")
    assert peers[4].finished == ["closed: answer"], "it failed, but it is there"


def test_nothing_is_heard_once_the_round_is_over() -> None:
    swarm = VirtualSwarm(honest(2)).run()
    machine: Round = swarm.round
    peer = swarm.peers[signer("p0").peer]
    commit = Commit(machine.round_id, bytes(32), Model("", "", ""))
    machine.receive(parse(encode(seal(peer.signer, commit))), 99.0)
    machine.broke(peer.id, "lost", "gone", 99.0)
    machine.on_timer(1e9)
    assert machine.effects() == []
    assert machine.state is State.DONE
