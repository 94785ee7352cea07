"""Members of a swarm find each other by the DHT, whoever dies, lies, floods or stays silent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from hashlib import sha256
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from node.mesh import desk as desk_module
from node.mesh import dht as dht_module
from node.mesh.desk import Desk, read_frame
from protocol import limits
from protocol.codec import decode, encode
from protocol.dht import (
    REPLY_BYTES,
    REQUEST_BYTES,
    Declined,
    Find,
    Found,
    Named,
    Post,
    Posted,
    Reply,
)
from protocol.errors import RefusedError
from protocol.frames import encode_frame
from protocol.ids import PeerId, peer_text
from protocol.presence import PRESENCE_S, read
from swarm.kademlia import Contact, K, Table, node_point, swarm_point
from swarm.noticeboard import Noticeboard
from tests.mesh.dht_nodes import (
    NOW,
    Handler,
    MemoryCarrier,
    MemoryNetwork,
    MemoryNode,
    MemoryWire,
    Node,
    RealNode,
    leave,
    peer_of,
    presence,
    wire_from,
)

HERE = swarm_point("test")


@contextlib.asynccontextmanager
async def crowd(
    count: int, clients: int = 0, liar: Handler | None = None, liars: int = 0
) -> AsyncIterator[list[MemoryNode]]:
    """Nodes in virtual time that have got to know each other by way of the first.

    Args:
        clients: how many of them, the last, only ask.
        liar: how ``liars`` of them, from the second on, answer.
    """
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(nursery)
        nodes = [network.node(f"node {n}", serves=n < count - clients) for n in range(count)]
        for number, node in enumerate(nodes):
            if number:
                node.rendezvous.add(nodes[0].peer, nodes[0].addresses)
            if liar is not None and 1 <= number <= liars:
                node.handle = liar
            nursery.start_soon(node.rendezvous.run)
        await trio.sleep(60)
        yield nodes
        nursery.cancel_scope.cancel()


def peers_of(envelopes: Iterable[bytes]) -> set[PeerId]:
    return {read(envelope).peer for envelope in envelopes}


async def ask(node: Node, request: Find | Post | bytes, name: str = "stranger") -> Reply | None:
    """What ``node`` answers to the node of that name, None if it cuts the stream."""
    here, there = wire_from(name)
    data = request if isinstance(request, bytes) else encode_frame(encode(request))
    reply: Reply | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.handle, there)
        with contextlib.suppress(trio.BrokenResourceError):
            await here.write(data)
            reply = decode(await read_frame(here, REPLY_BYTES), Reply, REPLY_BYTES)  # type: ignore[arg-type]
        await here.reset()
    return reply


async def asked(node: Node, key: bytes = HERE) -> Found:
    reply = await ask(node, Find(key, ()))
    assert isinstance(reply, Found)
    return reply


@pytest.fixture
async def server() -> Node:
    """A node on its own that serves."""
    node = Node("server")
    node.addresses = ("/ip4/127.0.0.1/tcp/1",)
    return node


# --- finding ----------------------------------------------------------------------------------


async def test_everybody_finds_everybody(autojump_clock: MockClock) -> None:
    async with crowd(16) as nodes:
        for node in nodes:
            assert await node.rendezvous.announce(presence(node.name)) >= K
        everybody = {node.peer for node in nodes}
        for node in nodes:
            node.asked = 0
            assert peers_of(await node.rendezvous.find("test")) == everybody - {node.peer}
            assert node.asked < 16
        assert await nodes[3].rendezvous.lookup(nodes[13].peer) == presence("node 13").envelope
        assert await nodes[3].rendezvous.lookup(peer_of("nobody")) is None
        assert await nodes[3].rendezvous.find("another") == []


async def test_after_a_third_is_killed_the_rest_still_finds_everybody(
    autojump_clock: MockClock,
) -> None:
    async with crowd(15) as nodes:
        for node in nodes:
            await node.rendezvous.announce(presence(node.name))
        dead, live = nodes[1::3], [*nodes[0::3], *nodes[2::3]]
        for node in dead:
            node.kill()
        everybody = {node.peer for node in nodes}
        for number, node in enumerate(live):
            assert peers_of(await node.rendezvous.find("test")) == everybody - {node.peer}
            other = live[number - 1]
            assert await node.rendezvous.lookup(other.peer) == presence(other.name).envelope
        # And who states itself anew is found anew at once.
        for node in live:
            assert await node.rendezvous.announce(presence(node.name, incarnation=2)) >= K // 2
        for number, node in enumerate(live):
            found = await node.rendezvous.lookup(live[number - 1].peer)
            assert found == presence(live[number - 1].name, incarnation=2).envelope


async def test_who_only_asks_is_found_and_never_asked(autojump_clock: MockClock) -> None:
    async with crowd(14, clients=6) as nodes:
        clients, servers = nodes[8:], nodes[:8]

        async def fail(wire: object) -> None:
            raise AssertionError("a client was asked")

        for node in clients:
            node.handle = fail
            assert await node.rendezvous.announce(presence(node.name)) == len(servers)
        for node in nodes:
            expected = {one.peer for one in clients} - {node.peer}
            assert peers_of(await node.rendezvous.find("test")) == expected
        assert clients[0].rendezvous.size == len(servers)
        assert servers[0].rendezvous.size == len(servers) - 1
        assert clients[0].rendezvous.status == "only asks; 8 nodes known, 0 statements kept"
        assert servers[0].rendezvous.status == "serves; 7 nodes known, 6 statements kept"


async def test_what_is_stated_anew_is_found_though_the_asker_has_kept_the_old(
    autojump_clock: MockClock,
) -> None:
    async with crowd(4) as nodes:
        one, other, *_ = nodes
        await one.rendezvous.announce(presence(one.name, serial=1))
        assert len(other.rendezvous._board) == 1
        # The statement reaches all but the one that asks.
        other.handle = Node("deaf", serves=False).rendezvous.serve
        await one.rendezvous.announce(presence(one.name, serial=2))
        assert await other.rendezvous.find("test") == [presence(one.name, serial=2).envelope]
        assert await other.rendezvous.lookup(one.peer) == presence(one.name, serial=2).envelope


async def test_who_leaves_is_found_no_more(autojump_clock: MockClock) -> None:
    async with crowd(6) as nodes:
        for node in nodes:
            await node.rendezvous.announce(presence(node.name))
        assert await nodes[2].rendezvous.announce(leave(nodes[2].name)) == 5
        assert nodes[2].peer not in peers_of(await nodes[4].rendezvous.find("test"))
        assert await nodes[4].rendezvous.lookup(nodes[2].peer) is None


async def test_what_is_not_stated_again_is_found_no_more(autojump_clock: MockClock) -> None:
    async with crowd(6) as nodes:
        await nodes[1].rendezvous.announce(presence(nodes[1].name))
        for node in nodes:
            node.now = NOW + PRESENCE_S - 1
        assert len(await nodes[2].rendezvous.find("test")) == 1
        nodes[2].now = NOW + PRESENCE_S + 1  # a clock that is ahead refuses what the others keep
        assert await nodes[2].rendezvous.find("test") == []
        assert len(await nodes[3].rendezvous.find("test")) == 1
        for node in nodes:
            node.now = NOW + PRESENCE_S + 1
        assert await nodes[3].rendezvous.find("test") == []
        await trio.sleep(2 * dht_module.REFRESH_S)
        assert all(len(node.rendezvous._board) == 0 for node in nodes)


async def test_a_stale_statement_is_not_announced(server: Node) -> None:
    with pytest.raises(RefusedError):
        await server.rendezvous.announce(presence("server", age=PRESENCE_S + 1))


async def test_alone_nothing_is_found_and_nobody_takes_anything(server: Node) -> None:
    assert await server.rendezvous.announce(presence("server")) == 0
    assert await server.rendezvous.find("test") == []
    assert await server.rendezvous.lookup(peer_of("other")) is None


async def test_more_members_than_are_told(autojump_clock: MockClock) -> None:
    members = [f"member {number}" for number in range(limits.NOTICES_PER_SWARM + 20)]
    async with crowd(9) as nodes:
        for name in members:
            for node in nodes:
                node.rendezvous._board.post(presence(name), "", NOW)
        found = await nodes[0].rendezvous.find("test")
        assert len(peers_of(found)) == len(found) <= limits.PRESENCES
        assert len(found) > limits.NOTICES_TOLD + 16


# --- liars --------------------------------------------------------------------------------------


def lying(*statements: bytes) -> Handler:
    """Answers every question with nodes that do not exist, and with ``statements``."""

    async def answer(wire: Any) -> None:
        request = decode(await read_frame(wire, REQUEST_BYTES), Find | Post, REQUEST_BYTES)  # type: ignore[arg-type]
        reply: Reply = Posted()
        if isinstance(request, Find):
            names = [PeerId(sha256(request.key + bytes([n])).digest()) for n in range(K)]
            nobody = [Named(one, (f"/ip4/10.9.9.9/tcp/1/p2p/{peer_text(one)}",)) for one in names]
            reply = Found(tuple(nobody), statements)
        await wire.write(encode_frame(encode(reply)))
        await wire.end_writing()

    return answer


FORGED = presence("victim").envelope[:-1] + b"\x00"


@pytest.mark.parametrize(
    "statements",
    [
        (),
        (FORGED,),
        (b"garbage",),
        (b"",),
        (leave("stranger").envelope,),
        (presence("stranger", swarm="another").envelope,),
    ],
    ids=["nobody real", "forged", "garbage", "empty", "leave", "of another swarm"],
)
async def test_liars_do_not_keep_two_nodes_from_meeting(
    autojump_clock: MockClock, statements: tuple[bytes, ...]
) -> None:
    async with crowd(11, liar=lying(*statements), liars=3) as nodes:
        honest = [nodes[0], *nodes[4:]]
        for node in honest:
            assert await node.rendezvous.announce(presence(node.name)) > 0
        for number, node in enumerate(honest):
            expected = {one.peer for one in honest} - {node.peer}
            assert peers_of(await node.rendezvous.find("test")) == expected
            other = honest[number - 1]
            assert await node.rendezvous.lookup(other.peer) == presence(other.name).envelope


async def test_a_liar_with_many_keys_does_not_fill_the_list(autojump_clock: MockClock) -> None:
    sybils = [presence(f"sybil {n}").envelope for n in range(limits.NOTICES_TOLD)]
    async with crowd(12, liar=lying(*sybils), liars=3) as nodes:
        honest = [nodes[0], *nodes[4:]]
        for node in honest:
            await node.rendezvous.announce(presence(node.name))
        found = peers_of(await honest[0].rendezvous.find("test"))
        assert {one.peer for one in honest[1:]} <= found


async def test_the_table_knows_nobody_by_hearsay(autojump_clock: MockClock) -> None:
    async with crowd(12, liar=lying(), liars=3) as nodes:
        real = {node.peer for node in nodes}
        for node in [nodes[0], *nodes[4:]]:
            known = node.rendezvous._table
            assert {one.peer for one in known.closest(HERE, 99) + known.silent(HERE, 99)} <= real


async def test_old_statements_do_not_discredit_who_passes_them_on(
    autojump_clock: MockClock,
) -> None:
    async with crowd(2, liar=lying(presence("old", age=PRESENCE_S + 5).envelope), liars=1) as nodes:
        assert await nodes[0].rendezvous.find("test") == []
        assert nodes[1].peer in nodes[0].rendezvous._table
        assert nodes[0].rendezvous._table.silent(HERE) == []


async def silent(wire: Any) -> None:
    await trio.sleep_forever()


async def ending(wire: Any) -> None:
    await wire.reset()


async def endless(wire: Any) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        await wire.write((REPLY_BYTES + 1).to_bytes(4, "big"))
        await trio.sleep_forever()


async def contradicting(wire: Any) -> None:
    await wire.write(encode_frame(encode(Posted())))
    await wire.end_writing()


async def raving(wire: Any) -> None:
    await wire.write(encode_frame(os.urandom(300)))


@pytest.mark.parametrize("liar", [silent, ending, endless, contradicting, raving])
async def test_who_answers_nothing_costs_little(autojump_clock: MockClock, liar: Handler) -> None:
    async with crowd(9) as nodes:
        for node in nodes:
            await node.rendezvous.announce(presence(node.name))
        for node in nodes[1:5]:
            node.handle = liar
        began = trio.current_time()
        found = peers_of(await nodes[8].rendezvous.find("test"))
        assert {node.peer for node in nodes if node is not nodes[8]} == found
        assert trio.current_time() - began <= 3 * dht_module.ASK_LIMIT_S


async def test_every_connection_is_let_go_of_and_closed_if_nobody_needs_it(
    autojump_clock: MockClock,
) -> None:
    async with crowd(8) as nodes:
        network = nodes[0].network
        nodes[3].handle = raving
        nodes[4].handle = silent
        # One stands, and somebody else uses it.
        standing = network.connect(nodes[5], nodes[0].addresses[0])
        standing.hold()

        async def dial(peer: PeerId, addresses: Sequence[str]) -> MemoryCarrier:
            if peer == nodes[0].peer:
                return standing
            return network.connect(nodes[5], addresses[0])

        nodes[5].dial = dial  # type: ignore[method-assign]
        for node in nodes[5:]:
            await node.rendezvous.announce(presence(node.name))
            await node.rendezvous.find("test")
        assert standing.held == 1
        assert not standing.closed
        others = [one for one in network.carriers if one is not standing]
        assert others
        assert all(one.closed for one in others)
        with trio.move_on_after(0.1) as scope:
            await nodes[6].rendezvous.find("test")
        assert scope.cancelled_caught
        assert all(one.held == 0 for one in network.carriers if one is not standing)


async def test_a_connection_that_the_other_end_closes_is_made_again(
    autojump_clock: MockClock,
) -> None:
    async with crowd(3) as nodes:
        network = nodes[0].network
        closing = []

        async def dial(peer: PeerId, addresses: Sequence[str]) -> MemoryCarrier:
            carrier = network.connect(nodes[2], addresses[0])
            carrier.closed = peer not in closing
            closing.append(peer)
            return carrier

        nodes[2].dial = dial  # type: ignore[method-assign]
        assert await nodes[2].rendezvous.announce(presence("node 2")) == 2
        assert nodes[2].rendezvous._table.silent(HERE) == []


async def test_one_connection_serves_a_whole_announcement(autojump_clock: MockClock) -> None:
    async with crowd(8) as nodes:
        nodes[0].network.carriers.clear()
        nodes[2].asked = 0
        await nodes[2].rendezvous.announce(presence("node 2"))
        assert len(nodes[0].network.carriers) <= 2 * 7  # two searches may dial at the same time
        assert nodes[2].asked == len(nodes[0].network.carriers)


# --- answering ----------------------------------------------------------------------------------


async def test_only_ones_own_statement_is_kept(server: Node) -> None:
    for data, name, reason in [
        (presence("one").envelope, "another", "somebody else"),
        (FORGED, "victim", "Signer"),
        (presence("one", age=PRESENCE_S + 1).envelope, "one", "ago"),
        (presence("one", age=-1000).envelope, "one", "from now"),
        (b"", "one", ""),
        (os.urandom(200), "one", ""),
    ]:
        reply = await ask(server, Post(data, ()), name)
        assert isinstance(reply, Declined)
        assert reason in reply.reason
        assert len(server.rendezvous._board) == 0
    assert await ask(server, Post(presence("one").envelope, ()), "one") == Posted()
    assert (await asked(server)).statements == (presence("one").envelope,)
    assert (await asked(server, node_point(peer_of("one")))).statements != ()
    assert (await asked(server, swarm_point("another"))).statements == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 4,
        b"\xff" * 4,
        (REQUEST_BYTES + 1).to_bytes(4, "big"),
        encode_frame(os.urandom(100)),
        encode_frame(encode(Post(bytes(limits.PRESENCE_BYTES + 1), ()))),
        encode_frame(encode(Find(b"short", ()))),
        encode_frame(encode(Find(HERE, ("x",) * (limits.CONTACT_ADDRESSES + 1)))),
        encode_frame(encode(Find(HERE, ("x" * (limits.ADDRESS_CHARS + 1),)))),
        encode_frame(encode(Posted())),
    ],
    ids=["nothing", "empty", "moved", "huge", "random", "oversize", "key", "many", "long", "reply"],
)
async def test_nonsense_is_not_answered(
    server: Node, data: bytes, autojump_clock: MockClock
) -> None:
    assert await ask(server, data) is None
    assert len(server.rendezvous._board) == 0
    assert isinstance(await ask(server, Find(HERE, ())), Found)


@given(st.binary(max_size=300))
def test_garbage_raises_nothing(data: bytes) -> None:
    async def main() -> None:
        node = Node("server")
        node.addresses = ("/ip4/127.0.0.1/tcp/1",)
        assert await ask(node, encode_frame(data)) is None

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_the_largest_request_and_reply_fit() -> None:
    addresses = ("x" * limits.ADDRESS_CHARS,) * limits.CONTACT_ADDRESSES
    post = Post(bytes(limits.PRESENCE_BYTES), addresses)
    assert len(encode(post)) <= REQUEST_BYTES
    found = Found(
        (Named(bytes(32), addresses),) * K, (bytes(limits.PRESENCE_BYTES),) * limits.NOTICES_TOLD
    )
    assert len(encode(found)) <= REPLY_BYTES
    assert REPLY_BYTES < limits.FRAME_BYTES


async def test_who_does_not_serve_answers_nobody(server: Node, autojump_clock: MockClock) -> None:
    server.serves = False
    assert await ask(server, Find(HERE, ())) is None
    server.serves = True
    assert await ask(server, Find(HERE, ())) is not None


async def test_a_peer_whose_key_is_of_another_kind_is_cut_off(server: Node) -> None:
    _, there = wire_from("stranger")
    there.peer = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
    await server.handle(there)
    assert there.was_reset


async def hold(server: Node, nursery: trio.Nursery, name: str, address: str) -> MemoryWire:
    """A stream on which nothing is asked."""
    _, there = wire_from(name, address)
    nursery.start_soon(server.handle, there)
    await wait_all_tasks_blocked()
    return there


async def test_silent_streams_do_not_keep_others_out(
    server: Node, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        mine = [
            await hold(server, nursery, "silent", "/ip4/8.8.8.8/tcp/1")
            for _ in range(desk_module.SERVED_PER_PEER + 2)
        ]
        assert [wire.was_reset for wire in mine] == [False] * desk_module.SERVED_PER_PEER + [
            True
        ] * 2
        ours = [
            await hold(server, nursery, f"silent {number}", "/ip4/8.8.8.9/tcp/1")
            for number in range(desk_module.SERVED_PER_ORIGIN)
        ]
        served = desk_module.SERVED_PER_ORIGIN - desk_module.SERVED_PER_PEER
        assert sum(not wire.was_reset for wire in ours) == served
        assert isinstance(await ask(server, Find(HERE, ())), Found)
        for number in range(desk_module.SERVED_AT_ONCE):
            address = f"/ip4/8.8.{number}.8/tcp/1"
            mine.append(await hold(server, nursery, f"crowd {number}", address))
        assert sum(not wire.was_reset for wire in mine + ours) == desk_module.SERVED_AT_ONCE
        assert await ask(server, Find(HERE, ())) is None
        await trio.sleep(desk_module.SERVE_LIMIT_S + 0.1)
        assert all(wire.was_reset for wire in mine + ours)
        assert isinstance(await ask(server, Find(HERE, ())), Found)


async def test_a_reader_that_dawdles_is_cut_off(server: Node, autojump_clock: MockClock) -> None:
    here, there = wire_from("slow")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, there)
        await here.write(encode_frame(encode(Find(HERE, ()))))
        assert await read_frame(here, REPLY_BYTES)
        await trio.sleep(desk_module.SERVE_LIMIT_S + 0.1)
        assert there.was_reset


async def test_a_flood_of_statements_is_bounded(server: Node) -> None:
    for number in range(limits.NOTICES_PER_SWARM + 40):
        name = f"flood {number}"
        assert await ask(server, Post(presence(name).envelope, ()), name) == Posted()
    assert len(server.rendezvous._board) == limits.NOTICES_PER_SWARM
    found = await asked(server)
    assert len(found.statements) == limits.NOTICES_TOLD


async def test_addresses_are_told_to_whom_they_lead(server: Node) -> None:
    near, far = Contact(peer_of("near"), ()), Contact(peer_of("far"), ())
    lan = f"/ip4/192.168.0.7/tcp/1/p2p/{peer_text(near.peer)}"
    wan = f"/ip4/8.8.8.8/tcp/1/p2p/{peer_text(far.peer)}"
    table, board = Table(server.peer), Noticeboard()
    table.answered(Contact(near.peer, (lan,)), 0.0)
    table.answered(Contact(far.peer, (wan,)), 0.0)
    table.answered(Contact(peer_of("unknown"), ()), 0.0)
    server.handle = Desk(table, board, server.served_at, lambda: NOW).serve
    named = {one.peer: one.addresses for one in (await asked(server)).nodes}
    assert named == {near.peer: (lan,), far.peer: (wan,)}
    here, there = wire_from("stranger", "/ip4/9.9.9.9/tcp/1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, there)
        await here.write(encode_frame(encode(Find(HERE, ()))))
        found = decode(await read_frame(here, REPLY_BYTES), Found, REPLY_BYTES)
        await here.reset()
    assert found.nodes == (Named(far.peer, (wan,)),)


async def test_nobody_is_told_of_themselves(server: Node) -> None:
    table = server.rendezvous._table
    mine = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_text(peer_of('stranger'))}"
    table.answered(Contact(peer_of("stranger"), (mine,)), 0.0)
    assert (await asked(server)).nodes == ()


# --- knocking -----------------------------------------------------------------------------------


async def test_those_who_knock_are_few_and_first_come(server: Node) -> None:
    for number in range(desk_module.KNOCKED + 9):
        name = f"knocks {number}"
        address = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_text(peer_of(name))}"
        await ask(server, Find(HERE, (address,)), name)
    desk = server.rendezvous._desk
    waiting = await desk.knocked(5)
    assert [one.peer for one in waiting] == [peer_of(f"knocks {number}") for number in range(5)]
    rest = await desk.knocked(1000)
    assert 0 < len(rest) <= desk_module.KNOCKED - 5
    with trio.move_on_after(0) as scope:
        await desk.knocked(1)
    assert scope.cancelled_caught


async def test_nobody_knocks_for_somebody_else(server: Node) -> None:
    address = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_text(peer_of('victim'))}"
    await ask(server, Find(HERE, (address,)), "liar")
    with trio.move_on_after(0) as scope:
        await server.rendezvous._desk.knocked(1)
    assert scope.cancelled_caught


# --- running ------------------------------------------------------------------------------------


async def test_it_goes_on_after_an_exception_anywhere(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with crowd(6) as nodes:
        node = nodes[2]

        def broken(*_: object) -> None:
            raise RuntimeError("a fault of ours")

        with monkeypatch.context() as patch:
            patch.setattr(node.rendezvous._board, "expire", broken)
            await trio.sleep(3 * dht_module.REFRESH_S)
        assert "a fault of ours" in caplog.text
        node.rendezvous._board.post(presence("old"), "", NOW)
        node.now = NOW + PRESENCE_S + 1
        await trio.sleep(2 * dht_module.REFRESH_S)
        assert len(node.rendezvous._board) == 0


async def test_a_dial_that_raises_anything_is_a_node_that_does_not_answer(
    autojump_clock: MockClock,
) -> None:
    async with crowd(6) as nodes:

        async def dial(peer: PeerId, addresses: Sequence[str]) -> Any:
            raise ExceptionGroup("several", [KeyError(peer), OSError(addresses)])

        nodes[3].dial = dial  # type: ignore[method-assign]
        assert await nodes[3].rendezvous.find("test") == []
        assert await nodes[3].rendezvous.announce(presence("node 3")) == 0
        del nodes[3].dial
        assert await nodes[3].rendezvous.announce(presence("node 3")) == 5


async def test_one_that_comes_late_is_joined_at_once(autojump_clock: MockClock) -> None:
    async with crowd(3) as nodes:
        lonely = nodes[0].network.node("lonely")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lonely.rendezvous.run)
            await trio.sleep(1000)
            assert lonely.rendezvous.size == 0
            lonely.rendezvous.add(nodes[0].peer, nodes[0].addresses)
            await trio.sleep(0.1)
            assert lonely.rendezvous.size == 3
            nursery.cancel_scope.cancel()


async def test_an_idle_node_asks_little(autojump_clock: MockClock) -> None:
    async with crowd(9) as nodes:
        await trio.sleep(dht_module.REFRESH_S)
        for node in nodes:
            node.asked = 0
        await trio.sleep(10 * dht_module.REFRESH_S)
        assert max(node.asked for node in nodes) <= 10 * 20


async def test_a_node_that_came_back_elsewhere_is_known_again(autojump_clock: MockClock) -> None:
    async with crowd(6) as nodes:
        moved = nodes[3]
        moved.kill()
        for node in nodes:
            await node.rendezvous.find("test")
        network = moved.network
        again = network.node(moved.name)
        async with trio.open_nursery() as nursery:
            again.rendezvous.add(nodes[0].peer, nodes[0].addresses)
            nursery.start_soon(again.rendezvous.run)
            await trio.sleep(60)
            found = await asked(nodes[0], node_point(again.peer))
            assert Named(again.peer, again.addresses) in found.nodes
            nursery.cancel_scope.cancel()


async def test_seeds_are_bounded(server: Node) -> None:
    for number in range(dht_module.SEEDS + 10):
        server.rendezvous.add(peer_of(f"seed {number}"), ())
    assert len(server.rendezvous._seeds) == dht_module.SEEDS
    assert peer_of(f"seed {dht_module.SEEDS + 9}") in server.rendezvous._seeds


# --- on real connections ------------------------------------------------------------------------


async def test_on_libp2p_with_liars_and_after_a_third_is_killed() -> None:
    nodes = [RealNode(f"node {number}", serves=number < 12) for number in range(14)]
    liar = nodes[1]
    liar.handle = lying(FORGED)
    async with trio.open_nursery() as nursery:
        for node in nodes:
            await nursery.start(node.run)
            node.rendezvous.add(nodes[0].peer, nodes[0].addresses)
        for node in nodes:
            await node.rendezvous.find("test")
            first = nodes[0].rendezvous
            if node is not nodes[0] and node.serves:
                (contact,) = await first._desk.knocked(1)
                async with dht_module._lines(nodes[0].dial) as lines:
                    await first._ask(lines, contact, Find(HERE, ()))
        honest = [node for node in nodes if node is not liar]
        for node in honest:
            assert await node.rendezvous.announce(presence(node.name)) >= 6
        everybody = {node.peer for node in honest}
        for node in honest[::3]:
            assert peers_of(await node.rendezvous.find("test")) == everybody - {node.peer}
        for node in honest[1:12:3]:
            node.kill()
        for node in honest[::6]:
            assert peers_of(await node.rendezvous.find("test")) == everybody - {node.peer}
            found = await node.rendezvous.lookup(honest[2].peer)
            assert found == presence(honest[2].name).envelope
        nursery.cancel_scope.cancel()
