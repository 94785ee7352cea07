"""Identifiers, each its own type, and their text forms.

A peer *is* its Ed25519 public key: 32 bytes on the wire. People and addresses see the libp2p
peer id of the same key (``12D3KooW…``): the base58btc text of an identity multihash around the
protobuf-encoded key (libp2p specs, ``peer-ids/peer-ids.md``).
"""

from __future__ import annotations

from typing import NewType

from protocol.errors import MalformedIdError

PeerId = NewType("PeerId", bytes)
"""32 bytes: the peer's Ed25519 public key."""

RoundId = NewType("RoundId", bytes)
"""32 bytes: the digest of the Invite that opened the round."""

Digest = NewType("Digest", bytes)
"""32 bytes of SHA-256 over a domain-separated tuple, see :mod:`protocol.digest`."""

ZERO_DIGEST = Digest(bytes(32))
"""Stands where there is no predecessor."""

KEY_BYTES = 32
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_INDEX = {char: value for value, char in enumerate(_ALPHABET)}
# identity multihash, 36 bytes long, around protobuf {1: Ed25519, 2: 32 bytes of key}
_PREFIX = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])
_TEXT_LIMIT = 64


def peer_text(peer: PeerId) -> str:
    """The libp2p peer id of ``peer``, as people and multiaddrs write it."""
    number = int.from_bytes(_PREFIX + peer, "big")
    digits = []
    while number:
        number, rest = divmod(number, 58)
        digits.append(_ALPHABET[rest])
    # The multihash begins with one zero byte, which base58btc writes as a leading "1".
    return "1" + "".join(reversed(digits))


def parse_peer(text: str) -> PeerId:
    """The peer that a libp2p peer id names.

    Raises:
        MalformedIdError: if ``text`` is not the peer id of an Ed25519 key.
    """
    if len(text) > _TEXT_LIMIT:
        raise MalformedIdError(f"a peer id has at most {_TEXT_LIMIT} characters, got {len(text)}")
    number = 0
    for char in text:
        value = _INDEX.get(char)
        if value is None:
            raise MalformedIdError(f"{char!r} is not a base58 character in peer id {text!r}")
        number = number * 58 + value
    size = len(_PREFIX) + KEY_BYTES
    if number.bit_length() > 8 * size:
        raise MalformedIdError(f"{text!r} is too long for the peer id of an Ed25519 key")
    raw = number.to_bytes(size, "big")
    peer = PeerId(raw[len(_PREFIX) :])
    if not raw.startswith(_PREFIX) or peer_text(peer) != text:
        raise MalformedIdError(f"{text!r} is not the peer id of an Ed25519 key (12D3KooW…)")
    return peer


def is_named(part: str, peer: str) -> bool:
    """Whether ``part`` is how a person would write ``peer``: in full, or either end of it."""
    return peer.startswith(part) or peer.endswith(part)


def short(identifier: bytes) -> str:
    """Eight characters that a person can tell apart: of a peer its text's tail, else hex."""
    return identifier.hex()[:8]


def short_peer(peer: PeerId) -> str:
    """The last eight characters of the peer id (its head is the same for every peer)."""
    return peer_text(peer)[-8:]
