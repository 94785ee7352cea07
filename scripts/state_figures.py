"""What exchanges of logs cost in bytes, and single runs in time: ``scripts/bench state``.

Times are those of a core, which does nothing else meanwhile.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar, cast

import msgspec
import state_authors as authors
import state_hostile as hostile

from protocol import sync as wire
from protocol.codec import decode, encode
from protocol.digest import digest
from protocol.errors import (
    AdmissionError,
    BadSignatureError,
    DecodeError,
    GapError,
    ProtocolError,
    UpdateError,
)
from protocol.ids import PeerId
from protocol.ledger import Capability, Run, next_entry, sign
from swarm.ledger.admission import STAMP_BITS, Admission, Stamps
from swarm.ledger.replica import Replica
from swarm.ledger.responder import Responder
from swarm.ledger.state import reading
from swarm.ledger.steps import Machine, Outcome, Request, Step, Take
from swarm.ledger.sync import Report, exchange

T = TypeVar("T")

BESIDE: Final = 64 + 3
"""Bytes that count as missing with each entry beside its own: a signature, and three to name it."""
STALL_MS: Final = 20.0
"""How long a node may keep everything else waiting."""
BATCH_S: Final = 0.02
BATCH: Final = 8
_NONCE: Final = b"exchange"
_JUNK: Final = digest("junk") * 7


@dataclass(frozen=True, slots=True)
class Row:
    """A figure.

    Attributes:
        samples: each measurement of it, where there are several; the figure is their median, or
            their mean.
        target: what it is to be at most; None where nothing was set.
        more: what else was seen, by name.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    samples: Sequence[float] = ()
    more: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def median(
        cls, name: str, samples: Sequence[float], unit: str, target: float | None = None
    ) -> Row:
        """The median of ``samples``."""
        return cls(name, statistics.median(samples), unit, target, tuple(samples))

    @property
    def holds(self) -> bool | None:
        """Whether it is what it is to be; None where nothing was set."""
        return None if self.target is None else self.value <= self.target


# --- exchanges, in memory -------------------------------------------------------------------------


class Node:
    """A replica that exchanges with others at once."""

    def __init__(self, name: str, runs: Sequence[Run], admitting: Admission) -> None:
        self.peer = authors.signer(name).peer
        self.replica = authors.replica(runs, admitting)
        self._responder = Responder(self.replica, self.peer, name.encode())

    def meet(self, other: Node) -> Report:
        """Bring both to hold the same."""
        steps = exchange(self.replica, self.peer, other.peer, authors.EPOCH, _NONCE)
        return self._drive(steps, other.peer, partial(other.answer, self.peer))

    def answer(self, peer: PeerId, body: bytes) -> bytes:
        """The reply to a request of ``peer``."""
        return self._drive(self._responder.answer(peer, body, authors.EPOCH), peer)

    def _drive(
        self, steps: Machine[T], peer: PeerId, call: Callable[[bytes], bytes] | None = None
    ) -> T:
        answer: bytes | Sequence[Outcome] | None = None
        try:
            while True:
                step: Step = steps.send(answer)
                answer = None
                if isinstance(step, Request):
                    assert call is not None
                    answer = call(step.body)
                elif isinstance(step, Take):
                    assert not step.forks, "honest authors do not fork"
                    answer = [self._take(one, peer) for one in step.runs]
        except StopIteration as end:
            result: T = end.value
            return result

    def _take(self, run: Run, peer: PeerId) -> Outcome:
        try:
            return self.replica.take(run, authors.NOW, peer)
        except ProtocolError as error:
            return error


