"""The addresses of this machine, and when they change."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from typing import Final

import ifaddr
import trio

LOOK_S: Final = 3.0
"""A laptop that has moved is noticed within this time; the kernel is asked, nothing is sent."""

log = logging.getLogger(__name__)

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def interfaces() -> frozenset[Interface]:
    """The addresses of this machine with the networks they are in; no loopback, no link-local."""
    found: set[Interface] = set()
    for adapter in ifaddr.get_adapters():
        for one in adapter.ips:
            text = one.ip if isinstance(one.ip, str) else one.ip[0]
            interface = ipaddress.ip_interface(f"{text.partition('%')[0]}/{one.network_prefix}")
            if not interface.is_loopback and not interface.is_link_local:
                found.add(interface)
    return frozenset(found)


async def watch(changed: Callable[[frozenset[Interface]], None]) -> None:
    """Tell of every change, until cancelled."""
    known = interfaces()
    while True:
        await trio.sleep(LOOK_S)
        try:
            now = interfaces()
        except OSError as error:
            # There may be no descriptor left for a moment.
            log.warning("the addresses of this machine cannot be read: %s", error)
            continue
        if now != known:
            known = now
            changed(now)
