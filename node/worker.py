"""Serves other peers' rounds: decides which Invites to take, runs a Participant for each.

A node refuses before it generates: rounds at once are bounded, in all and for each asker. The id
of a round is on disk before this node's Commit leaves, so that no replay of an Invite, whatever
has happened to the node meanwhile, makes it commit twice, which would convict it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from node.backends.base import Backend, GenerateRequest, JudgeRequest
from node.conduct import Conduct
from node.driver import Input, drive
from node.peer_records import PeerRecords
from protocol import limits
from protocol.codec import encode
from protocol.digest import digest
from protocol.envelope import Signer
from protocol.errors import MeshError, StoreError, SwarmError, TooLargeError
from protocol.ids import PeerId, RoundId, short, short_peer
from protocol.messages import Decline, DeclineReason, FromAsker, Incoming, Invite, Model, seal
from protocol.version import ROUND
from swarm.effects import Effect, Generate, Judge, Send, StopWork
from swarm.participant import Participant
from swarm.proofs import Witness

_log = logging.getLogger(__name__)

Post = Callable[[PeerId, bytes], None]
"""Queues a payload for a peer; raises MeshError or TooLargeError."""


@dataclass(slots=True)
class _Service:
    """A round being served.

    Attributes:
        may_answer: set once the round's id is on disk, or need not be.
        claimed: the id was put there for this service.
        answered: a Commit may have left.
    """

    participant: Participant
    inputs: trio.MemorySendChannel[Input]
    work: trio.CancelScope = field(default_factory=trio.CancelScope)
    serving: trio.CancelScope = field(default_factory=trio.CancelScope)
    witness: Witness = field(default_factory=Witness)
    may_answer: trio.Event = field(default_factory=trio.Event)
    claimed: bool = False
    answered: bool = False


class Worker:
    """Takes part in rounds with one backend.

    Args:
        nursery: runs the rounds; they end with it.
        post: the way to other peers.
        backend: answers and judges; None at a node that runs no model, and declines all.
        model: what the backend runs, as it goes into every Commit.
        signer: signs as this node.
        swarm: rounds of other swarms are declined.
        records: where the rounds are kept that this node has answered.
        conduct: what the askers have done, which decides whom to serve.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        post: Post,
        backend: Backend | None,
        model: Model,
        signer: Signer,
        swarm: str,
        records: PeerRecords,
        conduct: Conduct,
    ) -> None:
        self._nursery = nursery
        self._post = post
        self._backend = backend
        self._model = model
        self._signer = signer
        self._swarm = swarm
        self._records = records
        self._conduct = conduct
        self._serving: dict[RoundId, _Service] = {}

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
                proof = service.witness.hear(incoming)
                if proof is not None:
                    self._conduct.convict([proof])
                self._feed(service, lambda now: service.participant.receive(incoming, now))

    def lost(self, asker: PeerId) -> None:
        """The link to ``asker`` ended: nobody waits for its rounds here."""
        for service in self._serving.values():
            if service.participant.asker == asker:
                service.serving.cancel()

    def _invited(self, incoming: Incoming, invite: Invite) -> None:
        round_id = RoundId(incoming.envelope.digest)
        if round_id in self._serving:
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

        Even when an Invite is replayed of which the id was lost, with the disk for instance, a
        model that answers the same gives the same Commit, which convicts nobody.
        """
        return digest("salt", self._signer.seal(b"salt" + round_id).signature)

    def _refusal(self, asker: PeerId, invite: Invite) -> tuple[DeclineReason, str] | None:
        """Why not to take part: a reason and the particulars, or None."""
        if self._backend is None:
            return "refused", "this node runs no model"
        if invite.version != ROUND:
            return "unsupported", f"this node speaks version {ROUND}"
        if invite.swarm != self._swarm:
            return "refused", "this node is in another swarm"
        if len(invite.question.encode()) > limits.QUESTION_BYTES:
            return "refused", f"a question has at most {limits.QUESTION_BYTES} bytes"
        if asker == self._signer.peer:
            return None  # its own questions are bounded by ASKS_AT_ONCE
        if self._conduct.struck(asker) is not None:
            return "refused", "a proof excludes you"
        serving = Counter(service.participant.asker for service in self._serving.values())
        del serving[self._signer.peer]
        busy = self._conduct.admit(asker, serving)
        return None if busy is None else ("busy", busy)

    async def _serve(
        self, round_id: RoundId, service: _Service, feed: trio.MemoryReceiveChannel[Input]
    ) -> None:
        async def carry(effect: Effect) -> None:
            match effect:
                case Send(to, payload):
                    self._send(to, payload)
                case Generate() | Judge():
                    service.work = trio.CancelScope()
                    if isinstance(effect, Generate):
                        nursery.start_soon(self._claim, round_id, service)
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
            if service.claimed and not service.answered:
                await self._release(round_id)
            del self._serving[round_id]

    async def _work(
        self, service: _Service, effect: Generate | Judge, scope: trio.CancelScope
    ) -> None:
        """Ask the backend and hand what it says to the participant."""
        participant = service.participant
        backend = self._backend
        assert backend is not None  # without one every Invite is declined
        with scope:
            try:
                if isinstance(effect, Generate):
                    request = GenerateRequest(
                        effect.question, effect.max_tokens, effect.max_bytes, effect.seed
                    )
                    made = await backend.generate(request, lambda text: None)
                    await service.may_answer.wait()
                    self._answered(service)
                    self._feed(
                        service, _unless_stopped(scope, partial(participant.generated, made.answer))
                    )
                else:
                    pairs = JudgeRequest(
                        effect.question, effect.answers, effect.pairs, effect.nonce
                    )
                    verdicts = await backend.judge(pairs)
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

    async def _claim(self, round_id: RoundId, service: _Service) -> None:
        """Put the round's id on disk, while the model already works; if it is there, stop."""
        problem = "this round was answered before"
        if service.participant.asker == self._signer.peer:
            service.may_answer.set()  # no nonce of one's own comes twice
            return
        try:
            service.claimed = await self._records.claim(round_id)
        except StoreError as error:
            _log.error("round %s is not answered: %s", short(round_id), error.user_text())
            problem = "internal error"
        if service.claimed:
            service.may_answer.set()
        else:
            self._feed(service, partial(service.participant.failed, problem))

    async def _release(self, round_id: RoundId) -> None:
        """Forget a round that ended unanswered: flooding the memory has to cost answers."""
        try:
            await self._records.release(round_id)
        except StoreError as error:
            _log.error("round %s stays claimed: %s", short(round_id), error.user_text())

    def _answered(self, service: _Service) -> None:
        """From here on a Commit may leave."""
        service.answered = True
        if service.participant.asker != self._signer.peer:
            self._conduct.served(service.participant.asker)

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


def _unless_stopped(scope: trio.CancelScope, apply: Input) -> Input:
    """What work brought, unless it was stopped while that waited: it may be of a past wave."""

    def checked(now: float) -> None:
        if not scope.cancel_called:
            apply(now)

    return checked
