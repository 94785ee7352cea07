"""What a peer sees of a hidden test and of a real question on the same terms: the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from protocol.envelope import Envelope
from protocol.ids import PeerId, RoundId
from protocol.messages import (
    Close,
    FromAsker,
    Invite,
    Roster,
    WaveClose,
    opened,
    parse,
)
from protocol.methods import AskParams, CalibrateParams, Progress
from swarm.calibration.items import Item
from tests.fakes.mesh import FakeNetwork
from tests.fakes.store import FakeStore
from tests.node.virtual_node import Setup, VirtualNode, inline, nodes, scripted

PEERS = 4
PRIVATE = [
    Item(f"Which port has gateway {number:02}?", ("8443",), None, "private") for number in range(60)
]
REAL = "Which node has customer 17?"
DISK_S = 0.05
"""How long a write takes."""


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual clock would run on beside a thread."""
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


@pytest.fixture(autouse=True)
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes its time with whatever is kept durably."""
    for name in ("accept", "mark_running", "finish", "put_receipt", "rehearse_receipt"):
        write = getattr(FakeStore, name)

        async def slow(self: FakeStore, *arguments: Any, write: Any = write) -> Any:
            await trio.sleep(DISK_S)
            return await write(self, *arguments)

        monkeypatch.setattr(FakeStore, name, slow)


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork(seed=1)


def ignore(progress: Progress) -> None:
    """Nobody watches."""


def shape(value: Any) -> Any:
    """A message less what is unique to a round: texts, ids and signatures become their length."""
    match value:
        case Envelope():
            return ("signed", value.signer, shape(opened(value).message))
        case msgspec.Struct():
            fields = {name: shape(getattr(value, name)) for name in type(value).__struct_fields__}
            if isinstance(value, Invite):
                fields["question"] = "asked"
            return (type(value).__name__, tuple(fields.items()))
        case tuple():
            return tuple(map(shape, value))
        case bytes():
            return ("bytes", len(value))
    return value


class Witness:
    """Notes what goes from one node to another, by round."""

    def __init__(self, network: FakeNetwork, asker: VirtualNode, peer: PeerId) -> None:
        self.rounds: dict[RoundId, Seen] = {}
        self.others: list[object] = []
        network.corrupt(asker.peer, peer, self._note)

    def _note(self, payload: bytes) -> bytes:
        incoming = parse(payload)
        message: Any = incoming.message
        if not isinstance(message, FromAsker):
            self.others.append(message)
        else:
            own = RoundId(incoming.envelope.digest)
            named = own if isinstance(message, Invite) else message.round
            row = (trio.current_time(), message, len(payload))
            self.rounds.setdefault(named, []).append(row)
        return payload

    def kinds(self) -> dict[bool, list[Seen]]:
        """The rounds of real questions (True) and of tests."""
        found: dict[bool, list[Seen]] = {True: [], False: []}
        for seen in self.rounds.values():
            assert isinstance(seen[0][1], Invite)
            found[seen[0][1].question == REAL].append(seen)
        return found


def view(seen: Seen) -> list[Any]:
    """All that a round shows but its texts: when, what and how much."""
    began = seen[0][0]
    return [
        (round(at - began, 9), shape(message), 0 if isinstance(message, Invite) else size)
        for at, message, size in seen
    ]


Seen = list[tuple[float, FromAsker, int]]
Views = dict[tuple[PeerId, frozenset[PeerId]], set[str]]
"""What a peer has seen of rounds with a committee."""


def views(peer: PeerId, rounds: list[Seen]) -> Views:
    found: Views = {}
    for seen in rounds:
        (roster,) = (message for _, message, _ in seen if isinstance(message, Roster))
        committee = frozenset(entry.peer for entry in roster.entries)
        found.setdefault((peer, committee), set()).add(repr(view(seen)))
    return found


async def watched(
    network: FakeNetwork, swarm: list[VirtualNode], **terms: Any
) -> tuple[Views, Views]:
    """What peers see of real questions, and of the hidden tests that go with them.

    Asks until some tests have been put, and each to a committee that had a real question, too.
    """
    asker, *others = swarm
    witnesses = [(one.peer, Witness(network, asker, one.peer)) for one in others]
    for _ in range(80):
        await asker.coordinator.ask(AskParams(REAL, **terms), ignore)
        await trio.sleep(600.0)
        real: Views = {}
        hidden: Views = {}
        for peer, witness in witnesses:
            kinds = witness.kinds()
            real |= views(peer, kinds[True])
            hidden |= views(peer, kinds[False])
        if len(asker.trials.trials) >= 3 and hidden.keys() <= real.keys():
            break
    assert {one.kind for one in asker.trials.trials.values()} == {"hidden"}
    return real, hidden


def backends() -> list[Any]:
    """Their answers have one length, whatever is asked."""
    return [scripted(f"{8440 + number}", truth="8443") for number in range(PEERS)]


def asker_only(**fields: Any) -> Mapping[int, Setup]:
    return {0: Setup(private=PRIVATE, **fields)}


@pytest.mark.parametrize(
    "terms",
    [
        {},
        {"timeout_s": 17.5},
        {"peers": 3},
        {"answer_tokens": 99},
        {"min_answers": 3, "timeout_s": 8.0},
        {"energy_j": 4.0},
        {"peers": 2, "answer_tokens": 5, "energy_j": 1e6},
    ],
    ids=lambda terms: "-".join(terms) or "plain",
)
async def test_a_hidden_test_shows_what_a_question_on_its_terms_shows(
    autojump_clock: MockClock, network: FakeNetwork, terms: dict[str, Any]
) -> None:
    async with nodes(network, backends(), setups=asker_only(rate=0.5)) as swarm:
        real, hidden = await watched(network, swarm, **terms)
    assert hidden
    for key, shown in hidden.items():
        # Rounds with the same people at the table are equal to the last byte and microsecond.
        assert shown == real[key]
        assert len(shown) == 1
        assert all(kind in next(iter(shown)) for kind in ("Slate", "WaveClose", "Close"))


async def test_what_an_invite_says_is_what_the_terms_say(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    """So that the test above compares something."""
    async with nodes(network, backends(), setups=asker_only(rate=0.5)) as swarm:
        asker = swarm[0]
        witness = Witness(network, asker, swarm[1].peer)
        for terms in ({}, {"timeout_s": 9.0}, {"answer_tokens": 7}):
            await asker.coordinator.ask(AskParams(REAL, **terms), ignore)  # type: ignore[arg-type]
        views = {repr(view(one)) for one in witness.kinds()[True]}
        assert len(views) == 3


async def test_a_close_waits_for_the_disk_in_a_test_as_well(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with nodes(network, backends(), setups=asker_only(rate=0.5)) as swarm:
        asker = swarm[0]
        witness = Witness(network, asker, swarm[1].peer)
        await watched(network, swarm[:1])
        rounds = [seen for kind in witness.kinds().values() for seen in kind]
        assert len(witness.kinds()[False]) > 0
        for seen in rounds:
            times = {type(message): at for at, message, _ in seen}
            assert times[Close] - times[WaveClose] == pytest.approx(DISK_S)
        assert asker.store.rehearsals
        assert set(asker.store.receipts) == {
            one
            for one, seen in witness.rounds.items()
            if seen[0][1].question == REAL  # type: ignore[union-attr]
        }


async def test_the_background_shows_the_same_as_well(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    """Though a peer may guess from its time what it is."""
    async with nodes(network, backends(), setups=asker_only()) as swarm:
        asker, other, *_ = swarm
        witness = Witness(network, asker, other.peer)
        await asker.coordinator.ask(AskParams(REAL), ignore)
        await asker.calibrator.calibrate(CalibrateParams(3), ignore)
        (real,), tests = witness.kinds()[True], witness.kinds()[False]
        assert len(tests) == 3
        for one in tests:
            assert view(one) == view(real)


async def test_no_peer_is_told_of_a_test_by_anything_else(
    autojump_clock: MockClock, network: FakeNetwork
) -> None:
    async with nodes(network, backends(), setups=asker_only(rate=0.5)) as swarm:
        witnesses = [Witness(network, swarm[0], one.peer) for one in swarm[1:]]
        await watched(network, swarm[:1])
        assert [one.others for one in witnesses] == [[]] * len(witnesses)


def test_the_shape_of_a_message_keeps_what_could_tell() -> None:
    """Numbers, flags, outcomes and who sits where; not ids and digests."""
    close, other = (Close(RoundId(bytes([n]) * 32), "answer", bytes(32)) for n in (1, 2))
    assert shape(close) == shape(other)
    assert shape(close) != shape(msgspec.structs.replace(close, outcome="no-consensus"))
    roster = Roster(bytes(32), 0, bytes(32), ())  # type: ignore[arg-type]
    assert shape(roster) != shape(msgspec.structs.replace(roster, stage=1))
