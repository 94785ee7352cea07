"""Who is asked: feasible peers, the best on the topic first, spread out, few newcomers.

Proven peers are seated greedily by an optimistic estimate (the lower confidence bound of the
measured capability and a bonus for what is not known yet, as in UCB1, Auer et al. 2002), divided
the more the more seats their model family, address prefix or relay has: what is alike errs, or
falls, together. The capability is what this node has measured; claims of peers decide no more
than whether they can answer at all, and which newcomers are tried first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from protocol.ids import PeerId
from swarm.seeded import Stream

NEWCOMERS_PART: Final = 5
"""Newcomers have one seat in so many, and at least one, once the proven can fill the others."""
OPTIMISM: Final = 2.0
"""Standard errors above the lower bound. That is about one below the estimate, so this is about
one above it."""
LIKE_FAMILY: Final = 0.25
LIKE_ORIGIN: Final = 0.5
"""What each seat of the same family, or the same prefix or relay, adds to the divisor."""
BYTES_PER_TOKEN: Final = 3
"""Of a question, on the safe side: most tokenizers make fewer tokens of a text."""
ROOM_TOKENS: Final = 64
"""Left by the question in a context that is not too small. Where there is less room than an
answer may take, a model gives a shorter one."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What this node has measured of a peer; the default is nothing.

    Attributes:
        low: lower confidence bound of its capability on the topic at hand, in [0, 1].
        error: standard error of that capability.
        proven: calibration has admitted it.
        latency_ms: to an answer, less what ``tokens_per_s`` accounts for; None unknown.
        tokens_per_s: when it answers; None unknown.
    """

    low: float = 0.0
    error: float = 0.0
    proven: bool = False
    latency_ms: float | None = None
    tokens_per_s: float | None = None


NOTHING: Final = Measured()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A peer that may be asked.

    Attributes:
        family: of its model, as it says.
        context_tokens: the longest input, as it says; 0 unknown.
        energy: microjoules a token, as it says; 0 unknown.
        origin: its address prefix, or the relay it is reached by; empty where that says nothing.
        measured: by this node.
        hint: in [0, 1], what strangers say of it. Orders newcomers among themselves.
        struck: a proof excludes it.
    """

    peer: PeerId
    family: str
    context_tokens: int = 0
    energy: int = 0
    origin: str = ""
    measured: Measured = NOTHING
    hint: float = 0.0
    struck: bool = False


