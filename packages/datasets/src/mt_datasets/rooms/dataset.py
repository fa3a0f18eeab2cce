"""The embedded data set: rooms drawn on demand, unlimited and exactly annotated. Needs no files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torchvision.tv_tensors import Image

from mt_core.dataset import SPLITS, Dataset, Sample, Samples
from mt_core.errors import ConfigError
from mt_core.labels import BinaryMap, ClassMap, DepthMap, Label, NormalMap
from mt_core.task import Task
from mt_core.tasks import Depth, Edges, Normals, Saliency, Segmentation

from . import CLASSES, Frame, frame


@dataclass(kw_only=True)
class Rooms(Dataset):
    """Procedural indoor scenes by ray casting: picture i of a seed is always the same.

    Attributes:
        size: (height, width) that pictures are drawn at.
        train, val: how many pictures each split has; `train` may be as large as you like, nothing is stored.
        seed: which world; the splits never share a picture.
    """

    size: tuple[int, int] = (96, 128)
    train: int = 100_000
    val: int = 64
    seed: int = 0

    image_size: ClassVar[tuple[int, int]] = (96, 128)

    def __post_init__(self) -> None:
        if min(self.size) < 16 or min(self.train, self.val) < 1 or self.seed < 0:
            raise ConfigError(
                f"dataset.size={list(self.size)} train={self.train} val={self.val} seed={self.seed}: expected at least "
                f"16 pixels a side, one picture per split and a seed from 0"
            )

    def tasks(self) -> Mapping[str, Task]:
        found = (
            Segmentation("semseg", len(CLASSES), CLASSES),
            Depth("depth", 1),
            Normals("normals", 3),
            Saliency("saliency", 1),
            Edges("edges", 1),
        )
        return {task.name: task for task in found}

    def split(self, name: str, tasks: Sequence[Task]) -> Samples:
        if name not in SPLITS:
            raise ConfigError(f"rooms has no split {name!r}; it has {', '.join(SPLITS)}")
        count = self.train if name == "train" else self.val
        seed = len(SPLITS) * self.seed + SPLITS.index(name)  # no picture is in two splits, or in two worlds
        return _Drawn(seed, name, count, self.size, [task.name for task in tasks])


class _Drawn:
    """A split: pictures drawn when they are asked for."""

    def __init__(self, seed: int, split: str, count: int, size: tuple[int, int], tasks: list[str]) -> None:
        self.seed, self.split, self.count, self.size, self.tasks = seed, split, count, size, tasks

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(index)
        drawn = frame(self.seed, index, *self.size)
        labels = {name: _LABELS[name](drawn) for name in self.tasks}
        return Sample(f"{self.split}-{index:06d}", Image(_planes(drawn.image)), labels)


def _planes(pixels: object) -> Tensor:
    """(H, W, C) -> (C, H, W)"""
    return torch.as_tensor(pixels).permute(2, 0, 1).contiguous()


def _binary(pixels: object) -> Label:
    return BinaryMap(torch.as_tensor(pixels).float().unsqueeze(0))


_LABELS: Mapping[str, Callable[[Frame], Label]] = {
    "semseg": lambda drawn: ClassMap(torch.as_tensor(drawn.semseg).long()),
    "depth": lambda drawn: DepthMap(torch.as_tensor(drawn.depth).unsqueeze(0)),
    "normals": lambda drawn: NormalMap(_planes(drawn.normals)),
    "saliency": lambda drawn: _binary(drawn.saliency),
    "edges": lambda drawn: _binary(drawn.edges),
}
