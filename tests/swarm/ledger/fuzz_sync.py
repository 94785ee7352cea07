"""Requests and replies without end that no honest node sends: each is taken or refused.

``python -m tests.swarm.ledger.fuzz_sync COUNT SEED`` prints what happened as JSON.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import cache
from random import Random
from typing import Any, cast

import msgspec

from protocol import limits
from protocol import sync as wire
from protocol.codec import decode, encode
from protocol.envelope import KeySigner
from protocol.errors import ProtocolError
from protocol.ids import PeerId
from protocol.ledger import Fork, Place, Run, fork, sign
from protocol.sync import PROOF, Ask, Head, Piece
from swarm.ledger import responder, sync
from swarm.ledger.digests import Salt, answer_nonce
from swarm.ledger.replica import Change
from tests.swarm.ledger.authors import EPOCH, NOW, Author, replica, signer
from tests.swarm.ledger.nodes import Node

REQUEST = cast("type[wire.AnyRequest]", wire.AnyRequest)
REPLIES: dict[type[wire.Request], type[wire.Reply]] = {
    wire.Open: wire.Root,
    wire.Buckets: wire.Digests,
    wire.Heads: wire.HeadList,
    wire.Want: wire.Runs,
    wire.Give: wire.Gave,
    wire.Log: wire.Runs,
}
REQUESTS_AT_MOST = 60
"""Of one exchange of as few chains as there are here."""


@cache
def everyone() -> tuple[list[Author], list[Author]]:
    """Honest authors, and those that say what they should not, with their twins."""
    honest = [
        Author(f"honest {at}", 5, epoch=EPOCH - at % 2, quality=1 + at % 3) for at in range(70)
    ]
    sly: list[Author] = []
    for at in range(6):
        one = Author(f"sly {at}", 5)
        sly += [one, one.other(at % 4, 3), one.other(at % 3, 4, "third")]
    return honest, sly


@cache
def signed(one: Author, first: int, end: int, ticket: bool = True) -> Run:
    """A run of ``one``, which is signed only once."""
    return one.run(first, end, ticket=ticket)


class Attacker:
    """Makes messages of every kind, from honest ones and from nothing.

    Attributes:
        nonsense: what sly authors have signed, besides what they have written.
    """

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        honest, self.sly = everyone()
        self.authors = [*honest, *self.sly]
        self.key = KeySigner(bytes(32))
        self.nonsense: set[bytes] = set()

    def node(self, name: str) -> Node:
        """A node that holds something."""
        rng = self.rng
        node = Node(name)
        share = rng.choice([0.05, 0.1, 0.2, 0.9])
        for one in self.authors:
            if rng.random() < share:
                try:
                    node.replica.take(signed(one, 0, rng.randint(1, len(one.bodies))), NOW)
                except ProtocolError:
                    continue
        guest = rng.choice(self.authors)
        if rng.random() < 0.5 and node.replica.chain(guest.peer, guest.epoch) is None:
            node.replica.take(signed(guest, 0, 2, False), NOW, guest.peer)
        return node

    def bytes(self, *sizes: int) -> bytes:
        return self.rng.randbytes(self.rng.choice(sizes))

    def run(self) -> Run:
        """A run, valid or not so."""
        rng = self.rng
        one, other = rng.choice(self.authors), rng.choice(self.authors)
        first = rng.randrange(len(one.bodies))
        end = rng.randint(first + 1, len(one.bodies))
        run = signed(one, first, end, rng.random() < 0.7)
        match rng.randrange(12):
            case 0:
                return msgspec.structs.replace(run, signature=self.bytes(64))
            case 1:
                return msgspec.structs.replace(run, ticket=other.ticket)
            case 2:
                return msgspec.structs.replace(run, bodies=run.bodies[::-1])
            case 3:
                return msgspec.structs.replace(run, bodies=(*run.bodies, other.bodies[0]))
            case 4:
                return sign(self.key, run.bodies, run.ticket)
            case 5 | 6 | 7:
                # Signed by its author, and nonsense.
                one = rng.choice(self.sly)
                nonsense = rng.choice([self.bytes(0, 1, 50), self.mutated(one.bodies[-1])])
                self.nonsense.add(nonsense)
                return sign(one.signer, [*one.bodies[:-1], nonsense], one.ticket)
        return run

    def fork(self) -> Fork:
        rng = self.rng
        if rng.random() < 0.3:
            return Fork(self.run(), self.run())
        at = 3 * rng.randrange(len(self.sly) // 3)
        one, other = rng.sample(self.sly[at : at + 3], 2)
        pairs = zip(one.bodies, other.bodies, strict=False)
        seq = next((place for place, (mine, its) in enumerate(pairs) if mine != its), 0)
        ticket = rng.random() < 0.7
        return fork(signed(one, seq, seq + 1, ticket), signed(other, seq, seq + 1, ticket))

    def mutated(self, data: bytes) -> bytes:
        """``data`` with something wrong."""
        rng = self.rng
        if not data:
            return self.bytes(1)
        at, to = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
        match rng.randrange(5):
            case 0:
                return data[:at]
            case 1:
                return data[:at] + data[to:]
            case 2:
                return data[:to] + data[at:]
            case 3:
                return data + self.bytes(1, 2, 16)
            case _:
                bent = bytearray(data)
                bent[at] = rng.choice([0, 1, 0x7F, 0xC4, 0xDC, 0xDF, 0xFF, rng.randrange(256)])
                return bytes(bent)

    def any(self, honest: bytes, garbage: msgspec.Struct) -> bytes:
        """Something in place of ``honest``."""
        match self.rng.choices(["honest", "mutant", "garbage", "random"], [4, 4, 8, 1])[0]:
            case "honest":
                return honest
            case "mutant":
                return self.mutated(honest)
            case "garbage":
                return encode(garbage)
        return self.bytes(0, 1, 10, 100, 1000)

    # --- replies --------------------------------------------------------------------------------

    def reply(self, request: wire.AnyRequest, honest: wire.Reply) -> wire.Reply:
        """A reply of the right type."""
        rng = self.rng
        match request, honest:
            case wire.Open(), wire.Root():
                changes: dict[str, Any] = {
                    "nonce": self.bytes(8),
                    "root": self.bytes(16),
                    "chains": rng.choice([0, 1, 65, wire.CHAINS]),
                }
                name = rng.choice(list(changes))
                return msgspec.structs.replace(honest, **{name: changes[name]})
            case wire.Buckets(), wire.Digests():
                size = len(honest.digests)
                return wire.Digests(self.bytes(0, 7, size - 8, size, size, size, size + 8))
            case wire.Heads(), wire.HeadList():
                return wire.HeadList(self.heads(honest.heads))
            case ((wire.Want() | wire.Log()), wire.Runs()):
                asked = len(request.asks) // 8 if isinstance(request, wire.Want) else 1
                count = rng.choice([0, 1, 2, asked])
                runs = [*honest.runs, *(self.run() for _ in range(count))]
                forks = [*honest.forks, *(self.fork() for _ in range(rng.randrange(3)))]
                rng.shuffle(runs)
                return wire.Runs(
                    tuple(runs[: rng.choice([0, 1, asked, asked - 1])]),
                    tuple(forks[: rng.choice([0, 1, 2])]),
                    max(1, min(wire.ASKS, asked + rng.choice([-1, 0, 0, 0, 0, 0, 1]))),
                )
            case wire.Give(), wire.Gave():
                places = [self.place() for _ in range(rng.randrange(3))]
                for run in request.runs:
                    if rng.random() < 0.5:
                        one = next((a for a in self.authors if run.bodies[0] in a.bodies), None)
                        if one is not None:
                            places.append(Place(one.peer, one.epoch, rng.randrange(7)))
                rng.shuffle(places)
                return wire.Gave(
                    tuple(places[: rng.choice([0, 1, 9])]), rng.choice([0, 0, 1, len(request.runs)])
                )
        raise TypeError(f"no reply to {request}")

    def place(self) -> Place:
        one = self.rng.choice(self.authors)
        return Place(one.peer, one.epoch, self.rng.choice([0, 1, 5, 2**31]))

    def heads(self, honest: bytes) -> bytes:
        """Some of the heads, some bent, some new, mostly in order."""
        rng = self.rng
        heads = [head for head in wire.unpack_heads(honest) if rng.random() < 0.9]
        for at, head in enumerate(heads):
            if rng.random() < 0.2:
                heads[at] = self.head(head.id)
        heads += [self.head(self.bytes(6)) for _ in range(rng.choice([0, 0, 0, 1, 30]))]
        if rng.random() < 0.9:
            heads.sort()
        data = b"".join(map(wire.pack_head, heads))
        return data if rng.random() < 0.95 else self.mutated(data)

    def head(self, name: bytes) -> Head:
        rng = self.rng
        entries = rng.choice([0, 1, 3, 5, 9, PROOF - 1, PROOF])
        return Head(name, entries, rng.random() < 0.5, self.bytes(5), self.bytes(3))

    # --- requests -------------------------------------------------------------------------------

    def request(self, asked: Node, own: PeerId) -> wire.AnyRequest:
        """A request of the right type, mostly about what there is."""
        rng = self.rng
        epoch = EPOCH + rng.choice([0, 0, 0, 0, -1, 1, 2, 2**31 - EPOCH])
        nonce = rng.choice([bytes(8), b"another.", self.bytes(8)])
        count = rng.choice([1, 2, 64, 1024, rng.randint(1, 1024)])
        which = rng.randbytes((count + 7) // 8 + rng.choice([0, 0, 0, 0, 1]))[:128]
        match rng.randrange(6):
            case 0:
                return wire.Open(epoch, nonce)
            case 1:
                return wire.Buckets(epoch, nonce, count)
            case 2:
                return wire.Heads(epoch, nonce, count, which, self.bytes(0, 0, 1, 5, 6, 6))
            case 3:
                answer = answer_nonce(b"asked", own, nonce)
                salt = Salt(own, asked.peer, nonce, answer)
                asks = [self.ask(salt) for _ in range(rng.choice([1, 2, 40, wire.ASKS]))]
                data = wire.pack_asks(asks)
                return wire.Want(epoch, nonce, data if rng.random() < 0.9 else data[:-1])
            case 4:
                return wire.Give(
                    tuple(self.run() for _ in range(rng.choice([0, 1, 5]))),
                    tuple(self.fork() for _ in range(rng.choice([0, 0, 1, 3]))),
                )
        one = rng.choice(self.authors)
        pieces = [
            Piece(EPOCH - rng.randrange(3), rng.choice([0, 2, 9, PROOF]))
            for _ in range(rng.randint(1, 8))
        ]
        return wire.Log(rng.choice([one.peer, own]), tuple(pieces))

    def ask(self, salt: Salt) -> Ask:
        rng = self.rng
        one = rng.choice(self.authors)
        name = salt.id((one.peer, one.epoch)) if rng.random() < 0.8 else self.bytes(6)
        return Ask(name, rng.choice([0, 1, 4, 9, PROOF]), rng.random() < 0.5)


def run(count: int, seed: int) -> Counter[str]:
    """Send ``count`` messages, half of them as requests and half as replies.

    Raises:
        AssertionError: something else came of one than an answer or a protocol error.
    """
    rng = Random(seed)
    seen: Counter[str] = Counter()
    attacker = Attacker(rng)
    while seen["replies"] < count // 2:
        _ask(attacker, seen)
    while seen["requests"] < count - count // 2:
        _be_asked(attacker, seen, min(500, count - count // 2 - seen["requests"]))
    return seen


def _ask(attacker: Attacker, seen: Counter[str]) -> None:
    """One exchange with a hostile peer."""
    one, other = attacker.node("ours"), attacker.node("theirs")
    honest = other.answer
    requests = 0

    def answer(peer: PeerId, body: bytes) -> bytes:
        nonlocal requests
        requests += 1
        seen["replies"] += 1
        request = decode(body, REQUEST, limits.SYNC_BYTES)
        truth = honest(peer, body)
        reply = decode(truth, REPLIES[type(request)])
        return attacker.any(truth, attacker.reply(request, reply))

    other.answer = answer  # type: ignore[method-assign]
    try:
        if attacker.rng.random() < 0.15:
            author = attacker.rng.choice(attacker.authors).peer
            one.runs(sync.recall(one.replica, author, EPOCH), other)
        else:
            one.meets(other)
        seen["exchanges ended"] += 1
    except ProtocolError:
        seen["exchanges refused"] += 1
    assert requests <= REQUESTS_AT_MOST, "it goes on for ever"
    _settle(one, attacker, seen)


def _be_asked(attacker: Attacker, seen: Counter[str], times: int) -> None:
    """Hostile requests to one node."""
    node = attacker.node("asked")
    peers = [signer(f"peer {at}").peer for at in range(responder.TABLES + 2)]
    for _ in range(times):
        seen["requests"] += 1
        peer = attacker.rng.choice(peers)
        body = attacker.any(encode(wire.Open(EPOCH, bytes(8))), attacker.request(node, peer))
        try:
            reply = node.answer(peer, body)
        except ProtocolError:
            seen["requests refused"] += 1
            continue
        seen["requests answered"] += 1
        assert len(reply) <= limits.SYNC_BYTES
        decode(reply, REPLIES[type(decode(body, REQUEST))])
        assert len(node.responder._tables) <= responder.TABLES
    _settle(node, attacker, seen)


def _settle(node: Node, attacker: Attacker, seen: Counter[str]) -> None:
    """Nothing is held that its author did not write, and nobody honest is frozen."""
    for outcome in node.outcomes:
        assert isinstance(outcome, Change | ProtocolError), outcome
        seen["runs taken"] += bool(isinstance(outcome, Change) and outcome)
        seen["runs refused"] += isinstance(outcome, ProtocolError)
    for chain in node.replica.chains().values():
        selves = [
            one for one in attacker.authors if (one.peer, one.epoch) == (chain.author, chain.epoch)
        ]
        sly = selves[0] in attacker.sly
        words = {body for one in selves for body in one.bodies} | attacker.nonsense
        assert words.issuperset(chain.bodies)
        assert sly or chain.fork is None
        if sly and chain.admitted:
            fresh = replica()
            proof = node.replica.proof(chain.author, chain.epoch)
            if proof is not None:
                assert fresh.convict(proof, NOW).forked
            again = node.replica.run(chain.author, chain.epoch, 0)
            if again is not None:
                assert len(fresh.take(again, NOW).entries) == len(chain.bodies)


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))))
