"""The metrics of every protocol, literally: slow loops over pictures, pixels, classes, thresholds; and random data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mt_core.protocols import Protocol, protocol
from mt_core.task import Task
from mt_core.tasks import Depth, Edges, HumanParts, Normals, Saliency, Segmentation

Array = np.ndarray[Any, Any]
Batch = tuple[Tensor, Tensor]
Batches = list[Batch]

TASKS: dict[str, Task] = {
    "segmentation": Segmentation("semseg", 6),
    "human_parts": HumanParts("human_parts"),
    "saliency": Saliency("saliency"),
    "edges": Edges("edges"),
    "depth": Depth("depth"),
    "normals": Normals("normals"),
}
CASES = [(name, kind) for name in ("astmt", "mtan", "mtsam") for kind in TASKS if kind in protocol(name).kinds]
SALIENCY_THRESHOLDS = [0.2 + 0.05 * i for i in range(15)]
EDGE_THRESHOLDS = [0.01 * i for i in range(1, 100)]
DEALS = {"three": 3, "one batch": 1, "void first": 3}  # how many batches several processes are dealt
LIMITS = {"11_25": 11.25, "22_5": 22.5, "30": 30.0}


def batch(kind: str, size: int, seed: int, void: float = 0.25, absent: bool = True) -> Batch:
    """A prediction and a label of `size` pictures of 9 x 11 pixels; if `absent`, classes 4 and above occur nowhere."""
    task = TASKS[kind]
    g = torch.Generator().manual_seed(seed)
    shape = (size, 9, 11)
    logits = 2 * torch.randn(size, task.channels, 9, 11, generator=g)
    classes = 4 if absent else task.channels
    if kind in ("segmentation", "human_parts"):
        logits[:, classes:] = -100
    target: Tensor = {
        "segmentation": lambda: torch.randint(0, classes, shape, generator=g),
        "human_parts": lambda: torch.randint(0, classes, shape, generator=g),
        "saliency": lambda: torch.randint(0, 2, shape, generator=g).float().unsqueeze(1),
        "edges": lambda: (torch.rand(size, 1, 9, 11, generator=g) < 0.2).float(),
        "depth": lambda: 0.5 + 4 * torch.rand(size, 1, 9, 11, generator=g),
        "normals": lambda: torch.nn.functional.normalize(torch.randn(size, 3, 9, 11, generator=g), dim=1),
    }[kind]()
    mask = torch.rand(shape, generator=g) < void
    target = target.masked_fill(mask if target.ndim == 3 else mask.unsqueeze(1), task.label.void)
    prediction = task.predict(logits)
    if kind == "normals":  # near the label, so that every limit of the angle separates some
        prediction = torch.nn.functional.normalize(target + 0.8 * prediction, dim=1)
    if kind == "depth":
        prediction = (target + 0.3 * prediction).clamp(min=0)
    return prediction, target


def dealt(kind: str, deal: str) -> Batches:
    """Batches of unequal sizes and shares of annotated pixels; under `void first`, the first says nothing."""
    voids = [1.1 if deal == "void first" and k == 0 else (0.1, 0.8, 0.4, 0.0)[k] for k in range(DEALS[deal])]
    return [batch(kind, 1 + k % 3, 10 + k, void) for k, void in enumerate(voids)]


def measure(rules: Protocol | str, kind: str, batches: Iterable[Batch]) -> dict[str, float]:
    """What a protocol's metrics find in batches."""
    rules = protocol(rules) if isinstance(rules, str) else rules
    metrics = rules.metrics(TASKS[kind])
    for prediction, target in batches:
        for metric in metrics.values():
            metric.update(prediction, target)
    return {name: metric.compute().item() for name, metric in metrics.items()}


def literal(rules: str, kind: str, batches: Batches) -> dict[str, float]:
    """The same by definition."""
    return LITERAL[rules, kind](batches)


def pictures(batches: Batches) -> list[tuple[Array, Array]]:
    return [(p.double().numpy(), t.double().numpy()) for ps, ts in batches for p, t in zip(ps, ts, strict=True)]


def classes(batches: Batches, count: int) -> tuple[list[float], float]:
    """The IoU of each class, NaN if it is nowhere, and the pixel accuracy."""
    tp, fp, fn, right, total = [0] * count, [0] * count, [0] * count, 0, 0
    for p, t in pictures(batches):
        for guess, truth in zip(p.ravel(), t.ravel(), strict=True):
            if truth == 255:
                continue
            total += 1
            right += guess == truth
            for c in range(count):
                tp[c] += guess == c and truth == c
                fp[c] += guess == c and truth != c
                fn[c] += guess != c and truth == c
    ious = [100 * a / (a + b + c) if a + b + c else math.nan for a, b, c in zip(tp, fp, fn, strict=True)]
    return ious, 100 * right / total if total else math.nan


def astmt_classes(batches: Batches, count: int) -> dict[str, float]:
    ious, accuracy = classes(batches, count)
    return {"miou": sum(0 if math.isnan(iou) else iou for iou in ious) / count, "pixel_accuracy": accuracy}


