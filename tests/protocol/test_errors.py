"""One tree: every error has a sentence for people, a code for programs, a status for the shell."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from protocol import errors
from protocol.errors import MalformedIdError, NoPeersError, ReceiptError, SwarmError


def _tree(kind: type[SwarmError]) -> Iterator[type[SwarmError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


ALL = [kind for kind in _tree(SwarmError) if kind.__module__ == errors.__name__]


def test_all_errors_of_the_module_are_in_the_tree() -> None:
    declared = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert declared == set(ALL)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_an_error_reads_as_a_sentence(kind: type[SwarmError]) -> None:
    text = kind().user_text()
    assert text
    assert text[0].isupper()
    assert text.rstrip("`)")[-1] in ".?!" or text.endswith("`.")
    assert "\n" not in text
    assert "  " not in text


def test_codes_are_unique_and_spelled_alike() -> None:
    codes = [kind.__dict__.get("code") for kind in ALL]
    assert None not in codes, "every class states its own code"
    assert len(set(codes)) == len(codes)
    assert all(code == code.lower() and " " not in code and "_" not in code for code in codes)


def test_the_particulars_follow_the_sentence() -> None:
    assert MalformedIdError("got 'x'").user_text() == "This is not a valid identifier. got 'x'"
    assert ReceiptError().user_text() == "The receipt does not hold."


def test_an_undocumented_error_still_says_what_it_was_given() -> None:
    class Bare(SwarmError):
        code = "bare"

    Bare.__doc__ = None
    assert Bare("what happened").user_text() == " what happened"


def test_only_the_first_paragraph_is_for_users() -> None:
    class Long(SwarmError):
        """It broke
        in two lines.

        Notes for programmers.
        """

    assert Long("here").user_text() == "It broke in two lines. here"


def test_exit_statuses_are_distinct() -> None:
    statuses = {name: value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert len(set(statuses.values())) == len(statuses)
    assert statuses["EXIT_ANSWER"] == 0
    assert statuses["EXIT_CANCELLED"] == 128 + 2, "as a shell reports SIGINT"
    assert 1 not in statuses.values(), "left to Python's own uncaught errors"


def test_no_error_exits_as_success() -> None:
    known = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert all(kind.exit_code in known - {0} for kind in ALL)
    assert NoPeersError.exit_code == errors.EXIT_NO_PEERS
