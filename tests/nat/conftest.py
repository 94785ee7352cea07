"""Labs of network namespaces; where none can be built, the tests that need one say why."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
# Scripts find each other as modules beside them.
sys.path.append(str(SCRIPTS))

import netns  # noqa: E402
from netlab import Lab, lab  # noqa: E402

_MISSING = netns.missing()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a lab where there can be none."""
    if _MISSING is not None:
        for item in items:
            if item.get_closest_marker("nat"):
                item.add_marker(pytest.mark.skip(reason=f"no lab here: {_MISSING}"))


@pytest.fixture(scope="module")
def near() -> Iterator[Lab]:
    """A lab without delay."""
    with lab() as built:
        yield built


def left_by(process: int) -> set[str]:
    """What the labs of a process have made and not removed: namespaces, lock files, folders."""
    places = (netns.MADE, "sw"), (netns.LOCKS, "swarmd-nat-lab-sw"), (Path(gettempdir()), "sw")
    return {
        str(path)
        for place, stem in places
        if place.exists()
        for path in place.glob(f"{stem}{process}x*")
    }
