"""Network namespaces of one run: made, entered, and removed whatever becomes of the run.

Needs root, ``ip`` (iproute2) and ``nft`` (nftables). All names of a run begin with a prefix of its
own, so that runs do not meet. A run holds a lock file under ``/run``; the kernel lets go of the
lock when the run ends, however it ends, and the next run removes what a dead one left.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import itertools
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Final, TypeVar

T = TypeVar("T")

LOCKS: Final = Path("/run")
MADE: Final = Path("/run/netns")
_LOCK_STEM: Final = "swarmd-nat-lab-"
_PREFIX: Final = "sw"
_COUNT: Final = itertools.count()
_SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where administrators' tools are; the ``PATH`` of a plain ``su`` lacks it."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET: Final = 0x40000000
_PR_SET_PDEATHSIG: Final = 1
_SIOCETHTOOL: Final = 0x8946
_OFFLOADS: Final = (0x17, 0x1F, 0x24, 0x2C)
"""``ETHTOOL_STXCSUM``, ``STSO``, ``SGSO``, ``SGRO`` (linux/ethtool.h)."""
_NETLINK_NETFILTER: Final = 12
_CTNETLINK_DELETE: Final = 1 << 8 | 2
"""``NFNL_SUBSYS_CTNETLINK``, ``IPCTNL_MSG_CT_DELETE``: without a tuple it deletes all."""
_NLM_F_REQUEST_ACK: Final = 1 | 4


class NetnsError(Exception):
    """The kernel or one of its tools refused; says which command and why."""


def missing() -> str | None:
    """Why namespaces with NAT cannot be made here, in words; None where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not os.access(LOCKS, os.W_OK):
        return f"{LOCKS} cannot be written"
    for tool, package in (("ip", "iproute2"), ("nft", "nftables")):
        if _find(tool) is None:
            return f"there is no {tool!r}: install {package}"
    # In a namespace of its own, which ends with the command.
    rule = "add table ip t; add chain ip t c { type nat hook postrouting priority 100; }; "
    rule += "add rule ip t c masquerade fully-random"
    tried = subprocess.run(
        ["unshare", "--net", tool_path("nft"), rule], capture_output=True, text=True
    )
    if tried.returncode:
        return f"the kernel makes no namespace with NAT: {tried.stderr.strip()}"
    return None


def tool_path(tool: str) -> str:
    """The path of a system tool.

    Raises:
        NetnsError: it is not installed.
    """
    found = _find(tool)
    if found is None:
        raise NetnsError(f"There is no {tool!r} on this machine.")
    return found


def _find(tool: str) -> str | None:
    return shutil.which(tool, path=f"{os.environ.get('PATH', '')}:{_SBIN}")


