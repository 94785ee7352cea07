"""No model at all: for a node that relays for others and helps them to find each other."""

from __future__ import annotations

from node.backends.base import Emit, GenerateRequest, Generation, JudgeRequest, ModelInfo, Verdict
from protocol.errors import BackendError


class NoModel:
    """Refuses all work; such a node says that it serves no rounds, so nobody should ask."""

    def describe(self) -> ModelInfo:
        """What a relay runs: nothing."""
        return ModelInfo("none", "none", "", 0, 0, "")

    async def generate(self, request: GenerateRequest, emit: Emit) -> Generation:
        """Refuse."""
        raise BackendError("This node runs no model.")

    async def judge(self, request: JudgeRequest) -> tuple[Verdict, ...]:
        """Refuse."""
        raise BackendError("This node runs no model.")

    async def aclose(self) -> None:
        """There is nothing to free."""
