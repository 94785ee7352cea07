"""The routing table stays small and honest, and the look-up finds its way among liars."""

from __future__ import annotations

import functools
import hashlib
import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from protocol.ids import PeerId
from swarm.kademlia import (
    BLAME,
    FORGET_S,
    PARALLEL,
    PATH_QUESTIONS,
    PATHS,
    PER_ORIGIN,
    WIDTH,
    Contact,
    K,
    Lookup,
    Table,
    distance,
    node_point,
    swarm_point,
)

OWN = PeerId(bytes(32))
TARGET = node_point(OWN)


def peer(number: int, purpose: str = "") -> PeerId:
    return PeerId(hashlib.sha256(f"{purpose}{number}".encode()).digest())


def contact(number: int, *origins: str, purpose: str = "") -> Contact:
    return Contact(peer(number, purpose), (f"address {number}",), frozenset(origins))


def by_distance(contacts: Sequence[Contact], target: bytes) -> list[Contact]:
    return sorted(contacts, key=lambda one: distance(node_point(one.peer), target))


@functools.cache
def far_half(count: int) -> list[Contact]:
    """Contacts that all belong into one bucket of ``OWN``."""
    everybody = (contact(number) for number in range(10 * count))
    return [one for one in everybody if distance(node_point(one.peer), TARGET).bit_length() == 256][
        :count
    ]


# --- the space --------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.binary())
def test_the_distance_is_a_metric(a: bytes, b: bytes, c: bytes) -> None:
    c = hashlib.sha256(c).digest()
    assert distance(a, a) == 0
    assert distance(a, b) == distance(b, a)
    assert distance(a, c) <= distance(a, b) + distance(b, c)


def test_a_peer_and_a_swarm_of_the_same_bytes_are_apart() -> None:
    assert node_point(PeerId(b"a" * 32)) != swarm_point("a" * 32)


# --- the table --------------------------------------------------------------------------------


def test_the_closest_are_the_closest() -> None:
    table = Table(OWN)
    there = [one for number in range(300) if table.answered(one := contact(number), 0.0)]
    assert len(table) == len(there)
    for number in range(20):
        target = peer(number, "target")
        assert table.closest(target, 5) == by_distance(there, target)[:5]


def test_many_near_and_few_far() -> None:
    table = Table(OWN)
    for number in range(2000):
        table.answered(contact(number), 0.0)
    assert 40 < len(table) < 100
    everybody = [contact(number) for number in range(2000)]
    assert table.closest(TARGET, K) == by_distance(everybody, TARGET)[:K]


def test_this_node_is_no_contact_of_its_own() -> None:
    table = Table(OWN)
    assert not table.answered(Contact(OWN, ()), 0.0)
    assert not table.wants(Contact(OWN, ()))
    assert len(table) == 0


def test_a_full_bucket_keeps_those_who_were_there_first() -> None:
    table = Table(OWN)
    *first, late = far_half(K + 1)
    for one in first:
        assert table.wants(one)
        assert table.answered(one, 0.0)
        assert not table.wants(one)
        assert one.peer in table
    assert not table.wants(late)
    assert not table.answered(late, 1.0)
    assert late.peer not in table


def test_one_that_does_not_answer_makes_room_for_one_that_does() -> None:
    table = Table(OWN)
    *first, late = far_half(K + 1)
    for one in first:
        table.answered(one, 0.0)
    table.failed(first[3].peer, 1.0)
    assert first[3] not in table.closest(TARGET)
    assert table.silent(TARGET) == [first[3]]
    assert table.wants(late)
    assert table.answered(late, 2.0)
    assert first[3].peer not in table
    assert len(table) == K


def test_one_that_answers_again_is_there_again_with_its_new_address() -> None:
    table = Table(OWN)
    table.answered(contact(1), 0.0)
    table.failed(peer(1), 1.0)
    moved = Contact(peer(1), ("elsewhere",))
    assert table.wants(moved)
    assert table.answered(moved, 2.0)
    assert table.closest(TARGET) == [moved]
    assert table.silent(TARGET) == []


def test_one_that_stays_silent_is_forgotten() -> None:
    table = Table(OWN)
    table.answered(contact(1), 0.0)
    table.failed(peer(1), 10.0)
    table.failed(peer(1), 10.0 + FORGET_S)
    assert len(table) == 1
    table.failed(peer(1), 10.1 + FORGET_S)
    assert len(table) == 0
    table.failed(peer(1), 11.0 + FORGET_S)  # nor does it matter that it still fails


def test_few_of_one_network_in_a_bucket() -> None:
    table = Table(OWN)
    bucket = far_half(6)
    mates = [Contact(one.peer, one.addresses, frozenset({"203.0.113.0/24"})) for one in bucket]
    assert [table.answered(one, 0.0) for one in mates] == [True, True, False, False, False, False]
    # An address elsewhere beside it does not help.
    other = Contact(mates[3].peer, (), frozenset({"198.51.100.0/24", "203.0.113.0/24"}))
    assert not table.answered(other, 0.0)
    table.failed(mates[0].peer, 1.0)
    assert table.answered(mates[2], 1.0)


