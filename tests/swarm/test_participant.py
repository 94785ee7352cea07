"""A participant takes nothing on trust, and every wait ends by its own clock."""

from __future__ import annotations

from collections import Counter
from math import inf, nan

import pytest

from protocol.codec import encode
from protocol.ids import ZERO_DIGEST
from protocol.messages import (
    MICRO,
    Ack,
    Ballot,
    Close,
    Commit,
    Decline,
    Invite,
    Message,
    Model,
    Reveal,
    RosterEntry,
    Row,
    WaveClose,
    commitment,
    seal,
)
from swarm.effects import Finished, Generate, Judge, Send, StopWork
from swarm.pairing import assigned
from swarm.participant import GRACE_MS, State
from tests.swarm.builders import SALTS, SECRET, Desk, changed, sealed
from tests.swarm.virtual import signer

GRACE = GRACE_MS / 1000
RUNNING = [state for state in State if state is not State.DONE]
states = pytest.mark.parametrize("state", RUNNING, ids=lambda state: state.name)


def _desk(state: State = State.ANSWERING) -> Desk:
    return Desk("42", "41", "42.0").up_to(state)


def _finish(desk: Desk) -> str:
    """Why the participant under test ended; empty while it has not."""
    reasons = [effect.reason for effect in desk.effects[0] if isinstance(effect, Finished)]
    assert len(reasons) <= 1
    assert (desk.me.state is State.DONE) == bool(reasons)
    return reasons[0] if reasons else ""


def _refused(desk: Desk, message: Message) -> str:
    desk.me.receive(desk.seal(message), 1.0)
    sent = [effect for effect in desk.mine() if isinstance(effect, Send)]
    assert not sent, "it says nothing to an asker that it refuses"
    reason = _finish(desk)
    assert reason.startswith("refused: ")
    return reason


# --- answering --------------------------------------------------------------------------------


def test_it_begins_by_generating() -> None:
    desk = _desk()
    (effect,) = desk.effects[0]
    assert isinstance(effect, Generate)
    assert (effect.question, effect.max_tokens, effect.max_bytes) == ("What is 6 * 7?", 64, 64)
    other = desk.effects[1][0]
    assert isinstance(other, Generate)
    assert effect.seed != other.seed, "equal models must not give equal samples"
    assert 0 <= effect.seed < 2**48


def test_it_commits_to_its_answer() -> None:
    desk = _desk(State.COMMITTED)
    (commit,) = desk.sent(0, Commit)
    assert commit == Commit(
        desk.round, commitment(desk.round, desk.me.peer, SALTS[0], "42"), Model("m", "f", "")
    )
    assert all(effect.to == desk.asker.peer for effect in desk.effects[0][1:])


@pytest.mark.parametrize("answer", ["x" * 65, "é" * 33, "half a pair \ud800"])
def test_an_answer_that_cannot_be_sent_is_declined(answer: str) -> None:
    desk = _desk()
    desk.me.generated(answer, 1.0)
    desk.mine()
    (decline,) = desk.sent(0, Decline)
    assert decline.reason == "failed"
    assert not desk.sent(0, Commit)
    assert _finish(desk).startswith("the model could not answer")


def test_an_answer_of_exactly_the_limit_is_sent() -> None:
    desk = _desk()
    desk.me.generated("é" * 32, 1.0)
    assert desk.me.state is State.COMMITTED


def test_a_model_that_fails_declines() -> None:
    desk = _desk()
    desk.me.failed("out of memory" * 100, 1.0)
    desk.mine()
    (decline,) = desk.sent(0, Decline)
    assert decline.detail == ("out of memory" * 100)[:256]
    assert _finish(desk)


def test_only_the_first_answer_counts() -> None:
    desk = _desk(State.COMMITTED)
    desk.me.generated("another", 1.0)
    desk.me.failed("late failure", 1.0)
    desk.me.judged([0.5], 1.0)
    assert desk.mine() == []
    assert desk.me.state is State.COMMITTED


# --- the Roster -------------------------------------------------------------------------------


def test_it_reveals_once_the_roster_holds_its_commit() -> None:
    desk = _desk(State.REVEALED)
    (reveal,) = desk.sent(0, Reveal)
    assert reveal == Reveal(desk.round, desk.roster_digest, SALTS[0], "42")


def _roster_without_me(entries: tuple[RosterEntry, ...]) -> tuple[RosterEntry, ...]:
    return entries[1:]


