"""Whom to ask."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from protocol.ids import PeerId
from protocol.messages import Model, Profile
from swarm.registry import Registry


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def profile(family: str, serves: bool = True) -> Profile:
    return Profile(Model(f"model of {family}", family, ""), 1, 4096, serves)


def registry(*families: str) -> Registry:
    made = Registry()
    for number, family in enumerate(families):
        made.introduce(peer(number), profile(family))
    return made


@given(
    families=st.lists(st.sampled_from("abcd"), max_size=20),
    size=st.integers(0, 24),
    seed=st.binary(max_size=8),
)
def test_a_committee_is_able_distinct_and_as_diverse_as_can_be(
    families: list[str], size: int, seed: bytes
) -> None:
    one = registry(*families)
    chosen = one.committee(size, seed)
    assert chosen == one.committee(size, seed)
    assert list(chosen) == sorted(set(chosen))
    assert len(chosen) == min(size, len(families))
    seats = Counter(one.profiles[member].model.family for member in chosen)
    available = Counter(families)
    for family, count in available.items():
        # No family has two seats more than another that still has peers to offer.
        if seats[family] < count:
            assert max(seats.values(), default=0) <= seats[family] + 1


def test_seeds_choose_differently() -> None:
    one = registry(*"a" * 12)
    assert len({one.committee(3, bytes([seed])) for seed in range(20)}) > 10


def test_who_does_not_serve_is_not_asked() -> None:
    one = registry("a", "b")
    one.introduce(peer(1), profile("b", serves=False))
    assert one.able() == [peer(0)]
    assert one.committee(5, b"") == (peer(0),)


def test_who_has_gone_is_forgotten_and_may_come_back() -> None:
    one = registry("a")
    one.forget(peer(0))
    one.forget(peer(0))
    assert one.able() == []
    one.introduce(peer(0), profile("c"))
    assert one.profiles[peer(0)].model.family == "c"
