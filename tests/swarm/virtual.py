"""A whole swarm under a virtual clock: real machines, scripted models, messages on a heap."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count

from protocol import limits
from protocol.codec import encode
from protocol.envelope import Envelope, KeySigner
from protocol.errors import ProtocolError
from protocol.ids import PeerId
from protocol.messages import MICRO, Incoming, Invite, Model, Phases, parse
from protocol.receipt import Plan, Rule, Standing
from swarm.consensus import UNCALIBRATED
from swarm.effects import Effect, Finished, Generate, Judge, Report, Send, StopWork, Store
from swarm.participant import Participant
from swarm.progress import Event
from swarm.round import Round

PHASES = Phases(commit=10_000, reveal=2_000, judge=10_000)
Tamper = Callable[["Peer", Incoming | None, bytes], list[bytes]]


def signer(name: str) -> KeySigner:
    """The key of a named peer."""
    return KeySigner(sha256(name.encode()).digest())


def standing(peer: PeerId, *counts: int) -> Standing:
    """A peer's counts, zero unless given."""
    right, pairs, answered, asked = (*counts, 0, 0, 0, 0)[:4]
    return Standing(peer, right * MICRO, pairs * MICRO, answered * MICRO, asked * MICRO, "asker")


@dataclass
class Peer:
    """A participant with a scripted model.

    Attributes:
        answer: what it answers; None declines.
        judge: P(first is right) of two texts, or None to abstain.
        latency: seconds for each message of this peer.
        thinks: seconds to answer, and to judge.
        tamper: rewrites each outgoing payload into any number of payloads.
        dies_at: state name in which it goes silent.
    """

    name: str
    answer: str | None = "42"
    judge: Callable[[str, str], float | None] = lambda first, second: 0.5
    latency: float = 0.01
    thinks: float = 0.5
    tamper: Callable[[Peer, bytes], list[bytes]] = lambda peer, payload: [payload]
    dies_when: str = ""
    machine: Participant | None = None
    finished: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.signer = signer(self.name)

    @property
    def id(self) -> PeerId:
        return self.signer.peer


