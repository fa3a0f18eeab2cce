"""Every adapter on every backbone, and under every decoder: a short training lowers the loss of each task.

Each of the papers' methods meets each decoder in turn, others one, on every second backbone (the conformance kit has
them on all); MT_EXHAUSTIVE=1 trains every triple of a method, and all pairs.
What cannot be combined is refused, with one message; docs/matrix.md lists those pairs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mt_core import MultiTaskModel, registry
from mt_core.errors import ConfigError
from mt_core.tasks import Depth, Normals, Segmentation
from mt_core.testing.miniatures import architectures

TASKS = (Segmentation("semseg", 3), Depth("depth", 1), Normals("normals", 3))
METHODS = ("mtlora", "mtlora_plus", "tora", "tglora", "vmt", "vmt_lite")
STEPS = 12
PAGE = Path(__file__).resolve().parents[2] / "docs" / "matrix.md"


def triples() -> Iterator[tuple[str, str, str]]:
    decoders = list(registry("decoders"))
    everything = os.environ.get("MT_EXHAUSTIVE") == "1"
    for place, adapter in enumerate(registry("adapters")):
        for number, backbone in enumerate(architectures()):
            if adapter not in METHODS:
                if everything or (place + number) % 2 == 0:
                    yield adapter, backbone, "hrnet"
            elif everything:
                yield from ((adapter, backbone, decoder) for decoder in decoders)
            else:
                yield adapter, backbone, decoders[(METHODS.index(adapter) + number) % len(decoders)]


def labels_of(images: Tensor) -> dict[str, Tensor]:
    """What a small model can read off the pictures: their brightness in three forms. (B, 3, H, W) -> (B, ..., H, W)"""
    bright = F.avg_pool2d(images.mean(1, keepdim=True), 9, stride=1, padding=4)  # (B, 1, H, W)
    ranks = bright.flatten(1).argsort(1).argsort(1).view_as(bright[:, 0]) / bright[0].numel()  # (B, H, W)
    leaning = torch.cat([bright - bright.mean(), torch.zeros_like(bright), torch.ones_like(bright)], dim=1)
    return {"semseg": (3 * ranks).long().clamp(max=2), "depth": 1 + 4 * bright, "normals": F.normalize(leaning, dim=1)}


def losses_of(model: MultiTaskModel, images: Tensor, labels: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: model.tasks[name].loss(logits, labels[name]) for name, logits in model(images).items()}


def built(backbone: str, adapter: str, decoder: str) -> tuple[MultiTaskModel | None, Tensor]:
    """A model on a miniature and pictures for it; None where the backbone refuses one of the two."""
    encoder, images = architectures()[backbone].miniature()
    try:
        model = MultiTaskModel(encoder, registry("adapters")[adapter](), registry("decoders")[decoder](), TASKS)
    except ConfigError:
        return None, images
    return model.train(), images


@pytest.mark.parametrize(("adapter", "backbone", "decoder"), list(triples()))
def test_a_short_training_lowers_the_loss_of_every_task(adapter: str, backbone: str, decoder: str) -> None:
    torch.manual_seed(0)
    model, images = built(backbone, adapter, decoder)
    if model is None:
        refused = adapter if built(backbone, adapter, "hrnet")[0] is None else decoder
        assert f"| `{refused}` | `{backbone}` (" in PAGE.read_text()
        return
    labels = labels_of(images)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    found: list[dict[str, float]] = []
    for _ in range(STEPS):
        losses = losses_of(model, images, labels)
        found.append({name: float(loss.detach()) for name, loss in losses.items()})
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    lowest = {task: min(losses[task] for losses in found[-4:]) for task in found[0]}  # Adam's last steps go up and down
    assert all(lowest[task] < found[0][task] for task in found[0]), (found[0], lowest)