def _roster_with_another_commit(entries: tuple[RosterEntry, ...]) -> tuple[RosterEntry, ...]:
    return (RosterEntry(entries[0].peer, entries[1].commit), *entries[1:])


def _roster_unsorted(entries: tuple[RosterEntry, ...]) -> tuple[RosterEntry, ...]:
    return (entries[1], entries[0], entries[2])


def _roster_with_me_twice(entries: tuple[RosterEntry, ...]) -> tuple[RosterEntry, ...]:
    return (entries[0], *entries)


@pytest.mark.parametrize(
    ("bend", "why"),
    [
        (_roster_without_me, "does not hold this peer's Commit"),
        (_roster_with_another_commit, "does not hold this peer's Commit"),
        (_roster_unsorted, "not sorted"),
        (_roster_with_me_twice, "names a peer twice"),
    ],
)
def test_a_bent_roster_is_refused(bend, why: str) -> None:
    desk = _desk(State.COMMITTED)
    assert why in _refused(desk, desk.roster(entries=bend(desk.roster().entries)))


def test_a_roster_of_a_later_stage_is_refused() -> None:
    desk = _desk(State.COMMITTED)
    assert "later stage" in _refused(desk, desk.roster(stage=1))
    desk = _desk(State.COMMITTED)
    assert "later stage" in _refused(desk, desk.roster(previous=b"\x01" * 32))


def test_a_second_roster_is_refused() -> None:
    """It would let the asker see answers under one roster and fix another."""
    desk = _desk(State.REVEALED)
    second = desk.roster(entries=desk.roster().entries[:2])
    assert "Two different Rosters" in _refused(desk, second)


# --- the Slate --------------------------------------------------------------------------------


def _with(desk: Desk, at: int, **fields: object) -> dict[str, object]:
    entries = desk.entries()
    entries[at] = changed(entries[at], **fields)
    return {"entries": tuple(entries)}


def _signed(desk: Desk, at: int, message: Message) -> object:
    return seal(desk.signers[at], message)


BENT_SLATES = {
    "another secret": (lambda d: {"secret": b"\x01" * 32}, "secret is not the one"),
    "another roster": (lambda d: {"roster": bytes(32)}, "for another Roster"),
    "too few entries": (lambda d: {"entries": tuple(d.entries()[:2])}, "for another Roster"),
    "entries swapped": (lambda d: {"entries": tuple(d.entries()[::-1])}, "not signed by its peer"),
    "own reveal left out": (lambda d: _with(d, 0, reveal=None), "leaves out this peer's Reveal"),
    "another commit": (
        lambda d: _with(d, 1, commit=_signed(d, 1, changed(
            d.sent(1, Commit)[0], commitment=commitment(
                d.round, d.signers[1].peer, SALTS[1], "later")))),
        "is not the Roster's",
    ),
    "a commit of another round": (
        lambda d: _with(d, 1, commit=_signed(d, 1, changed(
            d.sent(1, Commit)[0], round=bytes(32)))),
        "is not the Roster's",
    ),
    "a commit by another": (
        lambda d: _with(d, 1, commit=d.entries()[2].commit), "not signed by its peer"),
    "a commit that is a reveal": (
        lambda d: _with(d, 1, commit=d.entries()[1].reveal), "A Commit in the Slate is not valid"),
    "a forged reveal": (
        lambda d: _with(d, 1, reveal=changed(d.entries()[1].reveal, signature=bytes(64))),
        "A Reveal in the Slate is not valid",
    ),
    "another answer": (
        lambda d: _with(d, 1, reveal=_signed(d, 1, changed(
            d.sent(1, Reveal)[0], answer="later"))),
        "does not open its Commit",
    ),
    "another salt": (
        lambda d: _with(d, 1, reveal=_signed(d, 1, changed(
            d.sent(1, Reveal)[0], salt=bytes(32)))),
        "does not open its Commit",
    ),
    "a reveal under another roster": (
        lambda d: _with(d, 1, reveal=_signed(d, 1, changed(
            d.sent(1, Reveal)[0], roster=bytes(32)))),
        "is for another Roster",
    ),
    "a reveal of another round": (
        lambda d: _with(d, 1, reveal=_signed(d, 1, changed(
            d.sent(1, Reveal)[0], round=bytes(32)))),
        "is for another Roster",
    ),
}  # fmt: skip


@pytest.mark.parametrize("bent", BENT_SLATES)
def test_a_bent_slate_is_refused(bent: str) -> None:
    bend, why = BENT_SLATES[bent]
    desk = _desk(State.REVEALED)
    assert why in _refused(desk, desk.slate(**bend(desk)))