@dataclass(frozen=True, slots=True)
class Budget:
    """What a question may cost.

    Attributes:
        peers: seats, this node's own included.
        question_bytes: its length in UTF-8.
        answer_tokens: what an answer is expected to take. With the most that it may take, slow
            peers are left out that would answer shortly and in time.
        commit_ms: time to answer.
        energy: microjoules for all answers together; None: no matter. A peer that advertises
            none counts as 0.
    """

    peers: int
    question_bytes: int
    answer_tokens: int
    commit_ms: int
    energy: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What became of a candidate; ``reason`` is for people."""

    peer: PeerId
    seated: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """A committee and why.

    Attributes:
        peers: those seated, sorted.
        choices: one for each candidate, sorted by peer.
    """

    peers: tuple[PeerId, ...]
    choices: tuple[Choice, ...]


def select(
    candidates: Iterable[Candidate], budget: Budget, seed: bytes, own: PeerId | None = None
) -> Selection:
    """Choose a committee of at most ``budget.peers``.

    1. This node has a seat if it is among the candidates.
    2. Who is struck or cannot keep to the budget has none.
    3. A fifth of the seats (at least one, but never the only one left) is kept for newcomers, as
       far as there are any; the proven take the others.
    4. Newcomers take what was kept for them, and every seat that the proven are too few for, so
       that a young swarm asks as many as an old one. Their weight is bounded elsewhere
       (:mod:`swarm.reputation`). Half of their seats go round the families that they claim, best
       hint first, the others round their origins.
    5. Where nobody is proven, every seat but one's own goes by the rule of newcomers.

    Args:
        candidates: connected peers that serve, each once.
        seed: decides among equals.
        own: this node.
    """
    seating = _Seating(budget, Stream(seed))
    able: list[Candidate] = []
    for one in sorted(candidates, key=lambda candidate: candidate.peer):
        if one.peer == own and seating.left > 0:
            seating.seat(one, "this node")
        elif (obstacle := _obstacle(one, budget)) is not None:
            seating.reasons[one.peer] = obstacle
        else:
            able.append(one)
    seating.stream.shuffle(able)
    proven = [one for one in able if one.measured.proven]
    newcomers = [one for one in able if not one.measured.proven]
    kept = 0
    if proven:
        kept = min(max(1, budget.peers // NEWCOMERS_PART), seating.left - 1, len(newcomers))
    seating.best(proven, seating.left - max(0, kept))
    seating.newcomers(newcomers)
    seating.best(proven, seating.left)
    for one in able:
        rank = "others rank higher" if one.measured.proven else "no seat for newcomers is left"
        seating.reasons.setdefault(one.peer, rank)
    return seating.done()


def _obstacle(one: Candidate, budget: Budget) -> str | None:
    """Why the candidate cannot be asked at all."""
    if one.struck:
        return "a proof excludes it"
    room = min(budget.answer_tokens, ROOM_TOKENS)
    tokens = -(-budget.question_bytes // BYTES_PER_TOKEN) + room
    if 0 < one.context_tokens < tokens:
        return f"its context of {one.context_tokens} tokens is too small for about {tokens}"
    needs = one.measured.latency_ms or 0.0
    if one.measured.tokens_per_s is not None:
        needs += 1000 * budget.answer_tokens / max(one.measured.tokens_per_s, 1e-9)
    if needs > budget.commit_ms:
        return f"it would take {needs / 1000:.1f} s of {budget.commit_ms / 1000:.1f}"
    return None


class _Seating:
    """Seats taken so far."""

    def __init__(self, budget: Budget, stream: Stream) -> None:
        self.stream = stream
        self.left = budget.peers
        self.reasons: dict[PeerId, str] = {}
        self._tokens = budget.answer_tokens
        self._energy = budget.energy
        self._seated: list[PeerId] = []
        self._families: Counter[str] = Counter()
        self._origins: Counter[str] = Counter()

    def seat(self, one: Candidate, reason: str) -> None:
        """Give ``one`` a seat."""
        self.left -= 1
        self._seated.append(one.peer)
        self.reasons[one.peer] = reason
        self._families[one.family] += 1
        if one.origin:
            self._origins[one.origin] += 1
        if self._energy is not None:
            self._energy -= one.energy * self._tokens

    def best(self, pool: Sequence[Candidate], seats: int) -> None:
        """Fill up to ``seats`` by rank, each seat changing the rank of those like it.

        Whoever ranks higher is seated no later, for its rank changes nobody else's.
        """
        waiting = [one for one in pool if one.peer not in self.reasons]
        for _ in range(seats):
            waiting = [one for one in waiting if self._affords(one)]
            if not waiting:
                return
            one = max(waiting, key=self._rank)
            waiting.remove(one)
            low, error = one.measured.low, one.measured.error
            self.seat(one, f"lower bound {low:.2f}, error {error:.2f} on the topic")

    def newcomers(self, pool: Sequence[Candidate]) -> None:
        """Fill all seats that are left with newcomers, as far as there are any."""
        by_family = self._in_turn(sorted(pool, key=lambda one: -one.hint), lambda one: one.family)
        self._take(by_family, -(-self.left // 2), "a newcomer, its family's turn")
        by_origin = self._in_turn(pool, lambda one: one.origin or one.peer)
        self._take(by_origin, self.left, "a newcomer, drawn")

    def _take(self, queue: Sequence[Candidate], seats: int, reason: str) -> None:
        for one in queue:
            if seats <= 0:
                return
            if one.peer not in self.reasons and self._affords(one):
                self.seat(one, reason)
                seats -= 1

    def _in_turn(
        self, pool: Sequence[Candidate], key: Callable[[Candidate], str | bytes]
    ) -> list[Candidate]:
        """One of each group, then a second of each; the groups in random order."""
        groups: defaultdict[str | bytes, list[Candidate]] = defaultdict(list)
        for one in pool:
            groups[key(one)].append(one)
        queues = list(groups.values())
        self.stream.shuffle(queues)
        return [one for turn in zip_longest(*queues) for one in turn if one is not None]

    def _rank(self, one: Candidate) -> float:
        alike = LIKE_FAMILY * self._families[one.family]
        if one.origin:
            alike += LIKE_ORIGIN * self._origins[one.origin]
        return (one.measured.low + OPTIMISM * one.measured.error) / (1.0 + alike)

    def _affords(self, one: Candidate) -> bool:
        if self._energy is None or one.energy * self._tokens <= self._energy:
            return True
        self.reasons[one.peer] = "over what is left of the energy budget"
        return False

    def done(self) -> Selection:
        """The committee."""
        choices = tuple(
            Choice(peer, peer in self._seated, self.reasons[peer]) for peer in sorted(self.reasons)
        )
        return Selection(tuple(sorted(self._seated)), choices)
