"""What logs say, as JSON objects for people and programs. Nothing is checked again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from protocol.codec import decode, encode
from protocol.errors import ProtocolError
from protocol.ids import peer_text
from protocol.ledger import (
    Calibration,
    Capability,
    Checkpoint,
    Content,
    Evidence,
    Hints,
    Profile,
    read_entry,
)
from protocol.messages import Model, Proof
from protocol.proofs import stated
from swarm.ledger.audit import ticket_kind
from swarm.ledger.chain import Chain
from swarm.ledger.document import client_of, history
from swarm.ledger.state import state, updates

_TYPES: Final = {one.name: one.type for one in msgspec.structs.fields(Profile)}


def summary(chain: Chain) -> dict[str, Any]:
    """A chain in short.

    Returns:
        ``peer``, ``epoch``, ``label`` and ``model`` (empty where it does not say), ``entries``,
        ``bytes``, ``since`` and ``until`` (Unix times in seconds of the first and last entry, None
        without any), ``ticket`` (``stamp``, ``certificate`` or ``none``), and ``forked_at``, the
        entry from which on nothing counts, or None.
    """
    profile = state(chain).profile
    times = [read_entry(chain.bodies[at]).at for at in (0, -1)] if chain.bodies else [None, None]
    return {
        "peer": peer_text(chain.author),
        "epoch": chain.epoch,
        "label": profile.label if profile else "",
        "model": profile.model.name if profile else "",
        "entries": len(chain.bodies),
        "bytes": chain.size,
        "since": times[0],
        "until": times[1],
        "ticket": ticket_kind(chain.ticket),
        "forked_at": chain.forked_at,
    }


def entries(chain: Chain) -> Iterator[dict[str, Any]]:
    """Each entry of a chain.

    Yields:
        ``seq``, ``at`` (Unix time in seconds), ``kind``, ``bytes``; ``changed``: the fields of the
        document that are others after it, with their values, None where one is gone (of fields that
        this version does not know the bytes, in hex); ``hints``: of each day its ``day`` (since
        1970), ``bytes``, and how many ``subjects``; ``evidence``: ``peer`` and ``offence`` of each
        proof.
    """
    stages = history(updates(chain.bodies), client_of(chain.author, chain.epoch))
    held: dict[str, bytes] = {}
    for body in chain.bodies:
        entry = read_entry(body)
        content = entry.content
        changed: dict[str, Any] = {}
        if isinstance(content, Checkpoint | Capability):
            now = next(stages)
            names = sorted(name for name in held | now if held.get(name) != now.get(name))
            changed = {name: _value(name, now.get(name)) for name in names}
            held = now
        yield {
            "seq": entry.seq,
            "at": entry.at,
            "kind": type(content).__name__.lower(),
            "bytes": len(body),
            "changed": changed,
            "hints": [_hints(one) for one in _days(content)],
            "evidence": [_proof(one) for one in _proofs(content)],
        }


def _days(content: Content) -> Sequence[Hints]:
    match content:
        case Checkpoint(_, days):
            return days
        case Calibration(one):
            return (one,)
    return ()


def _proofs(content: Content) -> Sequence[Proof]:
    match content:
        case Checkpoint(_, _, proofs):
            return proofs
        case Evidence(one):
            return (one,)
    return ()


def _value(name: str, value: bytes | None) -> Any:
    if value is None:
        return None
    try:
        found = decode(value, _TYPES[name])
    except (KeyError, ProtocolError):
        return value.hex()
    return msgspec.structs.asdict(found) if isinstance(found, Model) else found


def _hints(hints: Hints) -> dict[str, Any]:
    return {"day": hints.day, "bytes": len(encode(hints)), "subjects": len(hints.subjects)}


def _proof(proof: Proof) -> dict[str, Any]:
    conviction = stated(proof)
    return {"peer": peer_text(conviction.peer), "offence": conviction.kind}
