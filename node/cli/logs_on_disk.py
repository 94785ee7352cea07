"""The logs in this machine's database, whether or not a node is running."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

from node.cli.text import note
from node.config import Config
from node.replication.database import Kept, read_only
from protocol.errors import ProtocolError, RefusedError, UsageError
from protocol.ids import PeerId, is_named, peer_text
from swarm.ledger.admission import Stamps
from swarm.ledger.chain import Chain
from swarm.ledger.replica import Replica

T = TypeVar("T")


class LogsOnDisk:
    """The logs of one swarm.

    Attributes:
        swarm: the configured one; where none is, the only one of which there are logs.
        count: how many of them there are.
        damaged: those that were passed over since.

    Raises:
        StoreError: there is no database, or it cannot be read. Everything raises that.
        UsageError: there are logs of several swarms.
    """

    def __init__(self, settings: Config) -> None:
        self._data_dir = settings.data_dir
        counts = Counter(one.swarm for one in read_only(self._data_dir))
        self.swarm = settings.swarm
        if counts and self.swarm not in counts and settings.sources["swarm"] == "default":
            if len(counts) > 1:
                raise UsageError(f"There are logs of {', '.join(sorted(counts))}: give --swarm.")
            (self.swarm,) = counts
        self.count = counts[self.swarm]
        self.damaged = 0

    def kept(self) -> Iterator[Kept]:
        """All of them, as they are on the disk."""
        return (one for one in read_only(self._data_dir) if one.swarm == self.swarm)

    def replicas(self, peer: str = "") -> Iterator[Replica]:
        """Those that are sound, each by itself; a note on stderr for each other.

        Args:
            peer: either end of the peer id of their author.
        """
        for kept in self.kept():
            if not is_named(peer, peer_text(kept.author)):
                continue
            try:
                yield restored(kept)
            except ProtocolError as error:
                self._pass_over(kept.author, kept.epoch, error)

    def described(self, say: Callable[[Chain], T], peer: str = "") -> Iterator[T]:
        """What ``say`` says of them, as :meth:`replicas`."""
        for replica in self.replicas(peer):
            for (author, epoch), chain in replica.chains().items():
                try:
                    yield say(chain)
                except ProtocolError as error:
                    self._pass_over(author, epoch, error)

    def _pass_over(self, author: PeerId, epoch: int, error: ProtocolError) -> None:
        self.damaged += 1
        note(f"the log of {peer_text(author)} in epoch {epoch} is damaged. {error.user_text()}")


def restored(kept: Kept) -> Replica:
    """A replica of one log.

    Raises:
        ProtocolError: it has been damaged since it was written.
    """
    if not kept.intact:
        raise RefusedError("What is kept of it is not what was written.")
    replica = Replica(kept.swarm, Stamps(kept.swarm), kept.author)
    replica.restore(
        kept.author,
        kept.epoch,
        kept.bodies,
        kept.signatures,
        kept.ticket,
        kept.quality,
        kept.fork,
    )
    return replica
