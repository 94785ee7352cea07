"""What a Ballot must be: exactly the pairs that the seed gives its judge, after the last wave."""

from __future__ import annotations

from protocol.errors import RefusedError
from protocol.ids import Digest, PeerId, short_peer
from protocol.messages import Ballot, Incoming, Row
from protocol.receipt import Result, Rule
from swarm.pairing import assigned
from swarm.slate import Opened


def check_ballot(
    ballot: Ballot, judge: PeerId, opened: Opened, slate: Digest, wave: int, follows: Digest
) -> None:
    """Check a Ballot whose signature holds.

    Args:
        judge: its signer.
        opened: what the Slate holds.
        slate: digest of the Slate's message.
        wave: the wave that is open.
        follows: digest of the WaveClose before it, zeros in the first wave.

    Raises:
        RefusedError: says what does not fit.
    """
    who = short_peer(judge)
    if judge not in opened.judges:
        raise RefusedError(f"{who} revealed no answer, so it does not judge.")
    if ballot.slate != slate or ballot.wave != wave or ballot.follows != follows:
        raise RefusedError(f"The Ballot of {who} does not follow the Slate and the last wave.")
    pairs = assigned(opened.seed, len(opened.classes), len(opened.judges), judge, wave)
    if tuple((row.first, row.second) for row in ballot.rows) != pairs:
        raise RefusedError(f"The Ballot of {who} is not on the pairs that the seed gives it.")


def is_confident(rule: Rule, result: Result) -> bool:
    """Whether judging may stop early: the winner's share has reached the asked threshold."""
    return (
        rule.stop is not None
        and result.winner is not None
        and result.shares[result.winner] >= rule.stop
    )


def ballot_rows(incoming: Incoming) -> tuple[Row, ...]:
    """The rows of a verified message that is a Ballot."""
    assert isinstance(incoming.message, Ballot)
    return incoming.message.rows
