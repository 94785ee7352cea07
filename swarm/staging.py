"""What a plan says about its stages: who is asked when, and what is fixed beforehand."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.messages import Invite, secret_hash, stage_secret
from protocol.receipt import Plan, Standing
from protocol.version import ROUND


def stage_sizes(stages: Sequence[int], invited: int) -> tuple[int, ...]:
    """Peers invited up to each stage: those of ``stages`` that grow, and at last everybody."""
    sizes: list[int] = []
    for size in stages:
        if (sizes[-1] if sizes else 0) < size < invited:
            sizes.append(size)
    return (*sizes, invited)


class Staging:
    """The stages of a plan.

    Attributes:
        sizes: peers invited up to each stage.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.sizes = stage_sizes(plan.stages, len(plan.invited))

    def __len__(self) -> int:
        return len(self.sizes)

    def newcomers(self, stage: int) -> list[Standing]:
        """Those who are asked in ``stage``, sorted by peer."""
        begin = self.sizes[stage - 1] if stage else 0
        return sorted(self._plan.invited[begin : self.sizes[stage]], key=lambda one: one.peer)

    def secret(self, roster: int) -> bytes:
        """What goes into the pair seed of the Roster of that number."""
        return stage_secret(self._plan.secret, len(self) - 1 - roster)

    def invite(self) -> Invite:
        """The one Invite of the round; who is asked late gets the same."""
        plan = self._plan
        return Invite(
            version=ROUND,
            swarm=plan.swarm,
            nonce=plan.nonce,
            question=plan.question,
            answer_bytes=plan.answer_bytes,
            answer_tokens=plan.answer_tokens,
            phases=plan.phases,
            secret_hash=secret_hash(self.secret(0)),
            adaptive=plan.adaptive,
            stages=len(self),
        )
