"""Exchanging logs with a peer: the side that answers.

It needs no memory of what it has been asked. A table of digests is kept for a few peers, since an
exchange asks three times in a row, and is made again where it has gone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, cast

from protocol import limits
from protocol import sync as wire
from protocol.codec import decode, encode
from protocol.errors import ClockError, GapError, RefusedError
from protocol.ids import PeerId
from protocol.ledger import Fork, Place, Run, read_entry
from protocol.sync import Ask, Piece
from swarm.ledger.digests import SLICE, Salt, Table, answer_nonce, tabulate
from swarm.ledger.parcel import Parcel, part
from swarm.ledger.replica import Change, Name, Replica
from swarm.ledger.steps import PAUSE, Machine, Take

TABLES: Final = 4
"""Tables kept, of different peers; one of 20,000 chains takes some 4 MB."""

_REQUEST: Final = cast("type[wire.AnyRequest]", wire.AnyRequest)
_About = tuple[int, bytes]
"""The epoch and the nonce of an exchange."""


class Responder:
    """Args:
        own: this node.
        secret: random bytes that nobody else knows; others after each start.

    Attributes:
        tabulated: tables made so far: what a request costs that comes without the one before.
    """

    def __init__(self, replica: Replica, own: PeerId, secret: bytes) -> None:
        self._replica = replica
        self._own = own
        self._secret = secret
        self._tables: OrderedDict[PeerId, tuple[_About, Table]] = OrderedDict()
        self.tabulated = 0

    def takes_table(self, peer: PeerId, request: wire.AnyRequest) -> bool:
        """Whether all logs have to be hashed for ``request``, as when an exchange begins."""
        match request:
            case wire.Open():
                return True
            case wire.Give() | wire.Log():
                return False
        known = self._tables.get(peer)
        return known is None or known[0] != (request.epoch, request.nonce)

    def answer(self, peer: PeerId, body: bytes, epoch: int) -> Machine[bytes]:
        """The reply to a request of ``peer``.

        Args:
            epoch: the one it is now.

        Raises:
            DecodeError, TooLargeError: it is no request.
            RefusedError: it is about another time, or asks for what there cannot be.
        """
        request = decode(body, _REQUEST, limits.SYNC_BYTES)
        reply = yield from self._answer(peer, request, epoch)
        return encode(reply)

    def _answer(self, peer: PeerId, request: wire.AnyRequest, epoch: int) -> Machine[wire.Reply]:
        match request:
            case wire.Give(runs, forks):
                return (yield from self._take(runs, forks))
            case wire.Log(author, pieces):
                return (yield from self._log(peer, author, pieces))
        if abs(request.epoch - epoch) > 1:
            raise ClockError(f"It is epoch {epoch} here; see to the clocks.")
        _check_form(request)
        table = yield from self._table(peer, request)
        match request:
            case wire.Open(_, nonce):
                return wire.Root(self._nonce(peer, nonce), table.root, table.chains)
            case wire.Buckets(_, _, count):
                return wire.Digests(table.digests(count))
            case wire.Heads(_, _, count, which, after):
                heads = table.heads(count, which, after)
                return wire.HeadList(heads[: wire.HEADS * wire.HEAD_BYTES])
            case wire.Want(_, _, asks):
                return (yield from self._serve(table, wire.unpack_asks(asks)))

    def _nonce(self, peer: PeerId, nonce: bytes) -> bytes:
        return answer_nonce(self._secret, peer, nonce)

    def _table(
        self, peer: PeerId, request: wire.Open | wire.Buckets | wire.Heads | wire.Want
    ) -> Machine[Table]:
        """What the exchange is about, as it was when it began if that is still known."""
        about = request.epoch, request.nonce
        if not isinstance(request, wire.Open):
            known = self._tables.get(peer)
            if known is not None and known[0] == about:
                self._tables.move_to_end(peer)
                return known[1]
        self.tabulated += 1
        salt = Salt(peer, self._own, request.nonce, self._nonce(peer, request.nonce))
        table = yield from tabulate(self._replica, request.epoch, salt)
        self._tables[peer] = about, table
        self._tables.move_to_end(peer)
        while len(self._tables) > TABLES:
            self._tables.popitem(last=False)
        return table

    def _serve(self, table: Table, asks: Iterable[Ask]) -> Machine[wire.Runs]:
        return (
            yield from self._packed(
                (table.names.get(name), first, ticket) for name, first, ticket in asks
            )
        )

    def _log(self, peer: PeerId, author: PeerId, pieces: tuple[Piece, ...]) -> Machine[wire.Runs]:
        return (
            yield from self._packed(
                (((author, one.epoch), one.first, True) for one in pieces), guest=peer == author
            )
        )

    def _packed(
        self, asked: Iterable[tuple[Name | None, int, bool]], guest: bool = False
    ) -> Machine[wire.Runs]:
        """As much of what was asked for as fits, in its order.

        Args:
            guest: whether chains that are not admitted may be passed on, too.
        """
        parcel, served = Parcel(), 0
        for name, first, ticket in asked:
            if served % SLICE == 0:
                yield PAUSE
            chain = self._replica.chain(*name) if name is not None else None
            if chain is not None and (chain.admitted or guest):
                item = part(self._replica, (chain.author, chain.epoch), first, ticket)
                if item is not None and not parcel.add(item):
                    break
            served += 1
        return wire.Runs(tuple(parcel.runs), tuple(parcel.forks), served)

    def _take(self, runs: tuple[Run, ...], forks: tuple[Fork, ...]) -> Machine[wire.Gave]:
        outcomes = yield Take(runs, forks)
        assert outcomes is not None
        assert not isinstance(outcomes, bytes)
        places: list[Place] = []
        refused = 0
        for item, outcome in zip((*forks, *runs), outcomes, strict=True):
            match outcome:
                case Change():
                    pass
                case GapError(have=have) if isinstance(item, Run):
                    entry = read_entry(item.bodies[0])
                    places.append(Place(entry.author, entry.epoch, have))
                case _:
                    refused += 1
        return wire.Gave(tuple(places), refused)


def _check_form(request: wire.Open | wire.Buckets | wire.Heads | wire.Want) -> None:
    """See that ``request`` asks for what there can be.

    Raises:
        DecodeError: it asks for something and a part.
        RefusedError: its buckets are none.
    """
    match request:
        case wire.Want(asks=asks):
            wire.check_whole(asks, wire.ASK_BYTES)
        case wire.Buckets(count=count) | wire.Heads(count=count) if count & (count - 1):
            raise RefusedError("The number of buckets is no power of two.")
        case wire.Heads(count=count, which=which) if len(which) != (count + 7) // 8:
            raise RefusedError("It marks another number of buckets than there are.")
