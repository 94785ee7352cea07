"""Digests of typed tuples, separated by domain.

Each part carries its type and length, so two different tuples never hash the same bytes, and a
digest made for one purpose is never valid for another.
"""

from __future__ import annotations

from hashlib import sha256

from protocol.ids import Digest

_DOMAIN = b"swarmd/1/"


def digest(domain: str, *parts: bytes | int | str) -> Digest:
    """SHA-256 over ``domain`` and ``parts``.

    Args:
        domain: the purpose, for instance ``"commit"``.
        parts: bytes, text (UTF-8) or integers from 0 to 2⁶⁴ − 1.

    Raises:
        OverflowError: an integer outside that range.
    """
    name = domain.encode()
    hasher = sha256(_DOMAIN + len(name).to_bytes(2, "big") + name)
    for part in parts:
        if isinstance(part, bytes):
            tag, data = b"b", part
        elif isinstance(part, str):
            tag, data = b"s", part.encode()
        else:
            tag, data = b"i", part.to_bytes(8, "big")
        hasher.update(tag + len(data).to_bytes(8, "big"))
        hasher.update(data)
    return Digest(hasher.digest())
