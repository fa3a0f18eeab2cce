"""A small two-level encoder, its backbone, an adapter, a decoder and a data set, written like real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from torchvision.tv_tensors import Image

from mt_core.adapter import Adapter, StreamModule
from mt_core.backbone import Backbone, Encoder, Level
from mt_core.dataset import Dataset, Sample, Samples
from mt_core.decoder import Decoder
from mt_core.errors import ConfigError
from mt_core.labels import ClassMap, DepthMap
from mt_core.site import Join, Residual, Role, Site, Tap
from mt_core.streams import Streams
from mt_core.task import Task
from mt_core.tasks import Depth, Segmentation
from mt_core.weights import read_state

TASKS = ("semseg", "depth", "normals")


class PatchEmbed(nn.Module):
    """(B, 3, H, W) -> (B, H / stride, W / stride, C)"""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, stride, stride)

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.proj(images)).permute(0, 2, 3, 1)  # (B, h, w, C)


class FusedAttention(nn.Module):
    """Attention over the whole picture, q, k and v from one matrix. (B, h, w, C) -> (B, h, w, C)"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.proj(self.attend(x, self.qkv(x))))

    def attend(self, x: Tensor, qkv: Tensor) -> Tensor:
        """The batch size is that of qkv, never that of x: streams may have forked in between."""
        q, k, v = qkv.flatten(1, 2).chunk(3, dim=-1)  # (B, N, C) each
        return scaled_dot_product_attention(q, k, v).view(len(qkv), *x.shape[1:])  # (B, h, w, C)


class ApartAttention(nn.Module):
    """The same with q apart from k and v, as in PVT. (B, h, w, C) -> (B, h, w, C)"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.kv, self.proj = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.meet = Join()

    def forward(self, x: Tensor) -> Tensor:
        q, kv = self.meet(self.q(x), self.kv(x))
        k, v = kv.flatten(1, 2).chunk(2, dim=-1)  # (B, N, C) each
        x = scaled_dot_product_attention(q.flatten(1, 2), k, v).view(q.shape)  # (B, h, w, C)
        return cast(Tensor, self.proj(x))


class MLP(nn.Sequential):
    """(B, h, w, C) -> (B, h, w, C)"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)


