"""Stamps are made politely and checked once, and the event loop hashes neither."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from node.replication import stamping
from node.replication.stamping import BATCH, SHARE, Progress, Stamper, Verifier
from protocol import limits
from protocol.errors import AdmissionError, BusyError
from protocol.ids import PeerId
from swarm.ledger.admission import CERTIFIED, STAMP_BITS, Admission, Certificates, Stamps
from swarm.seeded import Stream

T = TypeVar("T")

SWARM = "friends"
EPOCH = 2_900
WAIT_S = 10.0
"""Nothing here waits for so long, unless it fails."""


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def nonce(number: int) -> bytes:
    return number.to_bytes(8, "big")


AUTHOR = peer(7)


async def inline(
    function: Callable[..., T], *arguments: object, limiter: trio.CapacityLimiter
) -> T:
    """Stands for ``trio.to_thread.run_sync``: a virtual clock would run on beside a thread."""
    async with limiter:
        await trio.lowlevel.checkpoint()
        return function(*arguments)


@pytest.fixture
def virtual(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> MockClock:
    """No threads, and no time but the virtual one."""
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)
    return autojump_clock


# --- making a stamp -------------------------------------------------------------------------------


class Endless(Stamps):
    """Stamps that need more luck than there is, or as many tries as a test says."""

    def __init__(self, batches: int | None = None, bits: int = STAMP_BITS) -> None:
        super().__init__(SWARM, bits)
        self.batches = batches
        self.searched: list[tuple[PeerId, int, tuple[int, ...]]] = []

    def search(self, author: PeerId, epoch: int, nonces: Iterable[int]) -> bytes | None:
        self.searched.append((author, epoch, tuple(nonces)))
        if len(self.searched) == self.batches:
            return nonce(self.searched[-1][2][-1])
        return None


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The processor time of the thread: each batch takes the next of these seconds, then 40 ms."""
    batches: list[float] = []
    spent, looks = 0.0, 0

    def thread_time() -> float:
        nonlocal spent, looks
        looks += 1
        if looks % 2 == 0:
            spent += batches.pop(0) if batches else 0.040
        return spent

    monkeypatch.setattr(stamping, "thread_time", thread_time)
    return batches


async def test_it_makes_a_stamp() -> None:
    """With a real thread, real hashes and real rests."""
    stamps = Stamps(SWARM, bits=5)
    with trio.fail_after(WAIT_S):
        ticket = await Stamper(stamps).stamp(AUTHOR, EPOCH)
        again = await Stamper(stamps).stamp(AUTHOR, EPOCH)
    assert stamps.quality(AUTHOR, EPOCH, ticket) > 0
    assert ticket == stamps.search(AUTHOR, EPOCH, range(10_000)) == again


async def test_each_nonce_is_tried_once_in_order(
    virtual: MockClock, processor: list[float]
) -> None:
    stamps = Endless(batches=5)
    assert await Stamper(stamps).stamp(AUTHOR, EPOCH) == nonce(5 * BATCH - 1)
    assert [one[:2] for one in stamps.searched] == [(AUTHOR, EPOCH)] * 5
    assert [n for one in stamps.searched for n in one[2]] == list(range(5 * BATCH))


async def test_it_rests_so_that_it_takes_its_share_of_a_core_at_most(
    virtual: MockClock, processor: list[float]
) -> None:
    """However long a batch took: on a slow machine it rests for longer."""
    processor += [0.030, 0.050, 2.0, 0.0]
    await Stamper(Endless(batches=5)).stamp(AUTHOR, EPOCH)
    worked = 0.030 + 0.050 + 2.0 + 0.0  # after the last one there is nothing to rest for
    assert trio.current_time() == pytest.approx(worked * (1 - SHARE) / SHARE)
    assert SHARE == 0.25


async def test_a_thread_that_had_to_wait_is_not_made_to_rest_for_it(
    virtual: MockClock, processor: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def starved(
        function: Callable[..., T], *arguments: object, limiter: trio.CapacityLimiter
    ) -> T:
        await trio.sleep(60)
        return await inline(function, *arguments, limiter=limiter)

    monkeypatch.setattr(trio.to_thread, "run_sync", starved)
    await Stamper(Endless(batches=3)).stamp(AUTHOR, EPOCH)
    assert trio.current_time() == pytest.approx(3 * 60 + 2 * 0.120)


async def test_its_progress_is_visible(virtual: MockClock, processor: list[float]) -> None:
    stamper = Stamper(Endless(batches=20, bits=7))
    seen: list[Progress | None] = [stamper.progress]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stamper.stamp, AUTHOR, EPOCH)
        await trio.sleep(0.060)
        for _ in range(19):
            seen.append(stamper.progress)
            await trio.sleep(0.120)
    seen.append(stamper.progress)
    assert seen[0] is seen[-1] is None
    assert seen[1:-1] == [Progress(AUTHOR, EPOCH, BATCH * n, 128) for n in range(19)]
    fractions = [one.fraction for one in seen if one is not None]
    assert fractions[0] == 0.0
    assert fractions == sorted(set(fractions))
    assert fractions[8] == pytest.approx(0.633, abs=0.001)  # as many tries as expected: 1 − 1/e
    assert fractions[-1] < 1.0


