"""The protocol of MTAN (Liu et al., 2019) as LibMTL (Lin and Zhang, 2023) has it.

Shares are percent, angles degrees, depths metres. Where nothing at all was annotated the result is NaN.
"""

from __future__ import annotations

from torchmetrics import Metric

from ..task import Task
from .classes import CompleteMeanIoU, PixelAccuracy, PresentMeanIoU
from .geometry import AbsError, AbsRel, DepthRMSE, MeanAngle, RMSAngle
from .measures import boundaries, depth_shares, within
from .median import MedianAngle
from .protocol import Measure, Protocol, Setting


def segmentation(task: Task) -> dict[str, Metric]:
    """A class absent from labels and predictions is NaN, and so is the mean; `miou_present` leaves it out."""
    n = task.channels
    return {"miou": CompleteMeanIoU(n), "pixel_accuracy": PixelAccuracy(n), "miou_present": PresentMeanIoU(n)}


def depth(task: Task) -> dict[str, Metric]:
    """LibMTL averages the means of batches, weighted by their valid pixels: the mean over all valid pixels."""
    return {"abs_err": AbsError(), "rel_err": AbsRel(), "rmse": DepthRMSE(), **depth_shares()}


def normals(task: Task) -> dict[str, Metric]:
    """Mean, median and shares over all valid pixels of all pictures at once."""
    return {"mean_angle": MeanAngle(), "median_angle": MedianAngle(), **within(), "rmse_angle": RMSAngle()}


MTAN = Protocol(
    name="mtan",
    source="MTAN (Liu et al., CVPR 2019) as in LibMTL (Lin and Zhang, JMLR 2023)",
    resolution="model input, which is the size of the files: 288 x 384 (NYUv2), 128 x 256 (Cityscapes)",
    kinds={
        "segmentation": Measure(
            segmentation,
            2,
            "one confusion matrix of all pictures; a class that occurs nowhere makes the mean NaN",
            boundaries,
        ),
        "depth": Measure(depth, 2, "means of batches weighted by valid pixels: all valid pixels at once"),
        "normals": Measure(normals, 5, "all valid pixels of all pictures at once, the median too"),
    },
    settings={
        "nyuv2": Setting({"segmentation": 13}, (288, 384)),
        "cityscapes": Setting({"segmentation": 7}, (128, 256)),
    },
)
