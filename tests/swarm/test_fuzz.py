"""Arbitrary, validly signed messages at any time: no machine fails, and every receipt holds."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol.envelope import Envelope, KeySigner
from protocol.messages import (
    AnyMessage,
    Ballot,
    Duel,
    Incoming,
    Message,
    WaveClose,
    opened,
    seal,
)
from protocol.receipt import Heard, read
from swarm.effects import Effect, Finished, Send, StopWork, Store
from swarm.participant import State
from swarm.replay import replay
from swarm.round import Round
from swarm.verify import verify
from tests.protocol.arbitrary import altered, arbitrary
from tests.swarm.builders import Desk, changed
from tests.swarm.test_round import honest
from tests.swarm.virtual import VirtualSwarm, signer

ANY: Any = AnyMessage
NAMES = ["asker", "stranger", *(f"p{number}" for number in range(12))]
KEYS = {who.peer: who for who in map(signer, NAMES)}


ROUNDS: dict[str, dict[str, Any]] = {
    "three": {},
    "twelve": {},
    "waves": {"adaptive": True},
    "stages": {"stages": (2, 3)},
    "both": {"adaptive": True, "stages": (2,)},
}
PEERS = {"three": 3, "twelve": 12, "waves": 4, "stages": 4, "both": 3}


@cache
def recorded(kind: str) -> tuple[VirtualSwarm, tuple[Heard, ...], tuple[Envelope, ...]]:
    """A round that went well: what the asker heard, and all that it said."""
    swarm = VirtualSwarm(honest(PEERS[kind]), **ROUNDS[kind]).run()
    _, core, opening = read(swarm.receipt)
    assert opening is not None
    assert core.judging is not None
    assert core.roster is not None
    assert swarm.round.slate is not None
    heard = tuple(entry for entry in opening.journal if isinstance(entry, Heard))
    said = (opening.invite, *core.earlier, core.roster, swarm.round.slate, *core.judging.acks)
    said += tuple(wave.close for wave in core.judging.waves)
    return swarm, heard, said


@st.composite
def anything(draw: st.DrawFn, real: tuple[Envelope, ...], round_id: bytes) -> Incoming:
    """Any message: real, real but for one thing, or made up; signed by anyone of the round."""
    kind = draw(st.sampled_from(["real", "altered", "made up"]))
    if kind == "made up":
        message: Message = draw(arbitrary(ANY))
        if hasattr(message, "round") and draw(st.booleans()):
            message = changed(message, round=round_id)
        return opened(seal(KEYS[draw(st.sampled_from(sorted(KEYS)))], message))
    envelope = draw(st.sampled_from(real))
    if kind == "altered":
        message = opened(envelope).message
        key: KeySigner = KEYS[envelope.signer]
        envelope = seal(key, draw(altered(message, type(message), KEYS)))
    return opened(envelope)


@pytest.mark.parametrize("kind", ROUNDS)
@settings(max_examples=30)
@given(data=st.data())
def test_a_round_takes_anything(kind: str, data: st.DataObject) -> None:
    """Between, before and after the messages of a round; then time passes until it ends."""
    swarm, heard, said = recorded(kind)
    machine = Round(swarm.plan, swarm.asker, 0.0)
    real = tuple(entry.envelope for entry in heard) + said
    stray = anything(real, machine.round_id)
    for entry in heard:
        for incoming in data.draw(st.lists(stray, max_size=0 if kind == "twelve" else 1)):
            machine.receive(incoming, 1.0)
        if data.draw(st.integers(0, 9)):
            machine.receive(opened(entry.envelope), 1.0)
        elif data.draw(st.booleans()):
            machine.receive(data.draw(stray), 1.0)
        else:
            way = data.draw(st.sampled_from(["lost", "unsent", "malformed"]))
            machine.broke(entry.envelope.signer, way, data.draw(st.text(max_size=9)), 1.0)
    for _ in range(30):
        due = machine.timer_at()
        if due is None:
            break
        machine.on_timer(due)
        machine.receive(data.draw(stray), due)
    assert machine.timer_at() is None, "it ended by its own clock"
    (receipt,) = [effect.receipt for effect in machine.effects() if isinstance(effect, Store)]
    report = verify(receipt)
    assert report.ok, report.problems
    assert replay(receipt).ok


def _asker_said(desk: Desk, state: State) -> tuple[Envelope, ...]:
    """What an asker could say around ``state``, right for this desk."""
    reached = list(State).index(state)
    made = [lambda: desk.seal(desk.invite), lambda: desk.seal(desk.close())]
    if reached >= list(State).index(State.COMMITTED):
        made.append(lambda: desk.seal(desk.roster()))
    if reached >= list(State).index(State.REVEALED):
        made.append(lambda: desk.seal(desk.slate()))
        more = {"stage": 1, "previous": desk.roster_digest}
        made.append(lambda: desk.seal(desk.roster(**more)))
    if reached >= list(State).index(State.VOTED):
        made += [
            lambda: desk.seal(desk.ack()),
            lambda: desk.seal(desk.wave_close()),
            lambda: desk.seal(desk.wave_close(more=True)),
        ]
    return tuple(make().envelope for make in made)


@pytest.mark.parametrize("stages", [1, 3])
@pytest.mark.parametrize("state", list(State), ids=lambda state: state.name)
@settings(max_examples=25)
@given(data=st.data())
def test_a_participant_takes_anything(stages: int, state: State, data: st.DataObject) -> None:
    desk = Desk("42", "41", "42.0", stages=stages).up_to(state)
    keys = KEYS | {one.peer: one for one in desk.signers}
    real = _asker_said(desk, state)
    ballots = len(desk.sent(0, Ballot))
    finished = sum(isinstance(effect, Finished) for effect in desk.effects[0])
    effects: list[Effect] = []
    for _ in range(data.draw(st.integers(1, 5))):
        step = data.draw(st.sampled_from(["message", "own", "timer"]))
        if step == "message":
            incoming = data.draw(_bent(real, desk, keys))
            desk.me.receive(incoming, 2.0)
        elif step == "own":
            _own_work(desk, data)
        elif desk.me.timer_at() is not None:
            desk.me.on_timer(desk.me.timer_at() or 0.0)
        effects += desk.me.effects()
    for _ in range(3):
        desk.me.on_timer(desk.me.timer_at() or 0.0)
    effects += desk.me.effects()
    assert desk.me.state is State.DONE
    assert finished + sum(isinstance(effect, Finished) for effect in effects) == 1
    sent = [effect for effect in effects if isinstance(effect, Send)]
    assert all(effect.to == desk.asker.peer for effect in sent)
    most = 1 + 2 * stages
    assert len(sent) <= most - ballots, "a Commit; in each stage a Reveal and a Ballot at most"
    assert sum(isinstance(effect, StopWork) for effect in effects) <= 2


@st.composite
def _bent(
    draw: st.DrawFn, real: tuple[Envelope, ...], desk: Desk, keys: dict[bytes, KeySigner]
) -> Incoming:
    """One of the asker's messages, mostly bent, mostly by the asker; or anything at all."""
    if draw(st.integers(0, 3)) == 0:
        return draw(anything(real, desk.round))
    message = opened(draw(st.sampled_from(real))).message
    if draw(st.integers(0, 3)):
        message = draw(altered(message, type(message), keys))
    return desk.seal(message)


