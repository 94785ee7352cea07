"""The store in memory: no thread and no disk, so that it works under a virtual clock.

``tests/fakes/test_store.py`` holds it and :class:`node.store.Store` to the same behaviour.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from node.store import AskRecord, RoundRecord
from protocol import limits
from protocol.errors import BusyError, UnknownRoundError
from protocol.ids import RoundId
from protocol.methods import AskId, AskParams, HistoryRow
from protocol.rpc import ErrorObject

OPEN = ("accepted", "running")


class FakeStore:
    """Questions and receipts in dictionaries."""

    def __init__(self) -> None:
        self.asks: dict[AskId, AskRecord] = {}
        self.receipts: dict[RoundId, bytes] = {}
        self.rehearsals: list[bytes] = []

    async def accept(self, ask: AskId, params: AskParams) -> AskRecord:
        if len(await self.unfinished()) >= limits.ASKS_QUEUED:
            raise BusyError
        record = AskRecord(ask, params, 0.0, 0, "accepted", None, None, None, None)
        self.asks[ask] = record
        return record

    async def mark_running(self, ask: AskId, round_id: RoundId) -> bool:
        attempt = self.asks[ask].attempt + 1
        return self._move(ask, state="running", round=round_id, attempt=attempt)

    async def finish(self, ask: AskId, result: dict[str, Any]) -> bool:
        return self._move(ask, state="done", result=result, finished_at=0.0)

    async def fail(self, ask: AskId, error: ErrorObject) -> bool:
        return self._move(ask, state="failed", error=error, finished_at=0.0)

    async def cancel(self, ask: AskId) -> bool:
        return self._move(ask, state="cancelled", finished_at=0.0)

    async def unfinished(self) -> list[AskRecord]:
        return [record for record in self.asks.values() if record.state in OPEN]

    async def questions(self, limit: int) -> list[str]:
        return [record.params.question for record in self.asks.values()][-limit:]

    async def get(self, ask: AskId) -> AskRecord | None:
        return self.asks.get(ask)

    async def history(self, limit: int) -> list[HistoryRow]:
        return [
            HistoryRow(record.id, record.params.question, record.state, attempt=record.attempt)
            for record in reversed(self.asks.values())
        ][:limit]

    async def find_round(self, prefix: str) -> RoundRecord:
        for record in self.asks.values():
            if record.round is not None and record.round.hex().startswith(prefix):
                return RoundRecord(record.round, record.id, None)
        raise UnknownRoundError

    async def put_receipt(self, round_id: RoundId, ask: AskId, data: bytes) -> Path:
        self.receipts[round_id] = data
        return Path(f"/receipts/{round_id.hex()}.receipt")

    async def rehearse_receipt(self, data: bytes) -> None:
        self.rehearsals.append(data)

    def _move(self, ask: AskId, **changes: Any) -> bool:
        record = self.asks.get(ask)
        if record is None or record.state not in OPEN:
            return False
        self.asks[ask] = replace(record, **changes)
        return True
