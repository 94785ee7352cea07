"""A multicast DNS responder and browser in a thread (python-zeroconf, which needs asyncio)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from zeroconf import InterfaceChoice, IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from node.mesh.address import parse_dialable

SERVICE: Final = "_swarmd._tcp.local."
ADDRESSES: Final = 8
"""Addresses in a record."""
TEXT_CHARS: Final = 250
"""An address; with its key it fits into one string of a TXT record."""
INTERFACES_S: Final = 60.0
"""How often the machine's interfaces are looked at."""
TTL_S: Final = 120
"""How long others keep the record of a node that vanished."""
RESOLVE_LIMIT_S: Final = 3.0
RESOLVED_AT_ONCE: Final = 8
RESOLVED_WAITING: Final = 64
CLOSE_LIMIT_S: Final = 2.0

log = logging.getLogger(__name__)

# Its warnings quote whatever anybody on the LAN sends.
logging.getLogger("zeroconf").setLevel(logging.CRITICAL)


class Responder:
    """What this node says and hears on the LAN.

    Args:
        name: of this node's record, unique on the LAN.
        tag: what stands in a record for the swarm; others' records with another tag do not count.
        ready: called once it works.
        report: called with the name of a record and the addresses in it, whenever it appears or
            changes; with none when it is gone.
        interfaces: IPv4 addresses of the interfaces to use; all if None.

    ``ready`` and ``report`` are called in the thread of :meth:`run`, and may block for a while.
    """

    def __init__(
        self,
        name: str,
        tag: bytes,
        ready: Callable[[], None],
        report: Callable[[str, tuple[str, ...]], None],
        interfaces: Sequence[str] | None,
    ) -> None:
        self._name = f"{name}.{SERVICE}"
        self._server = f"{name}.local."
        self._tag = tag
        self._ready = ready
        self._report = report
        self._interfaces = InterfaceChoice.All if interfaces is None else list(interfaces)
        self._texts: tuple[str, ...] = ()
        self._stopped = False
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots = asyncio.Semaphore(RESOLVED_AT_ONCE)
        self._resolving: set[asyncio.Task[None]] = set()

    def announce(self, texts: tuple[str, ...]) -> None:
        """Have these multiaddrs in this node's record, ``ADDRESSES`` of them. From any thread."""
        self._texts = texts[:ADDRESSES]
        self._nudge()

    def stop(self) -> None:
        """Make :meth:`run` take the record back and return. From any thread."""
        self._stopped = True
        self._nudge()

    def _nudge(self) -> None:
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # it has just been closed
                loop.call_soon_threadsafe(self._wake.set)

    def run(self) -> None:
        """Announce and look until stopped.

        Raises:
            OSError, RuntimeError: there is no multicast here.
        """
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        zeroconf = AsyncZeroconf(self._interfaces, ip_version=IPVersion.V4Only)
        try:
            await zeroconf.zeroconf.async_wait_for_start()
            browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[self._changed])
            try:
                self._ready()
                await self._keep(zeroconf)
            finally:
                await browser.async_cancel()
                for task in self._resolving:
                    task.cancel()
                await asyncio.gather(*self._resolving, return_exceptions=True)
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(zeroconf.async_close(), CLOSE_LIMIT_S)

    async def _keep(self, zeroconf: AsyncZeroconf) -> None:
        """Keep the record as it should be, until stopped."""
        record: AsyncServiceInfo | None = None
        texts: tuple[str, ...] = ()
        while True:
            self._wake.clear()
            if self._stopped:
                return
            if self._texts != texts:
                texts = self._texts
                record = await self._put(zeroconf, record, texts)
            try:
                await asyncio.wait_for(self._wake.wait(), INTERFACES_S)
            except TimeoutError:
                await zeroconf.async_update_interfaces()

    async def _put(
        self, zeroconf: AsyncZeroconf, old: AsyncServiceInfo | None, texts: tuple[str, ...]
    ) -> AsyncServiceInfo | None:
        if not texts:
            if old is not None:
                await (await zeroconf.async_unregister_service(old))
            return None
        addresses = [parse_dialable(text) for text in texts]
        record = AsyncServiceInfo(
            SERVICE,
            self._name,
            port=addresses[0].port,
            properties={b"swarm": self._tag, **_keyed(texts)},
            server=self._server,
            host_ttl=TTL_S,
            other_ttl=TTL_S,
            parsed_addresses=[one.host for one in addresses if one.kind in ("ip4", "ip6")],
        )
        if old is None:
            # Without asking whether the name is taken: it is a peer id, and whoever else claims
            # it would only have this node say nothing.
            await (await zeroconf.async_register_service(record, cooperating_responders=True))
        else:
            await (await zeroconf.async_update_service(record))
        return record

    def _changed(
        self,
        zeroconf: Zeroconf,
        service_type: str,
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        """Called by the browser."""
        if name.lower() == self._name.lower():
            return
        if state_change is ServiceStateChange.Removed:
            self._report(name, ())
        elif len(self._resolving) < RESOLVED_WAITING:
            task = asyncio.ensure_future(self._resolve(zeroconf, name))
            self._resolving.add(task)
            task.add_done_callback(self._resolving.discard)

    async def _resolve(self, zeroconf: Zeroconf, name: str) -> None:
        try:
            async with self._slots:
                record = AsyncServiceInfo(SERVICE, name)
                await record.async_request(zeroconf, 1000 * RESOLVE_LIMIT_S)
            texts = texts_in(record.properties, self._tag)
        except Exception as error:
            log.debug("the record %r makes no sense: %r", name, error)
            return
        if texts:
            self._report(name, texts)


def texts_in(properties: Mapping[bytes, bytes | None], tag: bytes) -> tuple[str, ...]:
    """What the properties of a record give as addresses, if it bears ``tag``; not looked at yet."""
    if properties.get(b"swarm") != tag:
        return ()
    found = (properties.get(key) for key in _KEYS)
    return tuple(data.decode("ascii", "replace") for data in found if data)


def _keyed(texts: Sequence[str]) -> dict[bytes, bytes]:
    return dict(zip(_KEYS, (text.encode() for text in texts), strict=False))


_KEYS: Final = tuple(b"a%d" % number for number in range(ADDRESSES))
