"""The two meshes that the same tests run on."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from tests.fakes.mesh import FakeNetwork
from tests.mesh.worlds import World


@pytest.fixture(params=["fake", "libp2p"])
def clock(request: pytest.FixtureRequest) -> MockClock | None:
    return MockClock(autojump_threshold=0) if request.param == "fake" else None


@pytest.fixture
def world(clock: MockClock | None) -> World:
    return World(FakeNetwork() if clock is not None else None)


@pytest.fixture
def ordered() -> tuple[str, str]:
    """Names of two peers, the one with the smaller id first."""
    network = FakeNetwork()
    return tuple(sorted(("one", "other"), key=lambda name: network.mesh(name).peer_id))  # type: ignore[return-value]
