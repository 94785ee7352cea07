"""What the tests of the node's parts have in common."""

from __future__ import annotations

import pytest

from node.mesh import roster


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers here know each other: what they say of who is there would fill days of virtual time."""
    monkeypatch.setattr(roster, "EXCHANGE_EVERY_S", 1e9)
    monkeypatch.setattr(roster, "REFRESH_S", 1e9)
