"""js-libp2p from npm, and a swarm for it to talk to."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from node.local_swarm import LocalSwarm, Spec
from protocol.envelope import KeySigner
from protocol.ids import PeerId

HERE = Path(__file__).parent
OLDEST_NODE = 20
LIMIT_S = 60.0
INSTALL_S = 300.0

QUESTION = "What is 6 * 7?"
AGREED = "What do all say?"
FAILED = "What does only one know?"
SCRIPTS: tuple[dict[str, str], ...] = (
    {QUESTION: "42", AGREED: "Yes", FAILED: "Ra"},
    {QUESTION: "41", AGREED: "yes."},
    {QUESTION: "42.", AGREED: "yes"},
)


class JsPeer:
    """A running ``peer.mjs``, and all that it has said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._said: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._process = process
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._said.append(json.loads(line))
                self._news.notify_all()

    @property
    def address(self) -> str:
        """Where it listens, with its peer id."""
        found: str = self.wait_for("ready")["addresses"][0]
        return found

    @property
    def peer(self) -> str:
        """Its peer id."""
        return self.address.rpartition("/")[2]

    def wait_for(self, event: str, **fields: object) -> dict[str, Any]:
        """What it said of an event of that name with these fields, once it has."""

        def found() -> dict[str, Any] | None:
            wanted = {"event": event, **fields}.items()
            return next((said for said in self._said if wanted <= said.items()), None)

        with self._news:
            said = self._news.wait_for(found, LIMIT_S)
        assert said, f"the JavaScript peer has not {event} {fields}: {self._said}"
        return said

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._reader.join(LIMIT_S)
        assert self._process.stderr is not None
        errors = self._process.stderr.read()
        assert not errors, errors


@dataclass(frozen=True, slots=True)
class Js:
    """Runs the scripts of this folder.

    Attributes:
        within: calls a function where the scripts are to run, in another network namespace
            for instance.
    """

    node: str
    within: Callable[[Callable[[], Any]], Any] = lambda start: start()

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``script`` to its end."""
        with self._start(script, *arguments) as process:
            try:
                out, err = process.communicate(timeout=LIMIT_S)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def _start(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        def start() -> subprocess.Popen[str]:
            return subprocess.Popen(
                [self.node, HERE / script, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

        process: subprocess.Popen[str] = self.within(start)
        return process

    def ask(self, *arguments: str) -> dict[str, Any]:
        """What ``ask.mjs`` prints."""
        done = self.run("ask.mjs", *arguments)
        assert done.stdout, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        assert (done.returncode == 0) == (result["winner"] is not None), done.stderr
        return result

    @contextmanager
    def peer(self, *flags: str) -> Iterator[JsPeer]:
        """A listening ``peer.mjs``, ended with the block."""
        with self._start("peer.mjs", *flags) as process:
            peer = JsPeer(process)
            try:
                yield peer
            finally:
                peer.stop()


@pytest.fixture(scope="session")
def js() -> Js:
    """Node with the packages of package-lock.json; skips where there is no Node to run them."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("js-libp2p needs Node and npm on the PATH")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < OLDEST_NODE:
        pytest.skip(f"js-libp2p needs Node {OLDEST_NODE}, here is {version.strip()}")
    wanted = sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    stamp = HERE / "node_modules" / ".installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
        )
        assert done.returncode == 0, f"npm ci failed: {done.stderr[-2000:]}"
        stamp.write_text(wanted)
    return Js(node)


MakeSwarm = Callable[..., AbstractContextManager[LocalSwarm]]


@pytest.fixture(scope="session")
def make_swarm(tmp_path_factory: pytest.TempPathFactory) -> MakeSwarm:
    """Swarms of unmodified daemons with scripted models; each model has the truth of QUESTION."""

    def make(*flags: tuple[str, ...]) -> LocalSwarm:
        root = tmp_path_factory.mktemp("swarm")
        specs = []
        for index, more in enumerate(flags):
            path = root / f"model{index}.json"
            script = {
                "name": f"scripted:{index}",
                "answers": SCRIPTS[index],
                "truths": {QUESTION: "42"},
            }
            path.write_text(json.dumps(script))
            specs.append(Spec(str(path), "scripted", flags=more))
        return LocalSwarm(specs, root)

    return make


@pytest.fixture(scope="session")
def swarm(make_swarm: MakeSwarm) -> Iterator[LocalSwarm]:
    """Three daemons that know each other."""
    with make_swarm((), (), ()) as swarm:
        swarm.start()
        yield swarm


def seed_between(low: PeerId | None, high: PeerId | None) -> str:
    """The hex seed of a key that sorts after ``low`` and before ``high``."""
    for number in range(10_000):
        seed = sha256(f"js {number}".encode()).digest()
        peer = KeySigner(seed).peer
        if (low is None or low < peer) and (high is None or peer < high):
            return seed.hex()
    raise AssertionError("no such key was found")
