"""A text classifier: L2-regularised logistic regression on hashed n-grams and numeric fields.

It is solved in the space of the samples (kernel logistic regression, Zhu & Hastie 2005) by
iteratively reweighted least squares, each step by conjugate gradients: a few thousand texts have
far more n-grams than there are texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log1p
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

PENALTY: Final = 0.1
"""Of the squared norm, where the n-grams of a text, and its fields, have about unit norm each."""
_CHARS = 4_000
_BUCKETS = 2_048
"""Hashed n-grams of each of the two kinds."""
_SPANS = (2, 3, 4, 5)
_TOKEN = re.compile(r"\w+|[^\w\s]")
_DIGIT = re.compile(r"\d")
_MULTIPLIER, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(29)
_STEPS, _TOLERANCE = 30, 1e-4


def text_kernel(texts: Sequence[str]) -> Floats:
    """Similarities of N texts, (N, N): of what they say and of how they are typed."""
    shapes = np.array([_shape(text) for text in texts], dtype=np.float64)
    return gram_kernel(texts) + field_kernel(shapes)


def gram_kernel(texts: Sequence[str]) -> Floats:
    """Cosines of the tf-idf n-grams of N texts, (N, N) with a unit diagonal."""
    counts = np.zeros((len(texts), 2 * _BUCKETS), dtype=np.float32)
    for at, text in enumerate(texts):
        counts[at, :_BUCKETS] = np.bincount(_words(text[:_CHARS]), minlength=_BUCKETS)
        counts[at, _BUCKETS:] = np.bincount(_bytes(text[:_CHARS]), minlength=_BUCKETS)
    rarity = np.log((1.0 + len(texts)) / (1.0 + (counts > 0).sum(axis=0)))
    found = np.sqrt(counts) * rarity.astype(np.float32)
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    similar: Floats = (found @ found.T).astype(np.float64)
    return similar


def field_kernel(fields: Floats) -> Floats:
    """Products of N rows of fields, (N, N); each field as its value, its rank and that squared.

    The square finds what is told by being in the middle, the rank what a few large values hide.

    Args:
        fields: (N, F), finite, F at least 1.
    """
    ranks = np.column_stack([_ranks(column) for column in fields.T]) / len(fields)
    columns = np.column_stack([fields, ranks, (ranks - 0.5) ** 2])
    spread = columns.std(axis=0)
    scaled = (columns - columns.mean(axis=0)) / np.where(spread > 1e-12, spread, np.inf)
    products: Floats = scaled @ scaled.T / columns.shape[1]
    return products


def auc(scores: Floats, positive: Bools) -> float:
    """Chance that a positive scores above a negative, ties half (Mann–Whitney)."""
    count, others = int(positive.sum()), int((~positive).sum())
    above = float(_ranks(scores)[positive].sum()) - count * (count + 1) / 2
    return above / (count * others)


def _ranks(values: Floats) -> Floats:
    """From 1; ties share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: Floats = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return means


def _shape(text: str) -> tuple[float, ...]:
    """Length, kinds of characters, how the text begins and ends."""
    start, end = text[:1], text[-1:]
    count = max(1, len(text))
    kinds = (str.isupper, str.isdigit, str.isspace, str.isascii)
    return (
        log1p(len(text)),
        float(text.count("\n")),
        *(sum(map(kind, text[:_CHARS])) / count for kind in kinds),
        sum(text.count(mark) for mark in ".,;:!?") / count,
        float(start.isupper()),
        float(start.isspace()),
        *(float(end == mark) for mark in ".?!"),
        float(end.isspace()),
        float("  " in text),
    )


def _words(text: str) -> Ints:
    """Buckets of words and of neighbouring words; digits are alike, but not their number."""
    words = _TOKEN.findall(_DIGIT.sub("0", text))
    grams = [*words, *(f"{a} {b}" for a, b in pairwise(words))]
    hashed = [crc32(gram.encode(errors="replace")) % _BUCKETS for gram in grams]
    return np.array(hashed, dtype=np.int64)


def _bytes(text: str) -> Ints:
    """Buckets of runs of 2 to 5 bytes."""
    raw = np.frombuffer(text.encode(errors="replace"), dtype=np.uint8).astype(np.uint64)
    found = [np.zeros(0, dtype=np.int64)]
    for span in _SPANS:
        mixed = np.full(max(0, len(raw) - span + 1), span, dtype=np.uint64)
        for at in range(span):
            mixed = (mixed + raw[at : at + len(mixed)]) * _MULTIPLIER
            mixed ^= mixed >> _SHIFT
        found.append((mixed % np.uint64(_BUCKETS)).astype(np.int64))
    return np.concatenate(found)


@dataclass(frozen=True, slots=True)
class Learnt:
    """A fitted regression: the multiplier of each of the N samples, shape (N,)."""

    multipliers: Floats

    def score(self, kernel: Floats) -> Floats:
        """Log-odds of being positive, (M,), from similarities to the samples, (M, N)."""
        scores: Floats = kernel @ self.multipliers + self.multipliers.sum()
        return scores


def learn(kernel: Floats, positive: Bools, penalty: float = PENALTY) -> Learnt:
    """Minimise sum log(1 + exp(−y f)) + penalty/2 a'Ka, where K = kernel + 1 and f = K a.

    The one that is added is the intercept, penalised like the rest.
    """
    gram = kernel + 1.0
    multipliers = np.zeros(len(positive))
    for _ in range(_STEPS):
        logits = np.clip((gram @ multipliers), -30.0, 30.0)
        chance = 1.0 / (1.0 + np.exp(-logits))
        scale = np.sqrt(np.maximum(chance * (1.0 - chance), 1e-9))
        wanted = scale * logits + (positive - chance) / scale
        solved = scale * _solve(gram, scale, penalty, wanted, multipliers / scale)
        change = np.abs(solved - multipliers).max()
        multipliers = solved
        if change < _TOLERANCE * np.abs(solved).max():
            break
    return Learnt(multipliers)


def _solve(gram: Floats, scale: Floats, penalty: float, wanted: Floats, start: Floats) -> Floats:
    """(S K S + penalty) x = wanted by conjugate gradients, S the diagonal of ``scale``."""
    found = start.copy()
    residual = wanted - scale * (gram @ (scale * found)) - penalty * found
    direction, size = residual.copy(), float(residual @ residual)
    target = (_TOLERANCE * 0.1 * float(np.linalg.norm(wanted))) ** 2
    for _ in range(len(wanted)):
        if size <= target:
            break
        image = scale * (gram @ (scale * direction)) + penalty * direction
        length = size / float(direction @ image)
        found += length * direction
        residual -= length * image
        last, size = size, float(residual @ residual)
        direction = residual + (size / last) * direction
    return found
