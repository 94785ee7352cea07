"""From what was heard to proofs: finds the messages that convict their signer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import cast

from protocol import limits
from protocol.codec import decode
from protocol.errors import ProtocolError, TooLargeError
from protocol.ids import Digest, PeerId
from protocol.messages import AnyMessage, Commit, Incoming, Proof, Reveal
from protocol.proofs import Slot, check, contradict, equivocation, opens, slot, stated
from protocol.receipt import Entry, Heard

_ANY = cast("type[AnyMessage]", AnyMessage)


class Witness:
    """Remembers the first message in each place of each peer, and sees what contradicts it.

    Bounded: the first ``limits.ENVELOPES_PER_PEER`` places of a peer.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[PeerId, Slot], Incoming] = {}
        self._places: Counter[PeerId] = Counter()
        self._shown: set[Digest] = set()

    def hear(self, incoming: Incoming) -> Proof | None:
        """A message whose signature holds; gives a proof, one for each offence.

        What is too large to be passed on (``limits.PROOF_BYTES``) is no proof.
        """
        peer, message = incoming.peer, incoming.message
        if isinstance(message, Reveal):
            commit = self._first.get((peer, ("Commit", message.round)))
            if commit is None or not isinstance(commit.message, Commit):
                return None
            if opens(commit.message, message, peer):
                return None
            return self._new(Proof(commit.envelope, incoming.envelope))
        place = slot(message)
        if place is None:
            return None
        first = self._first.get((peer, place))
        if first is None:
            if self._places[peer] < limits.ENVELOPES_PER_PEER:
                self._places[peer] += 1
                self._first[peer, place] = incoming
            return None
        if not contradict(first.message, message):
            return None
        return self._new(equivocation(first.envelope, incoming.envelope))

    def _new(self, proof: Proof) -> Proof | None:
        try:
            offence = stated(proof).digest
        except TooLargeError:
            return None
        if offence in self._shown:
            return None
        self._shown.add(offence)
        return proof


def proofs(journal: Iterable[Entry]) -> tuple[Proof, ...]:
    """The proofs in the journal of a round, one for each offence, in the order of the journal.

    The journal may be a stranger's: what is no message is passed over, and the signatures of
    each proof are checked.
    """
    witness = Witness()
    found = []
    for entry in journal:
        if not isinstance(entry, Heard):
            continue
        try:
            message = decode(entry.envelope.body, _ANY)
            proof = witness.hear(Incoming(entry.envelope, message))
            if proof is not None:
                check(proof)
                found.append(proof)
        except ProtocolError:
            continue
    return tuple(found)
