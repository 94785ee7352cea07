"""Trial records in memory; ``tests/fakes/test_trial_records.py`` holds them and the real ones to
the same behaviour.
"""

from __future__ import annotations

from protocol import limits
from protocol.ids import RoundId
from swarm.trial import Trial


class FakeTrialRecords:
    """Graded rounds and the names of tasks, in the order in which they came."""

    def __init__(self) -> None:
        self.trials: dict[RoundId, Trial] = {}
        self.tasks: list[bytes] = []

    async def keep(self, trial: Trial) -> bool:
        again = self.trials.pop(trial.round, None) is not None
        self.trials[trial.round] = trial
        while len(self.trials) > limits.TRIALS:
            del self.trials[next(iter(self.trials))]
        return again

    async def all(self) -> list[Trial]:
        return list(self.trials.values())

    async def pose(self, task: bytes) -> None:
        self.tasks = [*self.tasks, task][-limits.TASKS_POSED :]

    async def posed(self) -> list[bytes]:
        return list(self.tasks)
