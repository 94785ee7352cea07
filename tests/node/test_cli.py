"""The `swarm` command as a process: its output, its exit codes, its manners."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from node.rpc_server import Handler, Notify
from protocol import errors, limits, methods
from protocol.errors import NoPeersError, UnknownRoundError
from protocol.methods import AskId, AskParams, Progress
from tests.node.daemons import WAIT_S, saying, serving, short_directory

ROOT = Path(__file__).parents[2]
HOSTILE = "\x1b]0;owned\x07\x1b[31m\u202e"
ROUND = "ab" * 32
PEERS = [f"12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6n{name}" for name in ("AAA", "BBB")]
FAR = PEERS[0][:-3] + "CCC"
NOON = 1_710_504_000
"""Of a day, in UTC: the same day almost everywhere."""


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "node.cli.main", *words]


def swarm(*words: str, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command with nothing in its environment but what is given."""
    return subprocess.run(
        command(*words), cwd=ROOT, env=environ, input=stdin, capture_output=True, timeout=WAIT_S
    )


def result(outcome: str = "answer", **changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "answer": "391" if outcome == "answer" else None,
        "confidence": None,
        "calibrated": False,
        "outcome": outcome,
        "share": 0.88,
        "answers": [{"peer": PEERS[0], "model": "m", "answer": "391", "class": "A", "share": 0.9}],
        "plurality": "391",
        "unweighted": "381",
        "missing": [{"peer": PEERS[1], "phase": "reveal", "kind": "late", "detail": HOSTILE}],
        "round": ROUND,
        "receipt": "/data/receipts/x.receipt",
        "timing": {"total_ms": 2100},
    }
    return whole | changes


EVENTS: list[dict[str, Any]] = [
    {
        "kind": "invited",
        "round": ROUND,
        "peers": [{"peer": peer, "model": "small" + HOSTILE} for peer in PEERS],
    },
    {"kind": "committed", "peer": PEERS[0]},
    {"kind": "declined", "peer": PEERS[1], "reason": "busy [bold]not markup[/bold]"},
    {"kind": "roster", "stage": 1, "peers": PEERS[:1]},
    {"kind": "revealed", "peer": PEERS[0], "answer": "391" + HOSTILE},
    {"kind": "classes", "classes": [{"label": "A", "answer": "391", "members": PEERS[:1]}]},
    {"kind": "ballot", "peer": PEERS[0], "wave": 0},
    {"kind": "scores", "scores": [{"label": "A", "answer": "391", "share": 0.88}]},
    {"kind": "fault", "peer": PEERS[1], "phase": "reveal", "fault": "late", "detail": ""},
    {"kind": "something new", "peer": 7},
    {"kind": "closed", "outcome": "answer"},
]


