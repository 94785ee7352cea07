"""Real processes that are told of one relay alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.local_swarm import LocalSwarm, Member, Spec
from protocol.errors import NoPeersError

pytestmark = pytest.mark.e2e

QUESTION = "What is 6 * 7?"


def spec(root: Path, name: str, answer: str, *flags: str) -> Spec:
    script = root / f"{name}.json"
    script.write_text(
        json.dumps({"name": name, "default": answer, "truths": {QUESTION: "42"}}), "utf-8"
    )
    return Spec(str(script), "scripted", flags=flags)


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[LocalSwarm]:
    """A relay, and three nodes that have heard of nobody else."""
    specs = [
        spec(tmp_path, "relay", "none", "--relay"),
        *(spec(tmp_path, name, answer) for name, answer in (("a", "42"), ("b", "42"), ("c", "41"))),
    ]
    with LocalSwarm(specs, tmp_path / "swarm", told=1) as made:
        made.start()
        yield made


def run(member: Member, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "node.cli.main", *words, "--socket", str(member.socket)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_relay_runs_no_model_and_brings_the_others_together(swarm: LocalSwarm) -> None:
    relay, first = swarm.members[:2]
    assert relay.process is not None
    loaded = Path(f"/proc/{relay.process.pid}/maps").read_text()
    assert "_sodium" in loaded, "the list of what is loaded is readable"
    assert "torch" not in loaded

    result = first.client.call("ask", {"question": QUESTION, "min_answers": 3}, silence_s=60.0)
    assert result["answer"] == "42"
    assert len(result["answers"]) == 3
    # Asked itself, it has the others answer.
    result = relay.client.call("ask", {"question": QUESTION, "min_answers": 3}, silence_s=60.0)
    assert result["answer"] == "42"
    assert relay.peer not in {one["peer"] for one in result["answers"]}
    with pytest.raises(NoPeersError):
        relay.client.call("ask", {"question": QUESTION, "min_answers": 4}, silence_s=60.0)

    report = relay.client.call("doctor")
    assert report["reach"]["nat"] == "public"
    assert report["relaying"]["open"]
    assert report["links"] == 3
    done = run(first, "doctor")
    assert (done.returncode, "1 of 1 connected" in done.stdout) == (0, True)
    done = run(relay, "find", first.peer)
    assert (done.returncode, first.address in done.stdout) == (0, True)


def test_the_others_go_on_when_the_relay_is_killed(swarm: LocalSwarm) -> None:
    relay, first, _, third = swarm.members
    swarm.kill(relay)
    swarm.wait(count=3)
    result = first.client.call("ask", {"question": QUESTION, "min_answers": 3}, silence_s=60.0)
    assert len(result["answers"]) == 3
    # Who is killed and starts again is linked again, though its one bootstrap is down.
    swarm.kill(third)
    swarm.launch(third)
    swarm.wait(count=3)
    swarm.launch(relay)
    swarm.wait(count=4)
