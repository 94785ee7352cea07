"""Several daemons on this machine, each its own process, knowing each other's addresses.

For demonstrations, evaluation, benchmarks and tests. Plain blocking code: it starts, waits and
stops processes, and talks to them only over their control sockets.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from node.client import Client
from node.identity import KEY_FILE, load_or_create
from protocol.errors import NoDaemonError, SwarmError
from protocol.ids import peer_text

START_S: Final = 120.0
"""How long the daemons together have to start and find each other."""
STOP_S: Final = 10.0
_POLL_S: Final = 0.05
_LOG_TAIL: Final = 15

Progress = Callable[[str], None]


class LocalSwarmError(SwarmError):
    """A daemon of the local swarm failed."""

    code = "local-swarm"


@dataclass(frozen=True, slots=True)
class Spec:
    """What one daemon runs.

    Attributes:
        model: a bundled name, a directory, or a script file.
        backend: ``local`` or ``scripted``.
        program: how to start it, ``swarmd`` unless a test puts something else in its place.
        flags: further command-line arguments.
    """

    model: str
    backend: str = "local"
    program: tuple[str, ...] = (sys.executable, "-m", "node.daemon")
    flags: tuple[str, ...] = ()


@dataclass(slots=True)
class Member:
    """One daemon: where it lives and, while it runs, its process."""

    spec: Spec
    data_dir: Path
    socket: Path
    peer: str
    address: str
    process: subprocess.Popen[str] | None = None

    @property
    def client(self) -> Client:
        """Calls this daemon."""
        return Client(self.socket)

    @property
    def log(self) -> Path:
        """What the daemon wrote to stderr."""
        return self.data_dir / "swarmd.log"


@dataclass(slots=True)
class LocalSwarm:
    """A context manager around the daemons of ``specs``.

    Args:
        specs: one daemon each.
        root: keys, receipts and logs go below it; it is made where missing.
        swarm: its name.
        keep: leave the daemons running at the end.
        told: how many of the others each daemon is told of, the first ones; None for all.
    """

    specs: Sequence[Spec]
    root: Path
    swarm: str = "local"
    keep: bool = False
    told: int | None = None
    members: list[Member] = field(default_factory=list)
    _sockets: Path | None = None
    _handlers: dict[int, Any] = field(default_factory=dict)

    def __enter__(self) -> LocalSwarm:
        """Make keys and addresses; nothing runs yet.

        From here to the end SIGTERM and SIGHUP end this process by SystemExit, so that the
        daemons end with it.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                self._handlers[number] = signal.signal(number, _leave)
        # Socket paths are short by law of the kernel (107 bytes), data directories are not.
        self._sockets = Path(tempfile.mkdtemp(prefix="swarmd-"))
        for index, (spec, port) in enumerate(
            zip(self.specs, _free_ports(len(self.specs)), strict=True)
        ):
            data_dir = self.root / f"node{index}"
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            peer = peer_text(load_or_create(data_dir / KEY_FILE).peer_id)
            address = f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer}"
            path = self._sockets / f"{index}.sock"
            self.members.append(Member(spec, data_dir, path, peer, address))
        return self

    def __exit__(self, *_: object) -> None:
        """Stop what runs, unless it is kept."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self.keep:
            return
        self.stop()
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)

    def start(self, progress: Progress = lambda text: None, timeout_s: float = START_S) -> None:
        """Start every daemon and wait until each sees all others and knows their models.

        Raises:
            LocalSwarmError: one ended, or they did not find each other in time; quotes its log.
        """
        deadline = time.monotonic() + timeout_s
        for member in self.members:
            self.launch(member)
        self.wait(deadline - time.monotonic(), progress)

    def launch(self, member: Member) -> None:
        """Start one daemon; :meth:`wait` tells when it serves."""
        first = self.members[: self.told]
        others = [one.address for one in first if one is not member]
        command = [
            *member.spec.program,
            f"--data-dir={member.data_dir}",
            f"--socket={member.socket}",
            f"--listen={member.address.rpartition('/p2p/')[0]}",
            f"--backend={member.spec.backend}",
            f"--model={member.spec.model}",
            f"--swarm={self.swarm}",
            # Tests of its own would get in the way of what is measured or shown.
            "--calibration-per-hour=0",
            "--calibration-rate=0",
            # All are linked, so nobody has to pass on what another says.
            "--no-stamp",
            *(f"--bootstrap={address}" for address in others),
            *member.spec.flags,
        ]
        with member.log.open("a") as log:
            member.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the starter, which stops them in order
            )

    def wait(
        self,
        timeout_s: float = START_S,
        progress: Progress = lambda text: None,
        count: int | None = None,
    ) -> None:
        """Wait until every running daemon sees ``count`` daemons (all that run), itself included.

        Raises:
            LocalSwarmError: as :meth:`start`.
        """
        deadline = time.monotonic() + timeout_s
        running = [member for member in self.members if member.process is not None]
        wanted = len(running) if count is None else count
        said = ""
        while True:
            seen = [self._sees(member) for member in running]
            text = f"{sum(one > 0 for one in seen)}/{len(running)} up, "
            text += f"{sum(one >= wanted for one in seen)} see all"
            if text != said:
                progress(text)
                said = text
            if all(one >= wanted for one in seen):
                return
            for member in running:
                self._check_alive(member)
            if time.monotonic() > deadline:
                worst = running[seen.index(min(seen))]
                raise LocalSwarmError(
                    f"After {timeout_s:.0f} s: {text}. {_tail(worst)}",
                )
            time.sleep(_POLL_S)

    def _sees(self, member: Member) -> int:
        """Peers, itself included, that ``member`` knows with their models."""
        try:
            result: Mapping[str, Any] = member.client.call("peers")
        except NoDaemonError:
            return 0
        except SwarmError:
            return 0 if member.process and member.process.poll() is None else -1
        return sum(bool(row["model"]) for row in result["peers"])

    def _check_alive(self, member: Member) -> None:
        code = member.process.poll() if member.process else None
        if code is not None:
            raise LocalSwarmError(f"{member.spec.model} ended with code {code}. {_tail(member)}")

    def kill(self, member: Member) -> None:
        """End a daemon at once, as a power cut would."""
        if member.process is not None:
            member.process.kill()
            self._reap(member)

    def stop(self) -> None:
        """Ask all to stop; kill those that do not within ``STOP_S``."""
        running = [member for member in self.members if member.process is not None]
        for member in running:
            if member.process is not None:
                member.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for member in running:
            self._reap(member, max(0.1, deadline - time.monotonic()))

    def _reap(self, member: Member, timeout_s: float = STOP_S) -> None:
        process, member.process = member.process, None
        if process is None:
            return
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _close(process.stdout)


def _leave(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _close(stream: IO[str] | None) -> None:
    if stream is not None:
        stream.close()


def _environment() -> dict[str, str]:
    """As ours, less the settings of a daemon of ours: flags say everything."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SWARMD_")}


def _free_ports(count: int) -> list[int]:
    """Ports that are free now; held together so that all differ."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def _tail(member: Member) -> str:
    try:
        lines = member.log.read_text(errors="replace").splitlines()[-_LOG_TAIL:]
    except OSError:
        lines = []
    return f"The log of {member.spec.model} ({member.log}) ends:\n" + "\n".join(lines)