@dataclass(frozen=True, slots=True)
class Namespaces:
    """The namespaces of one run, by short names; see :func:`namespaces`.

    Attributes:
        prefix: begins the names of all of them.
        folder: for files of the run; removed with them.
    """

    prefix: str
    folder: Path

    def full(self, name: str) -> str:
        """The name that ``ip netns`` knows."""
        return f"{self.prefix}-{name}"

    def add(self, *names: str) -> None:
        """Make namespaces: loopback up, IPv6 off, nothing else."""
        _ip(*(f"netns add {self.full(name)}" for name in names))
        for name in names:
            self.ip(name, "link set lo up")
            self.sysctl(name, "ipv6/conf/all/disable_ipv6", 1)
            self.sysctl(name, "ipv6/conf/default/disable_ipv6", 1)

    def remove(self, name: str) -> None:
        """Remove a namespace; it ends once nothing runs in it any more."""
        _ip(f"netns del {self.full(name)}")

    def ip(self, name: str, *commands: str) -> None:
        """Run ``ip`` commands inside, in one process; all or an error."""
        _ip(*commands, inside=self.full(name))

    def nft(self, name: str, rules: str) -> None:
        """Load nftables rules inside, all or none."""
        _run([*self._enter(name), tool_path("nft"), "-f", "-"], rules)

    def sysctl(self, name: str, key: str, value: int) -> None:
        """Set ``/proc/sys/net/KEY`` inside."""
        path = Path("/proc/sys/net", key)
        self.inside(name, lambda: path.write_text(str(value)))

    def spawn(
        self,
        name: str,
        command: Sequence[str],
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program inside. It is killed when the thread that calls this ends."""
        return subprocess.Popen(
            [*self._enter(name), *command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=env,
            start_new_session=True,  # Ctrl-C is for the run, which ends it in order
            preexec_fn=partial(_end_with, os.getpid()),
        )

    def inside(self, name: str, act: Callable[[], T]) -> T:
        """Call ``act`` inside. Sockets that it makes stay inside."""

        def enter_and_act() -> T:
            _enter(MADE / self.full(name))
            return act()

        # A thread can be in another namespace than its process, and is so to its end.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(enter_and_act).result()

    def _enter(self, name: str) -> tuple[str, ...]:
        return tool_path("ip"), "netns", "exec", self.full(name)


@contextmanager
def namespaces() -> Iterator[Namespaces]:
    """A run's namespaces, none at first; what dead runs left is removed before.

    Raises:
        NetnsError: they cannot be made here.
    """
    reason = missing()
    if reason is not None:
        raise NetnsError(f"No lab can be built here: {reason}.")
    sweep()
    prefix = f"{_PREFIX}{os.getpid()}x{next(_COUNT)}"
    lock = _lock_path(prefix)
    held = _claim(lock)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{prefix}-"))
        os.write(held, json.dumps(str(folder)).encode())
        yield Namespaces(prefix, folder)
    finally:
        _remove(prefix, lock)
        os.close(held)


def _claim(lock: Path) -> int:
    """Make and lock the file ``lock``; closing the descriptor returned lets it go."""
    while True:
        held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(held, fcntl.LOCK_EX)
        # Between the two calls another run's sweep may have taken the file for a dead run's.
        with suppress(FileNotFoundError):
            if lock.stat().st_ino == os.fstat(held).st_ino:
                return held
        os.close(held)


def sweep() -> list[str]:
    """Remove what runs left that did not end in order.

    Returns:
        The prefixes of those runs.
    """
    swept = []
    for lock in LOCKS.glob(f"{_LOCK_STEM}*.lock"):
        with suppress(FileNotFoundError):
            held = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                prefix = lock.stem.removeprefix(_LOCK_STEM)
                _remove(prefix, lock)
                swept.append(prefix)
            except BlockingIOError:
                pass  # it lives
            finally:
                os.close(held)
    return swept


def _remove(prefix: str, lock: Path) -> None:
    for path in MADE.glob(f"{prefix}-*"):
        _ip(f"netns del {path.name}")
    with suppress(FileNotFoundError, json.JSONDecodeError):
        shutil.rmtree(json.loads(lock.read_text()), ignore_errors=True)
    lock.unlink(missing_ok=True)


def _lock_path(prefix: str) -> Path:
    return LOCKS / f"{_LOCK_STEM}{prefix}.lock"


# --- to be called inside ------------------------------------------------------------------------


def turn_offloads_off(interface: str) -> None:
    """Have the kernel itself compute checksums and cut segments before frames leave ``interface``.

    Between virtual interfaces it leaves both undone, which only the kernel's own receivers accept.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in _OFFLOADS:
            value = array.array("B", struct.pack("II", command, 0))
            request = struct.pack("16sP", interface.encode(), value.buffer_info()[0])
            fcntl.ioctl(control, _SIOCETHTOOL, request)


def forget_flows() -> None:
    """Drop every entry of connection tracking, and with it every mapping of a NAT.

    Raises:
        NetnsError: the kernel refused.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as control:
        control.bind((0, 0))
        body = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0)
        header = struct.pack("=IHHII", 16 + len(body), _CTNETLINK_DELETE, _NLM_F_REQUEST_ACK, 1, 0)
        control.send(header + body)
        (code,) = struct.unpack_from("=i", control.recv(4096), 16)
    if code:
        raise NetnsError(f"The kernel does not drop mappings: {os.strerror(-code)}.")


def _end_with(parent: int) -> None:
    """Have the kernel kill this process, new-born, when its parent's thread ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _enter(namespace: Path) -> None:
    held = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.setns(held, _CLONE_NEWNET):
            raise NetnsError(f"{namespace}: {os.strerror(ctypes.get_errno())}.")
    finally:
        os.close(held)


# --- tools --------------------------------------------------------------------------------------


def _ip(*commands: str, inside: str | None = None) -> None:
    where = ["-n", inside] if inside else []
    _run([tool_path("ip"), *where, "-batch", "-"], "\n".join(commands))


def _run(command: list[str], text: str) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise NetnsError(f"{' '.join(command)} refused:\n{said}\nIt was given:\n{text}")