class Block(nn.Module):
    """(B, h, w, C) -> (B, h, w, C)"""

    def __init__(self, width: int, attention: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attn, self.residual1 = nn.LayerNorm(width), attention, Residual()
        self.norm2, self.mlp, self.residual2 = nn.LayerNorm(width), MLP(width), Residual()

    def forward(self, x: Tensor) -> Tensor:
        x = self.residual1(x, self.attn(self.norm1(x)))
        return cast(Tensor, self.residual2(x, self.mlp(self.norm2(x))))


class Merging(nn.Module):
    """Each 2 x 2 patches to one. (B, h, w, C) -> (B, h / 2, w / 2, 2C)"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3).flatten(3)  # (B, h / 2, w / 2, 4C)
        return cast(Tensor, self.reduction(x))


class ToyEncoder(Encoder):
    """One block at stride 4 with fused attention, one at stride 8 with q apart. Features before merging."""

    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.width = width
        self.patch_embed = PatchEmbed(width, 4)
        self.block0, self.tap0 = Block(width, FusedAttention(width)), Tap()
        self.merging = Merging(width)
        self.block1, self.tap1 = Block(2 * width, ApartAttention(2 * width)), Tap()
        self.levels = (Level(width, 4), Level(2 * width, 8))

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self._run(self.block0, self.patch_embed(images))
        fine, x = self.tap0(x)
        x = self._run(self.block1, self.merging(x))
        coarse, _ = self.tap1(x)
        return [level.permute(0, 3, 1, 2) for level in (fine, coarse)]  # (B, C, h, w)

    def sites(self) -> list[Site]:
        width = self.width
        return [
            Site("patch_embed", Role.patch_embed, 0, reads=""),
            Site("block0.norm1", Role.norm, 0, last=True),
            Site("block0.attn.qkv", Role.qkv, 0, last=True, parts=(width, width, width)),
            Site("block0.attn.proj", Role.proj, 0, last=True),
            *self._rest("block0", 0, entrance="patch_embed"),
            Site("tap0", Role.tap, 0),
            Site("merging.reduction", Role.merge, 1),
            Site("block1.norm1", Role.norm, 1, last=True, block=1),
            Site("block1.attn.q", Role.q, 1, last=True, block=1),
            Site("block1.attn.kv", Role.kv, 1, True, reads="block1.norm1", parts=(2 * width, 2 * width), block=1),
            Site("block1.attn.meet", Role.join, 1, last=True, reads="block1.attn.q", block=1),
            Site("block1.attn.proj", Role.proj, 1, last=True, block=1),
            *self._rest("block1", 1, entrance="merging.reduction"),
            Site("tap1", Role.tap, 1, block=1),
        ]

    def original(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name.replace("merging", "downsample"): value for name, value in state.items()}

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        again = self.checkpointing and self.training
        return cast(Tensor, checkpoint(block, x, use_reentrant=False) if again else block(x))

    @staticmethod
    def _rest(block: str, stage: int, entrance: str) -> list[Site]:
        def site(name: str, role: Role, reads: str | None = None) -> Site:
            return Site(f"{block}.{name}", role, stage, last=True, reads=reads, block=stage)

        return [
            site("residual1", Role.join, reads=entrance),
            site("norm2", Role.norm),
            site("mlp", Role.mlp),
            site("mlp.fc1", Role.fc1, reads=f"{block}.norm2"),
            site("mlp.fc2", Role.fc2),
            site("residual2", Role.join, reads=f"{block}.residual1"),
        ]


@dataclass(kw_only=True)
class ToyBackbone(Backbone):
    """The toy encoder with an option, and weights from a file."""

    width: int = 6

    image_size: ClassVar[tuple[int, int]] = (16, 24)
    encoder: ClassVar[type[ToyEncoder]] = ToyEncoder

    def build(self, image_size: tuple[int, int]) -> Encoder:
        if any(side % 8 for side in image_size):
            raise ConfigError(f"image_size={list(image_size)}: expected multiples of 8")
        return self.encoder(self.width)

    def pretrained_state(self, encoder: Encoder) -> Mapping[str, Tensor] | None:
        return read_state(self.checkpoint) if self.checkpoint else None

    @classmethod
    def miniature(cls) -> tuple[Encoder, Tensor]:
        return cls.encoder(), torch.rand(2, 3, 16, 24)


class TaskLoRA(StreamModule):
    """W x + b + s B_t A_t x, one stream per task. (S * B, ..., k) -> (T * B, ..., d)"""

    base: nn.Linear

    def __init__(self, base: nn.Linear, streams: Streams, rank: int = 2, scale: float = 2.0) -> None:
        super().__init__(base, streams, streams.per_task())
        self.scale = scale
        new, tasks = base.weight.new_empty, self.full_after.tasks
        self.a = nn.ParameterDict({task: nn.Parameter(new(rank, base.in_features).normal_()) for task in tasks})
        self.b = nn.ParameterDict({task: nn.Parameter(new(base.out_features, rank).zero_()) for task in tasks})

    def bind(self, before: Streams, after: Streams) -> None:
        super().bind(before, after)
        self.tasks = [str(stream) for stream in after]

    def forward(self, x: Tensor) -> Tensor:
        y = self.fork(self.base(x))  # (T * B, ..., d)
        streams = self.fork(x).unflatten(0, (len(self.tasks), -1))  # (T, B, ..., k)
        updates = [self.update(task, x) for task, x in zip(self.tasks, streams, strict=True)]
        return y + self.scale * torch.cat(updates)

    def update(self, task: str, x: Tensor) -> Tensor:
        return cast(Tensor, x @ self.a[task].T @ self.b[task].T)

    def delta(self, task: str) -> Tensor | None:
        return cast(Tensor, self.scale * (self.b[task] @ self.a[task]))


@dataclass
class ToyLoRA(Adapter):
    """Forks at the first attention; trains the norms."""

    rank: int = 2

    module: ClassVar[type[TaskLoRA]] = TaskLoRA

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        if site.role is Role.norm:
            return module
        if site.role in (Role.qkv, Role.fc2):
            return self.module(cast(nn.Linear, module), streams, self.rank)
        return None


class Finest(nn.Module):
    """[(B, C, h, w), ...] -> (B, N, h, w)"""

    def __init__(self, incoming: int, channels: int) -> None:
        super().__init__()
        self.classify = nn.Conv2d(incoming, channels, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        return cast(Tensor, self.classify(features[0]))


@dataclass(kw_only=True)
class ToyDecoder(Decoder):
    """A 1 x 1 convolution of the finest level."""

    head: ClassVar[type[Finest]] = Finest

    def build(self, task: Task, encoder: Encoder) -> nn.Module:
        return self.head(encoder.levels[0].channels, task.channels)


@dataclass(kw_only=True)
class ToyDataset(Dataset):
    """Three pictures with classes; only the first has depth."""

    image_size: ClassVar[tuple[int, int]] = (16, 24)

    def tasks(self) -> Mapping[str, Task]:
        return {"semseg": Segmentation("semseg", 4), "depth": Depth("depth")}

    def split(self, name: str, tasks: Sequence[Task]) -> Samples:
        return ToySamples([task.name for task in tasks])


@dataclass
class ToySamples:
    """The pictures of `ToyDataset`."""

    tasks: list[str]

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        generator = torch.Generator().manual_seed(index)
        labels: dict[str, Any] = {"semseg": ClassMap(torch.randint(4, (16, 24), generator=generator))}
        if index == 0:
            labels["depth"] = DepthMap(1 + torch.rand(1, 16, 24, generator=generator))
        image = Image(torch.randint(256, (3, 16, 24), generator=generator).to(torch.uint8))
        return Sample(f"toy-{index}", image, {name: x for name, x in labels.items() if name in self.tasks})
