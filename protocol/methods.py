"""The methods of the control socket: what each takes and what it returns, as typed values.

Params refuse unknown fields and everything out of bounds. Results allow unknown fields, and each
of their fields has a default, so that a client and a daemon of neighbouring versions understand
each other. How calls travel is :mod:`protocol.rpc`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, NewType

from msgspec import Meta, Struct

from protocol import limits

TIMEOUT_S: Final = limits.PHASE_MS / 1000
"""The longest time a question may be given, in seconds."""
EXCERPT_CHARS: Final = 200
"""Questions and answers in listings are cut to this many characters."""

AskId = NewType("AskId", str)
"""Names one accepted question at one daemon."""


# --- params -----------------------------------------------------------------------------------


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """The params of a method that takes none."""


class AskParams(Struct, frozen=True, forbid_unknown_fields=True):
    """A question for the swarm.

    Attributes:
        question: what is asked; 1 to ``limits.QUESTION_BYTES`` bytes of UTF-8.
        timeout_s: seconds until the round closes with what it has; None: as configured.
        min_answers: fewer answers than this are "no peers"; None: as configured.
        peers: at most so many are asked; None: as many as serve best.
        answer_tokens: what an answer may take; None: as usual.
        energy_j: joules for all answers together, as far as peers advertise what they use.
        stop_at: judging ends once the winner's confidence reaches this; None: as configured.
    """

    question: Annotated[str, Meta(min_length=1)]
    timeout_s: Annotated[float, Meta(gt=0, le=TIMEOUT_S)] | None = None
    min_answers: Annotated[int, Meta(ge=1, le=limits.COMMITTEE)] | None = None
    peers: Annotated[int, Meta(ge=1, le=limits.COMMITTEE)] | None = None
    answer_tokens: Annotated[int, Meta(ge=1, le=limits.ANSWER_TOKENS)] | None = None
    energy_j: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    stop_at: Annotated[float, Meta(gt=0, lt=1)] | None = None

    def __post_init__(self) -> None:
        if not self.question.strip():
            raise ValueError("the question is empty")
        size = len(self.question.encode())
        if size > limits.QUESTION_BYTES:
            raise ValueError(
                f"the question has {size} bytes, at most {limits.QUESTION_BYTES} are taken"
            )
        if (self.peers or limits.COMMITTEE) < (self.min_answers or 1):
            raise ValueError("fewer peers are to be asked than are to answer")


class CancelParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Which question to cancel."""

    ask: Annotated[AskId, Meta(min_length=1, max_length=64)]


class HistoryParams(Struct, frozen=True, forbid_unknown_fields=True):
    """How many of the latest questions to list."""

    limit: Annotated[int, Meta(ge=1, le=limits.RPC_HISTORY_ROWS)] = 20


class WhyParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Which round to explain: the first hex digits of its id."""

    round: Annotated[str, Meta(pattern=r"^[0-9a-f]{4,64}\Z")]


class GradeParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the answer of a round was right.

    Attributes:
        round: the first hex digits of its id.
        answer: the right answer, where it is known.
    """

    round: Annotated[str, Meta(pattern=r"^[0-9a-f]{4,64}\Z")]
    right: bool
    answer: Annotated[str, Meta(min_length=1, max_length=limits.ANSWER_BYTES)] | None = None


class CalibrateParams(Struct, frozen=True, forbid_unknown_fields=True):
    """How many calibration rounds to run now."""

    rounds: Annotated[int, Meta(ge=1, le=limits.CALIBRATE_ROUNDS)] = 120


class CapabilityParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Whose capability: the first or last characters of its peer id; None: of all.

    Attributes:
        topic: weights and curves for questions of this topic; None: for unknown topics.
    """

    peer: Annotated[str, Meta(min_length=4, max_length=64)] | None = None
    topic: Annotated[str, Meta(max_length=limits.TEXT_CHARS)] | None = None


class FindParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Which peer to look for.

    Attributes:
        peer: its peer id, or of a connected peer either end of it.
        dht: ask the DHT, whatever is known here already.
    """

    peer: Annotated[str, Meta(min_length=4, max_length=64)]
    dht: bool = False


class PeersParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Which peers.

    Attributes:
        all: also those that are in the swarm without a link to this node.
    """

    all: bool = False


class StateImportParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Which file of logs to take in, see :mod:`protocol.bundle`.

    Attributes:
        path: absolute; the daemon reads it.
    """

    path: Annotated[str, Meta(pattern="^/", max_length=4096)]


class StateLabelParams(Struct, frozen=True, forbid_unknown_fields=True):
    """What this node is to be called.

    Attributes:
        label: printable; empty for none.
    """

    label: Annotated[str, Meta(max_length=limits.LABEL_CHARS)]

    def __post_init__(self) -> None:
        if not self.label.isprintable() or self.label != self.label.strip():
            raise ValueError("a label takes printable characters, and no space at its ends")


METHODS: Final[Mapping[str, type[Struct]]] = {
    "ask": AskParams,
    "cancel": CancelParams,
    "status": Nothing,
    "peers": PeersParams,
    "doctor": Nothing,
    "find": FindParams,
    "history": HistoryParams,
    "why": WhyParams,
    "grade": GradeParams,
    "calibrate": CalibrateParams,
    "capability": CapabilityParams,
    "config": Nothing,
    "state-import": StateImportParams,
    "state-label": StateLabelParams,
    "shutdown": Nothing,
}
"""Every method and the type of its params. ``ask``, ``why`` and ``capability`` return a JSON
object, the others the struct of that name below, ``shutdown`` an empty object."""


# --- results ----------------------------------------------------------------------------------


class Cancelled(Struct, frozen=True):
    """Whether the question was still open, and is now cancelled."""

    cancelled: bool = False


class Graded(Struct, frozen=True):
    """What a grade became.

    Attributes:
        round: its id in full.
        topic: as inferred from the question, empty where unknown.
        right: whether the swarm's answer was.
        peers: of whose answers it is evidence.
        pairs: verdicts of which it is evidence.
    """

    round: str = ""
    topic: str = ""
    right: bool = False
    peers: int = 0
    pairs: float = 0.0


class Calibrated(Struct, frozen=True):
    """Calibration rounds that were run.

    Attributes:
        rounds: that ended with answers.
        failed: that did not.
        informative: in which some answers were right and some wrong.
        chosen: in which the swarm chose a right answer.
        trials: known in all, of this and earlier runs.
        admitted: peers that have passed the admission test.
        quorum: of them it takes so many, or all that were not found out, for weights to differ.
        confidence_rounds: with weights it takes so many rounds for a confidence.
    """

    rounds: int = 0
    failed: int = 0
    informative: int = 0
    chosen: int = 0
    trials: int = 0
    admitted: int = 0
    quorum: int = 0
    confidence_rounds: int = 0


class StateImported(Struct, frozen=True):
    """What became of a file of logs.

    Attributes:
        logs: that were read from it.
        new: of them, those that brought something new.
        known: those all of which was held before.
        entries: that are new.
        forks: authors now known to have forked, or to have done so earlier.
        refused: logs that were not taken, by the code of the error.
        damaged: what is wrong with the file; the logs before that were taken. Empty where it is
            whole.
    """

    logs: int = 0
    new: int = 0
    known: int = 0
    entries: int = 0
    forks: int = 0
    refused: dict[str, int] = {}
    damaged: str = ""


class StateLabelled(Struct, frozen=True):
    """What this node calls itself.

    Attributes:
        waits: why it is not in its log yet, for people; empty where nothing stands in the way.
    """

    label: str = ""
    waits: str = ""


