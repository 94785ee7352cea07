"""Echo over lattica: ``server PORT`` or ``client ADDRESS``; its state goes where it is started."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque

from lattica import ConnectionHandler, Lattica, rpc_method
from orders import BULK_AT_ONCE, BULK_BYTES, Slice, ready, until_told_to_end

LIMIT_S = 30


class Echo(ConnectionHandler):
    """What the server serves. Handlers of our own, since the library's would pickle."""

    @rpc_method
    def echo(self, data):
        raise NotImplementedError

    def _handle_echo(self, data: bytes) -> bytes:
        return data

    @rpc_method
    def sink(self, data):
        raise NotImplementedError

    def _handle_sink(self, data: bytes) -> bytes:
        return b"\0"


def node(name: str, port: int, bootstraps: list[str]) -> Lattica:
    return (
        Lattica.builder()
        .with_listen_addrs([f"/ip4/127.0.0.1/tcp/{port}"])
        .with_bootstraps(bootstraps)
        .with_mdns(False)
        .with_upnp(False)
        .with_key_path(f"{name}-key")
        .with_dht_db_path(f"{name}-dht")
        .with_storage_path(f"{name}-storage")
        .build()
    )


def serve(port: int) -> None:
    lattica = node("server", port, [])
    service = Echo(lattica)
    ready(f"/ip4/127.0.0.1/tcp/{port}/p2p/{lattica.peer_id()}")
    until_told_to_end()
    del service


def measure(address: str) -> None:
    lattica = node("client", 0, [address])
    peer = address.rpartition("/")[2]
    began = time.monotonic()
    while peer not in lattica.get_all_peers():
        if time.monotonic() - began > LIMIT_S:
            raise SystemExit("lattica: the server is not connected")
        time.sleep(0.05)
    client = lattica.get_client(peer)
    ready(address)
    for line in sys.stdin:
        one = Slice(line)
        client.call("Echo.echo", one.payload).result(timeout=LIMIT_S)
        one.begin()
        uploads = threading.Thread(target=upload, args=(client, one))
        if one.beside_bulk:
            uploads.start()
        while one.going:
            one.sent()
            one.returned(client.call("Echo.echo", one.payload).result(timeout=LIMIT_S))
        one.report()
        if one.beside_bulk:
            uploads.join()


def upload(client, one: Slice) -> None:
    bulk = os.urandom(BULK_BYTES)
    waiting = deque(client.call("Echo.sink", bulk) for _ in range(BULK_AT_ONCE))
    while waiting:
        waiting.popleft().result(timeout=LIMIT_S)
        one.uploaded()
        if one.going:
            waiting.append(client.call("Echo.sink", bulk))


if __name__ == "__main__":
    if sys.argv[1] == "server":
        serve(int(sys.argv[2]))
    else:
        measure(sys.argv[2])
    os._exit(0)  # its threads would keep the process
