"""What the logs of others change at a node: whom it asks, whom it believes, whom it excludes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.conduct import Conduct
from node.coordinator import PEERS_WAIT_S
from node.mesh.base import Link
from node.reader import Reader
from protocol.envelope import KeySigner
from protocol.errors import NoPeersError
from protocol.ids import PeerId, peer_text
from protocol.ledger import HINT_DAY_S, Profile
from protocol.messages import Model
from protocol.methods import AskParams, Progress
from protocol.receipt import read
from swarm.hints import Hearsay
from swarm.ledger.state import State
from swarm.registry import Registry
from tests.fakes.mesh import FakeNetwork
from tests.fakes.own_log import NOTHING
from tests.fakes.peer_records import FakePeerRecords
from tests.fakes.trial_records import FakeTrialRecords
from tests.node.test_conduct import key, offence
from tests.node.test_herald import remembering, seen
from tests.node.virtual_node import (
    EPOCH,
    QUESTION,
    Setup,
    VirtualNode,
    inline,
    nodes,
    scripted,
)
from tests.swarm.test_hints import days, hints, word
from tests.swarm.virtual import signer

TODAY = EPOCH // HINT_DAY_S
ASK = AskParams(QUESTION)
OWN = signer("own").peer
PROFILE = Profile(Model("m", "f", ""), 0, 4096, serves=True)


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual clock would run on beside a thread."""
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork(seed=1)


def peer(name: str) -> PeerId:
    return signer(name).peer


def ignore(progress: Progress) -> None:
    """Nobody watches."""


# --- one change -----------------------------------------------------------------------------------


class Desk:
    """A reader, and those whom it hands things to."""

    def __init__(self, conduct: Conduct) -> None:
        self.registry = Registry(OWN, PROFILE)
        self.hearsay = Hearsay([peer("verifier"), OWN])
        self.conduct = conduct
        self.woken = 0
        coordinator: Any = self
        self.reader = Reader(
            OWN, self.registry, self.hearsay, conduct, coordinator, lambda: float(EPOCH)
        )

    def peers_changed(self) -> None:
        self.woken += 1

    def believed(self, name: str) -> bool:
        return self.hearsay.told(peer(name), "model", EPOCH) is not None


async def desk() -> Desk:
    said: list[object] = []
    conduct = await Conduct.load(OWN, FakePeerRecords(), said.append, lambda: float(EPOCH))
    return Desk(conduct)


def verdict(**fields: Any) -> State:
    """A log that says all that a log can say."""
    said = days(hints(word("a"), day=TODAY))
    whole = replace(
        NOTHING, profile=PROFILE, hints=said, evidence=(offence(key("liar")),), since=EPOCH
    )
    return replace(whole, **fields)


async def test_what_a_log_says_reaches_whom_it_concerns() -> None:
    one = await desk()
    for _ in range(2):
        one.reader.changed(peer("verifier"), verdict())
        known = one.registry.get(peer("verifier"))
        assert known is not None
        assert (known.profile, known.since) == (PROFILE, EPOCH)
        assert one.believed("a")
        assert one.conduct.excluded() == {key("liar").peer}
    assert one.woken == 2


async def test_with_a_log_goes_what_it_said_but_not_what_it_proved() -> None:
    one = await desk()
    one.reader.changed(peer("verifier"), verdict())
    for _ in range(2):
        one.reader.changed(peer("verifier"), None)
        assert one.registry.get(peer("verifier")) is None
        assert not one.believed("a")
    assert one.conduct.excluded() == {key("liar").peer}


async def test_a_node_needs_no_word_of_its_own() -> None:
    """It would count what it has seen twice. What it has proven it may have forgotten."""
    one = await desk()
    one.reader.changed(OWN, verdict())
    assert not one.believed("a")
    assert one.hearsay.rumour(peer("a"), EPOCH) == 0.0
    assert one.conduct.excluded() == {key("liar").peer}
    known = one.registry.get(OWN)
    assert known is not None
    assert known.since == EPOCH


# --- whole nodes ----------------------------------------------------------------------------------


def number(node: int) -> PeerId:
    """Of a node by number, before it runs."""
    return KeySigner(hashlib.sha256(f"node{node}".encode()).digest()).peer


def attesting(*subjects: PeerId) -> FakeTrialRecords:
    return remembering(*seen(*subjects, day=TODAY - 1, rounds=40))


async def told(*heralds: VirtualNode) -> None:
    """Let these tell, and everyone hear."""
    async with trio.open_nursery() as nursery:
        for one in heralds:
            nursery.start_soon(one.herald.run)
        await trio.sleep(2.0)
        nursery.cancel_scope.cancel()


def standings(asker: VirtualNode) -> Any:
    _, core, _ = read(next(iter(asker.store.receipts.values())))
    return core.standings