def test_an_oversize_answer_in_the_slate_is_refused() -> None:
    """A Reveal that opens its Commit, but holds more than the Invite allows."""
    desk = Desk("42", "x" * 65, "42.0")
    desk.machines[1]._invite = changed(desk.invite, answer_bytes=100)
    desk.up_to(State.REVEALED)
    assert "over 64 bytes" in _refused(desk, desk.slate())


def test_a_missing_reveal_of_another_is_no_reason_to_refuse() -> None:
    desk = _desk(State.REVEALED)
    desk.me.receive(desk.seal(desk.slate(**_with(desk, 2, reveal=None))), 1.0)
    desk.mine()
    assert sorted(_judge(desk).answers) == ["41", "42"]
    assert _finish(desk) == ""


def test_a_second_slate_is_refused() -> None:
    desk = _desk(State.JUDGING)
    assert "Two different Slates" in _refused(desk, desk.slate(**_with(desk, 1, reveal=None)))
    assert any(isinstance(effect, StopWork) for effect in desk.effects[0])


# --- judging ----------------------------------------------------------------------------------


def _judge(desk: Desk, at: int = 0) -> Judge:
    return [effect for effect in desk.effects[at] if isinstance(effect, Judge)][-1]


def test_it_judges_its_own_pairs_under_labels_of_its_own() -> None:
    desk = Desk("40", "41", "42", "43", "40.0").up_to(State.JUDGING)
    orders = set()
    for at in range(5):
        judge = _judge(desk, at)
        assert sorted(judge.answers) == ["40", "41", "42", "43"]
        assert len(set(judge.pairs)) == len(judge.pairs) == 12
        orders.add(judge.answers)
        verdicts = [1.0 if judge.answers[a] == "42" else 0.25 for a, _ in judge.pairs]
        desk.machines[at].judged(verdicts, 2.0)
    desk._pump()
    assert len(orders) > 1, "a place in the prompt favours nobody"
    assert len({_judge(desk, at).nonce for at in range(5)}) == 5
    for at in range(5):
        (ballot,) = desk.sent(at, Ballot)
        assert ballot.slate == desk.slate_digest
        assert (ballot.wave, ballot.follows) == (0, ZERO_DIGEST)
        assert Counter((row.first, row.second) for row in ballot.rows) == Counter(
            (a, b) for a in range(4) for b in range(4) if a != b
        )
        for row in ballot.rows:
            assert row.p == (MICRO if row.first == 2 else MICRO // 4), "class 2 is the third: 42"


@pytest.mark.parametrize(
    ("verdict", "p"),
    [(0.0, 0), (1.0, MICRO), (0.1234567, 123457), (None, None), (nan, None), (inf, None),
     (-inf, None), (1.5, MICRO), (-0.5, 0)],
)  # fmt: skip
def test_verdicts_become_bounded_integers_or_abstentions(
    verdict: float | None, p: int | None
) -> None:
    desk = _desk(State.JUDGING)
    desk.me.judged([verdict, 0.5], 2.0)
    desk.mine()
    (ballot,) = desk.sent(0, Ballot)
    assert [row.p for row in ballot.rows] == [p, MICRO // 2]


@pytest.mark.parametrize("verdicts", [[], [0.5], [0.5] * 3])
def test_the_wrong_number_of_verdicts_abstains(verdicts: list[float]) -> None:
    desk = _desk(State.JUDGING)
    desk.me.judged(verdicts, 2.0)
    desk.mine()
    (ballot,) = desk.sent(0, Ballot)
    assert [row.p for row in ballot.rows] == [None, None]


def test_a_judge_that_fails_abstains_on_every_row() -> None:
    desk = _desk(State.JUDGING)
    desk.me.failed("out of memory", 2.0)
    desk.mine()
    (ballot,) = desk.sent(0, Ballot)
    assert {(row.first, row.second, row.p) for row in ballot.rows} == {(0, 1, None), (1, 0, None)}
    assert desk.me.state is State.VOTED


def test_only_one_ballot_a_wave() -> None:
    desk = _desk(State.VOTED)
    desk.me.judged([0.5, 0.5], 2.0)
    desk.me.failed("late", 2.0)
    assert desk.mine() == []


# --- waves ------------------------------------------------------------------------------------


def _waves() -> Desk:
    """Twelve judges of six classes: fifteen pairs, so three waves."""
    return Desk(*[str(40 + number % 6) for number in range(12)])


def test_the_next_wave_has_new_pairs_and_follows_the_last_close() -> None:
    desk = _waves().up_to(State.VOTED)
    close = desk.seal(desk.wave_close(more=True))
    desk.tell(close)
    assert desk.me.state is State.JUDGING
    desk.me.judged([0.5] * len(_judge(desk).pairs), 3.0)
    desk.mine()
    first, second = desk.sent(0, Ballot)
    assert second.wave == 1
    assert second.follows == close.envelope.digest
    seen = [frozenset((row.first, row.second)) for row in (*first.rows, *second.rows)]
    assert len(set(seen)) == len(seen) == 12
    third = desk.seal(desk.wave_close(1, more=True))
    desk.me.receive(third, 4.0)
    assert desk.me.state is State.JUDGING
    assert "there cannot be" in _refused(desk, desk.wave_close(2, more=True))


def test_its_rows_are_those_that_the_seed_gives() -> None:
    desk = _waves().up_to(State.VOTED)
    opened = desk.me._opened
    assert opened is not None
    (ballot,) = desk.sent(0, Ballot)
    pairs = assigned(opened.seed, 6, 12, desk.me.peer, 0)
    assert tuple((row.first, row.second) for row in ballot.rows) == pairs


def test_a_wave_that_closes_early_stops_the_work() -> None:
    desk = _waves().up_to(State.JUDGING)
    for machine in desk.machines[1:]:
        machine.failed("abstains", 2.0)
    desk._pump()
    close = WaveClose(desk.round, desk.slate_digest, 0, bytes(32), True)
    desk.me.receive(desk.seal(close), 3.0)
    stop, judge = desk.mine()
    assert isinstance(stop, StopWork)
    assert isinstance(judge, Judge)
    assert desk.me.state is State.JUDGING


def test_too_slow_for_one_wave_is_not_too_slow_for_the_next() -> None:
    desk = _waves().up_to(State.JUDGING)
    assert desk.me.timer_at() == 21.0, "its own judging has no grace: the asker will not wait"
    desk.me.on_timer(21.0)
    assert desk.mine() == [StopWork()]
    assert desk.me.state is State.VOTED
    desk.me.receive(desk.seal(WaveClose(desk.round, desk.slate_digest, 0, bytes(32), True)), 22.0)
    assert desk.me.state is State.JUDGING


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"slate": bytes(32)}, "another Slate or wave"),
        ({"wave": 1}, "another Slate or wave"),
        ({"more": True}, "there cannot be"),
    ],
)
def test_a_bent_wave_close_is_refused(fields: dict[str, object], why: str) -> None:
    desk = _desk(State.VOTED)
    assert why in _refused(desk, desk.wave_close(**fields))


