"""What the disk does not have yet of the logs: for each chain what has to be written, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from protocol.codec import encode
from swarm.ledger.chain import Chain
from swarm.ledger.replica import Name

_ROW_BYTES: Final = 256
"""About what a chain or an entry takes beside its bytes."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is kept of a chain beside its entries.

    Attributes:
        fork: the encoded proof against its author, None where there is none.
    """

    ticket: bytes
    quality: int
    fork: bytes | None

    @classmethod
    def of(cls, chain: Chain) -> Standing:
        """Of ``chain`` as it is now."""
        fork = None if chain.fork is None else encode(chain.fork)
        return cls(chain.ticket, chain.quality, fork)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A chain is what the disk has of it before ``first``, and then ``entries``.

    Attributes:
        entries: bodies, each with the author's signature where it is known.
        standing: None where it stays what it is.
    """

    first: int
    entries: tuple[tuple[bytes, bytes | None], ...]
    standing: Standing | None

    @classmethod
    def of(cls, chain: Chain, first: int) -> Snapshot:
        """Of ``chain`` as it is now."""
        bodies = enumerate(chain.bodies[first:], first)
        entries = tuple((body, chain.signatures.get(seq)) for seq, body in bodies)
        return cls(first, entries, Standing.of(chain))

    @property
    def end(self) -> int:
        """How many entries the chain has."""
        return self.first + len(self.entries)

    def upon(self, older: Snapshot | None) -> Snapshot:
        """The two as one, where the disk has not got ``older`` yet.

        Args:
            older: ends at ``first``, or later; None where the chain was to be deleted.
        """
        if older is None:
            return replace(self, standing=self.standing or _BARE)
        standing = self.standing or older.standing
        kept = self.first - older.first
        if kept <= 0:
            return replace(self, standing=standing)
        return Snapshot(older.first, older.entries[:kept] + self.entries, standing)


_BARE: Final = Standing(b"", -1, None)
Batch = Mapping[Name, Snapshot | None]
"""Chains to be written; those to be deleted are None."""


class Unwritten:
    """Each chain stands once, with all that has changed; the one that waits longest comes first.

    Attributes:
        size: bytes that wait, about.
    """

    def __init__(self) -> None:
        self._waiting: dict[Name, Snapshot | None] = {}
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, name: Name, snapshot: Snapshot | None) -> None:
        """Have a chain written, or deleted where ``snapshot`` is None."""
        if name in self._waiting:
            older = self._waiting[name]
            self.size -= _size(older)
            snapshot = snapshot and snapshot.upon(older)
        self._waiting[name] = snapshot
        self.size += _size(snapshot)

    def pop(self, name: Name) -> Batch:
        """Take one chain out, if it waits."""
        if name not in self._waiting:
            return {}
        found = self._waiting.pop(name)
        self.size -= _size(found)
        return {name: found}

    def take(self, entries: int, size: int) -> Batch:
        """Take the first ones out: more than one while they stay within both limits.

        Args:
            entries: of all of them, each chain counting as one more.
            size: in bytes, about.
        """
        batch: dict[Name, Snapshot | None] = {}
        for name, one in self._waiting.items():
            entries -= 1 + (len(one.entries) if one is not None else 0)
            size -= _size(one)
            if batch and (entries < 0 or size < 0):
                break
            batch[name] = one
        for name in batch:
            self.pop(name)
        return batch

    def put_back(self, batch: Batch) -> None:
        """What was taken out has not been written; more may have changed since."""
        for name, older in batch.items():
            newer = self.pop(name)
            self.put(name, older)
            for one in newer.values():
                self.put(name, one)


def _size(snapshot: Snapshot | None) -> int:
    if snapshot is None:
        return _ROW_BYTES
    fork = snapshot.standing.fork if snapshot.standing is not None else None
    bodies = sum(len(body) + _ROW_BYTES for body, _ in snapshot.entries)
    return bodies + len(fork or b"") + _ROW_BYTES
