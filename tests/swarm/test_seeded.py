"""Choices are the same everywhere, exactly uniform, and need no more than their seed."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from swarm.seeded import Stream


def test_the_stream_is_this() -> None:
    """Another implementation must draw the same."""
    stream = Stream(b"vector")
    assert [stream.below(1000) for _ in range(6)] == [117, 842, 582, 40, 176, 839]
    assert stream.unit() == 0.4477119577637598
    items = list("abcdefgh")
    stream.shuffle(items)
    assert "".join(items) == "faedhcgb"
    assert stream.sample(range(100), 5) == [98, 99, 87, 70, 46]
    assert stream.choice("xyz") == "x"
    assert stream.between(-(2**70), 2**70) == -444048567210744031216


def test_the_bytes_are_sha256_of_a_counter() -> None:
    root = sha256(b"swarm/stream\x00seed").digest()
    raw = b"".join(sha256(root + n.to_bytes(8, "big")).digest() for n in range(3))
    stream = Stream(b"seed")
    assert bytes(stream.below(256) for _ in range(len(raw))) == raw
    wide = Stream(b"seed")
    assert wide.below(2**64) == int.from_bytes(raw[:8], "big")
    assert wide.unit() == (int.from_bytes(raw[8:16], "big") >> 11) / 2**53
    assert wide.below(2**320) == int.from_bytes(raw[16:56], "big"), "draws cross blocks"


def test_a_draw_beyond_the_last_whole_multiple_is_thrown_away() -> None:
    """below(200) keeps bytes under 200 as they are and skips the others: no modulo bias."""
    byte, kept = Stream(b"reject"), Stream(b"reject")
    raw = [byte.below(256) for _ in range(500)]
    expected = [value for value in raw if value < 200]
    assert len(expected) < 450
    assert [kept.below(200) for _ in expected] == expected


@pytest.mark.parametrize("bound", [2, 3, 7, 200, 256, 257])
def test_below_is_uniform(bound: int) -> None:
    stream = Stream(b"uniform")
    drawn = Counter(stream.below(bound) for _ in range(40 * bound + 4000))
    assert set(drawn) == set(range(bound))
    assert chisquare([drawn[value] for value in range(bound)]).pvalue > 1e-3


def test_shuffles_are_uniform() -> None:
    stream = Stream(b"shuffles")
    seen: Counter[str] = Counter()
    for _ in range(6000):
        items = list("abcd")
        stream.shuffle(items)
        seen["".join(items)] += 1
    orders = ["".join(order) for order in permutations("abcd")]
    assert set(seen) == set(orders)
    assert chisquare([seen[order] for order in orders]).pvalue > 1e-3


def test_samples_are_uniform() -> None:
    stream = Stream(b"samples")
    seen = Counter(tuple(stream.sample("abcd", 2)) for _ in range(6000))
    assert set(seen) == set(permutations("abcd", 2))
    assert chisquare(list(seen.values())).pvalue > 1e-3


def test_units_are_uniform_and_below_one() -> None:
    stream = Stream(b"units")
    drawn = [stream.unit() for _ in range(4000)]
    assert all(0.0 <= value < 1.0 for value in drawn)
    assert chisquare(list(Counter(int(10 * value) for value in drawn).values())).pvalue > 1e-3


@given(st.binary(max_size=8), st.integers(1, 2**130))
def test_below_stays_below(seed: bytes, bound: int) -> None:
    assert 0 <= Stream(seed).below(bound) < bound


@given(st.integers(-(2**70), 2**70), st.integers(0, 2**70))
def test_between_includes_both_ends(low: int, span: int) -> None:
    assert low <= Stream(b"x").between(low, low + span) <= low + span
    assert Stream(b"x").between(low, low) == low


def test_both_ends_of_between_are_drawn() -> None:
    stream = Stream(b"ends")
    assert {stream.between(3, 5) for _ in range(100)} == {3, 4, 5}


@given(st.lists(st.integers(), max_size=30), st.binary(max_size=4), st.data())
def test_shuffle_and_sample_keep_the_elements(
    items: list[int], seed: bytes, data: st.DataObject
) -> None:
    shuffled = list(items)
    Stream(seed).shuffle(shuffled)
    assert sorted(shuffled) == sorted(items)
    size = data.draw(st.integers(0, len(items)))
    indices = range(len(items))
    sample = Stream(seed).sample(indices, size)
    assert len(set(sample)) == size
    assert set(sample) <= set(indices)


def test_a_sample_leaves_its_source_alone() -> None:
    source = [1, 2, 3, 4]
    Stream(b"x").sample(source, 3)
    assert source == [1, 2, 3, 4]


def test_different_seeds_give_different_streams() -> None:
    seeds = [bytes([n]) for n in range(200)] + [bytes([n, 0]) for n in range(200)]
    assert len({Stream(seed).below(2**128) for seed in seeds}) == 400


def test_what_cannot_be_drawn_is_an_error() -> None:
    stream = Stream(b"x")
    for bound in (0, -1):
        with pytest.raises(ValueError, match="bound must be positive"):
            stream.below(bound)
    with pytest.raises(ValueError, match="bound must be positive"):
        stream.between(2, 1)
    with pytest.raises(ValueError, match="bound must be positive"):
        stream.choice([])
    with pytest.raises(ValueError, match="sample larger than population"):
        stream.sample([1, 2], 3)
