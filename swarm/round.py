"""The asker's side of a round, as a state machine.

Inputs are verified messages, news of failed peers, expired timers and cancellation; outputs are
effects. Each input that has an effect goes into the journal, and folding the journal through a
fresh machine gives the same receipt byte for byte (:mod:`swarm.verify`). Time is used for
deadlines only; no decision and no byte of the core depends on when within a phase a message came.
"""

from __future__ import annotations

from typing import Final

from protocol import limits
from protocol.codec import decode, encode
from protocol.envelope import Envelope, Signer
from protocol.errors import RefusedError
from protocol.ids import ZERO_DIGEST, Digest, PeerId, RoundId, peer_text
from protocol.messages import (
    Ack,
    Ballot,
    Close,
    Commit,
    Decline,
    FromPeer,
    Incoming,
    Invite,
    Reveal,
    Roster,
    RosterEntry,
    Slate,
    SlateEntry,
    WaveClose,
    ballot_set,
    seal,
    secret_hash,
)
from protocol.receipt import (
    AnswerClass,
    BreakKind,
    Broke,
    Cancelled,
    Core,
    Entry,
    Expired,
    Fault,
    FaultKind,
    Heard,
    Judging,
    Opening,
    Phase,
    Plan,
    Result,
    Wave,
    opening_digest,
    write,
)
from protocol.version import PROTOCOL
from swarm import progress
from swarm.ballots import ballot_rows, check_ballot, is_confident
from swarm.consensus import Case, Vote, decide, rule_in_force, seat_weights, without_winner
from swarm.effects import Effect, Finished, Report, Send, Store
from swarm.pairing import both_orders, waves
from swarm.seat import MISSING, ORDER, PHASES, TURN, Seat, State
from swarm.slate import Opened, check_reveal, open_slate
from swarm.views import classes_found, scores

# What ends a phase, and what comes then. Anything not in the table cannot happen.
_NEXT: Final = {
    (State.COMMIT, "answered"): State.REVEAL,
    (State.COMMIT, "too few"): State.DONE,
    (State.REVEAL, "to judge"): State.JUDGE,
    (State.REVEAL, "unanimous"): State.DONE,
    (State.REVEAL, "too few"): State.DONE,
    (State.JUDGE, "more"): State.JUDGE,
    (State.JUDGE, "judged"): State.DONE,
    (State.COMMIT, "cancelled"): State.DONE,
    (State.REVEAL, "cancelled"): State.DONE,
    (State.JUDGE, "cancelled"): State.DONE,
}


