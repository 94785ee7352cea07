"""Who this node is: an Ed25519 key in a file that only its owner can read, and the data
directory's lock, which keeps two nodes from being the same peer.

Without a passphrase the file is PKCS #8 PEM, which ``openssl pkey`` reads. With one it holds the
seed under ChaCha20-Poly1305 with a scrypt key (RFC 7914, RFC 8439): the encryption that PKCS #8
writers offer stretches the passphrase too little to resist guessing, and is not authenticated.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from node import atomic
from protocol.envelope import KeySigner
from protocol.errors import DataDirError, IdentityError
from protocol.ids import PeerId

KEY_FILE: Final = "node.key"
LOCK_FILE: Final = "lock"
PASSPHRASE_VARIABLE: Final = "SWARMD_PASSPHRASE"

_FILE_BYTES: Final = 16 << 10
_SEED_BYTES: Final = 32
_BEGIN: Final = b"-----BEGIN SWARMD ENCRYPTED KEY-----\n"
_END: Final = b"-----END SWARMD ENCRYPTED KEY-----\n"
# One version byte, then salt, nonce and the sealed seed. The version fixes the scrypt cost, so a
# file cannot ask for more memory than this: 128 MiB, some 0.3 s.
_VERSION: Final = b"\x01"
_SCRYPT_N: Final = 1 << 17
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_SEALED_BYTES: Final = 1 + _SALT_BYTES + _NONCE_BYTES + _SEED_BYTES + 16


@dataclass(frozen=True, slots=True)
class Identity:
    """A node's key pair.

    Attributes:
        peer_id: the public key, which is the peer.
        seed: the 32 secret bytes; kept out of ``repr``.
    """

    peer_id: PeerId
    seed: bytes = field(repr=False)

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """The identity of a 32-byte Ed25519 seed."""
        return cls(KeySigner(seed).peer, seed)


def load_or_create(path: Path, passphrase: str | None = None) -> Identity:
    """The identity in the key file ``path``; a new one, written there, where there is none.

    Args:
        path: its directory must exist.
        passphrase: opens, or seals, the key file.

    Raises:
        IdentityError: others may read the file, it is damaged, or the passphrase does not fit.
    """
    try:
        return _load(path, passphrase)
    except FileNotFoundError:
        pass
    seed = secrets.token_bytes(_SEED_BYTES)
    try:
        atomic.create(path, _seal(seed, passphrase) if passphrase else _plain_pem(seed))
    except FileExistsError:
        pass  # another process was first
    except OSError as error:
        raise IdentityError(
            f"{path} cannot be written: {error.strerror}. Make its directory writable, or choose "
            "another with --data-dir."
        ) from error
    try:
        # Read back: what counts is what is on the disk.
        return _load(path, passphrase)
    except FileNotFoundError as error:
        raise IdentityError(f"{path} is a link to a file that does not exist.") from error


def read_passphrase(file: Path | None, environ: Mapping[str, str]) -> str | None:
    """The passphrase of the key file: the first line of ``file``, else ``$SWARMD_PASSPHRASE``.

    Raises:
        IdentityError: the file cannot be read, is open to others, or holds no passphrase.
    """
    if file is None:
        return environ.get(PASSPHRASE_VARIABLE) or None
    try:
        data = _read_private(file, "passphrase file")
        lines = data.decode().splitlines()
    except FileNotFoundError as error:
        raise IdentityError(f"The passphrase file {file} does not exist.") from error
    except UnicodeDecodeError as error:
        raise IdentityError(f"The passphrase file {file} is not UTF-8 text.") from error
    if not lines or not lines[0]:
        raise IdentityError(f"The passphrase file {file} begins with an empty line.")
    return lines[0]


class DataDirLock:
    """Proof that this process alone uses a data directory. Held until :meth:`release`.

    The kernel drops the lock when the process ends, however it ends, so it is never stale.
    """

    def __init__(self, data_dir: Path, descriptor: int) -> None:
        self.data_dir = data_dir
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, data_dir: Path) -> Self:
        """Lock ``data_dir``, which must exist.

        Raises:
            DataDirError: another process holds it, or the lock file cannot be made.
        """
        path = data_dir / LOCK_FILE
        descriptor = None
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            held = isinstance(error, BlockingIOError)
            pid = ""
            if descriptor is not None:
                pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                os.close(descriptor)
            if held:
                who = f"swarmd (process {pid})" if pid else "swarmd"
                raise DataDirError(
                    f"Another {who} is using {data_dir}. Stop it, or choose another directory "
                    "with --data-dir."
                ) from error
            raise DataDirError(
                f"{path} cannot be made: {error.strerror}. Make the directory writable, or choose "
                "another with --data-dir."
            ) from error
        return cls(data_dir, descriptor)

    @property
    def held(self) -> bool:
        """Whether the lock has not been released yet."""
        return self._descriptor is not None

    def release(self) -> None:
        """Let another process use the directory. Doing so twice is harmless."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _read_private(path: Path, what: str) -> bytes:
    """The bytes of a file that nobody but its owner may read. FileNotFoundError passes through."""
    try:
        # O_NONBLOCK: opening a FIFO put in the file's place must not hang.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise IdentityError(f"The {what} {path} cannot be opened: {error.strerror}.") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise IdentityError(f"The {what} {path} is not a regular file.")
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise IdentityError(
                f"Others may read the {what} {path} (mode {mode:04o}). Run: chmod 600 {path}"
            )
        data = os.read(descriptor, _FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > _FILE_BYTES:
        raise IdentityError(f"The {what} {path} is larger than {_FILE_BYTES} bytes.")
    return data


def _load(path: Path, passphrase: str | None) -> Identity:
    data = _read_private(path, "key file")
    damaged = f"{path} does not hold an Ed25519 key. Restore it from a backup, or move it away."
    if data.startswith(_BEGIN):
        if passphrase is None:
            raise IdentityError(
                f"{path} is sealed with a passphrase. Give it in {PASSPHRASE_VARIABLE} or in a "
                "file named by --passphrase-file."
            )
        return Identity.from_seed(_unseal(data, passphrase, path, damaged))
    if passphrase is not None:
        raise IdentityError(
            f"{path} is not sealed, though a passphrase is given. Take {PASSPHRASE_VARIABLE} and "
            "--passphrase-file away."
        )
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError(damaged) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityError(damaged)
    return Identity.from_seed(key.private_bytes_raw())


def _plain_pem(seed: bytes) -> bytes:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _seal(seed: bytes, passphrase: str) -> bytes:
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    box = ChaCha20Poly1305(_stretch(passphrase, salt)).encrypt(nonce, seed, _VERSION)
    return _BEGIN + base64.encodebytes(_VERSION + salt + nonce + box) + _END


def _unseal(data: bytes, passphrase: str, path: Path, damaged: str) -> bytes:
    body = data.removeprefix(_BEGIN).removesuffix(_END)
    try:
        blob = base64.b64decode(body.replace(b"\n", b""), validate=True)
    except binascii.Error as error:
        raise IdentityError(damaged) from error
    if len(blob) != _SEALED_BYTES or not blob.startswith(_VERSION):
        raise IdentityError(damaged)
    salt, rest = blob[1 : 1 + _SALT_BYTES], blob[1 + _SALT_BYTES :]
    nonce, box = rest[:_NONCE_BYTES], rest[_NONCE_BYTES:]
    try:
        return ChaCha20Poly1305(_stretch(passphrase, salt)).decrypt(nonce, box, _VERSION)
    except InvalidTag as error:
        raise IdentityError(
            f"The passphrase does not open {path}. Check it, and that the file is undamaged."
        ) from error


def _stretch(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_SCRYPT_N, r=8, p=1).derive(passphrase.encode())
