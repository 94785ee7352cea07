"""Whom a participant hears, in which state, and how long it waits."""

from __future__ import annotations

import pytest

from protocol.codec import encode
from protocol.messages import Ack, Ballot, Close, Decline, Invite, Message, Row, WaveClose, seal
from swarm.effects import Finished, Judge, StopWork
from swarm.participant import GRACE_MS, State
from tests.swarm.builders import SECRET, Desk, changed, sealed, six_classes, three
from tests.swarm.virtual import signer

GRACE = GRACE_MS / 1000
RUNNING = [state for state in State if state is not State.DONE]
states = pytest.mark.parametrize("state", RUNNING, ids=lambda state: state.name)


def _every_message(desk: Desk) -> list[Message]:
    return [
        Close(desk.round, "answer", bytes(32)),
        Ack(desk.round, bytes(32)),
        WaveClose(desk.round, bytes(32), 0, bytes(32), False),
    ]


@states
def test_only_the_asker_is_heard(state: State) -> None:
    desk = three(state)
    for message in _every_message(desk):
        desk.me.receive(sealed(desk.signers[1], message), 1.0)
    assert (desk.me.state, desk.mine()) == (state, [])


@states
def test_other_rounds_and_other_messages_are_ignored(state: State) -> None:
    desk = three(state)
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
    desk = three(state)
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
    late = three(State.VOTED)
    messages: dict[str, Message] = {
        "roster": late.roster(stage=1),
        "slate": late.slate(secret=bytes(32)),
        "wave_close": late.wave_close(3),
    }
    for name, message in messages.items():
        desk = three(state)
        reason = desk.refuses(message)
        out_of_turn = " while " in reason or "Two different" in reason
        assert out_of_turn == (name != turn), reason


@states
def test_repeats_are_harmless(state: State) -> None:
    """The same Roster, Slate and WaveClose again and again, as a bad link may bring them."""
    desk = three(state)
    before = desk.me.timer_at()
    reached = RUNNING.index(state)
    again = [desk.roster, desk.slate, desk.wave_close][: max(0, [0, 0, 1, 2, 2, 3][reached])]
    for make in again * 2:
        desk.me.receive(desk.seal(make()), 1.5)
    assert (desk.me.state, desk.mine(), desk.me.timer_at()) == (state, [], before)


def test_a_repeated_wave_close_is_harmless_in_the_next_wave() -> None:
    desk = six_classes().up_to(State.VOTED)
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
    desk = three(State.DONE)
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
    desk = three(state)
    assert desk.me.timer_at() == pytest.approx(due)
    desk.me.on_timer(due - 0.001)
    assert (desk.me.state, desk.mine()) == (state, []), "early calls change nothing"
    desk.me.on_timer(due)
    effects = desk.mine()
    assert effects[-1] == Finished(f"gave up {state.value}")
    assert (StopWork() in effects) == (state is State.ANSWERING)
    assert desk.me.timer_at() is None


def test_a_judge_without_news_ends_too() -> None:
    desk = three(State.JUDGING)
    for _ in range(2):
        due = desk.me.timer_at()
        assert due is not None
        desk.me.on_timer(due)
    desk.mine()
    assert desk.reason == "gave up waiting for the wave to close"


def test_the_invite_names_the_asker_and_the_round() -> None:
    desk = three()
    assert desk.me.asker == signer("asker").peer
    assert desk.me.round_id == seal(desk.asker, desk.invite).digest
    assert isinstance(desk.invite, Invite)
    assert len(encode(desk.invite)) < 400
    assert SECRET not in encode(desk.invite)
