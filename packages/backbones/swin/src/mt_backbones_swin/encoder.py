"""Swin's forward, written so that a task stream may fork anywhere (Liu et al., ICCV 2021; modules from timm).

timm builds every part; the four classes here take those parts over under the same names, and only decide how tensors
pass through them. B stands for all rows of the batch axis: streams times images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.swin_transformer import SwinTransformer, window_partition, window_reverse
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mt_core.backbone import Encoder, Level
from mt_core.site import Residual, Role, Site, Tap


class RelativePositionBias(nn.Module):
    """A bias for each head and each pair of places in a window, looked up by their offset. -> (heads, N, N)"""

    index: Tensor

    def __init__(self, table: nn.Parameter, index: Tensor) -> None:
        super().__init__()
        self.table = table
        self.register_buffer("index", index, persistent=False)

    def forward(self) -> Tensor:
        return self.table[self.index].permute(2, 0, 1)  # (heads, N, N)


class WindowAttention(nn.Module):
    """Self-attention within windows, shifted or not. (B * nW, N, C) -> (B * nW, N, C)"""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.width, self.heads = attention.dim, attention.num_heads
        self.qkv = attention.qkv
        self.bias = RelativePositionBias(attention.relative_position_bias_table, attention.relative_position_index)
        self.proj = attention.proj

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        qkv = self.qkv(x)  # (B * nW, N, 3C); streams may have forked here, so B is read off the output
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B * nW, heads, N, C / heads)
        bias = self.bias()  # (heads, N, N)
        if mask is None:
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        else:
            # one mask per window: windows join the heads, so that the mask is never repeated over the batch
            windows = len(mask)
            q, k, v = (t.unflatten(0, (-1, windows)).flatten(1, 2) for t in (q, k, v))  # (B, nW * heads, N, C / heads)
            masks = (mask.unsqueeze(1) + bias).flatten(0, 1)  # (nW * heads, N, N)
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=masks.to(q.dtype))
            x = x.unflatten(1, (windows, -1)).flatten(0, 1)  # (B * nW, heads, N, C / heads)
        return cast(Tensor, self.proj(x.transpose(1, 2).flatten(2)))  # (B * nW, N, C)


class Block(nn.Module):
    """One Swin block. (B, H, W, C) -> (B, H, W, C)"""

    mask: Tensor | None

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.window, self.shift = tuple(block.window_size), tuple(block.shift_size)
        self.norm1, self.attn, self.drop_path1 = block.norm1, WindowAttention(block.attn), block.drop_path1
        self.norm2, self.mlp, self.drop_path2 = block.norm2, block.mlp, block.drop_path2
        self.residual1, self.residual2 = Residual(), Residual()
        self.register_buffer("mask", block.attn_mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.residual1(x, self.drop_path1(self._attend(self.norm1(x))))
        return cast(Tensor, self.residual2(x, self.drop_path2(self.mlp(self.norm2(x)))))

    def _attend(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        (window_h, window_w), (shift_h, shift_w) = self.window, self.shift
        x = torch.roll(x, (-shift_h, -shift_w), dims=(1, 2)) if any(self.shift) else x
        x = F.pad(x, (0, 0, 0, -width % window_w, 0, -height % window_h))
        padded_h, padded_w = x.shape[1:3]
        windows = window_partition(x, self.window).flatten(1, 2)  # (B * nW, N, C)
        windows = self.attn(windows, self.mask).unflatten(1, self.window)  # (B * nW, h, w, C)
        x = window_reverse(windows, self.window, padded_h, padded_w)[:, :height, :width]  # (B, H, W, C)
        return torch.roll(x, self.shift, dims=(1, 2)) if any(self.shift) else x


class Stage(nn.Module):
    """The blocks of a stage, and the patch merging that leads into it (timm's order; identity for the first)."""

    def __init__(self, stage: Any) -> None:
        super().__init__()
        self.downsample: nn.Module = stage.downsample
        self.blocks = nn.ModuleList(Block(block) for block in stage.blocks)


class SwinEncoder(Encoder):
    """A Swin Transformer without its head and final norm, which hands out one level of features per stage.

    Args:
        swin: timm's model, whose parts are taken over.
        after_merging: hand out the features of a stage after the patch merging that follows it (MTLoRA and TGLoRA;
            channels 2C, 4C, 8C, 8C at strides 8, 16, 32, 32), or before it (timm, Segformer heads; C, 2C, 4C, 8C at
            strides 4, 8, 16, 32).
    """

    mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    def __init__(self, swin: SwinTransformer, after_merging: bool) -> None:
        super().__init__()
        self.after_merging = after_merging
        self.image_size = cast(tuple[int, int], swin.patch_embed.img_size)
        self.patch_embed = swin.patch_embed
        self.layers = nn.ModuleList(Stage(stage) for stage in swin.layers)
        self.taps = nn.ModuleList(Tap() for _ in self.layers)
        levels = [Level(info["num_chs"], info["reduction"]) for info in swin.feature_info]
        self.levels = (*levels[1:], levels[-1]) if after_merging else tuple(levels)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.patch_embed(images)  # (B, H / 4, W / 4, C)
        levels = []
        for stage, merging, tap in zip(self._stages(), self._mergings(), self.taps, strict=True):
            for block in stage.blocks:
                x = checkpoint(block, x, use_reentrant=False) if self.checkpointing and self.training else block(x)
            if self.after_merging:
                level, x = tap(merging(x))
            else:
                level, x = tap(x)
                x = merging(x)
            levels.append(level.permute(0, 3, 1, 2))  # (B, C, H, W)
        return levels

    def sites(self) -> list[Site]:
        found = [Site("patch_embed", Role.patch_embed, 0, reads=""), Site("patch_embed.norm", Role.norm, 0)]
        number = 0
        for i, (stage, merging) in enumerate(zip(self._stages(), self._mergings(), strict=True)):
            for j in range(len(stage.blocks)):
                last = j + 1 == len(stage.blocks)
                found += self._block_sites(f"layers.{i}.blocks.{j}", found[-1].path, i, number, last)
                number += 1
            tap = Site(f"taps.{i}", Role.tap, i, block=number - 1)
            merge = self._merging_sites(i, number - 1) if hasattr(merging, "reduction") else []
            found += [*merge, tap] if self.after_merging else [tap, *merge]
        return found

    def original(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key.replace(".attn.bias.table", ".attn.relative_position_bias_table"): x for key, x in state.items()}

    def _stages(self) -> list[Stage]:
        return cast(list[Stage], list(self.layers))

    def _mergings(self) -> list[nn.Module]:
        """The patch merging that follows each stage; after the last, the identity that stands before the first."""
        first, *others = (stage.downsample for stage in self._stages())
        return [*others, first]

    def _block_sites(self, block: str, entrance: str, stage: int, number: int, last: bool) -> list[Site]:
        width = cast(Block, self.get_submodule(block)).attn.width

        def site(name: str, role: Role, reads: str | None = None, parts: tuple[int, ...] = ()) -> Site:
            return Site(f"{block}.{name}", role, stage, last, reads, parts, number)

        return [
            site("norm1", Role.norm),
            site("attn.qkv", Role.qkv, parts=(width, width, width)),
            site("attn.bias", Role.pos_bias),
            site("attn.proj", Role.proj),
            site("residual1", Role.join, reads=entrance),
            site("norm2", Role.norm),
            site("mlp", Role.mlp),
            site("mlp.fc1", Role.fc1, reads=f"{block}.norm2"),
            site("mlp.fc2", Role.fc2),
            site("residual2", Role.join, reads=f"{block}.residual1"),
        ]

    def _merging_sites(self, stage: int, block: int) -> list[Site]:
        path = f"layers.{stage + 1}.downsample"
        return [
            Site(f"{path}.norm", Role.norm, stage, block=block),
            Site(f"{path}.reduction", Role.merge, stage, block=block),
        ]
