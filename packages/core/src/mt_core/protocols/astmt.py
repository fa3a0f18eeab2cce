"""The protocol of ASTMT (Maninis et al., 2019), which MTLoRA, TGLoRA, VMT-Adapter and Polyhistor print.

Shares are percent, angles degrees, depths metres. Where nothing at all was annotated the result is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torchmetrics import Metric

from ..task import Task
from .binary import MaxF, MaxIoU, MaxPixelF
from .classes import MeanIoU, PixelAccuracy
from .geometry import AbsRel, DeltaShare, DepthRMSE, MeanAngle, RMSAngle, WithinAngle

RESOLUTION = "model input"

SALIENCY_THRESHOLDS = torch.linspace(0.2, 0.9, 15, dtype=torch.float64)
EDGE_THRESHOLDS = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)


def segmentation(task: Task) -> dict[str, Metric]:
    """A class absent from labels and predictions counts 0 in the mean."""
    return {"miou": MeanIoU(task.channels), "pixel_accuracy": PixelAccuracy(task.channels)}


def saliency(task: Task) -> dict[str, Metric]:
    """The best threshold of 15, after averaging over pictures.

    Probabilities are compared as they are, where the published evaluation reads them from 8-bit files.
    """
    return {"max_miou": MaxIoU(SALIENCY_THRESHOLDS), "max_f": MaxF(SALIENCY_THRESHOLDS)}


def edges(task: Task) -> dict[str, Metric]:
    """Not the odsF of papers, which thins the edges and matches them with a tolerance: this is stricter and lower."""
    return {"max_pixel_f": MaxPixelF(EDGE_THRESHOLDS)}


def depth(task: Task) -> dict[str, Metric]:
    """Over all valid pixels of all pictures at once."""
    return {"rmse": DepthRMSE(), "abs_rel": AbsRel(), "delta1": DeltaShare()}


def normals(task: Task) -> dict[str, Metric]:
    """Over all valid pixels of all pictures at once. MTLoRA prints `mean_angle` as rmse."""
    return {
        "mean_angle": MeanAngle(),
        "rmse_angle": RMSAngle(),
        "within_11_25": WithinAngle(11.25),
        "within_22_5": WithinAngle(22.5),
        "within_30": WithinAngle(30.0),
    }


KINDS: Mapping[str, Callable[[Task], dict[str, Metric]]] = {
    "segmentation": segmentation,
    "human_parts": segmentation,
    "saliency": saliency,
    "edges": edges,
    "depth": depth,
    "normals": normals,
}
