"""What a pair of daemons has to survive, and how long it takes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from lab_swarm import Asked, Daemon, LabError, LabSwarm, ask, wait_until
from nat_cells import (
    DIRECT,
    JOIN_S,
    PATIENCE_S,
    Cell,
    Pair,
    direct,
    heard,
    joined,
    path_of,
    rows,
    start_relays,
)
from netlab import Kind

HEAL_S: Final = 120.0
"""How long healing may take."""
PROBE_S: Final = 1.5
"""How long a question may take that finds out whether the pair is back."""


@dataclass(frozen=True, slots=True)
class Healed:
    """What became of a pair after an event. Seconds count from the event.

    Attributes:
        before: the path.
        lost_s: until one side no longer had the link; None: never.
        back_s: until a question was put to A that both answered; None: never.
        after: the path then.
        direct_s: until it was direct, if it was before; None: never, or it was not.
        newcomer_s: until one who starts after the event knows both; None: nobody starts, or never.
        asked: in the end, a question put to B that all had to answer.
        trouble: what went wrong; empty where all is as it should be.
    """

    scenario: str
    a: str
    b: str
    before: str = ""
    lost_s: float | None = None
    back_s: float | None = None
    after: str = ""
    direct_s: float | None = None
    newcomer_s: float | None = None
    asked: Asked | None = None
    trouble: str = ""


@dataclass(slots=True)
class _Scene:
    """A settled pair and its relays."""

    swarm: LabSwarm
    cell: Cell
    relays: list[Daemon]
    a: Daemon
    b: Daemon

    def settled(self) -> Pair:
        met = direct if self.cell.expected == DIRECT else heard
        pair = wait_until(lambda: met(self.a, self.b), PATIENCE_S)
        if pair is None:
            raise LabError(f"A and B did not settle. {self.a.log_end()}\n{self.b.log_end()}")
        return pair


Event = Callable[[_Scene, Pair], None]


@dataclass(frozen=True, slots=True)
class Scenario:
    """An event that befalls a settled pair.

    Attributes:
        help: one line.
        cell: where A and B are, unless told otherwise.
        event: does it.
        relays: how many are up before; None: all.
        newcomer: whether another one joins afterwards.
    """

    help: str
    cell: Cell
    event: Event
    relays: int | None = None
    newcomer: bool = False


def heal(swarm: LabSwarm, name: str, cell: Cell | None = None) -> Healed:
    """Let a scenario of :data:`SCENARIOS` happen to a new pair, and watch."""
    scenario = SCENARIOS[name]
    where = cell or scenario.cell
    try:
        scene = _prepare(swarm, scenario, where)
        return _happen(scene, name, scenario)
    except LabError as error:
        return Healed(name, where.a, where.b, trouble=str(error))


def _prepare(swarm: LabSwarm, scenario: Scenario, cell: Cell) -> _Scene:
    relays = start_relays(swarm)
    swarm.stop(*relays[scenario.relays :] if scenario.relays else ())
    relays = relays[: scenario.relays]
    swarm.lab.set_kind("a", cell.a)
    swarm.lab.set_kind("b", cell.b)
    swarm.lab.set_kind("c", Kind.PRESERVING)
    a, b = swarm.node("a", relays), swarm.node("b", relays)
    swarm.start(a)
    swarm.start(b)
    swarm.serving(a, b)
    return _Scene(swarm, cell, relays, a, b)


def _happen(scene: _Scene, name: str, scenario: Scenario) -> Healed:
    a, b = scene.a, scene.b
    settled = scene.settled()
    began = time.monotonic()
    scenario.event(scene, settled)

    def since() -> float:
        return time.monotonic() - began

    lost: list[float] = []

    def back() -> float | None:
        # Rows can be of a link that is dead and not yet known to be: only an answer proves it.
        if rows(a, b) is None and not lost:
            lost.append(since())
        at = since()
        return at if heard(a, b) and ask(a, timeout_s=PROBE_S).full else None

    back_s = wait_until(back, HEAL_S)
    after = path_of(rows(a, b))
    direct_s = newcomer_s = None
    if back_s is not None and path_of(settled) == DIRECT:
        again = wait_until(lambda: direct(a, b), HEAL_S)
        direct_s = since() if again else None
    answers = 2
    if back_s is not None and scenario.newcomer:
        newcomer = scene.swarm.node("c", scene.relays)
        scene.swarm.start(newcomer)
        scene.swarm.serving(newcomer)
        if wait_until(lambda: joined(newcomer, (a, b)), HEAL_S):
            newcomer_s = newcomer.age()
            answers = 3
            for other in (a, b):
                wait_until(partial(heard, other, newcomer), JOIN_S)
    asked = None if back_s is None else ask(b, answers)
    healed = Healed(
        name,
        scene.cell.a,
        scene.cell.b,
        path_of(settled),
        lost[0] if lost else None,
        back_s,
        after,
        direct_s,
        newcomer_s,
        asked,
    )
    return replace(healed, trouble=_trouble(healed, scenario, scene))


def _trouble(healed: Healed, scenario: Scenario, scene: _Scene) -> str:
    wrong = []
    if healed.back_s is None:
        wrong.append(f"No question answered within {HEAL_S:.0f} s.")
    elif healed.before == DIRECT and healed.direct_s is None:
        wrong.append("It was direct before and is not again.")
    if healed.asked is not None and not healed.asked.full:
        wrong.append(f"The question: {healed.asked.outcome}, {healed.asked.answers} answers.")
    if scenario.newcomer and healed.newcomer_s is None:
        wrong.append("The newcomer does not know both.")
    return "\n".join([*wrong, scene.a.log_end(), scene.b.log_end()]) if wrong else ""


# --- events -------------------------------------------------------------------------------------


def _kill_relay_in_use(scene: _Scene, pair: Pair) -> None:
    used = [relay for relay in scene.relays if relay.peer in pair[0].address]
    if not used:
        raise LabError(f"The path of the pair goes through no relay: {pair[0].address}.")
    scene.swarm.kill(used[0])


def _restart_relay(scene: _Scene, pair: Pair) -> None:
    (relay,) = scene.relays
    scene.swarm.kill(relay)
    scene.swarm.start(relay)


def _kill_bootstrap(scene: _Scene, pair: Pair) -> None:
    scene.swarm.kill(scene.relays[0])


def _change_address(scene: _Scene, pair: Pair) -> None:
    scene.swarm.lab.move("a", "c")


def _reboot_nat(scene: _Scene, pair: Pair) -> None:
    scene.swarm.lab.drop_mappings("a")


_NATS: Final = Cell(Kind.PRESERVING, Kind.PRESERVING)
_RELAYED: Final = Cell(Kind.SYMMETRIC, Kind.SYMMETRIC)

SCENARIOS: Final[Mapping[str, Scenario]] = {
    "relay-kill": Scenario(
        "the relay between A and B is killed; others are there", _RELAYED, _kill_relay_in_use
    ),
    "relay-restart": Scenario(
        "the only relay is killed and started again", _RELAYED, _restart_relay, relays=1
    ),
    "bootstrap-kill": Scenario(
        "the first bootstrap is killed; a newcomer has it first on its list",
        _NATS,
        _kill_bootstrap,
        newcomer=True,
    ),
    "address-change": Scenario("A moves to another LAN behind another NAT", _NATS, _change_address),
    "nat-reboot": Scenario("A's NAT drops all its mappings", _NATS, _reboot_nat),
}
