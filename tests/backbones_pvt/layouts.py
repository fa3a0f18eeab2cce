"""Files as PVT's authors published them: their names and shapes, with random values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def authors_v1(
    widths: Sequence[int], depths: Sequence[int], ratios: Sequence[int], reductions: Sequence[int], side: int = 224
) -> dict[str, Tensor]:
    """A classifier of the first paper, for pictures of side x side."""
    shapes: Shapes = {
        "cls_token": (1, 1, widths[3]),
        **affine("norm", widths[3]),
        **layer("head", 1000, widths[3]),
    }
    for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        patch, inputs = (4, 3) if i == 0 else (2, widths[i - 1])
        places = (side // 2 ** (i + 2)) ** 2 + (i == 3)  # the class token has a place as well
        shapes |= layer(f"patch_embed{i + 1}.proj", width, inputs, patch, patch)
        shapes |= affine(f"patch_embed{i + 1}.norm", width) | {f"pos_embed{i + 1}": (1, places, width)}
        for j in range(depth):
            shapes |= block(f"block{i + 1}.{j}", width, width * ratios[i], reductions[i])
    return drawn(shapes)


def authors_v2(
    widths: Sequence[int], depths: Sequence[int], ratios: Sequence[int], reductions: Sequence[int]
) -> dict[str, Tensor]:
    """A classifier of the second paper."""
    shapes: Shapes = layer("head", 1000, widths[3])
    for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        kernel, inputs = (7, 3) if i == 0 else (3, widths[i - 1])
        shapes |= layer(f"patch_embed{i + 1}.proj", width, inputs, kernel, kernel)
        shapes |= affine(f"patch_embed{i + 1}.norm", width) | affine(f"norm{i + 1}", width)
        for j in range(depth):
            hidden = width * ratios[i]
            shapes |= block(f"block{i + 1}.{j}", width, hidden, reductions[i])
            shapes |= layer(f"block{i + 1}.{j}.mlp.dwconv.dwconv", hidden, 1, 3, 3)
    return drawn(shapes)


def block(name: str, width: int, hidden: int, reduction: int) -> Shapes:
    shapes = affine(f"{name}.norm1", width) | affine(f"{name}.norm2", width)
    shapes |= layer(f"{name}.attn.q", width, width) | layer(f"{name}.attn.kv", 2 * width, width)
    shapes |= layer(f"{name}.attn.proj", width, width)
    shapes |= layer(f"{name}.mlp.fc1", hidden, width) | layer(f"{name}.mlp.fc2", width, hidden)
    if reduction > 1:
        shapes |= layer(f"{name}.attn.sr", width, width, reduction, reduction) | affine(f"{name}.attn.norm", width)
    return shapes


def layer(name: str, outputs: int, *inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, *inputs), f"{name}.bias": (outputs,)}


def affine(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def drawn(shapes: Shapes) -> dict[str, Tensor]:
    return {name: torch.randn(shape) for name, shape in shapes.items()}