class Daemon:
    """Handlers with scripted answers, and what they were asked."""

    def __init__(self) -> None:
        self.result: object = result()
        self.asked: list[AskParams] = []
        self.cancelled: list[str] = []
        self.begun = threading.Event()
        self.signalled = threading.Event()
        self.hold = trio.Event()
        self.held = ""
        self.relayed = False
        self.forked = False
        self.health = "ok"
        self.sought: list[methods.FindParams] = []

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "ask": self._ask,
            "cancel": self._cancel,
            "status": self._status,
            "peers": self._peers,
            "doctor": self._doctor,
            "find": self._find,
            "history": self._history,
            "why": self._why,
            "config": self._config,
        }

    async def _ask(self, params: AskParams, notify: Notify) -> object:
        self.asked.append(params)
        self.begun.set()
        if self.held == "before":
            await trio.to_thread.run_sync(self.signalled.wait, WAIT_S)
        notify(Progress(AskId("q1"), {"kind": "accepted", "ask": "q1"}))
        if self.held:
            await self.hold.wait()
            raise errors.CancelledError
        if params.question == "nobody":
            raise NoPeersError("0 of 2.")
        for event in EVENTS:
            notify(Progress(AskId("q1"), event))
        return self.result

    async def _cancel(self, params: methods.CancelParams, notify: Notify) -> methods.Cancelled:
        self.cancelled.append(params.ask)
        self.hold.set()
        return methods.Cancelled(True)

    async def _status(self, params: methods.Nothing, notify: Notify) -> methods.Status:
        return methods.Status("1.0", PEERS[0], "public", 93784.0, ("/ip4/1.2.3.4/tcp/1",), "m")

    async def _peers(self, params: methods.PeersParams, notify: Notify) -> methods.Peers:
        way, why = ("relayed", "no hole" + HOSTILE) if self.relayed else ("direct", "")
        row = methods.PeerRow(
            PEERS[0], way, "/ip4/1.2.3.4/tcp/1", "m" + HOSTILE, "x", 12.3, 60.0, None, why,
            "loft" + HOSTILE, NOON, self.forked,
        )  # fmt: skip
        far = methods.PeerRow(FAR, "known", "/ip4/1.2.3.5/tcp/1", "n")
        return methods.Peers((row, methods.PeerRow(PEERS[1], "self"), *([far] * params.all)))

    async def _doctor(self, params: methods.Nothing, notify: Notify) -> methods.Doctor:
        findings = (
            methods.Finding("ok", "clock", "Within 0.1 s of the peers."),
            methods.Finding("warn", "reach", "Behind" + HOSTILE, "It is closed.", "use IPv6"),
        )
        return methods.Doctor(self.health, findings, refused={"handshake": 3})

    async def _find(self, params: methods.FindParams, notify: Notify) -> methods.Found:
        self.sought.append(params)
        if params.peer == PEERS[1]:
            return methods.Found(params.peer)
        address = "/ip4/1.2.3.4/tcp/1" + HOSTILE
        return methods.Found(params.peer, "dht", "public", (address,), "open", True)

    async def _history(self, params: methods.HistoryParams, notify: Notify) -> methods.History:
        row = methods.HistoryRow(
            AskId("q1"), "What\nis" + HOSTILE, "done", 1.0, 2.0, 1, ROUND, "answer", "391"
        )
        return methods.History((row,) * params.limit)

    async def _why(self, params: methods.WhyParams, notify: Notify) -> object:
        if not ROUND.startswith(params.round):
            raise UnknownRoundError(f"None begins with {params.round}.")
        return {
            "round": ROUND,
            "question": "What is 17 * 23?" + HOSTILE,
            "outcome": "answer",
            "classes": [
                {"label": "A", "answer": "391", "members": PEERS[:1], "score": 1.5, "share": 0.9},
                {"label": "B", "answer": "381", "members": PEERS[1:], "score": -1.5, "share": 0.1},
            ],
            "matrix": [[None, 0.93], [0.07, None]],
            "margin": 3.0,
            "judges": [
                {"peer": PEERS[0], "model": "m", "own": "A", "for_winner": 0.9, "abstained": 0},
                {"peer": PEERS[1], "model": "m", "own": "B", "for_winner": 0.2, "abstained": 1},
            ],
            "flip": {"ballots": 2, "to": "381"},
            "plurality": "391",
            "unweighted": "391",
        }

    async def _config(self, params: methods.Nothing, notify: Notify) -> methods.Settings:
        return methods.Settings((methods.SettingRow("threads", 4, "flag --threads"),))


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


def lines(output: bytes) -> list[str]:
    return output.decode().splitlines()


def is_harmless(output: bytes) -> bool:
    text = output.decode()
    return not set(text) & set(HOSTILE) - set("0;owned[31m]")


# --- help, usage, start -------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("--help",)])
def test_help_is_what_one_gets_without_arguments(words: tuple[str, ...]) -> None:
    done = swarm(*words)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"ask" in done.stdout
    assert b"Exit codes:" in done.stdout


@pytest.mark.parametrize("group", ["receipt", "config"])
def test_a_group_without_a_command_prints_its_help(group: str) -> None:
    done = swarm(group)
    assert (done.returncode, done.stderr) == (0, b"")
    assert f"usage: swarm {group}".encode() in done.stdout


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    done = swarm("--version")
    assert done.stdout.decode() == f"swarm {version('swarmd')}\n"


@pytest.mark.parametrize(
    "words",
    [
        ("--nonsense",),
        ("nonsense",),
        ("ask",),
        ("ask", "--nonsense", "?"),
        ("ask", "?", "--timeout", "soon"),
        ("ask", "?", "--min-answers", "1.5"),
        ("history", "--lim", "3"),
        ("why",),
        ("receipt", "verify"),
    ],
)
def test_wrong_usage_says_what_and_where_to_look(words: tuple[str, ...]) -> None:
    done = swarm(*words)
    assert (done.returncode, done.stdout) == (errors.EXIT_USAGE, b"")
    what, hint = lines(done.stderr)
    assert what.startswith("swarm: ")
    assert hint.startswith("Try `swarm")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("ask", " "), "empty"),
        (("why", "xyz!"), "round"),
        (("status", "--config", "/does/not/exist"), "/does/not/exist"),
        (("status", "--socket", "/" + "x" * 120), "at most 107"),
        (("receipt", "verify", "/does/not/exist"), "No such file"),
    ],
)
def test_arguments_out_of_bounds_are_wrong_usage(words: tuple[str, ...], says: str) -> None:
    done = swarm(*words)
    assert (done.returncode, done.stdout) == (errors.EXIT_USAGE, b"")
    (only,) = lines(done.stderr)
    assert only.startswith("swarm: ")
    assert says in only


