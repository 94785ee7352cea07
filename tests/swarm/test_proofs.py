"""Liars are convicted from the journal of a round; the honest never, whatever happens to them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol.codec import encode
from protocol.envelope import Envelope
from protocol.ids import RoundId
from protocol.messages import (
    Ballot,
    Commit,
    Invite,
    Message,
    Model,
    Proof,
    Reveal,
    Roster,
    Row,
    WaveClose,
    opened,
    parse,
    seal,
)
from protocol.proofs import check
from protocol.receipt import Broke, Entry, Expired, Heard, read
from swarm.effects import Send
from swarm.participant import State
from swarm.proofs import Witness, proofs
from tests.protocol.arbitrary import arbitrary
from tests.swarm.builders import Desk, changed
from tests.swarm.test_fuzz import KEYS, _asker_said, _bent, _own_work
from tests.swarm.test_round import honest
from tests.swarm.virtual import Peer, Rewrite, VirtualSwarm, knows, signer

BAD = signer("bad")


def journal(swarm: VirtualSwarm) -> tuple[Entry, ...]:
    _, _, opening = read(swarm.receipt)
    assert opening is not None
    return opening.journal


def convicted(swarm: VirtualSwarm) -> list[tuple[str, str]]:
    """(peer name, kind) of each proof in the journal."""
    found = [check(proof) for proof in proofs(journal(swarm))]
    return [(swarm.peers[one.peer].name, one.kind) for one in found]


def liar(kind: type[Message], rewrite: Rewrite, count: int = 4) -> VirtualSwarm:
    bad = Peer("bad", "41", knows("42"), latency=0.001, rewrite={kind: rewrite})
    return VirtualSwarm([*honest(count), bad]).run()


def and_another(**fields: object) -> Rewrite:
    return lambda peer, message: [message, changed(message, **fields)]


def instead(**fields: object) -> Rewrite:
    return lambda peer, message: [changed(message, **fields)]


# --- liars --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "rewrite", "shown"),
    [
        (Commit, and_another(commitment=bytes(32)), "equivocation"),
        (Reveal, instead(answer="42"), "commit-mismatch"),
        (Reveal, instead(salt=bytes(32)), "commit-mismatch"),
        (Ballot, lambda p, m: [m, changed(m, rows=m.rows[::-1])], "equivocation"),  # type: ignore[attr-defined]
        (Ballot, and_another(follows=b"x" * 32), "equivocation"),
    ],
    ids=["two commits", "another answer", "another salt", "two ballots", "two pasts"],
)
@pytest.mark.parametrize("count", [2, 11])
def test_a_liar_is_convicted(kind: type[Message], rewrite: Rewrite, shown: str, count: int) -> None:
    # With twelve judges there are two waves, each with its own place for a Ballot; after the
    # first lie the peer is not heard again.
    assert convicted(liar(kind, rewrite, count)) == [("bad", shown)]


def test_a_second_commit_that_comes_late_convicts() -> None:
    """Another than the first, while the answers are already being revealed."""
    bad = Peer("bad", "41", knows("42"), latency=0.001)
    kept: list[Message] = []
    bad.rewrite[Commit] = lambda peer, message: (kept.append(message), [message])[1]
    bad.rewrite[Reveal] = lambda peer, message: [changed(kept[0], commitment=bytes(32)), message]
    assert convicted(VirtualSwarm([*honest(3), bad]).run()) == [("bad", "equivocation")]


def test_each_of_several_liars_is_convicted_once() -> None:
    many: Rewrite = lambda p, m: [m, *(changed(m, commitment=bytes([n]) * 32) for n in range(5))]  # noqa: E731
    peers = [Peer(f"bad{n}", "41", knows("42"), rewrite={Commit: many}) for n in range(3)]
    shown = convicted(VirtualSwarm([*honest(4), *peers]).run())
    assert sorted(shown) == [(f"bad{n}", "equivocation") for n in range(3)]


@pytest.mark.parametrize(
    ("kind", "rewrite"),
    [
        (Commit, and_another(model=Model("renamed", "", ""))),
        (Commit, lambda p, m: [m] * 3),
        (Ballot, lambda p, m: [m] * 3),
        (Reveal, instead(roster=b"x" * 32)),
        (Reveal, instead(answer="\U0001f41d" * 8000)),
        (Ballot, instead(rows=())),
        (Ballot, instead(slate=b"x" * 32)),
        (Commit, lambda p, m: [b"garbage"]),
        (Commit, lambda p, m: [encode(Envelope(BAD.peer, encode(m), bytes(64)))]),
    ],
)
def test_what_is_only_a_fault_convicts_nobody(kind: type[Message], rewrite: Rewrite) -> None:
    """It costs the round at most. The long answer is no proof because it is too long for one."""
    swarm = liar(kind, rewrite)
    assert convicted(swarm) == []


# --- the honest ---------------------------------------------------------------------------------


class Overheard(VirtualSwarm):
    """Keeps everything that is delivered, to anyone."""

    def __init__(self, peers: list[Peer], **fields: Any) -> None:
        self.said: list[bytes] = []
        super().__init__(peers, **fields)

    def _to_asker(self, peer: Peer, payload: bytes) -> None:
        self.said.append(payload)
        super()._to_asker(peer, payload)

    def _to_peer(self, peer: Peer, payload: bytes) -> None:
        self.said.append(payload)
        super()._to_peer(peer, payload)


@st.composite
def unlucky(draw: st.DrawFn, number: int) -> Peer:
    """An honest peer to which anything may happen."""
    late = st.dictionaries(st.sampled_from([Commit, Reveal, Ballot]), st.floats(0, 12), max_size=2)
    return Peer(
        f"p{number}",
        draw(st.sampled_from(["42", "41", "40", None])),
        draw(st.sampled_from([knows("42"), lambda a, b: None, lambda a, b: 0.5])),
        latency=draw(st.floats(0.001, 3)),
        thinks=draw(st.floats(0, 12)),
        late=draw(late),
        dies_when=draw(st.sampled_from(["", "", "", *State.__members__])),
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=st.sampled_from([3, 11]))
def test_nothing_that_honest_peers_say_convicts_anyone(data: st.DataObject, count: int) -> None:
    """Slow, late, dying, mute, in one stage or several: neither the peers nor the asker."""
    swarm = Overheard(
        [data.draw(unlucky(number)) for number in range(count)],
        adaptive=data.draw(st.booleans()),
        stages=data.draw(st.sampled_from([(), (), (2,), (1, 2), (2, 5)])),
    )
    if data.draw(st.booleans()):
        swarm.at(data.draw(st.floats(0, 20)), swarm.cancel)
    swarm.run()
    witness = Witness()
    assert swarm.said
    assert [proof for payload in swarm.said if (proof := witness.hear(parse(payload)))] == []
    assert proofs(journal(swarm)) == ()


@pytest.mark.parametrize("state", list(State), ids=lambda state: state.name)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_asker_can_make_an_honest_peer_convict_itself(state: State, data: st.DataObject) -> None:
    """With other Rosters, Slates, WaveCloses, anything bent and signed, in any order."""
    desk = Desk("42", "41", "42.0").up_to(state)
    keys = KEYS | {one.peer: one for one in desk.signers}
    real = _asker_said(desk, state)
    for _ in range(data.draw(st.integers(1, 6))):
        step = data.draw(st.sampled_from(["message", "message", "own", "timer"]))
        if step == "message":
            desk.me.receive(data.draw(_bent(real, desk, keys)), 2.0)
        elif step == "own":
            _own_work(desk, data)
        elif desk.me.timer_at() is not None:
            desk.me.on_timer(desk.me.timer_at() or 0.0)
        desk.mine()
    witness = Witness()
    sent = [parse(effect.payload) for effect in desk.effects[0] if isinstance(effect, Send)]
    assert all(incoming.peer == desk.me.peer for incoming in sent)
    assert [proof for incoming in sent if (proof := witness.hear(incoming))] == []


# --- the witness --------------------------------------------------------------------------------


def test_two_rosters_or_wave_closes_convict_the_asker() -> None:
    desk = Desk("42", "41", "42.0").up_to(State.VOTED)
    witness = Witness()
    for one, other in (
        (desk.roster(), desk.roster(entries=desk.roster().entries[:2])),
        (desk.wave_close(), desk.wave_close(more=True)),
    ):
        assert witness.hear(desk.seal(one)) is None
        proof = witness.hear(desk.seal(other))
        assert isinstance(proof, Proof)
        assert check(proof).peer == desk.asker.peer
        assert witness.hear(desk.seal(other)) is None, "one proof for each offence"
    later = desk.roster(stage=1, previous=b"x" * 32)
    assert witness.hear(desk.seal(later)) is None


def test_a_witness_remembers_so_much_of_each_peer() -> None:
    witness = Witness()
    commit = Commit(RoundId(bytes(32)), bytes(32), Model("", "", ""))
    for number in range(limits.ENVELOPES_PER_PEER + 10):
        one = changed(commit, round=number.to_bytes(32, "big"))
        assert witness.hear(opened(seal(BAD, one))) is None
    assert len(witness._first) == limits.ENVELOPES_PER_PEER
    honest_one = signer("another")
    assert witness.hear(opened(seal(honest_one, commit))) is None
    assert witness.hear(opened(seal(honest_one, changed(commit, commitment=b"x" * 32)))) is not None
    beyond = changed(commit, round=(limits.ENVELOPES_PER_PEER + 1).to_bytes(32, "big"))
    assert witness.hear(opened(seal(BAD, changed(beyond, commitment=b"x" * 32)))) is None


def test_what_is_too_large_to_pass_on_is_no_proof() -> None:
    round_id = RoundId(bytes(32))
    witness = Witness()
    commit = Commit(round_id, bytes(32), Model("", "", ""))
    assert witness.hear(opened(seal(BAD, commit))) is None
    large = Reveal(round_id, bytes(32), bytes(32), "\U0001f41d" * 8000)
    assert witness.hear(opened(seal(BAD, large))) is None
    assert witness.hear(opened(seal(BAD, changed(large, answer="short")))) is not None


# --- journals of strangers ----------------------------------------------------------------------


def test_forged_messages_in_a_journal_convict_nobody() -> None:
    swarm = liar(Commit, and_another(commitment=bytes(32)))
    forged = tuple(
        changed(entry, envelope=changed(entry.envelope, signature=bytes(64)))
        if isinstance(entry, Heard)
        else entry
        for entry in journal(swarm)
    )
    assert len(proofs(journal(swarm))) == 1
    assert proofs(forged) == ()


@settings(max_examples=80)
@given(st.lists(st.one_of(arbitrary(Heard), arbitrary(Broke), arbitrary(Expired)), max_size=6))
def test_any_journal_is_read(entries: list[Entry]) -> None:
    assert proofs(entries) == ()


@settings(max_examples=80)
@given(data=st.data())
def test_a_journal_of_anything_signed_gives_valid_proofs_only(data: st.DataObject) -> None:
    """Few rounds and places, so that many of them meet."""
    kinds: list[Any] = [Commit, Reveal, Ballot, Roster, WaveClose, Invite]
    rounds = [RoundId(bytes(32)), RoundId(b"1" * 32)]
    entries = []
    for _ in range(data.draw(st.integers(0, 8))):
        message = data.draw(arbitrary(data.draw(st.sampled_from(kinds))))
        for name, few in (("round", rounds), ("slate", rounds), ("wave", [0, 1]), ("stage", [0])):
            if hasattr(message, name):
                message = changed(message, **{name: data.draw(st.sampled_from(few))})
        entries.append(Heard(0, seal(data.draw(st.sampled_from([BAD, signer("two")])), message)))
    found = [check(proof) for proof in proofs(entries)]
    assert len({one.digest for one in found}) == len(found)


def test_ballots_are_compared_with_the_first() -> None:
    ballot = Ballot(RoundId(bytes(32)), bytes(32), 0, bytes(32), (Row(0, 1, 1),))
    others = [changed(ballot, rows=(Row(0, 1, n),)) for n in (2, 3, 1)]
    entries = [Heard(0, seal(BAD, one)) for one in (ballot, *others)]
    (proof,) = proofs(entries)
    assert {proof.first, proof.second} == {entries[0].envelope, entries[1].envelope}
