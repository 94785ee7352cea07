"""How ``scripts/bench mesh`` tells a contender what to do: a line of JSON in, one out.

A contender is a server and a client, each a process. The server prints its address once it
listens, and ends with its standard input. The client is given that address, connects, and carries
out one order a line, so that contenders can take turns. Nothing here needs more than the standard
library: a rival runs in an environment of its own.
"""

from __future__ import annotations

import json
import os
import sys
import time

BULK_BYTES = (1 << 20) - 64
"""1 MiB, less the room for a header: the mesh takes 1 MiB with all that is in it."""
BULK_AT_ONCE = 4
"""Uploads under way while small messages are timed beside them."""


class Slice:
    """One order: echo for a while, alone or beside bulk.

    Attributes:
        size: bytes of each payload, which the server sends back.
        beside_bulk: meanwhile upload ``BULK_BYTES`` over and over, ``BULK_AT_ONCE`` at once.
        payload: random bytes of that size.
    """

    def __init__(self, line: str) -> None:
        order = json.loads(line)
        self.size: int = order["size"]
        self.beside_bulk: bool = order["beside_bulk"]
        self.payload = os.urandom(self.size)
        self._seconds: float = order["seconds"]
        self._latencies: list[float] = []
        self._uploads = 0
        self._began = self._sent = 0.0

    def begin(self) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    @property
    def going(self) -> bool:
        """Whether there is time left."""
        return time.perf_counter() - self._began < self._seconds

    def sent(self) -> None:
        """A payload is about to leave."""
        self._sent = time.perf_counter()

    def returned(self, payload: bytes) -> None:
        """It came back."""
        self._latencies.append(1000.0 * (time.perf_counter() - self._sent))
        if len(payload) != self.size:
            raise SystemExit(f"{len(payload)} bytes came back, of {self.size}")

    def uploaded(self) -> None:
        """One bulk payload has arrived."""
        self._uploads += self.going

    def report(self) -> None:
        """Print what was measured."""
        seconds = time.perf_counter() - self._began
        print(
            json.dumps(
                {
                    "seconds": seconds,
                    "latencies_ms": self._latencies,
                    "bulk_mb_s": self._uploads * BULK_BYTES / seconds / 1e6,
                }
            ),
            flush=True,
        )


def ready(address: str) -> None:
    """Say that the server listens at ``address``, or that the client is connected."""
    print(address, flush=True)


def until_told_to_end() -> None:
    """Wait for the end of standard input."""
    sys.stdin.read()