HEAVY = ("trio", "libp2p", "torch", "msgspec", "rich", "nacl", "numpy", "dataclasses")


@pytest.mark.parametrize("words", ["--help", "ask --help", ""])
def test_help_imports_nothing_heavy(words: str) -> None:
    script = (
        "import sys\nfrom node.cli.main import main\n"
        "before = set(sys.modules)\n"
        f"try: main({words.split()!r})\nexcept SystemExit: pass\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={}, capture_output=True, check=True
    )
    assert done.stderr == b"[]\n"


def test_asking_through_a_pipe_imports_neither_loop_nor_display(path: str) -> None:
    script = (
        "import sys\nfrom node.cli.main import main\n"
        f"main(['ask', '?', '--socket', {path!r}])\n"
        "print(sorted({'trio', 'libp2p', 'torch', 'rich', 'nacl', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={}, capture_output=True, check=True
    )
    assert done.stdout == b"391\n[]\n"


# --- ask ------------------------------------------------------------------------------------------


def test_piped_the_answer_stands_alone(daemon: Daemon, path: str) -> None:
    done = swarm("ask", "What is 17 * 23?", "--socket", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"391\n", b"")
    assert daemon.asked == [AskParams("What is 17 * 23?")]


def test_the_question_may_come_in_words_or_on_stdin(daemon: Daemon, path: str) -> None:
    swarm("ask", "--timeout", "9.5", "--min-answers", "3", "--socket", path, "What", "is", "it?")
    swarm("ask", "-", "--socket", path, stdin="Wie heißt\ndas?\n".encode())
    swarm("ask", "--socket", path, "--", "-x?")
    assert daemon.asked == [
        AskParams("What is it?", 9.5, 3),
        AskParams("Wie heißt\ndas?"),
        AskParams("-x?"),
    ]


@pytest.mark.parametrize(
    ("stdin", "says"),
    [
        (b"", "length >= 1"),
        (b"\n", "length >= 1"),
        (b" \n", "empty"),
        (b"\xff", "UTF-8"),
        (b"x" * (limits.QUESTION_BYTES + 1), "at most"),
    ],
)
def test_a_useless_question_is_wrong_usage(daemon: Daemon, stdin: bytes, says: str) -> None:
    done = swarm("ask", "-", stdin=stdin)
    assert done.returncode == errors.EXIT_USAGE
    assert says in done.stderr.decode()
    assert daemon.asked == []


def test_an_argument_that_is_no_unicode_is_wrong_usage() -> None:
    done = subprocess.run(
        [*command("ask"), b"\xff"], cwd=ROOT, env={}, capture_output=True, timeout=WAIT_S
    )
    assert done.returncode == errors.EXIT_USAGE
    assert b"Traceback" not in done.stderr


def test_json_is_the_whole_result(daemon: Daemon, path: str) -> None:
    done = swarm("ask", "?", "--json", "--socket", path)
    assert json.loads(done.stdout) == daemon.result
    assert done.stdout.isascii()


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ("no-consensus", errors.EXIT_NO_CONSENSUS),
        ("partial", errors.EXIT_PARTIAL),
        ("none-right", errors.EXIT_NONE_RIGHT),
        ("cancelled", errors.EXIT_CANCELLED),
        ("of another version", errors.EXIT_DAEMON),
    ],
)
def test_each_outcome_has_its_exit_code(daemon: Daemon, path: str, outcome: str, code: int) -> None:
    daemon.result = result(outcome)
    done = swarm("ask", "?", "--socket", path)
    assert (done.returncode, done.stdout) == (code, b"")
    assert all(line.startswith("swarm: ") for line in lines(done.stderr))
    assert b"swarm why /data/receipts/x.receipt" in done.stderr


