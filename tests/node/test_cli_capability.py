"""`swarm capability`, `calibrate`, `grade` and the terms of `ask`."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from node.cli.main import main
from node.control import Control
from node.rpc_server import Handler, Notify
from protocol import errors, limits, methods
from protocol.errors import (
    NoPeersError,
    ReceiptError,
    StoreError,
    UngradableError,
    UnknownPeerError,
    UnknownRoundError,
)
from protocol.ids import PeerId, peer_text
from protocol.ledger import Profile
from protocol.messages import Model
from protocol.methods import AskId, AskParams, Progress
from swarm.capability import report
from swarm.evidence import Book
from swarm.registry import Registry
from swarm.trial import Trial
from tests.fakes.own_log import NOTHING
from tests.node.daemons import serving, short_directory
from tests.node.test_cli import HOSTILE, ROUND, is_harmless, lines, result
from tests.swarm.trials import mark, trial, tried
from tests.swarm.virtual import signer


@dataclass
class Done:
    """A command that has ended."""

    returncode: int
    stdout: bytes
    stderr: bytes


def swarm(*words: str) -> Done:
    """Run the command in this process."""
    out, err = io.BytesIO(), io.BytesIO()
    streams = [io.TextIOWrapper(one, encoding="utf-8", write_through=True) for one in (out, err)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            code = main(words)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


NAMES = ("g0", "g1", "g2", "g3")


def peer(name: str) -> PeerId:
    return signer(name).peer


def book() -> Book:
    """Four good peers on a topic, one that lies, one that claims a hostile model."""
    known = Book([tried({**dict.fromkeys(NAMES, (6, 6)), "bad": (0, 6)}) for _ in range(14)])
    known.add(trial(mark("odd", (1, 2), model=HOSTILE * 20), topic="words\n" + HOSTILE))
    return known


class Daemon:
    """Handlers with scripted answers, and what they were asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.fails: Exception | None = None
        self.answer: object = None

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "ask": self._ask,
            "grade": self._grade,
            "calibrate": self._calibrate,
            "capability": self._capability,
        }

    def _noted(self, params: object) -> None:
        self.asked.append(params)
        if self.fails is not None:
            raise self.fails

    async def _ask(self, params: AskParams, notify: Notify) -> object:
        self._noted(params)
        notify(Progress(AskId("q"), {"kind": "accepted", "ask": "q"}))
        return result()

    async def _grade(self, params: methods.GradeParams, notify: Notify) -> object:
        self._noted(params)
        return self.answer or methods.Graded(ROUND, "add", params.right, 4, 12.5)

    async def _calibrate(self, params: methods.CalibrateParams, notify: Notify) -> object:
        self._noted(params)
        for event in (
            {"kind": "calibrating", "rounds": params.rounds},
            {"kind": "calibrated", "number": 1, "topic": "add", "right": 2, "answers": 5},
            {"kind": "failed", "number": 2},
            {"kind": "calibrated", "number": 3, "topic": "", "right": 0, "answers": 4},
            {"kind": "calibrated", "topic": "x" + HOSTILE, "right": "no number"},
            {"kind": "something new"},
        ):
            notify(Progress(AskId(""), event))
        return self.answer or methods.Calibrated(2, 1, 1, 2, 40, 3, 4, 30)

    async def _capability(self, params: methods.CapabilityParams, notify: Notify) -> object:
        self._noted(params)
        if self.answer is not None:
            return self.answer
        here = [peer(name) for name in (*NAMES, "bad", "odd", "new")]
        found = report(book(), here, params.topic or "", {peer("bad")})
        if params.peer is not None:
            found["peers"] = [one for one in found["peers"] if one["peer"].endswith(params.peer)]
        return found


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        yield path


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
def path(daemon: Daemon, directory: Path) -> Iterator[str]:
    with serving(directory, daemon.handlers()) as found:
        yield str(found)


# --- ask ------------------------------------------------------------------------------------------


def test_the_terms_of_a_question_reach_the_daemon(daemon: Daemon, path: str) -> None:
    done = swarm(
        "ask", "?", "--peers", "5", "--max-tokens", "64", "--energy", "2.5", "--socket", path
    )
    assert (done.returncode, done.stdout) == (0, b"391\n")
    swarm("ask", "?", "--peers", "1", "--socket", path)
    assert daemon.asked == [
        AskParams("?", None, None, 5, 64, 2.5),
        AskParams("?", peers=1),
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--peers", "0"), "1 or more"),
        (("--peers", "two"), "invalid"),
        (("--peers", "49"), "<= 48"),
        (("--peers", "2", "--min-answers", "3"), "fewer peers"),
        (("--max-tokens", "0"), "1 or more"),
        (("--max-tokens", "5000"), "<= 4096"),
        (("--energy", "0"), "more than 0"),
        (("--energy", "-1"), "more than 0"),
        (("--energy", "nan"), "more than 0"),
        (("--energy", "1e10"), "more than 0"),
    ],
)
def test_terms_out_of_bounds_are_wrong_usage(
    daemon: Daemon, path: str, words: tuple[str, ...], says: str
) -> None:
    done = swarm("ask", "?", *words, "--socket", path)
    assert (done.returncode, done.stdout) == (errors.EXIT_USAGE, b"")
    assert says in done.stderr.decode()
    assert daemon.asked == []