async def test_the_word_of_a_trusted_verifier_counts_and_is_named(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    everyone = [number(0), number(1), number(2)]
    setups = {0: Setup(trusted=[number(1)]), 1: Setup(trials=attesting(*everyone))}
    async with nodes(network, [scripted("42")] * 3, setups=setups) as swarm:
        asker, verifier, other = swarm
        await told(verifier)
        result = await asker.coordinator.ask(ASK, ignore)
        assert result["rule"] == "equal", "all are admitted, though this node has tried nobody"
        for standing in standings(asker):
            assert standing.admitted
            assert standing.source == f"asker, {peer_text(verifier.peer)}"
            assert standing.answer.total > 0
        assert {one.peer for one in standings(asker)} == {asker.peer, verifier.peer, other.peer}


async def test_the_word_of_a_stranger_orders_newcomers_and_weighs_nothing(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    setups = {1: Setup(trials=attesting(number(0), number(1), number(2)))}
    async with nodes(network, [scripted("42")] * 3, setups=setups) as swarm:
        asker, stranger, other = swarm
        await told(stranger)
        result = await asker.coordinator.ask(ASK, ignore)
        assert result["rule"] == "uncalibrated"
        assert not any(standing.admitted for standing in standings(asker))
        assert {standing.source for standing in standings(asker)} == {"asker"}
        assert asker.knowledge.rumour(other.peer) > 0.5
        assert asker.knowledge.rumour(stranger.peer) == 0.0, "nobody praises himself"


async def test_a_verifier_need_not_be_linked_to_be_believed(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    setups = {
        0: Setup(min_answers=1, trusted=[number(1)]),
        1: Setup(trials=attesting(number(0), number(1))),
    }
    async with nodes(network, [scripted("42")] * 2, setups=setups) as swarm:
        asker, verifier = swarm
        await told(verifier)
        network.partition([verifier.peer])
        await trio.sleep(5.0)
        assert verifier.peer not in asker.registry.profiles
        assert asker.knowledge.book.admitted(asker.peer)
        asker.log.drop(verifier.peer)
        assert not asker.knowledge.book.admitted(asker.peer)


async def test_a_proof_excludes_its_signer_everywhere(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with nodes(network, [scripted("42")] * 4) as swarm:
        finder, other, third, liar = swarm
        finder.conduct.convict([offence(liar.signer)])
        assert not other.conduct.excluded()
        await trio.sleep(2.0)
        assert all(one.conduct.excluded() == {liar.peer} for one in swarm)
        assert [len(one.log.own.evidence) for one in swarm] == [1, 0, 0, 0], "it is told once"
        result = await third.coordinator.ask(ASK, ignore)
        assert result["invited"] == 3
        assert peer_text(liar.peer) not in {row["peer"] for row in result["answers"]}


async def test_a_proof_reaches_who_was_away(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with nodes(network, [scripted("42")] * 3) as swarm:
        finder, _, late = swarm
        network.partition([late.peer])
        await trio.sleep(1.0)
        finder.conduct.convict([offence(key("liar"))])
        await trio.sleep(20.0)
        assert late.conduct.excluded() == frozenset()
        network.heal()
        await trio.sleep(60.0)
        assert late.conduct.excluded() == {key("liar").peer}


async def test_who_has_forked_is_not_asked(autojump_clock: MockClock, network: FakeNetwork) -> None:
    async with nodes(network, [scripted("42")] * 3) as swarm:
        asker, _, forked = swarm
        forked.log.fork()
        await trio.sleep(1.0)
        result = await asker.coordinator.ask(ASK, ignore)
        assert result["invited"] == 2
        assert peer_text(forked.peer) not in {row["peer"] for row in result["answers"]}
        with pytest.raises(NoPeersError, match="a proof excludes it"):
            await asker.coordinator.ask(AskParams(QUESTION, min_answers=3), ignore)
        mine = await forked.coordinator.ask(ASK, ignore)
        assert mine["invited"] == 3, "it asks itself all the same, and has no word of its own fork"


async def invited(asker: VirtualNode) -> tuple[int, float]:
    """How many are asked a question, and after how many seconds."""
    began, at = trio.current_time(), 0.0

    def note(progress: Progress) -> None:
        nonlocal at
        if progress.event["kind"] == "invited":
            at = trio.current_time() - began

    result = await asker.coordinator.ask(ASK, note)
    return result["invited"], round(at, 3)


async def test_a_question_waits_for_the_log_of_who_is_linked(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with nodes(network, [scripted("42")] * 2) as swarm:
        asker, other = swarm
        _, state = asker.log.held[other.peer]
        asker.reader.changed(other.peer, None)
        assert asker.registry.able() == [asker.peer]

        async def late() -> None:
            await trio.sleep(0.5)
            asker.reader.changed(other.peer, state)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(late)
            assert await invited(asker) == (2, 0.5)


async def test_a_question_waits_for_the_link_of_who_is_known(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with nodes(network, [scripted("42")] * 2) as swarm:
        asker, other = swarm
        network.drop(asker.peer, other.peer)
        await trio.sleep(0.01)
        assert asker.registry.able() == [asker.peer]
        known = asker.registry.get(other.peer)
        assert known is not None
        assert known.profile is not None
        count, after_s = await invited(asker)
        assert count == 2
        assert 0.0 < after_s < PEERS_WAIT_S, "no longer than it took"


async def test_the_registry_and_replication_follow_the_links(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with nodes(network, [scripted("42")] * 2) as swarm:
        one, other = swarm
        seen_at: list[str] = []
        followed: list[object] = []
        one.registry.connected = lambda peer, address: seen_at.append(address)  # type: ignore[method-assign]
        one.log.linked = followed.append  # type: ignore[method-assign]
        one.log.unlinked = followed.append  # type: ignore[method-assign]
        network.drop(one.peer, other.peer)
        await trio.sleep(30)
        (link,) = (link for link in one.mesh.links() if link.peer == other.peer)
        assert seen_at == [link.address]
        gone, come = followed
        assert gone == other.peer
        assert isinstance(come, Link)
        assert (come.peer, come.address) == (link.peer, link.address)
