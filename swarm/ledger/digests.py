"""Short digests of all that is held, by which two replicas find where they differ.

All are keyed with a salt that neither of the two chooses alone. Otherwise an author could look for
two logs with one digest, and show one to each half of a swarm for as long as it likes.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Final

from protocol.digest import digest
from protocol.ids import PeerId
from protocol.sync import (
    BUCKET_BYTES,
    BUCKETS,
    HEAD_BYTES,
    ID_BYTES,
    LOG_BYTES,
    NONCE_BYTES,
    ROOT_BYTES,
    TICKET_BYTES,
    Head,
    pack_head,
)
from swarm.ledger.chain import Chain
from swarm.ledger.replica import Name, Replica
from swarm.ledger.steps import PAUSE, Pause

SLICE: Final = 128
"""Chains worked on between two pauses."""

_EPOCH: Final = Struct(">Q")
_LOG: Final = Struct(">QQ")


def answer_nonce(secret: bytes, peer: PeerId, nonce: bytes) -> bytes:
    """The nonce with which a node answers that of ``peer``, so that it need not remember one.

    Args:
        secret: of the node, which nobody else knows.
    """
    return digest("sync-nonce", secret, peer, nonce)[:NONCE_BYTES]


class Salt:
    """What the digests of one exchange are keyed with.

    Args:
        asker, asked: the two nodes.
        nonce: of the asker.
        answer: nonce of the other.
    """

    def __init__(self, asker: PeerId, asked: PeerId, nonce: bytes, answer: bytes) -> None:
        self._key = key = digest("sync-salt", asker, asked, nonce, answer)
        # Copies of a keyed hasher cost less than new ones.
        self._id = blake2b(key=key, digest_size=ID_BYTES, person=b"chain")
        self._log = blake2b(key=key, digest_size=LOG_BYTES, person=b"log")
        self._ticket = blake2b(key=key, digest_size=TICKET_BYTES, person=b"ticket")

    def id(self, name: Name) -> bytes:
        """Names a chain."""
        hasher = self._id.copy()
        hasher.update(name[0] + _EPOCH.pack(name[1]))
        return hasher.digest()

    def head(self, chain: Chain) -> Head:
        """What is held of ``chain``."""
        forked = chain.forked_at is not None
        entries = len(chain.bodies)
        log = self._log.copy()
        log.update(_LOG.pack(entries, chain.forked_at or 0))
        log.update(chain.head)
        ticket = self._ticket.copy()
        ticket.update(chain.ticket)
        name = self.id((chain.author, chain.epoch))
        return Head(name, entries, forked, log.digest(), ticket.digest())

    def bucket(self, heads: bytes) -> bytes:
        """The digest of one part of all heads."""
        return blake2b(heads, key=self._key, digest_size=BUCKET_BYTES, person=b"bucket").digest()

    def root(self, heads: bytes) -> bytes:
        """The digest of all."""
        return blake2b(heads, key=self._key, digest_size=ROOT_BYTES, person=b"root").digest()


class Table:
    """All chains of two epochs as they were at one moment.

    Args:
        parts: the sorted heads of each of :data:`~protocol.sync.BUCKETS` parts.
        names: of the chains, by id; guests, too, which have no heads.
        guests: ids of those that are not admitted.

    Attributes:
        root: one digest of all heads.
        chains: how many heads there are.
    """

    def __init__(
        self,
        salt: Salt,
        parts: list[bytes],
        names: Mapping[bytes, Name],
        guests: Sequence[bytes] = (),
    ) -> None:
        self.salt = salt
        self.names = names
        self.guests = guests
        self._parts = parts
        self.chains = sum(map(len, parts)) // HEAD_BYTES
        self.root = salt.root(b"".join(parts))

    def digests(self, count: int) -> bytes:
        """One digest for each of ``count`` buckets, a power of two."""
        return b"".join(self.salt.bucket(self._bucket(at, count)) for at in range(count))

    def heads(self, count: int, which: bytes, after: bytes = b"") -> bytes:
        """The heads in some of ``count`` buckets whose ids sort after ``after``, sorted.

        Args:
            which: a bit for each bucket, the first one lowest.
        """
        wanted = int.from_bytes(which, "little")
        start = bucket_of(after, count) if after else 0
        found = b"".join(self._bucket(at, count) for at in range(start, count) if wanted >> at & 1)
        low, high = 0, len(found) // HEAD_BYTES
        while low < high:
            middle = (low + high) // 2
            if found[middle * HEAD_BYTES : middle * HEAD_BYTES + ID_BYTES] <= after:
                low = middle + 1
            else:
                high = middle
        return found[low * HEAD_BYTES :]

    def _bucket(self, at: int, count: int) -> bytes:
        size = BUCKETS // count
        return b"".join(self._parts[at * size : (at + 1) * size])


def bucket_of(name: bytes, count: int) -> int:
    """In which of ``count`` buckets the chain with the id ``name`` is."""
    return int.from_bytes(name[:4], "big") * count >> 32


def tabulate(replica: Replica, epoch: int, salt: Salt) -> Generator[Pause, object, Table]:
    """All that is held of ``epoch`` and the one before.

    It takes some 4 µs a chain, with pauses in between, so that it shows each chain as it was at
    some time meanwhile.
    """
    parts: list[list[bytes]] = [[] for _ in range(BUCKETS)]
    names: dict[bytes, Name] = {}
    guests: list[bytes] = []
    for done, (name, chain) in enumerate(list(replica.chains().items())):
        if done % SLICE == 0:
            yield PAUSE
        if epoch - 1 <= name[1] <= epoch:
            head = salt.head(chain)
            names[head.id] = name
            if chain.admitted:
                parts[bucket_of(head.id, BUCKETS)].append(pack_head(head))
            else:
                guests.append(head.id)
    joined: list[bytes] = []
    for at, part in enumerate(parts):
        if at % SLICE == 0:
            yield PAUSE
        joined.append(b"".join(sorted(part)))
    yield PAUSE
    return Table(salt, joined, names, guests)
