"""The odsF of edges: suppression, pairs and matching against loops over pixels, and the whole against all of them."""

from __future__ import annotations

import itertools
import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.morphology import skeletonize
from torch import Tensor

from mt_core.errors import ConfigError
from mt_core.protocols import protocol
from mt_core.protocols.edges import PLATEAU, SMOOTHING, OdsF, match, pairs, suppress
from mt_core.tasks import Edges

Array = np.ndarray[Any, Any]
Pairs = list[tuple[int, int]]

THRESHOLDS = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
TOLERANCES = (0.03, 0.08)  # 1.2 and 3.2 pixels of 24 x 32


def edge_maps(size: int, seed: int, void: float = 0.2) -> tuple[Tensor, Tensor]:
    """Soft probabilities around, and beside, the boundaries of random regions of 24 x 32 pixels."""
    rng = np.random.default_rng(seed)
    regions = ndimage.gaussian_filter(rng.normal(size=(size, 24, 32)), (0, 4, 4)) > 0
    truth = regions != np.roll(regions, 1, -1)
    soft = ndimage.gaussian_filter(np.roll(truth, 1, -1).astype(float), (0, 1, 1))
    noise = ndimage.gaussian_filter(rng.normal(size=truth.shape), (0, 1, 1))
    target = torch.from_numpy(truth).float()
    target[torch.from_numpy(rng.random(truth.shape) < void)] = 255
    return torch.from_numpy(np.clip(2 * soft + noise, 0, 1)).float().unsqueeze(1), target.unsqueeze(1)


# --- literal definitions


def literal_suppress(p: Array) -> Array:
    smooth, kept = ndimage.gaussian_filter(p, SMOOTHING), np.zeros_like(p)
    first = np.gradient(smooth)
    second = [np.gradient(first[0]), np.gradient(first[1])]

    def at(row: float, column: float) -> float:
        row, column = min(max(row, 0), p.shape[0] - 1), min(max(column, 0), p.shape[1] - 1)
        r, c = min(int(row), p.shape[0] - 2), min(int(column), p.shape[1] - 2)
        a, b = row - r, column - c
        above, below = (1 - b) * p[r, c] + b * p[r, c + 1], (1 - b) * p[r + 1, c] + b * p[r + 1, c + 1]
        return float((1 - a) * above + a * below)

    for r, c in np.ndindex(*p.shape):
        mixed = second[0][1][r, c]
        hessian = np.array([[second[0][0][r, c], mixed], [mixed, second[1][1][r, c]]])
        values, vectors = np.linalg.eigh(hessian)
        y, x = vectors[:, np.abs(values).argmax()]
        if PLATEAU * p[r, c] >= max(at(r + y, c + x), at(r - y, c - x)):
            kept[r, c] = p[r, c]
    return kept


def literal_pairs(predicted: Array, truth: Array, radius: float) -> Pairs:
    width = truth.shape[1]
    return [
        (r * width + c, y * width + x)
        for (r, c), (y, x) in itertools.product(np.argwhere(predicted), np.argwhere(truth))
        if math.hypot(r - y, c - x) <= radius
    ]


def literal_match(found: Pairs) -> int:
    """Augmenting paths, one after the other (Kuhn)."""
    near: dict[int, list[int]] = {}
    for one, other in found:
        near.setdefault(one, []).append(other)
    taken: dict[int, int] = {}

    def place(one: int, seen: set[int]) -> bool:
        for other in near[one]:
            if other not in seen:
                seen.add(other)
                if other not in taken or place(taken[other], seen):
                    taken[other] = one
                    return True
        return False

    return sum(place(one, set()) for one in near)


def brute_match(found: Pairs) -> int:
    """The most pairs of which no two share anything, by trying every choice."""
    if not found:
        return 0
    (one, other), *rest = found
    return max(brute_match(rest), 1 + brute_match([pair for pair in rest if pair[0] != one and pair[1] != other]))


def literal_ods_f(batches: list[tuple[Tensor, Tensor]], tolerance: float) -> float:
    best = 0.0
    for threshold in THRESHOLDS.tolist():
        matched = predicted = annotated = 0
        for ps, ts in batches:
            for p, t in zip(ps[:, 0].double().numpy(), ts[:, 0].numpy(), strict=True):
                valid = t != 255
                crests = np.where(valid, literal_suppress(np.where(valid, p, 0)), 0)
                thin, truth = skeletonize(crests > threshold), skeletonize(t == 1)
                matched += literal_match(literal_pairs(thin, truth, tolerance * math.hypot(*t.shape)))
                predicted, annotated = predicted + thin.sum(), annotated + truth.sum()
        precision, recall = matched / predicted if predicted else 0.0, matched / annotated if annotated else 0.0
        best = max(best, 2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return 100 * best


# --- the parts


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=9, unique=True))
@settings(max_examples=50)
def test_a_matching_is_as_large_as_the_best_of_all_choices(found: Pairs) -> None:
    one, other = (np.array([pair[i] for pair in found], int) for i in (0, 1))
    assert match(one, other, 5) == literal_match(found) == brute_match(found)


