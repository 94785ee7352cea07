"""The detector finds what is there, nothing where nothing is, and agrees with references."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import mannwhitneyu, rankdata

from swarm.calibration import detect as module
from swarm.calibration.blending import most_ordinary
from swarm.calibration.classifier import (
    PENALTY,
    Floats,
    auc,
    field_kernel,
    gram_kernel,
    learn,
    text_kernel,
)
from swarm.calibration.detect import FOLDS, Row, detect, folds, interval
from swarm.calibration.families import FAMILIES, Style, sample
from swarm.calibration.source import Source
from swarm.seeded import Stream


def questions(style: Style, count: int, seed: bytes) -> list[str]:
    """Ordinary traffic: held-out questions of the bundled families."""
    stream = Stream(b"traffic/" + seed)
    return [sample(stream, "test", stream.choice(tuple(FAMILIES)), 2, style).question
            for _ in range(count)]  # fmt: skip


def hidden_tasks(style: Style, count: int, seed: bytes) -> list[str]:
    stream, source = Stream(b"hidden/" + seed), Source(seed)
    return [source.next(stream.choice(tuple(FAMILIES)), 2, style).question for _ in range(count)]


def rows(ordinary: list[str], hidden: list[str]) -> list[Row]:
    return [Row(text, (), False) for text in ordinary] + [Row(text, (), True) for text in hidden]


# --- what there is to find --------------------------------------------------------------------


def test_other_wordings_are_found() -> None:
    found = detect(rows(questions("plain", 150, b"a"), hidden_tasks("free", 150, b"a")))
    assert found.text.value > 0.9
    assert found.text.low > 0.85
    assert found.fields is None
    assert found.both == found.text


def test_one_word_in_every_text_is_found() -> None:
    ordinary, hidden = questions("free", 150, b"b"), hidden_tasks("free", 150, b"b")
    assert detect(rows(ordinary, [f"{text} kindly" for text in hidden])).text.value > 0.95


def test_trailing_spaces_are_found() -> None:
    ordinary, hidden = questions("free", 150, b"c"), hidden_tasks("free", 150, b"c")
    assert detect(rows(ordinary, [f"{text}  " for text in hidden])).text.value > 0.95


def test_the_same_wordings_are_not_told_apart() -> None:
    for style in ("plain", "free"):
        found = detect(rows(questions(style, 300, b"d"), hidden_tasks(style, 300, b"d")))
        assert 0.42 < found.text.value < 0.58
        assert found.text.low < 0.5 + 0.03


def with_fields(draw: Stream, hidden: bool, kind: str) -> tuple[float, ...]:
    noise = sum(draw.unit() for _ in range(6)) - 3.0
    if kind == "shift":
        return (noise + 1.5 * hidden, draw.unit())
    if kind == "middle":  # the same mean; hidden ones in the middle
        return (noise * (0.15 if hidden else 1.0), draw.unit())
    if kind == "tail":  # found by rank, lost in the spread of a few huge values
        return (10.0 ** (3 * noise + 6.0 * hidden), draw.unit())
    return (noise, draw.unit())


@pytest.mark.parametrize("kind", ["shift", "middle", "tail"])
def test_fields_that_differ_are_found(kind: str) -> None:
    stream = Stream(b"fields")
    made = [Row("What?", with_fields(stream, at % 2 == 0, kind), at % 2 == 0) for at in range(500)]
    found = detect(made)
    assert found.fields is not None
    assert found.fields.value > 0.85
    assert found.both.value > 0.85
    assert found.text.value == pytest.approx(0.5)


def test_fields_that_do_not_differ_are_not() -> None:
    stream = Stream(b"no fields")
    made = [Row("What?", (*with_fields(stream, False, ""), 7.0), at % 2 == 0) for at in range(600)]
    found = detect(made)
    assert found.fields is not None
    assert 0.4 < found.fields.value < 0.6


def test_text_and_fields_together_find_more() -> None:
    stream = Stream(b"both")
    ordinary, hidden = questions("free", 200, b"e"), hidden_tasks("free", 200, b"e")
    some = [text + (" kindly" if stream.below(3) else "") for text in hidden]
    made = [Row(text, with_fields(stream, False, "shift"), False) for text in ordinary]
    made += [Row(text, with_fields(stream, True, "shift"), True) for text in some]
    found = detect(made)
    assert found.fields is not None
    assert found.both.value > max(found.text.value, found.fields.value)


def test_the_result_depends_on_nothing_but_its_arguments() -> None:
    made = rows(questions("free", 40, b"f"), hidden_tasks("free", 40, b"f"))
    assert detect(made) == detect(list(made))


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ([], "fewer than"),
        ([Row("a", (), True)] * 20, "fewer than"),
        ([Row("a", (), True)] * 20 + [Row("a", (), False)] * (FOLDS - 1), "fewer than"),
        ([Row("a", (1.0,), True)] * 9 + [Row("b", (), False)] * 9, "differ in their number"),
        ([Row("a", (nan,), True)] * 9 + [Row("b", (1.0,), False)] * 9, "finite"),
        ([Row("a", (inf,), True)] * 9 + [Row("b", (1.0,), False)] * 9, "finite"),
    ],
)
def test_what_cannot_be_measured_is_refused(made: list[Row], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        detect(made)


def test_there_is_a_bound_on_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 20)
    with pytest.raises(ValueError, match="more than 20 rows"):
        detect([Row("a", (), at % 2 == 0) for at in range(21)])


@settings(max_examples=30)
@given(st.lists(st.text(max_size=30), min_size=10, max_size=16))
def test_any_texts_can_be_compared(texts: list[str]) -> None:
    found = detect([Row(text, (float(len(text)),), at % 2 == 0) for at, text in enumerate(texts)])
    assert found.fields is not None
    for view in (found.text, found.fields, found.both):
        assert 0.0 <= view.low <= view.value <= view.high <= 1.0


# --- its parts, against references ------------------------------------------------------------

SCORES = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=40)


@given(SCORES)
def test_the_area_is_that_of_mann_and_whitney(pairs: list[tuple[int, bool]]) -> None:
    scores = np.array([float(score) for score, _ in pairs])
    positive = np.array([flag for _, flag in pairs])
    if positive.all() or not positive.any():
        return
    test = mannwhitneyu(scores[positive], scores[~positive])
    assert auc(scores, positive) == pytest.approx(
        test.statistic / (positive.sum() * (~positive).sum())
    )


def test_the_interval_is_that_of_hanley_and_mcneil() -> None:
    # Their equations by hand, for 51 and 58 images and an area of .893: Q1 = .80668,
    # Q2 = .84253, variance (.09555 + 50 × .00923 + 57 × .04508) / 2,958 = .0010570.
    found = interval(0.893, 51, 58)
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx(0.03251, abs=2e-5)
    assert (found.low + found.high) / 2 == pytest.approx(0.893)
    assert interval(1.0, 10, 10) == module.Auc(1.0, 1.0, 1.0)
    assert interval(0.97, 10, 10).high == 1.0


def test_the_interval_covers_what_it_should() -> None:
    generator = np.random.default_rng(5)
    inside = 0
    for _ in range(300):
        positive = np.arange(140) < 60
        scores = generator.normal(size=140) + positive  # the area is Φ(1/√2) = .760
        found = interval(auc(scores, positive), 60, 80)
        inside += found.low <= 0.760 <= found.high
    assert 270 <= inside <= 298


def objective(gram: Floats, positive: Floats, penalty: float) -> Floats:
    """The least of the objective, found by a general method in as many unknowns as there are
    directions in the samples."""
    values, vectors = np.linalg.eigh(gram)
    root = vectors * np.sqrt(np.maximum(values, 0.0))

    def value(weights: Floats) -> tuple[float, Floats]:
        logits = root @ weights
        sign = 2 * positive - 1
        loss = np.logaddexp(0.0, -sign * logits).sum() + penalty / 2 * weights @ weights
        slope = root.T @ (-sign / (1 + np.exp(sign * logits))) + penalty * weights
        return float(loss), slope

    found = minimize(value, np.zeros(len(gram)), jac=True, method="L-BFGS-B",
                     options={"maxiter": 5_000, "ftol": 1e-15, "gtol": 1e-9})  # fmt: skip
    logits: Floats = root @ found.x
    return logits


@pytest.mark.parametrize("penalty", [PENALTY, 1.0, 10.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_regression_is_that_of_scipy(penalty: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(80, 6))
    positive = points[:, 0] + generator.normal(size=80) > 0.3
    kernel = points @ points.T / 6
    mine = learn(kernel, positive, penalty).score(kernel)
    assert mine == pytest.approx(objective(kernel + 1.0, positive.astype(float), penalty), abs=2e-3)


def test_the_regression_is_that_of_scipy_on_texts_it_can_tell_apart() -> None:
    texts = questions("plain", 30, b"g") + questions("free", 30, b"g")
    kernel, positive = text_kernel(texts), np.arange(60) >= 30
    mine = learn(kernel, positive).score(kernel)
    assert mine == pytest.approx(objective(kernel + 1.0, positive.astype(float), PENALTY), abs=2e-2)


def test_likeness_of_texts() -> None:
    kernel = gram_kernel(["the red house", "the red house", "a red house", "12 + 3 = ?", ""])
    assert np.allclose(np.diag(kernel)[:4], 1.0, atol=1e-5)
    assert np.allclose(kernel, kernel.T, atol=1e-6)
    assert kernel[0, 1] == pytest.approx(1.0, abs=1e-5)
    assert kernel[0, 1] > kernel[0, 2] > kernel[0, 3] >= 0.0
    assert kernel[4].max() == 0.0


def test_fields_count_alike_in_any_unit() -> None:
    values = np.array([[3.0, 1.0], [1.0, 5.0], [2.0, 2.0], [9.0, 2.0]])
    assert np.allclose(field_kernel(values), field_kernel(values * [1e6, 1e-6] + [5.0, -3.0]))
    constant = np.column_stack([values, np.full(4, 7.0)])
    assert np.allclose(field_kernel(constant) * 9, field_kernel(values) * 6)


def test_ties_share_their_rank() -> None:
    # Ranks enter through field_kernel: equal values must be equally like all others.
    kernel = field_kernel(np.array([[1.0], [2.0], [2.0], [5.0]]))
    assert np.allclose(kernel[1], kernel[2])
    assert rankdata([1.0, 2.0, 2.0, 5.0]).tolist() == [1.0, 2.5, 2.5, 4.0]


def test_folds_are_even() -> None:
    hidden = np.arange(53) < 21
    fold = folds(hidden, b"x")
    for kind in (True, False):
        sizes = np.bincount(fold[hidden == kind], minlength=FOLDS)
        assert sizes.max() - sizes.min() <= 1
    assert (fold != folds(hidden, b"y")).any()


# --- choosing the most ordinary ---------------------------------------------------------------


def test_the_chosen_are_harder_to_tell() -> None:
    """Traffic of one style; the candidates are of both, half and half."""
    traffic = questions("plain", 300, b"h")
    candidates = hidden_tasks("free", 250, b"h") + hidden_tasks("plain", 250, b"i")
    chosen = most_ordinary(traffic[:150], candidates, 120, b"seed")
    assert len(set(chosen)) == 120
    assert list(chosen) == sorted(chosen)
    assert sum(at >= 250 for at in chosen) > 0.75 * 120
    blind = candidates[::4]
    before = detect(rows(traffic[150:], blind)).text.value
    after = detect(rows(traffic[150:], [candidates[at] for at in chosen])).text.value
    assert before > 0.65
    assert after < 0.6


def test_the_choice_depends_on_the_seed_alone() -> None:
    traffic, candidates = questions("plain", 20, b"j"), hidden_tasks("plain", 40, b"j")
    first = most_ordinary(traffic, candidates, 10, b"1")
    assert first == most_ordinary(traffic, candidates, 10, b"1")
    assert first != most_ordinary(traffic, candidates, 10, b"2")
    assert most_ordinary(traffic, candidates, 40, b"1") == tuple(range(40))
    assert most_ordinary(traffic, candidates, 0, b"1") == ()


def test_there_must_be_something_to_choose_from(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="more wanted"):
        most_ordinary(["a"] * 9, ["b"] * 9, 10, b"")
    with pytest.raises(ValueError, match="from 5 texts"):
        most_ordinary(["a"] * 4, ["b"] * 9, 2, b"")
    monkeypatch.setattr("swarm.calibration.blending.ROWS", 15)
    with pytest.raises(ValueError, match="to 15 in all"):
        most_ordinary(["a"] * 9, ["b"] * 9, 2, b"")
