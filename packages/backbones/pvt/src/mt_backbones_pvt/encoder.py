"""PVT's forward, v1 and v2, written so that a task stream may fork anywhere (Wang et al., ICCV 2021 and CVMJ 2022).

timm builds the parts; the classes here take those parts over under the same names, and only decide how tensors pass
through them. B stands for all rows of the batch axis: streams times images.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mt_core.backbone import Encoder, Level
from mt_core.site import Join, Residual, Role, Site, Tap, block_sites

STRIDES = (4, 8, 16, 32)


class Attention(nn.Module):
    """Spatial-reduction attention: keys and values are taken from a coarser grid. (B, H, W, C) -> (B, H, W, C)"""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.width, self.heads = attention.dim, attention.num_heads
        self.q, self.kv, self.proj = attention.q, attention.kv, attention.proj
        self.sr: nn.Module = attention.sr or nn.Identity()
        self.norm: nn.Module = attention.norm or nn.Identity()
        self.join = Join()

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x)  # (B, H, W, C)
        reduced = self.norm(self.sr(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))  # (B, h, w, C), M = h * w
        q, kv = self.join(q, self.kv(reduced))  # streams may have forked in either, so B is read off the outputs
        queries = q.flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, D)
        keys, values = (
            kv.flatten(1, 2).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # (B, heads, h * w, D)
        y = F.scaled_dot_product_attention(queries, keys, values)  # (B, heads, N, D)
        return cast(Tensor, self.proj(y.transpose(1, 2).flatten(2).view(q.shape)))  # (B, H, W, C)

    def sites(self, stage: int) -> list[Site]:
        """Its sites, as seen from the block. The reduction itself is none: no paper tunes it."""
        reduces = not isinstance(self.norm, nn.Identity)
        return [
            Site("attn.q", Role.q, stage),
            *([Site("attn.norm", Role.norm, stage, reads="norm1")] if reduces else []),
            Site("attn.kv", Role.kv, stage, reads=None if reduces else "norm1", parts=(self.width, self.width)),
            Site("attn.join", Role.join, stage, reads="attn.q"),
            Site("attn.proj", Role.proj, stage),
        ]


class ConvMlp(nn.Module):
    """v2's feed-forward network, with a 3 x 3 depthwise convolution, which tells places apart. (B, H, W, C) -> same"""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.fc1, self.dwconv, self.act, self.fc2 = mlp.fc1, mlp.dwconv, mlp.act, mlp.fc2

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x).permute(0, 3, 1, 2)  # (B, M, H, W)
        x = self.dwconv(x).permute(0, 2, 3, 1)  # (B, H, W, M)
        return cast(Tensor, self.fc2(self.act(x)))  # (B, H, W, C)


class Block(nn.Module):
    """One block of v1 or v2, which differ in the feed-forward network. (B, H, W, C) -> (B, H, W, C)"""

    def __init__(self, block: Any, mlp: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attn, self.drop_path1 = block.norm1, Attention(block.attn), block.drop_path1
        self.norm2, self.mlp, self.drop_path2 = block.norm2, mlp, block.drop_path2
        self.residual1, self.residual2 = Residual(), Residual()

    def forward(self, x: Tensor) -> Tensor:
        x = self.residual1(x, self.drop_path1(self.attn(self.norm1(x))))
        return cast(Tensor, self.residual2(x, self.drop_path2(self.mlp(self.norm2(x)))))


class PositionEmbedding(nn.Module):
    """Adds to each token what a table holds for its place, resized bilinearly to the grid. (B, H, W, C) -> same

    Args:
        grid: (rows, columns) of the table.
        width: C.
    """

    def __init__(self, grid: tuple[int, int], width: int) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.empty(1, grid[0] * grid[1], width))  # (1, N, C)
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        table = self.table.unflatten(1, self.grid)  # (1, rows, columns, C)
        size = x.shape[1:3]
        if size != self.grid:
            table = F.interpolate(table.permute(0, 3, 1, 2), size, mode="bilinear").permute(0, 2, 3, 1)  # (1, H, W, C)
        return cast(Tensor, x + table)


class Stage(nn.Module):
    """A stage: tokens from the level before (or the image), their positions (v1), blocks, and a norm (v2)."""

    def __init__(
        self,
        patch_embed: nn.Module,
        blocks: Sequence[Block],
        pos_embed: nn.Module | None = None,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.patch_embed = patch_embed
        self.pos_embed = pos_embed or nn.Identity()
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm or nn.Identity()


class PvtEncoder(Encoder):
    """A Pyramid Vision Transformer for dense prediction: one level of features per stage, at 1/4, 1/8, 1/16 and 1/32.

    Args:
        stages: four.
    """

    mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.taps = nn.ModuleList(Tap() for _ in stages)
        widths = [cast(Block, stage.blocks[0]).attn.width for stage in stages]
        self.levels = tuple(Level(width, stride) for width, stride in zip(widths, STRIDES, strict=True))

    @abstractmethod
    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse a picture of (height, width) that it cannot take.

        Raises:
            ConfigError: saying what could be.
        """

    def forward(self, images: Tensor) -> list[Tensor]:
        self.check_size(cast(tuple[int, int], images.shape[-2:]))
        x, levels = images, []
        for stage, tap in zip(self._stages(), self.taps, strict=True):
            x = stage.pos_embed(stage.patch_embed(x))  # (B, H, W, C)
            for block in stage.blocks:
                x = checkpoint(block, x, use_reentrant=False) if self.checkpointing and self.training else block(x)
            level, x = tap(stage.norm(x).permute(0, 3, 1, 2))  # (B, C, H, W)
            levels.append(level)
        return levels

    def sites(self) -> list[Site]:
        found: list[Site] = []
        number = 0
        for i, stage in enumerate(self._stages()):
            path, before = f"stages.{i}", max(0, number - 1)
            found.append(Site(f"{path}.patch_embed", Role.patch_embed, i, reads=None if i else "", block=before))
            found.append(Site(f"{path}.patch_embed.norm", Role.norm, i, block=before))
            if isinstance(stage.pos_embed, PositionEmbedding):
                found.append(Site(f"{path}.pos_embed", Role.pos_bias, i, block=before))
            for j, block in enumerate(cast(Sequence[Block], stage.blocks)):
                found += block_sites(
                    f"{path}.blocks.{j}", block.attn.sites(i), entrance=found[-1].path,
                    stage=i, last=j + 1 == len(stage.blocks), number=number,
                )  # fmt: skip
                number += 1
            if not isinstance(stage.norm, nn.Identity):
                found.append(Site(f"{path}.norm", Role.norm, i, block=number - 1))
            found.append(Site(f"taps.{i}", Role.tap, i, block=number - 1))
        return found

    def _stages(self) -> list[Stage]:
        return cast(list[Stage], list(self.stages))
