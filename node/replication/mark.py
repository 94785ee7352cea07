"""How far this node is known to have written its own log: a small file beside the database.

Whoever signs two entries for one place is convicted of it for good. So a node must not write on
where its database was lost, damaged, or put back from a backup, as if it had written nothing. What
it must know for that stands here, away from the database: how far it may have written each chain.

The order is what makes it true at every instant, also where the process or the machine is stopped:

1. the entries are in the database, and the disk has them;
2. the mark says so, and the disk has it;
3. the entries may leave the node.

So no entry has left that the mark does not count, and the database has all that the mark counts,
unless it was lost. After 1 and before 2 it has more; where a node was stopped then, the mark is
raised before the database is used again, since what is in it may leave.

The file has a mark for each chain of the last swarms, keys and epochs that the data directory was
used with: a clock that was wrong may come back to an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

import msgspec

from node import atomic
from protocol.codec import decode, encode
from protocol.digest import digest
from protocol.errors import ProtocolError
from protocol.ids import ZERO_DIGEST, Digest, PeerId

FILE: Final = "ledger.head"
_HEADS: Final = 64
"""Chains, those that were written last."""
_LOST: Final = 1 << 31
"""More entries than any chain has."""
_DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Mark:
    """How far this node may have written its own chain of an epoch.

    Attributes:
        entries: how many there are.
        head: the digest of the last of them.
    """

    epoch: int
    entries: int
    head: Digest


class Unknown(Enum):
    """Stands for a mark that was lost: anything may have been written."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN


class _Head(msgspec.Struct, frozen=True, array_like=True):
    swarm: str
    author: bytes
    epoch: int
    entries: int
    head: bytes

    def is_of(self, swarm: str, author: bytes, epoch: int) -> bool:
        return (self.swarm, self.author, self.epoch) == (swarm, author, epoch)


class _Heads(msgspec.Struct, frozen=True, array_like=True):
    """Attributes:
    lost_until: of what was written up to this epoch, nothing is known, whatever the swarm and key.
    heads: the one that was written last, last.
    """

    lost_until: int = -1
    heads: tuple[_Head, ...] = ()


class Marks:
    """The file of a data directory. What changes it has reached the disk once it returns.

    Every method that does raises OSError where the disk fails.

    Attributes:
        missing: there is no file.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE
        for leftover in data_dir.glob(f".{FILE}{atomic.LEFTOVERS[1:]}"):
            leftover.unlink()
        self.missing = False
        self._heads: _Heads | None = _Heads()
        try:
            self._heads = _read(self._path.read_bytes())
        except FileNotFoundError:
            self.missing = True

    def __bool__(self) -> bool:
        """Whether it has a mark, of whatever chain."""
        return self._heads is not None and bool(self._heads.heads)

    def get(self, swarm: str, author: PeerId, epoch: int) -> Mark | Unknown | None:
        """The mark of a chain. None where this node has written nothing in it yet."""
        if self._heads is None:
            return UNKNOWN
        if epoch <= self._heads.lost_until:
            return Mark(epoch, _LOST, ZERO_DIGEST)
        for one in self._heads.heads:
            if one.is_of(swarm, author, epoch):
                return Mark(epoch, one.entries, Digest(one.head))
        return None

    def raise_to(self, swarm: str, author: PeerId, mark: Mark) -> None:
        """See that the mark of a chain says at least as much as ``mark``, unless it is unknown."""
        held = self.get(swarm, author, mark.epoch)
        if self._heads is None or (isinstance(held, Mark) and held.entries >= mark.entries):
            return
        others = [one for one in self._heads.heads if not one.is_of(swarm, author, mark.epoch)]
        others.append(_Head(swarm, author, mark.epoch, mark.entries, mark.head))
        self._write(_Heads(self._heads.lost_until, tuple(others[-_HEADS:])))

    def write_off(self, epoch: int) -> None:
        """Nothing is known of what was written up to ``epoch``, whatever the swarm and key."""
        heads = self._heads or _Heads()
        self._write(_Heads(max(epoch, heads.lost_until), heads.heads))

    def doubt(self) -> None:
        """What was written is unknown from now on."""
        atomic.replace(self._path, b"")
        self._heads, self.missing = None, False

    def _write(self, heads: _Heads) -> None:
        body = encode(heads)
        atomic.replace(self._path, digest("ledger heads", body) + body)
        self._heads, self.missing = heads, False


def _read(data: bytes) -> _Heads | None:
    """What the file says; None where it is damaged."""
    body = data[_DIGEST_BYTES:]
    if data[:_DIGEST_BYTES] != digest("ledger heads", body):
        return None
    try:
        return decode(body, _Heads)
    except ProtocolError:
        return None