@settings(max_examples=80)
@given(data=st.data())
def test_a_judge_of_many_waves_takes_any_close(data: st.DataObject) -> None:
    """Right ones, bent ones, and its own work in between: it judges what it is asked, or ends."""
    desk = Desk("42", "41", "40", adaptive=True)
    desk._commit()
    desk._reveal()
    desk._show()
    right = tuple(Duel(*pair, n) for pair, n in (((0, 1), 40), ((0, 2), 20), ((1, 2), 4)))
    for wave in range(data.draw(st.integers(1, limits.WAVES))):
        close = WaveClose(desk.round, desk.slate_digest, wave, bytes(32), True, right)
        if data.draw(st.integers(0, 4)) == 0:
            close = data.draw(altered(close, WaveClose, KEYS))
        if data.draw(st.booleans()):
            desk.me.failed("abstains", 2.0)
        desk.me.receive(desk.seal(close), 2.0)
    desk.mine()
    had = [(row.first, row.second) for one in desk.sent(0, Ballot) for row in one.rows]
    assert len(set(had)) == len(had)
    for _ in range(2):
        desk.me.on_timer(desk.me.timer_at() or 0.0)
    assert desk.me.state is State.DONE


def _own_work(desk: Desk, data: st.DataObject) -> None:
    match data.draw(st.sampled_from(["answers", "judges", "fails"])):
        case "answers":
            desk.me.generated(data.draw(st.text(max_size=80)), 2.0)
        case "judges":
            verdict = st.one_of(st.none(), st.floats())
            desk.me.judged(data.draw(st.lists(verdict, max_size=3)), 2.0)
        case "fails":
            desk.me.failed(data.draw(st.text(max_size=300)), 2.0)
