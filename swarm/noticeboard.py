"""What a node keeps for others who look for each other: the latest statement of each.

A statement is put up by whom it is about and by nobody else, so that an entry costs its author a
connection. Where room is short, the network with the most entries makes it: keys cost nothing,
addresses do.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from protocol import limits
from protocol.errors import RefusedError
from protocol.ids import PeerId
from protocol.presence import PRESENCE_S, Leave, Presence, Stated, check_time
from swarm.kademlia import node_point, swarm_point
from swarm.seeded import Stream


@dataclass(frozen=True, slots=True)
class _Notice:
    presence: Presence
    envelope: bytes
    origin: str
    swarm: bytes
    point: bytes
    number: int

    @property
    def expires_at(self) -> float:
        return self.presence.issued_at + PRESENCE_S


class Noticeboard:
    """Statements by the point of their author and by that of its swarm, bounded and short-lived."""

    def __init__(self) -> None:
        self._notices: dict[PeerId, _Notice] = {}
        self._posted = 0

    def __len__(self) -> int:
        return len(self._notices)

    def post(self, stated: Stated, origin: str, now: float) -> None:
        """Put up ``stated``, which its author has handed in; a Leave takes down what is there.

        Args:
            stated: verified.
            origin: the network it came from.
            now: Unix time in seconds.

        Raises:
            RefusedError: it is too old, from the future, or older than what is there.
        """
        statement = stated.statement
        check_time(statement, now)
        known = self._notices.get(stated.peer)
        if isinstance(statement, Leave):
            if known is not None and known.presence.incarnation <= statement.incarnation:
                del self._notices[stated.peer]
            return
        if known is not None and order(known.presence) > order(statement):
            raise RefusedError("A later statement is there already.")
        self._posted += 1
        swarm = swarm_point(statement.swarm)
        self._notices[stated.peer] = _Notice(
            statement, stated.envelope, origin, swarm, node_point(stated.peer), self._posted
        )
        self._make_room(swarm, now)

    def read(self, key: bytes, most: int, now: float, draw: bytes) -> list[bytes]:
        """At most ``most`` of the statements at the point ``key``, drawn by ``draw``."""
        found = [
            notice.envelope
            for notice in self._notices.values()
            if key in (notice.swarm, notice.point) and notice.expires_at > now
        ]
        return Stream(b"notices" + draw).sample(found, min(most, len(found)))

    def expire(self, now: float) -> None:
        """Take down what counts no more."""
        for peer in [one for one, notice in self._notices.items() if notice.expires_at <= now]:
            del self._notices[peer]

    def _make_room(self, swarm: bytes, now: float) -> None:
        """Keep to the limits, one statement having been put up for ``swarm``."""
        if len(self._notices) > limits.NOTICES:
            self.expire(now)
        if len(self._notices) > limits.NOTICES:
            del self._notices[_spare(self._notices)]
        mates = {peer: one for peer, one in self._notices.items() if one.swarm == swarm}
        if len(mates) > limits.NOTICES_PER_SWARM:
            self.expire(now)
            mates = {peer: one for peer, one in mates.items() if peer in self._notices}
        if len(mates) > limits.NOTICES_PER_SWARM:
            del self._notices[_spare(mates)]


def _spare(notices: dict[PeerId, _Notice]) -> PeerId:
    """The oldest of the network that has the most."""
    count = Counter(notice.origin for notice in notices.values())
    return min(notices, key=lambda peer: (-count[notices[peer].origin], notices[peer].number))


def order(presence: Presence) -> tuple[int, int]:
    """Of two by one author, the later one has the higher."""
    return presence.incarnation, presence.serial
