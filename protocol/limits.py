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
"""Links at once."""
LINKS_PER_NETWORK: Final = 64
"""Of them, made by peers of one /24 of IPv4 or /48 of IPv6 of the public internet."""
KNOCKS: Final = 256
"""Inbound connections at once that are not yet, or not any more, good for anything."""
KNOCKS_PER_PREFIX: Final = 16
"""Of them, from one /24 of IPv4 or /48 of IPv6."""
ADDRESSES: Final = 12
"""Multiaddrs under which a node says that it can be dialled."""
ADDRESS_CHARS: Final = 256
PRESENCE_BYTES: Final = 4 << 10
"""A signed statement of a node about itself."""
PRESENCES: Final = 64
"""Of them in one exchange between two peers."""
MEMBERS: Final = 1024
"""Peers of whom a node keeps what they have stated."""
NOTICES: Final = 1024
"""Statements that a node keeps for peers who look for each other, whatever their swarms."""
NOTICES_PER_SWARM: Final = 64
NOTICES_TOLD: Final = 32
"""Of them, in one answer."""
CONTACT_ADDRESSES: Final = 4
"""Addresses under which one node names another."""
CALLS_PER_PEER: Final = 64
"""Calls to one peer that wait for their reply."""
CALLS_SERVED: Final = 8
"""Calls of one peer that are answered at once; its further ones wait unread."""
CALL_BYTES: Final = FRAME_BYTES
"""A call or a reply, with all that is in it."""
SEND_QUEUE_MESSAGES: Final = 256
SEND_QUEUE_BYTES: Final = 8 << 20
"""Payloads waiting for one peer."""
INBOX_MESSAGES: Final = 1024
MALFORMED_PER_PEER: Final = 8
"""Malformed payloads in one connection before it is closed."""

# --- relays and holes -----------------------------------------------------------------------------
RESERVATIONS: Final = 128
"""Peers that a relay can be reached through, at once."""
RESERVATIONS_PER_PREFIX: Final = 16
"""Of them, from one /24 of IPv4 or /48 of IPv6."""
RESERVATION_S: Final = 3600
CIRCUITS: Final = 128
"""Circuits at once: between others at a relay, and to a node from relays."""
CIRCUITS_PER_PEER: Final = 32
"""Of those at a relay, with one peer at either end."""
CIRCUITS_PER_PAIR: Final = 2
"""Of them, made by one peer to one other: nobody takes all that lead to somebody else."""
CIRCUIT_IDLE_S: Final = 120
"""A circuit without a byte in either direction for so long is ended; its ends ping more often."""
CIRCUIT_BYTES_PER_S: Final = 4 << 20
"""What a relay passes on in one circuit, both directions together. A round is messages of some KiB:
a second's worth, which goes at once, is more than a whole round takes."""
RELAY_BYTES_PER_S: Final = 32 << 20
"""In all circuits together: a third of what one core decrypts, encrypts and moves, so that a relay
still answers, and a third of a gigabit port each way."""
PUNCHES: Final = 16
"""Holes being punched at once."""
CANDIDATES: Final = 8
"""Addresses of a peer towards which a hole is punched at once."""

# --- what peers know of each other ----------------------------------------------------------------
PROOF_BYTES: Final = 24 << 10
"""A Commit and a Reveal with the longest answer, or two of any other message that may convict."""
STRIKES: Final = 1024
"""Strikes remembered, whoever they are against."""
STRIKES_PER_PEER: Final = 8
STRIKE_S: Final = 30 * 24 * 3600
"""How long a proof excludes its signer, in seconds."""
TASKS_POSED: Final = 1 << 18
"""Names of calibration tasks kept on disk, so that none is put twice."""
CALIBRATE_ROUNDS: Final = 1000
"""Calibration rounds in one `calibrate` call."""
HINT_SUMS: Final = 192
"""Peers in one day's hints, and sums of one of them: more do not fit into ``HINTS_BYTES``."""
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

# --- the ledger -----------------------------------------------------------------------------------
ENTRY_BYTES: Final = 32 << 10
"""One entry of a log. A checkpoint holds all that its author has to say, and this bounds it."""
EPOCH_BYTES: Final = 96 << 10
"""All entries of one author in one epoch."""
CAPABILITIES_PER_DAY: Final = 64
"""Changes that an author may make to its document in a day."""
EVIDENCE_PER_EPOCH: Final = 32
"""Proofs in the entries of one author in one epoch: each takes two signatures to check."""
RUN_ENTRIES: Final = 1024
"""Entries sent together; no chain within its bytes has more."""
LABEL_CHARS: Final = 64
"""What an operator calls a node."""
HINTS_BYTES: Final = 3 << 10
"""What one verifier says of one day: the days that count have to fit into a checkpoint."""
AUTHORS: Final = 10_000
"""Authors admitted in one epoch, the best tickets first."""
GUESTS: Final = 3 * PEERS
"""Logs of linked peers that are not admitted (yet), held while the link lasts, of three epochs."""
TICKET_BYTES: Final = 64
TICKETS_KNOWN: Final = 3 * AUTHORS
"""Good tickets remembered, so that none is computed twice: of three epochs."""
TICKETS_REFUSED: Final = 1 << 10
"""Bad ones remembered. They have a place of their own, for they cost nothing to make."""
TICKETS_WAITING: Final = 2 * PEERS
"""Tickets that wait to be computed: about a second's work of one core."""
LEDGER_BYTES: Final = 512 << 20
"""All entries that a node holds. Beyond this it gives up the worst tickets, for itself."""
UNWRITTEN_BYTES: Final = 16 << 20
"""Entries that wait to be written to disk; no more are taken meanwhile."""
BUNDLE_LOGS: Final = 3 * (AUTHORS + GUESTS + 1)
"""Logs in one file: three epochs of everybody."""
SYNC_BYTES: Final = 256 << 10
"""One message of an exchange of logs."""
SYNC_BYTES_AT_ONCE: Final = 64 << 20
SYNC_BYTES_PER_S: Final = 1 << 20
"""What one peer gets, and gives, in all exchanges."""
ENTRIES_AT_ONCE: Final = 2000
ENTRIES_PER_S: Final = 200
"""What one peer hands over without being asked."""
CHECKS_PER_S: Final = 2500
"""Signatures that are checked because of peers, all together: a third of one core."""
FAULTS: Final = 3
"""Bad signatures, and whatever else no honest peer passes on, before a peer is cut off."""
UPDATE_BYTES: Final = 8 << 10
"""One update of a document. What a document holds has to fit into one, too."""
UPDATE_STRUCTS: Final = 256
"""Values written by one update, values deleted by one, and so values in a document."""
UPDATE_KEY_BYTES: Final = 32
UPDATE_VALUE_BYTES: Final = 4 << 10

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
