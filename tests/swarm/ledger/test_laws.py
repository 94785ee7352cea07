"""The laws of the ledger, whatever is heard in whatever order.

``SWARMD_EXAMPLES=5000 python -m pytest tests/swarm/ledger/test_laws.py`` looks longer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from protocol import limits
from protocol.errors import ProtocolError
from protocol.ids import PeerId
from protocol.ledger import EPOCH_S, Fork, Run, epoch_of, fork
from protocol.presence import SKEW_S
from swarm.ledger.admission import rank
from swarm.ledger.chain import Chain
from swarm.ledger.replica import Change, Replica
from tests.swarm.ledger.authors import (
    EPOCH,
    NOW,
    SWARM,
    Author,
    FreeAdmission,
    held,
    signer,
)
from tests.swarm.ledger.worlds import (
    FORGERIES,
    Name,
    Said,
    World,
    check,
    check_passed_on,
    feed,
    forged,
    mingle,
    pull,
    saved,
    settle,
    snapshot,
    states,
    worlds,
)

EXAMPLES = int(os.environ.get("SWARMD_EXAMPLES", "25"))
laws = settings(max_examples=EXAMPLES)


def fresh(own: PeerId | None = None) -> Replica:
    return Replica(SWARM, FreeAdmission(), own)


def alike(replicas: Iterable[Replica]) -> None:
    first, *others = replicas
    for one in others:
        assert held(one) == held(first)
        assert states(one) == states(first)


# --- the same in any order ------------------------------------------------------------------------


@laws
@given(worlds(), st.booleans(), st.data())
def test_the_same_inputs_in_any_order_make_the_same_replica(
    world: World, whole: bool, data: st.DataObject
) -> None:
    said = world.whole if whole else world.said
    orders = [said, *(data.draw(st.permutations(said)) for _ in range(2))]
    replicas = [settle(fresh(), order) for order in orders]
    alike(replicas)
    for one in replicas:
        check(one)
    check_passed_on(replicas[-1])


@laws
@given(worlds(), st.data())
def test_replicas_that_hear_each_other_hold_the_same(world: World, data: st.DataObject) -> None:
    replicas = [fresh() for _ in range(3)]
    for one in world.said:
        feed(data.draw(st.sampled_from(replicas)), one.what)
    mingle(replicas)
    alike(replicas)
    for one in replicas:
        check(one)
        check_passed_on(one)


@laws
@given(worlds())
def test_what_is_heard_again_changes_nothing(world: World) -> None:
    one = settle(fresh(), world.whole)
    before = snapshot(one)
    for said in reversed(world.whole):
        found = feed(one, said.what)
        assert not isinstance(found, Change) or not found
    other = fresh()
    pull(other, one)
    pull(one, other)
    assert snapshot(one) == before


@laws
@given(st.integers(2, 6), st.data())
def test_what_comes_before_a_fork_is_passed_on(entries: int, data: st.DataObject) -> None:
    """Whatever the branches of the proof follow: what is held, each other, or nothing known."""
    author = Author("liar", entries)
    seq = data.draw(st.integers(1, entries - 1))
    left = data.draw(st.integers(0, seq))
    one = data.draw(st.sampled_from([author, author.other(left, seq - left + 2, "one")]))
    proof = one.fork(author.other(left, seq - left + 1, "other"), seq)
    pieces = [author.run(0, end) for end in (data.draw(st.integers(1, seq)), entries)]
    replica = fresh()
    for what in data.draw(st.permutations([proof, *pieces])):
        feed(replica, what)
        check(replica)
        check_passed_on(replica)
    chain = replica.chain(author.peer, EPOCH)
    assert chain is not None
    assert (chain.forked_at, chain.bodies) == (seq, author.bodies[:seq])


# --- nothing is forged ----------------------------------------------------------------------------


@laws
@given(worlds(), st.data())
def test_a_forged_run_leaves_the_replica_as_it_was(world: World, data: st.DataObject) -> None:
    one = fresh()
    for said in world.said:
        feed(one, said.what)
    before = snapshot(one)
    for said in world.whole:
        if isinstance(said.what, Fork):
            continue
        kind = data.draw(st.sampled_from(FORGERIES))
        run = forged(data.draw, said.what, kind)
        # A ticket needs no signature, and would be taken if it were a better one.
        chain = one.chain(*of(said.what))
        run = msgspec.structs.replace(run, ticket=run.ticket if chain is None else chain.ticket)
        found = feed(one, run)
        assert not isinstance(found, Change) or not found, kind
        assert snapshot(one) == before, kind


@laws
@given(worlds(), st.data())
def test_a_forged_proof_leaves_the_replica_as_it_was(world: World, data: st.DataObject) -> None:
    """Nobody can be convicted of what somebody else has signed."""
    one = settle(fresh(), world.whole[:2])
    before = snapshot(one)
    author = data.draw(st.sampled_from(world.honest))
    run = author.run(data.draw(st.integers(0, len(author.bodies) - 1)))
    other = forged(data.draw, run, data.draw(st.sampled_from(FORGERIES)))
    elsewhere = author.run(data.draw(st.integers(0, len(author.bodies) - 1)))
    proofs = [Fork(run, other), Fork(other, run), fork(run, other)]
    for proof in (*proofs, Fork(run, run), fork(run, elsewhere)):
        assert isinstance(feed(one, proof), ProtocolError)
        assert snapshot(one) == before


def of(run: Run) -> Name:
    (entry, *_) = [msgspec.msgpack.decode(body) for body in run.bodies]
    return PeerId(entry[3]), entry[4]


# --- room -----------------------------------------------------------------------------------------


@laws
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(1, 9), st.integers(0, 2)), max_size=24
    ),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_the_best_tickets_are_kept_whatever_the_order(
    offers: list[tuple[str, int, int]], room: int, order: Random
) -> None:
    """An offer is an author's log up to some entry, or the proof that it forked, with a ticket."""
    best: dict[str, int] = {}
    for name, quality, _ in offers:
        best[name] = max(best.get(name, 0), quality)
    ranks = {
        signer(name).peer: rank(quality, signer(name).peer, EPOCH) for name, quality in best.items()
    }
    kept = sorted(ranks, key=ranks.__getitem__)[-room:]
    said = [_offer(*one) for one in offers]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "AUTHORS", room)
        replicas = []
        for _ in range(3):
            order.shuffle(said)
            replicas.append(settle(fresh(), said))
            check(replicas[-1])
            assert sorted(replicas[-1].authors()) == sorted(kept)
        alike(replicas)


