"""Who may have a log that is replicated, in one epoch (a week).

Whether a ticket admits an author to an epoch, and how good it is, follow from nothing but its
bytes. So all replicas decide the same, whoever brings it and when, and hold the same authors where
there are too many.

In a public swarm a ticket is a *stamp*: work that anybody can do and check (Hashcash, Back 2002),
here with scrypt (RFC 7914). One try takes 1 MiB of memory and some 2 ms of one core, a stamp 2¹⁶
tries in expectation: two to three minutes of one core, checked with one try.

What it buys is that names are not free: each costs minutes, each week, so nobody fills a swarm from
a laptop in passing. It is memory-hard, since plain SHA-256 is cheaper by orders of magnitude on
hardware that honest nodes do not have. It is weekly, for what is paid for once could be used for
ever; and not daily, for honest nodes pay as well: 0.02 % of one core.

What it does not buy is safety from somebody rich. Some 2 cores that do nothing else fill the
:data:`~protocol.limits.AUTHORS` places of every week, and 20 cores push out nine in ten of the
authors that have done one stamp's work; graphics cards do better. Nothing keeps from making stamps
ahead of time, either: a salt that nobody foresees would need an agreement, of which there is none
here. A ticket admits to be listened to, no more: it has no weight in any vote.

In a private swarm only *certificates* count, which take its key, and no work.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import scrypt
from hmac import compare_digest
from typing import Final, Protocol

from nacl.signing import SigningKey

from protocol.digest import digest
from protocol.errors import TicketError
from protocol.ids import KEY_BYTES, PeerId

STAMP_BITS: Final = 16
"""A stamp takes 2 to the power of this many tries in expectation."""
STAMP_BYTES: Final = 8
CERTIFICATE_BYTES: Final = 64
CERTIFIED: Final = 1
"""The quality of every certificate."""
_VALUE_BITS: Final = 63
"""A quality fits into the signed 64 bits that a column of SQLite has."""
_SCRYPT_N: Final = 1024
_SCRYPT_R: Final = 8


class Admission(Protocol):
    """Who is admitted."""

    def quality(self, author: PeerId, epoch: int, ticket: bytes) -> int:
        """How good a ticket is, from 0 to 2⁶³ − 1; higher is better, among authors of one epoch.

        Raises:
            TicketError: it admits nobody, or somebody else, or at another time.
        """
        ...


class Stamps:
    """Tickets of a public swarm: nonces of 8 bytes whose scrypt hash is small.

    The salt names swarm, author and epoch, so that no stamp is of use to anybody else. The smaller
    the hash the better, to its last bit: more work always counts.

    Args:
        swarm: its name.
        bits: leading zeros of a hash that admits.

    Attributes:
        expected: how many tries a stamp takes in expectation.
    """

    def __init__(self, swarm: str, bits: int = STAMP_BITS) -> None:
        self._swarm = swarm
        self._bound = 1 << (_VALUE_BITS - bits)
        self.expected = 1 << bits

    def check_form(self, author: PeerId, epoch: int, ticket: bytes) -> None:
        """Raise TicketError where it takes no work to see that this is no stamp."""
        _check_form(author, epoch, ticket, STAMP_BYTES)

    def quality(self, author: PeerId, epoch: int, ticket: bytes) -> int:
        """As :meth:`Admission.quality`, in some 2 ms."""
        self.check_form(author, epoch, ticket)
        value = self.attempt(author, epoch, ticket)
        if value >= self._bound:
            raise TicketError("Its stamp is worth too little work.")
        return (1 << _VALUE_BITS) - 1 - value

    def recheck(self, author: PeerId, epoch: int, ticket: bytes) -> None:
        """Raise TicketError where a ticket that was good once can be seen not to be, at once."""
        self.check_form(author, epoch, ticket)

    def attempt(self, author: PeerId, epoch: int, ticket: bytes) -> int:
        """The hash of a ticket: a uniform number of 63 bits. Other threads run meanwhile."""
        salt = digest("stamp", self._swarm, author, epoch)
        # HMAC, which is inside, pads with zeros: only passwords of one length never coincide.
        hashed = scrypt(ticket, salt=salt, n=_SCRYPT_N, r=_SCRYPT_R, p=1, dklen=8)
        return int.from_bytes(hashed, "big") >> (64 - _VALUE_BITS)

    def search(self, author: PeerId, epoch: int, nonces: Iterable[int]) -> bytes | None:
        """The first stamp among ``nonces``, each from 0 to 2⁶⁴ − 1; None where there is none."""
        for nonce in nonces:
            ticket = nonce.to_bytes(STAMP_BYTES, "big")
            if self.attempt(author, epoch, ticket) < self._bound:
                return ticket
        return None


class Certificates:
    """Tickets of a private swarm: signatures with a key that follows from that of the swarm.

    Whoever has the key of the swarm can issue and check them, for anybody.

    Args:
        swarm: its name.
        key: its 32 secret bytes.
    """

    def __init__(self, swarm: str, key: bytes) -> None:
        self._swarm = swarm
        self._key = SigningKey(digest("admission-key", key))

    def check_form(self, author: PeerId, epoch: int, ticket: bytes) -> None:
        """Raise TicketError where it takes no work to see that this is no certificate."""
        _check_form(author, epoch, ticket, CERTIFICATE_BYTES)

    def recheck(self, author: PeerId, epoch: int, ticket: bytes) -> None:
        """Raise TicketError where a ticket that was good once is not with the key there is now."""
        self.quality(author, epoch, ticket)

    def issue(self, author: PeerId, epoch: int) -> bytes:
        """The certificate of ``author``: there is one for each epoch."""
        return self._key.sign(digest("admit", self._swarm, author, epoch)).signature

    def quality(self, author: PeerId, epoch: int, ticket: bytes) -> int:
        """As :meth:`Admission.quality`: the same for all."""
        self.check_form(author, epoch, ticket)
        # Of one message there are many valid signatures, but Ed25519 makes only one. If all were
        # taken, one member could replace an author's ticket at every node, again and again.
        if not compare_digest(ticket, self.issue(author, epoch)):
            raise TicketError("Its certificate is not made with the key of this swarm.")
        return CERTIFIED


def rank(quality: int, author: PeerId, epoch: int) -> tuple[int, bytes]:
    """Who is kept where there is no room: those that sort highest.

    Tickets of one quality are ordered by a digest, so that no author's key is better than another's
    week after week. No two authors are equal. Therefore, with ``best`` for the ``n`` authors of a
    set with the highest ranks, each by its best ticket::

        best(A ∪ B) == best(best(A) ∪ best(B))

    in whatever order and pieces tickets arrive, and replicas that heard of the same ones keep the
    same ones. It holds for authors that are left out for no other reason than their rank.
    """
    return quality, digest("rank", author, epoch)


def _check_form(author: PeerId, epoch: int, ticket: bytes, size: int) -> None:
    if len(ticket) != size:
        raise TicketError(f"A ticket of this swarm has {size} bytes, not {len(ticket)}.")
    if len(author) != KEY_BYTES:
        raise TicketError(f"An author has {KEY_BYTES} bytes, not {len(author)}.")
    if not 0 <= epoch < 1 << 64:
        raise TicketError(f"There is no epoch {epoch}.")
