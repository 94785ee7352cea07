"""A whole swarm under a virtual clock: real machines, scripted models, messages on a heap."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count

from protocol import limits
from protocol.codec import encode
from protocol.envelope import KeySigner
from protocol.errors import ProtocolError
from protocol.ids import PeerId
from protocol.messages import MICRO, Invite, Message, Model, Phases, parse, seal
from protocol.receipt import Fault, Plan, Result, Rule, Standing, Tally
from swarm.consensus import UNCALIBRATED
from swarm.effects import Effect, Finished, Generate, Judge, Report, Send, StopWork, Store
from swarm.participant import Participant
from swarm.progress import Event
from swarm.reputation import judge_weight
from swarm.round import Round
from swarm.trial import five

PHASES = Phases(commit=10_000, reveal=2_000, judge=10_000)

Verdicts = Callable[[str, str], float | None]
"""P(first is right) of two texts, or None to abstain."""
Rewrite = Callable[["Peer", Message], "list[Message | bytes]"]
"""What a peer sends in place of one of its messages; messages are signed, bytes go as they are."""


def signer(name: str) -> KeySigner:
    """The key of a named peer."""
    return KeySigner(sha256(name.encode()).digest())


def standing(name: str, *counts: int) -> Standing:
    """A peer's calibration counts (right, pairs, right answers, questions), zero unless given.

    The same pairs in every bin of sureness, and admitted if these make it better than chance.
    """
    right, pairs, answered, asked = (*counts, 0, 0, 0, 0)[:4]
    judge = Tally(right * MICRO, pairs * MICRO)
    answer = Tally(answered * MICRO, asked * MICRO)
    admitted = judge_weight(right, pairs) > 0.0
    return Standing(signer(name).peer, five([judge] * 5), answer, admitted, MICRO, "asker")


def knows(truth: str, strength: float = 0.9) -> Verdicts:
    """A judge that prefers ``truth`` and is otherwise undecided."""

    def judge(first: str, second: str) -> float | None:
        if (first == truth) == (second == truth):
            return 0.5
        return strength if first == truth else 1.0 - strength

    return judge


def undecided(first: str, second: str) -> float | None:
    """A judge that sees no difference."""
    return 0.5


@dataclass
class Peer:
    """A participant with a scripted model.

    Attributes:
        answer: what it answers; None where its model fails.
        latency: seconds that each message to or from this peer takes.
        late: further seconds for its messages of a type.
        thinks: seconds to answer, and to judge.
        rewrite: for a type of message, what it really sends.
        dies_when: name of the participant's state in which it falls silent for good; ``"INVITED"``
            for a peer that was never there.
    """

    name: str
    answer: str | None = "42"
    judge: Verdicts = undecided
    latency: float = 0.01
    thinks: float = 0.5
    late: dict[type[Message], float] = field(default_factory=dict)
    rewrite: dict[type[Message], Rewrite] = field(default_factory=dict)
    dies_when: str = ""
    machine: Participant | None = None
    finished: list[str] = field(default_factory=list)
    work: int = 0

    def __post_init__(self) -> None:
        self.signer = signer(self.name)

    @property
    def id(self) -> PeerId:
        return self.signer.peer

    @property
    def dead(self) -> bool:
        """It neither hears nor says anything any more."""
        state = self.machine.state.name if self.machine else "INVITED"
        return state == self.dies_when

    def sends(self, payload: bytes) -> Iterator[tuple[float, bytes]]:
        """(seconds on the way, payload) of what this peer makes of its machine's payload."""
        message = parse(payload).message
        kind = type(message)
        delay = self.latency + self.late.get(kind, 0.0)
        if kind not in self.rewrite:
            yield delay, payload
            return
        for sent in self.rewrite[kind](self, message):
            yield delay, sent if isinstance(sent, bytes) else encode(seal(self.signer, sent))


