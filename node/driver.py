"""Runs one state machine against the world: inputs in, timers on time, effects out.

This is where the monotonic clock is read. A machine never waits and never sees trio.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from swarm.effects import Effect, Finished

Input = Callable[[float], None]
"""Applies one input to a machine; is given the time in seconds."""

Carry = Callable[[Effect], Awaitable[None]]
"""Carries out one effect. What takes long, it starts elsewhere."""


class Machine(Protocol):
    """What the state machines of :mod:`swarm` have in common."""

    def on_timer(self, now: float) -> None: ...
    def timer_at(self) -> float | None: ...
    def effects(self) -> list[Effect]: ...


async def drive(machine: Machine, inputs: trio.MemoryReceiveChannel[Input], carry: Carry) -> str:
    """Run ``machine`` until it finishes.

    Effects are carried out in order, each before the next and before the next input.

    Returns:
        The reason that the machine gives for finishing.
    """
    while True:
        for effect in machine.effects():
            if isinstance(effect, Finished):
                return effect.reason
            await carry(effect)
        due = machine.timer_at()
        with trio.move_on_at(math.inf if due is None else due) as scope:
            apply = await inputs.receive()
            apply(trio.current_time())
        if scope.cancelled_caught:
            machine.on_timer(trio.current_time())
