"""Which versions of the protocol a node speaks, and which one two nodes share.

A node names the range it speaks in its :class:`protocol.frames.Hello`; two nodes speak the newest
version that both ranges hold. Both sides compute it from the same two ranges, so nothing more is
exchanged.
"""

from __future__ import annotations

from typing import Final

from protocol.errors import VersionMismatchError

PROTOCOL: Final = 2
"""The newest version that this node speaks. In 1, links carried what is in logs since."""
OLDEST: Final = 2
"""The oldest version that this node still speaks."""
ROUND: Final = 1
"""The version of rounds and of their receipts, which outlive the links they went over."""


def negotiate(theirs_oldest: int, theirs_newest: int) -> int:
    """The version to speak with a peer that speaks ``theirs_oldest`` to ``theirs_newest``.

    Raises:
        VersionMismatchError: the ranges do not meet, or theirs is empty; the text says which side
            has to upgrade.
    """
    ours, theirs = _range(OLDEST, PROTOCOL), _range(theirs_oldest, theirs_newest)
    if theirs_oldest > theirs_newest:
        raise VersionMismatchError(f"The peer claims the empty range {theirs}.")
    if theirs_newest < OLDEST:
        raise VersionMismatchError(
            f"The peer speaks {theirs}, this node {ours}: the peer must upgrade."
        )
    if theirs_oldest > PROTOCOL:
        raise VersionMismatchError(
            f"The peer speaks {theirs}, this node {ours}: this node must upgrade."
        )
    return min(PROTOCOL, theirs_newest)


def _range(oldest: int, newest: int) -> str:
    return f"version {newest}" if oldest == newest else f"versions {oldest} to {newest}"