class VirtualSwarm:
    """One asker, many peers, one heap of future events. Stages take the peers as they are given.

    Attributes:
        on: what to do right after a progress event of a type was first reported.
        ended: when the round was over.
    """

    def __init__(
        self,
        peers: list[Peer],
        *,
        rule: Rule = UNCALIBRATED,
        standings: dict[str, Standing] | None = None,
        min_answers: int = 1,
        phases: Phases = PHASES,
        answer_bytes: int = limits.ANSWER_BYTES,
        seed: bytes = b"seed",
        question: str = "What is 6 * 7?",
        adaptive: bool = False,
        stages: tuple[int, ...] = (),
    ) -> None:
        self.peers = {peer.id: peer for peer in sorted(peers, key=lambda one: one.id)}
        self.asker = signer("asker")
        self.now = self.ended = 0.0
        self.receipts: list[bytes] = []
        self.events: list[Event] = []
        self.finished: list[str] = []
        self.on: dict[type[Event], Callable[[], None]] = {}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        order = peers if stages else self.peers.values()
        invited = tuple((standings or {}).get(peer.name, standing(peer.name)) for peer in order)
        self.plan = Plan(
            swarm="test",
            question=question,
            answer_bytes=answer_bytes,
            answer_tokens=64,
            phases=phases,
            min_answers=min_answers,
            invited=invited,
            rule=rule,
            nonce=sha256(seed + b"nonce").digest(),
            secret=sha256(seed + b"secret").digest(),
            topic="",
            solo=False,
            adaptive=adaptive,
            stages=stages,
        )
        self.round = Round(self.plan, self.asker, self.now, {peer.id: peer.name for peer in peers})

    # --- running --------------------------------------------------------------------------------

    def at(self, delay: float, action: Callable[[], None]) -> None:
        """Do something ``delay`` seconds from now."""
        heapq.heappush(self._heap, (self.now + delay, next(self._order), action))

    def cancel(self) -> None:
        """The asker gives up."""
        self.round.cancel(self.now)
        self._pump_round()

    def broke(self, peer: Peer, kind: str = "lost", detail: str = "gone") -> None:
        """The way to a peer fails."""
        self.round.broke(peer.id, kind, detail, self.now)  # type: ignore[arg-type]
        self._pump_round()

    def run(self) -> VirtualSwarm:
        """Run until nothing is left to happen."""
        self._pump_round()
        for _ in range(100_000):
            timers = self._timers()
            first = min((at for at, _ in timers), default=None)
            if self._heap and (first is None or self._heap[0][0] <= first):
                self.now, _, action = heapq.heappop(self._heap)
                action()
            elif first is not None:
                self.now = first
                for at, peer in timers:
                    if at == first:
                        self._ring(peer)
            else:
                return self
        raise AssertionError("the swarm does not come to rest")

    def _timers(self) -> list[tuple[float, Peer | None]]:
        due = self.round.timer_at()
        timers: list[tuple[float, Peer | None]] = [] if due is None else [(due, None)]
        for peer in self.peers.values():
            at = peer.machine.timer_at() if peer.machine else None
            if at is not None and not peer.dead:
                timers.append((at, peer))
        return timers

    def _ring(self, peer: Peer | None) -> None:
        if peer is None:
            self.round.on_timer(self.now)
            self._pump_round()
        elif peer.machine is not None:
            peer.machine.on_timer(self.now)
            self._pump(peer)

    # --- the asker ------------------------------------------------------------------------------

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
                    if type(event) in self.on:
                        self.at(0.0, self.on.pop(type(event)))
                case Finished(reason):
                    self.finished.append(reason)
                    self.ended = self.now

    def _to_asker(self, peer: Peer, payload: bytes) -> None:
        try:
            incoming = parse(payload)
        except ProtocolError as error:
            self.round.broke(peer.id, "malformed", error.code, self.now)
        else:
            self.round.receive(incoming, self.now)
        self._pump_round()

    # --- a peer ---------------------------------------------------------------------------------

    def _to_peer(self, peer: Peer, payload: bytes) -> None:
        if peer.dead:
            return
        incoming = parse(payload)
        if isinstance(incoming.message, Invite):
            salt = sha256(peer.name.encode() + b"salt").digest()
            model = Model(peer.name, "test", "")
            peer.machine = Participant(incoming, peer.signer, model, salt, self.now)
        elif peer.machine is not None:
            peer.machine.receive(incoming, self.now)
        self._pump(peer)

    def _pump(self, peer: Peer) -> None:
        assert peer.machine is not None
        for effect in peer.machine.effects():
            self._carry_out(peer, peer.machine, effect)

    def _carry_out(self, peer: Peer, machine: Participant, effect: Effect) -> None:
        match effect:
            case Generate():
                self._work(peer, lambda: self._answered(peer, machine))
            case Judge(_, answers, pairs, _):
                verdicts = tuple(peer.judge(answers[a], answers[b]) for a, b in pairs)
                self._work(peer, lambda: machine.judged(verdicts, self.now))
            case Send(_, payload):
                for delay, sent in peer.sends(payload):
                    self.at(delay, lambda b=sent: self._to_asker(peer, b))
            case Finished(reason):
                peer.finished.append(reason)
            case StopWork():
                peer.work += 1

    def _work(self, peer: Peer, done: Callable[[], None]) -> None:
        """The model works, until it is done or told to stop."""
        peer.work += 1
        this = peer.work

        def ready() -> None:
            if peer.work == this and not peer.dead:
                done()
                self._pump(peer)

        self.at(peer.thinks, ready)

    def _answered(self, peer: Peer, machine: Participant) -> None:
        if peer.answer is None:
            machine.failed("no idea", self.now)
        else:
            machine.generated(peer.answer, self.now)

    # --- what came of it ------------------------------------------------------------------------

    @property
    def receipt(self) -> bytes:
        """The one receipt."""
        assert len(self.receipts) == 1
        return self.receipts[0]

    @property
    def result(self) -> Result:
        """The round's result."""
        assert self.round.result is not None
        return self.round.result

    @property
    def faults(self) -> dict[str, str]:
        """By peer name: ``phase/kind`` of each fault, sorted, separated by a blank."""
        assert self.round.core is not None
        found: dict[str, list[str]] = {}
        for fault in self.round.core.faults:
            found.setdefault(self.name(fault), []).append(f"{fault.phase}/{fault.kind}")
        return {name: " ".join(sorted(kinds)) for name, kinds in found.items()}

    def name(self, fault: Fault) -> str:
        """Whose fault it is."""
        return self.peers[fault.peer].name

    @property
    def winner(self) -> str | None:
        """The winning text."""
        opened = self.round.opened
        if opened is None or self.result.winner is None:
            return None
        return opened.answers[self.result.winner]
