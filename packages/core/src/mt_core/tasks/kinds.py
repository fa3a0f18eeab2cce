"""The kinds of task that the papers train: what each predicts, what it refuses in an annotation, how it is painted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .. import losses
from ..errors import ConfigError, DataError
from ..labels import IGNORE, BinaryMap, ClassMap, DepthMap, NormalMap
from ..task import Loss, Task
from .colours import paint_classes, paint_depth, paint_normals, paint_share

UNIT_TOLERANCE = 0.1  # of the length of an annotated normal: 8-bit files round it by up to 0.01


@dataclass(frozen=True)
class Segmentation(Task):
    """One of `channels` classes per pixel; the prediction is the likeliest."""

    kind = "segmentation"
    label = ClassMap
    losses: ClassVar[Mapping[str, Loss]] = {"cross_entropy": losses.cross_entropy}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels > IGNORE:
            raise ConfigError(
                f"task {self.name}: {self.channels} channels; a class map holds at most {IGNORE} classes, "
                f"because {IGNORE} means not annotated"
            )

    def predict(self, logits: Tensor) -> Tensor:
        """logits (B, N, H, W) -> classes (B, H, W) int64"""
        return logits.argmax(1)

    def colours(self, values: Tensor) -> Tensor:
        """classes (H, W) -> (3, H, W) uint8"""
        return paint_classes(_plain(values))

    def check_values(self, label: Tensor, where: str) -> None:
        known = ((label >= 0) & (label < self.channels)) | (label == IGNORE)
        expected = f"a class from 0 to {self.channels - 1}, or {IGNORE} for void"
        _refuse(~known, label, f"{where}: task {self.name}", expected)


@dataclass(frozen=True)
class HumanParts(Segmentation):
    """Parts of people; class 0 is what is no person."""

    channels: int = 7

    kind = "human_parts"
    weight = 2.0


@dataclass(frozen=True)
class _FixedChannels(Task):
    """A kind whose number of channels is part of its meaning: the default, and nothing else."""

    channels: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels != type(self).channels:
            raise ConfigError(
                f"task {self.name}: {self.channels} channels, but {self.kind} has {type(self).channels}; "
                f"leave the number away"
            )

    @property
    def class_count(self) -> int:
        return 0


@dataclass(frozen=True)
class _Binary(_FixedChannels):
    """Yes or no per pixel; the prediction is the probability of yes."""

    label = BinaryMap

    @property
    def class_count(self) -> int:
        return 2

    def predict(self, logits: Tensor) -> Tensor:
        """logits (B, 1, H, W) -> probabilities (B, 1, H, W)"""
        return logits.float().sigmoid()

    def colours(self, values: Tensor) -> Tensor:
        """0, 1, 255 or probabilities (1, H, W) or (H, W) -> (3, H, W) uint8"""
        return paint_share(_plane(values))

    def check_values(self, label: Tensor, where: str) -> None:
        known = (label == 0) | (label == 1) | (label == IGNORE)
        _refuse(~known, label, f"{where}: task {self.name}", f"0, 1, or {IGNORE} for void")


@dataclass(frozen=True)
class Saliency(_Binary):
    """Is the pixel part of what catches the eye?"""

    kind = "saliency"
    losses: ClassVar[Mapping[str, Loss]] = {"balanced_bce": losses.balanced_bce}
    weight = 5.0


@dataclass(frozen=True)
class Edges(_Binary):
    """Does a boundary run through the pixel?"""

    kind = "edges"
    losses: ClassVar[Mapping[str, Loss]] = {"edge_bce": losses.edge_bce, "balanced_bce": losses.balanced_bce}
    weight = 50.0


@dataclass(frozen=True)
class Depth(_FixedChannels):
    """Depth along the optical axis in metres; the logits are metres, and the loss sees them even below 0."""

    kind = "depth"
    label = DepthMap
    losses: ClassVar[Mapping[str, Loss]] = {"l1": losses.depth_l1}

    def predict(self, logits: Tensor) -> Tensor:
        """logits (B, 1, H, W) -> metres (B, 1, H, W), never below 0"""
        return logits.float().clamp(min=0)

    def colours(self, values: Tensor) -> Tensor:
        """metres (1, H, W) or (H, W) -> (3, H, W) uint8"""
        return paint_depth(_plane(values))

    def check_values(self, label: Tensor, where: str) -> None:
        _refuse(
            ~(label.isfinite() & (label >= 0)), label, f"{where}: task {self.name}", "metres above 0, or 0 for void"
        )


@dataclass(frozen=True)
class Normals(_FixedChannels):
    """Unit surface normals, x right, y up, z towards the camera."""

    channels: int = 3

    kind = "normals"
    label = NormalMap
    losses: ClassVar[Mapping[str, Loss]] = {"l1": losses.normals_l1, "cosine": losses.normals_cosine}
    weight = 10.0

    def predict(self, logits: Tensor) -> Tensor:
        """logits (B, 3, H, W) -> unit vectors (B, 3, H, W); (0, 0, 0) only where the logits have no direction"""
        return losses.unit_vectors(logits.float(), 1e-12)

    def colours(self, values: Tensor) -> Tensor:
        """normals (3, H, W) -> (3, H, W) uint8"""
        return paint_normals(_plain(values))

    def check_values(self, label: Tensor, where: str) -> None:
        what = f"{where}: task {self.name}"
        _refuse(~label.isfinite(), label, what, "finite components")
        length = label.square().sum(-3, keepdim=True).sqrt()
        wrong = self.label.valid(label).unsqueeze(-3) & ((length - 1).abs() > UNIT_TOLERANCE)
        _refuse(wrong, length, f"{what}: length of a normal", "1, or the vector (0, 0, 0) for void")


def _plain(values: Tensor) -> Tensor:
    return values.detach().cpu()


def _plane(values: Tensor) -> Tensor:
    """(1, H, W) or (H, W) -> (H, W) on the CPU"""
    return _plain(values).reshape(values.shape[-2:])


def _refuse(wrong: Tensor, values: Tensor, what: str, expected: str) -> None:
    """Raise DataError with the first of the wrong values, where it stands, and how many there are."""
    if not bool(wrong.any()):
        return
    *_, row, column = wrong.nonzero()[0].tolist()
    found = values[wrong][0].item()
    raise DataError(
        f"{what}: found {found:g} at row {row}, column {column} ({int(wrong.sum())} such values); "
        f"expected {expected}; mend the file, or the options that say how to read it"
    )
