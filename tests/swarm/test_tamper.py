"""No byte of a receipt can be changed, and what its asker signs anew must still follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.codec import encode
from protocol.ids import short_peer
from protocol.messages import MICRO, Ack, Ballot, WaveClose, ballot_set, opened, seal
from protocol.receipt import (
    AnswerClass,
    Core,
    Fault,
    Heard,
    Judging,
    Opening,
    ReceiptFile,
    Rule,
    Standing,
    Tally,
    opening_digest,
    read,
    write,
)
from swarm.consensus import DEFAULT_WEIGHTED, EQUAL, UNCALIBRATED, decide
from swarm.findings import Report
from swarm.reputation import NEUTRAL, weigh
from swarm.seeded import Stream
from swarm.verify import verify
from tests.protocol.arbitrary import altered, arbitrary
from tests.swarm.builders import changed, signed
from tests.swarm.test_round import honest
from tests.swarm.virtual import VirtualSwarm, signer, standing


@cache
def three() -> VirtualSwarm:
    """A round of three that are proven, each a little more than the last."""
    return VirtualSwarm(
        honest(3),
        rule=changed(DEFAULT_WEIGHTED, calibration_rounds=40),
        standings={f"p{n}": standing(f"p{n}", 80 + n, 100, 50, 80) for n in range(3)},
    ).run()


@cache
def twelve() -> VirtualSwarm:
    """A round of two waves, one peer silent."""
    peers = honest(12)
    peers[5].dies_when = "COMMITTED"
    return VirtualSwarm(peers).run()


@cache
def hurried() -> VirtualSwarm:
    """A round that may stop early."""
    return VirtualSwarm(honest(3), rule=changed(UNCALIBRATED, stop=900_000)).run()


@cache
def parts(swarm: VirtualSwarm) -> tuple[Core, Judging, Opening]:
    """What a receipt holds."""
    _, core, opening = read(swarm.receipt)
    assert core.judging is not None
    assert opening is not None
    return core, core.judging, opening


def _problem(receipt: bytes) -> str:
    (problem,) = verify(receipt).problems
    return problem


# --- without the key ----------------------------------------------------------------------------


def test_every_flipped_bit_is_refused() -> None:
    """One bit of each byte of a whole receipt."""
    receipt = three().receipt
    assert verify(receipt).ok
    stream = Stream(b"bits")
    for at in range(len(receipt)):
        flipped = bytearray(receipt)
        flipped[at] ^= 1 << stream.below(8)
        assert not verify(bytes(flipped)).ok, f"byte {at}"


def test_every_cut_is_refused() -> None:
    receipt = three().receipt
    for size in range(0, len(receipt), 7):
        assert not verify(receipt[:size]).ok
    assert not verify(receipt + b"\xc0").ok


def test_what_was_damaged_is_said() -> None:
    receipt = three().receipt
    file, core, _ = read(receipt)
    assert file.opening is not None
    assert _problem(b"").startswith("The file is not a receipt, or was damaged: ")
    forged = changed(file.core, signature=bytes(64))
    assert _problem(write(forged, file.opening)).startswith("The signed core was changed: ")
    assert _problem(write(file.core, file.opening + b"\x00")) == (
        "The opening (texts and messages) was changed after signing."
    )
    junk = changed(core, opening=opening_digest(b"junk"))
    assert _problem(write(three().asker.seal(encode(junk)), b"junk")).startswith(
        "The opening is not readable: "
    )
    other = signer("somebody").seal(file.core.body)
    assert _problem(write(other, file.opening)).startswith("The Roster is not signed by ")


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_any_bytes_get_a_report(data: bytes) -> None:
    assert not verify(data).ok


@settings(max_examples=100)
@given(st.data())
def test_any_splice_gets_a_report(data: st.DataObject) -> None:
    receipt = data.draw(st.sampled_from([three().receipt, twelve().receipt]))
    start = data.draw(st.integers(0, len(receipt)))
    end = data.draw(st.integers(start, min(len(receipt), start + 200)))
    spliced = receipt[:start] + data.draw(st.binary(max_size=8)) + receipt[end:]
    assert verify(spliced).ok == (spliced == receipt)


# --- with the asker's key -------------------------------------------------------------------------

KEYS = {who.peer: who for who in map(signer, ["asker", *(f"p{n}" for n in range(12))])}


@settings(max_examples=60)
@given(arbitrary(ReceiptFile), arbitrary(Core), arbitrary(Opening))
def test_any_signed_core_gets_a_report(file: Any, core: Core, opening: Opening) -> None:
    assert not verify(encode(file)).ok
    verify(signed(three(), core, opening))
    verify(signed(three(), core, None))


@settings(max_examples=250)
@given(st.data())
def test_any_change_that_is_signed_anew_gets_a_report(data: st.DataObject) -> None:
    """Every key of the round in one hand. No crash; and no other result with the opening."""
    swarm = data.draw(st.sampled_from([three(), twelve(), hurried()]))
    core, _, opening = parts(swarm)
    bent: Core = data.draw(altered(core, Core, KEYS))
    report = verify(signed(swarm, bent, opening))
    if report.ok:
        assert changed(bent, opening=core.opening) == core
    verify(signed(swarm, bent, None))


@settings(max_examples=120)
@given(st.data())
def test_any_other_opening_gets_a_report(data: st.DataObject) -> None:
    swarm = data.draw(st.sampled_from([three(), twelve(), hurried()]))
    core, _, opening = parts(swarm)
    bent: Opening = data.draw(altered(opening, Opening, KEYS))
    verify(signed(swarm, core, bent))


Change = Callable[[Core, Judging], Core]


def _result(**fields: object) -> Change:
    return lambda core, judging: changed(core, result=changed(core.result, **fields))


def _judging(**fields: object) -> Change:
    return lambda core, judging: changed(core, judging=changed(judging, **fields))


def _standing(**fields: object) -> Change:
    return lambda core, judging: changed(
        core, standings=(changed(core.standings[0], **fields), *core.standings[1:])
    )


BENT: dict[str, tuple[Change, str]] = {
    "a weight": (
        lambda core, judging: changed(core, weights=(
            changed(core.weights[0], answer=core.weights[0].answer + 1), *core.weights[1:])),
        "The weight of ",
    ),
    "a weight in one bin": (
        lambda core, judging: changed(core, weights=(
            changed(core.weights[0], judge=(*core.weights[0].judge[:4], 0)), *core.weights[1:])),
        "The weight of ",
    ),
    "a trust": (
        lambda core, judging: changed(core, weights=(
            changed(core.weights[0], trust=(0, *core.weights[0].trust[1:])), *core.weights[1:])),
        "The weight of ",
    ),
    "a weight more": (
        lambda core, judging: changed(core, weights=(*core.weights, NEUTRAL)),
        "There are not as many weights as seats.",
    ),
    "counts": (_standing(judge=(Tally(0, 200 * MICRO),) * 5), "The weight of "),
    "counts of answers": (_standing(answer=Tally(0, 200 * MICRO)), "The weight of "),
    "a divisor": (_standing(divisor=2 * MICRO), "The weight of "),
    "an admission": (_standing(admitted=False), "The weight of "),
    "counts twice": (
        lambda core, judging: changed(core, standings=(core.standings[0], *core.standings)),
        "The counts are not sorted, or a peer's are there twice.",
    ),
    "no counts": (
        lambda core, judging: changed(core, standings=core.standings[1:]),
        " has a seat but was not invited.",
    ),
    "the version": (
        lambda core, judging: changed(core, version=2),
        "It is of version 2, this reads 1.",
    ),
    "an ack of another round": (
        lambda core, judging: changed(core, judging=changed(judging, acks=(
            seal(signer("asker"), changed(opened(judging.acks[0]).message, round=bytes(32))),
            *judging.acks[1:],
        ))),
        "An Ack is of another round.",
    ),
    "somebody else to blame": (
        lambda core, judging: changed(
            core, faults=(Fault(b"\xee" * 32, "commit", "lost", ""),)
        ),
        "is blamed, but not invited.",
    ),
    "the rule": (
        lambda core, judging: changed(core, rule=changed(core.rule, name="uncalibrated")),
        "The weight of ",
    ),
    "the rule and its weights": (
        lambda core, judging: changed(
            core, rule=UNCALIBRATED, weights=(NEUTRAL,) * len(core.weights)),
        "The rule is stated as uncalibrated, but the counts call for equal.",
    ),
    "theta": (
        lambda core, judging: changed(core, rule=changed(core.rule, theta=(0, MICRO, 0))),
        "The result does not follow from the ballots",
    ),
    "the winner to no class": (_result(winner=3), "The winner has no score."),
    "the winner": (_result(winner=2), "The result does not follow from the ballots"),
    "a score": (_result(scores=(0, 0, 0)), "The result does not follow from the ballots"),
    "the confidence": (_result(confidence=MICRO), "The result does not follow from the ballots"),
    "the plurality": (_result(plurality=1), "The result does not follow from the ballots"),
    "the outcome": (_result(outcome="no-consensus"), "The result does not follow"),
    "the outcome to partial": (_result(outcome="partial"), "A round without an end has a result."),
    "the seed": (_judging(seed=bytes(32)), " is not on the pairs of the seed."),
    "the slate": (_judging(slate=bytes(32)), "Wave 0 does not fit the round."),
    "classes merged": (
        _judging(classes=(AnswerClass((0, 1)), AnswerClass((2,)))),
        " is not on the pairs of the seed.",
    ),
    "a seat in two classes": (
        _judging(classes=(AnswerClass((0, 1)), AnswerClass((1,)), AnswerClass((2,)))),
        "The classes do not divide the seats.",
    ),
    "a seat that there is not": (
        _judging(classes=(AnswerClass((0,)), AnswerClass((1,)), AnswerClass((3,)))),
        "The classes do not divide the seats.",
    ),
    "a seat in no class": (
        _judging(classes=(AnswerClass((0,)), AnswerClass((1,)))),
        "The number of missing Reveals does not follow from the classes.",
    ),
    "the missing reveals": (
        _judging(missing_reveals=2**48),
        "The number of missing Reveals does not follow from the classes.",
    ),
    "no waves": (_judging(waves=(), acks=()), "The result does not follow from the ballots"),
    "an ack left out": (
        lambda core, judging: changed(core, judging=changed(judging, acks=judging.acks[1:])),
        "The Acks are not for exactly these Ballots.",
    ),
    "the judging": (
        lambda core, judging: changed(core, judging=None),
        "There was no judging, yet there is a result.",
    ),
    "no roster": (
        lambda core, judging: changed(core, roster=None), "There are Commits but no Roster."),
    "no roster and no commits": (
        lambda core, judging: changed(core, roster=None, commits=(), weights=()),
        "The classes do not divide the seats.",
    ),
    "a commit left out": (
        lambda core, judging: changed(core, commits=core.commits[1:]),
        "A Commit of the Roster is left out.",
    ),
    "commits in another order": (
        lambda core, judging: changed(core, commits=core.commits[::-1]), " is not signed by "),
    "another round": (
        lambda core, judging: changed(core, round=bytes(32)), "The Roster is of another round."),
}  # fmt: skip


@pytest.mark.parametrize("bent", BENT)
@pytest.mark.parametrize("detached", [False, True], ids=["whole", "detached"])
def test_a_bent_core_is_refused_though_signed(bent: str, detached: bool) -> None:
    change, why = BENT[bent]
    core, judging, opening = parts(three())
    problem = _problem(signed(three(), change(core, judging), None if detached else opening))
    assert why in problem


def test_a_bent_weight_names_its_peer() -> None:
    core, judging, opening = parts(three())
    bent = BENT["a weight"][0](core, judging)
    peer = core.standings[0].peer
    assert _problem(signed(three(), bent, opening)).startswith(f"The weight of {short_peer(peer)} ")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda core: changed(core, swarm="other"), "swarm"),
        (lambda core: changed(core, rule=changed(core.rule, stop=MICRO)), "rule"),
        (lambda core: changed(core, faults=()), "faults"),
        (
            lambda core: changed(core, stages=(13,), standings=(*core.standings, Standing(
                b"\xff" * 32, (Tally(0, 0),) * 5, Tally(0, 0), False, MICRO, "asker"))),
            "stages, standings",
        ),
        (
            lambda core: changed(core, judging=changed(core.judging, slate_signature=b'x' * 64)),
            "judging",
        ),
    ],
)  # fmt: skip
def test_what_only_the_opening_shows_is_checked_against_it(
    change: Callable[[Core], Core], part: str
) -> None:
    core, _, opening = parts(twelve())
    problem = _problem(signed(twelve(), change(core), opening))
    assert problem == f"The replay differs from the receipt in: {part}."


def test_a_slate_that_the_asker_did_not_sign_is_refused() -> None:
    core, judging, opening = parts(twelve())
    bent = changed(core, judging=changed(judging, slate_signature=bytes(64)))
    assert "The Slate is not valid" in _problem(signed(twelve(), bent, opening))


@pytest.mark.parametrize(
    "bend",
    [{"theta": (0, -MICRO, 0)}, {"calibration_rounds": 30}, {"none": (10**8, 0)}],
    ids=lambda bend: next(iter(bend)),
)
def test_the_uncalibrated_rule_has_no_coefficients_to_choose(bend: dict[str, object]) -> None:
    """A receipt made with other coefficients follows from them, and is refused all the same."""
    bent = changed(UNCALIBRATED, **bend)
    swarm = VirtualSwarm(honest(3), rule=bent).run()
    core, _, opening = parts(swarm)
    assert core.rule == UNCALIBRATED, "the machine does not use them"
    problem = _problem(signed(swarm, changed(core, rule=bent), opening))
    assert problem == "The coefficients are not those of the uncalibrated rule."


def _decided_by(rule: Rule, standings: tuple[Standing, ...], detached: bool) -> Report:
    """The report on the round of three, decided anew by another rule or other counts.

    Weights and result follow, and the asker has signed it: a lie without a contradiction.
    """
    core, _, opening = parts(three())
    weights = weigh(rule.name, standings)
    result = decide(replace(three().round.case(), rule=rule, weights=weights))
    bent = changed(core, rule=rule, standings=standings, weights=weights, result=result)
    return verify(signed(three(), bent, None if detached else opening))


@pytest.mark.parametrize("detached", [False, True], ids=["whole", "detached"])
@pytest.mark.parametrize(
    ("rule", "counts", "why"),
    [
        (UNCALIBRATED, {}, "stated as uncalibrated, but the counts call for equal."),
        (DEFAULT_WEIGHTED, {"admitted": False},
         "stated as weighted, but the counts call for uncalibrated."),
        (EQUAL, {"admitted": False}, "stated as equal, but the counts call for uncalibrated."),
        (DEFAULT_WEIGHTED, {"judge": (Tally(0, 100 * MICRO),) * 5},
         "stated as weighted, but the counts call for equal."),
    ],
    ids=["nobody is proven", "a quorum", "a quorum of equals", "proven by nothing"],
)  # fmt: skip
def test_a_rule_that_its_own_counts_contradict_is_refused(
    rule: Rule, counts: dict[str, object], why: str, detached: bool
) -> None:
    """The asker cannot drop what is known of the seats: quorum and proof are in the counts."""
    core, _, _ = parts(three())
    standings = tuple(changed(one, **counts) for one in core.standings)
    (problem,) = _decided_by(rule, standings, detached).problems
    assert problem.startswith("The rule is ")
    assert problem.endswith(why)


def test_what_counts_an_asker_states_is_its_own_word() -> None:
    """Other counts, or equal weights in place of them, hold by themselves; not with the plan."""
    core, _, _ = parts(three())
    better = tuple(changed(one, judge=(Tally(10**8, 10**8),) * 5) for one in core.standings)
    for rule, standings in ((EQUAL, core.standings), (core.rule, better)):
        report = _decided_by(rule, standings, detached=True)
        assert report.ok, report.problems
        assert "Counts and coefficients of the rule are the asker's word." in report.notes
        assert (rule.name == "equal") == any(
            note.startswith("The admitted weigh the same: ") for note in report.notes
        )
        (problem,) = _decided_by(rule, standings, detached=False).problems
        assert problem.startswith("The replay differs from the receipt in: ")


@pytest.mark.parametrize(
    "rule",
    [
        changed(DEFAULT_WEIGHTED, theta=(-(10**8),) * 3, none=(-(10**8),) * 2, own=0),
        changed(DEFAULT_WEIGHTED, theta=(10**8,) * 3, none=(10**8,) * 2, calibration_rounds=2**48),
        changed(EQUAL, theta=(10**8, -(10**8), 10**8), calibration_rounds=30, stop=0),
    ],
    ids=["least", "most", "mixed"],
)
@pytest.mark.parametrize("divisor", [MICRO, 1000 * MICRO])
def test_the_oddest_rule_and_counts_are_computed(rule: Rule, divisor: int) -> None:
    core, _, _ = parts(three())
    for total in (0, 100 * MICRO, 2**48):
        standings = tuple(
            changed(one, judge=(Tally(total, total),) * 5, divisor=divisor)
            for one in core.standings
        )
        report = _decided_by(rule, standings, detached=True)
        lawful = min(rule.theta) >= 0 and (rule.name != "equal" or rule.theta[0] == 0)
        assert report.ok == (lawful and (total > 0 or rule.name == "equal")), report.problems


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (changed(DEFAULT_WEIGHTED, theta=(0, 1, -1)), "A coefficient of the rule is negative."),
        (changed(EQUAL, theta=(1, 1, 0)), "The equal rule knows neither votes nor evidence."),
        (changed(EQUAL, theta=(0, 1, 1)), "The equal rule knows neither votes nor evidence."),
    ],
)
def test_coefficients_that_no_fit_gives_are_refused(rule: Rule, why: str) -> None:
    """An asker could have what is for an answer count against it."""
    core, _, _ = parts(three())
    assert _decided_by(rule, core.standings, detached=True).problems == [why]


@pytest.mark.parametrize("detached", [False, True], ids=["whole", "detached"])
@pytest.mark.parametrize(
    "bend", [{"winner": 40}, {"winner": 2, "shares": (1, 2)}, {"winner": 0, "scores": ()}],
    ids=["no class", "no share", "no score"],
)  # fmt: skip
def test_a_winner_beyond_the_classes_is_refused_under_a_threshold(
    bend: dict[str, object], detached: bool
) -> None:
    """Whether judging could stop is asked of the winner's share, so that has to be there."""
    core, _, opening = parts(hurried())
    bent = changed(core, result=changed(core.result, **bend))
    problem = _problem(signed(hurried(), bent, None if detached else opening))
    assert problem == "The winner has no score."


