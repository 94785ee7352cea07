"""What follows from a Slate: texts, classes, the seed. Every judge and every verifier redoes it.

The rules are in one place so that asker, judges and verifiers cannot differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from protocol.envelope import Envelope, open_as
from protocol.errors import ProtocolError, RefusedError
from protocol.ids import ZERO_DIGEST, Digest, PeerId, short_peer
from protocol.messages import (
    Commit,
    Invite,
    Reveal,
    Roster,
    Slate,
    commitment,
    pair_seed,
    stage_secret,
)
from swarm.answers import classes, representative

T = TypeVar("T", Commit, Reveal)


@dataclass(frozen=True, slots=True)
class Opened:
    """The checked content of a Slate.

    Attributes:
        peers: in roster order.
        texts: answers in roster order, None where missing.
        classes: members (roster indices) of each class.
        answers: the text that stands for each class.
        judges: those who revealed, in roster order.
        seed: of the pairs.
    """

    peers: tuple[PeerId, ...]
    texts: tuple[str | None, ...]
    classes: tuple[tuple[int, ...], ...]
    answers: tuple[str, ...]
    judges: tuple[PeerId, ...]
    seed: Digest


def check_roster(roster: Roster, stages: int = 1) -> None:
    """Check a Roster by itself.

    Args:
        stages: how many there may be in its round.

    Raises:
        RefusedError: it is of no such stage, not sorted, or names a peer twice.
    """
    peers = [entry.peer for entry in roster.entries]
    if roster.stage >= stages or (roster.stage == 0) != (roster.previous == ZERO_DIGEST):
        raise RefusedError("The Roster is of a later stage than this node knows.")
    if any(left >= right for left, right in pairwise(peers)):
        raise RefusedError("The Roster is not sorted by peer, or names a peer twice.")


def check_succession(earlier: Sequence[Roster], last: Digest, roster: Roster) -> None:
    """Check that a Roster follows on those before it: nobody changed his Commit or came back.

    Args:
        earlier: in order, as far as they are known; at least one.
        last: digest of the last of them.

    Raises:
        RefusedError: says what does not fit.
    """
    if roster.stage != earlier[-1].stage + 1 or roster.previous != last:
        raise RefusedError("The Roster does not follow on the last one.")
    known = {entry.peer for one in earlier for entry in one.entries}
    present = set(earlier[-1].entries)
    for entry in roster.entries:
        if entry.peer in known and entry not in present:
            who = short_peer(entry.peer)
            raise RefusedError(f"{who} has another Commit than before, or had left.")


def check_reveal(
    commit: Commit, peer: PeerId, reveal: Reveal, roster: Digest, answer_bytes: int
) -> None:
    """Raise RefusedError unless ``reveal`` opens ``commit`` of ``peer`` under this roster."""
    who = short_peer(peer)
    if reveal.roster != roster or reveal.round != commit.round:
        raise RefusedError(f"The Reveal of {who} is for another Roster.")
    if commitment(commit.round, peer, reveal.salt, reveal.answer) != commit.commitment:
        raise RefusedError(f"The Reveal of {who} does not open its Commit.")
    if len(reveal.answer.encode()) > answer_bytes:
        raise RefusedError(f"The answer of {who} is over {answer_bytes} bytes.")


def open_slate(invite: Invite, roster: Roster, roster_digest: Digest, slate: Slate) -> Opened:
    """Check a Slate against what came before and work out what is to be judged.

    Args:
        invite: as received, signature verified.
        roster: as received and checked with :func:`check_roster`.
        roster_digest: the digest of the Roster's message.
        slate: signature verified, content untrusted.

    Raises:
        RefusedError: says what does not fit.
    """
    if slate.roster != roster_digest or len(slate.entries) != len(roster.entries):
        raise RefusedError("The Slate is for another Roster.")
    if stage_secret(slate.secret, roster.stage + 1) != invite.secret_hash:
        raise RefusedError("The asker's secret is not the one that its Invite fixed.")
    texts: list[str | None] = []
    salts: list[bytes | None] = []
    for seat, entry in zip(roster.entries, slate.entries, strict=True):
        commit = _open(entry.commit, seat.peer, Commit)
        if entry.commit.digest != seat.commit or commit.round != slate.round:
            raise RefusedError(f"The Commit of {short_peer(seat.peer)} is not the Roster's.")
        if entry.reveal is None:
            texts.append(None)
            salts.append(None)
            continue
        reveal = _open(entry.reveal, seat.peer, Reveal)
        check_reveal(commit, seat.peer, reveal, roster_digest, invite.answer_bytes)
        texts.append(reveal.answer)
        salts.append(reveal.salt)
    peers = tuple(entry.peer for entry in roster.entries)
    found = classes(texts)
    return Opened(
        peers=peers,
        texts=tuple(texts),
        classes=found,
        answers=tuple(representative(texts, members) for members in found),
        judges=tuple(peer for peer, text in zip(peers, texts, strict=True) if text is not None),
        seed=pair_seed(slate.secret, roster_digest, tuple(salts)),
    )


def _open(envelope: Envelope, peer: PeerId, kind: type[T]) -> T:
    if envelope.signer != peer:
        raise RefusedError(f"A {kind.__name__} in the Slate is not signed by its peer.")
    try:
        return open_as(envelope, kind)
    except ProtocolError as error:
        raise RefusedError(f"A {kind.__name__} in the Slate is not valid: {error}") from error
