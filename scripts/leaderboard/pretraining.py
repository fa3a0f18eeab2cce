"""The backbone that all runs start from: swin_nano, trained whole on what no run is trained on."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from mt_backbones_swin.swin import FeaturePoint, SwinNano
from mt_core.backbone import Encoder
from mt_core.decoders.hrnet import HRNetHead
from mt_core.decoders.levels import narrow
from mt_core.files import write_bytes, write_json
from mt_core.losses import edge_bce
from mt_core.tasks import Edges
from mt_datasets.rooms.dataset import Rooms

from .settings import BATCH, PRETRAINING_WORLD, SIZE, Settings, backbone_file

WIDTHS = (18, 36, 72, 144)  # of the heads, which are thrown away
NOISE = 0.1  # standard deviation, of pixels in [0, 1]
EDGES_WEIGHT, DENOISING_WEIGHT = 50.0, 10.0
LR = 2e-3


class Pretext(nn.Module):
    """Boundaries of objects, whatever they are, and the clean picture, from a noisy one."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.edges, self.clean = (HRNetHead(narrow(encoder, WIDTHS, "hrnet"), 1, channels) for channels in (1, 3))
        self.register_buffer("mean", torch.tensor(encoder.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(encoder.std).view(3, 1, 1))

    def forward(self, images: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """images (B, 3, H, W) in [0, 1], edges (B, 1, H, W) of 0 and 1 -> the two losses"""
        noisy = images + NOISE * torch.randn_like(images)
        features = self.encoder((noisy - self.mean) / self.std)
        drawn, clean = (
            F.interpolate(head(features), size=images.shape[-2:], mode="bilinear", align_corners=False)
            for head in (self.edges, self.clean)
        )
        return edge_bce(drawn, edges), F.l1_loss(clean, images)


def pretrain(settings: Settings, folder: Path) -> None:
    """Write the backbone, in timm's layout, where it is not there yet, and beside it what its losses were."""
    target = backbone_file(folder)
    if target.is_file():
        return
    started = time.process_time()
    torch.manual_seed(0)
    images, edges = _pictures(settings.train)
    model = Pretext(SwinNano(features=FeaturePoint.before_merging).build(SIZE)).train()
    optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, max(2, settings.pretraining_steps), pct_start=0.1)
    losses: list[list[float]] = []
    for _ in range(settings.pretraining_steps):
        chosen = torch.randint(len(images), (BATCH,))
        mirrored = torch.flip(images[chosen], (-1,)), torch.flip(edges[chosen], (-1,))
        batch = mirrored if torch.rand(()) < 0.5 else (images[chosen], edges[chosen])
        found = model(*batch)
        optimizer.zero_grad()
        (EDGES_WEIGHT * found[0] + DENOISING_WEIGHT * found[1]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        losses.append([float(loss.detach()) for loss in found])
    state = {key: value.contiguous() for key, value in model.encoder.original(model.encoder.state_dict()).items()}
    values = {"edges, denoising": losses, "cpu_seconds": time.process_time() - started}
    write_json(folder / "pretraining.json", values)
    write_bytes(target, save(state))


def _pictures(count: int) -> tuple[Tensor, Tensor]:
    """Pictures (N, 3, H, W) in [0, 1] and their boundaries (N, 1, H, W), of a world of their own."""
    split = Rooms(size=SIZE, train=count, seed=PRETRAINING_WORLD).split("train", [Edges("edges", 1)])
    samples = [split[i] for i in range(count)]
    images = torch.stack([sample.image.as_subclass(Tensor) for sample in samples]).float() / 255
    return images, torch.stack([sample.labels["edges"].as_subclass(Tensor) for sample in samples])
