"""Whose ticket is the worst, among thousands that come, get better and go."""

from __future__ import annotations

import heapq
from typing import Final

from protocol.ids import PeerId

Rank = tuple[int, bytes]
"""See :func:`swarm.ledger.admission.rank`."""

FIRST: Final[Rank] = (1 << 63, b"")
"""Better than any ticket."""


class Ranking:
    """The admitted authors of each epoch, by rank."""

    def __init__(self) -> None:
        self._ranks: dict[int, dict[PeerId, Rank]] = {}
        # The worst first. Ranks that do not hold any more stay until they would be the worst, or
        # are half of all.
        self._heaps: dict[int, list[tuple[Rank, PeerId]]] = {}

    def count(self, epoch: int) -> int:
        """How many there are in ``epoch``."""
        return len(self._ranks.get(epoch, ()))

    def epochs(self) -> list[int]:
        """Those with any author, sorted."""
        return sorted(self._ranks)

    def put(self, author: PeerId, epoch: int, rank: Rank) -> None:
        """Rank ``author``, or rank it anew."""
        ranks = self._ranks.setdefault(epoch, {})
        ranks[author] = rank
        heap = self._heaps.setdefault(epoch, [])
        heapq.heappush(heap, (rank, author))
        if len(heap) > 2 * len(ranks):
            heap[:] = [(rank, author) for author, rank in ranks.items()]
            heapq.heapify(heap)

    def drop(self, author: PeerId, epoch: int) -> None:
        """Forget the rank of ``author``, which has one."""
        del self._ranks[epoch][author]
        if not self._ranks[epoch]:
            del self._ranks[epoch], self._heaps[epoch]

    def worst(self, epoch: int) -> tuple[Rank, PeerId] | None:
        """The author with the worst rank; None where there is no author."""
        ranks, heap = self._ranks.get(epoch, {}), self._heaps.get(epoch, [])
        while heap:
            rank, author = heap[0]
            if ranks.get(author) == rank:
                return heap[0]
            heapq.heappop(heap)
        return None
