"""Files that appear whole or not at all, and are on the disk once the call returns."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

LEFTOVERS: Final = ".*.tmp"
"""What a crash in the middle of a write may leave beside the file (a glob pattern)."""


def replace(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` (mode 0600), in place of what was there. Raises OSError."""
    replace_in_pieces(path, (data,))


def replace_in_pieces(path: Path, pieces: Iterable[bytes]) -> None:
    """As :func:`replace`, piece by piece."""
    with _temporary(path, pieces) as temporary:
        os.replace(temporary, path)
    sync_directory(path.parent)


def create(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` (mode 0600). Raises OSError, FileExistsError where it exists."""
    with _temporary(path, (data,)) as temporary:
        try:
            # Linking, unlike renaming, never replaces what another process has just made.
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            # A file system without hard links (FAT, some network mounts).
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
            os.rename(temporary, path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """See that the names in a directory are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _temporary(path: Path, pieces: Iterable[bytes]) -> Iterator[Path]:
    """A file beside ``path`` that holds ``pieces`` on the disk; gone at the end, unless moved."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    # The mode of a new file is this less what the umask takes away; never more.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(descriptor)
        yield temporary
    finally:
        with suppress(OSError):
            os.unlink(temporary)
