"""When peers are dialled again."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock

from node.mesh import dial
from node.mesh.address import Address
from node.mesh.dial import Dialler
from protocol import limits
from protocol.ids import PeerId

PEER = PeerId(bytes(31) + b"\x01")


def address(port: int = 4001, peer: PeerId = PEER) -> Address:
    return Address("ip4", "192.0.2.1", port, peer)


class Dials:
    """Records dials, and answers them."""

    def __init__(self, answers: bool = False) -> None:
        self.answers = answers
        self.times: list[float] = []
        self.seen: list[Address] = []
        self.dialler = Dialler(self.dial, self.until_down, random.Random(1))

    async def dial(self, where: Address) -> bool:
        self.times.append(trio.current_time())
        self.seen.append(where)
        return self.answers

    async def until_down(self, peer: PeerId) -> None:
        await trio.lowlevel.checkpoint()

    async def run(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self.dialler.run()


async def test_a_bootstrap_is_dialled_for_ever_and_ever_less_often(
    autojump_clock: MockClock,
) -> None:
    dials = Dials()
    dials.dialler.want(address())
    await dials.run(3600)
    pauses = [later - earlier for earlier, later in zip(dials.times, dials.times[1:], strict=False)]
    assert pauses[0] <= 3 * dial.FIRST_DELAY_S
    assert max(pauses) <= 1.5 * dial.LAST_DELAY_S
    assert min(pauses[8:]) >= 0.5 * dial.LAST_DELAY_S
    assert len(pauses) > 3600 / (1.5 * dial.LAST_DELAY_S)


async def test_a_bootstrap_that_was_there_is_dialled_soon(autojump_clock: MockClock) -> None:
    dials = Dials(answers=True)
    dials.dialler.want(address())
    await dials.run(60)
    pauses = [later - earlier for earlier, later in zip(dials.times, dials.times[1:], strict=False)]
    assert max(pauses) <= 1.5 * dial.FIRST_DELAY_S


async def test_another_peer_is_given_up(autojump_clock: MockClock) -> None:
    dials = Dials()
    dials.dialler.want(address(), dial.TRIES)
    await dials.run(3600)
    assert len(dials.times) == dial.TRIES


async def test_the_addresses_of_a_peer_are_tried_in_turn(autojump_clock: MockClock) -> None:
    dials = Dials()
    for port in range(1, 11):
        dials.dialler.want(address(port), 1)
    await dials.run(100)
    assert [where.port for where in dials.seen] == [10, 9, 8, 7]


async def test_the_number_of_peers_wanted_is_bounded(autojump_clock: MockClock) -> None:
    dials = Dials()
    for number in range(limits.PEERS + 10):
        dials.dialler.want(address(peer=PeerId(number.to_bytes(32, "big"))), 1)
    await dials.run(100)
    assert len(dials.seen) == limits.PEERS


def test_an_address_without_a_peer_is_no_target() -> None:
    with pytest.raises(ValueError, match="does not say who"):
        Dials().dialler.want(Address("ip4", "192.0.2.1", 4001))
