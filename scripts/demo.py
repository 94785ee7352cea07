"""The demo behind `scripts/demo`: N daemons with the bundled models answer one question.

Everything below `.demo/` is the demo's: keys, logs, receipts. It is made anew at each start.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from node.backends.bundled import bundled_names
from node.identity import LOCK_FILE, DataDirLock
from node.local_swarm import LocalSwarm, Member, Spec
from protocol import limits
from protocol.errors import (
    EXIT_CANCELLED,
    EXIT_INVALID,
    EXIT_USAGE,
    DataDirError,
    SwarmError,
)

QUESTION = "Tom has 47 apples and buys 38 more. How many apples does Tom have now?"
ROOT = Path(__file__).resolve().parent.parent / ".demo"
BIN = Path(sys.executable).parent


def main() -> int:
    """Run the demo; the exit code is that of `swarm ask`, or 9 if the receipt does not hold."""
    options = _options()
    running = _running()
    if running:
        print(
            f"demo: the daemons of an earlier demo run on. Stop them first: kill {running}",
            file=sys.stderr,
        )
        return EXIT_USAGE
    shutil.rmtree(ROOT, ignore_errors=True)
    names = bundled_names()
    specs = [
        Spec(f"bundled:{names[index % len(names)]}", flags=("--device=cpu", "--threads=1"))
        for index in range(options.nodes)
    ]
    try:
        with LocalSwarm(specs, ROOT, swarm="demo", keep=options.keep) as swarm:
            began = time.monotonic()
            say = _Status(f"starting {options.nodes} daemons: ")
            swarm.start(say)
            say.end(f"{options.nodes} daemons see each other ({time.monotonic() - began:.1f} s).")
            for member in swarm.members:
                print(f"  {member.peer}  {member.spec.model}", file=sys.stderr)
            code = (_json if options.json else _people)(swarm.members[0], options.question)
            if options.keep:
                _explain_keep(swarm)
            return code
    except SwarmError as error:
        print(f"demo: {error.user_text()}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_CANCELLED


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, default=5, metavar="N", help="daemons (5)")
    parser.add_argument("--question", default=QUESTION, metavar="TEXT", help="what to ask")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--keep", action="store_true", help="leave the daemons running")
    options = parser.parse_args()
    if not options.question.strip():
        parser.error("the question is empty")
    if not 2 <= options.nodes <= limits.COMMITTEE:
        parser.error(f"--nodes takes 2 to {limits.COMMITTEE}")
    return options


def _running() -> str:
    """Process ids of daemons that hold the data directories of an earlier demo."""
    found = []
    for folder in sorted(ROOT.glob("node*")):
        try:
            DataDirLock.acquire(folder).release()
        except DataDirError:
            found.append((folder / LOCK_FILE).read_text().strip())
    return " ".join(found)


class _Status:
    """One line on stderr, rewritten in place on a terminal."""

    def __init__(self, head: str) -> None:
        self._head = head
        self._live = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        if self._live:
            print(f"\r\x1b[2K{self._head}{text}", end="", file=sys.stderr, flush=True)
        else:
            print(f"{self._head}{text}", file=sys.stderr)

    def end(self, text: str) -> None:
        """The last word on this line."""
        print(f"\r\x1b[2K{text}" if self._live else text, file=sys.stderr)


def _json(asker: Member, question: str) -> int:
    asked = _swarm("ask", f"--socket={asker.socket}", "--json", "--", question)
    if not asked.stdout:
        return asked.returncode
    result: dict[str, Any] = json.loads(asked.stdout)
    checked = _swarm("receipt", "verify", "--json", result["receipt"])
    result["verified"] = checked.returncode == 0
    print(json.dumps(result))
    return asked.returncode if result["verified"] else EXIT_INVALID


def _people(asker: Member, question: str) -> int:
    print(f"\n> {question}\n", flush=True)
    asked = subprocess.run([BIN / "swarm", "ask", f"--socket={asker.socket}", "--", question])
    rounds = asker.client.call("history", {"limit": 1})["asks"]
    if not rounds or not rounds[0]["round"]:
        return asked.returncode
    print("\nWhy:", flush=True)
    receipt = asker.data_dir / "receipts" / f"{rounds[0]['round']}.receipt"
    subprocess.run([BIN / "swarm", "why", receipt])
    print("\nThe receipt, checked offline:", flush=True)
    checked = subprocess.run([BIN / "swarm", "receipt", "verify", receipt])
    print(f"\n{receipt}")
    return asked.returncode if checked.returncode == 0 else EXIT_INVALID


def _swarm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / "swarm", *arguments], stdout=subprocess.PIPE, text=True)


def _explain_keep(swarm: LocalSwarm) -> None:
    processes = " ".join(str(one.process.pid) for one in swarm.members if one.process)
    print(f"\nThe daemons go on. Ask again:   {BIN}/swarm ask --socket ", end="", file=sys.stderr)
    print(f"{swarm.members[0].socket} QUESTION", file=sys.stderr)
    print(f"Stop them:   kill {processes}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
