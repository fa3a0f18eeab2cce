"""SAM's image encoder, written so that a task stream may fork anywhere (Kirillov et al., ICCV 2023; modules from timm).

timm builds every part; the classes here take those parts over under the same names, and only decide how tensors pass
through them. B stands for all rows of the batch axis: streams times images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers.pos_embed import resample_abs_pos_embed_nhwc
from timm.models.vision_transformer_sam import VisionTransformerSAM, window_partition, window_unpartition
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mt_core.backbone import Encoder, Level
from mt_core.errors import ConfigError
from mt_core.site import Residual, Role, Site, Tap, block_sites


class RelativePosition(nn.Module):
    """What a query is multiplied with for each offset along rows and columns. -> (H, H, D), (W, W, D)"""

    def __init__(self, h: nn.Parameter, w: nn.Parameter) -> None:
        super().__init__()
        self.h, self.w = h, w

    def forward(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        return _by_offset(self.h, height), _by_offset(self.w, width)


class Attention(nn.Module):
    """Self-attention over the whole picture, or within windows. (B, H, W, C) -> (B, H, W, C)

    SAM adds to the logit of a query at (i, j) and a key at (k, l) the terms q . h[i - k] + q . w[j - l]. Longer
    queries and keys give the same without a bias, which would be (heads, N, N) large and keep fused kernels away:

        q' = [s q, (q . h[i - k])_k, (q . w[j - l])_l]      k' = [k, onehot(row), onehot(column)]

    Args:
        attention: timm's module.
        window: tokens a side; 0 for the whole picture.
    """

    def __init__(self, attention: Any, window: int) -> None:
        super().__init__()
        self.width, self.heads, self.window = attention.qkv.in_features, attention.num_heads, window
        self.qkv = attention.qkv
        self.rel_pos = RelativePosition(attention.rel_pos_h, attention.rel_pos_w)
        self.proj = attention.proj

    def forward(self, x: Tensor) -> Tensor:
        if not self.window:
            return cast(Tensor, self.proj(self._attend(x)))
        height, width = x.shape[1:3]
        windows, padded = window_partition(x, self.window)  # (B * nW, h, w, C)
        x = window_unpartition(self._attend(windows), self.window, (height, width), padded)  # (B, H, W, C)
        return cast(Tensor, self.proj(x))  # not before the padding is gone

    def _attend(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        qkv = self.qkv(x.flatten(1, 2))  # (B, N, 3C); streams may have forked here, so B is read off the output
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, N, D)
        rows, columns = self.rel_pos(height, width)
        grid = q.unflatten(2, (height, width))  # (B, heads, H, W, D)
        row_terms = torch.einsum("bnhwd,hkd->bnhwk", grid, rows).flatten(2, 3)  # (B, heads, N, H)
        column_terms = torch.einsum("bnhwd,wkd->bnhwk", grid, columns).flatten(2, 3)  # (B, heads, N, W)
        codes = _codes(height, width, k).expand(*k.shape[:2], -1, -1)  # (B, heads, N, H + W)
        long_q = torch.cat([q * q.shape[-1] ** -0.5, row_terms, column_terms], dim=-1)
        long_v = F.pad(v, (0, height + width))  # fused kernels want one width for all three
        y = F.scaled_dot_product_attention(long_q, torch.cat([k, codes], dim=-1), long_v, scale=1.0)
        y = y[..., : v.shape[-1]].transpose(1, 2).flatten(2)  # (B, N, C)
        return y.unflatten(1, (height, width))  # type: ignore[no-any-return]  # (B, H, W, C)


class Block(nn.Module):
    """One transformer block. (B, H, W, C) -> (B, H, W, C)"""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.attn = block.norm1, Attention(block.attn, block.window_size)
        self.norm2, self.mlp = block.norm2, block.mlp
        self.residual1, self.residual2 = Residual(), Residual()

    def forward(self, x: Tensor) -> Tensor:
        x = self.residual1(x, self.attn(self.norm1(x)))
        return cast(Tensor, self.residual2(x, self.mlp(self.norm2(x))))


class SamEncoder(Encoder):
    """SAM's image encoder: with its neck one stage and one level, without it four stages and levels.

    Stages end at the blocks with global attention. Position tables keep the size they were pretrained at and are
    resized in each forward, so pictures may have any size that is a multiple of the patch.

    Args:
        vit: timm's model, whose parts are taken over.
        neck: hand out the neck's output (256 channels in SAM), or else the output of every global block.

    Attributes:
        mask_decoder_state: what the pretrained weights hold for the mask decoder, under SAM's names; empty if they
            hold nothing for it, None if the encoder has no pretrained weights.
    """

    mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD  # the same as SAM's pixel_mean and pixel_std

    def __init__(self, vit: VisionTransformerSAM, neck: bool) -> None:
        super().__init__()
        self.mask_decoder_state: dict[str, Tensor] | None = None
        self.patch_embed, self.pos_embed = vit.patch_embed, vit.pos_embed
        self.blocks = nn.ModuleList(Block(block) for block in vit.blocks)
        self.neck: nn.Module = vit.neck if neck else nn.Identity()
        starts = [i + 1 for i, block in enumerate(vit.blocks) if not block.window_size]
        self.ends = [len(self.blocks)] if neck else starts
        self.taps = nn.ModuleList(Tap() for _ in self.ends)
        self.stride = cast(int, cast(Any, vit.patch_embed).patch_size[0])
        self.levels = tuple(Level(vit.num_features if neck else vit.embed_dim, self.stride) for _ in self.ends)

    def forward(self, images: Tensor) -> list[Tensor]:
        check_size(images.shape[-2:], self.stride)
        x = self.patch_embed(images)  # (B, h, w, C)
        x = x + resample_abs_pos_embed_nhwc(self.pos_embed, x.shape[1:3])
        levels = []
        for stage, tap in zip(self._stages(), self.taps, strict=True):
            for block in stage:
                x = checkpoint(block, x, use_reentrant=False) if self.checkpointing and self.training else block(x)
            level, x = tap(self.neck(x.permute(0, 3, 1, 2)))  # (B, C, h, w)
            levels.append(level)
            x = x.permute(0, 2, 3, 1)  # (B, h, w, C)
        return levels

    def sites(self) -> list[Site]:
        width = cast(Block, self.blocks[0]).attn.width
        found = [Site("patch_embed", Role.patch_embed, 0, reads="")]
        for stage, (start, end) in enumerate(self._spans()):
            attention = [
                Site("attn.qkv", Role.qkv, stage, parts=(width, width, width)),
                Site("attn.rel_pos", Role.pos_bias, stage),
                Site("attn.proj", Role.proj, stage),
            ]
            for i in range(start, end):
                found += block_sites(
                    f"blocks.{i}", attention, entrance=found[-1].path, stage=stage, last=i + 1 == end, number=i
                )
            found.append(Site(f"taps.{stage}", Role.tap, stage, block=end - 1))
        return found

    def original(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key.replace(".attn.rel_pos.", ".attn.rel_pos_"): x for key, x in state.items()}

    def layouts(self, state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        original = self.original(state)
        sams = {key.replace(".mlp.fc", ".mlp.lin"): x for key, x in original.items()}
        return {"original": original, "segment_anything": sams}  # the latter as its `ImageEncoderViT` has them

    def _spans(self) -> list[tuple[int, int]]:
        return list(zip([0, *self.ends], self.ends, strict=False))

    def _stages(self) -> list[list[nn.Module]]:
        blocks = list(self.blocks)
        return [blocks[start:end] for start, end in self._spans()]


def check_size(size: tuple[int, ...], patch: int) -> None:
    """Refuse a picture that patches do not fill: its last rows or columns would be lost.

    Raises:
        ConfigError: naming the nearest size that can be.
    """
    if any(side < patch or side % patch for side in size):
        nearest = [max(1, round(side / patch)) * patch for side in size]
        raise ConfigError(f"image_size={list(size)}: SAM needs multiples of its patch, {patch}; try {nearest}")


def _by_offset(table: Tensor, size: int) -> Tensor:
    """The entry for each pair of places on one axis, the table resized linearly as in SAM: (2L - 1, D) -> (n, n, D)"""
    if len(table) != 2 * size - 1:
        table = F.interpolate(table.T.unsqueeze(0), size=2 * size - 1, mode="linear").squeeze(0).T  # (2n - 1, D)
    places = torch.arange(size, device=table.device)
    return table[places.unsqueeze(1) - places + size - 1]  # (n, n, D)


def _codes(height: int, width: int, like: Tensor) -> Tensor:
    """For each token its row and its column, one-hot: (N, H + W)"""
    rows = torch.eye(height, dtype=like.dtype, device=like.device).repeat_interleave(width, 0)  # (N, H)
    columns = torch.eye(width, dtype=like.dtype, device=like.device).repeat(height, 1)  # (N, W)
    return torch.cat([rows, columns], dim=1)
