"""An author that says something of every kind, as a node does."""

from __future__ import annotations

from protocol.digest import digest
from protocol.ids import PeerId, RoundId
from protocol.ledger import (
    HINT_DAY_S,
    Calibration,
    Capability,
    Checkpoint,
    Evidence,
    Hints,
    Profile,
    Subject,
    Sum,
)
from protocol.messages import Commit, Model, Proof, seal
from protocol.proofs import equivocation
from swarm.ledger.document import Document, client_of
from swarm.ledger.state import values_of
from tests.swarm.ledger.authors import EPOCH, Author, signer

DAY = EPOCH * 7
"""On which the epoch begins."""
MODEL = Model("tiny-llama", "llama", "c0ffee" * 10)


def profile(label: str = "", model: Model = MODEL) -> Profile:
    """What such a node runs."""
    return Profile(model, 4_000_000_000, 8192, True, 1200, label)


def hints(day: int, *subjects: PeerId) -> Hints:
    """One topic of each of ``subjects``."""
    one = Sum("add", 3, (0, 0, 0, 0, 2), (0, 0, 0, 0, 3), 2, 3)
    found = tuple(Subject(peer, "", (one,)) for peer in sorted(subjects))
    return Hints(day, (day + 8) * HINT_DAY_S, found)


def proof(liar: str, number: int = 0) -> Proof:
    """That ``liar`` committed to two answers in one round."""
    who = signer(liar)
    place = RoundId(digest("a round", liar, number))
    one, other = (seal(who, Commit(place, digest("answer", at), MODEL)) for at in range(2))
    return equivocation(one, other)


def speaker(
    name: str, *, label: str = "upstairs", model: Model = MODEL, epoch: int = EPOCH
) -> Author:
    """Five entries: all that it has to say, a new label, a field of a later version in place of its
    energy, a day of calibration, and a proof."""
    author = Author(name, epoch=epoch)
    day = epoch * 7
    document, update = Document.rebased(
        values_of(profile("", model)), client_of(author.peer, epoch)
    )
    author.say(Checkpoint(update, (hints(day, signer("x").peer),), (proof("liar"),)))
    for changes in (
        {"label": values_of(profile(label))["label"]},
        {"shoe": b"\x2a", "energy": None},
    ):
        more = document.set(changes)
        assert more is not None
        author.say(Capability(more))
    author.say(Calibration(hints(day + 1, signer("x").peer, signer("y").peer)))
    author.say(Evidence(proof("liar", 1)))
    return author
