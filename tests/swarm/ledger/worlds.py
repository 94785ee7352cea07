"""What the laws of the ledger are about: who signed what, and what has to hold of whoever hears it.

A world has two honest authors and one who says several things at once: branches that leave the
first one, or each other, at any depth, some of which say what nobody may, and single entries that
lie about what they follow. Replicas hear pieces of branches, with or without a ticket, and proofs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from hypothesis import strategies as st

from protocol import limits
from protocol.codec import encode
from protocol.digest import digest
from protocol.errors import ForkedError, ProtocolError, RefusedError
from protocol.ids import PeerId
from protocol.ledger import (
    EPOCH_S,
    Calibration,
    Capability,
    Content,
    Evidence,
    Fork,
    Hints,
    Place,
    Run,
    check_fork,
    check_links,
    check_signature,
    entry_digest,
    epoch_of,
    fork,
    next_entry,
    read_entry,
    sign,
)
from protocol.messages import Proof
from swarm.ledger import guard
from swarm.ledger.chain import Chain
from swarm.ledger.document import client_of
from swarm.ledger.replica import Change, Replica
from swarm.ledger.state import State, state
from tests.swarm.ledger.authors import EPOCH, NOW, SWARM, Author, FreeAdmission, free_ticket, signer
from tests.swarm.ledger.updates import structs, text, written

Name = tuple[PeerId, int]

LIAR = "liar"
QUALITIES = 3
HOSTILE = 3
LIES = ("prev", "offset", "at")


def hostile(author: Author, which: int) -> Content:
    """What ``author`` may not say, for reasons that only all that it says shows; or never."""
    client = client_of(author.peer, author.epoch)
    return (
        Capability(structs(99, written("note", text(b"")), client=client) + b"\x00"),
        Capability(b"\x00\x01"),
        Calibration(Hints(author.epoch * 7 + 100, 0, ())),
    )[which]


# --- what is said ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """Something that a replica may hear.

    Attributes:
        label: for people.
    """

    what: Run | Fork
    label: str

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        printer.text(self.label)


@dataclass
class World:
    """Attributes:
    honest: authors who say one thing.
    branches: all of the one who does not.
    splices: single entries of it that follow from nothing.
    said: what replicas hear of all that.
    """

    honest: list[Author]
    branches: list[Author]
    splices: list[Said]
    said: list[Said]

    @property
    def whole(self) -> list[Said]:
        """All branches, and then all that is said of them."""
        runs = [Said(one.run(), label(one)) for one in (*self.honest, *self.branches)]
        return runs + self.said

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        for one in self.branches:
            names = " ".join(entry_digest(body).hex()[:4] for body in one.bodies)
            printer.text(f"({label(one)}: {names}) ")
        printer.pretty(self.said)


def label(author: Author) -> str:
    return f"{author.name} {author.accent}"


_KIND = st.integers(0, HOSTILE - 1)


@st.composite
def worlds(draw: st.DrawFn, most: int = 5, epochs: Sequence[int] = (EPOCH,)) -> World:
    """Worlds whose branches have up to ``most`` entries before they part."""
    honest = [
        Author(name, draw(st.integers(1, most)), epoch=epoch)
        for name in ("ann", "bob")
        for epoch in epochs
    ]
    branches = [
        Author(LIAR, draw(st.integers(1, most)), epoch=draw(st.sampled_from(epochs)))
        for _ in range(2 if len(epochs) > 1 else 1)
    ]
    for one in branches:
        if len(one.bodies) > 1 and draw(st.integers(0, 2)) == 0:
            _spoil(one, draw(st.integers(1, len(one.bodies) - 1)), draw(_KIND))
    for number in range(draw(st.integers(1, 5))):
        parent = draw(st.sampled_from(branches))
        seq = draw(st.integers(0, len(parent.bodies)))
        twin = parent.other(seq, draw(st.integers(1, 3)), str(number))
        if seq and draw(st.integers(0, 2)) == 0:
            at = draw(st.integers(seq, len(twin.bodies) - 1))
            _spoil(twin, at, draw(_KIND))
        branches.append(twin)
    splices = [
        splice(draw(st.sampled_from(branches)), draw(st.integers(1, most)), lie)
        for lie in draw(st.lists(st.sampled_from(LIES), max_size=2))
    ]
    world = World(honest, branches, splices, [])
    world.said = draw(st.lists(_said(world), min_size=1, max_size=12))
    return world


def _spoil(twin: Author, seq: int, which: int) -> None:
    """Let the entry at ``seq`` be one that is refused, and the others follow it."""
    count = len(twin.bodies)
    del twin.bodies[seq:]
    twin.say(hostile(twin, which))
    while len(twin.bodies) < count:
        twin.write()


def splice(author: Author, seq: int, lie: str) -> Said:
    """One signed entry that does not follow from the one before ``seq``, in one respect."""
    seq = min(seq, len(author.bodies))
    last = author.bodies[seq - 1]
    entry = read_entry(last)
    entry = msgspec.structs.replace(
        entry,
        seq=seq,
        prev=digest("nothing") if lie == "prev" else entry_digest(last),
        offset=entry.offset if lie == "offset" else entry.offset + len(last),
        at=max(author.epoch * EPOCH_S, entry.at - 1) if lie == "at" else entry.at,
        content=Capability(guard.EMPTY),
    )
    run = sign(author.signer, [encode(entry)], author.ticket)
    return Said(run, f"({lie} of {seq} after {label(author)})")


@st.composite
def _said(draw: st.DrawFn, world: World) -> Said:
    kind = draw(st.sampled_from(["piece", "piece", "whole", "fork", "fork", "splice"]))
    if kind == "fork":
        found = _fork(draw, world)
        if found is not None:
            return found
    if kind == "splice" and world.splices:
        return draw(st.sampled_from(world.splices))
    author = draw(st.sampled_from([*world.honest, *world.branches, *world.branches]))
    first, end = 0, len(author.bodies)
    if kind == "piece":
        first = draw(st.integers(0, end - 1))
        end = draw(st.integers(first + 1, end))
    quality = draw(st.integers(0, QUALITIES))
    run = author.run(first, end, ticket=_ticket(author, quality))
    return Said(run, f"{label(author)} [{first}:{end}] {quality}")


def _ticket(author: Author, quality: int) -> bytes:
    return free_ticket(author.peer, author.epoch, quality) if quality else b""


def _fork(draw: st.DrawFn, world: World) -> Said | None:
    """A proof of two branches where they differ, with as much as may follow, or of a lie."""
    one = draw(st.sampled_from(world.branches))
    other = draw(st.sampled_from([*world.branches, *world.splices]))
    if isinstance(other, Said):
        assert isinstance(other.what, Run)
        entry = read_entry(other.what.bodies[0])
        seqs, epoch = [entry.seq], entry.epoch
        bodies = {entry.seq: other.what.bodies[0]}
    else:
        seqs, epoch = list(range(len(other.bodies))), other.epoch
        bodies = dict(enumerate(other.bodies))
    seqs = [seq for seq in seqs if one.bodies[seq : seq + 1] not in ([], [bodies[seq]])]
    if not seqs or one.epoch != epoch:
        return None
    # At the last, the two have long parted: the proof follows nothing that is held.
    seq = draw(st.sampled_from([seqs[0], seqs[-1]]))
    runs = [
        _replaced(said.what, ticket=b"")
        if isinstance(said, Said)
        else said.run(seq, draw(st.integers(seq + 1, len(said.bodies))), ticket=False)
        for said in (one, other)
    ]
    found = fork(*runs)
    quality = draw(st.integers(0, QUALITIES))
    first = _replaced(found.one, ticket=_ticket(one, quality))
    name = other.label if isinstance(other, Said) else label(other)
    return Said(Fork(first, found.other), f"<{label(one)} {seq} {name}> {quality}")


# --- what nobody said -----------------------------------------------------------------------------

FORGERIES = (
    "body",
    "signature",
    "signer",
    "swapped",
    "shorter",
    "longer",
    "grown",
    "swarm",
    "epoch",
    "said",
)


def forged(draw: st.DrawFn, run: Run, kind: str) -> Run:
    """``run`` as somebody could send it who has not the key of its author."""
    thief = signer("thief")
    bodies, entry = run.bodies, read_entry(run.bodies[-1])
    match kind:
        case "body":
            at = draw(st.integers(0, len(bodies) - 1))
            bent = _bent(draw, bodies[at])
            return _replaced(run, bodies=(*bodies[:at], bent, *bodies[at + 1 :]))
        case "signature":
            return _replaced(run, signature=_bent(draw, run.signature))
        case "signer":
            return _replaced(run, signature=thief.seal(bodies[-1]).signature)
        case "swapped":
            return _replaced(run, signature=signer("ann").seal(bodies[0][:-1]).signature)
        case "shorter":
            return _replaced(run, bodies=bodies[:-1] or (bodies[0] + b"\x00",))
        case "longer":
            return _replaced(run, bodies=(*bodies, bodies[-1]))
        case "grown":
            body = encode(next_entry(bodies[-1], entry.at, Capability(b"\x00\x00")))
            return _replaced(run, bodies=(*bodies, body), signature=thief.seal(body).signature)
        case "swarm":
            return _moved(run, swarm="elsewhere")
        case "epoch":
            return _moved(run, epoch=entry.epoch - 1, at=entry.at - EPOCH_S)
    return _moved(run, content=Evidence(Proof(thief.seal(b""), thief.seal(b""))))


def _bent(draw: st.DrawFn, data: bytes) -> bytes:
    bent = bytearray(data)
    bent[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(bent)


def _replaced(run: Run, **changes: Any) -> Run:
    return msgspec.structs.replace(run, **changes)


def _moved(run: Run, **changes: Any) -> Run:
    """The last entry says something else, under the old signature."""
    last = encode(msgspec.structs.replace(read_entry(run.bodies[-1]), **changes))
    return _replaced(run, bodies=(*run.bodies[:-1], last))


# --- what happens ---------------------------------------------------------------------------------


def feed(
    to: Replica, what: Run | Fork, now: float = NOW, source: PeerId | None = None
) -> Change | ProtocolError:
    """Let ``to`` hear something: what it changes, or why it is refused."""
    try:
        return to.convict(what, now) if isinstance(what, Fork) else to.take(what, now, source)
    except ProtocolError as error:
        return error


def settle(to: Replica, said: Iterable[Said], now: float = NOW) -> Replica:
    """Let ``to`` hear all of ``said`` in this order, again and again until nothing changes."""
    order = list(said)
    for _ in range(8 + len(order)):
        found = [feed(to, one.what, now) for one in order]
        if not any(isinstance(one, Change) and one for one in found):
            return to
    raise AssertionError("it changes for ever")


def pull(to: Replica, of: Replica, now: float = NOW) -> bool:
    """Let ``to`` hear all that ``of`` passes on, proofs first: whether anything has changed.

    All of it is taken, but for epochs that are over, and for chains of which ``to`` knows that not
    even the first entry counts.
    """
    changed = False
    for name, chain in list(of.chains().items()):
        for one in (of.proof(*name), of.run(*name, 0)) if chain.admitted else ():
            if one is None:
                continue
            found = feed(to, one, now)
            if name[1] < epoch_of(now) - 1:
                assert isinstance(found, RefusedError)
            elif isinstance(found, ForkedError):
                mine = to.chain(*name)
                assert mine is not None
                assert mine.forked_at == 0
            else:
                assert isinstance(found, Change), found
                changed |= bool(found)
    return changed


def mingle(replicas: Sequence[Replica], now: float = NOW) -> None:
    """Let each hear all others until nothing changes."""
    for _ in range(8):
        changes = [pull(to, of, now) for to in replicas for of in replicas if to is not of]
        if not any(changes):
            return
    raise AssertionError("they change for ever")


def saved(one: Replica, own: PeerId | None = None) -> Replica:
    """What it is after a restart."""
    fresh = Replica(SWARM, FreeAdmission(), own)
    for chain in one.chains().values():
        fresh.restore(
            chain.author,
            chain.epoch,
            list(chain.bodies),
            dict(chain.signatures),
            chain.ticket,
            chain.quality,
            chain.fork,
        )
    return fresh


# --- what holds -----------------------------------------------------------------------------------


def snapshot(one: Replica) -> Any:
    """All that is held, to the last byte, and what is counted of it."""
    return (
        {
            name: (
                tuple(chain.bodies),
                dict(chain.signatures),
                chain.ticket,
                chain.quality,
                chain.fork,
                chain.forked_at,
                chain.head,
                chain.size,
                chain.rules(),
            )
            for name, chain in one.chains().items()
        },
        (one.bytes, one.entries, one.guests),
        {epoch: one.admitted(epoch) for _, epoch in one.chains()},
        sorted(one.authors()),
    )


def states(one: Replica) -> dict[Name, State]:
    """The fold of all that is held and admitted."""
    return {name: state(chain) for name, chain in one.chains().items() if chain.admitted}


def check(one: Replica, own: PeerId | None = None) -> None:
    """What holds of a replica whatever it has heard."""
    check_counters(one, own)
    for name, chain in one.chains().items():
        _check_chain(name, chain)


def check_counters(one: Replica, own: PeerId | None = None) -> None:
    """Count again."""
    chains = one.chains()
    bodies = [body for chain in chains.values() for body in chain.bodies]
    forks = [chain.fork for chain in chains.values() if chain.fork is not None]
    proven = [body for proof in forks for run in (proof.one, proof.other) for body in run.bodies]
    assert one.entries == len(bodies)
    assert one.bytes == sum(map(len, bodies + proven))
    assert one.guests == sum(not chain.ticket and chain.author != own for chain in chains.values())
    for epoch in {epoch for _, epoch in chains}:
        tickets = [chain.ticket for (_, of), chain in chains.items() if of == epoch]
        assert one.admitted(epoch) == sum(map(bool, tickets))
    assert sorted(one.authors()) == sorted({author for author, _ in chains})
    for author in one.authors():
        logs = [chain for name, chain in sorted(chains.items()) if name[0] == author]
        forked = [chain for chain in logs if chain.fork is not None]
        assert one.latest(author) is (forked[0] if forked else logs[-1])


def _check_chain(name: Name, chain: Chain) -> None:
    assert (chain.author, chain.epoch) == name
    assert chain.bodies or chain.fork
    assert set(chain.signatures) <= set(range(len(chain.bodies)))
    if chain.bodies:
        first = check_links(chain.bodies, SWARM)[0]
        assert (first.author, first.epoch, first.seq) == (*name, 0)
        assert chain.head == entry_digest(chain.bodies[-1])
    for seq, signature in chain.signatures.items():
        check_signature(chain.author, chain.bodies[seq], signature)
    assert (chain.fork is None) is (chain.forked_at is None)
    if chain.fork is not None and chain.forked_at is not None:
        assert check_fork(chain.fork, SWARM) == Place(*name, chain.forked_at)
        assert len(chain.bodies) <= chain.forked_at
        assert not chain.fork.one.ticket + chain.fork.other.ticket
    fresh = Chain(*name)
    fresh.extend(chain.bodies, None)
    assert fresh.rules() == chain.rules()


def check_passed_on(of: Replica, now: float = NOW) -> None:
    """Who knows nothing takes whatever ``of`` passes on, from any entry on, and holds the same."""
    for name, chain in of.chains().items():
        if not chain.admitted:
            continue
        proof = of.proof(*name)
        for first in range(max(1, len(chain.bodies))):
            fresh = Replica(SWARM, FreeAdmission())
            if proof is not None:
                assert feed(fresh, proof, now)
            for at in (0, first):
                run = of.run(*name, at)
                assert (run is None) is not chain.bodies
                if run is not None:
                    assert sum(map(len, run.bodies)) <= limits.EPOCH_BYTES
                    assert isinstance(feed(fresh, run, now), Change)
            found = fresh.chain(*name)
            assert found is not None
            assert (found.bodies, found.ticket) == (chain.bodies, chain.ticket)
            assert found.forked_at == chain.forked_at
