"""The asker's side of the node: accepts questions, runs a Round for each, keeps the receipts.

A question is on disk before it is acknowledged. What a crash interrupts is taken up again at the
next start, as another attempt with a fresh round.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import trio

from node.conduct import Conduct
from node.driver import Input, drive
from node.knowledge import Knowledge
from node.planner import Planned, Planner, Terms
from node.store import AskRecord, Store
from node.worker import Post
from protocol import limits
from protocol.envelope import Signer
from protocol.errors import (
    CancelledError,
    InternalError,
    InterruptedQuestionError,
    MeshError,
    ReceiptError,
    StoreError,
    SwarmError,
    TooLargeError,
    UnknownRoundError,
)
from protocol.ids import PeerId, RoundId, short
from protocol.messages import MICRO, FromPeer, Incoming
from protocol.methods import AskId, AskParams, Graded, GradeParams, Progress
from protocol.receipt import BreakKind
from protocol.rpc import error_object
from swarm.effects import Effect, Report, Send
from swarm.effects import Store as Keep
from swarm.explain import explain
from swarm.progress import Event
from swarm.proofs import proofs
from swarm.registry import Registry
from swarm.round import Round
from swarm.summary import summarise
from swarm.trial import judged, truth

_log = logging.getLogger(__name__)

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
    feed: trio.MemoryReceiveChannel[Input]


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
        planner: decides whom to ask and how.
        knowledge: takes what is graded.
        conduct: takes what peers did for this node, or against the rules.
        terms: of questions that do not say.

    Attributes:
        on_question: told of each question that is put, and its terms.
        on_answer: told when the round of one has ended, however it did.
    """

    def __init__(
        self,
        post: Post,
        store: Store,
        signer: Signer,
        registry: Registry,
        planner: Planner,
        knowledge: Knowledge,
        conduct: Conduct,
        terms: Terms,
    ) -> None:
        self._post = post
        self._store = store
        self._signer = signer
        self._registry = registry
        self._planner = planner
        self._knowledge = knowledge
        self._conduct = conduct
        self._terms = terms
        self._turns = trio.CapacityLimiter(limits.ASKS_AT_ONCE)
        self._asks: dict[AskId, _Ask] = {}
        self._rounds: dict[RoundId, _Running] = {}
        self._changed = trio.Event()
        self.on_question: Callable[[str, Terms], None] = lambda question, terms: None
        self.on_answer: Callable[[], None] = lambda: None

    @property
    def running(self) -> int:
        """Own rounds now, calibration among them."""
        return len(self._rounds)

    @property
    def waiting(self) -> int:
        """Accepted questions that wait for their round."""
        return sum(ask.running is None for ask in self._asks.values())

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
        receipt = await self._receipt(prefix)
        return await trio.to_thread.run_sync(explain, receipt)

    async def grade(self, params: GradeParams) -> Graded:
        """Take a round of this node as evidence: somebody knows whether its answer was right.

        Raises:
            UnknownRoundError: this node asked no such round, or it has no receipt.
            ReceiptError: its receipt was damaged, or it ended without answers.
            UngradableError: the grade does not fit the round.
        """
        receipt = await self._receipt(params.round)
        found = await trio.to_thread.run_sync(judged, receipt)
        right = truth(found, params.right, params.answer)
        trial = await self._knowledge.learn(found, right, "graded")
        return Graded(
            round=found.core.round.hex(),
            topic=trial.topic,
            right=trial.chosen is True,
            peers=len(trial.marks),
            pairs=sum(tally.total for mark in trial.marks for tally in mark.judge) / MICRO,
        )

    async def _receipt(self, prefix: str) -> bytes:
        """The receipt of a round of this node."""
        record = await self._store.find_round(prefix)
        if record.receipt is None:
            raise UnknownRoundError(f"Round {prefix} has no receipt: it did not end.")
        path = record.receipt
        try:
            return await trio.to_thread.run_sync(path.read_bytes)
        except OSError as error:
            raise ReceiptError(f"{path} cannot be read: {error.strerror}.") from error

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
        """Somebody was linked, or its log says something new."""
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
        terms = self._terms.of(params)
        await self._until_able(terms.min_answers, min(PEERS_WAIT_S, terms.timeout_s / 4))
        one = self._round(self._planner.plan(params.question, terms))
        if not await self._store.mark_running(ask.record.id, one.round_id):
            raise CancelledError(f"Question {ask.record.id}.")
        kept: list[Path] = []

        async def keep(receipt: bytes) -> None:
            kept.append(await self._store.put_receipt(one.round_id, ask.record.id, receipt))

        def report(event: Event) -> None:
            ask.notify(Progress(ask.record.id, msgspec.to_builtins(event)))

        self.on_question(params.question, terms)
        try:
            with self._running_round(one) as running:
                ask.running = running
                await self._run(running, keep, report)
        finally:
            self.on_answer()
        if ask.cancelled:
            raise CancelledError(f"Question {ask.record.id}.")
        result = summarise(one) | {
            "ask": ask.record.id,
            "receipt": str(kept[0]),
            "timing": one.timing_ms(),
        }
        if not await self._store.finish(ask.record.id, result):
            raise CancelledError(f"Question {ask.record.id}.")
        return result

    # --- one round --------------------------------------------------------------------------------

    async def try_out(self, question: str, terms: Terms) -> bytes:
        """Put a question whose answer is known, exactly as a real one is put.

        Returns:
            The receipt.

        Raises:
            NoPeersError: fewer peers than asked for can answer.
        """
        kept: list[bytes] = []

        async def keep(receipt: bytes) -> None:
            # Close waits for the disk in both cases, or its time would tell them apart.
            await self._store.rehearse_receipt(receipt)
            kept.append(receipt)

        async with self._turns:
            one = self._round(self._planner.plan(question, terms))
            with self._running_round(one) as running:
                await self._run(running, keep, lambda event: None)
        return kept[0]

    def _round(self, planned: Planned) -> Round:
        return Round(planned.plan, self._signer, trio.current_time(), self._models())

    @contextmanager
    def _running_round(self, one: Round) -> Iterator[_Running]:
        inputs, feed = trio.open_memory_channel[Input](limits.INBOX_MESSAGES)
        running = self._rounds[one.round_id] = _Running(one, inputs, feed)
        try:
            yield running
        finally:
            del self._rounds[one.round_id]

    async def _run(
        self,
        running: _Running,
        keep: Callable[[bytes], Awaitable[None]],
        report: Callable[[Event], None],
    ) -> None:
        """Drive a round to its end."""

        async def carry(effect: Effect) -> None:
            match effect:
                case Send(to, payload):
                    try:
                        self._post(to, payload)
                    except (MeshError, TooLargeError) as error:
                        self._break(running, to, "unsent", error.code)
                case Keep(_, receipt):
                    await keep(receipt)
                case Report(event):
                    report(event)

        one = running.round
        outcome = await drive(one, running.feed, carry)
        _log.info("round %s: %s", short(one.round_id), outcome)
        self._conduct.convict(proofs(one.journal))
        for peer in one.served():
            self._conduct.served_us(peer)

    def _models(self) -> dict[PeerId, str]:
        return {peer: one.model.name for peer, one in self._registry.profiles.items()}

    async def _until_able(self, wanted: int, seconds: float) -> None:
        """Wait a little for enough peers; whether there are, the planner finds out."""
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