def test_a_second_wave_close_is_refused() -> None:
    desk = _desk(State.JUDGED)
    assert "Two different WaveCloses" in _refused(desk, desk.wave_close(ballots=bytes(32)))


def test_acks_of_its_own_ballots_are_kept_once() -> None:
    desk = _desk(State.VOTED)
    for message in (Ack(desk.round, bytes(32)), desk.ack(1), desk.ack(0), desk.ack(0)):
        desk.me.receive(desk.seal(message), 2.0)
    assert [ack.message for ack in desk.me.acks] == [desk.ack(0)]
    assert _finish(desk) == ""


# --- who is heard, and when -------------------------------------------------------------------


def _every_message(desk: Desk) -> list[Message]:
    return [
        Close(desk.round, "answer", bytes(32)),
        Ack(desk.round, bytes(32)),
        WaveClose(desk.round, bytes(32), 0, bytes(32), False),
    ]


@states
def test_only_the_asker_is_heard(state: State) -> None:
    desk = _desk(state)
    for message in _every_message(desk):
        desk.me.receive(sealed(desk.signers[1], message), 1.0)
    assert (desk.me.state, desk.mine()) == (state, [])


@states
def test_other_rounds_and_other_messages_are_ignored(state: State) -> None:
    desk = _desk(state)
    for message in _every_message(desk):
        desk.me.receive(desk.seal(changed(message, round=bytes(32))), 1.0)
    for other in (
        desk.invite,
        Decline(desk.round, "busy", ""),
        Ballot(desk.round, bytes(32), 0, bytes(32), (Row(0, 1, 1),)),
    ):
        desk.me.receive(desk.seal(other), 1.0)
    assert (desk.me.state, desk.mine()) == (state, [])


