"""Inverse depth: the kind of task that Cityscapes gives its papers, and how its labels follow a zoom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision import tv_tensors

from mt_core.augment import register_label
from mt_core.augment.kernels import resized_crop
from mt_core.errors import DataError
from mt_core.labels import Label
from mt_core.tasks import Depth
from mt_core.tasks.colours import paint_depth


class InverseDepthMap(Label):
    """Inverse depth, in the unit that the data set publishes: (1, H, W) float32, 0 void."""

    void, planes, dtype_ = 0.0, (1,), torch.float32

    @classmethod
    def valid(cls, values: Tensor) -> Tensor:
        return values[..., 0, :, :] > 0


def zoom_inverse_depth(
    label: Label, top: int, left: int, height: int, width: int, size: Sequence[int], **_: Any
) -> Label:
    """`resized_crop` of inverse depth: where a zoom divides depth by its factor, it multiplies its inverse."""
    factor = math.sqrt(label.shape[-2] * label.shape[-1] / (height * width))
    moved = resized_crop(label, top, left, height, width, size)
    zoomed: Label = tv_tensors.wrap(moved.as_subclass(Tensor) * factor, like=label)
    return zoomed


register_label(InverseDepthMap, resized_crop=zoom_inverse_depth)


@dataclass(frozen=True)
class InverseDepth(Depth):
    """What lies twice as far has half of it. Trained and measured as depth is, in the unit of the data set."""

    kind = "inverse_depth"
    label = InverseDepthMap
    measured_as: ClassVar[str] = "depth"

    def colours(self, values: Tensor) -> Tensor:
        """inverse depth (1, H, W) or (H, W) -> (3, H, W) uint8; near is bright, as it is for depth"""
        plane = values.detach().cpu().reshape(values.shape[-2:])
        return paint_depth(torch.where(plane > 0, 2 * plane.max() - plane, 0))

    def check_values(self, label: Tensor, where: str) -> None:
        if bool((wrong := ~(label.isfinite() & (label >= 0))).any()):
            *_, row, column = wrong.nonzero()[0].tolist()
            raise DataError(
                f"{where}: task {self.name}: found {label[wrong][0].item():g} at row {row}, column {column} "
                f"({int(wrong.sum())} such values); expected inverse depth above 0, or 0 for void; mend the file"
            )