def test_the_stalest_is_the_one_asked_least_recently() -> None:
    table = Table(OWN)
    for number in range(3):
        table.answered(contact(number), float(number))
    assert table.stalest(0.0) is None
    assert table.stalest(10.0) == contact(0)
    table.answered(contact(0), 11.0)
    table.failed(peer(1), 12.0)
    assert table.stalest(10.0) == contact(2)


# --- the look-up --------------------------------------------------------------------------------


@dataclass
class Net:
    """Nodes whose tables know each other, of whom some are dead and some lie."""

    contacts: list[Contact]
    tables: dict[PeerId, Table]
    dead: frozenset[PeerId] = frozenset()
    liars: frozenset[PeerId] = frozenset()
    lie: Callable[[bytes], list[Contact]] = lambda target: []

    def run(
        self, own: PeerId, target: bytes, seeds: Sequence[Contact] | None = None
    ) -> tuple[Lookup, list[PeerId]]:
        """The look-up, ended, and who answered."""
        lookup = Lookup(own, target, seeds or self.tables[own].closest(target))
        answered: list[PeerId] = []
        questions = 0
        while not lookup.done:
            asked = lookup.ask()
            assert asked
            assert len(asked) <= PATHS * PARALLEL
            for one in asked:
                questions += 1
                if one.peer in self.dead or one.peer not in self.tables:
                    lookup.failed(one.peer)
                elif one.peer in self.liars:
                    answered.append(one.peer)
                    lookup.answered(one.peer, self.lie(target))
                else:
                    answered.append(one.peer)
                    lookup.answered(one.peer, self.tables[one.peer].closest(target))
        assert questions <= PATHS * PATH_QUESTIONS
        assert len(set(answered)) == len(answered)
        assert own not in answered
        return lookup, answered


@functools.cache
def honest(size: int) -> Net:
    """``size`` nodes that joined one after the other by way of one that was there."""
    rng = random.Random(size)
    contacts = [contact(number) for number in range(size)]
    net = Net(contacts, {one.peer: Table(one.peer) for one in contacts})

    def search(own: Contact, target: bytes, seeds: Sequence[Contact] | None = None) -> None:
        for other in net.run(own.peer, target, seeds)[1]:
            net.tables[own.peer].answered(Contact(other, ("address",)), 0.0)
            net.tables[other].answered(own, 0.0)

    for number, own in enumerate(contacts[1:], 1):
        search(own, node_point(own.peer), [contacts[rng.randrange(number)]])
    for own in contacts:
        search(own, node_point(own.peer))
        search(own, rng.randbytes(32))
    return net


@functools.cache
def made_up() -> list[tuple[int, Contact]]:
    everybody = (contact(number, purpose="made up") for number in range(3000))
    return [(int.from_bytes(node_point(one.peer), "big"), one) for one in everybody]


def forged_nearby(target: bytes) -> list[Contact]:
    """Contacts that do not exist, nearer to ``target`` than anybody."""
    at = int.from_bytes(target, "big")
    return [one for _, one in heapq.nsmallest(K, made_up(), key=lambda one: one[0] ^ at)]


def test_it_finds_the_nearest_of_300() -> None:
    net = honest(300)
    questions = 0
    for number in range(30):
        own, target = net.contacts[number].peer, peer(number, "target")
        lookup, answered = net.run(own, target)
        others = [one for one in net.contacts if one.peer != own]
        expected = {one.peer for one in by_distance(others, target)[:WIDTH]}
        assert expected <= {one.peer for one in lookup.closest()}
        questions += len(answered)
    assert questions / 30 < 20


def test_its_result_is_in_order_and_bounded() -> None:
    net = honest(300)
    lookup, answered = net.run(net.contacts[0].peer, TARGET)
    closest = lookup.closest()
    assert closest == by_distance(closest, TARGET)
    assert len(closest) == PATHS * WIDTH
    assert {one.peer for one in closest} <= set(answered)


def test_one_seed_is_enough_for_three_paths() -> None:
    net = honest(300)
    lookup, _ = net.run(OWN, TARGET, [net.contacts[7]])
    assert len(lookup.closest()) == PATHS * WIDTH
    nearest = by_distance(net.contacts, TARGET)[:WIDTH]
    assert [one.peer for one in lookup.closest()[:WIDTH]] == [one.peer for one in nearest]


def test_nobody_to_begin_with() -> None:
    lookup = Lookup(OWN, TARGET, [])
    assert lookup.done
    assert lookup.ask() == []
    assert lookup.closest() == []


def meet(net: Net, rounds: int = 100) -> int:
    """How often a node finds one of those with whom another one left something."""
    rng = random.Random(7)
    sound = [
        one.peer for one in net.contacts if one.peer not in net.dead and one.peer not in net.liars
    ]
    found = 0
    before = Net(net.contacts, net.tables, frozenset(), net.liars, net.lie)
    for _ in range(rounds):
        target = rng.randbytes(32)
        one, other = rng.sample(sound, 2)
        holders = {node.peer for node in before.run(one, target)[0].closest()} & set(sound)
        found += bool(holders & set(net.run(other, target)[1]))
    return found


