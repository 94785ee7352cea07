"""What this node knows of how far it has written, and knows when it does not know."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from node.replication.mark import FILE, UNKNOWN, Mark, Marks
from protocol.ids import ZERO_DIGEST, Digest
from tests.node.ledgers import OWN
from tests.swarm.ledger.authors import SWARM, signer

HEAD, OTHER = Digest(b"\x01" * 32), Digest(b"\x02" * 32)
MORE_THAN_ANY_CHAIN = 1 << 20


def test_there_is_none_at_first(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    assert marks.missing
    assert not marks
    assert marks.get(SWARM, OWN, 7) is None
    assert list(tmp_path.iterdir()) == []


def test_a_mark_is_read_again(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    marks.raise_to(SWARM, OWN, Mark(7, 3, HEAD))
    for one in (marks, Marks(tmp_path)):
        assert one
        assert not one.missing
        assert one.get(SWARM, OWN, 7) == Mark(7, 3, HEAD)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_each_chain_has_its_own(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    stranger = signer("stranger").peer
    chains = [(SWARM, OWN, 7), (SWARM, OWN, 8), ("other", OWN, 7), (SWARM, stranger, 7)]
    for entries, (swarm, author, epoch) in enumerate(chains, 1):
        assert marks.get(swarm, author, epoch) is None
        marks.raise_to(swarm, author, Mark(epoch, entries, HEAD))
    marks = Marks(tmp_path)
    for entries, (swarm, author, epoch) in enumerate(chains, 1):
        assert marks.get(swarm, author, epoch) == Mark(epoch, entries, HEAD)


def test_a_mark_is_never_lowered(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    marks.raise_to(SWARM, OWN, Mark(7, 3, HEAD))
    written = (tmp_path / FILE).stat()
    for entries in (1, 2, 3):
        marks.raise_to(SWARM, OWN, Mark(7, entries, OTHER))
    assert Marks(tmp_path).get(SWARM, OWN, 7) == Mark(7, 3, HEAD)
    assert (tmp_path / FILE).stat().st_ino == written.st_ino  # not written again for nothing
    marks.raise_to(SWARM, OWN, Mark(7, 4, OTHER))
    assert Marks(tmp_path).get(SWARM, OWN, 7) == Mark(7, 4, OTHER)


def test_the_file_stays_small(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    for epoch in range(100):
        marks.raise_to(SWARM, OWN, Mark(epoch, 1, HEAD))
    marks = Marks(tmp_path)
    assert [marks.get(SWARM, OWN, epoch) is not None for epoch in range(100)] == (
        [False] * 36 + [True] * 64
    )
    assert (tmp_path / FILE).stat().st_size < 8192


def test_a_byte_that_is_another_makes_everything_unknown(tmp_path: Path) -> None:
    Marks(tmp_path).raise_to(SWARM, OWN, Mark(7, 3, HEAD))
    whole = (tmp_path / FILE).read_bytes()
    damaged = [whole[:end] for end in range(len(whole))] + [whole + b"\0", bytes(range(100))]
    for place in range(len(whole)):
        one = bytearray(whole)
        one[place] ^= 1 << place % 8
        damaged.append(bytes(one))
    for data in damaged:
        (tmp_path / FILE).write_bytes(data)
        marks = Marks(tmp_path)
        assert marks.get(SWARM, OWN, 7) is UNKNOWN
        assert marks.get("any", signer("any").peer, 99) is UNKNOWN
        assert not marks.missing
        # It is not made up for by what the database has.
        marks.raise_to(SWARM, OWN, Mark(7, 9, HEAD))
        assert (tmp_path / FILE).read_bytes() == data


def test_what_is_unknown_is_written_off_up_to_an_epoch(tmp_path: Path) -> None:
    Marks(tmp_path).doubt()
    marks = Marks(tmp_path)
    assert marks.get(SWARM, OWN, 0) is UNKNOWN
    marks.write_off(7)
    for one in (marks, Marks(tmp_path)):
        for swarm, epoch in ((SWARM, 7), (SWARM, 0), ("other", 6)):
            mark = one.get(swarm, OWN, epoch)
            assert isinstance(mark, Mark)
            assert (mark.epoch, mark.head) == (epoch, ZERO_DIGEST)
            assert mark.entries > MORE_THAN_ANY_CHAIN
        assert one.get(SWARM, OWN, 8) is None
    marks.raise_to(SWARM, OWN, Mark(7, 5, HEAD))  # of no use there
    marks.raise_to(SWARM, OWN, Mark(8, 1, HEAD))
    marks.write_off(6)
    marks = Marks(tmp_path)
    assert marks.get(SWARM, OWN, 8) == Mark(8, 1, HEAD)
    mark = marks.get(SWARM, OWN, 7)
    assert isinstance(mark, Mark)
    assert mark.entries > MORE_THAN_ANY_CHAIN


def test_a_known_chain_can_be_written_off(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    marks.raise_to(SWARM, OWN, Mark(7, 5, HEAD))
    marks.raise_to(SWARM, OWN, Mark(8, 5, HEAD))
    marks.write_off(7)
    mark = Marks(tmp_path).get(SWARM, OWN, 7)
    assert isinstance(mark, Mark)
    assert mark.entries > MORE_THAN_ANY_CHAIN
    assert Marks(tmp_path).get(SWARM, OWN, 8) == Mark(8, 5, HEAD)


def test_a_mark_that_cannot_be_written_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    marks = Marks(tmp_path)
    marks.raise_to(SWARM, OWN, Mark(7, 3, HEAD))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        marks.raise_to(SWARM, OWN, Mark(7, 4, OTHER))
    monkeypatch.undo()
    for one in (marks, Marks(tmp_path)):
        assert one.get(SWARM, OWN, 7) == Mark(7, 3, HEAD)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_what_a_crash_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    leftover, others = tmp_path / f".{FILE}.0123.tmp", tmp_path / ".config.toml.0123.tmp"
    leftover.write_bytes(b"half")
    others.write_bytes(b"of somebody else")
    Marks(tmp_path)
    assert not leftover.exists()
    assert others.exists()


def test_a_mark_that_cannot_be_read_is_no_missing_one(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(IsADirectoryError):
        Marks(tmp_path)
