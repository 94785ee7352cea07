"""Every number that an attacker could grow stands here, in one table.

Sizes are bytes, durations milliseconds unless the name says otherwise. Raising one is a
protocol decision: the other side refuses what exceeds its own table.
"""

from __future__ import annotations

from typing import Final

# --- bytes on the wire ------------------------------------------------------------------------
FRAME_BYTES: Final = 1 << 20
"""The largest frame; also the largest payload a mesh accepts."""
HELLO_BYTES: Final = 1 << 10
"""The first frame of a stream, before anything is known of the peer."""

# --- a round ------------------------------------------------------------------------------------
QUESTION_BYTES: Final = 32 << 10
ANSWER_BYTES: Final = 16 << 10
ANSWER_TOKENS: Final = 4096
COMMITTEE: Final = 48
"""Peers invited to one round."""
ROWS_PER_BALLOT: Final = 512
WAVES: Final = 16
STAGES: Final = 8
DUELS: Final = 64
"""Draws that choose the pairs of an adaptive wave."""
PHASE_MS: Final = 15 * 60 * 1000
"""The longest phase that a participant agrees to."""
TEXT_CHARS: Final = 256
"""Names, reasons and the like: short human text."""

# --- a node ---------------------------------------------------------------------------------------
ROUNDS_AT_ONCE: Final = 16
"""Rounds of others that a node takes part in at once, all askers together."""
ROUNDS_PER_ASKER: Final = 4
STRANGERS_AT_ONCE: Final = 4
"""Rounds served at once for all those together that have not served this node as much."""
ROUNDS_REMEMBERED: Final = 1 << 20
"""Ids kept on disk of rounds with a Commit of this node, newest first, so that none is answered
twice. An asker that wants one forgotten has to make the model answer that many Invites."""
ASKS_AT_ONCE: Final = 4
ASKS_QUEUED: Final = 256
"""Accepted questions that wait; beyond this `ask` is refused before it is accepted."""
ENVELOPES_PER_PEER: Final = 64
"""Messages of one peer kept in one round, whatever they are."""
PEERS: Final = 256
"""Connections at once."""
SEND_QUEUE_MESSAGES: Final = 256
SEND_QUEUE_BYTES: Final = 8 << 20
"""Payloads waiting for one peer."""
INBOX_MESSAGES: Final = 1024
MALFORMED_PER_PEER: Final = 8
"""Malformed payloads in one connection before it is closed."""

# --- what peers know of each other ----------------------------------------------------------------
PROOF_BYTES: Final = 24 << 10
"""A Commit and a Reveal with the longest answer, or two of any other message that may convict."""
PROOFS_PER_PEER: Final = 96
"""Unknown proofs of one peer that are verified at once; the rest is dropped unread."""
PROOFS_TOLD: Final = 32
"""Proofs in force that a newly connected peer is told."""
PROOFS_RELAYED: Final = 32
"""Proofs against strangers, heard from others, that are passed on at once. With those told it is
less than a peer takes, so that whoever floods leaves room for what a node finds itself."""
PROOFS_PER_HOUR: Final = 60
"""How many more are verified for each peer in an hour; half as many are passed on."""
STRIKES: Final = 1024
"""Strikes remembered, whoever they are against."""
STRIKES_PER_PEER: Final = 8
STRIKE_S: Final = 30 * 24 * 3600
"""How long a proof excludes its signer, in seconds."""
TASKS_POSED: Final = 1 << 18
"""Names of calibration tasks kept on disk, so that none is put twice."""
CALIBRATE_ROUNDS: Final = 1000
"""Calibration rounds in one `calibrate` call."""
HINTS_AT_ONCE: Final = 32
"""Hints of one peer that are read at once: of every day that counts, a few times."""
HINTS_PER_HOUR: Final = 24
HINT_SUMS: Final = 1024
"""Sums in one day's hints."""
HINT_DAYS: Final = 7
"""How long after its day a hint may be valid."""
VERIFIERS: Final = 64
"""Verifiers trusted by name, and strangers whose hints are kept."""
RUMOURS: Final = 1 << 14
"""Sums kept of all strangers together."""
PEERS_TRIED: Final = 1024
"""Peers whose calibration record is kept."""
TRIALS: Final = 1 << 12
"""Graded rounds kept on disk, the newest."""
ACCOUNTS: Final = 1024
"""Peers whose service is remembered."""

# --- the control socket ---------------------------------------------------------------------------
RPC_LINE_BYTES: Final = 1 << 20
RPC_CLIENTS: Final = 32
RPC_REQUESTS_PER_CLIENT: Final = 16
RPC_CALLS: Final = RPC_CLIENTS * RPC_REQUESTS_PER_CLIENT
"""Calls at once, those of departed clients included."""
RPC_REPLY_BYTES: Final = 16 << 20
"""The longest line from the daemon: a whole committee's answers, as classes and one by one, each
byte escaped to six (``\\u0000``), are 9.4 MiB."""
RPC_OUTBOX_LINES: Final = 4096
"""Lines that wait for one client to read them, before it is dropped."""
RPC_OUTBOX_BYTES: Final = 2 * RPC_REPLY_BYTES
RPC_HISTORY_ROWS: Final = 1000
"""Rows in one ``history`` reply."""

# --- receipts -------------------------------------------------------------------------------------
RECEIPT_BYTES: Final = 64 << 20
"""The largest receipt file that is read."""
