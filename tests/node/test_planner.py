"""Plans: who is asked on what terms, when one is asked alone, and why nobody can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.knowledge import Knowledge
from node.planner import (
    ANSWER_BYTES,
    ANSWER_TOKENS,
    COMMITTEE,
    SOLO_SHARE,
    UNTRIED_TOKENS,
    Planned,
    Planner,
    Terms,
)
from protocol import limits
from protocol.codec import decode, encode
from protocol.errors import NoPeersError
from protocol.ids import PeerId, short_peer
from protocol.ledger import HINT_DAY_S, Profile
from protocol.messages import MICRO, Model
from protocol.methods import AskParams
from protocol.receipt import Plan
from swarm.evidence import SOLO_FEWEST
from swarm.registry import Registry
from swarm.topics import Topics
from swarm.trial import Trial
from tests.fakes.own_log import NOTHING
from tests.fakes.trial_records import FakeTrialRecords
from tests.swarm.test_hints import days, hints, word
from tests.swarm.trials import mark, trial
from tests.swarm.virtual import signer

NOW = 1_700_000_000
OWN = "own"
TOPICS = Topics([("add", "What is 5 plus 8?"), ("date", "Which day is it?")] * 9)
QUESTION = "What is 5 plus 8?"
TERMS = Terms(60.0, 2)


def peer(name: str) -> PeerId:
    return signer(name).peer


class Entropy:
    """Random bytes, the same ones each time."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self, count: int) -> bytes:
        self.drawn += 1
        blocks = (sha256(b"%d/%d" % (self.drawn, at)).digest() for at in range(-(-count // 32)))
        return b"".join(blocks)[:count]


class Excluded:
    """What of the conduct a planner asks."""

    def __init__(self, *names: str) -> None:
        self._peers = frozenset(map(peer, names))

    def excluded(self) -> frozenset[PeerId]:
        """These."""
        return self._peers


def claimed(name: str, *, serves: bool = True, **claims: Any) -> Profile:
    """What a node says that it runs."""
    values: dict[str, Any] = {"parameters": 0, "context_tokens": 4096} | claims
    return Profile(Model(name, values.pop("family", name), ""), serves=serves, **values)


class Table:
    """A planner, and who and what it knows of."""

    def __init__(
        self,
        *names: str,
        trials: Sequence[Trial] = (),
        struck: Sequence[str] = (),
        trusted: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self.registry = Registry(peer(OWN), claimed(OWN))
        self.knowledge = Knowledge(
            FakeTrialRecords(),
            TOPICS,
            b"seed",
            trials=trials,
            trusted=map(peer, trusted),
            clock=lambda: float(NOW),
        )
        for name in names:
            self.join(name)
        conduct: Any = Excluded(*struck)
        values: dict[str, Any] = {"entropy": Entropy()} | options
        self.planner = Planner(
            self.registry, conduct, self.knowledge, "friends", peer(OWN), **values
        )

    def join(self, name: str, *, serves: bool = True, **claims: Any) -> None:
        """Somebody connects."""
        self.registry.connected(peer(name), "")
        self.registry.learn(
            peer(name), replace(NOTHING, profile=claimed(name, serves=serves, **claims))
        )

    def plan(self, question: str = QUESTION, terms: Terms = TERMS) -> Planned:
        """The plan for a question."""
        return self.planner.plan(question, terms)

    def asked(self, terms: Terms = TERMS, question: str = QUESTION) -> set[PeerId]:
        """Who is invited."""
        return {one.peer for one in self.plan(question, terms).plan.invited}


def names(count: int) -> list[str]:
    return [f"p{number}" for number in range(count)]


def proven(*good: str, times: int = 12, topic: str = "add", **fields: Any) -> list[Trial]:
    """Rounds in which these were good."""
    marks = [mark(name, (6, 6), **fields) for name in good]
    return [trial(*marks, topic=topic, at=NOW) for _ in range(times)]


# --- the plan -------------------------------------------------------------------------------------


def test_a_plan_of_strangers() -> None:
    table = Table(*names(3))
    planned = table.plan()
    plan = planned.plan
    assert {one.peer for one in plan.invited} == {peer(name) for name in (OWN, *names(3))}
    assert all(not one.admitted for one in plan.invited)
    assert plan.rule.name == "equal"
    assert (plan.swarm, plan.question, plan.topic) == ("friends", QUESTION, "add")
    assert (plan.answer_bytes, plan.answer_tokens) == (ANSWER_BYTES, ANSWER_TOKENS)
    assert (plan.min_answers, plan.solo, planned.solo) == (2, False, None)
    assert plan.phases.commit + plan.phases.reveal + plan.phases.judge <= 60_000
    assert decode(encode(plan), Plan) == plan


def test_all_chance_is_in_the_plan_and_fresh() -> None:
    one, other = Table(*names(12)), Table(*names(12))
    plans = [one.plan().plan for _ in range(3)]
    assert plans == [other.plan().plan for _ in range(3)]
    secrets = [secret for plan in plans for secret in (plan.nonce, plan.secret)]
    assert len(set(secrets)) == 6
    assert {len(secret) for secret in secrets} == {32}
    assert len({plan.invited for plan in plans}) > 1, "who is asked is drawn anew"


def test_what_a_question_is_about_is_read_off_its_text() -> None:
    table = Table(*names(2))
    assert table.plan("Which day is it?").plan.topic == "date"
    assert table.plan("Why?").plan.topic == ""


def test_the_evidence_in_the_plan_is_of_the_topic() -> None:
    good = names(4)
    table = Table(*good, trials=proven(*good))
    on_topic, off_topic = table.plan().plan, table.plan("Why?").plan
    assert (on_topic.rule.name, off_topic.rule.name) == ("weighted", "equal")
    by_peer = {one.peer: one for one in on_topic.invited}
    assert by_peer[peer("p0")].admitted
    assert not by_peer[peer(OWN)].admitted
    assert on_topic.invited == table.knowledge.book.standings(
        [one.peer for one in on_topic.invited], "add"
    )


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_what_a_verdict_on_ones_own_answer_weighs(weight: float) -> None:
    assert Table(*names(2), own_weight=weight).plan().plan.rule.own == round(MICRO * weight)


# --- terms ----------------------------------------------------------------------------------------


def test_what_a_question_does_not_say_is_as_usual() -> None:
    assert TERMS.of(AskParams("Why?")) == TERMS
    said = AskParams("Why?", 5.0, 3, 4, 64, 2.5)
    assert TERMS.of(said) == Terms(5.0, 3, 4, 64, 2.5)


def test_fewer_peers_than_usually_answer_are_enough() -> None:
    assert TERMS.of(AskParams("Why?", peers=1)).min_answers == 1
    assert TERMS.of(AskParams("Why?", peers=5)).min_answers == 2
    assert TERMS.of(AskParams("Why?", peers=5, min_answers=4)).min_answers == 4


@pytest.mark.parametrize("least", [1, 2, 3])
def test_fewer_peers_than_are_to_answer_is_a_contradiction(least: int) -> None:
    assert AskParams("Why?", peers=3, min_answers=least).peers == 3
    with pytest.raises(ValueError, match="fewer peers are to be asked than are to answer"):
        AskParams("Why?", peers=least, min_answers=least + 1)


@pytest.mark.parametrize("count", [1, 2, 5, 9, 30])
def test_at_most_so_many_are_asked(count: int) -> None:
    table = Table(*names(20))
    asked = table.asked(TERMS.of(AskParams("Why?", peers=count)))
    assert len(asked) == min(count, COMMITTEE)
    assert peer(OWN) in asked


def test_as_many_are_asked_as_are_to_answer() -> None:
    assert len(Table(*names(20)).asked(Terms(60.0, 15))) == 15


def test_an_answer_may_take_what_the_question_allows() -> None:
    assert Table(*names(2)).plan(terms=Terms(60.0, 2, None, 33)).plan.answer_tokens == 33


@pytest.mark.parametrize("seconds", [0.001, 0.5, 3.0, 900.0])
def test_the_phases_share_the_time(seconds: float) -> None:
    phases = Table(*names(2)).plan(terms=Terms(seconds, 2)).plan.phases
    whole = phases.commit + phases.reveal + phases.judge
    assert whole <= max(500, 1000 * seconds)
    assert whole >= 0.9 * min(1000 * seconds, limits.PHASE_MS)


def test_energy_is_shared_among_those_who_say_what_they_use() -> None:
    table = Table()
    for name, joules in (("mean", 1), ("lean", 0.1), ("silent", 0)):
        table.join(name, energy=round(joules * MICRO))
    assert table.asked(Terms(60.0, 1, energy_j=1.2 * UNTRIED_TOKENS)) == {
        peer(name) for name in (OWN, "mean", "lean", "silent")
    }
    tight = Terms(60.0, 1, energy_j=0.5 * UNTRIED_TOKENS)
    assert table.asked(tight) == {peer(name) for name in (OWN, "lean", "silent")}
    with pytest.raises(NoPeersError, match="over what is left of the energy budget"):
        table.plan(terms=Terms(60.0, 4, energy_j=0.5 * UNTRIED_TOKENS))


# --- who can be asked -----------------------------------------------------------------------------


def test_why_there_are_too_few() -> None:
    table = Table("struck", "small", struck=["struck"])
    table.join("small", context_tokens=10)
    table.join("idle", serves=False)
    with pytest.raises(NoPeersError) as raised:
        table.plan()
    text = raised.value.user_text()
    assert "1 of the 2 that were asked for are connected and able." in text
    assert f"{short_peer(peer('struck'))}: a proof excludes it" in text
    assert f"{short_peer(peer('small'))}: its context of 10 tokens is too small" in text
    assert short_peer(peer("idle")) not in text


def test_too_few_and_nobody_to_blame() -> None:
    with pytest.raises(NoPeersError) as raised:
        Table().plan()
    assert str(raised.value) == "1 of the 2 that were asked for are connected and able."


def test_of_many_reasons_a_few_are_told() -> None:
    table = Table(*names(20), struck=names(20))
    with pytest.raises(NoPeersError) as raised:
        table.plan()
    assert str(raised.value).count("a proof excludes it") == 3


def slow(name: str, milliseconds: int, size: int, times: int = 3) -> list[Trial]:
    return proven(name, times=times, latency_ms=milliseconds, answer_bytes=size)


def test_who_takes_too_long_is_left_out() -> None:
    table = Table("fast", "slow", trials=[*slow("fast", 100, 2), *slow("slow", 40_000, 2)])
    assert peer("slow") not in table.asked()
    assert peer("slow") in table.asked(Terms(120.0, 2))


def test_the_time_of_long_answers_is_one_of_tokens() -> None:
    """Forty seconds for 4 KB are a tenth of that for what an answer usually takes."""
    usual = [each for name in ("a", "b", "c") for each in slow(name, 100, 400)]
    table = Table("a", "b", "c", "long", trials=[*usual, *slow("long", 40_000, 4_000)])
    assert peer("long") in table.asked(Terms(10.0, 2))
    assert peer("long") not in table.asked(Terms(5.0, 2))


def test_a_few_that_ramble_do_not_make_the_others_too_slow() -> None:
    fair = [each for name in names(5) for each in slow(name, 8_000, 400)]
    table = Table(*names(5), trials=fair)
    ramble = [each for name in "xyz" for each in slow(name, 100, 16_384)]
    loud = Table(*names(5), *"xyz", trials=[*fair, *ramble])
    terms = Terms(17.0, 2)
    assert table.asked(terms) >= {peer(name) for name in names(5)}
    assert loud.asked(terms) >= {peer(name) for name in names(5)}


def test_newcomers_that_ramble_tell_nothing_of_the_admitted() -> None:
    fair = [each for name in names(3) for each in slow(name, 12_000, 400, times=12)]
    flood = [f"x{number}" for number in range(20)]
    ramble = [trial(mark(name, (1, 2), answer_bytes=16_384), topic="add", at=NOW) for name in flood]
    loud = Table(*names(3), trials=[*fair, *ramble])
    assert loud.asked(Terms(30.0, 2)) == {peer(name) for name in (OWN, *names(3))}


def test_the_proven_take_all_seats_but_those_kept_for_newcomers() -> None:
    good, new = names(9), [f"n{number}" for number in range(30)]
    table = Table(*good, *new, trials=proven(*good))
    newcomers = [table.asked() & {peer(name) for name in new} for _ in range(20)]
    assert {len(one) for one in newcomers} == {1}
    assert len(set.union(*newcomers)) > 5, "a different one each time"


def test_whom_a_verifier_knows_is_no_newcomer() -> None:
    """Though this node has not tried it."""
    good, new = names(7), [f"n{number}" for number in range(30)]
    table = Table(*good, *new, trials=proven(*good), trusted=["verifier"])
    said = days(hints(word("n0", 40, 40, rounds=40), day=NOW // HINT_DAY_S))
    before = sum(peer("n0") in table.asked() for _ in range(20))
    assert table.knowledge.book.skill(peer("n0"), "add")[0] < 0.3
    table.knowledge.hearsay.hear(peer("verifier"), said, NOW)
    assert table.knowledge.book.skill(peer("n0"), "add")[0] > 0.8
    assert before < 10
    assert all(peer("n0") in table.asked() for _ in range(20))


def test_strangers_order_newcomers_and_no_more() -> None:
    good, new = names(9), [f"n{number}" for number in range(30)]
    table = Table(*good, trials=proven(*good))
    for name in new:
        table.join(name, family="new")
    said = days(hints(word("n7", 9, 10), word("n8", 2, 10), day=NOW // HINT_DAY_S))
    table.knowledge.hearsay.hear(peer("stranger"), said, NOW)
    for _ in range(10):
        plan = table.plan().plan
        (newcomer,) = (one for one in plan.invited if one.peer in {peer(name) for name in new})
        assert newcomer.peer == peer("n7")
        assert not newcomer.admitted
        assert newcomer.answer.total == 0


# --- one alone ------------------------------------------------------------------------------------


def duels(*good: str, star: str = "star", times: int = 60, chosen: bool = False) -> list[Trial]:
    """Rounds in which one was right and the swarm was not; all are good judges."""
    marks = [mark(star, (6, 6)), *(mark(name, (6, 6), wrong=name) for name in good)]
    return [trial(*marks, topic="add", at=NOW, chosen=chosen, right=0) for _ in range(times)]


def alone(table: Table, times: int = 400, **fields: Any) -> int:
    """How many of so many plans ask one peer alone."""
    count = 0
    for _ in range(times):
        planned = table.plan(**fields)
        plan = planned.plan
        assert plan.solo == (planned.solo is not None) == (len(plan.invited) == 1)
        if planned.solo is not None:
            count += 1
            assert plan.invited[0].peer == planned.solo.peer == peer("star")
            assert plan.min_answers == 1
    return count


def test_where_one_beats_the_swarm_it_is_mostly_asked_alone() -> None:
    table = Table("star", *names(4), trials=duels(*names(4)))
    assert alone(table) == pytest.approx(400 * SOLO_SHARE / 100, abs=30)


def test_a_plan_for_one_tells_no_peer_why() -> None:
    """What an Invite shows of it is what it shows of any question."""
    table = Table("star", *names(4), trials=duels(*names(4)))
    plans = [table.plan().plan for _ in range(40)]
    solo, others = ([one for one in plans if one.solo == is_solo] for is_solo in (True, False))
    assert solo
    assert others
    for name in ("swarm", "question", "answer_bytes", "answer_tokens", "phases", "adaptive",
                 "stages"):  # fmt: skip
        assert {getattr(one, name) for one in solo} == {getattr(one, name) for one in others}


@pytest.mark.parametrize(
    "table",
    [
        Table("star", *names(4), trials=duels(*names(4)), solo_guard=False),
        Table("star", *names(4), trials=duels(*names(4), times=int(SOLO_FEWEST) // 2)),
        Table("star", *names(4), trials=duels(*names(4), chosen=True)),
        Table("star", *names(4), trials=duels(*names(4)), struck=["star"]),
        Table(*names(4), trials=duels(*names(4))),
        Table(
            "star",
            *names(4),
            trials=[trial(mark("star", (3, 6)), topic="add", chosen=False) for _ in range(60)],
        ),
    ],
    ids=["off", "seldom seen", "no better", "struck", "gone", "not admitted"],
)
def test_when_nobody_is_asked_alone(table: Table) -> None:
    assert alone(table, 100) == 0


def test_on_other_topics_nobody_is_asked_alone() -> None:
    table = Table("star", *names(4), trials=duels(*names(4)))
    assert alone(table, 100, question="Which day is it?") == 0
    assert alone(table, 100, question="Why?") == 0


# --- laws -----------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.sets(st.sampled_from(names(14)), max_size=14),
    st.sets(st.sampled_from(names(14)), max_size=5),
    st.builds(
        Terms,
        st.floats(0.001, 900.0),
        st.integers(1, 6),
        st.one_of(st.none(), st.integers(1, 48)),
        st.integers(1, limits.ANSWER_TOKENS),
        st.one_of(st.none(), st.floats(0.001, 1e9)),
    ),
    st.integers(0, 14),
)
def test_whatever_the_terms_a_plan_keeps_to_them(
    here: set[str], struck: set[str], terms: Terms, good: int
) -> None:
    table = Table(*sorted(here), trials=proven(*names(good)) if good else [], struck=sorted(struck))
    try:
        plan = table.plan(terms=terms).plan
    except NoPeersError:
        return
    asked = [one.peer for one in plan.invited]
    assert len(set(asked)) == len(asked)
    assert set(asked) <= {peer(name) for name in {OWN, *here} - struck}
    most = min(terms.peers or COMMITTEE, COMMITTEE)
    assert terms.min_answers <= len(asked) <= max(most, terms.min_answers)
    assert decode(encode(plan), Plan) == plan
    assert (
        msgspec.structs.replace(plan.rule, own=MICRO) == table.knowledge.book.rule("add", asked)[0]
    )
