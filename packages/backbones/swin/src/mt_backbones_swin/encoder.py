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
from mt_core.site import Prompts, Residual, Role, Site, Tap, block_sites


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
    """Self-attention within windows, shifted or not. (B * nW, N, C) -> (B * nW, N, C)

    Tokens beyond the window's, which come first, are prompts: they have no place, and so neither bias nor mask (VPT).
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.width, self.heads = attention.dim, attention.num_heads
        self.qkv = attention.qkv
        self.bias = RelativePositionBias(attention.relative_position_bias_table, attention.relative_position_index)
        self.proj = attention.proj

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        qkv = self.qkv(x)  # (B * nW, N, 3C); streams may have forked here, so B is read off the output
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B * nW, heads, N, C / heads)
        bias = self.bias()  # (heads, N, N), or (S, heads, N, N) where each of S streams has its own
        masks = bias.view(-1, 1, self.heads, *bias.shape[-2:])  # (S or 1, 1, heads, N, N)
        if mask is not None:
            masks = masks + mask.unsqueeze(1)  # (S or 1, nW, heads, N, N)
        if prompts := x.shape[1] - bias.shape[-1]:
            masks = F.pad(masks, (prompts, 0, prompts, 0))
        streams, windows = masks.shape[:2]
        # streams and windows that differ in their mask join the heads, so that no mask is repeated over the batch
        q, k, v = (t.unflatten(0, (streams, -1, windows)).transpose(0, 1).flatten(1, 3) for t in (q, k, v))
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=masks.flatten(0, 2).to(q.dtype))
        x = x.unflatten(1, (streams, windows, -1)).transpose(0, 1).flatten(0, 2)  # (B * nW, heads, N, C / heads)
        return cast(Tensor, self.proj(x.transpose(1, 2).flatten(2)))  # (B * nW, N, C)


class Block(nn.Module):
    """One Swin block. (B, H, W, C), and prompts (B, P, C) or None -> both

    Prompts stand in every window (Jia et al., ECCV 2022): what attention makes of them is their mean over the windows.
    """

    mask: Tensor | None

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.window, self.shift = tuple(block.window_size), tuple(block.shift_size)
        self.prompts = Prompts(block.attn.dim)
        self.norm1, self.attn, self.drop_path1 = block.norm1, WindowAttention(block.attn), block.drop_path1
        self.norm2, self.mlp, self.drop_path2 = block.norm2, block.mlp, block.drop_path2
        self.residual1, self.residual2 = Residual(), Residual()
        self.register_buffer("mask", block.attn_mask, persistent=False)

    def forward(self, x: Tensor, prompts: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        x, prompts = self.prompts(x, prompts)
        y, answers = self._attend(self.norm1(x), None if prompts is None else self.norm1(prompts))
        x = self.residual1(x, self.drop_path1(y))
        x = self.residual2(x, self.drop_path2(self.mlp(self.norm2(x))))
        if prompts is not None:
            prompts = prompts + self.drop_path1(answers)
            prompts = prompts + self.drop_path2(self.mlp(self.norm2(prompts)))
        return x, prompts

    def _attend(self, x: Tensor, prompts: Tensor | None) -> tuple[Tensor, Tensor | None]:
        height, width = x.shape[1:3]
        (window_h, window_w), (shift_h, shift_w) = self.window, self.shift
        x = torch.roll(x, (-shift_h, -shift_w), dims=(1, 2)) if any(self.shift) else x
        x = F.pad(x, (0, 0, 0, -width % window_w, 0, -height % window_h))
        padded_h, padded_w = x.shape[1:3]
        windows = window_partition(x, self.window).flatten(1, 2)  # (B * nW, N, C)
        if prompts is None:
            windows = self.attn(windows, self.mask)
        else:
            everywhere = prompts.repeat_interleave(len(windows) // len(prompts), 0)  # (B * nW, P, C)
            tokens = self.attn(torch.cat([everywhere, windows], dim=1), self.mask)  # (B * nW, P + N, C)
            answers, windows = tokens.split([prompts.shape[1], windows.shape[1]], dim=1)
            prompts = answers.unflatten(0, (len(prompts), -1)).mean(1)  # (B, P, C)
        windows = windows.unflatten(1, self.window)  # (B * nW, h, w, C)
        x = window_reverse(windows, self.window, padded_h, padded_w)[:, :height, :width]  # (B, H, W, C)
        return torch.roll(x, self.shift, dims=(1, 2)) if any(self.shift) else x, prompts


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
        levels, prompts = [], None
        for stage, merging, tap in zip(self._stages(), self._mergings(), self.taps, strict=True):
            for block in stage.blocks:
                if self.checkpointing and self.training:
                    x, prompts = checkpoint(block, x, prompts, use_reentrant=False)
                else:
                    x, prompts = block(x, prompts)
            prompts = merge_prompts(merging, prompts)
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
            width = cast(Block, stage.blocks[0]).attn.width
            attention = [
                Site("attn.qkv", Role.qkv, i, parts=(width, width, width)),
                Site("attn.bias", Role.pos_bias, i),
                Site("attn.proj", Role.proj, i),
            ]
            for j in range(len(stage.blocks)):
                path, last = f"layers.{i}.blocks.{j}", j + 1 == len(stage.blocks)
                entrance = Site(f"{path}.prompts", Role.prompts, i, last, block=number)
                found.append(entrance)
                found += block_sites(path, attention, entrance=entrance.path, stage=i, last=last, number=number)
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

    def _merging_sites(self, stage: int, block: int) -> list[Site]:
        path = f"layers.{stage + 1}.downsample"
        return [
            Site(f"{path}.norm", Role.norm, stage, block=block),
            Site(f"{path}.reduction", Role.merge, stage, block=block),
        ]


def merge_prompts(merging: nn.Module, prompts: Tensor | None) -> Tensor | None:
    """Prompts have no neighbours to merge with: four copies of each pass through the layer. (B, P, C) -> (B, P, 2C)"""
    if prompts is None or isinstance(merging, nn.Identity):
        return prompts
    return cast(Tensor, merging.reduction(merging.norm(prompts.repeat(1, 1, 4))))  # type: ignore[operator]
