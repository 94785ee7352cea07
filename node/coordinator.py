"""The asker's side of the node: accepts questions, runs a Round for each, keeps the receipts.

A question is on disk before it is acknowledged. What a crash interrupts is taken up again at the
next start, as another attempt with a fresh round.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import trio

from node.driver import Input, drive
from node.store import AskRecord, Store
from node.worker import Post
from protocol import limits
from protocol.envelope import Signer
from protocol.errors import (
    CancelledError,
    InternalError,
    InterruptedQuestionError,
    MeshError,
    NoPeersError,
    ReceiptError,
    StoreError,
    SwarmError,
    TooLargeError,
    UnknownRoundError,
)
from protocol.ids import PeerId, RoundId, short
from protocol.messages import FromPeer, Incoming
from protocol.methods import AskId, AskParams, Progress
from protocol.receipt import BreakKind, Plan, Standing
from protocol.rpc import error_object
from swarm.budget import SHORTEST_MS, divide
from swarm.consensus import rule_for
from swarm.effects import Effect, Report, Send
from swarm.effects import Store as Keep
from swarm.explain import explain
from swarm.pairing import waves
from swarm.registry import Registry
from swarm.round import Round
from swarm.summary import summarise

_log = logging.getLogger(__name__)

COMMITTEE = 9
"""Peers invited to a round: up to so many, every pair is judged by all in both orders."""
ANSWER_BYTES = 4 << 10
ANSWER_TOKENS = 512
ATTEMPTS = 3
"""Rounds begun for a question that this node does not live to finish, before it gives up."""
PEERS_WAIT_S = 3.0
"""How long a question waits for enough peers to be connected, at most a quarter of its time."""

Notify = Callable[[Progress], None]


@dataclass(slots=True)
class _Running:
    """A round in progress."""

    round: Round
    inputs: trio.MemorySendChannel[Input]


@dataclass(slots=True)
class _Ask:
    """A question on its way to an answer."""

    record: AskRecord
    notify: Notify
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    running: _Running | None = None
    cancelled: bool = False


class Coordinator:
    """Runs this node's own questions.

    Args:
        post: the way to other peers, and to oneself.
        store: where questions and receipts are kept.
        signer: signs as this node.
        registry: who is there.
        swarm: the name of the swarm.
        timeout_s, min_answers: for questions that do not say.
    """

    def __init__(
        self,
        post: Post,
        store: Store,
        signer: Signer,
        registry: Registry,
        swarm: str,
        timeout_s: float,
        min_answers: int,
    ) -> None:
        self._post = post
        self._store = store
        self._signer = signer
        self._registry = registry
        self._swarm = swarm
        self._timeout_s = timeout_s
        self._min_answers = min_answers
        self._turns = trio.CapacityLimiter(limits.ASKS_AT_ONCE)
        self._asks: dict[AskId, _Ask] = {}
        self._rounds: dict[RoundId, _Running] = {}
        self._changed = trio.Event()

    @property
    def running(self) -> int:
        """Own questions in a round now."""
        return len(self._rounds)

    @property
    def waiting(self) -> int:
        """Accepted questions that wait for their round."""
        return len(self._asks) - len(self._rounds)

    # --- questions --------------------------------------------------------------------------------

    async def ask(self, params: AskParams, notify: Notify) -> dict[str, Any]:
        """Accept a question and see it through.

        Returns:
            The result object of :func:`swarm.summary.summarise`, with ``receipt`` and ``timing``.

        Raises:
            BusyError: too many questions wait already; nothing was accepted.
            NoPeersError: fewer peers than asked for can answer.
            CancelledError: somebody cancelled it.
        """
        record = await self._store.accept(AskId(os.urandom(8).hex()), params)
        notify(Progress(record.id, {"kind": "accepted", "ask": record.id}))
        return await self._see_through(_Ask(record, notify))

    async def resume(self) -> None:
        """Take up the questions that the last run of this node left open."""
        try:
            records = await self._store.unfinished()
        except SwarmError as error:
            _log.error("open questions cannot be read: %s", error.user_text())
            return
        async with trio.open_nursery() as nursery:
            for record in records:
                _log.info("taking up question %s again", record.id)
                nursery.start_soon(self._again, record)

    async def _again(self, record: AskRecord) -> None:
        try:
            if record.attempt >= ATTEMPTS:
                worn = InterruptedQuestionError(f"It was begun {record.attempt} times.")
                await self._store.fail(record.id, error_object(worn))
                return
            await self._see_through(_Ask(record, lambda progress: None))
        except SwarmError as error:
            _log.warning("question %s: %s", record.id, error.user_text())
        except Exception:
            _log.exception("question %s failed", record.id)

    async def cancel(self, ask_id: AskId) -> bool:
        """Cancel an open question; its round is closed everywhere. False where it has ended."""
        ask = self._asks.get(ask_id)
        if ask is None or ask.cancelled or not await self._store.cancel(ask_id):
            return False
        ask.cancelled = True
        if ask.running is not None:
            self._feed(ask.running, ask.running.round.cancel)
        else:
            ask.scope.cancel()
        return True

    async def why(self, prefix: str) -> dict[str, object]:
        """Why a round ended as it did.

        Raises:
            UnknownRoundError: this node asked no such round, or it has no receipt.
            ReceiptError: its receipt was damaged.
        """
        record = await self._store.find_round(prefix)
        if record.receipt is None:
            raise UnknownRoundError(f"Round {prefix} has no receipt: it did not end.")
        path = record.receipt

        def work() -> dict[str, object]:
            try:
                return explain(path.read_bytes())
            except OSError as error:
                raise ReceiptError(f"{path} cannot be read: {error.strerror}.") from error

        return await trio.to_thread.run_sync(work)

    # --- what the mesh brings ---------------------------------------------------------------------

    def receive(self, incoming: Incoming) -> None:
        """A verified message of a participant."""
        message = incoming.message
        running = self._rounds.get(message.round) if isinstance(message, FromPeer) else None
        if running is not None and running.round.hears(incoming.peer):
            self._feed(running, lambda now: running.round.receive(incoming, now))

    def broke(self, peer: PeerId, kind: BreakKind, detail: str) -> None:
        """A peer sent what is no message, or the link to it was lost."""
        for running in self._rounds.values():
            if running.round.hears(peer):
                self._break(running, peer, kind, detail)

    def peers_changed(self) -> None:
        """Somebody introduced itself."""
        self._changed.set()
        self._changed = trio.Event()

    # --- one question -----------------------------------------------------------------------------

    async def _see_through(self, ask: _Ask) -> dict[str, Any]:
        self._asks[ask.record.id] = ask
        try:
            with ask.scope:
                async with self._turns:
                    return await self._answer(ask)
            raise CancelledError(f"Question {ask.record.id}.")
        except Exception as error:
            # Kept as failed whatever it was: a bug must not be met again at each start.
            reason = error if isinstance(error, SwarmError) else InternalError()
            if not ask.cancelled:
                with suppress(StoreError):  # what ended the question is worth more than this
                    await self._store.fail(ask.record.id, error_object(reason))
            raise
        finally:
            del self._asks[ask.record.id]

    async def _answer(self, ask: _Ask) -> dict[str, Any]:
        params = ask.record.params
        timeout_s = params.timeout_s or self._timeout_s
        wanted = params.min_answers or self._min_answers
        await self._until_able(wanted, min(PEERS_WAIT_S, timeout_s / 4))
        plan = self._plan(params.question, timeout_s, wanted)
        one = Round(plan, self._signer, trio.current_time(), self._models())
        if not await self._store.mark_running(ask.record.id, one.round_id):
            raise CancelledError(f"Question {ask.record.id}.")
        inputs, feed = trio.open_memory_channel[Input](limits.INBOX_MESSAGES)
        running = ask.running = self._rounds[one.round_id] = _Running(one, inputs)
        try:
            path = await self._run(ask, running, feed)
        finally:
            del self._rounds[one.round_id]
        if ask.cancelled:
            raise CancelledError(f"Question {ask.record.id}.")
        result = summarise(one) | {
            "ask": ask.record.id,
            "receipt": str(path),
            "timing": one.timing_ms(),
        }
        if not await self._store.finish(ask.record.id, result):
            raise CancelledError(f"Question {ask.record.id}.")
        return result

    async def _run(
        self, ask: _Ask, running: _Running, feed: trio.MemoryReceiveChannel[Input]
    ) -> Path:
        """Drive the round to its end; returns where its receipt is."""
        kept: list[Path] = []

        async def carry(effect: Effect) -> None:
            match effect:
                case Send(to, payload):
                    try:
                        self._post(to, payload)
                    except (MeshError, TooLargeError) as error:
                        self._break(running, to, "unsent", error.code)
                case Keep(round_id, receipt):
                    kept.append(await self._store.put_receipt(round_id, ask.record.id, receipt))
                case Report(event):
                    ask.notify(Progress(ask.record.id, msgspec.to_builtins(event)))

        outcome = await drive(running.round, feed, carry)
        _log.info("round %s: %s", short(running.round.round_id), outcome)
        return kept[0]

    def _plan(self, question: str, timeout_s: float, wanted: int) -> Plan:
        entropy = os.urandom(96)
        size = max(COMMITTEE, wanted)
        chosen = self._registry.committee(size, entropy[64:], self._signer.peer)
        if len(chosen) < wanted:
            raise NoPeersError(
                f"{len(chosen)} of the {wanted} that were asked for are connected and able."
            )
        invited = tuple(Standing(peer, 0, 0, 0, 0, "asker") for peer in chosen)
        return Plan(
            swarm=self._swarm,
            question=question,
            answer_bytes=ANSWER_BYTES,
            answer_tokens=ANSWER_TOKENS,
            phases=divide(max(SHORTEST_MS, int(1000 * timeout_s)), waves(len(chosen), len(chosen))),
            min_answers=wanted,
            invited=invited,
            rule=rule_for(invited),
            nonce=entropy[:32],
            secret=entropy[32:64],
        )

    def _models(self) -> dict[PeerId, str]:
        return {peer: one.model.name for peer, one in self._registry.profiles.items()}

    async def _until_able(self, wanted: int, seconds: float) -> None:
        """Wait a little for enough peers; whether there are, :meth:`_plan` finds out."""
        with trio.move_on_after(seconds):
            while len(self._registry.able()) < wanted:
                await self._changed.wait()

    def _break(self, running: _Running, peer: PeerId, kind: BreakKind, detail: str) -> None:
        self._feed(running, lambda now: running.round.broke(peer, kind, detail, now))

    def _feed(self, running: _Running, apply: Input) -> None:
        try:
            running.inputs.send_nowait(apply)
        except trio.WouldBlock:
            _log.warning("round %s is flooded", short(running.round.round_id))
        except trio.BrokenResourceError:
            pass  # the round has just ended
