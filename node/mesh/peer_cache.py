"""Peers to try after a restart, on disk.

What a peer states of itself is good for minutes, but where it was is worth a try for days. Nothing
in the file is trusted further than that: whoever answers there proves its key.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
import trio

from node import atomic
from node.mesh.address import parse_dialable
from protocol import limits
from protocol.codec import decode, encode
from protocol.errors import ConfigError, ProtocolError, StoreError
from protocol.ids import KEY_BYTES, PeerId

VERSION: Final = 1
ENTRIES: Final = 256
FILE_BYTES: Final = 1 << 20
DAMAGED: Final = ".damaged"
"""Ends the name of a file that was moved aside."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cached:
    """A peer that there has been a link to.

    Attributes:
        addresses: multiaddrs with its id, the best first.
        last_linked: when there was a link last, Unix time in seconds.
    """

    peer: PeerId
    addresses: tuple[str, ...]
    last_linked: float


class _Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    peer: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    addresses: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=limits.ADDRESS_CHARS)], ...],
        msgspec.Meta(max_length=limits.ADDRESSES),
    ]
    last_linked: Annotated[int, msgspec.Meta(ge=0, le=2**52)]


class _File(msgspec.Struct, frozen=True, array_like=True, tag="peers", forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=VERSION, le=VERSION)]
    entries: Annotated[tuple[_Entry, ...], msgspec.Meta(max_length=ENTRIES)]


class PeerCache:
    """The file at ``path``, whose directory exists."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._one = trio.CapacityLimiter(1)

    async def load(self) -> list[Cached]:
        """Whom to try, most recently linked first; nobody where there is no file yet.

        A file that cannot be understood is moved aside.

        Raises:
            StoreError: it cannot be read, or not be moved.
        """
        return await trio.to_thread.run_sync(self._load, limiter=self._one)

    async def store(self, peers: Iterable[Cached]) -> None:
        """Put ``peers`` into the file, in place of what was there; the ``ENTRIES`` latest of them.

        Raises:
            StoreError: it cannot be written.
        """
        data = _encoded(peers)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._store, data, limiter=self._one)

    def _load(self) -> list[Cached]:
        try:
            for leftover in self._path.parent.glob(f".{self._path.name}.*.tmp"):
                leftover.unlink(missing_ok=True)
            with suppress(FileNotFoundError), self._path.open("rb") as file:
                return self._understood(file.read(FILE_BYTES + 1))
        except OSError as error:
            raise self._failed(error) from error
        return []

    def _understood(self, data: bytes) -> list[Cached]:
        try:
            entries = decode(data, _File, FILE_BYTES).entries
        except ProtocolError as error:
            aside = self._path.with_name(self._path.name + DAMAGED)
            os.replace(self._path, aside)
            log.warning("%s is no list of peers and is now %s: %s", self._path, aside, error)
            return []
        peers = (
            Cached(PeerId(one.peer), _dialable(one.peer, one.addresses), float(one.last_linked))
            for one in entries
        )
        return [one for one in peers if one.addresses]

    def _store(self, data: bytes) -> None:
        try:
            atomic.replace(self._path, data)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self._path}: {error.strerror}. Check the free space and the permissions of "
            f"{self._path.parent}."
        )


def _encoded(peers: Iterable[Cached]) -> bytes:
    latest: dict[PeerId, _Entry] = {}
    for one in sorted(peers, key=lambda one: -one.last_linked):
        addresses = _dialable(one.peer, one.addresses)
        if addresses and one.peer not in latest and len(latest) < ENTRIES:
            latest[one.peer] = _Entry(one.peer, addresses, round(one.last_linked))
    return encode(_File(VERSION, tuple(latest.values())))


def _dialable(peer: bytes, addresses: Iterable[str]) -> tuple[str, ...]:
    """Those of ``addresses`` under which ``peer`` can be dialled, as many as are kept."""
    found: list[str] = []
    for text in addresses:
        with suppress(ConfigError):
            if len(text) <= limits.ADDRESS_CHARS and parse_dialable(text).peer == peer:
                found.append(text)
    return tuple(found[: limits.ADDRESSES])
