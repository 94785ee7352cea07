"""What others say of peers: daily sums of their calibration.

A verifier that the operator trusts by name is believed: its counts join one's own. A stranger's
are a hint whom to try first, never a weight: ten forged successes would buy a newcomer two thirds
of an honest peer's weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from protocol import limits
from protocol.errors import RefusedError
from protocol.ids import PeerId
from protocol.messages import MICRO, Hints, Sum
from swarm.calibration.families import CATALOGUE
from swarm.record import Counts, Told
from swarm.reputation import answer_bound
from swarm.trial import Trial

DAY_S: Final = 24 * 3600
_CONTENT_ID_CHARS: Final = 64


def daily(trials: Iterable[Trial], day: int) -> Hints:
    """The sums of a day's calibration, the busiest first where there are too many.

    What somebody graded stays out, and so do the names of topics that are nobody else's business:
    both tell what this node is asked for real. So do claims that are no content id.

    Args:
        day: days since 1970-01-01 UTC.
    """
    found: dict[tuple[PeerId, str, str], list[int]] = {}
    for trial in trials:
        if trial.at // DAY_S != day or trial.kind == "graded":
            continue
        topic = trial.topic if trial.topic in CATALOGUE else ""
        for mark in trial.marks:
            if len(mark.model) > _CONTENT_ID_CHARS:
                continue
            counts = found.setdefault((mark.peer, mark.model, topic), [0] * 13)
            added = (
                1,
                *(tally.right for tally in mark.judge),
                *(tally.total for tally in mark.judge),
                MICRO * mark.right,
                MICRO,
            )
            for place, amount in enumerate(added):
                counts[place] += amount
    busiest = sorted(found, key=lambda name: (-found[name][0], name))[: limits.HINT_SUMS]
    sums = tuple(_sum(*name, *found[name]) for name in sorted(busiest))
    return Hints(day, (day + 1 + limits.HINT_DAYS) * DAY_S, sums)


def check(hints: Hints) -> None:
    """Raise RefusedError unless these hints are consistent."""
    if hints.expires > (hints.day + 1 + limits.HINT_DAYS) * DAY_S:
        raise RefusedError("These hints want to be believed for too long.")
    names = [(one.peer, one.model, one.topic) for one in hints.sums]
    if names != sorted(set(names)):
        raise RefusedError("These hints are not sorted, or repeat a peer.")
    for one in hints.sums:
        pairs = zip(
            (*one.judge_right, one.answer_right), (*one.judge_total, one.answer_total), strict=True
        )
        if any(right > total for right, total in pairs):
            raise RefusedError("These hints have more right than asked.")


def counts_now(hints: Hints, now: int) -> bool:
    """Whether these hints are of a day that counts. If not, it may be a clock that is wrong.

    Args:
        now: Unix time in seconds.
    """
    today = now // DAY_S
    return today - limits.HINT_DAYS <= hints.day <= today + 1


@dataclass(frozen=True, slots=True)
class _Day:
    """What one verifier says of one day, by whom it is about."""

    expires: int
    sums: Mapping[PeerId, Sequence[Sum]]
    size: int


class Hearsay:
    """The hints of others, by verifier and day. What has expired is left out.

    Args:
        trusted: verifiers that are believed.
    """

    def __init__(self, trusted: Iterable[PeerId] = ()) -> None:
        self._trusted = frozenset(trusted)
        # Whoever spoke last stands last.
        self._heard: dict[PeerId, dict[int, _Day]] = {}

    def hear(self, verifier: PeerId, hints: Hints, now: int) -> None:
        """Take hints whose signature holds; the latest word on a day counts.

        Raises:
            RefusedError: they are not what hints must be.
        """
        check(hints)
        if not counts_now(hints, now):
            return
        sums: dict[PeerId, list[Sum]] = {}
        for one in hints.sums:
            sums.setdefault(one.peer, []).append(one)
        days = self._heard.pop(verifier, {})
        days[hints.day] = _Day(hints.expires, sums, len(hints.sums))
        self._heard[verifier] = {day: one for day, one in days.items() if one.expires > now}
        self._bound()

    def told(self, peer: PeerId, model: str, now: int) -> Told | None:
        """What trusted verifiers say of a peer and its model, None where they say nothing."""
        found: dict[str, Counts] = {}
        sources = set()
        for verifier in sorted(self._trusted & self._heard.keys()):
            for one in self._of(verifier, peer, now):
                if model in ("", one.model):
                    found.setdefault(one.topic, Counts()).join(one)
                    sources.add(verifier)
        return Told(found, tuple(sorted(sources))) if found else None

    def rumour(self, peer: PeerId, now: int) -> float:
        """Lower bound of right answers as strangers have it, their median; 0 where none has."""
        found = []
        for verifier in self._heard.keys() - self._trusted - {peer}:
            sums = list(self._of(verifier, peer, now))
            if sums:
                right = sum(one.answer_right for one in sums) / MICRO
                found.append(answer_bound(right, sum(one.answer_total for one in sums) / MICRO))
        return sorted(found)[len(found) // 2] if found else 0.0

    def _of(self, verifier: PeerId, peer: PeerId, now: int) -> Iterator[Sum]:
        for day in self._heard[verifier].values():
            if day.expires > now:
                yield from day.sums.get(peer, ())

    def _bound(self) -> None:
        """Forget the strangers that have been silent longest, as far as there is too much."""
        strangers = [one for one in self._heard if one not in self._trusted]
        sizes = [sum(day.size for day in self._heard[one].values()) for one in strangers]
        over, extra = len(strangers) - limits.VERIFIERS, sum(sizes) - limits.RUMOURS
        for one, size in zip(strangers, sizes, strict=True):
            if over <= 0 and extra <= 0:
                return
            del self._heard[one]
            over, extra = over - 1, extra - size


def _sum(peer: PeerId, model: str, topic: str, *counts: int) -> Sum:
    rounds, *rest = counts
    a, b, c, d, e = rest[:5]
    f, g, h, i, j = rest[5:10]
    return Sum(peer, model, topic, rounds, (a, b, c, d, e), (f, g, h, i, j), rest[10], rest[11])
