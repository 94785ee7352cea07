"""The two meshes that the same tests run on."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.fakes.mesh import FakeNetwork
from tests.mesh.worlds import World


@pytest.fixture(params=["fake", "libp2p"])
def clock(request: pytest.FixtureRequest) -> MockClock | None:
    if request.param == "libp2p":
        return None
    virtual = MockClock(autojump_threshold=0)

    def run(main: Any, clock: None, instruments: Any) -> Any:
        return trio.run(main, clock=virtual, instruments=instruments)

    # pytest-trio finds a clock among a test's own arguments, not among those of its fixtures.
    request.node.add_marker(pytest.mark.trio(run=run), append=False)
    return virtual


@pytest.fixture
def world(clock: MockClock | None) -> World:
    return World(FakeNetwork() if clock is not None else None)


@pytest.fixture
def ordered() -> tuple[str, str]:
    """Names of two peers, the one with the smaller id first."""
    network = FakeNetwork()
    return tuple(sorted(("one", "other"), key=lambda name: network.mesh(name).peer_id))  # type: ignore[return-value]
