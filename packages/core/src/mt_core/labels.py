"""Label types: what a pixel of each kind of annotation holds, and which value means "not annotated".

They are torchvision TVTensors, so one augmentation moves a picture and all its labels together; the geometry that is
special to a type (a flipped normal, a zoomed depth) is registered for it in `mt_core.augment`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torchvision.tv_tensors import TVTensor

IGNORE = 255  # of class and binary maps


class Label(TVTensor):  # type: ignore[misc]  # torchvision has no annotations
    """One annotation of one picture, or of a batch: (..., C, H, W), or (..., H, W) for a class map.

    Made from an array or a tensor, which is cast to the type's own dtype: `ClassMap(array)`.

    Class attributes:
        void: the value of a pixel that is not annotated.
        planes: the shape in front of (H, W): (C,), or () where there is no channel.
        dtype_: the dtype of the values.
    """

    void: ClassVar[float]
    planes: ClassVar[tuple[int, ...]]
    dtype_: ClassVar[torch.dtype]

    def __new__(cls, data: Any) -> Self:
        return torch.as_tensor(data, dtype=cls.dtype_).as_subclass(cls)

    @classmethod
    def empty(cls, height: int, width: int) -> Tensor:
        """An annotation that says nothing: every pixel is void."""
        return torch.full((*cls.planes, height, width), cls.void, dtype=cls.dtype_)

    @classmethod
    def valid(cls, values: Tensor) -> Tensor:
        """Which pixels are annotated: boolean, (..., H, W)."""
        raise NotImplementedError(f"{cls.__name__} must say which of its pixels are annotated: define `valid`")


class ClassMap(Label):
    """A class index per pixel: (H, W) int64, 255 void."""

    void, planes, dtype_ = IGNORE, (), torch.int64

    @classmethod
    def valid(cls, values: Tensor) -> Tensor:
        return values != IGNORE


class BinaryMap(Label):
    """Yes or no per pixel: (1, H, W) float32 of 0 and 1, 255 void."""

    void, planes, dtype_ = IGNORE, (1,), torch.float32

    @classmethod
    def valid(cls, values: Tensor) -> Tensor:
        return values[..., 0, :, :] != IGNORE


class DepthMap(Label):
    """Depth along the optical axis in metres: (1, H, W) float32, 0 void."""

    void, planes, dtype_ = 0.0, (1,), torch.float32

    @classmethod
    def valid(cls, values: Tensor) -> Tensor:
        return values[..., 0, :, :] > 0


class NormalMap(Label):
    """Unit surface normals, x right, y up, z towards the camera: (3, H, W) float32, (0, 0, 0) void."""

    void, planes, dtype_ = 0.0, (3,), torch.float32

    @classmethod
    def valid(cls, values: Tensor) -> Tensor:
        return values.square().sum(-3) > 0.25
