"""A Ballot is on exactly the pairs that the seed gives its judge, in their order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocol.errors import RefusedError
from protocol.ids import ZERO_DIGEST
from protocol.messages import MICRO, Ballot, Row
from protocol.receipt import Result
from swarm.ballots import ballot_rows, check_ballot, is_confident
from swarm.consensus import UNCALIBRATED, without_winner
from swarm.pairing import Pairing
from swarm.participant import State
from swarm.slate import Opened, open_slate
from tests.swarm.builders import Desk, changed


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk("41", "42", "43").up_to(State.VOTED)


@pytest.fixture(scope="module")
def shown(desk: Desk) -> Opened:
    return open_slate(desk.invite, desk.roster(), desk.roster_digest, desk.slate())


def _check(desk: Desk, shown: Opened, ballot: Ballot, **other: object) -> None:
    case = {
        "judge": desk.me.peer,
        "pairing": Pairing(False, shown.seed, len(shown.classes), shown.judges),
        "slate": desk.slate_digest,
        "follows": ZERO_DIGEST,
    } | other
    check_ballot(ballot, **case)  # type: ignore[arg-type]


def test_the_right_ballot_is_taken(desk: Desk, shown: Opened) -> None:
    (ballot,) = desk.sent(0, Ballot)
    _check(desk, shown, ballot)
    voted = tuple(Row(row.first, row.second, MICRO) for row in ballot.rows)
    _check(desk, shown, changed(ballot, rows=voted))


@pytest.mark.parametrize("fields", [{"slate": bytes(32)}, {"wave": 1}, {"follows": b"\x01" * 32}])
def test_a_ballot_of_another_place_is_refused(
    desk: Desk, shown: Opened, fields: dict[str, object]
) -> None:
    (ballot,) = desk.sent(0, Ballot)
    with pytest.raises(RefusedError, match="does not follow the Slate"):
        _check(desk, shown, changed(ballot, **fields))


def _swap(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    return (rows[1], rows[0], *rows[2:])


def _turn(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    return (Row(rows[0].second, rows[0].first, rows[0].p), *rows[1:])


@pytest.mark.parametrize(
    "bend",
    [
        lambda rows: rows[1:],
        lambda rows: (*rows, rows[0]),
        lambda rows: (rows[0], *rows[:-1]),
        lambda rows: (),
        lambda rows: (Row(0, 0, None), *rows[1:]),
        lambda rows: (Row(0, 47, None), *rows[1:]),
        _swap,
        _turn,
    ],
    ids=["fewer", "more", "one twice", "none", "itself", "no such class", "swapped", "turned"],
)
def test_a_ballot_on_other_pairs_is_refused(desk: Desk, shown: Opened, bend) -> None:
    (ballot,) = desk.sent(0, Ballot)
    with pytest.raises(RefusedError, match="not on the pairs"):
        _check(desk, shown, changed(ballot, rows=bend(ballot.rows)))


def test_the_ballot_of_another_judge_is_refused(desk: Desk, shown: Opened) -> None:
    (ballot,) = desk.sent(1, Ballot)
    with pytest.raises(RefusedError, match="not on the pairs"):
        _check(desk, shown, ballot)


def test_who_did_not_reveal_does_not_judge(desk: Desk, shown: Opened) -> None:
    (ballot,) = desk.sent(0, Ballot)
    with pytest.raises(RefusedError, match="revealed no answer"):
        _check(desk, replace(shown, judges=shown.judges[1:]), ballot)


def test_rows_of_a_message(desk: Desk) -> None:
    (ballot,) = desk.sent(0, Ballot)
    assert ballot_rows(desk.seal(ballot)) == ballot.rows


@pytest.mark.parametrize(
    ("stop", "winner", "share", "confident"),
    [
        (None, 0, MICRO, False),
        (900_000, 0, 900_000, True),
        (900_000, 0, 899_999, False),
        (900_000, None, MICRO, False),
        (0, 0, 0, True),
    ],
)
def test_judging_stops_at_the_asked_share(
    stop: int | None, winner: int | None, share: int, confident: bool
) -> None:
    rule = changed(UNCALIBRATED, stop=stop)
    shares = (share, MICRO - share)
    result: Result = changed(without_winner("partial"), winner=winner, shares=shares)
    assert is_confident(rule, result) == confident


@pytest.mark.parametrize(
    ("confidence", "shares", "confident"),
    [
        (900_000, (100_000, 900_000), True),
        (899_999, (MICRO, 0), False),
        (900_000, (MICRO,), True),
        (899_999, (MICRO,), False),
        (None, (MICRO,), False),
    ],
)
def test_where_there_is_a_confidence_it_decides(
    confidence: int | None, shares: tuple[int, ...], confident: bool
) -> None:
    """A share is none of being right, and unanimity of those of whom nothing is known is little."""
    rule = changed(UNCALIBRATED, stop=900_000)
    result = changed(without_winner("partial"), winner=0, confidence=confidence, shares=shares)
    assert is_confident(rule, result) == confident
