"""Five members of a private swarm, two of which are cut off: do all hold the same logs again?"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec
from lab_swarm import Daemon, LabError, LabSwarm, wait_until
from netlab import SITES, Kind

from protocol.errors import SwarmError
from protocol.methods import Ledger, Status

LEFT: Final = ("a", "b")
RIGHT: Final = ("c", "o1", "o2")
WRITES: Final = 3
"""How often each says something new meanwhile: the last time before the healing."""
SETTLE_S: Final = 60.0
"""How long they may take to hold the same in the beginning, to hear what is said on their side, and
to lose the last link to the other."""
HEAL_S: Final = 120.0
_LOOK_S: Final = 0.1

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Parted:
    """What became of five members.

    Attributes:
        settled_s: seconds until all held the same.
        lost_s: seconds of the partition until nobody had a link across it; None: some stayed.
        apart_s: seconds in which nothing passed.
        written: entries that were written on both sides meanwhile.
        linked_s: seconds of healing until all were linked with all; None: not before they agreed.
        healed_s: seconds of healing until all roots were the same, and everyone had read what
            everyone says; None: never.
        exchanges: comparisons of all logs that were finished by then, since the healing began.
        rounds: of these, the most that one member began.
        authors, entries: that each held in the end.
        root: of all in the end, in hex.
        trouble: what went wrong; empty where all is as it should be.
    """

    settled_s: float | None = None
    lost_s: float | None = None
    apart_s: float = 0.0
    written: int = 0
    linked_s: float | None = None
    healed_s: float | None = None
    exchanges: int = 0
    rounds: int = 0
    authors: int = 0
    entries: int = 0
    root: str = ""
    trouble: str = ""


def part(
    swarm: LabSwarm, apart_s: float | None = None, progress: Progress = lambda text: None
) -> Parted:
    """Start five new members, part two of them from the others, have all write, and heal.

    Args:
        apart_s: seconds that the partition lasts; None: until no link across it is left.
    """
    try:
        return _Scene(swarm, progress).play(apart_s)
    except LabError as error:
        return Parted(trouble=str(error))
    finally:
        swarm.lab.mend()


class _Scene:
    """The members, once they serve.

    Attributes:
        words: what each says that it is called, by peer id.
    """

    def __init__(self, swarm: LabSwarm, progress: Progress) -> None:
        self._lab = swarm.lab
        self._progress = progress
        for site in SITES:
            self._lab.set_kind(site, Kind.PUBLIC)
        key = _swarm_key(self._lab.folder)
        self.left, self.right = ([swarm.node(host, ()) for host in side] for side in (LEFT, RIGHT))
        self.all = [*self.left, *self.right]
        self.words: dict[str, str] = {}
        for one in self.all:
            others = swarm.join(other for other in self.all if other is not one)
            one.flags += (f"--swarm-key={key}", "--no-mdns", *others)
        for one in self.all:
            swarm.start(one)
        swarm.serving(*self.all)
        progress(f"{len(self.all)} members serve")

    def play(self, apart_s: float | None) -> Parted:
        """Part them, and heal.

        Raises:
            LabError: they do not agree in the beginning, or one failed.
        """
        began = time.monotonic()
        self._say("at first")
        self._wait(self._agreed, "They do not agree.")
        settled_s = time.monotonic() - began
        before = sum(one.own_entries for one in self._ledgers())
        self._progress(f"all agree after {settled_s:.1f} s; {len(LEFT)} of them are cut off")

        began = time.monotonic()
        self._lab.partition(LEFT, RIGHT)
        for number in range(1, WRITES):
            self._write(number)
        lost_s = self._stay_apart(began, apart_s)
        self._write(WRITES)
        parted = self._ledgers()
        lost = "links stand" if lost_s is None else f"no link was left after {lost_s:.1f} s"
        self._progress(f"all have written {WRITES} times, {lost}; nothing is cut off any more")
        mended = time.monotonic()
        self._lab.mend()

        linked: list[float] = []

        def healed() -> float | None:
            if not linked and self._linked():
                linked.append(time.monotonic() - mended)
            return time.monotonic() - mended if self._agreed() else None

        healed_s = wait_until(healed, HEAL_S)
        ends = self._ledgers()
        finished = [end.exchanges - one.exchanges for one, end in zip(parted, ends, strict=True)]
        found = Parted(
            settled_s,
            lost_s,
            mended - began,
            sum(one.own_entries for one in parted) - before,
            linked[0] if linked else None,
            healed_s,
            sum(finished),
            max(finished),
            ends[0].authors,
            ends[0].entries,
            ends[0].root,
        )
        return replace(found, trouble=self._trouble(found, parted, ends))

    def _stay_apart(self, began: float, apart_s: float | None) -> float | None:
        """Wait; after how many seconds the last link was lost."""
        while True:
            now = time.monotonic() - began
            lost = not self._crossing()
            if apart_s is None and (lost or now > SETTLE_S):
                return now if lost else None
            if apart_s is not None and now > apart_s:
                return None
            if lost and apart_s is not None:
                time.sleep(apart_s - now)
                return now
            time.sleep(_LOOK_S)

    def _write(self, number: int) -> None:
        """Have all say something new, and wait until their side has heard it."""
        self._say(f"change {number}")
        for side in (self.left, self.right):
            self._wait(lambda side=side: self._told(side), "A side does not hear what it says.")  # type: ignore[misc]

    def _say(self, text: str) -> None:
        for one in self.all:
            self.words[one.peer] = f"{one.host}, {text}"
            _call(one, "state-label", {"label": self.words[one.peer]})

    def _told(self, side: Sequence[Daemon]) -> bool | None:
        """True once all of ``side`` know what all of them say."""
        for one in side:
            labels = {row.peer: row.label for row in one.rows()}
            if any(labels.get(other.peer) != self.words[other.peer] for other in side):
                return None
        return True

    def _agreed(self) -> bool | None:
        """True once all have read what all say, and hold the same."""
        told = self._told(self.all)
        return told and (len({one.root for one in self._ledgers()}) == 1 or None)

    def _linked(self) -> bool:
        return all(len(one.rows()) == len(self.all) for one in self.all)

    def _crossing(self) -> bool:
        """Whether anybody has a link across the partition."""
        sides = (self.left, self.right)
        peers = [{one.peer for one in side} for side in sides]
        return any(
            row.peer in far
            for side, far in zip(sides, reversed(peers), strict=True)
            for one in side
            for row in one.rows()
        )

    def _wait(self, met: Callable[[], bool | None], otherwise: str) -> None:
        if wait_until(met, SETTLE_S) is None:
            raise LabError(f"{otherwise}\n{self._logs()}")

    def _ledgers(self) -> list[Ledger]:
        return [msgspec.convert(_call(one, "status"), Status).ledger for one in self.all]

    def _trouble(self, found: Parted, parted: Sequence[Ledger], ends: Sequence[Ledger]) -> str:
        wrong = []
        count = len(LEFT)
        if {one.root for one in parted[:count]} & {one.root for one in parted[count:]}:
            wrong.append("Something passed while they were apart.")
        if found.written < WRITES * len(self.all):
            wrong.append(f"Only {found.written} entries were written while they were apart.")
        if found.healed_s is None:
            wrong.append(f"They do not agree {HEAL_S:.0f} s after the healing.")
        if any(end.forked for end in ends):
            wrong.append("Somebody is said to contradict itself.")
        return "\n".join([*wrong, self._logs()]) if wrong else ""

    def _logs(self) -> str:
        return "\n".join(one.log_end() for one in self.all)


def _call(daemon: Daemon, method: str, params: Mapping[str, str] | None = None) -> Any:
    try:
        return daemon.client.call(method, params)
    except SwarmError as error:
        raise LabError(f"{daemon.host}: {error}. {daemon.log_end()}") from error


def _swarm_key(folder: Path) -> Path:
    path = folder / "swarm.key"
    path.touch(0o600)
    path.write_text(secrets.token_hex(32))
    return path
