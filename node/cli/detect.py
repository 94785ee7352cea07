"""`swarm eval detect`: can a peer tell hidden calibration from real questions?

Runs a swarm of real daemons on this machine. One asks, puts hidden calibration among its
questions, and knows which is which; one is a spy that takes part and notes what it sees. A
classifier is then trained on the notes: the text, the fields, and when what came.
"""

from __future__ import annotations

import argparse
import math
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import msgspec

from node.cli.text import columns, note, print_json
from node.local_swarm import LocalSwarm, Spec
from node.spy import Sighting
from node.store import DATABASE
from protocol import limits
from protocol.codec import decode
from protocol.errors import UsageError
from swarm.calibration.detect import FOLDS, Auc, Detection, Row, detect
from swarm.calibration.families import FAMILIES, sample
from swarm.seeded import Stream
from swarm.trial import Trial

MODELS: Final = ("bundled:mini", "bundled:string", "bundled:order")
"""The asker's, the spy's, and one more."""
PAUSE_S: Final = 1.0
"""Mean pause between an answer and the next question: long beside a round, as people's are."""
SETTLE_S: Final = 10.0
WARM_UP: Final = 24
"""First questions, before which a disguise has nothing to imitate; not counted."""
TIMEOUT_S: Final = 60.0
_EPSILON: Final = 1e-3


def run(args: argparse.Namespace) -> int:
    """Ask, look, classify, print."""
    questions = _questions(args.traffic, args.questions + WARM_UP, args.seed)
    with tempfile.TemporaryDirectory(prefix="swarm-detect-") as folder:
        rows = _observe(Path(folder), questions, args.rate, args.seed)
    hidden = sum(row.hidden for row in rows)
    if min(hidden, len(rows) - hidden) < FOLDS:
        raise UsageError(f"Only {hidden} of {len(rows)} rounds were hidden tasks: ask more.")
    found = detect(rows)
    result = {
        "real": len(rows) - hidden,
        "hidden": hidden,
        "rate": args.rate,
        "traffic": args.traffic or "held-out questions of the bundled families",
        "auc": _named(found),
    }
    if args.json:
        print_json(result)
        return 0
    print(f"{len(rows) - hidden} real questions and {hidden} hidden tasks, as a peer saw them\n")
    table = [
        (name, f"{auc.value:.3f}", f"{auc.low:.3f} to {auc.high:.3f}")
        for name, auc in (
            ("text", found.text),
            ("fields and times", found.fields),
            ("all", found.both),
        )
        if auc is not None
    ]
    print(columns(("VIEW", "AUC", "95 % INTERVAL"), table))
    print("\n0.5: it cannot be told; 1: it can be told every time.")
    return 0


def _named(found: Detection) -> dict[str, Any]:
    views: dict[str, Auc | None] = {
        "text": found.text,
        "fields": found.fields,
        "all": found.both,
    }
    return {name: None if auc is None else asdict(auc) for name, auc in views.items()}


def _questions(traffic: str | None, count: int, seed: int) -> list[str]:
    """Real questions: the operator's own, one a line, or held-out ones of the bundled families."""
    stream = Stream(f"detect {seed}".encode())
    if traffic is None:
        names = tuple(FAMILIES)
        return [sample(stream, "test", stream.choice(names)).question for _ in range(count)]
    try:
        text = Path(traffic).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{traffic} cannot be read: {error}.") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) < WARM_UP + FOLDS:
        raise UsageError(f"{traffic} holds {len(lines)} questions; it takes {WARM_UP + FOLDS}.")
    if any(len(line.encode()) > limits.QUESTION_BYTES for line in lines):
        raise UsageError(f"A question in {traffic} has over {limits.QUESTION_BYTES} bytes.")
    stream.shuffle(lines)
    return lines[:count]


