"""The limits fit into each other."""

from __future__ import annotations

import pytest

from protocol import limits
from protocol.codec import decode, encode
from protocol.envelope import Envelope, KeySigner
from protocol.ids import PeerId
from protocol.messages import (
    MICRO,
    Ballot,
    Commit,
    Duel,
    Invite,
    Message,
    Model,
    Phases,
    Reveal,
    Roster,
    RosterEntry,
    Row,
    Slate,
    SlateEntry,
    WaveClose,
    parse,
    seal,
)

KEY = b"\xff" * 32
LONGEST = "\U0001f41d" * limits.TEXT_CHARS
SIGNER = KeySigner(KEY)


def _slate() -> Slate:
    commit = SIGNER.seal(encode(Commit(KEY, KEY, Model(LONGEST, LONGEST, LONGEST))))
    reveal = SIGNER.seal(encode(Reveal(KEY, KEY, KEY, "x" * limits.ANSWER_BYTES)))
    return Slate(KEY, KEY, (SlateEntry(commit, reveal),) * limits.COMMITTEE, KEY)


LARGEST: list[Message] = [
    Invite(
        2**48,
        LONGEST,
        KEY,
        "é" * limits.QUESTION_BYTES,
        limits.ANSWER_BYTES,
        limits.ANSWER_TOKENS,
        Phases(limits.PHASE_MS, limits.PHASE_MS, limits.PHASE_MS),
        KEY,
        True,
        limits.STAGES,
    ),
    Roster(KEY, limits.STAGES - 1, KEY, (RosterEntry(PeerId(KEY), KEY),) * limits.COMMITTEE),
    Reveal(KEY, KEY, KEY, "\U0001f41d" * limits.ANSWER_BYTES),
    _slate(),
    Ballot(
        KEY,
        KEY,
        limits.WAVES - 1,
        KEY,
        (Row(limits.COMMITTEE - 1, limits.COMMITTEE - 2, MICRO),) * limits.ROWS_PER_BALLOT,
    ),
    WaveClose(
        KEY,
        KEY,
        limits.WAVES - 1,
        KEY,
        True,
        (Duel(limits.COMMITTEE - 2, limits.COMMITTEE - 1, limits.DUELS),) * limits.DUELS,
    ),
]


@pytest.mark.parametrize("message", LARGEST, ids=lambda message: type(message).__name__)
def test_the_largest_message_fits_in_a_frame(message: Message) -> None:
    payload = encode(seal(SIGNER, message))
    assert len(payload) <= limits.FRAME_BYTES
    assert parse(payload).message == message


def test_a_body_as_long_as_a_frame_does_not_fit() -> None:
    payload = encode(Envelope(PeerId(KEY), bytes(limits.FRAME_BYTES), bytes(64)))
    assert len(payload) > limits.FRAME_BYTES


def test_all_limits_are_positive_integers() -> None:
    named = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert len(named) > 20
    for name, value in named.items():
        assert type(value) is int, name
        assert value > 0, name


def test_an_ended_round_is_remembered_longer_than_it_can_run() -> None:
    assert limits.ROUNDS_PER_ASKER <= limits.ROUNDS_AT_ONCE < limits.ROUNDS_REMEMBERED


def test_the_frame_limit_is_what_decode_applies() -> None:
    from protocol.errors import TooLargeError

    with pytest.raises(TooLargeError):
        decode(bytes(limits.FRAME_BYTES + 1), Envelope)
