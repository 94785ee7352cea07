"""Check what the core of a receipt says of judging: ballots, pairs, stops, the result.

All of it follows from the seed, the ballots and the weights: who was asked for which pairs in each
wave, when judging ended, and the winner. What is missing is listed, with whether it matters.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol.envelope import Envelope
from protocol.ids import ZERO_DIGEST, Digest, PeerId, peer_text, short_peer
from protocol.messages import MICRO, Ack, Ballot, Row, WaveClose, ballot_set
from protocol.receipt import Core, Judging, Result, Wave
from swarm.ballots import is_confident
from swarm.consensus import Case, Vote, decide, without_winner
from swarm.duels import following
from swarm.findings import Report, expect, open_signed
from swarm.pairing import Pairing
from swarm.progress import label

_Ballots = dict[tuple[PeerId, int], tuple[Row, ...]]


@dataclass(slots=True)
class _Judged:
    """What the core says was judged, with ballots opened.

    Attributes:
        pairing: with the first wave open.
        closed: the pairing of each wave that was closed.
        ballots: rows by judge and wave.
    """

    core: Core
    judging: Judging
    seats: tuple[PeerId, ...]
    pairing: Pairing
    closed: list[Pairing] = field(default_factory=list)
    ballots: _Ballots = field(default_factory=dict)

    def case(self, ballots: _Ballots) -> Case:
        """What the consensus makes its decision from."""
        seat = {peer: index for index, peer in enumerate(self.seats)}
        return Case(
            rule=self.core.rule,
            classes=tuple(one.members for one in self.judging.classes),
            weights=self.core.weights,
            votes=tuple(
                Vote(seat[peer], row) for (peer, _), rows in ballots.items() for row in rows
            ),
            both_orders=self.pairing.both_orders,
        )


def check_judging(
    core: Core, judging: Judging, asker: PeerId, seats: tuple[PeerId, ...], report: Report
) -> None:
    """Check the judging of a core whose Roster and weights hold.

    Args:
        seats: the peers of the Roster.

    Raises:
        ReceiptError: says what does not hold.
    """
    judged = _Judged(core, judging, seats, _pairing(core, judging, seats))
    _check_waves(judged, asker)
    acks = [open_signed(envelope, asker, Ack, "An Ack") for envelope in judging.acks]
    expect(all(ack.round == core.round for ack in acks), "An Ack is of another round.")
    acked = [ack.ballot for ack in acks]
    given = [ballot.digest for wave in judging.waves for ballot in wave.ballots]
    expect(acked == given, "The Acks are not for exactly these Ballots.")
    report.checked.append(
        f"{len(given)} ballots are signed, acknowledged and on the pairs that the seed gives."
    )
    _check_result(judged, report)
    _report_missing(judged, report)


def _pairing(core: Core, judging: Judging, seats: tuple[PeerId, ...]) -> Pairing:
    answered = sorted(seat for one in judging.classes for seat in one.members)
    expect(
        len(set(answered)) == len(answered) and all(seat < len(seats) for seat in answered),
        "The classes do not divide the seats.",
    )
    expect(
        judging.missing_reveals == len(seats) - len(answered),
        "The number of missing Reveals does not follow from the classes.",
    )
    judges = tuple(seats[seat] for seat in answered)
    return Pairing(core.adaptive, judging.seed, len(judging.classes), judges)


# --- waves ------------------------------------------------------------------------------------


def _check_waves(judged: _Judged, asker: PeerId) -> None:
    waves = judged.judging.waves
    open_now: Pairing | None = judged.pairing if judged.pairing.waves else None
    follows = ZERO_DIGEST
    for number, wave in enumerate(waves):
        close = open_signed(wave.close, asker, WaveClose, f"The close of wave {number}")
        place = (close.round, close.slate, close.wave)
        stated = (judged.core.round, judged.judging.slate, number)
        expect(place == stated, f"Wave {number} does not fit the round.")
        expect(open_now is not None, f"There is no wave {number} in the schedule.")
        assert open_now is not None
        judged.closed.append(open_now)
        _check_ballots(judged, open_now, wave, close, follows)
        last = number + 1 == len(waves)
        fits = close.more != last and not (last and close.duels)
        expect(fits, f"Wave {number} does not fit the round.")
        open_now = None if last else _next_wave(judged, open_now, close)
        follows = wave.close.digest


def _check_ballots(
    judged: _Judged, pairing: Pairing, wave: Wave, close: WaveClose, follows: Digest
) -> None:
    number = pairing.wave
    fixed = ballot_set(tuple(ballot.digest for ballot in wave.ballots))
    expect(close.ballots == fixed, f"Wave {number} was closed over other Ballots.")
    for envelope in wave.ballots:
        judge, rows = _check_ballot(judged, pairing, envelope, follows)
        judged.ballots[judge, number] = rows


def _check_ballot(
    judged: _Judged, pairing: Pairing, envelope: Envelope, follows: Digest
) -> tuple[PeerId, tuple[Row, ...]]:
    judge, number = envelope.signer, pairing.wave
    what = f"The Ballot of {short_peer(judge)}"
    ballot = open_signed(envelope, judge, Ballot, what)
    expect(judge in pairing.judges, f"{what} is of no judge of this round.")
    expect((judge, number) not in judged.ballots, f"{what} is there twice.")
    place = (ballot.round, ballot.slate, ballot.wave, ballot.follows)
    stated = (judged.core.round, judged.judging.slate, number, follows)
    expect(place == stated, f"{what} belongs elsewhere.")
    shown = tuple((row.first, row.second) for row in ballot.rows)
    expect(
        shown == pairing.pairs(judge) and shown != (), f"{what} is not on the pairs of the seed."
    )
    return judge, ballot.rows


def _next_wave(judged: _Judged, pairing: Pairing, close: WaveClose) -> Pairing | None:
    """What the ballots so far call for, which the close must have said."""
    case = judged.case(judged.ballots)
    result = decide(case)
    expect(
        not is_confident(case.rule, result),
        f"Judging went on after wave {pairing.wave}, though it was done.",
    )
    after = following(pairing, case, result)
    if after is not None:
        expect(
            close.duels == after.duels[-1],
            f"The pairs after wave {pairing.wave} do not follow from its ballots.",
        )
    return after


# --- the result -------------------------------------------------------------------------------


def _check_result(judged: _Judged, report: Report) -> None:
    result, judging = judged.core.result, judged.judging
    if result.outcome in ("partial", "cancelled"):
        expect(result == without_winner(result.outcome), "A round without an end has a result.")
        report.notes.append(f"The round ended early: {result.outcome}.")
        return
    case = judged.case(judged.ballots)
    derived = decide(case)
    expect(
        derived == result,
        "The result does not follow from the ballots: stated "
        f"{_result_text(result)}, recomputed {_result_text(derived)}.",
    )
    left = judged.pairing if judged.pairing.waves else None
    if judged.closed:
        left = following(judged.closed[-1], case, derived)
    stopped = "schedule" if left is None else "confident"
    sure = left is None or (judged.closed != [] and is_confident(case.rule, derived))
    expect(judging.stopped == stopped and sure, "Judging stopped before it was done.")
    report.checked.append(f"The result follows from the ballots: {_result_text(derived)}.")


def _result_text(result: Result) -> str:
    if result.winner is None:
        return result.outcome
    return f"{label(result.winner)} with {result.scores[result.winner] / MICRO:+.6f}"


# --- what is missing --------------------------------------------------------------------------


def _report_missing(judged: _Judged, report: Report) -> None:
    missing = judged.judging.missing_reveals
    if missing:
        report.notes.append(
            f"{missing} committed and did not reveal: the asker could have chosen among at most "
            f"{2**missing} seeds."
        )
    owed = [
        (judge, pairing)
        for pairing in judged.closed
        for judge in pairing.judges
        if (judge, pairing.wave) not in judged.ballots and pairing.pairs(judge)
    ]
    if not owed:
        return
    flips = _could_flip(judged, owed)
    for judge, pairing in owed:
        who = peer_text(judge)
        report.missing.append({"judge": who, "wave": pairing.wave, "could_flip": flips})
        report.notes.append(f"The ballot of {who} in wave {pairing.wave} is missing.")
    could = "could" if flips else "could not"
    report.notes.append(f"The missing ballots, whatever they say, {could} change the winner.")
    if judged.pairing.adaptive and owed[0][1].wave + 1 < len(judged.closed):
        report.notes.append("They could have changed which pairs came next, too.")


def _could_flip(judged: _Judged, owed: list[tuple[PeerId, Pairing]]) -> bool:
    """Whether some missing ballots would change the winner.

    For every rival: all missing verdicts for the rival and against the winner, which is what
    moves those two scores apart the most; verdicts between third classes are tried both ways.
    """
    winner = judged.core.result.winner
    pairs = {(judge, pairing.wave): pairing.pairs(judge) for judge, pairing in owed}
    for rival in range(judged.pairing.classes):
        for lean in (0, MICRO):
            ballots = dict(judged.ballots)
            for one, shown in pairs.items():
                ballots[one] = tuple(
                    Row(first, second, _adverse(first, second, rival, winner, lean))
                    for first, second in shown
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
