"""Logs are worked out again from their bytes, and whatever does not hold is found."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.bundle import Log
from protocol.codec import decode, encode
from protocol.errors import (
    AdmissionError,
    BadSignatureError,
    DecodeError,
    ForkError,
    GapError,
    ProofError,
    ProtocolError,
    RefusedError,
    UpdateError,
)
from protocol.ledger import EPOCH_S, Calibration, Capability, Content, Evidence, Fork, Run
from protocol.messages import Proof
from swarm.ledger.admission import Certificates, Stamps
from swarm.ledger.audit import Audit, Keyless, log_of, name_of, ticket_kind
from swarm.ledger.fingerprint import Fingerprint
from swarm.ledger.replica import Replica
from tests.protocol.arbitrary import altered
from tests.swarm.ledger.authors import (
    EPOCH,
    NOW,
    SWARM,
    Author,
    FreeAdmission,
    fill,
    free_ticket,
    replica,
)
from tests.swarm.ledger.speaking import DAY, hints, proof, speaker
from tests.swarm.ledger.updates import structs, text, written
from tests.swarm.ledger.worlds import HOSTILE, hostile

AMY, BOB = speaker("amy"), Author("bob", 4)

changed = msgspec.structs.replace


def audit(swarm: str = SWARM, now: float = NOW) -> Audit:
    return Audit(swarm, now, FreeAdmission())


def forked(author: Author, seq: int) -> Log:
    """The log of ``author``, who has said something else from ``seq`` on."""
    held = replica(author.run())
    held.take(author.other(seq).run(), NOW)
    return log_of(held, author.peer, author.epoch)


# --- what holds -----------------------------------------------------------------------------------


def test_what_holds_is_counted() -> None:
    check = audit()
    chain = check.check(Log(AMY.run(), None))
    assert (chain.author, chain.epoch, chain.bodies) == (AMY.peer, EPOCH, AMY.bodies)
    check.check(Log(BOB.run(ticket=False), None))
    check.check(forked(Author("eve", 4), 2))
    assert (check.logs, check.entries, check.forks) == (3, 5 + 4 + 2, 1)
    assert check.tickets == {"unknown": 2, "none": 1}
    assert check.bytes > sum(map(len, AMY.bodies + BOB.bodies))


@pytest.mark.parametrize("seq", range(5))
def test_a_forked_log_holds_wherever_it_forked(seq: int) -> None:
    log = forked(AMY, seq)
    assert (log.run is None) == (seq == 0)
    check = audit()
    chain = check.check(log)
    assert (chain.forked_at, len(chain.bodies), check.entries) == (seq, seq, seq)


def test_a_proof_without_the_entries_before_holds() -> None:
    """That is all a node has that heard of it first."""
    held = replica(AMY.fork(AMY.other(3), 3))
    log = log_of(held, AMY.peer, EPOCH)
    assert log.run is None
    assert audit().check(log).forked_at == 3


def test_the_root_is_that_of_a_replica() -> None:
    runs = (AMY.run(), BOB.run(), Author("amy", 2, epoch=EPOCH - 1).run())
    held = fill(replica(), (*runs, AMY.fork(AMY.other(3), 3)))
    check, expected = audit(), Fingerprint(EPOCH)
    for name, chain in held.chains().items():
        check.check(log_of(held, *name))
        expected.add(chain)
    assert check.root == expected.root != audit().root


def test_what_a_replica_holds_of_a_log_is_what_another_takes() -> None:
    for log in (Log(AMY.run(), None), forked(AMY, 2), forked(AMY, 0)):
        check = audit()
        chain = check.check(log)
        again = Replica(SWARM, FreeAdmission())
        if log.fork is not None:
            again.convict(log.fork, NOW)
        if log.run is not None:
            again.take(log.run, NOW)
        assert log_of(again, chain.author, chain.epoch) == log


# --- what does not --------------------------------------------------------------------------------


def says(author: Author, content: Content) -> Run:
    """What ``author`` has said, and something more."""
    more = Author(author.name)
    more.bodies = list(author.bodies)
    more.say(content)
    return more.run()


def put(run: Run, at: int, body: bytes) -> Run:
    """``run`` with another entry in one place."""
    return changed(run, bodies=(*run.bodies[:at], body, *run.bodies[at + 1 :]))


RUN = AMY.run()
FORK = AMY.fork(AMY.other(3), 3)
LIED = proof("liar")
OLD, OLDER = (Author("amy", 2, epoch=EPOCH - before) for before in (1, 2))

DAMAGED: dict[str, tuple[Log, type[ProtocolError]]] = {
    "no entry": (Log(put(RUN, 0, b"junk"), None), DecodeError),
    "no entry later on": (Log(put(RUN, 3, b"junk"), None), DecodeError),
    "a changed entry": (
        Log(put(RUN, 2, RUN.bodies[2].replace(b"shoe", b"shop")), None),
        RefusedError,
    ),
    "a changed last entry": (
        Log(put(RUN, 4, RUN.bodies[4].replace(LIED.first.body[:8], bytes(8))), None),
        BadSignatureError,
    ),
    "no signature": (Log(changed(RUN, signature=bytes(64)), None), BadSignatureError),
    "the signature of another entry": (
        Log(changed(RUN, signature=AMY.run(0, 4).signature), None),
        BadSignatureError,
    ),
    "the first entry is missing": (Log(AMY.run(1), None), GapError),
    "an entry is missing": (
        Log(changed(RUN, bodies=RUN.bodies[:2] + RUN.bodies[3:]), None),
        RefusedError,
    ),
    "entries change places": (
        Log(changed(RUN, bodies=(*RUN.bodies[:2], RUN.bodies[3], RUN.bodies[2])), None),
        RefusedError,
    ),
    "the ticket of another": (Log(changed(RUN, ticket=BOB.ticket), None), AdmissionError),
    "the ticket of another epoch": (
        Log(changed(RUN, ticket=free_ticket(AMY.peer, EPOCH - 1)), None),
        AdmissionError,
    ),
    "an epoch that is over": (Log(OLDER.run(), None), RefusedError),
    "an epoch to come": (Log(Author("amy", 1, epoch=EPOCH + 1).run(), None), RefusedError),
    "a proof of nothing": (
        Log(says(BOB, Evidence(Proof(LIED.first, LIED.first))), None),
        ProofError,
    ),
    "a proof that is not signed": (
        Log(
            says(BOB, Evidence(Proof(LIED.first, changed(LIED.second, signature=bytes(64))))), None
        ),
        BadSignatureError,
    ),
    "hints of a day long past": (Log(says(BOB, Calibration(hints(DAY - 9))), None), RefusedError),
    "an update of another writer": (
        Log(says(BOB, Capability(structs(4, written("a", text(b"")), client=1) + b"\x00")), None),
        UpdateError,
    ),
    "no fork": (Log(RUN, Fork(AMY.run(4), AMY.run(4))), ForkError),
    "a fork in the wrong order": (Log(RUN, Fork(FORK.other, FORK.one)), ForkError),
    "a fork that is not signed": (
        Log(RUN, changed(FORK, other=changed(FORK.other, signature=bytes(64)))),
        BadSignatureError,
    ),
    "a fork of another": (Log(RUN, BOB.fork(BOB.other(2), 2)), RefusedError),
    "a fork of another epoch": (Log(RUN, OLD.fork(OLD.other(1), 1)), RefusedError),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_does_not_hold_is_found(name: str) -> None:
    log, error = DAMAGED[name]
    check = audit()
    before = check.root
    with pytest.raises(error):
        check.check(log)
    assert (check.logs, check.entries, check.bytes, check.forks) == (0, 0, 0, 0)
    assert not check.tickets
    assert check.root == before


def test_another_swarm_is_refused() -> None:
    with pytest.raises(RefusedError, match="'test'"):
        audit("elsewhere").check(Log(RUN, None))


def test_there_is_one_log_of_an_author_and_epoch() -> None:
    check = audit()
    check.check(Log(RUN, None))
    check.check(Log(OLD.run(), None))
    for again in (Log(RUN, None), Log(AMY.run(0, 2), None), forked(AMY, 3)):
        with pytest.raises(RefusedError, match="another log"):
            check.check(again)
    assert check.logs == 2


def test_a_file_holds_at_its_own_time() -> None:
    """The epochs that count are those of the time when it was written."""
    assert audit(now=OLD.epoch * EPOCH_S + 86400).check(Log(OLD.run(), None)).bodies
    assert audit().check(Log(OLD.run(), None)).bodies
    with pytest.raises(RefusedError, match="that is over"):
        audit(now=NOW + EPOCH_S).check(Log(OLD.run(), None))


@pytest.mark.parametrize("log", [Log(BOB.run(0, 2), None), forked(Author("bob", 2), 1)])
def test_no_byte_can_be_changed(log: Log) -> None:
    data = encode(log)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(ProtocolError):
            audit().check(decode(bytes(damaged), Log))


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.data())
def test_whatever_a_file_says_is_checked_or_refused(data: st.DataObject) -> None:
    log = data.draw(altered(forked(AMY, 3), Log, {}))
    check = audit()
    try:
        check.check(log)
    except ProtocolError:
        assert check.logs == 0
    else:
        assert check.logs == 1


@pytest.mark.parametrize("which", range(HOSTILE))
def test_what_is_validly_signed_is_checked_too(which: int) -> None:
    with pytest.raises((UpdateError, RefusedError)):
        audit().check(Log(says(BOB, hostile(BOB, which)), None))


# --- tickets --------------------------------------------------------------------------------------


def test_tickets_go_by_their_length() -> None:
    kinds = [ticket_kind(bytes(size)) for size in (0, 8, 64, 10)]
    assert kinds == ["none", "stamp", "certificate", "unknown"]


def test_stamps_take_no_key() -> None:
    stamps = Stamps(SWARM, bits=3)
    ticket = stamps.search(AMY.peer, EPOCH, range(1000))
    assert ticket is not None
    check = Audit(SWARM, NOW, stamps)
    check.check(Log(AMY.run(ticket=ticket), None))
    assert check.tickets == {"stamp": 1}
    worthless = next(
        one
        for one in (number.to_bytes(8, "big") for number in range(1000))
        if stamps.attempt(AMY.peer, EPOCH, one) >> 60
    )
    with pytest.raises(AdmissionError, match="too little work"):
        Audit(SWARM, NOW, stamps).check(Log(AMY.run(ticket=worthless), None))
    with pytest.raises(AdmissionError, match="too little work"):
        Audit(SWARM, NOW, Keyless(SWARM)).check(Log(AMY.run(ticket=worthless), None))


def test_certificates_are_believed_without_the_key_and_checked_with_it() -> None:
    good, bad = (Certificates(SWARM, key * 32) for key in (b"k", b"x"))
    for issuer in (good, bad):
        log = Log(AMY.run(ticket=issuer.issue(AMY.peer, EPOCH)), None)
        check = Audit(SWARM, NOW, Keyless(SWARM))
        check.check(log)
        assert check.tickets == {"certificate": 1}
        if issuer is good:
            assert Audit(SWARM, NOW, good).check(log).admitted
        else:
            with pytest.raises(AdmissionError, match="key of this swarm"):
                Audit(SWARM, NOW, good).check(log)


@pytest.mark.parametrize("size", [1, 7, 9, 63])
def test_other_tickets_are_none_with_or_without_the_key(size: int) -> None:
    for admission in (Keyless(SWARM), Certificates(SWARM, b"k" * 32), Stamps(SWARM)):
        with pytest.raises(AdmissionError):
            Audit(SWARM, NOW, admission).check(Log(AMY.run(ticket=bytes(size)), None))


def test_whose_log_it_is() -> None:
    assert name_of(Log(RUN, None)) == (AMY.peer, EPOCH)
    assert name_of(Log(None, OLD.fork(OLD.other(1), 1))) == (AMY.peer, EPOCH - 1)
    with pytest.raises(DecodeError):
        name_of(Log(put(RUN, 0, b"junk"), None))
