"""Asker, judges and verifiers work out the same from a Slate. Bent ones: test_participant."""

from __future__ import annotations

import pytest

from protocol.envelope import check
from protocol.errors import RefusedError
from protocol.messages import Commit, Reveal, Roster, RosterEntry, commitment, pair_seed
from swarm.participant import State
from swarm.slate import Opened, check_reveal, check_roster, open_slate
from tests.swarm.builders import SALTS, SECRET, Desk, changed


def _open(desk: Desk, **fields: object) -> Opened:
    return open_slate(desk.invite, desk.roster(), desk.roster_digest, desk.slate(**fields))


def test_what_follows_from_a_slate() -> None:
    desk = Desk("41", "42", "41.0", "41.", "41.").up_to(State.REVEALED)
    opened = _open(desk)
    assert opened.peers == opened.judges == tuple(one.peer for one in desk.signers)
    assert opened.texts == ("41", "42", "41.0", "41.", "41.")
    assert opened.classes == ((0, 2, 3, 4), (1,))
    assert opened.answers == ("41.", "42"), "the commonest spelling"
    assert opened.seed == pair_seed(SECRET, desk.roster_digest, tuple(SALTS[:5]))


def test_a_missing_reveal_gives_no_text_no_judge_and_a_zero_salt() -> None:
    desk = Desk("41", "42", "43").up_to(State.REVEALED)
    entries = desk.entries()
    entries[1] = changed(entries[1], reveal=None)
    opened = _open(desk, entries=tuple(entries))
    assert opened.texts == ("41", None, "43")
    assert opened.classes == ((0,), (2,))
    assert opened.peers == tuple(one.peer for one in desk.signers)
    assert opened.judges == (desk.signers[0].peer, desk.signers[2].peer)
    assert opened.seed == pair_seed(SECRET, desk.roster_digest, (SALTS[0], None, SALTS[2]))
    assert opened.seed != _open(desk).seed


def test_nobody_revealed() -> None:
    desk = Desk("41", "42").up_to(State.REVEALED)
    opened = _open(desk, entries=tuple(changed(one, reveal=None) for one in desk.entries()))
    assert (opened.classes, opened.judges, opened.answers) == ((), (), ())


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 0), (1, 0, 2), (0, 2, 1)])
def test_a_roster_is_sorted_and_names_nobody_twice(order: tuple[int, ...]) -> None:
    desk = Desk("41", "42", "43").up_to(State.COMMITTED)
    right = desk.roster()
    bent: Roster = changed(right, entries=tuple(right.entries[at] for at in order))
    if order == (0, 1):
        check_roster(bent)
    else:
        with pytest.raises(RefusedError, match="not sorted"):
            check_roster(bent)


def test_the_same_peer_with_two_commits_is_named_twice() -> None:
    desk = Desk("41").up_to(State.COMMITTED)
    (entry,) = desk.roster().entries
    with pytest.raises(RefusedError, match="twice"):
        check_roster(desk.roster(entries=(entry, RosterEntry(entry.peer, bytes(32)))))


def test_a_reveal_is_bound_to_roster_round_and_commit() -> None:
    desk = Desk("41", "42").up_to(State.REVEALED)
    commit, reveal = desk.sent(0, Commit)[0], desk.sent(0, Reveal)[0]
    peer = desk.me.peer
    check_reveal(commit, peer, reveal, desk.roster_digest, 64)
    check_reveal(commit, peer, reveal, desk.roster_digest, 2)
    with pytest.raises(RefusedError, match="over 1 bytes"):
        check_reveal(commit, peer, reveal, desk.roster_digest, 1)
    with pytest.raises(RefusedError, match="another Roster"):
        check_reveal(commit, peer, reveal, desk.round, 64)
    with pytest.raises(RefusedError, match="does not open"):
        check_reveal(commit, desk.signers[1].peer, reveal, desk.roster_digest, 64)
    for fields in ({"salt": SALTS[1]}, {"answer": "42"}, {"answer": "41 "}):
        with pytest.raises(RefusedError, match="does not open"):
            check_reveal(commit, peer, changed(reveal, **fields), desk.roster_digest, 64)


def test_the_limit_counts_bytes_not_characters() -> None:
    desk = Desk("é" * 10, "42").up_to(State.REVEALED)
    commit, reveal = desk.sent(0, Commit)[0], desk.sent(0, Reveal)[0]
    check_reveal(commit, desk.me.peer, reveal, desk.roster_digest, 20)
    with pytest.raises(RefusedError, match="over 19 bytes"):
        check_reveal(commit, desk.me.peer, reveal, desk.roster_digest, 19)


def test_a_copied_commit_opens_for_nobody_else() -> None:
    """A peer that repeats another's commitment cannot open it, even once the salt is known."""
    desk = Desk("41", "42").up_to(State.REVEALED)
    victim = desk.sent(1, Commit)[0]
    stolen = desk.sent(1, Reveal)[0]
    assert victim.commitment == commitment(
        desk.round, desk.signers[1].peer, stolen.salt, stolen.answer
    )
    with pytest.raises(RefusedError, match="does not open"):
        check_reveal(victim, desk.me.peer, stolen, desk.roster_digest, 64)


def test_the_desk_signs_like_an_asker() -> None:
    desk = Desk("41").up_to(State.REVEALED)
    check(desk.seal(desk.slate()).envelope)
