"""Exchanging logs with a peer: the side that asks.

Both replicas are brought to hold what either held. The asker finds where they differ, fetches what
it lacks, and then gives what the peer lacks. What differs is judged by counts and digests alone, so
a peer can make it ask for what there is not, and no more: whatever it answers, an exchange comes to
an end, and everything that comes goes through the one door of :mod:`swarm.ledger.replica`.

Where two logs of one author turn out to contradict each other, the side that sees it has the proof,
and gives it to the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from protocol import limits
from protocol import sync as wire
from protocol.codec import decode, encode
from protocol.errors import GapError, RefusedError
from protocol.ids import PeerId
from protocol.ledger import Fork, Run, read_entry
from protocol.sync import PROOF, Ask, Head, Piece
from swarm.ledger.chain import Chain
from swarm.ledger.digests import SLICE, Salt, Table, bucket_of, tabulate
from swarm.ledger.parcel import Gift, Parcel, missing, part
from swarm.ledger.replica import Change, Name, Replica
from swarm.ledger.steps import PAUSE, Machine, Request, Take

T = TypeVar("T")
R = TypeVar("R", bound=wire.Reply)

FEW: Final = 64
"""Chains whose heads are asked for at once, which takes less than finding out which of them."""
CHAINS_PER_BUCKET: Final = 4
GIVEN: Final = limits.ENTRIES_AT_ONCE // 2
"""Entries after which a peer is given no more, since it has not asked for them."""
IDLE: Final = 4
"""Replies in a row without anything new after which no more are asked for."""


@dataclass(slots=True)
class Report:
    """What came of an exchange.

    Attributes:
        alike: both sides held the same when it began.
        requests: that were sent and answered.
        sent, received: bytes of them.
        taken: runs and proofs with something new in them.
        refused: those that were refused here.
        given: entries that the peer was given, whether it knew them or not.
        declined: runs and proofs that it refused.
        partial: there was more to fetch or to give than one exchange may take.
    """

    alike: bool = False
    requests: int = 0
    sent: int = 0
    received: int = 0
    taken: int = 0
    refused: int = 0
    given: int = 0
    declined: int = 0
    partial: bool = False


def exchange(
    replica: Replica, own: PeerId, peer: PeerId, epoch: int, nonce: bytes
) -> Machine[Report]:
    """Bring ``replica`` and that of ``peer`` to hold the same of ``epoch`` and the one before.

    Args:
        own: this node.
        nonce: 8 random bytes.

    Raises:
        ProtocolError: the peer breaks the protocol. What it sends that is not taken is counted, no
            more: whoever takes it knows what to make of that.
    """
    asker = _Asker(replica)
    root = yield from asker.ask(wire.Open(epoch, nonce), wire.Root)
    salt = Salt(own, peer, nonce, root.nonce)
    table = yield from tabulate(replica, epoch, salt)
    if root.root == table.root:
        asker.report.alike = True
        return asker.report
    difference = _Difference(asker, table, epoch, nonce)
    yield from difference.find(root.chains)
    yield from difference.fetch()
    yield from asker.give((yield from difference.gifts()))
    return asker.report


def recall(replica: Replica, author: PeerId, epoch: int) -> Machine[Report]:
    """Fetch all that a peer holds of ``author`` in ``epoch`` and those beside it.

    Raises:
        ProtocolError: as :func:`exchange`.
    """
    asker = _Asker(replica)
    pieces: list[Piece] = []
    for one in range(max(0, epoch - 1), epoch + 2):
        chain = replica.chain(author, one)
        pieces.append(Piece(one, PROOF))
        pieces.append(Piece(one, len(chain.bodies) if chain is not None else 0))

    def message(some: Sequence[Piece]) -> wire.Request:
        return wire.Log(author, tuple(some))

    yield from asker.fetch(pieces, message, wire.LOG_PIECES)
    again = [Piece(name[1], have) for name, have in asker.gaps.items() if name[0] == author]
    yield from asker.fetch(again[: wire.LOG_PIECES], message, wire.LOG_PIECES)
    return asker.report


def give(replica: Replica, gifts: Iterable[Gift]) -> Machine[Report]:
    """Give a peer what it may lack: what is new here, or one's own log when a link comes up.

    Args:
        gifts: chains that are admitted, or one's own.

    Raises:
        ProtocolError: as :func:`exchange`.
    """
    asker = _Asker(replica)
    yield from asker.give(gifts)
    return asker.report


class _Asker:
    """Sends requests, takes what comes, and keeps count.

    Attributes:
        gaps: chains whose runs did not follow from what is held, and from where they would.
    """

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.report = Report()
        self.gaps: dict[Name, int] = {}

    def ask(self, message: wire.Request, kind: type[R]) -> Machine[R]:
        """The reply to ``message``."""
        body = encode(message)
        reply = yield Request(body)
        assert isinstance(reply, bytes)
        self.report.requests += 1
        self.report.sent += len(body)
        self.report.received += len(reply)
        return decode(reply, kind, limits.SYNC_BYTES)

    def fetch(
        self, asks: Sequence[T], message: Callable[[Sequence[T]], wire.Request], most: int
    ) -> Machine[None]:
        """Ask for all of ``asks``, at most ``most`` at once, and take what comes."""
        done = idle = 0
        while done < len(asks):
            if idle == IDLE or self.report.received > limits.SYNC_BYTES_AT_ONCE:
                self.report.partial = True
                return
            asked = asks[done : done + most]
            before = self.report.received
            reply = yield from self.ask(message(asked), wire.Runs)
            size = self.report.received - before
            if reply.served > len(asked) or len(reply.runs) + len(reply.forks) > reply.served:
                raise RefusedError("It answers more than was asked.")
            if reply.served < len(asked) and size < wire.LEAST_BYTES:
                raise RefusedError("It answers less than would fit.")
            done += reply.served
            idle = 0 if (yield from self._take(reply)) else idle + 1

    def _take(self, reply: wire.Runs) -> Machine[bool]:
        """Whether there was anything new in it."""
        items: tuple[Run | Fork, ...] = (*reply.forks, *reply.runs)
        if not items:
            return False
        outcomes = yield Take(reply.runs, reply.forks)
        assert outcomes is not None
        assert not isinstance(outcomes, bytes)
        news = False
        for item, outcome in zip(items, outcomes, strict=True):
            match outcome:
                case Change():
                    self.report.taken += bool(outcome)
                    news |= bool(outcome)
                case GapError(have=have) if isinstance(item, Run):
                    entry = read_entry(item.bodies[0])
                    self.gaps[entry.author, entry.epoch] = have
                    news = True
                case _:
                    self.report.refused += 1
        return news

    def give(self, gifts: Iterable[Gift]) -> Machine[None]:
        """Give all of ``gifts``, and those that leave a gap once more, from further down."""
        again: dict[Name, Gift] = {}
        yield from self._give(gifts, again)
        yield from self._give(list(again.values()), {})

    def _give(self, gifts: Iterable[Gift], again: dict[Name, Gift]) -> Machine[None]:
        parcel, runs = Parcel(), dict[Name, Gift]()
        for at, gift in enumerate(gifts):
            if at % SLICE == 0:
                yield PAUSE
            name = gift.author, gift.epoch
            item = part(self.replica, name, gift.first, gift.ticket)
            if item is None:
                continue
            if self.report.given + parcel.entries >= GIVEN:
                self.report.partial = True
                break
            if not parcel.add(item):
                if not (yield from self._hand_over(parcel, runs, again)):
                    return
                parcel, runs = Parcel(), {}
                parcel.add(item)
            if isinstance(item, Run):
                runs[name] = gift
        if parcel.runs or parcel.forks:
            yield from self._hand_over(parcel, runs, again)

    def _hand_over(
        self, parcel: Parcel, runs: dict[Name, Gift], again: dict[Name, Gift]
    ) -> Machine[bool]:
        """Whether to go on."""
        message = wire.Give(tuple(parcel.runs), tuple(parcel.forks))
        reply = yield from self.ask(message, wire.Gave)
        items = len(parcel.runs) + len(parcel.forks)
        if len(reply.places) + reply.refused > items:
            raise RefusedError("It refuses more than it was given.")
        self.report.given += parcel.entries
        self.report.declined += reply.refused
        for place in reply.places:
            name = place.author, place.epoch
            if name not in runs:
                raise RefusedError("It misses the beginning of what it was not given.")
            again[name] = Gift(*name, place.seq, runs[name].ticket)
        return reply.refused < items


class _Difference:
    """Where two replicas differ.

    Args:
        table: of what was held here when the exchange began. What is asked for and given follows
            from what is held when it is.
    """

    def __init__(self, asker: _Asker, table: Table, epoch: int, nonce: bytes) -> None:
        self._asker = asker
        self._replica = asker.replica
        self._table = table
        self._salt = table.salt
        self._epoch = epoch
        self._nonce = nonce
        self._count = 1
        self._which = b"\x01"
        self._theirs: dict[bytes, Head] = {}

    def find(self, chains: int) -> Machine[None]:
        """Get the heads of all chains that the peer may hold more or less of.

        Args:
            chains: how many it has.
        """
        most = max(chains, self._table.chains)
        if not chains:
            return
        if self._table.chains and most > FEW:
            self._count = min(wire.BUCKETS, 1 << (most // CHAINS_PER_BUCKET - 1).bit_length())
            yield from self._compare()
        if any(self._which):
            yield from self._get_heads()

    def _compare(self) -> Machine[None]:
        """See which buckets differ."""
        count = self._count
        request = wire.Buckets(self._epoch, self._nonce, count)
        theirs = (yield from self._asker.ask(request, wire.Digests)).digests
        ours = self._table.digests(count)
        if len(theirs) != len(ours):
            raise RefusedError("It answers with another number of digests than was asked for.")
        bits = 0
        for at in range(count):
            place = slice(at * wire.BUCKET_BYTES, (at + 1) * wire.BUCKET_BYTES)
            bits |= (theirs[place] != ours[place]) << at
        self._which = bits.to_bytes((count + 7) // 8, "little")

    def _get_heads(self) -> Machine[None]:
        wanted = int.from_bytes(self._which, "little")
        after = b""
        while True:
            request = wire.Heads(self._epoch, self._nonce, self._count, self._which, after)
            data = (yield from self._asker.ask(request, wire.HeadList)).heads
            wire.check_whole(data, wire.HEAD_BYTES)
            for at, head in enumerate(wire.unpack_heads(data)):
                if at % SLICE == 0:
                    yield PAUSE
                if head.id <= after or not wanted >> bucket_of(head.id, self._count) & 1:
                    raise RefusedError("Its heads are not sorted, or not those asked for.")
                after = head.id
                self._theirs[after] = head
            if len(self._theirs) > wire.CHAINS:
                raise RefusedError("It has more chains than there may be.")
            if len(data) < wire.HEADS * wire.HEAD_BYTES:
                return

    def fetch(self) -> Machine[None]:
        """Get what is missing here."""
        asks: list[Ask] = []
        for at, (name, head) in enumerate(self._theirs.items()):
            if at % SLICE == 0:
                yield PAUSE
            held = self._chain(name)
            asks += missing(self._salt.head(held) if held is not None else None, head)
        yield from self._asker.fetch(asks, self._want, wire.ASKS)
        again: list[Ask] = []
        for at, (chain, have) in enumerate(self._asker.gaps.items()):
            if at % SLICE == 0:
                yield PAUSE
            again.append(Ask(self._salt.id(chain), have, True))
        yield from self._asker.fetch(again, self._want, wire.ASKS)

    def _want(self, asks: Sequence[Ask]) -> wire.Request:
        return wire.Want(self._epoch, self._nonce, wire.pack_asks(asks))

    def gifts(self) -> Machine[list[Gift]]:
        """What is missing there."""
        found: list[Gift] = []
        ours = self._table.heads(self._count, self._which)
        names = itertools.chain(
            (ours[at : at + wire.ID_BYTES] for at in range(0, len(ours), wire.HEAD_BYTES)),
            # They have no heads, but may have been admitted by what was fetched.
            (name for name in self._table.guests if name in self._theirs),
        )
        for at, name in enumerate(names):
            if at % SLICE == 0:
                yield PAUSE
            held = self._chain(name)
            if held is None or not held.admitted:
                continue
            lacked = missing(self._theirs.get(name), self._salt.head(held))
            found += [Gift(held.author, held.epoch, one.first, one.ticket) for one in lacked]
        return found

    def _chain(self, name: bytes) -> Chain | None:
        """What is held now of a chain that was held when it began."""
        found = self._table.names.get(name)
        return self._replica.chain(*found) if found is not None else None
