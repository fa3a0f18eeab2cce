"""A data set of a few generated pictures, small enough that a test trains on it in a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torchvision import tv_tensors

from mt_core.dataset import Dataset, Sample, Samples
from mt_core.errors import DataError
from mt_core.hookspecs import hookimpl
from mt_core.labels import BinaryMap, ClassMap, DepthMap, Label, NormalMap
from mt_core.task import Task
from mt_core.tasks import Depth, Normals, Saliency, Segmentation

HEIGHT, WIDTH = 40, 48


@dataclass(frozen=True)
class ToySamples:
    """Bright rectangles on a dark ground: nearer, salient, tilted and of class 1 or 2."""

    first: int
    count: int
    tasks: tuple[Task, ...]
    infinite: int
    broken: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Sample:
        if index == self.broken:
            raise DataError(f"toy-{index}: damaged; draw it again")
        generator = torch.Generator().manual_seed(self.first + index)
        kind, top, left = (int(torch.randint(1, high, (), generator=generator)) for high in (3, 16, 20))
        inside = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
        inside[top : top + 20, left : left + 24] = True
        noise = torch.rand(3, HEIGHT, WIDTH, generator=generator) * 40
        image = (noise + 180 * inside * (torch.arange(3) != kind).view(3, 1, 1)).to(torch.uint8)
        depth = torch.where(inside, 2.0, 4.0)[None]
        tilted = torch.tensor([0.6, 0.0, 0.8]).view(3, 1, 1), torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1)
        labels: dict[str, Label] = {
            "semseg": ClassMap(inside * kind),
            "depth": DepthMap(torch.full_like(depth, torch.inf) if index == self.infinite else depth),
            "normals": NormalMap(torch.where(inside, *tilted)),
            "saliency": BinaryMap(inside[None]),
        }
        wanted = {task.name: labels[task.name] for task in self.tasks}
        return Sample(f"toy-{index}", tv_tensors.Image(image), wanted)


@dataclass(kw_only=True)
class Toy(Dataset):
    """Pictures of one rectangle.

    Attributes:
        count: pictures in each split.
        infinite: the training picture whose depth is infinite.
        broken: the training picture that cannot be read.
    """

    count: int = 6
    infinite: int = -1
    broken: int = -1

    image_size = (32, 40)
    zoom = (1.0, 1.2)

    def tasks(self) -> Mapping[str, Task]:
        tasks: list[Task] = [
            Segmentation("semseg", 3, ("ground", "red", "green")),
            Depth("depth", 1),
            Normals("normals", 3),
            Saliency("saliency", 1),
        ]
        return {task.name: task for task in tasks}

    def split(self, name: str, tasks: Sequence[Task]) -> Samples:
        training = name == "train"
        infinite, broken = (self.infinite, self.broken) if training else (-1, -1)
        return ToySamples(0 if training else 1000, self.count, tuple(tasks), infinite, broken)


class ToyPlugin:
    """Registers the data set as a stranger's plugin would."""

    @hookimpl
    def mt_datasets(self) -> Mapping[str, type | str]:
        return {"toy": Toy}
