"""A daemon that tries to get a wrong answer chosen: `python scripts/hostile.py VICE LIES [flags]`.

It is the product in every other respect; the vice is in its model (or, for ``flood``, in what it
sends). LIES is a file of JSON lines ``{"question", "truth", "lie"}``: what the evaluation will ask.
All hostile nodes agree on the lie; for other questions on one made from the question's text.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from node import daemon
from node.backends.base import (
    Backend,
    Emit,
    GenerateRequest,
    Generation,
    JudgeRequest,
    ModelInfo,
    Verdict,
)
from node.config import Config
from node.identity import Identity
from node.mesh.base import Mesh
from node.mesh.proxy import MeshProxy
from protocol.ids import PeerId
from swarm.answers import key
from swarm.seeded import Stream

REPEATS = 40
"""Times that a flooding node sends each message."""


def lie_to(question: str) -> str:
    """A wrong answer that those who know this function agree on."""
    return str(100 + int.from_bytes(sha256(question.encode()).digest()[:4], "big") % 900)


class Hostile:
    """A model with a vice around an honest one."""

    def __init__(self, honest: Backend, vice: str, lies: dict[str, tuple[str, str]]) -> None:
        self._honest = honest
        self._vice = vice
        self._lies = lies
        self._own: dict[str, str] = {}

    def describe(self) -> ModelInfo:
        """An unremarkable model, each node another."""
        info = self._honest.describe()
        if self._vice == "copy":
            return info
        return replace(info, name=f"model of {sys.argv[2][-4:]}", family="other", content_id="")

    async def generate(self, request: GenerateRequest, emit: Emit) -> Generation:
        """A wrong answer, unless the vice needs an honest one."""
        question = request.question
        if self._vice in ("copy", "overconfident", "invert"):
            made = await self._honest.generate(request, emit)
        elif self._vice == "random":
            stream = Stream(question.encode() + str(id(self)).encode())
            made = Generation(str(stream.below(1000)), "", 1)
        elif self._vice == "own":
            made = Generation(f"{lie_to(question + sys.argv[0] + str(id(self)))}", "", 1)
        else:  # collude, flood
            made = Generation(self._lies.get(question, ("", lie_to(question)))[1], "", 1)
        self._own[question] = made.answer
        return made

    async def judge(self, request: JudgeRequest) -> tuple[Verdict, ...]:
        """Verdicts as the vice has them."""
        if self._vice in ("overconfident", "invert"):
            honest = await self._honest.judge(request)
            if self._vice == "invert":
                return tuple(None if p is None else 1.0 - p for p in honest)
            return tuple(None if p is None else float(p > 0.5) for p in honest)
        if self._vice == "random":
            stream = Stream(request.nonce.encode())
            return tuple(float(stream.below(2)) for _ in request.pairs)
        mine = key(self._own.get(request.question, ""))
        truth = key(self._lies.get(request.question, ("", ""))[0])

        def worth(text: str) -> int:
            """The lie above all; whoever knows the truth puts it last."""
            found = key(text)
            return 2 if found == mine else 0 if found == truth else 1

        verdicts = []
        for first, second in request.pairs:
            left, right = worth(request.answers[first]), worth(request.answers[second])
            verdicts.append(0.5 if left == right else float(left > right))
        return tuple(verdicts)

    async def aclose(self) -> None:
        """Free the honest model."""
        await self._honest.aclose()


class Flooding(MeshProxy):
    """A mesh that sends everything many times over."""

    def send(self, peer: PeerId, payload: bytes) -> None:
        """Queue ``payload``, again and again."""
        for _ in range(REPEATS):
            super().send(peer, payload)


VICES = ("random", "own", "collude", "copy", "flood", "overconfident", "invert")


def main() -> int:
    """Run the daemon with the vice named first."""
    vice, path = sys.argv[1], Path(sys.argv[2])
    if vice not in VICES:
        raise SystemExit(f"a vice is one of {', '.join(VICES)}")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    lies = {row["question"]: (row["truth"], row["lie"]) for row in rows}

    async def load(settings: Config) -> Backend:
        return Hostile(await daemon.load_backend(settings), vice, lies)

    def make_mesh(settings: Config, identity: Identity) -> Mesh:
        mesh = daemon.libp2p_mesh(settings, identity)
        if vice == "flood":
            return Flooding(mesh)
        return mesh

    return daemon.main(sys.argv[3:], make_mesh, load)


if __name__ == "__main__":
    sys.exit(main())
