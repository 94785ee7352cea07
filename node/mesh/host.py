"""The mesh over py-libp2p: listening, dialling, and the one task that keeps the library alive."""

from __future__ import annotations

import contextlib
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import trio
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.tools.anyio_service import background_trio_service

from node.mesh import circuit, identify, interfaces, punch, sockets
from node.mesh.address import Address, of_socket, parse_listen
from node.mesh.carrier import OPEN_LIMIT_S, Libp2pCarrier, Libp2pWire, carrier_of
from node.mesh.circuit import CircuitClient
from node.mesh.harden import IDLE_LIMIT_S, BufferedTCPStream, Network, build_network, guarded
from node.mesh.link import CLOSE_LIMIT_S, shielded
from node.mesh.peering import Peering, Settings
from node.mesh.punch import Puncher
from node.mesh.reach import is_local
from node.mesh.relay import RelayServer
from node.mesh.report import RelayLoad
from node.mesh.wire import Carrier
from protocol.errors import ListenError
from protocol.ids import PeerId, peer_text

REBUILD_DELAY_S: Final = 0.5
REBUILD_DELAY_LIMIT_S: Final = 30.0
DIAL_LIMIT_S: Final = 8.0
"""A dial with its handshakes: a listener that accepts and stays silent costs this long."""

log = logging.getLogger(__name__)


