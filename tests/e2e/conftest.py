"""Real processes: daemons with scripted models on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node.local_swarm import LocalSwarm, Member, Spec

QUESTION = "What is 6 * 7?"
BIN = Path(sys.executable).parent

MakeSwarm = Callable[[list[Spec]], LocalSwarm]


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., str]:
    """Writes a model script and returns its path."""
    written = 0

    def write(answer: str | None, truth: str = "42", delay_s: float = 0.0) -> str:
        nonlocal written
        written += 1
        path = tmp_path / f"model{written}.json"
        path.write_text(
            json.dumps(
                {
                    "name": f"scripted:{written}",
                    "default": answer,
                    "truths": {QUESTION: truth},
                    "delay_s": delay_s,
                }
            )
        )
        return str(path)

    return write


@pytest.fixture
def make_swarm(tmp_path: Path) -> Iterator[MakeSwarm]:
    """Starts a swarm of these daemons; all are stopped at the end."""
    made: list[LocalSwarm] = []

    def make(specs: list[Spec]) -> LocalSwarm:
        swarm = LocalSwarm(specs, tmp_path / f"swarm{len(made)}")
        made.append(swarm)
        swarm.__enter__()
        swarm.start()
        return swarm

    yield make
    for swarm in made:
        swarm.__exit__()


def honest(script: str) -> Spec:
    """A daemon as it should be."""
    return Spec(script, "scripted")


def hostile(script: str, vice: str) -> Spec:
    """A daemon with a vice of ``tests.e2e.hostile``."""
    return Spec(script, "scripted", (sys.executable, "-m", "tests.e2e.hostile", vice))


def swarm_command(
    *arguments: str | Path, member: Member | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run ``swarm``; with ``member``, on its socket."""
    socket = [f"--socket={member.socket}"] if member else []
    return subprocess.run(
        [BIN / "swarm", *arguments, *socket],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
    )
