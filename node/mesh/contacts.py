"""Which addresses of a node are taken on a stranger's word, and told to one.

A node on the internet must not make this one dial into its own LAN or its own machine, nor hear
where those are: an address passes between two nodes only if it leads at least as far as the
connection between them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from node.mesh.address import Address, parse_dialable
from protocol import limits
from protocol.errors import ConfigError
from protocol.ids import PeerId
from swarm.kademlia import Contact

LOOPBACK: Final = 0
LAN: Final = 1
GLOBAL: Final = 2


def reach_of(address: Address | None) -> int:
    """How far away the other end of a connection may be; what is unknown is far."""
    ip = None if address is None else address.ip()
    if ip is None or ip.is_global:
        return GLOBAL
    return LOOPBACK if ip.is_loopback else LAN


def origin_of(address: Address | None) -> str:
    """The network of ``address``, of which one operator is likely to have many addresses.

    Empty where it is not on the internet: there nobody can be told from anybody else.
    """
    if address is None or address.ip() is None or reach_of(address) != GLOBAL:
        return ""
    return address.network()


def own_contact(peer: PeerId, texts: Iterable[str]) -> Contact:
    """The contact to a node that the operator or the swarm has named; any address counts."""
    return _contact(peer, _known(peer, texts))


def heard_contact(peer: PeerId, texts: Iterable[str], reach: int) -> Contact | None:
    """The contact to a node that a stranger has named; None if it has no address to be dialled.

    Names are not taken, since they may lead anywhere.

    Args:
        reach: of the connection to the stranger.
    """
    known = [one for one in _known(peer, texts) if not one.named and one.reach >= reach]
    return _contact(peer, known) if known else None


def tellable(texts: Iterable[str], reach: int) -> tuple[str, ...]:
    """Those of ``texts``, multiaddrs, that a node at such a distance can use."""
    known = [one.text for one in map(_look_at, texts) if one is not None and one.reach >= reach]
    return tuple(known[: limits.CONTACT_ADDRESSES])


@dataclass(frozen=True, slots=True)
class _Known:
    """An address that can be dialled, and what follows from it."""

    text: str
    peer: PeerId | None
    reach: int
    origin: str
    named: bool


@lru_cache(maxsize=1024)  # the contacts of the table, on every question
def _look_at(text: str) -> _Known | None:
    try:
        address = parse_dialable(text)
    except ConfigError:
        return None
    ip = address.ip()
    if address.relay is not None or (ip is not None and (ip.is_unspecified or ip.is_multicast)):
        return None
    return _Known(str(address), address.peer, reach_of(address), origin_of(address), ip is None)


def _known(peer: PeerId, texts: Iterable[str]) -> list[_Known]:
    """Those addresses that are of ``peer``."""
    return [one for one in map(_look_at, texts) if one is not None and one.peer == peer]


def _contact(peer: PeerId, known: Iterable[_Known]) -> Contact:
    origins = {one.text: one.origin for one in known}
    texts = tuple(origins)[: limits.CONTACT_ADDRESSES]
    return Contact(peer, texts, frozenset(filter(None, origins.values())))