class Libp2pMesh(Peering):
    """The :class:`node.mesh.base.Mesh` over TCP, Noise and Yamux.

    Args:
        key_seed: the 32-byte Ed25519 seed; the peer id is that of its public key.
        settings: addresses, the swarm and the rest.

    Raises:
        ConfigError: an address is malformed, or a name does not fit into a greeting.
    """

    def __init__(self, key_seed: bytes, settings: Settings) -> None:
        self._key_seed = key_seed
        self._swarm_key = settings.swarm_key
        self._listen = tuple(parse_listen(text) for text in settings.listen)
        self._tasks: trio.Nursery | None = None
        self._build()
        super().__init__(key_seed, settings)

    def _build(self) -> None:
        """A host and what it speaks, none of it running yet."""
        self._network = build_network(self._key_seed, self._swarm_key)
        self._circuits = CircuitClient(self._upgrade_circuit)
        self._relay = RelayServer(self._relay_addresses)
        self._puncher = Puncher(
            self._network,
            self._punch_connect,
            self._upgrade,
            self.observed_addresses,
            self._punched,
            random.Random(),
        )

    # --- what Peering asks ----------------------------------------------------------------------

    def bound(self) -> tuple[Address, ...]:
        """The sockets it listens on; ports are known once it runs."""
        return self._listen

    async def _dial(self, address: Address, observed: bool) -> Carrier:
        """See :meth:`Peering._dial`."""
        with trio.fail_after(DIAL_LIMIT_S):
            if address.relay is not None:
                relay = await self._to_relay(address.to_relay())
                return await self._circuits.dial(relay, address)
            source = self._source(address) if observed else None
            stream = await sockets.dial(address, source)
            return await self._upgrade(stream, address.peer, initiator=True)

    async def _reserve(self, relay: Carrier) -> float:
        return await self._circuits.reserve(relay)

    async def _punch(self, relayed: Carrier) -> Carrier:
        return await self._puncher.punch(relayed)

    async def _agent_of(self, carrier: Carrier) -> str:
        return (await identify.ask(carrier)).agent

    def _serve_relay(self, serve: bool) -> None:
        self._relay.open = serve

    def _relay_load(self) -> RelayLoad:
        return self._relay.load()

    def _refusals(self) -> dict[str, int]:
        refused = Counter(self._network.refused)
        for name, counts in (("circuit", self._circuits.refused), ("punch", self._puncher.refused)):
            refused.update({f"{name}-{why}": count for why, count in counts.items()})
        return refused

    def _traffic(self) -> tuple[int, int]:
        return self._network.traffic.sent, self._network.traffic.received

    # --- connections ----------------------------------------------------------------------------

    async def _upgrade(
        self, stream: trio.SocketStream, peer: PeerId | None, initiator: bool
    ) -> Libp2pCarrier:
        """Shake hands on a fresh TCP connection.

        Args:
            peer: who must answer.
            initiator: whether this side speaks first.
        """
        assert peer is not None
        wanted = ID.from_base58(peer_text(peer))
        raw = self._network.protect(
            RawConnection(BufferedTCPStream(stream, self._network.traffic), initiator)
        )
        try:
            return await self._shake(raw, wanted, initiator)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    async def _upgrade_circuit(
        self, stream: Any, peer: PeerId | None, initiator: bool
    ) -> Libp2pCarrier:
        """Shake hands through a relay. ``stream`` reads and writes like a TCP stream."""
        raw = self._network.protect(RawConnection(stream, initiator))
        wanted = None if peer is None else ID.from_base58(peer_text(peer))
        return await self._shake(raw, wanted, initiator)

    async def _shake(self, raw: RawConnection, wanted: ID | None, initiator: bool) -> Libp2pCarrier:
        if initiator:
            connection = await self._network.upgrade_outbound_raw_conn(raw, wanted)
        else:
            muxed = await self._network.upgrade_inbound_raw_conn(raw, None)
            connection = self._network.connection_of(muxed)
            if wanted is not None and muxed.peer_id != wanted:
                await connection.close()
                raise trio.BrokenResourceError(f"{muxed.peer_id} answers instead")
        assert self._tasks is not None
        self._tasks.start_soon(connection.muxed_conn.tend, IDLE_LIMIT_S)
        return carrier_of(connection)

    def _carrier_to(self, peer: PeerId) -> Libp2pCarrier | None:
        """A direct connection to ``peer`` that stands, held by as many as possible."""
        found = [
            carrier_of(one)
            for one in self._network.get_connections(ID.from_base58(peer_text(peer)))
            if not one.muxed_conn.event_closed.is_set()
        ]
        direct = [one for one in found if not one.relayed]
        return max(direct, key=lambda one: one.held, default=None)

    async def _to_relay(self, address: Address) -> Libp2pCarrier:
        assert address.peer is not None
        standing = self._carrier_to(address.peer)
        if standing is not None:
            return standing
        stream = await sockets.dial(address)
        return await self._upgrade(stream, address.peer, initiator=True)

    def _source(self, target: Address) -> Address | None:
        """The listening socket from which ``target`` can be dialled."""
        for bound in self._listen:
            ip, to = bound.ip(), target.ip()
            if ip is None or (to is not None and to.version != ip.version):
                continue
            # A socket bound to loopback reaches nothing else, and the other way round.
            if to is None or ip.is_unspecified or ip.is_loopback == to.is_loopback:
                return bound
        return None

    async def _punch_connect(self, target: Address) -> trio.SocketStream:
        """One dial at a hole: from the listening port and no other."""
        if self._settings.lan_only and not self._standing.is_of_site(target):
            raise OSError(f"{target} is not on this network, and --lan is set")
        source = self._source(target)
        if source is None:
            raise OSError(f"no socket of ours reaches {target}")
        return await sockets.dial_from(target, source)

    def _relay_addresses(self) -> list[Address]:
        """Where this node is reached as a relay."""
        return [one for one in self._standing.candidates() if one.kind in ("ip4", "ip6")]

    # --- the library's service and its supervisor ---------------------------------------------

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen, dial the bootstraps and keep redialling them, until the block ends.

        Raises:
            ListenError: an address is taken or not ours.
        """
        listeners = await self._bind()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._supervise, listeners)
            try:
                yield
            finally:
                with shielded(CLOSE_LIMIT_S):
                    await self._say_leave()
                nursery.cancel_scope.cancel()

    async def _bind(self) -> list[trio.SocketListener]:
        listeners: list[trio.SocketListener] = []
        bound: list[Address] = []
        for address in self._listen:
            try:
                listeners.append(await sockets.listen(address))
            except OSError as error:
                await _close_listeners(listeners)
                raise ListenError(f"{address}: {error.strerror or error}.") from error
            port = listeners[-1].socket.getsockname()[1]
            bound.append(Address(address.kind, address.host, port))
        # A rebuilt host takes the same ports again, so that addresses given out stay true.
        self._listen = tuple(bound)
        return listeners

    async def _supervise(self, listeners: list[trio.SocketListener]) -> None:
        """Run the host, and build it anew whenever it fails."""
        delay = REBUILD_DELAY_S
        while True:
            started = trio.current_time()
            try:
                await self._host(listeners)
            except Exception:
                log.exception("the libp2p host failed; it is rebuilt in %.1f s", delay)
            finally:
                await _close_listeners(listeners)
            if trio.current_time() - started > 2 * REBUILD_DELAY_LIMIT_S:
                delay = REBUILD_DELAY_S
            await trio.sleep(delay)
            delay = min(2 * delay, REBUILD_DELAY_LIMIT_S)
            self._build()
            while True:
                try:
                    listeners = await self._bind()
                    break
                except ListenError as error:
                    log.error("%s", error.user_text())
                    await trio.sleep(delay)

    async def _host(self, listeners: list[trio.SocketListener]) -> None:
        """Serve until the library's service ends, or something raises."""
        network = self._network
        network.set_stream_handler(guarded(self._accept))
        async with background_trio_service(network) as manager:
            await network.event_background_nursery_created.wait()
            async with trio.open_nursery() as nursery:
                self._tasks = nursery
                if listeners:
                    nursery.start_soon(trio.serve_listeners, self._knocked, listeners)
                nursery.start_soon(self._run)
                nursery.start_soon(interfaces.watch, self.network_changed)
                try:
                    await manager.wait_finished()
                finally:
                    self._tasks = None
                    nursery.cancel_scope.cancel()
                    await _close_connections(network)
        raise RuntimeError("the libp2p service ended by itself")

    async def _knocked(self, stream: trio.SocketStream) -> None:
        """Somebody connects. Raises nothing but cancellation."""
        try:
            host, port = stream.socket.getpeername()[:2]
        except OSError:
            # It has been reset before it was looked at.
            self._network.refused["handshake"] += 1
            await trio.aclose_forcefully(stream)
            return
        if self._settings.lan_only and not self._standing.is_of_site(of_socket(host, port)):
            self._network.refused["outside"] += 1
            await trio.aclose_forcefully(stream)
        else:
            await self._network.accept(stream)

    # --- streams --------------------------------------------------------------------------------

    def _protocols(self) -> dict[str, Callable[[Libp2pWire], Any]]:
        """What is served to whom opens a stream."""
        return {
            **self.serving(),
            identify.PROTOCOL_ID: self._identified,
            identify.PING_ID: identify.serve_ping,
            circuit.HOP_ID: self._relay.serve,
            circuit.STOP_ID: self._circuits.accept,
            punch.PROTOCOL_ID: self._puncher.serve,
        }

    async def _accept(self, stream: Any) -> None:
        """Serve a stream that a peer opened."""
        wire = Libp2pWire(stream)
        handlers = self._protocols()
        try:
            with trio.fail_after(OPEN_LIMIT_S):
                name, _ = await Multiselect(dict.fromkeys(handlers)).negotiate(
                    MultiselectCommunicator(stream), int(OPEN_LIMIT_S)
                )
        except Exception as error:
            self._network.refused["protocol"] += 1
            log.debug("%s opened a stream and spoke nothing of ours: %r", wire.peer, error)
            await wire.reset()
            return
        await handlers[name](wire)

    async def _identified(self, wire: Libp2pWire) -> None:
        # Where one is inside a site is nobody's business outside.
        at = wire.carrier.address
        inside = at is not None and at.relay is None and is_local(at)
        told = [one for one in self._standing.addresses() if inside or not is_local(one)]
        protocols = list(self._protocols())
        await identify.serve(
            wire, self._settings.agent, self._network, tuple(map(str, told)), protocols
        )


async def _close_listeners(listeners: list[trio.SocketListener]) -> None:
    for listener in listeners:
        with shielded(CLOSE_LIMIT_S):
            await listener.aclose()


async def _close_connections(network: Network) -> None:
    """Close them at once; the library's own way takes a fifth of a second for each."""
    with shielded(CLOSE_LIMIT_S):
        async with trio.open_nursery() as nursery:
            for connection in network.get_connections():
                nursery.start_soon(connection.close)