def test_the_daemon_s_exit_code_is_believed(daemon: Daemon, path: str) -> None:
    daemon.result = result("partial", exit_code=errors.EXIT_NO_PEERS)
    assert swarm("ask", "?", "--socket", path).returncode == errors.EXIT_NO_PEERS


def test_a_partial_answer_is_printed_and_called_so(daemon: Daemon, path: str) -> None:
    daemon.result = result("partial", answer="39")
    done = swarm("ask", "?", "--socket", path)
    assert (done.returncode, done.stdout) == (errors.EXIT_PARTIAL, b"39\n")
    assert b"Fewer peers answered" in done.stderr


@pytest.mark.parametrize("odd", [None, [], "text", 7, {}, {"outcome": 3, "answers": {}}])
def test_an_odd_result_is_no_traceback(daemon: Daemon, path: str, odd: object) -> None:
    daemon.result = odd
    done = swarm("ask", "?", "--socket", path)
    assert done.returncode == errors.EXIT_DAEMON
    assert b"Traceback" not in done.stderr


def test_errors_of_the_daemon_have_their_exit_codes(path: str) -> None:
    done = swarm("ask", "nobody", "--socket", path)
    assert (done.returncode, done.stdout) == (errors.EXIT_NO_PEERS, b"")
    (only,) = lines(done.stderr)
    assert only == f"swarm: {NoPeersError('0 of 2.').user_text()}"


@pytest.mark.parametrize("words", [("ask", "?"), ("status",), ("peers",), ("history",)])
def test_without_a_daemon_it_says_how_to_start_one(directory: Path, words: Any) -> None:
    done = swarm(*words, "--data-dir", str(directory))
    assert (done.returncode, done.stdout) == (errors.EXIT_NO_DAEMON, b"")
    (only,) = lines(done.stderr)
    assert "swarmd" in only


def test_a_daemon_that_dies_is_told(directory: Path) -> None:
    with saying(directory / "s"):
        done = swarm("ask", "?", "--socket", str(directory / "s"))
    assert done.returncode == errors.EXIT_DAEMON
    assert b"swarm history" in done.stderr


def test_the_socket_is_found_by_flag_environment_file_and_data_directory(
    directory: Path, path: str
) -> None:
    file = directory / "swarmd.toml"
    file.write_text(f'data_dir = "{directory}"')
    ways: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
        (("--socket", path), {}),
        (("--data-dir", str(directory)), {}),
        (("--config", str(file)), {}),
        ((), {"SWARMD_SOCKET": path}),
        ((), {"SWARMD_DATA_DIR": str(directory)}),
    )
    for words, environ in ways:
        assert swarm("status", *words, stdin=b"", **environ).returncode == 0


@pytest.mark.parametrize("held", ["before", "after"])
def test_ctrl_c_cancels_the_question(daemon: Daemon, path: str, held: str) -> None:
    daemon.held = held
    with subprocess.Popen(
        command("ask", "?", "--socket", path),
        cwd=ROOT,
        env={},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert daemon.begun.wait(WAIT_S)
        process.send_signal(signal.SIGINT)
        daemon.signalled.set()
        out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, out) == (errors.EXIT_CANCELLED, b"")
    assert daemon.cancelled == ["q1"]
    assert err == b"swarm: Cancelled.\n"


