"""The bundled models are trained from these draws: not one of them may change."""

from __future__ import annotations

from hashlib import sha256

import pytest

from swarm.calibration.families import FAMILIES, sample, worked, wrong
from swarm.calibration.task import Split
from swarm.seeded import Stream

PINNED: dict[str | None, tuple[str, str, str]] = {
    "add": ("5cce4c578789322e", "d958dc0d12ae3b38", "ede01dc66d23a986"),
    "sub": ("c3201264f1dab893", "6d74b471b22c6285", "f17b9632503d8201"),
    "series": ("e8ed6dc5f6d57542", "c23b20c286b501b0", "76f3811de5e0958c"),
    "units": ("65edde5eb9751f65", "58235506956f0098", "37e282a396aec187"),
    "count": ("d655ac564fe63673", "8a42cb291ec5b2f0", "117c75f3e2d21142"),
    "compare": ("7cd065193932ccbf", "9b92e7ec62ece706", "763e5a3fd8e847f8"),
    "sort": ("7a7c96e75fdbd672", "7b8e58a1b60b8abf", "43095303205d6afb"),
    "pick": ("4ba063fce0681166", "1dfe2dd9587d7d01", "6758c36a1ccdf9b6"),
    "reverse": ("4234aa8350981909", "3eaa7bd27b1a6dc6", "9aceeb894c652202"),
    "alphabetise": ("28ba50afab88d977", "cad039c10ebed8ed", "df29bff53a803948"),
    "vowels": ("2bbf92830ff9d4fc", "60b45ede26b39455", "d135e2fee1ebf824"),
    None: ("27124081a3578104", "dc2bdab4eda8b49b", "fcade32eb1f2320b"),
}
"""Digests of 120 samples each of the splits train, calib and test; None draws the family, too."""


def digest(split: Split, family: str | None) -> str:
    stream = Stream(f"pinned/{split}/{family}".encode())
    running = sha256()
    for _ in range(120):
        task = sample(stream, split, family)
        drawn = (task.family, task.key, task.question, task.answer)
        running.update(repr((*drawn, worked(task), wrong(stream, task))).encode())
    return running.hexdigest()[:16]


def test_every_bundled_family_is_pinned() -> None:
    assert set(PINNED) == {*FAMILIES, None}


@pytest.mark.parametrize("family", PINNED, ids=str)
def test_level_one_in_plain_wording_is_what_the_models_were_trained_on(family: str | None) -> None:
    found = (digest("train", family), digest("calib", family), digest("test", family))
    assert found == PINNED[family]