class Round:
    """One question, from Invite to receipt.

    Args:
        plan: everything decided beforehand, entropy included. ``plan.invited`` is sorted by peer.
        signer: signs as the asker.
        now: seconds on the caller's monotonic clock.
        models: model names of the invited, for progress reports only.

    Attributes:
        slate, opened: what is judged, once the Reveals are in.
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
        self._seats = {
            one.peer: Seat(one, (models or {}).get(one.peer, "")) for one in plan.invited
        }
        self._faults: dict[tuple[PeerId, FaultKind], Fault] = {}
        self._journal: list[Entry] = []
        self._effects: list[Effect] = []
        self._phase_began: dict[State, float] = {State.COMMIT: now}
        self._roster: Envelope | None = None
        self._roster_seats: list[Seat] = []
        self.slate: Envelope | None = None
        self.opened: Opened | None = None
        self._waves: list[Wave] = []
        self._acks: dict[Digest, Envelope] = {}
        self._confident = False
        self._rule = plan.rule
        self.core: Core | None = None
        self.result: Result | None = None

        self._invited = Invite(
            version=PROTOCOL,
            swarm=plan.swarm,
            nonce=plan.nonce,
            question=plan.question,
            answer_bytes=plan.answer_bytes,
            answer_tokens=plan.answer_tokens,
            phases=plan.phases,
            secret_hash=secret_hash(plan.secret),
        )
        self.invite = seal(signer, self._invited)
        self.round_id = RoundId(self.invite.digest)
        self._deadline = now + plan.phases.commit / 1000
        self._report(
            progress.Invited(
                self.round_id.hex(),
                tuple(progress.Invitee(peer_text(s.peer), s.model) for s in self._seats.values()),
            )
        )
        for seat in self._seats.values():
            self._effects.append(Send(seat.peer, encode(self.invite)))
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
        if len(seat.seen) > limits.ENVELOPES_PER_PEER:
            self._expel(seat, "malformed", f"over {limits.ENVELOPES_PER_PEER} messages")
        elif ORDER.index(self.state) < ORDER.index(turn):
            self._expel(seat, "malformed", f"a {type(message).__name__} before its time")
        elif self.state is not turn:
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
            if self.state is State.JUDGE:
                self._seal_wave(more=False)
            self._close("cancelled", without_winner("cancelled"))

    def timer_at(self) -> float | None:
        """When :meth:`on_timer` is due, on the clock of ``now``; None once done."""
        return None if self.state is State.DONE else self._deadline

    def effects(self) -> list[Effect]:
        """Effects queued since the last call, in order."""
        queued, self._effects = self._effects, []
        return queued

    def timing_ms(self) -> dict[str, float]:
        """Milliseconds spent in each phase so far, and in all. Not part of the receipt."""
        starts = list(self._phase_began.items())
        ends = [start for _, start in starts[1:]] + [self._now]
        spent = {
            f"{state.value}_ms": round(1000 * (end - start), 3)
            for (state, start), end in zip(starts, ends, strict=True)
            if state is not State.DONE
        }
        return spent | {"total_ms": round(1000 * (self._now - self._began), 3)}

    def hears(self, peer: PeerId) -> bool:
        """Whether anything from ``peer`` can still matter."""
        seat = self._seats.get(peer)
        return seat is not None and not seat.out and self.state is not State.DONE

    def models(self) -> dict[PeerId, str]:
        """What each peer that committed says it runs."""
        return {seat.peer: seat.model for seat in self._roster_seats}

    # --- one message ------------------------------------------------------------------------------

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
        if seat.commit is None or self._roster is None:
            self._expel(seat, "malformed", "a Reveal without a Commit")
            return
        if seat.reveal is not None:
            self._expel(seat, "equivocation", "two different Reveals")
            return
        assert isinstance(seat.commit.message, Commit)
        try:
            check_reveal(
                seat.commit.message,
                seat.peer,
                message,
                self._roster.digest,
                self.plan.answer_bytes,
            )
        except RefusedError as error:
            oversize = len(message.answer.encode()) > self.plan.answer_bytes
            self._expel(seat, "oversize" if oversize else "commit-mismatch", str(error))
            return
        seat.reveal = incoming
        self._report(progress.Revealed(peer_text(seat.peer), message.answer))

    def _ballot(self, seat: Seat, incoming: Incoming, message: Ballot) -> None:
        assert self.opened is not None
        assert self.slate is not None
        wave = len(self._waves)
        if message.wave in seat.ballots:
            self._expel(seat, "equivocation", f"two different Ballots in wave {message.wave}")
            return
        if message.wave < wave:
            self._fault(seat, "late-ballot", State.JUDGE, f"for wave {message.wave}")
            return
        try:
            check_ballot(message, seat.peer, self.opened, self.slate.digest, wave, self._last())
        except RefusedError as error:
            self._expel(seat, "bad-ballot", str(error))
            return
        seat.ballots[wave] = incoming
        ack = seal(self._signer, Ack(self.round_id, incoming.envelope.digest))
        self._acks[incoming.envelope.digest] = ack
        self._effects.append(Send(seat.peer, encode(ack)))
        self._report(progress.BallotCast(peer_text(seat.peer), wave))
        if self._awaited():  # the last ballot closes the wave, which reports
            self._report(scores(self.opened, decide(self.case())))

    def _late(self, seat: Seat, message: FromPeer, turn: State, late: FaultKind) -> None:
        filled = {
            State.COMMIT: seat.commit is not None,
            State.REVEAL: seat.reveal is not None,
            State.JUDGE: isinstance(message, Ballot) and message.wave in seat.ballots,
        }[turn]
        if filled:
            self._expel(seat, "equivocation", f"two different {type(message).__name__}s")
            return
        self._faults.pop((seat.peer, MISSING[turn]), None)
        self._fault(seat, late, turn, f"its {type(message).__name__} came after the deadline")
        seat.out = True

    # --- phases -----------------------------------------------------------------------------------

    def _awaited(self) -> list[Seat]:
        """The peers that the current phase waits for."""
        if self.state is State.COMMIT:
            return [s for s in self._seats.values() if not s.out and s.commit is None]
        if self.state is State.REVEAL:
            return [s for s in self._roster_seats if not s.out and s.reveal is None]
        wave = len(self._waves)
        return [
            s
            for s in self._roster_seats
            if not s.out and s.reveal is not None and wave not in s.ballots
        ]

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
        self.state = _NEXT[self.state, why]
        self._deadline = self._now + duration_ms / 1000
        self._phase_began.setdefault(self.state, self._now)

    def _fix_roster(self) -> None:
        seats = [seat for seat in self._seats.values() if seat.commit is not None and not seat.out]
        if len(seats) < self.plan.min_answers:
            self._close("too few", without_winner("partial"))
            return
        self._roster_seats = seats
        self._rule = rule_in_force(self.plan.rule, [seat.standing for seat in seats])
        entries = tuple(
            RosterEntry(seat.peer, seat.commit.envelope.digest) for seat in seats if seat.commit
        )
        self._roster = seal(self._signer, Roster(self.round_id, 0, ZERO_DIGEST, entries))
        self._report(progress.RosterFixed(0, tuple(peer_text(seat.peer) for seat in seats)))
        for seat in seats:
            self._effects.append(Send(seat.peer, encode(self._roster)))
        self._go("answered", self.plan.phases.reveal)

    def _fix_slate(self) -> None:
        assert self._roster is not None
        slate = Slate(
            self.round_id,
            self._roster.digest,
            tuple(
                SlateEntry(seat.commit.envelope, seat.reveal.envelope if seat.reveal else None)
                for seat in self._roster_seats
                if seat.commit
            ),
            self.plan.secret,
        )
        self.slate = seal(self._signer, slate)
        roster = decode(self._roster.body, Roster)
        self.opened = open_slate(self._invited, roster, self._roster.digest, slate)
        self._report(classes_found(self.opened))
        if len(self.opened.judges) < self.plan.min_answers:
            self._close("too few", without_winner("partial"))
            return
        if waves(len(self.opened.classes), len(self.opened.judges)) == 0:
            self._close("unanimous", decide(self.case()))
            return
        for seat in self._roster_seats:
            if seat.reveal is not None and not seat.out:
                self._effects.append(Send(seat.peer, encode(self.slate)))
        self._go("to judge", self.plan.phases.judge)

    def _close_wave(self) -> None:
        assert self.opened is not None
        result = decide(self.case())
        last = len(self._waves) + 1 >= waves(len(self.opened.classes), len(self.opened.judges))
        self._confident = not last and is_confident(self._rule, result)
        more = not last and not self._confident
        close = self._seal_wave(more)
        for seat in self._roster_seats:
            if seat.reveal is not None and not seat.out:
                self._effects.append(Send(seat.peer, encode(close)))
        self._report(scores(self.opened, result))
        if more:
            self._go("more", self.plan.phases.judge)
        else:
            self._close("judged", result)

    def _seal_wave(self, more: bool) -> Envelope:
        """Fix the ballots that came in the open wave."""
        assert self.slate is not None
        wave = len(self._waves)
        ballots = tuple(s.ballots[wave].envelope for s in self._roster_seats if wave in s.ballots)
        fixed = ballot_set(tuple(ballot.digest for ballot in ballots))
        close = seal(self._signer, WaveClose(self.round_id, self.slate.digest, wave, fixed, more))
        self._waves.append(Wave(close, ballots))
        return close

    def _close(self, why: str, result: Result) -> None:
        self.result = result
        opening = encode(Opening(self.plan, self.invite, tuple(self._journal)))
        self.core = self._core(result, opening_digest(opening))
        core = self._signer.seal(encode(self.core))
        self._go(why)
        # On disk before anyone is told of it.
        self._effects.append(Store(self.round_id, write(core, opening)))
        close = encode(seal(self._signer, Close(self.round_id, result.outcome, core.digest)))
        for seat in self._seats.values():
            if not self._unreachable(seat):
                self._effects.append(Send(seat.peer, close))
        self._report(progress.Closed(result.outcome))
        self._effects.append(Finished(result.outcome))

    def _unreachable(self, seat: Seat) -> bool:
        return any((seat.peer, kind) in self._faults for kind in ("lost", "unsent", "declined"))

    # --- what is derived --------------------------------------------------------------------------

    def case(self) -> Case:
        """What the ballots accepted so far say, as the consensus takes it.

        Raises:
            ValueError: the answers have not been shown yet.
        """
        if self.opened is None:
            raise ValueError("the answers have not been shown yet")
        return Case(
            rule=self._rule,
            classes=self.opened.classes,
            weights=seat_weights([seat.standing for seat in self._roster_seats]),
            votes=tuple(
                Vote(index, row)
                for index, seat in enumerate(self._roster_seats)
                for ballot in seat.ballots.values()
                for row in ballot_rows(ballot)
            ),
            both_orders=both_orders(len(self.opened.judges)),
        )

    def _core(self, result: Result, opening: Digest) -> Core:
        return Core(
            version=PROTOCOL,
            swarm=self.plan.swarm,
            round=self.round_id,
            rule=self._rule,
            standings=self.plan.invited,
            roster=self._roster,
            commits=tuple(seat.commit.envelope for seat in self._roster_seats if seat.commit),
            weights=seat_weights([seat.standing for seat in self._roster_seats]),
            judging=self._judging(),
            faults=tuple(self._faults[key] for key in sorted(self._faults)),
            result=result,
            opening=opening,
        )

    def _judging(self) -> Judging | None:
        if self.opened is None or self.slate is None:
            return None
        return Judging(
            slate=self.slate.digest,
            slate_signature=self.slate.signature,
            seed=self.opened.seed,
            missing_reveals=self.opened.texts.count(None),
            classes=tuple(AnswerClass(members) for members in self.opened.classes),
            waves=tuple(self._waves),
            acks=tuple(self._acks[one.digest] for wave in self._waves for one in wave.ballots),
            stopped="confident" if self._confident else "schedule",
        )

    def _last(self) -> Digest:
        """Digest of the last WaveClose, zeros in the first wave."""
        return self._waves[-1].close.digest if self._waves else ZERO_DIGEST

    def _at(self) -> int:
        return max(0, round(1000 * (self._now - self._began)))

    # --- faults and reports -----------------------------------------------------------------------

    def _expel(self, seat: Seat, kind: FaultKind, detail: str) -> None:
        """Note the fault and hear no more of this peer in this round."""
        seat.out = True
        self._fault(seat, kind, self.state, detail)

    def _fault(self, seat: Seat, kind: FaultKind, state: State, detail: str) -> None:
        phase: Phase = PHASES[state]
        fault = Fault(seat.peer, phase, kind, detail[:256])
        if self._faults.setdefault((seat.peer, kind), fault) is fault:
            self._report(progress.Faulted(peer_text(seat.peer), phase, kind, fault.detail))

    def _report(self, event: progress.Event) -> None:
        self._effects.append(Report(event))
