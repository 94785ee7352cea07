"""A participant in a round of several stages, or of many waves: whom it follows, and how far."""

from __future__ import annotations

import pytest

from protocol import limits
from protocol.ids import Digest, PeerId
from protocol.messages import (
    Ballot,
    Duel,
    Reveal,
    RosterEntry,
    WaveClose,
    stage_secret,
)
from swarm.effects import Finished, Judge, StopWork
from swarm.pairing import ADAPTIVE_WAVES
from swarm.participant import GRACE_MS, State
from tests.swarm.builders import SALTS, SECRET, Desk, changed

GRACE = GRACE_MS / 1000
NEW = RosterEntry(PeerId(b"\xff" * 32), Digest(b"\x07" * 32))
"""One who joins later; last in the order of peers."""


def of_stages(state: State, stages: int = 3) -> Desk:
    return Desk("42", "41", "42.0", stages=stages).up_to(state)


def following(desk: Desk, stage: int = 1, **fields: object) -> object:
    """The right next Roster, but for ``fields``."""
    first = desk.roster()
    return changed(
        first,
        **{"stage": stage, "previous": desk.roster_digest, "entries": (*first.entries, NEW)}
        | fields,
    )


# --- the next Roster ------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.REVEALED, State.JUDGED])
def test_it_shows_the_same_answer_under_the_next_roster(state: State) -> None:
    desk = of_stages(state)
    incoming = desk.seal(following(desk))
    desk.me.receive(incoming, 5.0)
    desk.mine()
    first, second = desk.sent(0, Reveal)
    assert second == changed(first, roster=incoming.envelope.digest)
    assert second.salt == SALTS[0]
    assert desk.me.state is State.REVEALED
    desk.me.receive(incoming, 5.1)
    assert desk.mine() == [], "a repeat is harmless"


@pytest.mark.parametrize("state", list(State), ids=lambda state: state.name)
def test_the_next_roster_has_its_turn(state: State) -> None:
    """Not before the answer is fixed, nor while it judges; a first one may be of any stage."""
    desk = of_stages(state)
    if state is State.DONE:
        return
    desk.roster_digest = getattr(desk, "roster_digest", bytes(32))
    if state is State.COMMITTED:
        roster = following(desk, stage=2, previous=b"\x01" * 32)
    else:
        early = of_stages(State.REVEALED)
        roster = following(early)
    desk.me.receive(desk.seal(roster), 5.0)
    taken = state in (State.COMMITTED, State.REVEALED, State.JUDGED)
    assert desk.mine()
    assert (desk.me.state is State.REVEALED) == taken
    assert (" while " in desk.reason) == (not taken)


def test_in_a_round_of_one_stage_there_is_no_next_roster() -> None:
    for state in (State.REVEALED, State.JUDGED):
        desk = of_stages(state, stages=1)
        assert " while " in desk.refuses(following(desk))


