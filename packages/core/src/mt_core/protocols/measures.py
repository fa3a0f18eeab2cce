"""What every protocol reports beside what its papers print: over all valid pixels at once."""

from __future__ import annotations

from torchmetrics import Metric

from ..task import Task
from .boundaries import BoundaryIoU
from .geometry import ANGLES, POWERS, DeltaShare, LogRMSE, WithinAngle


def degrees(limit: float) -> str:
    """The name of a share of angles: 11.25 -> within_11_25."""
    return f"within_{limit:g}".replace(".", "_")


def within() -> dict[str, Metric]:
    """Shares of pixels below each limit of the angle."""
    return {degrees(limit): WithinAngle(limit) for limit in ANGLES}


def depth_shares() -> dict[str, Metric]:
    """Logarithmic error, and the shares within a factor of 1.25, its square and its cube."""
    return {"rmse_log": LogRMSE(), **{f"delta{power}": DeltaShare(power) for power in POWERS}}


def boundaries(task: Task) -> dict[str, Metric]:
    """Only when asked for: no paper on several tasks prints it."""
    return {"boundary_iou": BoundaryIoU(task.channels)}
