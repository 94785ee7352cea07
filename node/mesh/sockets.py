"""TCP sockets that listen, and that dial from the port on which this node listens.

A NAT gives each local port an outside address. Only a connection made *from the listening port*
shows which one others have to dial, and opens it to them; so both share the port, which Linux
allows where all sockets on it say SO_REUSEPORT.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from typing import Final

import trio

from node.mesh.address import Address

BACKLOG: Final = 256
NOT_SENT_LOW: Final = 128 << 10
"""Bytes the kernel takes beyond what is under way: a small message waits behind no more."""
DEAD_S: Final = 15.0
"""How long the kernel waits for what was sent to be acknowledged; a pong is waited for as long."""
_TAKEN: Final = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EINVAL})


async def listen(address: Address) -> trio.SocketListener:
    """Listen on ``address``, port 0 for any free one.

    Raises:
        OSError: it is taken, by this program or another, or not ours.
    """
    family = socket.AF_INET6 if address.kind == "ip6" else socket.AF_INET
    # A first socket that shares with nobody: the kernel lets any process of the same user join a
    # port that is shared, and two nodes on one port would each get half of the connections.
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind(address.socket)
        probe.listen(1)
        port: int = probe.getsockname()[1]
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        await sock.bind((address.host, port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return trio.SocketListener(sock)


async def dial(target: Address, source: Address | None = None) -> trio.SocketStream:
    """Connect to ``target``, from ``source`` if that is free towards it, else from any port.

    Raises:
        OSError: it cannot be reached.
    """
    if source is not None:
        try:
            return await dial_from(target, source)
        except OSError as error:
            # Another connection between the same two sockets is there, or has just been.
            if error.errno not in _TAKEN:
                raise
    return tuned(await trio.open_tcp_stream(target.host, target.port))


async def dial_from(target: Address, source: Address) -> trio.SocketStream:
    """Connect to ``target`` from ``source`` and no other port.

    Raises:
        OSError: it cannot be reached, or the port is in use towards it.
    """
    family = socket.AF_INET6 if source.kind == "ip6" else socket.AF_INET
    found = await trio.socket.getaddrinfo(
        target.host, target.port, family=family, type=socket.SOCK_STREAM
    )
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        await sock.bind(source.socket)
        await sock.connect(found[0][4])
    except BaseException:
        sock.close()
        raise
    return tuned(trio.SocketStream(sock))


def tuned(stream: trio.SocketStream) -> trio.SocketStream:
    """``stream`` without delays of the kernel's own."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_LOW)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * DEAD_S))
    return stream


def abort(stream: trio.SocketStream) -> None:
    """Have the end of ``stream`` be a reset, so that nothing of it lingers.

    A connection that died silently would otherwise keep the listening port busy towards that peer
    for minutes, and no hole to it could be punched from there.
    """
    with contextlib.suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
