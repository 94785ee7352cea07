"""One writer's document: what it writes is what every reader folds, and nothing grows for ever."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Doc

from protocol import limits
from protocol.errors import UpdateError
from protocol.ids import PeerId
from swarm.ledger import guard
from swarm.ledger.document import Document, client_of, fold
from tests.swarm.ledger.updates import (
    CLIENT,
    deletions,
    replica,
    rewritten,
    structs,
    text,
    written,
)

NEXT = client_of(PeerId(b"\x07" * 32), 2961)
Changes = dict[str, bytes | None]

keys = st.sampled_from(["a", "b", "c", "ctx", "é"])
changes = st.dictionaries(keys, st.none() | st.binary(max_size=40), max_size=4)
histories = st.lists(changes, max_size=25)


def apply(held: dict[str, bytes], change: Changes) -> dict[str, bytes]:
    """What a plain dict would hold after ``change``."""
    both = held | change
    return {key: value for key, value in sorted(both.items()) if value is not None}


def log_of(history: list[Changes], client: int = CLIENT) -> tuple[Document, list[bytes]]:
    """A document with that history, and its log."""
    document = Document(client)
    updates = [document.set(change) for change in history]
    return document, [update for update in updates if update is not None]


# --- clients -------------------------------------------------------------------------------------


def peer(name: bytes) -> PeerId:
    return PeerId(hashlib.sha256(name).digest())


def test_a_client_follows_from_author_and_epoch() -> None:
    assert client_of(PeerId(bytes(32)), 0) == 2_060_421_156_865_945
    clients = {client_of(peer(b"%d" % n), epoch) for n in range(300) for epoch in range(3)}
    assert len(clients) == 900
    assert max(clients) < 1 << 53
    assert max(clients) >= 1 << 52, "all bits are used"
    assert min(clients) < 1 << 46


@pytest.mark.parametrize("client", [0, client_of(peer(b"x"), 2960), (1 << 53) - 1])
def test_pycrdt_writes_under_any_client(client: int) -> None:
    document, log = log_of([{"k": b"v"}, {"k": b"w"}], client)
    assert fold(log, client) == document.values == {"k": b"w"}


# --- writing -------------------------------------------------------------------------------------


def test_what_is_set_is_held_until_it_is_deleted() -> None:
    document = Document(CLIENT)
    assert document.values == {}
    log = [document.set({"model": b"m", "ctx": b"8192", "empty": b""})]
    assert document.values == {"ctx": b"8192", "empty": b"", "model": b"m"}
    log.append(document.set({"model": b"n", "ctx": None, "new": b"x"}))
    assert document.values == {"empty": b"", "model": b"n", "new": b"x"}
    log.append(document.set({"model": None, "ctx": b"again"}))
    assert list(document.values.items()) == [("ctx", b"again"), ("empty", b""), ("new", b"x")]
    assert all(type(value) is bytes for value in document.values.values())
    assert fold([update for update in log if update], CLIENT) == document.values


def test_what_changes_nothing_is_no_update() -> None:
    document = Document(CLIENT)
    assert document.set({}) is None
    assert document.set({"k": None}) is None
    assert document.set({"k": b"v"}) is not None
    assert document.set({"k": b"v", "other": None}) is None
    update = document.set({"k": b"v", "other": b"x"})
    assert update == structs(1, written("other", text(b"x"))) + b"\x00", "only what changes"
    document.set({"k": None})
    assert document.set({"k": None}) is None


def test_the_update_is_that_of_the_change_alone() -> None:
    """Whatever lies before: what is overwritten goes, and nothing is said of older tombstones."""
    document, _ = log_of([{"a": b"1", "b": b"2"}, {"a": b"3"}, {"b": None}])
    assert document.set({"a": b"4"}) == structs(3, rewritten(2, text(b"4"))) + deletions((2, 1))
    assert document.set({"b": b"5"}) == structs(4, rewritten(1, text(b"5"))) + b"\x00"
    assert document.set({"a": None, "b": None}) == b"\x00" + deletions((3, 2))


def test_an_update_does_not_depend_on_how_the_changes_are_given() -> None:
    one: Changes = {"b": b"1", "a": b"2", "é": b"3"}
    other: Changes = dict(sorted(one.items(), reverse=True))
    assert list(one) != list(other)
    assert Document(CLIENT).set(one) == Document(CLIENT).set(other)


@settings(max_examples=150)
@given(histories)
def test_a_document_is_a_dict_that_others_can_follow(history: list[Changes]) -> None:
    document = Document(CLIENT)
    held: dict[str, bytes] = {}
    log: list[bytes] = []
    for change in history:
        after = apply(held, change)
        update = document.set(change)
        assert (update is None) is (after == held)
        if update is not None:
            log.append(update)
        held = after
        assert document.values == held
    assert fold(log, CLIENT) == held
    assert list(fold(log, CLIENT)) == sorted(held)


# --- writing on after a restart ------------------------------------------------------------------


@settings(max_examples=60)
@given(histories, changes, changes)
def test_a_document_is_resumed_from_its_log(
    history: list[Changes], change: Changes, last: Changes
) -> None:
    """And writes what it would have written."""
    document, log = log_of(history)
    resumed = Document.resumed(log, CLIENT)
    assert resumed.values == document.values
    assert [resumed.set(change), resumed.set(last)] == [document.set(change), document.set(last)]
    assert resumed.values == document.values


def test_a_document_is_resumed_from_the_log_of_nobody_else() -> None:
    _, log = log_of([{"k": b"1"}, {"k": b"2"}])
    with pytest.raises(UpdateError, match="another writer"):
        Document.resumed(log, NEXT)
    with pytest.raises(UpdateError, match="does not follow"):
        Document.resumed(log[1:], CLIENT)


# --- too large -----------------------------------------------------------------------------------

TOO_LARGE: dict[str, tuple[Changes, str]] = {
    "a value": ({"a": bytes(limits.UPDATE_VALUE_BYTES + 1)}, "value of 4097 bytes"),
    "a key": ({"é" * 16 + "x": b""}, "key of 33 bytes"),
    "an empty key": ({"": b""}, "key is empty"),
    "an update": ({"a": bytes(4000), "b": bytes(4000), "c": bytes(400)}, "bytes, 8192 are taken"),
    "a number of values": ({f"{n}": b"" for n in range(257)}, "257 structs"),
    "a number of values with those there are": ({f"{n}": b"" for n in range(256)}, "257 structs"),
    "one update more": ({"a": bytes(4000), "b": bytes(4000)}, "bytes, 8192 are taken"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_is_too_large_leaves_the_document_as_it_was(name: str) -> None:
    change, reason = TOO_LARGE[name]
    document, log = log_of([{"kept": bytes(200), "gone": b"x"}, {"gone": None}])
    before = document.values
    with pytest.raises(UpdateError, match=reason):
        document.set({"new": b"small", "kept": None, **change} if name == "a value" else change)
    assert document.values == before
    update = document.set({"kept": b"shorter"})
    assert update is not None
    assert fold([*log, update], CLIENT) == document.values == {"kept": b"shorter"}


def test_what_is_not_bytes_leaves_the_document_as_it_was() -> None:
    document, log = log_of([{"k": b"v"}])
    for wrong in (7, 0.5, "v", True, [b"v"]):
        with pytest.raises(UpdateError, match="not one of bytes"):
            document.set({"k": wrong})  # type: ignore[dict-item]
    with pytest.raises(UnicodeEncodeError):
        document.set({"a": b"before it", "\ud800": b"v"})
    assert document.values == fold(log, CLIENT) == {"k": b"v"}


def test_a_document_holds_no_more_than_it_can_be_rebased_with() -> None:
    """It is full when one update would not make it, long before its log is."""
    some: list[Changes] = [{f"k{n}": bytes(300)} for n in range(26)]
    document, log = log_of(some)
    with pytest.raises(UpdateError, match="8192 are taken"):
        document.set({"one more": bytes(300)})
    assert len(document.values) == len(some)
    longest = (1 << 53) - 1
    rebased, update = Document.rebased(document.values, longest)
    assert limits.UPDATE_BYTES - 350 < len(update) <= limits.UPDATE_BYTES
    assert rebased.values == document.values == fold(log, CLIENT)
    assert document.set({"one more": bytes(300), "k0": None}) is not None, "room is made at once"


def test_a_document_has_room_for_any_later_client() -> None:
    """It is written under a client id of one byte, and rebased under one of eight."""
    large = bytes(limits.UPDATE_VALUE_BYTES)
    rest = limits.UPDATE_BYTES - len(structs(0, written("a", text(large)), written("b"))) - 1
    document = Document(1)
    with pytest.raises(UpdateError, match="8193 bytes"):
        document.set({"a": large, "b": bytes(rest + 1)})
    assert document.values == {}
    update = document.set({"a": large, "b": bytes(rest)})
    assert update is not None
    assert len(update) == limits.UPDATE_BYTES - 7
    assert len(Document.rebased(document.values, (1 << 53) - 1)[1]) == limits.UPDATE_BYTES


def test_no_document_of_the_past_stays_in_memory() -> None:
    def alive() -> int:
        gc.collect()
        # Not isinstance, which asks each object what it is: some are not what they seem.
        return sum(type(one) is Doc for one in gc.get_objects())

    document, log = log_of([{"k": b"v"}])
    before = alive()
    for number in range(20):
        log.append(document.set({"k": b"%d" % number}) or b"")
        assert fold(log, CLIENT) == document.values
        with pytest.raises(UpdateError):
            document.set({"k": bytes(5000)})
        with pytest.raises(UnicodeEncodeError):
            document.set({"\ud800": b"v"})
    assert alive() == before


# --- rebasing ------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(histories, changes)
def test_rebasing_keeps_the_values_and_nothing_else(
    history: list[Changes], change: Changes
) -> None:
    document, _ = log_of(history)
    rebased, update = Document.rebased(document.values, NEXT)
    assert rebased.values == document.values == fold([update], NEXT)
    assert guard.check(update, NEXT, 0) == len(document.values), "no clock but those of live values"
    assert Document.rebased(fold([update], NEXT), NEXT)[1] == update, "whatever lies behind it"
    following = rebased.set(change)
    assert rebased.values == apply(document.values, change)
    assert fold([update, following] if following else [update], NEXT) == rebased.values


def test_tombstones_grow_and_rebasing_drops_them() -> None:
    names = ("load", "queue", "memory", "watts")
    _, log = log_of([dict.fromkeys(names, b"%d" % n) for n in range(400)])
    whole = replica(log).get_update()
    _, update = Document.rebased(fold(log, CLIENT), NEXT)
    assert len(whole) > 10_000
    assert len(update) < 80


def test_an_empty_document_is_rebased_too() -> None:
    rebased, update = Document.rebased({}, NEXT)
    assert update == guard.EMPTY
    assert rebased.values == fold([update], NEXT) == {}
    following = rebased.set({"k": b"v"})
    assert following is not None
    assert fold([update, following], NEXT) == {"k": b"v"}


def test_what_does_not_fit_is_not_rebased() -> None:
    with pytest.raises(UpdateError, match="8192 are taken"):
        Document.rebased({name: bytes(4000) for name in "abc"}, NEXT)


# --- folding -------------------------------------------------------------------------------------


def test_every_update_is_guarded() -> None:
    _, log = log_of([{"k": b"1"}, {"k": b"2"}, {"l": b"3"}])
    stranger = structs(0, written("k"), client=NEXT) + b"\x00"
    for at in range(4):
        with pytest.raises(UpdateError, match="another writer"):
            fold([*log[:at], stranger, *log[at:]], CLIENT)
    assert fold(log, CLIENT) == {"k": b"2", "l": b"3"}
    assert fold([], CLIENT) == {}


@pytest.mark.parametrize("order", ["02", "12", "021", "102", "210", "0012", "0112", "0120"])
def test_what_is_missing_repeated_or_out_of_order_is_never_lost_in_silence(order: str) -> None:
    _, log = log_of([{"k": b"1"}, {"k": b"2"}, {"l": b"3"}])
    with pytest.raises(UpdateError, match="does not follow"):
        fold([log[int(at)] for at in order], CLIENT)


@settings(max_examples=100)
@given(histories, st.data())
def test_no_order_that_is_taken_gives_other_values(
    history: list[Changes], data: st.DataObject
) -> None:
    """What only deletes has no clock, so that it may come later."""
    document, log = log_of(history)
    try:
        values = fold(data.draw(st.permutations(log)), CLIENT)
    except UpdateError:
        return
    assert values == document.values


def test_folding_takes_any_iterable_and_does_not_read_past_what_is_refused() -> None:
    _, log = log_of([{"k": b"1"}, {"k": b"2"}])

    def endless() -> Iterator[bytes]:
        yield from log
        while True:
            yield b"junk"

    with pytest.raises(UpdateError):
        fold(endless(), CLIENT)
    assert fold(iter(log), CLIENT) == {"k": b"2"}
