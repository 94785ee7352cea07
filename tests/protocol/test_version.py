"""Which version two nodes speak."""

from __future__ import annotations

import pytest

from protocol import version
from protocol.errors import VersionMismatchError


@pytest.mark.parametrize(
    ("ours", "theirs", "spoken"),
    [
        ((1, 1), (1, 1), 1),
        ((1, 3), (2, 5), 3),
        ((2, 5), (1, 3), 3),
        ((1, 9), (4, 4), 4),
        ((3, 3), (0, 2**31), 3),
    ],
)
def test_the_newest_common_version_is_spoken(
    monkeypatch: pytest.MonkeyPatch, ours: tuple[int, int], theirs: tuple[int, int], spoken: int
) -> None:
    monkeypatch.setattr(version, "OLDEST", ours[0])
    monkeypatch.setattr(version, "PROTOCOL", ours[1])
    assert version.negotiate(*theirs) == spoken


@pytest.mark.parametrize(
    ("theirs", "who"),
    [
        ((1, 2), "speaks versions 1 to 2, this node versions 3 to 5: the peer must upgrade"),
        ((6, 6), "speaks version 6, this node versions 3 to 5: this node must upgrade"),
        ((5, 4), "empty range"),
    ],
)
def test_a_refusal_says_who_must_upgrade(
    monkeypatch: pytest.MonkeyPatch, theirs: tuple[int, int], who: str
) -> None:
    monkeypatch.setattr(version, "OLDEST", 3)
    monkeypatch.setattr(version, "PROTOCOL", 5)
    with pytest.raises(VersionMismatchError, match=who):
        version.negotiate(*theirs)
