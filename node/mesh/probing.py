"""Finding out how this node is reached: peers that are asked to have a stranger connect to it.

A peer that is connected proves little by connecting once more, for a NAT may let it in for the
connection that stands. So it passes the request on to one of its own peers that has no connection
with us, and tells what came of it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Final

import msgspec
import trio

from node.mesh.address import Address, parse_dialable
from node.mesh.calls import Calls
from node.mesh.ration import Ration
from node.mesh.reach import Attempt, Reach, is_local
from node.mesh.wire import Carrier
from protocol import limits
from protocol.codec import decode, encode
from protocol.errors import ConfigError, MeshError, ProtocolError, RefusedError
from protocol.ids import PeerId, short_peer

VERIFY: Final = "verify"
DIAL_BACK: Final = "dial-back"
FIRST_S: Final = 1.0
AGAIN_S: Final = 30.0
"""Until the next look while no stranger has tried; ever longer where nothing changes."""
SETTLED_S: Final = 600.0
ASKED_AT_ONCE: Final = 3
"""Peers asked in one look."""
STRANGERS: Final = 3
"""Peers to which one passes a request on."""
DIAL_S: Final = 4.0
VERIFY_S: Final = 20.0
DIALS_PER_MINUTE: Final = 12
"""Dials made for others in a minute, all askers together: nobody is to be flooded this way. Each is
one TCP connection and one handshake, to the address from which the asker is seen."""

DIALS_PER_ASKER: Final = 4
"""Of them, asked for by one peer."""

log = logging.getLogger(__name__)

_Text = Annotated[str, msgspec.Meta(max_length=limits.ADDRESS_CHARS)]
_Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class Verify(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Asks for somebody to connect to ``address``, which ends in the asker's own peer id."""

    address: _Text


class Verified(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What came of it.

    Attributes:
        by: who tried.
        reached: whether the asker's key answered there.
        stranger: whether ``by`` had no connection with the asker.
    """

    by: _Key
    reached: bool
    stranger: bool


class Prober:
    """Args:
    own: this node.
    reach: is told what comes of it.
    calls: the way to linked peers.
    linked: the peers linked now.
    carrier_of: the connection of the link to a peer; raises UnreachableError.
    dial: connects to an address, from a port of its own.
    candidates: where strangers may get through to this node, the likeliest first.
    changed: called when what is known has changed.
    rng: whom to ask.
    """

    def __init__(
        self,
        own: PeerId,
        reach: Reach,
        calls: Calls,
        linked: Callable[[], list[PeerId]],
        carrier_of: Callable[[PeerId], Carrier],
        dial: Callable[[Address], Awaitable[Carrier]],
        candidates: Callable[[], Sequence[Address]],
        changed: Callable[[], None],
        rng: random.Random,
    ) -> None:
        self._own = own
        self._reach = reach
        self._calls = calls
        self._linked = linked
        self._carrier_of = carrier_of
        self._dial = dial
        self._candidates = candidates
        self._changed = changed
        self._rng = rng
        self._made: list[float] = []
        self._asked = Ration(DIALS_PER_ASKER, DIALS_PER_ASKER / 60.0)
        self._again = trio.Event()
        calls.answers[VERIFY] = self._answer_verify
        calls.answers[DIAL_BACK] = self._answer_dial_back

    def again(self) -> None:
        """Look again soon: something has changed."""
        self._again.set()

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        pause = AGAIN_S
        while True:
            self._again = trio.Event()
            addresses = [one for one in self._candidates() if not is_local(one)][:2]
            if not addresses or not self._linked():
                with trio.move_on_after(SETTLED_S):
                    await self._again.wait()
                continue
            settled = await self._look(addresses)
            with trio.move_on_after(SETTLED_S if settled else pause) as waited:
                await self._again.wait()
                # Several links come up together; the first observation is not the last.
                await trio.sleep(FIRST_S)
            # Where everybody is linked to everybody, there is no stranger to be found.
            pause = min(2 * pause, SETTLED_S) if waited.cancelled_caught else AGAIN_S

    async def _look(self, addresses: Sequence[Address]) -> bool:
        """Have peers try each address; whether a stranger has tried one."""
        peers = self._linked()
        self._rng.shuffle(peers)
        verdicts: list[Verified] = []
        async with trio.open_nursery() as nursery:
            for address in addresses:
                for peer in peers[:ASKED_AT_ONCE]:
                    nursery.start_soon(self._ask, peer, address, verdicts)
        return any(verdict.stranger for verdict in verdicts)

    async def _ask(self, peer: PeerId, address: Address, verdicts: list[Verified]) -> None:
        try:
            request = encode(Verify(str(address)))
            verdict = decode(await self._calls.call(peer, VERIFY, request, VERIFY_S), Verified)
        except (MeshError, ProtocolError) as error:
            log.info("%s did not look whether we are reachable: %s", short_peer(peer), error)
            return
        verdicts.append(verdict)
        now = trio.current_time()
        by = PeerId(verdict.by)
        self._reach.attempted(Attempt(address, by, peer, verdict.reached, verdict.stranger, now))
        self._changed()

    # --- for others -----------------------------------------------------------------------------

    async def _answer_verify(self, asker: PeerId, body: bytes) -> bytes:
        address = self._address(asker, body)
        seen = self._carrier_of(asker).address
        if seen is None or seen.relay is not None or seen.host != address.host:
            raise RefusedError("Only the address from which you are seen here is dialled.")
        others = [peer for peer in self._linked() if peer != asker]
        self._rng.shuffle(others)
        for peer in others[:STRANGERS]:
            try:
                request = encode(Verify(str(address)))
                reply = await self._calls.call(peer, DIAL_BACK, request, DIAL_S + 2)
                verdict = decode(reply, Verified)
            except (MeshError, ProtocolError) as error:
                log.debug("%s dials nobody for us: %s", short_peer(peer), error)
                continue
            if PeerId(verdict.by) == peer and verdict.stranger:
                return reply
        reached = await self._try(asker, address)
        return encode(Verified(self._own, reached, False))

    async def _answer_dial_back(self, asker: PeerId, body: bytes) -> bytes:
        address = self._address(None, body)
        assert address.peer is not None
        if address.peer == self._own or address.peer in self._linked():
            raise RefusedError("There is a connection with that peer here.")
        return encode(Verified(self._own, await self._try(asker, address), True))

    def _address(self, peer: PeerId | None, body: bytes) -> Address:
        """The address in a request.

        Raises:
            RefusedError: it is not one to dial for somebody else.
        """
        try:
            address = parse_dialable(decode(body, Verify).address)
        except ConfigError as error:
            raise RefusedError(str(error)) from error
        if address.relay is not None or address.ip() is None or is_local(address):
            raise RefusedError("Only addresses of the public internet are dialled for others.")
        if peer is not None and address.peer != peer:
            raise RefusedError("Nobody may ask for connections to somebody else.")
        return address

    async def _try(self, asker: PeerId, address: Address) -> bool:
        now = trio.current_time()
        if not self._asked.take(asker, now):
            raise RefusedError("This node has dialled enough for you.")
        self._made = [at for at in self._made if now - at < 60.0]
        if len(self._made) >= DIALS_PER_MINUTE:
            raise RefusedError("This node has dialled enough for others.")
        self._made.append(now)
        try:
            with trio.fail_after(DIAL_S):
                carrier = await self._dial(address)
        except Exception as error:
            log.debug("%s is not reachable: %s", address, error)
            return False
        await carrier.close()
        return True
