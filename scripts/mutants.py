"""Do the tests of the ledger have teeth? Seeds one bug after the other and sees which test fails.

Mutation testing (DeMillo, Lipton and Sayward 1978) with bugs chosen by hand: each is a rule of the
ledger left out or turned round, which no replica may do without a test to notice it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from mutations import MUTATIONS, Mutation

ROOT: Final = Path(__file__).resolve().parent.parent
COPIED: Final = ("protocol", "swarm", "tests", "pyproject.toml")
TESTS: Final = tuple(
    f"tests/{name}.py"
    for name in (
        "protocol/test_ledger",
        "swarm/ledger/test_ranking",
        "swarm/ledger/test_chain",
        "swarm/ledger/test_replica",
        "swarm/ledger/test_state",
        "swarm/ledger/test_laws",
        "swarm/ledger/test_digests",
        "swarm/ledger/test_guard",
        "swarm/ledger/test_admission",
        "swarm/ledger/test_sync",
        "swarm/ledger/test_fuzz_ledger",
    )
)
"""The quick and telling ones first: the first that fails ends a run."""
LIMIT_S: Final = 300.0
"""For one run. A mutant that hangs is noticed, too."""
MEMORY_BYTES: Final = 4 << 30
_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a mutant.

    Attributes:
        killed_by: the test that failed, or what else happened; empty where it survived.
        seconds: until then.
    """

    name: str
    killed_by: str
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them; 1 where one survives."""
    parser = argparse.ArgumentParser(prog="scripts/mutants", description=__doc__)
    names = [one.name for one in MUTATIONS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help="not all of them")
    parser.add_argument("--tests", nargs="+", default=TESTS, metavar="PATH", help="not the usual")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--list", action="store_true", help="their names, and no more")
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(names))
        return 0
    chosen = [one for one in MUTATIONS if options.only is None or one.name in options.only]
    outcomes = list(_report(chosen, options.tests, options.json))
    alive = [one.name for one in outcomes if not one.killed_by]
    if options.json:
        print(json.dumps([asdict(one) for one in outcomes], indent=1))
    else:
        print(f"{len(outcomes) - len(alive)} of {len(outcomes)} killed", *alive, sep="\n  alive: ")
    return 1 if alive else 0


def _report(chosen: Sequence[Mutation], tests: Sequence[str], quiet: bool) -> Iterator[Outcome]:
    """The outcome of each, told on the way."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder)
        for name in COPIED:
            _copy(ROOT / name, copy / name)
        sound = _tried("none", copy, tests)
        if sound.killed_by:
            sys.exit(f"mutants: nothing is broken, and {sound.killed_by} fails")
        for done, one in enumerate(chosen, start=1):
            path = copy / one.file
            text = path.read_text()
            path.write_text(one.applied(text))
            outcome = _tried(one.name, copy, tests)
            path.write_text(text)
            if not quiet:
                told = outcome.killed_by or "ALIVE"
                print(f"{done:3}/{len(chosen)}  {outcome.seconds:5.1f} s  {one.name}: {told}")
                sys.stdout.flush()
            yield outcome


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _tried(name: str, copy: Path, tests: Sequence[str]) -> Outcome:
    """Run ``tests`` in ``copy`` until one fails."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no"]
    command += ["-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    began = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            preexec_fn=_bound,
        )
    except subprocess.TimeoutExpired:
        return Outcome(name, f"no end within {LIMIT_S:.0f} s", LIMIT_S)
    seconds = round(time.monotonic() - began, 1)
    if not done.returncode:
        return Outcome(name, "", seconds)
    failed = _FAILED.search(done.stdout)
    killed_by = failed[1] if failed else f"exit {done.returncode}: {done.stdout[-300:]}"
    return Outcome(name, killed_by.removeprefix("tests/"), seconds)


def _bound() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    os.nice(10)


if __name__ == "__main__":
    sys.exit(main())