def test_other_verdicts_need_their_judge() -> None:
    """The asker cannot write a ballot: neither unsigned nor signed by itself."""
    core, judging, opening = parts(three())
    (wave,) = judging.waves
    ballot = opened(wave.ballots[0]).message
    assert isinstance(ballot, Ballot)
    other = changed(ballot, rows=tuple(changed(row, p=0) for row in ballot.rows))
    own = wave.ballots[0]
    forged = changed(own, body=encode(other))
    for fake, why in (
        (forged, "is not valid: The signature does not match"),
        (seal(three().asker, other), "is of no judge of this round"),
    ):
        ballots = (fake, *wave.ballots[1:])
        close = seal(
            three().asker,
            WaveClose(
                core.round, judging.slate, 0, ballot_set(tuple(b.digest for b in ballots)), False
            ),
        )
        ack = seal(three().asker, Ack(core.round, fake.digest))
        bent = changed(
            core,
            judging=changed(
                judging,
                waves=(changed(wave, close=close, ballots=ballots),),
                acks=(ack, *judging.acks[1:]),
            ),
        )
        assert why in _problem(signed(three(), bent, opening))


@pytest.mark.parametrize(
    "fields", [{"round": bytes(32)}, {"slate": bytes(32)}, {"wave": 1}, {"follows": b"\x01" * 32}]
)
def test_a_ballot_from_elsewhere_is_refused(fields: dict[str, object]) -> None:
    """One that its judge did sign, but for another round, Slate or wave."""
    core, judging, opening = parts(three())
    (wave,) = judging.waves
    ballot = opened(wave.ballots[0]).message
    foreign = seal(KEYS[wave.ballots[0].signer], changed(ballot, **fields))
    ballots = (foreign, *wave.ballots[1:])
    fixed = ballot_set(tuple(one.digest for one in ballots))
    close = seal(three().asker, WaveClose(core.round, judging.slate, 0, fixed, False))
    acks = (seal(three().asker, Ack(core.round, foreign.digest)), *judging.acks[1:])
    waves = (changed(wave, close=close, ballots=ballots),)
    bent = changed(core, judging=changed(judging, waves=waves, acks=acks))
    assert "belongs elsewhere" in _problem(signed(three(), bent, None))
    assert "belongs elsewhere" in _problem(signed(three(), bent, opening))


