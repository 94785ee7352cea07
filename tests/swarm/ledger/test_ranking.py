"""The worst of many, while they come, get better and go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.ids import PeerId
from swarm.ledger.admission import rank
from swarm.ledger.ranking import FIRST, Rank, Ranking

AUTHORS = [PeerId(bytes([n]) * 32) for n in range(5)]


def test_nobody_is_the_worst_of_nobody() -> None:
    ranking = Ranking()
    assert ranking.worst(1) is None
    assert (ranking.count(1), ranking.epochs()) == (0, [])


def test_nothing_is_better_than_the_first() -> None:
    ranking = Ranking()
    for author in AUTHORS:
        ranking.put(author, 1, rank((1 << 63) - 1, author, 1))
    ranking.put(AUTHORS[0], 1, FIRST)
    for _ in AUTHORS[1:]:
        found = ranking.worst(1)
        assert found is not None
        assert found[1] != AUTHORS[0]
        ranking.drop(found[1], 1)
    assert ranking.worst(1) == (FIRST, AUTHORS[0])


@given(
    st.lists(
        st.tuples(st.sampled_from(AUTHORS), st.integers(1, 2), st.none() | st.integers(0, 3)),
        max_size=60,
    )
)
def test_the_worst_is_the_least_of_those_that_hold(
    steps: list[tuple[PeerId, int, int | None]],
) -> None:
    """Without a quality an author goes."""
    ranking = Ranking()
    ranks: dict[int, dict[PeerId, Rank]] = {1: {}, 2: {}}
    for author, epoch, quality in steps:
        if quality is not None:
            ranks[epoch][author] = rank(quality, author, epoch)
            ranking.put(author, epoch, ranks[epoch][author])
        elif author in ranks[epoch]:
            del ranks[epoch][author]
            ranking.drop(author, epoch)
        assert ranking.epochs() == [one for one, held in ranks.items() if held]
        for one, held in ranks.items():
            assert ranking.count(one) == len(held)
            worst = min(((found, who) for who, found in held.items()), default=None)
            assert ranking.worst(one) == worst


def test_what_does_not_hold_any_more_takes_no_memory() -> None:
    """An author that gets a better ticket again and again, and one that comes and goes."""
    ranking = Ranking()
    for quality in range(1000):
        ranking.put(AUTHORS[0], 1, rank(quality, AUTHORS[0], 1))
        ranking.put(AUTHORS[1], 1, rank(0, AUTHORS[1], 1))
        ranking.drop(AUTHORS[1], 1)
    assert sum(map(len, ranking._heaps.values())) <= 4
    ranking.drop(AUTHORS[0], 1)
    assert not ranking._heaps
