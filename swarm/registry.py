"""Who is connected, what they say they run, and whom to ask.

Claims only: calibration is what will weigh them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import zip_longest

from protocol.ids import PeerId
from protocol.messages import Profile
from swarm.seeded import Stream


class Registry:
    """The peers connected now that have introduced themselves."""

    def __init__(self) -> None:
        self._profiles: dict[PeerId, Profile] = {}

    @property
    def profiles(self) -> Mapping[PeerId, Profile]:
        """The latest profile of each connected peer."""
        return self._profiles

    def introduce(self, peer: PeerId, profile: Profile) -> None:
        """A connected peer said what it runs; the latest word counts."""
        self._profiles[peer] = profile

    def forget(self, peer: PeerId) -> None:
        """A peer is not connected any more."""
        self._profiles.pop(peer, None)

    def able(self) -> list[PeerId]:
        """The peers that serve rounds, sorted."""
        return sorted(peer for peer, profile in self._profiles.items() if profile.serves)

    def committee(self, size: int, seed: bytes, own: PeerId | None = None) -> tuple[PeerId, ...]:
        """At most ``size`` able peers, sorted.

        Half the seats go round the model families in turn, for peers of one family err together.
        The other half are drawn from all alike, since a family is only what a peer says of
        itself: with the first rule alone, nine invented families would be the committee.

        Args:
            seed: decides among equals.
            own: this node, which has a seat whenever it serves.
        """
        stream = Stream(seed)
        able = self.able()
        chosen = [own] if own is not None and own in able and size > 0 else []
        rest = [peer for peer in able if peer not in chosen]
        stream.shuffle(rest)
        families: defaultdict[str, list[PeerId]] = defaultdict(list)
        for peer in rest:
            families[self._profiles[peer].model.family].append(peer)
        groups = [families[name] for name in sorted(families)]
        stream.shuffle(groups)
        in_turn = [peer for tier in zip_longest(*groups) for peer in tier if peer is not None]
        diverse = in_turn[: max(0, size - len(chosen) + 1) // 2]
        chosen += diverse
        chosen += [peer for peer in rest if peer not in diverse][: size - len(chosen)]
        return tuple(sorted(chosen))
