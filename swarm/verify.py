"""Check a receipt with nothing but the receipt: no node, no network, no clock.

``verify`` checks signatures, the schedule of pairs, the weights against their counts and the
winner against the ballots, and says whose ballots are missing and whether they could have
flipped the winner. With the opening it also checks that every Reveal opens its Commit, that the
seed and the classes follow, and that the whole round replays to the same bytes.
"""

from __future__ import annotations

import msgspec

from protocol.envelope import Envelope
from protocol.errors import ReceiptError, RefusedError
from protocol.ids import PeerId, RoundId, peer_text, short_peer
from protocol.messages import MICRO, Commit, Invite, Roster, Slate
from protocol.receipt import Core, Opening, Rule, Standing, Weight, read
from protocol.version import ROUND
from swarm.ballots import is_confident
from swarm.consensus import UNCALIBRATED, rule_in_force, without_winner
from swarm.findings import Report, expect, open_signed
from swarm.replay import difference, fold
from swarm.reputation import weigh
from swarm.slate import check_roster, check_succession
from swarm.staging import stage_sizes
from swarm.verify_judging import check_judging

__all__ = ["Report", "verify"]


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
            if core.earlier:
                report.notes.append("So is what the judges of earlier stages said.")
        else:
            _check_opening(core, asker, opening, report)
    except ReceiptError as error:
        report.problems.append(str(error))
    return report


# --- the core ---------------------------------------------------------------------------------


def _check_core(core: Core, asker: PeerId, report: Report) -> None:
    expect(core.version == ROUND, f"It is of version {core.version}, this reads {ROUND}.")
    seats = _check_roster(core, asker, report)
    _check_weights(core, seats, report)
    shown = min(len(core.result.scores), len(core.result.shares))
    expect(core.result.winner is None or core.result.winner < shown, "The winner has no score.")
    _check_stages(core, report)
    if core.judging is None:
        expect(
            core.result in (without_winner("partial"), without_winner("cancelled")),
            "There was no judging, yet there is a result.",
        )
        report.notes.append(f"The round ended before judging: {core.result.outcome}.")
        return
    check_judging(core, core.judging, asker, seats, report)


def _check_roster(core: Core, asker: PeerId, report: Report) -> tuple[PeerId, ...]:
    if core.roster is None:
        expect(not core.commits and not core.earlier, "There are Commits but no Roster.")
        return ()
    roster = _check_succession(core, (*core.earlier, core.roster), asker)
    expect(len(roster.entries) == len(core.commits), "A Commit of the Roster is left out.")
    for entry, envelope in zip(roster.entries, core.commits, strict=True):
        what = f"The Commit of {short_peer(entry.peer)}"
        commit = open_signed(envelope, entry.peer, Commit, what)
        expect(commit.round == core.round, f"{what} is of another round.")
        expect(envelope.digest == entry.commit, f"{what} is not the Roster's.")
    peers = [entry.peer for entry in roster.entries]
    report.checked.append(f"{len(peers)} peers committed, each under its own signature.")
    return tuple(peers)


def _check_succession(core: Core, envelopes: tuple[Envelope, ...], asker: PeerId) -> Roster:
    """The last of the Rosters, each of which must follow on the one before."""
    faulty = {fault.peer for fault in core.faults}
    rosters: list[Roster] = []
    for number, envelope in enumerate(envelopes):
        roster = open_signed(envelope, asker, Roster, "The Roster")
        expect(roster.round == core.round, "The Roster is of another round.")
        expect(roster.stage == number, f"The Roster of stage {number} is missing.")
        try:
            check_roster(roster, len(core.stages))
            if rosters:
                check_succession(rosters, envelopes[number - 1].digest, roster)
        except RefusedError as error:
            raise ReceiptError(str(error)) from error
        here = {entry.peer for entry in roster.entries}
        for entry in rosters[-1].entries if rosters else ():
            left = entry.peer not in here and entry.peer not in faulty
            expect(not left, f"{short_peer(entry.peer)} was left out without a fault.")
        rosters.append(roster)
    return rosters[-1]


