"""One tree of errors: the class docstring is what a user reads, the message adds particulars.

Every class has a stable ``code`` for programs and an ``exit_code`` for the shell. An error says
what happened, to which peer or file, and what to do next.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_ANSWER = 0
EXIT_USAGE = 2
EXIT_NO_DAEMON = 3
EXIT_NO_CONSENSUS = 4
EXIT_PARTIAL = 5
EXIT_NO_PEERS = 6
EXIT_NONE_RIGHT = 7
EXIT_DAEMON = 8
EXIT_INVALID = 9
EXIT_LIMITED = 10
EXIT_TROUBLE = 11
EXIT_CANCELLED = 130


class SwarmError(Exception):
    """Something went wrong in swarmd."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = EXIT_DAEMON

    def user_text(self) -> str:
        """What the user reads: the class's sentence, then the particulars."""
        sentence = " ".join((type(self).__doc__ or "").split("\n\n")[0].split())
        detail = str(self)
        return f"{sentence} {detail}" if detail else sentence


# --- what a peer may have sent --------------------------------------------------------------


class ProtocolError(SwarmError):
    """A peer broke the protocol."""

    code = "protocol"


class MalformedIdError(ProtocolError):
    """This is not a valid identifier."""

    code = "malformed-id"
    exit_code = EXIT_USAGE


class DecodeError(ProtocolError):
    """These bytes are not a message of this protocol."""

    code = "decode"


class TooLargeError(ProtocolError):
    """A message exceeds its size limit."""

    code = "too-large"


class BadSignatureError(ProtocolError):
    """The signature does not match the signer and the bytes."""

    code = "bad-signature"


class VersionMismatchError(ProtocolError):
    """The peer speaks no protocol version that this node speaks."""

    code = "version-mismatch"


class RefusedError(ProtocolError):
    """A message does not follow from what came before it."""

    code = "refused"


class ClockError(RefusedError):
    """A message is of another time than now."""

    code = "clock"


class ProofError(ProtocolError):
    """This proof does not convict its signer."""

    code = "proof"


class ForkError(ProtocolError):
    """This does not prove that its author forked."""

    code = "fork"


class ForkedError(ProtocolError):
    """The author of this has signed two entries for one place; nothing from there on counts."""

    code = "forked"


class GapError(ProtocolError):
    """This does not follow from what is held.

    Attributes:
        have: from which entry on it would.
    """

    code = "gap"

    def __init__(self, have: int = 0) -> None:
        super().__init__(f"It would from entry {have} on.")
        self.have = have


class UpdateError(ProtocolError):
    """This is not an update that the author's document takes."""

    code = "update"


class AdmissionError(ProtocolError):
    """The author of this log is not admitted in its epoch."""

    code = "admission"


class TicketError(AdmissionError):
    """This ticket does not admit the author of this log in its epoch."""

    code = "ticket"


class QuotaError(ProtocolError):
    """A peer wants more than one peer gets."""

    code = "quota"


class WrongSwarmError(ProtocolError):
    """The peer belongs to another swarm."""

    code = "wrong-swarm"


# --- the mesh ---------------------------------------------------------------------------------


class MeshError(SwarmError):
    """The mesh could not do this."""

    code = "mesh"


class UnreachableError(MeshError):
    """The peer cannot be reached."""

    code = "unreachable"


class BackpressureError(MeshError):
    """The peer does not keep up, and its send queue is full."""

    code = "backpressure"


class CallError(MeshError):
    """The peer did not do what it was asked."""

    code = "call"


class CircuitError(MeshError):
    """The relay does not connect."""

    code = "circuit"


class PunchError(MeshError):
    """No direct connection came about."""

    code = "punch"


class ListenError(MeshError):
    """The node cannot listen on its address. Is another swarmd using the port?"""

    code = "listen"


# --- models -----------------------------------------------------------------------------------


class BackendError(SwarmError):
    """The model backend failed."""

    code = "backend"


class ModelNotFoundError(BackendError):
    """There is no model there. Give a directory that holds config.json, or a bundled name."""

    code = "model-not-found"
    exit_code = EXIT_USAGE


class BackendBusyError(BackendError):
    """The model is busy and its queue is full."""

    code = "backend-busy"


# --- the daemon and its surroundings --------------------------------------------------------


class UsageError(SwarmError):
    """The command cannot be used this way."""

    code = "usage"
    exit_code = EXIT_USAGE


class ConfigError(SwarmError):
    """The configuration is not usable."""

    code = "config"
    exit_code = EXIT_USAGE


class IdentityError(SwarmError):
    """The node's key cannot be used."""

    code = "identity"
    exit_code = EXIT_USAGE


class DataDirError(SwarmError):
    """The data directory cannot be used."""

    code = "data-dir"
    exit_code = EXIT_USAGE


class StoreError(SwarmError):
    """The store failed."""

    code = "store"


class SocketPathError(SwarmError):
    """The control socket cannot be made here."""

    code = "socket-path"
    exit_code = EXIT_USAGE


class NoDaemonError(SwarmError):
    """No swarmd is listening. Start one with `swarmd`, or name its socket with --socket."""

    code = "no-daemon"
    exit_code = EXIT_NO_DAEMON


class DaemonGoneError(SwarmError):
    """The daemon went away before it answered. An accepted question is kept: `swarm history`."""

    code = "daemon-gone"
    exit_code = EXIT_DAEMON


class DaemonSilentError(SwarmError):
    """The daemon is there but does not answer. See its log, or restart `swarmd`."""

    code = "daemon-silent"


class BusyError(SwarmError):
    """The daemon has all the work it takes. Try again later."""

    code = "busy"


class RpcError(SwarmError):
    """The daemon refused the request."""

    code = "rpc"


# --- questions and receipts -------------------------------------------------------------------


class NoPeersError(SwarmError):
    """Not enough peers can answer. See `swarm peers`, or lower --min-answers."""

    code = "no-peers"
    exit_code = EXIT_NO_PEERS


class CancelledError(SwarmError):
    """The question was cancelled."""

    code = "cancelled"
    exit_code = EXIT_CANCELLED


class InternalError(SwarmError):
    """Something in swarmd itself failed; the daemon's log says what."""

    code = "internal"


class InterruptedQuestionError(SwarmError):
    """The daemon ended each time before the question was answered."""

    code = "interrupted"


class UnknownRoundError(SwarmError):
    """This node knows no such round. `swarm history` lists those it knows."""

    code = "unknown-round"
    exit_code = EXIT_USAGE


class UnknownPeerError(SwarmError):
    """No peer, or more than one, is meant by this."""

    code = "unknown-peer"
    exit_code = EXIT_USAGE


class UngradableError(SwarmError):
    """The grade does not fit the round."""

    code = "ungradable"
    exit_code = EXIT_USAGE


class ReceiptError(SwarmError):
    """The receipt does not hold."""

    code = "receipt"
    exit_code = EXIT_INVALID


class BundleError(SwarmError):
    """The logs in this file cannot be read."""

    code = "bundle"
    exit_code = EXIT_INVALID