def test_without_enough_peers_the_reasons_are_told(daemon: Daemon, path: str) -> None:
    daemon.fails = NoPeersError("1 of the 2 are able. abcd: a proof excludes it" + HOSTILE)
    done = swarm("ask", "?", "--socket", path)
    assert done.returncode == errors.EXIT_NO_PEERS
    assert b"a proof excludes it" in done.stderr
    assert is_harmless(done.stderr)


# --- capability -----------------------------------------------------------------------------------


def test_the_table_of_all_peers(daemon: Daemon, path: str) -> None:
    done = swarm("capability", "--topic", "sums", "--socket", path)
    assert (done.returncode, done.stderr) == (0, b"")
    first, heads, *rows = lines(done.stdout)
    assert first == "15 graded rounds; on sums the rule is weighted, without a confidence."
    assert heads.split()[:5] == ["PEER", "STATE", "TRIALS", "ANSWERS", "PAIRS"]
    by_peer = {row.split()[0]: row for row in rows}
    assert len(by_peer) == len(rows) == 7
    good = by_peer[peer_text(peer("g0"))[-8:]]
    assert good.split()[1:3] == ["proven", "14"]
    assert "100% of" in good
    assert by_peer[peer_text(peer("bad"))[-8:]].split()[1] == "excluded"
    assert by_peer[peer_text(peer("new"))[-8:]].split()[1:3] == ["newcomer", "0"]
    assert daemon.asked == [methods.CapabilityParams(None, "sums")]


def test_without_a_topic_it_is_of_unknown_ones(daemon: Daemon, path: str) -> None:
    done = swarm("capability", "--socket", path)
    assert lines(done.stdout)[0].startswith("15 graded rounds; on an unknown topic the rule is equ")
    assert daemon.asked == [methods.CapabilityParams(None, None)]


def test_all_of_one_peer(daemon: Daemon, path: str) -> None:
    name = peer_text(peer("g0"))
    done = swarm("capability", name[-8:], "--topic", "sums", "--socket", path)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    assert f"\n{name}  proven, model model\n" in text
    assert "  By its counts.\n" in text
    assert "admission: admitted after" in text
    assert "SAYS FROM" in text
    assert "TOPIC  ROUNDS" in text
    curve = [row.split() for row in text.splitlines() if row.startswith(("50%", "97%"))]
    assert [row[0] for row in curve] == ["50%", "97%"]
    assert curve[1][1:3] == ["100%", "of"]
    assert daemon.asked == [methods.CapabilityParams(name[-8:], "sums")]


def test_what_a_peer_claims_is_made_harmless(path: str) -> None:
    name = peer_text(peer("odd"))
    for words in ((), (name[-8:],), (name[-8:], "--topic", "x\x1b[31m")):
        done = swarm("capability", *words, "--socket", path)
        assert done.returncode == 0
        assert is_harmless(done.stdout)
    assert "words" in done.stdout.decode()


def test_the_report_as_json(path: str) -> None:
    done = swarm("capability", "--topic", "sums", "--json", "--socket", path)
    assert done.stdout.isascii()
    found = json.loads(done.stdout)
    here = [peer(name) for name in (*NAMES, "bad", "odd", "new")]
    assert found == report(book(), here, "sums", {peer("bad")})


def test_a_peer_that_is_not_known(daemon: Daemon, path: str) -> None:
    daemon.fails = UnknownPeerError("0 known peers are called zzzz.")
    done = swarm("capability", "zzzz", "--socket", path)
    assert (done.returncode, done.stdout) == (errors.EXIT_USAGE, b"")
    assert b"0 known peers are called zzzz." in done.stderr


@pytest.mark.parametrize("words", [("abc",), ("x" * 65,), ("--topic", "x" * 257)])
def test_names_out_of_bounds_are_wrong_usage(
    daemon: Daemon, path: str, words: tuple[str, ...]
) -> None:
    done = swarm("capability", *words, "--socket", path)
    assert (done.returncode, done.stdout) == (errors.EXIT_USAGE, b"")
    assert daemon.asked == []


