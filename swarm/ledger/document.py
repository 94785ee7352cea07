"""A document: what one author says of itself, as a map of bytes that it alone writes.

It is a Yrs document, and its updates are in the author's log. It is not shared. Between peers that
do not trust each other a shared one is unsafe, even where every update is well-formed (this was all
seen with pycrdt 0.14.13):

- who is second to use a client id, or one writer that says two things, leaves replicas that differ
  for good while their state vectors are equal: an exchange of everything mends nothing;
- updates of one writer in another order than it made them lose values silently (310 of 400 replicas
  that got 20 updates shuffled were wrong, 0 of 400 that got them in order);
- anybody may delete or overwrite anything.

So a document has one writer for one epoch, its updates pass :mod:`swarm.ledger.guard` in the order
of a signed chain, and its values are bytes: of numbers, the library makes floats.

What is overwritten stays behind as a tombstone. Four keys set every ten seconds leave 364 kB in a
day. Once an epoch, :meth:`Document.rebased` leaves the live values alone, here in 90 bytes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from pycrdt import Doc, Map, TransactionEvent

from protocol.digest import digest
from protocol.ids import PeerId
from swarm.ledger import guard
from swarm.ledger.steps import PAUSE, Pause, finish

_CLIENT_BITS: Final = 53
"""Of a client id. Yrs takes no longer one, since JavaScript counts no further."""


def client_of(author: PeerId, epoch: int) -> int:
    """The client id under which ``author`` writes in ``epoch``, from 0 to 2⁵³ − 1."""
    drawn = int.from_bytes(digest("document", author, epoch)[:8], "big")
    return drawn >> (64 - _CLIENT_BITS)


class Document:
    """The author's own document.

    Args:
        client: its only writer, see :func:`client_of`. The document is empty.
    """

    def __init__(self, client: int) -> None:
        self._client = client
        self._doc = Doc[Map[bytes]](client_id=client)
        self._clock = 0

    @classmethod
    def rebased(cls, values: Mapping[str, bytes], client: int) -> tuple[Document, bytes]:
        """A document that holds ``values`` and no past, and the update that makes it.

        Raises:
            UpdateError: they do not fit into one update.
        """
        document = cls(client)
        return document, document.set(values) or guard.EMPTY

    @classmethod
    def resumed(cls, updates: Iterable[bytes], client: int) -> Document:
        """The document whose log ``updates`` is, to write on.

        Raises:
            UpdateError: the writer did not make them, or not in this order.
        """
        document = cls(client)
        document._doc, document._clock = _replayed(updates, client)
        return document

    @property
    def values(self) -> dict[str, bytes]:
        """What it holds, sorted by key."""
        return _values(self._doc)

    def set(self, changes: Mapping[str, bytes | None]) -> bytes | None:
        """Write values, and delete those that are None here: all of it, or nothing.

        One transaction without a point at which another task could run: what is written while a
        transaction is open becomes a part of it.

        Returns:
            the update for the log; None where nothing changes.

        Raises:
            UpdateError: a key, a value, the update, or all that the document would hold is larger
                than the guard takes. The document is as it was.
        """
        held = self.values
        changed = {key: new for key, new in sorted(changes.items()) if held.get(key) != new}
        if not changed:
            return None
        # Yrs takes nothing back, so that what may be refused is written to a copy.
        draft = Doc[Map[bytes]](client_id=self._client)
        draft.apply_update(self._doc.get_update())
        update = _write(draft, changed)
        clock = guard.check(update, self._client, self._clock)
        _check_fits(_values(draft))
        self._doc, self._clock = draft, clock
        return update


def fold(updates: Iterable[bytes], client: int) -> dict[str, bytes]:
    """What a document holds after ``updates``, sorted by key.

    Args:
        updates: untrusted, in the order of the writer's chain.

    Raises:
        UpdateError: the guard does not take one of them.
    """
    return finish(folding(updates, client))


def folding(updates: Iterable[bytes], client: int) -> Generator[Pause, object, dict[str, bytes]]:
    """As :func:`fold`, with pauses: a hostile document has thousands of values."""
    stages = _replay(updates, client)
    doc, _ = next(stages)
    for _ in stages:
        yield PAUSE
    held = _map(doc)
    values: dict[str, bytes] = {}
    for key in sorted(held.keys()):
        values[key] = bytes(held[key])
        yield PAUSE
    return values


def history(updates: Iterable[bytes], client: int) -> Iterator[dict[str, bytes]]:
    """What a document holds after each of ``updates``; as :func:`fold`."""
    for doc, _ in islice(_replay(updates, client), 1, None):
        yield _values(doc)


def _replayed(updates: Iterable[bytes], client: int) -> tuple[Doc[Map[bytes]], int]:
    """The document after ``updates``, and its clock."""
    *_, last = _replay(updates, client)
    return last


def _replay(updates: Iterable[bytes], client: int) -> Iterator[tuple[Doc[Map[bytes]], int]]:
    """The document before and after each of ``updates``, which is always the same object, and its
    clock."""
    doc = Doc[Map[bytes]](client_id=client)
    clock = 0
    yield doc, clock
    for update in updates:
        clock = guard.check(update, client, clock)
        doc.apply_update(update)
        yield doc, clock


def _map(doc: Doc[Map[bytes]]) -> Map[bytes]:
    return doc.get(guard.ROOT, type=Map)


def _values(doc: Doc[Map[bytes]]) -> dict[str, bytes]:
    # Yrs's own order differs from run to run, and it gives a bytearray for bytes.
    return {key: bytes(value) for key, value in sorted(_map(doc).items())}


def _write(doc: Doc[Map[bytes]], changes: Mapping[str, bytes | None]) -> bytes:
    """Make ``changes`` in one transaction. The update of just that."""
    updates: list[bytes] = []

    def note(event: TransactionEvent) -> None:
        updates.append(event.update)

    values = _map(doc)
    subscription = doc.observe(note)
    try:
        with doc.transaction():
            for key, value in changes.items():
                if value is None:
                    del values[key]
                else:
                    values[key] = value
    finally:
        # Else the document and its observer would keep each other alive, unseen by the collector.
        doc.unobserve(subscription)
    (update,) = updates
    return update


def _check_fits(values: Mapping[str, bytes]) -> None:
    """Raise UpdateError unless one update can make a document of ``values``, whoever writes it."""
    longest = (1 << _CLIENT_BITS) - 1
    doc = Doc[Map[bytes]](client_id=longest)
    if values:
        guard.check(_write(doc, values), longest, 0)
