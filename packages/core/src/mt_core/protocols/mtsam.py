"""The protocol of MTSAM with ToRA, and of TA-LoRA before it: MTAN's own evaluation, batch by batch.

Shares are percent, angles degrees, depths metres. Where nothing at all was annotated the result is NaN. What depends on
batches depends on `trainer.batch_size`; the papers' is 4 on NYUv2 and 8 elsewhere.
"""

from __future__ import annotations

from torchmetrics import Metric

from ..task import Task
from .batches import BatchAbsError, BatchMeanAngle, BatchMedianAngle, BatchRelError, BatchWithinAngle
from .geometry import ANGLES, DepthRMSE, RMSAngle
from .measures import boundaries, degrees, depth_shares
from .mtan import segmentation
from .protocol import Measure, Protocol, Setting


def depth(task: Task) -> dict[str, Metric]:
    """The mean of the means of batches, the last and smaller one counting as much; what follows is over all pixels."""
    return {"abs_err": BatchAbsError(), "rel_err": BatchRelError(), "rmse": DepthRMSE(), **depth_shares()}


def normals(task: Task) -> dict[str, Metric]:
    """Means over batches of the mean, the median and the shares; the true RMSE is over all pixels.

    The median of an even number of angles is the mean of the two middle ones; the authors' code takes the lower, which
    at their 440 thousand pixels a batch is the same to the printed digits.
    """
    shares = {degrees(limit): BatchWithinAngle(limit) for limit in ANGLES}
    return {"mean_angle": BatchMeanAngle(), "median_angle": BatchMedianAngle(), **shares, "rmse_angle": RMSAngle()}


_CLASSES = Measure(
    segmentation,
    2,
    "one confusion matrix of all pictures; a class that occurs nowhere makes the mean NaN",
    boundaries,
)
_BATCHES = "mean over batches of what each finds over its valid pixels"

MTSAM = Protocol(
    name="mtsam",
    source="MTSAM with ToRA; TA-LoRA on mSAM",
    resolution="model input; the papers compare at the size of MTAN's files, 288 x 384 (NYUv2), 128 x 256 (Cityscapes)",
    kinds={
        "segmentation": _CLASSES,
        "human_parts": _CLASSES,
        "depth": Measure(depth, 2, _BATCHES),
        "normals": Measure(normals, 5, f"{_BATCHES}: the median is the mean of the batches' medians"),
    },
    settings={
        "nyuv2": Setting({"segmentation": 13}, (288, 384)),
        "cityscapes": Setting({"segmentation": 7}, (128, 256)),
        "pascal": Setting({"segmentation": 21, "human_parts": 7}),
    },
)