class Ledger(Struct, frozen=True):
    """How this node's replica of all logs is.

    Attributes:
        epoch: the week of Unix time.
        authors: who has a ticket for it.
        guests: linked peers whose logs are held without one.
        entries, bytes: of all logs held, proofs of forks among the bytes.
        forked: authors that contradict themselves.
        own_entries: of this node in this epoch.
        own_waits: why its log is not written, for people; empty where nothing stands in the way.
        ticket: its own for this epoch: ``stamp``, ``certificate``, ``none``, or ``being made`` and
            how likely it would be done by now.
        root: hex digest of all logs with a ticket; two nodes with the same one hold the same
            ones. Empty where there are none.
        exchanges: finished, begun by this node.
        last_exchange_s: seconds since the last; None before the first.
        joined: peer ids of those with whom it compared everything first.
        agree: whether these held the same in the end; None until there were two.
        refused: what was not taken, and requests not answered, by the code of the error.
        disconnected: peers cut off for it.
        moved_aside: where the database was put that was found damaged at the start; empty where
            it was not.
    """

    epoch: int = 0
    authors: int = 0
    guests: int = 0
    entries: int = 0
    bytes: int = 0
    forked: int = 0
    own_entries: int = 0
    own_waits: str = ""
    ticket: str = ""
    root: str = ""
    exchanges: int = 0
    last_exchange_s: float | None = None
    joined: tuple[str, ...] = ()
    agree: bool | None = None
    refused: dict[str, int] = {}
    disconnected: int = 0
    moved_aside: str = ""


class Status(Struct, frozen=True):
    """How the node is.

    Attributes:
        version: of swarmd.
        peer: this node's peer id as text.
        swarm: the name of the swarm it is in.
        uptime_s: seconds since start.
        addresses: multiaddrs others can dial.
        model: what it runs.
        device: where the model runs.
        peers: connected peers, oneself not counted.
        asks_running: its own questions in a round now.
        asks_waiting: accepted questions that wait for their round.
        rounds_serving: other peers' rounds it takes part in now.
        ledger: its replica of all logs.
    """

    version: str = ""
    peer: str = ""
    swarm: str = ""
    uptime_s: float = 0.0
    addresses: tuple[str, ...] = ()
    model: str = ""
    device: str = ""
    peers: int = 0
    asks_running: int = 0
    asks_waiting: int = 0
    rounds_serving: int = 0
    ledger: Ledger = Ledger()


class PeerRow(Struct, frozen=True):
    """One peer.

    Attributes:
        peer: its peer id as text.
        path: ``self``, ``direct`` or ``relayed``; ``known`` where it is not connected.
        address: the multiaddr in use; of who is not connected, the first that it states.
        model: what it runs, as it says; empty where it has not said.
        agent: its software, as it says.
        rtt_ms: round-trip time, None until measured.
        age_s: seconds since the link came up.
        direct_s: seconds from then to the direct path: 0 where it always was, None while relayed.
        why: why it is relayed.
        label: what its operator calls it.
        since: from when on its log is held, Unix time in seconds by its own clock; 0 where none is.
        forked: it contradicts itself in its log, and is not asked.
    """

    peer: str = ""
    path: str = ""
    address: str = ""
    model: str = ""
    agent: str = ""
    rtt_ms: float | None = None
    age_s: float = 0.0
    direct_s: float | None = None
    why: str = ""
    label: str = ""
    since: int = 0
    forked: bool = False


class Peers(Struct, frozen=True):
    """The peers connected now, and perhaps the others in the swarm."""

    peers: tuple[PeerRow, ...] = ()


class Found(Struct, frozen=True):
    """Where a peer says that it is.

    Attributes:
        via: ``swarm`` (told by peers), ``dht`` (looked up there), ``self`` or ``nowhere``.
        addresses: multiaddrs under which it says that it can be dialled.
        nat: how it is reached: ``public``, ``open``, ``closed`` or ``unknown``.
        relay: whether it relays for others.
        stated_at: when it said so, Unix time in seconds by its own clock.
    """

    peer: str = ""
    via: str = "nowhere"
    swarm: str = ""
    addresses: tuple[str, ...] = ()
    nat: str = "unknown"
    relay: bool = False
    stated_at: int = 0


class Finding(Struct, frozen=True):
    """One thing that `swarm doctor` has looked at.

    Attributes:
        level: ``ok``, ``note``, ``warn`` (it works, but not as well as it could) or ``trouble``.
        about: a short stable name of what was looked at, such as ``bootstrap`` or ``clock``.
        text: what was found.
        cause: why, where it is not well.
        next: the command or step that helps, where there is one.
    """

    level: str = ""
    about: str = ""
    text: str = ""
    cause: str = ""
    next: str = ""


