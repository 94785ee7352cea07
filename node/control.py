"""The methods of the control socket, answered from the node's parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import trio

from node import doctor
from node.calibrator import Calibrator
from node.conduct import Conduct
from node.config import Config
from node.coordinator import Coordinator
from node.knowledge import Knowledge
from node.mesh.base import Mesh
from node.replication.importing import Importer
from node.replication.service import Replication
from node.rpc_server import Handler, Notify
from node.store import Store
from node.worker import Worker
from protocol import methods
from protocol.errors import UnknownPeerError
from protocol.ids import PeerId, is_named, parse_peer, peer_text
from swarm import capability
from swarm.registry import Known, Registry

CAPABILITY_ROWS: Final = 128
"""Peers that are not connected in one ``capability`` reply, those tried last."""


class Control:
    """Answers ``status``, ``peers``, ``ask`` and the rest.

    Args:
        version: of swarmd.
        device: where the model runs, for people.
        stop: ends the node.
    """

    def __init__(
        self,
        version: str,
        device: str,
        settings: Config,
        mesh: Mesh,
        registry: Registry,
        worker: Worker,
        coordinator: Coordinator,
        calibrator: Calibrator,
        knowledge: Knowledge,
        conduct: Conduct,
        store: Store,
        replication: Replication,
        stop: trio.Event,
    ) -> None:
        self._version = version
        self._device = device
        self._settings = settings
        self._mesh = mesh
        self._registry = registry
        self._worker = worker
        self._coordinator = coordinator
        self._calibrator = calibrator
        self._knowledge = knowledge
        self._conduct = conduct
        self._store = store
        self._replication = replication
        self._importer = Importer(replication.take, settings.swarm)
        self._stop = stop
        self._began = trio.current_time()

    def handlers(self) -> Mapping[str, Handler]:
        """By method name."""
        return {
            "ask": self._coordinator.ask,
            "cancel": self._cancel,
            "status": self._status,
            "peers": self._peers,
            "doctor": self._doctor,
            "find": self._find,
            "history": self._history,
            "why": self._why,
            "grade": self._grade,
            "calibrate": self._calibrator.calibrate,
            "capability": self._capability,
            "config": self._config,
            "state-import": self._importer.take_file,
            "state-label": self._label,
            "shutdown": self._shutdown,
        }

    async def _cancel(self, params: methods.CancelParams, notify: Notify) -> methods.Cancelled:
        return methods.Cancelled(await self._coordinator.cancel(params.ask))

    async def _status(self, params: methods.Nothing, notify: Notify) -> methods.Status:
        own = self._mesh.peer_id
        return methods.Status(
            version=self._version,
            peer=peer_text(own),
            swarm=self._settings.swarm,
            uptime_s=round(trio.current_time() - self._began, 3),
            addresses=self._mesh.addresses(),
            model=self._claimed(own).model,
            device=self._device,
            peers=len(self._mesh.links()) - 1,
            asks_running=self._coordinator.running,
            asks_waiting=self._coordinator.waiting,
            rounds_serving=self._worker.serving,
            ledger=await self._replication.report(),
        )

    async def _peers(self, params: methods.PeersParams, notify: Notify) -> methods.Peers:
        links = self._mesh.links()
        rows = [
            msgspec.structs.replace(
                self._claimed(link.peer),
                path=link.path,
                address=link.address,
                agent=link.agent,
                rtt_ms=None if link.rtt_s is None else round(1000 * link.rtt_s, 3),
                age_s=round(link.age_s, 3),
                direct_s=None if link.direct_s is None else round(link.direct_s, 3),
                why=link.why,
            )
            for link in links
        ]
        if params.all:
            linked = {link.peer for link in links}
            rows += [
                msgspec.structs.replace(
                    self._claimed(peer),
                    path="known",
                    address=presence.addresses[0] if presence.addresses else "",
                )
                for peer, presence in sorted(self._mesh.present().items())
                if peer not in linked and self._registry.get(peer) is not None
            ]
        return methods.Peers(tuple(rows))

    def _claimed(self, peer: PeerId) -> methods.PeerRow:
        """What the log of a peer says of it."""
        known = self._registry.get(peer) or Known()
        return methods.PeerRow(
            peer=peer_text(peer),
            model=known.profile.model.name if known.profile else "",
            label=known.profile.label if known.profile else "",
            since=known.since,
            forked=known.forked,
        )

    async def _doctor(self, params: methods.Nothing, notify: Notify) -> methods.Doctor:
        return doctor.examine(self._mesh.report(), self._settings.lan, doctor.agent(self._version))

    async def _find(self, params: methods.FindParams, notify: Notify) -> methods.Found:
        linked = [link.peer for link in self._mesh.links()]
        meant = [peer for peer in linked if is_named(params.peer, peer_text(peer))]
        peer = meant[0] if len(meant) == 1 else parse_peer(params.peer)
        via, presence = await self._mesh.find(peer, params.dht)
        if presence is None:
            return methods.Found(peer_text(peer))
        return methods.Found(
            peer_text(peer),
            via,
            presence.swarm,
            presence.addresses,
            presence.nat,
            presence.relay,
            presence.issued_at,
        )

    async def _history(self, params: methods.HistoryParams, notify: Notify) -> methods.History:
        return methods.History(tuple(await self._store.history(params.limit)))

    async def _why(self, params: methods.WhyParams, notify: Notify) -> dict[str, object]:
        return await self._coordinator.why(params.round)

    async def _grade(self, params: methods.GradeParams, notify: Notify) -> methods.Graded:
        return await self._coordinator.grade(params)

    async def _capability(self, params: methods.CapabilityParams, notify: Notify) -> dict[str, Any]:
        book, excluded = self._knowledge.book, self._conduct.excluded() | self._registry.forked
        # All that may be weighed now, and who was tried last: of a thousand keys it takes seconds.
        tried = sorted(book.records, key=lambda peer: -book.records[peer].last_at)
        here = sorted({*self._registry.able(), *tried[:CAPABILITY_ROWS]})
        found = capability.report(book, here, params.topic or "", excluded)
        rows: list[dict[str, Any]] = found["peers"]
        if params.peer is None:
            return found
        rows = [row for row in rows if is_named(params.peer, row["peer"])]
        if len(rows) != 1:
            found_text = f"{len(rows)} peers begin or end" if rows else "None begins or ends"
            raise UnknownPeerError(f"{found_text} with {params.peer}. See `swarm capability`.")
        return found | {"peers": rows}

    async def _config(self, params: methods.Nothing, notify: Notify) -> methods.Settings:
        return methods.Settings(tuple(methods.SettingRow(*row) for row in self._settings.rows()))

    async def _label(
        self, params: methods.StateLabelParams, notify: Notify
    ) -> methods.StateLabelled:
        own = self._replication.own
        own.label(params.label)
        return methods.StateLabelled(params.label, own.standing().waits)

    async def _shutdown(self, params: methods.Nothing, notify: Notify) -> dict[str, object]:
        self._stop.set()
        return {}
