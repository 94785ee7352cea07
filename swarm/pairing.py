"""Who judges which pairs: a function of the seed, so that nobody picks his pairs.

Pairs are of answer classes. In a small round every judge sees every pair in both orders, in one
wave. In a larger one each judge gets a few random pairs a wave, each in one random order; its
waves never repeat a pair.
"""

from __future__ import annotations

from itertools import combinations

from protocol.digest import digest
from protocol.ids import PeerId
from swarm.seeded import Stream

EVERY_PAIR_JUDGES = 9
"""Up to this many judges, every judge sees every pair in both orders."""
PAIRS_PER_WAVE = 6
WAVES = 3

Pair = tuple[int, int]
"""(class shown first, class shown second)"""


def waves(classes: int, judges: int) -> int:
    """How many waves there are at most; 0 where there is nothing to compare."""
    pairs = classes * (classes - 1) // 2
    if pairs == 0 or judges == 0:
        return 0
    if judges <= EVERY_PAIR_JUDGES:
        return 1
    return min(WAVES, -(-pairs // PAIRS_PER_WAVE))


def both_orders(judges: int) -> bool:
    """Whether each pair is judged in both orders (two records of half weight)."""
    return judges <= EVERY_PAIR_JUDGES


def assigned(seed: bytes, classes: int, judges: int, judge: PeerId, wave: int) -> tuple[Pair, ...]:
    """The pairs that ``judge`` judges in ``wave``, in the order it is to answer them.

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
