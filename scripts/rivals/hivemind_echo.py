"""Echo over hivemind's peer-to-peer daemon: ``server PORT``, or ``client ADDRESS``."""

from __future__ import annotations

import asyncio
import os
import sys

from hivemind.p2p import P2P, P2PContext, PeerID
from hivemind.proto.runtime_pb2 import ExpertRequest, ExpertResponse
from hivemind.utils.multiaddr import Multiaddr
from orders import BULK_AT_ONCE, BULK_BYTES, Slice, ready, until_told_to_end

QUIET = {
    "use_ipfs": False,
    "use_relay": False,
    "use_auto_relay": False,
    "nat_port_map": False,
}


async def echo(request: ExpertRequest, context: P2PContext) -> ExpertResponse:
    return ExpertResponse(metadata=request.metadata)


async def sink(request: ExpertRequest, context: P2PContext) -> ExpertResponse:
    return ExpertResponse()


async def serve(port: int) -> None:
    p2p = await P2P.create(host_maddrs=[f"/ip4/127.0.0.1/tcp/{port}"], dht_mode="server", **QUIET)
    await p2p.add_protobuf_handler("echo", echo, ExpertRequest)
    await p2p.add_protobuf_handler("sink", sink, ExpertRequest)
    ready(str((await p2p.get_visible_maddrs())[0]))
    await asyncio.to_thread(until_told_to_end)
    await p2p.shutdown()


async def measure(address: str) -> None:
    p2p = await P2P.create(
        initial_peers=[Multiaddr(address)], host_maddrs=["/ip4/127.0.0.1/tcp/0"], **QUIET
    )
    peer = PeerID.from_base58(address.rpartition("/")[2])

    async def call(method: str, data: bytes) -> bytes:
        request = ExpertRequest(metadata=data)
        return (await p2p.call_protobuf_handler(peer, method, request, ExpertResponse)).metadata

    async def upload(one: Slice) -> None:
        bulk = os.urandom(BULK_BYTES)
        while one.going:
            await call("sink", bulk)
            one.uploaded()

    ready(address)
    while line := await asyncio.to_thread(sys.stdin.readline):
        one = Slice(line)
        await call("echo", one.payload)
        one.begin()
        uploads = [upload(one) for _ in range(BULK_AT_ONCE if one.beside_bulk else 0)]
        running = asyncio.gather(*uploads)
        while one.going:
            one.sent()
            one.returned(await call("echo", one.payload))
        one.report()
        await running
    await p2p.shutdown()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[2])) if sys.argv[1] == "server" else measure(sys.argv[2]))
