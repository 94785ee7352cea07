"""Statements spread to everybody, cost nothing where all is known, and bring back nobody."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from node.mesh.address import Address
from node.mesh.roster import (
    EXCHANGE,
    EXCHANGE_EVERY_S,
    EXCHANGES_AT_ONCE,
    LEAVE_LIMIT_S,
    REFRESH_S,
    SETTLE_S,
    SOON_S,
    SPLIT,
    STATE,
    STATEMENTS_AT_ONCE,
    STATEMENTS_PER_S,
    Exchange,
    Roster,
    States,
)
from protocol import limits
from protocol.codec import encode
from protocol.envelope import KeySigner
from protocol.errors import (
    CallError,
    DecodeError,
    RefusedError,
    SwarmError,
    TooLargeError,
    UnreachableError,
)
from protocol.ids import PeerId
from protocol.presence import PRESENCE_S, SKEW_S, Leave, Presence, Stated, read, state
from swarm.membership import Membership

START_S = 1_700_000_000.0
LATENCY_S = 0.02
SWARM = "friends"


def signer(name: str) -> KeySigner:
    return KeySigner(hashlib.sha256(name.encode()).digest())


def presence(name: str, serial: int = 0, at: float = START_S, swarm: str = SWARM) -> Stated:
    """What a node states that is not here itself."""
    stated = Presence(swarm, 1, serial, int(at), (), False, "unknown")
    return state(signer(name), stated)


@dataclass
class Yard:
    """Nodes that call each other, and what that costs.

    Attributes:
        calls: when, from whom, to whom, what, and the bytes there and back.
    """

    nodes: dict[PeerId, Node] = field(default_factory=dict)
    calls: list[tuple[float, str, str, str, int, int]] = field(default_factory=list)

    def node(self, name: str, ahead_s: float = 0.0, swarm: str = SWARM) -> Node:
        node = Node(self, name, ahead_s, swarm)
        self.nodes[node.peer] = node
        return node

    def crowd(self, *names: str) -> list[Node]:
        return [self.node(name) for name in names]


class Node:
    """A roster with links and calls of its own."""

    def __init__(self, yard: Yard, name: str, ahead_s: float, swarm: str) -> None:
        self.name = name
        self.peer = signer(name).peer
        self.ahead_s = ahead_s
        self.links: set[PeerId] = set()
        self.answers: dict[str, Callable[[PeerId, bytes], Awaitable[bytes]]] = {}
        self.addresses: tuple[Address, ...] = ()
        self.relay = False
        self.nat = "unknown"
        self.heard: list[PeerId] = []
        self.membership = Membership(self.peer, swarm)
        self._yard = yard
        self._scope = trio.CancelScope()
        self.roster = Roster(
            signer(name),
            swarm,
            self.membership,
            self,  # type: ignore[arg-type]
            lambda: sorted(self.links),
            lambda: (self.addresses, self.relay, self.nat),
            lambda who, first_hand: self.heard.append(who),
            random.Random(name),
            self.clock,
        )

    def clock(self) -> float:
        return START_S + trio.current_time() + self.ahead_s

    async def call(self, who: PeerId, method: str, body: bytes, limit_s: float) -> bytes:
        """As :class:`node.mesh.calls.Calls`."""
        if who not in self.links:
            raise UnreachableError("no link")
        other = self._yard.nodes[who]
        try:
            with trio.fail_after(limit_s):
                await trio.sleep(LATENCY_S)
                if self.peer not in other.links:
                    raise UnreachableError("cut")
                reply = await other.answers[method](self.peer, body)
                await trio.sleep(LATENCY_S)
        except trio.TooSlowError as error:
            raise CallError("in time") from error
        except SwarmError as error:
            raise CallError(str(error)) from error
        record = (trio.current_time(), self.name, other.name, method, len(body), len(reply))
        self._yard.calls.append(record)
        return reply

    async def run(self) -> None:
        with self._scope:
            await self.roster.run()

    def crash(self) -> None:
        """Go away without a word."""
        self._scope.cancel()
        for other in self._yard.nodes.values():
            other.links.discard(self.peer)
        self.links.clear()

    def knows(self) -> set[str]:
        """The names of those it takes to be there."""
        names = {node.peer: name for name, node in ((n.name, n) for n in self._yard.nodes.values())}
        return {names.get(who, "?") for who in self.membership.present(self.clock())}

    def learn(self, *statements: Stated, source: PeerId | None = None) -> set[PeerId]:
        return self.roster.hear([one.envelope for one in statements], source)

    def digest(self) -> bytes:
        return self.membership.digest(self.roster.own(), self.clock())


async def link(one: Node, other: Node) -> None:
    """A link comes up, and both ends exchange what there is to say."""
    one.links.add(other.peer)
    other.links.add(one.peer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.roster.welcome, other.peer)
        nursery.start_soon(other.roster.welcome, one.peer)


async def everyone_linked(nodes: list[Node]) -> None:
    async with trio.open_nursery() as nursery:
        for index, one in enumerate(nodes):
            for other in nodes[index + 1 :]:
                nursery.start_soon(link, one, other)


def names(nodes: list[Node]) -> set[str]:
    return {node.name for node in nodes}


# --- what a node states of itself ---------------------------------------------------------------


async def test_a_statement_stays_until_it_changes_or_grows_old(autojump_clock: MockClock) -> None:
    node = Yard().node("one")
    first = node.roster.own()
    assert read(first.envelope) == first
    assert first.statement == Presence(SWARM, round(1000 * START_S), 0, int(START_S), (), False,
                                       "unknown")  # fmt: skip
    await trio.sleep(REFRESH_S - 1)
    assert node.roster.own() is first
    await trio.sleep(1)
    second = node.roster.own()
    assert second.statement == msgspec.structs.replace(
        first.statement, serial=1, issued_at=int(START_S + REFRESH_S)
    )
    for number, change in enumerate(("nat", "relay", "addresses")):
        value = {"nat": "open", "relay": True, "addresses": (Address("ip4", "192.0.2.1", 1),)}
        setattr(node, change, value[change])
        now = node.roster.own().statement
        assert isinstance(now, Presence)
        assert now.serial == 2 + number
        assert node.roster.own().statement is now
    assert now.addresses == ("/ip4/192.0.2.1/tcp/1",)
    assert (now.nat, now.relay) == ("open", True)
    # All of one run.
    assert now.incarnation == first.statement.incarnation


async def test_a_node_of_many_addresses_states_the_best(autojump_clock: MockClock) -> None:
    node = Yard().node("one")
    node.addresses = tuple(Address("ip4", "192.0.2.1", port) for port in range(1, 40))
    stated = node.roster.own().statement
    assert isinstance(stated, Presence)
    assert stated.addresses == tuple(map(str, node.addresses[: limits.ADDRESSES]))
    read(node.roster.own().envelope)


async def test_a_clock_that_is_set_back_makes_a_new_statement(autojump_clock: MockClock) -> None:
    """Else an old one would be repeated until the clock has caught up, and expire meanwhile."""
    node = Yard().node("one")
    first = node.roster.own().statement
    node.ahead_s = -1000.0
    second = node.roster.own().statement
    assert isinstance(first, Presence)
    assert isinstance(second, Presence)
    assert (second.serial, second.issued_at) == (first.serial + 1, int(START_S - 1000))


async def test_what_changes_is_known_to_all_within_a_second(autojump_clock: MockClock) -> None:
    yard = Yard()
    nodes = yard.crowd("a", "b", "c", "d", "e")
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(node.run)
        await everyone_linked(nodes)
        await trio.sleep(1)
        before = len(yard.calls)
        nodes[0].nat = "open"
        nodes[0].roster.changed()
        await trio.sleep(SETTLE_S / 2)
        nodes[0].relay = True
        nodes[0].roster.changed()
        await trio.sleep(1)
        for node in nodes[1:]:
            known = node.membership.get(nodes[0].peer, node.clock())
            assert known is not None
            assert (known.nat, known.relay) == ("open", True)
        # What changes together is told once.
        assert [call[3] for call in yard.calls[before:]] == [STATE] * 4
        # And nothing that has not changed.
        nodes[0].roster.changed()
        await trio.sleep(1)
        assert len(yard.calls) == before + 4
        nursery.cancel_scope.cancel()


# --- spreading ----------------------------------------------------------------------------------


async def test_two_that_meet_know_the_same(autojump_clock: MockClock) -> None:
    yard = Yard()
    one, other = yard.crowd("one", "other")
    one.learn(presence("x"), presence("y", 1), state(signer("z"), Leave(SWARM, 1, int(START_S))))
    other.learn(presence("y"), presence("z"), presence("w"))
    await link(one, other)
    assert one.digest() == other.digest()
    for node in (one, other):
        there = {who: p.serial for who, p in node.membership.present(node.clock()).items()}
        del there[{one.peer: other.peer, other.peer: one.peer}[node.peer]]
        assert there == {signer("x").peer: 0, signer("y").peer: 1, signer("w").peer: 0}
    # Each was told of whom it had not heard, and of the other itself.
    assert set(one.heard) == {signer(name).peer for name in ("x", "y", "z", "w")} | {other.peer}
    assert set(other.heard) == {signer(name).peer for name in ("x", "y", "z", "w")} | {one.peer}


async def test_who_asks_tells_as_well(autojump_clock: MockClock) -> None:
    """Now and then one of two begins, and both have to learn from it."""
    yard = Yard()
    one, other = yard.crowd("one", "other")
    one.learn(presence("x"))
    other.learn(presence("y"))
    one.links.add(other.peer)
    other.links.add(one.peer)
    await one.roster.welcome(other.peer)
    assert [call[1:4] for call in yard.calls] == [
        ("one", "other", EXCHANGE),
        ("one", "other", STATE),
    ]
    assert one.digest() == other.digest()
    assert {signer("x").peer, one.peer} <= set(other.heard)
    assert {signer("y").peer, other.peer} <= set(one.heard)


async def test_two_that_know_the_same_say_so_briefly(autojump_clock: MockClock) -> None:
    yard = Yard()
    one, other = yard.crowd("one", "other")
    crowd = [presence(f"node {number}") for number in range(40)]
    for node in (one, other):
        node.learn(*crowd)
    await link(one, other)
    yard.calls.clear()
    await one.roster.welcome(other.peer)
    ((_, _, _, method, there, back),) = yard.calls
    assert method == EXCHANGE
    assert there < 400
    assert back < 400


async def test_statements_go_from_hand_to_hand(autojump_clock: MockClock) -> None:
    """A chain: most are not linked to whom they hear of."""
    yard = Yard()
    nodes = yard.crowd(*"abcdef")
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(node.run)
        for one, other in pairwise(nodes):
            await link(one, other)
        await trio.sleep(5 * EXCHANGE_EVERY_S)
        for node in nodes:
            assert node.knows() == names(nodes) - {node.name}
        # A change travels as well, if slower than to those who are linked.
        nodes[0].nat = "closed"
        nodes[0].roster.changed()
        await trio.sleep(1)
        assert nodes[1].membership.get(nodes[0].peer, nodes[1].clock()).nat == "closed"  # type: ignore[union-attr]
        await trio.sleep(8 * EXCHANGE_EVERY_S)
        assert nodes[-1].membership.get(nodes[0].peer, nodes[-1].clock()).nat == "closed"  # type: ignore[union-attr]
        nursery.cancel_scope.cancel()


async def test_a_swarm_at_rest_says_little(autojump_clock: MockClock) -> None:
    yard = Yard()
    nodes = yard.crowd(*(f"node {number}" for number in range(10)))
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(node.run)
        await everyone_linked(nodes)
        await trio.sleep(10)
        assert len({node.digest() for node in nodes}) == 1
        yard.calls.clear()
        await trio.sleep(3600)
        exchanges = [call for call in yard.calls if call[3] == EXCHANGE]
        told = [call for call in yard.calls if call[3] == STATE]
        # One exchange a minute, and a statement three times in its life to each of nine.
        assert 0.8 < len(exchanges) / (10 * 3600 / EXCHANGE_EVERY_S) < 1.2
        assert len(told) <= 10 * 9 * (3600 / REFRESH_S + 1) * 1.1
        # Nearly all find that nothing is to be said.
        quiet = sum(1 for call in exchanges if call[5] < 400)
        assert quiet > 0.95 * len(exchanges)
        # Bytes that a node sends and receives in an hour.
        total = sum(call[4] + call[5] for call in yard.calls)
        assert total / 10 < 120_000
        nursery.cancel_scope.cancel()


async def test_who_is_apart_is_asked_after_soon_and_then_ever_less_often(
    autojump_clock: MockClock,
) -> None:
    """A node behind a NAT tells where it is reached only those that reach it."""
    yard = Yard()
    one, hub, far = yard.crowd("one", "hub", "far")
    async with trio.open_nursery() as nursery:
        for node in (one, hub, far):
            nursery.start_soon(node.run)
        await link(one, hub)
        await trio.sleep(10 * EXCHANGE_EVERY_S)
        await link(hub, far)
        yard.calls.clear()
        one.learn(far.roster.own(), source=hub.peer)
        await trio.sleep(1)
        far.nat = "closed"
        far.roster.changed()
        await trio.sleep(SOON_S)
        known = one.membership.get(far.peer, one.clock())
        assert known is not None
        assert known.nat == "closed"
        # It stays out of reach.
        await trio.sleep(1000)
        times = [
            at for at, name, _, method, *_ in yard.calls if (name, method) == ("one", EXCHANGE)
        ]
        pauses = [later - earlier for earlier, later in pairwise(times)]
        for turn, pause in enumerate(pauses):
            usual = min(SOON_S * 2 ** (turn + 1), EXCHANGE_EVERY_S)
            # What the hub has heard meanwhile is news, and asked after soon as well.
            assert pause <= 1.5 * usual + SOON_S
        assert len(times) < 6 + 1000 / (EXCHANGE_EVERY_S / 2) + 2 * 1000 / REFRESH_S
        nursery.cancel_scope.cancel()


async def test_who_is_linked_already_is_not_asked_after(autojump_clock: MockClock) -> None:
    yard = Yard()
    nodes = yard.crowd(*"abcd")
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(node.run)
        await everyone_linked(nodes)
        yard.calls.clear()
        await trio.sleep(EXCHANGE_EVERY_S / 2 - 1)
        assert yard.calls == []
        nursery.cancel_scope.cancel()


async def test_made_up_members_cause_few_exchanges(autojump_clock: MockClock) -> None:
    yard = Yard()
    one, flooder = yard.crowd("one", "flooder")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await link(one, flooder)
        yard.calls.clear()
        for number in range(300):
            one.learn(presence(f"sybil {number}"), source=flooder.peer)
            await trio.sleep(0.2)
        exchanges = [call for call in yard.calls if call[1:4] == ("one", "flooder", EXCHANGE)]
        # Not one for each, and yet not none.
        assert 10 <= len(exchanges) <= 60 / SOON_S + 1
        nursery.cancel_scope.cancel()


# --- going --------------------------------------------------------------------------------------


async def test_a_leave_is_known_to_all_and_nobody_undoes_it(autojump_clock: MockClock) -> None:
    yard = Yard()
    nodes = yard.crowd(*"abcde")
    absent = yard.node("f")
    async with trio.open_nursery() as nursery:
        for node in (*nodes, absent):
            nursery.start_soon(node.run)
        await everyone_linked([*nodes, absent])
        await trio.sleep(1)
        old = nodes[0].roster.own()
        # One does not hear the farewell, and goes on saying that the node is there.
        for node in nodes:
            node.links.discard(absent.peer)
        absent.links.clear()
        await nodes[0].roster.say_leave()
        nodes[0].crash()
        for node in nodes[1:]:
            assert node.knows() == names(nodes[1:]) - {node.name} | {"f"}
        assert "a" in absent.knows()
        await link(absent, nodes[1])
        await trio.sleep(1)
        assert "a" not in absent.knows()
        for node in nodes[1:]:
            node.learn(old, source=nodes[2].peer)
            node.learn(old)
            assert "a" not in node.knows()
        # A new run of it is another matter.
        again = yard.node("a")
        nursery.start_soon(again.run)
        await link(again, nodes[1])
        assert again.knows() == names(nodes[1:]) | {"f"}
        assert "a" in nodes[1].knows()
        await trio.sleep(5 * EXCHANGE_EVERY_S)
        assert all("a" in node.knows() for node in nodes[1:])
        nursery.cancel_scope.cancel()


async def test_who_falls_silent_is_forgotten_everywhere(autojump_clock: MockClock) -> None:
    yard = Yard()
    nodes = yard.crowd(*"abcdef")
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(node.run)
        await everyone_linked(nodes)
        await trio.sleep(1000)
        last = nodes[0].roster.own()
        nodes[0].crash()
        await trio.sleep(PRESENCE_S - REFRESH_S - 1)
        assert all("a" in node.knows() for node in nodes[1:])
        await trio.sleep(REFRESH_S + 2)
        # Exchanges went on all the time, and nobody kept it alive.
        for _ in range(10):
            assert all(node.knows() == names(nodes[1:]) - {node.name} for node in nodes[1:])
            for node in nodes[1:]:
                assert node.learn(last) == set()
            await trio.sleep(EXCHANGE_EVERY_S)
        nursery.cancel_scope.cancel()


async def test_a_farewell_takes_no_longer_than_it_may(autojump_clock: MockClock) -> None:
    yard = Yard()
    one, other, mute = yard.crowd("one", "other", "mute")
    await everyone_linked([one, other, mute])

    async def never(who: PeerId, body: bytes) -> bytes:
        await trio.sleep_forever()
        return b""

    mute.answers[STATE] = never
    began = trio.current_time()
    await one.roster.say_leave()
    assert trio.current_time() - began <= LEAVE_LIMIT_S + 0.01
    assert "one" not in other.knows()
    assert "one" in mute.knows()


# --- parts of a swarm ---------------------------------------------------------------------------


async def test_two_halves_are_joined_by_one_late_link(autojump_clock: MockClock) -> None:
    yard = Yard()
    left, right = yard.crowd(*"abcd"), yard.crowd(*"efgh")
    async with trio.open_nursery() as nursery:
        for node in (*left, *right):
            nursery.start_soon(node.run)
        await everyone_linked(left)
        await everyone_linked(right)
        await trio.sleep(200)
        assert left[0].knows() == {"b", "c", "d"}
        await link(left[0], right[0])
        # Noticed on both sides, once.
        assert [node.roster.merges for node in (*left, *right)] == [1, 0, 0, 0, 1, 0, 0, 0]
        assert left[0].knows() == names([*left, *right]) - {"a"}
        assert {yard.nodes[who].name for who in left[0].heard} >= set("efgh")
        await trio.sleep(10 * EXCHANGE_EVERY_S)
        for node in (*left, *right):
            assert node.knows() == names([*left, *right]) - {node.name}
        # Another link between them finds nothing new.
        await link(left[1], right[1])
        assert sum(node.roster.merges for node in (*left, *right)) == 2
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("mine", "theirs", "merged"),
    [
        # A newcomer knows nobody, and for it everybody is new.
        ("", "xyz", False),
        ("xyz", "", False),
        # One stranger is an acquaintance, not a swarm.
        ("xyz", "w", False),
        ("xyz", "wv", True),
        ("x", "wv", True),
        # Whoever has an acquaintance in common is of the same part.
        ("xyz", "xwv", False),
        ("xyz", "xyz", False),
    ],
)
async def test_what_is_a_part_of_a_swarm(
    autojump_clock: MockClock, mine: str, theirs: str, merged: bool
) -> None:
    assert SPLIT == 2
    one, other = Yard().crowd("one", "other")
    one.learn(*map(presence, mine))
    other.learn(*map(presence, theirs))
    one.links.add(other.peer)
    other.links.add(one.peer)
    await one.roster.welcome(other.peer)
    assert one.roster.merges == merged


# --- clocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead_s", [-200.0, -3.0, 0.0, 3.0, 100.0, 3600.0])
async def test_the_skew_of_clocks_is_measured(autojump_clock: MockClock, ahead_s: float) -> None:
    yard = Yard()
    one, other = yard.node("one"), yard.node("other", ahead_s)
    await link(one, other)
    assert one.roster.skews[other.peer] == pytest.approx(ahead_s, abs=0.01)
    assert other.roster.skews[one.peer] == pytest.approx(-ahead_s, abs=LATENCY_S + 0.01)
    # Whose clock is too far off is not believed, which is why it is shown.
    assert bool(one.knows()) == (-PRESENCE_S < ahead_s <= SKEW_S)


async def test_the_skew_of_who_is_gone_is_forgotten(autojump_clock: MockClock) -> None:
    yard = Yard()
    one, other, third = yard.crowd("one", "other", "third")
    await everyone_linked([one, other, third])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        assert one.roster.skews.keys() == {other.peer, third.peer}
        other.crash()
        await trio.sleep(2 * EXCHANGE_EVERY_S)
        assert one.roster.skews.keys() == {third.peer}
        nursery.cancel_scope.cancel()


# --- hostile peers ------------------------------------------------------------------------------


async def test_a_flood_of_statements_is_bounded(autojump_clock: MockClock) -> None:
    """Each is signed and right; keys cost nothing."""
    yard = Yard()
    one, flooder, honest = yard.crowd("one", "flooder", "honest")
    await everyone_linked([one, flooder, honest])
    batches = STATEMENTS_AT_ONCE // limits.PRESENCES + 4
    crowd = [presence(f"sybil {number}") for number in range(batches * limits.PRESENCES)]
    before = len(one.membership.present(one.clock()))
    verified = 0
    for number in range(batches):
        batch = crowd[number * limits.PRESENCES : (number + 1) * limits.PRESENCES]
        told = one.learn(*batch, source=flooder.peer)
        verified += len(told)
    assert verified <= STATEMENTS_AT_ONCE
    assert len(one.membership.present(one.clock())) - before == verified
    # Others are heard as before.
    assert one.learn(presence("friend of honest"), source=honest.peer)
    # After a while a few more are.
    await trio.sleep(2.0)
    more = one.learn(*crowd[-limits.PRESENCES :], source=flooder.peer)
    assert len(more) == pytest.approx(2 * STATEMENTS_PER_S, abs=1)
    # What is one's own is not rationed.
    assert len(one.learn(*crowd)) == len(crowd)


async def test_exchanges_are_rationed(autojump_clock: MockClock) -> None:
    """Each looks at everybody who is known; others go on."""
    yard = Yard()
    one, busy, honest = yard.crowd("one", "busy", "honest")
    request = encode(Exchange(busy.roster.own().envelope, bytes(32), (), 5))
    answered = 0
    for _ in range(500):
        with contextlib.suppress(RefusedError):
            await one.answers[EXCHANGE](busy.peer, request)
            answered += 1
    assert answered == EXCHANGES_AT_ONCE
    fair = encode(Exchange(honest.roster.own().envelope, bytes(32), (), 5))
    assert await one.answers[EXCHANGE](honest.peer, fair)


async def test_what_does_not_hold_is_left_out(autojump_clock: MockClock) -> None:
    one = Yard().node("one")
    right, other = presence("right"), presence("other")
    forged = bytearray(presence("forged").envelope)
    forged[-1] ^= 1
    envelopes = [
        b"",
        b"garbage",
        bytes(forged),
        presence("foe", swarm="foes").envelope,
        presence("late", at=START_S - PRESENCE_S - 1).envelope,
        presence("early", at=START_S + SKEW_S + 1).envelope,
        bytes(limits.PRESENCE_BYTES + 1),
        one.roster.own().envelope,
        right.envelope,
        other.envelope,
        right.envelope,
    ]
    told = one.roster.hear(envelopes, None)
    assert told == {one.peer, right.peer, other.peer}
    # Once each, and nothing of oneself.
    assert one.heard == [right.peer, other.peer]
    assert set(one.membership.present(one.clock())) == {right.peer, other.peer}


async def test_another_swarm_stays_out_though_linked(autojump_clock: MockClock) -> None:
    yard = Yard()
    friend, foe = yard.node("friend"), yard.node("foe", swarm="foes")
    foe.learn(presence("x", swarm="foes"), presence("y", swarm="foes"))
    await link(friend, foe)
    assert friend.knows() == foe.knows() - {"?"} == set()
    assert friend.heard == []
    assert friend.roster.merges == 0


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"garbage",
        encode(States(())),
        encode(Exchange(b"", bytes(32), (), 0)),
        encode(Exchange(b"", bytes(32), (b"x",) * limits.PRESENCES, 0)),
        msgspec.msgpack.encode([b"", bytes(31), [], 0]),
        msgspec.msgpack.encode([b"", bytes(32), [b""] * (limits.PRESENCES + 1), 0]),
        msgspec.msgpack.encode([b"", bytes(32), [], -1]),
        msgspec.msgpack.encode([bytes(limits.PRESENCE_BYTES + 1), bytes(32), [], 0]),
    ],
)
async def test_a_reply_that_is_none_teaches_nothing(
    autojump_clock: MockClock, reply: bytes
) -> None:
    yard = Yard()
    one, other = yard.crowd("one", "other")
    one.links.add(other.peer)
    other.links.add(one.peer)

    async def lie(who: PeerId, body: bytes) -> bytes:
        return reply

    other.answers[EXCHANGE] = lie
    await one.roster.welcome(other.peer)
    assert one.heard == []
    assert one.roster.merges == 0


@settings(max_examples=60)
@given(st.one_of(st.binary(max_size=120), st.just(b"own")), st.sampled_from((EXCHANGE, STATE)))
def test_any_request_is_answered_or_refused(body: bytes, method: str) -> None:
    async def ask() -> None:
        one = Yard().node("one")
        try:
            reply = await one.answers[method](signer("other").peer, body)
        except (DecodeError, TooLargeError):
            return
        assert isinstance(reply, bytes)
        assert one.heard == []

    trio.run(ask, clock=MockClock(autojump_threshold=0))


async def test_every_byte_of_an_exchange_counts(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No flip makes anybody appear who did not say so."""
    monkeypatch.setattr("node.mesh.roster.EXCHANGES_AT_ONCE", 1e9)
    yard = Yard()
    one, other = yard.crowd("one", "other")
    other.learn(presence("x"))
    right = {other.peer, signer("x").peer}
    request = encode(
        Exchange(other.roster.own().envelope, other.digest(), (presence("x").envelope,), 5)
    )
    for at in range(len(request)):
        varied = bytearray(request)
        varied[at] ^= 0x41
        try:
            await one.answers[EXCHANGE](other.peer, bytes(varied))
        except (DecodeError, TooLargeError):
            continue
        finally:
            assert set(one.membership.present(one.clock())) <= right


async def test_a_run_that_others_take_for_past_becomes_a_later_one(
    autojump_clock: MockClock,
) -> None:
    """The clock was ahead, the node left, the clock was set right, the node started again."""
    yard = Yard()
    one, other = yard.crowd("one", "other")
    ahead = one.roster.own().statement.incarnation + 60_000
    left = state(signer("one"), Leave(SWARM, ahead, int(one.clock())))
    other.learn(left)
    assert other.membership.get(one.peer, other.clock()) is None
    one.learn(left)
    assert one.roster.own().statement.incarnation == ahead + 1
    other.learn(one.roster.own())
    assert other.membership.get(one.peer, other.clock()) is not None


async def test_a_run_in_the_future_is_refused(autojump_clock: MockClock) -> None:
    one = Yard().node("one")
    now = int(one.clock())
    late = Presence(SWARM, 1000 * (now + SKEW_S + 1), 0, now, (), False, "open")
    assert not one.learn(state(signer("late"), late))
