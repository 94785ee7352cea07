"""The messages of an exchange of logs: short, bounded, and nothing else is taken for one."""

from __future__ import annotations

from random import Random
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.codec import decode, encode
from protocol.envelope import KeySigner
from protocol.errors import DecodeError, ProtocolError, TooLargeError
from protocol.ids import PeerId
from protocol.ledger import EPOCH_S, Capability, Checkpoint, Fork, Run, first_entry, next_entry
from protocol.sync import (
    ASK_BYTES,
    ASKS,
    BUCKETS,
    CHAINS,
    FRAME_BYTES,
    HEAD_BYTES,
    HEADS,
    ITEM_BYTES,
    LEAST_BYTES,
    PROOF,
    AnyRequest,
    Ask,
    Buckets,
    Digests,
    Gave,
    Give,
    Head,
    HeadList,
    Heads,
    Log,
    Open,
    Piece,
    Reply,
    Request,
    Root,
    Runs,
    Want,
    check_whole,
    pack_asks,
    pack_head,
    unpack_asks,
    unpack_heads,
)
from tests.protocol.arbitrary import arbitrary

REQUEST = cast("type[AnyRequest]", AnyRequest)
REQUESTS: list[type[Request]] = [Open, Buckets, Heads, Want, Give, Log]
REPLIES: list[type[Reply]] = [Root, Digests, HeadList, Runs, Gave]
NONCE = bytes(8)
PEER = PeerId(bytes(32))

HEAD = st.builds(
    Head,
    st.binary(min_size=6, max_size=6),
    st.integers(0, limits.RUN_ENTRIES),
    st.booleans(),
    st.binary(min_size=5, max_size=5),
    st.binary(min_size=3, max_size=3),
)
ASK = st.builds(
    Ask, st.binary(min_size=6, max_size=6), st.integers(0, limits.RUN_ENTRIES), st.booleans()
)


@given(st.lists(HEAD, max_size=5))
def test_heads_keep_what_they_say(heads: list[Head]) -> None:
    data = b"".join(map(pack_head, heads))
    assert len(data) == 16 * len(heads)
    assert list(unpack_heads(data)) == heads


@given(st.lists(st.one_of(ASK, ASK.map(lambda one: one._replace(first=PROOF))), max_size=5))
def test_asks_keep_what_they_say(asks: list[Ask]) -> None:
    data = pack_asks(asks)
    assert len(data) == 8 * len(asks)
    assert list(unpack_asks(data)) == asks


def test_heads_sort_by_their_ids() -> None:
    rng = Random(1)
    heads = [
        Head(rng.randbytes(6), rng.randrange(900), rng.random() < 0.5, bytes(5), bytes(3))
        for _ in range(100)
    ]
    packed = sorted(map(pack_head, heads))
    assert [head for one in packed for head in unpack_heads(one)] == sorted(heads)


@pytest.mark.parametrize("size", [1, ASK_BYTES - 1, ASK_BYTES + 1])
def test_a_part_of_an_ask_is_refused(size: int) -> None:
    check_whole(bytes(2 * ASK_BYTES), ASK_BYTES)
    check_whole(b"", ASK_BYTES)
    with pytest.raises(DecodeError, match="no multiple"):
        check_whole(bytes(size), ASK_BYTES)


@pytest.mark.parametrize("kind", [*REQUESTS, *REPLIES], ids=lambda kind: kind.__name__)
def test_a_message_survives_the_wire(kind: type[Any]) -> None:
    @given(arbitrary(kind))
    def check(message: Any) -> None:
        data = encode(message)
        assert decode(data, kind) == message
        if kind in REQUESTS:
            assert decode(data, REQUEST) == message

    check()


@given(st.binary(max_size=40))
def test_bytes_are_a_request_or_a_decode_error(data: bytes) -> None:
    try:
        request = decode(data, REQUEST)
    except DecodeError:
        return
    assert encode(request) == data


def test_mutants_are_messages_or_protocol_errors() -> None:
    rng = Random(3)
    run = Run((b"body", b"other"), bytes(64), b"ticket")
    messages: list[Request | Reply] = [
        Open(7, NONCE),
        Buckets(7, NONCE, 16),
        Heads(7, NONCE, 8, b"\xff", bytes(6)),
        Want(7, NONCE, bytes(16)),
        Give((run, run), (Fork(run, run),)),
        Log(PEER, (Piece(7, PROOF), Piece(8, 3))),
        Root(NONCE, bytes(16), 5),
        Runs((run,), (Fork(run, run),), 2),
        Gave((), 1),
    ]
    refused = 0
    for _ in range(3000):
        message = rng.choice(messages)
        data = bytearray(encode(message))
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.2:
            data = data[: rng.randrange(len(data))]
        try:
            decode(bytes(data), REQUEST if isinstance(message, Request) else type(message))
        except ProtocolError:
            refused += 1
    assert 1000 < refused < 3000


