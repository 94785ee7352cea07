"""Nodes that are a replica and no more, and exchanges between them that take no time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from protocol.digest import digest
from protocol.errors import SwarmError
from protocol.ids import PeerId
from protocol.ledger import Fork, Run
from swarm.ledger.replica import Replica
from swarm.ledger.responder import Responder
from swarm.ledger.steps import PAUSE, Machine, Outcome, Request, Step, Take
from swarm.ledger.sync import Report, exchange
from tests.swarm.ledger.authors import EPOCH, NOW, fill, replica, signer

T = TypeVar("T")
Call = Callable[[bytes], bytes]


@dataclass
class Traffic:
    """What has gone over the wire.

    Attributes:
        requests, replies: their bodies, in order.
    """

    requests: list[bytes] = field(default_factory=list)
    replies: list[bytes] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(map(len, self.requests)) + sum(map(len, self.replies))


def drive(machine: Machine[T], call: Call, take: Callable[[Take], Sequence[Outcome]]) -> T:
    """What ``machine`` returns, whose every step is carried out at once."""
    step: Step
    try:
        step = next(machine)
        while True:
            if isinstance(step, Request):
                step = machine.send(call(step.body))
            elif isinstance(step, Take):
                step = machine.send(take(step))
            else:
                assert step is PAUSE
                step = machine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result


class Node:
    """A node of tests.

    Args:
        name: whoever has the same one has the same key.
        items: what its replica holds.
        own: what it holds of itself, admitted or not.
    """

    def __init__(
        self,
        name: str,
        *items: Run | Fork,
        own: Sequence[Run] = (),
        now: float = NOW,
        epoch: int = EPOCH,
    ) -> None:
        self.peer = signer(name).peer
        self.now = now
        self.epoch = epoch
        self.replica: Replica = replica(own=self.peer, now=now)
        fill(self.replica, own, now)
        fill(self.replica, items, now)
        self.responder = Responder(self.replica, self.peer, name.encode())
        self.outcomes: list[Outcome] = []

    def take(self, source: PeerId) -> Callable[[Take], Sequence[Outcome]]:
        """The way of what ``source`` sends into the replica."""

        def taken(step: Take) -> Sequence[Outcome]:
            found: list[Outcome] = []
            for item in (*step.forks, *step.runs):
                try:
                    if isinstance(item, Fork):
                        found.append(self.replica.convict(item, self.now))
                    else:
                        found.append(self.replica.take(item, self.now, source))
                except SwarmError as error:
                    found.append(error)
            self.outcomes += found
            return found

        return taken

    def answer(self, peer: PeerId, body: bytes) -> bytes:
        """The reply to a request of ``peer``."""

        def call(_: bytes) -> bytes:
            raise AssertionError("an answer asks for nothing")

        return drive(self.responder.answer(peer, body, self.epoch), call, self.take(peer))

    def runs(self, machine: Machine[T], other: Node, traffic: Traffic | None = None) -> T:
        """What comes of ``machine``, which speaks with ``other``."""

        def call(body: bytes) -> bytes:
            reply = other.answer(self.peer, body)
            if traffic is not None:
                traffic.requests.append(body)
                traffic.replies.append(reply)
            return reply

        return drive(machine, call, self.take(other.peer))

    def meets(self, other: Node, traffic: Traffic | None = None, nonce: int = 0) -> Report:
        """What comes of an exchange with ``other``."""
        some = digest("nonce", nonce)[:8]
        machine = exchange(self.replica, self.peer, other.peer, self.epoch, some)
        return self.runs(machine, other, traffic)
