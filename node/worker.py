"""Serves other peers' rounds: decides which Invites to take, runs a Participant for each.

A node refuses before it generates: rounds at once are bounded, in all and for each asker, and a
round id is remembered, so that an Invite cannot be played twice.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from node.backends.base import Backend, GenerateRequest, JudgeRequest
from node.driver import Input, drive
from protocol import limits
from protocol.codec import encode
from protocol.digest import digest
from protocol.envelope import Signer
from protocol.errors import MeshError, SwarmError, TooLargeError
from protocol.ids import PeerId, RoundId, short, short_peer
from protocol.messages import Decline, DeclineReason, FromAsker, Incoming, Invite, Model, seal
from protocol.version import PROTOCOL
from swarm.effects import Effect, Generate, Judge, Send, StopWork
from swarm.participant import Participant

_log = logging.getLogger(__name__)

Post = Callable[[PeerId, bytes], None]
"""Queues a payload for a peer; raises MeshError or TooLargeError."""


@dataclass(slots=True)
class _Service:
    """A round being served."""

    participant: Participant
    inputs: trio.MemorySendChannel[Input]
    work: trio.CancelScope = field(default_factory=trio.CancelScope)
    serving: trio.CancelScope = field(default_factory=trio.CancelScope)


class Worker:
    """Takes part in rounds with one backend.

    Args:
        nursery: runs the rounds; they end with it.
        post: the way to other peers.
        backend: answers and judges.
        model: what the backend runs, as it goes into every Commit.
        signer: signs as this node.
        swarm: rounds of other swarms are declined.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        post: Post,
        backend: Backend,
        model: Model,
        signer: Signer,
        swarm: str,
    ) -> None:
        self._nursery = nursery
        self._post = post
        self._backend = backend
        self._model = model
        self._signer = signer
        self._swarm = swarm
        self._serving: dict[RoundId, _Service] = {}
        self._ended: OrderedDict[RoundId, None] = OrderedDict()

    @property
    def serving(self) -> int:
        """Rounds this node takes part in now."""
        return len(self._serving)

    def receive(self, incoming: Incoming) -> None:
        """A verified message of an asker."""
        message = incoming.message
        if isinstance(message, Invite):
            self._invited(incoming, message)
        elif isinstance(message, FromAsker):
            service = self._serving.get(message.round)
            if service is not None and incoming.peer == service.participant.asker:
                self._feed(service, lambda now: service.participant.receive(incoming, now))

    def lost(self, asker: PeerId) -> None:
        """The link to ``asker`` ended: nobody waits for its rounds here."""
        for service in self._serving.values():
            if service.participant.asker == asker:
                service.serving.cancel()

    def _invited(self, incoming: Incoming, invite: Invite) -> None:
        round_id = RoundId(incoming.envelope.digest)
        if round_id in self._serving or round_id in self._ended:
            return
        refusal = self._refusal(incoming.peer, invite)
        if refusal is not None:
            reason, detail = refusal
            decline = Decline(round_id, reason, detail)
            self._send(incoming.peer, encode(seal(self._signer, decline)))
            return
        participant = Participant(
            incoming, self._signer, self._model, self._salt(round_id), trio.current_time()
        )
        inputs, feed = trio.open_memory_channel[Input](limits.ENVELOPES_PER_PEER)
        service = _Service(participant, inputs)
        self._serving[round_id] = service
        self._nursery.start_soon(self._serve, round_id, service, feed)

    def _salt(self, round_id: RoundId) -> bytes:
        """A secret that is the same for the same round.

        An Invite replayed after it was forgotten, or after a restart, then gives the same Commit
        again, not a second one that would be proof of equivocation.
        """
        return digest("salt", self._signer.seal(b"salt" + round_id).signature)

    def _refusal(self, asker: PeerId, invite: Invite) -> tuple[DeclineReason, str] | None:
        """Why not to take part: a reason and the particulars, or None."""
        if invite.version != PROTOCOL:
            return "unsupported", f"this node speaks version {PROTOCOL}"
        if invite.swarm != self._swarm:
            return "refused", "this node is in another swarm"
        if len(invite.question.encode()) > limits.QUESTION_BYTES:
            return "refused", f"a question has at most {limits.QUESTION_BYTES} bytes"
        if asker == self._signer.peer:
            return None  # its own questions are bounded by ASKS_AT_ONCE
        askers = Counter(service.participant.asker for service in self._serving.values())
        if askers[asker] >= limits.ROUNDS_PER_ASKER or self.serving >= limits.ROUNDS_AT_ONCE:
            return "busy", f"{self.serving} rounds are being served"
        return None

    async def _serve(
        self, round_id: RoundId, service: _Service, feed: trio.MemoryReceiveChannel[Input]
    ) -> None:
        async def carry(effect: Effect) -> None:
            match effect:
                case Send(to, payload):
                    self._send(to, payload)
                case Generate() | Judge():
                    service.work = trio.CancelScope()
                    nursery.start_soon(self._work, service, effect, service.work)
                case StopWork():
                    service.work.cancel()

        try:
            with service.serving:
                async with trio.open_nursery() as nursery:
                    reason = await drive(service.participant, feed, carry)
                    _log.debug("round %s ended here: %s", short(round_id), reason)
                    nursery.cancel_scope.cancel()
        finally:
            del self._serving[round_id]
            self._remember(round_id)

    async def _work(
        self, service: _Service, effect: Generate | Judge, scope: trio.CancelScope
    ) -> None:
        """Ask the backend and hand what it says to the participant."""
        participant = service.participant
        with scope:
            try:
                if isinstance(effect, Generate):
                    request = GenerateRequest(
                        effect.question, effect.max_tokens, effect.max_bytes, effect.seed
                    )
                    made = await self._backend.generate(request, lambda text: None)
                    self._feed(
                        service, _unless_stopped(scope, partial(participant.generated, made.answer))
                    )
                else:
                    pairs = JudgeRequest(
                        effect.question, effect.answers, effect.pairs, effect.nonce
                    )
                    verdicts = await self._backend.judge(pairs)
                    self._feed(
                        service, _unless_stopped(scope, partial(participant.judged, verdicts))
                    )
            except SwarmError as error:
                _log.warning("the model failed: %s", error.user_text())
                failed = partial(participant.failed, str(error) or error.code)
                self._feed(service, _unless_stopped(scope, failed))
            except Exception:
                # A bug in a backend must not end the node; the asker hears that it failed.
                _log.exception("the backend failed unexpectedly")
                failed = partial(participant.failed, "internal error")
                self._feed(service, _unless_stopped(scope, failed))

    def _feed(self, service: _Service, apply: Input) -> None:
        try:
            service.inputs.send_nowait(apply)
        except trio.WouldBlock:
            _log.warning("an asker floods round %s", short(service.participant.round_id))
        except trio.BrokenResourceError:
            pass  # the round has just ended

    def _send(self, to: PeerId, payload: bytes) -> None:
        try:
            self._post(to, payload)
        except (MeshError, TooLargeError) as error:
            # The asker notices by its own clock; so does the participant.
            _log.info("no way to asker %s: %s", short_peer(to), error)

    def _remember(self, round_id: RoundId) -> None:
        self._ended[round_id] = None
        while len(self._ended) > limits.ROUNDS_REMEMBERED:
            self._ended.popitem(last=False)


def _unless_stopped(scope: trio.CancelScope, apply: Input) -> Input:
    """What work brought, unless it was stopped while that waited: it may be of a past wave."""

    def checked(now: float) -> None:
        if not scope.cancel_called:
            apply(now)

    return checked
