"""Why this answer: the pair matrix, who dissented, how few ballots would have flipped it.

Everything is worked out from a receipt, so anyone who holds one can ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from protocol.errors import ReceiptError
from protocol.ids import PeerId, peer_text
from protocol.messages import MICRO, Row
from protocol.receipt import Core, Opening, Result, read
from swarm.consensus import Case, Vote, decide
from swarm.progress import label
from swarm.replay import difference, fold
from swarm.reputation import confidence_bin
from swarm.slate import Opened

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class _Found:
    """A judged round, replayed from its receipt."""

    core: Core
    opened: Opened
    models: tuple[str, ...]
    case: Case

    def text(self, index: int | None) -> str | None:
        return None if index is None else self.opened.answers[index]


def describe(data: bytes) -> Json:
    """What a receipt holds. Signatures beyond the core's are :func:`swarm.verify.verify`'s.

    Raises:
        ReceiptError: the file is damaged.
    """
    file, core, opening = read(data)
    result = core.result
    found = _understand(core, opening, file.core.signer)
    return {
        "round": core.round.hex(),
        "swarm": core.swarm,
        "asker": peer_text(file.core.signer),
        "question": opening.plan.question if opening else None,
        "rule": core.rule.name,
        "outcome": result.outcome,
        "answer": found.text(result.winner) if found else None,
        "confidence": None if result.confidence is None else result.confidence / MICRO,
        "margin": result.margin / MICRO,
        "classes": _classes(found) if found else [],
        "ballots": sum(len(wave.ballots) for wave in core.judging.waves) if core.judging else 0,
        "faults": faults(core),
        "texts": opening is not None,
    } | _course(core)


def explain(data: bytes) -> Json:
    """Why the round of a receipt ended as it did.

    Returns:
        ``matrix[i][j]`` is the weighted mean of P(class i is right rather than j) over all
        verdicts on that pair, None where there are none; ``flip.ballots`` is the number of
        judges that, voting the other way round, changes the winner (greedy, so perhaps not the
        fewest), None where no number does.

    Raises:
        ReceiptError: the file is damaged, or its opening is detached.
    """
    file, core, opening = read(data)
    if opening is None:
        raise ReceiptError("Its opening is detached: there are no texts to explain.")
    result = core.result
    found = _understand(core, opening, file.core.signer)
    base: Json = {
        "round": core.round.hex(),
        "question": opening.plan.question,
        "rule": core.rule.name,
        "outcome": result.outcome,
        "faults": faults(core),
    } | _course(core)
    if found is None:
        return base | {"answer": None, "classes": [], "matrix": [], "judges": []}
    return base | {
        "answer": found.text(result.winner),
        "confidence": None if result.confidence is None else result.confidence / MICRO,
        "margin": result.margin / MICRO,
        "plurality": found.text(result.plurality),
        "unweighted": found.text(result.unweighted),
        "classes": _classes(found),
        "matrix": _matrix(found),
        "judges": _judges(found, result),
        "flip": _flip(found, result),
    }


def faults(core: Core) -> list[Json]:
    """Who failed, when and how."""
    return [
        {
            "peer": peer_text(fault.peer),
            "phase": fault.phase,
            "kind": fault.kind,
            "detail": fault.detail,
        }
        for fault in core.faults
    ]


def _understand(core: Core, opening: Opening | None, asker: PeerId) -> _Found | None:
    if opening is None or core.judging is None:
        return None
    again = fold(core, opening, asker)
    if again.core != core:
        raise ReceiptError(difference(again.core, core))
    if again.opened is None:
        raise ReceiptError("The journal ends before the answers were shown.")
    names = again.models()
    models = tuple(names[peer] for peer in again.opened.peers)
    return _Found(core, again.opened, models, again.case())


def _course(core: Core) -> Json:
    """How far the round went: who was asked, of how many that could have been; how long judging."""
    judging = core.judging
    return {
        "asked": len(core.standings),
        "could_ask": core.stages[-1],
        "adaptive": core.adaptive,
        "waves": len(judging.waves) if judging else 0,
        "stopped": judging.stopped if judging else None,
    }


def _classes(found: _Found) -> list[Json]:
    result = found.core.result
    return [
        {
            "label": label(index),
            "answer": answer,
            "members": [
                {"peer": peer_text(found.opened.peers[seat]), "model": found.models[seat]}
                for seat in members
            ],
            "score": result.scores[index] / MICRO if result.scores else None,
            "share": result.shares[index] / MICRO if result.shares else None,
        }
        for index, (answer, members) in enumerate(
            zip(found.opened.answers, found.opened.classes, strict=True)
        )
    ]


def _matrix(found: _Found) -> list[list[float | None]]:
    count = len(found.opened.classes)
    won = [[0.0] * count for _ in range(count)]
    total = [[0.0] * count for _ in range(count)]
    for vote in found.case.votes:
        if vote.row.p is None:
            continue
        first, second, p = vote.row.first, vote.row.second, vote.row.p / MICRO
        seat = found.case.weights[vote.seat]
        weight = seat.judge[confidence_bin(vote.row.p)] / MICRO
        won[first][second] += weight * p
        won[second][first] += weight * (1.0 - p)
        total[first][second] += weight
        total[second][first] += weight
    return [
        [round(won[i][j] / total[i][j], 6) if total[i][j] > 0.0 else None for j in range(count)]
        for i in range(count)
    ]


def _judges(found: _Found, result: Result) -> list[Json]:
    own = {seat: index for index, members in enumerate(found.opened.classes) for seat in members}
    table: list[Json] = []
    for seat, peer in enumerate(found.opened.peers):
        rows = [vote.row for vote in found.case.votes if vote.seat == seat]
        if seat not in own or not rows:
            continue
        table.append(
            {
                "peer": peer_text(peer),
                "model": found.models[seat],
                "own": label(own[seat]),
                "for_winner": _for_winner(rows, result.winner),
                "abstained": sum(row.p is None for row in rows),
                "weight": max(found.case.weights[seat].judge) / MICRO,
            }
        )
    return table


def _for_winner(rows: Sequence[Row], winner: int | None) -> float | None:
    """Mean P(winner) over a judge's verdicts on pairs that hold the winner."""
    given = [
        row.p / MICRO if row.first == winner else 1.0 - row.p / MICRO
        for row in rows
        if row.p is not None and winner in (row.first, row.second)
    ]
    return round(sum(given) / len(given), 6) if given else None


def _flip(found: _Found, result: Result) -> Json:
    """How many judges, each voting the other way round, change the winner."""
    if result.winner is None:
        return {"ballots": None, "to": None}
    case = found.case
    seats = sorted({vote.seat for vote in case.votes if vote.row.p is not None})

    def lead(inverted: set[int]) -> tuple[int, Result]:
        votes = tuple(
            _inverted(vote) if vote.seat in inverted else vote for vote in found.case.votes
        )
        after = decide(replace(found.case, votes=votes))
        rivals = [s for index, s in enumerate(after.scores) if index != result.winner]
        return after.scores[result.winner or 0] - max(rivals, default=0), after

    order = sorted(seats, key=lambda seat: (lead({seat})[0], seat))
    for count in range(1, len(order) + 1):
        _, after = lead(set(order[:count]))
        if after.winner != result.winner:
            return {"ballots": count, "to": found.text(after.winner)}
    return {"ballots": None, "to": None}


def _inverted(vote: Vote) -> Vote:
    row = vote.row
    return Vote(vote.seat, Row(row.first, row.second, None if row.p is None else MICRO - row.p))
