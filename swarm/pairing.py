"""Who judges which pairs: a function of the seed, so that nobody picks his pairs.

Pairs are of answer classes. There are two schedules.

``full``: in a small round every judge sees every pair in both orders, in one wave. In a larger
one each judge gets a few random pairs a wave, each in one random order; its waves never repeat a
pair.

``adaptive``: many small waves, and judging may stop after each. A wave asks the judges in turn
for so many verdicts in all; the first from all pairs alike, each later one from the duels that
the close of the wave before has fixed (:mod:`swarm.duels`). A judge never gets a pair twice in
the same order, nor in one wave in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from protocol.digest import digest
from protocol.ids import Digest, PeerId
from protocol.messages import Duel
from swarm.seeded import Stream

EVERY_PAIR_JUDGES = 9
"""Up to this many judges, every judge sees every pair in both orders."""
PAIRS_PER_WAVE = 6
WAVES = 3
ADAPTIVE_WAVES = (1, 1, 1, 2, 4, 8)
"""Verdicts asked for in each adaptive wave, in thirds of the number of judges."""

Pair = tuple[int, int]
"""(class shown first, class shown second)"""


def waves(classes: int, judges: int, adaptive: bool = False) -> int:
    """How many waves there are at most; 0 where there is nothing to compare."""
    pairs = classes * (classes - 1) // 2
    if pairs == 0 or judges == 0:
        return 0
    if adaptive:
        return len(ADAPTIVE_WAVES)
    if judges <= EVERY_PAIR_JUDGES:
        return 1
    return min(WAVES, -(-pairs // PAIRS_PER_WAVE))


def both_orders(judges: int, adaptive: bool = False) -> bool:
    """Whether each pair is judged in both orders (two records of half weight)."""
    return not adaptive and judges <= EVERY_PAIR_JUDGES


def assigned(seed: bytes, classes: int, judges: int, judge: PeerId, wave: int) -> tuple[Pair, ...]:
    """The pairs that ``judge`` judges in ``wave`` of the full schedule, in their order.

    Args:
        seed: of the round, see :func:`protocol.messages.pair_seed`.
        classes: number of answer classes.
        judges: number of judges in the round.
        wave: from 0 to ``waves(classes, judges) - 1``.
    """
    stream = Stream(digest("pairs", seed, judge))
    pairs: list[Pair] = list(combinations(range(classes), 2))
    stream.shuffle(pairs)
    turned = [pair if stream.below(2) else pair[::-1] for pair in pairs]
    if both_orders(judges):
        rows = turned + [(second, first) for first, second in turned]
        stream.shuffle(rows)
        return tuple(rows) if wave == 0 else ()
    return tuple(turned[wave * PAIRS_PER_WAVE : (wave + 1) * PAIRS_PER_WAVE])


@dataclass(frozen=True, slots=True)
class Pairing:
    """The pairs of every judge, up to the wave that is open.

    Attributes:
        seed: of the round, see :func:`protocol.messages.pair_seed`.
        classes: number of answer classes.
        judges: in roster order.
        duels: of each wave after the first, sorted; empty in the full schedule.
    """

    adaptive: bool
    seed: Digest
    classes: int
    judges: tuple[PeerId, ...]
    duels: tuple[tuple[Duel, ...], ...] = ()

    @property
    def wave(self) -> int:
        """The wave that is open, from 0."""
        return len(self.duels)

    @property
    def waves(self) -> int:
        """How many there are at most."""
        return waves(self.classes, len(self.judges), self.adaptive)

    @property
    def both_orders(self) -> bool:
        """Whether each pair is judged in both orders."""
        return both_orders(len(self.judges), self.adaptive)

    def then(self, duels: tuple[Duel, ...]) -> Pairing:
        """With the next wave open."""
        return replace(self, duels=(*self.duels, duels))

    def pairs(self, judge: PeerId) -> tuple[Pair, ...]:
        """What ``judge`` is to judge in the open wave, in this order. May be nothing."""
        if not self.adaptive:
            return assigned(self.seed, self.classes, len(self.judges), judge, self.wave)
        place = self._turn(judge)
        had: set[Pair] = set()
        rows: tuple[Pair, ...] = ()
        for wave, duels in enumerate((self._every_pair(), *self.duels)):
            stream = Stream(digest("duels", self.seed, judge, wave))
            rows = _drawn(stream, duels, _share(place, len(self.judges), wave), had)
            had.update(rows)
        return rows

    def asked(self) -> frozenset[PeerId]:
        """The judges that have something to judge in the open wave."""
        return frozenset(judge for judge in self.judges if self.pairs(judge))

    def _turn(self, judge: PeerId) -> int:
        order = list(range(len(self.judges)))
        Stream(digest("turns", self.seed)).shuffle(order)
        return order.index(self.judges.index(judge))

    def _every_pair(self) -> tuple[Duel, ...]:
        return tuple(Duel(*pair, 1) for pair in combinations(range(self.classes), 2))


def _share(place: int, judges: int, wave: int) -> int:
    """Verdicts asked of the judge whose turn is ``place``: loads never differ by more than one."""
    third = -(-judges // 3)
    begin = third * sum(ADAPTIVE_WAVES[:wave])
    end = begin + third * ADAPTIVE_WAVES[wave]
    return (end - 1 - place) // judges - (begin - 1 - place) // judges


def _drawn(stream: Stream, duels: Sequence[Duel], count: int, had: set[Pair]) -> tuple[Pair, ...]:
    """At most ``count`` distinct pairs by weight, none in an order in which the judge had it."""
    left = [
        duel for duel in duels if not {(duel.first, duel.second), (duel.second, duel.first)} <= had
    ]
    rows: list[Pair] = []
    while left and len(rows) < count:
        point = stream.below(sum(duel.draws for duel in left))
        at = 0
        while point >= left[at].draws:
            point -= left[at].draws
            at += 1
        duel = left.pop(at)
        pair = (duel.first, duel.second) if stream.below(2) else (duel.second, duel.first)
        rows.append(pair[::-1] if pair in had else pair)
    return tuple(rows)