def test_a_ballot_counted_twice_is_refused() -> None:
    core, judging, opening = parts(three())
    (wave,) = judging.waves
    ballots = (wave.ballots[0], *wave.ballots)
    fixed = ballot_set(tuple(ballot.digest for ballot in ballots))
    close = seal(three().asker, WaveClose(core.round, judging.slate, 0, fixed, False))
    bent = changed(
        core,
        judging=changed(
            judging,
            waves=(changed(wave, close=close, ballots=ballots),),
            acks=(judging.acks[0], *judging.acks),
        ),
    )
    assert "is there twice" in _problem(signed(three(), bent, opening))


def test_waves_in_another_order_are_refused() -> None:
    core, judging, opening = parts(twelve())
    bent = changed(core, judging=changed(judging, waves=judging.waves[::-1]))
    assert _problem(signed(twelve(), bent, opening)) == "Wave 0 does not fit the round."


def test_a_wave_over_other_ballots_is_refused() -> None:
    core, judging, opening = parts(three())
    (wave,) = judging.waves
    bent = changed(
        core,
        judging=changed(
            judging,
            waves=(changed(wave, ballots=wave.ballots[1:]),),
            acks=judging.acks[1:],
        ),
    )
    assert _problem(signed(three(), bent, opening)) == "Wave 0 was closed over other Ballots."