def on_a_terminal(*words: str) -> tuple[int, str]:
    """Run with stdout on a pseudo-terminal; its exit code and all that was drawn."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        command(*words),
        cwd=ROOT,
        env={"TERM": "xterm", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
    ) as process:
        os.close(slave)
        drawn = b""
        try:
            while data := os.read(master, 1 << 16):
                drawn += data
        except OSError:
            pass  # EIO: the other end is closed
        finally:
            os.close(master)
        return process.wait(WAIT_S), drawn.decode()


def test_on_a_terminal_the_round_is_live(path: str) -> None:
    code, drawn = on_a_terminal("ask", "?", "--socket", path)
    assert code == 0
    for text in ("n" + "AAA", "declined", "judged", "█", "88 %", "the peers judge", "391"):
        assert text in drawn
    assert "[bold]not markup[/bold]" in drawn
    assert "swarm why /data/receipts/x.receipt" in drawn
    assert "confidence not calibrated yet" in drawn
    assert "\x1b]0;" not in drawn
    assert "\u202e" not in drawn


def test_on_a_terminal_an_answer_cannot_speak_to_it(daemon: Daemon, path: str) -> None:
    daemon.result = result(answer="391" + HOSTILE)
    _, drawn = on_a_terminal("ask", "?", "--socket", path)
    assert "\x1b]0;" not in drawn
    assert "\u202e" not in drawn


# --- listings ---------------------------------------------------------------------------------


def test_status_is_a_list(path: str) -> None:
    done = swarm("status", "--socket", path)
    assert done.returncode == 0
    assert "up         1 d 2 h" in lines(done.stdout)
    assert json.loads(swarm("status", "--json", "--socket", path).stdout)["peer"] == PEERS[0]


def test_peers_are_columns(path: str) -> None:
    done = swarm("peers", "--socket", path)
    head, first, second = lines(done.stdout)
    heads = ["PEER", "LABEL", "PATH", "RTT", "UP", "MODEL", "SINCE", "AGENT", "ADDRESS"]
    assert head.split() == heads
    assert first[head.index("LABEL") :].startswith("loft")
    assert first[head.index("PATH") :].split()[:4] == ["direct", "12", "ms", "1"]
    assert first[head.index("SINCE") :].split() == ["2024-03-15", "x", "/ip4/1.2.3.4/tcp/1"]
    assert first.index("/ip4") == head.index("ADDRESS")
    assert second.split() == [PEERS[1][-8:], "–", "self", *"–" * 6]
    assert is_harmless(done.stdout)
    assert done.stderr == b""
    assert len(json.loads(swarm("peers", "--json", "--socket", path).stdout)["peers"]) == 2


def test_peers_that_are_not_connected_are_shown_when_asked_for(path: str) -> None:
    head, *_, last = lines(swarm("peers", "--all", "--socket", path).stdout)
    assert last[head.index("PATH") :].split() == [
        "known",
        "–",
        "–",
        "n",
        "–",
        "–",
        last.split()[-1],
    ]
    assert last.endswith("/ip4/1.2.3.5/tcp/1")
    assert len(json.loads(swarm("peers", "--all", "--json", "--socket", path).stdout)["peers"]) == 3


def test_a_peer_that_contradicts_itself_is_pointed_out(path: str, daemon: Daemon) -> None:
    daemon.forked = True
    done = swarm("peers", "--socket", path)
    assert f"{PEERS[0][-8:]} contradicts itself in its log" in done.stderr.decode()
    assert is_harmless(done.stderr)


def test_a_relayed_peer_is_explained(path: str, daemon: Daemon) -> None:
    daemon.relayed = True
    done = swarm("peers", "--socket", path)
    assert f"{PEERS[0][-8:]} is relayed: no hole" in done.stderr.decode()
    assert is_harmless(done.stderr)


@pytest.mark.parametrize(
    ("health", "code"), [("ok", 0), ("note", 0), ("warn", 10), ("trouble", 11)]
)
def test_the_doctor_says_what_is_wrong_and_what_to_do(
    path: str, daemon: Daemon, health: str, code: int
) -> None:
    daemon.health = health
    done = swarm("doctor", "--socket", path)
    assert done.returncode == code
    assert "✓ clock" in done.stdout.decode()
    assert "! reach" in done.stdout.decode()
    assert "→ use IPv6" in done.stdout.decode()
    assert "handshake 3" in done.stdout.decode()
    assert is_harmless(done.stdout)
    done = swarm("doctor", "--json", "--socket", path)
    assert (done.returncode, json.loads(done.stdout)["health"]) == (code, health)


def test_a_peer_is_found_or_not(path: str, daemon: Daemon) -> None:
    done = swarm("find", PEERS[0], "--dht", "--socket", path)
    assert done.returncode == 0
    assert "known through dht, swarm public, NAT open, relays for others" in done.stdout.decode()
    assert "/ip4/1.2.3.4/tcp/1" in done.stdout.decode()
    assert is_harmless(done.stdout)
    assert daemon.sought == [methods.FindParams(PEERS[0], True)]
    done = swarm("find", PEERS[1], "--socket", path)
    assert (done.returncode, "nowhere" in done.stdout.decode()) == (6, True)
    done = swarm("find", PEERS[1], "--json", "--socket", path)
    assert (done.returncode, json.loads(done.stdout)["via"]) == (6, "nowhere")
    done = swarm("find", "abc", "--socket", path)
    assert done.returncode == 2


def test_history_is_columns(path: str) -> None:
    done = swarm("history", "--limit", "2", "--socket", path)
    assert len(lines(done.stdout)) == 3
    assert "What is" in lines(done.stdout)[1]
    assert is_harmless(done.stdout)
    done = swarm("history", "--json", "--socket", path)
    assert len(json.loads(done.stdout)["asks"]) == 20


def test_why_explains(path: str) -> None:
    done = swarm("why", "ABAB", "--socket", path)
    text = done.stdout.decode()
    assert done.returncode == 0
    for part in (
        "0.93",
        "1 of 2 judges dissent",
        "Ballots turned round that change it: 2, to: 381",
    ):
        assert part in text
    assert is_harmless(done.stdout)
    assert json.loads(swarm("why", "abab", "--json", "--socket", path).stdout)["margin"] == 3.0


def test_why_of_what_is_no_round_says_what_it_takes(path: str) -> None:
    done = swarm("why", "zzzz", "--socket", path)
    assert (done.returncode, done.stdout) == (errors.EXIT_USAGE, b"")
    assert b"receipt file" in done.stderr
    assert b"swarm history" in done.stderr


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("ask", "?", "--timeout", "0"), b"--timeout"),
        (("ask", "?", "--timeout", "0.1"), b"--timeout"),
        (("ask", "?", "--timeout", "nan"), b"--timeout"),
        (("ask", "?", "--timeout", "inf"), b"--timeout"),
        (("ask", "?", "--min-answers", "0"), b"--min-answers"),
        (("history", "--limit", "0"), b"--limit"),
    ],
)
def test_numbers_out_of_range_name_their_flag(words: tuple[str, ...], flag: bytes) -> None:
    done = swarm(*words)
    assert (done.returncode, done.stdout) == (errors.EXIT_USAGE, b"")
    assert flag in lines(done.stderr)[0].encode()
    assert b"--help" in done.stderr


def test_why_of_an_unknown_round_is_wrong_usage(path: str) -> None:
    done = swarm("why", "cdcd", "--socket", path)
    assert (done.returncode, done.stdout) == (errors.EXIT_USAGE, b"")
    assert b"swarm history" in done.stderr


def test_the_configuration_shows_its_sources(directory: Path) -> None:
    done = swarm("config", "show", "--data-dir", str(directory), SWARMD_SWARM="mine")
    rows = [line.split() for line in lines(done.stdout)]
    assert rows[0] == ["KEY", "VALUE", "SOURCE"]
    assert ["swarm", "mine", "env", "SWARMD_SWARM"] in rows
    assert ["data_dir", str(directory), "flag", "--data-dir"] in rows
    settings = json.loads(swarm("config", "show", "--json").stdout)["settings"]
    assert {"key": "min_answers", "value": 2, "source": "default"} in settings


def test_the_running_configuration_is_the_daemon_s(path: str) -> None:
    done = swarm("config", "show", "--running", "--socket", path)
    assert lines(done.stdout)[1].split() == ["threads", "4", "flag", "--threads"]


# --- manners ------------------------------------------------------------------------------------


def test_a_reader_that_leaves_early_is_no_error(path: str) -> None:
    with subprocess.Popen(
        command("history", "--limit", "1000", "--socket", path),
        cwd=ROOT,
        env={},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_what_the_encoding_lacks_is_escaped(daemon: Daemon, path: str) -> None:
    daemon.result = result(answer="π")
    done = swarm("ask", "?", "--socket", path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, b"\\u03c0\n")


def test_a_fault_is_told_without_a_traceback() -> None:
    script = (
        "import sys\nfrom node.cli import main, listings\n"
        "def broken(args): raise RuntimeError('a fault')\n"
        "listings.status = broken\n"
        "sys.exit(main.main(['status']))"
    )
    for environ, traced in (({}, False), ({"SWARMD_TRACEBACK": "1"}, True)):
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env=environ, capture_output=True
        )
        assert done.returncode == 1
        assert (b"Traceback" in done.stderr) is traced
        assert b"a fault" in done.stderr


def test_a_receipt_that_is_none_does_not_hold(directory: Path) -> None:
    file = directory / "x.receipt"
    file.write_bytes(b"nonsense")
    for name in ("show", "verify", "replay"):
        done = swarm("receipt", name, str(file))
        assert done.returncode == errors.EXIT_INVALID
        assert done.stderr.startswith(b"swarm: ")
        assert b"Traceback" not in done.stderr
    assert swarm("receipt", "verify", "-", stdin=b"x").returncode == errors.EXIT_INVALID
