"""Nodes that keep their replicas of all logs equal, under a virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace

import msgspec
import pytest
import trio

from node.replication import service
from node.replication.quota import REFUSALS
from protocol import limits
from protocol import sync as wire
from protocol.codec import encode
from protocol.errors import CallError, MeshError, UnreachableError
from protocol.ids import PeerId
from protocol.ledger import EPOCH_S, Capability, Hints, Run, Subject, Sum
from swarm.ledger.chain import Chain
from swarm.ledger.replica import Replica
from swarm.ledger.state import read
from swarm.ledger.sync import recall
from tests.fakes.ledger_database import FakeLedgerDatabase
from tests.fakes.mesh import FakeNetwork
from tests.node.replicas import ReplicaNode, profile, running, swarm_of, unix_time
from tests.swarm.ledger.authors import EPOCH, SWARM, Author, FreeAdmission, replica

DAY_S = 24 * 3600


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weeks go by: an exchange every ten seconds would fill them."""
    monkeypatch.setattr(service, "SYNC_EVERY_S", 6 * 3600.0)


async def until(condition: Callable[[], bool], limit_s: float = 300.0) -> None:
    """Wait for ``condition``, in virtual time."""
    with trio.fail_after(limit_s):
        while not condition():  # noqa: ASYNC110 (what is waited for has no event)
            await trio.sleep(0.05)


def agree(nodes: list[ReplicaNode]) -> bool:
    return len({node.root() for node in nodes}) == 1


def know_each_other(nodes: list[ReplicaNode]) -> bool:
    return all(len(node.states) == len(nodes) for node in nodes)


# --- what is said reaches everybody ---------------------------------------------------------------


async def test_whoever_is_linked_knows_what_a_node_runs(autojump_clock: object) -> None:
    async with swarm_of(FakeNetwork(), 3) as nodes:
        await until(lambda: know_each_other(nodes) and agree(nodes))
        for node in nodes:
            for at, other in enumerate(nodes):
                state = node.states[other.peer]
                assert state.profile == profile(f"model {at}")
                assert not state.forked
                assert node.replica.chain(other.peer, EPOCH).admitted
        for node in nodes:
            assert (await node.replication.report()).refused == {}


async def test_without_a_ticket_only_linked_peers_know_a_node(autojump_clock: object) -> None:
    network = FakeNetwork()
    async with swarm_of(network, 2, ticket_after_s=None) as (one, other):
        await until(lambda: know_each_other([one, other]))
        assert one.replica.guests == other.replica.guests == 1
        assert one.disk.kept.keys() == {(one.peer, EPOCH)}
        network.partition([one.peer], [other.peer])
        await until(lambda: other.peer not in one.states)
        assert one.replica.guests == 0
        network.heal()
        await until(lambda: know_each_other([one, other]))


async def test_a_ticket_admits_later(autojump_clock: object) -> None:
    async with swarm_of(FakeNetwork(), 2, ticket_after_s=60.0) as nodes:
        await until(lambda: know_each_other(nodes))
        assert nodes[0].own.standing().ticket == "none"
        assert nodes[0].replica.guests == 1
        await until(lambda: all(node.replica.admitted(EPOCH) == 2 for node in nodes))
        assert nodes[0].replica.guests == 0
        assert nodes[0].own.standing().ticket == "free"
        assert agree(nodes)