def test_a_stamp_for_nothing_is_expected_at_once() -> None:
    assert [Progress(AUTHOR, EPOCH, tried, 1).fraction for tried in (0, 1, 2)] == [0.0, 1.0, 1.0]


async def test_it_is_cancelled_between_batches(virtual: MockClock, processor: list[float]) -> None:
    stamps = Endless()
    stamper = Stamper(stamps)
    with trio.move_on_after(1.0) as scope:
        await stamper.stamp(AUTHOR, EPOCH)
    assert scope.cancelled_caught
    assert stamper.progress is None
    tried = len(stamps.searched)
    assert tried == 9  # one every 120 ms of rest
    await trio.sleep(100)
    assert len(stamps.searched) == tried
    stamps.batches = tried + 1
    assert await stamper.stamp(AUTHOR, EPOCH + 1) == nonce(BATCH - 1)


async def test_what_goes_wrong_is_told_and_does_not_block_the_next(
    virtual: MockClock, processor: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    stamper = Stamper(stamps := Endless(batches=1))

    def fails(*_: object) -> bytes:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(stamps, "search", fails)
        with pytest.raises(MemoryError):
            await stamper.stamp(AUTHOR, EPOCH)
    assert stamper.progress is None
    assert await stamper.stamp(AUTHOR, EPOCH) == nonce(BATCH - 1)


async def test_it_makes_one_at_a_time(virtual: MockClock, processor: list[float]) -> None:
    """Two would take two shares."""
    stamps = Endless(batches=6)
    stamper = Stamper(stamps)
    done: list[int] = []

    async def make(epoch: int) -> None:
        await stamper.stamp(AUTHOR, epoch)
        done.append(epoch)
        stamps.batches = 9

    async with trio.open_nursery() as nursery:
        nursery.start_soon(make, EPOCH)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(make, EPOCH + 1)
    assert [epoch for _, epoch, _ in stamps.searched] == [EPOCH] * 6 + [EPOCH + 1] * 3
    assert done == [EPOCH, EPOCH + 1]
    assert trio.current_time() == pytest.approx((5 + 2) * 0.120)


async def test_the_loop_goes_on_while_it_hashes() -> None:
    """The search waits for what only the event loop does."""
    begun, released = threading.Event(), threading.Event()
    threads: list[int] = []

    class Waiting(Stamps):
        def search(self, author: PeerId, epoch: int, nonces: Iterable[int]) -> bytes | None:
            threads.append(threading.get_ident())
            begun.set()
            assert released.wait(WAIT_S), "the event loop stood still"
            return nonce(0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Stamper(Waiting(SWARM)).stamp, AUTHOR, EPOCH)
        with trio.fail_after(WAIT_S):
            while not begun.is_set():
                await trio.lowlevel.checkpoint()
        released.set()
    assert threads != [threading.get_ident()]


# --- checking stamps ------------------------------------------------------------------------------


class Counting(Stamps):
    """Admits nonces up to 255; counts what is computed."""

    def __init__(self) -> None:
        super().__init__(SWARM, bits=8)
        self.computed: list[tuple[PeerId, int, bytes]] = []
        self.failures = 0

    def attempt(self, author: PeerId, epoch: int, ticket: bytes) -> int:
        self.computed.append((author, epoch, ticket))
        if self.failures:
            self.failures -= 1
            raise MemoryError
        # Who it is for matters as it does to the real hash.
        return (int.from_bytes(ticket, "big") ^ author[-1] ^ 7 ^ epoch ^ EPOCH) << 47


async def refused(verifier: Verifier, author: PeerId, epoch: int, ticket: bytes) -> str:
    """Why it is, whoever asks."""
    with pytest.raises(AdmissionError) as caught:
        await verifier.verify(author, epoch, ticket)
    with pytest.raises(AdmissionError):
        verifier.quality(author, epoch, ticket)
    return str(caught.value)


async def test_it_says_what_the_hash_says() -> None:
    """In a real thread."""
    stamps = Stamps(SWARM, bits=2)
    verifier = Verifier(stamps)
    admitted = 0
    for number in range(40):
        if stamps.attempt(AUTHOR, EPOCH, nonce(number)) < 1 << 61:
            admitted += 1
            expected = stamps.quality(AUTHOR, EPOCH, nonce(number))
            assert await verifier.verify(AUTHOR, EPOCH, nonce(number)) == expected
            assert verifier.quality(AUTHOR, EPOCH, nonce(number)) == expected
        else:
            assert "too little work" in await refused(verifier, AUTHOR, EPOCH, nonce(number))
    assert 2 <= admitted <= 20


async def test_it_verifies_certificates_as_well_and_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificates = Certificates(SWARM, bytes(32))
    verifier = Verifier(certificates)
    # A thread has its turn after milliseconds, where the loop is busy.
    monkeypatch.delattr(trio.to_thread, "run_sync")
    ticket = certificates.issue(AUTHOR, EPOCH)
    assert await verifier.verify(AUTHOR, EPOCH, ticket) == CERTIFIED
    assert "key of this swarm" in await refused(verifier, AUTHOR, EPOCH + 1, ticket)


async def test_a_replica_asks_it_what_has_been_verified(virtual: MockClock) -> None:
    stamps = Counting()
    verifier = Verifier(stamps)
    admission: Admission = verifier
    with pytest.raises(AdmissionError, match="not verified"):
        admission.quality(AUTHOR, EPOCH, nonce(1))
    assert stamps.computed == []
    quality = await verifier.verify(AUTHOR, EPOCH, nonce(1))
    assert admission.quality(AUTHOR, EPOCH, nonce(1)) == quality
    assert len(stamps.computed) == 1


async def test_nothing_is_computed_twice(virtual: MockClock) -> None:
    """Whether it was good or bad, and also where many ask at once."""
    stamps = Counting()
    verifier = Verifier(stamps)
    answers: Counter[str] = Counter()

    async def ask(number: int) -> None:
        try:
            quality = await verifier.verify(AUTHOR, EPOCH, nonce(number))
        except AdmissionError:
            answers[f"{number} refused"] += 1
        else:
            assert quality == 2**63 - 1 - (number << 47)
            answers[f"{number} admitted"] += 1

    for _ in range(3):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                for number in (3, 255, 256, 1000):
                    nursery.start_soon(ask, number)
    assert len(stamps.computed) == len(set(stamps.computed)) == 4
    assert answers == {"3 admitted": 60, "255 admitted": 60, "256 refused": 60, "1000 refused": 60}


async def test_what_is_known_of_one_is_not_known_of_another(virtual: MockClock) -> None:
    stamps = Counting()
    verifier = Verifier(stamps)
    best = await verifier.verify(AUTHOR, EPOCH, nonce(0))
    for author, epoch in ((peer(5), EPOCH), (AUTHOR, EPOCH + 1)):
        with pytest.raises(AdmissionError, match="not verified"):
            verifier.quality(author, epoch, nonce(0))
        assert await verifier.verify(author, epoch, nonce(0)) < best
    far = EPOCH ^ 512
    assert "too little work" in await refused(verifier, AUTHOR, far, nonce(0))
    assert await verifier.verify(AUTHOR, far, nonce(512)) == best
    assert verifier.quality(AUTHOR, EPOCH, nonce(0)) == best
    assert len(stamps.computed) == 5


async def test_at_most_so_much_is_remembered_and_bad_ones_displace_no_good_ones(
    virtual: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TICKETS_KNOWN", 3)
    monkeypatch.setattr(limits, "TICKETS_REFUSED", 2)
    stamps = Counting()
    verifier = Verifier(stamps)

    async def computes(number: int) -> bool:
        before = len(stamps.computed)
        if number < 256:
            await verifier.verify(AUTHOR, EPOCH, nonce(number))
        else:
            await refused(verifier, AUTHOR, EPOCH, nonce(number))
        return len(stamps.computed) > before

    for number in (1, 2, 3):
        assert await computes(number)
    for number in range(300, 340):
        assert await computes(number)
    assert not await computes(339)
    assert not await computes(338)
    assert await computes(337)
    assert not await computes(338)
    assert await computes(339)  # 337 has its place, 338 was asked for since
    verifier.quality(AUTHOR, EPOCH, nonce(1))
    assert not await computes(2)
    assert await computes(4)
    for number in (1, 2, 4):
        assert not await computes(number)
    assert await computes(3)
    with pytest.raises(AdmissionError, match="not verified"):
        verifier.quality(AUTHOR, EPOCH, nonce(1))
    with pytest.raises(AdmissionError, match="too little work"):
        verifier.quality(AUTHOR, EPOCH, nonce(339))


async def test_at_most_so_many_wait(virtual: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Askers of one ticket count each."""
    monkeypatch.setattr(limits, "TICKETS_WAITING", 3)
    gate = trio.Event()

    async def shut(
        function: Callable[..., T], *arguments: object, limiter: trio.CapacityLimiter
    ) -> T:
        await gate.wait()
        return await inline(function, *arguments, limiter=limiter)

    monkeypatch.setattr(trio.to_thread, "run_sync", shut)
    stamps = Counting()
    verifier = Verifier(stamps)
    async with trio.open_nursery() as nursery:
        for number in (1, 2, 2):
            nursery.start_soon(verifier.verify, AUTHOR, EPOCH, nonce(number))
            await trio.testing.wait_all_tasks_blocked()
        for number in (2, 3):
            with pytest.raises(BusyError, match="3 tickets wait"):
                await verifier.verify(AUTHOR, EPOCH, nonce(number))
        with pytest.raises(AdmissionError, match="8 bytes"):
            await verifier.verify(AUTHOR, EPOCH, b"")
        gate.set()
    assert sorted(ticket for *_, ticket in stamps.computed) == [nonce(1), nonce(2)]
    assert await verifier.verify(AUTHOR, EPOCH, nonce(3)) > 0


async def test_everybody_gets_a_turn(virtual: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for one after the other waits for one of each other peer, not for all of them."""

    async def slow(
        function: Callable[..., T], *arguments: object, limiter: trio.CapacityLimiter
    ) -> T:
        async with limiter:
            await trio.sleep(1)
            return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", slow)
    stamps = Counting()
    verifier = Verifier(stamps)

    async def source(author: PeerId, tickets: int) -> None:
        for number in range(tickets):
            await verifier.verify(author, EPOCH, nonce(number))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(source, peer(1), 30)
        nursery.start_soon(source, peer(2), 30)
        await trio.sleep(10.5)
        nursery.start_soon(source, peer(3), 10)
    served = [author for author, *_ in stamps.computed]
    assert len(served) == 70
    assert trio.current_time() == 70.0
    first = served.index(peer(3))
    assert first < 15
    for begin in range(first, first + 30, 3):
        assert set(served[begin : begin + 3]) == {peer(1), peer(2), peer(3)}


async def test_what_has_the_wrong_form_reaches_no_thread(
    virtual: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def used(*_: object, **__: object) -> None:
        raise AssertionError("it has been computed")

    monkeypatch.setattr(trio.to_thread, "run_sync", used)
    stream = Stream(b"forms")
    for admission, right in ((Counting(), 8), (Certificates(SWARM, bytes(32)), 64)):
        verifier = Verifier(admission)
        for _ in range(200):
            size = stream.choice([one for one in range(100) if one != right])
            ticket = bytes(stream.below(256) for _ in range(size))
            assert f"has {right} bytes" in await refused(verifier, AUTHOR, EPOCH, ticket)
        await refused(verifier, PeerId(b"short"), EPOCH, bytes(right))
        await refused(verifier, AUTHOR, -1, bytes(right))


async def test_who_is_cancelled_leaves_the_work_to_the_next(
    virtual: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps = Counting()
    verifier = Verifier(stamps)
    found: list[int] = []

    async def ask() -> None:
        found.append(await verifier.verify(AUTHOR, EPOCH, nonce(1)))

    async def slow(
        function: Callable[..., T], *arguments: object, limiter: trio.CapacityLimiter
    ) -> T:
        await trio.sleep(10)
        return await inline(function, *arguments, limiter=limiter)

    monkeypatch.setattr(trio.to_thread, "run_sync", slow)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(5) as scope:
            nursery.start_soon(trio.sleep, 1)
            async with trio.open_nursery() as first:
                first.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(ask)
                nursery.start_soon(ask)
        assert scope.cancelled_caught
        assert found == []
    assert len(found) == 2
    assert len(stamps.computed) == 1
    assert trio.current_time() == 15


async def test_what_failed_is_tried_again(virtual: MockClock) -> None:
    stamps = Counting()
    stamps.failures = 1
    verifier = Verifier(stamps)
    with pytest.raises(MemoryError):
        await verifier.verify(AUTHOR, EPOCH, nonce(1))
    with pytest.raises(AdmissionError, match="not verified"):
        verifier.quality(AUTHOR, EPOCH, nonce(1))
    assert await verifier.verify(AUTHOR, EPOCH, nonce(1)) > 0


async def test_the_loop_goes_on_while_it_checks() -> None:
    """The check waits for what only the event loop does."""
    begun, released = threading.Event(), threading.Event()
    threads: list[int] = []

    class Waiting(Stamps):
        def attempt(self, author: PeerId, epoch: int, ticket: bytes) -> int:
            threads.append(threading.get_ident())
            begun.set()
            assert released.wait(WAIT_S), "the event loop stood still"
            return 0

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Verifier(Waiting(SWARM)).verify, AUTHOR, EPOCH, nonce(0))
        with trio.fail_after(WAIT_S):
            while not begun.is_set():
                await trio.lowlevel.checkpoint()
        released.set()
    assert threads != [threading.get_ident()]
