"""The bugs of `scripts/mutants` are still bugs: what each breaks is there, once.

Whether the tests notice them takes minutes: `scripts/mutants`.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MUTANTS = ROOT / "scripts" / "mutants.py"
sys.path.append(str(ROOT / "scripts"))

from mutants import COPIED, TESTS, main  # noqa: E402
from mutations import MUTATIONS, Mutation  # noqa: E402


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)
def test_a_mutation_applies(mutation: Mutation) -> None:
    text = (ROOT / mutation.file).read_text()
    broken = mutation.applied(text)
    assert broken != text
    ast.parse(broken)


def test_a_mutation_whose_place_has_gone_says_so() -> None:
    mutation = Mutation("gone", "x", "old", "new")
    assert mutation.applied("an old text") == "an new text"
    for text in ("", "old old"):
        with pytest.raises(ValueError, match="gone"):
            mutation.applied(text)


def test_names_are_unique() -> None:
    names = [one.name for one in MUTATIONS]
    assert len(names) == len(set(names)) > 60
    assert len({(one.file, one.old, one.new) for one in MUTATIONS}) == len(names)


def test_what_is_run_is_there() -> None:
    for name in (*COPIED, *TESTS):
        assert (ROOT / name).exists()


def test_the_names_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [one.name for one in MUTATIONS]


def test_a_bug_is_noticed_by_the_tests_that_are_about_it_alone() -> None:
    test = "swarm/ledger/test_chain.py::test_a_proof_that_convicts_nobody_is_refused"
    only = ["evidence is believed", "any bytes are a certificate"]
    done = subprocess.run(
        [
            sys.executable,
            "scripts/mutants.py",
            "--json",
            "--only",
            *only,
            "--tests",
            f"tests/{test}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    killed_by = {row["name"]: row["killed_by"] for row in json.loads(done.stdout)}
    assert killed_by == dict(zip(only, [test, ""], strict=True))


def test_where_nothing_is_broken_no_test_may_fail(tmp_path: Path) -> None:
    """Or each bug would seem to be noticed."""
    test = tmp_path / "test_failing.py"
    test.write_text("def test_it() -> None:\n    raise AssertionError\n")
    with pytest.raises(SystemExit, match="nothing is broken"):
        main(["--only", MUTATIONS[0].name, "--tests", str(test)])
