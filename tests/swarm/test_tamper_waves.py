"""An asker that runs its waves and stages otherwise than the plan says, and signs all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import swarm.round
from protocol import limits
from protocol.messages import Ack, Ballot, Duel, Roster, WaveClose, ballot_set, opened, seal
from protocol.receipt import Core, Judging, Opening, read, write
from swarm.consensus import UNCALIBRATED
from swarm.duels import following
from swarm.seeded import Stream
from swarm.stage import Stage
from swarm.verify import verify
from tests.protocol.arbitrary import altered
from tests.swarm.builders import changed, signed
from tests.swarm.test_round import honest
from tests.swarm.virtual import Peer, VirtualSwarm, knows, signer, undecided

SURE, NEVER = (changed(UNCALIBRATED, stop=stop) for stop in (450_000, None))
KEYS = {who.peer: who for who in map(signer, ["asker", *(f"p{n}" for n in range(8))])}


def _run(rule: Any = NEVER, **fields: Any) -> VirtualSwarm:
    return VirtualSwarm(honest(fields.pop("count", 6)), rule=rule, **fields).run()


@cache
def waves() -> VirtualSwarm:
    """One stage of many waves."""
    return _run(adaptive=True, count=4)


@cache
def stages() -> VirtualSwarm:
    """Three Rosters, one wave each."""
    return _run(stages=(2, 3), count=4)


@cache
def both() -> VirtualSwarm:
    """Two stages of many waves: the first three cannot tell, and with six it is sure."""
    peers = [
        Peer(f"p{n}", ("42", "41", "40")[n % 3], undecided if n < 3 else knows("42", 1.0))
        for n in range(7)
    ]
    swarm = VirtualSwarm(peers, rule=SURE, adaptive=True, stages=(3, 6)).run()
    core, judging, _ = parts(swarm)
    assert len(core.earlier) == 1
    assert len(core.standings) == 6
    assert judging.stopped == "confident"
    return swarm


SWARMS: list[Callable[[], VirtualSwarm]] = [waves, stages, both]


def parts(swarm: VirtualSwarm) -> tuple[Core, Judging, Opening]:
    _, core, opening = read(swarm.receipt)
    assert core.judging is not None
    assert opening is not None
    return core, core.judging, opening


def problem(receipt: bytes) -> str:
    (found,) = verify(receipt).problems
    return found


def refused(swarm: VirtualSwarm, why: str) -> None:
    """With the opening and without."""
    assert why in problem(swarm.receipt)
    assert why in problem(write(read(swarm.receipt)[0].core, None))


# --- anybody --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", SWARMS)
def test_they_hold_as_they_are(make: Callable[[], VirtualSwarm]) -> None:
    report = verify(make().receipt)
    assert report.ok, report.problems
    assert verify(write(read(make().receipt)[0].core, None)).ok


def test_every_flipped_bit_is_refused() -> None:
    """One bit of each byte."""
    receipt = both().receipt
    stream = Stream(b"bits")
    for at in range(len(receipt)):
        flipped = bytearray(receipt)
        flipped[at] ^= 1 << stream.below(8)
        assert not verify(bytes(flipped)).ok, f"byte {at}"


@settings(max_examples=100)
@given(st.data())
def test_any_change_that_is_signed_anew_gets_a_report(data: st.DataObject) -> None:
    """Every key of the round in one hand. No crash; and no other result with the opening."""
    swarm = data.draw(st.sampled_from(SWARMS))()
    core, _, opening = parts(swarm)
    bent: Core = data.draw(altered(core, Core, KEYS))
    report = verify(signed(swarm, bent, opening))
    if report.ok:
        assert changed(bent, opening=core.opening) == core
    verify(signed(swarm, bent, None))


@settings(max_examples=60)
@given(st.data())
def test_any_other_opening_gets_a_report(data: st.DataObject) -> None:
    swarm = data.draw(st.sampled_from(SWARMS))()
    core, _, opening = parts(swarm)
    bent: Opening = data.draw(altered(opening, Opening, KEYS))
    verify(signed(swarm, core, bent))


# --- an asker whose machine is another ------------------------------------------------------------


@contextmanager
def running(**instead: Any) -> Iterator[None]:
    """Rounds in this block run with other functions; verification afterwards does not."""
    with pytest.MonkeyPatch.context() as patch:
        for name, function in instead.items():
            patch.setattr(swarm.round, name, function)
        yield


def test_waves_that_stop_too_early() -> None:
    with running(is_confident=lambda rule, result: True):
        forged = _run(adaptive=True)
    assert len(parts(forged)[1].waves) == 1
    refused(forged, "Judging stopped before it was done.")


def test_waves_that_stop_too_late() -> None:
    with running(is_confident=lambda rule, result: False):
        forged = _run(SURE, adaptive=True)
    refused(forged, "though it was done.")


def test_a_full_schedule_that_stops_too_late() -> None:
    with running(is_confident=lambda rule, result: False):
        forged = _run(SURE, count=12)
    refused(forged, "Judging went on after wave 0, though it was done.")


def test_waves_that_are_left_out() -> None:
    short = lambda pairing, case, result: None if pairing.wave else following(pairing, case, result)  # noqa: E731
    with running(following=short):
        forged = _run(adaptive=True)
    assert len(parts(forged)[1].waves) == 2
    refused(forged, "Judging stopped before it was done.")


def test_waves_of_the_asker_s_own_choice() -> None:
    """Every judge takes part in good faith, and every signature holds."""

    def chosen(pairing: Any, case: Any, result: Any) -> Any:
        after = following(pairing, case, result)
        return after and pairing.then((Duel(0, 1, limits.DUELS),))

    with running(following=chosen):
        forged = _run(adaptive=True)
    assert forged.faults == {}
    refused(forged, "The pairs after wave 0 do not follow from its ballots.")


def test_a_stage_that_ends_too_early() -> None:
    with running(is_confident=lambda rule, result: True):
        forged = _run(stages=(3,))
    assert len(parts(forged)[0].standings) == 3
    refused(forged, "No more peers were asked, though there was doubt.")


def test_a_stage_too_many() -> None:
    """Without the Ballots of the stage before, nobody can tell; they are in the opening."""
    with running(is_confident=lambda rule, result: False):
        forged = _run(SURE, stages=(3,))
    assert problem(forged.receipt).startswith("The replay differs from the receipt in: ")
    detached = verify(write(read(forged.receipt)[0].core, None))
    assert detached.ok
    assert "So is what the judges of earlier stages said." in detached.notes


def test_a_peer_that_is_left_out_of_the_next_roster() -> None:
    def choosy(key: Any, round_id: Any, seats: Any, earlier: Any, rule: Any) -> Stage:
        unloved = min(seat.peer for seat in seats if seat.stage == 0)
        kept = [seat for seat in seats if not earlier or seat.peer != unloved]
        return Stage(key, round_id, kept, earlier, rule)

    with running(Stage=choosy):
        forged = _run(stages=(3,))
    refused(forged, "was left out without a fault.")


@pytest.mark.parametrize("detached", [False, True], ids=["whole", "detached"])
def test_a_ballot_of_who_was_not_asked(detached: bool) -> None:
    """Even an empty one: it would make the receipt say that this judge took part."""
    made = _run(changed(UNCALIBRATED, stop=0), adaptive=True)
    core, judging, opening = parts(made)
    (wave,) = judging.waves
    voted = {ballot.signer for ballot in wave.ballots}
    idle = next(peer for peer in made.peers.values() if peer.id not in voted)
    empty = seal(idle.signer, Ballot(core.round, judging.slate, 0, bytes(32), ()))
    ballots = (*wave.ballots, empty)
    fixed = ballot_set(tuple(ballot.digest for ballot in ballots))
    close = seal(made.asker, WaveClose(core.round, judging.slate, 0, fixed, False))
    acks = (*judging.acks, seal(made.asker, Ack(core.round, empty.digest)))
    bent = changed(judging, waves=(changed(wave, close=close, ballots=ballots),), acks=acks)
    receipt = signed(made, changed(core, judging=bent), None if detached else opening)
    assert "is not on the pairs of the seed." in problem(receipt)


# --- an asker that bends its core -----------------------------------------------------------------

Change = Callable[[Core, Judging], Core]


def _resealed(core: Core, at: int, **fields: Any) -> Core:
    """With the close of a wave said otherwise."""
    assert core.judging is not None
    wave = core.judging.waves[at]
    close = opened(wave.close).message
    assert isinstance(close, WaveClose)
    bent = changed(wave, close=seal(signer("asker"), changed(close, **fields)))
    before, after = core.judging.waves[:at], core.judging.waves[at:][1:]
    return changed(core, judging=changed(core.judging, waves=(*before, bent, *after)))


def _chain(core: Core, **fields: Any) -> Core:
    """With the first Roster said otherwise, and the one after it made to follow."""
    first, *rest = core.earlier
    made = [seal(signer("asker"), changed(opened(first).message, **fields))]
    for envelope in (*rest, core.roster):
        assert envelope is not None
        roster = changed(opened(envelope).message, previous=made[-1].digest)
        made.append(seal(signer("asker"), roster))
    return changed(core, earlier=tuple(made[:-1]), roster=made[-1])


def _entries(core: Core) -> Any:
    roster = opened(core.earlier[0]).message
    assert isinstance(roster, Roster)
    return roster.entries


BENT: dict[str, tuple[Callable[[], VirtualSwarm], Change, str]] = {
    "not adaptive": (
        waves, lambda c, j: changed(c, adaptive=False), " is not on the pairs of the seed."),
    "adaptive": (
        stages, lambda c, j: changed(c, adaptive=True), " is not on the pairs of the seed."),
    "other duels": (
        waves, lambda c, j: _resealed(c, 0, duels=(Duel(0, 1, limits.DUELS),)),
        "The pairs after wave 0 do not follow from its ballots."),
    "no duels": (waves, lambda c, j: _resealed(c, 1, duels=()), "The pairs after wave 1 do not"),
    "duels at the end": (
        waves, lambda c, j: _resealed(c, -1, duels=(Duel(0, 1, limits.DUELS),)),
        "does not fit the round."),
    "more at the end": (
        waves, lambda c, j: _resealed(c, -1, more=True), "does not fit the round."),
    "no more in the middle": (
        waves, lambda c, j: _resealed(c, 0, more=False), "Wave 0 does not fit the round."),
    "a wave left out": (
        waves, lambda c, j: changed(c, judging=changed(j, waves=j.waves[1:])),
        "Wave 0 does not fit the round."),
    "the last wave left out": (
        waves, lambda c, j: changed(c, judging=changed(
            j, waves=j.waves[:-1], acks=j.acks[: -len(j.waves[-1].ballots)])),
        "does not fit the round."),
    "stopped for another reason": (
        waves, lambda c, j: changed(c, judging=changed(j, stopped="confident")),
        "Judging stopped before it was done."),
    "stages": (
        stages, lambda c, j: changed(c, stages=(2, 3, 5)),
        "4 peers were invited, which is no stage of the plan."),
    "stages that shrink": (
        stages, lambda c, j: changed(c, stages=(3, 2, 4)), "The stages do not grow."),
    "fewer stages than Rosters": (
        stages, lambda c, j: changed(c, stages=(4,)), "later stage than this node knows"),
    "more Rosters than stages took place": (
        stages, lambda c, j: changed(c, stages=(3, 4, 9)), "There are more Rosters than stages."),
    "a stage to come": (
        stages, lambda c, j: changed(c, stages=(2, 3, 4, 9)),
        "No more peers were asked, though there was doubt."),
    "no earlier Rosters": (
        stages, lambda c, j: changed(c, earlier=()), "The Roster of stage 0 is missing."),
    "an earlier Roster left out": (
        stages, lambda c, j: changed(c, earlier=c.earlier[1:]),
        "The Roster of stage 0 is missing."),
    "earlier Rosters swapped": (
        stages, lambda c, j: changed(c, earlier=c.earlier[::-1]),
        "The Roster of stage 0 is missing."),
    "an earlier Roster by another": (
        stages, lambda c, j: changed(
            c, earlier=(seal(signer("p0"), opened(c.earlier[0]).message), *c.earlier[1:])),
        "The Roster is not signed by "),
    "an earlier Roster of another round": (
        stages, lambda c, j: _chain(c, round=bytes(32)), "The Roster is of another round."),
    "an earlier Roster that does not lead on": (
        stages, lambda c, j: changed(c, earlier=(
            _chain(c, entries=_entries(c)[1:]).earlier[0], *c.earlier[1:])),
        "The Roster does not follow on the last one."),
    "another Commit before": (
        stages, lambda c, j: _chain(c, entries=(
            changed(_entries(c)[0], commit=bytes(32)), *_entries(c)[1:])),
        "has another Commit than before, or had left."),
    "somebody who was there before": (
        stages, lambda c, j: _chain(c, entries=(
            *_entries(c), changed(_entries(c)[0], peer=b"\xff" * 32))),
        "was left out without a fault."),
    "Rosters without a last": (
        stages, lambda c, j: changed(c, roster=None, commits=(), weights=()),
        "There are Commits but no Roster."),
}  # fmt: skip


@pytest.mark.parametrize("bent", BENT)
@pytest.mark.parametrize("detached", [False, True], ids=["whole", "detached"])
def test_a_bent_core_is_refused_though_signed(bent: str, detached: bool) -> None:
    make, change, why = BENT[bent]
    core, judging, opening = parts(make())
    receipt = signed(make(), change(core, judging), None if detached else opening)
    assert why in problem(receipt)


def test_what_was_asked_is_said() -> None:
    report = verify(stages().receipt)
    assert "4 peers were asked, of 4 that could have been." in report.notes
    report = verify(both().receipt)
    assert "6 peers were asked, of 7 that could have been." in report.notes
    report = verify(waves().receipt)
    assert not any("could have been" in note for note in report.notes)