def _entries(desk: Desk) -> tuple[RosterEntry, ...]:
    return desk.roster().entries


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (lambda d: {"stage": 2}, "does not follow on the last one"),
        (lambda d: {"stage": 3}, "later stage than this node knows"),
        (lambda d: {"previous": b"\x01" * 32}, "does not follow on the last one"),
        (lambda d: {"previous": bytes(32)}, "later stage than this node knows"),
        (lambda d: {"entries": (NEW,)}, "does not hold this peer's Commit"),
        (lambda d: {"entries": (*_entries(d)[1:], NEW)}, "does not hold this peer's Commit"),
        (
            lambda d: {"entries": (
                _entries(d)[0], changed(_entries(d)[1], commit=b"\x02" * 32), NEW)},
            "has another Commit than before",
        ),
        (lambda d: {"entries": (NEW, *_entries(d))}, "not sorted"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("state", [State.REVEALED, State.JUDGED])
def test_a_bent_next_roster_is_refused(fields, why: str, state: State) -> None:
    desk = of_stages(state)
    assert why in desk.refuses(following(desk, **fields(desk)))


def test_others_may_leave_but_not_come_back() -> None:
    desk = of_stages(State.REVEALED)
    mine, other, third = desk.roster().entries
    second = desk.seal(following(desk, entries=(mine, third, NEW)))
    desk.me.receive(second, 5.0)
    desk.mine()
    assert desk.me.state is State.REVEALED
    back = following(desk, 2, previous=second.envelope.digest, entries=(mine, other, third))
    assert "or had left" in desk.refuses(back)


def test_a_second_roster_of_a_stage_is_refused() -> None:
    desk = of_stages(State.REVEALED)
    desk.me.receive(desk.seal(following(desk)), 5.0)
    desk.mine()
    other = following(desk, entries=desk.roster().entries)
    assert "Two different Rosters" in desk.refuses(other)


# --- the next Slate -------------------------------------------------------------------------------


def _second_stage(desk: Desk) -> Desk:
    """Everybody has revealed again."""
    desk.up_to(State.JUDGED)
    incoming = desk.seal(following(desk, entries=desk.roster().entries))
    desk.roster_digest = incoming.envelope.digest
    desk.tell(incoming, 5.0)
    return desk


def test_it_judges_anew_and_from_the_first_wave() -> None:
    desk = _second_stage(of_stages(State.COMMITTED))
    slate = desk.seal(desk.slate(secret=stage_secret(SECRET, 1)))
    desk.tell(slate, 6.0)
    assert desk.me.state is State.JUDGING
    desk.me.failed("abstains", 7.0)
    desk.mine()
    first, second = desk.sent(0, Ballot)
    assert (second.wave, second.follows) == (0, bytes(32))
    assert second.slate == slate.envelope.digest != first.slate
    judges = [effect for effect in desk.effects[0] if isinstance(effect, Judge)]
    assert judges[0].nonce != judges[1].nonce
    desk.slate_digest = slate.envelope.digest
    desk.tell(desk.seal(changed(desk.wave_close(), slate=second.slate)), 8.0)
    assert desk.me.state is State.JUDGED


@pytest.mark.parametrize("later", [0, 2])
def test_each_stage_has_its_own_secret(later: int) -> None:
    """Neither that of the stage before, which all know, nor one that is still to come."""
    desk = _second_stage(of_stages(State.COMMITTED))
    assert "secret is not the one" in desk.refuses(desk.slate(secret=stage_secret(SECRET, later)))


def test_a_slate_over_the_reveals_of_the_stage_before_is_refused() -> None:
    desk = of_stages(State.JUDGED)
    before = desk.entries()
    desk = _second_stage(of_stages(State.COMMITTED))
    slate = desk.slate(secret=stage_secret(SECRET, 1), entries=tuple(before))
    assert "for another Roster" in desk.refuses(slate)


# --- the clock ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "due"),
    [
        (State.ANSWERING, 10.0),
        (State.COMMITTED, 0.5 + 3 * 10.0 + 2.0 + GRACE),
        (State.REVEALED, 1.0 + 2.0 + 2 * 10.0 + GRACE),
        (State.JUDGING, 1.0 + 20.0),
        (State.VOTED, 2.0 + 20.0 + GRACE),
        (State.JUDGED, 1.0 + 2 * 10.0 + GRACE),
    ],
)
def test_it_waits_for_stages_that_may_come_and_no_longer(state: State, due: float) -> None:
    desk = of_stages(state)
    assert desk.me.timer_at() == pytest.approx(due)
    desk.me.on_timer(due)
    if state is not State.JUDGING:
        assert desk.mine()[-1] == Finished(f"gave up {state.value}")


def test_after_the_last_stage_it_waits_for_the_close_alone() -> None:
    desk = of_stages(State.REVEALED)
    desk.me.receive(desk.seal(following(desk)), 5.0)
    assert desk.me.timer_at() == pytest.approx(5.0 + 2.0 + 10.0 + GRACE)
    second = desk.seal(following(desk)).envelope.digest
    desk.me.receive(desk.seal(following(desk, 2, previous=second)), 6.0)
    assert desk.me.timer_at() == pytest.approx(6.0 + 2.0 + GRACE)


# --- adaptive waves -------------------------------------------------------------------------------