def _check_stages(core: Core, report: Report) -> None:
    """As many were asked as stages took place, and no fewer than the doubt called for."""
    sizes, asked = core.stages, len(core.standings)
    expect(sizes == stage_sizes(sizes[:-1], sizes[-1]), "The stages do not grow.")
    expect(asked in sizes, f"{asked} peers were invited, which is no stage of the plan.")
    expect(len(core.earlier) <= sizes.index(asked), "There are more Rosters than stages.")
    ended = core.result.outcome == "cancelled" or is_confident(core.rule, core.result)
    expect(asked == sizes[-1] or ended, "No more peers were asked, though there was doubt.")
    if len(sizes) > 1:
        report.notes.append(f"{asked} peers were asked, of {sizes[-1]} that could have been.")


def _check_weights(core: Core, seats: tuple[PeerId, ...], report: Report) -> None:
    standings = {one.peer: one for one in core.standings}
    invited = [one.peer for one in core.standings]
    expect(invited == sorted(standings), "The counts are not sorted, or a peer's are there twice.")
    for fault in core.faults:
        expect(fault.peer in standings, f"{short_peer(fault.peer)} is blamed, but not invited.")
    for peer in seats:
        expect(peer in standings, f"{short_peer(peer)} has a seat but was not invited.")
    follows = weigh(core.rule.name, [standings[peer] for peer in seats])
    expect(len(core.weights) == len(follows), "There are not as many weights as seats.")
    for peer, stated, derived in zip(seats, core.weights, follows, strict=True):
        expect(
            stated == derived,
            f"The weight of {short_peer(peer)} is stated as {_weight_text(stated)}, but its counts "
            f"give {_weight_text(derived)}.",
        )
    report.checked.append("The weights follow from the stated counts.")
    if seats:
        _check_rule(core.rule, [standings[peer] for peer in seats], report)


def _check_rule(rule: Rule, seats: list[Standing], report: Report) -> None:
    due = rule_in_force(rule, seats)
    expect(
        rule.name == due.name,
        f"The rule is stated as {rule.name}, but the counts call for {due.name}.",
    )
    if rule.name == "uncalibrated":
        expect(
            rule == msgspec.structs.replace(UNCALIBRATED, stop=rule.stop),
            "The coefficients are not those of the uncalibrated rule.",
        )
        report.notes.append("Too few are proven: all weigh the same, and there is no confidence.")
        return
    votes, _, evidence = rule.theta
    expect(min(rule.theta) >= 0, "A coefficient of the rule is negative.")
    if rule.name == "equal":
        expect(votes == evidence == 0, "The equal rule knows neither votes nor evidence.")
        report.notes.append("The admitted weigh the same: no evidence on this kind of question.")
    report.notes.append("Counts and coefficients of the rule are the asker's word.")


def _weight_text(weight: Weight) -> str:
    judging, trust = (
        "/".join(f"{one / MICRO:g}" for one in bins) for bins in (weight.judge, weight.trust)
    )
    return f"{judging} judging (believed {trust}) and {weight.answer / MICRO:g} answering"


# --- the opening ------------------------------------------------------------------------------


def _check_opening(core: Core, asker: PeerId, opening: Opening, report: Report) -> None:
    expect(RoundId(opening.invite.digest) == core.round, "The Invite is of another round.")
    open_signed(opening.invite, asker, Invite, "The Invite")
    again = fold(core, opening, asker)
    expect(again.core == core, difference(again.core, core))
    if again.slate is not None:
        open_signed(again.slate, asker, Slate, "The Slate")
    if core.judging is not None:
        report.checked.append("Every Reveal opens its Commit; classes and seed follow from them.")
    report.checked.append("The round replays from its messages to the same bytes.")
