"""MTLoRA on Swin as REFERENCE and paper write it: one task at a time, one equation per line, nothing shared or batched.

Reads the weights of an adapted encoder and computes one task's features from them. It is slow on purpose: every task
runs the whole trunk again and every frozen product is taken again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mt_adapters_mtlora.lora import TaskLoRA
from mt_core.low_rank import SharedLoRA

Drop = Callable[[nn.Module, Tensor, str], Tensor]  # (module, its input, stream) -> the input, dropped out


def no_dropout(module: nn.Module, x: Tensor, stream: str) -> Tensor:
    return x


def features(encoder: Any, images: Tensor, task: str, drop: Drop = no_dropout) -> list[Tensor]:
    """The features of `task` at every level, after patch merging. (B, 3, H, W) -> [(B, C_l, H_l, W_l), ...]"""
    shared = encoder.patch_embed(images)
    levels = []
    for i, stage in enumerate(encoder.layers):
        for block in stage.blocks[:-1]:
            shared = _shared_block(block, shared, drop)
        shared, special = _last_block(stage.blocks[-1], shared, task, drop)
        if i + 1 < len(encoder.layers):
            merging = encoder.layers[i + 1].downsample
            shared, special = _merge(merging, shared, "shared", drop), _merge(merging, special, task, drop)
        levels.append(special.permute(0, 3, 1, 2))
    return levels


def _shared_block(block: Any, x: Tensor, drop: Drop) -> Tensor:
    a = x + _project(block.attn.proj, _attend(block, block.norm1(x), drop), block, drop)
    h = F.gelu(_shared(block.mlp.fc1, block.norm2(a), drop))
    return a + _shared(block.mlp.fc2, h, drop)


def _last_block(block: Any, x: Tensor, task: str, drop: Drop) -> tuple[Tensor, Tensor]:
    """The shared stream and the task's: y_t = W x_shared + b + s B_t A_t x_t."""
    attended = _attend(block, block.norm1(x), drop)
    a_shared = x + _project(block.attn.proj, attended, block, drop)
    a_task = x + _project(block.attn.proj, attended, block, drop, task)
    n_shared, n_task = block.norm2(a_shared), block.norm2(a_task)
    h_shared = F.gelu(_shared(block.mlp.fc1, n_shared, drop))
    h_task = F.gelu(_special(block.mlp.fc1, n_shared, n_task, task, drop))
    out_shared = a_shared + _shared(block.mlp.fc2, h_shared, drop)
    out_task = a_task + _special(block.mlp.fc2, h_shared, h_task, task, drop)
    return out_shared, out_task


def _shared(layer: nn.Module, x: Tensor, drop: Drop) -> Tensor:
    """W x + b + s B A x"""
    if not isinstance(layer, SharedLoRA | TaskLoRA):
        return layer(x)
    update = torch.einsum("dr,rk,...k->...d", layer.b, layer.a, drop(layer, x, "shared"))
    return F.linear(x, layer.base.weight, layer.base.bias) + layer.scale * update


def _special(layer: nn.Module, x_shared: Tensor, x_task: Tensor, task: str, drop: Drop) -> Tensor:
    """W x_shared + b + s B_t A_t x_t"""
    assert isinstance(layer, TaskLoRA)
    update = torch.einsum("dr,rk,...k->...d", layer.task_b[task], layer.task_a[task], drop(layer, x_task, task))
    return F.linear(x_shared, layer.base.weight, layer.base.bias) + layer.scale * update


def _project(layer: nn.Module, windows: Tensor, block: Any, drop: Drop, task: str | None = None) -> Tensor:
    """The projection within windows, then windows back to a map. At proj the tasks share input and dropout mask."""
    if task is None:
        y = _shared(layer, windows, drop)
    else:
        y = _special(layer, windows, windows, task, lambda module, x, _: drop(module, x, "shared"))
    return _from_windows(y, block)


def _attend(block: Any, x: Tensor, drop: Drop) -> Tensor:
    """Attention within windows, before the projection. (B, H, W, C) -> (B * nW, N, C)"""
    attention = block.attn
    block.literal_size = x.shape[1:3]
    windows = _to_windows(x, block)  # (B * nW, N, C)
    qkv = _shared(attention.qkv, windows, drop)
    q, k, v = qkv.chunk(3, dim=-1)
    width = q.shape[-1] // attention.heads
    bias = attention.bias()
    outputs = []
    for head in range(attention.heads):
        part = slice(head * width, (head + 1) * width)
        scores = q[..., part] @ k[..., part].transpose(-1, -2) / width**0.5 + bias[head]
        if block.mask is not None:
            scores = scores + block.mask.repeat(len(scores) // len(block.mask), 1, 1)
        outputs.append(scores.softmax(-1) @ v[..., part])
    return torch.cat(outputs, -1)


def _to_windows(x: Tensor, block: Any) -> Tensor:
    (h, w), (sh, sw) = block.window, block.shift
    x = torch.roll(x, (-sh, -sw), dims=(1, 2))
    x = F.pad(x, (0, 0, 0, -x.shape[2] % w, 0, -x.shape[1] % h))
    rows = [
        image[top : top + h, left : left + w].reshape(h * w, -1)
        for image in x
        for top in range(0, x.shape[1], h)
        for left in range(0, x.shape[2], w)
    ]
    return torch.stack(rows)


def _from_windows(windows: Tensor, block: Any) -> Tensor:
    (h, w), (sh, sw), (height, width) = block.window, block.shift, block.literal_size
    across, down = -(-width // w), -(-height // h)
    images = []
    for image in windows.split(across * down):
        rows = [torch.cat([t.reshape(h, w, -1) for t in image[i * across : (i + 1) * across]], 1) for i in range(down)]
        images.append(torch.cat(rows, 0)[:height, :width])
    return torch.roll(torch.stack(images), (sh, sw), dims=(1, 2))


def _merge(merging: Any, x: Tensor, stream: str, drop: Drop) -> Tensor:
    x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
    x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
    layer, x = merging.reduction, merging.norm(x)
    if not isinstance(layer, SharedLoRA):
        return layer(x)
    update = torch.einsum("dr,rk,...k->...d", layer.b, layer.a, drop(layer, x, stream))
    return F.linear(x, layer.base.weight) + layer.scale * update
