"""Whom to ask."""

from __future__ import annotations

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
def test_a_committee_is_able_distinct_full_and_diverse(
    families: list[str], size: int, seed: bytes
) -> None:
    one = registry(*families)
    chosen = one.committee(size, seed)
    assert chosen == one.committee(size, seed)
    assert list(chosen) == sorted(set(chosen))
    assert len(chosen) == min(size, len(families))
    seated = {one.profiles[member].model.family for member in chosen}
    assert len(seated) >= min(len(set(families)), (size + 1) // 2)


@given(size=st.integers(1, 9), seed=st.binary(max_size=8))
def test_one_has_a_seat_oneself(size: int, seed: bytes) -> None:
    assert peer(7) in registry(*"aabbccddeeffgg").committee(size, seed, own=peer(7))
    assert peer(99) not in registry("a", "b").committee(size, seed, own=peer(99))


def test_invented_families_do_not_buy_the_committee() -> None:
    one = registry(*"h" * 40, *(f"invented {number}" for number in range(8)))
    liars = {peer(number) for number in range(40, 48)}
    taken = [len(liars & set(one.committee(9, bytes([seed])))) for seed in range(200)]
    # Half the seats go round the families, and the liars have eight of nine families.
    assert sum(taken) / len(taken) < 5.5


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
