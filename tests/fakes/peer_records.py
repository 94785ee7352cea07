"""Peer records in memory; ``tests/fakes/test_peer_records.py`` holds them and the real ones to the
same behaviour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from protocol import limits
from protocol.ids import Digest, PeerId, RoundId
from swarm.service import Account
from swarm.strikes import Strike


class FakePeerRecords:
    """Rounds, strikes and accounts in dictionaries; they outlive a node that is made again."""

    def __init__(self) -> None:
        self.rounds: dict[RoundId, None] = {}
        self.kept: dict[Digest, Strike] = {}
        self.booked: dict[PeerId, Account] = {}

    async def claim(self, round_id: RoundId) -> bool:
        if round_id in self.rounds:
            return False
        self.rounds[round_id] = None
        while len(self.rounds) > limits.ROUNDS_REMEMBERED:
            del self.rounds[next(iter(self.rounds))]
        return True

    async def release(self, round_id: RoundId) -> None:
        self.rounds.pop(round_id, None)

    async def strikes(self) -> list[Strike]:
        return sorted(self.kept.values(), key=lambda one: one.seen_at)

    async def accounts(self) -> list[tuple[PeerId, Account]]:
        return list(self.booked.items())

    async def keep(
        self,
        strikes: Iterable[Strike],
        forgotten: Iterable[Digest],
        accounts: Mapping[PeerId, Account],
        closed: Iterable[PeerId],
    ) -> None:
        self.kept |= {one.offence: one for one in strikes}
        for offence in forgotten:
            self.kept.pop(offence, None)
        self.booked |= accounts
        for peer in closed:
            self.booked.pop(peer, None)