async def test_a_log_that_changes_while_it_is_read_is_read_again(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SLICE_S", 0.0)
    monkeypatch.setattr(service, "READ_PAUSE_S", 1.0)
    ann = Author("ann", 6)
    async with swarm_of(FakeNetwork(), 1) as (node,):
        told: list[dict[str, bytes]] = []
        node.replication.changed = lambda peer, state: told.append(dict(state.values))
        await node.replication.take([ann.run(0, 3)], (), None)
        # Less than it takes to read three entries, with a second after each.
        await trio.sleep(2.5)
        assert not told
        await node.replication.take([ann.run(3)], (), None)
        await until(lambda: len(told) == 2)
        assert told == [read(ann.peer, EPOCH, ann.bodies[:end]).values for end in (3, 6)]
        await trio.sleep(60.0)
        assert len(told) == 2


async def test_changes_follow_in_one_log(autojump_clock: object) -> None:
    async with swarm_of(FakeNetwork(), 3) as nodes:
        await until(lambda: know_each_other(nodes))
        for at in range(5):
            nodes[0].own.label(f"label {at}")
            await until(
                lambda at=at: all(
                    node.states[nodes[0].peer].profile.label == f"label {at}" for node in nodes
                )
            )
        # The checkpoint, and one entry for each change.
        assert len(nodes[1].replica.chain(nodes[0].peer, EPOCH).bodies) == 6
        assert agree(nodes)


async def test_what_is_wanted_together_is_one_entry(autojump_clock: object) -> None:
    async with swarm_of(FakeNetwork(), 2) as nodes:
        await until(lambda: know_each_other(nodes))
        for at in range(5):
            nodes[0].own.label(f"label {at}")
        await until(lambda: nodes[1].states[nodes[0].peer].profile.label == "label 4")
        assert len(nodes[1].replica.chain(nodes[0].peer, EPOCH).bodies) == 2


async def test_who_was_away_learns_what_was_said_from_one_peer(autojump_clock: object) -> None:
    network = FakeNetwork()
    async with swarm_of(network, 5) as nodes:
        await until(lambda: know_each_other(nodes) and agree(nodes))
        left, right = nodes[:2], nodes[2:]
        network.partition([node.peer for node in left], [node.peer for node in right])
        left[0].own.label("left")
        right[0].own.label("right")
        await until(
            lambda: (
                left[1].states[left[0].peer].profile.label == "left"
                and right[1].states[right[0].peer].profile.label == "right"
            )
        )
        assert not agree(nodes)
        network.heal()
        await until(lambda: agree(nodes))
        for node in nodes:
            assert node.states[left[0].peer].profile.label == "left"
            assert node.states[right[0].peer].profile.label == "right"


async def test_a_log_reaches_those_that_its_author_is_not_linked_to(
    autojump_clock: object,
) -> None:
    network = FakeNetwork()
    async with swarm_of(network, 3) as (one, middle, other):
        # A partition of two that both still reach the third, as far as calls go.
        author = Author("absent", 3, epoch=EPOCH)
        await one.replication.take([author.run()], [], None)
        await until(lambda: author.peer in other.states and author.peer in middle.states)
        assert len(other.states[author.peer].values) == 1


async def test_comparing_finds_what_was_not_handed_on(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "FANOUT", 0)
    async with swarm_of(FakeNetwork(), 4) as nodes:
        await until(lambda: know_each_other(nodes))
        author = Author("absent", 3, epoch=EPOCH)
        began = trio.current_time()
        await nodes[0].replication.take([author.run()], [], None)
        await until(lambda: all(author.peer in node.states for node in nodes))
        assert trio.current_time() - began < 8 * service.SYNC_EVERY_S
        await until(lambda: agree(nodes))


async def test_joining_compares_with_two_and_tells(autojump_clock: object) -> None:
    network = FakeNetwork()
    async with swarm_of(network, 3) as nodes:
        author = Author("absent", 20, epoch=EPOCH)
        await nodes[0].replication.take([author.run()], [], None)
        await until(lambda: all(node.replica.admitted(EPOCH) == 4 for node in nodes))
        addresses = [address for node in nodes for address in node.mesh.addresses()]
        async with running(network, "newcomer", addresses) as newcomer:
            newcomer.own.describe(profile("new"))
            await until(lambda: newcomer.replication.join.agree is not None)
            assert newcomer.replication.join.agree
            assert len(newcomer.replication.join.peers) == 2
            await until(lambda: agree([*nodes, newcomer]))
            report = await newcomer.replication.report()
            assert report.authors == 5
            assert report.agree


async def test_a_peer_that_withholds_is_found_by_comparing_with_a_second(
    autojump_clock: object,
) -> None:
    """One peer of two shows a newcomer nothing; the other one does."""
    network = FakeNetwork()
    async with swarm_of(network, 2) as nodes:
        author = Author("absent", 20, epoch=EPOCH)
        liar, honest = nodes
        await until(lambda: know_each_other(nodes))
        await honest.replication.take([author.run()], [], None)
        await until(lambda: agree(nodes))

        empty = service.Responder(Replica(SWARM, FreeAdmission()), liar.peer, b"secret")

        async def pretend(peer: object, body: bytes) -> bytes:
            steps = empty.answer(peer, body, EPOCH)  # type: ignore[arg-type]
            return await liar.replication._drive(steps, peer)  # type: ignore[arg-type]

        liar.mesh.answer("ledger", pretend)
        addresses = [address for node in nodes for address in node.mesh.addresses()]
        async with running(network, "newcomer", addresses) as newcomer:
            newcomer.own.describe(profile("new"))
            await until(lambda: author.peer in newcomer.states)
            await until(lambda: newcomer.replication.join.agree is not None)
            assert newcomer.replication.join.agree is False


async def test_what_is_given_to_a_node_that_stops_is_taken_and_goes_no_further(
    autojump_clock: object,
) -> None:
    """Its mesh answers until the last."""
    async with swarm_of(FakeNetwork(), 3) as nodes:
        one, other, third = nodes
        await until(lambda: know_each_other(nodes) and agree(nodes))
        one.replication._nursery.cancel_scope.cancel()
        author = Author("absent", 3, epoch=EPOCH)
        body = encode(wire.Give((author.run(),), ()))
        assert await ask(other, one, body) == encode(wire.Gave((), 0))
        assert one.replica.chain(author.peer, EPOCH) is not None
        assert third.replica.chain(author.peer, EPOCH) is None


# --- the own log ----------------------------------------------------------------------------------


async def test_a_node_alone_says_nothing(autojump_clock: object) -> None:
    async with running(FakeNetwork(), "alone") as node:
        node.own.describe(profile())
        await trio.sleep(3600)
        assert node.replica.entries == 0
        assert node.disk.marks == {}
        assert node.own.standing().waits == "No peer is linked."


async def test_a_clock_that_was_ahead_is_waited_for(autojump_clock: object) -> None:
    """What follows an entry is not older, and nobody takes what is of the future."""
    async with swarm_of(FakeNetwork(), 2) as (one, other):
        await until(lambda: know_each_other([one, other]))
        one.own._clock = one.replication._clock = lambda: unix_time() + 600
        one.own.label("ahead")
        await until(lambda: one.own.standing().entries == 2)
        one.own._clock = one.replication._clock = unix_time
        one.own.label("back")
        await trio.sleep(400)
        assert one.own.standing().entries == 2
        assert "clock was ahead" in one.own.standing().waits
        await until(lambda: other.states[one.peer].profile.label == "back")
        assert one.own.standing().waits == ""


async def test_what_others_would_refuse_is_not_written_and_ends_nothing(
    autojump_clock: object,
) -> None:
    async with swarm_of(FakeNetwork(), 2) as (one, other):
        await until(lambda: know_each_other([one, other]))
        day = int(unix_time()) // DAY_S
        one.own.tell(too_long(hints_of(day)))
        await trio.sleep(5)
        assert one.own.standing().entries == len(one.disk.kept[one.peer, EPOCH].bodies) == 1
        one.own.tell(hints_of(day))
        await until(lambda: day in other.states[one.peer].hints)


async def test_a_ticket_that_was_not_ready_before_a_restart_is_made_after_it(
    autojump_clock: object,
) -> None:
    network = FakeNetwork()
    async with swarm_of(network, 1) as (other,):
        addresses = list(other.mesh.addresses())
        async with running(network, "again", addresses, ticket_after_s=60.0) as node:
            disk = node.disk
            node.own.describe(profile())
            await until(lambda: node.peer in other.states)
        async with running(network, "again", addresses, disk, ticket_after_s=60.0) as node:
            node.own.describe(profile())
            await until(lambda: node.peer in other.states)
            assert not other.replica.chain(node.peer, EPOCH).admitted
            await until(lambda: other.replica.chain(node.peer, EPOCH).admitted)
            assert len(node.replica.chain(node.peer, EPOCH).bodies) == 1


async def test_strangers_that_come_and_go_do_not_keep_a_log_waiting(
    autojump_clock: object,
) -> None:
    """They never tell what they hold, and one of them is always there."""
    network = FakeNetwork()

    async def never(peer: object, body: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async def strangers(name: str, addresses: list[str]) -> None:
        for at in range(100):
            async with running(network, f"{name} {at}", addresses) as stranger:
                stranger.mesh.answer("ledger", never)
                await trio.sleep(8)

    async with swarm_of(network, 2) as (_, victim), trio.open_nursery() as nursery:
        addresses = list(victim.mesh.addresses())
        await until(lambda: victim.own.standing().entries == 1)
        # As after a start.
        victim.own._cleared = False
        victim.own._answered.clear()
        nursery.start_soon(strangers, "one", addresses)
        await trio.sleep(4)
        nursery.start_soon(strangers, "two", addresses)
        await trio.sleep(1)
        victim.own.label("called")
        await until(lambda: victim.own.standing().entries == 2, 60)
        nursery.cancel_scope.cancel()


async def test_after_a_restart_the_log_goes_on(autojump_clock: object) -> None:
    network = FakeNetwork()
    async with swarm_of(network, 2) as nodes:
        addresses = [address for node in nodes for address in node.mesh.addresses()]
        disk: FakeLedgerDatabase | None = None
        for at in range(3):
            async with running(network, "again", addresses, disk) as node:
                disk = node.disk
                node.own.describe(profile(label=f"run {at}"))
                await until(
                    lambda at=at, node=node: (
                        node.peer in nodes[0].states
                        and nodes[0].states[node.peer].profile.label == f"run {at}"
                    )
                )
                peer = node.peer
        assert len(nodes[1].replica.chain(peer, EPOCH).bodies) == 3
        assert nodes[1].states[peer].forked is False


async def test_what_has_not_changed_is_not_said_again(autojump_clock: object) -> None:
    network = FakeNetwork()
    async with swarm_of(network, 1) as (other,):
        disk: FakeLedgerDatabase | None = None
        for _ in range(3):
            async with running(network, "again", list(other.mesh.addresses()), disk) as node:
                disk = node.disk
                node.own.describe(profile())
                await until(lambda node=node: node.peer in other.states)
                await trio.sleep(5)
                assert len(node.replica.chain(node.peer, EPOCH).bodies) == 1


async def test_a_log_put_back_from_a_backup_goes_on_where_peers_saw_it_last(
    autojump_clock: object,
) -> None:
    network = FakeNetwork()
    async with swarm_of(network, 2) as nodes:
        addresses = [address for node in nodes for address in node.mesh.addresses()]
        async with running(network, "again", addresses) as node:
            peer, backup = node.peer, FakeLedgerDatabase(node.peer)
            node.own.describe(profile(label="first"))
            await until(lambda: peer in nodes[0].states)
            await until(lambda: node.disk.kept[peer, EPOCH].ticket != b"")
            # As the disk stands now, mark and all.
            backup.kept, backup.marks = dict(node.disk.kept), dict(node.disk.marks)
            for at in range(4):
                node.own.label(f"later {at}")
                await until(lambda at=at: nodes[0].states[peer].profile.label == f"later {at}")
        async with running(network, "again", addresses, backup) as node:
            node.own.describe(profile(label="restored"))
            await until(lambda: nodes[0].states[peer].profile.label == "restored")
            assert not nodes[0].states[peer].forked
            await until(lambda: len(nodes[1].replica.chain(peer, EPOCH).bodies) == 6)


@pytest.mark.parametrize("lost", ["log", "log and mark"])
async def test_a_lost_log_comes_back_from_peers_or_is_not_begun_again(
    autojump_clock: object, unhurried: None, lost: str
) -> None:
    network = FakeNetwork()
    async with swarm_of(network, 1) as (witness,):
        async with running(network, "again", list(witness.mesh.addresses())) as node:
            peer = node.peer
            node.own.describe(profile(label="first"))
            await until(lambda: peer in witness.states)
            await until(lambda: witness.replica.chain(peer, EPOCH).admitted)
        ruined = FakeLedgerDatabase(peer)
        ruined.marks = node.disk.marks if lost == "log" else None
        async with (
            running(network, "stranger") as stranger,
            running(network, "again", list(stranger.mesh.addresses()), ruined) as node,
        ):
            node.own.describe(profile(label="second"))
            await trio.sleep(1000)
            # Whoever it meets does not know it, and it keeps silent.
            assert peer not in stranger.states
            assert "lost" in node.own.standing().waits
            node.mesh.dial(witness.mesh.addresses()[0])
            if lost == "log":
                await until(lambda: witness.states[peer].profile.label == "second")
            else:
                # Nobody can tell it whether that was all.
                await trio.sleep(1000)
                assert witness.states[peer].profile.label == "first"
            assert not witness.states[peer].forked
            # A new epoch is a new beginning, whatever was lost.
            await trio.sleep(EPOCH_S)
            await until(lambda: stranger.states[peer].profile.label == "second")
            assert not stranger.states[peer].forked


async def test_a_new_epoch_begins_with_all_that_holds(
    autojump_clock: object, unhurried: None
) -> None:
    async with swarm_of(FakeNetwork(), 2) as nodes:
        one, other = nodes
        await until(lambda: know_each_other(nodes))
        one.own.label("kept")
        today = int(unix_time()) // DAY_S
        hints = hints_of(today)
        one.own.tell(hints)
        await until(lambda: today in other.states[one.peer].hints)
        await trio.sleep(EPOCH_S - (unix_time() - EPOCH * EPOCH_S) + 60)
        chain = other.replica.chain(one.peer, EPOCH + 1)
        assert chain is not None
        assert len(chain.bodies) == 1
        await until(lambda: other.states[one.peer].since >= (EPOCH + 1) * EPOCH_S)
        state = other.states[one.peer]
        assert state.profile.label == "kept"
        assert state.hints == {today: hints}
        # The one before is still there; a week later it is gone.
        assert other.replica.chain(one.peer, EPOCH) is not None
        await trio.sleep(EPOCH_S)
        await trio.sleep(10 * 3600)
        assert other.replica.chain(one.peer, EPOCH) is None
        assert (one.peer, EPOCH) not in other.disk.kept
        # Hints of a day do not count for ever.
        assert other.states[one.peer].hints == {}


async def test_a_disk_that_fails_delays_what_is_said(autojump_clock: object) -> None:
    async with swarm_of(FakeNetwork(), 2) as nodes:
        one, other = nodes
        await until(lambda: know_each_other(nodes))
        one.disk.failing = True
        one.own.label("later")
        await trio.sleep(100)
        assert other.states[one.peer].profile.label == ""
        one.disk.failing = False
        await until(lambda: other.states[one.peer].profile.label == "later")


async def test_more_changes_than_a_day_takes_wait_for_the_next(
    autojump_clock: object, unhurried: None
) -> None:
    async with swarm_of(FakeNetwork(), 2) as nodes:
        one, other = nodes
        await until(lambda: know_each_other(nodes))
        for at in range(limits.CAPABILITIES_PER_DAY + 5):
            one.own.label(f"label {at}")
            await trio.sleep(2)
        chain = other.replica.chain(one.peer, EPOCH)
        assert len(chain.bodies) == 1 + limits.CAPABILITIES_PER_DAY
        await trio.sleep(DAY_S)
        assert other.states[one.peer].profile.label == f"label {limits.CAPABILITIES_PER_DAY + 4}"
        assert len(chain.bodies) == 2 + limits.CAPABILITIES_PER_DAY


async def test_two_nodes_with_one_key_stop(autojump_clock: object) -> None:
    """Both machines learn it, and everybody freezes the log where they parted."""
    network = FakeNetwork()
    async with swarm_of(network, 2) as nodes:
        one, other = nodes
        async with running(network, "twin", list(one.mesh.addresses())) as first:
            first.own.describe(profile(label="first"))
            peer = first.peer
            await until(lambda: peer in one.states and one.replica.chain(peer, EPOCH).admitted)
        # The other machine has never heard of it, and meets somebody who has not either.
        async with (
            running(network, "stranger") as stranger,
            running(network, "twin", list(stranger.mesh.addresses())) as second,
        ):
            second.own.describe(profile(label="second"))
            await until(lambda: peer in stranger.states)
            second.mesh.dial(one.mesh.addresses()[0])
            await until(lambda: one.states[peer].forked and other.states[peer].forked)
            await until(lambda: stranger.states[peer].forked)
            assert {node.replica.chain(peer, EPOCH).forked_at for node in (one, other)} == {0}
            await until(lambda: "Two nodes" in second.own.standing().waits)
            assert all(not state.forked for who, state in one.states.items() if who != peer)


async def test_tickets_that_admit_nobody_any_more_are_not_believed_after_a_restart(
    autojump_clock: object,
) -> None:
    """The key of the swarm was changed: what it admitted has to show a new ticket."""
    network = FakeNetwork()
    async with (
        swarm_of(network, 1) as (other,),
        running(network, "again", list(other.mesh.addresses())) as node,
    ):
        node.own.describe(profile())
        await until(lambda: node.replica.admitted(EPOCH) == 2)
        disk, peer = node.disk, node.peer
    for name, one in disk.kept.items():
        disk.kept[name] = replace(one, ticket=bytes(10))
    async with running(network, "again", disk=disk) as node:
        assert node.replica.chains().keys() == {(peer, EPOCH)}
        assert node.own.standing().entries == 1
        assert node.replica.admitted(EPOCH) == 0
        assert disk.kept.keys() == {(peer, EPOCH)}


# --- hostile peers --------------------------------------------------------------------------------


@pytest.fixture
async def pair() -> AsyncIterator[tuple[ReplicaNode, ReplicaNode]]:
    """A node, and one whose mesh is used by hand."""
    async with swarm_of(FakeNetwork(), 2) as (one, other):
        await until(lambda: know_each_other([one, other]) and agree([one, other]))
        yield one, other


async def ask(node: ReplicaNode, other: ReplicaNode, body: bytes) -> bytes:
    return await node.mesh.call(other.peer, "ledger", body, 10.0)


async def test_garbage_is_refused_and_cut_off(
    autojump_clock: object, pair: tuple[ReplicaNode, ReplicaNode]
) -> None:
    honest, hostile = pair
    before = honest.root()
    linked = True
    for at in range(limits.FAULTS):
        assert linked, at
        with pytest.raises(MeshError):
            await ask(hostile, honest, b"\xc1garbage")
        linked = hostile.peer in {link.peer for link in honest.mesh.links()}
    assert not linked
    assert honest.replication.refused == {"decode": limits.FAULTS}
    assert honest.replication.disconnected == 1
    assert honest.root() == before


async def test_who_has_many_requests_under_way_is_cut_off_once(
    autojump_clock: object, pair: tuple[ReplicaNode, ReplicaNode]
) -> None:
    honest, hostile = pair

    async def babble() -> None:
        with suppress(MeshError):
            await ask(hostile, honest, b"\xc1garbage")

    for cut_off in (1, 2):
        async with trio.open_nursery() as nursery:
            for _ in range(limits.CALLS_SERVED):
                nursery.start_soon(babble)
        await until(lambda: hostile.peer not in {link.peer for link in honest.mesh.links()})
        assert honest.replication.disconnected == cut_off
        await until(lambda: hostile.peer in {link.peer for link in honest.mesh.links()})


async def test_bad_signatures_cut_off(
    autojump_clock: object, pair: tuple[ReplicaNode, ReplicaNode]
) -> None:
    honest, hostile = pair
    for at in range(limits.FAULTS):
        author = Author(f"author {at}", 1, epoch=EPOCH)
        forged = Run(tuple(author.bodies), bytes(64), author.ticket)
        with suppress(UnreachableError):
            await ask(hostile, honest, encode(wire.Give((forged,), ())))
    assert honest.replication.refused == {"bad-signature": limits.FAULTS}
    assert hostile.peer not in {link.peer for link in honest.mesh.links()}


async def test_honest_peers_are_not_blamed_where_clocks_differ_as_an_epoch_begins(
    autojump_clock: object, unhurried: None
) -> None:
    """Whose clock is behind has logs that are over for the other one, and gives them to it."""
    async with swarm_of(FakeNetwork(), 2) as (behind, ahead):
        await until(lambda: know_each_other([behind, ahead]))
        logs = [Author(f"author {at}", 1, epoch=EPOCH - 1).run() for at in range(90)]
        await behind.replication.take(logs, [], None)
        await ahead.replication.exchange(behind.peer)
        assert agree([behind, ahead])
        turn = (EPOCH + 1) * EPOCH_S - unix_time()
        ahead.own._clock = ahead.replication._clock = lambda: unix_time() + turn + 5
        behind.own._clock = behind.replication._clock = lambda: unix_time() + turn - 25
        await ahead.replication.expire()
        assert await behind.replication.exchange(ahead.peer) is not None
        assert ahead.replication.refused["clock"] >= len(logs)
        assert ahead.replication.disconnected == 0


async def test_honest_peers_are_not_blamed_for_authors_that_find_no_room(
    autojump_clock: object, unhurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either half of a swarm was full; together they have twice as many authors."""
    monkeypatch.setattr(limits, "AUTHORS", 100)
    async with swarm_of(FakeNetwork(), 2) as nodes:
        await until(lambda: know_each_other(nodes))
        monkeypatch.setattr(service, "FANOUT", 0)
        for at, node in enumerate(nodes):
            authors = [
                Author(f"{at} {one}", 1, epoch=EPOCH, quality=2 + 98 * at + one)
                for one in range(98)
            ]
            await node.replication.take([one.run() for one in authors], [], None)
        assert await nodes[1].replication.exchange(nodes[0].peer) is not None
        assert nodes[1].replication.refused["admission"] > REFUSALS
        assert [node.replication.disconnected for node in nodes] == [0, 0]
        best = [
            {author for (author, _), chain in node.replica.chains().items() if chain.quality > 1}
            for node in nodes
        ]
        assert best[0] == best[1]


async def test_who_is_flooded_hands_it_on_no_faster_than_it_is_taken(
    autojump_clock: object,
) -> None:
    async with swarm_of(FakeNetwork(), 3) as nodes:
        await until(lambda: know_each_other(nodes))
        authors = [Author(f"author {at}", 30, epoch=EPOCH) for at in range(100)]
        for seq in range(30):
            for at in range(0, 100, 10):
                runs = [author.run(seq, seq + 1) for author in authors[at : at + 10]]
                await nodes[0].replication.take(runs, [], None)
                await trio.sleep(0.01)
        await until(lambda: agree(nodes))
        for node in nodes:
            assert node.replication.refused == {}


async def test_a_guest_that_leaves_while_it_is_taken_does_not_stay(
    autojump_clock: object,
) -> None:
    network = FakeNetwork()
    async with swarm_of(network, 2, ticket_after_s=None) as (honest, hostile):
        await until(lambda: know_each_other([honest, hostile]))
        chain = hostile.replica.chain(hostile.peer, EPOCH)

        async def tell_of_itself(peer: object, body: bytes) -> bytes:
            return encode(wire.Runs((chain.run(0),), (), 6))

        async def wait() -> None:
            await trio.sleep(1)

        async def learn() -> None:
            steps = recall(honest.replica, honest.peer, EPOCH)
            await honest.replication._drive(steps, hostile.peer)

        hostile.mesh.answer("ledger", tell_of_itself)
        honest.disk.room = wait  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(learn)
            await trio.sleep(0.5)
            network.partition([honest.peer], [hostile.peer])
        assert hostile.peer not in {link.peer for link in honest.mesh.links()}
        assert honest.replica.guests == 0


async def test_who_gives_too_fast_is_refused_then_cut_off(
    autojump_clock: object, pair: tuple[ReplicaNode, ReplicaNode]
) -> None:
    honest, hostile = pair
    runs = [Author(f"author {at}", 1, epoch=EPOCH).run() for at in range(50)]
    body = encode(wire.Give(tuple(runs), ()))
    given = 0
    with suppress(CallError):
        while given <= 2 * limits.ENTRIES_AT_ONCE:
            await ask(hostile, honest, body)
            given += len(runs)
    assert honest.replication.refused == {"quota": 1}
    assert given >= limits.ENTRIES_AT_ONCE
    assert given <= 2 * limits.ENTRIES_AT_ONCE
    for _ in range(100):
        try:
            await ask(hostile, honest, body)
        except CallError:
            continue
        except UnreachableError:
            break
    assert honest.replication.refused["quota"] > 1
    assert honest.replication.disconnected == 1


@pytest.mark.parametrize(
    "request_of",
    [
        lambda nonce: wire.Open(EPOCH, nonce),
        lambda nonce: wire.Buckets(EPOCH, nonce, 64),
        lambda nonce: wire.Heads(EPOCH, nonce, 1, b"\x01"),
        lambda nonce: wire.Want(EPOCH, nonce, bytes(wire.ASK_BYTES)),
    ],
)
async def test_exchanges_begun_too_often_are_refused(
    autojump_clock: object,
    pair: tuple[ReplicaNode, ReplicaNode],
    request_of: Callable[[bytes], wire.Request],
) -> None:
    """However one is begun: each hashes all logs."""
    honest, hostile = pair
    begun = 0
    with suppress(CallError):
        while begun < 100:
            await ask(hostile, honest, encode(request_of(begun.to_bytes(8, "big"))))
            begun += 1
    assert 0 < begun < 20
    assert honest.replication.refused == {"quota": 1}
    await trio.sleep(60)
    await ask(hostile, honest, encode(request_of(bytes(8))))


async def test_a_stranger_s_log_without_a_ticket_is_not_taken(
    autojump_clock: object, pair: tuple[ReplicaNode, ReplicaNode]
) -> None:
    honest, hostile = pair
    author = Author("stranger", 2, epoch=EPOCH)
    await ask(hostile, honest, encode(wire.Give((author.run(ticket=False),), ())))
    assert author.peer not in honest.states
    assert honest.replication.refused == {"admission": 1}


async def test_an_equivocation_reaches_everybody(autojump_clock: object) -> None:
    """One half is told one thing, the other half another."""
    network = FakeNetwork()
    async with swarm_of(network, 4) as nodes:
        await until(lambda: know_each_other(nodes))
        author = Author("liar", 3, epoch=EPOCH)
        twin = author.other(2, 2)
        network.partition([node.peer for node in nodes[:2]], [node.peer for node in nodes[2:]])
        await nodes[0].replication.take([author.run()], [], None)
        await nodes[2].replication.take([twin.run()], [], None)
        await until(lambda: author.peer in nodes[1].states and author.peer in nodes[3].states)
        network.heal()
        await until(lambda: all(node.states[author.peer].forked for node in nodes))
        await until(lambda: agree(nodes))
        for node in nodes:
            assert node.replica.chain(author.peer, EPOCH).forked_at == 2
            proof = node.replica.proof(author.peer, EPOCH)
            assert replica().convict(proof, unix_time()).forked
            assert all(not one.forked for who, one in node.states.items() if who != author.peer)


def too_long(hints: Hints) -> Hints:
    """Such as want to be believed for too long."""
    return msgspec.structs.replace(hints, expires=hints.expires + 1)


def hints_of(day: int) -> Hints:
    """Of one peer on one day."""
    peer = Author("subject").peer
    counts = (1, 1, 1, 1, 1)
    sums = (Sum("", 5, counts, counts, 1, 2),)
    return Hints(day, (day + 1 + limits.HINT_DAYS) * DAY_S, (Subject(peer, "ab", sums),))


async def test_tickets_that_are_none_cut_off_at_once(
    autojump_clock: object, pair: tuple[ReplicaNode, ReplicaNode]
) -> None:
    """Each may take milliseconds to see: what follows the last one forgiven is not looked at."""
    honest, hostile = pair
    runs = tuple(Author(f"author {at}", 1, epoch=EPOCH).run(ticket=bytes(10)) for at in range(40))
    with suppress(UnreachableError):
        await ask(hostile, honest, encode(wire.Give(runs, ())))
    assert honest.replication.refused == {"ticket": limits.FAULTS}
    assert honest.replication.disconnected == 1


async def test_an_invalid_entry_that_is_asked_for_counts_once(
    autojump_clock: object, pair: tuple[ReplicaNode, ReplicaNode]
) -> None:
    """An author may sign nonsense. Whoever passes it on has not checked it."""
    honest, hostile = pair
    author = Author("author", 1, epoch=EPOCH)
    author.say(Capability(b"\x02nonsense"))
    chain = Chain(author.peer, EPOCH, ticket=author.ticket, quality=1)
    chain.extend(author.bodies, None)
    chain.signatures[1] = author.run().signature
    hostile.replica._chains[author.peer, EPOCH] = chain
    await honest.replication.exchange(hostile.peer)
    assert honest.replication.refused == {"update": 1}
    assert author.peer not in honest.states


async def test_what_is_fetched_in_bulk_is_not_handed_on(
    autojump_clock: object, pair: tuple[ReplicaNode, ReplicaNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have had it for long. A few logs, which may be new, are."""
    fetching, full = pair
    handed: set[PeerId] = set()
    monkeypatch.setattr(
        fetching.replication, "_hand", lambda peer, name, first: handed.add(name[0])
    )
    fetching.replication._origins[Author("third").peer] = ""
    many = [Author(f"many {at}", 1, epoch=EPOCH) for at in range(service.FEW + 1)]
    await full.replication.take([author.run() for author in many], [], None)
    await fetching.replication.exchange(full.peer)
    assert all(fetching.replica.chain(author.peer, EPOCH) for author in many)
    assert not handed & {author.peer for author in many}
    one = Author("one", 1, epoch=EPOCH)
    await full.replication.take([one.run()], [], fetching.peer)
    await fetching.replication.exchange(full.peer)
    assert one.peer in handed


async def test_a_log_that_an_earlier_version_took_ends_nothing(
    autojump_clock: object, pair: tuple[ReplicaNode, ReplicaNode]
) -> None:
    """On disk it is whole, and breaks a rule that this version has."""
    node, _ = pair
    author = Author("author", 1, epoch=EPOCH)
    author.say(Capability(b"\x02nonsense"))
    node.replica.restore(
        author.peer, EPOCH, author.bodies, {1: author.run().signature}, author.ticket, 1, None
    )
    node.replication._read_later(author.peer)
    await trio.sleep(10)
    assert author.peer not in node.states
    node.own.label("goes on")
    await until(lambda: node.states[node.peer].profile.label == "goes on")
