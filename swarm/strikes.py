"""Who is excluded, by which proof, until when: a fold over proofs, in bounded memory.

A strike lasts ``limits.STRIKE_S`` from when this node first saw the proof. The offence stays
remembered after that, so that the same proof never strikes twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from protocol import limits
from protocol.ids import Digest, PeerId
from protocol.messages import Proof
from protocol.proofs import Conviction, Kind


@dataclass(frozen=True, slots=True)
class Strike:
    """One proven offence.

    Attributes:
        peer, kind, offence: as the proof shows, see :class:`protocol.proofs.Conviction`.
        proof: for others to check.
        seen_at: when this node first saw it, Unix seconds.
        known: the peer meant something to this node then; others give way to such a one.
        found: this node found the proof itself.
    """

    peer: PeerId
    kind: Kind
    offence: Digest
    proof: Proof
    seen_at: int
    known: bool
    found: bool = False


class Strikes:
    """All strikes that this node remembers, oldest first.

    Args:
        kept: from an earlier run.
        now: Unix seconds. What was seen "later", by a clock that was wrong, was seen now.
    """

    def __init__(self, kept: Iterable[Strike], now: int) -> None:
        self._all: dict[Digest, Strike] = {}
        for one in sorted(kept, key=lambda strike: strike.seen_at):
            self._all[one.offence] = _seen_by(one, now)

    def get(self, offence: Digest) -> Strike | None:
        """The strike of an offence, in force or not; None if it has not struck."""
        return self._all.get(offence)

    def struck(self, peer: PeerId, now: int) -> Strike | None:
        """The latest strike in force against ``peer``."""
        return next((one for one in self.in_force(now) if one.peer == peer), None)

    def excluded(self, now: int) -> frozenset[PeerId]:
        """Every peer with a strike in force."""
        return frozenset(one.peer for one in self.in_force(now))

    def in_force(self, now: int) -> list[Strike]:
        """The strikes that exclude somebody now, newest first."""
        return [one for one in reversed(self._all.values()) if _in_force(one, now)]

    def add(
        self, proof: Proof, conviction: Conviction, now: int, known: bool, found: bool = False
    ) -> tuple[Strike | None, tuple[Digest, ...]]:
        """Strike, unless this offence has struck before or there is no room.

        A peer against which ``limits.STRIKES_PER_PEER`` are in force is struck enough: nobody
        gains by making more proofs of one key. When all ``limits.STRIKES`` are taken, the oldest
        against a stranger makes room, if there is none, the oldest; a stranger's only for its
        like.

        Args:
            conviction: what :func:`protocol.proofs.check` gave for ``proof``.
            known: this node has to do with the peer.
            found: it found the proof itself.

        Returns:
            the new strike or None, and the offences that are forgotten for it.
        """
        if conviction.digest in self._all:
            return None, ()
        of_peer = [one for one in self._all.values() if one.peer == conviction.peer]
        gone: list[Strike] = []
        if len(of_peer) >= limits.STRIKES_PER_PEER:
            if _in_force(of_peer[0], now):
                return None, ()
            gone.append(of_peer[0])
        elif len(self._all) >= limits.STRIKES:
            strangers = (one for one in self._all.values() if not one.known)
            oldest = next(strangers, None)
            if oldest is None and not known:
                return None, ()
            gone.append(oldest or next(iter(self._all.values())))
        for one in gone:
            del self._all[one.offence]
        strike = Strike(
            conviction.peer, conviction.kind, conviction.digest, proof, now, known, found
        )
        self._all[strike.offence] = strike
        return strike, tuple(one.offence for one in gone)


def _in_force(strike: Strike, now: int) -> bool:
    return now < strike.seen_at + limits.STRIKE_S


def _seen_by(strike: Strike, now: int) -> Strike:
    if strike.seen_at <= now:
        return strike
    return replace(strike, seen_at=now)