EXCESSIVE: dict[str, Request | Reply] = {
    "epoch": Open(-1, NONCE),
    "nonce": Open(7, bytes(9)),
    "no buckets": Buckets(7, NONCE, 0),
    "buckets": Buckets(7, NONCE, BUCKETS + 1),
    "which": Heads(7, NONCE, BUCKETS, bytes(BUCKETS // 8 + 1)),
    "after": Heads(7, NONCE, 1, b"\x01", bytes(7)),
    "no asks": Want(7, NONCE, b""),
    "asks": Want(7, NONCE, bytes(ASK_BYTES * (ASKS + 1))),
    "gifts": Give((Run((b"",), bytes(64)),) * (ASKS + 1), ()),
    "no pieces": Log(PEER, ()),
    "pieces": Log(PEER, (Piece(7, 0),) * 9),
    "author": Log(PeerId(bytes(31)), (Piece(7, 0),)),
    "first": Log(PEER, (Piece(7, PROOF + 1),)),
    "root": Root(NONCE, bytes(15), 0),
    "chains": Root(NONCE, bytes(16), CHAINS + 1),
    "digests": Digests(bytes(8 * BUCKETS + 1)),
    "heads": HeadList(bytes(HEAD_BYTES * HEADS + 1)),
    "nothing served": Runs((), (), 0),
    "served": Runs((), (), ASKS + 1),
    "refused": Gave((), 2 * ASKS + 1),
}


@pytest.mark.parametrize("name", EXCESSIVE)
def test_what_is_too_much_is_refused(name: str) -> None:
    message = EXCESSIVE[name]
    with pytest.raises(DecodeError, match=r"[Ee]xpected"):
        decode(encode(message), type(message))


def test_requests_are_told_apart_by_one_byte() -> None:
    tags = [encode(msgspec.convert(one, kind))[1] for kind, one in _least().items()]
    assert tags == list(range(len(REQUESTS)))


def _least() -> dict[type[Request], list[Any]]:
    return {
        Open: [0, 7, NONCE],
        Buckets: [1, 7, NONCE, 1],
        Heads: [2, 7, NONCE, 1, b"\x01", b""],
        Want: [3, 7, NONCE, bytes(8)],
        Give: [4, [], []],
        Log: [5, PEER, [[7, 0]]],
    }


def test_equal_logs_take_less_than_64_bytes() -> None:
    request, reply = Open(10_000, NONCE), Root(NONCE, bytes(16), CHAINS)
    assert len(encode(request)) + len(encode(reply)) == 47


def test_lists_of_digests_fit_into_a_message() -> None:
    for message in (
        Digests(bytes(8 * BUCKETS)),
        HeadList(bytes(HEAD_BYTES * HEADS)),
        Want(2**31, NONCE, bytes(ASK_BYTES * ASKS)),
        Heads(2**31, NONCE, BUCKETS, bytes(BUCKETS // 8), bytes(6)),
    ):
        data = encode(message)
        assert decode(data, type(message), limits.SYNC_BYTES) == message
    assert 2 * HEADS >= CHAINS > HEADS, "heads take two replies at most"


def test_every_item_fits_into_a_message() -> None:
    """With the most entries and with the most bytes that a chain can have."""
    signer = KeySigner(bytes(32))
    last = encode(first_entry("s", signer.peer, 2 * EPOCH_S, Checkpoint(b"", (), ())))
    smallest = len(encode(next_entry(last, 2 * EPOCH_S, Capability(b""))))
    most = limits.EPOCH_BYTES // smallest + 1
    assert most <= limits.RUN_ENTRIES, "no chain has more entries than a run"
    ticket = bytes(limits.TICKET_BYTES)
    for bodies in (
        (bytes(smallest),) * most,
        (bytes(limits.ENTRY_BYTES),) * (limits.EPOCH_BYTES // limits.ENTRY_BYTES),
    ):
        run = Run(bodies, bytes(64), ticket)
        assert len(encode(run)) <= ITEM_BYTES // 2
        fork = Fork(run, run)
        assert len(encode(fork)) <= ITEM_BYTES
        assert len(encode(Give((), (fork,)))) <= limits.SYNC_BYTES
        assert len(encode(Runs((), (fork,), ASKS))) <= limits.SYNC_BYTES
    assert 0 < LEAST_BYTES < limits.SYNC_BYTES - ITEM_BYTES


def test_a_message_has_little_beside_its_items() -> None:
    run = Run((bytes(100),), bytes(64))
    items = len(encode(run)) * ASKS
    for message in (Runs((run,) * ASKS, (), ASKS), Give((run,) * ASKS, ())):
        assert len(encode(message)) - items <= FRAME_BYTES
    forks = Fork(run, run)
    mixed = Runs((run,) * 20, (forks,) * 20, 40)
    assert len(encode(mixed)) - 20 * len(encode(run)) - 20 * len(encode(forks)) <= FRAME_BYTES


def test_more_than_a_message_is_refused_unread() -> None:
    with pytest.raises(TooLargeError):
        decode(bytes(limits.SYNC_BYTES + 1), REQUEST, limits.SYNC_BYTES)
