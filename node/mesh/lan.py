"""Peers on the same LAN, by multicast DNS service discovery (RFC 6762, RFC 6763).

A node's record carries a hash of its swarm's name and its multiaddrs. Anybody on the LAN can claim
anything there: what is found is only worth a dial, in which the peer has to prove its key.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import trio

from node.mesh.address import parse_dialable
from node.mesh.contacts import LAN, LOOPBACK, reach_of
from node.mesh.mdns import ADDRESSES, CLOSE_LIMIT_S, TEXT_CHARS, Responder
from protocol.digest import digest
from protocol.errors import ConfigError
from protocol.ids import PeerId, peer_text

PEERS: Final = 256
"""Records remembered."""
POLL_S: Final = 5.0
"""How often this node's own addresses are looked at."""
RETRY_S: Final = 60.0
REPORTS: Final = 64
"""Records heard of that wait to be looked at; further ones are dropped."""
REPORT_EVERY_S: Final = 0.05
"""The pace at which addresses are passed on, however fast they come."""

log = logging.getLogger(__name__)

_Report = tuple[str, tuple[str, ...]]


class Lan:
    """Announces this node on the LAN, and finds others of its swarm.

    Args:
        swarm: its name.
        peer: this node.
        addresses: its multiaddrs now, the best first; while there are none, it only looks.
        found: is told each new multiaddr of another peer of the swarm, and once more if that
            peer's record was gone in the meantime.
        interfaces: IPv4 addresses of the interfaces to use; all if None.

    Attributes:
        status: for people: ``on``, or ``off: `` and why.
    """

    def __init__(
        self,
        swarm: str,
        peer: PeerId,
        addresses: Callable[[], tuple[str, ...]],
        found: Callable[[str], None],
        interfaces: Sequence[str] | None = None,
    ) -> None:
        self.status = "off: not started"
        self._tag = digest("lan", swarm).hex()[:16].encode()
        self._peer = peer
        self._addresses = addresses
        self._found = found
        self._interfaces = interfaces
        self._known: OrderedDict[str, frozenset[str]] = OrderedDict()

    async def run(self) -> None:
        """Announce and look until cancelled, then take the announcement back."""
        while True:
            try:
                await self._session()
            except* Exception as errors:
                self._off(errors)
            await trio.sleep(RETRY_S)

    def _off(self, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        reason = str(error) or type(error).__name__
        if self.status != f"off: {reason}":
            log.warning("peers on this LAN are not looked for: %s", reason)
        self.status = f"off: {reason}"

    async def _session(self) -> None:
        """One life of the responder; raises what ended it."""
        send, receive = trio.open_memory_channel[_Report](REPORTS)
        token = trio.lowlevel.current_trio_token()

        def ready() -> None:
            self.status = "on"

        def take(name: str, texts: tuple[str, ...]) -> None:
            with suppress(trio.WouldBlock, trio.ClosedResourceError):
                send.send_nowait((name, texts))

        # Each waits until trio has come round, which bounds what is on the way.
        responder = Responder(
            peer_text(self._peer),
            self._tag,
            lambda: trio.from_thread.run_sync(ready, trio_token=token),
            lambda name, texts: trio.from_thread.run_sync(take, name, texts, trio_token=token),
            self._interfaces,
        )
        self._known.clear()
        async with send, receive, trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_on, receive)
            nursery.start_soon(self._announce, responder)
            await _run_in_thread(responder)
            nursery.cancel_scope.cancel()

    async def _announce(self, responder: Responder) -> None:
        while True:
            responder.announce(tuple(filter(_announced, self._addresses()))[:ADDRESSES])
            await trio.sleep(POLL_S)

    async def _pass_on(self, reports: trio.MemoryReceiveChannel[_Report]) -> None:
        async for name, texts in reports:
            for text in self._new(name, texts):
                self._found(text)
                await trio.sleep(REPORT_EVERY_S)

    def _new(self, name: str, texts: Sequence[str]) -> list[str]:
        """Those of ``texts`` that are worth a dial and were not in that record before."""
        known = self._known.pop(name, frozenset())
        usable = dict.fromkeys(filter(None, map(self._usable, texts[:ADDRESSES])))
        if not usable:
            return []
        self._known[name] = frozenset(usable)
        if len(self._known) > PEERS:
            self._known.popitem(last=False)
        return [text for text in usable if text not in known]

    def _usable(self, text: str) -> str | None:
        """``text`` in its one form, if this node may dial it."""
        try:
            address = parse_dialable(text)
        except ConfigError:
            return None
        ip = address.ip()
        if (
            address.peer == self._peer
            or address.relay is not None
            or ip is None
            or ip.is_unspecified
            or ip.is_multicast
            or ip.is_link_local  # of no use without the name of an interface
            or reach_of(address) < self._nearest()
        ):
            return None
        return str(address)

    def _nearest(self) -> int:
        """Nobody makes this node dial its own machine, unless it is to be reached there alone."""
        own = [reach_of(parse_dialable(text)) for text in self._addresses()]
        return LOOPBACK if own and max(own) == LOOPBACK else LAN


def _announced(text: str) -> bool:
    return len(text) <= TEXT_CHARS and parse_dialable(text).relay is None


async def _run_in_thread(responder: Responder) -> None:
    """Run it until it ends or this is cancelled; then it has a moment to say goodbye."""
    async with trio.open_nursery() as nursery:
        with trio.CancelScope(shield=True) as scope:

            async def stop() -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    responder.stop()
                    scope.deadline = trio.current_time() + 2 * CLOSE_LIMIT_S

            nursery.start_soon(stop)
            await trio.to_thread.run_sync(
                responder.run,
                abandon_on_cancel=True,  # type: ignore[call-arg]  # newer than its stubs
                limiter=trio.CapacityLimiter(1),
            )
        nursery.cancel_scope.cancel()