def test_nobody_is_known_yet(daemon: Daemon, path: str) -> None:
    daemon.answer = report(Book(), [])
    done = swarm("capability", "--socket", path)
    assert done.returncode == 0
    assert lines(done.stdout)[0].startswith("0 graded rounds; on an unknown topic the rule is unc")


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"peers": 3, "topic": 7, "rule": None},
        {"peers": [{}, {"peer": 1, "why": "x", "curve": 2, "answers": [], "topics": []}]},
        {"peers": [{"why": [1, HOSTILE], "topics": {"t": None}, "curve": [{}, 3]}]},
        {"peers": [{"topics": {"t": {"answers": [1, 2, 3], "pairs": "x"}}, "test": 3}]},
        {"peers": [3]},
        {"peers": [{"answers": {"right": "x", "total": []}, "last_at": "now", "weight": None}]},
        {"peers": [{"topics": {"t": {"answers": ["a", "b"]}}}]},
        [],
        "text",
    ],
    ids=range(10),
)
@pytest.mark.parametrize("words", [(), ("abcd",)])
def test_a_daemon_of_another_version_is_no_traceback(
    daemon: Daemon, path: str, answer: object, words: tuple[str, ...]
) -> None:
    daemon.answer = answer
    done = swarm("capability", *words, "--socket", path)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert b"fault in swarm" not in done.stderr
    assert is_harmless(done.stdout)


# --- calibrate ------------------------------------------------------------------------------------


def test_calibration_goes_on_stderr_and_its_sum_on_stdout(daemon: Daemon, path: str) -> None:
    done = swarm("calibrate", "--rounds", "3", "--socket", path)
    assert done.returncode == 0
    assert done.stdout.decode() == (
        "2 rounds, 1 failed: 1 told peers apart, the swarm was right in 2. "
        "3 peers are admitted, 40 rounds are known.\n"
        "It takes 4 admitted, or all that were not found out, for weights to differ, and 30 rounds "
        "with weights for a confidence.\n"
    )
    notes = lines(done.stderr)
    assert notes[:3] == [
        "swarm: 1/3 add: 2 of 5 right",
        "swarm: 2/3 failed",
        "swarm: 3/3 unknown topic: 0 of 4 right",
    ]
    assert len(notes) == 4
    assert is_harmless(done.stderr)
    assert daemon.asked == [methods.CalibrateParams(3)]


def test_calibration_as_json(daemon: Daemon, path: str) -> None:
    daemon.answer = methods.Calibrated(30, 0, 20, 25, 30, 4, 4, 30)
    done = swarm("calibrate", "--json", "--socket", path)
    assert json.loads(done.stdout) == {
        "rounds": 30,
        "failed": 0,
        "informative": 20,
        "chosen": 25,
        "trials": 30,
        "admitted": 4,
        "quorum": 4,
        "confidence_rounds": 30,
    }
    assert daemon.asked == [methods.CalibrateParams(120)]


def test_nothing_failed_is_not_mentioned(daemon: Daemon, path: str) -> None:
    daemon.answer = methods.Calibrated(30, 0, 20, 25, 30, 4, 4, 30)
    assert swarm("calibrate", "--socket", path).stdout.startswith(b"30 rounds: 20 told")


def test_calibration_without_peers(daemon: Daemon, path: str) -> None:
    daemon.fails = NoPeersError("1 are connected; to calibrate takes 3.")
    done = swarm("calibrate", "--socket", path)
    assert (done.returncode, done.stdout) == (errors.EXIT_NO_PEERS, b"")
    assert b"to calibrate takes 3" in done.stderr


@pytest.mark.parametrize("rounds", ["0", "-1", "many", str(limits.CALIBRATE_ROUNDS + 1)])
def test_rounds_out_of_bounds_are_wrong_usage(daemon: Daemon, path: str, rounds: str) -> None:
    done = swarm("calibrate", "--rounds", rounds, "--socket", path)
    assert (done.returncode, done.stdout) == (errors.EXIT_USAGE, b"")
    assert daemon.asked == []


# --- grade ----------------------------------------------------------------------------------------


