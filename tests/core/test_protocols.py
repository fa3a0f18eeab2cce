"""The metrics of the astmt protocol, against slow literal numpy over the definition of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from mt_core.errors import ConfigError
from mt_core.labels import BinaryMap
from mt_core.protocols import PROTOCOLS, protocol
from mt_core.protocols.binary import MaxIoU
from mt_core.protocols.totals import TotalsMetric
from mt_core.task import Task
from mt_core.tasks import KINDS, Depth, Edges, HumanParts, Normals, Saliency, Segmentation

Array = np.ndarray[Any, Any]
Batches = list[tuple[Tensor, Tensor]]

TASKS: dict[str, Task] = {
    "segmentation": Segmentation("semseg", 6),
    "human_parts": HumanParts("human_parts"),
    "saliency": Saliency("saliency"),
    "edges": Edges("edges"),
    "depth": Depth("depth"),
    "normals": Normals("normals"),
}
SALIENCY_THRESHOLDS = [0.2 + 0.05 * i for i in range(15)]
EDGE_THRESHOLDS = [0.01 * i for i in range(1, 100)]


def batch(kind: str, size: int, seed: int, void: float = 0.25) -> tuple[Tensor, Tensor]:
    """A prediction and a label of `size` pictures of 9 x 11 pixels; classes 4 and above occur nowhere."""
    task = TASKS[kind]
    g = torch.Generator().manual_seed(seed)
    shape = (size, 9, 11)
    logits = 2 * torch.randn(size, task.channels, 9, 11, generator=g)
    if kind in ("segmentation", "human_parts"):
        logits[:, 4:] = -100
    target: Tensor = {
        "segmentation": lambda: torch.randint(0, 4, shape, generator=g),
        "human_parts": lambda: torch.randint(0, 4, shape, generator=g),
        "saliency": lambda: torch.randint(0, 2, shape, generator=g).float().unsqueeze(1),
        "edges": lambda: (torch.rand(size, 1, 9, 11, generator=g) < 0.2).float(),
        "depth": lambda: 0.5 + 4 * torch.rand(size, 1, 9, 11, generator=g),
        "normals": lambda: torch.nn.functional.normalize(torch.randn(size, 3, 9, 11, generator=g), dim=1),
    }[kind]()
    mask = torch.rand(shape, generator=g) < void
    target = target.masked_fill(mask if target.ndim == 3 else mask.unsqueeze(1), task.label.void)
    prediction = task.predict(logits)
    if kind == "normals":  # near the label, so that every limit of the angle separates some
        prediction = torch.nn.functional.normalize(target + 0.3 * prediction, dim=1)
    if kind == "depth":
        prediction = (target + 0.3 * prediction).clamp(min=0)
    return prediction, target


def measure(kind: str, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    metrics = protocol("astmt").metrics(TASKS[kind])
    for prediction, target in batches:
        for metric in metrics.values():
            metric.update(prediction, target)
    return {name: metric.compute().item() for name, metric in metrics.items()}


# --- literal definitions: loops over pictures, pixels, classes and thresholds


def pictures(batches: Batches) -> list[tuple[Array, Array]]:
    return [(p.double().numpy(), t.double().numpy()) for ps, ts in batches for p, t in zip(ps, ts, strict=True)]


def literal_classes(batches: Batches, classes: int) -> dict[str, float]:
    tp, fp, fn, right, total = [0] * classes, [0] * classes, [0] * classes, 0, 0
    for p, t in pictures(batches):
        for guess, truth in zip(p.ravel(), t.ravel(), strict=True):
            if truth == 255:
                continue
            total += 1
            right += guess == truth
            for c in range(classes):
                tp[c] += guess == c and truth == c
                fp[c] += guess == c and truth != c
                fn[c] += guess != c and truth == c
    ious = [a / (a + b + c) if a + b + c else 0.0 for a, b, c in zip(tp, fp, fn, strict=True)]
    return {"miou": 100 * sum(ious) / classes, "pixel_accuracy": 100 * right / total}


def literal_saliency(batches: Batches) -> dict[str, float]:
    ious: list[list[float]] = []
    precisions: list[list[float]] = []
    recalls: list[list[float]] = []
    for p, t in pictures(batches):
        valid = t != 255
        if not valid.any():
            continue
        row: tuple[list[float], list[float], list[float]] = ([], [], [])
        for threshold in SALIENCY_THRESHOLDS:
            guess, truth = (p > threshold)[valid], (t == 1)[valid]
            both, either = (guess & truth).sum(), (guess | truth).sum()
            row[0].append(both / either if either else 1.0)
            row[1].append(both / guess.sum() if guess.any() else 0.0)
            row[2].append(both / truth.sum() if truth.any() else 0.0)
        for values, new in zip((ious, precisions, recalls), row, strict=True):
            values.append(new)
    P, R = np.mean(precisions, axis=0), np.mean(recalls, axis=0)
    F = [2 * p * r / (p + r) if p + r else 0.0 for p, r in zip(P, R, strict=True)]
    return {"max_miou": 100 * np.mean(ious, axis=0).max(), "max_f": 100 * max(F)}


def literal_edges(batches: Batches) -> dict[str, float]:
    best = 0.0
    for threshold in EDGE_THRESHOLDS:
        tp = fp = fn = 0
        for p, t in pictures(batches):
            guess = p > threshold
            tp += (guess & (t == 1)).sum()
            fp += (guess & (t == 0)).sum()
            fn += (~guess & (t == 1)).sum()
        precision, recall = tp / (tp + fp) if tp + fp else 0.0, tp / (tp + fn) if tp + fn else 0.0
        best = max(best, 2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return {"max_pixel_f": 100 * best}


def literal_depth(batches: Batches) -> dict[str, float]:
    pairs = [(p, t) for ps, ts in pictures(batches) for p, t in zip(ps.ravel(), ts.ravel(), strict=True) if t > 0]
    return {
        "rmse": math.sqrt(np.mean([(p - t) ** 2 for p, t in pairs])),
        "abs_rel": float(np.mean([abs(p - t) / t for p, t in pairs])),
        "delta1": 100 * float(np.mean([p > 0 and max(p / t, t / p) < 1.25 for p, t in pairs])),
    }


def literal_normals(batches: Batches) -> dict[str, float]:
    angles: list[float] = []
    for p, t in pictures(batches):
        for a, b in zip(p.reshape(3, -1).T, t.reshape(3, -1).T, strict=True):
            if (b != 0).any():
                cosine = float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b))
                angles.append(math.degrees(math.acos(max(-1.0, min(1.0, cosine)))))
    within = {f"within_{name}": 100 * float(np.mean([a < limit for a in angles])) for name, limit in LIMITS.items()}
    return {"mean_angle": float(np.mean(angles)), "rmse_angle": math.sqrt(np.mean(np.square(angles))), **within}


LIMITS = {"11_25": 11.25, "22_5": 22.5, "30": 30.0}
LITERAL: dict[str, Callable[[Batches], dict[str, float]]] = {
    "segmentation": lambda batches: literal_classes(batches, 6),
    "human_parts": lambda batches: literal_classes(batches, 7),
    "saliency": literal_saliency,
    "edges": literal_edges,
    "depth": literal_depth,
    "normals": literal_normals,
}
every_kind = pytest.mark.parametrize("kind", TASKS)


# --- properties of every metric


def test_the_protocol_measures_every_built_in_kind() -> None:
    assert set(protocol("astmt").kinds) == set(KINDS) == set(TASKS)
    assert protocol("astmt").resolution == "model input"


@every_kind
def test_metrics_equal_their_literal_definitions(kind: str) -> None:
    batches = [batch(kind, 3, 1), batch(kind, 1, 2), batch(kind, 2, 3, void=0.9)]
    found, expected = measure(kind, batches), LITERAL[kind](batches)
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, rel=1e-7)


@every_kind
def test_pictures_without_an_annotation_do_not_count(kind: str) -> None:
    prediction, target = batch(kind, 3, 1)
    target[1] = TASKS[kind].label.void
    without = prediction[[0, 2]], target[[0, 2]]
    assert measure(kind, [(prediction, target)]) == pytest.approx(measure(kind, [without]), rel=1e-12)


@every_kind
def test_predictions_of_void_pixels_do_not_count(kind: str) -> None:
    prediction, target = batch(kind, 2, 1)
    other, _ = batch(kind, 2, 99)
    valid = TASKS[kind].label.valid(target)
    changed = torch.where(valid if prediction.ndim == 3 else valid.unsqueeze(1), prediction, other)
    assert measure(kind, [(changed, target)]) == pytest.approx(measure(kind, [(prediction, target)]), rel=1e-12)


@every_kind
def test_the_size_of_batches_does_not_matter(kind: str) -> None:
    prediction, target = batch(kind, 4, 1)
    one_by_one = [(prediction[i : i + 1], target[i : i + 1]) for i in range(4)]
    assert measure(kind, one_by_one) == pytest.approx(measure(kind, [(prediction, target)]), rel=1e-12)


@every_kind
def test_the_sums_of_two_ranks_make_the_result_of_one(kind: str) -> None:
    first, second = [batch(kind, 3, 1)], [batch(kind, 1, 2), batch(kind, 2, 3)]
    expected = measure(kind, first + second)
    ranks = [protocol("astmt").metrics(TASKS[kind]) for _ in range(2)]
    for metrics, batches in zip(ranks, (first, second), strict=True):
        for prediction, target in batches:
            for metric in metrics.values():
                metric.update(prediction, target)
    for name, one in ranks[0].items():
        other = ranks[1][name]
        for state, reduce in one._reductions.items():  # what torchmetrics does after gathering
            assert callable(reduce)
            setattr(one, state, reduce(torch.stack([getattr(one, state), getattr(other, state)])))
        assert one.compute().item() == pytest.approx(expected[name], rel=1e-12)


@every_kind
def test_a_collection_gathers_the_shared_sums_once(kind: str) -> None:
    batches = [batch(kind, 2, 1), batch(kind, 2, 2)]
    collection = MetricCollection(dict(protocol("astmt").metrics(TASKS[kind])))
    for prediction, target in batches:
        collection.update(prediction, target)
    assert len(collection.compute_groups) == 1
    assert {name: value.item() for name, value in collection.compute().items()} == measure(kind, batches)


@every_kind
@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_no_data_gives_nan(kind: str) -> None:
    prediction, target = batch(kind, 2, 1, void=1.1)
    assert all(math.isnan(value) for value in measure(kind, [(prediction, target)]).values())
    assert all(math.isnan(value) for value in measure(kind, []).values())


@every_kind
def test_a_perfect_prediction_is_the_best(kind: str) -> None:
    _, target = batch(kind, 2, 1, void=0)
    if kind in ("segmentation", "human_parts"):
        target[..., 0] = torch.arange(9) % TASKS[kind].channels
    metrics = protocol("astmt").metrics(TASKS[kind])
    for name, value in measure(kind, [(target, target)]).items():
        best = 100 if metrics[name].higher_is_better else 0
        assert value == pytest.approx(best, abs=1e-4)


@every_kind
def test_metrics_know_their_direction(kind: str) -> None:
    lower = {"rmse", "abs_rel", "mean_angle", "rmse_angle"}
    for name, metric in protocol("astmt").metrics(TASKS[kind]).items():
        assert metric.higher_is_better is (name not in lower)


@every_kind
def test_a_prediction_of_another_shape_is_refused(kind: str) -> None:
    prediction, target = batch(kind, 2, 1)
    for metric in protocol("astmt").metrics(TASKS[kind]).values():
        with pytest.raises(ValueError, match="expected the same shape"):
            metric.update(prediction[..., :-1], target)


@every_kind
def test_metrics_start_again_after_a_reset(kind: str) -> None:
    expected = measure(kind, [batch(kind, 2, 2)])
    for name, metric in protocol("astmt").metrics(TASKS[kind]).items():
        metric.update(*batch(kind, 2, 1))
        metric.reset()
        metric.update(*batch(kind, 2, 2))
        assert metric.compute().item() == expected[name]


# --- the particulars of the protocol


def test_a_class_that_occurs_nowhere_counts_zero() -> None:
    target = torch.tensor([[[0, 0, 1, 1]]])
    task = Segmentation("semseg", 4)
    metric = protocol("astmt").metrics(task)["miou"]
    metric.update(target, target)
    assert metric.compute().item() == 50


def test_the_saliency_threshold_is_chosen_after_averaging_over_pictures() -> None:
    # picture 1 is perfect only below 0.3, picture 2 only above 0.8: no threshold is perfect for both
    probability = torch.tensor([[[[0.31, 0.0]]], [[[0.91, 0.79]]]])
    target = torch.tensor([[[[1.0, 0.0]]], [[[1.0, 0.0]]]])
    assert measure("saliency", [(probability, target)])["max_miou"] == pytest.approx(75)


def test_a_picture_without_foreground_counts_one_if_none_is_predicted() -> None:
    empty = torch.zeros(1, 1, 2, 2)
    assert measure("saliency", [(empty, empty)]) == {"max_miou": 100, "max_f": 0}
    assert measure("saliency", [(torch.ones(1, 1, 2, 2), empty)]) == {"max_miou": 0, "max_f": 0}


def test_an_edge_one_pixel_aside_is_no_hit() -> None:
    target = torch.zeros(1, 1, 4, 4)
    target[..., 1] = 1
    assert measure("edges", [(target.roll(1, -1), target)])["max_pixel_f"] < 50


def test_a_probability_equal_to_the_threshold_is_no() -> None:
    metric = MaxIoU(torch.tensor([0.5], dtype=torch.float64))
    target = torch.ones(1, 1, 1, 2)
    metric.update(torch.tensor([0.5, 0.75]).view(1, 1, 1, 2), target)
    assert metric.compute().item() == 50


def test_a_normal_without_direction_is_a_right_angle_off() -> None:
    target = torch.tensor([0.0, 0, 1]).view(1, 3, 1, 1)
    assert measure("normals", [(torch.zeros(1, 3, 1, 1), target)])["mean_angle"] == pytest.approx(90)


def test_small_angles_are_measured_exactly() -> None:
    angle = torch.tensor(math.radians(0.01), dtype=torch.float64)
    prediction = torch.stack([angle.sin(), torch.zeros(()).double(), angle.cos()]).view(1, 3, 1, 1)
    target = torch.tensor([0.0, 0, 1], dtype=torch.float64).view(1, 3, 1, 1)
    assert measure("normals", [(prediction, target)])["mean_angle"] == pytest.approx(0.01, rel=1e-6)


def test_sums_of_many_pixels_do_not_lose_small_errors() -> None:
    metric = protocol("astmt").metrics(TASKS["depth"])["rmse"]
    target = torch.full((1, 1, 512, 512), 2.0)
    for _ in range(80):  # 2e7 pixels: single precision would stop counting at 1.7e7
        metric.update(target + 0.25, target)
    assert metric.compute().item() == 0.25


# --- names


def test_an_unknown_protocol_lists_the_known_ones() -> None:
    assert PROTOCOLS["astmt"] is protocol("astmt")
    with pytest.raises(ConfigError, match="unknown protocol 'astm'; choose one of astmt"):
        protocol("astm")


def test_a_kind_that_the_protocol_does_not_know_is_refused() -> None:
    class Heat(Depth):
        kind = "heat"

    with pytest.raises(ConfigError, match="task t: protocol astmt does not say how to measure the kind 'heat'"):
        protocol("astmt").metrics(Heat("t"))


def test_names_of_metrics_can_name_modules() -> None:
    for task in TASKS.values():
        assert not any("." in name for name in protocol("astmt").metrics(task))


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_a_metric_without_sums_or_result_says_what_to_define() -> None:
    class Nothing(TotalsMetric):
        pass

    target = BinaryMap.empty(2, 2)
    with pytest.raises(NotImplementedError, match="Nothing must say what a batch adds to its totals: define `sums`"):
        Nothing(1).update(target, target)
    with pytest.raises(NotImplementedError, match=r"Nothing must derive .* define `compute`"):
        Nothing(1).compute()


def test_metrics_are_torchmetrics() -> None:
    assert all(isinstance(m, Metric) for task in TASKS.values() for m in protocol("astmt").metrics(task).values())
