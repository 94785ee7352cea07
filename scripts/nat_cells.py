"""Two daemons, each at a site of some kind: do they meet, how, and can they answer together?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement, product
from typing import Final

from lab_swarm import Asked, Daemon, LabError, LabSwarm, ask, wait_until
from netlab import Kind

from protocol.methods import PeerRow

DIRECT: Final = "direct"
RELAYED: Final = "relayed"
PATIENCE_S: Final = 30.0
"""How long a pair may take to meet, and then to become direct."""
JOIN_S: Final = 20.0
"""How long a daemon may take to reach a bootstrap."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A pair of kinds; the daemon at ``b`` starts when the one at ``a`` is there."""

    a: Kind
    b: Kind

    @classmethod
    def parse(cls, text: str) -> Cell:
        """The cell that is written ``KIND/KIND``.

        Raises:
            ValueError: it is not.
        """
        a, b = text.split("/")
        return cls(Kind(a), Kind(b))

    def __str__(self) -> str:
        """As :meth:`parse` reads it."""
        return f"{self.a}/{self.b}"

    @property
    def expected(self) -> str:
        """``direct`` where one side is public or both mappings are endpoint-independent.

        Elsewhere ``relayed``: towards a symmetric NAT nobody knows the port to open.
        """
        sides = (self.a, self.b)
        if Kind.PUBLIC in sides or Kind.SYMMETRIC not in sides:
            return DIRECT
        return RELAYED


def matrix(kinds: Sequence[Kind], all_orders: bool = False) -> list[Cell]:
    """Every pair of ``kinds``, once; with ``all_orders`` in both orders."""
    pairs = product(kinds, repeat=2) if all_orders else combinations_with_replacement(kinds, 2)
    return [Cell(a, b) for a, b in pairs]


@dataclass(frozen=True, slots=True)
class Run:
    """What happened in one run of a cell. Seconds count from the start of the process at B.

    Attributes:
        serves_s: until B served its control socket.
        link_s: until A had a link to B; None: never.
        first: the path of that link.
        message_s: until both had heard from each other what they run.
        path: in the end, ``direct`` only if both say so.
        direct_s: from link to direct path by the slower side's own account; 0: from the start.
        why: what A says of why it is relayed.
        asked_a: a question put to A that both had to answer;  asked_b: to B.
        trouble: what went wrong; empty where all is as expected.
    """

    a: str
    b: str
    expected: str
    serves_s: float | None = None
    link_s: float | None = None
    first: str = ""
    message_s: float | None = None
    path: str = ""
    direct_s: float | None = None
    why: str = ""
    asked_a: Asked | None = None
    asked_b: Asked | None = None
    trouble: str = ""

    @property
    def answered(self) -> bool:
        """Whether both questions were."""
        return all(asked is not None and asked.full for asked in (self.asked_a, self.asked_b))


def start_relays(swarm: LabSwarm) -> list[Daemon]:
    """A bootstrap and relay on every public host, each knowing the others; all serve.

    Raises:
        LabError: one does not.
    """
    relays = [swarm.relay(host) for host in swarm.lab.observers]
    for relay in relays:
        swarm.start(relay, *swarm.join(other for other in relays if other is not relay))
    swarm.serving(*relays)
    return relays


def joined(daemon: Daemon, others: Iterable[Daemon]) -> bool | None:
    """True once ``daemon`` is connected to all ``others``, else None."""
    known = {row.peer for row in daemon.rows()}
    return all(other.peer in known for other in others) or None


def run_cell(
    swarm: LabSwarm,
    relays: Sequence[Daemon],
    cell: Cell,
    patience_s: float = PATIENCE_S,
    together: bool = False,
) -> Run:
    """Start a daemon at A and one at B, with new identities, and see what becomes of them.

    The relays stay up from run to run: they know the peers of earlier runs as peers that left.

    Args:
        patience_s: they have so long to meet, and as long again to become direct.
        together: start both at once; else B starts when A is connected to all relays.
    """
    swarm.lab.set_kind("a", cell.a)
    swarm.lab.set_kind("b", cell.b)
    a, b = swarm.node("a", relays), swarm.node("b", relays)
    try:
        for relay in relays:
            relay.check()
        swarm.start(a)
        if not together:
            swarm.serving(a)
            if wait_until(lambda: joined(a, relays), JOIN_S) is None:
                raise LabError(f"A reaches not all bootstraps in {JOIN_S:.0f} s. {a.log_end()}")
        swarm.start(b)
        return _watch(swarm, cell, a, b, patience_s)
    except LabError as error:
        return Run(cell.a, cell.b, cell.expected, trouble=str(error))
    finally:
        swarm.stop(a, b)


def _watch(swarm: LabSwarm, cell: Cell, a: Daemon, b: Daemon, patience_s: float) -> Run:
    swarm.serving(b)
    serves_s = b.age()
    met = wait_until(lambda: a.row(b), patience_s)
    if met is None:
        trouble = f"They did not meet within {patience_s:.0f} s. {a.log_end()}\n{b.log_end()}"
        return Run(cell.a, cell.b, cell.expected, serves_s, trouble=trouble)
    link_s = b.age()
    pair = wait_until(lambda: heard(a, b), patience_s)
    message_s = b.age() if pair is not None else None
    if cell.expected == DIRECT:
        pair = wait_until(lambda: direct(a, b), patience_s) or pair
    asked_a, asked_b = ask(a), ask(b)
    pair = rows(a, b) or pair
    run = Run(
        cell.a,
        cell.b,
        cell.expected,
        serves_s,
        link_s,
        met.path,
        message_s,
        path_of(pair),
        direct_s_of(pair),
        pair[0].why if pair else "",
        asked_a,
        asked_b,
    )
    return replace(run, trouble=_trouble(run, a, b))


Pair = tuple[PeerRow, PeerRow]
"""What A says of B, and B of A."""


def rows(a: Daemon, b: Daemon) -> Pair | None:
    """Both rows; None while one is missing."""
    there, back = a.row(b), b.row(a)
    return (there, back) if there and back else None


def heard(a: Daemon, b: Daemon) -> Pair | None:
    """Both rows once both have heard what the other runs."""
    pair = rows(a, b)
    return pair if pair and all(row.model for row in pair) else None


def direct(a: Daemon, b: Daemon) -> Pair | None:
    """Both rows once both say that the path is direct."""
    pair = rows(a, b)
    return pair if path_of(pair) == DIRECT else None


def path_of(pair: Pair | None) -> str:
    """The path that both can use; empty where there is none."""
    if pair is None:
        return ""
    return DIRECT if all(row.path == DIRECT for row in pair) else RELAYED


def direct_s_of(pair: Pair | None) -> float | None:
    """Seconds from link to direct path, of the slower side; None where it is not direct."""
    if pair is None or path_of(pair) != DIRECT:
        return None
    return max((row.direct_s for row in pair if row.direct_s is not None), default=None)


def _trouble(run: Run, a: Daemon, b: Daemon) -> str:
    wrong = []
    if run.expected == DIRECT and run.path != DIRECT:
        wrong.append(f"It stayed {run.path or 'unconnected'}: {run.why or 'no reason given'}.")
    for name, asked in (("A", run.asked_a), ("B", run.asked_b)):
        if asked is not None and not asked.full:
            wrong.append(f"{name}'s question: {asked.outcome}, {asked.answers} answers.")
    return "\n".join([*wrong, a.log_end(), b.log_end()]) if wrong else ""
