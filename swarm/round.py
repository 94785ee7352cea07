"""The asker's side of a round, as a state machine.

Inputs are verified messages, news of failed peers, expired timers and cancellation; outputs are
effects. Each input that has an effect goes into the journal, and folding the journal through a
fresh machine gives the same receipt byte for byte (:mod:`swarm.verify`). Time is used for
deadlines only; no decision and no byte of the core depends on when within a phase a message came.

What is fixed, shown and judged together is a :class:`swarm.stage.Stage`. Where the plan has
several, the next peers are asked once a stage has ended without confidence, and all that follows
is done anew with everybody's answers.
"""

from __future__ import annotations

from typing import Final

from protocol import limits
from protocol.codec import encode
from protocol.envelope import Envelope, Signer
from protocol.ids import Digest, PeerId, RoundId, peer_text
from protocol.messages import (
    Ack,
    Ballot,
    Close,
    Commit,
    Decline,
    FromPeer,
    Incoming,
    Reveal,
    seal,
)
from protocol.receipt import (
    BreakKind,
    Broke,
    Cancelled,
    Core,
    Entry,
    Expired,
    Fault,
    FaultKind,
    Heard,
    Opening,
    Phase,
    Plan,
    Result,
    Standing,
    opening_digest,
    write,
)
from protocol.version import ROUND
from swarm import progress
from swarm.ballots import is_confident
from swarm.consensus import Case, decide, without_winner
from swarm.duels import following
from swarm.effects import Effect, Finished, Report, Send, Store
from swarm.seat import MISSING, ORDER, PHASES, TURN, Seat, State
from swarm.slate import Opened
from swarm.stage import Stage
from swarm.staging import Staging
from swarm.views import classes_found, scores

# What ends a phase, and what comes then. Anything not in the table cannot happen.
_NEXT: Final = {
    (State.COMMIT, "answered"): State.REVEAL,
    (State.COMMIT, "ask more"): State.COMMIT,
    (State.COMMIT, "ended"): State.DONE,
    (State.REVEAL, "to judge"): State.JUDGE,
    (State.REVEAL, "ask more"): State.COMMIT,
    (State.REVEAL, "ended"): State.DONE,
    (State.JUDGE, "more"): State.JUDGE,
    (State.JUDGE, "ask more"): State.COMMIT,
    (State.JUDGE, "ended"): State.DONE,
}


