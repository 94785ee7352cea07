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
PHASE_MS: Final = 15 * 60 * 1000
"""The longest phase that a participant agrees to."""
TEXT_CHARS: Final = 256
"""Names, reasons and the like: short human text."""

# --- a node ---------------------------------------------------------------------------------------
ROUNDS_AT_ONCE: Final = 16
"""Rounds that a node takes part in at once, all askers together."""
ROUNDS_PER_ASKER: Final = 4
ROUNDS_REMEMBERED: Final = 4096
"""Ended round ids kept, so that an Invite cannot be replayed."""
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