class VirtualSwarm:
    """One asker, many peers, one heap of future events."""

    def __init__(
        self,
        peers: list[Peer],
        *,
        rule: Rule = UNCALIBRATED,
        standings: dict[str, Standing] | None = None,
        min_answers: int = 1,
        phases: Phases = PHASES,
        seed: bytes = b"seed",
        question: str = "What is 6 * 7?",
    ) -> None:
        self.peers = {peer.id: peer for peer in sorted(peers, key=lambda one: one.id)}
        self.asker = signer("asker")
        self.now = 0.0
        self.receipts: list[bytes] = []
        self.events: list[Event] = []
        self.finished: list[str] = []
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        invited = tuple(
            (standings or {}).get(peer.name, standing(peer.id)) for peer in self.peers.values()
        )
        self.plan = Plan(
            swarm="test",
            question=question,
            answer_bytes=limits.ANSWER_BYTES,
            answer_tokens=64,
            phases=phases,
            min_answers=min_answers,
            invited=invited,
            rule=rule,
            nonce=sha256(seed + b"nonce").digest(),
            secret=sha256(seed + b"secret").digest(),
        )
        self.round = Round(self.plan, self.asker, self.now)

    def at(self, delay: float, action: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._heap, (self.now + delay, next(self._order), action))

    def run(self) -> VirtualSwarm:
        """Run until nothing is left to happen."""
        self._pump_round()
        for _ in range(100_000):
            due = self.round.timer_at()
            timers = [(due, None)] if due is not None else []
            for peer in self.peers.values():
                at = peer.machine.timer_at() if peer.machine else None
                if at is not None and not self._dead(peer):
                    timers.append((at, peer))
            first = min((at for at, _ in timers), default=None)
            if self._heap and (first is None or self._heap[0][0] <= first):
                self.now, _, action = heapq.heappop(self._heap)
                action()
            elif first is not None:
                self.now = first
                for at, peer in timers:
                    if at != first:
                        continue
                    if peer is None:
                        self.round.on_timer(self.now)
                        self._pump_round()
                    elif peer.machine is not None:
                        peer.machine.on_timer(self.now)
                        self.pump(peer)
            else:
                return self
        raise AssertionError("the swarm does not come to rest")

    def _dead(self, peer: Peer) -> bool:
        return bool(peer.machine and peer.dies_when and peer.machine.state.name == peer.dies_when)

    def _pump_round(self) -> None:
        for effect in self.round.effects():
            match effect:
                case Send(to, payload):
                    peer = self.peers[to]
                    self.at(peer.latency, lambda p=peer, b=payload: self._to_peer(p, b))
                case Store(_, receipt):
                    self.receipts.append(receipt)
                case Report(event):
                    self.events.append(event)
                case Finished(reason):
                    self.finished.append(reason)

    def _to_peer(self, peer: Peer, payload: bytes) -> None:
        if self._dead(peer):
            return
        incoming = parse(payload)
        if isinstance(incoming.message, Invite):
            salt = sha256(peer.name.encode() + b"salt").digest()
            model = Model(peer.name, "test", "")
            peer.machine = Participant(incoming, peer.signer, model, salt, self.now)
        elif peer.machine is not None:
            peer.machine.receive(incoming, self.now)
        self.pump(peer)

    def pump(self, peer: Peer) -> None:
        """Carry out what a peer's machine asks for."""
        machine = peer.machine
        assert machine is not None
        for effect in machine.effects():
            self._carry_out(peer, machine, effect)

    def _carry_out(self, peer: Peer, machine: Participant, effect: Effect) -> None:
        match effect:
            case Generate():
                self.at(peer.thinks, lambda: self._answered(peer, machine))
            case Judge(_, answers, pairs, _):
                verdicts = tuple(peer.judge(answers[a], answers[b]) for a, b in pairs)
                self.at(peer.thinks, lambda: self._judged(peer, machine, verdicts))
            case Send(_, payload):
                for sent in peer.tamper(peer, payload):
                    self.at(peer.latency, lambda b=sent: self._to_asker(peer, b))
            case Finished(reason):
                peer.finished.append(reason)
            case StopWork():
                pass

    def _answered(self, peer: Peer, machine: Participant) -> None:
        if self._dead(peer):
            return
        if peer.answer is None:
            machine.failed("no idea", self.now)
        else:
            machine.generated(peer.answer, self.now)
        self.pump(peer)

    def _judged(self, peer: Peer, machine: Participant, verdicts: tuple[float | None, ...]) -> None:
        if self._dead(peer):
            return
        machine.judged(verdicts, self.now)
        self.pump(peer)

    def _to_asker(self, peer: Peer, payload: bytes) -> None:
        try:
            incoming = parse(payload)
        except ProtocolError as error:
            self.round.broke(peer.id, "malformed", error.code, self.now)
        else:
            self.round.receive(incoming, self.now)
        self._pump_round()

    @property
    def faults(self) -> dict[str, str]:
        """Fault kind by peer name."""
        assert self.round.core is not None
        names = {peer.id: peer.name for peer in self.peers.values()}
        return {names[fault.peer]: fault.kind for fault in self.round.core.faults}

    @property
    def winner(self) -> str | None:
        """The winning text."""
        result, opened = self.round.result, self.round.opened
        assert result is not None
        if opened is None or result.winner is None:
            return None
        return opened.answers[result.winner]


def knows(truth: str, strength: float = 0.9) -> Callable[[str, str], float | None]:
    """A judge that prefers ``truth`` and is otherwise undecided."""

    def judge(first: str, second: str) -> float | None:
        if (first == truth) == (second == truth):
            return 0.5
        return strength if first == truth else 1.0 - strength

    return judge


def resealed(who: KeySigner, message: object) -> bytes:
    """A payload signed by ``who``."""
    envelope: Envelope = who.seal(encode(message))
    return encode(envelope)