class Round:
    """One question, from Invite to receipt.

    Args:
        plan: everything decided beforehand, entropy included.
        signer: signs as the asker.
        now: seconds on the caller's monotonic clock.
        models: model names of the invited, for progress reports only.

    Attributes:
        result, core: once the round is done.
    """

    def __init__(
        self, plan: Plan, signer: Signer, now: float, models: dict[PeerId, str] | None = None
    ) -> None:
        self.plan = plan
        self.state = State.COMMIT
        self._signer = signer
        self._now = now
        self._began = now
        self._models = models or {}
        self._staging = Staging(plan)
        self._asked = 0
        self._seats: dict[PeerId, Seat] = {}
        self._rosters: list[Envelope] = []
        self._stage: Stage | None = None
        self._past: set[Digest] = set()
        self._found: Result | None = None
        self._faults: dict[tuple[PeerId, FaultKind], Fault] = {}
        self._journal: list[Entry] = []
        self._effects: list[Effect] = []
        self._visits: list[tuple[State, float]] = [(State.COMMIT, now)]
        self._deadline = now
        self.core: Core | None = None
        self.result: Result | None = None

        self._invited = self._staging.invite()
        self.invite = seal(signer, self._invited)
        self.round_id = RoundId(self.invite.digest)
        self._ask()
        self._advance()

    # --- inputs ---------------------------------------------------------------------------------

    def receive(self, incoming: Incoming, now: float) -> None:
        """A verified message from a peer. What does not concern this round is ignored."""
        self._now = now
        message = incoming.message
        seat = self._seats.get(incoming.peer)
        if seat is None or seat.out or self.state is State.DONE:
            return
        if not isinstance(message, FromPeer) or message.round != self.round_id:
            return
        name = incoming.envelope.digest
        if name in seat.seen:
            return
        seat.seen.add(name)
        self._journal.append(Heard(self._at(), incoming.envelope))
        turn, late = TURN[type(message)]
        past = self._is_past(seat, message)
        if len(seat.seen) > limits.ENVELOPES_PER_PEER:
            self._expel(seat, "malformed", f"over {limits.ENVELOPES_PER_PEER} messages")
        elif not past and ORDER.index(self.state) < ORDER.index(turn):
            self._expel(seat, "malformed", f"a {type(message).__name__} before its time")
        elif past or self.state is not turn:
            self._late(seat, message, turn, late)
        elif isinstance(message, Commit):
            self._commit(seat, incoming)
        elif isinstance(message, Decline):
            self._expel(seat, "declined", f"{message.reason}: {message.detail}"[:256])
        elif isinstance(message, Reveal):
            self._reveal(seat, incoming, message)
        else:
            self._ballot(seat, incoming, message)
        self._advance()

    def broke(self, peer: PeerId, kind: BreakKind, detail: str, now: float) -> None:
        """A peer sent what is no message, or cannot be reached any more."""
        self._now = now
        seat = self._seats.get(peer)
        if seat is None or seat.out or self.state is State.DONE:
            return
        if kind == "lost" and self.state is State.JUDGE and seat not in self._awaited():
            return  # it has done what this wave asks of it
        detail = detail[:256]
        self._journal.append(Broke(self._at(), peer, kind, detail))
        self._expel(seat, kind, detail)
        self._advance()

    def on_timer(self, now: float) -> None:
        """The deadline of :meth:`timer_at` has come; earlier calls change nothing."""
        if self.state is not State.DONE and now >= self._deadline:
            self.expire(now)

    def expire(self, now: float) -> None:
        """The phase is out of time: name who is missing and go on without them."""
        self._now = now
        self._journal.append(Expired(self._at()))
        for seat in self._awaited():
            self._fault(seat, MISSING[self.state], self.state, "nothing came in time")
        self._end_phase()
        self._advance()

    def cancel(self, now: float) -> None:
        """The asker gives up: tell everyone, keep a receipt of what happened so far."""
        self._now = now
        if self.state is not State.DONE:
            self._journal.append(Cancelled(self._at()))
            if self.state is State.JUDGE and self._stage is not None:
                self._stage.close_wave(more=False)
            self._close(without_winner("cancelled"))

    def timer_at(self) -> float | None:
        """When :meth:`on_timer` is due, on the clock of ``now``; None once done."""
        return None if self.state is State.DONE else self._deadline

    def effects(self) -> list[Effect]:
        """Effects queued since the last call, in order."""
        queued, self._effects = self._effects, []
        return queued

    # --- what can be asked of it ------------------------------------------------------------------

    @property
    def slate(self) -> Envelope | None:
        """What is judged, once the Reveals of the last Roster are in."""
        return self._stage.slate if self._stage else None

    @property
    def opened(self) -> Opened | None:
        """The content of :attr:`slate`."""
        return self._stage.opened if self._stage else None

    @property
    def journal(self) -> tuple[Entry, ...]:
        """Everything heard so far that had an effect."""
        return tuple(self._journal)

    def timing_ms(self) -> dict[str, float]:
        """Milliseconds spent in each phase so far, and in all. Not part of the receipt."""
        ends = [start for _, start in self._visits[1:]] + [self._now]
        spent: dict[str, float] = {}
        for (state, start), end in zip(self._visits, ends, strict=True):
            if state is not State.DONE:
                name = f"{state.value}_ms"
                spent[name] = round(spent.get(name, 0.0) + 1000 * (end - start), 3)
        return spent | {"total_ms": round(1000 * (self._now - self._began), 3)}

    def hears(self, peer: PeerId) -> bool:
        """Whether anything from ``peer`` can still matter."""
        seat = self._seats.get(peer)
        return seat is not None and not seat.out and self.state is not State.DONE

    def standing(self, peer: PeerId) -> Standing:
        """The evidence on one of the invited.

        Raises:
            KeyError: it was not invited.
        """
        return self._seats[peer].standing

    def served(self) -> list[PeerId]:
        """The peers whose answer came in, and whose verdicts too where they were due."""
        if self._stage is None:
            return []
        return [
            seat.peer
            for seat in self._stage.judges()
            if (seat.peer, "no-ballot") not in self._faults
        ]

    def models(self) -> dict[PeerId, str]:
        """What each peer of the last Roster says it runs."""
        return {seat.peer: seat.model for seat in self._stage.seats} if self._stage else {}

    def case(self) -> Case:
        """What the ballots accepted so far say, as the consensus takes it.

        Raises:
            ValueError: the answers have not been shown yet.
        """
        case = self._stage.case() if self._stage else None
        if case is None:
            raise ValueError("the answers have not been shown yet")
        return case

    # --- one message ------------------------------------------------------------------------------

    def _is_past(self, seat: Seat, message: FromPeer) -> bool:
        """Whether it belongs to a stage that is over."""
        match message:
            case Commit() | Decline():
                return seat.stage < self._asked
            case Reveal():
                return message.roster in self._past
            case Ballot():
                return message.slate in self._past

    def _commit(self, seat: Seat, incoming: Incoming) -> None:
        if seat.commit is not None:
            seat.commit = None
            self._expel(seat, "equivocation", "two different Commits")
            return
        assert isinstance(incoming.message, Commit)
        seat.commit = incoming
        seat.model = incoming.message.model.name or seat.model
        self._report(progress.Committed(peer_text(seat.peer), seat.model))

    def _reveal(self, seat: Seat, incoming: Incoming, message: Reveal) -> None:
        assert self._stage is not None
        objection = self._stage.take_reveal(seat, incoming, self.plan.answer_bytes)
        if objection is not None:
            self._expel(seat, *objection)
            return
        self._report(progress.Revealed(peer_text(seat.peer), message.answer))

    def _ballot(self, seat: Seat, incoming: Incoming, message: Ballot) -> None:
        stage = self._stage
        assert stage is not None
        assert stage.opened is not None
        if message.wave < stage.wave and stage.ballot(seat, message.wave) is None:
            self._fault(seat, "late-ballot", State.JUDGE, f"for wave {message.wave}")
            return
        objection = stage.take_ballot(seat, incoming)
        if objection is not None:
            self._expel(seat, *objection)
            return
        ack = seal(self._signer, Ack(self.round_id, incoming.envelope.digest))
        stage.acks[incoming.envelope.digest] = ack
        self._send(seat, ack)
        self._report(progress.BallotCast(peer_text(seat.peer), stage.wave))
        if self._awaited():  # the last ballot closes the wave, which reports
            self._report(scores(stage.opened, decide(self.case())))

    def _late(self, seat: Seat, message: FromPeer, turn: State, late: FaultKind) -> None:
        if self._is_filled(seat, message):
            self._expel(seat, "equivocation", f"two different {type(message).__name__}s")
            return
        if isinstance(message, Ballot):
            self._fault(seat, late, turn, "for an earlier Slate")
            return
        self._faults.pop((seat.peer, MISSING[turn]), None)
        self._fault(seat, late, turn, f"its {type(message).__name__} came after the deadline")
        seat.out = True

    def _is_filled(self, seat: Seat, message: FromPeer) -> bool:
        """Whether another message stands where this one would."""
        match message:
            case Commit() | Decline():
                return seat.commit is not None
            case Reveal() if message.roster in self._past:
                return message.roster in seat.reveals
            case Reveal():
                return self._stage is not None and self._stage.reveal(seat) is not None
            case Ballot():
                return (message.slate, message.wave) in seat.ballots

    # --- phases -----------------------------------------------------------------------------------

    def _awaited(self) -> list[Seat]:
        """The peers that the current phase waits for."""
        if self.state is State.COMMIT:
            return [
                seat
                for seat in self._seats.values()
                if seat.stage == self._asked and not seat.out and seat.commit is None
            ]
        assert self._stage is not None
        return self._stage.unrevealed() if self.state is State.REVEAL else self._stage.unvoted()

    def _advance(self) -> None:
        """End phases that wait for nobody, until one does."""
        while self.state is not State.DONE and not self._awaited():
            self._end_phase()

    def _end_phase(self) -> None:
        if self.state is State.COMMIT:
            self._fix_roster()
        elif self.state is State.REVEAL:
            self._fix_slate()
        else:
            self._close_wave()

    def _go(self, why: str, duration_ms: int = 0) -> None:
        before, self.state = self.state, _NEXT[self.state, why]
        self._deadline = self._now + duration_ms / 1000
        if self.state is not before:
            self._visits.append((self.state, self._now))

    def _ask(self) -> None:
        """Invite the peers of the stage that is due."""
        new = [
            Seat(one, self._models.get(one.peer, ""), self._asked)
            for one in self._staging.newcomers(self._asked)
        ]
        self._seats |= {seat.peer: seat for seat in new}
        self._deadline = self._now + self.plan.phases.commit / 1000
        rows = tuple(progress.Invitee(peer_text(seat.peer), seat.model) for seat in new)
        if self._asked:
            self._report(progress.StageOpened(self._asked, rows))
        else:
            self._report(progress.Invited(self.round_id.hex(), rows))
        for seat in new:
            self._send(seat, self.invite)

    def _fix_roster(self) -> None:
        seats = sorted(
            (seat for seat in self._seats.values() if seat.commit is not None and not seat.out),
            key=lambda seat: seat.peer,
        )
        joined = any(seat.stage == self._asked for seat in seats)
        if not joined or len(seats) < self.plan.min_answers:
            self._end_stage()
            return
        stage = Stage(self._signer, self.round_id, seats, self._rosters, self.plan.rule)
        self._stage, self._found = stage, None
        self._rosters.append(stage.roster)
        peers = tuple(peer_text(seat.peer) for seat in seats)
        self._report(progress.RosterFixed(len(self._rosters) - 1, peers))
        for seat in seats:
            self._send(seat, stage.roster)
        self._go("answered", self.plan.phases.reveal)

    def _fix_slate(self) -> None:
        assert self._stage is not None
        opened = self._stage.show(self._invited, self._staging.secret(len(self._rosters) - 1))
        self._report(classes_found(opened))
        if len(opened.judges) < self.plan.min_answers:
            self._end_stage()
            return
        if len(opened.classes) == 1:  # nothing to compare
            self._found = decide(self.case())
            self._end_stage()
            return
        assert self._stage.slate is not None
        for seat in self._stage.judges():
            self._send(seat, self._stage.slate)
        self._go("to judge", self.plan.phases.judge)

    def _close_wave(self) -> None:
        stage = self._stage
        assert stage is not None
        assert stage.opened is not None
        assert stage.pairing is not None
        case = self.case()
        result = decide(case)
        after = following(stage.pairing, case, result)
        stage.confident = after is not None and is_confident(case.rule, result)
        if stage.confident:
            after = None
        close = stage.close_wave(after is not None, after.duels[-1] if after else ())
        for seat in stage.judges():
            self._send(seat, close)
        self._report(scores(stage.opened, result))
        if after is not None:
            stage.open_wave(after)
            self._go("more", self.plan.phases.judge)
        else:
            self._found = result
            self._end_stage()

    def _end_stage(self) -> None:
        """Close with what was found, or ask more peers where that leaves too much doubt."""
        found, stage = self._found, self._stage
        sure = found is not None and stage is not None and is_confident(stage.rule, found)
        if sure or self._asked + 1 == len(self._staging):
            self._close(found or without_winner("partial"))
            return
        if stage is not None:
            self._past |= stage.names()
        self._asked += 1
        self._go("ask more", self.plan.phases.commit)
        self._ask()

    def _close(self, result: Result) -> None:
        self.result = result
        opening = encode(Opening(self.plan, self.invite, tuple(self._journal)))
        self.core = self._core(result, opening_digest(opening))
        core = self._signer.seal(encode(self.core))
        self._go("ended")
        # On disk before anyone is told of it.
        self._effects.append(Store(self.round_id, write(core, opening)))
        close = seal(self._signer, Close(self.round_id, result.outcome, core.digest))
        for seat in self._seats.values():
            if not self._unreachable(seat):
                self._send(seat, close)
        self._report(progress.Closed(result.outcome))
        self._effects.append(Finished(result.outcome))

    def _unreachable(self, seat: Seat) -> bool:
        return any((seat.peer, kind) in self._faults for kind in ("lost", "unsent", "declined"))

    # --- what is derived --------------------------------------------------------------------------

    def _core(self, result: Result, opening: Digest) -> Core:
        stage = self._stage
        return Core(
            version=ROUND,
            swarm=self.plan.swarm,
            round=self.round_id,
            rule=stage.rule if stage else self.plan.rule,
            adaptive=self.plan.adaptive,
            stages=self._staging.sizes,
            standings=tuple(self._seats[peer].standing for peer in sorted(self._seats)),
            earlier=tuple(self._rosters[:-1]),
            roster=stage.roster if stage else None,
            commits=stage.commits() if stage else (),
            weights=stage.weights() if stage else (),
            judging=stage.judging() if stage else None,
            faults=tuple(self._faults[key] for key in sorted(self._faults)),
            result=result,
            opening=opening,
        )

    def _at(self) -> int:
        return max(0, round(1000 * (self._now - self._began)))

    # --- faults, messages, reports ----------------------------------------------------------------

    def _expel(self, seat: Seat, kind: FaultKind, detail: str) -> None:
        """Note the fault and hear no more of this peer in this round."""
        seat.out = True
        self._fault(seat, kind, self.state, detail)

    def _fault(self, seat: Seat, kind: FaultKind, state: State, detail: str) -> None:
        phase: Phase = PHASES[state]
        fault = Fault(seat.peer, phase, kind, detail[:256])
        if self._faults.setdefault((seat.peer, kind), fault) is fault:
            self._report(progress.Faulted(peer_text(seat.peer), phase, kind, fault.detail))

    def _send(self, seat: Seat, envelope: Envelope) -> None:
        self._effects.append(Send(seat.peer, encode(envelope)))

    def _report(self, event: progress.Event) -> None:
        self._effects.append(Report(event))