class Reachability(Struct, frozen=True):
    """How the node is seen from outside.

    Attributes:
        nat: ``public``, ``open``, ``closed`` or ``unknown``.
        mapping: ``none``, ``port-preserving``, ``port-rewriting``, ``symmetric`` or ``unknown``.
        observers: peers at different addresses that the mapping rests on.
        observed: the outside addresses seen.
        confirmed_by: peer ids of those that got through, strangers first.
        by_stranger: whether one of them had no connection with this node before.
        tried: attempts of others to connect that count.
    """

    nat: str = "unknown"
    mapping: str = "unknown"
    observers: int = 0
    observed: tuple[str, ...] = ()
    confirmed_by: tuple[str, ...] = ()
    by_stranger: bool = False
    tried: int = 0


class BootstrapRow(Struct, frozen=True):
    """A peer that the operator has named.

    Attributes:
        failures: dials in a row that failed.
    """

    peer: str = ""
    addresses: tuple[str, ...] = ()
    linked: bool = False
    failures: int = 0
    error: str = ""


class RelayRow(Struct, frozen=True):
    """A relay at which others can reach this node."""

    relay: str = ""
    address: str = ""
    since_s: float = 0.0


class Relaying(Struct, frozen=True):
    """What the node does as a relay for others; refusals by reason."""

    open: bool = False
    reservations: int = 0
    circuits: int = 0
    bytes_relayed: int = 0
    refused: dict[str, int] = {}


class Doctor(Struct, frozen=True):
    """The state of the node's connections, and what is wrong with them.

    Attributes:
        health: the worst level of the findings.
        listening: the sockets listened on.
        addresses: under which others are told to dial this node.
        links, relayed: peers connected, and how many of them through a relay.
        members: peers that have stated lately that they are in the swarm.
        skew_s: seconds by which the median clock of the peers is ahead of this one's.
        agents: software of the connected peers, and how many run it.
        refused: connections, streams and greetings refused, by reason.
        services: state in words of each way of finding peers and ports.
        private: whether it takes a key to connect.
        merges: how often two parts of the swarm were found and joined.
        bytes_sent, bytes_received: over TCP since the start, handshakes and all.
        calls: of peers that this node has answered, by method.
    """

    health: str = ""
    findings: tuple[Finding, ...] = ()
    listening: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    reach: Reachability = Reachability()
    bootstraps: tuple[BootstrapRow, ...] = ()
    relays: tuple[RelayRow, ...] = ()
    relaying: Relaying = Relaying()
    links: int = 0
    relayed: int = 0
    members: int = 0
    skew_s: float | None = None
    agents: dict[str, int] = {}
    refused: dict[str, int] = {}
    services: dict[str, str] = {}
    private: bool = False
    merges: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    calls: dict[str, int] = {}


class HistoryRow(Struct, frozen=True):
    """One question this node was asked.

    Attributes:
        ask: its id.
        question: cut to ``EXCERPT_CHARS``.
        state: accepted, running, done, failed or cancelled.
        accepted_at: Unix time in seconds.
        finished_at: Unix time in seconds, None while open.
        attempt: how many rounds were begun for it.
        round: hex id of the latest round, None before the first.
        outcome: of the round, or the code of the error that ended it; empty while open.
        answer: cut to ``EXCERPT_CHARS``; None where there is none.
    """

    ask: AskId = AskId("")
    question: str = ""
    state: str = ""
    accepted_at: float = 0.0
    finished_at: float | None = None
    attempt: int = 0
    round: str | None = None
    outcome: str = ""
    answer: str | None = None


class History(Struct, frozen=True):
    """The latest questions, newest first."""

    asks: tuple[HistoryRow, ...] = ()


class SettingRow(Struct, frozen=True):
    """One configured value and where it comes from."""

    key: str = ""
    value: str | int | float | bool | tuple[str, ...] = ""
    source: str = ""


class Settings(Struct, frozen=True):
    """The configuration in force."""

    settings: tuple[SettingRow, ...] = ()


class Progress(Struct, frozen=True):
    """The params of a ``progress`` notification.

    Attributes:
        ask: the question it is about.
        event: a JSON object; its ``kind`` says what happened.
    """

    ask: AskId
    event: dict[str, Any]
