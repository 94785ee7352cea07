"""Who is connected, what they say they run, and whom to ask.

Claims only: calibration is what will weigh them. A committee is spread over model families
first, since models of one family err together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

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

    def committee(self, size: int, seed: bytes) -> tuple[PeerId, ...]:
        """At most ``size`` able peers, sorted, as different in model family as can be.

        Args:
            seed: decides among equals.
        """
        stream = Stream(seed)
        families: defaultdict[str, list[PeerId]] = defaultdict(list)
        able = self.able()
        stream.shuffle(able)
        for peer in able:
            families[self._profiles[peer].model.family].append(peer)
        groups = [families[name] for name in sorted(families)]
        stream.shuffle(groups)
        chosen: list[PeerId] = []
        while len(chosen) < size and any(groups):
            for group in groups:
                if group and len(chosen) < size:
                    chosen.append(group.pop())
        return tuple(sorted(chosen))