def _offer(name: str, quality: int, kind: int) -> Said:
    author = Author(name, 2, quality=quality)
    if kind == 0:
        return Said(author.fork(author.other(1), 1), f"<{name}> {quality}")
    return Said(author.run(0, kind), f"{name} [0:{kind}] {quality}")


@laws
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(0, 5), st.integers(1, 6), st.booleans()),
        max_size=30,
    ),
    st.integers(300, 2000),
)
def test_memory_is_bounded(steps: list[tuple[str, int, int, bool]], room: int) -> None:
    """Beyond the limit there are at most the own log, guests, and one chain of an author."""
    own = signer("a").peer
    one = fresh(own)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "LEDGER_BYTES", room)
        patch.setattr(limits, "GUESTS", 2)
        for name, quality, entries, other in steps:
            author = Author(name, entries, quality=quality)
            twin = author.other(entries - 1) if other else author
            run = twin.run(ticket=bool(quality))
            found = feed(one, run, source=author.peer)
            check(one, own)
            assert one.guests <= 2
            sizes = [chain.size for chain in one.chains().values()]
            free = [
                chain.size
                for chain in one.chains().values()
                if not chain.admitted or chain.author == own
            ]
            assert one.bytes <= room + sum(free) + max(sizes, default=0)
            if isinstance(found, Change):
                gone = set(found.evicted)
                assert not gone & one.chains().keys()
                assert (author.peer, EPOCH) not in gone


# --- time, and restarts ---------------------------------------------------------------------------


@laws
@given(worlds(3, (EPOCH - 1, EPOCH)), st.integers(0, 3))
def test_what_is_over_never_comes_back(world: World, weeks: int) -> None:
    one, other = settle(fresh(), world.whole), settle(fresh(), world.whole)
    now = NOW + weeks * EPOCH_S
    gone = one.expire(now)
    assert {epoch for _, epoch in gone} <= {EPOCH - 1, EPOCH}
    left = snapshot(one)
    assert {epoch for _, epoch in one.chains()} == {
        epoch for _, epoch in other.chains() if epoch >= EPOCH - 1 + weeks
    }
    for said in world.whole:
        found = feed(one, said.what, now)
        assert not isinstance(found, Change) or not found
    pull(one, other, now)
    assert snapshot(one) == left
    check(one)


