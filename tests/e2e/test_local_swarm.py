"""The starter of several daemons ends them with itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from node.client import Client
from protocol.errors import NoDaemonError

pytestmark = pytest.mark.e2e

PROGRAM = """
import sys, time
from pathlib import Path
from node.local_swarm import LocalSwarm, Spec
script, root = sys.argv[1:]
with LocalSwarm([Spec(script, "scripted")] * 2, Path(root)) as swarm:
    swarm.start()
    print(*[member.socket for member in swarm.members], flush=True)
    time.sleep(600)
"""


def test_sigterm_leaves_nothing_running(tmp_path: Path) -> None:
    script = tmp_path / "model.json"
    script.write_text('{"name": "one", "default": "42"}')
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, script, tmp_path / "swarm"],
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        sockets = [Path(name) for name in starter.stdout.readline().split()]
        assert len(sockets) == 2
        starter.terminate()
        assert starter.wait(60) == 128 + 15
    for path in sockets:
        with pytest.raises(NoDaemonError):
            Client(path).call("status")
        assert not path.parent.exists()
