"""What peers have done, for this node and against the rules, and what follows from it.

Joins the strikes and the balance of service (:mod:`swarm.strikes`, :mod:`swarm.service`) to the
disk and to the mesh: proofs are passed on, changes are written behind, all survives a restart.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping

import trio

from node.mesh.base import Mesh
from node.peer_records import PeerRecords
from protocol import limits
from protocol.codec import encode
from protocol.envelope import Signer
from protocol.errors import MeshError, StoreError
from protocol.ids import Digest, PeerId, short_peer
from protocol.messages import Proof, ProofNotice, seal
from protocol.proofs import Conviction, check, stated
from swarm.service import Balance
from swarm.strikes import Strike, Strikes

_log = logging.getLogger(__name__)

WRITE_S = 2.0
"""Changes of so many seconds go to disk together."""


class Allowance:
    """What may be done at once, and so many times an hour more: a bucket that fills with time."""

    def __init__(self, at_once: int, per_hour: float, now: float) -> None:
        self._most = float(at_once)
        self._per_s = per_hour / 3600
        self._left = self._most
        self._at = now

    def take(self, now: float) -> bool:
        """Whether it may be done once more now."""
        earned = max(0.0, now - self._at) * self._per_s
        self._left, self._at = min(self._most, self._left + earned), now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Conduct:
    """Made by :meth:`load`; :meth:`run` writes.

    Args:
        mesh: the way to other peers.
        records: where strikes and accounts are kept.
        signer: signs notices as this node.
        clock: gives Unix time in seconds.
    """

    def __init__(
        self,
        mesh: Mesh,
        records: PeerRecords,
        signer: Signer,
        strikes: Strikes,
        balance: Balance,
        clock: Callable[[], float],
    ) -> None:
        self._mesh = mesh
        self._records = records
        self._signer = signer
        self._strikes = strikes
        self._balance = balance
        self._clock = clock
        self._verified: dict[PeerId, Allowance] = {}
        self._found = Allowance(limits.PROOFS_RELAYED, limits.PROOFS_PER_HOUR / 2, clock())
        self._relayed = Allowance(limits.PROOFS_RELAYED, limits.PROOFS_PER_HOUR / 2, clock())
        self._offences: set[Digest] = set()
        self._booked: set[PeerId] = set()
        self._changed = trio.Event()

    @classmethod
    async def load(
        cls,
        mesh: Mesh,
        records: PeerRecords,
        signer: Signer,
        clock: Callable[[], float] = time.time,
    ) -> Conduct:
        """What earlier runs have kept.

        Raises:
            StoreError: it cannot be read.
        """
        strikes = Strikes(await records.strikes(), int(clock()))
        balance = Balance(await records.accounts())
        return cls(mesh, records, signer, strikes, balance, clock)

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
        """Take proofs that this node found itself.

        Raises:
            ProtocolError: one of them is none.
        """
        for proof in proofs:
            self._strike(proof, check(proof), self._mesh.peer_id, first_hand=True)

    def noticed(self, source: PeerId, proof: Proof) -> None:
        """Take a proof that a connected peer passes on.

        Signatures are verified for unknown offences only, and only so many for each peer.

        Raises:
            ProtocolError: it is none.
        """
        if self._strikes.get(stated(proof).digest) is not None:
            return
        now = self._clock()
        one = Allowance(limits.PROOFS_PER_PEER, limits.PROOFS_PER_HOUR, now)
        if not self._verified.setdefault(source, one).take(now):
            _log.info("peer %s passes on too many proofs", short_peer(source))
            return
        self._strike(proof, check(proof), source, first_hand=False)

    def welcome(self, peer: PeerId) -> None:
        """Tell a newly connected peer the latest proofs in force, least against strangers."""
        latest = sorted(self._strikes.in_force(self._now()), key=lambda one: not one.known)
        for strike in latest[: limits.PROOFS_TOLD]:
            self._tell([peer], strike.proof)

    def lost(self, peer: PeerId) -> None:
        """A peer is not connected any more."""
        self._verified.pop(peer, None)

    def _strike(
        self, proof: Proof, conviction: Conviction, source: PeerId, first_hand: bool
    ) -> None:
        now = self._now()
        served = self._balance.account(conviction.peer, now).given > 0.0
        known = first_hand or served
        strike, gone = self._strikes.add(proof, conviction, now, known)
        if strike is None:
            return
        _log.warning("peer %s is excluded: %s", short_peer(strike.peer), strike.kind)
        self._offences |= {strike.offence, *gone}
        self._changed.set()
        allowance = self._found if first_hand else self._relayed
        # Anyone can make keys and misbehave here: what is found first-hand is rationed as well.
        if not served and not allowance.take(self._clock()):
            return
        aware = {self._mesh.peer_id, source, strike.peer}
        self._tell([link.peer for link in self._mesh.links() if link.peer not in aware], proof)

    def _tell(self, peers: Iterable[PeerId], proof: Proof) -> None:
        payload = encode(seal(self._signer, ProofNotice(proof)))
        for peer in peers:
            try:
                self._mesh.send(peer, payload)
            except MeshError as error:
                _log.info("no way to tell %s of a proof: %s", short_peer(peer), error)

    # --- service --------------------------------------------------------------------------------

    def admit(self, asker: PeerId, serving: Mapping[PeerId, int]) -> str | None:
        """Why not to serve a round of ``asker``, or None; see :meth:`Balance.admit`."""
        return self._balance.admit(asker, serving, self._now())

    def served(self, asker: PeerId) -> None:
        """This node answered in a round of ``asker``."""
        self._book(asker, self._balance.took(asker, self._now()))

    def served_us(self, peer: PeerId) -> None:
        """``peer`` answered and judged in a round of this node; oneself owes oneself nothing."""
        if peer == self._mesh.peer_id:
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