def _observe(root: Path, questions: Sequence[str], rate: float, seed: int) -> list[Row]:
    """Put the questions, and return what the spy saw of each round after the first few."""
    notes = root / "notes.jsonl"
    quiet = ("--device=cpu", "--threads=1", "--calibration-per-hour=0")
    specs = [
        Spec(MODELS[0], flags=(*quiet, f"--calibration-rate={rate}")),
        Spec(
            MODELS[1],
            program=(sys.executable, "-m", "node.spy", str(notes)),
            flags=(*quiet, "--calibration-rate=0"),
        ),
        Spec(MODELS[2], flags=(*quiet, "--calibration-rate=0")),
    ]
    stream = Stream(f"pauses {seed}".encode())
    real: list[str] = []
    with LocalSwarm(specs, root) as swarm:
        swarm.start(lambda text: note(f"starting: {text}"))
        asker = swarm.members[0]
        began = time.monotonic()
        for number, question in enumerate(questions, 1):
            time.sleep(-PAUSE_S * math.log(1.0 - stream.unit()))
            call = {"question": question, "min_answers": 2}
            real.append(asker.client.call("ask", call, silence_s=TIMEOUT_S)["round"])
            if number % 20 == 0:
                left = (time.monotonic() - began) / number * (len(questions) - number)
                note(f"{number}/{len(questions)} questions, {left:.0f} s left")
        time.sleep(SETTLE_S)
        hidden = _hidden(asker.data_dir)
    counted = frozenset(real[WARM_UP:]) | frozenset(hidden)
    return _rows(notes.read_bytes(), counted, frozenset(hidden), real[WARM_UP - 1])


def _hidden(data_dir: Path) -> list[str]:
    """The rounds that the asker knows were hidden tasks."""
    database = sqlite3.connect(f"file:{data_dir / DATABASE}?mode=ro", uri=True)
    try:
        bodies = database.execute("SELECT body FROM trials ORDER BY number").fetchall()
    finally:
        database.close()
    trials = [decode(body, Trial) for (body,) in bodies]
    return [trial.round.hex() for trial in trials if trial.kind == "hidden"]


def _rows(notes: bytes, counted: frozenset[str], hidden: frozenset[str], after: str) -> list[Row]:
    """What was seen of each counted round that began after the round ``after``."""
    seen: dict[str, list[Sighting]] = {}
    for text in notes.splitlines():
        one = msgspec.json.decode(text, type=Sighting)
        seen.setdefault(one.round, []).append(one)
    rounds = [sightings for sightings in seen.values() if sightings[0].kind == "Invite"]
    start = next(index for index, one in enumerate(rounds) if one[0].round == after)
    rows = []
    for index in range(start + 1, len(rounds)):
        invite = rounds[index][0]
        if invite.round in counted:
            rows.append(Row(invite.question, _fields(rounds, index), invite.round in hidden))
    return rows


def _fields(rounds: Sequence[Sequence[Sighting]], index: int) -> tuple[float, ...]:
    """Numbers that come with a round: what its messages say, and when they came."""
    mine = rounds[index]
    invite = mine[0]
    begun = invite.at
    by_kind = {one.kind: one for one in mine}

    def since(kind: str) -> float:
        return _log(by_kind[kind].at - begun) if kind in by_kind else 0.0

    before = begun - rounds[index - 1][0].at
    next_at = rounds[index + 1][0].at if index + 1 < len(rounds) else begun + PAUSE_S
    running = sum(one[0].at < begun < one[-1].at for one in rounds[max(0, index - 8) : index])
    return (
        float(invite.commit_ms),
        float(invite.reveal_ms),
        float(invite.judge_ms),
        float(invite.answer_bytes),
        float(invite.answer_tokens),
        float(invite.size - len(invite.question.encode())),
        float(by_kind["Roster"].peers if "Roster" in by_kind else 0),
        _log(before),
        _log(next_at - begun),
        float(running),
        since("Roster"),
        since("Slate"),
        since("WaveClose"),
        since("Close"),
        float(len(mine)),
    )


def _log(seconds: float) -> float:
    return math.log(_EPSILON + max(0.0, seconds))
