"""Tests peers with questions whose answer is known, so that their word can be weighed.

Hidden calibration goes with this node's own questions: in the pauses between them, with the
configured chance, a task is put on the same terms, and looks like them (:mod:`swarm.examiner`,
:mod:`swarm.pacing`).
While the node is idle a background budget tests whoever is not known yet; since nothing real
passes then, a peer may guess what it is, and it counts as an admission burst.
"""

from __future__ import annotations

import logging
import math
from typing import Final

import trio

from node.coordinator import Coordinator
from node.knowledge import Knowledge
from node.planner import Terms
from node.rpc_server import Notify
from protocol.errors import BusyError, NoPeersError, ReceiptError, SwarmError
from protocol.ids import PeerId, short
from protocol.methods import AskId, Calibrated, CalibrateParams, Progress
from swarm.calibration.grading import truth
from swarm.calibration.items import Item
from swarm.consensus import CONFIDENCE_ROUNDS, QUORUM
from swarm.pacing import Pacing
from swarm.registry import Registry
from swarm.seeded import Stream
from swarm.trial import Kind, Trial, judged

_log = logging.getLogger(__name__)

ENOUGH: Final = 200
"""Calibration rounds that a peer was here for, after which it is no reason for more: there are
peers that never answer, and judges that never say anything."""
KNOWN_TRICKLE: Final = 12
"""Once everybody is known, the background budget is divided by this."""
FEWEST: Final = 2
"""Peers besides this node, below which there is nothing to compare."""


