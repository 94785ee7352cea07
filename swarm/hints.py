"""What others say of peers: daily sums of their calibration.

A verifier that the operator trusts by name is believed: its counts join one's own. A stranger's
are a hint whom to try first, never a weight: ten forged successes would buy a newcomer two thirds
of an honest peer's weight.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from protocol import limits
from protocol.codec import encode
from protocol.errors import RefusedError
from protocol.ids import PeerId
from protocol.ledger import HINT_DAY_S, Hints, Subject, Sum
from protocol.messages import MICRO
from swarm.calibration.families import CATALOGUE
from swarm.record import Counts, Told
from swarm.reputation import answer_bound
from swarm.trial import Mark, Trial

_CONTENT_ID_CHARS: Final = 64
_HEADER_BYTES: Final = 2
"""By which the header of a long array is longer than that of an empty one."""

_Name = tuple[PeerId, str]
"""Of a subject: a peer, and the model that it claimed."""
_Tally = list[int]
"""The counts of a Sum in its order, rounds first."""


def daily(trials: Iterable[Trial], day: int) -> Hints:
    """The sums of a day's calibration, in at most ``limits.HINTS_BYTES``.

    Where there is no room for everything, the busiest come first: every peer with all its topics
    in one sum, and then topic by topic a sum of its own, taken out of that one. So a topic may lose
    its name, but nothing of what it says of a peer is lost with it, or said twice.

    What somebody graded stays out, and so do the names of topics that are nobody else's business:
    both tell what this node is asked for real. So do claims that are no content id.

    Args:
        day: days since 1970-01-01 UTC.
    """
    found: dict[_Name, dict[str, _Tally]] = {}
    for trial in trials:
        if trial.at // HINT_DAY_S != day or trial.kind == "graded":
            continue
        topic = trial.topic if trial.topic in CATALOGUE else ""
        for mark in trial.marks:
            if len(mark.model) <= _CONTENT_ID_CHARS:
                topics = found.setdefault((mark.peer, mark.model), {})
                _add(topics.setdefault(topic, [0] * 13), _tally(mark))
    expires = (day + 1 + limits.HINT_DAYS) * HINT_DAY_S
    room = limits.HINTS_BYTES - len(encode(Hints(day, expires, ()))) - _HEADER_BYTES
    return Hints(day, expires, _fitting(found, room))


def check(hints: Hints) -> None:
    """Raise RefusedError unless these hints are consistent."""
    if hints.expires > (hints.day + 1 + limits.HINT_DAYS) * HINT_DAY_S:
        raise RefusedError("These hints want to be believed for too long.")
    _check_order([(one.peer, one.model) for one in hints.subjects], "peer")
    for subject in hints.subjects:
        _check_order([one.topic for one in subject.sums], "topic")
        for one in subject.sums:
            pairs = zip(
                (*one.judge_right, one.answer_right),
                (*one.judge_total, one.answer_total),
                strict=True,
            )
            if any(right > total for right, total in pairs):
                raise RefusedError("These hints have more right than asked.")


def counts_now(hints: Hints, now: int) -> bool:
    """Whether these hints are of a day that counts. If not, it may be a clock that is wrong.

    Args:
        now: Unix time in seconds.
    """
    today = now // HINT_DAY_S
    return today - limits.HINT_DAYS <= hints.day <= today + 1


@dataclass(frozen=True, slots=True)
class _Word:
    """All that one verifier says.

    Attributes:
        days: as its log has it.
        about: what counted of it when it was heard, by whom it is about: until when, of which
            model, and what.
        size: sums in it.
    """

    days: Mapping[int, Hints]
    about: Mapping[PeerId, Sequence[tuple[int, str, Sum]]]
    size: int


class Hearsay:
    """What the logs of others say of peers, by verifier. What has expired is left out.

    Args:
        trusted: verifiers that are believed.
    """

    def __init__(self, trusted: Iterable[PeerId] = ()) -> None:
        self._trusted = frozenset(trusted)
        # Whoever said something new last stands last.
        self._heard: dict[PeerId, _Word] = {}

    def hear(self, verifier: PeerId, days: Mapping[int, Hints], now: int) -> None:
        """Take all that a verifier's log says now, in place of what it said before.

        Args:
            days: by day; they have passed :func:`check`.
            now: Unix time in seconds.
        """
        known = self._heard.get(verifier)
        if known is not None and known.days == days:
            return
        self.forget(verifier)
        about: defaultdict[PeerId, list[tuple[int, str, Sum]]] = defaultdict(list)
        for _, hints in sorted(days.items()):
            for subject in hints.subjects if hints.expires > now else ():
                about[subject.peer] += [(hints.expires, subject.model, one) for one in subject.sums]
        if about:
            self._heard[verifier] = _Word(dict(days), about, sum(map(len, about.values())))
            self._bound()

    def forget(self, verifier: PeerId) -> None:
        """Its log is gone."""
        self._heard.pop(verifier, None)

    def told(self, peer: PeerId, model: str, now: int) -> Told | None:
        """What trusted verifiers say of a peer and its model, None where they say nothing."""
        found: dict[str, Counts] = {}
        sources = set()
        for verifier in sorted(self._trusted & self._heard.keys()):
            for claimed, one in self._of(verifier, peer, now):
                if model in ("", claimed):
                    found.setdefault(one.topic, Counts()).join(one)
                    sources.add(verifier)
        return Told(found, tuple(sorted(sources))) if found else None

    def rumour(self, peer: PeerId, now: int) -> float:
        """Lower bound of right answers as strangers have it, their median; 0 where none has."""
        found = []
        for verifier in self._heard.keys() - self._trusted - {peer}:
            sums = [one for _, one in self._of(verifier, peer, now)]
            if sums:
                right = sum(one.answer_right for one in sums) / MICRO
                found.append(answer_bound(right, sum(one.answer_total for one in sums) / MICRO))
        return sorted(found)[len(found) // 2] if found else 0.0

    def _of(self, verifier: PeerId, peer: PeerId, now: int) -> Iterator[tuple[str, Sum]]:
        for expires, model, one in self._heard[verifier].about.get(peer, ()):
            if expires > now:
                yield model, one

    def _bound(self) -> None:
        """Forget the strangers that have said nothing new for longest, as far as there is too
        much."""
        sizes = {one: word.size for one, word in self._heard.items() if one not in self._trusted}
        over, extra = len(sizes) - limits.VERIFIERS, sum(sizes.values()) - limits.RUMOURS
        for one, size in sizes.items():
            if over <= 0 and extra <= 0:
                return
            self.forget(one)
            over, extra = over - 1, extra - size


def _fitting(found: Mapping[_Name, Mapping[str, _Tally]], room: int) -> tuple[Subject, ...]:
    """What of it, sorted, has no more than ``room`` bytes; see :func:`daily`."""
    kept: dict[_Name, Subject] = {}
    named: defaultdict[_Name, set[str]] = defaultdict(set)

    def put(name: _Name, topics: Collection[str]) -> bool:
        nonlocal room
        subject = _subject(name, found[name], topics)
        more = len(encode(subject)) - (len(encode(kept[name])) if name in kept else 0)
        if more > room:
            return False
        room -= more
        kept[name] = subject
        return True

    def rounds(name: _Name) -> int:
        return sum(tally[0] for tally in found[name].values())

    for name in sorted(found, key=lambda name: (-rounds(name), name)):
        if not put(name, ()):
            break
    topics = [(-found[name][topic][0], topic, name) for name in kept for topic in found[name]]
    for _, topic, name in sorted(topics):
        if topic and not put(name, named[name] | {topic}):
            break
        named[name].add(topic)
    return tuple(kept[name] for name in sorted(kept))


def _subject(name: _Name, topics: Mapping[str, _Tally], named: Collection[str]) -> Subject:
    """The sums of one subject: these topics by name, the others together."""
    sums: dict[str, _Tally] = {}
    for topic, tally in topics.items():
        _add(sums.setdefault(topic if topic in named else "", [0] * 13), tally)
    return Subject(*name, tuple(_sum(topic, *sums[topic]) for topic in sorted(sums)))


def _sum(topic: str, rounds: int, *counts: int) -> Sum:
    a, b, c, d, e, f, g, h, i, j, answer_right, answer_total = counts
    return Sum(topic, rounds, (a, b, c, d, e), (f, g, h, i, j), answer_right, answer_total)


def _tally(mark: Mark) -> _Tally:
    """What one trial shows of a peer."""
    right, total = (one.right for one in mark.judge), (one.total for one in mark.judge)
    return [1, *right, *total, MICRO * mark.right, MICRO]


def _add(into: _Tally, more: Sequence[int]) -> None:
    for place, amount in enumerate(more):
        into[place] += amount


def _check_order(names: list[Any], what: str) -> None:
    if names != sorted(set(names)):
        raise RefusedError(f"These hints are not sorted, or repeat a {what}.")