def mtan_classes(batches: Batches, count: int) -> dict[str, float]:
    ious, accuracy = classes(batches, count)
    present = [iou for iou in ious if not math.isnan(iou)]
    return {"miou": sum(ious) / count, "pixel_accuracy": accuracy, "miou_present": sum(present) / len(present)}


def saliency(batches: Batches) -> dict[str, float]:
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


def edges(batches: Batches) -> dict[str, float]:
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


def depths(batches: Batches) -> list[tuple[float, float]]:
    """Predicted and annotated metres of every valid pixel."""
    return [(p, t) for ps, ts in pictures(batches) for p, t in zip(ps.ravel(), ts.ravel(), strict=True) if t > 0]


def absolute(batches: Batches) -> float:
    return float(np.mean([abs(p - t) for p, t in depths(batches)]))


def relative(batches: Batches) -> float:
    return float(np.mean([abs(p - t) / t for p, t in depths(batches)]))


def depth_beside(batches: Batches) -> dict[str, float]:
    """What is reported beside the papers' metrics."""
    pairs = depths(batches)
    ratios = [max(p / t, t / p) if p > 0 else math.inf for p, t in pairs]
    return {
        "rmse": math.sqrt(np.mean([(p - t) ** 2 for p, t in pairs])),
        "rmse_log": math.sqrt(np.mean([(math.log(max(p, 0.001)) - math.log(t)) ** 2 for p, t in pairs])),
        **{f"delta{k}": 100 * float(np.mean([ratio < 1.25**k for ratio in ratios])) for k in (1, 2, 3)},
    }


def angles(batches: Batches) -> list[float]:
    """Degrees of every valid pixel."""
    found: list[float] = []
    for p, t in pictures(batches):
        for a, b in zip(p.reshape(3, -1).T, t.reshape(3, -1).T, strict=True):
            if (b != 0).any():
                cosine = float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b))
                found.append(math.degrees(math.acos(max(-1.0, min(1.0, cosine)))))
    return found


def within(found: list[float]) -> dict[str, float]:
    return {f"within_{name}": 100 * float(np.mean([a < limit for a in found])) for name, limit in LIMITS.items()}


def angle_values(found: list[float]) -> dict[str, float]:
    return {"mean_angle": float(np.mean(found)), "median_angle": float(np.median(found)), **within(found)}


def rms(batches: Batches) -> dict[str, float]:
    return {"rmse_angle": math.sqrt(np.mean(np.square(angles(batches))))}


def astmt_depth(batches: Batches) -> dict[str, float]:
    beside = depth_beside(batches)
    return {"rmse": beside["rmse"], "abs_err": absolute(batches), "abs_rel": relative(batches), **beside}


def mtan_depth(batches: Batches) -> dict[str, float]:
    """As LibMTL: a mean and a number of valid pixels of each batch, and their weighted mean."""
    rows = [(absolute([b]), relative([b]), len(depths([b]))) for b in batches]
    weight = sum(n for *_, n in rows)
    means = {"abs_err": sum(a * n for a, _, n in rows) / weight, "rel_err": sum(r * n for _, r, n in rows) / weight}
    return {**means, **depth_beside(batches)}


def mtsam_depth(batches: Batches) -> dict[str, float]:
    means = {
        "abs_err": sum(absolute([b]) for b in batches) / len(batches),
        "rel_err": sum(relative([b]) for b in batches) / len(batches),
    }
    return {**means, **depth_beside(batches)}


def astmt_normals(batches: Batches) -> dict[str, float]:
    found = angles(batches)
    return {"mean_angle": float(np.mean(found)), **rms(batches), **within(found)}


def mtan_normals(batches: Batches) -> dict[str, float]:
    return {**angle_values(angles(batches)), **rms(batches)}


def mtsam_normals(batches: Batches) -> dict[str, float]:
    rows = [angle_values(angles([b])) for b in batches]
    return {**{name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}, **rms(batches)}


LITERAL: Mapping[tuple[str, str], Callable[[Batches], dict[str, float]]] = {
    ("astmt", "segmentation"): lambda batches: astmt_classes(batches, 6),
    ("astmt", "human_parts"): lambda batches: astmt_classes(batches, 7),
    ("astmt", "saliency"): saliency,
    ("astmt", "edges"): edges,
    ("astmt", "depth"): astmt_depth,
    ("astmt", "normals"): astmt_normals,
    ("mtan", "segmentation"): lambda batches: mtan_classes(batches, 6),
    ("mtan", "depth"): mtan_depth,
    ("mtan", "normals"): mtan_normals,
    ("mtsam", "segmentation"): lambda batches: mtan_classes(batches, 6),
    ("mtsam", "human_parts"): lambda batches: mtan_classes(batches, 7),
    ("mtsam", "depth"): mtsam_depth,
    ("mtsam", "normals"): mtsam_normals,
}
