"""A participant takes nothing on trust, and every wait ends by its own clock."""

from __future__ import annotations

from collections import Counter
from math import inf, nan

import pytest

from protocol.ids import ZERO_DIGEST
from protocol.messages import (
    MICRO,
    Ack,
    Ballot,
    Commit,
    Decline,
    Message,
    Model,
    Reveal,
    RosterEntry,
    WaveClose,
    commitment,
    seal,
)
from swarm.effects import Generate, Judge, StopWork
from swarm.pairing import assigned
from swarm.participant import State
from tests.swarm.builders import SALTS, Desk, changed, six_classes, three

# --- answering --------------------------------------------------------------------------------


def test_it_begins_by_generating() -> None:
    desk = three()
    (effect,) = desk.effects[0]
    assert isinstance(effect, Generate)
    assert (effect.question, effect.max_tokens, effect.max_bytes) == ("What is 6 * 7?", 64, 64)
    other = desk.effects[1][0]
    assert isinstance(other, Generate)
    assert effect.seed != other.seed, "equal models must not give equal samples"
    assert 0 <= effect.seed < 2**48


def test_it_commits_to_its_answer() -> None:
    desk = three(State.COMMITTED)
    (commit,) = desk.sent(0, Commit)
    assert commit == Commit(
        desk.round, commitment(desk.round, desk.me.peer, SALTS[0], "42"), Model("m", "f", "")
    )
    assert all(effect.to == desk.asker.peer for effect in desk.effects[0][1:])


@pytest.mark.parametrize("answer", ["x" * 65, "é" * 33, "half a pair \ud800"])
def test_an_answer_that_cannot_be_sent_is_declined(answer: str) -> None:
    desk = three()
    desk.me.generated(answer, 1.0)
    desk.mine()
    (decline,) = desk.sent(0, Decline)
    assert decline.reason == "failed"
    assert not desk.sent(0, Commit)
    assert desk.reason.startswith("the model could not answer")


def test_an_answer_of_exactly_the_limit_is_sent() -> None:
    desk = three()
    desk.me.generated("é" * 32, 1.0)
    assert desk.me.state is State.COMMITTED


def test_a_model_that_fails_declines() -> None:
    desk = three()
    desk.me.failed("out of memory" * 100, 1.0)
    desk.mine()
    (decline,) = desk.sent(0, Decline)
    assert decline.detail == ("out of memory" * 100)[:256]
    assert desk.reason


def test_only_the_first_answer_counts() -> None:
    desk = three(State.COMMITTED)
    desk.me.generated("another", 1.0)
    desk.me.failed("late failure", 1.0)
    desk.me.judged([0.5], 1.0)
    assert desk.mine() == []
    assert desk.me.state is State.COMMITTED


# --- the Roster -------------------------------------------------------------------------------


def test_it_reveals_once_the_roster_holds_its_commit() -> None:
    desk = three(State.REVEALED)
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
    desk = three(State.COMMITTED)
    assert why in desk.refuses(desk.roster(entries=bend(desk.roster().entries)))


def test_a_roster_of_a_later_stage_is_refused() -> None:
    desk = three(State.COMMITTED)
    assert "later stage" in desk.refuses(desk.roster(stage=1))
    desk = three(State.COMMITTED)
    assert "later stage" in desk.refuses(desk.roster(previous=b"\x01" * 32))


def test_a_second_roster_is_refused() -> None:
    """It would let the asker see answers under one roster and fix another."""
    desk = three(State.REVEALED)
    second = desk.roster(entries=desk.roster().entries[:2])
    assert "Two different Rosters" in desk.refuses(second)


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
    desk = three(State.REVEALED)
    assert why in desk.refuses(desk.slate(**bend(desk)))


def test_an_oversize_answer_in_the_slate_is_refused() -> None:
    """A Reveal that opens its Commit, but holds more than the Invite allows."""
    desk = Desk("42", "x" * 65, "42.0")
    desk.machines[1]._invite = changed(desk.invite, answer_bytes=100)
    desk.up_to(State.REVEALED)
    assert "over 64 bytes" in desk.refuses(desk.slate())


def test_a_missing_reveal_of_another_is_no_reason_to_refuse() -> None:
    desk = three(State.REVEALED)
    desk.me.receive(desk.seal(desk.slate(**_with(desk, 2, reveal=None))), 1.0)
    desk.mine()
    assert sorted(_judge(desk).answers) == ["41", "42"]
    assert desk.reason == ""


def test_a_second_slate_is_refused() -> None:
    desk = three(State.JUDGING)
    assert "Two different Slates" in desk.refuses(desk.slate(**_with(desk, 1, reveal=None)))
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
    desk = three(State.JUDGING)
    desk.me.judged([verdict, 0.5], 2.0)
    desk.mine()
    (ballot,) = desk.sent(0, Ballot)
    assert [row.p for row in ballot.rows] == [p, MICRO // 2]


@pytest.mark.parametrize("verdicts", [[], [0.5], [0.5] * 3])
def test_the_wrong_number_of_verdicts_abstains(verdicts: list[float]) -> None:
    desk = three(State.JUDGING)
    desk.me.judged(verdicts, 2.0)
    desk.mine()
    (ballot,) = desk.sent(0, Ballot)
    assert [row.p for row in ballot.rows] == [None, None]


def test_a_judge_that_fails_abstains_on_every_row() -> None:
    desk = three(State.JUDGING)
    desk.me.failed("out of memory", 2.0)
    desk.mine()
    (ballot,) = desk.sent(0, Ballot)
    assert {(row.first, row.second, row.p) for row in ballot.rows} == {(0, 1, None), (1, 0, None)}
    assert desk.me.state is State.VOTED


def test_only_one_ballot_a_wave() -> None:
    desk = three(State.VOTED)
    desk.me.judged([0.5, 0.5], 2.0)
    desk.me.failed("late", 2.0)
    assert desk.mine() == []


# --- waves ------------------------------------------------------------------------------------


def test_the_next_wave_has_new_pairs_and_follows_the_last_close() -> None:
    desk = six_classes().up_to(State.VOTED)
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
    assert "there cannot be" in desk.refuses(desk.wave_close(2, more=True))


def test_its_rows_are_those_that_the_seed_gives() -> None:
    desk = six_classes().up_to(State.VOTED)
    opened = desk.me._opened
    assert opened is not None
    (ballot,) = desk.sent(0, Ballot)
    pairs = assigned(opened.seed, 6, 12, desk.me.peer, 0)
    assert tuple((row.first, row.second) for row in ballot.rows) == pairs


def test_a_wave_that_closes_early_stops_the_work() -> None:
    desk = six_classes().up_to(State.JUDGING)
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
    desk = six_classes().up_to(State.JUDGING)
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
    desk = three(State.VOTED)
    assert why in desk.refuses(desk.wave_close(**fields))


def test_a_second_wave_close_is_refused() -> None:
    desk = three(State.JUDGED)
    assert "Two different WaveCloses" in desk.refuses(desk.wave_close(ballots=bytes(32)))


def test_acks_of_its_own_ballots_are_kept_once() -> None:
    desk = three(State.VOTED)
    for message in (Ack(desk.round, bytes(32)), desk.ack(1), desk.ack(0), desk.ack(0)):
        desk.me.receive(desk.seal(message), 2.0)
    assert [ack.message for ack in desk.me.acks] == [desk.ack(0)]
    assert desk.reason == ""
