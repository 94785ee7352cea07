"""The fake store does what the real one does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from node.store import Store
from protocol.errors import InternalError, UnknownRoundError
from protocol.ids import RoundId
from protocol.methods import AskId, AskParams
from protocol.rpc import error_object
from tests.fakes.store import FakeStore

ONE, TWO = AskId("one"), AskId("two")
ROUND = RoundId(b"\xab" * 32)

Open = Callable[[], AbstractAsyncContextManager[Any]]


@pytest.fixture(params=["fake", "real"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens a store of either kind."""

    @asynccontextmanager
    async def fake() -> AsyncIterator[FakeStore]:
        yield FakeStore()

    return fake if request.param == "fake" else lambda: Store.open(tmp_path)


async def test_a_question_from_accepted_to_done(opened: Open) -> None:
    async with opened() as store:
        accepted = await store.accept(ONE, AskParams("why?"))
        assert (accepted.state, accepted.attempt) == ("accepted", 0)
        assert await store.mark_running(ONE, ROUND)
        assert await store.mark_running(ONE, ROUND)
        (record,) = await store.unfinished()
        assert (record.id, record.state, record.attempt, record.round) == (ONE, "running", 2, ROUND)
        assert await store.finish(ONE, {"answer": "so"})
        assert await store.unfinished() == []
        assert (await store.get(ONE)).result == {"answer": "so"}


async def test_what_has_ended_stays_as_it_ended(opened: Open) -> None:
    async with opened() as store:
        for ask in (ONE, TWO):
            await store.accept(ask, AskParams("why?"))
        assert await store.cancel(ONE)
        assert await store.fail(TWO, error_object(InternalError()))
        for ask in (ONE, TWO):
            assert not await store.finish(ask, {})
            assert not await store.mark_running(ask, ROUND)
            assert not await store.cancel(ask)
        assert [row.state for row in await store.history(10)] == ["failed", "cancelled"]
        assert not await store.cancel(AskId("unheard of"))


async def test_rounds_by_prefix(opened: Open) -> None:
    async with opened() as store:
        await store.accept(ONE, AskParams("why?"))
        await store.mark_running(ONE, ROUND)
        assert (await store.find_round("abab")).round == ROUND
        with pytest.raises(UnknownRoundError):
            await store.find_round("cd")
        path = await store.put_receipt(ROUND, ONE, b"receipt")
        assert path.name == f"{ROUND.hex()}.receipt"