@given(st.integers(0, 99), st.floats(0.02, 0.5), st.floats(0.5, 4))
@settings(max_examples=30)
def test_pairs_and_matchings_of_pictures_equal_loops_over_their_pixels(seed: int, share: float, radius: float) -> None:
    predicted, truth = np.random.default_rng(seed).random((2, 9, 11)) < share
    one, other, squares = pairs(predicted, truth, radius)
    found = list(zip(one.tolist(), other.tolist(), strict=True))
    assert sorted(found) == sorted(literal_pairs(predicted, truth, radius))
    assert (squares <= radius**2).all()
    assert match(one, other, 99) == literal_match(found)


@pytest.mark.parametrize("seed", range(3))
def test_suppression_equals_a_loop_over_pixels(seed: int) -> None:
    p = ndimage.gaussian_filter(np.random.default_rng(seed).random((20, 17)), 1.5)
    np.testing.assert_array_equal(suppress(p), literal_suppress(p))


def test_suppression_keeps_the_crest_of_a_soft_line() -> None:
    line = np.zeros((32, 32))
    line[:, 15] = 1
    crest = suppress(ndimage.gaussian_filter(line, 2))
    assert (crest[:, 15] > 0).all()
    assert not np.delete(crest, 15, axis=1).any()


# --- the whole


@pytest.mark.parametrize("index", [0, 1])
def test_ods_f_equals_its_literal_definition(index: int) -> None:
    batches = [edge_maps(2, 1), edge_maps(1, 2, void=0), edge_maps(1, 3, void=1.1)]
    metric = OdsF(TOLERANCES, THRESHOLDS, index)
    for batch in batches:
        metric.update(*batch)
    assert metric.compute().item() == pytest.approx(literal_ods_f(batches, TOLERANCES[index]), rel=1e-12)
    assert 20 < metric.compute() < 90


def measured(prediction: Tensor, target: Tensor) -> dict[str, float]:
    metrics = protocol("astmt").thorough().metrics(Edges("edges"))
    for metric in metrics.values():
        metric.update(prediction, target)
    return {name: metric.compute().item() for name, metric in metrics.items()}


def line(*columns: int, size: int = 144) -> Tensor:
    picture = torch.zeros(1, 1, size, size)
    picture[..., list(columns)] = 1
    return picture


def test_an_edge_aside_is_matched_up_to_the_tolerance_in_the_name() -> None:
    # of 144 x 144 the diagonal is 203.6: 1.53 pixels and 2.24 pixels
    assert measured(line(70), line(70)) == {"max_pixel_f": 100, "ods_f_0_0075": 100, "ods_f_0_011": 100}
    assert measured(line(71), line(70)) == {"max_pixel_f": 0, "ods_f_0_0075": 100, "ods_f_0_011": 100}
    assert measured(line(72), line(70)) == {"max_pixel_f": 0, "ods_f_0_0075": 0, "ods_f_0_011": 100}
    assert measured(line(73), line(70)) == {"max_pixel_f": 0, "ods_f_0_0075": 0, "ods_f_0_011": 0}


def test_an_annotated_pixel_is_matched_once() -> None:
    found = measured(line(68, 72), line(70))["ods_f_0_011"]
    assert found == pytest.approx(100 * 2 / 3, abs=0.5)  # every second predicted pixel is one too many


def test_a_thick_prediction_is_thinned() -> None:
    assert measured(line(69, 70, 71), line(70))["ods_f_0_0075"] > 98


def test_what_is_predicted_where_nothing_is_annotated_does_not_count() -> None:
    target = line(70)
    target[..., 100:] = 255
    assert measured(line(70, 120), target)["ods_f_0_0075"] == 100


def test_pictures_without_an_edge_count_what_is_predicted_in_them() -> None:
    empty = torch.zeros(1, 1, 144, 144)
    assert measured(torch.cat([line(70), line(70)]), torch.cat([line(70), empty]))["ods_f_0_0075"] == pytest.approx(
        100 * 2 / 3
    )
    assert math.isnan(measured(line(70), torch.full_like(empty, 255))["ods_f_0_0075"])


def test_the_odsf_is_measured_only_when_asked_for() -> None:
    rules = protocol("astmt")
    assert "ods_f_0_011" not in rules.metrics(Edges("edges"))
    assert rules.thorough().name == "astmt"


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ConfigError, match=r"odsF of edges needs scipy and scikit-image.*'mt-core\[edges\]'"):
        protocol("astmt").thorough().metrics(Edges("edges"))
