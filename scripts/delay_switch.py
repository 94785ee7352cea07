"""A learning switch in user space that holds every frame for a time: a network with distance.

    python delay_switch.py --ms MS PORT...

Joins interfaces of the namespace it runs in. Prints one line once it forwards, and runs until it
is killed. For kernels without ``tc netem``. Frames must come with finished checksums and no larger
than the MTU, so the far ends of the ports need their offloads off.
"""

from __future__ import annotations

import argparse
import select
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

FRAMES: Final = 50_000
"""At most so many are on their way; more are dropped, as by any switch."""
_ALL_PROTOCOLS: Final = 0x0003
_FRAME_BYTES: Final = 65_536
_BURST: Final = 64
"""Frames read from a port before it is the next one's turn."""
_MULTICAST: Final = 0x01


class DelayLine:
    """Where frames go, and when. Ports are any hashable names of the caller, here descriptors.

    Args:
        ports: the ports.
        delay_s: seconds each frame is held.
    """

    def __init__(self, ports: Sequence[int], delay_s: float) -> None:
        self._ports = tuple(ports)
        self._delay_s = delay_s
        self._learned: dict[bytes, int] = {}
        self._held: deque[tuple[float, tuple[int, ...], bytes]] = deque()

    def enter(self, port: int, frame: bytes, now: float) -> None:
        """A frame came in at ``port``."""
        target, source = frame[:6], frame[6:12]
        self._learned[source] = port
        known = None if target[0] & _MULTICAST else self._learned.get(target)
        if known is None:
            ways = tuple(other for other in self._ports if other != port)
        else:
            ways = (known,) if known != port else ()
        if ways and len(self._held) < FRAMES:
            self._held.append((now + self._delay_s, ways, frame))

    def due_in(self, now: float) -> float | None:
        """Seconds until a frame has to leave; None while none is held."""
        return max(0.0, self._held[0][0] - now) if self._held else None

    def leaving(self, now: float) -> Iterator[tuple[int, bytes]]:
        """Take out the frames that are due: (port, frame), in the order in which they came."""
        while self._held and self._held[0][0] <= now:
            _, ways, frame = self._held.popleft()
            for way in ways:
                yield way, frame


def run(interfaces: Sequence[str], delay_s: float) -> None:
    """Forward between ``interfaces`` for ever."""
    ports: dict[int, socket.socket] = {}
    ready = select.epoll()
    for interface in interfaces:
        port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
        port.bind((interface, 0))
        port.setblocking(False)
        ports[port.fileno()] = port
        ready.register(port, select.EPOLLIN)
    line = DelayLine(tuple(ports), delay_s)
    print("forwarding", flush=True)
    while True:
        for number, _ in ready.poll(line.due_in(time.monotonic())):
            _take(ports[number], number, line)
        for number, frame in line.leaving(time.monotonic()):
            # Lost where the port is down or its queue full, as on a wire.
            with suppress(OSError):
                ports[number].send(frame)


def _take(port: socket.socket, number: int, line: DelayLine) -> None:
    for _ in range(_BURST):
        try:
            frame, origin = port.recvfrom(_FRAME_BYTES)
        except OSError:  # none left, or the port went down
            return
        if origin[2] != socket.PACKET_OUTGOING and len(frame) >= 12:
            line.enter(number, frame, time.monotonic())


def main() -> None:
    """Read the arguments and forward."""
    parser = argparse.ArgumentParser(description="Join interfaces, with a delay.")
    parser.add_argument("--ms", type=float, required=True, help="held this long, one way")
    parser.add_argument("ports", nargs="+", metavar="PORT")
    options = parser.parse_args()
    run(options.ports, options.ms / 1000)


if __name__ == "__main__":
    main()