def test_a_grade(daemon: Daemon, path: str) -> None:
    done = swarm("grade", ROUND[:8], "wrong", "--answer", "13 apples", "--socket", path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == (
        "Round abababab counts as wrong on add: evidence on 4 answers and 12.5 verdicts.\n"
    )
    daemon.answer = methods.Graded(ROUND, "", True, 1, 0.0)
    done = swarm("grade", ROUND, "right", "--socket", path)
    assert b"counts as right on an unknown topic: evidence on 1 answers and 0 ver" in done.stdout
    assert daemon.asked == [
        methods.GradeParams(ROUND[:8], False, "13 apples"),
        methods.GradeParams(ROUND, True, None),
    ]


def test_a_grade_as_json(path: str) -> None:
    done = swarm("grade", ROUND, "right", "--json", "--socket", path)
    assert json.loads(done.stdout) == {
        "round": ROUND,
        "topic": "add",
        "right": True,
        "peers": 4,
        "pairs": 12.5,
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnknownRoundError("None begins with abab."), errors.EXIT_USAGE),
        (UngradableError("The swarm gave no answer; say which is right with --answer."), 2),
        (ReceiptError("Its opening is detached."), errors.EXIT_INVALID),
        (StoreError("The disk is full."), errors.EXIT_DAEMON),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_grade_that_is_not_taken(
    daemon: Daemon, path: str, error: errors.SwarmError, code: int
) -> None:
    daemon.fails = error
    done = swarm("grade", "abab", "right", "--socket", path)
    assert (done.returncode, done.stdout) == (code, b"")
    (only,) = lines(done.stderr)
    assert only == f"swarm: {error.user_text()}"


@pytest.mark.parametrize(
    "words",
    [
        ("abab",),
        ("abab", "perhaps"),
        ("aba", "right"),
        ("xyzw", "right"),
        ("abab", "right", "--answer", ""),
        ("abab", "right", "--answer", "x" * 20_000),
    ],
)
def test_a_grade_that_is_none_is_wrong_usage(
    daemon: Daemon, path: str, words: tuple[str, ...]
) -> None:
    done = swarm("grade", *words, "--socket", path)
    assert (done.returncode, done.stdout) == (errors.EXIT_USAGE, b"")
    assert daemon.asked == []


# --- no daemon ------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("capability",), ("calibrate",), ("grade", "abab", "right")])
def test_without_a_daemon(words: tuple[str, ...], tmp_path: Path) -> None:
    done = swarm(*words, "--socket", str(tmp_path / "none.sock"))
    assert (done.returncode, done.stdout) == (errors.EXIT_NO_DAEMON, b"")
    assert b"No swarmd is listening" in done.stderr


# --- how the daemon finds a peer ------------------------------------------------------------------


MODEL = Model("m", "f", "")


class Known:
    """What of a node the capability handler reads."""

    def __init__(self, trials: list[Trial], *here: str) -> None:
        self.book = Book(trials)
        self.registry = Registry(peer("own"), Profile(MODEL, 0, 0, serves=False))
        self.struck = frozenset({peer("bad")})
        for name in here:
            profile = Profile(MODEL, 0, 0, serves=name != "idle")
            self.registry.connected(peer(name), "")
            self.registry.learn(peer(name), replace(NOTHING, profile=profile))

    def excluded(self) -> frozenset[PeerId]:
        return self.struck

    async def ask(self, name: str | None = None, topic: str | None = None) -> dict[str, Any]:
        control = object.__new__(Control)
        anything: Any = self
        control._knowledge = control._conduct = anything
        control._registry = self.registry
        return await control._capability(
            methods.CapabilityParams(name, topic), lambda progress: None
        )


async def test_the_report_is_of_those_tried_and_those_here() -> None:
    known = Known([tried(dict.fromkeys(NAMES, (6, 6)))] * 12, "g0", "new", "idle")
    found = await known.ask(topic="sums")
    assert [one["peer"] for one in found["peers"]] == [
        peer_text(one) for one in sorted(peer(name) for name in (*NAMES, "new"))
    ]
    assert found["topic"] == "sums"
    assert (await known.ask())["topic"] == ""


async def test_a_peer_is_found_by_either_end_and_weighed_among_all() -> None:
    known = Known([tried(dict.fromkeys(NAMES, (6, 6)))] * 12, "new")
    whole = {one["peer"]: one for one in (await known.ask(topic="sums"))["peers"]}
    for name in (*NAMES, "new"):
        text = peer_text(peer(name))
        for part in (text, text[-8:], text[:20]):
            (one,) = (await known.ask(part, "sums"))["peers"]
            assert one == whole[text]


@pytest.mark.parametrize(("part", "count"), [("12D3", 5), ("nobody", 0), ("12D3KooW", 5)])
async def test_a_part_that_fits_none_or_several_names_no_peer(part: str, count: int) -> None:
    known = Known([tried(dict.fromkeys(NAMES, (6, 6)))] * 12, "new")
    said = f"{count} peers begin or end" if count else "None begins or ends"
    with pytest.raises(UnknownPeerError, match=f"{said} with {part}"):
        await known.ask(part)


async def test_whom_a_proof_excludes_is_shown_as_such() -> None:
    known = Known([tried({"bad": (6, 6)})] * 12)
    (one,) = (await known.ask(topic="sums"))["peers"]
    assert (one["struck"], one["weight"]) == (True, 0.0)


async def test_who_has_forked_is_shown_as_excluded() -> None:
    known = Known([tried({"g0": (6, 6)})] * 12)
    assert not (await known.ask(topic="sums"))["peers"][0]["struck"]
    known.registry.learn(peer("g0"), replace(NOTHING, forked=True))
    (one,) = (await known.ask(topic="sums"))["peers"]
    assert (one["struck"], one["weight"]) == (True, 0.0)
