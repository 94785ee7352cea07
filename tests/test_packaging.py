"""What is installed is ours, and the heavy parts stay where they belong."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", ["protocol", "swarm", "node"])
def test_the_top_level_names_are_this_distribution_alone(name: str) -> None:
    # `node` and `protocol` exist on PyPI, too.
    assert importlib.metadata.packages_distributions().get(name, ["swarmd"]) == ["swarmd"]
    found = importlib.import_module(name).__file__
    assert found is not None
    assert Path(found).is_relative_to(ROOT)


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("protocol.messages", ("trio", "libp2p", "torch", "numpy", "sqlite3")),
        ("swarm.round", ("trio", "libp2p", "torch", "sqlite3")),
        ("swarm.verify", ("trio", "libp2p", "torch", "sqlite3")),
        ("node.daemon", ("libp2p", "torch", "transformers")),
        ("node.backends.bundled", ("torch", "transformers")),
    ],
)
def test_importing_it_does_not_import(module: str, banned: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print([one for one in {banned} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_pins() -> None:
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    assert pins["torch"] == "2.13.0"
    assert pins["libp2p"] == importlib.metadata.version("libp2p")
