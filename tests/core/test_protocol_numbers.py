"""Golden numbers of every protocol: what fixed random batches gave once their literal definitions agreed."""

from __future__ import annotations

import math

import pytest

from .protocol_literals import CASES, dealt, literal, measure

GOLDEN: dict[tuple[str, str], dict[str, float]] = {
    ("astmt", "segmentation"): {
        "miou": 10.046413,
        "pixel_accuracy": 26.086957,
    },
    ("astmt", "human_parts"): {
        "miou": 9.678005,
        "pixel_accuracy": 29.180328,
    },
    ("astmt", "saliency"): {
        "max_miou": 49.504774,
        "max_f": 65.414182,
    },
    ("astmt", "edges"): {
        "max_pixel_f": 35.854342,
    },
    ("astmt", "depth"): {
        "rmse": 0.408852,
        "abs_err": 0.226447,
        "abs_rel": 0.125766,
        "rmse_log": 0.200148,
        "delta1": 83.0,
        "delta2": 95.0,
        "delta3": 98.0,
    },
    ("astmt", "normals"): {
        "mean_angle": 36.285063,
        "rmse_angle": 38.588641,
        "within_11_25": 4.43038,
        "within_22_5": 18.670886,
        "within_30": 30.696203,
    },
    ("mtan", "segmentation"): {
        "miou": math.nan,
        "pixel_accuracy": 26.086957,
        "miou_present": 15.06962,
    },
    ("mtan", "depth"): {
        "abs_err": 0.226447,
        "rel_err": 0.125766,
        "rmse": 0.408852,
        "rmse_log": 0.200148,
        "delta1": 83.0,
        "delta2": 95.0,
        "delta3": 98.0,
    },
    ("mtan", "normals"): {
        "mean_angle": 36.285063,
        "median_angle": 39.239161,
        "within_11_25": 4.43038,
        "within_22_5": 18.670886,
        "within_30": 30.696203,
        "rmse_angle": 38.588641,
    },
    ("mtsam", "segmentation"): {
        "miou": math.nan,
        "pixel_accuracy": 26.086957,
        "miou_present": 15.06962,
    },
    ("mtsam", "human_parts"): {
        "miou": math.nan,
        "pixel_accuracy": 29.180328,
        "miou_present": 16.936508,
    },
    ("mtsam", "depth"): {
        "abs_err": 0.244308,
        "rel_err": 0.130063,
        "rmse": 0.408852,
        "rmse_log": 0.200148,
        "delta1": 83.0,
        "delta2": 95.0,
        "delta3": 98.0,
    },
    ("mtsam", "normals"): {
        "mean_angle": 36.674228,
        "median_angle": 39.833659,
        "within_11_25": 4.37799,
        "within_22_5": 18.42504,
        "within_30": 29.617225,
        "rmse_angle": 38.588641,
    },
}


@pytest.mark.parametrize(("rules", "kind"), CASES)
def test_metrics_of_fixed_batches_stay_as_they_are(rules: str, kind: str) -> None:
    batches = dealt(kind, "three")
    assert measure(rules, kind, batches) == pytest.approx(GOLDEN[rules, kind], abs=2e-6, nan_ok=True)
    assert literal(rules, kind, batches) == pytest.approx(GOLDEN[rules, kind], abs=2e-6, nan_ok=True)