class Calibrator:
    """Runs calibration rounds.

    Args:
        coordinator: puts the questions.
        knowledge: draws them, and learns from them.
        registry: who is there.
        terms: of questions that do not say.
        rate: share of this node's rounds that are hidden tasks, in [0, 0.5].
        per_hour: background tasks an hour while idle; 0: none.
        seed: secret, decides when.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        knowledge: Knowledge,
        registry: Registry,
        terms: Terms,
        rate: float,
        per_hour: float,
        seed: bytes,
    ) -> None:
        self._coordinator = coordinator
        self._knowledge = knowledge
        self._registry = registry
        self._terms = terms
        self._per_hour = per_hour
        self._stream = Stream(b"background/" + seed)
        self._pacing = Pacing(rate, Stream(b"pacing/" + seed))
        self._paced = trio.Event()
        self._hidden_terms = terms
        self._drawn: tuple[Item, str] | None = None
        self._calibrating = False
        self._met: dict[PeerId, int] = {}

    def asked(self, question: str, terms: Terms) -> None:
        """A real question is being put."""
        self._knowledge.asked(question)
        self._hidden_terms = terms
        self._pacing.asked(trio.current_time())
        self._paced.set()

    def answered(self) -> None:
        """The round of a real question has ended."""
        self._pacing.answered(trio.current_time())
        self._paced.set()

    async def hide(self) -> None:
        """Put hidden tasks when they are due, until cancelled."""
        while True:
            due = self._pacing.due
            if due is not None and self._drawn is None and self._enough():
                # Beforehand: what takes time to draw would come late.
                self._drawn = await self._prepared()
            with trio.move_on_at(math.inf if due is None else due):
                await self._paced.wait()
            if self._paced.is_set():
                self._paced = trio.Event()
                continue
            self._pacing.put()
            if self._drawn is not None and self._enough():
                drawn, self._drawn = self._drawn, None
                await self._try("hidden", self._hidden_terms, drawn)
            self._pacing.tested(trio.current_time())

    async def _prepared(self) -> tuple[Item, str] | None:
        try:
            return await self._knowledge.draw(hidden=True)
        except SwarmError as error:
            _log.info("no hidden task can be drawn: %s", error.user_text())
        except Exception:
            _log.exception("no hidden task can be drawn")
        return None

    async def run(self) -> None:
        """Spend the background budget until cancelled."""
        while self._per_hour > 0.0:
            await trio.sleep(self._exponential(3600.0 / self._per_hour))
            if self._coordinator.running or self._coordinator.waiting or not self._enough():
                continue
            if self.curious() or self._stream.below(KNOWN_TRICKLE) == 0:
                await self._try("admission", self._terms)

    def curious(self) -> bool:
        """Whether somebody connected is not known yet, or the confidence is not learnt."""
        book = self._knowledge.book
        fresh = [peer for peer in self._registry.able() if self._met.get(peer, 0) < ENOUGH]
        if book.learnt < CONFIDENCE_ROUNDS:
            return bool(fresh)
        records = (book.records.get(peer) for peer in fresh)
        return any(one is None or one.test.decision == "open" for one in records)

    async def calibrate(self, params: CalibrateParams, notify: Notify) -> Calibrated:
        """Run rounds now, one after the other, and say how they went.

        Raises:
            NoPeersError: there are too few peers, and so far no round could be run.
            BusyError: another burst is running.
        """
        if self._calibrating:
            raise BusyError("A calibration is running already.")
        self._calibrating = True
        try:
            return await self._burst(params, notify)
        finally:
            self._calibrating = False

    async def _burst(self, params: CalibrateParams, notify: Notify) -> Calibrated:
        done: list[Trial] = []
        failed = 0
        notify(Progress(AskId(""), {"kind": "calibrating", "rounds": params.rounds}))
        for number in range(params.rounds):
            try:
                trial = await self._one("admission", self._terms)
            except (NoPeersError, ReceiptError) as error:
                gone = isinstance(error, NoPeersError)
                if gone and not done:
                    raise
                failed += 1
                notify(Progress(AskId(""), {"kind": "failed", "number": number + 1}))
                if gone:
                    break  # the next would fail as soon
                continue
            done.append(trial)
            notify(Progress(AskId(""), _event(number + 1, params.rounds, trial)))
        return Calibrated(
            rounds=len(done),
            failed=failed,
            informative=sum(_informative(one) for one in done),
            chosen=sum(one.chosen is True for one in done),
            trials=self._knowledge.book.trials,
            admitted=sum(one.admitted for one in self._knowledge.book.records.values()),
            quorum=QUORUM,
            confidence_rounds=CONFIDENCE_ROUNDS,
        )

    async def _try(self, kind: Kind, terms: Terms, drawn: tuple[Item, str] | None = None) -> None:
        """One round; that it fails is no reason for the node to."""
        try:
            await self._one(kind, terms, drawn)
        except SwarmError as error:
            _log.info("a calibration round failed: %s", error.user_text())
        except Exception:
            _log.exception("a calibration round failed")

    async def _one(self, kind: Kind, terms: Terms, drawn: tuple[Item, str] | None = None) -> Trial:
        if not self._enough():
            able = len(self._registry.able())
            raise NoPeersError(f"{able} are connected; to calibrate takes {FEWEST + 1}.")
        item, task = drawn or await self._knowledge.draw()
        self._met = {peer: self._met.get(peer, 0) + 1 for peer in self._registry.able()}
        receipt = await self._coordinator.try_out(item.question, terms)
        found = await trio.to_thread.run_sync(judged, receipt)
        right = truth(item, found.opened.answers)
        trial = await self._knowledge.learn(found, right, kind, task)
        _log.info(
            "calibration round %s (%s): %d of %d answers right",
            short(found.core.round),
            task or "private",
            sum(mark.right for mark in trial.marks),
            len(trial.marks),
        )
        return trial

    def _enough(self) -> bool:
        return len(self._registry.able()) > FEWEST

    def _exponential(self, mean_s: float) -> float:
        return -mean_s * math.log(1.0 - self._stream.unit())


def _informative(trial: Trial) -> bool:
    return len({mark.right for mark in trial.marks}) == 2


def _event(number: int, rounds: int, trial: Trial) -> dict[str, object]:
    return {
        "kind": "calibrated",
        "number": number,
        "rounds": rounds,
        "topic": trial.topic,
        "task": trial.task,
        "right": sum(mark.right for mark in trial.marks),
        "answers": len(trial.marks),
        "chosen": trial.chosen,
    }
