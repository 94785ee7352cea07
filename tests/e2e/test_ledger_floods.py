"""Members that ask and give without end, or send no requests at all: each is refused in words,
slowed down and cut off, and nobody else notices."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from node.local_swarm import Member
from node.mesh.base import PeerDown
from node.mesh.host import Libp2pMesh
from node.replication.quota import REFUSALS
from protocol import limits
from protocol import sync as wire
from protocol.codec import encode
from protocol.digest import digest
from protocol.errors import BackpressureError, CallError, UnreachableError
from protocol.ids import PeerId, short_peer
from tests.e2e.conftest import honest
from tests.e2e.members import (
    Author,
    call,
    daemons,
    joined,
    kept,
    ledger,
    peer_of,
    seed_of,
    settings_of,
    until,
    until_alike,
    until_serving,
)

pytestmark = pytest.mark.e2e

CUT_OFF = 2
"""Times that each of them is, at least."""
FRESH_AUTHORS = 60
GROWTH_BYTES = 32 << 20
CALLS = 8
"""That each of them has under way at once."""

Body = Callable[[int], bytes]
SLOW = {"timeout"}
"""What anybody may be told by a node that has much to do."""


class Loner(Libp2pMesh):
    """A mesh that is linked with its bootstrap and nobody else, who would be spoken to in vain."""

    def _heard(self, peer: PeerId, first_hand: bool) -> None:
        pass


class Flooder:
    """A member that sends one request after another.

    Attributes:
        codes: of the errors that it is to be told.
        answered: how many were answered.
        refused: how many were not, by the code of the error.
        reasons: why it was cut off, each time.
    """

    def __init__(self, name: str, victim: Member, body: Body, codes: set[str]) -> None:
        self.name = name
        self.mesh = Loner(seed_of(name), settings_of(name, victim.address, listen=False))
        self._victim = peer_of(victim)
        self._body = body
        self.codes = codes
        self._sent = 0
        self.answered = 0
        self.refused: Counter[str] = Counter()
        self.reasons: list[str] = []

    async def run(self) -> None:
        """Flood until cancelled."""
        async with self.mesh.running(), trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            for _ in range(CALLS):
                nursery.start_soon(self._send)

    async def _listen(self) -> None:
        while True:
            match await self.mesh.next_event():
                case PeerDown(_, reason):
                    self.reasons.append(reason)

    async def _send(self) -> None:
        while True:
            self._sent += 1
            try:
                await self.mesh.call(self._victim, "ledger", self._body(self._sent), 10.0)
                self.answered += 1
            except (UnreachableError, BackpressureError):
                await trio.sleep(0.01)
            except CallError as error:
                code = re.search(r"\(([a-z-]+)\)$", str(error))
                if code is not None:
                    self.refused[code[1]] += 1


def flooders(victim: Member) -> list[Flooder]:
    """One of each kind."""
    made_up = [Author(f"made up {at}", 5) for at in range(400)]
    gifts = [
        encode(wire.Give(tuple(one.run() for one in made_up[at : at + 200]), ()))
        for at in range(0, len(made_up), 200)
    ]
    strangers = [
        encode(wire.Give((replace(one.run(), ticket=bytes(limits.TICKET_BYTES)),), ()))
        for one in (Author(f"stranger {at}") for at in range(100))
    ]
    long = Author("long")
    for at in range(21):
        long.note(bytes([at]) * 4000)
    given = encode(wire.Give((long.run(),), ()))
    asked = encode(wire.Log(long.peer, (wire.Piece(long.epoch, 0),) * 3))
    nowhen = encode(wire.Heads(long.epoch + 9, bytes(8), 1, b"\x01"))
    draws = random.Random("garbage")

    def opens(number: int) -> bytes:
        return encode(wire.Open(long.epoch, digest("nonce", number)[:8]))

    def mangled(number: int) -> bytes:
        body = bytearray(gifts[0])
        for _ in range(3):
            body[draws.randrange(len(body))] = draws.randrange(256)
        return bytes(body)

    kinds: dict[str, tuple[Body, set[str]]] = {
        "begins": (opens, {"quota"}),
        "gives": (lambda number: gifts[number % len(gifts)], {"quota"}),
        "admits": (lambda number: strangers[number % len(strangers)], set()),
        "fetches": (lambda number: asked if number % 50 else given, {"quota"}),
        "misses": (lambda number: nowhen, {"quota", "clock"}),
        "babbles": (lambda number: draws.randbytes(draws.randrange(1, 300)), {"decode"}),
        "mangles": (mangled, {"quota", "decode"}),
        "bloats": (lambda number: bytes(limits.SYNC_BYTES + 1), {"too-large"}),
    }
    return [Flooder(name, victim, body, codes) for name, (body, codes) in kinds.items()]


def rss(daemon: Member) -> int:
    """Bytes of memory that a daemon has."""
    assert daemon.process is not None
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{daemon.process.pid}/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def hold(daemon: Member, authors: Sequence[Author]) -> bool:
    """Whether all that ``authors`` say is on the disk of a daemon."""
    found = {one.author: one.bodies for one in kept(daemon.data_dir)}
    return all(found.get(one.peer) == one.bodies for one in authors)


async def test_floods_are_refused_and_cut_off_and_nobody_else_notices(
    tmp_path: Path, script: Callable[..., str]
) -> None:
    async with joined(tmp_path, "one") as one, joined(tmp_path, "other", one.address) as other:
        with daemons(tmp_path, [honest(script("42"))], one, other) as swarm:
            victim = swarm.members[0]
            swarm.launch(victim)
            await until_serving(victim)
            await until_alike([victim], one, other)
            before = rss(victim)
            floods = flooders(victim)
            async with trio.open_nursery() as nursery:
                for flood in floods:
                    nursery.start_soon(flood.run)
                await until(lambda: all(len(flood.reasons) >= CUT_OFF for flood in floods))

                # What is new reaches the victim, and what the victim says everybody.
                fresh = [Author(f"fresh {at}", 5) for at in range(FRESH_AUTHORS)]
                await one.hold(fresh[::2], fresh=True)
                await other.hold(fresh[1::2], fresh=True)
                await call(victim, "state-label", label="still here")
                own = peer_of(victim)
                await until(lambda: all(node.label(own) == "still here" for node in (one, other)))
                await until(lambda: hold(victim, fresh))

                seen = [len(flood.reasons) for flood in floods]
                await until(
                    lambda: all(
                        len(flood.reasons) > at for flood, at in zip(floods, seen, strict=True)
                    )
                )
                grown = rss(victim) - before
                found = await ledger(victim)
                nursery.cancel_scope.cancel()

            for flood in floods:
                assert flood.refused.keys() - SLOW <= flood.codes, (flood.name, flood.refused)
                assert flood.refused or not flood.codes, (flood.name, flood.refused)
            assert {"quota", "decode", "too-large", "clock", "ticket"} <= found["refused"].keys()
            assert found["refused"]["quota"] > REFUSALS
            assert found["disconnected"] >= len(floods) * CUT_OFF
            # Each time counts once, however much they had under way.
            assert found["disconnected"] <= 2 * sum(len(flood.reasons) for flood in floods)
            assert found["forked"] == 0
            assert grown < GROWTH_BYTES
            log = victim.log.read_text()
            for flood in floods:
                assert f"peer {short_peer(flood.mesh.peer_id)} is cut off" in log
            for node in (one, other):
                assert f"peer {short_peer(node.peer)} is cut off" not in log
            # As each does now and then by itself.
            for node in (one, other):
                assert await node.replication.exchange(own)
            await until_alike([victim], one, other)