@laws
@given(worlds())
def test_a_restart_changes_nothing(world: World) -> None:
    one = fresh()
    for said in world.said:
        feed(one, said.what)
    again = saved(one)
    for other in (again, saved(again)):
        assert held(other) == held(one)
        assert states(other) == states(one)
        assert (other.bytes, other.entries, other.guests) == (one.bytes, one.entries, one.guests)
        check(other)
        check_passed_on(other)
    for said in world.whole:
        assert outcome(feed(again, said.what)) == outcome(feed(one, said.what))
        assert held(again) == held(one)
        check(again)


def outcome(found: Change | ProtocolError) -> object:
    return found if isinstance(found, Change) else (type(found), str(found))


DAMAGE = ("author", "epoch", "body", "lost", "doubled", "swapped", "signature", "proof", "tail")


@laws
@given(worlds(), st.data())
def test_damage_is_not_restored(world: World, data: st.DataObject) -> None:
    one = settle(fresh(), world.said)
    for chain in one.chains().values():
        for damage in DAMAGE:
            kept = damaged(chain, damage, data)
            if kept is None:
                continue
            again = fresh()
            author, epoch, bodies, signatures, proof = kept
            with pytest.raises(ProtocolError):
                again.restore(author, epoch, bodies, signatures, chain.ticket, chain.quality, proof)
            assert snapshot(again) == snapshot(fresh())


Kept = tuple[PeerId, int, list[bytes], dict[int, bytes], Fork | None]


def damaged(chain: Chain, damage: str, data: st.DataObject) -> Kept | None:
    """What a disk holds of ``chain``, with some damage; None where there is nothing to damage."""
    author, epoch, bodies, proof = chain.author, chain.epoch, [*chain.bodies], chain.fork
    last = len(bodies) - 1
    signatures = {at: of for at, of in chain.signatures.items() if at == last}
    at = data.draw(st.integers(0, max(0, last)))
    match damage:
        case "author":
            author = PeerId(bent(data, author))
        case "epoch":
            epoch += data.draw(st.sampled_from([-1, 1]))
        case "body" if bodies:
            bodies[at] = bent(data, bodies[at])
        case "lost" if bodies:
            del bodies[at]
            signatures = {seq - 1: of for seq, of in signatures.items() if bodies}
            proof = proof if bodies else None
        case "doubled" if bodies:
            bodies.insert(at, bodies[at])
        case "swapped" if last > 0:
            bodies[at - 1], bodies[at] = bodies[at], bodies[at - 1]
        case "signature" if signatures:
            signatures[last] = bent(data, signatures[last])
        case "proof" if proof is not None:
            run = msgspec.structs.replace(proof.one, signature=bent(data, proof.one.signature))
            proof = Fork(run, proof.other)
        case "tail" if proof is not None:
            bodies = [*bodies, *proof.one.bodies]
            signatures = {len(bodies) - 1: proof.one.signature}
        case _:
            return None
    return author, epoch, bodies, signatures, proof


