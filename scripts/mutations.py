"""Bugs for ``scripts/mutants``: what stands in a file once, and what would be wrong there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_LEDGER: Final = "protocol/ledger.py"
_CHAIN: Final = "swarm/ledger/chain.py"
_REPLICA: Final = "swarm/ledger/replica.py"
_RANKING: Final = "swarm/ledger/ranking.py"
_STATE: Final = "swarm/ledger/state.py"
_GUARD: Final = "swarm/ledger/guard.py"
_ADMISSION: Final = "swarm/ledger/admission.py"
_DIGESTS: Final = "swarm/ledger/digests.py"
_PARCEL: Final = "swarm/ledger/parcel.py"
_SYNC: Final = "swarm/ledger/sync.py"
_RESPONDER: Final = "swarm/ledger/responder.py"


@dataclass(frozen=True, slots=True)
class Mutation:
    """A bug.

    Attributes:
        name: what the bug does.
        file: from the root of the project.
        old, new: text in it.
    """

    name: str
    file: str
    old: str
    new: str

    def applied(self, text: str) -> str:
        """``text`` with the bug.

        Raises:
            ValueError: the place has gone, or is not the only one.
        """
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {text.count(self.old)} places in {self.file}")
        return text.replace(self.old, self.new)


_TABLE: Final = (
    # --- signatures ----------------------------------------------------------------------------
    ("a run needs no signature", _REPLICA, "self._check(author, run)", "pass"),
    ("a run that diverges needs no signature", _REPLICA, "self._check(chain.author, run)", "pass"),
    (
        "a proof needs no signatures",
        _LEDGER,
        "check_signature(place.author, run.bodies[-1], run.signature)",
        "pass",
    ),
    (
        "anybody may sign",
        _LEDGER,
        "envelopes.check(Envelope(author, body, signature))",
        "pass",
    ),
    # --- links ---------------------------------------------------------------------------------
    ("another parent is no gap", _REPLICA, "if entries[fresh].prev != chain.head", "if False"),
    (
        "entries of a run need not name each other",
        _LEDGER,
        "entry.prev != entry_digest(body) or ",
        "",
    ),
    ("offsets are not added up", _LEDGER, " or entry.offset != before.offset + len(body)", ""),
    (
        "what follows is compared within a run alone",
        _REPLICA,
        "check_next(chain.bodies[-1], entries[fresh])",
        "pass",
    ),
    (
        "entries of a run need not be counted",
        _LEDGER,
        "entry.epoch, entry.seq) != (before.author, before.epoch, before.seq + 1)",
        "entry.epoch) != (before.author, before.epoch)",
    ),
    (
        "entries of a run may be of two authors",
        _LEDGER,
        "(entry.author, entry.epoch, entry.seq) != (before.author, before.epoch, before.seq + 1)",
        "(entry.epoch, entry.seq) != (before.epoch, before.seq + 1)",
    ),
    ("time may go back", _LEDGER, "if entry.at < before.at", "if False"),
    ("other swarms' entries count", _LEDGER, "if entry.swarm != swarm", "if False"),
    (
        "the epoch need not follow from the time",
        _LEDGER,
        "if epoch_of(entry.at) != entry.epoch",
        "if False",
    ),
    (
        "an epoch has no limit",
        _LEDGER,
        "if entry.offset + len(body) > limits.EPOCH_BYTES",
        "if False",
    ),
    (
        "a checkpoint may stand anywhere",
        _LEDGER,
        "if (entry.seq == 0) is not isinstance(entry.content, Checkpoint)",
        "if entry.seq == 0 and not isinstance(entry.content, Checkpoint)",
    ),
    (
        "the first entry may have a past",
        _LEDGER,
        "if entry.seq == 0 and (entry.prev != ZERO_DIGEST or entry.offset)",
        "if False",
    ),
    ("what comes too early is taken", _REPLICA, "if first > held", "if False"),
    # --- rules ---------------------------------------------------------------------------------
    (
        "changes of a document are not looked at",
        _CHAIN,
        "clock = guard.check(update, self.client, self.clock)",
        "clock = self.clock",
    ),
    (
        "the document of a checkpoint is not looked at",
        _CHAIN,
        "clock = guard.check(document, self.client, 0)",
        "clock = 0",
    ),
    (
        "the clock of a document stands still",
        _CHAIN,
        "return Rules(self.client, clock, day",
        "return Rules(self.client, self.clock, day",
    ),
    (
        "one change more in a day",
        _CHAIN,
        "if changes > limits.CAPABILITIES_PER_DAY",
        "if changes > limits.CAPABILITIES_PER_DAY + 1",
    ),
    (
        "changes are counted for ever",
        _CHAIN,
        "self.changes + 1 if day == self.day else 1",
        "self.changes + 1",
    ),
    ("evidence is believed", _CHAIN, "offences.check(proof)", "pass"),
    ("evidence has no limit", _CHAIN, "if proofs > limits.EVIDENCE_PER_EPOCH", "if False"),
    ("hints are believed", _CHAIN, "calibration.check(hints)", "pass"),
    ("hints of any day count", _CHAIN, "if not calibration.counts_now(hints, at)", "if False"),
    (
        "the rules hold for the tail of a fork, too",
        _REPLICA,
        "for entry in entries[fresh:room]",
        "for entry in entries[fresh:]",
    ),
    (
        "the rules are not worked out again after a cut",
        _CHAIN,
        "self.extend(kept, None)",
        "self.extend(kept, self._rules)",
    ),
    # --- forks ---------------------------------------------------------------------------------
    (
        "a fork does not freeze",
        _REPLICA,
        "self._freeze(chain, seq, fork(chain.proof(seq), other))",
        "fork(chain.proof(seq), other)",
    ),
    (
        "the first branch that is seen wins",
        _REPLICA,
        "return self._diverged(chain, run, fresh, entries, quality)",
        "return self._dress(chain, run.ticket, quality)",
    ),
    (
        "a proof freezes one entry too late",
        _REPLICA,
        "self._freeze(chain, place.seq, proof)",
        "self._freeze(chain, place.seq + 1, proof)",
    ),
    (
        "the highest fork counts",
        _REPLICA,
        "chain.forked_at <= one.seq",
        "chain.forked_at >= one.seq",
    ),
    (
        "what follows a fork stays",
        _CHAIN,
        "if held is not None:\n            kept",
        "if False:\n            kept",
    ),
    ("what follows a fork is taken", _REPLICA, "room = min(room, chain.forked_at - first)", "pass"),
    (
        "a fork is expected in every run",
        _REPLICA,
        "room = min(room, chain.forked_at - first)",
        "room = chain.forked_at - first",
    ),
    (
        "signatures stay when entries go",
        _CHAIN,
        "{at: one for at, one in self.signatures.items() if at < seq}",
        "{at: one for at, one in self.signatures.items()}",
    ),
    ("a signature is kept for another entry", _REPLICA, "if room == len(entries)", "if True"),
    (
        "a third entry is forgotten",
        _CHAIN,
        "if held is not None and held not in (proof.one.bodies[0], proof.other.bodies[0])",
        "if False",
    ),
    (
        "a branch that goes on is forgotten",
        _CHAIN,
        "if branch.bodies[0] not in (self.fork.one.bodies[0], self.fork.other.bodies[0])",
        "if False",
    ),
    (
        "a branch answers that lies about its place",
        _CHAIN,
        "check_next(self.bodies[-1], read_entry(run.bodies[0]))\n                return run",
        "if read_entry(run.bodies[0]).prev == self.head:\n                    return run",
    ),
    (
        "an entry contradicts itself",
        _LEDGER,
        "if entry_digest(proof.one.bodies[0]) >= entry_digest(proof.other.bodies[0])",
        "if entry_digest(proof.one.bodies[0]) > entry_digest(proof.other.bodies[0])",
    ),
    (
        "a proof may be of two places",
        _LEDGER,
        "if place != Place(other[0].author, other[0].epoch, other[0].seq)",
        "if False",
    ),
    (
        "forks of the past are forgotten",
        _REPLICA,
        "if chain.fork is not None:\n                return chain",
        "pass",
    ),
    # --- tickets and room ----------------------------------------------------------------------
    (
        "the worse ticket is kept",
        _REPLICA,
        "(quality, ticket) > (chain.quality, chain.ticket)",
        "(quality, ticket) < (chain.quality, chain.ticket)",
    ),
    (
        "of equal tickets the first one is kept",
        _REPLICA,
        "(quality, ticket) > (chain.quality, chain.ticket)",
        "quality > chain.quality",
    ),
    (
        "where an author forked no ticket counts",
        _REPLICA,
        "if quality is None:\n                raise ForkedError()\n            return",
        "raise ForkedError()\n            return",
    ),
    (
        "a known proof brings no ticket",
        _REPLICA,
        "return self._dress(chain, proof.one.ticket, quality)",
        "return self._dress(chain, proof.one.ticket, None)",
    ),
    (
        "proofs are passed on without a ticket",
        _REPLICA,
        "one = msgspec.structs.replace(chain.fork.one, ticket=chain.ticket)",
        "one = chain.fork.one",
    ),
    (
        "strangers need no ticket",
        _REPLICA,
        'raise AdmissionError("There is no ticket for this author and epoch.")',
        "pass",
    ),
    ("guests are not counted", _REPLICA, "self.guests += 1", "pass"),
    (
        "guests stay guests",
        _REPLICA,
        "if not chain.admitted and chain.author != self._own:\n            self.guests -= 1",
        "pass",
    ),
    (
        "who is admitted leaves like a guest",
        _REPLICA,
        "if not self._chains[guest, epoch].admitted and guest != self._own",
        "if guest != self._own",
    ),
    (
        "the best ticket goes",
        _REPLICA,
        "if worst is None or found < worst[0]",
        "if worst is None or found > worst[0]",
    ),
    ("an old rank counts", _RANKING, "if ranks.get(author) == rank", "if author in ranks"),
    (
        "ranks are lost in a restart",
        _REPLICA,
        "self._ranking.put(author, epoch, self._rank(chain, quality))",
        "self._ranking.put(author, epoch, FIRST)",
    ),
    ("proofs take no room", _REPLICA, "self.bytes += chain.size - size", "pass"),
    (
        "worse and worse tickets fill the memory",
        _REPLICA,
        "if more or not chain.admitted",
        "if False",
    ),
    ("guests with a ticket fill the memory", _REPLICA, "if more or not chain.admitted", "if more"),
    (
        "the newest epoch goes first",
        _RANKING,
        "return sorted(self._ranks)",
        "return sorted(self._ranks, reverse=True)",
    ),
    # --- time and restarts ---------------------------------------------------------------------
    (
        "what is over comes back",
        _REPLICA,
        "if epoch < epoch_of(now) - 1",
        "if epoch < epoch_of(now) - 9",
    ),
    ("what is over stays", _REPLICA, "if name[1] < oldest)", "if name[1] < oldest - 1)"),
    ("what is over goes too soon", _REPLICA, "if name[1] < oldest)", "if name[1] <= oldest)"),
    ("the future is taken", _REPLICA, "if at > now + SKEW_S", "if False"),
    (
        "what a disk holds is believed",
        _CHAIN,
        "check_signature(author, bodies[-1], signatures[last])",
        "pass",
    ),
    (
        "nobody need have signed what a disk holds",
        _CHAIN,
        "elif chain.branch() is None",
        "elif False",
    ),
    ("what follows a fork comes back", _CHAIN, "if len(bodies) > place.seq", "if False"),
    (
        "a log on a disk may be another's",
        _CHAIN,
        "if (first.author, first.epoch, first.seq) != (author, epoch, 0)",
        "if False",
    ),
    # --- what it says --------------------------------------------------------------------------
    (
        "the first word on a day holds",
        _STATE,
        "hints[one.day] = one",
        "hints.setdefault(one.day, one)",
    ),
    ("changes are passed over", _STATE, "changes.append(update)", "pass"),
    ("an author goes on where it began", _STATE, "yield update", "pass"),
    (
        "half a profile is one",
        _STATE,
        "except ProtocolError:\n            return None",
        "except ProtocolError:\n            continue",
    ),
    # --- updates -------------------------------------------------------------------------------
    ("an update rewrites what is to come", _GUARD, "if place >= clock", "if False"),
    ("an update deletes what is to come", _GUARD, "if end > clock", "if False"),
    ("anything may follow an update", _GUARD, "if at != len(update)", "if False"),
    ("an update writes twice in one place", _GUARD, "if place in places", "if False"),
    ("a number has many encodings", _GUARD, "if not byte and shift", "if False"),
    # --- admission -----------------------------------------------------------------------------
    ("any nonce is a stamp", _ADMISSION, "if value >= self._bound", "if False"),
    (
        "any bytes are a certificate",
        _ADMISSION,
        "if not compare_digest(ticket, self.issue(author, epoch))",
        "if False",
    ),
    (
        "a stamp is good in every epoch",
        _ADMISSION,
        'salt = digest("stamp", self._swarm, author, epoch)',
        'salt = digest("stamp", self._swarm, author)',
    ),
    # --- exchanges -----------------------------------------------------------------------------
    (
        "digests have no salt",
        _DIGESTS,
        'self._key = key = digest("sync-salt", asker, asked, nonce, answer)',
        'self._key = key = digest("sync-salt")',
    ),
    (
        "one side alone chooses the salt",
        _DIGESTS,
        'self._key = key = digest("sync-salt", asker, asked, nonce, answer)',
        'self._key = key = digest("sync-salt", asker, asked, nonce)',
    ),
    (
        "digests do not tell where an author forked",
        _DIGESTS,
        "_LOG.pack(entries, chain.forked_at or 0)",
        "_LOG.pack(entries, 0)",
    ),
    ("digests do not tell tickets", _DIGESTS, "ticket.update(chain.ticket)", "pass"),
    ("guests are passed on", _DIGESTS, "if chain.admitted", "if True"),
    ("guests are served", _RESPONDER, "(chain.admitted or guest)", "(chain.admitted or not guest)"),
    (
        "forks are not asked for",
        _PARCEL,
        "if other.forked:\n            firsts.append(PROOF)\n        # Who",
        "# Who",
    ),
    (
        "of two logs of one length neither is asked for",
        _PARCEL,
        "elif held is not None and held[1:3] == other[1:3]",
        "elif False",
    ),
    (
        "better tickets are not asked for",
        _PARCEL,
        "ticket = held is None or held.ticket != other.ticket",
        "ticket = held is None",
    ),
    ("gaps stay", _SYNC, "again.append(Ask(self._salt.id(chain), have, True))", "pass"),
    (
        "gaps of the other side stay",
        _SYNC,
        "yield from self._give(list(again.values()), {})",
        "pass",
    ),
    ("guests are given", _SYNC, "if held is None or not held.admitted", "if held is None"),
    (
        "more is answered than was asked",
        _SYNC,
        "if reply.served > len(asked) or len(reply.runs) + len(reply.forks) > reply.served",
        "if False",
    ),
)

MUTATIONS: Final = tuple(Mutation(*row) for row in _TABLE)
