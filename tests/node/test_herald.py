"""What nodes tell each other of peers, over fake wires: when, to whom, and what it changes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from protocol import limits
from protocol.codec import encode
from protocol.envelope import KeySigner
from protocol.ids import PeerId, RoundId, peer_text
from protocol.messages import Hints, Profile, ProofNotice, parse, seal
from protocol.methods import AskParams
from protocol.receipt import read
from swarm.hints import DAY_S, daily
from swarm.trial import Trial
from tests.fakes.mesh import FakeNetwork
from tests.fakes.trial_records import FakeTrialRecords
from tests.node.virtual_node import (
    EPOCH,
    QUESTION,
    Setup,
    VirtualNode,
    acquainted,
    inline,
    nodes,
    scripted,
    unix_time,
)
from tests.swarm.test_hints import hints, word
from tests.swarm.trials import mark, trial
from tests.swarm.virtual import signer

TODAY = EPOCH // DAY_S
UNTIL_MIDNIGHT = DAY_S - EPOCH % DAY_S


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual clock would run on beside a thread."""
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork(seed=1)


def peer(name: str) -> PeerId:
    return signer(name).peer


def seen(*subjects: PeerId, day: int, rounds: int = 1, right: bool = True) -> list[Trial]:
    """Trials of a day in which these were good, or bad."""
    marks = [mark("x", (6 if right else 0, 6), wrong="" if right else "7") for _ in subjects]
    made = []
    for number in range(rounds):
        round_id = RoundId(day.to_bytes(16, "big") + number.to_bytes(16, "big"))
        fields = [
            msgspec.structs.replace(one, peer=subject)
            for one, subject in zip(marks, subjects, strict=True)
        ]
        whole = trial(*fields, topic="add", kind="hidden", at=day * DAY_S + number)
        made.append(msgspec.structs.replace(whole, round=round_id))
    return made


def remembering(*trials: Trial) -> FakeTrialRecords:
    records = FakeTrialRecords()
    records.trials = {one.round: one for one in trials}
    return records


def key(node: int) -> PeerId:
    """Of a node by number, before it runs."""
    return KeySigner(hashlib.sha256(f"node{node}".encode()).digest()).peer


class Ears:
    """Notes the hints that reach nodes, with who sent them."""

    def __init__(self, *listeners: VirtualNode) -> None:
        self.heard: list[tuple[PeerId, PeerId, Hints]] = []
        for one in listeners:
            self._listen(one)

    def _listen(self, node: VirtualNode) -> None:
        heard = node.herald.heard

        def note(source: PeerId, said: Hints) -> None:
            self.heard.append((source, node.peer, said))
            heard(source, said)

        node.herald.heard = note  # type: ignore[method-assign]

    def days(self) -> list[int]:
        return sorted(said.day for _, _, said in self.heard)


@asynccontextmanager
async def pair(network: FakeNetwork, *setups: Setup) -> AsyncIterator[list[VirtualNode]]:
    """Nodes with these setups, that all know each other; heralds run."""
    backends = [scripted("42") for _ in setups]
    async with (
        nodes(network, backends, setups=dict(enumerate(setups))) as made,
        trio.open_nursery() as nursery,
    ):
        for one in made:
            nursery.start_soon(one.herald.run)
        await trio.sleep(1.0)
        yield made
        nursery.cancel_scope.cancel()


async def reconnect(network: FakeNetwork, *both: VirtualNode) -> None:
    network.drop(both[0].peer, both[1].peer)
    await trio.sleep(5.0)
    await acquainted(both)


# --- when and to whom -----------------------------------------------------------------------------


