"""Key files: made once, private, whole; sealed or not; and the lock of the data directory."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from node import atomic
from node.identity import DataDirLock, Identity, load_or_create, read_passphrase
from protocol.errors import EXIT_USAGE, DataDirError, IdentityError


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "node.key"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_identity_lasts(key: Path) -> None:
    first = load_or_create(key)
    assert load_or_create(key) == first
    assert len(first.peer_id) == len(first.seed) == 32
    assert mode(key) == 0o600
    assert [path.name for path in key.parent.iterdir()] == ["node.key"]


def test_two_nodes_are_two_peers(tmp_path: Path) -> None:
    assert load_or_create(tmp_path / "a").peer_id != load_or_create(tmp_path / "b").peer_id


def test_signatures_verify_under_the_peer_id(key: Path) -> None:
    identity = load_or_create(key)
    assert identity.peer_id == bytes(SigningKey(identity.seed).verify_key)
    assert identity == Identity.from_seed(identity.seed)


def test_the_secret_does_not_show(key: Path) -> None:
    identity = load_or_create(key)
    assert identity.seed.hex() not in repr(identity)
    assert repr(identity.seed) not in repr(identity)


def test_a_plain_key_is_what_openssl_reads(key: Path) -> None:
    load_or_create(key)
    assert key.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o644, 0o777])
def test_a_key_that_others_may_read_is_refused_with_the_remedy(key: Path, bits: int) -> None:
    load_or_create(key)
    key.chmod(bits)
    with pytest.raises(IdentityError, match=f"chmod 600 {key}") as caught:
        load_or_create(key)
    assert caught.value.exit_code == EXIT_USAGE
    key.chmod(0o600)
    load_or_create(key)


def test_the_umask_cannot_open_the_key(key: Path) -> None:
    before = os.umask(0)
    try:
        load_or_create(key)
    finally:
        os.umask(before)
    assert mode(key) == 0o600


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"],
)
def test_a_damaged_key_is_kept_and_refused(key: Path, content: bytes) -> None:
    key.write_bytes(content)
    key.chmod(0o600)
    with pytest.raises(IdentityError, match="does not hold"):
        load_or_create(key)
    assert key.read_bytes() == content


def test_a_key_of_another_kind_is_refused(key: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    other = generate_private_key(SECP256R1())
    key.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key.chmod(0o600)
    with pytest.raises(IdentityError, match="does not hold"):
        load_or_create(key)


def test_what_is_no_file_is_refused(tmp_path: Path, key: Path) -> None:
    key.mkdir(mode=0o700)
    with pytest.raises(IdentityError, match="regular file"):
        load_or_create(key)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    with pytest.raises(IdentityError, match="regular file"):
        load_or_create(fifo)
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(IdentityError, match="link"):
        load_or_create(dangling)
    large = tmp_path / "large"
    large.write_bytes(bytes(1 << 20))
    large.chmod(0o600)
    with pytest.raises(IdentityError, match="larger"):
        load_or_create(large)


def test_a_missing_directory_is_told_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="--data-dir"):
        load_or_create(tmp_path / "missing" / "node.key")


def test_a_failing_disk_leaves_no_half_key(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IdentityError, match="No space left"):
        load_or_create(key)
    assert list(key.parent.iterdir()) == []


def test_who_comes_first_makes_the_key(key: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: load_or_create(key).peer_id, range(8)))
    assert len(set(made)) == 1


def test_creating_never_replaces(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic.create(key, b"first")

    def no_links(*names: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with pytest.raises(FileExistsError):
        atomic.create(key, b"second")
    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(FileExistsError):
        atomic.create(key, b"second")
    other = key.with_name("other")
    atomic.create(other, b"third")
    assert (key.read_bytes(), other.read_bytes()) == (b"first", b"third")
    assert len(list(key.parent.iterdir())) == 2


# --- passphrases --------------------------------------------------------------------------------


def test_a_sealed_key_opens_with_its_passphrase_alone(key: Path) -> None:
    identity = load_or_create(key, "correct horse")
    assert mode(key) == 0o600
    assert identity.seed not in key.read_bytes()
    assert load_or_create(key, "correct horse") == identity
    with pytest.raises(IdentityError, match="does not open"):
        load_or_create(key, "wrong horse")
    with pytest.raises(IdentityError, match="SWARMD_PASSPHRASE"):
        load_or_create(key)


def test_a_sealed_key_shows_damage(key: Path) -> None:
    load_or_create(key, "secret")
    content = key.read_bytes()
    for damaged in (
        content[:-40],
        content.replace(b"\n", b"\n!", 1),
        content.splitlines(keepends=True)[0],
    ):
        key.write_bytes(damaged)
        with pytest.raises(IdentityError, match="does not hold"):
            load_or_create(key, "secret")


def test_a_passphrase_for_a_plain_key_is_an_error(key: Path) -> None:
    load_or_create(key)
    with pytest.raises(IdentityError, match="not sealed"):
        load_or_create(key, "secret")


def test_the_passphrase_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "pass"
    file.write_text("first line\nsecond\n")
    file.chmod(0o600)
    environ = {"SWARMD_PASSPHRASE": "other"}
    assert read_passphrase(file, environ) == "first line"
    assert read_passphrase(None, environ) == "other"
    assert read_passphrase(None, {}) is None
    assert read_passphrase(None, {"SWARMD_PASSPHRASE": ""}) is None


def test_a_useless_passphrase_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pass"
    with pytest.raises(IdentityError, match="does not exist"):
        read_passphrase(file, {})
    for content, reason in ((b"", "empty"), (b"\nx", "empty"), (b"\xff", "UTF-8")):
        file.write_bytes(content)
        file.chmod(0o600)
        with pytest.raises(IdentityError, match=reason):
            read_passphrase(file, {})
    file.chmod(0o644)
    with pytest.raises(IdentityError, match="chmod 600"):
        read_passphrase(file, {})


# --- the data directory's lock -------------------------------------------------------------------


def test_a_second_daemon_is_told_who_is_there(tmp_path: Path) -> None:
    with DataDirLock.acquire(tmp_path) as lock:
        assert lock.held
        with pytest.raises(DataDirError, match=rf"process {os.getpid()}.*{tmp_path}"):
            DataDirLock.acquire(tmp_path)
    assert not lock.held
    lock.release()
    with DataDirLock.acquire(tmp_path):
        pass


def test_a_killed_daemon_leaves_no_lock(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from node.identity import DataDirLock\n"
        "lock = DataDirLock.acquire(pathlib.Path(sys.argv[1]))\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(DataDirError, match=f"process {other.pid}"):
            DataDirLock.acquire(tmp_path)
        other.kill()
    with DataDirLock.acquire(tmp_path):
        pass


def test_a_lock_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataDirError, match="--data-dir"):
        DataDirLock.acquire(tmp_path / "missing")
