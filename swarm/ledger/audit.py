"""Whether logs hold, worked out from nothing but their bytes."""

from __future__ import annotations

from collections import Counter
from typing import Final

from protocol.bundle import Log
from protocol.errors import RefusedError
from protocol.ids import Digest, PeerId
from protocol.ledger import epoch_of, read_entry
from swarm.ledger.admission import (
    CERTIFICATE_BYTES,
    CERTIFIED,
    STAMP_BYTES,
    Admission,
    Stamps,
)
from swarm.ledger.chain import Chain
from swarm.ledger.fingerprint import Fingerprint
from swarm.ledger.replica import Name, Replica

STAMP: Final = "stamp"
CERTIFICATE: Final = "certificate"
NO_TICKET: Final = "none"
_TICKETS: Final = {0: NO_TICKET, STAMP_BYTES: STAMP, CERTIFICATE_BYTES: CERTIFICATE}


def ticket_kind(ticket: bytes) -> str:
    """What kind of a ticket it looks like, in a word: ``stamp``, ``certificate``, ``none``."""
    return _TICKETS.get(len(ticket), "unknown")


def name_of(log: Log) -> Name:
    """Whose log it says to be, and of which epoch.

    Raises:
        DecodeError, TooLargeError: its first entry is none.
    """
    run = log.run if log.fork is None else log.fork.one
    assert run is not None
    entry = read_entry(run.bodies[0])
    return entry.author, entry.epoch


def log_of(replica: Replica, author: PeerId, epoch: int) -> Log:
    """All that ``replica`` holds of a chain, for a file."""
    return Log(replica.run(author, epoch, 0), replica.proof(author, epoch))


class Audit:
    """Checks logs one by one, each as a node does that has never seen anything.

    Args:
        swarm: its name.
        now: Unix time in seconds at which they are to hold.
        admission: checks tickets; see :class:`Keyless`.

    Attributes:
        logs, entries, forks: that hold.
        bytes: of their entries.
        tickets: of the logs that hold, by kind.
    """

    def __init__(self, swarm: str, now: float, admission: Admission) -> None:
        self._swarm = swarm
        self._now = now
        self._admission = admission
        self._names: set[Name] = set()
        self._fingerprint = Fingerprint(epoch_of(now))
        self.logs = 0
        self.entries = 0
        self.forks = 0
        self.bytes = 0
        self.tickets: Counter[str] = Counter()

    @property
    def root(self) -> Digest:
        """Of the logs that hold, see :class:`swarm.ledger.fingerprint.Fingerprint`."""
        return self._fingerprint.root

    def check(self, log: Log) -> Chain:
        """The chain that ``log`` is.

        Raises:
            ProtocolError: it does not hold; as :meth:`Replica.convict` and :meth:`Replica.take`.
        """
        name = name_of(log)
        if name in self._names:
            raise RefusedError("There is another log of this author and epoch.")
        self._names.add(name)
        # Anybody may be without a ticket here, as every node is in its own eyes.
        replica = Replica(self._swarm, self._admission, own=name[0])
        if log.fork is not None:
            replica.convict(log.fork, self._now)
        if log.run is not None:
            replica.take(log.run, self._now)
        if set(replica.chains()) != {name}:
            raise RefusedError("Its entries and its proof are of different logs.")
        chain = replica.chains()[name]
        self._fingerprint.add(chain)
        self.logs += 1
        self.entries += len(chain.bodies)
        self.bytes += chain.size
        self.forks += chain.fork is not None
        self.tickets[ticket_kind(chain.ticket)] += 1
        return chain


class Keyless:
    """What whoever has not the key of a swarm can say of its tickets: stamps are checked, and
    certificates believed.

    Args:
        swarm: its name.
    """

    def __init__(self, swarm: str) -> None:
        self._stamps = Stamps(swarm)

    def quality(self, author: PeerId, epoch: int, ticket: bytes) -> int:
        """As :meth:`swarm.ledger.admission.Admission.quality`."""
        if len(ticket) == CERTIFICATE_BYTES:
            return CERTIFIED
        return self._stamps.quality(author, epoch, ticket)
