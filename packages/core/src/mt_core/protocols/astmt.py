"""The protocol of ASTMT (Maninis et al., 2019), which MTLoRA, TGLoRA, VMT-Adapter and Polyhistor print.

Shares are percent, angles degrees, depths metres. Where nothing at all was annotated the result is NaN.
"""

from __future__ import annotations

import torch
from torchmetrics import Metric

from ..task import Task
from .binary import MaxF, MaxIoU, MaxPixelF
from .classes import MeanIoU, PixelAccuracy
from .edges import OdsF
from .geometry import AbsError, AbsRel, DepthRMSE, MeanAngle, RMSAngle
from .measures import boundaries, depth_shares, within
from .protocol import Measure, Protocol, Setting

SALIENCY_THRESHOLDS = torch.linspace(0.2, 0.9, 15, dtype=torch.float64)
EDGE_THRESHOLDS = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
# of the diagonal: 0.0075 on PASCAL-Context, after BSDS; on NYUD sources use either
EDGE_TOLERANCES = (0.0075, 0.011)


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


def matched_edges(task: Task) -> dict[str, Metric]:
    """The odsF at each tolerance that sources use; the name says which: ods_f_0_0075, ods_f_0_011."""
    return {
        f"ods_f_{str(share).replace('.', '_')}": OdsF(EDGE_TOLERANCES, EDGE_THRESHOLDS, i)
        for i, share in enumerate(EDGE_TOLERANCES)
    }


def depth(task: Task) -> dict[str, Metric]:
    """Over all valid pixels of all pictures at once."""
    return {"rmse": DepthRMSE(), "abs_err": AbsError(), "abs_rel": AbsRel(), **depth_shares()}


def normals(task: Task) -> dict[str, Metric]:
    """Over all valid pixels of all pictures at once. MTLoRA prints `mean_angle` as rmse; `rmse_angle` is the true."""
    return {"mean_angle": MeanAngle(), "rmse_angle": RMSAngle(), **within()}


_CLASSES = Measure(
    segmentation, 1, "one confusion matrix of all pictures; a class that occurs nowhere counts 0", boundaries
)

ASTMT = Protocol(
    name="astmt",
    source="ASTMT (Maninis et al., CVPR 2019); MTLoRA, TGLoRA, VMT-Adapter, Polyhistor",
    resolution="model input",
    kinds={
        "segmentation": _CLASSES,
        "human_parts": _CLASSES,
        "saliency": Measure(saliency, 1, "mean over pictures at each threshold, then the best threshold"),
        "edges": Measure(edges, 1, "all pixels of all pictures at each threshold, then the best", matched_edges),
        "depth": Measure(depth, 1, "all valid pixels of all pictures at once"),
        "normals": Measure(normals, 1, "all valid pixels of all pictures at once"),
    },
    settings={
        "nyuv2": Setting({"segmentation": 40}),
        "nyud": Setting({"segmentation": 40}),
        "pascal": Setting({"segmentation": 21, "human_parts": 7}),
    },
)
