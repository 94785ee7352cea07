"""Authors whose logs are the same in every run, tickets for nothing, and replicas of both."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from protocol.codec import encode
from protocol.digest import digest
from protocol.envelope import KeySigner
from protocol.errors import AdmissionError
from protocol.ids import PeerId
from protocol.ledger import (
    EPOCH_S,
    Capability,
    Checkpoint,
    Content,
    Fork,
    Run,
    first_entry,
    fork,
    next_entry,
    sign,
)
from swarm.ledger.document import client_of
from swarm.ledger.replica import Replica
from tests.swarm.ledger.updates import deletions, rewritten, structs, text, written

SWARM = "test"
EPOCH = 2960
NOW = EPOCH * EPOCH_S + 6 * 24 * 3600.0
"""Unix time in seconds, on the last day of :data:`EPOCH`."""
PACE_S = 1800
"""Between two entries: a day has as many changes as it may, nearly."""


class FreeAdmission:
    """Admits whoever holds a ticket of :func:`ticket`, whose maker says how good it is."""

    def __init__(self) -> None:
        self.asked = 0

    def quality(self, author: PeerId, epoch: int, ticket: bytes) -> int:
        """How good ``ticket`` is.

        Raises:
            AdmissionError: it is not of this author and epoch.
        """
        self.asked += 1
        quality = int.from_bytes(ticket[:2], "big")
        if ticket != free_ticket(author, epoch, quality):
            raise AdmissionError("It is not a ticket of this author and epoch.")
        return quality


def free_ticket(author: PeerId, epoch: int, quality: int = 1, size: int = 10) -> bytes:
    """What :class:`FreeAdmission` takes, in ``size`` bytes."""
    return quality.to_bytes(2, "big") + digest("free ticket", author, epoch, quality)[: size - 2]


def signer(name: str) -> KeySigner:
    """The key of whom tests call ``name``."""
    return KeySigner(sha256(b"author " + name.encode()).digest())


class Author:
    """One author in one epoch, who may say two things at once.

    Args:
        name: whoever has the same one has the same key.
        entries: how many it has written already, the checkpoint among them; 288 by :data:`NOW`.
        value_bytes: what it says of itself each time.

    Attributes:
        bodies: its entries.
        ticket: a free one.
    """

    def __init__(
        self,
        name: str,
        entries: int = 0,
        *,
        epoch: int = EPOCH,
        quality: int = 1,
        value_bytes: int = 8,
    ) -> None:
        self.name = name
        self.signer = signer(name)
        self.peer = self.signer.peer
        self.epoch = epoch
        self.quality = quality
        self.value_bytes = value_bytes
        self.bodies: list[bytes] = []
        self.accent = ""
        self._clock = 0
        for _ in range(entries):
            self.write()

    @property
    def ticket(self) -> bytes:
        """What admits it in this epoch."""
        return free_ticket(self.peer, self.epoch, self.quality)

    def say(self, content: Content, at: int | None = None) -> bytes:
        """Append an entry.

        Args:
            at: Unix time in seconds, as many times :data:`PACE_S` into the epoch as there are
                entries before it unless given.
        """
        if at is None:
            at = self.epoch * EPOCH_S + PACE_S * len(self.bodies)
        if self.bodies:
            entry = next_entry(self.bodies[-1], at, content)
        else:
            assert isinstance(content, Checkpoint)
            entry = first_entry(SWARM, self.peer, at, content)
        self.bodies.append(encode(entry))
        return self.bodies[-1]

    def write(self) -> bytes:
        """Append an entry that a document could have made: a checkpoint, or another value of its
        only key."""
        seq = len(self.bodies)
        if not seq:
            return self.say(Checkpoint(self._update(), (), ()))
        return self.say(Capability(self._update()))

    def _update(self) -> bytes:
        seed = digest("value", self.name, self.epoch, len(self.bodies), self.accent)
        content = text((seed * (self.value_bytes // 32 + 1))[: self.value_bytes])
        client = client_of(self.peer, self.epoch)
        clock = self._clock
        self._clock += 1
        if not clock:
            return structs(0, written("note", content), client=client) + b"\x00"
        return structs(clock, rewritten(clock - 1, content, client), client=client) + deletions(
            (clock - 1, 1), client=client
        )

    def run(self, first: int = 0, end: int | None = None, *, ticket: bool | bytes = True) -> Run:
        """Its entries from ``first`` to before ``end``, signed, with its ticket or another."""
        if isinstance(ticket, bool):
            ticket = self.ticket if ticket else b""
        return sign(self.signer, self.bodies[first:end], ticket)

    def other(self, seq: int, entries: int = 1, accent: str = "other") -> Author:
        """The same author as it never should be: it says the same up to ``seq``, and something
        else in ``entries`` entries from there on.

        Args:
            accent: what it says differs with it.
        """
        twin = Author(self.name, epoch=self.epoch, quality=self.quality)
        twin.value_bytes = self.value_bytes
        twin.bodies = self.bodies[:seq]
        twin.accent = accent
        twin._clock = seq
        for _ in range(entries):
            twin.write()
        return twin

    def fork(self, other: Author, seq: int, *, ticket: bool = True) -> Fork:
        """The proof that it and ``other`` say different things in place ``seq``."""
        return fork(self.run(seq, seq + 1, ticket=ticket), other.run(seq, seq + 1, ticket=ticket))


def replica(*runs: Run, own: PeerId | None = None, now: float = NOW) -> Replica:
    """One that holds ``runs``."""
    return fill(Replica(SWARM, FreeAdmission(), own), runs, now)


def fill(held: Replica, runs: Iterable[Run | Fork], now: float = NOW) -> Replica:
    """``held``, which takes all of ``runs``."""
    for one in runs:
        if isinstance(one, Fork):
            held.convict(one, now)
        else:
            held.take(one, now)
    return held


Held = dict[tuple[PeerId, int], tuple[tuple[bytes, ...], bytes, int | None]]


def held(one: Replica) -> Held:
    """All that matters of what is held, guests apart: entries, ticket, and where it forked."""
    return {
        name: (tuple(chain.bodies), chain.ticket, chain.forked_at)
        for name, chain in one.chains().items()
        if chain.admitted
    }
