"""How something new spreads, for ``scripts/bench state``: the rule of replication alone, in rounds.

Its author tells its peers. Whoever hears of it hands it on to some of its own, once, in the next
round; and in each round everyone compares what it holds with one other, to the good of both. All
peers are drawn at random. Some messages are lost, and some nodes are silent: they take, and neither
hand on nor compare.

Nodes do better: they hand on many times while one period between two comparisons goes by.
"""

from __future__ import annotations

import random

from protocol import limits


def links(nodes: int) -> int:
    """How many peers each of ``nodes`` has."""
    return min(nodes, limits.PEERS) - 1


def rounds(
    nodes: int, told: int, fanout: int, loss: float, silent: float, rng: random.Random
) -> int:
    """How many it takes until every node knows that is not silent.

    Args:
        told: peers whom the author tells.
        fanout: peers to whom others hand it on.
        loss: share of what is handed on, and of comparisons, that fails.
        silent: share of the nodes.
    """
    mute = set(rng.sample(range(1, nodes), int(silent * nodes)))
    honest = [node for node in range(nodes) if node not in mute]
    known, fresh = {0}, {0}
    count = 0
    while not known.issuperset(honest):
        heard = set[int]()
        for node in fresh:
            peers = _peers(node, nodes, fanout if count else told, rng)
            heard.update(peer for peer in peers if rng.random() >= loss)
        for node in honest:
            (other,) = _peers(node, nodes, 1, rng)
            if other not in mute and rng.random() >= loss and not known.isdisjoint((node, other)):
                heard |= {node, other}
        fresh = heard - known - mute
        known |= fresh
        count += 1
    return count


def _peers(node: int, nodes: int, count: int, rng: random.Random) -> list[int]:
    """Others than ``node``."""
    return [other + (other >= node) for other in rng.sample(range(nodes - 1), count)]