@states
def test_a_close_ends_it_at_any_time(state: State) -> None:
    desk = _desk(state)
    desk.me.receive(desk.seal(desk.close()), 1.0)
    effects = desk.mine()
    assert effects[-1] == Finished("closed: answer")
    works = state in (State.ANSWERING, State.JUDGING)
    assert (StopWork() in effects) == works
    assert desk.me.timer_at() is None


@pytest.mark.parametrize(
    ("state", "turn"),
    [
        (State.ANSWERING, ""),
        (State.COMMITTED, "roster"),
        (State.REVEALED, "slate"),
        (State.JUDGING, "wave_close"),
        (State.VOTED, "wave_close"),
        (State.JUDGED, ""),
    ],
)
def test_a_message_out_of_turn_ends_it(state: State, turn: str) -> None:
    """Whatever is neither this state's message nor a repeat of one that was heard."""
    late = _desk(State.VOTED)
    messages: dict[str, Message] = {
        "roster": late.roster(stage=1),
        "slate": late.slate(secret=bytes(32)),
        "wave_close": late.wave_close(3),
    }
    for name, message in messages.items():
        desk = _desk(state)
        reason = _refused(desk, message)
        out_of_turn = " while " in reason or "Two different" in reason
        assert out_of_turn == (name != turn), reason


@states
def test_repeats_are_harmless(state: State) -> None:
    """The same Roster, Slate and WaveClose again and again, as a bad link may bring them."""
    desk = _desk(state)
    before = desk.me.timer_at()
    reached = RUNNING.index(state)
    again = [desk.roster, desk.slate, desk.wave_close][: max(0, [0, 0, 1, 2, 2, 3][reached])]
    for make in again * 2:
        desk.me.receive(desk.seal(make()), 1.5)
    assert (desk.me.state, desk.mine(), desk.me.timer_at()) == (state, [], before)


def test_a_repeated_wave_close_is_harmless_in_the_next_wave() -> None:
    desk = _waves().up_to(State.VOTED)
    close = desk.seal(desk.wave_close(more=True))
    desk.me.receive(close, 3.0)
    assert isinstance(desk.mine()[-1], Judge)
    desk.me.receive(close, 3.1)
    assert (desk.me.state, desk.mine()) == (State.JUDGING, [])
    desk.me.failed("abstains", 3.2)
    desk.mine()
    desk.me.receive(close, 3.3)
    assert (desk.me.state, desk.mine()) == (State.VOTED, [])


def test_nothing_is_heard_once_done() -> None:
    desk = _desk(State.DONE)
    for message in (desk.roster(), desk.slate(), desk.wave_close(), desk.close(), desk.ack()):
        desk.me.receive(desk.seal(message), 5.0)
    desk.me.generated("x", 5.0)
    desk.me.failed("x", 5.0)
    desk.me.judged([0.5, 0.5], 5.0)
    desk.me.on_timer(1e9)
    assert desk.mine() == []
    assert desk.me.acks == []


# --- the clock --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "due"),
    [
        (State.ANSWERING, 10.0),
        (State.COMMITTED, 0.5 + 10.0 + 2.0 + GRACE),
        (State.REVEALED, 1.0 + 2.0 + GRACE),
        (State.VOTED, 2.0 + 20.0 + GRACE),
        (State.JUDGED, 1.0 + GRACE),
    ],
)
def test_it_gives_up_on_a_silent_asker(state: State, due: float) -> None:
    desk = _desk(state)
    assert desk.me.timer_at() == pytest.approx(due)
    desk.me.on_timer(due - 0.001)
    assert (desk.me.state, desk.mine()) == (state, []), "early calls change nothing"
    desk.me.on_timer(due)
    effects = desk.mine()
    assert effects[-1] == Finished(f"gave up {state.value}")
    assert (StopWork() in effects) == (state is State.ANSWERING)
    assert desk.me.timer_at() is None


def test_a_judge_without_news_ends_too() -> None:
    desk = _desk(State.JUDGING)
    for _ in range(2):
        due = desk.me.timer_at()
        assert due is not None
        desk.me.on_timer(due)
    desk.mine()
    assert _finish(desk) == "gave up waiting for the wave to close"


def test_the_invite_names_the_asker_and_the_round() -> None:
    desk = _desk()
    assert desk.me.asker == signer("asker").peer
    assert desk.me.round_id == seal(desk.asker, desk.invite).digest
    assert isinstance(desk.invite, Invite)
    assert len(encode(desk.invite)) < 400
    assert SECRET not in encode(desk.invite)