def some(net: Net, share: float, but: frozenset[PeerId] = frozenset()) -> frozenset[PeerId]:
    everybody = [one.peer for one in net.contacts if one.peer not in but]
    return frozenset(random.Random(9).sample(everybody, round(share * len(net.contacts))))


def test_two_nodes_meet_after_a_third_is_gone() -> None:
    net = honest(300)
    assert meet(Net(net.contacts, net.tables, dead=some(net, 0.33))) == 100


def test_two_nodes_meet_though_a_fifth_lies() -> None:
    net = honest(300)
    assert meet(Net(net.contacts, net.tables, liars=some(net, 0.2), lie=forged_nearby)) >= 99


def test_two_nodes_meet_though_a_fifth_lies_and_another_third_is_gone() -> None:
    net = honest(300)
    liars = some(net, 0.2)
    dead = some(net, 0.33, but=liars)
    assert meet(Net(net.contacts, net.tables, dead, liars, forged_nearby)) >= 90


def test_who_names_nobody_real_is_not_believed_further() -> None:
    liar, nobody = contact(0), [contact(number) for number in range(1, 1 + K)]
    # All paths are the liar's, since nobody else is known.
    lookup = Lookup(OWN, TARGET, [liar])
    assert lookup.ask() == [liar]
    lookup.answered(liar.peer, nobody)
    failed = 0
    while not lookup.done:
        for one in lookup.ask():
            lookup.failed(one.peer)
            failed += 1
    assert failed <= K
    lookup = Lookup(OWN, TARGET, [liar, contact(50), contact(51)])
    lookup.ask()
    lookup.answered(liar.peer, nobody)
    lookup.answered(peer(50), [])
    lookup.answered(peer(51), [])
    failed = 0
    while not lookup.done:
        for one in lookup.ask():
            lookup.failed(one.peer)
            failed += 1
    assert failed in (BLAME, BLAME + 1)  # one more was under way
    assert liar in lookup.closest()


def test_an_answer_counts_up_to_its_limit() -> None:
    lookup = Lookup(OWN, TARGET, [contact(0)])
    lookup.ask()
    lookup.answered(peer(0), (contact(number) for number in range(1, 10**9)))
    named: set[Contact] = set()
    while not lookup.done:
        asked = lookup.ask()
        named.update(asked)
        for one in asked:
            lookup.failed(one.peer)
    assert named <= {contact(number) for number in range(1, 1 + K)}


def test_an_endless_chain_of_ever_nearer_nodes_ends() -> None:
    chain = by_distance([contact(number) for number in range(3000)], TARGET)[::-1]
    lookup = Lookup(OWN, TARGET, chain[:3])
    names = iter(chain[3:])
    questions = 0
    while not lookup.done:
        for one in lookup.ask():
            questions += 1
            lookup.answered(one.peer, [next(names) for _ in range(K)])
    assert questions <= PATHS * PATH_QUESTIONS


def test_paths_share_no_node_and_no_liar_gets_all_of_them() -> None:
    net = honest(300)
    liars = some(net, 0.2)
    lying = Net(net.contacts, net.tables, liars=liars, lie=forged_nearby)
    for number in range(30):
        target = peer(number, "spoiled")
        own = next(one.peer for one in net.contacts[number:] if one.peer not in liars)
        _, answered = lying.run(own, target)
        assert set(answered) - liars


def test_the_nearest_are_not_all_of_one_network() -> None:
    mates = [
        Contact(one.peer, (), frozenset({"203.0.113.0/24"}))
        for one in by_distance([contact(number) for number in range(200)], TARGET)[:30]
    ]
    others = [contact(number, purpose="far") for number in range(30)]
    lookup = Lookup(OWN, TARGET, [*mates, *others])
    while not lookup.done:
        for one in lookup.ask():
            lookup.answered(one.peer, [])
    closest = lookup.closest()
    assert sum(bool(one.origins) for one in closest) == PATHS * PER_ORIGIN
    assert len(closest) == PATHS * WIDTH


@given(st.data())
def test_it_ends_whatever_is_answered(data: st.DataObject) -> None:
    pool = [contact(number) for number in range(40)]
    draw = data.draw
    lookup = Lookup(OWN, TARGET, draw(st.lists(st.sampled_from(pool), max_size=8)))
    under_way: list[Contact] = []
    asked: list[Contact] = []
    while not lookup.done:
        new = lookup.ask()
        asked += new
        under_way += new
        assert under_way
        one = under_way.pop(draw(st.integers(0, len(under_way) - 1)))
        if draw(st.booleans()):
            lookup.answered(one.peer, draw(st.lists(st.sampled_from(pool), max_size=12)))
        else:
            lookup.failed(one.peer)
    assert not under_way
    assert len(set(asked)) == len(asked) <= PATHS * PATH_QUESTIONS
    assert set(lookup.closest()) <= set(asked)
