"""Signed messages: a signer, the exact bytes, an Ed25519 signature over their digest.

The bytes that were received are the bytes that are verified; nothing is encoded again for it.
There is one verifier, libsodium's: it refuses small-order keys and non-canonical signatures, so
all nodes agree on what is valid.
"""

from __future__ import annotations

from typing import Annotated, Protocol, TypeVar

import msgspec
from nacl.exceptions import BadSignatureError as NaclBadSignature
from nacl.signing import SigningKey, VerifyKey

from protocol import limits
from protocol.codec import decode
from protocol.digest import digest
from protocol.errors import BadSignatureError
from protocol.ids import Digest, PeerId, short_peer

T = TypeVar("T")

Key = Annotated[PeerId, msgspec.Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Envelope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A message and who answers for it.

    Attributes:
        signer: the author's key.
        body: the encoded message; its own ``type`` field says which.
        signature: over ``digest("signed", signer, body)``.
    """

    signer: Key
    body: Annotated[bytes, msgspec.Meta(max_length=limits.FRAME_BYTES)]
    signature: Signature

    @property
    def digest(self) -> Digest:
        """Names the message: its author and exact bytes (not the signature)."""
        return digest("message", self.signer, self.body)


class Signer(Protocol):
    """Whoever can sign as one peer. Signing is deterministic (Ed25519)."""

    @property
    def peer(self) -> PeerId: ...

    def seal(self, body: bytes) -> Envelope: ...


class KeySigner:
    """Signs with an Ed25519 key.

    Args:
        seed: 32 secret bytes.
    """

    __slots__ = ("_key", "peer")

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self.peer = PeerId(bytes(self._key.verify_key))

    def seal(self, body: bytes) -> Envelope:
        """``body`` signed."""
        signature = self._key.sign(digest("signed", self.peer, body)).signature
        return Envelope(self.peer, body, signature)


def check(envelope: Envelope) -> None:
    """Verify the signature.

    Raises:
        BadSignatureError: it is not the signer's signature over these bytes.
    """
    message = digest("signed", envelope.signer, envelope.body)
    try:
        VerifyKey(envelope.signer).verify(message, envelope.signature)
    except (NaclBadSignature, ValueError) as error:
        raise BadSignatureError(f"Signer {short_peer(envelope.signer)}.") from error


def open_as(envelope: Envelope, kind: type[T]) -> T:
    """The verified message of type ``kind``.

    Raises:
        BadSignatureError: as :func:`check`.
        DecodeError, TooLargeError: as :func:`protocol.codec.decode`.
    """
    check(envelope)
    return decode(envelope.body, kind)
