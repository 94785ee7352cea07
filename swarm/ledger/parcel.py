"""What travels between two replicas: what one has and the other lacks, as much as fits."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from protocol import limits
from protocol import sync as wire
from protocol.codec import encode
from protocol.ids import PeerId
from protocol.ledger import Fork, Run
from protocol.sync import PROOF, Ask, Head
from swarm.ledger.replica import Name, Replica


@dataclass(frozen=True, slots=True)
class Gift:
    """A part of a chain for somebody who may lack it.

    Attributes:
        first: the entries from this one on (where there are none, the last one), or
            :data:`~protocol.sync.PROOF`.
        ticket: whether the ticket goes along: who does not hold the chain needs it.
    """

    author: PeerId
    epoch: int
    first: int
    ticket: bool


def missing(held: Head | None, other: Head) -> list[Ask]:
    """What whoever has ``held`` of a chain lacks of what somebody else has of it.

    Prefixes are taken to be equal until they prove not to be: then the run that is asked for here
    leaves a gap, and is asked for from its beginning.

    Args:
        held: None where it has nothing.
    """
    entries = held.entries if held is not None else 0
    ticket = held is None or held.ticket != other.ticket
    firsts: list[int] = []
    if held is None or held[1:4] != other[1:4]:
        if other.forked:
            firsts.append(PROOF)
        # Whoever has not heard of a fork has nothing to say beyond it.
        heard = held is None or other.forked >= held.forked
        if heard and other.entries > entries:
            firsts.append(entries)
        elif held is not None and held[1:3] == other[1:3]:
            firsts.append(0)
    if ticket and not firsts:
        if other.entries:
            firsts.append(max(0, min(entries, other.entries) - 1))
        elif other.forked:
            firsts.append(PROOF)
    return [Ask(other.id, first, ticket and not at) for at, first in enumerate(firsts)]


def part(replica: Replica, name: Name, first: int, ticket: bool) -> Run | Fork | None:
    """What an ask or a gift stands for; None where there is nothing."""
    if first == PROOF:
        proof = replica.proof(*name)
        if proof is None or ticket:
            return proof
        return Fork(_bare(proof.one), proof.other)
    run = replica.run(*name, first)
    return run if run is None or ticket else _bare(run)


def _bare(run: Run) -> Run:
    return msgspec.structs.replace(run, ticket=b"")


class Parcel:
    """Runs and proofs that fit into one message.

    Attributes:
        runs, forks: so far.
        entries: in them.
    """

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.forks: list[Fork] = []
        self.entries = 0
        self._room = limits.SYNC_BYTES - wire.FRAME_BYTES

    def add(self, item: Run | Fork) -> bool:
        """Put ``item`` in. False where it does not fit, which one alone always does."""
        size = len(encode(item))
        if size > self._room or len(self.runs) + len(self.forks) == wire.ASKS:
            return False
        self._room -= size
        if isinstance(item, Fork):
            self.forks.append(item)
            self.entries += len(item.one.bodies) + len(item.other.bodies)
        else:
            self.runs.append(item)
            self.entries += len(item.bodies)
        return True
