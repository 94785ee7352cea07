"""Whom to ask a question and how: everything about a round that is decided before it begins.

Real questions and calibration pass through here alike, and nothing here knows which it is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import msgspec

from node.conduct import Conduct
from node.knowledge import Knowledge
from protocol.errors import NoPeersError
from protocol.ids import PeerId, short_peer
from protocol.messages import MICRO
from protocol.methods import AskParams
from protocol.receipt import Plan, Standing
from swarm.budget import SHORTEST_MS, divide
from swarm.consensus import CONFIDENCE_ROUNDS
from swarm.evidence import Solo
from swarm.pairing import waves
from swarm.registry import Registry
from swarm.reputation import answer_bound
from swarm.seeded import Stream
from swarm.selection import NOTHING, Budget, Measured, Selection, select
from swarm.staging import stage_sizes

_log = logging.getLogger(__name__)

COMMITTEE = 9
"""Peers invited to a round: up to so many, every pair is judged by all in both orders."""
ANSWER_BYTES = 4 << 10
ANSWER_TOKENS = 512
SOLO_SHARE = 80
"""Of a hundred questions on a topic where one peer is better than the swarm, so many are put to
it alone. The others keep the comparison alive, and keep calibration from standing out."""
LONG_ANSWER_BYTES = 256
"""Mean length of a peer's answers from which they tell its speed."""
BYTES_PER_TOKEN = 4
UNTRIED_TOKENS = 64
"""Expected of an answer before any has been seen."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the asker asks for.

    Attributes:
        timeout_s: until the round closes with what it has.
        min_answers: fewer answers than this are "no peers".
        peers: at most so many are asked; None: as many as serve best.
        answer_tokens: what an answer may take.
        energy_j: joules for all answers together, as far as peers advertise them.
        stop_at: judging ends once the winner's confidence reaches this; None: when all is judged.
        stages: so many peers are asked first, then more, until ``stop_at`` is reached.
    """

    timeout_s: float
    min_answers: int
    peers: int | None = None
    answer_tokens: int = ANSWER_TOKENS
    energy_j: float | None = None
    stop_at: float | None = None
    stages: tuple[int, ...] = ()

    def of(self, params: AskParams) -> Terms:
        """These terms, with what a question says of its own."""
        return Terms(
            timeout_s=params.timeout_s or self.timeout_s,
            min_answers=params.min_answers or min(self.min_answers, params.peers or COMMITTEE),
            peers=params.peers or self.peers,
            answer_tokens=params.answer_tokens or self.answer_tokens,
            energy_j=params.energy_j or self.energy_j,
            stop_at=params.stop_at or self.stop_at,
            stages=self.stages,
        )


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan and why it is so.

    Attributes:
        solo: the evidence for asking one peer alone, where that is the plan.
    """

    plan: Plan
    selection: Selection
    solo: Solo | None


class Planner:
    """Makes plans.

    Args:
        registry: who is there.
        conduct: who is excluded.
        knowledge: what is known of them.
        swarm: the name of the swarm.
        own: this node.
        solo_guard: whether one peer may be asked alone.
        own_weight: of verdicts on a judge's own answer, in [0, 1].
        entropy: gives random bytes.
    """

    def __init__(
        self,
        registry: Registry,
        conduct: Conduct,
        knowledge: Knowledge,
        swarm: str,
        own: PeerId,
        solo_guard: bool = True,
        own_weight: float = 1.0,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._registry = registry
        self._conduct = conduct
        self._knowledge = knowledge
        self._swarm = swarm
        self._own = own
        self._solo_guard = solo_guard
        self._own_weight = round(MICRO * own_weight)
        self._entropy = entropy

    def plan(self, question: str, terms: Terms) -> Planned:
        """The round for a question.

        Raises:
            NoPeersError: fewer than ``terms.min_answers`` can answer.
        """
        entropy = self._entropy(96)
        topic = self._knowledge.topic(question)
        size = min(terms.peers or COMMITTEE, COMMITTEE)
        timeout_ms = max(SHORTEST_MS, int(1000 * terms.timeout_s))
        budget = Budget(
            peers=max(size, terms.min_answers),
            question_bytes=len(question.encode()),
            answer_tokens=min(terms.answer_tokens, self._usual_tokens()),
            commit_ms=divide(timeout_ms).commit,
            energy=None if terms.energy_j is None else round(MICRO * terms.energy_j),
        )
        measured = self._measured(topic)
        candidates = self._registry.candidates(
            measured, self._hints(measured), self._conduct.excluded()
        )
        selection = select(candidates, budget, entropy[64:], self._own)
        chosen, wanted = selection.peers, terms.min_answers
        if len(chosen) < wanted:
            raise NoPeersError(_shortage(selection, wanted))
        solo = self._solo(topic, chosen, entropy[64:])
        if solo is not None:
            chosen, wanted = (solo.peer,), 1
        rule, standings = self._knowledge.book.rule(topic, chosen)
        rule = msgspec.structs.replace(rule, own=self._own_weight)
        # Only a confidence says when to stop: a share of scores is no probability.
        stops = terms.stop_at is not None and rule.calibration_rounds >= CONFIDENCE_ROUNDS
        sizes = stage_sizes(terms.stages if stops else (), len(chosen))
        if timeout_ms < len(sizes) * SHORTEST_MS:
            sizes = stage_sizes((), len(chosen))
        if stops:
            rule = msgspec.structs.replace(rule, stop=round(MICRO * (terms.stop_at or 0.0)))
            standings = tuple(sorted(standings, key=self._turn))
        plan = Plan(
            swarm=self._swarm,
            question=question,
            answer_bytes=ANSWER_BYTES,
            answer_tokens=terms.answer_tokens,
            phases=divide(timeout_ms, waves(len(chosen), len(chosen), stops), len(sizes)),
            min_answers=wanted,
            invited=standings,
            rule=rule,
            nonce=entropy[:32],
            secret=entropy[32:64],
            topic=topic,
            solo=solo is not None,
            adaptive=stops,
            stages=sizes[:-1],
        )
        return Planned(plan, selection, solo)

    def _measured(self, topic: str) -> dict[PeerId, Measured]:
        book = self._knowledge.book
        found = {}
        for peer in self._registry.able():
            record, admitted = book.records.get(peer), book.admitted(peer)
            if record is None and not admitted:
                continue
            low, error = book.skill(peer, topic)
            if record is None:
                found[peer] = Measured(low, error, admitted)
                continue
            # Short answers are mostly overhead: their time says nothing of the tokens in it.
            speed = None
            if record.answer_bytes >= LONG_ANSWER_BYTES and record.latency_ms > 0.0:
                speed = 1000.0 * record.answer_bytes / BYTES_PER_TOKEN / record.latency_ms
            latency_ms = record.latency_ms if speed is None else None
            found[peer] = Measured(low, error, admitted, latency_ms, speed)
        return found

    def _hints(self, measured: Mapping[PeerId, Measured]) -> dict[PeerId, float]:
        """What strangers say of the newcomers."""
        return {
            peer: self._knowledge.rumour(peer)
            for peer in self._registry.able()
            if not measured.get(peer, NOTHING).proven
        }

    def _turn(self, standing: Standing) -> tuple[bool, float, PeerId]:
        """This node first, then who is right most often: the order of stages."""
        answer = standing.answer
        bound = answer_bound(answer.right / MICRO, answer.total / MICRO)
        return standing.peer != self._own, -bound, standing.peer

    def _usual_tokens(self) -> int:
        """What an answer takes, in the middle of the admitted (of all that have been tried, where
        nobody is): whoever rambles must not make the slow ones seem too slow."""
        tried = [one for one in self._knowledge.book.records.values() if one.trials]
        sizes = [one.answer_bytes for one in tried if one.admitted]
        sizes = sizes or [one.answer_bytes for one in tried]
        return round(median(sizes) / BYTES_PER_TOKEN) + 1 if sizes else UNTRIED_TOKENS

    def _solo(self, topic: str, chosen: tuple[PeerId, ...], seed: bytes) -> Solo | None:
        if not self._solo_guard:
            return None
        solo = self._knowledge.book.solo(topic, chosen)
        if solo is None or Stream(seed + b"solo").below(100) >= SOLO_SHARE:
            return None
        _log.info("on %s peer %s is better than the swarm", topic, short_peer(solo.peer))
        return solo


def _shortage(selection: Selection, wanted: int) -> str:
    """Who could be asked, and why not the others."""
    text = f"{len(selection.peers)} of the {wanted} that were asked for are connected and able."
    reasons = [
        f"{short_peer(one.peer)}: {one.reason}" for one in selection.choices if not one.seated
    ]
    return f"{text} {'; '.join(reasons[:3])}." if reasons else text
