"""The fake peer records do what the real ones do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from node.peer_records import PeerRecords
from node.store import Store
from protocol import limits
from protocol.envelope import KeySigner
from protocol.ids import Digest, PeerId, RoundId
from protocol.messages import Proof
from swarm.service import Account
from swarm.strikes import Strike
from tests.fakes.peer_records import FakePeerRecords

SIGNER = KeySigner(bytes(32))
ONE, TWO = PeerId(b"1" * 32), PeerId(b"2" * 32)

Open = Callable[[], AbstractAsyncContextManager[Any]]


def round_id(number: int) -> RoundId:
    return RoundId(number.to_bytes(32, "big"))


def strike(number: int, seen_at: int, known: bool = True, found: bool = False) -> Strike:
    proof = Proof(SIGNER.seal(b"%d" % number), SIGNER.seal(b"other"))
    offence = Digest(number.to_bytes(32, "big"))
    return Strike(SIGNER.peer, "commit-mismatch", offence, proof, seen_at, known, found)


@pytest.fixture(params=["fake", "real"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens records of either kind, the same ones each time."""
    kept = FakePeerRecords()

    @asynccontextmanager
    async def fake() -> AsyncIterator[FakePeerRecords]:
        yield kept

    @asynccontextmanager
    async def real() -> AsyncIterator[PeerRecords]:
        async with Store.open(tmp_path) as store:
            yield PeerRecords(store)

    return fake if request.param == "fake" else real


async def test_a_round_is_claimed_once(opened: Open) -> None:
    async with opened() as records:
        assert await records.claim(round_id(1))
        assert not await records.claim(round_id(1))
        assert await records.claim(round_id(2))
    async with opened() as records:
        assert not await records.claim(round_id(1))
        await records.release(round_id(1))
        await records.release(round_id(9))
        assert await records.claim(round_id(1))


async def test_the_newest_rounds_are_kept(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ROUNDS_REMEMBERED", 3)
    async with opened() as records:
        for number in range(5):
            assert await records.claim(round_id(number))
            assert not await records.claim(round_id(number)), "asking again does not age the rest"
        assert not await records.claim(round_id(2))
        assert await records.claim(round_id(1))
        assert await records.claim(round_id(2)), "the oldest gave way"


async def test_strikes_are_kept_oldest_first(opened: Open) -> None:
    async with opened() as records:
        assert await records.strikes() == []
        await records.keep([strike(2, 20, found=True), strike(1, 10, known=False)], [], {}, [])
    async with opened() as records:
        assert await records.strikes() == [strike(1, 10, known=False), strike(2, 20, found=True)]
        await records.keep([strike(3, 30)], [strike(2, 20).offence, Digest(bytes(32))], {}, [])
        assert [one.seen_at for one in await records.strikes()] == [10, 30]


async def test_accounts_are_kept(opened: Open) -> None:
    async with opened() as records:
        assert await records.accounts() == []
        await records.keep([], [], {ONE: Account(1.5, 0.0, 7), TWO: Account(0.0, 2.0, 8)}, [])
        await records.keep([], [], {ONE: Account(2.5, 0.0, 9)}, [TWO, SIGNER.peer])
    async with opened() as records:
        assert await records.accounts() == [(ONE, Account(2.5, 0.0, 9))]