def exchanges(logs: Sequence[authors.Author], entries: int) -> list[Row]:
    """What an exchange costs where all is the same, and where one in a hundred entries is new.

    Args:
        logs: of which the first ``entries`` are not new. The first hundredth of them has as many
            again, all others one more.
    """
    admitting = authors.admission("certificates")
    old = [one.run(0, entries, authors.ticket(admitting, one.peer)) for one in logs]
    one, other = (Node(name, old, admitting) for name in ("one", "other"))
    report = one.meet(other)
    assert report.alike
    size = float(report.sent + report.received)
    rows = [Row("sync of identical states", size, "B", 64, more={"round_trips": report.requests})]
    fresh = max(1, len(logs) * entries // 100)
    among = random.Random(1).sample(logs, min(fresh, len(logs)))
    few = logs[: _few(len(logs))]
    for name, target, runs in (
        ("1 % new, in all authors", 1.2, [one.run(entries, entries + 1) for one in among]),
        ("1 % new, in few authors", 1.05, [one.run(entries, 2 * entries) for one in few]),
    ):
        missing = sum(len(body) + BESIDE for run in runs for body in run.bodies)
        costs: dict[str, float] = {}
        for way, holds, lacks in (("fetched", "other", "one"), ("given", "one", "other")):
            nodes = {
                holds: Node(holds, [*old, *runs], admitting),
                lacks: Node(lacks, old, admitting),
            }
            report = nodes["one"].meet(nodes["other"])
            assert nodes["one"].meet(nodes["other"]).alike
            costs[way] = (report.sent + report.received) / missing
            costs[f"{way}_round_trips"] = report.requests
        rows.append(Row(name, max(costs["fetched"], costs["given"]), "x", target, more=costs))
    return rows


def build(count: int, entries: int) -> list[authors.Author]:
    """The logs that :func:`exchanges` needs; the first ``entries`` of each are for all."""
    few = _few(count)
    return [
        authors.author(number, 2 * entries if number < few else entries + 1)
        for number in range(count)
    ]


def _few(count: int) -> int:
    return max(1, count // 100)


# --- single runs ----------------------------------------------------------------------------------


def refusals(turns: int) -> list[Row]:
    """How long it takes to refuse what is refused.

    Args:
        turns: measurements of each, of many refusals.
    """
    who = authors.author(0, 3)
    certificates, stamps = authors.admission("certificates"), Stamps(authors.SWARM, STAMP_BITS)
    held = authors.replica([who.run(0, 1, authors.ticket(certificates, who.peer))], certificates)
    stamped = Replica(authors.SWARM, stamps)
    good = who.run(1, 2)
    # A signature that is one, of something else: others show at once.
    other = who.run(0, 1).signature
    forged = msgspec.structs.replace(good, signature=other)
    fresh = next_entry(who.bodies[0], int(authors.NOW), Capability(b"\x00\x01\x07\x01\x00\x01"))
    bent = sign(who.signer, [encode(fresh)])
    stranger = authors.author(1, 1)
    dear = hostile.dear_runs(certificates)["entries"]
    longest = msgspec.structs.replace(dear, signature=other)
    request = cast("type[wire.AnyRequest]", wire.AnyRequest)

    def take(run: Run, by: Replica = held) -> Callable[[], object]:
        return lambda: by.take(run, authors.NOW)

    cases: list[tuple[str, type[ProtocolError], float | None, Callable[[], object]]] = [
        ("junk for an entry", DecodeError, 10, take(Run((_JUNK,), other))),
        ("junk for a message", DecodeError, 10, lambda: decode(_JUNK, request)),
        ("a bad signature", BadSignatureError, 200, take(forged)),
        ("a run with a gap", GapError, None, take(who.run(2, 3))),
        ("an author without a ticket", AdmissionError, None, take(stranger.run(0, 1))),
        ("a forged certificate", AdmissionError, None, take(stranger.run(0, 1, other))),
        ("a forged stamp", AdmissionError, None, take(stranger.run(0, 1, other[:8]), stamped)),
        ("a hostile update, signed", UpdateError, None, take(bent)),
        ("the longest run, badly signed", BadSignatureError, None, take(longest)),
    ]
    return [
        Row.median(
            f"refuse {name}", [1e6 * _refusing(done, kind) for _ in range(turns)], "µs", target
        )
        for name, kind, target, done in cases
    ]


def _refusing(refused: Callable[[], object], kind: type[ProtocolError]) -> float:
    """Seconds of a core that it takes, on average over a short time."""
    count, began = 0, time.thread_time()
    while (took := time.thread_time() - began) < BATCH_S:
        for _ in range(BATCH):
            try:
                refused()
            except kind:
                count += 1
            else:
                raise AssertionError("It was not refused.")
    return took / count


def dearest(turns: int) -> list[Row]:
    """How long the dearest runs keep everything else waiting: when they are taken, which is done in
    one piece, and when what their authors say is read, which has pauses.

    Args:
        turns: measurements of each.
    """
    admitting = authors.admission("certificates")
    taken: dict[str, list[float]] = {}
    read: dict[str, list[float]] = {}
    for name, run in hostile.dear_runs(admitting).items():
        for _ in range(turns):
            held = authors.replica((), admitting)
            began = time.thread_time()
            change = held.take(run, authors.NOW)
            taken.setdefault(name, []).append(1e3 * (time.thread_time() - began))
            chain = held.chains()[change.author, change.epoch]
            read.setdefault(name, []).append(1e3 * _longest_piece(reading(chain)))
    return [
        _worst("take the dearest run there is", taken),
        _worst("read what its author says, one piece", read),
    ]


def _longest_piece(steps: Iterator[object]) -> float:
    """Seconds of a core between two pauses."""
    longest, began = 0.0, time.thread_time()
    for _ in steps:
        now = time.thread_time()
        longest, began = max(longest, now - began), now
    return max(longest, time.thread_time() - began)


def _worst(name: str, found: Mapping[str, Sequence[float]]) -> Row:
    """In ms, of the kind of which it takes longest."""
    medians = {kind: statistics.median(times) for kind, times in found.items()}
    kind = max(medians, key=lambda one: medians[one])
    return Row(name, medians[kind], "ms", STALL_MS, found[kind], medians)
