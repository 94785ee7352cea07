"""Check a receipt with nothing but the receipt: no node, no network, no clock.

``verify`` checks signatures, the schedule of pairs, the weights against their counts and the
winner against the ballots, and says whose ballots are missing and whether they could have
flipped the winner. With the opening it also checks that every Reveal opens its Commit, that the
seed and the classes follow, and that the whole round replays to the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from protocol.envelope import Envelope, open_as
from protocol.errors import ProtocolError, ReceiptError
from protocol.ids import ZERO_DIGEST, Digest, PeerId, RoundId, peer_text, short_peer
from protocol.messages import (
    MICRO,
    Ack,
    Ballot,
    Commit,
    Invite,
    Roster,
    Row,
    Slate,
    WaveClose,
    ballot_set,
)
from protocol.receipt import Core, Judging, Opening, Result, Rule, Standing, Wave, read
from protocol.version import PROTOCOL
from swarm.ballots import is_confident
from swarm.consensus import Case, Vote, decide, rule_for, seat_weights, without_winner
from swarm.pairing import assigned, both_orders, waves
from swarm.progress import label
from swarm.replay import difference, fold

T = TypeVar("T")


@dataclass(slots=True)
class Report:
    """What verification found.

    Attributes:
        checked: what holds, a sentence each.
        notes: what a reader should know though nothing is wrong (missing ballots, no opening).
        problems: what does not hold; the first one ends the check.
        missing: ballots owed and absent.
    """

    checked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    missing: list[dict[str, object]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.problems

    @property
    def lines(self) -> tuple[str, ...]:
        """For people: what holds, then what to know."""
        return (*self.checked, *self.notes)

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "ok": self.ok,
            "checked": self.checked,
            "notes": self.notes,
            "problems": self.problems,
            "missing_ballots": self.missing,
        }


@dataclass(frozen=True, slots=True)
class _Judged:
    """What the core says was judged, with ballots opened."""

    core: Core
    judging: Judging
    seats: tuple[PeerId, ...]
    judges: tuple[PeerId, ...]
    classes: tuple[tuple[int, ...], ...]
    ballots: dict[tuple[PeerId, int], tuple[Row, ...]]

    def pairs(self, judge: PeerId, wave: int) -> tuple[tuple[int, int], ...]:
        seed, judges = self.judging.seed, len(self.judges)
        return assigned(seed, len(self.classes), judges, judge, wave)

    def case(self, ballots: dict[tuple[PeerId, int], tuple[Row, ...]]) -> Case:
        seat = {peer: index for index, peer in enumerate(self.seats)}
        votes = tuple(Vote(seat[peer], row) for (peer, _), rows in ballots.items() for row in rows)
        orders = both_orders(len(self.judges))
        return Case(self.core.rule, self.classes, self.core.weights, votes, orders)


def verify(data: bytes) -> Report:
    """Check a receipt file. What is wrong stands in the report; nothing is raised."""
    report = Report()
    try:
        file, core, opening = read(data)
        asker = file.core.signer
        report.checked.append(f"The core is signed by the asker, {peer_text(asker)}.")
        _check_core(core, asker, report)
        if opening is None:
            report.notes.append("The opening is detached: classes and seed are the asker's word.")
        else:
            _check_opening(core, asker, opening, report)
    except ReceiptError as error:
        report.problems.append(str(error))
    return report


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ReceiptError(otherwise)


def _open(envelope: Envelope, signer: PeerId, kind: type[T], what: str) -> T:
    _expect(envelope.signer == signer, f"{what} is not signed by {short_peer(signer)}.")
    try:
        return open_as(envelope, kind)
    except ProtocolError as error:
        raise ReceiptError(f"{what} is not valid: {error.user_text()}") from error


# --- the core ---------------------------------------------------------------------------------


def _check_core(core: Core, asker: PeerId, report: Report) -> None:
    _expect(core.version == PROTOCOL, f"It is of version {core.version}, this reads {PROTOCOL}.")
    seats = _check_roster(core, asker, report)
    _check_weights(core, seats, report)
    if core.judging is None:
        _expect(
            core.result in (without_winner("partial"), without_winner("cancelled")),
            "There was no judging, yet there is a result.",
        )
        report.notes.append(f"The round ended before judging: {core.result.outcome}.")
        return
    judged = _check_ballots(core, core.judging, asker, seats, report)
    _check_result(judged, report)
    _report_missing(judged, report)


def _check_roster(core: Core, asker: PeerId, report: Report) -> tuple[PeerId, ...]:
    if core.roster is None:
        _expect(not core.commits, "There are Commits but no Roster.")
        return ()
    roster = _open(core.roster, asker, Roster, "The Roster")
    _expect(roster.round == core.round, "The Roster is of another round.")
    _expect(len(roster.entries) == len(core.commits), "A Commit of the Roster is left out.")
    for entry, envelope in zip(roster.entries, core.commits, strict=True):
        what = f"The Commit of {short_peer(entry.peer)}"
        commit = _open(envelope, entry.peer, Commit, what)
        _expect(commit.round == core.round, f"{what} is of another round.")
        _expect(envelope.digest == entry.commit, f"{what} is not the Roster's.")
    peers = [entry.peer for entry in roster.entries]
    _expect(peers == sorted(set(peers)), "The Roster is not sorted, or repeats a peer.")
    report.checked.append(f"{len(peers)} peers committed, each under its own signature.")
    return tuple(peers)


def _check_weights(core: Core, seats: tuple[PeerId, ...], report: Report) -> None:
    standings = {one.peer: one for one in core.standings}
    invited = [one.peer for one in core.standings]
    _expect(invited == sorted(standings), "The counts are not sorted, or a peer's are there twice.")
    for fault in core.faults:
        _expect(fault.peer in standings, f"{short_peer(fault.peer)} is blamed, but not invited.")
    for peer in seats:
        _expect(peer in standings, f"{short_peer(peer)} has a seat but was not invited.")
    follows = seat_weights([standings[peer] for peer in seats])
    _expect(len(core.weights) == len(follows), "There are not as many weights as seats.")
    for peer, stated, derived in zip(seats, core.weights, follows, strict=True):
        _expect(
            stated == derived,
            f"The weight of {short_peer(peer)} is stated as {stated.judge / MICRO:g} judging and "
            f"{stated.answer / MICRO:g} answering, but its counts give "
            f"{derived.judge / MICRO:g} and {derived.answer / MICRO:g}.",
        )
    report.checked.append("The weights follow from the stated counts.")
    if seats:
        _check_rule(core.rule, [standings[peer] for peer in seats], report)


def _check_rule(rule: Rule, seats: list[Standing], report: Report) -> None:
    due = rule_for(seats)
    _expect(
        rule.name == due.name,
        f"The rule is stated as {rule.name}, but the counts call for {due.name}.",
    )
    if due.name == "weighted":
        report.notes.append("The coefficients of the rule are the asker's word.")
        return
    same = (rule.theta, rule.none, rule.calibration_rounds)
    _expect(
        same == (due.theta, due.none, due.calibration_rounds),
        "The coefficients are not those of the uncalibrated rule.",
    )
    report.notes.append("Nobody is proven yet: all weigh the same, and there is no confidence.")


def _check_ballots(
    core: Core, judging: Judging, asker: PeerId, seats: tuple[PeerId, ...], report: Report
) -> _Judged:
    classes = tuple(one.members for one in judging.classes)
    answered = sorted(seat for members in classes for seat in members)
    _expect(
        len(set(answered)) == len(answered) and all(seat < len(seats) for seat in answered),
        "The classes do not divide the seats.",
    )
    _expect(
        judging.missing_reveals == len(seats) - len(answered),
        "The number of missing Reveals does not follow from the classes.",
    )
    judges = tuple(seats[seat] for seat in answered)
    judged = _Judged(core, judging, seats, judges, classes, {})
    follows = ZERO_DIGEST
    for number, wave in enumerate(judging.waves):
        more = number + 1 < len(judging.waves)
        _check_wave(judged, number, wave, follows, more, asker)
        follows = wave.close.digest
    acks = [_open(envelope, asker, Ack, "An Ack") for envelope in judging.acks]
    _expect(all(ack.round == core.round for ack in acks), "An Ack is of another round.")
    acked = [ack.ballot for ack in acks]
    given = [ballot.digest for wave in judging.waves for ballot in wave.ballots]
    _expect(acked == given, "The Acks are not for exactly these Ballots.")
    report.checked.append(
        f"{len(given)} ballots are signed, acknowledged and on the pairs that the seed gives."
    )
    return judged


def _check_wave(
    judged: _Judged, number: int, wave: Wave, follows: Digest, more: bool, asker: PeerId
) -> None:
    slate, this_round = judged.judging.slate, judged.core.round
    close = _open(wave.close, asker, WaveClose, f"The close of wave {number}")
    stated = (close.round, close.slate, close.wave, close.more)
    _expect(stated == (this_round, slate, number, more), f"Wave {number} does not fit the round.")
    fixed = ballot_set(tuple(ballot.digest for ballot in wave.ballots))
    _expect(close.ballots == fixed, f"Wave {number} was closed over other Ballots.")
    for envelope in wave.ballots:
        judge = envelope.signer
        what = f"The Ballot of {short_peer(judge)}"
        ballot = _open(envelope, judge, Ballot, what)
        _expect(judge in judged.judges, f"{what} is of no judge of this round.")
        _expect((judge, number) not in judged.ballots, f"{what} is there twice.")
        place = (ballot.round, ballot.slate, ballot.wave, ballot.follows)
        _expect(place == (this_round, slate, number, follows), f"{what} belongs elsewhere.")
        shown = tuple((row.first, row.second) for row in ballot.rows)
        _expect(shown == judged.pairs(judge, number), f"{what} is not on the pairs of the seed.")
        judged.ballots[judge, number] = ballot.rows


def _check_result(judged: _Judged, report: Report) -> None:
    result, judging = judged.core.result, judged.judging
    if result.outcome in ("partial", "cancelled"):
        _expect(result == without_winner(result.outcome), "A round without an end has a result.")
        report.notes.append(f"The round ended early: {result.outcome}.")
        return
    stated = len(result.scores)
    _expect(result.winner is None or result.winner < stated, "The winner has no score.")
    derived = decide(judged.case(judged.ballots))
    _expect(
        derived == result,
        "The result does not follow from the ballots: stated "
        f"{_result_text(result)}, recomputed {_result_text(derived)}.",
    )
    confident = judging.stopped == "confident"
    whole = len(judging.waves) == waves(len(judged.classes), len(judged.judges))
    _expect(
        is_confident(judged.core.rule, derived) if confident else whole,
        "Judging stopped before it was done.",
    )
    report.checked.append(f"The result follows from the ballots: {_result_text(derived)}.")


def _result_text(result: Result) -> str:
    if result.winner is None:
        return result.outcome
    return f"{label(result.winner)} with {result.scores[result.winner] / MICRO:+.6f}"


def _report_missing(judged: _Judged, report: Report) -> None:
    missing = judged.judging.missing_reveals
    if missing:
        report.notes.append(
            f"{missing} committed and did not reveal: the asker could have chosen among at most "
            f"{2**missing} seeds."
        )
    owed = [
        (judge, wave)
        for wave in range(len(judged.judging.waves))
        for judge in judged.judges
        if (judge, wave) not in judged.ballots
    ]
    if not owed:
        return
    flips = _could_flip(judged, owed)
    for judge, wave in owed:
        who = peer_text(judge)
        report.missing.append({"judge": who, "wave": wave, "could_flip": flips})
        report.notes.append(f"The ballot of {who} in wave {wave} is missing.")
    could = "could" if flips else "could not"
    report.notes.append(f"The missing ballots, whatever they say, {could} change the winner.")


def _could_flip(judged: _Judged, owed: list[tuple[PeerId, int]]) -> bool:
    """Whether some missing ballots would change the winner.

    For every rival: all missing verdicts for the rival and against the winner, which is what
    moves those two scores apart the most; verdicts between third classes are tried both ways.
    """
    winner = judged.core.result.winner
    pairs = {(judge, wave): judged.pairs(judge, wave) for judge, wave in owed}
    for rival in range(len(judged.classes)):
        for lean in (0, MICRO):
            ballots = dict(judged.ballots)
            for one in owed:
                ballots[one] = tuple(
                    Row(first, second, _adverse(first, second, rival, winner, lean))
                    for first, second in pairs[one]
                )
            if decide(judged.case(ballots)).winner != winner:
                return True
    return False


def _adverse(first: int, second: int, rival: int, winner: int | None, lean: int) -> int:
    """P(first) of a verdict that favours ``rival`` and hurts ``winner``."""
    if rival in (first, second):
        return MICRO if first == rival else 0
    if winner in (first, second):
        return MICRO if second == winner else 0
    return lean


# --- the opening ------------------------------------------------------------------------------


def _check_opening(core: Core, asker: PeerId, opening: Opening, report: Report) -> None:
    _expect(RoundId(opening.invite.digest) == core.round, "The Invite is of another round.")
    _open(opening.invite, asker, Invite, "The Invite")
    again = fold(core, opening, asker)
    _expect(again.core == core, difference(again.core, core))
    if again.slate is not None:
        _open(again.slate, asker, Slate, "The Slate")
    if core.judging is not None:
        report.checked.append("Every Reveal opens its Commit; classes and seed follow from them.")
    report.checked.append("The round replays from its messages to the same bytes.")
