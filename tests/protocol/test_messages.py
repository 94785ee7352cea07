"""What the digests in messages bind together."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import encode
from protocol.digest import digest
from protocol.ids import Digest, PeerId, RoundId
from protocol.messages import (
    AnyMessage,
    Commit,
    Message,
    Model,
    ballot_set,
    commitment,
    pair_seed,
    secret_hash,
)

ROUND, PEER, SALT = RoundId(b"r" * 32), PeerId(b"p" * 32), b"s" * 32


def test_a_commitment_binds_round_peer_salt_and_answer() -> None:
    mine = commitment(ROUND, PEER, SALT, "42")
    assert mine == digest("commit", ROUND, PEER, SALT, digest("answer", "42"))
    others = [
        commitment(RoundId(b"R" * 32), PEER, SALT, "42"),
        commitment(ROUND, PeerId(b"P" * 32), SALT, "42"),
        commitment(ROUND, PEER, b"S" * 32, "42"),
        commitment(ROUND, PEER, SALT, "43"),
        commitment(ROUND, PEER, SALT, "42 "),
    ]
    assert len({mine, *others}) == 6


def test_the_seed_depends_on_every_salt_and_who_gave_none() -> None:
    roster = Digest(b"o" * 32)
    seeds = [
        pair_seed(b"x" * 32, roster, (b"a" * 32, b"b" * 32)),
        pair_seed(b"y" * 32, roster, (b"a" * 32, b"b" * 32)),
        pair_seed(b"x" * 32, Digest(b"O" * 32), (b"a" * 32, b"b" * 32)),
        pair_seed(b"x" * 32, roster, (b"b" * 32, b"a" * 32)),
        pair_seed(b"x" * 32, roster, (b"a" * 32, None)),
        pair_seed(b"x" * 32, roster, (None, b"b" * 32)),
        pair_seed(b"x" * 32, roster, (None, None)),
        pair_seed(b"x" * 32, roster, (b"a" * 32,)),
    ]
    assert len(set(seeds)) == len(seeds)
    zeros = pair_seed(b"x" * 32, roster, (b"a" * 32, bytes(32)))
    assert zeros == seeds[4], "a missing salt counts as zeros"


def test_the_secret_is_hidden_and_fixed() -> None:
    assert secret_hash(b"x" * 32) == digest("secret", b"x" * 32)


@given(st.lists(st.binary(min_size=32, max_size=32).map(Digest), max_size=4, unique=True))
def test_a_set_of_ballots_has_no_order(ballots: list[Digest]) -> None:
    assert len({ballot_set(order) for order in permutations(ballots)}) == 1
    assert ballot_set(tuple(ballots)) != ballot_set((*ballots, Digest(b"!" * 32)))


def test_messages_are_immutable_and_tagged_once() -> None:
    kinds: tuple[type[Message], ...] = AnyMessage.__args__
    tags = [kind.__struct_config__.tag for kind in kinds]
    assert len(set(tags)) == len(tags) == 10
    for kind in kinds:
        config = kind.__struct_config__
        assert config.frozen
        assert config.forbid_unknown_fields
        assert config.tag_field == "type"


def test_a_commit_shows_nothing_of_the_answer() -> None:
    """The same bytes whatever the answer, but for 32 of a digest."""
    model = Model("m", "f", "")
    short, long = (
        encode(Commit(ROUND, commitment(ROUND, PEER, SALT, text), model))
        for text in ("a", "b" * 9000)
    )
    assert len(short) == len(long)
    assert sum(left != right for left, right in zip(short, long, strict=True)) <= 32
