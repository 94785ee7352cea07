"""Kademlia's routing table and its look-up, as states without I/O.

Nodes and keys are points in one space of 256 bits, near where their exclusive or is small
(Maymounkov, Mazières: "Kademlia: A Peer-to-peer Information System Based on the XOR Metric", 2002).
A look-up goes along several paths that share no node, so that a liar spoils one of them and not the
look-up (Baumgart, Mies: "S/Kademlia: A Practicable Approach Towards Secure Key-Based Routing",
2007). Nothing here grows with what others say: a node that only was heard of enters no table.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from protocol.dht import NODES
from protocol.digest import digest
from protocol.ids import Digest, PeerId

K = NODES
"""Contacts in a bucket."""
PATHS = 3
"""Disjoint paths of a look-up."""
WIDTH = 3
"""How many of the nearest nodes a path has to have asked before it ends."""
PARALLEL = 2
"""Questions under way at once on one path."""
PATH_QUESTIONS = 16
"""Questions on one path, whatever the answers say."""
BLAME = 4
"""Contacts that one node may name in vain on a path before its others are passed over."""
PER_ORIGIN = 2
"""Contacts of one origin in a bucket, and among the nearest of a path: addresses cost more than
keys."""
FORGET_S = 3600.0
"""How long a contact that does not answer keeps its place if nobody else wants it, in seconds."""


def node_point(peer: PeerId) -> Digest:
    """Where ``peer`` is in the space, and what is stated of it."""
    return digest("dht-node", peer)


def swarm_point(swarm: str) -> Digest:
    """Where the members of ``swarm`` meet."""
    return digest("dht-swarm", swarm)


def distance(a: bytes, b: bytes) -> int:
    """How far two points are from each other."""
    return int.from_bytes(a, "big") ^ int.from_bytes(b, "big")


@dataclass(frozen=True, slots=True)
class Contact:
    """A node and how to reach it.

    Attributes:
        addresses: multiaddrs, as far as they are known.
        origins: the networks of these addresses, such as ``203.0.113.0/24``; without those that
            anybody may use, such as a LAN's.
    """

    peer: PeerId
    addresses: tuple[str, ...]
    origins: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Entry:
    contact: Contact
    point: bytes
    tried_at: float
    failed_at: float | None = None
    """Since when it does not answer."""


class Table:
    """The contacts that have answered this node: many near it, few far away.

    Args:
        own: this node.
    """

    def __init__(self, own: PeerId) -> None:
        self._own = node_point(own)
        self._buckets: dict[int, dict[PeerId, _Entry]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._buckets.get(self._bucket(node_point(peer)), ())

    def _bucket(self, point: bytes) -> int:
        """By the leading bits in common; 0 is this node itself."""
        return distance(self._own, point).bit_length()

    def wants(self, contact: Contact) -> bool:
        """Whether it would be taken, if it answered."""
        number = self._bucket(node_point(contact.peer))
        if not number:
            return False
        bucket = self._buckets.get(number, {})
        if contact.peer in bucket:
            return bucket[contact.peer].failed_at is not None
        others = [one for one in bucket.values() if one.failed_at is None]
        return len(others) < K and not _crowded(contact, (one.contact for one in others))

    def answered(self, contact: Contact, now: float) -> bool:
        """Note that ``contact`` has answered; whether it is in the table now.

        Whoever has been there longer stays: a node that was up for long will be up for longer, and
        newcomers cannot push the others out. Only one that does not answer makes room.
        """
        point = node_point(contact.peer)
        number = self._bucket(point)
        bucket = self._buckets.get(number, {})
        known = bucket.get(contact.peer)
        if known is not None:
            known.contact, known.tried_at, known.failed_at = contact, now, None
            return True
        if not self.wants(contact):
            return False
        if len(bucket) >= K:
            del bucket[next(peer for peer, one in bucket.items() if one.failed_at is not None)]
        self._buckets.setdefault(number, bucket)[contact.peer] = _Entry(contact, point, now)
        return True

    def failed(self, peer: PeerId, now: float) -> None:
        """Note that ``peer`` did not answer."""
        number = self._bucket(node_point(peer))
        bucket = self._buckets.get(number, {})
        entry = bucket.get(peer)
        if entry is None:
            return
        entry.tried_at = now
        if entry.failed_at is None:
            entry.failed_at = now
        elif now - entry.failed_at > FORGET_S:
            del bucket[peer]
            if not bucket:
                del self._buckets[number]

    def closest(self, target: bytes, most: int = K) -> list[Contact]:
        """The nearest to ``target`` that answered when they were asked last, nearest first."""
        return self._nearest(target, most, silent=False)

    def silent(self, target: bytes, most: int = K) -> list[Contact]:
        """The nearest to ``target`` that did not; the fault may have been on this side."""
        return self._nearest(target, most, silent=True)

    def _nearest(self, target: bytes, most: int, silent: bool) -> list[Contact]:
        entries = (
            one
            for bucket in self._buckets.values()
            for one in bucket.values()
            if (one.failed_at is not None) == silent
        )
        nearest = heapq.nsmallest(most, entries, key=lambda one: distance(one.point, target))
        return [one.contact for one in nearest]

    def stalest(self, before: float) -> Contact | None:
        """The one asked or heard least recently, if that was before ``before``."""
        entries = (one for bucket in self._buckets.values() for one in bucket.values())
        stale = min(entries, key=lambda one: one.tried_at, default=None)
        return None if stale is None or stale.tried_at >= before else stale.contact


def _crowded(contact: Contact, others: Iterable[Contact]) -> bool:
    """Whether enough of ``others`` are from where ``contact`` is."""
    count = Counter(origin for one in others for origin in one.origins)
    return any(count[origin] >= PER_ORIGIN for origin in contact.origins)


@dataclass(slots=True)
class _Candidate:
    contact: Contact
    distance: int
    referrer: PeerId | None
    asked: bool = False
    answered: bool = False


@dataclass(slots=True)
class _Path:
    candidates: dict[PeerId, _Candidate] = field(default_factory=dict)
    questions: int = 0
    under_way: int = 0
    blame: Counter[PeerId] = field(default_factory=Counter)


class Lookup:
    """A search for the nodes nearest to ``target``.

    Ask whom :meth:`ask` names, and report each with :meth:`answered` or :meth:`failed`, until
    :attr:`done`. It ends after ``PATHS * PATH_QUESTIONS`` questions at most.

    Args:
        own: this node, which is not asked.
        target: a point.
        seeds: whom to begin with, in order of preference.
    """

    def __init__(self, own: PeerId, target: bytes, seeds: Sequence[Contact]) -> None:
        self._target = target
        self._paths = [_Path() for _ in range(PATHS)]
        self._taken: dict[PeerId, _Path | None] = {own: None}
        for number, contact in enumerate(seeds):
            self._add(self._paths[number % PATHS], contact, None)

    @property
    def done(self) -> bool:
        """Whether there is nobody to ask, nor an answer to wait for."""
        return all(not path.under_way and self._next(path) is None for path in self._paths)

    def ask(self) -> list[Contact]:
        """Whom to ask now; the paths choose in turn."""
        chosen: list[Contact] = []
        while True:
            before = len(chosen)
            for path in self._paths:
                candidate = self._next(path)
                if candidate is not None and path.under_way < PARALLEL:
                    candidate.asked = True
                    path.questions += 1
                    path.under_way += 1
                    self._taken[candidate.contact.peer] = path
                    chosen.append(candidate.contact)
            if len(chosen) == before:
                return chosen

    def answered(self, peer: PeerId, contacts: Iterable[Contact]) -> None:
        """``peer`` answered, and named these (``K`` of them count)."""
        path = self._taken[peer]
        assert path is not None
        path.under_way -= 1
        path.candidates[peer].answered = True
        # Who knows a single node to begin with still gets paths that part at once.
        homes = [path, *(one for one in self._paths if not one.candidates and not one.questions)]
        for number, contact in enumerate(itertools.islice(contacts, K)):
            self._add(homes[number % len(homes)], contact, peer)

    def failed(self, peer: PeerId) -> None:
        """``peer`` did not answer."""
        path = self._taken[peer]
        assert path is not None
        path.under_way -= 1
        referrer = path.candidates.pop(peer).referrer
        if referrer is None:
            return
        path.blame[referrer] += 1
        if path.blame[referrer] >= BLAME:
            for other in [
                one
                for one, candidate in path.candidates.items()
                if candidate.referrer == referrer and not candidate.asked
            ]:
                del path.candidates[other]

    def closest(self) -> list[Contact]:
        """The nearest that answered, ``WIDTH`` of each path, nearest first."""
        found = [one for path in self._paths for one in self._nearest(path, answered=True)]
        return [one.contact for one in sorted(found, key=lambda one: one.distance)]

    def _add(self, path: _Path, contact: Contact, referrer: PeerId | None) -> None:
        if contact.peer not in self._taken and contact.peer not in path.candidates:
            far = distance(node_point(contact.peer), self._target)
            path.candidates[contact.peer] = _Candidate(contact, far, referrer)

    def _next(self, path: _Path) -> _Candidate | None:
        """The nearest that ``path`` still has to ask."""
        if path.questions >= PATH_QUESTIONS:
            return None
        return next((one for one in self._nearest(path) if not one.asked), None)

    def _nearest(self, path: _Path, answered: bool = False) -> list[_Candidate]:
        """The ``WIDTH`` nearest that no other path has asked, not too many of one origin."""
        nearest: list[_Candidate] = []
        for candidate in sorted(path.candidates.values(), key=lambda one: one.distance):
            contact = candidate.contact
            if (
                self._taken.get(contact.peer, path) is path
                and (candidate.answered or not answered)
                and not _crowded(contact, (one.contact for one in nearest))
            ):
                nearest.append(candidate)
                if len(nearest) == WIDTH:
                    break
        return nearest
