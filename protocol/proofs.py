"""Proofs that verify alone: two signed messages that no honest peer signs both.

A proof convicts its signer whatever else the world looks like, so that nobody has to be believed.
What convicts is what an honest peer cannot be brought to do, not by a crash, nor by an asker that
shows it different rosters and slates:

=================== ===================================== =======================================
kind                two messages of one signer            that differ in
=================== ===================================== =======================================
equivocation        Commits of one round                  the commitment
equivocation        Ballots of one round, slate, wave     anything
equivocation        Rosters of one round, stage           anything
equivocation        WaveCloses of one round, slate, wave  anything
commit-mismatch     a Commit and a Reveal of one round    the answer and salt do not open it
=================== ===================================== =======================================

It rests on one promise of honest peers: they take part in a round once (each keeps the round's id
on disk before its Commit leaves), and as askers they never use the nonce of an Invite twice.

What does not convict, and why: two Commits to one answer (the name of a model may change between
an Invite and its replay); two Reveals (under another Roster of the round the same answer is
revealed again, and of two different answers one does not open the Commit, which convicts); two
Slates (they do not fit into a frame together); a Decline beside anything (it binds to nothing).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, cast

from protocol import envelope as envelopes
from protocol import limits
from protocol.codec import decode, encode
from protocol.digest import digest
from protocol.envelope import Envelope
from protocol.errors import ProofError, TooLargeError
from protocol.ids import Digest, PeerId
from protocol.messages import (
    Ballot,
    Commit,
    Message,
    Proof,
    Reveal,
    Roster,
    WaveClose,
    commitment,
)

Kind = Literal["equivocation", "commit-mismatch"]
Slot = tuple[str, bytes | int, *tuple[bytes | int, ...]]
"""Where a message stands: its type, its round, and what else tells it from others of its type."""

_Convicting = Commit | Reveal | Ballot | Roster | WaveClose
_CONVICTING: Final = cast("type[_Convicting]", _Convicting)


@dataclass(frozen=True, slots=True)
class Conviction:
    """What a proof shows.

    Attributes:
        peer: who signed both messages.
        digest: names the offence: peer, kind and place. All proofs of one offence share it,
            however many messages there are to make proofs of.
    """

    peer: PeerId
    kind: Kind
    digest: Digest


def slot(message: Message) -> Slot | None:
    """The place that a peer fills once, None for messages of which it may send several."""
    match message:
        case Commit():
            return "Commit", message.round
        case Ballot():
            return "Ballot", message.round, message.slate, message.wave
        case Roster():
            return "Roster", message.round, message.stage
        case WaveClose():
            return "WaveClose", message.round, message.slate, message.wave
    return None


def contradict(one: Message, other: Message) -> bool:
    """Whether two messages in one slot convict their signer."""
    if isinstance(one, Commit) and isinstance(other, Commit):
        return one.commitment != other.commitment
    return one != other


def opens(commit: Commit, reveal: Reveal, peer: PeerId) -> bool:
    """Whether ``reveal`` holds what ``commit`` fixed. Both are of ``peer`` and of one round."""
    return commitment(commit.round, peer, reveal.salt, reveal.answer) == commit.commitment


def equivocation(one: Envelope, other: Envelope) -> Proof:
    """The proof that two envelopes make, in its one order."""
    return Proof(one, other) if one.digest < other.digest else Proof(other, one)


def stated(proof: Proof) -> Conviction:
    """What ``proof`` shows if its signatures hold, which they need not.

    Raises:
        TooLargeError: over ``limits.PROOF_BYTES``.
        DecodeError: it holds what is no message, or one that convicts nobody.
        ProofError: two messages that an honest peer may have signed both, or in the wrong order.
    """
    size = len(encode(proof))
    if size > limits.PROOF_BYTES:
        raise TooLargeError(f"A proof of {size} bytes, {limits.PROOF_BYTES} are taken.")
    peer = proof.first.signer
    if proof.second.signer != peer:
        raise ProofError("Its messages are of two signers.")
    first = decode(proof.first.body, _CONVICTING)
    second = decode(proof.second.body, _CONVICTING)
    if isinstance(first, Commit) and isinstance(second, Reveal):
        if first.round != second.round or opens(first, second, peer):
            raise ProofError("The Reveal does not belong to the Commit, or opens it.")
        return Conviction(peer, "commit-mismatch", _offence(peer, "commit-mismatch", slot(first)))
    place = slot(first)
    if place is None or place != slot(second) or not contradict(first, second):
        raise ProofError("Its messages do not contradict each other.")
    if proof.first.digest > proof.second.digest:
        raise ProofError("Its messages are not in order.")
    return Conviction(peer, "equivocation", _offence(peer, "equivocation", place))


def check(proof: Proof) -> Conviction:
    """What ``proof`` shows.

    Raises:
        TooLargeError, DecodeError, ProofError: as :func:`stated`.
        BadSignatureError: a message is not its signer's.
    """
    conviction = stated(proof)
    envelopes.check(proof.first)
    envelopes.check(proof.second)
    return conviction


def _offence(peer: PeerId, kind: Kind, place: Slot | None) -> Digest:
    return digest("offence", peer, kind, *(place or ()))
