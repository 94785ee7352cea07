"""Nothing but a single writer's map of bytes passes, whatever is in the bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment

from protocol import limits
from protocol.errors import UpdateError
from swarm.ledger import guard
from tests.swarm.ledger.hostile_updates import (
    BASE,
    CLOCK,
    DELETE_ALL,
    HOSTILE,
    NONE,
    OVERWRITE,
    STRANGER,
    content,
    struct,
)
from tests.swarm.ledger.updates import (
    CLIENT,
    deletions,
    held,
    meaning,
    number,
    read,
    replica,
    rewritten,
    sized,
    structs,
    text,
    written,
)

ROOT = Path(__file__).parents[3]
FUZZ = int(os.environ.get("SWARMD_FUZZ", "4000"))
"""Updates in the fuzz."""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_update_is_refused(name: str) -> None:
    update, reason = HOSTILE[name]
    with pytest.raises(UpdateError, match=reason):
        guard.check(update, CLIENT, CLOCK)


def test_the_hostile_updates_are_hostile_in_one_thing_alone() -> None:
    """The same builders, put right, make what is taken."""
    assert guard.check(BASE, CLIENT, 0) == CLOCK
    for update, after in {
        content(text(b"v")[1:]): CLOCK + 1,
        struct(written("e")): CLOCK + 1,
        struct(rewritten(0)): CLOCK + 1,
        structs(CLOCK, written("e"), written("f"), rewritten(3), rewritten(0)) + NONE: CLOCK + 4,
        structs(CLOCK, rewritten(0)) + deletions((0, 1)): CLOCK + 1,
        NONE + deletions((0, CLOCK)): CLOCK,
        NONE + deletions((0, 1), (2, 1)): CLOCK,
    }.items():
        assert guard.check(update, CLIENT, CLOCK) == after


def test_the_sizes_are_those_that_are_spoken_of() -> None:
    assert len(OVERWRITE) == 20
    assert len(DELETE_ALL) == 10
    assert len(HOSTILE["half a gigabyte in 17 bytes"][0]) == 17


# --- what they would do without the guard ------------------------------------------------------


def victim() -> Doc[Map[object]]:
    client = STRANGER - 1
    some = [written("gpu", text(b"H100"))] + [written(f"k{n}") for n in range(99)]
    return replica([structs(0, *some, client=client) + NONE])


def test_unguarded_20_bytes_overwrite_a_strangers_value() -> None:
    doc = victim()
    assert held(doc)["gpu"] == b"H100"
    doc.apply_update(OVERWRITE)
    assert held(doc)["gpu"] == b""


def test_unguarded_10_bytes_delete_all_that_a_stranger_has() -> None:
    doc = victim()
    assert len(held(doc)) == 100
    doc.apply_update(NONE + deletions((0, 100), client=STRANGER - 1))
    assert held(doc) == {}


def test_unguarded_a_writer_that_says_two_things_splits_replicas_for_good() -> None:
    """And the guard refuses whichever comes second."""
    one = structs(0, written("k", text(b"one"))) + NONE
    two = structs(0, written("k", text(b"two"))) + NONE
    first, second = replica([one, two]), replica([two, one])
    assert first.get_state() == second.get_state()
    first.apply_update(second.get_update())
    second.apply_update(first.get_update())
    assert held(first) == {"k": b"one"}
    assert held(second) == {"k": b"two"}
    clock = guard.check(one, CLIENT, 0)
    with pytest.raises(UpdateError, match="does not follow"):
        guard.check(two, CLIENT, clock)


def test_unguarded_updates_out_of_order_lose_values_in_silence() -> None:
    """All three have come in the end."""
    first = structs(0, written("a", text(b"1"))) + NONE
    second = structs(1, written("b", text(b"2"))) + NONE
    third = structs(2, rewritten(0, text(b"3"))) + deletions((0, 1))
    assert held(replica([first, second, third])) == {"a": b"3", "b": b"2"}
    assert held(replica([third, second, first])) == {"b": b"2"}
    with pytest.raises(UpdateError, match="does not follow"):
        guard.check(third, CLIENT, 0)


def test_unguarded_whole_numbers_come_back_as_floats() -> None:
    doc = Doc[Map[object]](client_id=CLIENT)
    doc.get("m", type=Map)["k"] = 7
    assert type(held(doc)["k"]) is float
    with pytest.raises(UpdateError, match="not one of bytes"):
        guard.check(doc.get_update(), CLIENT, 0)


# --- what pycrdt writes that no document is made of ---------------------------------------------


def _formatted(doc: Doc[Any]) -> None:
    doc["m"] = text = Text("bold")
    text.format(0, 4, {"bold": True})


def _embedded(doc: Doc[Any]) -> None:
    doc["m"] = text = Text()
    text.insert_embed(0, {"image": "x"})


def _xml(doc: Doc[Any]) -> None:
    doc["m"] = XmlFragment([XmlElement("p", {"class": "x"})])


def _written_twice(doc: Doc[Any]) -> None:
    values = doc.get("m", type=Map)
    with doc.transaction():
        values["k"] = b"1"
        values["k"] = b"2"


def _written_and_deleted(doc: Doc[Any]) -> None:
    values = doc.get("m", type=Map)
    with doc.transaction():
        values["k"] = b"1"
        del values["k"]


def _assign(root: str, value: Any) -> Callable[[Doc[Any]], None]:
    return lambda doc: doc.__setitem__(root, value)


def _value(value: Any) -> Callable[[Doc[Any]], None]:
    return lambda doc: doc.get("m", type=Map).__setitem__("k", value)


FOREIGN: dict[str, Callable[[Doc[Any]], None]] = {
    "a text": _assign("m", Text("hello")),
    "an array": _assign("m", Array([b"v"])),
    "an array of arrays": _assign("m", Array([Array([b"v"])])),
    "a formatted text": _formatted,
    "an embed": _embedded,
    "XML": _xml,
    "another map": _assign("n", Map({"k": b"v"})),
    "a map in the map": _value(Map({"k": b"v"})),
    "an array in the map": _value(Array([b"v"])),
    "a text in the map": _value(Text("v")),
    "a document in the map": _value(Doc()),
    "a list": _value([b"v"]),
    "a dict": _value({"k": b"v"}),
    "a string": _value("v"),
    "an int": _value(7),
    "a large int": _value(1 << 60),
    "a float": _value(0.5),
    "a bool": _value(True),
    "None": _value(None),
    "a key written twice at once": _written_twice,
    "a key written and deleted at once": _written_and_deleted,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_no_document_writes_is_refused(name: str) -> None:
    doc = Doc[Any](client_id=CLIENT)
    FOREIGN[name](doc)
    update = doc.get_update()
    assert update != guard.EMPTY
    with pytest.raises(UpdateError):
        guard.check(update, CLIENT, 0)


def test_a_whole_document_with_its_past_is_refused() -> None:
    """Whoever begins anew does so without tombstones."""
    doc = Doc[Any](client_id=CLIENT)
    doc["m"] = Map({"k": b"1"})
    assert guard.check(doc.get_update(), CLIENT, 0) == 1
    doc["m"]["k"] = b"2"
    with pytest.raises(UpdateError, match="no value under a key"):
        guard.check(doc.get_update(), CLIENT, 0)


# --- every byte counts -------------------------------------------------------------------------

TOKENS: list[bytes | int] = [
    *(1, 2, CLIENT, CLOCK, b"\x28", 1, 1, b"m", 1, b"e", 1, b"\x74", 1, b"v"),
    *(b"\xa8", CLIENT, 0, 1, b"\x74", 1, b"w", 1, CLIENT, 2, 0, 1, 2, 1),
]
"""An update with all that there is, numbers apart."""


def joined(padded: int = -1) -> bytes:
    return b"".join(
        token if isinstance(token, bytes) else number(token, int(at == padded))
        for at, token in enumerate(TOKENS)
    )


VALID = joined()


def test_the_update_with_all_that_there_is_is_taken() -> None:
    assert guard.check(VALID, CLIENT, CLOCK) == CLOCK + 2
    assert read(VALID).encoded() == VALID


@pytest.mark.parametrize("at", [n for n, one in enumerate(TOKENS) if isinstance(one, int)])
def test_a_number_longer_than_it_need_be_is_refused(at: int) -> None:
    update = joined(padded=at)
    assert read(update) == read(VALID), "it means the same"
    with pytest.raises(UpdateError):
        guard.check(update, CLIENT, CLOCK)


def test_a_number_without_an_end_is_refused() -> None:
    for digits in (b"\x80", b"\x80" * 7, b"\xff" * 8, b"\xff" * 8000):
        with pytest.raises(UpdateError, match="no end"):
            guard.check(b"\x01" + digits, CLIENT, CLOCK)


def test_every_other_kind_of_struct_is_refused() -> None:
    kinds = set(range(256)) - {0x28, 0xA8}
    tails = [written("e")[1:], rewritten(0)[1:], text(b"v"), b"\x01", b"\x01" + sized(b"v")]
    tails += [b"\x01\x01m" + sized(b"e") + tail for tail in (b"\x01", sized(b"x"), b"\x01\x00")]
    for kind in kinds:
        for tail in tails:
            with pytest.raises(UpdateError, match="no value under a key"):
                guard.check(struct(bytes([kind]), tail), CLIENT, CLOCK)


def test_every_other_kind_of_value_is_refused() -> None:
    for kind in set(range(256)) - {0x74}:
        for tail in (b"", sized(b"v"), bytes(4), bytes(8)):
            with pytest.raises(UpdateError, match="not one of bytes"):
                guard.check(content(kind, tail), CLIENT, CLOCK)


def test_an_update_cut_anywhere_is_refused() -> None:
    for size in range(len(VALID)):
        with pytest.raises(UpdateError):
            guard.check(VALID[:size], CLIENT, CLOCK)


def test_changing_any_byte_changes_what_is_said_or_is_refused() -> None:
    taken = set()
    for at in range(len(VALID)):
        for byte in set(range(256)) - {VALID[at]}:
            update = VALID[:at] + bytes([byte]) + VALID[at + 1 :]
            try:
                guard.check(update, CLIENT, CLOCK)
            except UpdateError:
                continue
            assert read(update).encoded() == update
            taken.add(at)
    named = [VALID.index(one) for one in (b"e\x01", b"v\xa8", b"w\x01")]
    rewrites = VALID.index(b"\xa8") + 1 + len(number(CLIENT))
    assert taken == {*named, rewrites, len(VALID) - 2, len(VALID) - 1}


# --- the limits --------------------------------------------------------------------------------


def _of_size(size: int) -> bytes:
    """One update of ``size`` bytes."""
    most = limits.UPDATE_VALUE_BYTES
    rest = size - len(structs(0, written("a", text(bytes(most))), written("b")) + NONE)
    return structs(0, written("a", text(bytes(most))), written("b", text(bytes(rest)))) + NONE


def test_an_update_is_as_large_as_the_limits_and_no_larger() -> None:
    def keys(count: int) -> bytes:
        return structs(0, *(written(f"{n}", text(b"")) for n in range(count))) + NONE

    pairs = [
        (keys, limits.UPDATE_STRUCTS),
        (lambda n: structs(0, written("k" * n)) + NONE, limits.UPDATE_KEY_BYTES),
        (lambda n: structs(0, written("k", text(bytes(n)))) + NONE, limits.UPDATE_VALUE_BYTES),
    ]
    for make, most in pairs:
        assert guard.check(make(most), CLIENT, 0)
        with pytest.raises(UpdateError, match=str(most + 1)):
            guard.check(make(most + 1), CLIENT, 0)


def test_the_whole_update_is_bounded() -> None:
    near = _of_size(limits.UPDATE_BYTES - 3)
    for more in range(8):
        update = _of_size(limits.UPDATE_BYTES - 3 + more)
        assert len(update) - len(near) in (more, more + 1), "its size takes a byte more, once"
        if len(update) <= limits.UPDATE_BYTES:
            assert guard.check(update, CLIENT, 0) == 2
        else:
            with pytest.raises(UpdateError, match=f"{len(update)} bytes"):
                guard.check(update, CLIENT, 0)


def test_deletions_are_bounded_by_what_a_document_holds() -> None:
    most = limits.UPDATE_STRUCTS
    apart = tuple((2 * n, 1) for n in range(most))
    assert guard.check(NONE + deletions((3, most)), CLIENT, 10 * most) == 10 * most
    assert guard.check(NONE + deletions(*apart), CLIENT, 10 * most) == 10 * most
    with pytest.raises(UpdateError, match="257 values deleted"):
        guard.check(NONE + deletions((0, most + 1)), CLIENT, 10 * most)
    with pytest.raises(UpdateError, match="257 values deleted"):
        guard.check(
            NONE + deletions((0, 2), *((2 * n + 3, 1) for n in range(most - 1))), CLIENT, 999
        )
    with pytest.raises(UpdateError, match="257 deletions"):
        guard.check(NONE + deletions(*apart, (2 * most, 1)), CLIENT, 10 * most)


def test_a_clock_stays_within_what_yrs_counts() -> None:
    last = (1 << 31) - 1
    assert guard.check(structs(last, written("k")) + NONE, CLIENT, last) == last + 1
    with pytest.raises(UpdateError, match="beyond"):
        guard.check(structs(last, written("k"), written("l")) + NONE, CLIENT, last)


@pytest.mark.parametrize("client", [0, 127, 128, (1 << 32) - 1, 1 << 32, (1 << 53) - 1])
def test_a_writer_is_itself_and_nobody_else(client: int) -> None:
    update = structs(0, written("k"), client=client) + NONE
    assert guard.check(update, client, 0) == 1
    for other in (client ^ 1, client + 128, client << 7):
        if other != client:
            with pytest.raises(UpdateError, match="another writer"):
                guard.check(update, other, 0)


def test_the_limits_fit_into_each_other() -> None:
    longest = written("k" * limits.UPDATE_KEY_BYTES, text(bytes(limits.UPDATE_VALUE_BYTES)))
    assert len(structs(0, longest) + NONE) < limits.UPDATE_BYTES < limits.ENTRY_BYTES


# --- what pycrdt writes ------------------------------------------------------------------------

names = st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=limits.UPDATE_KEY_BYTES
).filter(lambda name: len(name.encode()) <= limits.UPDATE_KEY_BYTES)
few = st.sampled_from(["a", "b", "c", "é"])
values = st.binary(max_size=200)
transactions = st.lists(
    st.dictionaries(few | names, st.none() | values, min_size=1, max_size=6), max_size=20
)


@settings(max_examples=200)
@given(transactions)
def test_what_pycrdt_writes_is_taken(changes: list[dict[str, bytes | None]]) -> None:
    """Sets and deletes of a map of bytes, each key once in a transaction; and it reads the same."""
    doc = Doc[Map[bytes]](client_id=CLIENT)
    written_map = doc.get("m", type=Map)
    updates: list[bytes] = []
    doc.observe(lambda event: updates.append(event.update))
    expected: dict[str, bytes] = {}
    clock = 0
    for change in changes:
        updates_before = len(updates)
        with doc.transaction():
            for key, value in change.items():
                if value is not None:
                    written_map[key] = expected[key] = value
                    clock += 1
                elif key in expected:
                    del written_map[key], expected[key]
        assert len(updates) - updates_before <= 1
    reached = 0
    for update in updates:
        reached = guard.check(update, CLIENT, reached)
        assert read(update).encoded() == update
    assert reached == clock
    assert meaning(updates) == held(replica(updates)) == dict(sorted(expected.items()))


def test_an_empty_document_is_an_empty_update() -> None:
    assert Doc[Any]().get_update() == guard.EMPTY
    assert guard.check(guard.EMPTY, CLIENT, 0) == 0
    assert guard.check(guard.EMPTY, CLIENT, 7) == 7


# --- anything ----------------------------------------------------------------------------------


def refusal(data: bytes) -> str | None:
    try:
        guard.check(data, CLIENT, CLOCK)
    except UpdateError as error:
        return str(error)
    return None


@settings(max_examples=500)
@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda tail: VALID[:-20] + tail))
def test_any_bytes_are_taken_or_refused_with_a_typed_error(data: bytes) -> None:
    reason = refusal(data)
    if reason is None:
        assert read(data).encoded() == data
    else:
        assert 0 < len(reason) < 80
        assert reason.isascii()


def test_what_is_taken_is_safe() -> None:
    """In a process of its own, with as many updates as ``SWARMD_FUZZ`` says, or a few thousand."""
    fuzz = subprocess.run(
        [sys.executable, "-m", "tests.swarm.ledger.fuzz_updates", str(FUZZ), "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60 + FUZZ / 1000,
    )
    assert fuzz.returncode == 0, fuzz.stderr[-2000:]
    seen = json.loads(fuzz.stdout)
    assert seen["honest taken"] == seen["honest"]
    assert seen["mutant refused"] > seen["mutant taken"] > 0
    assert seen["sly taken"] > 0
    assert seen["logs"] > FUZZ / 200
