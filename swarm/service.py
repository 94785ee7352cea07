"""Who serves is served first: what peers have done for this node, and it for them.

The unit is a round: one answer with the ballots that go with it. Both sides of an account fade
with a half-life of a week, so that old merit is no title for ever and old debt is forgiven.
Strangers, and peers that have taken more than they gave, share one small pool of seats, so that
making keys buys nobody more than the pool: the principle of tit-for-tat with an optimistic slot
(B. Cohen, "Incentives Build Robustness in BitTorrent", 2003), kept across restarts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from protocol import limits
from protocol.ids import PeerId

HALF_LIFE_S: Final = 7 * 24 * 3600
STANDING: Final = 0.5
"""Rounds a peer must have given, as faded by now, to count as more than a stranger."""
IN_TURN: Final = 1.0
"""Of two that serve each other in turn one is always a round ahead: that is no debt."""


@dataclass(frozen=True, slots=True)
class Account:
    """Service between this node and one peer, in rounds.

    Attributes:
        given: rounds the peer served for this node.
        taken: rounds this node served for the peer.
        at: Unix seconds that both are faded to.
    """

    given: float
    taken: float
    at: int

    def faded(self, now: int) -> Account:
        """The account as of ``now``. A clock that ran backwards fades nothing."""
        factor = 0.5 ** (max(0, now - self.at) / HALF_LIFE_S)
        return Account(self.given * factor, self.taken * factor, now)


class Balance:
    """The accounts of all peers, at most ``limits.ACCOUNTS``.

    Args:
        accounts: from an earlier run.
    """

    def __init__(self, accounts: Iterable[tuple[PeerId, Account]] = ()) -> None:
        self._accounts = dict(accounts)

    def knows(self, peer: PeerId) -> bool:
        """Whether there is an account."""
        return peer in self._accounts

    def account(self, peer: PeerId, now: int) -> Account:
        """The account of ``peer``, empty where there is none."""
        return self._accounts.get(peer, Account(0.0, 0.0, now)).faded(now)

    def in_credit(self, peer: PeerId, now: int) -> bool:
        """The peer has served this node, and owes it no more than the round of its turn."""
        account = self.account(peer, now)
        return account.given >= max(STANDING, account.taken - IN_TURN)

    def gave(self, peer: PeerId, now: int, rounds: float = 1.0) -> PeerId | None:
        """``peer`` served a round of this node. Returns whose account was closed for it."""
        return self._book(peer, now, rounds, 0.0)

    def took(self, peer: PeerId, now: int, rounds: float = 1.0) -> PeerId | None:
        """This node served a round of ``peer``. Returns whose account was closed for it."""
        return self._book(peer, now, 0.0, rounds)

    def admit(self, asker: PeerId, serving: Mapping[PeerId, int], now: int) -> str | None:
        """Whether to serve one more round of ``asker``.

        Args:
            asker: not this node, whose own questions are bounded elsewhere.
            serving: rounds being served now, by asker, this node left out.

        Returns:
            None to serve it, or why not, for the asker to read.
        """
        if serving.get(asker, 0) >= limits.ROUNDS_PER_ASKER:
            return f"{limits.ROUNDS_PER_ASKER} of your rounds are being served"
        everybody = sum(serving.values())
        if everybody >= limits.ROUNDS_AT_ONCE:
            return f"{everybody} rounds are being served"
        if self.in_credit(asker, now):
            return None
        pool = sum(n for peer, n in serving.items() if not self.in_credit(peer, now))
        if pool >= limits.STRANGERS_AT_ONCE:
            return f"{pool} rounds of peers that have not served this node as much are being served"
        return None

    def _book(self, peer: PeerId, now: int, given: float, taken: float) -> PeerId | None:
        old = self.account(peer, now)
        new = Account(old.given + given, old.taken + taken, now)
        closed = None
        if peer not in self._accounts and len(self._accounts) >= limits.ACCOUNTS:
            # Who has given least loses least: without merit a debtor is as good as a stranger.
            closed = min(self._accounts, key=lambda one: self._merit(one, now))
            if self.account(closed, now).given > new.given:
                return None
            del self._accounts[closed]
        self._accounts[peer] = new
        return closed

    def _merit(self, peer: PeerId, now: int) -> tuple[float, float, PeerId]:
        account = self.account(peer, now)
        return account.given, account.taken, peer
