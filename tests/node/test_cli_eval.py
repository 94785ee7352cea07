"""`swarm eval`: what it prints, and what it says to those who use it wrongly."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.cli import evaluate, progress
from node.cli.main import main
from swarm.scoreboard import ROWS
from tests.node.daemons import WAIT_S
from tests.swarm.recordings import Rows, lines, scores, votes

ROOT = Path(__file__).parents[2]
SMALL = ("--n", "5", "--k", "2", "--rounds", "12", "--seed", "3")


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["eval", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def _text(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["eval", *words]) == 0
    return capsys.readouterr().out


def _refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["eval", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("swarm: ")
    return printed.err


def _write(directory: Path, **files: Rows) -> Path:
    for name, rows in files.items():
        (directory / f"{name}.jsonl").write_bytes(b"".join(lines(rows)))
    return directory


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    answers, judgments = scores(24)
    return _write(tmp_path, answers=answers, judgments=judgments)


def _check_table(found: dict[str, Any]) -> None:
    assert list(found["rules"]) == list(ROWS)
    for row in found["rules"].values():
        assert 0.0 <= row["accuracy"] <= 1.0
        assert row["se"] >= 0.0
        assert row["low"] <= row["accuracy"] <= row["high"]
    for other in ("plurality", "weighted-plurality", "uniform-bt"):
        gain = found["paired"][other]
        assert gain["low"] <= gain["difference"] <= gain["high"]
        assert gain["difference"] == pytest.approx(
            found["rules"]["consensus"]["accuracy"] - found["rules"][other]["accuracy"]
        )
    assert set(found["p_at_least_90"]) == {"share", "accuracy"}


# --- the simulated world ------------------------------------------------------------------------


def test_fresh_peers_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, "world", *SMALL)
    _check_table(found)
    assert found["rounds"] == 12
    assert 0.0 <= found["ece"] <= 1.0
    assert found["error_correlation"] is not None
    named = {name: found[name] for name in ("world", "online", "n", "k", "seed", "attack")}
    assert named == {
        "world": "A", "online": False, "n": 5, "k": 2, "seed": 3, "attack": "none",
    }  # fmt: skip


def test_one_swarm_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, "world", "--online", "--attack", "collude:.4", *SMALL)
    _check_table(found)
    assert (found["rounds"], found["attack"], found["online"]) == (6, "collude:0.4", True)


def test_the_same_words_give_the_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("world", "--online", "--attack", "camouflage:.4", *SMALL)
    assert _json(capsys, *words) == _json(capsys, *words)


def test_the_seed_of_a_cell_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, "world", "--n", "4", "--k", "2", "--rounds", "2")
    assert found["seed"] == 31000 + 4000 + 2


def test_the_table_names_its_assumptions(capsys: pytest.CaptureFixture[str]) -> None:
    shown = _text(capsys, "world", "--world", "C", "--attack", "leak:.4", *SMALL)
    for words in (
        "World C: poor, biased judges", "5 peers, 2 pairs a judge", "Seed 3",
        "leak:0.4, a ring that knows", "errors on one pair correlate by", "Confidence:",
        *ROWS,
    ):  # fmt: skip
        assert words in " ".join(shown.split())


def test_a_swarm_without_calibration_has_no_confidence(capsys: pytest.CaptureFixture[str]) -> None:
    assert "No confidence" in _text(capsys, "world", "--online", *SMALL)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--attack", "flood:.5"), "'flood' is no attack; there are none, collude"),
        (("--attack", "collude:2"), "a fraction of 0 to 0.9"),
        (("--attack", "sybil:.5"), "a count of 1 to 200"),
        (("--n", "1"), "--n takes 2 to 200"),
        (("--n", "100000"), "--n takes 2 to 200"),
        (("--k", "501"), "--k takes 1 to 500"),
        (("--rounds", "1"), "--rounds takes 2 to 200000"),
    ],
)
def test_a_world_that_cannot_be(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert said in _refused(capsys, "world", *words)


@pytest.mark.parametrize(
    "words",
    [("--world", "F"), ("--n", "x"), ("--seed", "-1"), ("--rounds", "0"), ("--seed", str(2**63))],
)
def test_words_that_are_no_world_are_refused_by_the_parser(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["eval", "world", *words])
    assert left.value.code == 2
    assert words[0] in capsys.readouterr().err


# --- recorded data ------------------------------------------------------------------------------


def test_recorded_as_json(capsys: pytest.CaptureFixture[str], scored: Path) -> None:
    found = _json(capsys, "recorded", str(scored))
    _check_table(found)
    assert found["rounds"] == 24
    assert found["judges"] == ["ada", "bob", "cyd", "dan", "eve", "fay", "gil", "hal"]
    assert found["inverted"] == []


def test_some_of_it(capsys: pytest.CaptureFixture[str], scored: Path) -> None:
    words = ("recorded", str(scored), "--limit", "10", "--judges", "5")
    found = _json(capsys, *words, "--invert", "2")
    assert (found["rounds"], len(found["judges"])) == (10, 5)
    assert found["inverted"] == ["ada", "bob"]
    assert found == _json(capsys, *words, "--invert", "ada, bob")
    assert found["rules"] != _json(capsys, *words)["rules"]


def test_the_table_names_the_liars(capsys: pytest.CaptureFixture[str], scored: Path) -> None:
    shown = _text(capsys, "recorded", str(scored), "--invert", "eve,bob")
    assert "Of these lie, with every verdict: eve, bob." in shown


def test_votes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    answers, cast, labels = votes(12)
    directory = _write(tmp_path, answers=answers, votes=cast, human=labels)
    found = _json(capsys, "recorded", str(directory))
    _check_table(found)
    assert found["rules"]["plurality"]["accuracy"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--invert", "9"), "--invert 9: there are 8 judges"),
        (("--invert", "zoe"), "zoe is no judge here; there are ada, bob"),
        (("--invert", ","), "nobody is no judge here"),
        (("--judges", "2", "--invert", "hal"), "hal is no judge here; there are ada, bob"),
        (("--mode", "single"), "none of mode 'single', but of triple"),
    ],
)
def test_judges_and_modes_that_are_not_there(
    capsys: pytest.CaptureFixture[str], scored: Path, words: tuple[str, ...], said: str
) -> None:
    assert said in _refused(capsys, "recorded", str(scored), *words)


def test_a_broken_line_is_named(capsys: pytest.CaptureFixture[str], scored: Path) -> None:
    with (scored / "judgments.jsonl").open("ab") as file:
        file.write(b'{"idx": 0, "scores": [1, \x1b[31m\n')
    said = _refused(capsys, "recorded", str(scored))
    assert f"{scored}/judgments.jsonl:193: " in said
    assert "\x1b" not in said


def test_no_data(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "holds no recorded judgements" in _refused(capsys, "recorded", str(tmp_path))
    assert "holds no recorded" in _refused(capsys, "recorded", str(tmp_path / "nowhere"))
    _write(tmp_path, answers=scores(1)[0])
    assert "holds no recorded" in _refused(capsys, "recorded", str(tmp_path))


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(evaluate, "LINE_BYTES", 200)
    monkeypatch.setattr(evaluate, "FILE_BYTES", 100_000)
    return


def test_reading_is_bounded(capsys: pytest.CaptureFixture[str], scored: Path, narrow: None) -> None:
    del narrow
    assert "answers.jsonl:1: over 200 bytes on one line" in _refused(
        capsys, "recorded", str(scored)
    )
    (scored / "answers.jsonl").write_bytes(b" " * 100_001)
    assert "answers.jsonl: it has more than 100000 bytes" in _refused(
        capsys, "recorded", str(scored)
    )


# --- stake and admission ------------------------------------------------------------------------


def test_stake(capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, "stake", "--honest", "9")
    assert {one["honest"] for one in found["terms"]} == {9}
    assert all(len(one["needed"]) == len(found["gains"]) for one in found["terms"])
    shown = _text(capsys, "stake")
    assert "15 honest peers" in shown
    assert "HARMLESS GAIN" in shown
    assert "--honest takes" in _refused(capsys, "stake", "--honest", "1000")


def test_admission(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate.admitting, "GAPS", (0.0, 2.0))
    monkeypatch.setattr(evaluate.admitting, "AFTER_SWAP", 40)
    monkeypatch.setattr(evaluate.admitting, "skill_of", lambda *_: -0.2)
    found = _json(capsys, "admission", "--judges", "12")
    assert [one["name"] for one in found["tests"]] == ["by a coin", "right on 70 %", "typical"]
    assert found["tests"][0]["admitted"] < 0.1 < 0.9 < found["tests"][2]["admitted"]
    equal, weaker = found["swaps"]
    assert equal["undetectable"]
    assert equal["rounds"] is None
    assert weaker["rounds"] == weaker["questions"] / found["calibration_rate"]
    shown = _text(capsys, "admission", "--judges", "12")
    assert "undetectable" in shown


# --- progress, and help -------------------------------------------------------------------------


def test_progress_goes_to_stderr_and_only_if_it_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["eval", "world", *SMALL]) == 0
    quiet = capsys.readouterr()
    assert quiet.err == ""
    seconds = iter(range(10_000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(seconds)))
    assert main(["eval", "world", *SMALL]) == 0
    slow = capsys.readouterr()
    assert slow.out == quiet.out
    assert slow.err == "2 of 12\n12 of 12\n"


def test_help_loads_no_numbers() -> None:
    code = (
        "import sys; from node.cli.main import main\n"
        "try: main(['eval', 'world', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'numpy', 'swarm.rules', 'trio'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=WAIT_S
    )
    assert done.returncode == 0
    assert b"collude" in done.stdout


def test_what_an_early_stop_saves(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "stop", "--n", "6", "--rounds", "10", "--seed", "1"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["schedules"]) == {"everything", "full", "adaptive"}
    assert (found["rounds"], found["world"], found["stop"]) == (10, "A", 0.8)
    assert main(words) == 0
    assert "times fewer" in capsys.readouterr().out
    assert main(["eval", "stop", "--n", "49", "--rounds", "10"]) == 2
