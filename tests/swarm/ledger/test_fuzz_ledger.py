"""Whatever a peer sends, signed or not, a replica takes it or says why not, and keeps its laws."""

from __future__ import annotations

import os

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol.codec import decode, encode
from protocol.errors import ProtocolError
from protocol.ids import ZERO_DIGEST
from protocol.ledger import EPOCH_S, Checkpoint, Entry, Fork, Run, entry_digest, fork, sign
from swarm.ledger.replica import Change
from tests.protocol.arbitrary import arbitrary
from tests.swarm.ledger.authors import EPOCH, NOW, SWARM, Author, replica
from tests.swarm.ledger.fuzz_ledger import BOUNDS, run
from tests.swarm.ledger.worlds import check, check_passed_on, feed, snapshot, states

EXAMPLES = int(os.environ.get("SWARMD_EXAMPLES", "25"))
ANN = Author("ann", 4)

changed = msgspec.structs.replace


@pytest.mark.parametrize("seed", [1])
def test_hostile_authors_are_taken_or_refused(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in BOUNDS.items():
        monkeypatch.setattr(limits, name, value)
    count = 60 * EXAMPLES
    seen = run(count, seed)
    for error in ("Admission", "Decode", "Forked", "Gap", "Proof", "Refused", "Update"):
        assert seen[f"signed {error}Error"] > count // 200, error
    assert seen["mangled BadSignatureError"] > 0
    assert seen["signed taken"] > count // 20
    assert min(seen["forks"], seen["evicted"], seen["entries"]) > 0


@settings(max_examples=4 * EXAMPLES)
@given(arbitrary(Entry), st.data())
def test_any_entry_that_its_author_has_signed_is_taken_or_refused(
    entry: Entry, data: st.DataObject
) -> None:
    """Whatever it says, where a log begins, goes on, or has gone on in another way."""
    seq = data.draw(st.integers(0, 4))
    follows = ANN.run(seq - 1, seq).bodies[0] if seq else b""
    entry = changed(entry, swarm=SWARM, author=ANN.peer, epoch=EPOCH, seq=seq)
    entry = changed(entry, at=EPOCH * EPOCH_S + 3600 * data.draw(st.integers(0, 143)))
    if data.draw(st.booleans()):
        last = decode(follows, Entry) if follows else None
        entry = changed(
            entry,
            prev=entry_digest(follows) if follows else ZERO_DIGEST,
            offset=last.offset + len(follows) if last is not None else 0,
        )
    if seq == 0 and data.draw(st.booleans()):
        entry = changed(entry, content=data.draw(arbitrary(Checkpoint)))
    body = encode(entry)
    one = replica(ANN.run(0, data.draw(st.integers(1, 4))))
    before = snapshot(one)
    for what in (
        sign(ANN.signer, [body], ANN.ticket),
        sign(ANN.signer, [*ANN.bodies[:seq], body], ANN.ticket),
        fork(ANN.run(seq, seq + 1), sign(ANN.signer, [body], ANN.ticket)) if seq < 4 else None,
    ):
        if what is None:
            continue
        found = feed(one, what)
        if isinstance(found, Change) and found:
            before = snapshot(one)
        assert snapshot(one) == before
    check(one)
    check_passed_on(one)
    states(one)


@settings(max_examples=4 * EXAMPLES)
@given(st.sampled_from([Run, Fork]), st.data())
def test_any_bytes_are_taken_or_refused(kind: type[Run | Fork], data: st.DataObject) -> None:
    one = replica(ANN.run(0, 2))
    honest = ANN.run() if kind is Run else ANN.fork(ANN.other(2), 2)
    raw = data.draw(st.one_of(st.binary(max_size=200), st.just(encode(honest))))
    if raw:
        at = data.draw(st.integers(0, len(raw) - 1))
        raw = raw[:at] + data.draw(st.binary(max_size=3)) + raw[at + data.draw(st.integers(0, 3)) :]
    before = snapshot(one)
    try:
        what = decode(raw, kind, limits.SYNC_BYTES)
        change = one.convict(what, NOW) if isinstance(what, Fork) else one.take(what, NOW)
    except ProtocolError:
        assert snapshot(one) == before
    else:
        assert change or snapshot(one) == before
    check(one)