def test_a_forged_message_in_the_journal_is_a_problem() -> None:
    core, _, opening = parts(three())
    first = opening.journal[0]
    assert isinstance(first, Heard)
    forged = changed(first, envelope=changed(first.envelope, signature=bytes(64)))
    bent = changed(opening, journal=(forged, *opening.journal[1:]))
    problem = _problem(signed(three(), core, bent))
    assert problem.startswith("The journal holds a bad message: Signer ")


def test_a_journal_that_stops_is_a_problem() -> None:
    core, _, opening = parts(three())
    bent = changed(opening, journal=opening.journal[:-1])
    assert _problem(signed(three(), core, bent)) == "The journal ends before the round does."


def test_another_invite_is_a_problem() -> None:
    core, _, opening = parts(three())
    invite = opened(opening.invite).message
    other = seal(three().asker, changed(invite, question="What else?"))
    assert _problem(signed(three(), core, changed(opening, invite=other))) == (
        "The Invite is of another round."
    )
    foreign = seal(signer("p0"), invite)
    bent = changed(core, round=foreign.digest)
    assert not verify(signed(three(), bent, changed(opening, invite=foreign))).ok


def test_another_plan_is_a_problem() -> None:
    core, _, opening = parts(three())
    for fields in ({"question": "x"}, {"secret": bytes(32)}, {"nonce": bytes(32)}):
        bent = changed(opening, plan=changed(opening.plan, **fields))
        assert not verify(signed(three(), core, bent)).ok
