"""Delta_m and Delta_b: their definition, and what they refuse."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt_core.deltas import counted, delta_b, delta_m, relative_change
from mt_core.errors import ConfigError

WAYS = {"semseg": {"miou": "higher", "pixel_accuracy": "higher"}, "depth": {"rmse": "lower", "delta1": "higher"}}
BASE = {"semseg": {"miou": 50.0, "pixel_accuracy": 80.0}, "depth": {"rmse": 0.5, "delta1": 90.0}}
BETTER = {"semseg": {"miou": 55.0, "pixel_accuracy": 84.0}, "depth": {"rmse": 0.4, "delta1": 99.0}}


def test_a_change_is_signed_by_the_direction_of_its_metric() -> None:
    assert relative_change(55, 50, "higher") == pytest.approx(10)
    assert relative_change(55, 50, "lower") == pytest.approx(-10)


def test_no_change_is_relative_to_nothing() -> None:
    assert math.isnan(relative_change(1, 0, "higher"))
    assert math.isnan(relative_change(math.nan, 1, "higher"))
    assert math.isnan(relative_change(1, math.nan, "lower"))


def test_a_direction_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="direction 'up' of a metric: expected 'higher' or 'lower'"):
        relative_change(1, 1, "up")


def test_delta_m_is_the_mean_over_tasks_of_the_first_metric() -> None:
    assert delta_m(BETTER, BASE, WAYS) == pytest.approx((10 + 20) / 2)


def test_delta_b_takes_the_mean_over_the_metrics_of_a_task_first() -> None:
    assert delta_b(BETTER, BASE, WAYS) == pytest.approx(((10 + 5) / 2 + (20 + 10) / 2) / 2)
    fewer = {**BETTER, "semseg": {"miou": 55.0}}
    assert delta_b(fewer, BASE, WAYS) == pytest.approx((10 + (20 + 10) / 2) / 2)


def test_nothing_is_left_out_of_a_mean_silently() -> None:
    assert math.isnan(delta_m({**BETTER, "depth": {"rmse": math.nan}}, BASE, WAYS))
    with pytest.raises(ConfigError, match="the baseline has no delta1 of task depth; give one that was measured"):
        delta_b(BETTER, {**BASE, "depth": {"rmse": 0.5}}, WAYS)
    with pytest.raises(ConfigError, match="a mean over tasks and their metrics; there is none"):
        delta_m({}, BASE, WAYS)


def test_delta_b_counts_what_the_papers_of_a_protocol_print() -> None:
    scores = {
        "normals": {"mean_angle": 1.0, "rmse_angle": 2.0, "within_30": 3.0},
        "edges": {"ods_f": 4.0, "ois_f": 5.0},
    }
    assert counted(scores, "mtsam") == {"normals": {"mean_angle": 1.0, "within_30": 3.0}, "edges": {"ods_f": 4.0}}
    assert counted(scores, "astmt") == {"normals": {"mean_angle": 1.0}, "edges": {"ods_f": 4.0}}


numbers = st.floats(0.01, 1000)


@given(st.lists(st.tuples(numbers, numbers, st.booleans()), min_size=1, max_size=6))
def test_delta_equals_the_formula_of_the_papers(values: list[tuple[float, float, bool]]) -> None:
    scores = {f"t{i}": {"m": ours} for i, (ours, _, _) in enumerate(values)}
    base = {f"t{i}": {"m": theirs} for i, (_, theirs, _) in enumerate(values)}
    ways = {f"t{i}": {"m": "lower" if lower else "higher"} for i, (_, _, lower) in enumerate(values)}
    total = 0.0
    for ours, theirs, lower in values:
        total += (-1) ** int(lower) * (ours - theirs) / theirs
    expected = pytest.approx(100 * total / len(values), rel=1e-9, abs=1e-9)
    assert delta_m(scores, base, ways) == expected
    assert delta_b(scores, base, ways) == expected
    assert delta_m(base, base, ways) == 0
