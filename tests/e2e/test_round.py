"""A question through real processes: answer, receipt, faults, crashes."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from node.local_swarm import LocalSwarm
from protocol.errors import DaemonGoneError
from swarm.verify import verify
from tests.e2e.conftest import BIN, QUESTION, MakeSwarm, honest, hostile, swarm_command

pytestmark = pytest.mark.e2e
Script = Callable[..., str]


def test_an_answer_with_a_receipt(make_swarm: MakeSwarm, script: Script) -> None:
    swarm = make_swarm([honest(script(answer)) for answer in ("42", "41", "41", "7", "42.0")])
    asker = swarm.members[0]

    asked = swarm_command("ask", "--json", QUESTION, member=asker)
    result = json.loads(asked.stdout)

    assert asked.returncode == 0, asked.stderr
    assert result["answer"] in ("42", "42.0")
    assert result["outcome"] == "answer"
    assert result["confidence"] is None
    assert not result["calibrated"]
    assert {row["peer"] for row in result["answers"]} == {one.peer for one in swarm.members}
    assert result["missing"] == []

    piped = swarm_command("ask", QUESTION, member=asker)
    assert piped.stdout in ("42\n", "42.0\n")
    assert piped.stderr == ""

    why = swarm_command("why", "--json", result["round"][:12], member=asker)
    assert json.loads(why.stdout)["answer"] == result["answer"]

    swarm.stop()
    receipt = Path(result["receipt"])
    assert swarm_command("receipt", "verify", receipt).returncode == 0
    replayed = swarm_command("receipt", "replay", "--json", receipt)
    assert json.loads(replayed.stdout)["winner"] == result["answer"]
    assert swarm_command("receipt", "show", receipt).returncode == 0
    offline = swarm_command("why", "--json", receipt)
    assert json.loads(offline.stdout) == json.loads(why.stdout)

    damaged = receipt.with_name("damaged")
    data = bytearray(receipt.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    refused = swarm_command("receipt", "verify", damaged)
    assert refused.returncode == 9
    assert "changed" in refused.stderr


def test_five_kinds_of_failure_in_one_round(make_swarm: MakeSwarm, script: Script) -> None:
    vices = {
        "die_before_reveal": "lost",
        "die_judging": "lost",
        "late": "late-commit",
        "mismatch": "commit-mismatch",
        "garbage": "malformed",
    }
    specs = [honest(script(answer)) for answer in ("42", "42", "41")]
    # A judge that takes its time, so that the late Commit still finds the round open.
    specs.append(honest(script("40", delay_s=1.0)))
    specs += [hostile(script("13"), vice) for vice in vices]
    swarm = make_swarm(specs)
    timeout_s = 8.0

    result = swarm.members[0].client.call(
        "ask", {"question": QUESTION, "timeout_s": timeout_s}, silence_s=60.0
    )

    assert result["answer"] == "42"
    assert result["timing"]["total_ms"] <= 1000 * timeout_s
    failed = {row["peer"]: row["kind"] for row in result["missing"]}
    expected = {
        member.peer: kind for member, kind in zip(swarm.members[4:], vices.values(), strict=True)
    }
    assert failed == expected
    report = verify(Path(result["receipt"]).read_bytes())
    assert report.ok, report.problems
    # The one that died over its ballot had revealed: its ballot is owed, and said to be.
    assert [row["judge"] for row in report.missing] == [swarm.members[5].peer]


def test_two_different_ballots_are_named(make_swarm: MakeSwarm, script: Script) -> None:
    specs = [honest(script("42")), honest(script("41")), hostile(script("40"), "equivocate")]
    # The last honest judge is slow, so that the second ballot comes while judging is open.
    specs.append(honest(script("39", delay_s=1.0)))
    swarm = make_swarm(specs)

    result = swarm.members[0].client.call("ask", {"question": QUESTION}, silence_s=90.0)

    assert result["answer"] == "42"
    assert [(row["peer"], row["kind"]) for row in result["missing"]] == [
        (swarm.members[2].peer, "equivocation")
    ]


def test_a_killed_asker_takes_its_question_up_again(make_swarm: MakeSwarm, script: Script) -> None:
    specs = [honest(script("42")), honest(script("41")), hostile(script("40"), "stall")]
    swarm = make_swarm(specs)
    asker, _, stalled = swarm.members
    committed = threading.Event()
    events: list[Mapping[str, Any]] = []

    def on_progress(event: Mapping[str, Any]) -> None:
        events.append(event)
        if event["kind"] == "committed":
            committed.set()

    failure: list[BaseException] = []

    def ask() -> None:
        try:
            asker.client.call(
                "ask", {"question": QUESTION, "timeout_s": 60.0}, on_progress, silence_s=90.0
            )
        except BaseException as error:
            failure.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    assert committed.wait(60)
    swarm.kill(asker)
    asking.join(60)
    assert [type(error) for error in failure] == [DaemonGoneError]
    assert events[0]["kind"] == "accepted"

    swarm.kill(stalled)
    swarm.launch(asker)
    row = _until_over(swarm, events[0]["ask"])
    assert row["state"] == "done"
    assert row["answer"] == "42"
    assert row["attempt"] == 2


def _until_over(swarm: LocalSwarm, ask: str) -> Mapping[str, Any]:
    """The question's row in the history, once it is over."""
    swarm.wait(60)
    asker = swarm.members[0].client
    for _ in range(100_000):
        row: Mapping[str, Any] = next(
            one for one in asker.call("history")["asks"] if one["ask"] == ask
        )
        if row["finished_at"] is not None:
            return row
    raise AssertionError("the question never ended")


def test_cancelling_ends_the_round_everywhere(make_swarm: MakeSwarm, script: Script) -> None:
    swarm = make_swarm([honest(script("42")), honest(script("41", delay_s=600))])
    asker = swarm.members[0]
    with subprocess.Popen(
        [BIN / "swarm", "ask", f"--socket={asker.socket}", "--json", QUESTION],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as asking:
        while not any(one.client.call("status")["rounds_serving"] for one in swarm.members[1:]):
            pass
        asking.send_signal(2)
        assert asking.wait(60) == 130
    while any(one.client.call("status")["rounds_serving"] for one in swarm.members):
        pass
    (row,) = asker.client.call("history")["asks"]
    assert row["state"] == "cancelled"


def test_too_few_peers_is_said_with_the_next_step(make_swarm: MakeSwarm, script: Script) -> None:
    swarm = make_swarm([honest(script("42"))])
    asked = swarm_command("ask", "--min-answers", "3", QUESTION, member=swarm.members[0])
    assert asked.returncode == 6
    assert "--min-answers" in asked.stderr
    assert "Traceback" not in asked.stderr


def test_too_few_answers_are_a_partial_result(make_swarm: MakeSwarm, script: Script) -> None:
    swarm = make_swarm([honest(script("42")), honest(script(None)), honest(script(None))])
    asked = swarm_command("ask", "--json", "--min-answers", "2", QUESTION, member=swarm.members[0])
    result = json.loads(asked.stdout)
    assert asked.returncode == 6
    assert result["outcome"] == "partial"
    assert [row["kind"] for row in result["missing"]] == ["declined", "declined"]
    told = swarm_command("ask", "--min-answers", "2", QUESTION, member=swarm.members[0])
    assert "2 declined" in told.stderr
    assert "no answer to this question" in told.stderr
    why = swarm_command("why", result["receipt"])
    assert "declined" in why.stdout
