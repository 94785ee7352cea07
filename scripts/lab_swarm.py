"""Daemons in a lab of ``netlab``: started inside, spoken to from outside over their sockets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from netlab import LISTEN_PORT, Lab

from node.client import Client
from node.identity import KEY_FILE, load_or_create
from protocol.errors import SwarmError
from protocol.ids import peer_text
from protocol.methods import PeerRow, Peers

T = TypeVar("T")

QUESTION: Final = "What is 6 * 7?"
_TRUTHS: Final = {QUESTION: "42"}
_ANSWERS: Final = {"b": "41", "c": "40"}
POLL_S: Final = 0.02
START_S: Final = 30.0
"""How long a daemon may take until it serves."""
ASK_S: Final = 20.0
"""How long a question may take."""
_STOP_S: Final = 5.0
_LOG_LINES: Final = 12
_SWARM: Final = "lab"


class LabError(Exception):
    """A daemon in the lab failed; says what its log says."""


@dataclass(slots=True)
class Daemon:
    """A daemon, and while it runs its process.

    Attributes:
        host: where it is in the lab.
        folder: its data directory.
        peer: its peer id as text.
        flags: its command line, beyond what all have.
        began: when its process was started, on the monotonic clock.
    """

    host: str
    folder: Path
    peer: str
    flags: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0

    @property
    def socket(self) -> Path:
        """Its control socket."""
        return self.folder / "s"

    @property
    def log(self) -> Path:
        """What it wrote to stderr."""
        return self.folder / "swarmd.log"

    @property
    def client(self) -> Client:
        """Calls it."""
        return Client(self.socket)

    def age(self) -> float:
        """Seconds since its process was started."""
        return time.monotonic() - self.began

    def rows(self) -> tuple[PeerRow, ...]:
        """Its peers, itself included; empty before it serves.

        Raises:
            LabError: it ended.
        """
        try:
            return msgspec.convert(self.client.call("peers"), Peers).peers
        except SwarmError:
            self.check()
            return ()

    def row(self, other: Daemon) -> PeerRow | None:
        """What it says of ``other``; None while they are not connected."""
        return next((row for row in self.rows() if row.peer == other.peer), None)

    def check(self) -> None:
        """See that it runs.

        Raises:
            LabError: it ended.
        """
        code = None if self.process is None else self.process.poll()
        if code is not None:
            raise LabError(f"{self.host} ended with code {code}. {self.log_end()}")

    def log_end(self) -> str:
        """The last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return "\n  ".join([f"The log of {self.host} ends:", *lines])


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of a question.

    Attributes:
        outcome: of the round, or the code of the error that ended it.
        answers: how many answered.
        seconds: it took.
    """

    outcome: str
    answers: int
    seconds: float

    @property
    def full(self) -> bool:
        """Whether it was answered, by two at least."""
        return self.outcome == "answer" and self.answers >= 2


def ask(daemon: Daemon, answers: int = 2, timeout_s: float = ASK_S) -> Asked:
    """Put a question that ``answers`` daemons have to answer."""
    params = {"question": QUESTION, "min_answers": answers, "timeout_s": timeout_s}
    began = time.monotonic()
    try:
        result: dict[str, Any] = daemon.client.call("ask", params, silence_s=timeout_s + 10)
    except SwarmError as error:
        return Asked(error.code, 0, time.monotonic() - began)
    return Asked(result["outcome"], len(result["answers"]), time.monotonic() - began)


def wait_until(met: Callable[[], T | None], limit_s: float) -> T | None:
    """What ``met`` returns once that is something; None where it is not within ``limit_s``."""
    deadline = time.monotonic() + limit_s
    while True:
        found = met()
        if found is not None or time.monotonic() > deadline:
            return found
        time.sleep(POLL_S)


@dataclass(slots=True)
class LabSwarm:
    """The daemons of a lab; a context manager that ends them.

    Args:
        logs: a directory that gets the log of every daemon at its end.
    """

    lab: Lab
    logs: Path | None = None
    _running: list[Daemon] = field(default_factory=list)

    def __enter__(self) -> LabSwarm:
        """Nothing runs yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all."""
        self.stop(*self._running)

    def relay(self, host: str) -> Daemon:
        """A bootstrap and relay, not yet started."""
        # All public hosts are on one wire here, which they would not be.
        return self._make(host, "--relay", "--no-mdns")

    def node(self, host: str, bootstraps: Iterable[Daemon]) -> Daemon:
        """A node with a model of its own, not yet started."""
        made = self._make(host, "--backend=scripted", *self.join(bootstraps))
        # Different answers: there is something to judge. All judge by the same truth.
        script = {
            "name": f"scripted:{host}",
            "default": _ANSWERS.get(host, "42"),
            "truths": _TRUTHS,
        }
        model = made.folder / "model.json"
        model.write_text(json.dumps(script))
        made.flags += (f"--model={model}",)
        return made

    def join(self, bootstraps: Iterable[Daemon]) -> tuple[str, ...]:
        """The flags that name ``bootstraps``."""
        return tuple(f"--bootstrap={self.address(daemon)}" for daemon in bootstraps)

    def address(self, daemon: Daemon) -> str:
        """The multiaddr of a daemon whose host is public."""
        return f"/ip4/{self.lab.address(daemon.host)}/tcp/{LISTEN_PORT}/p2p/{daemon.peer}"

    def _make(self, host: str, *flags: str) -> Daemon:
        folder = Path(tempfile.mkdtemp(prefix=f"{host}-", dir=self.lab.folder))
        peer = peer_text(load_or_create(folder / KEY_FILE).peer_id)
        return Daemon(host, folder, peer, flags)

    def start(self, daemon: Daemon, *more: str) -> None:
        """Start its process, with further flags; :meth:`serving` waits until it serves."""
        command = [
            *(sys.executable, "-m", "node.daemon"),
            f"--data-dir={daemon.folder}",
            f"--socket={daemon.socket}",
            f"--listen=/ip4/0.0.0.0/tcp/{LISTEN_PORT}",
            f"--swarm={_SWARM}",
            # Tests of its own would get in the way of what is measured.
            "--calibration-per-hour=0",
            "--calibration-rate=0",
            *daemon.flags,
            *more,
        ]
        with daemon.log.open("ab") as log:
            daemon.began = time.monotonic()
            daemon.process = self.lab.namespaces.spawn(
                daemon.host, command, stderr=log, env=self._environment()
            )
        self._running.append(daemon)

    def serving(self, *daemons: Daemon) -> None:
        """Wait until they serve.

        Raises:
            LabError: one ended, or takes longer than ``START_S``.
        """
        for daemon in daemons:
            if wait_until(lambda one=daemon: one.rows() or None, START_S) is None:  # type: ignore[misc]
                raise LabError(f"{daemon.host} does not serve. {daemon.log_end()}")

    def kill(self, daemon: Daemon) -> None:
        """End it at once, as a power cut would."""
        assert daemon.process is not None
        daemon.process.kill()
        self._reap(daemon)

    def stop(self, *daemons: Daemon) -> None:
        """Ask them to stop, and kill those that do not within ``_STOP_S``."""
        stopped: Sequence[Daemon] = [one for one in daemons if one.process is not None]
        for daemon in stopped:
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGTERM)
        for daemon in stopped:
            self._reap(daemon)

    def _reap(self, daemon: Daemon) -> None:
        process, daemon.process = daemon.process, None
        assert process is not None
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._running.remove(daemon)
        if self.logs is not None:
            shutil.copy(daemon.log, self.logs / f"{daemon.folder.name}.log")

    def _environment(self) -> dict[str, str]:
        """As ours, but nobody's settings apply: flags say everything."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SWARMD_")}
        return kept | {"XDG_CONFIG_HOME": str(self.lab.folder)}