ALL = (Duel(0, 1, limits.DUELS),)


def adaptive() -> Desk:
    """Three participants and three classes; one is asked in each of the first waves."""
    desk = Desk("42", "41", "40", adaptive=True)
    desk._commit()
    desk._reveal()
    desk._show()
    return desk


def _asked(desk: Desk) -> list[int]:
    return [at for at, one in enumerate(desk.machines) if one.state is State.JUDGING]


def _close(desk: Desk, wave: int, *duels: Duel) -> WaveClose:
    return WaveClose(desk.round, desk.slate_digest, wave, bytes(32), True, duels or ALL)


def test_in_each_wave_others_are_asked() -> None:
    """Who is not waits for the next wave, without a word and without work."""
    desk = adaptive()
    turns = []
    for wave in range(3):
        turns.append(_asked(desk))
        for at, machine in enumerate(desk.machines):
            assert machine.state is (State.JUDGING if at in turns[-1] else State.VOTED)
            assert len([e for e in desk.effects[at] if isinstance(e, Judge)]) == sum(
                at in turn for turn in turns
            )
        for at in turns[-1]:
            desk.machines[at].judged([0.5], 2.0)
        desk.tell(desk.seal(_close(desk, wave)), 3.0)
    assert sorted(at for turn in turns for at in turn) == [0, 1, 2]
    assert [len(desk.sent(at, Ballot)) for at in range(3)] == [1, 1, 1]


def test_the_pairs_are_those_of_the_duels() -> None:
    desk = adaptive()
    for wave in range(len(ADAPTIVE_WAVES) - 1):
        for at in _asked(desk):
            desk.machines[at].failed("abstains", 2.0)
        desk._pump()
        desk.tell(desk.seal(_close(desk, wave, Duel(0, 2, limits.DUELS))), 3.0)
    for at in _asked(desk):
        desk.machines[at].failed("abstains", 2.0)
    desk._pump()
    rows = [
        {row.first, row.second}
        for at in range(3)
        for ballot in desk.sent(at, Ballot)
        for row in ballot.rows
        if ballot.wave
    ]
    assert rows
    assert all(pair == {0, 2} for pair in rows)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"duels": ()}, "not the right number"),
        ({"duels": (Duel(0, 1, 1),)}, "not the right number"),
        ({"duels": (Duel(1, 0, limits.DUELS),)}, "not between two classes"),
        ({"duels": (Duel(0, 3, limits.DUELS),)}, "not between two classes"),
        ({"more": False}, "ends judging, and chooses pairs"),
        ({"wave": 1}, "another Slate or wave"),
        ({"slate": bytes(32)}, "another Slate or wave"),
    ],
)
def test_a_bent_wave_close_is_refused(fields: dict[str, object], why: str) -> None:
    desk = adaptive()
    works = desk.me.state is State.JUDGING
    assert why in desk.refuses(changed(_close(desk, 0), **fields))
    assert (StopWork() in desk.effects[0]) == works


def test_a_wave_too_many_is_refused() -> None:
    desk = adaptive()
    for wave in range(len(ADAPTIVE_WAVES) - 1):
        desk.tell(desk.seal(_close(desk, wave)), 3.0)
    assert desk.reason == ""
    assert "there cannot be" in desk.refuses(_close(desk, len(ADAPTIVE_WAVES) - 1))


def test_two_closes_of_a_wave_are_refused() -> None:
    desk = adaptive()
    desk.tell(desk.seal(_close(desk, 0)), 3.0)
    other = _close(desk, 0, Duel(0, 2, limits.DUELS))
    assert "Two different WaveCloses" in desk.refuses(other)


def test_in_the_full_schedule_a_close_chooses_no_pairs() -> None:
    desk = Desk(*[str(40 + number % 6) for number in range(12)]).up_to(State.VOTED)
    assert "the seed alone chooses" in desk.refuses(desk.wave_close(more=True, duels=ALL))
    desk = Desk("42", "41").up_to(State.VOTED)
    assert "chooses pairs" in desk.refuses(desk.wave_close(duels=ALL))
