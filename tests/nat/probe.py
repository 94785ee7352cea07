"""Plain sockets inside a lab: who sees whom, and as what."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from netlab import LISTEN_PORT, Lab

PORT = 9999
DROPPED_S = 0.15
"""Silence for so long means that what was sent was dropped; the lab itself takes microseconds."""

Address = tuple[str, int]


def listener(lab: Lab, host: str, port: int = PORT) -> socket.socket:
    """A socket that listens at ``host``."""

    def make() -> socket.socket:
        made = _reusable()
        made.bind(("0.0.0.0", port))
        made.listen()
        made.settimeout(5)
        return made

    return lab.inside(host, make)


def dial(
    lab: Lab, host: str, target: Address, port: int = LISTEN_PORT, limit_s: float = 5.0
) -> socket.socket:
    """Connect from ``port`` at ``host`` to ``target``."""

    def make() -> socket.socket:
        made = _reusable()
        try:
            made.bind(("0.0.0.0", port))
            made.settimeout(limit_s)
            made.connect(target)
        except BaseException:
            made.close()
            raise
        return made

    return lab.inside(host, make)


def _reusable() -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return made


@contextmanager
def flow(lab: Lab, host: str, observer: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection from ``host`` to a listener at ``observer``: its two ends."""
    with (
        listener(lab, observer) as door,
        dial(lab, host, (lab.address(observer), PORT)) as near,
        door.accept()[0] as far,
    ):
        near.settimeout(5)
        far.settimeout(5)
        yield near, far


def seen_as(lab: Lab, host: str) -> list[Address]:
    """As what each observer sees connections from the listening port of ``host``."""
    seen = []
    for observer in lab.observers:
        with flow(lab, host, observer) as (_, far):
            seen.append(far.getpeername())
    return seen


def passes(sender: socket.socket, receiver: socket.socket) -> bool:
    """Whether bytes get through; True or a timeout."""
    sender.sendall(b"hello")
    return receiver.recv(64) == b"hello"


def dropped(sender: socket.socket, receiver: socket.socket) -> bool:
    """Whether bytes do not get through."""
    sender.sendall(b"hello")
    return not select.select([receiver], [], [], DROPPED_S)[0]


def dial_both(lab: Lab, targets: dict[str, Address], limit_s: float = 5.0) -> bool:
    """Dial each other from the listening ports at once, as a hole punch does.

    Args:
        targets: for each of two hosts, what it dials.

    Returns:
        Whether they met.
    """
    ends = {host: lab.inside(host, _reusable) for host in targets}
    try:
        for end in ends.values():
            end.bind(("0.0.0.0", LISTEN_PORT))
            end.setblocking(False)
        for host, target in targets.items():
            with suppress(BlockingIOError):
                ends[host].connect(target)
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if all(_connected(end) for end in ends.values()):
                return True
            time.sleep(0.01)
        return False
    finally:
        for end in ends.values():
            end.close()


def _connected(end: socket.socket) -> bool:
    try:
        end.getpeername()
    except OSError:
        return False
    return True
