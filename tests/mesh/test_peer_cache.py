"""Peers on disk: whole or not at all, bounded, and no damage is fatal."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from node.mesh import peer_cache
from node.mesh.peer_cache import ENTRIES, FILE_BYTES, Cached, PeerCache
from protocol import limits
from protocol.errors import StoreError
from protocol.ids import PeerId, peer_text


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def address(number: int, port: int = 4001) -> str:
    return f"/ip4/192.0.2.{number % 256}/tcp/{port}/p2p/{peer_text(peer(number))}"


def cached(number: int, last_linked: float = 1_800_000_000) -> Cached:
    return Cached(peer(number), (address(number),), last_linked)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "peers"


def test_there_is_nobody_to_begin_with(path: Path) -> None:
    assert trio.run(PeerCache(path).load) == []
    assert not path.exists()


def test_what_is_stored_is_loaded_latest_first(path: Path) -> None:
    relayed = f"/ip4/192.0.2.9/tcp/1/p2p/{peer_text(peer(9))}/p2p-circuit/p2p/{peer_text(peer(2))}"
    named = f"/dns4/example.org/tcp/1/p2p/{peer_text(peer(2))}"
    both = Cached(peer(2), (relayed, named), 300)
    trio.run(PeerCache(path).store, [cached(1, 200), both, cached(3, 100)])
    assert trio.run(PeerCache(path).load) == [both, cached(1, 200), cached(3, 100)]
    assert path.stat().st_mode & 0o777 == 0o600


def test_storing_replaces(path: Path) -> None:
    cache = PeerCache(path)
    trio.run(cache.store, [cached(1)])
    trio.run(cache.store, [cached(2)])
    assert trio.run(cache.load) == [cached(2)]
    trio.run(cache.store, [])
    assert trio.run(cache.load) == []


def test_the_latest_entries_are_kept(path: Path) -> None:
    cache = PeerCache(path)
    trio.run(cache.store, [cached(number, number) for number in range(ENTRIES + 50)])
    assert trio.run(cache.load) == [cached(n, n) for n in reversed(range(50, ENTRIES + 50))]


def test_a_peer_is_kept_once_as_it_was_last(path: Path) -> None:
    cache = PeerCache(path)
    old, new = (Cached(peer(1), (address(1, port),), port) for port in (1, 2))
    trio.run(cache.store, [old, new])
    assert trio.run(cache.load) == [new]


def test_the_largest_file_is_small_enough(path: Path) -> None:
    name = f"/dns4/{'x' * limits.ADDRESS_CHARS}"[: limits.ADDRESS_CHARS - 70]
    for_peer = {n: f"{name}/tcp/4001/p2p/{peer_text(peer(n))}" for n in range(ENTRIES)}
    full = [Cached(peer(n), (text,) * limits.ADDRESSES, 2**52) for n, text in for_peer.items()]
    cache = PeerCache(path)
    trio.run(cache.store, full)
    assert trio.run(cache.load) == full
    assert path.stat().st_size < FILE_BYTES


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "garbage",
        "/ip4/192.0.2.1/tcp/4001",
        address(1, 0),
        address(2),
        address(1) + "x" * limits.ADDRESS_CHARS,
    ],
)
def test_an_address_that_cannot_be_dialled_is_left_out(path: Path, wrong: str) -> None:
    cache = PeerCache(path)
    trio.run(cache.store, [Cached(peer(1), (wrong, address(1)), 5), Cached(peer(3), (wrong,), 5)])
    assert trio.run(cache.load) == [Cached(peer(1), (address(1),), 5)]
    # Nor is it believed of a file that has it.
    file = ["peers", 1, [[peer(1), [wrong[:200], address(1)], 5]]]
    path.write_bytes(msgspec.msgpack.encode(file))
    assert trio.run(cache.load) == [Cached(peer(1), (address(1),), 5)]


DAMAGE = {
    "empty": b"",
    "garbage": b"\xc1\xc1\xc1",
    "a newer version": msgspec.msgpack.encode(["peers", 2, []]),
    "something else": msgspec.msgpack.encode(["other", 1, []]),
    "too many": msgspec.msgpack.encode(["peers", 1, [[bytes(32), [], 0]] * (ENTRIES + 1)]),
    "a short key": msgspec.msgpack.encode(["peers", 1, [[b"short", [], 0]]]),
    "too large": bytes(FILE_BYTES + 1),
}


@pytest.mark.parametrize("data", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_file_is_moved_aside(
    path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(data)
    cache = PeerCache(path)
    assert trio.run(cache.load) == []
    aside = path.with_name("peers.damaged")
    assert aside.read_bytes() == data
    assert not path.exists()
    assert str(aside) in caplog.text
    trio.run(cache.store, [cached(1)])
    assert trio.run(cache.load) == [cached(1)]
    assert aside.read_bytes() == data


def test_every_cut_and_every_flipped_byte_is_survived(path: Path) -> None:
    cache = PeerCache(path)
    trio.run(cache.store, [cached(1), cached(2)])
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at])
        assert trio.run(cache.load) == []
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        assert len(trio.run(cache.load)) <= 2


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "peers"
        path.write_bytes(data)
        assert trio.run(PeerCache(path).load) == []


def test_what_a_crash_left_beside_it_is_removed(path: Path) -> None:
    mine = path.with_name(".peers.0123456789abcdef.tmp")
    other = path.with_name(".identity.0123456789abcdef.tmp")
    mine.touch()
    other.touch()
    trio.run(PeerCache(path).load)
    assert not mine.exists()
    assert other.exists()


def test_a_failing_disk_is_a_store_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.mkdir()
    with pytest.raises(StoreError, match="peers"):
        trio.run(PeerCache(path).load)
    with pytest.raises(StoreError, match="peers"):
        trio.run(PeerCache(path).store, [cached(1)])
    with pytest.raises(StoreError, match="permissions"):
        trio.run(PeerCache(path.parent / "nowhere" / "peers").store, [])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    file = path.with_name("other")
    cache = PeerCache(file)
    trio.run(cache.store, [cached(1)])
    with monkeypatch.context() as patch:
        patch.setattr(peer_cache.atomic, "replace", full)
        with pytest.raises(StoreError, match="No space"):
            trio.run(cache.store, [cached(2)])
    assert trio.run(cache.load) == [cached(1)]


def test_writing_is_not_cut_short(path: Path) -> None:
    cache = PeerCache(path)

    async def cancelled() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await cache.store([cached(1)])

    trio.run(cancelled)
    assert trio.run(cache.load) == [cached(1)]
