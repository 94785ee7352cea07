"""What a Ballot must be: exactly the pairs that the seed gives its judge, after the last wave."""

from __future__ import annotations

from protocol.errors import RefusedError
from protocol.ids import Digest, PeerId, short_peer
from protocol.messages import Ballot, Incoming, Row
from protocol.receipt import Result, Rule
from swarm.pairing import Pairing


def check_ballot(
    ballot: Ballot, judge: PeerId, pairing: Pairing, slate: Digest, follows: Digest
) -> None:
    """Check a Ballot whose signature holds.

    Args:
        judge: its signer.
        pairing: with the wave open that it is for.
        slate: digest of the Slate's message.
        follows: digest of the WaveClose before it, zeros in the first wave.

    Raises:
        RefusedError: says what does not fit.
    """
    who = short_peer(judge)
    if judge not in pairing.judges:
        raise RefusedError(f"{who} revealed no answer, so it does not judge.")
    if ballot.slate != slate or ballot.wave != pairing.wave or ballot.follows != follows:
        raise RefusedError(f"The Ballot of {who} does not follow the Slate and the last wave.")
    pairs = pairing.pairs(judge)
    if not pairs:
        raise RefusedError(f"{who} was not asked in this wave.")
    if tuple((row.first, row.second) for row in ballot.rows) != pairs:
        raise RefusedError(f"The Ballot of {who} is not on the pairs that the seed gives it.")


def is_confident(rule: Rule, result: Result) -> bool:
    """Whether the winner's probability has reached the asked threshold.

    That is its confidence; while there is none, its share among the classes that were compared.
    Unanimity without a confidence is no probability: of three it is right 54–83 % of the time.
    """
    if rule.stop is None or result.winner is None:
        return False
    if result.confidence is not None:
        return result.confidence >= rule.stop
    return len(result.shares) > 1 and result.shares[result.winner] >= rule.stop


def ballot_rows(incoming: Incoming) -> tuple[Row, ...]:
    """The rows of a verified message that is a Ballot."""
    assert isinstance(incoming.message, Ballot)
    return incoming.message.rows