async def test_the_sums_of_days_that_are_over_go_to_whoever_connects(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    days = [
        TODAY - limits.HINT_DAYS - 1,
        TODAY - limits.HINT_DAYS,
        TODAY - 3,
        TODAY - 1,
    ]
    trials = [one for day in days for one in seen(peer("x"), day=day, rounds=day % 3 + 1)]
    async with pair(network, Setup(trials=remembering(*trials)), Setup()) as (told, listener):
        ears = Ears(listener)
        await reconnect(network, told, listener)
        assert ears.days() == days[1:]
        for source, _, said in ears.heard:
            assert source == told.peer
            assert said == daily(trials, said.day)
            assert said.expires > EPOCH


async def test_what_a_day_still_brings_is_told_to_nobody(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    """Whoever connects before and after a round would learn whether it was a test."""
    trials = seen(peer("x"), day=TODAY, rounds=3)
    async with pair(network, Setup(trials=remembering(*trials[:2])), Setup()) as (told, listener):
        ears = Ears(listener)
        await reconnect(network, told, listener)
        await told.knowledge.add(trials[2])
        await reconnect(network, told, listener)
        assert ears.heard == []


async def test_when_a_day_is_over_everyone_is_told_of_it(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    trials = seen(peer("x"), day=TODAY, rounds=2)
    setups = [Setup(trials=remembering(*trials)), Setup(), Setup()]
    async with pair(network, *setups) as (told, *listeners):
        ears = Ears(told, *listeners)
        await trio.sleep(UNTIL_MIDNIGHT - 60)
        assert ears.heard == []
        await trio.sleep(120)
        assert {(source, to) for source, to, _ in ears.heard} == {
            (told.peer, one.peer) for one in listeners
        }
        assert ears.days() == [TODAY, TODAY]
        assert ears.heard[0][2].sums[0].rounds == 2
        await told.knowledge.add(
            msgspec.structs.replace(seen(peer("y"), day=TODAY + 1)[0], at=(TODAY + 1) * DAY_S + 9)
        )
        await trio.sleep(DAY_S)
        assert ears.days() == [TODAY] * 2 + [TODAY + 1] * 2


async def test_a_clock_that_rings_early_tells_of_the_day_all_the_same(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    """The monotonic clock may run ahead of the other."""
    trials = seen(peer("x"), day=TODAY)
    async with pair(network, Setup(trials=remembering(*trials)), Setup()) as (told, listener):
        ears = Ears(listener)
        began = trio.current_time()

        def slow() -> float:
            return EPOCH + began + 0.99999 * (trio.current_time() - began)

        told.herald._clock = slow
        await trio.sleep(UNTIL_MIDNIGHT + 600)
        assert ears.days() == [TODAY]


async def test_a_day_without_trials_is_not_spoken_of(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with pair(network, Setup(), Setup()) as made:
        ears = Ears(*made)
        await reconnect(network, *made)
        await trio.sleep(2 * DAY_S)
        assert ears.heard == []


async def test_hints_are_signed_once_however_often_somebody_connects(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    trials = seen(peer("x"), day=TODAY - 1)
    async with pair(network, Setup(trials=remembering(*trials)), Setup()) as (told, listener):
        ears = Ears(listener)
        signed: list[bytes] = []

        class Counting:
            peer = told.peer

            def seal(self, body: bytes) -> Any:
                signed.append(body)
                return told.signer.seal(body)

        told.herald._signer = Counting()
        told.herald._sealed.clear()
        for _ in range(3):
            await reconnect(network, told, listener)
        assert len(ears.heard) == 3
        assert len(signed) == 1
        # What is graded anew is signed anew.
        await told.knowledge.add(msgspec.structs.replace(trials[0], at=trials[0].at + 1))
        await reconnect(network, told, listener)
        assert len(signed) == 2


async def test_a_peer_that_is_gone_is_told_nothing(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    trials = seen(peer("x"), day=TODAY - 1)
    async with pair(network, Setup(trials=remembering(*trials)), Setup()) as (told, _):
        told.herald.welcome(peer("gone"))


async def test_the_largest_hints_can_be_sent(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    """Peers choose what they claim to run: that must not make a node fail that tells of them."""
    claims = [f"{number:04}" + "\U0001f41d" * 60 for number in range(limits.HINT_SUMS)]
    one = seen(peer("x"), day=TODAY - 1)[0]
    trials = [
        msgspec.structs.replace(
            one,
            round=RoundId(number.to_bytes(32, "big")),
            marks=(msgspec.structs.replace(one.marks[0], model=claim),),
        )
        for number, claim in enumerate(claims)
    ]
    async with pair(network, Setup(trials=remembering(*trials)), Setup()) as (told, listener):
        ears = Ears(listener)
        await reconnect(network, told, listener)
        assert [len(said.sums) for _, _, said in ears.heard] == [limits.HINT_SUMS]


# --- whose word counts ----------------------------------------------------------------------------


def attesting(*subjects: PeerId) -> FakeTrialRecords:
    return remembering(*seen(*subjects, day=TODAY - 1, rounds=40))


async def test_the_word_of_a_trusted_verifier_counts_and_is_named(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    setups = [Setup(trusted=[key(1)]), Setup(trials=attesting(key(1), key(2), key(0))), Setup()]
    async with pair(network, *setups) as (asker, verifier, other):
        result = await asker.coordinator.ask(AskParams(QUESTION), lambda one: None)
        assert result["rule"] == "equal", "all are admitted, though this node has tried nobody"
        _, core, _ = read(next(iter(asker.store.receipts.values())))
        for standing in core.standings:
            assert standing.admitted
            assert standing.source == f"asker, {peer_text(verifier.peer)}"
            assert standing.answer.total > 0
        assert {one.peer for one in core.standings} == {asker.peer, verifier.peer, other.peer}


async def test_the_word_of_a_stranger_orders_newcomers_and_weighs_nothing(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    setups = [Setup(), Setup(trials=attesting(key(1), key(2), key(0))), Setup()]
    async with pair(network, *setups) as (asker, stranger, other):
        result = await asker.coordinator.ask(AskParams(QUESTION), lambda one: None)
        assert result["rule"] == "uncalibrated"
        _, core, _ = read(next(iter(asker.store.receipts.values())))
        assert not any(standing.admitted for standing in core.standings)
        assert {standing.source for standing in core.standings} == {"asker"}
        assert asker.registry._hints[other.peer] > 0.5
        assert asker.registry._hints[stranger.peer] == 0.0, "nobody praises himself"


async def test_who_connects_later_is_known_from_hearsay(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    setups = [Setup(), Setup(trials=attesting(key(2))), Setup()]
    async with pair(network, *setups) as (asker, _, late):
        assert asker.registry._hints[late.peer] > 0.5
        network.partition([late.peer])
        await trio.sleep(5.0)
        assert late.peer not in asker.registry._hints
        network.heal()
        await trio.sleep(60.0)
        assert asker.registry._hints[late.peer] > 0.5


async def test_what_is_said_of_peers_that_are_not_here_takes_no_place(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    absent = [peer(f"absent {number}") for number in range(50)]
    setups = [Setup(), Setup(trials=attesting(*absent[:40]))]
    async with pair(network, *setups) as (asker, _):
        assert not set(absent) & set(asker.registry._hints)


# --- what is refused ------------------------------------------------------------------------------


def forged(by: VirtualNode) -> bytes:
    envelope = seal(by.signer, hints(word("a"), day=TODAY))
    return encode(msgspec.structs.replace(envelope, signature=bytes(64)))


def of_another(by: VirtualNode) -> bytes:
    return encode(seal(signer("somebody"), hints(word("a"), day=TODAY)))


def unsorted(by: VirtualNode) -> bytes:
    said = hints(word("a"), word("b"), day=TODAY)
    return encode(seal(by.signer, msgspec.structs.replace(said, sums=said.sums[::-1])))


def endless(by: VirtualNode) -> bytes:
    return encode(seal(by.signer, hints(word("a"), day=TODAY, expires=2**40)))


def oversize(by: VirtualNode) -> bytes:
    return encode(
        seal(
            by.signer,
            hints(*(word(f"p{number}") for number in range(limits.HINT_SUMS + 1)), day=TODAY),
        )
    )


def impossible(by: VirtualNode) -> bytes:
    return encode(seal(by.signer, hints(word("a", 11, 10), day=TODAY)))


@pytest.mark.parametrize("bad", [forged, of_another, unsorted, endless, oversize, impossible])
async def test_what_no_honest_node_says_is_malformed(
    autojump_clock: MockClock, network: FakeNetwork, bad: Any
) -> None:
    async with pair(network, Setup(trusted=[key(1)]), Setup()) as (node, liar):
        liar.mesh.send(node.peer, bad(liar))
        await trio.sleep(1.0)
        assert node.router._malformed[liar.peer] == 1
        assert node.knowledge.hearsay.told(peer("a"), "model", int(unix_time())) is None
        for _ in range(limits.MALFORMED_PER_PEER - 1):
            liar.mesh.send(node.peer, bad(liar))
        await trio.sleep(0.1)
        assert node.router._malformed[liar.peer] == 0, "the link was closed"


@pytest.mark.parametrize("days", [-400, -30, -2, 2, 30])
async def test_a_clock_that_is_wrong_is_no_offence(
    autojump_clock: MockClock, network: FakeNetwork, days: int
) -> None:
    """All hints of such a node are of days that do not count; it is a peer all the same."""
    trials = [one for day in range(1, 8) for one in seen(key(0), day=TODAY + days - day)]
    setups = [Setup(), Setup(trials=remembering(*trials))]
    async with pair(network, *setups) as (node, wrong):
        wrong.herald._clock = lambda: unix_time() + days * DAY_S
        ears = Ears(node)
        for _ in range(3):
            await reconnect(network, node, wrong)
        assert len(ears.heard) == 3 * limits.HINT_DAYS
        assert node.router._malformed[wrong.peer] == 0
        assert wrong.peer in node.registry.profiles
        result = await node.coordinator.ask(AskParams(QUESTION), lambda one: None)
        assert result["missing"] == []


async def test_a_flood_of_hints_costs_nobody_else_a_round(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with pair(network, Setup(), Setup(), Setup()) as (node, hostile, _):
        sums = [word(f"p{number}") for number in range(100)]
        payloads = [encode(seal(hostile.signer, hints(*sums, day=TODAY - ago))) for ago in range(5)]

        async def flood() -> None:
            while True:
                for payload in payloads:
                    hostile.mesh.send(node.peer, payload)
                await trio.sleep(0.1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            result = await node.coordinator.ask(AskParams(QUESTION), lambda one: None)
            nursery.cancel_scope.cancel()
        assert result["answer"] == "42"
        assert result["missing"] == []
        heard = node.knowledge.hearsay._heard
        assert list(heard) == [hostile.peer]
        assert sum(day.size for day in heard[hostile.peer].values()) == 500


def test_the_other_messages_between_peers_stay_what_they_are() -> None:
    """Hints are told apart from all else by their tag alone."""
    kinds: Sequence[Any] = (Hints, Profile, ProofNotice)
    assert len({kind.__struct_config__.tag for kind in kinds}) == 3
    said = hints(word("a"), day=TODAY)
    assert parse(encode(seal(signer("a"), said))).message == said
