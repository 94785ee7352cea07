"""What peers have done, for this node and against the rules, and what follows from it.

Joins the strikes and the balance of service (:mod:`swarm.strikes`, :mod:`swarm.service`) to the
disk and to the logs: what this node finds, its log passes on; what others have found is in theirs;
changes are written behind, all survives a restart.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import trio

from node.peer_records import PeerRecords
from protocol import limits
from protocol.errors import StoreError
from protocol.ids import Digest, PeerId, short_peer
from protocol.ledger import EPOCH_S
from protocol.messages import Proof
from protocol.proofs import Conviction, check, stated
from swarm.service import Balance
from swarm.strikes import Strike, Strikes

_log = logging.getLogger(__name__)

WRITE_S = 2.0
"""Changes of so many seconds go to disk together."""
STRANGERS_TOLD: Final = limits.EVIDENCE_PER_EPOCH // 4
"""Proofs against strangers that this node's log is given in an epoch. Anyone can make keys and
misbehave here: that leaves room for a proof against somebody who matters."""


class Conduct:
    """Made by :meth:`load`; :meth:`run` writes.

    Args:
        own: this node, which owes itself nothing.
        records: where strikes and accounts are kept.
        testify: has this node's log pass a proof on.
        clock: gives Unix time in seconds.
    """

    def __init__(
        self,
        own: PeerId,
        records: PeerRecords,
        testify: Callable[[Proof], None],
        strikes: Strikes,
        balance: Balance,
        clock: Callable[[], float],
    ) -> None:
        self._own = own
        self._records = records
        self._testify = testify
        self._strikes = strikes
        self._balance = balance
        self._clock = clock
        self._strangers: list[int] = []
        self._offences: set[Digest] = set()
        self._booked: set[PeerId] = set()
        self._changed = trio.Event()
        for strike in strikes.in_force(self._now()):
            if strike.found:
                self._pass_on(strike)

    @classmethod
    async def load(
        cls,
        own: PeerId,
        records: PeerRecords,
        testify: Callable[[Proof], None],
        clock: Callable[[], float] = time.time,
    ) -> Conduct:
        """What earlier runs have kept. What they found and is in force is passed on again.

        Raises:
            StoreError: it cannot be read.
        """
        strikes = Strikes(await records.strikes(), int(clock()))
        balance = Balance(await records.accounts())
        return cls(own, records, testify, strikes, balance, clock)

    async def run(self) -> None:
        """Write changes until cancelled, and then what is left."""
        try:
            while True:
                await self._changed.wait()
                await self._write()
                await trio.sleep(WRITE_S)
        finally:
            await self._write()

    # --- strikes --------------------------------------------------------------------------------

    def struck(self, peer: PeerId) -> Strike | None:
        """The latest strike in force against ``peer``."""
        return self._strikes.struck(peer, self._now())

    def excluded(self) -> frozenset[PeerId]:
        """Every peer with a strike in force."""
        return self._strikes.excluded(self._now())

    def convict(self, proofs: Iterable[Proof]) -> None:
        """Take proofs that this node found itself. Those that nobody has told it, it passes on.

        Raises:
            ProtocolError: one of them is none.
        """
        for proof in proofs:
            self._strike(proof, check(proof), found=True)

    def heard(self, proofs: Iterable[Proof]) -> None:
        """Take proofs of somebody's log, which have been checked."""
        for proof in proofs:
            self._strike(proof, stated(proof), found=False)

    def _strike(self, proof: Proof, conviction: Conviction, found: bool) -> None:
        known = found or self._has_served(conviction.peer)
        strike, gone = self._strikes.add(proof, conviction, self._now(), known, found)
        if strike is None:
            return
        _log.warning("peer %s is excluded: %s", short_peer(strike.peer), strike.kind)
        self._offences |= {strike.offence, *gone}
        self._changed.set()
        if found:
            self._pass_on(strike)

    def _pass_on(self, strike: Strike) -> None:
        now = self._now()
        if not self._has_served(strike.peer):
            self._strangers = [at for at in self._strangers if now - EPOCH_S < at <= now]
            if len(self._strangers) >= STRANGERS_TOLD:
                return
            self._strangers.append(now)
        self._testify(strike.proof)

    def _has_served(self, peer: PeerId) -> bool:
        return self._balance.account(peer, self._now()).given > 0.0

    # --- service --------------------------------------------------------------------------------

    def admit(self, asker: PeerId, serving: Mapping[PeerId, int]) -> str | None:
        """Why not to serve a round of ``asker``, or None; see :meth:`Balance.admit`."""
        return self._balance.admit(asker, serving, self._now())

    def served(self, asker: PeerId) -> None:
        """This node answered in a round of ``asker``."""
        self._book(asker, self._balance.took(asker, self._now()))

    def served_us(self, peer: PeerId) -> None:
        """``peer`` answered and judged in a round of this node; oneself owes oneself nothing."""
        if peer == self._own:
            return
        self._book(peer, self._balance.gave(peer, self._now()))

    def _book(self, peer: PeerId, closed: PeerId | None) -> None:
        self._booked.add(peer)
        if closed is not None:
            self._booked.add(closed)
        self._changed.set()

    # --- the disk -------------------------------------------------------------------------------

    async def _write(self) -> None:
        if not (self._offences or self._booked):
            return
        offences, self._offences = self._offences, set()
        booked, self._booked = self._booked, set()
        self._changed = trio.Event()
        now = self._now()
        strikes = {offence: self._strikes.get(offence) for offence in offences}
        try:
            await self._records.keep(
                [strike for strike in strikes.values() if strike is not None],
                [offence for offence, strike in strikes.items() if strike is None],
                {p: self._balance.account(p, now) for p in booked if self._balance.knows(p)},
                [peer for peer in booked if not self._balance.knows(peer)],
            )
        except StoreError as error:
            _log.error("strikes and service are not written: %s", error.user_text())
            self._offences |= offences
            self._booked |= booked
            self._changed.set()

    def _now(self) -> int:
        return int(self._clock())