def bent(data: st.DataObject, value: bytes) -> bytes:
    changed = bytearray(value)
    changed[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    return bytes(changed)


class Swarm(RuleBasedStateMachine):
    """Three replicas, one of them an author's, that hear pieces, each other and forgeries, forget
    guests, restart, and grow older."""

    replicas: list[Replica]
    world: World

    @initialize(world=worlds(4, (EPOCH - 1, EPOCH, EPOCH + 1)))
    def begin(self, world: World) -> None:
        self.world = world
        self.said = world.whole
        self.own = world.honest[0].peer
        self.replicas = [fresh(self.own), fresh(), fresh()]
        self.now = NOW
        self.seen: dict[tuple[PeerId, int, int], list[bytes]] = {}
        self.ends: dict[Name, int] = {}

    @rule(which=st.integers(0, 2), data=st.data())
    def hear(self, which: int, data: st.DataObject) -> None:
        self._feed(which, data.draw(st.sampled_from(self.said)).what)

    @rule(which=st.integers(0, 2), data=st.data())
    def hear_from_its_author(self, which: int, data: st.DataObject) -> None:
        said = data.draw(st.sampled_from(self.said)).what
        if isinstance(said, Run):
            self._feed(which, msgspec.structs.replace(said, ticket=b""), of(said)[0])

    @rule(which=st.integers(0, 2), other=st.integers(0, 2))
    def hear_another(self, which: int, other: int) -> None:
        pull(self.replicas[which], self.replicas[other], self.now)

    @rule(which=st.integers(0, 2), kind=st.sampled_from(FORGERIES), data=st.data())
    def hear_a_forgery(self, which: int, kind: str, data: st.DataObject) -> None:
        said = data.draw(st.sampled_from(self.said)).what
        if isinstance(said, Run):
            one = self.replicas[which]
            before = snapshot(one)
            run = msgspec.structs.replace(forged(data.draw, said, kind), ticket=b"")
            found = feed(one, run, self.now, of(said)[0])
            assert not isinstance(found, Change) or not found
            assert snapshot(one) == before

    @rule(which=st.integers(0, 2), data=st.data())
    def forget_a_guest(self, which: int, data: st.DataObject) -> None:
        one = self.replicas[which]
        authors = sorted(one.authors())
        if authors:
            author = data.draw(st.sampled_from(authors))
            kept = {name: chain for name, chain in one.chains().items() if name[0] != author}
            admitted = held(one)
            gone = one.dismiss(author)
            assert held(one) == admitted
            assert all(name[0] == author for name in gone)
            assert kept.items() <= one.chains().items()

    @rule(which=st.integers(0, 2))
    def restart(self, which: int) -> None:
        own = None if which else self.own
        again = saved(self.replicas[which], own)
        assert held(again) == held(self.replicas[which])
        assert again.chains().keys() == self.replicas[which].chains().keys()
        self.replicas[which] = again

    @rule(days=st.integers(0, 3))
    def wait(self, days: int) -> None:
        self.now += days * EPOCH_S / 7

    @rule(which=st.integers(0, 2))
    def expire(self, which: int) -> None:
        one = self.replicas[which]
        gone = one.expire(self.now)
        assert all(epoch < epoch_of(self.now) - 1 for _, epoch in gone)
        assert all(epoch >= epoch_of(self.now) - 1 for _, epoch in one.chains())

    def _feed(self, which: int, what: Run | Fork, source: PeerId | None = None) -> None:
        one = self.replicas[which]
        before = snapshot(one)
        found = feed(one, what, self.now, source)
        if not (isinstance(found, Change) and found):
            assert snapshot(one) == before
            return
        name = found.author, found.epoch
        chain = one.chain(*name)
        assert chain is not None
        if name not in before[0] and name[0] not in (source, None if which else self.own):
            assert chain.admitted
        assert epoch_of(self.now) - 1 <= found.epoch <= epoch_of(self.now + SKEW_S)
        for seq, body in enumerate(chain.bodies):
            known = self.seen.setdefault((*name, seq), [])
            if body not in known:
                known.append(body)
        if chain.forked_at is not None:
            self.ends[name] = min(chain.forked_at, self.ends.get(name, chain.forked_at))

    @invariant()
    def counts_are_right(self) -> None:
        for which, one in enumerate(self.replicas):
            check(one, None if which else self.own)

    @invariant()
    def no_honest_author_is_frozen(self) -> None:
        said = {(one.peer, one.epoch): one.bodies for one in self.world.honest}
        for one in self.replicas:
            for name, chain in one.chains().items():
                if name in said:
                    assert chain.fork is None
                    assert chain.bodies == said[name][: len(chain.bodies)]

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        for one in self.replicas:
            one.expire(self.now)
        mingle(self.replicas, self.now)
        alike(self.replicas)
        for one in self.replicas:
            settle(one, self.said, self.now)
            check_passed_on(one, self.now)
        alike(self.replicas)
        for name, chain in self.replicas[0].chains().items():
            known = [seq for (*of, seq), some in self.seen.items() if (*of,) == name and some[1:]]
            known += [self.ends[name]] if name in self.ends else []
            if known:
                assert chain.forked_at is not None
                assert chain.forked_at <= min(known)


TestSwarm = Swarm.TestCase
TestSwarm.settings = settings(max_examples=EXAMPLES // 2 + 1, stateful_step_count=30)
