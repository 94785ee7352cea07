"""Who is in the swarm, from what nodes state of themselves, however it comes.

A statement is signed by whom it is about and good for a few minutes (:mod:`protocol.presence`).
Nobody's word about somebody else counts, so a peer is never declared dead by hearsay, and a ghost
cannot be kept alive: a Leave ends its incarnation for good, and without one the last Presence
expires. (The incarnations are those of SWIM, Das et al. 2002; its rumours are not needed, for
whoever matters is linked, and links notice for themselves.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from protocol import limits
from protocol.digest import digest
from protocol.errors import RefusedError
from protocol.ids import Digest, PeerId
from protocol.presence import PRESENCE_S, Leave, Presence, Stated, check_time
from swarm.seeded import Stream


@dataclass(frozen=True, slots=True)
class Member:
    """What is known of a peer.

    Attributes:
        stated: its latest statement.
        expires_at: Unix time in seconds from which it counts no more.
        first_hand: whether the peer itself has said it.
    """

    stated: Stated
    expires_at: float
    first_hand: bool

    @property
    def presence(self) -> Presence | None:
        """Where it is, None once it has left."""
        statement = self.stated.statement
        return statement if isinstance(statement, Presence) else None


class Membership:
    """The latest statement of each peer, bounded in number and time.

    Args:
        own: this node, of whom it needs no word.
        swarm: statements about other swarms are refused.
    """

    def __init__(self, own: PeerId, swarm: str) -> None:
        self._own = own
        self._swarm = swarm
        self._members: dict[PeerId, Member] = {}

    def hear(self, stated: Stated, now: float, first_hand: bool = False) -> bool:
        """Take a verified statement.

        Args:
            now: Unix time in seconds.
            first_hand: the peer that it is about has said it to us. Keys cost nothing, so where
                there is no more room, who is linked displaces who was only heard of.

        Returns:
            whether it says something new.

        Raises:
            RefusedError: it is about another swarm, too old, or from the future.
        """
        statement = stated.statement
        if statement.swarm != self._swarm:
            raise RefusedError(f"It is about the swarm {statement.swarm!r}.")
        check_time(statement, now)
        if stated.peer == self._own:
            return False
        known = self._members.get(stated.peer)
        if known is not None and known.expires_at > now and not _supersedes(stated, known.stated):
            # Heard of before, but now the peer itself has come.
            self._members[stated.peer] = replace(known, first_hand=known.first_hand or first_hand)
            return False
        if known is None and not self._make_room(now, first_hand):
            return False
        first_hand = first_hand or (known is not None and known.first_hand)
        # In the order in which they were heard of last.
        self._members.pop(stated.peer, None)
        self._members[stated.peer] = Member(stated, statement.issued_at + PRESENCE_S, first_hand)
        return True

    def get(self, peer: PeerId, now: float) -> Presence | None:
        """Where ``peer`` is; None if it has not said so lately, or has left."""
        member = self._members.get(peer)
        if member is None or member.expires_at <= now:
            return None
        return member.presence

    def present(self, now: float) -> dict[PeerId, Presence]:
        """Everyone who has said lately that it is there, and has not left since."""
        return {
            peer: presence
            for peer, member in self._members.items()
            if member.expires_at > now and (presence := member.presence) is not None
        }

    def sample(self, most: int, now: float, draw: bytes) -> list[Stated]:
        """At most ``most`` statements that count, drawn by ``draw``; who has left comes first.

        A Leave has to travel as far as what it ends.
        """
        self._expire(now)
        members = sorted(self._members.items())
        left = [member.stated for _, member in members if member.presence is None]
        there = [member.stated for _, member in members if member.presence is not None]
        left = Stream(b"left" + draw).sample(left, min(most // 4, len(left)))
        room = min(most - len(left), len(there))
        return left + Stream(b"there" + draw).sample(there, room)

    def digest(self, own: Stated, now: float) -> Digest:
        """The same at two nodes that hold the same statements.

        Args:
            own: what this node states of itself; others hold it as well.
        """
        self._expire(now)
        held = {peer: member.stated for peer, member in self._members.items()}
        held[own.peer] = own
        parts: list[bytes | int] = []
        for peer, one in sorted(held.items()):
            parts += [peer, *map(int, _order(one))]
        return digest("members", *parts)

    def _make_room(self, now: float, first_hand: bool) -> bool:
        if len(self._members) < limits.MEMBERS:
            return True
        self._expire(now)
        if first_hand and len(self._members) >= limits.MEMBERS:
            # Who has left, then who was only heard of, then who has been silent for longest: who
            # is linked is none of them. Of equals the first is the one heard of longest ago.
            del self._members[min(self._members, key=lambda peer: _rank(self._members[peer]))]
        return len(self._members) < limits.MEMBERS

    def _expire(self, now: float) -> None:
        for peer in [one for one, member in self._members.items() if member.expires_at <= now]:
            del self._members[peer]


def _rank(member: Member) -> int:
    """What is given up first."""
    if member.presence is None:
        return 0
    return 2 if member.first_hand else 1


def _supersedes(new: Stated, old: Stated) -> bool:
    """Whether ``new`` is later than ``old`` in the life of the same peer."""
    return _order(new) > _order(old)


def _order(stated: Stated) -> tuple[int, bool, int]:
    """By incarnation; in one, leaving comes after all else; else by serial."""
    statement = stated.statement
    if isinstance(statement, Leave):
        return statement.incarnation, True, 0
    return statement.incarnation, False, statement.serial
