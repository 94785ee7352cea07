"""Two different tuples, or purposes, never share a digest."""

from __future__ import annotations

from hashlib import sha256
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.digest import digest

parts = st.lists(
    st.one_of(st.binary(max_size=6), st.text("ab\x00", max_size=4), st.integers(0, 2**64 - 1)),
    max_size=4,
)


def test_the_bytes_that_are_hashed() -> None:
    """One vector by hand: another implementation must come to the same."""
    expected = sha256(
        b"swarmd/1/" + b"\x00\x04" + b"test"
        + b"b" + bytes(7) + b"\x02" + b"\x01\x02"
        + b"s" + bytes(7) + b"\x02" + "é".encode()
        + b"i" + bytes(7) + b"\x08" + bytes(7) + b"\x07"
    ).digest()  # fmt: skip
    assert digest("test", b"\x01\x02", "é", 7) == expected


@given(st.text("abc/", max_size=4), parts, st.text("abc/", max_size=4), parts)
def test_it_is_injective(
    domain: str, some: list[bytes | int | str], other_domain: str, others: list[bytes | int | str]
) -> None:
    same = domain == other_domain and [(type(p), p) for p in some] == [(type(p), p) for p in others]
    assert (digest(domain, *some) == digest(other_domain, *others)) == same


def test_type_and_length_separate() -> None:
    alike: list[tuple[bytes | int | str, ...]] = [
        (),
        (b"",),
        ("",),
        (0,),
        (bytes(8),),
        ("\x00" * 8,),
        (b"ab",),
        ("ab",),
        (b"a", b"b"),
        (b"", b"ab"),
        (b"ab", b""),
        ("a", "b"),
        (b"b" + bytes(7) + b"\x01a",),
    ]
    for left, right in combinations(alike, 2):
        assert digest("x", *left) != digest("x", *right), (left, right)


def test_a_part_is_not_a_domain() -> None:
    assert digest("ab") != digest("a", "b")
    assert digest("a", b"b") != digest("ab", b"")


@pytest.mark.parametrize("number", [-1, 2**64])
def test_integers_out_of_range_are_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        digest("x", number)
