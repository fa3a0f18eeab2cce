"""A tiny plain backbone with decoders, and pictures with labels, for the plan step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mt_backbones_swin.swin import SwinTiny
from mt_core.dataset import Batch
from mt_core.decoders.hrnet import HRNet
from mt_core.frozen import Frozen
from mt_core.model import MultiTaskModel
from mt_core.task import Task
from mt_core.tasks import Depth, Normals, Segmentation

TASKS = (Segmentation("semseg", 5), Depth("depth"), Normals("normals"))
SIZE = (32, 48)


def study(tasks: Sequence[Task] = TASKS) -> MultiTaskModel:
    """A frozen Swin miniature with a random decoder for each task."""
    torch.manual_seed(0)
    encoder, _ = SwinTiny.miniature()
    return MultiTaskModel(encoder, Frozen(), HRNet(), tasks).eval()


def label(task: Task, generator: torch.Generator) -> Tensor:
    """A random annotation of one picture, (1, ...)."""
    empty = task.label.empty(*SIZE).as_subclass(Tensor)
    if isinstance(task, Segmentation):
        return torch.randint(task.channels, empty.shape, generator=generator).unsqueeze(0)
    values = torch.rand(empty.shape, generator=generator) + 0.5
    return (torch.nn.functional.normalize(values, dim=0) if isinstance(task, Normals) else values).unsqueeze(0)


def pictures(
    count: int, tasks: Sequence[Task] = TASKS, absent: Iterable[tuple[int, str]] = (), seed: int = 0
) -> list[Batch]:
    """Batches of one picture; `absent` says which has no label of which task."""
    generator, missing = torch.Generator().manual_seed(seed), set(absent)
    batches = []
    for i in range(count):
        labels = {task.name: label(task, generator) for task in tasks}
        labels |= {t.name: t.label.empty(*SIZE).as_subclass(Tensor)[None] for t in tasks if (i, t.name) in missing}
        present = {task.name: torch.tensor([(i, task.name) not in missing]) for task in tasks}
        batches.append(Batch([f"picture-{i}"], torch.rand(1, 3, *SIZE, generator=generator), labels, present))
    return batches
