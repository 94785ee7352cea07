"""What a question is about, inferred from its text alone.

Each topic is learnt from sample questions: which word n-grams (up to four words, and whole
sentences) its questions have. A question goes to the topic that naive Bayes (Bernoulli, seen
n-grams alone) finds likeliest, and stays unknown unless enough of its n-grams speak for that topic.
An n-gram speaks the louder, the fewer topics share it; one that no topic has speaks against all.
So what the samples never showed is unknown, which costs little (equal weights), while a wrong
topic would give its specialists a say that they have not earned.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swarm.calibration import phrasing
from swarm.calibration.families import CATALOGUE
from swarm.calibration.items import Item
from swarm.calibration.task import Family
from swarm.seeded import Stream

Floats = NDArray[np.float64]
Gram = tuple[str, ...]

ENOUGH: Final = 0.35
"""Share of a question that must speak for its topic. Measured: one in 28 questions of a family that
was left out passes for another, all of them for a twin; at .3 one in 23, and at .42 one in 25 of
the known ones in free wording is lost."""
_CHARS, _WORDS = 3_000, 400
"""What is read of a question, from its start."""
_GRAM = 4
_UNSEEN, _PRIOR = 0.02, 10.0
"""Pseudo-counts of an n-gram in a topic: seen, and questions. The second keeps topics with few
samples from being sure of anything."""
_PLAIN, _FREE, _LEVELS, _ASIDES = 40, 9, 3, 1_500
"""Plain samples of a family, samples of each of its free wordings, its levels that they are of;
samples of asides."""

_QUOTED = re.compile(r'"[^"\n]{0,200}"|“[^”\n]{0,200}”')
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_WORD = re.compile(r"[a-z]+|[^\sa-z]")
_ENDS = frozenset(".?!:")
_ALIKE = {word.lower(): role for role, words in phrasing.ROLES.items() for word in words}


class Topics:
    """Made by :meth:`learnt`, or from samples of one's own.

    Args:
        samples: (topic, question).
        asides: texts that stand around questions of any topic; their n-grams say nothing.
    """

    def __init__(self, samples: Iterable[tuple[str, str]], asides: Iterable[str] = ()) -> None:
        names: dict[str, int] = {}
        places: dict[Gram, int] = {}
        rows: list[int] = []
        columns: list[int] = []
        totals: list[int] = []
        self._nothing = {gram for aside in asides for gram in _grams(aside)}
        for topic, question in samples:
            row = names.setdefault(topic, len(names))
            if row == len(totals):
                totals.append(0)
            totals[row] += 1
            for gram in self._telling(question):
                rows.append(row)
                columns.append(places.setdefault(gram, len(places)))
        self.names = tuple(names)
        self._places = places
        seen = np.zeros((len(places), len(names)))
        np.add.at(seen, (columns, rows), 1.0)
        asked = np.array(totals, dtype=np.float64) + _PRIOR
        self._log = np.log((seen + _UNSEEN) / asked)
        # How far each n-gram speaks for each topic: its share there, the less the more even.
        shares = seen / asked
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-300)
        entropy = -(shares * np.log(np.maximum(shares, 1e-300))).sum(axis=1)
        self._loudness = 1.0 - entropy / np.log(max(2, len(names)))
        self._speaks = shares * self._loudness[:, None]

    @classmethod
    def learnt(cls, private: Sequence[Item] = (), without: Container[str] = ()) -> Topics:
        """The task families, in both styles, and the topics of an operator's own questions.

        Args:
            without: families to leave out, as if there were none such.
        """
        stream = Stream(b"topics")
        samples = [
            (name, question)
            for name, family in CATALOGUE.items()
            if name not in without
            for question in _questions(family, stream)
        ]
        samples += [(item.topic, item.question) for item in private if item.topic is not None]
        return cls(samples, _asides(stream))

    def topic(self, question: str) -> str | None:
        """The topic of ``question``; None where it is unknown."""
        name, share = self.nearest(question)
        return name if share >= ENOUGH else None

    def nearest(self, question: str) -> tuple[str, float]:
        """The likeliest topic, and the share of the question that speaks for it, in [0, 1]."""
        grams = self._telling(question)
        known = [self._places[gram] for gram in grams if gram in self._places]
        if not known:
            return "", 0.0
        best = int(np.argmax(self._log[known].sum(axis=0)))
        loud = float(self._loudness[known].sum()) + len(grams) - len(known)
        return self.names[best], float(self._speaks[known, best].sum()) / max(loud, 1e-300)

    def _telling(self, question: str) -> list[Gram]:
        return [gram for gram in _grams(question) if gram not in self._nothing]


def _grams(text: str) -> dict[Gram, None]:
    """The n-grams of each sentence, in order; all numbers, quotes, names and things are alike."""
    text = _NUMBER.sub(" 0 ", _QUOTED.sub(' " ', text[:_CHARS])).lower()
    text = text.replace("what's", "what is")
    grams: dict[Gram, None] = {}
    for sentence in _sentences(_WORD.findall(text)[:_WORDS]):
        grams[("", *sentence)] = None
        words = ["^", *sentence]
        grams.update(dict.fromkeys(zip(sentence, strict=False)))
        for size in range(2, _GRAM + 1):
            grams.update(dict.fromkeys(zip(*(words[at:] for at in range(size)), strict=False)))
    return grams


def _sentences(words: Iterable[str]) -> Iterator[list[str]]:
    sentence: list[str] = []
    for word in words:
        sentence.append(_ALIKE.get(word, word))
        if word in _ENDS:
            yield sentence
            sentence = []
    if sentence:
        yield sentence


def _questions(family: Family, stream: Stream) -> Iterator[str]:
    """Every wording of a family, some times each, over the easier levels."""

    def fill(wording: str) -> str:
        return family.phrase(stream, key, wording)

    for count in range(_PLAIN):
        wording = family.wordings[count % len(family.wordings)]
        yield family.phrase(stream, family.draw(stream, 1 + count % _LEVELS), wording)
    for turn in range(_FREE):
        for level in range(1, _LEVELS + 1):
            key = family.draw(stream, level)
            for wording in family.asks_for(key)[(level + turn) % _LEVELS :: _LEVELS]:
                yield phrasing.ask(stream, (wording,), family.hint, fill)


def _asides(stream: Stream) -> Iterator[str]:
    hints = tuple({family.hint: None for family in CATALOGUE.values() if family.hint})
    for _ in range(_ASIDES):
        yield phrasing.aside(stream, hints)
