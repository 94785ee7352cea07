"""Files of logs: what is written is read, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import bundle, limits
from protocol.bundle import MAGIC, RECORD_BYTES, End, Header, Log, Reader, write
from protocol.codec import encode
from protocol.errors import DecodeError, TooLargeError
from protocol.ids import Digest
from protocol.ledger import Fork, Run
from tests.protocol.arbitrary import arbitrary

HEADER = Header("test", 1_700_000_000)
RUN = Run((b"one", b"two"), b"s" * 64, b"ticket")
FORK = Fork(Run((b"left",), b"l" * 64), Run((b"right",), b"r" * 64))
LOGS = (Log(RUN, None), Log(None, FORK), Log(RUN, FORK))
FILE = b"".join(write(HEADER, LOGS))

logs = st.lists(
    st.builds(Log, arbitrary(Run), st.none() | arbitrary(Fork))
    | st.builds(Log, st.none(), arbitrary(Fork)),
    max_size=4,
)


def read(data: bytes) -> tuple[Header, list[Log]]:
    reader = Reader([data])
    return reader.header, list(reader)


def framed(record: object) -> bytes:
    data = encode(record)
    return len(data).to_bytes(4, "big") + data


def pieces(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return (data[low:high] for low, high in pairwise(at))


@settings(max_examples=60, derandomize=True, deadline=None)
@given(arbitrary(Header), logs, st.lists(st.integers(0, 1 << 16), max_size=8))
def test_what_is_written_is_read(header: Header, written: list[Log], cuts: list[int]) -> None:
    data = b"".join(write(header, written))
    reader = Reader(pieces(data, cuts))
    assert reader.header == header
    assert list(reader) == written
    assert (reader.position, reader.logs) == (len(data), len(written))


def test_a_file_without_logs_is_a_file() -> None:
    assert read(b"".join(write(HEADER, ()))) == (HEADER, [])


def test_byte_by_byte_it_is_the_same_file() -> None:
    reader = Reader(FILE[at : at + 1] for at in range(len(FILE)))
    assert tuple(reader) == LOGS


def test_logs_are_written_and_read_one_at_a_time() -> None:
    given: list[int] = []

    def some() -> Iterator[Log]:
        for number in range(3):
            given.append(number)
            yield LOGS[number]

    reader = Reader(write(HEADER, some()))
    assert given == []
    for number, log in enumerate(reader):
        assert log == LOGS[number]
        assert given == list(range(number + 1))


def test_the_position_is_how_much_has_been_read() -> None:
    reader = Reader([FILE])
    positions = [reader.position] + [reader.position for _ in reader]
    assert positions == sorted(set(positions))
    assert positions[0] == len(MAGIC) + len(framed(HEADER))
    assert positions[-1] == len(FILE) - len(framed(End(3, Digest(bytes(32)))))


# --- what is no such file -------------------------------------------------------------------------


def test_it_shows_wherever_a_file_is_cut_off() -> None:
    for size in range(len(FILE)):
        with pytest.raises(DecodeError, match="cut off at byte"):
            read(FILE[:size])


@pytest.mark.parametrize("records", [1, 2, 3])
def test_a_cut_says_in_which_record_it_is(records: int) -> None:
    data = b"".join(list(write(HEADER, LOGS))[: 2 + records])
    for missing in (data[:-1], data):
        reader = Reader([missing])
        number = records if missing is not data else records + 1
        with pytest.raises(DecodeError, match=f"^Record {number} is cut off at byte"):
            list(reader)
        assert reader.logs == number - 1


def test_every_bit_counts() -> None:
    for at in range(8 * len(FILE)):
        data = bytearray(FILE)
        data[at // 8] ^= 1 << at % 8
        with pytest.raises((DecodeError, TooLargeError)):
            read(bytes(data))


def test_what_comes_before_the_damage_is_read() -> None:
    data = FILE.replace(b"right", b"wrong")
    assert data != FILE
    found: list[Log] = []
    with pytest.raises(DecodeError, match="Record 4 ends another file"):
        found.extend(Reader([data]))
    assert found[0] == LOGS[0]
    assert len(found) == 3


@pytest.mark.parametrize("more", [b"\x00", MAGIC, FILE])
def test_nothing_follows_the_end(more: bytes) -> None:
    for parts in ([FILE + more], [FILE, more], [FILE, b"", more]):
        with pytest.raises(DecodeError, match="Something follows Record 4"):
            list(Reader(parts))


def test_records_that_are_missing_are_missed() -> None:
    parts = list(write(HEADER, LOGS))
    for gone in range(2, 5):
        with pytest.raises(DecodeError, match="Record 3 ends another file"):
            read(b"".join(parts[:gone] + parts[gone + 1 :]))
    with pytest.raises(DecodeError, match="Record 4 ends another file"):
        read(b"".join([*parts[:2], parts[3], parts[2], *parts[4:]]))
    fewer = b"".join(parts[:5]) + framed(End(2, msgspec.msgpack.decode(parts[5][4:])[2]))
    with pytest.raises(DecodeError, match="Record 4 ends another file"):
        read(fewer)


def test_other_files_are_told_apart() -> None:
    with pytest.raises(DecodeError, match="no file of logs"):
        read(b"-----BEGIN PRIVATE KEY-----\n")
    with pytest.raises(DecodeError, match="of another version"):
        read(FILE.replace(b"ledger 1\n", b"ledger 2\n"))
    with pytest.raises(DecodeError, match="It is cut off at byte 0"):
        read(b"")


def test_a_length_is_refused_before_anything_is_read_for_it() -> None:
    asked = []

    def endless() -> Iterator[bytes]:
        yield MAGIC + framed(HEADER) + (RECORD_BYTES + 1).to_bytes(4, "big")
        while True:
            asked.append(1)
            yield bytes(1 << 16)

    with pytest.raises(TooLargeError, match=f"Record 1 has {RECORD_BYTES + 1} bytes"):
        list(Reader(endless()))
    assert asked == []


def test_there_is_a_most_of_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BUNDLE_LOGS", 2)
    reader = Reader([FILE])
    with pytest.raises(TooLargeError, match="Record 3 is one more"):
        list(reader)
    assert reader.logs == 2
    assert read(b"".join(write(HEADER, LOGS[:2])))[1] == list(LOGS[:2])


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (Log(RUN, None), "Its header: Expected"),
        (["", 1], "Its header: Expected `str` of length >= 1"),
        (["test", -1], "Its header: Expected `int` >= 0"),
        (["test", 1, 2], "Its header: Expected `array` of at most length 2"),
    ],
)
def test_a_header_that_is_none(record: object, says: str) -> None:
    with pytest.raises(DecodeError, match=says):
        read(MAGIC + framed(record))


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (HEADER, "Record 1: Invalid value 'test'"),
        (["log", None, None], "Record 1: a log with nothing in it"),
        (["log", RUN, None, 1], "Record 1: Expected"),
        (["end", 0], "Record 1: Expected"),
        (["end", 0, b"short"], "Record 1: Expected `bytes` of length"),
        (7, "Record 1: Expected"),
    ],
)
def test_a_record_that_is_none(record: object, says: str) -> None:
    with pytest.raises(DecodeError, match=says):
        read(MAGIC + framed(HEADER) + framed(record))


def test_a_record_has_one_encoding() -> None:
    data = encode(LOGS[0])
    longer = data.replace(b"\xa3log", b"\xd9\x03log")
    assert msgspec.msgpack.decode(longer) == msgspec.msgpack.decode(data)
    with pytest.raises(DecodeError, match="Record 1: the value is right"):
        read(MAGIC + framed(HEADER) + len(longer).to_bytes(4, "big") + longer)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", MAGIC, MAGIC + framed(HEADER)]))
def test_any_bytes_are_refused_with_a_reason(data: bytes, before: bytes) -> None:
    with pytest.raises((DecodeError, TooLargeError)):
        read(before + data)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.data())
def test_changed_files_are_refused_with_a_reason(data: st.DataObject) -> None:
    """Pieces cut out, repeated or overwritten."""
    low, high = sorted(data.draw(st.tuples(*[st.integers(0, len(FILE))] * 2)))
    changed = FILE[:low] + data.draw(st.binary(max_size=20)) + FILE[high:]
    if changed == FILE:
        assert tuple(read(changed)[1]) == LOGS
        return
    with pytest.raises((DecodeError, TooLargeError)):
        read(changed)


def test_the_largest_log_fits_into_a_record() -> None:
    """As much as an author may say in an epoch, in as many entries as there may be, thrice."""
    size = limits.EPOCH_BYTES // limits.RUN_ENTRIES
    run = Run((bytes(size),) * limits.RUN_ENTRIES, bytes(64), bytes(limits.TICKET_BYTES))
    largest = Log(run, Fork(run, run))
    assert len(framed(largest)) - 4 <= RECORD_BYTES == bundle.RECORD_BYTES
    assert read(b"".join(write(HEADER, (largest,))))[1] == [largest]
