"""The journal folded through a fresh machine gives the same receipt, without the asker's key."""

from __future__ import annotations

import pytest

from protocol.codec import encode
from protocol.errors import ReceiptError
from protocol.messages import MICRO, seal
from protocol.receipt import Broke, Cancelled, Expired, Heard, read, write
from swarm import progress
from swarm.replay import Replayed, fold, replay
from tests.swarm.builders import changed, rerun, signed
from tests.swarm.test_faults import LIES
from tests.swarm.test_round import honest
from tests.swarm.virtual import Peer, VirtualSwarm, knows


def _troubled() -> VirtualSwarm:
    """Two waves, every lie, a lost link, expired phases."""
    peers = honest(12) + [
        Peer(name, "41", knows("42"), latency=0.001, rewrite={kind: rewrite})
        for name, (kind, rewrite, _) in LIES.items()
    ]
    swarm = VirtualSwarm(peers)
    swarm.on[progress.ClassesFound] = lambda: swarm.broke(peers[0])
    return swarm.run()


def test_a_replay_gives_the_same_core() -> None:
    swarm = _troubled()
    again = replay(swarm.receipt)
    assert again.ok
    assert again.winner == swarm.winner == "42"
    assert again.scores == swarm.result.scores
    file, core, opening = read(swarm.receipt)
    assert opening is not None
    kinds = {type(entry) for entry in opening.journal}
    assert kinds == {Heard, Broke, Expired}
    once_more = fold(core, opening, file.core.signer)
    assert once_more.core is not None
    assert encode(once_more.core) == file.core.body


def test_the_asker_s_own_key_gives_the_same_file() -> None:
    swarm = VirtualSwarm(honest(12)).run()
    _, _, opening = read(swarm.receipt)
    assert opening is not None
    assert rerun(swarm, opening.journal) == swarm.receipt


def test_a_cancelled_round_replays() -> None:
    swarm = VirtualSwarm(honest(3))
    swarm.on[progress.ClassesFound] = swarm.cancel
    swarm.run()
    again = replay(swarm.receipt)
    assert again.ok
    assert (again.winner, again.outcome, again.scores) == (None, "cancelled", ())
    _, _, opening = read(swarm.receipt)
    assert opening is not None
    assert isinstance(opening.journal[-1], Cancelled)


def test_for_programs() -> None:
    again = replay(VirtualSwarm(honest(3)).run().receipt)
    assert again.as_json() == {
        "ok": True,
        "winner": "42",
        "outcome": "answer",
        "scores": [score / MICRO for score in again.scores],
        "problems": [],
    }


def test_a_detached_opening_cannot_be_replayed() -> None:
    file, _, _ = read(VirtualSwarm(honest(3)).run().receipt)
    with pytest.raises(ReceiptError, match="nothing to replay"):
        replay(write(file.core, None))


def test_a_damaged_file_cannot_be_replayed() -> None:
    with pytest.raises(ReceiptError, match="not a receipt"):
        replay(b"junk")


def test_a_difference_is_named() -> None:
    swarm = VirtualSwarm(honest(3)).run()
    _, core, opening = read(swarm.receipt)
    bent = changed(core, swarm="other", result=changed(core.result, winner=None))
    again = replay(signed(swarm, bent, opening))
    assert not again.ok
    assert again.problems == ("The replay differs from the receipt in: swarm, result.",)
    assert again.winner == "42", "what the messages give, not what is stated"


def test_a_journal_that_stops_is_unfinished() -> None:
    swarm = VirtualSwarm(honest(3)).run()
    _, core, opening = read(swarm.receipt)
    assert opening is not None
    short = changed(opening, journal=opening.journal[:-1])
    assert replay(signed(swarm, core, short)) == Replayed(
        None, "unfinished", (), ("The journal ends before the round does.",)
    )


def test_a_forged_message_is_an_error() -> None:
    swarm = VirtualSwarm(honest(3)).run()
    _, core, opening = read(swarm.receipt)
    assert opening is not None
    entry = opening.journal[2]
    assert isinstance(entry, Heard)
    forged = changed(entry, envelope=changed(entry.envelope, signature=bytes(64)))
    journal = (*opening.journal[:2], forged, *opening.journal[3:])
    with pytest.raises(ReceiptError, match="The journal holds a bad message"):
        replay(signed(swarm, core, changed(opening, journal=journal)))


def test_entries_after_the_end_change_nothing() -> None:
    """But for the opening's digest, which is part of the core."""
    swarm = VirtualSwarm(honest(3)).run()
    _, core, opening = read(swarm.receipt)
    assert opening is not None
    more = changed(opening, journal=(*opening.journal, Expired(10**9), Cancelled(10**9)))
    again = replay(signed(swarm, core, more))
    assert again.problems == ("The replay differs from the receipt in: opening.",)
    assert again.winner == "42"


def test_entries_after_the_end_are_not_even_checked() -> None:
    """Else a file full of them would cost its reader a signature check each."""
    swarm = VirtualSwarm(honest(3)).run()
    _, core, opening = read(swarm.receipt)
    assert opening is not None
    heard = next(entry for entry in opening.journal if isinstance(entry, Heard))
    forged = changed(heard, envelope=changed(heard.envelope, signature=bytes(64)))
    again = replay(signed(swarm, core, changed(opening, journal=(*opening.journal, forged))))
    assert again.problems == ("The replay differs from the receipt in: opening.",)


def test_when_things_came_changes_nothing_but_the_journal() -> None:
    """Times are for people: with all of them zero the same follows."""
    swarm = _troubled()
    file, core, opening = read(swarm.receipt)
    assert opening is not None
    timeless = changed(opening, journal=tuple(changed(entry, at=0) for entry in opening.journal))
    again = fold(core, timeless, file.core.signer)
    assert again.core is not None
    assert changed(again.core, opening=core.opening) == core


def test_a_roster_that_the_asker_did_not_sign_is_no_crash() -> None:
    """An expired phase makes the machine sign on; what it has no signature for stays unsigned."""
    swarm = VirtualSwarm([*honest(2), Peer("silent", dies_when="COMMITTED")]).run()
    _, core, opening = read(swarm.receipt)
    again = replay(signed(swarm, changed(core, roster=None, commits=(), weights=()), opening))
    assert not again.ok
    forged = seal(swarm.peers[core.standings[0].peer].signer, swarm.round._invited)
    assert not replay(signed(swarm, changed(core, roster=forged), opening)).ok
